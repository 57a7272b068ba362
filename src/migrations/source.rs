//! Reads migration files from this executable or from a folder. `layout` interprets them.

use std::collections::BTreeMap;
use std::fs::{DirEntry, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use nix::libc;
use rust_embed::RustEmbed;
use serde::Serialize;

use crate::migrations::migration::Content;

/// Path inside the migrations folder, with `/`, to the file's content.
pub type Files = BTreeMap<String, Content>;

/// drizzle-kit 0.x's journal, and its folder.
pub const JOURNAL: &str = "meta/_journal.json";
const META: &str = "meta";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationFolder {
    pub files: Files,
    /// Whether there is a folder `meta`, which tells a Drizzle folder without its journal from a
    /// plain one.
    pub has_meta: bool,
    /// Files like `0001_a.SQL`, which are never read, because only names in `.sql` are migrations.
    pub upper_case: Vec<String>,
}

#[derive(RustEmbed)]
#[folder = "$EMBEDDED_MIGRATIONS"]
#[include = "*.sql"]
#[include = "meta/_journal.json"]
#[exclude = ".*"]
#[exclude = "*/.*"]
struct Embedded;

/// Where a set of migrations comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Embedded at build time.
    Executable,
    /// Named by `--dir`, or the default.
    Folder(PathBuf),
}

/// The folder that is used where none is named and nothing is embedded.
pub const DEFAULT_FOLDER: &str = "/migrations";

impl Origin {
    /// The folder that was named, or else what this executable has, or else the default folder.
    pub fn choose(named: Option<PathBuf>) -> Origin {
        let default = Path::new(DEFAULT_FOLDER);
        Origin::first_of(named, is_embedded(), default.is_dir().then_some(default))
    }

