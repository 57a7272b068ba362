//! All that a run leaves in a database, as text, so that two can be compared.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Database, output_of, rows};
use crate::server::program;

/// What no dump of the schema shows.
const OTHERS: [&str; 5] = [
    "select 'history', hash, created_at from drizzle.__drizzle_migrations order by created_at, hash",
    "select 'invalid index', indexrelid::regclass from pg_index where not (indisvalid and indisready \
     and indislive) order by 2",
    "select 'half detached', inhrelid::regclass from pg_inherits \
     where to_jsonb(pg_inherits) -> 'inhdetachpending' = 'true' order by 2",
    "select 'prepared transaction', gid from pg_prepared_xacts where database = current_database()",
    "select 'large object', oid from pg_largeobject_metadata order by 2",
];

/// Schema, data and history.
pub fn state(database: &Database) -> String {
    let mut dump = program("pg_dump");
    let dump = output_of(dump.args(["--schema-only", "--dbname", &database.url]));
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let schema = String::from_utf8(dump.stdout).expect("SQL");
    // Two lines have a key that is new in each dump.
    let schema = schema.lines().filter(|line| !line.is_empty() && !line.starts_with(['-', '\\']));
    let mut lines: Vec<String> = schema.map(str::to_owned).collect();

    let mut client = database.client();
    let tables = "select oid::regclass from pg_class where relkind in ('r', 'm') \
         and relname <> '__drizzle_migrations' and relnamespace in \
         (select oid from pg_namespace where nspname !~ '^(pg_|information_)') \
         order by oid::regclass::text";
    let contents = rows(&mut client, tables).into_iter().map(|table| {
        format!(
            "select '{table}', count(*), \
             md5(string_agg(t::text, e'\\n' order by t::text collate \"C\")) from {table} t"
        )
    });
    let queries: Vec<String> = contents.chain(OTHERS.map(str::to_owned)).collect();
    lines.extend(rows(&mut client, &queries.join(";\n")));
    lines.join("\n")
}

/// The lines that only one of them has, or more often; `None` if they are the same.
pub fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut text = String::new();
    for (sign, here, there) in [('-', expected, found), ('+', found, expected)] {
        let mut there: Vec<&str> = there.lines().collect();
        for line in here.lines() {
            match there.iter().position(|other| *other == line) {
                Some(at) => drop(there.swap_remove(at)),
                None => text.push_str(&format!("{sign} {line}\n")),
            }
        }
    }
    Some(if text.is_empty() { "the same lines in another order\n".to_owned() } else { text })
}

/// What is to be gone after the last run, and still there after this time: the server needs a moment to
/// see a client off.
pub fn leftovers(database: &Database, is_pooled: bool, patience: Duration) -> Vec<String> {
    // A pooler keeps its sessions.
    let idle = if is_pooled { "and state <> 'idle'" } else { "" };
    let sql = format!(
        "select 'session ' || pid || ' ' || state || ' ' || query from pg_stat_activity \
         where datname = current_database() and application_name = 'premigrate' {idle} \
         union all select 'advisory lock of ' || pid from pg_locks where locktype = 'advisory' \
         and database = (select oid from pg_database where datname = current_database())"
    );
    let until = Instant::now() + patience;
    let mut client = database.client();
    loop {
        let rows = rows(&mut client, &sql);
        if rows.is_empty() || Instant::now() > until {
            return rows;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
