//! Exchanges, queues and bindings: what is declared, and what it does.

use std::time::Duration;

use enoki_core::{
    BindingSpec, Broker, Capability, DeadLetter, Destination, ErrorKind, ExchangeKind,
    ExchangeSpec, Outcome, Overflow, PublisherOptions, QueueKind, QueueSpec, Raw, RouteSpec,
    ShortStr, Table, Value, transport::Change,
};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        bind, contents, dead_letter_to, death_reason, declare, fill, hold, next, number, ready,
        settle_all, soon, subscribe, take, to_queue, to_queue_with, topology, until,
    },
};

cases! { "topology":
    declaring_twice_is_declaring_once,
    declaring_at_the_same_time_is_declaring_once,
    a_queue_with_other_arguments_is_a_conflict,
    a_queue_of_another_kind_is_a_conflict [ReplicatedQueues],
    an_exchange_of_another_kind_is_a_conflict [Exchanges],
    an_exchange_with_other_options_is_a_conflict [Exchanges],
    what_a_queue_cannot_be_is_refused_by_name,
    a_conflict_disturbs_nobody,
    verifying_finds_what_exists,
    verifying_creates_nothing,
    verifying_compares_arguments [LengthLimit],
    what_is_passive_is_found_by_name_and_never_created,
    deleting_twice_is_deleting_once,
    a_deleted_queue_takes_its_bindings_along [Exchanges, UnroutableDetection],
    purging_removes_what_is_ready_and_counts_it,
    the_status_counts_messages_and_consumers,
    names_have_at_most_255_bytes,
    names_may_be_in_any_language,
    an_exchange_where_there_are_none_is_refused_by_name without Exchanges,
    a_direct_exchange_routes_by_the_exact_key [Exchanges],
    a_fanout_exchange_routes_to_every_queue [Exchanges],
    a_topic_exchange_routes_by_pattern [Exchanges],
    a_headers_exchange_routes_by_all_or_any [Exchanges],
    two_bindings_that_match_make_one_copy [Exchanges],
    an_exchange_feeds_another [Exchanges],
    exchanges_that_feed_each_other_route_once [Exchanges],
    an_alternate_exchange_gets_what_is_unroutable [Exchanges, UnroutableDetection],
    the_default_exchange_routes_by_the_name_of_the_queue,
    unbinding_stops_the_flow [Exchanges, UnroutableDetection],
    an_internal_exchange_refuses_publishers [Exchanges],
    an_auto_delete_exchange_goes_with_its_last_binding [Exchanges],
    an_unknown_kind_of_exchange_is_refused_and_disturbs_nobody [Exchanges],
    an_auto_delete_queue_goes_with_its_last_consumer,
    an_exclusive_queue_belongs_to_its_connection [ExclusiveQueues],
    an_exclusive_queue_goes_with_its_connection [ExclusiveQueues],
    each_handle_has_a_temporary_queue_of_its_own [ExclusiveQueues, Exchanges],
    a_message_older_than_the_ttl_is_dead_lettered [Expiry, DeadLetter],
    an_expired_message_is_dead_lettered [Expiry, DeadLetter],
    an_expired_message_is_not_delivered [Expiry],
    an_unused_queue_expires [Expiry, UnroutableDetection],
    a_full_queue_drops_the_oldest [LengthLimit, DeadLetter],
    a_full_queue_refuses_the_newest [LengthLimit],
    a_queue_can_be_limited_in_bytes [LengthLimit],
    raw_arguments_reach_the_broker [LengthLimit],
    the_higher_priority_comes_first [Priority],
    one_consumer_at_a_time_is_active [SingleActiveConsumer],
    a_delivery_limit_ends_a_message [ReplicatedQueues, DeadLetter],
    dead_letters_may_have_a_key_of_their_own [DeadLetter, Exchanges],
}

async fn declaring_twice_is_declaring_once(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1]).await?;
    for broker in [&broker, &broker, &other] {
        declare(broker, &[], &[&queue], &[]).await?;
    }
    if stage.can(Capability::Exchanges) {
        let exchange = stage.exchange("x", ExchangeKind::Topic)?;
        let binding = bind(&exchange, &queue, "a.#")?;
        for broker in [&broker, &broker, &other] {
            declare(broker, &[&exchange], &[&queue], std::slice::from_ref(&binding)).await?;
        }
    }
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])
}

async fn declaring_at_the_same_time_is_declaring_once(stage: &Stage) -> Result<(), Failed> {
    let brokers = try_join_all((0..4).map(|_| stage.broker())).await?;
    let queues: Vec<_> = (0..5).map(|n| stage.queue(&format!("q{n}"))).collect::<Result<_, _>>()?;
    let whole = topology(&[], &queues.iter().collect::<Vec<_>>(), &[]);
    for declared in join_all(brokers.iter().map(|broker| broker.declare(&whole))).await {
        declared?;
    }
    Ok(())
}

