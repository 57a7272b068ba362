//! Colors, which are added to text that is finished: all that is not ours is escaped in it. Pure.

use crate::apply::event::Event;
use crate::commands::status::MigrationState;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Green,
    Yellow,
    Red,
}

/// What every line of ours begins with.
const PREFIX: &str = "premigrate:";

pub fn painted(text: &str, color: Color) -> String {
    let code = match color {
        Color::Green => "32",
        Color::Yellow => "33",
        Color::Red => "1;31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Lines of an event, with the color of what it means.
pub fn event_lines(lines: &str, event: &Event) -> String {
    match (color_of(event), lines.strip_prefix(PREFIX)) {
        (Some(color), Some(rest)) => painted(PREFIX, color) + rest,
        _ => lines.to_owned(),
    }
}

fn color_of(event: &Event) -> Option<Color> {
    match event {
        Event::Applied(_) | Event::Done { .. } | Event::UpToDate { .. } => Some(Color::Green),
        Event::Notice { notice, .. } if notice.severity != "WARNING" => None,
        Event::UnlistedFiles { .. }
        | Event::Waiting { .. }
        | Event::WaitingToCreate { .. }
        | Event::LookingForPrimary
        | Event::WaitingForPrimary { .. }
        | Event::LockedOut { .. }
        | Event::UnknownRows { .. }
        | Event::Applying { out_of_order: true, .. }
        | Event::NoStatement { .. }
        | Event::LockLost { .. }
        | Event::BackendRuns { .. }
        | Event::EndingBackend { .. }
        | Event::InvalidIndexes { .. }
        | Event::Blocked { .. }
        | Event::Notice { .. }
        | Event::NoticesLeftOut { .. }
        | Event::Retrying { .. } => Some(Color::Yellow),
        _ => None,
    }
}

/// The text of an error: its first words, the severity, and the caret.
pub fn error_text(text: &str) -> String {
    let mut colored = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end_matches('\n');
        let severity = bare.strip_prefix("  ").and_then(|rest| rest.split(' ').next());
        let severity = severity.filter(|word| ["ERROR", "FATAL", "PANIC"].contains(word));
        let before_caret = bare.strip_suffix('^').filter(|it| it.chars().all(|c| " |".contains(c)));
        match (bare.strip_prefix(PREFIX).filter(|_| index == 0), severity, before_caret) {
            (Some(rest), _, _) => colored.push_str(&(painted(PREFIX, Color::Red) + rest)),
            (None, Some(word), _) => {
                let rest = bare.trim_start().strip_prefix(word).unwrap_or_default();
                colored.push_str(&format!("  {}{rest}", painted(word, Color::Red)));
            }
            (None, None, Some(before)) => {
                colored.push_str(&(before.to_owned() + &painted("^", Color::Red)));
            }
            (None, None, None) => colored.push_str(bare),
        }
        colored.push_str(line.get(bare.len()..).unwrap_or_default());
    }
    colored
}

pub fn of_state(state: MigrationState) -> Color {
    match state {
        MigrationState::Applied => Color::Green,
        MigrationState::Edited | MigrationState::Ambiguous => Color::Red,
        MigrationState::Partial(_) | MigrationState::Pending | MigrationState::OutOfOrder => {
            Color::Yellow
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_first_words_the_severity_and_the_caret_in_red() {
        let text = "premigrate: 0000_a failed\n\n  ERROR 42703: no\n    ERROR of others\n\n\
                    \x20   1 | select a ^\n      |        ^\n";
        assert_eq!(
            error_text(text),
            "\u{1b}[1;31mpremigrate:\u{1b}[0m 0000_a failed\n\n  \u{1b}[1;31mERROR\u{1b}[0m 42703: \
             no\n    ERROR of others\n\n    1 | select a ^\n      |        \u{1b}[1;31m^\u{1b}[0m\n"
        );
    }
}
