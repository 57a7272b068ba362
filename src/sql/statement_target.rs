//! What a statement is about, read from its own text: tables, schemas, indexes, the modes of
//! a transaction.

use super::lexer::{Token, TokenKind};
use super::script::Statement;
use super::tokens::Tokens;

/// A change to a table or a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub touch: Touch,
    /// Whether the target is a schema, not a table.
    pub schema: bool,
    /// The parts of the name, case-folded and unquoted as the server does it.
    pub name: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Create,
    Alter,
    Drop,
    /// INSERT, UPDATE, DELETE, TRUNCATE
    Write,
}

/// The modes of a transaction that must be known when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// `None` is READ COMMITTED.
    pub isolation: Option<&'static str>,
    /// A mode that can be set only before the first query, which is ours: DEFERRABLE or a snapshot.
    pub before_queries: bool,
    /// READ ONLY, which excludes the history row.
    pub read_only: bool,
}

/// The target of `CREATE INDEX CONCURRENTLY` or `DROP INDEX CONCURRENTLY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The parts of the name. `None` if the server chooses the name of the new index.
    pub name: Option<Vec<String>>,
    /// The parts of the table's name. `None` for DROP.
    pub table: Option<Vec<String>>,
}

impl<'a> Statement<'a> {
    /// The tables or schemas that the statement creates, alters, drops or writes to.
    pub fn changes(&self) -> Vec<Change> {
        let mut tokens = Tokens::new(self.text);
        let Some((touch, schema)) = touch_and_target(&mut tokens) else { return Vec::new() };
        let mut changes = Vec::new();
        loop {
            tokens.accept("only");
            let name = name(&mut tokens);
            if name.is_empty() {
                break;
            }
            changes.push(Change { touch, schema, name });
            tokens.accept("*");
            // Only DROP and TRUNCATE take a list of names.
            if !matches!(touch, Touch::Drop | Touch::Write) || !tokens.accept(",") {
                break;
            }
        }
        changes
    }

    /// For [`Kind::SetTransaction`](super::Kind::SetTransaction) and
    /// [`Kind::Begin`](super::Kind::Begin).
    pub fn modes(&self) -> Modes {
        let mut tokens = Tokens::new(self.text);
        let mut modes = Modes::default();
        while let Some(token) = tokens.next() {
            if token.is("level") {
                modes.isolation = if tokens.accept("serializable") {
                    Some("serializable")
                } else if tokens.accept("repeatable") {
                    Some("repeatable read")
                } else if tokens.accept("read") && tokens.accept("uncommitted") {
                    Some("read uncommitted")
                } else {
                    None
                };
            } else if ["deferrable", "snapshot", "transaction_deferrable"]
                .iter()
                .any(|mode| token.is(mode))
            {
                modes.before_queries = true;
            } else if token.is("transaction_read_only") {
                tokens.accept_any(&["to", "="]);
                let off = |token: &Token| {
                    let value = token.text.trim_matches('\'');
                    ["off", "false", "no", "0", "default"]
                        .iter()
                        .any(|off| value.eq_ignore_ascii_case(off))
                };
                modes.read_only = tokens.next_if(off).is_none();
            } else if token.is("read") {
                modes.read_only = tokens.accept("only");
            }
        }
        modes
    }

    /// Whether a [`Kind::Commit`](super::Kind::Commit) also begins a new transaction: `AND CHAIN`.
    pub fn chains(&self) -> bool {
        let mut tokens = Tokens::new(self.text);
        tokens.next();
        tokens.accept_any(&["work", "transaction"]);
        tokens.accept("and") && tokens.accept("chain")
    }

    /// For `CREATE INDEX CONCURRENTLY` and `DROP INDEX CONCURRENTLY`.
    pub fn index(&self) -> Option<Index> {
        let mut tokens = Tokens::new(self.text);
        let creates = tokens.accept("create");
        if !(creates || tokens.accept("drop")) {
            return None;
        }
        tokens.accept("unique");
        if !tokens.accept("index") || !tokens.accept("concurrently") {
            return None;
        }
        tokens.skip_if_exists();
        if !creates {
            return Some(Index { name: Some(whole_name(&mut tokens)?), table: None });
        }
        let index = if tokens.accept("on") {
            None
        } else {
            let index = whole_name(&mut tokens)?;
            tokens.accept("on").then_some(Some(index))?
        };
        tokens.accept("only");
        Some(Index { name: index, table: Some(whole_name(&mut tokens)?) })
    }

    /// The parts of the names of table and partition in `ALTER TABLE ... DETACH PARTITION`.
    pub fn detached(&self) -> Option<[Vec<String>; 2]> {
        let mut tokens = Tokens::new(self.text);
        if !tokens.accept("alter") || !tokens.accept("table") {
            return None;
        }
        tokens.skip_if_exists();
        tokens.accept("only");
        let table = whole_name(&mut tokens)?;
        tokens.accept("*");
        (tokens.accept("detach") && tokens.accept("partition")).then_some(())?;
        Some([table, whole_name(&mut tokens)?])
    }
}

