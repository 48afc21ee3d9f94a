//! What fails without anybody who waits for it is told to the log.
#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use enoki::{Broker, memory::MemoryTransport, topology::RouteSpec};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn p06_a_mandatory_message_without_a_queue_is_never_silent() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let broker = Broker::connect(Arc::new(MemoryTransport::isolated())).await.unwrap();
    let nowhere = RouteSpec::<u32>::to_queue("nowhere").unwrap();
    let publisher = broker.publisher(nowhere).await.unwrap();
    // As near to a publisher without confirms as a program gets; the compiler warns of it.
    drop(publisher.enqueue(&1).await.unwrap());
    broker.close(Duration::from_secs(5)).await;
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("no caller awaits its outcome"), "{said}");
    assert!(said.contains("\"nowhere\""), "{said}");
    assert!(said.contains("no queue is bound for it"), "{said}");
}
