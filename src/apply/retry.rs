//! One transaction, sent again where locks stand in its way.

use std::time::Duration;

use crate::apply::blockers::{Observer, Waiting};
use crate::apply::event::{Again, Blocker, Broken, Event};
use crate::apply::load::QUESTION;
use crate::apply::lock;
use crate::apply::transaction::{Ground, Job, Limits, Transaction, Verdict, Work};
use crate::error::{Error, RolledBack};
use crate::history::progress;
use crate::postgres::server_error::PgError;
use crate::postgres::session::{Session, Trouble};
use crate::process::signals::{Patience, Signal};

use super::{LONGEST_PAUSE, PAUSE, Run, Setback};

/// How often a lock did not come, and how long the next pause is.
pub(super) struct Retries {
    pub(super) attempt: u32,
    pub(super) pause: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries { attempt: 1, pause: PAUSE }
    }
}

pub(super) fn stopped(signal: Signal, work: Option<Work<'_>>, confirmed: bool) -> Error {
    let (migration, alone) = match work {
        Some(work) => (Some(work.migration.name.clone()), work.unit.alone),
        None => (None, None),
    };
    Error::Stopped { signal, rolled_back: Some(RolledBack { migration, confirmed, alone }) }
}

pub(super) fn broken(work: Option<Work<'_>>, completed: usize, trouble: Trouble) -> Setback {
    Setback::Broken(Box::new(Broken {
        migration: work.map(|work| work.migration.name.clone()),
        unit: work.map_or(0, |work| work.reached.unit),
        completed,
        statements: work.map_or(0, |work| work.script.statements().len()),
        trouble,
    }))
}

impl Run<'_> {
    pub(super) fn limits(&self, session: &Session) -> Limits {
        Limits {
            lock_timeout: self.settings.lock_timeout,
            statement_timeout: self.settings.statement_timeout,
            server_version: session.server_version(),
            unsettable: self.unsettable.clone(),
        }
    }

    /// Runs one transaction, again where locks stand in its way. Once it is committed, what the
    /// statement that wrote its last row gave back.
    pub(super) fn run(
        &mut self,
        session: &Session,
        job: &Job<'_>,
        ground: &Ground<'_>,
    ) -> Result<Result<Vec<Option<String>>, Setback>, Error> {
        let migration = job.work.map(|work| work.migration.name.clone());
        let mut retries = Retries::default();
        loop {
            let transaction = Transaction::new(job, ground, &self.limits(session));
            let unit = job.work.map_or(0, |work| work.reached.unit);
            let given_up = self.given_up(migration.as_deref(), unit);
            let target = &self.settings.target;
            let mut observer =
                Observer::new(target, self.stop, migration.as_deref(), Waiting::Answered);
            let tell = &mut *self.tell;
            let mut watch = |answers: &[_]| observer.look(answers, tell);
            let patience = Patience::endless(self.stop);
            let flight = match given_up {
                Some(_) => session.flight(&transaction.probe(), false, patience, &mut watch),
                None => {
                    let messages = transaction.messages();
                    session.flight(&messages, transaction.is_large(), patience, &mut watch)
                }
            };
            let blocker = observer.close();
            let verdict = match (transaction.judge(&flight), given_up) {
                // No backend is at it any more, and the history does not have it.
                (Verdict::Committed(_), Some(broken)) => return Err(Error::Broken(broken)),
                (Verdict::Stopped { signal, .. }, Some(_)) => {
                    return Err(signal.into());
                }
                (verdict, _) => verdict,
            };
            let failure = match verdict {
                Verdict::Committed(answer) => return Ok(Ok(answer)),
                Verdict::Stopped { signal, confirmed } => {
                    return Err(stopped(signal, job.work, confirmed));
                }
                Verdict::Unsettable(setting) => {
                    self.unsettable.push(setting);
                    continue;
                }
                Verdict::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                Verdict::LockedOut => return Ok(Err(Setback::LockedOut(self.holder(session)))),
                Verdict::Broken { completed, trouble } => {
                    return Ok(Err(broken(job.work, completed, trouble)));
                }
                Verdict::Forbidden { error, of_progress } => {
                    return Err(self.forbidden(error, of_progress, job, ground, session));
                }
                Verdict::Failed(failure) if is_transient(&failure.error) => failure,
                Verdict::Failed(failure) => return Err(Error::Failed(failure)),
            };
            let error = failure.error.clone();
            let blocked = blocker.as_ref();
            if !self.pause_for_lock(&mut retries, migration.as_ref(), false, &error, blocked)? {
                return Err(Error::NoLock(failure, blocker));
            }
        }
    }

    pub(super) fn forbidden(
        &self,
        error: PgError,
        of_progress: bool,
        job: &Job<'_>,
        ground: &Ground<'_>,
        session: &Session,
    ) -> Error {
        let (table, role) = (ground.table, &self.settings.target.user);
        let statements = if of_progress {
            progress::grants(table, ground.progress.exists, role)
        } else {
            let locks = job.work.is_some_and(|work| work.unit.modes.isolation.is_some());
            let patience = Patience::lasting(QUESTION, self.stop);
            // Where there is no table yet, there is no answer, and nothing to grant.
            let obstacles = session.ask(&table.obstacles(), patience).ok().flatten();
            let obstacles = obstacles.unwrap_or_default();
            let mut grants = table.grants(ground.history.state, &job.prepare, &obstacles, role);
            grants.extend(locks.then(|| table.locking_grant(role)));
            grants
        };
        Error::Forbidden { error, statements }
    }

    /// Waits for locks to be given back, after one that did not come; or says that this was often
    /// enough.
    pub(super) fn pause_for_lock(
        &mut self,
        retries: &mut Retries,
        migration: Option<&String>,
        alone: bool,
        error: &PgError,
        blocker: Option<&Blocker>,
    ) -> Result<bool, Error> {
        if retries.attempt > self.settings.lock_retries {
            return Ok(false);
        }
        retries.attempt += 1;
        let pause = lock::jittered(retries.pause / 2, retries.pause + retries.pause / 2);
        retries.pause = (retries.pause * 2).min(LONGEST_PAUSE);
        (self.tell)(Event::Retrying {
            migration: migration.cloned(),
            why: Again::Lock { error: error.clone(), blocker: blocker.cloned(), alone },
            pause,
            attempt: retries.attempt,
        });
        self.pause(pause)?;
        Ok(true)
    }
}

/// A lock that did not come in time, a deadlock, a serialization failure: each may be gone later.
pub(super) fn is_transient(error: &PgError) -> bool {
    ["55P03", "40P01", "40001"].contains(&error.code.as_str())
}
