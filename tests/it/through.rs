//! `up --through`.

use expect_test::expect;

use crate::harness::{Database, Folder, Premigrate, premigrate};

fn three() -> Folder {
    Folder::drizzle0(&[
        ("0000_a", "create table a ()"),
        ("0001_b", "create table b ()"),
        ("0002_c", "create table c ()"),
    ])
}

fn through(database: &Database, folder: &Folder, name: &str) -> Premigrate {
    premigrate(database, folder).args(&["--through", name, "--", "echo", "started"])
}

#[test]
fn up_goes_up_to_and_including_a_migration_and_becomes_the_app() {
    let (database, folder) = (Database::fresh(), three());
    let run = through(&database, &folder, "0001_b").run().exits(0);
    assert_eq!(run.stdout, "started\n");
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: applying migrations up to 0001_b only; 1 later migration stays pending
        premigrate: applied 0000_a in TIME
        premigrate: applied 0001_b in TIME
        premigrate: applied 2 migrations in TIME
        premigrate: starting echo
    "#]]);
    assert_eq!(database.tables(), ["a", "b"]);
    // As the container is started again.
    let run = through(&database, &folder, "0001_b").run().exits(0);
    assert_eq!(run.stdout, "started\n");
    run.says(&["1 later migration stays pending", "up to date, 2 applied"]);
    through(&database, &folder, "0002_c").run().exits(0).does_not_say("stay");
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn a_later_migration_is_not_looked_at() {
    let (database, folder) = (Database::fresh(), three());
    folder.add("0003_broken", "rollback; select 1");
    premigrate(&database, &folder).run().exits(65);
    through(&database, &folder, "0002_c").run().exits(0);
    assert_eq!(database.history().len(), 3);
}

#[test]
fn a_migration_that_the_database_is_past_is_refused() {
    let (database, folder) = (Database::fresh(), three());
    through(&database, &folder, "0001_b").run().exits(0);
    for dry_run in [&[][..], &["--dry-run"]] {
        let run = premigrate(&database, &folder).args(&["--through", "0000_a"]).args(dry_run);
        run.run().exits(64).stderr_is(expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: --through names 0000_a, but 0001_b comes after it and is applied already, or to be recorded first; nothing was run. Name a later migration, or leave out --through
        "#]]);
    }
    let run = through(&database, &folder, "0000_a").run().exits(64);
    assert_eq!(run.stdout, "");
    assert_eq!(database.history().len(), 2);
}

#[test]
fn what_is_missing_before_it_is_applied_even_if_a_later_one_was() {
    let (database, folder) = (Database::fresh(), three());
    premigrate(&database, &folder).run().exits(0);
    let hash = folder.hash("0001_b.sql");
    database.execute(&format!(
        "delete from drizzle.__drizzle_migrations where hash = '{hash}'; drop table b"
    ));
    through(&database, &folder, "0001_b").run().exits(0).says(&["applying 0001_b out of order"]);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn a_name_that_no_migration_has_is_refused_before_the_database_is_asked() {
    let (database, folder) = (Database::fresh(), three());
    let nowhere = database.through(1);
    for args in [&["up"][..], &["baseline"], &["--dry-run"]] {
        let run = premigrate(&nowhere, &folder).args(args).args(&["--through", "0009_x"]).run();
        run.exits(64).says(&["no migration is named 0009_x"]);
    }
    let run = premigrate(&nowhere, &folder).args(&["--through", "0000_a"]);
    let run = run.args(&["--baseline-through", "0001_b"]).run().exits(64);
    run.says(&["--through names 0000_a, but 0001_b comes after it"]);
    premigrate(&database, &folder).args(&["--through", ""]).run().exits(78);
    assert_eq!(database.tables(), [] as [String; 0]);
}

#[test]
fn a_dry_run_shows_what_is_applied_up_to_a_migration() {
    let (database, folder) = (Database::fresh(), three());
    let run = premigrate(&database, &folder).args(&["--dry-run", "--through", "0001_b"]).run();
    let run = run
        .exits(0)
        .says(&["applying migrations up to 0001_b only; 1 later migration stays pending"]);
    assert!(run.stdout.contains("0001_b") && !run.stdout.contains("0002_c"), "{}", run.stdout);
}
