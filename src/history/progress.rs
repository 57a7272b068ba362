//! The progress of split migrations: a table beside the history, there only while one is under way.
//!
//! Text in, text out, as in `history`. A row is a step that is finished, or a statement outside any
//! transaction that has begun: of that the next start must find out what became of it.

use std::fmt;

use serde::Deserialize;

use crate::history::table::{Table, guard_sql};
use crate::sql::quote;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// The migration's name.
    pub migration: String,
    /// Which step, from 1.
    pub step: usize,
    /// The hash that it had.
    pub hash: String,
    /// Whether it is done; if not, it has begun.
    pub finished: bool,
    /// The statement that has begun, in the words by which its fate is told; none where nothing can
    /// tell it, since all was before as the statement makes it.
    pub statement: Option<String>,
    /// The backend's process number, where that runs nothing but what we send.
    pub pid: Option<i32>,
    /// When that backend started, as the server wrote it: numbers are given out again.
    pub backend_start: Option<String>,
}

impl Record {
    /// A step that is done.
    pub fn finished(migration: &str, step: usize, hash: &str) -> Record {
        Record {
            migration: migration.to_owned(),
            step,
            hash: hash.to_owned(),
            finished: true,
            statement: None,
            pid: None,
            backend_start: None,
        }
    }
}

/// All there is of it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the table is there.
    pub exists: bool,
    /// Whether our role may drop it.
    pub owned: bool,
    /// Its rows, by migration and step.
    pub records: Vec<Record>,
}

/// What cannot be understood of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadProgressTable(String);

impl fmt::Display for BadProgressTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// PostgreSQL cuts longer names, in bytes (NAMEDATALEN - 1).
const LONGEST_NAME: usize = 63;
const SUFFIX: &str = "_progress";

/// The table's name: the history's, with a suffix that is never cut off.
fn name(table: &Table) -> String {
    let (_, history) = table.names();
    let kept = history.floor_char_boundary(LONGEST_NAME - SUFFIX.len());
    format!("{}{SUFFIX}", history.get(..kept).unwrap_or_default())
}

/// The table, as SQL and people call it.
pub fn qualified(table: &Table) -> String {
    format!("{}.{}", quote::ident(table.names().0), quote::ident(&name(table)))
}

/// Asks whether the table is there, and whether it is ours.
pub fn exists_sql(table: &Table) -> String {
    format!(
        "select pg_catalog.pg_has_role(relowner, 'usage') from pg_catalog.pg_class \
         where oid = pg_catalog.to_regclass({})",
        quote::literal(&qualified(table))
    )
}

/// Reads the table.
pub fn select_sql(table: &Table) -> String {
    format!("select pg_catalog.json_agg(progress) from {} progress", qualified(table))
}

/// Understands the answers to [`exists`] and [`read`].
pub fn parse(owned: bool, answer: &[Option<String>]) -> Result<Progress, BadProgressTable> {
    let mut records: Vec<Record> = match answer {
        [Some(json)] => {
            serde_json::from_str(json).map_err(|error| BadProgressTable(error.to_string()))?
        }
        _ => Vec::new(),
    };
    records.sort_by(|a, b| (&a.migration, a.step).cmp(&(&b.migration, b.step)));
    Ok(Progress { exists: true, owned, records })
}

/// Makes the table.
pub fn create_sql(table: &Table) -> String {
    format!(
        "create table {} (migration text not null, step integer not null, hash text not null, \
         finished boolean not null, statement text, pid integer, \
         backend_start timestamp with time zone, primary key (migration, step))",
        qualified(table)
    )
}

/// The condition that there is still no table. Read from the backend's cache, which is faster than
/// the catalogs, and so only for a statement that reads a table which the transaction has not touched
/// before: to lock that, the backend catches up with all that has been committed.
pub fn missing_sql(table: &Table) -> String {
    format!("pg_catalog.to_regclass({}) is null", quote::literal(&qualified(table)))
}

/// Raises an error unless the progress is still this; for a statement after the lock was taken.
pub fn unchanged_sql(table: &Table, progress: &Progress) -> String {
    if !progress.exists {
        return guard_sql(&format!(
            "not exists (select from pg_catalog.pg_class \
             join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace \
             where nspname = {} and relname = {})",
            quote::literal(table.names().0),
            quote::literal(&name(table))
        ));
    }
    let line = |it: &Record| {
        let finished = if it.finished { 't' } else { 'f' };
        format!("{} {} {} {finished}", it.step, it.hash, it.migration)
    };
    let mut lines: Vec<_> = progress.records.iter().map(line).collect();
    lines.sort();
    guard_sql(&format!(
        "{} = (select coalesce(pg_catalog.string_agg(line, e'\\n' order by line collate \"C\"), '') \
         from (select pg_catalog.format('%s %s %s %s', step, hash, migration, finished) as line \
         from {}) lines)",
        quote::literal(&lines.join("\n")),
        qualified(table)
    ))
}

/// Writes that a step is done.
pub fn finish_sql(table: &Table, migration: &str, step: usize, hash: &str) -> String {
    format!(
        "insert into {} (migration, step, hash, finished) values ({}, {step}, {}, true)",
        qualified(table),
        quote::literal(migration),
        quote::literal(hash)
    )
}

