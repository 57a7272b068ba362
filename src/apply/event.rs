//! What happens during a run, as values.
//!
//! Serde writes the JSON of an event from its fields; `render::events` writes its sentence. The
//! secrets in text from a server or a file are masked where it comes in, see `sql::redact`.

use std::fmt::Display;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::history::plan::Plan;
use crate::history::table::History;
use crate::migrations::migration::Layout;
use crate::migrations::source::Origin;
use crate::postgres::notices::Notice;
use crate::postgres::session::{Attempt, ConnectionError, QueryError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The migrations were read: the first line of a run.
    Loaded {
        #[serde(rename = "from", serialize_with = "as_text")]
        origin: Origin,
        #[serde(serialize_with = "as_text")]
        layout: Layout,
        migrations: usize,
    },
    /// SQL files beside the migrations that the journal does not list.
    UnlistedFiles {
        files: Vec<String>,
    },
    /// It is not known which tables these statements lock, or how large these are, so `--max-blocking`
    /// cannot refuse them.
    NotMeasured {
        /// Their places.
        statements: Vec<String>,
    },
    /// A remark on the configuration.
    Note {
        message: String,
    },
    /// The database cannot be reached yet.
    Waiting {
        attempts: Vec<Attempt>,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// The database does not exist, and is created.
    CreatingDatabase {
        database: String,
        /// What it is a copy of; `None` is the server's default.
        template: Option<String>,
    },
    /// The database cannot be created yet.
    WaitingToCreate {
        database: String,
        #[serde(rename = "message", serialize_with = "as_text")]
        cause: QueryError,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    CreatedDatabase {
        database: String,
        /// `None` if another runner has created it meanwhile.
        #[serde(rename = "ms", serialize_with = "milliseconds_if_known")]
        took: Option<Duration>,
    },
    /// `--through` leaves later migrations pending.
    Through {
        migration: String,
        later: usize,
    },
    /// The server is a standby, something is pending, and the connection string names other servers.
    LookingForPrimary,
    /// The server is a standby, and something is pending.
    WaitingForPrimary {
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// Another runner is at work, or the history is locked.
    LockedOut {
        holder: HeldBy,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// `wait`: migrations are pending, which others are to apply.
    WaitingForMigrations {
        migrations: Vec<String>,
        /// The runner at work; `None` if there is none at the moment, or our role cannot see it.
        holder: Option<Holder>,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// Nothing is pending, and the history has rows that match no migration.
    UnknownRows {
        rows: Vec<String>,
    },
    Applying {
        migration: String,
        /// Whether a migration after it is applied already.
        out_of_order: bool,
    },
    /// The file of the migration that is being applied has nothing to run.
    NoStatement {
        migration: String,
    },
    /// Some steps of this migration are already done.
    Resuming {
        migration: String,
        #[serde(flatten)]
        done: StepsDone,
    },
    /// A step of a migration with several steps is done.
    Step {
        migration: String,
        #[serde(flatten)]
        step: StepNumber,
        /// The kind of its only statement, if that ran outside a transaction.
        outside_transaction: Option<&'static str>,
        /// `None` if an earlier attempt did it.
        #[serde(rename = "ms", serialize_with = "milliseconds_if_known")]
        took: Option<Duration>,
    },
    /// The session that holds the lock was lost while a statement ran outside a transaction.
    LockLost {
        migration: String,
    },
    /// The statement has ended, and the backend of the session that was lost still holds the lock.
    LockLeft {
        migration: String,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// A backend still runs a statement of an earlier attempt, whose runner may be alive.
    BackendRuns {
        migration: String,
        pid: String,
        #[serde(rename = "remaining_ms", serialize_with = "milliseconds")]
        left: Duration,
    },
    /// A backend that still runs a statement of an earlier attempt is terminated.
    EndingBackend {
        migration: String,
        pid: String,
    },
    /// An index that an earlier build left invalid is dropped, to be built again.
    Rebuilding {
        migration: String,
        index: String,
    },
    /// A statement that cannot be undone was half done, and is finished with this SQL.
    Finishing {
        migration: String,
        sql: String,
    },
    /// Invalid indexes remain; this SQL drops them.
    InvalidIndexes {
        sql: String,
    },
    /// Statements outside a transaction have no time limits behind a pooler.
    NoTimeLimits,
    /// A statement waits for a lock.
    Blocked {
        /// `None` while only rows are written.
        migration: Option<String>,
        blocker: Blocker,
    },
    /// What was sent has been running for a second or more; comes once a second.
    Running(Running),
    /// The server said something while a migration ran.
    Notice {
        /// `None` while only rows are written.
        migration: Option<String>,
        #[serde(flatten)]
        notice: Notice,
    },
    /// So many notices of a migration are not reported.
    NoticesLeftOut {
        migration: Option<String>,
        count: usize,
    },
    Applied(Applied),
    /// Migrations were recorded without running them.
    Recorded {
        migrations: Vec<String>,
        kind: RecordKind,
    },
    NothingToRecord {
        kind: RecordKind,
        /// The migrations that were asked for, all if empty; for `baseline`, the last of them.
        #[serde(rename = "migrations")]
        named: Vec<String>,
    },
    /// The same migration is tried again after a pause.
    Retrying {
        /// `None` while only rows are written.
        migration: Option<String>,
        #[serde(flatten)]
        reason: RetryReason,
        #[serde(rename = "retry_in_ms", serialize_with = "milliseconds")]
        pause: Duration,
        /// The attempt that comes next; the first is 1.
        attempt: u32,
    },
    UpToDate {
        applied: usize,
    },
    /// All that was to be applied is.
    Done {
        /// How many migrations this run has applied.
        applied: usize,
        /// How long it has worked on them, without the time in which it waited for another runner or
        /// for a connection.
        #[serde(rename = "ms", serialize_with = "milliseconds")]
        took: Duration,
        /// How long of that it waited for locks, as far as it was seen.
        #[serde(rename = "lock_wait_ms", serialize_with = "milliseconds")]
        lock_wait: Duration,
    },
    /// `PREMIGRATE_SKIP` is set.
    Skipped,
    /// `--only-for` does not name this app.
    NotForApp {
        app: String,
    },
    /// The app replaces this process.
    Starting {
        app: String,
    },
    /// This is still so, and was reported before: it is printed again only from time to time.
    #[serde(skip)]
    Repeated(Box<Event>),
    /// Not printed: for those who ask.
    #[serde(skip)]
    Unprinted(Unprinted),
}

/// What is too little to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unprinted {
    /// The history was read: so many of our migrations are applied and pending.
    HistoryRead { applied: usize, pending: usize },
    /// A step is sent to the server. Whether another runner has the lock is known a moment later.
    Step { migration: String, step: StepNumber, has_lock: bool },
    /// The statement that waited for a lock does not wait any more.
    Unblocked,
}

impl Event {
    pub fn history_read(plan: &Plan) -> Event {
        let (applied, pending) = (plan.applied, plan.pending.len());
        Event::Unprinted(Unprinted::HistoryRead { applied, pending })
    }

    /// The rows of the history that match no migration, if there are any.
    pub fn unknown_rows(plan: &Plan, history: &History) -> Option<Event> {
        let rows = plan.unknown.iter().filter_map(|&row| history.rows.get(row));
        let rows: Vec<_> = rows.map(ToString::to_string).collect();
        (!rows.is_empty()).then_some(Event::UnknownRows { rows })
    }

    /// How much longer is waited, at most.
    pub fn remaining(&self) -> Option<Duration> {
        match self {
            Event::Waiting { left, .. }
            | Event::WaitingToCreate { left, .. }
            | Event::WaitingForPrimary { left }
            | Event::WaitingForMigrations { left, .. }
            | Event::BackendRuns { left, .. }
            | Event::LockedOut { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// The event, which is printed only if it is new.
    pub fn repeated_unless(self, is_new: bool) -> Event {
        if is_new { self } else { Event::Repeated(Box::new(self)) }
    }
}

impl Event {
    /// Whether it says what becomes of the migration that was announced last.
    pub fn is_about_migration(&self) -> bool {
        matches!(
            self,
            Event::Resuming { .. }
                | Event::NoStatement { .. }
                | Event::Step { .. }
                | Event::LockLost { .. }
                | Event::BackendRuns { .. }
                | Event::EndingBackend { .. }
                | Event::Rebuilding { .. }
                | Event::Finishing { .. }
                | Event::InvalidIndexes { .. }
                | Event::NoTimeLimits
                | Event::Blocked { .. }
                | Event::Running(_)
                | Event::Notice { .. }
                | Event::NoticesLeftOut { .. }
                | Event::Applied(_)
                | Event::Retrying { .. }
        )
    }
}

/// What the server works on, and how far it is, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// `None` while only rows are written.
    pub migration: Option<String>,
    /// `None` if the migration has only one step.
    #[serde(flatten)]
    pub step: Option<StepNumber>,
    /// From 1. `None` if it is one of several: the server tells of all that are sent together when the
    /// last is done.
    pub statement: Option<usize>,
    /// How many statements the file has.
    pub statements: usize,
    /// The kind of the statement, if it runs outside a transaction.
    pub outside_transaction: Option<&'static str>,
    /// Since it was sent.
    #[serde(rename = "running_ms", serialize_with = "milliseconds")]
    pub running_for: Duration,
    /// The session that it waits for.
    pub blocker: Option<Blocker>,
    pub activity: Option<CommandProgress>,
}

/// What the server says of a statement that tells its progress: an index build, VACUUM, ANALYZE,
/// CLUSTER or COPY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandProgress {
    /// `CREATE INDEX CONCURRENTLY`, `VACUUM`, `COPY FROM`, ...
    pub command: String,
    pub table: Option<String>,
    /// `None` where the command has only one.
    pub phase: Option<String>,
    /// How much of the phase is done.
    pub percent: Option<u8>,
}

/// Why migrations are recorded without running them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// The database has what they would make.
    Baseline,
    /// They were edited after they were applied.
    Accept,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum RetryReason {
    /// A lock timeout, a deadlock, or another conflict with a session.
    Lock {
        sqlstate: String,
        message: String,
        /// The session that was last seen to hold the lock.
        blocker: Option<Blocker>,
        /// Whether nothing could be rolled back.
        outside_transaction: bool,
    },
    /// The connection was lost before the server confirmed.
    ConnectionLost {
        #[serde(rename = "message")]
        cause: ConnectionError,
    },
}

/// Who keeps us from working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HeldBy {
    Session(Holder),
    /// One that has gone since.
    Gone,
    /// One that our role cannot see.
    Unseen,
}

impl HeldBy {
    /// The session, if it is known.
    pub fn session(&self) -> Option<&Holder> {
        match self {
            HeldBy::Session(holder) => Some(holder),
            HeldBy::Gone | HeldBy::Unseen => None,
        }
    }
}

/// The session, as `pg_stat_activity` shows it to our role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holder {
    pub kind: HolderKind,
    pub pid: String,
    pub application: Option<String>,
    pub address: Option<String>,
    /// How long its transaction has been open.
    #[serde(rename = "open_for_ms", serialize_with = "milliseconds_if_known")]
    pub open_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    /// Has our lock, or writes to the history.
    #[default]
    Runner,
    /// Vacuums the history.
    Autovacuum,
    /// Has locked the history, and writes nothing to it.
    Other,
}

/// The session that holds a lock a statement of ours waits for, as our role sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// 0 is a prepared transaction.
    pub pid: String,
    pub application: Option<String>,
    pub role: Option<String>,
    /// `active`, `idle in transaction`, ...
    pub state: Option<String>,
    /// How long its transaction has been open.
    #[serde(rename = "open_for_ms", serialize_with = "milliseconds_if_known")]
    pub open_for: Option<Duration>,
    /// The beginning of its current or last query.
    pub query: Option<String>,
    /// The table that is locked, if it is one.
    pub table: Option<String>,
    /// How many more sessions block the statement.
    pub others: usize,
}

/// The current step of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepNumber {
    /// From 1; more than there are where only the history row is missing.
    pub step: usize,
    #[serde(rename = "step_count")]
    pub of: usize,
}

impl StepNumber {
    /// `None` where there is nothing to count: the only step, or the history row alone.
    pub fn of_several(self) -> Option<StepNumber> {
        (self.of > 1 && !self.is_record()).then_some(self)
    }

    /// Whether all steps are done, and only the history row is missing.
    pub fn is_record(self) -> bool {
        self.step > self.of
    }
}

/// How many steps of a migration are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepsDone {
    #[serde(rename = "steps_done")]
    pub done: usize,
    #[serde(rename = "step_count")]
    pub of: usize,
}

/// A migration with several steps that was not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InProgress {
    pub migration: String,
    #[serde(flatten)]
    pub step: StepNumber,
    /// The kind of the step's only statement, if it runs outside a transaction.
    pub outside_transaction: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub migration: String,
    /// `None` if the reply to COMMIT was lost.
    #[serde(rename = "ms", serialize_with = "milliseconds_if_known")]
    pub took: Option<Duration>,
}

/// A value as its `Display` has it.
pub(crate) fn as_text<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn milliseconds<S: Serializer>(
    time: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn milliseconds_if_known<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}
