//! Exchanges, queues and bindings of RabbitMQ: one change is one request or two.

use enoki_core::{
    BindingSpec, Capability, Destination, Error, ErrorKind, ExchangeKind, ExchangeSpec,
    QueueDeclaration, QueueSpec, Result, ShortStr, Table, Value,
    transport::{Change, Found},
};
use fe2o3_amqp::{Sender, types::definitions::SenderSettleMode};
use futures_util::FutureExt;

use crate::{
    address::{self, segment},
    connections::Connections,
    error::{exchange_subject, queue_subject},
    management::{
        manager::Manager,
        rabbitmq::{Answer, Request, request},
    },
};

/// Makes one change.
pub(super) async fn apply(manager: &Manager<'_>, change: &Change) -> Result<Found> {
    match change {
        Change::DeclareExchange(spec) if spec.is_predeclared() => Ok(Found::default()),
        Change::DeclareExchange(spec) => put_exchange(manager, "declare", spec).await,
        Change::VerifyExchange(spec) => verify_exchange(manager, spec).await,
        Change::DeleteExchange(name) => delete_exchange(manager, name).await,
        Change::DeclareQueue(spec) => put_queue(manager, "declare", spec).await,
        Change::VerifyQueue(spec) => verify_queue(manager, spec).await,
        Change::DeleteQueue(name) => delete_queue(manager, name).await,
        Change::PurgeQueue(name) => purge_queue(manager, name).await,
        Change::Bind(spec) => bind(manager, spec).await,
        Change::Unbind(spec) => unbind(manager, spec).await,
        other => Err(Error::new(ErrorKind::Unsupported, "change the topology")
            .because(format!("this transport does not know {other:?}"))),
    }
}

/// Whether the queue can requeue messages for later. Replicated queues of RabbitMQ 4.3 can; only the broker
/// knows which queues are replicated. If it does not answer, the queue cannot.
pub(crate) async fn delays(connections: &Connections, queue: &ShortStr) -> bool {
    if !connections.peer().can(Capability::ReplicatedDelayedRequeue) {
        return false;
    }
    let (subject, path) = (queue_subject(queue), address::queue(queue));
    let manager = Manager::new(connections, connections.connection_for(Some(queue)));
    let asked = ask(&manager, "consume from", &subject, "GET", &path, None).await;
    let kind = asked.ok().and_then(|answer| answer.text_of("type"));
    kind.as_deref() == Some("quorum")
}

async fn put_exchange(
    manager: &Manager<'_>,
    operation: &'static str,
    spec: &ExchangeSpec,
) -> Result<Found> {
    let body: Table = [
        (name("type"), Value::from(spec.kind.as_str())),
        (name("durable"), spec.durable.into()),
        (name("auto_delete"), spec.auto_delete.into()),
        (name("internal"), spec.internal.into()),
        (name("arguments"), spec.wire_arguments().into()),
    ]
    .into_iter()
    .collect();
    let path = address::exchange(&spec.name);
    let put = ask(manager, operation, &spec.subject(), "PUT", &path, Some(&body)).await;
    match (put, &spec.kind) {
        (Ok(_), _) => Ok(Found::default()),
        (Err(error), ExchangeKind::Plugin(plugin)) if error.kind() == ErrorKind::Unsupported => {
            Err(error.remedy(format!(
                "enable the plugin for {:?} on the broker ({})",
                plugin.as_str(),
                manager.connections().options().subject()
            )))
        }
        (Err(error), _) => Err(error),
    }
}

/// Looks whether the exchange exists, so that it is not created here, then compares by declaring it.
async fn verify_exchange(manager: &Manager<'_>, spec: &ExchangeSpec) -> Result<Found> {
    if spec.name.is_empty() {
        return Ok(Found::default());
    }
    probe_exchange(manager, spec).await?;
    if spec.is_predeclared() || spec.passive {
        return Ok(Found::default());
    }
    put_exchange(manager, "verify", spec).await
}

/// The management node cannot be asked for an exchange, but a link to one that does not exist is refused. The
/// link has an AMQP session of its own, since RabbitMQ before 4.2 ends the session with the link.
async fn probe_exchange(manager: &Manager<'_>, spec: &ExchangeSpec) -> Result<()> {
    let subject = spec.subject();
    let connections = manager.connections();
    let session = connections.session("verify", &subject).await?;
    let builder = Sender::builder()
        .name(connections.link_name("probe"))
        .target(address::exchange(&spec.name))
        .sender_settle_mode(SenderSettleMode::Unsettled);
    let attached = connections
        .attach("verify", &subject, session, |handle| builder.attach(handle).boxed())
        .await;
    match attached {
        Ok((link, mut session)) => {
            if connections.answered("verify", &subject, link.close()).await.is_ok() {
                session.mark_reusable();
            }
            Ok(())
        }
        // Only exchanges may publish to it, so it exists.
        Err(error) if error.to_string().contains("internal exchange") => Ok(()),
        Err(error) => Err(error),
    }
}

async fn delete_exchange(manager: &Manager<'_>, name: &ShortStr) -> Result<Found> {
    let path = address::exchange(name);
    or_missing(ask(manager, "delete", &exchange_subject(name), "DELETE", &path, None).await)
}

