//! What the database holds as far as we know, and how a commit of ours changes that. Nothing else
//! changes it.

use crate::history::progress::{Progress, ProgressChange, Record};
use crate::history::table::History;
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
    /// The number of rows that the history had when a guard last compared it with the database, in full
    /// or from an earlier such guard on, while nobody else was writing. Later rows have higher ids, so
    /// the next guard begins with the last of these, and a migration costs the same however long the
    /// history is.
    pub(super) compared: Option<usize>,
    /// Whether the history has to be loaded again, since an upgrade has changed its rows.
    pub(super) needs_reload: bool,
    /// Whether it was read through a pooler.
    pub(super) is_pooled: bool,
}

impl DatabaseState {
    /// As it was read.
    pub(super) fn new(history: History, progress: Progress, is_pooled: bool) -> DatabaseState {
        DatabaseState {
            history,
            progress,
            row_names: Vec::new(),
            compared: None,
            needs_reload: false,
            is_pooled,
        }
    }

    /// Updates the state after the server has committed that a statement outside a transaction begins.
    pub(super) fn statement_started(&mut self, change: &ProgressChange) {
        self.progress.set_changed(change);
    }

    /// Updates the state after the server has committed this transaction. `returned` is what the
    /// statement that wrote the row returned: without it, where a rule keeps the row from us, the
    /// history has to be loaded again, as it has after several rows.
    pub(super) fn committed(
        &mut self,
        spec: &TransactionSpec<'_>,
        layout: Layout,
        returned: &[Option<String>],
    ) -> Result<(), Setback> {
        self.compared = Some(self.history.rows.len());
        if spec.creates_progress {
            self.progress = Progress::of_records(true, []);
        }
        if !spec.upgrade.is_empty() {
            self.history.set_upgraded(layout, &self.row_names);
            self.needs_reload = self.history.needs_reload();
        }
        match &spec.progress {
            Some(ProgressChange::Finish { record, saved_settings })
                if !saved_settings.is_empty() =>
            {
                let settings = returned.first().and_then(Option::as_deref);
                let settings = settings.and_then(|json| serde_json::from_str(json).ok());
                let settings = Some(settings.ok_or(Setback::HistoryChanged)?);
                let record = Record { settings, ..record.clone() };
                let saved_settings = Vec::new();
                self.progress.set_changed(&ProgressChange::Finish { record, saved_settings });
            }
            Some(change) => self.progress.set_changed(change),
            None => {}
        }
        match spec.rows.as_slice() {
            [] => Ok(()),
            [row] => {
                let written = row.written(returned, self.history.table_version);
                self.history.rows.push(written.ok_or(Setback::HistoryChanged)?);
                Ok(())
            }
            _ => Err(Setback::HistoryChanged),
        }
    }
}
