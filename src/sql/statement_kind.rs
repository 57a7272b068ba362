//! What a statement needs in order to run, read from its own text: a transaction, no transaction,
//! the client, or the session it leaves something in. What only the server can know (a partitioned
//! table, a procedure that commits) is `Plain`.

use std::iter::{Filter, Peekable};

use super::lexer::{Lexer, Token, TokenKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs in a transaction and leaves nothing in the session.
    Plain,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`, with or without `AND CHAIN`.
    Commit,
    /// `ROLLBACK`, `ABORT`. `ROLLBACK TO` a savepoint is `Plain`.
    Rollback,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `SET TRANSACTION`, which must come before the first query of its transaction.
    SetTransaction,
    /// The named statement, which at least one version from 13 to 18 rejects inside a transaction
    /// block (25001). Versions that accept it there accept it outside of one too.
    NoTransactionBlock(&'static str),
    /// `COPY ... FROM STDIN`: the client sends data.
    CopyFromClient,
    /// `COPY ... TO STDOUT`: the client receives data.
    CopyToClient,
    /// A line for psql, such as `\connect`.
    PsqlCommand,
    /// `ALTER TYPE ... ADD VALUE`: the value cannot be used before it is committed (55P04).
    AddEnumValue,
    /// Changes a setting or the role beyond the transaction.
    Setting,
    /// Sets the named setting, which changes how the server reads the SQL of later messages:
    /// `standard_conforming_strings`, `client_encoding`.
    LexingSetting(&'static str),
    /// The named statement, whose result exists only in this session.
    SessionBound(&'static str),
}

pub(super) fn classify(statement: &str) -> Kind {
    let mut tokens = Tokens::new(statement);
    let Some(first) = tokens.next() else { return Kind::Plain };
    if first.text == "\\" {
        return Kind::PsqlCommand;
    }
    if first.kind != TokenKind::Word {
        return Kind::Plain;
    }
    match first.text.to_ascii_lowercase().as_str() {
        "begin" => Kind::Begin,
        "start" if tokens.accept("transaction") => Kind::Begin,
        "commit" | "end" if tokens.accept("prepared") => {
            Kind::NoTransactionBlock("COMMIT PREPARED")
        }
        "commit" | "end" => Kind::Commit,
        "rollback" if tokens.accept("prepared") => Kind::NoTransactionBlock("ROLLBACK PREPARED"),
        "rollback" | "abort" => {
            tokens.accept_any(&["work", "transaction"]);
            if tokens.accept("to") { Kind::Plain } else { Kind::Rollback }
        }
        // `PREPARE transaction AS ...` prepares a statement of that name.
        "prepare" if tokens.accept("transaction") && !tokens.accept_any(&["as", "("]) => {
            Kind::PrepareTransaction
        }
        "prepare" => Kind::SessionBound("PREPARE"),
        "set" => set_kind(tokens),
        "reset" => Kind::Setting,
        "listen" => Kind::SessionBound("LISTEN"),
        "declare" if tokens.skip_past("cursor", "with") && tokens.accept("hold") => {
            Kind::SessionBound("DECLARE CURSOR WITH HOLD")
        }
        "select" | "with" => select_kind(tokens),
        "copy" => copy_kind(tokens),
        "create" => create_kind(tokens),
        "alter" => alter_kind(tokens),
        "drop" => drop_kind(tokens),
        "vacuum" => Kind::NoTransactionBlock("VACUUM"),
        "cluster" => {
            tokens.option("verbose");
            tokens.accept("verbose");
            if tokens.is_at_end() { Kind::NoTransactionBlock("CLUSTER") } else { Kind::Plain }
        }
        "reindex" => reindex_kind(tokens),
        "discard" if tokens.accept("all") => Kind::NoTransactionBlock("DISCARD ALL"),
        _ => Kind::Plain,
    }
}

fn set_kind(mut tokens: Tokens) -> Kind {
    let local = tokens.accept("local");
    tokens.accept("session");
    if tokens.accept("transaction") {
        Kind::SetTransaction
    } else if tokens.accept("constraints") {
        Kind::Plain
    } else if let Some(setting) = lexing_setting(&mut tokens) {
        Kind::LexingSetting(setting)
    } else if local {
        Kind::Plain
    } else {
        Kind::Setting
    }
}

/// The name of a setting that changes how SQL is read. `None` if it is set to the value that our
/// lexer assumes, as pg_dump does.
fn lexing_setting(tokens: &mut Tokens) -> Option<&'static str> {
    let settings: [(&str, &[&str]); 3] = [
        ("standard_conforming_strings", &["on", "true", "yes", "1", "default"]),
        ("client_encoding", &["utf8", "utf-8", "unicode", "default"]),
        ("names", &["utf8", "utf-8", "unicode", "default"]),
    ];
    let unquoted = tokens.peek()?.text.trim_matches('"').to_ascii_lowercase();
    let (name, harmless) = settings.into_iter().find(|(name, _)| *name == unquoted)?;
    tokens.next();
    if !tokens.accept("to") {
        tokens.accept("=");
    }
    let value = tokens.next()?.text.trim_matches('\'').to_ascii_lowercase();
    (!harmless.contains(&value.as_str())).then_some(name)
}

/// Recognizes `SELECT set_config(..., false)` on its own, as pg_dump writes it, and
/// `SELECT ... INTO TEMP`.
fn select_kind(mut tokens: Tokens) -> Kind {
    if is_set_config(tokens.clone()) {
        return Kind::Setting;
    }
    let mut inserts = false;
    while let Some(token) = tokens.next() {
        if token.is("into") && !inserts {
            tokens.accept_any(&["local", "global"]);
            // One of these, or the end, follows a table that is itself named `temp`.
            let after_name = "from where group having window union intersect except order \
                limit offset fetch for )";
            if tokens.accept_any(&["temp", "temporary"])
                && tokens
                    .peek()
                    .is_some_and(|next| !after_name.split(' ').any(|word| next.is(word)))
            {
                return Kind::SessionBound("SELECT INTO TEMPORARY TABLE");
            }
        }
        inserts = token.is("insert") || token.is("merge");
    }
    Kind::Plain
}

fn is_set_config(mut tokens: Tokens) -> bool {
    if tokens.accept("pg_catalog") {
        tokens.accept(".");
    }
    let literal =
        |tokens: &mut Tokens| tokens.next_if(|token| token.kind == TokenKind::Literal).is_some();
    tokens.accept("set_config")
        && tokens.accept("(")
        && literal(&mut tokens)
        && tokens.accept(",")
        && literal(&mut tokens)
        && tokens.accept(",")
        && tokens.accept("false")
        && tokens.accept(")")
        && tokens.is_at_end()
}

fn copy_kind(tokens: Tokens) -> Kind {
    // PostgreSQL accepts both names in both directions.
    let with_client = |preposition| {
        ["stdin", "stdout"].iter().any(|name| tokens.clone().skip_past(preposition, name))
    };
    if with_client("from") {
        Kind::CopyFromClient
    } else if with_client("to") {
        Kind::CopyToClient
    } else {
        Kind::Plain
    }
}

fn create_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("database") {
        return Kind::NoTransactionBlock("CREATE DATABASE");
    }
    if tokens.accept("tablespace") {
        return Kind::NoTransactionBlock("CREATE TABLESPACE");
    }
    if tokens.accept("subscription") {
        let makes_slot = !tokens.skip_past("with", "(")
            || (tokens.clone().flag("create_slot") != Some(false)
                && tokens.flag("connect") != Some(false));
        return if makes_slot {
            Kind::NoTransactionBlock("CREATE SUBSCRIPTION")
        } else {
            Kind::Plain
        };
    }
    tokens.accept("unique");
    if tokens.accept("index") && tokens.accept("concurrently") {
        return Kind::NoTransactionBlock("CREATE INDEX CONCURRENTLY");
    }
    if tokens.accept("or") {
        tokens.accept("replace");
    }
    tokens.accept_any(&["global", "local"]);
    if tokens.accept_any(&["temp", "temporary"]) {
        tokens.accept("recursive");
        return if tokens.accept("view") {
            Kind::SessionBound("CREATE TEMPORARY VIEW")
        } else if tokens.accept("sequence") {
            Kind::SessionBound("CREATE TEMPORARY SEQUENCE")
        } else if tokens.skip_past("commit", "drop") {
            Kind::Plain
        } else {
            Kind::SessionBound("CREATE TEMPORARY TABLE")
        };
    }
    while tokens.accept_any(&[
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
    if tokens.accept("pg_temp") && tokens.accept(".") {
        return Kind::SessionBound("CREATE in pg_temp");
    }
    Kind::Plain
}

fn alter_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("system") {
        return Kind::NoTransactionBlock("ALTER SYSTEM");
    }
    if tokens.accept("database") {
        tokens.skip_name();
        return alter_database_kind(tokens);
    }
    if tokens.accept("table") && tokens.skip_past("detach", "partition") {
        tokens.skip_name();
        if tokens.accept("concurrently") {
            return Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY");
        }
    }
    if tokens.accept("type") {
        tokens.skip_name();
        if tokens.accept("add") && tokens.accept("value") {
            return Kind::AddEnumValue;
        }
    }
    if tokens.accept("subscription") {
        tokens.skip_name();
        return alter_subscription_kind(tokens);
    }
    Kind::Plain
}

/// There are two forms that set the tablespace, and a setting may be named `tablespace` too.
fn alter_database_kind(mut tokens: Tokens) -> Kind {
    let sets = tokens.accept("set");
    tokens.accept("with");
    if tokens.accept("tablespace") && !(sets && tokens.accept_any(&["=", "to", "."])) {
        Kind::NoTransactionBlock("ALTER DATABASE SET TABLESPACE")
    } else {
        Kind::Plain
    }
}

fn alter_subscription_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("refresh") {
        return Kind::NoTransactionBlock("ALTER SUBSCRIPTION REFRESH");
    }
    if !tokens.accept_any(&["set", "add", "drop"]) {
        return Kind::Plain;
    }
    let refuses = if tokens.accept("publication") {
        !tokens.skip_past("with", "(") || tokens.flag("refresh") != Some(false)
    } else {
        // These change the slot on the publisher, since 17 and since 18.
        tokens.accept("(")
            && (tokens.clone().flag("failover").is_some()
                || tokens.flag("two_phase") == Some(false))
    };
    if refuses { Kind::NoTransactionBlock("ALTER SUBSCRIPTION") } else { Kind::Plain }
}

fn drop_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("database") {
        Kind::NoTransactionBlock("DROP DATABASE")
    } else if tokens.accept("tablespace") {
        Kind::NoTransactionBlock("DROP TABLESPACE")
    } else if tokens.accept("subscription") {
        Kind::NoTransactionBlock("DROP SUBSCRIPTION")
    } else if tokens.accept("index") && tokens.accept("concurrently") {
        Kind::NoTransactionBlock("DROP INDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

fn reindex_kind(mut tokens: Tokens) -> Kind {
    let option = tokens.option("concurrently");
    if tokens.accept("schema") {
        return Kind::NoTransactionBlock("REINDEX SCHEMA");
    }
    if tokens.accept("database") {
        return Kind::NoTransactionBlock("REINDEX DATABASE");
    }
    if tokens.accept("system") {
        return Kind::NoTransactionBlock("REINDEX SYSTEM");
    }
    tokens.accept_any(&["index", "table"]);
    if tokens.accept("concurrently") || option == Some(true) {
        Kind::NoTransactionBlock("REINDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

/// Whether the server may reject the statement inside a transaction block although its text does
/// not show it. It never does for the listed ones, except for forms of
/// [`Kind::NoTransactionBlock`].
pub(super) fn may_refuse_transaction_block(statement: &str) -> bool {
    const NEVER: [&str; 16] = [
        "alter", "analyze", "comment", "create", "declare", "delete", "drop", "grant", "insert",
        "lock", "merge", "reset", "revoke", "set", "truncate", "update",
    ];
    let mut tokens = Tokens::new(statement);
    if tokens.accept("create") {
        // Extensions with self-refreshing views (TimescaleDB) need to commit.
        return tokens.accept("materialized");
    }
    !tokens.accept_any(&NEVER)
}

/// Whether a statement with this beginning may have a `BEGIN ATOMIC` body.
pub(super) fn is_routine(start: &str) -> bool {
    let mut tokens = Tokens::new(start);
    let creates = tokens.accept("create") && (!tokens.accept("or") || tokens.accept("replace"));
    creates && tokens.accept_any(&["function", "procedure"])
}

/// The significant tokens of a statement.
#[derive(Clone)]
pub(super) struct Tokens<'a>(Peekable<Filter<Lexer<'a>, IsSignificant<'a>>>);

type IsSignificant<'a> = fn(&Token<'a>) -> bool;

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.0.next()
    }
}

impl<'a> Tokens<'a> {
    pub(super) fn new(statement: &'a str) -> Self {
        let is_significant: IsSignificant<'a> = Token::is_significant;
        Tokens(Lexer::new(statement, 0).filter(is_significant).peekable())
    }

    pub(super) fn peek(&mut self) -> Option<&Token<'a>> {
        self.0.peek()
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    pub(super) fn next_if(&mut self, is_wanted: impl Fn(&Token) -> bool) -> Option<Token<'a>> {
        self.0.next_if(is_wanted)
    }

    /// Consumes the next token if it is this word or symbol.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        self.next_if(|token| token.is(word)).is_some()
    }

    pub(super) fn accept_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.accept(word))
    }

    fn skip_name(&mut self) {
        self.next();
        while self.accept(".") {
            self.next();
        }
    }

    /// Skips past the next `first second` outside parentheses; to the end if there is none.
    fn skip_past(&mut self, first: &str, second: &str) -> bool {
        let mut depth = 0usize;
        while let Some(token) = self.next() {
            if token.is("(") {
                depth += 1;
            } else if token.is(")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 && token.is(first) && self.accept(second) {
                return true;
            }
        }
        false
    }

    /// A flag of the parenthesized option list that comes next, if there is one.
    fn option(&mut self, name: &str) -> Option<bool> {
        if self.accept("(") { self.flag(name) } else { None }
    }

    /// A flag of the option list whose opening parenthesis was the last token; consumes the list.
    /// As in the server, the last one wins, and a flag without a value is on.
    fn flag(&mut self, name: &str) -> Option<bool> {
        let mut flag = None;
        while let Some(option) = self.next() {
            let wanted = option.is(name) || option.text.trim_matches('"') == name;
            self.accept("=");
            let mut value = "on";
            while let Some(token) = self.next_if(|token| !token.is(",") && !token.is(")")) {
                value = token.text.trim_matches('\'');
            }
            if wanted {
                flag =
                    Some(!["0", "off", "false"].iter().any(|off| value.eq_ignore_ascii_case(off)));
            }
            if self.accept(")") {
                break;
            }
            self.accept(",");
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
            let upper_case: String = statement
                .split('\'')
                .enumerate()
                .map(|(index, part)| if index % 2 == 0 { part.to_uppercase() } else { part.into() })
                .collect::<Vec<_>>()
                .join("'");
            if !statement.contains('"') {
                assert_eq!(classify(&upper_case), *kind, "{upper_case}");
            }
            let commented = statement.replacen(' ', " /* (a; -- */ -- b )\n ", 9);
            if !statement.contains('\'') && *kind != PsqlCommand {
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
    fn transaction_control_is_recognized_in_all_its_forms() {
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
    fn statements_whose_text_does_not_show_that_they_refuse_a_transaction_block() {
        for hidden in ["call p()", "do $$ $$", "reindex table t", "select f()", "cluster t"] {
            assert!(super::may_refuse_transaction_block(hidden), "{hidden}");
        }
        assert!(super::may_refuse_transaction_block("create materialized view v as select 1"));
        for harmless in ["create table t ()", "alter table t add a int", "insert into t values (1)"]
        {
            assert!(!super::may_refuse_transaction_block(harmless), "{harmless}");
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
    fn statements_that_cannot_run_in_a_transaction_block_are_recognized() {
        let refuses = |statement, name| check(&[(statement, NoTransactionBlock(name))]);
        refuses("create index concurrently on t (x)", "CREATE INDEX CONCURRENTLY");
        refuses(
            "create unique index concurrently if not exists i on t (x)",
            "CREATE INDEX CONCURRENTLY",
        );
        refuses("drop index concurrently if exists i", "DROP INDEX CONCURRENTLY");
        refuses("vacuum", "VACUUM");
        refuses("vacuum full t", "VACUUM");
        refuses("vacuum (analyze, verbose) t", "VACUUM");
        refuses("cluster", "CLUSTER");
        refuses("cluster verbose", "CLUSTER");
        refuses("cluster (verbose)", "CLUSTER");
        refuses("cluster (verbose false)", "CLUSTER");
        refuses("reindex schema s", "REINDEX SCHEMA");
        refuses("reindex (verbose) database d", "REINDEX DATABASE");
        refuses("reindex system d", "REINDEX SYSTEM");
        refuses("create database d", "CREATE DATABASE");
        refuses("drop database if exists d", "DROP DATABASE");
        refuses("alter database d set tablespace s", "ALTER DATABASE SET TABLESPACE");
        refuses("alter database d tablespace s", "ALTER DATABASE SET TABLESPACE");
        refuses("alter database \"set\" with tablespace = s", "ALTER DATABASE SET TABLESPACE");
        refuses("create tablespace s location '/s'", "CREATE TABLESPACE");
        refuses("drop tablespace s", "DROP TABLESPACE");
        refuses("alter system set work_mem = '1MB'", "ALTER SYSTEM");
        refuses("alter system reset all", "ALTER SYSTEM");
        refuses("discard all", "DISCARD ALL");
        let detach = "ALTER TABLE DETACH PARTITION CONCURRENTLY";
        refuses("alter table a.t detach partition b.p concurrently", detach);
        refuses("alter table if exists only \"T\" detach partition u&\"p\" concurrently", detach);
    }

    #[test]
    fn similar_statements_can_run_in_a_transaction_block() {
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
    fn reindex_concurrently_is_a_keyword_or_an_option_that_may_be_off() {
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
    fn subscription_commands_that_connect_to_the_publisher_cannot_run_in_a_transaction_block() {
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
    fn copy_through_the_client_differs_from_copy_on_the_server() {
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
    fn lines_for_psql_are_recognized() {
        check(&[("\\restrict a", PsqlCommand), ("\\.", PsqlCommand), ("select 1 \\g", Plain)]);
    }

    #[test]
    fn adding_an_enum_value_differs_from_other_changes_of_a_type() {
        check(&[
            ("alter type t add value 'b'", AddEnumValue),
            ("alter type \"S\" . \"T\" add value if not exists 'b' before 'a'", AddEnumValue),
            ("alter type t rename value 'a' to 'b'", Plain),
            ("alter type t add attribute value int", Plain),
            ("alter type add rename to value", Plain),
        ]);
    }

    #[test]
    fn a_setting_outlives_the_transaction() {
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
    fn statements_whose_result_exists_only_in_the_session_are_named() {
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
