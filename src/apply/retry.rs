//! One transaction, sent again where locks stand in its way.

use std::time::Duration;

use crate::apply::blockers::{Observer, Waiting};
use crate::apply::error::{ApplyError, RolledBack};
use crate::apply::event::{Blocker, Event, RetryReason};
use crate::apply::failure::Broken;
use crate::apply::load::QUESTION;
use crate::apply::lock;
use crate::apply::transaction::{
    Expected, StepRef, Timeouts, Transaction, TransactionResult, TransactionSpec,
};
use crate::history::progress;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{ConnectionError, Session};
use crate::process::signals::{Deadline, Signal};

use super::{LONGEST_PAUSE, PAUSE, Run, Setback};

/// How often a lock did not come, and how long the next pause is.
pub(super) struct Backoff {
    pub(super) attempt: u32,
    pub(super) pause: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { attempt: 1, pause: PAUSE }
    }
}

pub(super) fn stopped(signal: Signal, work: Option<StepRef<'_>>, confirmed: bool) -> ApplyError {
    let (migration, outside_transaction) = match work {
        Some(work) => (Some(work.migration.name.clone()), work.step.outside_transaction),
        None => (None, None),
    };
    ApplyError::Stopped {
        signal,
        rolled_back: Some(RolledBack { migration, confirmed, outside_transaction }),
    }
}

pub(super) fn broken(
    work: Option<StepRef<'_>>,
    completed: usize,
    trouble: ConnectionError,
) -> Setback {
    Setback::Broken(Box::new(Broken {
        migration: work.map(|work| work.migration.name.clone()),
        step: work.map(|work| work.reached.step),
        completed,
        statements: work.map_or(0, |work| work.script.statements().len()),
        trouble,
    }))
}

impl Run<'_> {
    pub(super) fn limits(&self, session: &Session) -> Timeouts {
        Timeouts {
            lock_timeout: self.settings.lock_timeout,
            statement_timeout: self.settings.statement_timeout,
            server_version: session.server_version(),
            unsupported_settings: self.unsupported_settings.clone(),
        }
    }

    /// Runs one transaction, again where locks stand in its way. Once it is committed, what the
    /// statement that wrote its last row gave back.
    pub(super) fn run(
        &mut self,
        session: &Session,
        job: &TransactionSpec<'_>,
        ground: &Expected<'_>,
    ) -> Result<Result<Vec<Option<String>>, Setback>, ApplyError> {
        let migration = job.work.map(|work| work.migration.name.clone());
        let mut retries = Backoff::default();
        loop {
            let transaction = Transaction::new(job, ground, &self.limits(session));
            let step = job.work.map(|work| work.reached.step);
            let given_up = self.given_up(migration.as_deref(), step);
            let target = &self.settings.target;
            let mut observer =
                Observer::new(target, self.stop, migration.as_deref(), Waiting::Answered);
            let emit = &mut *self.emit;
            let mut watch = |responses: &[_]| observer.look(responses, emit);
            let deadline = Deadline::never(self.stop);
            let flight = match given_up {
                Some(_) => session.send_batch(&transaction.probe(), false, deadline, &mut watch),
                None => {
                    let messages = transaction.messages();
                    session.send_batch(&messages, transaction.is_large(), deadline, &mut watch)
                }
            };
            let blocker = observer.close();
            let verdict = match (transaction.judge(&flight), given_up) {
                // No backend is at it any more, and the history does not have it.
                (TransactionResult::Committed(_), Some(broken)) => {
                    return Err(ApplyError::ConnectionLost(broken));
                }
                (TransactionResult::Cancelled { signal, .. }, Some(_)) => {
                    return Err(signal.into());
                }
                (verdict, _) => verdict,
            };
            let failure = match verdict {
                TransactionResult::Committed(answer) => return Ok(Ok(answer)),
                TransactionResult::Cancelled { signal, confirmed } => {
                    return Err(stopped(signal, job.work, confirmed));
                }
                TransactionResult::UnsupportedSetting(setting) => {
                    self.unsupported_settings.push(setting);
                    continue;
                }
                TransactionResult::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                TransactionResult::LockedOut => {
                    return Ok(Err(Setback::LockedOut(self.holder(session))));
                }
                TransactionResult::ConnectionLost { completed, trouble } => {
                    return Ok(Err(broken(job.work, completed, trouble)));
                }
                TransactionResult::PermissionDenied { error, of_progress } => {
                    return Err(self.forbidden(error, of_progress, job, ground, session));
                }
                TransactionResult::Failed(failure) if is_transient(&failure.error) => failure,
                TransactionResult::Failed(failure) => return Err(ApplyError::Failed(failure)),
            };
            let error = failure.error.clone();
            let blocked = blocker.as_ref();
            if !self.pause_for_lock(&mut retries, migration.as_ref(), false, &error, blocked)? {
                return Err(ApplyError::LockTimeout { failure, blocker });
            }
        }
    }

    pub(super) fn forbidden(
        &self,
        error: ServerError,
        of_progress: bool,
        job: &TransactionSpec<'_>,
        ground: &Expected<'_>,
        session: &Session,
    ) -> ApplyError {
        let (table, role) = (ground.table, &self.settings.target.user);
        let statements = if of_progress {
            progress::grants(table, ground.progress.exists, role)
        } else {
            let locks = job.work.is_some_and(|work| work.step.modes.isolation.is_some());
            let deadline = Deadline::after(QUESTION, self.stop);
            // Where there is no table yet, there is no answer, and nothing to grant.
            let obstacles =
                session.query_row(&table.missing_privileges_sql(), deadline).ok().flatten();
            let obstacles = obstacles.unwrap_or_default();
            let mut grants = table.grants(ground.history.state, &job.prepare, &obstacles, role);
            grants.extend(locks.then(|| table.locking_grant(role)));
            grants
        };
        ApplyError::PermissionDenied { error, statements }
    }

    /// Waits for locks to be given back, after one that did not come; or says that this was often
    /// enough.
    pub(super) fn pause_for_lock(
        &mut self,
        retries: &mut Backoff,
        migration: Option<&String>,
        outside_transaction: bool,
        error: &ServerError,
        blocker: Option<&Blocker>,
    ) -> Result<bool, ApplyError> {
        if retries.attempt > self.settings.lock_retries {
            return Ok(false);
        }
        retries.attempt += 1;
        let pause = lock::jittered(retries.pause / 2, retries.pause + retries.pause / 2);
        retries.pause = (retries.pause * 2).min(LONGEST_PAUSE);
        (self.emit)(Event::Retrying {
            migration: migration.cloned(),
            reason: RetryReason::Lock {
                sqlstate: error.code.clone(),
                message: error.message.clone(),
                blocker: blocker.cloned(),
                outside_transaction,
            },
            pause,
            attempt: retries.attempt,
        });
        self.pause(pause)?;
        Ok(true)
    }
}

/// A lock that did not come in time, a deadlock, a serialization failure: each may be gone later.
pub(super) fn is_transient(error: &ServerError) -> bool {
    ["55P03", "40P01", "40001"].contains(&error.code.as_str())
}
