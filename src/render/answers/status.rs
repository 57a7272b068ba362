use std::fmt::Write as _;

use super::json_lines;
use crate::cli::config::Format;
use crate::commands::status::{Counts, MigrationLine, MigrationState, RowState, Status};
use crate::render::{json_line, plural, printable};

pub fn status_of(status: &Status, format: Format) -> String {
    match format {
        Format::Text => text(status),
        Format::Json if status.migrations.is_empty() && status.rows.is_empty() => {
            json_line(&status.counts())
        }
        Format::Json => json_lines(&status.migrations) + &json_lines(&status.rows),
    }
}

fn text(status: &Status) -> String {
    let names = status.migrations.iter().map(|migration| migration.migration.chars().count());
    let width = names.max().unwrap_or_default();
    let mut text = String::new();
    for MigrationLine { migration, state, applied_at, seconds_ago } in &status.migrations {
        let _ = write!(text, "{migration:width$}  {}", state_text(*state));
        if let Some(applied_at) = applied_at {
            let _ = write!(text, "  {applied_at}");
        }
        if let Some(seconds) = seconds_ago {
            let _ = write!(text, "  ({} ago)", age_text(*seconds));
        }
        text.push('\n');
    }
    for row in &status.rows {
        let state = match row.state {
            RowState::Duplicate => "records a migration once more",
            RowState::Ambiguous => "could belong to several migrations",
            RowState::Unknown => "matches no migration",
        };
        let _ = writeln!(text, "{} {state}", row.label);
    }
    let Counts { applied, edited, pending, ambiguous } = status.counts();
    let _ = write!(text, "{applied} applied, {edited} edited, {pending} pending");
    if ambiguous > 0 {
        let _ = write!(text, ", {ambiguous} ambiguous");
    }
    text.push('\n');
    printable(&text)
}

fn state_text(state: MigrationState) -> String {
    match state {
        MigrationState::Applied => "applied".to_owned(),
        MigrationState::Edited => "edited".to_owned(),
        MigrationState::Ambiguous => "ambiguous".to_owned(),
        MigrationState::Partial { steps_done, step_count } => {
            format!("partial ({steps_done} of {step_count})")
        }
        MigrationState::Pending => "pending".to_owned(),
        MigrationState::OutOfOrder => "pending, out of order".to_owned(),
    }
}

/// A time in the largest unit that fits.
fn age_text(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    plural(usize::try_from(count).unwrap_or(usize::MAX), unit)
}
