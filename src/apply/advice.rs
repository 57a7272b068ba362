//! What to do about a failure, where we know it and the server does not say it.
//!
//! `Runner::advice` finds it, and asks the server where that is needed. It goes by the SQLSTATE, by
//! the function of the server that raised the error and by the name in the message, which are the
//! same in every language of `lc_messages`.

use std::collections::HashSet;

use crate::migrations::migration::{Layout, MigrationSet};
use crate::postgres::conninfo::ServerSetting;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::Session;
use crate::process::signals::Deadline;
use crate::sql::invisible::{self, Invisible};
use crate::sql::quote::{self, EQ};
use crate::sql::{Kind, Positions, Script, Statement, Statements};

use super::Runner;
use super::error::ApplyError;
use super::extensions::extension_of;
use super::failure::{Advice, ExtensionState, Failure, LimitSource, Phase};
use super::lock_session::CLEANUP_TIMEOUT;

/// Where a migration failed.
struct Site<'a> {
    failure: &'a Failure,
    /// The migration's index in the set.
    index: usize,
    script: &'a Script<'a>,
}

impl<'a> Site<'a> {
    fn error(&self) -> &'a ServerError {
        &self.failure.error
    }

    /// The statement that failed.
    fn statement(&self) -> Option<Statement<'a>> {
        self.script.statements().get(self.failure.statement?.checked_sub(1)?)
    }

    /// The statements before it.
    fn before(&self) -> Statements<'a, 'a> {
        let count = self.failure.statement.unwrap_or_default().saturating_sub(1);
        self.script.statements().range(0..count)
    }

    /// Whether the `no-transaction` line is a cure: the file does not have it already, and what
    /// failed is not a `SET TRANSACTION`, which has no effect outside a transaction.
    fn may_leave_transaction(&self) -> bool {
        self.failure.outside_transaction.is_none()
            && !self.script.no_transaction()
            && self.statement().is_none_or(|statement| statement.kind != Kind::SetTransaction)
    }

    /// Whether the file itself decides where names are looked up.
    fn sets_search_path(&self) -> bool {
        self.before().iter().any(|statement| sets(statement.text, "search_path"))
    }
}

