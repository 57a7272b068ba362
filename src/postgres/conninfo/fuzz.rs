//! Random texts, the same in every run: the parser never panics, and no password that is planted in
//! a text is in an error, a note or the debug output of what was read.

use super::*;

const PLANTED: &str = "hunter2";

/// Pieces of which connection strings, and broken ones, are made.
const PIECES: &[&str] = &[
    "postgres://",
    "postgresql://",
    "postgres:/",
    "jdbc:postgresql://",
    "postgresql+asyncpg://",
    "psql ",
    "DATABASE_URL=",
    "prisma://",
    "mysql://",
    "://",
    ":",
    "/",
    "//",
    "@",
    "?",
    "&",
    "=",
    "#",
    ",",
    ";",
    "%",
    "%2",
    "%40",
    "%2F",
    "%00",
    "%ff",
    "%C3",
    "%zz",
    "[",
    "]",
    "[::1]",
    "'",
    "\"",
    "\\",
    " ",
    "\t",
    "\n",
    "\0",
    "+",
    "$",
    "${X}",
    "\u{e9}",
    "\u{1f511}",
    "h",
    "db.example.com",
    "u",
    "d",
    "p",
    "127.0.0.1",
    "::1",
    "/run/pg",
    "5432",
    "65536",
    "-1",
    "host",
    "host=",
    "hostaddr=",
    "port=",
    "user=",
    "dbname=",
    "sslmode=",
    "sslmode=require",
    "sslmode=on",
    "ssl=true",
    "sslrootcert=/ca",
    "sslrootcert=system",
    "sslcert=/c",
    "sslkey=/k",
    "options=",
    "passfile=/p",
    "connect_timeout=",
    "10s",
    "keepalives=",
    "target_session_attrs=",
    "schema=app",
    "pgbouncer=true",
    "unknown=",
    "service=",
    "Host=",
    "Password=",
    "Username=",
    "application_name=",
    "replication=",
];

/// Where a password stands in a text, whole or with what people have in theirs.
const PASSWORDS: &[&str] = &[
    ":hunter2@",
    ":hun@hunter2@",
    ":hunter2/x@",
    ":x/hunter2@",
    ":x?hunter2@",
    ":hunter2#x@",
    ":%hunter2@",
    ":hunter2%@",
    "password=hunter2",
    "password='hunter2'",
    "password='hunter2",
    "&password=hunter2",
    "password=x hunter2",
    "password=x&hunter2",
    "password=x&hunter2=y",
    ":[hunter2@",
    ":hunter2,x@",
    ":hunter2=x@",
    ":hunter2 x@",
    "sslpassword=hunter2",
];

/// A linear congruential generator (Knuth's constants).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, pieces: &[&'a str]) -> &'a str {
        pieces[self.below(pieces.len())]
    }
}

fn read(text: &str) -> Result<Target, ConninfoError> {
    resolve(Some(text), "DATABASE_URL", &|name| match name {
        "PGHOST" => Some("h".to_owned()),
        "PGUSER" => Some("u".to_owned()),
        _ => None,
    })
}

/// What a user may get to see, but for what a text that is read says of places: host, user and
/// database are shown, and are where the text puts them.
fn shown(result: &Result<Target, ConninfoError>) -> String {
    match result {
        Ok(target) => format!("{:?} {:?}", target.password, target.notes),
        Err(invalid) => format!("{invalid} {invalid:?}"),
    }
}

#[test]
fn no_random_text_makes_it_panic_or_tell_a_password() {
    let mut random = Random(5);
    let (mut read_well, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let mut text = String::new();
        // Every other text begins as one that is meant well.
        if random.below(2) == 0 {
            text +=
                random.of(&["postgres://u", "postgresql://", "host=h user=u ", "postgres://h/d?"]);
        }
        let planted = random.below(6);
        for at in 0..6 {
            match at == planted {
                true => text += random.of(PASSWORDS),
                false => text += random.of(PIECES),
            }
        }
        let result = read(&text);
        assert!(!shown(&result).contains(PLANTED), "{text:?}: {}", shown(&result));
        match result {
            Ok(_) => read_well += 1,
            Err(_) => refused += 1,
        }
    }
    // Otherwise the texts would be no test.
    assert!(read_well > 1_000 && refused > 10_000, "{read_well} {refused}");
}

#[test]
fn no_well_meant_url_with_any_byte_changed_makes_it_panic_or_tell_a_password() {
    let mut random = Random(6);
    for whole in [
        "postgres://user:hunter2@db.example.com:5432/app?sslmode=require&options=-c%20a%3Db",
        "postgresql://us%40er:hunter2@[::1]:5433,b:1/app?target_session_attrs=any",
        "host=h port=5432 user=u password='hunter2' dbname=d sslmode=verify-full",
        "postgres:///d?host=/run/pg&user=u&password=hunter2&connect_timeout=3",
    ] {
        for _ in 0..10_000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.below(128) as u8,
                    1 => bytes.insert(at, random.below(128) as u8),
                    _ => drop(bytes.remove(at)),
                }
            }
            let text = String::from_utf8(bytes).unwrap();
            let result = read(&text);
            assert!(!shown(&result).contains(PLANTED), "{text:?}: {}", shown(&result));
        }
    }
}
