//! Where messages go: exchanges of every kind, and bindings.

use enoki_core::{
    BindingSpec, Capability, Destination, ErrorKind, ExchangeKind, PublisherOptions, RouteSpec,
    Value, transport::Change,
};

use crate::{
    case::cases,
    expect::{Failed, expect_eq, expect_error},
    stage::Stage,
    steps::{bind, contents, declare, gone, topology},
};

cases! { "topology":
    a_direct_exchange_routes_by_the_exact_key [DirectExchanges],
    a_fanout_exchange_routes_to_every_queue [FanoutExchanges],
    a_topic_exchange_routes_by_pattern [TopicExchanges],
    a_headers_exchange_routes_by_all_or_any [HeadersExchanges],
    two_bindings_that_match_make_one_copy [Exchanges],
    an_exchange_feeds_another [Exchanges],
    exchanges_that_feed_each_other_route_once [Exchanges],
    an_alternate_exchange_gets_what_is_unroutable [Exchanges, UnroutableDetection],
    the_default_exchange_routes_by_the_name_of_the_queue,
    unbinding_stops_the_flow [Exchanges, UnroutableDetection],
    an_internal_exchange_refuses_publishers [Exchanges],
    an_auto_delete_exchange_goes_with_its_last_binding [Exchanges],
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

/// Publishes with every key, and compares the messages that each queue got.
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
    // A mandatory message needs a broker that would tell that no queue gets it.
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
