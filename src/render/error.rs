//! The text and the JSON of the error that ended a run, with what the run did and what it left.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::apply::error::{
    AbandonedProgress, ApplyError, BlockingStatement, ChangedStep, DatabaseNotCreated, RolledBack,
    RunFailure, UnknownOutcome,
};
use crate::apply::event::{Blocker, HeldBy, Holder, HolderKind, InProgress, StepNumber};
use crate::apply::failure::{Failure, LostConnection};
use crate::cli::args::{CommandName, Commands};
use crate::commands::bundle::BundleError;
use crate::error::Error;
use crate::history::plan::HistoryMismatch;
use crate::history::progress;
use crate::history::table::TableProblem;
use crate::migrations::layout::LayoutProblem;
use crate::migrations::prepared::NotRunnable;
use crate::migrations::rule::Rule;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::Attempt;
use crate::postgres::wait;
use crate::process::exec::ExecError;
use crate::process::signals::Signal;

use super::answers::{finding_text, message_text, patch_lines};
use super::attempts::attempt_text;
use super::backends::{at_work_text, held_by_text, lock_text};
use super::{
    clean, failure, hints, indented, is_or_are, list, mismatch, one_line, place_text, plural, size,
    some_of, subject,
};

/// An error as JSON.
#[derive(Serialize)]
pub struct ErrorReport<'a> {
    event: &'static str,
    #[serde(flatten)]
    error: &'a Error,
    /// Our sentence; a failed migration has the server's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Only of a failed migration; null where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<Option<failure::AdviceReport>>,
    exit_code: u8,
    /// Only where there is an app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_started: Option<bool>,
}

impl ErrorReport<'_> {
    pub fn new<'a>(error: &'a Error, with_app: bool, commands: &Commands) -> ErrorReport<'a> {
        let failure = failure_of(error);
        let is_failure = failure.is_some();
        let advice = failure.map(|failure| failure.advice.as_ref());
        ErrorReport {
            event: if is_failure { "failed" } else { "error" },
            error,
            message: (!is_failure).then(|| text(error, commands, false)),
            advice: advice
                .map(|advice| advice.map(|advice| failure::AdviceReport::new(advice, commands))),
            exit_code: error.exit_code(),
            app_started: with_app.then_some(false),
        }
    }
}

fn failure_of(error: &Error) -> Option<&Failure> {
    match error {
        Error::Run(run) => run.error.failure(),
        _ => None,
    }
}

/// The paragraph below an error: what this run did, and what it left.
pub fn summary(error: &Error, with_app: bool) -> String {
    let mut sentences = match error {
        Error::Run(failure) => run_summary(failure),
        _ => Vec::new(),
    };
    let exec_failed = matches!(error, Error::App { .. });
    if with_app && !exec_failed {
        sentences.push("The app was not started.".to_owned());
    }
    sentences.join(" ")
}

fn run_summary(run: &RunFailure) -> Vec<String> {
    let mut sentences = Vec::new();
    sentences.extend(run.in_progress.as_ref().and_then(steps_kept_text));
    match (run.applied.len(), run.pending_after_failure()) {
        (0, 0) => {}
        (0, pending) if pending == run.pending.len() => {
            sentences.push(format!("{pending} {} pending.", is_or_are(pending)));
        }
        (0, pending) => sentences.push(format!("{pending} more {} pending.", is_or_are(pending))),
        (applied, pending) => {
            let mut sentence = format!(
                "{} applied in this run {} kept",
                plural(applied, "migration"),
                is_or_are(applied)
            );
            if pending > 0 {
                let _ = write!(sentence, "; {pending} more {} pending", is_or_are(pending));
            }
            sentences.push(format!("{sentence}."));
        }
    }
    if let Some(uncertain) = some_of_uncertain(&run.uncertain) {
        sentences.push(format!(
            "It is not known whether {uncertain} was committed; the next run checks."
        ));
    }
    sentences
}

/// Those of which it is not known whether they were committed, for a sentence about one.
fn some_of_uncertain(uncertain: &[String]) -> Option<String> {
    match uncertain {
        [] => None,
        [one] => Some(one.clone()),
        [first, second] => Some(format!("{first} or {second}, which was sent behind it,")),
        [first, behind @ ..] => {
            Some(format!("{first} or any of the {} that were sent behind it", behind.len()))
        }
    }
}

