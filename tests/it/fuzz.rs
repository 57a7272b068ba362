//! Changes what is kept in tests/fuzz, by seeds. What comes from a file, a variable or a server causes no
//! panic and no endless loop, whatever it is.
//!
//! The seed is fixed, so that a build does not fail by chance. `scripts/fuzz` goes on with other seeds. What
//! fails is written to target/fuzz: keep it as a file in tests/fuzz, where each file is read as it is first.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use premigrate::cli::dotenv;
use premigrate::commands::check;
use premigrate::history::table::Table;
use premigrate::migrations::migration::{Hash, MigrationSet};
use premigrate::migrations::payload;
use premigrate::migrations::source::{Files, JOURNAL, MigrationFolder};
use premigrate::postgres::conninfo::{self, passfile};
use premigrate::postgres::notices::NoticeLevel;
use premigrate::postgres::session::{Message, Session};
use premigrate::process::signals::{Deadline, StopFlag};

use crate::harness::Random;
use crate::input::read_sql;

/// The longest text.
const MAX_LENGTH: usize = 4096;

/// How long one may take, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is changed, and what reads it.
struct Target {
    /// The folder in tests/fuzz.
    name: &'static str,
    /// What is put in, besides parts of other files.
    pieces: &'static [&'static str],
    /// How many texts are read in a build, and the most in a long run.
    rounds: u64,
    most: u64,
    read: fn(&[u8]),
}

/// The kept files, by their names.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = match name {
        "sql" => "tests/oracle/corpus".to_owned(),
        name => format!("tests/fuzz/{name}"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let file = |path: &std::path::PathBuf| {
        let text = std::fs::read(path).unwrap();
        let is_escaped = path.extension().is_some_and(|extension| extension == "escaped");
        let bytes = if is_escaped { unescaped(&text) } else { text };
        (path.file_name().unwrap().to_string_lossy().into_owned(), bytes)
    };
    paths.iter().map(file).collect()
}

/// Bytes from text as `escape_ascii` makes it, with any line ends in it.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\n' => continue,
            b'\\' => match rest.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}

fn changed(kept: &[(String, Vec<u8>)], pieces: &[&str], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| &kept[random.below(kept.len())].1;
    let mut bytes = pick(random).clone();
    for _ in 0..=random.below(4) {
        let (a, b) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        let near = (from + random.below(8)).min(bytes.len());
        let new: Vec<u8> = match random.below(9) {
            0 | 1 => pieces[random.below(pieces.len())].as_bytes().to_vec(),
            2 => Vec::new(),
            3 => {
                let other = pick(random);
                let (c, d) = (random.below(other.len() + 1), random.below(other.len() + 1));
                other[c.min(d)..c.max(d)].to_vec()
            }
            // A number of four bytes, or a part of one.
            4 => {
                [0, 1, 3, 4, 5, 1000, i32::MAX, -1, i32::MIN][random.below(9)].to_be_bytes().into()
            }
            5 => ["0", "-1", "18446744073709551616", "1e999"][random.below(4)].as_bytes().into(),
            6 => vec![u8::try_from(random.below(256)).unwrap(); 1 + random.below(3)],
            7 => [&bytes[from..to], &bytes[from..to]].concat(),
            _ => {
                bytes.truncate(to);
                continue;
            }
        };
        let end = if random.below(2) == 0 { near } else { from };
        bytes.splice(from..end, new);
        bytes.truncate(MAX_LENGTH);
    }
    bytes
}

/// Reads the kept files as they are, and then as many changed ones as there is time for.
#[allow(clippy::print_stdout, reason = "scripts/fuzz shows it")]
fn fuzz(target: Target) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let until = number("FUZZ_SECONDS").map(|time| Instant::now() + Duration::from_secs(time));
    let Target { name, pieces, rounds, most, read } = target;
    let current = Arc::new(Mutex::new((String::new(), Vec::new())));
    let shared = current.clone();
    let (progress, seen) = channel();
    thread::spawn(move || {
        let kept = kept(name);
        assert!(kept.len() >= 3, "{name}");
        let attempt = |what: String, bytes: Vec<u8>| {
            *shared.lock().unwrap() = (what, bytes.clone());
            let is_read = catch_unwind(AssertUnwindSafe(|| read(&bytes))).is_ok();
            progress.send(is_read).is_ok() && is_read
        };
        for (file, bytes) in &kept {
            if !attempt(file.clone(), bytes.clone()) {
                return;
            }
        }
        let mut random = Random(seed);
        let mut count = 0;
        while count < most && until.map_or(count < rounds, |until| Instant::now() < until) {
            let bytes = changed(&kept, pieces, &mut random);
            if !attempt(format!("{seed}-{count}"), bytes) {
                return;
            }
            count += 1;
        }
    });
    let mut count = 0;
    let problem = loop {
        match seen.recv_timeout(PATIENCE) {
            Ok(true) => count += 1,
            Ok(false) => break "it is not read as it has to be",
            Err(RecvTimeoutError::Timeout) => break "it takes too long",
            Err(RecvTimeoutError::Disconnected) => {
                assert!(count > 3, "{name}: nothing was read");
                println!("{name}: {count} texts, seed {seed}");
                return;
            }
        }
    };
    let (what, bytes) = &*current.lock().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}-{what}.escaped"));
    std::fs::write(&path, bytes.escape_ascii().to_string()).unwrap();
    panic!("{name}, {what}: {problem}. Keep {} in tests/fuzz/{name}", path.display());
}

