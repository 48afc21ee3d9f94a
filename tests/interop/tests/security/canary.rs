//! A password that must appear nowhere: in no error, no Debug, and no log at the level TRACE.

use std::{
    error::Error as _,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use enoki::{
    Error,
    broker::{BrokerOptions, BrokerUrl, Login, Tls},
};
use enoki_interop::{Checked, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3};
use tokio::task::JoinSet;

use crate::{
    SCHEMES,
    authority::Authority,
    server::{Server, blurt, hold},
    transport,
};

/// The password, as a URL writes it.
const PASSWORD: &str = "S3cr3t%2FCANARY-9a2e";

/// What gives it away: as it is, as a URL writes it, in a login in base64, in base64 by itself, as a
/// list of bytes, in hexadecimal digits. Some of it is enough.
const FORMS: [&str; 6] = [
    "CANARY-9a2e",
    "S3cr3t",
    "AHNob3AAUzNjcjN0L0NBTkFSWS05YTJl",
    "UzNjcjN0L0NBTkFSWS05YTJl",
    "67, 65, 78, 65, 82, 89",
    "43414e415259",
];

/// What this process logged, all trials together.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps everything that is logged, however small.
pub(crate) fn listen() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(|| Log)
        .with_ansi(false)
        .init();
}

/// The first line of the log that is like this.
pub(crate) fn logged(wanted: impl Fn(&str) -> bool) -> Option<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&log).lines().find(|line| wanted(line)).map(str::to_owned)
}

/// All lines of the log that have this in them.
pub(crate) fn lines_with(wanted: &str) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.contains(wanted)).map(str::to_owned).collect()
}

/// Everything that can be read of an error.
pub(crate) fn told(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n{cause}\n{cause:?}"));
        source = cause.source();
    }
    text
}

pub(crate) async fn no_text_has_the_password() -> Checked {
    let mut texts = Vec::new();
    for url in bad_urls() {
        let error = enoki::connect(&url).await.err().ok_or("it was taken")?;
        texts.push(told(&error));
        if let Ok(url) = BrokerUrl::parse(&url) {
            texts.push(format!("{url}\n{url:?}\n{url:#?}"));
        }
    }
    let ours = Authority::new()?;
    let identity = ours.sign(&["127.0.0.1"])?;
    let client = ours.sign(&["a client"])?;
    let (encrypted, _) = Server::new(&identity, None)?.serve("127.0.0.1", hold).await?;
    let shows = |tls: Tls| tls.client_certificate(client.certificate.clone(), client.key.clone());
    let once = || BrokerOptions::new().reach_within(Duration::ZERO).connect_timeout(SHORT);
    let by_certificate = |tls| once().tls(shows(tls)).login(Login::External);
    let mut tries = Vec::new();
    for scheme in SCHEMES {
        let login = format!("shop:{PASSWORD}");
        let mut urls = vec![
            format!("{scheme}://{login}@127.0.0.1:1"),
            format!("{scheme}://{login}@{}", blurt(b"").await?.0),
            format!("{scheme}://{login}@{}", blurt(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?.0),
            format!("{scheme}://{login}@{}", blurt(greeting(scheme)).await?.0),
            format!("{scheme}s://{login}@{encrypted}"),
            format!("{scheme}://{login}@{encrypted}"),
            format!("{scheme}s://{login}@{}", blurt(b"AMQP\0\0\x09\x01").await?.0),
        ];
        for broker in [RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3] {
            if let Some(url) = broker.url(scheme) {
                let url = BrokerUrl::parse(&url)?;
                let (host, port) = (url.host().unwrap_or_default(), url.port().unwrap_or_default());
                let path = url.path().unwrap_or_default();
                urls.push(format!("{scheme}://{login}@{host}:{port}/{path}"));
                urls.push(format!("{scheme}://guest:{PASSWORD}@{host}:{port}/{path}"));
            }
            if let Some(broker) = broker.encrypted(scheme) {
                let url = broker.url.replace("guest:guest", &login);
                tries.push((url, once().tls(broker.trusting()?)));
                // It does not know whose certificate that is.
                tries.push((broker.without_login(), by_certificate(broker.trusting()?)));
            }
        }
        for url in urls {
            let bare = url.replace(&format!("{login}@"), "");
            let tls = Tls::new().trust_only(ours.pem());
            tries.extend([
                (url.clone(), once()),
                (url.clone(), once().tls(shows(tls.clone()))),
                (url, by_certificate(tls.clone())),
                (bare, by_certificate(tls)),
            ]);
        }
    }
    for some in tries.chunks(AT_ONCE) {
        let mut running = JoinSet::new();
        for (url, options) in some.iter().cloned() {
            texts.push(format!("{options:?}\n{options:#?}\n{:?}", options.settings()));
            if let Ok(transport) = transport(&BrokerUrl::parse(&url)?, &options) {
                texts.push(format!("{transport:?}\n{transport:#?}"));
            }
            running.spawn(async move { enoki::connect_with(url, options).await });
        }
        for connected in running.join_all().await {
            texts.push(told(&connected.err().ok_or("it was taken")?));
        }
    }
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(!log.is_empty(), "nothing was logged: is anybody listening?");
    texts.push(log);
    for text in &texts {
        for form in FORMS.into_iter().chain(key(&client.key)) {
            if let Some(at) = text.find(form) {
                let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
                return Err(format!("{form:?} is in {:?}", text[from..].lines().next()).into());
            }
        }
    }
    Ok(())
}

/// What gives a private key away: its lines, without those that every key has.
fn key(pem: &str) -> impl Iterator<Item = &str> {
    pem.lines().filter(|line| !line.starts_with("-----"))
}

/// How many connections are tried at the same time.
const AT_ONCE: usize = 8;

/// How long a peer may be silent.
const SHORT: Duration = Duration::from_secs(2);

/// What takes the login, and then hangs up.
pub(crate) fn greeting(scheme: &str) -> &'static [u8] {
    if scheme == "amqp091" {
        b"\x01\0\0\0\0\0\x1c\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US\xce"
    } else {
        b"AMQP\x03\x01\0\0\0\0\0\x17\x02\x01\0\0\0\x53\x40\xc0\x0a\x01\xe0\x07\x01\xa3\x05PLAIN"
    }
}

/// What cannot be meant.
fn bad_urls() -> Vec<String> {
    let mut urls = Vec::new();
    for scheme in ["amqp091", "amqp10", "amqp091s", "amqp10s", "amqp", "amqps", "http", "memory"] {
        for rest in [
            ":shop:PW@host",
            "://shop:PW@host:99999",
            "://shop:PW%zz@host",
            "://shop:PW%ff@host",
            "://shop:PW@host:port",
            "://:PW@host",
            "://shop:PW@",
            "://shop:PW@[::1",
            "://shop:PW@ho st",
            "://shop:PW@host/",
            "://shop:PW@host/a/b",
            "://shop:PW@host?heartbeat=never",
            "://shop:PW@host?password=PW",
            "://shop:PW@host#PW",
            "//shop:PW@host",
        ] {
            urls.push(format!("{scheme}{}", rest.replace("PW", PASSWORD)));
        }
    }
    urls
}
