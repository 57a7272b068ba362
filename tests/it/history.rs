//! The history: `status`, `baseline`, `accept`, what `up` refuses, and roles with few privileges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::expect;

use crate::harness::{Database, Folder, Premigrate, Run, output_of, premigrate};
use crate::proxy::{Action, Proxy};

const HISTORY: &str = "select * from drizzle.__drizzle_migrations order by id";

/// Three tables, three migrations.
fn abc() -> Folder {
    Folder::drizzle0(&[
        ("0000_a", "create table a ()"),
        ("0001_b", "create table b ()"),
        ("0002_c", "create table c ()"),
    ])
}

/// Two folders as drizzle-kit 1.x makes them.
fn abc_of_1x() -> Folder {
    let folder = Folder::empty();
    for (name, table) in [("20231114221320_a", "a"), ("20231114221321_b", "b")] {
        folder.write(&format!("{name}/migration.sql"), format!("create table {table} ()"));
    }
    folder
}

fn plain() -> Folder {
    let folder = Folder::empty();
    folder.write("1_a.sql", "create table a ()");
    folder.write("2_b.sql", "create table b ()");
    folder
}

fn up(database: &Database, folder: &Folder) -> Run {
    premigrate(database, folder).run()
}

#[test]
fn rows_that_cannot_be_read_back_are_not_written_again_and_again() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &Folder::drizzle0(&[])).exits(0);
    command(&database, &folder, &["baseline", "--through", "0000_a"]).exits(0);
    database.execute(
        "create function hide() returns trigger language plpgsql as \
         $$ begin update drizzle.__drizzle_migrations set hash = 'hidden', created_at = null where id = new.id; \
         return null; end $$; \
         create trigger hide after insert on drizzle.__drizzle_migrations \
         for each row execute function hide()",
    );
    command(&database, &folder, &["baseline"]).exits(75).says(&["kept changing"]);
    assert_eq!(database.history().len(), 3);
}

/// The columns of Drizzle 0.x.
const COLUMNS: &str = "(id serial primary key, hash text not null, created_at bigint)";

#[test]
fn what_rows_cannot_be_written_to_is_refused_as_the_history_before_anything_runs() {
    let history = "drizzle.__drizzle_migrations";
    let view = format!("create table t {COLUMNS}; create view {history} as table t");
    let materialized = view.replace("create view", "create materialized view");
    let foreign = format!(
        "create extension file_fdw; create server s foreign data wrapper file_fdw; create foreign \
         table {history} (id int, hash text, created_at bigint) server s options (filename '/dev/null')"
    );
    let with_rule = |action: &str| {
        format!(
            "create table {history} {COLUMNS}; create table t {COLUMNS}; \
             create rule \"Odd\" as on insert to {history} do {action}"
        )
    };
    for (problem, sql) in [
        ("it is a view", view),
        ("it is a materialized view", materialized),
        ("it is a foreign table", foreign),
        ("it has rules for INSERT (\"Odd\")", with_rule("instead nothing")),
        ("it has rules for INSERT (\"Odd\")", with_rule("also insert into t (hash) values ('x')")),
        (
            "it has rules for INSERT (\"Odd\")",
            with_rule("instead insert into t (hash) values (new.hash) returning t.*"),
        ),
    ] {
        let (database, folder) = (Database::fresh(), abc());
        database.execute(&format!("create schema drizzle; {sql}"));
        let run = up(&database, &folder).exits(65).says(&[problem, "nothing was run"]);
        let tables = database.tables();
        assert!(!tables.contains(&"a".to_owned()), "{}", run.stderr);
        command(&database, &folder, &["baseline"]).exits(65).says(&[problem]);
    }
}

#[test]
fn a_rule_that_is_dropped_or_about_something_else_does_no_harm() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[]);
    database.execute(
        "create rule dropped as on insert to drizzle.__drizzle_migrations do instead nothing; \
         drop rule dropped on drizzle.__drizzle_migrations; \
         create rule keep as on delete to drizzle.__drizzle_migrations do instead nothing",
    );
    up(&database, &folder).exits(0);
    up(&database, &folder).exits(0).says(&["up to date"]);
}

#[test]
fn a_partitioned_history_works() {
    let (database, folder) = (Database::fresh(), abc());
    database.execute(&format!(
        "create schema drizzle; \
         create table drizzle.__drizzle_migrations {COLUMNS} partition by range (id); \
         create table drizzle.rest partition of drizzle.__drizzle_migrations default"
    ));
    up(&database, &folder).exits(0);
    up(&database, &folder).exits(0).says(&["up to date"]);
}

#[test]
fn a_server_that_has_no_xmin_is_refused_before_anything_runs() {
    // Without a history, and with one.
    for query in ["select xmin from pg_catalog", "select xmin, * from"] {
        let (database, folder) = (Database::fresh(), abc());
        if query.contains('*') {
            history_of_0x(&database, &[]);
        }
        let proxy = Proxy::start(move |message| match message.text.contains(query) {
            // Such a server fails so.
            true => Action::ReplaceWith("select xmin from (select) none"),
            false => Action::Pass,
        });
        let run = up(&proxy.to(&database), &folder).exits(78);
        run.says(&[
            "the server is one without the system column xmin; premigrate needs PostgreSQL",
        ]);
        assert_eq!(database.tables(), [""; 0]);
    }
}

fn command(database: &Database, folder: &Folder, command: &[&str]) -> Run {
    premigrate(database, folder).args(command).run()
}

fn status(database: &Database, folder: &Folder) -> String {
    command(database, folder, &["status"]).exits(0).stdout
}

/// A table as Drizzle 0.x makes it, with these rows.
fn history_of_0x(database: &Database, rows: &[(&str, i64)]) {
    database.execute(
        "create schema drizzle; create table drizzle.__drizzle_migrations \
         (id serial primary key, hash text not null, created_at bigint)",
    );
    for (hash, created_at) in rows {
        add_row(database, hash, *created_at);
    }
}

fn add_row(database: &Database, hash: &str, created_at: i64) {
    database.execute(&format!(
        "insert into drizzle.__drizzle_migrations (hash, created_at) values ('{hash}', {created_at})"
    ));
}

/// When the first, second, ... migration of a folder of 0.x was generated.
const WHEN: [i64; 3] = [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_000];

// status

#[test]
fn status_lists_every_migration_and_every_unmatched_row() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    add_row(&database, &folder.hash("0000_a.sql"), WHEN[0]);
    add_row(&database, "gone", 1_600_000_000_000);
    folder.write("0001_b.sql", "create table b (id int)");
    folder.add("0003_d", "create table d ()");
    assert_eq!(
        status(&database, &folder),
        "0000_a  applied\n\
         0001_b  edited\n\
         0002_c  applied\n\
         0003_d  pending\n\
         row 4 (created_at 1700000000000) records the same migration as another row\n\
         row 5 (created_at 1600000000000) matches no migration\n\
         2 applied, 1 edited, 1 pending\n"
    );
}

