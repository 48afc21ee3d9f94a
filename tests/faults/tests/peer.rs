//! The scripted peer follows its script, and real clients take it for a broker.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use enoki_faults::peer::{Peer, Script, amqp10, amqp091};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_answers_when_it_is_asked_and_hears_everything() {
    let script = Script::new().read(3).send("one").read_frame().send("two").close();
    let peer = Peer::start(script).await.unwrap();
    let mut socket = TcpStream::connect(peer.address()).await.unwrap();
    let mut answer = [0; 3];
    socket.write_all(b"abc").await.unwrap();
    timeout(LONG, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"one");
    let frame = amqp091::method(0, 10, 11, b"x");
    socket.write_all(&frame).await.unwrap();
    let mut rest = Vec::new();
    timeout(LONG, socket.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"two");
    assert_eq!(peer.heard(), [b"abc".to_vec(), frame].concat());
    assert_eq!(peer.accepted(), 1);
}

#[tokio::test]
async fn everybody_gets_the_whole_script() {
    let peer = Peer::start(Script::new().flood("spam", 100).close()).await.unwrap();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(peer.address()).await.unwrap();
        let mut said = Vec::new();
        timeout(LONG, socket.read_to_end(&mut said)).await.unwrap().unwrap();
        assert_eq!(said, "spam".repeat(100).as_bytes());
    }
    timeout(LONG, peer.played(3)).await.unwrap();
}

#[tokio::test]
async fn clients_of_both_protocols_log_in() {
    for (script, scheme) in [
        (amqp091::login(2047, 131_072, 10), "amqp091"),
        (amqp10::login(131_072, 255, 10_000), "amqp10"),
    ] {
        let peer = Peer::start(script).await.unwrap();
        let broker = enoki::connect(format!("{scheme}://guest:guest@{}", peer.address())).await;
        assert_eq!(broker.expect(scheme).peer().product(), "RabbitMQ", "{scheme}");
    }
}
