//! That every event and error becomes an object with a code. What serde cannot write is found here.

mod documented;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apply::error::{
    AbandonedProgress, ApplyError, BlockingStatement, ChangedStep, DatabaseNotCreated, RolledBack,
    RunFailure, UnknownOutcome,
};
use crate::apply::event::{
    Applied, Blocker, CommandProgress, Event, HeldBy, Holder, HolderKind, InProgress, RecordKind,
    RetryReason, Running, StepNumber, StepsDone,
};
use crate::apply::failure::{
    Advice, Excerpt, ExcerptLine, ExtensionState, Failure, LimitSource, LostConnection, Phase,
    Place,
};
use crate::cli::args::Commands;
use crate::cli::config::Format;
use crate::cli::error::{ConfigError, UsageError};
use crate::cli::health::HealthAddress;
use crate::commands::bundle::{BundleError, Unsuitable};
use crate::commands::check::Finding;
use crate::commands::extract::ExtractError;
use crate::commands::new::NewError;
use crate::effects::{Patch, TableName, TableSize};
use crate::error::Error;
use crate::history::plan::{EditedMigration, HistoryMismatch};
use crate::history::table::{Table, TableProblem};
use crate::migrations::layout::LayoutProblem;
use crate::migrations::migration::Layout;
use crate::migrations::prepared::{NotRunnable, Reason};
use crate::migrations::rule::Rule;
use crate::migrations::source::{Damage, Origin, Unreadable};
use crate::postgres::notices::Notice;
use crate::postgres::server_error::{Position, ServerError};
use crate::postgres::session::{Attempt, ConnectionError, QueryError};
use crate::process::exec::ExecError;
use crate::process::signals::StopFlag;
use crate::sql::LineColumn;

fn names() -> Vec<String> {
    vec!["0000_a".to_owned(), "0001_b".to_owned()]
}

fn rows() -> Vec<String> {
    vec!["row 2 (created_at 7)".to_owned()]
}

fn name() -> String {
    "0000_a".to_owned()
}

fn server_error() -> ServerError {
    ServerError {
        severity: "ERROR".to_owned(),
        code: "42501".to_owned(),
        message: "permission denied for schema drizzle".to_owned(),
        ..ServerError::default()
    }
}

fn template_in_use() -> ServerError {
    ServerError {
        code: "55006".to_owned(),
        message: "source database \"main\" is being accessed by other users".to_owned(),
        detail: Some("There is 1 other session using the database.".to_owned()),
        ..server_error()
    }
}

/// The database could not be created, because of this.
fn not_created(template: Option<&str>, error: ServerError) -> ApplyError {
    ApplyError::DatabaseNotCreated(Box::new(DatabaseNotCreated {
        database: "shop".to_owned(),
        template: template.map(str::to_owned),
        error,
        sql: "create database \"shop\" owner \"app\"".to_owned(),
    }))
}

/// One statement with a patch, and one about a table of which little is known.
fn too_large() -> ApplyError {
    let rewrite = BlockingStatement {
        migration: name(),
        file: "0000_a.sql".to_owned(),
        position: Some(LineColumn { line: 3, column: 1 }),
        rule: Rule::IndexLocksWrites,
        message: "CREATE INDEX takes SHARE on orders".to_owned(),
        size: TableSize {
            table: TableName::new(Some("public".to_owned()), "orders".to_owned()),
            rows: Some(120_345_678),
            bytes: Some(41 << 30),
            index_bytes: Some(18 << 30),
            partitions: 12,
        },
        patch: Some(Patch {
            now: "create index CONCURRENTLY on orders (a);".to_owned(),
            ..Patch::default()
        }),
    };
    let little = TableSize {
        table: TableName::new(Some("s".to_owned()), "t".to_owned()),
        rows: None,
        bytes: Some(2 << 30),
        index_bytes: None,
        partitions: 0,
    };
    let other = BlockingStatement {
        rule: Rule::Rewrite,
        message: "VACUUM FULL rewrites s.t".to_owned(),
        size: little,
        patch: None,
        ..rewrite.clone()
    };
    ApplyError::TableTooLarge { limit: 1 << 30, statements: vec![rewrite, other] }
}

