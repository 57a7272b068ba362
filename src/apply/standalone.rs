//! A statement that PostgreSQL runs only outside a transaction, and that nothing rolls back.
//!
//! A second connection, idle in a transaction, holds the lock for it. That it begins is written
//! before; so whoever comes after a crash knows, ends what may still run, and settles what became of
//! it before anything else.

use std::time::{Duration, Instant};

use crate::apply::blockers::{Observer, Waiting};
use crate::apply::catalog_state::{self, CatalogState, Inspection};
use crate::apply::error::ApplyError;
use crate::apply::event::{Blocker, Event};
use crate::apply::failure::Failure;
use crate::apply::load::QUESTION;
use crate::apply::transaction::{self, StepRef};
use crate::history::progress::{self, Record};
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{ConnectionError, QueryError, Response, Responses, Session};
use crate::process::signals::{Deadline, Signal};
use crate::sql::{Script, Statement};

use super::lock_session::{LAST, SECOND, no_second_connection};
use super::migration::DatabaseState;
use super::recovery::ORPHAN;
use super::retry::{Backoff, broken, is_transient, stopped};
use super::{Run, Setback};

/// How a statement that was to run alone ended.
pub(super) enum Ending {
    /// It is done.
    Done,
    /// It did nothing, for all that the server and the catalogs say.
    Undone(Halt),
    /// The next start has to look.
    Open(Halt),
}

impl Ending {
    /// Whether the session is used on.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Ending::Done | Ending::Undone(Halt::Setback(Setback::Settled)))
    }
}

/// What ends the round, or the run.
pub(super) enum Halt {
    Setback(Setback),
    Error(ApplyError),
}

