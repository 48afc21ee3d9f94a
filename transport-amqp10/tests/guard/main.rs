//! Bytes that no client library sends: from publishers by way of real brokers, and from scripted brokers that
//! are hostile. A bad message costs itself, a bad frame its connection, and the error says why.
// clippy does not see that this is a test, since there is no `#[test]`.
#![allow(clippy::indexing_slicing, clippy::print_stdout)]

mod control;
mod hostile;
mod wire;

use std::{
    collections::VecDeque,
    io,
    num::NonZeroU16,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use enoki_core::{
    Body, Broker, BrokerUrl, DeadLetter, ErrorKind, Handler, Message, Purpose, QueueSpec, Raw,
    Service, ShortStr, State, Transport,
    transport::{Change, Outgoing, SenderOptions, Session, Settings},
};
use enoki_transport_amqp10::Amqp10Transport;
use futures_util::{FutureExt, future::join_all};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

use self::{
    control::End,
    hostile::Script,
    wire::{
        AMQP, Client, array, binary, described, frame, list, map, null, string, symbol, truth, uint,
    },
};

fn main() -> ExitCode {
    if control::is_child() {
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init();
    let mut trials = Vec::new();
    for (broker, variable) in
        [("rabbitmq-4", "ENOKI_RABBITMQ_4"), ("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3")]
    {
        let url = std::env::var(variable).ok().map(|url| url.replacen("amqp091", "amqp10", 1));
        // Tested where it runs; it is not required.
        if url.is_none() && broker == "rabbitmq-4.3" {
            continue;
        }
        let needs = Needs { broker: Some(broker), variable, url };
        trials.push(needs.trial("each_hostile_message_is_a_dead_letter_and_no_other_is", hostile));
        trials.push(needs.trial("without_the_check_a_nested_message_aborts", aborts));
    }
    let none = Needs { broker: None, variable: "", url: Some(String::new()) };
    trials.push(none.trial("a_wish_for_frames_of_any_size_is_granted_or_refused", frames));
    trials.push(none.trial("a_login_or_open_that_goes_too_deep_is_an_error", deep));
    trials.push(none.trial("without_the_check_a_nested_answer_aborts", deep_aborts));
    trials.push(none.trial("a_frame_that_cannot_be_read_ends_the_connection", broken));
    trials.push(none.trial("a_message_of_many_frames_goes_out_once_and_whole", whole));
    trials.push(none.trial("what_does_not_fit_on_any_connection_is_an_error_at_once", full));
    trials.push(none.trial("a_broker_that_begins_no_session_is_too_slow_and_not_gone", mute));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Checked = Result<(), Failure>;

/// The broker that a trial needs, if it needs a real one.
struct Needs {
    broker: Option<&'static str>,
    variable: &'static str,
    url: Option<String>,
}

impl Needs {
    fn trial<F>(&self, name: &str, run: fn(String, String) -> F) -> Trial
    where
        F: Future<Output = Checked> + 'static,
    {
        let (variable, url) = (self.variable, self.url.clone());
        let broker = self.broker.unwrap_or("scripted");
        // A name of its own for each process and trial, for queues.
        let own = format!("enoki-guard10.{broker}.{name}.{}", std::process::id());
        Trial::ignorable_test(format!("{broker}::{name}"), move || {
            let Some(url) = url else {
                if std::env::var_os("ENOKI_REQUIRE_BROKERS").is_some_and(|required| required == "1")
                {
                    return Err(format!("{variable} is not set, and brokers are required").into());
                }
                return Ok(Completion::ignored_with(format!("needs {variable}")));
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|error| Failed::from(error.to_string()))?;
            runtime
                .block_on(async { timeout(PATIENCE, run(url, own)).await })
                .map_err(|_| Failed::from("it took too long"))?
                .map_err(|error| Failed::from(error.to_string()))?;
            Ok(Completion::Completed)
        })
    }
}

/// How long a trial may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest body that consumers take here, in bytes.
const LIMITS: usize = 1024 * 1024;

fn transport(url: &str) -> Result<Arc<dyn Transport>, enoki_core::Error> {
    let mut settings = Settings::default();
    settings.limits.max_body = LIMITS;
    Ok(Arc::new(Amqp10Transport::with_settings(&BrokerUrl::parse(url)?, &settings)?))
}

async fn session(url: &str) -> Result<Arc<dyn Session>, enoki_core::Error> {
    transport(url)?.connect(Purpose::Consume, Instant::now() + Duration::from_secs(8)).await
}

fn scripted(port: u16) -> String {
    format!("amqp10://u:p@127.0.0.1:{port}")
}

/// The log of this process, for all trials.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines about this queue.
fn logged(queue: &str) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&log);
    text.lines().filter(|line| line.contains(queue)).map(str::to_owned).collect()
}

/// A proxy to the broker that counts connections.
async fn counted(url: &str) -> Result<(String, Arc<AtomicUsize>), Failure> {
    let parsed = BrokerUrl::parse(url)?;
    let broker = format!("{}:{}", parsed.host().ok_or("no host")?, parsed.port().ok_or("no port")?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = url.replacen(&broker, &listener.local_addr()?.to_string(), 1);
    let count = Arc::<AtomicUsize>::default();
    let connections = count.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let broker = broker.clone();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(broker).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    Ok((url, count))
}

/// A message, and the part of it that its dead letter must have.
struct Bad {
    message: Vec<u8>,
    original: Vec<u8>,
}

/// A section of a message.
fn section(code: u8, value: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, code][..], value].concat()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    section(0x75, &binary(bytes))
}

