//! Facts about RabbitMQ that hold over both protocols: its texts, its versions, and the remedies for its
//! refusals.

mod quote;
mod transient;

pub use self::{quote::quote, transient::transient_kind};

/// The product that it names itself.
pub const PRODUCT: &str = "RabbitMQ";

/// Major and minor version: `(4, 0)` from `4.0.5`. A part that cannot be read is 0.
pub fn major_minor(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().ok());
    (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0))
}

/// The remedy where a queue belongs to another connection.
pub const LOCKED: &str = "it belongs to another connection, which has to end first";

/// The remedy where a queue or an exchange exists with other options.
pub const DIFFERENT: &str = "declare it as it is, or delete it on the broker and declare it again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_far_as_it_can_be() {
        assert_eq!(major_minor("4.0.5"), (4, 0));
        assert_eq!(major_minor("3.13.7+2.gabc"), (3, 13));
        assert_eq!(major_minor("10"), (10, 0));
        assert_eq!(major_minor("of unknown version"), (0, 0));
    }
}
