//! A session with the server, as blocking calls: query, send a batch of messages, cancel.
//!
//! Only the simple protocol is used, and only `application_name` is in the startup packet, so that
//! it works through every pooler. The driver's futures stay in this module, `login` and
//! `backend_pid`, and its errors leave as [`QueryError`].

use std::cell::RefCell;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Connection, SimpleQueryMessage, SimpleQueryRow,
};

use crate::postgres::conninfo::{Host, SessionAttrs};
use crate::postgres::server_error::ServerError;
use crate::postgres::socket::{Address, PreAuthError, Socket, TcpOptions};
use crate::postgres::tls::{EncryptedStream, Tls, TlsError};
use crate::process::signals::{Deadline, Interrupted, POLL_INTERVAL, Signal, StopFlag};

use super::backend_pid::handshake_pid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    Stopped(Signal),
    Server(ServerError),
    Client(ConnectionError),
}

/// A failure between us and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The host name could not be resolved.
    Lookup(String),
    Connect(io::ErrorKind, String),
    Tls(TlsError),
    /// The authentication method is not supported, or the server's part in it is wrong.
    Login(String),
    /// The server requires a password, and none is given.
    NoPassword,
    /// With the last notice before it, which has the reason.
    Lost(String, Option<ServerError>),
    /// The server does not satisfy `target_session_attrs`.
    ReadOnly,
    TimedOut,
    /// After the connection was accepted.
    LoginTimedOut,
    DnsTimedOut,
    NotPostgres,
    /// The server violates the protocol.
    Protocol(String),
}

impl QueryError {
    /// Whether our configuration is wrong, and not the server.
    pub fn is_config_error(&self) -> bool {
        matches!(self, QueryError::Client(ConnectionError::Tls(error)) if error.is_config_error())
    }

    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            QueryError::Client(
                ConnectionError::TimedOut
                    | ConnectionError::LoginTimedOut
                    | ConnectionError::DnsTimedOut
            )
        )
    }
}

impl From<Interrupted> for QueryError {
    fn from(interrupted: Interrupted) -> QueryError {
        match interrupted {
            Interrupted::TimeOut => QueryError::Client(ConnectionError::TimedOut),
            Interrupted::Stopped(signal) => QueryError::Stopped(signal),
        }
    }
}

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

/// The response to one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The number of its statements that completed.
    pub completed: usize,
    /// The last row.
    pub row: Option<Vec<Option<String>>>,
    pub error: Option<ServerError>,
}

/// The rows of one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// The names of the columns, also where there is no row.
    pub columns: Vec<String>,
    /// Values as text.
    pub rows: Vec<Vec<Option<String>>>,
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
/// A cancel request that arrives between two statements is lost, so that it is repeated.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two calls of the `watch` callback.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The most rows that are kept, in bytes: enough for the history of a million migrations.
const MAX_ROWS_BYTES: usize = 256 << 20;
/// The limit for sending Terminate.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session with the server. Dropping it sends Terminate.
pub struct Session {
    // Dropped first: then the connection has nothing more to send, and ends.
    client: Client,
    connection: RunningConnection,
    last_notice: LastNotice,
    cancel_handle: CancelHandle,
    server_version: u32,
}

/// The task that sends and receives for a client, and the runtime that it is on.
struct RunningConnection {
    runtime: Runtime,
    task: JoinHandle<()>,
    stop: StopFlag,
}

impl Drop for RunningConnection {
    fn drop(&mut self) {
        let deadline = Deadline::ignoring_signals(CLOSE_TIMEOUT, &self.stop);
        let _ = blocking(&self.runtime, deadline, &mut self.task);
    }
}

/// The last notice about the connection, or the error that ended it.
type LastNotice = Arc<Mutex<Option<ServerError>>>;

pub(super) struct CancelHandle {
    pub(super) token: CancelToken,
    pub(super) address: Address,
    pub(super) tcp_options: TcpOptions,
    pub(super) tls: Tls,
}

