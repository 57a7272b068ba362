//! The result of a transaction is read from replies that are written down here.

use crate::apply::event::StepNumber;
use crate::apply::state::DatabaseState;
use crate::history::progress::{Progress, ProgressChange, Record};
use crate::history::table::{History, Row};
use crate::migrations::steps::Steps;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{ConnectionError, QueryError, Response, Responses};
use crate::process::signals::StopFlag;
use crate::sql::Script;

use super::*;

/// A result in a few words.
fn words(result: &TransactionResult) -> String {
    match result {
        TransactionResult::Committed(row) => format!("committed {}", row.len()),
        TransactionResult::LockedOut => "locked out".to_owned(),
        TransactionResult::HistoryLocked(_) => "history locked".to_owned(),
        TransactionResult::NotHistoryTable => "not a history table".to_owned(),
        TransactionResult::HistoryChanged => "history changed".to_owned(),
        TransactionResult::NoAdvisoryLocks => "no advisory locks".to_owned(),
        TransactionResult::TableLockRefused => "table lock refused".to_owned(),
        TransactionResult::UnsupportedSetting(name) => format!("unsupported {name}"),
        TransactionResult::Failed(failure) => {
            format!("failed {:?} {:?}", failure.phase, failure.statement)
        }
        TransactionResult::PermissionDenied { .. } => "permission denied".to_owned(),
        TransactionResult::ConnectionLost { completed, error: ConnectionError::Lost(why, _) } => {
            format!("lost {}: {why}", place(completed))
        }
        TransactionResult::ConnectionLost { completed, .. } => {
            format!("lost {}", place(completed))
        }
        TransactionResult::Cancelled { confirmed, .. } => {
            format!("cancelled, confirmed: {confirmed}")
        }
    }
}

fn error(severity: &str, code: &str) -> ServerError {
    ServerError {
        severity: severity.to_owned(),
        code: code.to_owned(),
        message: code.to_owned(),
        ..ServerError::default()
    }
}

fn done(completed: usize) -> Response {
    Response { completed, ..Response::default() }
}

fn failed(completed: usize, code: &str) -> Response {
    Response { completed, row: None, error: Some(error("ERROR", code)) }
}

/// The answer to the file's only message, after [`IN_TRANSACTION`].
fn ran(statements: usize) -> Response {
    done(IN_TRANSACTION_STATEMENTS + statements)
}

fn ran_until(statements: usize, code: &str) -> Response {
    failed(IN_TRANSACTION_STATEMENTS + statements, code)
}

fn lost() -> Option<QueryError> {
    Some(QueryError::Client(ConnectionError::Lost("lost".to_owned(), None)))
}

fn stopped() -> Option<QueryError> {
    let stop = StopFlag::default();
    stop.raise(15);
    stop.raised().map(QueryError::Stopped)
}

const SQL: &str = "insert into a values (1);\ninsert into a values (2);\nselect 3";

/// Where in the file the connection was lost.
fn place(completed: &Option<usize>) -> String {
    completed.map_or("before the file".to_owned(), |completed| format!("after {completed}"))
}

/// The result of these replies to a migration of three statements, in one message.
fn result_of(responses: &[Response], end: Option<QueryError>) -> String {
    result_of_sql(SQL, MAX_MESSAGE, responses, end)
}

fn result_of_sql(
    sql: &str,
    piece: usize,
    responses: &[Response],
    end: Option<QueryError>,
) -> String {
    of_sql(sql, piece, |transaction| {
        words(&transaction.result(&Responses { responses: responses.to_vec(), end }))
    })
}

/// The result for a role that may not lock the history.
fn result_without_table_lock(responses: &[Response]) -> String {
    let (table, mut state) = (Table::new("s", "t"), state(TableVersion::V0, false));
    state.compared = Some(0);
    let expected = Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead: None };
    let (spec, timeouts) = (running(None), Timeouts { locks_history: false, ..timeouts() });
    let transaction = Transaction::new(&spec, &expected, &timeouts);
    words(&transaction.result(&Responses { responses: responses.to_vec(), end: None }))
}

