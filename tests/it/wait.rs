//! `wait`: a replica that only waits for others to apply the migrations.

use std::time::{Duration, Instant};

use premigrate::apply::lock;

use crate::harness::{
    Database, Folder, IN_TIME, Premigrate, eventually, premigrate, unique, with_database,
};

const REPLICAS: usize = 20;

/// The same database, as a role that may read what the owner makes, and write nothing.
fn as_reader(database: &Database) -> (String, Database) {
    let (role, url) = database.role();
    database.execute(&format!(
        "alter role {role} set default_transaction_read_only = on; \
         alter default privileges grant usage on schemas to {role}; \
         alter default privileges grant select on tables to {role}"
    ));
    (role, database.at(url))
}

fn wait(database: &Database, folder: &Folder) -> Premigrate {
    premigrate(database, folder).arg("wait")
}

fn two() -> Folder {
    Folder::drizzle0(&[("0000_a", "create table a (id int)"), ("0001_b", "select 1")])
}

#[test]
fn twenty_replicas_wait_while_a_runner_is_killed_and_starts_again() {
    let database = Database::fresh();
    let (role, reader) = as_reader(&database);
    database.execute("create sequence tries");
    let sleep = "do $$ begin if nextval('tries') = 1 then perform pg_sleep(600); \
                 else perform pg_sleep(3); end if; end $$";
    let folder = Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", &format!("insert into log values ('slow');\n{sleep}")),
        ("0002_index", "create index concurrently on log (what)"),
    ]);
    let start = || wait(&reader, &folder).args(&["--", "echo", "started"]).start();
    let mut replicas: Vec<_> = (0..REPLICAS).map(|_| start()).collect();
    for replica in &replicas {
        replica.wait_to_say("for others to apply 3 migrations");
    }
    let sleeping = "select from pg_stat_activity where datname = current_database() \
         and wait_event = 'PgSleep'";
    let first = premigrate(&database, &folder).start();
    database.wait_for("the slow migration", sleeping);
    for replica in &replicas {
        replica.wait_to_say("a runner is at work: backend ");
    }
    first.signal("KILL");
    first.finish();
    database.wait_for_no("slow migration", sleeping);
    for replica in &mut replicas {
        assert!(replica.child.try_wait().unwrap().is_none(), "it has not ended");
    }
    // Between two looks, they are not connected.
    let connected = format!("select from pg_stat_activity where usename = '{role}'");
    database.wait_for_no("replica that is connected", &connected);

    premigrate(&database, &folder).run().exits(0);
    for replica in replicas {
        let run = replica.finish().exits(0).says(&["up to date, 3 applied", "starting echo"]);
        assert_eq!(run.stdout, "started\n");
    }
    assert_eq!(database.rows("select what from log"), ["slow"]);
    assert_eq!(database.history().len(), 3);
    // The role could not have written.
    let writing = "select from pg_class where has_table_privilege($1, oid, \
         'insert, update, delete, truncate') and relnamespace::regnamespace::text = any \
         ('{drizzle,public}')";
    assert_eq!(database.rows(&writing.replace("$1", &format!("'{role}'"))), [""; 0]);
    assert_eq!(database.leftovers(), [""; 0]);
}

#[test]
fn with_nothing_pending_the_app_starts_at_once_also_on_an_older_image() {
    let (database, folder) = (Database::fresh(), two());
    let (_, reader) = as_reader(&database);
    premigrate(&database, &folder).run().exits(0);
    wait(&reader, &folder).run().exits(0).says(&["up to date, 2 applied"]);
    let older = Folder::drizzle0(&[("0000_a", "create table a (id int)")]);
    let run = wait(&reader, &older).args(&["--", "echo", "started"]).run().exits(0);
    assert_eq!(run.says(&["ignoring 1 row of the history"]).stdout, "started\n");
    wait(&reader, &older).arg("--strict").run().exits(65);
    let run = wait(&reader, &older).env("PREMIGRATE_SKIP", "1").args(&["--", "echo"]).run();
    run.exits(0).says(&["PREMIGRATE_SKIP is set"]);
}

#[test]
fn a_database_that_does_not_exist_yet_is_waited_for() {
    let (mut database, folder) = (Database::fresh(), two());
    database.name = unique("wait");
    database.url = with_database(&database.url, &database.name);
    let missing = format!("database \"{}\" does not exist", database.name);
    let run = wait(&database, &folder).args(&["--runner-wait", "0"]).run().exits(77);
    run.says(&[&missing]);
    let waiting = wait(&database, &folder).args(&["--", "echo", "started"]).start();
    waiting.wait_to_say(&missing);
    premigrate(&database, &folder).arg("--create-database").run().exits(0);
    assert_eq!(waiting.finish().exits(0).says(&["up to date, 2 applied"]).stdout, "started\n");
}

