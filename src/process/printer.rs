//! Writing to standard output and standard error. Whoever reads there may be slow, or not read at all: that holds up an
//! answer until a signal comes, and a report for a moment.
//!
//! The streams stay blocking as we found them, since the app inherits them and others may share them. So each piece is
//! written only when there is room for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use super::signals::{Deadline, POLL_INTERVAL, StopFlag};

/// How long a report waits for whoever reads it: what it is about, a lock in the database perhaps, waits as long.
const READER: Duration = Duration::from_secs(5);
/// The same once a signal has come.
const LAST: Duration = Duration::from_secs(1);

/// Prints.
pub struct Printer<'a> {
    stop: &'a StopFlag,
    /// Whether the last report found room; if not, the next one does not wait for any, unless it is
    /// the last.
    is_read: bool,
    /// Whether the last report was given up behind its beginning.
    is_cut: bool,
}

impl<'a> Printer<'a> {
    pub fn new(stop: &'a StopFlag) -> Printer<'a> {
        Printer { stop, is_read: true, is_cut: false }
    }

    /// That nobody reads it changes nothing about what is done to the database.
    pub fn answer(&self, text: &str) {
        put(io::stdout().as_fd(), text, Deadline::never(self.stop));
    }

    pub fn report(&mut self, text: &str) {
        self.put_report(text, if self.is_read { READER } else { Duration::ZERO });
    }

    pub fn last_report(&mut self, text: &str) {
        self.put_report(text, READER);
    }

    fn put_report(&mut self, text: &str, time: Duration) {
        let text = if self.is_cut { format!("\n{text}") } else { text.to_owned() };
        let deadline = Deadline::ignoring_signals(time, self.stop);
        let left = put(io::stderr().as_fd(), &text, deadline);
        self.is_read = left == 0;
        self.is_cut = left > 0 && (self.is_cut || left < text.len());
    }
}

/// How much of it found no room in time. What cannot be written at all needs none.
fn put(stream: BorrowedFd<'_>, text: &str, deadline: Deadline<'_>) -> usize {
    let mut left = text.len();
    // A pipe that has room takes as much at once.
    for mut piece in text.as_bytes().chunks(PIPE_BUF) {
        while !piece.is_empty() {
            if !has_room(stream, deadline) {
                return left;
            }
            match write(stream, piece) {
                Ok(0) => return 0,
                Ok(length) => {
                    piece = piece.get(length..).unwrap_or_default();
                    left = left.saturating_sub(length);
                }
                Err(Errno::EINTR) => {}
                // Whoever shares it does not want to wait, and was faster.
                Err(Errno::EAGAIN) if deadline.sleep(POLL_INTERVAL).is_ok() => {}
                Err(Errno::EAGAIN) => return left,
                Err(_) => return 0,
            }
        }
    }
    left
}

/// Waits for room, or for an error that writing will tell.
fn has_room(stream: BorrowedFd<'_>, mut deadline: Deadline<'_>) -> bool {
    let tick = PollTimeout::try_from(POLL_INTERVAL).unwrap_or(PollTimeout::ZERO);
    let mut is_last = false;
    loop {
        let wait =
            if deadline.remaining() == Some(Duration::ZERO) { PollTimeout::ZERO } else { tick };
        match poll(&mut [PollFd::new(stream, PollFlags::POLLOUT)], wait) {
            Ok(0) | Err(Errno::EINTR) => {}
            _ => return true,
        }
        if !is_last && deadline.stop.raised().is_some() {
            is_last = true;
            deadline = deadline.at_latest_in(LAST);
        }
        if deadline.check().is_err() {
            return false;
        }
    }
}
