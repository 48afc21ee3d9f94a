//! What a receiver asks for, hands out and says.

use enoki_core::{
    ErrorKind, Outcome,
    transport::{Delivered, End, Receiver, Session, Settle},
};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    peer::{CANCEL, CHANNEL_CLOSE, Method, Peer, connected, consuming, purge},
};

const ACK: Method = (60, 80);
const REJECT: Method = (60, 90);
const NACK: Method = (60, 120);

async fn receiver(
    session: &dyn Session,
    peer: &mut Peer,
    prefetch: u16,
) -> (Box<dyn Receiver>, u16) {
    let (receiver, channel) =
        tokio::join!(session.receiver(consuming(prefetch)), peer.opens_a_receiver());
    assert_eq!(peer.asked_for, prefetch);
    (receiver.unwrap(), channel)
}

async fn receive(receiver: &mut dyn Receiver, count: usize) -> Vec<Delivered> {
    let mut into = Vec::new();
    while into.len() < count {
        timeout(PATIENCE, receiver.receive(&mut into, count)).await.unwrap().unwrap();
    }
    into
}

async fn end(receiver: &mut dyn Receiver) -> End {
    let mut into = Vec::new();
    let end = timeout(PATIENCE, receiver.receive(&mut into, 1)).await.unwrap().unwrap_err();
    assert!(into.is_empty());
    end
}

fn settle(outcomes: &[(u64, Outcome)]) -> Vec<Settle> {
    outcomes.iter().map(|&(tag, outcome)| Settle::new(tag, outcome)).collect()
}

fn of(tag: u8, bits: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, 0, 0, 0, tag, bits]
}

#[tokio::test]
async fn each_outcome_is_said_in_its_own_way_and_a_row_of_acks_in_one_frame() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 500).await;
    for tag in 1..=6 {
        peer.delivers(channel, tag, tag == 2, &[tag]).await;
    }
    for (at, delivered) in receive(&mut *receiver, 6).await.into_iter().enumerate() {
        let tag = at as u8 + 1;
        assert_eq!((delivered.tag, delivered.message.body[0]), (u64::from(tag), tag));
        assert_eq!((delivered.exchange.as_str(), delivered.routing_key.as_str()), ("shop", "k"));
        assert_eq!(delivered.redelivered, tag == 2);
        assert!(delivered.undecodable.is_none());
    }
    let acks = [(1, Outcome::Ack), (2, Outcome::Ack), (3, Outcome::Ack)];
    receiver.settle(&settle(&acks));
    assert_eq!(peer.is_told(ACK).await, of(3, 1));
    for (tag, outcome, method, bits) in [
        (4, Outcome::Reject, REJECT, 0),
        (5, Outcome::Requeue, REJECT, 1),
        (6, Outcome::Release, NACK, 2),
    ] {
        receiver.settle(&settle(&[(u64::from(tag), outcome)]));
        assert_eq!(peer.is_told(method).await, of(tag, bits), "{outcome:?}");
    }
    peer.delivers(channel, 7, false, b"body").await;
    receive(&mut *receiver, 1).await;
    receiver.settle(&settle(&[(7, Outcome::Ack)]));
    assert_eq!(peer.is_told(ACK).await, of(7, 0));
}

#[tokio::test]
async fn at_most_as_many_are_handed_out_as_are_asked_for() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    for tag in 1..=6 {
        peer.delivers(channel, tag, false, b"body").await;
    }
    // They are all here when this is answered.
    purge(&*session, &mut peer, true).await;
    let mut into = Vec::new();
    for (max, total) in [(2, 2), (0, 3), (10, 6)] {
        timeout(PATIENCE, receiver.receive(&mut into, max)).await.unwrap().unwrap();
        assert_eq!(into.len(), total, "at most {max}");
    }
}

/// Also where both are there when the call begins.
#[tokio::test]
async fn deliveries_are_handed_out_before_the_end_behind_them() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    for tag in 1..=2 {
        peer.delivers(channel, tag, false, b"body").await;
    }
    peer.says(channel, CANCEL, b"\x01t\x01").await;
    // All of that has come when this is answered.
    purge(&*session, &mut peer, true).await;
    let mut into = Vec::new();
    timeout(PATIENCE, receiver.receive(&mut into, 10)).await.unwrap().unwrap();
    assert_eq!(into.len(), 2);
    assert!(matches!(end(&mut *receiver).await, End::Cancelled(_)));
}

/// A broker settles a tag once, and a channel ends where it is settled again.
#[tokio::test]
async fn a_tag_that_comes_twice_is_settled_once() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    for tag in [1, 1, 2] {
        peer.delivers(channel, tag, false, b"body").await;
    }
    receive(&mut *receiver, 3).await;
    for tag in [1, 1, 2] {
        receiver.settle(&settle(&[(tag, Outcome::Ack)]));
    }
    assert_eq!(peer.is_told(ACK).await, of(1, 0));
    assert_eq!(peer.is_told(ACK).await, of(2, 0));
}

