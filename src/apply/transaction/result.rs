//! What became of a transaction, read from the server's responses. Pure.

use crate::apply::error_place::offset_of_name;
use crate::apply::failure::{Excerpt, Failure, Phase, Place, excerpt_bytes};
use crate::postgres::server_error::{Position, ServerError};
use crate::postgres::session::{ConnectionError, QueryError, Response, Responses};
use crate::process::signals::Signal;
use crate::sql::redact::Passage;
use crate::sql::{self, LineColumn, Piece};

use super::{
    FileMessage, IN_TRANSACTION, IN_TRANSACTION_STATEMENTS, StatementRole, Statements, StepRef,
    Transaction,
};

/// What a transaction came to.
#[derive(Debug)]
pub(in crate::apply) enum TransactionResult {
    /// The server committed it. Holds what the statement that wrote the last row returned.
    Committed(Vec<Option<String>>),
    /// Another runner holds the lock, or writes to the history.
    LockedOut,
    /// Another session has locked the history.
    HistoryLocked(Box<Failure>),
    /// The history or the progress is not what the plan was made from.
    HistoryChanged,
    /// The server lacks advisory locks.
    NoAdvisoryLocks,
    /// Rows cannot be written to what is in the place of the history.
    NotHistoryTable,
    /// This role may not lock the history, and need not.
    TableLockRefused,
    /// The server does not have this setting.
    UnsupportedSetting(&'static str),
    /// Rolled back.
    Failed(Box<Failure>),
    /// Rolled back: a privilege on the history or the progress table is missing.
    PermissionDenied { error: ServerError, of_progress: bool },
    /// The connection ended before the server replied to everything.
    ConnectionLost {
        /// How many statements of the file are known to have completed; `None` if the server had not
        /// begun with it.
        completed: Option<usize>,
        error: ConnectionError,
    },
    /// A signal ended it.
    Cancelled {
        signal: Signal,
        /// Whether the server confirmed the rollback.
        confirmed: bool,
    },
}

/// What the server works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::apply) struct Current {
    /// From 1; `None` if it is not known.
    pub(in crate::apply) statement: Option<usize>,
    /// How many bytes of data it gets.
    pub(in crate::apply) copy_length: Option<u64>,
}

