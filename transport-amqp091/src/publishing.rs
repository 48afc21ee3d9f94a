//! Publishing on channels that lapin has opened, beside lapin. `docs/design/16-amqp091.md` says why.
//!
//! A sender and the connection's task share a [`PublishChannel`](channel::PublishChannel): the sender puts messages
//! in, the task takes them out, tells it the broker's answers, and the sender takes the outcomes out. Nothing here
//! knows a socket or a runtime.

pub(crate) mod channel;
pub(crate) mod channels;
mod close_reason;
#[cfg(test)]
mod tests;
pub(crate) mod unconfirmed;
