//! TCP and TLS for enoki's transports that use sockets.
//!
//! A [`Connector`] is made of what the URL and the program say, and opens sockets: plain ones, or
//! encrypted ones (rustls, TLS 1.2 and 1.3) where the URL asks for TLS. Without the feature `tls` it
//! refuses such URLs, before anything is sent.

// No deadline overflows, and no task ends unseen: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::disallowed_methods))]

mod dial;
mod error;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::{fmt, io};

#[cfg(not(feature = "tls"))]
use enoki_core::ErrorKind;
use enoki_core::{Error, Result, Tls, transport::Endpoint};
use tokio::net::lookup_host;

pub use self::stream::Stream;

/// The way to a broker's socket.
#[derive(Clone)]
pub struct Connector {
    host: String,
    port: u16,
    #[cfg(feature = "tls")]
    tls: Option<tls::Client>,
}

impl Connector {
    /// Reads the certificates that it takes. Nothing is sent yet.
    ///
    /// Fails with [`Unsupported`](enoki_core::ErrorKind::Unsupported) for an endpoint that asks for TLS in
    /// a build that has none, and with [`Configuration`](enoki_core::ErrorKind::Configuration) for
    /// certificates that cannot be used. Warns of what anybody on the way could read, or pretend to be.
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
                "any certificate is accepted, so whoever answers is taken for the broker"
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

    /// Opens a socket, to the first address of the host that answers, and agrees on encryption where
    /// the URL asks for it. Calls back in between, once somebody has answered.
    pub async fn connect(&self, answered: impl FnOnce()) -> io::Result<Stream> {
        let socket = dial::dial(lookup_host((&*self.host, self.port)).await?).await?;
        // A request of some ten bytes must not wait for the answer to the one before it.
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

/// The error behind one of a socket's, if TLS is the reason, on connecting or later: brokers look at a
/// certificate after the handshake is over. It names no subject.
pub fn tls_error(error: &io::Error, operation: &'static str) -> Option<Error> {
    error::explain(error).map(|trouble| trouble.into_error(operation))
}
