//! The sentences of events.

use std::fmt::Write as _;
use std::time::Duration;

use crate::apply::event::{
    Applied, CommandProgress, Event, HeldBy, Holder, HolderKind, RecordKind, RetryReason, Running,
    StepNumber, StepsDone,
};

use crate::migrations::source::JOURNAL;

use super::attempts::attempt_text;
use super::backends::{at_work_text, held_by_text, lock_text};
use super::{PREFIX, color, indented, one_line, plural, seconds, some_of, subject};
use crate::postgres::notices::Notice;
use crate::postgres::session::QueryError;

/// One line, or a line and the names that belong to it.
pub fn lines(event: &Event, is_colored: bool) -> String {
    let below = match event {
        Event::Recorded { migrations, .. } => {
            migrations.iter().map(|name| format!("  {name}")).collect()
        }
        Event::Notice { notice, .. } => below_notice(notice),
        _ => Vec::new(),
    };
    let color = color::of_event(event).filter(|_| is_colored);
    let prefix = color.map_or(PREFIX.to_owned(), |color| color::paint(PREFIX, color, is_colored));
    format!("{prefix} {}\n", one_line(&text(event))) + &super::lines(below)
}

/// What a terminal shows until the next event.
pub fn live_line(event: &Event) -> String {
    format!("{PREFIX} {}", one_line(&text(event)))
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
            format!("{JOURNAL} does not list these files, so they do not run: {}", files.join(", "))
        }
        Event::NotMeasured { statements } => format!(
            "warning: it is not known which tables these statements lock, or how large these are, so \
             --max-blocking does not hold for them: {}",
            statements.join(", ")
        ),
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
            "applying migrations up to {migration} only; {} {} pending",
            plural(*later, "later migration"),
            if *later == 1 { "stays" } else { "stay" }
        ),
        Event::LookingForPrimary => {
            "the server is a read-only standby; looking for the primary among \
             the other servers. Add target_session_attrs=read-write to the URL to connect to it first"
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
            "warning: {migration} contains no SQL statement; it is recorded as applied, and SQL that is \
             added to it later will not run"
        ),
        Event::Resuming { migration, done: StepsDone { done, of } } if done == of => {
            format!("resuming {migration}: all steps are already done; recording it as applied")
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
            "{migration}: lost the connection that held the lock; the statement is still running, and \
             premigrate takes the lock again"
        ),
        Event::LockLeft { migration, left } => format!(
            "{migration}: the statement has ended; waiting up to {} for the lock, to record the \
             result. Another runner may hold it, or the server has not yet noticed the lost \
             connection",
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
             without time limits. To set limits, point MIGRATION_DATABASE_URL at the server itself"
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
        Event::Repeated(_) | Event::Unprinted(_) => String::new(),
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

fn activity_text(activity: &CommandProgress) -> String {
    let CommandProgress { command, table, phase, percent } = activity;
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
