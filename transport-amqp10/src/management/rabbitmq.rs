//! Requests to RabbitMQ's management node: HTTP over AMQP, on a pair of links.

use bytes::Bytes;
use enoki_core::{
    Error, ErrorKind, Result, Table, Value,
    transport::{crossing::Id, passing},
};
use fe2o3_amqp::{
    Receiver, Sendable, Sender,
    link::receiver::CreditMode,
    types::{
        definitions::{Fields, ReceiverSettleMode, SenderSettleMode},
        messaging::{Batch, Data, Message},
        primitives::{Binary, Symbol, Value as WireValue},
    },
};

use futures_util::FutureExt;

use crate::{
    error::Cause,
    proto::{
        decode::{self, Body},
        encode::Encoder,
        link_names::{PAIR_RECEIVER, PAIR_SENDER, paired},
    },
    session::{At, Node},
    session_pool::Channel,
};

/// The pair of links.
#[derive(Debug)]
pub(crate) struct Management {
    requests: Sender,
    answers: Receiver,
    /// Dropped after the links: they end before their session, and never leave it to another.
    _channel: Channel,
    number: u64,
    /// Whether every request so far has its answer.
    sound: bool,
}

/// What the node answered.
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

impl Node for Management {
    async fn open(at: &At<'_>, operation: &'static str, subject: &str) -> Result<Self> {
        let channel = at.channel(operation, subject).await?;
        let mut properties = Fields::new();
        properties.insert(Symbol::from("paired"), WireValue::Bool(true));
        let builder = Sender::builder()
            .name(paired(PAIR_SENDER))
            .source(HERE)
            .target(NODE)
            .sender_settle_mode(SenderSettleMode::Settled)
            .receiver_settle_mode(ReceiverSettleMode::First)
            .properties(properties.clone());
        let (requests, channel) =
            at.attach(operation, subject, channel, |handle| builder.attach(handle).boxed()).await?;
        let builder = Receiver::builder()
            .name(paired(PAIR_RECEIVER))
            .source(NODE)
            .target(HERE)
            .sender_settle_mode(SenderSettleMode::Settled)
            .receiver_settle_mode(ReceiverSettleMode::First)
            .properties(properties)
            .credit_mode(CreditMode::Manual);
        let (answers, channel) =
            at.attach(operation, subject, channel, |handle| builder.attach(handle).boxed()).await?;
        Ok(Self { requests, answers, _channel: channel, number: 0, sound: true })
    }

    fn is_sound(&self) -> bool {
        self.sound
    }
}

impl Management {
    /// One request, and its answer. The caller has a deadline.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Table>,
    ) -> Result<Answer, Cause> {
        self.sound = false;
        self.number += 1;
        // Without credit for the answer the node ends the session.
        self.answers.set_credit(1).await?;
        let request = encode(self.number, method, path, body);
        let sendable = Sendable::builder()
            .message(Message::from(Data(Binary::from(request))))
            .settled(true)
            .build();
        self.requests.send(sendable).await?;
        let delivery = self.answers.recv::<Batch<Data>>().await?;
        let bytes: Vec<u8> =
            delivery.into_body().into_iter().flat_map(|data| data.0.into_vec()).collect();
        let answer = decode(&Bytes::from(bytes), self.number)
            .ok_or_else(|| Cause::Local("an answer that cannot be read".to_owned()))?;
        self.sound = true;
        Ok(answer)
    }
}

fn encode(number: u64, method: &str, path: &str, body: Option<&Table>) -> Vec<u8> {
    let mut encoder = Encoder::default();
    // message-id, user-id, to, subject, reply-to
    encoder.descriptor(0x73);
    encoder.list(|encoder| {
        encoder.ulong(number);
        encoder.null();
        encoder.string(path);
        encoder.string(method);
        encoder.string("$me");
        5
    });
    encoder.descriptor(0x77);
    match body {
        Some(table) => encoder.table(table),
        None => encoder.null(),
    }
    encoder.into_bytes()
}

/// The answer to this request; `None` if it is none.
fn decode(bytes: &Bytes, number: u64) -> Option<Answer> {
    let (sections, fault) = decode::message(bytes);
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

/// The error that an answer means; the text decides where RabbitMQ uses one status for several
/// things.
pub(crate) fn refused(operation: &'static str, subject: &str, answer: &Answer) -> Error {
    let text = answer.text();
    let away = passing(text);
    let kind = away.unwrap_or(match answer.status {
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
    let error = if away.is_some() { error.transient(true) } else { error };
    if text.is_empty() {
        error.because(format!("the broker answered with status {}", answer.status))
    } else {
        error.because(crate::error::said(text))
    }
}

const NODE: &str = "/management";
/// What the pair's links call this end; it leads nowhere.
const HERE: &str = "enoki";

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
