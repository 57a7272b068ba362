//! `new` against the real drizzle-kit of both generations: what it makes is what drizzle-kit
//! makes, and drizzle-kit and drizzle-orm go on from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Database, Folder, bare, needs, output_of};

const USERS: &str = r#"
import { integer, pgTable, text } from "drizzle-orm/pg-core";
export const users = pgTable("users", { id: integer("id").primaryKey(), name: text("name") });
"#;

const USERS_WITH_EMAIL: &str = r#"
import { integer, pgTable, text } from "drizzle-orm/pg-core";
export const users = pgTable("users", {
  id: integer("id").primaryKey(), name: text("name"), email: text("email"),
});
"#;

const CONFIG: &str = r#"
export default {
  dialect: "postgresql",
  schema: "./schema.ts",
  out: "drizzle",
  breakpoints: process.env.BREAKPOINTS !== "no",
  migrations: process.env.PREFIX ? { prefix: process.env.PREFIX } : {},
  dbCredentials: { url: process.env.DATABASE_URL },
};
"#;

fn packages(generation: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drizzle").join(generation)
}

/// A project of its own that uses drizzle-kit of one generation.
struct Project {
    folder: Folder,
    generation: &'static str,
    environment: Vec<(&'static str, String)>,
}

impl Project {
    fn new(generation: &'static str) -> Project {
        let folder = Folder::empty();
        let installed = packages(generation).join("node_modules");
        assert!(installed.is_dir(), "install the packages first: npm ci in tests/drizzle");
        std::os::unix::fs::symlink(installed, folder.path.join("node_modules")).expect("a link");
        folder.write("drizzle.config.ts", CONFIG);
        folder.write("schema.ts", USERS);
        Project { folder, generation, environment: Vec::new() }
    }

    fn env(mut self, name: &'static str, value: &str) -> Project {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn migrations(&self) -> PathBuf {
        self.folder.path.join("drizzle")
    }

    /// The same project, where something else can be done to the same migrations.
    fn copy(&self) -> Project {
        let copy = Project::new(self.generation);
        for (path, text) in self.files() {
            copy.folder.write(&format!("drizzle/{path}"), text);
        }
        copy
    }

    fn run_kit(&self, args: &[&str]) -> Output {
        needs("Node");
        let mut node = Command::new("node");
        node.arg("node_modules/drizzle-kit/bin.cjs").args(args).current_dir(&self.folder.path);
        output_of(node.envs(self.environment.iter().map(|(name, value)| (name, value))))
    }

    /// Runs drizzle-kit; what it printed. It may fail with exit code 0, but not without a word.
    #[track_caller]
    fn kit(&self, args: &[&str]) -> String {
        let output = self.run_kit(args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{args:?}: {said}\n{errors}");
        said
    }

    #[track_caller]
    fn new_migration(&self, name: &str) {
        let run = bare().args(&["new", name, "--dir"]).arg(self.migrations()).run().exits(0);
        for path in run.stdout.lines() {
            assert!(Path::new(path).is_file(), "{path:?}");
        }
    }

    /// The migrations folder's files, by path.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.migrations()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the migrations") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let inside = path.strip_prefix(self.migrations()).expect("inside").to_str();
                let text = std::fs::read_to_string(&path).expect("text");
                files.insert(inside.expect("UTF-8").to_owned(), text);
            }
        }
        files
    }

    /// The only file whose path ends so, and is not among these.
    #[track_caller]
    fn new_file(&self, before: &BTreeMap<String, String>, end: &str) -> (String, String) {
        let is_new = |path: &String| path.ends_with(end) && !before.contains_key(path);
        let found: Vec<_> = self.files().into_iter().filter(|(path, _)| is_new(path)).collect();
        assert_eq!(found.len(), 1, "{end}: {found:?}");
        found.into_iter().next().expect("one")
    }

    /// The files, with what is random or the time of the migration that was made last replaced.
    fn masked(&self, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let files = self.files();
        let tag = self.new_file(before, ".sql").0;
        let prefix = tag.split('_').next().unwrap_or_default();
        let snapshot = files
            .iter()
            .find(|(path, text)| path.ends_with("snapshot.json") && before.get(*path) != Some(text))
            .map(|(_, text)| serde_json::from_str::<Value>(text).expect("JSON"))
            .expect("a snapshot that is new");
        let mut masks = vec![(snapshot["id"].as_str().expect("an id").to_owned(), "ID")];
        if let Some(journal) = files.get("meta/_journal.json") {
            let journal: Value = serde_json::from_str(journal).expect("JSON");
            let last = journal["entries"].as_array().expect("entries").last().expect("an entry");
            masks.push((last["when"].to_string(), "WHEN"));
        }
        if prefix.len() >= 10 {
            masks.push((prefix.to_owned(), "TIME"));
        }
        let mask = |text: String| {
            masks.iter().fold(text, |text, (random, mask)| text.replace(random, mask))
        };
        files.into_iter().map(|(path, text)| (mask(path), mask(text))).collect()
    }
}

