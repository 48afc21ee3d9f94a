//! Brokers that offer both logins, and note which one is taken.

use enoki::{
    ErrorKind,
    broker::{BrokerOptions, Login, Tls},
};
use enoki_interop::Checked;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    authority::Authority,
    options, parts, refusal, says,
    server::{Encrypted, Server},
};

pub(crate) async fn says_external(scheme: &str) -> Checked {
    let ours = Authority::new()?;
    let server = Server::new(&ours.sign(&["127.0.0.1"])?, Some(&ours.pem()))?;
    let (told, mut logins) = mpsc::unbounded_channel();
    let is_old = scheme == "amqp091";
    let offer = move |stream| {
        let told = told.clone();
        async move {
            let login = if is_old { offer_091(stream).await } else { offer_10(stream).await };
            let _ = told.send(login.map_err(|error| error.to_string()));
        }
    };
    let (address, _) = server.serve("127.0.0.1", offer).await?;
    let client = ours.sign(&["a client"])?;
    let tls = Tls::new().trust_only(ours.pem()).client_certificate(client.certificate, client.key);
    let options = BrokerOptions::new().tls(tls.clone()).login(Login::External);
    let url = format!("{scheme}s://{address}");
    // The broker hangs up when it knows.
    let error = enoki::connect_with(url, options).await.err().ok_or("it was taken")?;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("by certificate"), "{error}");
    let login = logins.recv().await.ok_or("no login")??;
    let has = |text: &[u8]| login.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"EXTERNAL") && !has(b"PLAIN") && !has(b"guest"), "{login:?}");

    // By default it is the password.
    let options = BrokerOptions::new().tls(tls);
    let url = format!("{scheme}s://{address}");
    enoki::connect_with(url, options).await.err().ok_or("it was taken")?;
    let login = logins.recv().await.ok_or("no login")??;
    let has = |text: &[u8]| login.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"PLAIN") && has(b"\0guest\0guest") && !has(b"EXTERNAL"), "{login:?}");
    Ok(())
}

/// A broker does not offer it to who comes through a proxy, since the proxy has seen the certificate. No
/// other login takes its place.
pub(crate) async fn is_not_offered(url: String) -> Checked {
    let (broker, login) = parts(&url)?;
    let ours = Authority::new()?;
    let server = Server::new(&ours.sign(&["127.0.0.1"])?, Some(&ours.pem()))?;
    let (address, _) = server.before(broker, "127.0.0.1").await?;
    let client = ours.sign(&["a client"])?;
    let tls = Tls::new().trust_only(ours.pem()).client_certificate(client.certificate, client.key);
    let scheme = login.split_once("://").map_or("", |(scheme, _)| scheme);
    let path = url.rsplit_once('/').map_or("", |(_, path)| path);
    let url = format!("{scheme}://{address}/{path}");
    let error = refusal(url, options(tls).login(Login::External)).await?;
    says(&error, ErrorKind::Denied, &["by certificate", "EXTERNAL"]);
    Ok(())
}

/// What AMQP 0-9-1 is answered with.
async fn offer_091(mut stream: Encrypted) -> std::io::Result<Vec<u8>> {
    stream.read_exact(&mut [0; 8]).await?;
    let payload = b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x0ePLAIN EXTERNAL\0\0\0\x05en_US";
    let mut frame = vec![1, 0, 0];
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xce);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [_, _, _, length @ ..] = head;
    let mut login = vec![0; u32::from_be_bytes(length) as usize + 1];
    stream.read_exact(&mut login).await?;
    Ok(login)
}

/// What AMQP 1.0 is answered with.
async fn offer_10(mut stream: Encrypted) -> std::io::Result<Vec<u8>> {
    stream.read_exact(&mut [0; 8]).await?;
    stream.write_all(b"AMQP\x03\x01\0\0").await?;
    let offer = b"\0\x53\x40\xc0\x14\x01\xe0\x11\x02\xa3\x05PLAIN\x08EXTERNAL";
    stream.write_all(&(offer.len() as u32 + 8).to_be_bytes()).await?;
    stream.write_all(&[2, 1, 0, 0]).await?;
    stream.write_all(offer).await?;
    stream.flush().await?;
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let [length @ .., _, _, _, _] = head;
    let mut login = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(8)];
    stream.read_exact(&mut login).await?;
    Ok(login)
}
