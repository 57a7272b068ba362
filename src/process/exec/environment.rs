//! What the app finds in its environment: all that we found, in its order and with all that stands there twice. A list
//! made anew, which needs no `unsafe`, would be sorted, and be without what is not of the form NAME=VALUE.
#![allow(unsafe_code, reason = "the process's own environment is changed")]

use std::ffi::OsStr;

/// Removes variables.
pub(super) fn remove(is_private_variable: impl Fn(&OsStr) -> bool) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_private_variable(name)) {
        // SAFETY: nobody else looks at it. The only thread that there may be besides this one looks up a host's name, for
        // longer than it was waited for; musl's resolver reads no variable, and glibc's has read them when it began.
        unsafe { std::env::remove_var(name) };
    }
}
