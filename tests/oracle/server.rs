//! Which statements a server refuses inside a transaction block: exactly those that we know by
//! their text. Statements that would change the whole server are only ever sent inside of one.

use postgres::{Client, NoTls};
use premigrate::sql::{Kind, Script};

/// What the statements speak of.
const OBJECTS: &str = "create table t (id int primary key, v int);
create index i on t (v);
create table p (id int) partition by range (id);
create table p1 partition of p for values from (0) to (10);
create type e as enum ('a');
create materialized view m as select 1 as x;
create unique index on m (x);
create function f() returns int language sql as 'select 1';
create publication pub for table t;
create subscription s connection 'host=127.0.0.1 port=1 dbname=none' publication pub, pub3
    with (connect = false);";

/// Forms that PostgreSQL may refuse in a transaction block, with the first version that has them.
const REFUSED: [(&str, u32); 61] = [
    ("create database oracle_d", 13),
    ("create database oracle_d template template0", 13),
    ("drop database oracle_d", 13),
    ("drop database if exists oracle_d", 13),
    ("drop database if exists oracle_d with (force)", 13),
    ("alter database postgres set tablespace pg_default", 13),
    ("alter database postgres tablespace pg_default", 13),
    ("alter database postgres with tablespace = pg_default", 13),
    ("create tablespace oracle_s location '/nowhere'", 13),
    ("drop tablespace oracle_s", 13),
    ("drop tablespace if exists oracle_s", 13),
    ("vacuum", 13),
    ("vacuum t", 13),
    ("vacuum full t", 13),
    ("vacuum freeze verbose analyze t (v)", 13),
    ("vacuum (analyze, parallel 1) t", 13),
    ("create index concurrently on t (v)", 13),
    ("create unique index concurrently j on t (v)", 13),
    ("create index concurrently if not exists j on t using hash (v)", 13),
    ("drop index concurrently i", 13),
    ("drop index concurrently if exists i", 13),
    ("reindex index concurrently i", 13),
    ("reindex table concurrently t", 13),
    ("reindex (verbose) table concurrently t", 13),
    ("reindex (concurrently) table t", 14),
    ("reindex (concurrently true) index i", 14),
    ("reindex schema public", 13),
    ("reindex schema concurrently public", 13),
    ("reindex (verbose) schema public", 13),
    ("reindex (concurrently false) schema public", 14),
    ("reindex system postgres", 13),
    ("reindex database postgres", 13),
    ("reindex database concurrently postgres", 13),
    ("reindex database", 16),
    ("reindex system", 16),
    ("cluster", 13),
    ("cluster verbose", 13),
    ("cluster (verbose)", 17),
    ("alter system set work_mem = '8MB'", 13),
    ("alter system reset work_mem", 13),
    ("alter system reset all", 13),
    ("create subscription s2 connection 'host=127.0.0.1 port=1' publication pub", 13),
    (
        "create subscription s2 connection 'host=127.0.0.1 port=1' publication pub \
         with (copy_data = false, create_slot = true)",
        13,
    ),
    ("drop subscription s", 13),
    ("drop subscription if exists s", 13),
    ("alter subscription s refresh publication", 13),
    ("alter subscription s refresh publication with (copy_data = false)", 13),
    ("alter subscription s set publication pub", 13),
    ("alter subscription s set publication pub with (refresh)", 13),
    ("alter subscription s add publication other", 14),
    ("alter subscription s drop publication pub with (refresh = true)", 14),
    ("alter table p detach partition p1 concurrently", 14),
    ("alter table if exists only p detach partition public.p1 concurrently", 14),
    ("alter table public . p detach partition p1 /* , */ concurrently", 14),
    ("discard all", 13),
    ("commit prepared 'none'", 13),
    ("rollback prepared 'none'", 13),
    ("Vacuum -- c\n (disable_page_skipping) t", 13),
    ("create /* c */ index concurrently on t (v) where v is not null", 13),
    ("alter database \"postgres\" set\ttablespace \"pg_default\"", 13),
    ("reindex(concurrently on, verbose)table t", 14),
];

