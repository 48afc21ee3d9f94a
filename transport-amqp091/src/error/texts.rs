//! RabbitMQ's texts, in an error.

/// The reason that quotes the broker's text, in our words if it says which argument differs.
pub(crate) fn quote(text: &str) -> String {
    difference(text).unwrap_or_else(|| format!("the broker answered: {}", text.trim()))
}

/// Says which argument differs, from a text such as `PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q'
/// in vhost 'v': received the value '2' of type 'long' but current is the value '1' of type 'long'`.
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
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost \
                    'v': received the value '2' of type 'long' but current is the value '1' of \
                    type 'long'";
        assert_eq!(quote(text), "it exists with another x-max-length: asked for '2', it has '1'");
        let text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost 'v': \
                    received 'topic' but current is 'direct'";
        assert_eq!(quote(text), "it exists with another type: asked for 'topic', it has 'direct'");
        // The broker cuts the text at 255 bytes: the rest still names the argument.
        let cut = "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost 'v': \
                   received none but curr";
        assert_eq!(quote(cut), "it exists with another x-a: none but curr");
        assert_eq!(quote("NOT_FOUND - no queue "), "the broker answered: NOT_FOUND - no queue");
    }
}
