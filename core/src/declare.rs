//! Declaring a topology.

use crate::{
    error::{Error, ErrorKind, Result},
    topology::{QueueKind, Topology},
    transport::{Change, Session},
};

/// Declares everything, or fails with the first thing that cannot be.
pub(crate) async fn declare(session: &dyn Session, topology: &Topology) -> Result<()> {
    for change in changes(topology) {
        session.apply(&change).await.map_err(|error| explained(error, &change))?;
    }
    Ok(())
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
fn explained(error: Error, change: &Change) -> Error {
    match change {
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
