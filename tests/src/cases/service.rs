//! Services: handlers, their arguments, their failures, and the context that travels with a call.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Attempt, Body, BrokerOptions, Context, Delivery, Entrypoint, Envelope, Error, ErrorKind,
    Failure, FromState, Handler, HeaderCodec, Limits, NoContext, OnCancel, OnError, Outcome,
    PrefixCodec, Publisher, PublisherOptions, QueueSpec, RetryPolicy, Scope, Service, State, Value,
    transport::Change,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        PATIENCE, contents, dead_letter_to, declare, fill, next, number, soon, subscribe, to_queue,
        to_queue_with, topology, until,
    },
};

cases! { "service":
    starting_returns_when_it_consumes,
    a_handler_gets_what_it_asks_for,
    a_handler_that_returns_acknowledges,
    a_handler_may_say_what_becomes_of_a_delivery [DeadLetterRejected],
    a_handler_may_settle_by_itself [DeadLetterRejected],
    a_failed_handler_requeues,
    a_failed_handler_may_reject [DeadLetterRejected],
    a_failed_handler_may_acknowledge,
    a_panicking_handler_requeues_and_the_consumer_lives,
    the_concurrency_is_used_and_never_exceeded,
    a_concurrency_of_one_keeps_the_order,
    a_concurrency_that_cannot_be_is_refused,
    a_handler_may_publish,
    a_publisher_carries_the_context_on [NestedHeaders],
    two_hops_make_two_call_ids [NestedHeaders],
    call_ids_travel_where_lists_do_not,
    a_program_may_send_no_context,
    headers_that_are_not_context_stay_behind,
    a_trace_travels_on_beside_the_context,
    as_many_call_ids_are_kept_as_the_program_says [NestedHeaders],
    a_service_that_does_not_fit_does_not_start [ExclusiveQueues],
    a_service_goes_on_after_a_lost_connection,
    a_consumer_that_ends_fails_its_service,
    one_bad_queue_leaves_the_other_consumer,
    a_signal_ends_the_service,
    the_longest_of_all_durations_is_no_limit,
    an_entrypoint_of_ones_own_starts_and_stops,
    an_entrypoint_that_fails_ends_the_service,
    a_service_can_be_started_again,
}

/// Waits for the report of a handler.
async fn heard<T>(from: &mut mpsc::UnboundedReceiver<T>) -> Result<T, Failed> {
    timeout(PATIENCE, from.recv()).await?.ok_or_else(|| Failed::new("no handler reports any more"))
}

async fn starting_returns_when_it_consumes(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let mine = queue.clone().of::<u32>();
    let running =
        Service::new("conformance", broker.clone()).consume(&mine, handler).start().await?;
    expect_eq("consumers", broker.queue_status(&mine).await?.consumers, 1)?;
    fill(&broker, &queue, [1]).await?;
    expect_eq("what is handled", heard(&mut sees).await?, 1)?;
    running.stop(soon()).await?;
    expect_eq("consumers", broker.queue_status(&mine).await?.consumers, 0)?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    what: String,
}

#[derive(Clone)]
struct Shop {
    rate: u32,
    seen: mpsc::UnboundedSender<Seen>,
}

impl FromState<Shop> for u32 {
    fn from_state(shop: &Shop) -> Self {
        shop.rate
    }
}

#[derive(Debug)]
struct Seen {
    rate: u32,
    order: Order,
    attempt: Attempt,
    context: Context,
    envelope: Envelope,
    redelivered: bool,
}

async fn bill(
    State(shop): State<Shop>,
    State(rate): State<u32>,
    Body(order): Body<Order>,
    attempt: Attempt,
    context: Context,
    envelope: Envelope,
    delivery: Delivery,
) {
    let redelivered = delivery.redelivered();
    let _ = shop.seen.send(Seen { rate, order, attempt, context, envelope, redelivered });
    delivery.settle(Outcome::Ack);
}

