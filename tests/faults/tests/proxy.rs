//! The proxy does what it says, to a peer whose every byte is known.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use enoki_faults::{
    peer::{Peer, Script, amqp10, amqp091},
    proxy::{Act, Cut, Direction, Door, Flow, Kind, Proxy, Traffic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use Direction::{FromBroker, ToBroker};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(200);

/// `basic.ack` of one delivery tag.
fn ack(tag: u8) -> Vec<u8> {
    amqp091::method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, tag, 0])
}

/// `basic.publish`, its header and its body.
fn publish() -> Vec<u8> {
    [
        amqp091::method(1, 60, 40, &[0, 0, 0, 1, b'q', 0]),
        amqp091::frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]),
        amqp091::frame(3, 1, b"hi"),
    ]
    .concat()
}

/// A disposition of a receiver about one delivery.
fn disposition(id: u32) -> Vec<u8> {
    let fields = [vec![0x41], amqp10::uint(id), amqp10::null(), vec![0x41]];
    amqp10::frame(0, 0, &amqp10::described(0x15, &fields))
}

/// A server that says back what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let socket = TcpStream::connect(proxy.address()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

async fn read(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    timeout(LONG, socket.read_exact(&mut read)).await.expect("in time").expect("bytes");
    read
}

/// What comes until the other side closes.
async fn read_all(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    timeout(LONG, socket.read_to_end(&mut read)).await.expect("in time")?;
    Ok(read)
}

async fn until(proxy: &Proxy, is_so: impl FnMut(&Traffic) -> bool) {
    timeout(LONG, proxy.until(is_so)).await.expect("in time");
}

async fn expect_silence(socket: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(A_WHILE, socket.read(&mut byte)).await.is_err(), "something came: {byte:?}");
}

async fn expect_reset(socket: &mut TcpStream) {
    let mut read = Vec::new();
    let error = timeout(LONG, socket.read_to_end(&mut read)).await.expect("in time").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A broker that speaks AMQP 0-9-1 and says this to every client.
async fn saying(bytes: Vec<u8>) -> (Peer, Proxy) {
    let peer = Peer::start(Script::new().send(bytes).close()).await.unwrap();
    let proxy = Proxy::start(peer.address()).await.unwrap();
    (peer, proxy)
}

#[tokio::test]
async fn everything_passes_both_ways_unchanged() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut socket = connect(&proxy).await;
    let mut random = fastrand::Rng::with_seed(1);
    let sent: Vec<u8> = (0..3_000_000).map(|_| random.u8(..)).collect();
    let (mut from, mut to) = socket.split();
    let mut came = Vec::new();
    let writing = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    timeout(LONG, async { tokio::join!(writing, from.read_to_end(&mut came)).1.unwrap() })
        .await
        .expect("in time");
    assert!(came == sent, "{} of {} bytes came back, or others", came.len(), sent.len());
}

#[tokio::test]
async fn the_second_confirm_is_dropped_and_no_other() {
    let (_peer, proxy) = saying([ack(1), ack(2), ack(3)].concat()).await;
    let armed = proxy.arm(FromBroker, Kind::Confirm, 2, Act::Drop);
    let mut socket = connect(&proxy).await;
    assert_eq!(read_all(&mut socket).await.unwrap(), [ack(1), ack(3)].concat());
    assert!(armed.fired().await);
    assert_eq!(proxy.traffic().frames(FromBroker, Kind::Confirm), 3);
}

#[tokio::test]
async fn the_second_confirm_of_amqp_10_is_dropped_and_no_other() {
    let said = [amqp10::AMQP.to_vec(), disposition(1), disposition(2), disposition(3)].concat();
    let (_peer, proxy) = saying(said).await;
    proxy.arm(FromBroker, Kind::Confirm, 2, Act::Drop);
    let mut socket = connect(&proxy).await;
    let expected = [amqp10::AMQP.to_vec(), disposition(1), disposition(3)].concat();
    assert_eq!(read_all(&mut socket).await.unwrap(), expected);
}

#[tokio::test]
async fn a_dropped_settlement_never_reaches_the_broker() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let proxy = Proxy::start(peer.address()).await.unwrap();
    proxy.arm(ToBroker, Kind::Settlement, 1, Act::Drop);
    let mut socket = connect(&proxy).await;
    socket.write_all(&[ack(1), ack(2)].concat()).await.unwrap();
    until(&proxy, |traffic| traffic.frames(ToBroker, Kind::Settlement) == 2).await;
    socket.shutdown().await.unwrap();
    until(&proxy, |traffic| traffic.open == 0).await;
    assert_eq!(peer.heard(), ack(2));
}

