//! The least that a runner of migrations can cost: the driver, one query of the history, and each
//! pending file in one message. No lock, no hashes, no checks, not a word.
//!
//! With `require` it encrypts and verifies nothing; with `verify-full AUTHORITY` it trusts the root in
//! that file, and those that premigrate carries, which it carries likewise: native-tls as it comes.
//! `bare roots` prints the carried ones, as PEM.
//!
//! An example, so that cargo builds it as it builds premigrate: that is what makes a ratio fair.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use native_tls::{Certificate, TlsConnector};
use openssl::x509::X509;
use postgres::{Client, NoTls, SimpleQueryMessage};
use postgres_native_tls::MakeTlsConnector;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["roots"] => print_roots(),
        [folder] => migrate(connect(None)?, folder),
        [folder, "require"] => {
            let mut builder = TlsConnector::builder();
            builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
            migrate(connect(Some(builder.build()?))?, folder)
        }
        [folder, "verify-full", authority] => {
            let mut builder = TlsConnector::builder();
            builder.disable_built_in_roots(true);
            for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
                builder.add_root_certificate(Certificate::from_der(root)?);
            }
            builder.add_root_certificate(Certificate::from_pem(&std::fs::read(authority)?)?);
            migrate(connect(Some(builder.build()?))?, folder)
        }
        _ => Err(
            "usage: DATABASE_URL=... bare FOLDER [require|verify-full AUTHORITY], or: bare roots",
        )?,
    }
}

fn connect(tls: Option<TlsConnector>) -> Result<Client, Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    Ok(match tls {
        Some(tls) => Client::connect(&url, MakeTlsConnector::new(tls))?,
        None => Client::connect(&url, NoTls)?,
    })
}

fn print_roots() -> Result<(), Box<dyn Error>> {
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        std::io::stdout().write_all(&X509::from_der(root)?.to_pem()?)?;
    }
    Ok(())
}

fn migrate(mut client: Client, folder: &str) -> Result<(), Box<dyn Error>> {
    let history = "select id, hash, created_at from drizzle.__drizzle_migrations order by id";
    let is_row = |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
    if client.simple_query(history)?.iter().filter(is_row).count() > 0 {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    for (when, file) in files.iter().enumerate() {
        let sql = std::fs::read_to_string(file)?;
        client.batch_execute(&format!(
            "begin;\n{sql};\ninsert into drizzle.__drizzle_migrations (hash, created_at) \
             values ('{}', {when});\ncommit",
            "0".repeat(64)
        ))?;
    }
    Ok(())
}
