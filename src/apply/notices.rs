//! What the server says while a migration runs, or rows are written.

use crate::postgres::session::Session;

use super::event::Event;

/// Reports the notices about a migration that came since the last look.
pub(super) fn report(session: &Session, migration: Option<&str>, emit: &mut dyn FnMut(Event)) {
    for notice in session.take_notices(migration.unwrap_or_default()) {
        emit(Event::Notice { migration: migration.map(str::to_owned), notice });
    }
}

/// Reports the last ones once the statements have ended, and how many were left out.
pub(super) fn report_last(session: &Session, migration: Option<&str>, emit: &mut dyn FnMut(Event)) {
    session.end_notices();
    report(session, migration, emit);
    if let count @ 1.. = session.left_out_notices(migration.unwrap_or_default()) {
        emit(Event::NoticesLeftOut { migration: migration.map(str::to_owned), count });
    }
}
