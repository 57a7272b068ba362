//! Migrations that are sent without waiting for the replies to those before them. Whatever happens to
//! one, those behind it do nothing, and the report is as if they had been sent one after the other.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use expect_test::expect;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{
    Database, Folder, Run, WAITING_FOR_LOCK, eventually, premigrate, server_port,
};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Break, Message, Proxy, Side, far_away};
use crate::signals::SLEEPING;

const TEN: std::ops::RangeInclusive<usize> = 1..=10;

/// A database in which the first migration is applied, and the folder with it.
fn begun() -> (Database, Folder) {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what int)")]);
    premigrate(&database, &folder).run().exits(0);
    (database, folder)
}

fn name(number: usize) -> String {
    format!("{number:04}_m")
}

fn insert(number: usize) -> String {
    format!("insert into log values ({number})")
}

/// Ten more migrations, each with one effect, which done twice would be seen.
fn with_ten(sql: impl Fn(usize) -> String) -> (Database, Folder) {
    let (database, folder) = begun();
    for number in TEN {
        folder.add(&name(number), &sql(number));
    }
    (database, folder)
}

/// Asserts that the first migration and so many of the ten are applied, each once, and no other.
#[track_caller]
fn applied(database: &Database, folder: &Folder, count: usize) {
    let numbers: Vec<_> = (1..=count).map(|number| number.to_string()).collect();
    assert_eq!(database.rows("select what from log order by what"), numbers);
    let files = (1..=count).map(|number| folder.hash(&format!("{}.sql", name(number))));
    let hashes: Vec<_> = [folder.hash("0000_log.sql")].into_iter().chain(files).collect();
    assert_eq!(database.history(), hashes);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

/// The names of migrations that were reported as applied, in order.
fn reported(run: &Run) -> Vec<String> {
    let events = run.events().into_iter().filter(|event| event["event"] == "applied");
    events.map(|event| event["migration"].as_str().unwrap().to_owned()).collect()
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(name).collect()
}

fn is_begin(message: &Message) -> bool {
    message.from == Side::Client && message.text.starts_with("begin isolation")
}

#[test]
fn two_hundred_migrations_take_a_handful_of_round_trips_over_a_long_distance() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what int)")]);
    for number in 1..200 {
        folder.add(&name(number), &insert(number));
    }
    // So far that a busy machine, whose server is slow, is still the quicker part.
    let proxy = Proxy::before(far_away(Duration::from_millis(100)), |_| Action::Pass);
    premigrate(&proxy.to(&database), &folder).run().exits(0).says(&["applied 200 migrations"]);
    assert_eq!(proxy.connections(), 1);
    // Two to read that there is no history, one for the first migration, and the others together.
    assert!(proxy.round_trips() <= 8, "{}", proxy.round_trips());
    assert_eq!(database.value("select count(*), count(distinct what) from log"), "199|199");
}

#[test]
fn a_lock_in_the_way_of_any_of_them_is_waited_for_and_none_overtakes() {
    let (database, folder) = begun();
    for number in TEN {
        database.execute(&format!("create table t{number} ()"));
        let alter = format!("alter table t{number} add column a int");
        folder.add(&name(number), &format!("{};\n{alter}", insert(number)));
    }
    thread::scope(|scope| {
        for number in TEN {
            let folder = &folder;
            scope.spawn(move || {
                let (database, _) = begun();
                for number in TEN {
                    database.execute(&format!("create table t{number} ()"));
                }
                let lock = format!("lock table t{number} in access share mode");
                let mut holder = database.holding(&lock);
                let limits = ["--lock-timeout", "200ms", "--format", "json"];
                let running = premigrate(&database, folder).args(&limits).start();
                running.wait_to_say("\"event\":\"retrying\"");
                // Those behind have come to their end, too.
                database.wait_for_no("attempt that waits", WAITING_FOR_LOCK);
                applied_so_far(&database, number - 1);
                holder.batch_execute("commit").unwrap();
                let run = running.finish().exits(0);
                let events = run.events();
                let retried = events.iter().filter(|event| event["event"] == "retrying");
                assert!(retried.into_iter().all(|event| event["migration"] == name(number)));
                assert_eq!(reported(&run), names(TEN));
                applied(&database, folder, 10);
            });
        }
    });
}

