//! TLS. The connector is built only after the server has accepted TLS, since loading OpenSSL's roots
//! takes 35 ms.

mod certificate;
mod error;
mod roots;

pub use certificate::Certificate;
pub use error::{TlsError, Unverified, VerifyError};
pub use roots::BUILT_IN_ROOTS;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use roots::Roots;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::postgres::conninfo::{ClientCert, RootCert, SslMode};
use crate::postgres::error::ConnectionError;
use crate::postgres::relay::Relay;
use crate::postgres::socket::{self, Socket};

/// TLS with one host.
#[derive(Clone, Debug)]
pub struct Tls {
    pub mode: SslMode,
    /// Compared with the names in the certificate, and sent as SNI.
    pub host: String,
    /// Instead of the system's roots.
    pub roots: Option<RootCert>,
    pub identity: Option<ClientCert>,
    /// Set once the handshake has succeeded.
    pub agreed: Arc<AtomicBool>,
}

impl Tls {
    async fn handshake(self, socket: Socket) -> Result<EncryptedStream, ConnectionError> {
        let mut builder = native_tls::TlsConnector::builder();
        builder.danger_accept_invalid_hostnames(self.mode != SslMode::VerifyFull);
        let trusted_roots = if self.verifies() {
            let Roots { certificates, description } = Roots::of(self.roots.as_ref())?;
            if let Some(certificates) = certificates {
                builder.disable_built_in_roots(true);
                for certificate in certificates {
                    builder.add_root_certificate(certificate);
                }
            }
            description
        } else {
            // As in libpq: encrypted, but not verified.
            builder.danger_accept_invalid_certs(true);
            String::new()
        };
        if let Some(given) = &self.identity
            && let Some(identity) = roots::identity(given)?
        {
            builder.identity(identity);
        }
        let connector = builder.build().map_err(|error| match &self.identity {
            Some(given) => TlsError::Unusable {
                parameter: "sslcert",
                source: given.cert.to_string(),
                problem: format!("is not accepted ({})", error::reason(&error)),
            },
            None => TlsError::Handshake(error.to_string()),
        })?;
        let peer_closes_first = socket.peer_closes_first();
        let connector = postgres_native_tls::TlsConnector::new(connector, &self.host);
        let stream = connector.connect(socket).await;
        let stream = stream
            .map_err(|error| ConnectionError::of_handshake(&error, &self.host, &trusted_roots))?;
        self.agreed.store(true, Ordering::Relaxed);
        Ok(EncryptedStream { stream, write_error: None, peer_closes_first })
    }

    fn verifies(&self) -> bool {
        match (self.mode, &self.roots) {
            (SslMode::VerifyCa | SslMode::VerifyFull, _) => true,
            (SslMode::Require, Some(RootCert::DefaultFile(path))) => path.exists(),
            _ => false,
        }
    }
}

impl TlsConnect<Relay<Socket>> for Tls {
    type Stream = Relay<EncryptedStream>;
    type Error = ConnectionError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, ConnectionError>> + Send>>;

    fn connect(self, relay: Relay<Socket>) -> Self::Future {
        let (socket, awaited) = relay.into_parts();
        Box::pin(async { Ok(Relay::new(self.handshake(socket).await?, awaited, false)) })
    }
}

/// A socket with TLS.
pub struct EncryptedStream {
    stream: postgres_native_tls::TlsStream<Socket>,
    /// The error of the last write, until the peer's reason for it is read.
    write_error: Option<io::Error>,
    peer_closes_first: bool,
}

impl EncryptedStream {
    /// The alert that the peer sent before it closed the connection: under TLS 1.3, a server verifies
    /// our certificate when the handshake is complete for us, and we are writing already.
    fn poll_alert(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Error>> {
        let mut bytes = [0; 64];
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut bytes));
        let is_alert = |error: &io::Error| {
            ConnectionError::of_io(error)
                .is_some_and(|error| !matches!(error, ConnectionError::Tls(TlsError::Cut(_))))
        };
        Poll::Ready(ready!(read).err().filter(is_alert))
    }
}

impl AsyncRead for EncryptedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for EncryptedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let error = match self.write_error.take() {
            Some(error) => error,
            None => match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => error,
            },
        };
        match self.poll_alert(cx) {
            Poll::Ready(alert) => Poll::Ready(Err(alert.unwrap_or(error))),
            Poll::Pending => {
                self.write_error = Some(error);
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer_closes_first {
            ready!(socket::poll_closed(Pin::new(&mut self.stream), cx));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for EncryptedStream {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
    use openssl::x509::X509;
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::postgres::conninfo;
    use crate::postgres::socket::Address;

    /// The error of a write to a server that resets the connection once the handshake is complete for
    /// it.
    fn write_error_after(verify: SslVerifyMode) -> ConnectionError {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut certificate = X509::builder().unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls()).unwrap();
        acceptor.set_certificate(&certificate.build()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_verify(verify);
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"S").unwrap();
            SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            let _ = acceptor.accept(client);
        });
        let target = conninfo::resolve(Some("host=db.test user=u"), "text", &|_| None).unwrap();
        let tls = Tls {
            mode: SslMode::Require,
            host: "db.test".to_owned(),
            roots: None,
            identity: None,
            agreed: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let failure = runtime.block_on(async {
            let socket = Socket::dial(&address, target.tcp).await.unwrap();
            let mut socket = socket.asking_for_tls();
            assert_eq!(socket.read_u8().await.unwrap(), b'S');
            let mut encrypted = tls.handshake(socket).await.unwrap();
            server.join().unwrap();
            encrypted.write_all(b"hello").await.unwrap_err()
        });
        ConnectionError::of_io(&failure).unwrap_or_else(|| panic!("{failure:?}"))
    }

    #[test]
    fn a_failed_write_reports_the_alert_that_the_server_sent_before() {
        let requires_a_certificate = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        let error = write_error_after(requires_a_certificate);
        let wanted = matches!(error, ConnectionError::Tls(TlsError::CertificateWanted(_)));
        assert!(wanted, "{error:?}");
    }

    #[test]
    fn a_reset_of_the_connection_is_not_an_error_of_tls() {
        let error = write_error_after(SslVerifyMode::NONE);
        let reset = std::io::Error::from_raw_os_error(104).to_string();
        assert_eq!(error, ConnectionError::Tls(TlsError::Cut(reset)));
    }
}