#[tokio::test]
async fn a_stop_hands_out_what_was_under_way_and_then_says_that_it_stopped() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    let (stopped, ()) = tokio::join!(receiver.stop(), async {
        assert_eq!(peer.expects(CANCEL).await, channel);
        peer.delivers(channel, 1, false, b"late").await;
        peer.says(channel, (60, 31), b"\x01t").await;
    });
    stopped.unwrap();
    let late = receive(&mut *receiver, 1).await;
    assert_eq!(&*late[0].message.body, b"late");
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    // A second stop says nothing; what was under way is settled as ever.
    receiver.stop().await.unwrap();
    receiver.settle(&settle(&[(1, Outcome::Requeue)]));
    assert_eq!(peer.is_told(REJECT).await, of(1, 1));
    let (closed, ()) = tokio::join!(receiver.close(), peer.sees_closed(channel));
    closed.unwrap();
    // Twice is once.
    receiver.close().await.unwrap();
    purge(&*session, &mut peer, true).await;
}

/// A cancel would make the next consumer active before what is unsettled here is back.
#[tokio::test]
async fn a_last_stop_keeps_the_consumer_and_gives_back_nothing_before_it_is_closed() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    for tag in 1..=5 {
        peer.delivers(channel, tag, false, b"body").await;
    }
    receive(&mut *receiver, 5).await;
    receiver.stop_last().await.unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    let outcomes = [(1, Outcome::Requeue), (2, Outcome::Release), (3, Outcome::Ack)];
    receiver.settle(&settle(&[&outcomes[..], &[(4, Outcome::Reject)]].concat()));
    assert_eq!(peer.is_told(REJECT).await, of(4, 0));
    assert_eq!(peer.is_told(ACK).await, of(3, 0));
    // There is nothing to stop any more.
    receiver.stop().await.unwrap();
    let (closed, ()) = tokio::join!(receiver.close(), peer.sees_closed(channel));
    closed.unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
}

#[tokio::test]
async fn a_close_without_a_stop_is_an_end_that_was_asked_for() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    let (closed, ()) = tokio::join!(receiver.close(), peer.sees_closed(channel));
    closed.unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
}

#[tokio::test]
async fn a_consumer_that_the_broker_cancels_is_told_from_one_that_stopped() {
    let (session, mut peer) = connected().await;
    let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
    peer.says(channel, CANCEL, b"\x01t\x01").await;
    for _ in 0..2 {
        let End::Cancelled(error) = end(&mut *receiver).await else { panic!("not cancelled") };
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("queue \"q\""), "{error}");
    }
    receiver.stop().await.unwrap();
    receiver.stop_last().await.unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Cancelled(_)));
}

#[tokio::test]
async fn a_channel_or_connection_that_ends_is_a_loss_with_its_reason() {
    for whole in [false, true] {
        let (session, mut peer) = connected().await;
        let (mut receiver, channel) = receiver(&*session, &mut peer, 10).await;
        peer.delivers(channel, 1, false, b"body").await;
        receive(&mut *receiver, 1).await;
        match whole {
            true => peer.closes(0, 320, "CONNECTION_FORCED - moved").await,
            false => peer.closes(channel, 541, "INTERNAL_ERROR - oops").await,
        }
        let wanted = if whole { "moved" } else { "oops" };
        for _ in 0..2 {
            let End::Lost(error) = end(&mut *receiver).await else { panic!("not lost") };
            assert!(error.is_transient(), "{error}");
            let said = error.to_string();
            assert!(said.contains(wanted) && said.contains("queue \"q\""), "{said}");
        }
        receiver.settle(&settle(&[(1, Outcome::Ack)]));
        timeout(PATIENCE, receiver.close()).await.unwrap().unwrap();
    }
}

/// A cancel would make room for the next consumer before the deliveries of this one are back.
#[tokio::test]
async fn a_dropped_receiver_closes_its_channel_and_cancels_nothing() {
    let (session, mut peer) = connected().await;
    let (receiver, channel) = tokio::join!(session.receiver(consuming(5)), peer.opens_a_receiver());
    drop(receiver.unwrap());
    assert_eq!(peer.expects(CHANNEL_CLOSE).await, channel);
    // The queue goes meanwhile, and the broker says so.
    peer.says(channel, CANCEL, b"\x01t\x01").await;
    peer.says(channel, (20, 41), &[]).await;
    purge(&*session, &mut peer, true).await;
}

/// RabbitMQ 3.10 and 4.0 answer so when a replicated queue goes at this moment.
#[tokio::test]
async fn a_cancel_that_is_answered_twice_costs_nothing() {
    let (session, mut peer) = connected().await;
    let (receiver, channel) = tokio::join!(session.receiver(consuming(5)), peer.opens_a_receiver());
    let mut receiver = receiver.unwrap();
    let (stopped, ()) = tokio::join!(receiver.stop(), async {
        peer.expects(CANCEL).await;
        peer.says(channel, (60, 31), b"\x01t").await;
        peer.says(channel, (60, 31), b"\x01t").await;
    });
    stopped.unwrap();
    purge(&*session, &mut peer, true).await;
}
