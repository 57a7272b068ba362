//! What a server's certificate says, for the message about one that does not pass.
//!
//! The handshake that refused it keeps it to itself, so it is fetched once more, unverified, and
//! nothing is said on that connection.

use std::fmt::Write as _;
use std::net::IpAddr;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::socket::Socket;

/// A server's certificate, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: String,
    /// When it ends.
    pub not_after: String,
    /// Whether that is past.
    pub is_over: bool,
}

/// PostgreSQL's question whether TLS is spoken.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl Certificate {
    /// Asks the server at the other end for it.
    pub async fn of_server(mut socket: Socket, host: &str) -> Option<Certificate> {
        socket.write_all(&SSL_REQUEST).await.ok()?;
        if socket.read_u8().await.ok()? != b'S' {
            return None;
        }
        let connector = native_tls::TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build()
            .ok()?;
        let connector = tokio_native_tls::TlsConnector::from(connector);
        let stream = connector.connect(host, socket).await.ok()?;
        let certificate = stream.get_ref().peer_certificate().ok()??;
        Certificate::read(&certificate.to_der().ok()?)
    }

    fn read(der: &[u8]) -> Option<Certificate> {
        let x509 = X509::from_der(der).ok()?;
        let alternatives = x509.subject_alt_names();
        let mut names: Vec<String> = alternatives
            .iter()
            .flatten()
            .filter_map(|name| match name.dnsname().map(clean) {
                Some(name) if name.parse::<IpAddr>().is_ok() => {
                    Some(format!("{name} (as a name, not as an address)"))
                }
                None => address(name.ipaddress()?),
                name => name,
            })
            .collect();
        // Only without alternatives does the common name count.
        if names.is_empty() {
            names = entries(x509.subject_name(), Some(Nid::COMMONNAME));
        }
        let now = Asn1Time::days_from_now(0).ok()?;
        Some(Certificate {
            subject: entries(x509.subject_name(), None).join(", "),
            issuer: entries(x509.issuer_name(), None).join(", "),
            names,
            not_before: time(x509.not_before()),
            not_after: time(x509.not_after()),
            is_over: *x509.not_after() < *now,
        })
    }
}

fn time(time: &Asn1TimeRef) -> String {
    clean(&time.to_string())
}

/// The parts of a name: `CN=...`; of one kind only, without saying which.
fn entries(name: &X509NameRef, only: Option<Nid>) -> Vec<String> {
    let mut parts = Vec::new();
    for entry in name.entries() {
        let nid = entry.object().nid();
        let Ok(value) = entry.data().to_string() else { continue };
        match only {
            None => {
                let mut part = String::new();
                let _ = write!(part, "{}={}", nid.short_name().unwrap_or("?"), clean(&value));
                parts.push(part);
            }
            Some(only) if only == nid => parts.push(clean(&value)),
            Some(_) => {}
        }
    }
    parts
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok().map(|address| address.to_string())
}

/// What a stranger wrote, fit for a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
