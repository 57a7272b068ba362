//! Becoming the app: same process, its arguments untouched, nothing of ours left.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{FORBIDDEN, SIGPIPE};
use signal_hook::flag;

/// The app: what stands after `--`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Its arguments, byte for byte.
    pub args: Vec<OsString>,
}

/// Whether a variable is only for us, and so kept from the app.
pub fn is_ours(name: &OsStr) -> bool {
    name == "MIGRATION_DATABASE_URL"
        || name == "MIGRATION_DATABASE_URL_FILE"
        || name.as_encoded_bytes().starts_with(b"PREMIGRATE_")
}

/// Becomes the app. Returns only if that cannot be done, with the reason.
pub fn exec(app: &App) -> io::Error {
    use_default_signals();
    let mut command = Command::new(&app.program);
    command.args(&app.args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command.exec()
}

/// The signals without a name. The C library, which keeps the first ones for itself, refuses those.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// The app gets every signal as a process has it by default, whatever we were started with; else
/// Node, say, would not learn that its children have ended.
fn use_default_signals() {
    // What is caught is set back by exec; what is ignored would stay ignored. SIGPIPE, which Rust
    // ignores for us, is set back by Rust.
    let untouched = Arc::new(AtomicBool::new(false));
    let catchable = |signal: &i32| *signal != SIGPIPE && !FORBIDDEN.contains(signal);
    let named = Signal::iterator().map(|signal| signal as i32);
    for signal in named.chain(REAL_TIME).filter(catchable) {
        let _ = flag::register(signal, untouched.clone());
    }
    let _ = SigSet::empty().thread_set_mask();
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
            assert!(is_ours(OsStr::new(ours)), "{ours}");
        }
        for theirs in ["DATABASE_URL", "DATABASE_URL_FILE", "PGPASSWORD", "PATH", "premigrate_x"] {
            assert!(!is_ours(OsStr::new(theirs)), "{theirs}");
        }
    }
}
