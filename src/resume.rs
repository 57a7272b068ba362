//! Where a split migration goes on that an earlier start has begun: the file and its progress,
//! compared. Pure.

use crate::error::ChangedUnit;
use crate::fit::{self, Fit};
use crate::migration::{Migration, MigrationSet};
use crate::plan::Plan;
use crate::progress::{Progress, Record};
use crate::report::Reached;
use crate::sql;
use crate::units::Units;

/// The name under which a migration's progress was written: its own, or, where a folder was renamed
/// since, that of a migration which is not carried any more and began in the same way.
pub fn known_as<'n>(
    migration: &'n Migration,
    fit: &Fit<'_>,
    set: &MigrationSet,
    progress: &'n Progress,
) -> &'n str {
    let is_carried = |name: &str| set.migrations().iter().any(|carried| carried.name == name);
    if progress.of(&migration.name).next().is_some() {
        return &migration.name;
    }
    let begins_alike = |record: &&Record| {
        record.unit == 1
            && Units::behind(&fit.script, &[&record.hash])
                .all()
                .first()
                .is_some_and(|first| first.hash.as_str() == record.hash)
    };
    let old = progress.records.iter().filter(begins_alike);
    let mut old = old.map(|record| record.migration.as_str()).filter(|name| !is_carried(name));
    match (old.next(), old.next()) {
        (Some(old), None) if fit.units.is_split() => old,
        _ => &migration.name,
    }
}

/// How many units are done.
pub fn done(progress: &Progress, known_as: &str) -> usize {
    progress
        .of(known_as)
        .filter(|record| record.finished)
        .map(|record| record.unit)
        .max()
        .unwrap_or(0)
}

/// How much of a migration is done, if it was begun.
pub fn reached(migration: &Migration, set: &MigrationSet, progress: &Progress) -> Option<Reached> {
    if progress.records.is_empty() {
        return None;
    }
    let mut fit = fit::read(migration).ok()?;
    cut(migration, &mut fit, set, progress);
    let known_as = known_as(migration, &fit, set, progress);
    progress.of(known_as).next()?;
    Some(Reached { unit: done(progress, known_as), of: fit.units.all().len() })
}

/// Cuts what was begun so that what is done of it stays as it was cut; or finds migrations of which
/// a unit that is done is not what the file says now.
pub fn resume(
    set: &MigrationSet,
    plan: &Plan,
    fit: &mut [Fit<'_>],
    progress: &Progress,
) -> Result<(), Vec<ChangedUnit>> {
    if progress.records.is_empty() {
        return Ok(());
    }
    let pending = plan.pending.iter().zip(fit);
    let changed: Vec<ChangedUnit> = pending
        .filter_map(|(pending, fit)| {
            let migration = set.get(pending.place)?;
            cut(migration, fit, set, progress);
            changed(migration, fit, set, progress)
        })
        .collect();
    if changed.is_empty() { Ok(()) } else { Err(changed) }
}

fn cut(migration: &Migration, fit: &mut Fit<'_>, set: &MigrationSet, progress: &Progress) {
    let known_as = known_as(migration, fit, set, progress);
    let done = progress.of(known_as).filter(|record| record.finished);
    let done: Vec<&str> = done.map(|record| record.hash.as_str()).collect();
    fit.units = Units::behind(&fit.script, &done);
}

fn changed(
    migration: &Migration,
    fit: &Fit<'_>,
    set: &MigrationSet,
    progress: &Progress,
) -> Option<ChangedUnit> {
    let known_as = known_as(migration, fit, set, progress);
    let units = fit.units.all();
    let is_changed = |record: &&Record| {
        let unit = record.unit.checked_sub(1).and_then(|at| units.get(at));
        record.finished && unit.is_none_or(|unit| unit.hash.as_str() != record.hash)
    };
    let record = progress.of(known_as).filter(is_changed).min_by_key(|record| record.unit)?;
    let unit = record.unit.checked_sub(1).and_then(|at| units.get(at));
    let statement = unit.and_then(|unit| fit.script.statements().get(unit.statements.start));
    let text = migration.sql().unwrap_or_default();
    Some(ChangedUnit {
        file: migration.file.clone(),
        unit: record.unit,
        place: statement.map(|statement| sql::line_and_column(text, statement.start)),
        done: done(progress, known_as),
    })
}
