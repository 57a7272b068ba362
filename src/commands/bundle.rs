//! `bundle`: a copy of an executable of ours that carries a migrations folder, made without a compiler.
//!
//! [`elf`] decides what becomes of the executable; `migrations::payload` is what is added to it.

mod elf;

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::BuildHasher;
use std::io::{self, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, process};

use sha2::{Digest, Sha256};

use self::elf::Executable;
pub use self::elf::Unsuitable;
use crate::cli::config::BundleParts;
use crate::commands::check::{self, Finding};
use crate::history::table::Table;
use crate::migrations::migration::{Hash, Layout, MigrationSet};
use crate::migrations::payload;
use crate::migrations::rule::Severity;
use crate::migrations::source::MigrationFolder;
use crate::process::segment::{self, FORMAT};

/// A bundle that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub path: PathBuf,
    pub migrations: usize,
    pub layout: Layout,
    /// The name of the folder.
    pub from: String,
    /// Of the files, as `MigrationFolder::digest` has it.
    pub digest: Hash,
    /// The size of the file.
    pub bytes: u64,
    /// The errors that `check` finds in migrations. A migration with errors cannot run; where it is
    /// applied already, it does no harm.
    pub errors: Vec<Finding>,
}

/// Why no bundle was made. A file that was there before is unchanged.
#[derive(Debug)]
pub enum BundleError {
    /// Nobody could run any of it, for what `check` calls errors.
    Faulty { dir: PathBuf, findings: Vec<Finding> },
    /// The executable that runs cannot be read.
    Executable(io::Error),
    /// The executable that was named cannot be read.
    Base { path: PathBuf, error: io::Error },
    /// This executable, or the one that runs, cannot carry migrations.
    Unsuitable { path: Option<PathBuf>, reason: Unsuitable },
    /// Something other than a file is where the bundle is to be.
    NotAFile(PathBuf),
    /// A file cannot be read again, or the bundle cannot be written.
    Write { path: PathBuf, error: io::Error },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::Faulty { dir, .. } => {
                write!(f, "the migrations in {} have errors; no bundle was made", dir.display())
            }
            BundleError::Executable(error) if error.kind() == io::ErrorKind::Unsupported => f
                .write_str(
                    "a bundle is an executable for Linux, and this one is not; name a premigrate \
                     for Linux with --base FILE",
                ),
            BundleError::Executable(error) => write!(
                f,
                "could not read this executable, to copy it: {error}; name a premigrate that can \
                 be read with --base FILE"
            ),
            BundleError::Base { path, error } => {
                write!(f, "could not read {}: {error}", path.display())
            }
            BundleError::Unsuitable { path, reason } => {
                match path {
                    Some(path) => write!(f, "{} ", path.display())?,
                    None => f.write_str("this executable ")?,
                }
                match reason {
                    Unsuitable::NotElf => f.write_str(
                        "is not a whole executable for 64-bit Linux; name a premigrate for Linux, \
                         as it was built or downloaded",
                    ),
                    Unsuitable::NoNote => f.write_str(
                        "is not a premigrate that can carry migrations; name one of this version, \
                         as it was built or downloaded",
                    ),
                    Unsuitable::Changed => f.write_str(
                        "was changed since it was built, by strip for example; name a premigrate \
                         as it was built or downloaded",
                    ),
                    Unsuitable::Format(format) => write!(
                        f,
                        "reads bundles of format {format}, and this premigrate writes format \
                         {FORMAT}; make the bundle with the version that is to carry the migrations"
                    ),
                }
            }
            BundleError::NotAFile(path) => {
                write!(f, "{} is not a file; name a file with --output", path.display())
            }
            BundleError::Write { path, error } => {
                write!(f, "could not write {}: {error}", path.display())
            }
        }
    }
}

