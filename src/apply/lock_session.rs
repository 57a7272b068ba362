//! The second session, which holds the lock while a statement runs outside any transaction.

use std::time::{Duration, Instant};

use crate::cli::config::Options;
use crate::history::progress::ProgressChange;
use crate::postgres::session::{
    Attempt, ConnectionError, Message, QueryError, Responses, Session, Stage,
};
use crate::postgres::wait;
use crate::process::signals::{Deadline, StopFlag};
use crate::sql::quote::EQ;

use super::error::ApplyError;
use super::event::Event;
use super::interrupt::{Interrupt, Setback, as_connection_error, connection_lost, query_failed};
use super::retry::{Backoff, Reply, conflict};
use super::state::DatabaseState;
use super::transaction::{self, StepRef, Transaction, TransactionResult, TransactionSpec};
use super::{QUERY_TIMEOUT, RETRY_PAUSE, Runner};

/// How long the second session, or the first one beside it, may take to answer. A pooler with a pool
/// of one would keep us waiting until its own limit.
pub(super) const SECOND_SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the cleanup may take once the statement has ended: a signal may have come, and Docker
/// gives ten seconds for all of it.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the second session is used. Poolers and proxies end one that is idle for long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to connect and to take the lock again.
const RETAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the backend of a connection that was lost may go on to hold the lock: until the server's
/// keepalives find it out. What became of a statement is then known to nobody else.
const LOST_BACKEND_TIMEOUT: Duration = Duration::from_secs(45);
/// How long that is waited for without a word.
const SILENT_WAIT: Duration = Duration::from_secs(3);
/// A live runner that lost the lock tries to take it again within this time; after that, it counts as
/// gone.
pub(super) const RUNNER_TIMEOUT: Duration = Duration::from_secs(15);
/// An empty query, as drivers send to look after a connection. Any other might take a snapshot, for
/// which a `CREATE INDEX CONCURRENTLY` would wait until the end of the transaction.
const KEEPALIVE: &str = "-- premigrate holds its lock";

/// The second session, and with it the lock.
pub(super) struct HeldLock<'a> {
    options: &'a Options,
    stop: &'a StopFlag,
    migration: String,
    /// Takes the lock again.
    retake: String,
    /// `None` where it was lost, and with it the lock.
    session: Option<Session>,
    /// The server's responses when the lock was taken.
    taken: Responses,
    used: Instant,
}

impl HeldLock<'_> {
    /// Uses the session from time to time. Where it was lost, takes the lock again, if no other
    /// runner has it.
    pub(super) fn keep(&mut self, emit: &mut dyn FnMut(Event)) {
        if self.session.is_some() && self.used.elapsed() < KEEPALIVE_INTERVAL {
            return;
        }
        self.used = Instant::now();
        if self.is_alive() || self.stop.raised().is_some() {
            return;
        }
        if self.session.take().is_some() {
            emit(Event::LockLost { migration: self.migration.clone() });
        }
        self.take_again();
    }

    /// Whether the lock is held, as far as we know.
    fn is_alive(&self) -> bool {
        let deadline = Deadline::after(KEEPALIVE_TIMEOUT, self.stop);
        let query = |session: &Session| session.query_row_nowait(KEEPALIVE, deadline);
        self.session.as_ref().and_then(query).is_some()
    }

    fn take_again(&mut self) {
        let deadline = Deadline::after(RETAKE_TIMEOUT, self.stop);
        let Ok(session) = Session::open(&self.options.current_target(), deadline) else { return };
        let retake = Message::from(self.retake.as_str());
        let taken = session.send_batch(&[retake], false, deadline, &mut |_| {});
        if taken.end.is_none() && taken.responses.iter().all(|response| response.error.is_none()) {
            (self.session, self.taken) = (Some(session), taken);
        }
    }
}

/// What is known of a statement that was to run outside a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    Done,
    /// It did nothing, as far as the server and the catalogs say.
    NotDone,
    /// The next run has to find out.
    Unknown,
}

impl<'a> Runner<'a> {
    /// Holds the lock on a second session while `act` runs, and records there what `act` says of the
    /// step's statement.
    pub(super) fn with_lock_session(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
        act: impl FnOnce(&mut Self, &mut DatabaseState) -> (Completion, Result<(), Interrupt>),
    ) -> Result<Completion, Interrupt> {
        let lock_session = self.open_lock_session(session, step, state)?;
        self.held_lock = Some(self.acquire(lock_session, session, step, state)?);
        let (completion, result) = act(self, state);
        let held = self.held_lock.take();
        let reset = self.reset_settings(session, step, completion);
        let spec = TransactionSpec {
            step: Some(step),
            progress: recorded(step, completion),
            holds_lock: true,
            ..TransactionSpec::default()
        };
        let recorded = match spec.progress.is_some() {
            true => self.commit_and_release(held, session, reset, &spec, state),
            false => reset,
        };
        // The statement's own error comes first.
        result?;
        recorded?;
        Ok(completion)
    }

