//! Running what is pending: order, transactions, the history table.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use expect_test::expect;
use premigrate::history::table::{History, NewRow, Row, RowsOnTheirWay, Table, TableVersion};
use premigrate::migrations::migration::{Layout, Migration};

use crate::harness::{Database, Folder, Premigrate, bare, premigrate};

const LOG: (&str, &str) = ("0000_log", "create table log (id serial primary key, what text)");

fn log(what: &str) -> String {
    format!("insert into log (what) values ('{what}')")
}

fn logged(database: &Database) -> Vec<String> {
    database.rows("select what from log order by id")
}

/// The executable on a folder, connected as this URL says.
fn premigrate_as(url: &str, folder: &Folder) -> Premigrate {
    bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path)
}

/// A history that someone else began: Drizzle 0.x's table with these rows.
fn record(database: &Database, rows: &[(&str, i64)]) {
    database.execute(
        "create schema if not exists drizzle; create table if not exists \
         drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)",
    );
    for (hash, when) in rows {
        database.execute(&format!(
            "insert into drizzle.__drizzle_migrations (hash, created_at) values ('{hash}', {when})"
        ));
    }
}

// Order and transactions.

#[test]
fn what_a_migration_writes_is_of_the_transaction_that_its_triggers_see() {
    let database = Database::fresh();
    // As triggers do that keep versions of rows.
    let sql = "create table t (a int);\ninsert into t values (1);\ndo $$ begin \
               if exists (select from t where xmin <> pg_current_xact_id()::xid) then \
               raise 'the row is of another transaction'; end if; end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn every_migration_runs_once_in_the_journals_order() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table log (id serial, what text)"),
        ("0001_b", "insert into log (what) values ('b')"),
        ("0002_c", "insert into log (what) values ('c')"),
    ]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a", "applied 0002_c"]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 3 applied"]);
    assert_eq!(database.rows("select what from log order by id"), ["b", "c"]);
    let hashes = ["0000_a.sql", "0001_b.sql", "0002_c.sql"].map(|file| folder.hash(file));
    assert_eq!(database.history(), hashes);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn neither_time_stamps_nor_file_names_decide_the_order() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    folder.add_at("9_first", LOG.1, 3000);
    folder.add_at("1_second", &log("second"), 1000);
    folder.add_at("5_third", &log("third"), 2000);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(logged(&database), ["second", "third"]);
    let whens = database.rows("select created_at from drizzle.__drizzle_migrations order by id");
    assert_eq!(whens, ["3000", "1000", "2000"]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 3 applied"]);
}

#[test]
fn a_migration_that_fails_leaves_nothing_and_those_before_it_stay() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a ()"),
        ("0001_b", "create table b ();--> statement-breakpoint\nselect 1/0;"),
        ("0002_c", "create table c ()"),
    ]);
    premigrate(&database, &folder).run().exits(70);
    assert_eq!(database.tables(), ["a"]);
    assert_eq!(database.history(), [folder.hash("0000_a.sql")]);
    assert_eq!(database.leftovers(), Vec::<String>::new());

    folder.write("0001_b.sql", "create table b ();");
    premigrate(&database, &folder).run().exits(0).does_not_say("0000_a");
    assert_eq!(database.tables(), ["a", "b", "c"]);
    assert_eq!(database.history().len(), 3);
}

#[test]
fn a_value_added_to_an_enum_may_be_used_by_the_next_migration() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create type mood as enum ('sad')"),
        ("0001_b", "alter type mood add value 'ok'"),
        ("0002_c", "create table t (m mood default 'ok'); insert into t default values"),
    ]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value("select m from t"), "ok");
}

#[test]
fn two_hundred_migrations_are_applied_one_by_one() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    let tags: Vec<String> = (1..200).map(|at| format!("{at:04}_m")).collect();
    for tag in &tags {
        folder.add(tag, &log(tag));
    }
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(logged(&database), tags);
    assert_eq!(database.history().len(), 200);
    let transactions = "select count(distinct xmin::text) from drizzle.__drizzle_migrations";
    assert_eq!(database.value(transactions), "200");
}

#[test]
fn an_empty_journal_is_up_to_date() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    premigrate(&database, &folder).run().exits(0).says(&["0 migrations", "up to date, 0 applied"]);
    assert_eq!(database.rows("select 1 from pg_namespace where nspname = 'drizzle'").len(), 0);
}

// The history table.

