//! The two links to the part of a broker that manages it: one for requests, one for their answers.

use bytes::Bytes;
use fe2o3_amqp::{
    Receiver, Sendable, Sender,
    types::{
        messaging::{Batch, Data, Message, Outcome, Rejected},
        primitives::Binary,
    },
};

use crate::{error::Cause, session_pool::LinkSession};

/// The two links, for one request at a time.
///
/// While `is_reusable` is false, an answer may still come to a request that was given up. The links are then
/// dropped, so that no later request takes that answer for its own.
#[derive(Debug)]
pub(crate) struct ManagementLink {
    requests: Sender,
    answers: Receiver,
    /// Where the broker sends answers to.
    reply_to: String,
    /// Declared behind the links and dropped after them: links end before their session.
    _session: LinkSession,
    /// Of the last request. Its answer says it again, as correlation-id.
    number: u64,
    /// Whether every request so far has its answer.
    is_reusable: bool,
}

impl ManagementLink {
    pub(crate) fn new(
        requests: Sender,
        answers: Receiver,
        reply_to: String,
        session: LinkSession,
    ) -> Self {
        Self { requests, answers, reply_to, _session: session, number: 0, is_reusable: true }
    }

    /// Whether another request may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// Sends a request, settled or as the link has it, and waits for its answer. The caller has a deadline.
    /// `encode` gets the number of the request and the address for its answer. `decode` gets the answer and
    /// that number, and returns `None` if the message is not an answer to this request.
    pub(crate) async fn exchange<A>(
        &mut self,
        settled: Option<bool>,
        encode: impl FnOnce(u64, &str) -> Vec<u8>,
        decode: impl FnOnce(&Bytes, u64) -> Option<A>,
    ) -> Result<A, Cause> {
        self.is_reusable = false;
        self.number += 1;
        // RabbitMQ ends the session where there is no credit for the answer.
        self.answers.set_credit(1).await?;
        let request = encode(self.number, &self.reply_to);
        let sendable = Sendable::builder()
            .message(Message::from(Data(Binary::from(request))))
            .settled(settled)
            .build();
        match self.requests.send(sendable).await? {
            Outcome::Accepted(_) => {}
            Outcome::Rejected(Rejected { error: Some(error) }) => return Err(Cause::Peer(error)),
            _ => return Err(Cause::Local("the broker did not take the request".to_owned())),
        }
        let delivery = self.answers.recv::<Batch<Data>>().await?;
        // Does nothing where the broker has settled the answer.
        self.answers.accept(&delivery).await?;
        let bytes: Vec<u8> =
            delivery.into_body().into_iter().flat_map(|data| data.0.into_vec()).collect();
        let answer = decode(&Bytes::from(bytes), self.number)
            .ok_or_else(|| Cause::Local("the broker's answer cannot be read".to_owned()))?;
        self.is_reusable = true;
        Ok(answer)
    }
}