async fn a_queue_with_other_arguments_is_a_conflict(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let plain = stage.queue("plain")?;
    let target = stage.queue("dead")?;
    declare(&broker, &[], &[&plain, &target], &[]).await?;
    let mut others: Vec<(&str, QueueSpec)> = Vec::new();
    let mut other = |argument, change: &dyn Fn(&mut QueueSpec)| {
        let mut spec = plain.clone();
        change(&mut spec);
        others.push((argument, spec));
    };
    other("auto", &|queue| queue.auto_delete = true);
    if stage.can(Capability::Expiry) {
        other("message-ttl", &|queue| queue.message_ttl = Some(Duration::from_secs(60)));
        other("expires", &|queue| queue.expires = Some(Duration::from_secs(60)));
    }
    if stage.can(Capability::LengthLimit) {
        other("max-length", &|queue| queue.max_length = Some(7));
        other("max-length-bytes", &|queue| queue.max_bytes = Some(7));
        other("overflow", &|queue| queue.overflow = Some(Overflow::RejectPublish));
    }
    if stage.can(Capability::DeadLetter) {
        other("dead-letter", &|queue| queue.dead_letter = dead_letter_to(&target));
    }
    if stage.can(Capability::Priority) {
        other("max-priority", &|queue| queue.max_priority = Some(3));
    }
    if stage.can(Capability::SingleActiveConsumer) {
        other("single-active-consumer", &|queue| queue.single_active_consumer = true);
    }
    for (argument, spec) in &others {
        let declared = broker.declare(&topology(&[], &[spec], &[])).await;
        let error = expect_error(argument, declared, &[ErrorKind::Conflict])?;
        expect_says(&error, argument)?;
        expect_says(&error, &plain.name)?;
        expect(!error.is_transient(), "that it stays different")?;
    }
    // And the other way round: what is missing differs, too.
    if let Some((argument, mut spec)) = others.pop() {
        spec.name = stage.queue("special")?.name;
        let mut bare = plain.clone();
        bare.name = spec.name.clone();
        declare(&broker, &[], &[&spec], &[]).await?;
        let declared = broker.declare(&topology(&[], &[&bare], &[])).await;
        let error = expect_error(argument, declared, &[ErrorKind::Conflict])?;
        expect_says(&error, argument)?;
    }
    Ok(())
}

async fn a_queue_of_another_kind_is_a_conflict(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let classic = stage.queue("q")?;
    let mut replicated = classic.clone();
    replicated.kind = QueueKind::Replicated;
    declare(&broker, &[], &[&classic], &[]).await?;
    let declared = broker.declare(&topology(&[], &[&replicated], &[])).await;
    let error = expect_error("declare it replicated", declared, &[ErrorKind::Conflict])?;
    expect_says(&error, "queue-type")
}

async fn an_exchange_of_another_kind_is_a_conflict(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    declare(&broker, &[&exchange], &[], &[]).await?;
    for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Headers] {
        let mut other = exchange.clone();
        other.kind = kind;
        let declared = broker.declare(&topology(&[&other], &[], &[])).await;
        let error = expect_error(&other.kind, declared, &[ErrorKind::Conflict])?;
        expect_says(&error, &exchange.name)?;
        expect_says(&error, exchange.kind.as_str())?;
        expect_says(&error, other.kind.as_str())?;
    }
    Ok(())
}

async fn an_exchange_with_other_options_is_a_conflict(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Fanout)?;
    let alternate = stage.exchange("alternate", ExchangeKind::Fanout)?;
    declare(&broker, &[&exchange, &alternate], &[], &[]).await?;
    type Variant<'c> = (&'c str, &'c dyn Fn(&mut ExchangeSpec));
    let changes: [Variant<'_>; 4] = [
        ("durable", &|exchange| exchange.durable = false),
        ("auto", &|exchange| exchange.auto_delete = true),
        ("internal", &|exchange| exchange.internal = true),
        ("alternate-exchange", &|exchange| exchange.alternate = Some(alternate.name.clone())),
    ];
    for (option, change) in changes {
        let mut other = exchange.clone();
        change(&mut other);
        let declared = broker.declare(&topology(&[&other], &[], &[])).await;
        let error = expect_error(option, declared, &[ErrorKind::Conflict])?;
        expect_says(&error, option)?;
    }
    Ok(())
}

/// A limit that nobody keeps is worse than none.
async fn what_a_queue_cannot_be_is_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    type Change = fn(&mut QueueSpec);
    let changes: [(Capability, Change); 7] = [
        (Capability::ReplicatedQueues, |queue| queue.kind = QueueKind::Replicated),
        (Capability::ExclusiveQueues, |queue| queue.exclusive = true),
        (Capability::Expiry, |queue| queue.message_ttl = Some(Duration::from_secs(60))),
        (Capability::LengthLimit, |queue| queue.max_length = Some(10)),
        (Capability::DeadLetter, |queue| {
            queue.dead_letter = Some(DeadLetter { exchange: ShortStr::EMPTY, routing_key: None });
        }),
        (Capability::Priority, |queue| queue.max_priority = Some(3)),
        (Capability::SingleActiveConsumer, |queue| queue.single_active_consumer = true),
    ];
    let broker = stage.broker().await?;
    for (capability, change) in changes {
        if stage.can(capability) {
            continue;
        }
        let mut queue = stage.queue(capability.as_str())?;
        change(&mut queue);
        let declared = broker.declare(&topology(&[], &[&queue], &[])).await;
        let error = expect_error(capability, declared, &[ErrorKind::Unsupported])?;
        expect_says(&error, &queue.name)?;
        expect_says(&error, broker.peer().product())?;
        queue.passive = true;
        let found = broker.verify(&topology(&[], &[&queue], &[])).await;
        expect_error("what was refused", found, &[ErrorKind::NotFound])?;
    }
    Ok(())
}

