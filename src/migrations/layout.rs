//! Recognizes the layout of a migrations folder (Drizzle 0.x, Drizzle 1.x or plain), and finds its
//! migrations, their order, and everything that is wrong with it. Pure.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::migrations::collation;
use crate::migrations::content::Content;
use crate::migrations::down::{self, DownFile};
use crate::migrations::encoding;
use crate::migrations::folder_time::folder_time;
use crate::migrations::migration::{Layout, Migration, MigrationSet};
use crate::migrations::rule::Rule;
use crate::migrations::source::{self, Files, JOURNAL, MigrationFolder};
use crate::sql::{LineColumn, conflict};

/// What is wrong with a migrations folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutProblem {
    /// No known layout.
    Unrecognized,
    /// This file shows that the folder belongs to another tool.
    OtherLayout { tool: &'static str, file: String },
    /// SQL files in this subfolder only.
    Subfolder(String),
    /// The journal of 0.x and folders of 1.x.
    TwoLayouts,
    /// The journal is not as drizzle-kit writes it.
    Journal(JournalProblem),
    /// This tag leads out of the folder or is not a file name.
    Tag(String),
    /// The journal's entry with this tag has no timestamp.
    When(String),
    /// The journal lists a file that is not in the folder.
    MissingFile { tag: String, file: String },
    /// Two migrations have this name.
    DuplicateName(String),
    /// Folders with a `migration.sql` whose names do not begin with a timestamp: the first one, and
    /// how many more there are.
    FolderNames { first: String, others: usize },
    /// A folder of 1.x with the same timestamp as another, and characters that `collation` lacks.
    UnsortableName(String),
    /// Plain files that another tool runs only to take a migration back: the first one, and how many
    /// more there are.
    DownFiles { first: DownFile, others: usize },
    /// Plain files with versions of Flyway's that would run in another order: `first` comes first by
    /// name, `second` by version.
    VersionOrder { first: String, second: String },
}

/// Why the journal cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalProblem {
    Missing,
    /// It has this encoding, UTF-16 or UTF-32.
    OtherEncoding(&'static str),
    /// A conflict marker of git is in this line, from 1.
    Conflict {
        line: usize,
    },
    /// This is not JSON.
    NotJson(String),
    NoEntries,
    /// The entry with this index has no tag.
    NoTag(usize),
}

impl JournalProblem {
    /// The place in the journal that it is about.
    pub fn position(&self) -> Option<LineColumn> {
        match self {
            JournalProblem::Conflict { line } => Some(LineColumn { line: *line, column: 1 }),
            _ => None,
        }
    }
}

/// Read after the file's name.
impl fmt::Display for JournalProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self {
            JournalProblem::OtherEncoding(encoding) => {
                return write!(f, "is {encoding}, which Drizzle cannot read; save it as UTF-8");
            }
            JournalProblem::Conflict { line } => {
                return write!(
                    f,
                    "contains a conflict marker of git in line {line}; resolve the conflict"
                );
            }
            JournalProblem::Missing => "is missing",
            JournalProblem::NotJson(error) => &format!("is not valid JSON ({error})"),
            JournalProblem::NoEntries => "has no list `entries`",
            JournalProblem::NoTag(index) => &format!("has no `tag` in entry {index}"),
        };
        write!(f, "{problem}; restore it from version control")
    }
}

impl LayoutProblem {
    /// What `check` calls it.
    pub fn rule(&self) -> Rule {
        match self {
            LayoutProblem::Unrecognized
            | LayoutProblem::OtherLayout { .. }
            | LayoutProblem::Subfolder(_) => Rule::NoMigrations,
            LayoutProblem::TwoLayouts => Rule::TwoLayouts,
            LayoutProblem::Journal(JournalProblem::OtherEncoding(_)) => Rule::Utf16,
            LayoutProblem::Journal(JournalProblem::Conflict { .. }) => Rule::ConflictMarker,
            LayoutProblem::Journal(_) => Rule::InvalidJournal,
            LayoutProblem::Tag(_) => Rule::InvalidTag,
            LayoutProblem::When(_) => Rule::InvalidWhen,
            LayoutProblem::MissingFile { .. } => Rule::MissingFile,
            LayoutProblem::DuplicateName(_) => Rule::DuplicateName,
            LayoutProblem::FolderNames { .. } => Rule::InvalidFolderName,
            LayoutProblem::UnsortableName(_) => Rule::UnsortableName,
            LayoutProblem::DownFiles { .. } => Rule::DownFiles,
            LayoutProblem::VersionOrder { .. } => Rule::VersionOrder,
        }
    }
}

