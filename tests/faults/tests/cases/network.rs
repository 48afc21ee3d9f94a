//! Networks that break, and what works again afterwards.

use std::time::{Duration, Instant};

use enoki::{
    ErrorKind,
    broker::BrokerOptions,
    publish::PublisherOptions,
    topology::{QueueSpec, Topology},
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use enoki_faults::proxy::{Act, Cut, Direction, Door, Flow, Kind};
use tokio::time::timeout;

use crate::{
    stage::{Checked, Stage, expect},
    steps::{CALM, PATIENCE, Pair, SLACK, expect_stored, next, publisher, soon},
};

/// Seconds between heartbeats, where a silence has to be found soon.
const BEAT: u16 = 5;

/// When a silence has to be found at the latest.
const FOUND_WITHIN: Duration = Duration::from_secs(2 * BEAT as u64 + 1);

/// How soon it has to work again, when the network does: the first pause of the supervisor, and some.
const BACK_WITHIN: Duration = Duration::from_secs(2);

async fn an_idle_connection_ends(stage: Stage, cut: Cut) -> Checked {
    let mut pair = Pair::open(&stage, CALM).await?;
    for number in 1..4 {
        stage.proxy.cut(cut);
        let began = Instant::now();
        pair.round(number).await?;
        let took = began.elapsed();
        expect(took < BACK_WITHIN + SLACK, format!("it took {took:?} to work again"))?;
    }
    Ok(())
}

pub(crate) async fn r01_a_reset_of_idle_connections_costs_nothing(stage: Stage) -> Checked {
    an_idle_connection_ends(stage, Cut::Reset).await
}

pub(crate) async fn r02_an_end_of_idle_connections_costs_nothing(stage: Stage) -> Checked {
    an_idle_connection_ends(stage, Cut::Fin).await
}

async fn a_frame_is_cut(stage: Stage, cut: Cut) -> Checked {
    let mut pair = Pair::open(&stage, CALM).await?;
    let mut number = 0;
    for (direction, kind) in [
        (Direction::ToBroker, Kind::Publish),
        (Direction::FromBroker, Kind::Confirm),
        (Direction::FromBroker, Kind::Delivery),
        (Direction::ToBroker, Kind::Settlement),
    ] {
        let armed = stage.proxy.arm(direction, kind, 1, Act::CutInside(cut));
        number += 1;
        pair.round(number).await?;
        expect(armed.fired().await, format!("no {kind:?} came by"))?;
        number += 1;
        pair.round(number).await?;
    }
    Ok(())
}

pub(crate) async fn r01_a_reset_inside_a_frame_costs_nothing(stage: Stage) -> Checked {
    a_frame_is_cut(stage, Cut::Reset).await
}

pub(crate) async fn r02_an_end_inside_a_frame_costs_nothing(stage: Stage) -> Checked {
    a_frame_is_cut(stage, Cut::Fin).await
}

async fn a_login_is_cut(stage: Stage, cut: Cut) -> Checked {
    for act in [Act::Cut(cut), Act::CutInside(cut)] {
        let armed = stage.proxy.arm(Direction::FromBroker, Kind::Opened, 1, act);
        let began = Instant::now();
        let at_once = BrokerOptions::new().reach_within(Duration::ZERO);
        let connecting = enoki::connect_with(stage.url(CALM), at_once).await;
        let error = connecting.err().ok_or("it logged in")?;
        expect(error.kind() == ErrorKind::Connection, format!("{error:?}"))?;
        expect(error.is_transient(), format!("it is not worth another try: {error:?}"))?;
        expect(began.elapsed() < SLACK, format!("it took {:?}", began.elapsed()))?;
        expect(armed.fired().await, "the login never got that far")?;
        // The same again, with some patience.
        let armed = stage.proxy.arm(Direction::FromBroker, Kind::Opened, 1, act);
        let options = BrokerOptions::new().reach_within(PATIENCE);
        let broker = enoki::connect_with(stage.url(CALM), options).await?;
        expect(armed.fired().await, "the login never got that far")?;
        broker.close(soon()).await;
    }
    Ok(())
}

pub(crate) async fn r01_a_reset_of_a_login_is_told_or_tried_again(stage: Stage) -> Checked {
    a_login_is_cut(stage, Cut::Reset).await
}

pub(crate) async fn r02_an_end_of_a_login_is_told_or_tried_again(stage: Stage) -> Checked {
    a_login_is_cut(stage, Cut::Fin).await
}

pub(crate) async fn r03_a_broker_that_hears_nothing_is_left_and_nothing_is_lost(
    stage: Stage,
) -> Checked {
    let mut pair = Pair::open(&stage, BEAT).await?;
    stage.proxy.flow(Direction::ToBroker, Flow::held());
    let began = Instant::now();
    let publishing = pair.publisher.enqueue(&1).await?;
    // On AMQP 0-9-1 the broker misses the heartbeats, and ends the connections; on AMQP 1.0 it would do
    // so minutes later, and this side misses its answers.
    pair.until_broken().await?;
    let found = began.elapsed();
    expect(found < FOUND_WITHIN + SLACK, format!("it was found after {found:?}"))?;
    stage.proxy.heal().await;
    timeout(PATIENCE, publishing).await??;
    pair.take(1).await?;
    pair.round(3).await
}

pub(crate) async fn r04_a_broker_that_falls_silent_is_left_and_nothing_is_lost(
    stage: Stage,
) -> Checked {
    let mut pair = Pair::open(&stage, BEAT).await?;
    let other = stage.broker_beating(BEAT).await?;
    stage.proxy.flow(Direction::FromBroker, Flow::held());
    let began = Instant::now();
    let publishing = pair.publisher.enqueue(&1).await?;
    // Closing has its deadline, also where the broker does not answer.
    let deadline = Duration::from_secs(1);
    other.close(deadline).await;
    let closing = began.elapsed();
    expect(closing < deadline + SLACK, format!("closing took {closing:?}"))?;
    pair.until_broken().await?;
    let found = began.elapsed();
    expect(found < FOUND_WITHIN + SLACK, format!("it was found after {found:?}"))?;
    let heartbeat = Duration::from_secs(u64::from(BEAT));
    expect(found > heartbeat, format!("it was given up after {found:?}"))?;
    stage.proxy.heal().await;
    let healed = Instant::now();
    timeout(PATIENCE, publishing).await??;
    pair.take(1).await?;
    pair.round(2).await?;
    // One login may hang in the hole until its own deadline.
    let back = healed.elapsed();
    expect(back < Duration::from_secs(15) + SLACK, format!("it took {back:?} to work again"))
}

pub(crate) async fn r08_a_partition_loses_nothing(stage: Stage) -> Checked {
    let mut pair = Pair::open(&stage, BEAT).await?;
    for (number, is_found) in [(1, false), (2, true)] {
        for direction in Direction::BOTH {
            stage.proxy.flow(direction, Flow::held());
        }
        stage.proxy.door(Door::Hanging).await;
        let publishing = pair.publisher.enqueue(&number).await?;
        if is_found {
            pair.until_broken().await?;
            // A network that comes back does not know the old connections any more.
            stage.proxy.cut(Cut::Reset);
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        stage.proxy.heal().await;
        timeout(PATIENCE, publishing).await??;
        pair.take(number).await?;
    }
    pair.round(3).await
}

pub(crate) async fn r17_what_was_deleted_stays_away_and_what_was_exclusive_comes_back(
    stage: Stage,
) -> Checked {
    let broker = stage.broker().await?;
    let (mut mine, deleted, kept) =
        (stage.queue("mine")?, stage.queue("deleted")?, stage.queue("kept")?);
    mine.exclusive = true;
    mine.expires = None;
    let of = |queue: &QueueSpec| queue.clone().of::<u32>();
    let topology =
        Topology::new().with_queue(&of(&mine)).with_queue(&of(&deleted)).with_queue(&of(&kept));
    broker.declare(&topology).await?;
    broker.apply(&Change::DeleteQueue(deleted.name.clone())).await?;
    for _ in 0..2 {
        let mut health = broker.health();
        let opened = health.borrow().consuming_opened;
        stage.proxy.cut(Cut::Reset);
        let opens_again = health.wait_for(|health| health.consuming_opened > opened);
        timeout(PATIENCE, opens_again).await??;
        // What needs the connection now finds what there was.
        let back = timeout(PATIENCE, async {
            loop {
                match broker.queue_status(&of(&mine)).await {
                    // The broker may not have noticed yet that the old connection is gone.
                    Err(error) if error.is_transient() => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => return other,
                }
            }
        });
        back.await??;
        broker.queue_status(&of(&kept)).await?;
        let error = broker.queue_status(&of(&deleted)).await.err().ok_or("it is there again")?;
        expect(error.kind() == ErrorKind::NotFound, format!("{error:?}"))?;
    }
    Ok(())
}

pub(crate) async fn r30_a_runtime_that_goes_away_takes_its_connections_along(
    stage: Stage,
) -> Checked {
    let queue = stage.queue("runtimes")?;
    let url = stage.url(CALM);
    // One with a single thread, and one with two, at the same time, each dropped in the middle.
    let dropped = |threads: usize, number: u32| {
        let (queue, url) = (queue.clone(), url.clone());
        std::thread::spawn(move || -> Checked {
            let runtime = if threads == 1 {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?
            } else {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(threads).enable_all().build()?
            };
            let kept = runtime.block_on(async {
                let broker = connect_patiently(&url).await?;
                let publisher = publisher(&broker, &queue, PublisherOptions::new()).await?;
                publisher.publish(&number).await?;
                let mut deliveries = broker.subscribe(&queue.of::<u32>(), 1).await?;
                let held = next(&mut deliveries).await?;
                Checked::Ok((broker, publisher, deliveries, held))
            })?;
            drop(runtime);
            // What is left of them has no runtime any more, and does not mind.
            drop(kept);
            Ok(())
        })
    };
    let threads = [dropped(1, 1), dropped(2, 2)];
    let joined = tokio::task::spawn_blocking(|| threads.map(|thread| thread.join()));
    for ended in timeout(PATIENCE, joined).await.map_err(|_| "it hangs")?? {
        ended.map_err(|_| "it panicked")??;
    }
    // Both connections of each are gone, and what was not settled is in the queue.
    timeout(PATIENCE, stage.proxy.until(|traffic| traffic.open == 0)).await?;
    expect_stored(&stage, &queue, 2).await.map(drop)
}
