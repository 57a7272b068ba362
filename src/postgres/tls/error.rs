//! Errors of TLS, each with its message. The result of verifying a certificate is recognized by the
//! text of the OpenSSL version that is compiled in, since native-tls has no code for it.

use std::error::Error as _;
use std::{fmt, io};

use openssl::error::ErrorStack;
use openssl::ssl;

use super::certificate::Certificate;
use crate::postgres::error::ConnectionError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    NotOffered,
    /// The server answered the TLS request with an error.
    AnsweredWithError,
    Unverified(Box<Unverified>),
    /// The server requires a client certificate, and none is given; with its message.
    CertificateWanted(String),
    /// The server rejected the client certificate; with OpenSSL's reason.
    CertificateRejected(String),
    /// A certificate or key that is given cannot be used.
    Unusable {
        parameter: &'static str,
        /// The file, or `given as text`.
        source: String,
        problem: String,
    },
    /// The connection was closed.
    Cut(String),
    /// The handshake failed for another reason, in OpenSSL's words.
    Handshake(String),
}

/// A server's certificate that could not be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    pub error: VerifyError,
    pub host: String,
    /// A description of the roots.
    pub trusted_roots: String,
    /// Fetched on a second connection, where that succeeded.
    pub certificate: Option<Certificate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The certificate, or one in its chain.
    Expired,
    NotYetValid,
    WrongHost,
    UnknownAuthority,
    SelfSigned,
    /// OpenSSL's reason.
    Other(String),
}

