//! `rehearse`: what is pending runs, is traced, and leaves nothing.

use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use expect_test::expect;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{
    Database, Folder, Premigrate, Run, Running, WAITING_FOR_LOCK, bare, premigrate,
};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Proxy, Side};
use crate::snapshot;

fn rehearse(database: &Database, folder: &Folder) -> Premigrate {
    premigrate(database, folder).args(&["rehearse", "--here", "--lock-retries", "0"])
}

/// Rehearses it in JSON.
fn rehearsed(database: &Database, folder: &Folder) -> Vec<Value> {
    objects(&rehearse(database, folder).args(&["--format", "json"]).run().exits(0))
}

fn objects(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The tables of the migration at this index, each as `[table, lock, queues, rewritten, scanned]`.
fn tables(report: &[Value], index: usize) -> Value {
    let tables = report[index]["tables"].as_array().unwrap().iter();
    let fields = ["table", "lock", "queues", "rewritten", "scanned"];
    tables.map(|table| fields.map(|field| table[field].clone())).map(Value::from).collect()
}

/// The statements of the migration at this index, each as `[ran, reason, message]`.
fn statements(report: &[Value], index: usize) -> Value {
    let statements = report[index]["statements"].as_array().unwrap().iter();
    let fields = ["ran", "reason", "message"];
    statements.map(|it| fields.map(|field| it[field].clone())).map(Value::from).collect()
}

/// A database with rows to lose.
fn shop() -> Database {
    let database = Database::fresh();
    database.execute(
        "create table documents (id serial primary key, title text, pages int); \
         insert into documents (title, pages) select 'd' || g, g from generate_series(1, 500) g; \
         create table tags (document int references documents, name text); \
         insert into tags select g, 'new' from generate_series(1, 100) g; \
         create type mood as enum ('ok'); analyze",
    );
    database
}

/// Everything that a rehearsal could leave.
fn contents(database: &Database) -> String {
    let mut dump = Command::new("pg_dump");
    dump.args(["--dbname", &database.url]);
    let dump = Running::start(dump).finish().exits(0).stdout;
    let is_stable =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    dump.lines().filter(is_stable).collect::<Vec<_>>().join("\n")
}

/// Migrations of every kind that a rehearsal meets.
fn every_kind() -> Folder {
    Folder::drizzle0(&[
        (
            "0000_tables",
            "create table a (a int, b int);\ncreate index a_a on a (a);\n\
             alter table documents alter pages type bigint",
        ),
        (
            "0001_steps",
            "update tags set name = 'old';\ncommit;\n\
             create index concurrently tags_name on tags (name);\nvacuum tags;\n\
             alter type mood add value 'fine';\nselect 'fine'::mood;\n\
             drop index concurrently a_a",
        ),
        (
            "0002_rest",
            "set role none;\ndrop table tags;\ncreate schema s;\nnotify x;\n\
             do $$ begin perform set_config('a.b', 'c', false); end $$",
        ),
    ])
}

#[test]
fn a_rehearsal_reports_each_table_with_its_lock_and_leaves_nothing() {
    let (database, folder) = (shop(), every_kind());
    let before = contents(&database);
    let report = rehearsed(&database, &folder);
    assert_eq!(
        tables(&report, 0),
        json!([["public.documents", "ACCESS EXCLUSIVE", "reads_and_writes", true, true]])
    );
    assert_eq!(report[0]["created"], json!(["public.a"]));
    let documents = &report[0]["tables"][0];
    assert_eq!(documents["rows_before"], 500);
    assert!(documents["bytes_before"].as_u64().unwrap() > 16_384, "{documents}");
    assert!(documents["bytes_after"].as_u64().unwrap() > 16_384, "{documents}");
    assert!(report[0]["wal_bytes"].as_u64().unwrap() > 16_384, "{}", report[0]);
    assert_eq!(report[3]["rehearsed"], 3);
    assert_eq!(contents(&database), before);
    assert_eq!(database.leftovers(), [] as [String; 0]);
    // And `up` then applies all of it.
    premigrate(&database, &folder).run().exits(0).says(&["applied 3 migrations"]);
    let nothing = rehearsed(&database, &folder);
    assert_eq!(
        nothing,
        [json!({"rehearsed": 0, "ms": 0, "not_run": 0, "sequences": [], "session_locks": 0})]
    );
    rehearse(&database, &folder).run().exits(0).stdout_is(expect![[r#"
        nothing is pending, so there is nothing to rehearse
    "#]]);
}

#[test]
fn a_lock_is_held_from_its_statement_to_the_end_of_its_own_migration() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_slow", "alter table tags add column a int; select pg_sleep(0.3)"),
        ("0001_late", "select pg_sleep(0.3); lock table documents in share mode"),
    ]);
    let report = rehearsed(&database, &folder);
    let held = |index: usize| report[index]["tables"][0]["held_ms"].as_u64().unwrap();
    assert!((300..600).contains(&held(0)), "{}", report[0]);
    assert!(held(1) < 300, "{}", report[1]);
    assert_eq!(tables(&report, 1), json!([["public.documents", "SHARE", "writes", false, false]]));
}

#[test]
fn what_is_scanned_and_written_is_counted_for_each_table() {
    let database = shop();
    let folder = Folder::drizzle0(&[(
        "0000_rows",
        "update documents set title = 'x' where id <= 3; delete from tags where document <= 2; \
         insert into tags select 1, 'b' from generate_series(1, 7)",
    )]);
    let report = rehearsed(&database, &folder);
    let of = |name: &str| {
        let tables = report[0]["tables"].as_array().unwrap();
        let table = tables.iter().find(|table| table["table"] == name).unwrap();
        let fields = ["scanned", "rows_inserted", "rows_updated", "rows_deleted", "queues"];
        fields.map(|field| table[field].clone())
    };
    assert_eq!(of("public.documents"), [json!(false), 0.into(), 3.into(), 0.into(), Value::Null]);
    assert_eq!(of("public.tags"), [json!(true), 7.into(), 0.into(), 2.into(), Value::Null]);
}

#[test]
fn a_lock_that_an_earlier_migration_has_taken_is_said_to_be_held_since_then() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_a", "alter table tags add column a int"),
        ("0001_b", "select 1"),
        ("0002_c", "alter table tags add column b int"),
        ("0003_d", "insert into tags (name) values ('c')"),
    ]);
    let report = rehearsed(&database, &folder);
    let held = |index: usize| {
        let tables = report[index]["tables"].as_array().unwrap().iter();
        let fields = ["table", "lock", "already_held", "already_held_since", "queues"];
        tables
            .map(|table| fields.map(|field| table[field].clone()))
            .map(Value::from)
            .collect::<Value>()
    };
    let exclusive = "ACCESS EXCLUSIVE";
    let all = "reads_and_writes";
    assert_eq!(held(0), json!([["public.tags", exclusive, null, null, all]]));
    assert_eq!(held(1), json!([]));
    assert_eq!(held(2), json!([["public.tags", null, exclusive, "0000_a", all]]));
    assert_eq!(held(3), json!([["public.tags", "ROW EXCLUSIVE", null, null, null]]));
}

