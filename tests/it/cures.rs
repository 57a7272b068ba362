//! Failures whose cure is known: the report tells it.

use crate::harness::{Database, Folder, Run, premigrate};

/// Runs one migration, which has to fail, in this database.
#[track_caller]
fn fails(database: &Database, sql: &str) -> Run {
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(database, &folder).run().exits(70)
}

/// Runs one migration, which has to fail, in a fresh database, after this setup.
#[track_caller]
fn fails_after(setup: &str, sql: &str) -> Run {
    let database = Database::fresh();
    database.execute(setup);
    fails(&database, sql)
}

const SLOW: &str = "select pg_sleep(60)";

#[test]
fn a_statement_timeout_of_the_role_is_named_with_the_option_that_lifts_it() {
    let database = Database::fresh();
    let (role, url) = database.role();
    database.execute(&format!("alter database {} owner to {role}", database.name));
    database.execute(&format!("alter role {role} set statement_timeout = '300ms'"));
    let folder = Folder::drizzle0(&[("0000_a", "select pg_sleep(1)")]);
    let run = || premigrate(&database, &folder).env("DATABASE_URL", &url);
    run().run().exits(70).says(&[
        &format!("statement_timeout is 300ms for the role {role}."),
        "pass --statement-timeout 0, or set PREMIGRATE_STATEMENT_TIMEOUT=0",
    ]);
    run().env("PREMIGRATE_STATEMENT_TIMEOUT", "0").run().exits(0);
}

#[test]
fn a_statement_timeout_of_the_database_or_of_the_file_is_named() {
    let database = Database::fresh();
    let name = &database.name;
    database.execute(&format!("alter database {name} set statement_timeout = '300ms'"));
    let words = format!("statement_timeout is 300ms for the database {name}.");
    fails(&database, SLOW).says(&[&words]);
    for set in ["set local statement_timeout = 200", "set statement_timeout to '0.2s'"] {
        let run = fails(&database, &format!("{set};\n{SLOW}"));
        run.says(&["The file itself sets statement_timeout."]);
    }
}

#[test]
fn the_settings_of_the_connection_string_count_in_the_cure() {
    let database = Database::fresh();
    let (role, _) = database.role();
    database.execute(&format!(
        "create schema app; grant create on database {} to {role}",
        database.name
    ));
    let run = |settings: &str, sql| {
        let options = settings.replace(' ', "%20").replace('=', "%3D");
        let url = format!("{}?options={options}", database.url);
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        premigrate(&database, &folder).env("DATABASE_URL", url).run().exits(70)
    };
    run("-c statement_timeout=300", SLOW)
        .says(&["statement_timeout is 300ms for this connection", "--statement-timeout 0"]);
    run("-c search_path=nowhere", "create table t ()")
        .says(&["No schema in search_path (nowhere) exists"]);
    let grant = format!("grant usage, create on schema \"app\" to \"{role}\";");
    run(&format!("-c role={role}"), "create table app.t ()").says(&[&grant]);
}

#[test]
fn a_statement_timeout_of_ours_is_named() {
    let database = Database::fresh();
    for sql in [SLOW, "-- premigrate: no-transaction\nselect pg_sleep(60)"] {
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let run = premigrate(&database, &folder).args(&["--statement-timeout", "200ms"]).run();
        run.exits(70).says(&["57014", "--statement-timeout is 200ms."]);
    }
}

#[test]
fn a_statement_that_another_session_cancelled_is_reported_as_that() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", SLOW)]);
    let run = premigrate(&database, &folder).start();
    let running = "from pg_stat_activity where datname = current_database() \
         and application_name = 'premigrate' and wait_event = 'PgSleep'";
    database.wait_for("the statement", &format!("select {running}"));
    database.execute(&format!("select pg_cancel_backend(pid) {running}"));
    run.finish().exits(70).says(&["Another session cancelled the statement"]);
}

const DEFERRED: &str = "create table p (id int primary key); insert into p values (1);
    create table c (p int references p deferrable initially deferred, z int);";

#[test]
fn pending_trigger_events_have_a_cure_and_it_works() {
    let (insert, alter) = ("insert into c values (1);", "alter table c drop column z;");
    fails_after(DEFERRED, &format!("{insert}{alter}"))
        .says(&["SET CONSTRAINTS ALL IMMEDIATE;", "add the line `-- premigrate: no-transaction`"]);
    for cured in [
        format!("{insert} SET CONSTRAINTS ALL IMMEDIATE; {alter}"),
        format!("-- premigrate: no-transaction\n{insert}{alter}"),
    ] {
        let database = Database::fresh();
        database.execute(DEFERRED);
        premigrate(&database, &Folder::drizzle0(&[("0000_a", &cured)])).run().exits(0);
    }
    // An open cursor is another matter.
    let cursor = "declare k cursor for select * from c; fetch k; alter table c drop column z;";
    fails_after(DEFERRED, cursor).says(&["55006"]).does_not_say("SET CONSTRAINTS");
}

