//! What lives as long as a service, and entrypoints that come and go while it runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use enoki_core::{
    Body, Consumer, Entrypoint, Error, ErrorKind, Extension, Outcome, Purpose, Result, Scope,
    Service, Started, WorkQueue,
};
use tokio::time::{Instant, sleep};

use crate::script::{Script, in_time};

const BILLING: WorkQueue<String> = WorkQueue::new("billing");

async fn ack(_: Body<String>) {}

fn in_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What happened, in its order.
#[derive(Debug, Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, name: &str, what: &str) {
        self.0.lock().unwrap().push(format!("{what} {name}"));
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Noting {
    name: &'static str,
    diary: Diary,
    fails: &'static str,
}

impl Noting {
    fn new(name: &'static str, diary: &Diary) -> Arc<Self> {
        Self::failing(name, diary, "")
    }

    fn failing(name: &'static str, diary: &Diary, fails: &'static str) -> Arc<Self> {
        Arc::new(Self { name, diary: diary.clone(), fails })
    }

    async fn note(&self, what: &str) -> Result<()> {
        self.diary.note(self.name, what);
        if self.fails == "hang" || self.fails.strip_prefix("hang in ") == Some(what) {
            std::future::pending::<()>().await;
        }
        if self.fails == what {
            return Err(Error::new(ErrorKind::Unexpected, "test").because(format!("no {what}")));
        }
        Ok(())
    }
}

#[async_trait]
impl Extension for Noting {
    fn name(&self) -> &str {
        self.name
    }

    async fn setup(&self, scope: &Scope) -> Result<()> {
        assert_eq!(&**scope.service(), "office");
        self.note("setup").await
    }

    async fn start(&self) -> Result<()> {
        self.note("start").await
    }

    async fn stop(&self, _: Instant) -> Result<()> {
        self.note("stop").await
    }

    async fn kill(&self) {
        let _ = self.note("kill").await;
    }
}

/// An entrypoint that notes the same.
struct Door(Arc<Noting>);

#[async_trait]
impl Entrypoint for Door {
    fn name(&self) -> &str {
        self.0.name
    }

    async fn start(&mut self, _: Scope) -> Result<()> {
        self.0.note("start").await
    }

    async fn stop(&mut self, _: Instant) -> Result<()> {
        self.0.note("stop").await
    }

    async fn kill(&mut self) {
        let _ = self.0.note("kill").await;
    }
}

#[tokio::test(start_paused = true)]
async fn extensions_are_there_before_work_comes_in_and_until_the_last_of_it_is_done() {
    let diary = Diary::default();
    let (broker, _script) = Script::broker().await;
    let running = Service::new("office", broker)
        .entrypoint(Door(Noting::new("door", &diary)))
        .extension(Noting::new("pool", &diary))
        .extension(Noting::new("cache", &diary))
        .start()
        .await
        .unwrap();
    running.stop(in_seconds(5)).await.unwrap();
    assert_eq!(
        diary.read(),
        [
            "setup pool",
            "setup cache",
            "start pool",
            "start cache",
            "start door",
            "stop door",
            "stop cache",
            "stop pool"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_is_shared_is_set_up_and_stopped_once() {
    let diary = Diary::default();
    let (broker, _script) = Script::broker().await;
    let pool = Noting::new("pool", &diary);
    let service = Service::new("office", broker).extension(pool.clone()).extension(pool);
    service.run_until(async {}).await.unwrap();
    assert_eq!(diary.read().iter().filter(|line| *line == "stop pool").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_fails_fails_the_start_and_those_before_it_are_stopped() {
    for fails in ["setup", "start"] {
        let diary = Diary::default();
        let (broker, script) = Script::broker().await;
        let error = Service::new("office", broker)
            .extension(Noting::new("pool", &diary))
            .extension(Noting::failing("cache", &diary, fails))
            .consume(&BILLING, ack)
            .start()
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&format!("no {fails}")), "{error}");
        let read = diary.read();
        assert_eq!(read[read.len() - 2..], ["stop cache", "stop pool"], "{read:?}");
        assert_eq!(script.connects(Purpose::Consume), 0, "no work came in");
    }
}

#[tokio::test(start_paused = true)]
async fn killing_ends_everything_in_time_whatever_hangs() {
    let diary = Diary::default();
    let (broker, _script) = Script::broker().await;
    let running = Service::new("office", broker)
        .entrypoint(Door(Noting::new("door", &diary)))
        .extension(Noting::new("pool", &diary))
        .start()
        .await
        .unwrap();
    running.kill().await;
    assert_eq!(diary.read()[3..], ["kill door", "kill pool"]);
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_hangs_holds_up_neither_start_nor_stop() {
    let diary = Diary::default();
    let (broker, _script) = Script::broker().await;
    let began = Instant::now();
    let error = Service::new("office", broker)
        .extension(Noting::failing("pool", &diary, "hang"))
        .start_within(Duration::from_secs(2))
        .stop_within(Duration::from_secs(3))
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("service \"office\""), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(2 + 3 + 2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_stopped_before_it_is_ready_says_so_and_it_is_no_error() {
    let diary = Diary::default();
    let (broker, _script) = Script::broker().await;
    let started = Service::new("office", broker)
        .extension(Noting::new("pool", &diary))
        .entrypoint(Door(Noting::failing("door", &diary, "hang in start")))
        .start_until(sleep(Duration::from_secs(1)))
        .await;
    assert!(matches!(started, Ok(Started::Stopped)), "{started:?}");
    assert_eq!(diary.read()[2..], ["start door", "stop door", "stop pool"]);
}

#[tokio::test(start_paused = true)]
async fn consumers_come_and_go_while_the_service_runs() {
    let (broker, script) = Script::broker().await;
    let mut running = Service::new("office", broker).start().await.unwrap();
    running.add(Consumer::new(&BILLING, ack, Arc::new(()))).await.unwrap();
    let receiver = script.receiver(0).await;
    receiver.deliver("order 1");
    receiver.settles(1).await;
    assert_eq!(running.health().consumers().len(), 1);
    assert_eq!(running.remove("shipping", in_seconds(5)).await.unwrap(), 0);
    assert_eq!(running.remove("billing", in_seconds(5)).await.unwrap(), 1);
    assert_eq!(running.health().consumers().len(), 0);
    receiver.change(|state| assert!(state.stopped && state.closed));
    assert_eq!(receiver.settlements(), [(1, Outcome::Ack)]);
    running.add(Consumer::new(&BILLING, ack, Arc::new(()))).await.unwrap();
    script.receiver(1).await.deliver("order 2");
    script.receiver(1).await.settles(1).await;
    running.stop(in_seconds(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_entrypoint_that_fails_to_start_later_is_stopped_and_the_service_goes_on() {
    let diary = Diary::default();
    let (broker, script) = Script::broker().await;
    let mut running = Service::new("office", broker).consume(&BILLING, ack).start().await.unwrap();
    let error = running.add(Door(Noting::failing("door", &diary, "start"))).await.unwrap_err();
    assert!(error.to_string().contains("no start"), "{error}");
    assert_eq!(diary.read(), ["start door", "stop door"]);
    let receiver = script.receiver(0).await;
    receiver.deliver("order 1");
    receiver.settles(1).await;
    in_time(running.stop(in_seconds(5))).await.unwrap();
}
