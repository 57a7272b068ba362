//! Migrations that one transaction cannot hold: steps, progress, resuming.

mod carried;
mod held;
mod judged;
mod killed;
mod locks;
mod renamed;
mod signals;

use expect_test::expect;

use crate::harness::{Database, Folder, IN_TIME, WAITING_FOR_LOCK, bare, has_since, premigrate};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Proxy};

/// As Drizzle's users write it.
const CONCURRENT: &str = "create table t (a int, b int);\n--> statement-breakpoint\n\
     insert into t select g, g from generate_series(1, 100) g;\n--> statement-breakpoint\n\
     COMMIT;--> statement-breakpoint\n\
     CREATE INDEX CONCURRENTLY t_a ON t (a);--> statement-breakpoint\n\
     CREATE INDEX CONCURRENTLY t_b ON t (b);--> statement-breakpoint\n\
     BEGIN;--> statement-breakpoint\n\
     insert into t values (0, 0);";

const PROGRESS: &str = "select to_regclass('drizzle.__drizzle_migrations_progress')";

/// Whether everything that `CONCURRENT` makes is there, once.
fn assert_concurrent_is_applied(database: &Database) {
    assert_eq!(database.value("select count(*) from t"), "101");
    let valid = "select indexrelid::regclass from pg_index where indrelid = 't'::regclass \
         and indisvalid order by 1";
    assert_eq!(database.rows(valid), ["t_a", "t_b"]);
    assert_eq!(database.history().len(), 1);
    assert_eq!(database.value(PROGRESS), "");
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn several_concurrent_indexes_in_one_file_work_and_leave_no_progress() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT)]);
    let run = premigrate(&database, &folder).run().exits(0);
    run.says(&[
        "finished step 1 of 4 in",
        "finished step 2 of 4 (CREATE INDEX CONCURRENTLY) in",
        "applied 0000_a",
    ]);
    assert_concurrent_is_applied(&database);
    premigrate(&database, &folder).run().exits(0).says(&["up to date"]);
}

#[test]
fn a_progress_table_that_cannot_be_created_is_not_a_failed_index() {
    let database = Database::fresh();
    database.execute(
        "create table t (a int); \
         create function refuse() returns event_trigger language plpgsql as \
         'begin raise exception ''no tables today''; end'; \
         create event trigger refuse on ddl_command_start when tag in ('CREATE TABLE') \
         execute function refuse()",
    );
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently t_a on t (a)")]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.says(&["no tables today", "and was rolled back"]).does_not_say("invalid index");
    assert_eq!(database.value("select to_regclass('t_a')"), "");
}

#[test]
fn one_that_resets_all_settings_holds_the_lock_as_long() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", &format!("{CONCURRENT}\nreset all"))]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
    assert_concurrent_is_applied(&database);
}

#[test]
fn through_a_pooler_too() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(3);
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT)]);
    premigrate(&pooler.to(&database), &folder).run().exits(0).says(&["connected through a pooler"]);
    // Its idle connections keep the name of their last client.
    drop(pooler);
    assert_concurrent_is_applied(&database);
}

#[test]
fn a_role_that_may_connect_only_once_is_not_mistaken_for_a_second_runner() {
    let database = Database::fresh();
    let (role, url) = database.role();
    database.execute(&format!(
        "alter role {role} connection limit 1; grant create on schema public to {role}; \
         grant create on database {} to {role}",
        database.name
    ));
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT)]);
    let up = || bare().env("DATABASE_URL", &url).arg("--dir").arg(&folder.path);
    let run = up().args(&["--runner-wait", "3s"]).run().exits(75);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: finished step 1 of 4 in TIME
        premigrate: 0000_a needs two connections, one to hold the lock and one to run a statement outside a transaction, and the second could not be opened. Check for a connection pool or a connection limit of one: allow two, or connect directly to the server

          1 of 4 steps of 0000_a is done and kept; the next run continues with step 2. 1 is pending.
    "#]]);
    database.execute(&format!("alter role {role} connection limit 2"));
    up().run().exits(0);
    assert_concurrent_is_applied(&database);
}

#[test]
fn a_setting_that_a_pooler_does_not_keep_is_refused_before_anything_runs() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(5);
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a ()"),
        ("0001_b", "create table t (a int);\nset maintenance_work_mem = '64MB';\nvacuum t;"),
    ]);
    let run = premigrate(&pooler.to(&database), &folder).run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0001_b needs `set maintenance_work_mem = '64MB'` for a statement that runs outside a transaction, and a pooler does not keep settings for it; nothing was run. Connect directly to the server, make it the default with `alter role ... set ...`, or change the statement so that it needs no settings

          2 are pending.
    "#]]);
    assert_eq!(database.tables(), [] as [String; 0]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_pool_of_one_is_recognised_and_named() {
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT)]);
    let runs = ["transaction", "session"].map(|mode| {
        let database = Database::fresh();
        let pooler = PgBouncer::start_in(mode, 1);
        let running = premigrate(&pooler.to(&database), &folder).start();
        (database, pooler, running)
    });
    for (database, pooler, running) in runs {
        let run = running.finish().exits(75);
        run.stderr_is(expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: 0000_a: finished step 1 of 4 in TIME
            premigrate: 0000_a needs two connections, one to hold the lock and one to run a statement outside a transaction, and the second could not be opened. Check for a connection pool or a connection limit of one: allow two, or connect directly to the server

              1 of 4 steps of 0000_a is done and kept; the next run continues with step 2. 1 is pending.
        "#]]);
        drop(pooler);
        premigrate(&database, &folder).run().exits(0);
        assert_concurrent_is_applied(&database);
    }
}