    /// Commits what the lock session has to record, and gives the lock back with it. Where the lock
    /// session was lost, the result is recorded on the main session, if that was reset.
    fn commit_and_release(
        &mut self,
        held: Option<HeldLock<'_>>,
        session: &Session,
        reset: Result<(), Interrupt>,
        spec: &TransactionSpec<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let transaction = Transaction::new(spec, &self.expected(state), &self.timeouts(session));
        if let Some(HeldLock { session: Some(lock_session), taken, .. }) = held {
            let cleanup = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
            let end = lock_session.send_batch(&transaction.release(), false, cleanup, &mut |_| {});
            drop(lock_session);
            let mut responses = taken.responses;
            responses.extend(end.responses);
            let result = transaction.result(&Responses { responses, end: end.end });
            if matches!(result, TransactionResult::Committed(_)) {
                state.committed(spec, self.set.layout(), &[])?;
                return reset;
            }
        }
        reset?;
        if self.stop.raised().is_some() {
            let cleanup = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
            session.send_batch(&transaction.messages(), false, cleanup, &mut |_| {});
            return Ok(());
        }
        let began = Instant::now();
        let mut is_reported = false;
        loop {
            let result = self.commit(session, spec, state);
            let left = LOST_BACKEND_TIMEOUT.saturating_sub(began.elapsed());
            let is_locked_out = matches!(result, Err(Interrupt::StartOver(Setback::LockedOut(_))));
            if !is_locked_out || left.is_zero() {
                return result;
            }
            if !is_reported && began.elapsed() >= SILENT_WAIT {
                is_reported = true;
                let migration = spec.step.map(|step| step.migration.name.clone());
                (self.emit)(Event::LockLeft { migration: migration.unwrap_or_default(), left });
            }
            self.pause(RETRY_PAUSE)?;
        }
    }

    /// Sets the main session's settings back. Where that fails, the session ends: what comes next
    /// would run under the role or the search path of the statement. After an unknown end, the session
    /// is not used any more.
    fn reset_settings(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        completion: Completion,
    ) -> Result<(), Interrupt> {
        if !std::mem::take(&mut self.settings_left) || completion == Completion::Unknown {
            return Ok(());
        }
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        match session.query_row(&transaction::RESET.join("; "), deadline) {
            Ok(_) => Ok(()),
            Err(error) => Err(connection_lost(Some(step), None, as_connection_error(error)).into()),
        }
    }

