//! What a sender writes, and what it makes of the answers.

use std::{collections::VecDeque, sync::Arc};

use enoki_core::{
    Error, ErrorKind, Message, Properties, ShortStr,
    transport::{Outgoing, PublishOutcome, Sender, Session},
};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::{
    PATIENCE,
    peer::{
        ACCEPTED, END, Frame, Link, MODIFIED, Peer, REJECTED, RELEASED, TRANSFER, connected,
        connected_to, described, error, map, symbol, text, window,
    },
};

async fn sender(
    session: &dyn Session,
    peer: &mut Peer,
    messages: u16,
    credit: u32,
) -> (Box<dyn Sender>, Link) {
    let (sender, link) =
        tokio::join!(session.sender(window(messages)), peer.opens_a_sender(credit));
    (sender.unwrap(), link)
}

fn outgoing(id: u64) -> Outgoing {
    Outgoing {
        id,
        exchange: ShortStr::from_static("shop"),
        routing_key: ShortStr::from_static("k"),
        mandatory: true,
        message: Arc::new(Message::new(format!("body {id}").into_bytes())),
    }
}

fn to(exchange: &'static str, routing_key: &'static str, id: u64) -> Outgoing {
    Outgoing {
        exchange: ShortStr::from_static(exchange),
        routing_key: ShortStr::from_static(routing_key),
        ..outgoing(id)
    }
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

/// Waits for the next message, while the sender waits for outcomes: it writes when there is credit.
async fn goes_out(sender: &mut dyn Sender, peer: &mut Peer) -> Frame {
    let mut outcomes = Vec::new();
    tokio::select! {
        biased;
        frame = peer.expects(TRANSFER) => frame,
        told = sender.outcomes(&mut outcomes) => panic!("{told:?}, {outcomes:?}"),
    }
}

async fn outcome(sender: &mut dyn Sender) -> PublishOutcome {
    outcomes(sender, 1).await.remove(0).1
}

async fn failure(sender: &mut dyn Sender) -> Error {
    let mut outcomes = Vec::new();
    let failure = timeout(PATIENCE, sender.outcomes(&mut outcomes)).await.unwrap().unwrap_err();
    assert!(outcomes.is_empty(), "{outcomes:?}");
    failure
}

fn rejection(outcome: PublishOutcome) -> Error {
    match outcome {
        PublishOutcome::Rejected(error) => error,
        other => panic!("{other:?}"),
    }
}

fn is_confirmed(outcome: &PublishOutcome) -> bool {
    matches!(outcome, PublishOutcome::Confirmed)
}

fn state(code: u8) -> Vec<u8> {
    described(code, &[])
}

#[tokio::test]
async fn messages_are_written_in_their_order_and_each_answer_is_its_own() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
    let optional = Outgoing { mandatory: false, ..outgoing(4) };
    let messages = [outgoing(1), outgoing(2), outgoing(3), optional, outgoing(5)];
    assert!(submit(&mut *sender, messages).await.is_empty());
    for id in 1..=5 {
        let body = format!("body {id}").into_bytes();
        let transfer = goes_out(&mut *sender, &mut peer).await;
        assert!(transfer.payload.ends_with(&body), "{id}");
        let address = b"/exchanges/shop/k";
        assert!(transfer.payload.windows(address.len()).any(|bytes| bytes == address));
        assert!(!transfer.truth(4), "settled by this side");
    }
    // In the order of the broker's answers.
    peer.answers(&link, 1, 1, state(ACCEPTED)).await;
    assert!(matches!(&outcomes(&mut *sender, 1).await[..], [(2, PublishOutcome::Confirmed)]));
    peer.answers(&link, 2, 3, state(RELEASED)).await;
    peer.answers(&link, 0, 0, state(ACCEPTED)).await;
    peer.answers(&link, 4, 4, state(MODIFIED)).await;
    let rest = outcomes(&mut *sender, 4).await;
    assert!(is_confirmed(&rest[0].1));
    assert!(matches!(rest[1], (3, PublishOutcome::Unroutable)));
    assert!(matches!(rest[2], (4, PublishOutcome::Confirmed)), "an optional one may go nowhere");
    let refused = rejection(rest.into_iter().last().unwrap().1);
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(refused.to_string().contains("exchange \"shop\""), "{refused}");
}

