//! What signals do to the app. Setting that is `unsafe` in every crate, since a handler may do what none is allowed to;
//! here none is set.
#![allow(unsafe_code, reason = "sigaction and signal, with no handler of ours")]

use std::mem::MaybeUninit;
use std::ptr;

use nix::libc::{self, SIG_DFL, SIG_IGN, SIGPIPE};

/// The highest number of a signal. The ones above 31 have no names, and the C library keeps the first of these.
const LAST: i32 = 64;

/// Has each signal that is ignored do what it does by default. Those that are caught, `exec` sets back, and not before:
/// process 1 never gets what is at its default.
pub(super) fn ignored_to_default() {
    for signal in (1..=LAST).filter(|&signal| signal != SIGPIPE && is_ignored(signal)) {
        // SAFETY: no handler is set.
        unsafe { libc::signal(signal, SIG_DFL) };
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut found = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and what is found has a place to be written to, which all zeros fill well enough.
    let found = unsafe {
        libc::sigaction(signal, ptr::null(), found.as_mut_ptr());
        found.assume_init()
    };
    found.sa_sigaction == SIG_IGN
}

/// Writing to a pipe that nobody reads is an error again, and not our end: Rust begins so, and sets it back before it
/// tries to execute.
pub(super) fn ignore_broken_pipes() {
    // SAFETY: no handler is set.
    unsafe { libc::signal(SIGPIPE, SIG_IGN) };
}
