//! What became of a statement that ran alone, and was begun by an earlier start, or round: settled
//! before anything else is done for its migration.

use std::time::Duration;

use crate::apply::catalog_state::{self, CatalogState};
use crate::apply::error::{ApplyError, ChangedStep, UnknownOutcome};
use crate::apply::event::Event;
use crate::apply::transaction::StepRef;
use crate::history::progress::{self, Record};
use crate::postgres::session::{QueryError, Session};
use crate::process::signals::Deadline;
use crate::sql::redact;

use super::migration::DatabaseState;
use super::standalone::{Ending, Halt, busy, tag, unasked};
use super::{Run, Setback};

/// How long a backend may take to end that was told to, or someone else to build an index.
pub(super) const ORPHAN: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Settles what became of a statement that an earlier start, or an earlier round, has begun:
    /// afterwards it is done, or never began. `work` is what stands in its place now.
    pub(super) fn settle(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        begun: &Record,
        known: &mut DatabaseState,
    ) -> Result<Result<(), Setback>, ApplyError> {
        self.with_keeper(session, work, &begun.migration, known, |run, _, _| {
            run.what_became(session, work, begun)
        })
    }

    /// Finds out what became of a statement that has begun, while the lock is held elsewhere.
    fn what_became(&mut self, session: &Session, work: StepRef<'_>, begun: &Record) -> Ending {
        match self.try_what_became(session, work, begun) {
            Ok(ending) => ending,
            Err(halt) => Ending::Open(halt),
        }
    }

    fn try_what_became(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        begun: &Record,
    ) -> Result<Ending, Halt> {
        self.end_backend_sql(session, work, begun)?;
        self.prepare(session, work)?;
        let state = match begun.statement.as_deref() {
            Some(identifying_sql) => self.look(session, work, identifying_sql)?.state,
            // Nothing tells that it ran, and nothing is lost if it did.
            None => CatalogState::NotDone,
        };
        let is_done = match state {
            CatalogState::Done => true,
            CatalogState::NotDone => false,
            CatalogState::HalfDone(rest) => {
                self.complete(session, work, &rest)?;
                true
            }
            CatalogState::InvalidIndex(index) => {
                self.drop_invalid(session, work, &index)?;
                false
            }
            CatalogState::Unknown => return Err(Halt::Error(self.doubt(work, begun))),
            CatalogState::BeingBuilt(index) => return Err(Halt::Error(busy(work, index))),
        };
        if !is_done {
            return Ok(Ending::Undone(Halt::Setback(Setback::Settled)));
        }
        if begun.hash == work.step.hash.as_str() {
            return Ok(Ending::Done);
        }
        Err(Halt::Error(ApplyError::ChangedSteps {
            migrations: vec![ChangedStep {
                file: work.migration.file.clone(),
                step: begun.step,
                position: None,
                done: begun.step,
            }],
        }))
    }

    fn complete(&mut self, session: &Session, work: StepRef<'_>, rest: &str) -> Result<(), Halt> {
        let migration = work.migration.name.clone();
        (self.emit)(Event::Finishing { migration, sql: rest.to_owned() });
        self.mend(session, work, rest)
    }

    /// Ends the backend in which a statement of an earlier start may still run, and waits until it
    /// is gone.
    fn end_backend_sql(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        begun: &Record,
    ) -> Result<(), Halt> {
        let migration = &work.migration.name;
        let deadline = Deadline::after(ORPHAN, self.stop);
        let mut told = None;
        let tag = tag(&begun.hash);
        let sql = catalog_state::end_backend_sql(&tag, begun.pid, begun.backend_start.as_deref());
        loop {
            let orphan = |pid: Option<String>, error| {
                let pid = pid.or_else(|| begun.pid.map(|pid| pid.to_string()));
                let pid = pid.unwrap_or_default();
                Halt::Error(ApplyError::StaleBackend { migration: migration.clone(), pid, error })
            };
            let pid = match session.query_row(&sql, deadline) {
                Ok(row) => row.and_then(|row| row.into_iter().next().flatten()),
                Err(QueryError::Server(error)) if error.is("42501") => {
                    return Err(orphan(told, Some(error)));
                }
                Err(cause) => return Err(unasked(work, cause)),
            };
            let Some(pid) = pid else { return Ok(()) };
            if told.is_none() {
                (self.emit)(Event::EndingBackend {
                    migration: migration.clone(),
                    pid: pid.clone(),
                });
                told = Some(pid);
            }
            if deadline.sleep(Duration::from_millis(100)).is_err() {
                return Err(match self.stop.raised() {
                    Some(signal) => Halt::Error(signal.into()),
                    None => orphan(told, None),
                });
            }
        }
    }

    fn doubt(&self, work: StepRef<'_>, begun: &Record) -> ApplyError {
        let table = &self.settings.table;
        ApplyError::UnknownOutcome(Box::new(UnknownOutcome {
            migration: work.migration.name.clone(),
            statement: redact::passwords(begun.statement.as_deref().unwrap_or_default()).into(),
            done: progress::finish_begun_sql(table, &begun.migration, begun.step),
            again: progress::forget_begun_sql(table, &begun.migration, begun.step),
        }))
    }
}
