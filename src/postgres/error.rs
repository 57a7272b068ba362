//! Why a query or a connection failed.

use std::error::Error as _;
use std::{fmt, io};

use serde::{Serialize, Serializer};

use super::known_messages;
use super::server_error::ServerError;
use super::tls::TlsError;
use crate::process::signals::{Interrupted, Signal};

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
    /// Migrations cannot run on this server.
    Unsupported(String),
    /// The server rejects a setting that the connection string asks for.
    Setting {
        origin: String,
        error: ServerError,
    },
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
        match self {
            QueryError::Server(error) => {
                error.is_class("08") && error.meant_code() == known_messages::NO_TRANSACTIONS
            }
            QueryError::Client(error) => matches!(
                error,
                ConnectionError::Tls(TlsError::Unusable { .. })
                    | ConnectionError::Setting { .. }
                    | ConnectionError::Unsupported(_)
            ),
            QueryError::Stopped(_) => false,
        }
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

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Stopped(signal) => f.write_str(signal.name()),
            QueryError::Server(error) => write!(f, "{} ({})", error.message, error.code),
            QueryError::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectionError {}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectionError::Lookup(reason) => {
                return write!(f, "could not resolve the host name ({reason})");
            }
            ConnectionError::Connect(_, reason)
            | ConnectionError::Protocol(reason)
            | ConnectionError::Lost(reason, None) => reason,
            ConnectionError::Lost(_, Some(last_notice)) => &last_notice.message,
            ConnectionError::NotPostgres => "this is not a PostgreSQL server",
            ConnectionError::Tls(error) => return error.fmt(f),
            ConnectionError::Login(reason) => return write!(f, "login failed ({reason})"),
            ConnectionError::NoPassword => "the server requires a password, but none was given",
            ConnectionError::Unsupported(server) => {
                return write!(
                    f,
                    "the server is {server}; premigrate needs PostgreSQL 13 or later"
                );
            }
            ConnectionError::Setting { origin, error } => {
                let ServerError { message, code, .. } = error;
                return write!(f, "the server rejects {origin}: {message} ({code})");
            }
            ConnectionError::ReadOnly => {
                "the server is read-only, but one that takes writes is required"
            }
            ConnectionError::TimedOut => "timed out",
            ConnectionError::LoginTimedOut => {
                "timed out: the server accepted the connection but did not answer"
            }
            ConnectionError::DnsTimedOut => {
                "could not resolve the host name: no name server answered"
            }
        })
    }
}

impl Serialize for ConnectionError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<TlsError> for ConnectionError {
    fn from(error: TlsError) -> ConnectionError {
        ConnectionError::Tls(error)
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

/// The driver's error, as ours. Its `Display` leaves the reason to `source()`, and its kinds can be
/// told apart by their texts only.
pub(super) fn cause(error: &tokio_postgres::Error, last_notice: Option<ServerError>) -> QueryError {
    if let Some(error) = error.as_db_error() {
        return QueryError::Server(ServerError::from(error));
    }
    let source = error.source();
    let reason = source.map_or_else(|| error.to_string(), ToString::to_string);
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let ours = source.and_then(|source| source.downcast_ref::<ConnectionError>());
    QueryError::Client(match (error.to_string().as_str(), io, ours) {
        ("authentication error", ..) => ConnectionError::Login(reason),
        // It may have the kind of an error of the connection.
        ("error parsing response from server", ..) => violation(&reason),
        (_, Some(io), _) => io_cause(io, last_notice),
        (_, _, Some(error)) => error.clone(),
        _ if error.is_closed() => ConnectionError::Lost(reason, last_notice),
        _ => match reason.as_str() {
            "server does not support TLS" => ConnectionError::Tls(TlsError::NotOffered),
            "password missing" => ConnectionError::NoPassword,
            _ => violation(&reason),
        },
    })
}

fn violation(reason: &dyn fmt::Display) -> ConnectionError {
    ConnectionError::Protocol(format!("the server violates the protocol ({reason})"))
}

fn io_cause(error: &io::Error, last_notice: Option<ServerError>) -> ConnectionError {
    match ConnectionError::of_io(error) {
        Some(ConnectionError::Tls(TlsError::Cut(why))) => ConnectionError::Lost(why, last_notice),
        Some(error) => error,
        None => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => violation(error),
            _ => ConnectionError::Lost(error.to_string(), last_notice),
        },
    }
}
