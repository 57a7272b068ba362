//! Who holds what others wait for.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::apply::event::{Blocker, Holder};
use crate::sql::redact;

/// Who holds our lock.
pub fn holder_text(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return "our role may not see which".to_owned();
    };
    let mut text = format!("backend {}", holder.pid);
    for (what, value) in [
        (" of ", &holder.application),
        (" from ", &holder.address),
        (", at work for ", &holder.since),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{what}{value}");
        }
    }
    text
}

/// The same as an object.
pub fn holder_json(holder: &Holder) -> Value {
    json!({
        "pid": holder.pid,
        "application": holder.application,
        "address": holder.address,
        "since": holder.since,
    })
}

/// Behind "lock": on what, and who holds it.
pub fn blocker_text(blocker: &Blocker) -> String {
    let mut text = String::new();
    if let Some(table) = &blocker.table {
        let _ = write!(text, "on {table} ");
    }
    if blocker.pid == "0" {
        text.push_str("held by a prepared transaction");
    } else {
        let _ = write!(text, "held by backend {}", blocker.pid);
    }
    for (what, value) in [
        (" of ", &blocker.application),
        (", role ", &blocker.role),
        (", ", &blocker.state),
        (" for ", &blocker.since),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{what}{value}");
        }
    }
    if let Some(query) = &blocker.query {
        // It may end in the middle of a password, and more of ours follows.
        let query = redact::passwords(query);
        let words: Vec<&str> = query.split_whitespace().collect();
        let _ = write!(text, ": {}", words.join(" "));
    }
    if blocker.others > 0 {
        let _ = write!(text, " (and {} more)", blocker.others);
    }
    text
}

/// The same as an object.
pub fn blocker_json(blocker: &Blocker) -> Value {
    json!({
        "pid": blocker.pid,
        "application": blocker.application,
        "role": blocker.role,
        "state": blocker.state,
        "since": blocker.since,
        "query": blocker.query,
        "table": blocker.table,
        "others": blocker.others,
    })
}