/// Each runner needs one connection, and the one that builds the index two.
#[test]
fn runners_behind_a_pooler_with_few_connections_for_sessions_do_not_wait_for_each_other() {
    let database = Database::fresh();
    let pooler = PgBouncer::start_in("session", 3);
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT)]);
    let through = pooler.to(&database);
    let runs: Vec<_> = (0..12).map(|_| premigrate(&through, &folder).start()).collect();
    for run in runs {
        run.finish().exits(0);
    }
    assert_concurrent_is_applied(&database);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn a_second_connection_is_waited_for_while_others_use_the_pooler() {
    for mode in ["transaction", "session"] {
        let database = Database::fresh();
        let pooler = PgBouncer::start_in(mode, 2);
        let through = pooler.to(&database);
        let mut other = through.holding("select 1");
        let folder = Folder::drizzle0(&[("0000_a", BUILD)]);
        database.execute("create table t (a int)");
        let running = premigrate(&through, &folder).start();
        running.wait_to_say("for the database: second connection: timed out");
        other.batch_execute("commit").unwrap();
        drop(other);
        running.finish().exits(0).says(&["applied 0000_a"]);
    }
}

#[test]
fn a_pooler_that_gives_up_waiting_for_a_connection_has_not_broken_the_migration() {
    let database = Database::fresh();
    let pooler =
        PgBouncer::with("pool_mode = transaction\ndefault_pool_size = 1\nquery_wait_timeout = 1");
    let through = pooler.to(&database);
    let folder = Folder::drizzle0(&[("0000_a", "create table t (a int)")]);
    let taken = std::sync::Mutex::new(None);
    let (other, pool) = (through.url.clone(), std::sync::Arc::new(taken));
    let slot = pool.clone();
    // Once the history is read, another client takes the only connection.
    let proxy = Proxy::before(pooler.port, move |message| {
        if message.text.starts_with("begin isolation level") && slot.lock().unwrap().is_none() {
            let mut client = postgres::Client::connect(&other, postgres::NoTls).unwrap();
            client.batch_execute("begin").unwrap();
            *slot.lock().unwrap() = Some(client);
        }
        Action::Pass
    });
    let running = premigrate(&proxy.to(&database), &folder).start();
    running.wait_to_say("after login: query_wait_timeout");
    pool.lock().unwrap().as_mut().unwrap().batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["applied 0000_a"]).does_not_say("connection lost");
}

/// A migration whose index build waits for whoever has written to `t` and is not done.
const BUILD: &str = "create index concurrently t_a on t (a)";

/// A table with a writer that is in the way of an index build until it is dropped.
fn with_writer(database: &Database) -> postgres::Client {
    database.execute("create table t (a int, b int)");
    let mut writer = database.client();
    writer.batch_execute("set application_name = 'shop'; begin; insert into t values (1)").unwrap();
    writer
}

/// The drop of an INVALID index that waits for a writer.
const DROPPING: &str = "select from pg_stat_activity where datname = current_database() \
    and query ~ '^/\\* premigrate \\w{16} \\*/ drop index' and wait_event_type = 'Lock'";

const BUILDING: &str = "select from pg_stat_activity where datname = current_database() \
    and query ~ '^/\\* premigrate \\w{16} \\*/ create index' and state = 'active'";

#[test]
fn an_index_build_goes_on_while_another_runner_waits() {
    let database = Database::fresh();
    let mut writer = with_writer(&database);
    let folder = Folder::drizzle0(&[("0000_a", BUILD), ("0001_b", "insert into t values (2)")]);
    let first = premigrate(&database, &folder).start();
    database.wait_for("the build", BUILDING);
    let second = premigrate(&database, &folder).start();
    first.wait_to_say("0000_a is waiting for a lock");
    second.wait_to_say("another runner");
    writer.batch_execute("commit").unwrap();
    first.finish().exits(0).says(&["0000_a is waiting for a lock held by backend", "of shop"]);
    second.finish().exits(0).says(&["for another runner to finish: backend"]);
    assert_eq!(database.value("select count(*) from t"), "2");
    assert_eq!(database.history().len(), 2);
    assert_eq!(
        database.value("select indisvalid from pg_index where indrelid = 't'::regclass"),
        "t"
    );
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn the_build_of_a_killed_runner_is_ended_dropped_and_built_again() {
    if !has_since(14, "client_connection_check_interval") {
        return;
    }
    for settings in ["", "alter database DB set client_connection_check_interval = 0"] {
        let database = Database::fresh();
        if !settings.is_empty() {
            database.execute(&settings.replace("DB", &database.name));
        }
        let mut writer = with_writer(&database);
        let folder = Folder::drizzle0(&[("0000_a", BUILD)]);
        let mut killed = premigrate(&database, &folder).start();
        database.wait_for("the build", BUILDING);
        killed.child.kill().unwrap();
        killed.finish();
        let next = premigrate(&database, &folder).start();
        // The writer is in the way of the drop as well.
        database.wait_for("the drop", DROPPING);
        writer.batch_execute("commit").unwrap();
        let run = next.finish().exits(0);
        run.says(&["rebuilding the invalid index public.t_a", "applied 0000_a"]);
        let valid = "select indisvalid from pg_index where indrelid = 't'::regclass";
        assert_eq!(database.rows(valid), ["t"]);
        assert_eq!(database.leftovers(), [] as [String; 0]);
    }
}

#[test]
fn an_orphan_that_runs_on_behind_a_pooler_is_ended_by_the_next_runner() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(4);
    let mut writer = with_writer(&database);
    let folder = Folder::drizzle0(&[("0000_a", BUILD)]);
    let mut killed = premigrate(&pooler.to(&database), &folder).start();
    database.wait_for("the build", BUILDING);
    killed.child.kill().unwrap();
    killed.finish();
    let next = premigrate(&database, &folder).start();
    next.wait_to_say("waiting up to 15.0 s for its runner");
    next.wait_to_say("terminating backend");
    database.wait_for("the drop", DROPPING);
    writer.batch_execute("commit").unwrap();
    next.finish().exits(0).says(&["applied 0000_a"]);
    assert_eq!(
        database.rows("select indisvalid from pg_index where indrelid = 't'::regclass"),
        ["t"]
    );
}

