//! `list`, `--dry-run`, `--help`, `--version`: answers on stdout.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Database, Folder, bare, premigrate, status_of};

fn two() -> Folder {
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text);")]);
    folder.add("0001_two", "select 'é';--> statement-breakpoint\nselect 2");
    folder
}

#[test]
fn help_and_version_need_nothing_and_go_to_stdout() {
    let version = || {
        let roots = premigrate::postgres::tls::CARRIED_ROOTS;
        format!("premigrate {}\n{roots}\n", env!("CARGO_PKG_VERSION"))
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
fn list_shows_what_is_carried_without_a_database() {
    let folder = two();
    let run = bare().arg("list").arg("--dir").arg(&folder.path).run().exits(0);
    let [first, second] = ["0000_log.sql", "0001_two.sql"].map(|file| folder.hash(file));
    let expected = format!(
        "2 migrations in {} (Drizzle 0.x)\n   \
         1  0000_log  {first}   29 bytes\n   2  0001_two  {second}   45 bytes\n",
        folder.path.display()
    );
    assert_eq!(run.stdout, expected);
    assert_eq!(run.stderr, "");
}

#[test]
fn list_in_json_is_one_object_a_migration() {
    let folder = two();
    let run = bare().args(&["list", "--format", "json"]).arg("--dir").arg(&folder.path).run();
    let run = run.exits(0);
    let objects: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = ["0000_log", "0001_two"].map(|name| {
        let file = format!("{name}.sql");
        let (place, bytes) = if name == "0000_log" { (1, 29) } else { (2, 45) };
        json!({
            "migration": name,
            "place": place,
            "file": file,
            "hash": folder.hash(&file),
            "bytes": bytes,
            "when": 1_699_999_999_000_i64 + place * 1000,
            "layout": "Drizzle 0.x",
            "from": folder.path.display().to_string(),
        })
    });
    assert_eq!(objects, expected);
}

#[test]
fn without_a_folder_list_shows_what_the_executable_carries() {
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
    assert_eq!(
        run.stdout,
        "would apply 2 migrations, each in a transaction of its own; 0 applied\n  \
         0000_log (1 statement)\n  0001_two (2 statements)\n"
    );
    let schemas = "select 1 from pg_namespace where nspname = 'drizzle'";
    assert_eq!(database.rows(schemas).len(), 0);
    assert_eq!(database.tables(), Vec::<String>::new());

    premigrate(&database, &folder).run().exits(0);
    folder.add_at("0002_early", "select 1", 1);
    let run = dry_run().exits(0);
    assert_eq!(
        run.stdout,
        "would apply 1 migration, each in a transaction of its own; 2 applied\n  \
         0002_early (1 statement), out of order\n"
    );
    assert_eq!(database.history().len(), 2);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_dry_run_in_json_is_one_object_a_pending_migration() {
    let (database, folder) = (Database::fresh(), two());
    let run = premigrate(&database, &folder).args(&["--dry-run", "--format=json"]).run().exits(0);
    let objects: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [("0000_log", 1), ("0001_two", 2)].map(|(name, statements)| {
        json!({
            "migration": name,
            "file": format!("{name}.sql"),
            "out_of_order": false,
            "statements": statements,
            "units": 1,
            "done": 0,
            "transaction": true,
            "why": null,
            "steps": [],
        })
    });
    assert_eq!(objects, expected);
    let events: Vec<_> = run.events().iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["carrying"]);
}

#[test]
fn an_answer_in_json_of_which_nothing_is_to_be_said_says_so() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    let from = folder.path.display().to_string();
    for (asked, expected) in [
        ("list", json!({ "migrations": 0, "layout": "Drizzle 0.x", "from": from })),
        ("check", json!({ "migrations": 0, "faults": 0, "remarks": 0 })),
        ("status", json!({ "applied": 0, "edited": 0, "pending": 0 })),
        ("--dry-run", json!({ "applied": 0, "pending": 0 })),
    ] {
        let run = premigrate(&database, &folder).args(&[asked, "--format=json"]).run().exits(0);
        let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(told, expected, "{asked}");
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
        run(&["--dry-run"]).exits(65).says(&["0001_two.sql", "edited"]);
        let accept = ["--accept=0001_two", "--dry-run"];
        assert_eq!(
            run(&accept).exits(0).stdout,
            "would accept 1 migration as now in the file, not run:\n  0001_two\n\
             would apply 0 migrations, each in a transaction of its own; 2 applied\n"
        );
        let json = run(&[accept[0], accept[1], "--format=json"]).exits(0);
        assert_eq!(
            json.stdout,
            "{\"migration\":\"0001_two\",\"accepted\":true}\n{\"pending\":0,\"applied\":2}\n"
        );
        assert_eq!(database.history(), history);
        run(&["--accept=0009_x", "--dry-run"]).exits(64).says(&["no migration is named 0009_x"]);
        run(&accept[..1]).exits(0);
    }
}

#[test]
fn a_dry_run_accepts_into_a_table_that_would_be_upgraded_for_it() {
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
    assert_eq!(
        run(&[&accept, "--dry-run"]).exits(0).stdout,
        format!(
            "would accept 1 migration as now in the file, not run:\n  {a}\n\
             would apply 1 migration, each in a transaction of its own; 2 applied\n  \
             {c} (1 statement)\n"
        )
    );
    assert_eq!(history(), before);
    run(&[&accept]).exits(0).says(&["accepted 1 migration", a, &format!("applied {c}")]);
    let names = "select name from drizzle.__drizzle_migrations order by id";
    assert_eq!(database.rows(names), [a, b, a, c]);
}

#[test]
fn a_dry_run_refuses_what_a_run_would_refuse() {
    let (database, folder) = (Database::fresh(), two());
    folder.add("0002_vacuum", "rollback");
    let dry_run = || premigrate(&database, &folder).arg("--dry-run").run();
    let run = dry_run().exits(65).says(&["0002_vacuum.sql:1:1"]);
    assert_eq!(run.stdout, "");
    folder.write("0002_vacuum.sql", "select 1");
    premigrate(&database, &folder).run().exits(0);
    folder.write("0002_vacuum.sql", "select 2");
    let run = dry_run().exits(65).says(&["0002_vacuum.sql", "edited"]);
    assert_eq!(run.stdout, "");
}

/// Runs the executable in a shell that closes a stream of it, or whose reader goes away.
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
fn a_reader_that_went_away_changes_nothing_about_what_is_done() {
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
fn the_app_starts_although_our_reader_went_away() {
    let (database, folder) = (Database::fresh(), two());
    let file = folder.path.join("started");
    let line = format!(r#""$1" -- touch {} 2>&-"#, file.display());
    assert_eq!(in_shell(&database, &folder, &line), 0);
    assert!(file.exists());
}