#[test]
fn the_history_is_the_table_that_drizzle_would_create() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    // What drizzle-orm 0.45 sends, with another schema.
    database.execute(
        r#"CREATE SCHEMA IF NOT EXISTS "reference";
        CREATE TABLE IF NOT EXISTS "reference"."__drizzle_migrations" (
            id SERIAL PRIMARY KEY,
            hash text NOT NULL,
            created_at bigint
        )"#,
    );
    let described = |schema: &str| {
        let table = format!("'{schema}.__drizzle_migrations'::regclass");
        let columns = database.rows(&format!(
            "select attnum, attname, format_type(atttypid, atttypmod), attnotnull, \
             pg_get_expr(adbin, adrelid), attidentity from pg_attribute \
             left join pg_attrdef on adrelid = attrelid and adnum = attnum \
             where attrelid = {table} and attnum > 0 order by attnum"
        ));
        let constraints = database.rows(&format!(
            "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = {table}"
        ));
        let sequence = database
            .rows(&format!("select pg_get_serial_sequence('{schema}.__drizzle_migrations', 'id')"));
        let types = database.rows(&format!(
            "select relname, relkind, relpersistence, relowner::regrole from pg_class \
             where relnamespace = '{schema}'::regnamespace order by 1"
        ));
        let all = [columns, constraints, sequence, types].concat();
        all.iter().map(|line| line.replace(&format!("{schema}."), "")).collect::<Vec<_>>()
    };
    assert_eq!(described("drizzle"), described("reference"));
}

#[test]
fn a_row_has_the_files_hash_and_the_journals_time() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    folder.add_at("0000_a", "select 'é'", 1_795_370_487_999);
    premigrate(&database, &folder).run().exits(0);
    let row = database.value("select id, hash, created_at from drizzle.__drizzle_migrations");
    assert_eq!(row, format!("1|{}|1795370487999", folder.hash("0000_a.sql")));
}

#[test]
fn the_history_may_be_kept_in_any_schema_and_table() {
    for (schema, table, name) in [
        (r#"My "odd" schema"#, "mig.table", r#""My ""odd"" schema"."mig.table""#),
        ("public", "__drizzle_migrations", "public.__drizzle_migrations"),
        ("public", "select", r#"public."select""#),
        ("it's", r"back\slash", r#""it's"."back\slash""#),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[LOG, ("0001_a", &log("a"))]);
        let run =
            || premigrate(&database, &folder).args(&["--schema", schema, "--table", table]).run();
        run().exits(0).says(&["applied 0001_a"]);
        run().exits(0).says(&["up to date, 2 applied"]);
        let hashes = database.rows(&format!("select hash from {name} order by id"));
        assert_eq!(hashes, [folder.hash("0000_log.sql"), folder.hash("0001_a.sql")]);
        assert_eq!(logged(&database), ["a"]);
        let ours = "select count(*) from pg_namespace where nspname = 'drizzle'";
        assert_eq!(database.value(ours), "0", "{schema}");
    }
}

#[test]
fn a_table_that_has_names_is_written_with_names() {
    let database = Database::fresh();
    database.execute(
        "create schema drizzle; create table drizzle.__drizzle_migrations (id serial primary key, \
         hash text not null, created_at bigint, name text, \
         applied_at timestamp with time zone default now())",
    );
    let folder = Folder::drizzle0(&[]);
    folder.add_at("0003_add_tags", "select 1", 1_795_370_487_999);
    premigrate(&database, &folder).run().exits(0);
    let row = "select created_at, name, applied_at is not null from drizzle.__drizzle_migrations";
    assert_eq!(database.value(row), "1795370487999|20261122180127_add_tags|t");
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
}

#[test]
fn a_row_that_drizzle_1_wrote_is_known_by_its_second() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    folder.add_at("0000_a", "select 1/0", 1_795_370_487_999);
    let hash = folder.hash("0000_a.sql");
    database.execute(&format!(
        "create schema drizzle; create table drizzle.__drizzle_migrations (id serial primary key, \
         hash text not null, created_at bigint, name text, applied_at timestamptz default now()); \
         insert into drizzle.__drizzle_migrations (hash, created_at, name) \
         values ('{hash}', 1795370487000, '20261122180127_a')"
    ));
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
    folder.write("0000_a.sql", "select 2/0");
    premigrate(&database, &folder).run().exits(65).says(&["edited", &hash]);
}

#[test]
fn a_table_that_is_no_history_is_refused() {
    let database = Database::fresh();
    database.execute(
        "create schema drizzle; create table drizzle.__drizzle_migrations (id serial, tag text)",
    );
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(65).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: the table drizzle.__drizzle_migrations is not a history table of Drizzle: it has no column hash; nothing was run. Name the right table with --schema and --table
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

// Privileges, and what is sent.

#[test]
fn an_existing_history_is_used_as_it_is_and_no_create_is_sent() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    let (role, url) = database.role();
    database.execute(&format!(
        "create function refuse() returns event_trigger language plpgsql as \
         'begin raise exception ''% was sent'', tg_tag; end'; \
         create event trigger refuse on ddl_command_start \
         when tag in ('CREATE SCHEMA', 'CREATE TABLE') execute function refuse(); \
         grant usage on schema drizzle to {role}; \
         grant select, insert on drizzle.__drizzle_migrations to {role}; \
         grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}; \
         grant insert on log to {role}; grant usage on sequence log_id_seq to {role}"
    ));
    folder.add("0001_a", &log("a"));
    premigrate_as(&url, &folder).run().exits(0).says(&["applied 0001_a"]);
    assert_eq!(logged(&database), ["a"]);
}

#[test]
fn a_table_may_be_filled_by_copy_with_freeze() {
    let database = Database::fresh();
    let sql = "create table seed (a int); copy seed from program 'echo 1' with (freeze)";
    premigrate(&database, &Folder::drizzle0(&[("0000_a", sql)])).run().exits(0);
    assert_eq!(database.rows("select a::text from seed"), ["1"]);
}

#[test]
fn an_existing_schema_is_used_as_it_is() {
    let database = Database::fresh();
    let (role, url) = database.role();
    database.execute(&format!("create schema drizzle; grant all on schema drizzle to {role}"));
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate_as(&url, &folder).run().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn a_refusal_prints_the_sql_that_cures_it() {
    for history in ["", "create schema drizzle", "table", "table and reading"] {
        let database = Database::fresh();
        let (role, url) = database.role();
        match history {
            "table" => record(&database, &[]),
            "table and reading" => {
                record(&database, &[]);
                database.execute(&format!(
                    "grant usage on schema drizzle to {role}; \
                     grant select on drizzle.__drizzle_migrations to {role}"
                ));
            }
            sql => database.execute(sql),
        }
        let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
        let mut cures = 0;
        loop {
            let run = premigrate_as(&url, &folder).run();
            if run.code == 0 {
                break;
            }
            let run = run.exits(77).says(&["42501"]);
            cures += 1;
            assert!(cures < 3, "{history}: {}", run.stderr);
            for statement in run.stderr.lines().filter(|line| line.ends_with(';')) {
                database.execute(statement);
            }
        }
        assert!(cures > 0, "{history}");
        assert_eq!(database.history(), [folder.hash("0000_a.sql")], "{history}");
    }
}

/// Sits between premigrate and the server, and writes down every statement that goes by.
struct Tap {
    url: String,
    statements: Arc<Mutex<Vec<String>>>,
}

impl Tap {
    fn on(database: &Database) -> Tap {
        let (scheme, rest) = database.url.split_once("://").unwrap();
        let (user, rest) = rest.split_once('@').unwrap();
        let (server, path) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let statements = Arc::new(Mutex::new(Vec::new()));
        let (server, heard) = (server.to_owned(), statements.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let heard = heard.clone();
                std::thread::spawn(move || listen(client, server, &heard));
            }
        });
        let url = format!("{scheme}://{user}@{place}/{path}?sslmode=disable");
        Tap { url, statements }
    }

    /// What was sent since the last call.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.statements.lock().unwrap())
    }
}

