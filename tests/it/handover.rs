//! The app inherits what it would inherit from a plain `exec`, except for signals, which are at their
//! defaults.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Database, Folder, needs, output_of};

/// Runs the first argument as Python, and becomes the rest.
const SET_UP: &str = r#"
import fcntl, os, pty, resource, signal, sys, termios
def terminal():
    master, ours = pty.openpty()
    os.set_inheritable(master, True)
    return ours
exec(sys.argv[1])
os.execvp(sys.argv[2], [os.fsencode(arg) for arg in sys.argv[2:]])
"#;

/// Prints everything that a process inherits.
const PROBE: &str = r#"
import fcntl, os, resource, sys, termios
def fd(number):
    try:
        return os.readlink(f'/proc/self/fd/{number}'), os.get_inheritable(number), os.isatty(number)
    except OSError as error:
        return error.errno
def foreground(number):
    try:
        return os.tcgetpgrp(number) == os.getpid()
    except OSError as error:
        return error.errno
print(open('/proc/self/cmdline', 'rb').read())
print(sorted(item for item in os.environb.items()))
print([fd(number) for number in range(3, 64)], fd(0), type(fd(2)))
print([fcntl.fcntl(number, fcntl.F_GETFL) for number in range(3) if isinstance(fd(number), tuple)])
print([(termios.tcgetattr(number), os.get_terminal_size(number), foreground(number))
    for number in (0, 2) if isinstance(fd(number), tuple) and os.isatty(number)])
print(os.getresuid(), os.getresgid(), os.getgroups(), os.getpgrp() == os.getpid())
print([resource.getrlimit(limit) for limit in range(16)])
print(os.umask(0), os.readlink('/proc/self/cwd'), os.nice(0))
"#;

/// How both are started: a name, and Python.
const SETUPS: [(&str, &str); 13] = [
    ("nothing", "pass"),
    ("a umask", "os.umask(0o137)"),
    (
        "limits",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (77, 99)); \
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    ),
    ("another working directory", "os.chdir('/')"),
    (
        "a deleted working directory",
        "d = f'/tmp/gone-{os.getppid()}'; os.makedirs(d, exist_ok=True); os.chdir(d); os.rmdir(d)",
    ),
    ("an inherited file", "os.dup2(os.open('/etc/passwd', os.O_RDONLY), 17)"),
    ("an inherited directory", "os.dup2(os.open('/', os.O_RDONLY), 23)"),
    ("a terminal", "os.dup2(terminal(), 0)"),
    (
        "a terminal of its own, for everything but stdout",
        "os.getpgrp() == os.getpid() or os.setsid(); ours = terminal(); \
        fcntl.ioctl(ours, termios.TIOCSCTTY, 0); \
        fcntl.ioctl(ours, termios.TIOCSWINSZ, b'\\x18\\0\\x50\\0' + bytes(4)); \
        mode = termios.tcgetattr(ours); mode[3] &= ~termios.ECHO; \
        termios.tcsetattr(ours, termios.TCSANOW, mode); os.dup2(ours, 0); os.dup2(ours, 2)",
    ),
    ("a file on stdin", "os.dup2(os.open('/etc/passwd', os.O_RDONLY), 0)"),
    ("a session of its own", "os.getpgrp() == os.getpid() or os.setsid()"),
    ("an odd environment", "os.environb[b'ODD'] = b'\\xff\\n='; os.environb[b'EMPTY'] = b''"),
    ("niceness", "os.nice(3)"),
];

fn python() -> Command {
    needs("Python");
    Command::new("python3")
}

fn probe(set_up: &str, through: &[&str]) -> String {
    let mut python = python();
    python
        .args(["-c", SET_UP, set_up])
        .args(through)
        .args(["python3", "-c", PROBE, "", "a b", "--", "$HOME"])
        .arg(OsStr::from_bytes(b"\xff\xfe\n"))
        .env_remove("LC_CTYPE");
    let output = output_of(&mut python);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{set_up}: {stderr}");
    let pty = |text: &str| text.replace(|char: char| char.is_ascii_digit(), "#");
    let text = String::from_utf8(output.stdout).unwrap();
    // Pseudo-terminals and the test's own folders have different numbers each time.
    if set_up.contains("terminal") || set_up.contains("gone") { pty(&text) } else { text }
}

