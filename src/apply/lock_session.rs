//! The second session, which holds the lock while a statement runs outside any transaction.

use std::time::Duration;

use crate::history::progress::ProgressChange;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Responses, Session, Stage};
use crate::postgres::wait;
use crate::process::signals::Deadline;

use super::error::ApplyError;
use super::interrupt::{Interrupt, Setback, as_connection_error, connection_lost};
use super::retry::{Backoff, Reply, conflict};
use super::state::DatabaseState;
use super::transaction::{self, StepRef, Transaction, TransactionResult, TransactionSpec};
use super::{QUERY_TIMEOUT, Runner};

/// How long the second session, or the first one beside it, may take to answer. A pooler with a pool
/// of one would keep us waiting until its own limit.
pub(super) const SECOND_SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the cleanup may take once the statement has ended: a signal may have come, and Docker
/// gives ten seconds for all of it.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of a statement that was to run outside a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    Done,
    /// It did nothing, as far as the server and the catalogs say.
    NotDone,
    /// The next run has to find out.
    Unknown,
}

impl Runner<'_> {
    /// Holds the lock on a second session while `act` runs, and records there what `act` says of the
    /// step's statement.
    pub(super) fn with_lock_session(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
        act: impl FnOnce(&mut Self, &Session, &mut DatabaseState) -> (Completion, Result<(), Interrupt>),
    ) -> Result<Completion, Interrupt> {
        let lock_session = self.open_lock_session(session, step)?;
        let held = self.acquire(&lock_session, session, step, state)?;
        let (completion, result) = act(self, &lock_session, state);
        self.reset_settings(session, completion, &result);
        let spec = TransactionSpec {
            step: Some(step),
            progress: recorded(step, completion),
            holds_lock: true,
            ..TransactionSpec::default()
        };
        if spec.progress.is_some() {
            self.commit_and_release(lock_session, held, session, &spec, state)?;
        }
        result.map(|()| completion)
    }

    /// Commits what the lock session has to record, and gives the lock back with it. Where the lock
    /// session was lost, the result is recorded on the main session.
    fn commit_and_release(
        &mut self,
        lock_session: Session,
        held: Responses,
        session: &Session,
        spec: &TransactionSpec<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let transaction = Transaction::new(spec, &self.expected(state), &self.timeouts(session));
        let cleanup = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        let end = lock_session.send_batch(&transaction.release(), false, cleanup, &mut |_| {});
        drop(lock_session);
        let mut responses = held.responses;
        responses.extend(end.responses);
        let result = transaction.result(&Responses { responses, end: end.end });
        if matches!(result, TransactionResult::Committed(_)) {
            return Ok(state.committed(spec, self.set.layout(), &[])?);
        }
        if self.stop.raised().is_some() {
            let cleanup = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
            session.send_batch(&transaction.messages(), false, cleanup, &mut |_| {});
            return Ok(());
        }
        self.commit(session, spec, state)
    }

    /// Sets the main session's settings back. A session that is not used any more needs no reset.
    fn reset_settings(
        &mut self,
        session: &Session,
        completion: Completion,
        result: &Result<(), Interrupt>,
    ) {
        let is_used = completion != Completion::Unknown && result.is_ok();
        let is_used = is_used && self.stop.raised().is_none();
        if std::mem::take(&mut self.settings_left) && is_used {
            let deadline = Deadline::after(CLEANUP_TIMEOUT, self.stop);
            let _ = session.query_row(&transaction::RESET.join("; "), deadline);
        }
    }

    /// Makes sure that the lock is still held: without it, nothing is begun.
    pub(super) fn check_lock_held(&self, lock_session: &Session) -> Result<(), Interrupt> {
        match lock_session.query_row("select 1", Deadline::after(QUERY_TIMEOUT, self.stop)) {
            Ok(_) => Ok(()),
            Err(QueryError::Stopped(signal)) => Err(signal.into()),
            Err(_) => Err(Setback::HistoryChanged.into()),
        }
    }

    fn open_lock_session(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
    ) -> Result<Session, Interrupt> {
        let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
        let attempts = match Session::open(&self.options.target, deadline) {
            Ok(lock_session) => return Ok(lock_session),
            Err(attempts) => attempts,
        };
        if let Some(signal) = self.stop.raised() {
            return Err(signal.into());
        }
        if attempts.iter().any(|attempt| wait::is_full(&attempt.cause)) {
            if self.is_limited_to_one(session) {
                return Err(no_second_connection(step).into());
            }
            return Err(Setback::LockedOut(None).into());
        }
        match attempts.into_iter().next() {
            Some(first) if wait::is_temporary(&first.cause) && !is_timeout(&first.cause) => {
                Err(connection_lost(Some(step), 0, as_connection_error(first.cause)).into())
            }
            Some(first) if !is_timeout(&first.cause) => {
                let second = Attempt { stage: Stage::SecondLogin, ..first };
                Err(ApplyError::Unreachable { attempts: vec![second] }.into())
            }
            _ => Err(no_second_connection(step).into()),
        }
    }

    /// Whether the role or the database is limited to one connection, so that waiting is useless.
    fn is_limited_to_one(&self, session: &Session) -> bool {
        const LIMIT: &str = "select from pg_catalog.pg_roles, pg_catalog.pg_database \
             where rolname = session_user and datname = pg_catalog.current_database() \
             and 1 in (rolconnlimit, datconnlimit)";
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        matches!(session.query_row(LIMIT, deadline), Ok(Some(_)))
    }

    /// Takes the lock on the second session, in a transaction that stays open. Returns the server's
    /// responses.
    fn acquire(
        &mut self,
        lock_session: &Session,
        session: &Session,
        step: StepRef<'_>,
        state: &DatabaseState,
    ) -> Result<Responses, Interrupt> {
        let spec =
            TransactionSpec { step: Some(step), holds_lock: true, ..TransactionSpec::default() };
        let mut backoff = Backoff::default();
        loop {
            let transaction =
                Transaction::new(&spec, &self.expected(state), &self.timeouts(lock_session));
            let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
            let held = lock_session.send_batch(&transaction.hold(), false, deadline, &mut |_| {});
            if held.end.as_ref().is_some_and(is_timeout) {
                return Err(no_second_connection(step).into());
            }
            let result = match transaction.result(&held) {
                // Nothing of the step was running.
                TransactionResult::Cancelled { signal, .. } => return Err(signal.into()),
                TransactionResult::ConnectionLost { error, .. } => {
                    return Err(connection_lost(Some(step), 0, error).into());
                }
                result => result,
            };
            let failure = match self.reply(result, session, &spec, state)? {
                Reply::Committed(_) => return Ok(held),
                Reply::SettingRefused => None,
                Reply::Blocked(failure) => Some(failure),
            };
            let _ = lock_session.query_row("rollback", Deadline::after(QUERY_TIMEOUT, self.stop));
            let Some(failure) = failure else { continue };
            let reason = conflict(&failure.error, None, false);
            if !self.pause_for_lock(&mut backoff, Some(&step.migration.name), reason)? {
                return Err(ApplyError::LockTimeout { failure, blocker: None }.into());
            }
        }
    }
}

fn is_timeout(error: &QueryError) -> bool {
    *error == QueryError::Client(ConnectionError::TimedOut)
}

/// What the progress table is to say of the step's statement.
fn recorded(step: StepRef<'_>, completion: Completion) -> Option<ProgressChange> {
    match completion {
        Completion::Done => Some(ProgressChange::FinishStarted(step.record())),
        Completion::NotDone => Some(ProgressChange::ForgetStarted {
            migration: step.migration.name.clone(),
            step: step.number.step,
        }),
        Completion::Unknown => None,
    }
}

pub(super) fn no_second_connection(step: StepRef<'_>) -> ApplyError {
    ApplyError::NoSecondConnection { migration: step.migration.name.clone() }
}
