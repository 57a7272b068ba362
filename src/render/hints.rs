//! A hint for each reason why a database cannot be reached, or rejects the login.

use std::io::ErrorKind;
use std::net::IpAddr;

use crate::postgres::conninfo::HostName;
use crate::postgres::known_messages;
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError, QueryError};
use crate::postgres::socket::Address;

/// The hints for these attempts, each once.
pub fn hints(attempts: &[Attempt]) -> Vec<&'static str> {
    let mut hints = Vec::new();
    for attempt in attempts {
        // Where the host has an IPv4 address too, that one counts.
        let is_superseded = is_unreachable_ipv6(attempt)
            && attempts.iter().any(|other| other.host == attempt.host && !is_ipv6(other));
        if let Some(hint) = hint(attempt)
            && !is_superseded
            && !hints.contains(&hint)
        {
            hints.push(hint);
        }
    }
    hints
}

pub fn hint(attempt: &Attempt) -> Option<&'static str> {
    match &attempt.cause {
        QueryError::Stopped(_) => None,
        QueryError::Server(error) => server_error_hint(error),
        QueryError::Client(ConnectionError::Connect(kind, _)) => connect_hint(*kind, attempt),
        QueryError::Client(error) => connection_error_hint(error),
    }
}

fn ip(attempt: &Attempt) -> Option<IpAddr> {
    match attempt.address {
        Some(Address::Tcp(address)) => Some(address.ip()),
        Some(Address::Unix(_)) | None => None,
    }
}

fn is_ipv6(attempt: &Attempt) -> bool {
    ip(attempt).is_some_and(|ip| ip.is_ipv6())
}

fn is_unreachable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable
    )
}

fn is_unreachable_ipv6(attempt: &Attempt) -> bool {
    let cause = &attempt.cause;
    matches!(cause, QueryError::Client(ConnectionError::Connect(kind, _)) if is_unreachable(*kind))
        && is_ipv6(attempt)
}

fn connect_hint(kind: ErrorKind, attempt: &Attempt) -> Option<&'static str> {
    let is_socket = matches!(attempt.address, Some(Address::Unix(_)));
    let is_supabase = attempt.host.as_ref().is_some_and(
        |host| matches!(&host.name, HostName::Tcp(name) if name.ends_with(".supabase.co")),
    );
    Some(match kind {
        _ if is_unreachable_ipv6(attempt) && is_supabase => {
            "use the URL of Supabase's session pooler (port 5432 at ....pooler.supabase.com), or \
             enable the IPv4 add-on: the direct host has only an IPv6 address, and this network has \
             no route to it"
        }
        _ if is_unreachable_ipv6(attempt) => {
            "use a host with an IPv4 address, such as the provider's pooler, or enable IPv6 on \
             this network: the host has only an IPv6 address, and there is no route to it"
        }
        _ if is_unreachable(kind) => {
            "check the host, the container's network and the routes: there is no route to this \
             address"
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if is_socket => {
            "mount the server's socket directory, or use a TCP host: no server listens on this \
             socket"
        }
        ErrorKind::PermissionDenied if is_socket => {
            "check the permissions of the socket and its directory: this user has no access"
        }
        ErrorKind::ConnectionRefused if ip(attempt).is_some_and(|ip| ip.is_loopback()) => {
            "check that the server runs and listens on this port; inside a container, localhost is \
             the container itself: use the host or service name of the database"
        }
        ErrorKind::ConnectionRefused => {
            "check the host and port, and that the server runs and has this address in \
             listen_addresses"
        }
        ErrorKind::TimedOut => NO_ANSWER,
        _ => return None,
    })
}

const NO_ANSWER: &str = "check the host and port, and any firewall or security group in between";

