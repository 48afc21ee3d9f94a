//! Exchanges to declare.

use std::fmt;

use super::{Topology, check_declarable, check_raw};
use crate::{error::Result, message::value::Table, short_str::ShortStr};

/// Where messages are published: a name, a kind, and what this kind routes by.
///
/// The toolkit's own are [`Direct`](crate::Direct), [`Fanout`](crate::Fanout), [`Topic`](crate::Topic),
/// [`Headers`](crate::Headers) and [`Plugin`](crate::Plugin), for
/// constants, and [`ExchangeSpec`], for run time. Implement it for an exchange of your own making.
pub trait Exchange: fmt::Debug + Send + Sync {
    /// What to declare.
    fn spec(&self) -> ExchangeSpec;

    /// Adds this exchange to a topology, with what it needs: the exchanges it is bound to.
    fn describe(&self, topology: &mut Topology) {
        topology.add_exchange(self.spec());
    }
}

impl Exchange for ExchangeSpec {
    fn spec(&self) -> ExchangeSpec {
        self.clone()
    }
}

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// To the queues bound with exactly the routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// To the queues whose pattern matches the routing key.
    Topic,
    /// To the queues whose binding arguments match the headers.
    Headers,
    /// By a plugin of the broker, under the plugin's name for it: `x-consistent-hash`.
    Plugin(ShortStr),
}

impl ExchangeKind {
    /// The name of the kind on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Plugin(name) => name,
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An exchange to declare: durable and open to publishers unless said otherwise.
///
/// ```
/// use enoki_core::{ExchangeKind, ExchangeSpec};
///
/// let shop = ExchangeSpec::new("shop", ExchangeKind::Topic)?;
/// assert!(shop.durable);
/// assert!(ExchangeSpec::new("amq.mine", ExchangeKind::Topic).is_err());
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExchangeSpec {
    /// The name; empty for the default exchange, which is never declared.
    pub name: ShortStr,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// Whether it must be there already: it is looked for by name, and never created.
    pub passive: bool,
    /// The exchange that gets what this one cannot route. It is declared in the same
    /// [`Topology`](crate::Topology), or has to be there.
    pub alternate: Option<ShortStr>,
    /// Further arguments, as the broker names them. One that has a field here is refused.
    pub arguments: Table,
}

/// The arguments that have a typed form, and what says so.
pub(crate) const TYPED_ARGUMENTS: &[(&str, &str)] =
    &[("alternate-exchange", "alternate-exchange is said by alternate")];

impl ExchangeSpec {
    /// A durable exchange. The name has 1 to 255 bytes and does not begin with `amq.`.
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Result<Self> {
        let name = ShortStr::named("exchange", name)?;
        check_declarable("exchange", &name)?;
        Ok(Self::existing(name, kind))
    }

    /// An exchange that the broker brings along: the default exchange (the empty name), `amq.topic`.
    pub fn existing(name: ShortStr, kind: ExchangeKind) -> Self {
        Self {
            name,
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            passive: false,
            alternate: None,
            arguments: Table::new(),
        }
    }

    /// The exchange that routes to the queue named by the routing key.
    pub fn default_exchange() -> Self {
        Self::existing(ShortStr::EMPTY, ExchangeKind::Direct)
    }

    /// Whether the broker has it from the start, so that it is never declared.
    pub fn is_predeclared(&self) -> bool {
        self.name.is_empty() || self.name.starts_with("amq.")
    }

    /// Refuses an argument that has a field.
    pub(crate) fn check(&self) -> Result<()> {
        check_raw(&self.arguments, TYPED_ARGUMENTS, self.subject())
    }

    /// All arguments as the broker gets them, the alternate exchange among them.
    pub fn wire_arguments(&self) -> Table {
        let mut arguments = self.arguments.clone();
        if let Some(alternate) = &self.alternate {
            arguments.set(ShortStr::from_static("alternate-exchange"), alternate.clone());
        }
        arguments
    }

    /// How an error names it.
    pub fn subject(&self) -> String {
        format!("exchange {:?}", self.name.as_str())
    }
}
