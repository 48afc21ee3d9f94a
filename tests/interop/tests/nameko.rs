//! Beside the real nameko, which this toolkit descends from: a service of nameko 2.14 (Python) publishes, one of ours
//! consumes and publishes, and nameko's consumes. What each hop is given and what arrives there is
//! compared: body, headers, context and call ids. Events go both ways, too.
//!
//! nameko speaks AMQP 0-9-1; ours speaks that or AMQP 1.0. `dev/python` installs nameko.

mod nameko {
    mod calls;
    pub(super) mod hops;
    mod kitchen;
    mod service;
    pub(super) mod story;
}

use std::{process::ExitCode, sync::Arc};

use enoki_interop::{Broker, PYTHON, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, given, without};
use libtest_mimic::{Arguments, Completion, Trial};

use crate::nameko::{hops, story::Story};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let brokers = [RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3];
    let trials = brokers.into_iter().flat_map(trials);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn trials(broker: Broker) -> Vec<Trial> {
    let mut trials = Vec::new();
    let by_amqp091 = Arc::new(Story::new(broker, "amqp091", "nameko"));
    trials.extend([
        trial("what_nameko_publishes_arrives_equal", &by_amqp091, hops::to_enoki),
        trial("what_enoki_publishes_arrives_equal_at_nameko", &by_amqp091, hops::to_nameko),
        trial("the_call_ids_of_three_hops_are_one_stack", &by_amqp091, hops::stack),
        trial("an_event_of_nameko_reaches_an_enoki_consumer", &by_amqp091, hops::event_to_enoki),
        trial("an_event_of_enoki_reaches_a_nameko_handler", &by_amqp091, hops::event_to_nameko),
    ]);
    if broker == RABBITMQ_3 {
        return trials;
    }
    // What crosses as it is has a name that begins with `x-`; docs/crossing.md says why.
    let by_amqp10 = Arc::new(Story::new(broker, "amqp10", "x-nameko"));
    trials.extend([
        trial("what_nameko_publishes_arrives_equal", &by_amqp10, hops::to_enoki),
        trial("what_enoki_publishes_arrives_equal_at_nameko", &by_amqp10, hops::to_nameko),
        trial("the_call_ids_of_three_hops_are_one_stack", &by_amqp10, hops::stack),
        trial("an_event_of_nameko_reaches_an_enoki_consumer", &by_amqp10, hops::event_to_enoki),
        trial("an_event_of_enoki_reaches_a_nameko_handler", &by_amqp10, hops::event_to_nameko),
    ]);
    let by_amqp10 = Arc::new(Story::new(broker, "amqp10", "nameko"));
    trials.extend([
        trial("what_nameko_publishes_arrives_but_for_lists", &by_amqp10, hops::to_enoki),
        trial("what_enoki_publishes_has_lists_by_another_name", &by_amqp10, hops::to_nameko),
        trial("an_event_of_nameko_reaches_an_enoki_consumer", &by_amqp10, hops::event_to_enoki),
        trial("an_event_of_enoki_reaches_a_nameko_handler", &by_amqp10, hops::event_to_nameko),
    ]);
    trials
}

fn trial(name: &str, story: &Arc<Story>, check: hops::Check) -> Trial {
    let (broker, story) = (story.broker, story.clone());
    let name = format!("nameko::{}::by_{}::{name}", broker.name, story.way());
    Trial::ignorable_test(name, move || {
        if broker.url("amqp091").is_none() {
            return without(broker.variable);
        }
        if given(PYTHON).is_none() {
            return without(PYTHON);
        }
        check(&story, story.told()?)?;
        Ok(Completion::Completed)
    })
}
