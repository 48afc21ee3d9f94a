//! Publishing, pipelined: messages are written in their order as long as there is credit, and none waits for
//! another to be confirmed. The parts are in `publishing/`.

use std::{collections::VecDeque, fmt};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Result,
    transport::{Outgoing, PublishOutcome, Sender, SenderOptions},
};
use fe2o3_amqp::{
    Sendable,
    link::SendError,
    types::{
        definitions::SenderSettleMode,
        messaging::{Data, Message, Outcome},
        primitives::Binary,
    },
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    address,
    connection::{self, Ended},
    connections::Connections,
    error::{self, Cause, exchange_subject, queue_subject},
    headers::outgoing::outgoing as write_message,
    peer::{self, Dialect},
    publishing::{
        close_reason::{AcceptedRoutes, CloseReason},
        link::{Encoded, Link, SendStep},
        unconfirmed::{InFlight, PUBLISH, Unconfirmed, outcome_of, unrouted},
    },
    session_pool::LinkSession,
};

/// Publishes on a link to the anonymous terminus: each message says where it goes, and an error is one
/// message's own.
///
/// A message that was taken is in exactly one place, in this order: `waiting`, the link, `in_flight`, then
/// either `outcomes` (its outcome is known) or `lost` (it was sent, and no answer will come). Together they
/// are at most `window`, without `lost`. Once `failed` is set, `link` is gone and `waiting` and `in_flight`
/// are empty.
pub(crate) struct Amqp10Sender {
    link: Link,
    /// Declared behind the link and dropped after it: links end before their session.
    session: LinkSession,
    ended: watch::Receiver<Option<Ended>>,
    /// The user of the login, if it is known here. The broker compares it with the user id of messages.
    login: Option<String>,
    dialect: Dialect,
    window: usize,
    waiting: VecDeque<Encoded>,
    in_flight: FuturesUnordered<InFlight>,
    /// How many messages the link has carried.
    sent: u64,
    /// Outcomes that the caller has not asked for yet.
    outcomes: Vec<(u64, PublishOutcome)>,
    accepted: AcceptedRoutes,
    lost: Vec<Unconfirmed>,
    failed: Option<Failed>,
}

/// Why nothing more is sent.
#[derive(Debug)]
struct Failed {
    cause: Cause,
    /// Whether messages caused it that have their outcome now. The others may be published on another link.
    is_explained: bool,
}

impl Amqp10Sender {
    pub(crate) async fn open(connections: &Connections, options: SenderOptions) -> Result<Self> {
        let subject = connections.options().subject();
        let dialect = peer::dialect(connections.peer());
        let session = connections.session(OPEN, &subject).await?;
        let builder = fe2o3_amqp::Sender::builder()
            .name(connections.link_name("sender"))
            .target(address::anonymous(dialect))
            .sender_settle_mode(SenderSettleMode::Unsettled);
        let (link, session) = connections
            .attach(OPEN, &subject, session, |handle| builder.attach(handle).boxed())
            .await?;
        Ok(Self {
            link: Link::Free(Box::new(link)),
            session,
            ended: connections.end_state().subscribe(),
            login: connections.options().user().map(str::to_owned),
            dialect,
            window: options.window.get().into(),
            waiting: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            sent: 0,
            outcomes: Vec::new(),
            accepted: AcceptedRoutes::default(),
            lost: Vec::new(),
            failed: None,
        })
    }

    /// The bytes of a message; or its outcome, where the broker would end the link with all messages in
    /// flight for it, and where its address cannot exist.
    fn encode(&self, outgoing: &Outgoing) -> Result<Encoded, PublishOutcome> {
        let properties = &outgoing.message.properties;
        if let (Some(user), Some(login)) = (&properties.user_id, &self.login)
            && *user != login.as_str()
        {
            return Err(PublishOutcome::Rejected(
                Error::new(ErrorKind::Denied, PUBLISH)
                    .on(exchange_subject(&outgoing.exchange))
                    .because(format!(
                        "its user id is {:?}, and the broker takes only the login's own, {:?}",
                        user.as_str(),
                        login
                    )),
            ));
        }
        if !outgoing.exchange.is_empty() && !self.dialect.rabbitmq {
            return Err(PublishOutcome::Rejected(
                Error::new(ErrorKind::Unsupported, PUBLISH)
                    .on(exchange_subject(&outgoing.exchange))
                    .because("this broker has no exchanges over AMQP 1.0")
                    .remedy("publish to a queue by its name, through the default exchange"),
            ));
        }
        if outgoing.exchange.is_empty() && outgoing.routing_key.is_empty() {
            // The queue without a name has no address.
            return Err(unrouted(outgoing.mandatory));
        }
        if self.dialect.artemis && !address::is_only_a_name(&outgoing.routing_key) {
            return Err(PublishOutcome::Rejected(
                Error::new(ErrorKind::Unsupported, PUBLISH)
                    .on(queue_subject(&outgoing.routing_key))
                    .because("to this broker the name may mean more than a queue"),
            ));
        }
        let to = address::target(&outgoing.exchange, &outgoing.routing_key, self.dialect);
        let bytes = write_message(&outgoing.message, &to, self.dialect);
        Ok(Encoded {
            message: Unconfirmed {
                id: outgoing.id,
                mandatory: outgoing.mandatory,
                exchange: outgoing.exchange.clone(),
                routing_key: outgoing.routing_key.clone(),
            },
            sendable: Sendable::builder().message(Message::from(Data(Binary::from(bytes)))).build(),
        })
    }

