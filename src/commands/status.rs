//! How history and carried set stand to each other, for people and for deployments to look at.
//! Reads only.

use std::collections::HashMap;
use std::time::Duration;

use crate::apply::error::ApplyError;
use crate::apply::event::{Event, StepsDone};
use crate::apply::load;
use crate::apply::resume;
use crate::cli::config::Options;
use crate::history::plan::{self, Matches, MigrationStatus, Pending, RowStatus};
use crate::history::progress::Progress;
use crate::history::table::{self, History, Row};
use crate::migrations::migration::MigrationSet;
use crate::postgres::session::{QueryError, ResultSet};
use crate::process::signals::{Deadline, StopFlag};

/// How one carried migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// Recorded as it is.
    Applied,
    /// Recorded, and changed since.
    Edited,
    /// Recorded, or not: the history can be read in more than one way.
    Ambiguous,
    /// Not recorded, and done in part: so many units of so many.
    Partial(StepsDone),
    /// Not recorded.
    Pending,
    /// Not recorded, while something that comes after it is.
    OutOfOrder,
}

impl MigrationState {
    /// Whether it is not recorded, however much of it is done.
    pub fn is_pending(self) -> bool {
        matches!(
            self,
            MigrationState::Partial(_) | MigrationState::Pending | MigrationState::OutOfOrder
        )
    }
}

/// One line of a status: a carried migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub migration: String,
    /// How it stands.
    pub state: MigrationState,
    /// When it was applied, where the table knows.
    pub applied_at: Option<String>,
    /// How long ago that is.
    pub ago: Option<Duration>,
}

/// Everything there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The carried migrations, in order.
    pub lines: Vec<Line>,
    /// Rows that record a migration once more.
    pub duplicates: Vec<String>,
    /// Rows that could be the record of several migrations.
    pub ambiguous: Vec<String>,
    /// Rows of which nothing carried knows.
    pub unknown: Vec<String>,
}

impl Status {
    /// Whether there is neither a migration nor a row.
    pub fn is_empty(&self) -> bool {
        let rows = [&self.duplicates, &self.ambiguous, &self.unknown];
        self.lines.is_empty() && rows.iter().all(|rows| rows.is_empty())
    }

    /// The exit code of `status --exit-code`.
    pub fn exit_code(&self) -> u8 {
        let any =
            |state: fn(MigrationState) -> bool| self.lines.iter().any(|line| state(line.state));
        if any(|state| matches!(state, MigrationState::Edited | MigrationState::Ambiguous)) {
            65
        } else if any(MigrationState::is_pending) {
            10
        } else {
            0
        }
    }
}

/// Looks.
pub fn look(
    set: &MigrationSet,
    settings: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<Status, ApplyError> {
    let (session, mut history) = load::history(settings, stop, emit)?;
    let mut ages = HashMap::new();
    if history.state == table::TableVersion::V1 {
        let deadline = Deadline::after(Duration::from_secs(30), stop);
        match session.query(&settings.table.times_sql(), deadline) {
            Ok(answer) => ages = set_times(&mut history, &answer),
            Err(QueryError::Stopped(signal)) => {
                return Err(ApplyError::from(signal));
            }
            // When it was is a courtesy.
            Err(_) => {}
        }
    }
    let matches = plan::match_rows(set, &history.rows);
    let pending = plan::pending(set, &history.rows, &matches);
    let progress = match pending.is_empty() {
        true => Progress::default(),
        // Who may read the history may not see this: then it is not known, and no fault.
        false => match load::progress(&session, &history, settings, stop, emit) {
            Err(ApplyError::PermissionDenied { .. }) => Progress::default(),
            progress => progress?,
        },
    };
    session.close();
    Ok(status(set, &history, &matches, &pending, &progress, &ages))
}

fn status(
    set: &MigrationSet,
    history: &History,
    matches: &Matches,
    pending: &[Pending],
    progress: &Progress,
    ages: &HashMap<i64, Duration>,
) -> Status {
    let row_of = |standing: &MigrationStatus| match standing {
        MigrationStatus::Applied(row) | MigrationStatus::Edited(row) => history.rows.get(*row),
        MigrationStatus::Ambiguous | MigrationStatus::Pending => None,
    };
    let lines = set.migrations().iter().zip(&matches.migrations).enumerate();
    let lines = lines.map(|(place, (migration, standing))| {
        let row = row_of(standing);
        let out_of_order = || pending.iter().any(|it| it.place == place && it.out_of_order);
        Line {
            migration: migration.name.clone(),
            state: match standing {
                MigrationStatus::Applied(_) => MigrationState::Applied,
                MigrationStatus::Edited(_) => MigrationState::Edited,
                MigrationStatus::Ambiguous => MigrationState::Ambiguous,
                MigrationStatus::Pending => match resume::reached(migration, set, progress) {
                    Some(reached) => MigrationState::Partial(reached),
                    None if out_of_order() => MigrationState::OutOfOrder,
                    None => MigrationState::Pending,
                },
            },
            applied_at: row.and_then(|row| row.applied_at.clone()),
            ago: row.and_then(|row| ages.get(&row.id).copied()),
        }
    });
    let rows = |wanted: fn(&RowStatus) -> bool| {
        let all = history.rows.iter().zip(&matches.rows);
        all.filter(|(_, standing)| wanted(standing)).map(|(row, _)| Row::to_string(row)).collect()
    };
    Status {
        lines: lines.collect(),
        duplicates: rows(|standing| matches!(standing, RowStatus::Duplicate(_))),
        ambiguous: rows(|standing| *standing == RowStatus::Ambiguous),
        unknown: rows(|standing| *standing == RowStatus::Unknown),
    }
}

/// Understands the answer to [`table::Table::times`]: sets when the rows were applied, and tells
/// how long ago that is.
fn set_times(history: &mut History, answer: &[ResultSet]) -> HashMap<i64, Duration> {
    let (mut times, mut ages) = (HashMap::new(), HashMap::new());
    for row in answer.iter().flat_map(|answer| &answer.rows) {
        let [Some(id), at, ago] = row.as_slice() else { continue };
        let Ok(id) = id.parse::<i64>() else { continue };
        times.insert(id, at);
        let seconds = ago.as_deref().and_then(|ago| ago.parse().ok());
        if let Some(ago) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            ages.insert(id, ago);
        }
    }
    for row in &mut history.rows {
        row.applied_at = times.get(&row.id).and_then(|&at| at.clone());
    }
    ages
}