#[tokio::test]
async fn a_rejection_is_of_the_kind_that_the_broker_names() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 100).await;
    let full = map(&[symbol("queue"), text("q"), symbol("reason"), text("maxlen")]);
    let away = map(&[symbol("queue"), text("q"), symbol("reason"), text("unavailable")]);
    let named = |info: Vec<u8>| described(0x1d, &[symbol("amqp:x"), text("no"), info]);
    let cases: [(Vec<Vec<u8>>, ErrorKind, &str, bool); 7] = [
        (vec![], ErrorKind::Refused, "as a full queue does", false),
        (vec![error("amqp:not-found", "no such")], ErrorKind::NotFound, "no such", false),
        (vec![error("amqp:unauthorized-access", "not you")], ErrorKind::Denied, "not you", false),
        (vec![error("amqp:link:message-size-exceeded", "big")], ErrorKind::TooLarge, "big", false),
        (vec![error("amqp:precondition-failed", "no room")], ErrorKind::Refused, "no room", false),
        (vec![named(full)], ErrorKind::Refused, "queue \"q\" refused it (maxlen)", false),
        (vec![named(away)], ErrorKind::Refused, "queue \"q\" refused it (unavailable)", true),
    ];
    for (number, (error, kind, text, is_transient)) in cases.into_iter().enumerate() {
        submit(&mut *sender, [outgoing(number as u64)]).await;
        goes_out(&mut *sender, &mut peer).await;
        let number = number as u32;
        peer.answers(&link, number, number, described(REJECTED, &error)).await;
        let refused = rejection(outcome(&mut *sender).await);
        assert_eq!(refused.kind(), kind, "{refused}");
        assert!(refused.to_string().contains(text), "{refused}");
        assert!(refused.to_string().contains("exchange \"shop\""), "{refused}");
        assert_eq!(refused.is_transient(), is_transient, "{refused}");
    }
}

/// The window counts what has no outcome, and outcomes that were not told.
#[tokio::test]
async fn it_takes_no_more_than_its_window() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 3, 100).await;
    // One that never goes out has its outcome at once, which takes up room until it is told.
    let nowhere = to("", "", 1);
    let messages = [nowhere, outgoing(2), outgoing(3), outgoing(4), outgoing(5)];
    assert_eq!(submit(&mut *sender, messages).await, [4, 5]);
    assert!(matches!(&outcomes(&mut *sender, 1).await[..], [(1, PublishOutcome::Unroutable)]));
    assert_eq!(submit(&mut *sender, [outgoing(4), outgoing(5)]).await, [5]);
    for _ in 2..=4 {
        goes_out(&mut *sender, &mut peer).await;
    }
    peer.answers(&link, 0, 1, state(ACCEPTED)).await;
    assert_eq!(outcomes(&mut *sender, 2).await.len(), 2);
    assert!(submit(&mut *sender, [outgoing(5)]).await.is_empty());
}

#[tokio::test]
async fn what_has_no_credit_waits_for_it_in_its_order_and_counts_for_the_window() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 3, 0).await;
    let messages = (1..=4).map(outgoing);
    assert_eq!(submit(&mut *sender, messages).await, [4]);
    // A call that gives up has given up no message.
    assert!(sender.outcomes(&mut Vec::new()).now_or_never().is_none());
    peer.grants(&link, 0, 1).await;
    assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(b"body 1"));
    peer.answers(&link, 0, 0, state(ACCEPTED)).await;
    assert!(matches!(&outcomes(&mut *sender, 1).await[..], [(1, PublishOutcome::Confirmed)]));
    peer.grants(&link, 1, 10).await;
    for id in [2, 3] {
        let body = format!("body {id}").into_bytes();
        assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(&body), "{id}");
    }
}

