//! The progress of migrations that run in several steps: a table beside the history, which exists
//! only while such a migration is incomplete.
//!
//! A row is a finished step, or a statement outside any transaction that has started: whether it
//! finished, the next run has to find out.

use serde::Deserialize;

use crate::history::table::{self, Table};
use crate::migrations::replay::Saved;
use crate::postgres::result::ResultRow;
use crate::sql::quote::{self, EQ};
use crate::sql::settings::SettingValues;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    pub migration: String,
    /// From 1.
    pub step: usize,
    pub hash: String,
    /// If not, the step has started.
    pub finished: bool,
    /// What a later start looks for to tell whether the statement finished, without any value of
    /// it. `None` if all of it was there before, since then it proves nothing, and if the statement
    /// may run twice.
    pub statement: Option<String>,
    /// The backend that runs the statement; `None` behind a pooler, which may reuse it.
    pub pid: Option<i32>,
    /// As the server wrote it; tells the backend from a later one with the same process id.
    pub backend_start: Option<String>,
    /// The settings that a finished step has left for the next one, if their values are computed.
    pub settings: Option<SettingValues>,
}

impl Record {
    pub fn finished(migration: &str, step: usize, hash: &str) -> Record {
        Record {
            migration: migration.to_owned(),
            step,
            hash: hash.to_owned(),
            finished: true,
            statement: None,
            pid: None,
            backend_start: None,
            settings: None,
        }
    }
}

/// The table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub exists: bool,
    /// Whether this role may drop it.
    pub owned: bool,
    /// In the order of migration and step.
    pub records: Vec<Record>,
}

/// NAMEDATALEN - 1: PostgreSQL cuts longer names, by bytes.
const MAX_NAME_LENGTH: usize = 63;
const SUFFIX: &str = "_progress";

/// The history's name with the suffix, cut before it where it is too long.
fn name(history: &Table) -> String {
    let history = history.name();
    let kept = history.floor_char_boundary(MAX_NAME_LENGTH - SUFFIX.len());
    format!("{}{SUFFIX}", history.get(..kept).unwrap_or_default())
}

/// The table's quoted name, with its schema: that of the history.
pub fn qualified(history: &Table) -> String {
    format!("{}.{}", quote::ident(history.schema()), quote::ident(&name(history)))
}

/// Returns a row if the table exists: whether this role owns it.
pub fn exists_sql(table: &Table) -> String {
    format!(
        "select pg_catalog.pg_has_role(relowner, 'usage') from pg_catalog.pg_class \
         where oid {EQ} pg_catalog.to_regclass({})",
        quote::literal(&qualified(table))
    )
}

pub fn select_sql(table: &Table) -> String {
    format!("select pg_catalog.json_agg(progress) from {} progress", qualified(table))
}

/// Parses the answers to [`exists_sql`] and [`select_sql`], or returns what is wrong with the table.
pub fn parse(owned: bool, answer: &[Option<String>]) -> Result<Progress, serde_json::Error> {
    let mut records: Vec<Record> = match ResultRow::from(answer).at(0) {
        Some(json) => serde_json::from_str(json)?,
        None => Vec::new(),
    };
    records.sort_by(|a, b| (&a.migration, a.step).cmp(&(&b.migration, b.step)));
    Ok(Progress { exists: true, owned, records })
}

pub fn create_sql(table: &Table) -> String {
    format!(
        "create table {} (migration pg_catalog.text not null, step integer not null, \
         hash pg_catalog.text not null, finished boolean not null, statement pg_catalog.text, \
         pid integer, backend_start timestamp with time zone, settings pg_catalog.json, \
         primary key (migration, step))",
        qualified(table)
    )
}

/// The condition that the table does not exist. Faster than the catalogs, but read from the
/// backend's cache: only for a statement that also reads a table which its transaction has not used
/// before, since locking that one brings the cache up to date.
pub fn is_missing_sql(table: &Table) -> String {
    format!("pg_catalog.to_regclass({}) is null", quote::literal(&qualified(table)))
}

/// Raises an error unless the progress is still this; for a statement after the lock was taken. If a
/// guard has compared all of it before, another runner has gone on from the last record, or did
/// nothing.
pub fn guard_sql(table: &Table, progress: &Progress, is_known: bool) -> String {
    if !progress.exists {
        return table::guard_sql(&format!(
            "not {}",
            table::table_exists_sql(table.schema(), &name(table))
        ));
    }
    let line = |record: &Record| {
        let finished = if record.finished { 't' } else { 'f' };
        format!("{} {} {} {finished}", record.step, record.hash, record.migration)
    };
    let (compared, from) = match progress.records.as_slice() {
        [.., last] if is_known => {
            let migration = quote::literal(&last.migration);
            let step = last.step;
            let from = format!(
                " where migration {EQ} {migration} and step operator(pg_catalog.>=) {step}"
            );
            (std::slice::from_ref(last), from)
        }
        all => (all, String::new()),
    };
    let mut lines: Vec<_> = compared.iter().map(line).collect();
    lines.sort();
    table::guard_sql(&format!(
        "{} {EQ} (select coalesce(pg_catalog.string_agg(line, e'\\n' \
         order by line collate pg_catalog.\"C\"), '') \
         from (select pg_catalog.format('%s %s %s %s', step, hash, migration, finished) as line \
         from {}{from}) lines)",
        quote::literal(&lines.join("\n")),
        qualified(table)
    ))
}

