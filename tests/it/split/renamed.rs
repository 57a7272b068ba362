//! Progress of migrations that are not in the set any more: renamed or removed.

use premigrate::apply::lock;

use super::PROGRESS;
use crate::harness::{Database, Folder, premigrate};

const INSERT: &str = "insert into log values ('a');";

/// A database in which a start has done the first of two steps, of a migration whose folder is gone
/// since.
fn partly_applied() -> Database {
    let database = Database::fresh();
    database.execute("create table log (what text)");
    let folder = Folder::empty();
    let sql = format!("{INSERT}\ncommit;\nselect 1 / 0");
    folder.write("20261122180127_password/migration.sql", sql);
    premigrate(&database, &folder).run().exits(70);
    database
}

fn renamed() -> Folder {
    let folder = Folder::empty();
    let sql = format!("{INSERT}\ncommit;\ninsert into log values ('b')");
    folder.write("20261122180127_b/migration.sql", sql);
    folder
}

/// The statement of this kind that the report asks a person to run.
fn statement(report: &str, kind: &str) -> String {
    let is_it = |line: &&str| line.trim_start().starts_with(kind);
    report.lines().find(is_it).unwrap_or_else(|| panic!("{report}")).to_owned()
}

#[test]
fn nothing_runs_while_a_partly_applied_migration_is_not_in_the_set() {
    let (database, folder) = (partly_applied(), renamed());
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&["some partly applied migrations are missing", "20261122180127_password"]);
    premigrate(&database, &folder).arg("--dry-run").run().exits(65);
    assert_eq!(database.rows("select what from log"), ["a"]);
}

#[test]
fn a_migration_that_is_not_in_the_set_may_be_the_work_of_another_runner() {
    let (database, folder) = (partly_applied(), renamed());
    let other = database.holding(&lock::take_sql());
    let run = premigrate(&database, &folder).args(&["--runner-wait", "0"]).run().exits(75);
    run.does_not_say("partly applied");
    drop(other);
}

#[test]
fn a_renamed_migration_goes_on_once_its_progress_has_the_new_name() {
    let (database, folder) = (partly_applied(), renamed());
    let run = premigrate(&database, &folder).run().exits(65);
    let rename = statement(&run.stderr, "update").replace("NEW NAME", "20261122180127_b");
    database.execute(&rename);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log order by what"), ["a", "b"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_migration_runs_from_its_first_step_once_the_progress_is_deleted() {
    let (database, folder) = (partly_applied(), renamed());
    let run = premigrate(&database, &folder).run().exits(65);
    database.execute(&statement(&run.stderr, "delete"));
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log order by what"), ["a", "a", "b"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn an_image_in_which_nothing_is_pending_starts_beside_a_partly_applied_migration() {
    let database = Database::fresh();
    let log = ("0000_log", "create table log (what text)");
    let split = ("0001_split", "insert into log values ('a');\ncommit;\nselect 1 / 0");
    let old = Folder::drizzle0(&[log]);
    premigrate(&database, &old).run().exits(0);
    premigrate(&database, &Folder::drizzle0(&[log, split])).run().exits(70);
    premigrate(&database, &old).run().exits(0);
}
