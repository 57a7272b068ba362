//! From 0.x to 1.x, and both on the same database.

use super::Drizzle::{V0, V1};
use super::{ALL, Contents, UP_TO_DATE, locked_down, rows, wiki};
use crate::harness::{Database, Folder, premigrate};

const HISTORY: &str = "drizzle.__drizzle_migrations";

#[test]
fn a_table_of_0x_is_upgraded_as_drizzle_orm_1x_does_it_once_something_is_pending() {
    let (old, first, all) = (wiki(V0, 10), wiki(V1, 10), wiki(V1, ALL));
    let (ours, theirs) = (Database::fresh(), Database::fresh());
    for database in [&ours, &theirs] {
        V0.migrate(database, &old).exits(0);
    }
    let before = Contents::of(&ours);
    premigrate(&ours, &first).run().exits(0).says(&["up to date, 10 applied"]);
    Contents::of(&ours).equals(&before);

    premigrate(&ours, &all).run().exits(0).does_not_say("out of order");
    V1.migrate(&theirs, &all).exits(0);
    let left = Contents::of(&theirs);
    Contents::of(&ours).equals(&left);
    V1.migrate(&ours, &all).exits(0);
    premigrate(&theirs, &all).run().exits(0).says(&[UP_TO_DATE]);
    Contents::of(&ours).equals(&left);
    Contents::of(&theirs).equals(&left);
}

#[test]
fn a_folder_of_0x_goes_on_in_a_table_of_1x_such_that_either_generation_finds_nothing_to_do() {
    let (database, all) = (Database::fresh(), wiki(V0, ALL));
    V0.migrate(&database, &wiki(V0, 10)).exits(0);
    V1.migrate(&database, &wiki(V1, 10)).exits(0);
    premigrate(&database, &all).run().exits(0).does_not_say("out of order");
    let left = Contents::of(&database);
    V1.migrate(&database, &wiki(V1, ALL)).exits(0);
    V0.migrate(&database, &all).exits(0);
    Contents::of(&database).equals(&left);
}

#[test]
fn what_drizzle_orm_1x_applied_is_known_to_a_folder_of_0x_though_its_own_drizzle_orm_runs_it_again()
{
    let (database, folder) = (Database::fresh(), wiki(V0, ALL));
    V1.migrate(&database, &wiki(V1, ALL)).exits(0);
    V0.migrate(&database, &folder).exits(1).says(&["already exists"]);
    premigrate(&database, &folder).run().exits(0).says(&[UP_TO_DATE]);

    folder.write("0000_teams_and_users.sql", "-- something else");
    premigrate(&database, &folder).run().exits(65).says(&["edited", "0000_teams_and_users.sql"]);
}

/// A folder of 1.x and rows of 0.x for it, of every kind that drizzle-orm finds a migration for.
fn upgradable(database: &Database) -> Folder {
    let folder = Folder::empty();
    for name in ["20260101090000_alone", "20260101090001_one", "20260101090001_two"] {
        folder.write(&format!("{name}/migration.sql"), format!("select '{name}'"));
    }
    for name in ["20260101090002_moved", "20260101090003_timeless", "20260101090004_pending"] {
        folder.write(&format!("{name}/migration.sql"), format!("select '{name}'"));
    }
    V0.migrate(database, &V0.folder(&[])).exits(0);
    for (name, when) in [
        ("20260101090000_alone", "1767258000123"),
        ("20260101090001_two", "1767258001999"),
        ("20260101090001_one", "1767258001000"),
        ("20260101090002_moved", "1700000000000"),
        ("20260101090003_timeless", "null"),
        ("20260101090000_alone", "1767258000123"),
    ] {
        database.execute(&format!(
            "insert into {HISTORY} (hash, created_at) values ('{}', {when})",
            folder.hash(&format!("{name}/migration.sql"))
        ));
    }
    folder
}

