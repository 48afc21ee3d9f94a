//! Brokers that listen with TLS.

use enoki::{
    ErrorKind,
    broker::{BrokerOptions, Login, Tls},
};
use enoki_interop::{Checked, encrypted::Encrypted};
use tokio::time::Duration;

use crate::{authority::Authority, options, refusal, says, there_and_back};

/// Without a certificate and with one, which is then not what counts; by an address and by a name.
pub(crate) async fn password(broker: Encrypted) -> Checked {
    let by_name = broker.url.replace("127.0.0.1", "localhost");
    for (url, tls) in [
        (&broker.url, broker.trusting()?),
        (&by_name, broker.trusting()?),
        (&broker.url, broker.as_guest()?),
    ] {
        goes_and_comes(url, options(tls)).await?;
    }
    Ok(())
}

pub(crate) async fn certificate(broker: Encrypted) -> Checked {
    let by_certificate = options(broker.as_guest()?).login(Login::External);
    goes_and_comes(&broker.without_login(), by_certificate).await
}

async fn goes_and_comes(url: &str, options: BrokerOptions) -> Checked {
    let broker = enoki::connect_with(url, options).await?;
    there_and_back(&broker).await?;
    broker.close(Duration::from_secs(5)).await;
    Ok(())
}

pub(crate) async fn unknown(broker: Encrypted) -> Checked {
    let error = refusal(broker.url, options(Tls::new())).await?;
    says(&error, ErrorKind::Connection, &["authority that is not trusted"]);
    Ok(())
}

/// A certificate that the broker does not trust, in the name of a user whom it knows.
pub(crate) async fn stranger(broker: Encrypted) -> Checked {
    let guest = Authority::new()?.sign_for("guest")?;
    let tls = broker.trusting()?.client_certificate(guest.certificate, guest.key);
    for (url, login) in
        [(broker.without_login(), Login::External), (broker.url.clone(), Login::Password)]
    {
        let error = refusal(url, options(tls.clone()).login(login)).await?;
        says(&error, ErrorKind::Denied, &["does not accept this side's certificate"]);
    }
    Ok(())
}

pub(crate) async fn wrong_password(broker: Encrypted) -> Checked {
    let url = broker.url.replace("guest:guest", "guest:CANARY");
    let error = refusal(url, options(broker.trusting()?)).await?;
    says(&error, ErrorKind::Denied, &["check user name"]);
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    Ok(())
}
