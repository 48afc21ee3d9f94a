//! What the broker says when it closes a channel for a message on it. Pure.

/// What the broker says when it closes a channel for a message on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum LastWords<'a> {
    /// It has no such exchange, or this login may not publish to it; the text names it.
    Exchange(&'a str),
    /// The body is larger than this.
    TooLarge(usize),
    /// Nothing that tells one message from another.
    Other,
}

impl<'a> LastWords<'a> {
    pub(super) fn read(code: u16, text: &'a str) -> Self {
        match code {
            // Access to a topic depends on the routing key, not only on the exchange.
            403 if text.contains("access to topic") => Self::Other,
            403 | 404 => Self::Exchange(text),
            406 => text
                .rsplit_once("larger than configured max size ")
                .and_then(|(_, limit)| limit.trim().parse().ok())
                .map_or(Self::Other, Self::TooLarge),
            _ => Self::Other,
        }
    }

    /// Whether it names this exchange: `no exchange 'shop' in vhost '/'`.
    pub(super) fn name(self, exchange: &str) -> bool {
        let Self::Exchange(text) = self else { return false };
        text.contains(&format!("exchange '{exchange}' in vhost"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_say_which_messages_were_refused() {
        let missing = LastWords::read(404, "NOT_FOUND - no exchange 'shop' in vhost '/'");
        assert!(missing.name("shop"));
        assert!(!missing.name("sho"));
        assert!(!missing.name(""));
        let refused = "ACCESS_REFUSED - access to exchange 'a'b' in vhost '/' refused for user 'u'";
        assert!(LastWords::read(403, refused).name("a'b"));
        let topic = "ACCESS_REFUSED - access to topic 'k' in exchange 'shop' in vhost '/' refused";
        assert!(!LastWords::read(403, topic).name("shop"));
        let large = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8";
        assert!(matches!(LastWords::read(406, large), LastWords::TooLarge(8)));
        assert!(matches!(LastWords::read(406, "PRECONDITION_FAILED - x"), LastWords::Other));
    }
}