/// On AMQP 0-9-1 a failed declaration closes its channel: nobody else may be on it.
async fn a_conflict_disturbs_nobody(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    publisher.publish(&1).await?;
    let held = next(&mut subscription).await?;
    let mut other = queue.clone();
    other.auto_delete = true;
    for _ in 0..3 {
        let declared = broker.declare(&topology(&[], &[&other], &[])).await;
        expect_error("declare", declared, &[ErrorKind::Conflict])?;
        let mine = other.clone().of::<u32>();
        expect_error("subscribe", broker.subscribe(&mine, 1).await, &[ErrorKind::Conflict])?;
        let publisher = to_queue::<u32>(&broker, &other).await;
        expect(publisher.is_err(), "no publisher with a topology that does not fit")?;
    }
    publisher.publish(&2).await?;
    held.settle(Outcome::Ack);
    expect_eq("what still arrives", take(&mut subscription, 1).await?, [2])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn verifying_finds_what_exists(stage: &Stage) -> Result<(), Failed> {
    let (broker, other) = (stage.broker().await?, stage.broker().await?);
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    let exchanges: &[_] = if stage.can(Capability::Exchanges) { &[&exchange] } else { &[] };
    let whole = topology(exchanges, &[&queue], &[]);
    broker.declare(&whole).await?;
    Ok(other.verify(&whole).await?)
}

/// C16
async fn verifying_creates_nothing(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("missing")?;
    for _ in 0..2 {
        let verified = broker.verify(&topology(&[], &[&queue], &[])).await;
        let error = expect_error("verify a queue", verified, &[ErrorKind::NotFound])?;
        expect_says(&error, &queue.name)?;
    }
    if stage.can(Capability::Exchanges) {
        let exchange = stage.exchange("missing-exchange", ExchangeKind::Topic)?;
        for _ in 0..2 {
            let verified = broker.verify(&topology(&[&exchange], &[], &[])).await;
            let error = expect_error("verify an exchange", verified, &[ErrorKind::NotFound])?;
            expect_says(&error, &exchange.name)?;
        }
    }
    Ok(())
}

async fn verifying_compares_arguments(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    declare(&broker, &[], &[&queue], &[]).await?;
    let mut other = queue.clone();
    other.max_length = Some(3);
    let verified = broker.verify(&topology(&[], &[&other], &[])).await;
    let error = expect_error("verify", verified, &[ErrorKind::Conflict])?;
    expect_says(&error, "max-length")
}

async fn what_is_passive_is_found_by_name_and_never_created(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.passive = true;
    let missing = broker.subscribe(&queue.clone().of::<u32>(), 1).await;
    let error = expect_error("consume from a missing queue", missing, &[ErrorKind::NotFound])?;
    expect_says(&error, &queue.name)?;

    let mut theirs = queue.clone();
    theirs.passive = false;
    theirs.auto_delete = true;
    declare(&broker, &[], &[&theirs], &[]).await?;
    declare(&broker, &[], &[&queue], &[]).await?;
    if stage.can(Capability::Exchanges) {
        let mut exchange = stage.exchange("x", ExchangeKind::Topic)?;
        exchange.passive = true;
        let missing = broker.publisher(RouteSpec::<u32>::new(&exchange, "key")?).await;
        let error = expect_error("publish to a missing one", missing, &[ErrorKind::NotFound])?;
        expect_says(&error, &exchange.name)?;
    }
    Ok(())
}

async fn deleting_twice_is_deleting_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    for _ in 0..3 {
        broker.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    }
    let verified = broker.verify(&topology(&[], &[&queue], &[])).await;
    expect_error("verify the queue", verified, &[ErrorKind::NotFound])?;
    if stage.can(Capability::Exchanges) {
        let exchange = stage.exchange("x", ExchangeKind::Direct)?;
        declare(&broker, &[&exchange], &[], &[]).await?;
        for _ in 0..3 {
            broker.apply(&Change::DeleteExchange(exchange.name.clone())).await?;
        }
        let verified = broker.verify(&topology(&[&exchange], &[], &[])).await;
        expect_error("verify the exchange", verified, &[ErrorKind::NotFound])?;
    }
    expect_eq("what a new one holds", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn a_deleted_queue_takes_its_bindings_along(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Direct)?;
    declare(&broker, &[&exchange], &[&queue], &[bind(&exchange, &queue, "k")?]).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "k")?).await?;
    publisher.publish(&1).await?;
    broker.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    expect_error("publish", publisher.publish(&2).await, &[ErrorKind::Unroutable])?;
    declare(&broker, &[], &[&queue], &[]).await?;
    expect_error("publish", publisher.publish(&3).await, &[ErrorKind::Unroutable]).map(drop)
}

async fn purging_removes_what_is_ready_and_counts_it(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, 0..7).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let held = hold(&mut subscription, 2).await?;
    let purged = broker.apply(&Change::PurgeQueue(queue.name.clone())).await?;
    expect_eq("how many were removed", purged.messages, 5)?;
    settle_all(held, Outcome::Requeue);
    let mut back = take(&mut subscription, 2).await?;
    back.sort_unstable();
    expect_eq("what was under way", back, [0, 1])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])?;
    let missing = Change::PurgeQueue(stage.queue("missing")?.name);
    expect_error("purge", broker.apply(&missing).await, &[ErrorKind::NotFound]).map(drop)
}

async fn the_status_counts_messages_and_consumers(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mine = queue.clone().of::<u32>();
    fill(&broker, &queue, 0..5).await?;
    let found = broker.queue_status(&mine).await?;
    expect_eq("messages and consumers", (found.messages, found.consumers), (5, 0))?;
    let mut one = subscribe(&broker, &queue, 1).await?;
    let mut other = subscribe(&broker, &queue, 1).await?;
    let held = (next(&mut one).await?, next(&mut other).await?);
    let found = broker.queue_status(&mine).await?;
    expect_eq("messages and consumers", (found.messages, found.consumers), (3, 2))?;
    drop(held);
    let missing = stage.queue("missing")?.of::<u32>();
    expect_error("the status", broker.queue_status(&missing).await, &[ErrorKind::NotFound])
        .map(drop)
}

