//! Declaring a topology.

use crate::{
    error::Result,
    topology::Topology,
    transport::{Change, Session},
};

/// Declares in an order that works: what is bound exists before its bindings.
pub(crate) async fn declare(session: &dyn Session, topology: &Topology) -> Result<()> {
    let exchanges = topology.exchanges().iter().map(|spec| match spec.passive {
        true => Change::VerifyExchange(spec.clone()),
        false => Change::DeclareExchange(spec.clone()),
    });
    let queues = topology.queues().iter().map(|spec| match spec.passive {
        true => Change::VerifyQueue(spec.clone()),
        false => Change::DeclareQueue(spec.clone()),
    });
    let bindings = topology.bindings().iter().cloned().map(Change::Bind);
    for change in exchanges.chain(queues).chain(bindings) {
        session.apply(&change).await?;
    }
    Ok(())
}