/// The steps of an unfinished migration that are done.
fn steps_kept_text(in_progress: &InProgress) -> Option<String> {
    let InProgress { migration, step: number @ StepNumber { step, of }, .. } = in_progress;
    let done = step - 1;
    if number.is_record() {
        return Some(format!("All of {migration} is done and kept; the next run records it."));
    }
    (done > 0).then(|| {
        format!(
            "{done} of {of} steps of {migration} {} done and kept; the next run continues with step \
             {step}.",
            is_or_are(done)
        )
    })
}

/// The sentence of an error.
pub fn text(error: &Error, commands: &Commands, is_colored: bool) -> String {
    let text = match error {
        Error::Usage(usage) => format!("{usage} (see --help)"),
        Error::Config(problem) => problem.to_string(),
        Error::Unreadable(error) => error.to_string(),
        Error::InvalidSet { origin, problems } => {
            let title = format!("invalid migrations in {origin}:");
            list(&title, problems.iter().map(|problem| one_line(&problem.to_string())))
        }
        Error::New(problem) => problem.to_string(),
        Error::Bundle(problem @ BundleError::Faulty { findings, .. }) => {
            let findings = findings.iter().map(|finding| finding_text(finding, false));
            list(&format!("{problem}:"), findings)
        }
        Error::Bundle(problem) => problem.to_string(),
        Error::Extract(problem) => problem.to_string(),
        Error::Signals(error) => format!("could not install the signal handlers: {error}"),
        Error::OutOfMemory => {
            "out of memory; what was not committed is rolled back. Raise the memory \
             limit, which has to hold the largest migration"
                .to_owned()
        }
        Error::App { program, reason: ExecError { error, hint } } => {
            let hint = hint.as_ref().map(|hint| format!(" ({hint})"));
            format!("could not start {program}: {error}{}", hint.unwrap_or_default())
        }
        Error::Run(run) => apply_error_text(run, commands, is_colored),
    };
    match failure_of(error) {
        // It may have colors. What others wrote is escaped in it.
        Some(_) => text,
        None if has_paragraphs(error) => clean(&text),
        None => one_line(&text),
    }
}

/// Whether the text has several lines. All others are one, whatever the names in them contain.
fn has_paragraphs(error: &Error) -> bool {
    let run = match error {
        Error::InvalidSet { .. } | Error::Bundle(BundleError::Faulty { .. }) => return true,
        Error::Run(run) => run,
        _ => return false,
    };
    matches!(
        run.error,
        ApplyError::NotRunnable { .. }
            | ApplyError::HistoryMismatch(HistoryMismatch::Edited { .. })
            | ApplyError::Unreachable { .. }
            | ApplyError::ChangedSteps { .. }
            | ApplyError::AbandonedProgress { .. }
            | ApplyError::TableTooLarge { .. }
            | ApplyError::UnknownOutcome(_)
            | ApplyError::DatabaseNotCreated(_)
            | ApplyError::PermissionDenied { .. }
    )
}

