//! Connects to the first address of a host that answers.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// Connects to the first of these addresses that answers. If one refuses, the next is tried at once; if one
/// does not answer within [`HEAD_START`], the next is tried beside it, and the first that answers is taken.
pub(crate) async fn dial(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = None;
    let mut trying = JoinSet::new();
    for address in addresses {
        trying.spawn(TcpStream::connect(address));
        match timeout(HEAD_START, trying.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => failed = Some(error),
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
    while let Some(tried) = trying.join_next().await {
        match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::other("the name has no address")))
}

/// How long one address is tried before the next: the connection attempt delay that RFC 8305 recommends (§5).
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// An address that does not answer: its queue of connections is full.
    async fn silent() -> (SocketAddr, impl Sized) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(ANY).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = JoinSet::new();
        for _ in 0..16 {
            waiting.spawn(TcpStream::connect(address));
        }
        let mut accepted = Vec::new();
        for _ in 0..2 {
            accepted.push(waiting.join_next().await.unwrap().unwrap().unwrap());
        }
        (address, (listener, waiting, accepted))
    }

    /// An address that refuses every connection.
    async fn closed() -> SocketAddr {
        TcpListener::bind(ANY).await.unwrap().local_addr().unwrap()
    }

    async fn reaches(addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
        let dialing = dial(addresses.iter().copied());
        timeout(Duration::from_secs(30), dialing).await.expect("it waits for the dead")?.peer_addr()
    }

    #[tokio::test]
    async fn r15_a_dead_address_holds_up_the_next_for_a_moment_only() {
        let live = TcpListener::bind(ANY).await.unwrap();
        let here = live.local_addr().unwrap();
        let (silent, _waiting) = silent().await;
        let closed = closed().await;
        for before in [&[][..], &[silent], &[closed], &[silent, closed, silent]] {
            assert_eq!(reaches(&[before, &[here]].concat()).await.unwrap(), here, "{before:?}");
            assert_eq!(reaches(&[before, &[here], before].concat()).await.unwrap(), here);
        }
        let refused = reaches(&[closed, closed]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(reaches(&[]).await.is_err());
    }
}
