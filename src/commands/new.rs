//! `new`: an empty file that runs after the migrations of a folder of plain files.
//!
//! [`next_file`] decides its name from the folder's files alone; [`add`] writes it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::args::shell_word;
use crate::migrations::folder_time::{folder_prefix, folder_time};
use crate::migrations::layout::LayoutProblem;
use crate::migrations::migration::{Layout, MigrationSet};
use crate::migrations::source::MigrationFolder;

/// The content of a new migration.
pub const PLAIN_TEXT: &str = "-- The SQL of this migration goes below.\n";

/// Why no migration was added. The folder is unchanged.
#[derive(Debug)]
pub enum NewError {
    /// The name cannot be part of a file's name.
    Name(String),
    /// The folder is drizzle-kit's, which has a command for this name.
    Drizzle(String),
    /// The folder holds no migration, so that its layout is unknown.
    Empty,
    Set(Vec<LayoutProblem>),
    /// This file is there.
    Exists(String),
    /// The new file would run before `last`.
    NotLast {
        file: String,
        last: String,
    },
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewError::Name(name) => write!(
                f,
                "{name:?} cannot name a migration: a name must not be empty, begin with a dot, or \
                 contain a slash, a backslash, `..` or a control character"
            ),
            NewError::Drizzle(name) => write!(
                f,
                "this folder belongs to drizzle-kit; run `drizzle-kit generate --custom --name {}`",
                shell_word(name)
            ),
            NewError::Empty => f.write_str(
                "the folder holds no migrations yet; run `drizzle-kit generate`, or, without \
                 Drizzle, create the first file, such as 0001_init.sql",
            ),
            NewError::Set(problems) => {
                let sentences: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&sentences.join("; "))
            }
            NewError::Exists(file) => {
                write!(f, "{file} already exists; choose another name, or remove that file")
            }
            NewError::NotLast { file, last } => {
                write!(f, "{file} would run before {last}; choose a name that sorts after {last}")
            }
            NewError::Io { path, error } => {
                write!(f, "could not write {}: {error}", path.display())
            }
        }
    }
}

/// Adds an empty migration to the folder with these files; `now` is in Unix milliseconds. Returns
/// the path of the new file.
pub fn add(
    dir: &Path,
    folder: &MigrationFolder,
    name: &str,
    now: i64,
) -> Result<PathBuf, NewError> {
    let file = next_file(folder, name, now)?;
    let path = dir.join(&file);
    let mut created = match File::create_new(&path) {
        Ok(created) => created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(NewError::Exists(file));
        }
        Err(error) => return Err(NewError::Io { path, error }),
    };
    match created.write_all(PLAIN_TEXT.as_bytes()) {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(NewError::Io { path, error })
        }
    }
}

/// The file of a new migration. Its prefix continues that of the last one: a number, a time, or
/// none.
fn next_file(folder: &MigrationFolder, name: &str, now: i64) -> Result<String, NewError> {
    if name.is_empty()
        || name.starts_with('.')
        || name.contains("..")
        || name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
    {
        return Err(NewError::Name(name.to_owned()));
    }
    let set = MigrationSet::from_folder(folder).map_err(|problems| match problems.as_slice() {
        [LayoutProblem::Unrecognized] => NewError::Empty,
        _ => NewError::Set(problems),
    })?;
    if set.layout() != Layout::Plain {
        return Err(NewError::Drizzle(name.to_owned()));
    }
    let last = set.migrations().last().map(|last| last.name.as_str()).unwrap_or_default();
    let migration = next_prefix(last, now).unwrap_or_default() + name;
    let file = format!("{migration}.sql");

    let mut folder = folder.clone();
    if folder.files.insert(file.clone(), PLAIN_TEXT.as_bytes().into()).is_some() {
        return Err(NewError::Exists(file));
    }
    let set = MigrationSet::from_folder(&folder).map_err(NewError::Set)?;
    match set.migrations().last() {
        Some(last) if last.name != migration => {
            Err(NewError::NotLast { file, last: last.file.clone() })
        }
        _ => Ok(file),
    }
}

