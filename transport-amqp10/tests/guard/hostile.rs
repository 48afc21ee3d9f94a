//! A broker that means harm: it takes a login, opens connection, sessions and senders' links, and in
//! between does what it is told to.

use tokio::net::TcpListener;

use crate::{
    Checked, Failure,
    wire::{AMQP, SASL, Wire, described, frame, map, null, string, symbol, uint},
};

/// What a broker does besides what brokers do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// What it offers to log in with, if not PLAIN.
    pub(crate) mechanisms: Option<Vec<u8>>,
    /// The largest frame that it wants to get.
    pub(crate) frame_max: Option<u32>,
    /// A property of its own.
    pub(crate) property: Option<Vec<u8>>,
    /// What it sends before it answers a session's begin.
    pub(crate) before_begin: Vec<u8>,
}

impl Script {
    /// Listens, and plays to whoever connects. Where it listens.
    pub(crate) async fn play(self) -> Result<u16, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let script = self.clone();
                tokio::spawn(async move { script.to(Wire(socket)).await });
            }
        });
        Ok(port)
    }

    async fn to(self, mut wire: Wire) -> Checked {
        wire.agree(3).await?;
        let mechanisms = self.mechanisms.unwrap_or_else(|| symbol("PLAIN"));
        wire.send(&frame(SASL, &described(0x40, &[mechanisms]))).await?;
        wire.expect(0x41).await?;
        wire.send(&frame(SASL, &described(0x44, &[vec![0x50, 0]]))).await?;
        wire.agree(0).await?;
        wire.expect(0x10).await?;
        let mut properties = vec![symbol("product"), string(b"Harm")];
        if let Some(property) = self.property {
            properties.extend([symbol("more"), property]);
        }
        let mut open = vec![string(b"harm"), null(), self.frame_max.map_or_else(null, uint)];
        open.extend((0..6).map(|_| null()));
        open.push(map(&properties));
        wire.send(&frame(AMQP, &described(0x10, &open))).await?;
        while let Some(came) = wire.next().await {
            let answer = match came.code {
                0x11 => described(0x11, &[vec![0x60, 0, 0], uint(0), uint(1000), uint(1000)]),
                0x12 => {
                    let [name, handle] = [&came.fields[0], &came.fields[1]];
                    let [source, target] = [&came.fields[5], &came.fields[6]];
                    let mut attach = vec![name.clone(), handle.clone(), vec![0x41]];
                    attach.extend([vec![0x50, 2], vec![0x50, 0], source.clone(), target.clone()]);
                    described(0x12, &attach)
                }
                0x18 => described(0x18, &[]),
                _ => continue,
            };
            wire.send(&[&self.before_begin[..], &frame(AMQP, &answer)].concat()).await?;
        }
        Ok(())
    }
}
