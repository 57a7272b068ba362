//! `new`: an empty migration after those that are there, as `drizzle-kit generate --custom` makes
//! it, so that drizzle-kit goes on from it.
//!
//! [`steps`] decides, from the folder's files alone; [`add`] reads the folder and takes the steps.

mod drizzle0;
mod drizzle1;

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::migrations::layout::{self, folder_prefix};
use crate::migrations::migration::{Layout, MigrationSet};
use crate::migrations::source::{self, Files, JOURNAL, MigrationFolder, Origin, Unreadable};

/// What drizzle-kit writes into an empty migration; no line feed follows.
pub const DRIZZLE_TEXT: &str = "-- Custom SQL migration file, put your code below! --";

/// What a plain one begins with.
pub const PLAIN_TEXT: &str = "-- The SQL of this migration goes below.\n";

/// The parent of a first snapshot.
const ORIGIN: &str = "00000000-0000-0000-0000-000000000000";

/// One change to the folder, which is made wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file that is not there yet.
    Create {
        /// Its path inside the migrations folder.
        path: String,
        /// Its content.
        content: String,
    },
    /// A folder that is not there yet, with its files.
    CreateFolder {
        /// Its name.
        name: String,
        /// The files' names, and their content.
        files: Vec<(String, String)>,
    },
    /// New content for a file that is there.
    Replace {
        /// Its path inside the migrations folder.
        path: String,
        /// Its content.
        content: String,
    },
}

/// Why no migration was added; nothing was changed then.
#[derive(Debug)]
pub enum NewError {
    /// The name cannot stand in a file's.
    Name(String),
    /// There is no such folder.
    NoFolder(PathBuf),
    /// The folder holds no migration, from which the layout could be seen.
    Empty,
    /// The migrations that are there are not in order.
    Set(Vec<layout::LayoutProblem>),
    /// The journal is another database's.
    Dialect(String),
    /// drizzle-kit could not go on from this snapshot.
    Snapshot {
        /// Its path inside the migrations folder.
        file: String,
        /// Why not.
        fault: Fault,
    },
    /// Something of the new one's name is there.
    Exists(String),
    /// The new one would not be the last to run.
    NotLast {
        /// The file it would have.
        file: String,
        /// The one that would run after it.
        last: String,
    },
    /// The system did not let us read or write.
    Io {
        /// What.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// What is wrong with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is not what drizzle-kit writes.
    Malformed(String),
    /// It has another version than the drizzle-kit that we know writes.
    Version {
        /// The version it has.
        found: String,
        /// The one it should have.
        known: u64,
    },
    /// It sorts last, but the journal's last migration has another one.
    NotTheLast,
    /// Another snapshot follows the same one.
    SameParent(String),
    /// The snapshot that it follows is nowhere.
    NoParent(String),
    /// Its folder does not sort after the one that it follows.
    BeforeParent(String),
    /// It follows nothing, and neither does another one.
    SecondBase(String),
    /// It follows nothing, but holds changes only.
    NoBase,
    /// It changes what another branch touches as well.
    Conflict(String),
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewError::Name(name) => write!(
                f,
                "{name:?} cannot name a migration: a name is not empty, does not begin with a dot, \
                 and holds neither a slash, a backslash, `..` nor a control character"
            ),
            NewError::NoFolder(folder) => write!(
                f,
                "there is no folder {}; name the one with the migrations",
                folder.display()
            ),
            NewError::Empty => f.write_str(
                "no migration is here yet, so its layout cannot be told; begin with `drizzle-kit \
                 generate`, or, without Drizzle, with a file such as 0001_init.sql",
            ),
            NewError::Set(problems) => {
                let sentences: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&sentences.join("\n"))
            }
            NewError::Dialect(dialect) => write!(
                f,
                "{JOURNAL} is for {dialect}, and premigrate for PostgreSQL only; name another folder"
            ),
            NewError::Snapshot { file, fault } => write!(f, "{file} {fault}"),
            NewError::Exists(path) => write!(
                f,
                "{path} is there already; choose another name, or remove it if nothing uses it"
            ),
            NewError::NotLast { file, last } => {
                write!(f, "{file} would run before {last}; choose a name that sorts after {last}")
            }
            NewError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restore = "restore it from version control";
        match self {
            Fault::Missing => {
                write!(f, "is missing, and the next migration is made from it; {restore}")
            }
            Fault::Malformed(what) => {
                write!(f, "is not a snapshot as drizzle-kit writes it: {what}; {restore}")
            }
            Fault::Version { found, known } => write!(
                f,
                "has the version {found}, and {known} is known here; run `drizzle-kit up`, or make \
                 the migration with `drizzle-kit generate --custom`"
            ),
            Fault::NotTheLast => write!(
                f,
                "sorts last, so drizzle-kit would go on from it, but it is not the snapshot of the \
                 journal's last migration; remove it, or restore the journal from version control"
            ),
            Fault::SameParent(other) => write!(
                f,
                "follows the same snapshot as {other}: two branches were merged; take one of both \
                 migrations out, and generate it again"
            ),
            Fault::NoParent(parent) => write!(
                f,
                "follows the snapshot {parent}, which is not here; restore that migration's folder \
                 from version control"
            ),
            Fault::BeforeParent(parent) => {
                write!(f, "follows {parent}, but sorts before it; rename one of both folders")
            }
            Fault::SecondBase(other) => write!(
                f,
                "is a first snapshot, and so is {other}; take one of both migrations out, and \
                 generate it again"
            ),
            Fault::NoBase => {
                f.write_str("has no first snapshot before it; restore the first migration's folder")
            }
            Fault::Conflict(other) => write!(
                f,
                "and {other} end two branches that change the same thing; see `drizzle-kit check`, \
                 and generate one of both again"
            ),
        }
    }
}

