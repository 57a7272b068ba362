//! What is wrong with a command line or a configuration.

use std::path::PathBuf;
use std::{fmt, io};

use crate::cli::health::{HealthAddress, UrlProblem};
use crate::postgres::conninfo;

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Nothing follows `--`.
    NoApp,
    /// An app was given, and this command starts none.
    AppNotUsed(&'static str),
    /// This command needs a name.
    NoName(&'static str),
    /// This command needs a folder.
    NoFolder(&'static str),
    /// `bundle` needs the name of the file to make.
    NoOutput,
    /// `rehearse` needs either `--here` or `--on`.
    NoPlace,
    /// The URL of `--on` has a password.
    PasswordInUrl,
    /// `healthcheck` cannot check this.
    CheckUrl(UrlProblem),
    /// `--only-for`, or its variable, and no app.
    NoAppFor(String),
    /// An argument may hold a password.
    ConnectionString,
    UnknownCommand(String),
    UnexpectedWord(String),
    UnknownOption(String),
    Repeated(&'static str),
    NoValue(&'static str),
    TakesNoValue(&'static str),
    /// The command does not use this flag.
    NotUsed {
        flag: &'static str,
        command: &'static str,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoApp => f.write_str(
                "nothing follows `--`: add the app's command, or remove `--`. A Dockerfile that sets \
                 ENTRYPOINT loses the CMD of its base image, so set CMD too",
            ),
            UsageError::AppNotUsed(command) => {
                write!(f, "`{command}` does not start an app: remove `--` and what follows it")
            }
            UsageError::NoName("accept") => f.write_str("`accept` needs names, or --all"),
            UsageError::NoName(command) => write!(f, "`{command}` needs a name: {command} NAME"),
            UsageError::NoFolder(command) => write!(f, "`{command}` needs a folder: --dir DIR"),
            UsageError::NoOutput => {
                f.write_str("`bundle` needs a name for the file to make: --output FILE")
            }
            UsageError::NoPlace => f.write_str(
                "`rehearse` needs either --here, for the database that the environment names, or \
                 --on URL, for another one",
            ),
            UsageError::PasswordInUrl => f.write_str(
                "--on does not accept a URL that is enough to log in, because everyone on the host can \
                 read a command line: set PREMIGRATE_ON to it instead",
            ),
            UsageError::CheckUrl(problem) => problem.fmt(f),
            UsageError::NoAppFor(name) => {
                write!(f, "{name} needs an app to compare with: put it after `--`")
            }
            UsageError::ConnectionString => f.write_str(
                "a connection string is not accepted as an argument, because everyone on the host \
                 can read a command line: set DATABASE_URL",
            ),
            UsageError::UnknownCommand(word) => {
                write!(f, "unknown command `{word}`; put the app after `--`")
            }
            UsageError::UnexpectedWord(word) => {
                write!(f, "unexpected argument `{word}`; put the app after `--`")
            }
            UsageError::UnknownOption(flag) => write!(f, "unknown option `{flag}`"),
            UsageError::Repeated(flag) => write!(f, "{flag} was given more than once"),
            UsageError::NoValue(flag) => write!(f, "{flag} needs a value: {flag} VALUE"),
            UsageError::TakesNoValue(flag) => write!(f, "{flag} does not take a value"),
            UsageError::NotUsed { flag, command } => {
                write!(f, "{flag} cannot be used with `{command}`")
            }
        }
    }
}

/// What is wrong with the configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// Only with the environment is it known that the command line is incomplete.
    Usage(UsageError),
    UnknownVariable(String),
    /// `--template` is given, and `--create-database` is not.
    UnusedTemplate,
    /// `PREMIGRATE_MIGRATIONS` is for building.
    BuildVariable,
    /// `name` is the flag or variable.
    Value {
        name: String,
        must_be: &'static str,
    },
    /// Both a variable and its `_FILE` are set.
    Both(String),
    /// `name` is the flag or variable that names the file.
    File {
        name: String,
        path: PathBuf,
        error: io::Error,
    },
    /// The file that this option names cannot be written.
    NotWritten {
        option: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// The path of `--since`, or of its variable, is neither a folder nor a list.
    NotAList {
        name: String,
        path: PathBuf,
    },
    /// Nothing can listen on the address of `--health`.
    Listen {
        address: HealthAddress,
        error: io::Error,
    },
    /// The file of a `NAME_FILE` cannot be read. Its path is not shown: it may be the secret itself.
    SecretFile {
        name: String,
        error: io::Error,
    },
    /// A file or variable is not UTF-8.
    NotText(String),
    NoDatabase,
    Connection(conninfo::ConninfoError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Usage(error) => error.fmt(f),
            ConfigError::UnknownVariable(name) => {
                write!(f, "unknown variable {name}; see --help, or unset it")
            }
            ConfigError::UnusedTemplate => {
                f.write_str("--template is only used with --create-database; set both, or neither")
            }
            ConfigError::BuildVariable => f.write_str(
                "PREMIGRATE_MIGRATIONS is only used to build premigrate; unset it, or set \
                 PREMIGRATE_DIR to use a folder at run time",
            ),
            ConfigError::Value { name, must_be } => write!(f, "{name} must be {must_be}"),
            ConfigError::Both(name) => {
                write!(f, "both {name} and {name}_FILE are set; unset one of them")
            }
            ConfigError::File { name, path, error } => {
                write!(f, "{name}: {} cannot be read ({error})", path.display())
            }
            ConfigError::NotWritten { option, path, error } => {
                write!(f, "{option}: {} cannot be written ({error})", path.display())
            }
            ConfigError::NotAList { name, path } => write!(
                f,
                "{name}: {} is neither a migrations folder nor what `list --format json` writes; name one",
                path.display()
            ),
            ConfigError::Listen { address, error } => {
                write!(f, "cannot listen on {address} for --health ({error})")
            }
            ConfigError::SecretFile { name, error } => {
                write!(f, "the file that {name} names cannot be read ({error})")
            }
            ConfigError::NotText(name) => write!(f, "{name} is not valid UTF-8"),
            ConfigError::NoDatabase => f.write_str(
                "no database is named; set DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE, \
                 or PGHOST and PGUSER",
            ),
            ConfigError::Connection(error) => error.fmt(f),
        }
    }
}
