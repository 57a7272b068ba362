//! Servers that do what no server does: they flood, stall, lie about lengths, and put line ends and control
//! characters where a name belongs. Memory stays bounded, nothing hangs, the exit code is right, and a line
//! of a report stays one line.
//!
//! `docs/reliability.md` has the figures of the floods: FLOODS= scripts/test a_flood_takes -- --nocapture
//! prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Database, Folder, IN_TIME, Premigrate, Random, Run, bare, premigrate};
use crate::proxy::{Action, Message, Proxy, Side, message};
use crate::waiting;

/// The most memory that a run may take, however much a server sends. A run that does nothing else takes 10
/// to 20 MB of it.
const MOST_MEMORY: usize = 256 << 20;

/// Longer than any of these runs takes.
const LIMIT: Duration = Duration::from_secs(60);

const SHORT_WAITS: [&str; 4] = ["--wait", "1s", "--runner-wait", "1s"];
const LONG_WAITS: [&str; 4] = ["--wait", "20s", "--runner-wait", "20s"];

// What servers say.

fn field(kind: u8, value: &str) -> Vec<u8> {
    [&[kind][..], value.as_bytes(), b"\0"].concat()
}

/// An error or a notice.
fn report(tag: u8, fields: &[(u8, &str)]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|&(kind, value)| field(kind, value)).collect();
    message(tag, [&fields[..], b"\0"].concat())
}

fn columns(names: &[&str]) -> Vec<u8> {
    let column = |name: &&str| {
        let kind = [0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        [name.as_bytes(), b"\0", &kind].concat()
    };
    let columns: Vec<u8> = names.iter().flat_map(column).collect();
    message(b'T', [&u16::try_from(names.len()).unwrap().to_be_bytes()[..], &columns].concat())
}

fn row(values: &[&[u8]]) -> Vec<u8> {
    let value =
        |value: &&[u8]| [&u32::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat();
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    message(b'D', [&count[..], &values.iter().flat_map(value).collect::<Vec<u8>>()].concat())
}

/// The header of a message of this length.
fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes()].concat()
}

/// Messages of which there are always more.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let many = |message: Vec<u8>| message.repeat((1 << 20) / message.len() + 1);
    let notice = |code: &str, text: &str| {
        report(b'N', &[(b'S', "WARNING"), (b'V', "WARNING"), (b'C', code), (b'M', text)])
    };
    let error = report(b'E', &[(b'S', "ERROR"), (b'V', "ERROR"), (b'C', "XX000"), (b'M', "again")]);
    let parameter =
        |number: usize| message(b'S', format!("parameter_{number}\0{}\0", "x".repeat(200)));
    let endless = |tag| [header(tag, (1 << 31) - 1), vec![b'x'; 1 << 20]].concat();
    vec![
        ("rows", [columns(&["a"]), many(row(&[b"1"]))].concat()),
        ("rows without columns", [columns(&[]), many(row(&[]))].concat()),
        ("descriptions of columns", many(columns(&["a", "b", "c"]))),
        ("notices", many(notice("01000", "again and again"))),
        (
            "notices of 1 MB, and their codes too",
            notice(&"0".repeat(1 << 20), &"x".repeat(1 << 20)),
        ),
        ("errors", many(error)),
        ("parameters", (0..200_000).flat_map(parameter).collect()),
        ("notifications", many(message(b'A', b"\0\0\0\x01channel\0payload\0"))),
        ("completed statements", many(message(b'C', b"SELECT 1\0"))),
        ("ends of replies", many(message(b'Z', b"I"))),
        ("requests for COPY data", many(message(b'G', b"\0\0\0"))),
        ("data of a COPY", [message(b'H', b"\0\0\0"), many(message(b'd', b"data\n"))].concat()),
        ("a row of 2 GiB", endless(b'D')),
        ("an error of 2 GiB", endless(b'E')),
        ("a notice of 2 GiB", endless(b'N')),
        ("a message of a type that there is not, of 2 GiB", endless(b'?')),
    ]
}

