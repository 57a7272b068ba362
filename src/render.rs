//! What happened, in words for people or in JSON: two renderings of the same values.
//!
//! Every sentence of a run stands here or in a `Display` beside its type. Ours come first, the
//! server's words follow whole; control characters do not pass.

mod answers;
mod cure;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::Format;
use crate::connect;
use crate::database::{Attempt, Cause, Trouble};
use crate::error::{ChangedUnit, Conflict, Doubt, Ended, Error, RolledBack};
use crate::exec::{NotStarted, Obstacle};
use crate::fit::Unfit;
use crate::pg_error::{PgError, Position};
use crate::progress;
use crate::report::{
    Advice, Again, Blocker, Event, Excerpt, Failure, Holder, Phase, Purpose, Reached,
};
use crate::source::Origin;

pub use self::answers::{check_of, created, list_of, plan_of, status_of};

/// An event, as a line or more for stderr.
pub fn event(event: &Event, format: Format) -> String {
    match format {
        Format::Text => format!("premigrate: {}\n", clean(&event_text(event))),
        Format::Json => line(event_json(event)),
    }
}

/// What ended a run, for stderr.
pub fn ended(ended: &Ended, with_app: bool, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = format!("premigrate: {}\n", whole_error_text(ended));
            let kept = kept(ended, with_app);
            if !kept.is_empty() {
                let _ = write!(text, "\n  {kept}\n");
            }
            clean(&text)
        }
        Format::Json => line(ended_json(ended)),
    }
}

