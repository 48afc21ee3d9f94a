//! Bindings to make.

use super::{ExchangeKind, ExchangeSpec, pattern};
use crate::{
    error::{Error, ErrorKind, Result},
    message::value::Table,
    short_str::ShortStr,
};

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(ShortStr),
    /// Another exchange.
    Exchange(ShortStr),
}

/// A binding to make: messages of the source that match go to the destination.
///
/// ```
/// use enoki_core::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec};
///
/// let (shop, billing) = (ExchangeSpec::new("shop", ExchangeKind::Topic)?, QueueSpec::new("billing")?);
/// let binding = BindingSpec::new(&shop, Destination::Queue(billing.name), "order.*")?;
/// assert_eq!(binding.key, "order.*");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BindingSpec {
    /// The exchange that messages come from.
    pub source: ShortStr,
    /// Where they go.
    pub destination: Destination,
    /// The key or pattern to match; empty where the kind of exchange reads none.
    pub key: ShortStr,
    /// What the headers have to match, with `x-match`; and arguments for plugins.
    pub arguments: Table,
}

impl BindingSpec {
    /// A binding by key or pattern, whatever the source's kind calls it.
    ///
    /// A key on a fanout or headers exchange is a configuration error: they would ignore it. So is a
    /// pattern with more than two words `#`: RabbitMQ takes no more.
    pub fn new(
        source: &ExchangeSpec,
        destination: Destination,
        key: impl Into<String>,
    ) -> Result<Self> {
        let key = ShortStr::named("binding key", key)?;
        if !key.is_empty() && matches!(source.kind, ExchangeKind::Fanout | ExchangeKind::Headers) {
            return Err(Error::new(ErrorKind::Configuration, "bind")
                .on(source.subject())
                .because(format!(
                    "a {} exchange does not read the key {:?}",
                    source.kind,
                    key.as_str()
                ))
                .remedy("leave the key empty"));
        }
        if source.kind == ExchangeKind::Topic && pattern::has_too_many_hashes(&key) {
            return Err(Error::new(ErrorKind::Configuration, "bind")
                .on(source.subject())
                .because(format!("{:?} has more; {}", key.as_str(), pattern::TOO_MANY_HASHES))
                .remedy("bind by several patterns"));
        }
        Ok(Self { source: source.name.clone(), destination, key, arguments: Table::new() })
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        let destination = match &self.destination {
            Destination::Queue(name) => format!("queue {:?}", name.as_str()),
            Destination::Exchange(name) => format!("exchange {:?}", name.as_str()),
        };
        format!("{destination} to exchange {:?} by {:?}", self.source.as_str(), self.key.as_str())
    }
}