#[test]
fn status_marks_migrations_that_are_out_of_order() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(
        &database,
        &[(&folder.hash("0000_a.sql"), WHEN[0]), (&folder.hash("0002_c.sql"), WHEN[2])],
    );
    assert!(status(&database, &folder).contains("0001_b  pending, out of order\n"));
}

#[test]
fn status_shows_ambiguous_rows_and_up_refuses_them() {
    let (database, folder) = (Database::fresh(), Folder::drizzle0(&[]));
    folder.add_at("0000_a", "create table a ()", 5000);
    folder.add_at("0001_b", "create table b ()", 5000);
    history_of_0x(&database, &[("neither", 5000)]);
    let shown = status(&database, &folder);
    assert!(shown.contains("0000_a  ambiguous\n0001_b  ambiguous\n"), "{shown}");
    assert!(shown.contains("row 1 (created_at 5000) could record several migrations\n"), "{shown}");
    assert!(shown.ends_with("0 applied, 0 edited, 0 pending, 2 ambiguous\n"), "{shown}");
    command(&database, &folder, &["status", "--exit-code"]).exits(65);
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: ambiguous history: row 1 (created_at 5000) could record 0000_a or 0001_b; nothing was run. Restore the files as they were applied, and give each new migration its own timestamp and content
    "#]]);
    command(&database, &folder, &["baseline"]).exits(65);
    command(&database, &folder, &["accept", "--all"]).exits(65);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn status_shows_when_a_migration_was_applied_if_the_table_has_it() {
    for folder in [abc_of_1x(), plain()] {
        let database = Database::fresh();
        up(&database, &folder).exits(0);
        database.execute(
            "set timezone = 'UTC'; update drizzle.__drizzle_migrations \
             set applied_at = now() - interval '3 days 1 hour' where id = 1; \
             update drizzle.__drizzle_migrations set applied_at = null where id = 2",
        );
        let shown = status(&database, &folder);
        let lines: Vec<_> = shown.lines().collect();
        let day = database
            .value("select (now() at time zone 'UTC' - interval '3 days 1 hour')::date::text");
        assert!(lines[0].contains(&format!("applied  {day}T")), "{shown}");
        assert!(lines[0].ends_with("(3 days ago)"), "{shown}");
        assert!(lines[1].ends_with("  applied"), "an upgraded row does not know: {shown}");
    }
}

#[test]
fn status_in_json_is_one_object_per_line_with_the_same_facts() {
    let (database, folder) = (Database::fresh(), plain());
    up(&database, &folder).exits(0);
    add_row(&database, "gone", 1);
    folder.write("2_b.sql", "edited");
    folder.write("3_c.sql", "select 3");
    let run = command(&database, &folder, &["status", "--format", "json"]).exits(0);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["applied", "edited", "pending", "unknown"]);
    assert_eq!(lines[0]["migration"], "1_a");
    assert!(lines[0]["applied_at"].as_str().unwrap().starts_with("20"));
    assert!(lines[0]["seconds_ago"].as_u64().unwrap() < 60);
    assert!(lines[2]["applied_at"].is_null() && lines[2]["seconds_ago"].is_null());
    assert_eq!((&lines[3]["row"], &lines[3]["created_at"]), (&3.into(), &1.into()));
}

#[test]
fn status_exits_with_0_unless_exit_code_is_given() {
    let (database, folder) = (Database::fresh(), abc());
    let asked = |code: i32| command(&database, &folder, &["status", "--exit-code"]).exits(code);
    asked(10);
    command(&database, &folder, &["status"]).exits(0);
    up(&database, &folder).exits(0);
    asked(0);
    folder.add("0003_d", "create table d ()");
    asked(10);
    folder.write("0000_a.sql", "edited");
    asked(65);
    command(&database, &folder, &["status"]).exits(0);
}

#[test]
fn status_exits_with_65_where_up_would_refuse() {
    let asked = |database: &Database, folder: &Folder, code: i32| {
        command(database, folder, &["status", "--exit-code"]).exits(code);
        command(database, folder, &["status"]).exits(0);
    };
    // A history of something else.
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[("other", WHEN[0] - 1)]);
    up(&database, &folder).exits(65);
    asked(&database, &folder, 65);
    // A migration that cannot be run.
    let (database, folder) = (Database::fresh(), abc());
    folder.add("0003_d", "rollback");
    up(&database, &folder).exits(65);
    asked(&database, &folder, 65);
    // A step that was edited after it was done.
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ();\ncommit;\nselect 1 / 0")]);
    up(&database, &folder).exits(70);
    asked(&database, &folder, 10);
    folder.write("0000_a.sql", "create table b ();\ncommit;\nselect 1 / 0");
    up(&database, &folder).exits(65);
    asked(&database, &folder, 65);
}

#[test]
fn status_creates_and_writes_nothing() {
    let (database, folder) = (Database::fresh(), abc());
    assert!(status(&database, &folder).ends_with("0 applied, 0 edited, 3 pending\n"));
    assert_eq!(
        database.rows("select nspname from pg_namespace where nspname = 'drizzle'"),
        [""; 0]
    );

    history_of_0x(&database, &[(&folder.hash("0000_a.sql"), WHEN[0])]);
    let name = &database.name;
    database.execute(&format!("alter database {name} set default_transaction_read_only = on"));
    assert!(status(&database, &folder).ends_with("1 applied, 0 edited, 2 pending\n"));
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn status_needs_no_more_than_select() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    up(&database, &folder).exits(0);
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select on drizzle.__drizzle_migrations to {role}"
    ));
    let reader = database.at(url);
    assert!(status(&reader, &folder).contains("20231114221320_a  applied  20"));
    up(&reader, &folder).exits(0).says(&["up to date"]);
}

#[test]
fn status_without_select_prints_the_grants() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    let (_, url) = database.role();
    let reader = database.at(url);
    let refused = command(&reader, &folder, &["status"]).exits(77);
    grant(&database, &refused);
    command(&reader, &folder, &["status", "--exit-code"]).exits(0);
}

// baseline

#[test]
fn baseline_records_everything_and_runs_nothing() {
    for folder in [abc(), abc_of_1x(), plain()] {
        let database = Database::fresh();
        let run = command(&database, &folder, &["baseline"]).exits(0);
        let run = run.says(&["as applied (not run):"]);
        assert_eq!(run.stdout, "");
        assert_eq!(database.tables(), Vec::<String>::new());
        up(&database, &folder).exits(0).says(&["up to date"]);
        command(&database, &folder, &["status", "--exit-code"]).exits(0);
    }
}

