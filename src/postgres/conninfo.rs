//! Where and how to connect, by libpq's rules: a URL or key=value pairs, and the PG* variables for
//! what they leave out. Pure: the environment is a lookup, and no file is read. No error and no note
//! contains a value, since any part of a malformed text may be part of a password.

mod error;
mod format;
mod keywords;
mod params;
pub mod passfile;
mod pem;
mod settings;
mod url;

pub use error::ConninfoError;
pub use params::resolve;
pub use pem::Pem;
pub use settings::{ServerSetting, ServerSettings};

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// To send it to the server, and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

/// A database and how to connect to it, with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Not empty; tried in this order.
    pub hosts: Vec<Host>,
    pub user: String,
    pub password: Option<Secret>,
    /// Where to look up the password, if there is none; it need not exist.
    pub passfile: Option<PathBuf>,
    pub dbname: String,
    pub application_name: String,
    /// The part of `options` that is for a proxy, such as Neon's `endpoint=NAME`.
    pub options: Option<String>,
    pub settings: ServerSettings,
    /// For TCP; see [`Target::sslmode_for`].
    pub sslmode: SslMode,
    /// Instead of the system's roots; only with a mode that verifies certificates.
    pub root_cert: Option<RootCert>,
    pub client_cert: Option<ClientCert>,
    pub channel_binding: ChannelBinding,
    /// For one attempt at one address; `None` where it is not set, or zero.
    pub connect_timeout: Option<Duration>,
    pub tcp: TcpOptions,
    pub target_session_attrs: SessionAttrs,
    /// One line for each parameter that is ignored.
    pub notes: Vec<String>,
}

impl Target {
    /// The role that works in the database.
    pub fn role(&self) -> &str {
        self.settings.role.as_ref().map_or(&self.user, |role| &role.value)
    }

    /// Only the primary, where any server was accepted.
    pub fn on_primary(&self) -> Target {
        let target_session_attrs = match self.target_session_attrs {
            SessionAttrs::Any => SessionAttrs::Primary,
            other => other,
        };
        Target { target_session_attrs, ..self.clone() }
    }

    /// A Unix socket never uses TLS.
    pub fn sslmode_for(&self, host: &Host) -> SslMode {
        match host.name {
            HostName::Tcp(_) => self.sslmode,
            HostName::Socket(_) => SslMode::Disable,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Compared with the names in the server's certificate.
    pub name: HostName,
    /// `hostaddr`, in which case the name is not resolved.
    pub addr: Option<IpAddr>,
    /// For a socket, the number in its name.
    pub port: u16,
}

/// Displayed as in a password file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// A DNS name or a numeric address.
    Tcp(String),
    /// The directory of a Unix-domain socket.
    Socket(PathBuf),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Socket(directory) => directory.display().fmt(f),
        }
    }
}

/// libpq's `sslmode`, and node-postgres's `no-verify`, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    /// TLS only if the server requires it.
    Allow,
    /// TLS if the server supports it.
    Prefer,
    /// TLS without verification, even where there is a root certificate.
    NoVerify,
    /// TLS without verification.
    Require,
    /// TLS with a certificate from a trusted root.
    VerifyCa,
    /// TLS with a certificate from a trusted root and for this host.
    VerifyFull,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// The only roots that are trusted.
    File(Pem),
    /// libpq's default file, which need not exist. If it does, [`SslMode::Require`] verifies too.
    DefaultFile(PathBuf),
    /// `sslrootcert=system`.
    System,
}

/// `sslcert` and `sslkey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    pub cert: Pem,
    pub key: Pem,
    /// `sslpassword`: the passphrase of the key.
    pub password: Option<Secret>,
    /// Whether the certificate need not exist, since these are libpq's default files.
    pub if_there: bool,
}

/// How a dead network is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// `None` turns them off.
    pub keepalives: Option<Keepalives>,
    /// `None` is the system's default.
    pub user_timeout: Option<Duration>,
}

/// TCP keepalives; `None` is the system's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Idle time before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes until the connection is considered dead.
    pub count: Option<u32>,
}

/// `target_session_attrs`, without the values that exclude writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAttrs {
    Any,
    /// Sessions are not read-only.
    ReadWrite,
    /// Not a standby.
    Primary,
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
