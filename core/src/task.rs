//! Work that may panic, and must not do so unseen.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// Does work, and turns a panic in it into an error of kind [`Unexpected`](ErrorKind::Unexpected).
///
/// The error does not quote the panic, which may quote anything: the panic hook has it, and by default
/// writes it to standard error. What the work owned is dropped when this returns.
pub async fn guarded<T>(operation: &'static str, work: impl Future<Output = T>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        forget(panic);
        log(|| {
            tracing::error!(operation, "a task of enoki panicked; it goes on with its next work")
        });
        Error::new(ErrorKind::Unexpected, operation)
            .because("the task that does it panicked")
            .remedy("please report it, with what the panic wrote to standard error")
    })
}

/// Spawns a task whose end is never silent: if it panics, that is logged, and this is told the error.
/// It is the only way for tasks of the toolkit and its transports to start.
///
/// Needs a runtime, like [`tokio::spawn`].
pub fn spawn<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = T> + Send + 'static,
    panicked: impl FnOnce(Error) + Send + 'static,
) -> JoinHandle<Option<T>> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    tokio::spawn(async move {
        match guarded(operation, work).await {
            Ok(done) => Some(done),
            Err(error) => {
                panicked(error);
                None
            }
        }
    })
}

/// Logs where a panic would cost more than a line of the log. What is logged may be the program's own
/// error, and whatever listens may be the program's own layer: both may panic.
pub(crate) fn log(line: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(line)) {
        forget(panic);
    }
}

/// Drops what a panic said. That may panic again, once.
pub(crate) fn forget(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Panics when it is dropped, as a value of a panic may.
    struct Spring;

    impl Drop for Spring {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_everything_else_passes() {
        assert_eq!(guarded("add", async { 1 + 1 }).await.unwrap(), 2);
        let error = guarded("add", async { panic!("a secret") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        assert!(error.to_string().starts_with("add: the task that does it panicked"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn what_a_panic_carries_may_panic_itself() {
        let work = async { std::panic::panic_any(Spring) };
        assert!(guarded("add", work).await.is_err());
        log(|| std::panic::panic_any(Spring));
    }

    #[tokio::test]
    async fn a_task_that_panics_tells_it() {
        let (tell, told) = oneshot::channel();
        let task = spawn("add", async { panic!("so") }, |error| tell.send(error.kind()).unwrap());
        assert_eq!(task.await.unwrap(), None);
        assert_eq!(told.await.unwrap(), ErrorKind::Unexpected);
        let task = spawn("add", async { 2 }, |error| panic!("{error}"));
        assert_eq!(task.await.unwrap(), Some(2));
    }
}
