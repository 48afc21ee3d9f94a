//! A hostile broker: it opens connection and channels as any broker does, and sends the bytes of a script in between.

use tokio::net::TcpListener;

use crate::{
    Checked,
    wire::{HEARTBEAT, Wire, frame, long, method},
};

/// The bytes that a hostile broker sends besides the usual ones.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The server's properties in its greeting.
    pub(crate) properties: Vec<u8>,
    /// The largest frame that it proposes.
    pub(crate) frame_max: u32,
    /// Sent right before `connection.open-ok`.
    pub(crate) before_open: Vec<u8>,
    /// Sent right after `connection.open-ok`.
    pub(crate) after_open: Vec<u8>,
    /// Sent before its next answer.
    pub(crate) before_answer: Vec<u8>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            properties: Vec::new(),
            frame_max: 131_072,
            before_open: Vec::new(),
            after_open: Vec::new(),
            before_answer: Vec::new(),
        }
    }
}

impl Script {
    /// Listens, and plays to each client that connects. Returns the port.
    pub(crate) async fn play(self) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
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

    async fn to(mut self, mut wire: Wire) -> Checked {
        let mut name = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut wire.0, &mut name).await?;
        wire.send(&start(&self.properties)).await?;
        wire.expect(10, 11).await?;
        let tune = [&[7, 255][..], &self.frame_max.to_be_bytes(), &[0, 60]].concat();
        wire.send(&method(0, 10, 30, &tune)).await?;
        let tuned = wire.expect(10, 31).await?;
        // The agreed limit does not depend on the proposed one.
        assert_eq!(tuned[2..6], 131_072_u32.to_be_bytes());
        wire.expect(10, 40).await?;
        let opened = method(0, 10, 41, &[0]);
        wire.send(&[self.before_open, opened, self.after_open].concat()).await?;
        while let Some(frame) = wire.next().await {
            let answer = match frame.method() {
                Some((20, 10)) => method(1, 20, 11, &long(&[])),
                Some((85, 10)) => method(1, 85, 11, &[]),
                Some((10, 50)) => method(0, 10, 51, &[]),
                _ => continue,
            };
            self.before_answer.extend_from_slice(&answer);
            wire.send(&std::mem::take(&mut self.before_answer)).await?;
        }
        Ok(())
    }

    /// As many heartbeats before the connection is open as make lapin's first buffer wrap in the
    /// middle of a frame, which it cannot make larger then.
    pub(crate) fn wrapping() -> Self {
        let sent = start(&field(0)).len() + TUNE + method(0, 10, 41, &[0]).len();
        let room = RING - CUT - sent;
        let heartbeat = frame(HEARTBEAT, 0, &[]);
        Self {
            // What does not fill up with heartbeats, a property does.
            properties: field(room % heartbeat.len()),
            before_open: heartbeat.repeat(room / heartbeat.len()),
            after_open: heartbeat[..7].to_vec(),
            before_answer: heartbeat[7..].to_vec(),
            ..Self::default()
        }
    }
}

/// A property of so many letters.
fn field(letters: usize) -> Vec<u8> {
    [&b"\x01pS"[..], &long(&vec![b'x'; letters])].concat()
}

fn start(properties: &[u8]) -> Vec<u8> {
    let arguments = [&[0, 9][..], &long(properties), &long(b"PLAIN"), &long(b"en_US")].concat();
    method(0, 10, 10, &arguments)
}

/// lapin's first buffer: 32 frames of the smallest size.
const RING: usize = 32 * 8192;

/// How much of the last frame is to be before the buffer's end.
const CUT: usize = 4;

/// The length of a frame with `connection.tune`.
const TUNE: usize = 7 + 12 + 1;
