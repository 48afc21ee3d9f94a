//! What a sender writes, and what it makes of the answers.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use enoki_core::{
    Error, ErrorKind, Message, Properties, ShortStr,
    transport::{Outgoing, PublishOutcome, Sender, Session},
};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    peer::{CHANNEL_CLOSE, PUBLISH, Peer, connected, purge, window},
};

async fn sender(session: &dyn Session, peer: &mut Peer, messages: u16) -> (Box<dyn Sender>, u16) {
    let (sender, channel) = tokio::join!(session.sender(window(messages)), peer.opens_a_sender());
    (sender.unwrap(), channel)
}

/// Hands over what there is room for; the ids of the rest.
async fn submit(sender: &mut dyn Sender, messages: impl IntoIterator<Item = Outgoing>) -> Vec<u64> {
    let mut messages = messages.into_iter().collect::<VecDeque<_>>();
    sender.submit(&mut messages).await.unwrap();
    messages.iter().map(|outgoing| outgoing.id).collect()
}

/// Waits for so many outcomes.
async fn outcomes(sender: &mut dyn Sender, count: usize) -> Vec<(u64, PublishOutcome)> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        timeout(PATIENCE, sender.outcomes(&mut outcomes)).await.unwrap().unwrap();
    }
    assert_eq!(outcomes.len(), count, "{outcomes:?}");
    outcomes.sort_by_key(|(id, _)| *id);
    outcomes
}

async fn failure(sender: &mut dyn Sender) -> Error {
    let mut outcomes = Vec::new();
    let failure = timeout(PATIENCE, sender.outcomes(&mut outcomes)).await.unwrap().unwrap_err();
    assert!(outcomes.is_empty(), "{outcomes:?}");
    failure
}

fn rejection(outcome: &PublishOutcome) -> &Error {
    match outcome {
        PublishOutcome::Rejected(error) => error,
        other => panic!("{other:?}"),
    }
}

fn to(id: u64, exchange: &'static str, message_id: &'static str) -> Outgoing {
    Outgoing { exchange: ShortStr::from_static(exchange), ..outgoing(id, message_id) }
}

fn outgoing(id: u64, message_id: &'static str) -> Outgoing {
    let message_id = Some(ShortStr::from_static(message_id));
    Outgoing {
        id,
        exchange: ShortStr::EMPTY,
        routing_key: ShortStr::from_static("q"),
        mandatory: true,
        message: Arc::new(Message {
            body: Bytes::from_static(b"body"),
            properties: Properties { message_id, ..Properties::default() },
            ..Message::default()
        }),
    }
}

/// The ids of those that were confirmed.
async fn confirmed(sender: &mut dyn Sender) -> Vec<u64> {
    let mut outcomes = Vec::new();
    timeout(PATIENCE, sender.outcomes(&mut outcomes)).await.unwrap().unwrap();
    let is_confirmed = |outcome: &_| matches!(outcome, PublishOutcome::Confirmed);
    assert!(outcomes.iter().all(|(_, outcome)| is_confirmed(outcome)), "{outcomes:?}");
    outcomes.into_iter().map(|(id, _)| id).collect()
}

/// Were the channel closed from this side while the broker closes it for one of the messages, lapin would
/// give up the connection.
#[tokio::test]
async fn a_dropped_sender_keeps_its_channel_until_everything_is_answered() {
    let (session, mut peer) = connected().await;
    let (sender, channel) = tokio::join!(session.sender(window(10)), peer.opens_a_sender());
    let mut sender = sender.unwrap();
    let mut messages = VecDeque::from([outgoing(1, "a"), outgoing(2, "b")]);
    sender.submit(&mut messages).await.unwrap();
    for _ in 0..2 {
        assert_eq!(peer.expects(PUBLISH).await, channel);
    }
    drop(sender);
    purge(&*session, &mut peer, true).await;
    peer.confirms(channel, 1).await;
    purge(&*session, &mut peer, false).await;
    peer.confirms(channel, 2).await;
    assert_eq!(peer.expects(CHANNEL_CLOSE).await, channel);
}

