//! The address that `--health` listens on, and what `healthcheck` is to check.

use std::fmt;
use std::net::SocketAddr;

/// Where `--health` listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthAddress {
    /// On this port of every address of the host.
    Every(u16),
    One(SocketAddr),
}

impl HealthAddress {
    /// Parses `:PORT`, `IP:PORT` or `[IPV6]:PORT`.
    pub fn parse(text: &str) -> Option<HealthAddress> {
        let address = match text.strip_prefix(':') {
            Some(port) => HealthAddress::Every(parse_port(port)?),
            None => HealthAddress::One(text.parse().ok()?),
        };
        Some(address).filter(|address| address.port() != 0)
    }

    fn port(self) -> u16 {
        match self {
            HealthAddress::Every(port) => port,
            HealthAddress::One(address) => address.port(),
        }
    }
}

impl fmt::Display for HealthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthAddress::Every(port) => write!(f, ":{port}"),
            HealthAddress::One(address) => address.fmt(f),
        }
    }
}

/// What `healthcheck` is to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckUrl {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// The path with its query; `None` if it is enough that the port is open.
    pub path: Option<String>,
}

/// Why `healthcheck` cannot check what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlProblem {
    Form,
    Tls,
    Password,
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlProblem::Form => {
                "`healthcheck` needs a URL: http://HOST:PORT/PATH, or tcp://HOST:PORT"
            }
            UrlProblem::Tls => "`healthcheck` has no TLS: check http://... or tcp://...",
            UrlProblem::Password => {
                "`healthcheck` sends no password: leave out the part before the `@`"
            }
        })
    }
}

impl CheckUrl {
    pub fn parse(url: &str) -> Result<CheckUrl, UrlProblem> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlProblem::Form)?;
        if scheme == "https" {
            return Err(UrlProblem::Tls);
        }
        // It is sent as it is.
        let is_plain = rest.chars().all(|c| c.is_ascii_graphic());
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).ok_or(UrlProblem::Form)?;
        if authority.contains('@') {
            return Err(UrlProblem::Password);
        }
        let (host, port) = host_and_port(authority).filter(|_| is_plain).ok_or(UrlProblem::Form)?;
        let path = path.split('#').next().unwrap_or_default();
        let (port, path) = match scheme {
            "http" if path.starts_with('/') => (port.or(Some(80)), Some(path.to_owned())),
            "http" => (port.or(Some(80)), Some(format!("/{path}"))),
            "tcp" if path.is_empty() || path == "/" => (port, None),
            _ => return Err(UrlProblem::Form),
        };
        let port = port.ok_or(UrlProblem::Form)?;
        Ok(CheckUrl { host: host.to_owned(), port, path })
    }

    /// The host and the port, as the header `Host` has them.
    pub fn authority(&self) -> String {
        let CheckUrl { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Splits `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(parse_port(port).filter(|&port| port != 0)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_is_a_port_with_or_without_an_ip_address() {
        for text in [":8080", "127.0.0.1:9000", "[::1]:80", "0.0.0.0:65535"] {
            assert_eq!(HealthAddress::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ":",
            "8080",
            ":0",
            ":65536",
            ":+80",
            ":-1",
            ": 80",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "256.0.0.1:80",
            "localhost:80",
            "::1:80",
            "[::1]",
            "*:80",
            "http://127.0.0.1:80",
            "/tmp/socket",
        ] {
            assert_eq!(HealthAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_check_is_of_a_page_or_of_a_port() {
        let check = |host: &str, port, path: Option<&str>| {
            Ok(CheckUrl { host: host.to_owned(), port, path: path.map(str::to_owned) })
        };
        for (url, expected) in [
            ("http://localhost:8080/live", check("localhost", 8080, Some("/live"))),
            ("http://app", check("app", 80, Some("/"))),
            ("http://app?x=1#y", check("app", 80, Some("/?x=1"))),
            ("http://[::1]:80/a/b?c#d", check("::1", 80, Some("/a/b?c"))),
            ("tcp://127.0.0.1:5432", check("127.0.0.1", 5432, None)),
            ("tcp://127.0.0.1:5432/", check("127.0.0.1", 5432, None)),
            ("https://app/", Err(UrlProblem::Tls)),
            ("http://u:p@app/", Err(UrlProblem::Password)),
            ("http://app/@x", check("app", 80, Some("/@x"))),
            ("tcp://app", Err(UrlProblem::Form)),
            ("tcp://app:80/live", Err(UrlProblem::Form)),
            ("http://", Err(UrlProblem::Form)),
            ("http://:80/", Err(UrlProblem::Form)),
            ("http://app:0/", Err(UrlProblem::Form)),
            ("http://app:65536/", Err(UrlProblem::Form)),
            ("http://app:/", Err(UrlProblem::Form)),
            ("http://[::1/", Err(UrlProblem::Form)),
            ("http://[::1]x:80/", Err(UrlProblem::Form)),
            ("http://app/a b", Err(UrlProblem::Form)),
            ("http://app/a\r\nX: y", Err(UrlProblem::Form)),
            ("http://äpp/", Err(UrlProblem::Form)),
            ("localhost:8080", Err(UrlProblem::Form)),
            ("", Err(UrlProblem::Form)),
        ] {
            assert_eq!(CheckUrl::parse(url), expected, "{url}");
        }
    }
}
