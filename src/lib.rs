//! premigrate applies a project's SQL migrations to PostgreSQL, and then becomes the app.
//!
//! [`run`] is the program. It follows the list "What happens at start" in the README; `main` passes the
//! arguments and the environment in, and executes the app.
//!
//! ```text
//! arguments, environment, .env ── cli ── Config
//! this executable or --dir ────── migrations ── MigrationSet: what to run, in which steps
//!                                                  │
//! database ── postgres ── Session ── history ── Plan ── apply
//!                                                         │
//! main ◀── render ◀── answers, events and errors ◀────────┘
//!   └── process::exec: becomes the app
//! ```
//!
//! The modules at the top of `src`:
//!
//! - `cli`: the command line, the variables and `.env` become a `Config`.
//! - `migrations`: files become an ordered set. A migration that one transaction cannot hold is split
//!   into steps.
//! - `effects`: what statements do to tables that exist, and what is safer. Pure.
//! - `postgres`: connection strings, TLS, and a blocking session. It hides the driver.
//! - `history`: Drizzle's table, the plan that follows from it, and the progress table. Pure.
//! - `apply`: takes the advisory lock (`apply::lock`), runs the steps, tries again after a conflict, and
//!   continues after a crash or a lost connection. Or runs them in a transaction that it rolls back, and
//!   traces them.
//! - `commands`: `wait`, `status`, `list --extract`, `check`, `new`, `bundle` and `healthcheck`.
//! - `health`: the HTTP endpoints for probes and metrics while migrations run.
//! - `error`: every reason to end without the app, and its exit code; most are in `apply::error`. `status`
//!   and `check` have exit codes of their own.
//! - `render`: the sentences of answers, events and errors, and their JSON, which serde derives from the
//!   fields of their types. Pure.
//! - `process`: signals, printing, and the app.
//! - `sql`: reads, quotes and redacts SQL. Pure.
//!
//! A module imports only from those further down this table, which `tests/it/house.rs` checks. "Pure"
//! means that a module talks to no server, file or clock:
//!
//! ```text
//! module     imports
//! render     error, commands, apply, cli, history, postgres, effects, migrations, process, sql
//! error      commands, apply, cli, migrations, process
//! health     apply, cli, postgres, process
//! commands   apply, cli, history, postgres, effects, migrations, process, sql
//! apply      cli, history, postgres, effects, migrations, process, sql
//! cli        history, postgres, process, sql
//! history    postgres, migrations, sql
//! postgres   process, sql
//! effects    migrations, sql
//! migrations process, sql
//! process    nothing
//! sql        nothing
//! ```

// The modules are public for `main` and for the tests in `tests/`.
#[doc(hidden)]
pub mod apply;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod commands;
#[doc(hidden)]
pub mod effects;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod health;
#[doc(hidden)]
pub mod history;
#[doc(hidden)]
pub mod migrations;
#[doc(hidden)]
pub mod postgres;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod render;
#[doc(hidden)]
pub mod sql;

use std::ffi::OsString;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::apply::dry_run;
use crate::apply::error::ApplyError;
use crate::apply::event::Event;
use crate::apply::rehearse::report::Report;
use crate::apply::rehearse::{self, Rehearsed};
use crate::cli::args::{self, Commands, Invocation, Parsed};
use crate::cli::config::{
    Appearance, CheckOptions, Command, Config, Options, RehearsalDocuments, Style,
};
use crate::cli::environment::Environment;
use crate::cli::error::{ConfigError, UsageError};
use crate::commands::check::database::Database;
use crate::commands::check::{Checked, Earlier};
use crate::commands::{bundle, extract, healthcheck, new, status, wait};
use crate::error::Error;
use crate::health::Health;
use crate::migrations::migration::MigrationSet;
use crate::migrations::snapshots;
use crate::migrations::source::{self, MigrationFolder, Origin, Unreadable};
use crate::postgres::tls;
use crate::process::allocator;
use crate::process::exec::App;
use crate::process::printer::{ERASE_LINE, LiveLine, Printer};
use crate::process::signals::StopFlag;
use crate::render::{Log, Shown};

/// How a run ends.
#[derive(Debug)]
pub enum Outcome {
    Exit(u8),
    /// Execute the app. If that fails, report it like this.
    Exec(App, Appearance),
}

