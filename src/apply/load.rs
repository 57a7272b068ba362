//! What the database knows: the history, and the progress of split migrations, read without a lock.

use std::time::Duration;

use crate::cli::config::Options;
use crate::history::progress::{self, Progress};
use crate::history::table::{History, Table, TableProblem, TableVersion};
use crate::postgres::result::ResultSet;
use crate::postgres::server_error::ServerError;
use crate::postgres::server_settings;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Session};
use crate::postgres::wait::{self, ConnectError, WaitLimits};
use crate::process::signals::{Deadline, StopFlag};

use super::error::ApplyError;
use super::event::Event;

/// A session, and what was read in it.
pub struct Loaded {
    pub session: Session,
    pub history: History,
    /// Matters only to those who change something, or report how far something is.
    pub progress: Result<Progress, ApplyError>,
    /// Whether the backend is one of a pooler's.
    pub is_pooled: bool,
}

/// Connects, and reads the history and the progress: one round trip where there is a history and no
/// progress. A free connection is waited for as long as the server is, or as `slot_wait` says.
pub fn load(
    options: &Options,
    slot_wait: Option<Duration>,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<Loaded, ApplyError> {
    let slot = slot_wait.unwrap_or(options.wait);
    let limits = WaitLimits { server: options.wait, slot, answer: options.runner_wait };
    let ask = |session: &Session, deadline: Deadline<'_>| {
        session.check_server()?;
        server_settings::check(session, &options.target.settings, deadline)?;
        Answers::ask(session, options, deadline)
    };
    let mut on_wait = |attempts: &[Attempt], left, is_new| {
        emit(Event::Waiting { attempts: attempts.to_vec(), left }.repeated_unless(is_new));
    };
    let connected = wait::connect(|| options.current_target(), limits, stop, &mut on_wait, ask);
    let (session, answers) = match connected {
        Ok(connected) => connected,
        Err(ConnectError::Stopped(signal)) => return Err(signal.into()),
        Err(ConnectError::Unreachable(attempts)) => {
            return Err(ApplyError::Unreachable { attempts });
        }
        Err(ConnectError::QueryTimedOut) => {
            return Err(ApplyError::HistoryTimeout(options.table.clone()));
        }
    };
    let (history, progress) = (answers.history(options)?, answers.progress(options));
    let is_pooled = answers.pid.is_some_and(|pid| pid != session.handshake_pid().to_string());
    Ok(Loaded { session, history, progress, is_pooled })
}

fn is_false(row: &[Option<String>]) -> bool {
    row.first().is_some_and(|value| value.as_deref() == Some("f"))
}

/// Whether the server does not know the column `xmin`, the only one that is named: there is none, or
/// it cannot be read.
fn is_without_xmin(error: &QueryError) -> bool {
    matches!(error, QueryError::Server(error) if error.is("42703") || error.is("0A000"))
}

/// What that error means where the table is an ordinary one.
fn without_xmin(error: QueryError) -> QueryError {
    if !is_without_xmin(&error) {
        return error;
    }
    let server = "one without the system column xmin".to_owned();
    QueryError::Client(ConnectionError::Unsupported(server))
}

const BACKEND_PID: &str = "pg_catalog.pg_backend_pid()";

/// What the server answered about both tables.
struct Answers {
    /// The process number of the backend, where it is known.
    pid: Option<String>,
    history: HistoryAnswer,
    progress: ProgressAnswer,
}

enum HistoryAnswer {
    Read(Vec<ResultSet>),
    /// It has no versions of rows.
    Unusable(TableProblem),
    /// There is no table; the row says whether there is a schema.
    NoTable(Vec<Option<String>>),
    Denied {
        error: ServerError,
        table_exists: bool,
    },
}

enum ProgressAnswer {
    NoTable,
    Read { owned: bool, row: Vec<Option<String>> },
    Denied(ServerError),
}

