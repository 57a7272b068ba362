//! Reads a statement token by token, without comments and white space.

use super::lexer::{Lexer, Token, TokenKind};

/// The significant tokens of a statement.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    lexer: Lexer<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let following = self.lexer.find(Token::is_significant);
        std::mem::replace(&mut self.next, following)
    }
}

/// Whether a statement has at most so many words, strings and other characters.
pub fn has_at_most(most: usize, statement: &str) -> bool {
    let mut count = 0;
    Tokens::new(statement).all(|token| {
        count += if token.kind == TokenKind::Symbol { token.text.len() } else { 1 };
        count <= most
    })
}

impl<'a> Tokens<'a> {
    pub(super) fn new(statement: &'a str) -> Self {
        let mut lexer = Lexer::new(statement, 0);
        let next = lexer.find(Token::is_significant);
        Tokens { lexer, next }
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.next
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next.is_none()
    }

    pub(super) fn next_if(&mut self, is_wanted: impl Fn(&Token) -> bool) -> Option<Token<'a>> {
        if self.next.as_ref().is_some_and(is_wanted) { self.next() } else { None }
    }

    /// Consumes the next token if it is this word or symbol.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        self.next_if(|token| token.is(word)).is_some()
    }

    pub(super) fn accept_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.accept(word))
    }

    /// Skips `IF EXISTS` or `IF NOT EXISTS`.
    pub(super) fn skip_if_exists(&mut self) {
        if self.accept("if") {
            self.accept("not");
            self.accept("exists");
        }
    }

    pub(super) fn skip_name(&mut self) {
        self.next();
        while self.accept(".") {
            self.next();
        }
    }

    /// Skips past the next `first second` outside parentheses; to the end if there is none.
    pub(super) fn skip_past(&mut self, first: &str, second: &str) -> bool {
        let mut depth = 0usize;
        while let Some(token) = self.next() {
            if token.is("(") {
                depth += 1;
            } else if token.is(")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && token.is(first) && self.accept(second) {
                return true;
            }
        }
        false
    }

    /// A flag of the parenthesized option list that comes next, if there is one.
    pub(super) fn option(&mut self, name: &str) -> Option<bool> {
        if self.accept("(") { self.flag(name) } else { None }
    }

    /// A flag of the option list whose opening parenthesis was the last token; consumes the list.
    /// As in the server, the last one wins, and a flag without a value is on.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let mut flag = None;
        while let Some(option) = self.next() {
            let wanted = option.is(name) || option.text.trim_matches('"') == name;
            self.accept("=");
            let mut value = "on";
            while let Some(token) = self.next_if(|token| !token.is(",") && !token.is(")")) {
                value = token.text.trim_matches('\'');
            }
            if wanted {
                flag =
                    Some(!["0", "off", "false"].iter().any(|off| value.eq_ignore_ascii_case(off)));
            }
            if self.accept(")") {
                break;
            }
            self.accept(",");
        }
        flag
    }
}
