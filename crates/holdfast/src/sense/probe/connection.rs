//! One connection of a probe: made anew, counted, bounded; and what its end means.
//!
//! QEMU's user networking takes every connection itself and closes it when nobody listens in the guest.
//! So "closed before the first byte" is the same as "refused", and only a byte is a sign of life.

use super::{MOST_HEARD, Target, Trouble, chain};
use holdfast_core::signal::ProbeFailure;
use holdfast_core::time::show;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;

/// How far a probe has come.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Resolving,
    Connecting,
    Connected,
    Running,
}

/// What a probe has heard so far. It outlives the attempt, so that a late one can still be judged.
pub struct Hearing {
    stage: AtomicU8,
    heard: AtomicU64,
    closed: AtomicBool,
    too_much: AtomicBool,
    answered: OnceLock<Instant>,
}

impl Hearing {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(Stage::Resolving as u8),
            heard: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            too_much: AtomicBool::new(false),
            answered: OnceLock::new(),
        })
    }

    /// The right answer is here; what follows is only farewell.
    pub fn answered(&self) {
        self.answered.get_or_init(Instant::now);
    }

    pub fn answered_at(&self) -> Option<Instant> {
        self.answered.get().copied()
    }

    /// For a probe without a connection.
    pub fn running(&self) {
        self.enter(Stage::Running);
    }

    /// For a question in a session that is open already.
    pub fn joined(&self) {
        self.enter(Stage::Connected);
    }

    /// The next question is asked in the same session.
    pub fn anew(&self) {
        self.heard.store(0, Relaxed);
    }

    /// Bytes that came.
    pub fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    /// Whether more came than is read.
    pub fn too_much(&self) -> bool {
        self.too_much.load(Relaxed)
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    fn is_in(&self, stage: Stage) -> bool {
        self.stage.load(Relaxed) == stage as u8
    }

    /// What it means that the limit is over.
    pub fn late(&self, limit: Duration) -> Trouble {
        let limit = show(limit);
        if self.is_in(Stage::Resolving) {
            Trouble::internal(format!("the name was not resolved within {limit}"))
        } else if self.is_in(Stage::Connecting) {
            Trouble::new(ProbeFailure::Unreachable, format!("not connected within {limit}"))
        } else if self.is_in(Stage::Running) {
            Trouble::new(ProbeFailure::NoAnswer, format!("did not end within {limit}"))
        } else {
            let text = match self.heard() {
                0 => format!("no answer within {limit}"),
                bytes => format!("no whole answer within {limit}, {bytes} bytes came"),
            };
            Trouble::new(ProbeFailure::NoAnswer, text)
        }
    }

    /// What it means that the conversation broke off with this error of a protocol.
    pub fn broken(&self, error: &dyn std::error::Error) -> Trouble {
        if self.too_much() {
            return Trouble::wrong(format!("answered more than {MOST_HEARD} bytes"));
        }
        match (self.closed.load(Relaxed), self.heard()) {
            (true, 0) => Trouble::new(ProbeFailure::Refused, "closed the connection before the first byte"),
            (true, bytes) => Trouble::wrong(format!("closed the connection after {bytes} bytes")),
            (false, _) => Trouble::wrong(chain(error)),
        }
    }
}

/// Connects, each time anew.
pub async fn connect(target: &Target, hearing: &Arc<Hearing>) -> Result<Heard, Trouble> {
    let mut last = Trouble::internal(format!("`{}` has no address", target.host));
    for address in resolve(target).await? {
        hearing.enter(Stage::Connecting);
        match TcpStream::connect(address).await {
            Ok(stream) if is_itself(&stream) => last = refused(address),
            Ok(stream) => {
                // Not a reason to give up: only the last small write would wait a little.
                let _ = stream.set_nodelay(true);
                hearing.enter(Stage::Connected);
                return Ok(Heard { stream, hearing: Arc::clone(hearing) });
            }
            Err(error) => last = unconnected(address, &error),
        }
    }
    Err(last)
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Trouble> {
    if let Ok(address) = target.host.parse() {
        return Ok(vec![SocketAddr::new(address, target.port)]);
    }
    match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
        Ok(addresses) => Ok(addresses.take(MOST_ADDRESSES).collect()),
        Err(error) => Err(Trouble::internal(format!("cannot resolve `{}`: {error}", target.host))),
    }
}

