//! The process ID of the backend, which the driver does not give out. It is part of every cancel
//! request, so that one is written into memory, and read from there.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The start of a cancel request: its length, 16, and its code, 80877102. The process ID follows.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];

pub(super) async fn handshake_pid(token: &CancelToken) -> Option<i32> {
    let mut written = Vec::new();
    token.cancel_query_raw(CaptureStream(&mut written), PlaintextTls).await.ok()?;
    let start = written.windows(CANCEL_REQUEST.len()).position(|bytes| bytes == CANCEL_REQUEST)?;
    let pid = written.get(start + CANCEL_REQUEST.len()..)?.first_chunk()?;
    Some(i32::from_be_bytes(*pid))
}

/// Keeps what is written, and accepts TLS.
struct CaptureStream<'w>(&'w mut Vec<u8>);

impl AsyncRead for CaptureStream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(b"S".get(..buffer.remaining()).unwrap_or(b"S"));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CaptureStream<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for CaptureStream<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// TLS without encryption, so that what is written stays readable.
struct PlaintextTls;

impl<'w> TlsConnect<CaptureStream<'w>> for PlaintextTls {
    type Stream = CaptureStream<'w>;
    type Error = Infallible;
    type Future = Ready<Result<CaptureStream<'w>, Infallible>>;

    fn connect(self, stream: CaptureStream<'w>) -> Self::Future {
        ready(Ok(stream))
    }
}
