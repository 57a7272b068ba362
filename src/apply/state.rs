//! What the database holds as far as we know, and the one place where a commit changes that.

use crate::history::progress::{self, Progress, Record};
use crate::history::table::{History, Table};
use crate::migrations::migration::Layout;

use super::interrupt::Setback;
use super::transaction::TransactionSpec;

/// The history and the progress, as they were read and as our own transactions have changed them
/// since. The guards of each transaction prove that it is still true.
pub(super) struct DatabaseState {
    pub(super) history: History,
    pub(super) progress: Progress,
    /// The names that the history's rows get if its table has to be upgraded.
    pub(super) row_names: Vec<Option<String>>,
}

/// A write to the progress table.
#[derive(Clone, Debug)]
pub(super) enum ProgressChange {
    /// The step's statement begins. The SQL identifies what it is about, for a later run.
    Begin {
        migration: String,
        step: usize,
        hash: String,
        identifying_sql: Option<String>,
        session_pid: i32,
    },
    /// This step is done.
    Finish { migration: String, step: usize, hash: String },
    /// The statement that had begun is done.
    FinishBegun { migration: String, step: usize, hash: String },
    /// The statement that had begun did nothing.
    ForgetBegun { migration: String, step: usize },
    /// These migrations are in the history now.
    Close { migrations: Vec<String> },
}

impl ProgressChange {
    pub(super) fn sql(&self, table: &Table, progress: &Progress) -> Option<String> {
        match self {
            ProgressChange::Begin { migration, step, hash, identifying_sql, session_pid } => {
                let statement = identifying_sql.as_deref();
                Some(progress::begin_sql(table, migration, *step, hash, statement, *session_pid))
            }
            ProgressChange::Finish { migration, step, hash } => {
                Some(progress::finish_sql(table, migration, *step, hash))
            }
            ProgressChange::FinishBegun { migration, step, .. } => {
                Some(progress::finish_begun_sql(table, migration, *step))
            }
            ProgressChange::ForgetBegun { migration, step } => {
                Some(progress::forget_begun_sql(table, migration, *step))
            }
            ProgressChange::Close { migrations } => progress.close(table, migrations),
        }
    }
}

impl DatabaseState {
    /// Updates the state after the server has committed this transaction. `returned` is what the
    /// statement that wrote the row gave back: without it, where a rule keeps the row from us, the
    /// history has to be loaded again, as it has after several rows.
    pub(super) fn committed(
        &mut self,
        spec: &TransactionSpec<'_>,
        layout: Layout,
        returned: &[Option<String>],
    ) -> Result<(), Setback> {
        if spec.creates_progress {
            self.progress = Progress { exists: true, owned: true, records: Vec::new() };
        }
        if !spec.upgrade.is_empty() {
            self.history.after_upgrade(layout, &self.row_names);
        }
        if let Some(change) = &spec.progress {
            self.progress_changed(change);
        }
        match spec.rows.as_slice() {
            [] => Ok(()),
            [row] => {
                let written = row.written(returned, self.history.state);
                self.history.rows.push(written.ok_or(Setback::HistoryChanged)?);
                Ok(())
            }
            _ => Err(Setback::HistoryChanged),
        }
    }

    /// Updates the state after this write to the progress table was committed.
    pub(super) fn progress_changed(&mut self, change: &ProgressChange) {
        match change {
            ProgressChange::Begin { migration, step, hash, identifying_sql, .. } => {
                let statement = identifying_sql.clone();
                let finished = Record::finished(migration, *step, hash);
                let record = Record { finished: false, statement, ..finished };
                self.progress.put(migration, *step, Some(record));
            }
            ProgressChange::Finish { migration, step, hash }
            | ProgressChange::FinishBegun { migration, step, hash } => {
                let record = Record::finished(migration, *step, hash);
                self.progress.put(migration, *step, Some(record));
            }
            ProgressChange::ForgetBegun { migration, step } => {
                self.progress.put(migration, *step, None);
            }
            ProgressChange::Close { migrations } => self.progress.closed(migrations),
        }
    }
}