/// A write to the table.
#[derive(Clone, Debug)]
pub enum ProgressChange {
    /// The statement of this step is about to start in this session.
    Start { record: Record, handshake_pid: i32 },
    /// This step is finished, and these settings have been read with [`read_settings_sql`].
    Finish { record: Record, saved_settings: Vec<String> },
    /// This step had started, and is finished.
    FinishStarted(Record),
    /// This step had started, and its statement did nothing.
    ForgetStarted { migration: String, step: usize },
    /// These migrations are in the history now.
    Close { migrations: Vec<String> },
}

/// Where the values of settings are kept between the end of a step and its record.
const KEPT_SETTINGS: &str = "'premigrate.settings'";

/// Reads the values of settings, keeps them for the record, and returns them. Must run in the
/// session as the step has left it.
pub fn read_settings_sql(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| quote::literal(name)).collect();
    format!(
        "select pg_catalog.set_config({KEPT_SETTINGS}, (select pg_catalog.json_object_agg(name, \
         pg_catalog.current_setting(name, true))::pg_catalog.text \
         from pg_catalog.unnest(array[{}]::pg_catalog.text[]) name), true)",
        names.join(", ")
    )
}

fn insert_finished_sql(table: &Table, record: &Record, has_settings: bool) -> String {
    let Record { migration, step, hash, .. } = record;
    let (table, migration) = (qualified(table), quote::literal(migration));
    let (forgotten, settings) = match has_settings {
        // Those of earlier steps may be secrets, and nobody needs them any more.
        true => (
            format!(
                "with forgotten as (update {table} set settings = null \
                 where migration {EQ} {migration} and settings is not null) "
            ),
            format!("pg_catalog.current_setting({KEPT_SETTINGS})::pg_catalog.json"),
        ),
        false => (String::new(), "null".to_owned()),
    };
    format!(
        "{forgotten}insert into {table} (migration, step, hash, finished, settings) \
         values ({migration}, {step}, {}, true, {settings})",
        quote::literal(hash)
    )
}

/// Returns the backend's process id and start, or NULLs behind a pooler: there the handshake named
/// another process id.
fn insert_started_sql(table: &Table, record: &Record, handshake_pid: i32) -> String {
    let Record { migration, step, hash, statement, .. } = record;
    format!(
        "insert into {} (migration, step, hash, finished, statement, pid, backend_start) \
         values ({}, {step}, {}, false, {}, \
         (select pid from pg_catalog.pg_stat_activity where pid {EQ} {handshake_pid} \
         and pid {EQ} pg_catalog.pg_backend_pid()), \
         (select backend_start from pg_catalog.pg_stat_activity where pid {EQ} {handshake_pid} \
         and pid {EQ} pg_catalog.pg_backend_pid())) returning pid, backend_start",
        qualified(table),
        quote::literal(migration),
        quote::literal(hash),
        statement.as_deref().map_or("null".to_owned(), quote::literal),
    )
}

/// Turns a started step into a finished one.
pub fn set_finished_sql(table: &Table, migration: &str, step: usize) -> String {
    format!(
        "update {} set finished = true, statement = null, pid = null, backend_start = null \
         where migration {EQ} {} and step {EQ} {step} and not finished",
        qualified(table),
        quote::literal(migration)
    )
}

/// Forgets a started step, whose statement did nothing.
pub fn delete_started_sql(table: &Table, migration: &str, step: usize) -> String {
    format!(
        "delete from {} where migration {EQ} {} and step {EQ} {step} and not finished",
        qualified(table),
        quote::literal(migration)
    )
}

/// For a person to run.
pub fn rename_sql(table: &Table, from: &str, to: &str) -> String {
    let (from, to) = (quote::literal(from), quote::literal(to));
    format!("update {} set migration = {to} where migration = {from}", qualified(table))
}

/// Forgets all steps of a migration. For a person to run.
pub fn delete_sql(table: &Table, migration: &str) -> String {
    format!("delete from {} where migration = {}", qualified(table), quote::literal(migration))
}

