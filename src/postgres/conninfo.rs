//! Where and how to connect, by libpq's rules: a URL or key=value text, and the PG* variables for
//! what it does not say. Pure: the environment is a lookup, and files are only named. No error and
//! no note ever holds a value, since any piece of a misread text may be a piece of a password.

mod invalid;
mod keywords;
pub mod passfile;
mod pem;
mod text;
mod url;

pub use invalid::ConninfoError;
pub use pem::Pem;

use invalid::Problem;
use keywords::Keyword;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_PORT: u16 = 5432;
const APPLICATION_NAME: &str = "premigrate";
/// A vanished network is noticed in about six seconds; the kernel's own default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the server only.
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

/// A database and the way to it. Nothing is left to be defaulted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Never empty; tried in this order.
    pub hosts: Vec<Host>,
    /// The role to log in as.
    pub user: String,
    /// The same for all hosts.
    pub password: Option<Secret>,
    /// Where to look for a password when there is none; it need not exist.
    pub passfile: Option<PathBuf>,
    /// The database.
    pub dbname: String,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// Command-line options for the server, such as `-c search_path=app`.
    pub options: Option<String>,
    /// For hosts that are reached by TCP; see [`Target::sslmode_for`].
    pub sslmode: SslMode,
    /// What certificates are verified against, if not the well-known roots; only with a mode that
    /// verifies.
    pub root_cert: Option<RootCert>,
    /// What we identify ourselves with.
    pub client_cert: Option<ClientCert>,
    /// Whether the password exchange must be tied to the TLS session.
    pub channel_binding: ChannelBinding,
    /// For one whole attempt at one host; none is no limit.
    pub connect_timeout: Option<Duration>,
    /// None is off.
    pub keepalives: Option<Keepalives>,
    /// How long sent data may stay unacknowledged; none is the system's default.
    pub tcp_user_timeout: Option<Duration>,
    /// Which servers will do.
    pub target_session_attrs: SessionAttrs,
    /// What was set aside, a line each.
    pub notes: Vec<String>,
}

impl Target {
    /// TLS is for TCP; a local socket never has it.
    pub fn sslmode_for(&self, host: &Host) -> SslMode {
        match host.name {
            HostName::Tcp(_) => self.sslmode,
            HostName::Socket(_) => SslMode::Disable,
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What it is called; a TLS certificate is compared with this.
    pub name: HostName,
    /// `hostaddr`: where it is, so that the name need not be looked up.
    pub addr: Option<IpAddr>,
    /// The TCP port, or the number in the socket's name.
    pub port: u16,
}

/// How a server is reached; displayed as the password file names it.
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
    /// No TLS.
    Disable,
    /// TLS if the server insists.
    Allow,
    /// TLS if the server has it.
    Prefer,
    /// TLS, whoever answers.
    Require,
    /// TLS with a certificate from a trusted root.
    VerifyCa,
    /// TLS with a certificate from a trusted root and for this host.
    VerifyFull,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// The only roots to trust, in PEM.
    File(Pem),
    /// The same, if this file is there: libpq's own place for it. Then it also makes
    /// [`SslMode::Require`] verify.
    IfThere(PathBuf),
    /// The well-known roots, named on purpose.
    System,
}

/// `sslcert` and `sslkey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// The certificate, in PEM.
    pub cert: Pem,
    /// Its private key, in PEM.
    pub key: Pem,
    /// `sslpassword`: what the key is encrypted with.
    pub password: Option<Secret>,
    /// Whether it is no fault if the certificate is not there: libpq's own place for it.
    pub if_there: bool,
}

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Or no login.
    Require,
}

/// TCP keepalives; what is none is the system's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection is given up.
    pub count: Option<u32>,
}

/// `target_session_attrs`, as far as it makes sense for one who must write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAttrs {
    /// The first server that answers.
    Any,
    /// One whose sessions may write.
    ReadWrite,
    /// One that is not a standby.
    Primary,
}

