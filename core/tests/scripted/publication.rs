//! What a call says of its message, beside what the publisher says of all.

use std::{sync::Arc, time::Duration};

use enoki_core::{
    Argument, Broker, Error, ErrorKind, Headers, Publisher, PublisherOptions, Purpose, Result,
    RetryPolicy, Route, RouteSpec, ShortStr, Table, Timestamp, Topic, Value,
    transport::PublishOutcome,
};
use tokio::time::Instant;

use crate::script::{Script, in_time};

const SHOP: Topic = Topic::new("shop");
const PLACED: Route<String> = SHOP.route("order.placed");

async fn publisher(options: PublisherOptions) -> (Publisher<String>, Broker, Arc<Script>) {
    let (broker, script) = Script::broker().await;
    let publisher = broker.publisher_with(&PLACED, options).await.unwrap();
    (publisher, broker, script)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn refused() -> Error {
    Error::new(ErrorKind::Refused, "publish to").on("queue \"billing\"").because("it is full")
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_the_brokers_is_refused_where_it_is_set() {
    let (publisher, broker, _script) = publisher(PublisherOptions::new()).await;
    let error = publisher.message(&text("1")).unwrap().header("x-death", 1).unwrap_err();
    assert!(error.to_string().contains("header \"x-death\""), "{error}");
    let mut headers = Table::new();
    headers.insert("CC", "other").unwrap();
    let options = PublisherOptions::new().headers(headers);
    let error = broker.publisher_with(&PLACED, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("header \"CC\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_message_may_have_a_policy_of_its_own_beside_those_of_the_publisher() {
    let options = PublisherOptions::new().retry(RetryPolicy::new().retries(1));
    let (publisher, _broker, script) = publisher(options).await;
    let message = |policy| publisher.message(&text("1")).unwrap().retry(policy);
    let never = message(RetryPolicy::never()).enqueue().await.unwrap();
    let once = publisher.enqueue(&text("2")).await.unwrap();
    let often = message(RetryPolicy::new()).enqueue().await.unwrap();
    for (n, sent) in [(0, 3), (1, 2), (2, 1)] {
        let session = script.session(Purpose::Publish, n).await;
        session.nth_sender(0).await.took(sent).await;
        session.break_off();
    }
    assert_eq!(kind(in_time(never).await), ErrorKind::Indeterminate);
    assert_eq!(kind(in_time(once).await), ErrorKind::Indeterminate);
    let last = script.session(Purpose::Publish, 3).await.nth_sender(0).await;
    last.took(1).await;
    last.tell(0, PublishOutcome::Rejected(refused()));
    assert_eq!(kind(in_time(often).await), ErrorKind::Refused);
    let stubborn = message(RetryPolicy::new().also_refused().retries(1)).enqueue().await.unwrap();
    for n in 1..3 {
        last.took(n + 1).await;
        last.tell(n, PublishOutcome::Rejected(refused()));
    }
    assert_eq!(kind(in_time(stubborn).await), ErrorKind::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_have_less_or_more_time_than_the_publisher_gives() {
    let (publisher, _broker, _script) = publisher(PublisherOptions::new()).await;
    for seconds in [1, 30, 90] {
        let message = publisher.message(&text("1")).unwrap();
        let message = match seconds {
            30 => message,
            other => message.timeout(Duration::from_secs(other)),
        };
        let began = Instant::now();
        assert_eq!(kind(message.publish().await), ErrorKind::Indeterminate);
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_call_says_wins_over_what_the_publisher_says_and_only_for_that_call() {
    let name = ShortStr::from_static;
    let mut headers = Table::new();
    headers.insert("tenant", "publisher").unwrap();
    headers.insert("region", "publisher").unwrap();
    let options = PublisherOptions::new()
        .optional()
        .transient()
        .expiration(Duration::from_secs(1))
        .priority(1)
        .app_id(name("publisher"))
        .kind(name("publisher"))
        .reply_to(name("publisher"))
        .correlation_id(name("publisher"))
        .user_id(name("publisher"))
        .content_encoding(name("publisher"))
        .headers(headers);
    let (publisher, _broker, script) = publisher(options).await;
    let message = || publisher.message(&text("1")).unwrap();
    let call = message()
        .mandatory(true)
        .persistent(true)
        .expiration(Duration::from_secs(2))
        .priority(2)
        .timestamp(Timestamp::from_unix_seconds(7));
    let call = call.app_id("call").unwrap().kind("call").unwrap().reply_to("call").unwrap();
    let call = call.correlation_id("call").unwrap().user_id("call").unwrap();
    let call = call.content_encoding("call").unwrap().header("region", "call").unwrap();
    let mut confirms = Vec::new();
    for publication in [message(), call, message()] {
        confirms.push(publication.enqueue().await.unwrap());
    }
    let sender = script.sender(0).await;
    sender.took(3).await;
    for (sent, who) in
        sender.change(|state| state.taken.clone()).iter().zip(["publisher", "call", "publisher"])
    {
        let is_call = who == "call";
        let number = if is_call { 2 } else { 1 };
        let properties = &sent.message.properties;
        assert_eq!((sent.mandatory, properties.persistent), (is_call, is_call));
        assert_eq!(properties.expiration, Some(Duration::from_secs(number.into())));
        assert_eq!(properties.priority, Some(number));
        assert_eq!(properties.timestamp.is_some(), is_call);
        for text in [
            &properties.app_id,
            &properties.kind,
            &properties.reply_to,
            &properties.correlation_id,
            &properties.user_id,
            &properties.content_encoding,
        ] {
            assert_eq!(text.as_deref(), Some(who));
        }
        let said = |name| sent.message.headers.get(name).and_then(Value::as_str);
        assert_eq!((said("tenant"), said("region")), (Some("publisher"), Some(who)));
    }
    sender.confirm(0..3);
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn another_route_brings_its_key_and_headers_and_leaves_those_of_the_first_behind() {
    const PRINTS: Headers = Headers::new("prints");
    const POSTER: Route<String> = PRINTS.route(&[("paper", Argument::Str("A1"))]);
    const LABEL: Route<String> = PRINTS.route(&[("size", Argument::Int(3))]);
    let mut of_publisher = Table::new();
    of_publisher.insert("size", 9).unwrap();
    let (broker, script) = Script::broker().await;
    let options = PublisherOptions::new().headers(of_publisher);
    let publisher = broker.publisher_with(&POSTER, options).await.unwrap();
    let message = || publisher.message(&text("1")).unwrap();
    let wrong = message().route(PLACED).key("order.*").unwrap().enqueue().await;
    assert_eq!(kind(wrong), ErrorKind::Configuration);
    let confirms = [
        message().enqueue().await.unwrap(),
        message().route(LABEL).enqueue().await.unwrap(),
        message().route(PLACED).enqueue().await.unwrap(),
        message().route(RouteSpec::to_queue("desk").unwrap()).enqueue().await.unwrap(),
    ];
    let sender = script.sender(0).await;
    sender.took(4).await;
    let sent = sender.change(|state| state.taken.clone());
    let places: Vec<_> = sent.iter().map(|sent| (&*sent.exchange, &*sent.routing_key)).collect();
    assert_eq!(places, [("prints", ""), ("prints", ""), ("shop", "order.placed"), ("", "desk")]);
    let names = |at: usize| {
        let headers = sent[at].message.headers.iter();
        headers.map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["paper=String(\"A1\")", "size=Int(9)"]);
    for at in 1..4 {
        assert_eq!(names(at), ["size=Int(9)"], "the route's own header, under the publisher's");
    }
    sender.confirm(0..4);
    for confirm in confirms {
        confirm.await.unwrap();
    }
}
