//! A session with the server, as blocking calls: connect, ask, send a flight of messages, cancel.
//!
//! The only room in which the driver's futures live. Everything is simple protocol, and nothing but
//! `application_name` is in the startup packet, so that every pooler passes it on. The driver's
//! errors leave as [`QueryError`] only.

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

/// Why something asked of the database did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// A signal ended it.
    Stopped(Signal),
    /// The server said no.
    Server(ServerError),
    /// The server could not be asked.
    Client(ConnectionError),
}

/// What can go wrong between us and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The host's name gives no address.
    Lookup(String),
    /// The address cannot be connected to.
    Connect(io::ErrorKind, String),
    /// TLS could not be agreed on, or the certificate does not pass.
    Tls(TlsError),
    /// The server's way to log in, or its part in it, will not do.
    Login(String),
    /// The server wants a password, and there is none.
    NoPassword,
    /// The connection ended; with the last warning that came before, which tells why.
    Lost(String, Option<ServerError>),
    /// The server takes no changes, and `target_session_attrs` asks for one that does.
    ReadOnly,
    /// No answer within the limit.
    TimedOut,
    /// The same from one that had accepted the connection.
    LoginTimedOut,
    /// The same from those who know where the host is.
    DnsTimedOut,
    NotPostgres,
    /// The server violates the protocol.
    Protocol(String),
}

impl QueryError {
    /// Whether it is what we were told that is wrong, and not the server.
    pub fn is_config_error(&self) -> bool {
        matches!(self, QueryError::Client(ConnectionError::Tls(trouble)) if trouble.is_config_error())
    }

    pub fn is_timeout(&self) -> bool {
        let QueryError::Client(trouble) = self else { return false };
        matches!(
            trouble,
            ConnectionError::TimedOut
                | ConnectionError::LoginTimedOut
                | ConnectionError::DnsTimedOut
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
    /// The server as the connection string names it; `None` after the log-in.
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
    /// The log-in of the second connection, which holds the lock.
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

/// What the server answered to one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// How many of its statements completed.
    pub completed: usize,
    /// The last row that came.
    pub row: Option<Vec<Option<String>>>,
    /// The error that ended it.
    pub error: Option<ServerError>,
}

/// The rows that a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// What its columns are called; also where there is no row.
    pub columns: Vec<String>,
    /// The values, as text.
    pub rows: Vec<Vec<Option<String>>>,
}

/// How a flight of messages ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responses {
    /// The answers that came, in the order of the messages; the last may be part of one.
    pub responses: Vec<Response>,
    /// Why there are no more, if some are missing; or the signal that came meanwhile.
    pub end: Option<QueryError>,
}

/// How long a cancelled statement may take to end: below Docker's ten seconds, with what follows.
const CANCEL: Duration = Duration::from_secs(4);
/// A cancel request that comes between two statements is lost, so it is sent again.
const CANCEL_AGAIN: Duration = Duration::from_millis(500);
/// How often whoever watches is shown how far it is.
const WATCH: Duration = Duration::from_secs(1);
/// How much of an answer is kept, in bytes: the history of a million migrations has room in it.
const LONGEST_ANSWER: usize = 256 << 20;
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

/// What the server said without being asked: the last warning, or the error that ended it all.
type LastNotice = Arc<Mutex<Option<ServerError>>>;

