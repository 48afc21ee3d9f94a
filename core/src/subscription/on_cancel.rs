//! What happens when the broker cancels a consumer.

/// What happens when the broker cancels a consumer, for instance because its queue was deleted.
///
/// ```
/// use enoki_core::OnCancel;
///
/// assert_eq!(OnCancel::default(), OnCancel::Resume);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnCancel {
    /// Declares the queue again, as at the start, and goes on; it is tried again and again while the
    /// broker cannot be reached. A queue that was only to be found, and is not, fails the consumer.
    #[default]
    Resume,
    /// The consumer fails, and its service with it.
    Fail,
}
