//! `ALTER TYPE ... ADD VALUE`, and which statements may use the new value before it is committed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::lexer::{Token, TokenKind};
use super::script::{Script, Statement};
use super::settings::unquoted;
use super::statement_target::{name, part};
use super::tokens::Tokens;

/// A value that a statement adds to an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewValue {
    /// The index of the statement in its script.
    pub index: usize,
    /// Where the statement begins.
    pub start: usize,
    /// As the file has it, in quotes.
    pub literal: String,
}

/// The values that a transaction has added to enums, and that none of its later statements may use
/// so far. A statement is read once, however many values there are.
#[derive(Debug)]
pub struct NewValues<'s, 'a> {
    script: &'s Script<'a>,
    /// By the index of the statement that adds it.
    values: BTreeMap<usize, NewValue>,
    /// Their indexes by the label. An entry that a statement uses is taken out, here and below.
    by_label: HashMap<String, Vec<usize>>,
    /// The lengths of the labels.
    lengths: BTreeSet<usize>,
    /// The indexes of those whose label is not known, since it is written with escapes.
    escaped: Vec<usize>,
    /// Their indexes by the last part of the enum's name.
    by_enum: HashMap<String, Vec<usize>>,
    /// The script's functions and procedures, by the last part of the name: the statements that
    /// create them. Only once there is a value.
    routines: Option<HashMap<String, Vec<&'a str>>>,
    /// The names of routines that may use none of the values.
    harmless: HashSet<String>,
}

/// How deep strings of code in strings of code are read.
const MAX_NESTING: usize = 4;

/// How a text may use a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Its strings are values.
    Plain,
    /// Its strings are code too, which is stored.
    Stored,
    /// Its strings are code too, which runs, and may run computed SQL.
    Run,
    /// Like `Run`, but what it calls is not read.
    Called,
}

impl<'s, 'a> NewValues<'s, 'a> {
    pub fn of(script: &'s Script<'a>) -> NewValues<'s, 'a> {
        NewValues {
            script,
            values: BTreeMap::new(),
            by_label: HashMap::new(),
            lengths: BTreeSet::new(),
            escaped: Vec::new(),
            by_enum: HashMap::new(),
            routines: None,
            harmless: HashSet::new(),
        }
    }

    /// Adds the value of the script's statement at this index, which is a
    /// [`Kind::AddEnumValue`](super::Kind::AddEnumValue).
    pub fn add(&mut self, index: usize, statement: &Statement<'_>) {
        let Some((enum_name, literal)) = statement.added_value() else { return };
        self.routines.get_or_insert_with(|| self.script.routines());
        self.harmless.clear();
        self.by_enum.entry(enum_name).or_default().push(index);
        if has_escapes(literal) {
            self.escaped.push(index);
        } else {
            let label = unquoted(literal);
            self.lengths.insert(label.len());
            self.by_label.entry(label).or_default().push(index);
        }
        let literal = literal.to_owned();
        self.values.insert(index, NewValue { index, start: statement.start, literal });
    }

    /// Forgets all: the transaction has ended.
    pub fn clear(&mut self) {
        self.values.clear();
        self.by_label.clear();
        self.lengths.clear();
        self.escaped.clear();
        self.by_enum.clear();
    }

    /// Takes out the values that a later statement of the transaction may use: the value stands in a
    /// string or may come with COPY, something other than a string is cast to the enum, or code runs
    /// that may compute it.
    pub fn take_used(&mut self, statement: &Statement<'_>) -> Vec<NewValue> {
        if self.values.is_empty() {
            return Vec::new();
        }
        let mut tokens = Tokens::new(statement.text);
        if tokens.accept("comment") {
            return Vec::new();
        }
        let mut used = Vec::new();
        let uses_all = if tokens.accept("copy") {
            true
        } else {
            let reading = if tokens.accept("do") {
                Reading::Run
            } else if statement.created_routine().is_some() {
                Reading::Stored
            } else {
                Reading::Plain
            };
            self.uses_all(statement.text, reading, MAX_NESTING, &mut used)
        };
        if uses_all {
            let all = std::mem::take(&mut self.values);
            self.clear();
            return all.into_values().collect();
        }
        used.sort_unstable();
        used.into_iter().filter_map(|index| self.values.remove(&index)).collect()
    }

    /// Whether a text may use every value; if not, those that it may use are now in `used`, too.
    fn uses_all(
        &mut self,
        text: &str,
        reading: Reading,
        nesting: usize,
        used: &mut Vec<usize>,
    ) -> bool {
        let mut tokens = Tokens::new(text);
        let (mut before, mut previous): (Option<Token>, Option<Token>) = (None, None);
        while let Some(token) = tokens.next() {
            let uses_all = match token.kind {
                TokenKind::Literal => self.string_uses_all(token.text, reading, nesting, used),
                TokenKind::Symbol if token.is(":") => {
                    if previous.is_some_and(|token| token.is(":")) {
                        self.find_cast(before, &tokens, used);
                    }
                    false
                }
                // Code that is stored is not called by that.
                TokenKind::Symbol
                    if token.is("(") && matches!(reading, Reading::Plain | Reading::Run) =>
                {
                    let called = previous.as_ref().and_then(part);
                    called.is_some_and(|name| self.routine_uses_all(name, used))
                }
                _ if token.is("as") => {
                    self.find_cast(previous, &tokens, used);
                    false
                }
                _ => token.is("execute") && matches!(reading, Reading::Run | Reading::Called),
            };
            if uses_all {
                return true;
            }
            (before, previous) = (previous, Some(token));
        }
        false
    }