/// What comes before the name, after a migration of this name: digits in the same style (a time
/// stamp, seconds, or a number with leading zeros), and the same separator. `None` if the last
/// name has no digits.
fn next_prefix(last: &str, now: i64) -> Option<String> {
    let digits = last.split(|c: char| !c.is_ascii_digit()).next()?;
    let number = digits.parse::<i64>().ok()?;
    let next = match digits.len() {
        14 => folder_prefix(now.max(folder_time(digits)? + 1000)),
        10 if !digits.starts_with('0') => now.div_euclid(1000).max(number + 1).to_string(),
        width => format!("{:0width$}", number.checked_add(1)?),
    };
    let separator = last.get(digits.len()..)?.split(char::is_alphanumeric).next()?;
    Some(next + if separator.is_empty() { "_" } else { separator })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::source::{Files, JOURNAL};

    /// 2026-11-22 20:37:40.5 UTC.
    const NOW: i64 = 1_795_379_860_500;

    fn folder(names: &[&str]) -> MigrationFolder {
        let empty = |name: &&str| ((*name).to_owned(), (&b""[..]).into());
        names.iter().map(empty).collect::<Files>().into()
    }

    #[track_caller]
    fn refusal(folder: &MigrationFolder, name: &str) -> String {
        next_file(folder, name, NOW).expect_err("refused").to_string()
    }

    #[test]
    fn a_new_file_continues_the_numbers_in_their_own_style() {
        for (present, new) in [
            (&["1_a.sql"][..], "2_x y.sql"),
            (&["0009_a.sql", "0010_b.sql"], "0011_x y.sql"),
            (&["099-a.sql"], "100-x y.sql"),
            (&["999_a.sql"], "1000_x y.sql"),
            (&["2.sql"], "3_x y.sql"),
            (&["1__a.sql"], "2__x y.sql"),
            (&["20260131093000_a.sql"], "20261122203740_x y.sql"),
            (&["20991231235959_a.sql"], "21000101000000_x y.sql"),
            (&["1700000000_a.sql"], "1795379860_x y.sql"),
            (&["1900000000_a.sql"], "1900000001_x y.sql"),
            (&["a.sql"], "x y.sql"),
            (&["001_a.sql", "seed.sql"], "x y.sql"),
        ] {
            assert_eq!(next_file(&folder(present), "x y", NOW).unwrap(), new, "{present:?}");
        }
    }

    #[test]
    fn a_file_that_would_not_run_last_is_refused() {
        assert_eq!(
            refusal(&folder(&["1_a.sql", "seed.sql"]), "e"),
            "e.sql would run before seed.sql; choose a name that sorts after seed.sql"
        );
        let error = refusal(&folder(&["a.sql"]), "a");
        assert!(error.starts_with("a.sql already exists"), "{error}");
    }

    #[test]
    fn a_name_must_be_part_of_a_visible_files_name() {
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "a..b", ".a", "a\0b", "a\nb"] {
            let result = next_file(&folder(&["1.sql"]), name, NOW);
            assert!(matches!(result, Err(NewError::Name(named)) if named == name), "{name:?}");
        }
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let error = refusal(&MigrationFolder::default(), "x");
        assert!(error.contains("such as 0001_init.sql"), "{error}");
    }

    #[test]
    fn in_a_folder_of_drizzles_the_command_of_drizzle_kit_is_named() {
        let mut drizzle0 = folder(&[JOURNAL]);
        drizzle0.files.insert(JOURNAL.to_owned(), (&br#"{"entries": []}"#[..]).into());
        for files in [drizzle0, folder(&["20260131093000_a/migration.sql"])] {
            assert_eq!(
                refusal(&files, "fill it"),
                "this folder belongs to drizzle-kit; run `drizzle-kit generate --custom --name \
                 'fill it'`"
            );
        }
    }

    #[test]
    fn a_folder_with_both_of_drizzles_layouts_is_refused() {
        let both = folder(&[JOURNAL, "20260131093000_a/migration.sql"]);
        assert!(refusal(&both, "x").contains("drizzle-kit up"));
    }

    #[test]
    fn a_time_is_written_as_drizzle_kit_writes_it() {
        for stamped in ["19700101000000", "20000229235959", "20261122203740", "21000301000000"] {
            assert_eq!(folder_prefix(folder_time(stamped).unwrap() + 999), stamped);
        }
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let dir = std::env::temp_dir().join(format!("premigrate-new-{nanos}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("2_b.sql"), "old").unwrap();
        // It was written after the folder had been read.
        let result = add(&dir, &folder(&["1_a.sql"]), "b", NOW);
        let content = fs::read_to_string(dir.join("2_b.sql")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(result, Err(NewError::Exists(file)) if file == "2_b.sql"));
        assert_eq!(content, "old");
    }
}
