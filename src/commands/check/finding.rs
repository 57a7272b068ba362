//! What a check has to say, with a sentence and a word for each, and how much it matters.

use std::fmt;

use crate::migrations::layout::Invalid;
use crate::migrations::migration::{Layout, NotText};
use crate::migrations::prepared::{Place, Why};
use crate::migrations::source::JOURNAL;
use crate::migrations::steps::Cut;
use crate::sql::{MARKER, Touch};

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which file, by its path inside the folder; empty for the folder itself.
    pub file: String,
    /// Where in it, if somewhere: line and column, from 1.
    pub place: Place,
    /// What.
    pub what: What,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot be applied.
    Fault,
    /// It can, but a person should know.
    Remark,
}

/// What there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The folder does not hold what it should.
    Invalid(Invalid),
    /// The migration cannot be run as it is.
    Unfit(Why),
    /// This is opened and never closed.
    Unterminated(&'static str),
    /// It takes several transactions.
    Split {
        /// How many, with what runs outside of any.
        units: usize,
        /// Why.
        why: Cut,
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
    Untouched,
    /// Nothing but blanks.
    Empty,
    /// The name of this other file, but for upper and lower case.
    CaseOnly(String),
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
    NearMiss,
    /// It meddles with the history.
    History {
        /// How.
        touch: Touch,
        /// With its table, or with its schema.
        name: String,
    },
    /// Settings that someone may expect to last.
    Settings(Vec<String>),
    /// A statement with a value that was added to an enum before, in the same migration.
    NewEnumValue {
        /// The value, in quotes.
        literal: String,
        /// The line where it was added.
        line: usize,
    },
}

impl What {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            What::Invalid(_) | What::Unfit(_) | What::Unterminated(_) | What::SetTransaction(_) => {
                Severity::Fault
            }
            _ => Severity::Remark,
        }
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            What::Invalid(invalid) => match invalid {
                Invalid::Unrecognised => "unrecognised",
                Invalid::TwoLayouts => "two_layouts",
                Invalid::Journal(_) => "journal",
                Invalid::Tag(_) => "tag",
                Invalid::When(_) => "when",
                Invalid::NoFile { .. } => "no_file",
                Invalid::Twice(_) => "twice",
                Invalid::FolderName(_) => "folder_name",
                Invalid::Order(_) => "order",
            },
            What::Unfit(why) => match why {
                Why::NotText(NotText::InvalidUtf8 { .. }) => "not_utf8",
                Why::NotText(NotText::Nul { .. }) => "nul",
                Why::Undoes(_) => "undoes",
                Why::SessionBound(_) => "session_bound",
                Why::CopyData => "copy_data",
                Why::MetaCommand(_) => "meta_command",
                Why::ReadingSetting(_) => "reading_setting",
            },
            What::Unterminated(_) => "unterminated",
            What::Split { .. } => "split",
            What::SetTransaction(_) => "set_transaction",
            What::NoJournal => "no_journal",
            What::NotLater { .. } => "not_later",
            What::Future { .. } => "future",
            What::Orphan(_) => "orphan",
            What::SameContent(_) => "same_content",
            What::Untouched => "untouched",
            What::Empty => "empty",
            What::CaseOnly(_) => "case_only",
            What::Bom => "bom",
            What::Crlf { .. } => "crlf",
            What::MixedLineEnds => "mixed_line_ends",
            What::MarkerInside { .. } => "marker_inside",
            What::NearMiss => "near_miss",
            What::History { .. } => "history",
            What::Settings(_) => "settings",
            What::NewEnumValue { .. } => "new_enum_value",
        }
    }
}

/// To be read behind the file's name.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Invalid(invalid) => invalid.fmt(f),
            What::Unfit(why) => why.fmt(f),
            What::Unterminated(what) => {
                write!(f, "opens a {what} that is never closed; close it")
            }
            What::Split { units, why } => {
                write!(f, "is run in {units} steps, each recorded when it is done, since {why}")
            }
            What::SetTransaction(what) => write!(
                f,
                "has `{what}`, which cannot work in a transaction that begins with a query and \
                 ends with the history's row, as here; remove it"
            ),
            What::NoJournal => write!(
                f,
                "is missing, but these files look like drizzle-kit's, and are taken for plain \
                 ones; restore it (is it copied into the image?)"
            ),
            What::NotLater { tag, when, than } => write!(
                f,
                "gives {tag} the `when` {when}, which is not later than that of {than}: \
                 drizzle-orm 0.x skips it where {than} has been applied, premigrate does not; \
                 raise it, unless it has been applied"
            ),
            What::Future { name, when, layout: Layout::Drizzle0 } => write!(
                f,
                "gives {name} the `when` {when}, which is in the future: until then drizzle-orm \
                 0.x skips all that is generated after it; lower it, unless it has been applied"
            ),
            What::Future { .. } => write!(
                f,
                "has a time in the future in its name, so what is generated until then comes \
                 before it; rename it, unless it has been applied"
            ),
            What::Orphan(Layout::Drizzle0) => write!(
                f,
                "is never run, since {JOURNAL} does not name it; put its SQL into a migration \
                 made by `drizzle-kit generate --custom`, or remove it"
            ),
            What::Orphan(Layout::Drizzle1) => write!(
                f,
                "is never run, since only the migration.sql of a folder like \
                 20260131093000_name is; move it into one, or remove it"
            ),
            What::Orphan(Layout::Plain) => {
                write!(f, "is never run, since it is in a subfolder; move it up, or remove it")
            }
            What::SameContent(other) => write!(
                f,
                "has the same content as {other}, and so the same hash; if it is a copy by \
                 mistake, remove it"
            ),
            What::Untouched => write!(
                f,
                "is a new migration's template, without any SQL yet; write it before it is applied, \
                 later it would not be run"
            ),
            What::Empty => {
                write!(f, "is empty; write its SQL before it is applied, later it would not be run")
            }
            What::CaseOnly(other) => write!(
                f,
                "differs from {other} only in upper and lower case, which not every file system \
                 can tell apart; rename one of them"
            ),
            What::Bom => write!(
                f,
                "begins with a byte order mark, at which Drizzle fails; save it without one, unless it \
                 has been applied"
            ),
            What::Crlf { others } => {
                write!(f, "has CRLF line ends")?;
                match others {
                    0 => {}
                    1 => write!(f, " (and so has 1 other file)")?,
                    _ => write!(f, " (and so have {others} other files)")?,
                }
                write!(f, ", so its hash depends on the checkout; {GIT_ATTRIBUTES}")
            }
            What::MixedLineEnds => write!(
                f,
                "has both CRLF and LF line ends, so its hash depends on the checkout; save it with \
                 LF, unless it has been applied, and {GIT_ATTRIBUTES}"
            ),
            What::MarkerInside { inside, more } => {
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
            What::NearMiss => write!(
                f,
                "resembles `{MARKER}`, but nobody splits here; write it exactly so, or remove it, \
                 unless the file has been applied"
            ),
            What::History { touch, name } => match touch {
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
            What::Settings(names) => write!(
                f,
                "sets {} beyond its end, but no migration inherits settings from another here; \
                 set what each needs, with SET LOCAL",
                names.join(", ")
            ),
            What::NewEnumValue { literal, line } => write!(
                f,
                "has {literal}, which line {line} adds to an enum, and which cannot be used before \
                 that is committed (55P04); if this uses it, move it to the next migration"
            ),
        }
    }
}

const GIT_ATTRIBUTES: &str = "put `*.sql text eol=lf` into .gitattributes";
