//! Each version of the server refuses inside a transaction block exactly the statements that we
//! recognize. Everything is sent inside of one, since some statements would change the whole server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use premigrate::sql::{Kind, Script};

/// The objects that the statements are about.
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
    with (connect = false);
create subscription off connection 'host=127.0.0.1 port=1 dbname=none' publication pub
    with (connect = false);";

/// Statements that PostgreSQL refuses in a transaction block, with the first version from 13 to 18
/// that does. All later ones do too.
const REFUSED: [(&str, u32); 64] = [
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
    ("alter subscription s refresh publication", 14),
    ("alter subscription s refresh publication with (copy_data = false)", 14),
    ("alter subscription s set publication pub", 14),
    ("alter subscription s set publication pub with (refresh)", 14),
    ("alter subscription s add publication other", 14),
    ("alter subscription off set (failover = true)", 17),
    ("alter subscription off set (failover = false)", 17),
    ("alter subscription off set (two_phase = false)", 18),
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

/// Similar statements that PostgreSQL accepts, with the first version that has them.
const ACCEPTED: [(&str, u32); 47] = [
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

/// The versions of the server that npm has for this architecture.
const VERSIONS: &[u32] =
    if cfg!(target_arch = "aarch64") { &[15, 16, 17, 18] } else { &[13, 14, 15, 16, 17, 18] };

/// A server that stops when dropped.
struct Server {
    script: Child,
    url: String,
}

impl Server {
    fn start(version: u32) -> Server {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = format!("node_modules/postgresql-{version}-{}", std::env::consts::ARCH);
        let home = here.join(package).join("native");
        assert!(home.is_dir(), "{} is missing: scripts/setup node", home.display());
        let mut script = Command::new(here.join("../../scripts/with-postgres"))
            // The server runs until its standard input is closed.
            .args(["sh", "-c", "echo $TEST_DATABASE_URL; cat"])
            .env("POSTGRES_HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/with-postgres");
        let mut url = String::new();
        let output = script.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut url).expect("its address");
        assert!(!url.is_empty(), "PostgreSQL {version} did not start");
        Server { script, url: url.trim_end().to_owned() }
    }

    fn connect(&self, database: &str) -> Client {
        let (server, _) = self.url.rsplit_once('/').expect("a URL");
        Client::connect(&format!("{server}/{database}"), NoTls).expect("the server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let until = Instant::now() + Duration::from_secs(60);
        while self.script.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = self.script.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn servers_from_13_to_18_refuse_in_a_transaction_block_what_we_recognize() {
    let differences: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> =
            VERSIONS.iter().map(|&version| scope.spawn(move || differences(version))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a server")).collect()
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Where this server and premigrate disagree.
fn differences(version: u32) -> Vec<String> {
    let server = Server::start(version);
    server.connect("postgres").batch_execute("create database oracle").expect("a database");
    let mut client = server.connect("oracle");
    client.batch_execute(OBJECTS).expect("the objects");
    // Enabled, since a disabled one is refused for another reason. Its worker finds no publisher.
    client.batch_execute("alter subscription s enable").expect("a subscription");
    let number: String =
        client.query_one("show server_version_num", &[]).expect("a version").get(0);
    assert_eq!(number.parse::<u32>().expect("a number") / 10_000, version);
    let mut count = 0;
    let mut differences = Vec::new();
    for (index, (statement, since)) in REFUSED.iter().chain(&ACCEPTED).enumerate() {
        if version < *since {
            continue;
        }
        client.batch_execute("begin").expect("a transaction");
        let result = client.batch_execute(statement);
        client.batch_execute("rollback").expect("its end");
        let code = result.as_ref().err().and_then(|error| error.code()).map(|code| code.code());
        let script = Script::parse(statement);
        let read = script.statements().first().expect(statement);
        assert_eq!(script.statements().len(), 1, "{statement}");
        let outside_transaction = matches!(read.kind, Kind::NoTransactionBlock(_));
        // A refusal for another reason would prove nothing.
        let expected = if index < REFUSED.len() { Some("25001") } else { None };
        if code != expected || outside_transaction != expected.is_some() {
            differences
                .push(format!("PostgreSQL {version}: {statement}: {:?}, {result:?}", read.kind));
        }
        count += 1;
    }
    client.batch_execute("alter subscription s disable").expect("quiet");
    println!("PostgreSQL {version}: {count} statements");
    assert!(count > 85, "PostgreSQL {version}: {count}");
    differences
}
