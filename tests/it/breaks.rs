//! Connections that break, locks that do not come, and how many round trips it takes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use expect_test::expect;

use crate::harness::{Database, Folder, Run, WAITING_FOR_LOCK, premigrate, unique};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Message, Proxy, Side, far_away};

fn is_commit(message: &Message) -> bool {
    message.from == Side::Client && message.tag == b'Q' && message.text.starts_with("commit\0")
}

/// Runs two migrations with this history schema, and asserts that each has had its effect once.
fn two_migrations(database: &Database, through: &Database, schema: &str) -> Run {
    let one = format!("insert into log values ('{schema} one')");
    let two = format!("insert into log values ('{schema} two')");
    let folder = Folder::drizzle0(&[("0000_one", &one), ("0001_two", &two)]);
    let run = premigrate(through, &folder).args(&["--schema", schema]).run().exits(0);
    let log = format!("select what from log where what like '{schema} %' order by what");
    let both = [format!("{schema} one"), format!("{schema} two")];
    assert_eq!(database.rows(&log), both, "{}", run.stderr);
    let history = format!("select hash from {schema}.__drizzle_migrations order by id");
    assert_eq!(
        database.rows(&history),
        [folder.hash("0000_one.sql"), folder.hash("0001_two.sql")],
        "{}",
        run.stderr
    );
    run
}

#[test]
fn a_connection_cut_at_any_message_is_recovered_from() {
    const TABLE: &str = "create table log (what text)";
    // A whole run, to see how many messages there are.
    let database = Database::fresh();
    database.execute(TABLE);
    let proxy = Proxy::start(|_| Action::Pass);
    two_migrations(&database, &proxy.to(&database), "uncut");
    let cuts = |from| (0..proxy.messages(from)).map(move |number| (from, number));
    let cuts: Vec<_> = cuts(Side::Client).chain(cuts(Side::Server)).collect();
    assert!(cuts.len() > 60, "{}", cuts.len());

    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let database = Database::fresh();
                database.execute(TABLE);
                while let Some(&(from, number)) = cuts.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let proxy = Proxy::start(move |message| {
                        let here = (message.from, message.number) == (from, number);
                        if here { Action::Cut } else { Action::Pass }
                    });
                    let schema = format!("cut_{from:?}_{number}").to_lowercase();
                    two_migrations(&database, &proxy.to(&database), &schema);
                    assert!(proxy.messages(from) > number, "{schema} was not reached");
                }
                assert_eq!(database.leftovers(), Vec::<String>::new());
            });
        }
    });
}

#[test]
fn a_statement_under_a_role_is_recorded_as_ourselves_when_the_lock_is_lost_before_that() {
    let database = Database::fresh();
    let (role, _) = database.role();
    database.execute(&format!(
        "create table t (a int); alter table t owner to {role}; grant create on schema public to {role}"
    ));
    let (done, cuts) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let counted = cuts.clone();
    let proxy = Proxy::start(move |message| {
        if message.from == Side::Server && message.text.starts_with("CREATE INDEX\0") {
            done.store(true, Ordering::SeqCst);
        }
        // What records it on the session that holds the lock, and gives that back.
        let records = message.from == Side::Client && message.text.contains("set finished = true");
        let cut = records && done.swap(false, Ordering::SeqCst);
        counted.fetch_add(usize::from(cut), Ordering::SeqCst);
        if cut { Action::Cut } else { Action::Pass }
    });
    let folder = Folder::drizzle0(&[
        ("0000_index", &format!("set role {role}; create index concurrently t_a on t (a)")),
        ("0001_next", "create table next ()"),
    ]);
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    assert_eq!(cuts.load(Ordering::SeqCst), 1);
    let owners = "select tablename::text, tableowner::text from pg_tables \
        where schemaname in ('public', 'drizzle') order by 1";
    let expected = ["__drizzle_migrations|postgres", "next|postgres", &format!("t|{role}")];
    assert_eq!(database.rows(owners), expected);
    assert_eq!(database.history().len(), 2);
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_in_the_history() {
    let database = Database::fresh();
    database.execute("create table log (what text)");
    let commits = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        let answers_commit = message.from == Side::Server && message.text.starts_with("COMMIT\0");
        if answers_commit && commits.fetch_add(1, Ordering::SeqCst) == 0 {
            return Action::Cut;
        }
        Action::Pass
    });
    two_migrations(&database, &proxy.to(&database), "lost").says(&[
        "connection lost during 0000_one",
        "0000_one was applied (the reply to COMMIT was lost)",
    ]);
}

