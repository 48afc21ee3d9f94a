//! Real brokers that listen with TLS, too, and what a client brings along.

use std::{fs, path::PathBuf};

use enoki::broker::Tls;

use crate::{Broker, Checked, given};

/// How a broker is reached by TLS.
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Its URL, with the login of guest.
    pub url: String,
    files: PathBuf,
}

impl Broker {
    /// The variable of its URL for AMQP 0-9-1 with TLS. Beside it, with `_FILES` at its end, is the
    /// folder with `ca.pem`, and `guest.pem` and `guest.key` for a login by certificate.
    pub fn tls_variable(&self) -> String {
        format!("{}_TLS", self.variable)
    }

    /// How it is reached by this scheme with TLS, if it is.
    pub fn encrypted(&self, scheme: &str) -> Option<Encrypted> {
        let url = given(&self.tls_variable())?.replacen("amqp091", scheme, 1);
        let files = given(&format!("{}_FILES", self.tls_variable()))?.into();
        Some(Encrypted { url, files })
    }
}

impl Encrypted {
    /// The same without user and password.
    pub fn without_login(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or_default();
        format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest))
    }

    /// Trusts the broker's authority.
    pub fn trusting(&self) -> Checked<Tls> {
        Ok(Tls::new().trust_only(self.read("ca.pem")?))
    }

    /// Trusts the broker's authority, and shows the certificate of guest.
    pub fn as_guest(&self) -> Checked<Tls> {
        Ok(self.trusting()?.client_certificate(self.read("guest.pem")?, self.read("guest.key")?))
    }

    fn read(&self, name: &str) -> Checked<String> {
        let path = self.files.join(name);
        Ok(fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?)
    }
}
