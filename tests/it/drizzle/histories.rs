//! What stands in a journal and in the history, and what becomes of it here and there.
//!
//! Each test proves its fact on drizzle-orm before it says what premigrate does.

use super::Contents;
use super::Drizzle::{self, V0, V1};
use crate::harness::{Database, Folder, premigrate};

const A: (&str, &[u8]) = ("0000_a", b"create table a (a int)");
const B: (&str, &[u8]) = ("0001_b", b"create table b (a int)");
const C: (&str, &[u8]) = ("0002_c", b"create table c (a int)");

/// A database to which drizzle-orm has applied a folder.
fn applied(drizzle: Drizzle, folder: &Folder) -> Database {
    let database = Database::fresh();
    drizzle.migrate(&database, folder).exits(0);
    database
}

/// Fails the test unless a run of drizzle-orm ends well and changes nothing.
#[track_caller]
fn finds_nothing_to_do(drizzle: Drizzle, database: &Database, folder: &Folder) {
    let before = Contents::of(database);
    drizzle.migrate(database, folder).exits(0);
    Contents::of(database).equals(&before);
}

/// Fails the test unless premigrate finds everything applied, and changes nothing.
#[track_caller]
fn is_up_to_date(database: &Database, folder: &Folder, applied: usize) {
    let before = Contents::of(database);
    let up_to_date = format!("up to date, {applied} applied");
    premigrate(database, folder).run().exits(0).says(&[&up_to_date]);
    Contents::of(database).equals(&before);
}

/// Renames a migration of a folder.
fn rename(drizzle: Drizzle, folder: &Folder, place: usize, from: &str, to: &str) {
    let path = |name| folder.path.join(drizzle.file(place, name));
    match drizzle {
        V0 => {
            std::fs::rename(path(from), path(to)).expect("a file");
            folder.edit_journal(|entries| entries[place]["tag"] = to.into());
        }
        V1 => {
            let (from, to) = (path(from), path(to));
            std::fs::rename(from.parent().expect("a folder"), to.parent().expect("a folder"))
                .expect("a folder");
        }
    }
}

fn when(place: i64) -> i64 {
    1_700_000_000_000 + place * 1000
}

#[test]
fn a_file_that_was_edited_after_it_ran_is_refused_where_drizzle_orm_sees_nothing() {
    for drizzle in [V0, V1] {
        let folder = drizzle.folder(&[A, B]);
        let database = applied(drizzle, &folder);
        folder.write(&drizzle.file(0, A.0), "create table a (a bigint)");
        finds_nothing_to_do(drizzle, &database, &folder);
        premigrate(&database, &folder).run().exits(65).says(&["0000_a", "Restore", "accept"]);
    }
}

#[test]
fn a_file_whose_line_ends_a_checkout_changed_is_the_same_file() {
    for drizzle in [V0, V1] {
        let folder = drizzle.folder(&[("0000_a", b"create table a (\n  a int\n);\n")]);
        let database = applied(drizzle, &folder);
        folder.write(&drizzle.file(0, A.0), "create table a (\r\n  a int\r\n);\r\n");
        finds_nothing_to_do(drizzle, &database, &folder);
        is_up_to_date(&database, &folder, 1);
    }
}

#[test]
fn a_file_that_is_gone_is_missed_where_a_journal_names_it() {
    let folder = V0.folder(&[A, B]);
    let database = applied(V0, &folder);
    std::fs::remove_file(folder.path.join("0000_a.sql")).expect("a file");
    V0.migrate(&database, &folder).exits(1).says(&["No file", "0000_a.sql found in"]);
    premigrate(&database, &folder).run().exits(65).says(&["0000_a.sql is missing"]);

    let folder = V1.folder(&[A, B]);
    let database = applied(V1, &folder);
    std::fs::remove_file(folder.path.join(V1.file(0, A.0))).expect("a file");
    finds_nothing_to_do(V1, &database, &folder);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied", "0000_a"]);
}

