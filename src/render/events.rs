//! The sentences of events.

use std::fmt::Write as _;
use std::time::Duration;

use crate::apply::event::{
    Activity, Applied, Event, HeldBy, Holder, HolderKind, RecordKind, RetryReason, Running,
    StepNumber, StepsDone,
};

use crate::migrations::source::JOURNAL;

use super::attempts::attempt_text;
use super::backends::{at_work_text, held_by_text, lock_text};
use super::{indented, plural, seconds, some_of, subject};
use crate::postgres::notices::Notice;
use crate::postgres::session::QueryError;

/// One line, or a line and the names that belong to it.
pub fn lines(event: &Event) -> Vec<String> {
    let below = match event {
        Event::Recorded { migrations, .. } => {
            migrations.iter().map(|name| format!("  {name}")).collect()
        }
        Event::Notice { notice, .. } => below_notice(notice),
        _ => Vec::new(),
    };
    [format!("premigrate: {}", text(event))].into_iter().chain(below).collect()
}

/// The further lines of a notice, each indented, so that none looks like a line of ours.
fn below_notice(notice: &Notice) -> Vec<String> {
    let Notice { message, detail, hint, .. } = notice;
    let mut lines: Vec<_> = message.lines().skip(1).map(|line| format!("    {line}")).collect();
    for (name, text) in [("DETAIL", detail), ("HINT", hint)] {
        let Some(text) = text else { continue };
        let text = format!("  {name}: {}", indented(text));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn text(event: &Event) -> String {
    match event {
        Event::Loaded { origin, layout, migrations } => {
            format!("{} in {origin} ({layout})", plural(*migrations, "migration"))
        }
        Event::UnlistedFiles { files } => {
            format!("never run, because {JOURNAL} does not list them: {}", files.join(", "))
        }
        Event::Note { message } => message.clone(),
        Event::Waiting { attempts, left } => {
            let tried: Vec<_> = attempts.iter().map(attempt_text).collect();
            format!("waiting up to {} for the database: {}", seconds(*left), tried.join("; "))
        }
        Event::CreatingDatabase { database, template } => {
            let copy = template.as_ref().map(|template| format!(" as a copy of {template}"));
            let copy = copy.unwrap_or_default();
            format!("the database {database} does not exist; creating it{copy}")
        }
        Event::WaitingToCreate { database, cause, left } => format!(
            "waiting up to {} to create the database {database}: {}",
            seconds(*left),
            not_created_reason(cause)
        ),
        Event::CreatedDatabase { database, took: Some(took) } => {
            format!("created the database {database} in {}", seconds(*took))
        }
        Event::CreatedDatabase { database, took: None } => {
            format!("another runner has created the database {database}")
        }
        Event::Through { migration, later } => format!(
            "going only up to {migration}: {} {} pending",
            plural(*later, "later migration"),
            if *later == 1 { "stays" } else { "stay" }
        ),
        Event::LookingForPrimary => {
            "the server is a read-only standby; looking for the primary among \
             the other servers. With target_session_attrs=read-write, it is looked for at once"
                .to_owned()
        }
        Event::WaitingForPrimary { left } => {
            format!(
                "waiting up to {} for the primary: the server is a read-only standby",
                seconds(*left)
            )
        }
        Event::LockedOut { holder, left } => locked_out_text(holder, &seconds(*left)),
        Event::WaitingForMigrations { migrations, holder, left } => format!(
            "waiting up to {} for others to apply {}; {}",
            seconds(*left),
            some_of(migrations),
            at_work_text(holder.as_ref())
        ),
        Event::UnknownRows { rows } => format!(
            "ignoring {} no migration: {}",
            match rows.len() {
                1 => "1 row of the history that matches".to_owned(),
                count => format!("{count} rows of the history that match"),
            },
            rows.join(", ")
        ),
        Event::Applying { migration, out_of_order: false } => format!("applying {migration}"),
        Event::Applying { migration, out_of_order: true } => {
            format!("applying {migration} out of order: a later migration is already applied")
        }
        Event::NoStatement { migration } => format!(
            "warning: {migration} has no statement, only comments or nothing; it is recorded, and SQL \
             that is added later does not run"
        ),
        Event::Resuming { migration, done: StepsDone { done, of } } if done == of => {
            format!("resuming {migration}: all of it is already done, and only recorded now")
        }
        Event::Resuming { migration, done: StepsDone { done, of } } => {
            format!("resuming {migration}: {done} of {of} steps already done")
        }
        Event::Step { migration, step: StepNumber { of: 1, .. }, outside_transaction, .. } => {
            format!("{migration}: {} is already done", outside_transaction.unwrap_or("it"))
        }
        Event::Step { migration, step: StepNumber { step, of }, outside_transaction, took } => {
            let kind = outside_transaction.map(|kind| format!(" ({kind})")).unwrap_or_default();
            match took {
                Some(took) => {
                    format!("{migration}: finished step {step} of {of}{kind} in {}", seconds(*took))
                }
                None => format!("{migration}: step {step} of {of}{kind} is already done"),
            }
        }
        Event::LockLost { migration } => format!(
            "{migration}: lost the connection that holds the lock; its statement goes on, and the \
             lock is taken again"
        ),
        Event::LockLeft { migration, left } => format!(
            "{migration}: its statement has ended; waiting up to {} for the lock, to record that: \
             another runner may have it, or the server has not noticed yet that the connection with \
             it was lost",
            seconds(*left)
        ),
        Event::BackendRuns { migration, pid, left } => format!(
            "{migration}: backend {pid} still runs a statement of an earlier attempt; waiting up to \
             {} for its runner to take the lock again",
            seconds(*left)
        ),
        Event::EndingBackend { migration, pid } => format!(
            "{migration}: terminating backend {pid}, which still runs a statement of an earlier attempt"
        ),
        Event::Rebuilding { migration, index } => {
            format!("{migration}: rebuilding the invalid index {index}")
        }
        Event::Finishing { migration, sql } => format!(
            "{migration}: a statement was half done and cannot be undone; finishing it with: {sql}"
        ),
        Event::InvalidIndexes { sql } => {
            format!("an unfinished statement left invalid indexes; drop them with: {sql}")
        }
        Event::NoTimeLimits => "connected through a pooler: statements outside a transaction run \
             without time limits. To have them, set MIGRATION_DATABASE_URL to the server itself"
            .to_owned(),
        Event::Blocked { migration, blocker } => {
            format!("{} is waiting for a {}", subject(migration), lock_text(blocker))
        }
        Event::Running(running) => running_text(running),
        Event::Notice { migration, notice: Notice { severity, message, .. } } => {
            let first = message.lines().next().unwrap_or_default();
            format!("{}: {severity}: {first}", subject(migration))
        }
        Event::NoticesLeftOut { migration, count } => {
            format!("{}: {} not shown", subject(migration), plural(*count, "more notice"))
        }
        Event::Applied(Applied { migration, took: Some(took) }) => {
            format!("applied {migration} in {}", seconds(*took))
        }
        Event::Applied(Applied { migration, took: None }) => {
            format!("{migration} was applied (the reply to COMMIT was lost)")
        }
        Event::Recorded { migrations, kind } => {
            let count = plural(migrations.len(), "migration");
            match kind {
                RecordKind::Baseline => format!("recorded {count} as applied (not run):"),
                RecordKind::Accept => format!("accepted the current content of {count} (not run):"),
            }
        }
        Event::NothingToRecord { kind, named } => nothing_to_record_text(*kind, named),
        Event::Retrying { migration, reason, pause, attempt } => {
            retrying_text(migration, reason, &seconds(*pause), *attempt)
        }
        Event::UpToDate { applied } => format!("up to date, {applied} applied"),
        Event::Done { applied, took, lock_wait } => {
            let mut text =
                format!("applied {} in {}", plural(*applied, "migration"), seconds(*took));
            if !lock_wait.is_zero() {
                let _ = write!(text, ", {} of it waiting for locks", seconds(*lock_wait));
            }
            text
        }
        Event::Skipped => {
            "PREMIGRATE_SKIP is set: no migrations were checked or applied".to_owned()
        }
        Event::NotForApp { app } => {
            format!("no migrations were checked or applied: --only-for does not name {app}")
        }
        Event::Starting { app } => format!("starting {app}"),
        Event::Repeated(_) | Event::Progress(_) => String::new(),
    }
}

/// With the server's DETAIL: how many others use a template.
fn not_created_reason(cause: &QueryError) -> String {
    let detail = match cause {
        QueryError::Server(error) => error.detail.as_ref(),
        QueryError::Client(_) | QueryError::Stopped(_) => None,
    };
    let detail = detail.map(|detail| format!(". {detail}")).unwrap_or_default();
    format!("{cause}{detail}")
}

/// What matters most comes first, since a terminal may have no room for all of it.
fn running_text(running: &Running) -> String {
    let Running { migration, step, statement, statements, outside_transaction, .. } = running;
    let mut text =
        format!("{}: running for {}", subject(migration), whole_seconds(running.running_for));
    if let Some(StepNumber { step, of }) = step {
        let _ = write!(text, ", step {step} of {of}");
    } else if *statements > 1 {
        let _ = match statement {
            Some(statement) => write!(text, ", statement {statement} of {statements}"),
            None => write!(text, ", one of {statements} statements"),
        };
    }
    let waiting = running.blocker.as_ref().map(|it| format!("waiting for a {}", lock_text(it)));
    let activity = running.activity.as_ref().map(activity_text);
    let kind = || outside_transaction.map(str::to_owned);
    match (waiting, activity.or_else(kind)) {
        (Some(waiting), Some(activity)) => text + ": " + &waiting + "; " + &activity,
        (Some(one), None) | (None, Some(one)) => text + ": " + &one,
        (None, None) => text,
    }
}

fn activity_text(activity: &Activity) -> String {
    let Activity { command, table, phase, percent } = activity;
    let mut text = command.clone();
    if let Some(table) = table {
        let _ = write!(text, " on {table}");
    }
    if let Some(percent) = percent {
        let _ = write!(text, ", {percent} %");
    }
    match (phase, percent) {
        (Some(phase), Some(_)) => text + " of " + phase,
        (Some(phase), None) => text + ", " + phase,
        (None, _) => text,
    }
}

fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        _ => seconds(time),
    }
}

