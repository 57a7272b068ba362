//! One migration after the other, each in its steps: those that are done are passed over, and each
//! is recorded with its work.

use std::time::{Duration, Instant};

use crate::apply::error::ApplyError;
use crate::apply::event::{Event, InProgress, StepNumber, StepsDone};
use crate::apply::lock;
use crate::apply::resume;
use crate::apply::transaction::{Expected, StepRef, TransactionSpec};
use crate::history::plan::Plan;
use crate::history::progress::{self, Progress};
use crate::history::table::{History, NewRow, Table, TableVersion};
use crate::migrations::migration::{Layout, Migration};
use crate::migrations::prepared::PreparedMigration;
use crate::migrations::steps::Step;
use crate::postgres::session::Session;

use super::standalone::Halt;
use super::{Run, Setback};

/// What is known of the database, and stays true as long as each transaction's guards say so.
pub(super) struct DatabaseState {
    pub(super) history: History,
    pub(super) progress: Progress,
    /// The names that the history's rows get where its table has to be upgraded.
    pub(super) names: Vec<Option<String>>,
}

impl DatabaseState {
    pub(super) fn ground<'k>(&'k self, table: &'k Table, state: TableVersion) -> Expected<'k> {
        Expected { table, history: &self.history, state, progress: &self.progress }
    }

    pub(super) fn prepared(&mut self, layout: Layout) {
        self.history.after_upgrade(layout, &self.names);
    }

    pub(super) fn makes_progress(&mut self) {
        if !self.progress.exists {
            self.progress = Progress { exists: true, owned: true, records: Vec::new() };
        }
    }
}