/// Adds an empty migration to a folder, at this time in Unix milliseconds; the files that are new,
/// the migration's own first.
pub fn add(dir: &Path, name: &str, now: i64) -> Result<Vec<PathBuf>, NewError> {
    let folder = read(dir)?;
    take(dir, &steps(&folder, name, now, random())?)
}

/// What has to be done to a folder with these files, at this time in Unix milliseconds.
pub fn steps(
    folder: &MigrationFolder,
    name: &str,
    now: i64,
    random: [u8; 16],
) -> Result<Vec<Step>, NewError> {
    let files = &folder.files;
    if name.is_empty()
        || name.starts_with('.')
        || name.contains("..")
        || name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
    {
        return Err(NewError::Name(name.to_owned()));
    }
    let set = match MigrationSet::from_folder(folder) {
        Ok(set) => set,
        Err(problems) if problems == [layout::LayoutProblem::Unrecognised] => {
            return Err(NewError::Empty);
        }
        Err(problems) => return Err(NewError::Set(problems)),
    };
    let steps = match set.layout() {
        Layout::Drizzle0 => drizzle0::steps(files, &set, name, now, &uuid(random))?,
        Layout::Drizzle1 => drizzle1::steps(files, &set, name, now, &uuid(random))?,
        Layout::Plain => plain(files, &set, name, now)?,
    };
    let taken = steps.iter().find_map(|step| match step {
        Step::Create { path, .. } => files.contains_key(path).then_some(path),
        Step::CreateFolder { .. } | Step::Replace { .. } => None,
    });
    match taken {
        Some(path) => Err(NewError::Exists(path.clone())),
        None => Ok(steps),
    }
}

/// A plain file, named as the last one is: by a number, by the time, or by nothing but its name.
fn plain(files: &Files, set: &MigrationSet, name: &str, now: i64) -> Result<Vec<Step>, NewError> {
    let last = set.migrations().last().map(|last| last.name.as_str()).unwrap_or_default();
    let digits = leading_digits(last);
    let prefix = following(digits, now).map(|digits_of_new| {
        let rest = last.get(digits.len()..).unwrap_or_default();
        let separator = rest.split(char::is_alphanumeric).next().unwrap_or_default();
        digits_of_new + if separator.is_empty() { "_" } else { separator }
    });
    let new = prefix.unwrap_or_default() + name;
    let path = format!("{new}.sql");

    let mut files = files.clone();
    if files.insert(path.clone(), Cow::Borrowed(PLAIN_TEXT.as_bytes())).is_some() {
        return Err(NewError::Exists(path));
    }
    let after = MigrationSet::from_folder(&files.into()).map_err(NewError::Set)?;
    match after.migrations().last() {
        Some(last) if last.name != new => {
            Err(NewError::NotLast { file: path, last: last.file.clone() })
        }
        _ => Ok(vec![Step::Create { path, content: PLAIN_TEXT.to_owned() }]),
    }
}

