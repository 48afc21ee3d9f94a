//! A broker that follows a script: for what no real broker would say, or leave unsaid.

pub mod amqp091;
pub mod amqp10;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

/// What the peer does with each connection, step by step. After the last step it reads on and says
/// nothing.
///
/// ```
/// use enoki_faults::peer::{Script, amqp091};
///
/// // A login that is never over: everything but `connection.open-ok`.
/// let script = Script::new()
///     .read(8)
///     .send(amqp091::start())
///     .read_frame()
///     .send(amqp091::tune(2047, 131_072, 10))
///     .read_frame();
/// # let _ = script;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Script {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Bytes),
    Flood { bytes: Bytes, times: usize },
    Read(usize),
    ReadFrame { size_at: usize, beyond: usize },
    Pause(Duration),
    Close,
    Reset,
}

impl Script {
    /// Accepts, and says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends bytes.
    #[must_use]
    pub fn send(self, bytes: impl Into<Bytes>) -> Self {
        self.and(Step::Send(bytes.into()))
    }

    /// Sends the same bytes many times.
    #[must_use]
    pub fn flood(self, bytes: impl Into<Bytes>, times: usize) -> Self {
        self.and(Step::Flood { bytes: bytes.into(), times })
    }

    /// Waits for so many bytes.
    #[must_use]
    pub fn read(self, bytes: usize) -> Self {
        self.and(Step::Read(bytes))
    }

    /// Waits for a frame of AMQP 0-9-1.
    #[must_use]
    pub fn read_frame(self) -> Self {
        self.and(Step::ReadFrame { size_at: 3, beyond: 1 })
    }

    /// Waits for a frame of AMQP 1.0.
    #[must_use]
    pub fn read_frame10(self) -> Self {
        // Its size counts the four bytes that it is written in.
        self.and(Step::ReadFrame { size_at: 0, beyond: 0 })
    }

    /// Waits a while.
    #[must_use]
    pub fn pause(self, time: Duration) -> Self {
        self.and(Step::Pause(time))
    }

    /// Closes the connection.
    #[must_use]
    pub fn close(self) -> Self {
        self.and(Step::Close)
    }

    /// Resets the connection.
    #[must_use]
    pub fn reset(self) -> Self {
        self.and(Step::Reset)
    }

    /// Goes on with another script.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self
    }

    fn and(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// A peer on a port of its own, until it is dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    heard: Arc<Heard>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Heard {
    bytes: Mutex<Vec<u8>>,
    accepted: watch::Sender<u64>,
    /// How many connections have played the script to its end.
    played: watch::Sender<u64>,
}

impl Heard {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, bytes: &[u8]) {
        let mut heard = self.bytes();
        let room = MEMORY.saturating_sub(heard.len());
        heard.extend(bytes.iter().take(room));
    }
}

impl Peer {
    /// Plays this script to everybody who connects.
    pub async fn start(script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Heard::default());
        let task = tokio::spawn(serve(listener, script, heard.clone())).abort_handle();
        Ok(Self { address, heard, task })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that was said to it so far, by all connections; at most a megabyte.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.bytes().clone()
    }

    /// How many have connected.
    pub fn accepted(&self) -> u64 {
        *self.heard.accepted.borrow()
    }

    /// Waits until so many connections have been played the whole script.
    pub async fn played(&self, connections: u64) {
        let mut played = self.heard.played.subscribe();
        let _ = played.wait_for(|played| *played >= connections).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, script: Script, heard: Arc<Heard>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                heard.accepted.send_modify(|accepted| *accepted += 1);
                let (script, heard) = (script.clone(), heard.clone());
                connections.spawn(async move {
                    // However it ends: it is the client's reaction that counts.
                    let _ = play(socket, script, &heard).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn play(mut socket: TcpStream, script: Script, heard: &Heard) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut unread = BytesMut::new();
    for step in script.steps {
        match step {
            Step::Send(bytes) => send(&mut socket, &mut unread, &bytes, heard).await?,
            Step::Flood { bytes, times } => {
                for _ in 0..times {
                    send(&mut socket, &mut unread, &bytes, heard).await?;
                }
            }
            Step::Read(bytes) => {
                listen(&mut socket, &mut unread, bytes, heard).await?;
                let _ = unread.split_to(bytes);
            }
            Step::ReadFrame { size_at, beyond } => {
                listen(&mut socket, &mut unread, size_at + 4, heard).await?;
                let size = unread.iter().skip(size_at).take(4);
                let size = size.fold(0, |size, byte| size << 8 | usize::from(*byte));
                let whole = if size_at == 0 { size } else { size_at + 4 + size + beyond };
                listen(&mut socket, &mut unread, whole, heard).await?;
                let _ = unread.split_to(whole);
            }
            Step::Pause(time) => sleep(time).await,
            Step::Close => {
                heard.played.send_modify(|played| *played += 1);
                socket.shutdown().await?;
                return drain(&mut socket, heard).await;
            }
            Step::Reset => {
                heard.played.send_modify(|played| *played += 1);
                return socket.set_zero_linger();
            }
        }
    }
    heard.played.send_modify(|played| *played += 1);
    drain(&mut socket, heard).await
}

/// Sends while it listens: who has a lot to say must not stop one who has, too.
async fn send(
    socket: &mut TcpStream,
    unread: &mut BytesMut,
    bytes: &[u8],
    heard: &Heard,
) -> io::Result<()> {
    let (mut from, mut to) = socket.split();
    let sending = to.write_all(bytes);
    let mut sending = std::pin::pin!(sending);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return sent,
            read = from.read_buf(unread), if open && unread.len() < MEMORY => {
                let bytes = read?;
                open = bytes > 0;
                heard.note(unread.get(unread.len() - bytes..).unwrap_or_default());
            }
        }
    }
}

async fn listen(
    socket: &mut TcpStream,
    unread: &mut BytesMut,
    bytes: usize,
    heard: &Heard,
) -> io::Result<()> {
    if bytes > MEMORY {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    while unread.len() < bytes {
        let before = unread.len();
        if socket.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        heard.note(unread.get(before..).unwrap_or_default());
    }
    Ok(())
}

async fn drain(socket: &mut TcpStream, heard: &Heard) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => heard.note(buffer.get(..bytes).unwrap_or_default()),
        }
    }
}

/// What is kept of what a client says.
const MEMORY: usize = 1024 * 1024;