#[test]
fn an_invalid_index_is_built_again_also_where_if_not_exists_would_pass_it_over() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let failed = database.client().batch_execute("create unique index concurrently t_a on t (a)");
    assert!(failed.is_err());
    database.execute("delete from t");
    let sql = "create unique index concurrently if not exists t_a on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&database, &folder)
        .run()
        .exits(0)
        .says(&["rebuilding the invalid index public.t_a"]);
    assert_eq!(
        database.rows("select indisvalid from pg_index where indrelid = 't'::regclass"),
        ["t"]
    );
}

#[test]
fn an_index_that_someone_else_is_building_is_waited_for() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let (builder, writer) = (database.direct(), database.holding("insert into t values (1)"));
    let build = "create index concurrently t_a on t (a)";
    let building = std::thread::spawn(move || builder.execute(build));
    let built = "select indexrelid from pg_index where indrelid = 't'::regclass and indisvalid = ";
    database.wait_for("the build", &format!("{built} false"));
    database.wait_for(
        "its progress",
        "select from pg_stat_progress_create_index where datname = current_database()",
    );
    let index = database.value(&format!("{built} false"));
    let sql = "create index concurrently if not exists t_a on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).start();
    database.wait_for(
        "premigrate",
        "select from pg_stat_activity where datname = current_database() \
         and application_name = 'premigrate' \
         and query like '%pg_stat_progress_create_index%'",
    );
    drop(writer);
    building.join().unwrap();
    run.finish().exits(0).does_not_say("invalid index");
    assert_eq!(database.value(&format!("{built} true")), index);
}

#[test]
fn a_vacuum_is_not_taken_for_the_build_of_an_index_that_is_invalid() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let failed = database.client().batch_execute("create unique index concurrently t_a on t (a)");
    assert!(failed.is_err());
    database.execute("delete from t");
    // What a vacuum takes.
    let vacuum = database.holding("lock table t in share update exclusive mode");
    let folder = Folder::drizzle0(&[("0000_a", "create unique index concurrently t_a on t (a)")]);
    let run = premigrate(&database, &folder).start();
    database.wait_for("the drop", DROPPING);
    drop(vacuum);
    run.finish().exits(0).says(&["rebuilding the invalid index public.t_a"]);
}

#[test]
fn an_index_that_is_invalid_for_want_of_its_partitions_is_not_taken_for_a_build_that_was_cut_off() {
    let database = Database::fresh();
    let tables = "create table p (a int) partition by list (a); \
         create table q partition of p for values in (1)";
    database.execute(&format!("{tables}; create index i on only p (a)"));
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently i on p (a)")]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.says(&["cannot create index on partitioned table"])
        .does_not_say("rebuilding the invalid index");
}

#[test]
fn names_with_unicode_escapes_are_left_to_the_server() {
    let database = Database::fresh();
    database.execute("create table t (a int); create index i on t (a)");
    let sql = "drop index concurrently U&\"\\0069\"; create index concurrently i on U&\"t\" (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows(VALID), ["i true false"]);
}

