//! Logging in: each host and each of its addresses in turn, until one lets us in.
//!
//! What is said to the server before the first statement is said here; what it refused, and where,
//! leaves as [`Attempt`]s.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::config::{ChannelBinding as DriverChannelBinding, SslMode as DriverSslMode};

use super::dns;
use super::session::{
    Attempt, CancelHandle, Connected, ConnectionError, QueryError, Session, blocking, cause,
};
use crate::postgres::conninfo::{
    ChannelBinding, Host, HostName, Secret, SslMode, Target, passfile,
};
use crate::postgres::socket::{Address, Socket, TcpOptions};
use crate::postgres::tls::{Certificate, Tls, TlsError};
use crate::process::signals::{Deadline, Interrupted};

/// How long one address is tried.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long the second look at a certificate that does not pass may take.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// PostgreSQL's words, in English, for a `pg_hba.conf` that asks for a client certificate.
const WANTS_CERTIFICATE: &str = "requires a valid client certificate";

impl Session {
    /// Connects: to each host and each of its addresses in turn, until one lets us in.
    pub fn open(target: &Target, deadline: Deadline<'_>) -> Result<Session, Vec<Attempt>> {
        let failed = |place: &str, cause| Attempt { place: place.to_owned(), cause };
        let new_runtime = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| {
                let trouble = ConnectionError::Connect(error.kind(), error.to_string());
                vec![failed("this process", QueryError::Client(trouble))]
            })
        };
        let mut runtime = new_runtime()?;
        let tcp_options = TcpOptions::of(target);
        let attempt = target.connect_timeout.unwrap_or(ATTEMPT);

        let mut attempts = Vec::new();
        for (hosts_left, host) in (1..=target.hosts.len()).rev().zip(&target.hosts) {
            let addresses = match blocking(
                &runtime,
                dns::split_deadline(deadline, hosts_left).at_latest_in(attempt),
                lookup(host),
            ) {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    let trouble = ConnectionError::Lookup(error.to_string());
                    attempts.push(failed(&label(host), QueryError::Client(trouble)));
                    continue;
                }
                Err(interrupted) => {
                    let cause = silence(interrupted, ConnectionError::DnsTimedOut);
                    attempts.push(failed(&label(host), cause));
                    continue;
                }
            };
            for (left, address) in (hosts_left..hosts_left + addresses.len()).rev().zip(addresses) {
                let accepted = Cell::new(false);
                let login = login(target, host, &address, &tcp_options, &accepted);
                let limit = dns::split_deadline(deadline, left).at_latest_in(attempt);
                let refusals = match blocking(&runtime, limit, login) {
                    Ok(Ok((client, connection, tls))) => {
                        let place = place(host, &address);
                        let (token, tcp_options) = (client.cancel_token(), tcp_options.clone());
                        let cancel_handle = CancelHandle { token, address, tcp_options, tls };
                        let stop = deadline.stop.clone();
                        let session =
                            Session::start(runtime, client, connection, cancel_handle, stop);
                        let wanted = target.target_session_attrs;
                        match session.check_session_attrs(wanted, deadline.at_latest_in(attempt)) {
                            Ok(()) => return Ok(session),
                            Err(cause) => attempts.push(failed(&place, cause)),
                        }
                        session.close();
                        runtime = new_runtime()?;
                        continue;
                    }
                    Ok(Err(refusals)) => refusals,
                    Err(interrupted) => {
                        let of = if accepted.get() {
                            ConnectionError::LoginTimedOut
                        } else {
                            ConnectionError::TimedOut
                        };
                        vec![Refusal { encrypted: None, cause: silence(interrupted, of) }]
                    }
                };
                let place = place(host, &address);
                for Refusal { encrypted, cause } in refusals {
                    attempts.push(match encrypted {
                        Some(true) => failed(&format!("{place}, with TLS"), cause),
                        Some(false) => failed(&format!("{place}, without TLS"), cause),
                        None => failed(&place, cause),
                    });
                }
            }
        }
        // A name that is still being looked up has a thread of its own, which is not waited for.
        runtime.shutdown_background();
        Err(attempts)
    }
}

/// Why an attempt was broken off; silence is of this kind.
fn silence(interrupted: Interrupted, of: ConnectionError) -> QueryError {
    match interrupted {
        Interrupted::TimeOut => QueryError::Client(of),
        stopped @ Interrupted::Stopped(_) => stopped.into(),
    }
}

async fn lookup(host: &Host) -> io::Result<Vec<Address>> {
    match (&host.name, host.addr) {
        (HostName::Socket(folder), _) => {
            Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{}", host.port)))])
        }
        (HostName::Tcp(_), Some(addr)) => Ok(vec![Address::Tcp(SocketAddr::new(addr, host.port))]),
        (HostName::Tcp(name), None) => {
            let found = dns::addresses(name, host.port).await?;
            Ok(found.into_iter().map(Address::Tcp).collect())
        }
    }
}

fn label(host: &Host) -> String {
    format!("{}:{}", host.name, host.port)
}

fn place(host: &Host, address: &Address) -> String {
    match address {
        Address::Tcp(address) if host.name.to_string() != address.ip().to_string() => {
            format!("{} ({})", label(host), address.ip())
        }
        Address::Tcp(_) => label(host),
        Address::Unix(path) => path.display().to_string(),
    }
}

/// libpq's ways to begin with a server, in its order: the second where the first does not lead in.
fn ssl_attempts(mode: SslMode) -> (DriverSslMode, Option<DriverSslMode>) {
    match mode {
        SslMode::Disable => (DriverSslMode::Disable, None),
        SslMode::Allow => (DriverSslMode::Disable, Some(DriverSslMode::Require)),
        SslMode::Prefer => (DriverSslMode::Prefer, Some(DriverSslMode::Disable)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            (DriverSslMode::Require, None)
        }
    }
}

