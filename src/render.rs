//! Text for people and JSON for programs, of the same values.
//!
//! Serde writes the JSON from the fields of a value. Its sentence is here, or in a `Display` beside
//! its type. Control characters are escaped here, once, at the end.

mod answers;
mod attempts;
mod backends;
mod error;
mod events;
mod failure;
mod hints;
mod mismatch;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::apply::event::Event;
use crate::cli::config::Format;
use crate::error::Error;
use crate::sql::LineColumn;

pub use self::answers::{check_of, created, dry_run_of, list_of, status_of};

/// An event, as one line or more for stderr.
pub fn event(event: &Event, format: Format) -> String {
    match format {
        Format::Text => clean(&format!("premigrate: {}\n", events::text(event))),
        Format::Json => json_line(event),
    }
}

/// The error that ended a run, for stderr.
pub fn ended(error: &Error, with_app: bool, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = format!("premigrate: {}\n", error::text(error));
            let summary = error::summary(error, with_app);
            if !summary.is_empty() {
                let _ = write!(text, "\n  {summary}\n");
            }
            clean(&text)
        }
        Format::Json => json_line(&error::Report::new(error, with_app)),
    }
}

/// One value as a line of JSON. JSON itself escapes only the first 32 control characters, and terminals obey more.
pub(crate) fn json_line(value: &impl Serialize) -> String {
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

/// Without the control characters by which a server or a file could drive a terminal. What a server
/// quotes from a function keeps the line endings of the file that made it.
fn clean(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// A title, and a line for each item below it.
fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let mut text = format!("{title}\n");
    for item in items {
        let _ = write!(text, "\n  - {item}");
    }
    text
}

/// A time in the units that a person would name.
fn seconds(time: Duration) -> String {
    let (milliseconds, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..120 => format!("{:.1} s", time.as_secs_f64()),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// A migration, or the rows that were written without one.
fn subject(migration: &Option<String>) -> &str {
    migration.as_deref().unwrap_or("the history update")
}

/// A file, with the line and column in it.
fn place_text(file: &str, position: Option<LineColumn>) -> String {
    match position {
        Some(position) => format!("{file}:{position}"),
        None => file.to_owned(),
    }
}
