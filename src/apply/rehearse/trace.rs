//! What a statement did to tables, asked from the server by the session that ran it, before its
//! transaction ends: the locks that are new, what was rewritten, scanned and written. Pure: it writes
//! the SQL and reads the answers.
//!
//! All of it runs behind a savepoint and goes back to it. So its own locks are gone, and what the file
//! has set, such as its role, is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::apply::sizes::is_unlocked_sql;
use crate::postgres::result::{ResultRow, ResultSet};
use crate::sql::LockMode;
use crate::sql::quote::EQ;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    Table,
    Index,
    View,
    MaterializedView,
    Sequence,
    ForeignTable,
    Other,
}

impl RelationKind {
    fn parse(relkind: &str) -> RelationKind {
        match relkind {
            "r" | "p" => RelationKind::Table,
            "i" | "I" => RelationKind::Index,
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "S" => RelationKind::Sequence,
            "f" => RelationKind::ForeignTable,
            _ => RelationKind::Other,
        }
    }
}

/// A table or another relation, outside the system's schemas.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    /// Of an index: the table.
    pub table: Option<u32>,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What one statement did to one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationChange {
    pub relation: Relation,
    /// The modes in which the transaction has not held it before, from the weakest on.
    pub new_locks: Vec<LockMode>,
    pub created: bool,
    pub dropped: bool,
    /// It has another file now.
    pub rewritten: bool,
    pub counts: TableCounts,
    /// In bytes, with TOAST and without indexes; `None` where it has no size, or it is not known.
    pub size: Option<u64>,
}

impl RelationChange {
    pub fn none(relation: Relation) -> RelationChange {
        RelationChange {
            relation,
            new_locks: Vec::new(),
            created: false,
            dropped: false,
            rewritten: false,
            counts: TableCounts::default(),
            size: None,
        }
    }

    /// Whether the statement did more to it than lock it.
    fn has_traces(&self) -> bool {
        self.created || self.dropped || self.rewritten || self.counts != TableCounts::default()
    }
}

/// What PostgreSQL counts for a table in a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Sequential scans, or scans of an index.
    pub scans: u64,
    pub rows_read: u64,
    pub rows_inserted: u64,
    pub rows_updated: u64,
    pub rows_deleted: u64,
}

impl TableCounts {
    fn since(self, before: TableCounts) -> TableCounts {
        // TRUNCATE sets some of them back.
        TableCounts {
            scans: self.scans.saturating_sub(before.scans),
            rows_read: self.rows_read.saturating_sub(before.rows_read),
            rows_inserted: self.rows_inserted.saturating_sub(before.rows_inserted),
            rows_updated: self.rows_updated.saturating_sub(before.rows_updated),
            rows_deleted: self.rows_deleted.saturating_sub(before.rows_deleted),
        }
    }

    pub fn add(&mut self, other: TableCounts) {
        self.scans += other.scans;
        self.rows_read += other.rows_read;
        self.rows_inserted += other.rows_inserted;
        self.rows_updated += other.rows_updated;
        self.rows_deleted += other.rows_deleted;
    }
}

/// What was there before the first statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// In bytes; `None` where it is not known.
    pub size: Option<u64>,
    /// The server's estimate; `None` if it has none.
    pub rows: Option<u64>,
}

/// After a query of ours has failed, this forgets it.
pub const RECOVER: &str =
    "rollback to savepoint premigrate_trace; release savepoint premigrate_trace";

/// Runs a query without leaving anything.
fn behind_savepoint(settings: &str, query: &str) -> String {
    format!("savepoint premigrate_trace; {settings}{query}; {RECOVER}")
}

/// The role of the file may not be allowed to see all of it.
const AS_OURSELVES: &str = "set local session authorization default; set local role none; \
    set local statement_timeout = 0; ";

/// The condition that a schema is not the system's.
const IS_OF_USERS: &str = "not pg_catalog.starts_with(nspname, 'pg_') \
    and not nspname operator(pg_catalog.=) 'information_schema'";

