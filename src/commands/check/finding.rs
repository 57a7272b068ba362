//! The findings of a check, and what each rule says.

use std::fmt;

use serde::Serialize;

use crate::migrations::layout::LayoutProblem;
use crate::migrations::migration::Layout;
use crate::migrations::prepared::Reason;
use crate::migrations::source::JOURNAL;
use crate::migrations::steps::SplitReason;
use crate::sql::{LineColumn, MARKER, Touch};

/// Line and column, from 1.
pub type Position = Option<LineColumn>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The file's path inside the migrations folder; null for the folder itself.
    pub file: Option<String>,
    /// From 1; null where the finding is about the whole file.
    pub line: Option<usize>,
    /// In characters, from 1; null where `line` is.
    pub column: Option<usize>,
    /// The rule's name, which stays the same when the message is reworded.
    pub rule: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Finding {
    pub fn new(file: Option<&str>, position: Position, lint: &Lint) -> Finding {
        Finding {
            severity: lint.severity(),
            file: file.map(str::to_owned),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            rule: lint.rule(),
            message: lint.to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `up` refuses the folder, or the migration would fail.
    Error,
    /// It can be applied, but perhaps not with the effect that was meant.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lint {
    LayoutProblem(LayoutProblem),
    NotRunnable(Reason),
    /// The kind of token that is never closed.
    Unterminated(&'static str),
    Split {
        steps: usize,
        reason: SplitReason,
    },
    /// A `SET TRANSACTION` with a mode that its transaction can no longer take.
    SetTransaction(String),
    /// Plain files with drizzle-kit's markers.
    MissingJournal,
    /// A journal entry that drizzle-orm 0.x skips.
    NotLater {
        tag: String,
        when: i64,
        /// The earlier entry with the latest `when`.
        latest: String,
    },
    FutureTime {
        migration: String,
        when: i64,
        layout: Layout,
    },
    UnusedFile(Layout),
    /// The first migration with the same content.
    SameContent(String),
    /// What `new` or `drizzle-kit generate --custom` writes.
    EmptyTemplate,
    EmptyFile,
    /// The file whose name differs only in case.
    CaseCollision(String),
    Bom,
    Crlf {
        other_files: usize,
    },
    MixedLineEndings,
    /// A marker at which drizzle-orm splits, and premigrate does not.
    MarkerInside {
        inside: &'static str,
        /// How many more there are in the file.
        more: usize,
    },
    AlmostMarker,
    ChangesHistory {
        touch: Touch,
        /// The history's table or schema.
        object: String,
    },
    /// Settings that are set and not reset.
    LeftoverSettings(Vec<String>),
    /// A literal that the same transaction adds to an enum.
    NewEnumValue {
        literal: String,
        added_in_line: usize,
    },
}

impl Lint {
    pub fn severity(&self) -> Severity {
        match self {
            Lint::LayoutProblem(_)
            | Lint::NotRunnable(_)
            | Lint::Unterminated(_)
            | Lint::SetTransaction(_) => Severity::Error,
            _ => Severity::Warning,
        }
    }

    pub fn rule(&self) -> &'static str {
        match self {
            Lint::LayoutProblem(problem) => match problem {
                LayoutProblem::Unrecognized => "no_migrations",
                LayoutProblem::TwoLayouts => "two_layouts",
                LayoutProblem::Journal(_) => "invalid_journal",
                LayoutProblem::Tag(_) => "invalid_tag",
                LayoutProblem::When(_) => "invalid_when",
                LayoutProblem::MissingFile { .. } => "missing_file",
                LayoutProblem::DuplicateName(_) => "duplicate_name",
                LayoutProblem::FolderName(_) => "invalid_folder_name",
                LayoutProblem::UnsortableName(_) => "unsortable_name",
            },
            Lint::NotRunnable(reason) => match reason {
                Reason::NotUtf8 { .. } => "not_utf8",
                Reason::HasNul { .. } => "has_nul",
                Reason::RollsBack(_) => "rolls_back",
                Reason::NeedsSession(_) => "needs_session",
                Reason::CopyData => "copy_data",
                Reason::PsqlCommand(_) => "psql_command",
                Reason::ChangesLexing(_) => "changes_lexing",
            },
            Lint::Unterminated(_) => "unterminated",
            Lint::Split { .. } => "split",
            Lint::SetTransaction(_) => "set_transaction",
            Lint::MissingJournal => "missing_journal",
            Lint::NotLater { .. } => "not_later",
            Lint::FutureTime { .. } => "future_time",
            Lint::UnusedFile(_) => "unused_file",
            Lint::SameContent(_) => "same_content",
            Lint::EmptyTemplate => "empty_template",
            Lint::EmptyFile => "empty_file",
            Lint::CaseCollision(_) => "case_collision",
            Lint::Bom => "bom",
            Lint::Crlf { .. } => "crlf",
            Lint::MixedLineEndings => "mixed_line_endings",
            Lint::MarkerInside { .. } => "marker_inside",
            Lint::AlmostMarker => "almost_marker",
            Lint::ChangesHistory { .. } => "changes_history",
            Lint::LeftoverSettings(_) => "leftover_settings",
            Lint::NewEnumValue { .. } => "new_enum_value",
        }
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lint::LayoutProblem(problem) => problem.fmt(f),
            Lint::NotRunnable(reason) => write!(f, "the file {reason}"),
            Lint::Unterminated(token) => write!(f, "this {token} is never closed; close it"),
            Lint::Split { steps, reason } => write!(
                f,
                "the file runs in {steps} steps, each recorded when it is done, because {reason}"
            ),
            Lint::SetTransaction(statement) => write!(
                f,
                "`{statement}` cannot work here, because the transaction begins with a query and \
                 ends by writing the history row; remove it"
            ),
            Lint::MissingJournal => write!(
                f,
                "the journal is missing, so these files run as plain migrations although they look \
                 like drizzle-kit's; restore it (is it copied into the image?)"
            ),
            Lint::NotLater { tag, when, latest } => write!(
                f,
                "the `when` of {tag} ({when}) is not later than that of {latest}: where {latest} \
                 is applied, drizzle-orm 0.x skips {tag}, and premigrate does not; raise it unless \
                 {tag} is applied already"
            ),
            Lint::FutureTime { migration, when, layout: Layout::Drizzle0 } => write!(
                f,
                "the `when` of {migration} ({when}) is in the future: until then, drizzle-orm 0.x \
                 skips every migration that is generated after it; lower it unless {migration} is \
                 applied already"
            ),
            Lint::FutureTime { .. } => write!(
                f,
                "the time in the folder's name is in the future: migrations that are generated \
                 before then sort before it; rename the folder unless it is applied already"
            ),
            Lint::UnusedFile(Layout::Drizzle0) => write!(
                f,
                "the file is never run, because {JOURNAL} does not name it; move its SQL into a \
                 migration made by `drizzle-kit generate --custom`, or remove it"
            ),
            Lint::UnusedFile(Layout::Drizzle1) => write!(
                f,
                "the file is never run, because only the migration.sql of a folder like \
                 20260131093000_name is; move it into one, or remove it"
            ),
            Lint::UnusedFile(Layout::Plain) => write!(
                f,
                "the file is never run, because it is in a subfolder; move it up, or remove it"
            ),
            Lint::SameContent(other) => write!(
                f,
                "the file has the same content as {other}, and so the same hash; remove it if it is \
                 an accidental copy"
            ),
            Lint::EmptyTemplate => write!(
                f,
                "the file is a template without SQL; write its SQL before it is applied, because \
                 an applied migration is not run again"
            ),
            Lint::EmptyFile => write!(
                f,
                "the file is empty; write its SQL before it is applied, because an applied \
                 migration is not run again"
            ),
            Lint::CaseCollision(other) => write!(
                f,
                "the name differs from {other} only in case, which some file systems ignore; rename \
                 one of them"
            ),
            Lint::Bom => write!(
                f,
                "the file begins with a byte order mark, at which Drizzle fails; save it without \
                 one unless it is applied already"
            ),
            Lint::Crlf { other_files } => {
                write!(f, "the file has CRLF line endings")?;
                match other_files {
                    0 => {}
                    1 => write!(f, " (so does 1 other file)")?,
                    _ => write!(f, " (so do {other_files} other files)")?,
                }
                write!(f, ", so its hash depends on the checkout; {GIT_ATTRIBUTES}")
            }
            Lint::MixedLineEndings => write!(
                f,
                "the file has both CRLF and LF line endings, so its hash depends on the checkout; \
                 save it with LF unless it is applied already, and {GIT_ATTRIBUTES}"
            ),
            Lint::MarkerInside { inside, more } => {
                write!(f, "this `{MARKER}` is inside {inside}")?;
                if *more > 0 {
                    write!(f, " ({more} more in the file)")?;
                }
                write!(
                    f,
                    ": premigrate ignores it, but drizzle-orm splits there and fails; remove it \
                     unless the file is applied already"
                )
            }
            Lint::AlmostMarker => write!(
                f,
                "this resembles `{MARKER}`, but neither premigrate nor Drizzle splits here; write \
                 it exactly so or remove it, unless the file is applied already"
            ),
            Lint::ChangesHistory { touch, object } => match touch {
                Touch::Create => write!(
                    f,
                    "this statement creates {object}, which holds the history; remove it, because \
                     premigrate and Drizzle create it themselves"
                ),
                Touch::Alter => {
                    write!(f, "this statement alters {object}, which holds the history; remove it")
                }
                Touch::Drop => {
                    write!(f, "this statement drops {object}, which holds the history; remove it")
                }
                Touch::Write => write!(
                    f,
                    "this statement writes to the history, {object}; remove it and use `baseline` \
                     or `accept`"
                ),
            },
            Lint::LeftoverSettings(names) => write!(
                f,
                "the file leaves {} set, but no migration inherits settings from another; use SET \
                 LOCAL in each migration that needs them",
                names.join(", ")
            ),
            Lint::NewEnumValue { literal, added_in_line } => write!(
                f,
                "line {added_in_line} adds {literal} to an enum, and the value cannot be used \
                 before that is committed (55P04); if this statement uses it, move the statement to \
                 the next migration"
            ),
        }
    }
}

const GIT_ATTRIBUTES: &str = "add `*.sql text eol=lf` to .gitattributes";
