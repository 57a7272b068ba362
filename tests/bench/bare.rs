//! The least that a runner of migrations can cost: the driver, one query of the history, and each
//! pending file in one message. No lock, no hashes, no checks, not a word. With `sslrootcert` in the
//! URL, it encrypts, and verifies the server as `verify-full` does: native-tls as it comes.
//!
//! An example, so that cargo builds it as it builds premigrate: that is what makes a ratio fair.

use std::error::Error;
use std::path::PathBuf;

use native_tls::{Certificate, TlsConnector};
use postgres::{Client, NoTls, SimpleQueryMessage};
use postgres_native_tls::MakeTlsConnector;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: DATABASE_URL=... bare FOLDER")?;
    let url = std::env::var("DATABASE_URL")?;
    let (server, settings) = url.split_once('?').unwrap_or((&url, ""));
    let authority = settings.split('&').find_map(|it| it.strip_prefix("sslrootcert="));
    let client = match authority {
        None => Client::connect(server, NoTls)?,
        Some(authority) => {
            let mut builder = TlsConnector::builder();
            builder.disable_built_in_roots(true);
            builder.add_root_certificate(Certificate::from_pem(&std::fs::read(authority)?)?);
            let tls = MakeTlsConnector::new(builder.build()?);
            Client::connect(&format!("{server}?sslmode=require"), tls)?
        }
    };
    migrate(client, &folder)
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