    fn first_of(named: Option<PathBuf>, is_embedded: bool, default: Option<&Path>) -> Origin {
        match (named, default) {
            (Some(folder), _) => Origin::Folder(folder),
            (None, Some(folder)) if !is_embedded => Origin::Folder(folder.to_owned()),
            (None, _) => Origin::Executable,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Executable => f.write_str("this executable"),
            Origin::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// Why files cannot be loaded.
#[derive(Debug, Serialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum Unreadable {
    /// The executable was built without migrations, no folder was named, and there is no default
    /// folder.
    NothingEmbedded,
    /// The migrations folder, or a file in it, cannot be read.
    #[serde(rename = "unreadable")]
    Path {
        path: String,
        #[serde(skip)]
        error: io::Error,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::NothingEmbedded => f.write_str(
                "this executable has no migrations embedded, and there is no folder /migrations; name \
                 a folder with --dir, or build it with PREMIGRATE_MIGRATIONS",
            ),
            Unreadable::Path { path, error } => write!(f, "could not read {path}: {error}"),
        }
    }
}

/// Reads all files; ends with an error soon after `is_stopped` becomes true.
pub fn load(origin: &Origin, is_stopped: &dyn Fn() -> bool) -> Result<MigrationFolder, Unreadable> {
    match origin {
        Origin::Executable => embedded(),
        Origin::Folder(path) => {
            let mut walk = Walk { folder: MigrationFolder::default(), is_stopped };
            walk.directory(path, "", false)?;
            walk.folder.upper_case.sort();
            Ok(walk.folder)
        }
    }
}

fn embedded() -> Result<MigrationFolder, Unreadable> {
    let files: Files = Embedded::iter()
        .filter_map(|path| Some((path.to_string(), Embedded::get(&path)?.data.into())))
        .collect();
    match is_embedded() {
        // Files with other names are not embedded.
        true => Ok(MigrationFolder { files, has_meta: HAS_META, upper_case: Vec::new() }),
        false => Err(Unreadable::NothingEmbedded),
    }
}

/// Whether the embedded folder has a folder `meta`, of which only the journal is embedded.
const HAS_META: bool = matches!(env!("EMBEDDED_META").as_bytes(), b"true");

fn is_embedded() -> bool {
    HAS_META || Embedded::iter().next().is_some()
}

/// The deepest level at which a tag's file is found.
const MAX_DEPTH: usize = 8;

/// How much of a file is read between two looks for a signal.
const CHUNK: u64 = 1 << 20;

struct Walk<'a> {
    folder: MigrationFolder,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Walk<'_> {
    /// Reads a folder; `is_linked` if a link leads to it.
    fn directory(&mut self, dir: &Path, prefix: &str, is_linked: bool) -> Result<(), Unreadable> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(_) if may_be_unreadable(prefix.trim_end_matches('/')) => return Ok(()),
            Err(error) => return Err(unreadable(dir, error)),
        };
        for entry in entries {
            self.check_stop().map_err(|error| unreadable(dir, error))?;
            let entry = entry.map_err(|error| unreadable(dir, error))?;
            let name = entry.file_name();
            // Includes Kubernetes' `..data`, where every file of a ConfigMap would be found again.
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            match name.to_str() {
                Some(name) => self.entry(&entry, &format!("{prefix}{name}"), is_linked)?,
                None if may_be_unreadable(&format!("{prefix}{}", name.display())) => {}
                None => {
                    let error = invalid("its name is not valid UTF-8; rename it");
                    return Err(unreadable(&entry.path(), error));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, inside: &str, in_linked: bool) -> Result<(), Unreadable> {
        let path = entry.path();
        // Follows links, since the files of a ConfigMap are links. For anything else the listing
        // has the type, without another system call.
        let (kind, is_link) = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => (kind, false),
            _ => match fs::metadata(&path) {
                Ok(metadata) => (metadata.file_type(), true),
                Err(_) if may_be_unreadable(inside) => return Ok(()),
                Err(error) => return Err(unreadable(&path, error)),
            },
        };
        if kind.is_dir() {
            self.folder.has_meta |= inside == META;
            let depth = inside.matches('/').count();
            // Links to folders may lead in a circle, or out to everything else.
            let leads_away = in_linked || (is_link && depth > 0);
            if depth < MAX_DEPTH && !leads_away && entry.file_name() != "node_modules" {
                self.directory(&path, &format!("{inside}/"), is_link)?;
            }
        } else if inside.ends_with(".sql") || inside == JOURNAL {
            let content = self.content(&path).map_err(|error| unreadable(&path, error))?;
            self.folder.files.insert(inside.to_owned(), content.into());
        } else if inside.to_ascii_lowercase().ends_with(".sql") {
            self.folder.upper_case.push(inside.to_owned());
        }
        Ok(())
    }

    /// The content of a regular file. Anything else may never end, or never begin: opening a pipe
    /// would wait for its writer.
    fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(invalid("it is not a regular file"));
        }
        let mut content = Vec::new();
        content.try_reserve_exact(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
        while file.by_ref().take(CHUNK).read_to_end(&mut content)? as u64 == CHUNK {
            self.check_stop()?;
        }
        Ok(content)
    }

    fn check_stop(&self) -> io::Result<()> {
        match (self.is_stopped)() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> Unreadable {
    Unreadable::Path { path: path.display().to_string(), error }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// Whether a path that cannot be read is ignored, such as a volume's `lost+found` or a stray link.
/// Never if it may hold a migration: an SQL file, the journal and its folder, the migrations folder
/// itself, or a folder that begins with a number. Deeper files count only if the journal lists
/// them, and then they are reported as missing.
pub fn may_be_unreadable(inside: &str) -> bool {
    let is_numbered = !inside.contains('/') && inside.starts_with(|c: char| c.is_ascii_digit());
    let is_needed = inside.is_empty() || inside.ends_with(".sql") || JOURNAL.starts_with(inside);
    !is_needed && !is_numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For the tests of every module: the folder `meta` is there if a file is in it.
    impl From<Files> for MigrationFolder {
        fn from(files: Files) -> MigrationFolder {
            let is_in_meta =
                |path: &String| path.strip_prefix(META).is_some_and(|rest| rest.starts_with('/'));
            let has_meta = files.keys().any(is_in_meta);
            MigrationFolder { files, has_meta, upper_case: Vec::new() }
        }
    }

    #[test]
    fn the_default_folder_is_used_if_none_is_named_and_nothing_is_embedded() {
        let (named, default) = (PathBuf::from("drizzle"), Path::new(DEFAULT_FOLDER));
        let folder = |path: &Path| Origin::Folder(path.to_owned());
        for (named, is_embedded, default, expected) in [
            (None, false, Some(default), folder(default)),
            (None, false, None, Origin::Executable),
            (None, true, Some(default), Origin::Executable),
            (Some(&named), false, Some(default), folder(&named)),
            (Some(&named), true, None, folder(&named)),
        ] {
            assert_eq!(Origin::first_of(named.cloned(), is_embedded, default), expected);
        }
    }

    #[test]
    fn only_a_path_that_cannot_hold_a_migration_may_be_unreadable() {
        for inside in ["lost+found", "notes.txt", "sub/0001_a", "meta/0000_snapshot.json"] {
            assert!(may_be_unreadable(inside), "{inside}");
        }
        for inside in ["", "a.sql", "sub/a.sql", "meta", JOURNAL, "20260131093000_a", "0001_a"] {
            assert!(!may_be_unreadable(inside), "{inside}");
        }
    }

    #[test]
    fn a_signal_ends_the_reading_of_a_folder() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let asked = std::cell::Cell::new(0);
        let stop_later = || asked.replace(asked.get() + 1) > 2;
        let Err(Unreadable::Path { error, .. }) = load(&Origin::Folder(path), &stop_later) else {
            panic!("it was read to the end");
        };
        assert_eq!((error.kind(), asked.get()), (io::ErrorKind::Interrupted, 4));
    }

    #[test]
    fn only_sql_and_the_journal_are_embedded() {
        let MigrationFolder { files, .. } = embedded().unwrap();
        assert!(files.contains_key(JOURNAL));
        let others: Vec<_> =
            files.keys().filter(|path| !path.ends_with(".sql") && *path != JOURNAL).collect();
        assert_eq!(others, Vec::<&String>::new());
    }

    #[test]
    fn a_folder_and_the_executable_load_the_same_files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let folder = load(&Origin::Folder(path), &|| false).unwrap();
        assert!(folder.has_meta);
        assert_eq!(folder, embedded().unwrap());
    }
}
