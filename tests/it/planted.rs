//! What another role has planted in a schema of the `search_path` is not called by SQL of ours: it
//! would run with the rights of the role that migrates.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use premigrate::apply::lock;

use crate::harness::{Database, Folder, premigrate, unique, with_database};
use crate::proxy::{Action, Proxy, Side};

/// Plants operators of every name that we use for all pairs of common types, every function and every
/// type once more in `public`, and implicit casts from and to a type there. Each notes in a sequence, which no rollback sets back, that it
/// was called, and fails.
const TRAPS: &str = r#"
set search_path = pg_catalog;
create sequence public.called minvalue 0;
create table public.traps (id serial, what text);
create function public.trap(what text) returns text language sql as $$
  insert into public.traps (what) values (what) returning format('language plpgsql as %L', format(
    'begin perform pg_catalog.setval(%L, %s); raise exception %L; end', 'public.called', id, 'planted'))
$$;
create type public.planted as (a int4);
do $do$
declare
  types regtype[] := '{int2,int4,int8,numeric,float8,text,name,oid,xid,bool,timestamptz,interval,jsonb,
    regclass,"char",text[],name[],oid[],xid[],int4[]}';
  names text[] := '{=,<>,<,>,<=,>=,+,-,*,/,||,~,!~,~~,->,->>,#>,#>>}';
  l regtype; r regtype; op text; f record;
begin
  foreach l in array types loop
    foreach r in array types loop
      execute format('create function public.trap_bool(%s, %s) returns bool %s', l, r,
        public.trap(format('comparison of %s and %s', l, r)));
      execute format('create function public.trap_left(%s, %s) returns %s %s', l, r, l,
        public.trap(format('operator between %s and %s', l, r)));
      foreach op in array names loop
        execute format('create operator public.%s (function = public.%s, leftarg = %s, rightarg = %s)', op,
          case when op ~ '^[<>=!~]+$' then 'trap_bool' else 'trap_left' end, l, r);
      end loop;
    end loop;
    execute format('create function public.trap_cast(%s) returns public.planted %s', l,
      public.trap(format('cast from %s', l)));
    execute format('create function public.trap_cast_to_%s(public.planted) returns %s %s',
      (select oid from pg_type where oid = l), l, public.trap(format('cast to %s', l)));
    execute format('create cast (%s as public.planted) with function public.trap_cast(%1$s) as implicit', l);
    execute format('create cast (public.planted as %s) with function public.trap_cast_to_%s(public.planted) as implicit',
      l, (select oid from pg_type where oid = l));
    if typelem = 0 from pg_type where oid = l then
      execute format('create function public.trap_type(%s) returns bool %s', l, public.trap(format('type %s', l)));
      execute format('create domain public.%I as pg_catalog.%1$I check (public.trap_type(value))',
        (select typname from pg_type where oid = l));
    end if;
  end loop;
  for f in select proname, oidvectortypes(proargtypes) as args, format_type(prorettype, null) as returned
    from pg_proc where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f'
  loop
    begin
      execute format('create function public.%I(%s) returns %s %s', f.proname, f.args, f.returned,
        public.trap(format('%s(%s)', f.proname, f.args)));
    exception when feature_not_supported or invalid_function_definition or duplicate_function then
      null;
    end;
  end loop;
end $do$;
"#;

/// A database with the traps, and a superuser's way to it for whom they come before `pg_catalog`.
struct Planted {
    superuser: Database,
    database: Database,
    /// What was sent by that way.
    sent: Arc<Mutex<BTreeSet<String>>>,
    proxy: Proxy,
}

impl Planted {
    fn new() -> Planted {
        let superuser = Database::fresh();
        superuser.execute(TRAPS);
        let (role, url) = superuser.role();
        superuser.execute(&format!(
            "alter role {role} superuser; alter role {role} set search_path = public, pg_catalog"
        ));
        let sent = Arc::new(Mutex::new(BTreeSet::new()));
        let log = sent.clone();
        let proxy = Proxy::start(move |message| {
            if message.from == Side::Client && message.tag == b'Q' {
                log.lock().unwrap().insert(message.text.trim_end_matches('\0').to_owned());
            }
            Action::Pass
        });
        let database = proxy.to(&superuser.at(url));
        Planted { superuser, database, sent, proxy }
    }

