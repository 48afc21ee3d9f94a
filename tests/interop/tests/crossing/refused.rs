//! What no message may have, because not every wire could carry it: the publisher refuses it by
//! name, on every transport.

use std::time::Duration;

use enoki::{
    Broker, Error, Result,
    codec::Raw,
    message::{ShortStr, Table, Timestamp, Value},
    publish::Publication,
    topology::{QueueSpec, RouteSpec},
    transport::Change,
};
use enoki_faults::patience::connect_patiently;
use enoki_interop::Checked;
use libtest_mimic::Failed;

/// Something to refuse: how it gets into a message, and what the error has to name.
pub(crate) struct Refused {
    /// As in the table.
    pub(crate) name: &'static str,
    messages: Vec<Attempted>,
}

/// The body, what is set besides, and what the error has to name.
type Attempted = (Raw, Setting, &'static str);

type Setting = fn(Publication<'_, Raw>) -> Result<Publication<'_, Raw>>;

pub(crate) fn rows() -> Vec<Refused> {
    let row = |name, settings: &[(Setting, &'static str)]| Refused {
        name,
        messages: settings.iter().map(|&(setting, named)| (raw(4, None), setting, named)).collect(),
    };
    vec![
        Refused {
            name: "refused_body_too_large",
            messages: vec![(raw(16 * 1024 * 1024 + 1, None), |message| Ok(message), "the body")],
        },
        Refused {
            name: "refused_media_type_not_ascii",
            messages: vec![
                (raw(4, Some("text/ü")), |message| Ok(message), "the content type"),
                (raw(4, None), |message| message.content_encoding("ü"), "the content encoding"),
            ],
        },
        row(
            "refused_id_almost_a_uuid",
            &[
                (
                    |message| message.message_id("urn:uuid:123E4567-E89B-12D3-A456-426614174000"),
                    "the message id",
                ),
                (
                    |message| {
                        message.correlation_id("urn:uuid:this-is-no-uuid-of-36-bytes-all-told")
                    },
                    "the correlation id",
                ),
            ],
        ),
        row(
            "refused_reply_to_an_address",
            &[(|message| message.reply_to("/queues/answers"), "the reply-to")],
        ),
        row("refused_text_too_long", &[(|message| message.kind("x".repeat(256)), "xxx")]),
        row(
            "refused_timestamp_too_late",
            &[
                (|message| Ok(message.timestamp(too_late())), "the timestamp"),
                (|message| message.header("late", too_late()), "\"late\""),
            ],
        ),
        row(
            "refused_expiration_too_long",
            &[(|message| Ok(message.expiration(Duration::from_millis(1 << 32))), "the expiration")],
        ),
        row(
            "refused_header_of_a_broker",
            &[
                (|message| message.header("CC", Value::List(vec![])), "\"CC\""),
                (|message| message.header("x-death", 1), "\"x-death\""),
                (|message| message.header("x-cc", 1), "\"x-cc\""),
                (|message| message.header("x-basic-priority", 1), "\"x-basic-priority\""),
                (|message| message.header("x-amqp-1.0-properties", 1), "\"x-amqp-1.0-properties\""),
                (|message| message.header("x-opt-own", 1), "\"x-opt-own\""),
                (|message| message.header("x-enoki-header-own", 1), "\"x-enoki-header-own\""),
            ],
        ),
        row(
            "refused_header_name",
            &[
                (|message| message.header("", 1), "\"\""),
                (|message| message.header("n".repeat(256), 1), "nnn"),
                (|message| message.header("x-größe", 1), "\"x-größe\""),
                (|message| message.header("größen", Value::List(vec![])), "\"größen\""),
                (|message| message.header("x-own", table("größe", 1)), "\"x-own\""),
            ],
        ),
        row(
            "refused_header_float_not_finite",
            &[
                (|message| message.header("load", f64::NAN), "\"load\""),
                (
                    |message| message.header("load", Value::List(vec![f64::INFINITY.into()])),
                    "\"load\"",
                ),
            ],
        ),
        row("refused_kind_of_rabbitmq", &[(|message| message.kind("amqp-1.0"), "the kind")]),
        row(
            "refused_header_like_an_id",
            &[
                (|message| message.header("x-message-id", id()), "\"x-message-id\""),
                (|message| message.header("x-correlation-id", id()), "\"x-correlation-id\""),
            ],
        ),
        row(
            "refused_header_string_with_nul",
            &[
                (|message| message.header("key", "a\0b"), "\"key\""),
                (|message| message.header("key", table("inner", "\0")), "\"key\""),
            ],
        ),
        row(
            "refused_header_bytes_of_long_text",
            &[(
                |message| message.header("blob", Value::Bytes("x".repeat(4097).into())),
                "\"blob\"",
            )],
        ),
        row(
            "refused_header_nested_too_deep",
            &[(
                |message| {
                    let deep = (0..33).fold(Value::Null, |inner, _| Value::List(vec![inner]));
                    message.header("deep", deep)
                },
                "\"deep\"",
            )],
        ),
        row(
            "refused_headers_too_large",
            &[(|message| message.header("large", "x".repeat(130_000)), "the headers")],
        ),
    ]
}

fn raw(bytes: usize, content_type: Option<&'static str>) -> Raw {
    Raw { body: vec![b'x'; bytes].into(), content_type: content_type.map(ShortStr::from_static) }
}

fn id() -> Value {
    Value::Bytes(vec![1].into())
}

fn too_late() -> Timestamp {
    Timestamp::from_unix_seconds(Timestamp::MAX.unix_seconds() + 1)
}

fn table(name: &'static str, value: impl Into<Value>) -> Table {
    [(ShortStr::from_static(name), value.into())].into_iter().collect()
}

/// Publishes the row's messages to this broker, which has to fail, and before anything is stored.
pub(crate) fn check(url: &str, row: usize) -> std::result::Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::from(error.to_string()))?;
    runtime.block_on(publish(url, row)).map_err(|error| Failed::from(error.to_string()))
}

async fn publish(url: &str, row: usize) -> Checked {
    let rows = rows();
    let row = rows.get(row).ok_or("there is no such row")?;
    let broker = connect_patiently(url.to_owned()).await?;
    let scheme = url.split(':').next().unwrap_or_default();
    let queue =
        QueueSpec::new(format!("enoki-crossing {} {scheme} {}", row.name, std::process::id()))?;
    let (name, queue) = (queue.name.clone(), queue.of::<Raw>());
    broker.declare(&enoki::topology::Topology::new().with_queue(&queue)).await?;
    let refused = all_refused(&broker, &name, row).await;
    let status = broker.queue_status(&queue).await?;
    broker.apply(&Change::DeleteQueue(name)).await?;
    broker.close(Duration::from_secs(5)).await;
    refused?;
    if status.messages == 0 { Ok(()) } else { Err("a message was stored".into()) }
}

async fn all_refused(broker: &Broker, queue: &ShortStr, row: &Refused) -> Checked {
    let publisher = broker.publisher(RouteSpec::to_queue(queue.as_str())?).await?;
    for (raw, setting, named) in &row.messages {
        let refused = async { setting(publisher.message(raw)?)?.publish().await };
        let error: Error = match refused.await {
            Ok(_) => return Err(format!("it was not refused, for {named}").into()),
            Err(error) => error,
        };
        if !error.to_string().contains(named) {
            return Err(format!("{named} is not named: {error}").into());
        }
    }
    Ok(())
}