#[test]
fn a_commit_that_did_not_arrive_is_sent_again() {
    let database = Database::fresh();
    database.execute("create table log (what text)");
    let commits = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        let cut = is_commit(message) && commits.fetch_add(1, Ordering::SeqCst) == 0;
        if cut { Action::Cut } else { Action::Pass }
    });
    two_migrations(&database, &proxy.to(&database), "unsent")
        .says(&["connection lost during 0000_one", "applied 0000_one in"]);
}

#[test]
fn a_last_attempt_that_was_committed_is_not_reported_as_failed() {
    let database = Database::fresh();
    database.execute("create table log (what text)");
    // The first two attempts do not get to commit; the third does, and its answer is lost.
    let attempts = Mutex::new(0);
    let proxy = Proxy::start(move |message| {
        let mut attempts = attempts.lock().unwrap();
        if is_commit(message) {
            *attempts += 1;
            return if *attempts < 3 { Action::Cut } else { Action::Pass };
        }
        let answers_commit = message.from == Side::Server && message.text.starts_with("COMMIT\0");
        if answers_commit && *attempts == 3 { Action::Cut } else { Action::Pass }
    });
    two_migrations(&database, &proxy.to(&database), "third")
        .says(&["0000_one was applied (the reply to COMMIT was lost)"]);
}

#[test]
fn a_break_in_a_file_that_is_sent_in_pieces_is_recovered_from() {
    let database = Database::fresh();
    let insert = format!("insert into log values ('{}');\n", "x".repeat(400_000));
    let sql = format!("create table log (what text);\n{}", insert.repeat(6));
    let folder = Folder::drizzle0(&[("0000_large", &sql)]);
    let pieces = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        let is_piece = message.from == Side::Client && message.text.contains("insert into log");
        let cut = is_piece && pieces.fetch_add(1, Ordering::SeqCst) == 1;
        if cut { Action::Cut } else { Action::Pass }
    });
    premigrate(&proxy.to(&database), &folder).run().exits(0).says(&["connection lost"]);
    assert_eq!(database.value("select count(*) from log"), "6");
    assert_eq!(database.history(), [folder.hash("0000_large.sql")]);
}

const SLEEPING: &str = "select pid from pg_stat_activity where datname = current_database() \
    and wait_event = 'PgSleep'";

/// A migration that sleeps the first time only.
const SLEEPS_ONCE: &str = "insert into log values ('a');\n\
    do $$ begin if nextval('tries') = 1 then perform pg_sleep(60); end if; end $$";

fn sleeps_once(database: &Database) -> Folder {
    database.execute("create table log (what text); create sequence tries");
    Folder::drizzle0(&[("0000_a", SLEEPS_ONCE)])
}

