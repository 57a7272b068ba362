//! Why a round ends early: to start over from the history, or for good.

use std::time::Duration;

use crate::postgres::session::{Attempt, ConnectionError, QueryError};
use crate::postgres::wait;
use crate::process::signals::Signal;

use super::error::ApplyError;
use super::event::HeldBy;
use super::failure::LostConnection;
use super::transaction::{self, StepRef};

/// Ends a round of work. `?` carries it up to the loop in `Runner::run`.
pub(super) enum Interrupt {
    /// Load the history again, decide again.
    StartOver(Setback),
    /// End the run.
    Fail(ApplyError),
}

/// Why a round has to start over.
pub(super) enum Setback {
    /// Another runner is at work, or the history is locked.
    LockedOut(HeldBy),
    /// The history or the progress is not what the plan was made from.
    HistoryChanged,
    /// A backend runs a statement of an earlier attempt, whose runner may be alive.
    BackendRuns { pause: Duration },
    /// The second connection, for a statement outside a transaction, could not be opened yet.
    NoSecondConnection { migration: String, second: Attempt },
    /// A pooler had no connection to the server for us, so that nothing was run.
    PoolerFull(Attempt),
    /// The connection was lost, and with it the server's reply.
    ConnectionLost(Box<LostConnection>),
}

impl From<ApplyError> for Interrupt {
    fn from(error: ApplyError) -> Interrupt {
        Interrupt::Fail(error)
    }
}

impl From<Signal> for Interrupt {
    fn from(signal: Signal) -> Interrupt {
        Interrupt::Fail(signal.into())
    }
}

impl From<Setback> for Interrupt {
    fn from(setback: Setback) -> Interrupt {
        Interrupt::StartOver(setback)
    }
}

/// The connection was lost after this many statements of the step's file had completed, or before
/// the server had begun with it.
pub(super) fn connection_lost(
    step: Option<StepRef<'_>>,
    completed: Option<usize>,
    error: ConnectionError,
) -> Setback {
    if let ConnectionError::Lost(_, Some(cause)) = &error {
        let cause = QueryError::Server(cause.clone());
        if wait::is_full(&cause) {
            return Setback::PoolerFull(Attempt::at_query(cause));
        }
    }
    Setback::ConnectionLost(Box::new(LostConnection {
        migration: step.map(|step| step.migration.name.clone()),
        step: step.map(|step| step.number.step),
        began: completed.is_some(),
        completed: completed.unwrap_or_default(),
        statements: step.map_or(0, |step| step.script.statements().len()),
        cause: error,
    }))
}

/// What a failed query of ours means for the step it was asked for.
pub(super) fn query_failed(step: StepRef<'_>, error: QueryError) -> Interrupt {
    match error {
        QueryError::Stopped(signal) => signal.into(),
        QueryError::Server(error) if !error.ends_session() => {
            let failure = transaction::record_failure(step, &error);
            ApplyError::Failed(Box::new(failure)).into()
        }
        error => connection_lost(Some(step), None, as_connection_error(error)).into(),
    }
}

/// What ended the connection, for a query that got no answer.
pub(super) fn as_connection_error(error: QueryError) -> ConnectionError {
    match error {
        QueryError::Client(error) => error,
        QueryError::Server(error) => ConnectionError::Lost(error.message.clone(), Some(error)),
        QueryError::Stopped(signal) => ConnectionError::Lost(signal.name().to_owned(), None),
    }
}
