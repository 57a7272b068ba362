//! `--create-database`: creates the database that a run is to work in, if it does not exist.
//!
//! Another runner may do so at the same time. So what counts is only whether the database can be
//! connected to afterwards.

use std::time::Instant;

use crate::cli::config::NewDatabase;
use crate::postgres::conninfo::Target;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Session, Stage};
use crate::postgres::wait::{self, ConnectError, WaitLimits};
use crate::process::signals::Deadline;
use crate::sql::quote;

use super::error::{ApplyError, DatabaseNotCreated};
use super::event::Event;
use super::load::{self, Loaded};
use super::{PollingWait, QUERY_TIMEOUT, Runner};

/// The databases that a server has from the start. Who is in `template1` keeps others from copying it.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// What became of CREATE DATABASE.
enum Creation {
    Done,
    /// Another runner was faster.
    Exists,
    /// It may work later.
    NotYet(QueryError),
}

impl Runner<'_> {
    /// Connects and reads what is known, as [`load::load`] does; before it has done so for the first
    /// time, creates the database if it does not exist.
    pub(super) fn load(&mut self) -> Result<Loaded, ApplyError> {
        let Some(new) = self.creates else {
            return load::load(self.options, self.slot_wait(), self.stop, self.emit);
        };
        let (options, stop) = (self.options, self.stop);
        let limit = || Deadline::after(options.wait, stop);
        let (mut to_appear, mut to_create) = (None, None);
        let (mut announced, mut exists) = (false, false);
        loop {
            let attempts = match load::load(options, None, stop, self.emit) {
                Err(ApplyError::Unreachable { attempts }) if is_missing(&attempts) => attempts,
                loaded => {
                    self.creates = None;
                    return loaded;
                }
            };
            if exists {
                // A pooler remembers for a while that it was missing, and a standby learns late of it.
                let wait = to_appear.get_or_insert_with(|| PollingWait::until(limit()));
                let failed = attempts.clone();
                wait.pause(
                    attempts.clone(),
                    |left, is_new| {
                        (self.emit)(Event::Waiting { attempts, left }.repeated_unless(is_new));
                    },
                    || ApplyError::Unreachable { attempts: failed },
                )?;
                continue;
            }
            let database = options.target.dbname.clone();
            let template = new.template.clone();
            if !std::mem::replace(&mut announced, true) {
                (self.emit)(Event::CreatingDatabase { database: database.clone(), template });
            }
            let started = Instant::now();
            match self.create_database(new, attempts)? {
                Creation::Done => {
                    let took = Some(started.elapsed());
                    (self.emit)(Event::CreatedDatabase { database, took });
                    exists = true;
                }
                Creation::Exists => {
                    (self.emit)(Event::CreatedDatabase { database, took: None });
                    exists = true;
                }
                Creation::NotYet(cause) => {
                    let wait = to_create.get_or_insert_with(|| PollingWait::until(limit()));
                    let error = self.not_created(new, cause.clone());
                    wait.pause(
                        cause.clone(),
                        |left, is_new| {
                            let event = Event::WaitingToCreate { database, cause, left };
                            (self.emit)(event.repeated_unless(is_new));
                        },
                        || error,
                    )?;
                }
            }
        }
    }

    /// Creates the database from another one of its server. `attempts` found it missing.
    fn create_database(
        &mut self,
        new: &NewDatabase,
        mut attempts: Vec<Attempt>,
    ) -> Result<Creation, ApplyError> {
        let options = self.options;
        let limits =
            WaitLimits { server: options.wait, slot: options.wait, answer: options.runner_wait };
        for name in MAINTENANCE {
            let target =
                || Target { dbname: name.to_owned(), ..options.current_target().on_primary() };
            let mut on_wait = |attempts: &[Attempt], left, is_new| {
                let waiting = Event::Waiting { attempts: to_create(attempts), left };
                (self.emit)(waiting.repeated_unless(is_new));
            };
            let no_query = |_: &Session, _: Deadline<'_>| Ok(());
            match wait::connect(target, limits, self.stop, &mut on_wait, no_query) {
                Ok((session, ())) => return self.send_creation(new, &session),
                Err(ConnectError::Stopped(signal)) => return Err(signal.into()),
                Err(ConnectError::QueryTimedOut) => break,
                Err(ConnectError::Unreachable(more)) => {
                    let is_rejected = more.iter().any(|more| wait::is_rejection(&more.cause));
                    attempts.extend(to_create(&more));
                    if !is_rejected {
                        break;
                    }
                }
            }
        }
        Err(ApplyError::Unreachable { attempts })
    }

    fn send_creation(&self, new: &NewDatabase, session: &Session) -> Result<Creation, ApplyError> {
        let sql = create_sql(&self.options.target, new, false);
        self.set_time_limit(session);
        // Copying takes as long as it takes; a signal cancels it.
        match session.query(&sql, Deadline::never(self.stop)) {
            Ok(_) => Ok(Creation::Done),
            Err(QueryError::Stopped(signal)) => Err(signal.into()),
            Err(QueryError::Server(error)) if is_there(&error) => Ok(Creation::Exists),
            Err(cause) if may_work_later(&cause) => Ok(Creation::NotYet(cause)),
            Err(cause) => Err(self.not_created(new, cause)),
        }
    }

    /// Gives the session the limit of `--statement-timeout`, or none: that of the role is meant for the
    /// queries of an app. Not behind a pooler, which would keep it for others.
    fn set_time_limit(&self, session: &Session) {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        let limit = self.options.statement_timeout.unwrap_or_default().as_millis();
        let pid = session.query_row("select pg_catalog.pg_backend_pid()", deadline);
        let pid = pid.ok().flatten().and_then(|row| row.into_iter().next().flatten());
        if pid == Some(session.handshake_pid().to_string()) {
            // If it fails, the database may be created all the same.
            let _ = session.query_row(&format!("set statement_timeout = '{limit}ms'"), deadline);
        }
    }

    fn not_created(&self, new: &NewDatabase, cause: QueryError) -> ApplyError {
        let target = &self.options.target;
        match cause {
            QueryError::Server(error) => {
                ApplyError::DatabaseNotCreated(Box::new(DatabaseNotCreated {
                    database: target.dbname.clone(),
                    template: new.template.clone(),
                    error,
                    sql: create_sql(target, new, true),
                }))
            }
            QueryError::Client(_) | QueryError::Stopped(_) => {
                ApplyError::Unreachable { attempts: to_create(&[Attempt::at_query(cause)]) }
            }
        }
    }
}

