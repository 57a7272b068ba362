//! Folders of other tools, and what else may stand in a folder: nothing is run that its author did
//! not mean to run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use expect_test::expect;

use crate::harness::{
    Database, Folder, Premigrate, Run, WAITING_FOR_LOCK, bare, premigrate, status_of,
};

/// A table with rows, which a way back would drop.
fn database_with_users() -> Database {
    let database = Database::fresh();
    database.execute("create table users as select generate_series(1, 10) as id");
    database
}

/// `up` and `check` refuse the folder with these words, and the users are still there.
#[track_caller]
fn keeps_the_users(folder: &Folder, words: &[&str]) {
    let database = database_with_users();
    let run = premigrate(&database, folder).args(&["--", "echo", "started"]).run().exits(65);
    let run = run.says(words).says(&["The app was not started."]);
    assert_eq!(run.stdout, "");
    assert_eq!(database.value("select count(*) from users"), "10");
    let check = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
    for word in words {
        assert!(check.stdout.contains(word), "{word}:\n{}", check.stdout);
    }
}

const UP: &str = "create table if not exists users (id int);\n";
const DOWN: &str = "drop table users;\n";

#[test]
fn a_down_section_of_another_tool_is_refused_before_anything_runs() {
    for (up, down, tool) in [
        ("-- migrate:up", "-- migrate:down", ", of dbmate"),
        ("-- +goose Up", "-- +goose Down", ", of goose"),
        ("-- +migrate Up", "-- +migrate Down", ", of sql-migrate"),
        ("-- rambler up", "-- rambler down", ", of rambler"),
        ("-- users", "---- create above / drop below ----", ", of tern"),
        ("-- Up Migration", "-- Down Migration", ", of node-pg-migrate"),
        ("-- ==== UP ====", "-- ==== DOWN ====", ""),
    ] {
        let folder = Folder::empty();
        folder.write("0001_first.sql", "create table first ();");
        folder.write("0002_users.sql", format!("{up}\n{UP}{down}\n{DOWN}"));
        let section = format!("contains a down section (`{down}`{tool})");
        keeps_the_users(&folder, &["0002_users.sql:3:1", &section]);
    }
}

#[test]
fn a_down_file_of_another_tool_is_refused_before_anything_runs() {
    for (up, down, tool) in [
        ("1_users.up.sql", "1_users.down.sql", ", as of golang-migrate or sqlx"),
        ("V1__users.sql", "U1__users.sql", ", as of Flyway"),
        ("001.do.users.sql", "001.undo.users.sql", ", as of Postgrator"),
        ("0001.users.sql", "0001.users.rollback.sql", ", as of yoyo"),
        ("1-users-up.sql", "1-users-down.sql", ""),
        ("up.sql", "down.sql", ", as of golang-migrate or sqlx"),
        // Only one file is of that kind.
        ("0001_users.sql", "0007_other.down.sql", ", as of golang-migrate or sqlx"),
    ] {
        let folder = Folder::empty();
        folder.write(up, UP);
        folder.write(down, DOWN);
        keeps_the_users(&folder, &[down, &format!("is a down migration by its name{tool}")]);
    }
}

#[test]
fn down_migrations_beside_those_of_drizzle_kit_are_not_run() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_users", UP)]);
    folder.write("0000_users.down.sql", DOWN);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_users"]);
    assert_eq!(database.tables(), ["users"]);
}

#[test]
fn an_applied_migration_of_drizzle_with_a_down_section_does_not_stop_later_ones() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_users", UP)]);
    premigrate(&database, &folder).run().exits(0);
    let both = format!("{UP}-- migrate:down\n{DOWN}");
    folder.write("0000_users.sql", &both);
    premigrate(&database, &folder).args(&["accept", "--all"]).run().exits(0);
    folder.add("0001_next", "create table next ()");
    premigrate(&database, &folder).run().exits(0).says(&["applied 0001_next"]);
    folder.add("0002_both", &both);
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&["0002_both.sql:2:1 contains a down section"]);
}

#[test]
fn a_name_or_a_comment_that_is_only_similar_runs() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("0001_scale_up.sql", "create table a ();\n-- migrate:down\n-- drop table a;\n");
    folder.write("0002_scale_down.sql", "-- down\ncreate table b ();");
    folder.write("U_turns.sql", "create table c (t text default '\n-- migrate:down\n');");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