/// Makes a bundle of this folder, which `parts` names; `now` is in Unix milliseconds. Ends with an
/// error soon after `is_stopped` becomes true.
pub fn bundle(
    parts: &BundleParts,
    folder: &MigrationFolder,
    table: &Table,
    now: i64,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Bundle, BundleError> {
    let mut executable = executable(parts.base.as_deref())?;
    let mut errors = check::check(folder, table, now, None).findings;
    errors.retain(|finding| finding.severity() == Severity::Error);
    let set = match MigrationSet::from_folder(folder) {
        Ok(set) => set,
        Err(_) => {
            return Err(BundleError::Faulty { dir: parts.dir.clone(), findings: errors });
        }
    };

    let output = target(&parts.output)?;
    let from = folder_name(&parts.dir);
    let written = write_whole(&output, |file| {
        let is_unsuitable = || io::Error::other("the executable has no room for the payload");
        file.write_all(executable.file())?;
        let mut payload = Hashing { file, digest: Sha256::new(), length: 0, is_stopped };
        payload::write(&from, folder, &mut payload)?;
        let (length, digest) = (payload.length, payload.digest.finalize().into());
        executable.describe_payload(length, digest).ok_or_else(is_unsuitable)?;
        file.rewind()?;
        file.write_all(executable.file())?;
        Ok(executable.file().len() as u64 + length)
    });
    let bytes =
        written.map_err(|error| BundleError::Write { path: parts.output.clone(), error })?;
    Ok(Bundle {
        path: parts.output.clone(),
        migrations: set.migrations().len(),
        layout: set.layout(),
        from,
        digest: folder.digest(),
        bytes,
        errors,
    })
}

fn executable(base: Option<&Path>) -> Result<Executable, BundleError> {
    let bytes = match base {
        Some(path) => {
            fs::read(path).map_err(|error| BundleError::Base { path: path.to_owned(), error })?
        }
        None => segment::executable().map_err(BundleError::Executable)?,
    };
    let path = base.map(Path::to_owned);
    Executable::parse(bytes).map_err(|reason| BundleError::Unsuitable { path, reason })
}

/// The name of a folder: no more of its path, which would say where the bundle was made.
fn folder_name(dir: &Path) -> String {
    // `.` has no name of its own.
    let whole = dir.canonicalize().unwrap_or_default();
    let name = dir.file_name().or(whole.file_name()).unwrap_or(dir.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The file to write: what a link leads to. It may be there, but nothing else may.
fn target(output: &Path) -> Result<PathBuf, BundleError> {
    match fs::metadata(output) {
        Ok(metadata) if metadata.is_file() => {
            Ok(output.canonicalize().unwrap_or_else(|_| output.to_owned()))
        }
        Ok(_) => Err(BundleError::NotAFile(output.to_owned())),
        Err(_) if output.file_name().is_none() => Err(BundleError::NotAFile(output.to_owned())),
        Err(_) => Ok(output.to_owned()),
    }
}

/// Writes an executable under another name, and gives it its own when it is whole.
fn write_whole<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let unfinished = unfinished(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&unfinished)?;
    let result = write(&mut file).and_then(|written| {
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(written)
    });
    if result.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    result
}

/// The name of a file until it is whole: another one each time. In a container, each run may have the
/// same process number, and one that was killed leaves its file.
fn unfinished(path: &Path) -> PathBuf {
    let random = RandomState::new().hash_one(process::id());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random:016x}.tmp"));
    path.with_file_name(name)
}

/// A file, with the length and the hash of what was written to it.
struct Hashing<'a> {
    file: &'a mut File,
    digest: Sha256,
    length: u64,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.is_stopped)() {
            // Not `Interrupted`, after which `write_all` would try again.
            return Err(io::Error::other("it was stopped"));
        }
        let length = self.file.write(bytes)?;
        self.digest.update(bytes.get(..length).unwrap_or_default());
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_killed_run_is_in_nobodys_way() {
        let path = Path::new("/out/bundle");
        let names = [unfinished(path), unfinished(path)];
        assert_ne!(names[0], names[1]);
        for name in names {
            let beside = name.to_str().and_then(|name| name.strip_prefix("/out/bundle."));
            assert!(beside.is_some_and(|rest| rest.ends_with(".tmp")), "{}", name.display());
        }
    }
}
