//! Where and how to connect, by libpq's rules: a URL or key=value pairs, and the PG* variables for
//! what they leave out. Pure: the environment is a lookup, and no file is read. No error and no note
//! contains a value, since any part of a malformed text may be part of a password.

mod error;
mod format;
mod keywords;
pub mod passfile;
mod pem;
mod url;

pub use error::ConninfoError;
pub use pem::Pem;

use error::Problem;
use keywords::Keyword;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_PORT: u16 = 5432;
const APPLICATION_NAME: &str = "premigrate";
/// A dead network is noticed in about six seconds; the kernel's default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Such as `-c search_path=app`.
    pub options: Option<String>,
    /// For TCP; see [`Target::sslmode_for`].
    pub sslmode: SslMode,
    /// Instead of the system's roots; only with a mode that verifies certificates.
    pub root_cert: Option<RootCert>,
    pub client_cert: Option<ClientCert>,
    pub channel_binding: ChannelBinding,
    /// For one attempt at one address; `None` where it is not set, or zero.
    pub connect_timeout: Option<Duration>,
    /// `None` turns them off.
    pub keepalives: Option<Keepalives>,
    /// `None` is the system's default.
    pub tcp_user_timeout: Option<Duration>,
    pub target_session_attrs: SessionAttrs,
    /// One line for each parameter that is ignored.
    pub notes: Vec<String>,
}

impl Target {
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

/// libpq's `sslmode`, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    Disable,
    /// TLS only if the server requires it.
    Allow,
    /// TLS if the server supports it.
    Prefer,
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
    IfThere(PathBuf),
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

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    /// If both sides support it.
    Prefer,
    Require,
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

/// Resolves a connection string, whose source is named in errors, or only the PG* variables.
pub fn resolve(
    text: Option<&str>,
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, ConninfoError> {
    let mut params = Params { given: BTreeMap::new(), source, env };
    let mut notes = match text {
        Some(text) => params.read(text).map_err(|problem| params.error(problem))?,
        None => Vec::new(),
    };
    params.reject_unsupported()?;

    let hosts = params.hosts()?;
    let user = params.text("user").ok_or_else(|| params.error(Problem::NoUser))?;
    let password = params.text("password").map(Secret::new);
    let default_passfile = || params.variable("HOME").map(|home| format!("{home}/.pgpass"));
    let passfile = params.text("passfile").or_else(default_passfile).map(PathBuf::from);
    let (mut sslmode, root_cert) = params.tls(&mut notes)?;
    if hosts.iter().all(|host| matches!(host.name, HostName::Socket(_))) {
        sslmode = SslMode::Disable;
    }
    Ok(Target {
        hosts,
        passfile: passfile.filter(|_| password.is_none()),
        password,
        dbname: params.text("dbname").unwrap_or_else(|| user.clone()),
        user,
        application_name: params
            .text("application_name")
            .or_else(|| params.text("fallback_application_name"))
            .unwrap_or_else(|| APPLICATION_NAME.to_owned()),
        options: params.text("options"),
        sslmode,
        root_cert: root_cert.filter(|root| {
            let least = match root {
                RootCert::IfThere(_) => SslMode::Require,
                RootCert::File(_) | RootCert::System => SslMode::VerifyCa,
            };
            sslmode >= least
        }),
        client_cert: params.client_cert(&mut notes)?,
        channel_binding: params
            .choice("channel_binding", CHANNEL_BINDINGS)?
            .unwrap_or(ChannelBinding::Prefer),
        connect_timeout: params.duration("connect_timeout", None, Duration::from_secs)?,
        keepalives: params.keepalives()?,
        tcp_user_timeout: params.duration(
            "tcp_user_timeout",
            Some(TCP_USER_TIMEOUT),
            Duration::from_millis,
        )?,
        target_session_attrs: params
            .choice("target_session_attrs", SESSION_ATTRS)?
            .map_or(Ok(SessionAttrs::Any), |attrs| attrs.ok_or(Problem::ReadOnly))
            .map_err(|problem| params.value_error("target_session_attrs", problem))?,
        notes,
    })
}

const CHANNEL_BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

const SESSION_ATTRS: &[(&str, Option<SessionAttrs>)] = &[
    ("any", Some(SessionAttrs::Any)),
    ("read-write", Some(SessionAttrs::ReadWrite)),
    ("primary", Some(SessionAttrs::Primary)),
    ("read-only", None),
    ("standby", None),
    ("prefer-standby", None),
];

/// An `sslmode`, and whether a root certificate that is given makes it verify.
type Mode = (SslMode, bool);

const NO_VERIFY: Mode = (SslMode::Require, false);

const SSL_MODES: &[(&str, Mode)] = &[
    ("disable", (SslMode::Disable, true)),
    ("allow", (SslMode::Allow, true)),
    ("prefer", (SslMode::Prefer, true)),
    ("require", (SslMode::Require, true)),
    ("verify-ca", (SslMode::VerifyCa, true)),
    ("verify-full", (SslMode::VerifyFull, true)),
    ("no-verify", NO_VERIFY),
];

/// `ssl` is what other drivers have for `sslmode`.
const SSL: &[(&str, Mode)] = &[
    ("true", (SslMode::Require, true)),
    ("1", (SslMode::Require, true)),
    ("require", (SslMode::Require, true)),
    ("false", (SslMode::Disable, true)),
    ("0", (SslMode::Disable, true)),
    ("disable", (SslMode::Disable, true)),
    ("no-verify", NO_VERIFY),
];

/// The parameters of the text, with defaults from the environment.
struct Params<'a> {
    given: BTreeMap<&'static str, String>,
    source: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Params<'_> {
    /// Parses the text; returns a note for each parameter that is ignored.
    fn read(&mut self, text: &str) -> Result<Vec<String>, Problem> {
        let (params, driver) = format::params(text)?;
        let mut notes = Vec::new();
        if driver {
            notes.push(format!("{}: ignoring the driver in the URL's scheme", self.source));
        }
        for param in params {
            match keywords::lookup(&param.key) {
                Some(Keyword::Libpq(key)) => {
                    self.given.insert(key, param.value);
                }
                Some(Keyword::Foreign(owner)) => notes.push(format!(
                    "{}: ignoring {}, a parameter of {owner}",
                    self.source, param.key
                )),
                None => return Err(param.unknown()),
            }
        }
        Ok(notes)
    }

    fn error(&self, problem: Problem) -> ConninfoError {
        ConninfoError { source: self.source.to_owned(), problem }
    }

    /// An error in the value of a keyword, by its source: the text or a variable.
    fn value_error(&self, key: &str, problem: Problem) -> ConninfoError {
        let default = keywords::variable(key).filter(|name| self.variable(name).is_some());
        let variable = default.filter(|_| !self.given.contains_key(key));
        ConninfoError { source: variable.unwrap_or(self.source).to_owned(), problem }
    }

    /// An empty variable counts as unset, since Compose files set them so.
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn default(&self, key: &str) -> Option<String> {
        keywords::variable(key).and_then(|name| self.variable(name))
    }

    fn find(&self, key: &str) -> Option<String> {
        self.given.get(key).cloned().or_else(|| self.default(key))
    }

    /// A value that counts as unset if it is empty.
    fn text(&self, key: &str) -> Option<String> {
        let given = self.given.get(key).filter(|value| !value.is_empty());
        given.cloned().or_else(|| self.default(key))
    }

    fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        if text.is_empty() {
            return Vec::new();
        }
        text.split(',').map(|entry| entry.trim().to_owned()).collect()
    }

    fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, ConninfoError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let chosen = choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice);
        let names = || choices.iter().map(|(name, _)| *name).collect();
        chosen.map(Some).ok_or_else(|| self.value_error(key, Problem::Choice(key, names())))
    }

    fn number(&self, key: &'static str) -> Result<Option<i32>, ConninfoError> {
        let number = self.find(key).map(|value| value.trim().parse());
        number.transpose().map_err(|_| self.value_error(key, Problem::Number(key)))
    }

    /// Zero or less is the system's default, and not ours.
    fn duration(
        &self,
        key: &'static str,
        default: Option<Duration>,
        unit: fn(u64) -> Duration,
    ) -> Result<Option<Duration>, ConninfoError> {
        let Some(number) = self.number(key)? else { return Ok(default) };
        Ok(u64::try_from(number).ok().filter(|number| *number > 0).map(unit))
    }

    fn reject_unsupported(&self) -> Result<(), ConninfoError> {
        for (key, _, values) in keywords::UNSUPPORTED {
            let Some(value) = self.text(key) else { continue };
            if !values.iter().any(|harmless| harmless.eq_ignore_ascii_case(&value)) {
                return Err(self.value_error(key, Problem::Unsupported(key, values)));
            }
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<Host>, ConninfoError> {
        let (names, addrs, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        let hosts = if names.is_empty() { addrs.len() } else { names.len() };
        if hosts == 0 {
            return Err(self.error(Problem::NoHost));
        }
        for (key, count, one_is_enough) in
            [("hostaddr", addrs.len(), false), ("port", ports.len(), true)]
        {
            if count != 0 && count != hosts && !(one_is_enough && count == 1) {
                return Err(self.value_error(key, Problem::Counts { key, count, hosts }));
            }
        }
        let nth = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
        let port = |i| ports.get(i).or_else(|| ports.first()).cloned().unwrap_or_default();
        (0..hosts).map(|i| self.host(nth(&names, i), &nth(&addrs, i), &port(i))).collect()
    }

    fn host(&self, name: String, addr: &str, port: &str) -> Result<Host, ConninfoError> {
        let port = match port {
            "" => Some(DEFAULT_PORT),
            port => port.parse().ok().filter(|port| *port != 0),
        };
        let port = port.ok_or_else(|| self.value_error("port", Problem::Port))?;
        if !addr.is_empty() {
            let ip = addr.parse().map_err(|_| self.value_error("hostaddr", Problem::Address))?;
            // A directory is not a name; libpq then uses only the address, too.
            let named = !name.is_empty() && !name.starts_with('/');
            let name = if named { self.host_name(name)? } else { HostName::Tcp(addr.to_owned()) };
            return Ok(Host { name, addr: Some(ip), port });
        }
        Ok(Host { name: self.host_name(name)?, addr: None, port })
    }

    fn host_name(&self, name: String) -> Result<HostName, ConninfoError> {
        // `_` is for Compose services, `%` for the zone of a link-local address.
        let ipv6 = name.contains(':');
        let possible = |c: char| c.is_alphanumeric() || "-._:".contains(c) || (ipv6 && c == '%');
        match name {
            name if name.starts_with('/') => Ok(HostName::Socket(PathBuf::from(name))),
            name if name.is_empty() => Err(self.value_error("host", Problem::EmptyHost)),
            name if name.chars().all(possible) => Ok(HostName::Tcp(name)),
            _ => Err(self.value_error("host", Problem::HostName)),
        }
    }

    fn tls(&self, notes: &mut Vec<String>) -> Result<(SslMode, Option<RootCert>), ConninfoError> {
        let require_ssl = self.variable("PGREQUIRESSL").filter(|value| value.starts_with('1'));
        let legacy = require_ssl.map(|_| (SslMode::Require, true));
        let ssl = self.choice("ssl", SSL)?;
        let sslmode = match ssl {
            // The text wins over the variable, which is only a default.
            Some(_) if !self.given.contains_key("sslmode") => None,
            _ => self.choice("sslmode", SSL_MODES)?,
        };
        // Where `ssl` and `sslmode` disagree, the stronger wins.
        let requested = sslmode.max(ssl).or(legacy);
        let root = self.text("sslrootcert").map(|root| match root.as_str() {
            "system" => RootCert::System,
            root => RootCert::File(Pem::from(root)),
        });
        let strict = self.text("sslaccept").is_some_and(|value| value == "strict");
        let (mode, verifies) = requested.unwrap_or(match root {
            Some(RootCert::System) => (SslMode::VerifyFull, true),
            _ => (SslMode::Prefer, true),
        });
        let mode = match root {
            // sslaccept=strict is Prisma's verify-full.
            _ if strict && mode != SslMode::Disable => SslMode::VerifyFull,
            Some(RootCert::System) if mode != SslMode::VerifyFull => {
                return Err(self.value_error("sslrootcert", Problem::WeakMode));
            }
            Some(RootCert::File(_)) if mode == SslMode::Require && verifies => SslMode::VerifyCa,
            Some(RootCert::File(_)) if mode <= SslMode::Require => {
                let note = "ignoring sslrootcert; to verify the server, add sslmode=verify-full";
                notes.push(format!("{}: {note}", self.source));
                mode
            }
            _ => mode,
        };
        let default =
            || verifies.then(|| self.default_path("root.crt").map(RootCert::IfThere)).flatten();
        Ok((mode, root.or_else(default)))
    }

    fn client_cert(&self, notes: &mut Vec<String>) -> Result<Option<ClientCert>, ConninfoError> {
        let password = self.text("sslpassword").map(Secret::new);
        let pair = match (self.text("sslcert"), self.text("sslkey")) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (cert.as_str().into(), key.as_str().into());
                Some(ClientCert { cert, key, password: password.clone(), if_there: false })
            }
            (None, None) => {
                let (cert, key) =
                    (self.default_path("postgresql.crt"), self.default_path("postgresql.key"));
                cert.zip(key).map(|(cert, key)| ClientCert {
                    cert: cert.into(),
                    key: key.into(),
                    password: password.clone(),
                    if_there: true,
                })
            }
            (Some(_), None) => return Err(self.value_error("sslcert", Problem::HalfCertificate)),
            (None, Some(_)) => return Err(self.value_error("sslkey", Problem::HalfCertificate)),
        };
        if password.is_some() && pair.as_ref().is_none_or(|pair| pair.if_there) {
            notes.push(format!("{}: ignoring sslpassword, since sslkey is not set", self.source));
        }
        Ok(pair.filter(|_| self.text("sslcertmode").is_none_or(|mode| mode != "disable")))
    }

    /// libpq's default for a file that is not given.
    fn default_path(&self, name: &str) -> Option<PathBuf> {
        self.variable("HOME").map(|home| PathBuf::from(home).join(".postgresql").join(name))
    }

    fn keepalives(&self) -> Result<Option<Keepalives>, ConninfoError> {
        let seconds = Duration::from_secs;
        let count = match self.number("keepalives_count")? {
            Some(count) => u32::try_from(count).ok().filter(|count| *count > 0),
            None => Some(KEEPALIVE_COUNT),
        };
        let keepalives = Keepalives {
            idle: self.duration("keepalives_idle", Some(KEEPALIVE_IDLE), seconds)?,
            interval: self.duration("keepalives_interval", Some(KEEPALIVE_INTERVAL), seconds)?,
            count,
        };
        Ok((self.number("keepalives")? != Some(0)).then_some(keepalives))
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
