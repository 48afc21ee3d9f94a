//! Promises of this transport alone: about connections that break or fall silent, and brokers that are too
//! old.

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use enoki_core::{
    BrokerUrl, ErrorKind, Message, Overflow, Purpose, QueueSpec, ShortStr, Transport,
    transport::{Change, End, Outgoing, PublishOutcome, ReceiverOptions, SenderOptions, Session},
};
use enoki_transport_amqp10::Amqp10Transport;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::{Instant, timeout},
};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("a_connection_that_breaks_leaves_no_call_waiting", "ENOKI_RABBITMQ_4", dies),
        trial("a_connection_that_falls_silent_ends", "ENOKI_RABBITMQ_4", falls_silent),
        trial("a_broker_before_4_is_refused_with_the_way_out", "ENOKI_RABBITMQ_3", too_old),
        trial("artemis_keeps_a_message_to_a_queue_that_it_makes_for_it", "ENOKI_ARTEMIS", unknown),
        trial("a_session_ends_after_its_links_are_attached", "ENOKI_RABBITMQ_4", given_up),
        trial("so_it_does_on_artemis", "ENOKI_ARTEMIS", given_up),
        trial("artemis_is_sent_to_no_name_that_is_more", "ENOKI_ARTEMIS", more_than_a_name),
        trial("a_full_queue_is_named_by_what_it_refuses", "ENOKI_RABBITMQ_4_3", full),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Checked = Result<(), Box<dyn std::error::Error>>;

fn trial<F: Future<Output = Checked>>(
    name: &str,
    variable: &'static str,
    run: impl FnOnce(String) -> F + Send + 'static,
) -> Trial {
    Trial::ignorable_test(format!("broker::{name}"), move || {
        let Ok(url) = std::env::var(variable) else {
            if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1") {
                return Err(format!("{variable} is not set, and brokers are required").into());
            }
            return Ok(Completion::ignored_with(format!("needs {variable}")));
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failed::from(error.to_string()))?;
        let url = url.replacen("amqp091", "amqp10", 1);
        runtime
            .block_on(async { timeout(PATIENCE, run(url)).await })
            .map_err(|_| Failed::from("it took too long"))?
            .map_err(|error| Failed::from(error.to_string()))?;
        Ok(Completion::Completed)
    })
}

async fn open(url: &str) -> Result<Arc<dyn Session>, Box<dyn std::error::Error>> {
    let transport = Amqp10Transport::new(&BrokerUrl::parse(url)?)?;
    Ok(transport.connect(Purpose::Consume, Instant::now() + Duration::from_secs(8)).await?)
}

fn queue(label: &str) -> Result<QueueSpec, enoki_core::Error> {
    QueueSpec::new(format!("enoki-amqp10.{label}.{}", std::process::id()))
}

fn outgoing(id: u64, queue: &QueueSpec, message: Message) -> Outgoing {
    Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: queue.name.clone(),
        mandatory: true,
        message: Arc::new(message),
    }
}

/// A proxy to the broker that can be cut, or can stop carrying bytes.
struct Way {
    url: String,
    cut: Arc<Notify>,
    silent: Arc<AtomicBool>,
    hushed: Arc<Notify>,
}

