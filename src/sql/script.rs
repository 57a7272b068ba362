//! Splits a file into statements as the server's scanner, psql and drizzle-orm do, and finds out what
//! each statement needs to run. Accepts any text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::directive::Directive;
use super::lexer::{Lexer, MARKER, Token, TokenKind, is_newline};
use super::redact;
use super::statement_kind::{Kind, classify, is_routine};

pub(super) const BOM: char = '\u{feff}';

/// Replaces a marker by as many characters, so that positions stay those of the file. The newline
/// ends the line comment that the marker may be in.
const TERMINATOR: &str = "\n;                      ";

/// A parsed migration file.
#[derive(Debug)]
pub struct Script<'a> {
    text: &'a str,
    bounds: Vec<Bounds>,
    /// The kinds of the statements that are not [`Kind::Plain`], with their indexes.
    kinds: Vec<(usize, Kind)>,
    /// What the server must not see: markers, which are sent as `;` since it takes them for comments,
    /// and lines for psql, which are sent as spaces.
    substituted: Vec<Range<usize>>,
    /// The data of each `COPY ... FROM STDIN`, with the index of the statement.
    copy_data: Vec<(usize, Range<usize>)>,
    ignored_markers: Vec<(usize, IgnoredMarker)>,
    directives: Vec<(usize, Directive)>,
    /// Byte ranges of the line comments that have a line to themselves.
    comment_lines: Vec<Range<usize>>,
    unterminated: Option<(&'static str, usize)>,
}

/// A comment or a marker that looks as if it separated statements, but does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredMarker {
    /// A marker inside of this. drizzle-orm splits there all the same.
    Inside(&'static str),
    /// A comment that resembles a marker. drizzle-orm does not split there either.
    AlmostMarker,
}

/// Where a statement is. A long file has millions of them, so that this is kept small.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    start: Offset,
    end: Offset,
    piece_end: Offset,
}

/// A byte offset of up to 2^40.
#[derive(Clone, Copy, Debug)]
struct Offset([u8; 5]);

impl Offset {
    fn new(offset: usize) -> Offset {
        let [a, b, c, d, e, ..] = (offset as u64).to_le_bytes();
        Offset([a, b, c, d, e])
    }

    fn get(self) -> usize {
        let [a, b, c, d, e] = self.0;
        usize::try_from(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])).unwrap_or(usize::MAX)
    }
}

/// Statements of a script that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Statements<'s, 'a> {
    script: &'s Script<'a>,
    /// The indexes of the first one and of the one after the last.
    first: usize,
    end: usize,
}

impl<'s, 'a> Statements<'s, 'a> {
    pub fn len(self) -> usize {
        self.end - self.first
    }

    pub fn is_empty(self) -> bool {
        self.first == self.end
    }

    pub fn get(self, index: usize) -> Option<Statement<'a>> {
        let index = self.first + index;
        if index < self.end { self.script.statement(index) } else { None }
    }

    pub fn first(self) -> Option<Statement<'a>> {
        self.get(0)
    }

    pub fn last(self) -> Option<Statement<'a>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Some of them; none where the range is not within them.
    pub fn range(self, range: Range<usize>) -> Statements<'s, 'a> {
        let is_within = range.start <= range.end && range.end <= self.len();
        let range = if is_within { range } else { 0..0 };
        Statements { first: self.first + range.start, end: self.first + range.end, ..self }
    }

    /// Those that begin before a byte offset.
    pub fn before(self, offset: usize) -> Statements<'s, 'a> {
        let bounds = self.script.bounds.get(self.first..self.end).unwrap_or_default();
        self.range(0..bounds.partition_point(|bounds| bounds.start.get() < offset))
    }

    pub fn iter(self) -> impl DoubleEndedIterator<Item = Statement<'a>> + Clone + use<'s, 'a> {
        (self.first..self.end).filter_map(move |index| self.script.statement(index))
    }
}

/// One statement: what the server answers with one CommandComplete.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// From the first token to the last, without the terminator.
    pub text: &'a str,
    /// Byte offset of `text` in the file.
    pub start: usize,
    /// Byte range of the statement, its terminator, and all that comes before it and belongs to no
    /// statement. The pieces of a script tile the file; the last one extends to its end.
    pub piece: Range<usize>,
    pub kind: Kind,
}

impl Statement<'_> {
    /// At most 60 characters, for a message.
    pub fn first_line(&self) -> String {
        let text = redact::statement(self);
        text.lines().next().unwrap_or_default().chars().take(60).collect()
    }
}