#[test]
fn a_migration_that_fails_is_reported_as_up_reports_it_behind_what_ran_before() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_good", "lock table tags in share mode"),
        ("0001_bad", "alter table documents add column body text;\nupdate documents set a = titel"),
    ]);
    let before = contents(&database);
    let run = rehearse(&database, &folder).run().exits(70);
    assert_eq!(contents(&database), before);
    let (first, rest) = run.stdout.split_once("\n\n").unwrap();
    assert!(first.starts_with("0000_good: ") && first.contains("SHARE"), "{first}");
    assert!(rest.starts_with("0001_bad: failed after "), "{rest}");
    assert!(rest.contains("rehearsed 1 migration in "), "{rest}");
    let rehearsed = run.stderr;
    let up = premigrate(&database, &folder).run().exits(70).stderr;
    let failure = |text: &str| {
        let (_, failure) = text.split_once("0001_bad failed").unwrap();
        failure.split("\n\n  1 ").next().unwrap().to_owned()
    };
    assert_eq!(failure(&rehearsed).trim_end(), failure(&up).trim_end());
}

#[test]
fn an_index_is_built_without_concurrently_and_reported_with_the_lock_of_up() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create index concurrently i on tags (name)"),
        ("0001_b", "drop index concurrently i;\nreindex index concurrently documents_pkey"),
    ]);
    let report = rehearsed(&database, &folder);
    let lock = "SHARE UPDATE EXCLUSIVE";
    assert_eq!(tables(&report, 0), json!([["public.tags", lock, "maintenance", false, true]]));
    assert_eq!(statements(&report, 0), json!([["without_concurrently", null, null]]));
    let locks = report[0]["statements"][0]["locks"].as_array().unwrap();
    assert!(locks.contains(&json!({"table": "public.tags", "lock": "SHARE"})), "{locks:?}");
    assert_eq!(report[1]["outcome"], "rehearsed");
    let text = rehearse(&database, &folder).run().exits(0).stdout;
    let remark =
        "0000_a.sql:1:1 ran without CONCURRENTLY; with it, `up` takes SHARE UPDATE EXCLUSIVE";
    assert!(text.contains(remark), "{text}");
    // A duplicate is found, too.
    database.execute("insert into tags select 1, 'twice' from generate_series(1, 2)");
    let unique =
        Folder::drizzle0(&[("0000_u", "create unique index concurrently u on tags (name)")]);
    rehearse(&database, &unique).run().exits(70).says(&["ERROR 23505", "at 0000_u.sql:1"]);
}