async fn way(url: &str) -> Result<Way, Box<dyn std::error::Error>> {
    let parsed = BrokerUrl::parse(url)?;
    let broker = format!("{}:{}", parsed.host().ok_or("no host")?, parsed.port().ok_or("no port")?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.to_string();
    let (cut, silent, hushed) = <(Arc<Notify>, Arc<AtomicBool>, Arc<Notify>)>::default();
    let shared = (cut.clone(), silent.clone(), hushed.clone());
    let there = broker.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (cut, silent, hushed) = shared.clone();
            let there = there.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(there).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                    () = hushed.notified() => {}
                }
                if silent.load(Ordering::SeqCst) {
                    // The sockets stay open, and no byte moves.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    Ok(Way { url: url.replacen(&broker, &here, 1), cut, silent, hushed })
}

/// A slow proxy to the broker, and the frames of links and sessions that pass it, in their order.
async fn watched(url: &str) -> Result<(String, Arc<Mutex<Vec<Seen>>>), Box<dyn std::error::Error>> {
    let parsed = BrokerUrl::parse(url)?;
    let broker = format!("{}:{}", parsed.host().ok_or("no host")?, parsed.port().ok_or("no port")?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.to_string();
    let seen = Arc::default();
    let (there, noted) = (broker.clone(), Arc::clone(&seen));
    tokio::spawn(async move {
        let (Ok((near, _)), Ok(far)) = (listener.accept().await, TcpStream::connect(there).await)
        else {
            return;
        };
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(
            pass_on(near_in, far_out, Seen::from_us, &noted),
            pass_on(far_in, near_out, Seen::from_broker, &noted),
        );
    });
    Ok((url.replacen(&broker, &here, 1), seen))
}

/// The facts about a frame. Each side numbers channels by itself, so a link is known by its name.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Attach { channel: u16, link: Vec<u8> },
    Attached { link: Vec<u8> },
    End { channel: u16 },
    Other,
}

impl Seen {
    fn from_us(channel: u16, performative: u8, fields: &[u8]) -> Self {
        match performative {
            0x12 => Self::Attach { channel, link: link_name(fields) },
            0x17 => Self::End { channel },
            _ => Self::Other,
        }
    }

    fn from_broker(_: u16, performative: u8, fields: &[u8]) -> Self {
        match performative {
            0x12 => Self::Attached { link: link_name(fields) },
            _ => Self::Other,
        }
    }
}

/// The first field of an attach: a string, in a list. Empty if it is not one; no link has an empty name.
fn link_name(fields: &[u8]) -> Vec<u8> {
    let name = match fields {
        [0xc0, _, _, rest @ ..] | [0xd0, _, _, _, _, _, _, _, _, rest @ ..] => rest,
        _ => &[],
    };
    let (length, rest) = match name {
        [0xa1, length, rest @ ..] => (usize::from(*length), rest),
        [0xb1, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => (0, name),
    };
    rest.get(..length).unwrap_or_default().to_vec()
}

/// Passes frames on after a pause, so that other frames can come meanwhile.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: fn(u16, u8, &[u8]) -> Seen,
    noted: &Mutex<Vec<Seen>>,
) {
    let mut bytes = Vec::new();
    while from.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let mut whole = 0;
        while let Some(frame) = bytes.get(whole..).filter(|rest| rest.len() >= 8) {
            let size = match frame {
                [b'A', b'M', b'Q', b'P', ..] => 8,
                [a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
                _ => break,
            };
            if frame.len() < size {
                break;
            }
            // A body begins with a descriptor: 0x00, 0x53 and the performative.
            if let Some([a, b, 0x00, 0x53, performative, fields @ ..]) = frame.get(6..size) {
                let channel = u16::from_be_bytes([*a, *b]);
                let seen = seen(channel, *performative, fields);
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
            whole += size;
        }
        if to.write_all(bytes.get(..whole).unwrap_or_default()).await.is_err() {
            return;
        }
        bytes.drain(..whole);
    }
}

/// If a session ended while a link attached, Artemis would stop writing on the connection.
async fn given_up(url: String) -> Checked {
    let queue = queue("given-up")?;
    let (url, seen) = watched(&url).await?;
    let session = open(&url).await?;
    session.apply(&Change::DeclareQueue(queue.clone())).await?;
    for millis in 0..12 {
        // It leaves an AMQP session in the pool, so the next link begins with its attach.
        session.receiver(of(&queue.name, 5)).await?.close().await?;
        let opening = session.receiver(of(&queue.name, 5));
        if let Ok(opened) = timeout(Duration::from_millis(millis), opening).await {
            opened?.close().await?;
        }
    }
    session.apply(&Change::VerifyQueue(queue.clone())).await?;
    session.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    session.close(Instant::now() + PATIENCE).await;
    let (mut unanswered, mut ends) = (Vec::new(), 0);
    for frame in seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        match frame {
            Seen::Attach { link, .. } if link.is_empty() => {
                return Err("the name of a link was not found in its attach".into());
            }
            Seen::Attach { channel, link } => unanswered.push((*channel, link)),
            Seen::Attached { link } => unanswered.retain(|(_, attached)| *attached != link),
            Seen::End { channel } => {
                if unanswered.iter().any(|(on, _)| on == channel) {
                    return Err("a session ended before the attach on it was answered".into());
                }
                ends += 1;
            }
            Seen::Other => {}
        }
    }
    if ends == 0 { Err("no session ended, so nothing was tried".into()) } else { Ok(()) }
}

async fn dies(url: String) -> Checked {
    let queue = queue("dies")?;
    let direct = open(&url).await?;
    direct.apply(&Change::DeclareQueue(queue.clone())).await?;
    for _ in 0..5 {
        let way = way(&url).await?;
        let session = open(&way.url).await?;
        let mut sender = session.sender(window(1000)).await?;
        let mut receiver = session.receiver(of(&queue.name, 10)).await?;
        let mut messages: VecDeque<_> =
            (0..1000).map(|id| outgoing(id, &queue, Message::new(vec![0; 1000]))).collect();
        sender.submit(&mut messages).await?;
        let mut outcomes = Vec::new();
        sender.outcomes(&mut outcomes).await?;
        way.cut.notify_waiters();
        let error = loop {
            if let Err(error) = sender.outcomes(&mut outcomes).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        assert!(outcomes.len() < 1000, "the connection was cut too late");
        let mut deliveries = Vec::new();
        let error = loop {
            match receiver.receive(&mut deliveries, 100).await {
                Ok(()) => {}
                Err(End::Lost(error)) => break error,
                Err(other) => return Err(format!("{other:?}").into()),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        assert_eq!(session.ended().await.kind(), ErrorKind::Connection);
        session.close(Instant::now() + Duration::from_secs(5)).await;
    }
    direct.apply(&Change::DeleteQueue(queue.name)).await?;
    Ok(())
}

async fn falls_silent(url: String) -> Checked {
    let way = way(&url).await?;
    let session = open(&format!("{}?heartbeat=3", way.url)).await?;
    // So long that only heartbeats can have kept the connection open.
    let early = timeout(Duration::from_secs(9), session.ended()).await;
    assert!(early.is_err(), "{early:?}");
    way.silent.store(true, Ordering::SeqCst);
    way.hushed.notify_waiters();
    let error = timeout(PATIENCE, session.ended()).await?;
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.to_string().contains("heartbeats"), "{error}");
    let closing = Instant::now();
    session.close(closing + Duration::from_secs(2)).await;
    assert!(closing.elapsed() < PATIENCE / 4);
    Ok(())
}

async fn too_old(url: String) -> Checked {
    let Err(error) = open(&url).await else { return Err("it was taken".into()) };
    let error = error.downcast::<enoki_core::Error>()?;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("amqp091:"), "{error}");
    Ok(())
}

/// Without the capability `queue` Artemis would make a topic, and the message would be lost.
async fn unknown(url: String) -> Checked {
    let mut queue = queue("unknown")?;
    let session = open(&url).await?;
    let mut sender = session.sender(window(1)).await?;
    let mut sent = outgoing(0, &queue, Message::new("kept"));
    sent.mandatory = false;
    sender.submit(&mut VecDeque::from([sent])).await?;
    let mut outcomes = Vec::new();
    sender.outcomes(&mut outcomes).await?;
    assert!(matches!(outcomes[..], [(0, PublishOutcome::Confirmed)]), "{outcomes:?}");
    // By the queue's name, as a queue with default options.
    for passive in [true, false] {
        queue.passive = passive;
        assert_eq!(session.apply(&Change::VerifyQueue(queue.clone())).await?.messages, 1);
    }
    session.apply(&Change::DeleteQueue(queue.name)).await?;
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

async fn more_than_a_name(url: String) -> Checked {
    let session = open(&url).await?;
    let mut sender = session.sender(window(10)).await?;
    let names = ["a::b", "a?b", "a.*", "#"];
    let mut messages = VecDeque::new();
    for (id, name) in (0..).zip(names) {
        messages.push_back(outgoing(id, &QueueSpec::new(name)?, Message::new("x")));
    }
    sender.submit(&mut messages).await?;
    let mut outcomes = Vec::new();
    while outcomes.len() < names.len() {
        sender.outcomes(&mut outcomes).await?;
    }
    for (_, outcome) in outcomes {
        let PublishOutcome::Rejected(error) = outcome else {
            return Err(format!("{outcome:?}").into());
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

/// Since 4.3 RabbitMQ names the queue that refused a message, and its reason.
async fn full(url: String) -> Checked {
    let mut queue = queue("full")?;
    queue.max_length = Some(1);
    queue.overflow = Some(Overflow::RejectPublish);
    let session = open(&url).await?;
    session.apply(&Change::DeclareQueue(queue.clone())).await?;
    let mut sender = session.sender(window(1)).await?;
    let mut refused = None;
    for id in 0..2 {
        let message = outgoing(id, &queue, Message::new("x"));
        sender.submit(&mut VecDeque::from([message])).await?;
        let mut outcomes = Vec::new();
        sender.outcomes(&mut outcomes).await?;
        refused = outcomes.pop();
    }
    session.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    let Some((1, PublishOutcome::Rejected(error))) = refused else {
        return Err(format!("{refused:?}").into());
    };
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(!error.is_transient(), "{error}");
    let named = format!("queue {:?} refused it (maxlen)", queue.name.as_str());
    assert!(error.to_string().contains(&named), "{error}");
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

/// How long a trial may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap_or(NonZeroU16::MIN))
}

fn of(queue: &ShortStr, prefetch: u16) -> ReceiverOptions {
    ReceiverOptions::new(queue.clone(), NonZeroU16::new(prefetch).unwrap_or(NonZeroU16::MIN))
}
