//! The tests of nameko 2.14's messaging, as far as they can be seen through a broker, in memory and
//! on RabbitMQ over both protocols. Each has the name of the one that it is a port of;
//! `docs/nameko-tests.md` has them all, with those that are elsewhere and those that there are not.
//!
//! Those that break connections do so by a proxy, so they need a broker that is reached by TCP; those
//! about TLS need one that listens with TLS.

mod nameko_ported {
    pub(super) mod container;
    pub(super) mod context;
    pub(super) mod disconnections;
    pub(super) mod events;
    pub(super) mod guide;
    pub(super) mod messaging;
    pub(super) mod publish;
    pub(super) mod queue_consumer;
    pub(super) mod retry;
    pub(super) mod serialization;
    pub(super) mod ssl;
    pub(super) mod stage;
    pub(super) mod table;
    pub(super) mod target;
}

use std::{pin::Pin, process::ExitCode, time::Duration};

use enoki_interop::{Checked, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::time::timeout;

use crate::nameko_ported::{
    container, context, disconnections, events, guide, messaging, publish, queue_consumer, retry,
    serialization, ssl, stage::Stage, table, target::Target,
};

/// A port of one of nameko's tests.
struct Port {
    /// The name of the origin: module, class, test.
    name: &'static str,
    needs: Need,
    run: for<'s> fn(&'s Stage) -> Running<'s>,
}

/// What a port needs besides a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// A proxy before the broker, which breaks connections.
    Proxy,
    /// A broker that listens with TLS.
    Tls,
}

type Running<'s> = Pin<Box<dyn Future<Output = Checked> + 's>>;

macro_rules! ports {
    ($needs:expr; $($name:literal => $module:ident::$test:ident),+ $(,)?) => {
        &[$(Port {
            name: $name,
            needs: $needs,
            run: |stage| Box::pin($module::$test(stage)),
        }),+]
    };
}

/// Those that leave connections alone.
const QUIET: &[Port] = ports!(Need::Nothing;
    "test_messaging::test_consume_provider" => messaging::consume_provider,
    "test_messaging::test_publish_to_exchange" => messaging::publish_to_exchange,
    "test_messaging::test_publish_custom_headers" => messaging::publish_custom_headers,
    "test_messaging::test_header_encoder" => messaging::header_encoder,
    "test_messaging::test_header_decoder" => messaging::header_decoder,
    "test_messaging::test_publish_to_rabbit" => messaging::publish_to_rabbit,
    "test_messaging::test_unserialisable_headers" => messaging::unserialisable_headers,
    "test_messaging::test_consume_from_rabbit" => messaging::consume_from_rabbit,
    "test_messaging::TestConfigurability::test_headers" => messaging::headers,
    "test_queue_consumer::test_lifecycle" => queue_consumer::lifecycle,
    "test_queue_consumer::test_prefetch_count" => queue_consumer::prefetch_count,
    "test_queue_consumer::TestDeadlockRegression::test_deadlock_due_to_slow_workers"
        => queue_consumer::deadlock_due_to_slow_workers,
    "test_publish::TestPublisherConfirms::test_confirms_disabled" => publish::confirms_disabled,
    "test_publish::TestPublisherConfirms::test_confirms_enabled" => publish::confirms_enabled,
    "test_publish::TestPublisher::test_routing" => publish::routing,
    "test_publish::TestPublisher::test_delivery_options" => publish::delivery_options,
    "test_publish::TestPublisher::test_confirms" => publish::confirms,
    "test_publish::TestPublisher::test_mandatory_delivery" => publish::mandatory_delivery,
    "test_publish::TestPublisher::test_serializer" => publish::serializer,
    "test_publish::TestPublisher::test_compression" => publish::compression,
    "test_publish::TestPublisher::test_content_type" => publish::content_type,
    "test_publish::TestPublisher::test_content_encoding" => publish::content_encoding,
    "test_publish::TestPublisher::test_headers" => publish::headers,
    "test_publish::TestPublisher::test_message_properties" => publish::message_properties,
    "test_publish::TestPublisher::test_timestamp" => publish::timestamp,
    "test_publish::TestPublisher::test_user_id" => publish::user_id,
    "test_publish::TestPublisher::test_declare" => publish::declare,
    "test_publish::TestDefaults::test_header_precedence" => publish::header_precedence,
    "test_call_id_stack::test_worker_context_gets_stack" => context::worker_context_gets_stack,
    "test_call_id_stack::test_short_call_stack" => context::short_call_stack,
    "test_call_id_stack::test_call_id_stack" => context::call_id_stack,
    "test_call_id_stack::test_call_id_over_events" => context::call_id_over_events,
    "test_serialization::test_consumer_accepts_multiple_serialization_formats"
        => serialization::consumer_accepts_multiple_serialization_formats,
    "test_serialization::test_custom_serializer" => serialization::custom_serializer,
    "test_serialization::test_event_serialization" => serialization::event_serialization,
    "test_container::test_worker_life_cycle" => container::worker_life_cycle,
    "test_container::test_container_doesnt_exhaust_max_workers"
        => container::doesnt_exhaust_max_workers,
    "test_container::test_stops_entrypoints_before_dependency_providers"
        => container::stops_entrypoints_before_dependency_providers,
    "test_container::test_container_only_killed_once" => container::only_killed_once,
    "test_container::test_spawned_thread_kills_container"
        => container::spawned_thread_kills_container,
    "test_events::test_service_pooled_events" => events::service_pooled,
    "test_events::test_service_pooled_events_multiple_handlers" => events::multiple_handlers,
    "test_events::test_singleton_events" => events::singleton,
    "test_events::test_broadcast_events" => events::broadcast,
    "test_events::test_requeue_on_error" => events::requeue_on_error,
    "test_events::test_reliable_delivery" => events::reliable_delivery,
    "test_events::test_unreliable_delivery" => events::unreliable_delivery,
    "test_events::test_dispatch_to_rabbit" => events::dispatch_to_rabbit,
    "test_rpc::test_prefetch_throughput" => queue_consumer::prefetch_throughput,
);

