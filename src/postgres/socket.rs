//! The socket under a connection: TCP with keepalives, or a Unix socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::postgres::conninfo::{Keepalives, TcpOptions};
use crate::postgres::error::ConnectionError;
use crate::postgres::tls::TlsError;

/// Where a server listens; host names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The most that a server may send before the login is complete, since the driver keeps all notices
/// until then.
const MAX_PRE_AUTH_BYTES: usize = 1 << 20;

/// A socket, as the driver wants one.
#[derive(Debug)]
pub struct Socket {
    transport: Box<dyn Transport>,
    /// Whether the login is not complete yet.
    pre_auth: Arc<AtomicBool>,
    /// Whether the server's first byte answers a TLS request.
    asks_for_tls: bool,
    bytes_read: usize,
    /// libpq waits for the server to close after a cancel request, and PgBouncer 1.18 crashes
    /// otherwise (pgbouncer issue 801).
    peer_closes_first: bool,
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl Transport for TcpStream {}
impl Transport for UnixStream {}

impl Socket {
    pub async fn dial(address: &Address, tcp_options: TcpOptions) -> io::Result<Socket> {
        let transport: Box<dyn Transport> = match address {
            Address::Tcp(address) => Box::new(dial_tcp(address, tcp_options).await?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(Socket {
            transport,
            pre_auth: Arc::new(AtomicBool::new(true)),
            asks_for_tls: false,
            bytes_read: 0,
            peer_closes_first: false,
        })
    }

    /// For a connection that begins with a TLS request.
    pub fn asking_for_tls(self) -> Socket {
        Socket { asks_for_tls: true, ..self }
    }

    /// For a cancel request, to a server that has let us in before.
    pub fn expecting_peer_to_close(self) -> Socket {
        Socket { peer_closes_first: true, pre_auth: Arc::default(), ..self }
    }

    pub fn peer_closes_first(&self) -> bool {
        self.peer_closes_first
    }

    /// A flag to clear when the login is complete. Until then, what the peer sends is checked.
    pub fn pre_auth(&self) -> Arc<AtomicBool> {
        self.pre_auth.clone()
    }

    /// Rejects peers that are not PostgreSQL servers, and endless output before the login.
    fn check_pre_auth(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        if let (0, Some(first)) = (self.bytes_read, bytes.first()) {
            match (self.asks_for_tls, first) {
                // Its text is not read, since the server is not authenticated.
                (true, b'E') => return Err(TlsError::AnsweredWithError.into()),
                // Yes or no to TLS; else an error, an authentication request, a notice, or the
                // protocol versions that the server knows.
                (true, b'S' | b'N') | (false, b'E' | b'R' | b'N' | b'v') => {}
                _ => return Err(ConnectionError::NotPostgres),
            }
        }
        self.bytes_read = self.bytes_read.saturating_add(bytes.len());
        if self.bytes_read > MAX_PRE_AUTH_BYTES {
            let reason =
                format!("the server sent more than {MAX_PRE_AUTH_BYTES} bytes before login");
            return Err(ConnectionError::Protocol(reason));
        }
        Ok(())
    }
}

async fn dial_tcp(address: &SocketAddr, tcp_options: TcpOptions) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let options = SockRef::from(&tcp);
    if let Some(keepalives) = tcp_options.keepalives {
        options.set_tcp_keepalive(&tcp_keepalive(keepalives))?;
    }
    // As libpq does, it is ignored where the system has no such option.
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(tcp_options.user_timeout)?;
    Ok(tcp)
}

fn tcp_keepalive(Keepalives { idle, interval, count }: Keepalives) -> TcpKeepalive {
    let mut options = TcpKeepalive::new();
    if let Some(idle) = idle {
        options = options.with_time(idle);
    }
    if let Some(interval) = interval {
        options = options.with_interval(interval);
    }
    if let Some(count) = count {
        options = options.with_retries(count);
    }
    options
}

/// Waits until the peer has closed the connection.
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
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if self.pre_auth.load(Ordering::Relaxed) {
            self.check_pre_auth(new)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
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
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer_closes_first {
            ready!(poll_closed(self.as_mut(), cx));
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::postgres::conninfo;

    #[test]
    fn keepalives_and_the_user_timeout_are_set_as_the_connection_string_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let seconds = Duration::from_secs;
        for (params, keepalive, user_timeout) in [
            ("", Some((seconds(3), seconds(1), 3)), Some(seconds(10))),
            (
                "keepalives_idle=30 keepalives_interval=5 keepalives_count=4 tcp_user_timeout=1500",
                Some((seconds(30), seconds(5), 4)),
                Some(Duration::from_millis(1500)),
            ),
            ("keepalives=0 tcp_user_timeout=0", None, None),
        ] {
            let text = format!("host=h user=u {params}");
            let target = conninfo::resolve(Some(&text), "text", &|_| None).unwrap();
            let tcp = runtime.block_on(dial_tcp(&address, target.tcp)).unwrap();
            let options = SockRef::from(&tcp);
            let set = options.keepalive().unwrap().then(|| {
                (
                    options.tcp_keepalive_time().unwrap(),
                    options.tcp_keepalive_interval().unwrap(),
                    options.tcp_keepalive_retries().unwrap(),
                )
            });
            assert_eq!(set, keepalive, "{params}");
            #[cfg(target_os = "linux")]
            assert_eq!(options.tcp_user_timeout().unwrap(), user_timeout, "{params}");
        }
    }
}