/// A connection to a free port of this host can meet its own end (TCP simultaneous open, RFC 9293
/// 3.5), when the kernel happens to choose that port for our side. Nobody listens there.
fn is_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

fn refused(address: SocketAddr) -> Trouble {
    Trouble::new(ProbeFailure::Refused, format!("{address} refused the connection"))
}

fn unconnected(address: SocketAddr, error: &io::Error) -> Trouble {
    use io::ErrorKind as E;
    const HOST_DOWN: i32 = rustix::io::Errno::HOSTDOWN.raw_os_error(); // which has no kind
    let kind = error.kind();
    if matches!(kind, E::ConnectionRefused | E::ConnectionReset | E::ConnectionAborted) {
        return refused(address);
    }
    if matches!(kind, E::HostUnreachable | E::NetworkUnreachable | E::NetworkDown | E::TimedOut)
        || error.raw_os_error() == Some(HOST_DOWN)
    {
        return Trouble::new(ProbeFailure::Unreachable, format!("no way to {address}: {error}"));
    }
    // No descriptor, port, memory or permission left on our side.
    Trouble::internal(format!("cannot connect to {address}: {error}"))
}

/// A connection that counts what it hears, and hears no more than [`MOST_HEARD`] bytes.
#[derive(Debug)]
pub struct Heard {
    stream: TcpStream,
    hearing: Arc<Hearing>,
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hearing").field("heard", &self.heard()).finish_non_exhaustive()
    }
}

impl Heard {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        use io::ErrorKind as E;
        if let Err(error) = &result
            && matches!(
                error.kind(),
                E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::NotConnected
            )
        {
            self.hearing.closed.store(true, Relaxed);
        }
        result
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.note(result)?;
        let came = buf.filled().len() - before;
        if came == 0 && room > 0 {
            self.hearing.closed.store(true, Relaxed);
        }
        if self.hearing.heard.fetch_add(came as u64, Relaxed) + came as u64 > MOST_HEARD {
            self.hearing.too_much.store(true, Relaxed);
            return Poll::Ready(Err(io::Error::other("the answer is too long")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.note(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        Poll::Ready(self.note(result))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::fake::target;
    use super::*;

    #[test]
    fn our_own_trouble_is_not_told_as_theirs() {
        let address = "192.0.2.1:5432".parse().unwrap();
        let how = |errno: rustix::io::Errno| unconnected(address, &errno.into()).how;
        use rustix::io::Errno as E;
        for errno in [E::MFILE, E::NFILE, E::NOBUFS, E::NOMEM, E::ADDRNOTAVAIL, E::ACCESS, E::PERM] {
            assert_eq!(how(errno), ProbeFailure::Internal, "{errno}");
        }
        for errno in [E::CONNREFUSED, E::CONNRESET] {
            assert_eq!(how(errno), ProbeFailure::Refused, "{errno}");
        }
        for errno in [E::HOSTUNREACH, E::NETUNREACH, E::TIMEDOUT, E::HOSTDOWN, E::NETDOWN] {
            assert_eq!(how(errno), ProbeFailure::Unreachable, "{errno}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_meets_its_own_end_reached_nobody() {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let own: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        connect(&socket, &own).unwrap();
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        assert!(is_itself(&TcpStream::from_std(stream).unwrap()));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_our_own_trouble() {
        let target = Target { host: "nowhere.invalid".into(), port: 1 };
        let trouble = connect(&target, &Hearing::new()).await.unwrap_err();
        assert_eq!(trouble.how, ProbeFailure::Internal);
    }

    #[test]
    fn a_target_is_written_as_people_write_it() {
        assert_eq!(target("127.0.0.1:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(target("[::1]:80".parse().unwrap()).to_string(), "[::1]:80");
    }

    #[test]
    fn a_late_probe_says_how_far_it_came() {
        let hearing = Hearing::new();
        let how = |stage| {
            hearing.enter(stage);
            hearing.late(Duration::from_secs(1)).how
        };
        assert_eq!(how(Stage::Resolving), ProbeFailure::Internal);
        assert_eq!(how(Stage::Connecting), ProbeFailure::Unreachable);
        assert_eq!(how(Stage::Connected), ProbeFailure::NoAnswer);
        assert_eq!(how(Stage::Running), ProbeFailure::NoAnswer);
    }
}