fn applied_so_far(database: &Database, count: usize) {
    let numbers: Vec<_> = (1..=count).map(|number| number.to_string()).collect();
    assert_eq!(database.rows("select what from log order by what"), numbers);
}

#[test]
fn a_lock_that_never_comes_ends_the_run_and_keeps_what_came_before() {
    let (database, folder) = with_ten(|number| match number {
        4 => "lock table t".to_owned(),
        _ => insert(number),
    });
    database.execute("create table t ()");
    let _holder = database.holding("lock table t in access share mode");
    let limits = ["--lock-timeout", "100ms", "--lock-retries", "1"];
    premigrate(&database, &folder).args(&limits).run().exits(75).stderr_is(expect![[r#"
        premigrate: 11 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0001_m in TIME
        premigrate: applied 0002_m in TIME
        premigrate: applied 0003_m in TIME
        premigrate: applying 0004_m
        premigrate: 0004_m rolled back: lock timeout (55P03 canceling statement due to lock timeout); retrying in TIME (attempt 2)
        premigrate: 0004_m failed and was rolled back

          ERROR 55P03: canceling statement due to lock timeout
          at 0004_m.sql:1:1, statement 1 of 1

            1 | lock table t

          Every attempt ran into a lock.
          Find the session in pg_stat_activity, and wait for it or end it,
          and start premigrate again. To wait longer, raise --lock-timeout or --lock-retries.

          3 migrations applied in this run are kept; 6 more are pending.
    "#]]);
    applied(&database, &folder, 3);
}

#[test]
fn an_error_in_any_of_them_keeps_what_came_before_and_runs_nothing_behind_it() {
    for wrong in TEN {
        let (database, folder) = with_ten(|number| match number {
            _ if number == wrong => format!("{};\nselect nonsense", insert(number)),
            _ => insert(number),
        });
        let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(70);
        assert_eq!(reported(&run), names(1..wrong));
        let last = run.events().pop().unwrap();
        assert_eq!((&last["migration"], &last["line"]), (&json!(name(wrong)), &json!(2)));
        assert_eq!(last["applied"], json!(names(1..wrong)));
        assert_eq!(last["pending"], json!(names(wrong..=10)));
        applied(&database, &folder, wrong - 1);
    }
}

#[test]
fn the_report_of_an_error_is_that_of_the_migration_which_had_it() {
    let (database, folder) = with_ten(|number| match number {
        6 => "select 1;\nselect nonsense".to_owned(),
        _ => insert(number),
    });
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 11 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0001_m in TIME
        premigrate: applied 0002_m in TIME
        premigrate: applied 0003_m in TIME
        premigrate: applied 0004_m in TIME
        premigrate: applied 0005_m in TIME
        premigrate: 0006_m failed and was rolled back

          ERROR 42703: column "nonsense" does not exist
          at 0006_m.sql:2:8, statement 2 of 2

            1 | select 1;
            2 | select nonsense
              |        ^

          5 migrations applied in this run are kept; 4 more are pending.
    "#]]);
}

/// A proxy that replaces the message of this number, among those of a kind, by one that fails.
fn with_error_in_place_of(number: usize, is_of_kind: fn(&Message) -> bool) -> Proxy {
    let count = AtomicUsize::new(0);
    Proxy::start(move |message| {
        let here = is_of_kind(message) && count.fetch_add(1, Ordering::SeqCst) + 1 == number;
        if here { Action::ReplaceWith("select 1 / 0") } else { Action::Pass }
    })
}

#[test]
fn an_error_at_commit_runs_nothing_behind_it() {
    // As if a cancel had come just then: the transaction is still open, and fails.
    for failing in [1, 5, 10] {
        let (database, folder) = with_ten(insert);
        let proxy = with_error_in_place_of(failing, |message| {
            message.from == Side::Client && message.text == "commit\0"
        });
        let run = premigrate(&proxy.to(&database), &folder).run().exits(70);
        run.says(&[&format!("{} failed", name(failing)), "22012: division by zero"]);
        applied(&database, &folder, failing - 1);
    }
}

#[test]
fn where_a_transaction_never_began_nothing_of_its_file_runs_and_nothing_behind_it() {
    for failing in [1, 5, 10] {
        let (database, folder) = with_ten(insert);
        let proxy = with_error_in_place_of(failing, is_begin);
        let run = premigrate(&proxy.to(&database), &folder).run().exits(70);
        run.says(&["22012: division by zero"]);
        applied(&database, &folder, failing - 1);
    }
}

/// Runs the ten, and calls `act` once before the transaction of this one is begun and after those
/// before it have ended, of which so many were applied.
fn with_change_before(
    number: usize,
    sql: impl Fn(usize) -> String,
    args: &[&str],
    act: impl Fn(&Database) + Send + Sync + 'static,
) -> (Database, Folder, Run, usize) {
    let (database, folder) = with_ten(sql);
    let begins = AtomicUsize::new(0);
    let changed = database.direct();
    let proxy = Proxy::start(move |message| {
        if is_begin(message) && begins.fetch_add(1, Ordering::SeqCst) + 1 == number {
            act(&changed);
        }
        Action::Pass
    });
    let run = premigrate(&proxy.to(&database), &folder).args(args).run();
    (database, folder, run, proxy.connections())
}

#[test]
fn a_history_that_changes_between_any_two_is_read_again() {
    for number in TEN {
        let (database, _, run, connections) =
            with_change_before(number, insert, &["--format", "json"], move |database| {
                eventually("those before it", || database.history().len() == number);
                database.execute(
                    "insert into drizzle.__drizzle_migrations (hash, created_at) values ('x', 1)",
                );
            });
        let run = run.exits(0);
        assert_eq!(reported(&run), names(TEN));
        assert_eq!(connections, 2);
        let numbers: Vec<_> = TEN.map(|number| number.to_string()).collect();
        assert_eq!(database.rows("select what from log order by what"), numbers);
        assert_eq!(database.history().len(), 12);
    }
}

#[test]
fn what_another_runner_applies_in_the_place_of_one_that_failed_is_found_in_the_history() {
    let (database, folder) = with_ten(|number| match number {
        5 => "lock table t nowait;\ninsert into log values (5)".to_owned(),
        _ => insert(number),
    });
    database.execute("create table t ()");
    let mut holder = database.holding("lock table t");
    let row = format!(
        "insert into log values (5); insert into drizzle.__drizzle_migrations (hash, created_at) \
         values ('{}', 1700000005000)",
        folder.hash("0005_m.sql")
    );
    let (begins, other) = (AtomicUsize::new(0), database.direct());
    let proxy = Proxy::start(move |message| {
        if is_begin(message) && begins.fetch_add(1, Ordering::SeqCst) + 1 == 6 {
            other.wait_for("the end of the fifth", IDLE_AFTER_COMMIT);
            other.execute(&row);
        }
        Action::Pass
    });
    let limits = ["--lock-retries", "0", "--format", "json"];
    let run = premigrate(&proxy.to(&database), &folder).args(&limits).run().exits(0);
    holder.batch_execute("commit").unwrap();
    assert_eq!(reported(&run), names((1..=4).chain(6..=10)));
    applied(&database, &folder, 10);
}

/// The session of a runner that has nothing to do.
const IDLE_AFTER_COMMIT: &str = "select from pg_stat_activity where state = 'idle' \
    and datname = current_database() and application_name = 'premigrate' and query = 'commit'";

#[test]
fn a_trigger_that_changes_rows_only_costs_round_trips() {
    let (database, folder) = with_ten(insert);
    database.execute(
        "create function drizzle.change() returns trigger language plpgsql as \
         $$ begin new.hash = upper(new.hash); return new; end $$; \
         create trigger change before insert on drizzle.__drizzle_migrations \
         for each row execute function drizzle.change()",
    );
    let proxy = Proxy::start(|_| Action::Pass);
    let run = premigrate(&proxy.to(&database), &folder).args(&["--format", "json"]).run().exits(0);
    assert_eq!(reported(&run), names(TEN));
    assert_eq!(proxy.connections(), 1);
    assert_eq!(database.value("select count(*), count(distinct what) from log"), "10|10");
    // The first time that a guard is wrong is the last.
    let sent = proxy.messages(Side::Client);
    assert!(sent < 100, "{sent}");
}

#[test]
fn notices_are_reported_with_the_migration_that_raised_them() {
    let (database, folder) = with_ten(|number| {
        format!("do $$ begin raise notice 'of {number}'; raise warning 'of {number}'; end $$")
    });
    // All replies come at once.
    let begins = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        if message.is_committed() && begins.fetch_add(1, Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(300));
        }
        Action::Pass
    });
    let args = ["--format", "json", "--notices", "notice"];
    let run = premigrate(&proxy.to(&database), &folder).args(&args).run().exits(0);
    let mut events = run.events();
    events.retain(|event| {
        ["applying", "notice", "applied"].contains(&event["event"].as_str().unwrap())
    });
    let mut expected = Vec::new();
    for number in TEN {
        let of = format!("of {number}");
        expected.push(("applying".to_owned(), name(number), String::new()));
        expected.push(("notice".to_owned(), name(number), of.clone()));
        expected.push(("notice".to_owned(), name(number), of));
        expected.push(("applied".to_owned(), name(number), String::new()));
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let seen = events.iter().map(|event| {
        let message =
            if event["event"] == "notice" { text(&event["message"]) } else { String::new() };
        (text(&event["event"]), text(&event["migration"]), message)
    });
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn a_signal_cancels_what_runs_and_nothing_behind_it_begins() {
    let (database, folder) = with_ten(|number| match number {
        6 => format!("{};\nselect pg_sleep(60)", insert(number)),
        _ => insert(number),
    });
    let running = premigrate(&database, &folder).start();
    database.wait_for("the slow migration", SLEEPING);
    running.end_by("TERM").exits(143).stderr_is(expect![[r#"
        premigrate: 11 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0001_m in TIME
        premigrate: applied 0002_m in TIME
        premigrate: applied 0003_m in TIME
        premigrate: applied 0004_m in TIME
        premigrate: applied 0005_m in TIME
        premigrate: interrupted by SIGTERM; 0006_m was rolled back

          5 migrations applied in this run are kept; 4 more are pending.
    "#]]);
    applied(&database, &folder, 5);
}

/// Runs the ten, and sends a signal to the runner at this message, which then arrives.
fn signalled_at(
    database: &Database,
    folder: &Folder,
    signal: Signal,
    (from, number): (Side, usize),
) -> Run {
    let pid = Arc::new(AtomicI32::new(0));
    let victim = pid.clone();
    let proxy = Proxy::start(move |message| {
        if (message.from, message.number) == (from, number) {
            eventually("the runner", || victim.load(Ordering::SeqCst) != 0);
            kill(Pid::from_raw(victim.load(Ordering::SeqCst)), signal).unwrap();
        }
        Action::Pass
    });
    let json = ["--format", "json"];
    let running = premigrate(&proxy.to(database), folder).args(&json).start();
    pid.store(i32::try_from(running.pid()).unwrap(), Ordering::SeqCst);
    running.finish()
}

/// Does something at every message of a run of the ten, and then asserts that another run completes it.
fn at_every_message(act: impl Fn(&Database, &Folder, (Side, usize)) + Sync) {
    let (database, folder) = with_ten(insert);
    let proxy = Proxy::start(|_| Action::Pass);
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    let messages = |from| (0..proxy.messages(from)).map(move |number| (from, number));
    let messages: Vec<_> = messages(Side::Client).chain(messages(Side::Server)).collect();
    assert!(messages.len() > 150, "{}", messages.len());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let database = Database::fresh();
                while let Some(&place) = messages.get(next.fetch_add(1, Ordering::SeqCst)) {
                    database
                        .execute("drop schema if exists drizzle cascade; drop table if exists log");
                    premigrate(&database, &folder).args(&["--through", "0000_log"]).run().exits(0);
                    act(&database, &folder, place);
                    premigrate(&database, &folder).run().exits(0);
                    applied(&database, &folder, 10);
                }
            });
        }
    });
}

