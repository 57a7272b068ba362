//! Beside the real drizzle-orm and drizzle-kit, from npm: each can go on where the other stopped.
//!
//! What they leave in a database is compared as it is, dump and history rows, never by counts.

mod adopt;
mod embedded;
mod example;
mod files;
mod generated;
mod histories;
mod interop;
mod kit;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::harness::{
    Database, Folder, LIMIT, Run, needs, output_of_within, output_within, unique,
};

/// A generation of Drizzle.
#[derive(Clone, Copy, Debug)]
pub enum Drizzle {
    /// drizzle-orm 0.45, drizzle-kit 0.31.
    V0,
    /// drizzle-orm and drizzle-kit 1.0.
    V1,
}

impl Drizzle {
    /// The folder in which its packages are installed.
    fn home(self) -> PathBuf {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drizzle").join(match self {
            Drizzle::V0 => "v0",
            Drizzle::V1 => "v1",
        });
        assert!(
            home.join("node_modules").is_dir(),
            "the packages are missing: run `npm ci` in {}",
            home.display()
        );
        home
    }

    /// Runs drizzle-orm's migrator.
    pub fn migrate(self, database: &Database, folder: &Folder) -> Run {
        self.migrate_in(database, folder, &[])
    }

    /// Runs drizzle-orm's migrator with a table, and perhaps a schema, of the history's own.
    fn migrate_in(self, database: &Database, folder: &Folder, table: &[&str]) -> Run {
        finish(self.migrator(database, folder).args(table))
    }

    pub fn migrator(self, database: &Database, folder: &Folder) -> Command {
        let mut command = node();
        command.arg(self.home().join("migrate.mjs")).arg(&folder.path).arg(&database.url);
        command
    }

    /// Runs drizzle-kit in a project; the database is for its configuration.
    fn kit(self, project: &Path, args: &[&str], database: Option<&Database>) -> Run {
        let mut command = node();
        command.arg(self.home().join("node_modules/drizzle-kit/bin.cjs")).args(args);
        command.envs(database.map(|database| ("DATABASE_URL", &database.url)));
        finish(command.current_dir(project)).exits(0)
    }

    /// A migrations folder in its layout, each migration a second after the one before.
    pub fn folder(self, migrations: &[(&str, &[u8])]) -> Folder {
        let folder = match self {
            Drizzle::V0 => Folder::drizzle0(&[]),
            Drizzle::V1 => Folder::empty(),
        };
        for (place, (name, sql)) in migrations.iter().enumerate() {
            if let Drizzle::V0 = self {
                folder.add(name, "");
            }
            folder.write(&self.file(place, name), sql);
        }
        folder
    }

    /// The path of a migration in such a folder.
    fn file(self, place: usize, name: &str) -> String {
        match self {
            Drizzle::V0 => format!("{name}.sql"),
            Drizzle::V1 => format!("202601010900{place:02}_{name}/migration.sql"),
        }
    }
}

/// Node, with nothing in its environment but `PATH`.
fn node() -> Command {
    needs("Node");
    let mut command = Command::new("node");
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    command
}

/// Runs a command to its end.
fn finish(command: &mut Command) -> Run {
    finish_within(LIMIT, command)
}

/// The same, where it may well take longer.
fn finish_within(limit: Duration, command: &mut Command) -> Run {
    let started = Instant::now();
    Run::from_output(output_of_within(limit, command), started.elapsed())
}

/// A session that writes to the history.
pub const WRITES_HISTORY: &str = "select from pg_locks where mode = 'RowExclusiveLock' \
    and relation = 'drizzle.__drizzle_migrations'::regclass";

/// How many migrations the wiki has.
const ALL: usize = 27;

/// What is said when they have all been applied.
const UP_TO_DATE: &str = "up to date, 27 applied";