#[test]
fn an_index_build_that_fails_is_reported_and_built_again_once_its_cause_is_gone() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let sql = "-- é\nselect 1;\ncreate unique index concurrently t_a on t (a);\nselect 2;";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    for expected in [
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: 0000_a: finished step 1 of 3 in TIME
            premigrate: 0000_a failed in step 2 of 3

              ERROR 23505: could not create unique index "t_a"
              DETAIL: Key (a)=(1) is duplicated.
              SCHEMA: public
              TABLE: t
              CONSTRAINT: t_a
              at 0000_a.sql:3:34 (found by name), statement 2 of 3

                2 | select 1;
                3 | create unique index concurrently t_a on t (a);
                  |                                  ^

              A concurrent build cannot be rolled back. It may leave an invalid index, which the next run drops and builds again if the statement names it.

              1 of 3 steps of 0000_a is done and kept; the next run continues with step 2.
        "#]],
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: resuming 0000_a: 1 of 3 steps already done
            premigrate: 0000_a: rebuilding the invalid index public.t_a
            premigrate: 0000_a failed in step 2 of 3

              ERROR 23505: could not create unique index "t_a"
              DETAIL: Key (a)=(1) is duplicated.
              SCHEMA: public
              TABLE: t
              CONSTRAINT: t_a
              at 0000_a.sql:3:34 (found by name), statement 2 of 3

                2 | select 1;
                3 | create unique index concurrently t_a on t (a);
                  |                                  ^

              A concurrent build cannot be rolled back. It may leave an invalid index, which the next run drops and builds again if the statement names it.

              1 of 3 steps of 0000_a is done and kept; the next run continues with step 2.
        "#]],
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: applying 0000_a
            premigrate: resuming 0000_a: 1 of 3 steps already done
            premigrate: 0000_a: rebuilding the invalid index public.t_a
            premigrate: 0000_a failed in step 2 of 3

              ERROR 23505: could not create unique index "t_a"
              DETAIL: Key (a)=(1) is duplicated.
              SCHEMA: public
              TABLE: t
              CONSTRAINT: t_a
              at 0000_a.sql:3:34 (found by name), statement 2 of 3

                2 | select 1;
                3 | create unique index concurrently t_a on t (a);
                  |                                  ^

              A concurrent build cannot be rolled back. It may leave an invalid index, which the next run drops and builds again if the statement names it.

              1 of 3 steps of 0000_a is done and kept; the next run continues with step 2.
        "#]],
    ] {
        premigrate(&database, &folder).run().exits(70).stderr_is(expected);
        let rows = "select step, finished from drizzle.__drizzle_migrations_progress order by 1";
        assert_eq!(database.rows(rows), ["1|t", "2|f"]);
    }
    database.execute("delete from t");
    let run = premigrate(&database, &folder).run().exits(0);
    run.says(&["1 of 3 steps already done", "rebuilding the invalid index public.t_a"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn what_an_interrupted_reindex_has_left_is_shown_with_the_sql_to_drop_it() {
    let database = Database::fresh();
    database.execute("create table t (a int, b text); create index \"I\" on t (a)");
    let mut writer = database.holding("insert into t values (1)");
    let folder = Folder::drizzle0(&[("0000_a", "reindex table concurrently t")]);
    let run = premigrate(&database, &folder).args(&["--statement-timeout", "400ms"]).run();
    let drop = "drop index concurrently public.\"I_ccnew\";";
    run.exits(70).says(&["57014", "an unfinished statement left invalid indexes", drop]);
    writer.batch_execute("commit").unwrap();
    let run = premigrate(&database, &folder).run().exits(0).says(&[drop]);
    for (_, rest) in run.stderr.match_indices("drop index").map(|(at, _)| run.stderr.split_at(at)) {
        database.execute(rest.split(';').next().unwrap());
    }
    assert_eq!(database.rows("select from pg_index where not indisvalid"), [""; 0]);

    folder.add("0001_b", "reindex index concurrently \"I\"");
    premigrate(&database, &folder).run().exits(0).does_not_say("invalid index");
}

#[test]
fn what_a_failed_build_without_a_name_has_left_is_shown_with_the_sql_to_drop_it() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let folder = Folder::drizzle0(&[("0000_a", "create unique index concurrently on t (a)")]);
    let drop = "drop them with: drop index concurrently public.t_a_idx;";
    premigrate(&database, &folder).run().exits(70).says(&["23505", drop]);
    database.execute("delete from t");
    premigrate(&database, &folder).run().exits(0).says(&[drop]);
    assert_eq!(database.rows(VALID), ["t_a_idx false true", "t_a_idx1 true true"]);
}

#[test]
fn an_error_in_a_statement_outside_a_transaction_is_placed_in_the_file() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let sql = "select 1;\n  create index concurrently i on t (lower(é))";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: finished step 1 of 2 in TIME
        premigrate: 0000_a failed in step 2 of 2

          ERROR 42703: column "é" does not exist
          HINT: Perhaps you meant to reference the column "t.a".
          at 0000_a.sql:2:43, statement 2 of 2

            1 | select 1;
            2 |   create index concurrently i on t (lower(é))
              |                                           ^

          A concurrent build cannot be rolled back. It may leave an invalid index, which the next run drops and builds again if the statement names it.

          1 of 2 steps of 0000_a is done and kept; the next run continues with step 2.
    "#]]);
}

