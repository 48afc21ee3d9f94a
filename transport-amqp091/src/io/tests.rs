use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use enoki_core::{Message, Properties, ShortStr, transport::Outgoing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::{
    connection_io::{ConnectionIo, WRITE_AHEAD},
    task::run,
};
use crate::{
    limits::FRAME_MAX,
    proto::encode,
    publishing::channel::{Closed, PublishChannel},
};

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xce);
    frame
}

/// A `connection.start` without properties.
fn start() -> Vec<u8> {
    frame(1, 0, b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")
}

fn ack_of_lapin(tag: u8) -> Vec<u8> {
    frame(1, 2, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, tag, 0])
}

fn outgoing(id: u64, body: usize) -> Outgoing {
    let message_id = Some(ShortStr::new(format!("m{id}")).unwrap());
    Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: ShortStr::EMPTY,
        mandatory: true,
        message: Arc::new(Message {
            body: Bytes::from(vec![id as u8; body]),
            properties: Properties { message_id, ..Properties::default() },
            ..Message::default()
        }),
    }
}

/// A connection, its task, and the broker at the other end.
struct Harness {
    io: Arc<ConnectionIo>,
    task: JoinHandle<()>,
    broker: TcpStream,
}

impl Harness {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (broker, _) = listener.accept().await.unwrap();
        let io = Arc::new(ConnectionIo::new(1 << 20));
        let task = tokio::spawn(run(socket, io.clone()));
        let mut harness = Self { io, task, broker };
        harness.broker_sends(&start()).await;
        harness
    }

    /// The broker sends these bytes, and lapin reads them.
    async fn broker_sends(&mut self, bytes: &[u8]) {
        self.broker.write_all(bytes).await.unwrap();
        assert_eq!(read(&self.io, bytes.len()).await, bytes);
    }

    /// The task has done its work: it writes before lapin can read this.
    async fn task_has_run(&mut self) {
        self.broker_sends(&frame(8, 0, &[])).await;
    }

    fn publish(&self, channel: &PublishChannel, id: u64, body: usize) {
        let outgoing = outgoing(id, body);
        let head = encode::head(channel.number(), &outgoing, self.io.frame_max()).unwrap();
        assert!(channel.take(&outgoing, head));
        self.io.wake();
    }

    /// The next frame at the broker: kind, channel, payload.
    async fn broker_receives(&mut self) -> (u8, u16, Vec<u8>) {
        soon(async {
            let mut header = [0; 7];
            self.broker.read_exact(&mut header).await.unwrap();
            let [kind, c0, c1, length @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
            self.broker.read_exact(&mut payload).await.unwrap();
            assert_eq!(payload.pop(), Some(0xce));
            (kind, u16::from_be_bytes([c0, c1]), payload)
        })
        .await
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("nothing happened in time")
}

async fn read(io: &ConnectionIo, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let mut some = [0; 100];
        let room = some.len().min(count - bytes.len());
        let read = poll_fn(|cx| io.poll_read(cx, &mut some[..room]));
        let read = soon(read).await.unwrap();
        bytes.extend_from_slice(&some[..read]);
    }
    bytes
}

async fn write(io: &ConnectionIo, bytes: &[u8]) -> io::Result<usize> {
    soon(poll_fn(|cx| io.poll_write(cx, &[io::IoSlice::new(bytes)]))).await
}

