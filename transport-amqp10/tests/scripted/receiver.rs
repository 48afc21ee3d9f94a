//! What a receiver asks for, hands out and says.

use std::time::Duration;

use enoki_core::{
    ErrorKind, Outcome,
    transport::{Delivered, End, Receiver, Session, Settle},
};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    peer::{
        ACCEPTED, DETACH, END, FLOW, Link, MAX_BODY, MAX_MESSAGE, MODIFIED, Peer, REJECTED,
        RELEASED, connected, connected_to, consuming, data, described, error, kind, text,
    },
};

async fn receiver(
    session: &dyn Session,
    peer: &mut Peer,
    prefetch: u16,
) -> (Box<dyn Receiver>, Link) {
    let (receiver, (link, credit)) =
        tokio::join!(session.receiver(consuming(prefetch)), peer.opens_a_receiver());
    assert_eq!(credit, u32::from(prefetch));
    (receiver.unwrap(), link)
}

/// Waits until it has so many, and no more.
async fn receive(receiver: &mut dyn Receiver, count: usize) -> Vec<Delivered> {
    let mut into = Vec::new();
    while into.len() < count {
        timeout(PATIENCE, receiver.receive(&mut into, count + 1)).await.unwrap().unwrap();
    }
    assert_eq!(into.len(), count);
    into
}

async fn end(receiver: &mut dyn Receiver) -> End {
    let mut into = Vec::new();
    let end = timeout(PATIENCE, receiver.receive(&mut into, 1)).await.unwrap().unwrap_err();
    assert!(into.is_empty());
    end
}

fn settle(tag: u64, outcome: Outcome) -> Settle {
    Settle::new(tag, outcome)
}

/// A `modified` that counts as an attempt, without more.
fn is_requeue(state: &[u8]) -> bool {
    kind(state) == MODIFIED && state.last() == Some(&0x41)
}

#[tokio::test]
async fn each_outcome_is_said_in_its_own_way_and_a_row_of_one_outcome_in_one_frame() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    for number in 0..6 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let delivered = receive(&mut *receiver, 6).await;
    let tags: Vec<_> = delivered.iter().map(|delivered| delivered.tag).collect();
    let outcomes = [
        Outcome::Ack,
        Outcome::Ack,
        Outcome::Ack,
        Outcome::Reject,
        Outcome::Release,
        Outcome::Requeue,
    ];
    let settlements: Vec<_> =
        tags.iter().zip(outcomes).map(|(tag, outcome)| settle(*tag, outcome)).collect();
    receiver.settle(&settlements);
    for (first, last, wanted) in
        [(0, 2, ACCEPTED), (3, 3, REJECTED), (4, 4, RELEASED), (5, 5, MODIFIED)]
    {
        let (begin, end, state) = peer.is_told().await;
        assert_eq!((begin, end, kind(&state)), (first, last, wanted));
        if wanted == MODIFIED {
            assert!(is_requeue(&state), "{state:x?}");
        }
    }
    // Settled once is settled.
    receiver.settle(&[settle(tags[0], Outcome::Reject)]);
    let closing = receiver.close();
    let (closed, ()) = tokio::join!(closing, async {
        let topped_up = peer.expects(FLOW).await;
        assert_eq!(topped_up.number(6), Some(10));
        peer.sees_closed(&link).await;
    });
    closed.unwrap();
}

#[tokio::test]
async fn a_delay_travels_with_its_own_delivery() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    for number in 0..2 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let delivered = receive(&mut *receiver, 2).await;
    let later = Outcome::RetryAfter(Duration::from_secs(5));
    receiver.settle(&[settle(delivered[0].tag, later), settle(delivered[1].tag, Outcome::Ack)]);
    let (first, last, state) = peer.is_told().await;
    assert_eq!((first, last, kind(&state)), (1, 1, ACCEPTED));
    let (first, last, state) = peer.is_told().await;
    assert_eq!((first, last, kind(&state)), (0, 0, MODIFIED));
    let annotation = b"x-opt-delivery-time";
    assert!(state.windows(annotation.len()).any(|bytes| bytes == annotation), "{state:x?}");
}

