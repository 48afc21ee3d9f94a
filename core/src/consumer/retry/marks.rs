//! What a copy in a wait queue says about the message that it is a copy of. Pure.
//!
//! The names are the toolkit's, and any publisher can write them. So they decide nothing that could lose a
//! message: a forged number of attempts makes it a dead letter sooner, after its handler has failed.

use std::{sync::Arc, time::Duration};

use crate::{
    delivery::Envelope,
    message::{
        Message, is_reserved,
        value::{Table, Timestamp, Value},
    },
    outcome::{Attempt, Counted},
    short_str::ShortStr,
};

/// Which attempt the copy is for: an integer, 2 or more.
pub(crate) const ATTEMPT: &str = "enoki-attempt";
/// When the handler failed for the first time: a timestamp.
pub(crate) const FIRST_FAILURE: &str = "enoki-first-failure";
/// The exchange that the message was published to: a text.
pub(crate) const EXCHANGE: &str = "enoki-exchange";
/// The routing key that it was published with: a text.
pub(crate) const ROUTING_KEY: &str = "enoki-routing-key";
/// The expiration that it was published with, in milliseconds: an integer. The copy has another.
const EXPIRATION: &str = "enoki-expiration";
/// The login that published it: a text. The broker would refuse it as the login of the copy.
pub(crate) const USER_ID: &str = "enoki-user-id";

/// What is known of a delivery that is an attempt and not the first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct History {
    pub(crate) first_failure: Option<Timestamp>,
}

/// Makes the message of a copy what it was when it was delivered for the first time, and takes out what the
/// copy says. The login stays a header: a publisher could write any.
pub(crate) fn read(envelope: &mut Envelope, adds_counts: bool) -> History {
    let here = match envelope.attempt {
        Attempt { number, counted: Counted::ByBroker } if adds_counts => number.saturating_sub(1),
        _ => 0,
    };
    let marked = envelope.message.headers.get(ATTEMPT).and_then(Value::as_int);
    let earlier = marked.and_then(|number| u32::try_from(number).ok()).unwrap_or(1).max(1);
    envelope.attempt =
        Attempt { number: earlier.saturating_add(here), counted: Counted::ByToolkit };
    if marked.is_none() {
        return History::default();
    }
    envelope.redelivered |= earlier > 1;
    let message = Arc::make_mut(&mut envelope.message);
    let headers = &mut message.headers;
    headers.remove(ATTEMPT);
    let first_failure = headers.remove(FIRST_FAILURE).and_then(|value| value.as_timestamp());
    let first_failure = first_failure.filter(|time| time.is_portable());
    let mut text = |name| match headers.remove(name) {
        Some(Value::String(text)) => ShortStr::new(text).ok(),
        _ => None,
    };
    if let Some(exchange) = text(EXCHANGE) {
        envelope.exchange = exchange;
    }
    if let Some(routing_key) = text(ROUTING_KEY) {
        envelope.routing_key = routing_key;
    }
    let expiration = headers.remove(EXPIRATION).and_then(|value| value.as_int());
    message.properties.expiration = expiration
        .and_then(|millis| u64::try_from(millis).ok())
        .map(Duration::from_millis)
        .or(message.properties.expiration);
    // That it expired in the wait queue is no news.
    headers.without(is_death);
    History { first_failure }
}

/// A copy of what was delivered, for the attempt after this one, which expires in its wait queue then.
pub(crate) fn copy(envelope: &Envelope, history: History, after: Duration) -> Message {
    let mut message = original(envelope);
    let Attempt { number, .. } = envelope.attempt;
    let headers = &mut message.headers;
    set(headers, ATTEMPT, i64::from(number.saturating_add(1)));
    set(headers, FIRST_FAILURE, history.first_failure.unwrap_or_else(Timestamp::now));
    set(headers, EXCHANGE, envelope.exchange.clone());
    set(headers, ROUTING_KEY, envelope.routing_key.clone());
    if let Some(millis) = message.properties.expiration_millis() {
        set(headers, EXPIRATION, i64::from(millis));
    }
    message.properties.expiration = Some(after);
    message
}

/// The message that was delivered, as this process may publish it. Its body is shared.
pub(crate) fn original(envelope: &Envelope) -> Message {
    let mut message = Message::clone(&envelope.message);
    message.headers.without(is_reserved);
    if let Some(user_id) = message.properties.user_id.take() {
        set(&mut message.headers, USER_ID, user_id);
    }
    message
}

