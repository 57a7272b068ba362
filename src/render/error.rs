//! What ended a run: what happened, what this run did, and what it left.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::apply::error::{
    ApplyError, ChangedStep, Conflict, Heirs, RolledBack, RunFailure, UnknownOutcome,
};
use crate::apply::event::{InProgress, StepNumber};
use crate::error::Error;
use crate::history::progress;
use crate::migrations::prepared::NotRunnable;
use crate::migrations::source::Origin;
use crate::postgres::session::Attempt;
use crate::postgres::wait;
use crate::process::exec::{ExecError, ExecHint};

use super::attempts::{attempt_json, attempt_text, connection_error_text};
use super::backends::{blocker_json, blocker_text, holder_text};
use super::{clean, failure, hints, indented, object, plural, subject};

/// Below an error: what this run did, and what it left.
pub fn kept(error: &Error, with_app: bool) -> String {
    let mut sentences = match error {
        Error::Run(failure) => kept_by_run(failure),
        _ => Vec::new(),
    };
    let exec_failed = matches!(error, Error::App { .. });
    if with_app && !exec_failed {
        sentences.push("The app was not started.".to_owned());
    }
    sentences.join(" ")
}

fn kept_by_run(ended: &RunFailure) -> Vec<String> {
    let mut sentences = Vec::new();
    sentences.extend(ended.in_progress.as_ref().and_then(stays_text));
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
    sentences
}

fn more_are(count: usize) -> String {
    format!("{count} more {}", if count == 1 { "is" } else { "are" })
}

/// What happened in a run; an error before which this run had applied something, does not say that nothing
/// was run.
fn run_text(ended: &RunFailure) -> String {
    let mut text = apply_error_text(&ended.error);
    text.extend(before(ended).map(|next| format!(" before {next}")));
    if ended.applied.is_empty() {
        text
    } else {
        text.replace("nothing was run", "nothing more was run")
    }
}

/// What a signal that interrupted nothing has kept from being run.
fn before(ended: &RunFailure) -> Option<String> {
    let ApplyError::Stopped { rolled_back: None, .. } = ended.error else { return None };
    match (&ended.uncertain, &ended.in_progress) {
        // It may have been run.
        (Some(_), _) => None,
        (
            None,
            Some(InProgress { migration, reached: StepNumber { step, of }, outside_transaction }),
        ) => {
            let what = outside_transaction.map(|what| format!(", {what}")).unwrap_or_default();
            Some(format!("step {step} of {of} of {migration}{what}"))
        }
        (None, None) => ended.pending.first().cloned(),
    }
}

/// What happened.
pub fn text(error: &Error) -> String {
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
        Error::New(invalid) => invalid.to_string(),
        Error::Signals(error) => format!("signals cannot be handled: {error}"),
        Error::App { program, reason: ExecError { error, hint } } => {
            let why = hint.as_ref().map(obstacle_text);
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("cannot start {program}: {error}{why}")
        }
        Error::Run(failure) => run_text(failure),
    }
}

