//! Requests and the answers to them. Pure.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Error, Request, Status};
use serde::Serialize;

use super::state::{Activity, State};
use crate::process::json::json_line;

/// What a client has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Request { page: Page, is_head: bool },
    TooLong,
    NotHttp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Live,
    Metrics,
    /// `/ready`, and everything that the app will answer.
    Ready,
}

/// The longest request line with its headers.
pub const MAX_REQUEST: usize = 8 << 10;
const MAX_HEADERS: usize = 100;

/// Reads what a client has sent; `None` if that is not a whole request yet.
pub fn received(bytes: &[u8]) -> Option<Received> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    Some(match request.parse(bytes) {
        Ok(Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let page = match path.split('?').next() {
                Some("/live") => Page::Live,
                Some("/metrics") => Page::Metrics,
                _ => Page::Ready,
            };
            Received::Request { page, is_head: request.method == Some("HEAD") }
        }
        Ok(Status::Partial) if bytes.len() < MAX_REQUEST => return None,
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Received::TooLong,
        Err(_) => Received::NotHttp,
    })
}

/// The answer to what was received.
pub fn answer(received: Received, state: &State, now: Instant) -> String {
    let text = "text/plain; charset=utf-8";
    let (status, kind, body) = match received {
        Received::TooLong => ("431 Request Header Fields Too Large", text, "too long\n".to_owned()),
        Received::NotHttp => ("400 Bad Request", text, "not HTTP\n".to_owned()),
        Received::Request { page, .. } => match page {
            Page::Live => ("200 OK", text, "migrating\n".to_owned()),
            Page::Metrics => ("200 OK", "text/plain; version=0.0.4", metrics(state, now)),
            Page::Ready => ("503 Service Unavailable", "application/json", ready(state, now)),
        },
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nServer: premigrate\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !matches!(received, Received::Request { is_head: true, .. }) {
        answer += &body;
    }
    answer
}

/// The state as a line of JSON.
pub fn ready(state: &State, now: Instant) -> String {
    #[derive(Serialize)]
    struct Ready<'a> {
        #[serde(flatten)]
        activity: &'a Activity,
        for_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        migration_for_ms: Option<u64>,
        applied: Option<usize>,
        pending: Option<usize>,
        retries: u64,
    }
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let since = |then: Instant| milliseconds(now.saturating_duration_since(then));
    let ready = Ready {
        activity: &state.activity,
        for_ms: since(state.since),
        migration_for_ms: state.migration.as_ref().map(|(_, begun)| since(*begun)),
        applied: state.applied,
        pending: state.pending,
        retries: state.retries,
    };
    json_line(&ready)
}

/// What can be waited for, as a label has it.
const WAITED_FOR: [&str; 6] = ["database", "primary", "runner", "backend", "migrations", "lock"];

/// The state in the text format of Prometheus.
pub fn metrics(state: &State, now: Instant) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP premigrate_{name} {help}\n# TYPE premigrate_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "premigrate_{name}{labels} {value}");
        }
    };
    let count = |count: Option<usize>| -> Vec<(String, String)> {
        count.map(|count| (String::new(), count.to_string())).into_iter().collect()
    };
    metric("migrations_pending", "gauge", "Migrations to be applied.", &count(state.pending));
    metric("migrations_applied", "gauge", "Migrations in the history.", &count(state.applied));
    let seconds = state.migration.as_ref().map(|(name, begun)| {
        let seconds = now.saturating_duration_since(*begun).as_secs_f64();
        (format!("{{migration=\"{}\"}}", label_value(name)), format!("{seconds:.3}"))
    });
    let help = "For how long the current migration has been running.";
    metric("migration_seconds", "gauge", help, seconds.as_slice());
    let retries = [(String::new(), state.retries.to_string())];
    metric("retries_total", "counter", "Attempts after the first.", &retries);
    let waits_for = state.activity.waits_for();
    let waiting = WAITED_FOR.map(|what| {
        let value = if waits_for == Some(what) { "1" } else { "0" };
        (format!("{{for=\"{what}\"}}"), value.to_owned())
    });
    metric("waiting", "gauge", "What is waited for: 1, else 0.", &waiting);
    text
}

fn label_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