/// Selects all relations as they are now, and whether this role may read the position of the WAL.
/// `with_sizes` takes a lock on each table for a moment, unless another session has locked or is about
/// to lock it exclusively.
pub fn baseline_sql(with_sizes: bool) -> String {
    let size = format!(
        "case when relkind {EQ} any (array['r', 'm']) and {} \
         then pg_catalog.pg_table_size(pg_class.oid) end",
        is_unlocked_sql("pg_class.oid")
    );
    let size = if with_sizes { size.as_str() } else { "null" };
    let relations = format!(
        "select pg_catalog.has_function_privilege('pg_catalog.pg_current_wal_insert_lsn()', 'execute'); \
         select pg_class.oid, nspname, relname, relkind, indrelid, \
         pg_catalog.pg_relation_filenode(pg_class.oid), {size}, reltuples::bigint \
         from pg_catalog.pg_class join pg_catalog.pg_namespace on pg_namespace.oid {EQ} relnamespace \
         left join pg_catalog.pg_index on indexrelid {EQ} pg_class.oid \
         where {IS_OF_USERS}"
    );
    behind_savepoint(AS_OURSELVES, &relations)
}

/// Selects the deferrable constraints, as the file's own role may name them.
pub fn deferrable_sql() -> String {
    behind_savepoint(
        "set local statement_timeout = 0; ",
        "select pg_catalog.format('%I.%I', nspname, conname), pg_catalog.bool_and(condeferrable), \
         pg_catalog.bool_and(condeferred) \
         from pg_catalog.pg_constraint join pg_catalog.pg_namespace \
         on pg_namespace.oid operator(pg_catalog.=) connamespace \
         where pg_catalog.has_schema_privilege(pg_namespace.oid, 'usage') \
         group by nspname, conname having pg_catalog.bool_or(condeferrable)",
    )
}

/// Constraints that can be checked at the end of a transaction, by their quoted names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deferrable {
    pub all: Vec<String>,
    /// Those that a transaction begins to defer by itself.
    pub initially: Vec<String>,
}

impl Deferrable {
    pub fn parse(sets: &[ResultSet]) -> Deferrable {
        let mut constraints = Deferrable::default();
        for row in sets.last().into_iter().flat_map(ResultRow::all) {
            let Some(name) = row.at(0) else { continue };
            constraints.all.push(name.to_owned());
            if row.at(1) == Some("t") && row.at(2) == Some("t") {
                constraints.initially.push(name.to_owned());
            }
        }
        constraints
    }
}

/// Follows one transaction.
#[derive(Debug, Default)]
pub struct Tracer {
    /// Whether the position of the WAL may be read.
    reads_wal: bool,
    relations: BTreeMap<u32, Known>,
    wal: Option<u128>,
}

/// A relation, as it was seen last.
#[derive(Clone, Debug)]
struct Known {
    relation: Relation,
    /// `None` if the transaction has created it.
    baseline: Option<Baseline>,
    exists: bool,
    filenode: Option<u32>,
    locks: BTreeSet<LockMode>,
    counts: TableCounts,
}

/// What one statement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub effects: Vec<RelationChange>,
    /// How many bytes of WAL the server has written meanwhile, for all sessions.
    pub wal: Option<u64>,
}

impl Tracer {
    /// From the answer to [`baseline_sql`].
    pub fn new(sets: &[ResultSet]) -> Tracer {
        let [allowed, relations] = sets else { return Tracer::default() };
        let reads_wal = ResultRow::all(allowed).any(|row| row.at(0) == Some("t"));
        let known = ResultRow::all(relations).filter_map(|row| {
            let known = Known {
                relation: relation_of(row)?,
                baseline: Some(Baseline { size: number(row, 6), rows: number(row, 7) }),
                exists: true,
                filenode: number(row, 5),
                locks: BTreeSet::new(),
                counts: TableCounts::default(),
            };
            Some((known.relation.oid, known))
        });
        Tracer { reads_wal, relations: known.collect(), wal: None }
    }

