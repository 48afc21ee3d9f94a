//! A server with a certificate, and behind it a real broker or a script.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use enoki_interop::Checked;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use crate::authority::Identity;

/// An encrypted connection, as the server has it.
pub(crate) type Encrypted = TlsStream<TcpStream>;

/// A server with a certificate.
#[derive(Clone)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
}

impl Server {
    /// Shows this certificate, and asks for one of this authority's, if there is one.
    pub(crate) fn new(identity: &Identity, clients: Option<&str>) -> Checked<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        Ok(Self { config: Arc::new(builder.with_single_cert(chain, key)?) })
    }

    /// Listens, and does this with each connection once it is encrypted. Where it listens, and how many
    /// got so far.
    pub(crate) async fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        address: &str,
        then: impl Fn(Encrypted) -> F + Clone + Send + Sync + 'static,
    ) -> Checked<(SocketAddr, Arc<AtomicUsize>)> {
        let listener = TcpListener::bind((address, 0)).await?;
        let here = listener.local_addr()?;
        let encrypted = Arc::<AtomicUsize>::default();
        let count = encrypted.clone();
        let acceptor = TlsAcceptor::from(self.config);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, count, then) = (acceptor.clone(), count.clone(), then.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        then(stream).await;
                    }
                });
            }
        });
        Ok((here, encrypted))
    }

    /// A way to this broker.
    pub(crate) async fn before(
        self,
        broker: String,
        address: &str,
    ) -> Checked<(SocketAddr, Arc<AtomicUsize>)> {
        self.serve(address, move |mut near| {
            let broker = broker.clone();
            async move {
                if let Ok(mut far) = TcpStream::connect(broker).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            }
        })
        .await
    }
}

/// Says nothing, and waits until the other side goes.
pub(crate) async fn hold(mut stream: Encrypted) {
    let mut byte = [0; 64];
    while let Ok(1..) = stream.read(&mut byte).await {}
}

/// Listens, and answers each connection with these bytes, not encrypted, whatever came. Where it
/// listens, and what came.
pub(crate) async fn blurt(bytes: impl Into<Vec<u8>>) -> Checked<(SocketAddr, Arc<Mutex<Vec<u8>>>)> {
    let bytes = bytes.into();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let here = listener.local_addr()?;
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let hears = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (bytes, hears) = (bytes.clone(), hears.clone());
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let count = socket.read(&mut some).await.unwrap_or_default();
                hear(&hears, some.get(..count).unwrap_or_default());
                let _ = socket.write_all(&bytes).await;
                // It says no more, and listens on.
                let _ = socket.shutdown().await;
                while let Ok(count @ 1..) = socket.read(&mut some).await {
                    hear(&hears, some.get(..count).unwrap_or_default());
                }
            });
        }
    });
    Ok((here, heard))
}

fn hear(heard: &Mutex<Vec<u8>>, bytes: &[u8]) {
    heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
}
