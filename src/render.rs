//! What happened, in words for people or in JSON: two renderings of the same values.
//!
//! Every sentence of a run stands here or in a `Display` beside its type. Ours come first, the
//! server's words follow whole; control characters do not pass.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::check::{Checked, Finding, Severity};
use crate::config::Format;
use crate::connect;
use crate::database::{Attempt, Cause, Trouble};
use crate::error::{Conflict, Ended, Error, RolledBack};
use crate::fit::Unfit;
use crate::migration::MigrationSet;
use crate::pg_error::{PgError, Position};
use crate::plan::Plan;
use crate::report::{Advice, Again, Event, Excerpt, Failure, Holder, Phase, Purpose};
use crate::source::Origin;
use crate::sql::Script;
use crate::status::{Line, State, Status};

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
                Again::Lock(error) => format!(
                    "{migration} was rolled back, a lock did not come ({} {}); attempt {attempt} \
                     in {pause}",
                    error.code, error.message
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
            let (sqlstate, message) = match why {
                Again::Lock(error) => (Some(error.code.clone()), error.message.clone()),
                Again::Lost(trouble) => (None, trouble_text(trouble)),
            };
            json!({
                "event": "retrying",
                "migration": migration,
                "sqlstate": sqlstate,
                "message": message,
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
            match attempts.as_slice() {
                [only] => format!("the database {what}: {}", attempt_text(only)),
                all => list(&format!("the database {what}:"), all.iter().map(attempt_text)),
            }
        }
        Error::Standby => "the server is a standby, which takes no changes; connect to the \
             primary"
            .to_owned(),
        Error::Failed(failure) => failure_text(failure),
        Error::NoLock(failure) => {
            format!("{}\n\n  Every attempt met a lock.", failure_text(failure))
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
            Some(RolledBack { migration, confirmed: true }) => {
                format!("ended by {}; {} was rolled back", signal.name(), subject(migration))
            }
            Some(RolledBack { migration, confirmed: false }) => format!(
                "ended by {}; {} was cancelled, but the server did not confirm in time; it is \
                 rolled back unless the next start finds it applied",
                signal.name(),
                subject(migration)
            ),
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
        Error::App { program, error } => {
            let hint = match exec_hint(program, error) {
                Some(hint) => format!(" ({hint})"),
                None => String::new(),
            };
            format!("cannot start {program}: {error}{hint}")
        }
    }
}

fn exec_hint(program: &str, error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        std::io::ErrorKind::NotFound if program.contains('/') => Some(
            "if the file is there, its interpreter is not: the first line of a script, or the \
             loader of a dynamically linked program",
        ),
        std::io::ErrorKind::NotFound => Some("it is in no folder of PATH"),
        _ => None,
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
    let mut text = format!("{} failed and was rolled back\n\n", subject(&failure.migration));
    text.push_str(&server_text(&failure.error));
    let statement = match failure.statement {
        Some(statement) => format!("statement {statement} of {}", failure.statements),
        None => match failure.phase {
            Phase::Begin => "at the begin of its transaction".to_owned(),
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
    if failure.advice == Some(Advice::Baseline) {
        text.push_str(
            "\n  The history is empty, but the objects exist. If the database was made by other \
             means,\n  `premigrate baseline --through NAME` records what it has already.\n",
        );
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
        Error::Failed(failure) | Error::NoLock(failure) => failure_json(failure),
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
        "phase": match failure.phase {
            Phase::Begin => "begin",
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

/// What is carried, for stdout.
pub fn list_of(set: &MigrationSet, origin: &Origin, format: Format) -> String {
    let migrations = set.migrations().iter().zip(1..);
    match format {
        Format::Text => {
            let names = set.migrations().iter().map(|migration| migration.name.chars().count());
            let width = names.max().unwrap_or_default();
            let count = plural(set.migrations().len(), "migration");
            let mut text = format!("{count} in {origin} ({})\n", set.layout());
            for (migration, place) in migrations {
                let _ = writeln!(
                    text,
                    "{place:>4}  {:width$}  {}  {:>9}",
                    migration.name,
                    migration.hash,
                    plural(migration.size(), "byte"),
                );
            }
            clean(&text)
        }
        Format::Json => migrations
            .map(|(migration, place)| {
                line(object(json!({
                    "migration": migration.name,
                    "place": place,
                    "file": migration.file,
                    "hash": migration.hash.as_str(),
                    "bytes": migration.size(),
                    "when": migration.when,
                    "layout": set.layout().to_string(),
                    "from": origin.to_string(),
                })))
            })
            .collect(),
    }
}

/// What `up` would do, for stdout.
pub fn plan_of(set: &MigrationSet, plan: &Plan, format: Format) -> String {
    let pending =
        plan.pending.iter().filter_map(|pending| Some((pending, set.get(pending.place)?)));
    let statements = |sql: &str| Script::read(sql).statements().len();
    match format {
        Format::Text => {
            let mut text = format!(
                "would apply {}, each in a transaction of its own; {} applied\n",
                plural(plan.pending.len(), "migration"),
                plan.applied
            );
            for (pending, migration) in pending {
                let _ = writeln!(
                    text,
                    "  {} ({}){}",
                    migration.name,
                    plural(statements(migration.sql().unwrap_or_default()), "statement"),
                    if pending.out_of_order { ", out of order" } else { "" }
                );
            }
            clean(&text)
        }
        Format::Json => pending
            .map(|(pending, migration)| {
                line(object(json!({
                    "migration": migration.name,
                    "file": migration.file,
                    "out_of_order": pending.out_of_order,
                    "statements": statements(migration.sql().unwrap_or_default()),
                    "transaction": true,
                })))
            })
            .collect(),
    }
}

/// How everything stands, for stdout.
pub fn status_of(status: &Status, format: Format) -> String {
    let state = |line: &Line| match line.state {
        State::Applied => "applied",
        State::Edited => "edited",
        State::Ambiguous => "ambiguous",
        State::Pending => "pending",
        State::OutOfOrder => "pending, out of order",
    };
    if format == Format::Json {
        let lines = status.lines.iter().map(|it| {
            line(object(json!({
                "migration": it.migration,
                "state": state(it),
                "applied_at": it.applied_at,
                "seconds_ago": it.ago.map(|ago| ago.as_secs()),
            })))
        });
        let rows = |kind: &str, rows: &[String]| -> Vec<String> {
            rows.iter().map(|row| line(object(json!({ "row": row, "state": kind })))).collect()
        };
        return lines
            .chain(rows("duplicate", &status.duplicates))
            .chain(rows("ambiguous", &status.ambiguous))
            .chain(rows("unknown", &status.unknown))
            .collect();
    }
    let names = status.lines.iter().map(|line| line.migration.chars().count());
    let width = names.max().unwrap_or_default();
    let mut text = String::new();
    for line in &status.lines {
        let mut shown = format!("{:width$}  {}", line.migration, state(line));
        if let Some(applied_at) = &line.applied_at {
            // ISO 8601 without fractions of a second.
            let (at, rest) = applied_at.split_at_checked(19).unwrap_or((applied_at, ""));
            let offset = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            let _ = write!(shown, "  {}{offset}", at.replace('T', " "));
        }
        if let Some(ago) = line.ago {
            let _ = write!(shown, "  ({} ago)", about(ago));
        }
        let _ = writeln!(text, "{shown}");
    }
    for (rows, what) in [
        (&status.duplicates, "recorded more than once"),
        (&status.ambiguous, "could be the record of several migrations"),
        (&status.unknown, "known to the database, not carried"),
    ] {
        for row in rows {
            let _ = writeln!(text, "{row}: {what}");
        }
    }
    let count =
        |wanted: fn(State) -> bool| status.lines.iter().filter(|line| wanted(line.state)).count();
    let _ = writeln!(
        text,
        "{} applied, {} edited, {} pending",
        count(|state| state == State::Applied),
        count(|state| state == State::Edited),
        count(|state| matches!(state, State::Pending | State::OutOfOrder)),
    );
    clean(&text)
}

/// A time in its largest unit.
fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => plural_u64(seconds, "second"),
        60..3600 => plural_u64(seconds / 60, "minute"),
        3600..86_400 => plural_u64(seconds / 3600, "hour"),
        _ => plural_u64(seconds / 86_400, "day"),
    }
}

fn plural_u64(count: u64, one: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), one)
}

/// The files that `new` made, for stdout.
pub fn created(paths: &[PathBuf], format: Format) -> String {
    let shown = paths.iter().map(|path| path.display().to_string());
    match format {
        Format::Text => shown.map(|path| format!("{}\n", clean(&path))).collect(),
        Format::Json => shown.map(|path| line(object(json!({ "created": path })))).collect(),
    }
}

/// What there is to say of the carried set, for stdout.
pub fn check_of(checked: &Checked, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = String::new();
            for finding in &checked.findings {
                let _ = writeln!(text, "{}", finding_text(finding));
            }
            let counts: Vec<_> = [(Severity::Fault, "fault"), (Severity::Remark, "remark")]
                .into_iter()
                .map(|(severity, word)| (checked.count(severity), word))
                .filter(|(count, _)| *count > 0)
                .map(|(count, word)| plural(count, word))
                .collect();
            let migrations = plural(checked.migrations, "migration");
            if counts.is_empty() {
                let _ = writeln!(text, "{migrations}, nothing to say");
            } else {
                let _ = writeln!(text, "\n{} in {migrations}", counts.join(", "));
            }
            clean(&text)
        }
        Format::Json => checked
            .findings
            .iter()
            .map(|finding| {
                line(object(json!({
                    "severity": severity(finding),
                    "file": finding.file,
                    "line": finding.place.map(|(line, _)| line),
                    "column": finding.place.map(|(_, column)| column),
                    "what": finding.what.code(),
                    "message": clean(&sentence(finding)),
                })))
            })
            .collect(),
    }
}

fn finding_text(finding: &Finding) -> String {
    let mut place = finding.file.clone();
    if let Some((line, column)) = finding.place {
        let _ = write!(place, ":{line}:{column}");
    }
    if !place.is_empty() {
        place.push_str(": ");
    }
    format!("{place}{}: {}", severity(finding), sentence(finding))
}

fn severity(finding: &Finding) -> &'static str {
    match finding.what.severity() {
        Severity::Fault => "fault",
        Severity::Remark => "remark",
    }
}

/// Without the file's name, where it begins with it: it stands before it already.
fn sentence(finding: &Finding) -> String {
    let sentence = finding.what.to_string();
    match sentence.strip_prefix(&finding.file).and_then(|rest| rest.strip_prefix(' ')) {
        Some(rest) if !finding.file.is_empty() => rest.to_owned(),
        _ => sentence,
    }
}