    /// The same of the routines of the file with this name.
    fn routine_uses_all(&mut self, name: String, used: &mut Vec<usize>) -> bool {
        if self.harmless.contains(&name) {
            return false;
        }
        let routines = self.routines.as_ref().and_then(|routines| routines.get(&name));
        let Some(code) = routines.cloned() else { return false };
        // What it uses is found now, and the others are not used by another call of it either.
        self.harmless.insert(name);
        code.into_iter().any(|code| self.uses_all(code, Reading::Called, MAX_NESTING, used))
    }

    /// The same of a string.
    fn string_uses_all(
        &mut self,
        literal: &str,
        reading: Reading,
        nesting: usize,
        used: &mut Vec<usize>,
    ) -> bool {
        let content = unquoted(literal);
        if reading != Reading::Plain && nesting > 0 {
            // Code is full of words.
            used.extend(self.by_label.remove(&content).into_iter().flatten());
            return self.uses_all(&content, reading, nesting - 1, used);
        }
        if has_escapes(literal) {
            return true;
        }
        used.append(&mut self.escaped);
        self.find_words(&content, used);
        false
    }

    /// Finds the labels that stand in a string, and are no part of a longer word.
    fn find_words(&mut self, content: &str, used: &mut Vec<usize>) {
        let is_part = |char: char| char.is_alphanumeric() || char == '_';
        let mut is_in_word = false;
        let starts = content.char_indices().map(|(at, char)| (at, Some(char)));
        for (at, char) in starts.chain([(content.len(), None)]) {
            let rest = content.get(at..).unwrap_or_default();
            if !is_in_word {
                for length in self.lengths.range(..=rest.len()) {
                    let Some((label, after)) = rest.split_at_checked(*length) else { continue };
                    if !after.starts_with(is_part) {
                        used.extend(self.by_label.remove(label).into_iter().flatten());
                    }
                }
            }
            is_in_word = char.is_some_and(is_part);
        }
    }

    /// Finds the values of the enum whose name comes next, if the operand of the cast is no string.
    fn find_cast(&mut self, operand: Option<Token>, next: &Tokens, used: &mut Vec<usize>) {
        if operand.is_some_and(|operand| operand.kind == TokenKind::Literal) {
            return;
        }
        let target = name(&mut next.clone()).pop();
        let values = target.and_then(|name| self.by_enum.remove(&name));
        used.extend(values.into_iter().flatten());
    }
}

impl<'a> Script<'a> {
    /// The statements that create functions and procedures, by the last part of the name.
    fn routines(&self) -> HashMap<String, Vec<&'a str>> {
        let mut routines: HashMap<_, Vec<_>> = HashMap::new();
        for statement in self.statements().iter() {
            if let Some(name) = statement.created_routine() {
                routines.entry(name).or_default().push(statement.text);
            }
        }
        routines
    }
}

impl<'a> Statement<'a> {
    /// The last part of an enum's name, and the value that the statement adds to it, in quotes.
    fn added_value(&self) -> Option<(String, &'a str)> {
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
        Some((enum_name, literal))
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
    use crate::sql::Kind;

    /// The added values that later statements may use: each with the number of that statement.
    fn used(sql: &str) -> Vec<String> {
        let script = Script::parse(sql);
        let (mut values, mut used) = (NewValues::of(&script), Vec::new());
        for (index, statement) in script.statements().iter().enumerate() {
            if statement.kind == Kind::AddEnumValue {
                values.add(index, &statement);
                continue;
            }
            let taken = values.take_used(&statement).into_iter();
            used.extend(taken.map(|value| format!("{} in {}", value.literal, index + 1)));
        }
        used
    }

    fn may_use(sql: &str) -> bool {
        !used(sql).is_empty()
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

    #[test]
    fn each_value_is_found_once_in_the_first_statement_that_may_use_it() {
        let add = "alter type s add value 'a'; alter type t add value 'a b'; \
            alter type s add value E'\\x63'; alter type s add value '';";
        for (sql, expected) in [
            ("select 'x'; select 'a b c'", &["E'\\x63' in 5", "'a' in 6", "'a b' in 6"][..]),
            ("select 'xa b', 'a_', 'ab'; select ''", &["E'\\x63' in 5", "'' in 6"]),
            ("do $$ begin perform 'a b c', 'a'; end $$; select 1", &["'a' in 5"]),
            ("select x::s; select x::t", &["'a' in 5", "E'\\x63' in 5", "'' in 5", "'a b' in 6"]),
            (
                "select 'a'; copy t from stdin",
                &["'a' in 5", "E'\\x63' in 5", "'a b' in 6", "'' in 6"],
            ),
        ] {
            assert_eq!(used(&format!("{add}{sql}")), expected, "{sql}");
        }
        let routine = "create function f() returns s language sql as $$ select 'a' $$;";
        let sql = format!("{routine} {add} select f(); alter type u add value 'a'; select f()");
        assert_eq!(used(&sql), ["'a' in 6", "'a' in 8"]);
    }

    #[test]
    fn an_added_value_keeps_its_quotes_for_messages() {
        for text in [
            "alter type a add value 'b''c'",
            "ALTER TYPE a.\"value\" ADD VALUE IF NOT EXISTS 'b''c' BEFORE 'd'",
        ] {
            assert_eq!(used(&format!("{text}; select 'b''c'")), ["'b''c' in 2"], "{text}");
        }
        assert!(!may_use("alter type a add value; select 'b'"));
    }
}
