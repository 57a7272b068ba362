//! What to do next, decided from the migrations and the history alone. Pure.

use crate::history::matching::Matches;
use crate::history::plan::{self, Accepted, Disagreement, Plan, Policy};
use crate::history::table::{History, NewRow};
use crate::migrations::migration::MigrationSet;

use super::Operation;
use super::error::{ApplyError, Conflict};
use super::event::RecordKind;

/// What a round does.
pub(super) enum NextAction {
    /// Everything is done. `up` has a plan without a pending migration.
    Nothing { plan: Option<Plan> },
    /// Write these rows.
    Record { rows: Vec<NewRow>, names: Vec<String>, kind: RecordKind, matches: Matches },
    /// Run what is pending.
    Apply(Plan),
}

/// Decides what to do next; or refuses, where the history disagrees with the migrations.
pub(super) fn next_action(
    operation: &Operation,
    set: &MigrationSet,
    policy: Policy,
    history: &History,
) -> Result<NextAction, ApplyError> {
    let mismatch = |disagreement| mismatch(disagreement, set, history);
    match operation {
        Operation::Baseline { through } => {
            let through = through.as_ref().map(|name| index_of(set, name)).transpose()?;
            let (matches, indexes) = plan::baseline(set, history, through).map_err(mismatch)?;
            let records = indexes.into_iter().map(|index| (index, None)).collect();
            let record = record(set, records, matches, history, RecordKind::Baseline);
            Ok(record.unwrap_or(NextAction::Nothing { plan: None }))
        }
        Operation::Accept { names } => {
            let Accepted { matches, records, refused } = accepted(set, names.as_deref(), history)?;
            if !refused.is_empty() {
                let name = |index: usize| Some(set.get(index)?.name.clone());
                return Err(ApplyError::NotApplied(refused.into_iter().filter_map(name).collect()));
            }
            let record = record(set, records, matches, history, RecordKind::Accept);
            Ok(record.unwrap_or(NextAction::Nothing { plan: None }))
        }
        Operation::Up { accept } => {
            if !accept.is_empty() {
                // What an earlier start has accepted is not edited any more.
                let Accepted { matches, records, .. } = accepted(set, Some(accept), history)?;
                if let Some(record) = record(set, records, matches, history, RecordKind::Accept) {
                    return Ok(record);
                }
            }
            let plan = plan::plan(set, history, policy).map_err(mismatch)?;
            match plan.pending.is_empty() {
                true => Ok(NextAction::Nothing { plan: Some(plan) }),
                false => Ok(NextAction::Apply(plan)),
            }
        }
    }
}

/// What accepting these migrations comes to, or all that were edited.
fn accepted(
    set: &MigrationSet,
    names: Option<&[String]>,
    history: &History,
) -> Result<Accepted, ApplyError> {
    let indexes = |names: &[String]| {
        names.iter().map(|name| index_of(set, name)).collect::<Result<Vec<_>, _>>()
    };
    let named = names.map(indexes).transpose()?;
    plan::accept(set, history, named.as_deref())
        .map_err(|disagreement| mismatch(disagreement, set, history))
}

/// The rows for these migrations, each with the row it has already; `None` without a migration.
fn record(
    set: &MigrationSet,
    records: Vec<(usize, Option<usize>)>,
    matches: Matches,
    history: &History,
    kind: RecordKind,
) -> Option<NextAction> {
    let layout = set.layout();
    let row = |(index, row): (usize, Option<usize>)| {
        let migration = set.get(index)?;
        let new = match row.and_then(|row| history.rows.get(row)) {
            Some(row) => NewRow::re_accept(migration, row, layout),
            None => NewRow::of(migration, layout),
        };
        Some((new, migration.name.clone()))
    };
    let (rows, names): (Vec<_>, Vec<_>) = records.into_iter().filter_map(row).unzip();
    (!rows.is_empty()).then_some(NextAction::Record { rows, names, kind, matches })
}

fn index_of(set: &MigrationSet, name: &str) -> Result<usize, ApplyError> {
    let index = set.migrations().iter().position(|migration| migration.name == name);
    index.ok_or_else(|| ApplyError::NoSuchMigration(name.to_owned()))
}

fn mismatch(disagreement: Disagreement, set: &MigrationSet, history: &History) -> ApplyError {
    ApplyError::Conflict(Conflict::new(disagreement, set, &history.rows))
}
