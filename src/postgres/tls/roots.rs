//! The roots that certificates are verified against, and our client certificate. They are read only
//! after the server has accepted TLS.

use std::path::Path;

use native_tls::Identity;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::TlsError;
use crate::postgres::conninfo::{ClientCert, Pem, RootCert};

/// Mozilla's roots, which are compiled in. The crate has no date of its own; this is when it was
/// published.
pub const BUILT_IN_ROOTS: &str = "Mozilla's roots of 2026-10-23 (webpki-root-certs 1.0.11)";

pub struct Roots {
    /// `None` for the system's, which native-tls finds and loads.
    pub certificates: Option<Vec<native_tls::Certificate>>,
    pub description: String,
}

impl Roots {
    /// Those that are given, or the system's, or where it has none, as in an image from scratch,
    /// Mozilla's.
    pub fn of(given: Option<&RootCert>) -> Result<Roots, TlsError> {
        match given {
            Some(RootCert::File(pem)) => Roots::from_pem(pem),
            Some(RootCert::DefaultFile(path)) if path.exists() => {
                Roots::from_pem(&path.clone().into())
            }
            Some(RootCert::System | RootCert::DefaultFile(_)) | None => {
                if system_has_roots()? {
                    let description = "the system's roots".to_owned();
                    Ok(Roots { certificates: None, description })
                } else {
                    Roots::mozillas()
                }
            }
        }
    }

    fn from_pem(pem: &Pem) -> Result<Roots, TlsError> {
        let roots = native_tls::Certificate::stack_from_pem(&read("sslrootcert", pem)?);
        let roots = roots.ok().filter(|roots| !roots.is_empty());
        let certificates = Some(roots.ok_or_else(|| no_certificate("sslrootcert", pem))?);
        let description = match pem {
            Pem::File(path) => format!("the roots in {}", path.display()),
            Pem::Text(_) => "the roots given as text".to_owned(),
        };
        Ok(Roots { certificates, description })
    }

    fn mozillas() -> Result<Roots, TlsError> {
        let certificates = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|der| native_tls::Certificate::from_der(der))
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Handshake(error.to_string()))?;
        let description = "Mozilla's roots, which are built into premigrate".to_owned();
        Ok(Roots { certificates: Some(certificates), description })
    }
}

/// Roots that the environment names must exist.
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
            return Err(unusable(parameter, &Pem::File(given.into()), "does not exist"));
        }
    }
    let found = openssl_probe::probe();
    let is_filled = |path: &Path| path.metadata().is_ok_and(|file| file.len() > 0);
    // OpenSSL looks a root up by the hash of its name, with `.0` appended.
    let is_hashed = |folder: &Path| {
        let entries = std::fs::read_dir(folder);
        entries.is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "0"))
            })
        })
    };
    Ok(found.cert_file.is_some_and(|file| is_filled(&file))
        || found.cert_dir.iter().any(|folder| is_hashed(folder)))
}

/// The client certificate and its key, if they exist.
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
        let problem = match password {
            None => {
                "is not a private key, or is encrypted (then set sslpassword to its passphrase)"
            }
            Some(_) => "is not a private key, or sslpassword is not its passphrase",
        };
        unusable("sslkey", key, problem)
    })?;
    let public = X509::from_pem(&certificate).and_then(|first| first.public_key());
    let public = public.map_err(|_| no_certificate("sslcert", cert))?;
    if !private.public_eq(&public) {
        return Err(unusable("sslkey", key, "does not belong to the certificate in sslcert"));
    }
    // native-tls reads only PKCS#8.
    let pkcs8 = private.private_key_to_pem_pkcs8().map_err(|_| no_certificate("sslcert", cert))?;
    Identity::from_pkcs8(&certificate, &pkcs8)
        .map(Some)
        .map_err(|_| no_certificate("sslcert", cert))
}

/// An empty passphrase keeps OpenSSL from prompting for one.
fn private_key(key: &[u8], password: Option<&str>) -> Option<PKey<Private>> {
    PKey::private_key_from_pem_passphrase(key, password.unwrap_or_default().as_bytes())
        .or_else(|_| PKey::private_key_from_der(key))
        .ok()
}

fn read(parameter: &'static str, pem: &Pem) -> Result<Vec<u8>, TlsError> {
    match pem {
        Pem::Text(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => std::fs::read(path)
            .map_err(|error| unusable(parameter, pem, &format!("could not be read: {error}"))),
    }
}

fn no_certificate(parameter: &'static str, pem: &Pem) -> TlsError {
    unusable(parameter, pem, "contains no certificate in PEM form")
}

fn unusable(parameter: &'static str, pem: &Pem, problem: &str) -> TlsError {
    TlsError::Unusable { parameter, source: pem.to_string(), problem: problem.to_owned() }
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

    fn built_in() -> Vec<X509> {
        let roots = Roots::mozillas().unwrap().certificates.unwrap();
        roots.iter().map(|root| X509::from_der(&root.to_der().unwrap()).unwrap()).collect()
    }

    /// OpenSSL's result for these certificates, at this time.
    fn verify(roots: Vec<X509>, host: &str, time: i64) -> Result<String, ErrorStack> {
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
    fn each_built_in_root_is_an_authority_and_occurs_once() {
        let mut subjects: Vec<_> =
            built_in().iter().map(|root| root.subject_name().to_der().unwrap()).collect();
        assert_eq!(subjects.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(subjects.len() > 100, "{}", subjects.len());
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
    }

    #[test]
    fn the_built_in_roots_verify_a_chain_the_host_and_the_time() {
        for (host, time, words) in [
            ("letsencrypt.org", AUGUST_2026, "ok"),
            ("example.org", AUGUST_2026, "hostname mismatch"),
            ("letsencrypt.org", AUGUST_2027, "certificate has expired"),
        ] {
            assert_eq!(verify(built_in(), host, time).unwrap(), words, "{host} {time}");
        }
        let mut others = built_in();
        others.retain(|root| !format!("{:?}", root.subject_name()).contains("ISRG Root X2"));
        assert_eq!(others.len() + 1, built_in().len());
        let words = "unable to get local issuer certificate";
        assert_eq!(verify(others, "letsencrypt.org", AUGUST_2026).unwrap(), words);
    }
}
