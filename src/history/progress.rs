//! The progress of migrations that run in several steps: a table beside the history, which exists
//! only while such a migration is incomplete.
//!
//! A row is a finished step, or a statement outside any transaction that has started: whether it
//! finished, the next run has to find out.

use std::collections::{BTreeMap, BTreeSet};

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
    migrations: BTreeMap<String, MigrationProgress>,
    /// The migration whose record was the last to change.
    last: Option<String>,
}

/// What the table has of one migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct MigrationProgress {
    /// By step.
    records: BTreeMap<usize, Record>,
    /// The steps that have started.
    unfinished: BTreeSet<usize>,
    /// The last step that has saved settings.
    saved: Option<usize>,
}

impl MigrationProgress {
    fn insert(&mut self, record: Record) {
        let step = record.step;
        self.remove(step);
        if !record.finished {
            self.unfinished.insert(step);
        }
        if record.settings.is_some() {
            let earlier = self.saved.and_then(|saved| self.records.get_mut(&saved));
            if let Some(earlier) = earlier {
                earlier.settings = None;
            }
            self.saved = Some(step);
        }
        self.records.insert(step, record);
    }

    fn remove(&mut self, step: usize) {
        self.records.remove(&step);
        self.unfinished.remove(&step);
        self.saved = self.saved.filter(|saved| *saved != step);
    }
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
    let records: Vec<Record> = match ResultRow::from(answer).at(0) {
        Some(json) => serde_json::from_str(json)?,
        None => Vec::new(),
    };
    Ok(Progress::of_records(owned, records))
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
/// guard has compared all of it before, another runner has gone on from the record that was the last to
/// change, or did nothing.
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
    let (mut lines, from) = match progress.last_record().filter(|_| is_known) {
        Some(last) => {
            let migration = quote::literal(&last.migration);
            let step = last.step;
            let from = format!(
                " where migration {EQ} {migration} and step operator(pg_catalog.>=) {step}"
            );
            (vec![line(last)], from)
        }
        None => (progress.records().map(line).collect(), String::new()),
    };
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

/// `saved_before` is the step that has saved settings before, where this one does too.
fn insert_finished_sql(
    table: &Table,
    record: &Record,
    has_settings: bool,
    saved_before: Option<usize>,
) -> String {
    let Record { migration, step, hash, .. } = record;
    let (table, migration) = (qualified(table), quote::literal(migration));
    // They may be secrets, and nobody needs them any more.
    let forgotten = saved_before.map_or_else(String::new, |before| {
        format!(
            "with forgotten as (update {table} set settings = null \
             where migration {EQ} {migration} and step {EQ} {before}) "
        )
    });
    let settings = match has_settings {
        true => format!("pg_catalog.current_setting({KEPT_SETTINGS})::pg_catalog.json"),
        false => "null".to_owned(),
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
    pub fn of_records(owned: bool, records: impl IntoIterator<Item = Record>) -> Progress {
        let mut progress = Progress { exists: true, owned, ..Progress::default() };
        for record in records {
            progress.of_mut(&record.migration).insert(record);
        }
        progress
    }

    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty()
    }

    /// In the order of migration and step.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.migrations.values().flat_map(|migration| migration.records.values())
    }

