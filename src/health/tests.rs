//! From events to the answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::page::{self, MAX_REQUEST, Page, Received};
use super::state::State;
use crate::apply::event::{
    Applied, Blocker, Event, HeldBy, Holder, RetryReason, StepNumber, Unprinted,
};
use crate::postgres::session::{Attempt, ConnectionError, QueryError};

/// A state, and the time in it.
struct Clock {
    state: State,
    now: Instant,
}

impl Clock {
    fn start() -> Clock {
        let now = Instant::now();
        Clock { state: State::new(now), now }
    }

    /// Lets this happen a second after what was before.
    fn then(&mut self, event: Event) -> &mut Clock {
        self.now += Duration::from_secs(1);
        self.state.update(&event, self.now);
        self
    }

    fn ready(&self) -> Value {
        serde_json::from_str(&page::ready(&self.state, self.now)).unwrap()
    }

    fn name(&self) -> String {
        self.ready()["state"].as_str().unwrap().to_owned()
    }
}

fn name() -> String {
    "0000_a".to_owned()
}

fn read(applied: usize, pending: usize) -> Event {
    Event::Unprinted(Unprinted::HistoryRead { applied, pending })
}

fn step(step: usize, has_lock: bool) -> Event {
    let step = StepNumber { step, of: 2 };
    Event::Unprinted(Unprinted::Step { migration: name(), step, has_lock })
}

fn waiting() -> Event {
    let attempt = Attempt::at_query(QueryError::Client(ConnectionError::TimedOut));
    Event::Waiting { attempts: vec![attempt], left: Duration::ZERO }
}

fn locked_out() -> Event {
    let holder = Holder { pid: "7".to_owned(), ..Holder::default() };
    Event::LockedOut { holder: HeldBy::Session(holder), left: Duration::ZERO }
}

fn blocker() -> Blocker {
    Blocker {
        pid: "8".to_owned(),
        query: Some("update t set secret = 'x'".to_owned()),
        ..Blocker::default()
    }
}

fn retrying() -> Event {
    let reason = RetryReason::Lock {
        sqlstate: "55P03".to_owned(),
        message: "canceling statement due to lock timeout".to_owned(),
        blocker: Some(blocker()),
        outside_transaction: false,
    };
    Event::Retrying { migration: Some(name()), reason, pause: Duration::ZERO, attempt: 2 }
}

fn applied() -> Event {
    Event::Applied(Applied { migration: name(), took: None })
}

#[test]
fn a_run_tells_what_it_waits_for_and_why() {
    let mut clock = Clock::start();
    assert_eq!(
        clock.ready(),
        json!({"state": "preparing", "for_ms": 0, "applied": null, "pending": null, "retries": 0})
    );
    clock.then(waiting()).then(waiting());
    let ready = clock.ready();
    assert_eq!((&ready["state"], &ready["for_ms"]), (&"waiting_for_database".into(), &1000.into()));
    assert!(ready["attempts"][0]["message"].is_string(), "{ready}");

    clock.then(read(3, 2));
    assert_eq!(clock.name(), "preparing");
    clock.then(Event::WaitingForPrimary { left: Duration::ZERO });
    assert_eq!(clock.name(), "waiting_for_primary");
    let (pid, left) = ("9".to_owned(), Duration::ZERO);
    clock.then(Event::BackendRuns { migration: name(), pid, left });
    assert_eq!(clock.ready()["pid"], "9");
    clock.then(Event::WaitingForMigrations { migrations: vec![name()], holder: None, left });
    let ready = clock.ready();
    assert_eq!(ready["migrations"], json!(["0000_a"]));
    assert_eq!((&ready["applied"], &ready["pending"]), (&3.into(), &1.into()));
}

