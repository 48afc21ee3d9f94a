//! The time that a test gives to what it is not about: a machine may be busy with something else.

use std::time::Duration;

use enoki::{Broker, broker::BrokerOptions};

/// What takes longer than this will never be.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Options that give a broker this time to answer.
pub fn patient() -> BrokerOptions {
    BrokerOptions::new().connect_timeout(PATIENCE).declare_timeout(PATIENCE)
}

/// Connects with such options.
pub async fn connect_patiently(url: impl AsRef<str>) -> enoki::Result<Broker> {
    enoki::connect_with(url, patient()).await
}
