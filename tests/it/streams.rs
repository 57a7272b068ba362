//! Standard streams that are full, closed, or not read change neither the database nor the exit code,
//! and the app starts.

use std::io::{PipeReader, PipeWriter};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{
    Database, Folder, IN_TIME, LIMIT, PAGE, PIPE, Running, eventually, output_within, pipe_with,
    premigrate, read_within, waits_for_room,
};
use crate::signals::SLEEPING;

/// Redirections by a shell, of pipes that nobody reads.
const REDIRECTIONS: [&str; 5] =
    ["", ">/dev/full 2>/dev/full", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"];

fn start(redirection: &str, args: &[&str], database: &Database, folder: &Folder) -> Child {
    Command::new("sh")
        .args(["-c", &format!("exec \"$@\" {redirection}"), "sh", env!("CARGO_BIN_EXE_premigrate")])
        .args(args)
        .env("DATABASE_URL", &database.url)
        .env("PREMIGRATE_DIR", &folder.path)
        .stdout(std::io::pipe().unwrap().1)
        .stderr(std::io::pipe().unwrap().1)
        .spawn()
        .unwrap()
}

/// Starts a run whose app creates a file.
fn start_app(redirection: &str, database: &Database, folder: &Folder) -> Child {
    start(redirection, &["--", "touch", started(folder).to_str().unwrap()], database, folder)
}

fn started(folder: &Folder) -> PathBuf {
    folder.path.join("started")
}

#[track_caller]
fn exits(child: Child, code: i32, redirection: &str) {
    let status = output_within(LIMIT, child).status;
    assert_eq!(status.code(), Some(code), "{redirection}: {status}");
}

#[test]
fn a_run_that_has_no_memory_left_says_so() {
    let folder = Folder::drizzle0(&[("0000_large", "")]);
    let large = std::fs::File::create(folder.path.join("0000_large.sql")).unwrap();
    large.set_len(1 << 30).unwrap();
    let run = |format: &str| {
        let program = env!("CARGO_BIN_EXE_premigrate");
        let folder = folder.path.display();
        // In KiB.
        let limit = "ulimit -v 500000";
        let shell = format!("{limit}; exec {program} --dir {folder} --format {format} -- true");
        let mut command = Command::new("sh");
        command.args(["-c", &shell]).env("DATABASE_URL", "postgres://u@127.0.0.1:1/d");
        Running::start(command).finish().exits(70)
    };
    run("text").says(&["premigrate: out of memory", "The app was not started."]);
    let events = run("json").events();
    let last = events.last().unwrap();
    assert_eq!((&last["error"], &last["exit_code"]), (&"out_of_memory".into(), &70.into()));
}

#[test]
fn migrations_are_applied_and_the_app_starts() {
    for redirection in REDIRECTIONS {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
        exits(start_app(redirection, &database, &folder), 0, redirection);
        assert_eq!(database.history().len(), 1, "{redirection}");
        assert!(started(&folder).exists(), "{redirection}");
        folder.add("0001_b", "create table b ()");
        exits(start(redirection, &["status", "--exit-code"], &database, &folder), 10, redirection);
    }
}

#[test]
fn a_failure_is_reported_by_the_exit_code() {
    for redirection in REDIRECTIONS {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[
            ("0000_a", "create table a ()"),
            ("0001_b", "create table b ();\ndo $$ begin raise notice 'b'; end $$;\nselect 1/0"),
        ]);
        exits(start_app(redirection, &database, &folder), 70, redirection);
        assert_eq!(database.tables(), ["a"], "{redirection}");
        assert!(!started(&folder).exists(), "{redirection}");
    }
}

#[test]
fn a_signal_rolls_back_and_ends_the_run() {
    for redirection in REDIRECTIONS {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ();\nselect pg_sleep(60)")]);
        let child = start_app(redirection, &database, &folder);
        database.wait_for("the migration", SLEEPING);
        terminate(&child);
        exits(child, 143, redirection);
        assert_eq!(database.leftovers(), Vec::<String>::new(), "{redirection}");
        assert_eq!(database.tables(), Vec::<String>::new(), "{redirection}");
        assert!(!started(&folder).exists(), "{redirection}");
    }
}

