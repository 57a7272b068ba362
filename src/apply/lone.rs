//! A statement that PostgreSQL runs only outside a transaction, and that nothing rolls back.
//!
//! A second connection, idle in a transaction, holds the lock for it. That it begins is written
//! before; so whoever comes after a crash knows, ends what may still run, and settles what became of
//! it before anything else.

use std::time::{Duration, Instant};

use crate::connect;
use crate::consult::QUESTION;
use crate::database::{Answer, Attempt, Cause, Flight, Session, Trouble};
use crate::error::Error;
use crate::fate::{self, Fate};
use crate::flight::{self, Ground, Job, Transaction, Verdict, Work};
use crate::observer::{Observer, Waiting};
use crate::pg_error::PgError;
use crate::progress::{self, Record};
use crate::report::{Blocker, Event};
use crate::signals::Patience;
use crate::sql::{Script, Statement};
use crate::units::Unit;

use super::migration::Known;
use super::settle::ORPHAN;
use super::transaction::{Retries, broken, is_transient, stopped};
use super::{Run, Setback};

/// How long a second connection, or a first one beside it, may take to answer: a pooler with a pool
/// of one would keep us waiting until its own limit.
const SECOND: Duration = Duration::from_secs(15);
/// How long what is left to do may take once the statement has ended: a signal may have come, and
/// Docker gives ten seconds for all of it.
const LAST: Duration = Duration::from_secs(2);

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
    fn goes_on(&self) -> bool {
        matches!(self, Ending::Done | Ending::Undone(Halt::Setback(Setback::Settled)))
    }
}

/// What ends the round, or the run.
pub(super) enum Halt {
    Setback(Setback),
    Error(Error),
}

/// What the second connection commits when it gives the lock back.
struct Marks<'a> {
    finish: Job<'a>,
    forget: Job<'a>,
}