/// The folders below this one that have SQL files; none of packages or of what was built.
fn folders_with_sql(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut has_sql = false;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "node_modules" && name != "target" {
            found.extend(folders_with_sql(&path));
        }
        has_sql |= name.ends_with(".sql");
    }
    found.extend(has_sql.then(|| folder.to_owned()));
    found
}

#[test]
fn no_folder_of_the_project_is_taken_for_one_with_a_way_back_or_for_one_of_another_tool() {
    let folders = folders_with_sql(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(folders.len() >= 4, "{folders:?}");
    for folder in folders {
        let check = bare().args(&["check", "--format", "json", "--dir"]).arg(&folder).run();
        for rule in ["down-files", "down-section", "no-migrations"] {
            assert!(!check.stdout.contains(rule), "{}: {}", folder.display(), check.stdout);
        }
    }
}

#[test]
fn a_folder_of_another_tool_gets_one_line_that_names_it() {
    for (files, words) in [
        (["0_init/migration.sql", "1_a/migration.sql", "20240101000000_b/migration.sql"], "Prisma"),
        (
            [
                "20240101000000_a/migration.sql",
                "20240102000000_b/migration.sql",
                "migration_lock.toml",
            ],
            "Prisma's, as migration_lock.toml shows",
        ),
        (["2023-01-01-000000_a/up.sql", "2023-01-01-000000_a/down.sql", "b/up.sql"], "Diesel"),
        (["2023-01-01-000000_a/up.sql", "2023-01-01-000000_a/down.sql", "seed.sql"], "Diesel"),
        (
            ["default/1680000000000_a/up.sql", "default/1680000000000_a/down.sql", "x/up.sql"],
            "Hasura",
        ),
        (["deploy/a.sql", "revert/a.sql", "verify/a.sql"], "Sqitch"),
        (
            ["migrations/1_a.sql", "migrations/2_b.sql", "migrations/3_c.sql"],
            "the subfolder migrations",
        ),
    ] {
        let folder = Folder::empty();
        for file in files {
            folder.write(file, format!("select '{file}'"));
        }
        let run = premigrate(&Database::fresh(), &folder).run().exits(65).says(&[words]);
        let check = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
        assert_eq!(run.stderr.matches("\n  - ").count(), 1, "{}", run.stderr);
        assert_eq!(check.stdout.lines().count(), 3, "{}", check.stdout);
        for advice in ["rename", "move it up"] {
            assert!(!(run.stderr.clone() + &check.stdout).contains(advice), "{}", check.stdout);
        }
    }
}

// What is not run as it was meant.

#[test]
fn versions_that_would_run_in_another_order_are_refused() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("V2__a.sql", "create table a ();");
    folder.write("V10__b.sql", "create table b ();");
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&["V2__a.sql would run after V10__b.sql", "such as V02__ and V10__"]);
    std::fs::rename(folder.path.join("V2__a.sql"), folder.path.join("V02__a.sql")).unwrap();
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn files_that_the_journal_does_not_list_are_named_at_each_start() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    folder.write("0001_b.sql", "create table b ();");
    folder.write("sub/c.sql", "create table c ();");
    let named =
        "meta/_journal.json does not list these files, so they do not run: 0001_b.sql, sub/c.sql";
    for _ in 0..2 {
        premigrate(&database, &folder).run().exits(0).says(&[named]);
    }
    premigrate(&database, &folder).arg("status").run().exits(0).says(&[named]);
    assert_eq!(database.tables(), ["a"]);
    let strict = premigrate(&database, &folder).arg("--strict").run().exits(65);
    strict.says(&["refused by --strict: meta/_journal.json does not list 0001_b.sql, sub/c.sql"]);
}

#[test]
fn a_file_without_a_statement_is_recorded_with_a_warning() {
    let database = Database::fresh();
    let pulled =
        "-- introspected\n/*\nCREATE TABLE a (b int);\n--> statement-breakpoint\nselect 1;\n*/\n";
    let folder = Folder::drizzle0(&[("0000_pulled", pulled), ("0001_none", "-- later\n")]);
    let run = premigrate(&database, &folder).run().exits(0);
    run.says(&[
        "warning: 0000_pulled contains no SQL statement",
        "applied 0000_pulled",
        "warning: 0001_none contains no SQL statement",
    ]);
    assert_eq!(database.history().len(), 2);
    let check = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(0);
    for file in ["0000_pulled.sql", "0001_none.sql"] {
        let finding = format!("{file}: warning: the file contains no SQL statement");
        assert!(check.stdout.contains(&finding), "{}", check.stdout);
    }
}