#[tokio::test]
async fn messages_stay_whole_and_in_order_beside_what_lapin_writes() {
    let mut harness = Harness::new().await;
    let channels = [harness.io.attach(1), harness.io.attach(3)];
    // Half a frame of lapin's has to wait for the other half.
    let (half, rest) = (&ack_of_lapin(0)[..5], &ack_of_lapin(0)[5..]);
    write(&harness.io, half).await.unwrap();
    let bodies = [0, 1, 20_000, 300_000, 1000];
    for (id, body) in (1..).zip(bodies.into_iter().cycle().take(40)) {
        for channel in &channels {
            harness.publish(channel, id, body);
        }
    }
    write(&harness.io, rest).await.unwrap();
    let io = harness.io.clone();
    let lapin = tokio::spawn(async move {
        for tag in 1..20 {
            write(&io, &ack_of_lapin(tag)).await.unwrap();
        }
    });
    let (mut published, mut acknowledged) = ([0; 2], 0);
    while published != [40, 40] || acknowledged < 20 {
        let (kind, channel, payload) = harness.broker_receives().await;
        if channel == 2 {
            assert_eq!((kind, payload[11]), (1, acknowledged));
            acknowledged += 1;
            continue;
        }
        assert_eq!((kind, &payload[..4]), (1, &[0, 60, 0, 40][..]));
        let id = &mut published[usize::from(channel / 2)];
        *id += 1;
        let (kind, other, header) = harness.broker_receives().await;
        assert_eq!((kind, other), (2, channel));
        let mut left = u64::from_be_bytes(header[4..12].try_into().unwrap()) as usize;
        assert_eq!(left, bodies[(*id as usize - 1) % bodies.len()]);
        while left > 0 {
            let (kind, other, part) = harness.broker_receives().await;
            assert_eq!((kind, other), (3, channel));
            assert!(part.iter().all(|byte| *byte == *id) && part.len() + 8 <= FRAME_MAX as usize);
            left -= part.len();
        }
    }
    lapin.await.unwrap();
}

