//! What the server makes of the settings of a connection string.

use super::conninfo::{ServerSetting, ServerSettings};
use super::error::{ConnectionError, QueryError};
use super::session::{Responses, Session};
use super::wait;
use crate::process::signals::Deadline;

/// Has the server check the settings, of which nothing stays set.
pub fn check(
    session: &Session,
    settings: &ServerSettings,
    deadline: Deadline<'_>,
) -> Result<(), QueryError> {
    let asked_for: Vec<&ServerSetting> = settings.of_connection_string().collect();
    if asked_for.is_empty() {
        return Ok(());
    }
    let sql: Vec<_> = asked_for.iter().map(|setting| setting.set_local_sql()).collect();
    let sent = session.send_batch(&[sql.join(";\n").as_str().into()], false, deadline, &mut |_| {});
    let Responses { responses, end } = sent;
    let failed =
        responses.into_iter().find_map(|response| Some((response.completed, response.error?)));
    match (failed, end) {
        (Some((completed, error)), _) => {
            let setting = asked_for.get(completed);
            let cause = QueryError::Server(error.clone());
            let may_pass = wait::is_temporary(&cause) || wait::is_cancelled_by_server(&cause);
            Err(match setting.filter(|_| !may_pass) {
                Some(ServerSetting { origin, .. }) => {
                    QueryError::Client(ConnectionError::Setting { origin: origin.clone(), error })
                }
                None => cause,
            })
        }
        (None, Some(end)) => Err(end),
        (None, None) => Ok(()),
    }
}

/// The settings that differ from what a session has by itself.
pub fn differing(
    session: &Session,
    settings: &ServerSettings,
    deadline: Deadline<'_>,
) -> Result<Vec<ServerSetting>, QueryError> {
    let current: Vec<_> = settings.all().map(ServerSetting::current_sql).collect();
    let current = format!("select {}", current.join(", "));
    // One message, and so one transaction of one backend.
    let mut sql = vec![current.clone()];
    sql.extend(settings.all().map(ServerSetting::set_local_sql));
    sql.push(current);
    let sets = session.query(&sql.join(";\n"), deadline)?;
    let row =
        |set: Option<&_>| set.and_then(|set: &super::result::ResultSet| set.rows.first().cloned());
    let (before, after) = (row(sets.first()), row(sets.last()));
    let pairs = before.into_iter().flatten().zip(after.into_iter().flatten());
    let with_pairs = settings.all().zip(pairs).filter(|(_, (before, after))| before != after);
    Ok(with_pairs.map(|(setting, _)| setting.clone()).collect())
}