#[test]
fn a_signal_at_any_message_leaves_what_it_reports() {
    at_every_message(|database, folder, place| {
        let run = signalled_at(database, folder, Signal::SIGTERM, place);
        // It may have come after the last commit, or before the first was sent.
        let run = if run.code == 0 { run.exits(0) } else { run.exits(143) };
        let count = database.history().len() - 1;
        assert_eq!(reported(&run), names(1..=count), "{place:?} {}", run.stderr);
        let last = run.events().pop().unwrap();
        if last["rolled_back"].is_object() {
            assert_eq!(last["applied"], json!(names(1..=count)), "{place:?} {}", run.stderr);
            assert_eq!(last["pending"], json!(names(count + 1..=10)), "{place:?} {}", run.stderr);
        }
    });
}

#[test]
fn a_kill_at_any_message_leaves_nothing_half_done() {
    at_every_message(|database, folder, place| {
        signalled_at(database, folder, Signal::SIGKILL, place);
    });
}

#[test]
fn a_connection_cut_at_any_message_is_recovered_from_and_each_is_reported_once() {
    at_every_message(|database, folder, (from, number)| {
        let proxy = Proxy::start(move |message| {
            let here = (message.from, message.number) == (from, number);
            if here { Action::Cut } else { Action::Pass }
        });
        let json = ["--format", "json"];
        let run = premigrate(&proxy.to(database), folder).args(&json).run().exits(0);
        assert_eq!(reported(&run), names(TEN), "{from:?} {number} {}", run.stderr);
    });
}

