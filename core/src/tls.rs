//! Whom an encrypted connection trusts, and what it shows of itself.

use std::fmt;

use crate::url::Secret;

/// Whom an encrypted connection trusts, and what it shows of itself: for URLs that ask for TLS, with
/// an `s` behind the scheme. Others it does not concern.
///
/// A broker has to show a certificate for the host of the URL, which is valid now, from an authority
/// that is trusted: the platform's, unless [`trust_only`](Self::trust_only) names others.
///
/// ```
/// use enoki_core::{BrokerOptions, Tls};
///
/// let authority = "-----BEGIN CERTIFICATE-----…"; // as it is in the file ca.pem
/// let options = BrokerOptions::new().tls(Tls::new().trust_only(authority));
/// # let _ = options;
/// ```
///
/// What is given is read once, when the handle is made: a renewed certificate takes a new handle. Debug
/// shows no key.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Option<String>,
    certificate: Option<(String, Secret)>,
    accepts_any: bool,
}

impl Tls {
    /// The defaults: the platform's authorities, and no certificate of our own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities whose certificates these are, in PEM, and no others.
    #[must_use]
    pub fn trust_only(mut self, authorities: impl Into<String>) -> Self {
        self.authorities = Some(authorities.into());
        self
    }

    /// Shows a certificate to brokers that ask for one: it and what lies between it and its authority,
    /// in PEM, and its private key, in PEM.
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain: impl Into<String>,
        private_key: impl Into<String>,
    ) -> Self {
        self.certificate = Some((chain.into(), Secret::new(private_key)));
        self
    }

    /// Accepts whatever certificate the broker shows. Any machine between here and the broker can then
    /// read and change everything, the password first: for trials on one machine.
    #[must_use]
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.accepts_any = true;
        self
    }

    /// The only authorities to trust, in PEM; the platform's when `None`.
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    /// The certificate to show and its key, both in PEM.
    pub fn certificate(&self) -> Option<(&str, &Secret)> {
        self.certificate.as_ref().map(|(chain, key)| (chain.as_str(), key))
    }

    /// Whether any certificate of the broker will do.
    pub fn accepts_any_certificate(&self) -> bool {
        self.accepts_any
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.as_ref().map_or("the platform's", |_| "given"))
            .field("certificate", &self.certificate.is_some())
            .field("accepts_any", &self.accepts_any)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let tls = Tls::new().client_certificate("CHAIN", "CANARY").trust_only("AUTHORITY");
        let shown = format!("{tls:?}");
        assert!(!shown.contains("CANARY") && shown.contains("given"), "{shown}");
        assert_eq!(tls.certificate().map(|(_, key)| key.reveal()), Some("CANARY"));
    }
}