#[test]
fn a_migration_that_was_renamed_is_not_run_again_though_drizzle_orm_1x_does() {
    let folder = V0.folder(&[A, B]);
    let database = applied(V0, &folder);
    rename(V0, &folder, 1, "0001_b", "0001_renamed");
    finds_nothing_to_do(V0, &database, &folder);
    is_up_to_date(&database, &folder, 2);

    let folder = V1.folder(&[A, B]);
    let database = applied(V1, &folder);
    rename(V1, &folder, 1, "0001_b", "0001_renamed");
    V1.migrate(&database, &folder).exits(1).says(&["relation \"b\" already exists", "42P07"]);
    is_up_to_date(&database, &folder, 2);
}

#[test]
fn a_migration_that_drizzle_orm_0x_skips_for_its_time_stamp_is_applied_and_reported() {
    let older = V0.folder(&[A]);
    older.add_at("0001_older", "create table older (a int)", when(-9));
    let equal = V0.folder(&[A]);
    equal.add_at("0001_equal", "create table equal (a int)", when(0));
    let far_future = V0.folder(&[]);
    far_future.add_at("0000_far", "create table far (a int)", 9_999_999_999_999);
    for (folder, late) in [(older, "0001_older"), (equal, "0001_equal"), (far_future, "0001_late")]
    {
        let all = std::fs::read(folder.path.join("meta/_journal.json")).expect("a journal");
        folder.edit_journal(|entries| entries.truncate(1));
        let database = applied(V0, &folder);
        if late == "0001_late" {
            folder.add_at("0001_late", "create table late (a int)", when(0));
        } else {
            folder.write("meta/_journal.json", all);
        }
        finds_nothing_to_do(V0, &database, &folder);
        let applied = format!("applied {late}");
        premigrate(&database, &folder).run().exits(0).says(&[&applied, "out of order"]);
        finds_nothing_to_do(V0, &database, &folder);
        is_up_to_date(&database, &folder, 2);
    }
}

#[test]
fn a_migration_of_1x_that_comes_late_is_applied_as_drizzle_orm_does() {
    let (all, early) = (V1.folder(&[A, B, C]), V1.folder(&[A, B, C]));
    std::fs::remove_file(early.path.join(V1.file(1, B.0))).expect("a file");
    let (ours, theirs) = (applied(V1, &early), applied(V1, &early));
    premigrate(&ours, &all).run().exits(0).says(&["0001_b", "out of order"]);
    V1.migrate(&theirs, &all).exits(0);
    Contents::of(&ours).equals(&Contents::of(&theirs));
}

#[test]
fn a_far_future_time_of_1x_skips_nothing() {
    let folder = Folder::empty();
    folder.write("99991231235959_far/migration.sql", "create table far (a int)");
    let (ours, theirs) = (applied(V1, &folder), applied(V1, &folder));
    folder.write("20260101090000_late/migration.sql", "create table late (a int)");
    folder.write("99991231235959_farther/migration.sql", "create table farther (a int)");
    V1.migrate(&theirs, &folder).exits(0);
    // It would come before all that the history knows.
    premigrate(&ours, &folder).run().exits(65).says(&["20260101090000_late", "--apply-older"]);
    premigrate(&ours, &folder).arg("--apply-older").run().exits(0).says(&["out of order"]);
    Contents::of(&ours).equals(&Contents::of(&theirs));
    finds_nothing_to_do(V1, &ours, &folder);
}

#[test]
fn the_journals_order_is_the_order_whatever_the_time_stamps() {
    let folder = V0.folder(&[]);
    folder.add_at("0000_a", "create table a (a int)", when(9));
    folder.add_at("0001_b", "alter table a add b int", when(3));
    folder.add_at("0002_c", "alter table a add c int", when(3));
    folder.add_at("0003_d", "alter table a rename b to d", when(7));
    let (ours, theirs) = (Database::fresh(), applied(V0, &folder));
    premigrate(&ours, &folder).run().exits(0).does_not_say("out of order");
    Contents::of(&ours).equals(&Contents::of(&theirs));
    is_up_to_date(&theirs, &folder, 4);
    finds_nothing_to_do(V0, &ours, &folder);
}

