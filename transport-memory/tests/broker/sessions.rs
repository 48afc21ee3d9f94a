//! Sessions and their ends, and which broker they are on.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use enoki_core::{
    BrokerUrl, Capability, ErrorKind, Message, QueueSpec,
    transport::{Change, Outgoing},
};
use enoki_transport_memory::MemoryTransport;
use tokio::time::{Instant, timeout};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_name_is_a_broker_and_outlives_its_connections() {
    let named = async |url: &str| {
        let transport = MemoryTransport::new(&BrokerUrl::parse(url).unwrap()).unwrap();
        connect(&transport).await
    };
    let verify = Change::VerifyQueue(queue("q", |_| {}));
    named("memory://one").await.apply(&Change::DeclareQueue(queue("q", |_| {}))).await.unwrap();
    named("memory://one").await.apply(&verify).await.unwrap();
    for other in ["memory://two", "memory:"] {
        let error = named(other).await.apply(&verify).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_fails_everything_that_came_from_it() {
    let bench = Bench::with_messages("q", &["a"]).await;
    let session = connect(&bench.transport).await;
    let mut sender = session.sender(window(8)).await.unwrap();
    let mut receiver = session.receiver(of(&short("q"), 1)).await.unwrap();
    next(&mut receiver).await;
    let waiting = tokio::spawn(async move {
        let error = sender.outcomes(&mut Vec::new()).await.unwrap_err();
        (error, sender)
    });
    tokio::task::yield_now().await;
    for _ in 0..2 {
        session.close(Instant::now()).await;
    }
    assert_eq!(ended(&session).await.kind(), ErrorKind::Closed);
    assert_eq!(ended(&session).await.kind(), ErrorKind::Closed);
    let (error, mut sender) = waiting.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = sender.submit(&mut VecDeque::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    for _ in 0..2 {
        assert!(matches!(end(&mut receiver).await, End::Lost(e) if e.kind() == ErrorKind::Closed));
    }
    let error = session.apply(&Change::DeleteQueue(short("q"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(session.sender(window(8)).await.unwrap_err().kind(), ErrorKind::Closed);
    let error = session.receiver(of(&short("q"), 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(bench.depth("q").await, Some(1), "what was held is back");
}

#[tokio::test(start_paused = true)]
async fn dropped_connections_are_transient_and_give_everything_back_once() {
    let bench = Bench::with_messages("q", &["a", "b", "c"]).await;
    let sessions = [connect(&bench.transport).await, connect(&bench.transport).await];
    let mut receivers = Vec::new();
    for session in &sessions {
        receivers.push(session.receiver(of(&short("q"), 1)).await.unwrap());
        receivers.push(session.receiver(of(&short("q"), 10)).await.unwrap());
    }
    bench.transport.drop_connections();
    for session in &sessions {
        let error = ended(session).await;
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.is_transient());
    }
    for receiver in &mut receivers {
        assert!(matches!(end(receiver).await, End::Lost(_)), "nothing that is back is given");
    }
    let bench = Bench::on(bench.transport.clone()).await;
    let mut receiver = bench.consume("q", 3).await;
    for (expected, attempt) in [("a", 2), ("b", 2), ("c", 2)] {
        let delivered = next(&mut receiver).await;
        assert_eq!((body(&delivered).as_str(), delivered.attempt.number), (expected, attempt));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_receiver_learns_that_its_session_is_lost() {
    let bench = Bench::with_messages("q", &["a", "b"]).await;
    let mut receiver = bench.consume("q", 2).await;
    next(&mut receiver).await;
    receiver.stop().await.unwrap();
    bench.transport.drop_connections();
    assert!(matches!(end(&mut receiver).await, End::Lost(_)), "its settlements no longer count");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_ends_what_came_from_it() {
    let mut bench = Bench::with_messages("q", &[]).await;
    let session = connect(&bench.transport).await;
    let mut receiver = session.receiver(of(&short("q"), 1)).await.unwrap();
    let waiting = tokio::spawn(async move { end(&mut receiver).await });
    tokio::task::yield_now().await;
    drop(session);
    assert!(matches!(waiting.await.unwrap(), End::Lost(_)));
    bench.send("q", "a").await;
    assert_eq!(bench.depth("q").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_sender_takes_no_more_than_its_window_and_idles_until_the_end() {
    let bench = Bench::with_messages("q", &[]).await;
    let mut sender = bench.session.sender(window(2)).await.unwrap();
    let mut outgoing: VecDeque<_> = (1..=3)
        .map(|id| Outgoing {
            id,
            exchange: short(""),
            routing_key: short("q"),
            mandatory: true,
            message: Arc::new(Message::new("m")),
        })
        .collect();
    let mut outcomes = Vec::new();
    sender.submit(&mut outgoing).await.unwrap();
    sender.submit(&mut outgoing).await.unwrap();
    assert_eq!((outgoing.len(), bench.depth("q").await), (1, Some(2)));
    sender.outcomes(&mut outcomes).await.unwrap();
    sender.submit(&mut outgoing).await.unwrap();
    sender.outcomes(&mut outcomes).await.unwrap();
    assert_eq!(outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
    let idle = timeout(Duration::from_secs(60), sender.outcomes(&mut outcomes)).await;
    assert!(idle.is_err(), "nothing is outstanding");
    bench.transport.drop_connections();
    let error = sender.outcomes(&mut outcomes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
}

#[tokio::test(start_paused = true)]
async fn the_peer_says_what_it_can() {
    let bench = Bench::new().await;
    let peer = bench.session.peer();
    assert_eq!(peer.product(), "enoki memory broker");
    assert_eq!(peer.version(), concat!(env!("CARGO_PKG_VERSION"), ", as reference"));
    assert!(peer.can(Capability::VirtualTime) && peer.can(Capability::DeliveryCount));
}

#[tokio::test(start_paused = true)]
async fn arguments_of_a_consumer_are_refused() {
    let bench = Bench::new().await;
    bench.session.apply(&Change::DeclareQueue(QueueSpec::new("q").unwrap())).await.unwrap();
    let mut options = of(&short("q"), 1);
    options.arguments.set(short("x-priority"), 5);
    let error = bench.session.receiver(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("x-priority"), "{error}");
}
