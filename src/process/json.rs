//! A value as a line of JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// One value as a line of JSON. JSON itself escapes only the first 32 control characters, and terminals
/// obey more.
pub fn json_line(value: &impl Serialize) -> String {
    let mut line = String::new();
    for c in serde_json::to_string(value).unwrap_or_default().chars() {
        if c.is_control() {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line + "\n"
}