#[test]
fn a_privilege_on_a_schema_is_granted_by_the_sql_that_is_printed() {
    for (setup, sql, privileges, schema) in [
        ("revoke create on schema public from public", "create table t ()", "create", "public"),
        ("create schema app", "create table app.t ()", "usage, create", "app"),
        ("create schema app; create view app.v as select 1", "select from app.v", "usage", "app"),
    ] {
        let database = Database::fresh();
        let (role, url) = database.role();
        let name = &database.name;
        database.execute(&format!("{setup}; grant create on database {name} to {role}"));
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let run = || premigrate(&database, &folder).env("DATABASE_URL", &url).run();
        let grant = format!("grant {privileges} on schema \"{schema}\" to \"{role}\";");
        run().exits(70).says(&["Ask the owner of the schema to run:", &grant]);
        database.execute(&grant);
        let next = run();
        assert!(!next.stderr.contains("permission denied for schema"), "{}", next.stderr);
    }
}

#[test]
fn a_privilege_on_a_table_is_not_taken_for_one_on_a_schema() {
    let database = Database::fresh();
    let (role, url) = database.role();
    let name = &database.name;
    database.execute(&format!(
        "grant create on database {name} to {role}; revoke create on schema public from public;
         create table public ()"
    ));
    let folder = Folder::drizzle0(&[("0000_a", "select from public.public")]);
    let run = premigrate(&database, &folder).env("DATABASE_URL", &url).run().exits(70);
    run.says(&["permission denied for table public"]).does_not_say("Ask the owner");
}

#[test]
fn a_schema_that_is_missing_is_to_be_created() {
    fails_after("", "create table app.t ()").says(&["create schema \"app\";"]);
    fails_after("drop schema public", "create table t ()")
        .says(&["No schema in search_path (\"$user\", public) exists"]);
    fails_after("", "set search_path = nowhere; create table t ()")
        .says(&["No schema in search_path exists"]);
}

#[test]
fn an_extension_that_the_database_does_not_have_is_named() {
    for (sql, extension) in [
        ("create table t (a citext)", "citext"),
        ("create table t (a int, tags hstore[])", "hstore"),
        ("create table t (a \"public\".\"ltree\")", "ltree"),
        ("create table t (a text); create index on t using gin (a gin_trgm_ops)", "pg_trgm"),
        ("create table t (a uuid default uuid_generate_v4())", "uuid-ossp"),
        ("select gen_random_bytes(8)", "pgcrypto"),
        ("do $$ begin perform gen_salt('bf'); end $$", "pgcrypto"),
        ("create table t (a int, exclude using gist (a with =))", "btree_gist"),
    ] {
        let create = format!("CREATE EXTENSION IF NOT EXISTS \"{extension}\";");
        fails_after("", sql).says(&[&format!("the extension {extension},"), &create]);
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", &format!("{create}\n{sql}"))]);
        premigrate(&database, &folder).run().exits(0);
    }
    fails_after("", "create table t (a vector(3))")
        .says(&["the extension vector, which is not installed on this server"]);
}

#[test]
fn an_extension_in_a_schema_outside_search_path_is_found_there() {
    let setup = "create schema extensions; create extension citext schema extensions";
    fails_after(setup, "create table t (a citext)")
        .says(&["in the schema extensions. Add that schema to search_path"]);
    // What is there, and does not fit, is no matter of the extension.
    fails_after("create extension pgcrypto", "select gen_random_bytes('a', 'b')")
        .says(&["42883"])
        .does_not_say("extension");
}

#[test]
fn what_belongs_to_the_server_or_to_every_new_database_is_no_reason_for_a_baseline() {
    let database = Database::fresh();
    let (role, _) = database.role();
    for (sql, words) in [
        (format!("create role {role}; create table t ()"), "All databases of a server share"),
        ("create extension plpgsql; create table t ()".to_owned(), "Write IF NOT EXISTS"),
        ("create schema public; create table t ()".to_owned(), "Write IF NOT EXISTS"),
    ] {
        fails(&database, &sql).says(&["already exists", words]).does_not_say("baseline");
    }
}

#[test]
fn a_baseline_is_the_hint_where_no_applied_migration_has_made_the_object() {
    let database = Database::fresh();
    database.execute("create table users ()");
    let folder = Folder::drizzle0(&[
        ("0000_ext", "create extension if not exists citext"),
        ("0001_users", "create table users ()"),
    ]);
    // Also at the next start, when the first migration is in the history.
    for _ in 0..2 {
        let run = premigrate(&database, &folder).run().exits(70);
        run.says(&["already exists", "`premigrate baseline --through NAME"]);
    }
}

