//! The example application: premigrate, Drizzle and Node, as in its image.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Drizzle::V0;
use super::{copy, node};
use crate::docs::{Project, project, words};
use crate::harness::{Folder, bare, eventually};
use crate::health::free_port;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/node-drizzle")
}

/// The example with the packages that `npm ci` would install, and a database.
pub fn example() -> Project {
    let migrations = Folder::empty();
    copy(&home().join("drizzle"), &migrations.path);
    let example = Project::with(migrations);
    for file in ["package.json", "drizzle.config.ts", "schema.js", "server.js"] {
        fs::copy(home().join(file), example.folder.path.join(file)).unwrap();
    }
    let packages = V0.home().join("node_modules");
    symlink(packages, example.folder.path.join("node_modules")).unwrap();
    example.executable("bin/npx", "#!/bin/sh\nexec node_modules/.bin/\"$@\"\n");
    example
}

/// The body of an answer with status 200; `None` if there is none.
fn ask(port: u16, method: &str, page: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = body.len();
    let head = format!("{method} {page} HTTP/1.0\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}

#[test]
fn the_example_starts_behind_premigrate_answers_with_its_tables_and_ends_at_sigterm() {
    let (example, port) = (example(), free_port());
    let dockerfile = project("examples/node-drizzle/Dockerfile");
    let command = [words(&dockerfile, "ENTRYPOINT "), words(&dockerfile, "CMD ")].concat();
    let [us, command @ ..] = &command[..] else { panic!("{command:?}") };
    assert_eq!(us, "/premigrate");
    assert!(dockerfile.contains("\nENV PREMIGRATE_HEALTH=:3000\n"));
    let start = || {
        let run = command.iter().fold(bare(), |run, word| run.arg(word));
        let run = run.current_dir(&example.folder.path).env("DATABASE_URL", &example.database.url);
        let run = run.env("PREMIGRATE_DIR", "drizzle").env("PORT", port.to_string());
        run.env("PREMIGRATE_HEALTH", format!("127.0.0.1:{port}")).start()
    };
    let running = start();
    eventually("the app", || ask(port, "GET", "/ready", "").is_some());
    for page in ["/live", "/ready"] {
        assert!(ask(port, "GET", page, "").is_some(), "{page}");
    }
    assert_eq!(ask(port, "GET", "/nowhere", ""), None);
    let check = format!("http://127.0.0.1:{port}/ready");
    bare().args(&["healthcheck", &check]).run().exits(0);

    ask(port, "POST", "/notes", "Buy milk").expect("a note");
    let notes = ask(port, "GET", "/notes", "").expect("the notes");
    let notes: Value = serde_json::from_str(&notes).expect(&notes);
    assert_eq!(notes[0]["text"], "Buy milk");
    assert_eq!(example.database.rows("select id, text from notes"), ["1|Buy milk"]);
    let applied = ["applied 0000_notes", "applied 0001_created_at", "starting node"];
    running.end_by("TERM").exits(0).says(&applied);

    let running = start();
    eventually("the app again", || ask(port, "GET", "/ready", "").is_some());
    running.end_by("TERM").exits(0).says(&["up to date, 2 applied"]);
}

#[test]
fn drizzle_kit_finds_nothing_to_generate_for_the_example() {
    let example = example();
    let run = V0.kit(&example.folder.path, &["generate"], None);
    assert!(run.stdout.contains("No schema changes"), "{}", run.stdout);
}

#[test]
fn the_example_locks_the_packages_that_it_is_tested_with() {
    let lock = |path: PathBuf| -> Value {
        let text = fs::read_to_string(path.join("package-lock.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (example, tested) = (lock(home()), lock(V0.home()));
    for package in ["drizzle-orm", "drizzle-kit", "postgres"] {
        let key = format!("node_modules/{package}");
        let version = &example["packages"][&key]["version"];
        assert!(version.is_string(), "{package}");
        assert_eq!(version, &tested["packages"][&key]["version"], "{package}");
    }
}

#[test]
fn the_image_of_the_example_gets_every_file_that_it_copies() {
    let dockerfile = project("examples/node-drizzle/Dockerfile");
    let ignored = project("examples/node-drizzle/.dockerignore");
    let copied = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    for line in copied.filter(|line| !line.starts_with("--from")) {
        let words: Vec<&str> = line.split(' ').collect();
        for file in &words[..words.len() - 1] {
            assert!(home().join(file).exists(), "{file}");
            assert!(!ignored.lines().any(|line| line == *file), "{file}");
        }
    }
    // What the server imports is among them.
    let checked = node().args(["--check", "server.js"]).current_dir(home()).status();
    assert!(checked.unwrap().success());
    assert!(dockerfile.contains(" schema.js server.js "));
}
