//! The text of a failed migration: the server's error, the position in the file, and our advice.

use std::fmt::Write as _;

use serde::Serialize;

use crate::apply::event::StepNumber;
use crate::apply::failure::{Advice, Excerpt, ExtensionState, Failure, LimitSource, Phase, Place};
use crate::cli::args::{CommandName, Commands, shell_word};
use crate::postgres::server_error::{Position, ServerError};
use crate::sql::quote;

use super::color::{Color, paint};
use super::{clean, indented, one_line, place_text, subject};

/// What others wrote is escaped in it.
pub fn text(failure: &Failure, commands: &Commands, is_colored: bool) -> String {
    if failure.phase == Phase::LostTransaction {
        return lost_transaction_text(failure, commands);
    }
    if failure.phase == Phase::LostRehearsal {
        return format!(
            "{} ended the transaction of the rehearsal\n\n  Part of what was rehearsed may be \
             committed: compare the database with the files, and undo what is there.\n  Remove what ends \
             the transaction from the file before it is applied or rehearsed again.",
            subject(&failure.migration)
        );
    }
    if failure.phase == Phase::Sizes {
        let error = server_text(&failure.error, is_colored);
        let text = format!(
            "the sizes of tables could not be read for --max-blocking; nothing was run\n\n{error}"
        );
        return text.trim_end().to_owned();
    }
    let mut text = format!("{} failed", subject(&failure.migration));
    if let Some(StepNumber { step, of }) = failure.step {
        let _ = write!(text, " in step {step} of {of}");
    }
    if failure.outside_transaction.is_none() {
        text.push_str(" and was rolled back");
    }
    text.push_str("\n\n");
    text.push_str(&server_text(&failure.error, is_colored));
    let statement = statement_text(failure);
    let _ = match (&failure.file, failure.position) {
        (Some(file), position @ Some(_)) => {
            let by_name = if failure.place == Some(Place::Name) { " (found by name)" } else { "" };
            writeln!(text, "  at {}{by_name}, {statement}", place_text(file, position))
        }
        (Some(file), None) => writeln!(text, "  {}, {statement}", one_line(file)),
        (None, _) => writeln!(text, "  {statement}"),
    };
    if let Some(excerpt) = &failure.excerpt {
        let _ = write!(text, "\n{}", excerpt_text(excerpt, is_colored));
    }
    if let Some(advice) = &failure.advice {
        let _ = write!(text, "\n{}", advice_text(&paragraphs(advice, commands)));
    }
    if let Some(kind @ "CREATE INDEX CONCURRENTLY") = failure.outside_transaction {
        let _ = write!(text, "\n  {}.\n", left_by(kind));
    }
    text.trim_end().to_owned()
}

/// Without the server's error, which is about a guard of ours.
fn lost_transaction_text(failure: &Failure, commands: &Commands) -> String {
    let name = failure.migration.as_deref().unwrap_or("NAME");
    let baseline = commands.line(CommandName::Baseline, &format!("--through {}", shell_word(name)));
    format!(
        "{} ended its own transaction and was not recorded\n\n  Part of it may be committed: compare \
         the database with the file.\n  If all of it is there, record it: run `{}`.\n  If not, undo \
         what is there, remove what ends the transaction from the file, and start premigrate again.",
        subject(&failure.migration),
        one_line(&baseline)
    )
}

/// The statement that failed, or else the part of the transaction.
fn statement_text(failure: &Failure) -> String {
    match (failure.statement, failure.phase) {
        (Some(statement), _) => format!("statement {statement} of {}", failure.statements),
        (None, Phase::Repair) => "while repairing what an earlier attempt left".to_owned(),
        (None, Phase::Sizes) => "while the sizes of tables were read".to_owned(),
        (None, Phase::Begin) => "at the start of its transaction".to_owned(),
        (None, Phase::Replay) => "at a setting of an earlier step".to_owned(),
        (None, Phase::Statement) => format!("in one of {} statements", failure.statements),
        (None, Phase::Deferred) => "at its end, where deferred constraints are checked".to_owned(),
        (None, Phase::Record | Phase::LostTransaction | Phase::LostRehearsal) => {
            "at its history row".to_owned()
        }
        (None, Phase::Commit) => "at COMMIT".to_owned(),
    }
}

/// A paragraph of an advice.
enum Paragraph {
    Text(String),
    /// SQL to run, or a line to write.
    Sql(String),
}

use Paragraph::{Sql, Text};

