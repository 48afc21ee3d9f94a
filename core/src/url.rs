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
        check_percent(rest)?;
        check_port(rest)?;
        // A scheme that the `url` crate has no opinion on, and a user part that is always there.
        let parsed = url::Url::parse(&format!("broker://{rest}"))
            .map_err(|error| refuse(error.to_string()).remedy(EXPECTED))?;
        let username = non_empty(decode("user name", parsed.username())?);
        let password =
            parsed.password().map(|text| decode("password", text)).transpose()?.map(Secret);
        let host = match parsed.host() {
            None => None,
            Some(url::Host::Ipv6(address)) => Some(address.to_string()),
            Some(url::Host::Ipv4(address)) => Some(address.to_string()),
            Some(url::Host::Domain(name)) => Some(decode("host", name)?),
        };
        if parsed.port() == Some(0) {
            return Err(refuse("port 0 is out of range 1–65535"));
        }
        if parsed.fragment().is_some() {
            return Err(refuse("it has a fragment").remedy("encode # as %23"));
        }
        let path = match parsed.path().strip_prefix('/') {
            None => None,
            Some(path) if path.contains('/') => {
                return Err(
                    refuse("the virtual host must be one path segment").remedy("encode / as %2F")
                );
            }
            Some(path) => Some(decode("virtual host", path)?),
        };
        let parameters = parsed
            .query_pairs()
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        Ok(Self {
            scheme,
            username,
            password,
            host: host.and_then(non_empty),
            port: parsed.port(),
            path,
            parameters,
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
        let error = refuse(format!("unknown parameter {key:?}"));
        let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(name, key), name)).min();
        match nearest {
            Some((distance, name)) if distance <= 3 => {
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

/// The `url` crate lets `%zz` pass; a password that holds a bare `%` would be sent as another.
fn check_percent(text: &str) -> Result<()> {
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

/// Says which port is out of range, where the `url` crate says only that one is.
fn check_port(rest: &str) -> Result<()> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.rsplit_once(':') {
        Some((before, port)) if !before.starts_with('[') || before.ends_with(']') => port,
        _ => return Ok(()),
    };
    if !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_err()
    {
        return Err(refuse(format!("port {port} is out of range 1–65535")));
    }
    Ok(())
}
