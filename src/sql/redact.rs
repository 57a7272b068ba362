//! Masks secrets in text that we show but did not write: a file, another backend's query, a message
//! of the server. Pure, and linear in the length of the text.
//!
//! What is a secret cannot be seen from the text itself. So where one of a few words occurs, the
//! contents of all literals and comments are masked, and names stay readable.
//!
//! It is applied where a text enters a value that is reported: by `postgres::server_error` to what a
//! server says, by `apply::failure` to the lines of a file, by `apply::blockers` to what other sessions
//! run, by `Statement::first_line`, and by `cli::args` to words of the command line. What the server
//! repeats of a file is masked once more, in `apply::transaction::result`. The password of a connection
//! never gets here: it is a `postgres::conninfo::Secret`.

mod parts;
mod passage;
mod words;

use std::borrow::Cow;
use std::ops::Range;

use self::parts::Part;
use super::script::Statement;
use super::statement_kind::Kind;

pub use self::passage::Passage;
pub use self::words::Words;

pub const MASK: &str = "***";

/// Where one of these occurs, in any case and as a part of a longer word too, there may be a secret.
const WORDS: [&str; 17] = [
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "bearer",
    "credential",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "private key",
    "crypt",
    "hmac",
    "pgp_",
    "identified by",
];

pub fn holds_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = |at: usize, word: &str| {
        bytes
            .get(at..at + word.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
    };
    let first = |byte: u8| b"pstbcahi".contains(&byte.to_ascii_lowercase());
    (0..bytes.len()).any(|at| {
        bytes.get(at).is_some_and(|&byte| first(byte)) && WORDS.iter().any(|word| begins(at, word))
    })
}

/// Text of a server about which nothing else is known, as an error at login, or of an argument. It
/// may quote SQL, in double quotes.
pub fn text(text: &str) -> Cow<'_, str> {
    let hidden = match holds_word(text) {
        // As many bytes, so that the parts of one are those of the other.
        true => hidden_parts(&text.replace('"', " ")),
        false => Vec::new(),
    };
    masked(text, &hidden, 0).0
}

/// A statement; of a line for psql, its command.
pub fn statement<'t>(statement: &Statement<'t>) -> Cow<'t, str> {
    if statement.kind == Kind::PsqlCommand && holds_word(statement.text) {
        let command = statement.text.split_whitespace().next().unwrap_or_default();
        return format!("{command} {MASK}").into();
    }
    sql(statement.text)
}

/// SQL that may hold a secret.
pub fn sql(sql: &str) -> Cow<'_, str> {
    sql_at(sql, 0).0
}

/// The same, and where an offset of it is then.
pub fn sql_at(sql: &str, offset: usize) -> (Cow<'_, str>, usize) {
    let hidden = if holds_word(sql) { hidden_parts(sql) } else { Vec::new() };
    masked(sql, &hidden, offset)
}

/// SQL of another session. The contents of its literals and comments are masked whatever they are.
pub fn query(sql: &str) -> Cow<'_, str> {
    masked(sql, &hidden_parts(sql), 0).0
}

fn hidden_parts(sql: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    parts::parts(sql, &mut |part, range| {
        if part != Part::Name {
            hidden.push(range);
        }
    });
    hidden
}

/// The text with these parts and the passwords in URLs masked, and where an offset of it is then.
fn masked<'t>(text: &'t str, hidden: &[Range<usize>], offset: usize) -> (Cow<'t, str>, usize) {
    let (text, offset) = replaced(Cow::Borrowed(text), hidden, offset);
    let hidden = url_passwords(&text);
    replaced(text, &hidden, offset)
}

/// Replaces these parts, which are in order. Newlines stay, so that lines keep their numbers.
fn replaced<'t>(
    text: Cow<'t, str>,
    hidden: &[Range<usize>],
    offset: usize,
) -> (Cow<'t, str>, usize) {
    if hidden.is_empty() {
        return (text, offset);
    }
    let mut masked = String::new();
    let mut done = 0;
    let mut moved = None;
    for part in hidden {
        if offset <= part.start {
            moved.get_or_insert(masked.len() + offset.saturating_sub(done));
        }
        masked.push_str(slice(&text, done..part.start));
        if offset < part.end {
            moved.get_or_insert(masked.len());
        }
        // What touches the part before is of the same value.
        if part.start > done || done == 0 {
            masked.push_str(MASK);
        }
        masked.extend(slice(&text, part.clone()).chars().filter(|c| *c == '\n'));
        done = part.end;
    }
    let moved = moved.unwrap_or(masked.len() + offset.saturating_sub(done));
    masked.push_str(slice(&text, done..text.len()));
    (Cow::Owned(masked), moved)
}

/// The passwords in `scheme://user:password@host`.
fn url_passwords(text: &str) -> Vec<Range<usize>> {
    const SCHEME: &str = "://";
    let mut passwords = Vec::new();
    let mut at = 0;
    while let Some(found) = slice(text, at..text.len()).find(SCHEME) {
        let start = at + found + SCHEME.len();
        let rest = slice(text, start..text.len());
        let length = rest.find(|c: char| c.is_whitespace() || "'\"<>".contains(c));
        let url = slice(rest, 0..length.unwrap_or(rest.len()));
        if let (Some(colon), Some(sign)) = (url.find(':'), url.rfind('@'))
            && colon + 1 < sign
        {
            passwords.push(start + colon + 1..start + sign);
        }
        at = start + url.len();
    }
    passwords
}

fn slice(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

#[cfg(test)]
mod tests;
