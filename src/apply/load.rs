//! What the database knows: the history, and the progress of split migrations, read without a lock.

use std::time::Duration;

use crate::apply::event::Event;
use crate::cli::config::Settings;
use crate::error::Error;
use crate::history::progress::{self, Progress};
use crate::history::table::{History, State, Table};
use crate::postgres::session::{Attempt, Cause, Session};
use crate::postgres::wait::{self, NoSession, Waits};
use crate::process::signals::{Interrupted, Patience, Stop};

/// How long our own small questions may take.
pub const QUESTION: Duration = Duration::from_secs(30);
/// Between two questions, where the server gave up the answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Connects and reads the history: one round trip, where there is one.
pub fn history(
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(Session, History), Error> {
    let waits = Waits { database: settings.wait, room: settings.runner_wait };
    let ask = |session: &Session, patience: Patience<'_>| read(session, settings, patience);
    match wait::connect(&settings.target, waits, stop, tell, ask) {
        Ok((session, Ok(history))) => Ok((session, history)),
        Ok((session, Err(error))) => {
            session.close();
            Err(error)
        }
        Err(NoSession::Stopped(signal)) => Err(signal.into()),
        Err(NoSession::Unreachable(attempts)) => Err(Error::Unreachable(attempts)),
        Err(NoSession::Unanswered) => Err(Error::Unanswered(settings.table.clone())),
    }
}

fn read(
    session: &Session,
    settings: &Settings,
    patience: Patience<'_>,
) -> Result<Result<History, Error>, Cause> {
    let table = &settings.table;
    match session.ask_all(&table.read(), patience) {
        Ok(answer) => {
            Ok(table.parse(&answer).map_err(|not| Error::NotAHistory(table.clone(), not)))
        }
        Err(Cause::Server(error)) if error.is("42P01") => {
            let answer = session.ask(&table.probe(), patience)?;
            Ok(Ok(Table::parse_probe(&answer.unwrap_or_default())))
        }
        Err(Cause::Server(error)) if error.is("42501") => {
            let role = &settings.target.user;
            let answer = session.ask(&table.exists(), patience).ok().flatten();
            let exists = answer.is_some_and(|row| row.first() == Some(&Some("t".to_owned())));
            let statements = if exists {
                table.reading_grants(role)
            } else {
                table.grants(State::NoTable, &[], &[], role)
            };
            Ok(Err(Error::Forbidden { error, statements }))
        }
        Err(cause) => Err(cause),
    }
}

/// Reads the progress of split migrations: one round trip, where there is none. Waits like
/// [`history`] for a server that gives up answering.
pub fn progress(
    session: &Session,
    history: &History,
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Progress, Error> {
    if history.state == State::NoSchema {
        // It is in the history's schema.
        return Ok(Progress::default());
    }
    let limit = Patience::lasting(settings.runner_wait.max(settings.wait), stop);
    let mut told = None;
    loop {
        let cause = match read_progress(session, settings, Patience::lasting(QUESTION, stop)) {
            Ok(answer) => return answer,
            Err(Cause::Stopped(signal)) => return Err(signal.into()),
            Err(cause) => cause,
        };
        let waits = wait::gives_up_answering(&cause);
        let left = limit.left().unwrap_or_default();
        let attempt = Attempt::after_connecting(cause);
        if !waits {
            return Err(Error::Unreachable(vec![attempt]));
        }
        if settings.wait.is_zero() || left.is_zero() {
            return Err(Error::Unanswered(settings.table.clone()));
        }
        if told.as_ref() != Some(&attempt) {
            tell(Event::Waiting { attempts: vec![attempt.clone()], left });
            told = Some(attempt);
        }
        if let Err(Interrupted::Stopped(signal)) = limit.sleep(PAUSE) {
            return Err(signal.into());
        }
    }
}

fn read_progress(
    session: &Session,
    settings: &Settings,
    patience: Patience<'_>,
) -> Result<Result<Progress, Error>, Cause> {
    let table = &settings.table;
    let answer = session.ask(&progress::exists(table), patience)?;
    let Some([Some(is_ours)]) = answer.as_deref() else { return Ok(Ok(Progress::default())) };
    match session.ask(&progress::read(table), patience) {
        Ok(answer) => Ok(progress::parse(is_ours == "t", &answer.unwrap_or_default())
            .map_err(|not| Error::NotProgress(table.clone(), not))),
        // Gone meanwhile.
        Err(Cause::Server(error)) if error.is("42P01") => Ok(Ok(Progress::default())),
        Err(Cause::Server(error)) if error.is("42501") => {
            let statements = progress::grants(table, true, &settings.target.user);
            Ok(Err(Error::Forbidden { error, statements }))
        }
        Err(cause) => Err(cause),
    }
}
