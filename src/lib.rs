//! premigrate applies a project's SQL migrations to PostgreSQL, and then becomes the app.
//!
//! [`run`] is the program; `main` only feeds it and prints. Read it first. Data flows one way:
//!
//! ```text
//! arguments ── cli ──┐
//! environment ───────┴─ config ─────────────── conninfo (where the database is)
//! executable, --dir ─── source ── layout ───── migration (the carried set)
//!                                                  │
//! database, connect, wire, tls ── consult (history, progress)
//!                                                  │
//!                                                  plan ── fit, units ── flight ── apply
//!                                                                                    │
//! main ◀── render ◀── report, error ◀────────────────────────────────────────────────┘
//!   └── exec (become the app)
//! ```
//!
//! A migration is one unit, a transaction, unless its text says that one cannot hold it: then `steps`
//! cuts it, `progress` records each unit with its work, and `resume` compares the two later. What
//! runs outside any transaction is `apply::lone`, and `fate` tells what became of it after a crash.
//!
//! What decides is pure: `cli`, `conninfo`, `layout`, `sql`, `plan`, `fit`, `steps`, `resume`,
//! `flight`, `fate`, `history`, `progress`, `mask`, `render`. What acts: `source`, `database` (the
//! only room with the driver in it), `connect`, `consult`, `apply`, `observer`, `signals`, `exec`, and
//! `main`, which alone prints and ends the process.

pub mod apply;
pub mod cli;
pub mod commands;
pub mod error;
pub mod history;
pub mod migrations;
pub mod postgres;
pub mod process;
pub mod render;
pub mod sql;

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::apply::Operation;
use crate::apply::error::ApplyError;
use crate::apply::event::Event;
use crate::cli::args;
use crate::cli::args::{Command, Invocation, Parsed, UsageError};
use crate::cli::config::{Config, Environment, Format};
use crate::commands::{check, new, status};
use crate::error::Error;
use crate::migrations::migration::MigrationSet;
use crate::migrations::source::{Files, Origin, Unreadable};
use crate::migrations::{layout, source};
use crate::postgres::tls;
use crate::process::exec::App;
use crate::process::signals::StopFlag;

/// Something to print: an answer to a question, or a report of what goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For stdout.
    Answer(String),
    /// For stderr.
    Report(String),
    /// For stderr, and the last word: why it ended.
    Ending(String),
}

/// How a run ends.
#[derive(Debug)]
pub enum Outcome {
    /// With this exit code.
    Exit(u8),
    /// By becoming the app; should that fail, by reporting it in this format.
    Become(App, Format),
}

/// The program, without its edges: arguments and environment in, output and outcome out. A signal
/// raises `stop`.
pub fn run(
    args: Vec<OsString>,
    environment: &Environment,
    stop: &StopFlag,
    print: &mut dyn FnMut(Output),
) -> Outcome {
    let output_hints = args::output_hints(&args);
    let invocation = match args::parse(args) {
        Ok(Parsed::Help) => return answer(args::HELP.to_owned(), print),
        Ok(Parsed::Version) => return answer(version(), print),
        Ok(Parsed::Run(invocation)) => invocation,
        Err(usage) => {
            let format = Config::format(&output_hints.options, environment);
            let with_app = output_hints.with_app && !matches!(usage, UsageError::AppNotUsed(_));
            return failed(Error::Usage(usage), with_app, format, print);
        }
    };
    let with_app = invocation.app.is_some();
    // First of all: to process 1, a signal that nobody listens to never comes.
    let listening = stop.listen().map_err(Error::Signals);
    let config =
        listening.and_then(|()| Config::new(&invocation, environment).map_err(Error::Config));
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let format = Config::format(&invocation.options, environment);
            return failed(error, with_app, format, print);
        }
    };
    match unless_stopped(&invocation, &config, stop, print) {
        Ok(code) => match invocation.app {
            Some(app) if !config.dry_run => Outcome::Become(app, config.format),
            _ => Outcome::Exit(code),
        },
        Err(ended) => failed(ended, with_app, config.format, print),
    }
}

