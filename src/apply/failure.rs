//! How a migration failed: the server's error, the position in the file, and what it means.
//!
//! Serde writes the JSON of a failure from its fields; `render::failure` writes its text. The
//! excerpt has its passwords masked here, the server's error where it is received.

use serde::{Serialize, Serializer};

use crate::postgres::server_error::ServerError;
use crate::postgres::session::ConnectionError;
use crate::sql::{LineColumn, redact};

use super::event::StepNumber;

/// A transaction that failed and was rolled back, or a statement that failed outside of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// `None` if only rows were written.
    pub migration: Option<String>,
    pub file: Option<String>,
    /// Line and column, from 1, in characters.
    #[serde(flatten, serialize_with = "line_and_column")]
    pub position: Option<LineColumn>,
    /// From 1.
    pub statement: Option<usize>,
    /// How many statements the file has.
    pub statements: usize,
    /// `None` if the migration has only one step.
    #[serde(flatten)]
    pub step: Option<StepNumber>,
    /// The kind of the statement, if it ran outside a transaction.
    pub outside_transaction: Option<&'static str>,
    pub phase: Phase,
    #[serde(flatten)]
    pub error: ServerError,
    #[serde(flatten)]
    pub excerpt: Option<Excerpt>,
    /// Its sentences are written where the failure is.
    #[serde(skip)]
    pub advice: Option<Advice>,
}

/// The part of a migration that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A statement of ours, before the step, that repairs what an earlier one has left.
    Repair,
    /// BEGIN, our settings or our guards.
    Begin,
    /// A setting of an earlier step that is repeated for this one.
    Replay,
    /// A statement of the file.
    Statement,
    /// Deferred constraints and triggers.
    Deferred,
    /// The file ended the transaction that it was to run in.
    LostTransaction,
    /// The history row.
    Record,
    Commit,
}

/// What we know and the server does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The object exists, and no migration that was applied has made it.
    Baseline,
    /// The object exists, and a later migration that was applied seems to have made it.
    Superseded { migration: String, later: String, skipped_by_drizzle: bool },
    /// The role exists: all databases of the server share their roles.
    SharedRole,
    /// The object exists in many a new database.
    IfNotExists,
    /// The statement cannot run inside a transaction block, which its text does not show.
    NoTransaction,
    /// A time limit ended the statement.
    TimeLimit {
        /// Such as `500ms`; `None` where the file has it.
        limit: Option<String>,
        source: LimitSource,
    },
    /// Another session ended the statement.
    Cancelled,
    /// Deferred checks of the table's rows are due.
    PendingTriggers { no_transaction: bool },
    /// The role lacks privileges on a schema.
    Grant { sql: String },
    /// A schema does not exist.
    CreateSchema { sql: String },
    /// No schema in `search_path` exists, or may be used.
    NoSchema {
        /// `None` where the file sets it.
        search_path: Option<String>,
    },
    /// What the statement needs belongs to an extension.
    Extension { extension: String, state: ExtensionState },
}

/// Who has set `statement_timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitSource {
    File,
    /// `--statement-timeout`.
    Option,
    Role(String),
    Database(String),
    Connection,
    Server,
    /// The settings of this role or of its server, which no option overrides for a statement
    /// outside a transaction behind a pooler.
    PastPooler(String),
}

/// Why what an extension has is not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionState {
    /// The server has no such extension.
    NotAvailable,
    /// The database does not have it yet.
    NotCreated,
    /// The database has it in this schema, which is not in `search_path`.
    InSchema(String),
}

impl Advice {
    pub fn code(&self) -> &'static str {
        match self {
            Advice::Baseline => "baseline",
            Advice::Superseded { .. } => "superseded",
            Advice::SharedRole => "shared_role",
            Advice::IfNotExists => "if_not_exists",
            Advice::NoTransaction => "no_transaction",
            Advice::TimeLimit { .. } => "time_limit",
            Advice::Cancelled => "cancelled",
            Advice::PendingTriggers { .. } => "pending_triggers",
            Advice::Grant { .. } => "grant",
            Advice::CreateSchema { .. } => "create_schema",
            Advice::NoSchema { .. } => "no_schema",
            Advice::Extension { .. } => "extension",
        }
    }
}

/// Lines of a file, with a caret under one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    #[serde(rename = "excerpt")]
    pub lines: Vec<ExcerptLine>,
    /// The column in the last line, from 1; `None` if the server gives no position.
    pub caret: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExcerptLine {
    #[serde(rename = "line")]
    pub number: usize,
    pub text: String,
}

impl Excerpt {
    /// The line with this number, from 1, and the one before it. A password may begin in an earlier
    /// line, so the whole text is masked.
    pub fn of(text: &str, line: usize, caret: Option<usize>) -> Excerpt {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let masked = redact::passwords(text);
        let first = line.saturating_sub(1).max(1);
        let numbered = (1..).zip(masked.split('\n')).skip(first - 1).take(line + 1 - first);
        let lines = numbered.map(|(number, line)| {
            let text = line.strip_suffix('\r').unwrap_or(line).to_owned();
            ExcerptLine { number, text }
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

/// A transaction whose connection was lost, so that its outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostConnection {
    /// `None` if only rows were written.
    pub migration: Option<String>,
    /// From 1; `None` if only rows were written.
    pub step: Option<usize>,
    /// How many statements are known to have completed.
    pub completed: usize,
    /// How many statements the file has.
    pub statements: usize,
    #[serde(rename = "cause")]
    pub cause: ConnectionError,
}

/// A position as two fields of the object that has it.
pub fn line_and_column<S: Serializer>(
    position: &Option<LineColumn>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        line: Option<usize>,
        column: Option<usize>,
    }
    let line = position.map(|position| position.line);
    let column = position.map(|position| position.column);
    Fields { line, column }.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_masks_passwords_and_keeps_its_caret_in_place() {
        let text = "create role a password\n'longer than its mask' nonsense;\nselect 1";
        let excerpt = Excerpt::of(text, 2, Some(24));
        let line = "'***' nonsense;";
        let lines = excerpt.lines.iter().map(|line| (line.number, line.text.as_str()));
        assert_eq!(lines.collect::<Vec<_>>(), [(1, "create role a password"), (2, line)]);
        assert_eq!(excerpt.caret, line.find("nonsense").map(|at| at + 1));
        assert_eq!(Excerpt::of("a\r\nb c", 2, Some(3)).caret, Some(3));
    }
}