    /// In the order of their steps.
    pub fn of<'p>(&'p self, migration: &str) -> impl Iterator<Item = &'p Record> + use<'p> {
        self.migrations.get(migration).into_iter().flat_map(|of| of.records.values())
    }

    /// The record of a statement that has started.
    pub fn unfinished(&self, migration: &str) -> Option<&Record> {
        let of = self.migrations.get(migration)?;
        of.unfinished.first().and_then(|step| of.records.get(step))
    }

    fn of_mut(&mut self, migration: &str) -> &mut MigrationProgress {
        self.migrations.entry(migration.to_owned()).or_default()
    }

    /// The last record of the migration that was the last to change.
    fn last_record(&self) -> Option<&Record> {
        let of = self.last.as_ref().and_then(|last| self.migrations.get(last))?;
        of.records.last_key_value().map(|(_, record)| record)
    }

    fn saved_step(&self, migration: &str) -> Option<usize> {
        self.migrations.get(migration).and_then(|of| of.saved)
    }

    /// The statement for a change; `None` if it needs none.
    pub fn change_sql(&self, table: &Table, change: &ProgressChange) -> Option<String> {
        match change {
            ProgressChange::Start { record, handshake_pid } => {
                Some(insert_started_sql(table, record, *handshake_pid))
            }
            ProgressChange::Finish { record, saved_settings } => {
                let has_settings = !saved_settings.is_empty();
                let before = self.saved_step(&record.migration).filter(|_| has_settings);
                Some(insert_finished_sql(table, record, has_settings, before))
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
        if !self.exists {
            return None;
        }
        if self.owned && self.migrations.keys().all(|name| migrations.contains(name)) {
            return Some(format!("drop table {}", qualified(table)));
        }
        let names: Vec<_> = migrations.iter().map(|name| quote::literal(name)).collect();
        let names = names.join(", ");
        Some(format!("delete from {} where migration {EQ} any (array[{names}])", qualified(table)))
    }

    /// The values that the last step which saved any has left, with its number.
    pub fn saved_settings(&self, migration: &str) -> Option<Saved<'_>> {
        let of = self.migrations.get(migration)?;
        let step = of.saved?;
        Some(Saved { step, values: of.records.get(&step)?.settings.as_ref()? })
    }

    /// Follows the statement of [`Progress::change_sql`].
    pub fn set_changed(&mut self, change: &ProgressChange) {
        match change {
            ProgressChange::Start { record, .. }
            | ProgressChange::Finish { record, .. }
            | ProgressChange::FinishStarted(record) => {
                self.of_mut(&record.migration).insert(record.clone());
                self.last = Some(record.migration.clone());
            }
            ProgressChange::ForgetStarted { migration, step } => {
                self.of_mut(migration).remove(*step);
                self.last = Some(migration.clone());
                self.migrations.retain(|_, of| !of.records.is_empty());
            }
            ProgressChange::Close { migrations } => {
                migrations.iter().for_each(|name| drop(self.migrations.remove(name)));
                self.exists = self.exists && !(self.owned && self.migrations.is_empty());
            }
        }
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
        let steps = progress.records().map(|record| (&*record.migration, record.step));
        assert_eq!(steps.collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
        assert!(parse(false, &[None]).unwrap().is_empty());
        assert!(parse(true, &[Some("[{}]".to_owned())]).is_err());
    }

    #[test]
    fn the_table_is_dropped_with_the_last_migration_by_its_owner() {
        let table = Table::new("s", "t");
        let progress = |owned, records: Vec<Record>| Progress::of_records(owned, records);
        let close = |progress: &Progress| progress.close_sql(&table, &["a".to_owned()]);
        let one = progress(true, vec![record("a", 1)]);
        assert_eq!(close(&one).as_deref(), Some(r#"drop table "s"."t_progress""#));
        let two = progress(true, vec![record("a", 1), record("b", 1)]);
        assert!(close(&two).is_some_and(|sql| sql.starts_with("delete")));
        let not_ours = progress(false, vec![record("a", 1)]);
        assert!(close(&not_ours).is_some_and(|sql| sql.starts_with("delete")));
        assert_eq!(close(&Progress::default()), None);
    }

    #[test]
    fn the_last_settings_that_were_saved_are_the_ones_that_count() {
        let with_settings = |step: usize| {
            let settings = SettingValues::from([("a".to_owned(), Some(step.to_string()))]);
            Record { settings: Some(settings), ..record("a", step) }
        };
        let mut progress = Progress::of_records(true, [record("a", 1), with_settings(2)]);
        let saved = |progress: &Progress| progress.saved_settings("a").map(|saved| saved.step);
        assert_eq!((saved(&progress), progress.saved_settings("b").is_none()), (Some(2), true));
        let finish =
            |record| ProgressChange::Finish { record, saved_settings: vec!["a".to_owned()] };
        let sql = progress.change_sql(&Table::new("s", "t"), &finish(record("a", 3))).unwrap();
        assert!(sql.contains("step operator(pg_catalog.=) 2)"), "{sql}");
        progress.set_changed(&finish(with_settings(3)));
        assert_eq!(saved(&progress), Some(3));
        assert_eq!(progress.records().filter(|record| record.settings.is_some()).count(), 1);
        progress.set_changed(&finish(record("a", 4)));
        assert_eq!(saved(&progress), Some(3));
    }

    #[test]
    fn a_statement_that_has_started_is_found_until_it_is_finished_or_forgotten() {
        let started = Record { finished: false, ..record("a", 2) };
        let mut progress = Progress::of_records(true, [record("a", 1), started.clone()]);
        let step = |progress: &Progress| progress.unfinished("a").map(|record| record.step);
        assert_eq!(step(&progress), Some(2));
        progress.set_changed(&ProgressChange::FinishStarted(record("a", 2)));
        assert_eq!(step(&progress), None);
        let progress_of_start = ProgressChange::Start { record: started, handshake_pid: 1 };
        progress.set_changed(&progress_of_start);
        assert_eq!(step(&progress), Some(2));
        let forget = ProgressChange::ForgetStarted { migration: "a".to_owned(), step: 2 };
        progress.set_changed(&forget);
        assert_eq!((step(&progress), progress.records().count()), (None, 1));
    }

    #[test]
    fn the_guard_of_a_known_progress_is_as_long_for_many_steps_as_for_few() {
        let length = |steps: usize, change: &ProgressChange| {
            let records = (1000..1000 + steps).map(|step| record("a", step));
            let mut progress = Progress::of_records(true, records);
            progress.set_changed(change);
            guard_sql(&Table::new("s", "t"), &progress, true).len()
        };
        let forget = ProgressChange::ForgetStarted { migration: "a".to_owned(), step: 1000 };
        let finish =
            |step| ProgressChange::Finish { record: record("a", step), saved_settings: vec![] };
        assert_eq!(length(4000, &finish(5000)), length(3, &finish(1003)));
        assert_eq!(length(4000, &forget), length(3, &forget));
    }
}