    /// Selects what the transaction holds and has done until now.
    pub fn sample_sql(&self) -> String {
        let wal = match self.reads_wal {
            true => "pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')",
            false => "null",
        };
        let sample = format!(
            "select {wal}; \
             select relation, nspname, relname, relkind, indrelid, \
             pg_catalog.pg_relation_filenode(pg_class.oid), \
             case when relkind {EQ} any (array['r', 'm']) then pg_catalog.pg_table_size(pg_class.oid) end, \
             modes, pg_catalog.pg_stat_get_xact_numscans(relation), \
             pg_catalog.pg_stat_get_xact_tuples_returned(relation), \
             pg_catalog.pg_stat_get_xact_tuples_inserted(relation), \
             pg_catalog.pg_stat_get_xact_tuples_updated(relation), \
             pg_catalog.pg_stat_get_xact_tuples_deleted(relation) \
             from (select relation, pg_catalog.string_agg(mode, ',') as modes from pg_catalog.pg_locks \
             where locktype {EQ} 'relation' and granted and pid {EQ} pg_catalog.pg_backend_pid() \
             group by relation) held \
             left join pg_catalog.pg_class on pg_class.oid {EQ} relation \
             left join pg_catalog.pg_namespace on pg_namespace.oid {EQ} relnamespace \
             left join pg_catalog.pg_index on indexrelid {EQ} pg_class.oid \
             where nspname is null or {IS_OF_USERS}"
        );
        behind_savepoint(AS_OURSELVES, &sample)
    }

    /// What has changed since the last answer to [`Tracer::sample_sql`].
    pub fn observe(&mut self, sets: &[ResultSet]) -> Trace {
        let [wal, held] = sets else { return Trace::default() };
        let wal = ResultRow::all(wal).find_map(|row| row.at(0)?.parse::<u128>().ok());
        let before = std::mem::replace(&mut self.wal, wal);
        let written = wal.zip(before).and_then(|(now, before)| now.checked_sub(before));
        let effects = ResultRow::all(held).filter_map(|row| self.observe_relation(row));
        let mut effects: Vec<_> = effects.collect();
        effects.sort_by_cached_key(|effect| effect.relation.to_string());
        Trace { effects, wal: written.and_then(|bytes| u64::try_from(bytes).ok()) }
    }

    fn observe_relation(&mut self, row: ResultRow<'_>) -> Option<RelationChange> {
        let oid = number(row, 0)?;
        let seen = relation_of(row);
        let before = self.relations.get(&oid);
        // What was dropped has only its number left.
        let relation = seen.clone().or_else(|| before.map(|known| known.relation.clone()))?;
        let locks = row.at(7).unwrap_or_default().split(',').filter_map(LockMode::parse).collect();
        let after = Known {
            relation: relation.clone(),
            baseline: before.and_then(|known| known.baseline),
            exists: seen.is_some(),
            filenode: number(row, 5),
            locks,
            counts: counts_of(row),
        };
        let old_locks = before.map(|known| known.locks.clone()).unwrap_or_default();
        let effect = RelationChange {
            new_locks: after.locks.difference(&old_locks).copied().collect(),
            created: before.is_none(),
            dropped: !after.exists && before.is_some_and(|known| known.exists),
            // A sequence that is set back has another file too.
            rewritten: after.exists
                && relation.kind != RelationKind::Sequence
                && before.is_some_and(|known| known.filenode != after.filenode),
            counts: after.counts.since(before.map(|known| known.counts).unwrap_or_default()),
            size: number(row, 6),
            relation,
        };
        self.relations.insert(oid, after);
        (effect.has_traces() || !effect.new_locks.is_empty()).then_some(effect)
    }

    /// What a relation was before the first statement; `None` if it was not there.
    pub fn baseline(&self, oid: u32) -> Option<Baseline> {
        self.relations.get(&oid)?.baseline
    }

    /// The relations that the transaction has locked.
    pub fn held(&self) -> impl Iterator<Item = &Relation> {
        let held = self.relations.values().filter(|known| !known.locks.is_empty());
        held.map(|known| &known.relation)
    }
}