fn leading_digits(name: &str) -> &str {
    name.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
}

/// The digits that come after these, in their own style: a time stamp, seconds, or a number with
/// leading zeros. None follow a name without any.
fn following(digits: &str, now: i64) -> Option<String> {
    let number = digits.parse::<i64>().ok()?;
    match digits.len() {
        14 => Some(folder_prefix(now.max(layout::folder_time(digits)? + 1000))),
        10 if !digits.starts_with('0') => Some(now.div_euclid(1000).max(number + 1).to_string()),
        width => Some(format!("{:0width$}", number.checked_add(1)?)),
    }
}

/// A random UUID (version 4) of these bytes.
fn uuid(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    let bits = bits & !(0xf << 76) | (4 << 76);
    let bits = bits & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Bytes that no other run has: the standard library seeds each hasher from the system's own
/// source, and that one never fails.
fn random() -> [u8; 16] {
    let seeded = RandomState::new();
    let halves = [seeded.hash_one(0), seeded.hash_one(1)];
    (u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes()
}

/// A snapshot's JSON, of the one version that is known here.
fn snapshot(file: &str, content: &[u8], dialect: &str, known: u64) -> Result<Value, NewError> {
    let invalid = |fault| NewError::Snapshot { file: file.to_owned(), fault };
    let malformed = |what: String| invalid(Fault::Malformed(what));
    let value: Value = serde_json::from_slice(content)
        .map_err(|error| malformed(format!("it is not valid JSON ({error})")))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let version = text("version").ok_or_else(|| malformed("it has no `version`".to_owned()))?;
    if version != known.to_string() {
        return Err(invalid(Fault::Version { found: version.to_owned(), known }));
    }
    if text("dialect") != Some(dialect) {
        return Err(malformed(format!("its `dialect` is not {dialect}")));
    }
    match text("id") {
        Some(_) => Ok(value),
        None => Err(malformed("it has no `id`".to_owned())),
    }
}

/// As `JSON.stringify(value, null, 2)` writes it.
fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// The migrations of a folder, with drizzle-kit's snapshots.
fn read(dir: &Path) -> Result<MigrationFolder, NewError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| NewError::Io { path, error }
    };
    if !dir.is_dir() {
        return Err(NewError::NoFolder(dir.to_owned()));
    }
    let origin = Origin::Folder(dir.to_owned());
    let mut migrations = source::load(&origin).map_err(|unreadable| match unreadable {
        Unreadable::Path { path, error } => NewError::Io { path, error },
        Unreadable::NothingEmbedded => NewError::Empty,
    })?;
    let name_of = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    for folder in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = folder.map_err(unreadable(dir))?.path();
        let Some(folder) = name_of(&path).filter(|name| !source::may_be_unreadable(name)) else {
            continue;
        };
        if !path.is_dir() {
            continue;
        }
        for file in fs::read_dir(&path).map_err(unreadable(&path))? {
            let file = file.map_err(unreadable(&path))?.path();
            let Some(name) = name_of(&file) else { continue };
            if name == "snapshot.json" || folder == "meta" && name.ends_with("_snapshot.json") {
                let content = fs::read(&file).map_err(unreadable(&file))?;
                migrations.files.insert(format!("{folder}/{name}"), Cow::Owned(content));
            }
        }
    }
    Ok(migrations)
}

