//! From a host's name to its addresses. The two families are asked for apart and at the same time:
//! musl's resolver fails a whole lookup, after five seconds, when only the answer about IPv6 is bad,
//! and then there is no session although the address is known.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

/// How long an answer is waited for that we can do without, such as the other family's: as long as a
/// slow name server needs, and short beside the five seconds of one that never answers.
const LITTLE: Duration = Duration::from_millis(500);

/// The addresses of a host, IPv6 first, as libpq gets them.
pub async fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, mut answers) = unbounded_channel();
    for family in [AddrFamily::Inet6, AddrFamily::Inet] {
        let (name, sender) = (name.to_owned(), sender.clone());
        // A thread of its own, which nobody waits for: the runtime would, for one of its own.
        thread::Builder::new().spawn(move || {
            // It may be that nobody listens any more.
            let _ = sender.send(ask(&name, port, family));
        })?;
    }
    drop(sender);

    let is_here = is_localhost(name);
    let (mut found, mut failure) = (Vec::new(), None);
    loop {
        let answer = if found.is_empty() && !is_here {
            answers.recv().await
        } else {
            timeout(LITTLE, answers.recv()).await.unwrap_or_default()
        };
        match answer {
            Some(Ok(addresses)) => found.extend(addresses),
            Some(Err(error)) => failure = Some(more_informative(failure, error)),
            None => break,
        }
    }
    if found.is_empty() && is_here {
        let loopback = [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)];
        found.extend(loopback.map(|address| SocketAddr::new(address, port)));
    }
    found.sort_by_key(SocketAddr::is_ipv4);
    match failure {
        Some(failure) if found.is_empty() => Err(failure.into()),
        _ => Ok(found),
    }
}

/// Whether the name is this machine's, by RFC 6761: also where there is no /etc/hosts to say so. If
/// there is one, it has its say, as with libpq.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn ask(name: &str, port: u16, family: AddrFamily) -> Result<Vec<SocketAddr>, LookupError> {
    let hints = AddrInfoHints {
        address: family.into(),
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(name), None, Some(hints))?;
    // One of a kind that we cannot read is no address to try.
    let addresses = found.filter_map(Result::ok).map(|info| info.sockaddr);
    Ok(addresses.map(|address| with_port(address, port)).collect())
}

/// The port is ours to set; an IPv6 address keeps its zone.
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Of two failures the one to tell: that a name has no address in one family says less than why it
/// has none in the other.
fn more_informative(one: Option<LookupError>, other: LookupError) -> LookupError {
    match one {
        Some(one) if !matches!(one.kind(), LookupErrorKind::NoData) => one,
        _ => other,
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
    fn a_name_below_localhost_is_this_machine_also_where_nobody_knows_it() {
        let expected = ["[::1]:5432".parse().unwrap(), "127.0.0.1:5432".parse().unwrap()];
        for name in ["no-such-host.localhost", "No-Such-Host.LocalHost."] {
            assert_eq!(resolved(name).unwrap(), expected, "{name}");
        }
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.invalid"));
    }

    #[test]
    fn a_name_that_is_none_is_an_error() {
        assert!(resolved("no-such-host.invalid").is_err());
    }
}
