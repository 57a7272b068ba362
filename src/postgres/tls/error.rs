//! What goes wrong with TLS, as data, and the one sentence for each: what it is, and the cure.
//!
//! OpenSSL's verdict on a certificate comes in words only, of the version that is compiled in.

use std::error::Error as _;
use std::{fmt, io};

use openssl::error::ErrorStack;
use openssl::ssl;

use super::certificate::Certificate;
use crate::postgres::socket::PreAuthError;

/// Why there is no TLS with this server, or none to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The server said no to TLS.
    NotOffered,
    /// The server said neither yes nor no to TLS, but that something is wrong with it.
    AnsweredWithError,
    /// The peer is not a PostgreSQL server that speaks TLS.
    PreAuth(PreAuthError),
    /// The server's certificate does not pass.
    Unverified(Box<Unverified>),
    /// The server wants a certificate of ours, and we have none; its words.
    CertificateWanted(String),
    /// The server does not take our certificate; OpenSSL's words.
    CertificateRefused(String),
    /// Something that was given to us for TLS is of no use.
    Unusable {
        /// The parameter that gives it.
        parameter: &'static str,
        /// The file, or a word for the text itself.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The connection ended during the handshake.
    Cut(String),
    /// The handshake failed otherwise; OpenSSL's words.
    Handshake(String),
}

/// A certificate that does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// What is wrong with it.
    pub fault: VerifyError,
    /// Whom we meant to connect to.
    pub host: String,
    /// Which roots are trusted.
    pub trusted: String,
    /// Fetched on a second connection, where that succeeded.
    pub certificate: Option<Certificate>,
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// Its time, or that of one that it rests on, is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for another host.
    WrongHost,
    /// It rests on nothing that is trusted.
    UnknownAuthority,
    /// It rests on itself alone, and is not trusted.
    SelfSigned,
    /// OpenSSL's words.
    Other(String),
}

impl VerifyError {
    /// By the words in which OpenSSL ends its error: `...: (certificate has expired)`.
    fn said(error: &str) -> Option<VerifyError> {
        let (_, verdict) = error.strip_suffix(')')?.rsplit_once('(')?;
        Some(match verdict {
            "certificate has expired" => VerifyError::Expired,
            not_yet if not_yet.starts_with("certificate is not yet valid") => {
                VerifyError::NotYetValid
            }
            "hostname mismatch" | "IP address mismatch" => VerifyError::WrongHost,
            "self-signed certificate" => VerifyError::SelfSigned,
            "self-signed certificate in certificate chain"
            | "unable to get issuer certificate"
            | "unable to get local issuer certificate"
            | "unable to verify the first certificate" => VerifyError::UnknownAuthority,
            other => VerifyError::Other(other.to_owned()),
        })
    }
}

/// TLS's number for "no certificate, no connection".
const CERTIFICATE_REQUIRED: i32 = 116;
/// Its numbers for what is wrong with our certificate, from "bad" to "unknown authority".
const CERTIFICATE_ALERTS: std::ops::RangeInclusive<i32> = 42..=48;
/// OpenSSL's number for the system itself, and where in a code is the system's own number.
const SYSTEM: i32 = 2;
const SYSTEM_MASK: std::ffi::c_ulong = 0x7fff_ffff;
/// Its number for a connection that ends in the middle.
const UNEXPECTED_EOF: i32 = 294;
/// Its number for a first record that is not TLS.
const WRONG_VERSION_NUMBER: i32 = 267;

impl TlsError {
    /// Why a handshake failed.
    pub(super) fn of_handshake(error: &native_tls::Error, host: &str, trusted: &str) -> TlsError {
        let words = error.to_string();
        if words.contains("certificate verify failed")
            && let Some(fault) = VerifyError::said(&words)
        {
            let (host, trusted) = (host.to_owned(), trusted.to_owned());
            return TlsError::Unverified(Box::new(Unverified {
                fault,
                host,
                trusted,
                certificate: None,
            }));
        }
        let source = error.source();
        if let Some(stack) = source.and_then(|source| source.downcast_ref::<ErrorStack>()) {
            return TlsError::of_openssl(stack);
        }
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        if let Some(error) = io.and_then(PreAuthError::of_io) {
            return TlsError::PreAuth(error);
        }
        match source {
            Some(source) => TlsError::Cut(source.to_string()),
            None if words.contains("unexpected EOF") => TlsError::Cut(words),
            None => TlsError::Handshake(words),
        }
    }

    /// Why a connection ended before or after the handshake: under TLS 1.3 the server judges our
    /// certificate only then.
    pub fn of_io(error: &io::Error) -> Option<TlsError> {
        let error = error.get_ref()?.downcast_ref::<ssl::Error>()?;
        Some(TlsError::of_openssl(error.ssl_error()?))
    }

