//! Everything that ends the program without the app, and the exit code for each.

use std::io;

use serde::Serialize;

use crate::apply::error::{ApplyError, RunFailure};
use crate::apply::event::as_text;
use crate::cli::error::{ConfigError, UsageError};
use crate::commands::bundle::BundleError;
use crate::commands::extract::ExtractError;
use crate::commands::new::NewError;
use crate::migrations::layout::LayoutProblem;
use crate::migrations::source::{Origin, Unreadable};
use crate::process::exec::ExecError;

/// Why the program ended. In JSON, `error` is a stable code for programs.
#[derive(Debug, Serialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum Error {
    /// The command line is wrong.
    Usage(#[serde(skip)] UsageError),
    /// The environment, a file it names, or a connection string is wrong.
    Config(#[serde(skip)] ConfigError),
    /// The migrations are invalid.
    #[serde(rename = "invalid_migrations")]
    InvalidSet {
        #[serde(rename = "from", serialize_with = "as_text")]
        origin: Origin,
        problems: Vec<LayoutProblem>,
    },
    /// `new` added nothing.
    New(#[serde(skip)] NewError),
    /// `bundle` made no bundle.
    Bundle(#[serde(skip)] BundleError),
    /// `list --extract` extracted nothing.
    Extract(#[serde(skip)] ExtractError),
    /// The signal handlers cannot be set.
    Signals(#[serde(skip)] io::Error),
    OutOfMemory,
    /// The app cannot be executed.
    #[serde(rename = "app_not_started")]
    App {
        program: String,
        #[serde(skip)]
        reason: ExecError,
    },
    /// The migrations cannot be loaded.
    #[serde(untagged)]
    Unreadable(Unreadable),
    /// The database could not be read or changed.
    #[serde(untagged)]
    Run(Box<RunFailure>),
}

impl Error {
    /// The process's exit code: the table in the documentation.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::New(NewError::Name(_)) => 64,
            Error::New(_)
            | Error::Bundle(_)
            | Error::Extract(_)
            | Error::Unreadable(_)
            | Error::InvalidSet { .. } => 65,
            Error::Signals(_) | Error::OutOfMemory => 70,
            Error::Config(_) => 78,
            Error::App { reason, .. } => reason.exit_code(),
            Error::Run(failure) => failure.error.exit_code(),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        match error {
            ConfigError::Usage(error) => Error::Usage(error),
            error => Error::Config(error),
        }
    }
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Error {
        Error::Unreadable(error)
    }
}

impl From<RunFailure> for Error {
    fn from(failure: RunFailure) -> Error {
        Error::Run(Box::new(failure))
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Error {
        RunFailure::from(error).into()
    }
}