fn listen(mut client: TcpStream, mut server: TcpStream, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut is_startup = true;
    loop {
        let mut head = vec![0; if is_startup { 4 } else { 5 }];
        client.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().ok()?);
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).ok()?;
        if !is_startup && head[0] != b'X' {
            let text = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
            heard.lock().unwrap().push(text);
        }
        server.write_all(&[head, body].concat()).ok()?;
        is_startup = false;
    }
}

#[test]
fn nothing_pending_is_one_query_that_reads() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    let tap = Tap::on(&database);
    premigrate_as(&tap.url, &folder).run().exits(0).says(&["up to date"]);
    let heard = tap.heard();
    assert_eq!(heard.len(), 1, "{heard:#?}");
    assert!(heard[0].starts_with("select "), "{heard:#?}");

    let (role, url) = database.role();
    database.execute(&format!(
        "alter role {role} set default_transaction_read_only = on; \
         grant usage on schema drizzle to {role}; \
         grant select on drizzle.__drizzle_migrations to {role}"
    ));
    premigrate_as(&url, &folder).run().exits(0).says(&["up to date, 1 applied"]);
}

/// How many bytes were sent for each transaction.
fn bytes_of_transactions(heard: &[String]) -> Vec<usize> {
    let is_first = |sql: &String| sql.starts_with("begin isolation level");
    let transactions = heard.chunk_by(|_, next| !is_first(next));
    let ours = transactions.filter(|messages| is_first(&messages[0]));
    ours.map(|messages| messages.iter().map(String::len).sum()).collect()
}