/// The broker names a message that it returns by its id, and nothing else.
#[tokio::test]
async fn of_two_mandatory_messages_of_one_id_the_second_waits_for_the_outcome_of_the_first() {
    let (session, mut peer) = connected().await;
    let (sender, channel) = tokio::join!(session.sender(window(10)), peer.opens_a_sender());
    let mut sender = sender.unwrap();
    let mut messages =
        VecDeque::from([outgoing(1, "a"), outgoing(2, "b"), outgoing(3, "a"), outgoing(4, "c")]);
    sender.submit(&mut messages).await.unwrap();
    // What comes after it waits, too: the order stays.
    assert_eq!(messages.iter().map(|outgoing| outgoing.id).collect::<Vec<_>>(), [3, 4]);
    peer.confirms(channel, 1).await;
    assert_eq!(confirmed(&mut *sender).await, [1]);
    sender.submit(&mut messages).await.unwrap();
    assert!(messages.is_empty());
    for number in 2..=4 {
        peer.confirms(channel, number).await;
        assert_eq!(confirmed(&mut *sender).await, [u64::from(number)]);
    }
    // An optional one is never returned.
    let optional = Outgoing { mandatory: false, ..outgoing(6, "a") };
    let mut messages = VecDeque::from([outgoing(5, "a"), optional]);
    sender.submit(&mut messages).await.unwrap();
    assert!(messages.is_empty());
}

#[tokio::test]
async fn each_answer_of_the_broker_is_the_outcome_of_its_messages() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    let messages = [
        outgoing(1, "a"),
        outgoing(2, "b"),
        outgoing(3, "c"),
        to(4, "shop", "d"),
        outgoing(5, "e"),
    ];
    assert!(submit(&mut *sender, messages).await.is_empty());
    for _ in 1..=5 {
        assert_eq!(peer.expects(PUBLISH).await, channel);
    }
    peer.returns(channel, "b").await;
    // All up to the third.
    peer.says(channel, (60, 80), &[0, 0, 0, 0, 0, 0, 0, 3, 1]).await;
    let told = outcomes(&mut *sender, 3).await;
    assert!(matches!(told[0], (1, PublishOutcome::Confirmed)));
    assert!(matches!(told[1], (2, PublishOutcome::Unroutable)));
    assert!(matches!(told[2], (3, PublishOutcome::Confirmed)));
    peer.refuses(channel, 4).await;
    let told = outcomes(&mut *sender, 1).await;
    let refused = rejection(&told[0].1);
    assert_eq!((told[0].0, refused.kind()), (4, ErrorKind::Refused));
    assert!(refused.to_string().contains("exchange \"shop\""), "{refused}");
    peer.refuses(channel, 5).await;
    let told = outcomes(&mut *sender, 1).await;
    let refused = rejection(&told[0].1);
    assert!(refused.to_string().contains("the default exchange"), "{refused}");
}

/// The window counts what has no outcome, and outcomes that were not told.
#[tokio::test]
async fn it_takes_no_more_than_its_window() {
    for taken in [1, 2] {
        let (session, mut peer) = connected().await;
        let (mut sender, channel) = sender(&*session, &mut peer, taken).await;
        let messages = || [outgoing(1, "a"), outgoing(2, "b"), outgoing(3, "c"), outgoing(4, "d")];
        let rest = submit(&mut *sender, messages()).await;
        assert_eq!(rest.len(), 4 - usize::from(taken));
        for _ in 0..taken {
            peer.expects(PUBLISH).await;
        }
        peer.confirms(channel, 1).await;
        // The answer has come in when this has, and was not told.
        purge(&*session, &mut peer, true).await;
        assert_eq!(submit(&mut *sender, [outgoing(5, "e")]).await, [5], "a window of {taken}");
        assert!(matches!(outcomes(&mut *sender, 1).await[..], [(1, PublishOutcome::Confirmed)]));
        assert!(submit(&mut *sender, [outgoing(5, "e")]).await.is_empty());
    }
}