#[test]
fn baseline_names_what_it_records() {
    let (database, folder) = (Database::fresh(), abc());
    let run = command(&database, &folder, &["baseline", "--through", "0001_b"]).exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: recorded 2 migrations as applied (not run):
          0000_a
          0001_b
    "#]]);
}

#[test]
fn baseline_writes_the_rows_that_drizzle_would() {
    let (database, folder) = (Database::fresh(), abc());
    command(&database, &folder, &["baseline"]).exits(0);
    let expected = ["0000_a", "0001_b", "0002_c"].iter().zip(WHEN).zip(1..);
    let expected: Vec<_> = expected
        .map(|((tag, when), id)| format!("{id}|{}|{when}", folder.hash(&format!("{tag}.sql"))))
        .collect();
    assert_eq!(database.rows(HISTORY), expected);
}

#[test]
fn up_continues_after_the_migration_that_baseline_went_through() {
    for (folder, name, next) in [
        (abc(), "0001_b", "applied 0002_c"),
        (abc_of_1x(), "20231114221320_a", "applied 20231114221321_b"),
        (plain(), "1_a", "applied 2_b"),
    ] {
        let database = Database::fresh();
        command(&database, &folder, &["baseline", "--through", name]).exits(0);
        let run = up(&database, &folder).exits(0).says(&[next]);
        assert_eq!(
            run.stderr.matches("premigrate: applied 1 migration in").count(),
            1,
            "{}",
            run.stderr
        );
        assert_eq!(database.tables().len(), 1);
    }
}

#[test]
fn baseline_through_an_unknown_name_changes_nothing() {
    let (database, folder) = (Database::fresh(), abc());
    let run = command(&database, &folder, &["baseline", "--through", "0001_x"]);
    run.exits(64).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: no migration is named 0001_x; run `premigrate list --dir FOLDER` to see the names
    "#]]);
    assert_eq!(database.rows("select 1 from pg_namespace where nspname = 'drizzle'"), [""; 0]);
}

#[test]
fn baseline_twice_is_harmless() {
    let (database, folder) = (Database::fresh(), abc());
    command(&database, &folder, &["baseline"]).exits(0);
    let before = database.rows(HISTORY);
    command(&database, &folder, &["baseline"]).exits(0).says(&["nothing to record"]);
    assert_eq!(database.rows(HISTORY), before);
    folder.add("0003_d", "create table d ()");
    let run = command(&database, &folder, &["baseline", "--through=0002_c"]).exits(0);
    run.says(&["nothing to record: every migration up to 0002_c is in the history already"]);
}

#[test]
fn baseline_adds_rows_only_where_there_are_none() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[("as it was", WHEN[1])]);
    let run = command(&database, &folder, &["baseline"]).exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: recorded 2 migrations as applied (not run):
          0000_a
          0002_c
    "#]]);
    let recorded = database.rows("select created_at from drizzle.__drizzle_migrations order by id");
    assert_eq!(recorded, [WHEN[1], WHEN[0], WHEN[2]].map(|when| when.to_string()));
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0001_b.sql
              applied  as it was
              now      ae470381f7dac6740ad365aa8e26d60a5845932813e09de8080ad742adce72ce

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0001_b --dir FOLDER`, or set PREMIGRATE_ACCEPT=0001_b
    "#]]);
}

#[test]
fn a_baseline_written_by_hand_is_corrected_in_three_steps() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[("anything", WHEN[1])]);
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0001_b.sql
              applied  anything
              now      ae470381f7dac6740ad365aa8e26d60a5845932813e09de8080ad742adce72ce

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0001_b --dir FOLDER`, or set PREMIGRATE_ACCEPT=0001_b
    "#]]);
    command(&database, &folder, &["accept", "0001_b"]).exits(0);
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0000_a is older than 0001_b, the first migration in the history; nothing was run. Run `premigrate baseline --through 0000_a --dir FOLDER` to record it as applied, or set --apply-older to run it
    "#]]);
    command(&database, &folder, &["baseline", "--through", "0000_a"]).exits(0);
    up(&database, &folder).exits(0).says(&["applied 0002_c"]);
    assert_eq!(database.tables(), ["c"]);
}

#[test]
fn baseline_never_starts_an_app() {
    let (database, folder) = (Database::fresh(), abc());
    command(&database, &folder, &["baseline", "--", "true"]).exits(64);
}

#[test]
fn two_baselines_at_once_record_everything_once() {
    let (database, folder) = (Database::fresh(), abc());
    at_once(|| premigrate(&database, &folder).arg("baseline"));
    assert_eq!(database.history().len(), 3);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_baseline_that_another_one_has_forestalled_says_that_nothing_is_left_to_record() {
    let (database, folder) = (Database::fresh(), Arc::new(abc()));
    let (direct, same) = (database.direct(), folder.clone());
    let is_first = AtomicBool::new(true);
    let proxy = Proxy::start(move |message| {
        // Between our reading and our lock.
        let begins = message.text.starts_with("begin isolation level");
        if begins && is_first.swap(false, Ordering::SeqCst) {
            command(&direct, &same, &["baseline"]).exits(0).says(&["recorded 3 migrations"]);
        }
        Action::Pass
    });
    command(&proxy.to(&database), &folder, &["baseline"]).exits(0).says(&["nothing to record"]);
    assert_eq!(database.history().len(), 3);
}

// accept

#[test]
fn accept_adds_a_row_and_leaves_the_old_one() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    let before = database.rows(HISTORY);
    folder.write("0001_b.sql", "create table b (id int)");
    up(&database, &folder).exits(65);
    let run = command(&database, &folder, &["accept", "0001_b"]).exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: accepted the current content of 1 migration (not run):
          0001_b
    "#]]);
    let added = format!("4|{}|{}", folder.hash("0001_b.sql"), WHEN[1]);
    assert_eq!(database.rows(HISTORY), [before, vec![added]].concat());
    up(&database, &folder).exits(0).says(&["up to date"]);
}

#[test]
fn an_older_image_still_starts_after_accept() {
    for (folder, file) in [
        (abc(), "0001_b.sql"),
        (abc_of_1x(), "20231114221321_b/migration.sql"),
        (plain(), "2_b.sql"),
    ] {
        let database = Database::fresh();
        up(&database, &folder).exits(0);
        folder.write(file, "create table b (id int)");
        command(&database, &folder, &["accept", "--all"]).exits(0);
        up(&database, &folder).exits(0).says(&["up to date"]);
        folder.write(file, "create table b ()");
        up(&database, &folder).exits(0).says(&["up to date"]);
    }
}

