//! Invalid input: one sentence with the cause and the cure, the documented exit code, and nothing
//! is run. No input causes a panic.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use expect_test::expect;

use premigrate::cli::config::Config;
use premigrate::cli::environment::Environment;
use premigrate::cli::{args, dotenv};
use premigrate::commands::check;
use premigrate::history::table::{History, Row, Table, TableVersion};
use premigrate::migrations::migration::{Layout, Migration, MigrationSet};
use premigrate::migrations::prepared::PreparedMigration;
use premigrate::migrations::source::{Files, JOURNAL, MigrationFolder};
use premigrate::postgres::conninfo;
use premigrate::sql::{LineColumn, Script, offset_of};

use crate::harness::{Database, Folder, IN_TIME, Random, Run, Running, bare, premigrate};
use crate::proxy::{Action, Proxy, Side};

const FINE: (&str, &str) = ("0000_fine", "create table fine ()");

/// A run that must change nothing and start nothing.
#[track_caller]
fn refused(folder: &Folder, code: i32, words: &[&str]) -> Run {
    let database = Database::fresh();
    let run = premigrate(&database, folder).args(&["--", "echo", "started"]).run().exits(code);
    let run = run.says(words).says(&["The app was not started."]).does_not_say("panicked");
    assert_eq!(run.stdout, "");
    assert_eq!(database.tables(), Vec::<String>::new());
    let schemas = "select 1 from pg_namespace where nspname = 'drizzle'";
    assert_eq!(database.rows(schemas), Vec::<String>::new());
    run
}

// The folder.

#[test]
fn a_missing_folder_is_named() {
    let folder = Folder::empty();
    std::fs::remove_dir(&folder.path).unwrap();
    let path = folder.path.display().to_string();
    refused(&folder, 65, &[&format!("could not read {path}"), "No such file or directory"]);
}

#[test]
fn a_folder_that_is_a_file_is_named() {
    let folder = Folder::empty();
    std::fs::remove_dir(&folder.path).unwrap();
    std::fs::write(&folder.path, "").unwrap();
    refused(&folder, 65, &["could not read", "Not a directory"]);
    std::fs::remove_file(&folder.path).unwrap();
}

#[test]
fn a_folder_without_migrations_is_refused_with_the_known_layouts() {
    let folder = Folder::empty();
    folder.write("README.md", "nothing");
    refused(&folder, 65, &["no migrations found", "meta/_journal.json", "*.sql"]);
}

