//! Recognizes the format of a connection string: a URL, key=value pairs, or one of the formats of
//! other drivers, which get a hint.

use super::error::Problem;
use super::keywords::{self, Param};
use super::url;

/// The parameters in a connection string, and whether the URL's scheme names a driver.
pub fn params(text: &str) -> Result<(Vec<Param>, bool), Problem> {
    if text.contains('\0') {
        return Err(Problem::Nul);
    }
    let text = unquoted(text.trim());
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if let Some((scheme, rest)) = text.split_once(':')
        && scheme.chars().all(in_scheme)
    {
        let scheme = scheme.to_ascii_lowercase();
        let (base, driver) =
            scheme.split_once('+').map_or((scheme.as_str(), None), |(b, d)| (b, Some(d)));
        let is_postgres = matches!(base, "postgres" | "postgresql");
        return match (rest.strip_prefix("//").filter(|_| is_postgres), driver) {
            // This is no driver, but a request that must not be lost.
            (Some(_), Some("ssl" | "tls")) => Err(Problem::Scheme(WITH_TLS)),
            (Some(rest), driver) => Ok((url::parse(rest)?, driver.is_some())),
            (None, _) => Err(Problem::Scheme(scheme_hint(base))),
        };
    }
    let first_key = text.split(|c: char| c == '=' || c.is_ascii_whitespace()).next().unwrap_or("");
    if is_ado_net(text) {
        return Err(Problem::AdoNet);
    }
    // A text without a keyword may be just a password, in the wrong variable: do not print it.
    if keywords::lookup(first_key).is_none() {
        let prefixed = text.contains("postgres://") || text.contains("postgresql://");
        return Err(if prefixed { Problem::Prefixed } else { Problem::Scheme(scheme_hint("")) });
    }
    Ok((keywords::parse(text)?, false))
}

/// `.env` files and shells leave quotes around a value.
fn unquoted(text: &str) -> &str {
    let inside = |quote| text.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).map_or(text, str::trim)
}

/// `Host=db;Username=app;...`
fn is_ado_net(text: &str) -> bool {
    const WORDS: [&str; 8] =
        ["host", "server", "port", "database", "username", "user id", "userid", "password"];
    let mut parts = text.split(';').map(str::trim);
    let is_pair = |part: &str| {
        let key = part.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
        part.contains('=') && WORDS.contains(&key.as_str())
    };
    parts.next().is_some_and(is_pair) && parts.next().is_some_and(is_pair)
}

const WITH_TLS: &str = "the scheme is not PostgreSQL's; use postgres:// and add sslmode=require";

/// The scheme itself is not printed: it may be part of a password.
fn scheme_hint(scheme: &str) -> &'static str {
    match scheme {
        "postgres" | "postgresql" => "the scheme must be followed by `://`",
        "jdbc" => {
            "this is a JDBC URL; remove the leading `jdbc:` and write USER:PASSWORD@ before the host"
        }
        "prisma" => {
            "this is the URL of Prisma's proxy, not of a database; use the direct URL, \
             which begins with postgres://"
        }
        "mysql" | "mysql2" | "mariadb" | "sqlite" | "sqlite3" | "file" | "libsql" | "sqlserver"
        | "mssql" | "oracle" | "mongodb" | "redis" | "rediss" | "cockroachdb" => {
            "this is the URL of another database system; only PostgreSQL is supported (postgres://)"
        }
        "http" | "https" => "this is a web address; a database URL begins with postgres://",
        "pg" | "pgsql" | "pgx" | "pgx5" | "postgis" | "psql" | "ecto" => {
            "the scheme is not PostgreSQL's; use postgres://"
        }
        _ => {
            "this is neither a URL that begins with postgres:// nor key=value pairs (host=db user=app)"
        }
    }
}
