//! Refusals of RabbitMQ that end by themselves, by the words of its texts. Pure.

use enoki_core::ErrorKind;

/// The kind of a refusal that ends by itself, whatever reply code or condition came with it. `None` if the
/// text does not say so: then the code alone has the meaning.
///
/// RabbitMQ answers `NOT_FOUND` for a queue whose node is down, and `NOT_ALLOWED` for a virtual host that
/// restarts or takes no more connections. These codes mean a final refusal elsewhere, and here the same
/// broker may accept the request a moment later. Mark the error as transient.
///
/// ```
/// use enoki_amqp::rabbitmq::transient_kind;
/// use enoki_core::ErrorKind;
///
/// let down = "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor";
/// assert_eq!(transient_kind(down), Some(ErrorKind::Connection));
/// assert_eq!(transient_kind("NOT_FOUND - no queue 'q' in vhost '/'"), None);
/// ```
pub fn transient_kind(answer: &str) -> Option<ErrorKind> {
    // Names are quoted in the middle of a text, so the words at its end are the broker's own.
    let answer = answer.trim_end().trim_end_matches('.');
    let down = [
        "is down or inaccessible",
        "process is stopped by supervisor",
        "has crashed and failed to restart",
        "due to timeout",
        "' is down",
    ];
    if down.iter().any(|words| answer.ends_with(words)) {
        return Some(ErrorKind::Connection);
    }
    // `connection limit (2) is reached`, of a virtual host, a user or a node.
    let is_full = answer.ends_with(") is reached") && answer.contains("limit (");
    is_full.then_some(ErrorKind::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_transient_by_the_end_of_its_text() {
        let refused = "NOT_ALLOWED - access to vhost 'v' refused for user 'u': ";
        let table = [
            (
                "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost 'v' is down or inaccessible",
                Some(ErrorKind::Connection),
            ),
            (
                "NOT_FOUND - queue 'q' in vhost 'v' process is stopped by supervisor\n",
                Some(ErrorKind::Connection),
            ),
            (
                "NOT_FOUND - queue 'q' in vhost 'v' has crashed and failed to restart",
                Some(ErrorKind::Connection),
            ),
            (
                "NOT_FOUND - failed to perform operation on queue 'q' in vhost 'v' due to timeout",
                Some(ErrorKind::Connection),
            ),
            (&format!("{refused}vhost 'v' is down"), Some(ErrorKind::Connection)),
            (&format!("{refused}connection limit (2) is reached"), Some(ErrorKind::Refused)),
            (
                "NOT_ALLOWED - connection refused for user 'u': user connection limit (1) is reached",
                Some(ErrorKind::Refused),
            ),
            ("NOT_ALLOWED - access to vhost 'v' refused for user 'u'", None),
            ("NOT_ALLOWED - vhost v not found", None),
            ("NOT_FOUND - no queue 'q' in vhost 'v'", None),
            ("", None),
            // Names that look like such an end.
            ("NOT_FOUND - no queue 'q is down or inaccessible' in vhost 'v'", None),
            ("NOT_FOUND - no queue 'q process is stopped by supervisor' in vhost 'v'", None),
            ("NOT_FOUND - no queue 'q' in vhost 'limit (1) is reached'", None),
        ];
        for (answer, expected) in table {
            assert_eq!(transient_kind(answer), expected, "{answer}");
        }
    }
}