async fn names_have_at_most_255_bytes(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let stem = stage.name("");
    let longest = "x".repeat(ShortStr::MAX - stem.len());
    let queue = stage.queue(&longest)?;
    expect_eq("the length of the longest name", queue.name.len(), 255)?;
    fill(&broker, &queue, [1]).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])?;
    let refused = [
        QueueSpec::new("x".repeat(256)).err(),
        QueueSpec::new("").err(),
        QueueSpec::new("amq.mine").err(),
        QueueSpec::new("a\0b").err(),
        ExchangeSpec::new("x".repeat(256), ExchangeKind::Topic).err(),
        ExchangeSpec::new("amq.mine", ExchangeKind::Topic).err(),
        ShortStr::new("é".repeat(128)).err(),
    ];
    for error in refused {
        let error = error.ok_or_else(|| Failed::new("a bad name was accepted"))?;
        expect_eq("the kind", error.kind(), ErrorKind::Configuration)?;
    }
    Ok(())
}

async fn names_may_be_in_any_language(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("żółć 蘑菇/%2F&#🍄 \"'")?;
    fill(&broker, &queue, [1]).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])?;
    // What is more than a name there has to be refused, and never be taken for something else.
    for name in ["what?", "a?b=c&d", "here::there", "all.#"] {
        let queue = stage.queue(name)?;
        match declare(&broker, &[], &[&queue], &[]).await {
            Ok(()) => {
                fill(&broker, &queue, [1]).await?;
                expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])?;
            }
            Err(failed) if stage.can(Capability::Exchanges) => return Err(failed),
            Err(_) => {}
        }
    }
    if stage.can(Capability::Exchanges) {
        let exchange = stage.exchange("биржа ✓/:", ExchangeKind::Topic)?;
        declare(&broker, &[&exchange], &[], &[bind(&exchange, &queue, "ключ.*")?]).await?;
        broker.publisher(RouteSpec::<u32>::new(&exchange, "ключ.🍄")?).await?.publish(&2).await?;
        expect_eq("what the queue holds", contents(&broker, &queue).await?, [2])?;
    }
    Ok(())
}

async fn an_exchange_where_there_are_none_is_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic] {
        let exchange = ExchangeSpec::new(stage.name("x"), kind.clone())?;
        let key = if kind == ExchangeKind::Fanout { "" } else { "k" };
        let bound = topology(&[&exchange], &[&queue], &[bind(&exchange, &queue, key)?]);
        let route = RouteSpec::<u32>::new(&exchange, key)?;
        for refused in [
            broker.declare(&bound).await,
            broker.verify(&bound).await,
            broker.publisher(route.clone()).await.map(drop),
            broker.publisher_with(route, PublisherOptions::new().optional()).await.map(drop),
        ] {
            let error = expect_error("an exchange", refused, &[ErrorKind::Unsupported])?;
            expect_says(&error, &exchange.name)?;
            expect_says(&error, broker.peer().product())?;
            expect(!error.is_transient(), "that it stays without exchanges")?;
        }
    }
    // And so is a binding to what was never declared.
    let exchange = ExchangeSpec::new(stage.name("x"), ExchangeKind::Topic)?;
    let bound = broker.apply(&Change::Bind(bind(&exchange, &queue, "a.#")?)).await;
    let error = expect_error("a binding", bound, &[ErrorKind::Unsupported])?;
    expect_says(&error, &exchange.name)?;
    fill(&broker, &queue, [1]).await?;
    expect_eq("what still works", contents(&broker, &queue).await?, [1])
}

async fn a_direct_exchange_routes_by_the_exact_key(stage: &Stage) -> Result<(), Failed> {
    let table = [("a", "a"), ("a.b", "a.b"), ("A", "A"), ("*", "*"), ("", "")];
    let keys = ["a", "a.b", "b", "A", "", "a.", "#"];
    routes(stage, ExchangeKind::Direct, &table, &keys, |pattern, key| pattern == key).await
}

async fn a_fanout_exchange_routes_to_every_queue(stage: &Stage) -> Result<(), Failed> {
    let table = [("one", ""), ("two", ""), ("three", "")];
    routes(stage, ExchangeKind::Fanout, &table, &["", ""], |_, _| true).await
}

async fn a_topic_exchange_routes_by_pattern(stage: &Stage) -> Result<(), Failed> {
    let patterns =
        ["a.*", "lazy.#", "#", "*", "", "a.b", "#.c", "*.*", "a.#.c", "a.*.c.#", "#.#", "ab*"];
    let table: Vec<_> = patterns.iter().map(|pattern| (*pattern, *pattern)).collect();
    let keys = [
        "a.b",
        "a.b.c",
        "a",
        "lazy",
        "lazy.orange.rabbit",
        "",
        "c",
        "a.c",
        "a.b.b.c",
        "a.b.c.d",
        "a..c",
        "A.b",
        "abc",
        "ab*",
    ];
    routes(stage, ExchangeKind::Topic, &table, &keys, |pattern, key| {
        // By the definition, and not by the function that transports may use.
        fn matches(pattern: &[&str], key: &[&str]) -> bool {
            match (pattern, key) {
                ([], []) => true,
                (["#", rest @ ..], [_, more @ ..]) => matches(rest, key) || matches(pattern, more),
                (["#", rest @ ..], []) => matches(rest, key),
                (["*", rest @ ..], [_, more @ ..]) => matches(rest, more),
                ([word, rest @ ..], [other, more @ ..]) => word == other && matches(rest, more),
                _ => false,
            }
        }
        let words = |text: &'static str| -> Vec<&str> {
            if text.is_empty() { Vec::new() } else { text.split('.').collect() }
        };
        matches(&words(pattern), &words(key))
    })
    .await
}

