//! Reads migration files from this executable or from a folder. `layout` interprets them.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rust_embed::RustEmbed;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::migrations::content::{self, Content};
use crate::migrations::migration::Hash;
use crate::migrations::payload;
use crate::migrations::snapshots::Snapshot;
use crate::process::segment::{self, Lost, Payload};

/// Path inside the migrations folder, with `/`, to the file's content.
pub type Files = BTreeMap<String, Content>;

/// drizzle-kit 0.x's journal, and its folder.
pub const JOURNAL: &str = "meta/_journal.json";
const META: &str = "meta";

/// A file that Prisma keeps beside its migrations, which look like those of drizzle-kit 1.x.
pub const PRISMA_LOCK: &str = "migration_lock.toml";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationFolder {
    pub files: Files,
    /// Whether there is a folder `meta`, which tells a Drizzle folder without its journal from a
    /// plain one.
    pub has_meta: bool,
    /// Files like `0001_a.SQL`, which are never read, because only names in `.sql` are migrations.
    pub upper_case: Vec<String>,
    /// By their paths inside the folder, if they were read, too.
    pub snapshots: Vec<(String, Snapshot)>,
}

impl MigrationFolder {
    /// One hash for all files: SHA-256 of a line for each, by their paths, as `sha256sum` prints it.
    pub fn digest(&self) -> Hash {
        let line = |(path, content): (&String, &Content)| format!("{}  {path}\n", content.hash());
        Hash::of(self.files.iter().map(line).collect::<String>().as_bytes())
    }
}

#[derive(RustEmbed)]
#[folder = "$EMBEDDED_MIGRATIONS"]
#[include = "*.sql"]
#[include = "meta/_journal.json"]
#[include = "migration_lock.toml"]
#[include = "*/migration_lock.toml"]
#[exclude = ".*"]
#[exclude = "*/.*"]
struct Embedded;

/// Where a set of migrations comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Embedded at build time.
    Embedded,
    /// Added to this executable by `bundle`, from a folder of this name.
    Bundled { from: String },
    /// Named by `--dir`, or the default.
    Folder(PathBuf),
}

/// The folder that is used where none is named and nothing is carried.
pub const DEFAULT_FOLDER: &str = "/migrations";

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Embedded => f.write_str("this executable"),
            Origin::Bundled { from } => write!(f, "this executable, bundled from {from}"),
            Origin::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// Why files cannot be loaded.
#[derive(Debug, Serialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum Unreadable {
    /// The executable carries no migrations, no folder was named, and there is no default folder.
    NothingEmbedded,
    /// What `bundle` added to this executable is not what it was.
    #[serde(rename = "damaged_bundle")]
    Damaged(#[serde(skip)] Damage),
    /// The migrations folder, or a file in it, cannot be read.
    #[serde(rename = "unreadable")]
    Path {
        path: String,
        #[serde(skip)]
        error: io::Error,
    },
}

/// What has become of a bundle.
#[derive(Debug)]
pub enum Damage {
    Lost(Lost),
    /// It has another digest.
    Changed,
    /// Its digest is right, and yet it makes no sense.
    Malformed,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Lost(Lost::Unmapped) => f.write_str("they were removed from it"),
            Damage::Lost(Lost::Cut) => f.write_str("the file ends before they do"),
            Damage::Lost(Lost::Unread(error)) => write!(f, "they cannot be read: {error}"),
            Damage::Changed => f.write_str("they were changed"),
            Damage::Malformed => f.write_str("they are in no format that it reads"),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::NothingEmbedded => f.write_str(
                "this executable carries no migrations, and there is no folder /migrations; name a folder \
                 with --dir, or make an executable that carries one with `premigrate bundle`",
            ),
            Unreadable::Damaged(damage) => write!(
                f,
                "the migrations that `premigrate bundle` added to this executable are damaged: \
                 {damage}; copy or download the file again, or build the bundle again, and do not run strip, \
                 objcopy or upx on it"
            ),
            Unreadable::Path { path, error } => {
                let cure = match error.kind() {
                    io::ErrorKind::NotFound => "; correct --dir, or copy the folder into the image",
                    io::ErrorKind::PermissionDenied => "; let this user read it",
                    _ => "",
                };
                write!(f, "could not read {path}: {error}{cure}")
            }
        }
    }
}

/// How much of a folder stays in memory, in bytes. What is beyond it is read again when it is needed.
const KEPT: usize = 8 << 20;

/// Reads all files of this folder, or else what this executable carries, or else the default
/// folder; ends with an error soon after `is_stopped` becomes true.
pub fn load(
    dir: Option<&Path>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(Origin, MigrationFolder), Unreadable> {
    let default = Path::new(DEFAULT_FOLDER);
    let default = default.is_dir().then_some(default);
    match folder_to_read(dir, carries_any(), default) {
        Some(dir) => {
            let folder = walk(dir, KEPT, is_stopped)?;
            Ok((Origin::Folder(dir.to_owned()), folder))
        }
        None => carried(),
    }
}

fn folder_to_read<'a>(
    named: Option<&'a Path>,
    carries_any: bool,
    default: Option<&'a Path>,
) -> Option<&'a Path> {
    named.or(default.filter(|_| !carries_any))
}

