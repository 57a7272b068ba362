//! Any number of runners at once.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls};
use premigrate::apply::lock;

use crate::harness::{Database, Folder, Premigrate, Running, eventually, premigrate, server_port};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Proxy, Side};
use crate::server::Server;

const RUNNERS: usize = 12;
const ROUNDS: usize = 5;

/// Migrations whose effects, done twice, would be seen.
fn counting() -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_one", "insert into log values ('one')"),
        ("0002_two", "insert into log values ('two');\nselect pg_sleep(0.1)"),
        ("0003_three", "insert into log values ('three')"),
        ("0004_index", "create index on log (what)"),
    ])
}

#[track_caller]
fn applied_once(database: &Database, folder: &Folder) {
    assert_eq!(database.rows("select what from log order by what"), ["one", "three", "two"]);
    let files = ["0000_log", "0001_one", "0002_two", "0003_three", "0004_index"];
    assert_eq!(database.history(), files.map(|file| folder.hash(&format!("{file}.sql"))));
}

const SLEEPING: &str = "select from pg_stat_activity where datname = current_database() \
    and wait_event = 'PgSleep'";

/// Starts a run on the database, and waits until it sleeps in a migration.
fn start_slow(database: &Database, folder: &Folder) -> Running {
    let running = premigrate(database, folder).start();
    database.direct().wait_for("the slow migration", SLEEPING);
    running
}

fn slow(seconds: f64) -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        (
            "0001_slow",
            &format!("insert into log values ('slow');\nselect pg_sleep({seconds});\nselect 1"),
        ),
    ])
}

/// The same, but only the first who runs it sleeps.
fn slow_once(database: &Database) -> Folder {
    database.execute("create sequence tries");
    let sleep = "do $$ begin if nextval('tries') = 1 then perform pg_sleep(60); end if; end $$";
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", &format!("insert into log values ('slow');\n{sleep};\nselect 1")),
    ])
}

/// Twelve runners on an empty database, and that on five databases at once.
fn all_at_once(port: u16) {
    thread::scope(|scope| {
        for _ in 0..ROUNDS {
            scope.spawn(move || {
                let database = Database::fresh();
                let folder = counting();
                let through = database.through(port);
                let start = || premigrate(&through, &folder).arg("--strict").start();
                let runs: Vec<_> = (0..RUNNERS).map(|_| start()).collect();
                for run in runs {
                    run.finish().exits(0);
                }
                applied_once(&database, &folder);
                assert_eq!(database.rows(ADVISORY_LOCKS), Vec::<String>::new());
            });
        }
    });
}

const ADVISORY_LOCKS: &str = "select pid from pg_locks where locktype = 'advisory' \
    and database = (select oid from pg_database where datname = current_database())";

#[test]
fn twelve_at_once_apply_each_migration_once() {
    all_at_once(server_port());
}

#[test]
fn twelve_at_once_through_pgbouncer_apply_each_migration_once() {
    let pooler = PgBouncer::start(20);
    all_at_once(pooler.port);
}

#[test]
fn a_pool_of_one_connection_is_enough_for_all() {
    let pooler = PgBouncer::start(1);
    let database = Database::fresh();
    let folder = counting();
    let through = pooler.to(&database);
    let runs: Vec<_> = (0..RUNNERS).map(|_| premigrate(&through, &folder).start()).collect();
    for run in runs {
        run.finish().exits(0);
    }
    applied_once(&database, &folder);
}

#[test]
fn a_full_pool_counts_against_runner_wait() {
    let pooler = PgBouncer::start(1);
    let database = Database::fresh();
    let folder = slow(1.5);
    let through = pooler.to(&database);
    let first = start_slow(&through, &folder);
    premigrate(&through, &folder).args(&["--wait", "300ms"]).run().exits(0);
    first.finish().exits(0);
    assert_eq!(database.rows("select what from log"), ["slow"]);
}

/// A role that may have two sessions at a time.
fn limited_to_two(database: &Database) -> Database {
    let role = &database.name;
    database.execute(&format!(
        "create role {role} login connection limit 2;\n\
         grant all on database {role} to {role};\n\
         grant all on schema public to {role}"
    ));
    let url = database.url.replace("postgres@", &format!("{role}@"));
    Database::named(role, url)
}