/// The alternate form, `{:#}`, calls the file it begins with "the file": for use after its name.
impl fmt::Display for LayoutProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_named = f.alternate();
        let name_of = |file| if is_named { "the file" } else { file };
        match self {
            LayoutProblem::Unrecognized => write!(
                f,
                "no migrations found: the folder contains neither {JOURNAL}, nor a folder like \
                 20260131093000_name/migration.sql, nor a file *.sql"
            ),
            LayoutProblem::OtherLayout { tool, file } => write!(
                f,
                "the folder is {tool}'s, as {file} shows; leave it as it is for {tool}, and copy the SQL \
                 to a folder for premigrate, into files like 0001_name.sql"
            ),
            LayoutProblem::Subfolder(folder) => write!(
                f,
                "no migrations found: all SQL files are in the subfolder {folder}; name that one \
                 instead"
            ),
            LayoutProblem::TwoLayouts => write!(
                f,
                "the folder contains both {JOURNAL} (drizzle-kit 0.x) and */migration.sql (1.x); \
                 run `drizzle-kit up` to completion, or remove the one that is not in use"
            ),
            LayoutProblem::Journal(problem) => {
                write!(f, "{} {problem}", name_of(JOURNAL))
            }
            LayoutProblem::Tag(tag) => write!(
                f,
                "{} contains the tag {tag:?}, which is not a file inside the folder; correct it",
                name_of(JOURNAL)
            ),
            LayoutProblem::When(tag) => write!(
                f,
                "{} does not give the `when` of {tag} as a whole number of milliseconds; restore it \
                 from version control",
                name_of(JOURNAL)
            ),
            LayoutProblem::MissingFile { tag, file } => write!(
                f,
                "{} is missing, but {JOURNAL} lists {tag}; restore the file, and check that it is \
                 copied into the image",
                name_of(file)
            ),
            LayoutProblem::DuplicateName(name) => {
                write!(f, "two migrations are named {name}; rename or remove one of them")
            }
            LayoutProblem::UnsortableName(name) => write!(
                f,
                "the folder {name} has the same timestamp as another and cannot be ordered by name; \
                 rename it with ASCII letters"
            ),
            LayoutProblem::FolderNames { first, others } => write!(
                f,
                "the folder {first} has no name that drizzle-kit 1.x gives{}, such as \
                 20260131093000_name; if it is Prisma's, leave it as it is for Prisma, and copy the \
                 SQL to a folder for premigrate, into files like 0001_name.sql",
                others_text(*others, ["nor has", "nor have"], "folder")
            ),
            LayoutProblem::DownFiles { first: DownFile { file, tool }, others } => write!(
                f,
                "{} is a down migration by its name{}{}, but each plain file would run as a \
                 migration; copy only the other files to a folder for premigrate",
                name_of(file),
                tool.map(|tool| format!(", as of {tool}")).unwrap_or_default(),
                others_text(*others, ["so is", "so are"], "file")
            ),
            LayoutProblem::VersionOrder { first, second } => write!(
                f,
                "{} would run after {first}, because only a number at the start of a name counts; \
                 write all versions with as many digits, such as V02__ and V10__, which are the same \
                 versions to Flyway",
                name_of(second)
            ),
        }
    }
}

/// In how many other places a problem is, such as ` (so are 2 other files)`; nothing for none.
pub fn others_text(count: usize, verb: [&str; 2], what: &str) -> String {
    let [one, many] = verb;
    match count {
        0 => String::new(),
        1 => format!(" ({one} 1 other {what})"),
        count => format!(" ({many} {count} other {what}s)"),
    }
}

impl MigrationSet {
    pub fn from_folder(folder: &MigrationFolder) -> Result<MigrationSet, Vec<LayoutProblem>> {
        let FolderScan { layout, migrations, problems, unused } = FolderScan::new(folder);
        if !problems.is_empty() {
            return Err(problems);
        }
        let set = MigrationSet::new(layout, migrations)
            .map_err(|name| vec![LayoutProblem::DuplicateName(name)])?;
        Ok(set.with_unlisted(if layout == Layout::Drizzle0 { unused } else { Vec::new() }))
    }
}

