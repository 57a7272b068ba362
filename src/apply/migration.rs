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
use super::stretch::{Next, Prepared};
use super::train::Train;
use super::transaction::{StepRef, TransactionSpec};

impl Runner<'_> {
    /// Applies what is pending, in the order of the plan.
    pub(super) fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        prepared: &mut Prepared<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        // Of a migration that has not begun in this run, it does not change meanwhile.
        let progress = state.progress.clone();
        prepared.in_stretches(self.set, &plan.pending, &progress, &mut |stretch| {
            self.apply_stretch(session, stretch, state)
        })
    }

    fn apply_stretch(
        &mut self,
        session: &Session,
        stretch: &[Next<'_>],
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let mut left = stretch;
        while let [first, rest @ ..] = left {
            if state.needs_reload {
                return Err(Setback::HistoryChanged.into());
            }
            let train: Vec<_> = left.iter().map_while(|next| self.plain(*next, state)).collect();
            if train.is_empty() {
                self.check_signal()?;
                self.announce(*first);
                let started = Instant::now();
                self.apply_one(session, first.migration, first.prepared, state)?;
                self.record_applied(&first.migration.name, Some(started.elapsed()));
                left = rest;
            } else {
                let (together, rest) = left.split_at(train.len());
                self.apply_train(&mut Train::new(session, &train), together, state)?;
                left = rest;
            }
        }
        Ok(())
    }

    /// Applies migrations of one plain transaction each.
    fn apply_train(
        &mut self,
        train: &mut Train<'_>,
        migrations: &[Next<'_>],
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        for next in migrations {
            if train.is_idle() {
                self.check_signal()?;
            }
            self.announce(*next);
            self.in_progress = None;
            if let Some(step) = train.first().and_then(|spec| spec.step) {
                (self.emit)(step.sent(false));
            }
            let started = Instant::now();
            self.commit_first(train, state)?;
            self.record_applied(&next.migration.name, Some(started.elapsed()));
        }
        Ok(())
    }

    fn announce(&mut self, next: Next<'_>) {
        let Next { pending, migration, prepared } = next;
        if self.announced.as_ref() == Some(&migration.name) {
            return;
        }
        self.announced = Some(migration.name.clone());
        (self.emit)(Event::Applying {
            migration: migration.name.clone(),
            out_of_order: pending.out_of_order,
        });
        if prepared.script.statements().is_empty() {
            (self.emit)(Event::NoStatement { migration: migration.name.clone() });
        }
    }

    /// The transaction that is all of a migration and leaves nothing but its row, so that the next one
    /// may be sent before it is answered; `None` for any other migration.
    fn plain<'s>(&self, next: Next<'s>, state: &DatabaseState) -> Option<TransactionSpec<'s>> {
        let Next { migration, prepared, .. } = next;
        let PreparedMigration { script, steps, done: 0 } = prepared else { return None };
        let [step] = steps.all() else { return None };
        let number = StepNumber { step: 1, of: 1 };
        let spec =
            self.transaction_of(StepRef { migration, script, steps, step, number }, true, state);
        (step.outside_transaction.is_none() && spec.is_plain()).then_some(spec)
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
        let spec = self.transaction_of(step, runs_step, state);
        self.commit(session, &spec, state)
    }

    /// The transaction in which a step runs, or is recorded.
    fn transaction_of<'s>(
        &self,
        step: StepRef<'s>,
        runs_step: bool,
        state: &DatabaseState,
    ) -> TransactionSpec<'s> {
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
        TransactionSpec {
            step: Some(step),
            runs_step,
            upgrade: self.upgrade_sql(state),
            creates_progress: !is_last && !state.progress.exists,
            rows: row.into_iter().collect(),
            progress,
            holds_lock: false,
        }
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