#[test]
fn a_terminated_backend_is_recovered_from() {
    let database = Database::fresh();
    let folder = sleeps_once(&database);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    database.execute(&format!("select pg_terminate_backend(pid) from ({SLEEPING}) s"));
    running.finish().exits(0).says(&["terminating connection due to administrator command"]);
    assert_eq!(database.rows("select what from log"), ["a"]);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn a_terminated_backend_behind_pgbouncer_is_recovered_from() {
    let pooler = PgBouncer::start(5);
    let database = Database::fresh();
    let folder = sleeps_once(&database);
    let running = premigrate(&pooler.to(&database), &folder).start();
    database.wait_for("the migration", SLEEPING);
    database.execute(&format!("select pg_terminate_backend(pid) from ({SLEEPING}) s"));
    running.finish().exits(0).says(&["connection lost during 0000_a"]);
    assert_eq!(database.rows("select what from log"), ["a"]);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn a_pooler_that_ends_is_waited_for() {
    let database = Database::fresh();
    let folder = sleeps_once(&database);
    let pooler = PgBouncer::start(5);
    let running = premigrate(&pooler.to(&database), &folder).args(&["--wait", "1s"]).start();
    database.wait_for("the migration", SLEEPING);
    drop(pooler);
    running.finish().exits(69).says(&["connection lost during 0000_a", "refused"]);
    assert_eq!(database.rows("select what from log"), Vec::<String>::new());
}

#[test]
fn a_migration_that_kills_its_own_backend_each_time_ends_the_run() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_kills", "select 1; select pg_terminate_backend(pg_backend_pid())"),
        ("0002_c", "select 1"),
    ]);
    let run = premigrate(&database, &folder).args(&["--", "echo", "started"]).run().exits(70);
    let run = run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_log in TIME
        premigrate: applying 0001_kills
        premigrate: connection lost during 0001_kills (terminating connection due to administrator command); reconnecting in TIME to check
        premigrate: connection lost during 0001_kills (terminating connection due to administrator command); reconnecting in TIME to check
        premigrate: connection lost in every attempt at 0001_kills (terminating connection due to administrator command) after 1 of 2 statements; it was not applied. See in the server's log whether it crashed or ran out of memory, and whether a proxy ends long connections; then start premigrate again

          1 migration applied in this run is kept; 1 more is pending. The app was not started.
    "#]]);
    assert_eq!(run.stdout, "");
    assert_eq!(database.history().len(), 1);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn where_a_transaction_never_began_nothing_of_the_file_runs() {
    for (name, sql) in [
        ("0001_plain", "insert into log values ('ran')"),
        ("0001_wrapped", "set work_mem = '5MB'; begin; insert into log values ('ran'); commit"),
        ("0001_split", "insert into log values ('ran'); commit; insert into log values ('on')"),
        ("0001_alone", "-- premigrate: no-transaction\ninsert into log values ('ran'); select 1"),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
        premigrate(&database, &folder).run().exits(0);
        folder.add(name, sql);
        // As if a cancel, or a time limit, had ended the first message while the server read it.
        let proxy = Proxy::start(|message| match message.tag {
            b'Q' if message.text.starts_with("begin isolation") => {
                Action::ReplaceWith("select 1 / 0")
            }
            _ => Action::Pass,
        });
        for _ in 0..2 {
            let run = premigrate(&proxy.to(&database), &folder).run().exits(70);
            run.says(&["22012: division by zero"]);
            assert_eq!(database.rows("select what from log"), Vec::<String>::new(), "{name}");
            assert_eq!(database.history().len(), 1, "{name}");
        }
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(database.rows("select what from log where what = 'ran'"), ["ran"], "{name}");
    }
}

#[test]
fn nothing_pending_is_one_round_trip_and_many_pending_are_a_few_more() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    let round_trips = || {
        let proxy = Proxy::before(far_away(Duration::from_millis(10)), |_| Action::Pass);
        premigrate(&proxy.to(&database), &folder).run().exits(0);
        assert_eq!(proxy.connections(), 1);
        proxy.round_trips()
    };
    // No table yet: one to learn that, one to ask for the schema, one for the migration.
    assert_eq!(round_trips(), 3);
    assert_eq!(round_trips(), 1);
    for number in 1..=20 {
        folder.add(&format!("{number:04}_b"), "create table if not exists t (); select 1");
    }
    // One, unless this machine is so busy that the server has answered all before more comes.
    let many = round_trips();
    assert!((2..=6).contains(&many), "{many}");
    assert_eq!(round_trips(), 1);
}

