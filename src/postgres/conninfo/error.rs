//! Why a description of a connection cannot be followed. All sentences stand here, together; none
//! of them can hold a value.

use std::fmt;

/// Why a description of a connection cannot be followed: where it stands, what is wrong, and the
/// cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConninfoError {
    pub(super) source: String,
    pub(super) problem: Problem,
}

/// Holds no value, and a key that is unknown only where it cannot be a piece of a password.
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
    Choice(&'static str, Vec<&'static str>),
    Number(&'static str),
    Port,
    Address,
    HostName,
    EmptyHost,
    Counts { what: &'static str, count: usize, hosts: usize },
    ReadOnly,
    WeakMode,
    HalfCertificate,
    NoUser,
    NoHost,
}

impl fmt::Display for ConninfoError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        f.write_str(match &self.problem {
            Problem::Empty => "is empty; give a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            Problem::Scheme(cure) => cure,
            Problem::Prefixed => "something stands before postgres://; keep only the URL",
            Problem::AdoNet => {
                "this is an ADO.NET connection string; \
                 write postgres://USER:PASSWORD@HOST:PORT/DATABASE"
            }
            Problem::Ambiguous => {
                "an @ stands behind a /, so that the host is uncertain; in the user name, the \
                 password and the database name write %40 for @ and %2F for /"
            }
            Problem::Bracket => {
                "an IPv6 address is written in brackets, [2001:db8::1]:5432; \
                 in a password write %5B for [ and %40 for @"
            }
            Problem::Nul => "holds a NUL (%00), which PostgreSQL cannot take",
            Problem::NotUtf8 => {
                "its percent-encoding does not decode to UTF-8; \
                 write %25 for a % that stands for itself"
            }
            Problem::Unterminated => {
                r"a quoted value has no closing '; inside quotes write \' for ' and \\ for \"
            }
            Problem::NoValue(Some(key)) => {
                return write!(f, "{key} has no value; write {key}=VALUE");
            }
            Problem::NoValue(None) => {
                "a parameter has no =VALUE; if it belongs to the password, percent-encode the \
                 password in a URL (%26 for &), or quote it in key='value'"
            }
            Problem::UnknownKey(Some(key)) => {
                return write!(
                    f,
                    "{key} is not a connection parameter; remove it or correct its spelling"
                );
            }
            Problem::UnknownKey(None) => {
                "one of its parameters is unknown; if it belongs to the password, percent-encode \
                 the password in a URL (%26 for &, %3D for =), or quote it in key='value'"
            }
            Problem::Unsupported(key, []) => {
                return write!(f, "{key} is not supported; remove it");
            }
            Problem::Unsupported(key, values) => {
                return write!(f, "{key} is supported only as {}", values.join(" or "));
            }
            Problem::Choice(key, values) => {
                return write!(f, "{key} must be one of {}", values.join(", "));
            }
            Problem::Number(key) => {
                return write!(f, "{key} must be a whole number, without a unit");
            }
            Problem::Port => {
                "a port must be a number from 1 to 65535; in a URL, an IPv6 address stands in [], \
                 and in a password write %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @"
            }
            Problem::Address => {
                "hostaddr must be a numeric IP address; \
                 a name, or an address with a zone, goes in host"
            }
            Problem::HostName => {
                "a host name has a character that none can have; if it belongs to the password, \
                 percent-encode it: %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @"
            }
            Problem::EmptyHost => "one of several hosts is empty; remove the comma too many",
            Problem::Counts { what, count, hosts } => {
                return write!(
                    f,
                    "{what} has {count} entries for {hosts} hosts; give one for each, in order"
                );
            }
            Problem::ReadOnly => {
                "target_session_attrs must be any, read-write or primary, since migrations write"
            }
            Problem::WeakMode => "sslrootcert=system needs sslmode=verify-full",
            Problem::HalfCertificate => {
                "sslcert and sslkey belong together; give both or none \
                 (the server's CA certificate goes in sslrootcert)"
            }
            Problem::NoUser => {
                "names no user; write postgres://USER:PASSWORD@HOST/DATABASE or set PGUSER"
            }
            Problem::NoHost => {
                "names no host; write postgres://USER:PASSWORD@HOST/DATABASE or set PGHOST"
            }
        })
    }
}

impl std::error::Error for ConninfoError {}