impl VerifyError {
    /// From the end of OpenSSL's error: `...: (certificate has expired)`.
    fn parse(error: &str) -> Option<VerifyError> {
        let (_, reason) = error.strip_suffix(')')?.rsplit_once('(')?;
        Some(match reason {
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

/// The TLS alert `certificate_required`.
const CERTIFICATE_REQUIRED: i32 = 116;
/// The TLS alerts from `bad_certificate` to `unknown_ca`.
const CERTIFICATE_ALERTS: std::ops::RangeInclusive<i32> = 42..=48;
/// OpenSSL's `ERR_LIB_SYS`, and the bits of a code that are the system's errno.
const ERR_LIB_SYS: i32 = 2;
const ERRNO_MASK: std::ffi::c_ulong = 0x7fff_ffff;
/// OpenSSL's `SSL_R_UNEXPECTED_EOF_WHILE_READING`.
const UNEXPECTED_EOF: i32 = 294;
/// OpenSSL's `SSL_R_WRONG_VERSION_NUMBER`: what came first is not a TLS record.
const WRONG_VERSION_NUMBER: i32 = 267;

impl TlsError {
    /// Whether waiting may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, TlsError::Cut(_) | TlsError::AnsweredWithError)
    }
}

impl ConnectionError {
    pub(super) fn of_handshake(
        error: &native_tls::Error,
        host: &str,
        trusted_roots: &str,
    ) -> ConnectionError {
        let text = error.to_string();
        if text.contains("certificate verify failed")
            && let Some(error) = VerifyError::parse(&text)
        {
            let unverified = Unverified {
                error,
                host: host.to_owned(),
                trusted_roots: trusted_roots.to_owned(),
                certificate: None,
            };
            return TlsError::Unverified(Box::new(unverified)).into();
        }
        let source = error.source();
        if let Some(stack) = source.and_then(|source| source.downcast_ref::<ErrorStack>()) {
            return ConnectionError::of_openssl(stack);
        }
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        if let Some(error) = io.and_then(ConnectionError::of_io) {
            return error;
        }
        ConnectionError::Tls(match source {
            Some(source) => TlsError::Cut(source.to_string()),
            None if text.contains("unexpected EOF") => TlsError::Cut(text),
            None => TlsError::Handshake(text),
        })
    }

    /// What an error of the stream is made from: an error of our socket, or of TLS, after the
    /// handshake too, since under TLS 1.3 the server verifies our certificate only then.
    pub fn of_io(error: &io::Error) -> Option<ConnectionError> {
        let source = error.get_ref()?;
        if let Some(error) = source.downcast_ref::<ConnectionError>() {
            return Some(error.clone());
        }
        let error = source.downcast_ref::<ssl::Error>()?;
        Some(ConnectionError::of_openssl(error.ssl_error()?))
    }

    fn of_openssl(stack: &ErrorStack) -> ConnectionError {
        let Some(first) = stack.errors().first() else {
            return TlsError::Handshake(stack.to_string()).into();
        };
        if first.library_code() == ERR_LIB_SYS {
            let number = i32::try_from(first.code() & ERRNO_MASK).unwrap_or_default();
            return TlsError::Cut(io::Error::from_raw_os_error(number).to_string()).into();
        }
        let reason = first.reason().unwrap_or("no reason is given").to_owned();
        // OpenSSL adds 1000 to the number of an alert.
        ConnectionError::Tls(match first.reason_code() {
            code if code - 1000 == CERTIFICATE_REQUIRED => TlsError::CertificateWanted(reason),
            code if CERTIFICATE_ALERTS.contains(&(code - 1000)) => {
                TlsError::CertificateRejected(reason)
            }
            UNEXPECTED_EOF => TlsError::Cut(reason),
            WRONG_VERSION_NUMBER => return ConnectionError::NotPostgres,
            _ => TlsError::Handshake(reason),
        })
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
                "the server does not support TLS, but sslmode requires it; enable TLS on the server, \
                 or use sslmode=prefer",
            ),
            TlsError::AnsweredWithError => f.write_str(
                "the server answered the TLS request with an error; it may have no free connection \
                 slot",
            ),
            TlsError::Unverified(unverified) => unverified.fmt(f),
            TlsError::CertificateWanted(reason) => write!(
                f,
                "the server requires a client certificate; set sslcert and sslkey, or PGSSLCERT and \
                 PGSSLKEY ({reason})"
            ),
            TlsError::CertificateRejected(reason) => {
                write!(f, "the server rejected the client certificate in sslcert ({reason})")
            }
            TlsError::Unusable { parameter, source, problem } => {
                write!(f, "{parameter} ({source}) {problem}")
            }
            TlsError::Cut(reason) => {
                write!(f, "the connection was closed during the TLS handshake ({reason})")
            }
            TlsError::Handshake(reason) => write!(f, "the TLS handshake failed ({reason})"),
        }
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unverified { error, host, trusted_roots, certificate } = self;
        let name = |name: fn(&Certificate) -> &String| match certificate {
            Some(certificate) => format!(" {}", name(certificate)),
            None => String::new(),
        };
        match error {
            VerifyError::Expired => match certificate {
                Some(certificate) if certificate.has_expired => write!(
                    f,
                    "the server's certificate expired on {}; renew it on the server",
                    certificate.not_after
                ),
                _ => f.write_str(
                    "a certificate in the chain of the server's certificate has expired; renew it",
                ),
            },
            VerifyError::NotYetValid => {
                f.write_str("the server's certificate is not valid yet")?;
                if let Some(certificate) = certificate {
                    write!(f, ", only from {}", certificate.not_before)?;
                }
                f.write_str("; check the clock of this host, and of the one that issued it")
            }
            VerifyError::WrongHost => {
                write!(f, "the server's certificate is not valid for {host}")?;
                match certificate.as_ref().map(|certificate| certificate.names.join(", ")) {
                    Some(names) if names.is_empty() => f.write_str(", and names no host")?,
                    Some(names) => write!(f, ", only for {names}")?,
                    None => {}
                }
                f.write_str(
                    "; connect by a name in the certificate, or use sslmode=verify-ca, which does \
                     not compare names",
                )
            }
            VerifyError::UnknownAuthority => write!(
                f,
                "the server's certificate was issued by an untrusted authority{}; premigrate \
                 trusts {trusted_roots}; set sslrootcert or PGSSLROOTCERT to the root certificate of the \
                 authority",
                name(|certificate| &certificate.issuer),
            ),
            VerifyError::SelfSigned => write!(
                f,
                "the server's certificate{} is self-signed and not trusted; premigrate \
                 trusts {trusted_roots}; set sslrootcert or PGSSLROOTCERT to this certificate",
                name(|certificate| &certificate.subject),
            ),
            VerifyError::Other(reason) => {
                write!(f, "could not verify the server's certificate ({reason})")
            }
        }
    }
}