#[test]
fn a_run_tells_which_step_it_applies_and_since_when() {
    let mut clock = Clock::start();
    clock.then(read(3, 2)).then(step(1, false)).then(step(1, true)).then(step(2, false));
    clock.then(Event::Blocked { migration: Some(name()), blocker: blocker() });
    let ready = clock.ready();
    assert_eq!((&ready["step"], &ready["step_count"]), (&2.into(), &2.into()));
    assert_eq!((&ready["for_ms"], &ready["migration_for_ms"]), (&1000.into(), &3000.into()));
    // Values may be in its query.
    assert_eq!((&ready["blocker"]["pid"], &ready["blocker"]["query"]), (&"8".into(), &Value::Null));
    clock.then(step(2, true));
    assert_eq!(clock.ready()["blocker"]["pid"], "8");
    clock.then(Event::Unprinted(Unprinted::Unblocked));
    assert_eq!(clock.ready()["blocker"], Value::Null);

    clock.then(retrying());
    let ready = clock.ready();
    assert_eq!(
        (&ready["state"], &ready["attempt"], &ready["retries"], &ready["blocker"]["pid"]),
        (&"retrying".into(), &2.into(), &1.into(), &"8".into())
    );
    assert_eq!(ready["blocker"]["query"], Value::Null);
    clock.then(step(2, true)).then(applied());
    let ready = clock.ready();
    assert_eq!((&ready["applied"], &ready["pending"]), (&4.into(), &1.into()));
    assert_eq!((clock.name().as_str(), ready.get("migration_for_ms")), ("preparing", None));
}

#[test]
fn a_run_that_is_locked_out_waits_until_it_has_the_lock() {
    let mut clock = Clock::start();
    clock.then(read(0, 1)).then(step(1, false)).then(locked_out());
    // It looks again, and sees the same.
    clock.then(read(0, 1)).then(step(1, false));
    let ready = clock.ready();
    assert_eq!(
        (&ready["state"], &ready["holder"]["pid"]),
        (&"waiting_for_runner".into(), &"7".into())
    );
    assert_eq!((&ready["for_ms"], ready.get("migration_for_ms")), (&2000.into(), None));
    clock.then(waiting()).then(read(0, 1)).then(Event::Repeated(Box::new(locked_out())));
    assert_eq!(clock.name(), "waiting_for_runner");
    clock.then(step(1, true));
    assert_eq!(clock.name(), "applying");
}

#[path = "../../tests/it/reference.rs"]
#[allow(dead_code, reason = "tests/it uses the rest")]
#[allow(clippy::duplicate_mod, reason = "src/render/tests/documented.rs is of another module")]
mod reference;

#[test]
fn the_reference_has_every_field_of_the_state_and_every_metric() {
    let text = include_str!("../../docs/reference.md");
    let mut reference = reference::Reference::parse(text);
    let (left, pid) = (Duration::ZERO, "9".to_owned());
    let lost = RetryReason::ConnectionLost { cause: ConnectionError::TimedOut };
    for event in [
        waiting(),
        Event::WaitingForPrimary { left },
        locked_out(),
        Event::LockedOut { holder: HeldBy::Unseen, left },
        Event::BackendRuns { migration: name(), pid, left },
        Event::WaitingForMigrations { migrations: vec![name()], holder: None, left },
        step(1, true),
        Event::Blocked { migration: None, blocker: blocker() },
        retrying(),
        Event::Retrying { migration: None, reason: lost, pause: left, attempt: 2 },
        read(1, 2),
        applied(),
    ] {
        let mut clock = Clock::start();
        if matches!(event, Event::Blocked { .. }) {
            clock.then(step(1, true));
        }
        let ready = clock.then(event).ready();
        reference.check(ready.as_object().unwrap(), &[("Health", "/ready")]);
        let state = format!("`{}`", clock.name());
        assert!(text.contains(&state), "{state}");
        for line in page::metrics(&clock.state, clock.now).lines() {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            let name = name.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("| `{name}")), "{line}");
        }
    }
    assert_eq!(reference.unseen(&["Health"]), [""; 0]);
}