#[test]
fn what_no_transaction_can_hold_or_undo_is_not_run() {
    let (database, folder) = (shop(), Folder::drizzle0(&[]));
    let file = folder.path.join("made-by-copy");
    database.execute("create procedure p() language plpgsql as 'begin commit; end'");
    folder.add("0000_vacuum", "vacuum tags; alter system set work_mem = '1MB'");
    folder.add("0001_procedure", "-- premigrate: no-transaction\ncall p();\nselect 1");
    folder.add("0002_program", &format!("copy tags to program 'touch {}'", file.display()));
    folder.add("0003_reload", "do $$ begin perform pg_reload_conf(); end $$");
    folder.add("0004_isolated", "set transaction isolation level serializable; select 1");
    let report = rehearsed(&database, &folder);
    let no = "no_transaction_block";
    assert_eq!(
        (0..5).map(|index| statements(&report, index)).collect::<Vec<_>>(),
        [
            json!([
                ["no", no, "VACUUM cannot run inside a transaction block"],
                ["no", no, "ALTER SYSTEM cannot run inside a transaction block"],
            ]),
            json!([
                [
                    "no",
                    no,
                    "it cannot run inside a transaction block (2D000 invalid transaction termination)"
                ],
                ["as_it_is", null, null],
            ]),
            json!([["no", "not_undone", "no rollback undoes COPY with a program"]]),
            json!([["no", "not_undone", "no rollback undoes pg_reload_conf"]]),
            json!([
                [
                    "no",
                    "transaction_modes",
                    "one READ COMMITTED transaction holds the whole rehearsal"
                ],
                ["as_it_is", null, null],
            ]),
        ]
    );
    assert_eq!(report[5]["not_run"], 6);
    assert!(!file.exists());
}

#[test]
fn a_migration_that_commits_by_itself_changes_nothing() {
    let database = shop();
    let before = contents(&database);
    database
        .execute("create procedure p() language plpgsql as 'begin create table x (); commit; end'");
    let with_procedure = contents(&database);
    for (sql, code) in [
        ("create table x ();\ncommit;\ncreate table y ()", 0),
        ("begin;\ncreate table x ();\nend;\nbegin;\ncreate table y ();\ncommit", 0),
        ("do $$ begin create table x (); commit; end $$", 70),
        ("call p()", 70),
        ("-- premigrate: no-transaction\ncall p()", 0),
        ("-- premigrate: no-transaction\ndo $$ begin create table x (); commit; end $$", 0),
    ] {
        let folder = Folder::drizzle0(&[("0000_commits", sql)]);
        rehearse(&database, &folder).run().exits(code);
        assert_eq!(contents(&database), with_procedure, "{sql}");
    }
    database.execute("drop procedure p");
    assert_eq!(contents(&database), before);
}