// What may stand in a folder beside files.

/// A run that would be stuck without the code under test.
#[track_caller]
fn list_within_seconds(folder: &Folder) -> Run {
    let list = bare().args(&["list", "--dir"]).arg(&folder.path);
    list.start().finish_within(Duration::from_secs(20))
}

#[track_caller]
fn is_listed(folder: &Folder, words: &str) {
    let run = list_within_seconds(folder).exits(0);
    assert!(run.stdout.contains(words), "{}", run.stdout);
}

#[test]
fn only_regular_files_are_read() {
    let folder = Folder::empty();
    folder.write("0001_a.sql", "create table a ();");
    let other = folder.path.join("0002_b.sql");
    assert!(status_of(Command::new("mkfifo").arg(&other)).success());
    let not_a_file = format!("could not read {}: it is not a regular file", other.display());
    list_within_seconds(&folder).exits(65).says(&[&not_a_file]);
    for device in ["/dev/zero", "/dev/null"] {
        std::fs::remove_file(&other).unwrap();
        symlink(device, &other).unwrap();
        list_within_seconds(&folder).exits(65).says(&[&not_a_file]);
    }
    std::fs::remove_file(&other).unwrap();
    symlink("0001_a.sql", &other).unwrap();
    is_listed(&folder, "2  0002_b");
}

#[test]
fn links_in_a_circle_take_no_time() {
    let folder = Folder::empty();
    folder.write("0001_a.sql", "create table a ();");
    let names: Vec<_> = (0..10).map(|number| format!("sub{number}")).collect();
    for name in &names {
        std::fs::create_dir(folder.path.join(name)).unwrap();
        for other in &names {
            symlink(folder.path.join(other), folder.path.join(name).join(other)).unwrap();
        }
    }
    symlink(".", folder.path.join("self")).unwrap();
    is_listed(&folder, "1 migration in");
}

#[test]
fn a_file_in_a_linked_folder_is_found_as_in_a_config_map() {
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    std::fs::create_dir(folder.path.join("..data")).unwrap();
    std::fs::rename(folder.path.join("meta"), folder.path.join("..data/meta")).unwrap();
    symlink("..data/meta", folder.path.join("meta")).unwrap();
    is_listed(&folder, "1  0000_a");
}

#[test]
fn a_migration_whose_name_is_not_utf8_is_refused() {
    let folder = Folder::empty();
    for name in [&b"0001_\xff.sql"[..], b"0001_\xfe.sql"] {
        std::fs::write(folder.path.join(OsStr::from_bytes(name)), "select 1").unwrap();
    }
    list_within_seconds(&folder).exits(65).says(&["0001_", "its name is not valid UTF-8"]);
    let folder = Folder::empty();
    folder.write("0001_a.sql", "create table a ();");
    std::fs::write(folder.path.join(OsStr::from_bytes(b"n\xf6tes.txt")), "").unwrap();
    is_listed(&folder, "1 migration in");
}

// Names and words of others.

const FORGED: &str = "premigrate: up to date, 9 applied";

#[track_caller]
fn has_no_forged_line(run: &Run) {
    for line in run.stdout.lines().chain(run.stderr.lines()) {
        assert!(!line.trim_start().starts_with(FORGED), "{}{}", run.stdout, run.stderr);
    }
}

