//! What the database knows: the history, and the progress of split migrations, read without a lock.

use std::time::Duration;

use crate::config::Settings;
use crate::connect::{self, NoSession, Waits};
use crate::database::{Attempt, Cause, Session};
use crate::error::Error;
use crate::history::{History, State, Table};
use crate::progress::{self, Progress};
use crate::report::Event;
use crate::signals::{Patience, Stop};

/// How long our own small questions may take.
pub const QUESTION: Duration = Duration::from_secs(30);

/// Connects and reads the history: one round trip, where there is one.
pub fn history(
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(Session, History), Error> {
    let waits = Waits { database: settings.wait, room: settings.runner_wait };
    let ask = |session: &Session, patience: Patience<'_>| read(session, settings, patience);
    match connect::connect(&settings.target, waits, stop, tell, ask) {
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

/// Reads the progress of split migrations: one round trip, where there is none.
pub fn progress(
    session: &Session,
    history: &History,
    settings: &Settings,
    stop: &Stop,
) -> Result<Progress, Error> {
    if history.state == State::NoSchema {
        // It is in the history's schema.
        return Ok(Progress::default());
    }
    let table = &settings.table;
    let patience = Patience::lasting(QUESTION, stop);
    let failed = |cause| match cause {
        Cause::Stopped(signal) => Error::from(signal),
        Cause::Server(error) if error.is("42501") => {
            let statements = progress::grants(table, true, &settings.target.user);
            Error::Forbidden { error, statements }
        }
        cause if connect::gives_up_answering(&cause) => Error::Unanswered(table.clone()),
        cause => Error::Unreachable(vec![Attempt { place: "after connecting".to_owned(), cause }]),
    };
    match session.ask(&progress::exists(table), patience).map_err(failed)?.as_deref() {
        Some([Some(is_ours)]) => {
            let answer = match session.ask(&progress::read(table), patience) {
                Ok(answer) => answer.unwrap_or_default(),
                // Gone meanwhile.
                Err(Cause::Server(error)) if error.is("42P01") => return Ok(Progress::default()),
                Err(cause) => return Err(failed(cause)),
            };
            progress::parse(is_ours == "t", &answer)
                .map_err(|not| Error::NotProgress(table.clone(), not))
        }
        _ => Ok(Progress::default()),
    }
}