/// Lists, each in the one before: so many levels.
fn lists(levels: usize) -> Vec<u8> {
    (0..levels).fold(null(), |inner, _| list(&[inner]))
}

/// Arrays, each in the one before: so many levels.
fn arrays(levels: usize) -> Vec<u8> {
    (0..levels).fold(array(1, &[0x40]), |inner, _| array(1, &inner))
}

/// A value behind so many descriptors.
fn described_value(levels: usize) -> Vec<u8> {
    [&[0x00, 0x53, 0x01].repeat(levels)[..], &null()].concat()
}

/// Messages that end fe2o3-amqp's connection, or the process.
fn bad() -> Vec<Bad> {
    let whole = |message: Vec<u8>| Bad { original: message.clone(), message };
    // Brokers may read it, too, so there are no more levels than they can take.
    let nulls = array(200_000, &[0x40]);
    let annotated = |code: u8| {
        let value = lists(5000);
        let nested = section(code, &map(&[symbol("x-n"), value.clone()]));
        let message = if code == 0x78 { [data(b"x"), nested] } else { [nested, data(b"x")] };
        Bad { message: message.concat(), original: data(b"x") }
    };
    vec![
        whole(section(0x77, &lists(5000))),
        whole(section(0x77, &arrays(5000))),
        whole(section(0x77, &described_value(20_000))),
        annotated(0x72),
        annotated(0x78),
        whole(
            [section(0x74, &map(&[string(b"name"), string(b"te\xffxt")])), data(b"text")].concat(),
        ),
        whole(section(0x77, &nulls)),
        whole(data(&vec![b'x'; 2 * LIMITS])),
    ]
}

/// Messages that look dangerous and are not, and their bodies.
fn good() -> Vec<(Vec<u8>, Vec<u8>)> {
    let many: Vec<_> = (0..8000_u16)
        .flat_map(|number| [string(format!("k{number}").as_bytes()), truth(true)])
        .collect();
    let deep = section(0x72, &map(&[symbol("x-n"), lists(60)]));
    let limit = vec![b'x'; LIMITS];
    vec![
        (data(b"plain"), b"plain".to_vec()),
        ([deep, data(b"sixty levels")].concat(), b"sixty levels".to_vec()),
        ([section(0x74, &map(&many)), data(b"many")].concat(), b"many".to_vec()),
        (section(0x77, &string(b"a value")), b"a value".to_vec()),
        (data(b"12").repeat(1000), b"12".repeat(1000)),
        (data(&limit), limit),
    ]
}

#[derive(Clone)]
struct Seen(mpsc::UnboundedSender<Bytes>);

async fn see(State(Seen(seen)): State<Seen>, Body(raw): Body<Raw>) {
    let _ = seen.send(raw.body);
}

/// A queue, and the queue of its dead letters.
async fn place(session: &dyn Session, own: &str) -> Result<[QueueSpec; 2], enoki_core::Error> {
    let mut dead = QueueSpec::new(format!("{own}.dead"))?;
    // The queues expire, so a trial that fails leaves them for a short time only.
    dead.expires = Some(10 * PATIENCE);
    let mut queue = QueueSpec::new(own)?;
    queue.expires = dead.expires;
    queue.dead_letter =
        Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: Some(dead.name.clone()) });
    session.apply(&Change::DeclareQueue(dead.clone())).await?;
    session.apply(&Change::DeclareQueue(queue.clone())).await?;
    Ok([queue, dead])
}

