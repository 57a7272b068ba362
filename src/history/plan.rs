//! What to do with these migrations and this history: run, record, or stop.
//!
//! Pure. Larger time stamps can stop a run but never skip a migration; in doubt, nothing runs.
//! Plans name migrations and rows by their index; a [`HistoryMismatch`] has their names.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::history::matching::{Identities, Matches, MigrationStatus, RowStatus, match_rows};
use crate::history::table::{self, History, NewRow, Row, TableVersion};
use crate::migrations::migration::{Layout, MigrationSet};

#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Run pending migrations even where the history casts doubt on them.
    pub apply_older: bool,
    /// Refuse unknown rows, and pending migrations that are out of order.
    pub strict: bool,
}

/// A migration that is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub index: usize,
    /// Whether it comes before a migration that has been applied.
    pub out_of_order: bool,
}

/// What `up` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub matches: Matches,
    /// How many migrations have been applied.
    pub applied: usize,
    /// In the order in which they run.
    pub pending: Vec<Pending>,
    /// How many more are pending that do not run.
    pub later: usize,
    /// The rows that record none of the migrations.
    pub unknown: Vec<usize>,
}

impl Plan {
    /// Only up to and with the migration at this index.
    pub fn up_to(mut self, through: usize) -> Plan {
        let all = self.pending.len();
        self.pending.retain(|pending| pending.index <= through);
        self.later += all - self.pending.len();
        self
    }

    /// The last migration that is recorded, if it comes after this one and nothing up to there is
    /// pending.
    pub fn past(&self, through: usize) -> Option<usize> {
        let is_recorded = |status| status != MigrationStatus::Pending;
        let last = self.matches.migrations_where(is_recorded).pop()?;
        (self.pending.is_empty() && last > through).then_some(last)
    }
}

/// What `baseline` and `accept` do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    pub matches: Matches,
    pub rows: Vec<NewRow>,
    /// The names of the migrations that these rows record.
    pub migrations: Vec<String>,
    /// The names of migrations that `accept` cannot record: nothing says that they ever ran.
    pub not_applied: Vec<String>,
}

