//! What `check` finds. Each rule has a name that stays the same when a message is reworded. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

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

/// Defines the rules, each with a sentence, a name and a severity. docs/rules.md has the same ones.
macro_rules! rules {
    ($(#[doc = $sentence:literal] $rule:ident $name:literal $severity:ident,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $(#[doc = $sentence] $rule,)+
        }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$rule,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Rule::$rule => $name,)+
                }
            }

            pub fn severity(self) -> Severity {
                match self {
                    $(Rule::$rule => Severity::$severity,)+
                }
            }

            #[cfg(test)]
            fn sentence(self) -> &'static str {
                match self {
                    $(Rule::$rule => $sentence.trim_ascii(),)+
                }
            }
        }
    };
}

rules! {
    /// The folder has no migrations in a layout that premigrate knows.
    NoMigrations "no-migrations" Error,
    /// The folder has both the journal of drizzle-kit 0.x and folders of 1.x.
    TwoLayouts "two-layouts" Error,
    /// The journal is missing, or is not as drizzle-kit writes it.
    InvalidJournal "invalid-journal" Error,
    /// A tag in the journal is not a file inside the folder.
    InvalidTag "invalid-tag" Error,
    /// An entry of the journal has no `when` that is a whole number.
    InvalidWhen "invalid-when" Error,
    /// The journal lists a file that does not exist.
    MissingFile "missing-file" Error,
    /// Two migrations have the same name.
    DuplicateName "duplicate-name" Error,
    /// A folder with a `migration.sql` has no name that drizzle-kit 1.x gives.
    InvalidFolderName "invalid-folder-name" Error,
    /// A folder of drizzle-kit 1.x has the timestamp of another, and its name cannot be ordered.
    UnsortableName "unsortable-name" Error,
    /// A plain file is a down migration by its name.
    DownFiles "down-files" Error,
    /// Versions as in `V2__name` and `V10__name` would run in another order than that of the numbers.
    VersionOrder "version-order" Error,
    /// A file cannot be read again.
    Unreadable "unreadable" Error,
    /// A file is UTF-16 or UTF-32.
    Utf16 "utf16" Error,
    /// A file is not valid UTF-8.
    NotUtf8 "not-utf8" Error,
    /// A file contains a NUL byte.
    HasNul "has-nul" Error,
    /// A file or the journal contains a conflict marker of git.
    ConflictMarker "conflict-marker" Error,
    /// A comment begins with `premigrate:` but is not a directive, or it ignores something that is not a warning.
    UnknownDirective "unknown-directive" Error,
    /// A file contains the down section of another tool.
    DownSection "down-section" Error,
    /// A quote or a comment is never closed.
    Unterminated "unterminated" Error,
    /// An invisible character is where PostgreSQL accepts none.
    InvisibleSyntaxError "invisible-syntax-error" Error,
    /// A statement rolls back the migration's transaction, or prepares it for someone else.
    RollsBack "rolls-back" Error,
    /// What a statement creates lasts only as long as its session, and a later step needs another.
    NeedsSession "needs-session" Error,
    /// More SQL is on the line of a `COPY ... FROM STDIN`.
    CopyWithoutData "copy-without-data" Error,
    /// A `COPY ... TO STDOUT` has an output that no one would read.
    CopyToClient "copy-to-client" Error,
    /// A line is a command that only psql understands.
    PsqlCommand "psql-command" Error,
    /// A setting changes how the server reads SQL that is parsed already.
    ChangesLexing "changes-lexing" Error,
    /// A `SET TRANSACTION` comes too late, or asks for what the transaction cannot be.
    SetTransaction "set-transaction" Error,
    /// Plain files look like those of drizzle-kit 0.x, and there is no journal.
    MissingJournal "missing-journal" Warning,
    /// A file begins with a byte order mark.
    Bom "bom" Warning,
    /// The names of two files differ only in case.
    CaseCollision "case-collision" Warning,
    /// An SQL file is never run.
    UnusedFile "unused-file" Warning,
    /// The time of a migration is in the future.
    FutureTime "future-time" Warning,
    /// The `when` of a journal's entry is not later than that of the entries before it.
    NotLater "not-later" Warning,
    /// Plain files begin with the same number.
    SameNumber "same-number" Warning,
    /// The numbers of plain files count differently, such as dates and counters.
    MixedNumbers "mixed-numbers" Warning,
    /// A number behind a word does not decide the order of plain files.
    NumberOrder "number-order" Warning,
    /// A file is empty.
    EmptyFile "empty-file" Warning,
    /// A file is an unchanged template.
    EmptyTemplate "empty-template" Warning,
    /// A file has comments, and no statement.
    NoStatement "no-statement" Warning,
    /// Two files have the same content.
    SameContent "same-content" Warning,
    /// A file has both CRLF and LF line endings.
    MixedLineEndings "mixed-line-endings" Warning,
    /// A file has CRLF line endings.
    Crlf "crlf" Warning,
    /// A file runs in steps.
    Split "split" Warning,
    /// A comment resembles drizzle-kit's marker between statements.
    AlmostMarker "almost-marker" Warning,
    /// drizzle-kit's marker is inside a string, a comment or parentheses, where drizzle-orm splits.
    MarkerInside "marker-inside" Warning,
    /// A statement changes the history table or its schema.
    ChangesHistory "changes-history" Warning,
    /// A file leaves a setting changed that decides what SQL means or where it goes.
    LeftoverSettings "leftover-settings" Warning,
    /// A `SET LOCAL` has no effect, because its transaction ends before the next statement.
    LostSetLocal "lost-set-local" Warning,
    /// A statement may use a value that its transaction has added to an enum.
    NewEnumValue "new-enum-value" Warning,
    /// A word outside of quotes and comments contains an invisible character.
    InvisibleCharacter "invisible-character" Warning,
}

