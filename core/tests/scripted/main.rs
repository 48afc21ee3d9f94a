//! Brokers, publishers, consumers and services over a transport that a test has in its hand: what
//! they do when a broker is slow, wrong or gone.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod connection;
mod consumer;
mod declared;
mod extension;
mod later;
mod log;
mod mandatory;
mod named;
mod panics;
mod pipeline;
mod poison;
mod provider;
mod publication;
mod recall;
mod retries;
mod script;
mod service;
mod subscription;
mod told;
