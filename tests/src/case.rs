//! A case: a sentence about every transport, and the code that checks it.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use enoki_core::{Capability, Peer};

use crate::{
    expect::Failed,
    harness::{Broken, Harness},
    stage::Stage,
};

/// A sentence about every transport, and the code that checks it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Case {
    /// The group and the sentence: `settle::a_requeued_message_comes_back`. Names are stable.
    pub name: &'static str,
    /// What it needs. Where the harness does not have it, the case is ignored.
    pub needs: &'static [Need],
    /// How long it may take; a case that takes longer fails.
    pub deadline: Duration,
    pub(crate) run: for<'s> fn(&'s Stage) -> Running<'s>,
}

/// A running case.
pub(crate) type Running<'s> = Pin<Box<dyn Future<Output = Result<(), Failed>> + 's>>;

/// What a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Something that must work.
    Can(Capability),
    /// Something that must not: what a broker cannot do, it has to refuse.
    Cannot(Capability),
    /// A way that leads nowhere.
    Broken(Broken),
}

impl Case {
    /// Why it does not apply to this harness, if so.
    pub fn missing(&self, harness: &dyn Harness) -> Option<String> {
        let capabilities = Peer::new(harness.name(), "", harness.capabilities());
        let missing: Vec<_> = self
            .needs
            .iter()
            .filter(|need| match need {
                Need::Can(capability) => !capabilities.can(*capability),
                Need::Cannot(capability) => capabilities.can(*capability),
                Need::Broken(how) => harness.broken(*how).is_none(),
            })
            .map(ToString::to_string)
            .collect();
        (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Can(capability) => capability.fmt(f),
            Self::Cannot(capability) => write!(f, "a broker without {capability}"),
            Self::Broken(how) => f.write_str(how.as_str()),
        }
    }
}

/// Lists the cases of a group, so that the name of each is that of its function.
macro_rules! cases {
    ($group:literal: $(
        $case:ident $([$($can:ident),+])? $(without $cannot:ident)? $(broken $how:ident)? $(within $seconds:literal)?
    ),+ $(,)?) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            name: concat!($group, "::", stringify!($case)),
            needs: &[
                $($($crate::case::Need::Can(enoki_core::Capability::$can)),+,)?
                $($crate::case::Need::Cannot(enoki_core::Capability::$cannot),)?
                $($crate::case::Need::Broken($crate::harness::Broken::$how))?
            ],
            deadline: $crate::case::deadline(&[$($seconds)?]),
            run: |stage| Box::pin($case(stage)),
        }),+];
    };
}
pub(crate) use cases;

/// The deadline of a case: two minutes, unless it has another. It is for what hangs: the longest takes some
/// seconds, and on a busy machine ten times as long.
pub(crate) const fn deadline(own: &[u64]) -> Duration {
    match own {
        [seconds, ..] => Duration::from_secs(*seconds),
        [] => Duration::from_secs(120),
    }
}
