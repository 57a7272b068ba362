//! Settings of the server in the connection string: they hold for migrations as for the app.

use crate::harness::{Database, Folder, premigrate};
use crate::pgbouncer::PgBouncer;

/// What a migration and a statement outside a transaction find.
const RECORD: &str = "create table found as select current_schema() as schema, \
     current_setting('TimeZone') as zone, current_user::text as role, \
     current_setting('work_mem') as memory";

fn with(database: &Database, query: &str) -> Database {
    let separator = if database.url.contains('?') { '&' } else { '?' };
    database.at(format!("{}{separator}{query}", database.url))
}

#[test]
fn a_migration_runs_under_the_settings_that_the_url_names() {
    for (query, found) in [
        ("search_path=tenant,public", "schema = 'tenant'"),
        ("schema=tenant", "schema = 'tenant'"),
        ("currentSchema=tenant", "schema = 'tenant'"),
        ("options=-c%20search_path%3Dtenant", "schema = 'tenant'"),
        ("options=--search-path%3Dtenant%20-cwork_mem=5MB", "schema = 'tenant' and memory = '5MB'"),
        ("options=-c%20search_path%3Dother&search_path=tenant", "schema = 'tenant'"),
        ("timezone=Asia/Tokyo&TimeZone=Asia/Seoul", "zone = 'Asia/Seoul'"),
        ("work_mem=7MB", "memory = '7MB'"),
    ] {
        let database = Database::fresh();
        database.execute("create schema tenant; create schema other");
        let folder = Folder::drizzle0(&[("0000_found", RECORD), ("0001_more", "select 1")]);
        let run = premigrate(&with(&database, query), &folder).run().exits(0);
        run.does_not_say("ignoring");
        let schema = if found.contains("tenant") { "tenant" } else { "public" };
        assert_eq!(
            database.rows(&format!("select from {schema}.found where {found}")).len(),
            1,
            "{query}: {:?}",
            database.rows(&format!("select * from {schema}.found"))
        );
        assert_eq!(database.history().len(), 2, "{query}");
    }
}

#[test]
fn settings_reach_migrations_through_a_pooler_in_transaction_mode_and_do_not_stay_there() {
    let database = Database::fresh();
    database.execute("create schema tenant");
    let pooler = PgBouncer::start(1);
    let folder = Folder::drizzle0(&[("0000_found", RECORD)]);
    let query = "options=-c%20work_mem%3D7MB&schema=tenant&timezone=Asia/Tokyo";
    premigrate(&with(&pooler.to(&database), query), &folder).run().exits(0);
    assert_eq!(
        database.rows("select schema, zone, memory from tenant.found"),
        ["tenant|Asia/Tokyo|7MB"]
    );
    let left = "select current_schema(), current_setting('work_mem')";
    assert_eq!(pooler.to(&database).rows(left), ["public|4MB"]);
}

#[test]
fn a_statement_outside_a_transaction_runs_under_the_settings_of_the_url_too() {
    let database = Database::fresh();
    database.execute("create schema tenant; create table tenant.t (a int); create table t (a int)");
    let folder = Folder::drizzle0(&[
        ("0000_index", "create index concurrently t_a on t (a)"),
        ("0001_found", RECORD),
    ]);
    premigrate(&with(&database, "search_path=tenant"), &folder).run().exits(0);
    let indexed = "select schemaname from pg_indexes where indexname = 't_a'";
    assert_eq!(database.rows(indexed), ["tenant"]);
    assert_eq!(database.rows("select schema from tenant.found"), ["tenant"]);
}

#[test]
fn a_statement_outside_a_transaction_is_refused_where_a_pooler_would_lose_a_setting() {
    let database = Database::fresh();
    database.execute("create schema tenant; create table tenant.t (a int); create table t (a int)");
    let pooler = PgBouncer::start(2);
    let folder = Folder::drizzle0(&[
        ("0000_first", "create table first ()"),
        ("0001_index", "create index concurrently t_a on t (a)"),
    ]);
    let pooled = pooler.to(&database);
    let run = premigrate(&with(&pooled, "search_path=tenant"), &folder).run().exits(78);
    run.says(&["search_path in DATABASE_URL", "alter role"]);
    assert_eq!(database.tables(), ["t"]);
    // What the session has anyway is not lost.
    premigrate(&with(&pooled, "schema=public&work_mem=4MB"), &folder).run().exits(0);
}