impl Transaction<'_> {
    /// Reads the result from the responses to [`Transaction::messages`].
    pub(in crate::apply) fn result(&self, batch: &Responses) -> TransactionResult {
        let responses = &batch.responses;
        let failed = responses.iter().enumerate().find_map(|(index, response)| {
            Some((index, response.completed, response.error.as_ref()?))
        });
        // The error with which the server ends a session is a lost connection.
        let fatal = failed.and_then(|(_, _, error)| error.ends_session().then_some(error));
        let is_complete = fatal.is_none() && self.is_complete(responses);
        let lost = |error| TransactionResult::ConnectionLost {
            // The file is begun with once our own statements before it are done.
            completed: (responses.len() > 1).then(|| self.completed(responses)),
            error,
        };

        match (&batch.end, fatal) {
            (Some(QueryError::Stopped(signal)), _) => {
                let came_too_late = failed.is_none_or(|(_, _, error)| !error.is("57014"));
                if !(is_complete && came_too_late) {
                    return TransactionResult::Cancelled {
                        signal: *signal,
                        confirmed: is_complete,
                    };
                }
            }
            (_, Some(fatal)) => return lost(ended_by(fatal)),
            (Some(QueryError::Client(error)), _) if failed.is_none() => return lost(error.clone()),
            (Some(QueryError::Server(error)), _) if failed.is_none() => {
                return lost(ended_by(error));
            }
            _ => {}
        }

        match failed {
            // The server rolls back, also where the connection is lost after this.
            Some((index, completed, error)) => self.failed(index, completed, error),
            // No error anywhere: the row was written in the transaction that holds the lock, and
            // the reply to COMMIT is COMMIT. The driver does not pass that word on; it would be
            // ROLLBACK only after an error.
            None => {
                let row = responses.get(self.file.len() + 1).and_then(|reply| reply.row.clone());
                TransactionResult::Committed(row.unwrap_or_default())
            }
        }
    }

    fn is_complete(&self, responses: &[Response]) -> bool {
        let last = responses.last();
        responses.len() == self.file.len() + 3
            && last.is_some_and(|response| response.completed > 0 || response.error.is_some())
    }

    /// What the server works on, as far as its responses tell.
    pub(in crate::apply) fn current(&self, responses: &[Response]) -> Current {
        self.current_of_file(responses).unwrap_or_default()
    }

    fn current_of_file(&self, responses: &[Response]) -> Option<Current> {
        let step = self.spec.running()?;
        let at = responses.len().checked_sub(2)?;
        let message = self.file.get(at).filter(|message| message.phase == Phase::Statement)?;
        let completed = message.completed(responses.last()?.completed);
        let first = message.piece.first_statement + completed;
        let next = self.file.get(at + 1).map(|message| message.piece.first_statement);
        let is_only = first + 1 == next.unwrap_or(step.step.statements.end);
        let copy_length = message.piece.data.and_then(|data| u64::try_from(data.len()).ok());
        Some(Current { statement: is_only.then_some(first + 1), copy_length })
    }

    /// How many statements of the file have completed.
    fn completed(&self, responses: &[Response]) -> usize {
        let messages = self.file.iter().zip(responses.iter().skip(1));
        let of_file = messages.filter(|(message, _)| message.phase == Phase::Statement);
        of_file.map(|(message, response)| message.completed(response.completed)).sum()
    }

    /// The result of an error in this message, after so many statements of the message.
    fn failed(&self, message: usize, completed: usize, error: &ServerError) -> TransactionResult {
        let Some(message) = message.checked_sub(1) else {
            return self.opening_failed(role_of(&self.opening, completed), error);
        };
        match (self.file.get(message), self.spec.step) {
            (Some(message), Some(step)) => {
                let (phase, location) = message.failed(step, completed, error);
                self.failure(phase, location, error)
            }
            _ if message > self.file.len() => self.failure(Phase::Commit, None, error),
            _ => self.closing_failed(role_of(&self.closing, completed), error),
        }
    }

    fn opening_failed(
        &self,
        role: Option<StatementRole>,
        error: &ServerError,
    ) -> TransactionResult {
        use StatementRole::{
            Begin, History, Lock, Progress, ProgressTable, Setting, Table, TableKind, TableLock,
            TableLook,
        };
        let Some(role) = role else { return self.failure(Phase::Begin, None, error) };
        match (role, error.code.as_str()) {
            // A standby: the history was read at another server, through a pooler or of several
            // hosts.
            (Begin, "0A000") => {
                TransactionResult::ConnectionLost { completed: None, error: ended_by(error) }
            }
            (Lock | TableLook, "22P02") => TransactionResult::LockedOut,
            (TableLock, "55P03") => {
                TransactionResult::HistoryLocked(self.rolled_back(Phase::Record, None, error))
            }
            (TableKind, "22P02") => TransactionResult::NotHistoryTable,
            // Undefined function, feature not supported.
            (Lock, "42883" | "0A000") => TransactionResult::NoAdvisoryLocks,
            // No privilege, or no table.
            (TableLock, "42501" | "42809") if !self.spec.needs_table_lock() => {
                TransactionResult::TableLockRefused
            }
            // 42P01: the table is gone.
            (History | Progress | TableLock, "22P02" | "42P01") => {
                TransactionResult::HistoryChanged
            }
            // drizzle-orm, which takes no lock, made it just now.
            (Table | ProgressTable, "42P06" | "42P07" | "23505") => {
                TransactionResult::HistoryChanged
            }
            (Setting(name), _) if is_unsupported(error) => {
                TransactionResult::UnsupportedSetting(name)
            }
            (Progress | ProgressTable, "42501") => permission_denied(error, true),
            (Table | History | TableLock, "42501") => permission_denied(error, false),
            (Table | ProgressTable | History, _) => self.failure(Phase::Record, None, error),
            _ => self.failure(Phase::Begin, None, error),
        }
    }

    fn closing_failed(
        &self,
        role: Option<StatementRole>,
        error: &ServerError,
    ) -> TransactionResult {
        match role {
            Some(StatementRole::Deferred) => self.failure(Phase::Deferred, None, error),
            Some(StatementRole::StillLocked) if error.is("25P01") || error.is("22P02") => {
                self.failure(Phase::LostTransaction, None, error)
            }
            Some(StatementRole::ProgressRow) if error.is("42501") => permission_denied(error, true),
            _ if error.is("42501") => permission_denied(error, false),
            _ => self.failure(Phase::Record, None, error),
        }
    }

    /// What the response to [`Transaction::opening`] alone says; `None` if it is no error.
    pub(in crate::apply) fn opening_result(&self, reply: &Response) -> Option<TransactionResult> {
        let error = reply.error.as_ref()?;
        Some(self.opening_failed(role_of(&self.opening, reply.completed), error))
    }

    /// What the response to [`Transaction::closing`] alone says; `None` if it is no error.
    pub(in crate::apply) fn closing_result(&self, reply: &Response) -> Option<TransactionResult> {
        let error = reply.error.as_ref()?;
        Some(self.closing_failed(role_of(&self.closing, reply.completed), error))
    }

    fn failure(
        &self,
        phase: Phase,
        location: Option<ErrorLocation<'_>>,
        error: &ServerError,
    ) -> TransactionResult {
        TransactionResult::Failed(self.rolled_back(phase, location, error))
    }

    fn rolled_back(
        &self,
        phase: Phase,
        location: Option<ErrorLocation<'_>>,
        error: &ServerError,
    ) -> Box<Failure> {
        let failure = failure(self.spec.step, phase, location, error);
        // What belongs to a statement outside a transaction was rolled back, other than itself.
        Box::new(Failure { outside_transaction: None, ..failure })
    }
}