#[test]
fn as_much_is_sent_for_a_migration_or_a_step_however_many_came_before_it() {
    const COUNT: usize = 60;
    let step = "set search_path = public; set role none; insert into log (what) values ('s'); \
                reset role; reset search_path; commit;\n";
    let names: Vec<String> = (100..100 + COUNT).map(|number| format!("0{number}_log")).collect();
    let migrations: Vec<_> = names.iter().map(|name| (name.as_str(), log("m"))).collect();
    let migrations: Vec<_> = migrations.iter().map(|(name, sql)| (*name, sql.as_str())).collect();
    for (locks_history, is_split) in [(true, false), (false, false), (true, true)] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[LOG]);
        premigrate(&database, &folder).run().exits(0);
        match is_split {
            true => folder.add("0001_steps", &step.repeat(COUNT)),
            false => migrations.iter().for_each(|(name, sql)| folder.add(name, sql)),
        }
        let (role, url) = database.role();
        database.execute(&format!(
            "grant usage, create on schema drizzle to {role}; \
             grant select, insert on drizzle.__drizzle_migrations to {role}; \
             grant usage on sequence drizzle.__drizzle_migrations_id_seq to {role}; \
             grant insert on log to {role}; grant usage on sequence log_id_seq to {role}"
        ));
        let url = if locks_history { database.url.clone() } else { url };
        let tap = Tap::on(&database.at(url));
        premigrate_as(&tap.url, &folder).run().exits(0);
        let bytes = bytes_of_transactions(&tap.heard());
        assert!(bytes.len() >= COUNT, "{bytes:?}");
        let (early, late) = (bytes[10], bytes[COUNT - 2]);
        // Numbers may have become longer.
        assert!(late <= early + 8, "{early} and {late} bytes: {bytes:?}");
    }
}