#[test]
fn replies_that_are_lost_are_found_in_the_history() {
    let (database, folder) = with_ten(insert);
    let commits = AtomicUsize::new(0);
    let direct = database.direct();
    let proxy = Proxy::before(far_away(Duration::from_millis(50)), move |message| {
        if message.is_committed() && commits.fetch_add(1, Ordering::SeqCst) == 3 {
            // The server goes on with what it has got.
            eventually("the others", || direct.history().len() == 11);
            return Action::Cut;
        }
        Action::Pass
    });
    premigrate(&proxy.to(&database), &folder).run().exits(0).stderr_is(expect![[r#"
        premigrate: 11 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0001_m in TIME
        premigrate: applied 0002_m in TIME
        premigrate: applied 0003_m in TIME
        premigrate: applying 0004_m
        premigrate: connection lost during 0004_m (connection closed); reconnecting in TIME to check
        premigrate: 0004_m was applied (the reply to COMMIT was lost)
        premigrate: 0005_m was applied (the reply to COMMIT was lost)
        premigrate: 0006_m was applied (the reply to COMMIT was lost)
        premigrate: 0007_m was applied (the reply to COMMIT was lost)
        premigrate: 0008_m was applied (the reply to COMMIT was lost)
        premigrate: 0009_m was applied (the reply to COMMIT was lost)
        premigrate: 0010_m was applied (the reply to COMMIT was lost)
        premigrate: applied 10 migrations in TIME
    "#]]);
    applied(&database, &folder, 10);
}

#[test]
fn what_an_old_backend_applies_after_the_history_was_read_again_is_reported() {
    // It is not to notice that its client is gone.
    let slow = |number| {
        format!(
            "select set_config(name, '0', true) from pg_settings \
             where name = 'client_connection_check_interval';\nselect pg_sleep(1.5);\n{}",
            insert(number)
        )
    };
    let (database, folder) = begun();
    for number in 1..=3 {
        folder.add(&name(number), &if number == 1 { insert(1) } else { slow(number) });
    }
    let has_broken = AtomicBool::new(false);
    let proxy = Proxy::start(move |message| {
        if message.is_committed() && !has_broken.swap(true, Ordering::SeqCst) {
            return Action::Break(0, Break::HalfClose);
        }
        Action::Pass
    });
    let json = ["--format", "json"];
    let run = premigrate(&proxy.to(&database), &folder).args(&json).run().exits(0);
    assert_eq!(reported(&run), names(1..=3), "{}", run.stderr);
    applied(&database, &folder, 3);
}

#[test]
fn where_the_server_does_not_come_back_all_that_was_on_its_way_is_said_to_be_uncertain() {
    for format in ["text", "json"] {
        let (database, folder) = with_ten(insert);
        let commits = AtomicUsize::new(0);
        let is_gone = Arc::new(AtomicBool::new(false));
        let gone = is_gone.clone();
        let proxy = Proxy::before(far_away(Duration::from_millis(50)), move |message| {
            if gone.load(Ordering::SeqCst) {
                return Action::Cut;
            }
            if message.is_committed() && commits.fetch_add(1, Ordering::SeqCst) == 3 {
                // Those before it arrive.
                thread::sleep(Duration::from_secs(1));
                gone.store(true, Ordering::SeqCst);
                return Action::Cut;
            }
            Action::Pass
        });
        let options = ["--wait", "1s", "--format", format];
        let run = premigrate(&proxy.to(&database), &folder).args(&options).run().exits(69);
        if format == "text" {
            run.says(&[
                "3 migrations applied in this run are kept.",
                "It is not known whether 0004_m or any of the 6 that were sent behind it was committed",
            ]);
        } else {
            let failure = run.events().pop().expect("the failure");
            assert_eq!(failure["applied"], json!(names(1..=3)));
            assert_eq!(failure["uncertain"], json!(names(4..=10)));
        }
    }
}

#[test]
fn twenty_runners_apply_each_of_many_once_directly_and_through_pgbouncer() {
    let pooler = PgBouncer::start(20);
    for port in [server_port(), pooler.port] {
        let (database, folder) = with_ten(insert);
        for number in 11..=30 {
            folder.add(&name(number), &insert(number));
        }
        let through = database.through(port);
        let runs: Vec<_> = (0..20).map(|_| premigrate(&through, &folder).start()).collect();
        for run in runs {
            run.finish().exits(0);
        }
        assert_eq!(database.value("select count(*), count(distinct what) from log"), "30|30");
        assert_eq!(database.history().len(), 31);
    }
}

#[test]
fn behind_pgbouncer_each_waits_for_the_one_before() {
    let pooler = PgBouncer::start(5);
    let (database, folder) = with_ten(insert);
    let proxy = Proxy::before(pooler.port, |_| Action::Pass);
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    // The first one waits after each of its messages, too: the pooler may be in statement mode.
    assert_eq!(proxy.round_trips(), 1 + 4 + 9);
}

#[test]
fn no_more_is_on_its_way_than_a_server_takes_in_while_it_works() {
    let (database, folder) = begun();
    for number in 1..=90 {
        let sleep = if number == 2 { ";\nselect pg_sleep(1)" } else { "" };
        folder.add(&name(number), &format!("{}{sleep}", insert(number)));
    }
    let sent = Arc::new(Mutex::new(Vec::<usize>::new()));
    let seen = sent.clone();
    let proxy = Proxy::before(far_away(Duration::from_millis(50)), move |message| {
        let mut sent = seen.lock().unwrap();
        // The first one is alone; then those that are sent until the reply to the second.
        let commits = sent.iter().filter(|&&length| length == 0).count();
        match message.from {
            Side::Client if commits == 1 => sent.push(message.text.len()),
            Side::Server if message.is_committed() => sent.push(0),
            _ => {}
        }
        Action::Pass
    });
    premigrate(&proxy.to(&database), &folder).run().exits(0);
    assert_eq!(database.value("select count(*), count(distinct what) from log"), "90|90");
    let sent = sent.lock().unwrap();
    let bytes: usize = sent.iter().sum();
    assert!(sent.len() > 60, "{}", sent.len());
    assert!(bytes < 64 << 10, "{bytes}");
}
