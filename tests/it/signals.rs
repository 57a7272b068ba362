//! SIGHUP, SIGINT, SIGQUIT and SIGTERM end a run soon, and leave nothing half done.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use expect_test::expect;

use crate::harness::{
    Database, Folder, Run, Running, WAITING_FOR_LOCK, bare, eventually, premigrate,
};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Proxy};

const SIGNALS: [(&str, i32); 4] = [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)];

pub const SLEEPING: &str = "select from pg_stat_activity where datname = current_database() \
    and wait_event = 'PgSleep'";

/// Three migrations, of which the second sleeps.
fn slow() -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", "insert into log values ('slow');\nselect pg_sleep(60);"),
        ("0002_after", "insert into log values ('after')"),
    ])
}

fn start_slow(database: &Database, folder: &Folder) -> Running {
    let running = premigrate(database, folder).args(&["--", "echo", "started"]).start();
    database.direct().wait_for("the slow migration", SLEEPING);
    running
}

#[test]
fn a_statement_is_cancelled_and_rolled_back() {
    for (signal, code) in SIGNALS {
        let database = Database::fresh();
        let folder = slow();
        let running = start_slow(&database, &folder);
        let run = running.end_by(signal).exits(code);
        let run = run.with_name("SIGNAL", &format!("SIG{signal}")).stderr_is(expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_log in TIME
            premigrate: interrupted by SIGNAL; 0001_slow was rolled back

              1 migration applied in this run is kept; 1 more is pending. The app was not started.
        "#]]);
        assert_eq!(run.stdout, "");
        assert_eq!(database.rows("select what from log"), Vec::<String>::new());
        assert_eq!(database.history().len(), 1);
        assert_eq!(database.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn json_reports_the_signal_and_what_was_applied() {
    let database = Database::fresh();
    let folder = slow();
    let running = premigrate(&database, &folder).args(&["--format", "json"]).start();
    database.wait_for("the slow migration", SLEEPING);
    let events = running.end_by("TERM").exits(143).events();
    let last = events.last().unwrap();
    assert_eq!(last["signal"], "SIGTERM");
    assert_eq!(last["exit_code"], 143);
    assert_eq!(last["applied"], serde_json::json!(["0000_log"]));
    assert_eq!(last["pending"], serde_json::json!(["0001_slow", "0002_after"]));
}

#[test]
fn a_signal_ends_reading_the_configuration() {
    let (database, folder) = (Database::fresh(), slow());
    let env_file = folder.path.join("pipe");
    assert!(Command::new("mkfifo").arg(&env_file).status().unwrap().success());
    let running = bare().arg("--dir").arg(&folder.path).arg("--env-file").arg(&env_file);
    let running = running.args(&["--", "echo", "started"]).start();
    // Opening succeeds once there is a reader.
    let mut writer = std::fs::File::options().write(true).open(env_file).unwrap();
    running.signal("TERM");
    writer.write_all(format!("DATABASE_URL={}", database.url).as_bytes()).unwrap();
    drop(writer);
    let run = running.finish().exits(143).says(&["interrupted by SIGTERM"]);
    assert_eq!(run.stdout, "");
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn a_signal_ends_waiting_for_the_database() {
    let folder = slow();
    // A port that refuses, and one that accepts and stays silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for port in [1, silent_port] {
        for (signal, code) in SIGNALS {
            let running = bare()
                .env("DATABASE_URL", format!("postgres://u@127.0.0.1:{port}/d"))
                .arg("--dir")
                .arg(&folder.path)
                .args(&["--", "echo", "started"])
                .start();
            let _connection = if port == silent_port {
                Some(silent.accept().unwrap())
            } else {
                running.wait_to_say("refused");
                None
            };
            let run = running.end_by(signal).exits(code);
            assert_eq!(run.stdout, "");
        }
    }
}

#[test]
fn a_signal_ends_waiting_for_another_runner() {
    let database = Database::fresh();
    let mut held = database.holding("select pg_advisory_xact_lock(8102650200187171425)");
    let folder = slow();
    for (signal, code) in SIGNALS {
        let running = premigrate(&database, &folder).start();
        running.wait_to_say("another runner");
        running.end_by(signal).exits(code).says(&[&format!("SIG{signal}")]);
    }
    held.batch_execute("rollback").unwrap();
}

#[test]
fn a_signal_ends_waiting_for_a_table_lock_and_the_pause_between_attempts() {
    let database = Database::fresh();
    database.execute("create table t ()");
    let mut holder = database.holding("lock table t");
    let folder = Folder::drizzle0(&[("0000_a", "alter table t add column a int")]);
    for lock_timeout in ["60s", "1ms"] {
        let running =
            premigrate(&database, &folder).args(&["--lock-timeout", lock_timeout]).start();
        if lock_timeout == "1ms" {
            running.wait_to_say("55P03");
        } else {
            database.wait_for("the migration", WAITING_FOR_LOCK);
        }
        running.end_by("TERM").exits(143);
    }
    assert_eq!(database.leftovers(), Vec::<String>::new());
    holder.batch_execute("rollback").unwrap();
}

#[test]
fn a_signal_while_the_history_is_locked_leaves_no_session_on_the_server() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    let mut holder = database.holding("lock table drizzle.__drizzle_migrations");
    let running = premigrate(&database, &folder).start();
    database.wait_for("the reader", WAITING_FOR_LOCK);
    running.end_by("TERM").exits(143);
    assert_eq!(database.leftovers(), Vec::<String>::new());
    holder.batch_execute("rollback").unwrap();
}

/// A run with an app that gets a signal while the reply to its first COMMIT is on its way.
pub fn ended_behind_the_first_commit(database: &Database, folder: &Folder) -> Run {
    let pid = Arc::new(OnceLock::<u32>::new());
    let ours = pid.clone();
    let proxy = Proxy::start(move |message| {
        if message.is_committed() {
            let pid = ours.wait().to_string();
            assert!(Command::new("kill").arg(pid).status().unwrap().success());
        }
        Action::Pass
    });
    let through = proxy.to(database);
    let running = premigrate(&through, folder).args(&["--", "echo", "started"]).start();
    pid.set(running.pid()).unwrap();
    let run = running.finish().exits(143);
    assert_eq!(run.stdout, "");
    run
}

#[test]
fn a_signal_after_the_last_commit_prevents_the_start_of_the_app() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    let run = ended_behind_the_first_commit(&database, &folder);
    run.says(&["applied 0000_log", "interrupted by SIG"]);
    assert_eq!(database.history().len(), 1);
}

/// A statement that cannot be cancelled, and shows in `application_name` that this was tried.
pub const STUBBORN: &str = "do $$ begin loop begin perform pg_sleep(60); \
    exception when query_canceled then set application_name = 'cancelled'; end; end loop; end $$";

pub const CANCELLED: &str = "select from pg_stat_activity where datname = current_database() \
    and application_name = 'cancelled'";

/// No more than the four seconds that a cancelled statement has.
pub const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn a_statement_that_cannot_be_cancelled_does_not_prevent_the_end() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", STUBBORN)]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    running.end_by("TERM").exits(143).says(&["the server did not confirm in time"]);
    // The server looks after its client once a second.
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_second_signal_ends_the_run_immediately() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", STUBBORN)]);
    let mut running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    running.signal("TERM");
    database.wait_for("the attempt to cancel it", CANCELLED);
    eventually("its end", || {
        running.signal("INT");
        running.child.try_wait().unwrap().is_some()
    });
    running.finish_within(AT_ONCE).exits(130).does_not_say("interrupted");
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn signals_that_come_together_are_one_wish_to_stop() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", STUBBORN)]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    for signal in ["TERM", "TERM", "INT", "HUP"] {
        running.signal(signal);
    }
    running.finish().says(&["the server did not confirm in time"]);
}