/// Runs the program up to the point where it exits or becomes the app.
pub fn run(
    args: Vec<OsString>,
    environment: &Environment,
    stop: &StopFlag,
    printer: &mut Printer<'_>,
) -> Outcome {
    let hints = args::output_hints(&args);
    let appearance = Config::appearance(&hints, environment);
    set_last_words(hints.has_app, appearance, printer);

    // 1. Read the command line and the environment.
    let invocation = match args::parse(args) {
        Ok(Parsed::Help) => return answer(args::HELP, printer),
        Ok(Parsed::Version) => return version(appearance, printer),
        Ok(Parsed::Run(invocation)) => invocation,
        Err(error) => {
            let has_app = hints.has_app && !matches!(error, UsageError::AppNotUsed(_));
            let error = Error::Usage(error);
            let commands = Commands::default();
            return Outcome::Exit(report_error(&error, has_app, appearance, &commands, printer));
        }
    };
    let commands = invocation.commands();
    let config = match configure(invocation, environment, stop, printer.live_line()) {
        Ok(config) => config,
        Err(error) => {
            let code = report_error(&error, hints.has_app, appearance, &commands, printer);
            return Outcome::Exit(code);
        }
    };

    // Steps 2 to 7.
    let result = run_unless_stopped(&config, stop, printer);

    // 8. Become the app: every session is closed, and no signal has come. `main` reports it, and
    // `process::exec` gives the app its signals and its environment.
    match (result, config.app) {
        (Ok(_), Some(app)) => Outcome::Exec(app, config.appearance),
        (Ok(code), None) => Outcome::Exit(code),
        (Err(error), _) => {
            let appearance = config.appearance;
            Outcome::Exit(report_error(&error, hints.has_app, appearance, &commands, printer))
        }
    }
}

/// Sets what is reported where there is no memory left to report anything else.
fn set_last_words(has_app: bool, appearance: Appearance, printer: &Printer<'_>) {
    let is_terminal = printer.reports_to_terminal();
    let style = appearance.style(is_terminal);
    let report = render::ended(&Error::OutOfMemory, has_app, style, &Commands::default());
    // A live line may be there then.
    let before = if appearance.has_live_line(is_terminal) { ERASE_LINE } else { "" };
    allocator::set_last_words(before.to_owned() + &report, Error::OutOfMemory.exit_code());
}

fn configure(
    invocation: Invocation,
    environment: &Environment,
    stop: &StopFlag,
    live_line: LiveLine,
) -> Result<Config, Error> {
    // Before anything that can wait: without a handler, process 1 does not get signals.
    stop.install_handlers(move || live_line.erase()).map_err(Error::Signals)?;
    Ok(Config::new(invocation, environment)?)
}

fn run_unless_stopped(
    config: &Config,
    stop: &StopFlag,
    printer: &mut Printer<'_>,
) -> Result<u8, Error> {
    let listen =
        |address| Health::listen(address).map_err(|error| ConfigError::Listen { address, error });
    let health = config.health.map(listen).transpose()?;
    let result = run_command(config, stop, health.as_ref(), printer);
    // The app may listen on the same port.
    if let Some(health) = health {
        health.close();
    }
    let code = result?;
    // A signal may have come after the last commit, or during an answer. The app is not started then.
    match stop.exit_on_next_signal() {
        Some(signal) => Err(ApplyError::from(signal).into()),
        None => Ok(code),
    }
}

