//! Finds out what became of a statement outside a transaction that was begun by an earlier run, or
//! earlier in this one, before anything else is done for its migration.

use std::time::{Duration, Instant};

use crate::history::progress::{self, Progress, Record};
use crate::postgres::session::{QueryError, Session};
use crate::process::signals::Deadline;
use crate::sql::{quote, redact};

use super::catalog_state::{self, CatalogState};
use super::error::{ApplyError, ChangedStep, UnknownOutcome};
use super::event::Event;
use super::interrupt::{Interrupt, Setback, query_failed};
use super::lock_session::{Completion, RUNNER_TIMEOUT};
use super::standalone::{index_being_built, tag};
use super::state::DatabaseState;
use super::transaction::StepRef;
use super::{POLL, QUERY_TIMEOUT, Runner};

/// How long a backend may take to end, or another session to build an index.
pub(super) const STALE_BACKEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Before a backend is looked for again: the server may just be ending it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Runner<'_> {
    /// Finds out what became of a statement that was begun, and records that it is done or never
    /// began. `step` is the step that has its number now. Returns whether it is done.
    pub(super) fn recover_step(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        begun: &Record,
        state: &mut DatabaseState,
    ) -> Result<bool, Interrupt> {
        self.wait_for_its_runner(session, step, begun)?;
        let completion =
            self.with_lock_session(session, step, state, |runner, state| {
                match runner.recover(session, step, begun, &state.progress) {
                    Ok(completion) => (completion, Ok(())),
                    Err(interrupt) => (Completion::Unknown, Err(interrupt)),
                }
            })?;
        Ok(completion == Completion::Done)
    }

    fn recover(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        begun: &Record,
        progress: &Progress,
    ) -> Result<Completion, Interrupt> {
        self.end_stale_backend(session, step, begun)?;
        self.apply_session_settings(session, step, progress)?;
        let state = match begun.statement.as_deref() {
            Some(sql) => self.inspect(session, step, sql)?.state,
            // There is no way to tell whether it ran, and running it again is harmless.
            None => CatalogState::NotDone,
        };
        match state {
            CatalogState::Done => {}
            CatalogState::NotDone => return Ok(Completion::NotDone),
            CatalogState::HalfDone(rest) => self.finish_half_done(session, step, &rest)?,
            CatalogState::InvalidIndex(index) => {
                self.drop_invalid_index(session, step, &index)?;
                return Ok(Completion::NotDone);
            }
            CatalogState::Unknown => return Err(self.unknown_outcome(step, begun).into()),
            CatalogState::BeingBuilt(index) => return Err(index_being_built(step, index).into()),
        }
        if begun.hash == step.step.hash.as_str() {
            return Ok(Completion::Done);
        }
        let file = step.migration.file.clone();
        let changed = ChangedStep { file, step: begun.step, position: None, done: begun.step };
        Err(ApplyError::ChangedSteps { migrations: vec![changed] }.into())
    }

    fn finish_half_done(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        rest: &str,
    ) -> Result<(), Interrupt> {
        let migration = step.migration.name.clone();
        (self.emit)(Event::Finishing { migration, sql: rest.to_owned() });
        self.run_repair(session, step, rest)
    }

    /// Gives the runner of a statement that is still running time to take the lock again, which may be
    /// alive and have lost only the lock: then it takes it again soon.
    fn wait_for_its_runner(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        begun: &Record,
    ) -> Result<(), Interrupt> {
        let (pid, start) = (begun.pid, begun.backend_start.as_deref());
        let sql = catalog_state::backend_sql(&tag(&begun.hash), pid, start);
        let row = session.query_row(&sql, Deadline::after(QUERY_TIMEOUT, self.stop));
        let row = row.map_err(|error| query_failed(step, error))?;
        let Some(pid) = row.and_then(|row| row.into_iter().next().flatten()) else {
            self.stale_backend = None;
            return Ok(());
        };
        let runner = self.runner(session);
        if runner.session().is_some() {
            self.stale_backend = None;
            return Err(Setback::LockedOut(runner).into());
        }
        let known = self.stale_backend.take().filter(|(known, _)| *known == pid);
        let is_new = known.is_none();
        let (_, since) = self.stale_backend.insert(known.unwrap_or((pid.clone(), Instant::now())));
        let waited = since.elapsed();
        let (migration, left) =
            (step.migration.name.clone(), RUNNER_TIMEOUT - waited.min(RUNNER_TIMEOUT));
        (self.emit)(Event::BackendRuns { migration, pid, left }.repeated_unless(is_new));
        if waited >= RUNNER_TIMEOUT {
            return Ok(());
        }
        Err(Setback::BackendRuns { pause: waited.clamp(FIRST_PAUSE, POLL.0) }.into())
    }

    /// Ends the backend that may still run a statement of an earlier run, and waits until it is
    /// gone.
    fn end_stale_backend(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        begun: &Record,
    ) -> Result<(), Interrupt> {
        let migration = &step.migration.name;
        let deadline = Deadline::after(STALE_BACKEND_TIMEOUT, self.stop);
        let tag = tag(&begun.hash);
        let sql = catalog_state::end_backend_sql(&tag, begun.pid, begun.backend_start.as_deref());
        let mut reported: Option<String> = None;
        loop {
            let stale = |pid: Option<String>, error| ApplyError::StaleBackend {
                migration: migration.clone(),
                pid: pid.or(begun.pid.map(|pid| pid.to_string())).unwrap_or_default(),
                error,
            };
            let pid = match session.query_row(&sql, deadline) {
                Ok(row) => row.and_then(|row| row.into_iter().next().flatten()),
                Err(QueryError::Server(error)) if error.is("42501") => {
                    return Err(stale(reported, Some(error)).into());
                }
                Err(error) => return Err(query_failed(step, error)),
            };
            let Some(pid) = pid else { return Ok(()) };
            if reported.is_none() {
                let migration = migration.clone();
                (self.emit)(Event::EndingBackend { migration, pid: pid.clone() });
                reported = Some(pid);
            }
            if deadline.sleep(Duration::from_millis(100)).is_err() {
                return Err(match self.stop.raised() {
                    Some(signal) => signal.into(),
                    None => stale(reported, None).into(),
                });
            }
        }
    }

    fn unknown_outcome(&self, step: StepRef<'_>, begun: &Record) -> ApplyError {
        let table = &self.options.table;
        let done = progress::set_finished_sql(table, &begun.migration, begun.step);
        let again = progress::delete_started_sql(table, &begun.migration, begun.step);
        let is_unchanged = begun.hash == step.step.hash.as_str();
        let statement = match step.standalone().filter(|_| is_unchanged) {
            Some(statement) => redact::statement(&statement),
            None => redact::query(begun.statement.as_deref().unwrap_or_default()),
        };
        ApplyError::UnknownOutcome(Box::new(UnknownOutcome {
            migration: step.migration.name.clone(),
            statement: statement.into_owned(),
            done: quote::readable(&done),
            again: quote::readable(&again),
        }))
    }
}
