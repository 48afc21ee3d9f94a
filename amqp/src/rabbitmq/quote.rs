//! How errors quote RabbitMQ's texts. Pure.

/// A reason that quotes the broker's text: on one line, shortened, and in our words if it says which argument
/// differs.
///
/// ```
/// use enoki_amqp::rabbitmq::quote;
///
/// assert_eq!(quote("no queue 'q'\nin vhost '/'"), "the broker answered: no queue 'q' in vhost '/'");
/// ```
pub fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // When RabbitMQ fails, its text is its internal state, several pages long.
    let line = match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    };
    difference(&line).unwrap_or_else(|| format!("the broker answered: {line}"))
}

/// How much of an answer an error quotes, in characters.
const LINE: usize = 300;

/// Says which argument differs, from a text such as `inequivalent arg 'x-max-length' for queue 'q' in vhost
/// 'v': received the value '2' of type 'long' but current is the value '1' of type 'long'`.
fn difference(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, values) = rest.split_once(": received ")?;
    Some(match values.split_once(" but current is ") {
        Some((asked, found)) => {
            format!(
                "it exists with another {argument}: asked for {}, it has {}",
                value(asked),
                value(found)
            )
        }
        None => format!("it exists with another {argument}: {}", values.trim()),
    })
}

/// `'2'` from `the value '2' of type 'signedint'`; other texts as they are.
fn value(text: &str) -> String {
    let text = text.trim();
    text.strip_prefix("the value ")
        .and_then(|rest| rest.rsplit_once(" of type ").map(|(value, _)| value))
        .unwrap_or(text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_says_which_argument_differs() {
        let text = "inequivalent arg 'x-max-length' for queue 'q' in vhost 'v': received the value \
                    '2' of type 'long' but current is the value '1' of type 'long'";
        assert_eq!(quote(text), "it exists with another x-max-length: asked for '2', it has '1'");
        let text = "inequivalent arg 'type' for exchange 'e' in vhost 'v': received 'topic' but \
                    current is 'direct'";
        assert_eq!(quote(text), "it exists with another type: asked for 'topic', it has 'direct'");
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost \
                    'v': received the value '2' of type 'long' but current is the value '1' of \
                    type 'long'";
        assert_eq!(quote(text), "it exists with another x-max-length: asked for '2', it has '1'");
        // AMQP 0-9-1 has room for 255 bytes of the text: the rest still names the argument.
        let cut = "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost 'v': \
                   received none but curr";
        assert_eq!(quote(cut), "it exists with another x-a: none but curr");
        assert_eq!(quote("NOT_FOUND - no queue "), "the broker answered: NOT_FOUND - no queue");
        assert_eq!(quote("no such thing"), "the broker answered: no such thing");
    }
}