/// A part of the text to send, split between statements.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub text: Cow<'a, str>,
    /// Its byte offset in the file.
    pub start: usize,
    /// How many statements of the file come before it.
    pub first_statement: usize,
    /// The data of its last statement, a `COPY ... FROM STDIN`.
    pub data: Option<&'a str>,
}

impl<'a> Script<'a> {
    /// Accepts any text. A leading byte order mark belongs to no statement.
    pub fn parse(text: &'a str) -> Script<'a> {
        Parser::new(text).parse()
    }

    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The statements that the server counts: empty ones are not among them.
    pub fn statements(&self) -> Statements<'_, 'a> {
        Statements { script: self, first: 0, end: self.bounds.len() }
    }

    fn statement(&self, index: usize) -> Option<Statement<'a>> {
        let Bounds { start, end, piece_end } = *self.bounds.get(index)?;
        let before = index.checked_sub(1).and_then(|before| self.bounds.get(before));
        let piece_start = before.map_or(0, |before| before.piece_end.get());
        let kind = self.kinds.binary_search_by_key(&index, |(index, _)| *index);
        let kind = kind.ok().and_then(|found| self.kinds.get(found));
        Some(Statement {
            text: slice(self.text, start.get()..end.get()),
            start: start.get(),
            piece: piece_start..piece_end.get(),
            kind: kind.map_or(Kind::Plain, |(_, kind)| *kind),
        })
    }

    /// The text to send for some statements, in pieces of at most `limit` bytes of the file, or of
    /// one statement if that is longer; none for an empty range. A piece ends at the data of a COPY.
    /// The server splits them as we do, and they have as many characters as the file. A file without
    /// a statement is one piece: it may be malformed.
    pub fn pieces(&self, statements: Range<usize>, limit: usize) -> Vec<Piece<'a>> {
        let bytes = if self.statements().is_empty() {
            0..self.text.len()
        } else {
            let included = self.statements().range(statements.clone());
            let (Some(first), Some(last)) = (included.first(), included.last()) else {
                return Vec::new();
            };
            first.piece.start..last.piece.end
        };
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        let mut part = bytes.start..bytes.start;
        let mut first_statement = statements.start;
        let mut push = |part: Range<usize>, next_statement: usize| {
            let start = part.start;
            let data = next_statement.checked_sub(1).and_then(|index| self.copy_data(index));
            let text = self.sendable_part(part);
            pieces.push(Piece { text, start, first_statement, data });
            first_statement = next_statement;
        };
        let included = self.statements().range(statements.clone());
        for (index, statement) in (statements.start..).zip(included.iter()) {
            let data = self.copy_data_range(index);
            let end = data.as_ref().map_or(statement.piece.end, |data| data.start);
            if !part.is_empty() && end - part.start > limit {
                push(part.clone(), index);
                part.start = part.end;
            }
            part.end = end;
            if data.is_some() {
                push(part.clone(), index + 1);
                part = statement.piece.end..statement.piece.end;
            }
        }
        let rest = part.start..bytes.end.max(part.start);
        if !part.is_empty() || statements.is_empty() {
            push(rest, statements.end);
        }
        pieces
    }

    /// The data that follows a `COPY ... FROM STDIN`, which is empty if there is none. `None` for any
    /// other statement, and for one with more SQL in its line.
    pub fn copy_data(&self, statement: usize) -> Option<&'a str> {
        self.copy_data_range(statement).map(|data| slice(self.text, data))
    }

    pub(super) fn copy_data_range(&self, statement: usize) -> Option<Range<usize>> {
        let found = self.copy_data.binary_search_by_key(&statement, |(index, _)| *index).ok()?;
        self.copy_data.get(found).map(|(_, data)| data.clone())
    }

    /// The byte offset of a line of the data of a COPY, as the server counts them: from 1.
    pub fn copy_line(&self, statement: usize, line: usize) -> Option<usize> {
        let data = self.copy_data_range(statement)?;
        let lines = slice(self.text, data.clone()).split_inclusive('\n');
        Some(data.start + lines.take(line.saturating_sub(1)).map(str::len).sum::<usize>())
    }

    /// One statement, without what surrounds it.
    pub fn piece(&self, index: usize) -> Option<Piece<'a>> {
        let statement = self.statement(index)?;
        let Statement { text, start, .. } = statement;
        Some(Piece { text: text.into(), start, first_statement: index, data: None })
    }

    /// With their byte offsets.
    pub fn ignored_markers(&self) -> &[(usize, IgnoredMarker)] {
        &self.ignored_markers
    }

    /// Whether the script has the line `-- premigrate: no-transaction`.
    pub fn no_transaction(&self) -> bool {
        self.directives.iter().any(|(_, directive)| *directive == Directive::NoTransaction)
    }

    /// With their byte offsets.
    pub fn directives(&self) -> &[(usize, Directive)] {
        &self.directives
    }

    /// The line comments that have a line to themselves, each with its byte offset.
    pub fn comment_lines(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.comment_lines.iter().map(|line| (line.start, slice(self.text, line.clone())))
    }

    /// What is opened and never closed, in PostgreSQL's words, and its byte offset.
    pub fn unterminated(&self) -> Option<(&'static str, usize)> {
        self.unterminated
    }

    /// The index of the statement whose piece contains a byte offset; past the end, the last one.
    pub fn statement_at(&self, offset: usize) -> Option<usize> {
        let index = self.bounds.partition_point(|bounds| bounds.piece_end.get() <= offset);
        self.bounds.len().checked_sub(1).map(|last| index.min(last))
    }

    fn sendable_part(&self, part: Range<usize>) -> Cow<'a, str> {
        let first = self.substituted.partition_point(|range| range.start < part.start);
        let substituted = self.substituted.iter().skip(first);
        let mut sent = String::new();
        let mut done = part.start;
        if done == 0 && self.text.starts_with(BOM) {
            sent.push(' ');
            done = BOM.len_utf8();
        }
        for range in substituted.take_while(|range| range.start < part.end) {
            sent.push_str(slice(self.text, done..range.start));
            match slice(self.text, range.clone()) {
                MARKER => sent.push_str(TERMINATOR),
                line => sent.extend(line.chars().map(|_| ' ')),
            }
            done = range.end;
        }
        if sent.is_empty() {
            return Cow::Borrowed(slice(self.text, part));
        }
        sent.push_str(slice(self.text, done..part.end));
        Cow::Owned(sent)
    }
}

