//! The parts of SQL that may hold a secret. One pass over the tokens, which never goes back.

use std::ops::Range;

use super::holds_word;
use crate::sql::lexer::{Lexer, Token, TokenKind, dollar_tag};
use crate::sql::script::BOM;

/// A part of SQL, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A keyword or an identifier.
    Name,
    /// The content of a literal, or a word in the place of a value.
    Value,
    Comment,
}

/// Calls `each` with the parts of `sql`, in order.
pub fn parts(sql: &str, each: &mut dyn FnMut(Part, Range<usize>)) {
    let start = if sql.starts_with(BOM) { BOM.len_utf8() } else { 0 };
    scan(sql, start, bodies_are_sql(sql), each);
}

/// Whether the dollar-quoted bodies in it are SQL or PL/pgSQL, as far as it names their language.
fn bodies_are_sql(sql: &str) -> bool {
    let mut tokens = Lexer::new(sql, 0).filter(Token::is_significant);
    while let Some(token) = tokens.next() {
        if token.is("language")
            && let Some(name) = tokens.next()
        {
            let name = name.text.trim_matches(['\'', '"']).to_ascii_lowercase();
            if name != "sql" && name != "plpgsql" {
                return false;
            }
        }
    }
    true
}

/// Goes through `sql` from an offset on. If `opens_bodies`, the body of a function is gone through
/// as SQL, and what is quoted in it is not.
fn scan(sql: &str, from: usize, opens_bodies: bool, each: &mut dyn FnMut(Part, Range<usize>)) {
    let mut lexer = Lexer::new(sql, from);
    let mut place = Preceding::default();
    while let Some(token) = lexer.next() {
        match token.kind {
            TokenKind::Space | TokenKind::Marker => continue,
            TokenKind::LineComment | TokenKind::BlockComment => {
                hide(Part::Comment, comment_content(&token), each);
                continue;
            }
            TokenKind::Literal => {
                let content = literal_content(&token);
                if opens_bodies && token.text.starts_with('$') && place.is_body() {
                    let body = sql.get(..content.end).unwrap_or_default();
                    scan(body, content.start, false, each);
                } else {
                    hide(Part::Value, content, each);
                }
            }
            _ if place.is_value(&token, lexer.rest()) => {
                hide(Part::Value, inside_quotes(&token), each);
                place.value_end = token.end();
            }
            TokenKind::Word | TokenKind::QuotedIdentifier => {
                each(Part::Name, inside_quotes(&token));
            }
            TokenKind::Symbol => {}
        }
        place.add(token);
    }
}

fn hide(part: Part, content: Range<usize>, each: &mut dyn FnMut(Part, Range<usize>)) {
    if !content.is_empty() {
        each(part, content);
    }
}

/// Without what marks it as a comment. A rule such as `-------` has no content.
fn comment_content(token: &Token<'_>) -> Range<usize> {
    let is_line = token.kind == TokenKind::LineComment;
    // A line comment that goes on after a marker has no `--`.
    let opening = if !is_line || token.text.starts_with("--") { 2 } else { 0 };
    let closing = if !is_line && token.closed { 2 } else { 0 };
    let content = token.text.get(opening..token.text.len() - closing).unwrap_or_default();
    let start = token.start + opening + content.len() - content.trim_start().len();
    match content.contains(char::is_alphanumeric) {
        true => start..start + content.trim().len(),
        false => start..start,
    }
}

fn literal_content(token: &Token<'_>) -> Range<usize> {
    let (opening, closing) = match dollar_tag(token.text) {
        Some(tag) => (tag.len(), tag.len()),
        // A prefix such as E or U& comes before the quote.
        None => (token.text.find('\'').map_or(0, |quote| quote + 1), 1),
    };
    let closing = if token.closed { closing } else { 0 };
    token.start + opening..(token.end() - closing).max(token.start + opening)
}

fn inside_quotes(token: &Token<'_>) -> Range<usize> {
    match token.kind {
        TokenKind::QuotedIdentifier => {
            let opening = token.text.find('"').map_or(0, |quote| quote + 1);
            let start = token.start + opening;
            start..(token.end() - usize::from(token.closed)).max(start)
        }
        _ => token.start..token.end(),
    }
}

/// Functions whose arguments are keys and plain texts.
fn is_function_of_secrets(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("crypt") || name == "hmac" || name.starts_with("pgp_")
}