fn apply_error_text(error: &ApplyError) -> String {
    match error {
        ApplyError::NotRunnable(unfit) => list(
            "nothing was run, since not everything that is pending can be:",
            unfit.iter().map(unfit_text),
        ),
        ApplyError::Conflict(conflict) => conflict_text(conflict),
        ApplyError::NotHistoryTable(table, not) => format!(
            "the table {table} is not Drizzle's history: it {}; nothing was run. Name the right \
             one with --schema and --table",
            not.what
        ),
        ApplyError::Unreachable(attempts) => {
            let is_rejection = |attempt: &Attempt| {
                wait::is_rejection(&attempt.cause) && !attempt.cause.is_config_error()
            };
            let refused = attempts.iter().any(is_rejection);
            let what = if refused { "refuses us" } else { "cannot be reached" };
            let told = match attempts.as_slice() {
                [only] => format!("the database {what}: {}", attempt_text(only)),
                all => list(&format!("the database {what}:"), all.iter().map(attempt_text)),
            };
            hints::hints(attempts).into_iter().fold(told, |told, hint| told + "\n  hint: " + hint)
        }
        ApplyError::ReadOnly => "the server is a standby, which takes no changes; connect to the \
             primary"
            .to_owned(),
        ApplyError::Failed(failure) => failure::text(failure),
        ApplyError::ChangedSteps(changed) => list(
            "nothing was run, since migrations were edited in what an earlier start has done of \
             them; restore that, and put the change behind it or into a new migration:",
            changed.iter().map(changed_step_text),
        ),
        ApplyError::AmbiguousRename(heirs) => {
            heirs.iter().map(heirs_text).collect::<Vec<_>>().join("\n\n  ")
        }
        ApplyError::BadProgressTable(table, not) => format!(
            "the table {} is not one of ours ({not}); nothing was run",
            progress::qualified(table)
        ),
        ApplyError::UnknownOutcome(doubt) => doubt_text(doubt),
        ApplyError::StaleBackend { migration, pid, error } => format!(
            "{migration}: backend {pid} still runs a statement of an earlier start, and {}; end \
             it with `select pg_terminate_backend({pid})`, and start again",
            match error {
                Some(error) => format!("we may not end it ({} {})", error.code, error.message),
                None => "does not end".to_owned(),
            }
        ),
        ApplyError::IndexBeingBuilt { migration, index } => format!(
            "{migration}: someone else seems to be building the index {index}; try again later"
        ),
        ApplyError::NoSecondConnection { migration } => format!(
            "{migration} needs two connections at once, one of which holds the lock while the \
             other runs what cannot run in a transaction, and the second one did not come. Is it \
             a pooler with a pool of one, or a role with a connection limit of one? Give it two, or \
             connect to the server itself"
        ),
        ApplyError::PooledSettings { migration, settings } => format!(
            "{migration} has a statement that runs outside a transaction under `{}`, which a \
             pooler does not keep for it; connect to the server itself, or write the statement so \
             that it does not depend on that",
            settings.join("; ")
        ),
        ApplyError::LockTimeout(failure, blocker) => {
            let who = match blocker {
                Some(blocker) => format!(" It was last seen {}.", blocker_text(blocker)),
                None => String::new(),
            };
            format!("{}\n\n  Every attempt met a lock.{who}", failure::text(failure))
        }
        ApplyError::ConnectionLost(broken) => format!(
            "the connection breaks each time at {} ({}), after {} of {} completed; it is not \
             applied",
            subject(&broken.migration),
            connection_error_text(&broken.trouble),
            broken.completed,
            plural(broken.statements, "statement"),
        ),
        ApplyError::PermissionDenied { error, statements } => format!(
            "our role may not use the history as it must ({} {}). Have someone who may run:\n\n    {}",
            error.code,
            error.message,
            statements.join("\n    ")
        ),
        ApplyError::LockedOut(holder) => format!(
            "another runner is still at work ({}); try again later",
            holder_text(holder.as_ref())
        ),
        ApplyError::HistoryKeepsChanging(table) => format!(
            "the history {table} looks different each time that something is to be written; is \
             something else changing it?"
        ),
        ApplyError::HistoryTimeout(table) => format!(
            "the server lets us in, but does not answer about the history {table}; is that locked? \
             Try again later"
        ),
        ApplyError::Stopped { signal, rolled_back } => match rolled_back {
            Some(rolled_back) => {
                format!("ended by {}; {}", signal.name(), rolled_back_text(rolled_back))
            }
            None => format!("ended by {}", signal.name()),
        },
        ApplyError::NoSuchMigration(name) => {
            format!("no migration is named {name}; `premigrate list` shows the names")
        }
        ApplyError::NotApplied(names) => format!(
            "{} cannot be accepted: not applied yet, so not edited since. `baseline` records \
             without running",
            names.join(", ")
        ),
    }
}

