//! Why a run failed, and the exit code for each reason.
//!
//! Serde writes the JSON of an error from its fields: `error` is a stable code for programs. The
//! secrets in text from a server or a file are masked where it comes in, see `sql::redact`; SQL to be
//! run is ours.

use serde::{Serialize, Serializer};

use crate::effects::{Patch, TableSize};
use crate::history::plan::HistoryMismatch;
use crate::history::table::{Table, TableProblem};
use crate::migrations::prepared::NotRunnable;
use crate::migrations::rule::Rule;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::Attempt;
use crate::postgres::wait;
use crate::process::signals::Signal;
use crate::sql::LineColumn;

use super::event::{Blocker, HeldBy, Holder, InProgress, as_text};
use super::failure::{Failure, LostConnection, line_and_column};

/// Why the database could not be read or changed.
#[derive(Debug, Serialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum ApplyError {
    /// Pending migrations that cannot be run as they are.
    NotRunnable {
        migrations: Vec<NotRunnable>,
    },
    /// The history does not match the migrations.
    HistoryMismatch(HistoryMismatch),
    /// The table in the place of the history is something else.
    NotHistoryTable {
        #[serde(flatten)]
        table: Table,
        #[serde(serialize_with = "as_text")]
        problem: TableProblem,
    },
    /// Every attempt to connect failed.
    Unreachable {
        attempts: Vec<Attempt>,
    },
    /// The server is a standby, and stayed one.
    ReadOnly,
    /// Migrations were edited in steps that are done.
    ChangedSteps {
        migrations: Vec<ChangedStep>,
    },
    /// Migrations that are partly applied are not in the set.
    AbandonedProgress {
        migrations: Vec<AbandonedProgress>,
    },
    /// The progress table cannot be understood.
    BadProgressTable {
        #[serde(flatten)]
        table: Table,
        #[serde(serialize_with = "as_text")]
        problem: serde_json::Error,
    },
    /// The outcome of a statement outside any transaction is unknown.
    UnknownOutcome(Box<UnknownOutcome>),
    /// A statement of an earlier attempt is still running and cannot be ended.
    StaleBackend {
        migration: String,
        pid: String,
        /// The server's refusal, if it refused.
        #[serde(rename = "server_error")]
        error: Option<ServerError>,
    },
    /// Another session seems to be building the same index.
    IndexBeingBuilt {
        migration: String,
        index: String,
    },
    /// A statement outside a transaction needs a second connection.
    NoSecondConnection {
        migration: String,
    },
    /// A statement outside a transaction needs settings, which a pooler does not keep.
    PooledSettings {
        migration: String,
        /// As the file or the connection string has them.
        settings: Vec<String>,
    },
    /// A file gives a setting the server's own value, which discards that of the connection string.
    SettingReset {
        file: String,
        #[serde(flatten, serialize_with = "line_and_column")]
        position: Option<LineColumn>,
        setting: String,
        /// What the value comes from, such as `search_path in DATABASE_URL`.
        origin: String,
    },
    /// Pending statements scan or rewrite tables that are larger than `--max-blocking` allows.
    TableTooLarge {
        #[serde(rename = "max_blocking")]
        limit: u64,
        statements: Vec<BlockingStatement>,
    },
    Failed(Box<Failure>),
    /// The connection was lost in every attempt at the same transaction.
    ConnectionLost(Box<LostConnection>),
    /// The history had changed before every write.
    HistoryKeepsChanging(Table),
    HistoryTimeout(Table),
    /// `--create-database` failed.
    DatabaseNotCreated(Box<DatabaseNotCreated>),
    /// Our role lacks privileges on the history.
    PermissionDenied {
        #[serde(rename = "server_error")]
        error: ServerError,
        /// The statements that grant them.
        #[serde(rename = "sql")]
        statements: Vec<String>,
    },
    /// Another runner was at work all the time, or the history was locked.
    LockedOut {
        holder: HeldBy,
    },
    /// `wait`: others have not applied everything in time.
    StillPending {
        holder: Option<Holder>,
    },
    /// Every attempt at a migration ran into a lock or another conflict with a session.
    LockTimeout {
        #[serde(flatten)]
        failure: Box<Failure>,
        /// The session that was last seen to hold it.
        blocker: Option<Blocker>,
    },
    Stopped {
        #[serde(serialize_with = "signal_name")]
        signal: Signal,
        rolled_back: Option<RolledBack>,
    },
    /// A name on the command line is not that of a migration.
    NoSuchMigration {
        name: String,
    },
    /// `--through` names a migration that the database is past.
    ThroughIsBehind {
        name: String,
        /// One after it that is recorded, or would be recorded first.
        later: String,
    },
    /// `rehearse --from-scratch`, and the database has tables.
    NotEmpty,
    /// The command line names migrations to accept that are not applied yet.
    NotApplied {
        migrations: Vec<String>,
    },
}

fn signal_name<S: Serializer>(signal: &Signal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(signal.name())
}