/// One object a line. JSON itself escapes only the first 32 control characters, and terminals obey
/// more.
fn line(object: Map<String, Value>) -> String {
    let mut line = String::new();
    for c in Value::Object(object).to_string().chars() {
        if c.is_control() {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line + "\n"
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Without the characters by which a server, or a file, could drive a terminal. What a server
/// quotes from a function keeps the line ends of the file that made it.
fn clean(text: &str) -> String {
    text.replace("\r\n", "\n")
        .replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn event_text(event: &Event) -> String {
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
            format!("{migration}: an earlier start has done {} of {} steps", done.unit, done.of)
        }
        Event::Unit { migration, reached: Reached { unit, of }, alone, took } => {
            let what = alone.map(|what| format!(", {what},")).unwrap_or_default();
            match took {
                Some(took) => {
                    format!("{migration}: step {unit} of {of}{what} done in {}", seconds(*took))
                }
                None => format!("{migration}: step {unit} of {of}{what} was done already"),
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
        Event::Recorded { migrations, purpose } => {
            let names = migrations.join("\n  ");
            let count = plural(migrations.len(), "migration");
            match purpose {
                Purpose::Baseline => format!("recorded {count} as applied, not run:\n  {names}"),
                Purpose::Accept => {
                    format!("accepted {count} as now in the file, not run:\n  {names}")
                }
            }
        }
        Event::NothingToRecord { purpose: Purpose::Baseline } => {
            "nothing to record: every migration has its row".to_owned()
        }
        Event::NothingToRecord { purpose: Purpose::Accept } => {
            "nothing to accept: no migration was edited".to_owned()
        }
        Event::Retrying { migration, why, pause, attempt } => {
            let pause = seconds(*pause);
            let migration = subject(migration);
            match why {
                Again::Lock { error, blocker, alone } => format!(
                    "{migration} {}, a lock did not come ({} {}{}); attempt {attempt} in {pause}",
                    if *alone { "did not get through" } else { "was rolled back" },
                    error.code,
                    error.message,
                    match blocker {
                        Some(blocker) => format!("; the lock {}", blocker_text(blocker)),
                        None => String::new(),
                    }
                ),
                Again::Lost(trouble) => format!(
                    "the connection broke during {migration} ({}); looking in {pause} what became \
                     of it",
                    trouble_text(trouble)
                ),
            }
        }
        Event::UpToDate { applied } => format!("up to date, {applied} applied"),
        Event::Skipped => "PREMIGRATE_SKIP is set: nothing was looked at or applied".to_owned(),
        Event::Starting { app } => format!("starting {app}"),
    }
}

fn event_json(event: &Event) -> Map<String, Value> {
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
            "done": done.unit,
            "units": done.of,
        }),
        Event::Unit { migration, reached, alone, took } => json!({
            "event": "unit",
            "migration": migration,
            "unit": reached.unit,
            "units": reached.of,
            "alone": alone,
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
        Event::Recorded { migrations, purpose } => json!({
            "event": "recorded",
            "migrations": migrations,
            "purpose": purpose_json(*purpose),
        }),
        Event::NothingToRecord { purpose } => {
            json!({ "event": "nothing_to_record", "purpose": purpose_json(*purpose) })
        }
        Event::Retrying { migration, why, pause, attempt } => {
            let (sqlstate, message, blocker) = match why {
                Again::Lock { error, blocker, .. } => {
                    (Some(error.code.clone()), error.message.clone(), blocker.as_ref())
                }
                Again::Lost(trouble) => (None, trouble_text(trouble), None),
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

fn purpose_json(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Baseline => "baseline",
        Purpose::Accept => "accept",
    }
}

/// What a transaction was about.
fn subject(migration: &Option<String>) -> &str {
    migration.as_deref().unwrap_or("the history")
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn holder_text(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return "our role may not see which".to_owned();
    };
    let mut text = format!("backend {}", holder.pid);
    for (what, value) in [
        (" of ", &holder.application),
        (" from ", &holder.address),
        (", at work for ", &holder.since),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{what}{value}");
        }
    }
    text
}

fn holder_json(holder: &Holder) -> Value {
    json!({
        "pid": holder.pid,
        "application": holder.application,
        "address": holder.address,
        "since": holder.since,
    })
}

/// Behind "lock": on what, and who holds it.
fn blocker_text(blocker: &Blocker) -> String {
    let mut text = String::new();
    if let Some(table) = &blocker.table {
        let _ = write!(text, "on {table} ");
    }
    if blocker.pid == "0" {
        text.push_str("held by a prepared transaction");
    } else {
        let _ = write!(text, "held by backend {}", blocker.pid);
    }
    for (what, value) in [
        (" of ", &blocker.application),
        (", role ", &blocker.role),
        (", ", &blocker.state),
        (" for ", &blocker.since),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{what}{value}");
        }
    }
    if let Some(query) = &blocker.query {
        let words: Vec<&str> = query.split_whitespace().collect();
        let _ = write!(text, ": {}", words.join(" "));
    }
    if blocker.others > 0 {
        let _ = write!(text, " (and {} more)", blocker.others);
    }
    text
}

fn blocker_json(blocker: &Blocker) -> Value {
    json!({
        "pid": blocker.pid,
        "application": blocker.application,
        "role": blocker.role,
        "state": blocker.state,
        "since": blocker.since,
        "query": blocker.query,
        "table": blocker.table,
        "others": blocker.others,
    })
}

fn attempt_text(attempt: &Attempt) -> String {
    format!("{}: {}", attempt.place, cause_text(&attempt.cause))
}

fn attempt_json(attempt: &Attempt) -> Value {
    let sqlstate = match &attempt.cause {
        Cause::Server(error) => Some(error.code.clone()),
        Cause::Client(_) | Cause::Stopped(_) => None,
    };
    json!({
        "place": attempt.place,
        "message": cause_text(&attempt.cause),
        "sqlstate": sqlstate,
        "hint": cure::cure(attempt),
    })
}

fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Stopped(signal) => signal.name().to_owned(),
        Cause::Server(error) => format!("{} ({})", error.message, error.code),
        Cause::Client(trouble) => trouble_text(trouble),
    }
}

fn trouble_text(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Lookup(why) => format!("the name cannot be resolved ({why})"),
        Trouble::Dial(_, why) | Trouble::Protocol(why) => why.clone(),
        Trouble::Tls(trouble) => trouble.to_string(),
        Trouble::Login(why) => format!("logging in failed ({why})"),
        Trouble::NoPassword => "the server asks for a password, and none is given".to_owned(),
        Trouble::Lost(_, Some(last_word)) => last_word.message.clone(),
        Trouble::Lost(why, None) => why.clone(),
        Trouble::ReadOnly => {
            "the server takes no changes, which target_session_attrs asks for".to_owned()
        }
        Trouble::Silent => "no answer".to_owned(),
    }
}

/// Below an error: what this run did, and what it left.
fn kept(ended: &Ended, with_app: bool) -> String {
    let mut sentences = Vec::new();
    let reached = ended.reached.as_ref();
    sentences.extend(reached.and_then(|(migration, reached)| stays_text(migration, *reached)));
    match (ended.applied.len(), ended.pending_after_failure()) {
        (0, 0) => {}
        (0, pending) if pending == ended.pending.len() => {
            sentences
                .push(format!("{pending} {} pending.", if pending == 1 { "is" } else { "are" }));
        }
        (0, pending) => sentences.push(format!("{} pending.", more_are(pending))),
        (applied, pending) => {
            let are = if applied == 1 { "is" } else { "are" };
            let mut sentence =
                format!("{} applied in this run {are} kept", plural(applied, "migration"));
            if pending > 0 {
                let _ = write!(sentence, "; {} pending", more_are(pending));
            }
            sentences.push(format!("{sentence}."));
        }
    }
    if let Some(uncertain) = &ended.uncertain {
        sentences.push(format!(
            "Whether {uncertain} was committed is not known; the next start finds out."
        ));
    }
    let exec_failed = matches!(ended.error, Error::App { .. });
    if with_app && !exec_failed {
        sentences.push("The app was not started.".to_owned());
    }
    sentences.join(" ")
}

fn more_are(count: usize) -> String {
    format!("{count} more {}", if count == 1 { "is" } else { "are" })
}

/// What happened; an error before which this run had applied something, does not say that nothing
/// was run.
fn whole_error_text(ended: &Ended) -> String {
    let text = error_text(&ended.error);
    if ended.applied.is_empty() {
        text
    } else {
        text.replace("nothing was run", "nothing more was run")
    }
}

fn error_text(error: &Error) -> String {
    match error {
        Error::Usage(usage) => format!("{usage}; see --help"),
        Error::Config(invalid) => invalid.to_string(),
        Error::NothingEmbedded => "this executable carries no migrations; name a folder with \
             --dir, or build it with PREMIGRATE_MIGRATIONS"
            .to_owned(),
        Error::Unreadable { path, error } => {
            format!("{} cannot be read: {error}", path.display())
        }
        Error::InvalidSet { origin, problems } => {
            let from = match origin {
                Origin::Executable => "the migrations in this executable".to_owned(),
                Origin::Folder(folder) => folder.display().to_string(),
            };
            list(&format!("{from} cannot be used:"), problems.iter().map(ToString::to_string))
        }
        Error::Unfit(unfit) => list(
            "nothing was run, since not everything that is pending can be:",
            unfit.iter().map(unfit_text),
        ),
        Error::Conflict(conflict) => conflict_text(conflict),
        Error::NotAHistory(table, not) => format!(
            "the table {table} is not Drizzle's history: it {}; nothing was run. Name the right \
             one with --schema and --table",
            not.what
        ),
        Error::Unreachable(attempts) => {
            let refused = attempts.iter().any(|attempt| connect::refuses(&attempt.cause));
            let what = if refused { "refuses us" } else { "cannot be reached" };
            let told = match attempts.as_slice() {
                [only] => format!("the database {what}: {}", attempt_text(only)),
                all => list(&format!("the database {what}:"), all.iter().map(attempt_text)),
            };
            cure::cures(attempts).into_iter().fold(told, |told, cure| told + "\n  hint: " + cure)
        }
        Error::Standby => "the server is a standby, which takes no changes; connect to the \
             primary"
            .to_owned(),
        Error::Failed(failure) => failure_text(failure),
        Error::ChangedUnits(changed) => list(
            "nothing was run, since migrations were edited in what an earlier start has done of \
             them; restore that, and put the change behind it or into a new migration:",
            changed.iter().map(changed_unit_text),
        ),
        Error::NotProgress(table, not) => format!(
            "the table {} is not one of ours ({not}); nothing was run",
            progress::qualified(table)
        ),
        Error::Doubt(doubt) => doubt_text(doubt),
        Error::Orphan { migration, pid, error } => format!(
            "{migration}: backend {pid} still runs a statement of an earlier start, and {}; end \
             it with `select pg_terminate_backend({pid})`, and start again",
            match error {
                Some(error) => format!("we may not end it ({} {})", error.code, error.message),
                None => "does not end".to_owned(),
            }
        ),
        Error::Busy { migration, index } => format!(
            "{migration}: someone else seems to be building the index {index}, or to vacuum its \
             table; try again later"
        ),
        Error::NoSecondConnection { migration } => format!(
            "{migration} needs two connections at once, one of which holds the lock while the \
             other runs what cannot run in a transaction, and the second one did not come. Is it \
             a pooler with a pool of one? Give it two, or connect to the server itself"
        ),
        Error::PooledSettings { migration, settings } => format!(
            "{migration} has a statement that runs outside a transaction under `{}`, which a \
             pooler does not keep for it; connect to the server itself, or write the statement so \
             that it does not depend on that",
            settings.join("; ")
        ),
        Error::NoLock(failure, blocker) => {
            let who = match blocker {
                Some(blocker) => format!(" It was last seen {}.", blocker_text(blocker)),
                None => String::new(),
            };
            format!("{}\n\n  Every attempt met a lock.{who}", failure_text(failure))
        }
        Error::Broken(broken) => format!(
            "the connection breaks each time at {} ({}), after {} of {} completed; it is not \
             applied",
            subject(&broken.migration),
            trouble_text(&broken.trouble),
            broken.completed,
            plural(broken.statements, "statement"),
        ),
        Error::Forbidden { error, statements } => format!(
            "our role may not use the history as it must ({} {}). Have someone who may run:\n\n    {}",
            error.code,
            error.message,
            statements.join("\n    ")
        ),
        Error::LockedOut(holder) => format!(
            "another runner is still at work ({}); try again later",
            holder_text(holder.as_ref())
        ),
        Error::Unsettled(table) => format!(
            "the history {table} looks different each time that something is to be written; is \
             something else changing it?"
        ),
        Error::Unanswered(table) => format!(
            "the server lets us in, but does not answer about the history {table}; is that locked? \
             Try again later"
        ),
        Error::Stopped { signal, rolled_back } => match rolled_back {
            Some(rolled_back) => {
                format!("ended by {}; {}", signal.name(), rolled_back_text(rolled_back))
            }
            None => format!("ended by {}", signal.name()),
        },
        Error::NoSuchMigration(name) => {
            format!("no migration is named {name}; `premigrate list` shows the names")
        }
        Error::NotApplied(names) => format!(
            "{} cannot be accepted: not applied yet, so not edited since. `baseline` records \
             without running",
            names.join(", ")
        ),
        Error::NotAdded(invalid) => invalid.to_string(),
        Error::Signals(error) => format!("signals cannot be handled: {error}"),
        Error::App { program, reason: NotStarted { error, obstacle } } => {
            let why = obstacle.as_ref().map(obstacle_text);
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("cannot start {program}: {error}{why}")
        }
    }
}

fn rolled_back_text(rolled_back: &RolledBack) -> String {
    let RolledBack { migration, confirmed, alone } = rolled_back;
    let migration = subject(migration);
    match (alone, confirmed) {
        (Some(what), true) => format!("{migration} was cancelled in {what}. {}", left_by(what)),
        (Some(what), false) => format!(
            "{migration} was cancelled in {what}, but the server did not confirm in time. {}",
            left_by(what)
        ),
        (None, true) => format!("{migration} was rolled back"),
        (None, false) => format!(
            "{migration} was cancelled, but the server did not confirm in time; it is rolled back \
             unless the next start finds it applied"
        ),
    }
}

/// What a statement leaves that ended before its end, outside a transaction.
fn left_by(what: &str) -> &'static str {
    match what {
        "CREATE INDEX CONCURRENTLY" => {
            "A concurrent build cannot be rolled back: it may leave an INVALID index, which the \
             next start drops and builds again"
        }
        _ => "It cannot be rolled back; the next start looks what became of it",
    }
}

