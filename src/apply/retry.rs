//! One transaction, sent again after a lock timeout or a conflict with another session.

use std::hash::{BuildHasher, RandomState};
use std::slice;
use std::time::{Duration, Instant};

use crate::history::table::Table;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Response, Session};
use crate::process::signals::{Deadline, Signal};

use super::error::{ApplyError, RolledBack};
use super::event::{Blocker, Event, HeldBy, Holder, HolderKind, RetryReason};
use super::failure::Failure;
use super::interrupt::{Interrupt, Setback, as_connection_error, connection_lost};
use super::observer::Backend;
use super::state::DatabaseState;
use super::train::{SendMode, Train};
use super::transaction::{
    Expected, StepRef, Timeouts, Transaction, TransactionResult, TransactionSpec,
};
use super::{QUERY_TIMEOUT, RETRY_PAUSE, Runner, lock};

/// The pause after a lock timeout doubles up to this, ± 50 %.
const MAX_LOCK_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// The attempts at something that met a lock.
pub(super) struct Backoff {
    attempt: u32,
    /// Before the next attempt.
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { attempt: 1, pause: RETRY_PAUSE }
    }
}

/// What came of a transaction, if it does not end the round.
pub(super) enum Reply {
    /// Holds what the statement that wrote the last row returned.
    Committed(Vec<Option<String>>),
    /// The server refused a part that we can do without, and that is left out from now on.
    PartRefused,
    /// Rolled back by what only other sessions cause; with the session, if it is known by now.
    Blocked { failure: Box<Failure>, blocker: Option<Blocker> },
}

impl<'a> Runner<'a> {
    /// Runs a transaction, and updates the state once it is committed.
    pub(super) fn commit(
        &mut self,
        session: &Session,
        spec: &TransactionSpec<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        self.commit_first(&mut Train::new(session, slice::from_ref(spec)), state)
    }

    /// Runs the first transaction of a train, and updates the state once it is committed.
    pub(super) fn commit_first(
        &mut self,
        train: &mut Train<'_>,
        state: &mut DatabaseState,
    ) -> Result<(), Interrupt> {
        let Some(spec) = train.first() else { return Ok(()) };
        let returned = self.run_first(train, state)?;
        train.pass();
        // No backend of an earlier connection can commit what comes after it.
        self.unanswered.clear();
        state.committed(spec, self.set.layout(), &returned).map_err(|setback| {
            self.end_train(train, None, TransactionResult::HistoryChanged);
            setback.into()
        })
    }

    /// Runs the first transaction of a train, again after each lock timeout. Once it is committed,
    /// returns what the statement that wrote the last row returned. If it is not, nothing is on its
    /// way any more.
    pub(super) fn run_first(
        &mut self,
        train: &mut Train<'_>,
        state: &DatabaseState,
    ) -> Result<Vec<Option<String>>, Interrupt> {
        let session = train.session;
        let Some(spec) = train.first() else { return Ok(Vec::new()) };
        let migration = spec.step.map(|step| step.migration.name.as_str());
        let step_number = spec.step.map(|step| step.number.step);
        let mut backoff = Backoff::default();
        loop {
            let was_sent_ahead = !train.is_idle();
            if !was_sent_ahead {
                self.check_signal()?;
            }
            let lost = self.lost_too_often(migration, step_number);
            let Some((result, seen)) = self.send_first(train, state, lost.is_some()) else {
                return Ok(Vec::new());
            };
            let result = match (result, lost) {
                // No backend runs it any more, and the history does not have it.
                (TransactionResult::Committed(_), Some(lost)) => {
                    self.unanswered.clear();
                    return Err(ApplyError::ConnectionLost(lost).into());
                }
                (TransactionResult::Cancelled { signal, .. }, Some(_)) => {
                    return Err(signal.into());
                }
                (result @ TransactionResult::Committed(_), None) => result,
                (result, _) => self.end_train(train, migration, result),
            };
            if matches!(result, TransactionResult::HistoryChanged) {
                // Either the row ahead was written in another way than the guards were to expect, or the
                // history has changed. It is known now which versions it has to have.
                self.sends_ahead = !was_sent_ahead;
                if was_sent_ahead {
                    continue;
                }
            }
            let (failure, blocker) = match self.reply(result, session, spec, state)? {
                Reply::Committed(row) => return Ok(row),
                Reply::PartRefused => continue,
                Reply::Blocked { failure, blocker } => (failure, blocker.or(seen)),
            };
            let reason = conflict(&failure.error, blocker.as_ref(), false);
            if !self.pause_for_lock(&mut backoff, migration, reason)? {
                return Err(ApplyError::LockTimeout { failure, blocker }.into());
            }
        }
    }