/// Writes that a statement begins, in this session, and gives back the backend's number and start
/// where it is a session of our own: where its backend is the one that the handshake named.
pub fn begin_sql(
    table: &Table,
    migration: &str,
    step: usize,
    hash: &str,
    statement: Option<&str>,
    handshake: i32,
) -> String {
    format!(
        "insert into {} (migration, step, hash, finished, statement, pid, backend_start) \
         values ({}, {step}, {}, false, {}, \
         (select pid from pg_catalog.pg_stat_activity where pid = {handshake} \
         and pid = pg_catalog.pg_backend_pid()), \
         (select backend_start from pg_catalog.pg_stat_activity where pid = {handshake} \
         and pid = pg_catalog.pg_backend_pid())) returning pid, backend_start",
        qualified(table),
        quote::literal(migration),
        quote::literal(hash),
        statement.map_or("null".to_owned(), quote::literal),
    )
}

/// Writes that a statement that has begun is done.
pub fn finish_begun_sql(table: &Table, migration: &str, step: usize) -> String {
    format!(
        "update {} set finished = true, statement = null, pid = null, backend_start = null \
         where migration = {} and step = {step} and not finished",
        qualified(table),
        quote::literal(migration)
    )
}

/// Writes that a statement that has begun did nothing.
pub fn forget_begun_sql(table: &Table, migration: &str, step: usize) -> String {
    format!(
        "delete from {} where migration = {} and step = {step} and not finished",
        qualified(table),
        quote::literal(migration)
    )
}

/// Writes that the migration has another name now.
pub fn rename_sql(table: &Table, from: &str, to: &str) -> String {
    let (from, to) = (quote::literal(from), quote::literal(to));
    format!("update {} set migration = {to} where migration = {from}", qualified(table))
}

/// Forgets what was done of a migration.
pub fn forget_sql(table: &Table, migration: &str) -> String {
    format!("delete from {} where migration = {}", qualified(table), quote::literal(migration))
}

/// What someone who may has to run, so that this role can keep its progress.
pub fn grants(table: &Table, exists: bool, role: &str) -> Vec<String> {
    let (schema, role) = (quote::ident(table.names().0), quote::ident(role));
    let mut statements = vec![format!("grant usage, create on schema {schema} to {role};")];
    if exists {
        let table = qualified(table);
        let all = "select, insert, update, delete";
        statements.push(format!("grant {all} on {table} to {role};"));
    }
    statements
}

impl Progress {
    /// The records of one migration.
    pub fn of<'p>(&'p self, migration: &str) -> impl Iterator<Item = &'p Record> {
        self.records.iter().filter(move |record| record.migration == migration)
    }

    /// Forgets these migrations, and the table with the last of them.
    pub fn close(&self, table: &Table, migrations: &[String]) -> Option<String> {
        let is_other = |record: &Record| !migrations.contains(&record.migration);
        if !self.exists {
            return None;
        }
        if self.owned && !self.records.iter().any(is_other) {
            return Some(format!("drop table {}", qualified(table)));
        }
        let names: Vec<_> = migrations.iter().map(|name| quote::literal(name)).collect();
        let names = names.join(", ");
        Some(format!("delete from {} where migration in ({names})", qualified(table)))
    }

    /// The progress after [`Progress::close`].
    pub fn closed(&mut self, migrations: &[String]) {
        self.records.retain(|record| !migrations.contains(&record.migration));
        self.exists = self.exists && !(self.owned && self.records.is_empty());
    }

    /// The progress after a write for this step: none is what [`forget_begun`] leaves.
    pub fn put(&mut self, migration: &str, step: usize, record: Option<Record>) {
        self.records.retain(|old| !(old.migration == migration && old.step == step));
        self.records.extend(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(migration: &str, step: usize) -> Record {
        Record::finished(migration, step, "h")
    }

    #[test]
    fn the_name_keeps_its_suffix_within_what_the_server_takes() {
        assert_eq!(name(&Table::new("s", "t")), "t_progress");
        let long = name(&Table::new("s", "é".repeat(40)));
        assert_eq!((long.len(), long.ends_with("é_progress")), (63, true));
    }

    #[test]
    fn rows_are_read_by_their_names() {
        let json = r#"[{"migration":"b","step":1,"hash":"h","finished":true,"statement":null,
            "pid":null,"backend_start":null},{"migration":"a","step":2,"hash":"h",
            "finished":false,"statement":"vacuum","pid":7,"backend_start":"x"}]"#;
        let progress = parse(true, &[Some(json.to_owned())]).unwrap();
        let told: Vec<_> = progress.records.iter().map(|it| (&*it.migration, it.step)).collect();
        assert_eq!(told, [("a", 2), ("b", 1)]);
        assert_eq!(parse(false, &[None]).unwrap().records, []);
        assert!(parse(true, &[Some("[{}]".to_owned())]).is_err());
    }

    #[test]
    fn the_table_goes_with_the_last_migration_where_it_may() {
        let table = Table::new("s", "t");
        let of = |owned, records: Vec<Record>| Progress { exists: true, owned, records };
        let close = |progress: &Progress| progress.close(&table, &["a".to_owned()]);
        let one = of(true, vec![record("a", 1)]);
        assert_eq!(close(&one).as_deref(), Some(r#"drop table "s"."t_progress""#));
        let two = of(true, vec![record("a", 1), record("b", 1)]);
        assert!(close(&two).is_some_and(|sql| sql.starts_with("delete")));
        let not_ours = of(false, vec![record("a", 1)]);
        assert!(close(&not_ours).is_some_and(|sql| sql.starts_with("delete")));
        assert_eq!(close(&Progress::default()), None);
    }
}
