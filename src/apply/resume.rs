//! Where a split migration goes on that an earlier start has begun: the file and its progress,
//! compared. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::apply::error::{ApplyError, ChangedStep, Heirs};
use crate::apply::event::StepsDone;
use crate::history::plan::Plan;
use crate::history::progress::{self, Progress, Record};
use crate::history::table::Table;
use crate::migrations::migration::{Migration, MigrationSet};
use crate::migrations::prepared::{self, PreparedMigration};
use crate::migrations::steps::Steps;
use crate::sql;

/// The name under which a migration's progress was written: its own, or, where a file was renamed
/// since, that of the one which is not carried any more and did the same.
pub fn known_as<'n>(
    migration: &'n Migration,
    fit: &PreparedMigration<'_>,
    set: &MigrationSet,
    progress: &'n Progress,
) -> &'n str {
    match former_names(migration, fit, set, progress).as_slice() {
        [former] => former,
        _ => &migration.name,
    }
}

/// Migrations that are not carried any more, of which something was done that this one says too.
fn former_names<'p>(
    migration: &Migration,
    fit: &PreparedMigration<'_>,
    set: &MigrationSet,
    progress: &'p Progress,
) -> Vec<&'p str> {
    if progress.records.is_empty() || progress.of(&migration.name).next().is_some() {
        return Vec::new();
    }
    let is_carried = |name: &str| set.migrations().iter().any(|carried| carried.name == name);
    // The directive may have come after what was done.
    let before = Steps::without_directive(&fit.script);
    let is_alike = |record: &&Record| says(&fit.steps, record) || says(&before, record);
    let alike = progress.records.iter().filter(is_alike);
    let names = alike.map(|record| record.migration.as_str()).filter(|name| !is_carried(name));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether a file says, in the same place, what was done. Settings, with which many files begin
/// alike, are no step.
fn says(steps: &Steps, record: &Record) -> bool {
    let step = record.step.checked_sub(1).and_then(|at| steps.all().get(at));
    step.is_some_and(|step| step.hash.as_str() == record.hash)
}

/// How many steps are done.
pub fn done(progress: &Progress, known_as: &str) -> usize {
    progress
        .of(known_as)
        .filter(|record| record.finished)
        .map(|record| record.step)
        .max()
        .unwrap_or(0)
}

/// How much of a migration is done, if it was begun.
pub fn reached(
    migration: &Migration,
    set: &MigrationSet,
    progress: &Progress,
) -> Option<StepsDone> {
    if progress.records.is_empty() {
        return None;
    }
    let mut fit = prepared::read(migration).ok()?;
    cut(migration, &mut fit, set, progress);
    let known_as = known_as(migration, &fit, set, progress);
    progress.of(known_as).next()?;
    Some(StepsDone { done: fit.done, of: fit.steps.all().len() })
}

/// Cuts what was begun so that what is done of it stays as it was cut; or finds migrations of which
/// a step that is done is not what the file says now, and progress that may be that of several.
pub fn resume(
    set: &MigrationSet,
    plan: &Plan,
    fit: &mut [PreparedMigration<'_>],
    progress: &Progress,
    table: &Table,
) -> Result<(), ApplyError> {
    if progress.records.is_empty() {
        return Ok(());
    }
    let pending = plan.pending.iter().zip(fit);
    let cut = pending.filter_map(|(pending, fit)| {
        let migration = set.get(pending.place)?;
        cut(migration, fit, set, progress);
        Some((migration, &*fit))
    });
    let pending: Vec<(&Migration, &PreparedMigration<'_>)> = cut.collect();
    let heirs = unclear_heirs(&pending, set, progress, table);
    if !heirs.is_empty() {
        return Err(ApplyError::AmbiguousRename(heirs));
    }
    let changed =
        pending.iter().filter_map(|(migration, fit)| changed(migration, fit, set, progress));
    let changed: Vec<ChangedStep> = changed.collect();
    if changed.is_empty() { Ok(()) } else { Err(ApplyError::ChangedSteps { migrations: changed }) }
}

/// Progress of migrations that are not carried any more, unless each has one heir, and each heir one.
fn unclear_heirs(
    pending: &[(&Migration, &PreparedMigration<'_>)],
    set: &MigrationSet,
    progress: &Progress,
    table: &Table,
) -> Vec<Heirs> {
    let mut heirs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut is_clear = true;
    for (migration, fit) in pending {
        let names = former_names(migration, fit, set, progress);
        is_clear &= names.len() <= 1;
        for name in names {
            let heirs = heirs.entry(name).or_default();
            heirs.push(&migration.name);
            is_clear &= heirs.len() <= 1;
        }
    }
    if is_clear {
        return Vec::new();
    }
    let told = heirs.into_iter().map(|(former, migrations)| Heirs {
        former: former.to_owned(),
        rename: migrations.iter().map(|name| progress::rename_sql(table, former, name)).collect(),
        migrations: migrations.into_iter().map(str::to_owned).collect(),
        forget: progress::forget_sql(table, former),
    });
    told.collect()
}

/// Cuts a migration as it was cut where it is done.
fn cut(
    migration: &Migration,
    fit: &mut PreparedMigration<'_>,
    set: &MigrationSet,
    progress: &Progress,
) {
    let known_as = known_as(migration, fit, set, progress);
    let done = progress.of(known_as).filter(|record| record.finished);
    let done: Vec<&str> = done.map(|record| record.hash.as_str()).collect();
    fit.steps = Steps::behind(&fit.script, &done);
    fit.done = self::done(progress, known_as);
}

fn changed(
    migration: &Migration,
    fit: &PreparedMigration<'_>,
    set: &MigrationSet,
    progress: &Progress,
) -> Option<ChangedStep> {
    let known_as = known_as(migration, fit, set, progress);
    let steps = fit.steps.all();
    let is_changed = |record: &&Record| {
        let step = record.step.checked_sub(1).and_then(|at| steps.get(at));
        record.finished && step.is_none_or(|step| step.hash.as_str() != record.hash)
    };
    let record = progress.of(known_as).filter(is_changed).min_by_key(|record| record.step)?;
    let step = record.step.checked_sub(1).and_then(|at| steps.get(at));
    let statement = step.and_then(|step| fit.script.statements().get(step.statements.start));
    let text = migration.sql().unwrap_or_default();
    Some(ChangedStep {
        file: migration.file.clone(),
        step: record.step,
        position: statement.map(|statement| sql::line_and_column(text, statement.start)),
        done: done(progress, known_as),
    })
}