/// What of a migration in several units stays.
fn stays_text(migration: &str, reached: Reached) -> Option<String> {
    let Reached { unit, of } = reached;
    match unit {
        1 => None,
        2 => Some(format!(
            "Step 1 of {of} of {migration} is done and stays; the next start goes on with step 2."
        )),
        _ => Some(format!(
            "Steps 1 to {} of {of} of {migration} are done and stay; the next start goes on with \
             step {unit}.",
            unit - 1
        )),
    }
}

fn changed_unit_text(changed: &ChangedUnit) -> String {
    let mut place = changed.file.clone();
    if let Some((line, column)) = changed.place {
        let _ = write!(place, ":{line}:{column}");
    }
    format!("{place}, step {} of the {} that are done", changed.unit, changed.done)
}

fn doubt_text(doubt: &Doubt) -> String {
    format!(
        "{}: a statement that runs outside any transaction was begun by an earlier start, and \
         nothing tells whether it was done; nothing was run\n\n    {}\n\n  Look at the database. \
         If it was done, or you have done it:\n\n    {};\n\n  If it is to run again:\n\n    {};",
        doubt.migration,
        indented(&doubt.statement),
        doubt.done,
        doubt.again
    )
}

fn obstacle_text(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NotInPath => "it is in no folder of PATH".to_owned(),
        Obstacle::NoInterpreter(name) => match name.strip_suffix('\r') {
            Some(name) => format!(
                "its first line names {name} and a carriage return; the file's line ends have to be \
                 LF, not CRLF"
            ),
            None => format!("the script is there; its interpreter is not: {name}"),
        },
        Obstacle::NoLoader(name) => {
            format!(
                "the program is there; what loads it, as it is dynamically linked, is not: {name}"
            )
        }
        Obstacle::Folder => "it is a folder".to_owned(),
        Obstacle::NotExecutable => "its mode does not allow it; `chmod +x` does".to_owned(),
        Obstacle::NoProgram => {
            "it is neither a program nor a script whose first line names an interpreter, such as \
             #!/bin/sh"
                .to_owned()
        }
        Obstacle::OtherMachine => "it is a program for another kind of machine".to_owned(),
    }
}

fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let mut text = format!("{title}\n");
    for item in items {
        let _ = write!(text, "\n  - {item}");
    }
    text
}

fn unfit_text(unfit: &Unfit) -> String {
    let mut place = unfit.file.clone();
    if let Some((line, column)) = unfit.place {
        let _ = write!(place, ":{line}:{column}");
    }
    format!("{place} {}", unfit.why)
}

fn conflict_text(conflict: &Conflict) -> String {
    match conflict {
        Conflict::Edited(edited) => {
            let mut text = list(
                "nothing was run, since migrations were edited after they had been applied:",
                edited.iter().map(|edited| {
                    format!(
                        "{}\n      applied as  {}\n      is now      {}",
                        edited.file, edited.recorded, edited.present
                    )
                }),
            );
            let names: Vec<_> = edited.iter().map(|edited| edited.migration.as_str()).collect();
            let names = names.join(",");
            let _ = write!(
                text,
                "\n\n  Restore the files, and make the change in a new migration. Or, if the \
                 database already has\n  what they say now, run `premigrate accept {}`, or set \
                 PREMIGRATE_ACCEPT={names}",
                names.replace(',', " ")
            );
            text
        }
        Conflict::Ambiguous { rows, migrations } => format!(
            "nothing was run, since the history can be read in more than one way: {} may record {}, \
             or not. Restore their files as they were applied; what has not been applied yet, give \
             a time stamp of its own and, with a comment, a content of its own",
            rows.join(", "),
            migrations.join(", ")
        ),
        Conflict::NothingMatches { rows, migrations } => format!(
            "nothing was run, since the history has {} and none is about the {} carried here. Is \
             it the right database, the right --dir, the right --table? If they were squashed, \
             `baseline` records them as applied; --apply-older runs them all",
            plural(*rows, "row"),
            plural(*migrations, "migration")
        ),
        Conflict::OlderThanHistory { pending, first_applied } => format!(
            "nothing was run, since {} come before {first_applied}, the first that the history \
             knows: it was trimmed, or begun by hand. `baseline --through {}` records them as \
             applied; --apply-older runs them",
            pending.join(", "),
            pending.last().map(String::as_str).unwrap_or_default()
        ),
        Conflict::MayHaveRun { pending, unknown } => format!(
            "nothing was run, since {} may be what {} recorded, changed since. `accept NAME` \
             records as applied the one that ran; --apply-older runs all that is pending",
            pending.join(", "),
            unknown.join(", "),
        ),
        Conflict::NotUpgradable { unknown } => format!(
            "nothing was run, since the history table is of Drizzle 0.x and cannot be upgraded: {} \
             match nothing carried. Restore those migrations, or delete the rows",
            unknown.join(", ")
        ),
        Conflict::Strict { out_of_order, unknown } => {
            let mut reasons = Vec::new();
            if !out_of_order.is_empty() {
                reasons.push(format!("{} out of order", out_of_order.join(", ")));
            }
            if !unknown.is_empty() {
                reasons.push(format!("{} not carried", unknown.join(", ")));
            }
            format!("nothing was run, since --strict refuses: {}", reasons.join("; "))
        }
    }
}