/// Takes the steps; should one fail, those before it are undone.
fn take(dir: &Path, steps: &[Step]) -> Result<Vec<PathBuf>, NewError> {
    let mut created = Vec::new();
    for step in steps {
        if let Err(error) = step.take(dir, &mut created) {
            for path in created {
                let _ = fs::remove_file(path);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                    NewError::Exists(step.path().to_owned())
                }
                _ => NewError::Io { path: dir.join(step.path()), error },
            });
        }
    }
    Ok(created)
}

impl Step {
    fn path(&self) -> &str {
        match self {
            Step::Create { path, .. } | Step::Replace { path, .. } => path,
            Step::CreateFolder { name, .. } => name,
        }
    }

    fn take(&self, dir: &Path, created: &mut Vec<PathBuf>) -> io::Result<()> {
        match self {
            Step::Create { path, content } => {
                let path = dir.join(path);
                let file = File::create_new(&path)?;
                created.push(path);
                write(file, content)
            }
            Step::CreateFolder { name, files } => {
                // Two folders deep, neither drizzle-kit nor drizzle-orm sees it grow.
                let hidden = dir.join(format!(".{name}.new"));
                let staged = hidden.join(name);
                fs::create_dir_all(&staged)?;
                let moved = files
                    .iter()
                    .try_for_each(|(file, content)| {
                        write(File::create(staged.join(file))?, content)
                    })
                    .and_then(|()| fs::rename(&staged, dir.join(name)));
                let _ = fs::remove_dir_all(&hidden);
                moved?;
                created.extend(files.iter().map(|(file, _)| dir.join(name).join(file)));
                Ok(())
            }
            Step::Replace { path, content } => {
                // A link stays one: what it leads to is replaced.
                let path = fs::canonicalize(dir.join(path))?;
                let staged = path.with_added_extension("new");
                let written = File::create(&staged)
                    .and_then(|file| write(file, content))
                    .and_then(|()| fs::set_permissions(&staged, fs::metadata(&path)?.permissions()))
                    .and_then(|()| fs::rename(&staged, &path));
                if written.is_err() {
                    let _ = fs::remove_file(&staged);
                }
                written
            }
        }
    }
}