    /// The trap that something was caught in last.
    fn called(&self) -> Vec<String> {
        self.superuser.rows("select what from public.traps, public.called where id = last_value")
    }
}

#[test]
fn each_kind_of_trap_catches() {
    let planted = Planted::new();
    let mut client = planted.database.client();
    for (sql, trap) in [
        ("select 1 * 1::numeric", "operator between integer and numeric"),
        ("select null::pg_catalog.xid[] = '{1}'", "comparison of xid[] and xid[]"),
        ("select current_setting('x')", "current_setting(text)"),
        ("select 'a'::text", "type text"),
        ("select pg_catalog.int4(1)::public.planted", "cast from integer"),
        ("select pg_catalog.abs(row(1)::public.planted::pg_catalog.int4)", "cast to integer"),
    ] {
        client.batch_execute(sql).unwrap_err();
        assert_eq!(planted.called(), [trap], "{sql}");
    }
}

/// A migration of every kind, in SQL that no trap can catch.
fn folder() -> Folder {
    Folder::drizzle0(&[
        (
            "0000_tables",
            "create table t (a int, b int);\n\
             create index t_old on t (a);\n\
             create table p (a int) partition by range (a);\n\
             create table q partition of p for values from (1) to (2)",
        ),
        (
            "0001_steps",
            "select pg_catalog.set_config('a.b', pg_catalog.lower('A'), false);\n\
             create index concurrently t_a on t (a);\n\
             select pg_catalog.set_config('a.b', pg_catalog.lower('B'), false);\n\
             drop index concurrently t_old;\n\
             create index concurrently on t (b);\n\
             reindex index concurrently t_a;\n\
             alter table p detach partition q concurrently;\n\
             vacuum t",
        ),
        ("0002_isolated", "set transaction isolation level serializable; create table u (a int)"),
    ])
}

/// A row once an index build waits for a writer.
const BUILDING: &str = "select from pg_stat_activity where datname = current_database() \
     and query like '%index concurrently%t_b%' and wait_event_type = 'Lock'";

