//! Comments for premigrate. A directive is a line comment on a line of its own:
//! `-- premigrate: no-transaction`, or `-- premigrate: ignore RULE because REASON`.

use super::lexer::{Token, TokenKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Each statement is a step.
    NoTransaction,
    /// Findings of a rule are ignored here. Which rules there are is not known here.
    Ignore {
        rule: String,
        /// The comment.
        comment: String,
    },
    /// Looks like a directive, and is none.
    Unknown(UnknownDirective),
}

/// A comment that looks like a directive and is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDirective {
    /// Its first line.
    pub comment: String,
    /// `None` if it resembles neither.
    pub nearest: Option<NearestDirective>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NearestDirective {
    NoTransaction,
    /// With the word in the place of the rule, which may be empty.
    Ignore {
        rule: String,
    },
}

const NAME: &str = "premigrate";

/// How many characters of a comment are shown.
const SHOWN: usize = 60;

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
        let after_colon = spaced.strip_prefix(':');
        let words = after_colon.unwrap_or(spaced).trim();
        if after_colon.is_none() && !resembles_no_transaction(words) && !resembles_ignore(words) {
            return None;
        }
        let shown = comment.text.lines().next().unwrap_or_default().trim_end();
        let comment = shown.chars().take(SHOWN).collect();
        if is_line && begins_line && name == NAME && rest.starts_with(':') {
            if words == "no-transaction" {
                return Some(Directive::NoTransaction);
            }
            if let Some(rule) = ignored_rule(words) {
                return Some(Directive::Ignore { rule: rule.to_owned(), comment });
            }
        }
        Some(Directive::Unknown(UnknownDirective { comment, nearest: nearest(words) }))
    }
}

/// The rule in `ignore RULE because REASON`.
fn ignored_rule(words: &str) -> Option<&str> {
    let (rule, reason) = words.strip_prefix("ignore ")?.trim_start().split_once(' ')?;
    let reason = reason.trim_start().strip_prefix("because ")?;
    (!reason.trim().is_empty()).then_some(rule)
}

fn nearest(words: &str) -> Option<NearestDirective> {
    let mut each = words.split_whitespace();
    let first = each.next().unwrap_or_default().to_ascii_lowercase();
    if first.starts_with("ign") {
        let rule = each.next().filter(|word| !word.eq_ignore_ascii_case("because"));
        let rule = rule.unwrap_or_default().chars().take(SHOWN).collect();
        return Some(NearestDirective::Ignore { rule });
    }
    let is_near = first.starts_with("no") || first.contains("transaction");
    is_near.then_some(NearestDirective::NoTransaction)
}

fn resembles_no_transaction(words: &str) -> bool {
    let letters = words.chars().filter(|char| char.is_ascii_alphabetic());
    letters.collect::<String>().eq_ignore_ascii_case("notransaction")
}

/// Only the colon is missing.
fn resembles_ignore(words: &str) -> bool {
    let mut words = words.split_whitespace();
    let is = |word: Option<&str>, expected| word.is_some_and(|word| word == expected);
    is(words.next(), "ignore") && is(words.nth(1), "because")
}