#[test]
fn accept_records_the_named_or_all_edited_migrations() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    for file in ["0000_a.sql", "0001_b.sql", "0002_c.sql"] {
        folder.write(file, "edited");
    }
    command(&database, &folder, &["accept", "0000_a"]).exits(0).does_not_say("0001_b");
    let left = up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0001_b.sql
              applied  ae470381f7dac6740ad365aa8e26d60a5845932813e09de8080ad742adce72ce
              now      1fb9f4097256db2d7b1e13aff79cee44339891a31c556b9cf6093885773b3618
          - 0002_c.sql
              applied  79089ebdb6601916c71fd07e41e1e04327bbfd1896624ce6802c0a9ce0461eca
              now      1fb9f4097256db2d7b1e13aff79cee44339891a31c556b9cf6093885773b3618

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0001_b 0002_c --dir FOLDER`, or set PREMIGRATE_ACCEPT=0001_b,0002_c
    "#]]);
    left.does_not_say("0000_a");
    command(&database, &folder, &["accept", "--all"])
        .exits(0)
        .says(&["accepted the current content of 2 migrations"]);
    up(&database, &folder).exits(0);
    let nothing = |names: &[&str], told| {
        let run = command(&database, &folder, &[&["accept"], names].concat());
        run.exits(0).says(&[&format!("nothing to accept: {told} edited\n")]);
    };
    nothing(&["--all"], "no migration is");
    folder.write("0000_a.sql", "once more");
    nothing(&["0001_b"], "0001_b is not");
    nothing(&["0001_b", "0002_c"], "none of 0001_b, 0002_c is");
    assert_eq!(database.history().len(), 6);
}

#[test]
fn accept_of_an_unknown_or_pending_name_records_nothing() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    folder.write("0000_a.sql", "edited");
    folder.add("0003_d", "create table d ()");
    let accept = |name| command(&database, &folder, &["accept", "0000_a", name]);
    accept("0009_x").exits(64).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: no migration is named 0009_x; run `premigrate list --dir FOLDER` to see the names
    "#]]);
    accept("0003_d").exits(64).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: cannot accept 0003_d: not applied yet. To record migrations without running them, run `premigrate baseline --through NAME --dir FOLDER`
    "#]]);
    command(&database, &folder, &["accept"]).exits(64).stderr_is(expect![[r#"
        premigrate: `accept` needs names, or --all (see --help)
    "#]]);
    assert_eq!(database.history().len(), 3);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn up_with_accept_accepts_first_and_then_applies() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    folder.write("0000_a.sql", "edited");
    folder.write("0001_b.sql", "edited");
    folder.add("0003_d", "create table d ()");
    let run = premigrate(&database, &folder).arg("--accept=0000_a").run();
    run.exits(65).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: accepted the current content of 1 migration (not run):
          0000_a
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0001_b.sql
              applied  ae470381f7dac6740ad365aa8e26d60a5845932813e09de8080ad742adce72ce
              now      1fb9f4097256db2d7b1e13aff79cee44339891a31c556b9cf6093885773b3618

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0001_b --dir FOLDER`, or set PREMIGRATE_ACCEPT=0001_b
    "#]]);
    assert_eq!(database.tables(), ["a", "b", "c"]);
    let run = premigrate(&database, &folder).arg("--accept=0000_a,0001_b").run().exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: accepted the current content of 1 migration (not run):
          0001_b
        premigrate: applied 0003_d in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
    assert_eq!(database.tables(), ["a", "b", "c", "d"]);
}

#[test]
fn the_suggested_accept_variable_can_stay_set() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    folder.write("0000_a.sql", "edited");
    folder.write("0002_c.sql", "edited");
    let refused = up(&database, &folder).exits(65);
    let value = refused.stderr.split("PREMIGRATE_ACCEPT=").nth(1).unwrap();
    let value = value.split_whitespace().next().unwrap();
    assert_eq!(value, "0000_a,0002_c");
    let start = || premigrate(&database, &folder).env("PREMIGRATE_ACCEPT", value).run().exits(0);
    start().says(&["accepted the current content of 2 migrations"]);
    start().says(&["up to date"]).does_not_say("accepted");
    assert_eq!(database.history().len(), 5);

    let empty = Database::fresh();
    let run = premigrate(&empty, &abc()).env("PREMIGRATE_ACCEPT", value).run().exits(0);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_a in TIME
        premigrate: applied 0001_b in TIME
        premigrate: applied 0002_c in TIME
        premigrate: applied 3 migrations in TIME
    "#]]);
}

