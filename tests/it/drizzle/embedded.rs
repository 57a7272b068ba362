//! Migrations inside the executable: what drizzle-kit generates is in the next build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::kit::Project;
use super::{Contents, finish, finish_within};
use crate::harness::{Database, Folder, Run, unique};

/// A build takes half a minute where nothing else goes on.
const BUILT: Duration = Duration::from_secs(600);

#[test]
fn what_drizzle_kit_generates_is_embedded_by_the_next_build_and_applied_by_the_next_start() {
    let (database, project, target) = (Database::fresh(), Project::new(), Target::new());
    project.add_column("motto");
    let executable = target.build(&project.migrations());
    start(&executable, &database).says(&["28 migrations in this executable", "applied 0027_motto"]);

    project.add_column("anthem");
    let executable = target.build(&project.migrations());
    start(&executable, &database)
        .says(&["29 migrations in this executable", "applied 0028_anthem"]);

    let left = Contents::of(&database);
    project.kit(&["migrate"], Some(&database));
    Contents::of(&database).equals(&left);
}

#[test]
fn a_journal_that_the_build_did_not_see_is_missed_by_the_start() {
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    folder.write("meta/0000_snapshot.json", "{}");
    fs::remove_file(folder.path.join("meta/_journal.json")).unwrap();
    let database = Database::fresh();
    run(&Target::new().build(&folder.path), &database)
        .exits(65)
        .says(&["meta/_journal.json is missing"]);
    assert!(database.tables().is_empty());
}

fn start(executable: &Path, database: &Database) -> Run {
    run(executable, database).exits(0)
}

fn run(executable: &Path, database: &Database) -> Run {
    finish(Command::new(executable).env_clear().env("DATABASE_URL", &database.url))
}

/// A target directory of the test's own, in which all dependencies are built already: they are
/// hard links to what this test was built with, since OpenSSL takes minutes.
struct Target {
    path: PathBuf,
    /// The profile's directory in it.
    profile: String,
}

impl Target {
    fn new() -> Target {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("target"));
        let built = Path::new(env!("CARGO_BIN_EXE_premigrate")).parent().expect("a profile");
        let profile = built.file_name().expect("a profile").display().to_string();
        for kind in [".fingerprint", "build", "deps"] {
            link(&built.join(kind), &path.join(&profile).join(kind));
        }
        Target { path, profile }
    }

    fn build(&self, migrations: &Path) -> PathBuf {
        // cargo's oldest profile is built into a directory of another name.
        let profile = if self.profile == "debug" { "dev" } else { &self.profile };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--locked", "--bin", "premigrate", "--profile", profile]);
        cargo.arg("--target-dir").arg(&self.path).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.env("PREMIGRATE_MIGRATIONS", migrations);
        finish_within(BUILT, &mut cargo).exits(0);
        self.path.join(&self.profile).join("premigrate")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Links everything in a folder but premigrate itself and its tests.
fn link(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let ours = |name: &str| {
            ["premigrate-", "libpremigrate-", "it-"].iter().any(|our| name.starts_with(our))
        };
        if ours(&name.to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            link(&path, &to.join(name));
        } else {
            std::fs::hard_link(path, to.join(name)).expect("a link");
        }
    }
}