    /// Makes sure that the lock is still held: without it, nothing is begun.
    pub(super) fn check_lock_held(&self, step: StepRef<'_>) -> Result<(), Interrupt> {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        let lock_session = self.held_lock.as_ref().and_then(|held| held.session.as_ref());
        match lock_session.map(|session| session.query_row(KEEPALIVE, deadline)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(QueryError::Stopped(signal))) => Err(signal.into()),
            Some(Err(error)) => {
                Err(connection_lost(Some(step), None, as_connection_error(error)).into())
            }
            None => {
                let lost = "the connection that holds the lock was lost".to_owned();
                Err(connection_lost(Some(step), None, ConnectionError::Lost(lost, None)).into())
            }
        }
    }

    /// Opens the second session while the first one holds the lock. So only one runner at a time waits
    /// for a second connection, and those that are locked out give back their first, which may be the
    /// last of a pool.
    fn open_lock_session(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &DatabaseState,
    ) -> Result<Session, Interrupt> {
        self.hold(session, session, Some(step), state)?;
        let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
        let opened =
            Session::open(&self.options.current_target(), deadline).and_then(|lock_session| {
                match lock_session.query_row("select 1", deadline) {
                    Ok(_) => Ok(lock_session),
                    Err(cause) => Err(vec![Attempt::at_query(cause)]),
                }
            });
        let lock_session = opened.map_err(|attempts| self.not_opened(session, step, attempts))?;
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        let released = session.query_row("rollback", deadline);
        released.map_err(|error| query_failed(step, error))?;
        Ok(lock_session)
    }

    /// What it means that the second session could not be opened.
    fn not_opened(
        &self,
        session: &Session,
        step: StepRef<'_>,
        attempts: Vec<Attempt>,
    ) -> Interrupt {
        if let Some(signal) = self.stop.raised() {
            return signal.into();
        }
        let full = attempts.iter().find(|attempt| wait::is_full(&attempt.cause));
        let Some(first) = full.or(attempts.first()).cloned() else {
            return no_second_connection(step, QueryError::Client(ConnectionError::TimedOut))
                .into();
        };
        let second = Attempt { stage: Stage::SecondLogin, ..first };
        if full.is_none() && !is_timeout(&second.cause) {
            return match wait::is_temporary(&second.cause) {
                true => connection_lost(Some(step), None, as_connection_error(second.cause)).into(),
                false => ApplyError::Unreachable { attempts: vec![second] }.into(),
            };
        }
        let migration = step.migration.name.clone();
        // PostgreSQL says itself that it is full; a pooler lets us wait, or has words of its own.
        let is_of_server = matches!(&second.cause, QueryError::Server(error) if error.is("53300"));
        match self.is_limited_to_one(session, !is_of_server) {
            true => ApplyError::NoSecondConnection { migration }.into(),
            false => Setback::NoSecondConnection { migration, second }.into(),
        }
    }

    /// Whether the role or the database is limited to one connection, or the pool, so that waiting is
    /// useless. A pool of more connections opens another one, unless others use them.
    fn is_limited_to_one(&self, session: &Session, may_be_pool: bool) -> bool {
        let alone = format!(
            "or not exists (select from pg_catalog.pg_stat_activity \
             where usename {EQ} rolname and pg_stat_activity.datname {EQ} pg_database.datname \
             and not pid {EQ} pg_catalog.pg_backend_pid())"
        );
        let query = format!(
            "select from pg_catalog.pg_roles, pg_catalog.pg_database \
             where rolname {EQ} session_user and datname {EQ} pg_catalog.current_database() \
             and (rolconnlimit {EQ} 1 or datconnlimit {EQ} 1 {})",
            if may_be_pool { &alone } else { "" }
        );
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        matches!(session.query_row(&query, deadline), Ok(Some(_)))
    }

    /// Takes the lock on the second session.
    fn acquire(
        &mut self,
        lock_session: Session,
        session: &Session,
        step: StepRef<'_>,
        state: &DatabaseState,
    ) -> Result<HeldLock<'a>, Interrupt> {
        let taken = self.hold(&lock_session, session, Some(step), state)?;
        Ok(HeldLock {
            options: self.options,
            stop: self.stop,
            migration: step.migration.name.clone(),
            retake: transaction::retake_lock_sql(&self.timeouts(&lock_session)),
            session: Some(lock_session),
            taken,
            used: Instant::now(),
        })
    }

    /// Takes the lock on one of the sessions, in a transaction that stays open. Returns the server's
    /// responses.
    pub(super) fn hold(
        &mut self,
        holding: &Session,
        session: &Session,
        step: Option<StepRef<'_>>,
        state: &DatabaseState,
    ) -> Result<Responses, Interrupt> {
        let spec = TransactionSpec { step, holds_lock: true, ..TransactionSpec::default() };
        let mut backoff = Backoff::default();
        loop {
            let transaction =
                Transaction::new(&spec, &self.expected(state), &self.timeouts(holding));
            let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
            let held = holding.send_batch(&transaction.hold(), false, deadline, &mut |_| {});
            if let Some(end) = held.end.clone().filter(is_timeout) {
                return Err(match step {
                    Some(step) => no_second_connection(step, end),
                    None => Setback::PoolerFull(Attempt::at_query(end)),
                }
                .into());
            }
            let result = match transaction.result(&held) {
                // Nothing of the step was running.
                TransactionResult::Cancelled { signal, .. } => return Err(signal.into()),
                TransactionResult::ConnectionLost { error, .. } => {
                    return Err(connection_lost(step, None, error).into());
                }
                result => result,
            };
            if !matches!(result, TransactionResult::Committed(_)) {
                let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
                let _ = holding.query_row("rollback", deadline);
            }
            let failure = match self.reply(result, session, &spec, state)? {
                Reply::Committed(_) => return Ok(held),
                Reply::PartRefused => continue,
                Reply::Blocked { failure, .. } => failure,
            };
            let reason = conflict(&failure.error, None, false);
            let migration = step.map(|step| step.migration.name.as_str());
            if !self.pause_for_lock(&mut backoff, migration, reason)? {
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

/// One of the two sessions got no answer: a pooler has no connection to the server for it.
pub(super) fn no_second_connection(step: StepRef<'_>, cause: QueryError) -> Setback {
    let second = Attempt { stage: Stage::SecondLogin, ..Attempt::at_query(cause) };
    Setback::NoSecondConnection { migration: step.migration.name.clone(), second }
}
