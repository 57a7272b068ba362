//! What to do where a database cannot be reached or refuses us: a sentence beside each reason. The
//! poolers' and providers' reasons come with an SQLSTATE that says little, and are known by their
//! words.

use std::io::ErrorKind;
use std::net::Ipv6Addr;

use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Attempt, ConnectionError, QueryError};

/// What to do about these attempts, each sentence once.
pub fn cures(attempts: &[Attempt]) -> Vec<&'static str> {
    let mut cures = Vec::new();
    for attempt in attempts {
        // Where the name has an IPv4 address too, the trouble is with that.
        let beside = |other: &&Attempt| label(other) == label(attempt) && !is_ipv6(other);
        let Some(cure) = cure(attempt) else { continue };
        let is_beside_the_point = is_out_of_reach(&attempt.cause)
            && is_ipv6(attempt)
            && attempts.iter().any(|o| beside(&o));
        if !is_beside_the_point && !cures.contains(&cure) {
            cures.push(cure);
        }
    }
    cures
}

/// What to do about this one.
pub fn cure(attempt: &Attempt) -> Option<&'static str> {
    match &attempt.cause {
        QueryError::Stopped(_) => None,
        QueryError::Server(error) => by_words(error).or_else(|| by_sqlstate(error.meant_code())),
        QueryError::Client(trouble) => by_trouble(trouble, attempt),
    }
}

fn label(attempt: &Attempt) -> &str {
    attempt.place.split(' ').next().unwrap_or_default()
}

/// Whether an address of the new kind was tried: `host:port (address)`, or the address itself.
fn is_ipv6(attempt: &Attempt) -> bool {
    let address = match attempt.place.split_once(" (") {
        Some((_, address)) => address.trim_end_matches(')'),
        None => attempt.place.rsplit_once(':').map_or("", |(address, _)| address),
    };
    let address = address.split('%').next().unwrap_or_default();
    address.parse::<Ipv6Addr>().is_ok()
}

fn is_out_of_reach(cause: &QueryError) -> bool {
    let QueryError::Client(ConnectionError::Connect(kind, _)) = cause else { return false };
    matches!(
        kind,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable
    )
}

fn by_trouble(trouble: &ConnectionError, attempt: &Attempt) -> Option<&'static str> {
    let place = attempt.place.as_str();
    let is_socket = place.starts_with('/');
    let is_here = ["localhost:", "127.", "::1:"].iter().any(|here| place.starts_with(here));
    Some(match trouble {
        ConnectionError::Lookup(_) => {
            "check the spelling of the host; in Compose or Kubernetes, that both are in the same \
             network or namespace"
        }
        ConnectionError::Connect(..) if is_out_of_reach(&attempt.cause) && is_ipv6(attempt) => {
            if label(attempt).contains(".supabase.co") {
                "Supabase's direct host has only an IPv6 address, and there is no way to IPv6 from \
                 here: use the session pooler's URL (port 5432 at ....pooler.supabase.com), or buy \
                 the IPv4 address"
            } else {
                "the host has only an IPv6 address, and there is no way to IPv6 from here: use a \
                 host with an IPv4 address, such as the provider's pooler, or give this network IPv6"
            }
        }
        ConnectionError::Connect(..) if is_out_of_reach(&attempt.cause) => {
            "there is no way to this address from here: check the host, the container's network, \
             and the routes"
        }
        ConnectionError::Connect(ErrorKind::NotFound | ErrorKind::ConnectionRefused, _)
            if is_socket =>
        {
            "no server has a socket there: mount the server's socket directory, or name a TCP host"
        }
        ConnectionError::Connect(ErrorKind::PermissionDenied, _) if is_socket => {
            "this user may not use the socket: see the permissions of it and its directory"
        }
        ConnectionError::Connect(ErrorKind::ConnectionRefused, _) if is_here => {
            "nothing listens there; inside a container, localhost is the container itself: name \
             the database's host or service"
        }
        ConnectionError::Connect(ErrorKind::ConnectionRefused, _) => {
            "nothing listens there: check host and port, and that the server runs and has the \
             address in its listen_addresses"
        }
        ConnectionError::TimedOut | ConnectionError::Connect(ErrorKind::TimedOut, _) => {
            "nothing answers there: check host and port, and the firewall or security group \
             between here and there"
        }
        ConnectionError::LoginTimedOut => {
            "something listens there, and lets nobody in: see whether it is overloaded, or waits \
             for something itself, such as a pooler for its server; how long it may take is said by \
             connect_timeout, 10 s if that is not given, and by --wait"
        }
        ConnectionError::DnsTimedOut => {
            "see the name servers in /etc/resolv.conf, and whether this network has a way to them"
        }
        ConnectionError::NoPassword => {
            "give it in the URL, in PGPASSWORD or PGPASSWORD_FILE, or in a password file"
        }
        ConnectionError::Protocol(why) if why.contains("not a PostgreSQL server") => {
            "check the port: PostgreSQL's own is 5432, PgBouncer's 6432"
        }
        ConnectionError::Connect(..)
        | ConnectionError::Lost(..)
        | ConnectionError::Tls(_)
        | ConnectionError::Login(_)
        | ConnectionError::ReadOnly
        | ConnectionError::Protocol(_) => return None,
    })
}