#[tokio::test]
async fn from_one_confirm_on_all_are_dropped() {
    let (_peer, proxy) = saying([ack(1), ack(2), ack(3)].concat()).await;
    proxy.arm(FromBroker, Kind::Confirm, 2, Act::DropRest);
    let mut socket = connect(&proxy).await;
    assert_eq!(read_all(&mut socket).await.unwrap(), ack(1));
}

#[tokio::test]
async fn a_publish_passes_and_its_answer_does_not() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let armed = proxy.arm(ToBroker, Kind::Publish, 2, Act::HoldAnswers);
    let mut socket = connect(&proxy).await;
    let message = publish();
    socket.write_all(&message).await.unwrap();
    read(&mut socket, message.len()).await;
    socket.write_all(&message).await.unwrap();
    assert!(armed.fired().await);
    // The message has been there and is on its way back: its header and body are frames, too.
    until(&proxy, |traffic| traffic.frames(FromBroker, Kind::Other) == 4).await;
    expect_silence(&mut socket).await;
    proxy.cut(Cut::Reset);
    expect_reset(&mut socket).await;
}

#[tokio::test]
async fn a_connection_is_cut_at_a_frame_or_inside_it() {
    for (act, passes) in [
        (Act::Cut(Cut::Fin), ack(1).len()),
        (Act::CutInside(Cut::Fin), ack(1).len() + ack(2).len() / 2),
    ] {
        let (_peer, proxy) = saying([ack(1), ack(2), ack(3)].concat()).await;
        proxy.arm(FromBroker, Kind::Confirm, 2, act);
        let mut socket = connect(&proxy).await;
        assert_eq!(read_all(&mut socket).await.unwrap().len(), passes, "{act:?}");
    }
    let (_peer, proxy) = saying([ack(1), ack(2)].concat()).await;
    proxy.arm(FromBroker, Kind::Confirm, 2, Act::Cut(Cut::Reset));
    expect_reset(&mut connect(&proxy).await).await;
}

#[tokio::test]
async fn a_connection_is_cut_after_so_many_bytes_wherever_in_a_frame_that_is() {
    let whole = [ack(1), ack(2), ack(3)].concat();
    for bytes in [0, 1, ack(1).len(), ack(1).len() + 5, whole.len() - 1] {
        let (_peer, proxy) = saying(whole.clone()).await;
        let armed = proxy.cut_after(FromBroker, bytes as u64, Cut::Fin);
        let mut socket = connect(&proxy).await;
        assert_eq!(read_all(&mut socket).await.unwrap(), whole[..bytes], "{bytes}");
        assert!(armed.fired().await, "{bytes}");
    }
    // Not yet: as many may pass.
    let (_peer, proxy) = saying(whole.clone()).await;
    let armed = proxy.cut_after(FromBroker, whole.len() as u64, Cut::Reset);
    let mut socket = connect(&proxy).await;
    assert_eq!(read(&mut socket, whole.len()).await, whole);
    proxy.disarm();
    assert!(!armed.fired().await);
}

#[tokio::test]
async fn a_frame_that_is_held_holds_what_follows() {
    let (_peer, proxy) = saying([ack(1), ack(2), ack(3)].concat()).await;
    proxy.arm(FromBroker, Kind::Confirm, 2, Act::Hold);
    let mut socket = connect(&proxy).await;
    assert_eq!(read(&mut socket, ack(1).len()).await, ack(1));
    expect_silence(&mut socket).await;
}

#[tokio::test]
async fn a_rule_that_is_disarmed_does_nothing() {
    let (_peer, proxy) = saying([ack(1), ack(2)].concat()).await;
    let armed = proxy.arm(FromBroker, Kind::Confirm, 1, Act::Drop);
    proxy.disarm();
    assert!(!armed.fired().await);
    assert_eq!(read_all(&mut connect(&proxy).await).await.unwrap().len(), 2 * ack(1).len());
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_fin_is_an_end() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut socket = connect(&proxy).await;
    socket.write_all(b"x").await.unwrap();
    read(&mut socket, 1).await;
    proxy.cut(Cut::Reset);
    expect_reset(&mut socket).await;

    let mut socket = connect(&proxy).await;
    socket.write_all(b"x").await.unwrap();
    read(&mut socket, 1).await;
    proxy.cut(Cut::Fin);
    assert_eq!(read_all(&mut socket).await.unwrap(), b"");
    drop(socket);
    until(&proxy, |traffic| traffic.open == 0).await;
}