/// A session, as soon as there is room for it.
fn client_of(database: &Database) -> Client {
    let mut client = None;
    eventually("a session", || {
        client = Client::connect(&database.url, NoTls).ok();
        client.is_some()
    });
    client.expect("a session")
}

#[test]
fn a_full_server_counts_against_wait_where_no_other_runner_was_seen() {
    let database = Database::fresh();
    let limited = limited_to_two(&database);
    let _others = [client_of(&limited), client_of(&limited)];
    let folder = slow(0.0);
    let run = premigrate(&limited, &folder).args(&["--wait", "500ms"]).run().exits(69);
    let run = run.says(&["too many connections for role", "hint: raise the connection limit"]);
    assert!(run.took < Duration::from_secs(20), "{:?}", run.took);
    assert_eq!(database.tables(), [""; 0]);
}

#[test]
fn a_full_server_counts_against_runner_wait_once_another_runner_was_seen() {
    let database = Database::fresh();
    let limited = limited_to_two(&database);
    let folder = slow(8.0);
    let first = start_slow(&limited, &folder);
    let waiting = premigrate(&limited, &folder).args(&["--wait", "300ms"]).start();
    waiting.wait_to_say("another runner");
    let other = client_of(&limited);
    waiting.wait_to_say("too many connections for role");
    first.finish().exits(0);
    waiting.finish().exits(0).says(&["up to date"]);
    drop(other);
    assert_eq!(database.rows("select what from log"), ["slow"]);
}

#[test]
fn a_runner_killed_in_the_middle_is_succeeded_by_the_one_that_waits() {
    let database = Database::fresh();
    let folder = slow_once(&database);
    let killed = start_slow(&database, &folder);
    let waiting = premigrate(&database, &folder).start();
    waiting.wait_to_say("another runner");
    killed.signal("KILL");
    killed.finish().exits(-9);
    waiting.finish().exits(0);
    assert_eq!(database.rows("select what from log"), ["slow"]);
    assert_eq!(database.history().len(), 2);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_runner_killed_behind_pgbouncer_is_succeeded_by_the_one_that_waits() {
    let pooler = PgBouncer::start(20);
    let database = Database::fresh();
    let folder = slow_once(&database);
    let through = pooler.to(&database);
    let killed = start_slow(&through, &folder);
    let waiting = premigrate(&through, &folder).start();
    waiting.wait_to_say("another runner");
    killed.signal("KILL");
    killed.finish().exits(-9);
    waiting.finish().exits(0);
    assert_eq!(database.rows("select what from log"), ["slow"]);
    assert_eq!(database.history().len(), 2);
}

#[test]
fn who_waits_says_for_whom_and_holds_nothing_meanwhile() {
    let database = Database::fresh();
    let folder = slow(60.0);
    let first = start_slow(&database, &folder);
    let holder = database.value(
        "select pid from pg_stat_activity where datname = current_database() \
         and application_name = 'premigrate'",
    );
    let waiting = premigrate(&database, &folder).start();
    waiting.wait_to_say(&format!("backend {holder} of premigrate"));
    let others = format!(
        "select from pg_stat_activity where datname = current_database() \
         and application_name = 'premigrate' and pid <> {holder}"
    );
    database.wait_for_no("session of the one that waits", &others);
    waiting.end_by("TERM").exits(143);
    first.end_by("TERM").exits(143);
}

#[test]
fn runner_wait_is_how_long_another_is_waited_for() {
    let database = Database::fresh();
    let folder = slow(60.0);
    let first = start_slow(&database, &folder);
    let locked_out = |wait: &str| -> Premigrate {
        premigrate(&database, &folder).args(&["--runner-wait", wait, "--", "echo", "started"])
    };
    let run = locked_out("0").run().exits(75);
    let run = run.says(&["another runner is still at work", "of premigrate", "was not started"]);
    assert_eq!(run.stdout, "");
    let run = locked_out("1s").run().exits(75);
    assert!(run.took > Duration::from_secs(1), "{:?}", run.took);
    first.end_by("TERM").exits(143);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_history_that_changed_since_it_was_read_is_read_again() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_one", "insert into log values ('ours')");
    // Between our reading and our lock, another one records the migration.
    let proxy = {
        let hash = folder.hash("0001_one.sql");
        let database = database.direct();
        Proxy::start(move |message| {
            if message.text.starts_with("begin isolation level") {
                database.execute(&format!(
                    "insert into drizzle.__drizzle_migrations (hash, created_at) \
                     select '{hash}', 1700000001000 where not exists \
                     (select from drizzle.__drizzle_migrations where hash = '{hash}')"
                ));
            }
            Action::Pass
        })
    };
    premigrate(&proxy.to(&database), &folder).run().exits(0).does_not_say("applied 0001_one in");
    assert_eq!(database.rows("select from log").len(), 0);
    assert_eq!(database.history().len(), 2);
}

#[test]
fn progress_that_began_since_the_history_was_read_is_heeded() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_one", "insert into log values ('ours')");
    // Between our reading and our lock, another one, with another file, does its first step.
    let progress = "drizzle.__drizzle_migrations_progress";
    let proxy = {
        let database = database.direct();
        Proxy::start(move |message| {
            if message.text.starts_with("begin isolation level") {
                database.execute(&format!(
                    "create table {progress} (migration text not null, step integer not null, \
                     hash text not null, finished boolean not null, statement text, pid integer, \
                     backend_start timestamp with time zone, primary key (migration, step)); \
                     insert into {progress} values ('0001_one', 1, 'another', true)"
                ));
            }
            Action::Pass
        })
    };
    premigrate(&proxy.to(&database), &folder).run().exits(65);
    assert_eq!(database.rows("select from log").len(), 0);
    assert_eq!(database.history().len(), 1);
}