#[test]
fn a_signal_that_nohup_ignores_is_ignored() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(1)")]);
    let program = env!("CARGO_BIN_EXE_premigrate");
    let shell = format!("trap '' HUP; exec {program} --dir {}", folder.path.display());
    let mut command = Command::new("sh");
    command.args(["-c", &shell]).env("DATABASE_URL", &database.url);
    let running = Running::start(command);
    database.wait_for("the slow migration", SLEEPING);
    running.signal("HUP");
    running.finish().exits(0).says(&["applied 0000_slow"]);
}

#[test]
fn a_lost_cancel_request_is_sent_again() {
    let database = Database::fresh();
    let folder = slow();
    let requests = Mutex::new(0);
    let proxy = Proxy::start(move |message| {
        // A cancel request has no user.
        let is_request = message.tag == 0 && !message.text.contains("user");
        if is_request {
            let mut requests = requests.lock().unwrap();
            *requests += 1;
            return if *requests == 1 { Action::Cut } else { Action::Pass };
        }
        Action::Pass
    });
    let running = start_slow(&proxy.to(&database), &folder);
    running.signal("TERM");
    running.finish().exits(143).says(&["0001_slow was rolled back"]);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

/// PgBouncer 1.18 can crash where the connection ends before the request was passed on.
#[test]
fn a_cancel_request_keeps_its_connection_until_the_server_has_taken_it() {
    let database = Database::fresh();
    // With more behind it, the request would be repeated sooner.
    let folder = Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", "select pg_sleep(60)"),
    ]);
    let requests = Arc::new(Mutex::new(0));
    let seen = requests.clone();
    let proxy = Proxy::start(move |message| {
        if message.tag == 0 && !message.text.contains("user") {
            *seen.lock().unwrap() += 1;
            std::thread::sleep(Duration::from_secs(3));
        }
        Action::Pass
    });
    let running = start_slow(&proxy.to(&database), &folder);
    running.signal("TERM");
    running.finish().exits(143).says(&["0001_slow was rolled back"]);
    assert_eq!(*requests.lock().unwrap(), 1);
}