impl Answers {
    fn ask(
        session: &Session,
        options: &Options,
        deadline: Deadline<'_>,
    ) -> Result<Answers, QueryError> {
        let table = &options.table;
        let as_role = |sql: &str| options.target.settings.under_role_sql(sql);
        let both = format!(
            "select {}, {BACKEND_PID}; {}",
            progress::is_missing_sql(table),
            table.select_sql()
        );
        let mut pid = None;
        let (history, may_have_progress) = match session.query(&as_role(&both), deadline) {
            Ok(sets) => {
                let mut sets = sets.into_iter();
                let missing = sets.next().and_then(|set| set.rows.into_iter().next());
                pid = missing.as_ref().and_then(|row| row.get(1).cloned().flatten());
                let exists = missing.is_some_and(|row| is_false(&row));
                (HistoryAnswer::Read(sets.collect()), exists)
            }
            Err(QueryError::Server(error)) if error.is("42P01") => {
                let sql = format!("{}, {BACKEND_PID}", table.schema_exists_sql());
                let row = session.query_row(&as_role(&sql), deadline).map_err(without_xmin)?;
                pid = row.as_ref().and_then(|row| row.last().cloned().flatten());
                let row = row.unwrap_or_default();
                let has_schema =
                    Table::parse_schema_exists(&row).table_version != TableVersion::NoSchema;
                (HistoryAnswer::NoTable(row), has_schema)
            }
            Err(error @ QueryError::Server(_)) if is_without_xmin(&error) => {
                let row = session.query_row(&table.problem_sql(), deadline)?;
                let problem = row.and_then(|row| Table::problem(&row));
                (HistoryAnswer::Unusable(problem.ok_or_else(|| without_xmin(error))?), false)
            }
            Err(QueryError::Server(error)) if error.is("42501") => {
                let row = session.query_row(&table.exists_sql(), deadline).ok().flatten();
                let table_exists =
                    row.is_some_and(|row| row.first() == Some(&Some("t".to_owned())));
                (HistoryAnswer::Denied { error, table_exists }, false)
            }
            Err(error) => return Err(error),
        };
        let progress = match may_have_progress {
            true => ProgressAnswer::ask(session, options, deadline)?,
            false => ProgressAnswer::NoTable,
        };
        Ok(Answers { pid, history, progress })
    }

    fn history(&self, options: &Options) -> Result<History, ApplyError> {
        let table = &options.table;
        match &self.history {
            HistoryAnswer::Read(sets) => table.parse(sets).map_err(|problem| {
                let problem = TableProblem::NotOfDrizzle(problem);
                ApplyError::NotHistoryTable { table: table.clone(), problem }
            }),
            HistoryAnswer::Unusable(problem) => {
                let (table, problem) = (table.clone(), problem.clone());
                Err(ApplyError::NotHistoryTable { table, problem })
            }
            HistoryAnswer::NoTable(row) => Ok(Table::parse_schema_exists(row)),
            HistoryAnswer::Denied { error, table_exists } => {
                let role = options.target.role();
                let statements = match table_exists {
                    true => table.read_grants_sql(role),
                    false => table.grants_sql(TableVersion::NoTable, &[], &[], role),
                };
                Err(ApplyError::PermissionDenied { error: error.clone(), statements })
            }
        }
    }

    fn progress(&self, options: &Options) -> Result<Progress, ApplyError> {
        let table = &options.table;
        match &self.progress {
            ProgressAnswer::NoTable => Ok(Progress::default()),
            ProgressAnswer::Read { owned, row } => progress::parse(*owned, row)
                .map_err(|problem| ApplyError::BadProgressTable { table: table.clone(), problem }),
            ProgressAnswer::Denied(error) => Err(ApplyError::PermissionDenied {
                error: error.clone(),
                statements: table.progress_grants_sql(true, options.target.role()),
            }),
        }
    }
}

impl ProgressAnswer {
    fn ask(
        session: &Session,
        options: &Options,
        deadline: Deadline<'_>,
    ) -> Result<ProgressAnswer, QueryError> {
        let table = &options.table;
        let as_role = |sql: &str| options.target.settings.under_role_sql(sql);
        let owned = session.query_row(&as_role(&progress::exists_sql(table)), deadline)?;
        let Some([Some(owned)]) = owned.as_deref() else { return Ok(ProgressAnswer::NoTable) };
        match session.query_row(&as_role(&progress::select_sql(table)), deadline) {
            Ok(row) => {
                Ok(ProgressAnswer::Read { owned: owned == "t", row: row.unwrap_or_default() })
            }
            // It was dropped meanwhile.
            Err(QueryError::Server(error)) if error.is("42P01") => Ok(ProgressAnswer::NoTable),
            Err(QueryError::Server(error)) if error.is("42501") => {
                Ok(ProgressAnswer::Denied(error))
            }
            Err(error) => Err(error),
        }
    }
}
