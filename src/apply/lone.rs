//! A statement that PostgreSQL runs only outside a transaction, and that nothing rolls back.
//!
//! A second connection, idle in a transaction, holds the lock for it. That it begins is written
//! before; so whoever comes after a crash knows, ends what may still run, and looks what became of
//! it before anything else.

use std::time::Duration;

use crate::connect;
use crate::consult::QUESTION;
use crate::database::{Answer, Cause, Flight, Session, Trouble};
use crate::error::{ChangedUnit, Doubt, Error};
use crate::fate::{self, Fate};
use crate::flight::{self, Job, Transaction, Verdict, Work};
use crate::observer::{Observer, Waiting};
use crate::pg_error::PgError;
use crate::progress::{self, Record};
use crate::report::{Blocker, Event};
use crate::signals::{Patience, Stop};
use crate::sql::{Script, Statement};

use super::migration::Known;
use super::transaction::{Retries, broken, is_transient, stopped};
use super::{Run, Setback};

/// How long a second connection, or a first one beside it, may take to answer: a pooler with a pool
/// of one would keep us waiting until its own limit.
const SECOND: Duration = Duration::from_secs(15);
/// How long a backend may take to end that was told to.
const ORPHAN: Duration = Duration::from_secs(30);

/// What became of a statement that was to run alone.
enum Outcome {
    /// It is done.
    Done,
    /// It did nothing, or nothing that the next start could not find; with what ends the round.
    NotDone(Setback),
    /// The same, for good.
    Failed(Error),
}

