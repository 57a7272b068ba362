//! What a session is set to before a statement outside any transaction.

use crate::history::progress::Progress;
use crate::postgres::conninfo::ServerSetting;
use crate::postgres::server_settings;
use crate::postgres::session::{ConnectionError, QueryError, Session};
use crate::process::signals::Deadline;
use crate::sql::{Kind, LineColumn, Piece, Statement, redact};

use super::error::ApplyError;
use super::event::{Event, StepNumber};
use super::interrupt::{Interrupt, query_failed};
use super::lock_session::{SECOND_SESSION_TIMEOUT, no_second_connection};
use super::stretch::Next;
use super::transaction::{self, StepRef};
use super::{QUERY_TIMEOUT, Runner};

/// What is asked of the session about its settings, only where it matters and only once.
pub(super) struct SettingsCheck<'a> {
    session: &'a Session,
    progress: &'a Progress,
    is_direct: Option<bool>,
    differing: Option<Vec<ServerSetting>>,
}

impl<'a> SettingsCheck<'a> {
    pub(super) fn new(session: &'a Session, progress: &'a Progress) -> SettingsCheck<'a> {
        SettingsCheck { session, progress, is_direct: None, differing: None }
    }
}

impl Runner<'_> {
    /// Checks that no statement of a pending migration needs settings that a pooler would lose, and
    /// that the file resets no setting of the connection string to the server's own.
    pub(super) fn check_settings(
        &self,
        next: Next<'_>,
        check: &mut SettingsCheck<'_>,
    ) -> Result<(), Interrupt> {
        let Next { migration, prepared, .. } = next;
        let (script, steps) = (&prepared.script, &prepared.steps);
        let of = steps.count();
        for (number, step) in (1..).zip(steps.all()).skip(prepared.done) {
            let number = StepNumber { step: number, of };
            let step = StepRef { migration, script, steps, step, number };
            let resets = resets(step);
            let is_outside = step.step.outside_transaction.is_some();
            if resets.is_empty() && !is_outside {
                continue;
            }
            let differing = match &check.differing {
                Some(differing) => differing,
                None => check.differing.insert(self.differing_settings(check.session, step)?),
            };
            if let Some(error) = lost_by_reset(step, &resets, differing) {
                return Err(error.into());
            }
            let needed = needed_settings(step, check.progress, differing);
            if !is_outside || needed.is_empty() {
                continue;
            }
            let is_direct = match check.is_direct {
                Some(is_direct) => is_direct,
                None => *check.is_direct.insert(self.is_direct(check.session, step)?),
            };
            if !is_direct {
                return Err(lost_in_pooler(step, needed).into());
            }
        }
        Ok(())
    }

    /// Sets the time limits, and replays the settings of earlier steps: the statement runs under
    /// them, and what its names mean depends on them. Behind a pooler no setting reaches the
    /// statement, nor goes away after it.
    pub(super) fn apply_session_settings(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        if self.is_direct(session, step)? {
            self.settings_left = true;
            return self.set(session, step, &step.replay(progress));
        }
        let differing = self.differing_settings(session, step)?;
        let needed = needed_settings(step, progress, &differing);
        if !needed.is_empty() {
            return Err(lost_in_pooler(step, needed).into());
        }
        if !self.pooler_noted {
            self.pooler_noted = true;
            (self.emit)(Event::NoTimeLimits);
        }
        Ok(())
    }

    /// Whether the session has a backend of its own, and not one of a pooler's.
    fn is_direct(&self, session: &Session, step: StepRef<'_>) -> Result<bool, Interrupt> {
        let deadline = Deadline::after(SECOND_SESSION_TIMEOUT, self.stop);
        match session.query_row("select pg_catalog.pg_backend_pid()", deadline) {
            Ok(row) => {
                let pid = row.and_then(|row| row.into_iter().next().flatten());
                Ok(pid == Some(session.handshake_pid().to_string()))
            }
            Err(end @ QueryError::Client(ConnectionError::TimedOut)) => {
                Err(no_second_connection(step, end).into())
            }
            Err(error) => Err(query_failed(step, error)),
        }
    }

    /// The settings of the connection string that the session does not have by itself.
    fn differing_settings(
        &self,
        session: &Session,
        step: StepRef<'_>,
    ) -> Result<Vec<ServerSetting>, Interrupt> {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        let settings = &self.options.target.settings;
        let differing = server_settings::differing(session, settings, deadline);
        differing.map_err(|error| query_failed(step, error))
    }

    fn set(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        replay: &[Piece<'_>],
    ) -> Result<(), Interrupt> {
        let timeouts = self.timeouts(session);
        let deadline = || Deadline::after(QUERY_TIMEOUT, self.stop);
        let statement = step.standalone().map(|statement| statement.text).unwrap_or_default();
        for sql in transaction::session_timeouts_sql(&timeouts, statement) {
            match session.query_row(&sql, deadline()) {
                Ok(_) => {}
                Err(QueryError::Server(error)) if transaction::is_unsupported(&error) => {}
                Err(error) => return Err(query_failed(step, error)),
            }
        }
        for sql in transaction::session_settings_sql(&timeouts, statement) {
            let set = session.query_row(&sql, deadline());
            set.map_err(|error| query_failed(step, error))?;
        }
        for setting in replay {
            match session.query_row(&setting.text, deadline()) {
                Ok(_) => {}
                Err(QueryError::Server(error)) => {
                    let failure = transaction::replay_failure(step, setting, &error);
                    return Err(ApplyError::Failed(Box::new(failure)).into());
                }
                Err(error) => return Err(query_failed(step, error)),
            }
        }
        Ok(())
    }
}