async fn a_handler_gets_what_it_asks_for(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let running = Service::new("billing", broker.clone())
        .state(Shop { rate: 7, seen })
        .consume(&queue.clone().of::<Order>(), bill)
        .start()
        .await?;
    let order = Order { id: 1, what: "enoki".to_owned() };
    let publisher = to_queue::<Order>(&broker, &queue).await?;
    let publication = publisher.message(&order)?.header("nameko.language", "fi")?;
    publication.message_id("order-1")?.publish().await?;
    let seen = heard(&mut sees).await?;
    expect_eq("a part of the state", seen.rate, 7)?;
    expect_eq("the body", seen.order, order)?;
    expect_eq("the attempt", seen.attempt.number, 1)?;
    let language = seen.context.get("language").and_then(Value::as_str);
    expect_eq("the context", language, Some("fi"))?;
    let call = seen.context.call_id().unwrap_or_default();
    expect(call.starts_with("billing.bill."), format_args!("a call id, not {call:?}"))?;
    expect_eq("the routing key", seen.envelope.routing_key.as_str(), queue.name.as_str())?;
    let id = seen.envelope.message.properties.message_id.as_deref();
    expect_eq("the message id", id, Some("order-1"))?;
    expect_eq("redelivered", seen.redelivered, false)?;
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_handler_that_returns_acknowledges(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..20).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let seen = seen.clone();
        async move {
            let _ = seen.send(number);
            Ok::<_, Failure>(())
        }
    };
    let mine = queue.clone().of::<u32>();
    let running =
        Service::new("conformance", broker.clone()).consume(&mine, handler).start().await?;
    let mut handled = BTreeSet::new();
    for _ in 0..20 {
        handled.insert(heard(&mut sees).await?);
    }
    running.stop(soon()).await?;
    expect_eq("what was handled", handled.len(), 20)?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

fn with_dead_letters(stage: &Stage) -> Result<(QueueSpec, QueueSpec), Failed> {
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    Ok((queue, dead))
}

async fn a_handler_may_say_what_becomes_of_a_delivery(stage: &Stage) -> Result<(), Failed> {
    let handler = |Body(number): Body<u32>, attempt: Attempt| async move {
        match (number, attempt.number) {
            (0, _) => Outcome::Ack,
            (1, _) => Outcome::Reject,
            (_, 1) => Outcome::Requeue,
            _ => Outcome::Reject,
        }
    };
    expect_dead(stage, handler.concurrency(1)).await
}

async fn a_handler_may_settle_by_itself(stage: &Stage) -> Result<(), Failed> {
    let handler = |Body(number): Body<u32>, attempt: Attempt, delivery: Delivery| async move {
        let outcome = match (number, attempt.number) {
            (0, _) => Outcome::Ack,
            (1, _) => Outcome::Reject,
            (_, 1) => Outcome::Requeue,
            _ => Outcome::Reject,
        };
        delivery.settle(outcome);
        // The outcome that it returns does not matter any more.
        Err::<(), _>(Failure::new("settled before"))
    };
    expect_dead(stage, handler.concurrency(1).on_error(OnError::ack())).await
}

/// Expects that of 0, 1 and 2 the handler acknowledges the first, rejects the second, and the third
/// when it comes again.
async fn expect_dead<A: 'static>(
    stage: &Stage,
    handler: impl Handler<u32, (), A>,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = with_dead_letters(stage)?;
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, 0..3).await?;
    let mine = queue.clone().of::<u32>();
    let running =
        Service::new("conformance", broker.clone()).consume(&mine, handler).start().await?;
    let mut graveyard = subscribe(&broker, &dead, 5).await?;
    let mut letters = crate::steps::take(&mut graveyard, 2).await?;
    letters.sort_unstable();
    expect_eq("what is dead", letters, [1, 2])?;
    running.stop(soon()).await?;
    graveyard.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])?;
    expect_eq("what else is dead", contents(&broker, &dead).await?, [0_u32; 0])
}