fn apply_error_text(run: &RunFailure, commands: &Commands, is_colored: bool) -> String {
    let nothing_ran =
        if run.applied.is_empty() { "nothing was run" } else { "nothing more was run" };
    match &run.error {
        ApplyError::NotRunnable { migrations } => list(
            &format!("some pending migrations cannot be run; {nothing_ran}:"),
            migrations.iter().map(not_runnable_text),
        ),
        ApplyError::HistoryMismatch(mismatch) => mismatch::text(mismatch, nothing_ran, commands),
        ApplyError::NotHistoryTable { table, problem } => format!(
            "the table {table} is not a history table of Drizzle: it {problem}; {nothing_ran}. {}",
            match problem {
                TableProblem::NotOfDrizzle(_) => {
                    "Name the right table with --schema and --table".to_owned()
                }
                TableProblem::NotATable(_) => {
                    "Name an ordinary table with --schema and --table, such as the one that a view \
                     shows"
                        .to_owned()
                }
                TableProblem::HasRules(_) => {
                    format!("Drop each with `drop rule NAME on {}`", table.qualified())
                }
            }
        ),
        ApplyError::Unreachable { attempts } => unreachable_text(attempts),
        ApplyError::ReadOnly => {
            "the server is a read-only standby; connect to the primary, or name all servers in the \
             URL, with target_session_attrs=read-write"
                .to_owned()
        }
        ApplyError::Failed(failure) => failure::text(failure, commands, is_colored),
        ApplyError::TableTooLarge { limit, statements } => {
            let title = format!(
                "some pending statements scan or rewrite a table of more than {} (--max-blocking) while \
                 others wait for it; {nothing_ran}:",
                size(*limit)
            );
            let cure = "\n\n  Change the migrations, for example to the SQL above. To run a statement as it is, \
                        raise\n  --max-blocking, or write `-- premigrate: ignore RULE because REASON` above it.";
            list(&title, statements.iter().map(blocking_text)) + cure
        }
        ApplyError::ChangedSteps { migrations } => list(
            &format!(
                "migrations were edited in steps that are already done; {nothing_ran}. Restore these \
                 steps, and make the change after them or in a new migration:"
            ),
            migrations.iter().map(changed_step_text),
        ),
        ApplyError::AbandonedProgress { migrations } => list(
            &format!("some partly applied migrations are missing; {nothing_ran}:"),
            migrations.iter().map(abandoned_text),
        ),
        ApplyError::BadProgressTable { table, problem } => format!(
            "the table {} is not a progress table of premigrate ({problem}); {nothing_ran}. \
             If another program made it, rename it, or choose another --table",
            progress::qualified(table)
        ),
        ApplyError::UnknownOutcome(unknown) => unknown_outcome_text(unknown, nothing_ran),
        ApplyError::StaleBackend { migration, pid, error } => {
            stale_backend_text(migration, pid, error.as_ref())
        }
        ApplyError::IndexBeingBuilt { migration, index } => format!(
            "{migration}: another session seems to be building the index {index}. Wait until it has \
             finished, as pg_stat_progress_create_index shows, and start premigrate again"
        ),
        ApplyError::NoSecondConnection { migration } => format!(
            "{migration} needs two connections, one to hold the lock and one to run a statement \
             outside a transaction, and the second could not be opened. Check for a connection pool \
             or a connection limit of one: allow two, or connect directly to the server"
        ),
        ApplyError::PooledSettings { migration, settings } => format!(
            "{migration} needs `{}` for a statement that runs outside a transaction, and a pooler \
             does not keep settings for it; {nothing_ran}. Connect directly to the server, make it \
             the default with `alter role ... set ...`, or change the statement so that it needs \
             no settings",
            settings.join("; ")
        ),
        ApplyError::SettingReset { file, position, setting, origin } => format!(
            "{} resets {setting}, which discards {origin}; {nothing_ran}. Set it to a value instead, \
             or make the value the default with `alter role ... set ...`",
            place_text(file, *position)
        ),
        ApplyError::LockTimeout { failure, blocker } => {
            lock_timeout_text(failure, blocker.as_ref(), commands, is_colored)
        }
        ApplyError::ConnectionLost(broken) => connection_lost_text(broken),
        ApplyError::DatabaseNotCreated(failed) => database_not_created_text(failed),
        ApplyError::PermissionDenied { error, statements } => format!(
            "permission denied for the history table ({} {}). Ask an owner to run:\n\n    {}",
            error.code,
            indented(&error.message),
            statements.join("\n    ")
        ),
        ApplyError::LockedOut { holder } => locked_out_text(holder),
        ApplyError::StillPending { holder } => format!(
            "nobody has applied {} in time; {}. Check what runs `premigrate up`",
            some_of(&run.pending),
            at_work_text(holder.as_ref())
        ),
        ApplyError::HistoryKeepsChanging(table) => format!(
            "the history table {table} kept changing while migrations ran. Check whether another \
             tool, a trigger or a job writes to it, and start premigrate again"
        ),
        ApplyError::HistoryTimeout(table) => {
            format!(
                "timed out reading the history table {table}; check whether it is locked, \
                 and whether the pooler has a free connection"
            )
        }
        ApplyError::Stopped { signal, rolled_back: Some(rolled_back) } => {
            interrupted_text(*signal, rolled_back)
        }
        ApplyError::Stopped { signal, rolled_back: None } => {
            let next = not_started(run).map(|next| format!(" before {next}"));
            format!("interrupted by {}{}", signal.name(), next.unwrap_or_default())
        }
        ApplyError::NoSuchMigration { name } => {
            format!(
                "no migration is named {name}; run `{}` to see the names",
                commands.line(CommandName::List, "")
            )
        }
        ApplyError::ThroughIsBehind { name, later } => format!(
            "--through names {name}, but {later} comes after it and is applied already, or to be \
             recorded first; {nothing_ran}. Name a later migration, or leave out --through"
        ),
        ApplyError::NotEmpty => {
            "the database is not empty, and --from-scratch rehearses all migrations in an empty one; \
             nothing was run. Leave out --from-scratch to rehearse what is pending"
                .to_owned()
        }
        ApplyError::NotApplied { migrations } => format!(
            "cannot accept {}: not applied yet. To record migrations without running them, run `{}`",
            migrations.join(", "),
            commands.line(CommandName::Baseline, "--through NAME")
        ),
    }
}

