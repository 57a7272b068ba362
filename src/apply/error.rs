//! Why the database is not as it was to be, and the exit code for each reason.

use crate::history::plan::Disagreement;
use crate::history::progress::BadProgressTable;
use crate::history::table::{self, NotHistoryTable, Table};
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::NotRunnable;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::Attempt;
use crate::postgres::wait;
use crate::process::signals::Signal;

use super::event::{Blocker, Broken, Failure, Holder, InProgress};

/// Why the database could not be asked, or not be changed as asked.
#[derive(Debug)]
pub enum ApplyError {
    /// Pending migrations that cannot be run as they are.
    NotRunnable(Vec<NotRunnable>),
    /// History and carried set disagree.
    Conflict(Conflict),
    /// The table that is there is not a history.
    NotHistoryTable(Table, NotHistoryTable),
    /// No place that was tried let us in.
    Unreachable(Vec<Attempt>),
    /// The server is a standby, and stayed one.
    ReadOnly,
    /// Migrations were edited in what an earlier start has done of them.
    ChangedSteps(Vec<ChangedStep>),
    /// Migrations that were begun are not in the set.
    AbandonedProgress(Vec<AbandonedProgress>),
    /// The progress table cannot be understood.
    BadProgressTable(Table, BadProgressTable),
    /// What became of a statement outside any transaction cannot be told.
    UnknownOutcome(Box<UnknownOutcome>),
    /// A statement of an earlier start runs on, and cannot be ended.
    StaleBackend {
        /// The migration.
        migration: String,
        /// The backend's process number.
        pid: String,
        /// Why not, if the server said so.
        error: Option<ServerError>,
    },
    /// Someone else seems to be building an index that is to be built.
    IndexBeingBuilt {
        /// The migration.
        migration: String,
        /// The index.
        index: String,
    },
    /// There is no second connection while a statement runs outside a transaction.
    NoSecondConnection {
        /// The migration.
        migration: String,
    },
    /// Settings that a statement outside a transaction needs do not survive in a pooler.
    PooledSettings {
        /// The migration.
        migration: String,
        /// The settings, in the file's words.
        settings: Vec<String>,
    },
    /// A migration failed.
    Failed(Box<Failure>),
    /// A migration's connection broke, each time it was tried.
    ConnectionLost(Box<Broken>),
    /// The history looks different each time that something is to be written.
    HistoryKeepsChanging(Table),
    /// The server does not answer about the history.
    HistoryTimeout(Table),
    /// Our role may not do to the history what has to be done.
    PermissionDenied {
        /// What the server said.
        error: ServerError,
        /// The statements that someone who may has to run.
        statements: Vec<String>,
    },
    /// Another runner was at work all the time.
    LockedOut(Option<Holder>),
    /// Every attempt at a migration met a lock; with who was last seen to hold it.
    LockTimeout(Box<Failure>, Option<Blocker>),
    /// A signal ended the run.
    Stopped {
        /// Which.
        signal: Signal,
        /// What was running, and whether its roll-back was confirmed.
        rolled_back: Option<RolledBack>,
    },
    /// A name on the command line is not one of a carried migration.
    NoSuchMigration(String),
    /// These are pending, so that there is nothing of them to accept.
    NotApplied(Vec<String>),
}

/// What a signal interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The migration; none where only rows were to be written.
    pub migration: Option<String>,
    /// Whether the server confirmed the roll-back, or that the statement has ended.
    pub confirmed: bool,
    /// What ran, if it was outside a transaction, so that nothing rolls it back.
    pub outside_transaction: Option<&'static str>,
}

/// Progress of a migration that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedProgress {
    pub migration: String,
    /// SQL that gives the progress to the migration's new name, which has to be filled in.
    pub rename_sql: String,
    /// SQL that forgets the progress.
    pub forget_sql: String,
}

/// A migration that was edited in what is done already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedStep {
    /// Its file.
    pub file: String,
    /// The first unit that is not what was done, from 1.
    pub step: usize,
    /// Where that begins now, if it is there: line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// How many units are done.
    pub done: usize,
}

/// A statement outside any transaction that has begun, and of which nothing tells what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOutcome {
    /// The migration.
    pub migration: String,
    /// The statement.
    pub statement: String,
    /// SQL that says it is done.
    pub done: String,
    /// SQL that has it run again.
    pub again: String,
}

/// How history and carried set disagree, with the names of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Changed after they had been applied.
    Edited(Vec<Edited>),
    /// Rows that could belong to several migrations.
    Ambiguous {
        /// The rows.
        rows: Vec<String>,
        /// The migrations.
        migrations: Vec<String>,
    },
    /// No row is about anything carried.
    NothingMatches {
        /// How many rows there are.
        rows: usize,
        /// How many migrations.
        migrations: usize,
    },
    /// Pending ones come before everything that was applied.
    OlderThanHistory {
        /// They.
        pending: Vec<String>,
        /// The first that was applied.
        first_applied: String,
    },
    /// Pending ones may be what an unknown row recorded.
    PossiblyApplied {
        /// They.
        pending: Vec<String>,
        /// The rows.
        unknown: Vec<String>,
    },
    /// The table has to be upgraded to Drizzle 1.x's, but these rows have no name to get.
    NotUpgradable {
        /// The rows that match nothing.
        unknown: Vec<String>,
    },
    /// `--strict` forbids it.
    Strict {
        /// Pending and out of order.
        out_of_order: Vec<String>,
        /// The rows that match nothing.
        unknown: Vec<String>,
    },
}

