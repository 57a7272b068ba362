//! How large the tables are that pending statements work on: in `check --database`, in `--dry-run`, and for
//! `--max-blocking`.

use std::time::Duration;

use expect_test::expect;
use serde_json::{Value, json};

use crate::harness::{Database, Folder, Premigrate, Run, has_since, premigrate};
use crate::pgbouncer::PgBouncer;

/// A table of 20 MB that few rows fill, and a small one.
const TABLES: &str = "create table orders (id bigint primary key, total int) with (fillfactor = 10); \
    insert into orders select i, i from generate_series(1, 60000) i; \
    create table settings (id int, value text); \
    insert into settings select i, 'v' from generate_series(1, 100) i; analyze";

fn shop() -> Database {
    let database = Database::fresh();
    database.execute(TABLES);
    database
}

/// With one pending migration.
fn pending(sql: &str) -> Folder {
    Folder::drizzle0(&[("0000_pending", sql)])
}

fn limited(database: &Database, folder: &Folder, limit: &str) -> Premigrate {
    premigrate(database, folder).args(&["--max-blocking", limit])
}

/// Everything that a run could change.
fn state(database: &Database) -> Vec<String> {
    database.rows(
        "select format('%s %s', oid::regclass, relfilenode) from pg_class \
         where relnamespace in (select oid from pg_namespace where nspname in ('public', 'drizzle')) \
         order by 1",
    )
}

