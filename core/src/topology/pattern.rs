//! Matching routing keys, at compile time and at run time, by the rules of AMQP 0-9-1 §3.1.3.3.

#![expect(
    clippy::indexing_slicing,
    reason = "`get` is not for constant functions; each index is checked by its loop"
)]

/// Whether a topic binding's pattern matches a routing key.
///
/// Both are words separated by dots; `*` stands for exactly one word, `#` for any number of words,
/// none included. The empty key has no words.
///
/// ```
/// use enoki_core::topic_matches;
///
/// const _: () = assert!(topic_matches("order.*.eu", "order.placed.eu"));
/// assert!(!topic_matches("a.*", "a.b.c"));
/// assert!(topic_matches("lazy.#", "lazy"));
/// assert!(topic_matches("#", ""));
/// ```
pub const fn topic_matches(pattern: &str, key: &str) -> bool {
    let (pattern, key) = (pattern.as_bytes(), key.as_bytes());
    let (mut p, mut k) = (first_word(pattern), first_word(key));
    // Where to go on when the last `#` has to take one word more.
    let mut retry = NO_WORD;
    let mut retry_key = NO_WORD;
    let mut has_hash = false;
    loop {
        if p != NO_WORD && is_word(pattern, p, b'#') {
            has_hash = true;
            p = next_word(pattern, p);
            retry = p;
            retry_key = k;
        } else if k == NO_WORD {
            return p == NO_WORD;
        } else if p != NO_WORD && (is_word(pattern, p, b'*') || words_equal(pattern, p, key, k)) {
            p = next_word(pattern, p);
            k = next_word(key, k);
        } else if has_hash && retry_key != NO_WORD {
            retry_key = next_word(key, retry_key);
            k = retry_key;
            p = retry;
        } else {
            return false;
        }
    }
}

/// Whether a key holds a whole word `*` or `#`: in a routing key that is a mistake.
pub(crate) const fn has_wildcard(key: &str) -> bool {
    let key = key.as_bytes();
    let mut word = first_word(key);
    while word != NO_WORD {
        if is_word(key, word, b'*') || is_word(key, word, b'#') {
            return true;
        }
        word = next_word(key, word);
    }
    false
}

/// Whether a pattern has more words `#` than brokers take: RabbitMQ refuses it from 4.3.5 on, because
/// the work of matching grows with a power of their number.
pub(crate) const fn has_too_many_hashes(pattern: &str) -> bool {
    let pattern = pattern.as_bytes();
    let mut word = first_word(pattern);
    let mut hashes = 0;
    while word != NO_WORD {
        if is_word(pattern, word, b'#') {
            hashes += 1;
        }
        word = next_word(pattern, word);
    }
    hashes > 2
}

pub(crate) const TOO_MANY_HASHES: &str = "a binding key has at most two words \"#\"";

/// Compares two strings in a constant.
pub(crate) const fn str_eq(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The position after the last word.
const NO_WORD: usize = usize::MAX;

const fn first_word(text: &[u8]) -> usize {
    if text.is_empty() { NO_WORD } else { 0 }
}

const fn word_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() && text[at] != b'.' {
        at += 1;
    }
    at
}

const fn next_word(text: &[u8], word: usize) -> usize {
    let end = word_end(text, word);
    if end == text.len() { NO_WORD } else { end + 1 }
}

const fn is_word(text: &[u8], word: usize, letter: u8) -> bool {
    word < text.len() && text[word] == letter && word_end(text, word) == word + 1
}

const fn words_equal(left: &[u8], l: usize, right: &[u8], r: usize) -> bool {
    let (left_end, right_end) = (word_end(left, l), word_end(right, r));
    if left_end - l != right_end - r {
        return false;
    }
    let mut at = 0;
    while l + at < left_end {
        if left[l + at] != right[r + at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{has_too_many_hashes, topic_matches};

    /// The rules said by recursion over words: slow, and plainly right.
    fn by_definition(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => {
                by_definition(rest, key)
                    || matches!(key, [_, more @ ..] if by_definition(pattern, more))
            }
            (["*", rest @ ..], [_, more @ ..]) => by_definition(rest, more),
            ([word, rest @ ..], [other, more @ ..]) => word == other && by_definition(rest, more),
            _ => false,
        }
    }

    fn words(text: &str) -> Vec<&str> {
        if text.is_empty() { Vec::new() } else { text.split('.').collect() }
    }

    #[test]
    fn the_table_of_the_specification_holds() {
        for (pattern, key, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*", "a", false),
            ("lazy.#", "lazy", true),
            ("lazy.#", "lazy.orange.rabbit", true),
            ("#", "", true),
            ("*", "", false),
            ("", "", true),
            ("", "a", false),
            ("#.c", "a.b.c", true),
            ("#.c", "c.a", false),
            ("*.*", "a.", true),
            ("#.#", "", true),
            ("a.#.b.#.c", "a.b.b.c", true),
            ("*.stock.#", "usd.stock.db", true),
        ] {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern:?} against {key:?}");
        }
    }

    #[test]
    fn two_words_for_any_number_of_words_are_taken_and_no_third() {
        for (pattern, expected) in [
            ("#.a.#", false),
            ("", false),
            ("a.#b.##.#", false),
            ("#.#.#", true),
            ("#.a.#.b.#", true),
        ] {
            assert_eq!(has_too_many_hashes(pattern), expected, "{pattern:?}");
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "([ab*#](\\.[ab*#]){0,5})?", key in "([ab](\\.[ab]?){0,6})?") {
            prop_assert_eq!(topic_matches(&pattern, &key), by_definition(&words(&pattern), &words(&key)));
        }
    }
}
