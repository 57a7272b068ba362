//! Parses postgres://USER:PASSWORD@HOST:PORT,.../DATABASE?KEY=VALUE&... as libpq does, and as people
//! mean it where libpq would take a part of an unencoded password for the host. A URL that can be
//! read both ways is rejected: a wrong guess would send the password to another host.

use super::error::Problem;
use super::keywords::{self, Param, mentions_password};

/// Parses what follows `postgres://`. Later parameters replace earlier ones, and so the query
/// replaces the authority.
pub fn parse(rest: &str) -> Result<Vec<Param>, Problem> {
    let (head, query) = split_query(rest);
    let (userinfo, authority, dbname) = split_head(head)?;
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (hosts, ports) = hosts(authority)?;
    let parts = [
        ("user", user),
        ("password", password),
        ("host", &hosts),
        ("port", &ports),
        ("dbname", dbname),
    ];
    let mut params = Vec::new();
    for (key, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
        params.push(Param::new(key, decode(part)?));
    }
    // Before an unencoded `@`, after a password, and where no `@` ends the credentials, what looks
    // like a key may be part of the password.
    let mut safe_to_print = !query.contains('@') && (!userinfo.is_empty() || !head.contains(':'));
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
        let mut param = Param { key: decode(key)?, value: String::new(), safe_to_print };
        param.value = match value {
            Some(value) => decode(value)?,
            None => return Err(keywords::no_value(&param.key)),
        };
        safe_to_print &=
            ![&param.key, &param.value].into_iter().any(|text| mentions_password(text));
        params.push(param);
    }
    Ok(params)
}

/// Splits at the `?` before a known keyword, since a query may contain `@`, and a password `?`; or
/// else at the first `?` after the credentials.
fn split_query(rest: &str) -> (&str, &str) {
    let known = rest.match_indices('?').map(|(at, _)| at).find(|at| {
        let key = rest.get(at + 1..).and_then(|query| query.split_once('='));
        key.is_some_and(|(key, _)| keywords::lookup(key).is_some())
    });
    let host = rest.rfind('@').unwrap_or(0);
    let after_credentials = || rest.get(host..).and_then(|tail| tail.find('?')).map(|at| host + at);
    match known.or_else(after_credentials) {
        Some(at) => (rest.get(..at).unwrap_or(rest), rest.get(at + 1..).unwrap_or("")),
        None => (rest, ""),
    }
}

/// Credentials, hosts, database.
fn split_head(head: &str) -> Result<(&str, &str, &str), Problem> {
    let (authority, path) = head.split_once('/').unwrap_or((head, ""));
    match (authority.rsplit_once('@'), path.matches('@').count()) {
        (Some((userinfo, hosts)), 0) => Ok((userinfo, hosts, path)),
        (None, 0) => Ok(("", authority, path)),
        // `u:a/b@host/db`: as libpq reads it, "a" would be the port, which it cannot be.
        (None, 1) if !authority.starts_with('[') && !ports_are_numbers(authority) => {
            let (userinfo, tail) = head.split_once('@').unwrap_or(("", head));
            let (hosts, dbname) = tail.split_once('/').unwrap_or((tail, ""));
            Ok((userinfo, hosts, dbname))
        }
        _ => Err(Problem::Ambiguous),
    }
}

fn ports_are_numbers(authority: &str) -> bool {
    authority
        .split(',')
        .filter_map(|host| host.split_once(':'))
        .all(|(_, port)| port.is_empty() || port.parse::<u16>().is_ok())
}

/// `a:1,[::1]:2` becomes the lists `a,::1` and `1,2`.
fn hosts(authority: &str) -> Result<(String, String), Problem> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in authority.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => match bracketed.split_once(']') {
                Some(("", _)) | None => return Err(Problem::Bracket),
                Some((name, "")) => (name, ""),
                Some((name, port)) => (name, port.strip_prefix(':').ok_or(Problem::Bracket)?),
            },
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    Ok((names.join(","), ports.join(",")))
}

/// Percent-decodes; a `%` that begins no escape is literal, as in passwords like `100%`.
fn decode(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, tail))
            }
            _ => None,
        };
        let (byte, tail) = escape.unwrap_or((*first, tail));
        if byte == 0 {
            return Err(Problem::Nul);
        }
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| Problem::NotUtf8)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
