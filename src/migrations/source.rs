//! Where migration files come from: this executable, or a folder.
//!
//! Both give the same thing, paths with their content; what the files mean is `layout`'s.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use rust_embed::RustEmbed;

/// Path inside the migrations folder, with `/`, to the file's content.
pub type Files = BTreeMap<String, Cow<'static, [u8]>>;

/// Where drizzle-kit 0.x keeps its journal.
pub const JOURNAL: &str = "meta/_journal.json";

/// The journal's folder. It stands among the files, as an empty one, where there is no journal in
/// it: a folder that has lost its journal would look like one of plain files else.
pub const META: &str = "meta/";

#[derive(RustEmbed)]
#[folder = "$EMBEDDED_MIGRATIONS"]
#[include = "*.sql"]
#[include = "meta/_journal.json"]
#[exclude = ".*"]
#[exclude = "*/.*"]
struct Embedded;

/// Where a set came from, for the first line of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Embedded at build time.
    Executable,
    /// A folder named by `--dir`.
    Folder(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Executable => f.write_str("this executable"),
            Origin::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// Why files could not be had.
#[derive(Debug)]
pub enum Unreadable {
    /// The executable was built without migrations.
    NothingEmbedded,
    /// A folder or file cannot be read.
    Path {
        /// What could not be read.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The files of this origin.
pub fn read(origin: &Origin) -> Result<Files, Unreadable> {
    match origin {
        Origin::Executable => embedded(),
        Origin::Folder(folder) => {
            let mut files = Files::new();
            walk(folder, "", &mut files)?;
            Ok(files)
        }
    }
}

fn embedded() -> Result<Files, Unreadable> {
    let mut files: Files = Embedded::iter()
        .filter_map(|path| Some((path.to_string(), Embedded::get(&path)?.data)))
        .collect();
    if env!("EMBEDDED_META") == "true" {
        note_missing_journal(&mut files);
    }
    if files.is_empty() { Err(Unreadable::NothingEmbedded) } else { Ok(files) }
}

/// How many folders deep a tag may lie; also what ends a loop of symbolic links.
const DEEPEST: usize = 8;

fn walk(folder: &Path, prefix: &str, files: &mut Files) -> Result<(), Unreadable> {
    let unreadable = |path: &Path, error| Unreadable::Path { path: path.to_owned(), error };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) if is_beside_the_point(prefix.trim_end_matches('/')) => return Ok(()),
        Err(error) => return Err(unreadable(folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Also Kubernetes' `..data`, which would show every file of a ConfigMap twice.
        if name.starts_with('.') {
            continue;
        }
        let (path, inside) = (entry.path(), format!("{prefix}{name}"));
        // Follows links: a ConfigMap's files are links. What is no link, the folder's own listing
        // tells.
        let kind = match entry.file_type() {
            Ok(kind) if !kind.is_symlink() => kind,
            _ => match fs::metadata(&path) {
                Ok(metadata) => metadata.file_type(),
                Err(_) if is_beside_the_point(&inside) => continue,
                Err(error) => return Err(unreadable(&path, error)),
            },
        };
        if kind.is_dir() {
            if inside.matches('/').count() < DEEPEST && name != "node_modules" {
                walk(&path, &format!("{inside}/"), files)?;
            }
            if inside == META.trim_end_matches('/') {
                note_missing_journal(files);
            }
        } else if inside.ends_with(".sql") || inside == JOURNAL {
            let content = fs::read(&path).map_err(|error| unreadable(&path, error))?;
            files.insert(inside, Cow::Owned(content));
        }
    }
    Ok(())
}

fn note_missing_journal(files: &mut Files) {
    if !files.contains_key(JOURNAL) {
        files.insert(META.to_owned(), Cow::Borrowed(b""));
    }
}

/// Whether what cannot be read there is none of our business: a volume's `lost+found`, a link of
/// somebody else's. It never is where a migration may be lost with it: a file of SQL, the journal
/// or its folder, the migrations folder itself, a folder with a time in its name. What lies deeper,
/// only a journal names, and then that tells what is missing.
pub fn is_beside_the_point(inside: &str) -> bool {
    let is_dated = !inside.contains('/') && inside.starts_with(|c: char| c.is_ascii_digit());
    let owned = inside.is_empty() || inside.ends_with(".sql") || JOURNAL.starts_with(inside);
    !owned && !is_dated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_a_migration_may_be_unreadable() {
        for inside in ["lost+found", "notes.txt", "sub/0001_a", "meta/0000_snapshot.json"] {
            assert!(is_beside_the_point(inside), "{inside}");
        }
        for inside in ["", "a.sql", "sub/a.sql", "meta", JOURNAL, "20260131093000_a", "0001_a"] {
            assert!(!is_beside_the_point(inside), "{inside}");
        }
    }

    #[test]
    fn only_sql_and_the_journal_are_embedded() {
        let files = embedded().unwrap();
        assert!(files.contains_key(JOURNAL));
        let others: Vec<_> =
            files.keys().filter(|path| !path.ends_with(".sql") && *path != JOURNAL).collect();
        assert_eq!(others, Vec::<&String>::new());
    }

    #[test]
    fn a_folder_and_the_executable_give_the_same_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        assert_eq!(read(&Origin::Folder(folder)).unwrap(), embedded().unwrap());
    }
}