#[test]
fn metrics_are_in_the_format_of_prometheus() {
    let mut clock = Clock::start();
    assert_eq!(
        page::metrics(&clock.state, clock.now),
        r#"# HELP premigrate_retries_total Attempts after the first.
# TYPE premigrate_retries_total counter
premigrate_retries_total 0
# HELP premigrate_waiting What is waited for: 1, else 0.
# TYPE premigrate_waiting gauge
premigrate_waiting{for="database"} 0
premigrate_waiting{for="primary"} 0
premigrate_waiting{for="runner"} 0
premigrate_waiting{for="backend"} 0
premigrate_waiting{for="migrations"} 0
premigrate_waiting{for="lock"} 0
"#
    );
    let migration = "a\"b\\c\nd".to_owned();
    let number = StepNumber { step: 1, of: 1 };
    clock.then(read(3, 2));
    clock.then(Event::Unprinted(Unprinted::Step { migration, step: number, has_lock: false }));
    clock.then(Event::Blocked { migration: None, blocker: blocker() }).then(retrying());
    let metrics = page::metrics(&clock.state, clock.now);
    for line in [
        "premigrate_migrations_pending 2",
        "premigrate_migrations_applied 3",
        r#"premigrate_migration_seconds{migration="a\"b\\c\nd"} 2.000"#,
        "premigrate_retries_total 1",
        r#"premigrate_waiting{for="lock"} 1"#,
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(metrics.matches("} 1\n").count(), 1, "{metrics}");
}

#[test]
fn every_request_has_an_answer_and_what_is_none_is_refused() {
    let page = |page, is_head| Some(Received::Request { page, is_head });
    for (request, expected) in [
        ("GET /live HTTP/1.1\r\nHost: a\r\n\r\n", page(Page::Live, false)),
        ("GET /live?x=1 HTTP/1.0\r\n\r\n", page(Page::Live, false)),
        ("HEAD /live HTTP/1.1\r\n\r\n", page(Page::Live, true)),
        ("GET /metrics HTTP/1.1\n\n", page(Page::Metrics, false)),
        ("GET /ready HTTP/1.1\r\n\r\n", page(Page::Ready, false)),
        ("GET /live/ HTTP/1.1\r\n\r\n", page(Page::Ready, false)),
        ("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n", page(Page::Ready, false)),
        ("", None),
        ("GET /live HTTP/1.1\r\nHost: a\r\n", None),
        ("\0\0", Some(Received::NotHttp)),
        ("GET /live\r\n\r\n", Some(Received::NotHttp)),
        ("\x16\x03\x01\x02\0\x01", Some(Received::NotHttp)),
    ] {
        assert_eq!(page::received(request.as_bytes()), expected, "{request:?}");
    }
    let header = "GET / HTTP/1.1\r\nX: ".to_owned();
    let long = |length: usize| header.clone() + &"x".repeat(length - header.len());
    assert_eq!(page::received(long(MAX_REQUEST - 1).as_bytes()), None);
    assert_eq!(page::received(long(MAX_REQUEST).as_bytes()), Some(Received::TooLong));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    assert_eq!(page::received(many.as_bytes()), Some(Received::TooLong));
}

#[test]
fn a_page_has_no_control_character_of_a_server_or_a_file() {
    let mut clock = Clock::start();
    let migrations = vec!["0000\u{9b}31m\n".to_owned()];
    let left = Duration::ZERO;
    clock.then(Event::WaitingForMigrations { migrations, holder: None, left });
    let answer = |page| {
        let received = Received::Request { page, is_head: false };
        page::answer(received, &clock.state, clock.now)
    };
    let ready = answer(Page::Ready);
    let (_, body) = ready.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(r#""0000\u009b31m\n""#), "{body}");
    assert!(!body.trim_end().contains(char::is_control), "{body:?}");
}

#[test]
fn an_answer_has_its_status_and_the_length_of_its_body() {
    let clock = Clock::start();
    let answer = |received| page::answer(received, &clock.state, clock.now);
    for (received, status) in [
        (Received::Request { page: Page::Live, is_head: false }, "200 OK"),
        (Received::Request { page: Page::Metrics, is_head: false }, "200 OK"),
        (Received::Request { page: Page::Ready, is_head: false }, "503 Service Unavailable"),
        (Received::TooLong, "431 Request Header Fields Too Large"),
        (Received::NotHttp, "400 Bad Request"),
    ] {
        let answer = answer(received);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{answer}");
    }
    let head = answer(Received::Request { page: Page::Live, is_head: true });
    assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 10"), "{head}");
}
