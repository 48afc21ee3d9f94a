//! The cases, by what they are about.

mod codec;
mod connect;
mod consume;
mod errors;
mod handover;
mod headers;
mod limits;
mod many;
mod publish;
mod retry;
mod routing;
mod service;
mod settle;
mod shutdown;
mod topology;

use crate::case::Case;

/// All cases, group by group.
pub fn all() -> impl Iterator<Item = &'static Case> + Send {
    [
        connect::CASES,
        topology::CASES,
        routing::CASES,
        limits::CASES,
        publish::CASES,
        consume::CASES,
        settle::CASES,
        retry::CASES,
        headers::CASES,
        codec::CASES,
        errors::CASES,
        service::CASES,
        shutdown::CASES,
        handover::CASES,
        many::CASES,
    ]
    .into_iter()
    .flatten()
}
