//! The text of other sessions: the runner that holds our lock, and the one that blocks a statement.

use std::fmt::Write as _;

use crate::apply::event::{Blocker, Holder};

use super::seconds;

pub fn holder_text(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return "this role cannot see its session".to_owned();
    };
    let mut text = format!("backend {}", holder.pid);
    for (label, value) in [
        (" of ", &holder.application),
        (" from ", &holder.address),
        (", running for ", &holder.open_for.map(seconds)),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{label}{value}");
        }
    }
    text
}

/// The runner that others wait for, whose lock is free for moments.
pub fn at_work_text(holder: Option<&Holder>) -> String {
    match holder {
        Some(_) => format!("a runner is at work: {}", holder_text(holder)),
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
