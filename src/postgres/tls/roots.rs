//! What TLS is built from: the roots that the mode needs, and the certificate that we show.
//!
//! Read when the server has said yes to TLS, and not before. Each fault names the parameter.

use std::path::Path;

use native_tls::Identity;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::TlsError;
use crate::postgres::conninfo::{ClientCert, Pem, RootCert};

/// Mozilla's roots, which we carry: when the crate was published, which gives no date of its own, and
/// which version it is.
pub const CARRIED_ROOTS: &str = "Mozilla's roots of 2026-10-23 (webpki-root-certs 1.0.11)";

/// What to verify against.
pub enum Roots {
    /// Only these; and a word for them.
    Only(Vec<native_tls::Certificate>, String),
    /// The system's, which native-tls finds and loads.
    System,
}

impl Roots {
    /// For a mode that verifies: those that were named, or the system's, or where the system has
    /// none, as in an image from scratch, Mozilla's, which we carry.
    pub fn of(named: Option<&RootCert>) -> Result<Roots, TlsError> {
        match named {
            Some(RootCert::File(pem)) => Roots::from_pem(pem),
            Some(RootCert::IfThere(path)) if path.exists() => Roots::from_pem(&path.clone().into()),
            Some(RootCert::System | RootCert::IfThere(_)) | None => {
                if system_has_roots()? {
                    Ok(Roots::System)
                } else {
                    mozillas()
                }
            }
        }
    }

    fn from_pem(pem: &Pem) -> Result<Roots, TlsError> {
        let none = || unusable("sslrootcert", pem, "holds no certificate in PEM form".to_owned());
        let roots = native_tls::Certificate::stack_from_pem(&read("sslrootcert", pem)?);
        let roots = roots.map_err(|_| none())?;
        if roots.is_empty() {
            return Err(none());
        }
        let name = match pem {
            Pem::File(path) => format!("the roots in {}", path.display()),
            Pem::Text(_) => "the roots given as text".to_owned(),
        };
        Ok(Roots::Only(roots, name))
    }

    /// A word for them.
    pub fn name(&self) -> &str {
        match self {
            Roots::Only(_, name) => name,
            Roots::System => "the system's roots",
        }
    }
}

/// Where the environment names roots, they have to be there.
fn system_has_roots() -> Result<bool, TlsError> {
    for parameter in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(given) = std::env::var_os(parameter).filter(|given| !given.is_empty()) {
            let is_there = match parameter {
                // Folders, with colons between them.
                "SSL_CERT_DIR" => std::env::split_paths(&given).any(|folder| folder.exists()),
                _ => Path::new(&given).exists(),
            };
            if is_there {
                return Ok(true);
            }
            return Err(unusable(parameter, &Pem::File(given.into()), "is not there".to_owned()));
        }
    }
    let found = openssl_probe::probe();
    let holds = |path: &Path| path.metadata().is_ok_and(|file| file.len() > 0);
    // OpenSSL finds a root by its name's hash, with `.0` after it.
    let is_hashed = |folder: &Path| {
        let entries = std::fs::read_dir(folder);
        entries.is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "0"))
            })
        })
    };
    Ok(found.cert_file.is_some_and(|file| holds(&file))
        || found.cert_dir.iter().any(|folder| is_hashed(folder)))
}

fn mozillas() -> Result<Roots, TlsError> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| native_tls::Certificate::from_der(der))
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Handshake(error.to_string()))?;
    Ok(Roots::Only(roots, "Mozilla's roots, which premigrate carries".to_owned()))
}

/// What we identify ourselves with, if there is such a thing.
pub fn identity(given: &ClientCert) -> Result<Option<Identity>, TlsError> {
    let ClientCert { cert, key, password, if_there } = given;
    if let (true, Pem::File(path)) = (*if_there, cert)
        && !path.exists()
    {
        return Ok(None);
    }
    let password = password.as_ref().map(|password| password.expose());
    let certificate = read("sslcert", cert)?;
    let private = private_key(&read("sslkey", key)?, password).ok_or_else(|| {
        let why = match password {
            None => "is no private key, or is encrypted: then give its passphrase with sslpassword",
            Some(_) => "is no private key, or sslpassword is not its passphrase",
        };
        unusable("sslkey", key, why.to_owned())
    })?;
    let none = || unusable("sslcert", cert, "holds no certificate in PEM form".to_owned());
    let public = X509::from_pem(&certificate).and_then(|first| first.public_key());
    let public = public.map_err(|_| none())?;
    if !private.public_eq(&public) {
        let why = "does not belong to the certificate of sslcert".to_owned();
        return Err(unusable("sslkey", key, why));
    }
    // native-tls reads PKCS#8 alone; people have keys of every kind.
    let pkcs8 = private.private_key_to_pem_pkcs8().map_err(|_| none())?;
    Identity::from_pkcs8(&certificate, &pkcs8).map(Some).map_err(|_| none())
}