impl<'a> Marks<'a> {
    /// For this unit. Neither job runs anything of the file.
    fn new(work: Work<'a>, nothing: &'a Unit, finish: String, forget: String) -> Marks<'a> {
        let work = Some(Work { unit: nothing, ..work });
        let job = |mark| Job { work, marks: vec![mark], keeps: true, ..Job::default() };
        Marks { finish: job(finish), forget: job(forget) }
    }
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

    /// Takes the lock on a second connection, does something meanwhile, and has it written there.
    pub(super) fn with_keeper(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        known: &mut Known,
        act: impl FnOnce(&mut Self, &Session, &mut Known) -> Ending,
    ) -> Result<Result<(), Setback>, Error> {
        let settings = self.settings;
        let table = &settings.table;
        let state = known.history.prepared_state(self.set.layout());
        let number = work.reached.unit;
        let nothing = Unit::closing(work.script);
        let marks = Marks::new(
            work,
            &nothing,
            progress::finish_begun(table, known_as, number),
            progress::forget_begun(table, known_as, number),
        );
        let keeper = match self.second_connection(work)? {
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
            let patience = Patience::lasting(LAST, self.stop);
            let _ = session.ask(&flight::RESET.join("; "), patience);
        }
        let job = match &ending {
            Ending::Done => Some(&marks.finish),
            Ending::Undone(_) => Some(&marks.forget),
            Ending::Open(_) => None,
        };
        let ground = known.ground(table, state);
        let mut is_recorded = job.is_none();
        if let Some(job) = job {
            let ending = Transaction::new(job, &ground, &self.limits(session));
            let patience = Patience::despite_signals(LAST, self.stop);
            is_recorded = release(&keeper, &ending, held, patience);
        }
        keeper.close();
        if let Some(job) = job.filter(|_| !is_recorded && self.stop.raised().is_none()) {
            // The keeper is gone, and the lock with it; what we know is not.
            if let Err(setback) = self.run(session, job, &ground)? {
                return Ok(Err(setback));
            }
        }
        match ending {
            Ending::Done => {
                let hash = work.unit.hash.as_str();
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

    /// Connects once more. Where there is no room, the way on is to make some.
    fn second_connection(&mut self, work: Work<'_>) -> Result<Result<Session, Setback>, Error> {
        let patience = Patience::lasting(SECOND, self.stop);
        let attempts = match Session::open(&self.settings.target, patience) {
            Ok(keeper) => return Ok(Ok(keeper)),
            Err(attempts) => attempts,
        };
        if let Some(signal) = self.stop.raised() {
            return Err(signal.into());
        }
        if attempts.iter().any(|attempt| connect::is_full(&attempt.cause)) {
            return Ok(Err(Setback::LockedOut(None)));
        }
        match attempts.into_iter().next().map(|attempt| attempt.cause) {
            None | Some(Cause::Client(Trouble::Silent)) => Err(no_second_connection(work)),
            Some(cause) if connect::passes(&cause) => {
                Ok(Err(broken(Some(work), 0, trouble(cause))))
            }
            Some(cause) => {
                let place = "the second connection".to_owned();
                Err(Error::Unreachable(vec![Attempt { place, cause }]))
            }
        }
    }

    /// Takes the lock on the second connection, and keeps it. Gives the server's answer.
    fn hold(
        &mut self,
        keeper: &Session,
        job: &Job<'_>,
        ground: &Ground<'_>,
        work: Work<'_>,
        session: &Session,
    ) -> Result<Result<Flight, Setback>, Error> {
        let mut retries = Retries::default();
        loop {
            let transaction = Transaction::new(job, ground, &self.limits(keeper));
            let patience = Patience::lasting(SECOND, self.stop);
            let held = keeper.flight(&transaction.hold(), false, patience, &mut |_| {});
            if held.end == Some(Cause::Client(Trouble::Silent)) {
                return Err(no_second_connection(work));
            }
            let failure = match transaction.judge(&held) {
                Verdict::Committed(_) => return Ok(Ok(held)),
                Verdict::LockedOut => {
                    return Ok(Err(Setback::LockedOut(self.holder(session))));
                }
                Verdict::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                Verdict::Unsettable(setting) => {
                    self.unsettable.push(setting);
                    let _ = keeper.ask("rollback", Patience::lasting(QUESTION, self.stop));
                    continue;
                }
                Verdict::Broken { trouble, .. } => {
                    return Ok(Err(broken(Some(work), 0, trouble)));
                }
                Verdict::Stopped { signal, .. } => return Err(signal.into()),
                Verdict::Forbidden { error, of_progress } => {
                    return Err(self.forbidden(error, of_progress, job, ground));
                }
                // It takes no changes: another host's than the first connection's.
                Verdict::Failed(failure) if failure.error.is("25006") => {
                    let trouble = Trouble::Lost(failure.error.message.clone(), Some(failure.error));
                    return Ok(Err(broken(Some(work), 0, trouble)));
                }
                Verdict::Failed(failure) if is_transient(&failure.error) => failure,
                Verdict::Failed(failure) => return Err(Error::Failed(failure)),
            };
            let _ = keeper.ask("rollback", Patience::lasting(QUESTION, self.stop));
            let migration = Some(&work.migration.name);
            if !self.pause_for_lock(&mut retries, migration, false, &failure.error, None)? {
                return Err(Error::NoLock(failure, None));
            }
        }
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
            self.clear_the_way(session, work, statement)?;
            self.begin(session, work, known_as, statement, known)
        });
        if let Err(halt) = begun {
            return Ending::Undone(halt);
        }
        self.execute(session, keeper, work, statement)
    }

    /// An index of this name that nobody builds any more would be passed over by IF NOT EXISTS, and
    /// be in the way of a build without.
    fn clear_the_way(
        &mut self,
        session: &Session,
        work: Work<'_>,
        statement: &Statement<'_>,
    ) -> Result<(), Halt> {
        if !builds(statement) {
            return Ok(());
        }
        match self.fate(session, work, statement.text)? {
            Fate::Invalid(index) => self.drop_invalid(session, work, &index),
            Fate::Busy(index) => Err(Halt::Error(busy(work, index))),
            Fate::Done | Fate::Undone | Fate::Unknown => Ok(()),
        }
    }

    pub(super) fn drop_invalid(
        &mut self,
        session: &Session,
        work: Work<'_>,
        index: &str,
    ) -> Result<(), Halt> {
        let migration = work.migration.name.clone();
        (self.tell)(Event::Rebuilding { migration: migration.clone(), index: index.to_owned() });
        let tag = tag(work.unit.hash.as_str());
        let drop = format!("{tag}drop index concurrently if exists {index}");
        let mut retries = Retries::default();
        loop {
            let (error, blocker) = match self.send(session, work, &drop, &tag) {
                Sent::Done => return Ok(()),
                Sent::Failed(error, blocker) => (error, blocker),
                Sent::Open(halt) => return Err(halt),
            };
            let failure = || Box::new(flight::drop_failure(work, &error));
            if !is_transient(&error) {
                return Err(Halt::Error(Error::Failed(failure())));
            }
            match self.pause_for_lock(
                &mut retries,
                Some(&migration),
                true,
                &error,
                blocker.as_ref(),
            ) {
                Ok(true) => {}
                Ok(false) => return Err(Halt::Error(Error::NoLock(failure(), blocker))),
                Err(error) => return Err(Halt::Error(error)),
            }
        }
    }

    /// What became of a statement, as far as the catalogs tell.
    pub(super) fn fate(&self, session: &Session, work: Work<'_>, text: &str) -> Result<Fate, Halt> {
        let until = Instant::now() + ORPHAN;
        loop {
            let fate = self.fate_now(session, text, Patience::lasting(QUESTION, self.stop));
            match fate.map_err(|cause| unasked(work, cause))? {
                // It may be done any moment.
                Fate::Busy(_) if Instant::now() < until => {
                    let patience = Patience::endless(self.stop);
                    if patience.sleep(Duration::from_millis(500)).is_err()
                        && let Some(signal) = self.stop.raised()
                    {
                        return Err(Halt::Error(signal.into()));
                    }
                }
                fate => return Ok(fate),
            }
        }
    }

    fn fate_now(
        &self,
        session: &Session,
        text: &str,
        patience: Patience<'_>,
    ) -> Result<Fate, Cause> {
        let script = Script::read(text);
        let Some(statement) = script.statements().first() else { return Ok(Fate::Unknown) };
        match fate::question(statement) {
            Ok(question) => Ok(fate::read(statement, session.ask(&question, patience)?.as_deref())),
            Err(fate) => Ok(fate),
        }
    }

    /// Gives the session the limits, and what the file has set before: the statement is to run under
    /// it, and what the catalogs say depends on it too. Not behind a pooler, where no setting reaches
    /// a statement, nor goes away after it.
    pub(super) fn prepare(&mut self, session: &Session, work: Work<'_>) -> Result<(), Halt> {
        let replay = work.unit.replay(work.script);
        if self.is_direct(session, work)? {
            self.is_set = true;
            self.set(session, work, &replay)
        } else {
            self.without_settings(work, &replay)
        }
    }

    /// Whether what we send goes to one backend, ours alone.
    fn is_direct(&self, session: &Session, work: Work<'_>) -> Result<bool, Halt> {
        let patience = Patience::lasting(SECOND, self.stop);
        match session.ask("select pg_catalog.pg_backend_pid()", patience) {
            Ok(answer) => {
                let pid = answer.and_then(|row| row.into_iter().next().flatten());
                Ok(pid == Some(session.handshake_pid().to_string()))
            }
            Err(Cause::Client(Trouble::Silent)) => Err(Halt::Error(no_second_connection(work))),
            Err(cause) => Err(unasked(work, cause)),
        }
    }

    /// Time limits can be done without; what else the file sets, cannot.
    fn without_settings(&mut self, work: Work<'_>, replay: &[&str]) -> Result<(), Halt> {
        let is_needed = |setting: &&str| {
            let script = Script::read(setting);
            let set = script.statements().first().and_then(Statement::set_name);
            let harmless = |name: &str| name.ends_with("_timeout") || name.ends_with("_messages");
            !set.is_some_and(|set| set.back || harmless(&set.name))
        };
        let needed: Vec<String> =
            replay.iter().filter(|it| is_needed(it)).map(|&it| it.to_owned()).collect();
        if !needed.is_empty() {
            let migration = work.migration.name.clone();
            return Err(Halt::Error(Error::PooledSettings { migration, settings: needed }));
        }
        if !self.told_pooler {
            self.told_pooler = true;
            (self.tell)(Event::Note(
                "this is a pooler: what runs outside a transaction has no time limits of ours"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn set(&mut self, session: &Session, work: Work<'_>, replay: &[&str]) -> Result<(), Halt> {
        let limits = self.limits(session);
        let patience = || Patience::lasting(QUESTION, self.stop);
        let text = work.unit.lone(work.script).map(|statement| statement.text).unwrap_or_default();
        for setting in flight::session_limits(&limits, text) {
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
                    return Err(Halt::Error(Error::Failed(Box::new(failure))));
                }
                Err(cause) => return Err(unasked(work, cause)),
            }
        }
        Ok(())
    }

    /// Writes that the statement begins.
    fn begin(
        &mut self,
        session: &Session,
        work: Work<'_>,
        known_as: &str,
        statement: &Statement<'_>,
        known: &mut Known,
    ) -> Result<(), Halt> {
        let table = &self.settings.table;
        let (number, hash) = (work.reached.unit, work.unit.hash.as_str());
        let pid = session.handshake_pid();
        // Under a role of the file's, the table may be out of reach.
        let write = format!(
            "begin isolation level read committed read write;\n\
             set local session authorization default;\nset local role none;\n{}",
            progress::begin(table, known_as, number, hash, statement.text, pid)
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
        let begun = Record { finished: false, ..Record::finished(known_as, number, hash) };
        known.progress.put(known_as, number, Some(begun));
        Ok(())
    }

    /// Runs the statement, again where locks stand in its way.
    fn execute(
        &mut self,
        session: &Session,
        keeper: &Session,
        work: Work<'_>,
        statement: &Statement<'_>,
    ) -> Ending {
        let migration = work.migration.name.clone();
        let tag = tag(work.unit.hash.as_str());
        let sql = format!("{tag}{}", statement.text);
        let mut retries = Retries::default();
        loop {
            // Without the lock, nothing is begun.
            if let Err(cause) = keeper.ask("select 1", Patience::lasting(QUESTION, self.stop)) {
                return Ending::Undone(match cause {
                    Cause::Stopped(signal) => Halt::Error(signal.into()),
                    _ => Halt::Setback(Setback::HistoryChanged),
                });
            }
            let (error, blocker) = match self.send(session, work, &sql, &tag) {
                Sent::Done => return Ending::Done,
                Sent::Failed(error, blocker) => (error, blocker),
                Sent::Open(halt) => return Ending::Open(halt),
            };
            let failure = || Box::new(flight::lone_failure(work, &error, tag.chars().count()));
            if let Some(signal) = self.stop.raised().filter(|_| error.is("57014")) {
                return self.failed(session, statement, stopped(signal, Some(work), true));
            }
            // What may have done half of its work is not done again.
            if !is_transient(&error) || fate::may_do_half(statement) {
                return self.failed(session, statement, Error::Failed(failure()));
            }
            match self.pause_for_lock(
                &mut retries,
                Some(&migration),
                true,
                &error,
                blocker.as_ref(),
            ) {
                Ok(true) => {}
                Ok(false) => {
                    let error = Error::NoLock(failure(), blocker);
                    return self.failed(session, statement, error);
                }
                Err(error) => return self.failed(session, statement, error),
            }
            if let Err(halt) = self.clear_the_way(session, work, statement) {
                return Ending::Open(halt);
            }
        }
    }

    /// The server says that the statement has failed.
    fn failed(&self, session: &Session, statement: &Statement<'_>, error: Error) -> Ending {
        match self.leaves_nothing(session, statement) {
            true => Ending::Undone(Halt::Error(error)),
            false => Ending::Open(Halt::Error(error)),
        }
    }

    /// Whether a statement that the server says has failed has left nothing behind.
    fn leaves_nothing(&self, session: &Session, statement: &Statement<'_>) -> bool {
        if !builds(statement) {
            return !fate::may_do_half(statement);
        }
        let patience = Patience::despite_signals(LAST, self.stop);
        match self.fate_now(session, statement.text, patience) {
            // One that is there was there before; without a name, it is found by none.
            Ok(Fate::Undone | Fate::Done | Fate::Unknown) => true,
            Ok(Fate::Invalid(_) | Fate::Busy(_)) | Err(_) => false,
        }
    }

    fn send(&mut self, session: &Session, work: Work<'_>, sql: &str, tag: &str) -> Sent {
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
            (Some(error), _) if !error.ends_session() => Sent::Failed(error, blocker),
            (None, None) => Sent::Done,
            // The signal came too late for it.
            (None, Some(Cause::Stopped(_))) if completed => Sent::Done,
            (_, Some(Cause::Stopped(signal))) => {
                Sent::Open(Halt::Error(stopped(signal, Some(work), false)))
            }
            (Some(error), _) => Sent::Open(unasked(work, Cause::Server(error))),
            (None, Some(cause)) => Sent::Open(unasked(work, cause)),
        }
    }
}

/// What came of a statement that was sent.
enum Sent {
    /// The server says that it is done.
    Done,
    /// The server says that it failed.
    Failed(PgError, Option<Blocker>),
    /// The server says nothing.
    Open(Halt),
}

/// Commits what the second connection has to write, and gives the lock back with it.
fn release(
    keeper: &Session,
    transaction: &Transaction<'_>,
    held: Flight,
    patience: Patience<'_>,
) -> bool {
    let end = keeper.flight(&transaction.release(), false, patience, &mut |_| {});
    let mut answers = held.answers;
    answers.extend(end.answers);
    matches!(transaction.judge(&Flight { answers, end: end.end }), Verdict::Committed(_))
}

/// Stands before a statement of ours, so that whoever comes after finds it in `pg_stat_activity`,
/// whichever backend a pooler gave it to.
pub(super) fn tag(hash: &str) -> String {
    format!("/* premigrate {} */ ", hash.get(..16).unwrap_or(hash))
}

fn builds(statement: &Statement<'_>) -> bool {
    statement.index().is_some_and(|index| index.table.is_some())
}

fn no_second_connection(work: Work<'_>) -> Error {
    Error::NoSecondConnection { migration: work.migration.name.clone() }
}

pub(super) fn busy(work: Work<'_>, index: String) -> Error {
    Error::Busy { migration: work.migration.name.clone(), index }
}

fn trouble(cause: Cause) -> Trouble {
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
            Halt::Error(Error::Failed(Box::new(flight::record_failure(work, &error))))
        }
        cause => Halt::Setback(broken(Some(work), 0, trouble(cause))),
    }
}