/// Their neighbours, which PostgreSQL takes.
const TAKEN: [(&str, u32); 47] = [
    ("alter database postgres set work_mem = '8MB'", 13),
    ("alter database postgres connection limit 50", 13),
    ("alter database postgres set tablespace.x = y", 13),
    ("alter database postgres with allow_connections = true", 13),
    ("alter database postgres rename to oracle_d", 13),
    ("analyze", 13),
    ("analyze (verbose) t", 13),
    ("create index on t (v)", 13),
    ("create index concurrently_ on t (v)", 13),
    ("drop index i", 13),
    ("drop index if exists concurrently_", 13),
    ("reindex index i", 13),
    ("reindex table t", 13),
    ("reindex (verbose) table t", 13),
    ("reindex (concurrently false) table t", 14),
    ("reindex (concurrently off) index i", 14),
    ("reindex (concurrently 0) index i", 14),
    ("cluster t using t_pkey", 13),
    ("cluster verbose t using t_pkey", 13),
    ("refresh materialized view m", 13),
    ("refresh materialized view concurrently m", 13),
    ("create subscription s2 connection 'host=x' publication pub with (connect = false)", 13),
    ("alter subscription s set publication pub with (refresh = false)", 13),
    ("alter subscription s add publication other with (refresh = false)", 14),
    ("alter subscription s set (slot_name = 'x')", 13),
    ("alter subscription s set (synchronous_commit = off)", 13),
    ("alter subscription s disable", 13),
    ("alter subscription s connection 'host=y'", 13),
    ("alter subscription s rename to refresh", 13),
    ("alter subscription s owner to current_user", 13),
    ("alter table p detach partition p1", 13),
    ("alter table p detach partition p1 /* concurrently */", 13),
    ("alter type e add value 'b'", 13),
    ("alter type e add value if not exists 'c' before 'a'", 13),
    ("alter type e rename value 'a' to 'z'", 13),
    ("discard plans", 13),
    ("discard temp", 13),
    ("discard sequences", 13),
    ("truncate t", 13),
    ("lock table t", 13),
    ("create publication pub2 for table t", 13),
    ("drop publication pub", 13),
    ("create schema s2 create table x (y int)", 13),
    ("set transaction read only", 13),
    ("savepoint a", 13),
    ("notify c", 13),
    ("do 'begin perform 1; end'", 13),
];

fn url(database: &str) -> String {
    let url = std::env::var("TEST_DATABASE_URL").expect("scripts/with-postgres gives one");
    let (server, _) = url.rsplit_once('/').expect("a URL");
    format!("{server}/{database}")
}

fn connect(database: &str) -> Client {
    Client::connect(&url(database), NoTls).expect("the server answers")
}

#[test]
fn the_server_refuses_in_a_transaction_block_exactly_what_stands_alone() {
    connect("postgres").batch_execute("create database oracle").expect("a database");
    let mut client = connect("oracle");
    client.batch_execute(OBJECTS).expect("the objects");
    // Its worker finds no publisher, and tries again; a disabled one is refused for that first.
    client.batch_execute("alter subscription s enable").expect("a subscription");
    let version: u32 = client
        .query_one("show server_version_num", &[])
        .expect("a version")
        .get::<_, String>(0)
        .parse()
        .expect("a number");
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (place, (statement, since)) in REFUSED.iter().chain(&TAKEN).enumerate() {
        if version / 10_000 < *since {
            continue;
        }
        client.batch_execute("begin").expect("a transaction");
        let result = client.batch_execute(statement);
        client.batch_execute("rollback").expect("its end");
        let code = result.as_ref().err().and_then(|error| error.code()).map(|code| code.code());
        let script = Script::read(statement);
        let [read] = script.statements() else { panic!("{statement}") };
        let alone = matches!(read.kind, Kind::Alone(_));
        // What is refused for another reason would show nothing.
        let expected = if place < REFUSED.len() { Some("25001") } else { None };
        if code != expected || alone != expected.is_some() {
            wrong.push(format!("{statement}: {:?}, {result:?}", read.kind));
        }
        asked += 1;
    }
    client.batch_execute("alter subscription s disable").expect("quiet");
    println!("PostgreSQL {version}: {asked} statements asked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 90, "{asked}");
}