fn attempt() -> Attempt {
    Attempt::at_query(QueryError::Client(ConnectionError::TimedOut))
}

fn failure() -> Failure {
    let query = "select a\nfrom b".to_owned();
    let position = Some(Position::InInternalQuery { query, position: 8 });
    Failure {
        migration: Some(name()),
        file: Some("0000_a.sql".to_owned()),
        position: Some(LineColumn { line: 2, column: 5 }),
        place: Some(Place::Name),
        statement: Some(1),
        statements: 3,
        step: Some(StepNumber { step: 2, of: 4 }),
        outside_transaction: None,
        phase: Phase::Statement,
        error: ServerError { position, ..server_error() },
        excerpt: Some(excerpt()),
        advice: Some(Advice::NoTransaction),
    }
}

fn excerpt() -> Excerpt {
    let line = |number, text: &str| ExcerptLine { number, text: text.to_owned() };
    Excerpt { lines: vec![line(1, "select 1;"), line(2, "select a")], caret: Some(5) }
}

fn lost(phase: Phase) -> ApplyError {
    let migration = Some(name());
    ApplyError::Failed(Box::new(Failure { phase, migration, ..bare_failure() }))
}

fn bare_failure() -> Failure {
    Failure {
        migration: None,
        file: None,
        position: None,
        place: None,
        statement: None,
        statements: 0,
        step: None,
        outside_transaction: None,
        phase: Phase::Commit,
        error: server_error(),
        excerpt: None,
        advice: None,
    }
}

fn all_advice() -> Vec<Advice> {
    let sql = "grant usage on schema \"app\" to \"shop\"".to_owned();
    let limited = |source| Advice::TimeLimit { limit: Some("500ms".to_owned()), source };
    let extension = |state| Advice::Extension { extension: "vector".to_owned(), state };
    let superseded = |skipped_by_drizzle| Advice::Superseded {
        migration: name(),
        later: "0001_b".to_owned(),
        skipped_by_drizzle,
    };
    vec![
        Advice::Baseline,
        superseded(true),
        superseded(false),
        Advice::SharedRole,
        Advice::IfNotExists,
        Advice::NoTransaction,
        Advice::TimeLimit { limit: None, source: LimitSource::File },
        limited(LimitSource::Option),
        limited(LimitSource::Role("shop".to_owned())),
        limited(LimitSource::Database("shop".to_owned())),
        limited(LimitSource::Connection),
        limited(LimitSource::Server),
        limited(LimitSource::PastPooler("shop".to_owned())),
        Advice::Cancelled,
        Advice::PendingTriggers { no_transaction: true },
        Advice::PendingTriggers { no_transaction: false },
        Advice::Grant { sql },
        Advice::CreateSchema { sql: "create schema \"app\"".to_owned() },
        Advice::NoSchema { search_path: Some("\"$user\", public".to_owned()) },
        Advice::NoSchema { search_path: None },
        extension(ExtensionState::NotCreated),
        extension(ExtensionState::NotAvailable),
        extension(ExtensionState::InSchema("extensions".to_owned())),
        Advice::InvisibleCharacter {
            character: "U+200B (ZERO WIDTH SPACE)".to_owned(),
            position: LineColumn { line: 2, column: 5 },
        },
    ]
}

fn blocker() -> Blocker {
    Blocker {
        pid: "7".to_owned(),
        application: Some("shop".to_owned()),
        role: Some("app".to_owned()),
        state: Some("idle in transaction".to_owned()),
        open_for: Some(Duration::from_millis(12_300)),
        query: Some("select *\nfrom t".to_owned()),
        table: Some("t".to_owned()),
        others: 2,
    }
}

fn running() -> Running {
    Running {
        migration: Some(name()),
        step: None,
        statement: None,
        statements: 3,
        outside_transaction: None,
        running_for: Duration::from_millis(130_500),
        blocker: None,
        activity: None,
    }
}

