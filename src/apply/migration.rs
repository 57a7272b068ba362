//! One migration after the other, each in its steps. Every step is recorded together with its work.

use std::time::{Duration, Instant};

use crate::history::plan::Plan;
use crate::history::progress::ProgressChange;
use crate::history::table::NewRow;
use crate::migrations::migration::Migration;
use crate::migrations::prepared::PreparedMigration;
use crate::postgres::session::Session;

use super::Runner;
use super::event::{Event, InProgress, StepNumber, StepsDone};
use super::interrupt::{Interrupt, Setback};
use super::state::DatabaseState;
use super::transaction::{StepRef, TransactionSpec};

impl Runner<'_> {
    /// Applies what is pending, in the order of the plan.
    pub(super) fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        prepared: &[PreparedMigration<'_>],
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        self.check_settings(session, plan, prepared, state)?;
        for (pending, prepared) in plan.pending.iter().zip(prepared) {
            let Some(migration) = self.set.get(pending.index) else { continue };
            self.check_signal()?;
            if state.needs_reload {
                return Err(Setback::HistoryChanged.into());
            }
            if self.announced.as_ref() != Some(&migration.name) {
                self.announced = Some(migration.name.clone());
                (self.emit)(Event::Applying {
                    migration: migration.name.clone(),
                    out_of_order: pending.out_of_order,
                });
                if prepared.script.statements().is_empty() {
                    (self.emit)(Event::NoStatement { migration: migration.name.clone() });
                }
            }
            let started = Instant::now();
            self.apply_one(session, migration, prepared, state)?;
            self.record_applied(&migration.name, Some(started.elapsed()));
        }
        Ok(())
    }

    /// Applies a migration: the steps after those that an earlier run has done.
    fn apply_one(
        &mut self,
        session: &Session,
        migration: &Migration,
        prepared: &PreparedMigration<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let (script, steps, done) = (&prepared.script, &prepared.steps, prepared.done);
        let of = steps.count();
        if done > 0 {
            (self.emit)(Event::Resuming {
                migration: migration.name.clone(),
                done: StepsDone { done: done.min(of), of },
            });
        }
        for (number, step) in (1..).zip(steps.all()).skip(done) {
            let number = StepNumber { step: number, of };
            let step = StepRef { migration, script, steps, step, number };
            self.apply_step(session, step, true, state)?;
        }
        if let Some(step) = steps.all().last().filter(|_| done >= steps.all().len()) {
            // The file had more steps when these were done. Only the history row is missing.
            let number = StepNumber { step: done + 1, of };
            let step = StepRef { migration, script, steps, step, number };
            self.apply_step(session, step, false, state)?;
        }
        Ok(())
    }

    /// Applies a step, unless an earlier run has begun and done it. Without `runs_step`, only its
    /// record is written.
    fn apply_step(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        runs_step: bool,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let is_split = step.steps.all().len() > 1 || step.number.step > 1;
        self.in_progress = is_split.then(|| InProgress {
            migration: step.migration.name.clone(),
            step: step.number,
            outside_transaction: step.step.outside_transaction,
        });
        self.check_signal()?;
        let mut runs_step = runs_step;
        if let Some(begun) = state.progress.unfinished(&step.migration.name).cloned()
            && self.recover_step(session, step, &begun, state)?
        {
            if !step.is_last() {
                self.report_step(step, None);
                return Ok(());
            }
            // The file had more steps when it began. The history row is missing.
            runs_step = false;
        }
        (self.emit)(step.sent(false));
        let started = Instant::now();
        match step.step.outside_transaction {
            Some(_) => self.apply_outside_transaction(session, step, state)?,
            None => self.apply_in_transaction(session, step, runs_step, state)?,
        }
        self.lost_connection = None;
        self.report_step(step, Some(started.elapsed()));
        Ok(())
    }

    fn apply_in_transaction(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        runs_step: bool,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        if step.step.modes.isolation.is_some() {
            self.create_tables(session, step, false, state)?;
        }
        let migration = step.migration.name.clone();
        let is_last = step.is_last();
        let progress = if !is_last {
            let saved_settings = step.step.saves.clone();
            Some(ProgressChange::Finish { record: step.record(), saved_settings })
        } else {
            // An empty progress table was left by an interrupted run.
            let is_left = state.progress.owned && state.progress.is_empty();
            let has_progress = is_left || state.progress.of(&migration).next().is_some();
            has_progress.then(|| ProgressChange::Close { migrations: vec![migration] })
        };
        let row = is_last.then(|| NewRow::new(step.migration, self.set.layout()));
        let spec = TransactionSpec {
            step: Some(step),
            runs_step,
            upgrade: self.upgrade_sql(state),
            creates_progress: !is_last && !state.progress.exists,
            rows: row.into_iter().collect(),
            progress,
            holds_lock: false,
        };
        self.commit(session, &spec, state)
    }

    /// Creates the tables that are missing, for what cannot create them itself.
    pub(super) fn create_tables(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        with_progress: bool,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let upgrade = self.upgrade_sql(state);
        let creates_progress = with_progress && !state.progress.exists;
        if upgrade.is_empty() && !creates_progress {
            return Ok(());
        }
        let spec = TransactionSpec {
            step: Some(step),
            upgrade,
            creates_progress,
            ..TransactionSpec::default()
        };
        self.commit(session, &spec, state)
    }

    /// Not that the last step has ended: what follows says that the migration is applied.
    fn report_step(&mut self, step: StepRef<'_>, took: Option<Duration>) {
        if took.is_some() && step.number.step >= step.number.of {
            return;
        }
        (self.emit)(Event::Step {
            migration: step.migration.name.clone(),
            step: step.number,
            outside_transaction: step.step.outside_transaction,
            took,
        });
    }

    pub(super) fn check_signal(&self) -> Result<(), Interrupt> {
        match self.stop.raised() {
            Some(signal) => Err(signal.into()),
            None => Ok(()),
        }
    }
}