/// Has drizzle-kit add a migration to a copy, and us to another: all bytes are the same.
#[track_caller]
fn ours_is_as_drizzle_kits(project: &Project, settings: &[(&'static str, &str)]) {
    let before = project.files();
    let set = |copy: Project, &(name, value): &(&'static str, &str)| copy.env(name, value);
    let theirs = settings.iter().fold(project.copy(), set);
    let ours = project.copy();
    theirs.kit(&["generate", "--custom", "--name", "fill it, é"]);
    ours.new_migration("fill it, é");
    assert_eq!(ours.masked(&before), theirs.masked(&before), "{settings:?}");
}

#[test]
fn a_new_migration_for_0x_is_byte_for_byte_drizzle_kits() {
    // A schema with all that a snapshot can hold.
    let project = Project::new("v0");
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let copied = Command::new("cp").arg("-r").arg(embedded).arg(project.migrations()).status();
    assert!(copied.expect("cp").success());
    assert!(project.files().len() > 50);
    ours_is_as_drizzle_kits(&project, &[]);
}

#[test]
fn a_new_migration_for_0x_goes_on_with_the_projects_prefix_and_breakpoints() {
    let made = Project::new("v0");
    made.kit(&["generate", "--name", "init"]);
    for (style, prefix, breakpoints) in [
        ("index", "0000", "no"),
        ("timestamp", "20260131093000", "yes"),
        ("unix", "1769851800", "yes"),
        ("none", "", "yes"),
    ] {
        let project = Project::new("v0");
        for (path, text) in made.files() {
            let path = path.replace("0000_", &format!("{prefix}_"));
            let text = text.replace("0000_init", &format!("{prefix}_init"));
            let text = if breakpoints == "no" {
                text.replace(r#""breakpoints": true"#, r#""breakpoints": false"#)
            } else {
                text
            };
            project.folder.write(&format!("drizzle/{path}"), text);
        }
        ours_is_as_drizzle_kits(&project, &[("PREFIX", style), ("BREAKPOINTS", breakpoints)]);
    }
}

#[test]
fn the_first_migration_for_0x_is_byte_for_byte_drizzle_kits() {
    let project = Project::new("v0");
    let journal = r#"{"version":"7","dialect":"postgresql","entries":[]}"#;
    project.folder.write("drizzle/meta/_journal.json", journal);
    ours_is_as_drizzle_kits(&project, &[]);
}

#[test]
fn a_new_migration_for_1x_is_byte_for_byte_drizzle_kits() {
    let project = Project::new("v1");
    project.kit(&["generate", "--name", "init"]);
    ours_is_as_drizzle_kits(&project, &[]);
}

/// A project of 1.x in which two branches were merged, each with a migration from its schema.
fn merged(schema: &str, other_schema: &str) -> Project {
    let project = Project::new("v1");
    project.kit(&["generate", "--name", "init"]);
    let before = project.files();
    let branch = project.copy();
    branch.folder.write("schema.ts", other_schema);
    branch.kit(&["generate", "--name", "theirs"]);
    project.folder.write("schema.ts", schema);
    project.kit(&["generate", "--name", "ours"]);
    for end in ["migration.sql", "snapshot.json"] {
        let (path, text) = branch.new_file(&before, end);
        project.folder.write(&format!("drizzle/{path}"), text);
    }
    project
}

#[test]
fn branches_of_1x_are_joined_as_drizzle_kit_joins_them() {
    let teams = r#"export const teams = pgTable("teams", { id: integer("id") });"#;
    let project = merged(&format!("{USERS}{teams}"), USERS_WITH_EMAIL);
    ours_is_as_drizzle_kits(&project, &[]);
}

#[test]
fn branches_of_1x_that_drizzle_kit_does_not_join_are_refused() {
    let number = USERS_WITH_EMAIL.replace(r#"text("email")"#, r#"integer("email")"#);
    let project = merged(&number, USERS_WITH_EMAIL);
    let before = project.files();
    assert!(!project.run_kit(&["generate", "--custom", "--name", "x"]).status.success());
    let new = bare().args(&["new", "x", "--dir"]).arg(project.migrations());
    new.run().exits(65).says(&["change the same thing"]);
    assert_eq!(project.files(), before);
}

/// drizzle-kit makes the first and third migration, and an empty one; we make the second and
/// fourth. Then drizzle-kit checks, drizzle-orm applies, and each of us finds nothing to do.
fn drizzle_goes_on(generation: &'static str) {
    let database = Database::fresh();
    let project = Project::new(generation).env("DATABASE_URL", &database.url);
    project.kit(&["generate", "--name", "init"]);
    project.new_migration("fill");
    assert!(project.kit(&["generate"]).contains("No schema changes"));

    project.folder.write("schema.ts", USERS_WITH_EMAIL);
    let before = project.files();
    project.kit(&["generate", "--name", "email"]);
    let (_, sql) = project.new_file(&before, ".sql");
    assert_eq!(sql.trim_end(), r#"ALTER TABLE "users" ADD COLUMN "email" text;"#);
    project.new_migration("fill again");
    project.kit(&["generate", "--custom", "--name", "theirs"]);
    let check = project.kit(&["check"]);
    assert!(check.contains("Everything's fine"), "{check}");

    // Both of ours, with something in them.
    for (path, _) in project.files() {
        if path.contains("fill") && path.ends_with(".sql") {
            project.folder.write(
                &format!("drizzle/{path}"),
                "insert into users (id) select count(*) from users;",
            );
        }
    }
    let mut orm = Command::new("node");
    orm.arg(packages(generation).join("migrate.mjs")).arg(project.migrations()).arg(&database.url);
    let orm = output_of(&mut orm);
    assert!(orm.status.success(), "{}", String::from_utf8_lossy(&orm.stderr));
    assert_eq!(database.rows("select id, email from users order by id"), ["0|", "1|"]);
    assert_eq!(database.history().len(), 5);

    assert!(project.kit(&["migrate"]).contains("migrations applied successfully"));
    assert_eq!(database.history().len(), 5);
    bare()
        .env("DATABASE_URL", &database.url)
        .arg("--dir")
        .arg(project.migrations())
        .run()
        .exits(0)
        .says(&["up to date"]);
}

#[test]
fn drizzle_0x_goes_on_from_a_new_migration() {
    drizzle_goes_on("v0");
}

#[test]
fn drizzle_1x_goes_on_from_a_new_migration() {
    drizzle_goes_on("v1");
}

#[test]
fn a_new_plain_migration_is_the_next_to_run() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("009_init.sql", "create table log (what text)");
    let run = bare().args(&["new", "fill", "--dir"]).arg(&folder.path).run().exits(0);
    let created = folder.path.join("010_fill.sql");
    assert_eq!(run.stdout, format!("{}\n", created.display()));
    let text = std::fs::read_to_string(created).expect("text");
    folder.write("010_fill.sql", text + "insert into log values ('filled')");
    crate::harness::premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log"), ["filled"]);
}

#[test]
fn new_without_a_folder_or_with_an_impossible_name_is_refused() {
    bare().args(&["new", "x"]).run().exits(64).says(&["--dir DIR"]);
    let folder = Folder::empty();
    folder.write("1_a.sql", "");
    bare().args(&["new", "../x", "--dir"]).arg(&folder.path).run().exits(64).says(&["../x"]);
    assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 1);
}