#[test]
fn no_sql_of_ours_calls_what_is_planted() {
    let planted = Planted::new();
    let Planted { superuser, database, proxy, .. } = &planted;
    let check = |what: &str| {
        assert_eq!(planted.called(), [] as [String; 0], "{what}");
    };

    let folder = folder();
    // The messages with the files' own SQL, each of which has one of these.
    let of_files = [
        "create table t ",
        "create table u ",
        "create table v ",
        "create table w ",
        "concurrently t_",
        "concurrently on t ",
        "reindex",
        "detach partition q",
        "vacuum t",
        "release premigrate; select",
        // Of a rehearsal, which sends them one by one.
        "create index",
        "create table p ",
        "create table q ",
    ];
    premigrate(database, &folder).arg("--dry-run").run().exits(0);
    check("dry run");
    premigrate(database, &folder).args(&["rehearse", "--here"]).run().exits(0);
    check("rehearsal");

    // The session that blocks a statement, and a runner at work, are looked up.
    let mut holder = superuser.holding(&lock::take_sql());
    for command in ["up", "wait"] {
        premigrate(database, &folder).args(&[command, "--runner-wait", "0"]).run().exits(75);
    }
    holder.batch_execute("rollback").unwrap();
    let mut blocker = superuser.holding("create table t (); lock table t in exclusive mode");
    let running = premigrate(database, &folder).start();
    running.wait_to_say("is waiting for a lock");
    check("waiting");
    blocker.batch_execute("rollback").unwrap();
    running.finish().exits(0);
    check("steps");

    // The statement of a runner that was killed is ended, and judged by the catalogs.
    folder.add("0003_index", "create index concurrently t_b on t (b)");
    let mut writer = superuser.holding("insert into t values (1)");
    let mut running = premigrate(database, &folder).start();
    superuser.wait_for("a build", BUILDING);
    running.child.kill().unwrap();
    running.finish();
    let running = premigrate(database, &folder).start();
    running.wait_to_say("still runs a statement of an earlier attempt");
    superuser.wait_for_no("build", BUILDING);
    superuser.wait_for("a build", BUILDING);
    writer.batch_execute("rollback").unwrap();
    running.finish().exits(0);
    check("recovery");

    premigrate(database, &folder).arg("status").run().exits(0);
    premigrate(database, &folder).run().exits(0);
    check("nothing pending");
    folder.write("0000_tables.sql", "select");
    premigrate(database, &folder).args(&["accept", "--all"]).run().exits(0);
    check("accept");
    premigrate(database, &folder).args(&["baseline", "--table", "other"]).run().exits(0);
    check("baseline");

    let upgraded = Folder::empty();
    upgraded.write("20200101000000_first/migration.sql", "select");
    upgraded.write("20200102000000_second/migration.sql", "select");
    superuser.execute(&format!(
        "create table drizzle.older (id serial primary key, hash pg_catalog.text, created_at bigint); \
         insert into drizzle.older (hash, created_at) values ('{}', 1577836800000)",
        upgraded.hash("20200101000000_first/migration.sql")
    ));
    premigrate(database, &upgraded).args(&["--table", "older"]).run().exits(0);
    check("upgrade");
    let plain = Folder::empty();
    plain.write("1_first.sql", "create table v (a int)");
    premigrate(database, &plain).args(&["--table", "plain"]).run().exits(0);
    check("plain");

    let (role, url) = superuser.role();
    superuser.execute(&format!(
        "alter role {role} set search_path = public, pg_catalog; \
         grant usage on schema drizzle to {role}; grant select on drizzle.plain to {role}"
    ));
    plain.write("2_second.sql", "select");
    let denied = database.at(url);
    premigrate(&denied, &plain).args(&["--table", "plain"]).run().exits(77);
    check("grants");

    // As a role that may neither lock the history nor connect twice.
    superuser.execute(&format!(
        "grant insert on drizzle.plain to {role}; \
         grant usage on sequence drizzle.plain_id_seq to {role}; \
         grant create on schema public, drizzle to {role}; alter role {role} connection limit 1"
    ));
    let denied = proxy.to(&denied);
    premigrate(&denied, &plain).args(&["--table", "plain"]).run().exits(0);
    check("look");
    plain.write("3_third.sql", "create table w (a int); create index concurrently t_w on w (a)");
    premigrate(&denied, &plain).args(&["--table", "plain", "--runner-wait", "0"]).run().exits(75);
    check("limit of one connection");
    superuser.execute(&format!("revoke create on schema public from {role}"));

    let missing = unique("planted");
    let missing = Database::named(&missing, with_database(&database.url, &missing));
    let creating = premigrate(&missing, &plain).arg("--create-database");
    creating.run().exits(0).says(&["created the database"]);
    check("create database");

    // How large the tables are.
    superuser.execute("insert into t values (1, 1)");
    let sized = Folder::empty();
    sized
        .write("1_index.sql", "set search_path = public; create index on t (a); reindex index t_a");
    let asked =
        |args: &[&str]| premigrate(database, &sized).args(args).args(&["--table", "sized"]).run();
    asked(&["check", "--database"]).exits(0);
    asked(&["--dry-run"]).exits(0);
    asked(&["--max-blocking", "0"]).exits(65);
    check("sizes");

    // What the server is asked for the cure of a failure.
    superuser.execute(&format!("alter database {} set statement_timeout = '1s'", superuser.name));
    for (table, sql) in [
        ("limit", "select pg_catalog.pg_sleep(5)".to_owned()),
        ("privilege", format!("set role {role}; create table public.x ()")),
        ("search_path", "set search_path = nowhere; create table x ()".to_owned()),
        ("extension", "create table x (a vector)".to_owned()),
    ] {
        let failing = Folder::empty();
        failing.write("1_failing.sql", sql);
        premigrate(database, &failing).args(&["--table", table]).run().exits(70);
        check(table);
    }

    // Nor could anything else that is planted be called.
    let sent = planted.sent.lock().unwrap();
    let is_ours = |sql: &&String| {
        !sql.starts_with("--") && !of_files.iter().any(|statement| sql.contains(statement))
    };
    let ours: Vec<_> = sent.iter().filter(is_ours).collect();
    assert!(ours.len() > 30, "{ours:#?}");
    for rare in ["create database", "rolconnlimit", "and mode operator", "pg_indexes_size"] {
        assert!(ours.iter().any(|sql| sql.contains(rare)), "{rare}");
    }
    for sql in ours {
        let statement = match sql.strip_prefix("/*") {
            Some(tagged) => tagged.split_once("*/").expect("an end").1,
            None => sql,
        };
        assert_eq!(unqualified(statement), [] as [String; 0], "{sql}");
    }
}