fn failure_text(failure: &Failure) -> String {
    if failure.phase == Phase::LostTransaction {
        // What the server says here is about a guard of ours.
        return format!(
            "{} ended its own transaction, and is not recorded\n\n  A statement of it has \
             committed or rolled back what came before, unseen by us:\n  look what stands, and \
             repair it by hand.",
            subject(&failure.migration)
        );
    }
    let rolled_back = if failure.alone.is_none() { " and was rolled back" } else { "" };
    let step = match failure.reached {
        Some(Reached { unit, of }) => format!(" in step {unit} of {of}"),
        None => String::new(),
    };
    let mut text = format!("{} failed{step}{rolled_back}\n\n", subject(&failure.migration));
    text.push_str(&server_text(&failure.error));
    let statement = match failure.statement {
        Some(statement) => format!("statement {statement} of {}", failure.statements),
        None => match failure.phase {
            Phase::Begin => "at the begin of its transaction".to_owned(),
            Phase::Replay => "at the settings of the steps before".to_owned(),
            Phase::Statement => format!("in one of {} statements", failure.statements),
            Phase::Deferred => "at its end, where deferred constraints are checked".to_owned(),
            Phase::LostTransaction => "at its end".to_owned(),
            Phase::Record => "at its history row".to_owned(),
            Phase::Commit => "at COMMIT".to_owned(),
        },
    };
    let _ = match (&failure.file, failure.place) {
        (Some(file), Some((line, column))) => {
            writeln!(text, "  at {file}:{line}:{column}, {statement}")
        }
        (Some(file), None) => writeln!(text, "  {file}, {statement}"),
        (None, _) => writeln!(text, "  {statement}"),
    };
    if let Some(excerpt) = &failure.excerpt {
        let _ = write!(text, "\n{}", excerpt_text(excerpt));
    }
    match failure.advice {
        Some(Advice::Baseline) => text.push_str(
            "\n  The history is empty, but the objects exist. If the database was made by other \
             means,\n  `premigrate baseline --through NAME` records what it has already.\n",
        ),
        Some(Advice::NoTransaction) => text.push_str(
            "\n  This cannot run with the rest in one transaction. Put the line\n\n    \
             -- premigrate: no-transaction\n\n  into the file: then each statement is run, and \
             recorded, by itself.\n",
        ),
        None => {}
    }
    if let Some(what @ "CREATE INDEX CONCURRENTLY") = failure.alone {
        let _ = write!(text, "\n  {}.\n", left_by(what));
    }
    text.trim_end().to_owned()
}