#[test]
fn the_server_reads_few_rows_of_a_long_history_for_a_migration() {
    let database = Database::fresh();
    record(&database, &[]);
    let history = "drizzle.__drizzle_migrations";
    database.execute(&format!(
        "insert into {history} (hash, created_at) \
         select md5(number::text), number from generate_series(1, 20000) number"
    ));
    let rows = database.rows(&format!("select id, xmin from {history} order by id"));
    let rows = rows.iter().map(|row| {
        let (id, xmin) = row.split_once('|').unwrap();
        let (id, xmin) = (id.parse().unwrap(), xmin.parse().ok());
        Row { id, hash: String::new(), created_at: None, name: None, xmin }
    });
    let history = History {
        table_version: TableVersion::V0,
        rows: rows.collect(),
        in_recovery: false,
        has_objects: true,
    };
    let known = history.rows_before_id_of(history.rows.len());
    let table = Table::new("drizzle", "__drizzle_migrations");
    assert_eq!(history.rows.len(), 20_000);
    let migration = Migration::new("m", "m.sql", Some(20_001), Vec::new());
    let last = NewRow::new(&migration, Layout::Drizzle0);
    let rows = RowsOnTheirWay { count: 3, last: &last };
    for guard in [table.is_unchanged_sql(&history, known), table.is_extended_sql(&history, rows)] {
        let plan = database.rows(&format!("explain (analyze, costs off) select {guard}"));
        assert!(plan.iter().any(|line| line.contains("Index")), "{plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
    }
}

#[test]
fn a_migration_is_four_messages_and_the_file_ends_one_of_them_as_it_is() {
    let database = Database::fresh();
    record(&database, &[]);
    let sql = "-- first\ncreate table é ();--> statement-breakpoint\nselect ';'; -- last\n";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let tap = Tap::on(&database);
    premigrate_as(&tap.url, &folder).run().exits(0);
    let heard = tap.heard();
    let [read, begin, file, end, commit] = &heard[..] else { panic!("{heard:#?}") };
    assert!(read.starts_with("select "), "{read}");
    assert!(begin.starts_with("begin isolation level read committed read write"), "{begin}");
    // What stands before it is refused outside a transaction.
    assert_eq!(file.strip_prefix("savepoint premigrate; release premigrate; "), Some(sql));
    assert!(end.contains("insert into"), "{end}");
    assert_eq!(commit, "commit");
    assert!(heard.iter().all(|sql| !sql.contains("create schema")), "{heard:#?}");
}

#[test]
fn a_role_that_reads_by_default_can_still_migrate() {
    let database = Database::fresh();
    let (role, url) = database.role();
    database.execute(&format!(
        "alter role {role} set default_transaction_read_only = on; \
         alter role {role} set default_transaction_isolation = 'serializable'; \
         grant all on database {} to {role}; grant all on schema public to {role}",
        database.name
    ));
    let folder = Folder::drizzle0(&[LOG]);
    premigrate_as(&url, &folder).run().exits(0).says(&["applied 0000_log"]);
}

// What a migration leaves behind in its session.

#[test]
fn no_session_state_reaches_the_next_migration() {
    let database = Database::fresh();
    let (role, _) = database.role();
    database.execute(&format!("create schema other; grant all on schema other, public to {role}"));
    let seen = "insert into public.seen select current_user, session_user, \
         current_setting('search_path'), current_setting('statement_timeout'), \
         current_setting('default_transaction_read_only'), current_setting('app.x', true), \
         to_regclass('pg_temp.scratch')";
    let states = [
        "select 1",
        "set search_path to other",
        &format!("set role {role}"),
        &format!("set session authorization {role}"),
        "select pg_catalog.set_config('search_path', '', false)",
        "select set_config('app.x', 'y', false)",
        "set statement_timeout = '7s'",
        "set local statement_timeout = '7s'",
        "set session characteristics as transaction read only",
        "create temp table scratch (a int primary key); insert into scratch values (1)",
        "create temp table scratch (a int) on commit drop",
    ];
    let folder = Folder::drizzle0(&[(
        "0000_seen",
        "create table seen (who text, login text, path text, timeout text, reads text, x text, \
         scratch text); grant all on seen to public",
    )]);
    folder.add("0001_before", seen);
    for (at, state) in states.iter().enumerate() {
        folder.add(&format!("1{at:03}_state"), state);
        folder.add(&format!("2{at:03}_seen"), seen);
    }
    premigrate(&database, &folder).run().exits(0);
    let seen: BTreeSet<String> = database.rows("select * from seen").into_iter().collect();
    assert_eq!(seen.len(), 1, "{seen:#?}");
}

#[test]
fn a_role_taken_on_in_a_migration_is_what_the_rest_of_it_runs_as() {
    let database = Database::fresh();
    let (role, _) = database.role();
    database.execute(&format!("grant all on schema public to {role}"));
    let folder =
        Folder::drizzle0(&[("0000_a", &format!("set role {role}; create table theirs ()"))]);
    premigrate(&database, &folder).run().exits(0);
    let owner = "select tableowner from pg_tables where tablename = 'theirs'";
    assert_eq!(database.value(owner), role);
    let history = "select tableowner from pg_tables where tablename = '__drizzle_migrations'";
    assert_ne!(database.value(history), role);
}

// What a file may look like.

#[test]
fn drizzles_marker_separates_statements_wherever_drizzle_orm_would_split() {
    let database = Database::fresh();
    let mark = "--> statement-breakpoint";
    let files = [
        format!("insert into log (what) values ('no semicolon')\n{mark}\n{}", log("nor here")),
        format!("{}; {mark} {}", log("before, mid-line"), log("behind, mid-line")),
        format!("{}{mark}{}", log("touching"), log("touched")),
        format!("{mark}\n{mark}\n{}{mark}{mark}\n;{mark}", log("doubled and trailing")),
        format!("-- a remark {mark}\n{}", log("after a remark")),
        format!("{} -- remark {mark} {}", log("remarked"), log("after the remark")),
        format!("{};\r\n{mark}\r\n{};\r\n", log("crlf"), log("crlf too")),
        format!("insert into log (what) values ('in {mark} a string')"),
        format!(
            "do $$ begin insert into log (what) values ('in a body');\n{mark}\n\
             insert into log (what) values ('still in it'); end $$"
        ),
        format!("/* {mark} select 1/0; */ {}", log("behind a comment")),
        format!("/* {mark}\n/* {mark} */ select 1/0; */"),
        format!("{};\n-->statement-breakpoint\n{}", log("no blank"), log("so a comment")),
        format!("{};\n--> STATEMENT-BREAKPOINT select 1/0\n", log("upper case")),
    ];
    let folder = Folder::drizzle0(&[LOG]);
    for (at, sql) in files.iter().enumerate() {
        folder.add(&format!("{:04}_m", at + 1), sql);
    }
    premigrate(&database, &folder).run().exits(0);
    let expected = [
        "no semicolon",
        "nor here",
        "before, mid-line",
        "behind, mid-line",
        "touching",
        "touched",
        "doubled and trailing",
        "after a remark",
        "remarked",
        "after the remark",
        "crlf",
        "crlf too",
        "in --> statement-breakpoint a string",
        "in a body",
        "still in it",
        "behind a comment",
        "no blank",
        "so a comment",
        "upper case",
    ];
    assert_eq!(logged(&database), expected);
}

#[test]
fn a_file_without_a_statement_is_applied_and_recorded() {
    let database = Database::fresh();
    let files = [
        ("0000_empty", ""),
        ("0001_blank", " \r\n\t\n"),
        ("0002_semicolons", ";;\n;"),
        ("0003_remark", "-- Custom SQL migration file, put your code below! --"),
        ("0004_remarks", "/* a /* b */ */ -- c"),
        ("0005_marker", "--> statement-breakpoint"),
        ("0006_same_remark", "-- Custom SQL migration file, put your code below! --"),
        ("0007_mark", "\u{feff}"),
    ];
    let folder = Folder::drizzle0(&files);
    premigrate(&database, &folder).run().exits(0);
    let hashes = files.map(|(tag, _)| folder.hash(&format!("{tag}.sql")));
    assert_eq!(database.history(), hashes);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hashes[0], empty);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 8 applied"]);
}

#[test]
fn a_byte_order_mark_does_no_harm_and_counts_for_the_hash() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "\u{feff}create table a ()")]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.tables(), ["a"]);
    assert_eq!(database.history(), [folder.hash("0000_a.sql")]);
}

