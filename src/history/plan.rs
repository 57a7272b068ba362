//! What there is to do: the carried set and the recorded history, paired, and what follows.
//!
//! Pure, and total: every row and every migration is accounted for exactly once. Time stamps that
//! are larger than others can stop a run, never skip a migration; in doubt, nothing runs.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::history::table::{self, History, Row, TableVersion};
use crate::migrations::migration::{Layout, MigrationSet};

use super::matching::Identities;
pub use super::matching::{Matches, MigrationStatus, RowStatus, match_rows};

/// What a run may do although the history speaks against it, and what it may not although the
/// history lets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Run pending migrations at which the rules would stop.
    pub apply_older: bool,
    /// Refuse unknown rows, and pending migrations that are out of order.
    pub strict: bool,
}

/// A migration that is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the set.
    pub place: usize,
    /// Whether it comes before something that has been applied already.
    pub out_of_order: bool,
}

/// What a run will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How rows and migrations belong together.
    pub matches: Matches,
    /// How many of the carried migrations have been applied.
    pub applied: usize,
    /// What is to run, in this order.
    pub pending: Vec<Pending>,
    /// The rows, by place, of which nothing carried knows.
    pub unknown: Vec<usize>,
}

/// Why nothing runs: history and migrations disagree. Migrations go by their names, rows by the
/// label that [`Row`] displays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryMismatch {
    /// These files changed after they had been applied.
    Edited(Vec<EditedMigration>),
    /// Each of these rows could belong to several of these migrations.
    Ambiguous { rows: Vec<String>, migrations: Vec<String> },
    /// The history has rows, and none of them belongs to any of the migrations.
    NothingMatches { row_count: usize, migration_count: usize },
    /// These pending migrations come before the first one that was applied.
    OlderThanHistory { pending: Vec<String>, first_applied: String },
    /// These pending migrations may be what the unknown rows recorded.
    PossiblyApplied { pending: Vec<String>, unknown: Vec<String> },
    /// The table of Drizzle 0.x has to be upgraded, but no migration gives these rows a name.
    NotUpgradable { unknown: Vec<String> },
    /// `--strict` refuses them.
    Strict { out_of_order: Vec<String>, unknown: Vec<String> },
}

/// A migration whose file changed after it had been applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditedMigration {
    pub migration: String,
    pub file: String,
    pub recorded_hash: String,
    pub current_hash: String,
}

/// Decides what a run does with this set and this history.
pub fn plan(
    set: &MigrationSet,
    history: &History,
    policy: Policy,
) -> Result<Plan, HistoryMismatch> {
    let rows = &history.rows;
    let matches = unambiguous(set, rows)?;
    let edited = matches.edited();
    if !edited.is_empty() {
        let edited = edited.into_iter().filter_map(|(index, row)| {
            let (migration, row) = (set.get(index)?, rows.get(row)?);
            Some(EditedMigration {
                migration: migration.name.clone(),
                file: migration.file.clone(),
                recorded_hash: row.hash.clone(),
                current_hash: migration.hash.to_string(),
            })
        });
        return Err(HistoryMismatch::Edited(edited.collect()));
    }

    let applied = matches.migrations(|status| matches!(status, MigrationStatus::Applied(_)));
    let pending = pending(set, rows, &matches);
    let unknown = matches.rows(RowStatus::Unknown);
    let out_of_order: Vec<usize> =
        pending.iter().filter(|it| it.out_of_order).map(|it| it.place).collect();

    // Before what names `baseline` and --apply-older as cures: neither could write a row.
    if !pending.is_empty() {
        upgradable(set, history, &unknown)?;
    }
    if !pending.is_empty() && !rows.is_empty() && !policy.apply_older {
        let Some(&first_applied) = applied.first() else {
            return Err(HistoryMismatch::NothingMatches {
                row_count: rows.len(),
                migration_count: set.migrations().len(),
            });
        };
        let older: Vec<usize> =
            out_of_order.iter().copied().filter(|&place| place < first_applied).collect();
        if !older.is_empty() {
            return Err(HistoryMismatch::OlderThanHistory {
                pending: names(set, &older),
                first_applied: names(set, &[first_applied]).concat(),
            });
        }
    }
    let doubtful = possibly_applied(set, rows, &matches);
    if !doubtful.is_empty() && !policy.apply_older {
        return Err(HistoryMismatch::PossiblyApplied {
            pending: names(set, &doubtful),
            unknown: labels(rows, &unknown),
        });
    }
    if policy.strict && !(out_of_order.is_empty() && unknown.is_empty()) {
        return Err(HistoryMismatch::Strict {
            out_of_order: names(set, &out_of_order),
            unknown: labels(rows, &unknown),
        });
    }
    Ok(Plan { applied: applied.len(), matches, pending, unknown })
}

fn unambiguous(set: &MigrationSet, rows: &[Row]) -> Result<Matches, HistoryMismatch> {
    let matches = match_rows(set, rows);
    let ambiguous = matches.rows(RowStatus::Ambiguous);
    if ambiguous.is_empty() {
        return Ok(matches);
    }
    let migrations = matches.migrations(|status| status == MigrationStatus::Ambiguous);
    Err(HistoryMismatch::Ambiguous {
        rows: labels(rows, &ambiguous),
        migrations: names(set, &migrations),
    })
}