async fn hostile(url: String, own: String) -> Checked {
    let admin = session(&url).await?;
    let [queue, dead] = place(&*admin, &own).await?;
    let (bad, good) = (bad(), good());
    let parsed = BrokerUrl::parse(&url)?;
    let mut publisher = Client::open(&parsed, &own, true).await?;
    for (at, bad) in bad.iter().enumerate() {
        publisher.publish(&good[at % good.len()].0).await?;
        publisher.publish(&bad.message).await?;
    }
    publisher.publish(&good[0].0).await?;

    let (way, connections) = counted(&url).await?;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let broker = Broker::connect(transport(&way)?).await?;
    let running = Service::new("guard", broker)
        .state(Seen(sender))
        .consume(&queue.clone().of::<Raw>(), see.concurrency(1).prefetch(100))
        .start()
        .await?;
    let consumed = connections.load(Ordering::SeqCst);
    // The messages that can be read are handled, in their order, and no others.
    for at in (0..bad.len()).map(|at| at % good.len()).chain([0]) {
        let body = seen.recv().await.ok_or("no delivery")?;
        assert!(body == good[at].1, "not {at}: {} bytes", body.len());
    }
    // The others are dead letters, unchanged.
    let mut taker = Client::open(&parsed, &dead.name, false).await?;
    for (at, bad) in bad.iter().enumerate() {
        let kept = taker.next().await?;
        let original = &bad.original;
        assert!(kept.windows(original.len()).any(|bytes| bytes == original), "{at} is another");
    }
    assert!(seen.try_recv().is_err(), "a handler saw a message that cannot be read");
    let warnings = logged(&own);
    for (reason, times) in [
        ("nested more than 64", 2),
        ("a description of a description", 1),
        ("only bytes and text are read", 3),
        ("not UTF-8", 1),
        ("max_body", 1),
    ] {
        let found = warnings.iter().filter(|line| line.contains(reason)).count();
        assert_eq!(found, times, "{reason}: {warnings:#?}");
    }
    running.stop(Duration::from_secs(10)).await?;
    // Every delivery was settled, on the one connection.
    assert_eq!(connections.load(Ordering::SeqCst), consumed);
    assert_eq!(admin.apply(&Change::VerifyQueue(queue.clone())).await?.messages, 0);
    remove(&*admin, [queue, dead]).await
}

async fn remove(session: &dyn Session, queues: [QueueSpec; 2]) -> Checked {
    for queue in queues {
        session.apply(&Change::DeleteQueue(queue.name)).await?;
    }
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

/// fe2o3-amqp alone aborts at the same message.
async fn aborts(url: String, own: String) -> Checked {
    let admin = session(&url).await?;
    let queues = place(&*admin, &own).await?;
    let mut publisher = Client::open(&BrokerUrl::parse(&url)?, &own, true).await?;
    let last = data(b"last");
    publisher.publish(&last).await?;
    assert_eq!(control::run(&url, &own).await?, End::Survived, "without it, it has to survive");
    publisher.publish(&section(0x77, &lists(75_000))).await?;
    publisher.publish(&last).await?;
    let end = control::run(&url, &own).await?;
    assert_eq!(end, End::Aborted, "is the check still needed?");
    remove(&*admin, queues).await
}

async fn frames(_: String, _: String) -> Checked {
    for frame_max in [None, Some(512), Some(u32::MAX)] {
        let port = Script { frame_max, ..Script::default() }.play().await?;
        session(&scripted(port)).await?.close(Instant::now() + Duration::from_secs(5)).await;
    }
    for size in [0, 4, 16] {
        let port = Script { frame_max: Some(size), ..Script::default() }.play().await?;
        let error = session(&scripted(port)).await.err().ok_or("it was taken")?;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&format!("frames of {size} bytes")), "{error}");
    }
    Ok(())
}

async fn deep(_: String, _: String) -> Checked {
    let in_login = Script { mechanisms: Some(arrays(5000)), ..Script::default() };
    let in_open = Script { property: Some(lists(5000)), ..Script::default() };
    for script in [in_login, in_open] {
        let port = script.play().await?;
        let error = session(&scripted(port)).await.err().ok_or("it was taken")?;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("nested more than 64 levels deep"), "{error}");
    }
    Ok(())
}

async fn deep_aborts(_: String, _: String) -> Checked {
    let sound = Script::default().play().await?;
    assert_eq!(control::run(&scripted(sound), "").await?, End::Survived);
    // In the answer to the begin of a session, since frames before that are small.
    let mut begin = vec![vec![0x60, 0, 0], uint(0), uint(1000), uint(1000)];
    begin.extend([null(), null(), null(), map(&[symbol("x"), described_value(40_000)])]);
    let before_begin = frame(AMQP, &described(0x11, &begin));
    let port = Script { before_begin, ..Script::default() }.play().await?;
    let end = control::run(&scripted(port), "").await?;
    assert_eq!(end, End::Aborted, "is the check still needed?");
    Ok(())
}

