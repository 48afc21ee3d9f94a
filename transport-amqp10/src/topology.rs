//! Exchanges, queues and bindings: one change, one request or two.

mod artemis;

use enoki_core::{
    BindingSpec, Capability, Destination, Error, ErrorKind, ExchangeKind, ExchangeSpec, QueueSpec,
    Result, ShortStr, Table, Value,
    transport::{Change, Found, Session},
};
use fe2o3_amqp::{Sender, types::definitions::SenderSettleMode};
use futures_util::FutureExt;

use crate::{
    address::{self, segment},
    error::{Cause, INTERNAL, LOCKED, condition},
    management::rabbitmq::{Answer, refused},
    peer,
    session::{Amqp10Session, At},
};

/// Makes one change.
pub(crate) async fn apply(session: &Amqp10Session, change: &Change) -> Result<Found> {
    let at = session.at(queue_of(change));
    if peer::is_artemis(session.peer()) {
        return artemis::apply(&at, change).await;
    }
    match change {
        Change::DeclareQueue(spec) if spec.exclusive => {
            let home = session.pool().home(&spec.name, "declare", &spec.subject()).await?;
            let found = make(&At::new(session, home.connection.clone()), change).await?;
            session.pool().settle(spec.name.clone(), home);
            Ok(found)
        }
        Change::DeleteQueue(name) => {
            let found = make(&at, change).await?;
            session.pool().forget(name);
            Ok(found)
        }
        _ => make(&at, change).await,
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

async fn make(session: &At<'_>, change: &Change) -> Result<Found> {
    if !session.peer().can(Capability::Exchanges) {
        return unmanaged(session, change);
    }
    match change {
        Change::DeclareExchange(spec) if spec.is_predeclared() => Ok(Found::default()),
        Change::DeclareExchange(spec) => put_exchange(session, "declare", spec).await,
        Change::VerifyExchange(spec) => verify_exchange(session, spec).await,
        Change::DeleteExchange(name) => delete_exchange(session, name).await,
        Change::DeclareQueue(spec) => put_queue(session, "declare", spec).await,
        Change::VerifyQueue(spec) => verify_queue(session, spec).await,
        Change::DeleteQueue(name) => delete_queue(session, name).await,
        Change::PurgeQueue(name) => purge_queue(session, name).await,
        Change::Bind(spec) => bind(session, spec).await,
        Change::Unbind(spec) => unbind(session, spec).await,
        other => Err(Error::new(ErrorKind::Unsupported, "change the topology")
            .because(format!("this transport does not know {other:?}"))),
    }
}

/// Whether the queue can requeue messages for later: replicated ones of RabbitMQ 4.3 can, and nothing
/// else tells them from others. Where nobody says so, it cannot.
pub(crate) async fn delays(session: &Amqp10Session, queue: &ShortStr) -> bool {
    if !session.peer().can(Capability::ReplicatedDelayedRequeue) {
        return false;
    }
    let (subject, path) = (queue_subject(queue), address::queue(queue));
    let at = session.at(Some(queue));
    let asked = granted(&at, "consume from", &subject, "GET", &path, None).await;
    let kind = asked.ok().and_then(|answer| answer.text_of("type"));
    kind.as_deref() == Some("quorum")
}

/// A broker that takes no declarations: the default exchange is how every queue is reached by its
/// name, so it is there; nothing else is known to be.
fn unmanaged(session: &At<'_>, change: &Change) -> Result<Found> {
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
        .because(format!("{} takes no declarations over AMQP 1.0", session.peer()))
        .remedy("declare on the broker what is used there"))
}

async fn request(
    session: &At<'_>,
    operation: &'static str,
    subject: &str,
    method: &str,
    path: &str,
    body: Option<&Table>,
) -> Result<Answer> {
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = session
            .management(operation, subject, async |management| {
                Ok(management.request(method, path, body).await)
            })
            .await?;
        match answer {
            Ok(answer) => return Ok(answer),
            // RabbitMQ fails where another connection declares the same thing at the same time. What
            // is asked for here may be asked for twice.
            Err(Cause::Peer(error)) if condition(&error) == INTERNAL && tries < TRIES => {}
            Err(cause) => return Err(session.failed(operation, subject, &cause)),
        }
    }
}

/// Requests, and takes any success.
async fn granted(
    session: &At<'_>,
    operation: &'static str,
    subject: &str,
    method: &str,
    path: &str,
    body: Option<&Table>,
) -> Result<Answer> {
    let answer = request(session, operation, subject, method, path, body).await?;
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let error = refused(operation, subject, &answer);
    Err(if error.kind() != ErrorKind::Conflict {
        error
    } else if answer.text().contains("inequivalent") {
        error.remedy("declare it as it is, or delete it on the broker and declare it again")
    } else {
        error.remedy(LOCKED).transient(true)
    })
}

