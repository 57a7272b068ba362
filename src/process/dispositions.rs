//! Signals that are ignored when we start, and the dispositions that the app starts with. `signal` and
//! `sigaction` are `unsafe` because a handler may do something that is not allowed in one; no handler
//! is set here.
#![allow(unsafe_code, reason = "sigaction and signal, without a handler of ours")]

use std::mem::MaybeUninit;
use std::ptr;

use nix::libc::{self, SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGPIPE, SIGQUIT};

/// The highest signal number on Linux.
const MAX_SIGNAL: i32 = 64;

/// Whether this signal is one that `nohup`, or a shell that starts a job in the background, has a
/// program ignore.
pub(super) fn stays_ignored(signal: i32) -> bool {
    [SIGHUP, SIGINT, SIGQUIT].contains(&signal) && is_ignored(signal)
}

/// Sets every other ignored signal to its default. This includes SIGPIPE, which Rust ignores. Caught
/// signals are left to `exec`, which resets them: until then, process 1 would lose a signal that is at
/// its default.
pub(super) fn reset_ignored() {
    let is_reset = |signal: &i32| is_ignored(*signal) && !stays_ignored(*signal);
    for signal in (1..=MAX_SIGNAL).filter(is_reset) {
        // SAFETY: `signal` takes no pointer to memory, and SIG_DFL is a valid disposition for every signal.
        unsafe { libc::signal(signal, SIG_DFL) };
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut found = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `act` is null, so nothing is changed. `oldact` points to a writable `sigaction`, for
    // which all zeros are a valid value if the call fails and writes nothing.
    let found = unsafe {
        libc::sigaction(signal, ptr::null(), found.as_mut_ptr());
        found.assume_init()
    };
    found.sa_sigaction == SIG_IGN
}

/// Makes writing to a pipe without a reader an error again, as Rust does at start.
pub(super) fn ignore_broken_pipes() {
    // SAFETY: `signal` takes no pointer to memory, and SIG_IGN is a valid disposition for SIGPIPE.
    unsafe { libc::signal(SIGPIPE, SIG_IGN) };
}
