//! What is wrong with a connection string. No message contains a value, which may be a password.

use std::fmt;

/// An error in a connection string, or in a variable that completes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConninfoError {
    pub(super) source: String,
    pub(super) problem: Problem,
}

/// Without values; with an unknown key only where it cannot be part of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    Empty,
    Scheme(&'static str),
    Prefixed,
    AdoNet,
    Ambiguous,
    Bracket,
    Nul,
    NotUtf8,
    Unterminated,
    NoValue(Option<String>),
    UnknownKey(Option<String>),
    Unsupported(&'static str, &'static [&'static str]),
    Options,
    Choice(&'static str, Vec<&'static str>),
    Number(&'static str),
    Port,
    Address,
    HostName,
    EmptyHost,
    Counts { key: &'static str, count: usize, hosts: usize },
    WeakMode,
    HalfCertificate,
    NoUser,
    NoHost,
}

impl fmt::Display for ConninfoError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        f.write_str(match &self.problem {
            Problem::Empty => "the value is empty; use postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            Problem::Scheme(hint) => hint,
            Problem::Prefixed => "there is text before postgres://; keep only the URL",
            Problem::AdoNet => {
                "this is an ADO.NET connection string; \
                 use postgres://USER:PASSWORD@HOST:PORT/DATABASE"
            }
            Problem::Ambiguous => {
                "an @ follows a /, so the host is ambiguous; in the user, the password and the \
                 database, write %40 for @ and %2F for /"
            }
            Problem::Bracket => {
                "an IPv6 address must be in brackets: [2001:db8::1]:5432; \
                 in a password, write %5B for [ and %40 for @"
            }
            Problem::Nul => "the value contains NUL (%00), which PostgreSQL does not accept",
            Problem::NotUtf8 => {
                "the percent-encoded text is not UTF-8; write %25 for a literal %"
            }
            Problem::Unterminated => {
                r"a quoted value has no closing '; inside quotes, write \' for ' and \\ for \"
            }
            Problem::NoValue(Some(key)) => {
                return write!(f, "{key} has no value; write {key}=VALUE");
            }
            Problem::NoValue(None) => {
                "a parameter has no =VALUE; if it is part of the password, percent-encode the \
                 password in a URL (%26 for &), or quote it in key='value'"
            }
            Problem::UnknownKey(Some(key)) => {
                return write!(
                    f,
                    "{key} is not a connection parameter; remove it, correct its spelling, or, for \
                     a setting of the server, write options=-c%20{key}%3DVALUE"
                );
            }
            Problem::UnknownKey(None) => {
                "unknown connection parameter; if it is part of the password, percent-encode \
                 the password in a URL (%26 for &, %3D for =), or quote it in key='value'"
            }
            Problem::Unsupported("session_authorization", _) => {
                "session_authorization is not supported; use role"
            }
            Problem::Unsupported(key @ "default_transaction_isolation", _) => {
                return write!(
                    f,
                    "{key} is supported only as read committed; begin the file of a migration that \
                     needs another level with SET TRANSACTION ISOLATION LEVEL"
                );
            }
            Problem::Unsupported(key, []) => {
                return write!(f, "{key} is not supported; remove it");
            }
            Problem::Unsupported(key, values) => {
                return write!(f, "{key} is supported only as {}", values.join(" or "));
            }
            Problem::Options => {
                "options must be settings of the server, each as -c NAME=VALUE or --NAME=VALUE; in \
                 a URL, write %20 for a space and %3D for ="
            }
            Problem::Choice("target_session_attrs", _) => {
                "target_session_attrs must be any, read-write or primary, since migrations write"
            }
            Problem::Choice(key, values) => {
                return write!(f, "{key} must be one of {}", values.join(", "));
            }
            Problem::Number(key) => {
                return write!(f, "{key} must be a whole number, without a unit");
            }
            Problem::Port => {
                "a port must be a number from 1 to 65535; in a URL, put an IPv6 address in \
                 brackets; in a password, write %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @"
            }
            Problem::Address => {
                "hostaddr must be a numeric IP address; \
                 put a host name, or an address with a zone, in host"
            }
            Problem::HostName => {
                "a host name contains an invalid character; if it is part of the password, \
                 percent-encode it: %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @"
            }
            Problem::EmptyHost => "empty host in the list; remove the extra comma",
            Problem::Counts { key, count, hosts } => {
                return write!(
                    f,
                    "the number of entries in {key} ({count}) must match the number of hosts \
                     ({hosts})"
                );
            }
            Problem::WeakMode => "sslrootcert=system requires sslmode=verify-full",
            Problem::HalfCertificate => {
                "sslcert and sslkey must be set together \
                 (the server's CA certificate belongs in sslrootcert)"
            }
            Problem::NoUser => {
                "no user is given; write postgres://USER:PASSWORD@HOST/DATABASE or set PGUSER"
            }
            Problem::NoHost => {
                "no host is given; write postgres://USER:PASSWORD@HOST/DATABASE or set PGHOST"
            }
        })
    }
}

impl std::error::Error for ConninfoError {}