#[test]
fn the_kept_files_are_what_they_are_meant_to_be() {
    let file = |folder: &str, name: &str| {
        kept(folder).into_iter().find(|(file, _)| file == name).unwrap().1
    };
    let (from, folder) = payload::read(file("payload", "drizzle.escaped").leak()).unwrap();
    assert_eq!((from.as_str(), folder.files.len()), ("drizzle", 2));
    assert_eq!(payload::read(file("payload", "plain.escaped").leak()).unwrap().1.files.len(), 3);
    let files = ["0000_a", "0001_b", "sub/0002_c"];
    let files = files.map(|name| (format!("{name}.sql"), b"select 1".to_vec().into()));
    let mut files = Files::from(files);
    files.insert(JOURNAL.to_owned(), file("journal", "three.json").into());
    let folder = MigrationFolder { files, has_meta: true, ..MigrationFolder::default() };
    assert_eq!(MigrationSet::from_folder(&folder).unwrap().migrations().len(), 3);
    let answer = |name: &str| {
        let mut rows = None;
        converse(&file("messages", name), |session, limit| rows = Some(session.query("", limit)));
        rows.unwrap()
    };
    assert_eq!(answer("rows.escaped").unwrap()[0].rows[1][0].as_deref(), Some("café"));
    assert!(answer("errors.escaped").unwrap_err().to_string().contains("(42703)"));
    assert_eq!(answer("notices.escaped").unwrap()[0].rows.len(), 1);
}

#[test]
fn changed_sql_is_read_to_its_end() {
    let pieces = &[
        "'",
        "$$",
        "$a$",
        "\"",
        "/*",
        "*/",
        "--",
        ";",
        "\n",
        "\r\n",
        "\\",
        "\0",
        "(",
        ")",
        "E'",
        "begin atomic",
        "end",
        "copy t from stdin;\n",
        "\\.\n",
        "--> statement-breakpoint",
        "set ",
        "commit",
        "vacuum",
        "create index concurrently",
        "alter type t add value 'a'",
        "\u{feff}",
        "-- premigrate: no-transaction\n",
        "-- migrate:down\n",
        "do $$",
        "password '",
    ];
    let read = |bytes: &[u8]| read_sql(bytes, 40);
    fuzz(Target { name: "sql", pieces, rounds: 1500, most: u64::MAX, read });
}

#[test]
fn a_changed_journal_is_read_as_a_set_or_refused() {
    let pieces = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"tag\"",
        "\"when\"",
        "\"idx\"",
        "\"entries\"",
        "null",
        "true",
        "1.5",
        "0000_a",
        "0001_b",
        "../",
        "/",
        "\\u0000",
        "\u{feff}",
        " ",
        "\n",
    ];
    fuzz(Target { name: "journal", pieces, rounds: 20_000, most: u64::MAX, read: read_journal });
}

fn read_journal(bytes: &[u8]) {
    let mut files = Files::from([(JOURNAL.to_owned(), bytes.to_vec().into())]);
    for name in ["0000_a.sql", "0001_b.sql", "sub/0002_c.sql"] {
        files.insert(name.to_owned(), b"select 1".to_vec().into());
    }
    let folder = MigrationFolder { files, has_meta: true, ..MigrationFolder::default() };
    check::check(&folder, &Table::new("s", "t"), 0, None);
    let Ok(set) = MigrationSet::from_folder(&folder) else { return };
    let migrations = set.migrations();
    let names: BTreeSet<&str> = migrations.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names.len(), migrations.len(), "a name is there twice");
    assert!(migrations.iter().all(|migration| folder.files.contains_key(&migration.file)));
}

#[test]
fn a_changed_connection_string_is_read_or_refused() {
    let pieces = &[
        "://",
        "postgres://",
        ":",
        "/",
        "@",
        "?",
        "&",
        "=",
        "#",
        ",",
        "%",
        "%2F",
        "%00",
        "%ff",
        "%zz",
        "[",
        "]",
        "[::1]",
        "'",
        "\\",
        " ",
        "\t",
        "\n",
        "\0",
        "é",
        "host=",
        "port=",
        "5432",
        "65536",
        "sslmode=",
        "options=",
        "target_session_attrs=",
        "-1",
        "password=",
        "hostaddr=",
        "service=",
    ];
    fuzz(Target { name: "conninfo", pieces, rounds: 20_000, most: u64::MAX, read: read_conninfo });
}

