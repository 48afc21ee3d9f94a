//! Publishing, pipelined: messages are written in order as long as there is credit, and nobody waits
//! for one to be confirmed.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use enoki_core::{
    Error, ErrorKind, Result, ShortStr,
    transport::{Outgoing, PublishOutcome, Sender, Session},
};
use fe2o3_amqp::{
    Sendable,
    link::{SendError, delivery::DeliveryFut},
    types::{
        definitions::SenderSettleMode,
        messaging::{Data, Message, Outcome, Rejected},
        primitives::Binary,
    },
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    address,
    connection::Ended,
    error::{self, Cause},
    headers,
    peer::{self, Dialect},
    publishing::close_reason::{LastWords, Taken},
    session::{self, Amqp10Session},
    session_pool::Channel,
};

/// A link to the anonymous terminus: each message says where it goes, and an error is its own.
pub(crate) struct Amqp10Sender {
    /// Gone once it has failed: only then fe2o3-amqp gives up what has no answer.
    link: Link,
    /// Dropped after the link: links end before their session.
    channel: Channel,
    health: watch::Receiver<Option<Ended>>,
    /// The login, which the broker compares with the user id of messages, if it is known here.
    login: Option<String>,
    dialect: Dialect,
    window: usize,
    /// Taken, and waiting for credit.
    waiting: VecDeque<Encoded>,
    under_way: FuturesUnordered<UnderWay>,
    sent: u64,
    /// Outcomes that were not told yet.
    known: Vec<(u64, PublishOutcome)>,
    taken: Taken,
    /// Sent, and the answer is that there will be none.
    lost: Vec<Fate>,
    failed: Option<Failed>,
}

/// Why nothing is sent any more.
#[derive(Debug)]
struct Failed {
    cause: Cause,
    /// Whether it was the fault of messages that have their outcome: others may do better.
    explained: bool,
}

/// The link, which takes one message at a time.
#[derive(Default)]
enum Link {
    /// It can take the next.
    Free(Box<fe2o3_amqp::Sender>),
    /// It takes one, as soon as there is credit. A call that waits for that may go away: the message is never
    /// given up halfway.
    Sending(BoxFuture<'static, Sent>),
    #[default]
    Gone,
}

/// What became of a message that the link took.
struct Sent {
    link: Box<fe2o3_amqp::Sender>,
    fate: Fate,
    answer: Result<DeliveryFut<Result<Outcome, SendError>>, SendError>,
}

/// A message as bytes.
struct Encoded {
    fate: Fate,
    sendable: Sendable<Data>,
}

/// What has to be known of a message to judge its outcome.
pub(crate) struct Fate {
    pub(crate) id: u64,
    pub(crate) mandatory: bool,
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
}

/// A message that the broker has not answered yet.
struct UnderWay {
    fate: Option<Fate>,
    answer: DeliveryFut<Result<Outcome, SendError>>,
}

impl Future for UnderWay {
    type Output = (Option<Fate>, Result<Outcome, SendError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready((self.fate.take(), answer))
    }
}

impl Amqp10Sender {
    pub(crate) async fn open(session: &Amqp10Session, window: usize) -> Result<Self> {
        let subject = session.options().subject();
        let channel = session.pool().channel(OPEN, &subject).await?;
        let builder = fe2o3_amqp::Sender::builder()
            .name(session.link_name("sender"))
            .target(address::anonymous(peer::dialect(session.peer())))
            .sender_settle_mode(SenderSettleMode::Unsettled);
        let (link, channel) = session
            .attach(OPEN, &subject, channel, |handle| builder.attach(handle).boxed())
            .await?;
        Ok(Self {
            link: Link::Free(Box::new(link)),
            channel,
            health: session.health(),
            login: session.options().user().map(str::to_owned),
            dialect: peer::dialect(session.peer()),
            window: window.max(1),
            waiting: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            sent: 0,
            known: Vec::new(),
            taken: Taken::default(),
            lost: Vec::new(),
            failed: None,
        })
    }

