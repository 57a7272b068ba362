//! What the files of a migrations folder mean: which migrations there are, and in which order.
//!
//! Pure. A folder is Drizzle 0.x's, Drizzle 1.x's or plain; whatever is wrong with it is found
//! here, all of it at once, before anything is connected to.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::migrations::collation;
use crate::migrations::migration::{Layout, Migration, MigrationSet};
use crate::migrations::source::{Files, JOURNAL, META};

/// What is wrong with a migrations folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutProblem {
    /// No layout that we know.
    Unrecognised,
    /// A journal of 0.x beside folders of 1.x.
    TwoLayouts,
    /// The journal is not what drizzle-kit writes.
    Journal(String),
    /// A tag that leads out of the folder, or is no file name.
    Tag(String),
    /// An entry of the journal, by its tag, has no time.
    When(String),
    /// An entry of the journal has no file.
    NoFile {
        /// The journal's tag.
        tag: String,
        /// The file that should be there.
        file: String,
    },
    /// Two migrations bear one name.
    Twice(String),
    /// A folder of 1.x whose name does not begin with its time.
    FolderName(String),
    /// A folder of 1.x that shares its second with another, with a name that cannot be ordered.
    Order(String),
}

impl fmt::Display for LayoutProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutProblem::Unrecognised => write!(
                f,
                "no migrations were recognised: there is neither {JOURNAL}, nor a folder like \
                 20260131093000_name/migration.sql, nor a file *.sql"
            ),
            LayoutProblem::TwoLayouts => write!(
                f,
                "there is {JOURNAL} (drizzle-kit 0.x) and also */migration.sql (1.x); run \
                 `drizzle-kit up` to its end, or remove the one that is not in use"
            ),
            LayoutProblem::Journal(what) => {
                write!(f, "{JOURNAL} {what}; restore it from version control")
            }
            LayoutProblem::Tag(tag) => write!(
                f,
                "{JOURNAL} names the tag {tag:?}, which is not a file inside the folder; correct it"
            ),
            LayoutProblem::When(tag) => write!(
                f,
                "{JOURNAL} has no whole number of milliseconds as `when` of {tag}; restore it from \
                 version control"
            ),
            LayoutProblem::NoFile { tag, file } => write!(
                f,
                "{file} is missing, and {JOURNAL} names {tag}; restore the file (is it copied into \
                 the image?)"
            ),
            LayoutProblem::Twice(name) => {
                write!(f, "two migrations are named {name}; rename or remove one of them")
            }
            LayoutProblem::Order(name) => write!(
                f,
                "the folder {name} shares its second with another, and its place among them \
                 cannot be told for its letters; rename it in Latin letters"
            ),
            LayoutProblem::FolderName(name) => write!(
                f,
                "the folder {name} does not begin with its time, as in 20260131093000_{name}; \
                 rename it"
            ),
        }
    }
}

/// What the files of a folder say, right or wrong: the migrations that can be told, in order, and
/// all that is wrong with them.
#[derive(Debug)]
pub struct FolderScan {
    /// The layout that decides; of two, the newer.
    pub layout: Layout,
    /// Those whose files are there; where the journal cannot be read, those it may have named.
    pub migrations: Vec<Migration>,
    /// Everything wrong.
    pub problems: Vec<LayoutProblem>,
}

/// Which migrations these files are, or everything that is wrong with them.
pub fn read(files: &Files) -> Result<MigrationSet, Vec<LayoutProblem>> {
    let FolderScan { layout, migrations, problems } = survey(files);
    if !problems.is_empty() {
        return Err(problems);
    }
    MigrationSet::new(layout, migrations).map_err(|name| vec![LayoutProblem::Twice(name)])
}

/// Reads a folder to the end, whatever is wrong with it.
pub fn survey(files: &Files) -> FolderScan {
    let mut survey =
        FolderScan { layout: Layout::Plain, migrations: Vec::new(), problems: Vec::new() };
    let folders = files.keys().any(|path| folder_of(path).is_some());
    let is_drizzle0 = files.keys().any(|path| path.starts_with(META));
    match files.get(JOURNAL) {
        Some(journal) if folders => {
            survey.drizzle0(Some(journal), files);
            // What else is wrong with the one that is not in use is no news.
            survey.problems = vec![LayoutProblem::TwoLayouts];
            survey.drizzle1(files);
        }
        None if folders => survey.drizzle1(files),
        // Without its journal, a folder of drizzle-kit 0.x looks like a plain one.
        journal if is_drizzle0 => survey.drizzle0(journal, files),
        _ => {
            survey.migrations = plain(files);
            if survey.migrations.is_empty() {
                survey.problems.push(LayoutProblem::Unrecognised);
            }
        }
    }
    survey
}

