//! Being told to stop, and how long a wait may last.
//!
//! Every function that can block takes a [`Deadline`]: it ends when the time is up or when a
//! signal has come. The handlers only raise a flag; what to do is decided where it is looked at.
//! What has to be done after a signal too, shares one short time.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

/// The signals that end a run.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// How long all that is done after a signal may take together, on a dead link too: Docker gives ten
/// seconds from the signal to the end.
const GRACE: Duration = Duration::from_secs(6);

/// A signal that asks us to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// What a shell reports of a process that this signal ended: 128 + its number.
    pub fn exit_code(self) -> u8 {
        128 + self.0
    }

    /// `SIGTERM`, ...
    pub fn name(self) -> &'static str {
        match i32::from(self.0) {
            SIGHUP => "SIGHUP",
            SIGINT => "SIGINT",
            SIGQUIT => "SIGQUIT",
            _ => "SIGTERM",
        }
    }
}

/// The flag that a signal raises.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    raised: Arc<AtomicUsize>,
    /// When it was first found raised.
    noticed: Arc<OnceLock<Instant>>,
    /// Whether the next signal ends the process at once.
    exit_on_next: Arc<AtomicBool>,
}

impl StopFlag {
    /// From now on SIGHUP, SIGINT, SIGQUIT and SIGTERM raise it, also for process 1, for which the
    /// kernel would ignore them. A second signal ends the process at once; the server then rolls
    /// back by itself.
    pub fn listen(&self) -> io::Result<()> {
        for signal in ENDING {
            // In this order: the first signal finds `exit_on_next` down, and then raises it.
            flag::register_conditional_shutdown(signal, 128 + signal, self.exit_on_next.clone())?;
            flag::register(signal, self.exit_on_next.clone())?;
            flag::register_usize(signal, self.raised.clone(), signal as usize)?;
        }
        // Whoever started us may have blocked them.
        SigSet::empty().thread_set_mask()?;
        Ok(())
    }

    /// The signal that has come, if one has; from now on, one ends the process at once. So none is
    /// lost between the last look and the app.
    pub fn arm_immediate_exit(&self) -> Option<Signal> {
        self.exit_on_next.store(true, Ordering::SeqCst);
        self.raised()
    }

    #[cfg(test)]
    pub(crate) fn raise(&self, signal: usize) {
        self.raised.store(signal, Ordering::SeqCst);
    }

    /// The signal that has come, if one has.
    pub fn raised(&self) -> Option<Signal> {
        match self.raised.load(Ordering::SeqCst) {
            0 => None,
            number => {
                self.noticed.get_or_init(Instant::now);
                Some(Signal(u8::try_from(number).unwrap_or(SIGTERM as u8)))
            }
        }
    }

    /// When everything has to have ended, once a signal has come.
    fn grace(&self) -> Option<Instant> {
        self.raised()?;
        self.noticed.get().and_then(|noticed| noticed.checked_add(GRACE))
    }
}

/// How long to wait, and what may end the wait early.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<'a> {
    /// When it ends; without one, only a signal ends it.
    until: Option<Instant>,
    /// What ends it early.
    pub stop: &'a StopFlag,
    /// Whether a signal ends it not at once, but when its grace is over.
    ignores_signals: bool,
}

/// Why a wait ended before what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The time was up.
    TimeOut,
    /// A signal came.
    Stopped(Signal),
}

/// How late, at most, a signal is noticed.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl<'a> Deadline<'a> {
    /// To the end of this time from now.
    pub fn after(time: Duration, stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { until: Instant::now().checked_add(time), stop, ignores_signals: false }
    }

    /// The same for what has to be done after a signal too: that ends it only when the time is up
    /// that is left to all of it.
    pub fn ignoring_signals(time: Duration, stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { ignores_signals: true, ..Deadline::after(time, stop) }
    }

    /// Until it is done: for what a user may let run for hours.
    pub fn never(stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { until: None, stop, ignores_signals: false }
    }

    /// No longer than this time from now, and no longer than before.
    pub fn at_latest_in(self, time: Duration) -> Deadline<'a> {
        let until = earlier(self.until, Instant::now().checked_add(time));
        Deadline { until, ..self }
    }

    /// What is left of it; `None` is for ever.
    pub fn remaining(&self) -> Option<Duration> {
        let grace = if self.ignores_signals { self.stop.grace() } else { None };
        let deadline = earlier(self.until, grace)?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether it has ended, and why.
    pub fn check(&self) -> Result<(), Interrupted> {
        if let Some(signal) = self.stop.raised().filter(|_| !self.ignores_signals) {
            return Err(Interrupted::Stopped(signal));
        }
        match self.remaining() {
            Some(Duration::ZERO) => Err(Interrupted::TimeOut),
            _ => Ok(()),
        }
    }

    /// Sleeps for this time, or until it ends.
    pub fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            std::thread::sleep(
                rest.min(POLL_INTERVAL).min(self.remaining().unwrap_or(POLL_INTERVAL)),
            );
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ignores_signals_after_a_signal_shares_one_time() {
        let stop = StopFlag::default();
        let deadline = Deadline::ignoring_signals(GRACE * 2, &stop);
        assert!(deadline.remaining().unwrap() > GRACE);
        stop.raise(SIGTERM as usize);
        assert_eq!(deadline.check(), Ok(()));
        assert!(deadline.remaining().unwrap() <= GRACE);
        std::thread::sleep(POLL_INTERVAL);
        let later = Deadline::ignoring_signals(GRACE, &stop);
        assert!(later.remaining().unwrap() <= GRACE - POLL_INTERVAL, "{:?}", later.remaining());
        assert_eq!(later.at_latest_in(Duration::ZERO).check(), Err(Interrupted::TimeOut));
    }
}
