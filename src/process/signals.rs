//! Signals and deadlines.
//!
//! Every function that can block takes a [`Deadline`], which ends when the time is up or a signal has
//! come. Handlers only raise a [`StopFlag`]. All cleanup after a signal shares one short deadline.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::{self, pipe};

use super::dispositions;

/// The signals that end a run.
const ENDING_SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The time for all cleanup after a signal, also when the network is gone. Docker kills after ten seconds.
const GRACE: Duration = Duration::from_secs(6);

/// Signals within this time of the first are the same wish to stop: npm, terminals and `timeout` send
/// several.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// What the thread needs that waits for the first signal.
const THREAD_STACK: usize = 64 << 10;

/// A signal that ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// 128 + its number, as in shells.
    pub fn exit_code(self) -> u8 {
        128 + self.0
    }

    pub fn name(self) -> &'static str {
        match i32::from(self.0) {
            SIGHUP => "SIGHUP",
            SIGINT => "SIGINT",
            SIGQUIT => "SIGQUIT",
            _ => "SIGTERM",
        }
    }
}

/// A flag that a signal raises.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    raised: Arc<AtomicUsize>,
    /// The signal that was noticed first, and when.
    noticed: Arc<OnceLock<(Signal, Instant)>>,
    exit: Arc<ImmediateExit>,
}

/// The end of the process by a signal that comes after the first.
#[derive(Debug, Default)]
struct ImmediateExit {
    /// Whether the next signal ends the process in its handler.
    on_next: Arc<AtomicBool>,
    /// The last signal that came since it is armed.
    pending: Arc<AtomicUsize>,
    state: Mutex<ExitState>,
}

#[derive(Debug, Default)]
struct ExitState {
    is_armed: bool,
    /// How many things have to come to their end first.
    delays: usize,
}

impl ImmediateExit {
    /// Lets signals that come from now on end the process.
    fn arm(&self) {
        self.change(|state| {
            if !state.is_armed {
                self.pending.store(0, Ordering::SeqCst);
                state.is_armed = true;
            }
        });
    }

    /// Changes the state, and ends the process if a signal has waited for that.
    fn change(&self, change: impl FnOnce(&mut ExitState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let may_exit = state.is_armed && state.delays == 0;
        self.on_next.store(may_exit, Ordering::SeqCst);
        let pending = self.pending.load(Ordering::SeqCst);
        if may_exit && pending != 0 {
            low_level::exit(128 + i32::try_from(pending).unwrap_or(SIGTERM));
        }
    }
}

/// Delays the end of the process by a further signal until it is dropped. The common grace period ends
/// the process at the latest.
#[derive(Debug)]
pub struct ExitDelay(Arc<ImmediateExit>);

impl Drop for ExitDelay {
    fn drop(&mut self) {
        self.0.change(|state| state.delays = state.delays.saturating_sub(1));
    }
}

impl StopFlag {
    /// Installs handlers for SIGHUP, SIGINT, SIGQUIT and SIGTERM; without one, process 1 would not get
    /// them. The first signal raises the flag. One that comes a second later or more ends the process
    /// immediately and without a report, unless something delays that, and the server rolls back.
    /// `before_exit` runs before one may do so.
    pub fn install_handlers(&self, before_exit: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (mut first, handler) = UnixStream::pair()?;
        for signal in ENDING_SIGNALS.into_iter().filter(|&it| !dispositions::stays_ignored(it)) {
            flag::register_conditional_shutdown(signal, 128 + signal, self.exit.on_next.clone())?;
            flag::register_usize(signal, self.exit.pending.clone(), signal as usize)?;
            flag::register_usize(signal, self.raised.clone(), signal as usize)?;
            pipe::register(signal, handler.try_clone()?)?;
        }
        // Our parent may have blocked them.
        SigSet::empty().thread_set_mask()?;
        // A thread, since the run itself may be busy when the time is up.
        let exit = self.exit.clone();
        let wait = move || {
            if first.read_exact(&mut [0]).is_ok() {
                thread::sleep(ONE_REQUEST);
                before_exit();
                exit.arm();
            }
        };
        thread::Builder::new().stack_size(THREAD_STACK).spawn(wait)?;
        Ok(())
    }

