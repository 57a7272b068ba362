//! What to do next, decided from the migrations and the history alone. Pure.

use crate::cli::config::Operation;
use crate::history::matching::Matches;
use crate::history::plan::{self, Plan, Policy, RecordPlan};
use crate::history::table::{History, NewRow};
use crate::migrations::migration::MigrationSet;

use super::error::ApplyError;
use super::event::{Event, RecordKind};
use super::stretch::Prepared;

/// What a round does.
pub(super) enum NextAction {
    /// Everything is done. `up` has a plan without a pending migration.
    Nothing { plan: Option<Plan> },
    /// Write these rows.
    Record { rows: Vec<NewRow>, names: Vec<String>, kind: RecordKind, matches: Matches },
    /// Run what is pending.
    Apply(Plan),
}

impl NextAction {
    /// The plan of `up`, once it has nothing to record first.
    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            NextAction::Nothing { plan } => plan.as_ref(),
            NextAction::Record { .. } => None,
            NextAction::Apply(plan) => Some(plan),
        }
    }

    /// Reads the SQL of the migrations to run. Refuses what cannot run as it is.
    pub(super) fn prepare<'a>(&self, set: &'a MigrationSet) -> Result<Prepared<'a>, ApplyError> {
        match self {
            NextAction::Apply(plan) => Prepared::new(set, &plan.pending),
            NextAction::Nothing { .. } | NextAction::Record { .. } => Prepared::new(set, &[]),
        }
    }
}

/// Refuses names that no migration has, and `--through` before `--baseline-through`: for that, the
/// database need not be asked.
pub(super) fn check_names(operation: &Operation, set: &MigrationSet) -> Result<(), ApplyError> {
    operation.names().iter().try_for_each(|name| index_of(set, name).map(drop))?;
    if let Operation::Up { baseline_through: Some(baseline), through: Some(through), .. } =
        operation
    {
        let (baseline, through) = (index_of(set, baseline)?, index_of(set, through)?);
        if through < baseline {
            return Err(behind(set, through, baseline));
        }
    }
    Ok(())
}

/// Decides what to do next; or refuses, where the history disagrees with the migrations.
pub(super) fn next_action(
    operation: &Operation,
    set: &MigrationSet,
    policy: Policy,
    history: &History,
) -> Result<NextAction, ApplyError> {
    let nothing = NextAction::Nothing { plan: None };
    match operation {
        Operation::Baseline { through } => {
            let through = through.as_ref().map(|name| index_of(set, name)).transpose()?;
            let plan =
                plan::plan_baseline(set, history, through).map_err(ApplyError::HistoryMismatch)?;
            Ok(record(plan, RecordKind::Baseline).unwrap_or(nothing))
        }
        Operation::Accept { names } => {
            let plan = accept_plan(set, names.as_deref(), history)?;
            if !plan.not_applied.is_empty() {
                return Err(ApplyError::NotApplied { migrations: plan.not_applied });
            }
            Ok(record(plan, RecordKind::Accept).unwrap_or(nothing))
        }
        Operation::Up { accept, baseline_through, through, .. } => {
            if let Some(name) = baseline_through {
                let plan = plan::plan_first_baseline(set, history, index_of(set, name)?)
                    .map_err(ApplyError::HistoryMismatch)?;
                if let Some(record) = record(plan, RecordKind::Baseline) {
                    return Ok(record);
                }
            }
            if !accept.is_empty() {
                // What an earlier run has accepted is not edited any more.
                let plan = accept_plan(set, Some(accept), history)?;
                if let Some(record) = record(plan, RecordKind::Accept) {
                    return Ok(record);
                }
            }
            let plan = plan::plan_up(set, history, policy).map_err(ApplyError::HistoryMismatch)?;
            let plan = match through {
                Some(name) => plan.up_to(index_of(set, name)?),
                None => plan,
            };
            match plan.pending.is_empty() {
                true => Ok(NextAction::Nothing { plan: Some(plan) }),
                false => Ok(NextAction::Apply(plan)),
            }
        }
    }
}

/// Refuses `up --through` where the database is past it.
pub(super) fn check_through(
    operation: &Operation,
    set: &MigrationSet,
    plan: &Plan,
) -> Result<(), ApplyError> {
    let Operation::Up { through: Some(name), .. } = operation else { return Ok(()) };
    let through = index_of(set, name)?;
    match plan.past(through) {
        Some(last) => Err(behind(set, through, last)),
        None => Ok(()),
    }
}

/// What `--through` leaves pending.
pub(super) fn through_event(operation: &Operation, plan: &Plan) -> Option<Event> {
    match operation {
        Operation::Up { through: Some(name), .. } if plan.later > 0 => {
            Some(Event::Through { migration: name.clone(), later: plan.later })
        }
        _ => None,
    }
}

fn behind(set: &MigrationSet, through: usize, later: usize) -> ApplyError {
    let name = |index| set.get(index).map(|migration| migration.name.clone()).unwrap_or_default();
    ApplyError::ThroughIsBehind { name: name(through), later: name(later) }
}

/// What accepting these migrations comes to, or all that were edited.
fn accept_plan(
    set: &MigrationSet,
    names: Option<&[String]>,
    history: &History,
) -> Result<RecordPlan, ApplyError> {
    let indexes = |names: &[String]| {
        names.iter().map(|name| index_of(set, name)).collect::<Result<Vec<_>, _>>()
    };
    let named = names.map(indexes).transpose()?;
    plan::plan_accept(set, history, named.as_deref()).map_err(ApplyError::HistoryMismatch)
}

fn record(plan: RecordPlan, kind: RecordKind) -> Option<NextAction> {
    let RecordPlan { matches, rows, migrations, .. } = plan;
    (!rows.is_empty()).then_some(NextAction::Record { rows, names: migrations, kind, matches })
}

fn index_of(set: &MigrationSet, name: &str) -> Result<usize, ApplyError> {
    let index = set.migrations().iter().position(|migration| migration.name == name);
    index.ok_or_else(|| ApplyError::NoSuchMigration { name: name.to_owned() })
}
