//! Folders of other tools, and what else may stand in a folder: nothing is run that its author did
//! not mean to run.

use crate::harness::{Database, Folder, bare, premigrate};

/// A table with rows, which a way back would drop.
fn database_with_users() -> Database {
    let database = Database::fresh();
    database.execute("create table users as select generate_series(1, 10) as id");
    database
}

/// `up` and `check` refuse the folder with these words, and the users are still there.
#[track_caller]
fn keeps_the_users(folder: &Folder, words: &[&str]) {
    let database = database_with_users();
    let run = premigrate(&database, folder).args(&["--", "echo", "started"]).run().exits(65);
    let run = run.says(words).says(&["The app was not started."]);
    assert_eq!(run.stdout, "");
    assert_eq!(database.value("select count(*) from users"), "10");
    let check = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
    for word in words {
        assert!(check.stdout.contains(word), "{word}:\n{}", check.stdout);
    }
}

const UP: &str = "create table if not exists users (id int);\n";
const DOWN: &str = "drop table users;\n";

#[test]
fn a_down_section_of_another_tool_is_refused_before_anything_runs() {
    for (up, down, tool) in [
        ("-- migrate:up", "-- migrate:down", ", of dbmate"),
        ("-- +goose Up", "-- +goose Down", ", of goose"),
        ("-- +migrate Up", "-- +migrate Down", ", of sql-migrate"),
        ("-- rambler up", "-- rambler down", ", of rambler"),
        ("-- users", "---- create above / drop below ----", ", of tern"),
        ("-- Up Migration", "-- Down Migration", ", of node-pg-migrate"),
        ("-- ==== UP ====", "-- ==== DOWN ====", ""),
    ] {
        let folder = Folder::empty();
        folder.write("0001_first.sql", "create table first ();");
        folder.write("0002_users.sql", format!("{up}\n{UP}{down}\n{DOWN}"));
        let section = format!("contains a down section (`{down}`{tool})");
        keeps_the_users(&folder, &["0002_users.sql:3:1", &section]);
    }
}

#[test]
fn a_down_file_of_another_tool_is_refused_before_anything_runs() {
    for (up, down, tool) in [
        ("1_users.up.sql", "1_users.down.sql", ", as of golang-migrate or sqlx"),
        ("V1__users.sql", "U1__users.sql", ", as of Flyway"),
        ("001.do.users.sql", "001.undo.users.sql", ", as of Postgrator"),
        ("0001.users.sql", "0001.users.rollback.sql", ", as of yoyo"),
        ("1-users-up.sql", "1-users-down.sql", ""),
        ("up.sql", "down.sql", ", as of golang-migrate or sqlx"),
        // Only one file is of that kind.
        ("0001_users.sql", "0007_other.down.sql", ", as of golang-migrate or sqlx"),
    ] {
        let folder = Folder::empty();
        folder.write(up, UP);
        folder.write(down, DOWN);
        keeps_the_users(&folder, &[down, &format!("is a down migration by its name{tool}")]);
    }
}

#[test]
fn down_migrations_beside_those_of_drizzle_kit_are_not_run() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_users", UP)]);
    folder.write("0000_users.down.sql", DOWN);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_users"]);
    assert_eq!(database.tables(), ["users"]);
}

#[test]
fn an_applied_migration_of_drizzle_with_a_down_section_does_not_stop_later_ones() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_users", UP)]);
    premigrate(&database, &folder).run().exits(0);
    let both = format!("{UP}-- migrate:down\n{DOWN}");
    folder.write("0000_users.sql", &both);
    premigrate(&database, &folder).args(&["accept", "--all"]).run().exits(0);
    folder.add("0001_next", "create table next ()");
    premigrate(&database, &folder).run().exits(0).says(&["applied 0001_next"]);
    folder.add("0002_both", &both);
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&["0002_both.sql:2:1 contains a down section"]);
}

#[test]
fn a_name_or_a_comment_that_is_only_similar_runs() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("0001_scale_up.sql", "create table a ();\n-- migrate:down\n-- drop table a;\n");
    folder.write("0002_scale_down.sql", "-- down\ncreate table b ();");
    folder.write("U_turns.sql", "create table c (t text default '\n-- migrate:down\n');");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}
