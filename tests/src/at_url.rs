//! The harness for a broker somewhere else, where an environment variable says it is.

use std::{fmt, net::TcpListener, sync::Arc};

use async_trait::async_trait;
use enoki_core::{BrokerUrl, Capability, Error, ErrorKind, Result, Transport};

use crate::harness::{Broken, Harness};

/// A broker that an environment variable gives the URL of. Where it does not, its cases are ignored,
/// or fail where `ENOKI_REQUIRE_BROKERS=1`.
///
/// (Compiled and not run with the documentation: a harness reads the arguments of its process.)
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use enoki_conformance::AtUrl;
/// use enoki_core::Capability;
/// # use std::sync::Arc;
/// # use enoki_core::{BrokerUrl, Error, ErrorKind, Result, Transport};
/// # fn transport(_: &BrokerUrl) -> Result<Arc<dyn Transport>> {
/// #     Err(Error::new(ErrorKind::Unsupported, "fly"))
/// # }
///
/// fn main() -> ExitCode {
///     enoki_conformance::main(
///         AtUrl::new("pigeon", "PIGEON_BROKER", "pigeon", transport)
///             .can(&[Capability::Exchanges, Capability::DeadLetter]),
///     )
/// }
/// ```
pub struct AtUrl {
    name: &'static str,
    variable: &'static str,
    scheme: &'static str,
    transport: fn(&BrokerUrl) -> Result<Arc<dyn Transport>>,
    url: Option<String>,
    capabilities: Vec<Capability>,
    virtual_hosts: bool,
    /// Accepts connections, and does nothing more. The system accepts them, so no task has to.
    silent: Option<TcpListener>,
}

impl AtUrl {
    /// A broker that is called this in the output, at the URL that the variable gives, reached by this
    /// scheme, whatever that URL's is: a broker may speak several protocols on one port.
    pub fn new(
        name: &'static str,
        variable: &'static str,
        scheme: &'static str,
        transport: fn(&BrokerUrl) -> Result<Arc<dyn Transport>>,
    ) -> Self {
        let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
        let url = url.map(|url| match url.split_once("://") {
            Some((_, rest)) => format!("{scheme}://{rest}"),
            None => url,
        });
        Self {
            name,
            variable,
            scheme,
            transport,
            url,
            capabilities: Vec::new(),
            virtual_hosts: true,
            silent: TcpListener::bind("127.0.0.1:0").ok(),
        }
    }

    /// Adds capabilities that must work there.
    #[must_use]
    pub fn can(mut self, capabilities: &[Capability]) -> Self {
        self.capabilities.extend(capabilities);
        self
    }

    /// It has no virtual hosts: any name of one is as good as another.
    #[must_use]
    pub fn without_virtual_hosts(mut self) -> Self {
        self.virtual_hosts = false;
        self
    }

    fn url(&self) -> Result<BrokerUrl> {
        let missing = || Error::new(ErrorKind::Configuration, "find a broker").on(self.variable);
        BrokerUrl::parse(self.url.as_deref().ok_or_else(missing)?)
    }

    /// The URL with its user, its password, its address and its virtual host, or others.
    fn broken_url(&self, how: Broken) -> Option<String> {
        let url = self.url().ok()?;
        // Without its password, which is the point of printing it.
        let shown = url.to_string();
        let (user, rest) = shown.split_once("://")?.1.split_once('@')?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, "%2F"));
        let password = url.password()?.reveal();
        Some(match how {
            Broken::WrongPassword => format!("{user}:{}@{address}/{path}", Broken::PASSWORD),
            Broken::MissingVirtualHost if self.virtual_hosts => {
                format!("{user}:{password}@{address}/{}", Broken::VIRTUAL_HOST)
            }
            Broken::MissingVirtualHost => return None,
            // Reserved, and no process listens there.
            Broken::Unreachable => format!("{user}:{}@127.0.0.1:1/{path}", Broken::PASSWORD),
            Broken::Silent => {
                let address = self.silent.as_ref()?.local_addr().ok()?;
                format!("{user}:{password}@{address}/{path}")
            }
        })
    }
}

impl fmt::Debug for AtUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtUrl").field("name", &self.name).field("url", &self.url().ok()).finish()
    }
}

#[async_trait]
impl Harness for AtUrl {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.capabilities.clone()
    }

    async fn transport(&self) -> Result<Arc<dyn Transport>> {
        (self.transport)(&self.url()?)
    }

    fn broken(&self, how: Broken) -> Option<Arc<dyn Transport>> {
        let url = format!("{}://{}", self.scheme, self.broken_url(how)?);
        (self.transport)(&BrokerUrl::parse(&url).ok()?).ok()
    }

    fn unavailable(&self) -> Option<String> {
        self.url.is_none().then(|| format!("needs {}", self.variable))
    }
}
