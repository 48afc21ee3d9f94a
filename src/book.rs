//! The programs of the README and of the pages in `docs/` are documentation tests.

/// One module for each page, so that a failing program names its page.
macro_rules! pages {
    ($($name:ident: $path:literal,)+) => {$(
        #[doc = include_str!($path)]
        mod $name {}
    )+};
}

pages! {
    readme: "../README.md",
    call_context: "../docs/call-context.md",
    classic_or_replicated: "../docs/classic-or-replicated.md",
    coming_from_lapin: "../docs/coming-from-lapin.md",
    coming_from_nameko: "../docs/coming-from-nameko.md",
    coming_from_spring_amqp: "../docs/coming-from-spring-amqp.md",
    conflict: "../docs/failures/conflict.md",
    connection_lost: "../docs/failures/connection-lost.md",
    broker_down: "../docs/failures/broker-down.md",
    consume: "../docs/consume.md",
    consumer_cancelled: "../docs/failures/consumer-cancelled.md",
    dead_letters: "../docs/dead-letters.md",
    encodings: "../docs/encodings.md",
    failures: "../docs/failures/README.md",
    handler_fails: "../docs/failures/handler-fails.md",
    indeterminate: "../docs/failures/indeterminate.md",
    publish: "../docs/publish.md",
    refused: "../docs/failures/refused.md",
    shutdown: "../docs/shutdown.md",
    testing: "../docs/testing.md",
    tls_and_logins: "../docs/tls-and-logins.md",
    topology: "../docs/topology.md",
    topology_of_others: "../docs/topology-of-others.md",
    transport_amqp091: "../docs/transports/amqp091.md",
    transport_amqp10: "../docs/transports/amqp10.md",
    transport_memory: "../docs/transports/memory.md",
    transports: "../docs/transports.md",
    undecodable: "../docs/failures/undecodable.md",
    unroutable: "../docs/failures/unroutable.md",
}
