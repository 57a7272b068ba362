//! Each signal in each phase of a run, as an ordinary process and as process 1 of a namespace.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Database, Folder};
use crate::proxy::{Fate, From, Message, Proxy};

const SIGNALS: [(&str, i32); 4] = [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)];

/// A phase: its name, the message on which the signal comes, and how many migrations stand then.
type Phase = (&'static str, fn(&Message) -> bool, usize);

/// Another phase, such as one in a concurrent index, is one more line.
const PHASES: [Phase; 4] = [
    ("waiting for the database", |message| message.tag == 0 && message.text.contains("user"), 0),
    ("in a transaction", |message| message.text.contains("pg_sleep"), 1),
    ("between migrations", |message| is_commit(message), 1),
    ("while another runner is at work", |message| message.text.contains("advisory"), 0),
];

fn is_commit(message: &Message) -> bool {
    message.from == From::Server && message.text.starts_with("COMMIT\0")
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", signal, pid]).status().unwrap().success());
}

/// The process to send signals to: ours, or that which `unshare` made process 1.
fn target(parent: u32, as_process_1: bool) -> String {
    if !as_process_1 {
        return parent.to_string();
    }
    let found = Command::new("pgrep").args(["-P", &parent.to_string()]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

fn end_in((phase, is_it, stand): Phase, signal: &'static str, code: i32, as_process_1: bool) {
    let what = format!("SIG{signal}, {phase}, process 1: {as_process_1}");
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", "insert into log values ('slow');\nselect pg_sleep(60);"),
    ]);
    let mut client = database.client();
    let mut other = client.transaction().unwrap();
    if phase.contains("another runner") {
        other.batch_execute("select pg_advisory_xact_lock(8102650200187171425)").unwrap();
    }
    let (parent, sent) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (pid, once) = (parent.clone(), sent.clone());
    let proxy = Proxy::start(move |message| {
        if is_it(message) && !once.swap(true, Ordering::SeqCst) {
            while pid.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            kill(signal, &target(pid.load(Ordering::SeqCst), as_process_1));
        }
        Fate::Passes
    });
    let us = env!("CARGO_BIN_EXE_premigrate");
    let mut command = Command::new(if as_process_1 { "unshare" } else { us });
    if as_process_1 {
        let options = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
        command.args(options).args(["--kill-child", us]);
    }
    command.arg("--dir").arg(&folder.path).args(["--", "echo", "started"]);
    command.env_remove("PREMIGRATE_EMBEDDED").env("DATABASE_URL", &proxy.to(&database).url);
    let at = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    parent.store(child.id(), Ordering::SeqCst);
    let output = child.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(sent.load(Ordering::SeqCst), "{what}: the phase never came\n{report}");
    assert_eq!(output.status.code(), Some(code), "{what}\n{report}");
    assert!(at.elapsed() < Duration::from_secs(8), "{what}: {:?}", at.elapsed());
    assert!(report.contains(&format!("ended by SIG{signal}")), "{what}\n{report}");
    assert!(output.stdout.is_empty(), "{what}");
    other.rollback().unwrap();
    assert_eq!(database.leftovers(), Vec::<String>::new(), "{what}");
    assert_eq!(database.tables().len(), stand, "{what}");
    if stand > 0 {
        assert_eq!(database.history().len(), stand, "{what}");
        assert_eq!(database.rows("select what from log"), Vec::<String>::new(), "{what}");
    }
}

fn each_signal_in_each_phase(as_process_1: bool) {
    for phase in PHASES {
        for (signal, code) in SIGNALS {
            end_in(phase, signal, code, as_process_1);
        }
    }
}

#[test]
fn each_signal_in_each_phase_as_an_ordinary_process() {
    each_signal_in_each_phase(false);
}

#[test]
fn each_signal_in_each_phase_as_process_1() {
    each_signal_in_each_phase(true);
}