fn objects(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_rewrite_of_a_larger_table_is_refused_before_anything_runs() {
    let database = shop();
    let folder = Folder::drizzle0(&[("0000_first", "create table first (a int)")]);
    folder.add(
        "0001_total",
        "alter table settings add note text;\n\nalter table orders alter total type bigint",
    );
    let before = state(&database);
    let run = limited(&database, &folder, "10MB").args(&["--", "echo", "started"]).run().exits(65);
    assert_eq!(run.stdout, "");
    run.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: some pending statements scan or rewrite a table of more than 10 MB (--max-blocking) while others wait for it; nothing was run:

          - 0001_total.sql:3:20: a new type for total takes ACCESS EXCLUSIVE on orders and rewrites it, so reads and writes wait until it is done; add a column of the new type, fill it in batches, and use that one. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [type-rewrite]
          - 0001_total.sql:3:20: line 1 has taken ACCESS EXCLUSIVE on settings, and nobody reads or writes settings until this statement is done, too; move one of them to another migration. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [lock-held]

          Change the migrations, for example to the SQL above. To run a statement as it is, raise
          --max-blocking, or write `-- premigrate: ignore RULE because REASON` above it.

          2 are pending. The app was not started.
    "#]]);
    assert_eq!(state(&database), before);
    assert_eq!(database.leftovers(), [""; 0]);

    limited(&database, &folder, "1GB").run().exits(0).says(&["applied 2 migrations"]);
    assert_eq!(database.history().len(), 2);
}

#[test]
fn the_limit_is_a_size_and_its_variable_sets_it() {
    let (database, folder) = (shop(), pending("create index on orders (total)"));
    let run = || premigrate(&database, &folder);
    for wrong in ["much", "10 mib", "-1", ""] {
        run()
            .args(&["--max-blocking", wrong])
            .run()
            .exits(78)
            .says(&["--max-blocking must be a size"]);
    }
    run().env("PREMIGRATE_MAX_BLOCKING", "1MB").run().exits(65).says(&["orders"]);
    run().env("PREMIGRATE_MAX_BLOCKING", "1MB").arg("status").run().exits(0);
    let exactly = database.value("select pg_table_size('orders')").parse::<u64>().unwrap();
    run().args(&["--max-blocking", &format!("{}", exactly - 1)]).run().exits(65);
    run().args(&["--max-blocking", &format!("{exactly}")]).run().exits(0);
}

#[test]
fn the_error_is_data_too() {
    let database = shop();
    let folder = pending("select 1;\ncreate index on orders (total); vacuum full settings");
    let run = limited(&database, &folder, "0").args(&["--format", "json"]).run().exits(65);
    let mut error = run.events().pop().unwrap();
    for statement in error["statements"].as_array_mut().unwrap() {
        statement["size"]["bytes"] = json!(statement["size"]["bytes"].as_u64().unwrap() >> 20);
        statement["size"]["index_bytes"] =
            json!(statement["size"]["index_bytes"].as_u64().unwrap() >> 20);
    }
    error.as_object_mut().unwrap().remove("message");
    expect![[r#"
        {
          "event": "error",
          "error": "table_too_large",
          "max_blocking": 0,
          "statements": [
            {
              "migration": "0000_pending",
              "file": "0000_pending.sql",
              "line": 2,
              "column": 1,
              "rule": "index-locks-writes",
              "message": "CREATE INDEX takes SHARE on orders and scans it, so writes wait until it is done; create it CONCURRENTLY",
              "size": {
                "table": "orders",
                "rows": 60000,
                "bytes": 26,
                "index_bytes": 1,
                "partitions": 0
              },
              "patch": "create index CONCURRENTLY on orders (total);"
            },
            {
              "migration": "0000_pending",
              "file": "0000_pending.sql",
              "line": 2,
              "column": 33,
              "rule": "rewrite",
              "message": "VACUUM FULL takes ACCESS EXCLUSIVE on settings and rewrites it, so reads and writes wait until it is done; run it at a quiet time, or use pg_repack",
              "size": {
                "table": "settings",
                "rows": 100,
                "bytes": 0,
                "index_bytes": 0,
                "partitions": 0
              },
              "patch": null
            }
          ],
          "applied": [],
          "pending": [
            "0000_pending"
          ],
          "uncertain": [],
          "in_progress": null,
          "exit_code": 65
        }"#]].assert_eq(&serde_json::to_string_pretty(&error).unwrap());
}

#[test]
fn what_does_not_keep_others_waiting_for_a_scan_is_not_refused() {
    for sql in [
        "drop table orders",
        "truncate orders",
        "drop index orders_pkey_2",
        "alter table orders add note text",
        "update orders set total = 1 where id = 1",
        "create index concurrently on orders (total)",
        "alter table orders add check (total > 0) not valid",
        "create table fresh as select * from orders; create index on fresh (total)",
        "drop table orders; create table orders (a int); create index on orders (a)",
        "alter table nowhere.orders add check (total > 0)",
        "-- premigrate: ignore index-locks-writes because the shop is closed\ncreate index on orders (total)",
    ] {
        let database = shop();
        database.execute("create index orders_pkey_2 on orders (id)");
        let folder = pending(sql);
        let code = if sql.contains("nowhere") { 70 } else { 0 };
        limited(&database, &folder, "1MB").run().exits(code);
    }
}

#[test]
fn what_is_read_while_another_table_is_locked_is_refused() {
    for sql in [
        "alter table settings add note text; update orders set total = 1",
        "alter table orders add note text; update orders set note = 'x'",
        "alter table settings add note text; create index on orders (total)",
        "reindex index orders_pkey",
        "do $$ begin alter table orders alter total type bigint; end $$",
        "alter table orders rename to o; alter table o alter total type bigint",
        "create table if not exists orders (a int); create index on orders (total)",
    ] {
        let (database, folder) = (shop(), pending(sql));
        let before = state(&database);
        limited(&database, &folder, "1MB").run().exits(65).says(&["orders has 2"]);
        assert_eq!(state(&database), before, "{sql}");
    }
}

#[test]
fn a_table_is_as_large_as_its_partitions() {
    let database = Database::fresh();
    database.execute(
        "create table events (day int, what text) partition by range (day); \
         create table events_1 partition of events for values from (1) to (2) partition by range (day); \
         create table events_1_1 partition of events_1 for values from (1) to (2) with (fillfactor = 10); \
         create table events_2 partition of events for values from (2) to (3) with (fillfactor = 10); \
         insert into events select 1 + i % 2, 'x' from generate_series(1, 10000) i; \
         create index on events (day); analyze",
    );
    let folder = pending("alter table events alter what type varchar(5) using what || 'y'");
    limited(&database, &folder, "3MB")
        .run()
        .exits(65)
        .says(&["about 10 thousand rows in 3 partitions"]);
    let run =
        premigrate(&database, &folder).args(&["--dry-run", "--format", "json"]).run().exits(0);
    let finding = &objects(&run)[0]["findings"][0];
    let sum = database.value(
        "select sum(pg_table_size(relid)) || '|' || sum(pg_indexes_size(relid)) \
         from pg_partition_tree('events')",
    );
    let size = &finding["size"];
    assert_eq!(format!("{}|{}", size["bytes"], size["index_bytes"]), sum, "{finding}");
    assert_eq!((&size["partitions"], &size["rows"]), (&json!(3), &json!(10_000)));
    limited(&database, &folder, "100MB").run().exits(0);
}

#[test]
fn names_are_looked_up_as_where_the_migration_runs() {
    let database = Database::fresh();
    database.execute(
        "create schema other; set search_path = other; \
         create table orders (id int, total int) with (fillfactor = 10); \
         insert into orders select i from generate_series(1, 10000) i; \
         create table public.orders (id int, total int)",
    );
    let on_path = database.at(format!("{}?options=-c%20search_path%3Dother", database.url));
    let index = "create index on orders (total)";
    for (database, sql, code) in [
        (&on_path, index, 65),
        (&on_path, "create index on public.orders (total)", 0),
        (&database, "set search_path = other; create index on orders (total)", 65),
        (&database, "set local search_path = other, public; create index on orders (total)", 65),
        (
            &database,
            "set search_path = other; reset search_path; create index on orders (total)",
            0,
        ),
        (&database, "create index on other.orders (total)", 65),
        (&database, index, 0),
    ] {
        let table = format!("history_{}", crate::harness::unique("t"));
        let run = limited(database, &pending(sql), "100kB").args(&["--table", &table]).run();
        assert_eq!(run.code, code, "{sql}: {}", run.stderr);
    }
}

#[test]
fn what_is_left_of_a_migration_and_of_the_set_is_looked_at() {
    let database = shop();
    let first = "create index on settings (id);\nvacuum;\nselect no_such_column";
    let folder = pending(first);
    limited(&database, &folder, "1MB").run().exits(70);
    // The first step is done, whatever its table has become.
    database
        .execute("insert into settings select i, repeat('x', 500) from generate_series(1, 5000) i");
    folder.write("0000_pending.sql", first.replace("select no_such_column", "select 1"));
    limited(&database, &folder, "1MB").run().exits(0).says(&["resuming 0000_pending"]);

    folder.add("0001_small", "select 1");
    folder.add("0002_large", "create index on orders (total)");
    limited(&database, &folder, "1MB").run().exits(65);
    assert_eq!(database.history().len(), 1);
    limited(&database, &folder, "1MB").args(&["--through", "0001_small"]).run().exits(0);
    limited(&database, &folder, "1MB").args(&["--baseline-through", "0002_large"]).run().exits(0);
    assert_eq!(database.history().len(), 3);
}

#[test]
fn what_is_not_read_is_named_and_runs() {
    let database = shop();
    let values = "1, ".repeat(6_000) + "1";
    let folder =
        pending(&format!("select 1;\nalter table settings add check (id in ({values})) not valid"));
    let run = limited(&database, &folder, "1MB").run().exits(0);
    run.says(&["--max-blocking does not hold for them: 0000_pending.sql:2:1"]);
    let folder = pending("vacuum full");
    premigrate(&shop(), &folder).run().exits(0).does_not_say("--max-blocking");
}

#[test]
fn a_dry_run_refuses_the_same_and_shows_the_sizes() {
    let database = shop();
    let folder = Folder::drizzle0(&[
        ("0000_small", "create index on settings (value)"),
        ("0001_large", "create index on orders (total);\nalter table orders add check (total > 0)"),
    ]);
    let before = state(&database);
    let run = premigrate(&database, &folder).arg("--dry-run").run().exits(0);
    expect![[r#"
        would apply 2 migrations, each in its own transaction; 0 applied already
          0000_small (1 statement)
          0001_large (2 statements)

        0001_large.sql:1:1: warning: CREATE INDEX takes SHARE on orders and scans it, so writes wait until it is done; create it CONCURRENTLY. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [index-locks-writes]
            create index CONCURRENTLY on orders (total);
        0001_large.sql:2:20: warning: ADD ... CHECK takes ACCESS EXCLUSIVE on orders and scans it, so reads and writes wait until it is done; add it NOT VALID, and validate it in the next migration. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [check-scan]
            ALTER TABLE "orders" ADD CONSTRAINT "orders_total_check" check (total > 0) NOT VALID;
            -- in the next migration:
            ALTER TABLE "orders" VALIDATE CONSTRAINT "orders_total_check";
        0000_small.sql:1:1: note: CREATE INDEX takes SHARE on settings and scans it, so writes wait until it is done; create it CONCURRENTLY. settings has 16 kB, about 100 rows [index-locks-writes]
            create index CONCURRENTLY on settings (value);
    "#]].assert_eq(&run.stdout);
    let run = limited(&database, &folder, "1MB").arg("--dry-run").run().exits(65);
    assert_eq!(run.stdout, "");
    run.says(&["orders has 2", "0001_large.sql:2:20"]);
    limited(&database, &folder, "1GB").arg("--dry-run").run().exits(0);
    assert_eq!(state(&database), before);
}

/// A migration that is applied, and three that are pending.
fn four() -> (Database, Folder) {
    let (database, folder) =
        (shop(), Folder::drizzle0(&[("0000_there", "drop table if exists gone")]));
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_small", "create index on settings (value);\ncreate index on nowhere (a)");
    folder.add("0002_fresh", "create table fresh (a int);\ncreate index on fresh (a)");
    folder.add(
        "0003_large",
        "alter table settings alter value type varchar(9);\ncreate index on orders (total)",
    );
    (database, folder)
}

#[test]
fn check_says_what_is_pending_with_the_sizes_and_the_largest_first() {
    let (database, folder) = four();
    let check = |args: &[&str]| premigrate(&database, &folder).arg("check").args(args).run();
    let run = check(&["--database"]).exits(0);
    assert_eq!(run.stderr, "");
    expect![[r#"
        0003_large.sql:2:1: warning: CREATE INDEX takes SHARE on orders and scans it, so writes wait until it is done; create it CONCURRENTLY. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [index-locks-writes]
            create index CONCURRENTLY on orders (total);
        0003_large.sql:2:1: note: line 1 has taken ACCESS EXCLUSIVE on settings, and nobody reads or writes settings until this statement is done, too; move one of them to another migration. orders has 26 MB, about 60 thousand rows, and indexes of 1.2 MB [lock-held]
        0001_small.sql:1:1: note: CREATE INDEX takes SHARE on settings and scans it, so writes wait until it is done; create it CONCURRENTLY. settings has 16 kB, about 100 rows [index-locks-writes]
            create index CONCURRENTLY on settings (value);
        0003_large.sql:1:22: note: a new type for value takes ACCESS EXCLUSIVE on settings and rewrites it unless the values are stored the same, so reads and writes wait until it is done; add a column of the new type, fill it in batches, and use that one. settings has 16 kB, about 100 rows [type-rewrite]

        1 warning that can block, 3 notes in 4 migrations (3 pending)
    "#]].assert_eq(&run.stdout);
    let json = check(&["--database", "--format", "json"]).exits(0);
    let [large, small, .., summary] = &objects(&json)[..] else { panic!("{}", json.stdout) };
    assert_eq!(large["size"]["table"], "orders");
    assert_eq!((&large["severity"], &large["can_block"]), (&json!("warning"), &json!(true)));
    assert_eq!((&small["severity"], &small["can_block"]), (&json!("note"), &json!(false)));
    assert_eq!((&summary["pending"], &summary["blocking"]), (&json!(3), &json!(1)));
    let github = check(&["--database", "--format", "github"]).exits(0);
    assert!(github.stdout.starts_with("::warning file="), "{}", github.stdout);
    assert!(github.stdout.contains("orders has 2"), "{}", github.stdout);
    let sarif = check(&["--database", "--format", "sarif"]).exits(0);
    let sarif: Value = serde_json::from_str(&sarif.stdout).unwrap();
    let levels = sarif["runs"][0]["results"].as_array().unwrap().iter();
    assert_eq!(
        levels.map(|result| &result["level"]).collect::<Vec<_>>(),
        ["warning", "note", "note", "note"]
    );

    // Only the large table fails the job.
    check(&["--database", "--strict"]).exits(65);
    folder.write("0003_large.sql", "select 1");
    check(&["--database", "--strict"]).exits(0);
    check(&["--strict"]).exits(65);
    premigrate(&database, &folder).env("PREMIGRATE_DATABASE", "1").arg("check").run().exits(0);
}

#[test]
fn check_needs_no_database_unless_it_is_to_ask_one() {
    let (database, folder) = four();
    let nowhere = database.through(1);
    premigrate(&nowhere, &folder).arg("check").run().exits(0);
    let asked = ["check", "--database", "--wait", "0"];
    premigrate(&nowhere, &folder).args(&asked).run().exits(69);
    folder.write("meta/_journal.json", "{");
    let run = premigrate(&nowhere, &folder).args(&asked).run().exits(65);
    assert!(run.stdout.contains("[invalid-journal]"), "{}", run.stdout);
}

#[test]
fn a_role_that_may_only_read_the_history_can_check() {
    let database = Database::fresh();
    database.execute(&format!("create schema private; set search_path = private; {TABLES}"));
    let folder = Folder::drizzle0(&[("0000_there", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_large", "create index on private.orders (total)");
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; grant select on drizzle.__drizzle_migrations to {role}"
    ));
    let reader = database.at(url);
    let run = premigrate(&reader, &folder).args(&["check", "--database"]).run().exits(0);
    assert!(run.stdout.contains("private.orders has 2"), "{}", run.stdout);
}

#[test]
fn a_table_that_another_session_has_locked_is_waited_for_only_by_up() {
    let (database, folder) = (shop(), pending("create index on orders (total)"));
    let mut blocker = database.holding("lock table orders in access exclusive mode");
    let run = premigrate(&database, &folder).args(&["check", "--database"]).run().exits(0);
    let unknown = "another session has locked orders, so that its size is not known";
    assert!(run.stdout.contains(unknown), "{}", run.stdout);
    let locked = limited(&database, &folder, "1MB").args(&["--lock-timeout", "100ms"]);
    let run = locked.args(&["--lock-retries", "1"]).run().exits(75);
    run.says(&["canceling statement due to lock timeout"]);
    let running = limited(&database, &folder, "1MB").args(&["--lock-timeout", "100ms"]).start();
    running.wait_to_say("retrying");
    blocker.batch_execute("rollback").unwrap();
    running.finish().exits(65).says(&["orders has 2"]);
    assert_eq!(database.leftovers(), [""; 0]);
}

#[test]
fn the_sizes_are_read_by_the_runner_that_holds_the_lock() {
    let (database, folder) = (shop(), pending("create index on orders (total)"));
    let mut holder = database.holding(&premigrate::apply::lock::take_sql());
    let run = limited(&database, &folder, "1MB").args(&["--runner-wait", "0"]).run().exits(75);
    run.says(&["another runner is still at work"]);
    holder.batch_execute("rollback").unwrap();
    limited(&database, &folder, "1MB").run().exits(65);
}

#[test]
fn sizes_are_read_through_a_pooler_too() {
    let database = shop();
    let folder = Folder::drizzle0(&[("0000_small", "create index on settings (id); vacuum")]);
    let pooler = PgBouncer::start(2);
    let pooled = pooler.to(&database);
    limited(&pooled, &folder, "1MB").run().exits(0);
    folder.add("0001_large", "create index on orders (total)");
    limited(&pooled, &folder, "1MB").run().exits(65).says(&["orders has 2"]);
    premigrate(&pooled, &folder).args(&["check", "--database"]).run().exits(0);
    assert_eq!(database.history().len(), 1);
}

#[test]
#[ignore = "fills 2 GB of disk"]
fn the_rewrite_of_a_table_of_2_gb_is_stopped_in_less_than_a_second() {
    assert!(has_since(13, "a server"));
    let database = Database::fresh();
    database.execute(
        "create table orders (id bigint, total int, note text) with (fillfactor = 10); \
         alter table orders alter note set storage external; \
         insert into orders select i, i, repeat('x', 600) from generate_series(1, 262144) i",
    );
    let large = database.value("select pg_table_size('orders')").parse::<u64>().unwrap();
    assert!(large >= 2 << 30, "{large}");
    let folder = pending("alter table orders alter total type bigint");
    let run = limited(&database, &folder, "1GB").run().exits(65);
    assert!(run.took < Duration::from_secs(1), "{:?}", run.took);
}
