use std::fmt::Write as _;

use super::json_lines;
use crate::apply::event::StepsDone;
use crate::cli::config::{Format, Style};
use crate::commands::status::{Counts, MigrationLine, MigrationState, RowState, Status};
use crate::render::color::{self, paint};
use crate::render::{json_line, one_line, plural};

pub fn status_of(status: &Status, style: impl Into<Style>) -> String {
    let Style { format, is_colored } = style.into();
    match format {
        Format::Text => text(status, is_colored),
        Format::Json if status.migrations.is_empty() && status.rows.is_empty() => {
            json_line(&status.counts())
        }
        Format::Json => json_lines(&status.migrations) + &json_lines(&status.rows),
    }
}

fn text(status: &Status, is_colored: bool) -> String {
    let names = status.migrations.iter().map(|migration| migration.migration.chars().count());
    let width = names.max().unwrap_or_default();
    let migrations = status.migrations.iter().map(|line| migration_text(line, width, is_colored));
    let rows = status.rows.iter().map(|row| {
        let state = match row.state {
            RowState::Duplicate => "records the same migration as another row",
            RowState::Ambiguous => "could record several migrations",
            RowState::Unknown => "matches no migration",
        };
        one_line(&format!("{} {state}", row.label))
    });
    let all = migrations.chain(rows).chain([counts_text(&status.counts())]);
    all.map(|line| line + "\n").collect()
}

fn migration_text(line: &MigrationLine, width: usize, is_colored: bool) -> String {
    let MigrationLine { migration, state, time } = line;
    let state_text = paint(&state_text(*state), color::of_state(*state), is_colored);
    let mut text = format!("{}  {state_text}", one_line(&format!("{migration:width$}")));
    if let Some(applied_at) = &time.applied_at {
        let _ = write!(text, "  {}", one_line(applied_at));
    }
    if let Some(seconds) = time.seconds_ago {
        let _ = write!(text, "  ({} ago)", age_text(seconds));
    }
    text
}

fn counts_text(counts: &Counts) -> String {
    let Counts { applied, edited, pending, ambiguous } = counts;
    let mut text = format!("{applied} applied, {edited} edited, {pending} pending");
    if *ambiguous > 0 {
        let _ = write!(text, ", {ambiguous} ambiguous");
    }
    text
}

fn state_text(state: MigrationState) -> String {
    match state {
        MigrationState::Applied => "applied".to_owned(),
        MigrationState::Edited => "edited".to_owned(),
        MigrationState::Ambiguous => "ambiguous".to_owned(),
        MigrationState::Partial(StepsDone { done, of }) => format!("partial ({done} of {of})"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::{AppliedTime, RowLine};

    fn status() -> Status {
        let line = |migration: &str, state, seconds_ago: Option<u64>| MigrationLine {
            migration: migration.to_owned(),
            state,
            time: AppliedTime {
                applied_at: seconds_ago.map(|_| "2026-11-22T18:01:27+00:00".to_owned()),
                seconds_ago,
            },
        };
        let migrations = vec![
            line("1_a", MigrationState::Applied, Some(7_300)),
            line("2_bb", MigrationState::Partial(StepsDone { done: 2, of: 4 }), None),
            line("3_c", MigrationState::OutOfOrder, None),
        ];
        let row = RowLine {
            row: 7,
            name: Some("\u{1b}x".to_owned()),
            created_at: None,
            hash: "0f".to_owned(),
            state: RowState::Unknown,
            label: "row 7 (\u{1b}x)".to_owned(),
        };
        Status { migrations, rows: vec![row], is_refused: false }
    }

    #[test]
    fn the_text_has_a_line_for_each_migration_and_row_and_ends_with_the_counts() {
        assert_eq!(
            status_of(&status(), Format::Text),
            "1_a   applied  2026-11-22T18:01:27+00:00  (2 hours ago)\n\
             2_bb  partial (2 of 4)\n\
             3_c   pending, out of order\n\
             row 7 (\\u{1b}x) matches no migration\n\
             1 applied, 0 edited, 2 pending\n"
        );
    }

    #[test]
    fn json_has_an_object_for_each_migration_and_row() {
        let lines = [
            r#"{"migration":"1_a","state":"applied","applied_at":"2026-11-22T18:01:27+00:00","seconds_ago":7300}"#,
            r#"{"migration":"2_bb","state":"partial","steps_done":2,"step_count":4,"applied_at":null,"seconds_ago":null}"#,
            r#"{"migration":"3_c","state":"out_of_order","applied_at":null,"seconds_ago":null}"#,
            r#"{"row":7,"name":"\u001bx","created_at":null,"hash":"0f","state":"unknown"}"#,
        ];
        assert_eq!(status_of(&status(), Format::Json), lines.join("\n") + "\n");
    }

    #[test]
    fn without_migrations_and_rows_json_has_the_counts() {
        let nothing = Status { migrations: vec![], rows: vec![], is_refused: false };
        let counts = "{\"applied\":0,\"edited\":0,\"pending\":0,\"ambiguous\":0}\n";
        assert_eq!(status_of(&nothing, Format::Json), counts);
    }
}
