//! A certificate authority for the tests.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::harness::Folder;

pub struct Authority {
    cert: X509,
    key: PKey<Private>,
}

/// A certificate and its key.
pub struct Pair {
    pub cert: X509,
    pub key: PKey<Private>,
}

/// The fields of a certificate.
pub struct Wanted<'a> {
    pub subject: &'a str,
    /// DNS names and addresses; with the prefix `DNS:`, an address as a DNS name. If empty, the subject
    /// counts.
    pub names: &'a [&'a str],
    /// Days from now.
    pub valid: (i64, i64),
}

pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub fn rsa_key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn make(wanted: &Wanted, key: &PKey<Private>, issuer: Option<&Authority>, is_ca: bool) -> X509 {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, wanted.subject).unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(1 + rand_serial()).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(issuer.map_or(&name, |issuer| issuer.cert.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    let day = |days: i64| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        Asn1Time::from_unix(now + days * 86_400).unwrap()
    };
    builder.set_not_before(&day(wanted.valid.0)).unwrap();
    builder.set_not_after(&day(wanted.valid.1)).unwrap();
    if is_ca {
        let basic = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(basic).unwrap();
    }
    if !wanted.names.is_empty() {
        let mut names = SubjectAlternativeName::new();
        for name in wanted.names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                names.ip(name)
            } else {
                names.dns(name.trim_start_matches("DNS:"))
            };
        }
        let names =
            names.build(&builder.x509v3_context(issuer.map(|issuer| &*issuer.cert), None)).unwrap();
        builder.append_extension(names).unwrap();
    }
    builder.sign(issuer.map_or(key, |issuer| &issuer.key), MessageDigest::sha256()).unwrap();
    builder.build()
}

fn rand_serial() -> u32 {
    std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = ec_key();
        let wanted = Wanted { subject: name, names: &[], valid: (-9, 900) };
        Authority { cert: make(&wanted, &key, None, true), key }
    }

    pub fn signs(&self, wanted: &Wanted) -> Pair {
        self.signs_for(ec_key(), wanted)
    }

    pub fn signs_for(&self, key: PKey<Private>, wanted: &Wanted) -> Pair {
        Pair { cert: make(wanted, &key, Some(self), false), key }
    }

    pub fn pem(&self) -> String {
        String::from_utf8(self.cert.to_pem().unwrap()).unwrap()
    }
}

pub fn self_signed(wanted: &Wanted) -> Pair {
    let key = ec_key();
    Pair { cert: make(wanted, &key, None, false), key }
}

impl Pair {
    pub fn cert_pem(&self) -> String {
        String::from_utf8(self.cert.to_pem().unwrap()).unwrap()
    }

    pub fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}

/// Writes a file that only its owner can read, which libpq requires of a key.
pub fn write(folder: &Folder, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    folder.write(name, content);
    let path = folder.path.join(name);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    path
}
