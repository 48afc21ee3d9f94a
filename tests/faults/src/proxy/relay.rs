//! One connection: two sockets and a pump for each direction.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    Cut, Direction, Door, Shared,
    pump::{Line, Pump},
};

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, client: TcpStream, door: Door, number: u64) {
    let _counted = Counted::new(shared.clone());
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    if door == Door::Hanging {
        let _ = cuts.changed().await;
        return reset(&client);
    }
    let Ok(broker) = TcpStream::connect(shared.upstream).await else { return reset(&client) };
    // Slices must be segments, and delays ours alone.
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    relay(shared, client, broker, cuts, number).await;
}

async fn relay(
    shared: Arc<Shared>,
    mut client: TcpStream,
    mut broker: TcpStream,
    mut cuts: tokio::sync::watch::Receiver<Option<Cut>>,
    number: u64,
) {
    let line = Line::default();
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        let pump = |direction| Pump::new(&shared, &line, direction, number);
        let up = pump(Direction::ToBroker).run(from_client, to_broker);
        let down = pump(Direction::FromBroker).run(from_broker, to_client);
        let both = async { tokio::try_join!(up, down).err() };
        let told = async {
            loop {
                if cuts.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                match *cuts.borrow_and_update() {
                    Some(Cut::Half(direction)) => line.half_close(direction),
                    Some(cut) => return cut,
                    None => {}
                }
            }
        };
        tokio::select! {
            cut = both => cut,
            cut = told => Some(cut),
        }
    };
    match cut {
        Some(Cut::Fin) => {
            tokio::join!(finish(&mut client), finish(&mut broker));
        }
        Some(_) => {
            reset(&client);
            reset(&broker);
        }
        // Both directions have come to their ends by themselves.
        None => {}
    }
}

/// Has the kernel send a reset when the socket is dropped.
fn reset(socket: &TcpStream) {
    let _ = socket.set_zero_linger();
}

/// Closes politely: a socket that is dropped with bytes unread would be reset.
async fn finish(socket: &mut TcpStream) {
    if socket.shutdown().await.is_ok() {
        let mut unread = [0; 4096];
        let _ = timeout(LINGER, async {
            while socket.read(&mut unread).await.is_ok_and(|bytes| bytes > 0) {}
        })
        .await;
    }
}

/// How long the other side gets to close, too.
const LINGER: Duration = Duration::from_secs(2);

/// Keeps the number of open connections.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.traffic.send_modify(|traffic| traffic.open += 1);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.traffic.send_modify(|traffic| traffic.open = traffic.open.saturating_sub(1));
    }
}