async fn a_failed_handler_requeues(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |envelope: Envelope| {
        let _ = seen.send(envelope.attempt.number);
        let again = envelope.redelivered;
        async move { if again { Ok(()) } else { Err(Failure::new("not the first time")) } }
    };
    let mine = queue.clone().of::<u32>();
    let running =
        Service::new("conformance", broker.clone()).consume(&mine, handler).start().await?;
    expect_eq("the first attempt", heard(&mut sees).await?, 1)?;
    expect_eq("the second attempt", heard(&mut sees).await?, 2)?;
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_failed_handler_may_reject(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (queue, dead) = with_dead_letters(stage)?;
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, [1]).await?;
    let handler = || async { Err::<(), _>(Failure::new("never")) };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.on_error(OnError::reject())).start().await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    let letter = next(&mut graveyard).await?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    letter.settle(Outcome::Ack);
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_failed_handler_may_acknowledge(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async { Err::<(), _>(Failure::new("all the same")) }
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let handler = handler.concurrency(1).on_error(OnError::ack());
    let running = service.consume(&mine, handler).start().await?;
    let handled = [heard(&mut sees).await?, heard(&mut sees).await?];
    running.stop(soon()).await?;
    expect_eq("what was handled", handled, [1, 2])?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_panicking_handler_requeues_and_the_consumer_lives(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..3).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>, envelope: Envelope| {
        let seen = seen.clone();
        async move {
            let _ = seen.send((number, envelope.redelivered));
            if number == 1 && !envelope.redelivered {
                // Not `panic!`, whose message would look like a failure in the output of the suite.
                std::panic::resume_unwind(Box::new("as the case wants it"));
            }
        }
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let running = service.consume(&mine, handler.concurrency(1)).start().await?;
    let mut handled = BTreeSet::new();
    for _ in 0..4 {
        handled.insert(heard(&mut sees).await?);
    }
    let wanted = BTreeSet::from([(0, false), (1, false), (1, true), (2, false)]);
    expect_eq("what was handled", handled, wanted)?;
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

/// How many handlers run at the same time, and the most that did.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    handled: AtomicUsize,
}

async fn the_concurrency_is_used_and_never_exceeded(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<u32>();
    for concurrency in [10, 2, 1] {
        fill(&broker, &queue, 0..20).await?;
        let crowd = Arc::new(Crowd::default());
        let gate = Arc::new(Notify::new());
        let handler = {
            let (crowd, gate) = (crowd.clone(), gate.clone());
            move || {
                let (crowd, gate) = (crowd.clone(), gate.clone());
                async move {
                    let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
                    crowd.most.fetch_max(now, Ordering::SeqCst);
                    gate.notified().await;
                    crowd.now.fetch_sub(1, Ordering::SeqCst);
                    crowd.handled.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let handler = handler.concurrency(concurrency).prefetch(20);
        let service = Service::new("conformance", broker.clone());
        let running = service.consume(&mine, handler).start().await?;
        until("all handlers are busy", async || {
            Ok(crowd.now.load(Ordering::SeqCst) == usize::from(concurrency))
        })
        .await?;
        until("all is handled", async || {
            gate.notify_waiters();
            Ok(crowd.handled.load(Ordering::SeqCst) == 20)
        })
        .await?;
        running.stop(soon()).await?;
        let most = crowd.most.load(Ordering::SeqCst);
        expect_eq("the most at the same time", most, usize::from(concurrency))?;
        expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])?;
    }
    Ok(())
}

async fn a_concurrency_of_one_keeps_the_order(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..100).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let seen = seen.clone();
        async move {
            // The earlier, the longer: side by side they would overtake each other.
            if number < 10 {
                sleep(Duration::from_millis(10 - u64::from(number))).await;
            }
            let _ = seen.send(number);
        }
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone());
    let handler = handler.concurrency(1).prefetch(50);
    let running = service.consume(&mine, handler).start().await?;
    let mut handled = Vec::new();
    for _ in 0..100 {
        handled.push(heard(&mut sees).await?);
    }
    running.stop(soon()).await?;
    expect_eq("the order", handled, (0..100).collect::<Vec<_>>())
}

async fn a_concurrency_that_cannot_be_is_refused(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?.of::<u32>();
    let handler = |_: Body<u32>| async {};
    let refused = [
        handler.concurrency(0),
        handler.concurrency(1).prefetch(0),
        handler.concurrency(5).prefetch(4),
    ];
    for handler in refused {
        let service = Service::new("conformance", broker.clone()).consume(&queue, handler);
        expect_error("start", service.start().await, &[ErrorKind::Configuration])?;
    }
    Ok(())
}

async fn a_handler_may_publish(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (orders, receipts) = (stage.queue("orders")?, stage.queue("receipts")?);
    let publisher = to_queue::<u32>(&broker, &receipts).await?;
    let handler = |State(publisher): State<Publisher<u32>>, Body(order): Body<u32>| async move {
        publisher.publish(&(order + 100)).await?;
        Ok::<_, Failure>(())
    };
    let running = Service::new("conformance", broker.clone())
        .state(publisher)
        .consume(&orders.clone().of::<u32>(), handler)
        .start()
        .await?;
    fill(&broker, &orders, 0..50).await?;
    let mut subscription = subscribe(&broker, &receipts, 10).await?;
    let mut found = crate::steps::take(&mut subscription, 50).await?;
    found.sort_unstable();
    expect_eq("the receipts", found, (100..150).collect::<Vec<_>>())?;
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &orders).await?, [0_u32; 0])
}