#[test]
fn what_needs_a_new_enum_value_is_not_run_nor_what_needs_that() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_value", "alter type mood add value 'fine'"),
        (
            "0001_use",
            "create table m (m mood default 'fine');\ninsert into m values ('ok');\nselect 1",
        ),
    ]);
    let report = rehearsed(&database, &folder);
    assert_eq!(report[1]["outcome"], "partly");
    assert_eq!(
        statements(&report, 1),
        json!([
            [
                "no",
                "enum_value",
                "the new value has to be committed first \
                 (55P04 unsafe use of new value \"fine\" of enum type mood)"
            ],
            [
                "no",
                "depends",
                "it failed (42P01 relation \"m\" does not exist), and may need 0001_use.sql:1:1, \
                 which was not run"
            ],
            ["as_it_is", null, null],
        ])
    );
    // What has nothing to do with it is a failure.
    folder.add("0002_bad", "select nothing");
    rehearse(&database, &folder).run().exits(70).says(&["0002_bad failed", "ERROR 42703"]);
}

#[test]
fn the_data_of_a_copy_is_sent() {
    let database = shop();
    let good = "copy tags from stdin;\n1\ta\n2\tb\n\\.\nselect 1";
    let folder = Folder::drizzle0(&[("0000_copy", good)]);
    let report = rehearsed(&database, &folder);
    assert_eq!(report[0]["statements"].as_array().unwrap().len(), 2);
    let tags =
        report[0]["tables"].as_array().unwrap().iter().find(|it| it["table"] == "public.tags");
    assert_eq!(tags.unwrap()["rows_inserted"], 2);
    folder.write("0000_copy.sql", "copy tags from stdin;\n1\ta\nx\tb\n\\.\n");
    rehearse(&database, &folder).run().exits(70).says(&["at 0000_copy.sql:3"]);
}

#[test]
fn the_role_and_the_settings_of_a_file_do_not_disturb_the_tracing_and_stay_as_they_are() {
    let database = shop();
    let (role, _) = database.role();
    database.execute(&format!(
        "grant usage, create on schema public to {role}; grant all on tags to {role}"
    ));
    let settings = format!(
        "set role {role}; set local statement_timeout = '200ms'; set search_path = nowhere; \
         set local lock_timeout = '1ms'; update public.tags set name = 'z'; \
         do $$ begin if current_user <> '{role}' or current_setting('statement_timeout') <> '200ms' \
         or current_setting('search_path') <> 'nowhere' then raise 'lost'; end if; end $$; \
         set session authorization {role}; update public.tags set name = 'y'"
    );
    let next = "do $$ begin if current_user <> session_user \
        or current_setting('search_path') = 'nowhere' or current_setting('statement_timeout') <> '0' \
        then raise 'kept'; end if; end $$";
    let folder = Folder::drizzle0(&[("0000_role", &settings), ("0001_next", next)]);
    let report = rehearsed(&database, &folder);
    assert_eq!(report[0]["tables"][0]["rows_updated"], 200);
    // The limit of the file holds for the file.
    folder.write("0000_role.sql", "set statement_timeout = '50ms'; select pg_sleep(1)");
    rehearse(&database, &folder).run().exits(70).says(&["ERROR 57014"]);
}

#[test]
fn deferred_constraints_are_checked_at_the_end_of_their_own_migration() {
    let database = Database::fresh();
    database.execute(
        "create table parent (id int primary key); \
         create table child (id int references parent deferrable initially deferred)",
    );
    let rows = |child: i32, parent: i32| {
        format!("insert into child values ({child}); insert into parent values ({parent})")
    };
    let folder = Folder::drizzle0(&[
        ("0000_rows", &rows(1, 1)),
        // Would be an error while checks are due.
        ("0001_alter", "alter table child add column a int"),
        ("0002_rows", &rows(2, 2)),
        ("0003_made", "create table late (id int references parent deferrable initially deferred)"),
        ("0004_rows", "insert into late values (3); insert into parent values (3)"),
    ]);
    rehearsed(&database, &folder);
    folder.add("0005_bad", "insert into child values (9)");
    folder.add("0006_next", "select 1");
    rehearse(&database, &folder).run().exits(70).says(&["0005_bad failed", "ERROR 23503"]);
    premigrate(&database, &folder).run().exits(70).says(&["0005_bad failed", "ERROR 23503"]);
}

#[test]
fn settings_that_an_earlier_step_has_computed_are_there_in_the_next() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[(
        "0000_steps",
        "select set_config('app.a', lower('X'), false);\nvacuum;\n\
         do $$ begin if current_setting('app.a') <> 'x' then raise 'lost'; end if; end $$",
    )]);
    let report = rehearsed(&database, &folder);
    assert_eq!(report[0]["outcome"], "partly");
    assert_eq!(database.tables(), [] as [String; 0]);
}