fn rolled_back_text(rolled_back: &RolledBack) -> String {
    let RolledBack { migration, confirmed, outside_transaction } = rolled_back;
    let migration = subject(migration);
    match (outside_transaction, confirmed) {
        (Some(what), true) => {
            format!("{migration} was cancelled in {what}. {}", failure::left_by(what))
        }
        (Some(what), false) => format!(
            "{migration} was cancelled in {what}, but the server did not confirm in time. {}",
            failure::left_by(what)
        ),
        (None, true) => format!("{migration} was rolled back"),
        (None, false) => format!(
            "{migration} was cancelled, but the server did not confirm in time; it is rolled back \
             unless the next start finds it applied"
        ),
    }
}

/// What of a migration in several units stays.
fn stays_text(in_progress: &InProgress) -> Option<String> {
    let InProgress { migration, reached: StepNumber { step, of }, .. } = in_progress;
    match step {
        1 => None,
        2 => Some(format!(
            "Step 1 of {of} of {migration} is done and stays; the next start goes on with step 2."
        )),
        _ => Some(format!(
            "Steps 1 to {} of {of} of {migration} are done and stay; the next start goes on with \
             step {step}.",
            step - 1
        )),
    }
}

fn changed_step_text(changed: &ChangedStep) -> String {
    let mut place = changed.file.clone();
    if let Some((line, column)) = changed.place {
        let _ = write!(place, ":{line}:{column}");
    }
    format!("{place}, step {} of the {} that are done", changed.step, changed.done)
}

fn heirs_text(heirs: &Heirs) -> String {
    let Heirs { former, migrations, rename, forget } = heirs;
    format!(
        "{former} was begun by an earlier start and is not carried any more, and it is not clear \
         whether it goes on as {}; nothing was run. If it does:\n\n    {};\n\n  If not:\n\n    {forget};",
        migrations.join(", or as "),
        rename.join(";\n\n  or:\n\n    ")
    )
}

fn doubt_text(doubt: &UnknownOutcome) -> String {
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

fn obstacle_text(hint: &ExecHint) -> String {
    match hint {
        ExecHint::NotInPath => "it is in no folder of PATH".to_owned(),
        ExecHint::NoInterpreter(name) => match name.strip_suffix('\r') {
            Some("") => {
                "its first line names only a carriage return, and no interpreter; the file's \
                 line ends have to be LF, not CRLF"
                    .to_owned()
            }
            Some(name) => format!(
                "its first line names {name} and a carriage return; the file's line ends have to be \
                 LF, not CRLF"
            ),
            None => format!("the script is there; its interpreter is not: {name}"),
        },
        ExecHint::NoLoader(name) => {
            format!(
                "the program is there; what loads it, as it is dynamically linked, is not: {name}"
            )
        }
        ExecHint::Folder => "it is a folder".to_owned(),
        ExecHint::NotExecutable => "its mode does not allow it; `chmod +x` does".to_owned(),
        ExecHint::NoProgram => {
            "it is neither a program nor a script whose first line names an interpreter, such as \
             #!/bin/sh"
                .to_owned()
        }
        ExecHint::OtherMachine => "it is a program for another kind of machine".to_owned(),
    }
}

fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let mut text = format!("{title}\n");
    for item in items {
        let _ = write!(text, "\n  - {item}");
    }
    text
}

