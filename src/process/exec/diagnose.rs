//! Why the app could not be executed, where the system's error leaves that open: `No such file` also means that the
//! file exists, and its interpreter does not.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::App;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecHint {
    NotInPath,
    /// The interpreter that the script's first line names does not exist.
    NoInterpreter(String),
    /// The file exists, and what loads it does not.
    NoLoader,
    Folder,
    /// The file's mode has no `x`.
    NotExecutable,
    /// Neither a program nor a script with an interpreter.
    NoProgram,
    /// A program for another architecture.
    OtherMachine,
}

impl fmt::Display for ExecHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecHint::NotInPath => f.write_str("it is in no folder of PATH"),
            ExecHint::NoInterpreter(name) => match name.strip_suffix('\r') {
                Some("") => f.write_str(
                    "its first line names only a carriage return; save the file with LF line \
                     endings, not CRLF",
                ),
                Some(name) => write!(
                    f,
                    "its first line names {name} and a carriage return; save the file with LF \
                     line endings, not CRLF"
                ),
                None => write!(f, "the script exists, but its interpreter does not: {name}"),
            },
            ExecHint::NoLoader => f.write_str(
                "the file exists, but its interpreter or loader does not; link the program \
                 statically, or use an image that has its libraries",
            ),
            ExecHint::Folder => f.write_str("it is a directory"),
            ExecHint::NotExecutable => f.write_str("it is not executable; run `chmod +x` on it"),
            ExecHint::NoProgram => f.write_str(
                "it is neither a program nor a script whose first line names an interpreter, such \
                 as #!/bin/sh",
            ),
            ExecHint::OtherMachine => f.write_str("it was built for another kind of machine"),
        }
    }
}

/// Looks at the app's file after `exec` failed with this error.
pub(super) fn diagnose(app: &App, error: &io::Error) -> Option<ExecHint> {
    const EXEC_FORMAT: i32 = nix::libc::ENOEXEC;
    const ELF: &[u8] = b"\x7fELF";
    let file = find(app);
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => match file {
            Some(file) => Some(missing_loader(&file)),
            None => (!has_slash(app)).then_some(ExecHint::NotInPath),
        },
        (io::ErrorKind::PermissionDenied, _) => {
            let metadata = fs::metadata(file?).ok()?;
            let is_executable = metadata.permissions().mode() & 0o111 != 0;
            match (metadata.is_dir(), is_executable) {
                (true, _) => Some(ExecHint::Folder),
                (false, false) => Some(ExecHint::NotExecutable),
                (false, true) => None,
            }
        }
        (_, Some(EXEC_FORMAT)) => Some(match head(&file?)?.starts_with(ELF) {
            true => ExecHint::OtherMachine,
            false => ExecHint::NoProgram,
        }),
        _ => None,
    }
}

fn has_slash(app: &App) -> bool {
    app.program.as_encoded_bytes().contains(&b'/')
}

/// The app's file, if it exists.
fn find(app: &App) -> Option<PathBuf> {
    if has_slash(app) {
        return Some(PathBuf::from(&app.program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(Path::new(&app.program)))
        .find(|path| path.exists())
}

fn missing_loader(file: &Path) -> ExecHint {
    match head(file).as_deref().and_then(interpreter) {
        Some(name) if !Path::new(&name).exists() => ExecHint::NoInterpreter(name),
        _ => ExecHint::NoLoader,
    }
}

/// As much of a file as the kernel looks at (BINPRM_BUF_SIZE).
fn head(file: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(file).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The interpreter that a script's first line names.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // The kernel takes a carriage return as a part of the name.
    let name = line.split(|&byte| byte == b' ' || byte == b'\t').find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_interpreter_is_what_its_first_line_names() {
        for (head, name) in [
            (&b"#!/bin/sh\necho"[..], "/bin/sh"),
            (b"#! /usr/bin/env node\n", "/usr/bin/env"),
            (b"#!/bin/sh", "/bin/sh"),
            (b"#!\t /bin/sh -x\n", "/bin/sh"),
            (b"#!/bin/sh\r\necho", "/bin/sh\r"),
            (b"#!\r\necho", "\r"),
        ] {
            assert_eq!(interpreter(head).as_deref(), Some(name));
        }
        for head in [&b"echo"[..], b"#!", b"#! \necho"] {
            assert_eq!(interpreter(head), None);
        }
    }
}