/// Publishes with every key, and compares what each queue got.
async fn routes(
    stage: &Stage,
    kind: ExchangeKind,
    table: &[(&'static str, &'static str)],
    keys: &[&'static str],
    matches: impl Fn(&'static str, &'static str) -> bool,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", kind)?;
    let mut queues = Vec::new();
    for (at, (_, pattern)) in table.iter().enumerate() {
        let queue = stage.queue(&format!("q{at}"))?;
        let binding = bind(&exchange, &queue, pattern)?;
        declare(&broker, &[&exchange], &[&queue], &[binding]).await?;
        queues.push(queue);
    }
    let options = PublisherOptions::new().optional();
    let publisher = broker.publisher_with(RouteSpec::<u32>::new(&exchange, "")?, options).await?;
    for (number, key) in (0..).zip(keys) {
        publisher.publish_to(*key, &number).await?;
    }
    for ((_, pattern), queue) in table.iter().zip(&queues) {
        let wanted: Vec<u32> =
            (0..).zip(keys).filter(|(_, key)| matches(pattern, key)).map(|(n, _)| n).collect();
        expect_eq(format_args!("bound by {pattern:?}"), contents(&broker, queue).await?, wanted)?;
    }
    Ok(())
}

async fn a_headers_exchange_routes_by_all_or_any(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("x", ExchangeKind::Headers)?;
    let (all, any) = (stage.queue("all")?, stage.queue("any")?);
    for (queue, matching) in [(&all, "all"), (&any, "any")] {
        let mut binding = bind(&exchange, queue, "")?;
        binding.arguments.insert("x-match", matching)?;
        binding.arguments.insert("paper", "A1")?;
        binding.arguments.insert("Copies", 2)?;
        binding.arguments.insert("colour", true)?;
        declare(&broker, &[&exchange], &[queue], &[binding]).await?;
    }
    let options = PublisherOptions::new().optional();
    let publisher = broker.publisher_with(RouteSpec::<u32>::new(&exchange, "")?, options).await?;
    /// Headers, and whether the message gets into each of the queues.
    type Message<'m> = (&'m [(&'m str, Value)], bool, bool);
    let messages: [Message<'_>; 7] = [
        (&[("paper", "A1".into()), ("Copies", 2.into()), ("colour", true.into())], true, true),
        (&[("paper", "A1".into()), ("Copies", 2.into())], false, true),
        (&[("Copies", 2.into()), ("colour", false.into())], false, true),
        (&[("paper", "A2".into()), ("Copies", 3.into())], false, false),
        (&[("copies", 2.into())], false, false),
        (&[("Copies", "2".into())], false, false),
        (&[], false, false),
    ];
    let mut wanted = (Vec::new(), Vec::new());
    for (number, (headers, in_all, in_any)) in (0_u32..).zip(messages) {
        let mut publication = publisher.message(&number)?;
        for (name, value) in headers {
            publication = publication.header(*name, value.clone())?;
        }
        publication.publish().await?;
        wanted.0.extend(in_all.then_some(number));
        wanted.1.extend(in_any.then_some(number));
    }
    expect_eq("bound by all", contents(&broker, &all).await?, wanted.0)?;
    expect_eq("bound by any", contents(&broker, &any).await?, wanted.1)
}

async fn two_bindings_that_match_make_one_copy(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    let bindings = [
        bind(&exchange, &queue, "a.*")?,
        bind(&exchange, &queue, "#")?,
        bind(&exchange, &queue, "a.b")?,
    ];
    declare(&broker, &[&exchange], &[&queue], &bindings).await?;
    broker.publisher(RouteSpec::<u32>::new(&exchange, "a.b")?).await?.publish(&1).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])
}

async fn an_exchange_feeds_another(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let first = stage.exchange("first", ExchangeKind::Topic)?;
    let second = stage.exchange("second", ExchangeKind::Direct)?;
    let between = BindingSpec::new(&first, Destination::Exchange(second.name.clone()), "eu.#")?;
    let last = bind(&second, &queue, "eu.fi")?;
    declare(&broker, &[&first, &second], &[&queue], &[between.clone(), last]).await?;
    let options = PublisherOptions::new().optional();
    let publisher = broker.publisher_with(RouteSpec::<u32>::new(&first, "")?, options).await?;
    for (number, key) in (0..).zip(["eu.fi", "eu.se", "us.fi", "eu.fi"]) {
        publisher.publish_to(key, &number).await?;
    }
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [0, 3])?;
    broker.apply(&Change::Unbind(between)).await?;
    publisher.publish_to("eu.fi", &4).await?;
    expect_eq("what comes after unbinding", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn exchanges_that_feed_each_other_route_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let one = stage.exchange("one", ExchangeKind::Fanout)?;
    let other = stage.exchange("other", ExchangeKind::Fanout)?;
    let bindings = [
        BindingSpec::new(&one, Destination::Exchange(other.name.clone()), "")?,
        BindingSpec::new(&other, Destination::Exchange(one.name.clone()), "")?,
        bind(&one, &queue, "")?,
        bind(&other, &queue, "")?,
    ];
    declare(&broker, &[&one, &other], &[&queue], &bindings).await?;
    broker.publisher(RouteSpec::<u32>::new(&one, "")?).await?.publish(&1).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1])
}