#[tokio::test]
async fn what_there_is_credit_for_goes_out_before_any_call_waits_for_its_outcome() {
    let (session, mut peer) = connected().await;
    let (mut sender, _) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *sender, [outgoing(1)]).await;
    // From here on the credit has come.
    assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(b"body 1"));
    submit(&mut *sender, [outgoing(2), outgoing(3)]).await;
    for id in [2, 3] {
        let body = format!("body {id}").into_bytes();
        assert!(peer.expects(TRANSFER).await.payload.ends_with(&body), "{id}");
    }
}

#[tokio::test]
async fn what_this_side_knows_to_be_refused_never_goes_out() {
    for (product, message, kind, text) in [
        ("RabbitMQ", with_user("another"), ErrorKind::Denied, "user id is \"another\""),
        ("Other", to("shop", "k", 1), ErrorKind::Unsupported, "no exchanges over AMQP 1.0"),
        (
            "apache-activemq-artemis",
            to("", "a::b", 1),
            ErrorKind::Unsupported,
            "may mean more than a queue",
        ),
    ] {
        let (session, mut peer) = connected_to(product, "4.0.5").await;
        let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
        submit(&mut *sender, [message]).await;
        let refused = rejection(outcome(&mut *sender).await);
        assert_eq!(refused.kind(), kind, "{refused}");
        assert!(refused.to_string().contains(text), "{refused}");
        // The link is none the worse.
        submit(&mut *sender, [to("", "q", 2)]).await;
        assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(b"body 2"));
        peer.answers(&link, 0, 0, state(ACCEPTED)).await;
        assert!(is_confirmed(&outcome(&mut *sender).await));
    }
}

fn with_user(user: &'static str) -> Outgoing {
    let properties =
        Properties { user_id: Some(ShortStr::from_static(user)), ..Properties::default() };
    Outgoing { message: Arc::new(Message { properties, ..Message::default() }), ..outgoing(1) }
}

#[tokio::test]
async fn the_logins_own_user_id_goes_out() {
    let (session, mut peer) = connected().await;
    let (mut sender, _) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *sender, [with_user("u")]).await;
    goes_out(&mut *sender, &mut peer).await;
}

/// The empty routing key of the default exchange names no queue, on any broker.
#[tokio::test]
async fn what_goes_to_the_queue_without_a_name_finds_no_queue() {
    let (session, mut peer) = connected().await;
    let (mut sender, _) = sender(&*session, &mut peer, 10, 10).await;
    let optional = Outgoing { mandatory: false, ..to("", "", 2) };
    submit(&mut *sender, [to("", "", 1), optional, to("", "q", 3), to("shop", "", 4)]).await;
    let told = outcomes(&mut *sender, 2).await;
    assert!(matches!(told[0], (1, PublishOutcome::Unroutable)));
    assert!(matches!(told[1], (2, PublishOutcome::Confirmed)));
    for id in [3, 4] {
        let body = format!("body {id}").into_bytes();
        assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(&body));
    }
}

#[tokio::test]
async fn a_message_over_the_links_limit_is_too_large_and_those_around_it_go_out() {
    let (session, mut peer) = connected().await;
    let (opened, link) = tokio::join!(session.sender(window(10)), async {
        peer.begins().await;
        let link = peer.attaches(Some(500)).await;
        peer.grants(&link, 0, 10).await;
        link
    });
    let mut sender = opened.unwrap();
    let large = Outgoing { message: Arc::new(Message::new(vec![7; 1000])), ..outgoing(2) };
    submit(&mut *sender, [outgoing(1), large, outgoing(3)]).await;
    let refused = rejection(outcomes(&mut *sender, 1).await.remove(0).1);
    assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
    let said = refused.to_string();
    assert!(said.contains("limit of 500") && said.contains("exchange \"shop\""), "{said}");
    for (number, id) in [1, 3].into_iter().enumerate() {
        let body = format!("body {id}").into_bytes();
        assert!(goes_out(&mut *sender, &mut peer).await.payload.ends_with(&body));
        peer.answers(&link, number as u32, number as u32, state(ACCEPTED)).await;
        assert!(is_confirmed(&outcome(&mut *sender).await));
    }
}