impl FileMessage<'_> {
    /// How many statements of the file have completed, where the message has completed so many.
    fn completed(&self, of_message: usize) -> usize {
        let ours = self.guarded.as_ref().map_or(0, |_| IN_TRANSACTION_STATEMENTS);
        of_message.saturating_sub(ours)
    }

    fn failed<'s>(
        &self,
        step: StepRef<'s>,
        completed: usize,
        error: &ServerError,
    ) -> (Phase, Option<ErrorLocation<'s>>) {
        let mut prefix = 0;
        if self.guarded.is_some() {
            if completed < IN_TRANSACTION_STATEMENTS && error.is("25P01") {
                return (Phase::LostTransaction, None);
            }
            prefix = IN_TRANSACTION.chars().count();
        }
        let completed = self.completed(completed);
        (self.phase, ErrorLocation::new(step, &self.piece, prefix, completed, error))
    }
}

/// Whether this error at a SET says that the server does not have the setting, or does not let us use
/// it. Any other, such as a cancel or a lack of memory, says nothing about the setting.
pub(in crate::apply) fn is_unsupported(error: &ServerError) -> bool {
    // Unknown, forbidden, fixed, not implemented, not possible on this system.
    ["42704", "42501", "55P02", "0A000", "22023"].contains(&error.code.as_str())
}

fn role_of(statements: &Statements, index: usize) -> Option<StatementRole> {
    statements.get(index).map(|(role, _)| *role)
}

fn permission_denied(error: &ServerError, of_progress: bool) -> TransactionResult {
    TransactionResult::PermissionDenied { error: error.clone(), of_progress }
}

fn ended_by(error: &ServerError) -> ConnectionError {
    ConnectionError::Lost(error.message.clone(), Some(error.clone()))
}

fn failure(
    step: Option<StepRef<'_>>,
    phase: Phase,
    location: Option<ErrorLocation<'_>>,
    error: &ServerError,
) -> Failure {
    let mut error = error.clone();
    if let Some(step) = step {
        let whole = || Passage::whole(step.script, error.tells_secret);
        let passage = location.as_ref().map_or_else(whole, |location| location.passage.clone());
        error.hide_secrets(&passage);
    }
    Failure {
        migration: step.map(|step| step.migration.name.clone()),
        file: step.map(|step| step.migration.file.clone()),
        phase,
        statement: location.as_ref().map(|location| location.statement),
        statements: step.map_or(0, |step| step.script.statements().len()),
        position: location.as_ref().map(|location| location.position),
        place: location.as_ref().map(|location| location.place),
        excerpt: location.map(|location| location.excerpt),
        error,
        advice: None,
        step: step.and_then(|step| step.number.of_several()),
        outside_transaction: step.and_then(|step| step.step.outside_transaction),
    }
}