/// Those that break them.
const ROUGH: &[Port] = ports!(Need::Proxy;
    "test_messaging::TestConsumerDisconnections::test_normal" => disconnections::consumer_normal,
    "test_messaging::TestConsumerDisconnections::test_down" => disconnections::consumer_down,
    "test_messaging::TestConsumerDisconnections::test_upstream_timeout"
        => disconnections::consumer_upstream_timeout,
    "test_messaging::TestConsumerDisconnections::test_upstream_blackhole"
        => disconnections::consumer_upstream_blackhole,
    "test_messaging::TestConsumerDisconnections::test_downstream_timeout"
        => disconnections::consumer_downstream_timeout,
    "test_messaging::TestConsumerDisconnections::test_downstream_blackhole"
        => disconnections::consumer_downstream_blackhole,
    "test_messaging::TestConsumerDisconnections::test_message_ack_regression"
        => disconnections::message_ack_regression,
    "test_messaging::TestConsumerDisconnections::test_message_requeue_regression"
        => disconnections::message_requeue_regression,
    "test_messaging::TestPublisherDisconnections::test_normal" => disconnections::publisher_normal,
    "test_messaging::TestPublisherDisconnections::test_down" => disconnections::publisher_down,
    "test_messaging::TestPublisherDisconnections::test_timeout"
        => disconnections::publisher_timeout,
    "test_messaging::TestPublisherDisconnections::test_reuse_when_down"
        => disconnections::reuse_when_down,
    "test_messaging::TestPublisherDisconnections::test_reuse_when_recovered"
        => disconnections::reuse_when_recovered,
    "test_messaging::TestPublisherDisconnections::test_with_retry_policy"
        => disconnections::with_retry_policy,
    "test_queue_consumer::test_stop_while_starting" => queue_consumer::stop_while_starting,
    "test_queue_consumer::test_reconnect_on_socket_error"
        => queue_consumer::reconnect_on_socket_error,
    "test_queue_consumer::test_kill_closes_connections" => queue_consumer::kill_closes_connections,
    "test_publish::test_get_connection" => publish::get_connection,
    "test_publish::TestPublisher::test_retry" => retry::retry,
    "test_publish::TestPublisher::test_retry_policy" => retry::retry_policy,
    "test_broker::test_idle_disconnect" => disconnections::idle_disconnect,
    "test_broker::test_service_disconnect_with_active_async_worker"
        => disconnections::service_disconnect_with_active_async_worker,
);

/// Those about TLS.
const ENCRYPTED: &[Port] = ports!(Need::Tls;
    "test_messaging::TestSSL::test_consume_over_ssl" => ssl::consume_over_ssl,
    "test_messaging::TestSSL::test_publisher_over_ssl" => ssl::publisher_over_ssl,
    "test_publish::TestLoginMethod::test_login_method" => ssl::login_method,
);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let ports = || QUIET.iter().chain(ROUGH).chain(ENCRYPTED);
    let mut trials =
        vec![Trial::test("nameko_ported::the_table_in_the_docs_has_these_tests", move || {
            let names: Vec<_> = ports().map(|port| port.name).collect();
            table::check(&names).map_err(Failed::from)
        })];
    trials.push(Trial::test(
        "nameko_ported::the_guide_leaves_no_name_out_and_shows_what_it_names",
        || guide::check().map_err(Failed::from),
    ));
    for target in Target::all() {
        for port in ports().filter(|port| target.is_remote() || port.needs == Need::Nothing) {
            let name = format!("nameko_ported::{target}::{}", port.name);
            trials.push(Trial::ignorable_test(name, move || perform(target, port)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn perform(target: Target, port: &Port) -> Result<Completion, Failed> {
    let url = match target.url() {
        Ok(url) => url,
        Err(variable) => return without(variable),
    };
    let encrypted = match port.needs {
        Need::Tls => match target.encrypted() {
            Ok(encrypted) => Some(encrypted),
            Err(variable) => return without(&variable),
        },
        Need::Nothing | Need::Proxy => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(|error| error.to_string())?.block_on(async {
        let running = async {
            let stage = Stage::open(url, port.needs == Need::Proxy, encrypted).await?;
            let result = (port.run)(&stage).await;
            let tidied = stage.tidy().await;
            result.and(tidied)
        };
        timeout(LONG, running).await.unwrap_or_else(|_| Err("it takes too long".into()))
    });
    result.map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

/// A test that takes longer hangs.
const LONG: Duration = Duration::from_secs(300);
