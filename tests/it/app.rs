//! Becoming the app.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use expect_test::expect;

use crate::harness::{Database, Folder, LIMIT, Premigrate, bare, output_of, premigrate, status_of};

fn one_table() -> Folder {
    Folder::drizzle0(&[("0000_a", "create table a (id int)")])
}

/// A run that only becomes the app.
fn skipping(app: &[&str]) -> Premigrate {
    bare().env("PREMIGRATE_SKIP", "1").arg("--").args(app)
}

/// An executable file.
fn script(folder: &Folder, name: &str, text: &str) -> String {
    folder.write(name, text);
    let path = folder.path.join(name);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_app_has_our_pid() {
    let database = Database::fresh();
    let folder = one_table();
    let running = premigrate(&database, &folder).args(&["--", "sh", "-c", "echo $$"]).start();
    let pid = running.pid();
    assert_eq!(running.finish().exits(0).says(&["applied 0000_a"]).stdout, format!("{pid}\n"));
}

#[test]
fn the_apps_arguments_arrive_byte_for_byte() {
    let run = skipping(&["printf", "%s|", "", "--help", "--", "a b", "$HOME", "*"])
        .arg(OsStr::from_bytes(b"\xff\xfe\n"))
        .start();
    let output = run.output_within(LIMIT);
    assert_eq!(output.stdout, b"|--help|--|a b|$HOME|*|\xff\xfe\n|");
}

#[test]
fn the_exit_status_is_the_apps() {
    skipping(&["sh", "-c", "exit 42"]).run().exits(42);
    skipping(&["sh", "-c", "kill -s KILL $$"]).run().exits(-9);
}

#[test]
fn the_app_inherits_stdin() {
    let database = Database::fresh();
    let folder = one_table();
    let mut run = premigrate(&database, &folder).args(&["--", "cat"]);
    run.command.stdin(Stdio::piped());
    let mut running = run.start();
    running.child.stdin.take().unwrap().write_all(b"for the app").unwrap();
    assert_eq!(running.finish().exits(0).stdout, "for the app");
}

#[test]
fn premigrate_hands_its_variables_over_to_itself_and_to_nobody_else() {
    let database = Database::fresh();
    let [a, b] = [("0000_a", "create table a ()"), ("0000_b", "create table b ()")]
        .map(|migration| Folder::drizzle0(&[migration]));
    let us = env!("CARGO_BIN_EXE_premigrate");
    let bin = Folder::empty();
    std::os::unix::fs::symlink(us, bin.path.join("linked")).unwrap();
    std::fs::copy(us, bin.path.join("copied")).unwrap();
    let path = format!("{}:{}", bin.path.display(), std::env::var("PATH").unwrap());
    let start = |program: &str| {
        let sets = bare().arg("--dir").arg(&a.path).args(&["--table", "a", "--", program]);
        let sets = sets.arg("--dir").arg(&b.path).args(&["--table", "b", "--"]);
        let app = ["sh", "-c", "env | grep -E 'PREMIGRATE_|MIGRATION_'; echo started"];
        sets.args(&app).env("PATH", &path).env("PREMIGRATE_SCHEMA", "app")
    };
    for program in [us, "linked"] {
        let run = start(program).env("MIGRATION_DATABASE_URL", &database.url).run().exits(0);
        assert_eq!(run.stdout, "started\n");
    }
    assert_eq!(database.tables(), ["a", "b"]);
    let rows = "select (select count(*) from app.a), (select count(*) from app.b)";
    assert_eq!(database.value(rows), "1|1");

    // A copy is another program.
    let run = start("copied").env("MIGRATION_DATABASE_URL", &database.url).run().exits(78);
    run.says(&["starting copied", "no database is named"]);
    let run = start(us).env("PREMIGRATE_SKIP", "1").run().exits(0);
    assert_eq!(run.stdout, "started\n");
    assert_eq!(run.stderr.matches("PREMIGRATE_SKIP is set").count(), 2);
}

#[test]
fn a_name_without_a_slash_is_looked_up_in_path() {
    let folder = Folder::empty();
    script(&folder, "my-app", "#!/bin/sh\necho found\n");
    let run = skipping(&["my-app"]).env("PATH", &folder.path).run().exits(0);
    assert_eq!(run.stdout, "found\n");
}

#[test]
fn an_app_that_is_not_there_is_127() {
    skipping(&["no-such-app"]).run().exits(127).stderr_is(expect![[r#"
        premigrate: PREMIGRATE_SKIP is set: no migrations were checked or applied
        premigrate: starting no-such-app
        premigrate: could not start no-such-app: No such file or directory (os error 2) (no directory in PATH contains it)
    "#]]);
    skipping(&["/no/such/app"]).run().exits(127).says(&["could not start /no/such/app"]);
    skipping(&["/etc/hostname/app"]).run().exits(127);
}

#[test]
fn a_script_whose_interpreter_does_not_exist_is_127_and_named() {
    let folder = Folder::empty();
    let app = script(&folder, "app", "#!/no/such/interpreter -x\n");
    let named = ["its interpreter does not: /no/such/interpreter"];
    skipping(&[&app]).run().exits(127).says(&named);
    skipping(&["app"]).env("PATH", &folder.path).run().exits(127).says(&named);
    let app = script(&folder, "dos", "#!/bin/sh\r\necho\r\n");
    skipping(&[&app]).run().exits(127).stderr_is(expect![[r#"
        premigrate: PREMIGRATE_SKIP is set: no migrations were checked or applied
        premigrate: starting FOLDER/dos
        premigrate: could not start FOLDER/dos: No such file or directory (os error 2) (its first line names /bin/sh and a carriage return; save the file with LF line endings, not CRLF)
    "#]]);
    let app = script(&folder, "bare", "#!\r\necho\r\n");
    skipping(&[&app]).run().exits(127).stderr_is(expect![[r#"
        premigrate: PREMIGRATE_SKIP is set: no migrations were checked or applied
        premigrate: starting FOLDER/bare
        premigrate: could not start FOLDER/bare: No such file or directory (os error 2) (its first line names only a carriage return; save the file with LF line endings, not CRLF)
    "#]]);
}

#[test]
fn a_program_whose_loader_does_not_exist_is_127_with_a_hint() {
    let folder = Folder::empty();
    let mut program = std::fs::read("/bin/true").unwrap();
    let at = program.windows(4).position(|bytes| bytes == b"/lib").unwrap();
    program[at..at + 4].copy_from_slice(b"/LIB");
    folder.write("app", program);
    let app = folder.path.join("app").to_str().unwrap().to_owned();
    std::fs::set_permissions(&app, PermissionsExt::from_mode(0o755)).unwrap();
    let hint = ["the file exists, but its interpreter or loader does not; link"];
    skipping(&[&app]).run().exits(127).says(&hint);
    let through = script(&folder, "script", &format!("#!{app}\n"));
    skipping(&[&through]).run().exits(127).says(&hint);
}

#[test]
fn an_app_that_cannot_be_executed_is_126() {
    let folder = Folder::empty();
    folder.write("app", "#!/bin/sh\n");
    let app = folder.path.join("app");
    let denied = ["could not start", "denied", "chmod +x"];
    skipping(&[app.to_str().unwrap()]).run().exits(126).says(&denied);
    skipping(&["app"]).env("PATH", &folder.path).run().exits(126).says(&denied);
    skipping(&[folder.path.to_str().unwrap()]).run().exits(126).says(&["it is a directory"]);
}

#[test]
fn the_exit_code_for_a_missing_app_does_not_depend_on_a_reader_of_stderr() {
    let mut run = skipping(&["/no/such/app"]);
    let (_, stderr) = std::io::pipe().unwrap();
    let status = status_of(run.command.stderr(stderr));
    assert_eq!(status.code(), Some(127), "{status}");
}

#[test]
fn the_app_gets_the_environment_without_our_own_variables() {
    let folder = Folder::empty();
    folder.write("url", "postgres://u@h/d");
    let run = skipping(&["env", "-0"])
        .env("MIGRATION_DATABASE_URL_FILE", folder.path.join("url"))
        .env("PREMIGRATE_WAIT", "1s")
        .env("DATABASE_URL", "postgres://u@h/d")
        .env("PGPASSWORD", "secret")
        .env("BYTES", OsStr::from_bytes(b"\xff"))
        .env("EMPTY", "")
        .start();
    let output = run.output_within(LIMIT).stdout;
    let mut seen: Vec<_> = output.split(|&byte| byte == 0).filter(|one| !one.is_empty()).collect();
    seen.retain(|one| !one.starts_with(b"PATH="));
    seen.sort_unstable();
    let expected: [&[u8]; 4] =
        [b"BYTES=\xff", b"DATABASE_URL=postgres://u@h/d", b"EMPTY=", b"PGPASSWORD=secret"];
    assert_eq!(seen, expected);

    let run = skipping(&["env"]).env("MIGRATION_DATABASE_URL", "postgres://u@h/d").run().exits(0);
    assert!(!run.stdout.contains("MIGRATION"), "{}", run.stdout);
}

#[test]
fn the_app_inherits_no_file_descriptor_from_us() {
    let database = Database::fresh();
    let list = "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done";
    let run = premigrate(&database, &one_table()).args(&["--", "sh", "-c", list]).run().exits(0);
    let without_us = output_of(Command::new("sh").args(["-c", list]));
    assert_eq!(run.stdout, String::from_utf8_lossy(&without_us.stdout));
}

#[test]
fn our_session_is_closed_when_the_app_starts() {
    let database = Database::fresh();
    let folder = one_table();
    // The server needs a moment to end a session that was closed, and much longer without Terminate.
    let count = format!(
        "psql -XAt -d '{}' -c \"select pg_sleep(0.3)\" -c \"select count(*) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()\"",
        database.url
    );
    for _ in 0..2 {
        let run = premigrate(&database, &folder).args(&["--", "sh", "-c", &count]).run().exits(0);
        assert_eq!(run.stdout, "\n0\n");
    }
}

#[test]
fn the_app_is_not_started_after_any_failure() {
    let database = Database::fresh();
    let broken = Folder::drizzle0(&[("0000_a", "select 1/0")]);
    let app = ["--", "echo", "started"];
    let not_started = |run: Premigrate, code: i32| {
        let run = run.args(&app).run().exits(code).says(&["The app was not started."]);
        assert_eq!(run.stdout, "");
    };
    not_started(premigrate(&database, &broken), 70);
    not_started(premigrate(&database, &Folder::empty()), 65);
    not_started(
        bare().env("DATABASE_URL", "postgres://u@127.0.0.1:1/d").args(&["--wait", "0"]),
        69,
    );
    not_started(bare().env("PREMIGRATE_WIAT", "1"), 78);
}

#[test]
fn a_run_prints_nothing_on_stdout() {
    let database = Database::fresh();
    let run = premigrate(&database, &one_table()).args(&["--", "true"]).run().exits(0);
    assert_eq!(run.stdout, "");
}
