//! What statements set for their session: by their own text, or by code in them that computes it.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, TokenKind};
use super::quote;
use super::script::Statement;
use super::statement_target::name;
use super::tokens::Tokens;

/// `SET`, `RESET` or `set_config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStatement {
    /// The setting in lower case; `all` for `RESET ALL`.
    pub name: String,
    /// Whether the setting goes back to the value that the session began with.
    pub resets: bool,
}

/// How long a change of the search path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    ForSession,
    UntilTransactionEnds,
}

impl SetStatement {
    /// Whether it decides who the session acts as, and so what later statements may set.
    fn is_about_role(&self) -> bool {
        is_role(&self.name)
    }
}

/// The values of settings, by name, at one moment. `None` for a setting that does not exist.
pub type SettingValues = BTreeMap<String, Option<String>>;

/// The settings to which a statement gives values that its text does not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ComputedSettings {
    pub names: Vec<String>,
    /// Whether there may be others, whose names are computed too.
    pub unnamed: bool,
    /// Whether they are in the code of a routine that it creates, and so get their values later.
    pub in_routine: bool,
}

/// How deep strings of code in strings of code are read.
const MAX_NESTING: usize = 4;

impl Statement<'_> {
    /// For [`Kind::Setting`](super::Kind::Setting).
    pub fn set_statement(&self) -> Option<SetStatement> {
        let mut tokens = Tokens::new(self.text);
        if tokens.accept("set") {
            let name = setting_name(&mut tokens)?;
            tokens.accept_any(&["to", "="]);
            let resets = tokens.accept_any(&["default", "none", "local"]) && tokens.is_at_end();
            Some(SetStatement { name, resets })
        } else if tokens.accept("reset") {
            Some(SetStatement { name: setting_name(&mut tokens)?, resets: true })
        } else {
            while let Some(token) = tokens.next() {
                if token.is("set_config") && tokens.accept("(") {
                    let name = tokens.next()?.text.trim_matches('\'').to_ascii_lowercase();
                    return Some(SetStatement { name, resets: false });
                }
            }
            None
        }
    }

    pub fn is_set_local(&self) -> bool {
        let mut tokens = Tokens::new(self.text);
        tokens.accept("set") && tokens.accept("local")
    }

    /// How long the search path holds that the statement sets; `None` if it sets none.
    pub fn search_path_change(&self) -> Option<PathChange> {
        let mut tokens = Tokens::new(self.text);
        let is_local = match (tokens.accept("set"), tokens.accept("reset")) {
            (true, _) => {
                let is_local = tokens.accept("local");
                tokens.accept("session");
                is_local
            }
            (false, true) => false,
            (false, false) => return None,
        };
        let name = name(&mut tokens).concat().to_ascii_lowercase();
        let is_path = matches!(name.as_str(), "search_path" | "schema" | "all");
        is_path.then_some(match is_local {
            true => PathChange::UntilTransactionEnds,
            false => PathChange::ForSession,
        })
    }

    /// The settings that the statement may change for the session without being a
    /// [`Kind::Setting`](super::Kind::Setting): `set_config` of what is computed, also in the code
    /// of a DO block. The code of a function counts too, since a later statement may call it.
    pub fn computed_settings(&self) -> ComputedSettings {
        if !self.text.as_bytes().windows(3).any(|word| word.eq_ignore_ascii_case(b"set")) {
            return ComputedSettings::default();
        }
        let mut tokens = Tokens::new(self.text);
        let is_do = tokens.accept("do");
        let creates = tokens.accept("create");
        if creates && tokens.accept("or") {
            tokens.accept("replace");
        }
        let creates_routine = creates && tokens.accept_any(&["function", "procedure"]);
        let nesting = if is_do || creates_routine { MAX_NESTING } else { 0 };
        let mut computed = ComputedSettings::default();
        computed.read(self.text, nesting);
        // The names of a function's settings may be its arguments.
        computed.unnamed &= !creates_routine;
        computed.in_routine = creates_routine;
        computed
    }
}

