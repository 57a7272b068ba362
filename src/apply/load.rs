//! What the database knows: the history, and the progress of split migrations, read without a lock.

use std::time::Duration;

use crate::apply::error::ApplyError;
use crate::apply::event::Event;
use crate::cli::config::Options;
use crate::history::progress::{self, Progress};
use crate::history::table::{History, Table, TableVersion};
use crate::postgres::session::{Attempt, QueryError, Session};
use crate::postgres::wait::{self, ConnectError, WaitLimits};
use crate::process::signals::{Deadline, Interrupted, StopFlag};

/// How long our own small questions may take.
pub const QUESTION: Duration = Duration::from_secs(30);
/// Between two questions, where the server gave up the answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Connects and reads the history: one round trip, where there is one.
pub fn history(
    settings: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(Session, History), ApplyError> {
    let waits = WaitLimits { server: settings.wait, slot: settings.runner_wait };
    let ask = |session: &Session, deadline: Deadline<'_>| read(session, settings, deadline);
    let mut on_wait =
        |attempts: &[Attempt], left| emit(Event::Waiting { attempts: attempts.to_vec(), left });
    match wait::connect(&settings.target, waits, stop, &mut on_wait, ask) {
        Ok((session, Ok(history))) => Ok((session, history)),
        Ok((session, Err(error))) => {
            session.close();
            Err(error)
        }
        Err(ConnectError::Stopped(signal)) => Err(signal.into()),
        Err(ConnectError::Unreachable(attempts)) => Err(ApplyError::Unreachable(attempts)),
        Err(ConnectError::QueryTimedOut) => Err(ApplyError::HistoryTimeout(settings.table.clone())),
    }
}

fn read(
    session: &Session,
    settings: &Options,
    deadline: Deadline<'_>,
) -> Result<Result<History, ApplyError>, QueryError> {
    let table = &settings.table;
    match session.query(&table.select_sql(), deadline) {
        Ok(answer) => {
            Ok(table.parse(&answer).map_err(|not| ApplyError::NotHistoryTable(table.clone(), not)))
        }
        Err(QueryError::Server(error)) if error.is("42P01") => {
            let answer = session.query_row(&table.schema_exists_sql(), deadline)?;
            Ok(Ok(Table::parse_probe(&answer.unwrap_or_default())))
        }
        Err(QueryError::Server(error)) if error.is("42501") => {
            let role = &settings.target.user;
            let answer = session.query_row(&table.exists_sql(), deadline).ok().flatten();
            let exists = answer.is_some_and(|row| row.first() == Some(&Some("t".to_owned())));
            let statements = if exists {
                table.reading_grants(role)
            } else {
                table.grants(TableVersion::NoTable, &[], &[], role)
            };
            Ok(Err(ApplyError::PermissionDenied { error, statements }))
        }
        Err(cause) => Err(cause),
    }
}

/// Reads the progress of split migrations: one round trip, where there is none. Waits like
/// [`history`] for a server that gives up answering.
pub fn progress(
    session: &Session,
    history: &History,
    settings: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<Progress, ApplyError> {
    if history.state == TableVersion::NoSchema {
        // It is in the history's schema.
        return Ok(Progress::default());
    }
    let limit = Deadline::after(settings.runner_wait.max(settings.wait), stop);
    let mut told = None;
    loop {
        let cause = match read_progress(session, settings, Deadline::after(QUESTION, stop)) {
            Ok(answer) => return answer,
            Err(QueryError::Stopped(signal)) => return Err(signal.into()),
            Err(cause) => cause,
        };
        let waits = wait::is_cancelled_by_server(&cause);
        let left = limit.remaining().unwrap_or_default();
        let attempt = Attempt::at_query(cause);
        if !waits {
            return Err(ApplyError::Unreachable(vec![attempt]));
        }
        if settings.wait.is_zero() || left.is_zero() {
            return Err(ApplyError::HistoryTimeout(settings.table.clone()));
        }
        if told.as_ref() != Some(&attempt) {
            emit(Event::Waiting { attempts: vec![attempt.clone()], left });
            told = Some(attempt);
        }
        if let Err(Interrupted::Stopped(signal)) = limit.sleep(PAUSE) {
            return Err(signal.into());
        }
    }
}

fn read_progress(
    session: &Session,
    settings: &Options,
    deadline: Deadline<'_>,
) -> Result<Result<Progress, ApplyError>, QueryError> {
    let table = &settings.table;
    let answer = session.query_row(&progress::exists_sql(table), deadline)?;
    let Some([Some(owned)]) = answer.as_deref() else { return Ok(Ok(Progress::default())) };
    match session.query_row(&progress::select_sql(table), deadline) {
        Ok(answer) => Ok(progress::parse(owned == "t", &answer.unwrap_or_default())
            .map_err(|not| ApplyError::BadProgressTable(table.clone(), not))),
        // Gone meanwhile.
        Err(QueryError::Server(error)) if error.is("42P01") => Ok(Ok(Progress::default())),
        Err(QueryError::Server(error)) if error.is("42501") => {
            let statements = progress::grants(table, true, &settings.target.user);
            Ok(Err(ApplyError::PermissionDenied { error, statements }))
        }
        Err(cause) => Err(cause),
    }
}