/// A migration that was changed after it had been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Its name.
    pub migration: String,
    /// Its file.
    pub file: String,
    /// The hash that was recorded.
    pub recorded: String,
    /// The hash it has now.
    pub present: String,
}

impl Conflict {
    /// Puts names to a disagreement.
    pub fn new(disagreement: Disagreement, set: &MigrationSet, rows: &[table::Row]) -> Conflict {
        let migration = |place: usize| set.get(place).map(|m| m.name.clone()).unwrap_or_default();
        let migrations = |places: Vec<usize>| places.into_iter().map(migration).collect();
        let rows_at = |places: Vec<usize>| {
            places.into_iter().filter_map(|place| Some(rows.get(place)?.to_string())).collect()
        };
        match disagreement {
            Disagreement::Edited(edited) => Conflict::Edited(
                edited
                    .into_iter()
                    .filter_map(|(place, row)| {
                        let (migration, row) = (set.get(place)?, rows.get(row)?);
                        Some(Edited {
                            migration: migration.name.clone(),
                            file: migration.file.clone(),
                            recorded: row.hash.clone(),
                            present: migration.hash.to_string(),
                        })
                    })
                    .collect(),
            ),
            Disagreement::Ambiguous { rows, migrations: places } => {
                Conflict::Ambiguous { rows: rows_at(rows), migrations: migrations(places) }
            }
            Disagreement::NothingMatches => {
                Conflict::NothingMatches { rows: rows.len(), migrations: set.migrations().len() }
            }
            Disagreement::OlderThanHistory { pending, first_applied } => {
                Conflict::OlderThanHistory {
                    pending: migrations(pending),
                    first_applied: migration(first_applied),
                }
            }
            Disagreement::PossiblyApplied { pending, unknown } => Conflict::PossiblyApplied {
                pending: migrations(pending),
                unknown: rows_at(unknown),
            },
            Disagreement::NotUpgradable { unknown } => {
                Conflict::NotUpgradable { unknown: rows_at(unknown) }
            }
            Disagreement::Strict { out_of_order, unknown } => Conflict::Strict {
                out_of_order: migrations(out_of_order),
                unknown: rows_at(unknown),
            },
        }
    }
}

impl From<Signal> for ApplyError {
    /// A signal that interrupted nothing.
    fn from(signal: Signal) -> ApplyError {
        ApplyError::Stopped { signal, rolled_back: None }
    }
}

impl ApplyError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        use ApplyError::*;
        match self {
            NoSuchMigration(_) | NotApplied(_) => 64,
            NotRunnable(_) | Conflict(_) | ChangedSteps(_) | AbandonedProgress(_)
            | BadProgressTable(..) | NotHistoryTable(..) => 65,
            Unreachable(attempts) => {
                if attempts.iter().any(|attempt| attempt.cause.is_config_error()) {
                    78
                } else if attempts.iter().any(|attempt| wait::is_rejection(&attempt.cause)) {
                    77
                } else {
                    69
                }
            }
            ReadOnly => 69,
            Failed(_) | ConnectionLost(_) | UnknownOutcome(_) => 70,
            LockedOut(_)
            | LockTimeout(..)
            | StaleBackend { .. }
            | IndexBeingBuilt { .. }
            | NoSecondConnection { .. }
            | HistoryKeepsChanging(_)
            | HistoryTimeout(_) => 75,
            PermissionDenied { .. } => 77,
            PooledSettings { .. } => 78,
            Stopped { signal, .. } => signal.exit_code(),
        }
    }
}

/// An error, and what had been done before it.
#[derive(Debug)]
pub struct RunFailure {
    /// Why the run ended.
    pub error: ApplyError,
    /// The migrations that this run applied; they stay.
    pub applied: Vec<String>,
    /// The migrations that are still pending, with the one that failed.
    pub pending: Vec<String>,
    /// The migration whose connection broke, so that it is open whether it was committed.
    pub uncertain: Option<String>,
    /// The migration that was under way in several units.
    pub in_progress: Option<InProgress>,
}

impl RunFailure {
    /// How many are pending beside the one that failed.
    pub fn pending_after_failure(&self) -> usize {
        let failed = match &self.error {
            ApplyError::Failed(failure) | ApplyError::LockTimeout(failure, _) => {
                failure.migration.as_ref()
            }
            ApplyError::ConnectionLost(broken) => broken.migration.as_ref(),
            ApplyError::Stopped { rolled_back: Some(it), .. } => it.migration.as_ref(),
            _ => None,
        };
        self.pending
            .iter()
            .filter(|pending| Some(*pending) != failed && Some(*pending) != self.uncertain.as_ref())
            .count()
    }
}

impl From<ApplyError> for RunFailure {
    fn from(error: ApplyError) -> RunFailure {
        RunFailure {
            error,
            applied: Vec::new(),
            pending: Vec::new(),
            uncertain: None,
            in_progress: None,
        }
    }
}
