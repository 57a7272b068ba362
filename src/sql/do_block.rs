//! The statements inside a `DO` block, as far as they stand there as they would outside of it.

use super::lexer::TokenKind;
use super::script::{Script, Statement};
use super::tokens::Tokens;

impl<'a> Statement<'a> {
    /// For a `DO` block, the statements in its body that begin with one of these words, each with its
    /// offset in this statement.
    pub fn inner(&self, words: &[&str]) -> Vec<(usize, &'a str)> {
        let mut tokens = Tokens::new(self.text);
        if !tokens.accept("do") {
            return Vec::new();
        }
        let body =
            tokens.find(|token| token.kind == TokenKind::Literal && token.text.starts_with('$'));
        let Some(body) = body else { return Vec::new() };
        let tag = body.text.get(1..).and_then(|rest| rest.find('$')).map_or(0, |at| at + 2);
        let code = body.text.get(tag..body.text.len().saturating_sub(tag)).unwrap_or_default();
        let start = body.start + tag;
        let parts = Script::parse(code);
        let parts = parts.statements().iter().filter_map(|part| {
            let offset = first_of(part.text, words)?;
            let at = start + part.start + offset;
            Some((at, self.text.get(at..start + part.start + part.text.len())?))
        });
        parts.collect()
    }
}

/// Where the first statement in a part of a body begins: what comes before it is `BEGIN`, `IF ... THEN`
/// and the like.
fn first_of(part: &str, words: &[&str]) -> Option<usize> {
    let mut may_begin = true;
    for token in Tokens::new(part) {
        if may_begin && words.iter().any(|word| token.is(word)) {
            return Some(token.start);
        }
        may_begin = ["begin", "then", "else", "loop"].iter().any(|word| token.is(word));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_of_a_do_block_are_found_with_their_places() {
        let sql = "DO $$ BEGIN\n ALTER TABLE a ADD b int;\nIF true THEN drop table b; END IF;\n\
                   execute 'drop table c';\nEXCEPTION\n WHEN duplicate_object THEN null;\nEND $$;";
        let script = Script::parse(sql);
        let statement = script.statements().first().unwrap();
        let inner = statement.inner(&["alter", "drop"]);
        let texts: Vec<_> = inner.iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, ["ALTER TABLE a ADD b int", "drop table b"]);
        for (offset, text) in inner {
            assert!(sql[offset..].starts_with(text));
        }
    }

    #[test]
    fn other_statements_have_none_inside() {
        for sql in
            ["select 1", "do 'begin drop table a; end'", "do", "create function f() as $$ drop $$"]
        {
            let script = Script::parse(sql);
            assert_eq!(script.statements().first().unwrap().inner(&["drop"]), [], "{sql}");
        }
    }
}
