//! Mocks of the traits that users and transport authors implement, by [mockall].
//!
//! For what no broker does when a test wants it: a login that is refused, a confirm that never
//! comes, a session that dies. Where a broker behaves, the one in memory is less to write, and
//! handlers need neither: see [`testing`](crate::testing).
//!
//! Asynchronous methods return a boxed future, so that an expectation can also keep its caller
//! waiting:
//!
//! ```
//! use std::{future, sync::Arc};
//! use enoki_core::{Broker, Error, ErrorKind, mock::MockTransport};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let mut refuses = MockTransport::new();
//! refuses.expect_name().return_const("mock");
//! refuses.expect_connect().returning(|_, _| {
//!     Box::pin(future::ready(Err(Error::new(ErrorKind::Denied, "log in"))))
//! });
//! let error = Broker::connect(Arc::new(refuses)).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Denied);
//!
//! let mut silent = MockTransport::new();
//! silent.expect_connect().returning(|_, _| Box::pin(future::pending()));
//! silent.expect_name().return_const("mock");
//! let error = Broker::connect(Arc::new(silent)).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Timeout);
//! # }
//! ```

#![allow(missing_docs, reason = "each method is that of its trait, where it is documented")]
#![deny(clippy::missing_trait_methods, reason = "a mock answers for all of its trait")]

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
/// The library that these mocks are made with, for its `predicate`s.
pub use mockall;
use mockall::mock;
use tokio::{sync::watch, time::Instant};

use crate::{
    capability::Peer,
    context::Context,
    context::header_codec::HeaderCodec,
    entrypoint::{Entrypoint, Scope},
    error::{Error, Result},
    health::ConsumerHealth,
    message::payload::Payload,
    message::value::Table,
    service::extension::Extension,
    topology::Exchange,
    topology::queue::Queue,
    topology::{ExchangeSpec, QueueSpec, Topology},
    transport::{
        Change, Delivered, End, Found, Outgoing, PublishOutcome, Purpose, Receiver,
        ReceiverOptions, Sender, SenderOptions, Session, Settle, Transport,
    },
};

mock! {
    /// A mock of [`Transport`].
    #[derive(Debug)]
    pub Transport {
        pub fn connect(
            &self,
            purpose: Purpose,
            deadline: Instant,
        ) -> BoxFuture<'static, Result<Arc<dyn Session>>>;
        pub fn name(&self) -> &'static str;
    }
}

#[async_trait]
impl Transport for MockTransport {
    fn name(&self) -> &'static str {
        self.name()
    }

    async fn connect(&self, purpose: Purpose, deadline: Instant) -> Result<Arc<dyn Session>> {
        self.connect(purpose, deadline).await
    }
}

mock! {
    /// A mock of [`Session`].
    #[derive(Debug)]
    pub Session {
        pub fn peer(&self) -> &Peer;
        pub fn apply(&self, change: &Change) -> BoxFuture<'static, Result<Found>>;
        pub fn sender(&self, options: SenderOptions) -> BoxFuture<'static, Result<Box<dyn Sender>>>;
        pub fn receiver(
            &self,
            options: ReceiverOptions,
        ) -> BoxFuture<'static, Result<Box<dyn Receiver>>>;
        pub fn ended(&self) -> BoxFuture<'static, Error>;
        pub fn close(&self, deadline: Instant) -> BoxFuture<'static, ()>;
    }
}

#[async_trait]
impl Session for MockSession {
    fn peer(&self) -> &Peer {
        self.peer()
    }

    async fn apply(&self, change: &Change) -> Result<Found> {
        self.apply(change).await
    }

