//! Bytes that no client library sends: from publishers by way of real brokers, and from brokers that
//! mean harm. Each costs one message, or one connection, and says why.
// What clippy lets tests do it does not see here, for want of an attribute.
#![allow(clippy::indexing_slicing, clippy::print_stdout)]

mod control;
mod hostile;
mod wire;

use std::{
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
    BindingSpec, Body, Broker, BrokerUrl, DeadLetter, Destination, ErrorKind, ExchangeKind,
    ExchangeSpec, Handler, Message, Purpose, QueueSpec, Raw, Service, ShortStr, State, Transport,
    transport::{Change, Outgoing, PublishOutcome, SenderOptions, Session, Settings},
};
use enoki_transport_amqp091::Amqp091Transport;
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
    wire::{BODY, Client, Content, lists, long, method, short, tables},
};

fn main() -> ExitCode {
    if control::is_child() {
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init();
    let mut trials = Vec::new();
    for (broker, variable) in [
        ("rabbitmq-3", "ENOKI_RABBITMQ_3"),
        ("rabbitmq-4", "ENOKI_RABBITMQ_4"),
        ("rabbitmq-4.3", "ENOKI_RABBITMQ_4_3"),
    ] {
        let url = std::env::var(variable).ok();
        // The third broker is optional.
        if url.is_none() && broker == "rabbitmq-4.3" {
            continue;
        }
        let needs = Needs { broker: Some(broker), variable, url };
        trials.push(needs.trial("each_hostile_message_is_a_dead_letter_and_no_other_is", hostile));
        trials.push(needs.trial("a_returned_message_may_be_of_any_size", returned));
        // Later ones fail when they cut it, and close the connection themselves.
        if broker == "rabbitmq-3" {
            trials.push(needs.trial("a_refusal_cut_within_a_character_costs_no_connection", cut));
        }
        trials.push(needs.trial("without_the_guard_nested_headers_abort", aborts));
        trials.push(needs.trial("without_the_guard_a_property_costs_the_connection", loses));
    }
    let none = Needs { broker: None, variable: "", url: Some(String::new()) };
    trials.push(none.trial("frames_are_as_large_as_agreed_whatever_is_proposed", proposed));
    trials.push(none.trial("a_login_that_goes_too_deep_is_an_error", deep_login));
    trials
        .push(none.trial("a_login_that_goes_too_deep_aborts_without_the_guard", deep_login_aborts));
    trials.push(none.trial("a_frame_over_the_limit_ends_the_connection", large_frame));
    trials.push(none.trial("a_frame_that_wraps_a_buffer_which_grows_is_a_frame", wrapping));
    trials.push(none.trial("a_reason_that_is_not_utf8_is_a_reason", blocked));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Checked = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Which broker a trial is about, if about a real one.
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
        // Names of queues are this process's own, and the trial's.
        let own = format!("enoki-guard.{broker}.{name}.{}", std::process::id());
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

/// How long a trial may take, on a busy machine as well.
const PATIENCE: Duration = Duration::from_secs(300);

/// The largest body that consumers take here, in bytes.
const LIMITS: usize = 1024 * 1024;

fn transport(url: &str) -> Result<Arc<dyn Transport>, enoki_core::Error> {
    let mut settings = Settings::default();
    settings.limits.max_body = LIMITS;
    Ok(Arc::new(Amqp091Transport::with_settings(&BrokerUrl::parse(url)?, &settings)?))
}

async fn session(url: &str) -> Result<Arc<dyn Session>, enoki_core::Error> {
    transport(url)?.connect(Purpose::Consume, Instant::now() + PATIENCE).await
}

fn scripted(port: u16) -> String {
    format!("amqp091://u:p@127.0.0.1:{port}")
}

/// What this process logged, all trials together.
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

/// A way to the broker that counts who goes it.
async fn counted(
    url: &str,
) -> Result<(String, Arc<AtomicUsize>), Box<dyn std::error::Error + Send + Sync>> {
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

/// A message that cannot be read: its routing key, its content, and bytes that have to be in the dead letter.
struct Bad {
    key: Vec<u8>,
    content: Content,
    original: Vec<u8>,
}

fn with_headers(fields: &[u8], body: &[u8]) -> Content {
    let properties = [&0x2000_u16.to_be_bytes()[..], &long(fields)].concat();
    Content { properties, body: body.to_vec() }
}

/// Messages that end lapin, or the process around it.
fn bad() -> Vec<Bad> {
    let field = |field: Vec<u8>| Bad {
        key: b"key".to_vec(),
        content: with_headers(&field, b"bomb"),
        original: field,
    };
    let text = |flags: u16| Bad {
        key: b"key".to_vec(),
        content: Content {
            properties: [&flags.to_be_bytes()[..], &short(b"te\xffxt")].concat(),
            body: b"text".to_vec(),
        },
        original: short(b"te\xffxt"),
    };
    let large = vec![b'x'; 2 * LIMITS];
    vec![
        field(tables(1000)),
        field(tables(21_000)),
        field(lists(5000)),
        field(lists(21_000)),
        field(b"\x03ke\xfft\x01".to_vec()),
        text(0x8000),
        text(0x0080),
        Bad {
            key: b"ke\xff\xfey".to_vec(),
            content: Content { properties: vec![0x10, 0, 2], body: b"key".to_vec() },
            original: b"ke\xff\xfey".to_vec(),
        },
        Bad {
            key: b"key".to_vec(),
            content: Content { properties: vec![0x10, 0, 2], body: large },
            original: Vec::new(),
        },
    ]
}

/// Messages that only look dangerous; each has a body of its own.
fn good() -> Vec<Content> {
    let many: Vec<u8> = (0..8000_u16)
        .flat_map(|number| [&short(format!("k{number}").as_bytes())[..], b"t\x01"].concat())
        .collect();
    let all = b"\xff\xfc\x04text\x02gz\0\0\0\x03\x01nV\x02\x05\x01c\x01r\x0560000\x01m\0\0\0\0\0\0\0\x01\x01t\x05guest\x01a\x01c";
    let limit = vec![b'x'; LIMITS];
    vec![
        Content { properties: vec![0x10, 0, 2], body: b"plain".to_vec() },
        with_headers(&tables(60), b"sixty levels"),
        with_headers(&many, b"many headers"),
        with_headers(&[&b"\x01bS"[..], &long(b"\xff")].concat(), b"a value that is no text"),
        Content { properties: all.to_vec(), body: b"all properties".to_vec() },
        Content { properties: vec![0x10, 0, 2], body: limit },
    ]
}

#[derive(Clone)]
struct Seen(mpsc::UnboundedSender<Bytes>);

async fn see(State(Seen(seen)): State<Seen>, Body(raw): Body<Raw>) {
    let _ = seen.send(raw.body);
}

/// A queue behind an exchange that takes any key, and the queue of its dead letters.
struct Place {
    exchange: ExchangeSpec,
    queue: QueueSpec,
    dead: QueueSpec,
}

impl Place {
    async fn make(session: &dyn Session, own: &str) -> Result<Self, enoki_core::Error> {
        let exchange = ExchangeSpec::new(own, ExchangeKind::Fanout)?;
        let mut dead = QueueSpec::new(format!("{own}.dead"))?;
        // A test that fails leaves no queue behind for long.
        dead.expires = Some(10 * PATIENCE);
        let mut queue = QueueSpec::new(own)?;
        queue.expires = dead.expires;
        queue.dead_letter =
            Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: Some(dead.name.clone()) });
        let binding = BindingSpec::new(&exchange, Destination::Queue(queue.name.clone()), "")?;
        for change in [
            Change::DeclareExchange(exchange.clone()),
            Change::DeclareQueue(dead.clone()),
            Change::DeclareQueue(queue.clone()),
            Change::Bind(binding),
        ] {
            session.apply(&change).await?;
        }
        Ok(Self { exchange, queue, dead })
    }

    async fn remove(self, session: &dyn Session) -> Result<(), enoki_core::Error> {
        for change in [
            Change::DeleteExchange(self.exchange.name),
            Change::DeleteQueue(self.queue.name),
            Change::DeleteQueue(self.dead.name),
        ] {
            session.apply(&change).await?;
        }
        Ok(())
    }
}

async fn hostile(url: String, own: String) -> Checked {
    let admin = session(&url).await?;
    let place = Place::make(&*admin, &own).await?;
    let (bad, good) = (bad(), good());
    let mut publisher = Client::open(&BrokerUrl::parse(&url)?).await?;
    for (at, bad) in bad.iter().enumerate() {
        let good = &good[at % good.len()];
        publisher.publish(&own, b"key", good).await?;
        publisher.publish(&own, &bad.key, &bad.content).await?;
    }
    publisher.publish(&own, b"key", &good[0]).await?;

    let (way, connections) = counted(&url).await?;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let broker = Broker::connect(transport(&way)?).await?;
    let running = Service::new("guard", broker)
        .state(Seen(sender))
        .consume(&place.queue.clone().of::<Raw>(), see.concurrency(1).prefetch(100))
        .start()
        .await?;
    let consumed = connections.load(Ordering::SeqCst);
    // The messages that can be read are handled, in their order, and no others.
    for at in (0..bad.len()).map(|at| at % good.len()).chain([0]) {
        let body = seen.recv().await.ok_or("no delivery")?;
        assert_eq!(body, good[at].body);
    }
    // The others are dead letters, as they were published.
    let mut taker = Client::open(&BrokerUrl::parse(&url)?).await?;
    taker.consume(&place.dead.name).await?;
    for bad in &bad {
        let dead = taker.next().await?;
        assert_eq!(dead.body, bad.content.body);
        let original = &bad.original;
        let kept = original.is_empty()
            || dead.properties.windows(original.len()).any(|bytes| bytes == original);
        assert!(
            kept,
            "{:?}… is not the original",
            &dead.properties[..100.min(dead.properties.len())]
        );
    }
    assert!(seen.try_recv().is_err(), "a handler saw what cannot be read");
    let warnings = logged(&own);
    for (reason, times) in [("nested more than 64", 4), ("not UTF-8", 4), ("max_body", 1)] {
        let found = warnings.iter().filter(|line| line.contains(reason)).count();
        assert_eq!(found, times, "{reason}: {warnings:#?}");
    }
    running.stop(Duration::from_secs(10)).await?;
    // Everything was settled, on the connection that there was.
    assert_eq!(connections.load(Ordering::SeqCst), consumed);
    assert_eq!(publisher.count(&own).await?, (0, 0));
    Ok(place.remove(&*admin).await?)
}

async fn returned(url: String, own: String) -> Checked {
    let session = session(&url).await?;
    let mut sender = session.sender(window(10)).await?;
    let outgoing = |id: u64, size: usize| {
        let mut message = Message::new(vec![b'x'; size]);
        message.properties.message_id = ShortStr::new(format!("m{id}")).ok();
        Outgoing {
            id,
            exchange: ShortStr::EMPTY,
            routing_key: ShortStr::new(own.as_str()).unwrap_or_default(),
            mandatory: true,
            message: Arc::new(message),
        }
    };
    // There is no such queue; the broker returns each of them.
    let sizes = [1, LIMITS + 1, 3 * LIMITS, 1];
    let mut messages = (0..).zip(sizes).map(|(id, size)| outgoing(id, size)).collect();
    let mut outcomes = Vec::new();
    while outcomes.len() < sizes.len() {
        sender.submit(&mut messages).await?;
        sender.outcomes(&mut outcomes).await?;
    }
    for (id, outcome) in &outcomes {
        assert!(matches!(outcome, PublishOutcome::Unroutable), "{id}: {outcome:?}");
    }
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

async fn cut(url: String, own: String) -> Checked {
    let session = session(&url).await?;
    let queue = |name: String| QueueSpec::new(name).map(Change::VerifyQueue);
    // RabbitMQ says which queue it has not, in 255 bytes: one of these ends within a character.
    for letter in ["x", ""] {
        let missing = queue(format!("{letter}{own}{}", "é".repeat((254 - own.len()) / 2)))?;
        let error = session.apply(&missing).await.err().ok_or("it was found")?;
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let error = session.apply(&queue(own)?).await.err().ok_or("it was found")?;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    session.close(Instant::now() + Duration::from_secs(5)).await;
    Ok(())
}

async fn aborts(url: String, own: String) -> Checked {
    control(url, own, with_headers(&tables(1000), b"bomb"), |end| *end == End::Aborted).await
}

async fn loses(url: String, own: String) -> Checked {
    let properties = [&0x8000_u16.to_be_bytes()[..], &short(b"\xff")].concat();
    let bad = Content { properties, body: b"text".to_vec() };
    control(url, own, bad, |end| matches!(end, End::Lost(why) if why.contains("parse"))).await
}

/// What becomes of bare lapin at such a message.
async fn control(url: String, own: String, bad: Content, expected: fn(&End) -> bool) -> Checked {
    let admin = session(&url).await?;
    let place = Place::make(&*admin, &own).await?;
    let mut publisher = Client::open(&BrokerUrl::parse(&url)?).await?;
    let last = Content { properties: vec![0x10, 0, 2], body: b"last".to_vec() };
    publisher.publish(&own, b"key", &last).await?;
    assert_eq!(control::run(&url, &own).await?, End::Survived, "without it, it has to survive");
    publisher.publish(&own, b"key", &bad).await?;
    publisher.publish(&own, b"key", &last).await?;
    let end = control::run(&url, &own).await?;
    assert!(expected(&end), "{end:?}: is the guard still needed?");
    Ok(place.remove(&*admin).await?)
}

async fn proposed(_: String, _: String) -> Checked {
    for frame_max in [0, 131_072, 512 << 20, u32::MAX] {
        let port = Script { frame_max, ..Script::default() }.play().await?;
        let session = session(&scripted(port)).await?;
        session.sender(window(1)).await?;
        session.close(Instant::now() + Duration::from_secs(5)).await;
    }
    // With so little, a body would fall to pieces.
    let port = Script { frame_max: 16, ..Script::default() }.play().await?;
    let error = session(&scripted(port)).await.err().ok_or("it was taken")?;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("less than 4096 bytes"), "{error}");
    Ok(())
}

fn deep() -> Script {
    Script { properties: tables(2000), ..Script::default() }
}

async fn deep_login(_: String, _: String) -> Checked {
    let port = deep().play().await?;
    let error = session(&scripted(port)).await.err().ok_or("it was taken")?;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("nested more than 64 levels deep"), "{error}");
    Ok(())
}

async fn deep_login_aborts(_: String, _: String) -> Checked {
    let sound = Script::default().play().await?;
    assert_eq!(control::run(&scripted(sound), "").await?, End::Survived);
    let port = deep().play().await?;
    assert_eq!(control::run(&scripted(port), "").await?, End::Aborted);
    Ok(())
}

async fn large_frame(_: String, _: String) -> Checked {
    let two_gib = vec![BODY, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0];
    let port = Script { before_answer: two_gib, ..Script::default() }.play().await?;
    let session = session(&scripted(port)).await?;
    let refused = session.sender(window(1)).await.err().ok_or("there was an answer")?;
    for error in [refused, session.ended().await] {
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        assert!(error.to_string().contains("a frame of 2147483647 bytes"), "{error}");
    }
    Ok(())
}

async fn wrapping(_: String, _: String) -> Checked {
    let port = Script::wrapping().play().await?;
    let session = session(&scripted(port)).await?;
    session.sender(window(1)).await?;
    Ok(())
}

async fn blocked(_: String, _: String) -> Checked {
    let after_open = [method(0, 10, 60, &short(b"\xff\xfe")), method(0, 10, 61, &[])].concat();
    let port = Script { after_open, ..Script::default() }.play().await?;
    let session = session(&scripted(port)).await?;
    session.sender(window(1)).await?;
    Ok(())
}

fn window(messages: u16) -> SenderOptions {
    SenderOptions::new(NonZeroU16::new(messages).unwrap_or(NonZeroU16::MIN))
}
