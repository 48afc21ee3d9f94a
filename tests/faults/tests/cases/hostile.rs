//! Peers that mean harm, or nothing at all: each says something that no broker would, or leaves
//! unsaid what a client waits for.

use std::time::{Duration, Instant};

use enoki::{Broker, ErrorKind, WorkQueue, broker::BrokerOptions, publish::PublisherOptions};
use enoki_faults::peer::{Peer, Script, amqp10, amqp091};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    child,
    stage::{Checked, expect},
    steps::{PATIENCE, SLACK},
};

/// The protocol that a client of the scripted peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp091,
    Amqp10,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Amqp091, Self::Amqp10];

    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Amqp091 => "amqp091",
            Self::Amqp10 => "amqp10",
        }
    }
}

/// How long a login may take here.
const LOGIN_WITHIN: Duration = Duration::from_millis(1500);

async fn connect(protocol: Protocol, peer: &Peer) -> enoki::Result<Broker> {
    let options = BrokerOptions::new()
        .reach_within(Duration::ZERO)
        .connect_timeout(LOGIN_WITHIN)
        .declare_timeout(LOGIN_WITHIN);
    let url = format!("{}://guest:guest@{}", protocol.scheme(), peer.address());
    enoki::connect_with(url, options).await
}

async fn publish(broker: &Broker) -> enoki::Result<()> {
    const JOBS: WorkQueue<u32> = WorkQueue::new("jobs");
    let options = PublisherOptions::new().timeout(LOGIN_WITHIN);
    let publisher = broker.publisher_with(&JOBS.route(), options).await?;
    publisher.publish(&1).await.map(drop)
}

/// A login is over in time, whatever becomes of it, and so is the next thing that needs an answer.
async fn ends_in_time(protocol: Protocol, what: &'static str, script: Script) -> Checked {
    let peer = Peer::start(script).await?;
    let began = Instant::now();
    let connected = timeout(PATIENCE, connect(protocol, &peer)).await;
    let connected = connected.map_err(|_| format!("{what}: the login hangs"))?;
    let took = began.elapsed();
    // A second of grace beyond the deadline, and the machine's own.
    let longest = LOGIN_WITHIN + Duration::from_secs(1) + SLACK;
    expect(took < longest, format!("{what}: the login took {took:?}"))?;
    let error = match connected {
        Err(error) => error,
        Ok(broker) => {
            let began = Instant::now();
            let publishing = timeout(PATIENCE, publish(&broker)).await;
            let published = publishing.map_err(|_| format!("{what}: a message hangs"))?;
            let took = began.elapsed();
            expect(took < longest, format!("{what}: a message took {took:?}"))?;
            published.err().ok_or_else(|| format!("{what}: a message was confirmed"))?
        }
    };
    let expected = [
        ErrorKind::Connection,
        ErrorKind::Denied,
        ErrorKind::Indeterminate,
        ErrorKind::NotFound,
        ErrorKind::Timeout,
        // What no broker may say.
        ErrorKind::Unexpected,
        ErrorKind::Unsupported,
    ];
    expect(expected.contains(&error.kind()), format!("{what}: {error:?}"))?;
    expect(!error.to_string().contains("guest:guest"), format!("{what}: {error}"))
}

pub(crate) async fn r16_a_peer_that_falls_silent_is_given_up_at_the_deadline(
    protocol: Protocol,
) -> Checked {
    let steps = match protocol {
        Protocol::Amqp091 => vec![
            ("silent from the start", Script::new()),
            ("silent after its greeting", Script::new().read(8).send(amqp091::start())),
            (
                "silent after the login",
                Script::new()
                    .read(8)
                    .send(amqp091::start())
                    .read_frame()
                    .send(amqp091::tune(2047, 131_072, 10)),
            ),
            (
                "silent in the middle of a frame",
                Script::new().read(8).send(half(&amqp091::start())),
            ),
        ],
        Protocol::Amqp10 => vec![
            ("silent from the start", Script::new()),
            ("silent after its greeting", Script::new().read(8).send(amqp10::SASL.to_vec())),
            (
                "silent about the login",
                Script::new().read(8).send([amqp10::SASL.to_vec(), amqp10::mechanisms()].concat()),
            ),
            ("silent after the login", amqp10::authenticated()),
            (
                "silent in the middle of a frame",
                amqp10::authenticated()
                    .read_frame10()
                    .send(half(&amqp10::open(65_536, 255, 10_000))),
            ),
        ],
    };
    for (what, script) in steps {
        let peer = Peer::start(script).await?;
        let began = Instant::now();
        let connected = timeout(PATIENCE, connect(protocol, &peer)).await;
        let connected = connected.map_err(|_| format!("{what}: the login hangs"))?;
        let took = began.elapsed();
        let error = connected.err().ok_or_else(|| format!("{what}: it logged in"))?;
        let expected = [ErrorKind::Connection, ErrorKind::Timeout];
        expect(expected.contains(&error.kind()), format!("{what}: {error:?}"))?;
        expect(error.is_transient(), format!("{what}: it is not worth another try: {error:?}"))?;
        let longest = LOGIN_WITHIN + Duration::from_secs(1) + SLACK;
        expect(took < longest, format!("{what}: it took {took:?}"))?;
    }
    Ok(())
}

