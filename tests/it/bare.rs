//! The static executable as process 1 where there is nothing else: no `/proc`, no `/dev`, no
//! `/etc`, no `/tmp`, no home. `scripts/image` builds it, and runs this.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::harness::{Database, Folder, Run, Running};

/// A root directory with the executable and migrations, in which every user may write.
struct Root {
    folder: Folder,
}

impl Root {
    fn with(migrations: &[(&str, &str)]) -> Root {
        let folder = Folder::drizzle0(migrations);
        let us = std::env::var("STATIC_EXECUTABLE");
        let us = us.expect("STATIC_EXECUTABLE: scripts/image runs these");
        std::fs::copy(us, folder.path.join("premigrate")).unwrap();
        Root { folder }
    }

    /// Adds an executable file.
    fn executable(&self, name: &str, content: impl AsRef<[u8]>) {
        self.folder.write(name, content);
        let mode = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.folder.path.join(name), mode).unwrap();
    }

    /// Runs a command in it.
    fn run(&self, database: &Database, args: &[&str]) -> Run {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=65534", "--map-group=65534"])
            .args(["--pid", "--fork", "--kill-child", "--root"])
            .arg(&self.folder.path)
            .args(args)
            .env_clear()
            .env("DATABASE_URL", &database.url)
            .env("PREMIGRATE_DIR", "/");
        Running::start(command).finish()
    }

    /// All files and folders, with the times of their last change.
    fn contents(&self) -> Vec<String> {
        let mut contents = Vec::new();
        list(&self.folder.path, &mut contents);
        contents
    }
}

fn list(path: &Path, contents: &mut Vec<String>) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let (changed, part) = (metadata.ctime(), metadata.ctime_nsec());
    contents.push(format!(
        "{} {} {} {changed}.{part}",
        path.display(),
        metadata.ino(),
        metadata.len()
    ));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            list(&entry.unwrap().path(), contents);
        }
    }
}

const APP: [&str; 4] = ["/premigrate", "--", "/premigrate", "--version"];

#[test]
#[ignore = "scripts/image builds the executable, and runs this"]
fn nothing_is_written_except_to_the_database() {
    let database = Database::fresh();
    let root = Root::with(&[
        ("0000_log", "create table log (what text)"),
        ("0001_index", "create index concurrently log_what on log (what)"),
        ("0002_broken", "select 1/0"),
    ]);
    let before = root.contents();
    assert_eq!(root.run(&database, &APP).exits(70).stdout, "");
    root.run(&database, &["/premigrate", "status", "--exit-code"]).exits(10);
    root.run(&database, &["/premigrate", "check"]).exits(0);
    assert_eq!(root.contents(), before);
    root.folder.write("0002_broken.sql", "select 1");
    let before = root.contents();
    for _ in 0..2 {
        let run = root.run(&database, &APP).exits(0);
        assert!(run.stdout.starts_with("premigrate "), "{}", run.stdout);
    }
    assert_eq!(root.contents(), before);
    assert_eq!(database.history().len(), 3);
}

#[test]
#[ignore = "scripts/image builds the executable, and runs this"]
fn premigrate_knows_itself_without_proc() {
    let database = Database::fresh();
    let root = Root::with(&[("0000_log", "create table log (what text)")]);
    // Without PREMIGRATE_DIR, it would list what is embedded.
    let run = root.run(&database, &["/premigrate", "--", "/premigrate", "list"]).exits(0);
    assert!(run.stdout.contains("0000_log"), "{}", run.stdout);
}

#[test]
#[ignore = "scripts/image builds the executable, and runs this"]
fn an_app_that_cannot_be_executed_is_reported_with_the_reason() {
    let database = Database::fresh();
    let root = Root::with(&[]);
    root.executable("text", "echo started\n");
    root.executable("script", "#!/bin/sh\necho started\n");
    root.executable("dynamic", std::fs::read("/bin/true").unwrap());
    for (app, code, words) in [
        ("/text", 126, "it is neither a program nor a script"),
        ("/script", 127, "its interpreter does not: /bin/sh"),
        ("/dynamic", 127, "its interpreter or loader does not"),
        ("/", 126, "it is a directory"),
        ("/nothing", 127, "could not start /nothing"),
        ("nothing", 127, "no directory in PATH contains it"),
    ] {
        root.run(&database, &["/premigrate", "--", app]).exits(code).says(&[words]);
    }
}

/// A root directory with one file, which may be executed and not read, where nothing can be written.
fn run_alone(folder: &Folder, database: &Database, args: &[&str]) -> Run {
    let read_only = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let is_root = std::fs::metadata(&folder.path).unwrap().uid() == 0;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-c", read_only]).arg(&folder.path).arg("chroot");
    if is_root {
        command.arg("--userspec=65534:65534");
    }
    let path = std::env::var("PATH").unwrap();
    command
        .arg(&folder.path)
        .args(args)
        .env_clear()
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("DATABASE_URL", &database.url);
    Running::start(command).finish()
}

#[test]
#[ignore = "scripts/image builds the executable, and runs this"]
fn a_bundle_is_all_that_a_read_only_root_needs() {
    let database = Database::fresh();
    let root = Root::with(&[("0000_log", "create table log (what text)")]);
    root.folder.add("0001_index", "create index concurrently log_what on log (what)");
    root.run(&database, &["/premigrate", "bundle", "--output", "/bundle"]).exits(0);

    let alone = Folder::empty();
    let executable = alone.path.join("premigrate");
    std::fs::rename(root.folder.path.join("bundle"), &executable).unwrap();
    std::fs::set_permissions(&executable, PermissionsExt::from_mode(0o111)).unwrap();
    let mut before = Vec::new();
    list(&alone.path, &mut before);
    for said in ["applied 0001_index", "up to date, 2 applied"] {
        let run = run_alone(&alone, &database, &APP).exits(0);
        assert!(run.stdout.starts_with("premigrate "), "{}", run.stdout);
        run.says(&["2 migrations in this executable, bundled from /", said]);
    }
    let mut after = Vec::new();
    list(&alone.path, &mut after);
    assert_eq!(after, before);
    assert_eq!(database.history().len(), 2);
}

#[test]
#[ignore = "scripts/image builds the executable, and runs this"]
fn a_bundle_that_was_stripped_or_cut_says_so() {
    let database = Database::fresh();
    let root = Root::with(&[("0000_log", "create table log (what text)")]);
    let bundle = root.folder.path.join("bundle");
    for damage in ["strip", "truncate --size=-1", "truncate --size=-300"] {
        root.run(&database, &["/premigrate", "bundle", "--output", "/bundle"]).exits(0);
        let mut words = damage.split(' ');
        let mut command = Command::new(words.next().unwrap());
        assert!(command.args(words).arg(&bundle).status().unwrap().success(), "{damage}");
        let alone = Folder::empty();
        std::fs::rename(&bundle, alone.path.join("premigrate")).unwrap();
        let run = run_alone(&alone, &database, &APP).exits(65).says(&["are damaged: "]);
        assert_eq!(run.stdout, "");
    }
}