#[test]
fn a_line_end_in_a_name_makes_no_line_of_its_own() {
    let name = format!("0001_a\n{FORGED}\u{1b}[2K");
    let plain = Folder::empty();
    plain.write(&format!("{name}.sql"), "create table a ();");
    let drizzle0 = Folder::drizzle0(&[(&name, "create table a ();")]);
    for folder in [plain, drizzle0] {
        folder.write("sub/\npremigrate: up to date, 9 applied.sql", "");
        let database = Database::fresh();
        let shown = "0001_a\\npremigrate: up to date, 9 applied\\u{1b}[2K";
        for command in ["--dry-run", "list", "status", "up", "status"] {
            let run = premigrate(&database, &folder).arg(command).run().exits(0);
            has_no_forged_line(&run);
            assert!((run.stdout + &run.stderr).contains(shown), "{command}");
        }
        has_no_forged_line(&bare().args(&["check", "--dir"]).arg(&folder.path).run());
        folder.write(&format!("{name}.sql"), "create table edited ();");
        has_no_forged_line(&premigrate(&database, &folder).run().exits(65));
        let accept = premigrate(&database, &folder).args(&["accept", "--all"]);
        has_no_forged_line(&accept.run().exits(0).says(&[shown]));
        let (other, output) = (Database::fresh(), Folder::empty());
        let waited = premigrate(&other, &folder).args(&["wait", "--runner-wait", "0"]);
        let waited = waited.run().exits(75).says(&[shown]);
        has_no_forged_line(&waited);
        let recorded = premigrate(&other, &folder).args(&["baseline", "--through", &name]);
        has_no_forged_line(&recorded.run().exits(0).says(&[shown]));
        // In the name of the folder and of the new file, too.
        let linked = output.path.join(format!("folder\n{FORGED}"));
        symlink(&folder.path, &linked).unwrap();
        let bundle = output.path.join(format!("bundle\n{FORGED}"));
        let made = bare().args(&["bundle", "--dir"]).arg(&linked).arg("--output").arg(&bundle);
        let made = made.run().exits(0);
        has_no_forged_line(&made);
        assert!(made.stdout.contains("bundle\\npremigrate: up to date"), "{}", made.stdout);
        let list = |extracted: &Path| {
            let mut command = Command::new(&bundle);
            command.env_clear().args(["list", "--extract"]).arg(extracted);
            Premigrate { command }.run()
        };
        let extracted = output.path.join(format!("out\n{FORGED}"));
        has_no_forged_line(&list(&extracted).exits(0).says(&[]));
        has_no_forged_line(&list(&extracted).exits(65));
        folder.write(&format!("{name}.sql"), "abort; vacuum");
        has_no_forged_line(&premigrate(&Database::fresh(), &folder).run().exits(65));
        has_no_forged_line(&bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65));
        folder.write(&format!("{name}.sql"), "create table no.such ();");
        has_no_forged_line(&premigrate(&Database::fresh(), &folder).run().exits(70));
    }
}

#[test]
fn a_line_end_in_a_row_of_the_history_makes_no_line_of_its_own() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("0001_a.sql", "create table a ();");
    premigrate(&database, &folder).run().exits(0);
    database.execute(&format!(
        "insert into drizzle.__drizzle_migrations (hash, created_at, name)
         values ('x', 1, e'b\\n{FORGED}')"
    ));
    for (args, code) in [(&["status"][..], 0), (&["up"], 0), (&["up", "--strict"], 65)] {
        let run = premigrate(&database, &folder).args(args).run().exits(code);
        has_no_forged_line(&run);
        assert!((run.stdout + &run.stderr).contains("(b\\npremigrate: up"), "{args:?}");
    }
}

#[test]
fn a_line_end_in_a_message_of_the_server_makes_no_line_at_the_margin() {
    let folder = Folder::empty();
    let sql = format!("do $$ begin raise exception e'no\\n{FORGED}'; end $$");
    folder.write("0001_a.sql", sql);
    let run = premigrate(&Database::fresh(), &folder).run().exits(70);
    assert!(run.stderr.lines().all(|line| !line.starts_with(FORGED)), "{}", run.stderr);
}

#[test]
fn a_file_that_changes_before_its_turn_is_refused_and_what_ran_before_is_kept() {
    let (database, folder) = (Database::fresh(), Folder::empty());
    database.execute("create table t ()");
    let mut holder = database.holding("lock table t");
    folder.write("0001_wait.sql", "lock table t");
    // Too long to be kept in memory until then.
    let long = |table: &str| format!("create table {table} (); -- {}", "long".repeat(3 << 20));
    folder.write("0002_long.sql", long("checked"));
    let running = premigrate(&database, &folder).args(&["--lock-timeout", "0"]).start();
    database.wait_for("the lock", WAITING_FOR_LOCK);
    folder.write("0002_long.sql", long("changed"));
    holder.batch_execute("rollback").unwrap();
    running.finish().exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (plain files)
        premigrate: applied 0001_wait in TIME
        premigrate: some pending migrations cannot be run; nothing more was run:

          - 0002_long.sql cannot be read: it has changed since it was read first; start again

          1 migration applied in this run is kept; 1 more is pending.
    "#]]);
    assert_eq!(database.history(), [folder.hash("0001_wait.sql")]);
    assert_eq!(database.tables(), ["t"]);
}