#[test]
fn another_checkouts_line_ends_are_no_edit() {
    let (lf, crlf) =
        ("select 1;\n--> statement-breakpoint\nselect 2;\n", |lf: &str| lf.replace('\n', "\r\n"));
    for (applied, carried) in [(lf.to_owned(), crlf(lf)), (crlf(lf), lf.to_owned())] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", &applied)]);
        premigrate(&database, &folder).run().exits(0);
        let before = folder.hash("0000_a.sql");
        folder.write("0000_a.sql", carried);
        assert_ne!(folder.hash("0000_a.sql"), before);
        premigrate(&database, &folder).run().exits(0).says(&["up to date, 1 applied"]);
        assert_eq!(database.history(), [before]);
    }
}

#[test]
fn a_file_of_several_megabytes_is_one_transaction() {
    let database = Database::fresh();
    let line = format!("insert into big (what) values ('{}');\n", "é".repeat(1000));
    let many = line.repeat(1600);
    assert!(many.len() > 3 << 20);
    let folder = Folder::drizzle0(&[
        ("0000_big", "create table big (id serial, what text)"),
        ("0001_fill", &format!("{many}select 1/0 as é, nothing;\n")),
    ]);
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_big in TIME
        premigrate: 0001_fill failed and was rolled back

          ERROR 42703: column "nothing" does not exist
          at 0001_fill.sql:1601:18, statement 1601 of 1601

          1600 | insert into big (what) values ('éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé
          1601 | select 1/0 as é, nothing;
               |                  ^

          1 migration applied in this run is kept.
    "#]]);
    assert_eq!(database.value("select count(*) from big"), "0");
    assert_eq!(database.history().len(), 1);

    folder.write("0001_fill.sql", format!("{many}select 1/0;\n"));
    let told = "at 0001_fill.sql:1601:1, statement 1601 of 1601";
    premigrate(&database, &folder).run().exits(70).says(&["division by zero", told]);
    assert_eq!(database.value("select count(*) from big"), "0");

    folder.write("0001_fill.sql", many);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value("select count(*), count(distinct xmin::text) from big"), "1600|1");
    assert_eq!(database.history()[1], folder.hash("0001_fill.sql"));
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 2 applied"]);
}

#[test]
fn a_statement_that_is_larger_than_a_piece_is_sent_whole() {
    let database = Database::fresh();
    let large = format!("insert into log (what) values ('{}')", "x".repeat(3 << 20));
    let folder = Folder::drizzle0(&[LOG]);
    folder.add("0001_large", &format!("{};{large};{}", log("before"), log("behind")));
    premigrate(&database, &folder).run().exits(0);
    let lengths = database.rows("select length(what) from log order by id");
    assert_eq!(lengths, ["6", "3145728", "6"]);
}

// What the history may say against it.

#[test]
fn an_edited_migration_stops_everything_and_both_hashes_are_shown() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG, ("0001_a", &log("a")), ("0002_b", &log("b"))]);
    premigrate(&database, &folder).run().exits(0);
    let before = ["0001_a.sql", "0002_b.sql"].map(|file| folder.hash(file));
    folder.write("0001_a.sql", log("another a"));
    folder.write("0002_b.sql", log("another b"));
    let after = ["0001_a.sql", "0002_b.sql"].map(|file| folder.hash(file));
    folder.add("0003_c", &log("c"));
    let run = premigrate(&database, &folder).args(&["--", "echo", "started"]).run().exits(65);
    assert_eq!(run.stdout, "");
    let run = run.stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: migrations were edited after they were applied; nothing was run:

          - 0001_a.sql
              applied  961269fecea737292aaabc7612859e612ca33a73bd83947c7320e193beb35ec6
              now      d103a1279d6820e5c2eefe66c5b7479725b8a241d1f6803f6563a617a74dc7bc
          - 0002_b.sql
              applied  9651dce25423421adda847dc589948ebead10bb06dfd7578ca1ac974194ed8a5
              now      dd339a7fa4df9c134463795e5572a430863a64d4802e358e9f28d74541136825

          Restore the files, and make the change in a new migration. If the database already matches
          the edited files, run `premigrate accept 0001_a 0002_b --dir FOLDER`, or set PREMIGRATE_ACCEPT=0001_a,0002_b

          The app was not started.
    "#]]);
    let run = run.says(&[&before[0], &before[1], &after[0], &after[1]]);
    run.does_not_say("0000_log");
    assert_eq!(logged(&database), ["a", "b"]);
}

#[test]
fn an_older_image_starts_beside_a_newer_history() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    record(&database, &[("of a newer version", 1_800_000_000_000)]);
    let run = premigrate(&database, &folder).args(&["--", "echo", "started"]).run().exits(0);
    assert_eq!(run.stdout, "started\n");
    let run = run.says(&["up to date, 1 applied"]);
    let told = run.stderr.lines().filter(|line| line.contains("1800000000000")).count();
    assert_eq!(told, 1, "{}", run.stderr);
}