/// Runs the command, and returns the exit code for a run without an app.
fn run_command(
    config: &Config,
    stop: &StopFlag,
    health: Option<&Health>,
    printer: &mut Printer<'_>,
) -> Result<u8, Error> {
    let (dir, appearance) = (config.dir.as_deref(), config.appearance);
    let answer = appearance.style(printer.answers_to_terminal());
    let is_terminal = printer.reports_to_terminal();
    let mut log = Log::new(appearance.style(is_terminal), appearance.has_live_line(is_terminal));
    let mut emit = |event: Event| {
        if let Some(health) = health {
            health.report(&event);
        }
        match log.show(&event) {
            Shown::Nothing => {}
            Shown::Lines(lines) => printer.report(&lines),
            Shown::Live(line) => printer.draw(&line),
        }
    };
    let (text, code) = match &config.command {
        Command::Skip => {
            emit(Event::Skipped);
            return Ok(0);
        }
        Command::NotForApp { app } => {
            emit(Event::NotForApp { app: app.clone() });
            return Ok(0);
        }
        Command::Run(operation) => {
            // 2. Read the migrations.
            let (set, options) = prepare(config, stop, &mut emit)?;
            // 3. to 7. Wait for the database, decide, and apply what is pending.
            apply::run(operation, &set, &options, stop, &mut emit)?;
            return Ok(0);
        }
        Command::DryRun(operation) => {
            let (set, options) = prepare(config, stop, &mut emit)?;
            let dry_run = dry_run::dry_run(operation, &set, &options, stop, &mut emit)?;
            (render::dry_run_of(&dry_run, answer), 0)
        }
        Command::Wait => {
            let (set, options) = prepare(config, stop, &mut emit)?;
            wait::wait(&set, &options, stop, &mut emit)?;
            return Ok(0);
        }
        Command::Status { exit_code, up } => {
            let (set, options) = prepare(config, stop, &mut emit)?;
            let status = status::load(&set, up, &options, stop, &mut emit)?;
            let code = if *exit_code { status.exit_code() } else { 0 };
            (render::status_of(&status, answer), code)
        }
        Command::List { extract } => {
            let (origin, folder) = load(dir, stop)?;
            let set = migrations(&origin, &folder)?;
            if let Some(extract) = extract {
                extract::extract(&folder, extract).map_err(Error::Extract)?;
            }
            (render::list_of(&set, &origin, answer.format), 0)
        }
        Command::Check(options) => check_folder(options, config, answer, stop, &mut emit)?,
        Command::Rehearse { up, from_scratch, documents } => {
            let (set, options) = prepare(config, stop, &mut emit)?;
            let Rehearsed { report, failure } =
                rehearse::rehearse(up, *from_scratch, &set, &options, stop, &mut emit);
            // What was found out before a failure is worth reading too.
            let found = failure.is_none() || !report.migrations.is_empty();
            let text = found.then(|| rehearsal(&report, documents, answer)).transpose()?;
            match failure {
                None => (text.unwrap_or_default(), 0),
                Some(failure) => {
                    text.iter().for_each(|text| printer.answer(text));
                    return Err(failure.into());
                }
            }
        }
        Command::New { name, dir } => {
            let (_, folder) = load(Some(dir), stop)?;
            let path = new::add(dir, &folder, name, now()).map_err(Error::New)?;
            (render::created(&path, answer.format), 0)
        }
        Command::Bundle(parts) => {
            let is_stopped = || stop.raised().is_some();
            let folder = source::survey(&parts.dir, &is_stopped);
            let folder = folder.map_err(|error| unless_stopped(error, stop))?;
            let bundle = bundle::bundle(parts, &folder, &config.table, now(), &is_stopped);
            let bundle = bundle.map_err(|error| unless_stopped(Error::Bundle(error), stop))?;
            (render::bundled(&bundle, answer.format), 0)
        }
        Command::Healthcheck { url, timeout } => {
            let check = healthcheck::check(url, *timeout, stop).map_err(ApplyError::from)?;
            (render::healthcheck_of(&check, answer.format), check.exit_code())
        }
    };
    printer.answer(&text);
    Ok(code)
}

fn check_folder(
    options: &CheckOptions,
    config: &Config,
    answer: Style,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(String, u8), Error> {
    let dir = config.dir.as_deref();
    let since = options.since.as_ref();
    let earlier = since.map(|(name, path)| earlier(name, path, stop)).transpose()?;
    let (origin, mut folder) = load(dir, stop)?;
    if let Origin::Folder(dir) = &origin {
        folder.snapshots = snapshots::read(dir, &|| stop.raised().is_some());
    }
    let read = |pending| Checked::read(&folder, &config.table, now(), earlier.as_ref(), pending);
    let report = match MigrationSet::from_folder(&folder) {
        Ok(set) if options.database => {
            let options = config.options()?;
            emit_notes(&options, emit);
            let database = Database::ask(&set, &options, stop, emit)?;
            let checked = read(Some(&database.pending));
            let sizes = database.sizes(&checked.relations(), &options, stop)?;
            checked.report(Some(&sizes))
        }
        // Without a database; or there is no order of migrations to compare with one.
        _ => read(None).report(None),
    };
    let text = match options.review {
        None => render::check_of(&report, answer),
        Some(format) => render::review_of(&report, format, dir),
    };
    Ok((text, report.exit_code(options.strict)))
}

/// The answer to `rehearse`; writes the pictures that the options name.
fn rehearsal(
    report: &Report,
    documents: &RehearsalDocuments,
    answer: Style,
) -> Result<String, Error> {
    write_picture("--html", documents.html.as_deref(), || render::html(report))?;
    write_picture("--svg", documents.svg.as_deref(), || render::svg(report))?;
    Ok(match documents.markdown {
        true => render::markdown(report),
        false => render::rehearsal_of(report, answer),
    })
}

/// Writes a picture to the file that this option names, if it does.
fn write_picture(
    option: &'static str,
    path: Option<&Path>,
    picture: impl FnOnce() -> String,
) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let written = std::fs::write(path, picture());
    written.map_err(|error| ConfigError::NotWritten { option, path: path.to_owned(), error }.into())
}