/// Starts a run with this stderr.
fn start_reporting_to(
    stderr: PipeWriter,
    database: &Database,
    folder: &Folder,
    args: &[&str],
) -> Child {
    let mut run = premigrate(database, folder).args(args);
    run.command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
}

/// Fails the test unless the run ends within this time.
#[track_caller]
fn ends_within(child: Child, limit: Duration, code: i32) {
    let status = output_within(limit, child).status;
    assert_eq!(status.code(), Some(code), "{status}");
}

/// Reads all that it prints into a pipe of ours, to its end.
#[track_caller]
fn ends_with(child: Child, reader: PipeReader, code: i32) -> String {
    let output = read_within(LIMIT, child, reader);
    assert_eq!(output.status.code(), Some(code), "{}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

/// Twenty migrations with long names.
fn twenty() -> Folder {
    let folder = Folder::drizzle0(&[]);
    for number in 0..20 {
        folder.add(&format!("{number:04}_{}", "a".repeat(200)), "select 1");
    }
    folder
}

#[test]
fn an_unread_report_delays_neither_the_migrations_nor_the_app_for_long() {
    let (database, folder) = (Database::fresh(), twenty());
    let (_reader, writer) = pipe_with(PIPE);
    let started = started(&folder);
    let app = ["--", "touch", started.to_str().unwrap()];
    let child = start_reporting_to(writer, &database, &folder, &app);
    ends_within(child, LIMIT, 0);
    assert_eq!(database.history().len(), 20);
    assert!(started.exists());
}

#[test]
fn a_slow_reader_gets_every_line() {
    let (database, folder) = (Database::fresh(), twenty());
    let (reader, writer) = pipe_with(PIPE - PAGE);
    let child = start_reporting_to(writer, &database, &folder, &[]);
    eventually("the report to wait for room", || waits_for_room(child.id()));
    let report = ends_with(child, reader, 0);
    assert_eq!(report.matches("premigrate: applied 00").count(), 20, "{report}");
    assert!(report.ends_with('\n'), "{report}");
}

#[test]
fn the_last_report_waits_even_if_earlier_ones_were_not_read() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 1 / 0")]);
    let (reader, writer) = pipe_with(PIPE);
    let child = start_reporting_to(writer, &database, &folder, &[]);
    // The run has waited for a reader until now, and does not wait again.
    database.wait_for(
        "the first migration",
        "select from pg_tables where tablename = '__drizzle_migrations'",
    );
    std::thread::sleep(Duration::from_millis(500));
    let report = ends_with(child, reader, 70);
    assert!(report.contains("0001_b failed"), "{report}");
}

#[test]
fn a_signal_ends_a_run_soon_although_its_report_is_not_read() {
    for in_a_migration in [false, true] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ();\nselect pg_sleep(60)")]);
        let (_reader, writer) = pipe_with(PIPE);
        let child = start_reporting_to(writer, &database, &folder, &["--", "true"]);
        if in_a_migration {
            database.wait_for("the migration", SLEEPING);
        } else {
            eventually("the report to wait for room", || waits_for_room(child.id()));
        }
        terminate(&child);
        ends_within(child, IN_TIME, 143);
        assert_eq!(database.leftovers(), Vec::<String>::new());
        assert_eq!(database.tables(), Vec::<String>::new());
    }
}

#[test]
fn an_answer_waits_for_its_reader_until_a_signal_comes() {
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    for (args, code) in [
        (&["status", "--exit-code"][..], 10),
        (&["up", "--dry-run"], 0),
        (&["list"], 0),
        (&["check"], 0),
    ] {
        let database = Database::fresh();
        let start = || {
            let (reader, writer) = pipe_with(PIPE);
            let mut command = premigrate(&database, &folder).args(args).command;
            let child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
            eventually("the answer to wait for room", || waits_for_room(child.id()));
            (reader, child)
        };
        let (reader, child) = start();
        terminate(&child);
        ends_within(child, IN_TIME, 143);
        drop(reader);

        let (reader, child) = start();
        let answer = ends_with(child, reader, code);
        assert!(answer.contains("0000_a") || args == ["check"], "{args:?}: {answer}");
        assert!(answer.ends_with('\n'), "{args:?}: {answer}");
    }
}
