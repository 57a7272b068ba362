//! drizzle-orm and premigrate on the same database, one after the other, in either generation.

use std::thread;
use std::time::Duration;

use super::Drizzle::{V0, V1};
use super::{ALL, Contents, UP_TO_DATE, WRITES_HISTORY, locked_down, race, rows, wiki};
use crate::harness::{Database, Folder, LIMIT, output_within, premigrate};

#[test]
fn the_wiki_is_left_as_drizzle_orm_leaves_it_and_either_finds_nothing_left_to_do() {
    for drizzle in [V0, V1] {
        let (ours, theirs) = (Database::fresh(), Database::fresh());
        let folder = wiki(drizzle, ALL);
        premigrate(&ours, &folder).run().exits(0);
        drizzle.migrate(&theirs, &folder).exits(0);
        let left = Contents::of(&theirs);
        Contents::of(&ours).equals(&left);

        premigrate(&theirs, &folder).run().exits(0).says(&[UP_TO_DATE]);
        drizzle.migrate(&ours, &folder).exits(0);
        Contents::of(&ours).equals(&left);
        Contents::of(&theirs).equals(&left);
    }
}

#[test]
fn either_goes_on_where_the_other_stopped() {
    for drizzle in [V0, V1] {
        let (first, all) = (wiki(drizzle, 10), wiki(drizzle, ALL));
        let (ours_last, theirs_last) = (Database::fresh(), Database::fresh());
        drizzle.migrate(&ours_last, &first).exits(0);
        premigrate(&ours_last, &all).run().exits(0).does_not_say("out of order");
        premigrate(&theirs_last, &first).run().exits(0);
        drizzle.migrate(&theirs_last, &all).exits(0);
        Contents::of(&ours_last).equals(&Contents::of(&theirs_last));
    }
}