const REFUSED: &str = "write access to exchange 'shop' in vhost '/' refused for user 'u'";

/// The broker ends the link for a message, and says for which.
#[tokio::test]
async fn an_end_that_names_an_exchange_is_the_outcome_of_what_went_there_and_of_nothing_else() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *sender, [to("other", "k", 1), to("shop", "k", 2), to("", "q", 3)]).await;
    for _ in 0..3 {
        goes_out(&mut *sender, &mut peer).await;
    }
    peer.detaches(&link, Some(error("amqp:unauthorized-access", REFUSED))).await;
    let told = outcomes(&mut *sender, 1).await.remove(0);
    assert_eq!(told.0, 2);
    let refused = rejection(told.1);
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    assert!(!refused.is_transient(), "{refused}");
    // The others may do better on the next link.
    let failed = failure(&mut *sender).await;
    assert!(failed.is_transient(), "{failed}");
    assert!(failed.to_string().contains("for another message"), "{failed}");
    // It stays so, and takes nothing more.
    assert!(failure(&mut *sender).await.is_transient());
    assert_eq!(submit(&mut *sender, [outgoing(4)]).await, [4]);
}

/// One that it took before shows that it was open a moment ago.
#[tokio::test]
async fn where_the_exchange_took_one_before_only_the_newest_was_refused_for_sure() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *sender, [outgoing(1)]).await;
    goes_out(&mut *sender, &mut peer).await;
    peer.answers(&link, 0, 0, state(ACCEPTED)).await;
    assert!(is_confirmed(&outcome(&mut *sender).await));
    submit(&mut *sender, [outgoing(2), outgoing(3)]).await;
    for _ in 0..2 {
        goes_out(&mut *sender, &mut peer).await;
    }
    peer.detaches(&link, Some(error("amqp:unauthorized-access", REFUSED))).await;
    let told = outcomes(&mut *sender, 1).await.remove(0);
    assert_eq!(told.0, 3);
    failure(&mut *sender).await;
}

/// How often it took one makes no difference to what else it took.
#[tokio::test]
async fn what_went_elsewhere_shows_nothing_of_this_exchange_however_much_it_was() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 100).await;
    for number in 0..40 {
        submit(&mut *sender, [to("other", "k", u64::from(number))]).await;
        goes_out(&mut *sender, &mut peer).await;
        peer.answers(&link, number, number, state(ACCEPTED)).await;
        assert!(is_confirmed(&outcome(&mut *sender).await));
    }
    submit(&mut *sender, [outgoing(100), outgoing(101)]).await;
    for _ in 0..2 {
        goes_out(&mut *sender, &mut peer).await;
    }
    peer.detaches(&link, Some(error("amqp:unauthorized-access", REFUSED))).await;
    let told = outcomes(&mut *sender, 2).await;
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [100, 101]);
}

/// One that was only refused shows nothing of the kind.
#[tokio::test]
async fn where_the_exchange_took_none_all_were_refused() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *sender, [outgoing(1)]).await;
    goes_out(&mut *sender, &mut peer).await;
    peer.answers(&link, 0, 0, state(RELEASED)).await;
    assert!(matches!(outcome(&mut *sender).await, PublishOutcome::Unroutable));
    submit(&mut *sender, [outgoing(2), outgoing(3)]).await;
    for _ in 0..2 {
        goes_out(&mut *sender, &mut peer).await;
    }
    peer.detaches(&link, Some(error("amqp:unauthorized-access", REFUSED))).await;
    let told = outcomes(&mut *sender, 2).await;
    assert!(told.into_iter().all(|(_, told)| rejection(told).kind() == ErrorKind::Denied));
}