/// What to write of a statement that is not done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It has not begun, or the server said that it did nothing.
    Nothing,
    /// The next start has to look.
    Traces,
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
        let table = &self.settings.table;
        let state = known.history.prepared_state(self.set.layout());
        let number = work.reached.unit;
        let finish = Job {
            work: Some(Work { unit: &crate::units::Unit::closing(work.script), ..work }),
            marks: vec![progress::finish_begun(table, known_as, number)],
            ..Job::default()
        };
        let forget = Job {
            marks: vec![progress::forget_begun(table, known_as, number)],
            work: finish.work,
            ..Job::default()
        };
        let limits = self.limits(session);
        let ground = known.ground(table, state);
        let done = Transaction::new(&finish, &ground, &limits);
        let not_done = Transaction::new(&forget, &ground, &limits);

        let keeper = match self.second_connection(work)? {
            Ok(keeper) => keeper,
            Err(setback) => return Ok(Err(setback)),
        };
        let held = match self.hold(&keeper, &done, work, session)? {
            Ok(held) => held,
            Err(setback) => {
                keeper.close();
                return Ok(Err(setback));
            }
        };
        let (outcome, left) = self.under_lock(session, &keeper, work, known_as, known);
        let ending = match (&outcome, left) {
            (Outcome::Done, _) => Some(&done),
            (_, Left::Nothing) => Some(&not_done),
            (_, Left::Traces) => None,
        };
        let is_recorded = ending.is_some_and(|ending| release(&keeper, ending, held));
        keeper.close();
        match outcome {
            Outcome::Failed(error) => Err(error),
            Outcome::NotDone(setback) => Ok(Err(setback)),
            Outcome::Done => {
                if !is_recorded {
                    // The keeper is gone, and the lock with it; what we know is not.
                    let ground = known.ground(table, state);
                    if let Err(setback) = self.run(session, &finish, &ground)? {
                        return Ok(Err(setback));
                    }
                }
                let hash = work.unit.hash.as_str();
                known.progress.put(
                    known_as,
                    number,
                    Some(Record::finished(known_as, number, hash)),
                );
                Ok(Ok(()))
            }
        }
    }

    /// Connects once more. Where there is no room, the way on is to make some.
    fn second_connection(&mut self, work: Work<'_>) -> Result<Result<Session, Setback>, Error> {
        let patience = Patience::lasting(SECOND, self.stop);
        match Session::open(&self.settings.target, patience) {
            Ok(keeper) => Ok(Ok(keeper)),
            Err(attempts) => {
                if let Some(signal) = self.stop.raised() {
                    return Err(signal.into());
                }
                if attempts.iter().any(|attempt| connect::is_full(&attempt.cause)) {
                    return Ok(Err(Setback::LockedOut(None)));
                }
                let is_silent = |cause: &Cause| *cause == Cause::Client(Trouble::Silent);
                if attempts.iter().any(|attempt| is_silent(&attempt.cause)) {
                    return Err(no_second_connection(work));
                }
                match attempts.into_iter().next().map(|attempt| attempt.cause) {
                    Some(cause) if connect::passes(&cause) => {
                        Ok(Err(broken(Some(work), 0, trouble(cause))))
                    }
                    Some(cause) => Err(Error::Unreachable(vec![crate::database::Attempt {
                        place: "the second connection".to_owned(),
                        cause,
                    }])),
                    None => Err(no_second_connection(work)),
                }
            }
        }
    }

    /// Takes the lock on the second connection, and keeps it. Gives the server's answer.
    fn hold(
        &mut self,
        keeper: &Session,
        transaction: &Transaction<'_>,
        work: Work<'_>,
        session: &Session,
    ) -> Result<Result<Flight, Setback>, Error> {
        let patience = Patience::lasting(SECOND, self.stop);
        let held = keeper.flight(&transaction.hold(), false, patience, &mut |_| {});
        if held.end == Some(Cause::Client(Trouble::Silent)) {
            return Err(no_second_connection(work));
        }
        match transaction.judge(&held) {
            Verdict::Committed(_) => Ok(Ok(held)),
            Verdict::LockedOut => Ok(Err(Setback::LockedOut(self.holder(session)))),
            Verdict::HistoryChanged => Ok(Err(Setback::HistoryChanged)),
            Verdict::Unsettable(setting) => {
                self.unsettable.push(setting);
                Ok(Err(Setback::HistoryChanged))
            }
            Verdict::Broken { trouble, .. } => Ok(Err(broken(Some(work), 0, trouble))),
            Verdict::Stopped { signal, .. } => Err(signal.into()),
            Verdict::Forbidden { error, .. } => {
                let role = &self.settings.target.user;
                let statements = progress::grants(&self.settings.table, true, role);
                Err(Error::Forbidden { error, statements })
            }
            Verdict::Failed(failure) => Err(Error::Failed(failure)),
        }
    }

    /// Everything that is done while the lock is held elsewhere.
    fn under_lock(
        &mut self,
        session: &Session,
        keeper: &Session,
        work: Work<'_>,
        known_as: &str,
        known: &mut Known,
    ) -> (Outcome, Left) {
        let Some(statement) = work.unit.lone(work.script) else {
            return (Outcome::Done, Left::Nothing);
        };
        let begun = known.progress.of(known_as).find(|record| !record.finished).cloned();
        let left = if begun.is_some() { Left::Traces } else { Left::Nothing };
        let is_direct = match self.is_direct(session, work) {
            Ok(is_direct) => is_direct,
            Err(outcome) => return (outcome, left),
        };
        let mut invalid = None;
        if let Some(begun) = &begun {
            match self.end_orphan(session, work, begun) {
                Ok(()) => {}
                Err(outcome) => return (outcome, Left::Traces),
            }
            let text = begun.statement.clone().unwrap_or_default();
            match self.fate(session, work, &text) {
                Ok(Fate::Done) if begun.hash == work.unit.hash.as_str() => {
                    return (Outcome::Done, Left::Traces);
                }
                Ok(Fate::Done) => {
                    let changed = ChangedUnit {
                        file: work.migration.file.clone(),
                        unit: begun.unit,
                        place: None,
                        done: begun.unit,
                    };
                    let error = Error::ChangedUnits(vec![changed]);
                    return (Outcome::Failed(error), Left::Traces);
                }
                Ok(Fate::Undone) => {}
                Ok(Fate::Invalid(index)) => invalid = Some(index),
                Ok(Fate::Unknown) => {
                    let error = self.doubt(work, known_as, text);
                    return (Outcome::Failed(error), Left::Traces);
                }
                Err(outcome) => return (outcome, Left::Traces),
            }
        }
        let given_up = self.given_up(Some(&work.migration.name));
        if let Some(broken) = given_up {
            return (Outcome::Failed(Error::Broken(broken)), Left::Traces);
        }
        if invalid.is_none() && statement.index().is_some_and(|index| index.table.is_some()) {
            // Someone else may have left one of that name, which IF NOT EXISTS would pass over.
            match self.fate(session, work, statement.text) {
                Ok(Fate::Invalid(index)) => invalid = Some(index),
                Ok(_) => {}
                Err(outcome) => return (outcome, Left::Traces),
            }
        }
        let replay = work.unit.replay(work.script);
        if !is_direct && let Some(outcome) = self.without_settings(work, &replay) {
            return (outcome, left);
        }
        if let Err(outcome) = self.begin(session, work, known_as, statement, known) {
            return (outcome, left);
        }
        if keeper.ask("select 1", Patience::lasting(QUESTION, self.stop)).is_err() {
            // Without the lock, nothing is begun.
            return (Outcome::NotDone(Setback::HistoryChanged), Left::Traces);
        }
        if is_direct && let Err(outcome) = self.set(session, work, &replay) {
            return (outcome, Left::Nothing);
        }
        let result = self.execute(session, work, statement, invalid);
        if is_direct {
            let reset = flight::RESET.join("; ");
            let _ = session.ask(&reset, Patience::lasting(QUESTION, &Stop::default()));
        }
        result
    }

    /// Ends the backend in which a statement of an earlier start may still run, and waits until it
    /// is gone.
    fn end_orphan(
        &mut self,
        session: &Session,
        work: Work<'_>,
        begun: &Record,
    ) -> Result<(), Outcome> {
        let migration = &work.migration.name;
        let patience = Patience::lasting(ORPHAN, self.stop);
        let mut told = None;
        loop {
            let sql =
                fate::end_orphan(&tag(&begun.hash), begun.pid, begun.backend_start.as_deref());
            let orphan = |error| Error::Orphan {
                migration: migration.clone(),
                pid: begun.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                error,
            };
            let pid = match session.ask(&sql, patience) {
                Ok(row) => row.and_then(|row| row.into_iter().next().flatten()),
                Err(Cause::Server(error)) => return Err(Outcome::Failed(orphan(Some(error)))),
                Err(cause) => return Err(unasked(work, cause)),
            };
            let Some(pid) = pid else { return Ok(()) };
            if told.is_none() {
                (self.tell)(Event::EndingOrphan { migration: migration.clone(), pid: pid.clone() });
                told = Some(pid);
            }
            if patience.sleep(Duration::from_millis(100)).is_err() {
                return Err(match self.stop.raised() {
                    Some(signal) => Outcome::Failed(signal.into()),
                    None => Outcome::Failed(orphan(None)),
                });
            }
        }
    }

    /// What became of a statement, as far as the catalogs tell.
    fn fate(&self, session: &Session, work: Work<'_>, text: &str) -> Result<Fate, Outcome> {
        let script = Script::read(text);
        let Some(statement) = script.statements().first() else { return Ok(Fate::Unknown) };
        let question = match fate::question(statement) {
            Ok(question) => question,
            Err(fate) => return Ok(fate),
        };
        match session.ask(&question, Patience::lasting(QUESTION, self.stop)) {
            Ok(answer) => Ok(fate::read(statement, answer.as_deref())),
            Err(cause) => Err(unasked(work, cause)),
        }
    }

    fn doubt(&self, work: Work<'_>, known_as: &str, statement: String) -> Error {
        let table = &self.settings.table;
        let number = work.reached.unit;
        Error::Doubt(Box::new(Doubt {
            migration: work.migration.name.clone(),
            statement,
            done: progress::finish_begun(table, known_as, number),
            again: progress::forget_begun(table, known_as, number),
        }))
    }

    /// Whether what we send goes to one backend, ours alone: not so behind a pooler.
    fn is_direct(&self, session: &Session, work: Work<'_>) -> Result<bool, Outcome> {
        let patience = Patience::lasting(SECOND, self.stop);
        match session.ask("select pg_catalog.pg_backend_pid()", patience) {
            Ok(answer) => {
                let pid = answer.and_then(|row| row.into_iter().next().flatten());
                Ok(pid == Some(session.handshake_pid().to_string()))
            }
            Err(Cause::Client(Trouble::Silent)) => Err(Outcome::Failed(no_second_connection(work))),
            Err(cause) => Err(unasked(work, cause)),
        }
    }

    /// Behind a pooler no setting reaches the statement, nor goes away after it. Time limits can be
    /// done without; what else the file sets, cannot.
    fn without_settings(&mut self, work: Work<'_>, replay: &[&str]) -> Option<Outcome> {
        let is_limit = |setting: &&str| {
            let script = Script::read(setting);
            let name = script.statements().first().and_then(Statement::set_name);
            name.is_some_and(|set| set.name.ends_with("_timeout"))
        };
        let needed: Vec<String> =
            replay.iter().filter(|it| !is_limit(it)).map(|&it| it.to_owned()).collect();
        if !needed.is_empty() {
            let migration = work.migration.name.clone();
            return Some(Outcome::Failed(Error::PooledSettings { migration, settings: needed }));
        }
        if !self.told_pooler {
            self.told_pooler = true;
            (self.tell)(Event::Note(
                "this is a pooler: what runs outside a transaction has no time limits of ours"
                    .to_owned(),
            ));
        }
        None
    }

    /// Writes that the statement begins.
    fn begin(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        statement: &Statement<'_>,
        known: &mut Known,
    ) -> Result<(), Outcome> {
        let table = &self.settings.table;
        let (number, hash) = (work.reached.unit, work.unit.hash.as_str());
        let pid = session.handshake_pid();
        let write = format!(
            "begin isolation level read committed read write;\n{};\n{}",
            progress::forget_begun(table, known_as, number),
            progress::begin(table, known_as, number, hash, statement.text, pid)
        );
        let patience = Patience::lasting(SECOND, self.stop);
        let Flight { answers, end } =
            session.flight(&[&write, "commit"], false, patience, &mut |_| {});
        match end {
            None => {}
            Some(Cause::Client(Trouble::Silent)) => {
                return Err(Outcome::Failed(no_second_connection(work)));
            }
            Some(cause) => return Err(unasked(work, cause)),
        }
        match answers.iter().find_map(|answer| answer.error.as_ref()) {
            None => {}
            // Someone else has begun it.
            Some(error) if error.is("23505") || error.is("42P01") => {
                return Err(Outcome::NotDone(Setback::HistoryChanged));
            }
            Some(error) if error.is("42501") => {
                let statements = progress::grants(table, true, &self.settings.target.user);
                let error = Error::Forbidden { error: error.clone(), statements };
                return Err(Outcome::Failed(error));
            }
            Some(error) => return Err(unasked(work, Cause::Server(error.clone()))),
        }
        let begun = Record { finished: false, ..Record::finished(known_as, number, hash) };
        known.progress.put(known_as, number, Some(begun));
        Ok(())
    }

    /// Sets limits, and what the file had set before.
    fn set(&mut self, session: &Session, work: Work<'_>, replay: &[&str]) -> Result<(), Outcome> {
        let limits = self.limits(session);
        let patience = || Patience::lasting(QUESTION, self.stop);
        let what = work.unit.alone.unwrap_or_default();
        for setting in flight::session_limits(&limits, what) {
            match session.ask(&setting, patience()) {
                // A server that cannot have it, has it not.
                Ok(_) | Err(Cause::Server(_)) => {}
                Err(cause) => return Err(unasked(work, cause)),
            }
        }
        for setting in replay {
            match session.ask(setting, patience()) {
                Ok(_) => {}
                Err(Cause::Server(error)) => {
                    let failure = flight::replay_failure(work, &error);
                    return Err(Outcome::Failed(Error::Failed(Box::new(failure))));
                }
                Err(cause) => return Err(unasked(work, cause)),
            }
        }
        Ok(())
    }

    /// Runs the statement, again where locks stand in its way; before it, drops what an earlier
    /// build of its index has left.
    fn execute(
        &mut self,
        session: &Session,
        work: Work<'_>,
        statement: &Statement<'_>,
        mut invalid: Option<String>,
    ) -> (Outcome, Left) {
        let migration = work.migration.name.clone();
        let builds = statement.index().is_some_and(|index| index.table.is_some());
        // What a failed build leaves is found by the next start.
        let left = if builds { Left::Traces } else { Left::Nothing };
        let mut retries = Retries::default();
        loop {
            let tag = tag(work.unit.hash.as_str());
            let mut result = Ok(());
            if let Some(index) = &invalid {
                (self.tell)(Event::Rebuilding {
                    migration: migration.clone(),
                    index: index.clone(),
                });
                let drop = format!("{tag}drop index concurrently if exists {index}");
                result = self.send(session, work, &drop, &tag);
            }
            if result.is_ok() {
                result = self.send(session, work, &format!("{tag}{}", statement.text), &tag);
            }
            let (error, blocker) = match result {
                Ok(()) => return (Outcome::Done, left),
                Err(Unsent::Failed(error, blocker)) => (error, blocker),
                Err(Unsent::Ended(outcome)) => return (outcome, Left::Traces),
            };
            let failure = || Box::new(flight::lone_failure(work, &error, tag.chars().count()));
            if !is_transient(&error) {
                return (Outcome::Failed(Error::Failed(failure())), left);
            }
            match self.pause_for_lock(&mut retries, Some(&migration), &error, blocker.as_ref()) {
                Ok(true) => {}
                Ok(false) => return (Outcome::Failed(Error::NoLock(failure(), blocker)), left),
                Err(error) => return (Outcome::Failed(error), left),
            }
            if builds {
                match self.fate(session, work, statement.text) {
                    Ok(Fate::Invalid(index)) => invalid = Some(index),
                    Ok(_) => invalid = None,
                    Err(outcome) => return (outcome, Left::Traces),
                }
            }
        }
    }

    fn send(
        &mut self,
        session: &Session,
        work: Work<'_>,
        sql: &str,
        tag: &str,
    ) -> Result<(), Unsent> {
        let migration = &work.migration.name;
        let target = &self.settings.target;
        let waiting = Waiting::Running(tag);
        let mut observer = Observer::new(target, self.stop, Some(migration), waiting);
        let tell = &mut *self.tell;
        let patience = Patience::endless(self.stop);
        let mut watch = |answers: &[Answer]| observer.look(answers, tell);
        let Flight { answers, end } = session.flight(&[sql], false, patience, &mut watch);
        let blocker = observer.close();
        let error = answers.into_iter().find_map(|answer| answer.error);
        match (end, error) {
            (None, None) => Ok(()),
            // The signal came, and the server cancelled it or ended it.
            (Some(Cause::Stopped(signal)), error) => {
                let confirmed = error.is_some_and(|error| !error.ends_session());
                Err(Unsent::Ended(Outcome::Failed(stopped(signal, Some(work), confirmed))))
            }
            (_, Some(error)) if !error.ends_session() => Err(Unsent::Failed(error, blocker)),
            (_, Some(error)) => Err(Unsent::Ended(unasked(work, Cause::Server(error)))),
            (Some(cause), None) => Err(Unsent::Ended(unasked(work, cause))),
        }
    }
}