/// As a role that may only read and add rows of the history, and so not lock it; it owns the rest.
fn as_role_without_update(database: &Database) -> Database {
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select, insert on drizzle.__drizzle_migrations to {role}; \
         grant usage on all sequences in schema drizzle to {role}; \
         grant create on schema public, drizzle to {role}; \
         alter table log owner to {role}"
    ));
    database.at(url)
}

/// The row that records a migration of this folder, which is so many seconds younger than the last one
/// that was applied.
fn row_of(folder: &Folder, migration: &str, seconds: u32) -> String {
    format!(
        "insert into drizzle.__drizzle_migrations (hash, created_at) \
         select '{}', max(created_at) + {seconds}000 from drizzle.__drizzle_migrations",
        folder.hash(&format!("{migration}.sql"))
    )
}

#[test]
fn a_runner_that_takes_no_lock_is_waited_for_once_it_has_written_to_the_history() {
    for locks_history in [true, false] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
        premigrate(&database, &folder).run().exits(0);
        let ours = match locks_history {
            true => database.direct(),
            false => as_role_without_update(&database),
        };
        folder.add("0001_once", "insert into log values ('once')");
        let row = row_of(&folder, "0001_once", 1);
        let mut other = database.holding(&format!("insert into log values ('once'); {row}"));
        let pid = crate::harness::rows(&mut other, "select pg_backend_pid()").concat();
        let running = premigrate(&ours, &folder).start();
        running.wait_to_say(&format!("backend {pid}"));
        other.batch_execute("commit").unwrap();
        running.finish().exits(0);
        assert_eq!(database.rows("select what from log"), ["once"]);
        assert_eq!(database.history().len(), 2);
    }
}

/// A history with one row, and three migrations to come; the first of them begins with this SQL.
fn three_to_come(database: &Database, first: &str) -> Folder {
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(database, &folder).run().exits(0);
    folder.add("0001_a", &format!("{first}; insert into log values ('a')"));
    folder.add("0002_b", "insert into log values ('b')");
    folder.add("0003_c", "insert into log values ('c')");
    folder
}

