//! A session with the server, as blocking calls: query, send a batch of messages, cancel.
//!
//! Only the simple protocol is used, and only `application_name` is in the startup packet, so that
//! it works through every pooler. The driver's futures stay in this module, and its errors leave it as
//! [`QueryError`].

pub use super::error::{ConnectionError, QueryError};

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postgres::error::DbError;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, CancelToken, Connection};

use crate::postgres::conninfo::{Host, TcpOptions};
use crate::postgres::notices::{Notice, NoticeKind, NoticeLevel, Notices};
use crate::postgres::result::ResultSet;
use crate::postgres::server::ServerKind;
use crate::postgres::server_error::ServerError;
use crate::postgres::socket::{Address, Socket};
use crate::postgres::tls::{EncryptedStream, Tls};
use crate::process::signals::{Deadline, Interrupted, POLL_INTERVAL, StopFlag};

use super::backend_pid::handshake_pid;
use super::error::cause;
use super::relay::{Awaited, Relay};
use super::simple_query::{MAX_ROWS_BYTES, OnTheirWay, ReceivedReplies, Sender};

/// A failed attempt to connect to one address, or to use a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub stage: Stage,
    /// The server as the connection string names it; `None` after the login.
    pub host: Option<Host>,
    /// `None` where the name was not resolved.
    pub address: Option<Address>,
    /// Whether with TLS, where the attempts with and without failed for different reasons.
    pub tls: Option<bool>,
    pub cause: QueryError,
}

/// What an attempt failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Login,
    /// The login of the second connection, which holds the lock.
    SecondLogin,
    /// The login to another database of the server, to create ours.
    CreateDatabase,
    Query,
}

impl Attempt {
    pub fn at_login(host: &Host, address: Option<&Address>, cause: QueryError) -> Attempt {
        let (host, address) = (Some(host.clone()), address.cloned());
        Attempt { stage: Stage::Login, host, address, tls: None, cause }
    }

    pub fn at_query(cause: QueryError) -> Attempt {
        Attempt { stage: Stage::Query, host: None, address: None, tls: None, cause }
    }
}

/// A message to the server, with any number of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub sql: &'a str,
    /// The data for its `COPY ... FROM STDIN`.
    pub data: Option<&'a str>,
    /// Whether its rows are passed over, however long they are.
    pub discards_rows: bool,
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(sql: &'a str) -> Message<'a> {
        Message { sql, data: None, discards_rows: false }
    }
}

/// The response to one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The number of its statements that completed.
    pub completed: usize,
    /// The last row, unless the message discards them.
    pub row: Option<Vec<Option<String>>>,
    pub error: Option<ServerError>,
}

/// The responses to a batch of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responses {
    /// In the order of the messages; the last may be incomplete.
    pub responses: Vec<Response>,
    /// Why some are missing; or the signal or timeout by which the batch was cancelled.
    pub end: Option<QueryError>,
}

/// The limit for a cancelled statement to end: with what follows, less than the ten seconds that
/// Docker gives.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(4);
/// A cancel request that arrives between two messages, or during a COMMIT, is lost, so that it is
/// repeated.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);
/// The first interval where more transactions were sent behind, which would run; the pauses double.
const FIRST_CANCEL_INTERVAL: Duration = Duration::from_millis(10);
/// Between two calls of the `watch` callback.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the connection of a cancel request is kept for the server to close it.
const CANCEL_CLOSE_TIMEOUT: Duration = Duration::from_secs(6);
/// The limit for sending Terminate.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session with the server. Dropping it sends Terminate.
pub struct Session {
    // Dropped first: then the connection has nothing more to send, and ends.
    sender: Sender,
    connection: RunningConnection,
    ending: Arc<Mutex<Ending>>,
    cancel_handle: CancelHandle,
    server: ServerKind,
    /// The shortest time that a query has taken.
    round_trip: Cell<Duration>,
    /// Whether the connection string names no other server than this one.
    pub is_only_choice: bool,
}

/// The task that sends and receives for a client, and the runtime that it is on.
struct RunningConnection {
    runtime: Runtime,
    task: JoinHandle<()>,
    /// The cancel request that was sent last.
    cancel_request: RefCell<Option<JoinHandle<()>>>,
    stop: StopFlag,
}

impl RunningConnection {
    fn run<F: Future>(&self, deadline: Deadline<'_>, future: F) -> Result<F::Output, Interrupted> {
        blocking(&self.runtime, deadline, future)
    }

    fn cleanup_deadline(&self, time: Duration) -> Deadline<'_> {
        Deadline::ignoring_signals(time, &self.stop)
    }
}

