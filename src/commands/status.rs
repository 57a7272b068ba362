//! `status`: how each migration stands in the history, and which rows match none. Only reads.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::apply::QUERY_TIMEOUT;
use crate::apply::dry_run;
use crate::apply::error::ApplyError;
use crate::apply::event::{Event, StepsDone};
use crate::apply::load::{self, Loaded};
use crate::apply::resume;
use crate::cli::config::{Operation, Options};
use crate::history::matching::{self, Matches, MigrationStatus, RowStatus};
use crate::history::plan::{self, Pending};
use crate::history::progress::Progress;
use crate::history::table::{History, Row, TableVersion};
use crate::migrations::migration::MigrationSet;
use crate::postgres::session::{QueryError, Session};
use crate::process::signals::{Deadline, StopFlag};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In the order in which they run.
    pub migrations: Vec<MigrationLine>,
    /// Rows that are not the record of a migration, by `id`.
    pub rows: Vec<RowLine>,
    /// Whether `up` would stop before it runs anything (65).
    pub is_refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationLine {
    pub migration: String,
    #[serde(flatten)]
    pub state: MigrationState,
    #[serde(flatten)]
    pub time: AppliedTime,
}

/// When a migration was applied; null if it was not, or if the table does not have the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AppliedTime {
    /// In ISO 8601.
    pub applied_at: Option<String>,
    /// How long ago that was, by the server's clock.
    pub seconds_ago: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MigrationState {
    /// Recorded, with the hash that the file has now.
    Applied,
    /// Recorded with another hash: the file has changed since.
    Edited,
    /// There are rows that could be its record, or that of another migration.
    Ambiguous,
    /// Not recorded, but some of its steps are done.
    Partial(StepsDone),
    /// Not recorded.
    Pending,
    /// Not recorded, while a migration after it is.
    OutOfOrder,
}

