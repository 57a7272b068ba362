//! What the server says while migrations run.

use expect_test::expect;

use crate::harness::{Database, Folder, premigrate};

const RAISES: &str = "create table if not exists t (a int); create table if not exists t ();
create view v as select * from t; drop table t cascade; drop table if exists nothing;
do $$ begin
  raise notice E'first\\nsecond \\x1b[31m' using detail = 'why', hint = 'do this';
  raise warning 'careful';
  raise info 'by the way';
end $$;";

fn raises() -> Folder {
    Folder::drizzle0(&[("0000_a", RAISES)])
}

#[test]
fn notices_and_warnings_are_shown_with_their_migration() {
    let folder = raises();
    let run = premigrate(&Database::fresh(), &folder).run().exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: NOTICE: drop cascades to view v
        premigrate: 0000_a: NOTICE: first
            second \u{1b}[31m
          DETAIL: why
          HINT: do this
        premigrate: 0000_a: WARNING: careful
        premigrate: applied 0000_a in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
}

#[test]
fn a_statement_outside_a_transaction_has_its_notices_too() {
    let sql = "-- premigrate: no-transaction\ndo $$ begin raise notice 'alone'; end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&Database::fresh(), &folder).run().exits(0).says(&["0000_a: NOTICE: alone\n"]);
}

#[test]
fn a_migration_that_fails_shows_its_notices_before_the_failure() {
    let sql = "do $$ begin raise notice 'a hint'; end $$; select nothing";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&Database::fresh(), &folder).run().exits(70);
    let (before, _) = run.stderr.split_once("0000_a failed").expect("a failure");
    assert!(before.contains("0000_a: NOTICE: a hint"), "{}", run.stderr);
}

#[test]
fn the_level_decides_which_notices_are_shown() {
    for (level, shown) in [
        ("none", &[][..]),
        ("warning", &["careful"]),
        ("notice", &["careful", "first", "cascades"]),
        ("info", &["careful", "first", "cascades", "by the way", "already exists, skipping"]),
    ] {
        let folder = raises();
        let database = Database::fresh();
        let run = premigrate(&database, &folder);
        let stderr = run.env("PREMIGRATE_NOTICES", level).run().exits(0).stderr;
        for words in ["careful", "first", "cascades", "by the way", "already exists, skipping"] {
            assert_eq!(stderr.contains(words), shown.contains(&words), "{level}: {stderr}");
        }
        assert_eq!(stderr.contains("does not exist, skipping"), level == "info", "{stderr}");
    }
    let folder = raises();
    let wrong = premigrate(&Database::fresh(), &folder).args(&["--notices", "all"]).run();
    wrong.exits(78).says(&["--notices must be none, warning, notice or info"]);
}

#[test]
fn json_has_an_object_for_each_notice() {
    let folder = Folder::drizzle0(&[("0000_a", "do $$ begin raise warning 'w'; end $$")]);
    let run = premigrate(&Database::fresh(), &folder).arg("--format=json").run().exits(0);
    assert_eq!(
        run.events()[2],
        serde_json::json!({
            "event": "notice", "migration": "0000_a", "severity": "WARNING", "sqlstate": "01000",
            "message": "w", "detail": null, "hint": null,
        })
    );
}

#[test]
fn a_flood_of_notices_is_counted_and_warnings_still_get_through() {
    let sql = "do $$ begin for i in 1..100000 loop raise notice '%', i; end loop;
        raise warning 'the end'; end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&Database::fresh(), &folder).run().exits(0);
    assert_eq!(run.stderr.matches("NOTICE").count(), 50);
    run.says(&["0000_a: WARNING: the end", "0000_a: 99950 more notices not shown"]);
}

#[test]
fn a_notice_is_shown_while_the_migration_still_runs() {
    let database = Database::fresh();
    let sql = "do $$ begin raise notice 'begun'; end $$; select pg_advisory_xact_lock(7)";
    let blocker = database.holding("select pg_advisory_lock(7)");
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).args(&["--lock-timeout", "0"]).start();
    run.wait_to_say("0000_a: NOTICE: begun");
    drop(blocker);
    run.finish().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn a_password_in_a_notice_is_masked() {
    let sql = "do $$ begin raise notice 'create role a password ''s3cr3t'''; end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&Database::fresh(), &folder).run().exits(0);
    run.says(&["NOTICE: create role a password"]).does_not_say("s3cr3t");
}

/// A trigger that warns at each row of the history.
const WARNS: &str = "create function warn() returns trigger language plpgsql as
    $$ begin raise warning 'a row'; return new; end $$;
    create trigger warns before insert on drizzle.__drizzle_migrations
    for each row execute function warn()";

#[test]
fn a_warning_at_the_history_row_is_shown_also_where_nothing_else_is_written() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    database.execute(WARNS);
    folder.add("0001_b", "select 1");
    premigrate(&database, &folder).run().exits(0).says(&["0001_b: WARNING: a row\n"]);
    folder.add("0002_c", "select 1");
    let run = premigrate(&database, &folder).arg("baseline").run().exits(0);
    run.says(&["premigrate: the history update: WARNING: a row\n"]);
}

#[test]
fn what_is_skipped_because_it_is_there_or_is_not_is_only_shown_with_everything() {
    let sql = "create table t (a int);
        create table if not exists t (); create index if not exists i on t (a);
        create index if not exists i on t (a); alter table t add column if not exists a int;
        create schema if not exists public; create type e as enum ('a');
        alter type e add value if not exists 'a'; create extension if not exists plpgsql;
        drop role if exists no_such_role; alter table t drop column if exists z;
        alter table t drop constraint if exists z; alter table t alter a drop identity if exists;
        alter table if exists nothing add b int; alter table if exists nothing rename to b;
        alter table if exists nothing rename column a to b;
        alter table if exists nothing set schema b; alter sequence if exists nothing restart;
        drop trigger if exists x on t; drop function if exists x(); drop index if exists x;
        drop user mapping if exists for postgres server nothing; drop subscription if exists x";
    let shown = |level: &str| {
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let database = Database::fresh();
        let run = premigrate(&database, &folder).args(&["--notices", level]);
        run.run().exits(0).stderr.matches("NOTICE").count()
    };
    assert_eq!(shown("notice"), 0);
    assert_eq!(shown("info"), 20);
}
