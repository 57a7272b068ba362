//! What a run is doing, as it follows from the events so far. Pure.

use std::time::Instant;

use serde::Serialize;

use crate::apply::event::{Blocker, Event, Holder, RetryReason, StepNumber, Unprinted};
use crate::postgres::session::Attempt;

/// What a run is doing, and what it has done.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) activity: Activity,
    /// Since when it does that.
    pub(super) since: Instant,
    /// The migration that is being applied, and since when.
    pub(super) migration: Option<(String, Instant)>,
    /// `None` until the history was read.
    pub(super) applied: Option<usize>,
    pub(super) pending: Option<usize>,
    pub(super) retries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Activity {
    /// Reading the files or the history, or between two migrations.
    Preparing,
    WaitingForDatabase {
        attempts: Vec<Attempt>,
    },
    /// The server is a standby.
    WaitingForPrimary,
    WaitingForRunner {
        /// `None` if our role cannot see it.
        holder: Option<Holder>,
    },
    /// A backend still runs a statement of an earlier attempt.
    WaitingForBackend {
        migration: String,
        pid: String,
    },
    /// `wait`: others are to apply these.
    WaitingForMigrations {
        migrations: Vec<String>,
        holder: Option<Holder>,
    },
    Applying {
        migration: String,
        #[serde(flatten)]
        step: StepNumber,
        /// The session for whose lock it waits.
        blocker: Option<Blocker>,
    },
    /// A step is sent again after a pause.
    Retrying {
        /// `None` while only rows are written.
        migration: Option<String>,
        #[serde(flatten)]
        reason: RetryReason,
        attempt: u32,
    },
}

impl Activity {
    /// What it waits for, if it does: the value of a label, and a word of the JSON's state.
    pub(super) fn waits_for(&self) -> Option<&'static str> {
        match self {
            Activity::WaitingForDatabase { .. } => Some("database"),
            Activity::WaitingForPrimary => Some("primary"),
            Activity::WaitingForRunner { .. } => Some("runner"),
            Activity::WaitingForBackend { .. } => Some("backend"),
            Activity::WaitingForMigrations { .. } => Some("migrations"),
            Activity::Applying { blocker: Some(_), .. }
            | Activity::Retrying { reason: RetryReason::Lock { .. }, .. } => Some("lock"),
            Activity::Retrying { reason: RetryReason::ConnectionLost { .. }, .. } => {
                Some("database")
            }
            Activity::Applying { blocker: None, .. } | Activity::Preparing => None,
        }
    }

    /// Whether it goes on with what the other was: only details differ.
    fn continues(&self, other: &Activity) -> bool {
        use Activity::{Applying, Retrying};
        match (self, other) {
            (Applying { migration, step, .. }, Applying { migration: name, step: number, .. }) => {
                migration == name && step == number
            }
            (Retrying { migration, .. }, Retrying { migration: name, .. }) => migration == name,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl State {
    pub fn new(now: Instant) -> State {
        State {
            activity: Activity::Preparing,
            since: now,
            migration: None,
            applied: None,
            pending: None,
            retries: 0,
        }
    }

    /// Takes in what has happened.
    pub fn update(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Waiting { attempts, .. } => {
                self.set(Activity::WaitingForDatabase { attempts: attempts.clone() }, now);
            }
            Event::WaitingToCreate { cause, .. } => {
                let attempts = vec![Attempt::at_query(cause.clone())];
                self.set(Activity::WaitingForDatabase { attempts }, now);
            }
            Event::LookingForPrimary | Event::WaitingForPrimary { .. } => {
                self.set(Activity::WaitingForPrimary, now);
            }
            Event::LockedOut { holder, .. } => {
                self.migration = None;
                self.set(Activity::WaitingForRunner { holder: holder.session().cloned() }, now);
            }
            Event::BackendRuns { migration, pid, .. } | Event::EndingBackend { migration, pid } => {
                let (migration, pid) = (migration.clone(), pid.clone());
                self.set(Activity::WaitingForBackend { migration, pid }, now);
            }
            Event::WaitingForMigrations { migrations, holder, .. } => {
                self.pending = Some(migrations.len());
                self.migration = None;
                let (migrations, holder) = (migrations.clone(), holder.clone());
                self.set(Activity::WaitingForMigrations { migrations, holder }, now);
            }
            Event::Retrying { migration, reason, attempt, .. } => {
                self.retries += 1;
                let mut reason = reason.clone();
                if let RetryReason::Lock { blocker, .. } = &mut reason {
                    *blocker = blocker.as_ref().map(without_query);
                }
                let (migration, attempt) = (migration.clone(), *attempt);
                self.set(Activity::Retrying { migration, reason, attempt }, now);
            }
            Event::Blocked { blocker: seen, .. } => {
                if let Activity::Applying { blocker, .. } = &mut self.activity {
                    *blocker = Some(without_query(seen));
                }
            }
            Event::Applied(_) => {
                self.applied = self.applied.map(|applied| applied + 1);
                self.pending = self.pending.map(|pending| pending.saturating_sub(1));
                self.migration = None;
                self.set(Activity::Preparing, now);
            }
            Event::Recorded { .. } => self.set(Activity::Preparing, now),
            Event::Repeated(event) => self.update(event, now),
            Event::Unprinted(event) => self.unprinted(event, now),
            _ => {}
        }
    }

    fn unprinted(&mut self, event: &Unprinted, now: Instant) {
        match event {
            Unprinted::HistoryRead { applied, pending } => {
                (self.applied, self.pending) = (Some(*applied), Some(*pending));
                let waited = matches!(
                    self.activity,
                    Activity::WaitingForDatabase { .. } | Activity::WaitingForPrimary
                );
                if waited {
                    self.set(Activity::Preparing, now);
                }
            }
            Unprinted::Step { migration, step, has_lock } => {
                let may_be_locked_out = matches!(
                    self.activity,
                    Activity::WaitingForRunner { .. } | Activity::WaitingForBackend { .. }
                );
                if may_be_locked_out && !has_lock {
                    return;
                }
                if self.migration.as_ref().is_none_or(|(name, _)| name != migration) {
                    self.migration = Some((migration.clone(), now));
                }
                let applying =
                    Activity::Applying { migration: migration.clone(), step: *step, blocker: None };
                if !self.activity.continues(&applying) {
                    self.set(applying, now);
                }
            }
            Unprinted::Unblocked => {
                if let Activity::Applying { blocker, .. } = &mut self.activity {
                    *blocker = None;
                }
            }
        }
    }

    fn set(&mut self, activity: Activity, now: Instant) {
        if !self.activity.continues(&activity) {
            self.since = now;
        }
        self.activity = activity;
    }
}

/// A blocker without its query, which may contain values: every client that reaches the port can read this.
fn without_query(blocker: &Blocker) -> Blocker {
    Blocker { query: None, ..blocker.clone() }
}