/// What is made of a migration that is sent in pieces of at most so many bytes.
fn of_sql<T>(sql: &str, piece: usize, make: impl FnOnce(Transaction<'_>) -> T) -> T {
    let migration = Migration::new("m", "m.sql", None, sql.as_bytes().to_vec());
    let script = Script::parse(sql);
    let steps = Steps::split(&script);
    let step = &steps.all()[0];
    let number = StepNumber { step: 1, of: 1 };
    let step = StepRef { migration: &migration, script: &script, steps: &steps, step, number };
    let spec = running(Some(step));
    let mut transaction = transaction(&spec);
    let pieces = script.pieces(0..script.statements().len(), piece);
    let waits = pieces.len() > 1;
    let message = |piece| FileMessage::new(piece, Phase::Statement, waits);
    transaction.file = pieces.into_iter().map(message).collect();
    make(transaction)
}

#[test]
fn the_statement_that_runs_is_known_where_it_is_the_only_one_left_of_its_message() {
    let current = |sql: &str, piece, completed: &[usize]| {
        let responses: Vec<_> = completed.iter().map(|&count| done(count)).collect();
        let current = of_sql(sql, piece, |transaction| transaction.current(&responses));
        (current.statement, current.copy_length)
    };
    let ours = IN_TRANSACTION_STATEMENTS;
    assert_eq!(current("vacuum", MAX_MESSAGE, &[]), (None, None));
    assert_eq!(current("select 1", MAX_MESSAGE, &[9]), (None, None));
    assert_eq!(current("select 1", MAX_MESSAGE, &[9, 0]), (Some(1), None));
    assert_eq!(current("select 1; select 2", MAX_MESSAGE, &[9, ours]), (None, None));
    assert_eq!(current("select 1; select 2", MAX_MESSAGE, &[9, ours + 1]), (Some(2), None));
    assert_eq!(current("select 1; select 2", 9, &[9, 1, 0]), (Some(2), None));
    assert_eq!(current("select 1; select 2", 9, &[9, 1, 1, 0]), (None, None));
    let copy = "select 1; copy t from stdin;\n1\n2\n\\.\nselect 2";
    assert_eq!(current(copy, MAX_MESSAGE, &[9, 1]), (Some(2), Some(4)));
    assert_eq!(current(copy, MAX_MESSAGE, &[9, 2, 0]), (Some(3), None));
}

fn running(step: Option<StepRef<'_>>) -> TransactionSpec<'_> {
    TransactionSpec { step, runs_step: true, ..TransactionSpec::default() }
}

fn state(version: TableVersion, progress_exists: bool) -> DatabaseState {
    DatabaseState {
        history: History {
            table_version: version,
            rows: vec![],
            in_recovery: false,
            has_objects: true,
        },
        progress: match progress_exists {
            true => Progress::of_records(false, []),
            false => Progress::default(),
        },
        row_names: vec![],
        compared: None,
        needs_reload: false,
        is_pooled: false,
    }
}

fn transaction<'a>(spec: &'a TransactionSpec<'a>) -> Transaction<'a> {
    let (table, state) = (Table::new("s", "t"), state(TableVersion::V0, false));
    let expected = Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead: None };
    Transaction::new(spec, &expected, &timeouts())
}

fn timeouts() -> Timeouts {
    Timeouts {
        lock_timeout: Duration::from_secs(5),
        statement_timeout: None,
        server_settings: ServerSettings::default(),
        server_version: 18,
        unsupported_settings: vec![],
        locks_history: true,
    }
}

/// How many statements of the opening come before this one.
fn before(wanted: StatementRole) -> usize {
    let spec = TransactionSpec { upgrade: vec!["create".to_owned()], ..running(None) };
    let transaction = transaction(&spec);
    transaction.opening.iter().position(|(role, _)| *role == wanted).unwrap()
}

/// What the server answers after an error, to the messages that are left; COMMIT it answers
/// with ROLLBACK.
fn skipped(answer: Response, before: &[Response]) -> Vec<Response> {
    let mut responses = before.to_vec();
    responses.push(answer);
    while responses.len() < 3 {
        responses.push(failed(0, "25P02"));
    }
    responses.push(done(1));
    responses
}

#[test]
fn without_an_error_the_transaction_is_committed() {
    let all = [done(7), ran(3), done(6), done(1)];
    assert_eq!(result_of(&all, None), "committed 0");
    let row = Response { completed: 7, row: Some(vec![None, None]), error: None };
    assert_eq!(result_of(&[done(7), ran(3), row, done(1)], None), "committed 2");
    // The signal came too late.
    assert_eq!(result_of(&all, stopped()), "committed 0");
}

#[test]
fn a_missing_reply_leaves_the_outcome_open() {
    for responses in [
        &[][..],
        &[done(0)],
        &[done(7)],
        &[done(7), done(1)],
        &[done(7), ran(2)],
        &[done(7), ran(3)],
        &[done(7), ran(3), done(6)],
        &[done(7), ran(3), done(6), done(0)],
        // The answer to COMMIT came, but not whole.
        &[done(7), ran(3), done(6), done(1)],
    ] {
        let completed = responses.get(1).map(|answer| answer.completed.saturating_sub(2));
        assert_eq!(result_of(responses, lost()), format!("lost {}: lost", place(&completed)));
    }
}

#[test]
fn an_error_that_ends_the_session_is_a_lost_connection() {
    for severity in ["FATAL", "PANIC"] {
        let fatal = Response { completed: 3, row: None, error: Some(error(severity, "57P01")) };
        for at in 0..4 {
            let mut responses = vec![done(7), ran(3), done(6)];
            responses.truncate(at);
            responses.push(fatal.clone());
            let place = place(&[None, Some(1), Some(3), Some(3)][at]);
            let broken = format!("lost {place}: 57P01");
            assert_eq!(result_of(&responses, lost()), broken);
            assert_eq!(result_of(&responses, None), broken);
            assert_eq!(result_of(&responses, stopped()), "cancelled, confirmed: false");
        }
    }
    let end = Some(QueryError::Server(error("FATAL", "57P01")));
    assert_eq!(result_of(&[done(7), ran(1)], end), "lost after 1: 57P01");
}

#[test]
fn each_guard_has_its_own_result() {
    let opening = |role, code| result_of(&skipped(failed(before(role), code), &[]), None);
    assert_eq!(opening(StatementRole::Lock, "22P02"), "locked out");
    assert_eq!(opening(StatementRole::Lock, "42883"), "no advisory locks");
    let look = guards(1, 0, false, false);
    let look = look.iter().position(|(role, _)| *role == StatementRole::TableLook).unwrap();
    let responses = skipped(failed(look, "22P02"), &[]);
    assert_eq!(result_without_table_lock(&responses), "locked out");
    assert_eq!(opening(StatementRole::TableLock, "55P03"), "history locked");
    assert_eq!(opening(StatementRole::TableKind, "22P02"), "not a history table");
    assert_eq!(opening(StatementRole::TableLock, "42P01"), "history changed");
    assert_eq!(opening(StatementRole::TableLock, "42501"), "table lock refused");
    assert_eq!(opening(StatementRole::TableLock, "57014"), "failed Begin None");
    assert_eq!(opening(StatementRole::History, "22P02"), "history changed");
    assert_eq!(opening(StatementRole::History, "42P01"), "history changed");
    assert_eq!(opening(StatementRole::History, "42501"), "permission denied");
    let setting = StatementRole::Setting("transaction_timeout");
    assert_eq!(opening(setting, "42704"), "unsupported transaction_timeout");
    for code in ["42501", "55P02", "0A000", "22023"] {
        assert_eq!(opening(setting, code), "unsupported transaction_timeout", "{code}");
    }
    for code in ["57014", "53200", "XX000", "54000", "25P02"] {
        assert_eq!(opening(setting, code), "failed Begin None", "{code}");
    }
    assert_eq!(opening(StatementRole::Begin, "0A000"), "lost before the file: 0A000");
    assert_eq!(opening(StatementRole::Begin, "57014"), "failed Begin None");
    assert_eq!(opening(StatementRole::Lock, "42501"), "failed Begin None");
}

#[test]
fn a_transaction_without_a_file_makes_sure_of_the_lock_too() {
    let (table, state) = (Table::new("s", "t"), state(TableVersion::V1, false));
    let expected = Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead: None };
    let closing = closing(&TransactionSpec::default(), &expected, &timeouts());
    assert!(closing.iter().any(|(role, _)| *role == StatementRole::StillLocked));
}