/// What has come before a token, as far as it tells whether a value comes next.
#[derive(Default)]
struct Preceding<'a> {
    /// The last two significant tokens, the later one first.
    last: Option<Token<'a>>,
    before: Option<Token<'a>>,
    /// How many parentheses are open.
    depth: usize,
    /// Values stand in the parentheses that were opened at this depth: after VALUES, or a function.
    values_at: Option<usize>,
    is_function: bool,
    /// Whether the statement has a SET.
    has_set: bool,
    /// Whether the statement is about a role, or a connection to another server.
    has_password: bool,
    /// Where the last value ended. What follows it without a space belongs to it.
    value_end: usize,
}

impl<'a> Preceding<'a> {
    /// Whether a dollar-quoted text here is the body of a function or of a DO.
    fn is_body(&self) -> bool {
        let is = |token: &Option<Token<'a>>, word: &str| token.is_some_and(|token| token.is(word));
        is(&self.last, "do") || is(&self.last, "as") || is(&self.before, "language")
    }

    /// Whether this word, quoted identifier or symbol stands where a value belongs: a literal
    /// without its quotes, or with the wrong ones.
    fn is_value(&self, token: &Token<'a>, rest: &str) -> bool {
        if token.start == self.value_end && self.value_end > 0 {
            return !matches!(token.text, "," | ";" | "(" | ")");
        }
        let is_number = token.text.starts_with(|c: char| c.is_ascii_digit());
        if token.kind == TokenKind::Symbol && !is_number {
            return false;
        }
        let is_after_word = self.is_after_word();
        if !(is_after_word || self.is_after_operator() || self.in_values()) || is_harmless(token) {
            return false;
        }
        // A function, an argument's name, or a column with its table. In `password=a.b`, no space
        // comes before it.
        let is_adjacent = self.last.is_some_and(|last| last.end() == token.start && last.is("="));
        let next = rest.trim_start();
        let is_name = ["(", "=>", ":="].iter().any(|start| next.starts_with(start))
            || (next.starts_with('.') && !is_adjacent);
        is_after_word || is_number || !is_name
    }

    /// PASSWORD of a role, and what means the same elsewhere.
    fn is_after_word(&self) -> bool {
        let is_password = |last: Token<'a>| {
            last.is("password")
                || (last.is("by") && self.before.is_some_and(|t| t.is("identified")))
        };
        self.has_password && self.last.is_some_and(is_password)
    }

    fn is_after_operator(&self) -> bool {
        let Some(last) = self.last else { return false };
        let is_named = || self.before.is_some_and(|before| holds_word(before.text));
        let is_literal = || self.before.is_some_and(|before| before.kind == TokenKind::Literal);
        last.is("=")
            || last.is("=>")
            || last.is("default")
            || (last.is("to") && self.has_set)
            || (last.is(":") && is_named())
            || (last.is(",") && is_literal() && is_named())
    }

    fn in_values(&self) -> bool {
        self.values_at.is_some_and(|depth| self.depth > depth)
    }

    fn add(&mut self, token: Token<'a>) {
        if token.is(";") && self.depth == 0 {
            *self = Preceding { value_end: self.value_end, ..Preceding::default() };
            return;
        }
        let last_is_any =
            |words: &[&str]| self.last.is_some_and(|last| words.iter().any(|word| last.is(word)));
        let targets = ["role", "user", "group", "server", "subscription"];
        self.has_set |= token.is("set");
        self.has_password |=
            last_is_any(&["create", "alter"]) && targets.iter().any(|target| token.is(target));
        self.follow_values(&token);
        self.before = self.last.replace(token);
    }

    /// Follows the parentheses after VALUES, and those of a function.
    fn follow_values(&mut self, token: &Token<'a>) {
        if token.is("(") {
            let is_function =
                |last: Token<'a>| last.kind == TokenKind::Word && is_function_of_secrets(last.text);
            if self.values_at.is_none() && self.last.is_some_and(is_function) {
                (self.values_at, self.is_function) = (Some(self.depth), true);
            }
            self.depth += 1;
        } else if token.is(")") {
            self.depth = self.depth.saturating_sub(1);
            if self.is_function && self.values_at == Some(self.depth) {
                self.values_at = None;
            }
        } else if token.is("values") {
            (self.values_at, self.is_function) = (Some(self.depth), false);
        } else if self.values_at == Some(self.depth) && !token.is(",") {
            self.values_at = None;
        }
    }
}

/// A keyword that can stand for a value, or a name that is no more than one of our words.
fn is_harmless(token: &Token<'_>) -> bool {
    let text = token.text.trim_matches('"');
    let words = [
        "null", "true", "false", "default", "case", "not", "select", "array", "password", "secret",
        "token",
    ];
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}