#[test]
fn up_with_accept_of_an_unknown_name_is_an_error() {
    let (database, folder) = (Database::fresh(), abc());
    let run = premigrate(&database, &folder).arg("--accept=0009_x").run();
    run.exits(64).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: no migration is named 0009_x; run `premigrate list --dir FOLDER` to see the names
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn up_with_baseline_through_records_first_and_then_applies() {
    let (database, folder) = (Database::fresh(), abc());
    database.execute("create table a (); create table b ()");
    let start = || {
        let run = premigrate(&database, &folder).env("PREMIGRATE_BASELINE_THROUGH", "0001_b");
        run.args(&["--", "echo", "started"]).run().exits(0)
    };
    start().stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: recorded 2 migrations as applied (not run):
          0000_a
          0001_b
        premigrate: applied 0002_c in TIME
        premigrate: applied 1 migration in TIME
        premigrate: starting echo
    "#]]);
    // The variable can stay set.
    let again = start().says(&["up to date, 3 applied"]).does_not_say("recorded");
    assert_eq!(again.stdout, "started\n");
    assert_eq!(database.history().len(), 3);
}

#[test]
fn a_baseline_that_is_done_skips_no_migration_that_comes_late() {
    let (database, folder) = (Database::fresh(), abc());
    database.execute("create table a (); create table b ()");
    let start = || premigrate(&database, &folder).arg("--baseline-through=0001_b").run().exits(0);
    start();
    folder.add_at("0003_late", "create table late ()", WHEN[0] + 1);
    folder.edit_journal(|entries| entries.swap(1, 3));
    start().says(&["applied 0003_late"]).does_not_say("recorded");
    assert_eq!(database.tables(), ["a", "b", "c", "late"]);
}

#[test]
fn a_new_database_has_nothing_to_record_and_gets_every_migration() {
    let database = Database::fresh();
    // An extension's tables are not the application's.
    database.execute("create extension pg_stat_statements");
    let run = premigrate(&database, &abc()).arg("--baseline-through=0002_c").run().exits(0);
    run.says(&["applied 0000_a", "applied 0002_c"]).does_not_say("recorded");
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn a_dry_run_shows_what_a_baseline_would_record_first() {
    let (database, folder) = (Database::fresh(), abc());
    database.execute("create table a ()");
    let run = |args: &[&str]| {
        let run = premigrate(&database, &folder).args(&["--baseline-through", "0000_a"]);
        run.arg("--dry-run").args(args).run()
    };
    run(&[]).exits(0).stdout_is(expect![[r#"
        would record 1 migration as applied, without running:
          0000_a
        would apply 2 migrations, each in its own transaction; 1 applied already
          0001_b (1 statement)
          0002_c (1 statement)
    "#]]);
    let first = run(&["--format=json"]).exits(0).stdout;
    assert!(first.starts_with("{\"action\":\"baseline\",\"migration\":\"0000_a\"}\n"), "{first}");
    assert_eq!(database.tables(), ["a"]);
}

#[test]
fn up_with_baseline_through_an_unknown_name_is_an_error() {
    let (database, folder) = (Database::fresh(), abc());
    let run = premigrate(&database, &folder).arg("--baseline-through=0009_x").run();
    run.exits(64).says(&["no migration is named 0009_x"]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn two_runners_with_a_baseline_record_once() {
    let (database, folder) = (Database::fresh(), abc());
    database.execute("create table a (); create table b ()");
    at_once(|| premigrate(&database, &folder).arg("--baseline-through=0001_b"));
    assert_eq!(database.history().len(), 3);
}

#[test]
fn two_accepts_at_once_record_once() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    folder.write("0001_b.sql", "edited");
    at_once(|| premigrate(&database, &folder).args(&["accept", "--all"]));
    at_once(|| premigrate(&database, &folder).arg("--accept=0001_b"));
    assert_eq!(database.history().len(), 4);
}

// What `up` refuses, and what it suggests.

#[test]
fn all_edits_are_reported_with_both_hashes_and_nothing_runs() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    let was = folder.hash("0000_a.sql");
    folder.write("0000_a.sql", "edited");
    folder.write("0002_c.sql", "edited too");
    folder.add("0003_d", "create table d ()");
    let now = folder.hash("0000_a.sql");
    let run = premigrate(&database, &folder).args(&["--", "echo", "started"]).run().exits(65);
    let run = run.with_name("WAS", &was).with_name("NOW", &now).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0000_a.sql
              applied  WAS
              now      NOW
          - 0002_c.sql
              applied  79089ebdb6601916c71fd07e41e1e04327bbfd1896624ce6802c0a9ce0461eca
              now      95eecdd7474ee5a25b39698b841aa89c630bae685975d47ee2deafacaf7e811c

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0000_a 0002_c --dir FOLDER`, or set PREMIGRATE_ACCEPT=0000_a,0002_c

          The app was not started.
    "#]]);
    assert_eq!(run.stdout, "");
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn an_older_image_reports_unknown_rows_and_starts() {
    let (database, folder) = (Database::fresh(), abc());
    up(&database, &folder).exits(0);
    let older = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    let run = premigrate(&database, &older).args(&["--", "echo", "started"]).run().exits(0);
    let run = run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: ignoring 2 rows of the history that match no migration: row 2 (created_at 1700000001000), row 3 (created_at 1700000002000)
        premigrate: up to date, 1 applied
        premigrate: starting echo
    "#]]);
    assert_eq!(run.stdout, "started\n");
    command(&database, &older, &["--strict"]).exits(65).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: refused by --strict: row 2 (created_at 1700000001000), row 3 (created_at 1700000002000) match no migration; nothing was run. Use the version of the app that has the migrations of these rows. Or start without --strict
    "#]]);
}

#[test]
fn what_was_merged_late_is_applied_and_reported() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(
        &database,
        &[(&folder.hash("0000_a.sql"), WHEN[0]), (&folder.hash("0002_c.sql"), WHEN[2])],
    );
    let strict = command(&database, &folder, &["--strict"]).exits(65);
    strict.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: refused by --strict: 0001_b is out of order; nothing was run. Generate the out-of-order migrations again, so that they come after the last applied one. Or start without --strict
    "#]]);
    let strict = premigrate(&database, &folder).env("PREMIGRATE_STRICT", "1").run();
    strict.exits(65);
    assert_eq!(database.tables(), Vec::<String>::new());
    up(&database, &folder).exits(0).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: applying 0001_b out of order: a later migration is already applied
        premigrate: applied 0001_b in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
    assert_eq!(database.tables(), ["b"]);
}

#[test]
fn a_history_of_something_else_is_refused_with_hints() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[("x", 1), ("y", 2)]);
    let run = up(&database, &folder).exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: no row of the history matches a migration (2 rows, 3 migrations); nothing was run. Check that the database, --dir and --table are right. If the migrations were squashed, run `premigrate baseline --through NAME --dir FOLDER`, where NAME is the last one whose changes the database has. To run them all, set --apply-older
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    command(&database, &folder, &["baseline", "--through", "0001_b"]).exits(0);
    up(&database, &folder).exits(0);
    assert_eq!(database.tables(), ["c"]);
}

#[test]
fn migrations_older_than_a_trimmed_history_run_only_with_apply_older() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[(&folder.hash("0002_c.sql"), WHEN[2])]);
    let run = up(&database, &folder).exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0000_a, 0001_b are older than 0002_c, the first migration in the history; nothing was run. Run `premigrate baseline --through 0001_b --dir FOLDER` to record them as applied, or set --apply-older to run them
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    command(&database, &folder, &["--apply-older"]).exits(0);
    assert_eq!(database.tables(), ["a", "b"]);
}

#[test]
fn a_migration_edited_after_another_runner_applied_it_does_not_run_again() {
    let foreign = |database: &Database, folder: &Folder| {
        let hash = |file: &str| folder.hash(file);
        history_of_0x(
            database,
            &[
                (&hash("0000_a.sql"), WHEN[0] + 500),
                (&hash("0001_b.sql"), WHEN[1] + 500),
                (&hash("0002_c.sql"), WHEN[2] + 500),
            ],
        );
        folder.write("0002_c.sql", "create table c (id int)");
    };
    let (database, folder) = (Database::fresh(), abc());
    foreign(&database, &folder);
    let run = up(&database, &folder).exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0002_c may be applied already: row 3 (created_at 1700000002500) may record an earlier version; nothing was run. Run `premigrate accept NAME --dir FOLDER` for a migration that was applied; you can then delete its old row. To run all pending migrations, set --apply-older
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    command(&database, &folder, &["accept", "0002_c"]).exits(0);
    up(&database, &folder).exits(0);
    assert_eq!(database.tables(), Vec::<String>::new());
    // The row is still unknown until it is deleted, and could record the next migration.
    folder.add_at("0003_d", "create table d ()", WHEN[2] + 200);
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0003_d may be applied already: row 3 (created_at 1700000002500) may record an earlier version; nothing was run. Run `premigrate accept NAME --dir FOLDER` for a migration that was applied; you can then delete its old row. To run all pending migrations, set --apply-older
    "#]]);
    database.execute("delete from drizzle.__drizzle_migrations where id = 3");
    up(&database, &folder).exits(0).says(&["applied 0003_d"]);

    let (database, folder) = (Database::fresh(), abc());
    foreign(&database, &folder);
    command(&database, &folder, &["--apply-older"]).exits(0);
    assert_eq!(database.tables(), ["c"]);
}

#[test]
fn duplicate_rows_of_racing_drizzle_runs_are_ignored() {
    let (database, folder) = (Database::fresh(), abc());
    let row = (folder.hash("0000_a.sql"), WHEN[0]);
    history_of_0x(&database, &[(&row.0, row.1), (&row.0, row.1), (&row.0, row.1)]);
    up(&database, &folder).exits(0).says(&["applied 0001_b"]);
    assert_eq!(database.tables(), ["b", "c"]);
}

#[test]
fn a_history_with_duplicate_ids_is_continued() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[]);
    // Upper case sorts before lower case here, but after it in this collation.
    database.execute(&format!(
        "alter table drizzle.__drizzle_migrations drop constraint __drizzle_migrations_pkey, \
         alter hash type text collate \"en-x-icu\"; \
         insert into drizzle.__drizzle_migrations values (1, '{}', {}), (1, 'a', 1), (1, 'B', 2)",
        folder.hash("0000_a.sql"),
        WHEN[0]
    ));
    up(&database, &folder).exits(0);
    assert_eq!(database.tables(), ["b", "c"]);
}

#[test]
fn a_row_without_a_name_in_a_table_of_1x_is_left_alone() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    let hash = folder.hash("20231114221320_a/migration.sql");
    command(&database, &folder, &["baseline", "--through", "20231114221320_a"]).exits(0);
    database.execute("update drizzle.__drizzle_migrations set name = null");
    folder.write("20231114221322_c/migration.sql", "create table c ()");
    up(&database, &folder).exits(0);
    let rows = database.rows("select hash, name from drizzle.__drizzle_migrations order by id");
    assert_eq!(rows[0], format!("{hash}|"));
    assert_eq!(database.tables(), ["b", "c"]);
}

// A table of Drizzle 0.x under folders of 1.x.

#[test]
fn a_table_created_in_another_way_works() {
    for table in [
        "(id bigint generated by default as identity (start 3000000000) primary key, \
         hash text not null, created_at bigint)",
        "(id serial, hash text not null, created_at bigint) partition by hash (id); \
         create table drizzle.part partition of drizzle.__drizzle_migrations \
         for values with (modulus 1, remainder 0)",
    ] {
        let database = Database::fresh();
        database.execute(&format!(
            "create schema drizzle; create table drizzle.__drizzle_migrations {table}"
        ));
        let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 2")]);
        premigrate(&database, &folder).run().exits(0);
        folder.add("0002_c", "select 3");
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(database.history().len(), 3, "{table}");
    }
}

#[test]
fn a_0x_table_is_upgraded_only_when_a_row_has_to_be_written() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    let columns = "select string_agg(attname, ' ' order by attnum) from pg_attribute \
         where attrelid = 'drizzle.__drizzle_migrations'::regclass and attnum > 0";
    let [a, b] = ["20231114221320_a", "20231114221321_b"]
        .map(|name| folder.hash(&format!("{name}/migration.sql")));
    history_of_0x(&database, &[(&a, WHEN[0]), (&b, WHEN[1])]);
    up(&database, &folder).exits(0).says(&["up to date"]);
    command(&database, &folder, &["status", "--exit-code"]).exits(0);
    assert_eq!(database.value(columns), "id hash created_at");
    folder.write("20231114221321_b/migration.sql", "edited");
    command(&database, &folder, &["accept", "--all"]).exits(0);
    assert_eq!(database.value(columns), "id hash created_at name applied_at");
    let rows = "select id, created_at, name, applied_at is null from drizzle.__drizzle_migrations \
         order by id";
    assert_eq!(
        database.rows(rows),
        [
            "1|1700000000000|20231114221320_a|t",
            "2|1700000001000|20231114221321_b|t",
            "3|1700000001000|20231114221321_b|f"
        ]
    );
}

#[test]
fn each_migration_after_an_upgrade_is_reported_once() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    let a = folder.hash("20231114221320_a/migration.sql");
    history_of_0x(&database, &[(&a, WHEN[0])]);
    folder.write("20231114221322_c/migration.sql", "create table c ()");
    let run = up(&database, &folder).exits(0);
    for migration in ["20231114221321_b", "20231114221322_c"] {
        assert_eq!(
            run.stderr.matches(&format!("applied {migration} in")).count(),
            1,
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_0x_table_with_an_unknown_row_is_not_upgraded_and_an_older_app_starts() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    let a = folder.hash("20231114221320_a/migration.sql");
    history_of_0x(&database, &[(&a, WHEN[0]), ("gone", 1)]);
    for command in [&["up"][..], &["up", "--apply-older"], &["baseline"]] {
        let run = premigrate(&database, &folder).args(command).run().exits(65);
        run.stderr_is(expect![[r#"
            premigrate: 2 migrations in FOLDER (Drizzle 1.x)
            premigrate: the history table has the columns of Drizzle 0.x and cannot be upgraded: some rows match no migration (row 2 (created_at 1)); nothing was run. Check that the database, --dir and --table are right. Restore the migrations of these rows. If they were squashed or replaced, delete the rows, and record what replaces them with `premigrate baseline --through NAME --dir FOLDER`
        "#]]);
    }
    // Neither `baseline` nor --apply-older could write a row, so neither is suggested here.
    database.execute("update drizzle.__drizzle_migrations set hash = 'x', created_at = 1");
    up(&database, &folder).exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 1.x)
        premigrate: the history table has the columns of Drizzle 0.x and cannot be upgraded: some rows match no migration (row 1 (created_at 1), row 2 (created_at 1)); nothing was run. Check that the database, --dir and --table are right. Restore the migrations of these rows. If they were squashed or replaced, delete the rows, and record what replaces them with `premigrate baseline --through NAME --dir FOLDER`
    "#]]);
    database.execute(&format!(
        "update drizzle.__drizzle_migrations set hash = '{a}', created_at = {} where id = 1",
        WHEN[0]
    ));
    let b = folder.hash("20231114221321_b/migration.sql");
    add_row(&database, &b, WHEN[1]);
    up(&database, &folder).exits(0).says(&["row 2"]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

// Roles with few privileges.

/// Runs the suggested statements, one by one, and nothing else.
fn grant(database: &Database, refused: &Run) {
    let statements = refused.stderr.lines().filter(|line| line.starts_with("    "));
    let statements: Vec<_> = statements.map(str::trim).filter(|line| line.ends_with(';')).collect();
    assert!(!statements.is_empty(), "{}", refused.stderr);
    for statement in statements {
        database.execute(statement);
    }
}

/// The database for a role that can create tables in `public` and nothing else.
fn as_role(database: &Database) -> (Database, String) {
    let (role, url) = database.role();
    database.execute(&format!("grant usage, create on schema public to {role}"));
    (database.at(url), role)
}

#[test]
fn a_role_without_create_can_use_existing_tables() {
    let (database, folder) = (Database::fresh(), abc());
    history_of_0x(&database, &[]);
    let (restricted, role) = as_role(&database);
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select, insert on drizzle.__drizzle_migrations to {role}; \
         grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}"
    ));
    command(&restricted, &folder, &["baseline", "--through", "0000_a"]).exits(0);
    up(&restricted, &folder).exits(0);
    folder.write("0001_b.sql", "edited");
    command(&restricted, &folder, &["accept", "0001_b"]).exits(0);
    up(&restricted, &folder).exits(0).says(&["up to date"]);
    assert_eq!(database.tables(), ["b", "c"]);
}

#[test]
fn a_role_creates_the_table_in_a_schema_that_it_owns() {
    let (database, folder) = (Database::fresh(), abc());
    let (restricted, role) = as_role(&database);
    database.execute(&format!("create schema drizzle authorization {role}"));
    up(&restricted, &folder).exits(0);
}

#[test]
fn the_owner_of_the_database_can_run_the_suggested_statements() {
    let (database, folder) = (Database::fresh(), abc());
    let (restricted, _) = as_role(&database);
    // A managed server gives nobody a superuser, or a role that is a member of every role.
    let (owner, url) = database.role();
    database.execute(&format!("alter database {} owner to {owner}", database.name));
    let owner = database.at(url);
    grant(&owner, &up(&restricted, &folder).exits(77));
    up(&restricted, &folder).exits(0);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn with_row_security_the_suggested_statements_include_a_policy() {
    let (database, folder) = (Database::fresh(), abc());
    command(&database, &folder, &["baseline", "--through", "0001_b"]).exits(0);
    let (restricted, role) = as_role(&database);
    database.execute(&format!(
        "alter table drizzle.__drizzle_migrations enable row level security; \
         grant usage on schema drizzle to {role}; \
         grant select, insert on drizzle.__drizzle_migrations to {role}; \
         grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}"
    ));
    let refused = up(&restricted, &folder).exits(77).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: permission denied for the history table (42501 new row violates row-level security policy for table "__drizzle_migrations"). Ask an owner to run:

            grant usage on schema "drizzle" to "ROLE";
            grant select on "drizzle"."__drizzle_migrations" to "ROLE";
            grant insert on "drizzle"."__drizzle_migrations" to "ROLE";
            grant usage on sequence drizzle.__drizzle_migrations_id_seq to "ROLE";
            create policy "ROLE" on "drizzle"."__drizzle_migrations" to "ROLE" using (true) with check (true);

          3 are pending.
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    grant(&database, &refused);
    up(&restricted, &folder).exits(0);
    assert_eq!(database.tables(), ["c"]);
}

#[test]
fn names_in_suggested_statements_are_quoted() {
    for format in ["text", "json"] {
        let (database, folder) = (Database::fresh(), Folder::empty());
        let names = [
            "20231114221320_reset_password",
            "20231114221321_it's a password",
            "20231114221322_password 'x'",
        ];
        for name in names {
            folder.write(&format!("{name}/migration.sql"), "select 1");
        }
        let hash = folder.hash(&format!("{}/migration.sql", names[0]));
        history_of_0x(&database, &[(&hash, WHEN[0]), (&hash, WHEN[1])]);
        let (restricted, role) = as_role(&database);
        database.execute(&format!(
            "grant usage on schema drizzle to {role}; \
             grant select on drizzle.__drizzle_migrations to {role}"
        ));
        let refused = command(&restricted, &folder, &["up", "--format", format]).exits(77);
        if format == "text" {
            grant(&database, &refused);
        } else {
            let error = refused.events().pop().unwrap();
            for statement in error["sql"].as_array().unwrap() {
                let statement = statement.as_str().unwrap();
                assert!(error["message"].as_str().unwrap().contains(statement), "{error}");
                database.execute(statement);
            }
        }
        up(&restricted, &folder).exits(0);
        let named = "select name from drizzle.__drizzle_migrations order by id";
        assert_eq!(database.rows(named), names);
    }
}

/// Starts the program and runs the statements that it suggests until it succeeds; returns how often
/// it was refused.
fn grant_until_it_works(database: &Database, start: impl Fn() -> Premigrate) -> usize {
    for refusals in 0..4 {
        let run = start().run();
        if run.code == 0 {
            return refusals;
        }
        grant(database, &run.exits(77).says(&["42501"]));
    }
    panic!("the suggested statements are not enough");
}

#[test]
fn without_a_schema_the_suggested_statements_are_enough() {
    for command in [&["up"][..], &["baseline"]] {
        let (database, folder) = (Database::fresh(), abc());
        let (restricted, _) = as_role(&database);
        let refusals =
            grant_until_it_works(&database, || premigrate(&restricted, &folder).args(command));
        assert_eq!(refusals, 1);
        assert_eq!(database.history().len(), 3);
    }
}

#[test]
fn without_a_table_the_suggested_statements_are_enough() {
    let (database, folder) = (Database::fresh(), abc());
    let (restricted, role) = as_role(&database);
    database.execute(&format!("create schema drizzle; grant usage on schema drizzle to {role}"));
    assert_eq!(grant_until_it_works(&database, || premigrate(&restricted, &folder)), 1);
    assert_eq!(database.tables(), ["a", "b", "c"]);
}

#[test]
fn for_a_table_of_another_owner_the_suggested_statements_are_enough() {
    for command in [&["up"][..], &["baseline"], &["accept", "0000_a"]] {
        let (database, folder) = (Database::fresh(), abc());
        history_of_0x(&database, &[("as it was", WHEN[0])]);
        if command != ["accept", "0000_a"] {
            database.execute("truncate drizzle.__drizzle_migrations");
        }
        let (restricted, _) = as_role(&database);
        // Reading comes before writing.
        let refusals =
            grant_until_it_works(&database, || premigrate(&restricted, &folder).args(command));
        assert!((1..=2).contains(&refusals), "{refusals}");
    }
}

#[test]
fn the_suggested_statements_include_the_upgrade_of_the_table() {
    let (database, folder) = (Database::fresh(), abc_of_1x());
    let a = folder.hash("20231114221320_a/migration.sql");
    history_of_0x(&database, &[(&a, WHEN[0])]);
    let (restricted, role) = as_role(&database);
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select, insert on drizzle.__drizzle_migrations to {role}; \
         grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}"
    ));
    let refused = up(&restricted, &folder).exits(77);
    let refused = refused.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 1.x)
        premigrate: permission denied for the history table (42501 must be owner of table __drizzle_migrations). Ask an owner to run:

            alter table "drizzle"."__drizzle_migrations" add column if not exists name text;
            alter table "drizzle"."__drizzle_migrations" add column if not exists applied_at timestamp with time zone default now();
            update "drizzle"."__drizzle_migrations" set applied_at = null;
            update "drizzle"."__drizzle_migrations" set name = '20231114221320_a' where id = 1;
            grant usage on schema "drizzle" to "ROLE";
            grant select on "drizzle"."__drizzle_migrations" to "ROLE";
            grant insert on "drizzle"."__drizzle_migrations" to "ROLE";
            grant usage on sequence drizzle.__drizzle_migrations_id_seq to "ROLE";

          1 is pending.
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    grant(&database, &refused);
    up(&restricted, &folder).exits(0);
    let names = "select name, applied_at is null from drizzle.__drizzle_migrations order by id";
    assert_eq!(database.rows(names), ["20231114221320_a|t", "20231114221321_b|f"]);
}

#[test]
fn the_grant_names_the_sequence_of_the_id_column() {
    let long = format!("h{}", "x".repeat(62));
    for (made, table) in [
        ("create table s.old (id serial primary key, {}); alter table s.old rename to h", "h"),
        ("create table s.LONG (id serial primary key, {})", &long),
        ("create table s.h (id int generated always as identity primary key, {})", "h"),
        ("create sequence \"S q\"; create table s.h (id int default nextval('\"S q\"'), {})", "h"),
    ] {
        let (database, folder) = (Database::fresh(), abc());
        let made =
            made.replace("LONG", &long).replace("{}", "hash text not null, created_at bigint");
        let (restricted, role) = as_role(&database);
        database.execute(&format!("create schema s; {made}"));
        database.execute(&format!(
            "grant usage on schema s to {role}; grant select on s.{table} to {role}"
        ));
        let start =
            || premigrate(&restricted, &folder).args(&["--schema=s", "--table", table]).run();
        let refused = start().exits(77);
        grant(&database, &refused);
        start().exits(0);
        assert_eq!(database.value(&format!("select count(*) from s.{table}")), "3", "{made}");
    }
}

/// Runs the command that a message suggests in a shell, exactly as printed.
fn run_suggested_command(database: &Database, folder: &Folder, refused: &Run) {
    let line = refused.stderr.split('`').find(|part| part.starts_with("premigrate "));
    let line = line.unwrap_or_else(|| panic!("no command is suggested:\n{}", refused.stderr));
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_premigrate"));
    let path = std::env::var("PATH").unwrap();
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", line])
        .env_clear()
        .env("PATH", format!("{}:{path}", executable.parent().unwrap().display()))
        .env("DATABASE_URL", &database.url)
        .env("PREMIGRATE_DIR", &folder.path);
    let output = output_of(&mut shell);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Names that a shell or the program could misread.
const ODD_NAMES: [&str; 6] = ["1_a,b", "2_a b", "3_it's", "4", "5_password", "6_'x' $HOME"];

#[test]
fn the_suggested_accept_command_works_for_any_name() {
    let (database, folder) = (Database::fresh(), Folder::empty());
    let file = |name: &str| format!("{name}.sql");
    for name in ODD_NAMES {
        folder.write(&file(name), "select 1");
        up(&database, &folder).exits(0);
        folder.write(&file(name), "select 2");
        let refused = up(&database, &folder).exits(65);
        let refused = match name.contains(',') {
            true => refused.does_not_say("PREMIGRATE_ACCEPT"),
            false => refused.says(&[&format!("or set PREMIGRATE_ACCEPT={name}\n")]),
        };
        run_suggested_command(&database, &folder, &refused);
        up(&database, &folder).exits(0);
    }
    for name in ODD_NAMES {
        folder.write(&file(name), "select 3");
    }
    let refused = up(&database, &folder).exits(65);
    run_suggested_command(&database, &folder, &refused);
    up(&database, &folder).exits(0);
}

#[test]
fn the_suggested_baseline_command_works_for_any_name() {
    for name in ODD_NAMES {
        let (database, folder) = (Database::fresh(), Folder::empty());
        folder.write("9.sql", "create table a ()");
        up(&database, &folder).exits(0);
        folder.write(&format!("{name}.sql"), "create table b ()");
        let refused = up(&database, &folder).exits(65);
        run_suggested_command(&database, &folder, &refused);
        up(&database, &folder).exits(0).says(&["up to date, 2 applied"]);
        assert_eq!(database.tables(), ["a"]);
    }
}

/// Starts four processes at once; all of them succeed.
fn at_once(start: impl Fn() -> Premigrate) {
    let runs: Vec<_> = (0..4).map(|_| start().start()).collect();
    for run in runs {
        run.finish().exits(0);
    }
}

#[test]
fn accept_records_one_migration_per_unknown_row() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()"), ("0003_d", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    database
        .execute("insert into drizzle.__drizzle_migrations (hash, created_at) values ('other', 1)");
    let merged = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    merged.add_at("0001_b", "create table b ()", 1_700_000_000_100);
    merged.add_at("0002_c", "create table c ()", 1_700_000_000_200);
    merged.add_at("0003_d", "select 1", 1_700_000_001_000);
    let accept = |names: &[&str]| premigrate(&database, &merged).arg("accept").args(names).run();
    accept(&["0001_b", "0002_c"]).exits(64).stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: cannot accept 0001_b, 0002_c: not applied yet. To record migrations without running them, run `premigrate baseline --through NAME --dir FOLDER`
    "#]]);
    assert_eq!(database.history().len(), 3);
    accept(&["0001_b"]).exits(0);
    assert_eq!(database.history().len(), 4);
}
