//! The payload of a bundle: the files of a migrations folder, each packed by itself, and behind them an
//! index, which says everything but the contents. So `status` or a start with nothing pending unpacks
//! no file but the journal.
//!
//! In order: the packed files, the index as JSON, its length as eight bytes, the lowest first, and `END`.

use std::io::{self, Write};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::migrations::content::{self, Content};
use crate::migrations::migration::Hash;
use crate::migrations::source::{Files, JOURNAL, MigrationFolder};

/// Not zeros, which the kernel puts behind the end of a file that was cut.
const END: &[u8] = b"end\n";

#[derive(Serialize, Deserialize)]
struct FileIndex {
    /// The folder's name.
    from: String,
    has_meta: bool,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: usize,
    packed: usize,
    hash: Hash,
}

/// Writes the payload for a folder of this name.
pub fn write(from: &str, folder: &MigrationFolder, output: &mut impl Write) -> io::Result<()> {
    let mut files = Vec::new();
    for (path, content) in &folder.files {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let packed = content::pack(&content.read().map_err(named)?);
        output.write_all(&packed)?;
        let (bytes, hash) = (content.size(), content.hash());
        files.push(Entry { path: path.clone(), bytes, packed: packed.len(), hash });
    }
    let index = FileIndex { from: from.to_owned(), has_meta: folder.has_meta, files };
    let index = serde_json::to_vec(&index)?;
    output.write_all(&index)?;
    output.write_all(&(index.len() as u64).to_le_bytes())?;
    output.write_all(END)
}

/// The folder's name and its files. `None` if this is not a payload as `write` makes it.
pub fn read(payload: &'static [u8]) -> Option<(String, MigrationFolder)> {
    let (rest, length) = payload.strip_suffix(END)?.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (mut packed, index) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
    let FileIndex { from, has_meta, files: entries } = serde_json::from_slice(index).ok()?;
    let mut files = Files::new();
    for Entry { path, bytes, packed: length, hash } in entries {
        let (file, rest) = packed.split_at_checked(length)?;
        packed = rest;
        let mut content = Content::packed(file, bytes, hash);
        // It is read at every start, more than once.
        if path == JOURNAL {
            content = content.read().ok()?.into_owned().into();
        }
        let is_new = is_inside(&path) && files.insert(path, content).is_none();
        is_new.then_some(())?;
    }
    packed
        .is_empty()
        .then_some((from, MigrationFolder { files, has_meta, ..MigrationFolder::default() }))
}

/// Whether a path stays inside the folder that it is joined to.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty()
        && !path.contains('\0')
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> MigrationFolder {
        let mut files = Files::new();
        let many = "insert into t values (1);\n".repeat(5000);
        for (path, content) in [
            (JOURNAL, r#"{"entries": []}"#),
            ("0000_a.sql", "select 1"),
            ("0001_empty.sql", ""),
            ("sub/0002_é b.sql", &many),
        ] {
            files.insert(path.to_owned(), content.as_bytes().to_vec().into());
        }
        MigrationFolder { files, has_meta: true, ..MigrationFolder::default() }
    }

    fn payload_of(folder: &MigrationFolder) -> Vec<u8> {
        let mut payload = Vec::new();
        write("drizzle", folder, &mut payload).unwrap();
        payload
    }

    fn read_copy(payload: &[u8]) -> Option<(String, MigrationFolder)> {
        read(payload.to_vec().leak())
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let folder = folder();
        let (from, read) = read_copy(&payload_of(&folder)).unwrap();
        assert_eq!((from.as_str(), read.has_meta), ("drizzle", true));
        let contents = |folder: &MigrationFolder| {
            let files = folder.files.iter();
            let file = |(path, content): (&String, &Content)| {
                (path.clone(), content.read().unwrap().into_owned(), content.hash())
            };
            files.map(file).collect::<Vec<_>>()
        };
        assert_eq!(contents(&read), contents(&folder));
        assert!(read.files[JOURNAL].here().is_some());
        assert!(read.files["0000_a.sql"].here().is_none(), "it is unpacked when it is needed");
    }

    #[test]
    fn the_same_folder_gives_the_same_payload() {
        assert_eq!(payload_of(&folder()), payload_of(&folder()));
    }

    #[test]
    fn a_payload_that_was_cut_or_changed_is_no_panic() {
        let payload = payload_of(&folder());
        for at in 0..payload.len() {
            assert!(read_copy(&payload[..at]).is_none(), "cut after {at}");
            let mut changed = payload.clone();
            changed[at] ^= 0x55;
            if let Some((_, folder)) = read_copy(&changed) {
                folder.files.values().for_each(|content| drop(content.read()));
            }
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_refused() {
        for path in ["../a.sql", "/a.sql", "a/../../b.sql", "", "./a.sql", "a\0.sql", ".."] {
            let files = Files::from([(path.to_owned(), b"select 1".to_vec().into())]);
            let payload = payload_of(&MigrationFolder { files, ..MigrationFolder::default() });
            assert!(read_copy(&payload).is_none(), "{path:?}");
        }
    }
}
