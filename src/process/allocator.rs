//! The allocator. Where there is no memory left, it reports that and ends the process: nothing that
//! runs then could allocate what a report needs.
#![allow(unsafe_code, reason = "an allocator, which passes every call on")]

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use dlmalloc::GlobalDlmalloc;
use nix::unistd::write;
use signal_hook::low_level;

/// dlmalloc, since musl's own allocator gives each few pages back to the kernel at once.
pub struct Allocator;

struct LastWords {
    report: String,
    exit_code: u8,
}

static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// Sets what is reported when there is no memory left, and the exit code.
pub fn set_last_words(report: String, exit_code: u8) {
    let _ = LAST_WORDS.set(LastWords { report, exit_code });
}

/// Passes on what was allocated. Without last words, the standard library aborts the process.
fn or_end(allocated: *mut u8) -> *mut u8 {
    if allocated.is_null()
        && let Some(LastWords { report, exit_code }) = LAST_WORDS.get()
    {
        let _ = write(io::stderr().as_fd(), report.as_bytes());
        low_level::exit(i32::from(*exit_code));
    }
    allocated
}

// SAFETY: every call is passed on as it is, and so are its results.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { GlobalDlmalloc.alloc(layout) })
    }

    unsafe fn dealloc(&self, allocated: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { GlobalDlmalloc.dealloc(allocated, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { GlobalDlmalloc.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, allocated: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        or_end(unsafe { GlobalDlmalloc.realloc(allocated, layout, size) })
    }
}
