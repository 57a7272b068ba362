//! Becoming the app: in the same process, with its arguments untouched, and without anything of ours.

mod diagnose;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::signal::SigSet;

use super::dispositions;

/// The app: what follows `--` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// A path, or a name that is looked up in `PATH`.
    pub program: OsString,
    pub args: Vec<OsString>,
}

/// Whether the app does not get this variable, unless it is premigrate itself.
fn is_private_variable(name: &OsStr) -> bool {
    name == "MIGRATION_DATABASE_URL"
        || name == "MIGRATION_DATABASE_URL_FILE"
        || name.to_str().map_or(name.as_encoded_bytes().starts_with(PREFIX.as_bytes()), is_ours)
}

const PREFIX: &str = "PREMIGRATE_";

/// Whether a variable is meant for premigrate. Kubernetes sets others of this prefix in every pod of a
/// namespace that has a service with such a name, and so does Docker for a link.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && !is_of_service(name)
}

/// Whether the name is `..._SERVICE_HOST`, `..._SERVICE_PORT`, `..._SERVICE_PORT_HTTP`, `..._PORT`,
/// `..._PORT_80_TCP` or `..._PORT_80_TCP_ADDR`, where other names of ports, numbers and protocols are
/// possible.
fn is_of_service(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut words = rest.split('_');
        let is_number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let is_protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        let last = words.next().is_none_or(|word| ["PROTO", "PORT", "ADDR"].contains(&word));
        is_number && is_protocol && last && words.next().is_none()
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name
            .match_indices("_PORT_")
            .any(|(at, word)| name.get(at + word.len()..).is_some_and(is_port))
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
    // Signals may have been ignored or blocked before we started; with SIGCHLD ignored, Node would not
    // learn that its children have ended.
    dispositions::reset_ignored();
    let _ = SigSet::empty().thread_set_mask();
    let Err(error) = replace_process(app);
    dispositions::ignore_broken_pipes();
    ExecError { hint: diagnose::diagnose(app, &error), error }
}

/// On macOS, which has no `execvpe`, the variables lose their order.
#[cfg(target_os = "macos")]
fn replace_process(app: &App) -> io::Result<Infallible> {
    use std::os::unix::process::CommandExt;

    let mut command = std::process::Command::new(&app.program);
    Err(command.args(&app.args).env_clear().envs(variables_for(app)).exec())
}

#[cfg(not(target_os = "macos"))]
fn replace_process(app: &App) -> io::Result<Infallible> {
    use std::ffi::CString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let program = CString::new(app.program.as_bytes())?;
    let words = [&app.program].into_iter().chain(&app.args);
    let args: Vec<_> = words.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    let entry = |(mut entry, value): (OsString, OsString)| {
        entry.push("=");
        entry.push(value);
        CString::new(entry.into_vec())
    };
    let environment: Vec<_> = variables_for(app).map(entry).collect::<Result<_, _>>()?;
    Ok(nix::unistd::execvpe(&program, &args, &environment)?)
}

/// In the order in which we got them, duplicates too.
fn variables_for(app: &App) -> impl Iterator<Item = (OsString, OsString)> {
    let keeps_ours = is_this_executable(&app.program);
    std::env::vars_os().filter(move |(name, _)| keeps_ours || !is_private_variable(name))
}

/// Whether a program is this very executable: it then applies another set of migrations.
fn is_this_executable(program: &OsStr) -> bool {
    let identity = |file: PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    // Without /proc, we are what we were called.
    let by_name = || file_of(&std::env::args_os().next()?).and_then(identity);
    let ours = identity(PathBuf::from("/proc/self/exe")).or_else(by_name);
    ours.is_some() && ours == file_of(program).and_then(identity)
}

fn has_slash(program: &OsStr) -> bool {
    program.as_encoded_bytes().contains(&b'/')
}

/// The file of a program, if it exists.
fn file_of(program: &OsStr) -> Option<PathBuf> {
    if has_slash(program) {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(Path::new(program)));
    files.find(|path| path.exists())
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

    #[test]
    fn the_variables_of_a_service_are_not_ours() {
        for theirs in [
            "PREMIGRATE_SERVICE_HOST",
            "PREMIGRATE_SERVICE_PORT",
            "PREMIGRATE_SERVICE_PORT_HTTP",
            "PREMIGRATE_PORT",
            "PREMIGRATE_PORT_5432_TCP",
            "PREMIGRATE_PORT_5432_TCP_PROTO",
            "PREMIGRATE_PORT_5432_TCP_PORT",
            "PREMIGRATE_PORT_53_UDP_ADDR",
            "PREMIGRATE_JOBS_SERVICE_HOST",
            "PREMIGRATE_JOBS_PORT_80_TCP_ADDR",
        ] {
            assert!(!is_ours(theirs) && !is_private_variable(OsStr::new(theirs)), "{theirs}");
        }
        for ours in [
            "PREMIGRATE_SERVICE",
            "PREMIGRATE_PORTS",
            "PREMIGRATE_PORT_HTTP",
            "PREMIGRATE_PORT_5432_TCP_NAME",
            "PREMIGRATE_HOST",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
    }
}