#[test]
fn nothing_pending_writes_nothing_and_takes_no_lock() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let proxy = Proxy::start(move |message| {
        if message.tag == b'Q' && message.from == Side::Client {
            heard.lock().unwrap().push(message.text.to_owned());
        }
        Action::Pass
    });
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("select") && !asked[0].contains("lock"), "{}", asked[0]);
}

fn locked() -> (Database, Folder) {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    (database, Folder::drizzle0(&[("0000_a", "alter table t add column b int")]))
}

#[test]
fn a_lock_that_comes_late_is_tried_for_again() {
    let (database, folder) = locked();
    let mut holder = database.holding("lock table t in access share mode");
    let running = premigrate(&database, &folder).args(&["--lock-timeout", "200ms"]).start();
    database.wait_for("the first attempt", WAITING_FOR_LOCK);
    database.wait_for_no("attempt that waits", WAITING_FOR_LOCK);
    holder.batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["55P03", "(attempt 2)", "applied 0000_a"]);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn who_waits_for_a_table_lock_does_not_keep_others_waiting() {
    let (database, folder) = locked();
    let mut holder = database.holding("lock table t in access share mode");
    let limits = ["--lock-timeout", "200ms", "--lock-retries", "3"];
    let running = premigrate(&database, &folder).args(&limits).start();
    database.wait_for("the retry", WAITING_FOR_LOCK);
    // Behind the migration in the queue, but only until its timeout.
    database.execute("set statement_timeout = '2s'; select from t");
    holder.batch_execute("commit").unwrap();
    running.finish().exits(0);
}

#[test]
fn a_lock_that_never_comes_is_75() {
    let (database, folder) = locked();
    let mut holder = database.holding("lock table t in access share mode");
    let limits = ["--lock-timeout", "100ms", "--lock-retries", "1", "--", "echo", "started"];
    let run = premigrate(&database, &folder).args(&limits).run().exits(75).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a rolled back: lock timeout (55P03 canceling statement due to lock timeout); retrying in TIME (attempt 2)
        premigrate: 0000_a failed and was rolled back

          ERROR 55P03: canceling statement due to lock timeout
          at 0000_a.sql:1:1, statement 1 of 1

            1 | alter table t add column b int

          Every attempt ran into a lock.
          Find the session in pg_stat_activity, and wait for it or end it,
          and start premigrate again. To wait longer, raise --lock-timeout or --lock-retries.

          The app was not started.
    "#]]);
    assert_eq!(run.stdout, "");
    let never = ["--lock-timeout", "100ms", "--lock-retries", "0"];
    premigrate(&database, &folder).args(&never).run().exits(75).does_not_say("(attempt 2)");
    assert_eq!(database.leftovers(), Vec::<String>::new());
    holder.batch_execute("commit").unwrap();
}

#[test]
fn a_migration_keeps_a_lock_timeout_of_its_own() {
    let (database, _) = locked();
    let sql = "set lock_timeout = '100ms'; alter table t add column b int";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let mut holder = database.holding("lock table t in access share mode");
    let limits = ["--lock-timeout", "10m", "--lock-retries", "0"];
    premigrate(&database, &folder).args(&limits).run().exits(75);
    holder.batch_execute("commit").unwrap();
}

#[test]
fn a_deadlock_is_retried() {
    let database = Database::fresh();
    database.execute("create table a (); create table b (); create table log (what text)");
    let folder = Folder::drizzle0(&[(
        "0000_a",
        "insert into log values ('a');\nlock table a;\nlock table b;",
    )]);
    let mut other = database.holding("lock table b");
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", WAITING_FOR_LOCK);
    // Now each waits for the other, and the migration has waited longer.
    other.batch_execute("set local deadlock_timeout = '1min'; lock table a").unwrap();
    other.batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["40P01", "applied 0000_a"]);
    assert_eq!(database.rows("select what from log"), ["a"]);
}