async fn a_publisher_carries_the_context_on(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut context = Context::new();
    context.set("language", "fi")?;
    context.set("nothing", Value::Null)?;
    let context = context.child("web", "order");
    let id = context.call_id().unwrap_or_default().to_owned();
    let publication = publisher.message(&1)?.header("nameko.language", "sv")?.header("own", 1)?;
    context.scope(publication.publish()).await?;
    publisher.publish(&2).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let inside = next(&mut subscription).await?;
    let headers = &inside.message().headers;
    expect_eq("the context wins", headers.get("nameko.language"), Some(&"fi".into()))?;
    expect_eq("the call's own header", headers.get("own"), Some(&1.into()))?;
    let ids = Value::List(vec![id.into()]);
    expect_eq("the call ids", headers.get("nameko.call_id_stack"), Some(&ids))?;
    expect_eq("how many headers", headers.len(), 3)?;
    inside.settle(Outcome::Ack);
    let outside = next(&mut subscription).await?;
    expect_eq("headers outside of a call", outside.message().headers.len(), 0)?;
    outside.settle(Outcome::Ack);
    Ok(())
}

async fn forward(State(to): State<Publisher<u32>>, Body(number): Body<u32>) -> Result<(), Failure> {
    to.publish(&number).await?;
    Ok(())
}

async fn two_hops_make_two_call_ids(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (first, second, last) =
        (stage.queue("first")?, stage.queue("second")?, stage.queue("last")?);
    let mut services = Vec::new();
    for (name, from, to) in [("alpha", &first, &second), ("beta", &second, &last)] {
        let publisher = to_queue::<u32>(&broker, to).await?;
        let service = Service::new(name, broker.clone())
            .state(publisher)
            .consume(&from.clone().of::<u32>(), forward);
        services.push(service.start().await?);
    }
    let publisher = to_queue::<u32>(&broker, &first).await?;
    publisher.message(&1)?.header("nameko.tenant", 7)?.publish().await?;
    let mut subscription = subscribe(&broker, &last, 1).await?;
    let delivery = next(&mut subscription).await?;
    let headers = &delivery.message().headers;
    expect_eq("a value of the context", headers.get("nameko.tenant"), Some(&7.into()))?;
    let ids = headers.get("nameko.call_id_stack").and_then(Value::as_list).unwrap_or_default();
    let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
    expect_eq("how many call ids", ids.len(), 2)?;
    for (id, start) in ids.iter().zip(["alpha.forward.", "beta.forward."]) {
        expect(id.starts_with(start), format_args!("a call id from {start:?}, not {id:?}"))?;
    }
    delivery.settle(Outcome::Ack);
    for service in services {
        service.stop(soon()).await?;
    }
    Ok(())
}

/// The message that a handler publishes, of a broker handle with these options.
async fn published_by_a_handler(stage: &Stage, options: BrokerOptions) -> Result<Delivery, Failed> {
    let broker = stage.broker_with(options).await?;
    let (from, to) = (stage.queue("from")?, stage.queue("to")?);
    let publisher = to_queue::<u32>(&broker, &to).await?;
    let service = Service::new("alpha", broker.clone())
        .state(publisher)
        .consume(&from.clone().of::<u32>(), forward);
    let running = service.start().await?;
    to_queue::<u32>(&broker, &from).await?.publish(&1).await?;
    let mut subscription = subscribe(&broker, &to, 1).await?;
    let delivery = next(&mut subscription).await?;
    running.stop(soon()).await?;
    Ok(delivery)
}