#[tokio::test]
async fn what_this_side_knows_to_be_refused_never_goes_out() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    let with = |id, user_id: Option<&'static str>, message_id: Option<&'static str>, mandatory| {
        let properties = Properties {
            user_id: user_id.map(ShortStr::from_static),
            message_id: message_id.map(ShortStr::from_static),
            ..Properties::default()
        };
        let message = Arc::new(Message { properties, ..Message::default() });
        Outgoing { message, mandatory, ..outgoing(id, "") }
    };
    let messages = [
        with(1, Some("another"), Some("a"), true),
        with(2, None, None, true),
        with(3, Some("u"), Some("c"), true),
        with(4, None, None, false),
    ];
    submit(&mut *sender, messages).await;
    let told = outcomes(&mut *sender, 2).await;
    let (user, id) = (rejection(&told[0].1), rejection(&told[1].1));
    assert_eq!((told[0].0, user.kind()), (1, ErrorKind::Denied));
    assert!(user.to_string().contains("\"another\""), "{user}");
    assert_eq!((told[1].0, id.kind()), (2, ErrorKind::Unexpected));
    for number in 1..=2 {
        assert_eq!(peer.expects(PUBLISH).await, channel);
        peer.confirms(channel, number).await;
    }
    let told = outcomes(&mut *sender, 2).await;
    assert!(matches!(told[..], [(3, PublishOutcome::Confirmed), (4, PublishOutcome::Confirmed)]));
}

#[tokio::test]
async fn a_pause_of_the_broker_holds_back_what_comes_and_loses_none_of_it() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    peer.says(channel, (20, 20), &[0]).await;
    assert_eq!(peer.is_told((20, 21)).await, [0]);
    submit(&mut *sender, [outgoing(1, "a"), outgoing(2, "b")]).await;
    // Nothing of them came before this.
    purge(&*session, &mut peer, true).await;
    peer.says(channel, (20, 20), &[1]).await;
    let mut heard = [peer.hears().await.0, peer.hears().await.0, peer.hears().await.0];
    heard.sort_unstable();
    assert_eq!(heard, [(20, 21), PUBLISH, PUBLISH]);
    for number in 1..=2 {
        peer.confirms(channel, number).await;
    }
    assert_eq!(confirmed_all(&mut *sender, 2).await, [1, 2]);
}

async fn confirmed_all(sender: &mut dyn Sender, count: usize) -> Vec<u64> {
    let told = outcomes(sender, count).await;
    assert!(told.iter().all(|(_, outcome)| matches!(outcome, PublishOutcome::Confirmed)));
    told.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn a_close_that_names_an_exchange_is_the_outcome_of_what_went_there_and_of_nothing_else() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    submit(&mut *sender, [to(1, "other", "a"), to(2, "gone", "b"), outgoing(3, "c")]).await;
    for _ in 0..3 {
        peer.expects(PUBLISH).await;
    }
    // What was answered before is known all the same.
    peer.confirms(channel, 1).await;
    peer.closes(channel, 404, "NOT_FOUND - no exchange 'gone' in vhost '/'").await;
    let told = outcomes(&mut *sender, 2).await;
    assert!(matches!(told[0], (1, PublishOutcome::Confirmed)));
    let refused = rejection(&told[1].1);
    assert_eq!((told[1].0, refused.kind()), (2, ErrorKind::NotFound));
    for _ in 0..2 {
        let failed = failure(&mut *sender).await;
        assert!(failed.is_transient(), "{failed}");
        assert_eq!(failed.kind(), ErrorKind::NotFound);
        assert!(failed.to_string().contains("for another message"), "{failed}");
        // It takes nothing more.
        assert_eq!(submit(&mut *sender, [outgoing(4, "d")]).await, [4]);
    }
    drop(sender);
    // lapin closes nothing that is closed.
    purge(&*session, &mut peer, true).await;
}