/// A position in a file as an editor shows it: in characters, from 1. A byte order mark has no column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineColumn {
    pub line: usize,
    pub column: usize,
}

impl LineColumn {
    /// The position of a byte offset.
    pub fn at(text: &str, offset: usize) -> LineColumn {
        Positions::new(text).at(offset)
    }
}

/// Finds the positions of many byte offsets. If they are in order, it goes through the text once.
pub struct Positions<'a> {
    text: &'a str,
    /// The last one that was found.
    offset: usize,
    position: LineColumn,
}

impl<'a> Positions<'a> {
    pub fn new(text: &'a str) -> Positions<'a> {
        let offset = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        Positions { text, offset, position: LineColumn { line: 1, column: 1 } }
    }

    pub fn at(&mut self, offset: usize) -> LineColumn {
        let offset = self.text.floor_char_boundary(offset);
        if offset < self.offset {
            *self = Positions::new(self.text);
        }
        let passed = slice(self.text, self.offset..offset);
        let newlines = passed.matches('\n').count();
        let in_line = passed.rsplit('\n').next().unwrap_or_default().chars().count();
        let LineColumn { line, column } = self.position;
        let column = if newlines == 0 { column + in_line } else { 1 + in_line };
        self.offset = self.offset.max(offset);
        self.position = LineColumn { line: line + newlines, column };
        self.position
    }
}

impl fmt::Display for LineColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The byte offset of a position as the server counts: in characters, from 1.
pub fn offset_of(text: &str, position: usize) -> usize {
    text.char_indices().nth(position.saturating_sub(1)).map_or(text.len(), |(offset, _)| offset)
}

fn slice(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

/// Goes through the tokens once; its fields are the state between two of them.
struct Parser<'a> {
    lexer: Lexer<'a>,
    script: Script<'a>,
    open: Option<OpenStatement<'a>>,
}

/// The statement that has begun and not ended.
struct OpenStatement<'a> {
    start: usize,
    last: Token<'a>,
    /// How many parentheses are open.
    depth: usize,
    /// Whether it creates a function or procedure; found out on demand.
    is_routine: Option<bool>,
    in_atomic_body: bool,
}