/// What a cancel request needs.
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

    /// Whether this is a server for `target_session_attrs`; asked only if there is a wish.
    pub(super) fn check_session_attrs(
        &self,
        wanted: SessionAttrs,
        deadline: Deadline<'_>,
    ) -> Result<(), QueryError> {
        let question = match wanted {
            SessionAttrs::Any => return Ok(()),
            SessionAttrs::ReadWrite => "select current_setting('transaction_read_only')::bool",
            SessionAttrs::Primary => "select pg_catalog.pg_is_in_recovery()",
        };
        match self.query_row(question, deadline)?.as_deref() {
            Some([Some(answer)]) if answer == "f" => Ok(()),
            _ => Err(QueryError::Client(ConnectionError::ReadOnly)),
        }
    }

    /// The server's major version, from the handshake; 0 if it does not say.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Sends one statement, and gives its last row back.
    pub fn query_row(
        &self,
        sql: &str,
        deadline: Deadline<'_>,
    ) -> Result<Option<Vec<Option<String>>>, QueryError> {
        Ok(last_row(self.query(sql, deadline)?))
    }

    /// Sends statements, and gives all rows of each back.
    pub fn query(&self, sql: &str, deadline: Deadline<'_>) -> Result<Vec<ResultSet>, QueryError> {
        let mut sent = pin!(gather(&self.client, sql));
        match blocking(&self.connection.runtime, deadline, sent.as_mut()) {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                let long = format!("an answer of more than {LONGEST_ANSWER} bytes");
                Err(QueryError::Client(ConnectionError::Protocol(long)))
            }
            Ok(Err(error)) => Err(self.cause(&error)),
            Err(interrupted) => {
                // Behind a lock, say, it would go on waiting without us.
                self.cancel_until_done(sent);
                Err(interrupted.into())
            }
        }
    }

    /// Sends one statement, and gives its last row back; none if it gave none. It is not waited for
    /// what becomes of a question that was given up.
    pub fn query_row_nowait(
        &self,
        sql: &str,
        deadline: Deadline<'_>,
    ) -> Option<Vec<Option<String>>> {
        let sent = gather(&self.client, sql);
        let Ok(answer) = blocking(&self.connection.runtime, deadline, sent) else {
            self.cancel(Deadline::ignoring_signals(CANCEL_AGAIN, &self.connection.stop));
            return None;
        };
        Some(last_row(answer.ok()??).unwrap_or_default())
    }

    /// Sends messages, each with any number of statements: all at once, in one round trip; or one
    /// by one, where each waits for the answer to the one before, and the first error skips to the
    /// last message, which then is to end the transaction.
    ///
    /// A signal, or the end of patience, has the server cancel what it is doing; the answers tell
    /// what came of it. As long as it lasts, `watch` is shown each second what has been answered.
    pub fn send_batch(
        &self,
        messages: &[&str],
        one_by_one: bool,
        deadline: Deadline<'_>,
        watch: &mut dyn FnMut(&[Response]),
    ) -> Responses {
        let responses = RefCell::new(Vec::new());
        let mut sent = pin!(fly(&self.client, messages, one_by_one, &responses));
        let end = loop {
            match blocking(&self.connection.runtime, deadline.at_latest_in(WATCH), sent.as_mut()) {
                Ok(result) => break result.err().map(|error| self.cause(&error)),
                // Whatever that wait ended with: a signal may have come since.
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

    /// The process number that the server named in the handshake. A pooler names one of its own
    /// making.
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

    /// Has the server cancel what it is doing for this session, and waits until it has.
    fn cancel_until_done<F: Future>(&self, mut sent: Pin<&mut F>) {
        let limit = Deadline::ignoring_signals(CANCEL, &self.connection.stop);
        while limit.check().is_ok() {
            self.cancel(limit.at_latest_in(CANCEL / 2));
            if blocking(&self.connection.runtime, limit.at_latest_in(CANCEL_AGAIN), sent.as_mut())
                .is_ok()
            {
                return;
            }
        }
        // Terminate would only be sent after the answer.
        self.connection.task.abort();
    }

    /// Asks the server to cancel what this session is doing. No answer comes; what becomes of it
    /// is seen on the session itself.
    fn cancel(&self, deadline: Deadline<'_>) {
        let CancelHandle { token, address, tcp_options, tls } = &self.cancel_handle;
        let request = async {
            let socket = Socket::dial(address, tcp_options).await.ok()?.expecting_peer_to_close();
            token.cancel_query_raw(socket, tls.clone()).await.ok()
        };
        // If it does not get through, the caller's own limit ends the wait.
        let _ = blocking(&self.connection.runtime, deadline, request);
    }

    /// Sends Terminate, as dropping it does.
    pub fn close(self) {}

    fn cause(&self, error: &tokio_postgres::Error) -> QueryError {
        let last_notice =
            self.last_notice.lock().ok().and_then(|mut last_notice| last_notice.take());
        cause(error, last_notice)
    }
}

pub(super) type Connected = Connection<Socket, EncryptedStream>;

/// Waits for this future, as long as there is patience.
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

/// Keeps the connection going, and keeps what the server says on its own account.
async fn run_connection(mut connection: Connected, last_notice: LastNotice) {
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        let said = match &message {
            Ok(AsyncMessage::Notice(notice)) => Some(ServerError::from(notice)),
            Ok(_) => None,
            Err(error) => error.as_db_error().map(ServerError::from),
        };
        // The last word before a connection breaks: `terminating connection because of ...`.
        if let Some(said) = said.filter(|said| said.is_class("57"))
            && let Ok(mut slot) = last_notice.lock()
        {
            *slot = Some(said);
        }
        if message.is_err() {
            return;
        }
    }
}

fn last_row(mut responses: Vec<ResultSet>) -> Option<Vec<Option<String>>> {
    responses.pop().and_then(|mut answer| answer.rows.pop())
}

/// All rows of each statement, unless they are too many.
async fn gather(
    client: &Client,
    sql: &str,
) -> Result<Option<Vec<ResultSet>>, tokio_postgres::Error> {
    let mut answer: Vec<ResultSet> = Vec::new();
    let mut length = 0_usize;
    let mut stream = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        match message? {
            SimpleQueryMessage::RowDescription(columns) => {
                let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                answer.push(ResultSet { columns, rows: Vec::new() });
            }
            SimpleQueryMessage::Row(row) => {
                let row = values(&row);
                let bytes: usize = row.iter().flatten().map(String::len).sum();
                // A value is more than its text.
                length = length.saturating_add(bytes + size_of_val(row.as_slice()));
                if length > LONGEST_ANSWER {
                    return Ok(None);
                }
                if let Some(last) = answer.last_mut() {
                    last.rows.push(row);
                }
            }
            _ => {}
        }
    }
    Ok(Some(answer))
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.try_get(at).ok()?.map(str::to_owned)).collect()
}