fn building() -> Running {
    let command = "CREATE INDEX CONCURRENTLY".to_owned();
    let phase = Some("building index: scanning table".to_owned());
    let activity =
        CommandProgress { command, table: Some("t".to_owned()), phase, percent: Some(43) };
    Running {
        step: Some(StepNumber { step: 2, of: 3 }),
        statement: Some(2),
        outside_transaction: Some("CREATE INDEX CONCURRENTLY"),
        activity: Some(activity),
        ..running()
    }
}

fn waiting() -> Running {
    let command = "COPY FROM".to_owned();
    let activity = CommandProgress { command, table: None, phase: None, percent: None };
    let blocker = Some(blocker());
    Running {
        running_for: Duration::from_millis(3900),
        blocker,
        activity: Some(activity),
        ..running()
    }
}

fn holder(kind: HolderKind) -> Holder {
    let is_client = kind != HolderKind::Autovacuum;
    Holder {
        kind,
        pid: "7".to_owned(),
        application: is_client.then(|| "premigrate".to_owned()),
        address: is_client.then(|| "10.0.0.1".to_owned()),
        open_for: Some(Duration::from_millis(12_300)),
    }
}

fn held_by(kind: HolderKind) -> HeldBy {
    HeldBy::Session(holder(kind))
}

fn files() -> Vec<String> {
    vec!["9999_a.sql".to_owned(), "sub/b.sql".to_owned()]
}

