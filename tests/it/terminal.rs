//! What a person sees on a terminal, and what is left of it in a pipe: colors, the line at the bottom
//! that shows what takes long, and the summary.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use expect_test::expect;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::harness::{
    Database, Folder, Premigrate, WAITING_FOR_LOCK, eventually, kill_and_reap, premigrate,
};
use crate::proxy::{Action, Proxy};
use crate::server::Server;
use crate::snapshot::is;

const ESCAPE: char = '\u{1b}';
const LINE_ERASED: &str = "\r\u{1b}[K";
const COLUMNS: u16 = 160;

/// A pseudo-terminal, on which a program runs.
struct Terminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(run: Premigrate) -> Terminal {
        Terminal::with_columns(COLUMNS, run)
    }

    fn with_columns(columns: u16, mut run: Premigrate) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let theirs: OwnedFd = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        run.command.stdout(theirs.try_clone().unwrap()).stderr(theirs).process_group(0);
        let child = run.command.spawn().unwrap();
        // Its copies of the other end are closed with it; then reading fails.
        drop(run);
        let written = Arc::new(Mutex::new(Vec::new()));
        let shared = written.clone();
        let reader = thread::spawn(move || {
            let (mut ours, mut chunk) = (File::from(ours), [0; 4096]);
            while let Ok(length @ 1..) = ours.read(&mut chunk) {
                shared.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        });
        Terminal { child, written, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_to_show(&self, words: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.text().contains(words) {
            assert!(Instant::now() < until, "does not show {words:?}:\n{}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end. Returns all that it has written to the terminal.
    #[track_caller]
    fn finish(mut self, code: i32) -> String {
        kill_and_reap(&mut self.child);
        self.reader.join().unwrap();
        let text = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{text}");
        text
    }
}

/// What is to be seen at the end of all this, without colors.
fn screen(written: &str) -> String {
    let mut lines = vec![String::new()];
    let (mut column, mut rest) = (0, written);
    while let Some(c) = rest.chars().next() {
        let line = lines.last_mut().unwrap();
        let sequence = rest.strip_prefix("\u{1b}[");
        rest = &rest[c.len_utf8()..];
        if let Some(sequence) = sequence {
            let end = sequence.find(char::is_alphabetic).unwrap();
            match &sequence[end..=end] {
                "K" => *line = line.chars().take(column).collect(),
                "m" => {}
                other => panic!("{other:?} in {written:?}"),
            }
            rest = &sequence[end + 1..];
        } else if c == '\n' {
            lines.push(String::new());
        } else if c == '\r' {
            column = 0;
        } else {
            assert_eq!(column, line.chars().count(), "{c:?} writes over {line:?}");
            line.push(c);
            column += 1;
        }
    }
    lines.join("\n")
}

/// The lines that were drawn at the bottom, and are gone.
fn live_lines(written: &str) -> Vec<&str> {
    let drawn = written.split(LINE_ERASED).skip(1);
    drawn.filter(|text| text.contains("running for") && !text.contains('\n')).collect()
}

/// Where a table is locked that the migration needs.
fn locked() -> (Database, Folder) {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    (database, Folder::drizzle0(&[("0000_a", "alter table t add b int")]))
}

/// A table of so many pages, each with one row, and an index that takes a fifth of a second for each.
fn slow_index(pages: usize) -> (Database, Folder) {
    let database = Database::fresh();
    database.execute(&format!(
        "create table t (a int, b text); alter table t alter b set storage plain;
         insert into t select i, repeat('x', 5000) from generate_series(1, {pages}) i;
         create function slow(a int) returns int immutable language plpgsql as
           $$ begin perform pg_sleep(0.2); return a; end $$"
    ));
    let sql = "create index concurrently i on t (slow(a))";
    (database, Folder::drizzle0(&[("0000_index", sql)]))
}

#[test]
fn a_terminal_shows_a_wait_for_a_lock_in_a_live_line_and_colors() {
    let (database, folder) = locked();
    let mut blocker = database.holding("lock table t");
    let terminal = Terminal::start(premigrate(&database, &folder).args(&["--", "echo", "started"]));
    terminal.wait_to_show("running for 3 s: waiting for a lock on t held by backend ");
    blocker.batch_execute("rollback").unwrap();
    let written = terminal.finish(0);
    is(
        &screen(&written),
        &expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: 0000_a is waiting for a lock on t held by backend PID, role postgres, idle in transaction for TIME: begin; lock table t
            premigrate: applied 0000_a in TIME
            premigrate: applied 1 migration in TIME, TIME of it waiting for locks
            premigrate: starting echo
            started
        "#]],
    );
    for colored in [
        "\u{1b}[33mpremigrate:\u{1b}[0m 0000_a is waiting",
        "\u{1b}[32mpremigrate:\u{1b}[0m applied 0000_a",
        "\u{1b}[32mpremigrate:\u{1b}[0m applied 1 migration",
    ] {
        assert!(written.contains(colored), "{written:?}");
    }
    // It ticks, and is erased before anything else is written.
    assert!(live_lines(&written).len() >= 3, "{written:?}");
    assert!(written.contains("\r\u{1b}[K\u{1b}[32mpremigrate:\u{1b}[0m applied 0000_a"));
}

#[test]
fn a_terminal_shows_how_far_a_concurrent_index_is() {
    let (database, folder) = slow_index(30);
    let written = Terminal::start(premigrate(&database, &folder)).finish(0);
    let lines = live_lines(&written);
    let percents = lines.iter().filter_map(|line| {
        let (_, rest) = line.split_once(": CREATE INDEX CONCURRENTLY on t, ")?;
        rest.strip_suffix(" % of building index: scanning table")?.parse::<u32>().ok()
    });
    let percents: Vec<_> = percents.collect();
    assert!(percents.iter().any(|percent| (1..=99).contains(percent)), "{lines:?}");
    assert!(percents.is_sorted(), "{percents:?}");
    is(
        &screen(&written),
        &expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_index in TIME
            premigrate: applied 1 migration in TIME
        "#]],
    );
}

#[test]
fn a_terminal_shows_how_far_vacuum_cluster_and_copy_are() {
    let rows = "a line of data, and more of it, and more of it; ".repeat(600) + "\n";
    let copy = format!("copy c (b) from stdin;\n{}\\.\n", rows.repeat(30));
    for (made, sql, command, phase) in [
        (
            "",
            "set vacuum_cost_delay = 100; set vacuum_cost_limit = 1; vacuum t",
            "VACUUM on t, ",
            " % of scanning heap",
        ),
        // Its index takes a while to be built, and so to be built again.
        (
            "create index t_slow on t (slow(a))",
            "cluster t using t_slow",
            "CLUSTER on t, ",
            "rebuilding index",
        ),
        ("", &copy, "COPY FROM on c, ", " %"),
    ] {
        let database = Database::fresh();
        database.execute(
            "create table t (a int, b text); alter table t alter b set storage plain;
             insert into t select i, repeat('x', 5000) from generate_series(1, 20) i;
             create function slow(a int) returns int immutable language plpgsql as
               $$ begin perform pg_sleep(0.3); return a; end $$;
             create table c (b text);
             create function slow_row() returns trigger language plpgsql as
               $$ begin perform pg_sleep(0.15); return new; end $$;
             create trigger slow before insert on c for each row execute function slow_row()",
        );
        database.execute(made);
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let written = Terminal::start(premigrate(&database, &folder)).finish(0);
        let lines = live_lines(&written);
        let shown = |line: &&str| {
            let progress = line.split_once(command).and_then(|(_, rest)| rest.strip_suffix(phase));
            progress.is_some_and(|percent| {
                percent.is_empty() || percent.parse::<u32>().is_ok_and(|percent| percent <= 100)
            })
        };
        assert!(lines.iter().any(shown), "{command}{phase}: {lines:?}");
    }
}

#[test]
fn a_pipe_gets_the_lines_of_a_terminal_without_colors_and_no_live_line_before_ten_seconds() {
    let run = |format: &str| {
        let (database, folder) = locked();
        let mut blocker = database.holding("lock table t");
        let run = premigrate(&database, &folder);
        let run = run.args(&["--format", format, "--", "echo", "started"]).start();
        database.wait_for("a waiting migration", WAITING_FOR_LOCK);
        thread::sleep(Duration::from_secs(3));
        blocker.batch_execute("rollback").unwrap();
        let run = run.finish().exits(0);
        assert_eq!(run.stdout, "started\n");
        assert!(!run.stderr.contains([ESCAPE, '\r']), "{}", run.stderr);
        run
    };
    // What is on the screen of the terminal above.
    run("text").stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a is waiting for a lock on t held by backend PID, role postgres, idle in transaction for TIME: begin; lock table t
        premigrate: applied 0000_a in TIME
        premigrate: applied 1 migration in TIME, TIME of it waiting for locks
        premigrate: starting echo
    "#]]);
    let events = run("json").events();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = ["loaded", "applying", "blocked", "applied", "done", "starting"];
    assert_eq!(names, expected, "{events:?}");
    let blocker = &events[2]["blocker"];
    assert_eq!(
        (&blocker["table"], &blocker["query"]),
        (&json!("t"), &json!("begin; lock table t"))
    );
}

#[test]
fn without_a_terminal_a_line_says_after_ten_seconds_what_still_runs() {
    let start = |format: &str| {
        let sql = "select 1; select pg_sleep(12)";
        let folder = Folder::drizzle0(&[("0000_slow", sql)]);
        let database = Database::fresh();
        let run = premigrate(&database, &folder).args(&["--format", format]).start();
        (database, folder, run)
    };
    let [(_text_database, _text_folder, text), (_json_database, _json_folder, json)] =
        ["text", "json"].map(start);
    text.finish().exits(0).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_slow: running for TIME, one of 2 statements
        premigrate: applied 0000_slow in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
    let events = json.finish().exits(0).events();
    let running: Vec<_> = events.iter().filter(|event| event["event"] == "running").collect();
    let [running] = running.as_slice() else { panic!("{events:?}") };
    let mut running = (*running).clone();
    let ms = running.as_object_mut().unwrap().remove("running_ms").unwrap();
    assert!((10_000..12_000).contains(&ms.as_u64().unwrap()), "{ms}");
    assert_eq!(
        running,
        json!({
            "event": "running", "migration": "0000_slow", "statement": null, "statements": 2,
            "outside_transaction": null, "blocker": null, "activity": null,
        })
    );
}

#[test]
fn colors_and_the_live_line_can_be_turned_off_or_on() {
    let slow = || Folder::drizzle0(&[("0000_slow", "select pg_sleep(1.5)")]);
    let colored = |text: &str| text.contains("\u{1b}[32m");
    for (variable, value, has_colors, has_live_line) in [
        ("TERM", "xterm", true, true),
        ("NO_COLOR", "1", false, true),
        ("PREMIGRATE_COLOR", "never", false, true),
        ("TERM", "dumb", false, false),
        ("PREMIGRATE_FORMAT", "json", false, false),
    ] {
        let folder = slow();
        let database = Database::fresh();
        let run = premigrate(&database, &folder).env(variable, value);
        let written = Terminal::start(run).finish(0);
        assert_eq!(colored(&written), has_colors, "{variable}={value} {written:?}");
        assert_eq!(!live_lines(&written).is_empty(), has_live_line, "{variable}={value}");
        let has_any = has_colors || has_live_line;
        assert_eq!(written.contains(ESCAPE), has_any, "{variable}={value} {written:?}");
    }
    let folder = slow();
    let run = premigrate(&Database::fresh(), &folder).args(&["--color", "always"]).run().exits(0);
    assert!(colored(&run.stderr) && !run.stderr.contains('\r'), "{}", run.stderr);
    let folder = slow();
    let run = premigrate(&Database::fresh(), &folder).args(&["--color", "sometimes"]).run();
    run.exits(78).says(&["--color must be auto, always or never"]);
}

#[test]
fn answers_and_errors_have_colors_on_a_terminal() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a (a int)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_b", "select b from a");
    let status = Terminal::start(premigrate(&database, &folder).arg("status")).finish(0);
    assert!(status.contains("0000_a  \u{1b}[32mapplied\u{1b}[0m"), "{status:?}");
    assert!(status.contains("0001_b  \u{1b}[33mpending\u{1b}[0m"), "{status:?}");
    let failed = Terminal::start(premigrate(&database, &folder)).finish(70);
    for red in ["premigrate:\u{1b}[0m 0001_b failed", "ERROR\u{1b}[0m 42703", "^\u{1b}[0m\r\n"] {
        assert!(failed.contains(&format!("\u{1b}[1;31m{red}")), "{red:?} {failed:?}");
    }
    folder.write("0001_b.sql", "create index concurrently on a (a); select 1");
    let check = Terminal::start(premigrate(&database, &folder).arg("check")).finish(0);
    assert!(check.contains("\u{1b}[33mwarning:\u{1b}[0m"), "{check:?}");
    let wrong = Terminal::start(premigrate(&database, &folder).arg("--nothing")).finish(64);
    assert!(wrong.contains("\u{1b}[1;31mpremigrate:\u{1b}[0m unknown option"), "{wrong:?}");
}

#[test]
fn a_live_line_is_cut_to_the_width_of_the_terminal() {
    let (database, folder) = locked();
    let mut blocker = database.holding("lock table t");
    let terminal = Terminal::with_columns(40, premigrate(&database, &folder));
    terminal.wait_to_show("running for 3 s: wa");
    blocker.batch_execute("rollback").unwrap();
    let written = terminal.finish(0);
    let lines = live_lines(&written);
    assert!(!lines.is_empty() && lines.iter().all(|line| line.chars().count() < 40), "{lines:?}");
}

#[test]
fn nothing_of_a_live_line_is_left_by_a_notice_or_a_signal() {
    let sql = "do $$ begin perform pg_sleep(1.5); raise notice E'\\x1b[31mhello'; \
        perform pg_sleep(60); end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let database = Database::fresh();
    let terminal = Terminal::start(premigrate(&database, &folder));
    terminal.wait_to_show("NOTICE");
    terminal.wait_to_show("running for 4 s");
    terminal.signal(nix::sys::signal::Signal::SIGTERM);
    let written = terminal.finish(143);
    is(
        &screen(&written),
        &expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: 0000_a: NOTICE: \u{1b}[31mhello
            premigrate: interrupted by SIGTERM; 0000_a was rolled back
        "#]],
    );
}

#[test]
fn nothing_of_a_live_line_is_left_by_a_second_signal_either() {
    let folder = Folder::drizzle0(&[("0000_a", "select pg_sleep(1)")]);
    // Nothing is answered any more, so that the first signal ends nothing.
    let proxy = Proxy::start(|message| match message.text.contains("pg_sleep") {
        true => Action::Stall,
        false => Action::Pass,
    });
    let database = Database::fresh();
    let terminal = Terminal::start(premigrate(&proxy.to(&database), &folder));
    terminal.wait_to_show("running for 2 s");
    terminal.signal(nix::sys::signal::Signal::SIGTERM);
    thread::sleep(Duration::from_millis(1500));
    terminal.signal(nix::sys::signal::Signal::SIGTERM);
    is(
        &screen(&terminal.finish(143)),
        &expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
        "#]],
    );
}

#[test]
fn a_second_connection_that_fails_is_not_tried_again() {
    let database = Database::fresh();
    let (role, url) = database.role();
    database.execute(&format!(
        "alter role {role} connection limit 1; grant create on database {} to {role}",
        database.name
    ));
    let limited = database.at(url);
    let proxy = Proxy::start(|_| Action::Pass);
    let folder =
        Folder::drizzle0(&[("0000_a", "select pg_sleep(2.5)"), ("0001_b", "select pg_sleep(2.5)")]);
    premigrate(&proxy.to(&limited), &folder).run().exits(0);
    // The run's own, and one that was refused.
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn processes_of_the_server_itself_do_not_count_as_connections() {
    // Nine for other roles than a superuser. To these, the server hides what its own processes are.
    let server = Server::start("max_connections = 12");
    let database = server.database();
    let (role, url) = database.role();
    database.execute(&format!(
        "grant create on schema public to {role}; grant create on database {} to {role}",
        database.name
    ));
    let proxy = Proxy::before(server.port, |_| Action::Pass);
    let folder = Folder::drizzle0(&[("0000_a", "select pg_sleep(8)")]);
    let database = proxy.to(&database.at(url));
    let running = premigrate(&database, &folder).start();
    eventually("a second look", || proxy.connections() > 2);
    running.finish().exits(0);
}

#[test]
fn a_server_with_hardly_any_free_connections_is_looked_at_only_once() {
    let server = Server::start("max_connections = 6");
    let proxy = Proxy::before(server.port, |_| Action::Pass);
    let folder =
        Folder::drizzle0(&[("0000_a", "select pg_sleep(2.5)"), ("0001_b", "select pg_sleep(2.5)")]);
    premigrate(&proxy.to(&server.database()), &folder).run().exits(0);
    assert_eq!(proxy.connections(), 2);
}
