use super::{Kind, Kind::*, Statement, classify};

fn may_refuse(text: &str) -> bool {
    let statement = Statement { text, start: 0, piece: 0..text.len(), kind: classify(text) };
    statement.may_refuse_transaction_block()
}

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
        assert!(may_refuse(hidden), "{hidden}");
    }
    assert!(may_refuse("create materialized view v as select 1"));
    for harmless in ["create table t ()", "alter table t add a int", "insert into t values (1)"] {
        assert!(!may_refuse(harmless), "{harmless}");
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
        ("create subscription s connection 'c' publication p with (create_slot = false)", Plain),
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
        ("select pg_catalog.set_config('client_encoding', 'UTF8', false)", Setting),
        (
            "select set_config('standard_conforming_strings', 'off', true)",
            LexingSetting("standard_conforming_strings"),
        ),
        ("select set_config('client_encoding', $1, false), 1", LexingSetting("client_encoding")),
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
        ("create or replace function pg_temp.f() returns int", SessionBound("CREATE in pg_temp")),
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
        ("declare c no scroll cursor without hold for with hold as (select 1) table hold", Plain),
    ]);
}
