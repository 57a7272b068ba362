//! Resolving host names. IPv6 and IPv4 addresses are looked up separately and at the same time, since
//! musl's resolver fails a whole lookup, after five seconds, when only the answer for IPv6 is bad.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

/// The limit for an answer that is not needed, such as the other family's: enough for a slow name
/// server, and less than the five seconds after which one counts as dead.
const OPTIONAL_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The addresses of a host, IPv6 first, as in libpq.
pub async fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, mut answers) = unbounded_channel();
    for family in [AddrFamily::Inet6, AddrFamily::Inet] {
        let (name, sender) = (name.to_owned(), sender.clone());
        // Not a thread of the runtime, which would wait for it at its end.
        thread::Builder::new().spawn(move || {
            // The receiver may be gone.
            let _ = sender.send(lookup(&name, port, family));
        })?;
    }
    drop(sender);

    let is_local = is_localhost(name);
    let (mut found, mut failure) = (Vec::new(), None);
    loop {
        let answer = if found.is_empty() && !is_local {
            answers.recv().await
        } else {
            timeout(OPTIONAL_ANSWER_TIMEOUT, answers.recv()).await.unwrap_or_default()
        };
        match answer {
            Some(Ok(addresses)) => found.extend(addresses),
            Some(Err(error)) => failure = Some(more_informative(failure, error)),
            None => break,
        }
    }
    if found.is_empty() && is_local {
        let loopback = [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)];
        found.extend(loopback.map(|address| SocketAddr::new(address, port)));
    }
    found.sort_by_key(SocketAddr::is_ipv4);
    match failure {
        Some(failure) if found.is_empty() => Err(failure.into()),
        _ => Ok(found),
    }
}

/// The addresses of a host, for callers outside the driver's runtime; an error after this time.
pub fn addresses_within(name: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async { timeout(limit, addresses(name, port)).await })?
}

/// By RFC 6761, which also holds without /etc/hosts. If there is one, it is asked, as by libpq.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn lookup(name: &str, port: u16, family: AddrFamily) -> Result<Vec<SocketAddr>, LookupError> {
    let hints = AddrInfoHints {
        address: family.into(),
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(name), Some(&port.to_string()), Some(hints))?;
    // Addresses of an unknown kind are left out.
    Ok(found.filter_map(Result::ok).map(|info| info.sockaddr).collect())
}

/// That a name has no address in one family is less informative than any other error.
fn more_informative(first: Option<LookupError>, second: LookupError) -> LookupError {
    match first {
        Some(first) if !matches!(first.kind(), LookupErrorKind::NoData) => first,
        _ => second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str) -> io::Result<Vec<SocketAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(addresses(name, 5432))
    }

    #[test]
    fn a_literal_address_is_itself() {
        assert_eq!(resolved("127.0.0.1").unwrap(), ["127.0.0.1:5432".parse().unwrap()]);
        assert_eq!(resolved("::1").unwrap(), ["[::1]:5432".parse().unwrap()]);
    }

    #[test]
    fn a_zone_is_kept() {
        let found = resolved("fe80::1%lo").unwrap();
        let [SocketAddr::V6(address)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((address.scope_id(), address.port()), (1, 5432));
    }

    #[test]
    fn a_name_has_the_addresses_of_both_families_ipv6_first() {
        let found = resolved("localhost").unwrap();
        assert!(found.contains(&"127.0.0.1:5432".parse().unwrap()), "{found:?}");
        assert!(found.is_sorted_by_key(SocketAddr::is_ipv4), "{found:?}");
    }

    #[test]
    fn a_name_below_localhost_is_this_machine_even_if_it_cannot_be_resolved() {
        let expected = ["[::1]:5432".parse().unwrap(), "127.0.0.1:5432".parse().unwrap()];
        for name in ["no-such-host.localhost", "No-Such-Host.LocalHost."] {
            assert_eq!(resolved(name).unwrap(), expected, "{name}");
        }
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.invalid"));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(resolved("no-such-host.invalid").is_err());
    }
}