impl ComputedSettings {
    /// Reads code, and the code in its strings down to this depth.
    fn read(&mut self, code: &str, nesting: usize) {
        let mut tokens = Tokens::new(code);
        let mut previous: Option<Token> = None;
        // For each open parenthesis, the name in it where it belongs to a set_config; the name is
        // empty where it is computed.
        let mut open: Vec<Option<String>> = Vec::new();
        while let Some(token) = tokens.next() {
            let begins = previous.is_none_or(|token| ends_statement(&token));
            if token.is("(") {
                let is_call = previous.is_some_and(|token| token.is("set_config"));
                open.push(is_call.then(|| literal_argument(tokens.clone()).unwrap_or_default()));
            } else if token.is(")") {
                let is_local = previous.is_some_and(|token| token.is("true"));
                if let Some(name) = open.pop().flatten().filter(|_| !is_local) {
                    self.add(name);
                }
            } else if begins && (token.is("set") || token.is("reset")) {
                let mut tokens = tokens.clone();
                let name = setting_name(&mut tokens);
                let sets = token.is("reset") || tokens.accept_any(&["to", "="]);
                if let Some(name) = name.filter(|name| has_value(name) && (sets || is_role(name))) {
                    self.add(name);
                }
            } else if token.kind == TokenKind::Literal && nesting > 0 {
                self.read(&unquoted(token.text), nesting - 1);
            }
            previous = Some(token);
        }
    }