#[test]
fn of_a_journal_only_tags_and_time_stamps_count() {
    let folder = V0.folder(&[]);
    folder.add_at(
        "deep/0000_a",
        "create table a (a int)--> statement-breakpoint\nselect 1",
        when(0),
    );
    folder.add_at("no number", "create table b (a int)", when(1));
    folder.write("orphan.sql", "create table orphan (a int)");
    let entries = std::fs::read_to_string(folder.path.join("meta/_journal.json")).expect("text");
    let odd = entries
        .replace("\"7\"", "\"99\"")
        .replace("postgresql", "mysql")
        .replace("\"breakpoints\":true", "\"breakpoints\":false")
        .replace("\"idx\":0", "\"idx\":7")
        .replace("\"when\":1700000000000", "\"when\":\"1700000000000\"")
        .replace("\"when\":1700000001000", "\"when\":1700000001000.0");
    folder.write("meta/_journal.json", odd);
    let (ours, theirs) = (Database::fresh(), applied(V0, &folder));
    premigrate(&ours, &folder).run().exits(0);
    Contents::of(&ours).equals(&Contents::of(&theirs));
}

#[test]
fn a_time_stamp_that_is_none_is_refused_before_anything_runs() {
    for (when, refusal) in [
        (serde_json::json!(1.5), "invalid input syntax for type bigint"),
        (serde_json::json!("soon"), "invalid input syntax for type bigint"),
        (serde_json::Value::Null, "values($1, )"),
    ] {
        let (database, folder) = (Database::fresh(), V0.folder(&[A]));
        folder.edit_journal(|entries| {
            let entry = entries[0].as_object_mut().expect("an object");
            if when.is_null() {
                entry.remove("when");
            } else {
                entry.insert("when".to_owned(), when.clone());
            }
        });
        V0.migrate(&database, &folder).exits(1).says(&[refusal]);
        premigrate(&database, &folder).run().exits(65).says(&["`when` of 0000_a"]);
    }
}

