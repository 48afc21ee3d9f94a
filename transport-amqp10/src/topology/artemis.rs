//! Queues of Artemis. It has no exchanges. Limits, expiry and dead letters are settings for patterns of
//! addresses, which belong to its administrator: docs/design/18-artemis.md.

use enoki_amqp::rabbitmq::DIFFERENT;
use enoki_core::{
    Error, ErrorKind, QueueOption, QueueSpec, Result, ShortStr,
    transport::{Change, Found},
};
use serde_json::{Value as Json, json};

use crate::{
    address,
    error::queue_subject,
    management::{
        artemis::{invoke, refused},
        manager::Manager,
    },
};

/// Makes one change.
pub(super) async fn apply(manager: &Manager<'_>, change: &Change) -> Result<Found> {
    match change {
        // The default exchange is how every queue is reached by its name.
        Change::DeclareExchange(spec) | Change::VerifyExchange(spec) if spec.name.is_empty() => {
            Ok(Found::default())
        }
        Change::DeclareExchange(spec) => Err(no_exchanges(manager, "declare", spec.subject())),
        Change::VerifyExchange(spec) => Err(no_exchanges(manager, "verify", spec.subject())),
        // It does not exist, so it is removed already.
        Change::DeleteExchange(_) => Ok(Found::default()),
        Change::DeclareQueue(spec) => declare_queue(manager, spec).await,
        Change::VerifyQueue(spec) => verify_queue(manager, spec).await,
        Change::DeleteQueue(name) => delete_queue(manager, name).await,
        Change::PurgeQueue(name) => purge_queue(manager, name).await,
        Change::Bind(spec) => Err(no_exchanges(manager, "declare", spec.subject())),
        Change::Unbind(spec) => Err(no_exchanges(manager, "remove", spec.subject())),
        other => Err(Error::new(ErrorKind::Unsupported, "change the topology")
            .because(format!("this transport does not know {other:?}"))),
    }
}

fn no_exchanges(manager: &Manager<'_>, operation: &'static str, subject: String) -> Error {
    Error::new(ErrorKind::Unsupported, operation)
        .on(subject)
        .because(format!("{} has no exchanges", manager.peer()))
        .remedy("publish to queues by their names, or use a broker that has exchanges")
}

async fn declare_queue(manager: &Manager<'_>, spec: &QueueSpec) -> Result<Found> {
    check(manager, "declare", spec)?;
    let configuration = json!({
        "name": spec.name.as_str(),
        "address": spec.name.as_str(),
        "routing-type": ANYCAST,
        "durable": spec.durable,
        // One consumer gets all messages; when it goes, the next one does.
        "exclusive": spec.single_active_consumer,
        // Also with messages in it, as soon as the broker looks for such queues.
        "auto-delete": spec.auto_delete,
        "auto-delete-delay": 0,
        "auto-delete-message-count": -1,
        "max-consumers": -1,
        "purge-on-no-consumers": false,
    });
    let subject = spec.subject();
    // The configuration is JSON inside a string of the JSON arguments.
    let arguments = json!([configuration.to_string(), false]);
    match invoke(manager, "declare", &subject, "broker", "createQueue", &arguments).await? {
        Ok(_) => Ok(Found::default()),
        Err(text) => {
            let error = refused("declare", &subject, &text);
            if error.kind() != ErrorKind::Conflict {
                return Err(error);
            }
            // It exists. Perhaps it is equal.
            find(manager, "declare", spec).await
        }
    }
}

async fn verify_queue(manager: &Manager<'_>, spec: &QueueSpec) -> Result<Found> {
    if !spec.passive {
        check(manager, "verify", spec)?;
    }
    find(manager, "verify", spec).await
}