/// The wiki's first migrations, in the layout of this generation.
fn wiki(drizzle: Drizzle, count: usize) -> Folder {
    /// The wiki after `drizzle-kit up`: paths and contents, in order.
    static UP: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
        let folder = wiki(Drizzle::V0, ALL);
        Drizzle::V1.kit(&folder.path, &["up", "--dialect", "postgresql", "--out", "."], None);
        let names = std::fs::read_dir(&folder.path).expect("a folder").flatten();
        let paths = names.map(|name| name.file_name().display().to_string() + "/migration.sql");
        let mut files: Vec<_> = paths
            .map(|path| (path.clone(), std::fs::read(folder.path.join(path)).expect("a file")))
            .collect();
        files.sort();
        assert_eq!(files.len(), ALL);
        files
    });

    let folder = Folder::empty();
    match drizzle {
        Drizzle::V0 => {
            copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"), &folder.path);
            folder.edit_journal(|entries| {
                assert_eq!(entries.len(), ALL);
                entries.truncate(count);
            });
        }
        Drizzle::V1 => {
            for (path, sql) in UP.iter().take(count) {
                folder.write(path, sql);
            }
        }
    }
    folder
}

/// Copies a folder's files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy");
        }
    }
}

/// The database, as a new role sees it that may do nothing yet.
fn locked_down(database: &Database) -> (Database, String) {
    let role = unique("role");
    database.execute(&format!(
        "create role {role} login password 'secret'; \
         revoke create on database {} from public; \
         revoke create on schema public from public",
        database.name
    ));
    let (_, place) = database.url.rsplit_once('@').expect("a user");
    let url = format!("postgres://{role}:secret@{place}");
    (database.at(url), role)
}

/// Lets four runs of drizzle-orm meet in the migration that waits for the table `gate`.
fn race(drizzle: Drizzle, database: &Database, folder: &Folder) {
    database.execute("create table gate (a int)");
    let mut client = database.client();
    let mut gate = client.transaction().expect("a transaction");
    gate.batch_execute("lock table gate").expect("a lock");
    let racers = [(); 4].map(|()| drizzle.migrator(database, folder).spawn().expect("a run"));
    database.wait_for(
        "four runs at the gate",
        "select from pg_locks where relation = 'gate'::regclass and not granted \
         having count(*) = 4",
    );
    gate.commit().expect("an open gate");
    for racer in racers {
        assert!(output_within(LIMIT, racer).status.success());
    }
}

/// What is in a database, line by line: its dump, and the history's rows.
#[derive(PartialEq)]
struct Contents(Vec<String>);

impl Contents {
    fn of(database: &Database) -> Contents {
        Contents::with_history(database, "drizzle", "__drizzle_migrations")
    }

    /// The same with the history in another place. Its `id`s count failed runs too, and
    /// `applied_at` is the clock's: neither is compared.
    fn with_history(database: &Database, schema: &str, table: &str) -> Contents {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let dump = finish(
            Command::new(pg_dump())
                .arg("--dbname")
                .arg(&database.url)
                .arg(format!("--exclude-table-data={}.*", quoted(schema))),
        )
        .exits(0);
        let lines = dump.stdout.lines();
        // Comments name versions, \restrict a random key.
        let noise = ["--", "\\restrict", "\\unrestrict"];
        let mut contents: Vec<String> = lines
            .filter(|line| !line.is_empty() && !noise.iter().any(|noise| line.starts_with(noise)))
            .map(str::to_owned)
            .collect();
        contents.extend(rows(database, &format!("{}.{}", quoted(schema), quoted(table))));
        Contents(contents)
    }

    /// Fails the test unless both are the same, line for line.
    #[track_caller]
    fn equals(&self, other: &Contents) {
        let missing = |from: &Contents, than: &Contents| {
            let lines = from.0.iter().filter(|line| !than.0.contains(line)).cloned();
            lines.collect::<Vec<_>>().join("\n")
        };
        assert!(
            self == other,
            "they differ; only in the first:\n{}\nonly in the second:\n{}",
            missing(self, other),
            missing(other, self)
        );
    }
}

/// The history's rows: hash, created_at, name, and whether the time of applying is unknown.
fn rows(database: &Database, table: &str) -> Vec<String> {
    database.rows(&format!(
        "select hash, created_at, to_jsonb(t) ->> 'name', (to_jsonb(t) ->> 'applied_at') is null \
         from {table} t order by id"
    ))
}

/// The newest pg_dump there is: one that is older than the server refuses to work.
fn pg_dump() -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(debian).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| debian.join(format!("{version}/bin/pg_dump")).is_file())
        .max();
    newest.map_or_else(
        || PathBuf::from("pg_dump"),
        |newest| debian.join(format!("{newest}/bin/pg_dump")),
    )
}