impl Session {
    pub(super) fn start(
        runtime: Runtime,
        client: Client,
        connection: Connected,
        cancel_handle: CancelHandle,
        stop: StopFlag,
    ) -> Session {
        let server_version = connection
            .parameter("server_version")
            .and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|major| major.parse().ok())
            .unwrap_or_default();
        let last_notice = LastNotice::default();
        let task = runtime.spawn(run_connection(connection, last_notice.clone()));
        let connection = RunningConnection { runtime, task, stop };
        Session { client, connection, last_notice, cancel_handle, server_version }
    }

    /// Without a query where any server is accepted.
    pub(super) fn check_session_attrs(
        &self,
        wanted: SessionAttrs,
        deadline: Deadline<'_>,
    ) -> Result<(), QueryError> {
        let query = match wanted {
            SessionAttrs::Any => return Ok(()),
            SessionAttrs::ReadWrite => "select current_setting('transaction_read_only')::bool",
            SessionAttrs::Primary => "select pg_catalog.pg_is_in_recovery()",
        };
        match self.query_row(query, deadline)?.as_deref() {
            Some([Some(answer)]) if answer == "f" => Ok(()),
            _ => Err(QueryError::Client(ConnectionError::ReadOnly)),
        }
    }

    /// The major version of the server, from the login; 0 if unknown.
    pub fn server_version(&self) -> u32 {
        self.server_version
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
        let mut sent = pin!(query_rows(&self.client, sql));
        match blocking(&self.connection.runtime, deadline, sent.as_mut()) {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                let long = format!("the server sent more than {MAX_ROWS_BYTES} bytes of rows");
                Err(QueryError::Client(ConnectionError::Protocol(long)))
            }
            Ok(Err(error)) => Err(self.cause(&error)),
            Err(interrupted) => {
                // Otherwise it would go on, waiting for a lock, for example.
                self.cancel_until_done(sent);
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
        let sent = query_rows(&self.client, sql);
        let Ok(answer) = blocking(&self.connection.runtime, deadline, sent) else {
            self.cancel(Deadline::ignoring_signals(CANCEL_INTERVAL, &self.connection.stop));
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
        messages: &[&str],
        one_by_one: bool,
        deadline: Deadline<'_>,
        watch: &mut dyn FnMut(&[Response]),
    ) -> Responses {
        let responses = RefCell::new(Vec::new());
        let mut sent = pin!(send_messages(&self.client, messages, one_by_one, &responses));
        let end = loop {
            match blocking(
                &self.connection.runtime,
                deadline.at_most(WATCH_INTERVAL),
                sent.as_mut(),
            ) {
                Ok(result) => break result.err().map(|error| self.cause(&error)),
                // Checked anew, since a signal may have come after that wait.
                Err(_) => match deadline.check() {
                    Ok(()) => watch(&responses.borrow()),
                    Err(interrupted) => {
                        self.cancel_until_done(sent);
                        break Some(interrupted.into());
                    }
                },
            }
        };
        Responses { responses: responses.take(), end }
    }

    /// The process ID that the server sent at the login. A pooler sends one of its own.
    pub fn handshake_pid(&self) -> i32 {
        blocking(
            &self.connection.runtime,
            Deadline::ignoring_signals(CLOSE_TIMEOUT, &self.connection.stop),
            handshake_pid(&self.cancel_handle.token),
        )
        .ok()
        .flatten()
        .unwrap_or_default()
    }

    /// Cancels the running statement, and waits until it has ended.
    fn cancel_until_done<F: Future>(&self, mut sent: Pin<&mut F>) {
        let limit = Deadline::ignoring_signals(CANCEL_TIMEOUT, &self.connection.stop);
        while limit.check().is_ok() {
            self.cancel(limit.at_most(CANCEL_TIMEOUT / 2));
            if blocking(&self.connection.runtime, limit.at_most(CANCEL_INTERVAL), sent.as_mut())
                .is_ok()
            {
                return;
            }
        }
        // The server does not respond, and Terminate would only be sent after the response.
        self.connection.task.abort();
    }

    /// Sends a cancel request, to which there is no response.
    fn cancel(&self, deadline: Deadline<'_>) {
        let CancelHandle { token, address, tcp_options, tls } = &self.cancel_handle;
        let request = async {
            let socket = Socket::dial(address, tcp_options).await.ok()?.expecting_peer_to_close();
            token.cancel_query_raw(socket, tls.clone()).await.ok()
        };
        // The caller notices if it was lost.
        let _ = blocking(&self.connection.runtime, deadline, request);
    }

    fn cause(&self, error: &tokio_postgres::Error) -> QueryError {
        let last_notice =
            self.last_notice.lock().ok().and_then(|mut last_notice| last_notice.take());
        cause(error, last_notice)
    }
}

pub(super) type Connected = Connection<Socket, EncryptedStream>;

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

/// Sends and receives until the connection ends, and keeps its last notice.
async fn run_connection(mut connection: Connected, last_notice: LastNotice) {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        let notice = match &message {
            Ok(AsyncMessage::Notice(notice)) => Some(ServerError::from(notice)),
            Ok(_) => None,
            Err(error) => error.as_db_error().map(ServerError::from),
        };
        // The reason why a connection ends: `terminating connection because of ...`.
        if let Some(notice) = notice.filter(|notice| notice.is_class("57"))
            && let Ok(mut last_notice) = last_notice.lock()
        {
            *last_notice = Some(notice);
        }
        if message.is_err() {
            return;
        }
    }
}

fn last_row(mut results: Vec<ResultSet>) -> Option<Vec<Option<String>>> {
    results.pop().and_then(|mut result| result.rows.pop())
}

