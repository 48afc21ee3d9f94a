//! What a dead letter says about why it is one. Pure.

use super::marks::{self, EXCHANGE, FIRST_FAILURE, History, ROUTING_KEY};
use crate::{
    delivery::Envelope,
    message::{
        Message, table_size,
        value::{Table, Timestamp},
    },
    printable::printable,
    short_str::ShortStr,
};

/// The error and its causes: a text.
const ERROR: &str = "enoki-error";
/// How the handler failed: `error` or `panic`.
const KIND: &str = "enoki-error-kind";
/// The service whose handler failed: a text.
const SERVICE: &str = "enoki-service";
/// The name of the handler: a text.
const HANDLER: &str = "enoki-handler";
/// How often the handler ran: an integer.
const ATTEMPTS: &str = "enoki-attempts";
/// When the handler failed for the last time: a timestamp.
const LAST_FAILURE: &str = "enoki-last-failure";
/// The machine on which it failed for the last time: a text.
const HOST: &str = "enoki-host";

/// How many bytes these headers have together, at most, as AMQP 0-9-1 writes them.
const MOST: usize = 1024;

/// How many bytes of a name are kept. The name of an exchange and a routing key are kept whole.
const NAME: usize = 48;

/// How a handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Panic,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
        }
    }
}

/// Who failed, where, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause<'c> {
    pub(crate) kind: Kind,
    pub(crate) error: &'c str,
    pub(crate) service: &'c str,
    pub(crate) handler: &'c str,
    pub(crate) host: &'c str,
}

/// The message as a dead letter. It does not expire: its queue is to keep it.
pub(crate) fn dead_letter(
    envelope: &Envelope,
    history: History,
    first_is_known: bool,
    cause: Cause<'_>,
) -> Message {
    let mut message = marks::original(envelope);
    message.properties.expiration = None;
    let now = Timestamp::now();
    let mut headers = Table::new();
    marks::set(&mut headers, KIND, cause.kind.as_str());
    for (name, text) in [(SERVICE, cause.service), (HANDLER, cause.handler), (HOST, cause.host)] {
        marks::set(&mut headers, name, cut(text, NAME));
    }
    marks::set(&mut headers, ATTEMPTS, i64::from(envelope.attempt.number));
    if let Some(first) = history.first_failure.or(first_is_known.then_some(now)) {
        marks::set(&mut headers, FIRST_FAILURE, first);
    }
    marks::set(&mut headers, LAST_FAILURE, now);
    for (name, text) in [(EXCHANGE, &envelope.exchange), (ROUTING_KEY, &envelope.routing_key)] {
        marks::set(&mut headers, name, exact(text));
    }
    marks::set(&mut headers, ERROR, "");
    let room = MOST.saturating_sub(table_size(&headers));
    marks::set(&mut headers, ERROR, cut(cause.error, room));
    // A dead letter that was published again and has died again says why it did now.
    message.headers.without(|name| name == FIRST_FAILURE);
    message.headers.merge(headers);
    message
}

/// A name as it is, unless no header can carry it.
fn exact(text: &ShortStr) -> String {
    match text.contains('\0') {
        true => cut(text, ShortStr::MAX),
        false => text.as_str().to_owned(),
    }
}

/// At most so many bytes of a text, without what acts on a terminal.
fn cut(text: &str, most: usize) -> String {
    let text = printable(text);
    if text.len() <= most {
        return text.into_owned();
    }
    let room = most.saturating_sub(ELLIPSIS.len());
    let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = end.take_while(|end| *end <= room).last().unwrap_or(0);
    let mut short = text.get(..end).unwrap_or_default().to_owned();
    short.push_str(if most < ELLIPSIS.len() { "" } else { ELLIPSIS });
    short
}

const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::{Limits, value::Value},
        outcome::{Attempt, Counted},
    };

    fn envelope(message: Message, exchange: &str, routing_key: &str) -> Envelope {
        Envelope {
            message: Arc::new(message),
            exchange: ShortStr::new(exchange).unwrap(),
            routing_key: ShortStr::new(routing_key).unwrap(),
            redelivered: true,
            attempt: Attempt { number: 5, counted: Counted::ByToolkit },
        }
    }

    fn cause(error: &str) -> Cause<'_> {
        Cause { kind: Kind::Error, error, service: "office", handler: "bill", host: "host-1" }
    }

    #[test]
    fn it_says_who_failed_how_often_when_and_why() {
        let mut message = Message::new("body");
        message.headers.insert("region", "eu").unwrap();
        message.properties.expiration = Some(std::time::Duration::from_secs(1));
        let first = Timestamp::from_unix_seconds(1_700_000_000);
        let history = History { first_failure: Some(first) };
        let letter = dead_letter(
            &envelope(message, "shop", "order.placed"),
            history,
            true,
            cause("store: disk on fire"),
        );
        letter.check(&Limits::default()).unwrap();
        assert_eq!(letter.properties.expiration, None);
        let text = |name| letter.headers.get(name).and_then(Value::as_str);
        for (name, expected) in [
            ("region", "eu"),
            (ERROR, "store: disk on fire"),
            (KIND, "error"),
            (SERVICE, "office"),
            (HANDLER, "bill"),
            (HOST, "host-1"),
            (EXCHANGE, "shop"),
            (ROUTING_KEY, "order.placed"),
        ] {
            assert_eq!(text(name), Some(expected), "{name}");
        }
        assert_eq!(letter.headers.get(ATTEMPTS), Some(&Value::from(5)));
        assert_eq!(letter.headers.get(FIRST_FAILURE), Some(&first.into()));
        assert!(letter.headers.get(LAST_FAILURE).and_then(Value::as_timestamp) > Some(first));
    }

    /// Where the broker delays and counts, this process may not have seen the first failure.
    #[test]
    fn a_first_failure_that_is_not_known_is_left_out() {
        let envelope = envelope(Message::new(""), "", "billing");
        let letter = dead_letter(&envelope, History::default(), false, cause("no"));
        assert!(!letter.headers.contains(FIRST_FAILURE));
        let letter = dead_letter(&envelope, History::default(), true, cause("no"));
        assert_eq!(letter.headers.get(FIRST_FAILURE), letter.headers.get(LAST_FAILURE));
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("größe", 7), "größe");
        assert_eq!(cut("größe und mehr", 8), "grö…");
        assert_eq!(cut("größe", 2), "");
        assert_eq!(cut("a\0b\n", 100), "a\\u{0}b\\n");
    }

    proptest! {
        #[test]
        fn its_headers_have_a_kibibyte_at_most_and_can_be_published(
            error in "\\PC{0,2000}|[\\x00-\\x20]{0,400}",
            name in ".{0,200}",
            long in "[a-zé\\x00]{0,120}",
        ) {
            let envelope = envelope(Message::new(""), &long, &long);
            let cause = Cause { kind: Kind::Panic, error: &error, service: &name, handler: &name, host: &name };
            let letter = dead_letter(&envelope, History::default(), true, cause);
            prop_assert!(table_size(&letter.headers) <= MOST);
            prop_assert!(letter.check(&Limits::default()).is_ok());
            prop_assert!(letter.headers.contains(ERROR));
        }
    }
}
