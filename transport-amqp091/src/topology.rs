//! Changes of exchanges, queues and bindings: each is one request, or two where it is verified first.

use enoki_core::{
    BindingSpec, Destination, ErrorKind, ExchangeKind, ExchangeSpec, QueueDeclaration, QueueSpec,
    Result, ShortStr,
    transport::{Change, Found},
};
use lapin::{
    Channel,
    options::{
        ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};

use crate::{
    connection::Connection,
    error::{exchange_subject, queue_subject},
    headers::outgoing::{short, table_out},
};

/// Makes one change.
pub(crate) async fn apply(connection: &Connection, change: &Change) -> Result<Found> {
    match change {
        Change::DeclareExchange(spec) => declare_exchange(connection, spec).await?,
        Change::VerifyExchange(spec) => verify_exchange(connection, spec).await?,
        Change::DeleteExchange(name) => delete_exchange(connection, name).await?,
        Change::DeclareQueue(spec) => return declare_queue(connection, "declare", spec).await,
        Change::VerifyQueue(spec) => return verify_queue(connection, spec).await,
        Change::DeleteQueue(name) => return delete_queue(connection, name).await,
        Change::PurgeQueue(name) => return purge_queue(connection, name).await,
        Change::Bind(spec) => bind(connection, spec).await?,
        Change::Unbind(spec) => unbind(connection, spec).await?,
        other => {
            return Err(enoki_core::Error::new(ErrorKind::Unsupported, "change the topology")
                .because(format!("this transport does not know {other:?}")));
        }
    }
    Ok(Found::default())
}

async fn declare_exchange(connection: &Connection, spec: &ExchangeSpec) -> Result<()> {
    if spec.is_predeclared() {
        return Ok(());
    }
    active_exchange(connection, "declare", spec).await
}

/// Declares it passively first, so that a missing one is not created, and then compares it by declaring it.
async fn verify_exchange(connection: &Connection, spec: &ExchangeSpec) -> Result<()> {
    if spec.name.is_empty() {
        return Ok(());
    }
    let (name, kind) = (short(&spec.name)?, kind(&spec.kind));
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    connection
        .request("verify", &spec.subject(), async |channel| {
            channel.exchange_declare(name, kind, options, FieldTable::default()).await
        })
        .await?;
    if spec.is_predeclared() || spec.passive {
        return Ok(());
    }
    active_exchange(connection, "verify", spec).await
}

async fn active_exchange(
    connection: &Connection,
    operation: &'static str,
    spec: &ExchangeSpec,
) -> Result<()> {
    let (name, kind) = (short(&spec.name)?, kind(&spec.kind));
    let arguments = table_out(&spec.wire_arguments())?;
    let options = ExchangeDeclareOptions {
        durable: spec.durable,
        auto_delete: spec.auto_delete,
        internal: spec.internal,
        ..Default::default()
    };
    let declare =
        async |channel: &Channel| channel.exchange_declare(name, kind, options, arguments).await;
    match &spec.kind {
        // RabbitMQ answers a kind that it does not know by closing the connection. So the request gets a connection of its
        // own.
        ExchangeKind::Plugin(plugin) => {
            let declared = connection.request_apart(operation, &spec.subject(), declare).await;
            declared.map_err(|error| match error.kind() {
                ErrorKind::Unsupported => error.remedy(format!(
                    "enable the plugin for {:?} on the broker ({})",
                    plugin.as_str(),
                    connection.options().subject()
                )),
                _ => error,
            })
        }
        _ => connection.request(operation, &spec.subject(), declare).await,
    }
}

async fn delete_exchange(connection: &Connection, name: &ShortStr) -> Result<()> {
    let subject = exchange_subject(name);
    let name = short(name)?;
    let deleted = connection
        .request("delete", &subject, async |channel| {
            channel.exchange_delete(name, Default::default()).await
        })
        .await;
    or_missing(deleted)
}

async fn declare_queue(
    connection: &Connection,
    operation: &'static str,
    spec: &QueueSpec,
) -> Result<Found> {
    let name = short(&spec.name)?;
    let QueueDeclaration { durable, exclusive, auto_delete, arguments } = spec.declaration();
    let arguments = table_out(&arguments)?;
    let options = QueueDeclareOptions { durable, exclusive, auto_delete, ..Default::default() };
    let declare = async |channel: &Channel| channel.queue_declare(name, options, arguments).await;
    // A broker without transient queues answers by closing the connection (RabbitMQ 4.3).
    let declared = if spec.durable || spec.exclusive {
        connection.request(operation, &spec.subject(), declare).await
    } else {
        connection.request_apart(operation, &spec.subject(), declare).await
    };
    declared.map(found)
}

/// Declares it passively first, so that a missing one is not created, and then compares it by declaring it.
async fn verify_queue(connection: &Connection, spec: &QueueSpec) -> Result<Found> {
    let name = short(&spec.name)?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let there = connection
        .request("verify", &spec.subject(), async |channel| {
            channel.queue_declare(name, options, FieldTable::default()).await
        })
        .await?;
    if spec.passive {
        return Ok(found(there));
    }
    declare_queue(connection, "verify", spec).await
}

async fn delete_queue(connection: &Connection, name: &ShortStr) -> Result<Found> {
    let subject = queue_subject(name);
    let name = short(name)?;
    let deleted = connection
        .request("delete", &subject, async |channel| {
            channel.queue_delete(name, Default::default()).await
        })
        .await;
    or_missing(deleted).map(messages)
}

async fn purge_queue(connection: &Connection, name: &ShortStr) -> Result<Found> {
    let subject = queue_subject(name);
    let name = short(name)?;
    connection
        .request("purge", &subject, async |channel| {
            channel.queue_purge(name, Default::default()).await
        })
        .await
        .map(messages)
}

async fn bind(connection: &Connection, spec: &BindingSpec) -> Result<()> {
    let (source, key) = (short(&spec.source)?, short(&spec.key)?);
    let arguments = table_out(&spec.arguments)?;
    let to = destination(&spec.destination)?;
    connection
        .request("bind", &spec.subject(), async |channel| match &spec.destination {
            Destination::Queue(_) => {
                let options = QueueBindOptions::default();
                channel.queue_bind(to, source, key, options, arguments).await
            }
            Destination::Exchange(_) => {
                let options = ExchangeBindOptions::default();
                channel.exchange_bind(to, source, key, options, arguments).await
            }
        })
        .await
}

async fn unbind(connection: &Connection, spec: &BindingSpec) -> Result<()> {
    let (source, key) = (short(&spec.source)?, short(&spec.key)?);
    let arguments = table_out(&spec.arguments)?;
    let from = destination(&spec.destination)?;
    let unbound = connection
        .request("unbind", &spec.subject(), async |channel| match &spec.destination {
            Destination::Queue(_) => channel.queue_unbind(from, source, key, arguments).await,
            Destination::Exchange(_) => {
                let options = ExchangeUnbindOptions::default();
                channel.exchange_unbind(from, source, key, options, arguments).await
            }
        })
        .await;
    or_missing(unbound)
}

fn destination(destination: &Destination) -> Result<lapin::types::ShortString> {
    match destination {
        Destination::Queue(name) | Destination::Exchange(name) => short(name),
    }
}

fn kind(kind: &ExchangeKind) -> lapin::ExchangeKind {
    match kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Headers => lapin::ExchangeKind::Headers,
        other => lapin::ExchangeKind::Custom(other.as_str().to_owned()),
    }
}

fn found(queue: lapin::Queue) -> Found {
    Found { messages: queue.message_count().into(), consumers: queue.consumer_count() }
}

fn messages(count: u32) -> Found {
    Found { messages: count.into(), ..Found::default() }
}

/// An object that does not exist counts as removed. RabbitMQ answers so itself; other brokers answer 404.
fn or_missing<T: Default>(removed: Result<T>) -> Result<T> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        removed => removed,
    }
}