/// When a server begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Login,
    /// The reply to the first query.
    History,
    /// While a migration runs.
    Migration,
}

const MOMENTS: [Moment; 3] = [Moment::Login, Moment::History, Moment::Migration];

/// With something applied, so that the history is there, and something to apply.
fn begun() -> (Database, Folder) {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_more", "create table more (a int); select pg_sleep(0.1); select 1");
    (database, folder)
}

/// Whether this is the server's first message of that moment.
struct Watch {
    moment: Moment,
    is_logged_in: AtomicBool,
    is_over: AtomicBool,
}

impl Watch {
    fn of(moment: Moment) -> Watch {
        Watch { moment, is_logged_in: AtomicBool::default(), is_over: AtomicBool::default() }
    }

    fn is_now(&self, message: &Message) -> bool {
        if message.from == Side::Client || message.connection > 0 {
            return false;
        }
        let is_now = match self.moment {
            Moment::Login => message.place == 0,
            Moment::History => self.is_logged_in.load(Ordering::SeqCst),
            Moment::Migration => message.tag == b'C' && message.text.starts_with("CREATE TABLE\0"),
        };
        if message.tag == b'Z' {
            self.is_logged_in.store(true, Ordering::SeqCst);
        }
        is_now && !self.is_over.swap(true, Ordering::SeqCst)
    }
}

/// A proxy whose server does this once, at that moment.
fn proxy(moment: Moment, action: Action) -> (Proxy, Arc<Watch>) {
    let watch = Arc::new(Watch::of(moment));
    let shared = watch.clone();
    let proxy = Proxy::start(move |message| match shared.is_now(message) {
        true => action,
        false => Action::Pass,
    });
    (proxy, watch)
}

fn leaked(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

/// Fails the test if one of the program's lines could be another's, or drives a terminal.
#[track_caller]
fn has_lines_of_its_own(run: &Run, is_json: bool) {
    let all = run.stdout.clone() + &run.stderr;
    let is_unsafe = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!all.contains(is_unsafe), "{all:?}");
    assert!(!all.contains("panicked"), "{all}");
    for line in run.stderr.lines() {
        if is_json {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        } else {
            let is_ours =
                line.is_empty() || line.starts_with("premigrate: ") || line.starts_with("  ");
            assert!(is_ours && !line.starts_with(FORGED), "{line:?} in\n{all}");
        }
    }
}

/// A line that others have made up.
const FORGED: &str = "premigrate: up to date, 9 applied";

/// The exit codes that a server can bring about.
const CODES: [i32; 6] = [65, 69, 70, 75, 77, 78];
/// The same, where it does so once, and another connection may be a better one.
const CODES_OF_ONCE: [i32; 7] = [0, 65, 69, 70, 75, 77, 78];

