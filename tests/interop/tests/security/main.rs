//! TLS, logins by certificate, and secrets that must not be read: at brokers that listen with TLS, at others
//! through a proxy that does, and at scripts.

mod authority;
mod canary;
mod controls;
mod external;
mod platform;
mod real;
mod server;

use std::{
    process::ExitCode,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use enoki::{
    Broker, Error, ErrorKind, Outcome, Publisher,
    broker::{BrokerOptions, BrokerUrl, Tls},
    codec::Raw,
    topology::{QueueSpec, RouteSpec, Topology},
    transport::Transport,
};
use enoki_interop::{Checked, RABBITMQ_3, RABBITMQ_4, RABBITMQ_4_3, encrypted::Encrypted, without};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use self::{
    authority::Authority,
    server::{Server, blurt, hold},
};

const SCHEMES: [&str; 2] = ["amqp091", "amqp10"];

fn main() -> ExitCode {
    if let Some(url) = platform::asked_to_connect() {
        return platform::connect(url);
    }
    canary::listen();
    let mut trials = Vec::new();
    for scheme in SCHEMES {
        let mut add = |name: &str, run: fn(&'static str) -> Running| {
            let name = format!("security::{scheme}::{name}");
            trials.push(Trial::test(name, move || waited(run(scheme))));
        };
        add("an_authority_that_is_not_trusted_is_refused", |s| Box::pin(untrusted(s)));
        add("a_certificate_for_another_name_is_refused", |s| Box::pin(another_name(s)));
        add("a_certificate_that_has_expired_is_refused", |s| Box::pin(expired(s)));
        add("a_certificate_that_signed_itself_is_refused", |s| Box::pin(self_signed(s)));
        add("tls_that_is_too_old_is_refused", |s| Box::pin(too_old(s)));
        add("a_port_without_tls_is_told_and_hears_no_login", |s| Box::pin(plaintext(s)));
        add("a_client_without_the_certificate_it_needs_is_told", |s| Box::pin(no_certificate(s)));
        add("a_client_with_a_stranger_s_certificate_is_told", |s| Box::pin(stranger(s)));
        add("a_broker_that_hangs_up_may_be_tried_again", |s| Box::pin(hangs_up(s)));
        add("what_is_no_pem_is_refused_without_being_told", |s| Box::pin(no_pem(s)));
        add("a_login_by_certificate_says_external_and_no_password", |s| {
            Box::pin(external::says_external(s))
        });
    }
    for (broker, scheme) in [
        (RABBITMQ_3, "amqp091"),
        (RABBITMQ_4, "amqp091"),
        (RABBITMQ_4, "amqp10"),
        (RABBITMQ_4_3, "amqp10"),
    ] {
        let mut add = |name: &str, run: fn(String) -> Running| {
            let name = format!("security::{}_over_{scheme}::{name}", broker.name);
            trials.push(Trial::ignorable_test(name, move || match broker.url(scheme) {
                Some(url) => waited(run(url)).map(|()| Completion::Completed),
                None => without(broker.variable),
            }));
        };
        add("messages_of_any_size_go_and_come_encrypted", |url| Box::pin(round_trips(url)));
        add("any_certificate_will_do_where_that_is_asked_for", |url| Box::pin(anybody(url)));
        add("what_a_broker_quotes_acts_on_no_terminal", |url| Box::pin(controls::escaped(url)));
        add("a_login_by_certificate_that_is_not_offered_is_refused", |url| {
            Box::pin(external::is_not_offered(url))
        });
    }
    for (broker, scheme) in [
        (RABBITMQ_3, "amqp091"),
        (RABBITMQ_4, "amqp091"),
        (RABBITMQ_4, "amqp10"),
        (RABBITMQ_4_3, "amqp091"),
        (RABBITMQ_4_3, "amqp10"),
    ] {
        let mut add = |name: &str, run: fn(Encrypted) -> Running| {
            let name = format!("security::{}_over_{scheme}s::{name}", broker.name);
            trials.push(Trial::ignorable_test(name, move || match broker.encrypted(scheme) {
                Some(broker) => waited(run(broker)).map(|()| Completion::Completed),
                None => without(&broker.tls_variable()),
            }));
        };
        add("a_login_by_password_is_taken", |broker| Box::pin(real::password(broker)));
        add("a_login_by_certificate_is_taken", |broker| Box::pin(real::certificate(broker)));
        add("a_broker_that_the_platform_does_not_know_is_refused", |broker| {
            Box::pin(real::unknown(broker))
        });
        add("a_stranger_s_certificate_is_refused", |broker| Box::pin(real::stranger(broker)));
        add("a_wrong_password_is_refused", |broker| Box::pin(real::wrong_password(broker)));
    }
    #[cfg(target_os = "linux")] // elsewhere no variable says whom the platform trusts
    trials.push(Trial::test("security::whom_the_platform_trusts_is_trusted", || {
        waited(Box::pin(platform::is_trusted()))
    }));
    trials.push(Trial::test("security::a_password_in_the_clear_is_warned_of", warned));
    trials.push(Trial::test("security::trust_in_anybody_is_warned_of", warned_of_anybody));
    trials.push(Trial::test("security::no_credential_is_told_anywhere", || {
        waited(Box::pin(canary::no_text_has_the_password()))
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Running = std::pin::Pin<Box<dyn Future<Output = Checked>>>;

fn waited(running: Running) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(async { tokio::time::timeout(PATIENCE, running).await })
        .map_err(|_| Failed::from("it took too long"))?
        .map_err(|error| Failed::from(error.to_string()))
}

/// What a trial may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not tried again and again: what is refused for good has to say so at once.
fn options(tls: Tls) -> BrokerOptions {
    BrokerOptions::new().tls(tls).reach_within(Duration::from_secs(30))
}

/// The error of a connection that is refused for good: at once, and not after having been tried.
async fn refusal(url: String, options: BrokerOptions) -> Checked<Error> {
    let began = Instant::now();
    let error = enoki::connect_with(url, options).await.err().ok_or("it was taken")?;
    assert!(began.elapsed() < Duration::from_secs(15), "tried again: {error}");
    assert!(!error.is_transient(), "{error}");
    Ok(error)
}

fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

async fn untrusted(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let (address, reached) =
        Server::new(&ours.sign(&["127.0.0.1"])?, None)?.serve("127.0.0.1", hold).await?;
    let url = format!("{scheme}s://u:p@{address}");
    // Neither the platform nor another authority of our own knows it.
    let (namesake, other) = (Authority::new()?, Authority::named("Another")?);
    for tls in
        [Tls::new(), Tls::new().trust_only(namesake.pem()), Tls::new().trust_only(other.pem())]
    {
        let error = refusal(url.clone(), options(tls)).await?;
        says(&error, ErrorKind::Connection, &["authority that is not trusted", "Tls::trust_only"]);
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    Ok(())
}

async fn another_name(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let identity = ours.sign(&["broker.example", "10.0.0.1"])?;
    let (address, reached) = Server::new(&identity, None)?.serve("127.0.0.1", hold).await?;
    let tls = || options(Tls::new().trust_only(ours.pem()));
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("{scheme}s://u:p@{host}:{}", address.port());
        let error = refusal(url, tls()).await?;
        says(&error, ErrorKind::Connection, &["is not for", host, "broker.example"]);
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    Ok(())
}

async fn expired(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let identity = ours.sign_expired(&["127.0.0.1"])?;
    let (address, _) = Server::new(&identity, None)?.serve("127.0.0.1", hold).await?;
    let tls = Tls::new().trust_only(ours.pem());
    let error = refusal(format!("{scheme}s://u:p@{address}"), options(tls)).await?;
    says(&error, ErrorKind::Connection, &["has expired"]);
    Ok(())
}

async fn self_signed(scheme: &str) -> Checked {
    let identity = authority::self_signed(&["127.0.0.1"])?;
    let (address, reached) = Server::new(&identity, None)?.serve("127.0.0.1", hold).await?;
    let url = format!("{scheme}s://u:p@{address}");
    for tls in [Tls::new(), Tls::new().trust_only(Authority::new()?.pem())] {
        let error = refusal(url.clone(), options(tls)).await?;
        says(&error, ErrorKind::Connection, &["authority that is not trusted"]);
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    Ok(())
}

/// A server that knows nothing newer than TLS 1.1, and says so, or takes for granted that the client does.
async fn too_old(scheme: &str) -> Checked {
    let alert = b"\x15\x03\x02\0\x02\x02\x46";
    // A ServerHello of 38 bytes: version, random, no session, TLS_RSA_WITH_AES_128_CBC_SHA.
    let hello = [&b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02"[..], &[7; 32], b"\0\0\x2f\0"].concat();
    for bytes in [alert.to_vec(), hello] {
        let (address, _) = blurt(bytes).await?;
        let error = refusal(format!("{scheme}s://u:p@{address}"), options(Tls::new())).await?;
        says(&error, ErrorKind::Unsupported, &["known to both sides", "TLS 1.2 or 1.3"]);
    }
    Ok(())
}

/// An attacker on the way to the broker may answer in the clear, as the broker would.
async fn plaintext(scheme: &str) -> Checked {
    for bytes in
        [canary::greeting(scheme), b"AMQP\0\0\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    {
        let (address, heard) = blurt(bytes).await?;
        let url = format!("{scheme}s://shop:CANARY@{address}");
        let error = refusal(url, options(Tls::new())).await?;
        says(&error, ErrorKind::Unsupported, &["does not speak TLS", "5671"]);
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        // A ClientHello, and no word of AMQP.
        assert!(heard.starts_with(b"\x16\x03"), "{heard:?}");
        for word in [&b"CANARY"[..], b"shop", b"AMQP"] {
            assert!(!heard.windows(word.len()).any(|bytes| bytes == word), "{heard:?}");
        }
    }
    Ok(())
}

async fn no_certificate(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let server = Server::new(&ours.sign(&["127.0.0.1"])?, Some(&ours.pem()))?;
    let (address, _) = server.serve("127.0.0.1", hold).await?;
    let tls = Tls::new().trust_only(ours.pem());
    let error = refusal(format!("{scheme}s://u:p@{address}"), options(tls)).await?;
    says(&error, ErrorKind::Denied, &["asks for a certificate", "Tls::client_certificate"]);
    Ok(())
}

async fn stranger(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let server = Server::new(&ours.sign(&["127.0.0.1"])?, Some(&ours.pem()))?;
    let (address, _) = server.serve("127.0.0.1", hold).await?;
    for authority in [Authority::new()?, Authority::named("Another")?] {
        let strange = authority.sign(&["another"])?;
        let tls =
            Tls::new().trust_only(ours.pem()).client_certificate(strange.certificate, strange.key);
        let error = refusal(format!("{scheme}s://u:p@{address}"), options(tls)).await?;
        says(&error, ErrorKind::Denied, &["does not accept this side's certificate"]);
    }
    Ok(())
}

async fn hangs_up(scheme: &str) -> Checked {
    let (address, _) = blurt(b"").await?;
    let once = BrokerOptions::new().reach_within(Duration::ZERO);
    let url = format!("{scheme}s://u:p@{address}");
    let error = enoki::connect_with(url, once).await.err().ok_or("it was taken")?;
    says(&error, ErrorKind::Connection, &["closed the connection during the TLS handshake"]);
    assert!(error.is_transient(), "{error}");
    Ok(())
}

async fn no_pem(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let (one, another) = (ours.sign(&["one"])?, ours.sign(&["another"])?);
    let canary = "CANARY-of-a-private-key";
    let rows = [
        (Tls::new().trust_only("no pem"), "the authorities to trust"),
        (Tls::new().trust_only(one.key.clone()), "no certificate in the PEM"),
        (Tls::new().client_certificate("no pem", one.key.clone()), "the client's certificate"),
        (
            Tls::new().client_certificate(one.certificate.clone(), canary),
            "private key is not in PEM",
        ),
        (
            Tls::new().client_certificate(one.certificate, another.key),
            "not that of its certificate",
        ),
    ];
    for (tls, reason) in rows {
        let error = refusal(format!("{scheme}s://u:p@localhost:1"), options(tls)).await?;
        says(&error, ErrorKind::Configuration, &["set up TLS", reason]);
        assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    }
    Ok(())
}

/// A URL of a real broker, led through this server.
fn led(url: &str, scheme_and_login: &str, host: &str, port: u16) -> String {
    let path = url.rsplit_once('/').map_or("", |(_, path)| path);
    format!("{scheme_and_login}@{host}:{port}/{path}")
}

fn parts(url: &str) -> Checked<(String, String)> {
    let parsed = enoki::broker::BrokerUrl::parse(url)?;
    let broker = format!("{}:{}", parsed.host().ok_or("no host")?, parsed.port().ok_or("no port")?);
    let password = parsed.password().ok_or("no password")?.reveal();
    let user = parsed.username().ok_or("no user")?;
    Ok((broker, format!("{}s://{user}:{password}", parsed.scheme())))
}

async fn round_trips(url: String) -> Checked {
    let (broker, login) = parts(&url)?;
    let ours = Authority::new()?;
    let identity = ours.sign(&["localhost", "127.0.0.1", "::1"])?;
    let client = ours.sign(&["a client"])?;
    let tls = Tls::new().trust_only(ours.pem()).client_certificate(client.certificate, client.key);
    // The broker's certificate has every name that it goes by, and so has the client's an authority.
    for (listen, host) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "[::1]")]
    {
        let server = Server::new(&identity, Some(&ours.pem()))?;
        let (address, reached) = match server.before(broker.clone(), listen).await {
            Ok(listening) => listening,
            // A machine may be without IPv6.
            Err(_) if listen == "::1" => continue,
            Err(error) => return Err(error),
        };
        let url = led(&url, &login, host, address.port());
        let broker = enoki::connect_with(url, options(tls.clone())).await?;
        there_and_back(&broker).await?;
        broker.close(Duration::from_secs(5)).await;
        assert!(reached.load(Ordering::SeqCst) > 0);
    }
    Ok(())
}

/// Bodies of all sizes, many at a time, each way.
pub(crate) async fn there_and_back(broker: &Broker) -> Checked {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("enoki-security.{}.{number}", std::process::id());
    let mut queue = QueueSpec::new(name.clone())?;
    queue.expires = Some(10 * PATIENCE);
    let queue = queue.of::<Raw>();
    broker.declare(&Topology::new().with_queue(&queue)).await?;
    let publisher: Publisher<Raw> = broker.publisher(RouteSpec::to_queue(name)?).await?;
    let sizes = [0, 1, 1000, 16_384, 16_385, 131_072, 1_000_000, 3_000_000, 10];
    let bodies: Vec<_> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
    let mut confirms = Vec::new();
    for body in &bodies {
        let raw = Raw::new("application/octet-stream", body.clone())?;
        confirms.push(publisher.enqueue(&raw).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    let mut subscription = broker.subscribe(&queue, 4).await?;
    for body in &bodies {
        let delivery = subscription.next().await?.ok_or("no delivery")?;
        assert_eq!(delivery.message().body.len(), body.len());
        assert!(delivery.message().body == body.as_slice());
        delivery.settle(Outcome::Ack);
    }
    subscription.stop(Duration::from_secs(5)).await?;
    Ok(())
}

/// What a handle is made of; nothing is sent yet.
pub(crate) fn transport(
    url: &BrokerUrl,
    options: &BrokerOptions,
) -> enoki::Result<Arc<dyn Transport>> {
    let settings = options.settings();
    if url.scheme().starts_with("amqp091") {
        Ok(Arc::new(enoki::amqp091::Amqp091Transport::with_settings(url, &settings)?))
    } else {
        Ok(Arc::new(enoki::amqp10::Amqp10Transport::with_settings(url, &settings)?))
    }
}

/// Whether a transport to this host is warned of like this, before anything is sent.
fn is_warned_of(url: &str, tls: Tls, words: &str) -> Result<bool, Failed> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // A name of its own, to find it by.
    let user = format!("user-{}-", NEXT.fetch_add(1, Ordering::Relaxed));
    let url = BrokerUrl::parse(&url.replace("USER", &user))?;
    transport(&url, &BrokerOptions::new().tls(tls))?;
    let line = canary::logged(|line| line.contains(&user));
    Ok(line.is_some_and(|line| line.contains("WARN") && line.contains(words)))
}

/// Not where the broker is on this machine.
fn warned() -> Result<(), Failed> {
    for scheme in SCHEMES {
        for (host, s, expected) in [
            ("broker.example", "", true),
            ("10.0.0.1", "", true),
            ("[2001:db8::5]", "", true),
            ("broker.example", "s", false),
            ("localhost", "", false),
            ("127.0.0.1", "", false),
        ] {
            let url = format!("{scheme}{s}://USER:p@{host}");
            assert_eq!(is_warned_of(&url, Tls::new(), "in the clear")?, expected, "{url}");
        }
    }
    Ok(())
}

fn warned_of_anybody() -> Result<(), Failed> {
    for scheme in SCHEMES {
        let any = Tls::new().dangerously_accept_any_certificate();
        let rows = [("s", any.clone(), true), ("s", Tls::new(), false), ("", any, false)];
        for (s, tls, expected) in rows {
            let url = format!("{scheme}{s}://USER:p@localhost");
            assert_eq!(is_warned_of(&url, tls, "any certificate")?, expected, "{url}");
        }
    }
    Ok(())
}

async fn anybody(url: String) -> Checked {
    let (broker, login) = parts(&url)?;
    let expired = Authority::new()?.sign_expired(&["another.host"])?;
    let (address, _) = Server::new(&expired, None)?.before(broker, "127.0.0.1").await?;
    let url = led(&url, &login, "127.0.0.1", address.port());
    refusal(url.clone(), options(Tls::new())).await?;
    let any = options(Tls::new().dangerously_accept_any_certificate());
    let broker = enoki::connect_with(url, any).await?;
    broker.close(Duration::from_secs(5)).await;
    Ok(())
}
