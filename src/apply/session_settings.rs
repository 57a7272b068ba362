//! What a session is set to for a statement outside any transaction.

use crate::apply::error::ApplyError;
use crate::apply::event::{Event, StepNumber};
use crate::apply::load::QUESTION;
use crate::apply::transaction::{self, StepRef};
use crate::history::plan::Plan;
use crate::migrations::prepared::PreparedMigration;
use crate::postgres::session::{ConnectionError, QueryError, Session};
use crate::process::signals::Deadline;
use crate::sql::{Piece, Script, Statement, redact};

use super::Run;
use super::lock_session::{SECOND, no_second_connection};
use super::standalone::{Halt, unasked};

impl Run<'_> {
    /// Looks, before anything runs, whether all that is to run can have the settings it needs.
    pub(super) fn check_settings(
        &self,
        session: &Session,
        plan: &Plan,
        fit: &[PreparedMigration<'_>],
    ) -> Result<(), Halt> {
        for (pending, fit) in plan.pending.iter().zip(fit) {
            let Some(migration) = self.set.get(pending.place) else { continue };
            for (step, number) in fit.steps.all().iter().zip(1..).skip(fit.done) {
                let needed = needed(&step.replay(&fit.script));
                if step.outside_transaction.is_none() || needed.is_empty() {
                    continue;
                }
                let reached = StepNumber { step: number, of: fit.steps.all().len() };
                let work = StepRef { migration, script: &fit.script, step, reached };
                if self.is_direct(session, work)? {
                    return Ok(());
                }
                return Err(pooled(work, needed));
            }
        }
        Ok(())
    }

    /// Gives the session the limits, and what the file has set before: the statement is to run under
    /// it, and what the catalogs say depends on it too. Not behind a pooler, where no setting reaches
    /// a statement, nor goes away after it.
    pub(super) fn prepare(&mut self, session: &Session, work: StepRef<'_>) -> Result<(), Halt> {
        let replay = work.step.replay(work.script);
        if self.is_direct(session, work)? {
            self.is_set = true;
            self.set(session, work, &replay)
        } else {
            self.without_settings(work, &replay)
        }
    }

    /// Whether what we send goes to one backend, ours alone.
    fn is_direct(&self, session: &Session, work: StepRef<'_>) -> Result<bool, Halt> {
        let deadline = Deadline::after(SECOND, self.stop);
        match session.query_row("select pg_catalog.pg_backend_pid()", deadline) {
            Ok(answer) => {
                let pid = answer.and_then(|row| row.into_iter().next().flatten());
                Ok(pid == Some(session.handshake_pid().to_string()))
            }
            Err(QueryError::Client(ConnectionError::TimedOut)) => {
                Err(Halt::Error(no_second_connection(work)))
            }
            Err(cause) => Err(unasked(work, cause)),
        }
    }

    fn without_settings(&mut self, work: StepRef<'_>, replay: &[Piece<'_>]) -> Result<(), Halt> {
        let needed = needed(replay);
        if !needed.is_empty() {
            return Err(pooled(work, needed));
        }
        if !self.told_pooler {
            self.told_pooler = true;
            (self.emit)(Event::NoTimeLimits);
        }
        Ok(())
    }

    fn set(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        replay: &[Piece<'_>],
    ) -> Result<(), Halt> {
        let limits = self.limits(session);
        let deadline = || Deadline::after(QUESTION, self.stop);
        let text = work.step.lone(work.script).map(|statement| statement.text).unwrap_or_default();
        for setting in transaction::session_limits(&limits, text) {
            match session.query_row(&setting, deadline()) {
                // A server that cannot have it, has it not.
                Ok(_) | Err(QueryError::Server(_)) => {}
                Err(cause) => return Err(unasked(work, cause)),
            }
        }
        for setting in replay {
            match session.query_row(&setting.text, deadline()) {
                Ok(_) => {}
                Err(QueryError::Server(error)) => {
                    let failure = transaction::replay_failure(work, setting, &error);
                    return Err(Halt::Error(ApplyError::Failed(Box::new(failure))));
                }
                Err(cause) => return Err(unasked(work, cause)),
            }
        }
        Ok(())
    }
}

/// Time limits can be done without; what else the file sets, cannot.
fn needed(replay: &[Piece<'_>]) -> Vec<String> {
    let is_needed = |setting: &&Piece<'_>| {
        let script = Script::read(&setting.text);
        let set = script.statements().first().and_then(Statement::set_statement);
        let harmless = |name: &str| name.ends_with("_timeout") || name.ends_with("_messages");
        !set.is_some_and(|set| set.back || harmless(&set.name))
    };
    replay.iter().filter(is_needed).map(|it| redact::passwords(&it.text).into_owned()).collect()
}

fn pooled(work: StepRef<'_>, settings: Vec<String>) -> Halt {
    Halt::Error(ApplyError::PooledSettings { migration: work.migration.name.clone(), settings })
}
