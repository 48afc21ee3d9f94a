//! When a refusal is believed.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// Weighs refusals that no further try would mend.
///
/// What was never let in believes the first one: it is a mistake of the program. What was let in
/// before has no reason to: brokers that start, stop or lose a node refuse what they took a moment
/// earlier, in the same words. So it goes on trying, and believes a refusal when there was no other
/// answer for some time.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How long there has to be no other answer.
    limit: Duration,
    was_accepted: bool,
    /// When the first of the refusals in a row came.
    since: Option<Instant>,
}

impl Refusals {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, was_accepted: false, since: None }
    }

    /// It works.
    pub(crate) fn accepted(&mut self) {
        self.was_accepted = true;
        self.since = None;
    }

    /// What to make of an error: transient while another try is worth it. What is believed at last
    /// says how long it was tried.
    pub(crate) fn judge(&mut self, error: Error) -> Error {
        if error.is_transient() || error.kind() == ErrorKind::Closed {
            self.since = None;
            return error;
        }
        if !self.was_accepted {
            return error;
        }
        let tried = self.since.get_or_insert_with(Instant::now).elapsed();
        if tried < self.limit {
            return error.transient(true);
        }
        let tried = Duration::from_secs(tried.as_secs());
        let subject = error.subject().unwrap_or("what was there before").to_owned();
        Error::new(error.kind(), "return to")
            .on(subject)
            .because(format!("it was tried for {tried:?}, and the last answer was: {error}"))
            .transient(false)
            .caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn denied() -> Error {
        Error::new(ErrorKind::Denied, "connect to").on("script").because("access refused")
    }

    fn lost() -> Error {
        Error::new(ErrorKind::Connection, "connect to").because("the line is dead")
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_let_in_believes_the_first_refusal() {
        let mut refusals = Refusals::new(LIMIT);
        assert!(refusals.judge(lost()).is_transient());
        let believed = refusals.judge(denied());
        assert!(!believed.is_transient());
        assert_eq!(believed.to_string(), denied().to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_believes_what_it_hears_for_long_enough_and_says_how_long() {
        let mut refusals = Refusals::new(LIMIT);
        refusals.accepted();
        for _ in 0..6 {
            assert!(refusals.judge(denied()).is_transient());
            tokio::time::advance(LIMIT / 6).await;
        }
        let believed = refusals.judge(denied());
        assert_eq!(believed.kind(), ErrorKind::Denied);
        assert!(!believed.is_transient());
        let text = believed.to_string();
        assert!(text.contains("60s") && text.contains("access refused"), "{text}");
        assert!(text.starts_with("return to script: "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn another_answer_and_a_success_begin_the_time_anew() {
        for between in [true, false] {
            let mut refusals = Refusals::new(LIMIT);
            refusals.accepted();
            refusals.judge(denied());
            tokio::time::advance(2 * LIMIT).await;
            if between {
                refusals.judge(lost());
            } else {
                refusals.accepted();
            }
            assert!(refusals.judge(denied()).is_transient());
        }
    }

    /// A limit that is none does not overflow.
    #[tokio::test(start_paused = true)]
    async fn it_may_doubt_for_ever_or_not_at_all() {
        let mut refusals = Refusals::new(Duration::MAX);
        refusals.accepted();
        refusals.judge(denied());
        tokio::time::advance(LIMIT * 10_000).await;
        assert!(refusals.judge(denied()).is_transient());
        let mut refusals = Refusals::new(Duration::ZERO);
        refusals.accepted();
        assert!(!refusals.judge(denied()).is_transient());
    }
}