/// The server's words, whole, as psql has them.
fn server_text(error: &PgError) -> String {
    let mut text = format!("  {} {}: {}\n", error.severity, error.code, indented(&error.message));
    if let Some(Position::InInternalQuery { query, position }) = &error.position {
        let before: String = query.chars().take(position.saturating_sub(1)).collect();
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let queried = query.lines().nth(line).unwrap_or_default();
        let _ = writeln!(text, "  QUERY: {queried}\n         {}^", " ".repeat(column));
    }
    for (name, value) in [
        ("DETAIL", &error.detail),
        ("HINT", &error.hint),
        ("CONTEXT", &error.context),
        ("SCHEMA", &error.schema),
        ("TABLE", &error.table),
        ("COLUMN", &error.column),
        ("DATATYPE", &error.datatype),
        ("CONSTRAINT", &error.constraint),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {}", indented(value));
        }
    }
    text
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// How much of a line is shown before and after the caret.
const BEFORE: usize = 60;
const AFTER: usize = 60;

fn excerpt_text(excerpt: &Excerpt) -> String {
    let width = excerpt.lines.last().map_or(0, |(number, _)| number.to_string().len()).max(3);
    let column = excerpt.caret.unwrap_or(1);
    // A line may be a megabyte of data: both lines are cut alike, so that the caret stays true.
    let skipped = column.saturating_sub(1 + BEFORE);
    let mut text = String::new();
    for (number, line) in &excerpt.lines {
        let shown: String = line
            .chars()
            .skip(skipped)
            .take(BEFORE + AFTER)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let _ = writeln!(text, "  {number:>width$} | {}", shown.trim_end());
    }
    if excerpt.caret.is_some() {
        let _ = writeln!(text, "  {:width$} | {}^", "", " ".repeat(column - 1 - skipped));
    }
    text
}

