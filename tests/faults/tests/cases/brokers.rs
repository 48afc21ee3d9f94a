//! Brokers that are frozen, killed, restarted, short of memory, or administered under a program.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use enoki::{
    Broker, ErrorKind, Outcome, Publisher,
    broker::{BrokerHealth, BrokerOptions, Health},
    publish::PublisherOptions,
};
use enoki_faults::{
    broker_process::Alarm,
    patience::connect_patiently,
    proxy::{Cut, Direction, Door, Kind},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    stage::{Checked, Stage, expect},
    steps::{CALM, LONG, PATIENCE, Pair, SLACK, next, publisher, soon},
};

/// What a broker takes to come back, and what a program takes to find it.
const BACK: Duration = PATIENCE;

async fn an_alarm(stage: Stage, alarm: Alarm) -> Checked {
    let process = stage.process()?;
    // A broker of AMQP 1.0 goes on to answer, so its connections live however often it is asked.
    let beat = if stage.is_amqp091() { CALM } else { 3 };
    let mut pair = Pair::open(&stage, beat).await?;
    let other = stage.broker_beating(beat).await?;
    let queue = stage.queue("alarmed")?;
    let within = Duration::from_millis(500);
    let hasty = publisher(&other, &queue, PublisherOptions::new()).await?;
    hasty.publish(&0).await?;
    let connections = stage.proxy.traffic().accepted;
    // Of these some are waiting to be handled when the alarm comes.
    let before: Vec<u32> = (1..20).collect();
    for outcome in pair.publisher.publish_all(&before).await {
        outcome?;
    }
    process.alarm(alarm).await?;

    // Deadlines hold. The first may still be confirmed: the broker stops reading when it has read.
    let mut kinds = BTreeSet::new();
    for number in 1..4 {
        let began = Instant::now();
        let outcome = hasty.message(&number)?.timeout(within).publish().await;
        let took = began.elapsed();
        expect(took < within + SLACK, format!("it was given up after {took:?}"))?;
        if let Err(error) = outcome {
            let out_of_time = [ErrorKind::Indeterminate, ErrorKind::Timeout];
            expect(out_of_time.contains(&error.kind()), format!("{error:?}"))?;
            kinds.insert(error.to_string());
        }
    }
    expect(!kinds.is_empty(), "everything was confirmed in spite of the alarm")?;
    // It is seen, and named.
    let blocked = |health: &BrokerHealth| matches!(health.publishing, Health::Blocked { .. });
    timeout(PATIENCE, other.health().wait_for(blocked))
        .await
        .map_err(|_| format!("never blocked, but {}", *other.health().borrow()))??;
    let named = kinds.iter().any(|error| error.contains("the broker blocks the connection"));
    expect(named, format!("no error names the alarm: {kinds:?}"))?;

    // Consumers go on; whether what they settle reaches the broker is seen at the end, since a broker
    // of AMQP 1.0 answers no question during an alarm.
    for number in before {
        pair.take(number).await?;
    }
    pair.deliveries.stop(soon()).await?;

    // Closing is bounded.
    let waiting: Vec<_> = {
        let mut waiting = Vec::new();
        for number in 100..150 {
            waiting.push(pair.publisher.enqueue(&number).await?);
        }
        waiting
    };
    let began = Instant::now();
    other.close(within).await;
    let took = began.elapsed();
    expect(took < within + Duration::from_secs(1) + SLACK, format!("closing took {took:?}"))?;

    // And nothing is lost when it is over, nor does anything come back that was settled.
    // It lasts longer than a connection that was thought to be dead.
    let longer = if stage.is_amqp091() { 3 } else { 2 * u64::from(beat) + 1 };
    tokio::time::sleep(Duration::from_secs(longer)).await;
    process.clear(alarm).await?;
    for confirm in waiting {
        timeout(PATIENCE, confirm).await.map_err(|_| "no outcome after the alarm")??;
    }
    pair.until("ready", |health| health.publishing.is_ready()).await?;
    let accepted = stage.proxy.traffic().accepted;
    expect(accepted == connections, "a connection was lost to the alarm")?;
    let mine = pair.queue.clone().of::<u32>();
    let found = pair.broker.queue_status(&mine).await?.messages;
    expect(found == 50, format!("{found} of 50 are stored"))
}