#[test]
fn the_history_is_found_wherever_drizzle_orm_keeps_it() {
    let (schema, table) = (r#"My "odd" schema"#, "mig.table");
    let ours = |database: &Database, folder: &Folder| {
        premigrate(database, folder).args(&["--schema", schema, "--table", table]).run().exits(0)
    };
    let contents = |database: &Database| Contents::with_history(database, schema, table);
    for drizzle in [V0, V1] {
        let (first, all) = (wiki(drizzle, 1), wiki(drizzle, 2));
        let (theirs, both) = (Database::fresh(), Database::fresh());
        drizzle.migrate_in(&theirs, &all, &[table, schema]).exits(0);
        ours(&theirs, &all).says(&["up to date, 2 applied"]);
        ours(&both, &first);
        drizzle.migrate_in(&both, &all, &[table, schema]).exits(0);
        contents(&both).equals(&contents(&theirs));
    }
}

#[test]
fn a_role_that_may_not_create_can_start_and_apply_where_drizzle_orm_cannot() {
    let migrations: [(&str, &[u8]); 2] =
        [("0000_a", b"create table a (a int)"), ("0001_b", b"create table app.b (a int)")];
    for drizzle in [V0, V1] {
        let (first, all) = (drizzle.folder(&migrations[..1]), drizzle.folder(&migrations));
        let database = Database::fresh();
        drizzle.migrate(&database, &first).exits(0);
        let (locked_down, role) = locked_down(&database);
        database.execute(&format!(
            "create schema app authorization {role}; \
             grant usage on schema drizzle to {role}; \
             grant select, insert on drizzle.__drizzle_migrations to {role}; \
             grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}"
        ));

        drizzle.migrate(&locked_down, &first).exits(1).says(&["permission denied", "42501"]);
        premigrate(&locked_down, &first).run().exits(0).says(&["up to date, 1 applied"]);
        premigrate(&locked_down, &all).run().exits(0).says(&["applied ", "0001_b"]);
        let left = Contents::of(&database);
        drizzle.migrate(&database, &all).exits(0);
        Contents::of(&database).equals(&left);
    }
}

#[test]
fn what_racing_drizzle_orm_runs_left_behind_does_no_harm() {
    let migrations: [(&str, &[u8]); 2] = [
        ("0000_gated", b"lock table gate in share mode"),
        ("0001_next", b"create table t (a int)"),
    ];
    for drizzle in [V0, V1] {
        let (first, all) = (drizzle.folder(&migrations[..1]), drizzle.folder(&migrations));
        let database = Database::fresh();
        drizzle.migrate(&database, &drizzle.folder(&[])).exits(0);
        race(drizzle, &database, &first);
        let left = rows(&database, "drizzle.__drizzle_migrations");
        assert_eq!(left, vec![left[0].clone(); 4], "drizzle-orm takes no lock");

        premigrate(&database, &first).run().exits(0).says(&["up to date, 1 applied"]);
        let status = premigrate(&database, &first).arg("status").run().exits(0);
        assert_eq!(
            status.stdout.matches("records the same migration as another row").count(),
            3,
            "{}",
            status.stdout
        );
        premigrate(&database, &all).run().exits(0).says(&["applied ", "0001_next"]);
        premigrate(&database, &all).run().exits(0).says(&["up to date, 2 applied"]);
    }
}

#[test]
fn what_a_running_drizzle_orm_has_begun_to_record_is_applied_once() {
    let insert = |what: &str| format!("insert into log values ('{what}'); select pg_sleep(0.2)");
    let [a, b, c] = ["a", "b", "c"].map(insert);
    let migrations: [(&str, &[u8]); 4] = [
        ("0000_log", b"create table log (what text)"),
        ("0001_a", a.as_bytes()),
        ("0002_b", b.as_bytes()),
        ("0003_c", c.as_bytes()),
    ];
    for (drizzle, may_lock) in [(V0, true), (V0, false), (V1, true), (V1, false)] {
        let (first, all) = (drizzle.folder(&migrations[..1]), drizzle.folder(&migrations));
        for race in 0..3 {
            let database = Database::fresh();
            drizzle.migrate(&database, &first).exits(0);
            let ours = match may_lock {
                true => database.direct(),
                false => {
                    let (limited, role) = locked_down(&database);
                    database.execute(&format!(
                        "grant usage on schema drizzle to {role}; grant insert on log to {role}; \
                         grant select, insert on drizzle.__drizzle_migrations to {role}; \
                         grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}"
                    ));
                    limited
                }
            };
            let theirs = drizzle.migrator(&database, &all).spawn().expect("a run");
            database.wait_for("its first row", WRITES_HISTORY);
            thread::sleep(Duration::from_millis(130) * race);
            premigrate(&ours, &all).run().exits(0);
            assert!(output_within(LIMIT, theirs).status.success());
            let applied = database.rows("select what from log order by what");
            assert_eq!(applied, ["a", "b", "c"], "{drizzle:?} {may_lock} {race}");
            assert_eq!(database.history().len(), 4);
        }
    }
}

#[test]
fn names_that_share_a_second_are_ordered_as_drizzle_orm_orders_them() {
    let names = "a A ä á z Z ā å zz a_1 a-1 a.1 a1 a10 a2 A2 aB Ab ab AB a_b a-b a~b a+b a b B \
                 e é E É ø o O ö ñ n N 1 10 2 _ - ! # $ % & ( ) = ^ { } [ ] ; , @ ` \
                 résumé resume Resume résume";
    let names: std::collections::BTreeSet<&str> = names.split(' ').collect();
    let folder = Folder::empty();
    for name in names {
        let sql = format!("insert into ran (name) values ($_${name}$_$)");
        folder.write(&format!("20260101090000_{name}/migration.sql"), sql);
    }
    let (ours, theirs) = (Database::fresh(), Database::fresh());
    for database in [&ours, &theirs] {
        database.execute("create table ran (id serial, name text)");
    }
    V1.migrate(&theirs, &folder).exits(0);
    premigrate(&ours, &folder).run().exits(0);
    let ran = |database: &Database| database.rows("select name from ran order by id");
    assert_eq!(ran(&ours), ran(&theirs));
    Contents::of(&ours).equals(&Contents::of(&theirs));
}

#[test]
fn a_name_whose_order_is_unclear_is_refused_only_where_it_matters() {
    let (database, folder) = (Database::fresh(), Folder::empty());
    folder.write("20260101090000_имя/migration.sql", "create table a (a int)");
    folder.write("20260101090001_b/migration.sql", "create table b (a int)");
    premigrate(&database, &folder).run().exits(0).says(&["applied 20260101090000_имя"]);
    folder.write("20260101090000_c/migration.sql", "create table c (a int)");
    premigrate(&database, &folder).run().exits(65).says(&["20260101090000_имя", "rename it"]);
}
