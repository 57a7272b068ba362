//! The parameters of a connection string, completed by the PG* variables, and their values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

use super::error::Problem;
use super::keywords::{self, Keyword};
use super::{
    ClientCert, ConninfoError, Host, HostName, Keepalives, Pem, RootCert, Secret, ServerSetting,
    ServerSettings, SessionAttrs, SslMode, Target, TcpOptions, format, settings,
};

const DEFAULT_PORT: u16 = 5432;
const APPLICATION_NAME: &str = "premigrate";
/// A dead network is noticed in about six seconds; the kernel's default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves a connection string, whose source is named in errors, or only the PG* variables.
pub fn resolve(
    text: Option<&str>,
    source: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, ConninfoError> {
    let mut params = Params { given: BTreeMap::new(), settings: Vec::new(), source, env };
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
    let (sslmode, root_cert) = params.tls(&mut notes)?;
    let (settings, options) = params.server_settings()?;
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
        options,
        settings,
        sslmode,
        root_cert,
        client_cert: params.client_cert(&mut notes)?,
        channel_binding: params
            .choice("channel_binding", CHANNEL_BINDINGS)?
            .unwrap_or(ChannelBinding::Prefer),
        connect_timeout: params.duration("connect_timeout", None, Duration::from_secs)?,
        tcp: params.tcp()?,
        target_session_attrs: params
            .choice("target_session_attrs", SESSION_ATTRS)?
            .unwrap_or(SessionAttrs::Any),
        notes,
    })
}

const CHANNEL_BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

const SESSION_ATTRS: &[(&str, SessionAttrs)] = &[
    ("any", SessionAttrs::Any),
    ("read-write", SessionAttrs::ReadWrite),
    ("primary", SessionAttrs::Primary),
];

const SSL_MODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
    ("no-verify", SslMode::NoVerify),
];

/// `ssl` is what other drivers have for `sslmode`.
const SSL: &[(&str, SslMode)] = &[
    ("true", SslMode::Require),
    ("1", SslMode::Require),
    ("require", SslMode::Require),
    ("false", SslMode::Disable),
    ("0", SslMode::Disable),
    ("disable", SslMode::Disable),
    ("no-verify", SslMode::NoVerify),
];

/// libpq's variables for settings of the server.
const SETTING_VARIABLES: [(&str, &str); 3] =
    [("PGDATESTYLE", "datestyle"), ("PGGEQO", "geqo"), ("PGTZ", "timezone")];