#[test]
fn a_sequence_is_not_set_and_one_that_a_failed_statement_used_is_named() {
    let database = shop();
    let set = Folder::drizzle0(&[("0000_set", "select setval('documents_id_seq', 3)")]);
    let report = rehearsed(&database, &set);
    assert_eq!(statements(&report, 0), json!([["no", "not_undone", "no rollback undoes setval"]]));
    assert_eq!(database.value("select last_value from documents_id_seq"), "500");
    let failing = Folder::drizzle0(&[(
        "0000_fails",
        "insert into documents (title) values ('a'); insert into documents (id) values (1)",
    )]);
    let failing_at_once = Folder::drizzle0(&[(
        "0000_fails",
        "insert into documents (pages) select 1 / (3 - g) from generate_series(1, 5) g",
    )]);
    for (folder, change) in [(failing, "500 before, 501 now"), (failing_at_once, "501 before, ")] {
        let run = rehearse(&database, &folder).run().exits(70);
        let named = format!("the sequence public.documents_id_seq has changed ({change}");
        assert!(run.stdout.contains(&named), "{}", run.stdout);
    }
}

#[test]
fn a_savepoint_of_one_migration_is_gone_in_the_next() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_a", "savepoint a; insert into tags (name) values ('a')"),
        ("0001_b", "select 1;\nrollback to a"),
    ]);
    rehearse(&database, &folder).run().exits(70).says(&["ERROR 3B001", "at 0001_b.sql:2"]);
    let own = Folder::drizzle0(&[("0000_a", "savepoint a; create table x (); rollback to a")]);
    rehearse(&database, &own).run().exits(0);
}

#[test]
fn a_commit_that_no_text_shows_is_not_said_to_be_rolled_back() {
    let database = shop();
    let folder = Folder::drizzle0(&[(
        "0000_hidden",
        "do $$ begin perform set_config('standard_conforming_strings', 'off', true); end $$;\n\
         select 'a\\', '; create table x (); commit; --'",
    )]);
    let run = rehearse(&database, &folder).run().exits(70);
    assert!(run.stdout.contains("part of it may be committed"), "{}", run.stdout);
    assert!(!run.stdout.contains("all of it was rolled back"), "{}", run.stdout);
    assert!(run.stderr.contains("ended the transaction of the rehearsal"), "{}", run.stderr);
    assert!(!run.stderr.contains("baseline"), "{}", run.stderr);
    assert!(database.tables().contains(&"x".to_owned()));
}

#[test]
fn locks_that_a_file_takes_for_its_session_do_not_stay_behind_a_pooler() {
    let database = shop();
    let pooler = PgBouncer::start(2);
    let folder = Folder::drizzle0(&[(
        "0000_lock",
        "select pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock_shared(2, 3), \
         pg_advisory_xact_lock(4)",
    )]);
    let report = rehearsed(&pooler.to(&database), &folder);
    assert_eq!(report[1]["session_locks"], 2);
    let left = "select count(*) from pg_locks where locktype = 'advisory' and database = \
        (select oid from pg_database where datname = current_database())";
    assert_eq!(database.value(left), "0");
}

#[test]
fn an_isolation_level_that_a_rehearsal_does_not_have_is_said() {
    let database = shop();
    let sql = "begin isolation level serializable;\nupdate tags set name = 'x';\ncommit";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    assert_eq!(rehearsed(&database, &folder)[0]["isolation"], "serializable");
    let text = rehearse(&database, &folder).run().exits(0).stdout;
    let remark = "`up` runs it in SERIALIZABLE; it was rehearsed in READ COMMITTED";
    assert!(text.contains(remark), "{text}");
    assert!(text.contains("writes of these rows"), "{text}");
}

#[test]
fn sequences_that_have_gone_on_are_named_and_the_history_is_not_among_them() {
    let database = shop();
    premigrate(&database, &Folder::drizzle0(&[("0000_a", "select 1")])).run().exits(0);
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    folder.add("0001_b", "insert into documents (title) values ('a'), ('b')");
    folder.add("0002_c", "select pg_advisory_lock(1); select last_value from documents_id_seq");
    let report = rehearsed(&database, &folder);
    assert_eq!(
        report[2]["sequences"],
        json!([{"sequence": "public.documents_id_seq", "before": 500, "after": 502}])
    );
    assert_eq!(report[2]["session_locks"], 1);
    let next = "select last_value from drizzle.__drizzle_migrations_id_seq";
    assert_eq!(database.value(next), "1");
    let text = rehearse(&database, &folder).run().exits(0).stdout;
    let named = "the sequence public.documents_id_seq has changed (502 before, 504 now)";
    assert!(text.contains(named), "{text}");
}