#[test]
fn a_row_that_another_runner_writes_during_a_transaction_without_lock_is_found_before_the_next() {
    let database = Database::fresh();
    let wait = "select pg_advisory_lock(17), pg_advisory_unlock(17)";
    let folder = three_to_come(&database, wait);
    let ours = as_role_without_update(&database);
    let mut gate = database.client();
    gate.batch_execute("select pg_advisory_lock(17)").unwrap();
    let running = premigrate(&ours, &folder).start();
    database.wait_for("our migration", "select from pg_locks where objid = 17 and not granted");
    // It gets a lower id than our row, and is committed later.
    let row = row_of(&folder, "0002_b", 2);
    let mut other = database.holding(&format!("insert into log values ('b'); {row}"));
    let pid = crate::harness::rows(&mut other, "select pg_backend_pid()").concat();
    gate.batch_execute("select pg_advisory_unlock(17)").unwrap();
    running.wait_to_say(&format!("backend {pid}"));
    other.batch_execute("commit").unwrap();
    running.finish().exits(0);
    assert_eq!(database.rows("select what from log order by what"), ["a", "b", "c"]);
    assert_eq!(database.history().len(), 4);
}

#[test]
fn a_row_that_another_runner_writes_during_a_statement_outside_a_transaction_is_found_after_it() {
    for locks_history in [true, false] {
        let database = Database::fresh();
        let folder = three_to_come(&database, "vacuum log");
        let ours = match locks_history {
            true => database.direct(),
            false => as_role_without_update(&database),
        };
        let mut gate = database.holding("lock table log in share update exclusive mode");
        let running = premigrate(&ours, &folder).start();
        database.wait_for("our VACUUM", "select from pg_locks where not granted");
        let row = row_of(&folder, "0002_b", 2);
        database.execute(&format!("insert into log values ('b'); {row}"));
        gate.batch_execute("commit").unwrap();
        running.finish().exits(0);
        assert_eq!(database.rows("select what from log order by what"), ["a", "b", "c"]);
        assert_eq!(database.history().len(), 4);
    }
}

/// With one migration applied, and one to come: as one transaction, and in an isolation level of its
/// own, where the history is locked first.
fn one_to_come(database: &Database, isolated: bool) -> Folder {
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    premigrate(database, &folder).run().exits(0);
    let isolation = if isolated { "set transaction isolation level serializable;" } else { "" };
    folder.add("0001_b", &format!("{isolation}create table b ()"));
    folder
}

#[test]
fn a_session_that_only_locks_the_history_is_named_with_its_lock_and_is_no_runner() {
    for isolated in [false, true] {
        let database = Database::fresh();
        let folder = one_to_come(&database, isolated);
        let mut other = database
            .holding("lock table drizzle.__drizzle_migrations in share update exclusive mode");
        let pid = crate::harness::rows(&mut other, "select pg_backend_pid()").concat();
        let lock = format!("lock on drizzle.__drizzle_migrations held by backend {pid}");
        let run = premigrate(&database, &folder).args(&["--lock-retries", "0"]).run().exits(75);
        run.says(&["Last seen: ", &lock]).does_not_say("another runner");
        let running = premigrate(&database, &folder).start();
        running.wait_to_say(&lock);
        other.batch_execute("commit").unwrap();
        running.finish().exits(0).does_not_say("another runner");
        assert_eq!(database.tables(), ["a", "b"]);
    }
}

#[test]
fn a_lock_on_the_history_that_no_session_stands_for_is_waited_for_as_a_lock() {
    let server = Server::start("max_prepared_transactions = 1");
    let database = server.database();
    let folder = one_to_come(&database, false);
    let prepare =
        "lock table drizzle.__drizzle_migrations in share mode; prepare transaction 'held'";
    let mut other = database.client();
    other.batch_execute(&format!("begin; {prepare}")).unwrap();
    let run = premigrate(&database, &folder).args(&["--lock-retries", "0"]).run().exits(75);
    run.says(&["55P03"]).does_not_say("another runner");
    let running = premigrate(&database, &folder).start();
    running.wait_to_say("(attempt 2)");
    other.batch_execute("commit prepared 'held'").unwrap();
    running.finish().exits(0);
    assert_eq!(database.tables(), ["a", "b"]);
}