/// How an attempt at an address failed.
struct Refusal {
    /// With TLS, or without; none where both say the same.
    encrypted: Option<bool>,
    cause: QueryError,
}

/// Logs in at one address, by one way or the other. Whoever gives it up sees how far it came.
async fn login(
    target: &Target,
    host: &Host,
    address: &Address,
    tcp_options: &TcpOptions,
    accepted: &Cell<bool>,
) -> Result<(Client, Connected, Tls), Vec<Refusal>> {
    let (first, second) = ssl_attempts(target.sslmode_for(host));
    let (agreed, cause) = match try_login(target, host, address, tcp_options, accepted, first).await
    {
        Ok(admitted) => return Ok(admitted),
        Err(refused) => refused,
    };
    let Some(second) = second.filter(|_| depends_on_tls(first, agreed, &cause)) else {
        return Err(vec![Refusal { encrypted: None, cause }]);
    };
    match try_login(target, host, address, tcp_options, accepted, second).await {
        Ok(admitted) => Ok(admitted),
        // What passes, such as a server that is starting again, has the last word.
        Err((_, again)) if again == cause || !is_verdict(&again) => {
            Err(vec![Refusal { encrypted: None, cause: again }])
        }
        Err((_, again)) => {
            let encrypted = first != DriverSslMode::Disable;
            Err(vec![
                Refusal { encrypted: Some(encrypted), cause },
                Refusal { encrypted: Some(!encrypted), cause: again },
            ])
        }
    }
}

/// Whether the other way may lead in where this one did not. libpq tries it after whatever the
/// server says before it has let us in, and after a handshake that failed.
fn depends_on_tls(way: DriverSslMode, agreed: bool, cause: &QueryError) -> bool {
    match cause {
        // A failed handshake; a server that judges our certificate after it is not asked again.
        QueryError::Client(ConnectionError::Tls(_)) => !agreed,
        // A server that said no to TLS has been asked without.
        QueryError::Server(_) => (way == DriverSslMode::Disable || agreed) && is_verdict(cause),
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}

/// Whether this may be about the kind of connection; what is known to be about the database or
/// the moment is not.
fn is_verdict(cause: &QueryError) -> bool {
    match cause {
        QueryError::Server(error) => {
            !["3D", "42", "53", "57"].iter().any(|class| error.is_class(class))
        }
        QueryError::Client(ConnectionError::Tls(trouble)) => !trouble.is_temporary(),
        QueryError::Client(ConnectionError::NoPassword | ConnectionError::Login(_)) => true,
        QueryError::Client(_) | QueryError::Stopped(_) => false,
    }
}

/// Logs in at one address in one way. A failure comes with whether TLS was agreed on.
async fn try_login(
    target: &Target,
    host: &Host,
    address: &Address,
    tcp_options: &TcpOptions,
    accepted: &Cell<bool>,
    way: DriverSslMode,
) -> Result<(Client, Connected, Tls), (bool, QueryError)> {
    let dial = |error: io::Error| {
        (false, QueryError::Client(ConnectionError::Connect(error.kind(), error.to_string())))
    };
    accepted.set(false);
    let mut socket = Socket::dial(address, tcp_options).await.map_err(dial)?;
    accepted.set(true);
    if way != DriverSslMode::Disable {
        socket = socket.asking_for_tls();
    }
    let pre_auth = socket.pre_auth();
    let mut config = tokio_postgres::Config::new();
    config.user(&target.user);
    config.dbname(&target.dbname);
    config.application_name(&target.application_name);
    if let Some(password) = target.password.clone().or_else(|| from_passfile(target, host)) {
        config.password(password.expose());
    }
    if let Some(options) = &target.options {
        config.options(options);
    }
    config.channel_binding(match target.channel_binding {
        ChannelBinding::Disable => DriverChannelBinding::Disable,
        ChannelBinding::Prefer => DriverChannelBinding::Prefer,
        ChannelBinding::Require => DriverChannelBinding::Require,
    });
    config.ssl_mode(way);
    let tls = Tls {
        mode: target.sslmode_for(host),
        host: host.name.to_string(),
        roots: target.root_cert.clone(),
        identity: target.client_cert.clone(),
        agreed: Arc::default(),
    };
    let error = match config.connect_raw(socket, tls.clone()).await {
        Ok((client, connection)) => {
            pre_auth.store(false, Ordering::Relaxed);
            return Ok((client, connection, tls));
        }
        Err(error) => error,
    };
    let agreed = tls.agreed.load(Ordering::Relaxed);
    let mut cause = cause(&error, None);
    if let QueryError::Client(ConnectionError::Tls(TlsError::Unverified(unverified))) = &mut cause
        && let Ok(socket) = Socket::dial(address, tcp_options).await
    {
        let look = Certificate::of_server(socket.asking_for_tls(), &tls.host);
        unverified.seen = tokio::time::timeout(SECOND_LOOK, look).await.ok().flatten();
    }
    if tls.identity.is_none_or(|given| given.if_there)
        && let QueryError::Server(error) = &cause
        && error.message.contains(WANTS_CERTIFICATE)
    {
        let said = TlsError::CertificateWanted(error.message.clone());
        cause = QueryError::Client(ConnectionError::Tls(said));
    }
    Err((agreed, cause))
}

/// The password file's word for this host. One that is not there is no fault, as in libpq; neither
/// is one that others may read, since Kubernetes mounts secrets that way.
fn from_passfile(target: &Target, host: &Host) -> Option<Secret> {
    let contents = std::fs::read_to_string(target.passfile.as_ref()?).ok()?;
    let name = host.name.to_string();
    passfile::password(&contents, &name, host.port, &target.dbname, &target.user)
}