impl<'a> OpenStatement<'a> {
    fn new(first: Token<'a>) -> Self {
        OpenStatement {
            start: first.start,
            last: first,
            depth: usize::from(first.is("(")),
            is_routine: None,
            in_atomic_body: false,
        }
    }

    /// What the next token is inside of, where it cannot end the statement.
    fn inside(&self) -> Option<&'static str> {
        if self.depth > 0 {
            Some("parentheses")
        } else if self.in_atomic_body {
            Some("a BEGIN ATOMIC body")
        } else {
            None
        }
    }

    fn add(&mut self, token: Token<'a>, text: &str) {
        if token.is("(") {
            self.depth += 1;
        } else if token.is(")") {
            self.depth = self.depth.saturating_sub(1);
        } else if self.depth == 0 {
            self.atomic_body(&token, text);
        }
        self.last = token;
    }

    /// Follows `BEGIN ATOMIC ... END` in a routine. The statements in it end in `;` and none begins
    /// with END, so the closing END comes right after a `;` or after ATOMIC. The END of a CASE, or
    /// a column named `end`, never does.
    fn atomic_body(&mut self, token: &Token<'a>, text: &str) {
        let previous = self.last;
        if self.in_atomic_body {
            self.in_atomic_body = !(token.is("end") && (previous.is(";") || previous.is("atomic")));
        } else if token.is("atomic") && previous.is("begin") {
            let text = slice(text, self.start..token.start);
            self.in_atomic_body = *self.is_routine.get_or_insert_with(|| is_routine(text));
        }
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
        Parser {
            lexer: Lexer::new(text, start),
            script: Script {
                text,
                bounds: Vec::new(),
                kinds: Vec::new(),
                substituted: Vec::new(),
                copy_data: Vec::new(),
                ignored_markers: Vec::new(),
                directives: Vec::new(),
                comment_lines: Vec::new(),
                unterminated: None,
            },
            open: None,
        }
    }

    fn parse(mut self) -> Script<'a> {
        while let Some(token) = self.lexer.next() {
            if !token.closed {
                self.script.unterminated = Some((unterminated(&token), token.start));
            }
            self.add_ignored_markers(&token);
            match token.kind {
                TokenKind::Space => {}
                TokenKind::LineComment | TokenKind::BlockComment => self.comment(&token),
                TokenKind::Marker => self.marker(&token),
                _ => self.token(token),
            }
        }
        self.finish();
        self.end_last_piece(self.script.text.len());
        self.script
    }

    fn comment(&mut self, comment: &Token<'a>) {
        let begins_line = begins_line(self.script.text, comment);
        if let Some(directive) = Directive::of(comment, begins_line) {
            self.script.directives.push((comment.start, directive));
        }
        if begins_line && comment.kind == TokenKind::LineComment {
            self.script.comment_lines.push(comment.start..comment.end());
        }
    }

    fn add_ignored_markers(&mut self, token: &Token<'a>) {
        let inside = match token.kind {
            TokenKind::Space | TokenKind::Marker | TokenKind::Word | TokenKind::Symbol => return,
            TokenKind::LineComment if resembles_marker(token) => {
                self.script.ignored_markers.push((token.start, IgnoredMarker::AlmostMarker));
                return;
            }
            TokenKind::LineComment | TokenKind::BlockComment => "a comment",
            TokenKind::QuotedIdentifier => "a quoted identifier",
            TokenKind::Literal if token.text.starts_with('$') => "a dollar-quoted string",
            TokenKind::Literal => "a string",
        };
        let markers = token.text.match_indices(MARKER);
        self.script
            .ignored_markers
            .extend(markers.map(|(at, _)| (token.start + at, IgnoredMarker::Inside(inside))));
    }

    /// drizzle-orm splits at every marker, and fails if that tears a statement apart. There, a
    /// marker is only the comment that it looks like.
    fn marker(&mut self, marker: &Token<'a>) {
        if let Some(inside) = self.open.as_ref().and_then(OpenStatement::inside) {
            return self.script.ignored_markers.push((marker.start, IgnoredMarker::Inside(inside)));
        }
        self.lexer.separate();
        let rest = self.lexer.rest();
        let blank = rest.trim_start_matches([' ', '\t', '\x0b', '\x0c']);
        if self.open.is_some() || !(blank.is_empty() || blank.starts_with(['\n', '\r'])) {
            self.script.substituted.push(marker.start..marker.end());
        }
        self.finish();
    }

    fn token(&mut self, token: Token<'a>) {
        match &mut self.open {
            // The server accepts a backslash only inside of quotes.
            _ if token.is("\\") => self.psql_line(token),
            Some(open) if token.is(";") && open.inside().is_none() => self.finish(),
            Some(open) => open.add(token, self.script.text),
            None if token.is(";") => {}
            None => self.open = Some(OpenStatement::new(token)),
        }
    }

    /// A backslash makes the rest of its line a command of psql.
    fn psql_line(&mut self, backslash: Token<'a>) {
        let line = self.lexer.rest().split(['\n', '\r']).next().unwrap_or_default();
        let end = backslash.end() + line.trim_end().len();
        if self.open.is_none() && is_passed_over(line) {
            self.lexer.advance(line.len());
            return self.script.substituted.push(backslash.start..end);
        }
        self.finish_at(backslash.start);
        self.lexer.advance(line.len());
        let text = slice(self.script.text, backslash.start..end);
        self.open = Some(OpenStatement::new(Token { text, ..backslash }));
        self.finish_at(self.lexer.at());
    }

    /// Ends the open statement, if there is one, at the lexer's position or after its data.
    fn finish(&mut self) {
        let start = self.lexer.at();
        if self.finish_at(start) != Some(Kind::CopyFromClient) {
            return;
        }
        let Some((data, length)) = copy_data(self.lexer.rest()) else { return };
        self.lexer.advance(length);
        self.end_last_piece(self.lexer.at());
        let index = self.script.bounds.len() - 1;
        self.script.copy_data.push((index, start + data.start..start + data.end));
    }

    /// Ends the open statement, and returns its kind.
    fn finish_at(&mut self, end: usize) -> Option<Kind> {
        let OpenStatement { start, last, .. } = self.open.take()?;
        let text = slice(self.script.text, start..last.end());
        let kind = classify(text);
        if kind != Kind::Plain {
            self.script.kinds.push((self.script.bounds.len(), kind));
        }
        let [start, piece_end] = [start, end].map(Offset::new);
        self.script.bounds.push(Bounds { start, end: Offset::new(last.end()), piece_end });
        Some(kind)
    }

    fn end_last_piece(&mut self, end: usize) {
        if let Some(last) = self.script.bounds.last_mut() {
            last.piece_end = Offset::new(end);
        }
    }
}

