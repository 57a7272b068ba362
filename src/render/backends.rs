//! The text of other sessions: the runner that holds our lock, and the one that blocks a statement.

use std::fmt::Write as _;

use crate::apply::event::{Blocker, HeldBy, Holder, HolderKind};

use super::seconds;

pub fn holder_text(holder: &Holder) -> String {
    let Holder { kind, pid, application, address, open_for } = holder;
    let is_autovacuum = *kind == HolderKind::Autovacuum;
    let mut text = match is_autovacuum {
        true => format!("autovacuum (backend {pid}"),
        false => format!("backend {pid}"),
    };
    for (label, value) in
        [(" of ", application), (" from ", address), (", running for ", &open_for.map(seconds))]
    {
        if let Some(value) = value {
            let _ = write!(text, "{label}{value}");
        }
    }
    if is_autovacuum {
        text.push(')');
    }
    text
}

/// Another runner that keeps us from working.
pub fn held_by_text(held_by: &HeldBy) -> String {
    match held_by {
        HeldBy::Session(holder) => holder_text(holder),
        HeldBy::Gone => "another runner was at work, and has just gone".to_owned(),
        HeldBy::Unseen => "this role cannot see its session".to_owned(),
    }
}

/// The runner that others wait for, whose lock is free for moments.
pub fn at_work_text(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("a runner is at work: {}", holder_text(holder)),
        None => "this role sees no runner at work".to_owned(),
    }
}

/// The lock and the session that holds it: "lock on t held by backend 7 of app, ...".
pub fn lock_text(blocker: &Blocker) -> String {
    let mut text = String::from("lock");
    if let Some(table) = &blocker.table {
        let _ = write!(text, " on {table}");
    }
    if blocker.pid == "0" {
        text.push_str(" held by a prepared transaction");
    } else {
        let _ = write!(text, " held by backend {}", blocker.pid);
    }
    for (label, value) in [
        (" of ", &blocker.application),
        (", role ", &blocker.role),
        (", ", &blocker.state),
        (" for ", &blocker.open_for.map(seconds)),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{label}{value}");
        }
    }
    if let Some(query) = &blocker.query {
        let words: Vec<&str> = query.split_whitespace().collect();
        let _ = write!(text, ": {}", words.join(" "));
    }
    if blocker.others > 0 {
        let _ = write!(text, " (and {} more)", blocker.others);
    }
    text
}
