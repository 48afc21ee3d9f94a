//! The harness that an author of a transport writes: how to reach a broker, and what must work there.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use enoki_core::{Capability, Result, Transport};

/// One broker, as the suite reaches it.
///
/// The harness says what must work, and not the transport: a transport that forgets to claim a
/// capability fails, instead of having fewer cases.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// The name before each case in the output: `memory`, `rabbitmq-4`.
    fn name(&self) -> &str;

    /// What must work here. Cases that need more are shown as ignored.
    ///
    /// With [`Capability::VirtualTime`] each case runs on a paused clock, so that hours pass at once
    /// when nothing else is left to do.
    fn capabilities(&self) -> Vec<Capability>;

    /// A way to the broker. Called once for each case; cases use names of their own, so they may
    /// share a broker.
    async fn transport(&self) -> Result<Arc<dyn Transport>>;

    /// A way that does not lead there; `None` where there is no such way.
    fn broken(&self, how: Broken) -> Option<Arc<dyn Transport>> {
        let _ = how;
        None
    }

    /// Why there is no broker to run against, if so: `needs ENOKI_RABBITMQ_4`. All cases are then
    /// shown as ignored, or fail where `ENOKI_REQUIRE_BROKERS=1`.
    fn unavailable(&self) -> Option<String> {
        None
    }
}

/// How a way to a broker can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// It logs in with [`Broken::PASSWORD`].
    WrongPassword,
    /// It asks for the virtual host [`Broken::VIRTUAL_HOST`].
    MissingVirtualHost,
    /// No process listens there: connections are refused.
    Unreachable,
    /// A process listens there, and sends nothing.
    Silent,
}

impl Broken {
    /// A password that no broker has, and that no error may show.
    pub const PASSWORD: &str = "S3cr3t-CANARY-7f1d";
    /// A virtual host that no broker has.
    pub const VIRTUAL_HOST: &str = "enoki-no-such-host";

    /// The name in reasons for ignoring: `a wrong password`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "a wrong password",
            Self::MissingVirtualHost => "a missing virtual host",
            Self::Unreachable => "an unreachable broker",
            Self::Silent => "a silent broker",
        }
    }
}
