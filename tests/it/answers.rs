//! `list`, `--dry-run`, `--help`, `--version`: answers on stdout.

use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::expect;
use premigrate::migrations::source;

use crate::harness::{Database, Folder, bare, premigrate, status_of};

fn two() -> Folder {
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text);")]);
    folder.add("0001_two", "select 'é';--> statement-breakpoint\nselect 2");
    folder
}

#[test]
fn help_and_version_need_nothing_and_go_to_stdout() {
    let version = || {
        let roots = premigrate::postgres::tls::BUILT_IN_ROOTS;
        let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let (_, folder) = source::load(Some(Path::new(embedded)), &|| false).expect("files");
        let (count, digest) = (folder.files.len() - 1, folder.digest());
        let carried = format!("{count} migrations (Drizzle 0.x), SHA-256 {digest}");
        format!("premigrate {}\n{roots}\n{carried}\n", env!("CARGO_PKG_VERSION"))
    };
    for (args, answer) in [
        (&["--help"][..], premigrate::cli::args::HELP.to_owned()),
        (&["up", "--help"], premigrate::cli::args::HELP.to_owned()),
        (&["-h"], premigrate::cli::args::HELP.to_owned()),
        (&["--version"], version()),
        (&["-V"], version()),
    ] {
        let run = bare().args(args).env("PREMIGRATE_NO_SUCH", "x").run().exits(0);
        assert_eq!((run.stdout, run.stderr), (answer, String::new()), "{args:?}");
    }
}