#[test]
fn from_scratch_rehearses_all_migrations_and_only_in_an_empty_database() {
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a (a int)"),
        ("0001_b", "alter table a add column b int"),
        ("0002_c", "alter table a alter b type bigint"),
    ]);
    let database = Database::fresh();
    let from_scratch = |database: &Database| {
        rehearse(database, &folder).args(&["--from-scratch", "--format", "json"])
    };
    let report = objects(&from_scratch(&database).run().exits(0));
    assert_eq!(report[0]["created"], json!(["public.a"]));
    let a = &report[2]["tables"][0];
    assert_eq!(
        [&a["table"], &a["already_held"], &a["already_held_since"], &a["rewritten"]],
        [&json!("public.a"), &json!("ACCESS EXCLUSIVE"), &json!("0000_a"), &json!(true)]
    );
    assert_eq!(database.rows("select from pg_namespace where nspname = 'drizzle'").len(), 0);
    premigrate(&database, &folder).args(&["--through", "0000_a"]).run().exits(0);
    rehearse(&database, &folder).arg("--from-scratch").run().exits(64).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: the database is not empty, and --from-scratch rehearses all migrations in an empty one; nothing was run. Leave out --from-scratch to rehearse what is pending

          2 are pending.
    "#]]);
    from_scratch(&shop()).run().exits(64);
}

#[test]
fn through_rehearses_only_a_part() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select nothing")]);
    let run = rehearse(&database, &folder).args(&["--through", "0000_a"]).run().exits(0);
    assert!(run.stdout.contains("rehearsed 1 migration"), "{}", run.stdout);
}

