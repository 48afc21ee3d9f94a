//! A scripted broker that is hostile, or allows little: it accepts a login, opens the connection, sessions
//! and senders' links, and does in between what its script says.

use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    Checked, Failure,
    wire::{
        AMQP, Frame, SASL, Wire, described, frame, frame_on, map, null, string, symbol, uint,
        ushort,
    },
};

/// How the broker differs from a usual one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// The mechanisms of login that it offers, if not PLAIN.
    pub(crate) mechanisms: Option<Vec<u8>>,
    /// The largest frame that it takes.
    pub(crate) frame_max: Option<u32>,
    /// One more property in its open.
    pub(crate) property: Option<Vec<u8>>,
    /// Bytes that it sends before it answers the begin of a session.
    pub(crate) before_begin: Vec<u8>,
    /// Whether it does not answer a begin at all.
    pub(crate) mute: bool,
    /// The last channel that it allows.
    pub(crate) last_channel: Option<u16>,
    /// On how many connections it goes on after the login; it closes the others.
    pub(crate) connections: Option<usize>,
    /// How many messages it takes on each link, and where it sends their frames.
    pub(crate) takes: Option<(u32, mpsc::UnboundedSender<Frame>)>,
}

impl Script {
    /// Listens, runs the script for each connection, and returns the URL.
    pub(crate) async fn play(self) -> Result<u16, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let script = self.clone();
                connections += 1;
                let refused = script.connections.is_some_and(|most| connections > most);
                tokio::spawn(async move { script.to(Wire(socket), refused).await });
            }
        });
        Ok(port)
    }

    async fn to(self, mut wire: Wire, refused: bool) -> Checked {
        wire.agree(3).await?;
        let mechanisms = self.mechanisms.clone().unwrap_or_else(|| symbol("PLAIN"));
        wire.send(&frame(SASL, &described(0x40, &[mechanisms]))).await?;
        wire.expect(0x41).await?;
        wire.send(&frame(SASL, &described(0x44, &[vec![0x50, 0]]))).await?;
        wire.agree(0).await?;
        wire.expect(0x10).await?;
        if refused {
            return Ok(());
        }
        let mut properties = vec![symbol("product"), string(b"Harm")];
        if let Some(property) = &self.property {
            properties.extend([symbol("more"), property.clone()]);
        }
        let mut open = vec![string(b"harm"), null(), self.frame_max.map_or_else(null, uint)];
        open.push(self.last_channel.map_or_else(null, ushort));
        open.extend((0..5).map(|_| null()));
        open.push(map(&properties));
        wire.send(&frame(AMQP, &described(0x10, &open))).await?;
        while let Some(came) = wire.next().await {
            let mut answers = match came.code {
                0x11 if self.mute => continue,
                0x11 => {
                    vec![described(0x11, &[ushort(came.channel), uint(0), uint(1000), uint(1000)])]
                }
                0x12 => self.attached(&came),
                0x14 => {
                    if let Some((_, told)) = &self.takes {
                        told.send(came)?;
                    }
                    continue;
                }
                0x18 => vec![described(0x18, &[])],
                _ => continue,
            };
            let frames = answers.drain(..).map(|answer| frame_on(came.channel, AMQP, &answer));
            wire.send(&[&self.before_begin[..], &frames.collect::<Vec<_>>().concat()].concat())
                .await?;
        }
        Ok(())
    }

    /// The answer to a sender's attach, and credit for it.
    fn attached(&self, came: &Frame) -> Vec<Vec<u8>> {
        let [name, handle] = [&came.fields[0], &came.fields[1]];
        let [source, target] = [&came.fields[5], &came.fields[6]];
        let mut attach = vec![name.clone(), handle.clone(), vec![0x41]];
        attach.extend([vec![0x50, 2], vec![0x50, 0], source.clone(), target.clone()]);
        let mut answers = vec![described(0x12, &attach)];
        if let Some((credit, _)) = &self.takes {
            // next-incoming-id, incoming-window, next-outgoing-id, outgoing-window, handle,
            // delivery-count, link-credit
            let window = || uint(100_000);
            let flow =
                [uint(0), window(), uint(0), window(), handle.clone(), uint(0), uint(*credit)];
            answers.push(described(0x13, &flow));
        }
        answers
    }
}
