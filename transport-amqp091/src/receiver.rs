//! A receiver: the deliveries of one queue, on a channel of their own.

mod unsettled;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;
use enoki_core::{
    Disposition, Error, ErrorKind, Result, ShortStr,
    transport::{Delivered, End, Receiver, ReceiverOptions, Settle},
};
use futures_util::{FutureExt, Stream, future::poll_fn};
use lapin::{
    Channel, Consumer,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
        BasicQosOptions, BasicRejectOptions,
    },
    protocol::constants::REPLY_SUCCESS,
    types::ShortString,
};
use tokio::{sync::watch, time::timeout};

use self::unsettled::{SettleFrame, Unsettled};
use crate::{
    connection::{Connection, Ended},
    error::{self, queue_subject},
    headers::{
        incoming::{Incoming, from_short, incoming},
        outgoing::{short, table_out},
    },
    limits::REPLY_TIMEOUT,
};

/// A consumer.
pub(crate) struct Amqp091Receiver {
    queue: ShortStr,
    /// The consumer tag (§1.8.3.3).
    tag: ShortString,
    channel: Channel,
    /// lapin's stream of deliveries. Not polled again once `ended` is set.
    consumer: Consumer,
    /// Why the connection has ended, once it has.
    connection_ended: watch::Receiver<Option<Ended>>,
    unsettled: Unsettled,
    /// Empty between two calls; kept for its memory.
    frames: Vec<SettleFrame>,
    /// Whether this side has ended the deliveries, by a cancel or by `stop_last`.
    stopping: bool,
    /// Whether `stop_last` was called: the broker still has its consumer, and deliveries go back to the queue only when
    /// the channel closes. Then `stopping` and `ended` are set, too.
    requeues_by_close: bool,
    /// Whether this side has closed the channel.
    closed: bool,
    /// Why there are no more deliveries, once there are none.
    ended: Option<ReceiverEnd>,
}

/// Why there are no more deliveries; each call tells it again.
#[derive(Debug, Clone)]
enum ReceiverEnd {
    Stopped,
    Cancelled,
    Lost(Option<lapin::Error>),
}

impl Amqp091Receiver {
    /// Starts to consume.
    pub(crate) async fn open(connection: &Connection, options: ReceiverOptions) -> Result<Self> {
        let subject = queue_subject(&options.queue);
        // A consumer tag is local to its channel, and each consumer has a channel of its own.
        let tag = match &options.name {
            Some(name) => short(name)?,
            None => format!("enoki-{}", NEXT_TAG.fetch_add(1, Ordering::Relaxed)).into(),
        };
        let (queue, arguments) = (short(&options.queue)?, table_out(&options.arguments)?);
        let channel = connection.channel(CONSUME, &subject).await?;
        let qos = channel.basic_qos(options.prefetch.get(), BasicQosOptions { global: false });
        connection.answered(CONSUME, &subject, qos).await?;
        let consume =
            channel.basic_consume(queue, tag.clone(), BasicConsumeOptions::default(), arguments);
        let consumer = connection.answered(CONSUME, &subject, consume).await?;
        Ok(Self {
            queue: options.queue,
            tag,
            channel: channel.keep(),
            consumer,
            connection_ended: connection.ended(),
            unsettled: Unsettled::default(),
            frames: Vec::new(),
            stopping: false,
            requeues_by_close: false,
            closed: false,
            ended: None,
        })
    }

    fn take(&mut self, delivery: lapin::message::Delivery) -> Delivered {
        self.unsettled.delivered(delivery.delivery_tag);
        let Incoming { message, attempt, undecodable } =
            incoming(delivery.properties, delivery.data, delivery.redelivered);
        Delivered {
            tag: delivery.delivery_tag,
            message: Arc::new(message),
            exchange: from_short(delivery.exchange),
            routing_key: from_short(delivery.routing_key),
            redelivered: delivery.redelivered,
            attempt,
            undecodable,
        }
    }

    /// Why lapin's stream has ended. It ends in the same way when the queue is deleted, when this side cancels, and when
    /// this side closes the channel.
    fn end_of_stream(&self) -> ReceiverEnd {
        match (self.channel.status().connected(), self.stopping) {
            (true, true) => ReceiverEnd::Stopped,
            (true, false) => ReceiverEnd::Cancelled,
            (false, _) if self.closed => ReceiverEnd::Stopped,
            (false, _) => ReceiverEnd::Lost(None),
        }
    }

    fn end(&self, ended: &ReceiverEnd) -> End {
        match ended {
            ReceiverEnd::Stopped => End::Stopped,
            ReceiverEnd::Cancelled => End::Cancelled(
                Error::new(ErrorKind::NotFound, CONSUME).on(queue_subject(&self.queue)).because(
                    "the broker cancelled the consumer, as it does when a queue is deleted",
                ),
            ),
            ReceiverEnd::Lost(error) => End::Lost(self.lost(error.as_ref())),
        }
    }