/// An empty passphrase keeps OpenSSL from asking for one at the terminal.
fn private_key(key: &[u8], password: Option<&str>) -> Option<PKey<Private>> {
    PKey::private_key_from_pem_passphrase(key, password.unwrap_or_default().as_bytes())
        .or_else(|_| PKey::private_key_from_der(key))
        .ok()
}

fn read(parameter: &'static str, pem: &Pem) -> Result<Vec<u8>, TlsError> {
    match pem {
        Pem::Text(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => std::fs::read(path)
            .map_err(|error| unusable(parameter, pem, format!("cannot be read: {error}"))),
    }
}

fn unusable(parameter: &'static str, pem: &Pem, why: String) -> TlsError {
    TlsError::Unusable { parameter, place: pem.to_string(), why }
}

#[cfg(test)]
mod tests {
    use openssl::error::ErrorStack;
    use openssl::stack::Stack;
    use openssl::x509::store::X509StoreBuilder;
    use openssl::x509::verify::X509VerifyParam;
    use openssl::x509::{X509PurposeId, X509StoreContext};

    use super::*;

    /// What a server sent in August 2026: its certificate, and two that lead to ISRG Root X2.
    const LETSENCRYPT: &[u8] = include_bytes!("letsencrypt.org.pem");
    const AUGUST_2026: i64 = 1_786_500_000;
    const AUGUST_2027: i64 = AUGUST_2026 + 365 * 86_400;

    fn carried() -> Vec<X509> {
        let Roots::Only(roots, _) = mozillas().unwrap() else { panic!("they are not carried") };
        roots.iter().map(|root| X509::from_der(&root.to_der().unwrap()).unwrap()).collect()
    }

    /// OpenSSL's verdict on what the server sent, at this time.
    fn verdict(roots: Vec<X509>, host: &str, time: i64) -> Result<String, ErrorStack> {
        let mut sent = X509::stack_from_pem(LETSENCRYPT)?.into_iter();
        let server = sent.next().unwrap();
        let mut others = Stack::new()?;
        for certificate in sent {
            others.push(certificate)?;
        }
        let mut trusted = X509StoreBuilder::new()?;
        for root in roots {
            trusted.add_cert(root)?;
        }
        let mut asked = X509VerifyParam::new()?;
        asked.set_time(time);
        asked.set_host(host)?;
        asked.set_purpose(X509PurposeId::SSL_SERVER)?;
        trusted.set_param(&asked)?;
        X509StoreContext::new()?.init(&trusted.build(), &server, &others, |context| {
            context.verify_cert()?;
            Ok(context.error().error_string().to_owned())
        })
    }

    #[test]
    fn every_root_that_is_carried_is_an_authority_and_there_once() {
        let mut subjects: Vec<_> =
            carried().iter().map(|root| root.subject_name().to_der().unwrap()).collect();
        assert_eq!(subjects.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(subjects.len() > 100, "{}", subjects.len());
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
    }

    #[test]
    fn a_real_servers_certificate_passes_by_the_roots_that_are_carried() {
        for (host, time, words) in [
            ("letsencrypt.org", AUGUST_2026, "ok"),
            ("example.org", AUGUST_2026, "hostname mismatch"),
            ("letsencrypt.org", AUGUST_2027, "certificate has expired"),
        ] {
            assert_eq!(verdict(carried(), host, time).unwrap(), words, "{host} {time}");
        }
        let mut others = carried();
        others.retain(|root| !format!("{:?}", root.subject_name()).contains("ISRG Root X2"));
        assert_eq!(others.len() + 1, carried().len());
        let words = "unable to get local issuer certificate";
        assert_eq!(verdict(others, "letsencrypt.org", AUGUST_2026).unwrap(), words);
    }
}