/// A statement outside a transaction failed. `prefix` is the number of characters of ours that
/// stood before it.
pub(in crate::apply) fn standalone_failure(
    step: StepRef<'_>,
    error: &ServerError,
    prefix: usize,
) -> Failure {
    let piece = step.script.piece(step.step.statements.start);
    let location = piece.and_then(|piece| ErrorLocation::new(step, &piece, prefix, 0, error));
    failure(Some(step), Phase::Statement, location, error)
}

/// A statement of a step failed that was sent by itself, and will be rolled back.
pub(in crate::apply) fn statement_failure(
    step: StepRef<'_>,
    piece: &Piece<'_>,
    error: &ServerError,
) -> Failure {
    let location = ErrorLocation::new(step, piece, 0, 0, error);
    let failure = failure(Some(step), Phase::Statement, location, error);
    Failure { outside_transaction: None, ..failure }
}

/// The file has ended the transaction of a step that was sent statement by statement.
pub(in crate::apply) fn lost_failure(step: StepRef<'_>, error: &ServerError) -> Failure {
    failure(Some(step), Phase::LostTransaction, None, error)
}

/// A setting of an earlier step failed before a statement outside a transaction.
pub(in crate::apply) fn replay_failure(
    step: StepRef<'_>,
    setting: &Piece<'_>,
    error: &ServerError,
) -> Failure {
    let location = ErrorLocation::new(step, setting, 0, 0, error);
    failure(Some(step), Phase::Replay, location, error)
}

/// A query or a write of ours failed that a statement outside a transaction needs.
pub(in crate::apply) fn record_failure(step: StepRef<'_>, error: &ServerError) -> Failure {
    failure(Some(step), Phase::Record, None, error)
}

/// A query of ours failed that reads the sizes of tables.
pub(in crate::apply) fn sizes_failure(error: &ServerError) -> Failure {
    failure(None, Phase::Sizes, None, error)
}

/// A statement of ours failed that repairs what an earlier one has left.
pub(in crate::apply) fn repair_failure(step: StepRef<'_>, error: &ServerError) -> Failure {
    failure(Some(step), Phase::Repair, None, error)
}

/// A place in a migration's file.
#[derive(Debug)]
struct ErrorLocation<'s> {
    /// From 1.
    statement: usize,
    position: LineColumn,
    place: Place,
    /// What the excerpt is of.
    passage: Passage<'s, 's>,
    excerpt: Excerpt,
}

impl<'s> ErrorLocation<'s> {
    /// The place of an error in a piece of the file that was sent after `prefix` characters of
    /// ours: the server's position; or else, in the statement that has not completed, the line of the
    /// data of a COPY, the name that the error is about, or the beginning.
    fn new(
        step: StepRef<'s>,
        piece: &Piece<'_>,
        prefix: usize,
        completed: usize,
        error: &ServerError,
    ) -> Option<ErrorLocation<'s>> {
        let (script, text) = (step.script, step.script.text());
        let (statement, offset, place) = match error.position {
            Some(Position::InStatement(position)) => {
                let position = position.saturating_sub(prefix);
                let from = text.get(piece.start..).unwrap_or_default();
                let offset = piece.start + sql::offset_of(from, position);
                (script.statement_at(offset)?, offset, Place::Server)
            }
            Some(Position::InInternalQuery { .. }) | None => {
                let index = piece.first_statement + completed;
                let statement = script.statements().get(index)?;
                let line = error.copy_line().and_then(|line| script.copy_line(index, line));
                let (offset, place) = match (line, offset_of_name(statement.text, error)) {
                    (Some(line), _) => (line, Place::CopyLine),
                    (None, Some(name)) => (statement.start + name, Place::Name),
                    (None, None) => (statement.start, Place::Statement),
                };
                (index, offset, place)
            }
        };
        let position = LineColumn::at(text, offset);
        let passage = Passage::of(script, excerpt_bytes(text, offset), error.tells_secret);
        let excerpt = Excerpt::of(&passage, offset, position.line, place.is_exact());
        Some(ErrorLocation { statement: statement + 1, position, place, passage, excerpt })
    }
}