#[tokio::test]
async fn a_half_closed_connection_still_goes_the_other_way() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let proxy = Proxy::start(peer.address()).await.unwrap();
    let mut socket = connect(&proxy).await;
    socket.write_all(b"x").await.unwrap();
    until(&proxy, |traffic| traffic.open == 1).await;
    proxy.cut(Cut::Half(FromBroker));
    assert_eq!(read_all(&mut socket).await.unwrap(), b"");
    socket.write_all(b"yz").await.unwrap();
    timeout(LONG, async {
        while peer.heard() != b"xyz" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it arrives");
}

#[tokio::test]
async fn a_black_hole_swallows_one_direction_and_gives_back_when_it_ends() {
    for direction in Direction::BOTH {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = connect(&proxy).await;
        socket.write_all(b"a").await.unwrap();
        read(&mut socket, 1).await;
        proxy.flow(direction, Flow::held());
        socket.write_all(b"b").await.unwrap();
        expect_silence(&mut socket).await;
        proxy.heal().await;
        assert_eq!(read(&mut socket, 1).await, b"b");
    }
}

#[tokio::test]
async fn a_closed_door_refuses_and_can_be_opened_again() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut before = connect(&proxy).await;
    until(&proxy, |traffic| traffic.open == 1).await;
    proxy.door(Door::Refusing).await;
    for _ in 0..3 {
        let error = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    // Who is in stays in.
    before.write_all(b"x").await.unwrap();
    read(&mut before, 1).await;
    proxy.door(Door::Open).await;
    let mut after = connect(&proxy).await;
    after.write_all(b"y").await.unwrap();
    assert_eq!(read(&mut after, 1).await, b"y");
}

#[tokio::test]
async fn a_hanging_door_accepts_and_says_nothing() {
    let peer = Peer::start(Script::new().send("hello")).await.unwrap();
    let proxy = Proxy::start(peer.address()).await.unwrap();
    proxy.door(Door::Hanging).await;
    let mut socket = connect(&proxy).await;
    expect_silence(&mut socket).await;
    assert_eq!(peer.accepted(), 0);
    proxy.cut(Cut::Reset);
    expect_reset(&mut socket).await;
}

#[tokio::test]
async fn a_delay_delays_and_keeps_the_order() {
    let proxy = Proxy::seeded(echo().await, 7).await.unwrap();
    let delay = Duration::from_millis(100);
    proxy.flow(ToBroker, Flow::delayed(delay, delay / 2));
    let mut socket = connect(&proxy).await;
    let began = Instant::now();
    for byte in 0..50 {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let came = read(&mut socket, 50).await;
    assert_eq!(came, (0..50).collect::<Vec<u8>>());
    assert!(began.elapsed() >= delay / 2, "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_limited_rate_takes_its_time_and_ends_when_it_is_lifted() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    proxy.flow(ToBroker, Flow::limited(20_000));
    let mut socket = connect(&proxy).await;
    let began = Instant::now();
    socket.write_all(&[0; 4_000]).await.unwrap();
    read(&mut socket, 4_000).await;
    // Ten pieces, and a wait between each two.
    assert!(began.elapsed() >= Duration::from_millis(170), "it took {:?}", began.elapsed());
    socket.write_all(&vec![0; 2_000_000]).await.unwrap();
    proxy.heal().await;
    read(&mut socket, 2_000_000).await;
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    for direction in Direction::BOTH {
        proxy.flow(direction, Flow::sliced(1));
    }
    let mut socket = connect(&proxy).await;
    let sent: Vec<u8> = (0..2000_u32).map(|at| at as u8).collect();
    socket.write_all(&sent).await.unwrap();
    assert_eq!(read(&mut socket, 2000).await, sent);
}

#[tokio::test]
async fn a_url_leads_through_the_proxy_and_keeps_the_rest() {
    let proxy = Proxy::start(([127, 0, 0, 1], 1).into()).await.unwrap();
    let at = proxy.address();
    for (broker, expected) in [
        ("amqp091://guest:guest@127.0.0.1:5672/enoki", format!("amqp091://guest:guest@{at}/enoki")),
        ("amqp10://h?heartbeat=5", format!("amqp10://{at}?heartbeat=5")),
        ("amqp10://u:p%40@h:1", format!("amqp10://u:p%40@{at}")),
    ] {
        assert_eq!(proxy.url(broker), expected);
    }
}