#[test]
fn the_app_inherits_what_a_plain_exec_would_give_it() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    let (url, dir) = (database.url.as_str(), folder.path.to_str().unwrap());
    let us = env!("CARGO_BIN_EXE_premigrate");
    for (name, set_up) in SETUPS {
        let plain = probe(set_up, &[]);
        let variable = format!("MIGRATION_DATABASE_URL={url}");
        let ours = probe(set_up, &["env", &variable, us, "--dir", dir, "--"]);
        assert_eq!(ours, plain, "{name}");
    }
    assert_eq!(database.history().len(), 1);
}

/// Becomes a program, in an environment with duplicates.
const WITH_DUPLICATES: &str = r"
import ctypes, os, sys
def array(items):
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)
environment = [b'Z=1', b'PREMIGRATE_SKIP=1', b'A=2', b'PREMIGRATE_WAIT=1s', b'A=3',
    b'B=\xff\n', b'PREMIGRATE_WAIT=2s', b'Z=4', b'EMPTY=', b'MIGRATION_DATABASE_URL=',
    b'PATH=' + os.environb[b'PATH']]
program = [os.fsencode(word) for word in sys.argv[1:]]
ctypes.CDLL(None).execve(program[0], array(program), array(environment))
";

#[test]
fn the_app_gets_its_environment_in_order_and_with_duplicates() {
    let environment = |through: &[&str]| {
        let mut command = python();
        command.args(["-c", WITH_DUPLICATES]).args(through).args(["cat", "/proc/self/environ"]);
        output_of(&mut command).stdout
    };
    let ours = environment(&[env!("CARGO_BIN_EXE_premigrate"), "--"]);
    let plain = environment(&[
        "/usr/bin/env",
        "--unset=PREMIGRATE_SKIP",
        "--unset=PREMIGRATE_WAIT",
        "--unset=MIGRATION_DATABASE_URL",
    ]);
    assert!(plain.starts_with(b"Z=1\0A=2\0A=3\0B=\xff\n\0Z=4\0"), "{}", plain.escape_ascii());
    assert_eq!(ours.escape_ascii().to_string(), plain.escape_ascii().to_string());
}

#[test]
fn the_app_does_not_see_the_name_that_we_were_called_by() {
    for name in ["", "sh", "-premigrate"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_premigrate"));
        command.arg0(name).args(["--", "cat", "/proc/self/cmdline"]).env("PREMIGRATE_SKIP", "1");
        let output = output_of(&mut command);
        assert_eq!(output.stdout, b"cat\0/proc/self/cmdline\0", "{name}");
    }
}

/// Python that ignores and blocks every signal that allows it.
const ALL_SIGNALS: &str = "others = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}; \
    [signal.signal(n, signal.SIG_IGN) for n in others]; \
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())";

#[track_caller]
fn app_has_default_signals(through: &[&str], url: &str) {
    let mut python = python();
    python
        .args(["-c", SET_UP, ALL_SIGNALS, env!("CARGO_BIN_EXE_premigrate")])
        .args(through)
        .args(["--", "cat", "/proc/self/status"])
        .env("DATABASE_URL", url);
    let output = output_of(&mut python);
    let (status, report) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    let report = String::from_utf8_lossy(&report);
    // As `nohup` has them, and a shell that starts a job in the background.
    let ignored = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
    has_default_signals_except(&ignored, &status, &report);
}

/// Fails the test unless every signal is at its default in this `/proc` status.
#[track_caller]
pub fn has_default_signals(status: &str, report: &str) {
    has_default_signals_except(&[], status, report);
}

#[track_caller]
fn has_default_signals_except(ignored: &[Signal], status: &str, report: &str) {
    let ignored = ignored.iter().map(|&signal| 1 << (signal as i32 - 1)).sum::<u64>();
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t")));
        let signals = u64::from_str_radix(line.expect(report), 16).unwrap();
        // 32 and 33 belong to the C library, which does not let anyone set them.
        let expected = if name == "SigIgn" { ignored } else { 0 };
        assert_eq!(signals & !(0b11 << 31), expected, "{name} {signals:016x}");
    }
}

#[test]
fn the_app_starts_with_every_signal_at_its_default_but_those_that_nohup_ignores() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    app_has_default_signals(&["--dir", folder.path.to_str().unwrap()], &database.url);
    assert_eq!(database.history().len(), 1);
}
