//! The page for who comes from nameko: it leaves out no name, and what it names is in its examples,
//! which run as tests of the facade's documentation.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../../docs/coming-from-nameko.md");

/// Every class, attribute, method, option, configuration key and exception of `nameko.messaging`.
const NAMES: &[&str] = &[
    "nameko.messaging",
    "_log",
    "consume",
    "QueueConsumerStopped",
    "HeaderEncoder",
    "HeaderEncoder.header_prefix",
    "HeaderEncoder._get_header_name",
    "HeaderEncoder.get_message_headers",
    "HeaderDecoder",
    "HeaderDecoder.header_prefix",
    "HeaderDecoder._strip_header_name",
    "HeaderDecoder.unpack_message_headers",
    "Publisher",
    "Extension.__init__",
    "bind",
    "iter_extensions",
    "Extension.container",
    "publish(msg, **kwargs)",
    "exchange=",
    "queue=",
    "declare=",
    "no `exchange`",
    "publisher_cls",
    "Publisher.exchange",
    "Publisher.options",
    "Publisher.declare",
    "compat_attrs",
    "Publisher.amqp_uri",
    "Publisher.serializer",
    "Publisher.setup",
    "Publisher.get_dependency",
    "use_confirms=",
    "delivery_mode=",
    "mandatory=",
    "priority=",
    "expiration=",
    "serializer=",
    "compression=",
    "headers=",
    "retry=",
    "retry_policy=",
    "routing_key=",
    "correlation_id=",
    "reply_to=",
    "message_id=",
    "type=",
    "app_id=",
    "user_id=",
    "cluster_id=",
    "timestamp=",
    "content_type=",
    "content_encoding=",
    "timeout=",
    "transport_options=",
    "QueueConsumer",
    "QueueConsumer._consumers",
    "QueueConsumer._pending_remove_providers",
    "QueueConsumer._gt",
    "QueueConsumer._starting",
    "QueueConsumer._consumers_ready",
    "QueueConsumer.amqp_uri",
    "QueueConsumer.prefetch_count",
    "QueueConsumer.accept",
    "QueueConsumer._handle_thread_exited",
    "QueueConsumer.register_provider",
    "QueueConsumer.start",
    "QueueConsumer.stop",
    "QueueConsumer.kill",
    "QueueConsumer.unregister_provider",
    "QueueConsumer.wait_for_providers",
    "QueueConsumer.ack_message",
    "QueueConsumer.requeue_message",
    "QueueConsumer._cancel_consumers_if_requested",
    "QueueConsumer.connection",
    "QueueConsumer.handle_message",
    "QueueConsumer.get_consumers",
    "QueueConsumer.on_iteration",
    "QueueConsumer.on_connection_error",
    "QueueConsumer.on_consume_ready",
    "Consumer",
    "Consumer.decorator",
    "queue",
    "requeue_on_error=True",
    "requeue_on_error=False",
    "expected_exceptions=",
    "sensitive_arguments=",
    "sensitive_variables=",
    "Consumer.queue_consumer",
    "Consumer.queue",
    "Consumer.requeue_on_error",
    "Consumer.setup",
    "Consumer.stop",
    "Consumer.handle_message",
    "Consumer.handle_result",
    "Consumer.handle_message_processed",
    "AMQP_URI",
    "AMQP_SSL",
    "LOGIN_METHOD",
    "HEARTBEAT",
    "TRANSPORT_OPTIONS",
    "max_workers",
    "serializer",
    "ACCEPT",
    "SERIALIZERS",
    "parent_calls_tracked",
    "SERVICE_CONTAINER_CLS",
    "rpc_exchange",
    "AUTO_DELETE_EVENT_EXCHANGES",
    "DECLARE_EVENT_EXCHANGES",
    "WEB_SERVER_ADDRESS",
    "LOGGING",
    "UndeliverableMessage",
    "MessageNacked",
    "OperationalError",
    "NotFound",
    "PreconditionFailed",
    "AccessRefused",
    "EncodeError",
    "DecodeError",
    "ContentDisallowed",
    "SerializerNotInstalled",
    "ConfigurationError",
    "FrameSyntaxError",
    "ContainerBeingKilled",
    "MessageStateError",
];

pub(crate) fn check() -> Result<(), String> {
    let mut faults = Vec::new();
    let mut named = BTreeSet::new();
    let examples: BTreeSet<&str> = rust().flat_map(words).collect();
    for row in PAGE.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, nameko, here, why, _] = cells[..] else {
            faults.push(format!("three cells: {row}"));
            continue;
        };
        if nameko == "nameko" {
            continue;
        }
        named.insert(nameko);
        named.extend(code(nameko));
        match here {
            "–" if why.is_empty() => faults.push(format!("{nameko} has neither name nor reason")),
            "–" => {}
            "the crate `enoki`" => {}
            _ if code(here).next().is_none() => faults.push(format!("{nameko} has no name here")),
            _ => {}
        }
        // A name of ours, wherever it is written, is one that an example uses.
        for name in
            code(here).chain(code(why).filter(|name| name.contains("::") && !name.ends_with('!')))
        {
            for word in words(name).filter(|word| *word != "enoki") {
                if !examples.contains(word) {
                    faults.push(format!("{nameko}: no example uses {word} of {name}"));
                }
            }
        }
    }
    let missing = NAMES.iter().filter(|name| !named.contains(**name));
    faults.extend(missing.map(|name| format!("{name} has no row")));
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// What is in code, in a cell.
fn code(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// The lines of the examples, without their comments.
fn rust() -> impl Iterator<Item = &'static str> {
    let mut is_rust = false;
    let lines = PAGE.lines().filter(move |line| {
        if line.starts_with("```") {
            is_rust = *line == "```rust";
        }
        is_rust
    });
    lines.map(|line| line.split("// ").next().unwrap_or(line))
}

fn words(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