#[tokio::test]
async fn a_close_that_names_nothing_tells_no_outcome_and_its_own_reason() {
    for (whole, code, text, kind) in [
        (false, 541, "INTERNAL_ERROR - oops", None),
        (false, 406, "PRECONDITION_FAILED - oops", Some(ErrorKind::Refused)),
        (true, 320, "CONNECTION_FORCED - oops", None),
    ] {
        let (session, mut peer) = connected().await;
        let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
        submit(&mut *sender, [outgoing(1, "a"), outgoing(2, "b")]).await;
        for _ in 0..2 {
            peer.expects(PUBLISH).await;
        }
        peer.closes(if whole { 0 } else { channel }, code, text).await;
        for _ in 0..2 {
            let failed = failure(&mut *sender).await;
            assert!(failed.to_string().contains("oops"), "{failed}");
            assert!(!failed.to_string().contains("another message"), "{failed}");
            if let Some(kind) = kind {
                assert_eq!(failed.kind(), kind, "{failed}");
            } else {
                assert!(failed.is_transient(), "{failed}");
            }
            assert_eq!(submit(&mut *sender, [outgoing(3, "c")]).await, [3]);
        }
    }
}

#[tokio::test]
async fn an_idle_sender_that_is_dropped_closes_its_channel_at_once() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    submit(&mut *sender, [outgoing(1, "a")]).await;
    peer.expects(PUBLISH).await;
    peer.confirms(channel, 1).await;
    assert_eq!(confirmed(&mut *sender).await, [1]);
    drop(sender);
    peer.sees_closed(channel).await;
}

/// The answer may be the end of the channel.
#[tokio::test]
async fn a_dropped_sender_whose_channel_the_broker_closes_closes_nothing() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    submit(&mut *sender, [to(1, "gone", "a")]).await;
    peer.expects(PUBLISH).await;
    drop(sender);
    peer.closes(channel, 404, "NOT_FOUND - no exchange 'gone' in vhost '/'").await;
    purge(&*session, &mut peer, true).await;
}

#[tokio::test]
async fn each_sender_has_a_channel_of_its_own() {
    let (session, mut peer) = connected().await;
    let (mut first, one) = sender(&*session, &mut peer, 10).await;
    let (mut second, two) = sender(&*session, &mut peer, 10).await;
    assert_ne!(one, two);
    for (sender, channel) in [(&mut first, one), (&mut second, two)] {
        submit(&mut **sender, [outgoing(1, "a")]).await;
        assert_eq!(peer.expects(PUBLISH).await, channel);
        peer.confirms(channel, 1).await;
        assert_eq!(confirmed(&mut **sender).await, [1]);
    }
}

/// A call that waits when the channel ends hears of it.
#[tokio::test]
async fn an_end_is_noticed_while_a_call_waits() {
    let (session, mut peer) = connected().await;
    let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
    let closing = peer.closes(channel, 541, "INTERNAL_ERROR - oops");
    let (failed, ()) = tokio::join!(failure(&mut *sender), closing);
    assert!(failed.to_string().contains("oops"), "{failed}");
}

/// A reason has 255 bytes; RabbitMQ cuts longer ones, and some versions end them with dots.
#[tokio::test]
async fn a_reason_that_was_cut_names_an_exchange_only_where_its_name_begins() {
    let text = |end: &str, length: usize| {
        let begin = "NOT_FOUND - ";
        format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len()))
    };
    for (text, is_named) in [
        (text(" no exchange 'go", 255), true),
        (text(" no exchange 'go", 250), true),
        (text(" no exchange 'go", 249), false),
        (text(" no exchange ", 255), false),
        (text(" no exchange", 255), false),
    ] {
        let (session, mut peer) = connected().await;
        let (mut sender, channel) = sender(&*session, &mut peer, 10).await;
        submit(&mut *sender, [to(1, "gone", "a")]).await;
        peer.expects(PUBLISH).await;
        peer.closes(channel, 404, &text).await;
        if is_named {
            assert_eq!(
                rejection(&outcomes(&mut *sender, 1).await[0].1).kind(),
                ErrorKind::NotFound
            );
        }
        let failed = failure(&mut *sender).await;
        assert_eq!(failed.to_string().contains("for another message"), is_named, "{text}");
    }
}