impl Drop for RunningConnection {
    fn drop(&mut self) {
        let deadline = Deadline::ignoring_signals(CLOSE_TIMEOUT, &self.stop);
        let _ = blocking(&self.runtime, deadline, &mut self.task);
        // PgBouncer 1.18 crashes if this connection is closed before the request was passed on.
        if let Some(request) = self.cancel_request.get_mut().as_mut().filter(|it| !it.is_finished())
        {
            let deadline = Deadline::ignoring_signals(CANCEL_CLOSE_TIMEOUT, &self.stop);
            let _ = blocking(&self.runtime, deadline, request);
        }
    }
}

/// Why the connection has ended, as far as anybody has said so.
#[derive(Debug, Default)]
struct Ending {
    /// The last notice about the connection, or the error that ended it.
    notice: Option<ServerError>,
    /// How the server has violated the protocol.
    violation: Option<ConnectionError>,
}

#[derive(Clone)]
pub(super) struct CancelHandle {
    pub(super) token: CancelToken,
    pub(super) address: Address,
    pub(super) tcp_options: TcpOptions,
    pub(super) tls: Tls,
}

impl CancelHandle {
    /// Sends a cancel request, and waits until the server has closed the connection. Until then, a
    /// further signal does not end the process.
    async fn send_request(self, stop: StopFlag) {
        let Ok(socket) = Socket::dial(&self.address, self.tcp_options).await else { return };
        let _delay = stop.delay_exit();
        let relay = Relay::new(socket.expecting_peer_to_close(), Awaited::default(), true);
        let _ = self.token.cancel_query_raw(relay, self.tls).await;
    }
}

impl Session {
    pub(super) fn start(
        runtime: Runtime,
        sender: Sender,
        connection: Connected,
        cancel_handle: CancelHandle,
        stop: StopFlag,
    ) -> Session {
        let server = ServerKind::new(&|name| connection.parameter(name));
        let ending = Arc::<Mutex<Ending>>::default();
        let (awaited, notices) = (sender.awaited.clone(), sender.notices.clone());
        let task = run_connection(connection, ending.clone(), awaited, notices);
        let task = runtime.spawn(task);
        let connection =
            RunningConnection { runtime, task, cancel_request: RefCell::default(), stop };
        Session {
            sender,
            connection,
            ending,
            cancel_handle,
            server,
            round_trip: Cell::new(Duration::MAX),
            is_only_choice: true,
        }
    }

    /// The major version of the server, from the login; 0 if unknown.
    pub fn server_version(&self) -> u32 {
        self.server.version
    }

    /// The shortest time that a query has taken; `Duration::MAX` until one has finished.
    pub fn round_trip(&self) -> Duration {
        self.round_trip.get()
    }

    /// Fails if migrations cannot run on the server.
    pub fn check_server(&self) -> Result<(), QueryError> {
        match self.server.unsupported() {
            Some(server) => Err(QueryError::Client(ConnectionError::Unsupported(server))),
            None => Ok(()),
        }
    }

    /// Keeps the notices of what is sent from now on; those about one subject count together.
    pub fn begin_notices(&self, subject: &str, level: NoticeLevel) {
        self.notices(|notices| notices.begin(subject, level));
    }

    /// Keeps no notices of what is sent from now on.
    pub fn end_notices(&self) {
        self.notices(Notices::end);
    }

    /// The notices about this that came since the last call.
    pub fn take_notices(&self, subject: &str) -> Vec<Notice> {
        self.notices(|notices| notices.take(subject))
    }

    /// How many notices about this were left out since the last call.
    pub fn left_out_notices(&self, subject: &str) -> usize {
        self.notices(|notices| notices.left_out(subject))
    }

    /// Forgets the notices of what was sent behind what is about this.
    pub fn forget_notices_after(&self, subject: &str) {
        self.notices(|notices| notices.forget_after(subject));
    }

    fn notices<T: Default>(&self, change: impl FnOnce(&mut Notices) -> T) -> T {
        self.sender.notices.lock().map(|mut notices| change(&mut notices)).unwrap_or_default()
    }

    /// Runs statements, and returns the last row of the last one.
    pub fn query_row(
        &self,
        sql: &str,
        deadline: Deadline<'_>,
    ) -> Result<Option<Vec<Option<String>>>, QueryError> {
        Ok(last_row(self.query(sql, deadline)?))
    }

