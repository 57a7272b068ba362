//! What a statement is about, read off its own text: the tables and schemas it names first, the
//! setting it changes, the enum value it adds. Good for a remark to a person; nothing is run or
//! refused for it.

use super::lexer::{Token, TokenKind};
use super::statement_kind::Tokens;

/// What a statement does to a table or a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it touches it.
    pub touch: Touch,
    /// Whether it is a schema, not a table.
    pub schema: bool,
    /// Its name as the server understands it, in parts.
    pub name: Vec<String>,
}

/// How a statement touches a table or a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// CREATE
    Create,
    /// ALTER
    Alter,
    /// DROP
    Drop,
    /// INSERT, UPDATE, DELETE, TRUNCATE
    Write,
}

/// A setting that a statement changes for the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStatement {
    /// Its name; `all` for all of them.
    pub name: String,
    /// Whether it is changed back to what the session began with.
    pub back: bool,
}

pub(super) fn changes(statement: &str) -> Vec<Change> {
    let mut words = Tokens::of(statement);
    let Some((touch, schema)) = touch(&mut words) else { return Vec::new() };
    let mut changes = Vec::new();
    loop {
        words.eat("only");
        let name = name(&mut words);
        if name.is_empty() {
            break;
        }
        changes.push(Change { touch, schema, name });
        words.eat("*");
        // Only DROP and TRUNCATE go on with further names.
        if !matches!(touch, Touch::Drop | Touch::Write) || !words.eat(",") {
            break;
        }
    }
    changes
}

fn touch(words: &mut Tokens) -> Option<(Touch, bool)> {
    if words.eat("insert") {
        return words.eat("into").then_some((Touch::Write, false));
    }
    if words.eat("delete") {
        return words.eat("from").then_some((Touch::Write, false));
    }
    if words.eat("update") {
        return Some((Touch::Write, false));
    }
    if words.eat("truncate") {
        words.eat("table");
        return Some((Touch::Write, false));
    }
    let touch = if words.eat("create") {
        words.eat("unlogged");
        Touch::Create
    } else if words.eat("alter") {
        Touch::Alter
    } else if words.eat("drop") {
        Touch::Drop
    } else {
        return None;
    };
    let schema = words.eat("schema");
    if !schema && !words.eat("table") {
        return None;
    }
    if words.eat("if") {
        words.eat("not");
        words.eat("exists");
    }
    Some((touch, schema))
}

pub(super) fn set_statement(statement: &str) -> Option<SetStatement> {
    let mut words = Tokens::of(statement);
    if words.eat("set") {
        words.eat("session");
        let name = setting(&mut words)?;
        words.eat_any(&["to", "="]);
        let back = words.eat_any(&["default", "none", "local"]) && words.0.next().is_none();
        Some(SetStatement { name, back })
    } else if words.eat("reset") {
        words.eat("session");
        Some(SetStatement { name: setting(&mut words)?, back: true })
    } else {
        while let Some(word) = words.0.next() {
            if word.is("set_config") && words.eat("(") {
                let name = words.0.next()?.text.trim_matches('\'').to_ascii_lowercase();
                return Some(SetStatement { name, back: false });
            }
        }
        None
    }
}

fn setting(words: &mut Tokens) -> Option<String> {
    if words.eat("time") {
        words.eat("zone");
        return Some("timezone".to_owned());
    }
    let name = name(words).join(".").to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

pub(super) fn enum_value(statement: &str) -> Option<&str> {
    let mut words = Tokens::of(statement);
    words.0.find(|word| word.is("value"))?;
    let _ = words.eat("if") && words.eat("not") && words.eat("exists");
    words.0.next_if(|token| token.kind == TokenKind::Literal).map(|literal| literal.text)
}

/// How a transaction is asked to be, as far as it must be known when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// `serializable`, ...; none is the usual one.
    pub isolation: Option<&'static str>,
    /// DEFERRABLE, or NOT.
    pub deferrable: Option<bool>,
    /// READ ONLY, in which no history row can be written.
    pub read_only: bool,
}

pub(super) fn modes(statement: &str) -> Modes {
    let mut words = Tokens::of(statement);
    let mut modes = Modes::default();
    while let Some(word) = words.0.next() {
        if word.is("level") {
            modes.isolation = if words.eat("serializable") {
                Some("serializable")
            } else if words.eat("repeatable") {
                Some("repeatable read")
            } else if words.eat("read") && words.eat("uncommitted") {
                Some("read uncommitted")
            } else {
                None
            };
        } else if word.is("not") && words.eat("deferrable") {
            modes.deferrable = Some(false);
        } else if word.is("deferrable") {
            modes.deferrable = Some(true);
        } else if word.is("read") {
            modes.read_only = words.eat("only");
        }
    }
    modes
}

