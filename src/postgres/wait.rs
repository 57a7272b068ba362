//! Waiting for the database: which errors are temporary, and which are final.

use std::time::Duration;

use crate::postgres::conninfo::Target;
use crate::postgres::error::{ConnectionError, QueryError};
use crate::postgres::known_messages::REJECTED;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, Session, Stage};
use crate::process::signals::{Deadline, Interrupted, Signal, StopFlag};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    Stopped(Signal),
    Unreachable(Vec<Attempt>),
    /// The login succeeded, and the first query got no answer.
    QueryTimedOut,
}

/// The first pause between two attempts; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The limit of the only attempt where `--wait` is 0.
const SINGLE_ATTEMPT: Duration = Duration::from_secs(10);
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait, and for what.
#[derive(Clone, Copy, Debug)]
pub struct WaitLimits {
    /// For the server to come up; zero is a single attempt.
    pub server: Duration,
    /// For a free slot of the server or its pooler. Longer than for the server once another runner was
    /// seen, which may be taking it.
    pub slot: Duration,
    /// For an answer, once we are let in: a lock may keep it from us, or a pooler that has others to
    /// serve first.
    pub answer: Duration,
}

/// What the attempts that failed allow to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    Final,
    WaitForServer,
    WaitForSlot,
    WaitForAnswer,
}

