//! Declaring a topology.

use crate::{
    error::Result,
    topology::Topology,
    transport::{Change, Session},
};

/// Declares everything, or fails with the first thing that cannot be.
pub(crate) async fn declare(session: &dyn Session, topology: &Topology) -> Result<()> {
    for change in changes(topology) {
        session.apply(&change).await?;
    }
    Ok(())
}

/// Declares what was declared before. One thing that cannot be any more keeps nothing else back.
pub(crate) async fn declare_again(session: &dyn Session, topology: &Topology) {
    for change in changes(topology) {
        if let Err(error) = session.apply(&change).await {
            tracing::error!(%error, "not declared again after a reconnect");
        }
    }
}

/// In an order that works: what is bound exists before its bindings.
fn changes(topology: &Topology) -> impl Iterator<Item = Change> {
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
