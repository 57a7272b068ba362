//! Credentials that change during a run: each connection is opened with what the files have then.

use std::process::Command;

use crate::harness::{Database, Folder, WAITING_FOR_LOCK, bare};
use crate::settings::{parts, role_with_password};

/// A migration that waits for the test, and one that needs a second connection.
fn folder() -> Folder {
    Folder::drizzle0(&[
        ("0000_wait", "select pg_advisory_xact_lock(4711)"),
        ("0001_index", "create table t (a int); create index concurrently t_a on t (a)"),
    ])
}

/// How a run finds its password.
struct Way {
    variable: &'static str,
    /// The content of the file that the variable names, from the URL's beginning and the password.
    content: fn(&Place<'_>, &str) -> String,
}

struct Place<'a> {
    role: &'a str,
    host: &'a str,
    port: &'a str,
    database: &'a str,
}

const WAYS: [Way; 3] = [
    Way { variable: "PGPASSWORD_FILE", content: |_, password| format!("{password}\n") },
    Way { variable: "PGPASSFILE", content: |_, password| format!("*:*:*:*:{password}\n") },
    Way { variable: "DATABASE_URL_FILE", content: |place, password| url(place, password) },
];

fn url(place: &Place<'_>, password: &str) -> String {
    let Place { role, host, port, database } = place;
    format!("postgres://{role}:{password}@{host}:{port}/{database}\n")
}

/// Starts a run, has `rotate` change things while it waits, and lets it go on.
fn run(database: &Database, files: &Folder, way: &Way, place: &Place<'_>, rotate: impl FnOnce()) {
    let folder = folder();
    let waiting = database.holding("select pg_advisory_xact_lock(4711)");
    let run = bare().arg("--dir").arg(&folder.path).args(&["--lock-timeout", "0"]);
    let variables =
        [("PGHOST", place.host), ("PGPORT", place.port), ("PGDATABASE", place.database)];
    let run = match way.variable {
        "DATABASE_URL_FILE" => run,
        _ => variables
            .iter()
            .fold(run.env("PGUSER", place.role), |run, (name, value)| run.env(name, value)),
    };
    let run = run.env(way.variable, files.path.join("secret")).start();
    database.wait_for("the first migration", WAITING_FOR_LOCK);
    rotate();
    drop(waiting);
    run.finish().exits(0).says(&["applied 0001_index"]);
}

#[test]
fn a_password_that_is_rotated_during_a_run_is_read_again_for_the_next_connection() {
    for way in &WAYS {
        let database = Database::fresh();
        let role = role_with_password(&database, "first");
        let (_, host, port) = parts(&database.url);
        let place = Place { role: &role, host, port, database: &database.name };
        let files = Folder::empty();
        files.write("secret", (way.content)(&place, "first"));
        run(&database, &files, way, &place, || {
            database.execute(&format!("alter role {role} password 'second'"));
            files.write("secret", (way.content)(&place, "second"));
        });
    }
}

#[test]
fn a_role_that_is_replaced_during_a_run_is_read_again_too() {
    let database = Database::fresh();
    let [first, second] = ["first", "second"].map(|password| {
        let role = role_with_password(&database, password);
        database.execute(&format!("alter role {role} superuser"));
        role
    });
    let (_, host, port) = parts(&database.url);
    let place = |role| Place { role, host, port, database: &database.name };
    let files = Folder::empty();
    files.write("secret", url(&place(&first), "first"));
    let [.., way] = &WAYS;
    run(&database, &files, way, &place(&first), || {
        database.execute(&format!("alter role {first} nologin"));
        files.write("secret", url(&place(&second), "second"));
    });
}

#[test]
fn a_secret_that_cannot_be_read_again_stays_what_it_was() {
    let database = Database::fresh();
    let role = role_with_password(&database, "first");
    let (_, host, port) = parts(&database.url);
    let place = Place { role: &role, host, port, database: &database.name };
    for (way, rewrite) in WAYS.iter().zip([
        // It is being written, or replaced, or is nonsense.
        (|path| std::fs::write(path, "").unwrap()) as fn(&std::path::Path),
        |_| {},
        |path| std::fs::write(path, "nonsense").unwrap(),
    ]) {
        let database = database.at(database.url.clone());
        database.execute("drop table if exists t; drop schema if exists drizzle cascade");
        let files = Folder::empty();
        files.write("secret", (way.content)(&place, "first"));
        run(&database, &files, way, &place, || rewrite(&files.path.join("secret")));
    }
}

#[test]
fn a_secret_that_comes_through_a_pipe_is_read_once() {
    let database = Database::fresh();
    let role = role_with_password(&database, "first");
    let (_, host, port) = parts(&database.url);
    let (folder, files) = (Folder::empty(), Folder::empty());
    folder.write("1_index.sql", "create table t (a int); create index concurrently on t (a)");
    let pipe = files.path.join("secret");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let run = bare().arg("--dir").arg(&folder.path).env("PGPASSWORD_FILE", &pipe);
    let run = run.env("PGHOST", host).env("PGPORT", port).env("PGUSER", role);
    let run = run.env("PGDATABASE", &database.name).start();
    // Only now is there somebody who reads it. Who opens it again waits for ever.
    std::fs::write(&pipe, "first\n").unwrap();
    run.finish().exits(0).says(&["applied 1_index"]);
}

#[test]
fn the_apps_url_does_not_stand_in_for_one_that_is_being_written() {
    let database = Database::fresh();
    let [owner, app] = ["first", "second"].map(|password| role_with_password(&database, password));
    database.execute(&format!("alter role {owner} superuser"));
    let (_, host, port) = parts(&database.url);
    let place = |role| Place { role, host, port, database: &database.name };
    let files = Folder::empty();
    let file = files.path.join("secret");
    std::fs::write(&file, url(&place(&owner), "first")).unwrap();
    let waiting = database.holding("select pg_advisory_xact_lock(4711)");
    let folder = folder();
    let run = bare().arg("--dir").arg(&folder.path).args(&["--lock-timeout", "0"]);
    let run = run
        .env("MIGRATION_DATABASE_URL_FILE", &file)
        .env("DATABASE_URL", url(&place(&app), "second").trim_end())
        .start();
    database.wait_for("the first migration", WAITING_FOR_LOCK);
    std::fs::write(&file, "").unwrap();
    drop(waiting);
    run.finish().exits(0).says(&["applied 0001_index"]);
    let owner_of_table = "select tableowner::text from pg_tables where tablename = 't'";
    assert_eq!(database.value(owner_of_table), owner);
}

#[test]
fn a_password_file_that_is_a_pipe_is_not_waited_for() {
    let database = Database::fresh();
    let files = Folder::empty();
    let pipe = files.path.join("pgpass");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let folder = Folder::drizzle0(&[("0000_t", "create table t (a int)")]);
    crate::harness::premigrate(&database, &folder).env("PGPASSFILE", &pipe).run().exits(0);
}
