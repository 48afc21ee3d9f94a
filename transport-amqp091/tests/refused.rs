//! What a broker that refuses connections leaves behind in this process. Alone in its process, since it
//! counts threads.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use enoki_core::{BrokerUrl, ErrorKind, Purpose, Transport};
use enoki_transport_amqp091::Amqp091Transport;
use tokio::{runtime::Handle, time::Instant};

/// How many threads this process has, where the system tells.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[tokio::test]
async fn sixty_refused_connects_leave_no_task_and_no_thread() {
    // A reserved port, where nothing listens.
    let url = BrokerUrl::parse("amqp091://127.0.0.1:1").unwrap();
    let transport = Amqp091Transport::new(&url).unwrap();
    let found = || (Handle::current().metrics().num_alive_tasks(), threads());
    let before = found();
    for _ in 0..60 {
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = transport.connect(Purpose::Publish, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        assert_eq!(found(), before, "tasks and threads");
    }
}