fn events() -> Vec<Event> {
    let (left, pause) = (Duration::from_millis(1500), Duration::from_millis(500));
    let (done, step) = (StepsDone { done: 1, of: 4 }, StepNumber { step: 2, of: 4 });
    let (all, only) = (StepsDone { done: 1, of: 1 }, StepNumber { step: 1, of: 1 });
    let many = ["0000_a", "0001_b", "0002_c", "0003_d"].map(str::to_owned).to_vec();
    let blocker = blocker();
    let locked = RetryReason::Lock {
        sqlstate: "55P03".to_owned(),
        message: "canceling statement due to lock timeout".to_owned(),
        blocker: Some(blocker.clone()),
        outside_transaction: false,
    };
    let notice = Notice {
        severity: "NOTICE".to_owned(),
        sqlstate: "00000".to_owned(),
        message: "drop cascades to 2 other objects".to_owned(),
        detail: Some("drop cascades to view a\ndrop cascades to view b".to_owned()),
        hint: None,
    };
    let lost = RetryReason::ConnectionLost { cause: ConnectionError::TimedOut };
    vec![
        Event::Loaded { origin: Origin::Embedded, layout: Layout::Drizzle0, migrations: 2 },
        Event::UnlistedFiles { files: files() },
        Event::NotMeasured {
            statements: vec!["0000_a.sql:4:1".to_owned(), "1.sql:2:5".to_owned()],
        },
        Event::Note { message: "a remark".to_owned() },
        Event::Waiting { attempts: vec![attempt()], left },
        Event::CreatingDatabase { database: name(), template: None },
        Event::CreatingDatabase { database: name(), template: Some("main".to_owned()) },
        Event::WaitingToCreate {
            database: name(),
            cause: QueryError::Server(template_in_use()),
            left,
        },
        Event::CreatedDatabase { database: name(), took: Some(left) },
        Event::CreatedDatabase { database: name(), took: None },
        Event::Through { migration: name(), later: 1 },
        Event::Through { migration: name(), later: 2 },
        Event::LookingForPrimary,
        Event::WaitingForPrimary { left },
        Event::LockedOut { holder: held_by(HolderKind::Runner), left },
        Event::LockedOut { holder: held_by(HolderKind::Autovacuum), left },
        Event::LockedOut { holder: held_by(HolderKind::Other), left },
        Event::LockedOut { holder: HeldBy::Gone, left },
        Event::LockedOut { holder: HeldBy::Unseen, left },
        Event::WaitingForMigrations {
            migrations: names(),
            holder: Some(holder(HolderKind::Runner)),
            left,
        },
        Event::WaitingForMigrations { migrations: many, holder: None, left },
        Event::UnknownRows { rows: rows() },
        Event::Applying { migration: name(), out_of_order: false },
        Event::Applying { migration: name(), out_of_order: true },
        Event::Resuming { migration: name(), done },
        Event::Resuming { migration: name(), done: all },
        Event::Step { migration: name(), step, outside_transaction: Some("VACUUM"), took: None },
        Event::Step { migration: name(), step, outside_transaction: None, took: Some(left) },
        Event::Step {
            migration: name(),
            step: only,
            outside_transaction: Some("VACUUM"),
            took: None,
        },
        Event::LockLost { migration: name() },
        Event::LockLeft { migration: name(), left },
        Event::BackendRuns { migration: name(), pid: "7".to_owned(), left },
        Event::EndingBackend { migration: name(), pid: "7".to_owned() },
        Event::Rebuilding { migration: name(), index: "i".to_owned() },
        Event::Finishing { migration: name(), sql: "select 1".to_owned() },
        Event::InvalidIndexes { sql: "drop index i".to_owned() },
        Event::NoTimeLimits,
        Event::Blocked { migration: None, blocker },
        Event::Running(building()),
        Event::Running(waiting()),
        Event::Running(Running { statement: Some(2), ..running() }),
        Event::Running(Running { migration: None, statements: 0, ..running() }),
        Event::NoStatement { migration: name() },
        Event::Notice { migration: Some(name()), notice: notice.clone() },
        Event::Notice { migration: None, notice },
        Event::NoticesLeftOut { migration: Some(name()), count: 950 },
        Event::NoticesLeftOut { migration: None, count: 950 },
        Event::Applied(Applied { migration: name(), took: Some(left) }),
        Event::Applied(Applied { migration: name(), took: None }),
        Event::Recorded { migrations: names(), kind: RecordKind::Baseline },
        Event::Recorded { migrations: names(), kind: RecordKind::Accept },
        Event::NothingToRecord { kind: RecordKind::Baseline, named: vec![] },
        Event::NothingToRecord { kind: RecordKind::Baseline, named: vec![name()] },
        Event::NothingToRecord { kind: RecordKind::Accept, named: vec![] },
        Event::NothingToRecord { kind: RecordKind::Accept, named: vec![name()] },
        Event::NothingToRecord { kind: RecordKind::Accept, named: names() },
        Event::Retrying { migration: Some(name()), reason: locked, pause, attempt: 2 },
        Event::Retrying { migration: None, reason: lost, pause, attempt: 2 },
        Event::UpToDate { applied: 3 },
        Event::Done { applied: 1, took: left, lock_wait: Duration::ZERO },
        Event::Done { applied: 2, took: left, lock_wait: pause },
        Event::Skipped,
        Event::NotForApp { app: "sh".to_owned() },
        Event::Starting { app: "node".to_owned() },
    ]
}

fn mismatches() -> Vec<HistoryMismatch> {
    let edited = EditedMigration {
        migration: name(),
        file: "0000_a.sql".to_owned(),
        recorded_hash: "1f2e".to_owned(),
        current_hash: "3d4c".to_owned(),
    };
    vec![
        HistoryMismatch::Edited { migrations: vec![edited] },
        HistoryMismatch::Ambiguous { rows: rows(), migrations: names() },
        HistoryMismatch::NothingMatches { row_count: 2, migration_count: 3 },
        HistoryMismatch::OlderThanHistory {
            migrations: names(),
            first_applied: "0002_c".to_owned(),
        },
        HistoryMismatch::PossiblyApplied { migrations: vec![name()], rows: rows() },
        HistoryMismatch::NotUpgradable { rows: rows() },
        HistoryMismatch::Strict { migrations: names(), rows: rows(), files: vec![] },
        HistoryMismatch::Strict { migrations: vec![], rows: vec![], files: files() },
    ]
}