    fn lost(&self, error: Option<&lapin::Error>) -> Error {
        match (error, &*self.connection_ended.borrow()) {
            (Some(error), _) => error::failed(CONSUME, queue_subject(&self.queue), error),
            (None, Some(ended)) => ended.error(CONSUME, queue_subject(&self.queue)),
            (None, None) => Error::new(ErrorKind::Connection, CONSUME)
                .on(queue_subject(&self.queue))
                .because("the channel is closed"),
        }
    }

    /// Writes a frame, without waiting for the socket: the first poll puts it in lapin's queue, in the order of the calls.
    /// On a closed channel it fails here, and `receive` returns the end.
    fn write_frame(&self, frame: SettleFrame) {
        let channel = &self.channel;
        let _ = match frame {
            SettleFrame::Ack(tag) => {
                channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never()
            }
            SettleFrame::AckUpTo(tag) => {
                channel.basic_ack(tag, BasicAckOptions { multiple: true }).now_or_never()
            }
            SettleFrame::Requeue(tag) => {
                channel.basic_reject(tag, BasicRejectOptions { requeue: true }).now_or_never()
            }
            SettleFrame::Release(tag) => channel
                .basic_nack(tag, BasicNackOptions { multiple: false, requeue: true })
                .now_or_never(),
            SettleFrame::Reject(tag) => {
                channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never()
            }
        };
    }
}

impl Drop for Amqp091Receiver {
    /// Closes the channel, so that everything unsettled goes back to the queue, and drops lapin's consumer after that.
    /// lapin's consumer would cancel itself first. On a queue with a single active consumer the broker would then give the
    /// next consumer the messages behind the deliveries that are still on their way back.
    fn drop(&mut self) {
        // The first poll puts the frame in lapin's queue; lapin handles the answer by itself.
        let _ = self.channel.close(REPLY_SUCCESS, "OK".into()).now_or_never();
    }
}

impl fmt::Debug for Amqp091Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp091Receiver")
            .field("queue", &self.queue)
            .field("channel", &self.channel.id())
            .field("stopping", &self.stopping)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Receiver for Amqp091Receiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        if let Some(ended) = &self.ended {
            return Err(self.end(ended));
        }
        let mut taken = 0;
        poll_fn(|cx| {
            while taken < max.max(1) {
                let ended = match Pin::new(&mut self.consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => {
                        let delivered = self.take(delivery);
                        into.push(delivered);
                        taken += 1;
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => ReceiverEnd::Lost(Some(error)),
                    Poll::Ready(None) => self.end_of_stream(),
                    Poll::Pending if taken > 0 => break,
                    Poll::Pending => return Poll::Pending,
                };
                // lapin's stream would wait forever if it were polled again.
                self.ended = Some(ended);
                break;
            }
            Poll::Ready(())
        })
        .await;
        match &self.ended {
            Some(ended) if taken == 0 => Err(self.end(ended)),
            _ => Ok(()),
        }
    }

    fn settle(&mut self, settlements: &[Settle]) {
        let mut frames = std::mem::take(&mut self.frames);
        if self.requeues_by_close {
            let mut removed = settlements.to_vec();
            removed.retain(|settle| match settle.disposition {
                Disposition::Accept | Disposition::Reject => true,
                Disposition::Return { .. } => false,
            });
            self.unsettled.settle(&removed, &mut frames);
        } else {
            self.unsettled.settle(settlements, &mut frames);
        }
        for frame in frames.drain(..) {
            self.write_frame(frame);
        }
        self.frames = frames;
    }

    async fn stop(&mut self) -> Result<()> {
        if self.stopping || self.ended.is_some() {
            return Ok(());
        }
        self.stopping = true;
        let cancel = self.channel.basic_cancel(self.tag.clone(), BasicCancelOptions::default());
        match timeout(REPLY_TIMEOUT, cancel).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::failed("stop", queue_subject(&self.queue), &error)),
            Err(_) => Err(error::timed_out("stop", queue_subject(&self.queue))),
        }
    }

    /// Sends no `basic.cancel`: RabbitMQ would make the next consumer active at once, and give it the messages behind the
    /// deliveries that are unsettled here. When the channel closes instead, those are back in the queue first.
    async fn stop_last(&mut self) -> Result<()> {
        if self.ended.is_none() {
            self.stopping = true;
            self.requeues_by_close = true;
            self.ended = Some(ReceiverEnd::Stopped);
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if !self.channel.status().connected() {
            return Ok(());
        }
        self.closed = true;
        // Frames of one channel are written in order, so the answer shows that the broker has read every settlement
        // before it.
        let close = self.channel.close(REPLY_SUCCESS, "OK".into());
        match timeout(REPLY_TIMEOUT, close).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error::failed("close", queue_subject(&self.queue), &error)),
            Err(_) => Err(error::timed_out("close", queue_subject(&self.queue))),
        }
    }
}

const CONSUME: &str = "consume from";

/// Makes consumer tags differ within this process, so that an operator can tell consumers apart.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);