async fn an_alternate_exchange_gets_what_is_unroutable(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let (known, rest) = (stage.queue("known")?, stage.queue("rest")?);
    let alternate = stage.exchange("alternate", ExchangeKind::Fanout)?;
    let mut exchange = stage.exchange("x", ExchangeKind::Direct)?;
    exchange.alternate = Some(alternate.name.clone());
    let bindings = [bind(&exchange, &known, "known")?, bind(&alternate, &rest, "")?];
    declare(&broker, &[&alternate, &exchange], &[&known, &rest], &bindings).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "known")?).await?;
    publisher.publish(&1).await?;
    publisher.publish_to("unknown", &2).await?;
    expect_eq("what was routed", contents(&broker, &known).await?, [1])?;
    expect_eq("what was not", contents(&broker, &rest).await?, [2])?;
    broker.apply(&Change::DeleteQueue(rest.name.clone())).await?;
    let nowhere = publisher.publish_to("unknown", &3).await;
    expect_error("without a queue there", nowhere, &[ErrorKind::Unroutable]).map(drop)
}

async fn the_default_exchange_routes_by_the_name_of_the_queue(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    // To brokers without exchanges this may be a pattern itself.
    let pattern = if stage.can(Capability::Exchanges) { "a.*" } else { "a" };
    let (one, other) = (stage.queue(pattern)?, stage.queue("a.b")?);
    declare(&broker, &[], &[&one, &other], &[]).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::to_queue(one.name.as_str())?).await?;
    publisher.publish(&1).await?;
    // A mandatory message needs a broker that would tell that nobody gets it.
    let mandatory = stage.can(Capability::UnroutableDetection);
    publisher.message(&2)?.key(other.name.clone())?.mandatory(mandatory).publish().await?;
    expect_eq("what the one holds", contents(&broker, &one).await?, [1])?;
    expect_eq("what the other holds", contents(&broker, &other).await?, [2])?;
    expect_error("no name", RouteSpec::<u32>::to_queue(""), &[ErrorKind::Configuration]).map(drop)
}

async fn unbinding_stops_the_flow(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let exchange = stage.exchange("x", ExchangeKind::Topic)?;
    let bindings = [bind(&exchange, &queue, "a")?, bind(&exchange, &queue, "b")?];
    declare(&broker, &[&exchange], &[&queue], &bindings).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::new(&exchange, "a")?).await?;
    publisher.publish(&1).await?;
    for _ in 0..2 {
        broker.apply(&Change::Unbind(bind(&exchange, &queue, "a")?)).await?;
    }
    expect_error("publish", publisher.publish(&2).await, &[ErrorKind::Unroutable])?;
    publisher.publish_to("b", &3).await?;
    expect_eq("what the queue holds", contents(&broker, &queue).await?, [1, 3])
}

async fn an_internal_exchange_refuses_publishers(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let entry = stage.exchange("entry", ExchangeKind::Fanout)?;
    let mut inner = stage.exchange("inner", ExchangeKind::Fanout)?;
    inner.internal = true;
    let between = BindingSpec::new(&entry, Destination::Exchange(inner.name.clone()), "")?;
    let bindings = [between, bind(&inner, &queue, "")?];
    declare(&broker, &[&entry, &inner], &[&queue], &bindings).await?;
    let refused = broker.publisher(RouteSpec::<u32>::new(&inner, "")?).await?.publish(&1).await;
    let kinds = [ErrorKind::Denied, ErrorKind::Refused, ErrorKind::Indeterminate];
    expect_error("publish to it", refused, &kinds)?;
    broker.publisher(RouteSpec::<u32>::new(&entry, "")?).await?.publish(&2).await?;
    expect_eq("what came by way of the other", contents(&broker, &queue).await?, [2])
}

async fn an_auto_delete_exchange_goes_with_its_last_binding(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let mut exchange = stage.exchange("x", ExchangeKind::Direct)?;
    exchange.auto_delete = true;
    let bindings = [bind(&exchange, &queue, "a")?, bind(&exchange, &queue, "b")?];
    declare(&broker, &[&exchange], &[&queue], &bindings).await?;
    let whole = topology(&[&exchange], &[], &[]);
    broker.apply(&Change::Unbind(bind(&exchange, &queue, "a")?)).await?;
    broker.verify(&whole).await?;
    broker.apply(&Change::Unbind(bind(&exchange, &queue, "b")?)).await?;
    gone(&broker, &whole).await
}

async fn gone(broker: &Broker, topology: &enoki_core::Topology) -> Result<(), Failed> {
    until("it is gone", async || match broker.verify(topology).await {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    })
    .await
}

/// RabbitMQ answers an unknown kind by closing the whole connection.
async fn an_unknown_kind_of_exchange_is_refused_and_disturbs_nobody(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    let mut subscription = subscribe(&broker, &queue, 2).await?;
    let held = hold(&mut subscription, 2).await?;
    let kind = ExchangeKind::Plugin(ShortStr::from_static("x-enoki-no-such-kind"));
    let exchange = stage.exchange("x", kind)?;
    let declared = broker.declare(&topology(&[&exchange], &[], &[])).await;
    let kinds = [ErrorKind::Unsupported, ErrorKind::Configuration];
    let error = expect_error("declare", declared, &kinds)?;
    expect_says(&error, "x-enoki-no-such-kind")?;
    settle_all(held, Outcome::Ack);
    fill(&broker, &queue, [3]).await?;
    expect_eq("what still arrives", take(&mut subscription, 1).await?, [3])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])
}

async fn an_auto_delete_queue_goes_with_its_last_consumer(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.auto_delete = true;
    let (mut one, mut other) =
        (subscribe(&broker, &queue, 1).await?, subscribe(&broker, &queue, 1).await?);
    one.stop(soon()).await?;
    let whole = topology(&[], &[&queue], &[]);
    broker.verify(&whole).await?;
    other.stop(soon()).await?;
    gone(&broker, &whole).await
}