fn ended_json(ended: &Ended) -> Map<String, Value> {
    let error = &ended.error;
    let mut fields = match error {
        Error::Failed(failure) => failure_json(failure),
        Error::NoLock(failure, blocker) => {
            let mut fields = failure_json(failure);
            fields.insert("blocker".to_owned(), json!(blocker.as_ref().map(blocker_json)));
            fields
        }
        _ => {
            let mut text = whole_error_text(ended);
            text = clean(&text);
            object(json!({ "event": "error", "message": text }))
        }
    };
    match error {
        Error::Conflict(Conflict::Edited(edited)) => {
            let edited: Vec<_> = edited
                .iter()
                .map(|edited| {
                    json!({
                        "migration": edited.migration,
                        "file": edited.file,
                        "applied_as": edited.recorded,
                        "is_now": edited.present,
                    })
                })
                .collect();
            fields.insert("edited".to_owned(), Value::Array(edited));
        }
        Error::Unreachable(attempts) => {
            let attempts = attempts.iter().map(attempt_json).collect();
            fields.insert("attempts".to_owned(), Value::Array(attempts));
        }
        Error::Stopped { signal, .. } => {
            fields.insert("signal".to_owned(), json!(signal.name()));
        }
        _ => {}
    }
    fields.insert("exit_code".to_owned(), json!(error.exit_code()));
    fields.insert("applied".to_owned(), json!(ended.applied));
    fields.insert("pending".to_owned(), json!(ended.pending));
    if let Some((migration, Reached { unit, of })) = &ended.reached {
        let partial = json!({ "migration": migration, "done": unit - 1, "units": of });
        fields.insert("partial".to_owned(), partial);
    }
    if let Some(uncertain) = &ended.uncertain {
        fields.insert("uncertain".to_owned(), json!(uncertain));
    }
    fields
}

fn failure_json(failure: &Failure) -> Map<String, Value> {
    let error = &failure.error;
    object(json!({
        "event": "failed",
        "migration": failure.migration,
        "file": failure.file,
        "line": failure.place.map(|(line, _)| line),
        "column": failure.place.map(|(_, column)| column),
        "statement": failure.statement,
        "statements": failure.statements,
        "unit": failure.reached.map(|reached| reached.unit),
        "units": failure.reached.map(|reached| reached.of),
        "alone": failure.alone,
        "phase": match failure.phase {
            Phase::Begin => "begin",
            Phase::Replay => "replay",
            Phase::Statement => "statement",
            Phase::Deferred => "deferred",
            Phase::LostTransaction => "lost_transaction",
            Phase::Record => "record",
            Phase::Commit => "commit",
        },
        "severity": error.severity,
        "sqlstate": error.code,
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
        "where": error.context,
        "schema": error.schema,
        "table": error.table,
        "column_name": error.column,
        "datatype": error.datatype,
        "constraint": error.constraint,
    }))
}
