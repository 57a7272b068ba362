//! Random texts, the same in every run: the parser does not panic, and no password in a text is in
//! an error, a note or the debug output.

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

/// Passwords, whole or with characters that have a meaning in connection strings.
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

/// What a user may see. The host, user and database of a text that is valid are left out.
fn shown(result: &Result<Target, ConninfoError>) -> String {
    match result {
        Ok(target) => format!("{:?} {:?}", target.password, target.notes),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[test]
fn no_random_text_causes_a_panic_or_reveals_a_password() {
    let mut random = Random(5);
    let (mut accepted, mut rejected) = (0, 0);
    for _ in 0..50_000 {
        let mut text = String::new();
        // Every other text begins as a valid one.
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
            Ok(_) => accepted += 1,
            Err(_) => rejected += 1,
        }
    }
    // Otherwise the texts would test nothing.
    assert!(accepted > 1_000 && rejected > 10_000, "{accepted} {rejected}");
}

#[test]
fn no_valid_text_with_changed_bytes_causes_a_panic_or_reveals_a_password() {
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