pub(super) fn chains(statement: &str) -> bool {
    let mut words = Tokens::of(statement);
    words.0.next();
    words.eat_any(&["work", "transaction"]);
    words.eat("and") && words.eat("chain")
}

pub(super) fn enum_name(statement: &str) -> Option<Vec<String>> {
    let mut words = Tokens::of(statement);
    let creates = words.eat("create");
    if !(creates || words.eat("alter")) || !words.eat("type") {
        return None;
    }
    let name = name(&mut words);
    (!creates || (words.eat("as") && words.eat("enum"))).then_some(name)
}

/// What a concurrent build or drop is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The index, in its parts; where the server is to choose the name of a new one, none.
    pub name: Option<Vec<String>>,
    /// The table that a new index is on, in its parts; none for one that is dropped.
    pub table: Option<Vec<String>>,
}

pub(super) fn index(statement: &str) -> Option<Index> {
    let mut words = Tokens::of(statement);
    let creates = words.eat("create");
    if !(creates || words.eat("drop")) {
        return None;
    }
    words.eat("unique");
    if !words.eat("index") || !words.eat("concurrently") {
        return None;
    }
    if words.eat("if") {
        words.eat("not");
        words.eat("exists");
    }
    if !creates {
        return Some(Index { name: Some(whole_name(&mut words)?), table: None });
    }
    let index = if words.eat("on") {
        None
    } else {
        let index = whole_name(&mut words)?;
        words.eat("on").then_some(Some(index))?
    };
    words.eat("only");
    Some(Index { name: index, table: Some(whole_name(&mut words)?) })
}

/// The partitioned table and the partition of `ALTER TABLE ... DETACH PARTITION`.
pub(super) fn detached(statement: &str) -> Option<[Vec<String>; 2]> {
    let mut words = Tokens::of(statement);
    if !words.eat("alter") || !words.eat("table") {
        return None;
    }
    if words.eat("if") {
        words.eat("exists");
    }
    words.eat("only");
    let table = whole_name(&mut words)?;
    words.eat("*");
    (words.eat("detach") && words.eat("partition")).then_some(())?;
    Some([table, whole_name(&mut words)?])
}

/// A name of which every part can be read: not one with Unicode escapes.
fn whole_name(words: &mut Tokens) -> Option<Vec<String>> {
    let name = name(words);
    let goes_on = words.0.peek().is_some_and(|next| next.kind == TokenKind::QuotedIdentifier);
    (!name.is_empty() && !goes_on).then_some(name)
}

/// A name, in parts; empty where none stands.
fn name(words: &mut Tokens) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some(part) = words.0.next_if(|token| part(token).is_some()) {
        parts.extend(self::part(&part));
        if !words.eat(".") {
            break;
        }
    }
    parts
}

