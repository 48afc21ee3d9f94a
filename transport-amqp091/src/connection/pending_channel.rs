//! A channel whose request may be given up at any moment.

use std::ops::Deref;

use enoki_core::transport::spawn;
use lapin::{Channel, options::BasicQosOptions, protocol::constants::REPLY_SUCCESS};
use tokio::{runtime::Handle, time::timeout};

use crate::limits::REPLY_TIMEOUT;

/// A channel with a request that is not answered yet, until [`PendingChannel::keep`].
///
/// When the caller drops it first, the answer still comes: as a consumer that lapin keeps and this process never reads,
/// or as the broker's `channel.close`. lapin would give up the connection if this side closed the channel at that moment.
/// So the channel is closed after the answer.
pub(crate) struct PendingChannel {
    channel: Channel,
    kept: bool,
}

impl PendingChannel {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, kept: false }
    }

    /// The request is answered: the caller keeps the channel.
    pub(crate) fn keep(mut self) -> Channel {
        self.kept = true;
        self.channel.clone()
    }
}

impl Deref for PendingChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for PendingChannel {
    fn drop(&mut self) {
        if self.kept || !self.channel.status().connected() {
            return;
        }
        let channel = self.channel.clone();
        let closing = async move {
            // The broker answers the requests of a channel in their order, so the answer to this one comes last.
            let behind = channel.basic_qos(1, BasicQosOptions::default());
            let _ = timeout(REPLY_TIMEOUT, behind).await;
            if channel.status().connected() {
                let close = channel.close(REPLY_SUCCESS, "OK".into());
                let _ = timeout(REPLY_TIMEOUT, close).await;
            }
        };
        if Handle::try_current().is_ok() {
            spawn("close a channel", closing, drop);
        }
    }
}
