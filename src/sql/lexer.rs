//! Splits a PostgreSQL script into tokens as the server's scanner (scan.l, 13 to 18) does with
//! standard_conforming_strings on. Accepts any text: an unterminated token extends to the end. Knows
//! no keywords; Drizzle's marker is the one addition.

/// The text at which drizzle-orm splits a file.
pub const MARKER: &str = "--> statement-breakpoint";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Space,
    /// `-- ...` up to its newline, or to a marker in it.
    LineComment,
    Marker,
    BlockComment,
    /// A keyword or an unquoted identifier.
    Word,
    QuotedIdentifier,
    /// A string constant of any kind, dollar-quoted ones included.
    Literal,
    /// A number, a parameter, an operator, or any other single character.
    Symbol,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    pub start: usize,
    pub closed: bool,
}

impl Token<'_> {
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether this is the given keyword or symbol.
    pub fn is(&self, word: &str) -> bool {
        match self.kind {
            TokenKind::Word => self.text.eq_ignore_ascii_case(word),
            TokenKind::Symbol => self.text == word,
            _ => false,
        }
    }

    pub fn is_significant(&self) -> bool {
        use TokenKind::{BlockComment, LineComment, Marker, Space};
        !matches!(self.kind, Space | LineComment | Marker | BlockComment)
    }
}

/// `E'...'` continues in a later `'...'` if a newline and nothing but blanks and line comments come
/// between, and backslashes still escape there. Other strings can be lexed as separate tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Off,
    Closed,
    ClosedBeforeNewline,
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    in_comment: bool,
    escapes: Escapes,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str, at: usize) -> Self {
        Lexer { text, at, in_comment: false, escapes: Escapes::Off }
    }

    /// The byte offset of the next token.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Treats the last marker as a separator: the rest of its line is SQL, not a comment.
    pub fn separate(&mut self) {
        self.in_comment = false;
        self.escapes = Escapes::Off;
    }

    pub fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.text.len());
    }

    /// The kind and length of the token at the start of `rest`, and whether it is closed.
    fn scan(&mut self, rest: &'a str) -> Option<(TokenKind, usize, bool)> {
        use TokenKind::*;
        let bytes = rest.as_bytes();
        let first = *bytes.first()?;
        if std::mem::take(&mut self.in_comment) {
            let length = comment_length(bytes);
            if length > 0 {
                return Some((LineComment, length, true));
            }
        }
        let escapes = std::mem::replace(&mut self.escapes, Escapes::Off);
        let open = |(kind, end): (TokenKind, Option<usize>)| {
            (kind, end.unwrap_or(rest.len()), end.is_some())
        };
        Some(match first {
            _ if is_space(first) => {
                let length = run(bytes, is_space);
                let newline = bytes.iter().take(length).any(|&byte| is_newline(byte));
                self.escapes = match escapes {
                    Escapes::Closed if newline => Escapes::ClosedBeforeNewline,
                    _ => escapes,
                };
                (Space, length, true)
            }
            b'-' if rest.starts_with(MARKER) => {
                (self.in_comment, self.escapes) = (true, escapes);
                (Marker, MARKER.len(), true)
            }
            b'-' if rest.starts_with("--") => {
                self.escapes = escapes;
                (LineComment, 2 + comment_length(tail(bytes, 2)), true)
            }
            b'/' if rest.starts_with("/*") => open((BlockComment, block_comment_end(bytes))),
            b'\'' => {
                let escaping = escapes == Escapes::ClosedBeforeNewline;
                if escaping {
                    self.escapes = Escapes::Closed;
                }
                open((Literal, quoted_end(bytes, 1, b'\'', escaping)))
            }
            b'e' | b'E' if bytes.get(1) == Some(&b'\'') => {
                self.escapes = Escapes::Closed;
                open((Literal, quoted_end(bytes, 2, b'\'', true)))
            }
            b'"' => open((QuotedIdentifier, quoted_end(bytes, 1, b'"', false))),
            b'u' | b'U' if tail(bytes, 1).starts_with(b"&'") => {
                open((Literal, quoted_end(bytes, 3, b'\'', false)))
            }
            b'u' | b'U' if tail(bytes, 1).starts_with(b"&\"") => {
                open((QuotedIdentifier, quoted_end(bytes, 3, b'"', false)))
            }
            b'$' => match dollar_tag(rest) {
                Some(tag) => {
                    let body = rest.get(tag.len()..).unwrap_or_default();
                    open((Literal, body.find(tag).map(|at| at + 2 * tag.len())))
                }
                None => (Symbol, 1 + run(tail(bytes, 1), |byte| byte.is_ascii_digit()), true),
            },
            _ if is_word_start(first) => {
                (Word, run(bytes, |byte| is_word_part(byte) || byte == b'$'), true)
            }
            b'0'..=b'9' => (Symbol, number_length(bytes), true),
            _ if is_operator(first) => (Symbol, operator_length(bytes), true),
            _ => (Symbol, 1, true),
        })
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let (kind, length, closed) = self.scan(self.rest())?;
        self.advance(length);
        let text = self.text.get(start..self.at).unwrap_or_default();
        Some(Token { kind, text, start, closed })
    }
}

