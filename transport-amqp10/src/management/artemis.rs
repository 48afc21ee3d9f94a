//! Requests to Artemis's management address: the name of a resource and of an operation, and JSON.

use bytes::Bytes;
use enoki_amqp::rabbitmq::quote;
use enoki_core::{Error, ErrorKind, Result, Value, transport::cross_protocol::Id};
use fe2o3_amqp::{
    Receiver, Sender,
    link::receiver::CreditMode,
    types::{
        definitions::{ReceiverSettleMode, SenderSettleMode},
        messaging::Source,
    },
};
use futures_util::FutureExt;
use serde_json::Value as Json;

use super::manager::Manager;
use crate::{
    address,
    error::Cause,
    management_link::ManagementLink,
    proto::{
        encode::Encoder,
        message::{self, Body},
    },
};

/// The result of an operation that was asked for, or the text that it was refused with.
pub(crate) type Answer = std::result::Result<Json, String>;

/// Asks a resource (`broker`, `queue.billing`) to do something.
pub(crate) async fn invoke(
    manager: &Manager<'_>,
    operation: &'static str,
    subject: &str,
    resource: &str,
    name: &str,
    arguments: &Json,
) -> Result<Answer> {
    manager
        .with_link(operation, subject, open(manager, operation, subject), async |link| {
            let encode =
                |number, reply_to: &str| encode(number, reply_to, resource, name, arguments);
            let answer = link.exchange(None, encode, decode).await;
            answer.map_err(|cause| manager.connections().failed(operation, subject, &cause))
        })
        .await
}

/// A link to the management address, and one from a queue of this connection for the answers.
async fn open(
    manager: &Manager<'_>,
    operation: &'static str,
    subject: &str,
) -> Result<ManagementLink> {
    let session = manager.session(operation, subject).await?;
    let connections = manager.connections();
    let builder = Sender::builder()
        .name(connections.link_name("requests"))
        .target(ADDRESS)
        .sender_settle_mode(SenderSettleMode::Unsettled);
    let (requests, session) = connections
        .attach(operation, subject, session, |handle| builder.attach(handle).boxed())
        .await
        .map_err(unless_permitted)?;
    let builder = Receiver::builder()
        .name(connections.link_name("answers"))
        .source(Source::builder().dynamic(true).capabilities(address::queue_like()).build())
        .sender_settle_mode(SenderSettleMode::Settled)
        .receiver_settle_mode(ReceiverSettleMode::First)
        .credit_mode(CreditMode::Manual);
    let (answers, session) = connections
        .attach(operation, subject, session, |handle| builder.attach(handle).boxed())
        .await
        .map_err(unless_permitted)?;
    let reply_to = answers.source().as_ref().and_then(|source| source.address.clone());
    let reply_to = reply_to.ok_or_else(|| {
        let cause = Cause::Local("the broker made no queue for its answers".to_owned());
        connections.failed(operation, subject, &cause)
    })?;
    Ok(ManagementLink::new(requests, answers, reply_to, session))
}

fn encode(
    number: u64,
    reply_to: &str,
    resource: &str,
    operation: &str,
    arguments: &Json,
) -> Vec<u8> {
    let mut encoder = Encoder::default();
    // message-id, user-id, to, subject, reply-to, correlation-id
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        encoder.null();
        encoder.null();
        encoder.string(ADDRESS);
        encoder.null();
        encoder.string(reply_to);
        encoder.string(&number.to_string());
        6
    });
    encoder.descriptor(0x74);
    encoder.map(|encoder| {
        encoder.string("_AMQ_ResourceName");
        encoder.string(resource);
        encoder.string("_AMQ_OperationName");
        encoder.string(operation);
        2
    });
    encoder.descriptor(0x77);
    encoder.string(&arguments.to_string());
    encoder.into_bytes()
}