fn advice_text(paragraphs: &[Paragraph]) -> String {
    let paragraphs = paragraphs.iter().map(|paragraph| match paragraph {
        Text(text) => format!("  {}\n", one_line(text)),
        Sql(sql) => format!("    {}\n", one_line(sql)),
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// An advice in JSON: a code for programs, and its paragraphs.
#[derive(Serialize)]
pub struct AdviceReport {
    code: &'static str,
    message: String,
}

impl AdviceReport {
    pub fn new(advice: &Advice, commands: &Commands) -> AdviceReport {
        let paragraphs = paragraphs(advice, commands).into_iter();
        let paragraphs = paragraphs.map(|(Text(text) | Sql(text))| one_line(&text));
        AdviceReport { code: advice.code(), message: paragraphs.collect::<Vec<_>>().join(" ") }
    }
}

fn paragraphs(advice: &Advice, commands: &Commands) -> Vec<Paragraph> {
    match advice {
        Advice::Baseline => vec![Text(format!(
            "No applied migration created it. If the database was made by other means, \
             such as drizzle-kit push, record what it has: run `{}`, or set \
             PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.",
            commands.line(CommandName::Baseline, "--through NAME")
        ))],
        Advice::Superseded { migration, later, skipped_by_drizzle } => {
            vec![Text(superseded_text(migration, later, *skipped_by_drizzle, commands))]
        }
        Advice::SharedRole => vec![
            Text(
                "All databases of a server share their roles, so another database may have created \
                 it. Create it only if it is missing:"
                    .to_owned(),
            ),
            Sql("DO $$ BEGIN CREATE ROLE ...; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
                .to_owned()),
        ],
        Advice::IfNotExists => vec![Text(
            "A new database may have it already. Write IF NOT EXISTS in this statement.".to_owned(),
        )],
        Advice::NoTransaction => vec![
            Text(
                "This statement cannot share a transaction with the others. Add the line"
                    .to_owned(),
            ),
            Sql("-- premigrate: no-transaction".to_owned()),
            Text("to the file. Each statement then runs, and is recorded, on its own.".to_owned()),
        ],
        Advice::TimeLimit { limit, source } => time_limit(limit.as_deref(), source),
        Advice::Cancelled => vec![Text(
            "Another session cancelled the statement, with pg_cancel_backend for example. Find out \
             which, and run premigrate again."
                .to_owned(),
        )],
        Advice::PendingTriggers { no_transaction } => pending_triggers(*no_transaction),
        Advice::Grant { sql } => {
            vec![Text("Ask the owner of the schema to run:".to_owned()), Sql(format!("{sql};"))]
        }
        Advice::CreateSchema { sql } => vec![
            Text("Create the schema before this statement, or correct its name:".to_owned()),
            Sql(format!("{sql};")),
        ],
        Advice::NoSchema { search_path } => {
            let value = search_path.as_ref().map(|value| format!(" ({value})"));
            vec![Text(format!(
                "No schema in search_path{} exists and can be used by this role. Create one with \
                 CREATE SCHEMA, or write the name of another schema in the statement.",
                value.unwrap_or_default()
            ))]
        }
        Advice::Extension { extension, state } => extension_advice(extension, state),
        Advice::InvisibleCharacter { character, position } => vec![Text(format!(
            "The character at line {}, column {} is {character}. It cannot be seen, and PostgreSQL \
             does not treat it as white space. Remove it, or replace it with a space.",
            position.line, position.column
        ))],
    }
}

fn superseded_text(
    migration: &str,
    later: &str,
    skipped_by_drizzle: bool,
    commands: &Commands,
) -> String {
    let skipped = match skipped_by_drizzle {
        true => "drizzle-orm skips a migration that is older than the last one applied, and a",
        false => "A",
    };
    let through = format!("--through {}", shell_word(migration));
    format!(
        "{skipped} later migration, {later}, has probably made the same change. If the database has \
         all that this one would change, record it without running it: run `{}`, or set \
         PREMIGRATE_BASELINE_THROUGH={migration}",
        commands.line(CommandName::Baseline, &through)
    )
}

fn time_limit(limit: Option<&str>, source: &LimitSource) -> Vec<Paragraph> {
    let limit = limit.unwrap_or_default();
    let whose = match source {
        LimitSource::File => {
            let text = "The file itself sets statement_timeout. Raise it there, or remove it.";
            return vec![Text(text.to_owned())];
        }
        LimitSource::Option => {
            return vec![Text(format!(
                "--statement-timeout is {limit}. Raise it, or set it to 0 for no limit; its variable \
                 is PREMIGRATE_STATEMENT_TIMEOUT."
            ))];
        }
        LimitSource::PastPooler(role) => {
            return vec![
                Text(format!(
                    "statement_timeout is {limit}, and a pooler keeps premigrate from changing it for \
                     a statement outside a transaction. Connect directly to the server, or run:"
                )),
                Sql(format!("alter role {} set statement_timeout = 0;", quote::ident(role))),
            ];
        }
        LimitSource::Role(role) => format!("for the role {role}"),
        LimitSource::Database(database) => format!("for the database {database}"),
        LimitSource::Connection => "for this connection".to_owned(),
        LimitSource::Server => "in the server's configuration".to_owned(),
    };
    vec![Text(format!(
        "statement_timeout is {limit} {whose}. To lift it for migrations, pass --statement-timeout 0, \
         or set PREMIGRATE_STATEMENT_TIMEOUT=0."
    ))]
}

fn pending_triggers(no_transaction: bool) -> Vec<Paragraph> {
    let line = match no_transaction {
        true => "add the line `-- premigrate: no-transaction` to the file, or ",
        false => "",
    };
    vec![
        Text(
            "Earlier statements changed rows of this table, and deferred constraints have still to \
             check them. Check them now, with this line before the statement:"
                .to_owned(),
        ),
        Sql("SET CONSTRAINTS ALL IMMEDIATE;".to_owned()),
        Text(format!("Or {line}split it into two migrations.")),
    ]
}

fn extension_advice(extension: &str, state: &ExtensionState) -> Vec<Paragraph> {
    let create = || Sql(format!("CREATE EXTENSION IF NOT EXISTS {};", quote::ident(extension)));
    match state {
        ExtensionState::NotCreated => vec![
            Text(format!(
                "This statement needs the extension {extension}, which this database does not have. \
                 Create it before this statement, or have an administrator do so:"
            )),
            create(),
        ],
        ExtensionState::NotAvailable => vec![
            Text(format!(
                "This statement needs the extension {extension}, which is not installed on this \
                 server. Use a server or an image that has it, then create it before this statement:"
            )),
            create(),
        ],
        ExtensionState::InSchema(schema) => vec![Text(format!(
            "This statement needs the extension {extension}, which this database has in the schema \
             {schema}. Add that schema to search_path, or write {}. before the name.",
            quote::ident(schema)
        ))],
    }
}

/// What remains of a statement outside a transaction that did not finish.
pub fn left_by(kind: &str) -> &'static str {
    match kind {
        "CREATE INDEX CONCURRENTLY" => {
            "A concurrent build cannot be rolled back. It may leave an invalid index, which the next \
             run drops and builds again if the statement names it"
        }
        "REINDEX CONCURRENTLY" => {
            "It cannot be rolled back. It may leave invalid indexes named ..._ccnew or ..._ccold, \
             which the next run lists once it has repeated the statement"
        }
        _ => {
            "It cannot be rolled back. The next run repeats it if that is safe, and otherwise stops \
             and prints SQL for both cases"
        }
    }
}

/// The server's error with all its fields, as psql shows them.
fn server_text(error: &ServerError, is_colored: bool) -> String {
    let severity = paint(&one_line(&error.severity), Color::Red, is_colored);
    let (code, message) = (one_line(&error.code), clean(&indented(&error.message)));
    let mut text = format!("  {severity} {code}: {message}\n");
    if let Some(Position::InInternalQuery { query, position }) = &error.position {
        let before: String = query.chars().take(position.saturating_sub(1)).collect();
        let line = query.lines().nth(before.matches('\n').count()).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let caret = paint("^", Color::Red, is_colored);
        let _ = writeln!(text, "  QUERY: {}\n         {}{caret}", clean(line), " ".repeat(column));
    }
    for (name, value) in [
        ("DETAIL", &error.detail),
        ("HINT", &error.hint),
        ("CONTEXT", &error.context),
        ("SCHEMA", &error.schema),
        ("TABLE", &error.table),
        ("COLUMN", &error.column),
        ("DATATYPE", &error.datatype),
        ("CONSTRAINT", &error.constraint),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {}", clean(&indented(value)));
        }
    }
    text
}

/// How many characters of a line are shown before and after the caret.
const BEFORE: usize = 60;
const AFTER: usize = 60;

fn excerpt_text(excerpt: &Excerpt, is_colored: bool) -> String {
    let width = excerpt.lines.last().map_or(0, |line| line.number.to_string().len()).max(3);
    let column = excerpt.caret.unwrap_or(1);
    // A line may be a megabyte of data. All lines are cut alike, so that the caret stays in place.
    let skipped = column.saturating_sub(1 + BEFORE);
    let mut text = String::new();
    for line in &excerpt.lines {
        let shown: String = line
            .text
            .chars()
            .skip(skipped)
            .take(BEFORE + AFTER)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let _ = writeln!(text, "  {:>width$} | {}", line.number, clean(shown.trim_end()));
    }
    if excerpt.caret.is_some() {
        let caret = paint("^", Color::Red, is_colored);
        let _ = writeln!(text, "  {:width$} | {}{caret}", "", " ".repeat(column - 1 - skipped));
    }
    text
}