impl FolderScan {
    /// Drizzle 0.x: the journal's entries, in the journal's order, whatever their time stamps.
    fn drizzle0(&mut self, journal: Option<&Cow<'_, [u8]>>, files: &Files) {
        self.layout = Layout::Drizzle0;
        let missing = || "is missing".to_owned();
        let entries = match journal.ok_or_else(missing).and_then(|it| journal_entries(it)) {
            Ok(entries) => entries,
            Err(what) => {
                self.migrations = plain(files);
                self.problems.push(LayoutProblem::Journal(what));
                return;
            }
        };
        let mut names = HashSet::new();
        for (index, entry) in entries.iter().enumerate() {
            match drizzle0_entry(index, entry, files, &mut self.problems) {
                Ok(migration) if names.insert(migration.name.clone()) => {
                    self.migrations.push(migration);
                }
                Ok(again) => {
                    let twice = LayoutProblem::Twice(again.name);
                    if !self.problems.contains(&twice) {
                        self.problems.push(twice);
                    }
                }
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    /// Drizzle 1.x: every folder with a `migration.sql`, in drizzle-orm's order.
    fn drizzle1(&mut self, files: &Files) {
        self.layout = Layout::Drizzle1;
        let mut migrations = Vec::new();
        for (path, content) in files {
            let Some(folder) = folder_of(path) else { continue };
            let when = folder_time(folder);
            if when.is_none() {
                self.problems.push(LayoutProblem::FolderName(folder.to_owned()));
            }
            migrations.push(Migration::new(folder, path.clone(), when, content.clone()));
        }
        // The files came in the order of their names' bytes, and so the times are in order already.
        for second in migrations.chunk_by_mut(|a, b| a.name.get(..14) == b.name.get(..14)) {
            if second.len() > 1 {
                for Migration { name, when, .. } in second.iter() {
                    if when.is_some() && collation::key(name).is_none() {
                        self.problems.push(LayoutProblem::Order(name.clone()));
                    }
                }
                second.sort_by_cached_key(|migration| collation::key(&migration.name));
            }
        }
        self.migrations.append(&mut migrations);
    }
}

/// An entry of the journal: of what it says, what concerns us.
#[derive(Deserialize)]
struct JournalEntry {
    tag: Option<Value>,
    when: Option<Value>,
}

fn journal_entries(journal: &[u8]) -> Result<Vec<JournalEntry>, String> {
    #[derive(Deserialize)]
    struct Journal {
        entries: Vec<JournalEntry>,
    }
    let journal = journal.strip_prefix(b"\xef\xbb\xbf").unwrap_or(journal);
    // As drizzle-kit writes it: read at every start, and so without a map for each entry.
    if let Ok(journal) = serde_json::from_slice::<Journal>(journal) {
        return Ok(journal.entries);
    }
    let mut journal: Value =
        serde_json::from_slice(journal).map_err(|error| format!("is not valid JSON ({error})"))?;
    let entry = |mut entry: Value| {
        let mut take = |key| entry.get_mut(key).map(Value::take);
        JournalEntry { tag: take("tag"), when: take("when") }
    };
    match journal.get_mut("entries").map(Value::take) {
        Some(Value::Array(entries)) => Ok(entries.into_iter().map(entry).collect()),
        _ => Err("has no list `entries`".to_owned()),
    }
}

/// The migration of an entry, also where only its time is wrong.
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
        .ok_or_else(|| LayoutProblem::Journal(format!("has no `tag` in entry {index}")))?;
    if tag.is_empty()
        || tag.contains(['\\', '\0'])
        || tag.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(LayoutProblem::Tag(tag.to_owned()));
    }
    // drizzle-orm passes a string on to the server, which reads it as a number; and to JavaScript
    // 1.0 and 1 are the same.
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
        None => Err(LayoutProblem::NoFile { tag: tag.to_owned(), file }),
    }
}

/// A number without a fraction, as far as a float tells each from the next (2^53).
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

fn folder_of(path: &str) -> Option<&str> {
    path.strip_suffix("/migration.sql").filter(|folder| !folder.contains('/'))
}

