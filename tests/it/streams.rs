//! Standard streams that nobody reads, that are full, or closed: nothing changes in the database,
//! nor in the exit code, and the app is started as ever.

use std::path::PathBuf;
use std::process::{Child, Command};

use crate::harness::{Database, Folder};

/// What a shell does to our streams. They are pipes that nobody reads.
const SHAPES: [&str; 5] = ["", ">/dev/full 2>/dev/full", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"];

/// Starts a run in this shape.
fn start(shape: &str, args: &[&str], database: &Database, folder: &Folder) -> Child {
    Command::new("sh")
        .args(["-c", &format!("exec \"$@\" {shape}"), "sh", env!("CARGO_BIN_EXE_premigrate")])
        .args(args)
        .env("DATABASE_URL", &database.url)
        .env("PREMIGRATE_DIR", &folder.path)
        .stdout(std::io::pipe().unwrap().1)
        .stderr(std::io::pipe().unwrap().1)
        .spawn()
        .unwrap()
}

/// The same, with an app that leaves a file.
fn start_app(shape: &str, database: &Database, folder: &Folder) -> Child {
    start(shape, &["--", "touch", started(folder).to_str().unwrap()], database, folder)
}

fn started(folder: &Folder) -> PathBuf {
    folder.path.join("started")
}

#[track_caller]
fn exits(mut child: Child, code: i32, shape: &str) {
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(code), "{shape}: {status}");
}

#[test]
fn migrations_are_applied_and_the_app_starts() {
    for shape in SHAPES {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
        exits(start_app(shape, &database, &folder), 0, shape);
        assert_eq!(database.history().len(), 1, "{shape}");
        assert!(started(&folder).exists(), "{shape}");
        folder.add("0001_b", "create table b ()");
        exits(start(shape, &["status", "--exit-code"], &database, &folder), 10, shape);
    }
}

#[test]
fn a_failure_is_told_by_the_exit_code() {
    for shape in SHAPES {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[
            ("0000_a", "create table a ()"),
            ("0001_b", "create table b ();\ndo $$ begin raise notice 'b'; end $$;\nselect 1/0"),
        ]);
        exits(start_app(shape, &database, &folder), 70, shape);
        assert_eq!(database.tables(), ["a"], "{shape}");
        assert!(!started(&folder).exists(), "{shape}");
    }
}

#[test]
fn a_signal_still_ends_us_in_good_order() {
    for shape in SHAPES {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ();\nselect pg_sleep(60)")]);
        let child = start_app(shape, &database, &folder);
        database.wait_for(
            "the migration",
            "select from pg_stat_activity where datname = current_database() \
             and wait_event = 'PgSleep'",
        );
        let pid = child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        exits(child, 143, shape);
        assert_eq!(database.leftovers(), Vec::<String>::new(), "{shape}");
        assert_eq!(database.tables(), Vec::<String>::new(), "{shape}");
        assert!(!started(&folder).exists(), "{shape}");
    }
}
