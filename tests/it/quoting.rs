//! Compares our quoting of names and values with the server's.

use postgres::{Client, NoTls, SimpleQueryMessage};
use premigrate::sql::quote::{ident, literal};

use crate::harness::{Random, server};

impl Random {
    /// Up to 8 pieces that are hard to quote: at most 48 bytes, since an identifier has at most 63.
    fn hard_to_quote(&mut self) -> String {
        const PIECES: [&str; 24] = [
            "'", "\"", "\\", "\\'", "''", "\"\"", "$$", "--", "/*", "*/", ";", "\n", "\r", "\t",
            " ", "a", "E", "U&", "é", "日", "😀", "\u{7f}", "%", "select",
        ];
        let mut text = String::new();
        for _ in 0..=self.below(8) {
            text.push_str(PIECES[self.below(PIECES.len())]);
        }
        text
    }
}

fn clients() -> [Client; 2] {
    ["on", "off"].map(|setting| {
        let mut client = Client::connect(&server(), NoTls).unwrap();
        let sql =
            format!("set standard_conforming_strings = {setting}; set escape_string_warning = off");
        client.batch_execute(&sql).unwrap();
        client
    })
}

/// The only value of a query, and the name of its column.
fn value(client: &mut Client, sql: &str) -> (String, String) {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("a row");
    (row.get(0).unwrap_or_default().to_owned(), row.columns()[0].name().to_owned())
}

#[test]
fn a_literal_equals_quote_literal_and_keeps_its_value() {
    let mut random = Random(1);
    for mut client in clients() {
        let mut texts: Vec<String> = (0..300).map(|_| random.hard_to_quote()).collect();
        texts.push(String::new());
        for text in texts {
            let ours = literal(&text);
            let theirs: String =
                client.query_one("select quote_literal($1::text)", &[&text]).unwrap().get(0);
            assert_eq!(ours, theirs, "{text:?}");
            assert_eq!(value(&mut client, &format!("select {ours}")).0, text);
        }
    }
}

#[test]
fn an_identifier_means_the_same_as_with_quote_ident() {
    let mut random = Random(2);
    for mut client in clients() {
        let mut names: Vec<String> = (0..300).map(|_| random.hard_to_quote()).collect();
        names.extend(["plain", "Mixed", "user", "1st", "select"].map(str::to_owned));
        for name in names {
            let ours = ident(&name);
            let theirs: String =
                client.query_one("select quote_ident($1::text)", &[&name]).unwrap().get(0);
            assert!(theirs == ours || theirs == name, "{name:?}: {theirs} and {ours}");
            for quoted in [ours, theirs] {
                let sql = format!("select 1 as {quoted}");
                assert_eq!(value(&mut client, &sql).1, name, "{quoted}");
            }
        }
    }
}
