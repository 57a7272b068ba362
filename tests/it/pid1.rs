//! Each signal in each phase of a run: as an ordinary process, as process 1 of a namespace, and in
//! a container made from the image, which `scripts/image` builds.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::container;
use crate::handover::has_default_signals;
use crate::harness::{
    Database, Folder, IN_TIME, LIMIT, PAGE, PIPE, eventually, output_of, output_within, pipe_with,
    premigrate, unique, waits_for_room,
};
use crate::proxy::{Action, Message, Proxy};
use crate::signals::{AT_ONCE, CANCELLED, SLEEPING, STUBBORN};

/// A signal and its exit code.
type Sent = (&'static str, i32);

const SIGNALS: [Sent; 4] = [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)];

/// `docker stop` and `podman stop`, which send SIGTERM and wait ten seconds.
const STOP: Sent = ("stop", 143);

struct Phase {
    name: &'static str,
    /// The message that triggers the signal.
    at: fn(&Message) -> bool,
    /// What becomes of the message, and the signal comes a moment later; without it, the signal
    /// comes while the message is on its way.
    action: Option<Action>,
    /// What another session does meanwhile, in a transaction that stays open.
    other: &'static str,
    /// The second migration; empty if there is none.
    second: &'static str,
    /// How many migrations are applied in the end.
    applied: usize,
}

const SLOW: &str = "insert into log values ('slow');\nselect pg_sleep(60);";
const INDEX: &str = "create index concurrently log_what on log (what)";

static PHASES: [Phase; 7] = [
    Phase {
        name: "waiting for a database that hangs up",
        at: is_login,
        action: Some(Action::Cut),
        other: "",
        second: SLOW,
        applied: 0,
    },
    Phase {
        name: "waiting for a database that is silent",
        at: is_login,
        action: Some(Action::Stall),
        other: "",
        second: SLOW,
        applied: 0,
    },
    Phase {
        name: "while another runner is at work",
        at: |message| message.text.contains("advisory"),
        action: Some(Action::Pass),
        other: "select pg_advisory_xact_lock(8102650200187171425)",
        second: SLOW,
        applied: 0,
    },
    Phase {
        name: "in a transaction",
        at: |message| message.text.contains("pg_sleep"),
        action: Some(Action::Pass),
        other: "",
        second: SLOW,
        applied: 1,
    },
    Phase {
        name: "in a concurrent index",
        at: |message| message.text.contains("*/ create index"),
        action: Some(Action::Pass),
        // Its snapshot is waited for.
        other: "set transaction isolation level repeatable read; select 1",
        second: INDEX,
        applied: 1,
    },
    Phase {
        name: "between migrations",
        at: |message| message.is_committed(),
        action: None,
        other: "",
        second: SLOW,
        applied: 1,
    },
    Phase {
        name: "after the last commit",
        at: |message| message.is_committed(),
        action: None,
        other: "",
        second: "",
        applied: 1,
    },
];

fn is_login(message: &Message) -> bool {
    message.tag == 0 && message.text.contains("user")
}

/// Where a run takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Process,
    Process1,
    Container,
}

/// A run that can be sent signals.
#[derive(Clone, Debug)]
enum Target {
    Process(u32),
    /// The process that this one started as process 1.
    ChildOf(u32),
    Container(String),
}

impl Place {
    /// Starts a run with an app that prints something.
    fn start(self, database: &Database, folder: &Folder, stderr: Stdio) -> (Child, Target) {
        let us = env!("CARGO_BIN_EXE_premigrate");
        let name = unique("premigrate");
        let mut command = match self {
            Place::Process => Command::new(us),
            Place::Process1 => as_process_1(us),
            Place::Container => {
                let volume = format!("{}:/migrations:ro", folder.path.display());
                container::run("premigrate", &["--name", &name, "--volume", &volume])
            }
        };
        let (dir, app) = match self {
            Place::Container => ("/migrations", &["/premigrate", "--version"]),
            _ => (folder.path.to_str().unwrap(), &["echo", "started"]),
        };
        let child = command
            .args(["--dir", dir, "--"])
            .args(app)
            .env("DATABASE_URL", &database.url)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let target = match self {
            Place::Process => Target::Process(child.id()),
            Place::Process1 => Target::ChildOf(child.id()),
            Place::Container => Target::Container(name),
        };
        (child, target)
    }
}

fn as_process_1(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
    command.args(["--kill-child", program]);
    command
}