#[test]
fn a_migration_that_drizzle_would_skip_for_ever_is_applied_with_a_word() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    folder.add_at("0000_log", LOG.1, 1000);
    folder.add_at("0001_ours", &log("ours"), 3000);
    premigrate(&database, &folder).run().exits(0).does_not_say("out of order");
    // Another branch, merged later: once at the end of the journal, once in its middle.
    folder.add_at("0002_theirs", &log("theirs"), 2000);
    let told = "applying 0002_theirs out of order";
    premigrate(&database, &folder).run().exits(0).says(&[told]);
    folder.add_at("0003_middle", &log("middle"), 4000);
    folder.edit_journal(|entries| entries.swap(2, 3));
    let told = "applying 0003_middle out of order";
    premigrate(&database, &folder).run().exits(0).says(&[told]);
    assert_eq!(logged(&database), ["ours", "theirs", "middle"]);
    folder.add_at("0004_last", &log("last"), 5000);
    premigrate(&database, &folder).run().exits(0).does_not_say("out of order");
}

#[test]
fn a_history_of_something_else_stops_everything() {
    let database = Database::fresh();
    record(&database, &[("of another app", 5), ("of another app too", 6)]);
    let folder = Folder::drizzle0(&[LOG, ("0001_a", &log("a"))]);
    premigrate(&database, &folder).run().exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: no row of the history matches a migration (2 rows, 2 migrations); nothing was run. Check that the database, --dir and --table are right. If the migrations were squashed, run `premigrate baseline --through NAME --dir FOLDER`, where NAME is the last one whose changes the database has. To run them all, set --apply-older
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
    premigrate(&database, &folder).arg("--apply-older").run().exits(0);
    assert_eq!(logged(&database), ["a"]);
}

#[test]
fn what_is_older_than_the_history_is_not_run_unasked() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG, ("0001_a", &log("a")), ("0002_b", &log("b"))]);
    premigrate(&database, &folder).run().exits(0);
    database.execute("delete from drizzle.__drizzle_migrations where id < 3; delete from log");
    folder.add("0003_c", &log("c"));
    let run = premigrate(&database, &folder).run().exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0000_log, 0001_a are older than 0002_b, the first migration in the history; nothing was run. Run `premigrate baseline --through 0001_a --dir FOLDER` to record them as applied, or set --apply-older to run them
    "#]]);
    assert_eq!(logged(&database), Vec::<String>::new());

    folder.write("0000_log.sql", "create table if not exists log (id serial, what text)");
    premigrate(&database, &folder).arg("--apply-older").run().exits(0);
    assert_eq!(logged(&database), ["a", "c"]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 4 applied"]);
}

#[test]
fn what_an_unknown_row_may_have_recorded_is_not_run_unasked() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG, ("0001_a", &log("a")), ("0002_b", &log("b"))]);
    premigrate(&database, &folder).run().exits(0);
    database.execute(
        "update drizzle.__drizzle_migrations set hash = 'before the edit', created_at = 7 \
         where id = 2",
    );
    let run = premigrate(&database, &folder).run().exits(65);
    run.stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0001_a may be applied already: row 2 (created_at 7) may record an earlier version; nothing was run. Run `premigrate accept NAME --dir FOLDER` for a migration that was applied; you can then delete its old row. To run all pending migrations, set --apply-older
    "#]]);
    premigrate(&database, &folder).arg("--apply-older").run().exits(0);
    assert_eq!(logged(&database), ["a", "b", "a"]);
}

#[test]
fn strict_refuses_rows_and_orders_that_are_else_let_pass() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    folder.add_at("0001_early", &log("early"), 1);
    let strict = || premigrate(&database, &folder).arg("--strict").run();
    strict().exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: refused by --strict: 0001_early is out of order; nothing was run. Generate the out-of-order migrations again, so that they come after the last applied one. Or start without --strict
    "#]]);
    assert_eq!(logged(&database), Vec::<String>::new());
    premigrate(&database, &folder).run().exits(0);
    strict().exits(0);

    record(&database, &[("of a newer version", 7)]);
    strict().exits(65).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: refused by --strict: row 3 (created_at 7) matches no migration; nothing was run. Use the version of the app that has the migrations of these rows. Or start without --strict
    "#]]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_row_is_known_by_its_hash_where_its_time_belongs_to_nothing() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG, ("0001_a", "select 1/0")]);
    // By hand, or by a runner that writes the time of applying.
    record(&database, &[(&folder.hash("0000_log.sql"), 7), (&folder.hash("0001_a.sql"), 8)]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 2 applied"]);
}

#[test]
fn a_second_row_of_a_migration_changes_nothing() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[LOG]);
    premigrate(&database, &folder).run().exits(0);
    // Racing runners of Drizzle's leave this.
    record(&database, &[(&folder.hash("0000_log.sql"), 1_700_000_000_000)]);
    let run = premigrate(&database, &folder).arg("--strict").run();
    run.exits(0).says(&["up to date, 1 applied"]);
}

// The end of a transaction.

