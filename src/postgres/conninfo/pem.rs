//! A certificate or a key: a file, or the PEM text itself, for platforms that have variables but no
//! files. `tls` reads it.

use std::fmt;
use std::path::PathBuf;

use super::Secret;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    File(PathBuf),
    /// Never printed, since it may be a private key.
    Text(Secret),
}

impl From<&str> for Pem {
    /// Many platforms keep a value on one line, with `\n` in it, and some values have quotes.
    fn from(text: &str) -> Pem {
        if may_name_a_file(text) {
            return Pem::File(PathBuf::from(text));
        }
        let pem = text.trim().trim_matches(['"', '\'']).trim();
        let lines = if pem.contains('\n') { pem.to_owned() } else { pem.replace("\\n", "\n") };
        Pem::Text(Secret::new(lines))
    }
}

/// The name of a missing file is printed, so that a key must not be taken for one: in PEM, in several
/// lines, or in base64, where the shortest key has 60 characters.
fn may_name_a_file(text: &str) -> bool {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let is_key = text.len() >= 60 && !text.starts_with('/') && text.trim().chars().all(is_base64);
    !is_key && !text.contains("-----BEGIN ") && !text.trim().contains('\n')
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Pem {
        Pem::File(path)
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Text(_) => f.write_str("given as text"),
        }
    }
}