fn locked_out_text(holder: &HeldBy, left: &str) -> String {
    let session = held_by_text(holder);
    match holder {
        HeldBy::Session(Holder { kind: HolderKind::Runner, .. }) | HeldBy::Unseen => {
            format!("waiting up to {left} for another runner to finish: {session}")
        }
        HeldBy::Session(_) => {
            format!("waiting up to {left} for the history table, which is locked by {session}")
        }
        HeldBy::Gone => format!("{session}; trying again for up to {left}"),
    }
}

fn nothing_to_record_text(kind: RecordKind, named: &[String]) -> String {
    match (kind, named) {
        (RecordKind::Baseline, []) => {
            "nothing to record: every migration is in the history already".to_owned()
        }
        (RecordKind::Baseline, names) => format!(
            "nothing to record: every migration up to {} is in the history already",
            names.join(", ")
        ),
        (RecordKind::Accept, []) => "nothing to accept: no migration is edited".to_owned(),
        (RecordKind::Accept, [name]) => format!("nothing to accept: {name} is not edited"),
        (RecordKind::Accept, names) => {
            format!("nothing to accept: none of {} is edited", names.join(", "))
        }
    }
}

fn retrying_text(
    migration: &Option<String>,
    reason: &RetryReason,
    pause: &str,
    attempt: u32,
) -> String {
    match reason {
        RetryReason::Lock { sqlstate, message, blocker, outside_transaction } => {
            let ended = if *outside_transaction { "failed" } else { "rolled back" };
            let kind = match sqlstate.as_str() {
                "40P01" => "deadlock",
                "40001" => "serialization failure",
                "55P03" => "lock timeout",
                _ => "conflict with another session",
            };
            let blocker = blocker.as_ref().map(|blocker| format!("; {}", lock_text(blocker)));
            format!(
                "{} {ended}: {kind} ({sqlstate} {message}{}); retrying in {pause} (attempt {attempt})",
                subject(migration),
                blocker.unwrap_or_default()
            )
        }
        RetryReason::ConnectionLost { cause } => format!(
            "connection lost during {} ({cause}); reconnecting in {pause} to check",
            subject(migration)
        ),
    }
}
