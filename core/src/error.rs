//! The one error type, with a kind to act on.

use std::{borrow::Cow, convert::Infallible, fmt, sync::Arc};

use crate::printable::{Printable, printable};

/// What the operations of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is: the part of it that programs act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program asked for something that cannot be: a bad URL, name, limit or option.
    Configuration,
    /// The broker could not be reached, or the connection to it ended.
    Connection,
    /// The broker refused the login, or access to this resource.
    Denied,
    /// An exchange, queue or virtual host does not exist.
    NotFound,
    /// A resource exists with other arguments, or is held by another connection.
    Conflict,
    /// No queue was bound for the message; it is stored nowhere.
    Unroutable,
    /// The broker refused the message; it is stored nowhere.
    Refused,
    /// The connection ended, or the deadline passed, before the broker answered:
    /// the message may or may not be stored.
    Indeterminate,
    /// A body or the headers exceed a limit.
    TooLarge,
    /// A body or header cannot be encoded, decoded, or carried by the wire.
    Codec,
    /// The peer, or this build, cannot do what was asked.
    Unsupported,
    /// The publisher, consumer, service or broker handle was closed before.
    Closed,
    /// The deadline passed.
    Timeout,
    /// A broken promise of a peer or of this library; please report it.
    Unexpected,
}

