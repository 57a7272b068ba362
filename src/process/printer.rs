//! Writes to standard output and standard error, whose reader may be slow or not read at all: an answer waits for it
//! until a signal comes, a report only for a moment.
//!
//! The streams stay blocking, since the app inherits them and other processes may share them. So each piece is written
//! only when there is room for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use super::signals::{Deadline, POLL_INTERVAL, StopFlag};

/// How long a report waits for its reader. Locks in the database are held meanwhile.
const READER_WAIT: Duration = Duration::from_secs(5);
/// The same after a signal.
const READER_WAIT_AFTER_SIGNAL: Duration = Duration::from_secs(1);

pub struct Printer<'a> {
    stop: &'a StopFlag,
    /// Whether the last report was written whole. If not, the next one does not wait, unless it is the last.
    reader_keeps_up: bool,
    /// Whether the last report was only partly written.
    truncated: bool,
}

impl<'a> Printer<'a> {
    pub fn new(stop: &'a StopFlag) -> Printer<'a> {
        Printer { stop, reader_keeps_up: true, truncated: false }
    }

    /// Errors are ignored: whether anybody reads it does not change what is done to the database.
    pub fn answer(&self, text: &str) {
        write_within(io::stdout().as_fd(), text, Deadline::never(self.stop));
    }

    pub fn report(&mut self, text: &str) {
        let wait = if self.reader_keeps_up { READER_WAIT } else { Duration::ZERO };
        self.report_within(text, wait);
    }

    pub fn last_report(&mut self, text: &str) {
        self.report_within(text, READER_WAIT);
    }

    fn report_within(&mut self, text: &str, wait: Duration) {
        if text.is_empty() {
            return;
        }
        let text = if self.truncated { format!("\n{text}") } else { text.to_owned() };
        let deadline = Deadline::ignoring_signals(wait, self.stop);
        let unwritten = write_within(io::stderr().as_fd(), &text, deadline);
        self.reader_keeps_up = unwritten == 0;
        self.truncated = unwritten > 0 && (self.truncated || unwritten < text.len());
    }
}

/// Returns how many bytes found no room in time. After an error nothing is left to write.
fn write_within(stream: BorrowedFd<'_>, text: &str, deadline: Deadline<'_>) -> usize {
    let mut unwritten = text.len();
    // A pipe that is writable takes PIPE_BUF bytes without blocking.
    for mut piece in text.as_bytes().chunks(PIPE_BUF) {
        while !piece.is_empty() {
            if !wait_writable(stream, deadline) {
                return unwritten;
            }
            match write(stream, piece) {
                Ok(0) => return 0,
                Ok(length) => {
                    piece = piece.get(length..).unwrap_or_default();
                    unwritten = unwritten.saturating_sub(length);
                }
                Err(Errno::EINTR) => {}
                // Another process made the stream non-blocking, and filled it first.
                Err(Errno::EAGAIN) if deadline.sleep(POLL_INTERVAL).is_ok() => {}
                Err(Errno::EAGAIN) => return unwritten,
                Err(_) => return 0,
            }
        }
    }
    unwritten
}

/// Whether the stream became writable in time. It also is when writing would fail.
fn wait_writable(stream: BorrowedFd<'_>, mut deadline: Deadline<'_>) -> bool {
    let interval = PollTimeout::try_from(POLL_INTERVAL).unwrap_or(PollTimeout::ZERO);
    let mut signal_seen = false;
    loop {
        let is_over = deadline.remaining() == Some(Duration::ZERO);
        let timeout = if is_over { PollTimeout::ZERO } else { interval };
        match poll(&mut [PollFd::new(stream, PollFlags::POLLOUT)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            _ => return true,
        }
        if !signal_seen && deadline.stop.raised().is_some() {
            signal_seen = true;
            deadline = deadline.at_most(READER_WAIT_AFTER_SIGNAL);
        }
        if deadline.check().is_err() {
            return false;
        }
    }
}