/// Reads the answer to the request with this number; `None` if it is not one.
fn decode(bytes: &Bytes, number: u64) -> Option<Answer> {
    let (sections, fault) = message::read(bytes);
    if fault.is_some() || sections.correlation_id != Some(Id::Text(number.to_string().into())) {
        return None;
    }
    let named = |wanted: &str| sections.application.iter().find(|(name, _)| name == wanted);
    let succeeded = named("_AMQ_OperationSucceeded")?.1 == Value::Bool(true);
    // A list with one result in it; no body where there is no result.
    let result = match (&sections.body, sections.body.value()) {
        (Body::Encoded(_), Some(Value::String(text))) => {
            let mut results: Vec<Json> = serde_json::from_str(&text).ok()?;
            results.drain(..).next().unwrap_or_default()
        }
        (Body::Empty, _) | (Body::Encoded(_), Some(Value::Null)) => Json::Null,
        _ => return None,
    };
    Some(match succeeded {
        true => Ok(result),
        false => Err(result.as_str().unwrap_or_default().to_owned()),
    })
}

/// The error that a refusal means.
pub(crate) fn refused(operation: &'static str, subject: &str, text: &str) -> Error {
    let kind = match text.split_once(':').map_or("", |(code, _)| code) {
        // No such queue; no such resource.
        "AMQ229017" | "AMQ229067" => ErrorKind::NotFound,
        // It exists; it has consumers.
        "AMQ229019" | "AMQ229025" => ErrorKind::Conflict,
        "AMQ229032" | "AMQ229213" => ErrorKind::Denied,
        _ => ErrorKind::Unexpected,
    };
    let error = Error::new(kind, operation).on(subject.to_owned());
    if text.is_empty() {
        error.because("the broker refused it and gave no reason")
    } else {
        error.because(quote(text))
    }
}

/// Adds the remedy where this user may not use the management address.
fn unless_permitted(error: Error) -> Error {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    error.remedy(format!(
        "give this user the permissions `manage` and `send` on the address {ADDRESS:?}, and \
         `createNonDurableQueue` for the answers"
    ))
}

/// Artemis's default for the address of its management.
const ADDRESS: &str = "activemq.management";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(correlation: &str, succeeded: bool, body: Option<&str>) -> Bytes {
        let mut encoder = Encoder::default();
        encoder.descriptor(0x73);
        encoder.list(|encoder| {
            (0..5).for_each(|_| encoder.null());
            encoder.string(correlation);
            6
        });
        encoder.descriptor(0x74);
        encoder.map(|encoder| {
            encoder.string("_AMQ_OperationSucceeded");
            encoder.bool(succeeded);
            1
        });
        encoder.descriptor(0x77);
        match body {
            Some(body) => encoder.string(body),
            None => encoder.null(),
        }
        encoder.into_bytes().into()
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(decode(&answer("7", true, Some("[3]")), 7), Some(Ok(Json::from(3))));
        assert_eq!(decode(&answer("7", true, None), 7), Some(Ok(Json::Null)));
        assert_eq!(decode(&answer("7", false, Some("[\"no\"]")), 7), Some(Err("no".to_owned())));
    }

    #[test]
    fn what_is_no_answer_to_this_request_is_not_taken_for_one() {
        assert_eq!(decode(&answer("6", true, None), 7), None);
        assert_eq!(decode(&answer("7", true, Some("[3")), 7), None);
        assert_eq!(decode(&answer("7", true, Some("3")), 7), None);
        assert_eq!(decode(&Bytes::new(), 7), None);
        assert_eq!(decode(&Bytes::from_static(&[0x00, 0x53, 0x77, 0xa1]), 7), None);
    }

    #[test]
    fn refusals_have_kinds() {
        let kind = |text| refused("declare", "queue \"q\"", text).kind();
        assert_eq!(kind("AMQ229017: Queue q does not exist"), ErrorKind::NotFound);
        assert_eq!(kind("AMQ229019: Queue q already exists on address q"), ErrorKind::Conflict);
        assert_eq!(kind("AMQ229032: User: guest does not have permission"), ErrorKind::Denied);
        assert_eq!(kind(""), ErrorKind::Unexpected);
    }
}