/// Resolves `text`, which came from `source`, or the PG* variables alone. `env` looks up a
/// variable.
pub fn resolve(
    text: Option<&str>,
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, ConninfoError> {
    let mut said = Params { said: BTreeMap::new(), source, env };
    let mut notes = match text {
        Some(text) => said.read(text).map_err(|problem| said.invalid(problem))?,
        None => Vec::new(),
    };
    said.refuse_unsupported()?;

    let hosts = said.hosts()?;
    let user = said.text("user").ok_or_else(|| said.invalid(Problem::NoUser))?;
    let password = said.text("password").map(Secret::new);
    let default_passfile = || said.variable("HOME").map(|home| format!("{home}/.pgpass"));
    let passfile = said.text("passfile").or_else(default_passfile).map(PathBuf::from);
    let (mut sslmode, root_cert) = said.tls(&mut notes)?;
    if hosts.iter().all(|host| matches!(host.name, HostName::Socket(_))) {
        sslmode = SslMode::Disable;
    }
    Ok(Target {
        hosts,
        passfile: passfile.filter(|_| password.is_none()),
        password,
        dbname: said.text("dbname").unwrap_or_else(|| user.clone()),
        user,
        application_name: said
            .text("application_name")
            .or_else(|| said.text("fallback_application_name"))
            .unwrap_or_else(|| APPLICATION_NAME.to_owned()),
        options: said.text("options"),
        sslmode,
        root_cert: root_cert.filter(|root| {
            let least = match root {
                RootCert::IfThere(_) => SslMode::Require,
                RootCert::File(_) | RootCert::System => SslMode::VerifyCa,
            };
            sslmode >= least
        }),
        client_cert: said.client_cert(&mut notes)?,
        channel_binding: said
            .choice("channel_binding", CHANNEL_BINDINGS)?
            .unwrap_or(ChannelBinding::Prefer),
        connect_timeout: said.duration("connect_timeout", None, Duration::from_secs)?,
        keepalives: said.keepalives()?,
        tcp_user_timeout: said.duration(
            "tcp_user_timeout",
            Some(TCP_USER_TIMEOUT),
            Duration::from_millis,
        )?,
        target_session_attrs: said
            .choice("target_session_attrs", SESSION_ATTRS)?
            .map_or(Ok(SessionAttrs::Any), |attrs| attrs.ok_or(Problem::ReadOnly))
            .map_err(|problem| said.blame("target_session_attrs", problem))?,
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

/// What the text says, over what the environment says.
struct Params<'a> {
    said: BTreeMap<&'static str, String>,
    source: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Params<'_> {
    /// Takes in the text; returns notes on what was set aside.
    fn read(&mut self, text: &str) -> Result<Vec<String>, Problem> {
        let (params, driver) = text::params(text)?;
        let mut notes = Vec::new();
        let mut set_aside = |key: &str, why: &str| {
            notes.push(format!("{}: {key} is set aside, {why}", self.source));
        };
        if driver {
            set_aside("the driver in the URL's scheme", "it makes no difference here");
        }
        for param in params {
            match keywords::lookup(&param.key) {
                Some(Keyword::DatabaseState(key)) => {
                    self.said.insert(key, param.value);
                }
                Some(Keyword::Foreign(owner)) => {
                    set_aside(&param.key, &format!("it is for {owner}"))
                }
                None => return Err(param.unknown()),
            }
        }
        Ok(notes)
    }

    fn invalid(&self, problem: Problem) -> ConninfoError {
        ConninfoError { source: self.source.to_owned(), problem }
    }

    /// An error in a keyword's value, wherever that came from.
    fn blame(&self, key: &str, problem: Problem) -> ConninfoError {
        let default = keywords::variable(key).filter(|name| self.variable(name).is_some());
        let variable = default.filter(|_| !self.said.contains_key(key));
        ConninfoError { source: variable.unwrap_or(self.source).to_owned(), problem }
    }

    /// An empty variable is an unset one, as compose files make them.
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn default(&self, key: &str) -> Option<String> {
        keywords::variable(key).and_then(|name| self.variable(name))
    }

    fn find(&self, key: &str) -> Option<String> {
        self.said.get(key).cloned().or_else(|| self.default(key))
    }

    /// A value for which empty means unset.
    fn text(&self, key: &str) -> Option<String> {
        let said = self.said.get(key).filter(|value| !value.is_empty());
        said.cloned().or_else(|| self.default(key))
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
        chosen.map(Some).ok_or_else(|| self.blame(key, Problem::Choice(key, names())))
    }

    fn number(&self, key: &'static str) -> Result<Option<i32>, ConninfoError> {
        let number = self.find(key).map(|value| value.trim().parse());
        number.transpose().map_err(|_| self.blame(key, Problem::Number(key)))
    }

    /// Zero and less ask for the system's default, as opposed to ours.
    fn duration(
        &self,
        key: &'static str,
        default: Option<Duration>,
        unit: fn(u64) -> Duration,
    ) -> Result<Option<Duration>, ConninfoError> {
        let Some(number) = self.number(key)? else { return Ok(default) };
        Ok(u64::try_from(number).ok().filter(|number| *number > 0).map(unit))
    }

    fn refuse_unsupported(&self) -> Result<(), ConninfoError> {
        for (key, _, values) in keywords::REFUSED {
            let Some(value) = self.text(key) else { continue };
            if !values.iter().any(|harmless| harmless.eq_ignore_ascii_case(&value)) {
                return Err(self.blame(key, Problem::Unsupported(key, values)));
            }
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<Host>, ConninfoError> {
        let (names, addrs, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        let hosts = if names.is_empty() { addrs.len() } else { names.len() };
        if hosts == 0 {
            return Err(self.invalid(Problem::NoHost));
        }
        for (what, count, one_is_enough) in
            [("hostaddr", addrs.len(), false), ("port", ports.len(), true)]
        {
            if count != 0 && count != hosts && !(one_is_enough && count == 1) {
                return Err(self.blame(what, Problem::Counts { what, count, hosts }));
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
        let port = port.ok_or_else(|| self.blame("port", Problem::Port))?;
        if !addr.is_empty() {
            let ip = addr.parse().map_err(|_| self.blame("hostaddr", Problem::Address))?;
            // A directory is no name; libpq, too, then goes by the address alone.
            let named = !name.is_empty() && !name.starts_with('/');
            let name = if named { self.host_name(name)? } else { HostName::Tcp(addr.to_owned()) };
            return Ok(Host { name, addr: Some(ip), port });
        }
        Ok(Host { name: self.host_name(name)?, addr: None, port })
    }

    fn host_name(&self, name: String) -> Result<HostName, ConninfoError> {
        // `_` is for compose services, `%` for the zone of a link-local address.
        let ipv6 = name.contains(':');
        let possible = |c: char| c.is_alphanumeric() || "-._:".contains(c) || (ipv6 && c == '%');
        match name {
            name if name.starts_with('/') => Ok(HostName::Socket(PathBuf::from(name))),
            name if name.is_empty() => Err(self.blame("host", Problem::EmptyHost)),
            name if name.chars().all(possible) => Ok(HostName::Tcp(name)),
            _ => Err(self.blame("host", Problem::HostName)),
        }
    }

    fn tls(&self, notes: &mut Vec<String>) -> Result<(SslMode, Option<RootCert>), ConninfoError> {
        let require_ssl = self.variable("PGREQUIRESSL").filter(|value| value.starts_with('1'));
        let legacy = require_ssl.map(|_| (SslMode::Require, true));
        let ssl = self.choice("ssl", SSL)?;
        let sslmode = match ssl {
            // The text has spoken; the variable is only a default.
            Some(_) if !self.said.contains_key("sslmode") => None,
            _ => self.choice("sslmode", SSL_MODES)?,
        };
        // Where `ssl` and `sslmode` disagree, the stronger wins.
        let asked = sslmode.max(ssl).or(legacy);
        let root = self.text("sslrootcert").map(|root| match root.as_str() {
            "system" => RootCert::System,
            root => RootCert::File(Pem::from(root)),
        });
        let strict = self.text("sslaccept").is_some_and(|value| value == "strict");
        let (mode, verifies) = asked.unwrap_or(match root {
            Some(RootCert::System) => (SslMode::VerifyFull, true),
            _ => (SslMode::Prefer, true),
        });
        let mode = match root {
            // Prisma's word for verifying.
            _ if strict && mode != SslMode::Disable => SslMode::VerifyFull,
            Some(RootCert::System) if mode != SslMode::VerifyFull => {
                return Err(self.blame("sslrootcert", Problem::WeakMode));
            }
            Some(RootCert::File(_)) if mode == SslMode::Require && verifies => SslMode::VerifyCa,
            Some(RootCert::File(_)) if mode <= SslMode::Require => {
                let unused = "sslrootcert is not used, for that add sslmode=verify-full";
                notes.push(format!("{}: {unused}", self.source));
                mode
            }
            _ => mode,
        };
        let own = || verifies.then(|| self.own_file("root.crt").map(RootCert::IfThere)).flatten();
        Ok((mode, root.or_else(own)))
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
                    (self.own_file("postgresql.crt"), self.own_file("postgresql.key"));
                cert.zip(key).map(|(cert, key)| ClientCert {
                    cert: cert.into(),
                    key: key.into(),
                    password: password.clone(),
                    if_there: true,
                })
            }
            (Some(_), None) => return Err(self.blame("sslcert", Problem::HalfCertificate)),
            (None, Some(_)) => return Err(self.blame("sslkey", Problem::HalfCertificate)),
        };
        if password.is_some() && pair.as_ref().is_none_or(|pair| pair.if_there) {
            notes.push(format!("{}: sslpassword is set aside, there is no sslkey", self.source));
        }
        Ok(pair.filter(|_| self.text("sslcertmode").is_none_or(|mode| mode != "disable")))
    }

    /// Where libpq looks for what is not named.
    fn own_file(&self, name: &str) -> Option<PathBuf> {
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
