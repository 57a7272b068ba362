//! What a migration is: a name, the SQL, and the hash by which Drizzle knows it.
//!
//! A [`MigrationSet`] is in the order in which it runs, and no name stands in it twice; both are
//! made true once, when it is built, and never checked again.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use sha2::{Digest, Sha256};

/// Drizzle's hash of a migration: sha256 over the whole file, as lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(String);

impl Hash {
    /// The hash of these bytes, read as Node reads a file: each invalid UTF-8 sequence counts as
    /// U+FFFD. For valid UTF-8 this is what `sha256sum` prints.
    pub fn of(bytes: &[u8]) -> Hash {
        // Well-formed text is looked at by words; the lossy reading, by bytes.
        let digest = match std::str::from_utf8(bytes) {
            Ok(_) => Sha256::digest(bytes),
            Err(_) => Sha256::digest(String::from_utf8_lossy(bytes).as_bytes()),
        };
        let digit = |digit: u8| char::from(if digit < 10 { b'0' + digit } else { b'W' + digit });
        let mut hex = String::with_capacity(2 * digest.len());
        for byte in digest {
            hex.push(digit(byte >> 4));
            hex.push(digit(byte & 15));
        }
        Hash(hex)
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One migration, as its folder holds it.
#[derive(Clone, Debug)]
pub struct Migration {
    /// What people call it: the journal's tag, the folder's name, or the file's without `.sql`.
    pub name: String,
    /// Its file's path inside the migrations folder.
    pub file: String,
    /// When it was generated, in Unix milliseconds; a plain file does not tell.
    pub when: Option<i64>,
    /// Drizzle's hash of the file as it is.
    pub hash: Hash,
    content: Cow<'static, [u8]>,
    /// The hashes of its all-LF and all-CRLF form, made when the first row asks for them.
    other_line_ends: OnceCell<[Hash; 2]>,
}

/// Why a migration's file cannot be sent to a server, which takes text only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotText {
    /// The first byte that is not UTF-8, counted from 0.
    InvalidUtf8 {
        /// Its offset in the file.
        offset: usize,
    },
    /// The first NUL byte, which PostgreSQL's protocol cannot carry.
    Nul {
        /// Its offset in the file.
        offset: usize,
    },
}

impl Migration {
    /// Reads a migration from its file's content.
    pub fn new(
        name: impl Into<String>,
        file: impl Into<String>,
        when: Option<i64>,
        content: impl Into<Cow<'static, [u8]>>,
    ) -> Migration {
        let content = content.into();
        Migration {
            name: name.into(),
            file: file.into(),
            when,
            hash: Hash::of(&content),
            content,
            other_line_ends: OnceCell::new(),
        }
    }

    /// Whether a history row with this hash recorded this very file. A checkout may have changed
    /// its line ends since, and that is no edit: the all-LF and the all-CRLF form count too.
    pub fn matches_hash(&self, recorded: &str) -> bool {
        let other_line_ends = || {
            let lf = with_lf(&self.content);
            [Hash::of(&lf), Hash::of(&with_crlf(&lf))]
        };
        self.hash.as_str() == recorded
            || self
                .other_line_ends
                .get_or_init(other_line_ends)
                .iter()
                .any(|hash| hash.as_str() == recorded)
    }

    /// The file's size in bytes.
    pub fn size(&self) -> usize {
        self.content.len()
    }

    /// The file's bytes.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The SQL, if it is text that can be sent.
    pub fn sql(&self) -> Result<&str, NotText> {
        let text = std::str::from_utf8(&self.content)
            .map_err(|error| NotText::InvalidUtf8 { offset: error.valid_up_to() })?;
        match text.find('\0') {
            Some(offset) => Err(NotText::Nul { offset }),
            None => Ok(text),
        }
    }
}

fn with_lf(bytes: &[u8]) -> Vec<u8> {
    let mut lf = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().peekable();
    while let Some(&byte) = rest.next() {
        if byte == b'\r' && rest.peek() == Some(&&b'\n') {
            continue;
        }
        lf.push(byte);
    }
    lf
}

fn with_crlf(lf: &[u8]) -> Vec<u8> {
    let mut crlf = Vec::with_capacity(lf.len() + lf.len() / 16);
    for &byte in lf {
        if byte == b'\n' {
            crlf.push(b'\r');
        }
        crlf.push(byte);
    }
    crlf
}

/// How a migrations folder is laid out, which decides what identifies a migration.
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

/// All migrations of a project, in the order in which they run; no name stands in it twice.
#[derive(Clone, Debug)]
pub struct MigrationSet {
    layout: Layout,
    migrations: Vec<Migration>,
}

impl MigrationSet {
    /// Takes migrations in their order; the name that stands in them twice, if one does.
    pub fn new(layout: Layout, migrations: Vec<Migration>) -> Result<MigrationSet, String> {
        let mut names = std::collections::HashSet::new();
        for migration in &migrations {
            if !names.insert(migration.name.as_str()) {
                return Err(migration.name.clone());
            }
        }
        Ok(MigrationSet { layout, migrations })
    }

    /// How the folder is laid out.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The migrations, in order.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The migration at this place in the order.
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
    fn other_line_ends_are_the_same_file() {
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
    fn what_cannot_be_sent_is_told_with_its_offset() {
        assert_eq!(migration(b"ab\xff").sql(), Err(NotText::InvalidUtf8 { offset: 2 }));
        assert_eq!(migration(b"a\0").sql(), Err(NotText::Nul { offset: 1 }));
        assert_eq!(migration(b"select 1").sql(), Ok("select 1"));
    }

    #[test]
    fn a_name_stands_in_a_set_once() {
        let twice = vec![migration(b"1"), migration(b"2")];
        assert_eq!(MigrationSet::new(Layout::Plain, twice).err(), Some("a".to_owned()));
    }
}
