//! The keywords a connection may be described with, and the key=value form of writing them. What
//! libpq knows is either understood, harmless, or refused: nothing that a user relies on is dropped
//! in silence. What other programs put into the same URL is set aside with a note.

use super::Problem;

/// A keyword and its value as written, before anything is understood.
pub struct Param {
    pub key: String,
    pub value: String,
    /// False where the key could be a piece of a password that was not quoted or percent-encoded.
    pub nameable: bool,
}

impl Param {
    pub fn new(key: &str, value: String) -> Self {
        Self { key: key.to_owned(), value, nameable: true }
    }

    /// The trouble with an unknown key, which is named if it can only be a key: none has a digit, as
    /// many a password has, and one that begins with `password` may have lost its `=`.
    pub fn unknown(self) -> Problem {
        let plain = self.key.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        let named = self.nameable && plain && !self.key.is_empty() && !is_about_password(&self.key);
        Problem::UnknownKey(named.then_some(self.key))
    }
}

/// Whether what follows may be a piece of a password.
pub fn is_about_password(text: &str) -> bool {
    text.to_ascii_lowercase().contains("password")
}

pub enum Keyword {
    /// Understood, under the name it has in libpq.
    DatabaseState(&'static str),
    /// Not PostgreSQL's; whose it is.
    Foreign(&'static str),
}

pub fn lookup(key: &str) -> Option<Keyword> {
    let key = match key {
        "keepalives_retries" => "keepalives_count",
        "encoding" => "client_encoding",
        other => other,
    };
    let known = UNDERSTOOD.iter().chain(HARMLESS).map(|(name, _)| *name);
    let refused = REFUSED.iter().map(|(name, ..)| *name);
    if let Some(name) = known.chain(refused).find(|name| *name == key) {
        return Some(Keyword::DatabaseState(name));
    }
    let owner = FOREIGN.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(Keyword::Foreign(owner.0))
}

/// The trouble with a word that has no `=`: unless it is a keyword, it may be a piece of a
/// password.
pub fn no_value(key: &str) -> Problem {
    Problem::NoValue(lookup(key).is_some().then(|| key.to_owned()))
}

/// The environment variable that gives a keyword's default.
pub fn variable(key: &str) -> Option<&'static str> {
    let refused = REFUSED.iter().map(|(name, variable, _)| (*name, *variable));
    let mut all = UNDERSTOOD.iter().copied().chain(refused);
    all.find(|(name, _)| *name == key).map(|(_, variable)| variable).filter(|v| !v.is_empty())
}

/// Keyword and variable; an empty variable is none.
const UNDERSTOOD: &[(&str, &str)] = &[
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("fallback_application_name", ""),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("keepalives", ""),
    ("keepalives_count", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("ssl", ""),
    ("sslaccept", ""),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslpassword", ""),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("tcp_user_timeout", ""),
    ("user", "PGUSER"),
];

/// Without effect here, whatever they say: Kerberos is not spoken, OpenSSL does not compress, the
/// order of the hosts does not matter to a migration, and libpq's reading of `sslmode` is the only
/// one.
const HARMLESS: &[(&str, &str)] = &[
    ("gssdelegation", ""),
    ("gsslib", ""),
    ("krbsrvname", ""),
    ("load_balance_hosts", ""),
    ("sslcompression", ""),
    ("sslkeylogfile", ""),
    ("uselibpqcompat", ""),
];

/// Not offered: keyword, variable, and the values that ask for no more than what is done anyway.
pub const REFUSED: &[(&str, &str, &[&str])] = &[
    ("client_encoding", "PGCLIENTENCODING", &["utf8", "utf-8", "unicode", "auto"]),
    ("gssencmode", "PGGSSENCMODE", &["disable", "prefer"]),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", &["3.0", "3.2", "latest"]),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"]),
    ("oauth_client_id", "", &[]),
    ("oauth_client_secret", "", &[]),
    ("oauth_issuer", "", &[]),
    ("oauth_scope", "", &[]),
    ("replication", "", &["false", "off", "no", "0"]),
    ("require_auth", "PGREQUIREAUTH", &[]),
    ("requirepeer", "PGREQUIREPEER", &[]),
    ("scram_client_key", "", &[]),
    ("scram_server_key", "", &[]),
    ("service", "PGSERVICE", &[]),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", &["TLSv1.3"]),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", "PGSSLCERTMODE", &["allow", "disable"]),
    ("sslcrl", "PGSSLCRL", &[]),
    ("sslcrldir", "PGSSLCRLDIR", &[]),
    ("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"]),
    ("sslsni", "PGSSLSNI", &["1"]),
];

/// What other programs keep in a connection URL. None of it says where or how securely to connect.
const FOREIGN: &[(&str, &[&str])] = &[
    (
        "Prisma",
        &[
            "connection_limit",
            "max_connection_lifetime",
            "max_idle_connection_lifetime",
            "pgbouncer",
            "pool_timeout",
            "schema",
            "single_use_connections",
            "socket_timeout",
            "sslidentity",
            "statement_cache_size",
        ],
    ),
    (
        "a driver that sends session settings",
        &[
            "DateStyle",
            "TimeZone",
            "datestyle",
            "idle_in_transaction_session_timeout",
            "lock_timeout",
            "role",
            "search_path",
            "statement_timeout",
            "timezone",
        ],
    ),
    (
        "a connection pool",
        &[
            "checkout_timeout",
            "conn_max_age",
            "idle_timeout",
            "max",
            "max_conns",
            "max_lifetime",
            "min_conns",
            "pool",
            "pool_health_check_period",
            "pool_max_conn_idle_time",
            "pool_max_conn_lifetime",
            "pool_max_conn_lifetime_jitter",
            "pool_max_conns",
            "pool_min_conns",
            "pool_min_idle_conns",
            "pool_mode",
            "pool_size",
            "supa",
            "workaround",
        ],
    ),
    (
        "another driver",
        &[
            "ApplicationName",
            "binary_parameters",
            "command_timeout",
            "connectTimeout",
            "currentSchema",
            "default_query_exec_mode",
            "description_cache_capacity",
            "fetch_types",
            "keepAlive",
            "loginTimeout",
            "preferQueryMode",
            "prepare",
            "prepareThreshold",
            "prepared_statement_cache_size",
            "prepared_statements",
            "query_timeout",
            "reWriteBatchedInserts",
            "serverVersion",
            "socketTimeout",
            "statement-cache-capacity",
            "statement_cache_capacity",
            "stringtype",
            "targetServerType",
            "tcpKeepAlive",
        ],
    ),
];

/// Reads `key = value key='quoted value'`, trimmed, where a backslash takes the next character as
/// it is.
pub fn parse(text: &str) -> Result<Vec<Param>, Problem> {
    let mut params: Vec<Param> = Vec::new();
    let mut nameable = true;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace());
        let (key, after) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(no_value(key));
        };
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let (value, after) = value(quoted.unwrap_or(after), quoted.is_some())?;
        nameable &= !is_about_password(&value);
        params.push(Param { key: key.to_owned(), value, nameable });
        // A blank or `=` in an unquoted password makes what follows look like keywords.
        nameable &= quoted.is_some() || !is_about_password(key);
        rest = after.trim_start();
    }
    Ok(params)
}

fn value(text: &str, quoted: bool) -> Result<(String, &str), Problem> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            '\'' if quoted => return Ok((value, chars.as_str())),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, chars.as_str())),
            c => value.push(c),
        }
    }
    if quoted { Err(Problem::Unterminated) } else { Ok((value, "")) }
}