/// The migrations found in a folder, even if something is wrong with it, and all that is wrong.
#[derive(Debug)]
pub struct FolderScan {
    /// If there are two, the newer one.
    pub layout: Layout,
    /// In order, without missing files. If the journal cannot be read, every file it could list.
    pub migrations: Vec<Migration>,
    pub problems: Vec<LayoutProblem>,
    /// The SQL files that are never run, by name; none of those that take a migration back.
    pub unused: Vec<String>,
}

impl FolderScan {
    pub fn new(folder: &MigrationFolder) -> FolderScan {
        let mut scan = FolderScan {
            layout: Layout::Plain,
            migrations: Vec::new(),
            problems: Vec::new(),
            unused: Vec::new(),
        };
        let files = &folder.files;
        if let Some(problem) = other_layout(files) {
            scan.problems.push(problem);
            scan.unused = unused(files, &[]);
            return scan;
        }
        let has_drizzle1 = files.keys().any(|path| folder_of(path).is_some());
        match files.get(JOURNAL) {
            Some(journal) if has_drizzle1 => {
                scan.add_drizzle0(Some(journal), files);
                // Further problems of the layout that is not in use do not matter.
                scan.problems = vec![LayoutProblem::TwoLayouts];
                scan.add_drizzle1(files);
            }
            None if has_drizzle1 => scan.add_drizzle1(files),
            journal if folder.has_meta => scan.add_drizzle0(journal, files),
            _ => {
                scan.migrations = plain(files);
                if scan.migrations.is_empty() {
                    scan.problems.push(without_migrations(files));
                }
                let mut down = down::down_files(&scan.migrations).into_iter();
                if let Some(first) = down.next() {
                    scan.problems.push(LayoutProblem::DownFiles { first, others: down.len() });
                }
                scan.problems.extend(version_order(&scan.migrations));
            }
        }
        scan.unused = unused(files, &scan.migrations);
        scan
    }

