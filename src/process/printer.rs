//! Writes to standard output and standard error, whose reader may be slow or not read at all: an answer
//! waits for it until a signal comes, a report only for a moment.
//!
//! On a terminal, a line may stand below the others that is replaced and erased: it must be gone before
//! anything else is written there.
//!
//! The streams stay blocking, since the app inherits them and other processes may share them. So each
//! piece is written only when there is room for it.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use rustix::termios::tcgetwinsize;

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
    live_line: LiveLine,
}

/// Whether a line is there that has to be erased.
#[derive(Clone, Debug, Default)]
pub struct LiveLine(Arc<AtomicBool>);

impl LiveLine {
    /// Erases it, if the terminal takes that at once: for a thread that may not wait.
    pub fn erase(&self) {
        let stderr = io::stderr();
        let mut stream = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if self.is_there() && poll(&mut stream, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            self.set(false);
            let _ = write(&stderr, ERASE_LINE.as_bytes());
        }
    }

    fn is_there(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, is_there: bool) {
        self.0.store(is_there, Ordering::SeqCst);
    }
}

/// To the first column, and erases what is there.
pub const ERASE_LINE: &str = "\r\u{1b}[K";
/// For a terminal whose width is unknown.
const DEFAULT_COLUMNS: u16 = 80;

impl<'a> Printer<'a> {
    pub fn new(stop: &'a StopFlag) -> Printer<'a> {
        let live_line = LiveLine::default();
        Printer { stop, reader_keeps_up: true, truncated: false, live_line }
    }

    /// Whether reports go to a terminal.
    pub fn reports_to_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether answers do.
    pub fn answers_to_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// The line that is drawn, for a thread that must erase it when this printer cannot.
    pub fn live_line(&self) -> LiveLine {
        self.live_line.clone()
    }

    /// Draws a line below the reports, in place of the last such one, cut to the terminal's width. It
    /// waits for no reader. Only for a terminal; and not after a signal, since the next one may end the
    /// process with the line still there.
    pub fn draw(&mut self, line: &str) {
        if self.stop.raised().is_some() {
            return;
        }
        let size = tcgetwinsize(io::stderr()).ok().map(|size| size.ws_col);
        let columns = size.filter(|&columns| columns > 0).unwrap_or(DEFAULT_COLUMNS);
        let text = format!("{ERASE_LINE}{}", cut(line, usize::from(columns)));
        let deadline = Deadline::ignoring_signals(Duration::ZERO, self.stop);
        let unwritten = write_within(io::stderr().as_fd(), &text, deadline);
        self.live_line.set(self.live_line.is_there() || unwritten < text.len());
    }

    /// Errors are ignored: whether anybody reads it does not change what is done to the database.
    pub fn answer(&mut self, text: &str) {
        self.erase();
        write_within(io::stdout().as_fd(), text, Deadline::never(self.stop));
    }

    pub fn report(&mut self, text: &str) {
        let wait = if self.reader_keeps_up { READER_WAIT } else { Duration::ZERO };
        self.report_within(text, wait);
    }

    pub fn last_report(&mut self, text: &str) {
        self.report_within(text, READER_WAIT);
    }

    /// Erases the line that was drawn, also where nothing is reported afterwards.
    pub fn erase(&mut self) {
        if self.live_line.is_there() {
            self.report_within("", READER_WAIT);
        }
    }

    fn report_within(&mut self, text: &str, wait: Duration) {
        let has_live_line = self.live_line.is_there();
        let before = match (has_live_line, self.truncated) {
            (true, _) => ERASE_LINE,
            (false, true) => "\n",
            (false, false) => "",
        };
        let text = format!("{before}{text}");
        let deadline = Deadline::ignoring_signals(wait, self.stop);
        let unwritten = write_within(io::stderr().as_fd(), &text, deadline);
        self.live_line.set(has_live_line && unwritten == text.len());
        self.reader_keeps_up = unwritten == 0;
        self.truncated = unwritten > 0 && (self.truncated || unwritten < text.len());
    }
}

/// As much of a line as has room before the last column, at which a terminal may begin a new line. What
/// is not ASCII may take two columns.
fn cut(line: &str, columns: usize) -> &str {
    let mut width = 0;
    let end = line.char_indices().find(|(_, c)| {
        width += if c.is_ascii() { 1 } else { 2 };
        width >= columns
    });
    end.map_or(line, |(end, _)| line.get(..end).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_before_the_last_column_of_the_terminal() {
        for (line, columns, expected) in [
            ("abc", 80, "abc"),
            ("abc", 4, "abc"),
            ("abcd", 4, "abc"),
            ("aé漢d", 5, "aé"),
            ("漢漢", 4, "漢"),
            ("abc", 1, ""),
            ("abc", 0, ""),
            ("", 0, ""),
        ] {
            assert_eq!(cut(line, columns), expected, "{line} {columns}");
        }
    }
}
