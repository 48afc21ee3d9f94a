//! Requests to RabbitMQ's management node: HTTP over AMQP, on a pair of links with one name.

use bytes::Bytes;
use enoki_amqp::rabbitmq::{DIFFERENT, LOCKED, quote, transient_kind};
use enoki_core::{Error, ErrorKind, Result, Table, Value, transport::cross_protocol::Id};
use fe2o3_amqp::{
    Receiver, Sender,
    link::receiver::CreditMode,
    types::{
        definitions::{Fields, ReceiverSettleMode, SenderSettleMode},
        primitives::{Symbol, Value as WireValue},
    },
};
use futures_util::FutureExt;

use super::manager::Manager;
use crate::{
    error::{Cause, INTERNAL, condition},
    management_link::ManagementLink,
    proto::{
        encode::Encoder,
        link_names::{PAIR_RECEIVER, PAIR_SENDER, paired},
        message::{self, Body},
    },
};

/// A request that is made for an operation on a subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) operation: &'static str,
    pub(crate) subject: &'r str,
    pub(crate) method: &'static str,
    pub(crate) path: &'r str,
    pub(crate) body: Option<&'r Table>,
}

/// Makes a request, and takes any success.
pub(crate) async fn request(manager: &Manager<'_>, request: Request<'_>) -> Result<Answer> {
    let Request { operation, subject, .. } = request;
    let answer = answer(manager, request).await?;
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let error = refused(operation, subject, &answer);
    Err(if error.kind() != ErrorKind::Conflict {
        error
    } else if answer.text().contains("inequivalent") {
        error.remedy(DIFFERENT)
    } else {
        error.remedy(LOCKED).transient(true)
    })
}

/// Makes a request. RabbitMQ fails where another connection declares the same thing at the same time, so it
/// is made up to [`TRIES`] times; it may be made twice.
async fn answer(manager: &Manager<'_>, request: Request<'_>) -> Result<Answer> {
    let Request { operation, subject, method, path, body } = request;
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = manager
            .with_link(operation, subject, open(manager, operation, subject), async |link| {
                let encode = |number, reply_to: &str| encode(number, reply_to, method, path, body);
                Ok(link.exchange(Some(true), encode, decode).await)
            })
            .await?;
        match answer {
            Ok(answer) => return Ok(answer),
            Err(Cause::Peer(error)) if condition(&error) == INTERNAL && tries < TRIES => {}
            Err(cause) => return Err(manager.connections().failed(operation, subject, &cause)),
        }
    }
}

async fn open(
    manager: &Manager<'_>,
    operation: &'static str,
    subject: &str,
) -> Result<ManagementLink> {
    let session = manager.session(operation, subject).await?;
    let connections = manager.connections();
    let mut properties = Fields::new();
    properties.insert(Symbol::from("paired"), WireValue::Bool(true));
    let builder = Sender::builder()
        .name(paired(PAIR_SENDER))
        .source(HERE)
        .target(NODE)
        .sender_settle_mode(SenderSettleMode::Settled)
        .receiver_settle_mode(ReceiverSettleMode::First)
        .properties(properties.clone());
    let (requests, session) = connections
        .attach(operation, subject, session, |handle| builder.attach(handle).boxed())
        .await?;
    let builder = Receiver::builder()
        .name(paired(PAIR_RECEIVER))
        .source(NODE)
        .target(HERE)
        .sender_settle_mode(SenderSettleMode::Settled)
        .receiver_settle_mode(ReceiverSettleMode::First)
        .properties(properties)
        .credit_mode(CreditMode::Manual);
    let (answers, session) = connections
        .attach(operation, subject, session, |handle| builder.attach(handle).boxed())
        .await?;
    Ok(ManagementLink::new(requests, answers, REPLY_TO.to_owned(), session))
}

/// An answer of the node.
#[derive(Debug)]
pub(crate) struct Answer {
    /// As in HTTP.
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The explanation of a refusal.
    pub(crate) fn text(&self) -> &str {
        self.body.as_str().unwrap_or_default()
    }

    /// A text in the answer's map.
    pub(crate) fn text_of(&self, name: &str) -> Option<String> {
        Some(self.body.as_table()?.get(name)?.as_str()?.to_owned())
    }

    /// A number in the answer's map.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let number = self.body.as_table().and_then(|table| table.get(name)).and_then(Value::as_int);
        number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
    }
}

fn encode(number: u64, reply_to: &str, method: &str, path: &str, body: Option<&Table>) -> Vec<u8> {
    let mut encoder = Encoder::default();
    // message-id, user-id, to, subject, reply-to
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        encoder.ulong(number);
        encoder.null();
        encoder.string(path);
        encoder.string(method);
        encoder.string(reply_to);
        5
    });
    encoder.descriptor(0x77);
    match body {
        Some(table) => encoder.table(table),
        None => encoder.null(),
    }
    encoder.into_bytes()
}

/// Reads the answer to the request with this number; `None` if it is not one.
fn decode(bytes: &Bytes, number: u64) -> Option<Answer> {
    let (sections, fault) = message::read(bytes);
    if fault.is_some() {
        return None;
    }
    if sections.correlation_id != Some(Id::Number(number)) {
        return None;
    }
    let status = sections.properties.get(3)?.as_str()?.parse().ok()?;
    let body = match sections.body {
        Body::Empty | Body::Data(_) => Value::Null,
        encoded @ Body::Encoded(_) => encoded.value()?,
    };
    Some(Answer { status, body })
}

/// The error that an answer means. RabbitMQ uses some statuses for several things; then its text decides.
fn refused(operation: &'static str, subject: &str, answer: &Answer) -> Error {
    let text = answer.text();
    let transient = transient_kind(text);
    let kind = transient.unwrap_or(match answer.status {
        400 if text.contains("exclusive") && text.contains("locked") => ErrorKind::Conflict,
        400 if text.contains("exchange type") => ErrorKind::Unsupported,
        400 if text.contains("no queue") || text.contains("no exchange") => ErrorKind::NotFound,
        400 if text.contains("not found") => ErrorKind::NotFound,
        400 if text.contains("deprecated") => ErrorKind::Unsupported,
        400 => ErrorKind::Configuration,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Conflict,
        501 => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    });
    let error = Error::new(kind, operation).on(subject.to_owned());
    let error = if transient.is_some() { error.transient(true) } else { error };
    if text.is_empty() {
        error.because(format!("the broker answered with status {}", answer.status))
    } else {
        error.because(quote(text))
    }
}

const NODE: &str = "/management";
/// The address of this end of the pair. It leads nowhere.
const HERE: &str = "enoki";

/// The address that means: the other link of this pair.
const REPLY_TO: &str = "$me";

/// How often a request is made that the broker fails at.
const TRIES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_away_for_a_while_is_neither_missing_nor_a_mistake_of_the_program() {
        let table = [
            (400, "queue 'q' in vhost 'v' process is stopped by supervisor", ErrorKind::Connection),
            (
                404,
                "home node 'n' of durable queue 'q' in vhost 'v' is down or inaccessible",
                ErrorKind::Connection,
            ),
            (400, "invalid arg 'x-expires'", ErrorKind::Configuration),
            (404, "no queue 'q' in vhost 'v'", ErrorKind::NotFound),
        ];
        for (status, text, kind) in table {
            let error = refused("declare", "queue \"q\"", &Answer { status, body: text.into() });
            let expected = (kind, kind == ErrorKind::Connection);
            assert_eq!((error.kind(), error.is_transient()), expected, "{text}");
        }
    }
}
