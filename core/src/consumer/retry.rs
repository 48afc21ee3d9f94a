//! Failed messages that are tried again later, a limited number of times, and then kept as dead letters with
//! their cause. Why it is so: `docs/design/23-retries.md`.
//!
//! `crate::retry` says what to do, [`marks`] what a copy says in its headers, [`cause`] what a dead letter
//! says, and [`retrier`] does it.

pub(crate) mod cause;
pub(crate) mod marks;
pub(crate) mod retrier;