#[test]
fn a_serialization_failure_is_retried() {
    let database = Database::fresh();
    database.execute("create sequence tries; create table log (what text)");
    let folder = Folder::drizzle0(&[(
        "0000_a",
        "insert into log values ('a');\ndo $$ begin if nextval('tries') < 3 then \
         raise exception 'not yet' using errcode = '40001'; end if; end $$",
    )]);
    let run = premigrate(&database, &folder).run().exits(0);
    run.says(&["40001 not yet", "(attempt 2)", "(attempt 3)", "applied 0000_a"]);
    assert_eq!(database.rows("select what from log"), ["a"]);
}

/// Runs a migration in a database with the schema `s`, in which another session meanwhile does
/// something that the migration waits for. The first attempt fails with these words.
#[track_caller]
fn succeeds_after_conflict(before: &str, meanwhile: &str, sql: &str, words: &str) {
    let database = Database::fresh();
    database.execute(&format!("create schema s; {before}"));
    let mut other = database.holding(meanwhile);
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", WAITING_FOR_LOCK);
    other.batch_execute("commit").unwrap();
    let said = format!("0000_a rolled back: conflict with another session ({words}");
    running.finish().exits(0).says(&[&said, "(attempt 2)", "applied 0000_a"]);
}

#[test]
fn an_object_that_another_session_changed_meanwhile_is_tried_again() {
    let function = |value: u8| {
        format!("create or replace function s.f() returns int language sql as 'select {value}'")
    };
    let updated = "XX000 tuple concurrently updated";
    succeeds_after_conflict(&function(0), &function(1), &function(2), updated);
    let grant = "grant usage on schema s to public";
    succeeds_after_conflict("", grant, grant, updated);
}

#[test]
fn an_object_that_another_session_dropped_meanwhile_is_tried_again() {
    let function = "create or replace function s.f() returns int language sql as 'select 1'";
    let deleted = "XX000 tuple concurrently deleted";
    succeeds_after_conflict(function, "drop function s.f()", function, deleted);
}

#[test]
fn an_object_that_another_session_created_meanwhile_is_tried_again() {
    let table = "create table if not exists s.t ()";
    succeeds_after_conflict("", table, table, "23505 duplicate key");
    let role = unique("role");
    let role = format!(
        "do $$ begin if to_regrole('{role}') is null then create role {role}; end if; end $$"
    );
    succeeds_after_conflict("", &role, &role, "23505 duplicate key");
}

#[test]
fn a_conflict_in_every_attempt_is_75_and_a_duplicate_in_a_table_of_the_user_is_70() {
    let database = Database::fresh();
    database
        .execute("create schema s; create table t (a int primary key); insert into t values (1)");
    let retries = ["--lock-retries", "0"];
    let mut other = database.holding("create table s.t ()");
    let folder = Folder::drizzle0(&[("0000_a", "create table if not exists s.t ()")]);
    let running = premigrate(&database, &folder).args(&retries).start();
    database.wait_for("the migration", WAITING_FOR_LOCK);
    other.batch_execute("commit").unwrap();
    running.finish().exits(75).says(&["Every attempt ran into a conflict with another session."]);

    let folder = Folder::drizzle0(&[("0000_a", "insert into t values (1)")]);
    premigrate(&database, &folder).run().exits(70).does_not_say("retrying");
}

#[test]
fn a_statement_timeout_fails_the_migration() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1;\nselect pg_sleep(60)")]);
    let limit = ["--statement-timeout", "200ms"];
    let run = premigrate(&database, &folder).args(&limit).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 57014: canceling statement due to statement timeout
          at 0000_a.sql:2:1, statement 2 of 2

            1 | select 1;
            2 | select pg_sleep(60)

          --statement-timeout is 200ms. Raise it, or set it to 0 for no limit; its variable is PREMIGRATE_STATEMENT_TIMEOUT.
    "#]]);
}

