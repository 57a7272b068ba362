//! Which words of a text have a color. Pure.

use crate::apply::event::Event;
use crate::commands::status::MigrationState;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Green,
    Yellow,
    Red,
}

/// The text, in this color if the stream has colors.
pub fn paint(text: &str, color: Color, is_colored: bool) -> String {
    let code = match color {
        _ if !is_colored => return text.to_owned(),
        Color::Green => "32",
        Color::Yellow => "33",
        Color::Red => "1;31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The color of what an event means.
pub fn of_event(event: &Event) -> Option<Color> {
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
        | Event::NotMeasured { .. }
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

pub fn of_state(state: MigrationState) -> Color {
    match state {
        MigrationState::Applied => Color::Green,
        MigrationState::Edited | MigrationState::Ambiguous => Color::Red,
        MigrationState::Partial(_) | MigrationState::Pending | MigrationState::OutOfOrder => {
            Color::Yellow
        }
    }
}
