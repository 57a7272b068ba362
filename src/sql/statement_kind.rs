//! What a statement needs from whoever runs it, read off its own text: whether it takes a
//! transaction block, ends one, talks to the client, or leaves something in the session.
//! What only the server can know (a partitioned table, a procedure that commits) is `Plain`.

use std::iter::{Filter, Peekable};

use super::lexer::{Lexer, Token, TokenKind};

/// What matters about a statement for running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs in a transaction, and nothing of it outlives that but its effect.
    Plain,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`, with `AND CHAIN` or without.
    Commit,
    /// `ROLLBACK`, `ABORT`; to a savepoint is `Plain`.
    Rollback,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `SET TRANSACTION`: must come before the first query of its transaction.
    SetTransaction,
    /// A version from 13 to 18 refuses it inside a transaction block (25001), and those that do not
    /// take it outside of one too; its name.
    NoTransactionBlock(&'static str),
    /// `COPY ... FROM STDIN`: the client sends the data.
    CopyFromClient,
    /// `COPY ... TO STDOUT`: the client is sent data.
    CopyToClient,
    /// A line for psql, not for the server.
    MetaCommand,
    /// `ALTER TYPE ... ADD VALUE`: the value may not be used before a commit (55P04).
    AddEnumValue,
    /// Changes a setting or the role beyond the transaction.
    Setting,
    /// Changes how the server reads the SQL that follows, where that is sent in a message of its
    /// own: `standard_conforming_strings`, `client_encoding`; its name.
    ReadingSetting(&'static str),
    /// Makes what lives as long as the session, and not in another; its name.
    SessionBound(&'static str),
}

pub(super) fn classify(statement: &str) -> Kind {
    let mut words = Tokens::of(statement);
    let Some(first) = words.0.next() else { return Kind::Plain };
    if first.text == "\\" {
        return Kind::MetaCommand;
    }
    if first.kind != TokenKind::Word {
        return Kind::Plain;
    }
    match first.text.to_ascii_lowercase().as_str() {
        "begin" => Kind::Begin,
        "start" if words.eat("transaction") => Kind::Begin,
        "commit" | "end" if words.eat("prepared") => Kind::NoTransactionBlock("COMMIT PREPARED"),
        "commit" | "end" => Kind::Commit,
        "rollback" if words.eat("prepared") => Kind::NoTransactionBlock("ROLLBACK PREPARED"),
        "rollback" | "abort" => {
            words.eat_any(&["work", "transaction"]);
            if words.eat("to") { Kind::Plain } else { Kind::Rollback }
        }
        // `PREPARE transaction AS ...` prepares a statement of that name.
        "prepare" if words.eat("transaction") && !words.eat_any(&["as", "("]) => {
            Kind::PrepareTransaction
        }
        "prepare" => Kind::SessionBound("PREPARE"),
        "set" => set(words),
        "reset" => Kind::Setting,
        "listen" => Kind::SessionBound("LISTEN"),
        "declare" if words.seek("cursor", "with") && words.eat("hold") => {
            Kind::SessionBound("DECLARE CURSOR WITH HOLD")
        }
        "select" | "with" => select(words),
        "copy" => copy(words),
        "create" => create(words),
        "alter" => alter(words),
        "drop" => drop(words),
        "vacuum" => Kind::NoTransactionBlock("VACUUM"),
        "cluster" => {
            words.option("verbose");
            words.eat("verbose");
            if words.0.peek().is_none() { Kind::NoTransactionBlock("CLUSTER") } else { Kind::Plain }
        }
        "reindex" => reindex(words),
        "discard" if words.eat("all") => Kind::NoTransactionBlock("DISCARD ALL"),
        _ => Kind::Plain,
    }
}

fn set(mut words: Tokens) -> Kind {
    let local = words.eat("local");
    words.eat("session");
    if words.eat("transaction") {
        Kind::SetTransaction
    } else if words.eat("constraints") {
        Kind::Plain
    } else if let Some(setting) = reading_setting(&mut words) {
        Kind::ReadingSetting(setting)
    } else if local {
        Kind::Plain
    } else {
        Kind::Setting
    }
}

/// A setting of how SQL is read, unless it is set to what we read by; pg_dump does that.
fn reading_setting(words: &mut Tokens) -> Option<&'static str> {
    let settings: [(&str, &[&str]); 3] = [
        ("standard_conforming_strings", &["on", "true", "yes", "1", "default"]),
        ("client_encoding", &["utf8", "utf-8", "unicode", "default"]),
        ("names", &["utf8", "utf-8", "unicode", "default"]),
    ];
    let quoted = words.0.peek()?.text.trim_matches('"').to_ascii_lowercase();
    let (name, harmless) = settings.into_iter().find(|(name, _)| *name == quoted)?;
    words.0.next();
    if !words.eat("to") {
        words.eat("=");
    }
    let value = words.0.next()?.text.trim_matches('\'').to_ascii_lowercase();
    (!harmless.contains(&value.as_str())).then_some(name)
}

/// `SELECT set_config(..., false)` as pg_dump writes it, and nothing beside it; and
/// `SELECT ... INTO TEMP`.
fn select(mut words: Tokens) -> Kind {
    if sets(words.clone()) {
        return Kind::Setting;
    }
    let mut inserts = false;
    while let Some(token) = words.0.next() {
        if token.is("into") && !inserts {
            words.eat_any(&["local", "global"]);
            // Behind the name of a table that is called so, the query ends or goes on.
            let goes_on = ["from", "where", "group", "having", "window", "union", "intersect"];
            let ends = ["except", "order", "limit", "offset", "fetch", "for", ")"];
            if words.eat_any(&["temp", "temporary"])
                && !words
                    .0
                    .peek()
                    .is_none_or(|next| goes_on.iter().chain(&ends).any(|word| next.is(word)))
            {
                return Kind::SessionBound("SELECT INTO TEMPORARY TABLE");
            }
        }
        inserts = token.is("insert") || token.is("merge");
    }
    Kind::Plain
}

fn sets(mut words: Tokens) -> bool {
    if words.eat("pg_catalog") {
        words.eat(".");
    }
    let literal =
        |words: &mut Tokens| words.0.next_if(|token| token.kind == TokenKind::Literal).is_some();
    words.eat("set_config")
        && words.eat("(")
        && literal(&mut words)
        && words.eat(",")
        && literal(&mut words)
        && words.eat(",")
        && words.eat("false")
        && words.eat(")")
        && words.0.next().is_none()
}

fn copy(words: Tokens) -> Kind {
    // PostgreSQL takes either name in either direction.
    let with_client = |way| ["stdin", "stdout"].iter().any(|end| words.clone().seek(way, end));
    if with_client("from") {
        Kind::CopyFromClient
    } else if with_client("to") {
        Kind::CopyToClient
    } else {
        Kind::Plain
    }
}

fn create(mut words: Tokens) -> Kind {
    if words.eat("database") {
        return Kind::NoTransactionBlock("CREATE DATABASE");
    }
    if words.eat("tablespace") {
        return Kind::NoTransactionBlock("CREATE TABLESPACE");
    }
    if words.eat("subscription") {
        let makes_slot = !words.seek("with", "(")
            || (words.clone().flag("create_slot") != Some(false)
                && words.flag("connect") != Some(false));
        return if makes_slot {
            Kind::NoTransactionBlock("CREATE SUBSCRIPTION")
        } else {
            Kind::Plain
        };
    }
    words.eat("unique");
    if words.eat("index") && words.eat("concurrently") {
        return Kind::NoTransactionBlock("CREATE INDEX CONCURRENTLY");
    }
    if words.eat("or") {
        words.eat("replace");
    }
    words.eat_any(&["global", "local"]);
    if words.eat_any(&["temp", "temporary"]) {
        words.eat("recursive");
        return if words.eat("view") {
            Kind::SessionBound("CREATE TEMPORARY VIEW")
        } else if words.eat("sequence") {
            Kind::SessionBound("CREATE TEMPORARY SEQUENCE")
        } else if words.seek("commit", "drop") {
            Kind::Plain
        } else {
            Kind::SessionBound("CREATE TEMPORARY TABLE")
        };
    }
    while words.eat_any(&[
        "unlogged",
        "recursive",
        "table",
        "view",
        "sequence",
        "function",
        "procedure",
        "type",
        "domain",
        "aggregate",
        "if",
        "not",
        "exists",
    ]) {}
    if words.eat("pg_temp") && words.eat(".") {
        return Kind::SessionBound("CREATE in pg_temp");
    }
    Kind::Plain
}

fn alter(mut words: Tokens) -> Kind {
    if words.eat("system") {
        return Kind::NoTransactionBlock("ALTER SYSTEM");
    }
    if words.eat("database") {
        words.skip_name();
        return alter_database(words);
    }
    if words.eat("table") && words.seek("detach", "partition") {
        words.skip_name();
        if words.eat("concurrently") {
            return Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY");
        }
    }
    if words.eat("type") {
        words.skip_name();
        if words.eat("add") && words.eat("value") {
            return Kind::AddEnumValue;
        }
    }
    if words.eat("subscription") {
        words.skip_name();
        return alter_subscription(words);
    }
    Kind::Plain
}

/// Its tablespace is set in two ways, and a setting may be called so too.
fn alter_database(mut words: Tokens) -> Kind {
    let sets = words.eat("set");
    words.eat("with");
    if words.eat("tablespace") && !(sets && words.eat_any(&["=", "to", "."])) {
        Kind::NoTransactionBlock("ALTER DATABASE SET TABLESPACE")
    } else {
        Kind::Plain
    }
}

fn alter_subscription(mut words: Tokens) -> Kind {
    if words.eat("refresh") {
        return Kind::NoTransactionBlock("ALTER SUBSCRIPTION REFRESH");
    }
    if !words.eat_any(&["set", "add", "drop"]) {
        return Kind::Plain;
    }
    let refuses = if words.eat("publication") {
        !words.seek("with", "(") || words.flag("refresh") != Some(false)
    } else {
        // What changes the slot at the publisher: from 17 on, and from 18 on.
        words.eat("(")
            && (words.clone().flag("failover").is_some() || words.flag("two_phase") == Some(false))
    };
    if refuses { Kind::NoTransactionBlock("ALTER SUBSCRIPTION") } else { Kind::Plain }
}

fn drop(mut words: Tokens) -> Kind {
    if words.eat("database") {
        Kind::NoTransactionBlock("DROP DATABASE")
    } else if words.eat("tablespace") {
        Kind::NoTransactionBlock("DROP TABLESPACE")
    } else if words.eat("subscription") {
        Kind::NoTransactionBlock("DROP SUBSCRIPTION")
    } else if words.eat("index") && words.eat("concurrently") {
        Kind::NoTransactionBlock("DROP INDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

fn reindex(mut words: Tokens) -> Kind {
    let option = words.option("concurrently");
    if words.eat("schema") {
        return Kind::NoTransactionBlock("REINDEX SCHEMA");
    }
    if words.eat("database") {
        return Kind::NoTransactionBlock("REINDEX DATABASE");
    }
    if words.eat("system") {
        return Kind::NoTransactionBlock("REINDEX SYSTEM");
    }
    words.eat_any(&["index", "table"]);
    if words.eat("concurrently") || option == Some(true) {
        Kind::NoTransactionBlock("REINDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

/// Whether the server might refuse this in a transaction block, for all that the text tells. Of
/// these it is certain that it does not, but for the forms that are [`Kind::NoTransactionBlock`].
pub(super) fn may_stand_alone(statement: &str) -> bool {
    const NEVER: [&str; 16] = [
        "alter", "analyze", "comment", "create", "declare", "delete", "drop", "grant", "insert",
        "lock", "merge", "reset", "revoke", "set", "truncate", "update",
    ];
    let mut words = Tokens::of(statement);
    if words.eat("create") {
        // Of extensions that keep such a view up to date, some must commit.
        return words.eat("materialized");
    }
    !words.eat_any(&NEVER)
}

/// Whether a statement that begins so may have a `BEGIN ATOMIC` body.
pub(super) fn is_routine(start: &str) -> bool {
    let mut words = Tokens::of(start);
    let creates = words.eat("create") && (!words.eat("or") || words.eat("replace"));
    creates && words.eat_any(&["function", "procedure"])
}

/// The significant tokens of a statement, from the front.
#[derive(Clone)]
pub(super) struct Tokens<'a>(pub(super) Peekable<Filter<Lexer<'a>, IsSignificant<'a>>>);

type IsSignificant<'a> = fn(&Token<'a>) -> bool;

impl<'a> Tokens<'a> {
    pub(super) fn of(statement: &'a str) -> Self {
        let is_significant: IsSignificant<'a> = Token::is_significant;
        Tokens(Lexer::new(statement, 0).filter(is_significant).peekable())
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.0.next_if(|token| token.is(word)).is_some()
    }

    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    fn skip_name(&mut self) {
        self.0.next();
        while self.eat(".") {
            self.0.next();
        }
    }

    /// Goes past `first second` where they stand side by side outside parentheses.
    fn seek(&mut self, first: &str, second: &str) -> bool {
        let mut depth = 0usize;
        while let Some(token) = self.0.next() {
            if token.is("(") {
                depth += 1;
            } else if token.is(")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && token.is(first) && self.eat(second) {
                return true;
            }
        }
        false
    }

    /// A flag of the option list that stands here, if one does.
    fn option(&mut self, name: &str) -> Option<bool> {
        if self.eat("(") { self.flag(name) } else { None }
    }

    /// A flag of an option list, from behind its parenthesis to behind its end. The last one
    /// counts; without a value it is on; the spellings of off are the server's.
    fn flag(&mut self, name: &str) -> Option<bool> {
        let mut flag = None;
        while let Some(option) = self.0.next() {
            let wanted = option.is(name) || option.text.trim_matches('"') == name;
            self.eat("=");
            let mut value = "on";
            while let Some(token) = self.0.next_if(|token| !token.is(",") && !token.is(")")) {
                value = token.text.trim_matches('\'');
            }
            if wanted {
                flag =
                    Some(!["0", "off", "false"].iter().any(|off| value.eq_ignore_ascii_case(off)));
            }
            if self.eat(")") {
                break;
            }
            self.eat(",");
        }
        flag
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Kind::*, classify};

    fn check(cases: &[(&str, Kind)]) {
        for (statement, kind) in cases {
            assert_eq!(classify(statement), *kind, "{statement}");
            let shouted: String = statement
                .split('\'')
                .enumerate()
                .map(|(at, part)| if at % 2 == 0 { part.to_uppercase() } else { part.into() })
                .collect::<Vec<_>>()
                .join("'");
            if !statement.contains('"') {
                assert_eq!(classify(&shouted), *kind, "{shouted}");
            }
            let commented = statement.replacen(' ', " /* (a; -- */ -- b )\n ", 9);
            if !statement.contains('\'') && *kind != MetaCommand {
                assert_eq!(classify(&commented), *kind, "{commented}");
            }
        }
    }

    #[test]
    fn ordinary_statements_are_plain() {
        check(&[
            ("", Plain),
            ("create table begin_ (commit_ int)", Plain),
            ("insert into t values ('vacuum')", Plain),
            ("\"vacuum\"", Plain),
            ("'commit'", Plain),
            ("(select 1)", Plain),
            ("analyze t", Plain),
            ("checkpoint", Plain),
            ("explain analyze select 1", Plain),
            ("explain (analyze) create table t as select 1", Plain),
            ("do $$ begin commit; end $$", Plain),
            ("call p()", Plain),
        ]);
    }

    #[test]
    fn transaction_control_is_known_in_all_its_forms() {
        check(&[
            ("begin", Begin),
            ("begin work", Begin),
            ("begin transaction isolation level serializable, read only", Begin),
            ("start transaction", Begin),
            ("start transaction read write", Begin),
            ("commit", Commit),
            ("commit work and no chain", Commit),
            ("commit and chain", Commit),
            ("end", Commit),
            ("end transaction", Commit),
            ("rollback", Rollback),
            ("rollback work and chain", Rollback),
            ("abort", Rollback),
            ("abort transaction", Rollback),
            ("prepare transaction 'a'", PrepareTransaction),
            ("commit prepared 'a'", NoTransactionBlock("COMMIT PREPARED")),
            ("rollback prepared 'a'", NoTransactionBlock("ROLLBACK PREPARED")),
            ("set transaction isolation level serializable", SetTransaction),
            ("set local transaction read only", SetTransaction),
        ]);
    }

    #[test]
    fn what_might_refuse_a_transaction_block_unseen_is_told() {
        for unseen in ["call p()", "do $$ $$", "reindex table t", "select f()", "cluster t"] {
            assert!(super::may_stand_alone(unseen), "{unseen}");
        }
        assert!(super::may_stand_alone("create materialized view v as select 1"));
        for seen in ["create table t ()", "alter table t add a int", "insert into t values (1)"] {
            assert!(!super::may_stand_alone(seen), "{seen}");
        }
    }

    #[test]
    fn savepoints_are_plain() {
        check(&[
            ("savepoint a", Plain),
            ("release a", Plain),
            ("release savepoint a", Plain),
            ("rollback to a", Plain),
            ("rollback work to savepoint a", Plain),
            ("rollback transaction to a", Plain),
        ]);
    }

    #[test]
    fn statements_that_refuse_a_transaction_block_stand_alone() {
        let alone = |statement, name| check(&[(statement, NoTransactionBlock(name))]);
        alone("create index concurrently on t (x)", "CREATE INDEX CONCURRENTLY");
        alone(
            "create unique index concurrently if not exists i on t (x)",
            "CREATE INDEX CONCURRENTLY",
        );
        alone("drop index concurrently if exists i", "DROP INDEX CONCURRENTLY");
        alone("vacuum", "VACUUM");
        alone("vacuum full t", "VACUUM");
        alone("vacuum (analyze, verbose) t", "VACUUM");
        alone("cluster", "CLUSTER");
        alone("cluster verbose", "CLUSTER");
        alone("cluster (verbose)", "CLUSTER");
        alone("cluster (verbose false)", "CLUSTER");
        alone("reindex schema s", "REINDEX SCHEMA");
        alone("reindex (verbose) database d", "REINDEX DATABASE");
        alone("reindex system d", "REINDEX SYSTEM");
        alone("create database d", "CREATE DATABASE");
        alone("drop database if exists d", "DROP DATABASE");
        alone("alter database d set tablespace s", "ALTER DATABASE SET TABLESPACE");
        alone("alter database d tablespace s", "ALTER DATABASE SET TABLESPACE");
        alone("alter database \"set\" with tablespace = s", "ALTER DATABASE SET TABLESPACE");
        alone("create tablespace s location '/s'", "CREATE TABLESPACE");
        alone("drop tablespace s", "DROP TABLESPACE");
        alone("alter system set work_mem = '1MB'", "ALTER SYSTEM");
        alone("alter system reset all", "ALTER SYSTEM");
        alone("discard all", "DISCARD ALL");
        let detach = "ALTER TABLE DETACH PARTITION CONCURRENTLY";
        alone("alter table a.t detach partition b.p concurrently", detach);
        alone("alter table if exists only \"T\" detach partition u&\"p\" concurrently", detach);
    }

    #[test]
    fn their_neighbours_do_not() {
        check(&[
            ("create index on t (x)", Plain),
            ("create index \"concurrently\" on t (x)", Plain),
            ("create unique index i on t (concurrently_)", Plain),
            ("drop index i, j", Plain),
            ("cluster t", Plain),
            ("cluster t using i", Plain),
            ("cluster (verbose) t", Plain),
            ("cluster verbose t using i", Plain),
            ("reindex table t", Plain),
            ("reindex index i", Plain),
            ("alter database d set search_path to s", Plain),
            ("alter database d set tablespace to s", Plain),
            ("alter database d set tablespace = s", Plain),
            ("alter database d set tablespace.a = s", Plain),
            ("alter database d rename to tablespace", Plain),
            ("alter database d with connection limit 5", Plain),
            ("alter table t set tablespace s", Plain),
            ("alter table t detach partition p", Plain),
            ("alter table t detach partition p finalize", Plain),
            ("alter table t add column x int check (x > 0)", Plain),
            ("drop table database", Plain),
            ("discard temp", Plain),
        ]);
    }

    #[test]
    fn reindex_concurrently_is_a_word_or_an_option_that_may_be_off() {
        let concurrently = NoTransactionBlock("REINDEX CONCURRENTLY");
        check(&[
            ("reindex table concurrently t", concurrently),
            ("reindex (verbose) index concurrently i", concurrently),
            ("reindex (concurrently) table t", concurrently),
            ("reindex (verbose, concurrently on, tablespace s) table t", concurrently),
            ("reindex (concurrently 1) table t", concurrently),
            ("reindex (concurrently 'true') table t", concurrently),
            ("reindex (\"concurrently\") table t", concurrently),
            ("reindex (concurrently off, concurrently) table t", concurrently),
            ("reindex (concurrently off) table concurrently t", concurrently),
            ("reindex (concurrently false) table t", Plain),
            ("reindex (concurrently off, verbose) table t", Plain),
            ("reindex (concurrently 0) table t", Plain),
            ("reindex (concurrently 'off') table t", Plain),
            ("reindex (tablespace concurrently) table t", Plain),
            ("reindex (concurrently", concurrently),
        ]);
    }

    #[test]
    fn subscriptions_stand_alone_where_they_reach_for_the_publisher() {
        let create = NoTransactionBlock("CREATE SUBSCRIPTION");
        let alter = NoTransactionBlock("ALTER SUBSCRIPTION");
        check(&[
            ("create subscription s connection 'c' publication p", create),
            ("create subscription s connection 'c' publication p with (copy_data = false)", create),
            ("create subscription s connection 'c' publication p with (create_slot)", create),
            (
                "create subscription s connection 'c' publication p with (create_slot = false)",
                Plain,
            ),
            (
                "create subscription s connection 'c' publication p with (enabled, connect = 'off')",
                Plain,
            ),
            ("drop subscription if exists s", NoTransactionBlock("DROP SUBSCRIPTION")),
            (
                "alter subscription s refresh publication",
                NoTransactionBlock("ALTER SUBSCRIPTION REFRESH"),
            ),
            ("alter subscription s set publication p, q", alter),
            ("alter subscription s add publication p with (copy_data = false)", alter),
            ("alter subscription s drop publication p with (refresh = true)", alter),
            ("alter subscription s set publication p with (refresh = false)", Plain),
            ("alter subscription s add publication p with (copy_data, refresh = off)", Plain),
            ("alter subscription s set (failover = true)", alter),
            ("alter subscription s set (two_phase = false)", alter),
            ("alter subscription s set (slot_name = none)", Plain),
            ("alter subscription s disable", Plain),
            ("alter subscription s rename to refresh", Plain),
        ]);
    }

    #[test]
    fn copy_to_or_from_the_client_is_told_from_copy_to_or_from_the_server() {
        check(&[
            ("copy t from stdin", CopyFromClient),
            ("copy t (a, b) from stdin with (format csv)", CopyFromClient),
            ("copy \"T\".\"from\" from stdin", CopyFromClient),
            ("copy t from stdout", CopyFromClient),
            ("copy t to stdout", CopyToClient),
            ("copy (select 1 from stdin) to stdout", CopyToClient),
            ("copy (select 1 from stdin) to '/f'", Plain),
            ("copy t from '/stdin'", Plain),
            ("copy t from program 'stdin'", Plain),
        ]);
    }

    #[test]
    fn psql_commands_are_meta_commands() {
        check(&[("\\restrict a", MetaCommand), ("\\.", MetaCommand), ("select 1 \\g", Plain)]);
    }

    #[test]
    fn enum_values_are_told_from_other_changes_of_a_type() {
        check(&[
            ("alter type t add value 'b'", AddEnumValue),
            ("alter type \"S\" . \"T\" add value if not exists 'b' before 'a'", AddEnumValue),
            ("alter type t rename value 'a' to 'b'", Plain),
            ("alter type t add attribute value int", Plain),
            ("alter type add rename to value", Plain),
        ]);
    }

    #[test]
    fn settings_are_those_that_outlive_the_transaction() {
        check(&[
            ("set search_path to s", Setting),
            ("set session work_mem = '1MB'", Setting),
            ("set time zone 'UTC'", Setting),
            ("set role r", Setting),
            ("set session authorization r", Setting),
            ("set session characteristics as transaction read only", Setting),
            ("reset all", Setting),
            ("reset role", Setting),
            ("select pg_catalog.set_config('search_path', '', false)", Setting),
            ("select set_config ('a.b', 'c', false)", Setting),
            ("select set_config('a.b', 'c', false), 1", Plain),
            ("select f(set_config('a', 'b', true), false)", Plain),
            ("select set_config('a.b', 'c', true)", Plain),
            ("select f(false)", Plain),
            ("set local search_path to s", Plain),
            ("set constraints all immediate", Plain),
        ]);
    }

    #[test]
    fn what_lives_in_the_session_is_named() {
        let table = SessionBound("CREATE TEMPORARY TABLE");
        let into = SessionBound("SELECT INTO TEMPORARY TABLE");
        check(&[
            ("create temp table t (x int)", table),
            ("create local temporary table if not exists t as select 1", table),
            ("create temp table t (x int) on commit delete rows", table),
            ("create temp table t (x int) on commit drop", Plain),
            ("create or replace temp view v as select 1", SessionBound("CREATE TEMPORARY VIEW")),
            ("create temp recursive view v (x) as select 1", SessionBound("CREATE TEMPORARY VIEW")),
            ("create temporary sequence s", SessionBound("CREATE TEMPORARY SEQUENCE")),
            ("create table if not exists pg_temp.t (x int)", SessionBound("CREATE in pg_temp")),
            (
                "create or replace function pg_temp.f() returns int",
                SessionBound("CREATE in pg_temp"),
            ),
            ("create table temp (x int)", Plain),
            ("create table t (pg_temp int)", Plain),
            ("select 1 into temp t", into),
            ("with a as (select 1) select * into local temporary table t from a", into),
            ("with a as (select 1) insert into temp select * from a", Plain),
            ("select 1 into t", Plain),
            ("select 1 into temp", Plain),
            ("select 1 into temp from t", Plain),
            ("select 1 into temp table t from u", into),
            ("prepare p as select 1", SessionBound("PREPARE")),
            ("prepare transaction as select 1", SessionBound("PREPARE")),
            ("prepare transaction (int) as select $1", SessionBound("PREPARE")),
            ("listen c", SessionBound("LISTEN")),
            ("unlisten c", Plain),
            ("declare c cursor with hold for select 1", SessionBound("DECLARE CURSOR WITH HOLD")),
            (
                "declare c no scroll cursor without hold for with hold as (select 1) table hold",
                Plain,
            ),
        ]);
    }
}