    /// Sends the first transaction of a train, unless it is on its way, and those that may follow it.
    /// Waits for the first one, and looks meanwhile for what blocks it.
    fn send_first(
        &mut self,
        train: &mut Train<'_>,
        state: &DatabaseState,
        guards_only: bool,
    ) -> Option<(TransactionResult, Option<Blocker>)> {
        let step = train.first()?.step;
        let mut watch = self.watch(train.session, step, None, Backend::Answered);
        self.send_ahead(train, state, guards_only);
        let emit = &mut *self.emit;
        let mut tick = |transaction: &Transaction<'_>, responses: &[Response]| {
            // The second message is begun once the guards of the first have held.
            let has_lock = matches!(responses, [Response { error: None, .. }, _, ..]);
            if let Some(step) = step.filter(|_| has_lock) {
                emit(step.sent(true));
            }
            watch.tick(responses, transaction.current(responses), emit);
        };
        let result = train.receive(Deadline::never(self.stop), &mut tick)?;
        let by_lock =
            matches!(&result, TransactionResult::Failed(failure) if is_conflict(&failure.error));
        let watched = watch.finish(by_lock, emit);
        self.watched(&watched);
        Some((result, watched.blocker))
    }

    /// Sends what may be on its way while the first transaction is under way.
    fn send_ahead(&self, train: &mut Train<'_>, state: &DatabaseState, guards_only: bool) {
        let timeouts = self.timeouts(train.session);
        if let Some(spec) = train.first().filter(|_| train.is_idle()) {
            let transaction = Transaction::new(spec, &self.expected(state), &timeouts);
            // A pooler in statement mode ends the session after our BEGIN, and the server would go on
            // with what was sent behind it.
            let may_be_cut = state.is_pooled && state.compared.is_none();
            let mode = if guards_only {
                SendMode::GuardsOnly
            } else if transaction.waits() || may_be_cut {
                SendMode::OneByOne
            } else {
                SendMode::AtOnce
            };
            train.send(spec, transaction, mode);
        }
        // The first in a session shows what the server takes, and whether another runner is at work. Some
        // poolers give the backend to others after the first COMMIT, whatever is on its way. And after a
        // lost connection, one transaction alone has to be to blame for the next.
        let alone = state.compared.is_none()
            || state.is_pooled
            || self.lost_connection.is_some()
            || !self.sends_ahead;
        while let Some((spec, rows)) = train.next().filter(|_| !alone) {
            if self.stop.raised().is_some() {
                return;
            }
            let expected = Expected { ahead: Some(rows), ..self.expected(state) };
            let transaction = Transaction::new(spec, &expected, &timeouts);
            if !train.has_room_for(&transaction) {
                return;
            }
            self.begin_notices(train.session, spec.step);
            train.send(spec, transaction, SendMode::AtOnce);
        }
    }

    /// Waits for the transactions that were sent behind one with this result. Their guards want its row,
    /// so that they do nothing; unless another runner has written just that row meanwhile. Then the
    /// history has changed.
    fn end_train(
        &mut self,
        train: &mut Train<'_>,
        behind: Option<&str>,
        result: TransactionResult,
    ) -> TransactionResult {
        use TransactionResult::{Cancelled, Committed, ConnectionLost, HistoryChanged};
        let is_known =
            !matches!(result, ConnectionLost { .. } | Cancelled { confirmed: false, .. });
        let mut has_applied = false;
        while let Some(migration) = train.migration() {
            let started = Instant::now();
            match train.receive(Deadline::never(self.stop), &mut |_, _| {}) {
                Some(Committed(_)) => {
                    has_applied = true;
                    self.record_applied(migration, Some(started.elapsed()));
                }
                _ if is_known => {}
                _ => self.unanswered.push(migration.to_owned()),
            }
        }
        train.restart();
        train.session.forget_notices_after(behind.unwrap_or_default());
        if has_applied && is_known && !matches!(result, Cancelled { .. }) {
            return HistoryChanged;
        }
        result
    }

    /// What a result means for the round.
    pub(super) fn reply(
        &mut self,
        result: TransactionResult,
        session: &Session,
        spec: &TransactionSpec<'_>,
        state: &DatabaseState,
    ) -> Result<Reply, Interrupt> {
        match result {
            TransactionResult::Committed(row) => Ok(Reply::Committed(row)),
            TransactionResult::TableLockRefused => {
                self.locks_history = false;
                Ok(Reply::PartRefused)
            }
            TransactionResult::UnsupportedSetting(setting) => {
                self.unsupported_settings.push(setting);
                Ok(Reply::PartRefused)
            }
            TransactionResult::Failed(failure) if is_conflict(&failure.error) => {
                Ok(Reply::Blocked { failure, blocker: None })
            }
            TransactionResult::Failed(failure) => Err(ApplyError::Failed(failure).into()),
            TransactionResult::NoAdvisoryLocks => {
                let server = "one without advisory locks".to_owned();
                let cause = QueryError::Client(ConnectionError::Unsupported(server));
                Err(ApplyError::Unreachable { attempts: vec![Attempt::at_query(cause)] }.into())
            }
            TransactionResult::NotHistoryTable => Err(self.not_history_table(session, spec.step)),
            TransactionResult::HistoryChanged => Err(Setback::HistoryChanged.into()),
            TransactionResult::HistoryLocked(failure) => match self.holder(session) {
                // A table lock like any other.
                HeldBy::Session(holder) if holder.kind == HolderKind::Other => {
                    let Holder { pid, application, open_for, .. } = holder;
                    let table = Some(self.options.table.to_string());
                    let blocker =
                        Blocker { pid, application, open_for, table, ..Blocker::default() };
                    Ok(Reply::Blocked { failure, blocker: Some(blocker) })
                }
                // Or one that no session stands for, such as that of a prepared transaction.
                HeldBy::Gone => Ok(Reply::Blocked { failure, blocker: None }),
                holder => Err(Setback::LockedOut(holder).into()),
            },
            TransactionResult::LockedOut => Err(Setback::LockedOut(self.holder(session)).into()),
            TransactionResult::ConnectionLost {
                error: ConnectionError::Lost(_, Some(error)),
                ..
            } if QueryError::Server(error.clone()).is_config_error() => {
                let attempts = vec![Attempt::at_query(QueryError::Server(error))];
                Err(ApplyError::Unreachable { attempts }.into())
            }
            TransactionResult::ConnectionLost { completed, error } => {
                Err(connection_lost(spec.step, completed, error).into())
            }
            TransactionResult::PermissionDenied { error, of_progress } => {
                Err(self.permission_denied(error, of_progress, spec, state, session).into())
            }
            TransactionResult::Cancelled { signal, confirmed } => {
                Err(stopped(signal, spec.step, None, confirmed).into())
            }
        }
    }

    pub(super) fn timeouts(&self, session: &Session) -> Timeouts {
        Timeouts {
            lock_timeout: self.options.lock_timeout,
            statement_timeout: self.options.statement_timeout,
            server_settings: self.options.target.settings.clone(),
            server_version: session.server_version(),
            unsupported_settings: self.unsupported_settings.clone(),
            locks_history: self.locks_history,
        }
    }

    /// The runner that holds the lock.
    pub(super) fn runner(&self, session: &Session) -> HeldBy {
        self.holder_by(session, &lock::runner_sql())
    }

    /// Who keeps us from working.
    fn holder(&self, session: &Session) -> HeldBy {
        self.holder_by(session, &lock::holder_sql(&self.options.table))
    }

    fn holder_by(&self, session: &Session, sql: &str) -> HeldBy {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        match session.query_row(sql, deadline) {
            Ok(row) => {
                let holder = row.and_then(|row| lock::parse_holder(&row));
                holder.map_or(HeldBy::Gone, HeldBy::Session)
            }
            Err(_) => HeldBy::Unseen,
        }
    }

    fn not_history_table(&self, session: &Session, step: Option<StepRef<'_>>) -> Interrupt {
        let table = self.options.table.clone();
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        match session.query_row(&table.problem_sql(), deadline) {
            Ok(row) => match row.and_then(|row| Table::problem(&row)) {
                Some(problem) => ApplyError::NotHistoryTable { table, problem }.into(),
                // It was another one a moment ago.
                None => Setback::HistoryChanged.into(),
            },
            Err(QueryError::Stopped(signal)) => signal.into(),
            Err(error) => connection_lost(step, None, as_connection_error(error)).into(),
        }
    }

    fn permission_denied(
        &self,
        error: ServerError,
        of_progress: bool,
        spec: &TransactionSpec<'_>,
        state: &DatabaseState,
        session: &Session,
    ) -> ApplyError {
        let (table, target) = (&self.options.table, &self.options.target);
        let role = target.role();
        if of_progress {
            let statements = table.progress_grants_sql(state.progress.exists, role);
            return ApplyError::PermissionDenied { error, statements };
        }
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        // Where there is no table yet, there is no answer, and nothing to grant.
        let sql = target.settings.under_role_sql(&table.missing_privileges_sql());
        let missing = session.query_row(&sql, deadline).ok().flatten();
        let missing = missing.unwrap_or_default();
        let mut statements =
            table.grants_sql(state.history.table_version, &spec.upgrade, &missing, role);
        statements.extend(spec.needs_table_lock().then(|| table.lock_grant_sql(role)));
        ApplyError::PermissionDenied { error, statements }
    }

    /// Waits for locks to be released. Returns whether there is another attempt.
    pub(super) fn pause_for_lock(
        &mut self,
        backoff: &mut Backoff,
        migration: Option<&str>,
        reason: RetryReason,
    ) -> Result<bool, ApplyError> {
        if backoff.attempt > self.options.lock_retries {
            return Ok(false);
        }
        backoff.attempt += 1;
        let pause = jittered(backoff.pause / 2, backoff.pause + backoff.pause / 2);
        backoff.pause = (backoff.pause * 2).min(MAX_LOCK_RETRY_PAUSE);
        (self.emit)(Event::Retrying {
            migration: migration.map(str::to_owned),
            reason,
            pause,
            attempt: backoff.attempt,
        });
        self.lock_waits += pause;
        self.pause(pause)?;
        Ok(true)
    }
}

