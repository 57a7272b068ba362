//! The server's certificate, for the message where it could not be verified.
//!
//! native-tls does not give it out after a failed handshake, so that it is fetched on a second
//! connection, without verification. Nothing else is sent on that connection.

use std::net::IpAddr;

use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameEntryRef, X509NameRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::socket::Socket;

/// The fields of a certificate, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// Host names and addresses.
    pub names: Vec<String>,
    pub not_before: String,
    pub not_after: String,
    pub has_expired: bool,
}

/// PostgreSQL's SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl Certificate {
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
        Certificate::parse(&certificate.to_der().ok()?)
    }

    fn parse(der: &[u8]) -> Option<Certificate> {
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
        // The common name counts only without alternative names.
        if names.is_empty() {
            let common_names = x509.subject_name().entries_by_nid(Nid::COMMONNAME);
            names.extend(common_names.filter_map(value));
        }
        let now = Asn1Time::days_from_now(0).ok()?;
        Some(Certificate {
            subject: entries(x509.subject_name()),
            issuer: entries(x509.issuer_name()),
            names,
            not_before: clean(&x509.not_before().to_string()),
            not_after: clean(&x509.not_after().to_string()),
            has_expired: *x509.not_after() < *now,
        })
    }
}

/// All entries of a name, as `O=..., CN=...`.
fn entries(name: &X509NameRef) -> String {
    let part = |entry: &X509NameEntryRef| {
        let kind = entry.object().nid().short_name().unwrap_or("?");
        Some(format!("{kind}={}", value(entry)?))
    };
    name.entries().filter_map(part).collect::<Vec<_>>().join(", ")
}

fn value(entry: &X509NameEntryRef) -> Option<String> {
    Some(clean(&entry.data().to_string().ok()?))
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok().map(|address| address.to_string())
}

/// Without control characters, since the peer is not authenticated.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
