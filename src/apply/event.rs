//! What happened, as values: the events of a run, and how a migration failed.
//!
//! No sentence is stored here; `render` makes text or JSON of the same value.

use std::time::Duration;

use crate::migrations::migration::Layout;
use crate::migrations::source::Origin;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError};
use crate::sql::redact;

/// Something worth telling while a run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Where the set came from: the first line of a run.
    Carrying {
        /// Where from.
        origin: Origin,
        /// In which layout.
        layout: Layout,
        /// How many there are.
        migrations: usize,
    },
    /// A remark on the configuration.
    Note(String),
    /// The database is not there yet.
    Waiting {
        /// Each place that was tried.
        attempts: Vec<Attempt>,
        /// For how much longer it will be tried.
        left: Duration,
    },
    /// The server is a standby, and something is pending.
    WaitingForPrimary {
        /// For how much longer.
        left: Duration,
    },
    /// Another runner is at work.
    LockedOut {
        /// Who it is, as far as we may see it.
        holder: Option<Holder>,
        /// For how much longer it will be waited for.
        left: Duration,
    },
    /// The database knows migrations that are not carried; nothing is pending.
    Unknown {
        /// What is known of each row: its name, or else its hash.
        rows: Vec<String>,
    },
    /// A migration is about to run.
    Applying {
        /// Which.
        migration: String,
        /// Whether one that comes after it has been applied already.
        out_of_order: bool,
    },
    /// A migration of several steps was begun by an earlier start.
    Resuming {
        /// Which.
        migration: String,
        /// How many of its steps are done, and of how many.
        done: StepNumber,
    },
    /// A step of a migration that has several is done.
    Step {
        /// The migration.
        migration: String,
        /// Which of its steps.
        reached: StepNumber,
        /// What its only statement is, if that ran outside a transaction.
        outside_transaction: Option<&'static str>,
        /// How long it took; unknown where an earlier start did it.
        took: Option<Duration>,
    },
    /// A backend is ended in which a statement of an earlier start runs on.
    EndingOrphan {
        /// The migration.
        migration: String,
        /// The backend's process number.
        pid: String,
    },
    /// An index that an earlier build left INVALID is dropped, to be built again.
    Rebuilding {
        /// The migration.
        migration: String,
        /// The index.
        index: String,
    },
    /// A statement waits for a lock.
    Blocked {
        /// The migration; none where only rows are to be written.
        migration: Option<String>,
        /// Who holds the lock.
        blocker: Blocker,
    },
    /// The server has committed it.
    Applied(Done),
    /// Migrations were recorded, and not run.
    Recorded {
        /// Which.
        migrations: Vec<String>,
        /// What for.
        kind: RecordKind,
    },
    /// There was nothing to record.
    NothingToRecord {
        /// What for.
        kind: RecordKind,
        /// The migrations that were named; none is all. For `baseline`, the last of them.
        named: Vec<String>,
    },
    /// A transaction was rolled back, and will be tried again.
    Retrying {
        /// The migration; none where only rows were to be written.
        migration: Option<String>,
        /// Why.
        why: RetryReason,
        /// After this pause.
        pause: Duration,
        /// Which attempt comes next, the first being 1.
        attempt: u32,
    },
    /// Nothing is pending.
    UpToDate {
        /// How many are applied.
        applied: usize,
    },
    /// `PREMIGRATE_SKIP`: nothing was looked at.
    Skipped,
    /// The app takes over.
    Starting {
        /// Its name.
        app: String,
    },
}

/// Why migrations are recorded without running them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// `baseline`: the database has what they would make.
    Baseline,
    /// `accept`: they were edited after they had been applied.
    Accept,
}

/// Why a migration is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// A lock did not come, or transactions were in each other's way.
    Lock {
        /// What the server said.
        error: ServerError,
        /// Who was seen to hold it.
        blocker: Option<Blocker>,
        /// Whether it was outside a transaction, so that nothing was rolled back.
        outside_transaction: bool,
    },
    /// The connection broke before the server confirmed.
    Lost(ConnectionError),
}

/// Another runner, as `pg_stat_activity` shows it to our role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its backend's process number.
    pub pid: String,
    /// Its `application_name`.
    pub application: Option<String>,
    /// Its client's address.
    pub address: Option<String>,
    /// How long its transaction has been open.
    pub since: Option<String>,
}