#[test]
fn rows_of_0x_get_the_names_that_drizzle_orm_1x_gives_them() {
    let (ours, theirs) = (Database::fresh(), Database::fresh());
    let folder = upgradable(&ours);
    V1.migrate(&theirs, &upgradable(&theirs)).exits(0);
    premigrate(&ours, &folder).run().exits(0).says(&["applied 20260101090004_pending"]);
    Contents::of(&ours).equals(&Contents::of(&theirs));
    let named =
        ours.value(&format!("select string_agg(substr(name, 16), ' ' order by id) from {HISTORY}"));
    assert_eq!(named, "alone two one moved timeless alone pending");
}

#[test]
fn a_row_of_0x_that_no_migration_accounts_for_stops_the_upgrade_but_not_a_start() {
    let database = Database::fresh();
    let folder = upgradable(&database);
    database.execute(&format!("insert into {HISTORY} (hash, created_at) values ('x', 1)"));
    let before = Contents::of(&database);
    V1.migrate(&database, &folder).exits(1).says(&["do not match any local migration"]);
    premigrate(&database, &folder).run().exits(65).says(&["0.x", "row 7 (created_at 1)"]);
    std::fs::remove_dir_all(folder.path.join("20260101090004_pending")).expect("a folder");
    V1.migrate(&database, &folder).exits(1).says(&["do not match any local migration"]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 5 applied"]);
    Contents::of(&database).equals(&before);
}

#[test]
fn a_table_that_is_not_ours_to_upgrade_is_named_with_the_statements_for_its_owner() {
    let database = Database::fresh();
    let folder = upgradable(&database);
    let (locked_down, role) = locked_down(&database);
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; grant select, insert on {HISTORY} to {role}; \
         grant usage on sequence {HISTORY}_id_seq to {role}"
    ));
    let before = Contents::of(&database);
    let run = premigrate(&locked_down, &folder).run().exits(77).says(&["42501", "add column"]);
    Contents::of(&database).equals(&before);

    // Whoever may runs what was said, line by line as it stands there.
    let statements: Vec<&str> =
        run.stderr.lines().map(str::trim).filter(|line| line.ends_with(';')).collect();
    database.execute(&statements.join("\n"));
    premigrate(&locked_down, &folder).run().exits(0).says(&["applied 20260101090004_pending"]);
    let left = rows(&database, HISTORY);
    V1.migrate(&database, &folder).exits(0);
    assert_eq!(rows(&database, HISTORY), left);
}

#[test]
fn a_folder_of_1x_without_a_time_is_refused_before_anything_runs() {
    for name in ["init", "0000_init", "20231114_init"] {
        let (database, folder) = (Database::fresh(), Folder::empty());
        folder.write(&format!("{name}/migration.sql"), "create table t (a int)");
        V1.migrate(&database, &folder).exits(1).says(&["NaN", "22P02"]);
        premigrate(&database, &folder).run().exits(65).says(&[name]);
    }
}

#[test]
fn a_folders_time_rolls_over_as_drizzle_orm_lets_it() {
    let (ours, theirs, folder) = (Database::fresh(), Database::fresh(), Folder::empty());
    folder.write("20231399999999_a/migration.sql", "create table a (a int)");
    folder.write("20240230250000_b/migration.sql", "create table b (a int)");
    folder.write("20241/migration.txt", "no migration");
    folder.write("snapshots only/snapshot.json", "{}");
    folder.write("meta/.keep", "");
    folder.write("loose.sql", "create table loose (a int)");
    V1.migrate(&theirs, &folder).exits(0);
    premigrate(&ours, &folder).run().exits(0);
    Contents::of(&ours).equals(&Contents::of(&theirs));
}

#[test]
fn a_folder_that_drizzle_kit_up_left_half_way_is_refused_by_both() {
    let (database, folder) = (Database::fresh(), wiki(V0, 1));
    folder.write("20260101090000_a/migration.sql", "create table a (a int)");
    V1.migrate(&database, &folder).exits(1).says(&["drizzle-kit up"]);
    premigrate(&database, &folder).run().exits(65).says(&["drizzle-kit up"]);
}
