//! Signals to a runner of split migrations: in a statement outside a transaction, and between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use expect_test::expect;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BUILD, BUILDING, DROPPING, PROGRESS, with_writer};
use crate::harness::{Database, Folder, premigrate};
use crate::proxy::{Action, Proxy};
use crate::signals::ended_behind_the_first_commit;

#[test]
fn a_signal_during_an_index_build_ends_it_soon_and_says_what_it_leaves() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let database = Database::fresh();
        let mut writer = with_writer(&database);
        let folder = Folder::drizzle0(&[("0000_a", BUILD)]);
        let running = premigrate(&database, &folder).args(&["--", "echo", "started"]).start();
        database.wait_for("the build", BUILDING);
        let run = running.end_by(signal).exits(code);
        let run = run.with_name("SIGNAL", &format!("SIG{signal}")).stderr_is(expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: interrupted by SIGNAL; 0000_a was cancelled during CREATE INDEX CONCURRENTLY. A concurrent build cannot be rolled back. It may leave an invalid index, which the next run drops and builds again if the statement names it

              The app was not started.
        "#]]);
        assert_eq!(run.stdout, "");
        assert_eq!(database.leftovers(), [] as [String; 0]);
        writer.batch_execute("commit").unwrap();
        premigrate(&database, &folder).run().exits(0).says(&["rebuilding the invalid index"]);
        assert_eq!(database.value(PROGRESS), "");
    }
}

#[test]
fn a_signal_is_obeyed_in_time_although_the_server_does_not_answer() {
    let database = Database::fresh();
    let _writer = with_writer(&database);
    let folder = Folder::drizzle0(&[("0000_a", BUILD)]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the build", BUILDING);
    let pid = database.value(&format!("{} limit 1", BUILDING.replacen("select", "select pid", 1)));
    let stop = |signal: &str| {
        let status = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success());
    };
    stop("STOP");
    let run = running.end_by("TERM").exits(143);
    stop("CONT");
    run.says(&["the server did not confirm in time"]);
}

#[test]
fn a_signal_while_an_invalid_index_waits_to_be_dropped_ends_the_run_as_a_signal_does() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let folder = Folder::drizzle0(&[("0000_a", "create unique index concurrently t_a on t (a)")]);
    premigrate(&database, &folder).run().exits(70).says(&["23505"]);
    database.execute("delete from t");
    let mut writer = database.holding("insert into t values (1)");

    let running = premigrate(&database, &folder).start();
    database.wait_for("the drop", DROPPING);
    running.signal("TERM");
    running.finish().exits(143).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: rebuilding the invalid index public.t_a
        premigrate: interrupted by SIGTERM before 0000_a (CREATE INDEX CONCURRENTLY)

          1 is pending.
    "#]]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
    writer.batch_execute("commit").unwrap();
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn a_signal_between_two_transactions_is_reported_with_what_did_not_run() {
    let two = [("0000_a", "create table t (a int)"), ("0001_b", "create table u (a int)")];
    between(
        &two,
        &["interrupted by SIGTERM before 0001_b\n", "1 migration applied in this run is kept"],
    );
    let steps = "create table t (a int);\ncommit;\ncreate index concurrently i on t (a)";
    between(
        &[("0000_a", steps)],
        &[
            "interrupted by SIGTERM before step 2 of 2 of 0000_a (CREATE INDEX CONCURRENTLY)\n",
            "1 of 2 steps of 0000_a is done and kept; the next run continues with step 2.",
        ],
    );
}

fn between(migrations: &[(&str, &str)], told: &[&str]) {
    let database = Database::fresh();
    let folder = Folder::drizzle0(migrations);
    ended_behind_the_first_commit(&database, &folder).says(told);
    assert_eq!(database.tables(), ["t"]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_step_that_is_done_when_a_signal_comes_is_recorded_even_if_the_lock_was_lost() {
    let database = Database::fresh();
    database.execute(
        "create table log (a int); create procedure p() language sql as \
         $$ insert into log values (1) $$",
    );
    let sql = "-- premigrate: no-transaction\ncall p();\ninsert into log values (2)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let pid = Arc::new(AtomicI32::new(0));
    let runner = pid.clone();
    let other = std::sync::Mutex::new(database.client());
    let proxy = Proxy::start(move |message| {
        if message.tag == b'C' && message.text.starts_with("CALL") {
            let pid = Pid::from_raw(runner.load(Ordering::SeqCst));
            kill(pid, Signal::SIGTERM).unwrap();
            let end = "select pg_terminate_backend(pid) from pg_stat_activity \
                 where datname = current_database() and application_name = 'premigrate' \
                 and state = 'idle in transaction'";
            other.lock().unwrap().batch_execute(end).unwrap();
        }
        Action::Pass
    });
    let running = premigrate(&proxy.to(&database), &folder).start();
    pid.store(running.pid() as i32, Ordering::SeqCst);
    running.finish().exits(143).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: finished step 1 of 2 (a statement) in TIME
        premigrate: interrupted by SIGTERM before step 2 of 2 of 0000_a

          1 of 2 steps of 0000_a is done and kept; the next run continues with step 2. 1 is pending.
    "#]]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select a from log"), ["1", "2"]);
}
