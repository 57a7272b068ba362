//! The content of a password file, `~/.pgpass`: lines of HOST:PORT:DATABASE:USER:PASSWORD, of which
//! the first that matches counts.

use super::Secret;

/// libpq's default socket directory, upstream's and Debian's: entries for it are written as
/// `localhost`.
const SOCKET_DIRECTORIES: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// The password for one host; `host` is its name, its socket directory, or else its address.
pub fn password(contents: &str, host: &str, port: u16, dbname: &str, user: &str) -> Option<Secret> {
    let local = SOCKET_DIRECTORIES.contains(&host);
    let port = port.to_string();
    // A comment needs no care: no host begins with `#`.
    let line = contents.lines().find_map(|line| {
        let line = line.trim_end_matches('\r');
        let rest = field(line, host).or_else(|| local.then(|| field(line, "localhost"))?)?;
        field(field(field(rest, &port)?, dbname)?, user)
    })?;
    let mut password = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => password.push(chars.next().unwrap_or('\\')),
            c => password.push(c),
        }
    }
    (!password.is_empty()).then(|| Secret::new(password))
}

/// What follows the line's first field, if that field is `wanted` or `*`.
fn field<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.chars();
    loop {
        let c = match chars.next()? {
            ':' => break wanted.next().is_none().then_some(chars.as_str()),
            '\\' => chars.next()?,
            c => c,
        };
        if wanted.next() != Some(c) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    fn found(contents: &str) -> Option<String> {
        super::password(contents, "h", 5432, "d", "u").map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_line_that_matches_wins() {
        for (contents, expected) in [
            ("h:5432:d:u:p", Some("p")),
            ("*:*:*:*:p\n", Some("p")),
            ("x:5432:d:u:no\nh:5433:d:u:no\nh:5432:e:u:no\nh:5432:d:v:no\nh:*:d:u:p", Some("p")),
            ("h:*:*:*:a\nh:5432:d:u:b", Some("a")),
            ("#h:5432:d:u:no\n\nh:5432:d:u:p\r\n", Some("p")),
            ("h:5432:d:u:a b#c", Some("a b#c")),
            ("h:5432:d:u:é", Some("é")),
            ("h2:5432:d:u:p", None),
            ("*h:5432:d:u:p", None),
            (":5432:d:u:p", None),
            ("h:5432:d:u", None),
            ("h:5432:d:u:", None),
            ("", None),
        ] {
            assert_eq!(found(contents).as_deref(), expected, "{contents:?}");
        }
    }

    #[test]
    fn a_backslash_takes_the_next_character_as_it_is() {
        assert_eq!(found(r"h:5432:d:u:a\:b\\c:rest").as_deref(), Some(r"a:b\c"));
        assert_eq!(found(r"h:5432:d:u:a\").as_deref(), Some(r"a\"));
        assert_eq!(found(r"\h:5432:d:u:p").as_deref(), Some("p"));
        assert_eq!(found(r"h:5432:d:u\:x:p"), None);
        let ipv6 = super::password(r"\:\:1:*:*:*:p", "::1", 5432, "d", "u").unwrap();
        assert_eq!(ipv6.expose(), "p");
    }

    #[test]
    fn the_default_socket_directory_is_also_called_localhost() {
        let on = |contents, host| super::password(contents, host, 5432, "d", "u").is_some();
        assert!(on("localhost:*:*:*:p", "/var/run/postgresql"));
        assert!(on("localhost:*:*:*:p", "/tmp"));
        assert!(on("/run/pg:*:*:*:p", "/run/pg"));
        assert!(!on("localhost:*:*:*:p", "/run/pg"));
    }
}
