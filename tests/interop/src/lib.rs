//! What tests across transports and brokers share: where the brokers are, and what it means that
//! one is missing.

pub mod encrypted;
pub mod example;
pub mod neutral;

use libtest_mimic::{Completion, Failed};

/// What comes of a step in a test: whatever went wrong is told.
pub type Checked<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The variable that names the interpreter which has the clients in Python.
pub const PYTHON: &str = "ENOKI_PYTHON";

/// A real broker, where an environment variable says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broker {
    /// As `dev/brokers` calls it.
    pub name: &'static str,
    /// The variable; its URL is for AMQP 0-9-1, and one port speaks both protocols.
    pub variable: &'static str,
}

/// Speaks AMQP 0-9-1 alone, as far as this toolkit goes.
pub const RABBITMQ_3: Broker = Broker::named("rabbitmq-3", "ENOKI_RABBITMQ_3");
/// Speaks both protocols.
pub const RABBITMQ_4: Broker = Broker::named("rabbitmq-4", "ENOKI_RABBITMQ_4");
/// Speaks both protocols, and counts attempts as this toolkit does.
pub const RABBITMQ_4_3: Broker = Broker::named("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3");

impl Broker {
    const fn named(name: &'static str, variable: &'static str) -> Self {
        Self { name, variable }
    }

    /// Its URL for this scheme, if it is there.
    pub fn url(&self, scheme: &str) -> Option<String> {
        let url = given(self.variable)?;
        Some(url.replacen("amqp091", scheme, 1))
    }
}

/// The variable's content, if it has any.
pub fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|content| !content.is_empty())
}

/// What comes of a test that has nothing to run with: ignored, and with `ENOKI_REQUIRE_BROKERS=1` a
/// failure.
pub fn without(variable: &str) -> Result<Completion, Failed> {
    if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1") {
        return Err(format!("{variable} is not set, and ENOKI_REQUIRE_BROKERS=1").into());
    }
    Ok(Completion::ignored_with(format!("needs {variable}")))
}
