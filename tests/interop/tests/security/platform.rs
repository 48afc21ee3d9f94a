//! Whom the platform trusts. On Linux a variable says that, and no program can set its own: so this one
//! is run once more.

use std::{env, fs, process::ExitCode, sync::atomic::Ordering, time::Duration};

use enoki::broker::BrokerOptions;
use enoki_interop::{Checked, given};
use tokio::process::Command;

use crate::{
    SCHEMES,
    authority::Authority,
    server::{Server, hold},
};

/// What tells this program to do nothing but connect.
const URL: &str = "ENOKI_SECURITY_CONNECT";

pub(crate) fn asked_to_connect() -> Option<String> {
    given(URL)
}

/// With defaults alone. How far it comes, the other side knows.
pub(crate) fn connect(url: String) -> ExitCode {
    let once =
        BrokerOptions::new().reach_within(Duration::ZERO).connect_timeout(Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let connected = runtime.map(|runtime| runtime.block_on(enoki::connect_with(url, once)));
    match connected {
        Ok(Ok(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

pub(crate) async fn is_trusted() -> Checked {
    let (ours, other) = (Authority::new()?, Authority::named("Another")?);
    for (scheme, authority, expected) in
        SCHEMES.into_iter().flat_map(|scheme| [(scheme, &ours, true), (scheme, &other, false)])
    {
        let file =
            env::temp_dir().join(format!("enoki-{scheme}-{expected}-{}.pem", std::process::id()));
        fs::write(&file, authority.pem())?;
        let server = Server::new(&ours.sign(&["127.0.0.1"])?, None)?;
        let (address, reached) = server.serve("127.0.0.1", hold).await?;
        let mut command = Command::new(env::current_exe()?);
        command.env(URL, format!("{scheme}s://u:p@{address}")).env("SSL_CERT_FILE", &file);
        let status = command.env_remove("SSL_CERT_DIR").kill_on_drop(true).status().await;
        fs::remove_file(&file)?;
        assert!(!status?.success(), "nothing speaks AMQP there");
        assert_eq!(reached.load(Ordering::SeqCst) > 0, expected, "{scheme}");
    }
    Ok(())
}