#[test]
fn list_shows_the_migrations_without_a_database() {
    let folder = two();
    let run = bare().arg("list").arg("--dir").arg(&folder.path).run().exits(0);
    run.stdout_is(expect![[r#"
        2 migrations in FOLDER (Drizzle 0.x)
           1  0000_log  8743e997362b15af5d383de6f46fa79ac9393a6230b889d146f04eda66567403   29 bytes
           2  0001_two  4de428a542666218cce7dd328eaa418ac9990c96d1f449a0aa88b53030b27eb4   45 bytes
    "#]])
        .stderr_is(expect![[""]]);
}

#[test]
fn list_in_json_has_one_object_per_migration() {
    let folder = two();
    let run = bare().args(&["list", "--format", "json"]).arg("--dir").arg(&folder.path).run();
    run.exits(0).answers_are(expect![[r#"
        {
          "migration": "0000_log",
          "position": 1,
          "file": "0000_log.sql",
          "hash": "8743e997362b15af5d383de6f46fa79ac9393a6230b889d146f04eda66567403",
          "bytes": 29,
          "when": 1700000000000,
          "layout": "Drizzle 0.x",
          "from": "FOLDER",
          "problem": null
        }
        {
          "migration": "0001_two",
          "position": 2,
          "file": "0001_two.sql",
          "hash": "4de428a542666218cce7dd328eaa418ac9990c96d1f449a0aa88b53030b27eb4",
          "bytes": 45,
          "when": 1700000001000,
          "layout": "Drizzle 0.x",
          "from": "FOLDER",
          "problem": null
        }
    "#]]);
}

#[test]
fn without_a_folder_list_shows_the_embedded_migrations() {
    let run = bare().arg("list").run().exits(0);
    assert!(run.stdout.contains(" in this executable (Drizzle 0.x)\n"), "{}", run.stdout);
    let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let folder = bare().args(&["list", "--dir", embedded]).run().exits(0);
    let rows = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&run.stdout), rows(&folder.stdout));
    assert!(rows(&run.stdout).len() >= 12);
}

#[test]
fn a_dry_run_shows_what_would_run_and_changes_nothing() {
    let (database, folder) = (Database::fresh(), two());
    let dry_run =
        || premigrate(&database, &folder).args(&["--dry-run", "--", "echo", "started"]).run();
    let run = dry_run().exits(0);
    run.stdout_is(expect![[r#"
        would apply 2 migrations, each in its own transaction; 0 applied already
          0000_log (1 statement)
          0001_two (2 statements)
    "#]]);
    let schemas = "select 1 from pg_namespace where nspname = 'drizzle'";
    assert_eq!(database.rows(schemas).len(), 0);
    assert_eq!(database.tables(), Vec::<String>::new());

    premigrate(&database, &folder).run().exits(0);
    folder.add_at("0002_early", "select 1", 1);
    let run = dry_run().exits(0);
    run.stdout_is(expect![[r#"
        would apply 1 migration, each in its own transaction; 2 applied already
          0002_early (1 statement), out of order
    "#]]);
    assert_eq!(database.history().len(), 2);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_dry_run_in_json_has_one_object_per_migration_with_its_steps() {
    let (database, folder) = (Database::fresh(), two());
    let run = premigrate(&database, &folder).args(&["--dry-run", "--format=json"]).run().exits(0);
    run.answers_are(expect![[r#"
        {
          "action": "apply",
          "migration": "0000_log",
          "file": "0000_log.sql",
          "out_of_order": false,
          "statements": 1,
          "split_reason": null,
          "steps": [
            {
              "step": 1,
              "outside_transaction": null,
              "statements": 1,
              "done": false
            }
          ],
          "findings": []
        }
        {
          "action": "apply",
          "migration": "0001_two",
          "file": "0001_two.sql",
          "out_of_order": false,
          "statements": 2,
          "split_reason": null,
          "steps": [
            {
              "step": 1,
              "outside_transaction": null,
              "statements": 2,
              "done": false
            }
          ],
          "findings": []
        }
    "#]])
        .events_are(expect![[r#"
            {
              "event": "loaded",
              "from": "FOLDER",
              "layout": "Drizzle 0.x",
              "migrations": 2
            }
        "#]]);
}

#[test]
fn an_answer_in_json_about_nothing_is_an_object_too() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    for (asked, expected) in [
        (
            "list",
            expect![[r#"
            {
              "migrations": 0,
              "layout": "Drizzle 0.x",
              "from": "FOLDER"
            }
        "#]],
        ),
        (
            "check",
            expect![[r#"
                {
                  "migrations": 0,
                  "errors": 0,
                  "warnings": 0,
                  "blocking": 0,
                  "notes": 0,
                  "ignored": 0,
                  "pending": null
                }
            "#]],
        ),
        (
            "status",
            expect![[r#"
                {
                  "applied": 0,
                  "edited": 0,
                  "pending": 0,
                  "ambiguous": 0
                }
            "#]],
        ),
        (
            "--dry-run",
            expect![[r#"
                {
                  "applied": 0,
                  "pending": 0
                }
            "#]],
        ),
    ] {
        let run = premigrate(&database, &folder).args(&[asked, "--format=json"]).run().exits(0);
        run.answers_are(expected);
    }
}

#[test]
fn a_dry_run_shows_what_would_be_accepted_and_changes_nothing() {
    let plain = Folder::empty();
    plain.write("0000_log.sql", "create table log (what text)");
    plain.write("0001_two.sql", "select 2");
    for folder in [two(), plain] {
        let database = Database::fresh();
        premigrate(&database, &folder).run().exits(0);
        let history = database.history();
        folder.write("0001_two.sql", "select 'edited'");
        let run = |args: &[&str]| premigrate(&database, &folder).args(args).run();
        run(&["--dry-run"]).exits(65);
        let accept = ["--accept=0001_two", "--dry-run"];
        run(&accept).exits(0).stdout_is(expect![[r#"
            would accept the current content of 1 migration, without running it:
              0001_two
            nothing to apply; 2 applied already
        "#]]);
        let json = run(&[accept[0], accept[1], "--format=json"]).exits(0);
        json.answers_are(expect![[r#"
            {
              "action": "accept",
              "migration": "0001_two"
            }
            {
              "applied": 2,
              "pending": 0
            }
        "#]]);
        assert_eq!(database.history(), history);
        run(&["--accept=0009_x", "--dry-run"]).exits(64);
        run(&accept[..1]).exits(0);
    }
}

#[test]
fn a_dry_run_accepts_into_a_table_that_has_to_be_upgraded() {
    let (database, folder) = (Database::fresh(), Folder::empty());
    let [a, b, c] = ["20231114221320_a", "20231114221321_b", "20231114221322_c"];
    for name in [a, b, c] {
        folder.write(&format!("{name}/migration.sql"), format!("select '{name}'"));
    }
    database.execute(&format!(
        "create schema drizzle; create table drizzle.__drizzle_migrations \
         (id serial primary key, hash text not null, created_at bigint); \
         insert into drizzle.__drizzle_migrations (hash, created_at) \
         values ('as it was', 1700000000123), ('{}', null)",
        folder.hash(&format!("{b}/migration.sql"))
    ));
    let history = || database.rows("select * from drizzle.__drizzle_migrations order by id");
    let before = history();
    let run = |args: &[&str]| premigrate(&database, &folder).args(args).run();
    let accept = format!("--accept={a}");
    run(&[&accept, "--dry-run"]).exits(0).stdout_is(expect![[r#"
        would accept the current content of 1 migration, without running it:
          20231114221320_a
        would apply 1 migration, each in its own transaction; 2 applied already
          20231114221322_c (1 statement)
    "#]]);
    assert_eq!(history(), before);
    run(&[&accept]).exits(0).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 1.x)
        premigrate: accepted the current content of 1 migration (not run):
          20231114221320_a
        premigrate: applied 20231114221322_c in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
    let names = "select name from drizzle.__drizzle_migrations order by id";
    assert_eq!(database.rows(names), [a, b, a, c]);
}

#[test]
fn a_dry_run_refuses_what_a_run_refuses() {
    let (database, folder) = (Database::fresh(), two());
    folder.add("0002_vacuum", "rollback");
    let dry_run = || premigrate(&database, &folder).arg("--dry-run").run();
    let run = dry_run().exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: some pending migrations cannot be run; nothing was run:

          - 0002_vacuum.sql:1:1 contains `rollback`, which would leave the migration's changes uncommitted; remove it
    "#]]);
    assert_eq!(run.stdout, "");
    folder.write("0002_vacuum.sql", "select 1");
    premigrate(&database, &folder).run().exits(0);
    folder.write("0002_vacuum.sql", "select 2");
    let run = dry_run().exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0002_vacuum.sql
              applied  822ae07d4783158bc1912bb623e5107cc9002d519e1143a9c200ed6ee18b6d0f
              now      3cf988cc782b44bc24ceb17e445d9c3cfd06b6c848ecfff949e1bfdb9f705a61

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0002_vacuum --dir FOLDER`, or set PREMIGRATE_ACCEPT=0002_vacuum
    "#]]);
    assert_eq!(run.stdout, "");
}

/// Runs a shell command with the executable as `$1`.
fn in_shell(database: &Database, folder: &Folder, line: &str) -> i32 {
    let mut command = Command::new("sh");
    command
        .args(["-c", line, "sh", env!("CARGO_BIN_EXE_premigrate")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("DATABASE_URL", &database.url)
        .env("PREMIGRATE_DIR", &folder.path)
        .stdin(Stdio::null());
    status_of(&mut command).code().unwrap()
}

#[test]
fn a_closed_stream_does_not_stop_a_run() {
    for line in [
        r#""$1" >&-"#,
        r#""$1" 2>&-"#,
        r#""$1" >&- 2>&- <&-"#,
        r#""$1" >/dev/full 2>/dev/full"#,
        // The reader is gone before the first line is written.
        r#"{ sleep 0.3; "$1" 2>&1; } | true"#,
    ] {
        let (database, folder) = (Database::fresh(), two());
        assert_eq!(in_shell(&database, &folder, line), 0, "{line}");
        assert_eq!(database.history().len(), 2, "{line}");
        assert_eq!(database.leftovers(), Vec::<String>::new(), "{line}");
    }
    let (database, folder) = (Database::fresh(), two());
    let line = r#""$1" --dry-run >&- && "$1" --dry-run >/dev/full 2>&- && "$1" list >&-"#;
    assert_eq!(in_shell(&database, &folder, line), 0);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn the_app_starts_although_stderr_is_closed() {
    let (database, folder) = (Database::fresh(), two());
    let file = folder.path.join("started");
    let line = format!(r#""$1" -- touch {} 2>&-"#, file.display());
    assert_eq!(in_shell(&database, &folder, &line), 0);
    assert!(file.exists());
}
