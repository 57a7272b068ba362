//! `healthcheck`: whether a page or a port answers, for images in which nothing else can ask.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Response};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::cli::health::CheckUrl;
use crate::postgres::dns;
use crate::process::signals::{Signal, StopFlag};

/// The longest beginning of an answer in which its status is looked for.
const MAX_HEAD: u64 = 8 << 10;

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub healthy: bool,
    /// The status of the answer, or why there is none.
    pub reason: String,
}

impl Health {
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.healthy)
    }

    fn unhealthy(reason: String) -> Health {
        Health { healthy: false, reason }
    }
}

/// Checks a page, which has to answer with 2xx, or a port, which has to be open.
pub fn check(url: &CheckUrl, limit: Duration, stop: &StopFlag) -> Result<Health, Signal> {
    // There is nothing to clean up.
    if let Some(signal) = stop.arm_immediate_exit() {
        return Err(signal);
    }
    let checked = Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(async { timeout(limit, check_each(url)).await }));
    Ok(match checked {
        Ok(Ok(Ok(health))) => health,
        Ok(Ok(Err(error))) | Err(error) => Health::unhealthy(error.to_string()),
        Ok(Err(_)) => Health::unhealthy(format!("no answer within {limit:?}")),
    })
}

/// Checks the host's addresses one after the other, until one can be connected to.
async fn check_each(url: &CheckUrl) -> io::Result<Health> {
    let addresses = dns::addresses(&url.host, url.port).await?;
    let mut failure = Health::unhealthy("the host has no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return status(stream, address, url).await,
            Err(error) => failure = Health::unhealthy(format!("{address}: {error}")),
        }
    }
    Ok(failure)
}

async fn status(mut stream: TcpStream, address: SocketAddr, url: &CheckUrl) -> io::Result<Health> {
    let Some(path) = &url.path else {
        return Ok(Health { healthy: true, reason: format!("{address} accepts connections") });
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: premigrate\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        url.authority()
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut answer, mut head) = (Vec::new(), stream.take(MAX_HEAD));
    while head.read_buf(&mut answer).await? > 0 {
        if !answer.contains(&b'\n') {
            continue;
        }
        let mut headers = [EMPTY_HEADER; 1];
        let mut response = Response::new(&mut headers);
        // Only the status line is of interest, and no error behind it.
        let _ = response.parse(&answer);
        let Some(code) = response.code else { break };
        let reason = format!("{code} {}", response.reason.unwrap_or_default());
        return Ok(Health {
            healthy: (200..300).contains(&code),
            reason: reason.trim_end().to_owned(),
        });
    }
    Ok(Health::unhealthy(format!("{address} does not answer in HTTP")))
}
