//! A delivery on its way to a handler, and what was provided for it.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::{
    context::Callee,
    delivery::{Delivery, Envelope},
    error::{Error, ErrorKind, Result},
    failure::Failure,
    message::codec::Codecs,
    outcome::Outcome,
};

/// A delivery that a handler's arguments are being taken out of.
#[derive(Debug)]
pub struct Incoming<'d> {
    delivery: &'d mut Option<Delivery>,
    codecs: &'d Codecs,
    callee: &'d Arc<Callee>,
    hooks: &'d mut Hooks,
}

impl<'d> Incoming<'d> {
    pub(crate) fn new(
        delivery: &'d mut Option<Delivery>,
        codecs: &'d Codecs,
        callee: &'d Arc<Callee>,
        hooks: &'d mut Hooks,
    ) -> Self {
        Self { delivery, codecs, callee, hooks }
    }

    /// What is told of the worker's result.
    pub(crate) fn hooks(&mut self) -> &mut Hooks {
        self.hooks
    }

    pub(super) fn codecs(&self) -> &Codecs {
        self.codecs
    }

    pub(super) fn callee(&self) -> &Arc<Callee> {
        self.callee
    }

    /// Leaves this delivery in place of the one that is there, and gives that one out.
    pub(super) fn replace(&mut self, delivery: Delivery) -> Option<Delivery> {
        self.delivery.replace(delivery)
    }

    /// The worker that this is.
    pub(crate) fn worker(&self) -> Result<WorkerInfo> {
        let envelope = self.delivery()?.envelope().clone();
        let Callee { service, handler, .. } = &**self.callee;
        Ok(WorkerInfo { service: service.clone(), handler: handler.clone(), envelope })
    }

    /// The delivery. Where another argument has taken it, one to look at.
    pub fn delivery(&self) -> Result<&Delivery> {
        self.delivery.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "call a handler").because("there is no delivery")
        })
    }

    /// The message with its headers and properties.
    pub fn message(&self) -> Result<&crate::Message> {
        self.delivery().map(Delivery::message)
    }
}

/// Which worker a [`Provider`](crate::Provider) is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The name of the service.
    pub service: Arc<str>,
    /// The name of the handler.
    pub handler: Arc<str>,
    /// The delivery that it handles.
    pub envelope: Envelope,
}

/// What was provided to one worker, to be told of its result.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(super) made: Vec<Box<dyn Hook>>,
}

impl Hooks {
    pub(crate) async fn set_up(&mut self) -> Result<(), Failure> {
        for hook in &mut self.made {
            hook.setup().await.map_err(Failure::of_provider)?;
        }
        Ok(())
    }

    /// Tells the result to everything that was provided. A provider that fails turns a success into
    /// that failure, which is returned.
    pub(crate) async fn result(
        &mut self,
        mut result: Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        for hook in &mut self.made {
            if let Err(failure) = guarded(hook.result(result.as_ref().copied())).await {
                result = result.and(Err(failure));
            }
        }
        result
    }

    pub(crate) async fn tear_down(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(mut hook) = self.made.pop() {
            result = result.and(guarded(hook.teardown()).await);
        }
        result
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("made", &self.made.len()).finish_non_exhaustive()
    }
}

/// A panic of one provider must not keep the others from their turn.
async fn guarded(hook: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    AssertUnwindSafe(hook)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Failure::new("a provider of a dependency panicked")))
}

/// A provider and what it made, whose types are forgotten.
#[async_trait]
pub(super) trait Hook: Send {
    async fn setup(&mut self) -> Result<(), Failure>;
    async fn result(&mut self, result: Result<Outcome, &Failure>) -> Result<(), Failure>;
    async fn teardown(&mut self) -> Result<(), Failure>;
}
