//! TCP and TLS: opens sockets to one broker.

mod dial;
mod error;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::{fmt, io};

#[cfg(not(feature = "tls"))]
use enoki_core::ErrorKind;
use enoki_core::{Error, Result, Tls};
use tokio::net::lookup_host;

pub use self::stream::Stream;
use crate::endpoint::Endpoint;

/// Opens sockets to one broker.
#[derive(Clone)]
pub struct Connector {
    host: String,
    port: u16,
    #[cfg(feature = "tls")]
    tls: Option<tls::Client>,
}

impl Connector {
    /// Reads the certificates and the key. Nothing is sent yet.
    ///
    /// Fails with [`Unsupported`](enoki_core::ErrorKind::Unsupported) for an endpoint that asks for TLS in a
    /// build that has none, and with [`Configuration`](enoki_core::ErrorKind::Configuration) for certificates
    /// that cannot be used. Logs a warning if the password would go over a network unencrypted, or if any
    /// certificate is accepted.
    pub fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self> {
        if endpoint.exposes_password() {
            tracing::warn!(
                broker = endpoint.subject(),
                "the password goes over the network in the clear: use a URL with TLS"
            );
        }
        if endpoint.encrypted && tls.accepts_any_certificate() {
            tracing::warn!(
                broker = endpoint.subject(),
                "any certificate is accepted, so any peer that answers is taken for the broker"
            );
        }
        #[cfg(not(feature = "tls"))]
        if endpoint.encrypted {
            return Err(Error::new(ErrorKind::Unsupported, "connect to")
                .on(endpoint.subject())
                .because("TLS is not compiled in, so nothing is sent")
                .remedy("build with the feature `tls`"));
        }
        Ok(Self {
            host: endpoint.host.clone(),
            port: endpoint.port,
            #[cfg(feature = "tls")]
            tls: endpoint.encrypted.then(|| tls::Client::new(&endpoint.host, tls)).transpose()?,
        })
    }

    /// Opens a socket to the first address of the host that answers, calls `answered`, and then agrees on
    /// encryption where the URL asks for it.
    ///
    /// Cancel safe: a future that is dropped leaves no socket behind. The caller limits the time.
    pub async fn connect(&self, answered: impl FnOnce()) -> io::Result<Stream> {
        let socket = dial::dial(lookup_host((&*self.host, self.port)).await?).await?;
        // Nagle's algorithm would hold back a small frame until the one before it is acknowledged.
        socket.set_nodelay(true)?;
        answered();
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(socket).await;
        }
        Ok(socket.into())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The error to report for an error of a socket, if TLS is the reason. It can come on connecting, and later:
/// brokers check a client's certificate after the handshake is over. The error names no subject; the caller
/// adds it.
pub fn tls_error(error: &io::Error, operation: &'static str) -> Option<Error> {
    error::explain(error).map(|failure| failure.into_error(operation))
}
