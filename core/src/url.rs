//! Broker URLs: parsed here, once, so that no client library ever guesses at one.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// A password that cannot be printed by accident.
///
/// ```
/// use enoki_core::Secret;
///
/// assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that logs in with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A broker URL in parts: `amqp091://user:password@host:5672/vhost?heartbeat=10`, `memory://a`.
///
/// Printing it shows no password.
///
/// ```
/// use enoki_core::BrokerUrl;
///
/// let url = BrokerUrl::parse("amqp091://shop:s3cret@[::1]:5673/eu%2Fprod?heartbeat=10")?;
/// assert_eq!(url.host(), Some("::1"));
/// assert_eq!(url.path(), Some("eu/prod"));
/// assert_eq!(url.to_string(), "amqp091://shop@[::1]:5673/eu%2Fprod");
/// # Ok::<(), enoki_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: String,
    username: Option<String>,
    password: Option<Secret>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    parameters: Vec<(String, String)>,
    /// What follows the user's name may be the end of a password: see [`may_end_in_a_password`].
    is_doubtful: bool,
}

impl BrokerUrl {
    /// Takes a URL apart. Errors name the part and never show a credential.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(refuse("it is empty").remedy(EXPECTED));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(refuse("it has no scheme").remedy(EXPECTED));
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return Err(refuse("it has no scheme").remedy(EXPECTED));
        }
        if rest.is_empty() {
            return Ok(Self::bare(scheme));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(refuse(format!("\"//\" is missing after \"{scheme}:\"")).remedy(EXPECTED));
        };
        check_characters(rest)?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Before anything is named in an error: it may be the end of a password.
        if rest.contains('@') {
            return Err(refuse("it has an @ after the host").remedy(
                "encode / ? # as %2F %3F %23 in a user name or password, and @ as %40 elsewhere",
            ));
        }
        if rest.contains('#') {
            return Err(refuse("it has a fragment").remedy("encode # as %23"));
        }
        let is_doubtful = may_end_in_a_password(authority);
        check_port(authority)?;
        // Only the part that is hard to take apart, and under a scheme that the `url` crate has no
        // opinion on: of paths it has many.
        let parsed = url::Url::parse(&format!("broker://{authority}"))
            .map_err(|error| refuse(error.to_string()).remedy(EXPECTED))?;
        let username = non_empty(decode("user name", parsed.username())?);
        let password =
            parsed.password().map(|text| decode("password", text)).transpose()?.map(Secret);
        let host = match parsed.host() {
            None => None,
            Some(url::Host::Ipv6(address)) => Some(address.to_string()),
            Some(url::Host::Ipv4(address)) => Some(address.to_string()),
            Some(url::Host::Domain(name)) => Some(host_name(decode("host", name)?)?),
        };
        if parsed.port() == Some(0) {
            return Err(refuse("port 0 is out of range 1–65535"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path.strip_prefix('/') {
            None => None,
            Some(path) if path.contains('/') => {
                return Err(
                    refuse("the virtual host must be one path segment").remedy("encode / as %2F")
                );
            }
            Some(path) => Some(decode("virtual host", path)?),
        };
        let parameters = parameters(query, is_doubtful)?;
        Ok(Self {
            scheme,
            username,
            password,
            host: host.and_then(non_empty),
            port: parsed.port(),
            path,
            parameters,
            is_doubtful,
        })
    }

    fn bare(scheme: String) -> Self {
        Self {
            scheme,
            username: None,
            password: None,
            host: None,
            port: None,
            path: None,
            parameters: Vec::new(),
            is_doubtful: false,
        }
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user name.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The host: a name or an address, an IPv6 address without its brackets.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What follows the host, decoded and without its slash: the virtual host. `Some("")` when there
    /// is a slash and nothing after it.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The virtual host, `/` when there is no path. A slash with nothing after it is refused: some
    /// read it as the empty name and some as the default.
    pub fn virtual_host(&self) -> Result<&str> {
        match self.path() {
            None => Ok("/"),
            Some("") => {
                Err(refuse("it ends with a slash, which means a virtual host with an empty name")
                    .remedy("leave the slash out, or write /%2F for the virtual host \"/\""))
            }
            Some(name) => Ok(name),
        }
    }

    /// The parameters after `?`, decoded, in their order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The error for a parameter that the transport does not know, with the known one it resembles.
    pub fn unknown_parameter(&self, key: &str, known: &[&str]) -> Error {
        let error = refuse(match self.is_doubtful {
            true => "unknown parameter".to_owned(),
            false => format!("unknown parameter {key:?}"),
        });
        let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(name, key), name)).min();
        match nearest {
            // A third of it misspelt: with more, it is rather another word.
            Some((distance, name)) if distance * 3 <= name.len().max(key.len()) => {
                error.remedy(format!("did you mean {name:?}?"))
            }
            _ if known.is_empty() => {
                error.remedy(format!("{:?} URLs have no parameters", self.scheme))
            }
            _ => error.remedy(format!("known are {}", known.join(", "))),
        }
    }

    /// The error for a parameter whose value does not fit.
    pub fn bad_parameter(&self, key: &str, reason: impl fmt::Display) -> Error {
        refuse(format!("parameter {key:?}: {reason}"))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode =
            |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        write!(f, "{}:", self.scheme)?;
        if let Some(host) = &self.host {
            f.write_str("//")?;
            if let Some(username) = &self.username {
                write!(f, "{}@", encode(username))?;
            }
            if host.contains(':') {
                write!(f, "[{host}]")?
            } else {
                f.write_str(host)?
            }
            if let Some(port) = self.port {
                write!(f, ":{port}")?;
            }
            if let Some(path) = &self.path {
                write!(f, "/{}", encode(path))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

const EXPECTED: &str = "expected memory:, or amqp091://user:password@host:port/vhost";

fn refuse(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, "read the broker URL").because(reason)
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn decode(part: &str, text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| refuse(format!("the {part} is not UTF-8 after percent-decoding")))
}

fn host_name(name: String) -> Result<String> {
    let fits = |letter: char| letter.is_alphanumeric() || "-._~".contains(letter);
    if name.chars().all(fits) {
        Ok(name)
    } else {
        Err(refuse("the host has a character that no host name has"))
    }
}

fn parameters(query: &str, is_doubtful: bool) -> Result<Vec<(String, String)>> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    let named = |key: &str| match is_doubtful {
        true => "a parameter".to_owned(),
        false => format!("parameter {key:?}"),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode("name of a parameter", key)?;
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| refuse(format!("{} is not UTF-8 after percent-decoding", named(&key))))?;
        if parameters.iter().any(|(other, _)| *other == key) {
            return Err(refuse(format!("{} is given twice", named(&key))));
        }
        parameters.push((key, value.into_owned()));
    }
    Ok(parameters)
}

/// The `url` crate lets `%zz` pass, and drops tabs and line breaks: a password that holds a bare one
/// would be sent as another.
fn check_characters(text: &str) -> Result<()> {
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(refuse("it has a space or a control character").remedy("encode a space as %20"));
    }
    let bytes = text.as_bytes();
    let broken = bytes.iter().enumerate().any(|(at, byte)| {
        *byte == b'%'
            && !bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        return Err(
            refuse("a % is not followed by two hexadecimal digits").remedy("encode % as %25")
        );
    }
    Ok(())
}

/// Whether the part before the path may be a user and the beginning of a password, because the host was
/// forgotten: `amqp091://guest:123456`. Then nothing that follows the colon may be in an error. A number
/// that would do as a port cannot be told from one, and is taken for it.
fn may_end_in_a_password(authority: &str) -> bool {
    !authority.contains('@') && authority.contains(':') && !authority.starts_with('[')
}

/// Says which port is out of range, where the `url` crate says only that one is.
fn check_port(authority: &str) -> Result<()> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.rsplit_once(':') {
        Some((before, port)) if !before.starts_with('[') || before.ends_with(']') => port,
        _ => return Ok(()),
    };
    if !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_err()
    {
        return Err(match may_end_in_a_password(authority) {
            true => refuse("the port is out of range 1–65535")
                .remedy("if this is a password, the host is missing: write user:password@host"),
            false => refuse(format!("port {port} is out of range 1–65535")),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> BrokerUrl {
        BrokerUrl::parse(text).unwrap()
    }

    /// The text of the error, which has to have all of these parts.
    fn refused(text: &str, parts: &[&str]) -> String {
        let error = BrokerUrl::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let said = error.to_string();
        assert!(said.starts_with("read the broker URL: "), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is missing in {said:?}, for {text:?}");
        }
        said
    }

    #[test]
    fn an_empty_url_is_refused_and_an_example_given() {
        refused("", &["it is empty", "amqp091://user:password@host:port/vhost"]);
    }

    #[test]
    fn a_url_without_a_scheme_is_refused() {
        for text in ["localhost", ":", "://host", "//host", "1 2://host", "a/b:c"] {
            refused(text, &["it has no scheme", "expected memory:"]);
        }
    }

    #[test]
    fn a_scheme_without_its_slashes_is_refused_and_the_credentials_kept_quiet() {
        let said = refused("amqp091:user:s3cr3t@host", &["\"//\" is missing after \"amqp091:\""]);
        assert!(!said.contains("s3cr3t") && !said.contains("user:s"), "{said}");
        refused("localhost:5672", &["\"//\" is missing"]);
    }

    #[test]
    fn a_scheme_is_read_in_lower_case() {
        assert_eq!(parse("AMQP091://Host").scheme(), "amqp091");
        assert_eq!(parse("Memory:").scheme(), "memory");
        assert_eq!(parse("a+b-c.d://h").scheme(), "a+b-c.d");
    }

    #[test]
    fn a_port_out_of_range_is_named_with_the_range() {
        for (text, port) in [
            ("amqp091://user@host:99999", "99999"),
            ("amqp091://u:p@host:65536/v", "65536"),
            ("amqp091://u:p@host:0", "0"),
            ("amqp091://[::1]:70000", "70000"),
            ("amqp091://u@host:123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            refused(text, &[&format!("port {port} is out of range 1–65535")]);
        }
        refused("amqp091://host:99999", &["the port is out of range 1–65535"]);
        refused("amqp091://host:http", &["port"]);
        refused("amqp091://host:-1", &["port"]);
        assert_eq!(parse("amqp091://host:65535").port(), Some(65535));
        assert_eq!(parse("amqp091://host:1").port(), Some(1));
        assert_eq!(parse("amqp091://host:").port(), None);
    }

    #[test]
    fn hosts_are_names_or_addresses_of_both_kinds() {
        for (text, host, port) in [
            ("amqp091://localhost", "localhost", None),
            ("amqp091://rabbit-1.eu.example.com:5673", "rabbit-1.eu.example.com", Some(5673)),
            ("amqp091://127.0.0.1:5672/", "127.0.0.1", Some(5672)),
            ("amqp091://[2001:db8::5]", "2001:db8::5", None),
            ("amqp091://[2001:db8::5]:5672/v", "2001:db8::5", Some(5672)),
            ("amqp091://u:p@[::1]?a=b", "::1", None),
            ("memory://a", "a", None),
        ] {
            let url = parse(text);
            assert_eq!((url.host(), url.port()), (Some(host), port), "{text}");
        }
        for text in
            ["amqp091://[::1", "amqp091://::1]", "amqp091://[localhost]", "amqp091://[1.2.3.4]"]
        {
            refused(text, &[]);
        }
    }

    #[test]
    fn a_url_without_a_host_has_none_and_one_with_only_a_user_is_refused() {
        for text in ["memory:", "memory://", "amqp091:///vhost"] {
            assert_eq!(parse(text).host(), None, "{text}");
        }
        assert_eq!(parse("amqp091:///vhost").path(), Some("vhost"));
        refused("amqp091://user:s3cr3t@/vhost", &["empty host"]);
        refused("amqp091://:5672", &["empty host"]);
    }

    #[test]
    fn a_host_with_a_character_that_hides_something_is_refused() {
        for host in ["a%2Fb", "a%40b", "a%3A1", "a%00", "a%20b", "a%25b"] {
            refused(&format!("amqp091://{host}"), &["the host"]);
        }
        assert_eq!(parse("amqp091://b%C3%BCro").host(), Some("büro"));
    }

    #[test]
    fn the_virtual_host_is_one_segment_and_a_bare_slash_is_no_answer() {
        for (text, path, virtual_host) in [
            ("amqp091://h", None, Some("/")),
            ("amqp091://h/%2F", Some("/"), Some("/")),
            ("amqp091://h/%2f", Some("/"), Some("/")),
            ("amqp091://h/prod", Some("prod"), Some("prod")),
            ("amqp091://h/eu%2Fprod", Some("eu/prod"), Some("eu/prod")),
            ("amqp091://h/%25", Some("%"), Some("%")),
            ("amqp091://h/.", Some("."), Some(".")),
            ("amqp091://h/..", Some(".."), Some("..")),
            ("amqp091://h/%2e%2E", Some(".."), Some("..")),
            ("amqp091://h/", Some(""), None),
            ("amqp091://h/?a=b", Some(""), None),
        ] {
            let url = parse(text);
            assert_eq!(url.path(), path, "{text}");
            assert_eq!(url.virtual_host().ok(), virtual_host, "{text}");
        }
        let error = parse("amqp091://h/").virtual_host().unwrap_err().to_string();
        assert!(error.contains("empty name") && error.contains("/%2F"), "{error}");
        for text in ["amqp091://h/a/b", "amqp091://h//", "amqp091://h/a/../b", "amqp091://h//a"] {
            refused(text, &["the virtual host must be one path segment", "encode / as %2F"]);
        }
    }

    #[test]
    fn a_percent_that_encodes_nothing_is_refused_wherever_it_is() {
        for text in [
            "amqp091://u:%zz@h",
            "amqp091://u%:p@h",
            "amqp091://u:100%@h",
            "amqp091://u:p@h/%2",
            "amqp091://h?a=%g0",
            "amqp091://h%",
            "amqp091://h/%é",
        ] {
            refused(text, &["not followed by two hexadecimal digits", "encode % as %25"]);
        }
    }

    #[test]
    fn what_is_not_utf8_is_refused_and_the_part_named() {
        for (text, part) in [
            ("amqp091://%ff:p@h", "the user name"),
            ("amqp091://u:%ff@h", "the password"),
            ("amqp091://%ff", "the host"),
            ("amqp091://h/%ff", "the virtual host"),
            ("amqp091://h?heartbeat=%ff", "parameter \"heartbeat\""),
            ("amqp091://h?%ff=1", "the name of a parameter"),
        ] {
            refused(text, &[part, "not UTF-8"]);
        }
    }

    #[test]
    fn a_space_or_line_break_is_refused_and_not_dropped() {
        for text in [
            "amqp091://u:p@h\n",
            "amqp091://u:p@h/v ",
            "amqp091://u:a\tb@h",
            "amqp091://u:a b@h",
            "amqp091://h/\u{a0}",
            "amqp091://h\0",
        ] {
            refused(text, &["a space or a control character", "%20"]);
        }
        assert_eq!(parse("amqp091://u:a%20b%09@h").password().map(Secret::reveal), Some("a b\t"));
    }

    #[test]
    fn a_fragment_is_refused() {
        refused("amqp091://h/v#top", &["a fragment", "%23"]);
        refused("amqp091://h#", &["a fragment"]);
    }

    #[test]
    fn credentials_are_decoded_and_may_hold_anything() {
        let url = parse("amqp091://us%40er:p%40ss%2F%3A%3F%23%25w%C3%B6rd@h/v");
        assert_eq!(url.username(), Some("us@er"));
        assert_eq!(url.password().map(Secret::reveal), Some("p@ss/:?#%wörd"));
        let url = parse("amqp091://user:wörd:with:colons@h");
        assert_eq!(url.password().map(Secret::reveal), Some("wörd:with:colons"));
        let url = parse("amqp091://user:p@ss@h");
        assert_eq!((url.password().map(Secret::reveal), url.host()), (Some("p@ss"), Some("h")));
        let url = parse("amqp091://user@h");
        assert_eq!((url.username(), url.password()), (Some("user"), None));
        let url = parse("amqp091://:secret@h");
        assert_eq!((url.username(), url.password().map(Secret::reveal)), (None, Some("secret")));
    }

    /// A slash, a question mark or a hash ends the part that holds the password: what comes after it
    /// would be taken for a virtual host or a parameter, and shown as one.
    #[test]
    fn a_password_that_ends_early_is_refused_and_kept_quiet() {
        for text in [
            "amqp091://user:5672/s3cr3t@host",
            "amqp091://user:99999/s3cr3t@host",
            "amqp091://user:12?s3cr3t@host/v",
            "amqp091://user:12#s3cr3t@host/v",
            "amqp091://user:a@b/s3cr3t@host",
            "amqp091://host/s3cr3t@v",
        ] {
            let said = refused(text, &["an @ after the host", "%2F"]);
            assert!(!said.contains("s3cr3t") && !said.contains("99999"), "{said}");
        }
    }

    /// `amqp091://guest:123456`: the password would be taken for a port.
    #[test]
    fn a_password_without_a_host_is_kept_quiet() {
        let said = refused("amqp091://guest:123456", &["the port", "user:password@host"]);
        assert!(!said.contains("123456"), "{said}");
        for text in [
            "amqp091://guest:123456/v",
            "amqp091://guest:123456?heartbeat=1",
            "amqp091://guest:s3cr3t",
            "amqp091://guest:12?s3cr3t&s3cr3t",
            "amqp091://guest:12?s3cr3t=%ff",
        ] {
            let said = refused(text, &[]);
            assert!(!said.contains("s3cr3t") && !said.contains("123456"), "{said}");
        }
        let said = parse("amqp091://guest:12?s3cr3t").unknown_parameter("s3cr3t", &["heartbeat"]);
        assert!(!said.to_string().contains("s3cr3t"), "{said}");
        let near =
            parse("amqp091://host:12?heartbeet=1").unknown_parameter("heartbeet", &["heartbeat"]);
        assert!(
            near.to_string().contains("unknown parameter; did you mean \"heartbeat\"?"),
            "{near}"
        );
    }

    #[test]
    fn parameters_are_decoded_and_keep_their_order() {
        let url = parse("amqp091://h?heartbeat=10&ca=%2Fetc%2Fca+1.pem&flag&&empty=&a=b=c");
        let parameters: Vec<_> = url.parameters().collect();
        assert_eq!(
            parameters,
            [
                ("heartbeat", "10"),
                ("ca", "/etc/ca+1.pem"),
                ("flag", ""),
                ("empty", ""),
                ("a", "b=c")
            ]
        );
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        refused(
            "amqp091://h?heartbeat=10&heartbeat=20",
            &["parameter \"heartbeat\" is given twice"],
        );
        refused("amqp091://h?a=1&b=2&%61=1", &["parameter \"a\" is given twice"]);
    }

    #[test]
    fn an_unknown_parameter_is_named_with_the_one_it_resembles_or_all_there_are() {
        let url = parse("amqp091://h");
        let known = ["heartbeat", "ca", "connect_timeout"];
        for (key, expected) in [
            ("hearbeat", "unknown parameter \"hearbeat\"; did you mean \"heartbeat\"?"),
            ("heart_beat", "did you mean \"heartbeat\"?"),
            ("connecttimeout", "did you mean \"connect_timeout\"?"),
            ("verify", "known are heartbeat, ca, connect_timeout"),
            ("cacertfile", "known are heartbeat, ca, connect_timeout"),
            ("tls", "known are heartbeat, ca, connect_timeout"),
        ] {
            let error = url.unknown_parameter(key, &known);
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = parse("memory:").unknown_parameter("heartbeat", &[]).to_string();
        assert!(error.contains("\"memory\" URLs have no parameters"), "{error}");
    }

    #[test]
    fn a_bad_parameter_is_named_with_the_reason() {
        let error = parse("amqp091://h").bad_parameter("heartbeat", "-1 is not from 1 to 65535");
        assert_eq!(
            error.to_string(),
            "read the broker URL: parameter \"heartbeat\": -1 is not from 1 to 65535"
        );
    }

    #[test]
    fn what_is_shown_has_no_password_and_can_be_read_again() {
        for (text, shown) in [
            (
                "amqp091://shop:s3cr3t@host:5672/eu%2Fprod?heartbeat=10",
                "amqp091://shop@host:5672/eu%2Fprod",
            ),
            ("amqp091://:s3cr3t@host", "amqp091://host"),
            ("amqp091://a%40b:s3cr3t@[::1]/", "amqp091://a%40b@[::1]/"),
            ("memory:", "memory:"),
            ("memory://a", "memory://a"),
        ] {
            let url = parse(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("BrokerUrl({shown})"));
            assert!(!format!("{:?} {:#?}", url, url.password()).contains("s3cr3t"));
            let again = parse(shown);
            assert_eq!(again.username(), url.username());
            assert_eq!(again.host(), url.host());
            assert_eq!(again.path(), url.path());
        }
    }

    fn encoded(text: &str) -> String {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*", tail in "[a-z%@:/?#\\[\\]0-9 ]{0,20}") {
            let _ = BrokerUrl::parse(&text);
            let _ = BrokerUrl::parse(&format!("amqp091://{text}"));
            let _ = BrokerUrl::parse(&format!("amqp091://{tail}"));
        }

        /// Whatever a user forgets to encode in a password, it is either read whole or refused
        /// without a word of it.
        #[test]
        fn no_part_of_a_password_is_ever_shown(
            before in "[a-z0-9%@:/?#\\[\\]& ]{0,6}",
            after in "[a-z0-9%@:/?#\\[\\]& ]{0,6}",
        ) {
            let text = format!("amqp091://user:{before}hunter2{after}@host:5672/vhost?heartbeat=10");
            let shown = match BrokerUrl::parse(&text) {
                Ok(url) => {
                    prop_assert!(url.password().is_some_and(|it| it.reveal().contains("hunter2")));
                    format!("{url} {url:?} {:?} {:?}", url.password(), url.parameters().collect::<Vec<_>>())
                }
                Err(error) => format!("{error} {error:?} {error:#?}"),
            };
            prop_assert!(!shown.contains("hunter2"), "{shown:?} for {text:?}");
        }

        /// The same where the host was forgotten. What reads as a URL all the same, with a number for the
        /// port, is shown as one; no error tells more.
        #[test]
        fn no_error_shows_a_password_where_the_host_is_missing(
            before in "[a-z0-9%:/?#\\[\\]& ]{0,6}",
            after in "[a-z0-9%:/?#\\[\\]&= ]{0,6}",
            canary in prop::sample::select(vec!["hunter2", "123456", "9876543"]),
        ) {
            let text = format!("amqp091://user:{before}{canary}{after}");
            let shown = match BrokerUrl::parse(&text) {
                Ok(url) => {
                    let unknown = url.parameters().map(|(key, _)| url.unknown_parameter(key, &["ca"]));
                    let path = url.virtual_host().map(drop);
                    format!("{:?} {path:?}", unknown.collect::<Vec<_>>())
                }
                Err(error) => format!("{error} {error:?} {error:#?}"),
            };
            prop_assert!(!shown.contains(canary), "{shown:?} for {text:?}");
        }

        #[test]
        fn good_urls_come_apart_as_they_were_put_together(
            username in "\\PC{1,12}",
            password in proptest::option::of("\\PC{1,12}"),
            host in "[a-z][a-z0-9.-]{0,15}",
            port in proptest::option::of(1_u16..),
            path in proptest::option::of("\\PC{1,12}"),
            value in "\\PC{0,12}",
        ) {
            let text = format!(
                "amqp091://{}{}@{host}{}{}?key={}",
                encoded(&username),
                password.as_deref().map(|it| format!(":{}", encoded(it))).unwrap_or_default(),
                port.map(|it| format!(":{it}")).unwrap_or_default(),
                path.as_deref().map(|it| format!("/{}", encoded(it))).unwrap_or_default(),
                encoded(&value),
            );
            let url = parse(&text);
            prop_assert_eq!(url.username(), Some(&*username));
            prop_assert_eq!(url.password().map(Secret::reveal), password.as_deref());
            prop_assert_eq!((url.host(), url.port()), (Some(&*host), port));
            prop_assert_eq!(url.path(), path.as_deref());
            prop_assert_eq!(url.parameters().collect::<Vec<_>>(), [("key", &*value)]);
            let again = parse(&url.to_string());
            prop_assert_eq!(again.username(), url.username());
            prop_assert_eq!((again.host(), again.port(), again.path()), (url.host(), url.port(), url.path()));
        }
    }
}
