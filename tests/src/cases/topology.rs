//! Exchanges, queues and bindings: declared, found, refused and removed.

use std::time::Duration;

use enoki_core::{
    Capability, DeadLetter, Envelope, ErrorKind, ExchangeKind, ExchangeSpec, Outcome, Overflow,
    PublisherOptions, QueueKind, QueueSpec, RouteSpec, Service, ShortStr, transport::Change,
};
use futures_util::future::{join_all, try_join_all};

use crate::{
    case::cases,
    expect::{Failed, expect, expect_eq, expect_error, expect_says},
    stage::Stage,
    steps::{
        bind, contents, dead_letter_to, declare, fill, gone, hold, next, ready, settle_all, soon,
        subscribe, take, to_queue, topology, until,
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
    a_conflict_disturbs_no_other,
    verifying_finds_what_exists,
    verifying_creates_nothing,
    verifying_compares_arguments [LengthLimit],
    what_is_passive_is_found_by_name_and_never_created,
    dead_letters_to_what_is_missing_are_refused_at_start [DeadLetterRejected, Exchanges],
    dead_letters_to_a_queue_need_nothing_else [DeadLetterRejected],
    an_alternate_exchange_that_is_missing_is_refused_at_start [Exchanges],
    deleting_twice_is_deleting_once,
    a_deleted_queue_takes_its_bindings_along [Exchanges, UnroutableDetection],
    purging_removes_what_is_ready_and_counts_it,
    the_status_counts_messages_and_consumers,
    names_have_at_most_255_bytes,
    names_may_be_in_any_language,
    an_exchange_where_there_are_none_is_refused_by_name without Exchanges,
    an_unknown_kind_of_exchange_is_refused_and_disturbs_no_other [Exchanges],
    an_auto_delete_queue_goes_with_its_last_consumer [AutoDeleteQueues],
    an_exclusive_queue_belongs_to_its_connection [ExclusiveQueues],
    an_exclusive_queue_goes_with_its_connection [ExclusiveQueues],
    each_handle_has_a_temporary_queue_of_its_own [ExclusiveQueues, Exchanges],
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
    // And the other way round: a missing argument differs, too.
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

/// A limit that the broker does not keep is worse than none.
async fn what_a_queue_cannot_be_is_refused_by_name(stage: &Stage) -> Result<(), Failed> {
    type Change = fn(&mut QueueSpec);
    let changes: [(Capability, Change); 7] = [
        (Capability::ReplicatedQueues, |queue| queue.kind = QueueKind::Replicated),
        (Capability::ExclusiveQueues, |queue| queue.exclusive = true),
        (Capability::Expiry, |queue| queue.message_ttl = Some(Duration::from_secs(60))),
        (Capability::LengthLimit, |queue| queue.max_length = Some(10)),
        (Capability::DeadLetter, |queue| {
            queue.dead_letter = Some(DeadLetter::to_queue(queue.name.clone()));
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

/// On AMQP 0-9-1 a failed declaration closes its channel: no sender and no receiver may be on it.
async fn a_conflict_disturbs_no_other(stage: &Stage) -> Result<(), Failed> {
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
    expect_says(&error, "start what declares it first")?;

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

/// Brokers drop dead letters that have no exchange, or no queue of that name, and say nothing of it.
async fn dead_letters_to_what_is_missing_are_refused_at_start(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let mut queue = stage.queue("q")?;
    let exchange = stage.exchange("lost", ExchangeKind::Fanout)?;
    let graveyard = stage.queue("graveyard")?;
    let to_exchange = DeadLetter { exchange: exchange.name.clone(), routing_key: None };
    for (target, dead_letter) in [
        (&exchange.name, to_exchange),
        (&graveyard.name, DeadLetter::to_queue(graveyard.name.clone())),
    ] {
        queue.dead_letter = Some(dead_letter);
        let whole = topology(&[], &[&queue], &[]);
        let options = PublisherOptions::new().declare(whole.clone());
        let route = RouteSpec::<u32>::to_queue(queue.name.as_str())?;
        let service = Service::new("undertaker", stage.broker().await?)
            .consume(&queue.clone().of::<u32>(), async |_: Envelope| {});
        for (what, refused) in [
            ("declare", broker.declare(&whole).await),
            ("subscribe", broker.subscribe(&queue.clone().of::<u32>(), 1).await.map(drop)),
            ("open a publisher", broker.publisher_with(route, options).await.map(drop)),
            ("start a service", service.start().await.map(drop)),
        ] {
            let error = expect_error(what, refused, &[ErrorKind::NotFound])?;
            expect_says(&error, &queue.name)?;
            expect_says(&error, target)?;
            expect_says(&error, "dead letters")?;
        }
        let mut alone = queue.clone();
        alone.passive = true;
        let verified = broker.verify(&topology(&[], &[&alone], &[])).await;
        expect_error("what was refused", verified, &[ErrorKind::NotFound])?;

        // Declared together, or one after the other, the queue is as it should be.
        declare(&broker, &[&exchange], &[&graveyard], &[bind(&exchange, &graveyard, "")?]).await?;
        fill(&broker, &queue, [1]).await?;
        broker.verify(&whole).await?;
        let mut subscription = subscribe(&broker, &queue, 1).await?;
        next(&mut subscription).await?.settle(Outcome::Reject);
        let mut letters = subscribe(&broker, &graveyard, 1).await?;
        expect_eq("the dead letter", take(&mut letters, 1).await?, [1])?;
        subscription.stop(soon()).await?;
        letters.stop(soon()).await?;
        for change in [
            Change::DeleteQueue(graveyard.name.clone()),
            Change::DeleteExchange(exchange.name.clone()),
        ] {
            broker.apply(&change).await?;
        }
        let verified = broker.verify(&whole).await;
        let error = expect_error("verify", verified, &[ErrorKind::NotFound])?;
        expect_says(&error, target)?;
        broker.apply(&Change::DeleteQueue(queue.name.clone())).await?;
    }
    Ok(())
}

/// It is declared with the one that they come from, and gets them by its name.
async fn dead_letters_to_a_queue_need_nothing_else(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let graveyard = stage.queue("graveyard")?;
    let queue = stage.queue("q")?.of::<u32>().dead_letters_to(&graveyard.clone().of::<u32>());
    let mut subscription = broker.subscribe(&queue, 1).await?;
    let route = RouteSpec::<u32>::to_queue(broker.queue_name(&queue)?.as_str())?;
    broker.publisher(route).await?.publish(&1).await?;
    next(&mut subscription).await?.settle(Outcome::Reject);
    let mut letters = subscribe(&broker, &graveyard, 1).await?;
    expect_eq("the dead letter", take(&mut letters, 1).await?, [1])
}

/// Messages would be unroutable that were meant to go there.
async fn an_alternate_exchange_that_is_missing_is_refused_at_start(
    stage: &Stage,
) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let stray = stage.exchange("stray", ExchangeKind::Fanout)?;
    let mut exchange = stage.exchange("x", ExchangeKind::Topic)?;
    exchange.alternate = Some(stray.name.clone());
    let declared = broker.declare(&topology(&[&exchange], &[], &[])).await;
    let opened = broker.publisher(RouteSpec::<u32>::new(&exchange, "key")?).await;
    for refused in [declared, opened.map(drop)] {
        let error = expect_error("without the alternate", refused, &[ErrorKind::NotFound])?;
        expect_says(&error, &exchange.name)?;
        expect_says(&error, &stray.name)?;
    }
    let strays = stage.queue("strays")?;
    declare(&broker, &[&stray, &exchange], &[&strays], &[bind(&stray, &strays, "")?]).await?;
    broker.publisher(RouteSpec::<u32>::new(&exchange, "key")?).await?.publish(&1).await?;
    expect_eq("what went astray", contents(&broker, &strays).await?, [1])
}

async fn deleting_twice_is_deleting_once(stage: &Stage) -> Result<(), Failed> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    fill(&broker, &queue, [1, 2]).await?;
    for _ in 0..3 {
        broker.delete_queue(&queue).await?;
    }
    let verified = broker.verify(&topology(&[], &[&queue], &[])).await;
    expect_error("verify the queue", verified, &[ErrorKind::NotFound])?;
    if stage.can(Capability::Exchanges) {
        let exchange = stage.exchange("x", ExchangeKind::Direct)?;
        declare(&broker, &[&exchange], &[], &[]).await?;
        for _ in 0..3 {
            broker.delete_exchange(&exchange).await?;
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
    broker.delete_queue(&queue).await?;
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
    expect_eq("how many were removed", broker.purge(&queue).await?, 5)?;
    settle_all(held, Outcome::Requeue);
    let mut back = take(&mut subscription, 2).await?;
    back.sort_unstable();
    expect_eq("what was under way", back, [0, 1])?;
    subscription.stop(soon()).await?;
    expect_eq("what is left", contents(&broker, &queue).await?, [0_u32; 0])?;
    let missing = stage.queue("missing")?;
    expect_error("purge", broker.purge(&missing).await, &[ErrorKind::NotFound]).map(drop)
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
    // A name that is more than a name to this broker has to be refused, and not be understood as such.
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
    // A binding to an exchange that was never declared is refused, too.
    let exchange = ExchangeSpec::new(stage.name("x"), ExchangeKind::Topic)?;
    let bound = broker.apply(&Change::Bind(bind(&exchange, &queue, "a.#")?)).await;
    let error = expect_error("a binding", bound, &[ErrorKind::Unsupported])?;
    expect_says(&error, &exchange.name)?;
    fill(&broker, &queue, [1]).await?;
    expect_eq("what still works", contents(&broker, &queue).await?, [1])
}

/// RabbitMQ answers an unknown kind by closing the whole connection.
async fn an_unknown_kind_of_exchange_is_refused_and_disturbs_no_other(
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