/// The parameters of the text, with defaults from the environment.
struct Params<'a> {
    given: BTreeMap<&'static str, String>,
    /// Settings of the server, in the order of the text.
    settings: Vec<ServerSetting>,
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
                Some(Keyword::Setting(name)) => self.settings.push(ServerSetting {
                    name: name.to_owned(),
                    value: settings::value_of(&param.key, &param.value),
                    origin: format!("{} in {}", param.key, self.source),
                }),
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

    fn value_error(&self, key: &str, problem: Problem) -> ConninfoError {
        ConninfoError { source: self.source_of(key).to_owned(), problem }
    }

    /// Where the value of a keyword comes from: the text or a variable.
    fn source_of(&self, key: &str) -> &str {
        let default = keywords::variable(key).filter(|name| self.variable(name).is_some());
        default.filter(|_| !self.given.contains_key(key)).unwrap_or(self.source)
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
        let Some(text) = self.text(key) else { return Vec::new() };
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

    /// The settings of the server, and what of `options` is for a proxy. As in libpq, keys of their
    /// own win over `options`, and both over variables.
    fn server_settings(&self) -> Result<(ServerSettings, Option<String>), ConninfoError> {
        let mut all = ServerSettings::default();
        let mut set = |setting: ServerSetting| {
            let checked = settings::check(&setting.name, &setting.value);
            checked.map_err(|problem| self.error(problem))?;
            all.set(setting);
            Ok(())
        };
        for (variable, name) in SETTING_VARIABLES {
            if let Some(value) = self.variable(variable) {
                set(ServerSetting { name: name.to_owned(), value, origin: variable.to_owned() })?;
            }
        }
        let options = self.text("options").unwrap_or_default();
        let (options, for_proxy) = settings::parse_options(&options)
            .map_err(|problem| self.value_error("options", problem))?;
        let source = self.source_of("options");
        for (name, value) in options {
            let origin = format!("{name} in {source}");
            set(ServerSetting { name, value, origin })?;
        }
        self.settings.iter().cloned().try_for_each(set)?;
        Ok((all, Some(for_proxy).filter(|words| !words.is_empty())))
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
        let ssl = self.choice("ssl", SSL)?;
        let sslmode = match ssl {
            // The text wins over the variable, which is only a default.
            Some(_) if !self.given.contains_key("sslmode") => None,
            _ => self.choice("sslmode", SSL_MODES)?,
        };
        // Where `ssl` and `sslmode` disagree, the stronger wins.
        let requested = sslmode.max(ssl).or(require_ssl.map(|_| SslMode::Require));
        let root = self.text("sslrootcert").map(|root| match root.as_str() {
            "system" => RootCert::System,
            root => RootCert::File(Pem::from(root)),
        });
        let strict = self.text("sslaccept").is_some_and(|value| value == "strict");
        let mode = requested.unwrap_or(match root {
            Some(RootCert::System) => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        });
        let mode = match root {
            // sslaccept=strict is Prisma's verify-full.
            _ if strict && mode != SslMode::Disable => SslMode::VerifyFull,
            Some(RootCert::System) if mode != SslMode::VerifyFull => {
                return Err(self.value_error("sslrootcert", Problem::WeakMode));
            }
            Some(RootCert::File(_)) if mode == SslMode::Require => SslMode::VerifyCa,
            Some(RootCert::File(_)) if mode < SslMode::Require => {
                let note = "ignoring sslrootcert; to verify the server, add sslmode=verify-full";
                notes.push(format!("{}: {note}", self.source));
                mode
            }
            _ => mode,
        };
        if mode < SslMode::Require {
            return Ok((mode, None));
        }
        let default = || self.default_path("root.crt").map(RootCert::DefaultFile);
        Ok((mode, root.or_else(default)))
    }

    fn client_cert(&self, notes: &mut Vec<String>) -> Result<Option<ClientCert>, ConninfoError> {
        let password = self.text("sslpassword").map(Secret::new);
        let (cert, key, if_there) = match (self.text("sslcert"), self.text("sslkey")) {
            (Some(cert), Some(key)) => {
                (Some(cert.as_str().into()), Some(key.as_str().into()), false)
            }
            (None, None) => {
                let default = |name| self.default_path(name).map(Pem::from);
                (default("postgresql.crt"), default("postgresql.key"), true)
            }
            (Some(_), None) => return Err(self.value_error("sslcert", Problem::HalfCertificate)),
            (None, Some(_)) => return Err(self.value_error("sslkey", Problem::HalfCertificate)),
        };
        if password.is_some() && if_there {
            notes.push(format!("{}: ignoring sslpassword, since sslkey is not set", self.source));
        }
        let is_disabled = self.text("sslcertmode").is_some_and(|mode| mode == "disable");
        let pair = cert.zip(key).filter(|_| !is_disabled);
        Ok(pair.map(|(cert, key)| ClientCert { cert, key, password, if_there }))
    }

    /// libpq's default for a file that is not given.
    fn default_path(&self, name: &str) -> Option<PathBuf> {
        self.variable("HOME").map(|home| PathBuf::from(home).join(".postgresql").join(name))
    }

    fn tcp(&self) -> Result<TcpOptions, ConninfoError> {
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
        let user_timeout =
            self.duration("tcp_user_timeout", Some(TCP_USER_TIMEOUT), Duration::from_millis)?;
        let are_on = self.number("keepalives")? != Some(0);
        Ok(TcpOptions { keepalives: are_on.then_some(keepalives), user_timeout })
    }
}