impl Target {
    fn signal(&self, signal: &str) {
        let mut command = match self {
            Target::Container(name) if signal == STOP.0 => {
                let mut command = container::engine("stop");
                command.arg(name);
                command
            }
            Target::Container(name) => {
                let mut command = container::engine("kill");
                command.args(["--signal", signal, name]);
                command
            }
            _ => {
                let mut command = Command::new("kill");
                command.args(["-s", signal, &self.pid().unwrap().to_string()]);
                command
            }
        };
        let output = output_of(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{signal} {self:?}: {error}");
    }

    /// Its process id outside of the namespace.
    fn pid(&self) -> Option<u32> {
        match self {
            Target::Process(pid) => Some(*pid),
            Target::ChildOf(parent) => {
                let parent = parent.to_string();
                let found = output_of(Command::new("pgrep").args(["-P", &parent]));
                String::from_utf8(found.stdout).unwrap().trim().parse().ok()
            }
            Target::Container(_) => None,
        }
    }
}

/// A run that a signal ended.
struct Ended {
    what: String,
    database: Database,
    folder: Folder,
    output: Output,
    /// The time from the signal to the end.
    took: Duration,
}

/// Sends a signal in a phase. The run must leave nothing half done, and no session.
fn end_in(phase: &Phase, signal: &'static str, place: Place) -> Ended {
    let what = format!("{signal} {}, as {place:?}", phase.name);
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    if !phase.second.is_empty() {
        folder.add("0001_second", phase.second);
    }
    let mut other = database.holding(phase.other);

    let (target, sent) = (Arc::new(OnceLock::<Target>::new()), Arc::new(OnceLock::new()));
    let (aim, sending, once) = (target.clone(), sent.clone(), AtomicBool::new(false));
    let (at, action) = (phase.at, phase.action);
    let proxy = Proxy::start(move |message| {
        if !at(message) {
            return Action::Pass;
        }
        if !once.swap(true, Ordering::SeqCst) {
            let (aim, sending) = (aim.clone(), sending.clone());
            let send = move || {
                let target = aim.wait();
                sending.set(Instant::now()).unwrap();
                target.signal(signal);
            };
            match action {
                None => {
                    let sender = std::thread::spawn(send);
                    // `stop` returns when the run has ended, and the run may wait for this message.
                    let until = Instant::now() + Duration::from_secs(3);
                    while !sender.is_finished() && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                Some(_) => {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(200));
                        send();
                    });
                }
            }
        }
        action.unwrap_or(Action::Pass)
    });
    let (child, started) = place.start(&proxy.to(&database), &folder, Stdio::piped());
    target.set(started).unwrap();
    let output = output_within(LIMIT, child);
    let took = sent.get().map(Instant::elapsed);
    let report = String::from_utf8_lossy(&output.stderr);
    let took = took.unwrap_or_else(|| panic!("{what}: the phase never came\n{report}"));
    assert!(output.stdout.is_empty(), "{what}: the app was started");

    // The other transaction is still open, so only the run itself can have ended its sessions.
    let ours = "select query from pg_stat_activity where application_name = 'premigrate' \
        and datname = current_database()";
    database.wait_for_no(&format!("session of ours after {what}"), ours);
    other.batch_execute("rollback").unwrap();
    assert_eq!(database.leftovers(), Vec::<String>::new(), "{what}");
    assert_eq!(database.tables().len(), phase.applied, "{what}");
    if phase.applied > 0 {
        assert_eq!(database.history().len(), phase.applied, "{what}");
        assert_eq!(database.rows("select what from log"), Vec::<String>::new(), "{what}");
    }
    Ended { what, database, folder, output, took }
}