#[test]
fn what_stays_pending_is_named_when_the_time_is_up() {
    let (database, folder) = (Database::fresh(), two());
    let (_, reader) = as_reader(&database);
    let run = wait(&reader, &folder).args(&["--runner-wait", "0", "--", "echo", "started"]).run();
    let run = run.exits(75).says(&[
        "nobody has applied 2 migrations (0000_a, 0001_b) in time; this role sees no runner at work",
        "2 are pending. The app was not started.",
    ]);
    assert_eq!(run.stdout, "");
    let _holder = database.holding(&lock::take_sql());
    let begun = Instant::now();
    let run = wait(&reader, &folder).args(&["--runner-wait", "2s", "--format", "json"]).run();
    let events = run.exits(75).events();
    let (waiting, error) = (&events[1], events.last().unwrap());
    assert_eq!(waiting["event"], "waiting_for_migrations");
    assert!(waiting["holder"]["pid"].is_string() && error["holder"]["pid"].is_string());
    assert_eq!(
        (&error["error"], &error["pending"]),
        (&"still_pending".into(), &waiting["migrations"])
    );
    assert!((2..20).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    // It has looked without making anything.
    assert_eq!(database.rows("select from pg_namespace where nspname = 'drizzle'"), [""; 0]);
}

#[test]
fn what_up_would_refuse_ends_the_wait_at_once() {
    let (database, folder) = (Database::fresh(), two());
    let (_, reader) = as_reader(&database);
    premigrate(&database, &folder).run().exits(0);
    folder.write("0001_b.sql", "edited");
    wait(&reader, &folder).run().exits(65).says(&["0001_b"]);
    let not_runnable = two();
    not_runnable.add("0002_c", "rollback");
    wait(&reader, &not_runnable).run().exits(65).says(&["0002_c.sql"]);
    let other = Folder::drizzle0(&[("0000_other", "select 'other'")]);
    wait(&reader, &other).run().exits(65);
    let (_, url) = database.role();
    let stranger = database.at(url);
    let run = wait(&stranger, &two()).run().exits(77);
    run.says(&["grant usage on schema", "grant select on"]).does_not_say("grant select, insert");
}

#[test]
fn a_role_that_may_read_only_the_history_waits_for_a_migration_that_is_done_in_part() {
    let database = Database::fresh();
    let (role, url) = database.role();
    let steps = "create index concurrently on a (id); select 1 / 0";
    let folder = Folder::drizzle0(&[("0000_a", "create table a (id int)"), ("0001_b", steps)]);
    premigrate(&database, &folder).run().exits(70);
    let progress = "select tablename::text from pg_tables where schemaname = 'drizzle' order by 1";
    assert_eq!(database.rows(progress).len(), 2);
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select on drizzle.__drizzle_migrations to {role}"
    ));
    let reader = database.at(url);
    let run = wait(&reader, &folder).args(&["--runner-wait", "0"]).run().exits(75);
    run.says(&["nobody has applied 1 migration (0001_b) in time"]);
}

#[test]
fn options_that_write_cannot_be_used_with_wait() {
    let (database, folder) = (Database::fresh(), two());
    for args in [
        &["--accept", "0000_a"][..],
        &["--baseline-through", "0000_a"],
        &["--apply-older"],
        &["--dry-run"],
        &["--lock-timeout", "1s"],
        &["--lock-retries", "1"],
        &["--statement-timeout", "1s"],
        &["--through", "0000_a"],
        &["--notices", "none"],
        &["--create-database"],
        &["--template", "template0"],
    ] {
        let run = wait(&database, &folder).args(args).run().exits(64);
        let run = run.says(&[args[0], "cannot be used with `wait`"]);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    wait(&database, &folder).arg("word").run().exits(64);
}

#[test]
fn a_wait_survives_a_database_without_a_free_connection_and_ends_on_a_signal() {
    let (database, folder) = (Database::fresh(), two());
    let (role, reader) = as_reader(&database);
    let waiting = wait(&reader, &folder).args(&["--wait", "30s"]).start();
    waiting.wait_to_say("for others to apply 2 migrations");
    database.execute(&format!("alter role {role} connection limit 0"));
    waiting.wait_to_say("too many connections for role");
    database.execute(&format!("alter role {role} connection limit -1"));
    let ended = Instant::now();
    eventually("another look", || ended.elapsed() > Duration::from_secs(3));
    let run = waiting.end_by("TERM").exits(143);
    assert!(run.took < IN_TIME * 3);
    assert_eq!(database.leftovers(), [""; 0]);
}
