//! `wait`: until others have applied everything. Never writes, and asks only for the history.

use crate::apply::error::{ApplyError, RunFailure};
use crate::apply::event::{Event, Holder, HolderKind};
use crate::apply::load::{self, Loaded};
use crate::apply::{PollingWait, QUERY_TIMEOUT, create_database, lock};
use crate::cli::config::Options;
use crate::history::plan::{self, Policy};
use crate::history::table::Table;
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared;
use crate::postgres::session::Session;
use crate::process::signals::{Deadline, StopFlag};

/// Waits until nothing is pending, disconnected between two looks. Fails at once where `up` would, but
/// for a missing database: another runner may be about to create it.
pub fn wait(
    set: &MigrationSet,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(), RunFailure> {
    let limit = Deadline::after(options.runner_wait, stop);
    let (mut wait, mut database_wait) = (PollingWait::until(limit), PollingWait::until(limit));
    let policy = Policy { apply_older: false, ..options.policy };
    let mut are_runnable = false;
    loop {
        let Loaded { session, history, .. } = match load::load(options, None, stop, emit) {
            Err(ApplyError::Unreachable { attempts }) if create_database::is_missing(&attempts) => {
                let seen = attempts.clone();
                let report = |left, is_new| {
                    let event = Event::Waiting { attempts: seen, left };
                    emit(event.repeated_unless(is_new));
                };
                let error = ApplyError::Unreachable { attempts: attempts.clone() };
                database_wait.pause(attempts, report, || error)?;
                continue;
            }
            loaded => loaded?,
        };
        let plan = plan::plan_up(set, &history, policy).map_err(ApplyError::HistoryMismatch)?;
        emit(Event::history_read(&plan));
        if plan.pending.is_empty() {
            if let Some(event) = Event::unknown_rows(&plan, &history) {
                emit(event);
            }
            emit(Event::UpToDate { applied: plan.applied });
            return Ok(());
        }
        let pending = plan.pending.iter().filter_map(|pending| set.get(pending.index));
        if !are_runnable {
            prepared::check(pending.clone())
                .map_err(|migrations| ApplyError::NotRunnable { migrations })?;
            are_runnable = true;
        }
        let migrations: Vec<_> = pending.map(|migration| migration.name.clone()).collect();
        let holder = runner(&session, &options.table, stop);
        drop(session);
        let seen = (migrations.clone(), holder.as_ref().map(|holder| holder.pid.clone()));
        let last_seen = holder.clone();
        let report = |left, is_new| {
            let migrations = migrations.clone();
            let event = Event::WaitingForMigrations { migrations, holder, left };
            emit(event.repeated_unless(is_new));
        };
        wait.pause(seen, report, || ApplyError::StillPending { holder: last_seen })
            .map_err(|error| RunFailure { pending: migrations, ..error.into() })?;
    }
}

/// The runner at work, as far as our role may see it.
fn runner(session: &Session, table: &Table, stop: &StopFlag) -> Option<Holder> {
    let deadline = Deadline::after(QUERY_TIMEOUT, stop);
    let row = session.query_row(&lock::holder_sql(table), deadline).ok()??;
    lock::parse_holder(&row).filter(|holder| holder.kind == HolderKind::Runner)
}