/// The time in a folder's name, in Unix milliseconds. As JavaScript's `Date.UTC` does it, a month
/// of 13 is the next year's first: drizzle-orm does not look twice, and old folders may rely on it.
pub(crate) fn folder_time(folder: &str) -> Option<i64> {
    let digits = folder.get(..14)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    // Date.UTC reads the years 0 to 99 as 1900 to 1999.
    let year = if year < 100 { year + 1900 } else { year };
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    let days = days_from_civil(year, month) + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days from 1970-01-01 to the first of this month (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Unix milliseconds as `YYYYMMDDHHMMSS`, UTC (Howard Hinnant's `civil_from_days`).
pub fn folder_prefix(milliseconds: i64) -> String {
    let seconds = milliseconds.div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
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
        leading_number(&a.name).cmp(&leading_number(&b.name)).then_with(|| a.name.cmp(&b.name))
    });
    migrations
}

/// The number a name begins with, as one that compares rightly at any length: digits without
/// leading zeros, by count and then by value. Names without a number come last.
fn leading_number(name: &str) -> (bool, usize, Cow<'_, str>) {
    let digits = name.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let number = digits.trim_start_matches('0');
    (digits.is_empty(), number.len(), Cow::Borrowed(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Files {
        files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), Cow::Owned((*content).as_bytes().to_vec())))
            .collect()
    }

    fn names(of: &[(&str, &str)]) -> Result<Vec<String>, Vec<LayoutProblem>> {
        let set = read(&files(of))?;
        Ok(set.migrations().iter().map(|migration| migration.name.clone()).collect())
    }

    fn journal(entries: &str) -> String {
        format!(r#"{{"version":"7","dialect":"postgresql","entries":[{entries}]}}"#)
    }

    #[test]
    fn the_journal_decides_which_files_count_and_in_which_order() {
        let journal = journal(r#"{"when":9.0,"tag":"b"},{"when":"3","tag":"sub/a"}"#);
        let folder =
            [(JOURNAL, journal.as_str()), ("sub/a.sql", ""), ("b.sql", ""), ("orphan.sql", "")];
        assert_eq!(names(&folder), Ok(vec!["b".to_owned(), "sub/a".to_owned()]));
        let set = read(&files(&folder)).unwrap();
        assert_eq!(set.migrations().iter().map(|m| m.when).collect::<Vec<_>>(), [Some(9), Some(3)]);
    }

    #[test]
    fn a_folder_that_has_lost_its_journal_is_no_plain_one() {
        let missing = Err(vec![LayoutProblem::Journal("is missing".to_owned())]);
        for trace in [META, "meta/0000_snapshot.json"] {
            assert_eq!(names(&[("0000_a.sql", ""), (trace, "")]), missing, "{trace}");
            assert_eq!(names(&[(trace, "")]), missing, "{trace}");
            // What drizzle-kit 0.x has left behind there does no harm to a folder of 1.x.
            let folder = [("20260131093000_a/migration.sql", ""), (trace, "")];
            assert_eq!(names(&folder), Ok(vec!["20260131093000_a".to_owned()]), "{trace}");
        }
    }

    #[test]
    fn a_journal_without_entries_is_an_empty_set() {
        assert_eq!(names(&[(JOURNAL, &journal(""))]), Ok(vec![]));
    }

    #[test]
    fn a_leading_bom_in_the_journal_does_no_harm() {
        assert_eq!(names(&[(JOURNAL, &format!("\u{feff}{}", journal("")))]), Ok(vec![]));
    }

    #[test]
    fn everything_wrong_with_a_journal_is_told_at_once() {
        let journal = journal(
            r#"{"when":1,"tag":"gone"},{"when":1,"tag":"../x"},{"when":1.5,"tag":"a"},{"when":1}"#,
        );
        let problems = names(&[(JOURNAL, &journal), ("a.sql", "")]).unwrap_err();
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:#?}");
        for (told, word) in told.iter().zip(["gone.sql is missing", "../x", "`when`", "`tag`"]) {
            assert!(told.contains(word), "{told}");
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
    fn a_broken_journal_says_where() {
        let problems = names(&[(JOURNAL, "{\n oops")]).unwrap_err();
        assert!(problems[0].to_string().contains("line 2"), "{}", problems[0]);
        let problems = names(&[(JOURNAL, "{}")]).unwrap_err();
        assert!(problems[0].to_string().contains("`entries`"), "{}", problems[0]);
    }

    #[test]
    fn an_entry_named_twice_is_refused() {
        let journal = journal(r#"{"when":1,"tag":"a"},{"when":2,"tag":"a"}"#);
        let folder = [(JOURNAL, journal.as_str()), ("a.sql", "")];
        assert_eq!(names(&folder), Err(vec![LayoutProblem::Twice("a".to_owned())]));
    }

    #[test]
    fn a_survey_goes_on_where_something_is_wrong() {
        let survey_of = |folder: &[(&str, &str)]| {
            let survey = survey(&files(folder));
            let names: Vec<_> = survey.migrations.into_iter().map(|of| of.name).collect();
            (survey.layout, names.join(" "), survey.problems.len())
        };
        let entries = r#"{"when":1,"tag":"gone"},{"tag":"a"},{"when":2,"tag":"b"},
            {"when":3,"tag":"b"},{"when":4,"tag":"b"},{"when":5,"tag":"c"}"#;
        let journal = journal(entries);
        let folder = [(JOURNAL, journal.as_str()), ("a.sql", ""), ("b.sql", ""), ("c.sql", "")];
        assert_eq!(survey_of(&folder), (Layout::Drizzle0, "a b c".to_owned(), 3));
        let folder = [(JOURNAL, "{"), ("b.sql", ""), ("a.sql", "")];
        assert_eq!(survey_of(&folder), (Layout::Drizzle0, "a b".to_owned(), 1));
        let folder = [("init/migration.sql", ""), ("20261122180127_a/migration.sql", "")];
        assert_eq!(survey_of(&folder), (Layout::Drizzle1, "20261122180127_a init".to_owned(), 1));
        let both = [(JOURNAL, journal.as_str()), ("c.sql", ""), folder[1]];
        assert_eq!(survey_of(&both), (Layout::Drizzle1, "c 20261122180127_a".to_owned(), 1));
    }

    #[test]
    fn folders_of_1x_are_ordered_by_name_and_bear_their_time() {
        let folder = [
            ("20261122180128_b/migration.sql", ""),
            ("20261122180127_a/migration.sql", ""),
            ("loose.sql", ""),
        ];
        let set = read(&files(&folder)).unwrap();
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
    fn folders_of_one_second_are_ordered_as_drizzle_orm_orders_them() {
        let order = ["a", "A", "ä", "a_1", "a-1", "a1", "a10", "a2", "b", "B"]
            .map(|name| format!("20261122180127_{name}"));
        let folder: Vec<_> = order.iter().map(|name| format!("{name}/migration.sql")).collect();
        let folder: Vec<_> = folder.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(names(&folder).unwrap(), order);
        let russian = [("20261122180127_имя/migration.sql", ""), folder[0]];
        assert!(matches!(names(&russian).unwrap_err()[..], [LayoutProblem::Order(_)]));
        assert!(names(&russian[..1]).is_ok(), "alone in its second it needs no order");
    }

    #[test]
    fn a_folders_time_rolls_over_as_javascripts() {
        assert_eq!(folder_time("20231399999999_x"), Some(1_712_896_839_000));
        assert_eq!(folder_time("19700101000000_x"), Some(0));
        assert_eq!(folder_time("20240229120000_x"), Some(1_709_208_000_000));
        assert_eq!(folder_time("0000_init"), None);
    }

    #[test]
    fn a_time_becomes_a_folders_prefix() {
        assert_eq!(folder_prefix(0), "19700101000000");
        assert_eq!(folder_prefix(1_709_208_000_000), "20240229120000");
        assert_eq!(folder_prefix(1_735_689_599_999), "20241231235959");
    }

    #[test]
    fn a_folder_without_a_time_is_refused() {
        let problems = names(&[("0000_init/migration.sql", "")]).unwrap_err();
        assert_eq!(problems, [LayoutProblem::FolderName("0000_init".to_owned())]);
    }

    #[test]
    fn both_layouts_at_once_are_refused() {
        let journal = journal("");
        let folder = [(JOURNAL, journal.as_str()), ("20261122180128_b/migration.sql", "")];
        assert_eq!(names(&folder), Err(vec![LayoutProblem::TwoLayouts]));
    }

    #[test]
    fn plain_files_go_by_number_then_name() {
        let folder = [
            ("10_z.sql", ""),
            ("2_b.sql", ""),
            ("002_a.sql", ""),
            ("readme.sql", ""),
            ("20260101000000_long.sql", ""),
        ];
        let order = ["002_a", "2_b", "10_z", "20260101000000_long", "readme"];
        assert_eq!(names(&folder).unwrap(), order);
    }

    #[test]
    fn a_folder_without_migrations_is_not_recognised() {
        assert_eq!(names(&[]), Err(vec![LayoutProblem::Unrecognised]));
        assert_eq!(names(&[("deep/er/x.sql", "")]), Err(vec![LayoutProblem::Unrecognised]));
    }
}