/// Connects and runs a first query, and tries both again for as long as the failure is temporary, each
/// time with the user and the password that `target` then has. `on_wait` gets the attempts that failed,
/// the time that is left, and whether they differ from those before.
pub fn connect<T>(
    target: impl Fn() -> Target,
    limits: WaitLimits,
    stop: &StopFlag,
    on_wait: &mut dyn FnMut(&[Attempt], Duration, bool),
    query: impl Fn(&Session, Deadline<'_>) -> Result<T, QueryError>,
) -> Result<(Session, T), ConnectError> {
    let is_single = limits.server.is_zero();
    let server = Deadline::after(if is_single { SINGLE_ATTEMPT } else { limits.server }, stop);
    let slot = Deadline::after(limits.slot.max(limits.server), stop);
    let answer = Deadline::after(limits.answer.max(limits.server), stop);
    let mut deadline = server;
    let mut pause = FIRST_PAUSE;
    let mut reported = Vec::new();
    loop {
        let attempts = match Session::open(&target(), deadline) {
            Ok(session) => match query(&session, answer.at_most(QUERY_TIMEOUT)) {
                Ok(answer) => return Ok((session, answer)),
                Err(cause) => vec![Attempt::at_query(cause)],
            },
            Err(attempts) => attempts,
        };
        if let Some(signal) = stop.raised() {
            return Err(ConnectError::Stopped(signal));
        }
        let outlook = classify(&attempts);
        deadline = match outlook {
            Outlook::Final | Outlook::WaitForServer => server,
            Outlook::WaitForSlot => slot,
            Outlook::WaitForAnswer => answer,
        };
        let left = deadline.remaining().unwrap_or_default();
        if is_single || left.is_zero() || outlook == Outlook::Final {
            return Err(failure(outlook, attempts, reported));
        }
        on_wait(&attempts, left, attempts != reported);
        reported = attempts;
        if let Err(Interrupted::Stopped(signal)) = deadline.sleep(pause) {
            return Err(ConnectError::Stopped(signal));
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn classify(attempts: &[Attempt]) -> Outlook {
    let any = |test: fn(&Attempt) -> bool| attempts.iter().any(test);
    if any(is_unanswered) {
        return Outlook::WaitForAnswer;
    }
    // One host's rejection is not waited out for another.
    if any(|attempt| is_rejection(&attempt.cause)) || !any(|attempt| is_temporary(&attempt.cause)) {
        Outlook::Final
    } else if any(|attempt| is_full(&attempt.cause)) {
        Outlook::WaitForSlot
    } else {
        Outlook::WaitForServer
    }
}

fn failure(outlook: Outlook, last: Vec<Attempt>, reported: Vec<Attempt>) -> ConnectError {
    // Where the deadline cut the last attempts short, those reported before say more.
    let is_cut_short = outlook != Outlook::Final
        && last.iter().any(|attempt| attempt.cause.is_timeout() && !is_unanswered(attempt));
    let attempts = if is_cut_short && !reported.is_empty() { reported } else { last };
    match attempts.iter().any(is_unanswered) {
        true => ConnectError::QueryTimedOut,
        false => ConnectError::Unreachable(attempts),
    }
}

/// Whether we were let in, and the query got no answer: a pooler keeps it until it has a free
/// connection to the server.
fn is_unanswered(attempt: &Attempt) -> bool {
    let timed_out = QueryError::Client(ConnectionError::TimedOut);
    attempt.stage == Stage::Query && attempt.cause == timed_out
        || is_cancelled_by_server(&attempt.cause)
}

/// Whether waiting may help.
pub fn is_temporary(cause: &QueryError) -> bool {
    match cause {
        QueryError::Stopped(_) => false,
        QueryError::Client(error) => match error {
            ConnectionError::Connect(kind, _) => *kind != std::io::ErrorKind::PermissionDenied,
            ConnectionError::Lookup(_) | ConnectionError::Lost(..) | ConnectionError::ReadOnly => {
                true
            }
            ConnectionError::TimedOut
            | ConnectionError::LoginTimedOut
            | ConnectionError::DnsTimedOut => true,
            ConnectionError::Tls(error) => error.is_temporary(),
            ConnectionError::Login(_)
            | ConnectionError::NoPassword
            | ConnectionError::Setting { .. }
            | ConnectionError::Unsupported(_)
            | ConnectionError::NotPostgres
            | ConnectionError::Protocol(_) => false,
        },
        QueryError::Server(error) => is_temporary_server_error(error),
    }
}

fn is_temporary_server_error(error: &ServerError) -> bool {
    // Starting up or shutting down; out of connections or another resource; an error of the
    // server's operating system; and an error of the connection itself.
    match error.meant_code() {
        "57P01" | "57P02" | "57P03" => true,
        code => ["53", "58", "08"].iter().any(|class| code.starts_with(class)) && code != REJECTED,
    }
}

/// Whether the server cancelled the query: by the role's `lock_timeout` or `statement_timeout`, or on
/// a standby, by a recovery conflict.
pub fn is_cancelled_by_server(cause: &QueryError) -> bool {
    const CODES: [&str; 3] = ["55P03", "57014", "40001"];
    matches!(cause, QueryError::Server(error) if CODES.contains(&error.code.as_str()))
}

/// Whether the server or its pooler has no free slot.
pub fn is_full(cause: &QueryError) -> bool {
    matches!(cause, QueryError::Server(error) if error.meant_code() == "53300")
}

/// Whether the server rejected us: role, password, database, certificate.
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
    fn a_rejection_is_final() {
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert!(!is_temporary(&server(code, "")), "{code}");
            assert!(is_rejection(&server(code, "")), "{code}");
        }
        assert!(!is_temporary(&server("08P01", "no such database: app")));
        assert!(!is_temporary(&QueryError::Client(ConnectionError::Tls(TlsError::NotOffered))));
    }

    #[test]
    fn messages_of_poolers_are_judged_by_their_meaning() {
        for (code, message, is_temporary_one, is_full_one) in [
            ("08P01", "no such user: u", false, false),
            ("08P01", "SASL authentication failed", false, false),
            ("08P01", "admin access not allowed", false, false),
            ("08P01", "no pg_hba.conf entry for host \"10.0.0.1\"", false, false),
            ("08P01", "server login failed: FATAL role \"u\" does not exist", false, false),
            ("08P01", "query_wait_timeout", true, true),
            ("08P01", "sorry, too many clients already", true, true),
            ("08P01", "pgbouncer cannot connect to server", true, false),
            ("XX000", "MaxClientsInSessionMode: max clients reached", true, true),
            ("XX000", "Tenant or user not found", false, false),
            ("XX000", "cache lookup failed for type 1", false, false),
        ] {
            let cause = server(code, message);
            assert_eq!(is_temporary(&cause), is_temporary_one, "{message}");
            assert_eq!(is_full(&cause), is_full_one, "{message}");
        }
    }

    #[test]
    fn the_outlook_depends_on_all_attempts() {
        let host = crate::postgres::conninfo::Host {
            name: crate::postgres::conninfo::HostName::Tcp("h".to_owned()),
            addr: None,
            port: 5432,
        };
        let login = |cause| Attempt::at_login(&host, None, cause);
        let timed_out = QueryError::Client(ConnectionError::TimedOut);
        let (starting, full, rejected) =
            (server("57P03", ""), server("53300", ""), server("28P01", ""));
        for (attempts, outlook) in [
            (vec![login(timed_out.clone())], Outlook::WaitForServer),
            (vec![login(timed_out.clone()), login(full.clone())], Outlook::WaitForSlot),
            (vec![login(full), login(rejected)], Outlook::Final),
            (vec![login(starting)], Outlook::WaitForServer),
            (vec![Attempt::at_query(timed_out)], Outlook::WaitForAnswer),
            (vec![Attempt::at_query(server("55P03", ""))], Outlook::WaitForAnswer),
            (vec![Attempt::at_query(server("42883", ""))], Outlook::Final),
        ] {
            assert_eq!(classify(&attempts), outlook, "{attempts:?}");
        }
    }
}
