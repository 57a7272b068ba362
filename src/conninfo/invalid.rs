//! Why a description of a connection cannot be followed. All sentences stand here, together; none of them can
//! hold a value.

use std::fmt;

/// Why a description of a connection cannot be followed: where it stands, what is wrong, and the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub(super) source: String,
    pub(super) problem: Problem,
}

/// Holds keywords and numbers only, never a value.
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

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.problem {
            Problem::Empty => {
                f.write_str("is empty; give a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
            }
            Problem::Scheme(cure) => f.write_str(cure),
            Problem::Prefixed => f.write_str("something stands before postgres://; keep only the URL"),
            Problem::AdoNet => f.write_str(
                "this is an ADO.NET connection string; write postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            ),
            Problem::Ambiguous => f.write_str(
                "an @ stands behind a /, so that the host is uncertain; inside the user name, the \
                 password or the database name write %40 for @ and %2F for /",
            ),
            Problem::Bracket => f.write_str(
                "an IPv6 address is written in brackets, [2001:db8::1]:5432; \
                 in a password write %5B for [ and %40 for @",
            ),
            Problem::Nul => f.write_str("holds a NUL (%00), which PostgreSQL cannot take"),
            Problem::NotUtf8 => f.write_str(
                "its percent-encoding does not decode to UTF-8; write %25 for a % that stands for itself",
            ),
            Problem::Unterminated => {
                f.write_str("a quoted value has no closing '; inside quotes write \\' for ' and \\\\ for \\")
            }
            Problem::NoValue(Some(key)) => write!(f, "{key} has no value; write {key}=VALUE"),
            Problem::NoValue(None) => f.write_str(
                "a parameter has no =VALUE; if it belongs to the password, percent-encode the \
                 password in a URL (%26 for &), or quote it in key='value'",
            ),
            Problem::UnknownKey(Some(key)) => {
                write!(f, "{key} is not a connection parameter; remove it or correct its spelling")
            }
            Problem::UnknownKey(None) => f.write_str(
                "one of its parameters is unknown; if it belongs to the password, percent-encode \
                 the password in a URL (%26 for &, %3D for =), or quote it in key='value'",
            ),
            Problem::Unsupported(key, []) => write!(f, "{key} is not supported; remove it"),
            Problem::Unsupported(key, values) => {
                write!(f, "{key} is supported only as {}", values.join(" or "))
            }
            Problem::Choice(key, values) => write!(f, "{key} must be one of {}", values.join(", ")),
            Problem::Number(key) => write!(f, "{key} must be a whole number, without a unit"),
            Problem::Port => f.write_str(
                "a port must be a number from 1 to 65535; in a URL, an IPv6 address stands in [], and \
                 a password has %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @",
            ),
            Problem::Address => f.write_str(
                "hostaddr must be a numeric IP address; a name, or an address with a zone, goes in host",
            ),
            Problem::HostName => f.write_str(
                "a host name has a character that none can have; if it belongs to the password, \
                 percent-encode it: %2F for /, %3F for ?, %23 for #, %3A for : and %40 for @",
            ),
            Problem::EmptyHost => f.write_str("one of several hosts is empty; remove the comma too many"),
            Problem::Counts { what, count, hosts } => write!(
                f,
                "{what} has {count} entries for {hosts} hosts; give one for each host, in their order"
            ),
            Problem::ReadOnly => f.write_str(
                "target_session_attrs must be any, read-write or primary, since migrations write",
            ),
            Problem::WeakMode => f.write_str("sslrootcert=system needs sslmode=verify-full"),
            Problem::HalfCertificate => f.write_str(
                "sslcert and sslkey belong together; give both or none \
                 (the server's CA certificate goes in sslrootcert)",
            ),
            Problem::NoUser => {
                f.write_str("names no user; write postgres://USER:PASSWORD@HOST/DATABASE or set PGUSER")
            }
            Problem::NoHost => {
                f.write_str("names no host; write postgres://USER:PASSWORD@HOST/DATABASE or set PGHOST")
            }
        }
    }
}

impl std::error::Error for Invalid {}