/// A program that refuses lists in headers, since they do not cross, publishes from handlers all the
/// same, and its call ids cross.
async fn call_ids_travel_where_lists_do_not(stage: &Stage) -> Result<(), Failed> {
    let mut limits = Limits::default();
    limits.nested_headers = false;
    for options in [
        BrokerOptions::new().limits(limits),
        BrokerOptions::new().header_codec(PrefixCodec::default().call_ids_as_text()),
    ] {
        let delivery = published_by_a_handler(stage, options).await?;
        let context = PrefixCodec::default().decode(&delivery.message().headers);
        let ids = context.call_ids();
        let is_its = ids.len() == 1 && ids.iter().all(|id| id.starts_with("alpha.forward."));
        expect(is_its, format_args!("a call id, not {ids:?}"))?;
    }
    Ok(())
}

async fn a_program_may_send_no_context(stage: &Stage) -> Result<(), Failed> {
    let options = BrokerOptions::new().header_codec(NoContext);
    let delivery = published_by_a_handler(stage, options).await?;
    let headers = &delivery.message().headers;
    expect(headers.is_empty(), format_args!("no header, not {headers:?}"))
}

async fn headers_that_are_not_context_stay_behind(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (first, last) = (stage.queue("first")?, stage.queue("last")?);
    let publisher = to_queue::<u32>(&broker, &last).await?;
    let running = Service::new("conformance", broker.clone())
        .state(publisher)
        .consume(&first.clone().of::<u32>(), forward)
        .start()
        .await?;
    let publisher = to_queue::<u32>(&broker, &first).await?;
    let publication = publisher.message(&1)?.header("foreign", "x")?.header("nameko.own", "y")?;
    publication.publish().await?;
    let mut subscription = subscribe(&broker, &last, 1).await?;
    let delivery = next(&mut subscription).await?;
    let headers = &delivery.message().headers;
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.retain(|name| *name != "nameko.call_id_stack");
    expect_eq("the headers that travelled on", names, ["nameko.own"])?;
    delivery.settle(Outcome::Ack);
    Ok(running.stop(soon()).await?)
}

async fn a_trace_travels_on_beside_the_context(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (first, last) = (stage.queue("first")?, stage.queue("last")?);
    let publisher = to_queue::<u32>(&broker, &last).await?;
    let running = Service::new("conformance", broker.clone())
        .state(publisher)
        .consume(&first.clone().of::<u32>(), forward)
        .start()
        .await?;
    let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let publisher = to_queue::<u32>(&broker, &first).await?;
    let publication = publisher.message(&1)?.header("traceparent", span)?;
    publication.header("tracestate", "vendor=1")?.publish().await?;
    publisher.message(&2)?.header("traceparent", "nonsense")?.publish().await?;
    let mut subscription = subscribe(&broker, &last, 2).await?;
    let mut traces = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut subscription).await?;
        let text = |name| {
            let value = delivery.message().headers.get(name)?;
            Some(value.as_str().unwrap_or("no text").to_owned())
        };
        traces.push((number(&delivery)?, text("traceparent"), text("tracestate")));
        delivery.settle(Outcome::Ack);
    }
    traces.sort_unstable();
    let some = |text: &str| Some(text.to_owned());
    let expected = [(1, some(span), some("vendor=1")), (2, None, None)];
    expect_eq("the traces", traces, expected)?;
    Ok(running.stop(soon()).await?)
}

async fn as_many_call_ids_are_kept_as_the_program_says(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker_with(BrokerOptions::new().parent_calls(2)).await?;
    let (first, last) = (stage.queue("first")?, stage.queue("last")?);
    let publisher = to_queue::<u32>(&broker, &last).await?;
    let running = Service::new("conformance", broker.clone())
        .state(publisher)
        .consume(&first.clone().of::<u32>(), forward)
        .start()
        .await?;
    let ids: Vec<Value> = ["a.h.1", "b.h.2", "c.h.3", "d.h.4"].map(Value::from).into();
    let publisher = to_queue::<u32>(&broker, &first).await?;
    publisher.message(&1)?.header("nameko.call_id_stack", ids)?.publish().await?;
    let mut subscription = subscribe(&broker, &last, 1).await?;
    let delivery = next(&mut subscription).await?;
    let headers = &delivery.message().headers;
    let ids = headers.get("nameko.call_id_stack").and_then(Value::as_list).unwrap_or_default();
    let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
    expect_eq("how many call ids", ids.len(), 3)?;
    expect_eq("the last two of the calls before", ids.get(..2), Some(&["c.h.3", "d.h.4"][..]))?;
    delivery.settle(Outcome::Ack);
    Ok(running.stop(soon()).await?)
}

