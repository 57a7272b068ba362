//! Waiting for the database: which refusals pass, and which are final.

use std::time::Duration;

use crate::apply::event::Event;
use crate::postgres::conninfo::Target;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Session};
use crate::process::signals::{Deadline, Interrupted, Signal, StopFlag};

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// A signal came.
    Stopped(Signal),
    /// Each place that was tried, with its reason.
    Unreachable(Vec<Attempt>),
    /// We were let in, and the first question got no answer.
    HistoryTimeout,
}

/// The first pause between two attempts; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the only attempt may take where `--wait` is 0.
const ONE_TRY: Duration = Duration::from_secs(10);
/// How long the first question may take, once we are let in.
const QUESTION: Duration = Duration::from_secs(30);

/// How long to wait, and for what.
#[derive(Clone, Copy, Debug)]
pub struct WaitLimits {
    /// For the database to come up; zero is one try.
    pub database: Duration,
    /// For room in it, which another runner may be taking: a slot, or a pooler's connection.
    pub room: Duration,
}

/// Connects and asks a first question, and tries both again for as long as the reason against it is
/// one that passes. Tells the reason whenever it changes.
pub fn connect<T>(
    target: &Target,
    waits: WaitLimits,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
    ask: impl Fn(&Session, Deadline<'_>) -> Result<T, QueryError>,
) -> Result<(Session, T), ConnectError> {
    let one_try = waits.database.is_zero();
    let deadline = Deadline::after(if one_try { ONE_TRY } else { waits.database }, stop);
    let room = Deadline::after(waits.room.max(waits.database), stop);
    let mut limit = deadline;
    let mut pause = FIRST_PAUSE;
    let mut told = Vec::new();
    loop {
        let mut unanswered = false;
        let attempts = match Session::open(target, limit) {
            Ok(session) => match ask(&session, room.at_latest_in(QUESTION)) {
                Ok(answer) => return Ok((session, answer)),
                Err(cause) => {
                    session.close();
                    // A pooler lets us in, and keeps the question until a connection is free.
                    unanswered = cause == QueryError::Client(ConnectionError::TimedOut)
                        || gives_up_answering(&cause);
                    vec![Attempt::after_connecting(cause)]
                }
            },
            Err(attempts) => attempts,
        };
        if let Some(signal) = stop.raised() {
            return Err(ConnectError::Stopped(signal));
        }
        let full = unanswered || attempts.iter().any(|attempt| is_full(&attempt.cause));
        limit = if full { room } else { deadline };
        let left = limit.remaining().unwrap_or_default();
        let is_final = !unanswered
            && (attempts.iter().any(|attempt| is_rejection(&attempt.cause))
                || !attempts.iter().any(|attempt| is_temporary(&attempt.cause)));
        if one_try || left.is_zero() || is_final {
            // The last attempt may have been cut short by the limit; what was seen before it
            // tells more.
            let is_cut = attempts.iter().any(|attempt| attempt.cause.is_silence());
            let tells_more = is_cut && !unanswered && !is_final && !told.is_empty();
            let attempts = if tells_more { told } else { attempts };
            if unanswered || attempts.iter().any(|attempt| gives_up_answering(&attempt.cause)) {
                return Err(ConnectError::HistoryTimeout);
            }
            return Err(ConnectError::Unreachable(attempts));
        }
        if attempts != told {
            emit(Event::Waiting { attempts: attempts.clone(), left });
            told = attempts;
        }
        if let Err(Interrupted::Stopped(signal)) = limit.sleep(pause) {
            return Err(ConnectError::Stopped(signal));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether waiting may help.
pub fn is_temporary(cause: &QueryError) -> bool {
    match cause {
        QueryError::Stopped(_) => false,
        QueryError::Client(trouble) => match trouble {
            ConnectionError::Connect(kind, _) => *kind != std::io::ErrorKind::PermissionDenied,
            ConnectionError::Lookup(_) | ConnectionError::Lost(..) | ConnectionError::ReadOnly => {
                true
            }
            ConnectionError::TimedOut
            | ConnectionError::LoginTimedOut
            | ConnectionError::DnsTimedOut => true,
            ConnectionError::Tls(trouble) => trouble.is_temporary(),
            ConnectionError::Login(_)
            | ConnectionError::NoPassword
            | ConnectionError::Protocol(_) => false,
        },
        QueryError::Server(error) => is_temporary_server_error(error),
    }
}

fn is_temporary_server_error(error: &ServerError) -> bool {
    // PgBouncer says 08P01 for everything; these of its own refusals are final.
    const FINAL: [&str; 9] = [
        "no such database",
        "no such user",
        "authentication failed",
        "SASL",
        "SSL required",
        "login rejected",
        "unsupported startup parameter",
        "not allowed",
        "bouncer config error",
    ];
    let code = error.meant_code();
    // Starting up or shutting down; too many connections, or another resource that is used up; what
    // ails the server's own machine; and what concerns the connection itself.
    let of_the_moment = ["57P01", "57P02", "57P03"].contains(&code)
        || code.starts_with("53")
        || code.starts_with("58");
    let of_the_connection =
        code.starts_with("08") && !FINAL.iter().any(|words| error.message.contains(words));
    of_the_moment || of_the_connection || is_full_in_words(error)
}

/// Whether the server began to answer a question, and gave it up: behind a lock, by the role's own
/// `lock_timeout` or `statement_timeout`; on a standby, for what it had to replay.
pub fn gives_up_answering(cause: &QueryError) -> bool {
    const CODES: [&str; 3] = ["55P03", "57014", "40001"];
    matches!(cause, QueryError::Server(error) if CODES.contains(&error.code.as_str()))
}

/// Whether the server is there, and has no room for one more.
pub fn is_full(cause: &QueryError) -> bool {
    match cause {
        QueryError::Server(error) => error.meant_code() == "53300" || is_full_in_words(error),
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}

/// PgBouncer and Supavisor say it in words.
fn is_full_in_words(error: &ServerError) -> bool {
    const WORDS: [&str; 4] =
        ["query_wait_timeout", "no more connections allowed", "max clients", "MaxClients"];
    WORDS.iter().any(|words| error.message.contains(words))
}

/// Whether the server was there and would not have us: role, password, database, certificate.
pub fn is_rejection(cause: &QueryError) -> bool {
    match cause {
        QueryError::Server(_)
        | QueryError::Client(
            ConnectionError::NoPassword | ConnectionError::Login(_) | ConnectionError::Tls(_),
        ) => !is_temporary(cause),
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::tls::TlsError;

    fn server(code: &str, message: &str) -> QueryError {
        QueryError::Server(ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            ..ServerError::default()
        })
    }

    #[test]
    fn a_server_that_is_starting_or_full_is_waited_for() {
        for code in ["57P03", "57P01", "53300", "08006"] {
            assert!(is_temporary(&server(code, "")), "{code}");
        }
        assert!(is_temporary(&server(
            "08P01",
            "server login failed: the database system is starting up"
        )));
    }

    #[test]
    fn a_refusal_is_final() {
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert!(!is_temporary(&server(code, "")), "{code}");
            assert!(is_rejection(&server(code, "")), "{code}");
        }
        assert!(!is_temporary(&server("08P01", "no such database: app")));
        assert!(!is_temporary(&QueryError::Client(ConnectionError::Tls(TlsError::NotOffered))));
    }
}
