//! `test/test_queue_consumer.py`, and the throughput test of `test/test_rpc.py`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use enoki::{
    Body, Failure, Outcome, Publisher, Service, State,
    consume::{Envelope, Handler},
    context::Context,
    service::Started,
};
use enoki_faults::proxy::{Cut, Door};
use enoki_interop::Checked;
use tokio::sync::{Notify, mpsc, oneshot};

use super::stage::{Stage, contents, heard, in_time, next, same, soon, to_queue};

/// A consumer that is removed is cancelled: what is published then stays in the queue.
pub(crate) async fn lifecycle(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (queue, other) = (stage.queue("q")?, stage.queue("other")?);
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(body): Body<String>| {
        let _ = seen.send(body);
        async {}
    };
    let service = Service::new("test", broker.clone())
        .consume(&queue.clone().of::<String>(), handler.clone())
        .consume(&other.clone().of::<String>(), handler);
    let mut running = service.start().await?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    publisher.publish(&"before".to_owned()).await?;
    same("what is handled", heard(&mut sees).await?, "before")?;
    same("removed", running.remove(&queue.name, soon()).await?, 1)?;
    publisher.publish(&"after".to_owned()).await?;
    to_queue::<String>(&broker, &other).await?.publish(&"another's".to_owned()).await?;
    same("what is handled", heard(&mut sees).await?, "another's")?;
    same("what stays", contents(&broker, &queue).await?, ["\"after\""])?;
    Ok(running.stop(soon()).await?)
}

/// While one consumer sits on its message, the other gets all that come: nothing waits behind it.
pub(crate) async fn prefetch_count(stage: &Stage) -> Checked {
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let finish = Arc::new(Notify::new());
    let mut services = Vec::new();
    for name in ["one", "two"] {
        let (seen, finish) = (seen.clone(), finish.clone());
        let handler = move |Body(body): Body<String>| {
            let finish = finish.clone();
            let sits = body == "m1";
            let _ = seen.send((name, body));
            async move {
                if sits {
                    finish.notified().await;
                }
            }
        };
        let service = Service::new(name, stage.broker().await?);
        let mine = queue.clone().of::<String>();
        services.push(service.consume(&mine, handler.concurrency(1)).start().await?);
    }
    let broker = stage.broker().await?;
    let publisher = to_queue::<String>(&broker, &queue).await?;
    publisher.publish(&"m1".to_owned()).await?;
    let (sitting, _) = heard(&mut sees).await?;
    for body in ["m2", "m3", "m4", "m5"] {
        publisher.publish(&body.to_owned()).await?;
        let (name, handled) = heard(&mut sees).await?;
        same("what is handled", handled, body)?;
        same("by the one that sits", name == sitting, false)?;
    }
    finish.notify_one();
    for service in services {
        service.stop(soon()).await?;
    }
    same("what is left", contents(&broker, &queue).await?, [""; 0])
}

/// Handlers that wait for answers do not keep the answers from coming, with as many handlers as
/// may run.
pub(crate) async fn deadlock_due_to_slow_workers(stage: &Stage) -> Checked {
    type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<()>>>>;

    #[derive(Clone)]
    struct Asking {
        questions: Publisher<u32>,
        waiting: Waiting,
        done: mpsc::UnboundedSender<u32>,
    }

    async fn ask(State(asking): State<Asking>, Body(number): Body<u32>) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        asking.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        asking.questions.publish(&number).await?;
        answered.await?;
        asking.done.send(number)?;
        Ok(())
    }

    async fn answer(
        State(to): State<Publisher<u32>>,
        Body(number): Body<u32>,
    ) -> Result<(), Failure> {
        to.publish(&number).await?;
        Ok(())
    }

    let broker = stage.broker().await?;
    let (one, two) = (stage.queue("one")?, stage.queue("two")?);
    let (questions, answers) = (stage.queue("questions")?, stage.queue("answers")?);
    let helper = Service::new("helper", broker.clone())
        .state(to_queue::<u32>(&broker, &answers).await?)
        .consume(&questions.clone().of::<u32>(), answer);
    let helper = helper.start().await?;
    let waiting = Waiting::default();
    let (done, mut are_done) = mpsc::unbounded_channel();
    let questions = to_queue::<u32>(&broker, &questions).await?;
    let asking = Asking { questions, waiting: waiting.clone(), done };
    let service = Service::new("test", broker.clone())
        .workers(2)
        .state(asking)
        .consume(&one.clone().of::<u32>(), ask)
        .consume(&two.clone().of::<u32>(), ask);
    let running = service.start().await?;
    let mut answers = broker.subscribe(&answers.of::<u32>(), 1).await?;
    let listening = tokio::spawn(async move {
        while let Ok(Some(answer)) = answers.next().await {
            let number = answer.decode::<u32>().unwrap_or_default();
            let waits = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            waits.map(|waits| waits.send(()));
            answer.settle(Outcome::Ack);
        }
    });
    let (one, two) = (to_queue::<u32>(&broker, &one).await?, to_queue::<u32>(&broker, &two).await?);
    for number in 0..4 {
        one.publish(&number).await?;
        two.publish(&(number + 10)).await?;
    }
    let mut handled = Vec::new();
    for _ in 0..8 {
        handled.push(heard(&mut are_done).await?);
    }
    handled.sort_unstable();
    same("what is handled", handled, [0, 1, 2, 3, 10, 11, 12, 13])?;
    running.stop(soon()).await?;
    listening.abort();
    Ok(helper.stop(soon()).await?)
}