fn connection_error_hint(error: &ConnectionError) -> Option<&'static str> {
    Some(match error {
        ConnectionError::Lookup(_) => {
            "check the spelling of the host; in Compose or Kubernetes, check that both containers \
             are in the same network or namespace"
        }
        ConnectionError::TimedOut => NO_ANSWER,
        ConnectionError::LoginTimedOut => {
            "check whether the server is overloaded, or is a pooler that waits for its own server; \
             connect_timeout (10 s by default) and --wait limit how long this may take"
        }
        ConnectionError::DnsTimedOut => {
            "check the name servers in /etc/resolv.conf, and the route to them"
        }
        ConnectionError::NoPassword => {
            "set the password in the URL, in PGPASSWORD or PGPASSWORD_FILE, or in a password file"
        }
        ConnectionError::NotPostgres => {
            "check the port: PostgreSQL's default is 5432, PgBouncer's is 6432"
        }
        ConnectionError::Lost(..) => {
            "see in the log of the server, and of any proxy in between, why the connection was closed"
        }
        ConnectionError::Setting { .. } => "correct the setting, or remove it",
        ConnectionError::Unsupported(_) => "use a PostgreSQL server of a supported version",
        ConnectionError::ReadOnly => {
            "name the primary in the URL, or remove target_session_attrs if a standby will do"
        }
        // Their own texts say it.
        ConnectionError::Connect(..)
        | ConnectionError::Tls(_)
        | ConnectionError::Login(_)
        | ConnectionError::Protocol(_) => return None,
    })
}

fn server_error_hint(error: &ServerError) -> Option<&'static str> {
    let known = known_messages::find(&error.code, &error.message);
    if let Some(hint) = known.and_then(|known| known.hint) {
        return Some(hint);
    }
    let code = known.map_or(error.code.as_str(), |known| known.meaning);
    Some(match code {
        "28P01" => {
            "correct the password, or set one for the role; in a URL, percent-encode it: %40 for \
             @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %"
        }
        "28000" => "create the role, allow it to log in, or correct the user in the URL",
        "3D000" => {
            "create the database, as `up --create-database` does, or correct its name in the URL; \
             where the URL has no database, it is the name of the user"
        }
        "42501" => "grant the role the CONNECT privilege on the database",
        "53300" => {
            "raise the connection limit of the server, the role or the database, or find out which \
             clients use the connections"
        }
        "53100" => "free space on the server's disk",
        "53200" => "find out what uses up the server's memory",
        _ if code.starts_with("58") => {
            "check the server's log: its operating system reports an error"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conninfo::Host;

    fn connect_failure(name: &str, address: &str, kind: ErrorKind) -> Attempt {
        let host = Host { name: HostName::Tcp(name.to_owned()), addr: None, port: 5432 };
        let address = Address::Tcp((address.parse::<IpAddr>().unwrap(), 5432).into());
        let cause = QueryError::Client(ConnectionError::Connect(kind, String::new()));
        Attempt::at_login(&host, Some(&address), cause)
    }

    #[test]
    fn the_hint_for_an_unreachable_address_depends_on_its_family() {
        for (name, address, words) in [
            ("db.ref.supabase.co", "2a05:d018::1", "session pooler"),
            ("db.internal", "fdaa::3", "only an IPv6 address"),
            ("2001:db8::1", "2001:db8::1", "only an IPv6 address"),
            ("db", "10.0.0.1", "no route to this address"),
            ("10.0.0.1", "10.0.0.1", "no route to this address"),
        ] {
            for kind in [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable] {
                let hint = hint(&connect_failure(name, address, kind)).unwrap();
                assert!(hint.contains(words), "{name}: {hint}");
            }
        }
    }

    #[test]
    fn an_unreachable_ipv6_address_has_no_hint_where_the_host_has_an_ipv4_address_too() {
        let attempts = [
            connect_failure("db", "2001:db8::1", ErrorKind::NetworkUnreachable),
            connect_failure("db", "10.0.0.1", ErrorKind::ConnectionRefused),
        ];
        let [only] = hints(&attempts)[..] else { panic!("{:?}", hints(&attempts)) };
        assert!(only.contains("listen_addresses"), "{only}");
    }

    #[test]
    fn a_hint_is_given_once() {
        let attempts = ["10.0.0.1", "10.0.0.2"]
            .map(|address| connect_failure(address, address, ErrorKind::ConnectionRefused));
        assert_eq!(hints(&attempts).len(), 1);
    }
}
