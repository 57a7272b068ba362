//! What a check has to say, with a sentence and a word for each, and how much it matters.

use std::fmt;

use crate::migrations::layout::LayoutProblem;
use crate::migrations::migration::Layout;
use crate::migrations::prepared::Reason;
use crate::migrations::source::JOURNAL;
use crate::migrations::steps::SplitReason;
use crate::sql::{LineColumn, MARKER, Touch};

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which file, by its path inside the folder; empty for the folder itself.
    pub file: String,
    /// Where in it, if somewhere: line and column, from 1.
    pub place: Option<LineColumn>,
    /// What.
    pub what: Lint,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot be applied.
    Error,
    /// It can, but a person should know.
    Warning,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lint {
    /// The folder does not hold what it should.
    LayoutProblem(LayoutProblem),
    /// The migration cannot be run as it is.
    NotRunnable(Reason),
    /// This is opened and never closed.
    Unterminated(&'static str),
    /// It takes several transactions.
    Split {
        /// How many, with what runs outside of any.
        steps: usize,
        /// Why.
        why: SplitReason,
    },
    /// A mode that a transaction which is under way cannot take.
    SetTransaction(String),
    /// Plain files that drizzle-kit seems to have made.
    NoJournal,
    /// drizzle-orm 0.x skips an entry, for its time.
    NotLater {
        /// The entry.
        tag: String,
        /// Its time.
        when: i64,
        /// The one before it with the latest time.
        than: String,
    },
    /// Made in the future.
    Future {
        /// The migration.
        name: String,
        /// Its time.
        when: i64,
        /// What it means.
        layout: Layout,
    },
    /// A file that is no migration.
    Orphan(Layout),
    /// The content of this other migration.
    SameContent(String),
    /// What `drizzle-kit generate --custom`, or `new`, makes, with nothing added.
    EmptyTemplate,
    /// Nothing but blanks.
    Empty,
    /// The name of this other file, but for upper and lower case.
    CaseCollision(String),
    /// A byte order mark.
    Bom,
    /// CRLF line ends.
    Crlf {
        /// In how many other files.
        others: usize,
    },
    /// Line ends of both kinds.
    MixedLineEnds,
    /// Markers that separate for drizzle-orm only.
    MarkerInside {
        /// What the first stands in.
        inside: &'static str,
        /// How many follow in this file.
        more: usize,
    },
    /// What may be meant as a marker.
    AlmostMarker,
    /// It meddles with the history.
    History {
        /// How.
        touch: Touch,
        /// With its table, or with its schema.
        name: String,
    },
    /// Settings that someone may expect to last.
    Options(Vec<String>),
    /// A statement with a value that was added to an enum before, in the same migration.
    NewEnumValue {
        /// The value, in quotes.
        literal: String,
        /// The line where it was added.
        line: usize,
    },
}

impl Lint {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Lint::LayoutProblem(_)
            | Lint::NotRunnable(_)
            | Lint::Unterminated(_)
            | Lint::SetTransaction(_) => Severity::Error,
            _ => Severity::Warning,
        }
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Lint::LayoutProblem(invalid) => match invalid {
                LayoutProblem::Unrecognised => "unrecognised",
                LayoutProblem::TwoLayouts => "two_layouts",
                LayoutProblem::Journal(_) => "journal",
                LayoutProblem::Tag(_) => "tag",
                LayoutProblem::When(_) => "when",
                LayoutProblem::MissingFile { .. } => "no_file",
                LayoutProblem::DuplicateName(_) => "twice",
                LayoutProblem::FolderName(_) => "folder_name",
                LayoutProblem::UnsortableName(_) => "order",
            },
            Lint::NotRunnable(why) => match why {
                Reason::NotUtf8 { .. } => "not_utf8",
                Reason::HasNul { .. } => "nul",
                Reason::RollsBack(_) => "undoes",
                Reason::NeedsSession(_) => "session_bound",
                Reason::CopyData => "copy_data",
                Reason::PsqlCommand(_) => "meta_command",
                Reason::ChangesLexing(_) => "reading_setting",
            },
            Lint::Unterminated(_) => "unterminated",
            Lint::Split { .. } => "split",
            Lint::SetTransaction(_) => "set_transaction",
            Lint::NoJournal => "no_journal",
            Lint::NotLater { .. } => "not_later",
            Lint::Future { .. } => "future",
            Lint::Orphan(_) => "orphan",
            Lint::SameContent(_) => "same_content",
            Lint::EmptyTemplate => "untouched",
            Lint::Empty => "empty",
            Lint::CaseCollision(_) => "case_only",
            Lint::Bom => "bom",
            Lint::Crlf { .. } => "crlf",
            Lint::MixedLineEnds => "mixed_line_ends",
            Lint::MarkerInside { .. } => "marker_inside",
            Lint::AlmostMarker => "near_miss",
            Lint::History { .. } => "history",
            Lint::Options(_) => "settings",
            Lint::NewEnumValue { .. } => "new_enum_value",
        }
    }
}