fn read_conninfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Each line of a kept file is one.
    for line in text.lines() {
        match conninfo::resolve(Some(line), "DATABASE_URL", &|_| None) {
            Ok(target) => assert!(!target.hosts.is_empty() && !target.user.is_empty(), "{line}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        passfile::password(&text, line, 5432, "d", "u");
    }
}

#[test]
fn a_changed_env_file_is_read_to_its_end() {
    let pieces = &[
        "=",
        "'",
        "\"",
        "`",
        "\\",
        "\\n",
        "\n",
        "\r\n",
        "#",
        " ",
        "export ",
        "DATABASE_URL",
        "A",
        "$",
        "${A}",
        "\0",
        "\u{feff}",
        "é",
        ".",
        "-",
    ];
    fuzz(Target { name: "env", pieces, rounds: 20_000, most: u64::MAX, read: read_env });
}

fn read_env(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let variables = dotenv::parse(&text);
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    for (name, value) in &variables {
        assert!(!name.is_empty() && name.chars().all(is_of_name), "{name:?}");
        assert!(value.len() <= text.len());
    }
    assert!(variables.len() <= text.lines().count());
}

#[test]
fn a_changed_bundle_is_read_or_refused_and_leads_nowhere_else() {
    let pieces = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"path\":",
        "\"bytes\":",
        "\"packed\":",
        "\"hash\":",
        "../",
        "/",
        "\\u0000",
        "end\n",
        "\0\0\0\0\0\0\0\0",
        "\"from\":",
        "true",
        "null",
    ];
    // What a program carries is there as long as it runs, so each takes memory for ever.
    fuzz(Target { name: "payload", pieces, rounds: 10_000, most: 300_000, read: read_payload });
}

fn read_payload(bytes: &[u8]) {
    let Some((_, folder)) = payload::read(bytes.to_vec().leak()) else { return };
    for (path, content) in &folder.files {
        let mut parts = Path::new(path).components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        if let Ok(read) = content.read() {
            assert_eq!(Hash::of(&read).as_str(), content.hash().as_str(), "{path:?}");
        }
    }
}

#[test]
fn changed_messages_of_a_server_end_in_an_answer_or_an_error() {
    let pieces = &[
        "\0",
        "\0\0",
        "R",
        "S",
        "K",
        "Z",
        "T",
        "D",
        "C",
        "E",
        "N",
        "A",
        "G",
        "H",
        "W",
        "d",
        "c",
        "I",
        "Z\0\0\0\x05I",
        "D\0\0\0\x06\0\0",
        "SERROR\0",
        "C42P01\0",
        "VERROR\0",
        "P1\0",
        "p-1\0",
        "\u{fffd}",
        "\n",
    ];
    fuzz(Target { name: "messages", pieces, rounds: 800, most: u64::MAX, read: read_messages });
}

/// A server that says this, one part for each query: a part ends where it is ready for the next. It does
/// not wait long.
fn say(bytes: &[u8], mut client: TcpStream) {
    const READY: &[u8] = b"Z\0\0\0\x05";
    client.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let mut rest = bytes;
    let mut buffer = [0; 1 << 14];
    while let Ok(1..) = client.read(&mut buffer) {
        let ready = rest.windows(READY.len()).position(|window| window == READY);
        let end = ready.map_or(rest.len(), |at| (at + READY.len() + 1).min(rest.len()));
        let part;
        (part, rest) = rest.split_at(end);
        if part.is_empty() || client.write_all(part).is_err() {
            return;
        }
    }
}

fn read_messages(bytes: &[u8]) {
    converse(bytes, |session, limit| {
        session.begin_notices("0000_a", NoticeLevel::Info);
        let _ = session.query("select 1", limit);
        let discarding = Message { discards_rows: true, ..Message::from("select 2") };
        let batch = [Message::from("begin"), discarding, Message::from("commit")];
        for one_by_one in [false, true] {
            let responses = session.send_batch(&batch, one_by_one, limit, &mut |_| {});
            assert!(responses.end.is_some() || responses.responses.len() == batch.len());
        }
        assert!(session.take_notices("0000_a").len() <= 100);
    });
}

/// Lets somebody talk to a server that says this, if it lets us in.
fn converse(bytes: &[u8], talk: impl FnOnce(&Session, Deadline<'_>)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let target = conninfo::resolve(Some(&url), "a URL", &|_| None).unwrap();
    let stop = StopFlag::default();
    let limit = Deadline::after(Duration::from_secs(5), &stop);
    thread::scope(|scope| {
        scope.spawn(move || {
            let (client, _) = listener.accept().unwrap();
            // Cancel requests are refused.
            drop(listener);
            say(bytes, client);
        });
        if let Ok(session) = Session::open(&target, limit) {
            talk(&session, limit);
        }
    });
}