    fn of_openssl(stack: &ErrorStack) -> TlsError {
        let Some(first) = stack.errors().first() else {
            return TlsError::Handshake(stack.to_string());
        };
        if first.library_code() == SYSTEM {
            let number = i32::try_from(first.code() & SYSTEM_MASK).unwrap_or_default();
            return TlsError::Cut(io::Error::from_raw_os_error(number).to_string());
        }
        let words = first.reason().unwrap_or("no reason is given").to_owned();
        // What the other side says of us has TLS's number for it, and a thousand.
        match first.reason_code() {
            code if code - 1000 == CERTIFICATE_REQUIRED => TlsError::CertificateWanted(words),
            code if CERTIFICATE_ALERTS.contains(&(code - 1000)) => {
                TlsError::CertificateRefused(words)
            }
            UNEXPECTED_EOF => TlsError::Cut(words),
            WRONG_VERSION_NUMBER => TlsError::PreAuth(PreAuthError::NotPostgres),
            _ => TlsError::Handshake(words),
        }
    }

    /// Whether waiting may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, TlsError::Cut(_) | TlsError::AnsweredWithError)
    }

    /// Whether it is what we were told that is wrong, and not the server.
    pub fn is_config_error(&self) -> bool {
        matches!(self, TlsError::Unusable { .. })
    }
}

/// OpenSSL's reason for an error, without where in its code.
pub(super) fn reason(error: &native_tls::Error) -> String {
    let stack = error.source().and_then(|source| source.downcast_ref::<ErrorStack>());
    let reason = stack.and_then(|stack| stack.errors().first()?.reason());
    reason.map_or_else(|| error.to_string(), str::to_owned)
}

impl std::error::Error for TlsError {}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::NotOffered => f.write_str(
                "the server does not support TLS, which sslmode demands; turn TLS on there, or use \
                 sslmode=prefer",
            ),
            TlsError::AnsweredWithError => f.write_str(
                "the server answered the question for TLS with an error, as one does that has no \
                 room for a session",
            ),
            TlsError::PreAuth(error) => error.fmt(f),
            TlsError::Unverified(unverified) => unverified.fmt(f),
            TlsError::CertificateWanted(words) => write!(
                f,
                "the server wants a client certificate, and none is given; give one with sslcert \
                 and sslkey, or in PGSSLCERT and PGSSLKEY ({words})"
            ),
            TlsError::CertificateRefused(words) => {
                write!(f, "the server does not take the client certificate of sslcert ({words})")
            }
            TlsError::Unusable { parameter, place, why } => {
                write!(f, "{parameter} ({place}) {why}")
            }
            TlsError::Cut(why) => {
                write!(f, "the connection ended during the TLS handshake ({why})")
            }
            TlsError::Handshake(why) => write!(f, "TLS failed ({why})"),
        }
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unverified { fault, host, trusted, certificate: seen } = self;
        let from = |what: fn(&Certificate) -> &String| {
            seen.as_ref().map_or(String::new(), |seen| format!(" {}", what(seen)))
        };
        match fault {
            VerifyError::Expired => match seen {
                Some(seen) if seen.is_over => write!(
                    f,
                    "the server's certificate has expired, on {}; it has to be renewed there",
                    seen.not_after
                ),
                _ => f.write_str(
                    "a certificate that the server's rests on has expired; it has to be renewed",
                ),
            },
            VerifyError::NotYetValid => {
                write!(f, "the server's certificate is not valid yet")?;
                if let Some(seen) = seen {
                    write!(f, ", only from {}", seen.not_before)?;
                }
                f.write_str("; is the clock right, here and where it was issued?")
            }
            VerifyError::WrongHost => {
                write!(f, "the server's certificate is not for {host}")?;
                match seen.as_ref().map(|seen| seen.names.join(", ")) {
                    Some(names) if names.is_empty() => f.write_str(", and names no host at all")?,
                    Some(names) => write!(f, ", but for {names}")?,
                    None => {}
                }
                f.write_str(
                    "; connect by a name that it bears, or use sslmode=verify-ca, which compares \
                     no names",
                )
            }
            VerifyError::UnknownAuthority => write!(
                f,
                "the server's certificate comes from an authority{} that is not trusted here; \
                 trusted are {trusted}; give the authority's root with sslrootcert, or in \
                 PGSSLROOTCERT",
                from(|seen| &seen.issuer),
            ),
            VerifyError::SelfSigned => write!(
                f,
                "the server's certificate{} is self-signed, and not trusted here; trusted are \
                 {trusted}; give it with sslrootcert, or in PGSSLROOTCERT",
                from(|seen| &seen.subject),
            ),
            VerifyError::Other(words) => {
                write!(f, "the server's certificate does not pass ({words})")
            }
        }
    }
}
