//! How a migration failed: the server's error, the position in the file, and what it means.
//!
//! Serde writes the JSON of a failure from its fields; `render::failure` writes its text.

use std::ops::Range;

use serde::{Serialize, Serializer};

use crate::postgres::server_error::ServerError;
use crate::postgres::session::ConnectionError;
use crate::sql::LineColumn;
use crate::sql::redact::Passage;

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
    /// How the position was found.
    pub place: Option<Place>,
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

/// How the position of a failure in its file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The server sent it.
    Server,
    /// The server named the line of a COPY's data.
    CopyLine,
    /// The statement has the name once that the error is about.
    Name,
    /// It is where the statement begins.
    Statement,
}

impl Place {
    /// Whether it is the very place, and not only the line.
    pub fn is_exact(self) -> bool {
        matches!(self, Place::Server | Place::Name)
    }
}

/// The part of a migration that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The sizes of tables are read, for `--max-blocking`.
    Sizes,
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
    /// The same in a rehearsal, which then could not roll it back.
    LostRehearsal,
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
    /// The statement holds a character that cannot be seen, such as `U+200B (ZERO WIDTH SPACE)`.
    InvisibleCharacter { character: String, position: LineColumn },
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
            Advice::InvisibleCharacter { .. } => "invisible_character",
        }
    }
}

/// Lines of a file, with a caret under one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    #[serde(rename = "excerpt")]
    pub lines: Vec<ExcerptLine>,
    /// The column in the last line, from 1; `None` if only the line is known.
    pub caret: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExcerptLine {
    #[serde(rename = "line")]
    pub number: usize,
    pub text: String,
}

impl Excerpt {
    /// The line of this offset, which has this number, and the one before it.
    pub fn of(passage: &Passage<'_, '_>, offset: usize, line: usize, has_caret: bool) -> Excerpt {
        let bytes = excerpt_bytes(passage.text(), offset);
        let (shown, offset) = passage.shown(bytes, offset);
        let first = line.saturating_sub(shown.matches('\n').count());
        let lines = (first..).zip(shown.split('\n')).map(|(number, line)| {
            let text = line.strip_suffix('\r').unwrap_or(line).to_owned();
            ExcerptLine { number, text }
        });
        let before = shown.get(..offset).unwrap_or(&shown).rsplit('\n').next();
        let caret = has_caret.then(|| before.unwrap_or_default().chars().count() + 1);
        Excerpt { lines: lines.collect(), caret }
    }
}

/// The line of an offset and the one before it, without the last newline.
pub fn excerpt_bytes(text: &str, offset: usize) -> Range<usize> {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = |before: &str| before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = line_start(before);
    let start = line.checked_sub(1).and_then(|end| before.get(..end)).map_or(0, line_start);
    let rest = text.get(before.len()..).unwrap_or_default();
    let end = before.len() + rest.find('\n').unwrap_or(rest.len());
    let bom = if start == 0 && text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    (start + bom)..end.max(start + bom)
}

/// A transaction whose connection was lost, so that its outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostConnection {
    /// `None` if only rows were written.
    pub migration: Option<String>,
    /// From 1; `None` if only rows were written.
    pub step: Option<usize>,
    /// Whether the server had begun with the file.
    #[serde(skip)]
    pub began: bool,
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
    use crate::sql::Script;

    fn excerpt(text: &str, at: &str) -> Excerpt {
        let script = Script::parse(text);
        let offset = text.find(at).unwrap();
        let passage = Passage::of(&script, excerpt_bytes(text, offset), false);
        let line = LineColumn::at(text, offset).line;
        Excerpt::of(&passage, offset, line, true)
    }

    fn lines(excerpt: &Excerpt) -> Vec<(usize, &str)> {
        excerpt.lines.iter().map(|line| (line.number, line.text.as_str())).collect()
    }

    #[test]
    fn an_excerpt_masks_secrets_and_keeps_its_caret_in_place() {
        let text = "create role a password\n'longer than its mask' nonsense;\nselect 1";
        let secret = excerpt(text, "nonsense");
        let line = "'***' nonsense;";
        assert_eq!(lines(&secret), [(1, "create role a password"), (2, line)]);
        assert_eq!(secret.caret, line.find("nonsense").map(|at| at + 1));
    }

    #[test]
    fn an_excerpt_is_a_line_and_the_one_before() {
        let both = excerpt("a\r\nb c\nd", "c");
        assert_eq!((lines(&both), both.caret), (vec![(1, "a"), (2, "b c")], Some(3)));
        let first = excerpt("\u{feff}a\nb", "a");
        assert_eq!((lines(&first), first.caret), (vec![(1, "a")], Some(1)));
        let last = excerpt("a\n\nb é'c'd", "d");
        assert_eq!((lines(&last), last.caret), (vec![(2, ""), (3, "b é'c'd")], Some(7)));
    }
}