pub(crate) async fn p13_p15_a_memory_alarm_holds_publishers_and_no_consumer(
    stage: Stage,
) -> Checked {
    an_alarm(stage, Alarm::Memory).await
}

pub(crate) async fn p14_p15_a_disk_alarm_holds_publishers_and_no_consumer(stage: Stage) -> Checked {
    an_alarm(stage, Alarm::Disk).await
}

pub(crate) async fn p16_an_alarm_before_connecting_or_that_flaps_loses_nothing(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    let queue = stage.queue("p16")?;
    let early = stage.broker().await?;
    // It declares the queue.
    drop(publisher(&early, &queue, PublisherOptions::new()).await?);
    process.alarm(Alarm::Memory).await?;
    // A broker with an alarm still lets people in.
    let broker = timeout(PATIENCE, stage.broker()).await??;
    let publisher = {
        let broker = broker.clone();
        let route = enoki::topology::RouteSpec::<u32>::to_queue(queue.name.as_str())?;
        async move {
            let publisher = broker.publisher(route).await?;
            publisher.publish(&0).await?;
            Ok::<_, enoki::Error>(publisher)
        }
    };
    let publishing = tokio::spawn(publisher);
    let held = Duration::from_millis(300);
    tokio::time::sleep(held).await;
    expect(!publishing.is_finished(), "it was confirmed in spite of the alarm")?;
    process.clear(Alarm::Memory).await?;
    let publisher = timeout(PATIENCE, publishing).await???;
    // Twenty times on and off, within one call: each call takes a second.
    let flapping = process.eval(
        "[begin rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), timer:sleep(50), \
         rabbit_alarm:clear_alarm({resource_limit, memory, node()}), timer:sleep(50) end \
         || _ <- lists:seq(1, 20)].",
    );
    let numbers: Vec<u32> = (1..500).collect();
    let publishing = async {
        for some in numbers.chunks(25) {
            for outcome in publisher.publish_all(some).await {
                outcome?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, enoki::Error>(())
    };
    let both = async { tokio::join!(flapping, publishing) };
    let (flapped, published) = timeout(PATIENCE, both).await?;
    flapped?;
    published?;
    let found = broker.queue_status(&queue.of::<u32>()).await?.messages;
    expect(found == 500, format!("{found} of 500 are stored"))
}

pub(crate) async fn r05_a_broker_that_freezes_is_left_and_found_again(stage: Stage) -> Checked {
    const BEAT: u16 = 5;
    let process = stage.process()?;
    let mut pair = Pair::open(&stage, BEAT).await?;
    pair.publisher.publish(&1).await?;
    let held = next(&mut pair.deliveries).await?;
    process.freeze().await?;
    let began = Instant::now();
    let publishing = pair.publisher.enqueue(&2).await?;
    let broken = pair.until_broken().await;
    let found = began.elapsed();
    process.thaw().await?;
    broken?;
    let promised = Duration::from_secs(u64::from(BEAT) * 2 + 1);
    expect(found < promised + SLACK, format!("it was found after {found:?}"))?;
    timeout(BACK, publishing).await??;
    pair.until_subscribed(2).await?;
    // What the old connection delivered is delivered by the next.
    held.settle(Outcome::Ack);
    let mut came = BTreeSet::new();
    while came.len() < 2 {
        let delivery = next(&mut pair.deliveries).await?;
        let number: u32 = delivery.decode()?;
        expect(number != 1 || delivery.redelivered(), "it does not say that it came before")?;
        came.insert(number);
        delivery.settle(Outcome::Ack);
    }
    expect(came == BTreeSet::from([1, 2]), format!("{came:?} came"))?;
    pair.round(3).await
}

/// Publishes for as long as something happens to the broker, and finds everything afterwards.
async fn nothing_is_lost(
    stage: &Stage,
    harm: impl AsyncFnOnce() -> std::io::Result<()>,
) -> Checked<Pair> {
    // Before, and at least.
    const SOME: u32 = 500;
    let mut pair = Pair::open(stage, CALM).await?;
    // What the broker forgets because it was declared just now is not what this is about.
    stage.process()?.write_metadata().await?;
    let publisher = pair.publisher.clone();
    let before = stage.proxy.traffic().frames(Direction::ToBroker, Kind::Publish);
    let (over, harmed) = watch::channel(false);
    let (published, mut last) = watch::channel(None);
    let publishing = tokio::spawn(async move {
        let (mut failed, mut number) = (Vec::new(), 0);
        while number < 2 * SOME || !*harmed.borrow() {
            let some: Vec<u32> = (number + 1..=number + 50).collect();
            number += 50;
            failed.extend(publisher.publish_all(&some).await.into_iter().filter_map(Result::err));
            // There is enough to do until it is over.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        published.send_replace(Some(number));
        failed
    });
    // In the middle of it.
    let under_way = stage.proxy.until(|traffic| {
        traffic.frames(Direction::ToBroker, Kind::Publish) >= before + u64::from(SOME)
    });
    timeout(PATIENCE, under_way).await?;
    let mut handled = BTreeSet::new();
    let handling = async {
        loop {
            let all = *last.borrow_and_update();
            if all.is_some_and(|all| (1..=all).all(|number| handled.contains(&number))) {
                return Checked::Ok(());
            }
            tokio::select! {
                delivery = pair.deliveries.next() => {
                    let delivery = delivery?.ok_or("the deliveries ended")?;
                    let number: u32 = delivery.decode()?;
                    handled.insert(number);
                    delivery.settle(Outcome::Ack);
                }
                changed = last.changed(), if all.is_none() => changed?,
            }
        }
    };
    let harming = async {
        let began = Instant::now();
        let harmed = harm().await;
        over.send_replace(true);
        harmed.map(|()| began.elapsed())
    };
    let (harmed, handling) = tokio::join!(harming, timeout(LONG, handling));
    let took = harmed?;
    let failed = timeout(LONG, publishing).await??;
    let (count, first) = (failed.len(), failed.first());
    let health = pair.broker.health().borrow().clone();
    let words = format!("the harm took {took:?}, {count} failed: {first:?}; and now {health}");
    expect(failed.is_empty(), words)?;
    let all = last.borrow().unwrap_or_default();
    match handling {
        Ok(handling) => handling?,
        Err(_) => {
            let lost: Vec<_> = (1..=all).filter(|number| !handled.contains(number)).collect();
            let (count, first, last) = (lost.len(), lost.first(), lost.last());
            return Err(format!(
                "{count} of {all} were never handled, the first {first:?} and the last {last:?}"
            )
            .into());
        }
    }
    pair.round(all + 1).await?;
    Ok(pair)
}

pub(crate) async fn r09_a_broker_that_restarts_loses_nothing(stage: Stage) -> Checked {
    let process = stage.process()?;
    let restart = async || {
        process.ctl(&["stop_app"]).await?;
        process.ctl(&["start_app"]).await.map(drop)
    };
    nothing_is_lost(&stage, restart).await.map(drop)
}

pub(crate) async fn r10_p25_a_broker_that_is_killed_loses_nothing_that_was_confirmed(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    // No consumer takes these.
    let queue = stage.queue("p25")?;
    let broker = stage.broker().await?;
    let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
    let numbers: Vec<u32> = (0..1000).collect();
    for outcome in publisher.publish_all(&numbers).await {
        outcome?;
    }
    let names = [queue.name.clone(), stage.queue("pair")?.name];
    let host = stage.host()?;
    let kill = async || {
        process.kill().await?;
        // A queue that the broker has forgotten would be declared anew, and its messages would seem to be
        // lost: so this looks before it lets a client in.
        stage.proxy.door(Door::Refusing).await;
        process.restart().await?;
        let kept = process.ctl(&["list_queues", "--silent", "-p", host, "name"]).await?;
        stage.proxy.heal().await;
        match names.iter().find(|name| !kept.lines().any(|kept| kept == name.as_str())) {
            Some(name) => Err(std::io::Error::other(format!(
                "killed, the broker has forgotten the queue {:?}, which it had written down",
                name.as_str()
            ))),
            None => Ok(()),
        }
    };
    nothing_is_lost(&stage, kill).await?;
    let mut deliveries = broker.subscribe(&queue.of::<u32>(), 100).await?;
    for number in numbers {
        let delivery = next(&mut deliveries).await?;
        let came: u32 = delivery.decode()?;
        expect(came == number, format!("{came} came instead of {number}"))?;
        delivery.settle(Outcome::Ack);
    }
    Ok(())
}

pub(crate) async fn r28_a_connection_closed_by_an_administrator_says_so_and_comes_back(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    let mut pair = Pair::open(&stage, CALM).await?;
    let mut health = pair.broker.health();
    let reasons = async {
        let broken = |health: &enoki::broker::BrokerHealth| {
            matches!(health.consuming, Health::Reconnecting { .. })
        };
        let health = health.wait_for(broken).await?.to_string();
        Checked::Ok(health)
    };
    let (closed, said) = tokio::join!(process.close_connections(), timeout(PATIENCE, reasons));
    closed?;
    let said = said??;
    expect(said.contains("a test wants it so"), format!("it does not say why: {said}"))?;
    pair.round(1).await
}

pub(crate) async fn r28_a_virtual_host_that_is_deleted_is_final(stage: Stage) -> Checked {
    let process = stage.process()?;
    let name = stage.queue("host")?.name;
    process.ctl(&["add_vhost", &name]).await?;
    process.ctl(&["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]).await?;
    let broker = soon_convinced(stage.url_of_host(&name)?).await?;
    let publisher = publisher(&broker, &stage.queue("r28")?, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    process.ctl(&["delete_vhost", &name]).await?;
    let error = refused(&publisher).await?;
    let expected = [ErrorKind::NotFound, ErrorKind::Denied];
    expect(expected.contains(&error.kind()), format!("{error:?}"))?;
    expect(error.to_string().contains(name.as_str()), format!("it names no virtual host: {error}"))
}

pub(crate) async fn r28_a_user_who_is_deleted_is_denied_for_good(stage: Stage) -> Checked {
    let process = stage.process()?;
    let name = stage.queue("user")?.name;
    process.ctl(&["add_user", &name, "password"]).await?;
    process.ctl(&["set_permissions", "-p", stage.host()?, &name, ".*", ".*", ".*"]).await?;
    let broker = soon_convinced(stage.url_of_user(&name, "password")?).await?;
    let publisher = publisher(&broker, &stage.queue("r28")?, PublisherOptions::new()).await?;
    publisher.publish(&1).await?;
    process.ctl(&["delete_user", &name]).await?;
    // Not every broker ends their connections; so they stay until something else does.
    stage.proxy.cut(Cut::Reset);
    let error = refused(&publisher).await?;
    expect(error.kind() == ErrorKind::Denied, format!("{error:?}"))?;
    // Once both connections are given up, nothing tries the login by itself, and a call tries it once.
    let stopped = |health: &Health| matches!(health, Health::Stopped { .. });
    let both = |health: &BrokerHealth| stopped(&health.publishing) && stopped(&health.consuming);
    let mut health = broker.health();
    let given_up = timeout(PATIENCE, health.wait_for(both)).await;
    given_up.map_err(|_| format!("never given up, but {}", *broker.health().borrow()))??;
    let connections = || stage.proxy.traffic().accepted;
    let before = connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let by_itself = connections() - before;
    expect(by_itself == 0, format!("{by_itself} connections that no call asked for"))?;
    for _ in 0..5 {
        expect(publisher.publish(&3).await.is_err(), "it was confirmed")?;
    }
    let asked_for = connections() - before;
    expect(asked_for <= 5, format!("{asked_for} connections for five calls"))
}

/// What an operator does for some seconds ends no program: it goes on trying, says why, and is back.
async fn passes(stage: &Stage, url: String, begin: &[&str], end: &[&str]) -> Checked {
    let process = stage.process()?;
    let broker = connect_patiently(url).await?;
    let queue = stage.queue("pair")?;
    // The broker's tool takes longer on a busy machine than a message has by default.
    let patient = PublisherOptions::new().timeout(PATIENCE);
    let publisher = publisher(&broker, &queue, patient).await?;
    let mut deliveries = broker.subscribe(&queue.clone().of::<u32>(), 10).await?;
    publisher.publish(&1).await?;
    next(&mut deliveries).await?.settle(Outcome::Ack);
    process.ctl(begin).await?;
    stage.proxy.cut(Cut::Reset);
    let mut health = broker.health();
    let is_refused = |health: &BrokerHealth| match &health.consuming {
        Health::Reconnecting { reason } => !reason.to_string().contains("reset"),
        _ => false,
    };
    let said = timeout(PATIENCE, health.wait_for(is_refused)).await??.to_string();
    // More refusals than one, or two: a second is ten tries.
    let publishing = publisher.publish(&2);
    tokio::pin!(publishing);
    let early = timeout(Duration::from_secs(2), &mut publishing).await;
    expect(early.is_err(), format!("it did not wait: {early:?}, and {said}"))?;
    process.ctl(end).await?;
    timeout(PATIENCE, publishing).await??;
    let mut consumer = deliveries.health();
    timeout(PATIENCE, consumer.wait_for(|health| health.health.is_ready())).await??;
    next(&mut deliveries).await?.settle(Outcome::Ack);
    Ok(())
}

pub(crate) async fn r28_a_limit_of_connections_that_is_reached_for_a_while_passes(
    stage: Stage,
) -> Checked {
    let process = stage.process()?;
    let name = stage.queue("host")?.name;
    process.ctl(&["add_vhost", &name]).await?;
    process.ctl(&["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]).await?;
    let limit = |limits| ["set_vhost_limits", "-p", name.as_str(), limits];
    let none = limit(r#"{"max-connections":0}"#);
    let url = stage.url_of_host(&name)?;
    let passed = passes(&stage, url, &none, &limit("{}")).await;
    process.ctl(&["delete_vhost", &name]).await?;
    passed
}

pub(crate) async fn r28_a_password_that_is_another_for_a_while_passes(stage: Stage) -> Checked {
    let process = stage.process()?;
    let name = stage.queue("user")?.name;
    process.ctl(&["add_user", &name, "password"]).await?;
    process.ctl(&["set_permissions", "-p", stage.host()?, &name, ".*", ".*", ".*"]).await?;
    let change = |password| ["change_password", name.as_str(), password];
    let url = stage.url_of_user(&name, "password")?;
    let passed = passes(&stage, url, &change("other"), &change("password")).await;
    process.ctl(&["delete_user", &name]).await?;
    passed
}

/// All connections, five times a second: consumers are cut off while they subscribe, and publishers
/// while they wait for their confirms.
pub(crate) async fn r28_connections_that_are_closed_again_and_again_fail_nothing(
    stage: Stage,
) -> Checked {
    const CLOSES: u32 = 40;
    let process = stage.process()?;
    let pair = Pair::open(&stage, 10).await?;
    let closing = format!(
        "lists:foreach(fun(_) -> \
             rabbit_networking:close_connections(rabbit_networking:connections(), <<\"as often\">>), \
             timer:sleep(200) \
         end, lists:seq(1, {CLOSES}))."
    );
    let Pair { broker: _broker, publisher, mut deliveries, .. } = pair;
    let closing = process.eval(&closing);
    tokio::pin!(closing);
    let mut number = 1;
    let publishing = async {
        loop {
            publisher.publish(&number).await?;
            number += 1;
        }
    };
    let handling = async {
        loop {
            next(&mut deliveries).await?.settle(Outcome::Ack);
        }
    };
    let ended: Checked = tokio::select! {
        closed = &mut closing => closed.map(drop).map_err(Into::into),
        failed = publishing => failed,
        failed = handling => failed,
    };
    ended?;
    timeout(PATIENCE, publisher.publish(&0)).await??;
    loop {
        let delivery = next(&mut deliveries).await?;
        let came: u32 = delivery.decode()?;
        delivery.settle(Outcome::Ack);
        if came == 0 {
            return Ok(());
        }
    }
}

/// A broker handle that believes a refusal after a second.
async fn soon_convinced(url: String) -> enoki::Result<Broker> {
    let options = BrokerOptions::new().give_up_after(Duration::from_secs(1));
    enoki::connect_with(url, options).await
}

/// Publishes until it is refused for good, and says why.
async fn refused(publisher: &Publisher<u32>) -> Checked<enoki::Error> {
    let refused = async {
        loop {
            match publisher.publish(&2).await {
                Err(error) if !error.is_transient() => return error,
                // Until the connection has gone, this may be confirmed, or have no outcome.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    Ok(timeout(PATIENCE, refused).await.map_err(|_| "it is tried again and again")?)
}
