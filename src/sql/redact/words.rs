//! What the server says of a passage that holds a secret. It quotes from it, whole or in part, or
//! tells what the passage computed.

use std::borrow::Cow;
use std::collections::HashMap;

use super::parts::{Part, parts};
use super::{MASK, Passage, masked, slice};

/// The words of a text of the server, with what the passage says of each. What the passage has
/// beside them is not kept, so that the size of a file does not matter.
pub struct Words {
    words: HashMap<String, Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    /// In a keyword or an identifier.
    as_name: bool,
    /// In a literal.
    hidden: bool,
}

impl Words {
    /// The words of these texts. `names` are objects that the server says the error is about.
    pub fn of(texts: &[&str], names: &[&str], passage: &Passage<'_, '_>) -> Words {
        let mut words = HashMap::new();
        for text in texts.iter().chain(names) {
            words.extend(pieces(text).map(|word| (word.to_ascii_lowercase(), Seen::default())));
        }
        let mut words = Words { words };
        passage.texts(|part, text| {
            words.see(text, |seen| match part {
                Part::Name => seen.as_name = true,
                Part::Value => seen.hidden = true,
                // The server says nothing of comments, and they are full of common words.
                Part::Comment => {}
            });
        });
        for name in names {
            words.see(name, |seen| seen.as_name |= !seen.hidden);
        }
        words
    }

    fn see(&mut self, text: &str, mut note: impl FnMut(&mut Seen)) {
        for word in pieces(text) {
            if let Some(seen) = self.words.get_mut(&word.to_ascii_lowercase()) {
                note(seen);
            }
        }
    }

    fn seen(&self, word: &str) -> Seen {
        self.words.get(&word.to_ascii_lowercase()).copied().unwrap_or_default()
    }

    /// Whether all of it are names of the passage.
    fn are_names(&self, text: &str) -> bool {
        parts_of_words(text).all(|word| self.seen(word).as_name)
    }

    /// Whether it is in a literal, and not so short that it may be there by chance.
    fn is_hidden(&self, word: &str) -> bool {
        let seen = self.seen(word);
        word.len() >= 3 && seen.hidden && !seen.as_name
    }

    /// A message, which has names and values in double quotes.
    pub fn message(&self, text: &str) -> String {
        let is_quote = |c: char| "\"\u{ab}\u{bb}\u{201c}\u{201d}\u{201e}".contains(c);
        let mut masked = String::new();
        let mut rest = text;
        let mut is_quoted = false;
        while !rest.is_empty() {
            let (part, after) = rest
                .split_at_checked(rest.find(is_quote).unwrap_or(rest.len()))
                .unwrap_or((rest, ""));
            if !is_quoted {
                masked.push_str(&self.prose(part));
            } else if self.are_names(part) {
                masked.push_str(part);
            } else {
                masked.push_str(MASK);
            }
            // A name that has quotes of its own is in doubled ones.
            rest = after.trim_start_matches(is_quote);
            masked.push_str(slice(after, 0..after.len() - rest.len()));
            is_quoted = !is_quoted;
        }
        masked
    }

    /// A detail, which has values in parentheses too: `Key (a)=(b) already exists.`
    pub fn detail(&self, text: &str) -> String {
        let values = match (text.find('('), text.rfind(')')) {
            (Some(first), Some(last)) if first < last => first..last,
            _ => return self.message(text),
        };
        let is_shown = |word: &str| word.eq_ignore_ascii_case("null") || self.are_names(word);
        let mut masked = self.message(slice(text, 0..values.start));
        masked.push_str(&with_words_masked(slice(text, values.clone()), |word| !is_shown(word)));
        masked.push_str(&self.message(slice(text, values.end..text.len())));
        masked
    }

    /// A query of a function, and where an offset of it is then. Its names need not be in the
    /// passage.
    pub fn query<'t>(&self, query: &'t str, offset: usize) -> (Cow<'t, str>, usize) {
        let mut hidden = Vec::new();
        parts(query, &mut |part, range| {
            if part != Part::Name || self.is_hidden(slice(query, range.clone())) {
                hidden.push(range);
            }
        });
        masked(query, &hidden, offset)
    }

    /// A hint, whose names need not be in the passage.
    pub fn prose(&self, text: &str) -> String {
        with_words_masked(text, |word| {
            self.is_hidden(word) || parts_of_words(word).any(|part| self.is_hidden(part))
        })
    }

    /// Of a context, the lines that say where, and not what.
    pub fn context(&self, text: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let says_where = ["PL/pgSQL function ", "SQL function ", "COPY "];
            let is_shown = says_where.iter().any(|start| line.starts_with(start));
            if is_shown {
                lines.push(self.message(line));
            } else if lines.last().is_none_or(|last| last != MASK) {
                lines.push(MASK.to_owned());
            }
        }
        lines.join("\n")
    }
}

/// The text with some of its words masked.
fn with_words_masked(text: &str, is_masked: impl Fn(&str) -> bool) -> String {
    let mut masked = String::new();
    for part in text.split_inclusive(is_separator) {
        let chunk = part.trim_end_matches(is_separator);
        let word = trimmed(chunk);
        if !word.is_empty() && is_masked(word) {
            masked.push_str(&part.replacen(word, MASK, 1));
        } else {
            masked.push_str(part);
        }
    }
    masked
}

/// Every word, whole and in its parts.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(is_separator).map(trimmed).filter(|word| !word.is_empty());
    words.flat_map(|word| {
        let parts = word.contains('.').then(|| word.split('.').filter(|part| !part.is_empty()));
        std::iter::once(word).chain(parts.into_iter().flatten())
    })
}

/// The parts of a qualified name are words of their own.
fn parts_of_words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(is_separator).map(trimmed);
    words.flat_map(|word| word.split('.')).filter(|part| !part.is_empty())
}

/// Without the end of a sentence.
fn trimmed(word: &str) -> &str {
    word.trim_end_matches(['.', '!', '?'])
}

fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || "\"'`()[]{}<>,;:=|\u{ab}\u{bb}\u{201c}\u{201d}\u{201e}\u{2018}\u{2019}".contains(c)
}
