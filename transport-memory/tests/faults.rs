//! A suite that passes on a broken broker proves nothing: each broken promise makes cases fail, and
//! these by name. `cargo test -p enoki-transport-memory --test faults -- --nocapture` shows all.

#[path = "harness/memory.rs"]
mod memory;

use std::{collections::BTreeSet, sync::Arc};

use enoki_conformance::Verdict;
use enoki_transport_memory::{Fault, Version};

use crate::memory::Memory;

#[test]
fn without_a_fault_nothing_fails() {
    assert_eq!(failures(None), BTreeSet::new());
}

#[test]
fn a_requeue_that_removes_is_found() {
    expect_failures(
        Fault::RequeueIsAck,
        &[
            "consume::three_consumers_that_fail_lose_nothing",
            "service::a_failed_handler_requeues",
            "service::a_panicking_handler_requeues_and_the_consumer_lives",
            "settle::a_dropped_delivery_comes_back",
            "settle::a_requeued_message_comes_back",
            "settle::a_requeued_message_keeps_its_place",
            "settle::a_requeued_message_may_go_to_another_consumer",
            "settle::attempts_are_counted",
            "settle::each_of_a_batch_ends_as_it_was_settled",
            "settle::random_sequences_agree_with_the_model",
            "settle::two_requeued_of_a_hundred_come_back",
            "topology::a_delivery_limit_ends_a_message",
        ],
    );
}

#[test]
fn a_delay_that_is_ignored_is_found() {
    expect_failures(
        Fault::DelayIsIgnored,
        &[
            "settle::a_message_requeued_for_later_comes_back_after_its_delay_and_not_before",
            "settle::a_replicated_queue_requeues_for_later",
            "settle::each_delay_is_its_own",
            "settle::what_is_requeued_for_later_waits_in_a_replicated_queue",
            "settle::what_is_requeued_for_later_waits_in_the_broker",
        ],
    );
}

#[test]
fn a_reject_that_removes_is_found() {
    expect_failures(
        Fault::RejectIsAck,
        &[
            "codec::a_body_that_cannot_be_decoded_is_dead_lettered",
            "codec::an_unknown_content_type_is_dead_lettered",
            "service::a_failed_handler_may_reject",
            "settle::a_dead_letter_is_the_message_it_was",
            "settle::a_rejected_message_is_dead_lettered",
            "settle::dead_letters_count_their_deaths",
            "settle::each_of_a_batch_ends_as_it_was_settled",
            "settle::random_sequences_agree_with_the_model",
            "topology::dead_letters_may_have_a_key_of_their_own",
        ],
    );
}

#[test]
fn a_release_that_counts_is_found() {
    expect_failures(
        Fault::ReleaseIsCounted,
        &[
            "settle::a_released_message_is_not_counted",
            "shutdown::stopping_does_not_count_what_no_handler_has_started_on",
        ],
    );
}

#[test]
fn a_confirm_of_an_unroutable_message_is_found() {
    expect_failures(
        Fault::UnroutableIsConfirmed,
        &[
            "publish::a_batch_ends_as_single_messages_do",
            "publish::an_unroutable_message_is_reported",
            "publish::an_unroutable_message_to_a_missing_queue_is_reported",
            "publish::exactly_the_unroutable_ones_are_reported",
            "topology::a_deleted_queue_takes_its_bindings_along",
            "topology::unbinding_stops_the_flow",
        ],
    );
}

#[test]
fn a_confirm_that_never_comes_is_found() {
    expect_failures(
        Fault::ConfirmsAreLost,
        &[
            "publish::a_confirmed_message_is_stored",
            "publish::twenty_publishers_close_after_ten_thousand_messages",
            "shutdown::closing_waits_for_confirms",
            "topology::a_full_queue_refuses_the_newest",
        ],
    );
}

#[test]
fn a_confirm_of_a_message_that_is_lost_is_found() {
    expect_failures(
        Fault::MessagesAreLost,
        &[
            "publish::a_confirmed_message_is_stored",
            "publish::many_publishers_and_consumers_lose_nothing",
            "publish::twenty_publishers_close_after_ten_thousand_messages",
            "consume::what_was_not_taken_is_there_for_the_next",
        ],
    );
}

#[test]
fn a_prefetch_that_is_ignored_is_found() {
    expect_failures(
        Fault::PrefetchIsIgnored,
        &[
            "consume::a_prefetch_is_exact",
            "consume::a_prefetch_of_one_is_one_at_a_time",
            "topology::the_status_counts_messages_and_consumers",
        ],
    );
}

#[test]
fn a_redelivery_that_is_not_marked_is_found() {
    expect_failures(
        Fault::RedeliveredIsLost,
        &[
            "service::a_failed_handler_requeues",
            "settle::a_requeued_message_comes_back",
            "settle::attempts_are_counted",
            "settle::random_sequences_agree_with_the_model",
            "settle::settling_after_a_lost_connection_is_stale",
            "settle::settling_after_the_end_is_stale",
            "settle::two_requeued_of_a_hundred_come_back",
        ],
    );
}

#[test]
fn an_order_that_is_reversed_is_found() {
    expect_failures(
        Fault::OrderIsReversed,
        &[
            "consume::what_was_not_taken_keeps_its_order",
            "publish::clones_of_a_publisher_share_its_order",
            "service::a_concurrency_of_one_keeps_the_order",
            "settle::a_released_message_keeps_its_place",
            "settle::a_requeued_message_keeps_its_place",
            "topology::a_full_queue_drops_the_oldest",
            "topology::the_higher_priority_comes_first",
        ],
    );
}

/// Expects that these cases fail with the fault; others may.
fn expect_failures(fault: Fault, wanted: &[&'static str]) {
    let failed = failures(Some(fault));
    let missed: Vec<_> = wanted.iter().filter(|name| !failed.contains(*name)).collect();
    assert!(missed.is_empty(), "{fault:?} was not noticed by {missed:?}");
}

/// The names of the cases that fail. Says them all, as the tests above name only some.
#[allow(clippy::print_stdout, reason = "cargo test shows it when asked to, or when a test fails")]
fn failures(fault: Option<Fault>) -> BTreeSet<&'static str> {
    let verdicts = enoki_conformance::run(Arc::new(Memory(Version::Reference, fault)));
    let cases = verdicts.len();
    let failed: Vec<_> =
        verdicts.into_iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).collect();
    println!("{fault:?}: {} of {cases} cases fail", failed.len());
    for (name, verdict) in &failed {
        println!("    {name}: {verdict}");
    }
    failed.into_iter().map(|(name, _)| name).collect()
}
