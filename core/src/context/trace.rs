//! Where a call is in a trace.

use crate::{
    error::{Error, ErrorKind, Result},
    message::value::{Table, Value},
    short_str::ShortStr,
};

/// Where a call is in a trace, as W3C Trace Context writes it.
///
/// It travels beside the call's context, in headers of its own names, and is passed on as it came: a
/// service that makes no spans still connects those before it with those after it. A service that
/// makes them gives its publications the headers of its own span, which win.
///
/// ```
/// use enoki_core::{Context, TraceContext};
///
/// let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let mut context = Context::new();
/// context.set_trace(TraceContext::new(span)?);
/// let child = context.child("billing", "bill");
/// assert_eq!(child.trace().map(TraceContext::traceparent), Some(span));
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// The place in a trace that a `traceparent` names: a version, a trace, a span and flags, as
    /// hexadecimal digits.
    pub fn new(traceparent: impl Into<String>) -> Result<Self> {
        let traceparent = traceparent.into();
        if is_traceparent(&traceparent) {
            return Ok(Self { traceparent, tracestate: None });
        }
        let shown: String = traceparent.chars().take(64).collect();
        Err(Error::new(ErrorKind::Configuration, "read a trace context")
            .on(format!("traceparent {shown:?}"))
            .because("it is not of the form 00-TRACE-SPAN-FLAGS of W3C Trace Context"))
    }

    /// What the tracing systems on the way have to say, at most 512 bytes; more is left out.
    #[must_use]
    pub fn with_state(mut self, tracestate: impl Into<String>) -> Self {
        self.tracestate = Some(tracestate.into()).filter(|state| state.len() <= MAX_STATE);
        self
    }

    /// The trace and the span.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// What the tracing systems on the way had to say.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Reads it out of headers; what is malformed is none.
    pub(super) fn read(headers: &Table) -> Option<Self> {
        let trace = Self::new(headers.get(PARENT)?.as_str()?).ok()?;
        Some(match headers.get(STATE).and_then(Value::as_str) {
            Some(state) => trace.with_state(state),
            None => trace,
        })
    }

    /// Adds it to headers that are not in a trace yet.
    pub(super) fn write(&self, headers: &mut Table) {
        // The state belongs to its parent, so they go together.
        if headers.contains(PARENT) {
            return;
        }
        headers.set(ShortStr::from_static(PARENT), self.traceparent.as_str());
        match &self.tracestate {
            Some(state) => headers.set(ShortStr::from_static(STATE), state.as_str()),
            None => drop(headers.remove(STATE)),
        }
    }
}

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The size that every service has to pass on; none has to pass on more.
const MAX_STATE: usize = 512;

/// Later versions may be longer; what they begin with is this.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length
                && part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let something =
        |part: Option<&str>| part.is_some_and(|part| part.bytes().any(|digit| digit != b'0'));
    let Some(version) = part(2).filter(|version| *version != "ff") else { return false };
    let (trace, span, flags) = (part(32), part(16), part(2));
    something(trace)
        && something(span)
        && flags.is_some()
        && (version != "00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parent: impl Into<Value>, state: impl Into<Value>) -> Table {
        let mut headers = Table::new();
        headers.insert(PARENT, parent).unwrap();
        headers.insert(STATE, state).unwrap();
        headers
    }

    #[test]
    fn what_w3c_calls_a_traceparent_is_one_and_nothing_else() {
        let later = SPAN.replacen("00", "cc", 1);
        for fine in [SPAN, &later, &format!("{later}-what-will-be")] {
            assert_eq!(TraceContext::new(fine).unwrap().traceparent(), fine);
        }
        for wrong in [
            "",
            "00-1",
            "00---",
            &SPAN[..54],
            &format!("{SPAN}-"),
            &format!("{SPAN}-more"),
            &format!("{SPAN}0"),
            &SPAN.to_uppercase(),
            &SPAN.replacen("00", "ff", 1),
            &SPAN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &SPAN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &SPAN.replace('f', "g"),
            &SPAN.replace('-', "_"),
            &"é".repeat(27),
        ] {
            let error = TraceContext::new(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
        }
    }

    #[test]
    fn a_malformed_parent_takes_the_state_with_it() {
        let trace = TraceContext::read(&headers(SPAN, "vendor=1")).unwrap();
        assert_eq!((trace.traceparent(), trace.tracestate()), (SPAN, Some("vendor=1")));
        for parent in [Value::from("00-1"), Value::Null, 7.into()] {
            assert_eq!(TraceContext::read(&headers(parent, "vendor=1")), None);
        }
        assert_eq!(TraceContext::read(&Table::new()), None);
    }

    #[test]
    fn a_state_that_is_too_long_or_no_text_is_left_out_and_the_parent_stays() {
        for (state, kept) in [
            (Value::from("x".repeat(512)), true),
            ("x".repeat(513).into(), false),
            (1.into(), false),
        ] {
            let trace = TraceContext::read(&headers(SPAN, state)).unwrap();
            assert_eq!(trace.tracestate().is_some(), kept);
        }
    }

    #[test]
    fn headers_that_are_in_a_trace_already_stay_in_it() {
        let trace = TraceContext::new(SPAN).unwrap();
        let own = headers("00-own", "own=1");
        let mut written = own.clone();
        trace.write(&mut written);
        assert_eq!(written, own);
        let mut written = Table::new();
        written.insert(STATE, "of=another").unwrap();
        trace.write(&mut written);
        assert_eq!(TraceContext::read(&written), Some(trace.clone()), "no state of another trace");
        let trace = trace.with_state("vendor=1");
        let mut written = Table::new();
        trace.write(&mut written);
        assert_eq!(written, headers(SPAN, "vendor=1"));
    }
}
