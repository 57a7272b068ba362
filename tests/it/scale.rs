//! Files that are large, containers that are started again for ever, and two images that are rolled out
//! at once: memory stays in proportion, and in the end, each migration was applied once.

use std::path::Path;
use std::process::Command;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::container::{self, Image};
use crate::harness::{Database, Folder, LIMIT, Running, premigrate};
use crate::snapshot::masked;

/// The most memory that a run has needed, in bytes.
fn peak_memory(running: Running) -> usize {
    let (run, peak) = running.finish_with_peak(5 * LIMIT);
    run.exits(0);
    peak
}

/// How much more memory this migration needs than one that does nothing.
fn memory_for(sql: &str, args: &[&str]) -> usize {
    let memory = |sql| {
        let folder = Folder::drizzle0(&[("0000_sql", sql)]);
        peak_memory(premigrate(&Database::fresh(), &folder).args(args).start())
    };
    memory(sql).saturating_sub(memory("select 1"))
}

#[test]
fn rows_that_nobody_reads_need_no_memory() {
    let memory = memory_for("select repeat('x', 100000000); select repeat('y', 60000000)", &[]);
    assert!(memory < 8 << 20, "{memory}");
}

#[test]
fn a_file_is_held_once_while_its_data_is_copied() {
    let data = "a line of data that says nothing\n".repeat(1_000_000);
    let sql = format!("create table t (a text);\ncopy t from stdin;\n{data}");
    let memory = memory_for(&sql, &[]);
    assert!(memory < sql.len() + (8 << 20), "{memory} of {}", sql.len());
}

#[test]
fn many_statements_need_little_more_memory_than_their_text() {
    let sql = "insert into t values (1, 'a row of a table', 'and more of it than that');\n";
    let sql = sql.repeat(300_000);
    let memory = memory_for(&sql, &["--dry-run"]);
    assert!(memory < sql.len() / 5 * 6 + (8 << 20), "{memory} of {}", sql.len());
}

#[test]
fn many_files_need_the_memory_for_what_is_prepared_at_once() {
    let (small, large) = (Folder::empty(), Folder::empty());
    small.write("0000_log.sql", "create table log (what text)");
    large.write("0000_log.sql", "create table log (what text)");
    for number in 1..900 {
        let text = format!("{number:04}").repeat(8000);
        large.write(&format!("{number:04}_log.sql"), format!("insert into log values ('{text}')"));
    }
    let memory = |folder: &Folder, executable: Option<&Path>| {
        let database = Database::fresh();
        let run = |args: &[&str]| {
            let started = match executable {
                None => premigrate(&database, folder).args(args).start(),
                Some(executable) => {
                    let mut command = Command::new(executable);
                    command.env_clear().env("DATABASE_URL", &database.url).args(args);
                    Running::start(command)
                }
            };
            peak_memory(started)
        };
        COMMANDS.map(|command| run(&[command]))
    };
    // The last one has nothing to do.
    const COMMANDS: [&str; 4] = ["list", "--dry-run", "up", "up"];
    let assert_small = |from: &str, [small, large]: [[usize; COMMANDS.len()]; 2]| {
        for ((command, small), large) in COMMANDS.into_iter().zip(small).zip(large) {
            assert!(
                large < small + (20 << 20),
                "{command} of a {from}: {large} of 29 MB, and {small} of nothing"
            );
        }
    };
    assert_small("folder", [&small, &large].map(|folder| memory(folder, None)));

    let bundle = |folder: &Folder| {
        let path = folder.path.join("bundle");
        let make = premigrate(&Database::fresh(), folder).args(&["bundle", "--output"]).arg(&path);
        (peak_memory(make.start()), path)
    };
    let [(made_small, of_small), (made_large, of_large)] = [&small, &large].map(bundle);
    assert!(made_large < made_small + (16 << 20), "bundle: {made_large}, and {made_small}");
    assert_small("bundle", [memory(&small, Some(&of_small)), memory(&large, Some(&of_large))]);
}

/// The processor time of a run, in hundredths of a second.
fn processor_time(mut running: Running) -> u64 {
    let pid = Pid::from_raw(i32::try_from(running.pid()).unwrap());
    // It is left to be waited for, since its statistics end with that.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert!(running.child.try_wait().unwrap().is_some());
    running.finish().exits(0);
    // In user mode, and in the kernel.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_long_history_takes_time_and_memory_in_proportion_to_its_length() {
    let costs = |count: usize| {
        let (database, folder) = (Database::fresh(), Folder::empty());
        for number in 0..count {
            folder.write(&format!("{number:05}_m.sql"), format!("select {number}"));
        }
        let start = |command: &str| premigrate(&database, &folder).arg(command).start();
        start("baseline").finish().exits(0);
        let as_recorded = processor_time(start("up"));
        let memory = peak_memory(start("up"));
        // Now only their hashes tell which migrations the rows record.
        database.execute("update drizzle.__drizzle_migrations set name = name || ' renamed'");
        ([as_recorded, processor_time(start("up")), processor_time(start("status"))], memory)
    };
    let ((few, memory_of_few), (many, memory_of_many)) = (costs(1500), costs(6000));
    for (few, many) in few.into_iter().zip(many) {
        assert!(many < 8 * few.max(5), "{many} of four times as many, and {few}");
    }
    let more = (memory_of_many - memory_of_few) / 4500;
    assert!(more < 3000, "{more} bytes for each");
}

#[test]
fn a_long_statement_is_in_memory_less_often_than_in_psql() {
    let sql = format!("create table t (a text); insert into t values ('{}')", "x".repeat(40 << 20));
    let memory = memory_for(&sql, &[]);
    assert!(memory < 3 * sql.len() + (8 << 20), "{memory} of {}", sql.len());
}

