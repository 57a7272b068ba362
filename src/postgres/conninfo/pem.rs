//! A certificate or a key, as it is given: a file, or the PEM text itself, for platforms that have
//! variables and no files. Only named here; `tls` reads it.

use std::fmt;
use std::path::PathBuf;

use super::Secret;

/// A certificate or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// Where it is.
    File(PathBuf),
    /// What it is. It may be a private key, so it is not shown.
    Text(Secret),
}

impl From<&str> for Pem {
    /// Many platforms keep a value on one line, with `\n` in it, and some people its quotes.
    fn from(text: &str) -> Pem {
        if may_name_a_file(text) {
            return Pem::File(PathBuf::from(text));
        }
        let pem = text.trim().trim_matches(['"', '\'']).trim();
        let lines = if pem.contains('\n') { pem.to_owned() } else { pem.replace("\\n", "\n") };
        Pem::Text(Secret::new(lines))
    }
}

/// A file's name is shown when there is no such file, so a key must not pass for one: in PEM, in
/// lines, or in base64 alone, where 60 letters hold the shortest key there is.
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

/// The file, or that there is none.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Text(_) => f.write_str("the text given"),
        }
    }
}
