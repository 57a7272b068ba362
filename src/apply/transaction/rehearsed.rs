//! A transaction as a part of a longer one, which is rolled back. Pure.

use crate::apply::rehearse::trace::Deferrable;
use crate::postgres::session::Message;

use super::{StatementRole, Transaction, joined};

impl Transaction<'_> {
    /// Makes it a part of the transaction that is open, whose beginning had the lock and the guards.
    pub(in crate::apply) fn continued(mut self) -> Self {
        self.opening.retain(|(role, _)| {
            use StatementRole::{ProgressTable, ServerSetting, Setting};
            matches!(role, ServerSetting | Setting(_) | ProgressTable)
        });
        self.begin = joined(&self.opening);
        self
    }

    /// What stands before its step.
    pub(in crate::apply) fn opening(&self) -> Message<'_> {
        self.begin.as_str().into()
    }

    /// Has its end check these constraints, and leave them to the next part as a new transaction finds
    /// them: `SET CONSTRAINTS ALL` would hold on.
    pub(in crate::apply) fn checks(&mut self, constraints: &Deferrable) {
        self.closing.retain_mut(|(role, sql)| {
            if *role == StatementRole::Deferred {
                *sql = format!("set constraints {} immediate", constraints.all.join(", "));
            }
            *role != StatementRole::Deferred || !constraints.all.is_empty()
        });
        if !constraints.initially.is_empty() {
            let again = format!("set constraints {} deferred", constraints.initially.join(", "));
            self.closing.push((StatementRole::Reset, again));
        }
        self.end = joined(&self.closing);
    }

    /// What stands behind its step.
    pub(in crate::apply) fn closing(&self) -> Message<'_> {
        self.end.as_str().into()
    }
}
