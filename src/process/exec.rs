//! Becoming the app: in the same process, with its arguments untouched, and without anything of ours.

mod diagnose;
mod signal_defaults;

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::sys::signal::SigSet;
use nix::unistd::execvpe;

/// The app: what follows `--` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    pub args: Vec<OsString>,
}

/// Whether the app does not get this variable.
pub fn is_private_variable(name: &OsStr) -> bool {
    name == "MIGRATION_DATABASE_URL"
        || name == "MIGRATION_DATABASE_URL_FILE"
        || name.as_encoded_bytes().starts_with(b"PREMIGRATE_")
}

/// Why the app could not be executed.
#[derive(Debug)]
pub struct ExecError {
    pub error: io::Error,
    /// What the system's error leaves open.
    pub hint: Option<String>,
}

impl ExecError {
    /// As in shells and Docker: 127 if the app does not exist, else 126.
    pub fn exit_code(&self) -> u8 {
        match self.error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 127,
            _ => 126,
        }
    }
}

/// Becomes the app. Returns only if that fails.
pub fn exec(app: &App) -> ExecError {
    // Signals may have been ignored or blocked before we started; with SIGCHLD ignored, Node would not learn that its
    // children have ended.
    signal_defaults::reset_ignored();
    let _ = SigSet::empty().thread_set_mask();
    let Err(error) = replace_process(app);
    signal_defaults::ignore_broken_pipes();
    ExecError { hint: diagnose::diagnose(app, &error), error }
}

fn replace_process(app: &App) -> io::Result<Infallible> {
    let program = CString::new(app.program.as_bytes())?;
    let words = [&app.program].into_iter().chain(&app.args);
    let args: Vec<_> = words.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    // In the order in which we got them, duplicates too.
    let variables = std::env::vars_os().filter(|(name, _)| !is_private_variable(name));
    let entry = |(mut entry, value): (OsString, OsString)| {
        entry.push("=");
        entry.push(value);
        CString::new(entry.into_vec())
    };
    let environment: Vec<_> = variables.map(entry).collect::<Result<_, _>>()?;
    Ok(execvpe(&program, &args, &environment)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_does_not_get_our_own_variables() {
        for ours in ["MIGRATION_DATABASE_URL", "MIGRATION_DATABASE_URL_FILE", "PREMIGRATE_WAIT"] {
            assert!(is_private_variable(OsStr::new(ours)), "{ours}");
        }
        for theirs in ["DATABASE_URL", "DATABASE_URL_FILE", "PGPASSWORD", "PATH", "premigrate_x"] {
            assert!(!is_private_variable(OsStr::new(theirs)), "{theirs}");
        }
    }
}
