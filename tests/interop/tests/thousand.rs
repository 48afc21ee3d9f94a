//! A thousand consumers and a thousand publishers in one program, on each transport. How long it takes
//! to open them is printed, for people: no test depends on it.
#![allow(clippy::print_stdout)]

use std::{process::ExitCode, time::Duration};

use enoki::{
    Body, Service, State,
    broker::BrokerOptions,
    topology::{QueueSpec, RouteSpec},
};
use enoki_interop::{Checked, given, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

/// The name, the scheme, and the variable that says where the broker is.
const PLACES: [(&str, &str, Option<&str>); 3] = [
    ("memory", "memory", None),
    ("rabbitmq_4_over_0_9_1", "amqp091", Some("ENOKI_RABBITMQ_4")),
    ("rabbitmq_4_over_1_0", "amqp10", Some("ENOKI_RABBITMQ_4")),
];

fn main() -> ExitCode {
    let trials = PLACES.map(|(name, scheme, variable)| {
        Trial::ignorable_test(format!("thousand::work_at_once_on_{name}"), move || {
            work(name, scheme, variable)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().collect()).exit_code()
}

fn work(
    name: &'static str,
    scheme: &'static str,
    variable: Option<&'static str>,
) -> Result<Completion, Failed> {
    let url = match variable {
        None => "memory://thousand".to_owned(),
        Some(variable) => match given(variable) {
            // One port of RabbitMQ's speaks both protocols.
            Some(url) => url.replacen("amqp091", scheme, 1),
            None => return without(variable),
        },
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime
        .block_on(async { timeout(PATIENCE, at_once(name, url)).await })
        .map_err(|_| Failed::from("it took too long"))?
        .map_err(|error| Failed::from(error.to_string()))?;
    Ok(Completion::Completed)
}

async fn handle(State(handled): State<mpsc::UnboundedSender<u32>>, Body(number): Body<u32>) {
    let _ = handled.send(number);
}

async fn at_once(name: &str, url: String) -> Checked {
    let options = BrokerOptions::new().declare_timeout(PATIENCE);
    let broker = enoki::connect_with(url, options).await?;
    // They go with their consumers.
    let queues = (0..MANY).map(|at| {
        let name = format!("enoki-thousand.{name}.{}.{at}", std::process::id());
        let mut queue = QueueSpec::new(name)?;
        queue.auto_delete = true;
        Ok::<_, enoki::Error>(queue)
    });
    let queues = queues.collect::<Result<Vec<_>, _>>()?;
    let (handled, mut numbers) = mpsc::unbounded_channel();
    let mut service =
        Service::new("thousand", broker.clone()).start_within(PATIENCE).state(handled);
    for queue in &queues {
        service = service.consume(&queue.clone().of::<u32>(), handle);
    }
    let began = Instant::now();
    let running = service.start().await?;
    let consuming = began.elapsed();

    let began = Instant::now();
    let mut publishing = JoinSet::new();
    for (at, queue) in (0..).zip(&queues) {
        let publisher = broker.publisher(RouteSpec::<u32>::to_queue(queue.name.as_str())?).await?;
        publishing.spawn(async move { publisher.message(&at)?.timeout(PATIENCE).publish().await });
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    let published = began.elapsed();
    let mut seen = vec![false; queues.len()];
    for _ in &queues {
        let number = numbers.recv().await.ok_or("the service is gone")?;
        let seen = seen.get_mut(usize::try_from(number)?).ok_or("a number that was not sent")?;
        assert!(!std::mem::replace(seen, true), "{number} came twice");
    }
    println!("{name}: {MANY} consumers in {consuming:.1?}, {MANY} publishers in {published:.1?}");
    running.stop(PATIENCE).await?;
    broker.close(Duration::from_secs(10)).await;
    Ok(())
}

const MANY: u32 = 1000;

/// What may pass on a machine that others use.
const PATIENCE: Duration = Duration::from_secs(300);