impl MigrationState {
    pub fn is_pending(self) -> bool {
        matches!(
            self,
            MigrationState::Partial(_) | MigrationState::Pending | MigrationState::OutOfOrder
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowLine {
    /// Its `id`.
    pub row: i64,
    /// Null where the table has no such column.
    pub name: Option<String>,
    /// In Unix milliseconds.
    pub created_at: Option<i64>,
    pub hash: String,
    pub state: RowState,
    /// How the text names the row.
    #[serde(skip)]
    pub label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// Another row records the same migration.
    Duplicate,
    /// It could be the record of several migrations.
    Ambiguous,
    /// It matches no migration.
    Unknown,
}

/// How many migrations are in which state: the last line of the text, and all there is in JSON
/// where there is neither a migration nor a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub applied: usize,
    pub edited: usize,
    /// With those that are done in part.
    pub pending: usize,
    pub ambiguous: usize,
}

impl Status {
    pub fn counts(&self) -> Counts {
        let count = |is_counted: fn(MigrationState) -> bool| {
            self.migrations.iter().filter(|migration| is_counted(migration.state)).count()
        };
        Counts {
            applied: count(|state| state == MigrationState::Applied),
            edited: count(|state| state == MigrationState::Edited),
            pending: count(MigrationState::is_pending),
            ambiguous: count(|state| state == MigrationState::Ambiguous),
        }
    }

    /// The exit code of `status --exit-code`.
    pub fn exit_code(&self) -> u8 {
        match self.counts() {
            Counts { edited: 0, ambiguous: 0, pending, .. } if !self.is_refused => {
                if pending == 0 {
                    0
                } else {
                    10
                }
            }
            _ => 65,
        }
    }
}

/// Loads what the database knows of these migrations, and finds out what `up` would do with that.
pub fn load(
    set: &MigrationSet,
    up: &Operation,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<Status, ApplyError> {
    let Loaded { session, history, progress, .. } = load::load(options, None, stop, emit)?;
    let times = match history.table_version {
        TableVersion::V1 => applied_times(&session, options, stop)?,
        _ => HashMap::new(),
    };
    let matches = matching::match_rows(set, &history.rows);
    let pending = plan::pending(set, &history.rows, &matches);
    drop(session);
    let progress = match progress {
        _ if pending.is_empty() => Progress::default(),
        // A role that may read the history need not be allowed to read this: without it, a
        // migration that is done in part counts as pending.
        Err(ApplyError::PermissionDenied { .. }) => Progress::default(),
        progress => progress?,
    };
    let (migrations, rows) = lines(set, &history, &matches, &pending, &progress, &times);
    let foreseen =
        dry_run::foresee(up, set, options, history, Ok(progress), &mut |_| {}, &mut |_| {});
    let is_refused = foreseen.is_err_and(|error| error.exit_code() == 65);
    Ok(Status { migrations, rows, is_refused })
}

/// The times by the `id` of their rows. Without them the status is still worth showing.
fn applied_times(
    session: &Session,
    options: &Options,
    stop: &StopFlag,
) -> Result<HashMap<i64, AppliedTime>, ApplyError> {
    let deadline = Deadline::after(QUERY_TIMEOUT, stop);
    let sql = options.target.settings.under_role_sql(&options.table.applied_times_sql());
    let answer = match session.query(&sql, deadline) {
        Ok(answer) => answer,
        Err(QueryError::Stopped(signal)) => return Err(signal.into()),
        Err(_) => return Ok(HashMap::new()),
    };
    let rows = answer.iter().flat_map(|result| &result.rows);
    let times = rows.filter_map(|row| {
        let [id, applied_at, age] = row.as_slice() else { return None };
        let applied_at = applied_at.clone();
        let seconds_ago = age.as_ref().and_then(|age| age.parse().ok());
        Some((id.as_ref()?.parse().ok()?, AppliedTime { applied_at, seconds_ago }))
    });
    Ok(times.collect())
}

fn lines(
    set: &MigrationSet,
    history: &History,
    matches: &Matches,
    pending: &[Pending],
    progress: &Progress,
    times: &HashMap<i64, AppliedTime>,
) -> (Vec<MigrationLine>, Vec<RowLine>) {
    let time_of = |row: usize| times.get(&history.rows.get(row)?.id).cloned();
    let out_of_order = pending.iter().filter(|pending| pending.out_of_order);
    let out_of_order: HashSet<usize> = out_of_order.map(|pending| pending.index).collect();
    let migrations = set.migrations().iter().zip(&matches.migrations).enumerate();
    let migrations = migrations.map(|(index, (migration, status))| {
        let (state, time) = match *status {
            MigrationStatus::Applied(row) => (MigrationState::Applied, time_of(row)),
            MigrationStatus::Edited(row) => (MigrationState::Edited, time_of(row)),
            MigrationStatus::Ambiguous => (MigrationState::Ambiguous, None),
            MigrationStatus::Pending => {
                let state = match resume::reached(migration, progress) {
                    Some(steps_done) => MigrationState::Partial(steps_done),
                    None if out_of_order.contains(&index) => MigrationState::OutOfOrder,
                    None => MigrationState::Pending,
                };
                (state, None)
            }
        };
        MigrationLine { migration: migration.name.clone(), state, time: time.unwrap_or_default() }
    });
    let rows = history.rows.iter().zip(&matches.rows);
    let rows = rows.filter_map(|(row, status)| row_line(row, status));
    (migrations.collect(), rows.collect())
}

fn row_line(row: &Row, status: &RowStatus) -> Option<RowLine> {
    let state = match status {
        RowStatus::Matched(_) => return None,
        RowStatus::Duplicate(_) => RowState::Duplicate,
        RowStatus::Ambiguous => RowState::Ambiguous,
        RowStatus::Unknown => RowState::Unknown,
    };
    Some(RowLine {
        row: row.id,
        name: row.name.clone(),
        created_at: row.created_at,
        hash: row.hash.clone(),
        state,
        label: row.to_string(),
    })
}