impl Runner<'_> {
    /// Adds our advice to the failure of a migration.
    pub(super) fn with_advice(&self, error: ApplyError, session: &Session) -> ApplyError {
        match error {
            ApplyError::Failed(mut failure) => {
                failure.advice = self.advice(&failure, session);
                ApplyError::Failed(failure)
            }
            error => error,
        }
    }

    fn advice(&self, failure: &Failure, session: &Session) -> Option<Advice> {
        let name = failure.migration.as_ref()?;
        let index = self.set.migrations().iter().position(|migration| migration.name == *name)?;
        let script = Script::parse(self.set.get(index)?.sql().ok()?);
        let site = Site { failure, index, script: &script };
        let error = &failure.error;
        match (error.code.as_str(), failure.phase) {
            (_, Phase::LostTransaction | Phase::LostRehearsal) => None,
            // What refuses a transaction block, a procedure that commits, a new value of an enum.
            ("25001" | "2D000" | "55P04", _) => {
                site.may_leave_transaction().then_some(Advice::NoTransaction)
            }
            ("57014", Phase::Statement | Phase::Deferred) => Some(self.time_limit(&site, session)),
            ("55006", Phase::Statement) => pending_triggers(&site),
            ("42501", Phase::Statement) => self.missing_grant(&site, session),
            ("3F000", Phase::Statement) => {
                invisible_character(&site).or_else(|| self.missing_schema(&site, session))
            }
            ("42704" | "42883", Phase::Statement) => {
                invisible_character(&site).or_else(|| self.missing_extension(&site, session))
            }
            // Duplicate table, object, schema, column, function.
            ("42P07" | "42710" | "42P06" | "42701" | "42723", Phase::Statement) => {
                let pending: HashSet<_> = self.pending.iter().map(String::as_str).collect();
                let is_applied = |name: &str| !pending.contains(name);
                existing_object(&site, self.set, is_applied, self.has_unknown_rows)
            }
            // Syntax and names, and values that cannot be read.
            (_, Phase::Statement) if error.is_class("42") || error.is_class("22") => {
                invisible_character(&site)
            }
            _ => None,
        }
    }

    /// Whose limit ended the statement. The message only says that in English.
    fn time_limit(&self, site: &Site<'_>, session: &Session) -> Advice {
        if site.error().message.ends_with("user request") {
            return Advice::Cancelled;
        }
        let in_file =
            site.before().iter().rfind(|statement| mentions(statement.text, "statement_timeout"));
        if in_file.is_some_and(|statement| sets(statement.text, "statement_timeout")) {
            return Advice::TimeLimit { limit: None, source: LimitSource::File };
        }
        let passes_pooler = site.failure.outside_transaction.is_none() || !self.pooler_noted;
        if let Some(limit) = self.options.statement_timeout.filter(|_| passes_pooler) {
            let limit = format!("{}ms", limit.as_millis());
            return Advice::limited(limit, LimitSource::Option);
        }
        let row = self.ask(
            session,
            &format!(
                "select setting, source from pg_catalog.pg_settings \
                 where name {EQ} 'statement_timeout'"
            ),
        );
        let [Some(limit), Some(source)] = row.as_slice() else { return Advice::Cancelled };
        let user = self.options.target.user.clone();
        let source = match source.as_str() {
            _ if !passes_pooler => LimitSource::PastPooler(user),
            "user" | "database user" => LimitSource::Role(user),
            "database" => LimitSource::Database(self.options.target.dbname.clone()),
            "client" | "session" => LimitSource::Connection,
            _ => LimitSource::Server,
        };
        Advice::limited(format!("{limit}ms"), source)
    }

    /// A schema that the role may not use, or not create in.
    fn missing_grant(&self, site: &Site<'_>, session: &Session) -> Option<Advice> {
        if !site.error().is_from("aclcheck_error") {
            return None;
        }
        let denied = self.ask_all(
            session,
            "select nspname, pg_catalog.has_schema_privilege(oid, 'usage'), current_user \
             from pg_catalog.pg_namespace where not pg_catalog.has_schema_privilege(oid, 'create')",
        );
        let message = &site.error().message;
        let named = denied.iter().filter_map(|row| match row.as_slice() {
            [Some(schema), Some(usage), Some(role)] if names_schema(message, schema) => {
                Some((schema, usage == "t", role))
            }
            _ => None,
        });
        let (schema, has_usage, role) = named.max_by_key(|(schema, ..)| schema.len())?;
        let privileges = match (has_usage, site.statement().as_ref().is_some_and(changes_schema)) {
            (true, _) => "create",
            (false, true) => "usage, create",
            (false, false) => "usage",
        };
        let (schema, role) = (quote::ident(schema), quote::ident(role));
        Some(Advice::Grant { sql: format!("grant {privileges} on schema {schema} to {role}") })
    }

    /// A schema that is not there: the one that the statement names, or all those of search_path.
    fn missing_schema(&self, site: &Site<'_>, session: &Session) -> Option<Advice> {
        let error = site.error();
        if error.is_from("RangeVarGetCreationNamespace")
            || error.is_from("QualifiedNameGetCreationNamespace")
        {
            let row = self.ask(session, "select pg_catalog.current_setting('search_path')");
            let search_path = row.into_iter().next().flatten();
            let search_path = search_path.filter(|_| !site.sets_search_path());
            return Some(Advice::NoSchema { search_path });
        }
        let extension = self.missing_extension(site, session);
        extension.or_else(|| {
            let sql = format!("create schema {}", quote::ident(error.quoted_name()?));
            Some(Advice::CreateSchema { sql })
        })
    }

    /// The extension that has what is missing, where the extension is missing too.
    fn missing_extension(&self, site: &Site<'_>, session: &Session) -> Option<Advice> {
        let error = site.error();
        let object = match error.code.as_str() {
            "42883" => function_name(&error.message)?,
            _ => error.quoted_name()?,
        };
        let extension = extension_of(object)?;
        let name = quote::literal(extension);
        let installed = self.ask(
            session,
            &format!(
                "select nspname, nspname {EQ} any \
                 (pg_catalog.current_schemas(true)) from pg_catalog.pg_extension \
                 join pg_catalog.pg_namespace n on n.oid {EQ} extnamespace \
                 where extname {EQ} {name}"
            ),
        );
        let state = match installed.as_slice() {
            [Some(schema), Some(in_path)] if in_path == "f" || site.sets_search_path() => {
                ExtensionState::InSchema(schema.clone())
            }
            // Then something else is wrong, such as the types of the arguments.
            [Some(_), _] => return None,
            _ => {
                let available = self.ask_all(
                    session,
                    &format!(
                        "select name from pg_catalog.pg_available_extensions \
                         where name {EQ} {name}"
                    ),
                );
                match available.is_empty() {
                    true => ExtensionState::NotAvailable,
                    false => ExtensionState::NotCreated,
                }
            }
        };
        Some(Advice::Extension { extension: extension.to_owned(), state })
    }

    /// The rows of a query under the settings of the connection string, which migrations have; none
    /// if it fails: advice must never hide the error.
    fn ask_all(&self, session: &Session, sql: &str) -> Vec<Vec<Option<String>>> {
        let deadline = Deadline::after(CLEANUP_TIMEOUT, self.stop);
        let settings = self.options.target.settings.all().map(ServerSetting::set_local_sql);
        let statements: Vec<_> = settings.chain([sql.to_owned()]).collect();
        let mut results = session.query(&statements.join("; "), deadline).unwrap_or_default();
        results.pop().map(|result| result.rows).unwrap_or_default()
    }

    /// The last row of a query.
    fn ask(&self, session: &Session, sql: &str) -> Vec<Option<String>> {
        self.ask_all(session, sql).pop().unwrap_or_default()
    }
}