#[test]
fn an_invalid_journal_is_refused() {
    let folder = Folder::drizzle0(&[FINE]);
    for (journal, word) in [
        ("", "is not valid JSON"),
        ("{\n  \"entries\": [", "line 2"),
        ("[]", "has no list `entries`"),
        ("null", "has no list `entries`"),
        (r#"{"entries":{}}"#, "has no list `entries`"),
        (r#"{"entries":[7]}"#, "has no `tag` in entry 0"),
        (r#"{"entries":[{"tag":7,"when":1}]}"#, "has no `tag` in entry 0"),
        (r#"{"entries":[{"tag":"0000_fine"}]}"#, "the `when` of 0000_fine"),
        (r#"{"entries":[{"tag":"0000_fine","when":1.5}]}"#, "the `when` of 0000_fine"),
        (r#"{"entries":[{"tag":"0000_fine","when":"soon"}]}"#, "the `when` of 0000_fine"),
        (r#"{"entries":[{"tag":"0000_fine","when":99999999999999999999}]}"#, "`when` of"),
    ] {
        folder.write("meta/_journal.json", journal);
        refused(&folder, 65, &["meta/_journal.json", word, "restore it"]);
    }
    folder.write("meta/_journal.json", b"{\"entries\":[{\"tag\":\"\xff\"}]}");
    refused(&folder, 65, &["meta/_journal.json", "is not valid JSON"]);
}

#[test]
fn a_folder_that_has_lost_its_journal_is_not_plain() {
    let folder = Folder::empty();
    folder.write("0000_fine.sql", FINE.1);
    folder.write("meta/0000_snapshot.json", "{}");
    refused(&folder, 65, &["meta/_journal.json is missing; restore it"]);
    let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
    assert!(
        run.stdout.contains("meta/_journal.json: error: the file is missing"),
        "{}",
        run.stdout
    );
    std::fs::remove_file(folder.path.join("meta/0000_snapshot.json")).unwrap();
    refused(&folder, 65, &["meta/_journal.json is missing; restore it"]);
}

#[test]
fn all_missing_files_are_named_at_once() {
    let folder = Folder::drizzle0(&[FINE, ("0001_a", ""), ("0002_b", "")]);
    std::fs::remove_file(folder.path.join("0001_a.sql")).unwrap();
    std::fs::remove_file(folder.path.join("0002_b.sql")).unwrap();
    refused(&folder, 65, &["0001_a.sql is missing", "0002_b.sql is missing", "restore the file"]);
}

#[test]
fn a_tag_outside_the_folder_is_refused() {
    for tag in ["../0000_fine", "a/../../b", "/etc/passwd", "", "a\\b", "a\0b", "."] {
        let folder = Folder::drizzle0(&[FINE]);
        folder.edit_journal(|entries| entries[0]["tag"] = tag.into());
        refused(&folder, 65, &["contains the tag", "not a file inside the folder"]);
    }
}

#[test]
fn a_duplicate_entry_is_refused() {
    let folder = Folder::drizzle0(&[FINE]);
    folder.edit_journal(|entries| entries.push(entries[0].clone()));
    refused(&folder, 65, &["two migrations are named 0000_fine"]);
}

// Files: nothing is run, although an earlier migration is fine.

#[test]
fn a_pending_file_that_is_not_text_is_refused_with_the_offset() {
    let folder = Folder::drizzle0(&[FINE, ("0001_bad", "")]);
    for (bytes, words) in [
        (&b"select 'abc\xff'"[..], "0001_bad.sql is not valid UTF-8 (byte 11)"),
        (b"\xef\xbb\xbfselect '\xc3'", "0001_bad.sql is not valid UTF-8 (byte 11)"),
        (b"\xff\xfes\0e\0l\0", "0001_bad.sql is UTF-16"),
        (b"select '\0'", "0001_bad.sql contains a NUL byte (byte 8)"),
    ] {
        folder.write("0001_bad.sql", bytes);
        refused(&folder, 65, &["nothing was run", words]);
    }
}

/// Creates a history with a row for the first migration.
fn record(database: &Database, hash: &str) {
    database.execute(&format!(
        "create schema drizzle; create table drizzle.__drizzle_migrations (id serial primary key, \
         hash text not null, created_at bigint); \
         insert into drizzle.__drizzle_migrations (hash, created_at) \
         values ('{hash}', 1700000000000)"
    ));
}

#[test]
fn an_applied_file_that_is_not_utf_8_has_the_hash_that_drizzle_recorded() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_old", "")]);
    folder.write("0000_old.sql", b"select '\xff\xc3'");
    // Node reads each invalid sequence as U+FFFD.
    let hash = premigrate::migrations::migration::Hash::of("select '\u{fffd}\u{fffd}'".as_bytes());
    record(&database, hash.as_str());
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
}

#[test]
fn a_statement_that_cannot_be_run_is_refused_with_its_position() {
    for (sql, words) in [
        ("select 1;\n  rollback", "0001_bad.sql:2:3 contains `rollback`"),
        ("rollback and chain", "0001_bad.sql:1:1 contains `rollback and chain`"),
        ("abort", "0001_bad.sql:1:1 contains `abort`"),
        ("prepare transaction 'x'", "contains `prepare transaction 'x'`"),
        (
            "/* é */ create temp table a (); vacuum",
            "0001_bad.sql:1:9 contains CREATE TEMPORARY TABLE, which lasts only as long as the session",
        ),
        ("listen a; commit; select 1", "contains LISTEN, which lasts only"),
        (
            "copy fine from stdin; select 1;\n1\n\\.\n",
            "0001_bad.sql:1:1 has SQL in the same line after COPY ... FROM STDIN",
        ),
        ("copy fine to stdout", "0001_bad.sql:1:1 contains COPY ... TO STDOUT"),
        ("\\connect other\nselect 1", "0001_bad.sql:1:1 contains `\\connect other`"),
    ] {
        let folder = Folder::drizzle0(&[FINE, ("0001_bad", sql)]);
        refused(&folder, 65, &["nothing was run", words]);
    }
}

#[test]
fn every_file_that_cannot_be_run_is_named_at_once() {
    let folder = Folder::drizzle0(&[("0000_a", "abort"), FINE, ("0002_b", "rollback")]);
    refused(&folder, 65, &["0000_a.sql:1:1", "0002_b.sql:1:1", "3 are pending."]);
}

#[test]
fn an_applied_file_may_contain_what_cannot_be_run() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "COMMIT;--> statement-breakpoint\nvacuum")]);
    let hash = folder.hash("0000_a.sql");
    record(&database, hash.as_str());
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
}

// The command line and the connection string.

#[test]
fn an_invalid_command_line_is_explained_in_one_line() {
    for (args, words) in [
        (&["--verbose"][..], "unknown option `--verbose`"),
        (&["-x"], "unknown option `-x`"),
        (&["down"], "unknown command `down`; put the app after `--`"),
        (&["node", "server.js"], "unknown command `node`"),
        (&["up", "now"], "unexpected argument `now`; put the app after `--`"),
        (&["--"], "nothing follows `--`"),
        (&["--wait"], "--wait needs a value"),
        (&["--wait", "1s", "--wait=2s"], "--wait was given more than once"),
        (&["--strict=yes"], "--strict does not take a value"),
        (&["list", "--wait", "1s"], "--wait cannot be used with `list`"),
        (&["list", "--", "node"], "`list` does not start an app"),
        (&["status", "--strict"], "--strict cannot be used with `status`"),
    ] {
        let run = bare().args(args).env("DATABASE_URL", "postgres://u@127.0.0.1:1/d").run();
        let run = run.exits(64).says(&[words, "see --help"]);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused_unless_it_is_a_folder() {
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    for run in [
        bare().args(&["--bogus", "--format=json", "--", "app"]),
        bare().env("PREMIGRATE_FORMAT", "json").args(&["--bogus", "--", "app"]),
    ] {
        let told = run.run().exits(64).events().pop().unwrap();
        assert_eq!(told["message"], "unknown option `--bogus` (see --help)");
        assert_eq!(told["app_started"], false);
    }
    let run = bare().args(&["--bogus", "--", "app", "--format=json"]).run().exits(64);
    run.stderr_is(expect![[r#"
        premigrate: unknown option `--bogus` (see --help)

          The app was not started.
    "#]]);
    bare().arg(bytes(b"\xff")).run().exits(64).says(&["unknown command"]);
    bare().arg(bytes(b"--\xff")).run().exits(64).says(&["unknown option"]);
    bare().arg("--wait").arg(bytes(b"\xff")).env("DATABASE_URL", "x").run().exits(78);

    let (database, folder) = (Database::fresh(), Folder::drizzle0(&[FINE]));
    let odd = folder.path.join(bytes(b"\xffmigrations"));
    std::fs::create_dir_all(odd.join("meta")).unwrap();
    for file in ["0000_fine.sql", "meta/_journal.json"] {
        std::fs::copy(folder.path.join(file), odd.join(file)).unwrap();
    }
    let run = bare().env("DATABASE_URL", &database.url).arg("--dir").arg(&odd).run();
    run.exits(0).says(&["applied 0000_fine"]);
}

#[test]
fn an_invalid_connection_string_is_explained_without_its_password() {
    let folder = Folder::drizzle0(&[FINE]);
    for (url, words) in [
        ("postgres://u:hunter2@h:port/d", "a port must be a number"),
        ("postgres://u:hunter2@/d", "no host is given"),
        ("postgres://:hunter2@h/d", "no user is given"),
        ("postgres://u:hunter2@h/d?sslmode=on", "sslmode must be one of"),
        ("postgres://u:hunter2@h/d?colour=red", "colour is not a connection parameter"),
        ("postgres:u:hunter2@h/d", "must be followed by `://`"),
        ("mysql://u:hunter2@h/d", "only PostgreSQL is supported"),
        ("http://u:hunter2@h/d", "a web address"),
        ("jdbc:postgresql://h/d?user=u&password=hunter2", "a JDBC URL"),
        ("Host=h;Username=u;Password=hunter2", "an ADO.NET connection string"),
        ("hunter2", "neither a URL"),
        ("host=h user=u password='hunter2", "no closing '"),
        ("postgres://u:hunter2@[::1/d", "brackets"),
        ("postgres://u:hunter%002@h/d", "NUL"),
        ("postgres://u:hunter2%ff@h/d", "UTF-8"),
    ] {
        let run = bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path).run();
        let run = run.exits(78).says(&["DATABASE_URL: ", words]).does_not_say("hunter");
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

// No panic and no endless loop, with the same random input in every run.

impl Random {
    /// Random bytes and words that matter to the parsers.
    fn bytes(&mut self, words: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.below(24) {
            match self.below(4) {
                0 => bytes.push(u8::try_from(self.below(256)).unwrap()),
                _ => bytes.extend(words[self.below(words.len())].as_bytes()),
            }
        }
        bytes
    }
}

#[test]
fn random_files_in_a_folder_cause_no_panic() {
    let words = [
        "{",
        "}",
        "[",
        "]",
        "\"entries\"",
        ":",
        ",",
        "\"tag\"",
        "\"when\"",
        "\"a\"",
        "1",
        "null",
        "{\"entries\":[{\"when\":1,\"tag\":\"a\"}]}",
        "\u{feff}",
        "\\u0000",
        "9999999999999999999",
        "1e999",
        "-",
    ];
    let mut random = Random(1);
    for _ in 0..5000 {
        let mut files = Files::new();
        files.insert(JOURNAL.to_owned(), random.bytes(&words).into());
        files.insert("a.sql".to_owned(), random.bytes(&words).into());
        let _ = MigrationSet::from_folder(&MigrationFolder {
            files,
            has_meta: true,
            ..MigrationFolder::default()
        });
        let name = String::from_utf8_lossy(&random.bytes(&["2026", "0131", "é", "_", "/", "."]))
            .into_owned();
        let paths = [format!("{name}.sql"), format!("{name}/migration.sql")];
        let files: Files = paths.map(|path| (path, Vec::new().into())).into_iter().collect();
        let _ = MigrationSet::from_folder(&MigrationFolder {
            files,
            has_meta: false,
            ..MigrationFolder::default()
        });
    }
}

const SQL: [&str; 32] = [
    "'",
    "\"",
    "$$",
    "$a$",
    "$",
    "E'",
    "U&'",
    "\\",
    "--",
    "\n",
    "\r",
    "/*",
    "*/",
    ";",
    "(",
    ")",
    "begin",
    "atomic",
    "end",
    "create function",
    "--> statement-breakpoint",
    "copy t from stdin;\n",
    "\\.",
    " ",
    "\u{feff}",
    "é",
    "\0",
    "-- premigrate: no-transaction\n",
    "select",
    "1e",
    "set",
    "vacuum",
];

/// The time that this thread has had on a processor, in nanoseconds: however busy the others are.
fn time_used() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

/// Four times as much of it takes about four times as long, and not sixteen times.
#[track_caller]
fn is_linear(what: &str, size: usize, work: impl Fn(usize)) {
    let time = |size| {
        let before = time_used();
        work(size);
        time_used() - before
    };
    // The least of several: the first may have to fetch memory.
    let least = |size| (0..2).map(|_| time(size)).min().unwrap();
    let (small, large) = (least(size), least(4 * size));
    assert!(
        large < 9 * small + 20_000_000,
        "{what}: {small} ns, and {large} ns for 4 times as much"
    );
}

#[test]
fn reading_sql_takes_time_in_proportion_to_its_length() {
    for (what, size, begin, more, end) in [
        ("statements", 4_000, "", "select 1;", ""),
        ("empty statements", 20_000, "", ";", ""),
        ("steps", 400, "", "set a.b = c; vacuum t; ", ""),
        ("settings", 800, "", "set role a; set b.c = d; reset role; commit; ", ""),
        ("computed settings", 200, "", "select set_config('a.b', f(), false); vacuum t; ", ""),
        ("nested comments", 10_000, "", "/*", "*/"),
        ("unclosed comments", 10_000, "select 1; ", "/* ", ""),
        ("line comments", 10_000, "", "--\n", "select 1"),
        ("parentheses", 10_000, "select ", "(", ")"),
        ("quotes", 10_000, "select ", "''", "'"),
        ("open dollar quotes", 4_000, "", "$a$ ", ""),
        ("different dollar quotes", 4_000, "", "$a$ $b$ ", ""),
        ("markers", 1_000, "", "select 1--> statement-breakpoint\n", ""),
        ("markers in a line", 1_000, "-- ", "--> statement-breakpoint ", ""),
        ("COPY", 2_000, "", "copy t from stdin ", ""),
        ("atomic bodies", 1_000, "", "create function f() begin atomic select 1; end; ", ""),
        ("enum values", 400, "", "alter type e add value 'a'; ", "select 'b'; "),
        ("passwords", 2_000, "select ", "'password', ", "1"),
    ] {
        is_linear(what, size, |size| {
            let sql = format!("{begin}{}{}", more.repeat(size), end.repeat(size));
            let migration = Migration::new("a", "a.sql", Some(1), sql.into_bytes());
            let prepared = PreparedMigration::parse(&migration);
            let folder =
                [("a.sql".to_owned(), migration.sql().unwrap().as_bytes().to_vec().into())];
            let folder =
                MigrationFolder { files: Files::from(folder), ..MigrationFolder::default() };
            check::check(&folder, &Table::new("s", "t"), 0, None);
            drop(prepared);
        });
    }
}

#[test]
fn reading_a_journal_takes_time_in_proportion_to_its_length() {
    is_linear("entries", 2_000, |size| {
        let entry = |number| format!(r#"{{"when":{number},"tag":"{number}"}}"#);
        let entries: Vec<_> = (0..size).map(entry).collect();
        let journal = format!(r#"{{"entries":[{}]}}"#, entries.join(","));
        let mut files = Files::from([(JOURNAL.to_owned(), journal.into_bytes().into())]);
        for number in 0..size {
            files.insert(format!("{number}.sql"), b"select 1".to_vec().into());
        }
        let folder = MigrationFolder { files, has_meta: true, ..MigrationFolder::default() };
        assert_eq!(MigrationSet::from_folder(&folder).unwrap().migrations().len(), size);
        check::check(&folder, &Table::new("s", "t"), 0, None);
    });
}

#[test]
fn a_signal_while_a_long_error_is_reported_ends_the_run() {
    let quotes = "'password', ".repeat(1_000_000);
    let folder = Folder::drizzle0(&[("0000_a", &format!("select {quotes} no_such"))]);
    let running = Arc::new(Mutex::new(None::<u32>));
    let shared = running.clone();
    let proxy = Proxy::start(move |message| {
        // The report begins when the error has come.
        if message.from == Side::Server
            && message.tag == b'E'
            && let Some(pid) = *shared.lock().unwrap()
        {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        }
        Action::Pass
    });
    let database = Database::fresh();
    let database = proxy.to(&database);
    let run = premigrate(&database, &folder).start();
    *running.lock().unwrap() = Some(run.pid());
    let run = run.finish_within(IN_TIME * 3);
    assert!([70, 143].contains(&run.code), "{}", run.code);
    assert!(!run.stderr.contains("'password'"), "{}", run.stderr);
}

#[test]
fn random_bytes_in_a_migration_cause_no_panic() {
    let mut random = Random(2);
    for _ in 0..5000 {
        let bytes = random.bytes(&SQL);
        read_sql(&bytes, random.below(40));
    }
}

/// Reads a migration in each way. Sent in pieces, of this length where it can be cut, it is what it was.
pub fn read_sql(bytes: &[u8], length: usize) {
    let migration = Migration::new("a", "a.sql", Some(1), bytes.to_vec());
    assert!(migration.matches_hash(migration.hash.as_str()));
    drop(PreparedMigration::parse(&migration));
    let folder = [("a.sql".to_owned(), bytes.to_vec().into())];
    let folder = MigrationFolder { files: Files::from(folder), ..MigrationFolder::default() };
    check::check(&folder, &Table::new("s", "t"), 0, None);
    let text = String::from_utf8_lossy(bytes);
    let script = Script::parse(&text);
    let chars: Vec<char> = text.chars().collect();
    // With the data of COPY, which is sent apart.
    let joined = |limit| -> Vec<char> {
        let mut sent = Vec::new();
        for piece in script.pieces(0..script.statements().len(), limit) {
            let first_char = text[..piece.start].chars().count();
            sent.extend(&chars[sent.len()..first_char]);
            sent.extend(piece.text.chars());
        }
        sent.extend(&chars[sent.len()..]);
        sent
    };
    let sent = joined(usize::MAX);
    assert_eq!(joined(length), sent, "{text:?}");
    assert_eq!(sent.len(), chars.len(), "{text:?}");
    for statement in script.statements().iter() {
        assert_eq!(&text[statement.start..][..statement.text.len()], statement.text);
    }
    for at in [0, length, chars.len(), chars.len() + 1] {
        LineColumn::at(&text, offset_of(&text, at));
    }
}

#[test]
fn errors_of_the_server_cause_no_panic() {
    let database = Database::fresh();
    let mut random = Random(3);
    for _ in 0..40 {
        let sql = String::from_utf8_lossy(&random.bytes(&SQL)).replace('\0', "");
        let folder = Folder::drizzle0(&[("0000_a", &sql)]);
        let run = premigrate(&database, &folder).args(&["--lock-retries", "0"]).run();
        assert!([0, 65, 70].contains(&run.code), "{sql:?}: {run:?}");
        let run = run.does_not_say("panicked");
        if run.code == 0 {
            database.execute("delete from drizzle.__drizzle_migrations");
        } else {
            assert!(run.stderr.contains("0000_a"), "{sql:?}: {run:?}");
        }
    }
}

#[test]
fn random_arguments_and_environments_cause_no_panic() {
    let flags = [
        "--",
        "--dir",
        "--wait",
        "=",
        "1s",
        "--strict",
        "--help",
        "list",
        "up",
        "-",
        "--format",
        "json",
        "--env-file",
        "ms",
        "99999999999999999999",
        "-1",
        "é",
    ];
    let urls = [
        "postgres://",
        "user",
        ":",
        "@",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%2F",
        "[",
        "]",
        ",",
        "host",
        "password",
        "sslmode",
        "'",
        "\\",
        " ",
        "h",
        "5432",
        "é",
        "\"",
        "#",
    ];
    let lines = ["A", "DATABASE_URL", "=", "'", "\"", "`", "\\", "\n", "\r", "#", "export ", " "];
    let names = ["DATABASE_URL", "PGHOST", "PGPORT", "PREMIGRATE_WAIT", "PGSSLMODE", "PGUSER"];
    let mut random = Random(4);
    for _ in 0..20_000 {
        let count = random.below(5);
        let args = (0..count).map(|_| OsString::from_vec(random.bytes(&flags))).collect();
        let variables = names.map(|name| (name.into(), OsString::from_vec(random.bytes(&urls))));
        if let Ok(args::Parsed::Run(mut invocation)) = args::parse(args) {
            invocation.options.insert("--env-file", OsString::new());
            let config = Config::new(invocation, &Environment::new(variables));
            let _ = config.map(|config| config.options().map_err(|invalid| invalid.to_string()));
        }
        let url = String::from_utf8_lossy(&random.bytes(&urls)).into_owned();
        let _ = conninfo::resolve(Some(&url), "DATABASE_URL", &|_| None);
        let _ = conninfo::passfile::password(&url, "h", 5432, "d", "user");
        dotenv::parse(&String::from_utf8_lossy(&random.bytes(&lines)));
    }
}

#[test]
fn random_rows_in_the_history_cause_no_panic() {
    let mut random = Random(5);
    let migrations = |random: &mut Random| {
        let migration = |at: usize, random: &mut Random| {
            let when = i64::try_from(random.below(3) * 600).unwrap();
            Migration::new(format!("m{at}"), "m.sql", Some(when), vec![b'a'; random.below(3)])
        };
        (0..random.below(4)).map(|at| migration(at, random)).collect::<Vec<_>>()
    };
    for _ in 0..20_000 {
        let layouts = [Layout::Drizzle0, Layout::Drizzle1, Layout::Plain];
        let layout = layouts[random.below(3)];
        let set = MigrationSet::new(layout, migrations(&mut random)).unwrap();
        let rows: Vec<_> = (0..random.below(4))
            .map(|at| Row {
                id: i64::try_from(at).unwrap(),
                hash: premigrate::migrations::migration::Hash::of(&vec![b'a'; random.below(4)])
                    .to_string(),
                created_at: [None, Some(0), Some(600), Some(1000), Some(1200)][random.below(5)],
                name: [None, Some("m0".to_owned()), Some("m1".to_owned())][random.below(3)].clone(),
                xmin: None,
            })
            .collect();
        let policy = premigrate::history::plan::Policy {
            apply_older: random.below(2) == 0,
            strict: random.below(2) == 0,
        };
        let table_version = if random.below(2) == 0 { TableVersion::V1 } else { TableVersion::V0 };
        let history = History { table_version, rows, in_recovery: false, has_objects: true };
        let _ = premigrate::history::plan::plan_baseline(&set, &history, Some(random.below(4)));
        let _ = premigrate::history::plan::plan_accept(&set, &history, Some(&[random.below(4)]));
        if let Ok(plan) = premigrate::history::plan::plan_up(&set, &history, policy) {
            assert_eq!(plan.applied + plan.pending.len(), set.migrations().len());
        }
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let folder = Folder::drizzle0(&[FINE]);
    std::os::unix::fs::symlink("nowhere", folder.path.join("0001_gone.sql")).unwrap();
    refused(&folder, 65, &["could not read", "0001_gone.sql", "No such file"]);
    assert!(!Path::new("nowhere").exists());
    let folder = Folder::empty();
    folder.write("20260131093000_a/migration.sql", "");
    std::os::unix::fs::symlink("nowhere", folder.path.join("20260131093001_gone")).unwrap();
    refused(&folder, 65, &["could not read", "20260131093001_gone", "No such file"]);
}

#[test]
fn a_path_that_cannot_hold_a_migration_may_be_unreadable() {
    let folder = Folder::empty();
    folder.write("0000_a.sql", "select 1");
    std::os::unix::fs::symlink("nowhere", folder.path.join("notes.txt")).unwrap();
    let add = |unreadable: &str| {
        std::fs::DirBuilder::new().mode(0o000).create(folder.path.join(unreadable)).unwrap();
    };
    let run = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        let id = Command::new("id").arg("-u").output().unwrap().stdout;
        if id.trim_ascii() == b"0" {
            // Root could read it otherwise.
            command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
        }
        let us = env!("CARGO_BIN_EXE_premigrate");
        command.arg(us).args(args).arg("--dir").arg(&folder.path).env_clear();
        Running::start(command).finish()
    };
    add("lost+found");
    assert!(run(&["list"]).exits(0).stdout.starts_with("1 migration in "));
    run(&["new", "more"]).exits(0);
    add("20260131093000_a");
    run(&["list"]).exits(65).stderr_is(expect![[r#"
        premigrate: could not read FOLDER/20260131093000_a: Permission denied (os error 13); let this user read it
    "#]]);
}