/// Reads and checks everything that a run needs before it connects.
fn prepare(
    config: &Config,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(MigrationSet, Options), Error> {
    let (origin, folder) = load(config.dir.as_deref(), stop)?;
    let set = migrations(&origin, &folder)?;
    let options = config.options()?;
    emit(Event::Loaded { origin, layout: set.layout(), migrations: set.migrations().len() });
    if !set.unlisted().is_empty() {
        emit(Event::UnlistedFiles { files: set.unlisted().to_vec() });
    }
    emit_notes(&options, emit);
    Ok((set, options))
}

fn emit_notes(options: &Options, emit: &mut dyn FnMut(Event)) {
    for note in &options.target.notes {
        emit(Event::Note { message: note.clone() });
    }
}

/// Reads what `--since`, or its variable, names.
fn earlier(name: &str, path: &Path, stop: &StopFlag) -> Result<Earlier, Error> {
    let name = || name.to_owned();
    if path.is_dir() {
        return Ok(Earlier::of_folder(&load(Some(path), stop)?.1));
    }
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        name: name(),
        path: path.to_owned(),
        error,
    })?;
    let earlier = Earlier::of_list(&text);
    Ok(earlier.ok_or_else(|| ConfigError::NotAList { name: name(), path: path.to_owned() })?)
}

fn migrations(origin: &Origin, folder: &MigrationFolder) -> Result<MigrationSet, Error> {
    MigrationSet::from_folder(folder)
        .map_err(|problems| Error::InvalidSet { origin: origin.clone(), problems })
}

/// Reads the files, which may take long, until a signal comes.
fn load(dir: Option<&Path>, stop: &StopFlag) -> Result<(Origin, MigrationFolder), Error> {
    let loaded = source::load(dir, &|| stop.raised().is_some());
    loaded.map_err(|error| unless_stopped(error, stop))
}

/// The error, unless there is one because a signal came.
fn unless_stopped(error: impl Into<Error>, stop: &StopFlag) -> Error {
    match stop.raised() {
        Some(signal) => ApplyError::from(signal).into(),
        None => error.into(),
    }
}

/// Unix milliseconds.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Says which version this is, and what it carries; fails if that is damaged.
fn version(appearance: Appearance, printer: &mut Printer<'_>) -> Outcome {
    let carried = source::carried();
    let text = format!("premigrate {}\n{}\n", env!("CARGO_PKG_VERSION"), tls::BUILT_IN_ROOTS);
    match carried {
        Ok((origin, folder)) => answer(&(text + &render::carried(&origin, &folder)), printer),
        Err(Unreadable::NothingEmbedded) => answer(&(text + "no migrations\n"), printer),
        Err(damaged) => {
            printer.answer(&text);
            let commands = Commands::default();
            Outcome::Exit(report_error(&damaged.into(), false, appearance, &commands, printer))
        }
    }
}

fn answer(text: &str, printer: &mut Printer<'_>) -> Outcome {
    printer.answer(text);
    Outcome::Exit(0)
}

/// Reports why the run failed, and returns the exit code.
pub fn report_error(
    error: &Error,
    has_app: bool,
    appearance: Appearance,
    commands: &Commands,
    printer: &mut Printer<'_>,
) -> u8 {
    let style = appearance.style(printer.reports_to_terminal());
    printer.last_report(&render::ended(error, has_app, style, commands));
    error.exit_code()
}
