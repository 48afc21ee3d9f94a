//! Declaring a topology, and looking for what it only names.

use crate::{
    capability::Capability,
    error::{Error, ErrorKind, Result},
    required,
    topology::{Change, ExchangeKind, ExchangeSpec, Found, QueueKind, QueueSpec, Topology},
    transport::Session,
};

/// Declares everything, or fails with the first thing that cannot be, or is not there.
pub(crate) async fn declare(session: &dyn Session, topology: &Topology) -> Result<()> {
    // Before anything is declared: a program that lacks one thing of its broker leaves nothing behind.
    changes(topology).try_for_each(|change| required::change(session.peer(), &change))?;
    find_named(session, topology).await?;
    for change in changes(topology) {
        session.apply(&change).await.map_err(|error| explained(error, &change))?;
    }
    Ok(())
}

/// Makes one change, if the peer can.
pub(crate) async fn apply(session: &dyn Session, change: &Change) -> Result<Found> {
    required::change(session.peer(), change)?;
    session.apply(change).await
}

/// Looks for what the topology names and does not declare: where it is missing, brokers drop messages and
/// report it to no client.
pub(crate) async fn find_named(session: &dyn Session, topology: &Topology) -> Result<()> {
    for named in named(session, topology) {
        named.find(session).await?;
    }
    Ok(())
}

/// The same on a new connection for what was declared by hand, where no call is to be told.
pub(crate) async fn report_missing(session: &dyn Session, topology: &Topology) {
    for named in named(session, topology) {
        if let Err(error) = named.find(session).await {
            tracing::error!(%error, "missing after a reconnect");
        }
    }
}

/// An exchange or a queue that is named and not declared.
struct Named {
    /// What names it, as an error names that.
    by: String,
    /// What goes there.
    what: &'static str,
    /// How it is looked for.
    look: Change,
}

/// What a topology names and does not declare, each once. What a broker cannot do at all, it refuses by
/// itself.
fn named(session: &dyn Session, topology: &Topology) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    let mut name = |by: String, what, look: Change| {
        if found.iter().all(|named| named.look != look) {
            found.push(Named { by, what, look });
        }
    };
    let exchange = |wanted: &crate::ShortStr| {
        let declared = topology.exchanges().iter().any(|spec| spec.name == *wanted);
        (!wanted.is_empty() && !declared).then(|| {
            // The kind does not matter to those who look by name.
            let mut spec = ExchangeSpec::existing(wanted.clone(), ExchangeKind::Fanout);
            spec.passive = true;
            Change::VerifyExchange(spec)
        })
    };
    let queue = |wanted: &crate::ShortStr| {
        let declared = topology.queues().iter().any(|spec| spec.name == *wanted);
        (!declared).then(|| {
            let mut spec = QueueSpec::named(wanted.clone());
            spec.passive = true;
            Change::VerifyQueue(spec)
        })
    };
    if session.peer().can(Capability::AlternateExchanges) {
        for spec in topology.exchanges().iter().filter(|spec| !spec.passive) {
            if let Some(look) = spec.alternate.as_ref().and_then(exchange) {
                name(spec.subject(), "what it cannot route goes", look);
            }
        }
    }
    if session.peer().can(Capability::DeadLetterRejected) {
        for spec in topology.queues().iter().filter(|spec| !spec.passive) {
            let look = spec.dead_letter.as_ref().and_then(|target| {
                if target.exchange.is_empty() {
                    target.routing_key.as_ref().and_then(queue)
                } else {
                    exchange(&target.exchange)
                }
            });
            if let Some(look) = look {
                name(spec.subject(), "its dead letters go", look);
            }
        }
    }
    found
}

impl Named {
    async fn find(&self, session: &dyn Session) -> Result<()> {
        let Err(error) = session.apply(&self.look).await else { return Ok(()) };
        let target = match &self.look {
            Change::VerifyExchange(spec) => spec.subject(),
            Change::VerifyQueue(spec) => spec.subject(),
            _ => return Err(error),
        };
        match error.kind() {
            ErrorKind::NotFound if !error.is_transient() => {
                Err(Error::new(ErrorKind::NotFound, "declare")
                    .on(self.by.clone())
                    .because(format!("{} to {target}, which does not exist", self.what))
                    .remedy("declare it before, or in the same topology")
                    .caused_by(error))
            }
            // It is there, and another connection's.
            ErrorKind::Conflict => Ok(()),
            // The broker took the name when the queue was declared, perhaps from another user.
            ErrorKind::Denied | ErrorKind::Unsupported => {
                tracing::warn!(
                    by = %self.by, %target, %error,
                    "whether there is a place where {} cannot be found out", self.what
                );
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// In an order that works: what is bound exists before its bindings.
pub(crate) fn changes(topology: &Topology) -> impl Iterator<Item = Change> {
    let exchanges = topology.exchanges().iter().map(|spec| match spec.passive {
        true => Change::VerifyExchange(spec.clone()),
        false => Change::DeclareExchange(spec.clone()),
    });
    let queues = topology.queues().iter().map(|spec| match spec.passive {
        true => Change::VerifyQueue(spec.clone()),
        false => Change::DeclareQueue(spec.clone()),
    });
    let bindings = topology.bindings().iter().cloned().map(Change::Bind);
    exchanges.chain(queues).chain(bindings)
}

/// A replicated queue that others declared has a delivery limit of the broker's, and its messages may be
/// worth more than its arguments: there is a way to keep both.
///
/// Another program declares what is passive here, so this program may not know why it is missing.
fn explained(error: Error, change: &Change) -> Error {
    match change {
        Change::VerifyQueue(_) | Change::VerifyExchange(_)
            if error.kind() == ErrorKind::NotFound =>
        {
            error.remedy(
                "it is `passive` here: start what declares it first, or declare it here, too",
            )
        }
        Change::DeclareQueue(spec)
            if error.kind() == ErrorKind::Conflict
                && spec.kind == QueueKind::Replicated
                && spec.delivery_limit.is_none()
                && error.to_string().contains("x-delivery-limit") =>
        {
            error.remedy(
                "delete it on the broker and declare it again; or keep it, use it as `passive`, and \
                 set the policy delivery-limit -1 for it on the broker, which else removes messages \
                 that fail",
            )
        }
        _ => error,
    }
}
