//! What a session is set to before a statement outside any transaction.

use crate::history::plan::Plan;
use crate::history::progress::Progress;
use crate::migrations::prepared::PreparedMigration;
use crate::postgres::session::{ConnectionError, QueryError, Session};
use crate::process::signals::Deadline;
use crate::sql::{Kind, Piece, redact};

use super::error::ApplyError;
use super::event::{Event, StepNumber};
use super::interrupt::{Interrupt, query_failed};
use super::lock_session::{SECOND_SESSION_TIMEOUT, no_second_connection};
use super::state::DatabaseState;
use super::transaction::{self, StepRef};
use super::{QUERY_TIMEOUT, Runner};

impl Runner<'_> {
    /// Checks, before anything runs, that no pending statement needs settings that a pooler would
    /// lose.
    pub(super) fn check_settings(
        &self,
        session: &Session,
        plan: &Plan,
        prepared: &[PreparedMigration<'_>],
        state: &DatabaseState,
    ) -> Result<(), Interrupt> {
        for (pending, prepared) in plan.pending.iter().zip(prepared) {
            let Some(migration) = self.set.get(pending.index) else { continue };
            let (script, steps) = (&prepared.script, &prepared.steps);
            for (number, step) in (1..).zip(steps.all()).skip(prepared.done) {
                if step.outside_transaction.is_none() {
                    continue;
                }
                let number = StepNumber { step: number, of: steps.all().len() };
                let step = StepRef { migration, script, steps, step, number };
                let needed = needed_settings(step, &state.progress);
                if needed.is_empty() {
                    continue;
                }
                return match self.is_direct(session, step)? {
                    true => Ok(()),
                    false => Err(lost_in_pooler(step, needed).into()),
                };
            }
        }
        Ok(())
    }

    /// Sets the time limits, and replays the settings of earlier steps: the statement runs under
    /// them, and what its names mean depends on them. Behind a pooler no setting reaches the
    /// statement, nor goes away after it.
    pub(super) fn apply_session_settings(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        if self.is_direct(session, step)? {
            self.settings_left = true;
            return self.set(session, step, &step.replay(progress));
        }
        let needed = needed_settings(step, progress);
        if !needed.is_empty() {
            return Err(lost_in_pooler(step, needed).into());
        }
        if !self.pooler_noted {
            self.pooler_noted = true;
            (self.emit)(Event::NoTimeLimits);
        }
        Ok(())
    }

    /// Whether the session has a backend of its own, and not one of a pooler's.
    fn is_direct(&self, session: &Session, step: StepRef<'_>) -> Result<bool, Interrupt> {
        let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
        match session.query_row("select pg_catalog.pg_backend_pid()", deadline) {
            Ok(row) => {
                let pid = row.and_then(|row| row.into_iter().next().flatten());
                Ok(pid == Some(session.handshake_pid().to_string()))
            }
            Err(end @ QueryError::Client(ConnectionError::TimedOut)) => {
                Err(no_second_connection(step, end).into())
            }
            Err(error) => Err(query_failed(step, error)),
        }
    }

    fn set(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        replay: &[Piece<'_>],
    ) -> Result<(), Interrupt> {
        let timeouts = self.timeouts(session);
        let deadline = || Deadline::after(QUERY_TIMEOUT, self.stop);
        let statement = step.standalone().map(|statement| statement.text);
        for sql in transaction::session_timeouts_sql(&timeouts, statement.unwrap_or_default()) {
            match session.query_row(&sql, deadline()) {
                Ok(_) => {}
                Err(QueryError::Server(error)) if transaction::is_unsupported(&error) => {}
                Err(error) => return Err(query_failed(step, error)),
            }
        }
        for setting in replay {
            match session.query_row(&setting.text, deadline()) {
                Ok(_) => {}
                Err(QueryError::Server(error)) => {
                    let failure = transaction::replay_failure(step, setting, &error);
                    return Err(ApplyError::Failed(Box::new(failure)).into());
                }
                Err(error) => return Err(query_failed(step, error)),
            }
        }
        Ok(())
    }
}

/// The settings that a statement cannot do without: all but time limits, message levels, and what
/// only code reads.
fn needed_settings(step: StepRef<'_>, progress: &Progress) -> Vec<String> {
    let runs_code = step.standalone().is_some_and(|statement| statement.kind == Kind::Plain);
    let is_harmless = |name: &str| {
        name.ends_with("_timeout")
            || name.ends_with("_messages")
            || (name.contains('.') && !runs_code)
    };
    let saved = progress.saved_settings(&step.migration.name);
    let changed = step.steps.changed_settings(step.script, step.step, saved);
    let needed = changed.into_iter().filter(|(name, _)| !name.as_deref().is_some_and(is_harmless));
    needed.map(|(_, piece)| redact::sql(&piece.text).into_owned()).collect()
}

fn lost_in_pooler(step: StepRef<'_>, settings: Vec<String>) -> ApplyError {
    ApplyError::PooledSettings { migration: step.migration.name.clone(), settings }
}