#[test]
fn each_name_that_a_schema_may_resolve_is_seen() {
    for sql in [
        "select a = b",
        "select a from t where b operator(pg_catalog.=) 1 and c < 2",
        "update t set a = 1 where b = 2",
        "select count(*)",
        "select 'a'::text",
        "select nullif(a, b)",
        "select from a join b using (c)",
        "select a in (1)",
        "select a is not distinct from b",
    ] {
        assert_eq!(unqualified(sql).len(), 1, "{sql}");
    }
    for sql in [
        "set local a = 'b = c'; update \"d\".\"e\" set a = 1",
        "select *, (x operator(pg_catalog.*) 1)::bigint from pg_catalog.count(*)",
        "select coalesce('=', '''=')::pg_catalog.text",
        "insert into \"s\".\"t\" (a) values (1)",
    ] {
        assert_eq!(unqualified(sql), [] as [String; 0], "{sql}");
    }
}

/// What looks like a function's name before a parenthesis, and is none.
const NO_FUNCTIONS: [&str; 24] = [
    "and", "any", "else", "select", "then", "on", "where", "array", "as", "by", "case", "coalesce",
    "exists", "extract", "from", "join", "key", "lateral", "not", "operator", "or", "over",
    "values", "when",
];

/// What `search_path` would resolve in this SQL: names of functions and types, and operators.
fn unqualified(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in without_quoted(sql).split(';') {
        let tokens = tokens(statement);
        let first = tokens.first().map(String::as_str).unwrap_or_default();
        let mut may_assign = ["set", "update"].contains(&first);
        for (index, token) in tokens.iter().map(String::as_str).enumerate() {
            let at = |index: usize| tokens.get(index).map(String::as_str).unwrap_or_default();
            let (before, after) = (at(index.wrapping_sub(1)), at(index + 1));
            may_assign = (may_assign || token == "update") && token != "where";
            let is_operator = token.starts_with(|c: char| OPERATOR.contains(c));
            let is_resolved = match token {
                // What stands behind these is the operator `=`.
                "nullif" | "using" | "between" | "like" => true,
                "in" if after == "(" => true,
                "distinct" if after == "from" => true,
                "=" if may_assign => false,
                "*" if ["(", "select", ","].contains(&before) => false,
                "::" => {
                    !["int", "bigint", "boolean"].contains(&after)
                        && !after.starts_with("pg_catalog.")
                }
                _ if is_operator => before != "pg_catalog.",
                _ if after == "(" && token.starts_with(char::is_alphabetic) => {
                    let is_table = ["into", "table"].contains(&before);
                    !(token.contains('.') || is_table || NO_FUNCTIONS.contains(&token))
                }
                _ => false,
            };
            if is_resolved {
                found.push(format!("{before} {token} {after}"));
            }
        }
    }
    found
}

const OPERATOR: &str = "=<>~!@#%^&|`?+-*/:";

/// Words with their dots, operators, and each other character.
fn tokens(sql: &str) -> Vec<String> {
    let kind = |c: char| match c {
        _ if c.is_alphanumeric() || "_.".contains(c) => 1,
        _ if OPERATOR.contains(c) => 2,
        _ => 3,
    };
    let mut tokens: Vec<String> = Vec::new();
    let mut last = 3;
    for c in sql.to_lowercase().chars() {
        match tokens.last_mut() {
            Some(token) if kind(c) == last && last != 3 => token.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
        last = kind(c);
    }
    tokens
}

/// The SQL with `q` in place of each quoted name, and nothing in place of each literal.
fn without_quoted(sql: &str) -> String {
    let mut text = String::new();
    let mut rest = sql;
    while let Some((before, quoted)) = rest.split_once(['\'', '"']) {
        let quote = if rest[before.len()..].starts_with('"') { '"' } else { '\'' };
        text.push_str(before);
        text.push_str(if quote == '"' { "q" } else { "" });
        // A doubled quote ends one literal and begins another.
        rest = quoted.split_once(quote).expect("an end").1;
    }
    text + rest
}