#[test]
fn one_query_guards_an_existing_history_and_a_missing_progress_table() {
    let guards = |version, exists| {
        let (table, state) = (Table::new("s", "t"), state(version, exists));
        let expected =
            Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead: None };
        let statements = opening(&TransactionSpec::default(), &expected, &timeouts()).into_iter();
        let is_guard =
            |role: &StatementRole| [StatementRole::History, StatementRole::Progress].contains(role);
        statements.map(|(role, _)| role).filter(is_guard).collect::<Vec<_>>()
    };
    assert_eq!(guards(TableVersion::V1, false), [StatementRole::History]);
    // The table's absence is read from the catalogs, and nothing of it from a cache.
    assert_eq!(
        guards(TableVersion::NoTable, false),
        [StatementRole::History, StatementRole::Progress]
    );
    assert_eq!(guards(TableVersion::V1, true), [StatementRole::History, StatementRole::Progress]);
}

/// The guards of a transaction after so many rows, of which the last `new` were written since the last
/// guard.
fn guards(rows: i64, new: usize, holds_lock: bool, locks_history: bool) -> Statements {
    let row = |id| Row { id, hash: "h".to_owned(), created_at: None, name: None, xmin: Some(700) };
    let mut state = state(TableVersion::V0, false);
    state.history.rows = (1000..1000 + rows).map(row).collect();
    state.compared = Some(state.history.rows.len() - new);
    let table = Table::new("s", "t");
    let expected = Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead: None };
    let spec = TransactionSpec { holds_lock, ..running(None) };
    opening(&spec, &expected, &Timeouts { locks_history, ..timeouts() })
}