async fn a_service_that_does_not_fit_does_not_start(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let (good, bad) = (stage.queue("good")?, stage.queue("bad")?);
    declare(&other, &[], &[&bad], &[]).await?;
    let mut different = bad.clone();
    different.auto_delete = true;
    let mut taken = stage.queue("taken")?;
    taken.exclusive = true;
    taken.durable = false;
    declare(&other, &[], &[&taken], &[]).await?;
    for wrong in [different, taken] {
        let handler = |_: Body<u32>| async {};
        let service = Service::new("conformance", broker.clone())
            .consume(&good.clone().of::<u32>(), handler)
            .consume(&wrong.clone().of::<u32>(), handler)
            // A queue of another connection is waited for: that one may be about to end.
            .start_within(Duration::from_secs(2));
        let error = expect_error("start", service.start().await, &[ErrorKind::Conflict])?;
        expect_says(&error, &wrong.name)?;
        let mine = good.clone().of::<u32>();
        until("the consumer that had started is stopped", async || {
            Ok(other.queue_status(&mine).await?.consumers == 0)
        })
        .await?;
    }
    fill(&broker, &good, [1]).await?;
    expect_eq("what the queue holds", contents(&broker, &good).await?, [1])
}

/// A handler of a consumer that fails when it is cancelled.
fn failing() -> impl Handler<u32, (), (Body<u32>,)> {
    Handler::<u32, (), (Body<u32>,)>::on_cancel(|_: Body<u32>| async {}, OnCancel::Fail)
}

async fn a_service_goes_on_after_a_lost_connection(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let running = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), handler)
        .start()
        .await?;
    for number in 0..3 {
        fill(&other, &queue, [number]).await?;
        while heard(&mut sees).await? != number {}
        stage.sever().await;
    }
    running.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_consumer_that_ends_fails_its_service(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone()).consume(&mine, failing());
    let deleting = async {
        until("it consumes", async || match other.queue_status(&mine).await {
            Ok(found) => Ok(found.consumers == 1),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        })
        .await?;
        other.apply(&Change::DeleteQueue(queue.name.clone())).await?;
        Ok::<_, Failed>(())
    };
    let running = timeout(PATIENCE * 2, service.run_until(std::future::pending()));
    let (ended, deleted) = tokio::join!(running, deleting);
    deleted?;
    match ended? {
        Err(error) => expect_says(&error, &queue.name),
        Ok(()) => Err(Failed::new("it ended as if all were well")),
    }
}