/// The settings that a statement cannot do without: all but time limits, message levels, and what
/// only code reads.
fn needed_settings(
    step: StepRef<'_>,
    progress: &Progress,
    differing: &[ServerSetting],
) -> Vec<String> {
    let runs_code = step.standalone().is_some_and(|statement| statement.kind == Kind::Plain);
    let is_harmless = |name: &str| {
        name.ends_with("_timeout")
            || name.ends_with("_messages")
            || (name.contains('.') && !runs_code)
    };
    let saved = progress.saved_settings(&step.migration.name);
    let changed = step.steps.changed_settings(step.script, step.step, saved);
    let of_file = changed.into_iter().filter(|(name, _)| !name.as_deref().is_some_and(is_harmless));
    // A value that was computed may be a secret, and stands nowhere in the file.
    let shown = |(name, piece): (Option<String>, Piece<'_>)| match name {
        Some(name) if saved.is_some_and(|saved| saved.values.contains_key(&name)) => name,
        _ => redact::sql(&piece.text).into_owned(),
    };
    let of_file = of_file.map(shown);
    let others = differing.iter().filter(|setting| !is_harmless(&setting.name));
    of_file.chain(others.map(|setting| setting.origin.clone())).collect()
}

fn lost_in_pooler(step: StepRef<'_>, settings: Vec<String>) -> ApplyError {
    ApplyError::PooledSettings { migration: step.migration.name.clone(), settings }
}

/// The statements of a step that give settings the server's own values, with the settings' names.
fn resets<'a>(step: StepRef<'a>) -> Vec<(Statement<'a>, String)> {
    let statements = step.script.statements().range(step.step.statements.clone());
    let resets = statements.iter().filter_map(|statement| {
        let set = statement.set_statement().filter(|set| set.resets)?;
        // NONE is a value.
        let is_none = statement.text.to_ascii_lowercase().ends_with("none");
        (!is_none).then_some((statement, set.name))
    });
    resets.collect()
}

fn lost_by_reset(
    step: StepRef<'_>,
    resets: &[(Statement<'_>, String)],
    differing: &[ServerSetting],
) -> Option<ApplyError> {
    let lost = resets.iter().find_map(|(statement, name)| {
        let setting = differing.iter().find(|setting| name == "all" || setting.name == *name)?;
        Some((statement, setting))
    });
    let (statement, setting) = lost?;
    let text = step.script.text();
    Some(ApplyError::SettingReset {
        file: step.migration.file.clone(),
        position: Some(LineColumn::at(text, statement.start)),
        setting: setting.name.clone(),
        origin: setting.origin.clone(),
    })
}