/// The length of the longest prefix of bytes that all satisfy `belongs`.
fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| !belongs(byte)).unwrap_or(bytes.len())
}

fn tail(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

pub(super) fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// A vertical tab is white space since PostgreSQL 16 and an error before.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Any non-ASCII character may begin an identifier, so no token ends inside of one.
fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

/// The length of a line comment, to its newline or to a marker in it. One pass looks for both, so
/// that a long line full of markers stays linear.
fn comment_length(bytes: &[u8]) -> usize {
    let ends = |(at, &byte): (usize, &u8)| {
        is_newline(byte) || (byte == b'-' && tail(bytes, at).starts_with(MARKER.as_bytes()))
    };
    bytes.iter().enumerate().position(ends).unwrap_or(bytes.len())
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        at += run(tail(bytes, at), |byte| byte != b'*' && byte != b'/');
        match (bytes.get(at)?, bytes.get(at + 1)?) {
            (b'/', b'*') => depth += 1,
            (b'*', b'/') if depth == 1 => return Some(at + 2),
            (b'*', b'/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
}

/// The end of a quoted token whose content begins at `at`. A doubled quote is one quote.
fn quoted_end(bytes: &[u8], mut at: usize, quote: u8, backslash_escapes: bool) -> Option<usize> {
    loop {
        at += run(tail(bytes, at), |byte| byte != quote && byte != b'\\');
        match *bytes.get(at)? {
            b'\\' if backslash_escapes => at += 2,
            b'\\' => at += 1,
            _ if bytes.get(at + 1) == Some(&quote) => at += 2,
            _ => return Some(at + 1),
        }
    }
}

/// `$$` or `$tag$` at the start. The tag is an identifier without `$`, so `$1$` is not one.
pub(super) fn dollar_tag(rest: &str) -> Option<&str> {
    let after = rest.strip_prefix('$')?.as_bytes();
    let length = match after.first() {
        Some(&byte) if is_word_start(byte) => run(after, is_word_part),
        _ => 0,
    };
    (after.get(length) == Some(&b'$')).then(|| rest.get(..length + 2)).flatten()
}

/// `1`, `1.5`, `1e-5`. Hexadecimal digits may be lexed as a word of their own.
fn number_length(bytes: &[u8]) -> usize {
    let length = run(bytes, |byte| byte.is_ascii_digit() || byte == b'.');
    let exponent = tail(bytes, length);
    let sign = match exponent {
        [b'e' | b'E', b'+' | b'-', ..] => 2,
        [b'e' | b'E', ..] => 1,
        _ => return length,
    };
    match run(tail(exponent, sign), |byte| byte.is_ascii_digit()) {
        0 => length,
        digits => length + sign + digits,
    }
}

/// A comment ends an operator.
fn operator_length(bytes: &[u8]) -> usize {
    let ends = |(at, &byte): (usize, &u8)| {
        let here = tail(bytes, at);
        !is_operator(byte) || here.starts_with(b"--") || here.starts_with(b"/*")
    };
    bytes.iter().enumerate().position(ends).unwrap_or(bytes.len())
}
