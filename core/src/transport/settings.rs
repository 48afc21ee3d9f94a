//! What a transport has to know besides the URL.

use crate::{message::Limits, tls::Tls};

/// What a transport has to know besides the URL: [`BrokerOptions`](crate::BrokerOptions) has it from
/// the program.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Settings {
    /// How large messages may be.
    pub limits: Limits,
    /// Whom to trust, where the URL asks for TLS.
    pub tls: Tls,
    /// How to log in.
    pub login: Login,
}

/// How a program says who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Login {
    /// By the user name and password of the URL (SASL PLAIN).
    #[default]
    Password,
    /// By the certificate that [`Tls::client_certificate`] shows (SASL EXTERNAL). The broker has to be
    /// set up for it. The URL then has no password.
    External,
}
