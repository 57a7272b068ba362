//! Files that were renamed after a start had done a part of them, and those that only look so.

use super::PROGRESS;
use crate::harness::{Database, Folder, premigrate};

#[test]
fn the_progress_of_a_renamed_folder_is_found_again() {
    let database = Database::fresh();
    let sql = |last: &str| format!("create table t (a int);\ncommit;\n{last}");
    let folder = Folder::empty();
    folder.write("20261122180127_a/migration.sql", sql("select 1 / 0"));
    premigrate(&database, &folder).run().exits(70);
    std::fs::remove_dir_all(folder.path.join("20261122180127_a")).unwrap();
    folder.write("20261122180127_b/migration.sql", sql("select 1"));
    premigrate(&database, &folder).run().exits(0).says(&["1 of 2 steps already done"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_renamed_file_is_known_again_also_where_the_directive_was_added_to_it() {
    let before = "create table t (a int);\ninsert into log values ('once');";
    let database = begun(before);
    let folder = Folder::empty();
    let sql = format!("-- premigrate: no-transaction\n{before}\ncommit;\nselect 1");
    folder.write("20261122180127_b/migration.sql", sql);
    premigrate(&database, &folder).run().exits(0).says(&["1 of 3 steps already done"]);
    assert_eq!(database.value("select count(*) from log"), "1");
}

/// A database in which an earlier start has done what stands before a failure, in a folder that is
/// gone since.
fn begun(before: &str) -> Database {
    let database = Database::fresh();
    database.execute("create table log (what text)");
    let folder = Folder::empty();
    folder
        .write("20261122180127_password/migration.sql", format!("{before}\ncommit;\nselect 1 / 0"));
    premigrate(&database, &folder).run().exits(70);
    database
}

#[test]
fn what_was_done_is_not_done_again_where_nothing_else_is_left_of_the_file() {
    let insert = "insert into log values ('a');";
    let database = begun(insert);
    let folder = Folder::empty();
    folder.write("20261122180127_b/migration.sql", insert);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log"), ["a"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn files_that_begin_with_the_same_settings_are_not_taken_for_one_another() {
    let set = "set lock_timeout = '5s';\ncommit;";
    let database = begun(&format!("{set}\ninsert into log values ('a');"));
    let folder = Folder::empty();
    let other = format!("{set}\ninsert into log values ('b');");
    folder.write("20261122180127_b/migration.sql", other);
    premigrate(&database, &folder).run().exits(0).does_not_say("already done");
    assert_eq!(database.rows("select what from log"), ["a", "b"]);
}

#[test]
fn of_two_files_that_begin_as_a_lost_one_did_neither_is_run_before_a_person_has_chosen() {
    let insert = "insert into log values ('a');";
    let database = begun(insert);
    let folder = Folder::empty();
    for name in ["b", "c"] {
        let sql = format!("{insert}\ncommit;\ninsert into log values ('{name}')");
        folder.write(&format!("20261122180127_{name}/migration.sql"), sql);
    }
    let run = premigrate(&database, &folder).run().exits(65);
    let told = ["20261122180127_password was begun", "as 20261122180127_b, or as 20261122180127_c"];
    let run = run.says(&told);
    premigrate(&database, &folder).arg("--dry-run").run().exits(65);
    assert_eq!(database.rows("select what from log"), ["a"]);

    let is_choice = |line: &&str| line.contains("migration = '20261122180127_c' where");
    database.execute(run.stderr.lines().find(is_choice).unwrap());
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log order by what"), ["a", "a", "b", "c"]);
    assert_eq!(database.value(PROGRESS), "");
}