async fn put_exchange(
    session: &At<'_>,
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
    let put = granted(session, operation, &spec.subject(), "PUT", &path, Some(&body)).await;
    match (put, &spec.kind) {
        (Ok(_), _) => Ok(Found::default()),
        (Err(error), ExchangeKind::Plugin(plugin)) if error.kind() == ErrorKind::Unsupported => {
            Err(error.remedy(format!(
                "enable the plugin for {:?} on the broker ({})",
                plugin.as_str(),
                session.options().subject()
            )))
        }
        (Err(error), _) => Err(error),
    }
}

/// Looks first, so that what is missing is not created, then compares by declaring it.
async fn verify_exchange(session: &At<'_>, spec: &ExchangeSpec) -> Result<Found> {
    if spec.name.is_empty() {
        return Ok(Found::default());
    }
    probe_exchange(session, spec).await?;
    if spec.is_predeclared() || spec.passive {
        return Ok(Found::default());
    }
    put_exchange(session, "verify", spec).await
}

/// The management node has no way to ask for an exchange, but a link to one that is missing is
/// refused. On a session of its own, since some versions end the session with the link.
async fn probe_exchange(session: &At<'_>, spec: &ExchangeSpec) -> Result<()> {
    let subject = spec.subject();
    let channel = session.pool().channel("verify", &subject).await?;
    let builder = Sender::builder()
        .name(session.link_name("probe"))
        .target(address::exchange(&spec.name))
        .sender_settle_mode(SenderSettleMode::Unsettled);
    let attached =
        session.attach("verify", &subject, channel, |handle| builder.attach(handle).boxed()).await;
    match attached {
        Ok((link, mut channel)) => {
            if session.answered("verify", &subject, link.close()).await.is_ok() {
                channel.release();
            }
            Ok(())
        }
        // Only other exchanges may publish to it; so it is there.
        Err(error) if error.to_string().contains("internal exchange") => Ok(()),
        Err(error) => Err(error),
    }
}

async fn delete_exchange(session: &At<'_>, name: &ShortStr) -> Result<Found> {
    let path = address::exchange(name);
    or_missing(granted(session, "delete", &exchange_subject(name), "DELETE", &path, None).await)
}

async fn put_queue(session: &At<'_>, operation: &'static str, spec: &QueueSpec) -> Result<Found> {
    let body: Table = [
        (name("durable"), Value::from(spec.durable)),
        (name("exclusive"), spec.exclusive.into()),
        (name("auto_delete"), spec.auto_delete.into()),
        (name("arguments"), spec.wire_arguments().into()),
    ]
    .into_iter()
    .collect();
    let path = address::queue(&spec.name);
    let answer = granted(session, operation, &spec.subject(), "PUT", &path, Some(&body)).await?;
    Ok(found(&answer))
}

/// Looks first, so that what is missing is not created, then compares by declaring it.
async fn verify_queue(session: &At<'_>, spec: &QueueSpec) -> Result<Found> {
    let path = address::queue(&spec.name);
    let answer = granted(session, "verify", &spec.subject(), "GET", &path, None).await?;
    if spec.passive {
        return Ok(found(&answer));
    }
    put_queue(session, "verify", spec).await
}

async fn delete_queue(session: &At<'_>, name: &ShortStr) -> Result<Found> {
    let path = address::queue(name);
    or_missing(granted(session, "delete", &queue_subject(name), "DELETE", &path, None).await)
}

async fn purge_queue(session: &At<'_>, name: &ShortStr) -> Result<Found> {
    let path = format!("{}/messages", address::queue(name));
    let answer = granted(session, "purge", &queue_subject(name), "DELETE", &path, None).await?;
    Ok(found(&answer))
}

async fn bind(session: &At<'_>, spec: &BindingSpec) -> Result<Found> {
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
    granted(session, "bind", &spec.subject(), "POST", "/bindings", Some(&body)).await?;
    Ok(Found::default())
}

/// Refuses what a headers exchange never finds in a message that was published over AMQP 1.0: there is no
/// list or table among application properties, and RabbitMQ compares none in an annotation.
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

/// A binding with arguments has a hash of them in its path, which only the broker can tell. So all
/// between the two are asked for, and those that are meant removed.
async fn unbind(session: &At<'_>, spec: &BindingSpec) -> Result<Found> {
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
    let listed = match granted(session, "unbind", &subject, "GET", &path, None).await {
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
            or_missing(granted(session, "unbind", &subject, "DELETE", location, None).await)?;
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

/// Removing what is not there is done already.
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

fn exchange_subject(name: &ShortStr) -> String {
    format!("exchange {:?}", name.as_str())
}

fn queue_subject(name: &ShortStr) -> String {
    format!("queue {:?}", name.as_str())
}

/// How often a request is made that the broker fails at.
const TRIES: u32 = 5;