impl Rule {
    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// The warning with the most similar name, if one is similar.
    pub fn nearest_warning(name: &str) -> Option<Rule> {
        let name = name.to_ascii_lowercase().replace('_', "-");
        let warnings = Rule::ALL.iter().filter(|rule| rule.severity() == Severity::Warning);
        let distances = warnings.map(|rule| (distance(&name, rule.name()), *rule));
        let (distance, rule) = distances.min_by_key(|(distance, _)| *distance)?;
        (distance <= (rule.name().len() / 3).max(2)).then_some(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How many letters must be added, removed or replaced to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (deleted, letter) in (1..).zip(a.chars()) {
        let mut left = deleted;
        let mut next = vec![deleted];
        for (above, other) in row.windows(2).zip(b.chars()) {
            let &[diagonal, above] = above else { continue };
            let replaced = diagonal + usize::from(letter != other);
            left = replaced.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_rules_md_has_every_rule_with_its_severity_and_sentence() {
        let document = include_str!("../../docs/rules.md");
        let (_, tables) = document.split_once("\n## The rules\n").unwrap();
        let table = tables.split("\n## ").next().unwrap();
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let expected = Rule::ALL.iter().map(|rule| {
            format!("| `{rule}` | {} | {} |", rule.severity().as_str(), rule.sentence())
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
    }

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        for rule in Rule::ALL {
            assert_eq!(Rule::named(rule.name()), Some(*rule));
            let is_kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(rule.name().chars().all(is_kebab), "{rule}");
        }
        assert_eq!(Rule::named("none"), None);
    }

    #[test]
    fn a_similar_name_is_found_and_an_error_is_not() {
        for (name, nearest) in [
            ("leftover-setings", Some(Rule::LeftoverSettings)),
            ("leftover_settings", Some(Rule::LeftoverSettings)),
            ("Splits", Some(Rule::Split)),
            ("marker_inside", Some(Rule::MarkerInside)),
            ("rolls-backs", None),
            ("nothing like it", None),
            ("", None),
        ] {
            assert_eq!(Rule::nearest_warning(name), nearest, "{name}");
        }
    }
}
