//! A statement that PostgreSQL refuses inside a transaction block, and that nothing rolls back.
//!
//! A second session holds the lock for it, idle in a transaction. The progress table says that the
//! statement has begun before it is sent. So the next run after a crash knows of
//! it, ends the backend that may still run it, and finds out what became of it (`recovery`).

use std::time::{Duration, Instant};

use crate::history::progress::{ProgressChange, Record};
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{
    ConnectionError, Message, QueryError, Response, Responses, Session,
};
use crate::process::signals::Deadline;
use crate::sql::{Script, Statement};

use super::catalog_state::{self, CatalogState, Inspection};
use super::error::ApplyError;
use super::event::{Blocker, Event};
use super::failure::Failure;
use super::interrupt::{Interrupt, Setback, as_connection_error, connection_lost, query_failed};
use super::lock_session::{
    CLEANUP_TIMEOUT, Completion, SECOND_SESSION_TIMEOUT, no_second_connection,
};
use super::observer::Backend;
use super::recovery::STALE_BACKEND_TIMEOUT;
use super::retry::{Backoff, conflict, is_conflict, stopped};
use super::state::DatabaseState;
use super::transaction::{self, Current, StepRef};
use super::{QUERY_TIMEOUT, Runner};

/// Why a statement that was sent, perhaps several times, is not known to be done.
struct NotDone {
    interrupt: Interrupt,
    /// `None` if the server replied with an error: then the catalogs say what is left.
    completion: Option<Completion>,
}

impl NotDone {
    fn failed(error: ApplyError) -> NotDone {
        NotDone { interrupt: error.into(), completion: None }
    }

    fn with(completion: Completion) -> impl Fn(Interrupt) -> NotDone {
        move |interrupt| NotDone { interrupt, completion: Some(completion) }
    }
}

/// How a statement is sent.
struct Sending<'s> {
    sql: &'s str,
    /// The statement of the file that it is, if it is one.
    current: Current,
    /// Whether it may be sent again after a lock timeout or a conflict. What may have done half of
    /// its work must not be.
    repeats: bool,
    /// Makes a failure of the server's error and the number of characters of ours before `sql`.
    failure: &'s dyn Fn(&ServerError, usize) -> Failure,
}