/// PgBouncer 1.18 dies when its server has taken a cancel request whose connection was closed meanwhile.
#[test]
fn pgbouncer_survives_a_cancel_that_its_server_is_slow_to_take_and_a_second_signal_meanwhile() {
    for signals in [&["TERM"][..], &["TERM", "INT"]] {
        let database = Database::fresh();
        let folder = slow();
        let taken = Arc::new(AtomicUsize::new(0));
        let seen = taken.clone();
        let proxy = Proxy::start(move |message| {
            // A cancel request has no user.
            if message.tag == 0 && !message.text.contains("user") {
                std::thread::sleep(Duration::from_secs(3));
                seen.fetch_add(1, Ordering::SeqCst);
            }
            Action::Pass
        });
        let mut pooler = PgBouncer::before(proxy.port(), "pool_mode = transaction");
        let through = pooler.to(&database);
        let through = through.at(format!("{}?sslmode=disable", through.url));
        let running = start_slow(&through, &folder);
        for signal in signals {
            running.signal(signal);
            // Later than what counts as the same request to stop.
            std::thread::sleep(Duration::from_millis(1500));
        }
        running.finish().exits(if signals.len() > 1 { 130 } else { 143 });
        eventually("the cancel request", || taken.load(Ordering::SeqCst) == 1);
        std::thread::sleep(Duration::from_secs(1));
        assert!(pooler.is_alive(), "{signals:?}");
        assert_eq!(database.rows("select what from log"), [""; 0]);
    }
}

/// Cancels so many runs, all of which PgBouncer 1.18 has to survive: where a cancel request did not
/// wait for its answer, it died within ten of them in six series of seven.
fn cancel_runs(mut pooler: PgBouncer, times: usize, sslmode: &str) {
    let database = Database::fresh();
    let folder = slow();
    let through = pooler.to(&database);
    let url = format!("{}?sslmode={sslmode}", through.url);
    let through = through.at(url);
    for time in 1..=times {
        let running = start_slow(&through, &folder);
        running.signal("TERM");
        running.finish().exits(143).says(&["0001_slow was rolled back"]);
        assert!(pooler.is_alive(), "it did not survive cancel {time}");
    }
    assert_eq!(database.rows("select what from log"), Vec::<String>::new());
    assert_eq!(database.rows(SLEEPING), Vec::<String>::new());
}

#[test]
fn pgbouncer_survives_twenty_cancelled_runs() {
    cancel_runs(PgBouncer::start(20), 20, "disable");
}

#[test]
fn pgbouncer_with_tls_survives_cancelled_runs() {
    cancel_runs(PgBouncer::start_with_tls(), 5, "require");
}
