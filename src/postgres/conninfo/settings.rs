//! Settings of the server that a connection string names. Drivers send them in the startup packet,
//! where poolers drop or reject them, so that premigrate sets them in each transaction instead.

use super::error::Problem;
use super::keywords;
use crate::sql::quote;

/// A setting of the server, such as `search_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSetting {
    pub name: String,
    /// As in a startup packet: a list is one text.
    pub value: String,
    /// What asks for it, such as `schema in DATABASE_URL`.
    pub origin: String,
}

/// Our lexer reads SQL as the server does under this setting.
const LEXING: &str = "standard_conforming_strings";

impl ServerSetting {
    pub fn set_sql(&self) -> String {
        format!("select {}", self.set_config_sql(false))
    }

    /// Sets it until the transaction ends, and returns no row.
    pub fn set_local_sql(&self) -> String {
        format!("select where {} is null", self.set_config_sql(true))
    }

    /// `SET` would take a list for one name.
    fn set_config_sql(&self, local: bool) -> String {
        let (name, value) = (quote::literal(&self.name), quote::literal(&self.value));
        format!("pg_catalog.set_config({name}, {value}, {local})")
    }

    /// What a session has for it; for a search path, the schemas of it that exist.
    pub fn current_sql(&self) -> String {
        match self.name.as_str() {
            "search_path" => "pg_catalog.current_schemas(true)::pg_catalog.text".to_owned(),
            "role" => "current_user::pg_catalog.text".to_owned(),
            name => format!("pg_catalog.current_setting({}, true)", quote::literal(name)),
        }
    }
}

/// What migrations run under: our own setting, and those of the connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Holds for everything that is done in the database, and so for the history too.
    pub role: Option<ServerSetting>,
    /// Hold for migrations; each name once.
    pub others: Vec<ServerSetting>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let lexing = ServerSetting {
            name: LEXING.to_owned(),
            value: "on".to_owned(),
            origin: format!("{LEXING}, which premigrate turns on"),
        };
        Self { role: None, others: vec![lexing] }
    }
}

impl ServerSettings {
    /// Adds a setting, in the place of an earlier one of this name.
    pub(super) fn set(&mut self, setting: ServerSetting) {
        self.remove(&setting.name);
        match setting.name.as_str() {
            "role" => self.role = Some(setting),
            _ => self.others.push(setting),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.others.retain(|other| other.name != name);
    }

    /// Those of the connection string.
    pub fn of_connection_string(&self) -> impl Iterator<Item = &ServerSetting> {
        self.all().filter(|setting| setting.name != LEXING)
    }

    pub fn all(&self) -> impl Iterator<Item = &ServerSetting> {
        self.role.iter().chain(&self.others)
    }

    /// Sets the role until the transaction ends. Like every SET, it takes no snapshot.
    pub fn role_sql(&self) -> Option<String> {
        self.role.as_ref().map(|role| format!("set local role {}", quote::literal(&role.value)))
    }

    /// The same statements, which are no transaction of their own, under the role.
    pub fn under_role_sql(&self, sql: &str) -> String {
        self.role_sql().into_iter().chain([sql.to_owned()]).collect::<Vec<_>>().join(";\n")
    }
}

/// The name of a setting for a key of a connection string, if drivers take it for one.
pub(super) fn name_of(key: &str) -> Option<&'static str> {
    match key {
        // Prisma's and JDBC's.
        "schema" | "currentSchema" => Some("search_path"),
        key => {
            let mut names = SETTINGS.iter().copied();
            names.find(|name| name.eq_ignore_ascii_case(key))
        }
    }
}

/// The value that a key of a connection string asks for.
pub(super) fn value_of(key: &str, value: &str) -> String {
    match key {
        "schema" => quote::ident(value),
        _ => value.to_owned(),
    }
}

/// What `options` asks for, as names and values, and what is not for the server: words such as
/// Neon's `endpoint=NAME`, which a proxy reads from the startup packet and takes out of it.
pub(super) fn parse_options(text: &str) -> Result<(Vec<(String, String)>, String), Problem> {
    let (mut settings, mut for_proxy) = (Vec::new(), Vec::new());
    let mut words = words(text).into_iter();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_owned(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(setting)) => setting.to_owned(),
            (None, None) if !word.starts_with('-') && word.contains('=') => {
                for_proxy.push(word);
                continue;
            }
            (None, None) => return Err(Problem::Options),
        };
        let (name, value) = setting.split_once('=').ok_or(Problem::Options)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(Problem::Options);
        }
        settings.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
    }
    Ok((settings, for_proxy.join(" ")))
}

/// The server's way to split `options`: at spaces, unless a backslash stands before them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Refuses a setting that premigrate depends on, unless the value is what it sets anyway.
pub(super) fn check(name: &str, value: &str) -> Result<(), Problem> {
    let client_encoding = keywords::UNSUPPORTED.iter().map(|(name, _, values)| (*name, *values));
    let mut fixed = FIXED.iter().copied().chain(client_encoding);
    match fixed.find(|(fixed, _)| *fixed == name) {
        Some((_, values)) if values.iter().any(|same| same.eq_ignore_ascii_case(value)) => Ok(()),
        Some((name, values)) => Err(Problem::Unsupported(name, values)),
        None => Ok(()),
    }
}

const OFF: &[&str] = &["off", "false", "no", "0"];

/// Settings that premigrate itself decides about, with the values that it sets.
const FIXED: &[(&str, &[&str])] = &[
    ("default_transaction_deferrable", OFF),
    ("default_transaction_isolation", &["read committed"]),
    ("default_transaction_read_only", OFF),
    ("session_authorization", &[]),
    (LEXING, &["on", "true", "yes", "1"]),
];

/// The settings that connection strings name as keys. `options` takes every other one.
const SETTINGS: &[&str] = &[
    "bytea_output",
    "check_function_bodies",
    "client_min_messages",
    "datestyle",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "log_statement",
    "maintenance_work_mem",
    "plan_cache_mode",
    "role",
    "row_security",
    "search_path",
    "session_authorization",
    "session_replication_role",
    LEXING,
    "statement_timeout",
    "synchronous_commit",
    "temp_tablespaces",
    "timezone",
    "transaction_timeout",
    "work_mem",
    "xmloption",
];