    /// Runs statements, and returns the rows of each.
    pub fn query(&self, sql: &str, deadline: Deadline<'_>) -> Result<Vec<ResultSet>, QueryError> {
        let started = Instant::now();
        let mut sent = pin!(self.sender.query_rows(sql));
        let result = self.connection.run(deadline, sent.as_mut());
        self.round_trip.set(self.round_trip.get().min(started.elapsed()));
        match result {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                let long = format!("the server sent more than {MAX_ROWS_BYTES} bytes of rows");
                Err(QueryError::Client(ConnectionError::Protocol(long)))
            }
            Ok(Err(error)) => Err(self.cause(&error)),
            Err(interrupted) => {
                // Otherwise it would go on, waiting for a lock, for example.
                self.cancel_until_done(sent, CANCEL_INTERVAL);
                Err(interrupted.into())
            }
        }
    }

    /// Like [`Session::query_row`]; after the deadline, the statement is cancelled without waiting
    /// for its end. The row is empty if there is none.
    pub fn query_row_nowait(
        &self,
        sql: &str,
        deadline: Deadline<'_>,
    ) -> Option<Vec<Option<String>>> {
        let sent = self.sender.query_rows(sql);
        let Ok(answer) = self.connection.run(deadline, sent) else {
            self.cancel(self.connection.cleanup_deadline(CANCEL_INTERVAL));
            return None;
        };
        Some(last_row(answer.ok()??).unwrap_or_default())
    }

    /// Sends messages, each with any number of statements: all at once, in one round trip; or one by
    /// one, each after the response to the one before, where an error skips to the last message,
    /// which has to end the transaction.
    ///
    /// A signal or the deadline cancels the running statement; the responses show the outcome.
    /// Meanwhile, `watch` gets the responses once a second.
    pub fn send_batch(
        &self,
        messages: &[Message<'_>],
        one_by_one: bool,
        deadline: Deadline<'_>,
        watch: &mut dyn FnMut(&[Response]),
    ) -> Responses {
        if !one_by_one {
            let mut pipeline = self.pipeline();
            pipeline.send(messages);
            return pipeline.receive(messages.len(), deadline, watch);
        }
        let received = ReceivedReplies::default();
        let mut sent = pin!(self.sender.send_one_by_one(messages, &received));
        let result = self.watched(sent.as_mut(), deadline, &mut || watch(&received.responses()));
        let end = match result {
            Ok(result) => result.err().map(|error| self.cause(&error)),
            Err(interrupted) => {
                self.cancel_until_done(sent, CANCEL_INTERVAL);
                Some(interrupted.into())
            }
        };
        Responses { responses: received.take(), end }
    }

    /// For messages that are sent before those ahead of them are answered.
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline { session: self, sent: OnTheirWay::default(), rest: VecDeque::new(), end: None }
    }

    /// Runs the future until the deadline, and calls `tick` once a second.
    fn watched<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        deadline: Deadline<'_>,
        tick: &mut dyn FnMut(),
    ) -> Result<F::Output, Interrupted> {
        loop {
            match self.connection.run(deadline.at_most(WATCH_INTERVAL), future.as_mut()) {
                Ok(output) => return Ok(output),
                // Checked anew, since a signal may have come after that wait.
                Err(_) => deadline.check().map(|()| tick())?,
            }
        }
    }

    /// The process ID that the server sent at the login. A pooler sends one of its own.
    pub fn handshake_pid(&self) -> i32 {
        // Nothing is sent, so that this needs no deadline.
        let pid = self.connection.runtime.block_on(handshake_pid(&self.cancel_handle.token));
        pid.unwrap_or_default()
    }

    /// Cancels the running statement, and whatever runs after it, until all has ended.
    fn cancel_until_done<F: Future>(&self, mut sent: Pin<&mut F>, mut pause: Duration) {
        let limit = self.connection.cleanup_deadline(CANCEL_TIMEOUT);
        while limit.check().is_ok() {
            self.cancel(limit.at_most(CANCEL_TIMEOUT / 2));
            if self.connection.run(limit.at_most(pause), sent.as_mut()).is_ok() {
                return;
            }
            pause = (pause * 2).min(CANCEL_INTERVAL);
        }
        // The server does not respond, and Terminate would only be sent after the response.
        self.connection.task.abort();
    }

    /// Sends a cancel request, to which there is no response, unless one is still under way.
    fn cancel(&self, deadline: Deadline<'_>) {
        let mut request = self.connection.cancel_request.borrow_mut();
        if request.as_ref().is_none_or(JoinHandle::is_finished) {
            let stop = self.connection.stop.clone();
            let sent = self.cancel_handle.clone().send_request(stop);
            *request = Some(self.connection.runtime.spawn(sent));
        }
        if let Some(request) = request.as_mut() {
            // The caller notices if it was lost.
            let _ = self.connection.run(deadline, request);
        }
    }

    fn cause(&self, error: &tokio_postgres::Error) -> QueryError {
        let ending = self.ending.lock().ok();
        let (notice, violation) = ending
            .map(|mut ending| (ending.notice.take(), ending.violation.clone()))
            .unwrap_or_default();
        match violation {
            // The driver only says that it is closed.
            Some(violation) if error.is_closed() => QueryError::Client(violation),
            _ => cause(error, notice),
        }
    }
}