#[test]
fn the_role_of_the_url_migrates_and_keeps_the_history_as_with_the_apps_driver() {
    let database = Database::fresh();
    let (owner, _) = database.role();
    let (login, url) = database.role();
    database.execute(&format!(
        "alter role {login} noinherit; grant {owner} to {login}; \
         grant all on database {} to {owner}; grant all on schema public to {owner}",
        database.name
    ));
    let folder = Folder::drizzle0(&[
        ("0000_found", RECORD),
        ("0001_index", "create index concurrently on found (role); select 1"),
    ]);
    let as_login = database.at(url);
    let run = premigrate(&with(&as_login, &format!("role={owner}")), &folder).run().exits(0);
    run.does_not_say("ignoring");
    assert_eq!(database.rows("select role from found"), [owner.as_str()]);
    let owners =
        "select distinct tableowner from pg_tables where schemaname in ('public', 'drizzle')";
    assert_eq!(database.rows(owners), [owner.as_str()]);
    folder.add("0002_more", "create table more ()");
    let status = premigrate(&with(&as_login, &format!("role={owner}")), &folder).args(&["status"]);
    assert!(status.run().exits(0).stdout.contains("pending"));
    premigrate(&with(&as_login, &format!("role={owner}")), &folder).run().exits(0);
}

#[test]
fn a_setting_that_the_server_rejects_is_named_before_anything_runs() {
    for (query, words) in [
        ("timezone=Mars", r#"timezone in DATABASE_URL: invalid value for parameter "TimeZone""#),
        ("role=nobody_has_it", "role in DATABASE_URL: role \"nobody_has_it\" does not exist"),
        ("options=-c%20no_such%3D1", "no_such in DATABASE_URL: unrecognized configuration"),
        ("options=-c%20log_connections%3Don", "log_connections in DATABASE_URL"),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
        premigrate(&with(&database, query), &folder).run().exits(78).says(&[words]);
        assert!(database.tables().is_empty());
    }
}

#[test]
fn a_file_that_resets_a_setting_of_the_url_is_refused() {
    for (query, sql, words) in [
        ("search_path=tenant", "select 1;\nreset search_path;", "search_path"),
        ("search_path=tenant", "reset all", "search_path"),
        ("timezone=Asia/Tokyo", "set time zone default", "timezone"),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", "create table a ()"), ("0001_b", sql)]);
        let run = premigrate(&with(&database, query), &folder).run().exits(78);
        run.says(&["0001_b.sql", words, "DATABASE_URL"]);
        assert!(database.tables().is_empty());
    }
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "set work_mem = '1MB'; reset work_mem; reset all")]);
    premigrate(&with(&database, "schema=public"), &folder).run().exits(0);
}

#[test]
fn a_time_limit_of_the_url_holds_unless_an_option_says_otherwise() {
    let record = "create table found as select current_setting('lock_timeout') as lock, \
         current_setting('statement_timeout') as statement";
    let query = "lock_timeout=2s&statement_timeout=30000";
    for (args, found) in [
        (&[][..], "2s|30s"),
        (&["--lock-timeout", "3s"], "3s|30s"),
        (&["--statement-timeout", "40s"], "2s|40s"),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_found", record)]);
        premigrate(&with(&database, query), &folder).args(args).run().exits(0);
        assert_eq!(database.rows("select * from found"), [found]);
    }
}

#[test]
fn a_migration_is_read_as_standard_sql_whatever_the_default_of_the_database() {
    let database = Database::fresh();
    database.execute(&format!(
        "alter database {} set standard_conforming_strings = off; create table t (a text)",
        database.name
    ));
    // One string to the standard; two statements where backslashes escape.
    let sql = "insert into t values ('\\'), ('; drop table t; --');";
    let index =
        "create index concurrently t_a on t (a) where a <> '\\' and a <> '; drop table t; --'";
    let folder = Folder::drizzle0(&[("0000_rows", sql)]);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select a from t"), ["\\", "; drop table t; --"]);

    folder.add("0001_index", index);
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select count(*) from pg_indexes where indexname = 't_a'"), ["1"]);
}

#[test]
fn a_statement_that_a_pooler_would_have_read_with_backslashes_is_refused() {
    let database = Database::fresh();
    database.execute(&format!(
        "alter database {} set standard_conforming_strings = off; create table t (a text)",
        database.name
    ));
    let folder = Folder::drizzle0(&[("0000_index", "create index concurrently t_a on t (a)")]);
    let pooler = PgBouncer::start(2);
    let run = premigrate(&pooler.to(&database), &folder).run().exits(78);
    run.says(&["standard_conforming_strings, which premigrate turns on", "Connect directly"]);
}