/// One worker handles one message after the other, without a pause that anybody asked for.
pub(crate) async fn prefetch_throughput(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(number): Body<u32>| {
        let _ = seen.send(number);
        async {}
    };
    let service = Service::new("test", broker.clone())
        .workers(1)
        .consume(&queue.clone().of::<u32>(), handler.concurrency(1));
    let running = service.start().await?;
    let publisher = to_queue::<u32>(&broker, &queue).await?;
    for outcome in publisher.publish_all(&[1, 2, 3, 4, 5]).await {
        outcome?;
    }
    for number in 1..=5 {
        same("what is handled", heard(&mut sees).await?, number)?;
    }
    Ok(running.stop(soon()).await?)
}

/// A service that finds no broker can be stopped, however the broker is not there.
pub(crate) async fn stop_while_starting(stage: &Stage) -> Checked {
    for door in [Door::Refusing, Door::Hanging] {
        let broker = stage.behind_the_proxy().await?;
        // The connection that consumes is opened when a consumer needs it.
        stage.proxy().door(door).await;
        let mut health = broker.health();
        let service = Service::new("test", broker)
            .consume(&stage.queue("one")?.of::<String>(), async |_: Body<String>| {})
            .consume(&stage.queue("two")?.of::<String>(), async |_: Body<String>| {});
        let signal = async move {
            let tries = |health: &enoki::broker::BrokerHealth| {
                matches!(health.consuming, enoki::broker::Health::Connecting { .. })
            };
            let _ = health.wait_for(tries).await;
        };
        let started = in_time("a start that is stopped", service.start_until(signal)).await??;
        same("stopped", matches!(started, Started::Stopped), true)?;
        stage.proxy().door(Door::Open).await;
    }
    Ok(())
}

/// A socket that breaks is replaced, and consuming goes on.
pub(crate) async fn reconnect_on_socket_error(stage: &Stage) -> Checked {
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(body): Body<String>, _: Context| {
        let _ = seen.send(body);
        async {}
    };
    let service = Service::new("test", stage.behind_the_proxy().await?)
        .consume(&queue.clone().of::<String>(), handler);
    let running = service.start().await?;
    let mut health = running.health().consumers().pop().ok_or("no consumer")?.1;
    let publisher = to_queue::<String>(&stage.broker().await?, &queue).await?;
    for n in 1..=2 {
        stage.proxy().cut(Cut::Reset);
        in_time("consuming again", health.wait_for(|health| health.subscribed > n)).await??;
        let body = format!("after {n}");
        publisher.publish(&body).await?;
        // What was not acknowledged before may come again.
        while heard(&mut sees).await? != body {}
    }
    Ok(running.stop(soon()).await?)
}

/// After a kill there is no connection, and the message that was handled is back.
pub(crate) async fn kill_closes_connections(stage: &Stage) -> Checked {
    let queue = stage.queue("q")?;
    let publisher = to_queue::<String>(&stage.broker().await?, &queue).await?;
    let (began, mut begins) = mpsc::unbounded_channel();
    let handler = move |envelope: Envelope| {
        let _ = began.send(envelope.redelivered);
        std::future::pending::<()>()
    };
    let service = Service::new("test", stage.behind_the_proxy().await?)
        .consume(&queue.clone().of::<String>(), handler);
    let running = service.start().await?;
    publisher.publish(&"m1".to_owned()).await?;
    heard(&mut begins).await?;
    running.kill().await;
    in_time("no connection", stage.proxy().until(|traffic| traffic.open == 0)).await?;
    let broker = stage.broker().await?;
    let mut subscription = broker.subscribe(&queue.of::<String>(), 1).await?;
    let delivery = next(&mut subscription).await?;
    same("redelivered", delivery.redelivered(), true)?;
    delivery.settle(Outcome::Ack);
    Ok(())
}