async fn an_exclusive_queue_belongs_to_its_connection(stage: &Stage) -> Result<(), Failed> {
    let (owner, other) = (stage.broker().await?, stage.broker().await?);
    let queue = exclusive(stage)?;
    let mine = queue.clone().of::<u32>();
    let mut subscription = owner.subscribe(&mine, 1).await?;
    let conflict = &[ErrorKind::Conflict];
    expect_error("subscribe", other.subscribe(&mine, 1).await, conflict)?;
    expect_error("declare", other.declare(&topology(&[], &[&queue], &[])).await, conflict)?;
    expect_error("look", other.queue_status(&mine).await, conflict)?;
    // Anybody may publish to it.
    let publisher = other.publisher(RouteSpec::<u32>::to_queue(queue.name.as_str())?).await?;
    publisher.publish(&1).await?;
    expect_eq("what arrives", take(&mut subscription, 1).await?, [1])
}

async fn an_exclusive_queue_goes_with_its_connection(stage: &Stage) -> Result<(), Failed> {
    let (owner, other) = (stage.broker().await?, stage.broker().await?);
    let queue = exclusive(stage)?;
    declare(&owner, &[], &[&queue], &[]).await?;
    let publisher = other.publisher(RouteSpec::<u32>::to_queue(queue.name.as_str())?).await?;
    publisher.publish(&1).await?;
    owner.close(soon()).await;
    until("another connection can have the name", async || {
        Ok(other.declare(&topology(&[], &[&queue], &[])).await.is_ok())
    })
    .await?;
    expect_eq("what the new one holds", ready(&other, &queue).await?, 0)
}

fn exclusive(stage: &Stage) -> Result<QueueSpec, Failed> {
    let mut queue = stage.queue("exclusive")?;
    queue.exclusive = true;
    queue.durable = false;
    Ok(queue)
}

async fn each_handle_has_a_temporary_queue_of_its_own(stage: &Stage) -> Result<(), Failed> {
    let (one, other) = (stage.broker().await?, stage.broker().await?);
    let exchange = stage.exchange("x", ExchangeKind::Fanout)?;
    let mut queue = exclusive(stage)?;
    queue.auto_delete = true;
    queue.unique = true;
    let binding = bind(&exchange, &queue, "")?;
    let queue = queue.of::<u32>().bind(&exchange, binding);
    let names = (one.queue_name(&queue)?, other.queue_name(&queue)?);
    expect(names.0 != names.1, "two names")?;
    let mut here = one.subscribe(&queue, 4).await?;
    let mut there = other.subscribe(&queue, 4).await?;
    let options = PublisherOptions::new();
    let publisher = other.publisher_with(RouteSpec::<u32>::new(&exchange, "")?, options).await?;
    publisher.publish(&1).await?;
    expect_eq("what the one gets", take(&mut here, 1).await?, [1])?;
    expect_eq("what the other gets", take(&mut there, 1).await?, [1])?;
    one.close(soon()).await;
    let gone = RouteSpec::<u32>::to_queue(names.0.as_str())?;
    let publisher = other.publisher(gone).await?;
    until("the queue has gone with its handle", async || Ok(publisher.publish(&2).await.is_err()))
        .await
}

async fn a_message_older_than_the_ttl_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.message_ttl = Some(Duration::from_millis(100));
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    fill(&broker, &queue, 0..3).await?;
    let letters = hold(&mut graveyard, 3).await?;
    expect_eq("the order", crate::steps::numbers(&letters)?, [0, 1, 2])?;
    for letter in letters {
        let reason = death_reason(&letter.message().headers);
        expect_eq("the reason", reason.as_deref(), Some("expired"))?;
        letter.settle(Outcome::Ack);
    }
    expect_eq("what is left", ready(&broker, &queue).await?, 0)
}

async fn an_expired_message_is_dead_lettered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.message(&1)?.expiration(Duration::from_millis(100)).publish().await?;
    publisher.publish(&2).await?;
    let letter = next(&mut graveyard).await?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    let reason = death_reason(&letter.message().headers);
    expect_eq("the reason", reason.as_deref(), Some("expired"))?;
    // Else it would expire there as well.
    expect_eq("its expiration", letter.message().properties.expiration, None)?;
    letter.settle(Outcome::Ack);
    expect_eq("what is left", contents(&broker, &queue).await?, [2])
}

async fn an_expired_message_is_not_delivered(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.message(&1)?.expiration(Duration::from_millis(50)).publish().await?;
    publisher.message(&2)?.expiration(Duration::from_secs(600)).publish().await?;
    publisher.message(&3)?.expiration(Duration::from_millis(51)).publish().await?;
    // Later than the expiration, and this is what it is about.
    sleep(Duration::from_millis(200)).await;
    expect_eq("what is delivered", contents(&broker, &queue).await?, [2])
}

async fn an_unused_queue_expires(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.expires = Some(Duration::from_millis(400));
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let publisher = broker.publisher(RouteSpec::<u32>::to_queue(queue.name.as_str())?).await?;
    sleep(Duration::from_millis(600)).await;
    publisher.publish(&1).await?;
    expect_eq("while it is used", take(&mut subscription, 1).await?, [1])?;
    let stopped = Instant::now();
    subscription.stop(soon()).await?;
    until("the queue is gone", async || match publisher.publish(&2).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Unroutable => Ok(true),
        // It was on its way out when the message came.
        Err(error) if error.kind() == ErrorKind::Refused => Ok(false),
        Err(error) => Err(error.into()),
    })
    .await?;
    expect(stopped.elapsed() >= Duration::from_millis(350), "not earlier than it says")
}