/// Why nothing runs: the history and the migrations disagree. Migrations go by their names, rows by
/// what [`Row`] displays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mismatch", rename_all = "snake_case")]
pub enum HistoryMismatch {
    /// The files of these migrations changed after they had been applied.
    Edited { migrations: Vec<EditedMigration> },
    /// Each of these rows could record any of several migrations.
    Ambiguous { rows: Vec<String>, migrations: Vec<String> },
    /// No row records any of the migrations.
    NothingMatches { row_count: usize, migration_count: usize },
    /// These pending migrations come before the first one that was applied.
    OlderThanHistory { migrations: Vec<String>, first_applied: String },
    /// These pending migrations may be what the unknown rows recorded.
    PossiblyApplied { migrations: Vec<String>, rows: Vec<String> },
    /// The table of Drizzle 0.x has to be upgraded, but no migration gives these rows a name.
    NotUpgradable { rows: Vec<String> },
    /// `--strict` refuses these migrations, which are out of order, these unknown rows, and these
    /// files, which the journal does not list.
    Strict { migrations: Vec<String>, rows: Vec<String>, files: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditedMigration {
    pub migration: String,
    pub file: String,
    pub recorded_hash: String,
    pub current_hash: String,
}

/// What `up` does with these migrations and this history.
pub fn plan_up(
    set: &MigrationSet,
    history: &History,
    policy: Policy,
) -> Result<Plan, HistoryMismatch> {
    let comparison = Comparison::new(set, history)?;
    comparison.check_edited()?;
    if !comparison.pending.is_empty() {
        // Before the mismatches that `baseline` and --apply-older cure: those have to write a row.
        comparison.check_upgradable()?;
    }
    if !policy.apply_older {
        comparison.check_any_match()?;
        comparison.check_older()?;
        comparison.check_possibly_applied()?;
    }
    if policy.strict {
        comparison.check_strict()?;
    }
    let applied = comparison.applied().len();
    let Comparison { matches, pending, unknown, .. } = comparison;
    Ok(Plan { matches, applied, pending, later: 0, unknown })
}

/// What `baseline` records: the pending migrations, up to and with the one at this index.
pub fn plan_baseline(
    set: &MigrationSet,
    history: &History,
    through: Option<usize>,
) -> Result<RecordPlan, HistoryMismatch> {
    let comparison = Comparison::new(set, history)?;
    let pending = comparison.pending.iter().map(|pending| pending.index);
    let recorded = pending.filter(|&index| through.is_none_or(|through| index <= through));
    let records = recorded.map(|index| (index, None)).collect();
    comparison.record(records, Vec::new())
}

/// What `up --baseline-through` records first. Nothing once the history has that migration, since what
/// is pending then came later; and nothing in a new database, which has none of it.
pub fn plan_first_baseline(
    set: &MigrationSet,
    history: &History,
    through: usize,
) -> Result<RecordPlan, HistoryMismatch> {
    let plan = plan_baseline(set, history, Some(through))?;
    let is_pending = plan.matches.migrations.get(through) == Some(&MigrationStatus::Pending);
    Ok(match is_pending && history.has_objects {
        true => plan,
        false => RecordPlan { rows: Vec::new(), migrations: Vec::new(), ..plan },
    })
}

/// What `accept` records: those of the chosen migrations, or of all, that were edited, each with
/// the identity of its row; and those of the chosen ones that an unknown row may have recorded.
pub fn plan_accept(
    set: &MigrationSet,
    history: &History,
    chosen: Option<&[usize]>,
) -> Result<RecordPlan, HistoryMismatch> {
    let comparison = Comparison::new(set, history)?;
    let is_chosen = |index: &usize| chosen.is_some_and(|chosen| chosen.contains(index));
    let edited = comparison.matches.edited().into_iter();
    let mut records: Vec<(usize, Option<usize>)> = edited
        .filter(|(index, _)| chosen.is_none() || is_chosen(index))
        .map(|(index, row)| (index, Some(row)))
        .collect();
    let pending = comparison.pending.iter().map(|pending| pending.index).filter(is_chosen);
    let possibly_applied = comparison.possibly_applied();
    let (doubtful, mut not_applied): (Vec<usize>, Vec<usize>) =
        pending.partition(|index| possibly_applied.contains(index));
    // A row records one migration.
    if doubtful.len() > comparison.unknown.len() {
        not_applied.extend(doubtful);
    } else {
        records.extend(doubtful.into_iter().map(|index| (index, None)));
    }
    comparison.record(records, not_applied)
}

/// The pending migrations, in order. Out of order are those that come before an applied one, in the
/// set or by their time. Drizzle 0.x goes by the time of any row, and skips such a migration;
/// elsewhere the time only counts for rows that have no place in the set.
pub fn pending(set: &MigrationSet, rows: &[Row], matches: &Matches) -> Vec<Pending> {
    let recorded = matches.migrations_where(|status| status != MigrationStatus::Pending);
    let last_recorded = recorded.last().copied();
    let latest = rows
        .iter()
        .zip(&matches.rows)
        .filter(|(_, status)| set.layout() == Layout::Drizzle0 || **status == RowStatus::Unknown)
        .filter_map(|(row, _)| row.created_at)
        .max();
    let is_out_of_order = |index: usize| {
        let when = set.get(index).and_then(|migration| migration.when);
        Some(index) < last_recorded || when.is_some_and(|when| Some(when) <= latest)
    };
    let pending = matches.migrations_where(|status| status == MigrationStatus::Pending).into_iter();
    pending.map(|index| Pending { index, out_of_order: is_out_of_order(index) }).collect()
}

/// The migrations and the history side by side, without ambiguity.
struct Comparison<'a> {
    set: &'a MigrationSet,
    history: &'a History,
    matches: Matches,
    pending: Vec<Pending>,
    unknown: Vec<usize>,
}

impl<'a> Comparison<'a> {
    fn new(set: &'a MigrationSet, history: &'a History) -> Result<Comparison<'a>, HistoryMismatch> {
        let matches = match_rows(set, &history.rows);
        let pending = pending(set, &history.rows, &matches);
        let unknown = matches.rows_with(RowStatus::Unknown);
        let comparison = Comparison { set, history, matches, pending, unknown };
        let matches = &comparison.matches;
        let rows = matches.rows_with(RowStatus::Ambiguous);
        if rows.is_empty() {
            return Ok(comparison);
        }
        let is_ambiguous = |status| status == MigrationStatus::Ambiguous;
        Err(HistoryMismatch::Ambiguous {
            rows: comparison.labels(&rows),
            migrations: comparison.names(matches.migrations_where(is_ambiguous)),
        })
    }

    fn check_edited(&self) -> Result<(), HistoryMismatch> {
        let edited = self.matches.edited().into_iter().filter_map(|(index, row)| {
            let (migration, row) = (self.set.get(index)?, self.history.rows.get(row)?);
            Some(EditedMigration {
                migration: migration.name.clone(),
                file: migration.file.clone(),
                recorded_hash: row.hash.clone(),
                current_hash: migration.hash.to_string(),
            })
        });
        let migrations: Vec<_> = edited.collect();
        if migrations.is_empty() { Ok(()) } else { Err(HistoryMismatch::Edited { migrations }) }
    }