fn names(set: &MigrationSet, indices: &[usize]) -> Vec<String> {
    let migrations = indices.iter().filter_map(|&index| set.get(index));
    migrations.map(|migration| migration.name.clone()).collect()
}

fn labels(rows: &[Row], indices: &[usize]) -> Vec<String> {
    indices.iter().filter_map(|&index| rows.get(index)).map(Row::to_string).collect()
}

/// The migrations that are to run, in order. Out of order is what comes before something that was
/// applied: in the set, or by its time. Drizzle 0.x goes by the time alone, whatever the row, and
/// skips such a migration; elsewhere it tells only of rows that have no place in the set.
pub fn pending(set: &MigrationSet, rows: &[Row], matches: &Matches) -> Vec<Pending> {
    let last = matches.migrations(|status| status != MigrationStatus::Pending).last().copied();
    let latest = rows
        .iter()
        .zip(&matches.rows)
        .filter(|(_, status)| set.layout() == Layout::Drizzle0 || **status == RowStatus::Unknown)
        .filter_map(|(row, _)| row.created_at)
        .max();
    let is_out_of_order = |place: usize| {
        let when = set.get(place).and_then(|migration| migration.when);
        Some(place) < last || when.is_some_and(|when| Some(when) <= latest)
    };
    let pending = matches.migrations(|status| status == MigrationStatus::Pending).into_iter();
    pending.map(|place| Pending { place, out_of_order: is_out_of_order(place) }).collect()
}

/// The pending migrations that a row which matches nothing may have recorded, before they were
/// changed, by a runner that writes time stamps of its own: those out of order, since a row is
/// written after its migration is. Where the stamps are no times in milliseconds, it may be any.
fn possibly_applied(set: &MigrationSet, rows: &[Row], matches: &Matches) -> Vec<usize> {
    if !matches.rows.contains(&RowStatus::Unknown) {
        return Vec::new();
    }
    let identities = Identities::of(set);
    let tells_no_time = rows.iter().zip(&matches.rows).any(|(row, status)| match status {
        RowStatus::Unknown => {
            row.created_at.is_none() || (row.name.is_none() && set.layout() == Layout::Plain)
        }
        RowStatus::Of(place) => {
            let when = set.get(*place).and_then(|migration| migration.when);
            row.name.is_none() && identities.matching(row).is_empty() && row.created_at < when
        }
        RowStatus::Duplicate(_) | RowStatus::Ambiguous => false,
    });
    let pending = pending(set, rows, matches).into_iter();
    pending.filter(|it| it.out_of_order || tells_no_time).map(|it| it.place).collect()
}

/// As drizzle-orm 1.x, a table of 0.x is upgraded only if every row gets a name.
fn upgradable(
    set: &MigrationSet,
    history: &History,
    unknown: &[usize],
) -> Result<(), HistoryMismatch> {
    let upgrades = history.state == TableVersion::V0 && table::needs_name(set.layout());
    if upgrades && !unknown.is_empty() {
        let unknown = labels(&history.rows, unknown);
        return Err(HistoryMismatch::NotUpgradable { unknown });
    }
    Ok(())
}

/// What `baseline` records: the pending migrations, up to and with this place.
pub fn baseline(
    set: &MigrationSet,
    history: &History,
    through: Option<usize>,
) -> Result<(Matches, Vec<usize>), HistoryMismatch> {
    let matches = unambiguous(set, &history.rows)?;
    let mut places = matches.migrations(|status| status == MigrationStatus::Pending);
    places.retain(|&place| through.is_none_or(|through| place <= through));
    if !places.is_empty() {
        upgradable(set, history, &matches.rows(RowStatus::Unknown))?;
    }
    Ok((matches, places))
}

/// What `accept` records: of these migrations, or of all, those that were edited, each with its
/// row; and of these also those that an unknown row may have recorded, without one.
pub fn accept(
    set: &MigrationSet,
    history: &History,
    named: Option<&[usize]>,
) -> Result<Accepted, HistoryMismatch> {
    let matches = unambiguous(set, &history.rows)?;
    let is_named = |place: &usize| named.is_some_and(|named| named.contains(place));
    let edited = matches.edited().into_iter();
    let mut records: Vec<(usize, Option<usize>)> = edited
        .filter(|(place, _)| named.is_none() || is_named(place))
        .map(|(place, row)| (place, Some(row)))
        .collect();
    let doubtful = possibly_applied(set, &history.rows, &matches);
    let mut refused = matches.migrations(|status| status == MigrationStatus::Pending);
    refused.retain(|place| is_named(place) && !doubtful.contains(place));
    // One row can be the record of one migration.
    let (meant, unknown): (Vec<usize>, _) =
        (doubtful.into_iter().filter(is_named).collect(), matches.rows(RowStatus::Unknown));
    if meant.len() > unknown.len() {
        refused.extend(meant);
    } else {
        records.extend(meant.into_iter().map(|place| (place, None)));
    }
    if !records.is_empty() {
        upgradable(set, history, &unknown)?;
    }
    Ok(Accepted { matches, records, refused })
}

/// What is accepted, and what cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How rows and migrations belong together.
    pub matches: Matches,
    /// The migrations to record anew, each with the row it has.
    pub records: Vec<(usize, Option<usize>)>,
    /// The migrations that are pending, and have no row that may be theirs.
    pub refused: Vec<usize>,
}