#[test]
fn the_guards_are_as_long_for_a_long_history_as_for_a_short_one() {
    for holds_lock in [false, true] {
        for locks_history in [false, true] {
            let length = |rows| joined(&guards(rows, 1, holds_lock, locks_history)).len();
            assert_eq!(length(5000), length(3), "{holds_lock} {locks_history}");
        }
    }
}

#[test]
fn a_guard_begins_with_the_last_row_that_the_guard_before_it_compared() {
    for (holds_lock, locks_history) in [(false, true), (false, false), (true, true), (true, false)]
    {
        let guards = joined(&guards(5, 2, holds_lock, locks_history));
        assert!(guards.contains("where id operator(pg_catalog.>=) 1002 order by id)"), "{guards}");
        assert!(guards.contains("'{700,700,700}'"), "{guards}");
    }
}

#[test]
fn behind_others_the_guards_want_their_rows() {
    let migration = Migration::new("b", "b.sql", Some(5), b"select 1".to_vec());
    let row = NewRow::new(&migration, Layout::Drizzle0);
    let (table, mut state) = (Table::new("s", "t"), state(TableVersion::V0, false));
    state.compared = Some(0);
    let guard = |ahead| {
        let expected = Expected { table: &table, layout: Layout::Drizzle0, state: &state, ahead };
        let mut opening = opening(&running(None), &expected, &timeouts()).into_iter();
        opening.find(|(role, _)| *role == StatementRole::History).unwrap().1
    };
    let history = &state.history;
    assert!(guard(None).contains(&table.is_unchanged_sql(history, 0)));
    let rows = RowsOnTheirWay { count: 7, last: &row };
    assert!(guard(Some(rows)).contains(&table.is_extended_sql(history, rows)));
}

#[test]
fn whether_others_write_is_found_out_before_the_rows_are_compared_and_the_lock_is_given_back() {
    let roles = |holds_lock, locks_history| -> Vec<StatementRole> {
        let guards = guards(1, 0, holds_lock, locks_history).into_iter().map(|(role, _)| role);
        let guards = guards.skip_while(|role| *role != StatementRole::Lock).skip(1);
        guards.filter(|role| *role != StatementRole::ServerSetting).collect()
    };
    use StatementRole::{History, Savepoint, TableLock, TableLook};
    assert_eq!(roles(false, true), [TableLock, History]);
    assert_eq!(roles(false, false), [TableLook, History]);
    assert_eq!(roles(true, true), [Savepoint, TableLock, History, Savepoint]);
    assert_eq!(roles(true, false), [Savepoint, TableLook, History, Savepoint]);
}

#[test]
fn a_failed_guard_counts_even_if_the_connection_is_lost_afterwards() {
    let responses = [failed(before(StatementRole::Lock), "22P02")];
    assert_eq!(result_of(&responses, lost()), "locked out");
}

