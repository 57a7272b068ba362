//! Why the system would not start the app, where its own words leave that open: `No such file` is also said of a file
//! that is there, and whose interpreter is not.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::App;

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecHint {
    /// It is in no folder of `PATH`.
    NotInPath,
    /// What the script's first line names is not there.
    NoInterpreter(String),
    /// What loads the dynamically linked program is not there.
    NoLoader(String),
    /// It is a folder.
    Folder,
    /// It is not marked as executable.
    NotExecutable,
    /// It is neither a program nor a script with an interpreter.
    NoProgram,
    /// It is a program that this machine does not understand.
    OtherMachine,
}

/// Looks for it; the error is what the system said.
pub(super) fn find(app: &App, error: &io::Error) -> Option<ExecHint> {
    const EXEC_FORMAT: i32 = nix::libc::ENOEXEC;
    let file = file(app);
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => match file {
            Some(file) => missing(&file),
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

/// The file that it is, if it is there.
fn file(app: &App) -> Option<PathBuf> {
    if has_slash(app) {
        return Some(PathBuf::from(&app.program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(Path::new(&app.program)))
        .find(|path| path.exists())
}

/// How much of a file is read: the kernel takes a first line of 256 bytes, and linkers write early what loads a program.
const HEAD: u64 = 1 << 16;

fn head(file: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(file).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    Some(head)
}

/// What a file that is there asks for, and does not get: an interpreter, or the loader of either.
fn missing(file: &Path) -> Option<ExecHint> {
    let mut head = head(file)?;
    if let Some(name) = interpreter(&head) {
        if !Path::new(&name).exists() {
            return Some(ExecHint::NoInterpreter(name));
        }
        head = self::head(Path::new(&name))?;
    }
    loader(&head).filter(|name| !Path::new(name).exists()).map(ExecHint::NoLoader)
}

/// What a script's first line names.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // A carriage return is a part of the name.
    let name = line.split(|&byte| byte == b' ' || byte == b'\t').find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

const ELF: &[u8] = b"\x7fELF";
/// What follows, on every machine we are built for: 64 bits, the lowest byte first.
const KIND: &[u8] = &[2, 1];

/// What is to load a dynamically linked program, as its program headers name it.
fn loader(head: &[u8]) -> Option<String> {
    const INTERPRETER: u64 = 3;
    head.strip_prefix(ELF)?.strip_prefix(KIND)?;
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let place = |at: usize, length: usize| usize::try_from(number(at, length)?).ok();
    let (table, size, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    let mut headers = (0..count).map_while(|one| table.checked_add(one * size));
    let header = headers.find(|&header| number(header, 4) == Some(INTERPRETER))?;
    let start = place(header.checked_add(8)?, 8)?;
    let name = head.get(start..)?.split(|&byte| byte == 0).next()?;
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

    #[test]
    fn a_programs_loader_is_what_its_headers_name() {
        // This test is dynamically linked.
        let ours = head(&std::env::current_exe().unwrap()).unwrap();
        let loader = loader(&ours).unwrap();
        assert!(Path::new(&loader).exists() && loader.contains("/ld-"), "{loader}");
    }

    #[test]
    fn no_bytes_make_the_look_for_a_loader_fail() {
        let ours = head(&std::env::current_exe().unwrap()).unwrap();
        for length in 0..200 {
            let _ = loader(&ours[..length]);
        }
        for at in 0..120 {
            let mut broken = ours.clone();
            broken[at..at + 8].fill(0xff);
            let _ = loader(&broken);
        }
    }
}