pub(super) fn conflict(
    error: &ServerError,
    blocker: Option<&Blocker>,
    outside_transaction: bool,
) -> RetryReason {
    RetryReason::Lock {
        sqlstate: error.code.clone(),
        message: error.message.clone(),
        blocker: blocker.cloned(),
        outside_transaction,
    }
}

/// A signal came during a transaction, or a statement outside of one.
pub(super) fn stopped(
    signal: Signal,
    step: Option<StepRef<'_>>,
    outside_transaction: Option<&'static str>,
    confirmed: bool,
) -> ApplyError {
    let rolled_back = RolledBack {
        migration: step.map(|step| step.migration.name.clone()),
        confirmed,
        outside_transaction,
    };
    ApplyError::Stopped { signal, rolled_back: Some(rolled_back) }
}

/// Whether only other sessions cause this error, so that the next attempt may succeed.
pub(super) fn is_conflict(error: &ServerError) -> bool {
    match error.code.as_str() {
        // A lock timeout, a deadlock, a serialization failure.
        "55P03" | "40P01" | "40001" => true,
        // Another session changed or dropped the same object. The server does not translate these.
        "XX000" => ["tuple concurrently updated", "tuple concurrently deleted"]
            .contains(&error.message.as_str()),
        // Another session created an object of the same name, which neither could see.
        "23505" => error.schema.as_deref() == Some("pg_catalog"),
        _ => false,
    }
}

