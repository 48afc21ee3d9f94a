//! `test/test_serialization.py`.

use bytes::Bytes;
use enoki::{
    Body, Service,
    broker::BrokerOptions,
    codec::{Codec, CodecError, Codecs, Json, MessagePack, Visit, erased_serde},
    consume::{Envelope, Handler},
    message::ShortStr,
    publish::PublisherOptions,
    topology::{ExchangeKind, RouteSpec, Topology},
};
use enoki_interop::Checked;
use tokio::sync::mpsc;

use super::stage::{Stage, bound, heard, same, soon};

/// JSON in capitals.
#[derive(Debug)]
struct Upper;

impl Codec for Upper {
    fn content_type(&self) -> ShortStr {
        ShortStr::from_static("application/x-upper-json")
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
        Ok(Json.encode(value)?.to_ascii_uppercase().into())
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        Json.decode(&body.to_ascii_lowercase(), visit)
    }
}

/// The bodies and content types that arrive where these codecs are accepted, published each by its
/// own.
async fn arrive(
    stage: &Stage,
    accept: Codecs,
    publish: [Codecs; 2],
) -> Checked<Vec<(String, String, String)>> {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |Body(body): Body<String>, envelope: Envelope| {
        let message = &envelope.message;
        let content_type = message.properties.content_type.clone().unwrap_or_default();
        let wire = String::from_utf8_lossy(&message.body).into_owned();
        let _ = seen.send((body, content_type.as_str().to_owned(), wire));
        async {}
    };
    let mine = queue.clone().of::<String>();
    let service = Service::new("test", broker.clone()).consume(&mine, handler.accept(accept));
    let running = service.start().await?;
    let mut arrived = Vec::new();
    for codecs in publish {
        let options = PublisherOptions::new().codecs(codecs);
        let route = RouteSpec::<String>::to_queue(queue.name.as_str())?;
        let publisher = broker.publisher_with(route, options).await?;
        publisher.publish(&"foo".to_owned()).await?;
        arrived.push(heard(&mut sees).await?);
    }
    running.stop(soon()).await?;
    Ok(arrived)
}

fn row(body: &str, content_type: &str, wire: &str) -> (String, String, String) {
    (body.to_owned(), content_type.to_owned(), wire.to_owned())
}

/// Whatever it accepts it reads, by the content type, in whichever order they are named.
pub(crate) async fn consumer_accepts_multiple_serialization_formats(stage: &Stage) -> Checked {
    for accept in [Codecs::only(Json).and(MessagePack), Codecs::only(MessagePack).and(Json)] {
        let publish = [Codecs::only(Json), Codecs::only(MessagePack)];
        let json = row("foo", "application/json", "\"foo\"");
        let packed = row("foo", "application/x-msgpack", "\u{fffd}foo");
        same("what arrives", arrive(stage, accept, publish).await?, [json, packed])?;
    }
    Ok(())
}

/// An encoding of the program's own is used, and named by its content type.
pub(crate) async fn custom_serializer(stage: &Stage) -> Checked {
    let publish = [Codecs::only(Upper), Codecs::only(Json)];
    let upper = row("foo", "application/x-upper-json", "\"FOO\"");
    let json = row("foo", "application/json", "\"foo\"");
    let accept = Codecs::only(Upper).and(Json);
    same("what arrives", arrive(stage, accept, publish).await?, [upper, json])
}

/// So are events, where it is the encoding of all that a broker handle does.
pub(crate) async fn event_serialization(stage: &Stage) -> Checked {
    for (codecs, content_type) in [
        (Codecs::only(Json), "application/json"),
        (Codecs::only(Upper), "application/x-upper-json"),
    ] {
        let broker = stage.broker_with(BrokerOptions::new().codecs(codecs)).await?;
        let (events, queue) = (stage.exchange("events", ExchangeKind::Topic)?, stage.queue("q")?);
        let (seen, mut sees) = mpsc::unbounded_channel();
        let handler = move |Body(body): Body<String>, envelope: Envelope| {
            let _ = seen.send((body, envelope.message.properties.content_type.clone()));
            async {}
        };
        let queue = bound::<String>(&queue, &events, "event")?;
        let running = Service::new("test", broker.clone()).consume(&queue, handler).start().await?;
        broker.verify(&Topology::new().with_queue(&queue)).await?;
        let dispatch = broker.publisher(RouteSpec::<String>::new(&events, "event")?).await?;
        dispatch.publish(&"foo".to_owned()).await?;
        let (body, found) = heard(&mut sees).await?;
        same("the body", body, "foo")?;
        same("the content type", found.as_deref(), Some(content_type))?;
        running.stop(soon()).await?;
    }
    Ok(())
}