/// Messages that are sent without waiting, and the responses to them in the same order.
pub struct Pipeline<'s> {
    session: &'s Session,
    sent: OnTheirWay,
    /// The responses that came while everything was cancelled.
    rest: VecDeque<Response>,
    /// Why there are no further responses.
    end: Option<QueryError>,
}

impl Pipeline<'_> {
    /// Sends messages, each with any number of statements, behind those that were sent before. The
    /// driver reads replies while it writes.
    pub fn send(&mut self, messages: &[Message<'_>]) {
        let Session { sender, connection, .. } = self.session;
        // Ends at once, and so needs no deadline.
        connection.runtime.block_on(sender.send_all(messages, &self.sent));
    }

    /// The responses to the next messages, so many.
    ///
    /// A signal or the deadline cancels what runs, and what was sent behind it; the responses show the
    /// outcome. Meanwhile, `watch` gets the responses once a second.
    pub fn receive(
        &mut self,
        count: usize,
        deadline: Deadline<'_>,
        watch: &mut dyn FnMut(&[Response]),
    ) -> Responses {
        if self.end.is_some() {
            let count = count.min(self.rest.len());
            return Responses {
                responses: self.rest.drain(..count).collect(),
                end: self.end.clone(),
            };
        }
        let received = ReceivedReplies::default();
        // What was sent ahead would go on, and each wait for it might be too short to notice a signal.
        let result = deadline.check().and_then(|()| {
            let receiving = pin!(self.sent.receive(&received, count));
            self.session.watched(receiving, deadline, &mut || watch(&received.responses()))
        });
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.end = Some(self.session.cause(&error)),
            Err(interrupted) => self.cancel(&received, count, interrupted),
        }
        Responses { responses: received.take(), end: self.end.clone() }
    }

    /// Cancels all that is on its way, and receives the responses.
    fn cancel(&mut self, received: &ReceivedReplies, count: usize, interrupted: Interrupted) {
        let rest = ReceivedReplies::default();
        let all = pin!(async {
            self.sent.receive(received, count).await?;
            self.sent.receive(&rest, self.sent.count()).await
        });
        let is_alone = received.count() + self.sent.count() <= count;
        let pause = if is_alone { CANCEL_INTERVAL } else { FIRST_CANCEL_INTERVAL };
        self.session.cancel_until_done(all, pause);
        self.rest = rest.take().into();
        self.end = Some(interrupted.into());
    }
}

pub(super) type Connected = Connection<Relay<Socket>, Relay<EncryptedStream>>;

/// Runs the future until the deadline.
pub(super) fn blocking<F: Future>(
    runtime: &Runtime,
    deadline: Deadline<'_>,
    future: F,
) -> Result<F::Output, Interrupted> {
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            let tick = deadline.remaining().map_or(POLL_INTERVAL, |left| left.min(POLL_INTERVAL));
            match tokio::time::timeout(tick, future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) => deadline.check()?,
            }
        }
    })
}

/// Sends and receives until the connection ends, and keeps why, and the notices that are asked for.
async fn run_connection(
    mut connection: Connected,
    ending: Arc<Mutex<Ending>>,
    awaited: Awaited,
    notices: Arc<Mutex<Notices>>,
) {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        let notice = match &message {
            Ok(AsyncMessage::Notice(notice)) => {
                if let Some(subject) = awaited.subject_of_notice() {
                    keep(notice, &subject, &notices);
                }
                Some(notice)
            }
            Ok(_) => None,
            Err(error) => error.as_db_error(),
        };
        // The reason why a connection ends: `terminating connection because of ...`.
        if let Some(notice) = notice.filter(|notice| notice.code().code().starts_with("57"))
            && let Ok(mut ending) = ending.lock()
        {
            ending.notice = Some(ServerError::from(notice));
        }
        // Notices may come without end, and others have to have their turn.
        tokio::task::yield_now().await;
        if let Err(error) = &message {
            if let QueryError::Client(violation @ ConnectionError::Protocol(_)) = cause(error, None)
                && let Ok(mut ending) = ending.lock()
            {
                ending.violation = Some(violation);
            }
            return;
        }
    }
}

fn keep(notice: &DbError, subject: &str, notices: &Mutex<Notices>) {
    let severity = notice.parsed_severity().map(|severity| severity.to_string());
    let kind = NoticeKind {
        severity: severity.as_deref().unwrap_or_else(|| notice.severity()),
        sqlstate: notice.code().code(),
        message: notice.message(),
        routine: notice.routine(),
    };
    if let Ok(mut notices) = notices.lock() {
        notices.add(subject, kind, || ServerError::from(notice));
    }
}

fn last_row(mut results: Vec<ResultSet>) -> Option<Vec<Option<String>>> {
    results.pop().and_then(|mut result| result.rows.pop())
}