#[test]
fn a_baseline_is_no_hint_where_the_migrations_explain_the_object() {
    for migrations in [
        &[("0000_a", "create table t ()"), ("0001_b", "create table \"t\" ()")][..],
        &[("0000_a", "create table t (); create table t ()")],
    ] {
        let run = premigrate(&Database::fresh(), &Folder::drizzle0(migrations)).run().exits(70);
        run.says(&["already exists"]).does_not_say("baseline");
    }
    // Nor where a step of the migration is done already.
    fails_after("create table t ()", "create table a (); vacuum; create table t ()")
        .says(&["already exists"])
        .does_not_say("baseline");
}

#[test]
fn a_migration_that_drizzle_skipped_and_a_later_one_repeats_can_be_recorded_alone() {
    let database = Database::fresh();
    let (late, again) = ("alter table t add column a int", "alter table t add column a int");
    let folder = Folder::drizzle0(&[("0000_t", "create table t ()")]);
    folder.add_at("0001_later", again, 1_700_000_009_000);
    premigrate(&database, &folder).run().exits(0);
    folder.add_at("0002_late", late, 1_700_000_005_000);
    folder.edit_journal(|entries| entries.swap(1, 2));
    folder.add_at("0003_last", "create table last ()", 1_700_000_010_000);
    premigrate(&database, &folder).run().exits(70).says(&[
        "drizzle-orm skips a migration that is older than the last one applied, and a later \
         migration, 0001_later, has probably made the same change",
        "`premigrate baseline --through 0002_late",
    ]);
    let run = premigrate(&database, &folder).args(&["baseline", "--through", "0002_late"]).run();
    run.exits(0).says(&["recorded 1 migration as applied"]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0003_last"]);
}

#[test]
fn an_invisible_character_is_named_with_its_place() {
    for (sql, character) in [
        (
            "create table a(id int);\n\u{feff}create table b(id int);",
            "U+FEFF (ZERO WIDTH NO-BREAK SPACE)",
        ),
        ("create table a(id int);\n\u{200b}select 1;", "U+200B (ZERO WIDTH SPACE)"),
        ("create table a(id int);\n\u{a0}select 1", "U+00A0 (NO-BREAK SPACE)"),
        ("select 1;\n\u{2060};", "U+2060 (WORD JOINER)"),
        ("select '\n\u{ad}'::int", "U+00AD (SOFT HYPHEN)"),
        ("select * from \"\n\u{200d}\"", "U+200D (ZERO WIDTH JOINER)"),
        ("do $$ begin\n\u{200c}; end $$", "U+200C (ZERO WIDTH NON-JOINER)"),
        ("do $$ begin perform\n\u{2003}f(); end $$", "U+2003 (EM SPACE)"),
    ] {
        let run = fails(&Database::fresh(), sql);
        run.says(&[&format!("The character at line 2, column 1 is {character}.")]);
    }
    let word = "select 1;\nselect\u{200e} 1";
    fails(&Database::fresh(), word)
        .says(&["The character at line 2, column 7 is U+200E (LEFT-TO-RIGHT MARK)."]);
    // The one at which the server stopped, and not one that is a name.
    let name = "create table a\u{200c}b (c int); insert into a\u{200c}b select\u{a0}1, 1\u{a0}";
    fails(&Database::fresh(), name).says(&["U+00A0 (NO-BREAK SPACE)"]);
    let outside = "-- premigrate: no-transaction\nselect 1;\nvacuum\u{a0}t";
    fails(&Database::fresh(), outside).says(&["The character at line 3, column 7 is U+00A0"]);
}

/// What `check` says of it without a server.
#[test]
fn the_server_rejects_an_invisible_character_in_a_command_and_keeps_it_in_a_name() {
    for c in ['\u{a0}', '\u{ad}', '\u{200b}', '\u{200e}', '\u{2028}', '\u{3000}', '\u{feff}'] {
        let sql = format!("select 1; select{c}1");
        fails(&Database::fresh(), &sql).says(&["42601"]);
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", &format!("create table a{c}(b int)"))]);
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(database.tables(), [format!("a{c}")]);
    }
    for sql in ["select 1\u{8}", "select 1 \u{7f}", "select \u{1f}1"] {
        fails(&Database::fresh(), sql).says(&["42601"]);
    }
}

#[test]
fn an_invisible_character_that_is_meant_is_not_blamed() {
    for sql in [
        "select 'a\u{a0}b', 1/0",
        "select 'a\u{a0}b' -- \u{200b}\nfrom nowhere",
        "create table \u{6a9}\u{200c}\u{627} (a int check (a > 1)); insert into \u{6a9}\u{200c}\u{627} values (0)",
        "create table a\u{200c}b (c int); insert into a\u{200c}b (d) values (1)",
        "create table \u{6a9}\u{200c}\u{627} (a int,,)",
    ] {
        fails(&Database::fresh(), sql).does_not_say("white space");
    }
}