#[test]
fn what_stands_before_a_failure_stays_and_the_next_start_goes_on_behind_it() {
    let database = Database::fresh();
    let sql = |last: &str| {
        format!("create table t (a int);\ncommit;\ninsert into t values (1);\ncommit;\n{last}")
    };
    let folder = Folder::drizzle0(&[("0000_a", &sql("insert into t values (1 / 0)"))]);
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: finished step 1 of 3 in TIME
        premigrate: 0000_a: finished step 2 of 3 in TIME
        premigrate: 0000_a failed in step 3 of 3 and was rolled back

          ERROR 22012: division by zero
          at 0000_a.sql:5:1, statement 5 of 5

            4 | commit;
            5 | insert into t values (1 / 0)

          2 of 3 steps of 0000_a are done and kept; the next run continues with step 3.
    "#]]);
    let status = premigrate(&database, &folder).args(&["status", "--exit-code"]).run().exits(10);
    assert!(status.stdout.contains("0000_a  partial (2 of 3)\n"), "{}", status.stdout);

    // Edited in what is done: nothing runs.
    folder.write("0000_a.sql", sql("select 1").replace("(1)", "(2)"));
    let run = premigrate(&database, &folder).run().exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited in steps that are already done; nothing was run. Restore these steps, and make the change after them or in a new migration:

          - 0000_a.sql:3:1, step 2 (2 steps are done)

          1 is pending.
    "#]]);
    premigrate(&database, &folder).args(&["--dry-run"]).run().exits(65);

    // Edited behind it, and between the statements: the rest runs, once.
    folder.write("0000_a.sql", format!("-- remark\n{}", sql("insert into t values (3)")));
    premigrate(&database, &folder).run().exits(0).says(&["2 of 3 steps already done"]);
    assert_eq!(database.rows("select a from t order by a"), ["1", "3"]);
    assert_eq!(database.history(), [folder.hash("0000_a.sql")]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_migration_of_which_only_what_is_done_is_left_is_recorded() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table t (a int);\ncommit;\nselect 1 / 0")]);
    premigrate(&database, &folder).run().exits(70);
    folder.write("0000_a.sql", "create table t (a int);\n");
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
    assert_eq!(database.history(), [folder.hash("0000_a.sql")]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_wrapped_file_that_fails_at_its_last_statement_leaves_nothing() {
    let database = Database::fresh();
    let sql = "begin;\ncreate table t (a int);\nselect 1 / 0;\ncommit;";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 22012: division by zero
          at 0000_a.sql:3:1, statement 3 of 4

            2 | create table t (a int);
            3 | select 1 / 0;
    "#]]);
    assert_eq!(database.tables(), [] as [String; 0]);
    assert_eq!(database.value(PROGRESS), "");
    folder.write("0000_a.sql", "begin;\ncreate table t (a int);\ncommit;");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!((database.tables().len(), database.history().len()), (1, 1));
}

#[test]
fn settings_of_earlier_steps_hold_in_later_ones_and_end_with_the_migration() {
    let database = Database::fresh();
    database.execute("create schema other; create table other.t (a int)");
    let sql = "set search_path = other;\ninsert into t values (1);\ncommit;\n\
         create index concurrently t_a on t (a);\ncreate table u as select current_user as name";
    let folder = Folder::drizzle0(&[("0000_a", sql), ("0001_b", "create table v (a int)")]);
    premigrate(&database, &folder).run().exits(0);
    let tables = "select schemaname || '.' || tablename from pg_tables where tablename in \
         ('t', 'u', 'v') order by 1";
    assert_eq!(database.rows(tables), ["other.t", "other.u", "public.v"]);
}

#[test]
fn limits_hold_for_a_statement_outside_a_transaction_and_are_set_back() {
    let database = Database::fresh();
    let sql = "-- premigrate: no-transaction\n\
         do $$ begin create table seen as select current_setting('lock_timeout') as l, \
         current_setting('statement_timeout') as s; end $$;\n\
         insert into seen select current_setting('lock_timeout'), '-'";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let args = ["--lock-timeout", "7s", "--statement-timeout", "9s"];
    premigrate(&database, &folder).args(&args).run().exits(0);
    assert_eq!(database.rows("select l, s from seen"), ["7s|9s", "7s|-"]);
    let folder = Folder::drizzle0(&[
        ("0000_a", sql),
        ("0001_b", "create table t (a int)"),
        ("0002_c", "select pg_sleep(0.2);\ncommit;\nvacuum t"),
    ]);
    premigrate(&database, &folder).args(&["--statement-timeout", "5s"]).run().exits(0);
}

#[test]
fn with_the_directive_a_procedure_may_commit_and_a_new_enum_value_be_used() {
    let database = Database::fresh();
    database.execute(
        "create type mood as enum ('ok'); create table t (m mood); \
         create procedure p() language plpgsql as \
         $$ begin insert into t values ('ok'); commit; insert into t values ('ok'); end $$",
    );
    let plain = "call p();";
    let folder = Folder::drizzle0(&[("0000_a", plain)]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 2D000: invalid transaction termination
          CONTEXT: PL/pgSQL function p() line 1 at COMMIT
          at 0000_a.sql:1:1, statement 1 of 1

            1 | call p();

          This statement cannot share a transaction with the others. Add the line

            -- premigrate: no-transaction

          to the file. Each statement then runs, and is recorded, on its own.
    "#]]);
    folder.write("0000_a.sql", format!("-- premigrate: no-transaction\n{plain}"));
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_b", "alter type mood add value 'fine';\ninsert into t values ('fine');");
    premigrate(&database, &folder).run().exits(0).says(&["finished step 1 of 2 in"]);
    assert_eq!(database.rows("select m from t order by m"), ["ok", "ok", "fine"]);
}

#[test]
fn a_new_enum_value_is_committed_first_only_if_a_statement_may_use_it() {
    let database = Database::fresh();
    let used = "create type mood as enum ('sad');\nalter type mood add value 'ok';\n\
        create table t (m mood default 'ok');\ninsert into t default values;";
    let folder = Folder::drizzle0(&[("0000_a", used)]);
    premigrate(&database, &folder).run().exits(0).says(&["finished step 1 of 2 in"]);
    assert_eq!(database.value("select m from t"), "ok");

    folder.add(
        "0001_b",
        "alter type mood add value 'fine';\nalter table t add column n int not null;",
    );
    let run = premigrate(&database, &folder).run().exits(70);
    run.says(&["0001_b failed and was rolled back"]).does_not_say("step");
    assert_eq!(database.rows("select unnest(enum_range(null::mood))"), ["sad", "ok"]);
}

#[test]
fn a_directive_that_is_not_understood_is_refused_before_anything_runs() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table t ()"),
        ("0001_b", "-- Premigrate: No-Transaction\nvacuum t"),
    ]);
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&[
        "0001_b.sql:1:1 contains `-- Premigrate: No-Transaction`, which is not understood",
        "write `-- premigrate: no-transaction` on a line of its own",
    ]);
    assert_eq!(database.tables(), [] as [String; 0]);
}

