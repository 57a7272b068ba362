//! Everything that ends the program without the app, and the exit code for each.

use std::io;
use std::path::PathBuf;

use crate::apply::error::{ApplyError, RunFailure};
use crate::cli::args::UsageError;
use crate::cli::config::ConfigError;
use crate::commands::new::NewError;
use crate::migrations::layout::LayoutProblem;
use crate::migrations::source::Origin;
use crate::process::exec::{self, ExecError};

/// Why the program ended.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong.
    Usage(UsageError),
    /// The environment, a file it names, or a connection string is wrong.
    Config(ConfigError),
    /// The executable was built without migrations, and no folder was named.
    NothingEmbedded,
    /// The migrations folder, or a file in it, cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The carried set is not one.
    InvalidSet {
        /// Where it came from.
        origin: Origin,
        /// All that is wrong with it.
        problems: Vec<LayoutProblem>,
    },
    /// `new` added nothing.
    New(NewError),
    /// The signal handlers cannot be set.
    Signals(io::Error),
    /// The app cannot be executed.
    App {
        /// Its name.
        program: String,
        /// Why.
        reason: ExecError,
    },
    /// The database could not be asked, or not be changed as asked.
    Run(Box<RunFailure>),
}

impl Error {
    /// The process's exit code: the table in the documentation.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::New(NewError::Name(_)) => 64,
            Error::New(_)
            | Error::NothingEmbedded
            | Error::Unreadable { .. }
            | Error::InvalidSet { .. } => 65,
            Error::Signals(_) => 70,
            Error::Config(_) => 78,
            Error::App { reason, .. } => exec::exit_code(&reason.error),
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