/// A random time in this range, so that runners that started together do not retry together.
pub(super) fn jittered(from: Duration, to: Duration) -> Duration {
    let random = RandomState::new().hash_one(std::process::id());
    let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX);
    from + Duration::from_millis(random % span.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_session_causes_is_a_conflict() {
        let error = |code: &str, message: &str, schema: Option<&str>| ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            schema: schema.map(str::to_owned),
            ..ServerError::default()
        };
        for (code, message, schema, expected) in [
            ("55P03", "", None, true),
            ("40P01", "", None, true),
            ("40001", "", None, true),
            ("XX000", "tuple concurrently updated", None, true),
            ("XX000", "tuple concurrently deleted", None, true),
            ("XX000", "tuple already updated by self", None, false),
            ("XX000", "cache lookup failed for type 1", None, false),
            ("23505", "", Some("pg_catalog"), true),
            ("23505", "", Some("public"), false),
            ("23505", "", None, false),
            ("42P07", "", None, false),
            ("57P04", "", None, false),
        ] {
            assert_eq!(is_conflict(&error(code, message, schema)), expected, "{code} {message}");
        }
    }

    #[test]
    fn jitter_stays_in_its_range_and_varies() {
        let (from, to) = (Duration::from_secs(1), Duration::from_secs(5));
        let times: Vec<_> = (0..50).map(|_| jittered(from, to)).collect();
        assert!(times.iter().all(|time| (from..=to).contains(time)));
        assert!(times.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
