//! Logging in: each host and each of its addresses in turn, until one lets us in.
//!
//! What is said to the server before the first statement is said here; what it refused, and where,
//! leaves as [`Attempt`]s.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::config::{ChannelBinding as DriverChannelBinding, SslMode as DriverSslMode};

use super::{Attempt, BackDoor, Cause, Connected, Session, Trouble, blocking, cause, resolve};
use crate::conninfo::{ChannelBinding, Host, HostName, Secret, SslMode, Target, passfile};
use crate::signals::Patience;
use crate::tls::Tls;
use crate::wire::{Address, Vigilance, Wire};

/// How long one address is tried.
const ATTEMPT: Duration = Duration::from_secs(10);

impl Session {
    /// Connects: to each host and each of its addresses in turn, until one lets us in.
    pub fn open(target: &Target, patience: Patience<'_>) -> Result<Session, Vec<Attempt>> {
        let failed = |place: &str, cause| Attempt { place: place.to_owned(), cause };
        let new_runtime = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| {
                let trouble = Trouble::Dial(error.kind(), error.to_string());
                vec![failed("this process", Cause::Client(trouble))]
            })
        };
        let mut runtime = new_runtime()?;
        let vigilance = Vigilance::of(target);
        let attempt = target.connect_timeout.unwrap_or(ATTEMPT);

        let mut attempts = Vec::new();
        for (hosts_left, host) in (1..=target.hosts.len()).rev().zip(&target.hosts) {
            let addresses = match blocking(
                &runtime,
                resolve::share(patience, hosts_left).at_most(attempt),
                lookup(host),
            ) {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    let trouble = Trouble::Lookup(error.to_string());
                    attempts.push(failed(&label(host), Cause::Client(trouble)));
                    continue;
                }
                Err(interrupted) => {
                    attempts.push(failed(&label(host), interrupted.into()));
                    continue;
                }
            };
            for (left, address) in (hosts_left..hosts_left + addresses.len()).rev().zip(addresses) {
                let login = login(target, host, &address, &vigilance);
                let limit = resolve::share(patience, left).at_most(attempt);
                let cause = match blocking(&runtime, limit, login) {
                    Ok(Ok((client, connection, tls))) => {
                        let place = place(host, &address);
                        let (token, vigilance) = (client.cancel_token(), vigilance.clone());
                        let back_door = BackDoor { token, address, vigilance, tls };
                        let session = Session::start(runtime, client, connection, back_door);
                        let wanted = target.target_session_attrs;
                        match session.suits(wanted, patience.at_most(attempt)) {
                            Ok(()) => return Ok(session),
                            Err(cause) => attempts.push(failed(&place, cause)),
                        }
                        session.close();
                        runtime = new_runtime()?;
                        continue;
                    }
                    Ok(Err(cause)) => cause,
                    Err(interrupted) => interrupted.into(),
                };
                attempts.push(failed(&place(host, &address), cause));
            }
        }
        // A name that is still being looked up has a thread of its own, which is not waited for.
        runtime.shutdown_background();
        Err(attempts)
    }
}

async fn lookup(host: &Host) -> io::Result<Vec<Address>> {
    match (&host.name, host.addr) {
        (HostName::Socket(folder), _) => {
            Ok(vec![Address::Unix(folder.join(format!(".s.PGSQL.{}", host.port)))])
        }
        (HostName::Tcp(_), Some(addr)) => Ok(vec![Address::Tcp(SocketAddr::new(addr, host.port))]),
        (HostName::Tcp(name), None) => {
            let found = resolve::addresses(name, host.port).await?;
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

async fn login(
    target: &Target,
    host: &Host,
    address: &Address,
    vigilance: &Vigilance,
) -> Result<(Client, Connected, Tls), Cause> {
    let dial = |error: io::Error| Cause::Client(Trouble::Dial(error.kind(), error.to_string()));
    let wire = Wire::dial(address, vigilance).await.map_err(dial)?;
    let stranger = wire.stranger();
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
    let mode = target.sslmode_for(host);
    config.ssl_mode(match mode {
        SslMode::Disable => DriverSslMode::Disable,
        SslMode::Allow | SslMode::Prefer => DriverSslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverSslMode::Require,
    });
    let tls = Tls {
        mode,
        host: host.name.to_string(),
        roots: target.root_cert.clone(),
        identity: target.client_cert.clone(),
    };
    let (client, connection) =
        config.connect_raw(wire, tls.clone()).await.map_err(|error| cause(&error, None))?;
    stranger.store(false, Ordering::Relaxed);
    Ok((client, connection, tls))
}

/// The password file's word for this host. One that is not there is no fault, as in libpq; neither
/// is one that others may read, since Kubernetes mounts secrets that way.
fn from_passfile(target: &Target, host: &Host) -> Option<Secret> {
    let contents = std::fs::read_to_string(target.passfile.as_ref()?).ok()?;
    let name = host.name.to_string();
    passfile::password(&contents, &name, host.port, &target.dbname, &target.user)
}
