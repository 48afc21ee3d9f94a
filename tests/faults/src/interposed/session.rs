//! A session that can be severed.

use std::sync::Arc;

use async_trait::async_trait;
use enoki::{
    Error, ErrorKind, Result,
    broker::Peer,
    transport::{Change, Found, Receiver, ReceiverOptions, Sender, SenderOptions, Session},
};
use tokio::{sync::watch, time::Instant};

use super::{Control, receiver::InterposedReceiver, sender::InterposedSender};

#[derive(Debug)]
pub(super) struct Interposed {
    inner: Arc<dyn Session>,
    control: Arc<Control>,
    severed: watch::Sender<bool>,
}

impl Interposed {
    pub(super) fn new(inner: Arc<dyn Session>, control: Arc<Control>) -> Self {
        Self { inner, control, severed: watch::Sender::new(false) }
    }

    /// Ends it: for the program at once and by surprise, for the broker as if it had been closed.
    pub(super) async fn sever(&self) {
        self.severed.send_replace(true);
        self.inner.close(Instant::now()).await;
    }

    fn alive(&self) -> Result<()> {
        if *self.severed.borrow() { Err(lost()) } else { Ok(()) }
    }
}

/// The end of a session that was severed.
pub(super) fn lost() -> Error {
    Error::new(ErrorKind::Connection, "use the session").because("a test has severed it")
}

/// Waits for the end of a session by severing.
pub(super) async fn severed(severed: &watch::Receiver<bool>) {
    let _ = severed.clone().wait_for(|severed| *severed).await;
}

#[async_trait]
impl Session for Interposed {
    fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        self.alive()?;
        self.inner.apply(change).await
    }

    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>> {
        self.alive()?;
        let sender = self.inner.sender(options).await?;
        let sender = InterposedSender::new(sender, self.control.clone(), self.severed.subscribe());
        Ok(Box::new(sender))
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        self.alive()?;
        let receiver = self.inner.receiver(options).await?;
        let receiver =
            InterposedReceiver::new(receiver, self.control.clone(), self.severed.subscribe());
        Ok(Box::new(receiver))
    }

    async fn ended(&self) -> Error {
        let watching = self.severed.subscribe();
        tokio::select! {
            biased;
            () = severed(&watching) => lost(),
            error = self.inner.ended() => error,
        }
    }

    async fn close(&self, deadline: Instant) {
        self.inner.close(deadline).await;
    }
}
