//! `ALTER TYPE ... ADD VALUE`, and which statements may use the new value before it is committed.

use super::lexer::{Token, TokenKind};
use super::script::{Script, Statement};
use super::settings::unquoted;
use super::statement_target::{name, part};
use super::tokens::Tokens;

/// A value that a statement adds to an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumValue {
    /// The last part of the enum's name.
    enum_name: String,
    /// As the file has it, in quotes.
    pub literal: String,
    /// `None` if it is written with escapes.
    label: Option<String>,
    /// The functions and procedures of the file that may use the value when they run.
    routines: Vec<String>,
}

/// How deep strings of code in strings of code are read.
const MAX_NESTING: usize = 4;

/// How a text may use a value.
#[derive(Clone, Copy)]
enum Reading {
    /// Its strings are values.
    Plain,
    /// Its strings are code too, which is stored.
    Stored,
    /// Its strings are code too, which runs, and may run computed SQL.
    Run,
}

/// The functions and procedures that a file creates, each with the statement that does.
#[derive(Debug, Default)]
pub struct Routines<'a>(Vec<(String, Statement<'a>)>);

impl<'a> Script<'a> {
    pub fn routines(&self) -> Routines<'a> {
        let statements = self.statements().iter();
        let creates =
            statements.filter_map(|statement| Some((statement.created_routine()?, statement)));
        Routines(creates.collect())
    }
}

impl Statement<'_> {
    /// The value that the statement adds to an enum, in a file with these routines: for
    /// [`Kind::AddEnumValue`](super::Kind::AddEnumValue).
    pub fn enum_value(&self, routines: &Routines<'_>) -> Option<EnumValue> {
        let mut value = self.added_value()?;
        let uses = routines.0.iter();
        let uses = uses.filter(|(_, code)| value.may_be_in(code.text, Reading::Run, MAX_NESTING));
        value.routines = uses.map(|(name, _)| name.clone()).collect();
        Some(value)
    }

    fn added_value(&self) -> Option<EnumValue> {
        let mut tokens = Tokens::new(self.text);
        if !tokens.accept("alter") || !tokens.accept("type") {
            return None;
        }
        let enum_name = name(&mut tokens).pop()?;
        if !tokens.accept("add") || !tokens.accept("value") {
            return None;
        }
        tokens.skip_if_exists();
        let literal = tokens.next_if(|token| token.kind == TokenKind::Literal)?.text;
        let label = (!has_escapes(literal)).then(|| unquoted(literal));
        Some(EnumValue { enum_name, literal: literal.to_owned(), label, routines: Vec::new() })
    }

    /// Whether the statement may use a value that its transaction has just added: the value stands
    /// in a string or may come with COPY, something other than a string is cast to the enum, or code
    /// runs that may compute it.
    pub fn may_use(&self, value: &EnumValue) -> bool {
        let mut tokens = Tokens::new(self.text);
        if tokens.accept("comment") {
            return false;
        }
        if tokens.accept("copy") {
            return true;
        }
        let reading = if tokens.accept("do") {
            Reading::Run
        } else if self.created_routine().is_some() {
            Reading::Stored
        } else {
            Reading::Plain
        };
        value.may_be_in(self.text, reading, MAX_NESTING)
    }

    /// The last part of the name of the function or procedure that the statement creates.
    fn created_routine(&self) -> Option<String> {
        let mut tokens = Tokens::new(self.text);
        if !tokens.accept("create") {
            return None;
        }
        if tokens.accept("or") {
            tokens.accept("replace");
        }
        if !tokens.accept_any(&["function", "procedure"]) {
            return None;
        }
        name(&mut tokens).pop()
    }
}

impl EnumValue {
    fn may_be_in(&self, text: &str, reading: Reading, nesting: usize) -> bool {
        let mut tokens = Tokens::new(text);
        let (mut before, mut previous): (Option<Token>, Option<Token>) = (None, None);
        while let Some(token) = tokens.next() {
            let is_used = match token.kind {
                TokenKind::Literal => self.may_be_in_string(token.text, reading, nesting),
                TokenKind::Symbol if token.is(":") => {
                    let casts = previous.is_some_and(|token| token.is(":"));
                    casts && self.is_cast(before, &tokens)
                }
                // Code that is stored is not called by that.
                TokenKind::Symbol if token.is("(") && !matches!(reading, Reading::Stored) => {
                    let called = previous.as_ref().and_then(part);
                    called.is_some_and(|name| self.routines.contains(&name))
                }
                _ if token.is("as") => self.is_cast(previous, &tokens),
                _ => token.is("execute") && matches!(reading, Reading::Run),
            };
            if is_used {
                return true;
            }
            (before, previous) = (previous, Some(token));
        }
        false
    }

