//! The second connection, which holds the lock while something runs outside any transaction.

use std::time::Duration;

use crate::apply::error::ApplyError;
use crate::apply::load::QUESTION;
use crate::apply::transaction::{
    self, Expected, StepRef, Transaction, TransactionResult, TransactionSpec,
};
use crate::history::progress::{self, Record};
use crate::migrations::steps::Step;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Responses, Session, Stage};
use crate::postgres::wait;
use crate::process::signals::Deadline;

use super::migration::DatabaseState;
use super::retry::{Backoff, broken, is_transient};
use super::standalone::{Ending, Halt, trouble};
use super::{Run, Setback};

/// How long a second connection, or a first one beside it, may take to answer: a pooler with a pool
/// of one would keep us waiting until its own limit.
pub(super) const SECOND: Duration = Duration::from_secs(15);
/// How long what is left to do may take once the statement has ended: a signal may have come, and
/// Docker gives ten seconds for all of it.
pub(super) const LAST: Duration = Duration::from_secs(2);

/// What the second connection commits when it gives the lock back.
struct Marks<'a> {
    finish: TransactionSpec<'a>,
    forget: TransactionSpec<'a>,
}

impl<'a> Marks<'a> {
    /// For this step. Neither job runs anything of the file.
    fn new(work: StepRef<'a>, nothing: &'a Step, finish: String, forget: String) -> Marks<'a> {
        let work = Some(StepRef { step: nothing, ..work });
        let job = |mark| TransactionSpec {
            work,
            marks: vec![mark],
            keeps: true,
            ..TransactionSpec::default()
        };
        Marks { finish: job(finish), forget: job(forget) }
    }
}