/// Whether a command of psql says nothing to a server: pg_dump puts its output between these two.
fn is_passed_over(command: &str) -> bool {
    let name = command.split_ascii_whitespace().next().unwrap_or_default();
    command.starts_with(name) && ["restrict", "unrestrict"].contains(&name)
}

fn unterminated(token: &Token) -> &'static str {
    match token.kind {
        TokenKind::BlockComment => "/* comment",
        TokenKind::QuotedIdentifier => "quoted identifier",
        _ if token.text.starts_with('$') => "dollar-quoted string",
        _ => "quoted string",
    }
}

/// Whether a line comment has the letters of a marker and no others, but is not one.
fn resembles_marker(comment: &Token) -> bool {
    let letters = comment.text.bytes().filter(u8::is_ascii_alphabetic);
    letters.map(|letter| letter.to_ascii_lowercase()).eq(*b"statementbreakpoint")
        && !comment.text.contains(MARKER)
}

/// Whether nothing but blanks comes before a comment on its line.
fn begins_line(text: &str, comment: &Token) -> bool {
    let before = slice(text, 0..comment.start).trim_end_matches([' ', '\t', BOM]);
    before.bytes().next_back().is_none_or(is_newline)
}

/// The data after a `COPY ... FROM STDIN`, and the length up to what follows it: as in psql, from the
/// next line to the line `\.` or to the end. `None` if more SQL follows on the same line.
fn copy_data(rest: &str) -> Option<(Range<usize>, usize)> {
    // Checked before the line is split off: a long line of nothing but COPY must stay linear.
    let comment = rest.trim_start_matches([' ', '\t', '\r']);
    if !(comment.is_empty() || comment.starts_with('\n') || comment.starts_with("--")) {
        return None;
    }
    let mut lines = rest.split_inclusive('\n');
    let start = lines.next().map_or(0, str::len);
    let mut end = start;
    for line in lines {
        if ["\\.\n", "\\.\r\n", "\\."].contains(&line) {
            return Some((start..end, end + line.len()));
        }
        end += line.len();
    }
    Some((start..end, end))
}

#[cfg(test)]
mod tests;