async fn fly(
    client: &Client,
    messages: &[&str],
    one_by_one: bool,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), tokio_postgres::Error> {
    if one_by_one {
        let mut failed = false;
        for (place, message) in messages.iter().enumerate() {
            let is_last = place + 1 == messages.len();
            if failed && !is_last {
                responses.borrow_mut().push(Response::default());
                continue;
            }
            collect(client.simple_query_raw(message).await?, responses).await?;
            failed |= responses.borrow().last().is_some_and(|answer| answer.error.is_some());
        }
    } else {
        // Each call only sends: the answers are waited for below.
        let mut streams = Vec::with_capacity(messages.len());
        for message in messages {
            streams.push(client.simple_query_raw(message).await?);
        }
        for stream in streams {
            collect(stream, responses).await?;
        }
    }
    Ok(())
}

async fn collect(
    stream: tokio_postgres::SimpleQueryStream,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), tokio_postgres::Error> {
    responses.borrow_mut().push(Response::default());
    let mut stream = pin!(stream);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let mut responses = responses.borrow_mut();
        let Some(answer) = responses.last_mut() else { continue };
        match message {
            Ok(SimpleQueryMessage::CommandComplete(_)) => answer.completed += 1,
            Ok(SimpleQueryMessage::Row(row)) => {
                answer.row = Some(values(&row));
            }
            Ok(_) => {}
            Err(error) => match error.as_db_error() {
                Some(said) => answer.error = Some(ServerError::from(said)),
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
