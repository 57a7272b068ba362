//! Why the app could not be executed, where the system's error leaves that open: `No such file` also
//! means that the file exists, and its interpreter does not.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{App, file_of, has_slash};

/// Looks at the app's file after `exec` failed with this error.
pub(super) fn diagnose(app: &App, error: &io::Error) -> Option<String> {
    const EXEC_FORMAT: i32 = nix::libc::ENOEXEC;
    const ELF: &[u8] = b"\x7fELF";
    let file = file_of(&app.program);
    let hint = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => match file {
            Some(file) => return Some(missing_loader(&file)),
            None if has_slash(&app.program) => return None,
            None => "no directory in PATH contains it",
        },
        (io::ErrorKind::PermissionDenied, _) => {
            let metadata = fs::metadata(file?).ok()?;
            let is_executable = metadata.permissions().mode() & 0o111 != 0;
            match (metadata.is_dir(), is_executable) {
                (true, _) => "it is a directory",
                (false, false) => "it is not executable; run `chmod +x` on it",
                (false, true) => return None,
            }
        }
        (_, Some(EXEC_FORMAT)) => match head(&file?)?.starts_with(ELF) {
            true => "it was built for another architecture",
            false => {
                "it is neither a program nor a script whose first line names an interpreter, such as \
                 #!/bin/sh"
            }
        },
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Why the system does not find a file that exists.
fn missing_loader(file: &Path) -> String {
    let name = head(file).as_deref().and_then(interpreter);
    match name.filter(|name| !Path::new(name).exists()) {
        Some(name) => match name.strip_suffix('\r') {
            Some("") => "its first line names only a carriage return; save the file with LF line \
                 endings, not CRLF"
                .to_owned(),
            Some(name) => format!(
                "its first line names {name} and a carriage return; save the file with LF line \
                 endings, not CRLF"
            ),
            None => format!("the script exists, but its interpreter does not: {name}"),
        },
        None => "the file exists, but its interpreter or loader does not; link the program \
             statically, or use an image that has its libraries"
            .to_owned(),
    }
}

/// As much of a file as the kernel reads (BINPRM_BUF_SIZE).
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
