//! What the driver keeps to itself of the handshake: the backend's process number.
//!
//! It stands in every cancel request, so one is written, to nowhere, and read.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// How a cancel request begins: its length, 16, and its code, 80877102. The process number follows.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];

/// The process number that this token would cancel.
pub(super) async fn handshake_pid(token: &CancelToken) -> Option<i32> {
    let mut written = Vec::new();
    token.cancel_query_raw(CaptureStream(&mut written), PlaintextTls).await.ok()?;
    let at = written.windows(CANCEL_REQUEST.len()).position(|bytes| bytes == CANCEL_REQUEST)?;
    let pid = written.get(at + CANCEL_REQUEST.len()..)?.first_chunk()?;
    Some(i32::from_be_bytes(*pid))
}

/// Keeps what is written, and says yes to TLS.
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

/// What is written stays readable.
struct PlaintextTls;

impl<'w> TlsConnect<CaptureStream<'w>> for PlaintextTls {
    type Stream = CaptureStream<'w>;
    type Error = Infallible;
    type Future = Ready<Result<CaptureStream<'w>, Infallible>>;

    fn connect(self, nowhere: CaptureStream<'w>) -> Self::Future {
        ready(Ok(nowhere))
    }
}
