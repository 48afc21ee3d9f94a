//! The listening side: lets connections in, or not.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

use super::{Door, Shared, relay};

/// A port, kept also while no socket listens on it.
pub(super) struct Listener {
    /// Bound and never listening. Without it the kernel could give the port to another outgoing
    /// connection while it is refused: to that of the program itself, which would then be connected
    /// to itself.
    _port: TcpSocket,
    address: SocketAddr,
    listener: Option<TcpListener>,
}

impl Listener {
    pub(super) fn bind() -> io::Result<Self> {
        let port = socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = port.local_addr()?;
        Ok(Self { _port: port, address, listener: Some(listen(address)?) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does what the door is told, until it is aborted; the connections end with it.
    pub(super) async fn keep(mut self, shared: Arc<Shared>) {
        let mut door = shared.door.subscribe();
        let mut connections = JoinSet::new();
        let mut number = 0;
        loop {
            let wanted = *door.borrow_and_update();
            match wanted {
                Door::Refusing => self.listener = None,
                Door::Open | Door::Hanging if self.listener.is_none() => {
                    self.listener = listen(self.address).ok();
                }
                Door::Open | Door::Hanging => {}
            }
            shared.door_is.send_if_modified(|is| std::mem::replace(is, wanted) != wanted);
            tokio::select! {
                changed = door.changed() => if changed.is_err() { return },
                accepted = accept(self.listener.as_ref()) => {
                    let Ok((client, _)) = accepted else { continue };
                    number += 1;
                    shared.traffic.send_modify(|traffic| traffic.accepted += 1);
                    connections.spawn(relay::serve(shared.clone(), client, wanted, number));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    socket(address)?.listen(BACKLOG)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

const BACKLOG: u32 = 128;