    /// What never goes out: what the broker would answer by ending the link, with everything under
    /// way on it, and what leads nowhere.
    fn encode(&self, outgoing: &Outgoing) -> Result<Encoded, PublishOutcome> {
        let properties = &outgoing.message.properties;
        if let (Some(user), Some(login)) = (&properties.user_id, &self.login)
            && *user != login.as_str()
        {
            return Err(PublishOutcome::Rejected(
                Error::new(ErrorKind::Denied, PUBLISH).on(target(&outgoing.exchange)).because(
                    format!(
                        "its user id is {:?}, and the broker takes only the login's own, {:?}",
                        user.as_str(),
                        login
                    ),
                ),
            ));
        }
        if !outgoing.exchange.is_empty() && !self.dialect.rabbitmq {
            return Err(PublishOutcome::Rejected(
                Error::new(ErrorKind::Unsupported, PUBLISH)
                    .on(target(&outgoing.exchange))
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
                    .on(format!("queue {:?}", outgoing.routing_key.as_str()))
                    .because("to this broker that may be more than a name"),
            ));
        }
        let to = address::target(&outgoing.exchange, &outgoing.routing_key, self.dialect);
        let bytes = headers::outgoing(&outgoing.message, &to, self.dialect);
        Ok(Encoded {
            fate: Fate {
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
        while !self.waiting.is_empty() || matches!(self.link, Link::Sending(_)) {
            let Some(step) = step(&mut self.link, &mut self.waiting).now_or_never() else { return };
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Sent(under_way) => {
                self.sent += 1;
                self.under_way.push(under_way);
            }
            Step::Unsent(id, outcome) => self.known.push((id, outcome)),
            Step::Failed(cause) => self.fail(cause),
        }
    }

    /// Nothing is sent any more. What the broker says about it may be the outcome of messages.
    fn fail(&mut self, cause: Cause) {
        // Dropping the link makes fe2o3-amqp give up what has no answer.
        self.link = Link::Gone;
        self.waiting.clear();
        if self.failed.is_some() {
            return;
        }
        // What is answered is known before what is not is looked at.
        let mut lost = std::mem::take(&mut self.lost);
        while let Some(Some((fate, answer))) = self.under_way.next().now_or_never() {
            match (fate, answer) {
                (Some(fate), Ok(outcome)) => self.confirmed(&fate, outcome),
                (fate, _) => lost.extend(fate),
            }
        }
        lost.extend(self.under_way.iter_mut().filter_map(|under_way| under_way.fate.take()));
        self.under_way.clear();
        let refused = match &cause {
            Cause::Peer(error) => {
                let text = error.description.as_deref().unwrap_or_default();
                LastWords::read(text).refused(&lost, &self.taken)
            }
            _ => Vec::new(),
        };
        for fate in lost.iter().filter(|fate| refused.contains(&fate.id)) {
            let error = error::failed(PUBLISH, target(&fate.exchange), &cause).transient(false);
            self.known.push((fate.id, PublishOutcome::Rejected(error)));
        }
        self.failed = Some(Failed { cause, explained: !refused.is_empty() });
    }

    fn confirmed(&mut self, fate: &Fate, outcome: Outcome) {
        if matches!(outcome, Outcome::Accepted(_)) {
            self.taken.note(fate);
        }
        self.known.push((fate.id, judge(fate, outcome)));
    }

    fn answered(&mut self, fate: Option<Fate>, answer: Result<Outcome, SendError>) {
        match (fate, answer) {
            (Some(fate), Ok(outcome)) => self.confirmed(&fate, outcome),
            (None, Ok(_)) => {}
            (fate, Err(error)) => {
                self.lost.extend(fate);
                self.fail(error.into());
            }
        }
    }

    /// Whether everything that it took was sent and answered.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.under_way.is_empty()
            && !matches!(self.link, Link::Sending(_))
    }

    /// How many messages it has that have no outcome, or one that was not told.
    fn load(&self) -> usize {
        let sending = usize::from(matches!(self.link, Link::Sending(_)));
        self.waiting.len() + sending + self.under_way.len() + self.known.len()
    }

    /// Appends the outcomes that are there.
    fn collect(&mut self, into: &mut Vec<(u64, PublishOutcome)>) {
        while let Some(Some((fate, answer))) = self.under_way.next().now_or_never() {
            self.answered(fate, answer);
        }
        into.append(&mut self.known);
    }

    fn error(&self, failed: &Failed) -> Error {
        let error = session::failed(PUBLISH_ALL, "", &failed.cause, self.health.borrow().as_ref());
        if !failed.explained {
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
            self.channel.release();
        }
    }
}

/// What an answer of the broker's means.
fn judge(fate: &Fate, outcome: Outcome) -> PublishOutcome {
    match outcome {
        Outcome::Accepted(_) => PublishOutcome::Confirmed,
        Outcome::Released(_) => unrouted(fate.mandatory),
        Outcome::Rejected(Rejected { error: Some(error) }) => {
            let by = error::refused_by(&error);
            let cause = Cause::Peer(error);
            let kind = match error::kind(&cause) {
                kind @ (ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::TooLarge) => kind,
                _ => ErrorKind::Refused,
            };
            let refused = Error::new(kind, PUBLISH).on(target(&fate.exchange));
            PublishOutcome::Rejected(match by {
                Some(by) => refused
                    .because(format!("{by}: {}", error::reason(&cause)))
                    .transient(by.passes()),
                None => refused.because(error::reason(&cause)),
            })
        }
        Outcome::Rejected(Rejected { error: None }) | Outcome::Modified(_) => {
            PublishOutcome::Rejected(
                Error::new(ErrorKind::Refused, PUBLISH)
                    .on(target(&fate.exchange))
                    .because("the broker refused the message, as a full queue does"),
            )
        }
    }
}

/// No queue was bound for a message.
fn unrouted(mandatory: bool) -> PublishOutcome {
    if mandatory { PublishOutcome::Unroutable } else { PublishOutcome::Confirmed }
}

impl fmt::Debug for Amqp10Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp10Sender")
            .field("waiting", &self.waiting.len())
            .field("under_way", &self.under_way.len())
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
                Err(outcome) => self.known.push((outgoing.id, outcome)),
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
                let spent = "the link has carried all that it can count";
                self.take(Step::Failed(Cause::Lost(spent.to_owned())));
                continue;
            }
            let Self { link, waiting, under_way, .. } = self;
            let event = tokio::select! {
                biased;
                Some(answer) = under_way.next() => Ok(answer),
                step = step(link, waiting) => Err(step),
            };
            match event {
                Ok((fate, answer)) => self.answered(fate, answer),
                Err(step) => self.take(step),
            }
        }
    }
}