/// Why a statement was not done.
enum Unsent {
    /// The server said so.
    Failed(PgError, Option<Blocker>),
    /// What became of it is open.
    Ended(Outcome),
}

/// Commits what the second connection has to write, and gives the lock back with it.
fn release(keeper: &Session, transaction: &Transaction<'_>, held: Flight) -> bool {
    let never = Stop::default();
    let patience = Patience::lasting(QUESTION, &never);
    let end = keeper.flight(&transaction.release(), false, patience, &mut |_| {});
    let mut answers = held.answers;
    answers.extend(end.answers);
    matches!(transaction.judge(&Flight { answers, end: end.end }), Verdict::Committed(_))
}

/// Stands before a statement of ours, so that whoever comes after finds it in `pg_stat_activity`,
/// whichever backend a pooler gave it to.
fn tag(hash: &str) -> String {
    format!("/* premigrate {} */ ", hash.get(..16).unwrap_or(hash))
}

fn no_second_connection(work: Work<'_>) -> Error {
    Error::NoSecondConnection { migration: work.migration.name.clone() }
}

fn trouble(cause: Cause) -> Trouble {
    match cause {
        Cause::Client(trouble) => trouble,
        Cause::Server(error) => Trouble::Lost(error.message.clone(), Some(error)),
        Cause::Stopped(signal) => Trouble::Lost(signal.name().to_owned(), None),
    }
}

/// A small question got no answer.
fn unasked(work: Work<'_>, cause: Cause) -> Outcome {
    match cause {
        Cause::Stopped(signal) => Outcome::Failed(signal.into()),
        cause => Outcome::NotDone(broken(Some(work), 0, trouble(cause))),
    }
}