fn half(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().take(bytes.len() / 2).copied().collect()
}

/// In a process of its own, since what it guards against would end this one.
pub(crate) async fn t_s8_what_no_broker_says_is_an_error_in_time_and_little_memory(
    protocol: Protocol,
) -> Checked {
    let grew = child::growth_among_hostile_peers(protocol).await?;
    expect(grew < AMONG_ALL, format!("it grew by {grew} kB, where {AMONG_ALL} are the most"))
}

/// Kilobytes, for all peers at the same time and their scripts. One that is believed takes more.
const AMONG_ALL: u64 = 96 * 1024;

/// Meets every peer of this protocol at the same time.
pub(crate) async fn meet_all(protocol: Protocol) -> Checked {
    let scripts = match protocol {
        Protocol::Amqp091 => of_amqp091(),
        Protocol::Amqp10 => of_amqp10(),
    };
    let mut running = JoinSet::new();
    for (what, script) in scripts {
        running.spawn(ends_in_time(protocol, what, script));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

fn of_amqp091() -> Vec<(&'static str, Script)> {
    let greeted = || Script::new().read(8);
    let started = || greeted().send(amqp091::start()).read_frame();
    let tuned = || started().send(amqp091::tune(2047, 131_072, 10)).read_frame().read_frame();
    let open = || amqp091::login(2047, 131_072, 10);
    let entries: Vec<u8> =
        (0..1500).flat_map(|n| amqp091::text_entry(&format!("key{n}"), &"x".repeat(64))).collect();
    let heartbeat = amqp091::frame(8, 0, &[]);
    let with_tail = |mut frame: Vec<u8>, tail: &[u8]| {
        frame.extend(tail);
        frame
    };
    vec![
        ("another protocol", greeted().send("HTTP/1.1 400 Bad Request\r\n\r\n").close()),
        ("another version", greeted().send(b"AMQP\0\0\x08\0".to_vec()).close()),
        ("AMQP 1.0", greeted().send(amqp10::SASL.to_vec()).close()),
        ("an end", greeted().close()),
        ("a reset", greeted().reset()),
        ("a greeting with 1500 properties", greeted().send(amqp091::start_with(&entries))),
        ("heartbeats without end", started().flood(heartbeat.repeat(1024), 64).close()),
        ("a limit of no bytes", started().send(amqp091::tune(0, 0, 0)).close()),
        ("a limit of four gigabytes", started().send(amqp091::tune(1, u32::MAX, 65_535)).close()),
        ("a limit of one byte", started().send(amqp091::tune(1, 1, 1))),
        ("a method that there is not", tuned().send(amqp091::method(0, 99, 99, &[]))),
        ("a method cut short", tuned().send(amqp091::method(0, 10, 50, &[1]))),
        (
            "a method with more than belongs to it",
            tuned().send(amqp091::method(0, 10, 41, &[0, 1, 2, 3, 4, 5, 6, 7])),
        ),
        ("a frame of a type that there is not", tuned().send(amqp091::frame(77, 0, b"?"))),
        ("a frame without its end", tuned().send(vec![1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 41, 0xff])),
        ("a frame of two gigabytes", tuned().send(vec![1, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0])),
        ("a refusal", tuned().send(amqp091::close(530, "NOT_ALLOWED - no such host")).read_frame()),
        ("an open channel that was not asked for", open().send(amqp091::channel_open_ok(7))),
        ("a body without a method", open().send(amqp091::frame(3, 1, b"body"))),
        (
            "a delivery without a consumer",
            open().send(amqp091::method(1, 60, 60, &[1, b'c', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])),
        ),
        (
            "a body that is longer than its header says",
            open().send(with_tail(
                amqp091::frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
                &amqp091::frame(3, 1, b"longer than one"),
            )),
        ),
        (
            "a confirm of nothing",
            open().send(amqp091::method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 9, 1])),
        ),
        ("a close without a reason", open().send(amqp091::close(0, "")).read_frame()),
        ("an end right after the login", open().close()),
        ("a reset right after the login", open().reset()),
    ]
}

