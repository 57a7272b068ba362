//! Standbys, read-only servers, crashes, and a failover between two hosts.

use crate::harness::{Database, Folder, premigrate};
use crate::proxy::{Action, Proxy};
use crate::server::Server;

fn folder() -> Folder {
    Folder::drizzle0(&[("0000_log", "create table log (what text)")])
}

/// The database with both hosts in its URL.
fn either(first: &Server, second: &Server) -> Database {
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?connect_timeout=2",
        first.port, second.port
    );
    Database::named("postgres", url)
}

#[test]
fn the_app_starts_on_a_standby_if_nothing_is_pending_and_waits_for_the_primary_otherwise() {
    let primary = Server::start("");
    let folder = folder();
    premigrate(&primary.database(), &folder).run().exits(0);
    let standby = primary.standby();
    let run = premigrate(&standby.database(), &folder).args(&["--", "echo", "started"]).run();
    assert_eq!(run.exits(0).stdout, "started\n");

    folder.add("0001_more", "insert into log values ('more')");
    folder.add("0002_index", "create index concurrently log_what on log (what)");
    let run = premigrate(&standby.database(), &folder).args(&["--wait", "2s"]).run().exits(69);
    run.says(&[
        "waiting up to 2.0 s for the primary: the server is a read-only standby",
        "the server is a read-only standby; connect to the primary, or name all servers",
    ]);

    let impossible = Folder::drizzle0(&[("0000_a", "\\connect other")]);
    premigrate(&standby.database(), &impossible).args(&["--wait", "60s"]).run().exits(65);
    let waiting = premigrate(&standby.database(), &folder).args(&["--wait", "60s"]).start();
    waiting.wait_to_say("standby");
    standby.promote();
    waiting.finish().exits(0).says(&["applied 0001_more", "applied 0002_index"]);
    assert_eq!(standby.database().rows("select what from log"), ["more"]);
}

#[test]
fn the_primary_is_looked_for_among_all_hosts_only_if_something_is_pending() {
    let primary = Server::start("");
    let folder = folder();
    let standby = primary.standby();
    let both = either(&standby, &primary);
    folder.add("0001_index", "create index concurrently log_what on log (what)");
    let run = premigrate(&both, &folder).args(&["--", "echo", "started"]).run().exits(0);
    let run = run.says(&["looking for the primary", "target_session_attrs=read-write"]);
    assert_eq!(run.stdout, "started\n");
    assert_eq!(primary.database().history().len(), 2);

    // The standby may not have received it yet.
    let is_there = "select from pg_tables where tablename = '__drizzle_migrations'";
    standby.database().wait_for("the table", is_there);
    standby.database().wait_for("the rows", "select from drizzle.__drizzle_migrations offset 1");
    let run = premigrate(&both, &folder).args(&["--", "echo", "started"]).run().exits(0);
    run.does_not_say("primary").says(&["up to date"]);

    folder.add("0002_more", "create table more ()");
    primary.down();
    let run = premigrate(&both, &folder).args(&["--wait", "2s"]).run().exits(69);
    run.says(&["looking for the primary", "the server is read-only", "1 is pending"]);
}

#[test]
fn a_standby_behind_a_pooler_is_not_a_failure_of_the_migration() {
    let primary = Server::start("");
    let folder = folder();
    premigrate(&primary.database(), &folder).run().exits(0);
    let standby = primary.standby();
    // As with a pooler for several servers, the history is read on the primary.
    let proxy = Proxy::before(standby.port, |message| {
        match message.text.contains("select pg_catalog.pg_is_in_recovery()") {
            true => Action::ReplaceWith(
                "select true; select false; select xmin, * from drizzle.__drizzle_migrations",
            ),
            false => Action::Pass,
        }
    });
    folder.add("0001_more", "insert into log values ('more')");
    folder.add("0002_index", "create index concurrently log_what on log (what)");
    let run = premigrate(&proxy.to(&standby.database()), &folder).run().exits(69);
    run.says(&["cannot set transaction read-write mode during recovery"]);
}

#[test]
fn a_migration_continues_on_the_standby_after_the_primary_crashed() {
    let primary = Server::start("");
    primary.database().execute("create sequence tries; create table log (what text)");
    let standby = primary.standby();
    let folder = Folder::drizzle0(&[
        ("0000_one", "insert into log values ('one')"),
        (
            "0001_two",
            "insert into log values ('two');\ncommit;\nselect pg_sleep(3);\n\
              insert into log values ('three');",
        ),
        ("0002_index", "create index concurrently log_what on log (what)"),
    ]);
    let both = either(&primary, &standby);
    let running = premigrate(&both, &folder).args(&["--wait", "90s"]).start();
    let asleep = "select from pg_stat_activity where wait_event = 'PgSleep'";
    primary.database().wait_for("the slow step", asleep);
    // The commit is replicated.
    standby.database().wait_for("the first step", "select from log where what = 'two'");
    primary.down();
    running.wait_to_say("connection lost during 0001_two");
    standby.promote();
    let run = running.finish().exits(0);
    run.says(&[
        "connection lost during 0001_two",
        "1 of 2 steps already done",
        "applied 0002_index",
    ]);
    let database = standby.database();
    assert_eq!(database.rows("select what from log order by what"), ["one", "three", "two"]);
    assert_eq!(database.history().len(), 3);
    assert_eq!(
        database.rows("select indisvalid from pg_index where indrelid = 'log'::regclass"),
        ["t"]
    );
}

#[test]
fn an_index_build_is_repeated_after_the_server_crashed() {
    let server = Server::start("");
    let database = server.database();
    database.execute("create table t (a int)");
    let mut writer = database.client();
    writer.batch_execute("begin; insert into t values (1)").unwrap();
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently t_a on t (a)")]);
    let running = premigrate(&database, &folder).start();
    let building = "select from pg_stat_activity where query ~ 'premigrate' and state = 'active' \
         and query ~ 'create index' and pid <> pg_backend_pid()";
    database.wait_for("the build", building);
    server.down();
    running.wait_to_say("connection lost during 0000_a");
    server.up();
    running.finish().exits(0).says(&["connection lost during 0000_a", "applied 0000_a"]);
    assert_eq!(
        database.rows("select indisvalid from pg_index where indrelid = 't'::regclass"),
        ["t"]
    );
}
