//! Logging in: tries each host and each of its addresses in turn, until one accepts us.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode as DriverSslMode;

use super::dns;
use super::error::{ConnectionError, QueryError, cause};
use super::relay::{Awaited, Relay};
use super::session::{Attempt, CancelHandle, Connected, Session, blocking};
use super::simple_query::Sender;
use crate::postgres::conninfo::{Host, HostName, Secret, SessionAttrs, SslMode, Target, passfile};
use crate::postgres::socket::{Address, Socket};
use crate::postgres::tls::{Certificate, Tls, TlsError};
use crate::process::signals::{Deadline, Interrupted};

/// The limit for one address, where `connect_timeout` is not set.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The limit for fetching a certificate that could not be verified.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(3);
/// PostgreSQL's message, in English, where `pg_hba.conf` requires a client certificate.
const WANTS_CERTIFICATE: &str = "requires a valid client certificate";

impl Session {
    /// Connects to the first host and address that lets us in.
    pub fn open(target: &Target, deadline: Deadline<'_>) -> Result<Session, Vec<Attempt>> {
        let mut attempts = Vec::new();
        for (hosts_left, host) in (1..=target.hosts.len()).rev().zip(&target.hosts) {
            let lookup_deadline = split_deadline(deadline, hosts_left).at_most(timeout(target));
            let addresses = match lookup(host, lookup_deadline) {
                Ok(addresses) => addresses,
                Err(cause) => {
                    attempts.push(Attempt::at_login(host, None, cause));
                    continue;
                }
            };
            let is_only = addresses.len() == 1;
            for (left, address) in (hosts_left..hosts_left + addresses.len()).rev().zip(addresses) {
                let connected = Cell::new(false);
                let login = Login { target, host, address: &address, connected };
                match login.open(deadline, left) {
                    Ok(mut session) => {
                        session.is_only_choice = is_only && target.hosts.len() == 1;
                        return Ok(session);
                    }
                    Err(failed) => attempts.extend(failed),
                }
            }
        }
        Err(attempts)
    }
}

fn timeout(target: &Target) -> Duration {
    target.connect_timeout.unwrap_or(ATTEMPT_TIMEOUT)
}

/// For the first of several addresses that are still to be tried: one that does not answer leaves
/// time for the next.
fn split_deadline(deadline: Deadline<'_>, addresses: usize) -> Deadline<'_> {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
    match deadline.remaining().and_then(|left| left.checked_div(addresses)) {
        Some(share) => deadline.at_most(share),
        None => deadline,
    }
}

fn new_runtime() -> Result<Runtime, QueryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| connect_error(&error))
}

fn connect_error(error: &io::Error) -> QueryError {
    QueryError::Client(ConnectionError::Connect(error.kind(), error.to_string()))
}

fn lookup(host: &Host, deadline: Deadline<'_>) -> Result<Vec<Address>, QueryError> {
    match (&host.name, host.addr) {
        (HostName::Socket(directory), _) => {
            Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{}", host.port)))])
        }
        (HostName::Tcp(_), Some(addr)) => Ok(vec![Address::Tcp(SocketAddr::new(addr, host.port))]),
        (HostName::Tcp(name), None) => {
            match blocking(&new_runtime()?, deadline, dns::addresses(name, host.port)) {
                Ok(Ok(addresses)) => Ok(addresses.into_iter().map(Address::Tcp).collect()),
                Ok(Err(error)) => {
                    Err(QueryError::Client(ConnectionError::Lookup(error.to_string())))
                }
                Err(interrupted) => Err(cut_short(interrupted, ConnectionError::DnsTimedOut)),
            }
        }
    }
}

fn cut_short(interrupted: Interrupted, at_timeout: ConnectionError) -> QueryError {
    match interrupted {
        Interrupted::TimeOut => QueryError::Client(at_timeout),
        Interrupted::Stopped(signal) => QueryError::Stopped(signal),
    }
}

/// The modes that libpq tries, in its order: the second only where the first fails.
fn ssl_attempts(mode: SslMode) -> (DriverSslMode, Option<DriverSslMode>) {
    match mode {
        SslMode::Disable => (DriverSslMode::Disable, None),
        SslMode::Allow => (DriverSslMode::Disable, Some(DriverSslMode::Require)),
        SslMode::Prefer => (DriverSslMode::Prefer, Some(DriverSslMode::Disable)),
        SslMode::NoVerify | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            (DriverSslMode::Require, None)
        }
    }
}