#[test]
fn what_only_the_server_knows_fails_with_the_directive_as_its_cure() {
    if !has_since(14, "REINDEX of a partitioned table") {
        return;
    }
    let database = Database::fresh();
    database.execute("create table t (a int) partition by range (a); create index t_a on t (a)");
    let folder = Folder::drizzle0(&[("0000_a", "reindex table t")]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 25001: REINDEX TABLE cannot run inside a transaction block
          CONTEXT: while reindexing partitioned table "public.t"
          at 0000_a.sql:1:1, statement 1 of 1

            1 | reindex table t

          This statement cannot share a transaction with the others. Add the line

            -- premigrate: no-transaction

          to the file. Each statement then runs, and is recorded, on its own.
    "#]]);
    folder.write("0000_a.sql", "-- premigrate: no-transaction\nreindex table t");
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn the_directive_is_a_cure_also_where_steps_are_done_already() {
    let database = Database::fresh();
    database.execute(
        "create table called (a int); create procedure p() language plpgsql as \
         $$ begin insert into called values (1); commit; end $$",
    );
    let plain = "create table t (a int);\ninsert into t values (1);\n\
         create index concurrently t_a on t (a);\ncall p();\ninsert into u values (2);";
    let folder = Folder::drizzle0(&[("0000_a", plain)]);
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: finished step 1 of 3 in TIME
        premigrate: 0000_a: finished step 2 of 3 (CREATE INDEX CONCURRENTLY) in TIME
        premigrate: 0000_a failed in step 3 of 3 and was rolled back

          ERROR 2D000: invalid transaction termination
          CONTEXT: PL/pgSQL function p() line 1 at COMMIT
          at 0000_a.sql:4:1, statement 4 of 5

            3 | create index concurrently t_a on t (a);
            4 | call p();

          This statement cannot share a transaction with the others. Add the line

            -- premigrate: no-transaction

          to the file. Each statement then runs, and is recorded, on its own.

          2 of 3 steps of 0000_a are done and kept; the next run continues with step 3.
    "#]]);
    let cured = format!("-- premigrate: no-transaction\n{plain}");
    folder.write("0000_a.sql", &cured);
    let status = premigrate(&database, &folder).arg("status").run().exits(0);
    assert!(status.stdout.contains("partial (2 of 4)"), "{}", status.stdout);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: resuming 0000_a: 2 of 4 steps already done
        premigrate: 0000_a: finished step 3 of 4 (a statement) in TIME
        premigrate: 0000_a failed in step 4 of 4 and was rolled back

          ERROR 42P01: relation "u" does not exist
          at 0000_a.sql:6:13, statement 5 of 5

            5 | call p();
            6 | insert into u values (2);
              |             ^

          3 of 4 steps of 0000_a are done and kept; the next run continues with step 4.
    "#]]);
    // What is done is known again, also in part by the one cut and in part by the other.
    folder.write("0000_a.sql", cured.replace("values (1)", "values (2)"));
    premigrate(&database, &folder)
        .run()
        .exits(65)
        .says(&["0000_a.sql:2:1, step 1 (3 steps are done)"]);
    folder.write("0000_a.sql", cured.replace("into u", "into t"));
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
    assert_eq!(database.rows("select a from t order by a"), ["1", "2"]);
    assert_eq!(database.value("select count(*) from called"), "1");
}

#[test]
fn an_unknown_outcome_is_left_to_a_person_with_the_sql_to_go_on() {
    if !has_since(14, "client_connection_check_interval") {
        return;
    }
    let database = Database::fresh();
    database.execute("create table log (a int); create sequence tries");
    let sql = "-- premigrate: no-transaction\n\
         do $$ begin if nextval('tries') = 1 then perform pg_sleep(60); end if; \
         insert into log values (1); end $$";
    let folder = Folder::drizzle0(&[("0000_password", sql)]);
    let mut killed = premigrate(&database, &folder).start();
    let sleeping = "select from pg_stat_activity where datname = current_database() \
         and wait_event = 'PgSleep'";
    database.wait_for("the statement", sleeping);
    killed.child.kill().unwrap();
    killed.finish();
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_password
        premigrate: 0000_password: backend PID still runs a statement of an earlier attempt; waiting up to TIME for its runner to take the lock again
        premigrate: 0000_password: an earlier attempt started a statement outside a transaction, and nothing shows whether it finished; nothing was run

            do $$ begin if nextval('tries') = 1 then perform pg_sleep(60); end if; insert into log values (1); end $$

          Inspect the database. If the statement finished, or you finish it by hand, run:

            update "drizzle"."__drizzle_migrations_progress" set finished = true, statement = null, pid = null, backend_start = null where migration = '0000_password' and step = 1 and not finished;

          To let premigrate run it again, run:

            delete from "drizzle"."__drizzle_migrations_progress" where migration = '0000_password' and step = 1 and not finished;

          1 is pending.
    "#]]);
    premigrate(&database, &folder).run().exits(70);
    // The SQL that has it run again is reported last.
    let again = run_of(&database, &folder).stderr;
    let sql = again.lines().rev().find(|line| line.contains("delete from")).unwrap();
    database.execute(sql.trim());
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value("select count(*) from log"), "1");
    assert_eq!(database.value(PROGRESS), "");
}

fn run_of(database: &Database, folder: &Folder) -> crate::harness::Run {
    premigrate(database, folder).run().exits(70)
}

#[test]
fn a_role_that_may_not_record_progress_is_refused_before_the_first_statement() {
    let database = Database::fresh();
    let first = Folder::drizzle0(&[("0000_a", "create table t (a int)")]);
    premigrate(&database, &first).run().exits(0);
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; grant all on all tables in schema drizzle to {role}; \
         grant all on all sequences in schema drizzle to {role}; \
         grant all on schema public to {role}; alter table t owner to {role}"
    ));
    let limited = database.at(url);
    first.add("0001_b", "insert into t values (1);\ncommit;\ninsert into t values (2)");
    first.add("0002_c", "create index concurrently t_a on t (a)");
    let run = premigrate(&limited, &first).run().exits(77);
    let grant = format!("grant usage, create on schema \"drizzle\" to \"{role}\";");
    run.says(&["42501", &grant]);
    assert_eq!(database.value("select count(*) from t"), "0");
    database.execute(&grant);
    premigrate(&limited, &first).run().exits(0);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_serializable_migration_sees_what_the_lock_was_given_back_with() {
    let database = Database::fresh();
    let level = "insert into log select current_setting('transaction_isolation')";
    let folder = Folder::drizzle0(&[
        (
            "0000_a",
            &format!(
                "set transaction isolation level serializable;\ncreate table log (a text);\n{level}"
            ),
        ),
        ("0001_b", &format!("begin isolation level repeatable read;\n{level};\ncommit;")),
        ("0002_c", level),
    ]);
    let runs: Vec<_> = (0..6).map(|_| premigrate(&database, &folder).start()).collect();
    for run in runs {
        run.finish().exits(0);
    }
    let levels = ["serializable", "repeatable read", "read committed"];
    assert_eq!(database.rows("select a from log"), levels);
    assert_eq!(database.history().len(), 3);
}