async fn a_full_queue_drops_the_oldest(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.max_length = Some(3);
    queue.overflow = Some(Overflow::DropHead);
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    let mut graveyard = subscribe(&broker, &dead, 10).await?;
    fill(&broker, &queue, 0..5).await?;
    for wanted in [0, 1] {
        let letter = next(&mut graveyard).await?;
        expect_eq("the dead letter", number(&letter)?, wanted)?;
        let reason = death_reason(&letter.message().headers);
        expect_eq("the reason", reason.as_deref(), Some("maxlen"))?;
        letter.settle(Outcome::Ack);
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 3).await?, [2, 3, 4])
}

/// P03
async fn a_full_queue_refuses_the_newest(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.max_length = Some(2);
    queue.overflow = Some(Overflow::RejectPublish);
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    let outcomes = publisher.publish_all(&[0, 1, 2, 3]).await;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        if at < 2 {
            outcome?;
        } else {
            expect_error(format_args!("message {at}"), outcome, &[ErrorKind::Refused])?;
        }
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 2).await?, [0, 1])?;
    until("there is room again", async || Ok(ready(&broker, &queue).await? == 0)).await?;
    publisher.publish(&4).await?;
    expect_eq("what comes next", take(&mut subscription, 1).await?, [4])
}

async fn a_queue_can_be_limited_in_bytes(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    // Three bodies of a thousand bytes each, and not a fourth. Some count headers, too: those are
    // short beside what is left.
    queue.max_bytes = Some(3999);
    let publisher = to_queue::<Raw>(&broker, &queue).await?;
    for number in 10..15 {
        publisher.publish(&Raw::new("application/json", format!("{number:>1000}"))?).await?;
    }
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 3).await?, [12, 13, 14])
}

async fn raw_arguments_reach_the_broker(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.arguments.insert("x-max-length", 1)?;
    fill(&broker, &queue, 0..4).await?;
    let mut named = queue.clone();
    named.arguments = Table::new();
    named.max_length = Some(1);
    declare(&broker, &[], &[&named], &[]).await?;
    let mut subscription = subscribe(&broker, &queue, 10).await?;
    expect_eq("what is left", take(&mut subscription, 1).await?, [3])
}

async fn the_higher_priority_comes_first(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.max_priority = Some(5);
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    publisher.publish(&0).await?;
    for (number, priority) in [(11, 1), (51, 5), (31, 3), (12, 1), (52, 5), (99, 9)] {
        publisher.message(&number)?.priority(priority).publish().await?;
    }
    let found = contents(&broker, &queue).await?;
    // What is higher than the highest is as high as the highest.
    expect_eq("the order", found, [51, 52, 99, 31, 11, 12, 0])
}

async fn one_consumer_at_a_time_is_active(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    queue.single_active_consumer = true;
    let publisher = to_queue_with::<u32>(&broker, &queue, PublisherOptions::new()).await?;
    let mut active = subscribe(&broker, &queue, 1).await?;
    let mut waiting = subscribe(&broker, &queue, 1).await?;
    for number in 0..20 {
        publisher.publish(&number).await?;
    }
    // All of them, one by one: nothing is left that the other could have got.
    expect_eq("the active one", take(&mut active, 20).await?, (0..20).collect::<Vec<u32>>())?;
    active.stop(soon()).await?;
    publisher.publish(&20).await?;
    expect_eq("its successor", take(&mut waiting, 1).await?, [20])
}

/// K12
async fn a_delivery_limit_ends_a_message(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let dead = stage.queue("dead")?;
    let mut queue = stage.queue("q")?;
    queue.kind = QueueKind::Replicated;
    queue.delivery_limit = Some(2);
    queue.dead_letter = dead_letter_to(&dead);
    declare(&broker, &[], &[&dead, &queue], &[]).await?;
    fill(&broker, &queue, [1]).await?;
    let mut subscription = subscribe(&broker, &queue, 1).await?;
    let mut graveyard = subscribe(&broker, &dead, 1).await?;
    let mut deliveries = 0;
    let letter = loop {
        tokio::select! {
            letter = next(&mut graveyard) => break letter?,
            delivery = next(&mut subscription) => {
                deliveries += 1;
                expect(deliveries < 10, "an end of the deliveries")?;
                delivery?.settle(Outcome::Requeue);
            }
        }
    };
    expect_eq("how often it was delivered", deliveries, 3)?;
    expect_eq("the dead letter", number(&letter)?, 1)?;
    let reason = death_reason(&letter.message().headers);
    expect_eq("the reason", reason.as_deref(), Some("delivery_limit"))?;
    letter.settle(Outcome::Ack);
    Ok(())
}

async fn dead_letters_may_have_a_key_of_their_own(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let exchange = stage.exchange("dead", ExchangeKind::Direct)?;
    let (by_own, by_theirs) = (stage.queue("by-own")?, stage.queue("by-theirs")?);
    let (mut own, mut theirs) = (stage.queue("own")?, stage.queue("theirs")?);
    let dead_letter =
        |routing_key| Some(enoki_core::DeadLetter { exchange: exchange.name.clone(), routing_key });
    own.dead_letter = dead_letter(Some(ShortStr::from_static("own")));
    theirs.dead_letter = dead_letter(None);
    let bindings =
        [bind(&exchange, &by_own, "own")?, bind(&exchange, &by_theirs, theirs.name.as_str())?];
    let queues = [&by_own, &by_theirs, &own, &theirs];
    declare(&broker, &[&exchange], &queues, &bindings).await?;
    for (number, queue, letters) in [(1, &own, &by_own), (2, &theirs, &by_theirs)] {
        fill(&broker, queue, [number]).await?;
        let mut subscription = subscribe(&broker, queue, 1).await?;
        let mut graveyard = subscribe(&broker, letters, 1).await?;
        next(&mut subscription).await?.settle(Outcome::Reject);
        expect_eq("the dead letter", take(&mut graveyard, 1).await?, [number])?;
    }
    Ok(())
}
