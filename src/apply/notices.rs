//! What the server says while a migration runs.

use crate::postgres::session::Session;

use super::event::Event;

/// Reports the notices that came since the last look.
pub(super) fn report(session: &Session, migration: Option<&str>, emit: &mut dyn FnMut(Event)) {
    let Some(migration) = migration else { return };
    for notice in session.take_notices() {
        emit(Event::Notice { migration: migration.to_owned(), notice });
    }
}

/// Reports the last ones once the statements have ended, and how many were left out.
pub(super) fn report_last(session: &Session, migration: Option<&str>, emit: &mut dyn FnMut(Event)) {
    report(session, migration, emit);
    let (Some(migration), count @ 1..) = (migration, session.end_notices()) else { return };
    emit(Event::NoticesLeftOut { migration: migration.to_owned(), count });
}