impl Progress {
    pub fn of<'p>(&'p self, migration: &str) -> impl Iterator<Item = &'p Record> {
        self.records.iter().filter(move |record| record.migration == migration)
    }

    /// The statement for a change; `None` if it needs none.
    pub fn change_sql(&self, table: &Table, change: &ProgressChange) -> Option<String> {
        match change {
            ProgressChange::Start { record, handshake_pid } => {
                Some(insert_started_sql(table, record, *handshake_pid))
            }
            ProgressChange::Finish { record, saved_settings } => {
                Some(insert_finished_sql(table, record, !saved_settings.is_empty()))
            }
            ProgressChange::FinishStarted(record) => {
                Some(set_finished_sql(table, &record.migration, record.step))
            }
            ProgressChange::ForgetStarted { migration, step } => {
                Some(delete_started_sql(table, migration, *step))
            }
            ProgressChange::Close { migrations } => self.close_sql(table, migrations),
        }
    }

    /// Forgets these migrations, and drops the table if there are no others.
    fn close_sql(&self, table: &Table, migrations: &[String]) -> Option<String> {
        let is_other = |record: &Record| !migrations.contains(&record.migration);
        if !self.exists {
            return None;
        }
        if self.owned && !self.records.iter().any(is_other) {
            return Some(format!("drop table {}", qualified(table)));
        }
        let names: Vec<_> = migrations.iter().map(|name| quote::literal(name)).collect();
        let names = names.join(", ");
        Some(format!("delete from {} where migration {EQ} any (array[{names}])", qualified(table)))
    }

    /// The values that the last step which saved any has left, with its number.
    pub fn saved_settings(&self, migration: &str) -> Option<Saved<'_>> {
        let saved = self.of(migration).filter_map(|record| {
            Some(Saved { step: record.step, values: record.settings.as_ref()? })
        });
        saved.max_by_key(|saved| saved.step)
    }

    /// Follows the statement of [`Progress::change_sql`].
    pub fn set_changed(&mut self, change: &ProgressChange) {
        match change {
            ProgressChange::Start { record, .. }
            | ProgressChange::Finish { record, .. }
            | ProgressChange::FinishStarted(record) => {
                self.remove_step(&record.migration, record.step);
                if record.settings.is_some() {
                    let of_migration = |other: &&mut Record| other.migration == record.migration;
                    let earlier = self.records.iter_mut().filter(of_migration);
                    earlier.for_each(|other| other.settings = None);
                }
                self.records.push(record.clone());
            }
            ProgressChange::ForgetStarted { migration, step } => self.remove_step(migration, *step),
            ProgressChange::Close { migrations } => {
                self.records.retain(|record| !migrations.contains(&record.migration));
                self.exists = self.exists && !(self.owned && self.records.is_empty());
            }
        }
    }

    fn remove_step(&mut self, migration: &str, step: usize) {
        self.records.retain(|record| !(record.migration == migration && record.step == step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(migration: &str, step: usize) -> Record {
        Record::finished(migration, step, "h")
    }

    #[test]
    fn a_long_name_is_cut_before_the_suffix() {
        assert_eq!(name(&Table::new("s", "t")), "t_progress");
        let long = name(&Table::new("s", "é".repeat(40)));
        assert_eq!((long.len(), long.ends_with("é_progress")), (63, true));
    }

    #[test]
    fn columns_may_come_in_any_order() {
        let json = r#"[{"migration":"b","step":1,"hash":"h","finished":true,"statement":null,
            "pid":null,"backend_start":null},{"migration":"a","step":2,"hash":"h",
            "finished":false,"statement":"vacuum","pid":7,"backend_start":"x"}]"#;
        let progress = parse(true, &[Some(json.to_owned())]).unwrap();
        let steps = progress.records.iter().map(|record| (&*record.migration, record.step));
        assert_eq!(steps.collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
        assert_eq!(parse(false, &[None]).unwrap().records, []);
        assert!(parse(true, &[Some("[{}]".to_owned())]).is_err());
    }

    #[test]
    fn the_table_is_dropped_with_the_last_migration_by_its_owner() {
        let table = Table::new("s", "t");
        let progress = |owned, records: Vec<Record>| Progress { exists: true, owned, records };
        let close = |progress: &Progress| progress.close_sql(&table, &["a".to_owned()]);
        let one = progress(true, vec![record("a", 1)]);
        assert_eq!(close(&one).as_deref(), Some(r#"drop table "s"."t_progress""#));
        let two = progress(true, vec![record("a", 1), record("b", 1)]);
        assert!(close(&two).is_some_and(|sql| sql.starts_with("delete")));
        let not_ours = progress(false, vec![record("a", 1)]);
        assert!(close(&not_ours).is_some_and(|sql| sql.starts_with("delete")));
        assert_eq!(close(&Progress::default()), None);
    }
}
