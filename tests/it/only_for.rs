//! `--only-for`: one image, and many commands in it.

use crate::harness::{Database, Folder, Premigrate, bare, premigrate};

fn one_table() -> Folder {
    Folder::drizzle0(&[("0000_a", "create table a (id int)")])
}

/// A run that would fail if it connected.
fn unconnected(folder: &Folder) -> Premigrate {
    bare()
        .env("DATABASE_URL", "postgres://u@127.0.0.1:1/d")
        .args(&["--wait", "0", "--dir"])
        .arg(&folder.path)
}

#[test]
fn another_app_starts_without_migrations_and_with_one_line() {
    let folder = one_table();
    for command in [&[][..], &["wait"], &["--dry-run"]] {
        let run = unconnected(&folder).args(command).args(&["--only-for", "app, server.js"]);
        let run = run.args(&["--health", ":1", "--", "echo", "backfill.js"]).run().exits(0);
        let line = "no migrations were checked or applied: --only-for does not name echo\n";
        assert!(run.stderr.starts_with(&format!("premigrate: {line}")), "{}", run.stderr);
        let expected = if command == ["--dry-run"] { "" } else { "backfill.js\n" };
        assert_eq!(run.stdout, expected);
    }
    let run = unconnected(&folder).env("PREMIGRATE_ONLY_FOR", "app").args(&["--format", "json"]);
    let run = run.args(&["--", "sh", "-c", "echo $PREMIGRATE_ONLY_FOR."]).run().exits(0);
    assert_eq!(run.stdout, ".\n");
    let events = run.events();
    assert_eq!(events[0], serde_json::json!({"event": "not_for_app", "app": "sh"}));
    assert_eq!(events.len(), 2);
}

#[test]
fn an_app_that_is_named_starts_after_the_migrations() {
    for app in [&["echo", "x"][..], &["/bin/echo", "-x", "server.js"], &["sh", "dist/server.js"]] {
        let (database, folder) = (Database::fresh(), one_table());
        folder.write("dist/server.js", "echo x");
        let run = premigrate(&database, &folder).current_dir(&folder.path);
        let run = run.args(&["--only-for", "echo,server.js", "--"]).args(app).run().exits(0);
        assert!(!run.stdout.is_empty());
        assert_eq!(database.tables(), ["a"], "{app:?}");
    }
}

#[test]
fn without_an_app_it_is_an_error_and_nothing_is_done() {
    let (database, folder) = (Database::fresh(), one_table());
    let run = || premigrate(&database, &folder);
    for run in [run().args(&["--only-for", "app"]), run().args(&["wait", "--only-for", "app"])] {
        let run = run.run().exits(64).says(&["needs an app to compare with: put it after `--`"]);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    for wrong in ["", "app,", ","] {
        let run = run().args(&["--only-for", wrong, "--", "echo"]).run().exits(78);
        run.says(&["--only-for must be a comma-separated list of programs"]);
    }
    run().args(&["status", "--only-for", "app"]).run().exits(64);
    assert_eq!(database.tables(), Vec::<String>::new());
    // What starts no app has no use for the variable.
    run().arg("status").env("PREMIGRATE_ONLY_FOR", "app").run().exits(0);
    run().env("PREMIGRATE_ONLY_FOR", "app").run().exits(0);
    assert_eq!(database.tables(), ["a"]);
}
