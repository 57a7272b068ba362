//! TLS, made ready only when the server has said yes to it.
//!
//! Building a connector loads OpenSSL's roots, which costs 35 ms; the driver asks for the
//! handshake only after the server's `S`, and that is when it is built.

mod certificate;
mod material;
mod trouble;

pub use certificate::Certificate;
pub use material::CARRIED_ROOTS;
pub use trouble::{Fault, TlsTrouble, Unverified};

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use material::Roots;
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
    /// What to trust, if not the well-known roots.
    pub roots: Option<RootCert>,
    /// What we identify ourselves with.
    pub identity: Option<ClientCert>,
    /// Raised when the handshake is done.
    pub agreed: Arc<AtomicBool>,
}

impl Tls {
    async fn handshake(self, wire: Wire) -> Result<Encrypted, TlsTrouble> {
        let mut builder = native_tls::TlsConnector::builder();
        builder.danger_accept_invalid_hostnames(self.mode != SslMode::VerifyFull);
        let trusted = if self.verifies() {
            let roots = Roots::of(self.roots.as_ref())?;
            let name = roots.name().to_owned();
            if let Roots::Only(roots, _) = roots {
                builder.disable_built_in_roots(true);
                for root in roots {
                    builder.add_root_certificate(root);
                }
            }
            name
        } else {
            // libpq's meaning: encrypted, and not verified.
            builder.danger_accept_invalid_certs(true);
            String::new()
        };
        if let Some(given) = &self.identity
            && let Some(identity) = material::identity(given)?
        {
            builder.identity(identity);
        }
        let connector = builder.build().map_err(|error| match &self.identity {
            Some(given) => TlsTrouble::Unusable {
                parameter: "sslkey",
                place: given.key.to_string(),
                why: "does not belong to the certificate of sslcert".to_owned(),
            },
            None => TlsTrouble::Handshake(error.to_string()),
        })?;
        let closes_second = wire.closes_second();
        let connector = postgres_native_tls::TlsConnector::new(connector, &self.host);
        let stream = connector.connect(wire).await;
        let stream =
            stream.map_err(|error| TlsTrouble::of_handshake(&error, &self.host, &trusted))?;
        self.agreed.store(true, Ordering::Relaxed);
        Ok(Encrypted { stream, closes_second })
    }

    fn verifies(&self) -> bool {
        match (self.mode, &self.roots) {
            (SslMode::VerifyCa | SslMode::VerifyFull, _) => true,
            (SslMode::Require, Some(RootCert::IfThere(path))) => path.exists(),
            _ => false,
        }
    }
}

type Handshake<T> = Pin<Box<dyn Future<Output = Result<T, TlsTrouble>> + Send>>;

impl TlsConnect<Wire> for Tls {
    type Stream = Encrypted;
    type Error = TlsTrouble;
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