impl Ended {
    /// Checks the report of a run that rolled back after a signal.
    fn in_good_order(self, (signal, code): Sent) -> Duration {
        let Ended { what, output, took, .. } = &self;
        let report = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what}\n{report}");
        assert!(*took < IN_TIME, "{what}: {took:?}");
        let name = if (signal, code) == STOP { "TERM" } else { signal };
        assert!(report.contains(&format!("interrupted by SIG{name}")), "{what}\n{report}");
        self.took
    }

    /// The next run succeeds without help.
    fn can_be_resumed(&self) {
        let Ended { what, database, folder, .. } = self;
        let second = folder.path.join("0001_second.sql");
        if std::fs::read_to_string(&second).is_ok_and(|text| text == SLOW) {
            std::fs::write(second, "insert into log values ('quick')").unwrap();
        }
        premigrate(database, folder).run().exits(0).does_not_say("failed");
        let invalid = "select from pg_index where not indisvalid";
        assert_eq!(database.rows(invalid), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn after_a_kill_in_any_phase_the_next_run_succeeds_without_help() {
    in_each_phase(PHASES.len(), |phase| {
        let ended = end_in(phase, "KILL", Place::Process);
        assert_eq!(ended.output.status.signal(), Some(9), "{}", ended.what);
        ended.can_be_resumed();
    });
}

/// Does something in each phase, in this many at once.
fn in_each_phase<T: Send>(at_once: usize, act: impl Fn(&'static Phase) -> T + Sync) -> Vec<T> {
    let some_at_once = |some: &'static [Phase]| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|phase| scope.spawn(|| act(phase))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    };
    PHASES.chunks(at_once).flat_map(some_at_once).collect()
}

#[expect(clippy::print_stdout, reason = "scripts/image shows the times")]
fn each_signal_in_each_phase(signals: &[Sent], place: Place) {
    // The container engine needs time of its own.
    let at_once = if place == Place::Container { 2 } else { PHASES.len() };
    let mut times = in_each_phase(at_once, |phase| {
        let end = |&signal: &Sent| {
            let ended = end_in(phase, signal.0, place);
            if phase.second == INDEX {
                ended.can_be_resumed();
            }
            ended.in_good_order(signal)
        };
        signals.iter().map(end).collect::<Vec<_>>()
    })
    .concat();
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} signals as {place:?}: median {median:?}, longest {longest:?}", times.len());
    // Only what does not answer takes all of its time.
    assert!(median < AT_ONCE, "{times:?}");
}

#[test]
fn each_signal_in_each_phase_as_an_ordinary_process() {
    each_signal_in_each_phase(&SIGNALS, Place::Process);
}

#[test]
fn each_signal_in_each_phase_as_process_1() {
    each_signal_in_each_phase(&SIGNALS, Place::Process1);
}

#[test]
#[ignore = "scripts/image builds the image, and runs this"]
fn each_signal_in_each_phase_in_a_container() {
    each_signal_in_each_phase(&[&SIGNALS[..], &[STOP]].concat(), Place::Container);
}

/// Sends the signal after the last check for one and before `exec`, while the last line waits for
/// room in stderr.
fn end_right_before_exec(signal: &str, code: i32, place: Place) {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    let (child, _) = place.start(&database, &folder, Stdio::piped());
    let report = output_within(LIMIT, child).stderr;
    let report = String::from_utf8(report).unwrap();
    let before = report.find("premigrate: starting").unwrap_or_else(|| panic!("{report}"));
    let last = report[..before].trim_end().rfind('\n').unwrap() + 1;

    // The line before it takes the last page.
    let (mut reader, writer) = pipe_with(PIPE - PAGE - last);
    let (child, target) = place.start(&database, &folder, writer.into());
    eventually("the last line to wait for room", || target.pid().is_some_and(waits_for_room));
    target.signal(signal);
    let output = output_within(IN_TIME, child);
    assert_eq!(output.status.code(), Some(code), "{signal} as {place:?}");
    assert!(output.stdout.is_empty(), "the app was started");
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    assert_eq!(printed.trim_start_matches('.'), &report[..before]);
}

#[test]
fn a_signal_right_before_exec_ends_premigrate_and_not_the_app() {
    for place in [Place::Process, Place::Process1] {
        for (signal, code) in SIGNALS {
            end_right_before_exec(signal, code, place);
        }
    }
}

#[test]
fn the_app_is_process_1_and_starts_with_every_signal_at_its_default() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    let mut command = as_process_1(env!("CARGO_BIN_EXE_premigrate"));
    command
        .args(["--", "cat", "/proc/self/status"])
        .env("DATABASE_URL", &database.url)
        .env("PREMIGRATE_DIR", &folder.path);
    let output = output_of(&mut command);
    let [status, report] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    assert!(status.contains("\nPid:\t1\n"), "{status}{report}");
    has_default_signals(&status, &report);
    assert_eq!(database.tables(), ["log"]);
}

#[test]
fn a_second_signal_ends_process_1_immediately() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", STUBBORN)]);
    let (mut child, target) = Place::Process1.start(&database, &folder, Stdio::piped());
    database.wait_for("the migration", SLEEPING);
    target.signal("TERM");
    database.wait_for("the attempt to cancel it", CANCELLED);
    let process_1 = target.pid().unwrap().to_string();
    eventually("its end", || {
        // It may have ended, and its parent not yet.
        let mut kill = Command::new("kill");
        let _ = kill.args(["-s", "INT", &process_1]).stderr(Stdio::null()).status();
        child.try_wait().unwrap().is_some()
    });
    let output = output_within(AT_ONCE, child);
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(database.leftovers(), Vec::<String>::new());
}
