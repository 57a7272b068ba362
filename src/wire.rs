//! The socket under a connection: TCP with keepalives, or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::conninfo::{Keepalives, Target};

/// One place where a server may listen, its name resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How a dead network is noticed.
#[derive(Clone, Debug)]
pub struct Vigilance {
    keepalive: Option<TcpKeepalive>,
    user_timeout: Option<Duration>,
}

impl Vigilance {
    /// As the connection string says.
    pub fn of(target: &Target) -> Vigilance {
        let keepalive = |keepalives: &Keepalives| {
            let mut keepalive = TcpKeepalive::new();
            if let Some(idle) = keepalives.idle {
                keepalive = keepalive.with_time(idle);
            }
            if let Some(interval) = keepalives.interval {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(count) = keepalives.count {
                keepalive = keepalive.with_retries(count);
            }
            keepalive
        };
        Vigilance {
            keepalive: target.keepalives.as_ref().map(keepalive),
            user_timeout: target.tcp_user_timeout,
        }
    }
}

/// A socket, as the driver wants one.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Whether closing waits for the other side to close. libpq does so after a cancel request,
    /// and PgBouncer 1.18 crashes if one does not (pgbouncer issue 801).
    waits_for_close: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Connects to this address.
    pub async fn dial(address: &Address, vigilance: &Vigilance) -> io::Result<Wire> {
        let socket = match address {
            Address::Tcp(address) => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let options = SockRef::from(&tcp);
                if let Some(keepalive) = &vigilance.keepalive {
                    options.set_tcp_keepalive(keepalive)?;
                }
                options.set_tcp_user_timeout(vigilance.user_timeout)?;
                Socket::Tcp(tcp)
            }
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        Ok(Wire { socket, waits_for_close: false })
    }

    /// The same, for a cancel request.
    pub fn waiting_for_close(self) -> Wire {
        Wire { waits_for_close: true, ..self }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Socket::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waits_for_close {
            let mut bytes = [0; 64];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(self.as_mut().poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => self.waits_for_close = false,
            }
        }
        match &mut self.socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