    /// Drizzle 0.x: the entries in the order of the journal, whatever their timestamps.
    fn add_drizzle0(&mut self, journal: Option<&Content>, files: &Files) {
        self.layout = Layout::Drizzle0;
        let journal = journal.ok_or(JournalProblem::Missing);
        // The journal is always in memory.
        let journal = journal.map(|journal| journal.read().unwrap_or_default());
        let entries = match journal.and_then(|text| journal_entries(&text)) {
            Ok(entries) => entries,
            Err(problem) => {
                self.migrations = plain(files);
                self.problems.push(LayoutProblem::Journal(problem));
                return;
            }
        };
        let (mut names, mut duplicates) = (HashSet::new(), HashSet::new());
        for (index, entry) in entries.iter().enumerate() {
            match drizzle0_entry(index, entry, files, &mut self.problems) {
                Ok(migration) if names.insert(migration.name.clone()) => {
                    self.migrations.push(migration);
                }
                Ok(duplicate) => {
                    if duplicates.insert(duplicate.name.clone()) {
                        self.problems.push(LayoutProblem::DuplicateName(duplicate.name));
                    }
                }
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    /// Drizzle 1.x: every folder with a `migration.sql`, in drizzle-orm's order.
    fn add_drizzle1(&mut self, files: &Files) {
        self.layout = Layout::Drizzle1;
        let mut migrations = Vec::new();
        let mut without_time = Vec::new();
        for (path, content) in files {
            let Some(folder) = folder_of(path) else { continue };
            let when = folder_time(folder);
            if when.is_none() {
                without_time.push(folder);
            }
            migrations.push(Migration::new(folder, path.clone(), when, content.clone()));
        }
        if let Some((first, others)) = without_time.split_first() {
            let (first, others) = ((*first).to_owned(), others.len());
            self.problems.push(LayoutProblem::FolderNames { first, others });
        }
        // `Files` are sorted by name, so only those with the same timestamp are still to be sorted.
        for same_time in migrations.chunk_by_mut(|a, b| a.name.get(..14) == b.name.get(..14)) {
            if same_time.len() > 1 {
                for Migration { name, when, .. } in same_time.iter() {
                    if when.is_some() && collation::key(name).is_none() {
                        self.problems.push(LayoutProblem::UnsortableName(name.clone()));
                    }
                }
                same_time.sort_by_cached_key(|migration| collation::key(&migration.name));
            }
        }
        self.migrations.append(&mut migrations);
    }
}

/// The layout of another tool that keeps each migration in a folder of its own, also where other files
/// are beside these.
fn other_layout(files: &Files) -> Option<LayoutProblem> {
    let problem = |tool, file: &String| LayoutProblem::OtherLayout { tool, file: file.clone() };
    if let Some(lock) = files.keys().find(|file| source::is_of_prisma(file)) {
        return Some(problem("Prisma", lock));
    }
    if files.contains_key(JOURNAL) {
        return None;
    }
    let folder_of_up = |file: &String| {
        let folder = file.strip_suffix("/up.sql")?;
        Some(folder.rsplit('/').next().unwrap_or_default().to_owned())
    };
    let begins = |folder: &str| folder.starts_with(|c: char| c.is_ascii_digit());
    let numbered = files.keys().filter_map(|file| Some((file, folder_of_up(file)?)));
    let (file, folder) = numbered.into_iter().find(|(_, folder)| begins(folder))?;
    Some(problem(tool_of_up(&folder), file))
}

/// The tool that has a file `up.sql` or `down.sql` in a folder of this name. Hasura begins its folders
/// with milliseconds, Diesel with a date.
fn tool_of_up(folder: &str) -> &'static str {
    let digits = folder.chars().take_while(char::is_ascii_digit).count();
    if digits == 13 { "Hasura" } else { "Diesel" }
}

/// Why there is no migration, as far as the files in subfolders tell.
fn without_migrations(files: &Files) -> LayoutProblem {
    let folders: Vec<_> = files.keys().filter_map(|file| file.rsplit_once('/')).collect();
    let (Some(file), Some((first, _))) = (files.keys().next(), folders.first()) else {
        return LayoutProblem::Unrecognized;
    };
    let is_up = |name: &str| matches!(name, "up.sql" | "down.sql");
    let has = |folder| folders.iter().any(|(path, _)| *path == folder);
    let tool = if let Some((folder, _)) = folders.iter().find(|(_, name)| is_up(name)) {
        tool_of_up(folder.rsplit('/').next().unwrap_or_default())
    } else if has("deploy") && has("revert") {
        "Sqitch"
    } else if folders.iter().all(|(folder, _)| folder == first) {
        return LayoutProblem::Subfolder((*first).to_owned());
    } else {
        return LayoutProblem::Unrecognized;
    };
    LayoutProblem::OtherLayout { tool, file: file.clone() }
}

/// The first two neighbours with versions as in `V1.2__name` that are not in the order of these.
fn version_order(migrations: &[Migration]) -> Option<LayoutProblem> {
    let versions = migrations.iter().filter_map(|migration| Some((version(migration)?, migration)));
    let versions: Vec<_> = versions.collect();
    let wrong = versions.windows(2).find(|pair| matches!(pair, [(a, _), (b, _)] if a > b))?;
    let [(_, first), (_, second)] = wrong else { return None };
    Some(LayoutProblem::VersionOrder { first: first.file.clone(), second: second.file.clone() })
}

fn version(migration: &Migration) -> Option<Vec<u64>> {
    let (version, _) = migration.name.strip_prefix('V')?.split_once("__")?;
    version.split(['.', '_']).map(|part| part.parse().ok()).collect()
}

/// The SQL files that are no migrations. Not those of drizzle-down, which are beside the migrations
/// that they take back.
fn unused(files: &Files, migrations: &[Migration]) -> Vec<String> {
    let used: HashSet<&str> = migrations.iter().map(|migration| migration.file.as_str()).collect();
    let takes_back = |file: &str| {
        let up = match file.strip_suffix(".down.sql") {
            Some(up) => Some(format!("{up}.sql")),
            None => file.strip_suffix("/down.sql").map(|folder| format!("{folder}/migration.sql")),
        };
        up.is_some_and(|up| used.contains(up.as_str()))
    };
    let is_unused = |file: &&String| {
        file.ends_with(".sql") && !used.contains(file.as_str()) && !takes_back(file)
    };
    files.keys().filter(is_unused).cloned().collect()
}

/// An entry of the journal, as far as we need it.
#[derive(Deserialize)]
struct JournalEntry {
    tag: Option<Value>,
    when: Option<Value>,
}

fn journal_entries(journal: &[u8]) -> Result<Vec<JournalEntry>, JournalProblem> {
    #[derive(Deserialize)]
    struct Journal {
        entries: Vec<JournalEntry>,
    }
    let journal = journal.strip_prefix(b"\xef\xbb\xbf").unwrap_or(journal);
    // The journal is read at every start. As drizzle-kit writes it, no entry needs a map.
    if let Ok(journal) = serde_json::from_slice::<Journal>(journal) {
        return Ok(journal.entries);
    }
    let mut journal: Value =
        serde_json::from_slice(journal).map_err(|error| why_not_json(journal, &error))?;
    let entry = |mut entry: Value| {
        let mut take = |key| entry.get_mut(key).map(Value::take);
        JournalEntry { tag: take("tag"), when: take("when") }
    };
    match journal.get_mut("entries").map(Value::take) {
        Some(Value::Array(entries)) => Ok(entries.into_iter().map(entry).collect()),
        _ => Err(JournalProblem::NoEntries),
    }
}

fn why_not_json(journal: &[u8], error: &serde_json::Error) -> JournalProblem {
    if let Some(encoding) = encoding::other_than_utf8(journal) {
        return JournalProblem::OtherEncoding(encoding);
    }
    let text = String::from_utf8_lossy(journal);
    match conflict::first_line_of(&text) {
        Some((offset, _)) => JournalProblem::Conflict { line: LineColumn::at(&text, offset).line },
        None => JournalProblem::NotJson(error.to_string()),
    }
}

/// The migration of an entry. A wrong timestamp only adds a problem.
fn drizzle0_entry(
    index: usize,
    entry: &JournalEntry,
    files: &Files,
    problems: &mut Vec<LayoutProblem>,
) -> Result<Migration, LayoutProblem> {
    let tag = entry
        .tag
        .as_ref()
        .and_then(Value::as_str)
        .ok_or(LayoutProblem::Journal(JournalProblem::NoTag(index)))?;
    if tag.is_empty()
        || tag.contains(['\\', '\0'])
        || tag.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(LayoutProblem::Tag(tag.to_owned()));
    }
    // drizzle-orm passes a string on to the server, which reads it as a number. To JavaScript, 1.0
    // and 1 are the same.
    let when = match &entry.when {
        Some(Value::String(digits)) => digits.trim().parse().ok(),
        Some(value) => value.as_i64().or_else(|| whole(value.as_f64()?)),
        None => None,
    };
    if when.is_none() {
        problems.push(LayoutProblem::When(tag.to_owned()));
    }
    let file = format!("{tag}.sql");
    match files.get(&file) {
        Some(content) => Ok(Migration::new(tag, file, when, content.clone())),
        None => Err(LayoutProblem::MissingFile { tag: tag.to_owned(), file }),
    }
}

/// A number without a fraction, up to 2^53, from which on a float skips whole numbers.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

fn folder_of(path: &str) -> Option<&str> {
    path.strip_suffix("/migration.sql").filter(|folder| !folder.contains('/'))
}

/// Plain files: by their leading number, then by name.
fn plain(files: &Files) -> Vec<Migration> {
    let mut migrations: Vec<_> = files
        .iter()
        .filter(|(path, _)| !path.contains('/'))
        .filter_map(|(path, content)| Some((path.strip_suffix(".sql")?, path, content)))
        .map(|(name, path, content)| Migration::new(name, path, None, content.clone()))
        .collect();
    migrations.sort_by(|a, b| {
        (leading_number(&a.name), &a.name).cmp(&(leading_number(&b.name), &b.name))
    });
    migrations
}

/// Compares the numbers at the start of names, of any length: by the count of digits without
/// leading zeros, then by the digits. Names without a number come last.
fn leading_number(name: &str) -> (bool, usize, &str) {
    let digits = name.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let number = digits.trim_start_matches('0');
    (digits.is_empty(), number.len(), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> MigrationFolder {
        let file =
            |&(path, content): &(&str, &str)| (path.to_owned(), content.as_bytes().to_vec().into());
        MigrationFolder::from(files.iter().map(file).collect::<Files>())
    }

    fn names(files: &[(&str, &str)]) -> Result<Vec<String>, Vec<LayoutProblem>> {
        let set = MigrationSet::from_folder(&folder(files))?;
        Ok(set.migrations().iter().map(|migration| migration.name.clone()).collect())
    }

    fn journal(entries: &str) -> String {
        format!(r#"{{"version":"7","dialect":"postgresql","entries":[{entries}]}}"#)
    }

    #[test]
    fn the_journal_decides_which_files_count_and_in_which_order() {
        let journal = journal(r#"{"when":9.0,"tag":"b"},{"when":"3","tag":"sub/a"}"#);
        let files =
            [(JOURNAL, journal.as_str()), ("sub/a.sql", ""), ("b.sql", ""), ("unused.sql", "")];
        assert_eq!(names(&files), Ok(vec!["b".to_owned(), "sub/a".to_owned()]));
        let set = MigrationSet::from_folder(&folder(&files)).unwrap();
        assert_eq!(set.migrations().iter().map(|m| m.when).collect::<Vec<_>>(), [Some(9), Some(3)]);
    }

    #[test]
    fn a_folder_that_has_lost_its_journal_is_not_plain() {
        let missing = Err(vec![LayoutProblem::Journal(JournalProblem::Missing)]);
        let snapshot = ("meta/0000_snapshot.json", "");
        assert_eq!(names(&[("0000_a.sql", ""), snapshot]), missing);
        assert_eq!(names(&[snapshot]), missing);
        let only_meta =
            MigrationFolder { files: Files::new(), has_meta: true, ..MigrationFolder::default() };
        assert_eq!(MigrationSet::from_folder(&only_meta).map(|_| Vec::new()), missing);
        // A folder of 1.x may still have the `meta` of 0.x.
        let files = [("20260131093000_a/migration.sql", ""), snapshot];
        assert_eq!(names(&files), Ok(vec!["20260131093000_a".to_owned()]));
    }

    #[test]
    fn a_journal_without_entries_is_an_empty_set() {
        assert_eq!(names(&[(JOURNAL, &journal(""))]), Ok(vec![]));
    }

    #[test]
    fn a_byte_order_mark_in_the_journal_is_ignored() {
        assert_eq!(names(&[(JOURNAL, &format!("\u{feff}{}", journal("")))]), Ok(vec![]));
    }

    #[test]
    fn everything_wrong_with_a_journal_is_reported_at_once() {
        let journal = journal(
            r#"{"when":1,"tag":"gone"},{"when":1,"tag":"../x"},{"when":1.5,"tag":"a"},{"when":1}"#,
        );
        let problems = names(&[(JOURNAL, &journal), ("a.sql", "")]).unwrap_err();
        let messages: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 4, "{messages:#?}");
        let parts = ["gone.sql is missing", "../x", "`when`", "`tag`"];
        for (message, part) in messages.iter().zip(parts) {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_tag_stays_inside_the_folder() {
        for tag in ["../a", "a/../../b", "/etc/a", "", "a//b", "a\\\\b", ".", "a\\u0000"] {
            let journal = journal(&format!(r#"{{"when":1,"tag":"{tag}"}}"#));
            let problems = names(&[(JOURNAL, &journal)]).unwrap_err();
            assert!(matches!(problems[..], [LayoutProblem::Tag(_)]), "{tag}: {problems:?}");
        }
    }

    #[test]
    fn an_invalid_journal_is_reported_with_the_line() {
        let problems = names(&[(JOURNAL, "{\n oops")]).unwrap_err();
        assert!(problems[0].to_string().contains("line 2"), "{}", problems[0]);
        let problems = names(&[(JOURNAL, "{}")]).unwrap_err();
        assert!(problems[0].to_string().contains("`entries`"), "{}", problems[0]);
    }

    #[test]
    fn two_entries_with_the_same_tag_are_refused() {
        let journal = journal(r#"{"when":1,"tag":"a"},{"when":2,"tag":"a"}"#);
        let files = [(JOURNAL, journal.as_str()), ("a.sql", "")];
        assert_eq!(names(&files), Err(vec![LayoutProblem::DuplicateName("a".to_owned())]));
    }

    #[test]
    fn a_scan_continues_after_a_problem() {
        let scan = |files: &[(&str, &str)]| {
            let FolderScan { layout, migrations, problems, .. } = FolderScan::new(&folder(files));
            let names: Vec<_> = migrations.into_iter().map(|migration| migration.name).collect();
            (layout, names.join(" "), problems.len())
        };
        let entries = r#"{"when":1,"tag":"gone"},{"tag":"a"},{"when":2,"tag":"b"},
            {"when":3,"tag":"b"},{"when":4,"tag":"b"},{"when":5,"tag":"c"}"#;
        let journal = journal(entries);
        let files = [(JOURNAL, journal.as_str()), ("a.sql", ""), ("b.sql", ""), ("c.sql", "")];
        assert_eq!(scan(&files), (Layout::Drizzle0, "a b c".to_owned(), 3));
        let files = [(JOURNAL, "{"), ("b.sql", ""), ("a.sql", "")];
        assert_eq!(scan(&files), (Layout::Drizzle0, "a b".to_owned(), 1));
        let files = [("init/migration.sql", ""), ("20261122180127_a/migration.sql", "")];
        assert_eq!(scan(&files), (Layout::Drizzle1, "20261122180127_a init".to_owned(), 1));
        let both = [(JOURNAL, journal.as_str()), ("c.sql", ""), files[1]];
        assert_eq!(scan(&both), (Layout::Drizzle1, "c 20261122180127_a".to_owned(), 1));
    }

    #[test]
    fn folders_of_1x_are_ordered_by_name_and_have_its_timestamp() {
        let files = [
            ("20261122180128_b/migration.sql", ""),
            ("20261122180127_a/migration.sql", ""),
            ("loose.sql", ""),
        ];
        let set = MigrationSet::from_folder(&folder(&files)).unwrap();
        assert_eq!(set.layout(), Layout::Drizzle1);
        let seen: Vec<_> = set.migrations().iter().map(|m| (m.name.as_str(), m.when)).collect();
        assert_eq!(
            seen,
            [
                ("20261122180127_a", Some(1_795_370_487_000)),
                ("20261122180128_b", Some(1_795_370_488_000))
            ]
        );
    }

    #[test]
    fn folders_with_the_same_timestamp_are_ordered_as_drizzle_orm_orders_them() {
        let order = ["a", "A", "ä", "a_1", "a-1", "a1", "a10", "a2", "b", "B"]
            .map(|name| format!("20261122180127_{name}"));
        let files: Vec<_> = order.iter().map(|name| format!("{name}/migration.sql")).collect();
        let files: Vec<_> = files.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(names(&files).unwrap(), order);
        let russian = [("20261122180127_имя/migration.sql", ""), files[0]];
        assert!(matches!(names(&russian).unwrap_err()[..], [LayoutProblem::UnsortableName(_)]));
        assert!(
            names(&russian[..1]).is_ok(),
            "a folder with a timestamp of its own needs no order"
        );
    }

    #[test]
    fn a_folder_without_a_timestamp_is_refused() {
        let files = [("0_init/migration.sql", ""), ("1_a/migration.sql", "")];
        let problems = names(&files).unwrap_err();
        let first = "0_init".to_owned();
        assert_eq!(problems, [LayoutProblem::FolderNames { first, others: 1 }]);
        assert!(problems[0].to_string().contains("Prisma"), "{}", problems[0]);
    }

    #[test]
    fn both_layouts_of_drizzle_at_once_are_refused() {
        let journal = journal("");
        let files = [(JOURNAL, journal.as_str()), ("20261122180128_b/migration.sql", "")];
        assert_eq!(names(&files), Err(vec![LayoutProblem::TwoLayouts]));
    }

    #[test]
    fn plain_files_are_ordered_by_number_then_by_name() {
        let files = [
            ("10_z.sql", ""),
            ("2_b.sql", ""),
            ("002_a.sql", ""),
            ("readme.sql", ""),
            ("20260101000000_long.sql", ""),
        ];
        let order = ["002_a", "2_b", "10_z", "20260101000000_long", "readme"];
        assert_eq!(names(&files).unwrap(), order);
    }

    #[test]
    fn a_plain_folder_with_a_down_migration_is_refused() {
        let files =
            [("1_a.up.sql", ""), ("1_a.down.sql", ""), ("2_b.up.sql", ""), ("2_b.down.sql", "")];
        let problems = names(&files).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(
            problem.to_string(),
            "1_a.down.sql is a down migration by its name, as of golang-migrate or sqlx (so is 1 \
             other file), but each plain file would run as a migration; copy only the other files \
             to a folder for premigrate"
        );
        // drizzle-down keeps such files beside the migrations, and the journal does not list them.
        let journal = journal(r#"{"when":1,"tag":"0000_a"}"#);
        let files = [(JOURNAL, journal.as_str()), ("0000_a.sql", ""), ("0000_a.down.sql", "")];
        assert_eq!(names(&files), Ok(vec!["0000_a".to_owned()]));
        let files = [("20261122180128_b/migration.sql", ""), ("20261122180128_b/down.sql", "")];
        assert_eq!(names(&files), Ok(vec!["20261122180128_b".to_owned()]));
    }

    #[test]
    fn versions_of_flyway_that_would_run_in_another_order_are_refused() {
        for (first, second) in
            [("V10__b", "V2__a"), ("V1.10__b", "V1.9__a"), ("V1_10__b", "V1_9__a")]
        {
            let files = [format!("{first}.sql"), format!("{second}.sql"), "V00__c.sql".to_owned()];
            let [first, second, _] = &files;
            let problem =
                LayoutProblem::VersionOrder { first: first.clone(), second: second.clone() };
            let files = [&files[0], &files[1], &files[2]].map(|file| (file.as_str(), ""));
            assert_eq!(names(&files), Err(vec![problem]));
        }
        for versions in [["V02__a", "V10__b"], ["V1__a", "V2__b"], ["Vote10__b", "Vote2__a"]] {
            let files = versions.map(|name| format!("{name}.sql"));
            let files = [&files[0], &files[1]].map(|file| (file.as_str(), ""));
            assert_eq!(names(&files).unwrap(), versions);
        }
    }

    #[test]
    fn a_folder_without_migrations_is_refused() {
        assert_eq!(names(&[]), Err(vec![LayoutProblem::Unrecognized]));
        assert_eq!(
            names(&[("a/x.sql", ""), ("b/x.sql", "")]),
            Err(vec![LayoutProblem::Unrecognized])
        );
    }

    #[test]
    fn a_folder_of_another_tool_is_one_problem_that_names_it() {
        for (files, words) in [
            (["2023-01-01-000000_a/up.sql", "2023-01-02-000000_b/down.sql"], "Diesel"),
            (["1680000000000_a/up.sql", "1680000000001_b/up.sql"], "Hasura"),
            (["default/1680000000000_a/down.sql", "default/1680000000000_a/up.sql"], "Hasura"),
            (["2023-01-01-000000_a/up.sql", "seed.sql"], "Diesel"),
            (["deploy/a.sql", "revert/a.sql"], "Sqitch"),
            (["20240101000000_a/migration.sql", "migration_lock.toml"], "Prisma"),
            (
                ["migrations/20240101000000_a/migration.sql", "migrations/migration_lock.toml"],
                "Prisma",
            ),
            ([JOURNAL, "migration_lock.toml"], "Prisma"),
            (["deep/er/a.sql", "deep/er/b.sql"], "the subfolder deep/er; name that one"),
        ] {
            let problems = names(&files.map(|file| (file, ""))).unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert!(problem.to_string().contains(words), "{problem}");
        }
        let ours = [("1_a.sql", ""), ("tools/up.sql", ""), ("2_b/schema.sql", "")];
        assert_eq!(names(&ours).unwrap(), ["1_a"]);
        let drizzle_down =
            [("20240101000000_a/migration.sql", ""), ("20240101000000_a/down.sql", "")];
        assert_eq!(names(&drizzle_down).unwrap(), ["20240101000000_a"]);
    }

    #[test]
    fn a_set_knows_the_files_that_the_journal_does_not_list() {
        let journal = journal(r#"{"when":1,"tag":"a"}"#);
        let files = [
            (JOURNAL, journal.as_str()),
            ("a.sql", ""),
            ("a.down.sql", ""),
            ("b.down.sql", ""),
            ("b.sql", ""),
            ("sub/c.sql", ""),
        ];
        let set = MigrationSet::from_folder(&folder(&files)).unwrap();
        assert_eq!(set.unlisted(), ["b.down.sql", "b.sql", "sub/c.sql"]);
    }
}