    /// Whether what comes next is the enum's name, and the operand of the cast is no string.
    fn is_cast(&self, operand: Option<Token>, next: &Tokens) -> bool {
        let target = name(&mut next.clone()).pop();
        target.is_some_and(|name| name == self.enum_name)
            && operand.is_none_or(|operand| operand.kind != TokenKind::Literal)
    }

    fn may_be_in_string(&self, literal: &str, reading: Reading, nesting: usize) -> bool {
        let content = unquoted(literal);
        let is_word_in = |label: &String| {
            let is_part = |char: char| char.is_alphanumeric() || char == '_';
            content.match_indices(label.as_str()).any(|(at, _)| {
                let (before, after) = content.split_at(at);
                let after = after.get(label.len()..).unwrap_or_default();
                !before.ends_with(is_part) && !after.starts_with(is_part)
            })
        };
        match reading {
            // Code is full of words.
            Reading::Stored | Reading::Run if nesting > 0 => {
                self.label.as_ref() == Some(&content)
                    || self.may_be_in(&content, reading, nesting - 1)
            }
            _ => self.label.as_ref().is_none_or(is_word_in) || has_escapes(literal),
        }
    }
}

/// Whether a string may be written with other characters than its own.
fn has_escapes(literal: &str) -> bool {
    match literal.as_bytes() {
        [b'u' | b'U', b'&', ..] => true,
        [b'e' | b'E', ..] => {
            let mut rest = literal.chars();
            while rest.find(|&char| char == '\\').is_some() {
                if !rest.next().is_some_and(|char| "\\'bfnrt".contains(char)) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the last statement may use the value that the first `ADD VALUE` adds.
    fn may_use(sql: &str) -> bool {
        let script = Script::parse(sql);
        let count = script.statements().len();
        let routines = script.routines();
        let mut statements = script.statements().iter();
        let value = statements.find_map(|statement| statement.enum_value(&routines)).unwrap();
        script.statements().get(count - 1).unwrap().may_use(&value)
    }

    #[test]
    fn a_statement_that_may_use_a_new_value_is_recognized() {
        for sql in [
            "insert into t values ('done')",
            "create table t (s state default 'done'::state)",
            "update t set a = '{open,done}'",
            "select E'd\\x6fne', 1",
            "select U&'\\0064one'",
            "select $$done$$",
            "select cast('done' as state)",
            "copy t from stdin",
            "alter table t alter s type state using s::text::\"public\".\"state\"",
            "insert into t select cast(name as public.state) from names",
            "select enum_range(null::state)",
            "do $$ begin insert into t values ('done'); end $$",
            "do 'begin insert into t values (''done''); end'",
            "do $$ begin execute 'insert into t select ' || x from y; end $$",
            "do $$ begin update t set s = name::state; end $$",
            "create function f(s state default 'done') returns int language sql as 'select 1'",
            "create function f() returns state language sql as $$ select 'done'::state $$",
        ] {
            assert!(may_use(&format!("alter type state add value 'done'; {sql}")), "{sql}");
        }
        let routine = "create function f() returns state language plpgsql as \
            $$ begin return 'done'; end $$; alter type state add value 'done';";
        assert!(may_use(&format!("{routine} insert into t values (F())")));
        assert!(may_use("alter type state add value E'd\\157ne'; select 'open'"));
    }

    #[test]
    fn a_statement_that_cannot_use_a_new_value_is_recognized() {
        for sql in [
            "alter table t add column slug text not null default 'undone'",
            "create table t (s state default 'open'::state, done boolean)",
            "comment on table t is 'open, done'",
            "do $$ begin alter table a add foreign key (done) references b; \
             exception when duplicate_object then null; end $$",
            "create type other as enum ('open', 'not_done')",
            "create index done on t (s) where s = 'open'",
            "create function f() returns int language plpgsql as $$ begin execute 'a'; end $$",
            "insert into t values (E'a\\nb', 'it''s')",
            "select s::text, cast(s as text) from t",
        ] {
            assert!(!may_use(&format!("alter type \"state\" add value 'done'; {sql}")), "{sql}");
        }
    }

    fn added_value(sql: &str) -> Option<EnumValue> {
        Script::parse(sql).statements().first().unwrap().added_value()
    }

    #[test]
    fn an_added_value_keeps_its_quotes_for_messages() {
        for text in [
            "alter type a add value 'b''c'",
            "ALTER TYPE a.\"value\" ADD VALUE IF NOT EXISTS 'b''c' BEFORE 'd'",
        ] {
            let literal = added_value(text).map(|value| value.literal);
            assert_eq!(literal.as_deref(), Some("'b''c'"), "{text}");
        }
        assert_eq!(added_value("alter type a add value"), None);
    }
}