#[test]
fn a_flood_takes_little_memory_and_ends_in_time() {
    let floods = floods();
    let names: Vec<&str> = floods.iter().map(|(what, _)| *what).collect();
    // FLOODS chooses some by their names, and prints what they take.
    let chosen = std::env::var("FLOODS").ok();
    let is_chosen = |what: &str| chosen.as_deref().is_none_or(|chosen| what.contains(chosen));
    let chosen_floods = floods.into_iter().filter(|(what, _)| is_chosen(what));
    let cases: Vec<(&str, Moment, &'static [u8])> = chosen_floods
        .flat_map(|(what, bytes)| {
            let bytes = leaked(bytes);
            MOMENTS.map(|moment| (what, moment, bytes))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let peaks = Mutex::new(BTreeMap::new());
    let flood = |&(what, moment, bytes): &(&'static str, Moment, &'static [u8])| {
        let (database, folder) = begun();
        let (proxy, watch) = proxy(moment, Action::Flood(bytes));
        // Until there are too many of them; but not where nobody wants the figures.
        let is_kept = what.starts_with("rows") || what.starts_with("descriptions");
        let waits = if is_kept && chosen.is_some() { &LONG_WAITS } else { &SHORT_WAITS };
        let run = premigrate(&proxy.to(&database), &folder).args(waits);
        let running = run.args(&["--notices", "info", "--", "echo", "started"]).start();
        let pid = running.pid();
        let ender = thread::spawn(move || {
            let until = Instant::now() + Duration::from_secs(8);
            while !watch.is_over.load(Ordering::SeqCst) && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            // A migration may take as long as it likes, and so does a flood in it.
            if moment == Moment::Migration {
                thread::sleep(Duration::from_millis(1500));
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid.cast_signed()),
                    nix::sys::signal::Signal::SIGTERM,
                );
            }
        });
        println!("{what}, {moment:?}");
        let (run, peak) = running.finish_with_peak(LIMIT);
        println!("{what}, {moment:?}: {} in {:?}, {} MB", run.code, run.took, peak >> 20);
        ender.join().unwrap();
        assert!(peak < MOST_MEMORY, "{what}, {moment:?}: {peak}\n{}", run.stderr);
        has_lines_of_its_own(&run, false);
        let code = run.code;
        // A migration may have been committed although the reply is lost.
        let of_migration = moment == Moment::Migration && [0, 143].contains(&code);
        assert!(
            of_migration || CODES.contains(&code),
            "{what}, {moment:?}: {code}\n{}",
            run.stderr
        );
        assert_eq!(run.stdout == "started\n", code == 0, "{what}, {moment:?}");
        // Nothing was done by halves.
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(database.tables(), ["log", "more"], "{what}, {moment:?}");
        peaks.lock().unwrap().insert((what, moment), (peak, run));
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    flood(case);
                }
            });
        }
    });
    let peaks = peaks.into_inner().unwrap();
    let mut table = String::new();
    for what in names.iter().filter(|what| is_chosen(what)) {
        let cells = MOMENTS.map(|moment| {
            let (peak, run) = &peaks[&(*what, moment)];
            format!("{} MB, {}", peak >> 20, run.code)
        });
        let _ = writeln!(table, "| {what} | {} |", cells.join(" | "));
    }
    println!("{table}");
    let document = crate::docs::project("docs/reliability.md");
    for what in names {
        assert!(
            document.contains(&format!("| {what} |")),
            "docs/reliability.md lacks {what}:\n{table}"
        );
    }
}

/// Lies about the reply to the first query, and how the run ends.
fn lies() -> Vec<(&'static str, Vec<u8>, i32)> {
    let ready = message(b'Z', b"I");
    let two = columns(&["a", "b"]);
    vec![
        ("a length of 0", header(b'T', 0), 69),
        ("a length of 3", header(b'T', 3), 69),
        ("a length below 0", header(b'T', u32::MAX), 69),
        ("a message that ends too early", [header(b'T', 8), b"\0\x02a\0".to_vec()].concat(), 69),
        ("a message that never ends", header(b'T', 5000), 75),
        ("a type that there is not", message(b'!', b"what"), 69),
        ("a login without end", message(b'R', b"\0\0\0\0"), 69),
        ("a row without columns", row(&[b"1"]), 69),
        ("a row that is too short", [two.clone(), row(&[b"1"]), ready.clone()].concat(), 69),
        (
            "a row that is too long",
            [two.clone(), row(&[b"1", b"1", b"1"]), ready.clone()].concat(),
            69,
        ),
        (
            "a value that is longer than its row",
            [two.clone(), message(b'D', b"\0\x02\0\0\x01\0a"), ready.clone()].concat(),
            69,
        ),
        (
            "a row that is not UTF-8",
            [two.clone(), row(&[b"\xff", b"\xff"]), ready.clone()].concat(),
            65,
        ),
        ("no rows", [two, message(b'C', b"SELECT 0\0"), ready.clone()].concat(), 65),
        ("nothing", ready.clone(), 65),
        ("an error that says nothing", [message(b'E', b"\0"), ready.clone()].concat(), 69),
        ("an error without an end", message(b'E', b"SERROR"), 69),
        (
            "an error at a place that is no number",
            [report(b'E', &[(b'S', "ERROR"), (b'C', "42601"), (b'M', "a"), (b'P', "-")]), ready]
                .concat(),
            69,
        ),
    ]
}