/// The rows of each statement; `None` if they are too many.
async fn query_rows(
    client: &Client,
    sql: &str,
) -> Result<Option<Vec<ResultSet>>, tokio_postgres::Error> {
    let mut results: Vec<ResultSet> = Vec::new();
    let mut length = 0_usize;
    let mut stream = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        match message? {
            SimpleQueryMessage::RowDescription(columns) => {
                let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                results.push(ResultSet { columns, rows: Vec::new() });
            }
            SimpleQueryMessage::Row(row) => {
                let row = values(&row);
                let bytes: usize = row.iter().flatten().map(String::len).sum();
                // Values take more than their text.
                length = length.saturating_add(bytes + size_of_val(row.as_slice()));
                if length > MAX_ROWS_BYTES {
                    return Ok(None);
                }
                if let Some(last) = results.last_mut() {
                    last.rows.push(row);
                }
            }
            _ => {}
        }
    }
    Ok(Some(results))
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.try_get(at).ok()?.map(str::to_owned)).collect()
}

async fn send_messages(
    client: &Client,
    messages: &[&str],
    one_by_one: bool,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), tokio_postgres::Error> {
    if one_by_one {
        let mut failed = false;
        for (index, message) in messages.iter().enumerate() {
            let is_last = index + 1 == messages.len();
            if failed && !is_last {
                responses.borrow_mut().push(Response::default());
                continue;
            }
            collect_response(client.simple_query_raw(message).await?, responses).await?;
            failed |= responses.borrow().last().is_some_and(|response| response.error.is_some());
        }
    } else {
        // Each call only sends; the responses are awaited below.
        let mut streams = Vec::with_capacity(messages.len());
        for message in messages {
            streams.push(client.simple_query_raw(message).await?);
        }
        for stream in streams {
            collect_response(stream, responses).await?;
        }
    }
    Ok(())
}

async fn collect_response(
    stream: tokio_postgres::SimpleQueryStream,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), tokio_postgres::Error> {
    responses.borrow_mut().push(Response::default());
    let mut stream = pin!(stream);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let mut responses = responses.borrow_mut();
        let Some(response) = responses.last_mut() else { continue };
        match message {
            Ok(SimpleQueryMessage::CommandComplete(_)) => response.completed += 1,
            Ok(SimpleQueryMessage::Row(row)) => response.row = Some(values(&row)),
            Ok(_) => {}
            Err(error) => match error.as_db_error() {
                Some(error) => response.error = Some(ServerError::from(error)),
                None => return Err(error),
            },
        }
    }
    Ok(())
}

/// The driver's error, as ours. Its `Display` leaves the reason to `source()`, and its kinds can be
/// told apart by their texts only.
pub(super) fn cause(error: &tokio_postgres::Error, last_notice: Option<ServerError>) -> QueryError {
    if let Some(error) = error.as_db_error() {
        return QueryError::Server(ServerError::from(error));
    }
    let source = error.source();
    let reason = source.map_or_else(|| error.to_string(), ToString::to_string);
    QueryError::Client(if let Some(io) = source.and_then(|source| source.downcast_ref()) {
        io_cause(io, last_notice)
    } else if let Some(tls) = source.and_then(|source| source.downcast_ref::<TlsError>()) {
        match tls {
            TlsError::PreAuth(error) => pre_auth_cause(*error),
            tls => ConnectionError::Tls(tls.clone()),
        }
    } else {
        match (error.to_string().as_str(), reason.as_str()) {
            _ if error.is_closed() => ConnectionError::Lost(reason, last_notice),
            (_, "server does not support TLS") => ConnectionError::Tls(TlsError::NotOffered),
            (_, "password missing") => ConnectionError::NoPassword,
            ("authentication error", _) => ConnectionError::Login(reason),
            _ => ConnectionError::Protocol(reason),
        }
    })
}

fn io_cause(error: &io::Error, last_notice: Option<ServerError>) -> ConnectionError {
    if let Some(error) = PreAuthError::of_io(error) {
        return pre_auth_cause(error);
    }
    match TlsError::of_io(error) {
        Some(TlsError::Cut(why)) => ConnectionError::Lost(why, last_notice),
        Some(tls) => ConnectionError::Tls(tls),
        None => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                ConnectionError::Protocol(error.to_string())
            }
            _ => ConnectionError::Lost(error.to_string(), last_notice),
        },
    }
}

fn pre_auth_cause(error: PreAuthError) -> ConnectionError {
    match error {
        PreAuthError::ErrorInsteadOfTlsReply => ConnectionError::Tls(TlsError::AnsweredWithError),
        PreAuthError::NotPostgres => ConnectionError::NotPostgres,
        PreAuthError::TooMuch => ConnectionError::Protocol(error.to_string()),
    }
}
