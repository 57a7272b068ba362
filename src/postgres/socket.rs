//! The socket under a connection: TCP with keepalives, or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::postgres::conninfo::{Keepalives, Target};
use crate::postgres::tls::TlsError;

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
pub struct TcpOptions {
    keepalive: Option<TcpKeepalive>,
    user_timeout: Option<Duration>,
}

impl TcpOptions {
    /// As the connection string says.
    pub fn of(target: &Target) -> TcpOptions {
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
        TcpOptions {
            keepalive: target.keepalives.as_ref().map(keepalive),
            user_timeout: target.tcp_user_timeout,
        }
    }
}

/// What a server may say before it lets us in, in bytes. The driver keeps all notices until then.
const GREETING: usize = 1 << 20;

/// A socket, as the driver wants one.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    /// Whether what answers has not yet proved to be a server that lets us in.
    pre_auth: Arc<AtomicBool>,
    /// What that has to say next.
    next: ExpectedByte,
    /// How many bytes have come.
    bytes_read: usize,
    /// Whether the other side is to close first. libpq does so after a cancel request, and
    /// PgBouncer 1.18 crashes otherwise (pgbouncer issue 801).
    peer_closes_first: bool,
}

/// How a PostgreSQL server begins to talk, byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpectedByte {
    /// Whether it speaks TLS.
    YesOrNo,
    /// Its part of the handshake, or an alert.
    TlsRecord,
    /// An error, a request to log in, a notice, a protocol version.
    Message,
    /// It has begun as one does.
    Anything,
}

impl ExpectedByte {
    /// What comes after this byte, if a PostgreSQL server says it here.
    fn after(self, byte: u8) -> io::Result<ExpectedByte> {
        match (self, byte) {
            (ExpectedByte::YesOrNo, b'S') => Ok(ExpectedByte::TlsRecord),
            (ExpectedByte::YesOrNo, b'N') => Ok(ExpectedByte::Message),
            // Its text is not read: nobody has shown yet who is speaking.
            (ExpectedByte::YesOrNo, b'E') => Err(io::Error::other(TlsError::AnsweredWithError)),
            (ExpectedByte::TlsRecord, 0x15 | 0x16)
            | (ExpectedByte::Message, b'E' | b'R' | b'N' | b'v')
            | (ExpectedByte::Anything, _) => Ok(ExpectedByte::Anything),
            _ => Err(invalid("what answers there is not a PostgreSQL server")),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to this address.
    pub async fn dial(address: &Address, tcp_options: &TcpOptions) -> io::Result<Socket> {
        let transport = match address {
            Address::Tcp(address) => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let options = SockRef::from(&tcp);
                if let Some(keepalive) = &tcp_options.keepalive {
                    options.set_tcp_keepalive(keepalive)?;
                }
                options.set_tcp_user_timeout(tcp_options.user_timeout)?;
                Transport::Tcp(tcp)
            }
            Address::Unix(path) => Transport::Unix(UnixStream::connect(path).await?),
        };
        Ok(Socket {
            transport,
            pre_auth: Arc::new(AtomicBool::new(true)),
            next: ExpectedByte::Message,
            bytes_read: 0,
            peer_closes_first: false,
        })
    }

    /// The same, for one who asks for TLS first.
    pub fn asking_for_tls(self) -> Socket {
        Socket { next: ExpectedByte::YesOrNo, ..self }
    }

    /// The same, for a cancel request, to a server that has let us in before.
    pub fn expecting_peer_to_close(self) -> Socket {
        Socket { peer_closes_first: true, next: ExpectedByte::Anything, ..self }
    }

    /// Whether the other side is to close first.
    pub fn peer_closes_first(&self) -> bool {
        self.peer_closes_first
    }

    /// To be lowered when the server has let us in. Until then it is not taken at its word.
    pub fn pre_auth(&self) -> Arc<AtomicBool> {
        self.pre_auth.clone()
    }

    /// Tells a web server, say, from PostgreSQL, and stops one that never stops talking.
    fn examine(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            if self.next == ExpectedByte::Anything {
                break;
            }
            self.next = self.next.after(*byte)?;
        }
        self.bytes_read = self.bytes_read.saturating_add(bytes.len());
        if self.bytes_read > GREETING {
            return Err(invalid("the server talks without end, and does not let us in"));
        }
        Ok(())
    }
}

/// Waits until the other side has closed.
pub fn poll_closed(mut stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(stream.as_mut().poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Transport::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        })?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if self.pre_auth.load(Ordering::Relaxed) {
            self.examine(new)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Transport::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer_closes_first {
            ready!(poll_closed(self.as_mut(), cx));
        }
        match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::postgres::conninfo;

    #[test]
    fn the_system_is_told_how_a_dead_network_is_noticed_as_the_connection_string_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let seconds = Duration::from_secs;
        for (said, keepalive, user_timeout) in [
            ("", Some((seconds(3), seconds(1), 3)), Some(seconds(10))),
            (
                "keepalives_idle=30 keepalives_interval=5 keepalives_count=4 tcp_user_timeout=1500",
                Some((seconds(30), seconds(5), 4)),
                Some(Duration::from_millis(1500)),
            ),
            ("keepalives=0 tcp_user_timeout=0", None, None),
        ] {
            let text = format!("host=h user=u {said}");
            let target = conninfo::resolve(Some(&text), "text", &|_| None).unwrap();
            let socket =
                runtime.block_on(Socket::dial(&address, &TcpOptions::of(&target))).unwrap();
            let Transport::Tcp(tcp) = &socket.transport else { panic!("{socket:?}") };
            let options = SockRef::from(tcp);
            let set = options.keepalive().unwrap().then(|| {
                (
                    options.tcp_keepalive_time().unwrap(),
                    options.tcp_keepalive_interval().unwrap(),
                    options.tcp_keepalive_retries().unwrap(),
                )
            });
            assert_eq!(set, keepalive, "{said}");
            assert_eq!(options.tcp_user_timeout().unwrap(), user_timeout, "{said}");
        }
    }
}
