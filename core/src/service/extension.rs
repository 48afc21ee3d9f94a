//! What a service has besides what brings work in.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{entrypoint::Scope, error::Result};

/// Something that lives as long as a service: a pool of connections, a cache, a reporter of metrics.
///
/// A service sets its extensions up in the order they were added, then starts them in that order,
/// then its entrypoints. It stops its entrypoints together, then its extensions in the opposite
/// order, then closes the connection. One that fails to set up or to start fails the start; those
/// before it are stopped.
///
/// Added twice, as one `Arc`, it is set up, started and stopped once: so extensions that
/// need the same one can each bring it along.
///
/// ```
/// use std::sync::Arc;
/// use enoki::{Result, Service, service::{Extension, Scope}};
///
/// struct Pool;
///
/// #[async_trait::async_trait]
/// impl Extension for Pool {
///     fn name(&self) -> &str {
///         "pool"
///     }
///
///     async fn setup(&self, scope: &Scope) -> Result<()> {
///         println!("{} connects", scope.service());
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let broker = enoki::connect("memory://extension").await?;
/// Service::new("billing", broker).extension(Arc::new(Pool)).run_until(async {}).await
/// # }
/// ```
#[async_trait]
pub trait Extension: Send + Sync + 'static {
    /// The name in logs and errors.
    fn name(&self) -> &str;

    /// Gets ready, before anything else is started.
    async fn setup(&self, scope: &Scope) -> Result<()> {
        let _ = scope;
        Ok(())
    }

    /// Starts, after everything was set up and before any work comes in.
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    /// Stops, after the last worker has finished, at most until the deadline.
    async fn stop(&self, deadline: Instant) -> Result<()> {
        let _ = deadline;
        Ok(())
    }

    /// Ends now.
    async fn kill(&self) {}
}