/// What became of the first message that waits, or of the link.
enum Step {
    Sent(UnderWay),
    Unsent(u64, PublishOutcome),
    Failed(Cause),
}

/// Sends the first message that waits as soon as there is credit; when none does, waits for the end
/// of the link. Cancel safe: what was not sent still waits, or is on its way into the link.
async fn step(link: &mut Link, waiting: &mut VecDeque<Encoded>) -> Step {
    *link = match std::mem::take(link) {
        Link::Free(free) => match waiting.pop_front() {
            Some(first) => Link::Sending(send(free, first).boxed()),
            None => Link::Free(free),
        },
        other => other,
    };
    let Sent { link: free, fate, answer } = match link {
        Link::Sending(sending) => sending.await,
        Link::Free(link) => return Step::Failed(link.on_detach().await.into()),
        Link::Gone => return std::future::pending().await,
    };
    *link = Link::Free(free);
    match answer {
        Ok(answer) => Step::Sent(UnderWay { fate: Some(fate), answer }),
        Err(SendError::MessageSizeExceeded(exceeded)) => {
            let error = Error::new(ErrorKind::TooLarge, PUBLISH)
                .on(target(&fate.exchange))
                .because(format!(
                    "{} bytes exceed the broker's limit of {}",
                    exceeded.size, exceeded.max_size
                ));
            Step::Unsent(fate.id, PublishOutcome::Rejected(error))
        }
        Err(error) => Step::Failed(error.into()),
    }
}

async fn send(mut link: Box<fe2o3_amqp::Sender>, Encoded { fate, sendable }: Encoded) -> Sent {
    let answer = link.send_batchable_ref(&sendable).await;
    Sent { link, fate, answer }
}

/// How an error names where a message was published to.
fn target(exchange: &str) -> String {
    if exchange.is_empty() {
        "the default exchange".to_owned()
    } else {
        format!("exchange {exchange:?}")
    }
}

const OPEN: &str = "open a sender at";
const PUBLISH: &str = "publish to";
const PUBLISH_ALL: &str = "publish";

/// How many messages a link may carry: it counts them in 32 bits, and fe2o3-amqp stands still for
/// good when these are full.
const RECYCLE: u64 = 1 << 31;