pub(crate) fn set(headers: &mut Table, name: &'static str, value: impl Into<Value>) {
    headers.set(ShortStr::from_static(name), value);
}

fn is_death(name: &str) -> bool {
    name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(message: Message, attempt: Attempt) -> Envelope {
        Envelope {
            message: Arc::new(message),
            exchange: ShortStr::from_static("shop"),
            routing_key: ShortStr::from_static("order.placed"),
            redelivered: false,
            attempt,
        }
    }

    /// As the broker delivers it from its queue after it has waited.
    fn after_the_wait(copy: Message) -> Envelope {
        let mut headers = copy.headers.clone();
        headers.set(ShortStr::from_static("x-death"), vec![Value::from(1)]);
        headers.set(ShortStr::from_static("x-first-death-queue"), "billing.retry.1000ms");
        let mut properties = copy.properties.clone();
        properties.expiration = None;
        let mut envelope =
            envelope(Message { headers, properties, ..copy }, Attempt::from_flag(false));
        envelope.exchange = ShortStr::EMPTY;
        envelope.routing_key = ShortStr::from_static("billing");
        envelope
    }

    #[test]
    fn a_copy_is_read_as_the_message_that_it_is_a_copy_of() {
        let mut message = Message::new("body");
        message.headers.insert("region", "eu").unwrap();
        message.properties.message_id = Some(ShortStr::from_static("id 1"));
        message.properties.expiration = Some(Duration::from_secs(600));
        message.properties.user_id = Some(ShortStr::from_static("guest"));
        let mut first = envelope(message.clone(), Attempt::from_flag(false));
        let history = read(&mut first, false);
        assert_eq!(first.attempt, Attempt { number: 1, counted: Counted::ByToolkit });
        assert_eq!(*first.message, message);

        let mut again = after_the_wait(copy(&first, history, Duration::from_secs(1)));
        let history = read(&mut again, false);
        assert_eq!(again.attempt, Attempt { number: 2, counted: Counted::ByToolkit });
        assert!(again.redelivered);
        assert_eq!((&*again.exchange, &*again.routing_key), ("shop", "order.placed"));
        message.properties.user_id = None;
        message.headers.insert(USER_ID, "guest").unwrap();
        assert_eq!(*again.message, message);

        let since = history.first_failure.unwrap();
        let third = copy(&again, history, Duration::from_secs(2));
        assert_eq!(third.headers.get(FIRST_FAILURE), Some(&since.into()));
        assert_eq!(third.headers.get(ATTEMPT), Some(&Value::from(3)));
        assert_eq!(third.properties.expiration, Some(Duration::from_secs(2)));
        assert!(!third.headers.contains("x-death"));
    }

    #[test]
    fn failures_that_the_broker_counts_come_on_top_where_it_counts_nothing_else() {
        for (adds, counted, expected) in [
            (true, Counted::ByBroker, 4),
            (false, Counted::ByBroker, 2),
            (true, Counted::ByFlag, 2),
        ] {
            let mut message = Message::new("");
            message.headers.insert(ATTEMPT, 2).unwrap();
            let mut envelope = envelope(message, Attempt { number: 3, counted });
            read(&mut envelope, adds);
            assert_eq!(envelope.attempt.number, expected);
        }
    }

    proptest! {
        /// A publisher may write anything there.
        #[test]
        fn a_forged_mark_is_a_number_of_attempts_or_nothing(number in any::<i64>(), text in ".{0,300}") {
            for value in [Value::from(number), Value::from(text.clone()), Value::Null] {
                let mut message = Message::new("");
                for name in [ATTEMPT, FIRST_FAILURE, EXCHANGE, ROUTING_KEY, EXPIRATION, USER_ID] {
                    message.headers.insert(name, value.clone()).unwrap();
                }
                let mut envelope = envelope(message, Attempt::from_flag(true));
                let history = read(&mut envelope, true);
                prop_assert!(envelope.attempt.number >= 1);
                let copied = copy(&envelope, history, Duration::from_secs(1));
                let next = copied.headers.get(ATTEMPT).and_then(Value::as_int).unwrap_or(0);
                prop_assert!(next > i64::from(envelope.attempt.number) || envelope.attempt.number == u32::MAX);
            }
        }
    }
}