async fn put_queue(
    manager: &Manager<'_>,
    operation: &'static str,
    spec: &QueueSpec,
) -> Result<Found> {
    let QueueDeclaration { durable, exclusive, auto_delete, arguments } = spec.declaration();
    let body: Table = [
        (name("durable"), Value::from(durable)),
        (name("exclusive"), exclusive.into()),
        (name("auto_delete"), auto_delete.into()),
        (name("arguments"), arguments.into()),
    ]
    .into_iter()
    .collect();
    let path = address::queue(&spec.name);
    let answer = ask(manager, operation, &spec.subject(), "PUT", &path, Some(&body)).await?;
    Ok(found(&answer))
}

/// Looks whether the queue exists, so that it is not created here, then compares by declaring it.
async fn verify_queue(manager: &Manager<'_>, spec: &QueueSpec) -> Result<Found> {
    let path = address::queue(&spec.name);
    let answer = ask(manager, "verify", &spec.subject(), "GET", &path, None).await?;
    if spec.passive {
        return Ok(found(&answer));
    }
    put_queue(manager, "verify", spec).await
}

async fn delete_queue(manager: &Manager<'_>, name: &ShortStr) -> Result<Found> {
    let path = address::queue(name);
    or_missing(ask(manager, "delete", &queue_subject(name), "DELETE", &path, None).await)
}

async fn purge_queue(manager: &Manager<'_>, name: &ShortStr) -> Result<Found> {
    let path = format!("{}/messages", address::queue(name));
    let answer = ask(manager, "purge", &queue_subject(name), "DELETE", &path, None).await?;
    Ok(found(&answer))
}

async fn bind(manager: &Manager<'_>, spec: &BindingSpec) -> Result<Found> {
    comparable(spec)?;
    let (destination, to) = match &spec.destination {
        Destination::Queue(queue) => ("destination_queue", queue),
        Destination::Exchange(exchange) => ("destination_exchange", exchange),
    };
    let body: Table = [
        (name("source"), Value::from(spec.source.clone())),
        (name(destination), to.clone().into()),
        (name("binding_key"), spec.key.clone().into()),
        (name("arguments"), spec.arguments.clone().into()),
    ]
    .into_iter()
    .collect();
    ask(manager, "bind", &spec.subject(), "POST", "/bindings", Some(&body)).await?;
    Ok(Found::default())
}

/// Refuses lists and tables, which a headers exchange never finds in a message that was published over AMQP
/// 1.0: application properties cannot have them, and RabbitMQ does not compare those in an annotation.
fn comparable(spec: &BindingSpec) -> Result<()> {
    let nested = |value: &Value| matches!(value, Value::List(_) | Value::Table(_));
    match spec.arguments.iter().find(|(_, value)| nested(value)) {
        None => Ok(()),
        Some((header, _)) => Err(Error::new(ErrorKind::Unsupported, "bind")
            .on(spec.subject())
            .because(format!(
                "{:?} is a list or a table, which no exchange compares with a message that is \
                 published over AMQP 1.0",
                header.as_str()
            ))
            .remedy("bind by a text, a number or true and false; or use amqp091://")),
    }
}

/// The path of a binding with arguments has a hash that only the broker can compute. So the broker is asked
/// for all bindings between the two, and those with equal arguments are removed.
async fn unbind(manager: &Manager<'_>, spec: &BindingSpec) -> Result<Found> {
    let subject = spec.subject();
    let (destination, to) = match &spec.destination {
        Destination::Queue(queue) => ("dstq", queue),
        Destination::Exchange(exchange) => ("dste", exchange),
    };
    let path = format!(
        "/bindings?src={}&{destination}={}&key={}",
        segment(&spec.source),
        segment(to),
        segment(&spec.key),
    );
    let listed = match ask(manager, "unbind", &subject, "GET", &path, None).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        listed => listed?,
    };
    for binding in listed.body.as_list().unwrap_or_default() {
        let Some(binding) = binding.as_table() else { continue };
        let arguments = binding.get("arguments").and_then(Value::as_table);
        if arguments.unwrap_or(&Table::new()) != &spec.arguments {
            continue;
        }
        if let Some(location) = binding.get("location").and_then(Value::as_str) {
            or_missing(ask(manager, "unbind", &subject, "DELETE", location, None).await)?;
        }
    }
    Ok(Found::default())
}

fn found(answer: &Answer) -> Found {
    Found {
        messages: answer.number("message_count"),
        consumers: u32::try_from(answer.number("consumer_count")).unwrap_or(u32::MAX),
    }
}

/// Removing something that does not exist succeeds.
fn or_missing(removed: Result<Answer>) -> Result<Found> {
    match removed {
        Ok(answer) => Ok(found(&answer)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::default()),
        Err(error) => Err(error),
    }
}

fn name(text: &'static str) -> ShortStr {
    ShortStr::from_static(text)
}

async fn ask(
    manager: &Manager<'_>,
    operation: &'static str,
    subject: &str,
    method: &'static str,
    path: &str,
    body: Option<&Table>,
) -> Result<Answer> {
    request(manager, Request { operation, subject, method, path, body }).await
}
