//! Text for people and JSON for programs, of the same values.
//!
//! Serde writes the JSON from the fields of a value. Its sentence is here, or in a `Display` beside
//! its type. A name or a message of others stays on the line where we write it: [`one_line`] escapes
//! its line ends, so that it cannot look like a line of ours.

mod answers;
mod attempts;
mod backends;
mod color;
mod error;
mod events;
mod failure;
mod hints;
mod log;
mod mismatch;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use crate::apply::event::Event;
use crate::cli::args::Commands;
use crate::cli::config::{Format, Style};
use crate::effects::TableSize;
use crate::error::Error;
pub(crate) use crate::process::json::json_line;
use crate::sql::LineColumn;

pub use self::answers::{
    bundled, carried, check_of, created, dry_run_of, healthcheck_of, html, list_of, markdown,
    rehearsal_of, review_of, status_of, svg,
};
use self::color::Color;
pub use self::log::{Log, Shown};

/// What every line of ours begins with.
const PREFIX: &str = "premigrate:";

/// An event, as one line or more for stderr; none if it is not for printing.
pub fn event(event: &Event, style: impl Into<Style>) -> String {
    match style.into() {
        _ if matches!(event, Event::Repeated(_) | Event::Unprinted(_)) => String::new(),
        Style { format: Format::Json, .. } => json_line(event),
        Style { is_colored, .. } => events::lines(event, is_colored),
    }
}

/// The error that ended a run, for stderr.
pub fn ended(
    error: &Error,
    with_app: bool,
    style: impl Into<Style>,
    commands: &Commands,
) -> String {
    let Style { format, is_colored } = style.into();
    match format {
        Format::Text => {
            let prefix = color::paint(PREFIX, Color::Red, is_colored);
            let mut text = format!("{prefix} {}\n", error::text(error, commands, is_colored));
            let summary = error::summary(error, with_app);
            if !summary.is_empty() {
                let _ = write!(text, "\n  {}\n", one_line(&summary));
            }
            text
        }
        Format::Json => json_line(&error::ErrorReport::new(error, with_app, commands)),
    }
}

/// Text of several lines, without the characters by which a server or a file could drive a terminal.
/// What a server quotes from a function keeps the line endings of the file that made it.
fn clean(text: &str) -> String {
    escape(&text.replace("\r\n", "\n"), |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// Text that is one line, whatever the names in it contain.
fn one_line(text: &str) -> String {
    escape(text, is_unsafe)
}

/// Lines, each of which stays one.
fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| one_line(&line) + "\n").collect()
}

/// As in Rust, such as `\n` and `\u{1b}`.
fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_escaped(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// A control character, or one that ends a line or changes the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// How many names there are, and the first of them.
fn some_of(migrations: &[String]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = migrations.iter().take(SHOWN).map(String::as_str).collect();
    let more = if migrations.len() > SHOWN { ", ..." } else { "" };
    format!("{} ({}{more})", plural(migrations.len(), "migration"), names.join(", "))
}

fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// A title, and the items below it, each of which may have several lines.
fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let mut text = one_line(title) + "\n";
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

/// Bytes in the unit that a person would name.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1024 {
        return plural(usize::try_from(bytes).unwrap_or_default(), "byte");
    }
    let (mut unit, mut scale) = ("", 1_u128);
    for larger in UNITS {
        if u128::from(bytes) < scale * 1024 {
            break;
        }
        (unit, scale) = (larger, scale * 1024);
    }
    let tenths = u128::from(bytes) * 10 / scale;
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, tenth @ 1..) => format!("{whole}.{tenth} {unit}"),
        (whole, _) => format!("{whole} {unit}"),
    }
}

/// What is known of a table's size, as a clause.
fn size_text(size: &TableSize) -> String {
    let TableSize { table, rows, bytes, index_bytes, partitions } = size;
    let mut parts = match bytes {
        Some(bytes) => vec![self::size(*bytes)],
        None => {
            return format!("another session has locked {table}, so that its size is not known");
        }
    };
    parts.extend(rows.map(|rows| format!("about {}", rows_text(rows))));
    if *partitions > 0 {
        let count = usize::try_from(*partitions).unwrap_or(usize::MAX);
        let last = parts.pop().unwrap_or_default();
        parts.push(format!("{last} in {}", plural(count, "partition")));
    }
    let indexes = index_bytes.filter(|bytes| *bytes > 0);
    let indexes = indexes.map(|bytes| format!(", and indexes of {}", self::size(bytes)));
    format!("{table} has {}{}", parts.join(", "), indexes.unwrap_or_default())
}

/// A number of rows that is an estimate.
fn rows_text(rows: u64) -> String {
    let (number, unit) = match rows {
        1 => return "1 row".to_owned(),
        0..10_000 => return format!("{rows} rows"),
        10_000..1_000_000 => (rows / 1000, "thousand"),
        1_000_000..1_000_000_000 => (rows / 1_000_000, "million"),
        _ => (rows / 1_000_000_000, "billion"),
    };
    format!("{number} {unit} rows")
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// A migration, or the rows that were written without one.
fn subject(migration: &Option<String>) -> String {
    one_line(migration.as_deref().unwrap_or("the history update"))
}

/// A file, with the line and column in it.
fn place_text(file: &str, position: Option<LineColumn>) -> String {
    let file = one_line(file);
    match position {
        Some(position) => format!("{file}:{position}"),
        None => file,
    }
}