#[test]
fn a_journal_with_a_byte_order_mark_is_read_though_drizzle_orm_cannot() {
    let (database, folder) = (Database::fresh(), V0.folder(&[A]));
    let journal = std::fs::read_to_string(folder.path.join("meta/_journal.json")).expect("text");
    folder.write("meta/_journal.json", format!("\u{feff}{journal}"));
    V0.migrate(&database, &folder).exits(1).says(&["SyntaxError"]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn no_migrations_are_nothing_to_do_and_no_table_is_made_for_them() {
    let (database, folder) = (Database::fresh(), V0.folder(&[]));
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 0 applied"]);
    assert_eq!(database.rows("select from pg_namespace where nspname = 'drizzle'"), [""; 0]);
    V0.migrate(&database, &folder).exits(0);
    is_up_to_date(&database, &folder, 0);
}

#[test]
fn a_row_without_a_time_stamp_is_known_by_its_hash_where_drizzle_orm_0x_runs_all_again() {
    let folder = V0.folder(&[A, B]);
    let database = applied(V0, &folder);
    database.execute("update drizzle.__drizzle_migrations set created_at = null where id = 1");
    V0.migrate(&database, &folder).exits(1).says(&["relation \"a\" already exists", "42P07"]);
    is_up_to_date(&database, &folder, 2);

    let folder = V1.folder(&[A, B]);
    let database = applied(V1, &folder);
    database.execute("update drizzle.__drizzle_migrations set created_at = null where id = 1");
    finds_nothing_to_do(V1, &database, &folder);
    is_up_to_date(&database, &folder, 2);
}

#[test]
fn untouched_custom_files_share_a_hash_and_are_still_one_migration_each() {
    const UNTOUCHED: &[u8] = b"-- Custom SQL migration file, put your code below! --";
    for drizzle in [V0, V1] {
        let folder = drizzle.folder(&[("0000_a", UNTOUCHED), ("0001_b", UNTOUCHED)]);
        let database = applied(drizzle, &folder);
        is_up_to_date(&database, &folder, 2);
        let folder =
            drizzle.folder(&[("0000_a", UNTOUCHED), ("0001_b", UNTOUCHED), ("0002_c", UNTOUCHED)]);
        premigrate(&database, &folder).run().exits(0).says(&["applied ", "0002_c"]);
        finds_nothing_to_do(drizzle, &database, &folder);
    }
}

#[test]
fn a_baseline_by_hand_asks_for_a_word_more() {
    let folder = V0.folder(&[A, B, C]);
    let database = Database::fresh();
    V0.migrate(&database, &V0.folder(&[])).exits(0);
    database.execute(&format!(
        "create table a (a int); create table b (a int); \
         insert into drizzle.__drizzle_migrations (hash, created_at) values ('{}', {})",
        folder.hash("0001_b.sql"),
        when(1)
    ));
    premigrate(&database, &folder).run().exits(65).says(&["0000_a", "baseline --through"]);
    premigrate(&database, &folder).args(&["baseline", "--through", "0001_b"]).run().exits(0);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0002_c"]);
    finds_nothing_to_do(V0, &database, &folder);

    // Where the hash was made up too, it is an edit like any other.
    database.execute("update drizzle.__drizzle_migrations set hash = 'x' where id = 1");
    finds_nothing_to_do(V0, &database, &folder);
    premigrate(&database, &folder).run().exits(65).says(&["0001_b", "accept"]);
    premigrate(&database, &folder).args(&["accept", "0001_b"]).run().exits(0);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 3 applied"]);
    finds_nothing_to_do(V0, &database, &folder);
}

#[test]
fn a_baseline_by_hand_in_a_table_of_1x_goes_by_its_names() {
    let folder = V1.folder(&[A, B, C]);
    let database = Database::fresh();
    V1.migrate(&database, &V1.folder(&[])).exits(0);
    database.execute("create table a (a int); create table b (a int)");
    for name in ["20260101090000_0000_a", "20260101090001_0001_b"] {
        database.execute(&format!(
            "insert into drizzle.__drizzle_migrations (hash, name) values ('', '{name}')"
        ));
    }
    premigrate(&database, &folder).run().exits(65).says(&["0000_a", "0001_b", "accept"]);
    premigrate(&database, &folder).args(&["accept", "--all"]).run().exits(0);
    premigrate(&database, &folder).run().exits(0).says(&["applied 20260101090002_0002_c"]);
    finds_nothing_to_do(V1, &database, &folder);

    // Rows without a name are none to drizzle-orm; here their time tells, or their hash.
    database.execute("update drizzle.__drizzle_migrations set name = null");
    V1.migrate(&database, &folder).exits(1).says(&["relation \"a\" already exists", "42P07"]);
    is_up_to_date(&database, &folder, 3);
}

#[test]
fn a_history_that_was_emptied_fails_at_the_first_table_and_names_the_cure() {
    for drizzle in [V0, V1] {
        let folder = drizzle.folder(&[A, B]);
        let database = applied(drizzle, &folder);
        let left = Contents::of(&database);
        database.execute("truncate drizzle.__drizzle_migrations");
        drizzle.migrate(&database, &folder).exits(1).says(&["42P07"]);
        premigrate(&database, &folder).run().exits(70).says(&["0000_a", "42P07", "baseline"]);
        premigrate(&database, &folder).arg("baseline").run().exits(0);
        Contents::of(&database).equals(&left);
        finds_nothing_to_do(drizzle, &database, &folder);
    }
}

#[test]
fn an_unknown_database_ends_both_at_once_and_a_server_that_is_down_is_waited_for() {
    for drizzle in [V0, V1] {
        ends_at_once_or_is_waited_for(drizzle, &drizzle.folder(&[A]));
    }
}

fn ends_at_once_or_is_waited_for(drizzle: Drizzle, folder: &Folder) {
    let fresh = Database::fresh();
    let unknown = Database::named("nowhere", crate::harness::with_database(&fresh.url, "nowhere"));
    drizzle.migrate(&unknown, folder).exits(1).says(&["3D000"]);
    premigrate(&unknown, folder).run().exits(77).says(&["nowhere"]);

    let down = Database::named("postgres", "postgres://postgres@127.0.0.1:1/postgres".to_owned());
    drizzle.migrate(&down, folder).exits(1).says(&["ECONNREFUSED"]);
    let run = premigrate(&down, folder).args(&["--wait", "400ms"]).run().exits(69);
    assert!(run.took.as_millis() >= 400, "it waited {:?}", run.took);
}
