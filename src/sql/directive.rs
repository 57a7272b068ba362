//! Comments for premigrate. A directive is a line comment on a line of its own:
//! `-- premigrate: no-transaction`.

use std::fmt;

use super::lexer::{Token, TokenKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Each statement is a step.
    NoTransaction,
    /// Looks like a directive, and is none.
    Unknown(UnknownDirective),
}

/// A comment that looks like a directive and is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDirective {
    /// Its first line.
    pub comment: String,
}

impl fmt::Display for UnknownDirective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}`, which is not understood; write `-- premigrate: no-transaction` on a line of its \
             own, or change how the comment begins",
            self.comment
        )
    }
}

const NAME: &str = "premigrate";

impl Directive {
    /// The directive in a comment, which may have a line to itself.
    pub(super) fn of(comment: &Token, begins_line: bool) -> Option<Directive> {
        let is_line = comment.kind == TokenKind::LineComment;
        let content = match is_line {
            true => comment.text.strip_prefix("--")?,
            false => comment.text.strip_prefix("/*")?,
        };
        let content = content.trim_start();
        let (name, rest) = content.split_at_checked(NAME.len())?;
        if !name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let spaced = rest.trim_start();
        let words = spaced.strip_prefix(':');
        if words.is_none() && !resembles_no_transaction(spaced) {
            return None;
        }
        let is_exact = is_line && begins_line && name == NAME && rest.starts_with(':');
        if is_exact && words.is_some_and(|words| words.trim() == "no-transaction") {
            return Some(Directive::NoTransaction);
        }
        let comment = comment.text.lines().next().unwrap_or_default().trim_end();
        let comment = comment.chars().take(60).collect();
        Some(Directive::Unknown(UnknownDirective { comment }))
    }
}

fn resembles_no_transaction(words: &str) -> bool {
    let letters = words.chars().filter(|char| char.is_ascii_alphabetic());
    letters.collect::<String>().eq_ignore_ascii_case("notransaction")
}