fn locked_out_text(holder: &HeldBy) -> String {
    let session = held_by_text(holder);
    match holder {
        HeldBy::Session(Holder { kind: HolderKind::Runner, .. }) | HeldBy::Unseen => format!(
            "another runner is still at work ({session}). Try again when it has finished, or wait \
             longer with --runner-wait"
        ),
        HeldBy::Session(Holder { pid, .. }) => format!(
            "the history table is still locked by {session}. Try again when it has finished, or end \
             it with `select pg_terminate_backend({pid})`"
        ),
        HeldBy::Gone => format!("{session}. Try again, or wait longer with --runner-wait"),
    }
}

fn unreachable_text(attempts: &[Attempt]) -> String {
    let is_rejection =
        |attempt: &Attempt| wait::is_rejection(&attempt.cause) && !attempt.cause.is_config_error();
    let verb = if attempts.iter().any(is_rejection) { "log in" } else { "connect" };
    let text_of = |attempt: &Attempt| one_line(&attempt_text(attempt));
    let mut text = match attempts {
        [only] => format!("could not {verb} to the database: {}", text_of(only)),
        all => list(&format!("could not {verb} to the database:"), all.iter().map(text_of)),
    };
    for hint in hints::hints(attempts) {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

fn database_not_created_text(failed: &DatabaseNotCreated) -> String {
    let DatabaseNotCreated { database, template, error, sql } = failed;
    let template = one_line(template.as_deref().unwrap_or("template1"));
    let cure = match error.code.as_str() {
        "42501" => format!("Ask an administrator to run:\n\n    {};", one_line(sql)),
        "55006" => format!(
            "Close the other sessions of {template}, or name a template that nobody uses, and try again"
        ),
        "3D000" => "Correct the name of the template".to_owned(),
        // Such as a template whose collations are those of another version.
        _ => error.hint.as_deref().map(indented).unwrap_or_default(),
    };
    let message = indented(error.message.as_str());
    let problem =
        format!("could not create the database {} ({} {message})", one_line(database), error.code);
    let detail = error.detail.as_deref().map(indented).unwrap_or_default();
    let [detail, cure] = [&detail, &cure].map(|sentence| sentence.trim_end_matches('.'));
    let sentences = [problem.as_str(), detail, cure];
    let sentences: Vec<_> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    sentences.join(". ")
}

fn stale_backend_text(migration: &str, pid: &str, error: Option<&ServerError>) -> String {
    let reason = match error {
        Some(error) => format!("could not be terminated ({} {})", error.code, error.message),
        None => "did not terminate".to_owned(),
    };
    format!(
        "{migration}: backend {pid} still runs a statement of an earlier attempt and {reason}. Run \
         `select pg_terminate_backend({pid})`, then try again"
    )
}

fn lock_timeout_text(
    failure: &Failure,
    blocker: Option<&Blocker>,
    commands: &Commands,
    is_colored: bool,
) -> String {
    let mut text = failure::text(failure, commands, is_colored);
    text.push_str(match failure.error.code.as_str() {
        "55P03" => "\n\n  Every attempt ran into a lock.",
        _ => "\n\n  Every attempt ran into a conflict with another session.",
    });
    if let Some(blocker) = blocker {
        let _ = write!(text, " Last seen: {}.", one_line(&lock_text(blocker)));
    }
    let _ = write!(text, "\n  {}", unblock_text(blocker));
    text
}

/// What to do about a session that keeps its lock.
fn unblock_text(blocker: Option<&Blocker>) -> String {
    let first = match blocker {
        Some(Blocker { pid, .. }) if pid == "0" => {
            "Commit or roll back the prepared transaction, which pg_prepared_xacts lists,"
                .to_owned()
        }
        Some(Blocker { pid, .. }) => format!(
            "Wait for that session, or end it with `select pg_terminate_backend({pid})` if nobody \
             needs it,"
        ),
        None => "Find the session in pg_stat_activity, and wait for it or end it,".to_owned(),
    };
    format!(
        "{first}\n  and start premigrate again. To wait longer, raise --lock-timeout or --lock-retries."
    )
}

fn connection_lost_text(broken: &LostConnection) -> String {
    let completed = match broken.step {
        Some(_) => {
            format!(" after {} of {}", broken.completed, plural(broken.statements, "statement"))
        }
        None => String::new(),
    };
    format!(
        "connection lost in every attempt at {} ({}){completed}; it was not applied. See in the \
         server's log whether it crashed or ran out of memory, and whether a proxy ends long \
         connections; then start premigrate again",
        subject(&broken.migration),
        broken.cause
    )
}

/// The step or migration that would have come next when a signal interrupted nothing.
fn not_started(run: &RunFailure) -> Option<String> {
    match (run.uncertain.as_slice(), &run.in_progress) {
        // It may have been run.
        ([_, ..], _) => None,
        ([], Some(InProgress { migration, step, .. })) if step.is_record() => {
            Some(format!("the history row of {migration}"))
        }
        ([], Some(InProgress { migration, step, outside_transaction })) => {
            let kind = outside_transaction.map(|kind| format!(" ({kind})")).unwrap_or_default();
            let step =
                step.of_several().map(|StepNumber { step, of }| format!("step {step} of {of} of "));
            Some(format!("{}{migration}{kind}", step.unwrap_or_default()))
        }
        ([], None) => run.pending.first().cloned(),
    }
}

fn interrupted_text(signal: Signal, rolled_back: &RolledBack) -> String {
    let RolledBack { migration, confirmed, outside_transaction } = rolled_back;
    let (signal, migration) = (signal.name(), subject(migration));
    match (outside_transaction, confirmed) {
        (Some(kind), true) => format!(
            "interrupted by {signal}; {migration} was cancelled during {kind}. {}",
            failure::left_by(kind)
        ),
        (Some(kind), false) => format!(
            "interrupted by {signal}; {migration} was cancelled during {kind}, but the server did not \
             confirm in time. {}",
            failure::left_by(kind)
        ),
        (None, true) => format!("interrupted by {signal}; {migration} was rolled back"),
        (None, false) => format!(
            "interrupted by {signal}; {migration} was cancelled, but the server did not confirm in \
             time. The next run checks whether it was committed"
        ),
    }
}

fn blocking_text(statement: &BlockingStatement) -> String {
    let BlockingStatement { file, position, rule, message, size, patch, .. } = statement;
    let message = one_line(&message_text(message, Some(size), *rule));
    let patch = patch_lines(patch.as_ref()).replace('\n', "\n    ");
    format!("{}: {message}{patch}", place_text(file, *position))
}

fn changed_step_text(changed: &ChangedStep) -> String {
    format!(
        "{}, step {} ({} {} done)",
        place_text(&changed.file, changed.position),
        changed.step,
        plural(changed.done, "step"),
        is_or_are(changed.done)
    )
}

fn abandoned_text(abandoned: &AbandonedProgress) -> String {
    let AbandonedProgress { migration, rename_sql, forget_sql } = abandoned;
    let [migration, rename_sql, forget_sql] =
        [migration, rename_sql, forget_sql].map(|text| one_line(text));
    format!(
        "{migration}\n\n    If it was renamed, replace NEW NAME with its name and run:\n\n      {rename_sql};\n\n    \
         To discard its progress, so that its steps run again, run:\n\n      {forget_sql};"
    )
}

fn unknown_outcome_text(unknown: &UnknownOutcome, nothing_ran: &str) -> String {
    format!(
        "{}: an earlier attempt started a statement outside a transaction, and nothing shows whether \
         it finished; {nothing_ran}\n\n    {}\n\n  Inspect the database. If the statement finished, \
         or you finish it by hand, run:\n\n    {};\n\n  To let premigrate run it again, run:\n\n    {};",
        one_line(&unknown.migration),
        indented(&unknown.statement),
        one_line(&unknown.done),
        one_line(&unknown.again)
    )
}

fn not_runnable_text(migration: &NotRunnable) -> String {
    let place = place_text(&migration.file, migration.position);
    format!("{place} {}", one_line(&migration.reason.to_string()))
}

impl Serialize for NotRunnable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            file: &'a str,
            line: Option<usize>,
            column: Option<usize>,
            reason: Rule,
            message: String,
        }
        let NotRunnable { file, position, reason } = self;
        let fields = Fields {
            file,
            line: position.map(|at| at.line),
            column: position.map(|at| at.column),
            reason: reason.rule(),
            message: reason.to_string(),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for LayoutProblem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            reason: Rule,
            message: String,
        }
        Fields { reason: self.rule(), message: self.to_string() }.serialize(serializer)
    }
}