    /// Sends what there is credit for, without waiting.
    fn send_ready(&mut self) {
        while !self.waiting.is_empty() || self.link.is_sending() {
            let Some(step) = self.link.send_next(&mut self.waiting).now_or_never() else { return };
            self.stepped(step);
        }
    }

    fn stepped(&mut self, step: SendStep) {
        match step {
            SendStep::Sent(in_flight) => {
                self.sent += 1;
                self.in_flight.push(in_flight);
            }
            SendStep::Unsent(id, outcome) => self.outcomes.push((id, outcome)),
            SendStep::Failed(cause) => self.fail(cause),
        }
    }

    /// Stops sending. The broker's reason may be the outcome of some messages.
    fn fail(&mut self, cause: Cause) {
        // Dropping the link makes fe2o3-amqp give up what has no answer.
        self.link = Link::Gone;
        self.waiting.clear();
        if self.failed.is_some() {
            return;
        }
        // Answers that came already are taken first; the rest is lost.
        let mut lost = std::mem::take(&mut self.lost);
        while let Some(Some((message, answer))) = self.in_flight.next().now_or_never() {
            match (message, answer) {
                (Some(message), Ok(outcome)) => self.confirmed(&message, outcome),
                (message, _) => lost.extend(message),
            }
        }
        lost.extend(self.in_flight.iter_mut().filter_map(|in_flight| in_flight.message.take()));
        self.in_flight.clear();
        let refused = match &cause {
            Cause::Peer(error) => {
                let text = error.description.as_deref().unwrap_or_default();
                CloseReason::read(text).refused(&lost, &self.accepted)
            }
            _ => Vec::new(),
        };
        for message in lost.iter().filter(|message| refused.contains(&message.id)) {
            let error = error::failed(PUBLISH, exchange_subject(&message.exchange), &cause)
                .transient(false);
            self.outcomes.push((message.id, PublishOutcome::Rejected(error)));
        }
        self.failed = Some(Failed { cause, is_explained: !refused.is_empty() });
    }

    fn confirmed(&mut self, message: &Unconfirmed, answer: Outcome) {
        if matches!(answer, Outcome::Accepted(_)) {
            self.accepted.note(message);
        }
        self.outcomes.push((message.id, outcome_of(message, answer)));
    }

    fn answered(&mut self, message: Option<Unconfirmed>, answer: Result<Outcome, SendError>) {
        match (message, answer) {
            (Some(message), Ok(outcome)) => self.confirmed(&message, outcome),
            (None, Ok(_)) => {}
            (message, Err(error)) => {
                self.lost.extend(message);
                self.fail(error.into());
            }
        }
    }

    /// Whether everything that it took was sent and answered.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && !self.link.is_sending()
    }

    /// How many messages it has whose outcome the caller does not know.
    fn load(&self) -> usize {
        let sending = usize::from(self.link.is_sending());
        self.waiting.len() + sending + self.in_flight.len() + self.outcomes.len()
    }

    /// Appends the outcomes that are known.
    fn collect(&mut self, into: &mut Vec<(u64, PublishOutcome)>) {
        while let Some(Some((message, answer))) = self.in_flight.next().now_or_never() {
            self.answered(message, answer);
        }
        into.append(&mut self.outcomes);
    }

    fn error(&self, failed: &Failed) -> Error {
        let error =
            connection::failed(PUBLISH_ALL, "", &failed.cause, self.ended.borrow().as_ref());
        if !failed.is_explained {
            return error;
        }
        Error::new(error.kind(), PUBLISH_ALL)
            .because(format!("the broker ended the link for another message ({error})"))
            .transient(true)
            .caused_by(error)
    }
}

impl Drop for Amqp10Sender {
    fn drop(&mut self) {
        let is_idle = self.is_idle();
        if let Link::Free(_) = std::mem::take(&mut self.link)
            && is_idle
            && self.sent < RECYCLE / 2
        {
            self.session.mark_reusable();
        }
    }
}

impl fmt::Debug for Amqp10Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp10Sender")
            .field("waiting", &self.waiting.len())
            .field("in_flight", &self.in_flight.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sender for Amqp10Sender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        // After a failure it takes nothing; `outcomes` says what is known, then that it failed.
        while self.failed.is_none()
            && self.sent < RECYCLE
            && self.load() < self.window
            && let Some(outgoing) = messages.pop_front()
        {
            match self.encode(&outgoing) {
                Ok(encoded) => self.waiting.push_back(encoded),
                Err(outcome) => self.outcomes.push((outgoing.id, outcome)),
            }
        }
        self.send_ready();
        Ok(())
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        let before = into.len();
        loop {
            self.collect(into);
            if into.len() > before {
                // There may be credit again.
                self.send_ready();
                return Ok(());
            }
            if let Some(failed) = &self.failed {
                return Err(self.error(failed));
            }
            if self.sent >= RECYCLE && self.is_idle() {
                let spent = "the link has carried as many messages as it can count";
                self.stepped(SendStep::Failed(Cause::Lost(spent.to_owned())));
                continue;
            }
            let Self { link, waiting, in_flight, .. } = self;
            let event = tokio::select! {
                biased;
                Some(answer) = in_flight.next() => Ok(answer),
                step = link.send_next(waiting) => Err(step),
            };
            match event {
                Ok((message, answer)) => self.answered(message, answer),
                Err(step) => self.stepped(step),
            }
        }
    }
}

const OPEN: &str = "open a sender at";
const PUBLISH_ALL: &str = "publish";

/// How many messages a link may carry. It counts them in 32 bits (delivery-count, §2.6.7), and fe2o3-amqp
/// stops when they are used up.
const RECYCLE: u64 = 1 << 31;