#[test]
fn a_rehearsal_has_to_be_told_where_and_starts_no_app() {
    let (database, folder) = (Database::fresh(), Folder::drizzle0(&[("0000_a", "select 1")]));
    let run = |args: &[&str]| premigrate(&database, &folder).arg("rehearse").args(args).run();
    for args in [&[][..], &["--here", "--on", &database.url]] {
        run(args).exits(64).stderr_is(expect![[r#"
            premigrate: `rehearse` needs either --here, for the database that the environment names, or --on URL, for another one (see --help)
        "#]]);
    }
    run(&["--on", "postgres://u:secret@127.0.0.1:1/d"]).exits(64).stderr_is(expect![[r#"
        premigrate: --on does not accept a URL that is enough to log in, because everyone on the host can read a command line: set PREMIGRATE_ON to it instead (see --help)
    "#]]);
    run(&["--here", "--", "echo"]).exits(64).says(&["`rehearse` does not start an app"]);
}

#[test]
fn on_names_another_database_than_the_environment() {
    let (database, other) = (Database::fresh(), shop());
    let folder = Folder::drizzle0(&[("0000_a", "lock table tags in share mode")]);
    rehearse(&database, &folder).run().exits(70);
    let on =
        |name: &str| bare().arg("--dir").arg(&folder.path).env(name, &database.url).arg("rehearse");
    on("DATABASE_URL").args(&["--on", &other.url]).run().exits(0);
    on("MIGRATION_DATABASE_URL").args(&["--on", &other.url]).run().exits(0);
    let with_password = other.url.replace("postgres@", "postgres:any@");
    on("DATABASE_URL").env("PREMIGRATE_ON", with_password).run().exits(0);
}

#[test]
fn a_runner_at_work_is_waited_for_and_none_starts_during_a_rehearsal() {
    let (database, folder) = (shop(), Folder::drizzle0(&[("0000_a", "select pg_sleep(2)")]));
    let mut holder = database.holding(&premigrate::apply::lock::take_sql());
    let run = rehearse(&database, &folder).args(&["--runner-wait", "0"]).run().exits(75);
    run.says(&["another runner is still at work"]);
    holder.batch_execute("rollback").unwrap();
    let rehearsal = rehearse(&database, &folder).start();
    database.wait_for(
        "a rehearsal",
        "select from pg_stat_activity where query like '%pg_sleep%' \
         and datname = current_database() and state = 'active' and pid <> pg_backend_pid()",
    );
    premigrate(&database, &folder).args(&["--runner-wait", "0"]).run().exits(75);
    rehearsal.finish().exits(0);
}

#[test]
fn a_lock_that_others_hold_is_waited_for_briefly_and_then_again() {
    let (database, folder) =
        (shop(), Folder::drizzle0(&[("0000_a", "alter table tags add a int")]));
    let mut blocker = database.holding("select from tags");
    let run = rehearse(&database, &folder).run().exits(75);
    run.says(&[
        "0000_a failed and was rolled back",
        "ERROR 55P03",
        "Every attempt ran into a lock",
    ]);
    let rehearsal =
        premigrate(&database, &folder).args(&["rehearse", "--here", "--lock-retries", "9"]).start();
    rehearsal.wait_to_say("attempt 2");
    blocker.batch_execute("rollback").unwrap();
    let run = rehearsal.finish().exits(0);
    assert_eq!(objects_of_text(&run), 1);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

/// How many migrations the text reports.
fn objects_of_text(run: &Run) -> usize {
    run.stdout.lines().filter(|line| line.starts_with("0000_a: ")).count()
}

#[test]
fn a_signal_ends_a_rehearsal_and_nothing_is_left() {
    let (database, folder) = (shop(), every_kind());
    folder.add("0003_slow", "select pg_sleep(60)");
    let before = contents(&database);
    let running = rehearse(&database, &folder).start();
    database.wait_for(
        "the sleep",
        "select from pg_stat_activity where query like '%pg_sleep(60)%' \
         and datname = current_database() and state = 'active' and pid <> pg_backend_pid()",
    );
    running.signal("TERM");
    running.finish().exits(143).says(&["interrupted by SIGTERM; 0003_slow was rolled back"]);
    assert_eq!(contents(&database), before);
    assert_eq!(database.leftovers(), [] as [String; 0]);
    database.wait_for_no("lock", WAITING_FOR_LOCK);
}

/// Schema, data and sequences, in one text; `contents` would take too long for every message.
fn state(database: &Database) -> Vec<String> {
    database.rows(
        "select relname, relfilenode, relkind from pg_class \
         where relnamespace::regnamespace::text not like 'pg_%' order by 1; \
         select count(*), sum(pages) from documents; select name, count(*) from tags group by 1; \
         select last_value from documents_id_seq; select enumlabel from pg_enum; \
         select nspname from pg_namespace where nspname not like 'pg_%' order by 1",
    )
}

#[test]
fn a_rehearsal_that_is_cut_or_killed_at_any_message_leaves_nothing() {
    let folder = every_kind();
    let start = |database: &Database| {
        let rehearsal = premigrate(database, &folder).args(&["rehearse", "--here"]);
        rehearsal.args(&["--wait", "0", "--runner-wait", "5s"]).start()
    };
    // Every message that is sent, and the end of every answer.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let counted = Proxy::start(move |message| {
        if message.from == Side::Client || message.tag == b'Z' {
            log.lock().unwrap().push((message.from, message.number));
        }
        Action::Pass
    });
    start(&counted.to(&shop())).finish().exits(0);
    let messages = seen.lock().unwrap().clone();
    assert!(messages.len() > 100, "{}", messages.len());
    let (next, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let database = shop();
                let expected = state(&database);
                loop {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(&(from, number)) = messages.get(place) else { return };
                    // The server cannot be reached again.
                    let cut = Proxy::start(move |message| {
                        let is_past = message.from == from && message.number >= number;
                        if is_past { Action::Cut } else { Action::Pass }
                    });
                    let run = start(&cut.to(&database)).finish();
                    // The last messages only confirm the end.
                    assert!([0, 69, 75].contains(&run.code), "{from:?} {number}: {}", run.stderr);
                    assert_eq!(state(&database), expected, "cut: {from:?} {number}");
                    assert_eq!(database.leftovers(), [] as [String; 0], "cut: {from:?} {number}");

                    let pid = Arc::new(AtomicI32::new(0));
                    let victim = pid.clone();
                    let arrives = [Action::Pass, Action::Cut][place % 2];
                    let killed = Proxy::start(move |message| {
                        if (message.from, message.number) != (from, number) {
                            return Action::Pass;
                        }
                        while victim.load(Ordering::SeqCst) == 0 {
                            thread::yield_now();
                        }
                        let _ = kill(Pid::from_raw(victim.load(Ordering::SeqCst)), Signal::SIGKILL);
                        arrives
                    });
                    let running = start(&killed.to(&database));
                    pid.store(running.pid() as i32, Ordering::SeqCst);
                    // One of the last messages may not come a second time.
                    let code = running.finish().code;
                    assert!([-9, 0].contains(&code), "{from:?} {number}: {code}");
                    kills.fetch_add(usize::from(code == -9), Ordering::SeqCst);
                    assert_eq!(database.leftovers(), [] as [String; 0], "{from:?} {number}");
                    assert_eq!(state(&database), expected, "killed: {from:?} {number}");
                }
            });
        }
    });
    let kills = kills.load(Ordering::SeqCst);
    assert!(kills + 5 > messages.len(), "{kills} of {}", messages.len());
}

#[test]
fn the_report_is_markdown_or_a_picture_if_asked_for() {
    let (database, folder) = (shop(), Folder::empty());
    folder.write("1_a.sql", "alter table tags alter name type varchar(9)");
    let file = |name: &str| folder.path.join(name);
    let run = rehearse(&database, &folder)
        .args(&["--format", "markdown"])
        .arg("--html")
        .arg(file("r.html"))
        .arg("--svg")
        .arg(file("r.svg"))
        .run()
        .exits(0);
    assert!(run.stdout.starts_with("### 1\\_a: "), "{}", run.stdout);
    assert!(run.stdout.contains("| public.tags | "), "{}", run.stdout);
    run.says(&["premigrate: 1 migration in"]);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert!(read("r.svg").starts_with("<?xml") && read("r.svg").contains("public.tags"));
    assert!(read("r.html").contains("<td>ACCESS EXCLUSIVE</td>"));
    // Also where a migration fails.
    folder.write("2_b.sql", "select nothing");
    std::fs::remove_file(file("r.svg")).unwrap();
    rehearse(&database, &folder).arg("--svg").arg(file("r.svg")).run().exits(70);
    assert!(read("r.svg").contains("public.tags"));
    std::fs::remove_file(file("2_b.sql")).unwrap();
    let nowhere = file("nowhere/r.svg");
    let run = rehearse(&database, &folder).arg("--svg").arg(nowhere).run().exits(78);
    run.says(&["premigrate: --svg: ", "nowhere/r.svg cannot be written"]);
    let status = premigrate(&database, &folder).args(&["status", "--format", "markdown"]);
    status.run().exits(78).says(&["--format must be text or json"]);
}

#[test]
fn the_report_is_a_table_for_each_migration() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_pages", "alter table documents alter pages type bigint; create table a (a int)"),
        ("0001_index", "create index on tags (name);\nvacuum tags"),
        ("0002_nothing", "select 1"),
    ]);
    let run = rehearse(&database, &folder).run().exits(0);
    // The widths of the columns depend on the times.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = run.stdout.lines().map(words).collect::<Vec<_>>().join("\n") + "\n";
    snapshot::is(
        &with_times_masked(&text),
        &expect![[r#"
        0000_pages: N ms, N bytes of WAL
        table size lock held waiting meanwhile also
        public.documents 56 kB ACCESS EXCLUSIVE N ms reads and writes rewritten, now 40 kB, a sequential scan began
        new: public.a

        0001_index: N ms, N bytes of WAL
        table size lock held waiting meanwhile also
        public.tags 16 kB SHARE N ms writes a sequential scan began
        0001_index.sql:2:1 was not run: VACUUM cannot run inside a transaction block

        0002_nothing: N ms, N bytes of WAL
        it takes no table lock that anything waits for, and begins no sequential scan

        rehearsed 3 migrations in N ms; all of it was rolled back
        1 statement was not run, as shown
    "#]],
    );
}

/// Without times and sizes of the WAL, which differ.
fn with_times_masked(text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        let is_number = words[index - 1].starts_with(|c: char| c.is_ascii_digit());
        if is_number && words[index].trim_end_matches([',', ';']) == "ms" {
            words[index - 1] = "N".to_owned();
        }
        if is_number && words.get(index + 1).is_some_and(|next| next == "of") {
            words[index - 1] = "N".to_owned();
            words[index] = "bytes".to_owned();
        }
    }
    words.join(" ")
}