#[test]
fn an_autovacuum_of_the_history_is_waited_for_and_told_as_that_to_every_role() {
    let server = Server::start("autovacuum_naptime = 1");
    let database = server.database();
    let folder = one_to_come(&database, false);
    let (role, url) = database.role();
    // Rows of other migrations, which are vacuumed slowly.
    let history = "drizzle.__drizzle_migrations";
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select, insert, update on {history} to {role}; \
         grant usage on all sequences in schema drizzle to {role}; \
         grant create on schema public to {role}; \
         alter table {history} set (autovacuum_vacuum_cost_delay = 100, \
         autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0, \
         autovacuum_vacuum_scale_factor = 0); \
         insert into {history} (hash, created_at) select 'other', 1 from generate_series(1, 5000); \
         update {history} set hash = hash || '' where hash = 'other'"
    ));
    database.wait_for(
        "the autovacuum",
        "select from pg_stat_activity join pg_locks using (pid) \
         where backend_type = 'autovacuum worker' and mode = 'ShareUpdateExclusiveLock' \
         and relation = 'drizzle.__drizzle_migrations'::regclass",
    );
    let limited = database.at(url);
    let running = premigrate(&limited, &folder).args(&["--lock-retries", "0"]).start();
    running.wait_to_say("for the history table, which is locked by autovacuum (backend");
    database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where backend_type = 'autovacuum worker'; \
         alter table drizzle.__drizzle_migrations set (autovacuum_enabled = off)",
    );
    running.finish().exits(0).does_not_say("another runner");
    assert_eq!(database.tables(), ["a", "b"]);
}

#[test]
fn a_runner_that_has_gone_when_it_is_looked_up_is_not_said_to_be_out_of_sight() {
    let database = Database::fresh();
    let folder = one_to_come(&database, false);
    let other = Mutex::new(Some(database.holding(&lock::take_sql())));
    let proxy = Proxy::start(move |message| {
        // It ends between our attempt and our look for it.
        if message.from == Side::Client && message.text.contains("pg_locks") {
            drop(other.lock().unwrap().take());
            std::thread::sleep(Duration::from_millis(300));
        }
        Action::Pass
    });
    let run = premigrate(&proxy.to(&database), &folder).run().exits(0);
    run.says(&["another runner was at work, and has just gone"]).does_not_say("cannot see");
}

#[test]
fn only_the_transaction_that_took_the_lock_still_holds_it() {
    let database = Database::fresh();
    let is_held = |after: &str| {
        let mut client = database.client();
        client.batch_execute(&format!("begin deferrable; {}", lock::take_sql())).unwrap();
        client.batch_execute(after).unwrap();
        let is_held = client.batch_execute(&lock::still_held_sql()).is_ok();
        // A dropped client's session may outlive the next test's start.
        client.batch_execute("rollback").unwrap();
        is_held
    };
    for after in ["select", "savepoint a; release a", "savepoint a; rollback to a", "reset all"] {
        assert!(is_held(after), "{after}");
    }
    for after in ["commit", "commit; begin", "rollback; begin"] {
        assert!(!is_held(after), "{after}");
    }
}

/// A function that sets all settings back.
const FORGET: &str = "create function forget() returns void language plpgsql \
     as $$ begin execute 'Reset All'; end $$";

#[test]
fn a_migration_that_resets_all_settings_and_closes_all_cursors_still_holds_the_lock() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_log", "reset all;\ncreate table log (what text)"),
        ("0001_forget", FORGET),
        ("0002_call", "select forget(); close all"),
    ]);
    premigrate(&database, &folder).run().exits(0);
    let files = ["0000_log.sql", "0001_forget.sql", "0002_call.sql"];
    assert_eq!(database.history(), files.map(|file| folder.hash(file)));
}

#[test]
fn a_function_of_the_database_may_reset_all_settings() {
    let database = Database::fresh();
    database.execute(FORGET);
    let folder = Folder::drizzle0(&[("0000_log", "create table log (); select forget()")]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn the_same_lock_is_taken_by_every_release() {
    let database = Database::fresh();
    let mut held = database.holding("select pg_advisory_xact_lock(8102650200187171425)");
    let folder = counting();
    premigrate(&database, &folder).args(&["--runner-wait", "0"]).run().exits(75);
    held.batch_execute("commit").unwrap();
    premigrate(&database, &folder).args(&["--runner-wait", "0"]).run().exits(0);
}

#[test]
fn databases_of_one_server_do_not_wait_for_each_other() {
    let (one, other) = (Database::fresh(), Database::fresh());
    let folder = slow(60.0);
    let first = start_slow(&one, &folder);
    premigrate(&other, &counting()).args(&["--runner-wait", "0"]).run().exits(0);
    first.end_by("TERM").exits(143);
}