/// Half of the prefetch at a time, and what is unsettled takes up its room.
#[tokio::test]
async fn it_asks_for_more_when_half_of_its_room_is_free_and_never_for_more_than_its_room() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 4).await;
    for number in 0..2 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let two = receive(&mut *receiver, 2).await;
    receiver.settle(&[settle(two[0].tag, Outcome::Ack)]);
    // Three may be under way or unsettled, of which two are asked for: more than half of three.
    assert_eq!(kind(&peer.is_told().await.2), ACCEPTED);
    receiver.settle(&[settle(two[1].tag, Outcome::Ack)]);
    assert_eq!(kind(&peer.is_told().await.2), ACCEPTED);
    let flow = peer.expects(FLOW).await;
    assert_eq!(flow.number(6), Some(4));
    for number in 2..6 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let four = receive(&mut *receiver, 4).await;
    receiver.settle(&[settle(four[0].tag, Outcome::Ack)]);
    assert_eq!(kind(&peer.is_told().await.2), ACCEPTED);
    let flow = peer.expects(FLOW).await;
    assert_eq!((flow.number(5), flow.number(6)), (Some(6), Some(1)));
}

#[tokio::test]
async fn at_most_as_many_are_handed_out_as_are_asked_for() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    for number in 0..5 {
        peer.delivers(&link, number, &data(&[number as u8])).await;
    }
    let mut into = Vec::new();
    timeout(PATIENCE, receiver.receive(&mut into, 1)).await.unwrap().unwrap();
    assert_eq!(into.len(), 1);
    for (max, total) in [(3, 4), (0, 5)] {
        while into.len() < total {
            let before = into.len();
            timeout(PATIENCE, receiver.receive(&mut into, max)).await.unwrap().unwrap();
            assert!(into.len() - before <= max.max(1), "{} of {max}", into.len() - before);
            if max == 3 && into.len() < total {
                break;
            }
        }
    }
    while into.len() < 5 {
        timeout(PATIENCE, receiver.receive(&mut into, 1)).await.unwrap().unwrap();
    }
    let bodies: Vec<_> = into.iter().map(|delivered| delivered.message.body[0]).collect();
    assert_eq!(bodies, [0, 1, 2, 3, 4]);
    let tags: Vec<_> = into.iter().map(|delivered| delivered.tag).collect();
    assert_eq!(tags, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_has_come_is_handed_out_without_waiting_for_more() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    for number in 0..2 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let mut into = Vec::new();
    while into.len() < 2 {
        timeout(PATIENCE, receiver.receive(&mut into, 10)).await.unwrap().unwrap();
    }
}

/// Also where both are there when the call begins.
#[tokio::test]
async fn deliveries_are_handed_out_before_the_end_behind_them() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    for number in 0..2 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    peer.detaches(&link, None).await;
    // All of that has come when this is answered.
    peer.expects(DETACH).await;
    assert_eq!(receive(&mut *receiver, 2).await.len(), 2);
    assert!(matches!(end(&mut *receiver).await, End::Cancelled(_)));
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_says_when_there_is_no_more() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 4).await;
    for number in 0..3 {
        peer.delivers(&link, number, &data(b"first")).await;
    }
    let first = receive(&mut *receiver, 3).await;
    timeout(PATIENCE, receiver.stop()).await.unwrap().unwrap();
    let drain = peer.expects(FLOW).await;
    assert!(drain.truth(8), "{drain:x?}");
    // Settling asks for nothing more.
    let settlements: Vec<_> =
        first.iter().map(|delivered| settle(delivered.tag, Outcome::Ack)).collect();
    receiver.settle(&settlements);
    assert_eq!(kind(&peer.is_told().await.2), ACCEPTED);
    receiver.stop().await.unwrap();
    peer.delivers(&link, 3, &data(b"second")).await;
    peer.drained(&link, 4).await;
    let second = receive(&mut *receiver, 1).await;
    assert_eq!(&*second[0].message.body, b"second");
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    // For ever after.
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    let (closed, told) = tokio::join!(receiver.close(), async {
        let told = peer.is_told().await;
        peer.sees_closed(&link).await;
        told
    });
    closed.unwrap();
    // What has no outcome counts as an attempt.
    assert_eq!((told.0, told.1), (3, 3));
    assert!(is_requeue(&told.2), "{:x?}", told.2);
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    receiver.close().await.unwrap();
}

