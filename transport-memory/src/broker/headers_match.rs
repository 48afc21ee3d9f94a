//! How a binding of a headers exchange compares.

use enoki_core::{Table, Value};

use crate::version::Comparison;

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
    pub(crate) fn matches(
        self,
        arguments: &Table,
        headers: &Table,
        comparison: Comparison,
    ) -> bool {
        let mut compared = arguments
            .iter()
            .filter(|(name, _)| *name != "x-match" && (self.with_x || !name.starts_with("x-")));
        let has = |name: &str, value: &Value| match headers.get(name) {
            None => false,
            Some(_) if *value == Value::Null => true,
            Some(header) => comparison.is_equal(header, value),
        };
        if self.any {
            compared.any(|(name, value)| has(name, value))
        } else {
            compared.all(|(name, value)| has(name, value))
        }
    }
}

impl Comparison {
    /// Whether a header is what a binding asks for. A text equals the bytes that it is made of.
    fn is_equal(self, header: &Value, asked: &Value) -> bool {
        match (header, asked) {
            (Value::String(header), Value::Bytes(asked)) => header.as_bytes() == asked,
            (Value::Bytes(header), Value::String(asked)) => header == asked.as_bytes(),
            (Value::Timestamp(_), _) if self == Self::ByType => false,
            // The broker has the binding's time as a number of seconds.
            (header, Value::Timestamp(asked)) => self.is_number(header, asked.unix_seconds()),
            (Value::Timestamp(header), asked) => self.is_number(asked, header.unix_seconds()),
            (header @ Value::Float(_), Value::Int(asked)) => self.is_number(header, *asked),
            (Value::Int(header), asked @ Value::Float(_)) => self.is_number(asked, *header),
            (header, asked) => header == asked,
        }
    }

    /// Whether a value is this number.
    fn is_number(self, value: &Value, number: i64) -> bool {
        match value {
            Value::Int(value) => *value == number,
            Value::Timestamp(value) => value.unix_seconds() == number,
            Value::Float(value) => self == Self::ByValue && *value == number as f64,
            _ => false,
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
            let headers_match = HeadersMatch::of(&arguments).unwrap();
            headers_match.matches(&arguments, &headers, Comparison::ByType)
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