async fn broken(_: String, _: String) -> Checked {
    let two_gib = vec![0x7f, 0xff, 0xff, 0xff, 2, 0, 0, 0];
    let error = described(0x1d, &[symbol("amqp:internal-error"), lists(5000)]);
    let detach = frame(AMQP, &described(0x16, &[uint(0), truth(true), error]));
    let unclear = frame(AMQP, &[0x00, 0x53, 0x17, 0xc0, 3, 1, 0x40, 0x40]);
    for (frame, reason) in [
        (two_gib, "a frame of 2147483647 bytes"),
        (detach, "nested more than 64"),
        (unclear, "a list longer than its values"),
    ] {
        let port = Script { before_begin: frame, ..Script::default() }.play().await?;
        let session = session(&scripted(port)).await?;
        let refused = session.sender(window(1)).await.err().ok_or("there was an answer")?;
        for error in [session.ended().await, refused] {
            assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }
    Ok(())
}

/// With a frame for each few hundred bytes, the message takes more steps than tokio lets a task make at a
/// time.
async fn whole(_: String, _: String) -> Checked {
    let (told, mut frames) = mpsc::unbounded_channel();
    let script = Script { frame_max: Some(512), takes: Some((10, told)), ..Script::default() };
    let session = session(&scripted(script.play().await?)).await?;
    let mut sender = session.sender(window(10)).await?;
    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    let outgoing = |id, body: &[u8]| Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: ShortStr::from_static("q"),
        mandatory: false,
        message: Arc::new(Message::new(body.to_vec())),
    };
    let mut messages = VecDeque::from([outgoing(0, &body), outgoing(1, b"last")]);
    sender.submit(&mut messages).await?;
    let mut outcomes = Vec::new();
    let (mut came, mut begun) = (Vec::new(), 0);
    while !came.ends_with(b"last") {
        tokio::select! {
            frame = frames.recv() => {
                let frame = frame.ok_or("the connection ended")?;
                // Only the first frame of a message has its delivery-id.
                begun += usize::from(frame.fields.get(1).is_some_and(|id| id != &null()));
                came.extend(frame.payload);
            }
            failed = sender.outcomes(&mut outcomes) => return Err(format!("{failed:?}").into()),
        }
    }
    assert_eq!(begun, 2, "a message began again");
    let found = came.windows(body.len()).position(|bytes| bytes == body);
    assert!(found.is_some(), "not whole: {} bytes", came.len());
    Ok(())
}

/// The broker allows two links beside the management link on each of its connections.
async fn full(_: String, _: String) -> Checked {
    let script = Script { last_channel: Some(3), connections: Some(1), ..Script::default() };
    let session = session(&scripted(script.play().await?)).await?;
    let kept = [session.sender(window(1)).await?, session.sender(window(1)).await?];
    let opening = (0..5).map(|_| session.sender(window(1)));
    for refused in join_all(opening).await {
        let error = refused.err().ok_or("there was room")?;
        let text = error.to_string();
        assert!(
            text.contains("all AMQP sessions") && text.contains("another connection"),
            "{text}"
        );
        assert!(text.contains("session_max_per_connection"), "{text}");
    }
    assert!(session.ended().now_or_never().is_none(), "the connection is gone");
    drop(kept);
    Ok(())
}

async fn mute(_: String, _: String) -> Checked {
    let script = Script { mute: true, ..Script::default() };
    let port = script.play().await?;
    // From here on the clock is paused: it moves to the next deadline whenever all tasks wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tried = std::thread::spawn(move || -> Checked {
        runtime.block_on(async {
            let session = session(&scripted(port)).await?;
            tokio::time::pause();
            let error = session.sender(window(1)).await.err().ok_or("there was an answer")?;
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(session.ended().now_or_never().is_none(), "the connection is gone");
            // Closing does not wait for an answer to the begin.
            let opening = session.sender(window(1));
            let closing = session.close(Instant::now() + Duration::from_secs(1));
            let (opened, ()) = tokio::join!(opening, closing);
            let error = opened.err().ok_or("there was an answer")?;
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            Ok(())
        })
    });
    tokio::task::spawn_blocking(|| tried.join()).await?.map_err(|_| "it panicked")?
}

fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap_or(NonZeroU16::MIN))
}