/// To be read behind the file's name.
impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lint::LayoutProblem(invalid) => invalid.fmt(f),
            Lint::NotRunnable(why) => why.fmt(f),
            Lint::Unterminated(what) => {
                write!(f, "opens a {what} that is never closed; close it")
            }
            Lint::Split { steps, why } => {
                write!(f, "is run in {steps} steps, each recorded when it is done, since {why}")
            }
            Lint::SetTransaction(what) => write!(
                f,
                "has `{what}`, which cannot work in a transaction that begins with a query and \
                 ends with the history's row, as here; remove it"
            ),
            Lint::NoJournal => write!(
                f,
                "is missing, but these files look like drizzle-kit's, and are taken for plain \
                 ones; restore it (is it copied into the image?)"
            ),
            Lint::NotLater { tag, when, than } => write!(
                f,
                "gives {tag} the `when` {when}, which is not later than that of {than}: \
                 drizzle-orm 0.x skips it where {than} has been applied, premigrate does not; \
                 raise it, unless it has been applied"
            ),
            Lint::Future { name, when, layout: Layout::Drizzle0 } => write!(
                f,
                "gives {name} the `when` {when}, which is in the future: until then drizzle-orm \
                 0.x skips all that is generated after it; lower it, unless it has been applied"
            ),
            Lint::Future { .. } => write!(
                f,
                "has a time in the future in its name, so what is generated until then comes \
                 before it; rename it, unless it has been applied"
            ),
            Lint::Orphan(Layout::Drizzle0) => write!(
                f,
                "is never run, since {JOURNAL} does not name it; put its SQL into a migration \
                 made by `drizzle-kit generate --custom`, or remove it"
            ),
            Lint::Orphan(Layout::Drizzle1) => write!(
                f,
                "is never run, since only the migration.sql of a folder like \
                 20260131093000_name is; move it into one, or remove it"
            ),
            Lint::Orphan(Layout::Plain) => {
                write!(f, "is never run, since it is in a subfolder; move it up, or remove it")
            }
            Lint::SameContent(other) => write!(
                f,
                "has the same content as {other}, and so the same hash; if it is a copy by \
                 mistake, remove it"
            ),
            Lint::EmptyTemplate => write!(
                f,
                "is a new migration's template, without any SQL yet; write it before it is applied, \
                 later it would not be run"
            ),
            Lint::Empty => {
                write!(f, "is empty; write its SQL before it is applied, later it would not be run")
            }
            Lint::CaseCollision(other) => write!(
                f,
                "differs from {other} only in upper and lower case, which not every file system \
                 can tell apart; rename one of them"
            ),
            Lint::Bom => write!(
                f,
                "begins with a byte order mark, at which Drizzle fails; save it without one, unless it \
                 has been applied"
            ),
            Lint::Crlf { others } => {
                write!(f, "has CRLF line ends")?;
                match others {
                    0 => {}
                    1 => write!(f, " (and so has 1 other file)")?,
                    _ => write!(f, " (and so have {others} other files)")?,
                }
                write!(f, ", so its hash depends on the checkout; {GIT_ATTRIBUTES}")
            }
            Lint::MixedLineEnds => write!(
                f,
                "has both CRLF and LF line ends, so its hash depends on the checkout; save it with \
                 LF, unless it has been applied, and {GIT_ATTRIBUTES}"
            ),
            Lint::MarkerInside { inside, more } => {
                write!(f, "has `{MARKER}` inside {inside}")?;
                if *more > 0 {
                    write!(f, " (and {more} more in such places)")?;
                }
                write!(
                    f,
                    ": it separates nothing here, but drizzle-orm splits there and fails; remove \
                     it, unless the file has been applied"
                )
            }
            Lint::AlmostMarker => write!(
                f,
                "resembles `{MARKER}`, but nobody splits here; write it exactly so, or remove it, \
                 unless the file has been applied"
            ),
            Lint::History { touch, name } => match touch {
                Touch::Create => write!(
                    f,
                    "creates {name}, where the history is kept; remove it, since premigrate and \
                     Drizzle create it themselves"
                ),
                Touch::Alter => {
                    write!(f, "alters {name}, where the history is kept; remove it")
                }
                Touch::Drop => write!(f, "drops {name}, where the history is kept; remove it"),
                Touch::Write => write!(
                    f,
                    "writes to the history, {name}; remove it, and see the commands baseline and \
                     accept"
                ),
            },
            Lint::Options(names) => write!(
                f,
                "sets {} beyond its end, but no migration inherits settings from another here; \
                 set what each needs, with SET LOCAL",
                names.join(", ")
            ),
            Lint::NewEnumValue { literal, line } => write!(
                f,
                "has {literal}, which line {line} adds to an enum, and which cannot be used before \
                 that is committed (55P04); if this uses it, move it to the next migration"
            ),
        }
    }
}

const GIT_ATTRIBUTES: &str = "put `*.sql text eol=lf` into .gitattributes";
