//! Standard input, output and error for the app as we found them, also where one is closed.
//!
//! In the place of each that is closed, Rust opens `/dev/null` before `main`, for the app too; without a `/dev`, it
//! aborts. So something takes these places before that, which is gone after `exec`.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

#[used]
#[allow(
    unsafe_code,
    reason = "the C library calls what stands here, with arguments that are not looked at"
)]
#[unsafe(link_section = ".init_array")]
static BEFORE_RUST_STARTS: extern "C" fn() = hold_what_is_closed;

/// A new descriptor gets the lowest number that is free. A socket of no address needs no file, and takes no byte.
extern "C" fn hold_what_is_closed() {
    while let Ok(holder) = UnixDatagram::unbound() {
        if holder.as_raw_fd() > 2 {
            return;
        }
        std::mem::forget(holder);
    }
}