fn touch_and_target(tokens: &mut Tokens) -> Option<(Touch, bool)> {
    if tokens.accept_any(&["insert", "update", "delete", "truncate"]) {
        tokens.accept_any(&["into", "from", "table"]);
        return Some((Touch::Write, false));
    }
    let touch = if tokens.accept("create") {
        tokens.accept("unlogged");
        Touch::Create
    } else if tokens.accept("alter") {
        Touch::Alter
    } else if tokens.accept("drop") {
        Touch::Drop
    } else {
        return None;
    };
    let schema = tokens.accept("schema");
    if !schema && !tokens.accept("table") {
        return None;
    }
    tokens.skip_if_exists();
    Some((touch, schema))
}

/// A name, unless it has a part with Unicode escapes (`U&"..."`), which we do not decode.
fn whole_name(tokens: &mut Tokens) -> Option<Vec<String>> {
    let name = name(tokens);
    let has_escapes = tokens.peek().is_some_and(|next| next.kind == TokenKind::QuotedIdentifier);
    (!name.is_empty() && !has_escapes).then_some(name)
}

/// The parts of the name that comes next; empty if there is none.
pub(super) fn name(tokens: &mut Tokens) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some(part) = tokens.next_if(|token| part(token).is_some()) {
        parts.extend(self::part(&part));
        if !tokens.accept(".") {
            break;
        }
    }
    parts
}

pub(super) fn part(token: &Token) -> Option<String> {
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
    use crate::sql::Kind;

    fn statement(text: &str) -> Statement<'_> {
        Statement { text, start: 0, piece: 0..text.len(), kind: Kind::Plain }
    }

    #[test]
    fn changed_tables_and_schemas_are_named() {
        use Touch::{Alter, Create, Drop, Write};
        for (text, touch, schema, names) in [
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
            let changes = statement(text).changes();
            assert!(changes.iter().all(|change| (change.touch, change.schema) == (touch, schema)));
            let changed: Vec<_> = changes.iter().map(|change| change.name.join("/")).collect();
            assert_eq!(changed.join(","), names, "{text}");
        }
        for text in ["", "create index a on b (c)", "create temp table a ()", "drop type a"] {
            assert_eq!(statement(text).changes(), [], "{text}");
        }
    }

    #[test]
    fn the_modes_of_a_transaction_are_read() {
        for (text, isolation, before_queries, read_only) in [
            ("set transaction isolation level serializable", Some("serializable"), false, false),
            (
                "set transaction read write, isolation level repeatable read",
                Some("repeatable read"),
                false,
                false,
            ),
            ("begin isolation level read uncommitted", Some("read uncommitted"), false, false),
            ("start transaction read only, not deferrable", None, true, true),
            (
                "set transaction isolation level serializable, read only, deferrable",
                Some("serializable"),
                true,
                true,
            ),
            ("set transaction isolation level read committed", None, false, false),
            ("set transaction snapshot '00000003-1'", None, true, false),
            ("set local transaction_deferrable = off", None, true, false),
            ("set transaction_read_only to 'on'", None, false, true),
            ("set transaction_read_only = off", None, false, false),
            ("begin", None, false, false),
        ] {
            let expected = Modes { isolation, before_queries, read_only };
            assert_eq!(statement(text).modes(), expected, "{text}");
        }
    }

    #[test]
    fn a_concurrent_index_is_named_with_its_table() {
        let names = |text: &str| {
            let Index { name, table } = statement(text).index()?;
            Some([name, table].map(|name| name.map(|parts| parts.join("/")).unwrap_or_default()))
        };
        let some = |name: &str, table: &str| Some([name.to_owned(), table.to_owned()]);
        assert_eq!(names("create index concurrently i on t (a)"), some("i", "t"));
        let text = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\" ON ONLY S.\"T\" (a)";
        assert_eq!(names(text), some("I", "s/T"));
        assert_eq!(names("create index concurrently on t using gin (a)"), some("", "t"));
        assert_eq!(names("drop index concurrently if exists s.i"), some("s/i", ""));
        assert_eq!(names("create index i on t (a)"), None);
        for name in ["U&\"i\"", "s.U&\"i\"", "U&\"s\".i"] {
            assert_eq!(names(&format!("drop index concurrently {name}")), None);
            assert_eq!(names(&format!("create index concurrently i on {name} (a)")), None);
        }
    }

    #[test]
    fn a_detached_partition_is_named_with_its_table() {
        let names = |text| statement(text).detached().map(|names| names.map(|name| name.join("/")));
        let some = |table: &str, partition: &str| Some([table.to_owned(), partition.to_owned()]);
        let text = "alter table p detach partition s.\"Q\" concurrently";
        assert_eq!(names(text), some("p", "s/Q"));
        let text = "ALTER TABLE IF EXISTS ONLY S.P * DETACH PARTITION q FINALIZE";
        assert_eq!(names(text), some("s/p", "q"));
        assert_eq!(names("alter table p detach partition U&\"q\" concurrently"), None);
        assert_eq!(names("alter table p attach partition q default"), None);
    }
}