impl Run<'_> {
    /// Runs a step that stands alone, with the lock held by a second connection.
    pub(super) fn apply_lone(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        known_as: &str,
        known: &mut DatabaseState,
    ) -> Result<Result<(), Setback>, ApplyError> {
        if let Err(setback) = self.make_tables(session, work, true, known)? {
            return Ok(Err(setback));
        }
        self.with_keeper(session, work, known_as, known, |run, keeper, known| {
            run.under_lock(session, keeper, work, known_as, known)
        })
    }

    /// Everything that is done for a statement while the lock is held elsewhere.
    fn under_lock(
        &mut self,
        session: &Session,
        keeper: &Session,
        work: StepRef<'_>,
        known_as: &str,
        known: &mut DatabaseState,
    ) -> Ending {
        let Some(statement) = work.step.lone(work.script) else { return Ending::Done };
        if let Some(broken) = self.given_up(Some(&work.migration.name), Some(work.reached.step)) {
            return Ending::Undone(Halt::Error(ApplyError::ConnectionLost(broken)));
        }
        let begun = self.prepare(session, work).and_then(|()| {
            let identifying_sql = self.clear_the_way(session, work, statement)?;
            self.begin(session, work, known_as, identifying_sql.as_deref(), known)
        });
        if let Err(halt) = begun {
            return Ending::Undone(halt);
        }
        self.execute(session, keeper, work, statement)
    }

    /// An index of this name that nobody builds any more would be passed over by IF NOT EXISTS, and
    /// be in the way of a build without. Gives what is to be written of a statement that begins.
    fn clear_the_way(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        statement: &Statement<'_>,
    ) -> Result<Option<String>, Halt> {
        let seen = self.look(session, work, statement.text)?;
        match seen.state {
            CatalogState::InvalidIndex(index) => self.drop_invalid(session, work, &index)?,
            CatalogState::BeingBuilt(index) => return Err(Halt::Error(busy(work, index))),
            CatalogState::Done
            | CatalogState::NotDone
            | CatalogState::HalfDone(_)
            | CatalogState::Unknown => {}
        }
        Ok(seen.identifying_sql)
    }

    pub(super) fn drop_invalid(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        index: &str,
    ) -> Result<(), Halt> {
        let migration = work.migration.name.clone();
        (self.emit)(Event::Rebuilding { migration, index: index.to_owned() });
        self.mend(session, work, &format!("drop index concurrently if exists {index}"))
    }

    /// Runs a statement of ours about what an earlier one has left.
    pub(super) fn mend(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        sql: &str,
    ) -> Result<(), Halt> {
        let failure = |error: &ServerError, _| transaction::mending_failure(work, error);
        match self.send_again(session, work, sql, failure, true, |_| Ok(())) {
            Sent::Done => Ok(()),
            Sent::Cancelled(signal) => Err(Halt::Error(signal.into())),
            Sent::Failed(error) => Err(Halt::Error(error)),
            Sent::Open(halt) | Sent::Unsent(halt) => Err(halt),
        }
    }

    /// What became of a statement, as far as the catalogs tell.
    pub(super) fn look(
        &self,
        session: &Session,
        work: StepRef<'_>,
        text: &str,
    ) -> Result<Inspection, Halt> {
        let until = Instant::now() + ORPHAN;
        loop {
            let seen = self.look_now(session, text, Deadline::after(QUESTION, self.stop));
            match seen.map_err(|cause| unasked(work, cause))? {
                // It may be done any moment.
                Inspection { state: CatalogState::BeingBuilt(_), .. } if Instant::now() < until => {
                    let deadline = Deadline::never(self.stop);
                    if deadline.sleep(Duration::from_millis(500)).is_err()
                        && let Some(signal) = self.stop.raised()
                    {
                        return Err(Halt::Error(signal.into()));
                    }
                }
                seen => return Ok(seen),
            }
        }
    }

    fn look_now(
        &self,
        session: &Session,
        text: &str,
        deadline: Deadline<'_>,
    ) -> Result<Inspection, QueryError> {
        let identifying_sql = Some(text.to_owned());
        let script = Script::read(text);
        let Some(statement) = script.statements().first() else {
            return Ok(Inspection { state: CatalogState::Unknown, identifying_sql });
        };
        match catalog_state::question_sql(statement) {
            Ok(question_sql) => Ok(catalog_state::read(
                statement,
                session.query_row(&question_sql, deadline)?.as_deref(),
            )),
            Err(state) => Ok(Inspection { state, identifying_sql }),
        }
    }

    /// Writes that the statement begins.
    fn begin(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        known_as: &str,
        identifying_sql: Option<&str>,
        known: &mut DatabaseState,
    ) -> Result<(), Halt> {
        let table = &self.settings.table;
        let (number, hash) = (work.reached.step, work.step.hash.as_str());
        let pid = session.handshake_pid();
        // Under a role of the file's, the table may be out of reach.
        let write = format!(
            "begin isolation level read committed read write;\n\
             set local session authorization default;\nset local role none;\n{}",
            progress::begin_sql(table, known_as, number, hash, identifying_sql, pid)
        );
        let deadline = Deadline::after(SECOND, self.stop);
        let Responses { responses, end } =
            session.send_batch(&[&write, "commit"], false, deadline, &mut |_| {});
        match end {
            None => {}
            Some(QueryError::Client(ConnectionError::TimedOut)) => {
                return Err(Halt::Error(no_second_connection(work)));
            }
            Some(cause) => return Err(unasked(work, cause)),
        }
        match responses.iter().find_map(|answer| answer.error.as_ref()) {
            None => {}
            Some(error) if error.is("23505") || error.is("42P01") => {
                return Err(Halt::Setback(Setback::HistoryChanged));
            }
            Some(error) if error.is("42501") => {
                let statements = progress::grants(table, true, &self.settings.target.user);
                return Err(Halt::Error(ApplyError::PermissionDenied {
                    error: error.clone(),
                    statements,
                }));
            }
            Some(error) => return Err(unasked(work, QueryError::Server(error.clone()))),
        }
        let statement = identifying_sql.map(str::to_owned);
        let begun =
            Record { finished: false, statement, ..Record::finished(known_as, number, hash) };
        known.progress.put(known_as, number, Some(begun));
        Ok(())
    }

    /// Runs the statement.
    fn execute(
        &mut self,
        session: &Session,
        keeper: &Session,
        work: StepRef<'_>,
        statement: &Statement<'_>,
    ) -> Ending {
        if let Err(halt) = self.still_held(keeper) {
            return Ending::Undone(halt);
        }
        let failure = |error: &ServerError, ours| transaction::lone_failure(work, error, ours);
        let repeats = !catalog_state::may_do_half(statement);
        let before_again = |run: &mut Self| {
            run.clear_the_way(session, work, statement).map_err(Sent::Open)?;
            run.still_held(keeper).map_err(Sent::Unsent)
        };
        let sent = self.send_again(session, work, statement.text, failure, repeats, before_again);
        if matches!(sent, Sent::Done | Sent::Cancelled(_) | Sent::Failed(_)) {
            self.tell_left_indexes(session, statement);
        }
        match sent {
            Sent::Done => Ending::Done,
            Sent::Cancelled(signal) => {
                self.failed(session, statement, stopped(signal, Some(work), true))
            }
            Sent::Failed(error) => self.failed(session, statement, error),
            Sent::Open(halt) => Ending::Open(halt),
            Sent::Unsent(halt) => Ending::Undone(halt),
        }
    }

    /// Names the indexes that a statement has left, now or at an earlier start, which are in nobody's
    /// way but cost time; a courtesy.
    fn tell_left_indexes(&mut self, session: &Session, statement: &Statement<'_>) {
        let Some(question_sql) = catalog_state::leftover_indexes_sql(statement) else { return };
        let deadline = Deadline::ignoring_signals(LAST, self.stop);
        let left = session.query_row(&question_sql, deadline).ok().flatten();
        if let Some(sql) = left.and_then(|row| row.into_iter().next().flatten()) {
            (self.emit)(Event::InvalidIndexes { sql });
        }
    }

    /// The server says that the statement has failed.
    fn failed(&self, session: &Session, statement: &Statement<'_>, error: ApplyError) -> Ending {
        let refused = matches!(&error, ApplyError::Failed(it) if it.error.is_before_running());
        match refused || self.leaves_nothing(session, statement) {
            true => Ending::Undone(Halt::Error(error)),
            false => Ending::Open(Halt::Error(error)),
        }
    }

    /// Whether a statement that the server says has failed has left nothing behind.
    fn leaves_nothing(&self, session: &Session, statement: &Statement<'_>) -> bool {
        let deadline = Deadline::ignoring_signals(LAST, self.stop);
        match self.look_now(session, statement.text, deadline).map(|seen| seen.state) {
            // What is there was there before.
            Ok(CatalogState::NotDone | CatalogState::Done) => true,
            Ok(CatalogState::Unknown) => !catalog_state::may_do_half(statement),
            Ok(
                CatalogState::InvalidIndex(_)
                | CatalogState::BeingBuilt(_)
                | CatalogState::HalfDone(_),
            )
            | Err(_) => false,
        }
    }

    /// Sends a statement, and where a lock does not come to it, again, if it `repeats`: what may
    /// have done half of its work is not done again. A failure is told how many characters of ours
    /// stood before the statement.
    fn send_again(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        text: &str,
        failure: impl Fn(&ServerError, usize) -> Failure,
        repeats: bool,
        mut before_again: impl FnMut(&mut Self) -> Result<(), Sent>,
    ) -> Sent {
        let tag = tag(work.step.hash.as_str());
        let sql = format!("{tag}{text}");
        let mut retries = Backoff::default();
        loop {
            let (error, blocker) = match self.send(session, work, &sql, &tag) {
                Ok(None) => return Sent::Done,
                Ok(Some(failed)) => failed,
                Err(halt) => return Sent::Open(halt),
            };
            if let Some(signal) = self.stop.raised().filter(|_| error.is("57014")) {
                return Sent::Cancelled(signal);
            }
            let failure = || Box::new(failure(&error, tag.chars().count()));
            if !is_transient(&error) || !repeats {
                return Sent::Failed(ApplyError::Failed(failure()));
            }
            let migration = Some(&work.migration.name);
            match self.pause_for_lock(&mut retries, migration, true, &error, blocker.as_ref()) {
                Ok(true) => {}
                Ok(false) => {
                    return Sent::Failed(ApplyError::LockTimeout { failure: failure(), blocker });
                }
                Err(error) => return Sent::Failed(error),
            }
            if let Err(sent) = before_again(self) {
                return sent;
            }
        }
    }

    /// Sends a statement once. It is done; or the server says that it failed; or nothing.
    fn send(
        &mut self,
        session: &Session,
        work: StepRef<'_>,
        sql: &str,
        tag: &str,
    ) -> Result<Option<(ServerError, Option<Blocker>)>, Halt> {
        let migration = &work.migration.name;
        let target = &self.settings.target;
        let waiting = Waiting::Running(tag);
        let mut observer = Observer::new(target, self.stop, Some(migration), waiting);
        let emit = &mut *self.emit;
        let deadline = Deadline::never(self.stop);
        let mut watch = |responses: &[Response]| observer.look(responses, emit);
        let Responses { responses, end } = session.send_batch(&[sql], false, deadline, &mut watch);
        let blocker = observer.close();
        let completed = responses.iter().any(|answer| answer.completed > 0);
        match (responses.into_iter().find_map(|answer| answer.error), end) {
            (Some(error), _) if !error.ends_session() => Ok(Some((error, blocker))),
            (None, None) => Ok(None),
            // The signal came too late for it.
            (None, Some(QueryError::Stopped(_))) if completed => Ok(None),
            (_, Some(QueryError::Stopped(signal))) => {
                Err(Halt::Error(stopped(signal, Some(work), false)))
            }
            (Some(error), _) => Err(unasked(work, QueryError::Server(error))),
            (None, Some(cause)) => Err(unasked(work, cause)),
        }
    }
}