fn unfit_text(unfit: &NotRunnable) -> String {
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
            let _ = write!(
                text,
                "\n\n  Restore the files, and make the change in a new migration. Or, if the \
                 database already has\n  what they say now, run `{}`",
                accept_command(&names)
            );
            // There, a comma ends a name, and blanks around one are none of it.
            if names.iter().all(|name| !name.contains(',') && name.trim() == *name) {
                let _ = write!(text, ", or set {}", accept_variable(&names));
            }
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
             knows: it was trimmed, or begun by hand. `{}` records them as applied; --apply-older \
             runs them",
            pending.join(", "),
            baseline_command(pending)
        ),
        Conflict::PossiblyApplied { pending, unknown } => format!(
            "nothing was run, since {} may be what {} recorded, changed since. `accept NAME` \
             records as applied the one that ran; it has a row of its own then, and the old one can \
             be deleted. --apply-older runs all that is pending",
            pending.join(", "),
            unknown.join(", "),
        ),
        Conflict::NotUpgradable { unknown } => format!(
            "nothing was run, since the history table is of Drizzle 0.x and cannot be upgraded with \
             rows about nothing that is carried here: {}. Is it the right database, the right \
             --dir, the right --table? Restore the migrations of these rows; or, if they were \
             squashed or replaced, delete the rows, and `baseline` what stands for them now",
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

fn accept_command(names: &[&str]) -> String {
    let words: Vec<_> = names.iter().map(|name| shell_word(name)).collect();
    format!("premigrate accept {}", words.join(" "))
}

fn accept_variable(names: &[&str]) -> String {
    format!("PREMIGRATE_ACCEPT={}", names.join(","))
}

fn baseline_command(pending: &[String]) -> String {
    let last = pending.last().map(String::as_str).unwrap_or_default();
    format!("premigrate baseline --through {}", shell_word(last))
}

/// What is told to be typed, in the order in which it stands in the text. It is ours, and holds no
/// password, but it may hold a name that ends in that word.
pub fn typed(error: &Error) -> Vec<String> {
    let Error::Run(failure) = error else { return Vec::new() };
    match &failure.error {
        ApplyError::PermissionDenied { statements, .. } => statements.clone(),
        ApplyError::AmbiguousRename(heirs) => {
            heirs.iter().flat_map(|it| it.rename.iter().chain([&it.forget])).cloned().collect()
        }
        ApplyError::UnknownOutcome(doubt) => vec![doubt.done.clone(), doubt.again.clone()],
        ApplyError::Conflict(Conflict::Edited(edited)) => {
            let names: Vec<_> = edited.iter().map(|edited| edited.migration.as_str()).collect();
            vec![accept_command(&names), accept_variable(&names)]
        }
        ApplyError::Conflict(Conflict::OlderThanHistory { pending, .. }) => {
            vec![baseline_command(pending)]
        }
        _ => Vec::new(),
    }
}

/// A name as a shell takes it for one word.
fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+.,:/@%".contains(c);
    match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', "'\\''")),
    }
}

/// As an object.
pub fn json(error: &Error, with_app: bool) -> Map<String, Value> {
    let mut fields = match error {
        Error::Run(failure) => run_fields(&failure.error, error),
        _ => message_fields(error),
    };
    fields.insert("exit_code".to_owned(), json!(error.exit_code()));
    if with_app {
        fields.insert("app_started".to_owned(), json!(false));
    }
    if let Error::Run(failure) = error {
        fields.insert("applied".to_owned(), json!(failure.applied));
        fields.insert("pending".to_owned(), json!(failure.pending));
        if let Some(InProgress { migration, reached: StepNumber { step, of }, .. }) =
            &failure.in_progress
        {
            let partial = json!({ "migration": migration, "done": step - 1, "units": of });
            fields.insert("partial".to_owned(), partial);
        }
        if let Some(uncertain) = &failure.uncertain {
            fields.insert("uncertain".to_owned(), json!(uncertain));
        }
    }
    fields
}

fn message_fields(error: &Error) -> Map<String, Value> {
    object(json!({ "event": "error", "message": clean(&text(error)) }))
}

fn run_fields(apply_error: &ApplyError, error: &Error) -> Map<String, Value> {
    let mut fields = match apply_error {
        ApplyError::Failed(failure) => failure::json(failure),
        ApplyError::LockTimeout(failure, blocker) => {
            let mut fields = failure::json(failure);
            fields.insert("blocker".to_owned(), json!(blocker.as_ref().map(blocker_json)));
            fields
        }
        _ => message_fields(error),
    };
    match apply_error {
        ApplyError::Conflict(Conflict::Edited(edited)) => {
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
        ApplyError::Unreachable(attempts) => {
            let attempts: Vec<_> = attempts.iter().map(attempt_json).collect();
            fields.insert("attempts".to_owned(), json!(attempts));
        }
        ApplyError::Stopped { signal, .. } => {
            fields.insert("signal".to_owned(), json!(signal.name()));
        }
        _ => {}
    }
    fields
}
