//! What `up` would do: a round that ends before anything is done.

use serde::Serialize;

use crate::cli::config::{Operation, Options};
use crate::effects::Hazard;
use crate::history::progress::Progress;
use crate::history::table::History;
use crate::migrations::migration::MigrationSet;
use crate::process::signals::StopFlag;

use super::error::ApplyError;
use super::event::{Event, RecordKind};
use super::load::{self, Loaded};
use super::next_action::{self, NextAction, next_action};
use super::resume;
use super::sizes::{self, EffectsReader};
use super::stretch::Next;

/// What `up` would do.
#[derive(Debug)]
pub struct DryRun {
    /// The migrations that it would record first, by name.
    pub recorded: Vec<(RecordKind, Vec<String>)>,
    /// How many migrations are applied.
    pub applied: usize,
    /// What it would run, in this order.
    pub pending: Vec<PlannedMigration>,
}

/// A pending migration that would be applied.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename = "apply")]
pub struct PlannedMigration {
    pub migration: String,
    /// Its file's path inside the migrations folder.
    pub file: String,
    /// Whether a migration after it is applied already.
    pub out_of_order: bool,
    /// How many statements the file has.
    pub statements: usize,
    /// Why it is split into steps; null if it is not.
    pub split_reason: Option<String>,
    pub steps: Vec<PlannedStep>,
    /// What it does to the tables that the database has.
    #[serde(skip)]
    pub hazards: Vec<Hazard>,
}

/// One transaction, or one statement outside any.
#[derive(Debug, Serialize)]
pub struct PlannedStep {
    /// From 1.
    pub step: usize,
    /// The statement that runs outside a transaction, such as `VACUUM`; null for a transaction.
    pub outside_transaction: Option<&'static str>,
    /// How many statements of the file it runs.
    pub statements: usize,
    /// Whether an earlier run has done it.
    pub done: bool,
}

/// What `up` would do with this set; changes nothing.
pub fn dry_run(
    operation: &Operation,
    set: &MigrationSet,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<DryRun, ApplyError> {
    next_action::check_names(operation, set)?;
    let Loaded { session, history, progress, .. } = load::load(options, None, stop, emit)?;
    let mut effects = EffectsReader::new(set);
    let visit = &mut |next: Next<'_>| effects.read(next);
    let mut dry_run = foresee(operation, set, options, history, progress, visit, emit)?;
    let effects = sizes::foresee(effects.finish(), set, &session, options, stop, emit)?;
    for (planned, (_, hazards)) in dry_run.pending.iter_mut().zip(effects.hazards) {
        planned.hazards = hazards;
    }
    Ok(dry_run)
}

/// What `up` would do where the database holds this; or why it would refuse to. `visit` gets each
/// migration that is pending.
pub fn foresee(
    operation: &Operation,
    set: &MigrationSet,
    options: &Options,
    mut history: History,
    progress: Result<Progress, ApplyError>,
    visit: &mut dyn FnMut(Next<'_>),
    emit: &mut dyn FnMut(Event),
) -> Result<DryRun, ApplyError> {
    let mut recorded = Vec::new();
    loop {
        let action = next_action(operation, set, options.policy, &history)?;
        if let Some(plan) = action.plan() {
            next_action::check_through(operation, set, plan)?;
            next_action::through_event(operation, plan).into_iter().for_each(&mut *emit);
        }
        let mut prepared = action.prepare(set)?;
        match action {
            NextAction::Record { rows, names, kind, matches } => {
                history.set_upgraded(set.layout(), &matches.row_names(set));
                history.add_unwritten(&rows);
                recorded.push((kind, names));
            }
            NextAction::Nothing { plan } => {
                let applied = plan.map_or(0, |plan| plan.applied);
                return Ok(DryRun { recorded, applied, pending: Vec::new() });
            }
            NextAction::Apply(plan) => {
                let progress = progress?;
                resume::check_abandoned(set, &progress, &options.table)?;
                let (mut pending, mut changed) = (Vec::new(), Vec::new());
                prepared.in_stretches(set, &plan.pending, &progress, &mut |stretch| {
                    for next in stretch {
                        changed.extend(resume::changed_step(*next, &progress));
                        pending.push(PlannedMigration::new(*next));
                        visit(*next);
                    }
                    Ok::<(), ApplyError>(())
                })?;
                return match changed.is_empty() {
                    true => Ok(DryRun { recorded, applied: plan.applied, pending }),
                    false => Err(ApplyError::ChangedSteps { migrations: changed }),
                };
            }
        }
    }
}

impl PlannedMigration {
    fn new(next: Next<'_>) -> PlannedMigration {
        let Next { pending, migration, prepared } = next;
        let steps = &prepared.steps;
        // Without a last one that only writes the history row.
        let planned =
            (1..).zip(steps.all()).take(steps.count()).map(|(number, step)| PlannedStep {
                step: number,
                outside_transaction: step.outside_transaction,
                statements: step.statements.len(),
                done: number <= prepared.done,
            });
        PlannedMigration {
            migration: migration.name.clone(),
            file: migration.file.clone(),
            out_of_order: pending.out_of_order,
            statements: prepared.script.statements().len(),
            split_reason: steps.split.map(|(reason, _)| reason.to_string()),
            steps: planned.collect(),
            hazards: Vec::new(),
        }
    }
}