impl Run<'_> {
    /// Takes the lock on a second connection, does something meanwhile, and has it written there.
    pub(super) fn with_keeper(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        known_as: &str,
        known: &mut DatabaseState,
        act: impl FnOnce(&mut Self, &Session, &mut DatabaseState) -> Ending,
    ) -> Result<Result<(), Setback>, ApplyError> {
        let settings = self.settings;
        let table = &settings.table;
        let state = known.history.version_after_upgrade(self.set.layout());
        let number = work.reached.step;
        let nothing = Step::record_only(work.script);
        let marks = Marks::new(
            work,
            &nothing,
            progress::finish_begun_sql(table, known_as, number),
            progress::forget_begun_sql(table, known_as, number),
        );
        let keeper = match self.second_connection(session, work)? {
            Ok(keeper) => keeper,
            Err(setback) => return Ok(Err(setback)),
        };
        let held = {
            let ground = known.ground(table, state);
            match self.hold(&keeper, &marks.finish, &ground, work, session)? {
                Ok(held) => held,
                Err(setback) => {
                    keeper.close();
                    return Ok(Err(setback));
                }
            }
        };
        let ending = act(self, &keeper, known);
        // A session that is not used any more needs no reset.
        let goes_on = ending.goes_on() && self.stop.raised().is_none();
        if std::mem::take(&mut self.is_set) && goes_on {
            let deadline = Deadline::after(LAST, self.stop);
            let _ = session.query_row(&transaction::RESET.join("; "), deadline);
        }
        let job = match &ending {
            Ending::Done => Some(&marks.finish),
            Ending::Undone(_) => Some(&marks.forget),
            Ending::Open(_) => None,
        };
        let ground = known.ground(table, state);
        let recording = job.map(|job| (job, Transaction::new(job, &ground, &self.limits(session))));
        let last = || Deadline::ignoring_signals(LAST, self.stop);
        let unrecorded =
            recording.filter(|(_, transaction)| !release(&keeper, transaction, held, last()));
        keeper.close();
        if let Some((job, transaction)) = unrecorded {
            // The keeper is gone, and the lock with it; what we know is not.
            if self.stop.raised().is_some() {
                session.send_batch(&transaction.messages(), false, last(), &mut |_| {});
            } else if let Err(setback) = self.run(session, job, &ground)? {
                return Ok(Err(setback));
            }
        }
        match ending {
            Ending::Done => {
                let hash = work.step.hash.as_str();
                let record = Record::finished(known_as, number, hash);
                known.progress.put(known_as, number, Some(record));
                Ok(Ok(()))
            }
            Ending::Undone(halt) | Ending::Open(halt) => match halt {
                Halt::Setback(setback) => Ok(Err(setback)),
                Halt::Error(error) => Err(error),
            },
        }
    }

    /// Whether the lock is still held: without it, nothing is begun.
    pub(super) fn still_held(&self, keeper: &Session) -> Result<(), Halt> {
        match keeper.query_row("select 1", Deadline::after(QUESTION, self.stop)) {
            Ok(_) => Ok(()),
            Err(QueryError::Stopped(signal)) => Err(Halt::Error(signal.into())),
            Err(_) => Err(Halt::Setback(Setback::HistoryChanged)),
        }
    }

    /// Connects once more. Where there is no room, the way on is to make some.
    fn second_connection(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
    ) -> Result<Result<Session, Setback>, ApplyError> {
        let deadline = Deadline::after(SECOND, self.stop);
        let attempts = match Session::open(&self.settings.target, deadline) {
            Ok(keeper) => return Ok(Ok(keeper)),
            Err(attempts) => attempts,
        };
        if let Some(signal) = self.stop.raised() {
            return Err(signal.into());
        }
        if attempts.iter().any(|attempt| wait::is_full(&attempt.cause)) {
            if self.is_only_one(session) {
                return Err(no_second_connection(work));
            }
            return Ok(Err(Setback::LockedOut(None)));
        }
        let Some(first) = attempts.into_iter().next() else {
            return Err(no_second_connection(work));
        };
        if first.cause == QueryError::Client(ConnectionError::TimedOut) {
            Err(no_second_connection(work))
        } else if wait::is_temporary(&first.cause) {
            Ok(Err(broken(Some(work), 0, trouble(first.cause))))
        } else {
            let second = Attempt { stage: Stage::SecondLogin, ..first };
            Err(ApplyError::Unreachable(vec![second]))
        }
    }

    /// Whether the one connection is all that there can be, so that waiting makes no room.
    fn is_only_one(&self, session: &Session) -> bool {
        const LIMIT: &str = "select from pg_catalog.pg_roles, pg_catalog.pg_database \
             where rolname = session_user and datname = pg_catalog.current_database() \
             and 1 in (rolconnlimit, datconnlimit)";
        let deadline = Deadline::after(QUESTION, self.stop);
        matches!(session.query_row(LIMIT, deadline), Ok(Some(_)))
    }

    /// Takes the lock on the second connection, and keeps it. Gives the server's answer.
    fn hold(
        &mut self,
        keeper: &Session,
        job: &TransactionSpec<'_>,
        ground: &Expected<'_>,
        work: StepRef<'_>,
        session: &Session,
    ) -> Result<Result<Responses, Setback>, ApplyError> {
        let mut retries = Backoff::default();
        loop {
            let transaction = Transaction::new(job, ground, &self.limits(keeper));
            let deadline = Deadline::after(SECOND, self.stop);
            let held = keeper.send_batch(&transaction.hold(), false, deadline, &mut |_| {});
            if held.end == Some(QueryError::Client(ConnectionError::TimedOut)) {
                return Err(no_second_connection(work));
            }
            let failure = match transaction.judge(&held) {
                TransactionResult::Committed(_) => return Ok(Ok(held)),
                TransactionResult::LockedOut => {
                    return Ok(Err(Setback::LockedOut(self.holder(session))));
                }
                TransactionResult::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                TransactionResult::UnsupportedSetting(setting) => {
                    self.unsupported_settings.push(setting);
                    let _ = keeper.query_row("rollback", Deadline::after(QUESTION, self.stop));
                    continue;
                }
                TransactionResult::ConnectionLost { trouble, .. } => {
                    return Ok(Err(broken(Some(work), 0, trouble)));
                }
                TransactionResult::Cancelled { signal, .. } => return Err(signal.into()),
                TransactionResult::PermissionDenied { error, of_progress } => {
                    return Err(self.forbidden(error, of_progress, job, ground, session));
                }
                TransactionResult::Failed(failure) if is_transient(&failure.error) => failure,
                TransactionResult::Failed(failure) => return Err(ApplyError::Failed(failure)),
            };
            let _ = keeper.query_row("rollback", Deadline::after(QUESTION, self.stop));
            let migration = Some(&work.migration.name);
            if !self.pause_for_lock(&mut retries, migration, false, &failure.error, None)? {
                return Err(ApplyError::LockTimeout(failure, None));
            }
        }
    }
}

/// Commits what the second connection has to write, and gives the lock back with it.
fn release(
    keeper: &Session,
    transaction: &Transaction<'_>,
    held: Responses,
    deadline: Deadline<'_>,
) -> bool {
    let end = keeper.send_batch(&transaction.release(), false, deadline, &mut |_| {});
    let mut responses = held.responses;
    responses.extend(end.responses);
    matches!(
        transaction.judge(&Responses { responses, end: end.end }),
        TransactionResult::Committed(_)
    )
}

pub(super) fn no_second_connection(work: StepRef<'_>) -> ApplyError {
    ApplyError::NoSecondConnection { migration: work.migration.name.clone() }
}
