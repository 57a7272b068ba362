//! What `check` finds. Each rule has a name that stays the same when a message is reworded. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `up` refuses the folder, or the migration would fail.
    Error,
    /// It can be applied, but perhaps not with the effect that was meant, or it makes others wait.
    Warning,
    /// Worth knowing, and often meant.
    Note,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// What a rule's findings are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Error,
    Warning,
    /// A warning about a statement that keeps others from a table that exists, or that fails for its rows.
    Blocking,
    Note,
}

/// Defines the rules, each with a sentence, a name and a class. docs/rules.md has the same ones.
macro_rules! rules {
    ($(#[doc = $sentence:literal] $rule:ident $name:literal $class:ident,)+) => {
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

            fn class(self) -> Class {
                match self {
                    $(Rule::$rule => Class::$class,)+
                }
            }

            pub fn sentence(self) -> &'static str {
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
    /// The name of a folder with a `migration.sql` is not in the format of drizzle-kit 1.x.
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
    /// A statement rolls back the migration's transaction, or prepares it for a two-phase commit.
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
    /// Two branches have made snapshots of drizzle-kit's, and none joins them.
    TwoHeads "two-heads" Warning,
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
    /// A `CREATE INDEX` keeps writers from a table that exists.
    IndexLocksWrites "index-locks-writes" Blocking,
    /// A `DROP INDEX` waits for everyone who uses the table, and everyone waits for it.
    DropIndexLocks "drop-index-locks" Blocking,
    /// A `REINDEX` keeps writers from a table.
    ReindexLocks "reindex-locks" Blocking,
    /// A `CREATE INDEX` on a partitioned table keeps writers from all partitions.
    PartitionedIndex "partitioned-index" Blocking,
    /// A `DETACH PARTITION` waits for everyone who uses the partitioned table.
    DetachLocks "detach-locks" Blocking,
    /// An `ATTACH PARTITION` reads all rows of the new partition while everyone waits for it.
    AttachScan "attach-scan" Blocking,
    /// A foreign key is checked for all rows while writers of both tables wait.
    ForeignKeyScan "foreign-key-scan" Blocking,
    /// A `CHECK` is checked for all rows while everyone waits.
    CheckScan "check-scan" Blocking,
    /// A constraint is validated in the transaction that adds it, which keeps the lock meanwhile.
    ValidateSameTransaction "validate-same-transaction" Blocking,
    /// A `SET NOT NULL` reads all rows while everyone waits.
    NotNullScan "not-null-scan" Blocking,
    /// A `UNIQUE` constraint builds its index while everyone waits.
    UniqueLocks "unique-locks" Blocking,
    /// A primary key builds its index while everyone waits.
    PrimaryKeyLocks "primary-key-locks" Blocking,
    /// An exclusion constraint builds its index while everyone waits.
    ExclusionLocks "exclusion-locks" Blocking,
    /// A column's new type rewrites the table while everyone waits.
    TypeRewrite "type-rewrite" Blocking,
    /// A new column has a volatile default, which rewrites the table while everyone waits.
    DefaultRewrite "default-rewrite" Blocking,
    /// A new column is computed for all rows, which rewrites the table while everyone waits.
    GeneratedRewrite "generated-rewrite" Blocking,
    /// A statement writes the whole table again while everyone waits.
    Rewrite "rewrite" Blocking,
    /// An enum is dropped and created again, which rewrites its tables twice while everyone waits.
    EnumRecreated "enum-recreated" Blocking,
    /// A new column is `NOT NULL` without a default, which fails if the table has rows.
    RequiredColumn "required-column" Blocking,
    /// A statement takes away what the version of the app that still runs may use.
    BreaksOldVersion "breaks-old-version" Note,
    /// A statement drops or empties more than it names.
    LosesMore "loses-more" Note,
    /// A transaction keeps an `ACCESS EXCLUSIVE` lock while it does long work.
    LockHeld "lock-held" Note,
    /// An `UPDATE` or `DELETE` is about all rows of a table that exists.
    UnbatchedWrite "unbatched-write" Note,
    /// A change of a table's triggers waits for its writers, and writers wait for it.
    TriggerLocks "trigger-locks" Note,
    /// A foreign key that deletes or changes rows has no index to find them.
    FkWithoutIndex "fk-without-index" Note,
    /// A name has more than 63 bytes, and PostgreSQL cuts it.
    ShortenedName "shortened-name" Note,
    /// A value of an enum in alphabetical order is added at the end.
    EnumOrder "enum-order" Note,
    /// A setting of a table makes replication or vacuuming fail or costly.
    Replication "replication" Note,
    /// A statement is too long to be read, so nothing is known of its locks.
    NotRead "not-read" Note,
}

impl Rule {
    pub fn severity(self) -> Severity {
        match self.class() {
            Class::Error => Severity::Error,
            Class::Warning | Class::Blocking => Severity::Warning,
            Class::Note => Severity::Note,
        }
    }

    /// Whether a finding is about a statement that can keep the app from its tables, or fail for their rows.
    pub fn can_block(self) -> bool {
        self.class() == Class::Blocking
    }

    /// Whether it is about what a statement does to tables that exist.
    pub fn is_about_effects(self) -> bool {
        matches!(self.class(), Class::Blocking | Class::Note)
    }

    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// The rules for what squawk calls by this name; none for what is no rule here.
    pub fn of_squawk(name: &str) -> &'static [Rule] {
        SQUAWK.iter().find(|(theirs, _)| *theirs == name).map_or(&[], |(_, rules)| rules)
    }

    /// All rules that squawk has too.
    pub fn of_squawk_all() -> impl Iterator<Item = Rule> {
        SQUAWK.iter().flat_map(|(_, rules)| rules.iter().copied())
    }

    /// The rule that is no error with the most similar name, if one is similar.
    pub fn nearest_warning(name: &str) -> Option<Rule> {
        let name = name.to_ascii_lowercase().replace('_', "-");
        let warnings = Rule::ALL.iter().filter(|rule| rule.severity() != Severity::Error);
        let distances = warnings.map(|rule| (distance(&name, rule.name()), *rule));
        let (distance, rule) = distances.min_by_key(|(distance, _)| *distance)?;
        (distance <= (rule.name().len() / 3).max(2)).then_some(rule)
    }
}

/// The names that squawk has for rules of ours, so that its comments count here too.
const SQUAWK: &[(&str, &[Rule])] = &[
    ("adding-field-with-default", &[Rule::DefaultRewrite, Rule::GeneratedRewrite]),
    ("adding-foreign-key-constraint", &[Rule::ForeignKeyScan]),
    ("adding-not-nullable-field", &[Rule::NotNullScan]),
    ("adding-required-field", &[Rule::RequiredColumn]),
    ("adding-serial-primary-key-field", &[Rule::PrimaryKeyLocks, Rule::GeneratedRewrite]),
    ("ban-drop-column", &[Rule::BreaksOldVersion]),
    ("ban-drop-database", &[Rule::LosesMore]),
    ("ban-drop-not-null", &[Rule::BreaksOldVersion]),
    ("ban-drop-table", &[Rule::BreaksOldVersion]),
    ("ban-truncate-cascade", &[Rule::LosesMore]),
    ("changing-column-type", &[Rule::TypeRewrite, Rule::EnumRecreated]),
    (
        "constraint-missing-not-valid",
        &[Rule::ForeignKeyScan, Rule::CheckScan, Rule::ValidateSameTransaction],
    ),
    ("disallowed-unique-constraint", &[Rule::UniqueLocks]),
    ("identifier-too-long", &[Rule::ShortenedName]),
    ("prefer-repack", &[Rule::Rewrite]),
    ("renaming-column", &[Rule::BreaksOldVersion]),
    ("renaming-table", &[Rule::BreaksOldVersion]),
    ("require-concurrent-index-creation", &[Rule::IndexLocksWrites, Rule::PartitionedIndex]),
    ("require-concurrent-index-deletion", &[Rule::DropIndexLocks]),
    ("require-concurrent-partition-detach", &[Rule::DetachLocks]),
    ("require-concurrent-reindex", &[Rule::ReindexLocks]),
    ("require-enum-value-ordering", &[Rule::EnumOrder]),
];

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
            let blocks = if rule.can_block() { ", can block" } else { "" };
            format!("| `{rule}` | {}{blocks} | {} |", rule.severity().as_str(), rule.sentence())
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
    }

    #[test]
    fn docs_rules_md_has_a_section_for_each_rule_about_what_statements_do() {
        let document = include_str!("../../docs/rules.md");
        let sections: Vec<_> =
            document.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let rules = Rule::ALL.iter().filter(|rule| rule.is_about_effects());
        assert_eq!(sections, rules.map(|rule| rule.name()).collect::<Vec<_>>());
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