#[test]
fn a_table_that_an_idle_transaction_locks_is_waited_for_longer_than_one_attempt() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let mut holder = database.client();
    holder
        .batch_execute("set application_name = 'shop'; begin; select 'secret of shop' from t")
        .unwrap();
    let folder = Folder::drizzle0(&[("0000_a", "alter table t add column b int")]);
    // Long enough to look who is in the way.
    let running = premigrate(&database, &folder).args(&["--lock-timeout", "1500ms"]).start();
    running.wait_to_say("55P03");
    holder.batch_execute("commit").unwrap();
    let run = running.finish().exits(0);
    run.says(&[
        "0000_a is waiting for a lock on t held by backend",
        "of shop, role postgres, idle in transaction for ",
        ": set application_name = '***'; begin; select '***' from t",
        "0000_a rolled back: lock timeout (55P03 canceling statement due to lock timeout; lock on t held by",
    ]);
}

#[test]
fn set_local_does_not_reach_a_statement_outside_the_transaction_and_check_says_so() {
    let database = Database::fresh();
    database.execute("create schema a; create table a.t (b int)");
    let index = "create index concurrently i on t (b)";
    let folder = Folder::drizzle0(&[("0000_a", &format!("set local search_path = a;\n{index}"))]);
    let check = premigrate(&database, &folder).arg("check").run().exits(0);
    assert!(check.stdout.contains("0000_a.sql:1:1: warning: this SET LOCAL"), "{}", check.stdout);
    premigrate(&database, &folder).run().exits(70).says(&["42P01"]);
    let cured = format!("set search_path = a;\n{index};\nreset search_path");
    let folder = Folder::drizzle0(&[("0001_b", &cured)]);
    database.execute("drop schema drizzle cascade");
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn dry_run_and_check_say_how_it_is_cut_and_why() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", CONCURRENT), ("0001_b", "select 1")]);
    let run = premigrate(&database, &folder).arg("--dry-run").run().exits(0);
    let told = "would apply 2 migrations, each in its own transaction or as shown; \
         0 applied already\n  0000_a (7 statements in 4 steps, because it contains BEGIN or COMMIT)\n    1. 2 statements in a transaction\n    \
         2. CREATE INDEX CONCURRENTLY, outside a transaction\n    \
         3. CREATE INDEX CONCURRENTLY, outside a transaction\n    \
         4. 1 statement in a transaction\n  0001_b (1 statement)\n";
    assert!(run.stdout.ends_with(told), "{}", run.stdout);
    let run = premigrate(&database, &folder).arg("check").run().exits(0);
    let told = "0000_a.sql:5:1: warning: the file runs in 4 steps, each recorded when it is done, because \
         it contains BEGIN or COMMIT [split]\n";
    assert!(run.stdout.starts_with(told), "{}", run.stdout);
    assert_eq!(
        database.rows("select 1 from pg_namespace where nspname = 'drizzle'"),
        [] as [String; 0]
    );
}

#[test]
fn dry_run_says_what_is_done_already() {
    let database = Database::fresh();
    let sql = "create table t (a int);\nvacuum t;\nselect 1 / 0;\nvacuum t;";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&database, &folder).run().exits(70);
    let run = premigrate(&database, &folder).arg("--dry-run").run().exits(0);
    let told = "  0000_a (4 statements in 4 steps, because VACUUM cannot run inside a transaction \
         block)\n    1. 1 statement in a transaction, done\n    2. VACUUM, outside a \
         transaction, done\n    3. 1 statement in a transaction\n    4. VACUUM, outside a \
         transaction\n";
    assert!(run.stdout.ends_with(told), "{}", run.stdout);
    let run = premigrate(&database, &folder).args(&["--dry-run", "--format=json"]).run().exits(0);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let done: Vec<_> = told["steps"].as_array().unwrap().iter().map(|step| &step["done"]).collect();
    assert_eq!(done, [true, true, false, false]);
    assert_eq!(told["split_reason"], "VACUUM cannot run inside a transaction block");
    let step = serde_json::json!({
        "step": 2, "outside_transaction": "VACUUM", "statements": 1, "done": true
    });
    assert_eq!(told["steps"][1], step);
}

#[test]
fn progress_of_a_baselined_migration_is_forgotten() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table t (a int);\ncommit;\nselect 1 / 0")]);
    premigrate(&database, &folder).run().exits(70);
    premigrate(&database, &folder).arg("baseline").run().exits(0);
    assert_eq!(database.value(PROGRESS), "");
    premigrate(&database, &folder).run().exits(0).says(&["up to date"]);
}

const VALID: &str = "select indexrelid::regclass || ' ' || indisvalid || ' ' || indisunique \
    from pg_index where indrelid = 't'::regclass order by 1";

#[test]
fn a_build_that_fails_since_its_name_is_taken_is_never_recorded_as_done() {
    let database = Database::fresh();
    database.execute("create table t (a int, b int); create index i on t (a)");
    let folder = Folder::drizzle0(&[("0000_a", "create unique index concurrently i on t (b)")]);
    for _ in 0..3 {
        premigrate(&database, &folder).run().exits(70).says(&["42P07"]);
    }
    assert_eq!(database.rows(VALID), ["i true false"]);
    // Nor is a build whose index the server would name.
    folder.write("0000_a.sql", "create index concurrently on t (lower(c))");
    for _ in 0..2 {
        premigrate(&database, &folder).run().exits(70).says(&["42703"]);
    }
}