/// Who holds a lock that a statement of ours waits for, as far as our role may see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocker {
    /// Its backend's process number; 0 is a prepared transaction.
    pub pid: String,
    /// Its `application_name`.
    pub application: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// `active`, `idle in transaction`, ...
    pub state: Option<String>,
    /// How long its transaction has been open.
    pub since: Option<String>,
    /// The beginning of what it runs, or ran last.
    pub query: Option<String>,
    /// The table that is waited for, if it is one.
    pub table: Option<String>,
    /// How many others are in the way too.
    pub others: usize,
}

/// One of a migration's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepNumber {
    /// Which, from 1.
    pub step: usize,
    /// Of how many.
    pub of: usize,
}

/// A migration of several steps that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProgress {
    /// Which.
    pub migration: String,
    /// Where it is.
    pub reached: StepNumber,
    /// What that step's only statement is, if it runs outside a transaction.
    pub outside_transaction: Option<&'static str>,
}

/// A migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub migration: String,
    /// How long it took; unknown where its connection broke before the server could confirm.
    pub took: Option<Duration>,
}

/// What of a migration failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The transaction could not be begun as it has to be.
    Begin,
    /// A setting that an earlier step made, and that this one is to have too.
    Replay,
    /// A statement of the file.
    Statement,
    /// What was left for the end of the transaction: deferred constraints and triggers.
    Deferred,
    /// The file ended the transaction that it was to run in, as far as we see.
    LostTransaction,
    /// The history row.
    Record,
    /// COMMIT.
    Commit,
}

/// A transaction that failed, and was rolled back; or a statement that ran outside of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The migration; none where only rows were to be written.
    pub migration: Option<String>,
    /// Its file.
    pub file: Option<String>,
    /// What of it failed.
    pub phase: Phase,
    /// Which statement, from 1.
    pub statement: Option<usize>,
    /// How many statements the file has.
    pub statements: usize,
    /// Line and column, from 1, in characters.
    pub place: Option<(usize, usize)>,
    /// The text around it.
    pub excerpt: Option<Excerpt>,
    /// What the server said.
    pub error: ServerError,
    /// What we know that the server does not say.
    pub advice: Option<Advice>,
    /// The step, where the migration has several.
    pub reached: Option<StepNumber>,
    /// What the statement is, if it ran outside a transaction.
    pub outside_transaction: Option<&'static str>,
}

/// Advice of our own, below the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// On an empty history, the first migration's objects exist already.
    Baseline,
    /// The migration's text does not show that it cannot run in one transaction.
    NoTransaction,
}

/// Lines of a file, with a caret below one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Line numbers with their text.
    pub lines: Vec<(usize, String)>,
    /// The column below whose last line the caret stands, from 1; none where the server does not
    /// say where in the statement it is.
    pub caret: Option<usize>,
}

impl Excerpt {
    /// The line with this number, from 1, and the one before it, without passwords: they may begin
    /// before that.
    pub fn of(text: &str, line: usize, caret: Option<usize>) -> Excerpt {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let masked = redact::passwords(text);
        let first = line.saturating_sub(1).max(1);
        let numbered = (1..).zip(masked.split('\n')).skip(first - 1).take(line + 1 - first);
        let lines = numbered.map(|(number, line)| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            (number, line.to_owned())
        });
        let caret = caret.map(|column| masked_column(text, line, column));
        Excerpt { lines: lines.collect(), caret }
    }
}

/// Where a column of a line is once passwords are masked.
fn masked_column(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let (before, rest) = text.split_at_checked(before).unwrap_or((text, ""));
    let in_line = rest.chars().take(column.saturating_sub(1));
    let before: String = before.chars().chain(in_line).collect();
    let masked = redact::passwords(&before);
    masked.rsplit('\n').next().unwrap_or_default().chars().count() + 1
}

/// A transaction of which the connection's end leaves open what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The migration; none where only rows were to be written.
    pub migration: Option<String>,
    /// Its step, from 1; 0 where only rows were to be written.
    pub step: usize,
    /// How many statements are known to have completed.
    pub completed: usize,
    /// How many the file has.
    pub statements: usize,
    /// What broke.
    pub trouble: ConnectionError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_has_no_password_and_its_caret_stays_true() {
        let text = "create role a password\n'longer than its mask' nonsense;\nselect 1";
        let excerpt = Excerpt::of(text, 2, Some(24));
        let line = "'***' nonsense;";
        let lines = [(1, "create role a password".to_owned()), (2, line.to_owned())];
        assert_eq!(excerpt.lines, lines);
        assert_eq!(excerpt.caret, line.find("nonsense").map(|at| at + 1));
        assert_eq!(Excerpt::of("a\r\nb c", 2, Some(3)).caret, Some(3));
    }
}
