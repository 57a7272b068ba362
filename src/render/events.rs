//! Events, for stderr while a run is going on.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::apply::event::{Event, RecordKind, RetryReason, StepNumber};

use super::attempts::{attempt_json, attempt_text, connection_error_text};
use super::backends::{blocker_json, blocker_text, holder_json, holder_text};
use super::{object, plural, seconds, subject};

/// In words.
pub fn text(event: &Event) -> String {
    match event {
        Event::Carrying { origin, layout, migrations } => {
            format!("{} in {origin} ({layout})", plural(*migrations, "migration"))
        }
        Event::Note(note) => note.clone(),
        Event::Waiting { attempts, left } => {
            let tried: Vec<_> = attempts.iter().map(attempt_text).collect();
            format!("waiting up to {} for the database: {}", seconds(*left), tried.join("; "))
        }
        Event::WaitingForPrimary { left } => format!(
            "waiting up to {} for the server to stop being a standby, which takes no changes",
            seconds(*left)
        ),
        Event::LockedOut { holder, left } => format!(
            "waiting up to {} for another runner to finish: {}",
            seconds(*left),
            holder_text(holder.as_ref())
        ),
        Event::Unknown { rows } => format!(
            "the database knows {} not carried here ({}): applied by another version, left alone",
            plural(rows.len(), "migration"),
            rows.join(", ")
        ),
        Event::Applying { migration, out_of_order: false } => format!("applying {migration}"),
        Event::Applying { migration, out_of_order: true } => format!(
            "applying {migration}, which is out of order: a later one has been applied already"
        ),
        Event::Resuming { migration, done } => {
            format!("{migration}: an earlier start has done {} of {} steps", done.step, done.of)
        }
        Event::Step { migration, reached: StepNumber { step, of }, outside_transaction, took } => {
            let what = outside_transaction.map(|what| format!(", {what},")).unwrap_or_default();
            match took {
                Some(took) => {
                    format!("{migration}: step {step} of {of}{what} done in {}", seconds(*took))
                }
                None => format!("{migration}: step {step} of {of}{what} was done already"),
            }
        }
        Event::EndingOrphan { migration, pid } => format!(
            "{migration}: ending backend {pid}, in which a statement of an earlier start runs on"
        ),
        Event::Rebuilding { migration, index } => {
            format!("{migration}: the index {index} was left INVALID; building it again")
        }
        Event::Blocked { migration, blocker } => {
            format!("{} waits for a lock {}", subject(migration), blocker_text(blocker))
        }
        Event::Applied(done) => match done.took {
            Some(took) => format!("applied {} in {}", done.migration, seconds(took)),
            None => format!("{} is applied, the history says", done.migration),
        },
        Event::Recorded { migrations, kind } => {
            let names = migrations.join("\n  ");
            let count = plural(migrations.len(), "migration");
            match kind {
                RecordKind::Baseline => format!("recorded {count} as applied, not run:\n  {names}"),
                RecordKind::Accept => {
                    format!("accepted {count} as now in the file, not run:\n  {names}")
                }
            }
        }
        Event::NothingToRecord { kind: RecordKind::Baseline, named } => {
            let through = named.iter().map(|name| format!(" through {name}")).collect::<String>();
            format!("nothing to record: every migration{through} has its row")
        }
        Event::NothingToRecord { kind: RecordKind::Accept, named } => {
            let none = match named.as_slice() {
                [] => "no migration was".to_owned(),
                [only] => format!("{only} was not"),
                all => format!("none of {} was", all.join(", ")),
            };
            format!("nothing to accept: {none} edited since it was recorded")
        }
        Event::Retrying { migration, why, pause, attempt } => {
            let pause = seconds(*pause);
            let migration = subject(migration);
            match why {
                RetryReason::Lock { error, blocker, outside_transaction } => format!(
                    "{migration} {}, a lock did not come ({} {}{}); attempt {attempt} in {pause}",
                    if *outside_transaction { "did not get through" } else { "was rolled back" },
                    error.code,
                    error.message,
                    match blocker {
                        Some(blocker) => format!("; the lock {}", blocker_text(blocker)),
                        None => String::new(),
                    }
                ),
                RetryReason::Lost(trouble) => format!(
                    "the connection broke during {migration} ({}); looking in {pause} what became \
                     of it",
                    connection_error_text(trouble)
                ),
            }
        }
        Event::UpToDate { applied } => format!("up to date, {applied} applied"),
        Event::Skipped => "PREMIGRATE_SKIP is set: nothing was looked at or applied".to_owned(),
        Event::Starting { app } => format!("starting {app}"),
    }
}