#[tokio::test]
async fn a_broker_that_does_not_read_holds_up_lapin_and_the_senders() {
    let mut harness = Harness::new().await;
    let channel = harness.io.attach(1);
    for id in 1..200 {
        harness.publish(&channel, id, 1 << 20);
    }
    // Full as soon as the socket is full: then lapin waits, and so do the messages.
    let mut taken = 0;
    while let Ok(written) =
        timeout(Duration::from_millis(200), write(&harness.io, &ack_of_lapin(7))).await
    {
        taken += written.unwrap();
        tokio::task::yield_now().await;
        assert!(taken < 8 << 20, "lapin's writes are held without a limit");
    }
    assert!(harness.io.lock().output.len() < 2 << 20);
    // It continues where it stopped.
    let io = harness.io.clone();
    let lapin = tokio::spawn(async move { write(&io, &ack_of_lapin(9)).await });
    while harness.broker_receives().await != (1, 2, ack_of_lapin(9)[7..20].to_vec()) {}
    lapin.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_that_blocks_gets_no_message_until_it_no_longer_does() {
    let mut harness = Harness::new().await;
    let channel = harness.io.attach(1);
    harness.broker_sends(&frame(1, 0, b"\0\x0a\0\x3c\x03low")).await;
    harness.publish(&channel, 1, 10);
    harness.task_has_run().await;
    write(&harness.io, &ack_of_lapin(1)).await.unwrap();
    assert_eq!(harness.broker_receives().await.1, 2);
    harness.broker_sends(&frame(1, 0, &[0, 10, 0, 61])).await;
    assert_eq!(harness.broker_receives().await.1, 1);
}

#[tokio::test]
async fn nothing_is_written_on_a_channel_that_the_broker_or_lapin_closed() {
    let mut harness = Harness::new().await;
    let (one, three) = (harness.io.attach(1), harness.io.attach(3));
    // Messages that wait for the end of a pause are never written.
    for channel in [1, 3] {
        harness.broker_sends(&frame(1, channel, &[0, 20, 0, 20, 0])).await;
    }
    harness.publish(&one, 1, 10);
    harness.publish(&three, 1, 10);
    harness.broker_sends(&frame(1, 1, b"\0\x14\0\x28\x01\x94\x02no\0\0\0\0")).await;
    harness.broker_sends(&frame(1, 1, &[0, 20, 0, 20, 1])).await;
    harness.task_has_run().await;
    write(&harness.io, &frame(1, 3, b"\0\x14\0\x28\0\xc8\0\0\0\0\0")).await.unwrap();
    write(&harness.io, &frame(1, 1, &[0, 20, 0, 41])).await.unwrap();
    harness.broker_sends(&frame(1, 3, &[0, 20, 0, 20, 1])).await;
    assert!(!one.take(&outgoing(2, 10), vec![]) && !three.take(&outgoing(2, 10), vec![]));
    harness.task_has_run().await;
    harness.io.release();
    assert_eq!(harness.broker_receives().await.2[..4], [0, 20, 0, 40]);
    assert_eq!(harness.broker_receives().await, (1, 1, vec![0, 20, 0, 41]));
    assert_eq!(soon(harness.broker.read(&mut [0])).await.unwrap(), 0);
}

/// Otherwise lapin would close the channel from this side, too, and give its number to the next channel.
#[tokio::test]
async fn a_sender_learns_that_the_broker_closed_its_channel_once_lapin_knows() {
    let mut harness = Harness::new().await;
    let channel = harness.io.attach(1);
    harness.publish(&channel, 1, 10);
    harness.broker_receives().await;
    let mut outcomes = Vec::new();
    harness.broker_sends(&frame(1, 1, b"\0\x14\0\x28\x01\x94\x02no\0\0\0\0")).await;
    let early = poll_fn(|cx| Poll::Ready(channel.poll_outcomes(cx, &mut outcomes))).await;
    assert!(early.is_pending(), "{early:?}");
    assert!(poll_fn(|cx| Poll::Ready(channel.poll_drained(cx))).await.is_pending());
    let closed = poll_fn(|cx| channel.poll_outcomes(cx, &mut outcomes));
    let close_ok = frame(1, 1, &[0, 20, 0, 41]);
    let (closed, written) = tokio::join!(soon(closed), write(&harness.io, &close_ok));
    written.unwrap();
    assert!(matches!(closed, Some(Closed::ByBroker { .. })), "{closed:?}");
    soon(poll_fn(|cx| channel.poll_drained(cx))).await;
}

#[tokio::test]
async fn lapin_and_senders_learn_the_end_of_a_socket_after_the_bytes_before_it() {
    let mut harness = Harness::new().await;
    let channel = harness.io.attach(1);
    harness.publish(&channel, 1, 10);
    harness.publish(&channel, 2, 10);
    harness.broker_receives().await;
    let last = frame(8, 0, &[]);
    let ack = frame(1, 1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    harness.broker.write_all(&[ack, last.clone()].concat()).await.unwrap();
    harness.broker.shutdown().await.unwrap();
    assert_eq!(read(&harness.io, last.len()).await, last);
    let mut some = [0; 10];
    assert_eq!(soon(poll_fn(|cx| harness.io.poll_read(cx, &mut some))).await.unwrap(), 0);
    soon(poll_fn(|cx| channel.poll_drained(cx))).await;
    assert!(!harness.io.attach(2).take(&outgoing(3, 10), vec![]));
    soon(harness.task).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_closes_its_socket_at_once() {
    let mut harness = Harness::new().await;
    harness.io.cut();
    let mut some = [0; 10];
    assert!(soon(poll_fn(|cx| harness.io.poll_read(cx, &mut some))).await.is_err());
    assert!(write(&harness.io, &ack_of_lapin(1)).await.is_err());
    assert!(matches!(soon(harness.broker.read(&mut some)).await, Ok(0) | Err(_)));
    soon(harness.task).await.unwrap();
}

#[tokio::test]
async fn a_connection_whose_task_ends_with_its_runtime_fails_for_lapin() {
    let harness = Harness::new().await;
    harness.task.abort();
    let mut some = [0; 10];
    assert!(soon(poll_fn(|cx| harness.io.poll_read(cx, &mut some))).await.is_err());
    assert!(write(&harness.io, &ack_of_lapin(1)).await.is_err());
}

#[tokio::test]
async fn the_last_bytes_of_lapin_arrive_before_the_end() {
    let mut harness = Harness::new().await;
    for tag in 0..200 {
        write(&harness.io, &ack_of_lapin(tag)).await.unwrap();
    }
    harness.io.release();
    for tag in 0..200 {
        assert_eq!(harness.broker_receives().await.2[11], tag);
    }
    assert_eq!(soon(harness.broker.read(&mut [0])).await.unwrap(), 0);
    soon(harness.io.socket().ended()).await;
}

/// Without it lapin would give up the connection: the broker sends no heartbeats while it sends other frames.
#[tokio::test]
async fn lapin_reads_a_heartbeat_while_all_frames_are_for_senders() {
    let mut harness = Harness::new().await;
    let _outlet = harness.io.attach(1);
    let io = harness.io.clone();
    let heard = read(&io, 8);
    tokio::pin!(heard);
    let ack = frame(1, 1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let heard = loop {
        harness.broker.write_all(&ack).await.unwrap();
        tokio::select! {
            heard = &mut heard => break heard,
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    };
    assert_eq!(heard, frame(8, 0, &[]));
}

/// A socket that takes few bytes at a time, and its other end. The bytes that pass it show, without a clock, who waits
/// for whom.
struct SmallSocket {
    io: Arc<ConnectionIo>,
    broker: DuplexStream,
    seen: Vec<u8>,
}

const SMALL: usize = 16 * 1024;

impl SmallSocket {
    fn new() -> Self {
        let (socket, broker) = duplex(SMALL);
        let io = Arc::new(ConnectionIo::new(1 << 20));
        tokio::spawn(run(socket, io.clone()));
        Self { io, broker, seen: Vec::new() }
    }

    /// A sender with more messages than the test ever reads.
    fn busy(&self, number: u16, body: usize) -> Arc<PublishChannel> {
        let channel = self.io.attach(number);
        let outgoing = Outgoing { mandatory: false, ..outgoing(1, body) };
        for _ in 0..(32 << 20) / body {
            let head = encode::head(number, &outgoing, self.io.frame_max()).unwrap();
            assert!(channel.take(&outgoing, head));
        }
        self.io.wake();
        channel
    }

    /// The broker reads all bytes that are in the socket; then the task writes more.
    async fn pass(&mut self) {
        let mut some = vec![0; SMALL];
        soon(self.broker.read_exact(&mut some)).await.unwrap();
        self.seen.extend_from_slice(&some);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// How many bytes the broker read before these; fails after so many passes.
    async fn until(&mut self, bytes: &[u8], passes: usize) -> usize {
        for _ in 0..passes {
            let found = self.seen.windows(bytes.len()).position(|window| window == bytes);
            if let Some(at) = found {
                return at;
            }
            self.pass().await;
        }
        panic!("not among the first {} bytes", self.seen.len());
    }
}

/// lapin opens and closes the channels of all senders: its frames must not wait for the busy ones.
#[tokio::test]
async fn lapin_waits_for_no_sender_however_busy() {
    for body in [1000, 64 * 1024, 1 << 20] {
        let mut small = SmallSocket::new();
        let _busy = small.busy(1, body);
        for _ in 0..10 {
            small.pass().await;
        }
        // lapin tries once in each pass, as if its thread were never quick enough to try in between.
        let mut passes = 0;
        let pieces = ack_of_lapin(7);
        let written = |io: &ConnectionIo| {
            let mut cx = Context::from_waker(Waker::noop());
            io.poll_write(&mut cx, &[io::IoSlice::new(&pieces)]).is_ready()
        };
        while !written(&small.io) {
            passes += 1;
            assert!(passes < 100, "it waits for a sender with bodies of {body}");
            small.pass().await;
        }
        let before = small.seen.len();
        let at = small.until(&ack_of_lapin(7), 1000).await;
        let most = WRITE_AHEAD + body + 2 * SMALL;
        assert!(at - before <= most, "{} bytes went before it", at - before);
    }
}

#[tokio::test]
async fn senders_that_are_busy_have_equal_shares_and_one_that_is_not_gets_through() {
    for bodies in [[4 << 10, 4 << 10], [64 << 10, 64 << 10], [100 << 10, 4 << 10]] {
        let mut small = SmallSocket::new();
        let _busy = [small.busy(1, bodies[0]), small.busy(3, bodies[1])];
        for _ in 0..200 {
            small.pass().await;
        }
        // By their methods: `basic.publish` on each channel.
        let begins = |channel: u8| [1, 0, channel, 0, 0, 0, 9, 0, 60, 0, 40];
        let written = |channel: u8| {
            let begins = begins(channel);
            small.seen.windows(begins.len()).filter(|window| *window == begins).count()
        };
        // Shares are of whole messages, and at least so large.
        let turns = |channel, body: usize| written(channel) * body * 100 / body.max(SMALL);
        let [one, three] = [turns(1, bodies[0]), turns(3, bodies[1])];
        assert!(one.abs_diff(three) <= one / 4, "{bodies:?}: {one}% and {three}% of a turn");

        let third = small.io.attach(5);
        let outgoing = outgoing(1, 10);
        let head = encode::head(5, &outgoing, small.io.frame_max()).unwrap();
        let before = small.seen.len();
        assert!(third.take(&outgoing, head));
        small.io.wake();
        let at = small.until(&begins(5), 1000).await;
        let most = WRITE_AHEAD + bodies[0] + bodies[1] + 4 * SMALL;
        assert!(at - before <= most, "{} bytes went before it", at - before);
    }
}