#[tokio::test]
async fn an_end_that_names_nothing_tells_no_outcome_and_its_own_reason() {
    for (whole, reason, wanted) in [
        (false, "node goes down", "node goes down"),
        (true, "", "the broker closed the connection"),
    ] {
        let (session, mut peer) = connected().await;
        let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
        submit(&mut *sender, [outgoing(1), outgoing(2)]).await;
        for _ in 0..2 {
            goes_out(&mut *sender, &mut peer).await;
        }
        // What was answered before is known all the same.
        peer.answers(&link, 0, 0, state(ACCEPTED)).await;
        match whole {
            true => peer.closes().await,
            false => peer.says(link.channel, END, &[error("amqp:internal-error", reason)]).await,
        }
        let told = outcomes(&mut *sender, 1).await.remove(0);
        assert!(told.0 == 1 && is_confirmed(&told.1), "{told:?}");
        let failed = failure(&mut *sender).await;
        assert!(failed.is_transient(), "{failed}");
        assert!(failed.to_string().contains(wanted), "{failed}");
        assert!(!failed.to_string().contains("another message"), "{failed}");
    }
}

/// A link that ends while nothing is under way is noticed by the call that waits for outcomes.
#[tokio::test]
async fn an_end_is_noticed_while_nothing_is_under_way() {
    let (session, mut peer) = connected().await;
    let (mut sender, link) = sender(&*session, &mut peer, 10, 10).await;
    peer.detaches(&link, Some(error("amqp:link:detach-forced", "moved"))).await;
    let failed = failure(&mut *sender).await;
    assert!(failed.to_string().contains("moved"), "{failed}");
    assert_eq!(submit(&mut *sender, [outgoing(1)]).await, [1]);
}

#[tokio::test]
async fn an_idle_sender_leaves_its_session_to_the_next_link() {
    let (session, mut peer) = connected().await;
    let (mut first, link) = sender(&*session, &mut peer, 10, 10).await;
    submit(&mut *first, [outgoing(1)]).await;
    goes_out(&mut *first, &mut peer).await;
    peer.answers(&link, 0, 0, state(ACCEPTED)).await;
    assert!(is_confirmed(&outcome(&mut *first).await));
    drop(first);
    peer.sees_closed(&link).await;
    let (next, next_link) = tokio::join!(session.sender(window(10)), peer.attaches(None));
    next.unwrap();
    assert_eq!(next_link.channel, link.channel);
    assert_ne!(next_link.attach.fields[0], link.attach.fields[0], "two links of one name");
}

/// Its answers may still come, and would be taken for another's.
#[tokio::test]
async fn a_sender_that_waits_for_an_answer_or_for_credit_leaves_its_session_to_none() {
    for credit in [0, 10] {
        let (session, mut peer) = connected().await;
        let (mut first, link) = sender(&*session, &mut peer, 10, credit).await;
        submit(&mut *first, [outgoing(1)]).await;
        if credit > 0 {
            goes_out(&mut *first, &mut peer).await;
        }
        drop(first);
        peer.sees_ended(link.channel).await;
        sender(&*session, &mut peer, 10, 10).await;
    }
}

#[tokio::test]
async fn a_sender_that_failed_leaves_its_session_to_none() {
    let (session, mut peer) = connected().await;
    let (mut first, link) = sender(&*session, &mut peer, 10, 10).await;
    peer.detaches(&link, Some(error("amqp:internal-error", "oops"))).await;
    failure(&mut *first).await;
    drop(first);
    peer.sees_ended(link.channel).await;
}