impl Advice {
    /// Where the limit is zero, nothing limits the statement, and somebody has cancelled it.
    fn limited(limit: String, source: LimitSource) -> Advice {
        match limit == "0ms" {
            true => Advice::Cancelled,
            false => Advice::TimeLimit { limit: Some(limit), source },
        }
    }
}

/// The character that the server has stumbled over, if no one can see it: in a word, the last one
/// up to where the syntax is wrong; or else one in what the message is about.
fn invisible_character(site: &Site<'_>) -> Option<Advice> {
    let statement = site.statement()?;
    let named = named_in(site.error());
    let is_blamed =
        |invisible: Invisible| site.error().is("42601") || named.contains(invisible.character());
    let mut positions = Positions::new(site.script.text());
    let in_words = invisible::in_words(statement.text).filter(|place| is_blamed(place.invisible));
    let mut in_words = in_words.map(|place| {
        let [word, offset] = [place.word, place.offset].map(|at| statement.start + at);
        (positions.at(word), place.invisible, offset)
    });
    let first = in_words.next();
    let stopped = site.failure.position;
    let last = in_words.take_while(|(word, ..)| Some(*word) <= stopped).last();
    let (invisible, offset) = match last.or(first) {
        Some((_, invisible, offset)) => (invisible, offset),
        None => {
            let (offset, invisible) = quoted_invisible(statement.text, named)?;
            (invisible, statement.start + offset)
        }
    };
    let position = Positions::new(site.script.text()).at(offset);
    Some(Advice::InvisibleCharacter { character: invisible.to_string(), position })
}

/// The part of a message with what it is about.
fn named_in(error: &ServerError) -> &str {
    match error.code.as_str() {
        // The name of a function has no quotes.
        "42883" => error.message.split('(').next().and_then(|name| name.rsplit(' ').next()),
        _ => error.quoted_text(),
    }
    .unwrap_or(&error.message)
}

/// In a string, a quoted name, or the code of a function: where it is in the statement.
fn quoted_invisible(statement: &str, named: &str) -> Option<(usize, Invisible)> {
    let mut characters = named.char_indices();
    let (at, invisible) = characters.find_map(|(at, c)| Some((at, Invisible::of(c)?)))?;
    let whole = statement.find(named).map(|start| start + at);
    Some((whole.or_else(|| statement.find(invisible.character()))?, invisible))
}

/// A table cannot be altered while deferred checks of its rows are due. The other reason that comes
/// from the same function is an open cursor.
fn pending_triggers(site: &Site<'_>) -> Option<Advice> {
    let error = site.error();
    let is_pending =
        error.is_from("CheckTableNotInUse") && !error.message.contains("active queries");
    let no_transaction = site.may_leave_transaction();
    is_pending.then_some(Advice::PendingTriggers { no_transaction })
}

