//! What happened, in words for people or in JSON: two renderings of the same values.
//!
//! Every sentence of a run stands here or in a `Display` beside its type. Ours come first, the
//! server's words follow whole; neither passwords nor control characters pass.

mod answers;
mod attempts;
mod backends;
mod error;
mod events;
mod failure;
mod hints;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::apply::error::ApplyError;
use crate::apply::event::Event;
use crate::cli::config::Format;
use crate::error::Error;
use crate::sql::redact;

pub use self::answers::{check_of, created, list_of, prospect_of, status_of};

/// An event, as a line or more for stderr.
pub fn event(event: &Event, format: Format) -> String {
    match format {
        Format::Text => format!("premigrate: {}\n", clean(&events::text(event))),
        Format::Json => line(events::json(event)),
    }
}

/// What ended a run, for stderr.
pub fn ended(ended: &Error, with_app: bool, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = format!("premigrate: {}\n", error::text(ended));
            let kept = error::kept(ended, with_app);
            if !kept.is_empty() {
                let _ = write!(text, "\n  {kept}\n");
            }
            clean_but(&text, &error::typed(ended))
        }
        Format::Json => {
            let mut fields = masked_fields(error::json(ended, with_app));
            let typed = error::typed(ended);
            if !typed.is_empty() {
                let message = clean_but(&error::text(ended), &typed);
                fields.insert("message".to_owned(), message.into());
            }
            if let Error::Run(failure) = ended
                && let ApplyError::PermissionDenied { statements, .. } = &failure.error
            {
                fields.insert("statements".to_owned(), statements.as_slice().into());
            }
            escaped(fields)
        }
    }
}

/// One object a line, without passwords. JSON itself escapes only the first 32 control characters, and terminals obey
/// more.
fn line(object: Map<String, Value>) -> String {
    escaped(masked_fields(object))
}

fn escaped(object: Map<String, Value>) -> String {
    let mut line = String::new();
    for c in Value::Object(object).to_string().chars() {
        if c.is_control() {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line + "\n"
}

fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact::passwords(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(masked).collect(),
        Value::Object(fields) => Value::Object(masked_fields(fields)),
        other => other,
    }
}

fn masked_fields(fields: Map<String, Value>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name, masked(value))).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Without passwords, and without the characters by which a server, or a file, could drive a
/// terminal. What a server quotes from a function keeps the line ends of the file that made it.
fn clean(text: &str) -> String {
    printable(&redact::passwords(text))
}

/// The same, but for these parts of it, in their order: they are told to be typed as they are.
fn clean_but(text: &str, typed: &[String]) -> String {
    let (mut cleaned, mut rest) = (String::new(), text);
    for part in typed {
        if let Some((before, behind)) = rest.split_once(part) {
            cleaned.push_str(&clean(before));
            cleaned.push_str(&printable(part));
            rest = behind;
        }
    }
    cleaned + &clean(rest)
}

fn printable(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// What a transaction was about.
fn subject(migration: &Option<String>) -> &str {
    migration.as_deref().unwrap_or("the history")
}
