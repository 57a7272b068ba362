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
    /// No file's name begins as PEM does. Many platforms keep a value on one line, with `\n` in it.
    fn from(text: &str) -> Pem {
        let trimmed = text.trim_start();
        if !trimmed.starts_with("-----BEGIN ") {
            return Pem::File(PathBuf::from(text));
        }
        let escaped = !trimmed.trim_end().contains('\n');
        let lines = if escaped { trimmed.replace("\\n", "\n") } else { trimmed.to_owned() };
        Pem::Text(Secret::new(lines))
    }
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
