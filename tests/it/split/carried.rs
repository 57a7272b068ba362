//! What a step leaves in the session, for the next one.

use crate::harness::{Database, Folder, premigrate};
use crate::pgbouncer::PgBouncer;

/// Saves a setting around a concurrent index. The third step fails the first time.
const SAVED_AROUND: &str = "\
    create table t (a int);\n\
    set search_path = pg_catalog, public;\n\
    select set_config('mine.path', current_setting('search_path'), false);\n\
    do $$ begin perform set_config('search_path', (select 'elsewhere'), false); end $$;\n\
    commit;\n\
    create index concurrently t_a on public.t (a);\n\
    create table public.found as select current_setting('search_path') as path;\n\
    select set_config('search_path', current_setting('mine.path'), false);\n\
    commit;\n\
    create index concurrently t_b on t (a);\n\
    insert into found select current_setting('search_path') from log;";

#[test]
fn computed_settings_are_found_by_the_next_step_and_by_the_next_run() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", SAVED_AROUND)]);
    for _ in 0..2 {
        premigrate(&database, &folder).run().exits(70).says(&["relation \"log\" does not exist"]);
    }
    // They may be secrets: no more of them are kept than the next step needs.
    let kept = "select step from drizzle.__drizzle_migrations_progress where settings is not null";
    assert_eq!(database.rows(kept), ["3"]);
    database.execute("create table log as select 1");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select path from found"), ["elsewhere", "pg_catalog, public"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn a_role_that_code_has_set_is_found_by_the_next_step() {
    let database = Database::fresh();
    let (role, _) = database.role();
    database.execute(&format!(
        "grant create on schema public to {role}; create table who (name text); \
         grant insert on who to {role}"
    ));
    let sql = format!(
        "do $$ begin execute 'set role {role}'; end $$; create table t (a int); commit; \
         create index concurrently t_a on t (a); insert into who values (current_user); \
         reset role; vacuum who; insert into who values (current_user)"
    );
    let folder = Folder::drizzle0(&[("0000_a", &sql)]);
    premigrate(&database, &folder).run().exits(0);
    let owner = database.value("select session_user");
    assert_eq!(database.rows("select name from who"), [role, owner]);
}

#[test]
fn a_role_that_was_set_and_reset_may_be_dropped_before_the_next_step() {
    let database = Database::fresh();
    let (role, _) = database.role();
    let sql = format!(
        "create table t (a int); set role {role}; select 1; reset role; drop role {role}; \
         create index concurrently t_a on t (a); select 1"
    );
    let folder = Folder::drizzle0(&[("0000_a", &sql)]);
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_setting_that_was_reset_is_no_reason_to_refuse_a_pooler() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(5);
    let sql = "set search_path = public; create table t (a int); reset search_path; \
        create index concurrently t_a on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&pooler.to(&database), &folder).run().exits(0);
}

#[test]
fn a_computed_setting_is_found_behind_a_pooler_or_refused_before_anything_runs() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(5);
    let timeout = "create table t (a int); \
        select set_config('mine.timeout', current_setting('statement_timeout'), false); \
        set statement_timeout = 0; commit; create index concurrently t_a on t (a); \
        select set_config('statement_timeout', current_setting('mine.timeout'), false)";
    let folder = Folder::drizzle0(&[("0000_a", timeout)]);
    premigrate(&pooler.to(&database), &folder).run().exits(0);

    let path = "create table u (a int); select set_config('search_path', current_user, false); \
        commit; vacuum; select 1";
    folder.add("0001_b", path);
    let run = premigrate(&pooler.to(&database), &folder).run().exits(78);
    run.says(&["set_config('search_path', current_user, false)", "a pooler does not keep"]);
    assert_eq!(database.value("select to_regclass('u')"), "");
    premigrate(&database, &folder).run().exits(0);
}

#[test]
fn a_setting_whose_name_is_computed_is_refused_before_anything_runs() {
    let database = Database::fresh();
    let sql = "create table t (a int);\n\
        select set_config(name, 'x', false) from (values ('mine.a')) names (name);\n\
        commit; vacuum t; select current_setting('mine.a')";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let run = premigrate(&database, &folder).run().exits(65);
    run.says(&["0000_a.sql:2:1", "set_config of a setting whose name is computed"]);
    assert_eq!(database.tables(), [] as [String; 0]);
}
