//! How a binding of a headers exchange compares.

use enoki_core::{Table, Value};

/// How many of a binding's headers a message has to have, and which of them are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadersMatch {
    any: bool,
    with_x: bool,
}

impl HeadersMatch {
    /// Reads `x-match`; `None` if it is none that there is.
    pub(crate) fn of(arguments: &Table) -> Option<Self> {
        let (any, with_x) = match arguments.get("x-match").map(Value::as_str) {
            None | Some(Some("all")) => (false, false),
            Some(Some("any")) => (true, false),
            Some(Some("all-with-x")) => (false, true),
            Some(Some("any-with-x")) => (true, true),
            Some(_) => return None,
        };
        Some(Self { any, with_x })
    }

    /// Whether the headers have what the arguments of the binding ask for. An argument without a
    /// value asks for a header of that name, whatever its value.
    pub(crate) fn matches(self, arguments: &Table, headers: &Table) -> bool {
        let mut compared = arguments
            .iter()
            .filter(|(name, _)| *name != "x-match" && (self.with_x || !name.starts_with("x-")));
        let has = |name: &str, value: &Value| match headers.get(name) {
            None => false,
            Some(_) if *value == Value::Null => true,
            Some(header) => header == value,
        };
        if self.any {
            compared.any(|(name, value)| has(name, value))
        } else {
            compared.all(|(name, value)| has(name, value))
        }
    }
}

#[cfg(test)]
mod tests {
    use enoki_core::ShortStr;

    use super::*;

    fn table(entries: &[(&'static str, Value)]) -> Table {
        entries.iter().map(|(name, value)| (ShortStr::from_static(name), value.clone())).collect()
    }

    #[test]
    fn a_binding_compares_what_its_match_says() {
        let headers = table(&[("a", 1.into()), ("b", "two".into()), ("x-c", true.into())]);
        let compared = |kind: &'static str, entries: &[(&'static str, Value)]| {
            let mut arguments = table(entries);
            arguments.set(ShortStr::from_static("x-match"), kind);
            HeadersMatch::of(&arguments).unwrap().matches(&arguments, &headers)
        };
        assert!(compared("all", &[("a", 1.into()), ("b", "two".into())]));
        assert!(!compared("all", &[("a", 1.into()), ("b", "three".into())]));
        assert!(compared("any", &[("a", 2.into()), ("b", "two".into())]));
        assert!(!compared("any", &[("a", 2.into())]));
        assert!(compared("all", &[]), "nothing asked for is had");
        assert!(!compared("any", &[]), "none of nothing is had");
        assert!(compared("all", &[("a", Value::Null)]), "no value asks for any");
        assert!(!compared("all", &[("d", Value::Null)]));
        assert!(!compared("all", &[("a", "1".into())]), "a text is no number");
        assert!(compared("all", &[("x-c", false.into())]), "x- is not compared");
        assert!(!compared("any", &[("x-c", true.into())]));
        assert!(!compared("all-with-x", &[("x-c", false.into())]));
        assert!(compared("any-with-x", &[("x-c", true.into())]));
    }

    #[test]
    fn without_a_match_all_are_compared_and_a_wrong_one_is_none() {
        let all = HeadersMatch { any: false, with_x: false };
        assert_eq!(HeadersMatch::of(&Table::new()), Some(all));
        assert_eq!(HeadersMatch::of(&table(&[("x-match", "some".into())])), None);
        assert_eq!(HeadersMatch::of(&table(&[("x-match", 1.into())])), None);
    }
}