    async fn sender(&self, options: SenderOptions) -> Result<Box<dyn Sender>> {
        self.sender(options).await
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>> {
        self.receiver(options).await
    }

    /// It is never blocked.
    fn blocked(&self) -> watch::Receiver<Option<Arc<str>>> {
        watch::channel(None).1
    }

    async fn ended(&self) -> Error {
        self.ended().await
    }

    async fn close(&self, deadline: Instant) {
        self.close(deadline).await;
    }
}

mock! {
    /// A mock of [`Sender`].
    #[derive(Debug)]
    pub Sender {
        pub fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> BoxFuture<'static, Result<()>>;
        pub fn outcomes(
            &mut self,
            into: &mut Vec<(u64, PublishOutcome)>,
        ) -> BoxFuture<'static, Result<()>>;
    }
}

#[async_trait]
impl Sender for MockSender {
    async fn submit(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<()> {
        self.submit(messages).await
    }

    async fn outcomes(&mut self, into: &mut Vec<(u64, PublishOutcome)>) -> Result<()> {
        self.outcomes(into).await
    }
}

mock! {
    /// A mock of [`Receiver`].
    #[derive(Debug)]
    pub Receiver {
        pub fn receive(
            &mut self,
            into: &mut Vec<Delivered>,
            max: usize,
        ) -> BoxFuture<'static, Result<(), End>>;
        pub fn settle(&mut self, settlements: &[Settle]);
        pub fn stop(&mut self) -> BoxFuture<'static, Result<()>>;
        pub fn close(&mut self) -> BoxFuture<'static, Result<()>>;
    }
}

#[async_trait]
impl Receiver for MockReceiver {
    async fn receive(&mut self, into: &mut Vec<Delivered>, max: usize) -> Result<(), End> {
        self.receive(into, max).await
    }

    fn settle(&mut self, settlements: &[Settle]) {
        self.settle(settlements);
    }

    /// Nothing waits in its broker.
    fn delays(&self) -> bool {
        false
    }

    async fn stop(&mut self) -> Result<()> {
        self.stop().await
    }

    /// To stop it is to stop it.
    async fn stop_last(&mut self) -> Result<()> {
        self.stop().await
    }

    async fn close(&mut self) -> Result<()> {
        self.close().await
    }
}

mock! {
    /// A mock of [`Entrypoint`].
    #[derive(Debug)]
    pub Entrypoint {
        pub fn name(&self) -> &str;
        pub fn start(&mut self, scope: Scope) -> BoxFuture<'static, Result<()>>;
        pub fn stop(&mut self, deadline: Instant) -> BoxFuture<'static, Result<()>>;
        pub fn kill(&mut self) -> BoxFuture<'static, ()>;
    }
}

#[async_trait]
impl Entrypoint for MockEntrypoint {
    fn name(&self) -> &str {
        self.name()
    }

    async fn start(&mut self, scope: Scope) -> Result<()> {
        self.start(scope).await
    }

    async fn stop(&mut self, deadline: Instant) -> Result<()> {
        self.stop(deadline).await
    }

    async fn kill(&mut self) {
        self.kill().await;
    }

    /// It is no consumer.
    fn health(&self) -> Option<watch::Receiver<ConsumerHealth>> {
        None
    }
}

mock! {
    /// A mock of [`Extension`].
    #[derive(Debug)]
    pub Extension {
        pub fn name(&self) -> &str;
        pub fn setup(&self, scope: &Scope) -> BoxFuture<'static, Result<()>>;
        pub fn start(&self) -> BoxFuture<'static, Result<()>>;
        pub fn stop(&self, deadline: Instant) -> BoxFuture<'static, Result<()>>;
        pub fn kill(&self) -> BoxFuture<'static, ()>;
    }
}

#[async_trait]
impl Extension for MockExtension {
    fn name(&self) -> &str {
        self.name()
    }

    async fn setup(&self, scope: &Scope) -> Result<()> {
        self.setup(scope).await
    }

    async fn start(&self) -> Result<()> {
        self.start().await
    }

    async fn stop(&self, deadline: Instant) -> Result<()> {
        self.stop(deadline).await
    }

    async fn kill(&self) {
        self.kill().await;
    }
}

mock! {
    /// A mock of [`HeaderCodec`].
    #[derive(Debug)]
    pub HeaderCodec {}

    impl HeaderCodec for HeaderCodec {
        fn encode(&self, context: &Context, headers: &mut Table) -> Result<()>;
        fn decode(&self, headers: &Table) -> Context;
    }
}

mock! {
    /// A mock of [`Exchange`].
    #[derive(Debug)]
    pub Exchange {}

    impl Exchange for Exchange {
        fn spec(&self) -> ExchangeSpec;
        fn describe(&self, topology: &mut Topology);
    }
}

mock! {
    /// A mock of [`Queue`].
    #[derive(Debug)]
    pub Queue<M: Payload> {}

    impl<M: Payload> Queue for Queue<M> {
        type Message = M;
        fn spec(&self) -> QueueSpec;
        fn describe(&self, topology: &mut Topology);
    }
}
