//! From rustls' errors to those of the toolkit: kind, reason and remedy.

use std::{borrow::Cow, io};

use enoki_core::{Error, ErrorKind};

/// Why TLS failed, without the operation.
#[derive(Debug)]
pub(crate) struct TlsFailure {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    remedy: &'static str,
}

impl TlsFailure {
    #[cfg(feature = "tls")]
    fn new(kind: ErrorKind, reason: impl Into<Cow<'static, str>>, remedy: &'static str) -> Self {
        Self { kind, reason: reason.into(), remedy }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        // Trying again does not make a certificate valid.
        let error = Error::new(self.kind, operation).because(self.reason).transient(false);
        if self.remedy.is_empty() { error } else { error.remedy(self.remedy) }
    }
}

#[cfg(not(feature = "tls"))]
pub(crate) fn explain(_: &io::Error) -> Option<TlsFailure> {
    None
}

#[cfg(feature = "tls")]
pub(crate) fn explain(error: &io::Error) -> Option<TlsFailure> {
    use tokio_rustls::rustls::Error as Tls;

    let error = error.get_ref()?.downcast_ref::<Tls>()?;
    Some(match error {
        Tls::InvalidCertificate(error) => certificate(error),
        Tls::AlertReceived(alert) => alert_received(*alert),
        Tls::InvalidMessage(_) => TlsFailure::new(
            ErrorKind::Unsupported,
            "the peer does not speak TLS",
            "use the port for TLS, which is 5671 by default",
        ),
        Tls::PeerIncompatible(error) => TlsFailure::new(
            ErrorKind::Unsupported,
            format!("no version and cipher of TLS is known to both sides: {error:?}"),
            "TLS 1.2 or 1.3 is needed",
        ),
        other => TlsFailure::new(ErrorKind::Connection, format!("TLS failed: {other}"), ""),
    })
}

/// The fault of the broker's certificate.
#[cfg(feature = "tls")]
fn certificate(error: &tokio_rustls::rustls::CertificateError) -> TlsFailure {
    use tokio_rustls::rustls::CertificateError as Certificate;

    let (reason, remedy) = match error {
        // The signature is bad if the authority has the name of a trusted one, and another key.
        Certificate::UnknownIssuer | Certificate::BadSignature => (
            "the broker's certificate is from an authority that is not trusted".into(),
            "give the authority's certificate to Tls::trust_only",
        ),
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            ("the broker's certificate has expired".into(), "")
        }
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            ("the broker's certificate is not valid yet".into(), "check the clock of this machine")
        }
        Certificate::NotValidForNameContext { expected, presented } => (
            format!(
                "the broker's certificate is not for {}, but for {}",
                expected.to_str(),
                presented.join(", ")
            )
            .into(),
            "connect by a name that it is for",
        ),
        Certificate::NotValidForName => (
            "the broker's certificate is for another name".into(),
            "connect by a name that it is for",
        ),
        other => (format!("the broker's certificate is not accepted: {other}").into(), ""),
    };
    TlsFailure { kind: ErrorKind::Connection, reason, remedy }
}

/// The fault that the broker reports by an alert (RFC 8446 §6.2).
#[cfg(feature = "tls")]
fn alert_received(alert: tokio_rustls::rustls::AlertDescription) -> TlsFailure {
    use tokio_rustls::rustls::AlertDescription as Alert;

    const GIVE_A_CERTIFICATE: &str = "give one to Tls::client_certificate";
    match alert {
        Alert::CertificateRequired => TlsFailure::new(
            ErrorKind::Denied,
            "the broker asks for a certificate",
            GIVE_A_CERTIFICATE,
        ),
        Alert::UnknownCA
        | Alert::DecryptError
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::AccessDenied => TlsFailure::new(
            ErrorKind::Denied,
            format!("the broker does not accept this side's certificate: {alert:?}"),
            "use one that is valid and from an authority that the broker trusts",
        ),
        Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::HandshakeFailure => {
            TlsFailure::new(
                ErrorKind::Unsupported,
                format!("no version and cipher of TLS is known to both sides: {alert:?}"),
                "TLS 1.2 or 1.3 is needed",
            )
        }
        alert => TlsFailure::new(
            ErrorKind::Connection,
            format!("the broker ended the TLS handshake: {alert:?}"),
            "",
        ),
    }
}