/// As an object.
pub fn json(event: &Event) -> Map<String, Value> {
    object(match event {
        Event::Carrying { origin, layout, migrations } => json!({
            "event": "carrying",
            "from": origin.to_string(),
            "layout": layout.to_string(),
            "migrations": migrations,
        }),
        Event::Note(note) => json!({ "event": "note", "message": note }),
        Event::Waiting { attempts, left } => json!({
            "event": "waiting",
            "for": "database",
            "attempts": attempts.iter().map(attempt_json).collect::<Vec<_>>(),
            "left_ms": milliseconds(*left),
        }),
        Event::WaitingForPrimary { left } => {
            json!({ "event": "waiting", "for": "primary", "left_ms": milliseconds(*left) })
        }
        Event::LockedOut { holder, left } => json!({
            "event": "locked_out",
            "holder": holder.as_ref().map(holder_json),
            "left_ms": milliseconds(*left),
        }),
        Event::Unknown { rows } => json!({ "event": "unknown", "rows": rows }),
        Event::Applying { migration, out_of_order } => {
            json!({ "event": "applying", "migration": migration, "out_of_order": out_of_order })
        }
        Event::Resuming { migration, done } => json!({
            "event": "resuming",
            "migration": migration,
            "done": done.step,
            "units": done.of,
        }),
        Event::Step { migration, reached, outside_transaction, took } => json!({
            "event": "unit",
            "migration": migration,
            "unit": reached.step,
            "units": reached.of,
            "alone": outside_transaction,
            "ms": took.map(milliseconds),
        }),
        Event::EndingOrphan { migration, pid } => {
            json!({ "event": "ending_orphan", "migration": migration, "pid": pid })
        }
        Event::Rebuilding { migration, index } => {
            json!({ "event": "rebuilding", "migration": migration, "index": index })
        }
        Event::Blocked { migration, blocker } => json!({
            "event": "blocked",
            "migration": migration,
            "blocker": blocker_json(blocker),
        }),
        Event::Applied(done) => json!({
            "event": "applied",
            "migration": done.migration,
            "ms": done.took.map(milliseconds),
        }),
        Event::Recorded { migrations, kind } => json!({
            "event": "recorded",
            "migrations": migrations,
            "purpose": purpose_json(*kind),
        }),
        Event::NothingToRecord { kind, named } => json!({
            "event": "nothing_to_record",
            "purpose": purpose_json(*kind),
            "named": named,
        }),
        Event::Retrying { migration, why, pause, attempt } => {
            let (sqlstate, message, blocker) = match why {
                RetryReason::Lock { error, blocker, .. } => {
                    (Some(error.code.clone()), error.message.clone(), blocker.as_ref())
                }
                RetryReason::Lost(trouble) => (None, connection_error_text(trouble), None),
            };
            json!({
                "event": "retrying",
                "migration": migration,
                "sqlstate": sqlstate,
                "message": message,
                "blocker": blocker.map(blocker_json),
                "attempt": attempt,
                "pause_ms": milliseconds(*pause),
            })
        }
        Event::UpToDate { applied } => json!({ "event": "up_to_date", "applied": applied }),
        Event::Skipped => json!({ "event": "skipped" }),
        Event::Starting { app } => json!({ "event": "starting", "app": app }),
    })
}

fn purpose_json(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Baseline => "baseline",
        RecordKind::Accept => "accept",
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
