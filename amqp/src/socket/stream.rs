//! A socket, encrypted or not.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A socket, encrypted or not. An encrypted one may hold written bytes until it is flushed.
pub struct Stream(Kind);

enum Kind {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Encrypted(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self(Kind::Plain(socket))
    }
}

#[cfg(feature = "tls")]
impl Stream {
    pub(crate) fn encrypted(socket: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Self(Kind::Encrypted(Box::new(socket)))
    }
}

/// Calls a method of the plain or the encrypted socket.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.get_mut().0 {
            Kind::Plain(socket) => Pin::new(socket).$method($($argument),*),
            #[cfg(feature = "tls")]
            Kind::Encrypted(socket) => Pin::new(&mut **socket).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match delegate!(self.poll_read(cx, buf)) {
            // Brokers close the socket without TLS's close_notify (RFC 8446 §6.1). It is safe to take that
            // for the end: AMQP says itself when it is complete.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.is_write_vectored(),
            #[cfg(feature = "tls")]
            Kind::Encrypted(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plain(_) => "Stream(plain)",
            #[cfg(feature = "tls")]
            Kind::Encrypted(_) => "Stream(encrypted)",
        })
    }
}