impl Run<'_> {
    /// Applies what the plan has, one migration after the other, in this session.
    pub(super) fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        fit: &[PreparedMigration<'_>],
        history: History,
        progress: Progress,
    ) -> Result<Option<Setback>, ApplyError> {
        let names = plan.matches.names(self.set);
        let mut known = DatabaseState { history, progress, names };
        // A function that one migration makes, another may call.
        if self.set.migrations().iter().any(|it| it.sql().is_ok_and(lock::may_reset)) {
            self.unsupported_settings.push(lock::MARK.0);
        }
        match self.check_settings(session, plan, fit) {
            Ok(()) => {}
            Err(Halt::Setback(setback)) => return Ok(Some(setback)),
            Err(Halt::Error(error)) => return Err(error),
        }
        for (pending, fit) in plan.pending.iter().zip(fit) {
            let Some(migration) = self.set.get(pending.place) else { continue };
            if let Some(signal) = self.stop.raised() {
                return Err(signal.into());
            }
            if known.history.is_outdated() {
                return Ok(Some(Setback::HistoryChanged));
            }
            if self.broken.is_none() {
                (self.emit)(Event::Applying {
                    migration: migration.name.clone(),
                    out_of_order: pending.out_of_order,
                });
            }
            let started = Instant::now();
            if let Err(setback) = self.apply_one(session, migration, fit, &mut known)? {
                return Ok(Some(setback));
            }
            self.count_applied(&migration.name, Some(started.elapsed()));
        }
        Ok(None)
    }

    /// Applies a migration: in one transaction, or in several steps, each recorded with its work;
    /// those that an earlier start has done are passed over.
    pub(super) fn apply_one(
        &mut self,
        session: &Session,
        migration: &Migration,
        fit: &PreparedMigration<'_>,
        known: &mut DatabaseState,
    ) -> Result<Result<(), Setback>, ApplyError> {
        let known_as = resume::known_as(migration, fit, self.set, &known.progress).to_owned();
        let done = resume::done(&known.progress, &known_as);
        let of = fit.steps.all().len();
        // All that is in the file may have been done, and not be recorded, since more was in it.
        let closing = Step::record_only(&fit.script);
        let rest = fit.steps.all().iter().skip(done);
        let rest: Vec<&Step> = if done < of { rest.collect() } else { vec![&closing] };
        if done > 0 {
            (self.emit)(Event::Resuming {
                migration: migration.name.clone(),
                done: StepsDone { done, of },
            });
        }
        for (number, step) in (done + 1..).zip(&rest) {
            let reached = StepNumber { step: number, of: of.max(number) };
            let (name, outside_transaction) = (migration.name.clone(), step.outside_transaction);
            self.in_progress = (reached.of > 1).then_some(InProgress {
                migration: name,
                step: reached,
                outside_transaction,
            });
            if let Some(signal) = self.stop.raised() {
                return Err(signal.into());
            }
            let work = StepRef { migration, script: &fit.script, step, reached };
            let is_last = number >= of;
            let begun = known.progress.of(&known_as).find(|record| !record.finished).cloned();
            if let Some(begun) = begun {
                match self.settle(session, work, &begun, known)? {
                    Ok(()) => {
                        self.tell_unit(work, None);
                        continue;
                    }
                    Err(Setback::Settled) => known.progress.put(&known_as, begun.step, None),
                    Err(setback) => return Ok(Err(setback)),
                }
            }
            let started = Instant::now();
            let setback = match step.outside_transaction {
                Some(_) => self.apply_lone(session, work, &known_as, known)?,
                None => self.apply_unit(session, work, &known_as, is_last, known)?,
            };
            if let Err(setback) = setback {
                return Ok(Err(setback));
            }
            self.broken = None;
            if !is_last {
                self.tell_unit(work, Some(started.elapsed()));
            }
        }
        Ok(Ok(()))
    }

    fn tell_unit(&mut self, work: StepRef<'_>, took: Option<Duration>) {
        let StepRef { migration, step, reached, .. } = work;
        let (migration, outside_transaction) = (migration.name.clone(), step.outside_transaction);
        (self.emit)(Event::Step { migration, step: reached, outside_transaction, took });
    }

    /// Runs a step that is a transaction.
    pub(super) fn apply_unit(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        known_as: &str,
        is_last: bool,
        known: &mut DatabaseState,
    ) -> Result<Result<(), Setback>, ApplyError> {
        let settings = self.settings;
        let (table, layout) = (&settings.table, self.set.layout());
        if work.step.modes.isolation.is_some()
            && let Err(setback) = self.make_tables(session, work, false, known)?
        {
            return Ok(Err(setback));
        }
        let entry = NewRow::of(work.migration, layout);
        let number = work.reached.step;
        // One that is empty is what a start has left that never got further.
        let is_left = known.progress.owned && known.progress.records.is_empty();
        let begun = is_left || known.progress.of(known_as).next().is_some();
        let job = TransactionSpec {
            work: Some(work),
            prepare: table.create_or_upgrade_sql(&known.history, layout, &known.names),
            makes_progress: !is_last && !known.progress.exists,
            entries: if is_last { vec![entry.clone()] } else { Vec::new() },
            marks: if !is_last {
                vec![progress::finish_sql(table, known_as, number, work.step.hash.as_str())]
            } else if begun {
                known.progress.close(table, &[known_as.to_owned()]).into_iter().collect()
            } else {
                Vec::new()
            },
            keeps: false,
        };
        let state = known.history.version_after_upgrade(layout);
        let answer = match self.run(session, &job, &known.ground(table, state))? {
            Ok(answer) => answer,
            Err(setback) => return Ok(Err(setback)),
        };
        known.prepared(layout);
        if is_last {
            // Where a rule or a trigger keeps the row from us, look at the table again.
            let Some(row) = entry.written(&answer, state) else {
                return Ok(Err(Setback::HistoryChanged));
            };
            known.history.rows.push(row);
            if begun {
                known.progress.closed(&[known_as.to_owned()]);
            }
        } else {
            known.makes_progress();
            let hash = work.step.hash.as_str();
            let record = progress::Record::finished(known_as, number, hash);
            known.progress.put(known_as, number, Some(record));
        }
        Ok(Ok(()))
    }

    /// Makes what tables are missing, for what cannot make them itself.
    pub(super) fn make_tables(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        with_progress: bool,
        known: &mut DatabaseState,
    ) -> Result<Result<(), Setback>, ApplyError> {
        let settings = self.settings;
        let (table, layout) = (&settings.table, self.set.layout());
        let prepare = table.create_or_upgrade_sql(&known.history, layout, &known.names);
        let makes_progress = with_progress && !known.progress.exists;
        if prepare.is_empty() && !makes_progress {
            return Ok(Ok(()));
        }
        let nothing = Step::record_only(work.script);
        let work = Some(StepRef { step: &nothing, ..work });
        let job = TransactionSpec { work, prepare, makes_progress, ..TransactionSpec::default() };
        let state = known.history.version_after_upgrade(layout);
        if let Err(setback) = self.run(session, &job, &known.ground(table, state))? {
            return Ok(Err(setback));
        }
        known.prepared(layout);
        if makes_progress {
            known.makes_progress();
        }
        Ok(Ok(()))
    }
}
