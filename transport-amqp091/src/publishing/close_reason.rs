//! Which messages the broker's `channel.close` is about, read from its reply code and text.

/// Why the broker closed a channel that messages are published on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason<'a> {
    /// There is no such exchange (404), or this login may not publish to it, or not with this key (403). The text
    /// names it.
    Target(&'a str),
    /// A body has more bytes than this limit of the broker (406).
    TooLarge(usize),
    /// The text does not tell one message from another.
    Other,
}

impl<'a> CloseReason<'a> {
    pub(super) fn read(code: u16, text: &'a str) -> Self {
        match code {
            403 | 404 => Self::Target(text),
            406 => text
                .rsplit_once("larger than configured max size ")
                .and_then(|(_, limit)| limit.trim().parse().ok())
                .map_or(Self::Other, Self::TooLarge),
            _ => Self::Other,
        }
    }

    /// Whether it is about one routing key, not about the whole exchange.
    pub(super) fn is_about_routing_key(self) -> bool {
        matches!(self, Self::Target(text) if text.contains(TOPIC))
    }

    /// Whether it names this exchange and, where it is about a routing key, this key:
    /// `no exchange 'shop' in vhost '/'`, `access to topic 'k' in exchange 'shop' in vhost '/' refused`.
    pub(super) fn names_target(self, exchange: &str, routing_key: &str) -> bool {
        let Self::Target(text) = self else { return false };
        // RabbitMQ names the default exchange so.
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        let target = if self.is_about_routing_key() {
            format!("{TOPIC}{routing_key}' in exchange '{exchange}' in vhost")
        } else {
            format!("exchange '{exchange}' in vhost")
        };
        text.contains(&target) || ends_with_its_beginning(text, &target)
    }
}

/// Whether the text ends in the middle of the target: a short string has room for 255 bytes of it.
fn ends_with_its_beginning(text: &str, target: &str) -> bool {
    if text.len() < CUT {
        return false;
    }
    // RabbitMQ from 3.11 on ends it with dots. The guard has put `?` in place of a character that was cut.
    let text = text.trim_end_matches('.').trim_end_matches('?');
    let quote = target.find('\'').map_or(target.len(), |at| at + 1);
    text.rmatch_indices(target.get(..quote).unwrap_or_default())
        .any(|(at, _)| target.starts_with(text.get(at..).unwrap_or_default()))
}

/// RabbitMQ names a routing key after these words.
const TOPIC: &str = "access to topic '";

/// A text of at least so many bytes may have been cut.
const CUT: usize = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_which_messages_were_refused() {
        let missing = CloseReason::read(404, "NOT_FOUND - no exchange 'shop' in vhost '/'");
        assert!(missing.names_target("shop", "k"));
        assert!(!missing.names_target("sho", "k"));
        assert!(!missing.names_target("", "k"));
        let refused = "ACCESS_REFUSED - access to exchange 'a'b' in vhost '/' refused for user 'u'";
        assert!(CloseReason::read(403, refused).names_target("a'b", "k"));
        let default =
            "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'";
        assert!(CloseReason::read(403, default).names_target("", "k"));
        assert!(!CloseReason::read(403, default).names_target("amq.direct", "k"));
        let large = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8";
        assert_eq!(CloseReason::read(406, large), CloseReason::TooLarge(8));
        assert_eq!(CloseReason::read(406, "PRECONDITION_FAILED - x"), CloseReason::Other);
    }

    #[test]
    fn a_refused_topic_is_one_key_in_one_exchange() {
        let text = "ACCESS_REFUSED - access to topic 'k' in exchange 'shop' in vhost '/' refused for user 'u'";
        let topic = CloseReason::read(403, text);
        assert!(topic.is_about_routing_key());
        assert!(topic.names_target("shop", "k"));
        assert!(!topic.names_target("shop", "k2"));
        assert!(!topic.names_target("shops", "k"));
    }

    #[test]
    fn names_that_were_cut_with_the_text_are_recognised_by_what_is_left() {
        let long = "é".repeat(120);
        let whole = format!("NOT_FOUND - no exchange '{long}' in vhost '/'");
        let until = |at| whole.get(..at).map(str::to_owned);
        let cut = until(255).or_else(|| until(254)).unwrap();
        for text in
            [cut.clone(), format!("{cut}?"), until(252).or_else(|| until(251)).unwrap() + "..."]
        {
            let reason = CloseReason::read(404, &text);
            assert!(reason.names_target(&long, "k"), "{text}");
            assert!(!reason.names_target("é", "k"), "{text}");
            assert!(!reason.names_target(&format!("x{long}"), "k"), "{text}");
        }
        let key = "k".repeat(230);
        let text = format!("ACCESS_REFUSED - access to topic '{key}' in exchange 'sh...");
        let reason = CloseReason::read(403, &text);
        assert!(reason.names_target("shop", &key));
        assert!(!reason.names_target("mart", &key));
        assert!(!reason.names_target("shop", "k"));
    }
}
