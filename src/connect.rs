//! From a URL to a broker.

use std::sync::Arc;

use enoki_core::{Broker, BrokerOptions, BrokerUrl, Error, ErrorKind, Result, Transport};

/// Reaches the broker that a URL names: `memory:`, `memory://name`, `memory://name?as=rabbitmq-4.0`,
/// `amqp091://user:password@host:port/vhost`, or `amqp10://` and the same; with TLS `amqp091s://` and
/// `amqp10s://`.
///
/// Fails with [`ErrorKind::Configuration`] for a URL that makes no sense,
/// [`ErrorKind::Unsupported`] for a transport that this build does not have, and otherwise like
/// [`Broker::connect`]. Plain `amqp://` is refused: AMQP 0-9-1 and AMQP 1.0 both claim it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> enoki::Result<()> {
/// let broker = enoki::connect("memory://readme").await?;
/// println!("reached {}", broker.peer());
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: impl AsRef<str>) -> Result<Broker> {
    connect_with(url, BrokerOptions::default()).await
}

/// Like [`connect`], with options.
pub async fn connect_with(url: impl AsRef<str>, options: BrokerOptions) -> Result<Broker> {
    let url = BrokerUrl::parse(url.as_ref())?;
    let transport = transport(&url, &options)?;
    Broker::connect_with(transport, options).await
}

fn transport(url: &BrokerUrl, options: &BrokerOptions) -> Result<Arc<dyn Transport>> {
    // The memory transport needs none of the options: it has no TLS and no logins.
    #[cfg(not(any(feature = "amqp091", feature = "amqp10")))]
    let _ = options;
    match url.scheme() {
        #[cfg(feature = "memory")]
        "memory" => Ok(Arc::new(enoki_transport_memory::MemoryTransport::new(url)?)),
        #[cfg(feature = "amqp091")]
        "amqp091" | "amqp091s" => {
            use enoki_transport_amqp091::Amqp091Transport;
            Ok(Arc::new(Amqp091Transport::with_settings(url, &options.settings())?))
        }
        #[cfg(feature = "amqp10")]
        "amqp10" | "amqp10s" => {
            use enoki_transport_amqp10::Amqp10Transport;
            Ok(Arc::new(Amqp10Transport::with_settings(url, &options.settings())?))
        }
        #[cfg(not(feature = "memory"))]
        "memory" => Err(not_in_this_build(url, "memory")),
        #[cfg(not(feature = "amqp091"))]
        "amqp091" | "amqp091s" => Err(not_in_this_build(url, "amqp091")),
        #[cfg(not(feature = "amqp10"))]
        "amqp10" | "amqp10s" => Err(not_in_this_build(url, "amqp10")),
        "amqp" => Err(ambiguous(url, "amqp091://", "amqp10://")),
        "amqps" => Err(ambiguous(url, "amqp091s://", "amqp10s://")),
        other => Err(Error::new(ErrorKind::Configuration, "connect")
            .on(url.to_string())
            .because(format!("the scheme {other:?} is unknown"))
            .remedy("use memory:, amqp091:// or amqp10://")),
    }
}

#[cfg(not(all(feature = "memory", feature = "amqp091", feature = "amqp10")))]
fn not_in_this_build(url: &BrokerUrl, feature: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "connect")
        .on(url.to_string())
        .because(format!("this program was built without the feature {feature:?} of enoki"))
        .remedy(format!("build with `--features {feature}`"))
}

fn ambiguous(url: &BrokerUrl, old: &str, new: &str) -> Error {
    Error::new(ErrorKind::Configuration, "connect")
        .on(url.to_string())
        .because("both AMQP 0-9-1 and AMQP 1.0 claim this scheme")
        .remedy(format!("write {old} or {new}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error(url: &str) -> Error {
        connect(url).await.unwrap_err()
    }

    #[tokio::test]
    async fn plain_amqp_is_refused_with_both_spellings_named() {
        let error = error("amqp://shop:CANARY@localhost").await;
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(text.contains("amqp091://") && text.contains("amqp10://"), "{text}");
        assert!(!format!("{error:?} {text}").contains("CANARY"), "{error:?}");
    }

    /// `dev/test` builds it so; the workspace as a whole has TLS.
    #[cfg(all(not(feature = "tls"), any(feature = "amqp091", feature = "amqp10")))]
    #[tokio::test]
    async fn without_tls_what_asks_for_it_is_refused_before_a_byte_is_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        for scheme in ["amqp091s", "amqp10s"] {
            let error = error(&format!("{scheme}://shop:CANARY@{address}")).await;
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let built = cfg!(all(feature = "amqp091", feature = "amqp10"));
            assert!(!built || error.to_string().contains("feature `tls`"), "{error}");
            assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
            let connection = listener.accept().expect_err("a connection was opened");
            assert_eq!(connection.kind(), std::io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_with_the_known_ones_named() {
        let error = error("http://localhost").await;
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("\"http\""), "{error}");
    }

    #[tokio::test]
    async fn a_transport_that_is_not_built_in_is_unsupported() {
        #[cfg(not(feature = "amqp10"))]
        {
            let error = error("amqp10://localhost").await;
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("--features amqp10"), "{error}");
        }
        #[cfg(not(feature = "amqp091"))]
        {
            let error = error("amqp091://localhost").await;
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("--features amqp091"), "{error}");
        }
        #[cfg(not(feature = "memory"))]
        assert_eq!(error("memory:").await.kind(), ErrorKind::Unsupported);
    }
}
