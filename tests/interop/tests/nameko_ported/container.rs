//! `test/test_container.py`.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use enoki::{
    Body, Error, ErrorKind, Failure, Outcome, Service,
    consume::{Handler, OnError, Provided, Provider, WorkerInfo},
    service::{Entrypoint, Extension, Scope},
    testing::EntrypointWaiter,
};
use enoki_interop::Checked;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::stage::{Stage, heard, in_time, same, soon, to_queue};

/// What happened, in its order.
#[derive(Debug, Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn read(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Provider for Diary {
    type Handle = Diary;

    async fn provide(&self, worker: &WorkerInfo) -> Result<Diary, Failure> {
        self.note(format!("provide to {}.{}", worker.service, worker.handler));
        Ok(self.clone())
    }

    async fn setup(&self, _: &WorkerInfo, _: &Diary) -> Result<(), Failure> {
        self.note("setup");
        Ok(())
    }

    async fn result(
        &self,
        _: &WorkerInfo,
        _: &Diary,
        result: Result<Outcome, &Failure>,
    ) -> Result<(), Failure> {
        self.note(match result {
            Ok(outcome) => format!("result {outcome}"),
            Err(failure) => format!("result {failure}"),
        });
        Ok(())
    }

    async fn teardown(&self, _: &WorkerInfo, _: Diary) -> Result<(), Failure> {
        self.note("teardown");
        Ok(())
    }
}

async fn handle(Provided(diary): Provided<Diary>, Body(body): Body<String>) -> Result<(), Failure> {
    diary.note(format!("handle {body}"));
    if body == "egg" { Err(Failure::new("broken")) } else { Ok(()) }
}

/// The hooks of a dependency come in their order, and are told the result, of success and failure.
pub(crate) async fn worker_life_cycle(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let diary = Diary::default();
    let service = Service::new("spam", broker.clone())
        .state(diary.clone())
        .consume(&queue.clone().of::<String>(), handle.on_error(OnError::ack()).named("ham"));
    let running = service.start().await?;
    let mut waiter = EntrypointWaiter::new(&running);
    let publisher = to_queue::<String>(&broker, &queue).await?;
    for (body, result) in [("ham", "result ack"), ("egg", "result broken")] {
        publisher.publish(&body.to_owned()).await?;
        waiter.any().await?;
        let handled = format!("handle {body}");
        let expected = ["provide to spam.ham", "setup", &handled, result, "teardown"];
        same("what happened", diary.read(), expected)?;
    }
    Ok(running.stop(soon()).await?)
}

/// With a limit of one, a second worker waits until the first is through, whatever it handles.
pub(crate) async fn doesnt_exhaust_max_workers(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let (one, two) = (stage.queue("one")?, stage.queue("two")?);
    let (running_now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, mut sees) = mpsc::unbounded_channel();
    let counted = (running_now.clone(), most.clone());
    let handler = move |Body(number): Body<u32>| {
        let ((now, most), seen) = (counted.clone(), seen.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            let _ = seen.send(number);
        }
    };
    let service = Service::new("test", broker.clone())
        .workers(1)
        .consume(&one.clone().of::<u32>(), handler.clone())
        .consume(&two.clone().of::<u32>(), handler);
    let running = service.start().await?;
    let (one, two) = (to_queue::<u32>(&broker, &one).await?, to_queue::<u32>(&broker, &two).await?);
    for number in 0..5 {
        one.enqueue(&number).await?.await?;
        two.enqueue(&(number + 5)).await?.await?;
    }
    let mut handled = Vec::new();
    for _ in 0..10 {
        handled.push(heard(&mut sees).await?);
    }
    handled.sort_unstable();
    same("what is handled", handled, (0..10).collect::<Vec<_>>())?;
    same("most at a time", most.load(Ordering::SeqCst), 1)?;
    Ok(running.stop(soon()).await?)
}

#[async_trait]
impl Extension for Diary {
    fn name(&self) -> &str {
        "diary"
    }

    async fn setup(&self, _: &Scope) -> enoki::Result<()> {
        self.note("the extension is set up");
        Ok(())
    }

    async fn stop(&self, _: Instant) -> enoki::Result<()> {
        self.note("the extension stops");
        Ok(())
    }
}

/// Work ends first, then what it depends on.
pub(crate) async fn stops_entrypoints_before_dependency_providers(stage: &Stage) -> Checked {
    let broker = stage.broker().await?;
    let queue = stage.queue("q")?;
    let (diary, finish) = (Diary::default(), Arc::new(Notify::new()));
    let (began, mut begins) = mpsc::unbounded_channel();
    let (in_handler, may_finish) = (diary.clone(), finish.clone());
    let handler = move |_: Body<String>| {
        let (diary, may_finish) = (in_handler.clone(), may_finish.clone());
        let _ = began.send(());
        async move {
            may_finish.notified().await;
            diary.note("the handler is through");
        }
    };
    let service = Service::new("test", broker.clone())
        .extension(Arc::new(diary.clone()))
        .consume(&queue.clone().of::<String>(), handler);
    let running = service.start().await?;
    to_queue::<String>(&broker, &queue).await?.publish(&"m1".to_owned()).await?;
    heard(&mut begins).await?;
    let (stopped, ()) = tokio::join!(running.stop(soon()), async { finish.notify_one() });
    stopped?;
    let expected = ["the extension is set up", "the handler is through", "the extension stops"];
    same("what happened", diary.read(), expected)
}

/// An entrypoint that notes how it ends, or fails at once.
struct Noting {
    diary: Diary,
    fails: bool,
}

#[async_trait]
impl Entrypoint for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    async fn start(&mut self, scope: Scope) -> enoki::Result<()> {
        if self.fails {
            scope.fail(Error::new(ErrorKind::Unexpected, "note").because("the pen is dry"));
        }
        Ok(())
    }

    async fn stop(&mut self, _: Instant) -> enoki::Result<()> {
        self.diary.note("stopped");
        Ok(())
    }

    async fn kill(&mut self) {
        self.diary.note("killed");
    }
}

/// A service that is killed kills what it has once, and does not stop it besides. To kill it twice
/// cannot be written.
pub(crate) async fn only_killed_once(stage: &Stage) -> Checked {
    let diary = Diary::default();
    let entrypoint = Noting { diary: diary.clone(), fails: false };
    let service = Service::new("test", stage.broker().await?).entrypoint(entrypoint);
    service.start().await?.kill().await;
    same("what happened", diary.read(), ["killed"])
}

/// What fails in the background ends the service, which tells why.
pub(crate) async fn spawned_thread_kills_container(stage: &Stage) -> Checked {
    let diary = Diary::default();
    let entrypoint = Noting { diary: diary.clone(), fails: true };
    let service = Service::new("test", stage.broker().await?).entrypoint(entrypoint);
    let ended = in_time("the end", service.run_until(std::future::pending())).await?;
    let error = ended.err().ok_or("it ended without an error")?;
    same("the error", error.to_string().contains("the pen is dry"), true)?;
    same("what happened", diary.read(), ["stopped"])
}
