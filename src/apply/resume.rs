//! Compares a file with its progress, to find the first step of a migration that an earlier run has
//! not finished. If that step is a statement outside a transaction which was begun, `recovery` finds
//! out what became of it. Pure.

use std::collections::BTreeSet;

use crate::history::progress::{self, Progress, Record};
use crate::history::table::Table;
use crate::migrations::migration::{Migration, MigrationSet};
use crate::migrations::prepared::PreparedMigration;
use crate::migrations::steps::{Step, Steps};
use crate::sql::LineColumn;

use super::error::{AbandonedProgress, ApplyError, ChangedStep};
use super::event::StepsDone;
use super::stretch::Next;

/// Refuses progress of a migration that is not in the set.
pub(super) fn check_abandoned(
    set: &MigrationSet,
    progress: &Progress,
    table: &Table,
) -> Result<(), ApplyError> {
    let abandoned = abandoned(set, progress, table);
    match abandoned.is_empty() {
        true => Ok(()),
        false => Err(ApplyError::AbandonedProgress { migrations: abandoned }),
    }
}

/// How much of a migration is done, if it was begun.
pub fn reached(migration: &Migration, progress: &Progress) -> Option<StepsDone> {
    progress.of(&migration.name).next()?;
    let mut prepared = PreparedMigration::parse(migration).ok()?;
    split_as_before(migration, &mut prepared, progress);
    let of = prepared.steps.count();
    Some(StepsDone { done: prepared.done.min(of), of })
}

/// Progress of migrations that are not in the set: renamed or removed since they were begun.
fn abandoned(set: &MigrationSet, progress: &Progress, table: &Table) -> Vec<AbandonedProgress> {
    let is_in_set = |name: &str| set.migrations().iter().any(|migration| migration.name == name);
    let names = progress.records().map(|record| record.migration.as_str());
    let names: BTreeSet<_> = names.filter(|name| !is_in_set(name)).collect();
    let abandoned = names.into_iter().map(|name| AbandonedProgress {
        migration: name.to_owned(),
        rename_sql: progress::rename_sql(table, name, "NEW NAME"),
        forget_sql: progress::delete_sql(table, name),
    });
    abandoned.collect()
}

/// Finds the steps of a migration that are done, and splits it so that they stay as they were.
pub(super) fn split_as_before(
    migration: &Migration,
    prepared: &mut PreparedMigration<'_>,
    progress: &Progress,
) {
    if progress.of(&migration.name).next().is_none() {
        return;
    }
    let finished = progress.of(&migration.name).filter(|record| record.finished);
    let finished: Vec<&Record> = finished.collect();
    let hashes: Vec<&str> = finished.iter().map(|record| record.hash.as_str()).collect();
    prepared.steps = Steps::split_after(&prepared.script, &hashes);
    prepared.done = finished.iter().map(|record| record.step).max().unwrap_or(0);
}

/// The first step of a pending migration that is done and whose text is another one now.
pub(super) fn changed_step(next: Next<'_>, progress: &Progress) -> Option<ChangedStep> {
    let Next { migration, prepared, .. } = next;
    let is_changed = |record: &&Record| {
        let step = step_of(prepared, record);
        record.finished && step.is_none_or(|step| step.hash.as_str() != record.hash)
    };
    let changed = progress.of(&migration.name).filter(is_changed);
    let record = changed.min_by_key(|record| record.step)?;
    let start = step_of(prepared, record).map(|step| step.statements.start);
    let statement = start.and_then(|start| prepared.script.statements().get(start));
    let text = prepared.script.text();
    Some(ChangedStep {
        file: migration.file.clone(),
        step: record.step,
        position: statement.map(|statement| LineColumn::at(text, statement.start)),
        done: prepared.done,
    })
}

fn step_of<'p>(prepared: &'p PreparedMigration<'_>, record: &Record) -> Option<&'p Step> {
    record.step.checked_sub(1).and_then(|index| prepared.steps.all().get(index))
}