impl Runner<'_> {
    /// Runs a step that is a statement outside any transaction.
    pub(super) fn apply_outside_transaction(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        self.create_tables(session, step, true, state)?;
        self.with_lock_session(session, step, state, |runner, state| {
            runner.run_under_lock(session, step, state)
        })?;
        Ok(())
    }

    fn run_under_lock(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
    ) -> (Completion, Result<(), Interrupt>) {
        let Some(statement) = step.standalone() else {
            return (Completion::Done, Ok(()));
        };
        match self.prepare_statement(session, step, &statement, state) {
            Ok(()) => self.execute(session, step, &statement),
            Err(interrupt) => (Completion::NotDone, Err(interrupt)),
        }
    }

    fn prepare_statement(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        statement: &Statement<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        if let Some(lost) = self.lost_too_often(Some(&step.migration.name), Some(step.number.step))
        {
            return Err(ApplyError::ConnectionLost(lost).into());
        }
        self.apply_session_settings(session, step, &state.progress)?;
        let identifying_sql = self.drop_leftover_index(session, step, statement)?;
        self.record_started(session, step, identifying_sql, state)
    }

    /// Drops an index of this name that is INVALID and that no backend is building: IF NOT EXISTS
    /// would skip it, and a build without that would fail. Returns the SQL by which a later run
    /// identifies what the statement is about.
    fn drop_leftover_index(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        statement: &Statement<'_>,
    ) -> Result<Option<String>, Interrupt> {
        let Inspection { state, identifying_sql } = self.inspect(session, step, statement.text)?;
        match state {
            CatalogState::InvalidIndex(index) => self.drop_invalid_index(session, step, &index)?,
            CatalogState::BeingBuilt(index) => return Err(index_being_built(step, index).into()),
            CatalogState::Done
            | CatalogState::NotDone
            | CatalogState::HalfDone(_)
            | CatalogState::Unknown => {}
        }
        Ok(identifying_sql)
    }

    pub(super) fn drop_invalid_index(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        index: &str,
    ) -> Result<(), Interrupt> {
        let migration = step.migration.name.clone();
        (self.emit)(Event::Rebuilding { migration, index: index.to_owned() });
        self.run_repair(session, step, &format!("drop index concurrently if exists {index}"))
    }

    /// Runs a statement of ours that repairs what an earlier one has left.
    pub(super) fn run_repair(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        sql: &str,
    ) -> Result<(), Interrupt> {
        let failure = |error: &ServerError, _| transaction::repair_failure(step, error);
        let current = Current::default();
        let sending = Sending { sql, current, repeats: true, failure: &failure };
        let sent = self.send_until_unblocked(session, step, sending, |_| Ok(()));
        sent.map_err(|not_done| match (not_done.completion, not_done.interrupt) {
            // Nothing of the step was running.
            (None, Interrupt::Fail(ApplyError::Stopped { signal, .. })) => signal.into(),
            (_, interrupt) => interrupt,
        })
    }

    /// What the catalogs say about a statement. Waits for an index that may be finished any moment.
    pub(super) fn inspect(
        &self,
        session: &Session,
        step: StepRef<'_>,
        sql: &str,
    ) -> Result<Inspection, Interrupt> {
        let until = Instant::now() + STALE_BACKEND_TIMEOUT;
        loop {
            let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
            let inspection = inspect_once(session, sql, deadline);
            match inspection.map_err(|error| query_failed(step, error))? {
                Inspection { state: CatalogState::BeingBuilt(_), .. } if Instant::now() < until => {
                    self.pause(Duration::from_millis(500))?;
                }
                inspection => return Ok(inspection),
            }
        }
    }

    /// Writes that the statement begins.
    fn record_started(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        identifying_sql: Option<String>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let table = &self.options.table;
        let record = Record { finished: false, statement: identifying_sql, ..step.record() };
        let change = ProgressChange::Start { record, handshake_pid: session.handshake_pid() };
        // Under a role that the file has set, the table may be out of reach.
        let change_sql = state.progress.change_sql(table, &change).unwrap_or_default();
        let write = format!(
            "begin isolation level read committed read write;\n\
             set local session authorization default;\nset local role none;\n{}",
            self.options.target.settings.under_role_sql(&change_sql)
        );
        let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
        let Responses { responses, end } = session.send_batch(
            &[write.as_str().into(), "commit".into()],
            false,
            deadline,
            &mut |_| {},
        );
        match end {
            None => {}
            Some(end @ QueryError::Client(ConnectionError::TimedOut)) => {
                return Err(no_second_connection(step, end).into());
            }
            Some(error) => return Err(query_failed(step, error)),
        }
        match responses.into_iter().find_map(|response| response.error) {
            None => {
                state.statement_started(&change);
                Ok(())
            }
            Some(error) if error.is("23505") || error.is("42P01") => {
                Err(Setback::HistoryChanged.into())
            }
            Some(error) if error.is("42501") => {
                let statements = table.progress_grants_sql(true, self.options.target.role());
                Err(ApplyError::PermissionDenied { error, statements }.into())
            }
            Some(error) => Err(query_failed(step, QueryError::Server(error))),
        }
    }

    fn execute(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        statement: &Statement<'_>,
    ) -> (Completion, Result<(), Interrupt>) {
        if let Err(interrupt) = self.check_lock_held(step) {
            return (Completion::NotDone, Err(interrupt));
        }
        let failure =
            |error: &ServerError, prefix| transaction::standalone_failure(step, error, prefix);
        let repeats = !catalog_state::may_do_half(statement);
        let number = step.step.statements.end;
        let current = Current { statement: Some(number), copy_length: None };
        let sending = Sending { sql: statement.text, current, repeats, failure: &failure };
        let sent = self.send_until_unblocked(session, step, sending, |runner| {
            // Without the lock, another runner may be building this index.
            runner.check_lock_held(step).map_err(NotDone::with(Completion::NotDone))?;
            let dropped = runner.drop_leftover_index(session, step, statement);
            dropped.map_err(NotDone::with(Completion::Unknown))?;
            runner.check_lock_held(step).map_err(NotDone::with(Completion::NotDone))
        });
        let has_reply = sent.as_ref().err().is_none_or(|not_done| not_done.completion.is_none());
        if has_reply {
            self.report_leftover_indexes(session, statement);
        }
        match sent {
            Ok(()) => (Completion::Done, Ok(())),
            Err(NotDone { interrupt, completion: Some(completion) }) => {
                (completion, Err(interrupt))
            }
            Err(NotDone { interrupt, completion: None }) => {
                let has_left_nothing =
                    never_ran(&interrupt) || self.has_left_nothing(session, statement);
                let completion =
                    if has_left_nothing { Completion::NotDone } else { Completion::Unknown };
                (completion, Err(interrupt))
            }
        }
    }

    /// Names the INVALID indexes that a statement has left, now or in an earlier run: they block
    /// nothing, but cost time at each write.
    fn report_leftover_indexes(&mut self, session: &Session, statement: &Statement<'_>) {
        let Some(question) = catalog_state::leftover_indexes_sql(statement) else { return };
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        let leftover = session.query_row(&question, deadline).ok().flatten();
        if let Some(sql) = leftover.and_then(|row| row.into_iter().next().flatten()) {
            (self.emit)(Event::InvalidIndexes { sql });
        }
    }

    /// Whether a statement that failed has left nothing behind.
    fn has_left_nothing(&self, session: &Session, statement: &Statement<'_>) -> bool {
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        match inspect_once(session, statement.text, deadline).map(|inspection| inspection.state) {
            // What is done was done before.
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

    /// Sends a statement, again after each lock timeout, if it repeats. `before_again` runs before
    /// each further attempt.
    fn send_until_unblocked(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        sending: Sending<'_>,
        mut before_again: impl FnMut(&mut Self) -> Result<(), NotDone>,
    ) -> Result<(), NotDone> {
        let tag = tag(step.step.hash.as_str());
        let sql = format!("{tag}{}", sending.sql);
        let mut backoff = Backoff::default();
        loop {
            let sent = self.send_once(session, step, sending.current, &sql, &tag);
            let Some((error, blocker)) = sent.map_err(NotDone::with(Completion::Unknown))? else {
                return Ok(());
            };
            if let Some(signal) = self.stop.raised().filter(|_| error.is("57014")) {
                let statement = step.step.outside_transaction;
                return Err(NotDone::failed(stopped(signal, Some(step), statement, true)));
            }
            let failure = Box::new((sending.failure)(&error, tag.chars().count()));
            if !is_conflict(&error) || !sending.repeats {
                return Err(NotDone::failed(ApplyError::Failed(failure)));
            }
            let reason = conflict(&failure.error, blocker.as_ref(), true);
            let migration = Some(step.migration.name.as_str());
            let has_attempt = self.pause_for_lock(&mut backoff, migration, reason);
            if !has_attempt.map_err(NotDone::failed)? {
                return Err(NotDone::failed(ApplyError::LockTimeout { failure, blocker }));
            }
            before_again(self)?;
        }
    }

    /// Sends a statement once. Returns the server's error, if it replied with one, and what blocked
    /// the statement.
    fn send_once(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        current: Current,
        sql: &str,
        tag: &str,
    ) -> Result<Option<(ServerError, Option<Blocker>)>, Interrupt> {
        (self.emit)(step.sent(true));
        let outside_transaction = current.statement.and(step.step.outside_transaction);
        let mut watch = self.watch(session, Some(step), outside_transaction, Backend::Running(tag));
        let (emit, mut held_lock) = (&mut *self.emit, self.held_lock.as_mut());
        let deadline = Deadline::never(self.stop);
        let mut tick = |responses: &[Response]| {
            if let Some(held_lock) = &mut held_lock {
                held_lock.keep(emit);
            }
            watch.tick(responses, current, emit);
        };
        let message = Message { discards_rows: true, ..Message::from(sql) };
        let Responses { responses, end } =
            session.send_batch(&[message], false, deadline, &mut tick);
        let error = responses.iter().find_map(|response| response.error.as_ref());
        let watched = watch.finish(error.is_some_and(is_conflict), emit);
        self.watched(&watched);
        let is_completed = responses.iter().any(|response| response.completed > 0);
        match (responses.into_iter().find_map(|response| response.error), end) {
            (Some(error), _) if !error.ends_session() => Ok(Some((error, watched.blocker))),
            (None, None) => Ok(None),
            // The signal came too late for it.
            (None, Some(QueryError::Stopped(_))) if is_completed => Ok(None),
            (_, Some(QueryError::Stopped(signal))) => {
                Err(stopped(signal, Some(step), step.step.outside_transaction, false).into())
            }
            (Some(error), _) => Err(statement_lost(step, QueryError::Server(error))),
            (None, Some(error)) => Err(statement_lost(step, error)),
        }
    }
}

/// The connection was lost while the statement ran.
fn statement_lost(step: StepRef<'_>, error: QueryError) -> Interrupt {
    connection_lost(Some(step), Some(0), as_connection_error(error)).into()
}

/// Whether the server refused the statement before any of it ran.
fn never_ran(interrupt: &Interrupt) -> bool {
    matches!(interrupt, Interrupt::Fail(ApplyError::Failed(failure))
        if failure.error.is_before_running())
}

fn inspect_once(
    session: &Session,
    sql: &str,
    deadline: Deadline<'_>,
) -> Result<Inspection, QueryError> {
    let script = Script::parse(sql);
    let Some(statement) = script.statements().first() else {
        return Ok(catalog_state::without_inspection(sql, CatalogState::Unknown));
    };
    match catalog_state::inspection_sql(&statement) {
        Ok(question) => {
            let row = session.query_row(&question, deadline)?;
            Ok(catalog_state::inspection(&statement, row.as_deref()))
        }
        Err(state) => Ok(catalog_state::without_inspection(sql, state)),
    }
}

/// A comment before a statement of ours, by which a later run finds it in `pg_stat_activity`,
/// whichever backend a pooler gave it to.
pub(super) fn tag(hash: &str) -> String {
    format!("/* premigrate {} */ ", hash.get(..16).unwrap_or(hash))
}

pub(super) fn index_being_built(step: StepRef<'_>, index: String) -> ApplyError {
    ApplyError::IndexBeingBuilt { migration: step.migration.name.clone(), index }
}
