//! The statements of a file that an excerpt shows a part of.

use std::ops::Range;

use super::parts::{Part, parts};
use super::{holds_word, masked, slice, url_passwords};
use crate::sql::script::{Script, Statements};
use crate::sql::statement_kind::Kind;

#[derive(Clone, Debug)]
pub struct Passage<'s, 'a> {
    script: &'s Script<'a>,
    /// Indexes of statements.
    statements: Range<usize>,
    is_secret: bool,
}

impl<'s, 'a> Passage<'s, 'a> {
    /// The statements that these bytes of the file belong to, with the comments before them. It
    /// holds a secret if one of our words, or a URL with a password, occurs in it, or in what the
    /// server says of it.
    pub fn of(script: &'s Script<'a>, bytes: Range<usize>, server_tells: bool) -> Passage<'s, 'a> {
        let first = script.statement_at(bytes.start).unwrap_or_default();
        let last = script.statement_at(bytes.end).map_or(0, |last| last + 1);
        let mut passage = Passage { script, statements: first..last, is_secret: server_tells };
        let text = slice(script.text(), passage.bytes());
        passage.is_secret |= holds_word(text) || !url_passwords(text).is_empty();
        passage
    }

    /// The whole file, where the server does not say which statement it is about.
    pub fn whole(script: &'s Script<'a>, server_tells: bool) -> Passage<'s, 'a> {
        Passage::of(script, 0..script.text().len(), server_tells)
    }

    /// The whole file.
    pub fn text(&self) -> &'a str {
        self.script.text()
    }

    pub fn is_secret(&self) -> bool {
        self.is_secret
    }

    /// Some bytes of the file as they may be shown, and where an offset in the file is in them.
    pub fn shown(&self, bytes: Range<usize>, offset: usize) -> (String, usize) {
        let mut hidden = Vec::new();
        if self.is_secret {
            self.parts(&mut |part, range| {
                let start = range.start.max(bytes.start) - bytes.start;
                let end = range.end.min(bytes.end).saturating_sub(bytes.start);
                if part != Part::Name && start < end {
                    hidden.push(start..end);
                }
            });
        }
        let offset = offset.saturating_sub(bytes.start);
        let (text, offset) = masked(slice(self.script.text(), bytes), &hidden, offset);
        (text.into_owned(), offset)
    }

    /// Calls `each` with the text of each part.
    pub(super) fn texts(&self, mut each: impl FnMut(Part, &str)) {
        self.parts(&mut |part, range| each(part, slice(self.script.text(), range)));
    }

    fn statements(&self) -> Statements<'s, 'a> {
        self.script.statements().range(self.statements.clone())
    }

    /// A file without a statement is all comment, or malformed.
    fn bytes(&self) -> Range<usize> {
        match (self.statements().first(), self.statements().last()) {
            (Some(first), Some(last)) => first.piece.start..last.piece.end,
            _ => 0..self.script.text().len(),
        }
    }

    fn parts(&self, each: &mut dyn FnMut(Part, Range<usize>)) {
        if self.statements().is_empty() {
            self.parts_of(self.bytes(), each);
        }
        for (index, statement) in (self.statements.start..).zip(self.statements().iter()) {
            let piece = &statement.piece;
            if let Some(data) = self.script.copy_data_range(index) {
                self.parts_of(piece.start..data.start, each);
                each(Part::Value, data);
            } else if statement.kind == Kind::PsqlCommand {
                let end = statement.start + statement.text.len();
                self.parts_of(piece.start..statement.start, each);
                each(Part::Value, statement.start + command_length(statement.text)..end);
            } else {
                self.parts_of(piece.clone(), each);
            }
        }
    }

    fn parts_of(&self, bytes: Range<usize>, each: &mut dyn FnMut(Part, Range<usize>)) {
        let start = bytes.start;
        parts(slice(self.script.text(), bytes), &mut |part, range| {
            each(part, start + range.start..start + range.end);
        });
    }
}

fn command_length(line: &str) -> usize {
    line.find(char::is_whitespace).unwrap_or(line.len())
}