/// A broker that has no credit left need not say so.
#[tokio::test]
async fn a_stop_asks_nothing_when_everything_has_come() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 2).await;
    for number in 0..2 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    receive(&mut *receiver, 2).await;
    timeout(PATIENCE, receiver.stop()).await.unwrap().unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    let (closed, told) = tokio::join!(receiver.close(), async {
        let told = peer.is_told().await;
        peer.sees_closed(&link).await;
        told
    });
    closed.unwrap();
    assert_eq!((told.0, told.1), (0, 1));
}

/// Also where it has asked for more meanwhile.
#[tokio::test]
async fn a_stop_asks_nothing_when_everything_that_it_asked_for_again_has_come() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 3).await;
    for number in 0..3 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    let first = receive(&mut *receiver, 3).await;
    let settlements: Vec<_> =
        first.iter().map(|delivered| settle(delivered.tag, Outcome::Ack)).collect();
    receiver.settle(&settlements);
    assert_eq!(kind(&peer.is_told().await.2), ACCEPTED);
    assert_eq!(peer.expects(FLOW).await.number(6), Some(3));
    for number in 3..6 {
        peer.delivers(&link, number, &data(b"body")).await;
    }
    receive(&mut *receiver, 3).await;
    timeout(PATIENCE, receiver.stop()).await.unwrap().unwrap();
    assert!(matches!(end(&mut *receiver).await, End::Stopped));
    let (closed, told) = tokio::join!(receiver.close(), async {
        let told = peer.is_told().await;
        peer.sees_closed(&link).await;
        told
    });
    closed.unwrap();
    assert_eq!((told.0, told.1), (3, 5));
}

/// Its session is clean, and serves the next one.
#[tokio::test]
async fn a_receiver_that_was_closed_leaves_its_session_to_the_next() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 2).await;
    let (closed, ()) = tokio::join!(receiver.close(), peer.sees_closed(&link));
    closed.unwrap();
    drop(receiver);
    let opening = session.receiver(consuming(2));
    let (opened, next) = tokio::join!(opening, async {
        let next = peer.attaches(None).await;
        peer.expects(FLOW).await;
        next
    });
    opened.unwrap();
    assert_eq!(next.channel, link.channel);
    assert_ne!(next.attach.fields[0], link.attach.fields[0], "two links of one name");
}

#[tokio::test]
async fn a_receiver_that_is_dropped_leaves_no_session_to_the_next() {
    let (session, mut peer) = connected().await;
    let (receiver, link) = receiver(&*session, &mut peer, 2).await;
    drop(receiver);
    peer.sees_ended(link.channel).await;
    let (opened, _) = tokio::join!(session.receiver(consuming(2)), peer.opens_a_receiver());
    opened.unwrap();
}

#[tokio::test]
async fn a_link_that_the_broker_ends_is_a_cancelled_consumer_and_the_reason_is_its_own() {
    for (reason, wanted, text) in [
        (None, ErrorKind::NotFound, "cancelled the consumer"),
        (Some(error("amqp:resource-deleted", "it went")), ErrorKind::NotFound, "it went"),
        (Some(error("amqp:unauthorized-access", "not yours")), ErrorKind::Denied, "not yours"),
    ] {
        let (session, mut peer) = connected().await;
        let (mut receiver, link) = receiver(&*session, &mut peer, 2).await;
        peer.detaches(&link, reason).await;
        let End::Cancelled(error) = end(&mut *receiver).await else { panic!("not cancelled") };
        assert_eq!(error.kind(), wanted, "{error}");
        let said = error.to_string();
        assert!(said.contains(text) && said.contains("queue \"q\""), "{said}");
        // It stays so, and there is nothing to stop.
        assert!(matches!(end(&mut *receiver).await, End::Cancelled(_)));
        receiver.stop().await.unwrap();
        assert!(matches!(end(&mut *receiver).await, End::Cancelled(_)));
    }
}

