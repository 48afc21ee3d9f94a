//! One table from rustls' errors to ours.

use std::{borrow::Cow, io};

use enoki_core::{Error, ErrorKind};

/// Why TLS failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    remedy: &'static str,
}

impl Trouble {
    #[cfg(feature = "tls")]
    fn new(kind: ErrorKind, reason: impl Into<Cow<'static, str>>, remedy: &'static str) -> Self {
        Self { kind, reason: reason.into(), remedy }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        // Nothing that time would mend.
        let error = Error::new(self.kind, operation).because(self.reason).transient(false);
        if self.remedy.is_empty() { error } else { error.remedy(self.remedy) }
    }
}

#[cfg(not(feature = "tls"))]
pub(crate) fn explain(_: &io::Error) -> Option<Trouble> {
    None
}

#[cfg(feature = "tls")]
pub(crate) fn explain(error: &io::Error) -> Option<Trouble> {
    use tokio_rustls::rustls::Error as Tls;

    let error = error.get_ref()?.downcast_ref::<Tls>()?;
    Some(match error {
        Tls::InvalidCertificate(error) => certificate(error),
        Tls::AlertReceived(alert) => told(*alert),
        Tls::InvalidMessage(_) => Trouble::new(
            ErrorKind::Unsupported,
            "what answers does not speak TLS",
            "is this the port without TLS? The port of TLS is mostly 5671",
        ),
        Tls::PeerIncompatible(error) => Trouble::new(
            ErrorKind::Unsupported,
            format!("no version and cipher of TLS is known to both sides: {error:?}"),
            "TLS 1.2 or 1.3 is needed",
        ),
        other => Trouble::new(ErrorKind::Connection, format!("TLS failed: {other}"), ""),
    })
}

/// What is wrong with the broker's certificate.
#[cfg(feature = "tls")]
fn certificate(error: &tokio_rustls::rustls::CertificateError) -> Trouble {
    use tokio_rustls::rustls::CertificateError as Certificate;

    let (reason, remedy) = match error {
        // And a signature by another authority that has the same name.
        Certificate::UnknownIssuer | Certificate::BadSignature => (
            "the broker's certificate is from an authority that is not trusted".into(),
            "give the authority's certificate to Tls::trust_only",
        ),
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            ("the broker's certificate has expired".into(), "")
        }
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            ("the broker's certificate is not valid yet".into(), "is the clock right?")
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
    Trouble { kind: ErrorKind::Connection, reason, remedy }
}

/// What the broker says is wrong.
#[cfg(feature = "tls")]
fn told(alert: tokio_rustls::rustls::AlertDescription) -> Trouble {
    use tokio_rustls::rustls::AlertDescription as Alert;

    const GIVE_ONE: &str = "give one to Tls::client_certificate";
    match alert {
        Alert::CertificateRequired => {
            Trouble::new(ErrorKind::Denied, "the broker asks for a certificate", GIVE_ONE)
        }
        Alert::UnknownCA
        | Alert::DecryptError
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::AccessDenied => Trouble::new(
            ErrorKind::Denied,
            format!("the broker does not accept this side's certificate: {alert:?}"),
            "show one that is valid and from an authority that the broker trusts",
        ),
        Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::HandshakeFailure => {
            Trouble::new(
                ErrorKind::Unsupported,
                format!("no version and cipher of TLS is known to both sides: {alert:?}"),
                "TLS 1.2 or 1.3 is needed",
            )
        }
        alert => Trouble::new(
            ErrorKind::Connection,
            format!("the broker refused to go on with TLS: {alert:?}"),
            "",
        ),
    }
}
