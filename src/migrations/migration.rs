//! A migration (name, SQL, and the hash that Drizzle records), and the ordered set of them.

use std::cell::OnceCell;
use std::{fmt, iter};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::migrations::content::Content;

/// Drizzle's hash of a migration: SHA-256 of the whole file, in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(String);

impl Hash {
    /// As in Node, each invalid UTF-8 sequence counts as U+FFFD. For valid UTF-8 this is what
    /// `sha256sum` prints.
    pub fn of(bytes: &[u8]) -> Hash {
        // Checking valid text is much faster than decoding it lossily.
        let digest = match std::str::from_utf8(bytes) {
            Ok(_) => Sha256::digest(bytes),
            Err(_) => Sha256::digest(String::from_utf8_lossy(bytes).as_bytes()),
        };
        Hash::hex(&digest)
    }

    /// Of parts that stand one after the other, each with its line ends replaced by this one.
    pub fn of_parts<'p>(parts: impl IntoIterator<Item = &'p [u8]>, line_end: &str) -> Hash {
        let mut digest = Sha256::new();
        for part in parts {
            for line in part.split_inclusive(|&byte| byte == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(text) => {
                        digest.update(text.strip_suffix(b"\r").unwrap_or(text));
                        digest.update(line_end);
                    }
                    None => digest.update(line),
                }
            }
        }
        Hash::hex(&digest.finalize())
    }

    fn hex(digest: &[u8]) -> Hash {
        let digit = |digit: u8| char::from(if digit < 10 { b'0' + digit } else { b'W' + digit });
        let mut hex = String::with_capacity(2 * digest.len());
        for &byte in digest {
            hex.push(digit(byte >> 4));
            hex.push(digit(byte & 15));
        }
        Hash(hex)
    }

    /// 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct Migration {
    /// The journal's tag, the name of the folder, or the name of the file without `.sql`.
    pub name: String,
    /// The file's path inside the migrations folder.
    pub file: String,
    /// When it was generated, in Unix milliseconds. `None` for a plain file.
    pub when: Option<i64>,
    pub hash: Hash,
    content: Content,
    /// What was read of it, where it is not in memory as it is.
    read: OnceCell<Result<Vec<u8>, String>>,
    /// The hashes of the all-LF and the all-CRLF form, computed on demand.
    other_line_ends: OnceCell<[Hash; 2]>,
}

impl Migration {
    pub fn new(
        name: impl Into<String>,
        file: impl Into<String>,
        when: Option<i64>,
        content: impl Into<Content>,
    ) -> Migration {
        let content = content.into();
        Migration {
            name: name.into(),
            file: file.into(),
            when,
            hash: content.hash(),
            content,
            read: OnceCell::new(),
            other_line_ends: OnceCell::new(),
        }
    }

    /// The hashes with which a history row may have recorded this file: its own, and since a checkout
    /// may have changed the line endings, those of the all-LF and the all-CRLF form.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        let other_line_ends = || {
            let content = self.content.read().unwrap_or_default();
            let text = String::from_utf8_lossy(&content);
            ["\n", "\r\n"].map(|line_end| Hash::of_parts([text.as_bytes()], line_end))
        };
        let other_line_ends = move || self.other_line_ends.get_or_init(other_line_ends);
        let others = iter::once_with(other_line_ends).flatten();
        iter::once(&self.hash).chain(others).map(Hash::as_str)
    }

    /// Whether a history row with this hash recorded this file.
    pub fn matches_hash(&self, recorded: &str) -> bool {
        self.hashes().any(|hash| hash == recorded)
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.content.size()
    }

    /// The content, which stays in memory as long as the migration; or why it cannot be read.
    pub fn content(&self) -> Result<&[u8], &str> {
        if let Some(bytes) = self.content.here() {
            return Ok(bytes);
        }
        let read = || match self.content.read() {
            Ok(bytes) => Ok(bytes.into_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.read.get_or_init(read).as_deref().map_err(String::as_str)
    }

    pub fn is_packed(&self) -> bool {
        self.content.is_packed()
    }

    /// The same migration, of which nothing was read: for those who need many, one after the other.
    pub fn unread(&self) -> Migration {
        Migration { read: OnceCell::new(), ..self.clone() }
    }
}

/// The layout of a migrations folder, which decides what identifies a migration. A new one needs `source`
/// to embed its files, `layout` to recognize it, `history::table` and `history::matching` for its rows,
/// `history::plan` for its order, `apply::advice`, `commands::check` and `commands::new`; a search for
/// `Layout::` finds all but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `meta/_journal.json` beside `<tag>.sql`: drizzle-kit 0.x.
    Drizzle0,
    /// `<YYYYMMDDHHMMSS>_<name>/migration.sql`: drizzle-kit 1.x.
    Drizzle1,
    /// `*.sql`, without Drizzle.
    Plain,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Drizzle0 => "Drizzle 0.x",
            Layout::Drizzle1 => "Drizzle 1.x",
            Layout::Plain => "plain files",
        })
    }
}

/// All migrations of a project, in the order in which they run. Names are unique.
#[derive(Clone, Debug)]
pub struct MigrationSet {
    layout: Layout,
    migrations: Vec<Migration>,
    unlisted: Vec<String>,
}

impl MigrationSet {
    /// The error is a name that two migrations have.
    pub fn new(layout: Layout, migrations: Vec<Migration>) -> Result<MigrationSet, String> {
        let mut names = std::collections::HashSet::new();
        for migration in &migrations {
            if !names.insert(migration.name.as_str()) {
                return Err(migration.name.clone());
            }
        }
        Ok(MigrationSet { layout, migrations, unlisted: Vec::new() })
    }

    pub fn with_unlisted(self, unlisted: Vec<String>) -> MigrationSet {
        MigrationSet { unlisted, ..self }
    }

    /// The SQL files beside the migrations that the journal does not list.
    pub fn unlisted(&self) -> &[String] {
        &self.unlisted
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    pub fn get(&self, index: usize) -> Option<&Migration> {
        self.migrations.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(content: &'static [u8]) -> Migration {
        Migration::new("a", "a.sql", None, content)
    }

    #[test]
    fn the_hash_is_sha256sum_of_the_file() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hash::of(b"").as_str(), empty);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of(b"abc").as_str(), abc);
    }

    #[test]
    fn invalid_utf8_is_hashed_as_node_reads_it() {
        assert_eq!(Hash::of(b"a\xffb"), Hash::of("a\u{fffd}b".as_bytes()));
    }

    #[test]
    fn a_file_with_other_line_endings_is_the_same_file() {
        let (lf, crlf, mixed) = (b"a\nb\n", b"a\r\nb\r\n", b"a\r\nb\n");
        for file in [&lf[..], crlf, mixed] {
            for recorded in [&lf[..], crlf] {
                let migration = Migration::new("a", "a.sql", None, file.to_vec());
                assert!(
                    migration.matches_hash(Hash::of(recorded).as_str()),
                    "{file:?} {recorded:?}"
                );
            }
        }
        assert!(!migration(lf).matches_hash(Hash::of(mixed).as_str()), "only all-LF and all-CRLF");
        assert!(!migration(lf).matches_hash(Hash::of(b"a\nb").as_str()));
    }

    #[test]
    fn a_set_refuses_a_duplicate_name() {
        let migrations = vec![migration(b"1"), migration(b"2")];
        assert_eq!(MigrationSet::new(Layout::Plain, migrations).err(), Some("a".to_owned()));
    }
}