/// What it means that the migration makes something that is there already. Something else explains
/// that where an earlier migration, or an earlier statement of this one, names the object.
fn existing_object(
    site: &Site<'_>,
    set: &MigrationSet,
    is_applied: impl Fn(&str) -> bool,
    has_unknown_rows: bool,
) -> Option<Advice> {
    let error = site.error();
    if error.is_from("CreateRole") {
        return Some(Advice::SharedRole);
    }
    let name = error.quoted_name();
    if error.is_from("CreateExtension") || (error.is("42P06") && name == Some("public")) {
        return Some(Advice::IfNotExists);
    }
    // Tablespaces and databases belong to the server; steps that are done must not be repeated.
    let has_steps = site.failure.step.is_some_and(|step| step.step > 1);
    if error.is_from("CreateTableSpace") || has_steps {
        return None;
    }
    let names_it = |text: &str| name.is_none_or(|name| mentions(text, name));
    let applied = set.migrations().iter().enumerate().filter(|(_, other)| is_applied(&other.name));
    let mut naming =
        applied.filter(|(_, other)| other.unread().sql().is_ok_and(names_it)).peekable();
    let is_explained = naming.peek().is_some_and(|(index, _)| *index < site.index)
        || site.before().iter().any(|statement| names_it(statement.text));
    if is_explained {
        return None;
    }
    match naming.next() {
        Some((_, later)) => Some(Advice::Superseded {
            migration: site.failure.migration.clone()?,
            later: later.name.clone(),
            // By its time stamp. drizzle-orm 1.x goes by names.
            skipped_by_drizzle: set.layout() == Layout::Drizzle0,
        }),
        None if has_unknown_rows => None,
        None => Some(Advice::Baseline),
    }
}

/// Whether a statement gives this setting a value.
fn sets(statement: &str, setting: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default();
    mentions(statement, setting)
        && (first.eq_ignore_ascii_case("set") || mentions(statement, "set_config"))
}

/// Whether a text has this name as a word, in upper or lower case.
fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.match_indices(&name).any(|(start, found)| {
        let before = text.get(..start).and_then(|before| before.chars().next_back());
        let after = text.get(start + found.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether `permission denied for schema ...` is about this schema. Other languages have the name,
/// without quotes, anywhere in the message.
fn names_schema(message: &str, schema: &str) -> bool {
    match message.strip_prefix("permission denied for ") {
        Some(object) => object.strip_prefix("schema ") == Some(schema),
        None => mentions(message, schema),
    }
}

/// The name before the first parenthesis, in whatever language.
pub(super) fn function_name(message: &str) -> Option<&str> {
    let before = message.split_once('(')?.0;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_$.".contains(c);
    before.rsplit(|c| !is_part(c)).next().filter(|name| !name.is_empty())
}

fn changes_schema(statement: &Statement<'_>) -> bool {
    let first = statement.text.split_whitespace().next().unwrap_or_default();
    ["create", "alter"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_mentioned_as_a_whole_word() {
        for (text, name, expected) in [
            ("create table \"Users\" ()", "users", true),
            ("create table users()", "Users", true),
            ("create table app.users ()", "users", true),
            ("create table users_old ()", "users", false),
            ("create table old_users ()", "users", false),
            ("create table users_old (); drop table users", "users", true),
        ] {
            assert_eq!(mentions(text, name), expected, "{text}");
        }
    }

    #[test]
    fn a_setting_is_set_by_set_and_by_set_config() {
        for (statement, expected) in [
            ("SET LOCAL statement_timeout = '1s'", true),
            ("select set_config('statement_timeout', '1s', false)", true),
            ("reset statement_timeout", false),
            ("set lock_timeout = '1s'", false),
            ("select statement_timeout from settings", false),
        ] {
            assert_eq!(sets(statement, "statement_timeout"), expected, "{statement}");
        }
    }

    #[test]
    fn a_schema_is_found_in_the_message_in_any_language() {
        for (message, schema, expected) in [
            ("permission denied for schema app", "app", true),
            ("permission denied for schema my app", "my app", true),
            ("permission denied for schema my app", "app", false),
            ("permission denied for table app", "app", false),
            ("keine Berechtigung für Schema app", "app", true),
            ("keine Berechtigung für Tabelle app_users", "app", false),
        ] {
            assert_eq!(names_schema(message, schema), expected, "{message}");
        }
    }

    #[test]
    fn a_function_is_found_in_the_message_in_any_language() {
        for (message, name) in [
            ("function gen_random_bytes(integer) does not exist", Some("gen_random_bytes")),
            ("Funktion x.crypt(text) existiert nicht", Some("x.crypt")),
            ("関数crypt(text)は存在しません", Some("crypt")),
            ("type \"vector\" does not exist", None),
        ] {
            assert_eq!(function_name(message), name, "{message}");
        }
    }
}