#[test]
fn results_and_notices_without_number_are_no_trouble() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[(
        "0000_a",
        "select repeat('x', 1000) from generate_series(1, 100000);\n\
         do $$ begin for i in 1..100000 loop raise notice '%', repeat('x', 100); end loop; \
         end $$;\nselect repeat('x', 1000) from generate_series(1, 100000)",
    )]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn a_locked_history_is_not_waited_for_longer_than_any_other_table() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_b", "create table b ()");
    let mut other = database.client();
    other.batch_execute("begin; lock drizzle.__drizzle_migrations in share mode").unwrap();
    let limits = ["--lock-timeout", "100ms", "--lock-retries", "1"];
    premigrate(&database, &folder).args(&limits).run().exits(75);
    other.batch_execute("rollback").unwrap();
    premigrate(&database, &folder).run().exits(0);
}

/// The lengths of the messages that begin this run's transactions, in order.
fn openings(folder: &Folder) -> Vec<usize> {
    let database = Database::fresh();
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = lengths.clone();
    let proxy = Proxy::start(move |message| {
        if message.from == Side::Client && message.text.starts_with("begin isolation") {
            seen.lock().unwrap().push(message.text.len());
        }
        Action::Pass
    });
    premigrate(&proxy.to(&database), folder).run().exits(0);
    let lengths = lengths.lock().unwrap().clone();
    assert!(lengths.len() >= 40, "{lengths:?}");
    lengths
}

#[test]
fn what_guards_a_migration_or_a_step_does_not_grow_with_their_number() {
    let names: Vec<_> = (0..40).map(|number| format!("{number:04}_m")).collect();
    let migrations: Vec<_> = names.iter().map(|name| (name.as_str(), "select")).collect();
    let steps = format!("-- premigrate: no-transaction\n{}", "select 1;\n".repeat(40));
    for folder in [Folder::drizzle0(&migrations), Folder::drizzle0(&[("0000_steps", &steps)])] {
        let lengths = openings(&folder);
        // A number in it may get a digit more.
        assert!(lengths[39] <= lengths[4] + 4, "{lengths:?}");
    }
}

/// A role that may create tables, and a migration that goes on under it outside a transaction.
fn under_a_role(database: &Database, statement: &str) -> (String, Folder) {
    let (role, _) = database.role();
    database.execute(&format!("grant all on schema public to {role}"));
    let sql = format!("set role {role};\ncreate table t (a int);\n{statement}");
    (role, Folder::drizzle0(&[("0000_role", &sql), ("0001_after", "create table after ()")]))
}

#[test]
fn the_error_of_a_statement_outside_a_transaction_is_reported_where_the_lock_session_is_lost() {
    let database = Database::fresh();
    let (_, folder) = under_a_role(&database, "create index concurrently i on t (missing)");
    let is_release = |message: &Message| {
        message.from == Side::Client
            && message.text.contains("release premigrate;\nset constraints")
            && message.text.contains("delete from")
    };
    let cut = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        let is_first = is_release(message) && cut.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first { Action::Cut } else { Action::Pass }
    });
    premigrate(&proxy.to(&database), &folder).run().exits(70).says(&["42703"]);
}

#[test]
fn what_comes_after_a_statement_outside_a_transaction_never_runs_under_its_role() {
    let database = Database::fresh();
    let (role, folder) = under_a_role(&database, "create index concurrently i on t (a)");
    let replaced = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        let is_reset = message.text.starts_with("reset session authorization; reset role");
        if is_reset && replaced.fetch_add(1, Ordering::SeqCst) == 0 {
            return Action::ReplaceWith("select 1 / 0");
        }
        Action::Pass
    });
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    let owner = |table: &str| {
        database.value(&format!("select tableowner from pg_tables where tablename = '{table}'"))
    };
    assert_eq!([owner("t"), owner("after")], [role, "postgres".to_owned()]);
}