/// Words that a refusal holds, and what to do then; the first that fits.
const WORDS: &[(&str, &str)] = &[
    (
        "unsupported startup parameter",
        "the pooler lets no such parameter through: remove options from the URL, or connect past it",
    ),
    (
        "no such user",
        "the pooler does not know the role: add it to its auth_file or auth_query, or correct the URL",
    ),
    (
        "no such database",
        "the pooler does not know the database: add it to its [databases], or correct the URL",
    ),
    (
        "Tenant or user not found",
        "Supabase's pooler wants postgres.PROJECT as the user, and the host of the project's region",
    ),
    (
        "Endpoint ID is not specified",
        "Neon goes by the host name in the TLS handshake: use its host name and sslmode=require, or \
         add options=endpoint%3DENDPOINT",
    ),
    ("is insecure", "the server wants TLS: add sslmode=require to the URL"),
    ("SSL connection is required", "the server wants TLS: add sslmode=require to the URL"),
    ("SSL required", "the server wants TLS: add sslmode=require to the URL"),
    (
        "query_wait_timeout",
        "the pooler has no free connection to the server: raise its pool_size, or find who keeps them",
    ),
    (
        "login rejected",
        "the pooler's auth_hba_file forbids this role, this database or this address",
    ),
    ("bouncer config error", "the pooler's own configuration is at fault: see the pooler's log"),
    ("no more connections allowed", "the pooler is full: raise its max_client_conn"),
    (
        "max clients",
        "the pooler is full: raise its pool size, or let other clients use transaction mode",
    ),
    (
        "no encryption",
        "the server's pg_hba.conf lets nobody in from here without TLS: add sslmode=require to the URL",
    ),
    (
        "SSL off",
        "the server's pg_hba.conf lets nobody in from here without TLS: add sslmode=require to the URL",
    ),
    (
        "no pg_hba.conf entry",
        "the server's pg_hba.conf has to allow this role, this database and this address",
    ),
    (
        "pg_hba.conf rejects",
        "the server's pg_hba.conf forbids this role, this database or this address",
    ),
    ("SASL authentication failed", WRONG_PASSWORD),
    ("authentication failed", WRONG_PASSWORD),
];

const WRONG_PASSWORD: &str = "the password is wrong, or the role has none; in a URL, percent-encode it: %40 for @, %2F for /, \
     %3A for :, %3F for ?, %23 for #, %25 for %";

fn by_words(error: &ServerError) -> Option<&'static str> {
    if error.is("08P01") && error.message.contains("pg_hba.conf") {
        return Some(
            "the server's pg_hba.conf has to let the pooler in, as it connects for this role",
        );
    }
    WORDS.iter().find(|(words, _)| error.message.contains(words)).map(|(_, cure)| *cure)
}

fn by_sqlstate(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => WRONG_PASSWORD,
        "28000" => "create the role, let it log in, or correct the user in the URL",
        "3D000" => {
            "create the database, or correct its name in the URL; where the URL names none, it is \
             the user's name"
        }
        "42501" => "the role has no CONNECT privilege on this database: grant it",
        "53300" => {
            "the server, the role or the database has no connection left: raise the limit, or find \
             who keeps them"
        }
        "53100" => "the server's disk is full: make room on it",
        "53200" => "the server has no memory left: look at what uses it up",
        _ if code.starts_with("58") => "the server's own system fails it: read the server's log",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(place: &str, kind: ErrorKind) -> Attempt {
        let cause = QueryError::Client(ConnectionError::Connect(kind, String::new()));
        Attempt { place: place.to_owned(), cause }
    }

    #[test]
    fn an_address_out_of_reach_is_told_by_its_kind() {
        for (place, words) in [
            ("db.ref.supabase.co:5432 (2a05:d018::1)", "the session pooler's URL"),
            ("db.internal:5432 (fdaa::3)", "only an IPv6 address"),
            ("2001:db8::1:5432", "only an IPv6 address"),
            ("db:5432 (10.0.0.1)", "no way to this address"),
            ("10.0.0.1:5432", "no way to this address"),
        ] {
            for kind in [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable] {
                let cure = cure(&dial(place, kind)).unwrap();
                assert!(cure.contains(words), "{place}: {cure}");
            }
        }
    }

    #[test]
    fn that_there_is_no_ipv6_is_no_matter_where_the_name_has_an_ipv4_address() {
        let attempts = [
            dial("db:5432 (2001:db8::1)", ErrorKind::NetworkUnreachable),
            dial("db:5432 (10.0.0.1)", ErrorKind::ConnectionRefused),
        ];
        let [only] = cures(&attempts)[..] else { panic!("{:?}", cures(&attempts)) };
        assert!(only.contains("nothing listens there"), "{only}");
    }

    #[test]
    fn the_same_cure_is_told_once() {
        let attempts = ["a:1 (10.0.0.1)", "b:1 (10.0.0.2)"]
            .map(|place| dial(place, ErrorKind::ConnectionRefused));
        assert_eq!(cures(&attempts).len(), 1);
    }
}