#[test]
fn the_outcome_of_a_statement_is_asked_under_the_settings_it_ran_with() {
    let database = Database::fresh();
    database.execute(
        "create schema other; create table other.t (a int); \
         create index t_a on other.t (a)",
    );
    let mut writer = database.holding("insert into other.t values (1)");
    let sql = "set search_path = other;\ndrop index concurrently t_a";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let mut killed = premigrate(&database, &folder).start();
    let dropping = "select from pg_stat_activity where datname = current_database() \
         and query ~ '^/. premigrate \\w{16} ./ drop index' and state = 'active'";
    database.wait_for("the drop", dropping);
    killed.child.kill().unwrap();
    killed.finish();
    writer.batch_execute("commit").unwrap();
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(
        database.rows("select indexrelid from pg_index where indrelid = 'other.t'::regclass"),
        [""; 0]
    );
}

#[test]
fn a_procedure_that_has_committed_a_part_of_its_work_is_not_run_again() {
    let database = Database::fresh();
    database.execute(
        "create table log (a int); create procedure p() language plpgsql as \
         $$ begin insert into log values (1); commit; \
         raise exception 'again' using errcode = '40P01'; end $$",
    );
    let folder = Folder::drizzle0(&[("0000_a", "-- premigrate: no-transaction\ncall p()")]);
    let run = premigrate(&database, &folder).run().exits(70).says(&["40P01"]);
    run.does_not_say("rolled back");
    premigrate(&database, &folder).run().exits(70).says(&["nothing shows whether it finished"]);
    assert_eq!(database.value("select count(*) from log"), "1");
}

#[test]
fn a_statement_put_before_a_build_that_failed_is_run_and_the_build_then_done() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let build = "create unique index concurrently i on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", build)]);
    premigrate(&database, &folder).run().exits(70).says(&["23505"]);
    folder.write("0000_a.sql", format!("delete from t;\n{build}"));
    premigrate(&database, &folder).run().exits(0).says(&["rebuilding the invalid index public.i"]);
    assert_eq!(database.rows(VALID), ["i true true"]);
    assert_eq!(database.value(PROGRESS), "");

    // Also where nothing of it is left to stand alone.
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    folder.write("0000_a.sql", build);
    premigrate(&database, &folder).run().exits(70);
    folder.write("0000_a.sql", "create index i on t (a)");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows(VALID), ["i true false"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn settings_behind_a_statement_do_not_concern_it() {
    let database = Database::fresh();
    let role = crate::harness::unique("later");
    let sql = format!(
        "create table t (a int);\ncreate index concurrently i on t (a);\n\
         create role {role};\nset role {role};\nselect 1"
    );
    let folder = Folder::drizzle0(&[("0000_a", &sql)]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn statements_about_the_whole_database_are_not_in_the_way_of_our_own_lock() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "vacuum full"),
        ("0001_b", &format!("reindex database concurrently {}", database.name)),
        ("0002_c", "reindex schema drizzle"),
    ]);
    let run = premigrate(&database, &folder).args(&["--lock-retries", "0"]).run();
    run.exits(0);
    assert_eq!(database.history().len(), 3);
}

#[test]
fn a_role_with_the_grants_of_the_hint_may_choose_its_isolation_level() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; \
         grant select, insert on all tables in schema drizzle to {role}; \
         grant usage on all sequences in schema drizzle to {role}"
    ));
    folder.add("0001_b", "set transaction isolation level serializable; select 1");
    let limited = database.at(url);
    let run = premigrate(&limited, &folder).run().exits(77);
    let grant = run.stderr.lines().find(|line| line.contains("grant update")).unwrap().trim();
    database.execute(grant);
    premigrate(&limited, &folder).run().exits(0);
}

#[test]
fn a_pooler_that_lets_one_client_in_is_told_as_that_before_the_wait_for_runners_is_over() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let pooler = PgBouncer::start_in("transaction\nmax_client_conn = 1", 5);
    let folder = Folder::drizzle0(&[("0000_index", "create index concurrently t_a on t (a)")]);
    let run = premigrate(&pooler.to(&database), &folder).args(&["--runner-wait", "10m"]).run();
    assert!(run.took < IN_TIME * 3, "{:?}", run.took);
    run.exits(75).says(&["0000_index needs two connections"]).does_not_say("another runner");
}

#[test]
fn a_file_with_a_single_statement_outside_a_transaction_has_no_steps() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let sql = "create index concurrently i on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).arg("--dry-run").run().exits(0);
    run.stdout_is(expect![[r#"
        would apply 1 migration, each in its own transaction or as shown; 0 applied already
          0000_a (1 statement, outside a transaction, because CREATE INDEX CONCURRENTLY cannot run inside a transaction block)
    "#]]);
    let run = premigrate(&database, &folder).arg("check").run().exits(0);
    run.stdout_is(expect![[r#"
        1 migration, no problems found
    "#]]);
    let mut writer = database.holding("insert into t values (1)");
    let running = premigrate(&database, &folder).start();
    database.wait_for("the build", WAITING_FOR_LOCK);
    running.signal("TERM");
    let run = running.finish().exits(143).does_not_say("step");
    run.says(&["0000_a was cancelled during CREATE INDEX CONCURRENTLY."]);
    writer.batch_execute("commit").unwrap();
    let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(0);
    assert!(run.events().iter().all(|event| event["event"] != "step"), "{}", run.stderr);
    folder.add("0001_b", "vacuum t; vacuum t");
    premigrate(&database, &folder).run().exits(0).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: applying 0001_b
        premigrate: 0001_b: finished step 1 of 2 (VACUUM) in TIME
        premigrate: applied 0001_b in TIME
        premigrate: applied 1 migration in TIME
    "#]]);
}