/// Whether this executable carries migrations, or did before they were damaged.
fn carries_any() -> bool {
    is_embedded() || !matches!(segment::payload(), Ok(None))
}

/// Reads all files of this folder as `load` does, and keeps no content but the journal's: it is read
/// again when it is needed. So the largest file is all that has to fit into memory.
pub fn survey(dir: &Path, is_stopped: &dyn Fn() -> bool) -> Result<MigrationFolder, Unreadable> {
    walk(dir, 0, is_stopped)
}

fn walk(
    dir: &Path,
    kept: usize,
    is_stopped: &dyn Fn() -> bool,
) -> Result<MigrationFolder, Unreadable> {
    let mut walk = Walk { folder: MigrationFolder::default(), left: kept, is_stopped };
    walk.directory(dir, "", false)?;
    walk.folder.upper_case.sort();
    Ok(walk.folder)
}

/// What this executable carries. What `bundle` has added replaces what was embedded.
pub fn carried() -> Result<(Origin, MigrationFolder), Unreadable> {
    match segment::payload().map_err(|lost| Unreadable::Damaged(Damage::Lost(lost)))? {
        Some(payload) => {
            let (from, folder) = bundled(&payload).map_err(Unreadable::Damaged)?;
            Ok((Origin::Bundled { from }, folder))
        }
        None => Ok((Origin::Embedded, embedded()?)),
    }
}

fn bundled(payload: &Payload) -> Result<(String, MigrationFolder), Damage> {
    let mut digest = Sha256::new();
    payload.read_through(|piece| digest.update(piece));
    match digest.finalize().as_slice() == payload.digest() {
        true => payload::read(payload.bytes()).ok_or(Damage::Malformed),
        false => Err(Damage::Changed),
    }
}

fn embedded() -> Result<MigrationFolder, Unreadable> {
    let files: Files = Embedded::iter()
        .filter_map(|path| Some((path.to_string(), Embedded::get(&path)?.data.into())))
        .collect();
    match is_embedded() {
        // Files with other names are not embedded.
        true => Ok(MigrationFolder { files, has_meta: HAS_META, ..MigrationFolder::default() }),
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

struct Walk<'a> {
    folder: MigrationFolder,
    /// How many bytes of content may still be kept.
    left: usize,
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
        } else if inside.ends_with(".sql") || inside == JOURNAL || is_of_prisma(inside) {
            let bytes = content::read_file(&path, self.is_stopped);
            let bytes = bytes.map_err(|error| unreadable(&path, error))?;
            let content = if inside == JOURNAL { bytes.into() } else { self.keep(path, bytes) };
            self.folder.files.insert(inside.to_owned(), content);
        } else if inside.to_ascii_lowercase().ends_with(".sql") {
            self.folder.upper_case.push(inside.to_owned());
        }
        Ok(())
    }

    /// Keeps the content of a file, if there is room for it.
    fn keep(&mut self, path: PathBuf, bytes: Vec<u8>) -> Content {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => {
                self.left = left;
                bytes.into()
            }
            None => Content::in_folder(path, &bytes),
        }
    }

    fn check_stop(&self) -> io::Result<()> {
        match (self.is_stopped)() {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

/// Whether this path is of the file by which Prisma's folders are recognized.
pub fn is_of_prisma(inside: &str) -> bool {
    inside
        .strip_suffix(PRISMA_LOCK)
        .is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
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
            MigrationFolder { files, has_meta, ..MigrationFolder::default() }
        }
    }

    #[test]
    fn the_default_folder_is_used_if_none_is_named_and_nothing_is_carried() {
        let (named, default) = (Path::new("drizzle"), Path::new(DEFAULT_FOLDER));
        for (given, carries_any, there, expected) in [
            (None, false, Some(default), Some(default)),
            (None, false, None, None),
            (None, true, Some(default), None),
            (Some(named), false, Some(default), Some(named)),
            (Some(named), true, None, Some(named)),
        ] {
            assert_eq!(folder_to_read(given, carries_any, there), expected);
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
        let Err(Unreadable::Path { error, .. }) = load(Some(&path), &stop_later) else {
            panic!("it was read to the end");
        };
        assert_eq!((error.kind(), asked.get()), (io::ErrorKind::Interrupted, 4));
    }

    #[test]
    fn only_sql_and_the_journal_are_embedded_of_this_folder() {
        let MigrationFolder { files, .. } = embedded().unwrap();
        assert!(files.contains_key(JOURNAL));
        let others: Vec<_> =
            files.keys().filter(|path| !path.ends_with(".sql") && *path != JOURNAL).collect();
        assert_eq!(others, Vec::<&String>::new());
    }

    #[test]
    fn a_folder_and_the_executable_load_the_same_files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let (_, folder) = load(Some(&path), &|| false).unwrap();
        assert!(folder.has_meta);
        assert_eq!(folder, embedded().unwrap());
    }
}