#[tokio::test]
async fn what_ends_with_its_session_or_connection_is_lost_and_stays_lost() {
    for whole in [false, true] {
        let (session, mut peer) = connected().await;
        let (mut receiver, link) = receiver(&*session, &mut peer, 2).await;
        peer.delivers(&link, 0, &data(b"body")).await;
        let mut delivered = receive(&mut *receiver, 1).await;
        match whole {
            true => peer.closes().await,
            false => peer.says(link.channel, END, &[error("amqp:internal-error", "oops")]).await,
        }
        let End::Lost(error) = end(&mut *receiver).await else { panic!("not lost") };
        assert!(error.is_transient(), "{error}");
        let said = error.to_string();
        let wanted = if whole { "closed the connection" } else { "oops" };
        assert!(said.contains(wanted) && said.contains("queue \"q\""), "{said}");
        receiver.settle(&[settle(delivered.remove(0).tag, Outcome::Ack)]);
        timeout(PATIENCE, receiver.close()).await.unwrap().unwrap();
        assert!(matches!(end(&mut *receiver).await, End::Lost(_)));
    }
}

#[tokio::test]
async fn a_message_in_many_frames_is_one_delivery() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    let message = data(b"one two three");
    for (number, cuts) in [vec![], vec![4], vec![4, 9], vec![1, 2, 3]].into_iter().enumerate() {
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([message.len()]) {
            parts.push(&message[from..cut]);
            from = cut;
        }
        peer.delivers_parts(&link, number as u32, &parts).await;
    }
    for delivered in receive(&mut *receiver, 4).await {
        assert_eq!(&*delivered.message.body, b"one two three");
        assert!(delivered.undecodable.is_none());
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_delivery_that_cannot_be_decoded_and_one_at_the_limit_is_not() {
    let (session, mut peer) = connected().await;
    let (mut receiver, link) = receiver(&*session, &mut peer, 10).await;
    peer.delivers(&link, 0, &data(&[7; MAX_BODY])).await;
    peer.delivers(&link, 1, &data(&[7; MAX_BODY + 1])).await;
    // Beside a small body there is as much as a message may have, and a byte more.
    let message = |length: usize| {
        let around = |text_of: usize| {
            [described(0x73, &[text(&"m".repeat(text_of))]), data(b"small")].concat()
        };
        around(length - around(0).len())
    };
    for (number, length) in [(2, MAX_MESSAGE + 1), (3, MAX_MESSAGE)] {
        let message = message(length);
        assert_eq!(message.len(), length);
        peer.delivers_parts(&link, number, &message.chunks(100_000).collect::<Vec<_>>()).await;
    }
    let delivered = receive(&mut *receiver, 4).await;
    assert!(delivered[0].undecodable.is_none());
    assert_eq!(delivered[0].message.body.len(), MAX_BODY);
    assert_eq!(&*delivered[3].message.body, b"small");
    for large in &delivered[1..3] {
        let reason = large.undecodable.as_deref().unwrap();
        assert!(reason.contains("max_body"), "{reason}");
        assert!(large.message.body.is_empty());
    }
}

#[tokio::test]
async fn a_link_that_is_refused_says_for_which_queue() {
    let (session, mut peer) = connected().await;
    let (refused, ()) = tokio::join!(session.receiver(consuming(1)), async {
        peer.begins().await;
        let link = peer.attaches(None).await;
        peer.detaches(&link, Some(error("amqp:not-found", "no queue 'q'"))).await;
    });
    // The link was attached for a moment: what ends it may be heard by either call.
    match refused {
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        Ok(mut receiver) => {
            let End::Cancelled(error) = end(&mut *receiver).await else { panic!("not cancelled") };
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
}

/// Queues of other brokers are told from topics by a capability, and have bare names.
#[tokio::test]
async fn a_source_is_addressed_as_its_broker_reads_addresses() {
    for (product, address, has_capability) in
        [("RabbitMQ", "/queues/q", false), ("Other", "q", true)]
    {
        let (session, mut peer) = connected_to(product, "4.0.5").await;
        let (receiver, link) = receiver(&*session, &mut peer, 1).await;
        let source = link.attach.field(5);
        let holds = |bytes: &[u8]| source.windows(bytes.len()).any(|part| part == bytes);
        assert!(
            holds(&text(address))
                || holds(&[&[0xa1, address.len() as u8], address.as_bytes()].concat()),
            "{source:x?}"
        );
        assert_eq!(holds(b"queue") && !holds(b"queues"), has_capability, "{source:x?}");
        assert!(!receiver.delays());
    }
}