#[test]
fn a_lie_ends_the_run_with_one_sentence() {
    let (database, folder) = begun();
    for (what, bytes, code) in lies() {
        for format in ["text", "json"] {
            let (proxy, _) = proxy(Moment::History, Action::Become(leaked(bytes.clone())));
            let run = premigrate(&proxy.to(&database), &folder).args(&SHORT_WAITS);
            let run = run.args(&["--format", format, "--", "echo", "started"]).run();
            has_lines_of_its_own(&run, format == "json");
            assert_eq!(run.code, code, "{what}: {}", run.stderr);
            assert_eq!(run.stdout, "");
            assert!(run.took < IN_TIME, "{what}: {:?}", run.took);
        }
    }
    assert_eq!(database.tables(), ["log"]);
}

#[test]
fn a_server_that_reads_nothing_any_more_does_not_hold_up_a_signal() {
    let (database, folder) = (Database::fresh(), Folder::empty());
    let row = format!("insert into log values ('{}');\n", "x".repeat(1000));
    let sql = format!("create table log (what text);\n{}", row.repeat(8000));
    folder.write("0001_large.sql", sql);
    let proxy = Proxy::start(|message| match message.from {
        Side::Client if message.length > 100_000 => Action::Stall,
        _ => Action::Pass,
    });
    let running = premigrate(&proxy.to(&database), &folder).start();
    database.wait_for("the lock", "select from pg_locks where locktype = 'advisory'");
    running.end_by("TERM").exits(143);
    assert_eq!(database.tables(), [""; 0]);
}

