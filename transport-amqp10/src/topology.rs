//! Exchanges, queues and bindings: a change goes to the broker's own kind of management.

mod artemis;
pub(crate) mod rabbitmq;

use enoki_core::{
    Capability, Destination, Error, ErrorKind, Result, ShortStr,
    transport::{Change, Found},
};

use crate::{
    connections::Connections,
    error::{exchange_subject, queue_subject},
    management::manager::Manager,
    peer,
};

/// Makes one change.
pub(crate) async fn apply(connections: &Connections, change: &Change) -> Result<Found> {
    let manager = Manager::new(connections, connections.connection_for(queue_of(change)));
    if peer::is_artemis(connections.peer()) {
        return artemis::apply(&manager, change).await;
    }
    if !connections.peer().can(Capability::Queues) {
        return unmanaged(&manager, change);
    }
    match change {
        Change::DeclareQueue(spec) if spec.exclusive => {
            let place = connections.place_for(&spec.name, "declare", &spec.subject()).await?;
            let manager = Manager::new(connections, place.connection.clone());
            let found = rabbitmq::apply(&manager, change).await?;
            connections.set_declared(spec.name.clone(), place);
            Ok(found)
        }
        Change::DeleteQueue(name) => {
            let found = rabbitmq::apply(&manager, change).await?;
            connections.set_deleted(name);
            Ok(found)
        }
        _ => rabbitmq::apply(&manager, change).await,
    }
}

/// The queue that a change is made to.
fn queue_of(change: &Change) -> Option<&ShortStr> {
    match change {
        Change::DeclareQueue(spec) | Change::VerifyQueue(spec) => Some(&spec.name),
        Change::DeleteQueue(name) | Change::PurgeQueue(name) => Some(name),
        Change::Bind(spec) | Change::Unbind(spec) => match &spec.destination {
            Destination::Queue(name) => Some(name),
            Destination::Exchange(_) => None,
        },
        _ => None,
    }
}

/// The answer for a broker that takes no declarations. The default exchange is how every queue is reached by
/// its name, so it exists; nothing else is known to exist.
fn unmanaged(manager: &Manager<'_>, change: &Change) -> Result<Found> {
    let (operation, subject) = match change {
        Change::DeclareExchange(spec) | Change::VerifyExchange(spec) if spec.name.is_empty() => {
            return Ok(Found::default());
        }
        Change::DeclareExchange(spec) => ("declare", spec.subject()),
        Change::VerifyExchange(spec) => ("verify", spec.subject()),
        Change::DeleteExchange(name) => ("delete", exchange_subject(name)),
        Change::DeclareQueue(spec) => ("declare", spec.subject()),
        Change::VerifyQueue(spec) => ("verify", spec.subject()),
        Change::DeleteQueue(name) => ("delete", queue_subject(name)),
        Change::PurgeQueue(name) => ("purge", queue_subject(name)),
        Change::Bind(spec) => ("bind", spec.subject()),
        Change::Unbind(spec) => ("unbind", spec.subject()),
        _ => ("change", "the topology".to_owned()),
    };
    Err(Error::new(ErrorKind::Unsupported, operation)
        .on(subject)
        .because(format!("{} takes no declarations over AMQP 1.0", manager.peer()))
        .remedy("declare on the broker what is used there"))
}
