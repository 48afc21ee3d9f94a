//! `TestSSL` of `test/test_messaging.py`, and `TestLoginMethod` of `test/amqp/test_publish.py`. AMQPLAIN is
//! left out: it is PLAIN in another spelling.

use enoki::{
    Body, Broker, Outcome, Service,
    broker::{BrokerOptions, Login},
    consume::{Handler, OnError},
    publish::PublisherOptions,
    topology::{ExchangeKind, RouteSpec, Topology},
};
use enoki_interop::Checked;
use tokio::sync::mpsc;

use super::stage::{Stage, bound, contents, heard, next, same, soon, to_queue};

/// By password with and without a certificate, and by certificate.
async fn logins(stage: &Stage) -> Checked<Vec<(&'static str, Broker)>> {
    let encrypted = stage.encrypted();
    let options = |tls| BrokerOptions::new().tls(tls);
    let by_certificate = options(encrypted.as_guest()?).login(Login::External);
    let mut brokers = Vec::new();
    for (label, url, options) in [
        ("plain", encrypted.url.clone(), options(encrypted.trusting()?)),
        ("plain_and_certificate", encrypted.url.clone(), options(encrypted.as_guest()?)),
        ("external", encrypted.without_login(), by_certificate),
    ] {
        brokers.push((label, enoki::connect_with(url, options).await?));
    }
    Ok(brokers)
}

/// A service consumes over TLS what another program publishes.
pub(crate) async fn consume_over_ssl(stage: &Stage) -> Checked {
    let outside = stage.broker().await?;
    for (label, broker) in logins(stage).await? {
        let queue = stage.queue(label)?;
        let (seen, mut sees) = mpsc::unbounded_channel();
        let handler = move |Body(body): Body<String>| {
            let _ = seen.send(body);
            async {}
        };
        let running = Service::new("test", broker)
            .consume(&queue.clone().of::<String>(), handler.on_error(OnError::requeue()))
            .start()
            .await?;
        to_queue::<String>(&outside, &queue).await?.publish(&label.to_owned()).await?;
        same("the body", heard(&mut sees).await?, label)?;
        running.stop(soon()).await?;
        same("what is left", contents(&outside, &queue).await?, [""; 0])?;
    }
    Ok(())
}

/// A publisher declares and publishes over TLS. There the declaration is left out, and so is that it
/// ignores the login method.
pub(crate) async fn publisher_over_ssl(stage: &Stage) -> Checked {
    let outside = stage.broker().await?;
    for (label, broker) in logins(stage).await? {
        let (exchange, queue) = (stage.exchange(label, ExchangeKind::Direct)?, stage.queue(label)?);
        let bound = bound::<String>(&queue, &exchange, "key")?;
        let topology = Topology::new().with_queue(&bound);
        let options = PublisherOptions::new().declare(topology.clone());
        let route = RouteSpec::<String>::new(&exchange, "key")?;
        broker.publisher_with(route, options).await?.publish(&label.to_owned()).await?;
        outside.verify(&topology).await?;
        same("what arrives", contents(&outside, &queue).await?, [format!("{label:?}")])?;
        broker.close(soon()).await;
    }
    Ok(())
}

/// The broker takes each login for that of guest.
pub(crate) async fn login_method(stage: &Stage) -> Checked {
    for (label, broker) in logins(stage).await? {
        let queue = stage.queue(label)?;
        let publisher = to_queue::<String>(&broker, &queue).await?;
        // It takes no other user id than the login's own.
        publisher.message(&"msg".to_owned())?.user_id("guest")?.publish().await?;
        let mut subscription = broker.subscribe(&queue.of::<String>(), 1).await?;
        let delivery = next(&mut subscription).await?;
        same("the user", delivery.message().properties.user_id.as_deref(), Some("guest"))?;
        delivery.settle(Outcome::Ack);
        broker.close(soon()).await;
    }
    Ok(())
}
