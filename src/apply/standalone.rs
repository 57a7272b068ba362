//! A statement that PostgreSQL runs only outside a transaction, and that nothing rolls back.
//!
//! A second connection, idle in a transaction, holds the lock for it. That it begins is written
//! before; so whoever comes after a crash knows, ends what may still run, and settles what became of
//! it before anything else.

use std::time::{Duration, Instant};

use crate::apply::blockers::{Observer, Waiting};
use crate::apply::catalog_state::{self, Fate, Seen};
use crate::apply::event::{Blocker, Event, Failure};
use crate::apply::load::QUESTION;
use crate::apply::transaction::{self, Work};
use crate::error::Error;
use crate::history::progress::{self, Record};
use crate::postgres::server_error::PgError;
use crate::postgres::session::{Answer, Cause, Flight, Session, Trouble};
use crate::process::signals::{Patience, Signal};
use crate::sql::{Script, Statement};

use super::lock_session::{LAST, SECOND, no_second_connection};
use super::migration::Known;
use super::recovery::ORPHAN;
use super::retry::{Retries, broken, is_transient, stopped};
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
    Error(Error),
}

impl Run<'_> {
    /// Runs a unit that stands alone, with the lock held by a second connection.
    pub(super) fn apply_lone(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        known: &mut Known,
    ) -> Result<Result<(), Setback>, Error> {
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
        work: Work<'_>,
        known_as: &str,
        known: &mut Known,
    ) -> Ending {
        let Some(statement) = work.unit.lone(work.script) else { return Ending::Done };
        if let Some(broken) = self.given_up(Some(&work.migration.name), work.reached.unit) {
            return Ending::Undone(Halt::Error(Error::Broken(broken)));
        }
        let begun = self.prepare(session, work).and_then(|()| {
            let words = self.clear_the_way(session, work, statement)?;
            self.begin(session, work, known_as, words.as_deref(), known)
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
        work: Work<'_>,
        statement: &Statement<'_>,
    ) -> Result<Option<String>, Halt> {
        let seen = self.look(session, work, statement.text)?;
        match seen.fate {
            Fate::Invalid(index) => self.drop_invalid(session, work, &index)?,
            Fate::Busy(index) => return Err(Halt::Error(busy(work, index))),
            Fate::Done | Fate::Undone | Fate::Half(_) | Fate::Unknown => {}
        }
        Ok(seen.words)
    }

    pub(super) fn drop_invalid(
        &mut self,
        session: &Session,
        work: Work<'_>,
        index: &str,
    ) -> Result<(), Halt> {
        let migration = work.migration.name.clone();
        (self.tell)(Event::Rebuilding { migration, index: index.to_owned() });
        self.mend(session, work, &format!("drop index concurrently if exists {index}"))
    }

    /// Runs a statement of ours about what an earlier one has left.
    pub(super) fn mend(
        &mut self,
        session: &Session,
        work: Work<'_>,
        sql: &str,
    ) -> Result<(), Halt> {
        let failure = |error: &PgError, _| transaction::mending_failure(work, error);
        match self.send_again(session, work, sql, failure, true, |_| Ok(())) {
            Sent::Done => Ok(()),
            Sent::Cancelled(signal) => Err(Halt::Error(signal.into())),
            Sent::Failed(error) => Err(Halt::Error(error)),
            Sent::Open(halt) | Sent::Unsent(halt) => Err(halt),
        }
    }

    /// What became of a statement, as far as the catalogs tell.
    pub(super) fn look(&self, session: &Session, work: Work<'_>, text: &str) -> Result<Seen, Halt> {
        let until = Instant::now() + ORPHAN;
        loop {
            let seen = self.look_now(session, text, Patience::lasting(QUESTION, self.stop));
            match seen.map_err(|cause| unasked(work, cause))? {
                // It may be done any moment.
                Seen { fate: Fate::Busy(_), .. } if Instant::now() < until => {
                    let patience = Patience::endless(self.stop);
                    if patience.sleep(Duration::from_millis(500)).is_err()
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
        patience: Patience<'_>,
    ) -> Result<Seen, Cause> {
        let words = Some(text.to_owned());
        let script = Script::read(text);
        let Some(statement) = script.statements().first() else {
            return Ok(Seen { fate: Fate::Unknown, words });
        };
        match catalog_state::question(statement) {
            Ok(question) => {
                Ok(catalog_state::read(statement, session.ask(&question, patience)?.as_deref()))
            }
            Err(fate) => Ok(Seen { fate, words }),
        }
    }

    /// Writes that the statement begins.
    fn begin(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        words: Option<&str>,
        known: &mut Known,
    ) -> Result<(), Halt> {
        let table = &self.settings.table;
        let (number, hash) = (work.reached.unit, work.unit.hash.as_str());
        let pid = session.handshake_pid();
        // Under a role of the file's, the table may be out of reach.
        let write = format!(
            "begin isolation level read committed read write;\n\
             set local session authorization default;\nset local role none;\n{}",
            progress::begin(table, known_as, number, hash, words, pid)
        );
        let patience = Patience::lasting(SECOND, self.stop);
        let Flight { answers, end } =
            session.flight(&[&write, "commit"], false, patience, &mut |_| {});
        match end {
            None => {}
            Some(Cause::Client(Trouble::Silent)) => {
                return Err(Halt::Error(no_second_connection(work)));
            }
            Some(cause) => return Err(unasked(work, cause)),
        }
        match answers.iter().find_map(|answer| answer.error.as_ref()) {
            None => {}
            Some(error) if error.is("23505") || error.is("42P01") => {
                return Err(Halt::Setback(Setback::HistoryChanged));
            }
            Some(error) if error.is("42501") => {
                let statements = progress::grants(table, true, &self.settings.target.user);
                return Err(Halt::Error(Error::Forbidden { error: error.clone(), statements }));
            }
            Some(error) => return Err(unasked(work, Cause::Server(error.clone()))),
        }
        let statement = words.map(str::to_owned);
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
        work: Work<'_>,
        statement: &Statement<'_>,
    ) -> Ending {
        if let Err(halt) = self.still_held(keeper) {
            return Ending::Undone(halt);
        }
        let failure = |error: &PgError, ours| transaction::lone_failure(work, error, ours);
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
        let Some(question) = catalog_state::left_indexes(statement) else { return };
        let patience = Patience::despite_signals(LAST, self.stop);
        let left = session.ask(&question, patience).ok().flatten();
        if let Some(drop) = left.and_then(|row| row.into_iter().next().flatten()) {
            (self.tell)(Event::Note(format!(
                "INVALID indexes are left of what did not end; to drop them: {drop}"
            )));
        }
    }

    /// The server says that the statement has failed.
    fn failed(&self, session: &Session, statement: &Statement<'_>, error: Error) -> Ending {
        let refused = matches!(&error, Error::Failed(it) if it.error.is_before_running());
        match refused || self.leaves_nothing(session, statement) {
            true => Ending::Undone(Halt::Error(error)),
            false => Ending::Open(Halt::Error(error)),
        }
    }

    /// Whether a statement that the server says has failed has left nothing behind.
    fn leaves_nothing(&self, session: &Session, statement: &Statement<'_>) -> bool {
        let patience = Patience::despite_signals(LAST, self.stop);
        match self.look_now(session, statement.text, patience).map(|seen| seen.fate) {
            // What is there was there before.
            Ok(Fate::Undone | Fate::Done) => true,
            Ok(Fate::Unknown) => !catalog_state::may_do_half(statement),
            Ok(Fate::Invalid(_) | Fate::Busy(_) | Fate::Half(_)) | Err(_) => false,
        }
    }

    /// Sends a statement, and where a lock does not come to it, again, if it `repeats`: what may
    /// have done half of its work is not done again. A failure is told how many characters of ours
    /// stood before the statement.
    fn send_again(
        &mut self,
        session: &Session,
        work: Work<'_>,
        text: &str,
        failure: impl Fn(&PgError, usize) -> Failure,
        repeats: bool,
        mut before_again: impl FnMut(&mut Self) -> Result<(), Sent>,
    ) -> Sent {
        let tag = tag(work.unit.hash.as_str());
        let sql = format!("{tag}{text}");
        let mut retries = Retries::default();
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
                return Sent::Failed(Error::Failed(failure()));
            }
            let migration = Some(&work.migration.name);
            match self.pause_for_lock(&mut retries, migration, true, &error, blocker.as_ref()) {
                Ok(true) => {}
                Ok(false) => return Sent::Failed(Error::NoLock(failure(), blocker)),
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
        work: Work<'_>,
        sql: &str,
        tag: &str,
    ) -> Result<Option<(PgError, Option<Blocker>)>, Halt> {
        let migration = &work.migration.name;
        let target = &self.settings.target;
        let waiting = Waiting::Running(tag);
        let mut observer = Observer::new(target, self.stop, Some(migration), waiting);
        let tell = &mut *self.tell;
        let patience = Patience::endless(self.stop);
        let mut watch = |answers: &[Answer]| observer.look(answers, tell);
        let Flight { answers, end } = session.flight(&[sql], false, patience, &mut watch);
        let blocker = observer.close();
        let completed = answers.iter().any(|answer| answer.completed > 0);
        match (answers.into_iter().find_map(|answer| answer.error), end) {
            (Some(error), _) if !error.ends_session() => Ok(Some((error, blocker))),
            (None, None) => Ok(None),
            // The signal came too late for it.
            (None, Some(Cause::Stopped(_))) if completed => Ok(None),
            (_, Some(Cause::Stopped(signal))) => {
                Err(Halt::Error(stopped(signal, Some(work), false)))
            }
            (Some(error), _) => Err(unasked(work, Cause::Server(error))),
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
    Failed(Error),
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

pub(super) fn busy(work: Work<'_>, index: String) -> Error {
    Error::Busy { migration: work.migration.name.clone(), index }
}

pub(super) fn trouble(cause: Cause) -> Trouble {
    match cause {
        Cause::Client(trouble) => trouble,
        Cause::Server(error) => Trouble::Lost(error.message.clone(), Some(error)),
        Cause::Stopped(signal) => Trouble::Lost(signal.name().to_owned(), None),
    }
}

/// What a question of ours without an answer means.
pub(super) fn unasked(work: Work<'_>, cause: Cause) -> Halt {
    match cause {
        Cause::Stopped(signal) => Halt::Error(signal.into()),
        Cause::Server(error) if !error.ends_session() => {
            Halt::Error(Error::Failed(Box::new(transaction::record_failure(work, &error))))
        }
        cause => Halt::Setback(broken(Some(work), 0, trouble(cause))),
    }
}