/// Looks for an equal queue. For a passive one: for a queue of this name that messages to its name reach.
async fn find(manager: &Manager<'_>, operation: &'static str, spec: &QueueSpec) -> Result<Found> {
    let subject = spec.subject();
    let filter = json!({"field": "name", "operation": "EQUALS", "value": spec.name.as_str()});
    let arguments = json!([filter.to_string(), 1, 10]);
    let listed = invoke(manager, operation, &subject, "broker", "listQueues", &arguments).await?;
    let listed = listed.map_err(|text| refused(operation, &subject, &text))?;
    let listed: Json = serde_json::from_str(listed.as_str().unwrap_or_default())
        .map_err(|_| unreadable(operation, &subject))?;
    let queues = listed.get("data").and_then(Json::as_array);
    let text = |queue: &Json, field: &str| {
        queue.get(field).and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let named = |queue: &&Json| text(queue, "name") == spec.name.as_str();
    let Some(queue) = queues.into_iter().flatten().find(named) else {
        return Err(Error::new(ErrorKind::NotFound, operation)
            .on(subject)
            .because(format!("{} has no such queue", manager.peer())));
    };
    let mut wanted = vec![
        ("address", "address", spec.name.as_str().to_owned()),
        ("routingType", "routing type", ANYCAST.to_owned()),
    ];
    if !spec.passive {
        wanted.extend([
            ("durable", "durable", spec.durable.to_string()),
            ("autoDelete", "auto-delete", spec.auto_delete.to_string()),
            ("exclusive", "single-active-consumer", spec.single_active_consumer.to_string()),
        ]);
    }
    for (field, name, asked) in wanted {
        let found = text(queue, field);
        // A queue that Artemis made on first use may be deleted when it is empty and unused: no message is
        // lost, and Artemis makes it again on the next use.
        let tolerated = field == "autoDelete" && text(queue, "autoCreated") == "true";
        if found != asked && !tolerated {
            return Err(Error::new(ErrorKind::Conflict, operation)
                .on(subject)
                .because(format!(
                    "it exists with another {name}: asked for {asked:?}, it has {found:?}"
                ))
                .remedy(DIFFERENT));
        }
    }
    let number = |field| text(queue, field).parse::<u64>().unwrap_or(0);
    let elsewhere = number("deliveringCount") + number("scheduledCount");
    Ok(Found {
        messages: number("messageCount").saturating_sub(elsewhere),
        consumers: u32::try_from(number("consumerCount")).unwrap_or(u32::MAX),
    })
}

async fn delete_queue(manager: &Manager<'_>, name: &ShortStr) -> Result<Found> {
    let subject = queue_subject(name);
    // With its consumers, and its address.
    let arguments = json!([name.as_str(), true, true]);
    let deleted = invoke(manager, "delete", &subject, "broker", "destroyQueue", &arguments).await?;
    match deleted.map_err(|text| refused("delete", &subject, &text)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(Found::default()),
    }
}

async fn purge_queue(manager: &Manager<'_>, name: &ShortStr) -> Result<Found> {
    let subject = queue_subject(name);
    let resource = format!("queue.{}", name.as_str());
    let purged =
        invoke(manager, "purge", &subject, &resource, "removeAllMessages", &json!([])).await?;
    let purged = purged.map_err(|text| refused("purge", &subject, &text))?;
    Ok(Found { messages: purged.as_u64().unwrap_or(0), consumers: 0 })
}

/// Refuses options that Artemis would not keep.
fn check(manager: &Manager<'_>, operation: &'static str, spec: &QueueSpec) -> Result<()> {
    let mut lacking = Vec::new();
    for option in spec.options() {
        // Without a `_`: an option that is added to core is kept or refused here.
        match option {
            QueueOption::Transient
            | QueueOption::AutoDelete
            | QueueOption::SingleActiveConsumer => {}
            QueueOption::Replicated
            | QueueOption::Exclusive
            | QueueOption::MessageTtl(_)
            | QueueOption::Expires(_)
            | QueueOption::MaxLength(_)
            | QueueOption::MaxBytes(_)
            | QueueOption::Overflow(_)
            | QueueOption::DeadLetter(_)
            | QueueOption::MaxPriority(_)
            | QueueOption::DeliveryLimit(_)
            | QueueOption::Argument(..) => lacking.push(option.to_string()),
        }
    }
    if !lacking.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, operation)
            .on(spec.subject())
            .because(format!("{} keeps no {} for a queue", manager.peer(), lacking.join(", no ")))
            .remedy("set on the broker, for its address, what may be set there"));
    }
    if !address::is_only_a_name(&spec.name) {
        return Err(Error::new(ErrorKind::Unsupported, operation)
            .on(spec.subject())
            .because(format!("to {} that may mean more than a queue", manager.peer()))
            .remedy("a name without `::`, without `?`, and without `*` or `#` between dots"));
    }
    Ok(())
}

fn unreadable(operation: &'static str, subject: &str) -> Error {
    Error::new(ErrorKind::Unexpected, operation)
        .on(subject.to_owned())
        .because("the broker's answer cannot be read")
}

/// The routing of an address whose messages each go to one consumer of one queue.
const ANYCAST: &str = "ANYCAST";