/// What came of a statement that was sent, perhaps several times.
enum Sent {
    /// The server says that it is done.
    Done,
    /// The server says that it was cancelled, as this signal had us ask.
    Cancelled(Signal),
    /// The server says that it failed.
    Failed(ApplyError),
    /// Nobody says what became of it.
    Open(Halt),
    /// It was not sent again, though it might have been.
    Unsent(Halt),
}

/// Stands before a statement of ours, so that whoever comes after finds it in `pg_stat_activity`,
/// whichever backend a pooler gave it to.
pub(super) fn tag(hash: &str) -> String {
    format!("/* premigrate {} */ ", hash.get(..16).unwrap_or(hash))
}

pub(super) fn busy(work: StepRef<'_>, index: String) -> ApplyError {
    ApplyError::IndexBeingBuilt { migration: work.migration.name.clone(), index }
}

pub(super) fn trouble(cause: QueryError) -> ConnectionError {
    match cause {
        QueryError::Client(trouble) => trouble,
        QueryError::Server(error) => ConnectionError::Lost(error.message.clone(), Some(error)),
        QueryError::Stopped(signal) => ConnectionError::Lost(signal.name().to_owned(), None),
    }
}

/// What a question of ours without an answer means.
pub(super) fn unasked(work: StepRef<'_>, cause: QueryError) -> Halt {
    match cause {
        QueryError::Stopped(signal) => Halt::Error(signal.into()),
        QueryError::Server(error) if !error.ends_session() => {
            Halt::Error(ApplyError::Failed(Box::new(transaction::record_failure(work, &error))))
        }
        cause => Halt::Setback(broken(Some(work), 0, trouble(cause))),
    }
}
