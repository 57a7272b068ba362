//! `list --extract`: the files that an executable carries, as they were.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::migrations::source::MigrationFolder;

/// Why nothing was extracted.
#[derive(Debug)]
pub enum ExtractError {
    /// There is something in the folder already.
    NotEmpty(PathBuf),
    /// A file cannot be written.
    Io { path: PathBuf, error: io::Error },
}

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtractError::NotEmpty(dir) => write!(
                f,
                "{} is not empty, and nothing is overwritten; name a new folder with --extract",
                dir.display()
            ),
            ExtractError::Io { path, error } => {
                write!(f, "could not write {}: {error}", path.display())
            }
        }
    }
}

/// Writes the files into this folder, which is empty or made for them. After an error it is as it was.
pub fn extract(folder: &MigrationFolder, dir: &Path) -> Result<(), ExtractError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| ExtractError::Io { path, error }
    };
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(ExtractError::NotEmpty(dir.to_owned())),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(dir)(error)),
    }
    let mut made = Made::default();
    made.folder(dir).map_err(at(dir))?;
    for (name, content) in &folder.files {
        let path = dir.join(name);
        made.file(&path, || Ok(content.read()?.into_owned())).map_err(at(&path))?;
    }
    made.keep();
    Ok(())
}

/// What was made so far, which is removed again unless it is kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    fn folder(&mut self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        self.folder(dir.parent().unwrap_or(Path::new("")))?;
        DirBuilder::new().create(dir)?;
        self.folders.push(dir.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, read: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        let content = read()?;
        self.folder(path.parent().unwrap_or(path))?;
        let mut file = File::create_new(path)?;
        self.files.push(path.to_owned());
        file.write_all(&content)
    }

    fn keep(mut self) {
        (self.files, self.folders) = (Vec::new(), Vec::new());
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| drop(fs::remove_file(file)));
        self.folders.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::source::Files;

    fn folder(files: &[(&str, &str)]) -> MigrationFolder {
        let file =
            |(name, text): &(&str, &str)| ((*name).to_owned(), text.as_bytes().to_vec().into());
        files.iter().map(file).collect::<Files>().into()
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("premigrate-extract-{name}-{}", std::process::id()))
    }

    #[test]
    fn the_files_are_written_into_a_new_folder() {
        let dir = temporary("new");
        let files = folder(&[("meta/_journal.json", "{}"), ("0000_a.sql", "select 1")]);
        extract(&files, &dir.join("in")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("in/0000_a.sql")).unwrap(), "select 1");
        assert_eq!(fs::read_to_string(dir.join("in/meta/_journal.json")).unwrap(), "{}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_empty_stays_as_it_was() {
        let dir = temporary("full");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("other"), "").unwrap();
        let error = extract(&folder(&[("0000_a.sql", "")]), &dir).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn after_an_error_nothing_is_left() {
        let dir = temporary("error");
        // A file cannot be a folder too.
        let files = folder(&[("a", "file"), ("a/b.sql", "select 1"), ("0/c.sql", "")]);
        let error = extract(&files, &dir.join("in")).unwrap_err();
        assert!(
            matches!(&error, ExtractError::Io { path, .. } if path.ends_with("a/b.sql")),
            "{error}"
        );
        assert!(!dir.exists());
    }
}
