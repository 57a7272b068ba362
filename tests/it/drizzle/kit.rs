//! A project that uses drizzle-kit: it generates, premigrate applies.

use std::path::{Path, PathBuf};

use super::Drizzle::{V0, V1};
use super::{Contents, UP_TO_DATE, copy};
use crate::harness::{Database, Folder, Premigrate, Run, bare};

/// The wiki's schema, its migrations and the packages, laid out as in the repository.
pub struct Project {
    root: Folder,
}

impl Project {
    pub fn new() -> Project {
        let root = Folder::empty();
        for file in ["drizzle.config.ts", "schema.ts", "package.json"] {
            let content = std::fs::read(V0.home().join(file)).expect("a file");
            root.write(&format!("tests/drizzle/v0/{file}"), content);
        }
        let packages = V0.home().join("node_modules");
        std::os::unix::fs::symlink(packages, root.path.join("tests/drizzle/v0/node_modules"))
            .expect("a link");
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"),
            &root.path.join("migrations"),
        );
        Project { root }
    }

    pub fn migrations(&self) -> PathBuf {
        self.root.path.join("migrations")
    }

    /// Adds a column to the schema's first table, and has drizzle-kit generate the migration.
    pub fn add_column(&self, name: &str) {
        let path = self.root.path.join("tests/drizzle/v0/schema.ts");
        let schema = std::fs::read_to_string(&path).expect("a schema");
        let first = "name: text(\"name\").notNull(),\n";
        assert!(schema.contains(first), "the schema has a column like this");
        let both = format!("{first}    {name}: text(\"{name}\"),\n");
        std::fs::write(path, schema.replacen(first, &both, 1)).expect("a schema");
        self.kit(&["generate", "--name", name], None);
    }

    /// Runs drizzle-kit.
    pub fn kit(&self, args: &[&str], database: Option<&Database>) -> Run {
        V0.kit(&self.root.path.join("tests/drizzle/v0"), args, database)
    }

    /// premigrate, on the project's migrations.
    pub fn premigrate(&self, database: &Database) -> Premigrate {
        bare().env("DATABASE_URL", &database.url).arg("--dir").arg(self.migrations())
    }
}

#[test]
fn what_drizzle_kit_generates_is_applied_and_drizzle_kit_finds_nothing_left_to_do() {
    let (database, project) = (Database::fresh(), Project::new());
    project.kit(&["migrate"], Some(&database));
    project.premigrate(&database).run().exits(0).says(&[UP_TO_DATE]);

    project.add_column("motto");
    project.premigrate(&database).run().exits(0).says(&["applied 0027_motto"]);
    database.execute("insert into teams (name, slug, motto) values ('a', 'a', 'b')");
    let left = Contents::of(&database);
    project.kit(&["migrate"], Some(&database));
    Contents::of(&database).equals(&left);
}

/// The first start of a team that comes from drizzle-kit, with the `.env` that the project has: a
/// database that drizzle-kit migrated, an app behind premigrate.
#[test]
fn the_first_start_on_a_database_that_drizzle_kit_migrated_changes_nothing_and_starts_the_app() {
    let (database, project) = (Database::fresh(), Project::new());
    project.kit(&["migrate"], Some(&database));
    let before = Contents::of(&database);
    project.root.write(".env", format!("DATABASE_URL={}\nSECRET=s\n", database.url));
    let start = bare().current_dir(&project.root.path).args(&["--dir", "migrations", "--"]);
    let run = start.args(&["sh", "-c", "echo the app, secret=$SECRET, url=$DATABASE_URL"]).run();
    let run = run.exits(0).says(&[UP_TO_DATE, "starting sh"]);
    assert_eq!(run.stdout, "the app, secret=, url=\n", "nothing of .env reaches the app");
    Contents::of(&database).equals(&before);
}

#[test]
fn what_drizzle_kit_pull_records_without_running_it_is_applied() {
    let (database, project) = (Database::fresh(), Folder::empty());
    project.write(
        "drizzle.config.ts",
        r#"export default {
          dialect: "postgresql", out: "./drizzle", dbCredentials: { url: process.env.DATABASE_URL },
        };"#,
    );
    database.execute("create table a (a int primary key); create table b (a int references a)");
    V1.kit(&project.path, &["pull", "--init"], Some(&database));
    let left = Contents::of(&database);
    let premigrate = bare().env("DATABASE_URL", &database.url).arg("--dir");
    premigrate.arg(project.path.join("drizzle")).run().exits(0).says(&["up to date, 1 applied"]);
    V1.kit(&project.path, &["migrate"], Some(&database));
    Contents::of(&database).equals(&left);
}

/// What check finds in a folder.
fn checked(folder: &Path) -> String {
    bare().args(&["check", "--dir"]).arg(folder).run().exits(0).stdout
}

#[test]
fn two_merged_branches_of_0x_are_told_because_drizzle_kit_stops() {
    let [project, branch] = ["motto", "slogan"].map(|column| {
        let project = Project::new();
        project.add_column(column);
        project
    });
    let folder = project.migrations();
    assert!(!checked(&folder).contains("[two-heads]"));
    for (from, to) in [
        ("0027_slogan.sql", "0028_slogan.sql"),
        ("meta/0027_snapshot.json", "meta/0028_snapshot.json"),
    ] {
        std::fs::copy(branch.migrations().join(from), folder.join(to)).expect("a copy");
    }
    let journal = folder.join("meta/_journal.json");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let entries = value["entries"].as_array_mut().expect("entries");
    let mut entry = entries.last().expect("an entry").clone();
    entry["idx"] = 28.into();
    entry["tag"] = "0028_slogan".into();
    entry["when"] = (entry["when"].as_i64().expect("a time") + 1).into();
    entries.push(entry);
    std::fs::write(journal, value.to_string()).expect("a journal");

    let generate = project.kit(&["generate"], None);
    assert!(generate.stdout.contains("which is a collision"), "{}", generate.stdout);
    let found = checked(&folder);
    let head = "meta/0028_snapshot.json: warning: the snapshot follows the same one as \
                meta/0027_snapshot.json";
    assert!(found.contains(head), "{found}");
}

#[test]
fn two_merged_branches_of_1x_are_told_until_drizzle_kit_joins_them() {
    let project = Folder::empty();
    std::os::unix::fs::symlink(V1.home().join("node_modules"), project.path.join("node_modules"))
        .expect("a link");
    let generate = |tables: &[&str], out: &str| {
        let tables = tables.iter().map(|table| {
            format!("export const {table} = pg.pgTable({table:?}, {{ a: pg.text() }});")
        });
        let schema = tables.collect::<Vec<_>>().join("\n");
        project.write(
            "schema.ts",
            format!("import * as pg from \"drizzle-orm/pg-core\";\n{schema}\n"),
        );
        let args = ["generate", "--dialect", "postgresql", "--schema", "schema.ts", "--out", out];
        V1.kit(&project.path, &args, None);
    };
    let [ours, theirs] = ["ours", "theirs"].map(|name| project.path.join(name));
    generate(&["a"], "ours");
    copy(&ours, &theirs);
    generate(&["a", "b"], "ours");
    assert!(!checked(&ours).contains("[two-heads]"));
    generate(&["a", "c"], "theirs");
    copy(&theirs, &ours);
    let found = checked(&ours);
    assert!(found.contains("nothing follows this snapshot and "), "{found}");
    generate(&["a", "b", "c", "d"], "ours");
    assert!(!checked(&ours).contains("[two-heads]"));
}