/// A pending statement that scans or rewrites a table while others wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockingStatement {
    pub migration: String,
    pub file: String,
    #[serde(flatten, serialize_with = "line_and_column")]
    pub position: Option<LineColumn>,
    pub rule: Rule,
    /// What happens, and what to do about it.
    pub message: String,
    pub size: TableSize,
    pub patch: Option<Patch>,
}

/// A database that was to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseNotCreated {
    pub database: String,
    /// What it was to be a copy of; `None` is the server's default.
    pub template: Option<String>,
    #[serde(rename = "server_error")]
    pub error: ServerError,
    /// What creates it.
    pub sql: String,
}

/// What a signal interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// `None` if only rows were written.
    pub migration: Option<String>,
    /// Whether the server confirmed the rollback, or that the statement has ended.
    pub confirmed: bool,
    /// The kind of the statement, if it ran outside a transaction and so was not rolled back.
    pub outside_transaction: Option<&'static str>,
}

/// Progress of a migration that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AbandonedProgress {
    pub migration: String,
    /// SQL that gives the progress to the migration's new name; `NEW NAME` stands for that.
    #[serde(rename = "sql_if_renamed")]
    pub rename_sql: String,
    /// SQL that discards the progress.
    #[serde(rename = "sql_to_forget")]
    pub forget_sql: String,
}

/// A migration that was edited in a step that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedStep {
    pub file: String,
    /// The first step that differs, from 1.
    pub step: usize,
    /// Where that step begins now, if the file still has it.
    #[serde(flatten, serialize_with = "line_and_column")]
    pub position: Option<LineColumn>,
    /// How many steps are done.
    pub done: usize,
}

/// A statement outside any transaction that was started; nothing shows whether it finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnknownOutcome {
    pub migration: String,
    pub statement: String,
    /// SQL that records it as done.
    #[serde(rename = "sql_if_done")]
    pub done: String,
    /// SQL after which it is run again.
    #[serde(rename = "sql_to_run_again")]
    pub again: String,
}

impl From<Signal> for ApplyError {
    /// A signal that interrupted nothing.
    fn from(signal: Signal) -> ApplyError {
        ApplyError::Stopped { signal, rolled_back: None }
    }
}

impl ApplyError {
    /// The migration's failure, if that is what it is about.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ApplyError::Failed(failure) | ApplyError::LockTimeout { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        use ApplyError::*;
        match self {
            NoSuchMigration { .. } | ThroughIsBehind { .. } | NotEmpty | NotApplied { .. } => 64,
            NotRunnable { .. }
            | HistoryMismatch(_)
            | ChangedSteps { .. }
            | AbandonedProgress { .. }
            | BadProgressTable { .. }
            | NotHistoryTable { .. }
            | TableTooLarge { .. } => 65,
            Unreachable { attempts } => {
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
            LockedOut { .. }
            | StillPending { .. }
            | LockTimeout { .. }
            | StaleBackend { .. }
            | IndexBeingBuilt { .. }
            | NoSecondConnection { .. }
            | HistoryKeepsChanging(_)
            | HistoryTimeout(_) => 75,
            DatabaseNotCreated(failed) => match failed.error.code.as_str() {
                "42501" => 77,
                // The template is in use.
                "55006" => 75,
                // There is no such template.
                "3D000" => 78,
                _ => 69,
            },
            PermissionDenied { .. } => 77,
            PooledSettings { .. } | SettingReset { .. } => 78,
            Stopped { signal, .. } => signal.exit_code(),
        }
    }
}

/// An error, and what the run did before it.
#[derive(Debug, Serialize)]
pub struct RunFailure {
    #[serde(flatten)]
    pub error: ApplyError,
    /// The migrations that this run applied; they are kept.
    pub applied: Vec<String>,
    /// The migrations that are still pending, with the one that failed.
    pub pending: Vec<String>,
    /// The migrations of which it is not known whether they were committed: the one whose connection
    /// was lost, and those that were sent behind it.
    pub uncertain: Vec<String>,
    /// The migration with several steps that was not finished.
    pub in_progress: Option<InProgress>,
}

impl RunFailure {
    /// How many are pending beside the one that failed.
    pub fn pending_after_failure(&self) -> usize {
        let failed = match &self.error {
            ApplyError::ConnectionLost(broken) => broken.migration.as_ref(),
            ApplyError::Stopped { rolled_back: Some(rolled_back), .. } => {
                rolled_back.migration.as_ref()
            }
            error => error.failure().and_then(|failure| failure.migration.as_ref()),
        };
        let is_left =
            |pending: &&String| Some(*pending) != failed && !self.uncertain.contains(pending);
        self.pending.iter().filter(is_left).count()
    }
}

impl From<ApplyError> for RunFailure {
    fn from(error: ApplyError) -> RunFailure {
        RunFailure {
            error,
            applied: Vec::new(),
            pending: Vec::new(),
            uncertain: Vec::new(),
            in_progress: None,
        }
    }
}