fn apply_errors() -> Vec<ApplyError> {
    let stop = StopFlag::default();
    stop.raise(15);
    let signal = stop.raised().unwrap();
    let table = Table::new("drizzle", "t");
    let not_runnable =
        NotRunnable { file: "a.sql".to_owned(), position: None, reason: Reason::CopyToClient };
    let position = Some(LineColumn { line: 1, column: 2 });
    let changed = ChangedStep { file: "a.sql".to_owned(), step: 1, position, done: 2 };
    let abandoned = AbandonedProgress {
        migration: name(),
        rename_sql: "update".to_owned(),
        forget_sql: "delete".to_owned(),
    };
    let broken = LostConnection {
        migration: Some(name()),
        step: Some(1),
        began: true,
        completed: 0,
        statements: 2,
        cause: ConnectionError::TimedOut,
    };
    let unknown = UnknownOutcome {
        migration: name(),
        statement: "call p()".to_owned(),
        done: "update p set finished = true".to_owned(),
        again: "delete from p".to_owned(),
    };
    let interrupted = |outside_transaction, confirmed| ApplyError::Stopped {
        signal,
        rolled_back: Some(RolledBack { migration: Some(name()), confirmed, outside_transaction }),
    };
    let (migration, pid, index) = (name(), "7".to_owned(), "i".to_owned());
    let grant = "grant create on schema drizzle to app;".to_owned();
    let [problem, view, rule] = [
        TableProblem::NotOfDrizzle("has no column hash".to_owned()),
        TableProblem::NotATable("a view"),
        TableProblem::HasRules("log_insert".to_owned()),
    ];
    let mut errors = vec![
        ApplyError::NotRunnable { migrations: vec![not_runnable] },
        ApplyError::NotHistoryTable { table: table.clone(), problem },
        ApplyError::NotHistoryTable { table: table.clone(), problem: view },
        ApplyError::NotHistoryTable { table: table.clone(), problem: rule },
        ApplyError::Unreachable { attempts: vec![attempt()] },
        ApplyError::ReadOnly,
        too_large(),
        ApplyError::ChangedSteps { migrations: vec![changed] },
        ApplyError::AbandonedProgress { migrations: vec![abandoned] },
        ApplyError::UnknownOutcome(Box::new(unknown)),
        ApplyError::StaleBackend { migration, pid: pid.clone(), error: None },
        ApplyError::StaleBackend { migration: name(), pid, error: Some(server_error()) },
        ApplyError::IndexBeingBuilt { migration: name(), index },
        ApplyError::NoSecondConnection { migration: name() },
        ApplyError::PooledSettings {
            migration: name(),
            settings: vec!["set maintenance_work_mem = '1GB'".to_owned()],
        },
        ApplyError::SettingReset {
            file: "0000_a.sql".to_owned(),
            position: Some(LineColumn { line: 3, column: 1 }),
            setting: "search_path".to_owned(),
            origin: "schema in DATABASE_URL".to_owned(),
        },
        ApplyError::Failed(Box::new(failure())),
        lost(Phase::LostTransaction),
        lost(Phase::LostRehearsal),
        ApplyError::ConnectionLost(Box::new(broken)),
        ApplyError::HistoryKeepsChanging(table.clone()),
        ApplyError::HistoryTimeout(table),
        ApplyError::PermissionDenied { error: server_error(), statements: vec![grant] },
        ApplyError::LockedOut { holder: held_by(HolderKind::Runner) },
        ApplyError::LockedOut { holder: held_by(HolderKind::Autovacuum) },
        ApplyError::LockedOut { holder: HeldBy::Gone },
        ApplyError::LockTimeout { failure: Box::new(bare_failure()), blocker: Some(blocker()) },
        ApplyError::Stopped { signal, rolled_back: None },
        interrupted(None, true),
        interrupted(None, false),
        interrupted(Some("CREATE INDEX CONCURRENTLY"), true),
        interrupted(Some("REINDEX CONCURRENTLY"), true),
        interrupted(Some("VACUUM"), false),
        not_created(
            None,
            ServerError {
                message: "permission denied to create database".to_owned(),
                ..server_error()
            },
        ),
        not_created(None, template_in_use()),
        not_created(Some("main"), template_in_use()),
        not_created(
            Some("main"),
            ServerError {
                code: "3D000".to_owned(),
                message: "template database \"main\" does not exist".to_owned(),
                ..server_error()
            },
        ),
        not_created(
            None,
            ServerError {
                code: "53100".to_owned(),
                message: "could not extend file: No space left on device".to_owned(),
                hint: Some("Check free disk space.".to_owned()),
                ..server_error()
            },
        ),
        ApplyError::NoSuchMigration { name: name() },
        ApplyError::ThroughIsBehind { name: name(), later: "0001_b".to_owned() },
        ApplyError::NotEmpty,
        ApplyError::NotApplied { migrations: names() },
    ];
    errors.extend(all_advice().into_iter().map(|advice| {
        let advice = Some(advice);
        ApplyError::Failed(Box::new(Failure { advice, ..bare_failure() }))
    }));
    errors.extend(mismatches().into_iter().map(ApplyError::HistoryMismatch));
    errors
}

