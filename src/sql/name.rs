//! Where a name stands in a statement.

use super::lexer::{Token, TokenKind};
use super::settings::unquoted;
use super::statement_target::part;
use super::tokens::Tokens;

/// How often a name stands in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence {
    Never,
    /// At this byte offset.
    Once(usize),
    Often,
}

/// The longest name of the server, in bytes (NAMEDATALEN - 1). It cuts longer ones.
const MAX_NAME: usize = 63;

impl Occurrence {
    fn and(self, place: usize) -> Occurrence {
        match self {
            Occurrence::Never => Occurrence::Once(place),
            Occurrence::Once(_) | Occurrence::Often => Occurrence::Often,
        }
    }
}

/// How often the identifier of a name stands in a statement: as the server folds it, and in neither
/// comments nor strings. A name with a dot in it may also be that of a schema and of an object in it.
/// One with Unicode escapes (`U&"..."`), which we do not decode, may be any name.
pub fn occurrence(statement: &str, name: &str) -> Occurrence {
    let (mut whole, mut qualified) = (Occurrence::Never, Occurrence::Never);
    let (mut first, mut second): (Option<Token>, Option<Token>) = (None, None);
    for token in Tokens::new(statement) {
        if token.kind == TokenKind::QuotedIdentifier && part(&token).is_none() {
            return Occurrence::Often;
        }
        if is_name(&token, name) {
            whole = whole.and(token.start);
        }
        if let (Some(schema), Some(dot), Some((schema_name, name))) =
            (first, second, name.rsplit_once('.'))
            && is_name(&schema, schema_name)
            && dot.is(".")
            && is_name(&token, name)
        {
            qualified = qualified.and(token.start);
        }
        first = second.replace(token);
    }
    if whole == Occurrence::Never { qualified } else { whole }
}

/// Whether a string of a statement has this content.
pub fn is_string(statement: &str, content: &str) -> bool {
    let mut strings = Tokens::new(statement).filter(|token| token.kind == TokenKind::Literal);
    strings.any(|string| unquoted(string.text) == content)
}

fn is_name(token: &Token, name: &str) -> bool {
    let cut = |mut part: String| {
        part.truncate(part.floor_char_boundary(MAX_NAME));
        part
    };
    part(token).is_some_and(|part| cut(part) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What begins where the name stands; empty if nowhere, `?` if more than once.
    fn found<'s>(statement: &'s str, name: &str) -> &'s str {
        match occurrence(statement, name) {
            Occurrence::Never => "",
            Occurrence::Once(offset) => &statement[offset..],
            Occurrence::Often => "?",
        }
    }

    #[test]
    fn a_name_is_found_as_the_server_folds_it() {
        for (statement, name, expected) in [
            ("alter table t drop column Titel", "titel", "Titel"),
            ("alter table t drop column \"Titel\"", "Titel", "\"Titel\""),
            ("alter table t drop column \"Titel\"", "titel", ""),
            ("alter table t drop column Titel", "Titel", ""),
            ("drop table \"a\"\"b\"", "a\"b", "\"a\"\"b\""),
            ("drop table größe", "größe", "größe"),
            ("drop table GRÖSSE", "grÖsse", "GRÖSSE"),
        ] {
            assert_eq!(found(statement, name), expected, "{statement}");
        }
    }

    #[test]
    fn a_name_in_a_string_or_a_comment_does_not_count() {
        for (statement, expected) in [
            ("insert into t values ('a', $$a$$, E'a') -- a", ""),
            ("/* a */ alter table t drop a -- a\n", "a -- a\n"),
            ("alter table t add ab int, drop b.a_ ", ""),
            ("alter table t drop a, drop \"a\"", "?"),
            ("alter table t drop A, drop a", "?"),
        ] {
            assert_eq!(found(statement, "a"), expected, "{statement}");
        }
    }

    #[test]
    fn a_name_with_a_dot_may_be_qualified() {
        for (statement, expected) in [
            ("drop table \"app.users\"", "\"app.users\""),
            ("drop table app . Users", "Users"),
            ("drop table app.users, app.users", "?"),
            ("drop table app, users", ""),
            ("drop table users", ""),
        ] {
            assert_eq!(found(statement, "app.users"), expected, "{statement}");
        }
    }

    #[test]
    fn a_name_with_unicode_escapes_may_be_any() {
        assert_eq!(found("drop table a, U&\"\\0061\"", "a"), "?");
    }

    #[test]
    fn a_long_name_is_cut_as_the_server_cuts_it() {
        let name = "x".repeat(62);
        let statement = format!("drop table {name}é");
        assert_eq!(found(&statement, &name), format!("{name}é"));
        assert_eq!(found(&statement, &format!("{name}é")), "");
    }

    #[test]
    fn a_string_is_compared_by_its_content() {
        for (statement, expected) in [
            ("alter type mood add value 'mood'", true),
            ("alter type mood add value 'moody'", false),
            ("alter type mood add value \"mood\" -- 'mood'", false),
        ] {
            assert_eq!(is_string(statement, "mood"), expected, "{statement}");
        }
    }
}
