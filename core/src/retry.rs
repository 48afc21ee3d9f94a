//! Failed messages that are tried again later: how often and how long after ([`policy`]), and who keeps them
//! meanwhile ([`plan`]). Nothing here talks to a broker; `consumer/retry.rs` does. Why it is so:
//! `docs/design/23-retries.md`.

pub(crate) mod plan;
pub(crate) mod policy;