fn of_amqp10() -> Vec<(&'static str, Script)> {
    let greeted = || Script::new().read(8);
    let authenticated = || amqp10::authenticated().read_frame10();
    let open = || amqp10::login(65_536, 255, 10_000);
    let empty = amqp10::frame(0, 0, &[]);
    vec![
        ("another protocol", greeted().send("HTTP/1.1 400 Bad Request\r\n\r\n").close()),
        ("AMQP 0-9-1", greeted().send(b"AMQP\0\0\x09\x01".to_vec()).close()),
        ("an end", greeted().close()),
        ("a reset", greeted().reset()),
        (
            "no way to log in",
            greeted().send(
                [
                    amqp10::SASL.to_vec(),
                    amqp10::frame(1, 0, &amqp10::described(0x40, &[amqp10::null()])),
                ]
                .concat(),
            ),
        ),
        (
            "a refused login",
            greeted()
                .send([amqp10::SASL.to_vec(), amqp10::mechanisms()].concat())
                .read_frame10()
                .send(amqp10::outcome(1))
                .close(),
        ),
        (
            "an outcome that there is not",
            greeted()
                .send([amqp10::SASL.to_vec(), amqp10::mechanisms()].concat())
                .read_frame10()
                .send(amqp10::outcome(99)),
        ),
        ("empty frames without end", authenticated().flood(empty.repeat(1024), 64).close()),
        ("a frame that is smaller than its header", authenticated().send(vec![0, 0, 0, 4])),
        (
            "a frame of two gigabytes",
            authenticated().send(vec![0x7f, 0xff, 0xff, 0xff, 2, 0, 0, 0]),
        ),
        (
            "a header that is longer than its frame",
            authenticated().send(vec![0, 0, 0, 12, 255, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ("a frame of a type that there is not", authenticated().send(vec![0, 0, 0, 8, 2, 9, 0, 0])),
        (
            "a word that there is not",
            authenticated().send(amqp10::frame(0, 0, &amqp10::described(0x7f, &[]))),
        ),
        (
            "a session before the connection",
            authenticated().send(amqp10::frame(0, 3, &amqp10::described(0x11, &[]))),
        ),
        ("a limit of no bytes", authenticated().send(amqp10::open(0, 0, 0))),
        (
            "a limit of four gigabytes",
            authenticated().send(amqp10::open(u32::MAX, 65_535, u32::MAX)),
        ),
        (
            "a list without its end",
            authenticated().send(amqp10::frame(0, 0, &[0, 0x53, 0x10, 0xd0, 0, 0, 1, 0])),
        ),
        ("a wish for a heartbeat each millisecond", amqp10::login(65_536, 255, 1)),
        ("a second greeting", open().send(amqp10::open(65_536, 255, 10_000))),
        (
            "a transfer without a link",
            open().send(amqp10::frame(0, 0, &amqp10::described(0x14, &[amqp10::uint(1)]))),
        ),
        (
            "a session that was not asked for",
            open().send(amqp10::frame(
                0,
                7,
                &amqp10::described(
                    0x11,
                    &[amqp10::ushort(9), amqp10::uint(0), amqp10::uint(1), amqp10::uint(1)],
                ),
            )),
        ),
        (
            "a goodbye without a reason",
            open().send(amqp10::frame(0, 0, &amqp10::described(0x18, &[]))),
        ),
        ("an end right after the login", open().close()),
        ("a reset right after the login", open().reset()),
    ]
}

pub(crate) async fn t_s3_a_url_that_asks_for_tls_sends_nothing_in_the_clear(
    protocol: Protocol,
) -> Checked {
    let peer = Peer::start(Script::new()).await?;
    let url = format!("{}s://user:s3cret@{}", protocol.scheme(), peer.address());
    let options = BrokerOptions::new().connect_timeout(LOGIN_WITHIN).reach_within(Duration::ZERO);
    let error = enoki::connect_with(url, options).await.err().ok_or("it logged in")?;
    let heard = peer.heard();
    // Built without TLS it says nothing, and will not; built with it, it says hello as TLS does.
    match heard.is_empty() {
        true => expect(!error.is_transient(), format!("it is to be tried again: {error:?}"))?,
        false => expect(heard.starts_with(b"\x16\x03"), format!("no ClientHello: {heard:?}"))?,
    }
    let heard = String::from_utf8_lossy(&heard).into_owned();
    expect(!heard.contains("s3cret"), "the password was sent in the clear")?;
    expect(!heard.contains("AMQP"), format!("it spoke in the clear: {heard:?}"))
}