#[test]
fn the_failed_statement_is_found_by_counting() {
    let statement =
        |completed| result_of(&skipped(ran_until(completed, "23505"), &[done(7)]), None);
    assert_eq!(statement(0), "failed Statement Some(1)");
    assert_eq!(statement(2), "failed Statement Some(3)");
    // The server rolls back without us.
    let responses = [done(7), ran_until(1, "23505")];
    assert_eq!(result_of(&responses, lost()), "failed Statement Some(2)");
}

#[test]
fn statements_are_counted_across_messages() {
    let responses = [done(7), done(1), failed(0, "23505"), Response::default(), done(0), done(1)];
    assert_eq!(result_of_sql(SQL, 1, &responses, None), "failed Statement Some(2)");
    assert_eq!(result_of_sql(SQL, 1, &[done(7), done(1), done(1)], lost()), "lost after 2: lost");
}

#[test]
fn each_statement_at_the_end_has_its_own_failure() {
    let before = [done(7), ran(3)];
    let closing = |completed, code| result_of(&skipped(failed(completed, code), &before), None);
    assert_eq!(closing(0, "25P01"), "failed LostTransaction None");
    assert_eq!(closing(2, "23503"), "failed Deferred None");
    assert_eq!(closing(3, "22P02"), "failed LostTransaction None");
    assert_eq!(closing(3, "57014"), "failed Record None");
    assert_eq!(closing(8, "23502"), "failed Record None");
    assert_eq!(closing(8, "42501"), "permission denied");
    let commit = [done(7), ran(3), done(8), failed(0, "40001")];
    assert_eq!(result_of(&commit, None), "failed Commit None");
}

#[test]
fn after_a_signal_the_reply_decides_the_result() {
    let cancelled = skipped(ran_until(1, "57014"), &[done(7)]);
    assert_eq!(result_of(&cancelled, stopped()), "cancelled, confirmed: true");
    // A statement failed before the cancel came: that is what there is to act on.
    let failed_before = skipped(ran_until(1, "23505"), &[done(7)]);
    assert_eq!(result_of(&failed_before, stopped()), "failed Statement Some(2)");
    assert_eq!(result_of(&[done(7), done(1)], stopped()), "cancelled, confirmed: false");
    assert_eq!(
        result_of(&[done(7), ran_until(1, "57014")], stopped()),
        "cancelled, confirmed: false"
    );
    // Without a signal of ours, someone else cancelled it.
    assert_eq!(result_of(&cancelled, None), "failed Statement Some(2)");
}

#[test]
fn a_file_that_finds_no_transaction_is_not_run() {
    assert_eq!(
        result_of(&skipped(failed(0, "25P01"), &[done(7)]), None),
        "failed LostTransaction None"
    );
    // The file's own savepoint is its own affair.
    assert_eq!(
        result_of(&skipped(ran_until(0, "25P01"), &[done(7)]), None),
        "failed Statement Some(1)"
    );
}

#[test]
fn guards_alone_have_the_same_results() {
    assert_eq!(result_of(&[done(7), done(1)], None), "committed 0");
    let locked = [failed(before(StatementRole::Lock), "22P02"), done(1)];
    assert_eq!(result_of(&locked, None), "locked out");
    assert_eq!(result_of(&[done(7)], lost()), "lost before the file: lost");
}

#[test]
fn each_statement_of_ours_is_one_statement() {
    let row = NewRow::new(&Migration::new("m", "m.sql", Some(1), Vec::new()), Layout::Drizzle0);
    let saved_settings = vec!["a".to_owned()];
    let change = ProgressChange::Finish { record: Record::finished("m", 1, "h"), saved_settings };
    for version in [TableVersion::NoSchema, TableVersion::NoTable, TableVersion::V0] {
        for layout in [Layout::Drizzle0, Layout::Plain] {
            for holds_lock in [false, true] {
                let (table, state) = (Table::new("s", "t"), state(version, false));
                let spec = TransactionSpec {
                    upgrade: table.create_or_upgrade_sql(&state.history, layout, &[]),
                    creates_progress: true,
                    rows: vec![row.clone()],
                    progress: Some(change.clone()),
                    holds_lock,
                    ..running(None)
                };
                let expected = Expected { table: &table, layout, state: &state, ahead: None };
                let opening = opening(&spec, &expected, &timeouts());
                let closing = closing(&spec, &expected, &timeouts());
                for (role, sql) in opening.iter().chain(&closing) {
                    assert_eq!(Script::parse(sql).statements().len(), 1, "{role:?}: {sql}");
                }
            }
        }
    }
}