fn errors() -> Vec<Error> {
    let reason = ExecError { error: io::ErrorKind::NotFound.into(), hint: None };
    let problems = vec![LayoutProblem::Unrecognized];
    let error = io::ErrorKind::NotFound.into();
    let mut errors = vec![
        Error::Usage(UsageError::NoApp),
        Error::Config(ConfigError::NoDatabase),
        Error::Config(ConfigError::UnusedTemplate),
        Error::Config(ConfigError::NotAList {
            name: "--since".to_owned(),
            path: "status.txt".into(),
        }),
        Error::Config(ConfigError::Listen {
            address: HealthAddress::Every(8080),
            error: io::ErrorKind::AddrInUse.into(),
        }),
        Error::Config(ConfigError::NotWritten {
            option: "--svg",
            path: "/m/r.svg".into(),
            error: io::ErrorKind::NotFound.into(),
        }),
        Error::Unreadable(Unreadable::NothingEmbedded),
        Error::Unreadable(Unreadable::Path { path: "/m".to_owned(), error }),
        Error::InvalidSet { origin: Origin::Bundled { from: "drizzle".to_owned() }, problems },
        Error::Unreadable(Unreadable::Damaged(Damage::Changed)),
        Error::New(NewError::Empty),
        Error::Extract(ExtractError::NotEmpty("/m".into())),
        Error::Extract(ExtractError::Io {
            path: "/m".into(),
            error: io::ErrorKind::NotFound.into(),
        }),
        Error::Signals(io::ErrorKind::NotFound.into()),
        Error::OutOfMemory,
        Error::App { program: "node".to_owned(), reason },
    ];
    errors.extend(bundle_errors().into_iter().map(Error::Bundle));
    errors.extend(apply_errors().into_iter().map(Error::from));
    let still_pending = ApplyError::StillPending { holder: None };
    errors.push(RunFailure { pending: names(), ..still_pending.into() }.into());
    errors
}

fn bundle_errors() -> Vec<BundleError> {
    let path = || PathBuf::from("/m");
    let error = || io::ErrorKind::PermissionDenied.into();
    let finding = Finding {
        file: Some("0000_a.sql".to_owned()),
        position: Some(LineColumn { line: 1, column: 1 }),
        rule: Rule::RollsBack,
        message: "the file contains `rollback`".to_owned(),
        effect: None,
        size: None,
        patch: None,
    };
    let unsuitable = |reason| BundleError::Unsuitable { path: Some(path()), reason };
    vec![
        BundleError::Faulty { dir: path(), findings: vec![finding] },
        BundleError::Executable(io::ErrorKind::Unsupported.into()),
        BundleError::Executable(error()),
        BundleError::Base { path: path(), error: error() },
        BundleError::Unsuitable { path: None, reason: Unsuitable::Changed },
        unsuitable(Unsuitable::NotElf),
        unsuitable(Unsuitable::NoNote),
        unsuitable(Unsuitable::Changed),
        unsuitable(Unsuitable::Format(2)),
        BundleError::NotAFile(path()),
        BundleError::Write { path: path(), error: error() },
    ]
}

/// An object, no field of which stands twice.
fn parsed(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let again = value.to_string() + "\n";
    assert_eq!(again.len(), line.len(), "a field stands twice: {line}");
    value
}