#[test]
fn a_file_of_inserts_is_held_once_while_it_runs() {
    let row = "a row of a table, and more of it, and more of it, and more of it. ".repeat(15);
    let sql = format!(
        "create table t (a text);\n{}",
        format!("insert into t values ('{row}');\n").repeat(30_000)
    );
    let memory = memory_for(&sql, &[]);
    assert!(memory < sql.len() / 5 * 6 + (8 << 20), "{memory} of {}", sql.len());
}

/// Starts it again and again: it does the same each time, and nothing grows.
fn fails_the_same_each_time(
    database: &Database,
    code: i32,
    start: impl Fn() -> Running,
    says: impl Fn(&str) -> String,
) {
    let again = || {
        let run = start().finish().exits(code);
        assert_eq!(run.stdout, "");
        assert_eq!(database.leftovers(), Vec::<String>::new());
        let mut sizes = vec![
            database.value("select count(*) from pg_class where oid >= 16384"),
            database.value("select count(*) from drizzle.__drizzle_migrations"),
        ];
        let progress = "drizzle.__drizzle_migrations_progress";
        if database.value(&format!("select to_regclass('{progress}') is not null")) == "t" {
            sizes.push(database.value(&format!("select count(*) from {progress}")));
        }
        (says(&run.stderr), sizes)
    };
    // The first start may apply what comes before.
    start().finish().exits(code);
    let first = again();
    for _ in 0..4 {
        assert_eq!(again(), first);
    }
}

/// A transaction that fails, and a step of a split migration that does.
fn broken() -> [Folder; 2] {
    let log = ("0000_log", "create table log (what text)");
    let double = "insert into log values ('double'), ('double');\ncommit;\n\
        create unique index concurrently log_what on log (what)";
    [
        Folder::drizzle0(&[log, ("0001_broken", "insert into log values ('half');\nselect 1/0")]),
        Folder::drizzle0(&[log, ("0001_split", double)]),
    ]
}

#[test]
fn what_fails_for_ever_leaves_nothing_and_says_the_same_each_time() {
    for folder in broken() {
        let database = Database::fresh();
        let start = || premigrate(&database, &folder).args(&["--", "echo", "started"]).start();
        fails_the_same_each_time(&database, 70, start, str::to_owned);
        let half = database.rows("select what from log where what = 'half'");
        assert_eq!(half, Vec::<String>::new());
    }
}

#[test]
fn what_meets_a_lock_for_ever_leaves_nothing_and_says_the_same_each_time() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_add", "alter table log add column more int");
    let mut holder = database.holding("lock table log");
    let args = ["--lock-timeout", "1500ms", "--lock-retries", "0", "--", "echo", "started"];
    let start = || premigrate(&database, &folder).args(&args).start();
    fails_the_same_each_time(&database, 75, start, masked);
    holder.batch_execute("rollback").unwrap();
}

#[test]
#[ignore = "scripts/image builds the image, and runs this"]
fn a_container_that_fails_for_ever_leaves_nothing_and_says_the_same_each_time() {
    for folder in broken() {
        let (database, image) = (Database::fresh(), Image::with(&folder));
        let start = || Running::start(container(&image, &database));
        fails_the_same_each_time(&database, 70, start, str::to_owned);
    }
}

/// A container whose app says `premigrate`, and its version.
fn container(image: &Image, database: &Database) -> Command {
    let mut command = container::run(&image.name, &[]);
    command.args(["--", "/premigrate", "--version"]).env("DATABASE_URL", &database.url);
    command
}

/// The older set of migrations, and the newer.
fn releases() -> [Folder; 2] {
    let tags = [
        ("0000_log", "create table log (what text)"),
        ("0001_one", "insert into log values ('one')"),
        ("0002_newer", "alter table log add column newer int"),
    ];
    [Folder::drizzle0(&tags[..2]), Folder::drizzle0(&tags)]
}

/// Starts the older release (o) and the newer one (n) in this order: all at once, and then one
/// after the other.
fn ends_with_the_newer_schema(
    database: &Database,
    order: &str,
    start: impl Fn(char) -> Running,
    says: &str,
) {
    let runs: Vec<_> = order.chars().map(&start).collect();
    for run in runs.into_iter().chain(order.chars().map(start)) {
        let run = run.finish().exits(0);
        assert!(run.stdout.starts_with(says), "{order}: {}", run.stdout);
    }
    assert_eq!(database.rows("select what, newer from log"), ["one|"], "{order}");
    assert_eq!(database.history().len(), 3, "{order}");
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn two_releases_that_start_in_any_order_end_with_the_newer_schema_and_both_apps_running() {
    let [older, newer] = releases();
    for order in ["on", "no", "onno", "noon", "oonnoonn"] {
        let database = Database::fresh();
        let start = |which| {
            let folder = if which == 'n' { &newer } else { &older };
            premigrate(&database, folder).args(&["--", "echo", "on"]).start()
        };
        ends_with_the_newer_schema(&database, order, start, "on\n");
    }
}

#[test]
#[ignore = "scripts/image builds the image, and runs this"]
fn two_images_whose_containers_start_in_any_order_end_with_the_newer_schema() {
    let [older, newer] = releases().map(|folder| Image::with(&folder));
    for order in ["on", "no", "onno"] {
        let database = Database::fresh();
        let start = |which| {
            let image = if which == 'n' { &newer } else { &older };
            Running::start(container(image, &database))
        };
        ends_with_the_newer_schema(&database, order, start, "premigrate ");
    }
}
