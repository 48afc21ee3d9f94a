//! How a broker describes itself when it opens a connection.

/// The product and version of a broker, as far as it names them.
///
/// Errors and logs show them, so each is cut after 64 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerProperties {
    /// Such as `RabbitMQ`.
    pub product: Option<String>,
    /// Such as `4.0.5`.
    pub version: Option<String>,
}

impl PeerProperties {
    /// Takes one property, if it is the product or the version; ignores any other.
    pub fn set(&mut self, name: &str, value: &str) {
        let text = || Some(value.chars().take(LONGEST).collect());
        match name {
            "product" => self.product = text(),
            "version" => self.version = text(),
            _ => {}
        }
    }
}

/// How many characters are kept of a text.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_and_the_version_are_kept_and_cut() {
        let mut properties = PeerProperties::default();
        properties.set("cluster_name", "c");
        assert_eq!(properties, PeerProperties::default());
        properties.set("product", "RabbitMQ");
        properties.set("version", &"ü".repeat(100));
        assert_eq!(properties.product.as_deref(), Some("RabbitMQ"));
        assert_eq!(properties.version, Some("ü".repeat(64)));
    }
}