    /// As drizzle-orm 1.x, upgrades a table of 0.x only if every row gets a name.
    fn check_upgradable(&self) -> Result<(), HistoryMismatch> {
        let upgrades =
            self.history.table_version == TableVersion::V0 && table::needs_name(self.set.layout());
        if upgrades && !self.unknown.is_empty() {
            return Err(HistoryMismatch::NotUpgradable { rows: self.labels(&self.unknown) });
        }
        Ok(())
    }

    fn check_any_match(&self) -> Result<(), HistoryMismatch> {
        let (row_count, migration_count) = (self.history.rows.len(), self.set.migrations().len());
        if row_count > 0 && !self.pending.is_empty() && self.applied().is_empty() {
            return Err(HistoryMismatch::NothingMatches { row_count, migration_count });
        }
        Ok(())
    }

    fn check_older(&self) -> Result<(), HistoryMismatch> {
        let Some(&first_applied) = self.applied().first() else { return Ok(()) };
        let pending = self.pending.iter().map(|pending| pending.index);
        let migrations = self.names(pending.filter(|&index| index < first_applied));
        if migrations.is_empty() {
            return Ok(());
        }
        let first_applied = self.names([first_applied]).concat();
        Err(HistoryMismatch::OlderThanHistory { migrations, first_applied })
    }

    fn check_possibly_applied(&self) -> Result<(), HistoryMismatch> {
        let migrations = self.names(self.possibly_applied());
        if migrations.is_empty() {
            return Ok(());
        }
        Err(HistoryMismatch::PossiblyApplied { migrations, rows: self.labels(&self.unknown) })
    }

    fn check_strict(&self) -> Result<(), HistoryMismatch> {
        let out_of_order = self.pending.iter().filter(|pending| pending.out_of_order);
        let migrations = self.names(out_of_order.map(|pending| pending.index));
        let (rows, files) = (self.labels(&self.unknown), self.set.unlisted().to_vec());
        if migrations.is_empty() && rows.is_empty() && files.is_empty() {
            return Ok(());
        }
        Err(HistoryMismatch::Strict { migrations, rows, files })
    }

    fn applied(&self) -> Vec<usize> {
        self.matches.migrations_where(|status| matches!(status, MigrationStatus::Applied(_)))
    }

    /// The pending migrations that an unknown row may have recorded, before they were edited, with
    /// a time stamp of the runner's own: those out of order, since a row is written after its
    /// migration is. Where time stamps are no Unix milliseconds, it may be any of them.
    fn possibly_applied(&self) -> Vec<usize> {
        if self.unknown.is_empty() {
            return Vec::new();
        }
        let (set, rows) = (self.set, &self.history.rows);
        let identities = Identities::new(set);
        let has_no_time = rows.iter().zip(&self.matches.rows).any(|(row, status)| match status {
            RowStatus::Unknown => {
                row.created_at.is_none() || (row.name.is_none() && set.layout() == Layout::Plain)
            }
            RowStatus::Matched(migration) => {
                let when = set.get(*migration).and_then(|migration| migration.when);
                row.name.is_none() && identities.candidates(row).is_empty() && row.created_at < when
            }
            RowStatus::Duplicate(_) | RowStatus::Ambiguous => false,
        });
        let doubtful = self.pending.iter().filter(|pending| pending.out_of_order || has_no_time);
        doubtful.map(|pending| pending.index).collect()
    }

    /// Records these migrations: each under the identity of its row, if it has one.
    fn record(
        self,
        records: Vec<(usize, Option<usize>)>,
        not_applied: Vec<usize>,
    ) -> Result<RecordPlan, HistoryMismatch> {
        if !records.is_empty() {
            self.check_upgradable()?;
        }
        let layout = self.set.layout();
        let new_row = |&(index, row): &(usize, Option<usize>)| {
            let migration = self.set.get(index)?;
            Some(match row.and_then(|row| self.history.rows.get(row)) {
                Some(row) => NewRow::re_accept(migration, row, layout),
                None => NewRow::new(migration, layout),
            })
        };
        Ok(RecordPlan {
            rows: records.iter().filter_map(new_row).collect(),
            migrations: self.names(records.iter().map(|(index, _)| *index)),
            not_applied: self.names(not_applied),
            matches: self.matches,
        })
    }

    fn names(&self, indices: impl IntoIterator<Item = usize>) -> Vec<String> {
        let migrations = indices.into_iter().filter_map(|index| self.set.get(index));
        migrations.map(|migration| migration.name.clone()).collect()
    }

    fn labels(&self, rows: &[usize]) -> Vec<String> {
        rows.iter().filter_map(|&row| self.history.rows.get(row)).map(Row::to_string).collect()
    }
}