const DEFERRED: &str = "create table parent (id int primary key);
create table child (parent int references parent deferrable initially deferred);";

#[test]
fn what_is_deferred_to_the_end_fails_the_migration() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", DEFERRED)]);
    folder.add("0001_orphan", "create table b (); insert into child values (7)");
    folder.add("0002_c", "create table c ()");
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 3 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_a in TIME
        premigrate: 0001_orphan failed and was rolled back

          ERROR 23503: insert or update on table "child" violates foreign key constraint "child_parent_fkey"
          DETAIL: Key (parent)=(7) is not present in table "parent".
          SCHEMA: public
          TABLE: child
          CONSTRAINT: child_parent_fkey
          0001_orphan.sql, at its end, where deferred constraints are checked

          1 migration applied in this run is kept; 1 more is pending.
    "#]]);
    assert_eq!(database.tables(), ["child", "parent"]);
    assert_eq!(database.history().len(), 1);

    let repaired = "insert into child values (7); insert into parent values (7)";
    folder.write("0001_orphan.sql", repaired);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_row_is_not_written_when_the_transaction_was_ended_unseen() {
    let database = Database::fresh();
    // A longer file is sent in pieces. In the second one backslashes escape, so that this string
    // ends earlier than it does to us, and COMMIT is none of its text.
    let first =
        "do $$ begin perform set_config('standard_conforming_strings', 'off', true); end $$";
    let long = format!("{first}; select '{}'", "x".repeat(1 << 20));
    let folder = Folder::drizzle0(&[
        ("0000_a", &format!("{long}; create table a (); select '\\''; commit; --'")),
        ("0001_b", "create table b ()"),
    ]);
    let run = premigrate(&database, &folder).run().exits(70);
    let run = run.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: applying 0000_a
        premigrate: 0000_a: WARNING: nonstandard use of \' in a string literal
          HINT: Use '' to write quotes in strings, or use the escape string syntax (E'...').
        premigrate: 0000_a: WARNING: there is no transaction in progress
        premigrate: 0000_a ended its own transaction and was not recorded

          Part of it may be committed: compare the database with the file.
          If all of it is there, record it: run `premigrate baseline --through 0000_a --dir FOLDER`.
          If not, undo what is there, remove what ends the transaction from the file, and start premigrate again.

          1 more is pending.
    "#]]);
    run.does_not_say("was rolled back").does_not_say("not now");
    assert_eq!(database.tables(), ["a"]);
    assert_eq!(database.history(), Vec::<String>::new());
}

#[test]
fn a_mode_that_a_transaction_cannot_take_is_refused_before_anything_runs() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a ()"),
        ("0001_b", "set transaction isolation level serializable, deferrable"),
        ("0002_c", "select 1; set transaction isolation level serializable"),
    ]);
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&[
        "0001_b.sql:1:1 contains `set transaction isolation level serializable, deferrable`, which \
         cannot work here",
        "0002_c.sql:1:11 contains `set transaction isolation level serializable`",
    ]);
    assert_eq!(database.tables(), Vec::<String>::new());
    folder.write("0001_b.sql", "set transaction isolation level serializable");
    folder.write("0002_c.sql", "select 1");
    premigrate(&database, &folder).run().exits(0);
}

/// A trigger that keeps rows out of the history.
const SWALLOW: &str = "create function swallow() returns trigger language plpgsql \
     as $$ begin return null; end $$; \
     create trigger swallow before insert on drizzle.__drizzle_migrations \
     for each row execute function swallow();";

#[test]
fn a_row_that_a_trigger_swallows_fails_the_migration() {
    let database = Database::fresh();
    record(&database, &[]);
    database.execute(SWALLOW);
    let folder = Folder::drizzle0(&[LOG]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_log failed and was rolled back

          ERROR 22P02: invalid input syntax for type bigint: "premigrate: a trigger keeps rows out of the history"
          0000_log.sql, at its history row
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn a_trigger_that_keeps_rows_out_of_the_history_fails_the_migration() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0);
    folder.add("0001_b", "insert into log values ('b')");
    database.execute(SWALLOW);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0001_b failed and was rolled back

          ERROR 22P02: invalid input syntax for type bigint: "premigrate: a trigger keeps rows out of the history"
          0001_b.sql, at its history row
    "#]]);
    assert_eq!(database.rows("select what from log"), Vec::<String>::new());
}

#[test]
fn a_migration_that_makes_such_a_trigger_fails_too() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table log ()"), ("0001_b", SWALLOW)]);
    let run = premigrate(&database, &folder).run().exits(70);
    run.stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_a in TIME
        premigrate: 0001_b failed and was rolled back

          ERROR 22P02: invalid input syntax for type bigint: "premigrate: a trigger keeps rows out of the history"
          0001_b.sql, at its history row

          1 migration applied in this run is kept.
    "#]]);
    assert_eq!(database.rows("select from pg_trigger where tgname = 'swallow'").len(), 0);
}