/// The login at one address.
struct Login<'a> {
    target: &'a Target,
    host: &'a Host,
    address: &'a Address,
    /// Whether the server has accepted the connection.
    connected: Cell<bool>,
}

type LoggedIn = (Sender, Connected, Tls);

struct LoginError {
    /// Whether the TLS handshake had succeeded.
    encrypted: bool,
    cause: QueryError,
}

impl<'a> Login<'a> {
    fn failed(&self, tls: Option<bool>, cause: QueryError) -> Attempt {
        Attempt { tls, ..Attempt::at_login(self.host, Some(self.address), cause) }
    }

    /// Logs in as the first of `left` addresses, and checks `target_session_attrs`.
    fn open(&self, deadline: Deadline<'_>, left: usize) -> Result<Session, Vec<Attempt>> {
        let runtime = new_runtime().map_err(|cause| vec![self.failed(None, cause)])?;
        let login_deadline = split_deadline(deadline, left).at_most(timeout(self.target));
        let (sender, connection, tls) = match blocking(&runtime, login_deadline, self.run()) {
            Ok(result) => result?,
            Err(interrupted) => {
                let at_timeout = match self.connected.get() {
                    true => ConnectionError::LoginTimedOut,
                    false => ConnectionError::TimedOut,
                };
                return Err(vec![self.failed(None, cut_short(interrupted, at_timeout))]);
            }
        };
        let cancel_handle = CancelHandle {
            token: sender.cancel_token(),
            address: self.address.clone(),
            tcp_options: self.target.tcp,
            tls,
        };
        let stop = deadline.stop.clone();
        let session = Session::start(runtime, sender, connection, cancel_handle, stop);
        let deadline = deadline.at_most(timeout(self.target));
        match check_session_attrs(&session, self.target.target_session_attrs, deadline) {
            Ok(()) => Ok(session),
            Err(cause) => Err(vec![self.failed(None, cause)]),
        }
    }

    /// Logs in with TLS and without, as `sslmode` has it.
    async fn run(&self) -> Result<LoggedIn, Vec<Attempt>> {
        let (first, second) = ssl_attempts(self.target.sslmode_for(self.host));
        let LoginError { encrypted, cause } = match self.attempt(first).await {
            Ok(logged_in) => return Ok(logged_in),
            Err(error) => error,
        };
        let Some(second) = second.filter(|_| depends_on_tls(first, encrypted, &cause)) else {
            return Err(vec![self.failed(None, cause)]);
        };
        match self.attempt(second).await {
            Ok(logged_in) => Ok(logged_in),
            // A failure that has nothing to do with TLS, such as a server that is restarting,
            // is the only one worth reporting.
            Err(again) if again.cause == cause || !may_depend_on_tls(&again.cause) => {
                Err(vec![self.failed(None, again.cause)])
            }
            Err(again) => {
                let tls = first != DriverSslMode::Disable;
                Err(vec![self.failed(Some(tls), cause), self.failed(Some(!tls), again.cause)])
            }
        }
    }

    async fn attempt(&self, mode: DriverSslMode) -> Result<LoggedIn, LoginError> {
        self.connected.set(false);
        let socket = Socket::dial(self.address, self.target.tcp).await;
        let mut socket = socket
            .map_err(|error| LoginError { encrypted: false, cause: connect_error(&error) })?;
        self.connected.set(true);
        let asks_for_tls = mode != DriverSslMode::Disable;
        if asks_for_tls {
            socket = socket.asking_for_tls();
        }
        let pre_auth = socket.pre_auth();
        let awaited = Awaited::default();
        let relay = Relay::new(socket, awaited.clone(), asks_for_tls);
        let tls = Tls {
            mode: self.target.sslmode_for(self.host),
            host: self.host.name.to_string(),
            roots: self.target.root_cert.clone(),
            identity: self.target.client_cert.clone(),
            agreed: Arc::default(),
        };
        match self.driver_config(mode).connect_raw(relay, tls.clone()).await {
            Ok((client, connection)) => {
                pre_auth.store(false, Ordering::Relaxed);
                Ok((Sender::new(client, awaited), connection, tls))
            }
            Err(error) => {
                let encrypted = tls.agreed.load(Ordering::Relaxed);
                let cause = self.with_tls_details(cause(&error, None), &tls).await;
                Err(LoginError { encrypted, cause })
            }
        }
    }