async fn one_bad_queue_leaves_the_other_consumer(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (doomed, queue) = (stage.queue("doomed")?, stage.queue("q")?);
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let mut running = Service::new("conformance", broker.clone())
        .consume(&doomed.clone().of::<u32>(), failing())
        .consume(&queue.clone().of::<u32>(), handler)
        .start()
        .await?;
    broker.apply(&Change::DeleteQueue(doomed.name.clone())).await?;
    let error = timeout(PATIENCE, running.failed()).await?;
    expect_says(&error, &doomed.name)?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut handled = [heard(&mut sees).await?, heard(&mut sees).await?];
    handled.sort_unstable();
    expect_eq("what the other handled", handled, [1, 2])?;
    // How it stops is another matter: one of its consumers has failed.
    let _ = running.stop(soon()).await;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_signal_ends_the_service(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..5).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let signal = async {
        for _ in 0..5 {
            let _ = sees.recv().await;
        }
    };
    let mine = queue.clone().of::<u32>();
    let service = Service::new("conformance", broker.clone()).consume(&mine, handler);
    timeout(PATIENCE, service.run_until(signal)).await??;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

/// An entrypoint that writes down each call to it.
struct Diary {
    entries: Arc<Mutex<Vec<&'static str>>>,
    fails: Option<Error>,
}

impl Diary {
    fn write(&self, entry: &'static str) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}

#[async_trait]
impl Entrypoint for Diary {
    fn name(&self) -> &str {
        "diary"
    }

    async fn start(&mut self, scope: Scope) -> enoki_core::Result<()> {
        self.write("start");
        if let Some(error) = self.fails.take() {
            scope.fail(error);
        }
        Ok(())
    }

    async fn stop(&mut self, _: Instant) -> enoki_core::Result<()> {
        self.write("stop");
        Ok(())
    }

    async fn kill(&mut self) {
        self.write("kill");
    }
}

/// Programs write `Duration::MAX` where they want no limit. No clock counts that far.
async fn the_longest_of_all_durations_is_no_limit(stage: &Stage) -> Result<(), Failed> {
    const MAX: Duration = Duration::MAX;
    let options = BrokerOptions::new().connect_timeout(MAX).reach_within(MAX).declare_timeout(MAX);
    let broker = stage.broker_with(options).await?;
    let queue = stage.queue("q")?;
    let policy = RetryPolicy::new().backoff(MAX, MAX).also_refused();
    let options = PublisherOptions::new().timeout(MAX).retry(policy);
    let publisher = to_queue_with::<u32>(&broker, &queue, options).await?;
    publisher.publish(&1).await?;
    publisher.message(&2)?.timeout(MAX).publish().await?;
    for confirmed in publisher.publish_all(&[3]).await {
        confirmed?;
    }
    // A time that is too long for the broker may be refused, and is no panic.
    let _ = publisher.message(&4)?.expiration(MAX).publish().await;
    for change in
        [(|queue: &mut QueueSpec| queue.message_ttl = Some(MAX)) as fn(&mut QueueSpec), |queue| {
            queue.expires = Some(MAX)
        }]
    {
        let mut other = stage.queue("other")?;
        change(&mut other);
        let _ = broker.declare(&topology(&[], &[&other], &[])).await;
        broker.apply(&Change::DeleteQueue(other.name)).await?;
    }
    // The connections that come next have the same deadlines.
    stage.sever().await;
    let (told, mut handled) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let told = told.clone();
        async move {
            let _ = told.send(number);
            if number == 3 { Outcome::RetryAfter(MAX) } else { Outcome::Ack }
        }
    };
    let done = async move { while handled.recv().await.is_some_and(|number| number != 3) {} };
    let service = Service::new("office", broker.clone()).consume(&queue.of::<u32>(), handler);
    service.start_within(MAX).stop_within(MAX).run_until(done).await?;
    broker.close(MAX).await;
    Ok(())
}

async fn an_entrypoint_of_ones_own_starts_and_stops(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let entries = Arc::new(Mutex::new(Vec::new()));
    let service = || {
        let diary = Diary { entries: entries.clone(), fails: None };
        Service::new("conformance", broker.clone()).entrypoint(diary)
    };
    service().run_until(async {}).await?;
    service().start().await?.stop(soon()).await?;
    service().start().await?.kill().await;
    let entries = std::mem::take(&mut *entries.lock().unwrap_or_else(PoisonError::into_inner));
    expect_eq("the diary", entries, ["start", "stop", "start", "stop", "start", "kill"])
}

async fn an_entrypoint_that_fails_ends_the_service(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let entries = Arc::new(Mutex::new(Vec::new()));
    let fails = Some(Error::new(ErrorKind::Refused, "keep a diary").because("the pen is empty"));
    let service = Service::new("conformance", broker.clone())
        .consume(&queue.clone().of::<u32>(), |_: Body<u32>| async {})
        .entrypoint(Diary { entries: entries.clone(), fails });
    let ended = timeout(PATIENCE, service.run_until(std::future::pending())).await?;
    let error = expect_error("run", ended, &[ErrorKind::Refused])?;
    expect_says(&error, "the pen is empty")?;
    let entries = std::mem::take(&mut *entries.lock().unwrap_or_else(PoisonError::into_inner));
    expect_eq("the diary", entries, ["start", "stop"])?;
    let status = broker.queue_status(&queue.of::<u32>()).await?;
    expect_eq("consumers", status.consumers, 0)
}

async fn a_service_can_be_started_again(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<u32>();
    for round in 0..3 {
        fill(&broker, &queue, round * 10..(round + 1) * 10).await?;
        let (seen, mut sees) = mpsc::unbounded_channel();
        let handler = move |Body(number): Body<u32>| {
            let _ = seen.send(number);
            async {}
        };
        let service = Service::new("conformance", broker.clone()).consume(&mine, handler);
        let running = service.start().await?;
        let mut handled = BTreeSet::new();
        for _ in 0..10 {
            handled.insert(heard(&mut sees).await?);
        }
        running.stop(soon()).await?;
        expect_eq(
            "what was handled",
            handled,
            (round * 10..(round + 1) * 10).collect::<BTreeSet<_>>(),
        )?;
    }
    Ok(())
}