    fn add(&mut self, name: String) {
        if name.is_empty() {
            self.unnamed = true;
        } else if !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

/// The settings that decide what SQL means or where it goes. docs/rules.md says why each is among
/// them. The two that decide how SQL is read cannot be changed at all, and are not.
const MEANING: [&str; 26] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "createrole_self_grant",
    "datestyle",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "event_triggers",
    "extra_float_digits",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "password_encryption",
    "role",
    "row_security",
    "search_path",
    "session_authorization",
    "session_replication_role",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

/// Whether other SQL means something else under this setting, such as `search_path`, unlike under a
/// time limit. A name with a dot is one that SQL itself reads, or an extension.
pub fn changes_meaning(name: &str) -> bool {
    name.contains('.') || MEANING.contains(&name)
}

pub fn is_role(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}

/// Whether a statement begins after this token of PL/pgSQL.
fn ends_statement(token: &Token) -> bool {
    token.is(";") || ["begin", "then", "else", "loop"].iter().any(|word| token.is(word))
}

/// The lower-case content of a plain string that is the whole next argument.
fn literal_argument(mut tokens: Tokens) -> Option<String> {
    let literal = tokens.next_if(|token| token.kind == TokenKind::Literal)?;
    let content = literal.text.strip_prefix('\'')?.strip_suffix('\'')?;
    tokens.accept(",").then(|| content.to_ascii_lowercase())
}

/// The content of a string. Backslashes are left as they are.
pub(super) fn unquoted(literal: &str) -> String {
    if let Some(tag) = super::lexer::dollar_tag(literal) {
        let body = literal.get(tag.len()..).unwrap_or_default();
        return body.strip_suffix(tag).unwrap_or(body).to_owned();
    }
    let content = literal.split_once('\'').map_or("", |(_, content)| content);
    content.strip_suffix('\'').unwrap_or(content).replace("''", "'")
}

/// The name after SET or RESET, in lower case and as `current_setting` has it. `None` for what ends
/// with the transaction, or is no setting.
fn setting_name(tokens: &mut Tokens) -> Option<String> {
    if tokens.accept("local") {
        return None;
    }
    if tokens.accept("session") && tokens.accept("authorization") {
        return Some("session_authorization".to_owned());
    }
    if tokens.accept("time") {
        tokens.accept("zone");
        return Some("timezone".to_owned());
    }
    let name = name(tokens).join(".").to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// Whether a value of this setting can be read and set again.
pub fn has_value(name: &str) -> bool {
    !matches!(name, "all" | "characteristics" | "names" | "seed" | "xml")
}

/// SQL that sets a setting for the session to a value that was read in another one.
pub fn set_value(name: &str, value: &str) -> (SetStatement, String) {
    let resets = name == "role" && value == "none";
    let sql = match resets {
        true => "reset role".to_owned(),
        false => {
            let (name, value) = (quote::literal(name), quote::literal(value));
            format!("select pg_catalog.set_config({name}, {value}, false)")
        }
    };
    (SetStatement { name: name.to_owned(), resets }, sql)
}

/// Settings made one after the other, less those that a later one has made void.
#[derive(Clone, Debug)]
pub struct SettingsInEffect<T> {
    /// By number, in the order in which they were made.
    made: BTreeMap<usize, (Option<SetStatement>, T)>,
    /// The numbers of those of each name: several only of a role.
    by_name: BTreeMap<String, BTreeSet<usize>>,
    next: usize,
}

impl<T> SettingsInEffect<T> {
    pub fn none() -> SettingsInEffect<T> {
        SettingsInEffect { made: BTreeMap::new(), by_name: BTreeMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.made.len()
    }

    pub fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Adds a setting. `None` stands for another command that lasts as long as the session.
    pub fn add(&mut self, set: Option<SetStatement>, what: T) {
        match &set {
            Some(set) if set.name == "all" => {
                self.remove_all_but_roles();
                return;
            }
            // What was set under another role may need that role again: only a role that nothing
            // was set under is void.
            Some(set) if set.is_about_role() => {
                let last = self.made.last_key_value().map(|(number, _)| *number);
                if let Some(last) = last.filter(|last| self.numbers(&set.name).contains(last)) {
                    self.remove(last);
                }
                if set.resets && self.numbers(&set.name).is_empty() {
                    return;
                }
            }
            Some(set) => {
                self.numbers(&set.name).into_iter().for_each(|number| self.remove(number));
                if set.resets {
                    return;
                }
            }
            None => {}
        }
        if let Some(set) = &set {
            self.by_name.entry(set.name.clone()).or_default().insert(self.next);
        }
        self.made.insert(self.next, (set, what));
        self.next += 1;
    }

    fn numbers(&self, name: &str) -> BTreeSet<usize> {
        self.by_name.get(name).cloned().unwrap_or_default()
    }

    fn remove(&mut self, number: usize) {
        let Some((set, _)) = self.made.remove(&number) else { return };
        if let Some(SetStatement { name, .. }) = set
            && let Some(numbers) = self.by_name.get_mut(&name)
        {
            numbers.remove(&number);
        }
        // Perhaps it was what the role before it was needed for.
        let role = |made: Option<(&usize, &(Option<SetStatement>, T))>| {
            let (number, (set, _)) = made?;
            let set = set.as_ref().filter(|set| set.is_about_role())?;
            Some((*number, set.clone()))
        };
        let before = role(self.made.range(..number).next_back());
        let Some((after, set)) = role(self.made.range(number..).next()) else { return };
        match before.filter(|(_, before)| before.name == set.name) {
            Some((before, _)) => self.remove(before),
            None if set.resets && self.numbers(&set.name).first() == Some(&after) => {
                self.remove(after);
            }
            None => {}
        }
    }

    /// RESET ALL resets no role.
    fn remove_all_but_roles(&mut self) {
        let numbers = self.by_name.iter().filter(|(name, _)| !is_role(name));
        let numbers: Vec<usize> = numbers.flat_map(|(_, numbers)| numbers).copied().collect();
        numbers.into_iter().for_each(|number| self.remove(number));
    }

    /// What has to be made again, in this order, to have the same settings.
    pub fn to_repeat(self) -> impl Iterator<Item = T> {
        self.made.into_values().map(|(_, what)| what)
    }

    /// Those whose values are not the ones that the session began with.
    pub fn changed(&self) -> impl Iterator<Item = (Option<&SetStatement>, &T)> {
        let is_last = |name: &str, number| {
            self.by_name.get(name).is_none_or(|numbers| numbers.last() == Some(number))
        };
        let changed = self.made.iter().filter(move |(number, (set, _))| {
            set.as_ref().is_none_or(|set| !set.resets && is_last(&set.name, number))
        });
        changed.map(|(_, (set, what))| (set.as_ref(), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Kind;

    fn statement(text: &str) -> Statement<'_> {
        Statement { text, start: 0, piece: 0..text.len(), kind: Kind::Plain }
    }

    #[test]
    fn a_set_statement_names_its_setting_and_whether_it_resets_it() {
        for (text, name, resets) in [
            ("set search_path = a, b", "search_path", false),
            ("SET SESSION Work_Mem TO '1MB'", "work_mem", false),
            ("set a.b to c", "a.b", false),
            ("set a to default", "a", true),
            ("set a to default_, b", "a", false),
            ("set time zone 'UTC'", "timezone", false),
            ("set time zone local", "timezone", true),
            ("reset time zone", "timezone", true),
            ("set role a", "role", false),
            ("set role none", "role", true),
            ("reset role", "role", true),
            ("set session authorization a", "session_authorization", false),
            ("reset session authorization", "session_authorization", true),
            ("reset all", "all", true),
            ("select pg_catalog.set_config('Search_path', '', false)", "search_path", false),
        ] {
            let expected = Some(SetStatement { name: name.to_owned(), resets });
            assert_eq!(statement(text).set_statement(), expected, "{text}");
        }
        assert_eq!(statement("set").set_statement(), None);
        assert_eq!(statement("select 1").set_statement(), None);
    }

    #[test]
    fn a_change_of_the_search_path_is_seen_with_how_long_it_holds() {
        let session = Some(PathChange::ForSession);
        for (text, expected) in [
            ("set search_path = a, b", session),
            ("SET SESSION Search_Path TO a", session),
            ("set \"search_path\" to default", session),
            ("set schema 'a'", session),
            ("reset search_path", session),
            ("reset all", session),
            ("set local search_path = a", Some(PathChange::UntilTransactionEnds)),
            ("set work_mem = '1MB'", None),
            ("set role a", None),
            ("select set_config('search_path', '', false)", None),
            ("", None),
        ] {
            assert_eq!(statement(text).search_path_change(), expected, "{text}");
        }
    }

    #[test]
    fn what_code_may_set_for_the_session_is_named() {
        for (text, names) in [
            ("select set_config('A.b', current_setting('c'), false)", "a.b"),
            (
                "select set_config('a', set_config('b', now()::text, false), is_local => false)",
                "b a",
            ),
            ("select set_config('a', 'b', true), set_config('c', 'd', f)", "c"),
            ("insert into t select set_config('a' , x, false) from y", "a"),
            ("do $$ begin perform set_config('a', (select b from c), false); end $$", "a"),
            ("do $$ begin set search_path to a; set local b = c; reset d; end $$", "search_path d"),
            ("do $$ begin if a then set session role b; end if; end $$", "role"),
            ("do 'begin execute ''set a to '' || b; end'", "a"),
            ("create or replace function f() as $$ begin set a = b; end $$", "a"),
            ("do $$ begin update t set role = 'a'; set constraints all deferred; end $$", ""),
            ("create function f() set search_path = a as $$ select 1 $$", ""),
            ("create function f(a text) as $$ select set_config(a, 'b', false) $$", ""),
            ("insert into t values ('set a = b; select set_config(''a'', x, false)')", ""),
            ("update t set a = b", ""),
            ("select set_config(a, 'b', false)", "?"),
            ("do $$ begin perform set_config('a.' || b, 'c', false); end $$", "?"),
        ] {
            let ComputedSettings { names: found, unnamed, .. } =
                statement(text).computed_settings();
            let found = if unnamed { "?".to_owned() } else { found.join(" ") };
            assert_eq!(found, names, "{text}");
        }
    }

    #[test]
    fn a_setting_that_is_made_again_and_again_is_kept_once() {
        let mut settings = SettingsInEffect::none();
        for _ in 0..1000 {
            for text in ["set role a", "set b = c", "reset role", "set session authorization d"] {
                settings.add(statement(text).set_statement(), text);
            }
        }
        assert!(settings.len() < 8, "{}", settings.len());
    }

    #[test]
    fn docs_rules_md_has_the_settings_that_change_the_meaning_of_sql() {
        let document = include_str!("../../docs/rules.md");
        let (_, rest) = document.split_once("\n## Leftover settings\n").unwrap();
        let table = rest.split("\n## ").next().unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let names =
            rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        assert_eq!(names, MEANING);
        assert!(changes_meaning("app.tenant") && !changes_meaning("lock_timeout"));
    }

    /// What is to be repeated, and after `|` the settings that are changed.
    fn in_effect(sql: &str) -> String {
        let mut settings = SettingsInEffect::none();
        let texts: Vec<&str> = sql.split("; ").collect();
        for text in texts {
            settings.add(statement(text).set_statement(), text);
        }
        let changed: Vec<&str> =
            settings.changed().filter_map(|(set, _)| Some(&*set?.name)).collect();
        let changed = changed.join(" ");
        format!("{} | {changed}", settings.to_repeat().collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_setting_that_was_made_void_is_not_repeated() {
        for (sql, expected) in [
            ("set a = b; reset a", " | "),
            ("set a = b; set c = d; set a = e", "set c = d; set a = e | c a"),
            ("set a = b; set role c; reset all", "set role c | role"),
            ("set role a; reset role; set b = c", "set b = c | b"),
            ("set role a; set role b", "set role b | role"),
            ("set role a; set b = c; reset b; reset role", " | "),
            ("set role a; set b = c; reset role", "set role a; set b = c; reset role | b"),
            ("load 'a'; reset all", "load 'a' | "),
            (
                "set role a; set b = c; reset role; set role d; set b = e; reset role",
                "set role d; set b = e; reset role | b",
            ),
            ("set role a; set b = c; reset role; reset b", " | "),
            (
                "set session authorization a; set role b; set c = d; reset session authorization; \
                 reset role; set c = e",
                "set session authorization a; set role b; reset session authorization; \
                 reset role; set c = e | c",
            ),
        ] {
            assert_eq!(in_effect(sql), expected, "{sql}");
        }
    }
}