    /// Returns the signal that has come, if any. From now on, a signal ends the process immediately, so
    /// that none is lost between this check and `exec`.
    pub fn exit_on_next_signal(&self) -> Option<Signal> {
        self.exit.arm();
        self.raised()
    }

    /// While the result lives, a further signal does not end the process immediately.
    pub fn delay_exit(&self) -> ExitDelay {
        self.exit.change(|state| state.delays += 1);
        ExitDelay(self.exit.clone())
    }

    #[cfg(test)]
    pub(crate) fn raise(&self, signal: usize) {
        self.raised.store(signal, Ordering::SeqCst);
    }

    /// The signal that has come first, if any.
    pub fn raised(&self) -> Option<Signal> {
        match self.raised.load(Ordering::SeqCst) {
            0 => None,
            number => {
                let signal = Signal(u8::try_from(number).unwrap_or(SIGTERM as u8));
                Some(self.noticed.get_or_init(|| (signal, Instant::now())).0)
            }
        }
    }

    /// When cleanup must end, if a signal has come.
    fn grace(&self) -> Option<Instant> {
        self.raised()?;
        self.noticed.get().and_then(|(_, noticed)| noticed.checked_add(GRACE))
    }
}

/// When a wait ends: at a time, or when a signal comes.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<'a> {
    /// `None` if only a signal ends the wait.
    until: Option<Instant>,
    pub stop: &'a StopFlag,
    /// Whether a signal does not end the wait immediately, but at the end of [`GRACE`].
    ignores_signals: bool,
}

/// Why a wait ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    TimeOut,
    Stopped(Signal),
}

/// A signal is noticed within this time.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl<'a> Deadline<'a> {
    pub fn after(time: Duration, stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { until: Instant::now().checked_add(time), stop, ignores_signals: false }
    }

    /// For cleanup, which goes on after a signal until its time or the common grace period is over.
    pub fn ignoring_signals(time: Duration, stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { ignores_signals: true, ..Deadline::after(time, stop) }
    }

    /// For what may take hours: only a signal ends it.
    pub fn never(stop: &'a StopFlag) -> Deadline<'a> {
        Deadline { until: None, stop, ignores_signals: false }
    }

    /// The earlier of this deadline and `time` from now.
    pub fn at_most(self, time: Duration) -> Deadline<'a> {
        let until = earlier(self.until, Instant::now().checked_add(time));
        Deadline { until, ..self }
    }

    /// The time left; `None` if it is unlimited.
    pub fn remaining(&self) -> Option<Duration> {
        let grace = if self.ignores_signals { self.stop.grace() } else { None };
        let deadline = earlier(self.until, grace)?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Fails if the deadline has passed.
    pub fn check(&self) -> Result<(), Interrupted> {
        if let Some(signal) = self.stop.raised().filter(|_| !self.ignores_signals) {
            return Err(Interrupted::Stopped(signal));
        }
        match self.remaining() {
            Some(Duration::ZERO) => Err(Interrupted::TimeOut),
            _ => Ok(()),
        }
    }

    /// Sleeps for this time, or until the deadline.
    pub fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(POLL_INTERVAL).min(self.remaining().unwrap_or(POLL_INTERVAL)));
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cleanup_after_a_signal_shares_one_deadline() {
        let stop = StopFlag::default();
        let deadline = Deadline::ignoring_signals(GRACE * 2, &stop);
        assert!(deadline.remaining().unwrap() > GRACE);
        stop.raise(SIGTERM as usize);
        assert_eq!(deadline.check(), Ok(()));
        assert!(deadline.remaining().unwrap() <= GRACE);
        thread::sleep(POLL_INTERVAL);
        let later = Deadline::ignoring_signals(GRACE, &stop);
        assert!(later.remaining().unwrap() <= GRACE - POLL_INTERVAL, "{:?}", later.remaining());
        assert_eq!(later.at_most(Duration::ZERO).check(), Err(Interrupted::TimeOut));
    }
}
