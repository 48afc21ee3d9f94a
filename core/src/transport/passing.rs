//! What RabbitMQ says of states that pass, in the words of its answers. Pure.

use crate::error::ErrorKind;

/// What kind of failure an answer of RabbitMQ's tells of that passes by itself, whatever reply code or
/// condition came with it: `None` where the code alone says it.
///
/// RabbitMQ answers `NOT_FOUND` for a queue whose node is down, and `NOT_ALLOWED` for a virtual host
/// that restarts or takes no more connections: codes that mean for good what the same broker takes a
/// moment later. The error is to be marked as transient.
///
/// ```
/// use enoki_core::{ErrorKind, transport::passing};
///
/// let down = "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor";
/// assert_eq!(passing(down), Some(ErrorKind::Connection));
/// assert_eq!(passing("NOT_FOUND - no queue 'q' in vhost '/'"), None);
/// ```
pub fn passing(answer: &str) -> Option<ErrorKind> {
    // Names are quoted in the middle of an answer, so what it ends with is the broker's own word.
    let answer = answer.trim_end().trim_end_matches('.');
    let away = [
        "is down or inaccessible",
        "process is stopped by supervisor",
        "has crashed and failed to restart",
        "due to timeout",
        "' is down",
    ];
    if away.iter().any(|words| answer.ends_with(words)) {
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
    fn what_passes_is_told_by_the_end_of_the_answer() {
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
            // Names that look like it.
            ("NOT_FOUND - no queue 'q is down or inaccessible' in vhost 'v'", None),
            ("NOT_FOUND - no queue 'q process is stopped by supervisor' in vhost 'v'", None),
            ("NOT_FOUND - no queue 'q' in vhost 'limit (1) is reached'", None),
        ];
        for (answer, expected) in table {
            assert_eq!(passing(answer), expected, "{answer}");
        }
    }
}
