//! The keywords of connection strings, and the key=value format. What libpq knows is understood,
//! harmless, or rejected, so that nothing a user relies on is dropped silently, nor is a setting of
//! the server. What other programs keep for themselves in the same URL is ignored with a note.

use super::error::Problem;
use super::settings;

/// A keyword and its value, as written.
pub struct Param {
    pub key: String,
    pub value: String,
    /// False where the key may be part of a password that was not quoted or percent-encoded.
    pub safe_to_print: bool,
}

impl Param {
    pub fn new(key: &str, value: String) -> Self {
        Self { key: key.to_owned(), value, safe_to_print: true }
    }

    /// The error for an unknown key, with the key where it cannot be part of a password: no keyword
    /// has a digit, and a key that contains `password` may lack its `=`.
    pub fn unknown(self) -> Problem {
        let is_plain = self.key.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
        let may_print =
            self.safe_to_print && is_plain && !self.key.is_empty() && !mentions_password(&self.key);
        Problem::UnknownKey(may_print.then_some(self.key))
    }
}

/// Whether what follows may be part of a password.
pub fn mentions_password(text: &str) -> bool {
    text.to_ascii_lowercase().contains("password")
}

pub enum Keyword {
    /// libpq's, by the name that it has there.
    Libpq(&'static str),
    /// For a setting of the server, which is named.
    Setting(&'static str),
    /// Of other programs, which are named.
    Foreign(&'static str),
}

pub fn lookup(key: &str) -> Option<Keyword> {
    let key = match key {
        "keepalives_retries" => "keepalives_count",
        "encoding" => "client_encoding",
        other => other,
    };
    let understood = UNDERSTOOD.iter().map(|(name, _)| *name);
    let unsupported = UNSUPPORTED.iter().map(|(name, ..)| *name);
    let mut all = understood.chain(unsupported).chain(HARMLESS.iter().copied());
    if let Some(name) = all.find(|name| *name == key) {
        return Some(Keyword::Libpq(name));
    }
    if let Some(name) = settings::name_of(key) {
        return Some(Keyword::Setting(name));
    }
    let owner = FOREIGN.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(Keyword::Foreign(owner.0))
}

/// The error for a word without `=`: unless it is a keyword, it may be part of a password.
pub fn no_value(key: &str) -> Problem {
    Problem::NoValue(lookup(key).is_some().then(|| key.to_owned()))
}

/// The environment variable with the default of a keyword.
pub fn variable(key: &str) -> Option<&'static str> {
    let unsupported = UNSUPPORTED.iter().map(|(name, variable, _)| (*name, *variable));
    let mut all = UNDERSTOOD.iter().copied().chain(unsupported);
    all.find(|(name, _)| *name == key).map(|(_, variable)| variable).filter(|v| !v.is_empty())
}

/// Keyword and environment variable, which may be empty.
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

/// Ignored silently: Kerberos is not supported, OpenSSL does not compress, the order of the hosts
/// does not matter to migrations, and `sslmode` always has its meaning in libpq.
const HARMLESS: &[&str] = &[
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "sslcompression",
    "sslkeylogfile",
    "uselibpqcompat",
];

/// Not supported: keyword, variable, and the values that only ask for what is done anyway.
pub const UNSUPPORTED: &[(&str, &str, &[&str])] = &[
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

/// What other programs keep in a connection URL. None of it changes where, or how securely, to
/// connect.
const FOREIGN: &[(&str, &[&str])] = &[
    (
        "Prisma",
        &[
            "connection_limit",
            "max_connection_lifetime",
            "max_idle_connection_lifetime",
            "pgbouncer",
            "pool_timeout",
            "single_use_connections",
            "socket_timeout",
            "sslidentity",
            "statement_cache_size",
        ],
    ),
    (
        "connection pools",
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
        "other drivers",
        &[
            "ApplicationName",
            "binary_parameters",
            "command_timeout",
            "connectTimeout",
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

/// Parses `key = value key='quoted value'`, trimmed, where a backslash escapes any character.
pub fn parse(text: &str) -> Result<Vec<Param>, Problem> {
    let mut params: Vec<Param> = Vec::new();
    let mut safe_to_print = true;
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
        safe_to_print &= !mentions_password(&value);
        params.push(Param { key: key.to_owned(), value, safe_to_print });
        // A space or `=` in an unquoted password makes what follows look like keywords.
        safe_to_print &= quoted.is_some() || !mentions_password(key);
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
