//! The tools for tests: what they tell is what a consumer does.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use enoki_core::{
    Attempt, Body, Broker, BrokerOptions, Codec, CodecError, Codecs, Context, Counted, Delivery,
    Envelope, ErrorKind, Failure, Handler, Json, Message, OnError, Outcome, Provided, Provider,
    Publisher, RunningService, Service, ShortStr, State, Visit, WorkQueue, WorkerInfo,
    testing::{Ended, EntrypointHook, EntrypointWaiter},
};
use tokio::time::Instant;

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

async fn fails(_: Body<String>) -> Result<(), Failure> {
    "x".parse::<u8>()?;
    Ok(())
}

async fn outcome<A: 'static>(handler: impl Handler<String, (), A>) -> Option<Outcome> {
    EntrypointHook::new(&BILLING, handler, ()).call(&"order".to_owned()).await.unwrap().outcome
}

#[tokio::test]
async fn a_hook_gives_a_handler_what_a_consumer_gives() {
    async fn look(
        State(desk): State<u32>,
        Body(order): Body<String>,
        attempt: Attempt,
        context: Context,
        envelope: Envelope,
    ) {
        assert_eq!((desk, &*order, attempt.number), (7, "order 1", 1));
        assert_eq!(&*envelope.routing_key, "billing");
        assert_eq!(envelope.message.properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(&envelope.message.body[..], b"\"order 1\"");
        let ids = context.call_ids();
        assert!(ids.len() == 1 && ids.iter().all(|id| id.starts_with("test.look.")), "{ids:?}");
        assert_eq!(Context::current(), Some(context));
    }
    let hook = EntrypointHook::new(&BILLING, look, 7);
    let result = hook.call(&"order 1".to_owned()).await.unwrap();
    assert!(matches!(result.ended, Ended::Returned), "{result:?}");
    assert_eq!(result.outcome, Some(Outcome::Ack));
    assert_eq!((&*result.queue, &*result.handler), ("billing", "look"));
    assert_eq!(&*result.envelope.routing_key, "billing");
}

#[tokio::test]
async fn a_hook_settles_as_a_consumer_does() {
    async fn reject(_: Body<String>) -> Outcome {
        Outcome::Reject
    }
    assert_eq!(outcome(reject).await, Some(Outcome::Reject));
    assert_eq!(outcome(fails).await, Some(Outcome::Requeue));
    for (on_error, expected) in [
        (OnError::ack(), Outcome::Ack),
        (OnError::reject(), Outcome::Reject),
        (OnError::requeue(), Outcome::Requeue),
    ] {
        let hook = EntrypointHook::new(&BILLING, fails.on_error(on_error).named("fail"), ());
        let result = hook.call(&"order".to_owned()).await.unwrap();
        assert_eq!(result.outcome, Some(expected));
        assert_eq!(&*result.handler, "fail");
        assert!(result.failure().unwrap().source().is::<std::num::ParseIntError>());
    }
}

#[tokio::test]
async fn a_hook_requeues_what_panics() {
    async fn shaky(Body(order): Body<String>) {
        assert_ne!(order, "bad", "the test says so");
    }
    let hook = EntrypointHook::new(&BILLING, shaky.on_error(OnError::ack()), ());
    let result = hook.call(&"bad".to_owned()).await.unwrap();
    assert!(matches!(result.ended, Ended::Panicked), "{result:?}");
    assert_eq!(result.outcome, Some(Outcome::Requeue));
    assert_eq!(hook.call(&"good".to_owned()).await.unwrap().outcome, Some(Outcome::Ack));
}

#[tokio::test]
async fn a_hook_rejects_what_cannot_be_decoded() {
    async fn never(_: Body<String>) {
        panic!("it must not be called");
    }
    let hook = EntrypointHook::new(&BILLING, never, ());
    for (body, content_type) in
        [("{", "application/json"), ("7", "application/json"), ("\"x\"", "text/plain")]
    {
        let mut envelope = hook.envelope(&"order".to_owned()).unwrap();
        let mut message = Message::new(body);
        message.properties.content_type = Some(content_type.try_into().unwrap());
        envelope.message = Arc::new(message);
        let result = hook.deliver(envelope).await.unwrap();
        let Ended::Undecodable(error) = &result.ended else { panic!("{result:?}") };
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert_eq!(result.outcome, Some(Outcome::Reject));
        assert!(result.failure().is_none());
    }
}

#[tokio::test]
async fn a_hook_sees_what_a_handler_settles_by_itself() {
    async fn reject(delivery: Delivery) {
        delivery.settle(Outcome::Reject);
    }
    async fn forget(_: Delivery) -> Outcome {
        Outcome::Ack
    }
    assert_eq!(outcome(reject).await, Some(Outcome::Reject));
    assert_eq!(outcome(forget).await, Some(Outcome::Requeue), "dropped, whatever it returns");
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = {
        let kept = kept.clone();
        move |delivery: Delivery| {
            kept.lock().unwrap().push(delivery);
            async {}
        }
    };
    assert_eq!(outcome(keep).await, None, "it is not settled yet");
    assert_eq!(kept.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_callers_context_travels_through_a_hook() {
    async fn language(context: Context) -> Result<(), Failure> {
        let language = context.get("language").and_then(|value| value.as_str());
        assert_eq!(context.call_ids().len(), 2);
        if language == Some("fi") { Ok(()) } else { Err(Failure::new("not in Finnish")) }
    }
    let hook = EntrypointHook::new(&BILLING, language, ());
    let mut context = Context::new().child("shop", "order");
    context.set("language", "fi").unwrap();
    let result = context.scope(async { hook.call(&"order".to_owned()).await }).await.unwrap();
    assert!(matches!(result.ended, Ended::Returned), "{result:?}");
}

#[tokio::test]
async fn a_delivery_may_be_changed_before_a_hook_delivers_it() {
    async fn third(attempt: Attempt, envelope: Envelope) -> Outcome {
        assert_eq!(attempt, Attempt { number: 3, counted: Counted::ByBroker });
        assert!(envelope.redelivered && &*envelope.exchange == "shop");
        assert_eq!(envelope.message.headers.get("region").and_then(|it| it.as_str()), Some("eu"));
        Outcome::Release
    }
    let hook = EntrypointHook::new(&BILLING, third, ());
    let mut envelope = hook.envelope(&"order".to_owned()).unwrap();
    envelope.attempt.number = 3;
    envelope.redelivered = true;
    envelope.exchange = ShortStr::from_static("shop");
    Arc::make_mut(&mut envelope.message).headers.insert("region", "eu").unwrap();
    assert_eq!(hook.deliver(envelope).await.unwrap().outcome, Some(Outcome::Release));
}

/// JSON in capitals.
#[derive(Debug)]
struct Loud;

impl Codec for Loud {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("text/loud")
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<bytes::Bytes, CodecError> {
        Ok(Json.encode(value)?.to_ascii_uppercase().into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        Json.decode(body, visit)
    }
}

#[tokio::test]
async fn a_hook_writes_and_accepts_what_its_options_and_the_handler_say() {
    async fn heard(Body(order): Body<String>, delivery: Delivery) -> Result<(), Failure> {
        assert_eq!(order, "ORDER");
        assert_eq!(delivery.decode::<String>()?, "ORDER");
        delivery.settle(Outcome::Ack);
        Ok(())
    }
    let loud = BrokerOptions::new().codecs(Codecs::only(Loud));
    let hook = EntrypointHook::with(&BILLING, heard, (), loud.clone());
    let result = hook.call(&"order".to_owned()).await.unwrap();
    assert_eq!(result.outcome, Some(Outcome::Ack), "{result:?}");
    let deaf = EntrypointHook::with(&BILLING, heard.accept(Codecs::default()), (), loud);
    let result = deaf.call(&"order".to_owned()).await.unwrap();
    assert!(matches!(result.ended, Ended::Undecodable(_)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_does_not_wait_for_ever() {
    async fn hangs(_: Body<String>) {
        pending::<()>().await;
    }
    let hook = EntrypointHook::new(&BILLING, hangs, ()).within(Duration::from_secs(3));
    let before = Instant::now();
    let error = hook.call(&"order".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("handler \"hangs\""), "{error}");
    assert_eq!(before.elapsed(), Duration::from_secs(3));
}

/// Says what it was told.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Provider for Ledger {
    type Handle = Self;

    async fn provide(&self, worker: &WorkerInfo) -> Result<Self, Failure> {
        self.0.lock().unwrap().push(format!("open for {}", worker.handler));
        Ok(self.clone())
    }

    async fn result(
        &self,
        _: &WorkerInfo,
        _: &Self,
        result: Result<Outcome, &Failure>,
    ) -> Result<(), Failure> {
        self.0.lock().unwrap().push(if result.is_ok() { "commit" } else { "undo" }.to_owned());
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_provides_what_is_made_for_each_worker_and_tells_the_result() {
    async fn enter(Provided(ledger): Provided<Ledger>, _: Body<String>) {
        ledger.0.lock().unwrap().push("enter".to_owned());
    }
    async fn fail(_: Provided<Ledger>, _: Body<String>) -> Result<(), Failure> {
        Err(Failure::new("no"))
    }
    let ledger = Ledger::default();
    let order = "order".to_owned();
    let hook = EntrypointHook::new(&BILLING, enter, ledger.clone());
    assert_eq!(hook.call(&order).await.unwrap().outcome, Some(Outcome::Ack));
    let hook = EntrypointHook::new(&BILLING, fail.on_error(OnError::reject()), ledger.clone());
    assert_eq!(hook.call(&order).await.unwrap().outcome, Some(Outcome::Reject));
    let expected = ["open for enter", "enter", "commit", "open for fail", "undo"];
    assert_eq!(*ledger.0.lock().unwrap(), expected);
}

/// Handles `slow …` only when it is let, and fails on `bad …`.
async fn handle(
    State(gate): State<Arc<tokio::sync::Semaphore>>,
    Body(order): Body<String>,
) -> Result<(), Failure> {
    if order.starts_with("slow") {
        gate.acquire().await?.forget();
    }
    if order.starts_with("bad") { Err(Failure::new(order)) } else { Ok(()) }
}

async fn running(
    name: &str,
) -> (Broker, RunningService, Publisher<String>, Arc<tokio::sync::Semaphore>) {
    let broker = enoki::connect(format!("memory://testing-{name}")).await.unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let service = Service::new("shop", broker.clone())
        .state(gate.clone())
        .consume(&BILLING, handle.on_error(OnError::reject()));
    let running = service.start().await.unwrap();
    let publisher = broker.publisher(&BILLING.route()).await.unwrap();
    (broker, running, publisher, gate)
}

async fn publish(publisher: &Publisher<String>, order: &str) -> ShortStr {
    publisher.publish(&order.to_owned()).await.unwrap().message_id
}

#[tokio::test(start_paused = true)]
async fn a_waiter_has_the_result_of_the_worker_of_its_message() {
    let (_broker, running, publisher, gate) = running("message").await;
    let mut waiter = EntrypointWaiter::new(&running);
    let slow = publish(&publisher, "slow order").await;
    let bad = publish(&publisher, "bad order").await;
    let good = publish(&publisher, "good order").await;
    let result = waiter.of_message(&good).await.unwrap();
    assert!(matches!(result.ended, Ended::Returned) && result.outcome == Some(Outcome::Ack));
    let result = waiter.of_message(&bad).await.unwrap();
    assert_eq!(result.failure().unwrap().to_string(), "bad order");
    assert_eq!(result.outcome, Some(Outcome::Reject));
    assert_eq!((&*result.queue, &*result.handler), ("billing", "handle"));
    gate.add_permits(1);
    let result = waiter.of_message(&slow).await.unwrap();
    assert_eq!(result.envelope.message.properties.message_id, Some(slow));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_keeps_what_it_passes_over() {
    let (_broker, running, publisher, _gate) = running("passes").await;
    let mut waiter = EntrypointWaiter::new(&running);
    for order in ["one", "two", "bad three"] {
        publish(&publisher, order).await;
    }
    let failed = waiter.until("a failure", |result| result.failure().is_some()).await.unwrap();
    assert_eq!(failed.failure().unwrap().to_string(), "bad three");
    for body in ["\"one\"", "\"two\""] {
        let result = waiter.of_handler("handle").await.unwrap();
        assert_eq!(result.envelope.message.body, body);
    }
    let before = Instant::now();
    let error = waiter.within(Duration::from_secs(2)).any().await.unwrap_err();
    assert_eq!((error.kind(), before.elapsed()), (ErrorKind::Timeout, Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn each_waiter_has_each_result_since_it_was_made() {
    let (_broker, running, publisher, _gate) = running("each").await;
    let mut early = EntrypointWaiter::new(&running);
    let first = publish(&publisher, "first").await;
    early.of_message(&first).await.unwrap();
    let mut late = EntrypointWaiter::new(&running).within(Duration::from_secs(1));
    let second = publish(&publisher, "second").await;
    for waiter in [&mut early, &mut late] {
        waiter.of_message(&second).await.unwrap();
    }
    let error = late.of_message(&first).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let said = error.to_string();
    assert!(said.contains(&*first) && said.contains("0 others had"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_ends_with_its_service() {
    let (_broker, running, _publisher, _gate) = running("ends").await;
    let mut waiter = EntrypointWaiter::new(&running).within(Duration::from_secs(3600));
    let stopping = running.stop(Duration::from_secs(5));
    let (waited, stopped) = tokio::join!(waiter.of_handler("handle"), stopping);
    stopped.unwrap();
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_says_when_it_has_missed_results() {
    let (_broker, running, publisher, _gate) = running("missed").await;
    let orders: Vec<_> = (0..1100).map(|n| n.to_string()).collect();
    let mut idle = EntrypointWaiter::new(&running);
    let mut busy = EntrypointWaiter::new(&running);
    for order in &orders {
        let id = publish(&publisher, order).await;
        busy.of_message(&id).await.unwrap();
    }
    let error = idle.any().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("76 results came while no call waited"), "{error}");
    idle.any().await.expect("the rest is there");
    let mut full = EntrypointWaiter::new(&running);
    let never = async {
        for order in &orders {
            publish(&publisher, order).await;
        }
        pending::<()>().await;
    };
    tokio::select! {
        result = full.of_message("unknown") => {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert!(error.to_string().contains("1024 other results"), "{error}");
        }
        () = never => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_took_the_delivery_settles_it_and_the_waiter_does_not_know_how() {
    async fn reject(delivery: Delivery) {
        delivery.settle(Outcome::Reject);
    }
    let broker = enoki::connect("memory://testing-took").await.unwrap();
    let service = Service::new("shop", broker.clone()).consume(&BILLING, reject);
    let running = service.start().await.unwrap();
    let mut waiter = EntrypointWaiter::new(&running);
    broker.publisher(&BILLING.route()).await.unwrap().publish(&"order".to_owned()).await.unwrap();
    let result = waiter.any().await.unwrap();
    assert!(matches!(result.ended, Ended::Returned));
    assert_eq!(result.outcome, None);
}
