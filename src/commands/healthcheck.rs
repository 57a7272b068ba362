//! `healthcheck`: whether a page or a port answers, for images in which nothing else can ask.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Response};
use serde::Serialize;

use crate::cli::health::CheckUrl;
use crate::postgres::dns;
use crate::process::signals::{Signal, StopFlag};

/// The longest beginning of an answer in which its status is looked for.
const MAX_HEAD: usize = 8 << 10;

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub healthy: bool,
    /// The status of the answer, or why there is none.
    pub reason: String,
}

impl Verdict {
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.healthy)
    }

    fn unhealthy(reason: String) -> Verdict {
        Verdict { healthy: false, reason }
    }
}

/// Checks a page, which has to answer with 2xx, or a port, which has to be open.
pub fn check(url: &CheckUrl, limit: Duration, stop: &StopFlag) -> Result<Verdict, Signal> {
    // There is nothing to clean up.
    if let Some(signal) = stop.exit_on_next_signal() {
        return Err(signal);
    }
    let deadline = Instant::now() + limit;
    Ok(check_each(url, deadline).unwrap_or_else(|error| match is_timeout(&error) {
        true => Verdict::unhealthy(format!("no answer within {limit:?}")),
        false => Verdict::unhealthy(error.to_string()),
    }))
}

fn is_timeout(error: &io::Error) -> bool {
    // What a socket's own limit ends is said to be a call that would block.
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The time that is left; an error if there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Checks the host's addresses one after the other, until one can be connected to.
fn check_each(url: &CheckUrl, deadline: Instant) -> io::Result<Verdict> {
    let addresses = dns::addresses_within(&url.host, url.port, left(deadline)?)?;
    check_addresses(&addresses, url, deadline)
}

fn check_addresses(
    addresses: &[SocketAddr],
    url: &CheckUrl,
    deadline: Instant,
) -> io::Result<Verdict> {
    let mut failure = Verdict::unhealthy("the host has no address".to_owned());
    for (address, to_try) in addresses.iter().copied().zip((1..=addresses.len()).rev()) {
        // Each gets its share: the first may be one that nothing answers.
        let share = left(deadline)? / u32::try_from(to_try).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(&address, share) {
            Ok(stream) => return status(stream, address, url, deadline),
            Err(error) if is_timeout(&error) && to_try == 1 => return Err(error),
            Err(error) => failure = Verdict::unhealthy(format!("{address}: {error}")),
        }
    }
    Ok(failure)
}

fn status(
    mut stream: TcpStream,
    address: SocketAddr,
    url: &CheckUrl,
    deadline: Instant,
) -> io::Result<Verdict> {
    let Some(path) = &url.path else {
        return Ok(Verdict { healthy: true, reason: format!("{address} accepts connections") });
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: premigrate\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        url.authority()
    );
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while answer.len() < MAX_HEAD {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut part)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if !answer.contains(&b'\n') {
            continue;
        }
        let mut headers = [EMPTY_HEADER; 1];
        let mut response = Response::new(&mut headers);
        // Only the status line is of interest, and no error behind it.
        let _ = response.parse(&answer);
        let Some(code) = response.code else { break };
        let reason = format!("{code} {}", response.reason.unwrap_or_default());
        return Ok(Verdict {
            healthy: (200..300).contains(&code),
            reason: reason.trim_end().to_owned(),
        });
    }
    Ok(Verdict::unhealthy(format!("{address} does not answer in HTTP")))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn an_address_that_nothing_answers_leaves_time_for_the_next_one() {
        let listen = |ip: [u8; 4]| TcpListener::bind((Ipv4Addr::from(ip), 0)).unwrap();
        let (mute, open) = (listen([127, 0, 0, 2]), listen([127, 0, 0, 1]));
        let [mute_address, address] = [&mute, &open].map(|it| it.local_addr().unwrap());
        // The kernel drops what comes after a full queue.
        let connect = || TcpStream::connect_timeout(&mute_address, Duration::from_millis(300));
        let queued: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
        let url = CheckUrl::parse("tcp://host:1").unwrap();
        let deadline = Instant::now() + Duration::from_secs(4);
        let verdict = check_addresses(&[mute_address, address], &url, deadline).unwrap();
        assert!(verdict.healthy, "{}", verdict.reason);
        let failed = check_addresses(&[address, mute_address], &url, Instant::now()).unwrap_err();
        assert!(is_timeout(&failed), "{failed}");
        drop(queued);
    }
}