#[test]
fn every_event_is_an_object_with_its_name() {
    for event in events() {
        let value = parsed(&super::event(&event, Format::Json));
        assert!(value["event"].is_string(), "{event:?}: {value}");
    }
}

#[test]
fn every_error_is_an_object_with_a_code_and_a_message() {
    for error in errors() {
        for with_app in [false, true] {
            let value = parsed(&super::ended(&error, with_app, Format::Json, &Commands::default()));
            for field in ["event", "error", "message"] {
                assert!(value[field].is_string(), "{field} of {error:?}: {value}");
            }
            assert_eq!(value["exit_code"], error.exit_code());
            assert_eq!(value["app_started"].is_boolean(), with_app, "{value}");
        }
    }
}

/// Every text and its JSON, to be read by a person. `UPDATE_MESSAGES=1` writes the file anew.
#[test]
fn every_message_is_the_one_in_messages_txt() {
    let events = events().into_iter().map(|event| {
        let [text, json] = [Format::Text, Format::Json].map(|format| super::event(&event, format));
        text + &json
    });
    let errors = errors().into_iter().map(|error| {
        let text = super::ended(&error, true, Format::Text, &Commands::default());
        text + &super::ended(&error, true, Format::Json, &Commands::default())
    });
    let messages: Vec<String> = events.chain(errors).collect();
    let messages = messages.join("\n");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/render/messages.txt");
        std::fs::write(path, &messages).unwrap();
        return;
    }
    let expected = include_str!("messages.txt");
    for (line, (message, expected)) in (1..).zip(messages.lines().zip(expected.lines())) {
        assert_eq!(message, expected, "line {line}");
    }
    assert_eq!(messages.len(), expected.len());
}

#[test]
fn a_run_that_failed_has_the_data_of_its_error_and_what_it_did() {
    let error = ApplyError::HistoryMismatch(mismatches().remove(0));
    let step = StepNumber { step: 2, of: 4 };
    let in_progress = InProgress { migration: name(), step, outside_transaction: Some("VACUUM") };
    let run = RunFailure {
        error,
        applied: names(),
        pending: names(),
        uncertain: Vec::new(),
        in_progress: Some(in_progress),
    };
    let mut value =
        parsed(&super::ended(&Error::from(run), true, Format::Json, &Commands::default()));
    let message = value.as_object_mut().unwrap().remove("message").unwrap();
    assert!(message.as_str().unwrap().contains("nothing more was run"), "{message}");
    assert_eq!(
        value,
        json!({
            "event": "error",
            "error": "history_mismatch",
            "mismatch": "edited",
            "migrations": [{
                "migration": "0000_a",
                "file": "0000_a.sql",
                "recorded_hash": "1f2e",
                "current_hash": "3d4c",
            }],
            "applied": ["0000_a", "0001_b"],
            "pending": ["0000_a", "0001_b"],
            "uncertain": [],
            "in_progress": {
                "migration": "0000_a",
                "step": 2,
                "step_count": 4,
                "outside_transaction": "VACUUM",
            },
            "exit_code": 65,
            "app_started": false,
        })
    );
}

#[test]
fn an_error_has_its_first_words_the_severity_and_the_caret_in_red() {
    let mut failure = failure();
    failure.error.message = "no\n    ERROR of others ^\u{1b}".to_owned();
    let error = Error::from(ApplyError::Failed(Box::new(failure)));
    let style = crate::cli::config::Style { format: Format::Text, is_colored: true };
    let colored = super::ended(&error, false, style, &Commands::default());
    let plain = super::ended(&error, false, Format::Text, &Commands::default());
    let red: Vec<_> = colored
        .split("\u{1b}[1;31m")
        .skip(1)
        .filter_map(|rest| rest.split("\u{1b}[0m").next())
        .collect();
    assert_eq!(red, ["premigrate:", "ERROR", "^", "^"]);
    assert_eq!(colored.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", ""), plain);
    assert!(plain.contains("ERROR of others ^\\u{1b}"), "{plain}");
}
