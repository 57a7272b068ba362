//! The least that a runner of migrations can cost: the driver, one query of the history, and each
//! pending file in one message. No lock, no hashes, no checks, not a word.
//!
//! An example, so that cargo builds it as it builds premigrate: that is what makes a ratio fair.

use std::error::Error;
use std::path::PathBuf;

use postgres::{Client, NoTls, SimpleQueryMessage};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: DATABASE_URL=... bare FOLDER")?;
    let mut client = Client::connect(&std::env::var("DATABASE_URL")?, NoTls)?;
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