fn number<T: std::str::FromStr>(row: ResultRow<'_>, index: usize) -> Option<T> {
    row.at(index)?.parse().ok()
}

/// `None` if it is not in the catalogs any more.
fn relation_of(row: ResultRow<'_>) -> Option<Relation> {
    Some(Relation {
        oid: number(row, 0)?,
        schema: row.at(1)?.to_owned(),
        name: row.at(2)?.to_owned(),
        kind: RelationKind::parse(row.at(3)?),
        table: number(row, 4),
    })
}

fn counts_of(row: ResultRow<'_>) -> TableCounts {
    let count = |index| number(row, index).unwrap_or_default();
    TableCounts {
        scans: count(8),
        rows_read: count(9),
        rows_inserted: count(10),
        rows_updated: count(11),
        rows_deleted: count(12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[&[&str]]) -> ResultSet {
        let value = |text: &&str| (!text.is_empty()).then(|| (*text).to_owned());
        let rows = rows.iter().map(|row| row.iter().map(value).collect()).collect();
        ResultSet { columns: Vec::new(), rows }
    }

    fn tracer() -> Tracer {
        let table = ["10", "public", "t", "r", "", "10", "8192", "-1"];
        let index = ["11", "public", "i", "i", "10", "11", "", "0"];
        Tracer::new(&[set(&[&["t"]]), set(&[&table, &index])])
    }

    /// Observes rows of `[oid, name, kind, filenode, modes, scans]`.
    fn observe(tracer: &mut Tracer, wal: &str, rows: &[[&str; 6]]) -> Trace {
        let rows: Vec<Vec<&str>> = rows
            .iter()
            .map(|[oid, name, kind, filenode, modes, scans]| {
                let schema = if name.is_empty() { "" } else { "public" };
                vec![
                    oid, schema, name, kind, "", filenode, "16384", modes, scans, "0", "0", "0",
                    "0",
                ]
            })
            .collect();
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        tracer.observe(&[set(&[&[wal]]), set(&rows)])
    }

    #[test]
    fn only_what_is_new_since_the_last_answer_is_an_effect() {
        let mut tracer = tracer();
        let before = observe(&mut tracer, "100", &[["10", "t", "r", "10", "AccessShareLock", "3"]]);
        assert_eq!((before.wal, before.effects.len()), (None, 1));
        let both = "AccessShareLock,ShareLock";
        let trace = observe(&mut tracer, "350", &[["10", "t", "r", "10", both, "4"]]);
        assert_eq!(trace.wal, Some(250));
        let [effect] = &trace.effects[..] else { panic!("{trace:?}") };
        assert_eq!(effect.new_locks, [LockMode::Share]);
        assert_eq!((effect.counts.scans, effect.rewritten, effect.created), (1, false, false));
        let same = observe(&mut tracer, "350", &[["10", "t", "r", "10", both, "4"]]);
        assert_eq!((same.wal, same.effects.len()), (Some(0), 0));
    }

    #[test]
    fn a_rewrite_a_new_and_a_dropped_relation_are_recognized() {
        let mut tracer = tracer();
        let exclusive = "AccessExclusiveLock";
        let trace = observe(
            &mut tracer,
            "",
            &[
                ["10", "t", "r", "99", exclusive, "0"],
                ["12", "new", "r", "12", exclusive, "0"],
                ["11", "", "", "", exclusive, "0"],
                // Neither in the catalogs nor known: that of a system table.
                ["13", "", "", "", exclusive, "0"],
            ],
        );
        let effects: Vec<_> = trace
            .effects
            .iter()
            .map(|it| (it.relation.name.as_str(), it.created, it.dropped, it.rewritten))
            .collect();
        assert_eq!(
            effects,
            [("i", false, true, false), ("new", true, false, false), ("t", false, false, true)]
        );
        assert_eq!(tracer.baseline(10), Some(Baseline { size: Some(8192), rows: None }));
        assert_eq!(tracer.baseline(12), None);
        let again = observe(&mut tracer, "", &[["11", "", "", "", exclusive, "0"]]);
        assert_eq!(again.effects, []);
    }
}