    fn driver_config(&self, mode: DriverSslMode) -> tokio_postgres::Config {
        let target = self.target;
        let mut config = tokio_postgres::Config::new();
        config.user(&target.user);
        config.dbname(&target.dbname);
        config.application_name(&target.application_name);
        if let Some(password) = target.password.clone().or_else(|| self.password_from_file()) {
            config.password(password.expose());
        }
        if let Some(options) = &target.options {
            config.options(options);
        }
        config.channel_binding(target.channel_binding);
        config.ssl_mode(mode);
        config
    }

    /// From the password file, which need not exist, as in libpq; and which others may be allowed to
    /// read, since Kubernetes mounts secrets that way.
    fn password_from_file(&self) -> Option<Secret> {
        let Target { passfile, dbname, user, .. } = self.target;
        // A pipe would be waited for.
        let file = passfile
            .as_ref()
            .filter(|path| std::fs::metadata(path).is_ok_and(|file| file.is_file()))?;
        let contents = std::fs::read_to_string(file).ok()?;
        passfile::password(&contents, &self.host.name.to_string(), self.host.port, dbname, user)
    }

    /// Adds the certificate that could not be verified, and tells a missing client certificate from
    /// other rejections.
    async fn with_tls_details(&self, mut cause: QueryError, tls: &Tls) -> QueryError {
        if let QueryError::Client(ConnectionError::Tls(TlsError::Unverified(unverified))) =
            &mut cause
            && let Ok(socket) = Socket::dial(self.address, self.target.tcp).await
        {
            let fetch = Certificate::of_server(socket.asking_for_tls(), &tls.host);
            let fetched = tokio::time::timeout(CERTIFICATE_TIMEOUT, fetch).await;
            unverified.certificate = fetched.ok().flatten();
        }
        match &cause {
            QueryError::Server(error)
                if error.message.contains(WANTS_CERTIFICATE)
                    && tls.identity.as_ref().is_none_or(|identity| identity.if_there) =>
            {
                let wanted = TlsError::CertificateWanted(error.message.clone());
                QueryError::Client(ConnectionError::Tls(wanted))
            }
            _ => cause,
        }
    }
}

/// Without a query where any server is accepted.
fn check_session_attrs(
    session: &Session,
    wanted: SessionAttrs,
    deadline: Deadline<'_>,
) -> Result<(), QueryError> {
    let query = match wanted {
        SessionAttrs::Any => return Ok(()),
        SessionAttrs::ReadWrite => {
            "select pg_catalog.current_setting('transaction_read_only')::boolean"
        }
        SessionAttrs::Primary => "select pg_catalog.pg_is_in_recovery()",
    };
    match session.query_row(query, deadline)?.as_deref() {
        Some([Some(answer)]) if answer == "f" => Ok(()),
        _ => Err(QueryError::Client(ConnectionError::ReadOnly)),
    }
}

/// Whether another attempt, with TLS instead of without or the other way round, may succeed. libpq
/// makes it after any error of the server before the login, and after a failed handshake.
fn depends_on_tls(mode: DriverSslMode, encrypted: bool, cause: &QueryError) -> bool {
    match cause {
        // After a handshake that succeeded, it is our certificate that was rejected.
        QueryError::Client(ConnectionError::Tls(_)) => !encrypted,
        // A server that said no to TLS has been tried without already.
        QueryError::Server(_) => {
            (mode == DriverSslMode::Disable || encrypted) && may_depend_on_tls(cause)
        }
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}

/// False for what is known to be about the database, or to be temporary.
fn may_depend_on_tls(cause: &QueryError) -> bool {
    match cause {
        QueryError::Server(error) => {
            !["3D", "42", "53", "57"].iter().any(|class| error.is_class(class))
        }
        QueryError::Client(ConnectionError::Tls(error)) => !error.is_temporary(),
        QueryError::Client(ConnectionError::NoPassword | ConnectionError::Login(_)) => true,
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}
