//! TLS, made ready only when the server has said yes to it.
//!
//! Building a connector loads OpenSSL's roots, which costs 35 ms; the driver asks for the
//! handshake only after the server's `S`, and that is when it is built.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::conninfo::{ClientCert, RootCert, SslMode};
use crate::wire::{self, Wire};

/// How to speak TLS with one host.
#[derive(Clone, Debug)]
pub struct Tls {
    /// libpq's `sslmode`: what is verified.
    pub mode: SslMode,
    /// The name that the certificate must bear, and that is sent as SNI.
    pub host: String,
    /// What to trust, if not the system's roots.
    pub roots: Option<RootCert>,
    /// What we identify ourselves with.
    pub identity: Option<ClientCert>,
}

/// The handshake failed, with OpenSSL's words.
#[derive(Debug)]
pub struct TlsFailure(String);

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsFailure {}

impl Tls {
    async fn handshake(self, wire: Wire) -> Result<Encrypted, TlsFailure> {
        let failed = |error: native_tls::Error| TlsFailure(error.to_string());
        let mut builder = native_tls::TlsConnector::builder();
        match self.mode {
            SslMode::VerifyFull => {}
            SslMode::VerifyCa => {
                builder.danger_accept_invalid_hostnames(true);
            }
            // libpq's meaning: encrypted, and not verified.
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => {
                builder.danger_accept_invalid_hostnames(true);
                builder.danger_accept_invalid_certs(true);
            }
        }
        if let Some(RootCert::File(path)) = &self.roots {
            builder.disable_built_in_roots(true);
            for root in native_tls::Certificate::stack_from_pem(&read(path)?).map_err(failed)? {
                builder.add_root_certificate(root);
            }
        }
        if let Some(ClientCert { cert, key }) = &self.identity {
            let identity = native_tls::Identity::from_pkcs8(&read(cert)?, &read(key)?);
            builder.identity(identity.map_err(failed)?);
        }
        let connector = builder.build().map_err(failed)?;
        let closes_second = wire.closes_second();
        let connector = postgres_native_tls::TlsConnector::new(connector, &self.host);
        let stream = connector.connect(wire).await.map_err(failed)?;
        Ok(Encrypted { stream, closes_second })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFailure> {
    std::fs::read(path).map_err(|error| TlsFailure(format!("{}: {error}", path.display())))
}

type Handshake<T> = Pin<Box<dyn Future<Output = Result<T, TlsFailure>> + Send>>;

impl TlsConnect<Wire> for Tls {
    type Stream = Encrypted;
    type Error = TlsFailure;
    type Future = Handshake<Self::Stream>;

    fn connect(self, wire: Wire) -> Self::Future {
        Box::pin(self.handshake(wire))
    }
}

/// A wire with TLS on it.
pub struct Encrypted {
    stream: postgres_native_tls::TlsStream<Wire>,
    closes_second: bool,
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closes_second {
            ready!(wire::poll_closed(Pin::new(&mut self.stream), cx));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}
