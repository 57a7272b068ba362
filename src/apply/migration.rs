//! One migration after the other, each in its units: those that are done are passed over, and each
//! is recorded with its work.

use std::time::{Duration, Instant};

use crate::apply::event::{Event, Reached, Underway};
use crate::apply::lock;
use crate::apply::resume;
use crate::apply::transaction::{Ground, Job, Work};
use crate::error::Error;
use crate::history::plan::Plan;
use crate::history::progress::{self, Progress};
use crate::history::table::{Entry, History, State, Table};
use crate::migrations::migration::{Layout, Migration};
use crate::migrations::prepared::Fit;
use crate::migrations::steps::Unit;
use crate::postgres::session::Session;

use super::standalone::Halt;
use super::{Run, Setback};

/// What is known of the database, and stays true as long as each transaction's guards say so.
pub(super) struct Known {
    pub(super) history: History,
    pub(super) progress: Progress,
    /// The names that the history's rows get where its table has to be upgraded.
    pub(super) names: Vec<Option<String>>,
}

impl Known {
    pub(super) fn ground<'k>(&'k self, table: &'k Table, state: State) -> Ground<'k> {
        Ground { table, history: &self.history, state, progress: &self.progress }
    }

    pub(super) fn prepared(&mut self, layout: Layout) {
        self.history.prepare(layout, &self.names);
    }

    pub(super) fn makes_progress(&mut self) {
        if !self.progress.exists {
            self.progress = Progress { exists: true, is_ours: true, records: Vec::new() };
        }
    }
}

impl Run<'_> {
    /// Applies what the plan has, one migration after the other, in this session.
    pub(super) fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        fit: &[Fit<'_>],
        history: History,
        progress: Progress,
    ) -> Result<Option<Setback>, Error> {
        let names = plan.pairing.names(self.set);
        let mut known = Known { history, progress, names };
        // A function that one migration makes, another may call.
        if self.set.migrations().iter().any(|it| it.sql().is_ok_and(lock::may_reset)) {
            self.unsettable.push(lock::MARK.0);
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
                (self.tell)(Event::Applying {
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

    /// Applies a migration: in one transaction, or in several units, each recorded with its work;
    /// those that an earlier start has done are passed over.
    pub(super) fn apply_one(
        &mut self,
        session: &Session,
        migration: &Migration,
        fit: &Fit<'_>,
        known: &mut Known,
    ) -> Result<Result<(), Setback>, Error> {
        let known_as = resume::known_as(migration, fit, self.set, &known.progress).to_owned();
        let done = resume::done(&known.progress, &known_as);
        let of = fit.units.all().len();
        // All that is in the file may have been done, and not be recorded, since more was in it.
        let closing = Unit::closing(&fit.script);
        let rest = fit.units.all().iter().skip(done);
        let rest: Vec<&Unit> = if done < of { rest.collect() } else { vec![&closing] };
        if done > 0 {
            (self.tell)(Event::Resuming {
                migration: migration.name.clone(),
                done: Reached { unit: done, of },
            });
        }
        for (number, unit) in (done + 1..).zip(&rest) {
            let reached = Reached { unit: number, of: of.max(number) };
            let (name, alone) = (migration.name.clone(), unit.alone);
            self.underway =
                (reached.of > 1).then_some(Underway { migration: name, reached, alone });
            if let Some(signal) = self.stop.raised() {
                return Err(signal.into());
            }
            let work = Work { migration, script: &fit.script, unit, reached };
            let is_last = number >= of;
            let begun = known.progress.of(&known_as).find(|record| !record.finished).cloned();
            if let Some(begun) = begun {
                match self.settle(session, work, &begun, known)? {
                    Ok(()) => {
                        self.tell_unit(work, None);
                        continue;
                    }
                    Err(Setback::Settled) => known.progress.put(&known_as, begun.unit, None),
                    Err(setback) => return Ok(Err(setback)),
                }
            }
            let started = Instant::now();
            let setback = match unit.alone {
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

    fn tell_unit(&mut self, work: Work<'_>, took: Option<Duration>) {
        let Work { migration, unit, reached, .. } = work;
        let (migration, alone) = (migration.name.clone(), unit.alone);
        (self.tell)(Event::Unit { migration, reached, alone, took });
    }

    /// Runs a unit that is a transaction.
    pub(super) fn apply_unit(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        is_last: bool,
        known: &mut Known,
    ) -> Result<Result<(), Setback>, Error> {
        let settings = self.settings;
        let (table, layout) = (&settings.table, self.set.layout());
        if work.unit.modes.isolation.is_some()
            && let Err(setback) = self.make_tables(session, work, false, known)?
        {
            return Ok(Err(setback));
        }
        let entry = Entry::of(work.migration, layout);
        let number = work.reached.unit;
        // One that is empty is what a start has left that never got further.
        let is_left = known.progress.is_ours && known.progress.records.is_empty();
        let begun = is_left || known.progress.of(known_as).next().is_some();
        let job = Job {
            work: Some(work),
            prepare: table.prepare(&known.history, layout, &known.names),
            makes_progress: !is_last && !known.progress.exists,
            entries: if is_last { vec![entry.clone()] } else { Vec::new() },
            marks: if !is_last {
                vec![progress::finish(table, known_as, number, work.unit.hash.as_str())]
            } else if begun {
                known.progress.close(table, &[known_as.to_owned()]).into_iter().collect()
            } else {
                Vec::new()
            },
            keeps: false,
        };
        let state = known.history.prepared_state(layout);
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
            let hash = work.unit.hash.as_str();
            let record = progress::Record::finished(known_as, number, hash);
            known.progress.put(known_as, number, Some(record));
        }
        Ok(Ok(()))
    }

    /// Makes what tables are missing, for what cannot make them itself.
    pub(super) fn make_tables(
        &mut self,
        session: &Session,
        work: Work<'_>,
        with_progress: bool,
        known: &mut Known,
    ) -> Result<Result<(), Setback>, Error> {
        let settings = self.settings;
        let (table, layout) = (&settings.table, self.set.layout());
        let prepare = table.prepare(&known.history, layout, &known.names);
        let makes_progress = with_progress && !known.progress.exists;
        if prepare.is_empty() && !makes_progress {
            return Ok(Ok(()));
        }
        let nothing = Unit::closing(work.script);
        let work = Some(Work { unit: &nothing, ..work });
        let job = Job { work, prepare, makes_progress, ..Job::default() };
        let state = known.history.prepared_state(layout);
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
