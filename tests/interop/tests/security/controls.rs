//! Control characters in a name that anybody may give: a broker quotes it, and neither an error, a health nor a
//! log hands it to a terminal as it is.

use std::time::Duration;

use enoki::{
    Body, Broker, Failure, Outcome, Publisher, Service,
    broker::BrokerOptions,
    codec::Raw,
    consume::{Handler, OnError},
    publish::PublisherOptions,
    topology::{ExchangeKind, ExchangeSpec, QueueSpec, RouteSpec, Topology},
    transport::Change,
};
use enoki_interop::Checked;

use crate::canary::{lines_with, told};

/// Begins a colour, forges a line of a log, and turns the direction of what follows.
const CONTROLS: &str = "\u{1b}[31m\nERROR forged\u{202e}";

pub(crate) async fn escaped(url: String) -> Checked {
    let scheme = url.split(':').next().unwrap_or_default().to_owned();
    // The part by which the log's lines are found.
    let mark = format!("controls-{scheme}-{}", std::process::id());
    let name = format!("{mark}{CONTROLS}");
    let once = BrokerOptions::new().reach_within(Duration::from_secs(5));
    let broker = enoki::connect_with(url, once).await?;
    let mut texts = vec![format!("{}", broker.peer())];
    let mut missing = QueueSpec::new(name.as_str())?;
    missing.passive = true;
    let error = |result: enoki::Result<()>| result.err().ok_or("it worked");
    let queue = missing.clone().of::<Raw>();
    texts.push(told(&error(broker.subscribe(&queue, 1).await.map(drop))?));
    texts.push(told(&error(broker.queue_status(&queue).await.map(drop))?));
    let purged = broker.apply(&Change::PurgeQueue(missing.name.clone())).await;
    texts.push(told(&error(purged.map(drop))?));
    let optional = PublisherOptions::new().optional().timeout(Duration::from_secs(5));
    let mut exchange = ExchangeSpec::new(name.as_str(), ExchangeKind::Direct)?;
    exchange.passive = true;
    let route = RouteSpec::<Raw>::new(&exchange, "key")?;
    let publisher = broker.publisher_with(route, optional).await;
    let published = match &publisher {
        Ok(publisher) => publisher.publish(&Raw::new("text/plain", "x")?).await.map(drop),
        Err(error) => Err(error.clone()),
    };
    texts.push(told(&error(published)?));
    let service = Service::new("controls", broker.clone());
    async fn nothing(_: Body<Raw>) {}
    texts.push(told(&error(
        service.consume(&queue, nothing.concurrency(1)).start().await.map(drop),
    )?));
    texts.push(format!("{} {:?}", *broker.health().borrow(), *broker.health().borrow()));
    handled(&broker, &mark).await?;
    texts.extend(lines_with(&mark));
    texts.extend(lines_with("ERROR forged"));
    for text in &texts {
        for line in text.lines() {
            let acts = |letter: char| letter.is_control() || letter == '\u{202e}';
            if line.contains(acts) || line.starts_with("ERROR forged") {
                return Err(format!("{line:?} in {text:?}").into());
            }
        }
    }
    assert!(texts.iter().any(|text| text.contains("\\u{1b}[31m")), "nothing quoted it: {texts:?}");
    broker.close(Duration::from_secs(5)).await;
    Ok(())
}

/// A handler whose error quotes its message, and a message that cannot be read: both are logged.
async fn handled(broker: &Broker, mark: &str) -> Checked {
    let mut queue = QueueSpec::new(format!("{mark} handled"))?;
    queue.expires = Some(Duration::from_secs(600));
    let queue = queue.of::<String>();
    broker.declare(&Topology::new().with_queue(&queue)).await?;
    let (failed, mut fails) = tokio::sync::mpsc::unbounded_channel();
    let fail = move |Body(text): Body<String>| {
        let _ = failed.send(());
        async move { Err::<Outcome, _>(Failure::new(text)) }
    };
    let service = Service::new("controls", broker.clone());
    let handler = fail.concurrency(1).on_error(OnError::ack());
    let running = service.consume(&queue, handler).start().await?;
    let publisher: Publisher<String> =
        broker.publisher(RouteSpec::to_queue(format!("{mark} handled"))?).await?;
    publisher.publish(&format!("{mark}{CONTROLS}")).await?;
    fails.recv().await.ok_or("the handler is gone")?;
    running.stop(Duration::from_secs(10)).await?;
    Ok(())
}