/// Attempts to connect for another purpose than others.
fn to_create(attempts: &[Attempt]) -> Vec<Attempt> {
    let stage = Stage::CreateDatabase;
    attempts.iter().cloned().map(|attempt| Attempt { stage, ..attempt }).collect()
}

/// Whether the server, or a pooler, does not have the database.
pub fn is_missing(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| {
        matches!(&attempt.cause, QueryError::Server(error) if error.meant_code() == "3D000")
    })
}

/// Whether another session has created the database: it was there, or came meanwhile.
fn is_there(error: &ServerError) -> bool {
    error.is("42P04")
        || error.is("23505") && error.constraint.as_deref() == Some("pg_database_datname_index")
}

/// Whether the template is in use, or the connection was lost or is about to be.
fn may_work_later(cause: &QueryError) -> bool {
    match cause {
        QueryError::Server(error) => error.is("55006") || wait::is_temporary(cause),
        QueryError::Client(error) => matches!(error, ConnectionError::Lost(..)),
        QueryError::Stopped(_) => false,
    }
}

/// The owner is the role that works in the database; another role that runs it has to name that one.
fn create_sql(target: &Target, new: &NewDatabase, names_owner: bool) -> String {
    let mut sql = format!("create database {}", quote::ident(&target.dbname));
    if names_owner || target.settings.role.is_some() {
        sql += &format!(" owner {}", quote::ident(target.role()));
    }
    if let Some(template) = &new.template {
        sql += &format!(" template {}", quote::ident(template));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conninfo;

    fn target(url: &str) -> Target {
        conninfo::resolve(Some(url), "DATABASE_URL", &|_| None).unwrap()
    }

    fn server(code: &str, message: &str, constraint: Option<&str>) -> ServerError {
        ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            constraint: constraint.map(str::to_owned),
            ..ServerError::default()
        }
    }

    #[test]
    fn the_owner_is_named_where_it_is_not_who_creates() {
        let (plain, copy) =
            (NewDatabase { template: None }, NewDatabase { template: Some("a\"b".to_owned()) });
        for (url, new, names_owner, sql) in [
            ("postgres://u@h/d", &plain, false, r#"create database "d""#),
            ("postgres://u@h/d", &plain, true, r#"create database "d" owner "u""#),
            ("postgres://u@h/d?role=o", &plain, false, r#"create database "d" owner "o""#),
            ("postgres://u@h/D%20e", &copy, false, r#"create database "D e" template "a""b""#),
            (
                "postgres://u@h/d?role=o",
                &copy,
                true,
                r#"create database "d" owner "o" template "a""b""#,
            ),
        ] {
            assert_eq!(create_sql(&target(url), new, names_owner), sql);
        }
    }

    #[test]
    fn a_database_is_missing_if_the_server_or_a_pooler_says_so() {
        for (code, message, expected) in [
            ("3D000", "", true),
            ("08P01", "no such database: d", true),
            ("08P01", "server login failed: FATAL database \"d\" does not exist", true),
            ("28P01", "", false),
            ("42501", "permission denied for database \"d\"", false),
        ] {
            let cause = QueryError::Server(server(code, message, None));
            assert_eq!(is_missing(&[Attempt::at_query(cause)]), expected, "{message}");
        }
    }

    #[test]
    fn another_session_may_have_created_it() {
        for (code, constraint, expected) in [
            ("42P04", None, true),
            ("23505", Some("pg_database_datname_index"), true),
            ("23505", Some("pg_database_oid_index"), false),
            ("42501", None, false),
        ] {
            assert_eq!(is_there(&server(code, "", constraint)), expected, "{code}");
        }
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        let lost = ConnectionError::Lost("closed".to_owned(), None);
        for (cause, expected) in [
            (QueryError::Server(server("55006", "", None)), true),
            (QueryError::Server(server("57P01", "", None)), true),
            (QueryError::Client(lost), true),
            (QueryError::Server(server("42501", "", None)), false),
            (QueryError::Server(server("3D000", "", None)), false),
            (QueryError::Client(ConnectionError::Protocol(String::new())), false),
        ] {
            assert_eq!(may_work_later(&cause), expected, "{cause:?}");
        }
    }
}
