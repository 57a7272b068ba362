//! Becoming the app: same process, its arguments untouched, nothing of ours left.

mod diagnose;
mod environment;
mod signal_defaults;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

pub use self::diagnose::ExecHint;

/// The app: what stands after `--`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Its arguments, byte for byte.
    pub args: Vec<OsString>,
}

/// Whether a variable is only for us, and so kept from the app.
pub fn is_private_variable(name: &OsStr) -> bool {
    name == "MIGRATION_DATABASE_URL"
        || name == "MIGRATION_DATABASE_URL_FILE"
        || name.as_encoded_bytes().starts_with(b"PREMIGRATE_")
}

/// Why we did not become the app.
#[derive(Debug)]
pub struct ExecError {
    /// What the system said.
    pub error: io::Error,
    /// What it left open.
    pub hint: Option<ExecHint>,
}

/// Becomes the app. Returns only if that cannot be done, with the reason.
pub fn exec(app: &App) -> ExecError {
    // Whatever we were started with; else Node, say, would not learn that its children have ended.
    signal_defaults::ignored_to_default();
    let _ = SigSet::empty().thread_set_mask();
    environment::remove(is_private_variable);
    let error = Command::new(&app.program).args(&app.args).exec();
    signal_defaults::ignore_broken_pipes();
    ExecError { hint: diagnose::find(app, &error), error }
}

/// The exit code for an app that cannot be executed, as shells and Docker have it: 127 if it is
/// not there, else 126.
pub fn exit_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 127,
        _ => 126,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_variables_are_kept_from_the_app() {
        for ours in ["MIGRATION_DATABASE_URL", "MIGRATION_DATABASE_URL_FILE", "PREMIGRATE_WAIT"] {
            assert!(is_private_variable(OsStr::new(ours)), "{ours}");
        }
        for theirs in ["DATABASE_URL", "DATABASE_URL_FILE", "PGPASSWORD", "PATH", "premigrate_x"] {
            assert!(!is_private_variable(OsStr::new(theirs)), "{theirs}");
        }
    }
}