fn unless_stopped(
    invocation: &Invocation,
    config: &Config,
    stop: &StopFlag,
    print: &mut dyn FnMut(Output),
) -> Result<u8, Error> {
    let code = carry_out(invocation, config, stop, print)?;
    // It may have come after the last commit, or with the answer: then the app is not started any
    // more, and our own code is not told.
    match stop.arm_immediate_exit() {
        Some(signal) => Err(ApplyError::from(signal).into()),
        None => Ok(code),
    }
}

fn carry_out(
    invocation: &Invocation,
    config: &Config,
    stop: &StopFlag,
    print: &mut dyn FnMut(Output),
) -> Result<u8, Error> {
    let format = config.format;
    if invocation.command == Command::Up && config.skip {
        print(Output::Report(render::event(&Event::Skipped, format)));
        return Ok(0);
    }
    if let (Command::New, [name, ..]) = (invocation.command, invocation.names.as_slice()) {
        let Origin::Folder(folder) = &config.origin else {
            return Err(Error::Usage(UsageError::NoFolder));
        };
        let created = new::add(folder, name, now()).map_err(Error::New)?;
        print(Output::Answer(render::created(&created, format)));
        return Ok(0);
    }
    if invocation.command == Command::Check {
        let checked = check::check(&files(&config.origin)?, &config.table, now());
        print(Output::Answer(render::check_of(&checked, format)));
        return Ok(if checked.is_faulty() { 65 } else { 0 });
    }
    if invocation.command == Command::Accept && invocation.names.is_empty() && !config.all {
        return Err(Error::Usage(UsageError::NoName(invocation.command.name())));
    }
    let set = carried(&config.origin)?;
    if invocation.command == Command::List {
        print(Output::Answer(render::list_of(&set, &config.origin, format)));
        return Ok(0);
    }

    let settings = config.settings().map_err(Error::Config)?;
    let mut emit = |event: Event| print(Output::Report(render::event(&event, format)));
    emit(Event::Carrying {
        origin: config.origin.clone(),
        layout: set.layout(),
        migrations: set.migrations().len(),
    });
    for note in &settings.target.notes {
        emit(Event::Note(note.clone()));
    }
    // Names on the command line come before PREMIGRATE_ALL.
    let names = (!invocation.names.is_empty()).then(|| invocation.names.clone());
    let task = match invocation.command {
        Command::Status => {
            let status = status::look(&set, &settings, stop, &mut emit)?;
            print(Output::Answer(render::status_of(&status, format)));
            return Ok(if config.exit_code { status.exit_code() } else { 0 });
        }
        Command::Up if config.dry_run => {
            let prospect = apply::dry_run(&set, &config.accept, &settings, stop, &mut emit)?;
            print(Output::Answer(render::prospect_of(&set, &prospect, format)));
            return Ok(0);
        }
        Command::Up => Operation::Up { accept: config.accept.clone() },
        Command::Baseline => Operation::Baseline { through: config.through.clone() },
        Command::Accept => Operation::Accept { names },
        Command::List | Command::Check | Command::New => return Ok(0),
    };
    apply::carry_out(&task, &set, &settings, stop, &mut emit)?;
    Ok(0)
}

fn carried(origin: &Origin) -> Result<MigrationSet, Error> {
    layout::read(&files(origin)?)
        .map_err(|problems| Error::InvalidSet { origin: origin.clone(), problems })
}

fn files(origin: &Origin) -> Result<Files, Error> {
    source::read(origin).map_err(|unreadable| match unreadable {
        Unreadable::NothingEmbedded => Error::NothingEmbedded,
        Unreadable::Path { path, error } => Error::Unreadable { path, error },
    })
}

/// Unix milliseconds.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn version() -> String {
    format!("premigrate {}\n{}\n", env!("CARGO_PKG_VERSION"), tls::BUILT_IN_ROOTS)
}

fn answer(text: String, print: &mut dyn FnMut(Output)) -> Outcome {
    print(Output::Answer(text));
    Outcome::Exit(0)
}

/// Reports what ended the run.
pub fn failed(
    error: Error,
    with_app: bool,
    format: Format,
    print: &mut dyn FnMut(Output),
) -> Outcome {
    print(Output::Ending(render::ended(&error, with_app, format)));
    Outcome::Exit(error.exit_code())
}