fn part(token: &Token) -> Option<String> {
    match token.kind {
        TokenKind::Word => Some(token.text.to_ascii_lowercase()),
        TokenKind::QuotedIdentifier => {
            let quoted = token.text.strip_prefix('"')?;
            Some(quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\""))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_creates_alters_drops_or_writes_to_is_told_by_name() {
        use Touch::{Alter, Create, Drop, Write};
        for (statement, touch, schema, names) in [
            ("create table a (b int)", Create, false, "a"),
            ("CREATE UNLOGGED TABLE IF NOT EXISTS A.\"B\"\"c\" ()", Create, false, "a/B\"c"),
            ("create schema if not exists a", Create, true, "a"),
            ("alter table if exists only a.b add c int", Alter, false, "a/b"),
            ("alter schema a rename to b", Alter, true, "a"),
            ("drop table if exists a, b . c cascade", Drop, false, "a,b/c"),
            ("drop schema a, b", Drop, true, "a,b"),
            ("truncate a, only b", Write, false, "a,b"),
            ("insert into a.b (c) values (1)", Write, false, "a/b"),
            ("update only a set b = 1", Write, false, "a"),
            ("delete from a where b", Write, false, "a"),
        ] {
            let changes = changes(statement);
            assert!(changes.iter().all(|of| (of.touch, of.schema) == (touch, schema)));
            let told: Vec<_> = changes.iter().map(|change| change.name.join("/")).collect();
            assert_eq!(told.join(","), names, "{statement}");
        }
        for statement in ["", "create index a on b (c)", "create temp table a ()", "drop type a"] {
            assert_eq!(changes(statement), [], "{statement}");
        }
    }

    #[test]
    fn a_setting_is_told_with_whether_it_is_set_back() {
        for (statement, name, back) in [
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
            ("set session authorization a", "authorization", false),
            ("reset session authorization", "authorization", true),
            ("reset all", "all", true),
            ("select pg_catalog.set_config('Search_path', '', false)", "search_path", false),
        ] {
            let told = set_statement(statement);
            assert_eq!(told, Some(SetStatement { name: name.to_owned(), back }), "{statement}");
        }
        assert_eq!(set_statement("set"), None);
        assert_eq!(set_statement("select 1"), None);
    }

    #[test]
    fn an_added_value_is_told_as_it_is_written() {
        for statement in [
            "alter type a add value 'b''c'",
            "ALTER TYPE a.\"value\" ADD VALUE IF NOT EXISTS 'b''c' BEFORE 'd'",
        ] {
            assert_eq!(enum_value(statement), Some("'b''c'"), "{statement}");
        }
        assert_eq!(enum_value("alter type a add value"), None);
    }

    #[test]
    fn a_transactions_modes_are_told() {
        for (statement, isolation, deferrable, read_only) in [
            ("set transaction isolation level serializable", Some("serializable"), None, false),
            (
                "set transaction read write, isolation level repeatable read",
                Some("repeatable read"),
                None,
                false,
            ),
            ("begin isolation level read uncommitted", Some("read uncommitted"), None, false),
            ("start transaction read only, not deferrable", None, Some(false), true),
            (
                "set transaction isolation level serializable, read only, deferrable",
                Some("serializable"),
                Some(true),
                true,
            ),
            ("set transaction isolation level read committed", None, None, false),
            ("begin", None, None, false),
        ] {
            let told = modes(statement);
            assert_eq!(told, Modes { isolation, deferrable, read_only }, "{statement}");
        }
    }

    #[test]
    fn an_enum_is_told_by_name() {
        let name = |statement| enum_name(statement).map(|name| name.join("/"));
        assert_eq!(name("create type \"S\".t as enum ('a')").as_deref(), Some("S/t"));
        assert_eq!(name("ALTER TYPE T add value 'b'").as_deref(), Some("t"));
        assert_eq!(name("create type t as (a int)"), None);
        assert_eq!(name("create table t ()"), None);
    }

    #[test]
    fn a_concurrent_index_is_told_with_its_table() {
        let told = |statement: &str| {
            let Index { name, table } = index(statement)?;
            Some([name, table].map(|name| name.map(|parts| parts.join("/")).unwrap_or_default()))
        };
        let some = |name: &str, table: &str| Some([name.to_owned(), table.to_owned()]);
        assert_eq!(told("create index concurrently i on t (a)"), some("i", "t"));
        let statement = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\" ON ONLY S.\"T\" (a)";
        assert_eq!(told(statement), some("I", "s/T"));
        assert_eq!(told("create index concurrently on t using gin (a)"), some("", "t"));
        assert_eq!(told("drop index concurrently if exists s.i"), some("s/i", ""));
        assert_eq!(told("create index i on t (a)"), None);
        for name in ["U&\"i\"", "s.U&\"i\"", "U&\"s\".i"] {
            assert_eq!(told(&format!("drop index concurrently {name}")), None);
            assert_eq!(told(&format!("create index concurrently i on {name} (a)")), None);
        }
    }

    #[test]
    fn a_detached_partition_is_told_with_its_table() {
        let told = |statement| detached(statement).map(|names| names.map(|name| name.join("/")));
        let names = |table: &str, partition: &str| Some([table.to_owned(), partition.to_owned()]);
        let statement = "alter table p detach partition s.\"Q\" concurrently";
        assert_eq!(told(statement), names("p", "s/Q"));
        let statement = "ALTER TABLE IF EXISTS ONLY S.P * DETACH PARTITION q FINALIZE";
        assert_eq!(told(statement), names("s/p", "q"));
        assert_eq!(told("alter table p detach partition U&\"q\" concurrently"), None);
        assert_eq!(told("alter table p attach partition q default"), None);
    }
}