/// Why an operation failed: the operation, its subject, the reason and, where there is one, the
/// remedy, in one line. It never carries a credential.
///
/// Control characters in what it is made of, which a broker or another program may have sent, are shown as
/// escapes (`\u{1b}`): the text never forges a line of a log, nor acts on a terminal. So do the texts of its
/// [sources](std::error::Error::source) here, but not where a program shows a source by itself.
///
/// ```
/// use enoki_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "consume")
///     .on("queue \"billing\"")
///     .because("it does not exist")
///     .remedy("declare it first");
/// assert_eq!(error.to_string(), "consume queue \"billing\": it does not exist; declare it first");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(!error.is_transient());
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    subject: Option<Cow<'static, str>>,
    reason: Option<Cow<'static, str>>,
    remedy: Option<Cow<'static, str>>,
    transient: Option<bool>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind in this operation: `"publish"`, `"declare"`, `"connect"`.
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: printable(operation),
            subject: None,
            reason: None,
            remedy: None,
            transient: None,
            source: None,
        }))
    }

    /// Names what the operation was about: `queue "billing"`.
    #[must_use]
    pub fn on(mut self, subject: impl Into<Cow<'static, str>>) -> Self {
        self.0.subject = Some(printable(subject));
        self
    }

    /// Says what went wrong. Never a credential.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = Some(printable(reason));
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(printable(remedy));
        self
    }

    /// Keeps the cause, for the source chain.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Overrides what [`Error::is_transient`] derives from the kind.
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Self {
        self.0.transient = Some(transient);
        self
    }

    /// Adds to the reason.
    pub(crate) fn and(mut self, more: &str) -> Self {
        let reason = match (&self.0.reason, &self.0.source) {
            (Some(reason), _) => reason.to_string(),
            (None, Some(source)) => source.to_string(),
            (None, None) => format!("{:?}", self.0.kind),
        };
        self.0.reason = Some(format!("{reason}, {more}").into());
        self
    }

    /// Says what to do about it, where that is not said yet.
    pub(crate) fn or_remedy(mut self, remedy: &'static str) -> Self {
        self.0.remedy.get_or_insert(remedy.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later with nothing else changed.
    pub fn is_transient(&self) -> bool {
        self.0.transient.unwrap_or(matches!(
            self.0.kind,
            ErrorKind::Connection | ErrorKind::Indeterminate | ErrorKind::Timeout
        ))
    }

    /// What the operation was about, if the error names it.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }
}

// For what takes a name of any type: that of a `ShortStr` needs no check.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(&inner.operation)?;
        if let Some(subject) = &inner.subject {
            write!(f, " {subject}")?;
        }
        match (&inner.reason, &inner.source) {
            (Some(reason), _) => write!(f, ": {reason}")?,
            (None, Some(source)) => write!(f, ": {}", Printable(source))?,
            (None, None) => write!(f, ": {:?}", inner.kind)?,
        }
        if let Some(remedy) = &inner.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn shared<T: Send + Sync + Clone + std::error::Error + 'static>() {}

    #[test]
    fn it_can_be_shared_and_cloned() {
        shared::<Error>();
        assert!(size_of::<Result<()>>() <= size_of::<usize>(), "cheap where nothing fails");
    }

    #[test]
    fn it_says_operation_subject_reason_and_remedy_in_one_line() {
        let whole = Error::new(ErrorKind::Conflict, "declare")
            .on("queue \"billing\"")
            .because("x-max-length is 10 there and 20 here")
            .remedy("delete the queue, or ask for 10");
        assert_eq!(
            whole.to_string(),
            "declare queue \"billing\": x-max-length is 10 there and 20 here; \
             delete the queue, or ask for 10"
        );
        assert_eq!(format!("{whole:?}"), format!("Conflict({whole})"));
        assert_eq!(whole.subject(), Some("queue \"billing\""));
        let caused = Error::new(ErrorKind::Connection, "connect").caused_by("no route to host");
        assert_eq!(caused.to_string(), "connect: no route to host");
        let bare = Error::new(ErrorKind::Timeout, "connect");
        assert_eq!(bare.to_string(), "connect: Timeout");
        assert_eq!(bare.subject(), None);
        let remedied = Error::new(ErrorKind::Timeout, "connect").remedy("wait");
        assert_eq!(remedied.to_string(), "connect: Timeout; wait");
    }

    /// A broker quotes names that anybody may give.
    #[test]
    fn nothing_in_it_acts_on_a_terminal_or_forges_a_line() {
        const TEXT: &str = "a\u{1b}[31m\r\nERROR forged\u{202e}";
        const SHOWN: &str = "a\\u{1b}[31m\\r\\nERROR forged\\u{202e}";
        let whole =
            Error::new(ErrorKind::NotFound, TEXT).on(TEXT).because(TEXT).remedy(TEXT.to_owned());
        assert_eq!(whole.to_string(), format!("{SHOWN} {SHOWN}: {SHOWN}; {SHOWN}"));
        assert_eq!(format!("{whole:?}"), format!("NotFound({whole})"));
        assert_eq!(whole.subject(), Some(SHOWN));
        let caused = Error::new(ErrorKind::Connection, "connect").caused_by(TEXT);
        assert_eq!(caused.to_string(), format!("connect: {SHOWN}"));
        let quoted = Error::new(ErrorKind::Connection, "consume").because(whole.to_string());
        assert_eq!(quoted.to_string(), format!("consume: {whole}"));
    }

    #[test]
    fn what_may_succeed_later_by_itself_is_transient() {
        for (kind, transient) in [
            (ErrorKind::Configuration, false),
            (ErrorKind::Connection, true),
            (ErrorKind::Denied, false),
            (ErrorKind::NotFound, false),
            (ErrorKind::Conflict, false),
            (ErrorKind::Unroutable, false),
            (ErrorKind::Refused, false),
            (ErrorKind::Indeterminate, true),
            (ErrorKind::TooLarge, false),
            (ErrorKind::Codec, false),
            (ErrorKind::Unsupported, false),
            (ErrorKind::Closed, false),
            (ErrorKind::Timeout, true),
            (ErrorKind::Unexpected, false),
        ] {
            let error = Error::new(kind, "test");
            assert_eq!(error.is_transient(), transient, "{kind:?}");
            assert_eq!(error.kind(), kind);
            for said in [true, false] {
                assert_eq!(error.clone().transient(said).is_transient(), said, "{kind:?}");
            }
        }
    }

    #[test]
    fn its_sources_are_kept_through_clones() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset");
        let inner = Error::new(ErrorKind::Connection, "read").caused_by(io);
        let outer = Error::new(ErrorKind::Indeterminate, "publish").caused_by(inner).clone();
        let inner = outer.source().and_then(|it| it.downcast_ref::<Error>()).unwrap();
        assert_eq!(inner.kind(), ErrorKind::Connection);
        let io = inner.source().and_then(|it| it.downcast_ref::<std::io::Error>()).unwrap();
        assert_eq!(io.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(Error::new(ErrorKind::Closed, "publish").source().is_none());
    }
}