/// SCRAM leaves it to the server how often the password is hashed.
#[test]
fn a_login_that_would_hash_for_hours_is_refused() {
    use std::io::{Read, Write};
    let folder = waiting::folder();
    let port = waiting::server(|mut client, _| {
        let mut buffer = [0; 1024];
        let _ = client.read(&mut buffer);
        let _ = client.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
        let length = client.read(&mut buffer).unwrap_or_default();
        let first = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let nonce = first.rsplit("r=").next().unwrap_or_default();
        let challenge = format!("\0\0\0\x0br={nonce}x,s=c2FsdA==,i=4294967295");
        let _ = client.write_all(&message(b'R', challenge));
        waiting::keep_silent(client);
    });
    let url = format!("postgres://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let run = bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path);
    let run = run.args(&SHORT_WAITS).start().finish_within(IN_TIME).exits(77);
    has_lines_of_its_own(&run.says(&["login failed", "iteration count"]), false);
}

// Texts.

/// Text by which a server would write a line of ours, or drive a terminal.
fn forged(text: &str) -> String {
    format!("{text}\n{FORGED}\r{FORGED}\u{1b}[2K\u{7}\u{85}{FORGED}\u{2028}\u{202e}")
}

/// An error or a notice with such text wherever there may be text.
fn forged_report(tag: u8, severity: &str, code: &str) -> Vec<u8> {
    let text = forged("x");
    let texts = b"MDHqWstcdnFR".iter().map(|&kind| (kind, text.as_str()));
    let first = [(b'S', text.as_str()), (b'V', severity), (b'C', code), (b'p', "2"), (b'L', "1")];
    report(tag, &first.into_iter().chain(texts).collect::<Vec<_>>())
}

#[test]
fn a_line_end_in_any_text_of_a_server_makes_no_line_of_ours() {
    let code = forged("4");
    for moment in MOMENTS {
        for bytes in [
            forged_report(b'E', "ERROR", "42P02"),
            forged_report(b'E', "FATAL", "57P03"),
            forged_report(b'E', "FATAL", "28P01"),
            forged_report(b'E', "ERROR", &code),
            forged_report(b'N', "WARNING", &code),
            forged_report(b'N', "NOTICE", "57014"),
            [columns(&[&code]), row(&[code.as_bytes()])].concat(),
            message(b'C', format!("{code}\0")),
            message(b'S', format!("server_version\0{code}\0")),
        ] {
            let bytes = leaked([bytes, message(b'Z', b"I")].concat());
            for format in ["text", "json"] {
                let (database, folder) = begun();
                let (proxy, _) = proxy(moment, Action::Become(bytes));
                let run = premigrate(&proxy.to(&database), &folder).args(&SHORT_WAITS);
                let run = run.args(&["--notices", "info", "--format", format]).run();
                has_lines_of_its_own(&run, format == "json");
                let what = String::from_utf8_lossy(bytes);
                assert!(
                    CODES_OF_ONCE.contains(&run.code),
                    "{moment:?}, {what:?}: {}\n{}",
                    run.code,
                    run.stderr
                );
                premigrate(&database, &folder).run().exits(0);
            }
        }
    }
}

/// The same row with such text in place of every word.
fn forged_row(bytes: &[u8]) -> Vec<u8> {
    let mut values = Vec::new();
    let mut rest = &bytes[7..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            values.push(Vec::new());
            rest = after;
            continue;
        };
        let (value, after) = after.split_at(length);
        let is_word = value.len() > 1 && value[0].is_ascii_alphabetic();
        let text = String::from_utf8_lossy(value);
        values.push(if is_word { forged(&text).into_bytes() } else { value.to_vec() });
        rest = after;
    }
    row(&values.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A proxy that forges what the server says of its sessions and locks.
fn forging_proxy() -> Proxy {
    let asked: Mutex<BTreeMap<usize, bool>> = Mutex::default();
    Proxy::start(move |message| {
        let mut asked = asked.lock().unwrap();
        let asks = asked.entry(message.connection).or_default();
        match (message.from, message.tag) {
            (Side::Client, b'Q') => {
                *asks = message.text.contains("pg_stat_activity");
                Action::Pass
            }
            (Side::Server, b'D') if *asks => Action::Become(leaked(forged_row(message.bytes))),
            _ => Action::Pass,
        }
    })
}

#[test]
fn names_of_sessions_that_a_server_makes_up_stay_on_their_line() {
    for format in ["text", "json"] {
        let (database, folder) = begun();
        let proxy = forging_proxy();
        let through = proxy.to(&database);
        let start = |args: &[&str]| -> Premigrate {
            premigrate(&through, &folder).args(args).args(&["--format", format])
        };
        // Another runner, and one that others wait for.
        let holder = database.holding(&premigrate::apply::lock::take_sql());
        for args in [&["--runner-wait", "0"][..], &["wait", "--runner-wait", "0"]] {
            let run = start(args).run().exits(75);
            has_lines_of_its_own(&run, format == "json");
        }
        drop(holder);
        // A session that blocks a statement.
        folder.add("0002_blocked", "alter table log add column more int");
        let holder = database.holding("lock table log");
        let run = start(&["--lock-timeout", "2500ms", "--lock-retries", "0"]).run().exits(75);
        has_lines_of_its_own(&run, format == "json");
        assert!(run.stderr.contains(FORGED), "nothing was forged:\n{}", run.stderr);
        drop(holder);
        premigrate(&database, &folder).run().exits(0);
    }
}

// Any message of a real server, changed by seeds.

/// Changes a message in one of many ways.
fn changed(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = random.below(bytes.len());
    match random.below(10) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n'][random.below(6)],
        2 => drop(bytes.splice(at..at, forged("").into_bytes())),
        3 => bytes.truncate(at),
        4 => bytes = bytes.repeat(2 + random.below(100)),
        5 => bytes.clear(),
        6 => bytes[0] = b"RSKZTDCENAGHWdcI"[random.below(16)],
        7 => {
            let length = [0, 3, 4, 5, 1000, i32::MAX, -1][random.below(7)].to_be_bytes();
            for (byte, new) in bytes.iter_mut().skip(1).zip(length) {
                *byte = new;
            }
        }
        8 => {
            let last = bytes.len() - 1;
            bytes.swap(at, last);
        }
        _ if bytes[0] == b'D' && bytes.len() > 7 => bytes = forged_row(&bytes),
        _ => bytes = forged_report([b'E', b'N'][random.below(2)], "ERROR", "XX000"),
    }
    bytes
}

/// What is run.
const COMMANDS: [&[&str]; 7] = [
    &["up", "--lock-retries", "1"],
    &["up", "--lock-retries", "1", "--notices", "info", "--format", "json"],
    &["status"],
    &["up", "--dry-run"],
    &["wait", "--runner-wait", "0"],
    &["rehearse", "--here"],
    &["rehearse", "--here", "--format", "json"],
];

const STEPS: &str = "insert into log values ('one'); \
    create index concurrently log_what on log (what); \
    do $$ begin raise notice 'a notice'; end $$; insert into log values ('two')";

#[test]
fn whatever_a_server_says_the_run_ends_and_a_plain_run_applies_the_rest() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let until = number("FUZZ_SECONDS").map(|time| Instant::now() + Duration::from_secs(time));
    const ROUNDS: u64 = 160;
    let next = Mutex::new(0);
    let take = || {
        let mut next = next.lock().unwrap();
        *next += 1;
        let goes_on = until.map_or(*next <= ROUNDS, |until| Instant::now() < until);
        goes_on.then_some(seed + *next - 1)
    };
    let work = || {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[
            ("0000_log", "create table log (what text)"),
            ("0001_steps", STEPS),
            ("0002_three", "insert into log values ('three'); select pg_sleep(0.01)"),
        ]);
        while let Some(seed) = take() {
            tell_a_lie(seed, &database, &folder);
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    println!("{} lies, seeds from {seed} on", next.lock().unwrap());
}

fn tell_a_lie(seed: u64, database: &Database, folder: &Folder) {
    let mut random = Random(seed);
    database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    );
    database.execute(
        "drop schema if exists drizzle cascade; drop schema public cascade; create schema public",
    );
    // In some, there is a history already.
    if random.below(3) > 0 {
        premigrate(database, folder).args(&["--through", "0000_log"]).run().exits(0);
    }
    let command = COMMANDS[random.below(COMMANDS.len())];
    // The server's so many-th message, or some of those around it.
    let (place, count) = (random.below(60), 1 + random.below(3));
    let shared = Mutex::new(random);
    let proxy = Proxy::start(move |message| {
        let is_it =
            message.from == Side::Server && (place..place + count).contains(&message.number);
        match is_it {
            true => Action::Become(leaked(changed(message.bytes, &mut shared.lock().unwrap()))),
            false => Action::Pass,
        }
    });
    let run = premigrate(&proxy.to(database), folder).args(command);
    let run = run.args(&["--wait", "1s"]).start();
    let is_json = command.contains(&"json");
    // A server that says nothing more in the middle of a migration is waited for.
    let (run, peak) = {
        let pid = run.pid();
        let ended = Arc::new(AtomicBool::default());
        let shared = ended.clone();
        let ender = thread::spawn(move || {
            let until = Instant::now() + Duration::from_secs(12);
            while !shared.load(Ordering::SeqCst) {
                if Instant::now() > until {
                    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let result = run.finish_with_peak(LIMIT);
        ended.store(true, Ordering::SeqCst);
        ender.join().unwrap();
        result
    };
    let what = format!("seed {seed}, {command:?}, message {place}: {}\n{}", run.code, run.stderr);
    assert!(peak < MOST_MEMORY, "{what}: {peak}");
    assert!([0, 143].contains(&run.code) || CODES.contains(&run.code), "{what}");
    has_lines_of_its_own(&run, is_json);
    let plain = premigrate(database, folder).run();
    assert_eq!(plain.code, 0, "{what}\nand then\n{}", plain.stderr);
    let log = database.rows("select what from log order by what");
    assert_eq!(log, ["one", "three", "two"], "{what}\nand then\n{}", plain.stderr);
    assert_eq!(database.history().len(), 3, "{what}");
}