/// To the disk: a rename must not get there before what is renamed.
fn write(mut file: File, content: &str) -> io::Result<()> {
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 20:37:40.5 UTC.
    pub(super) const NOW: i64 = 1_795_379_860_500;
    /// Of zeros, but for the version and the variant.
    pub(super) const ID: &str = "00000000-0000-4000-8000-000000000000";

    pub(super) fn files(files: &[(&str, String)]) -> Files {
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), Cow::Owned(text.clone().into_bytes())))
            .collect()
    }

    /// What is written where, in order.
    pub(super) fn written(files: &Files, name: &str) -> Vec<(String, String)> {
        let steps = steps(&files.clone().into(), name, NOW, [0; 16])
            .unwrap_or_else(|invalid| panic!("{invalid}"));
        steps
            .into_iter()
            .flat_map(|step| match step {
                Step::Create { path, content } | Step::Replace { path, content } => {
                    vec![(path, content)]
                }
                Step::CreateFolder { name, files } => files
                    .into_iter()
                    .map(|(file, content)| (format!("{name}/{file}"), content))
                    .collect(),
            })
            .collect()
    }

    #[track_caller]
    pub(super) fn refusal(files: &Files, name: &str) -> String {
        steps(&files.clone().into(), name, NOW, [0; 16]).expect_err("refused").to_string()
    }

    fn plain(names: &[&str]) -> Files {
        let files = names.iter().map(|name| (*name, String::new())).collect::<Vec<_>>();
        self::files(&files)
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("{name}-{}", uuid(random())));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn listing(&self) -> Vec<(String, String)> {
            let mut files: Vec<_> = fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, fs::read_to_string(path).unwrap_or_default())
                })
                .collect();
            files.sort();
            files
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn create(path: &str) -> Step {
        Step::Create { path: path.to_owned(), content: "new".to_owned() }
    }

    #[test]
    fn a_plain_file_continues_the_numbers_in_their_own_style() {
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
            let expected = vec![(new.to_owned(), PLAIN_TEXT.to_owned())];
            assert_eq!(written(&plain(present), "x y"), expected, "{present:?}");
        }
    }

    #[test]
    fn a_plain_file_that_would_not_run_last_is_refused() {
        let said = refusal(&plain(&["1_a.sql", "seed.sql"]), "e");
        assert_eq!(
            said,
            "e.sql would run before seed.sql; choose a name that sorts after seed.sql"
        );
        let said = refusal(&plain(&["a.sql"]), "a");
        assert!(said.starts_with("a.sql is there already"), "{said}");
    }

    #[test]
    fn a_name_stays_in_the_folder_and_in_sight() {
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "a..b", ".a", "a\0b", "a\nb"] {
            assert!(
                matches!(steps(&plain(&["1.sql"]).into(), name, NOW, [0; 16]),
                Err(NewError::Name(named)) if named == name),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_folder_whose_layout_cannot_be_told_is_refused() {
        let said = refusal(&Files::new(), "x");
        assert!(said.contains("begin with `drizzle-kit generate`"), "{said}");
        let nowhere = Path::new("/nowhere/at/all");
        assert!(matches!(add(nowhere, "x", 0), Err(NewError::NoFolder(path)) if path == nowhere));
    }

    #[test]
    fn both_layouts_at_once_are_refused() {
        let both = plain(&[JOURNAL, "20260131093000_a/migration.sql"]);
        assert!(refusal(&both, "x").contains("drizzle-kit up"));
    }

    #[test]
    fn snapshots_without_their_journal_are_no_plain_folder() {
        let said = refusal(&plain(&["0000_a.sql", "meta/0000_snapshot.json"]), "x");
        assert_eq!(said, "meta/_journal.json is missing; restore it from version control");
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        assert_eq!(uuid([0; 16]), ID);
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_ne!(random(), random());
    }

    #[test]
    fn a_time_is_written_as_drizzle_kit_writes_it() {
        for stamped in ["19700101000000", "20000229235959", "20261122203740", "21000301000000"] {
            assert_eq!(folder_prefix(layout::folder_time(stamped).unwrap() + 999), stamped);
        }
    }

    #[test]
    fn a_file_that_is_there_is_never_written_over_and_what_came_before_is_undone() {
        let folder = Folder::new("undone");
        fs::write(folder.0.join("b"), "old").unwrap();
        let taken = take(&folder.0, &[create("a"), create("b")]);
        assert!(matches!(taken, Err(NewError::Exists(path)) if path == "b"));
        assert_eq!(folder.listing(), [("b".to_owned(), "old".to_owned())]);
    }

    #[test]
    fn a_folder_appears_with_all_of_its_files_or_not_at_all() {
        let folder = Folder::new("folder");
        let file = |content: &str| ("migration.sql".to_owned(), content.to_owned());
        let step =
            |content| Step::CreateFolder { name: "x".to_owned(), files: vec![file(content)] };
        let created = take(&folder.0, &[step("new")]).unwrap();
        assert_eq!(created, [folder.0.join("x/migration.sql")]);
        assert_eq!(fs::read_to_string(&created[0]).unwrap(), "new");

        assert!(matches!(take(&folder.0, &[step("newer")]), Err(NewError::Exists(_))));
        assert_eq!(fs::read_to_string(&created[0]).unwrap(), "new");
        assert_eq!(folder.listing(), [("x".to_owned(), String::new())], "nothing is left over");
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions_and_its_link() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = Folder::new("replaced");
        let (file, link) = (folder.0.join("file"), folder.0.join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        let step = Step::Replace { path: "link".to_owned(), content: "new".to_owned() };
        assert_eq!(take(&folder.0, &[step]).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(folder.listing().len(), 2, "no temporary file is left");
    }

    #[test]
    fn a_journal_that_cannot_be_replaced_leaves_the_folder_as_it_was() {
        let folder = Folder::new("crash");
        let replace = Step::Replace { path: "missing".to_owned(), content: String::new() };
        assert!(matches!(take(&folder.0, &[create("a"), replace]), Err(NewError::Io { .. })));
        assert_eq!(folder.listing(), []);
    }
}
