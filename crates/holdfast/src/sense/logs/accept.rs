//! Connections of known senders, with TLS or without. They are few, and none takes for ever to begin (A22, I18).

use super::chain;
use super::health::State;
use super::means::Feed;
use super::senders::{Connected, Senders, Sparing, Strangers};
use super::tls::Acceptor;
use holdfast_core::subject::Subject;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// A TLS handshake must be done within this time.
pub const HANDSHAKE: Duration = Duration::from_secs(30);

/// A connection, as it came or with TLS.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// On which terms connections are taken.
pub struct Terms {
    /// With TLS: the certificates of both sides.
    pub tls: Option<Acceptor>,
    /// Connections of all senders together, those in a handshake among them.
    pub most: usize,
    /// A handshake must be done within this time.
    pub handshake: Duration,
}

/// Takes connections and has each served until it ends. Returns when the socket fails, or when it begins and its
/// certificates are of no use: then nobody could connect.
pub async fn accept<S, F>(
    socket: TcpListener,
    mut terms: Terms,
    senders: &Senders,
    listener: &Feed,
    serve: S,
) -> io::Error
where
    S: Fn(Stream, Connected) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    if let Some(Err(error)) = terms.tls.as_mut().map(Acceptor::get) {
        return io::Error::other(error);
    }
    listener.is(State::Following);
    let handshake = terms.handshake;
    let mut door = Door::new(terms, senders, listener);
    let mut served = JoinSet::<Result<(), Failed>>::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = served.join_next() => {
                if let Ok(Err(failed)) = ended {
                    door.failed(failed);
                }
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => return error, // no file descriptor is left, as a rule
        };
        let Some(admitted) = door.admit(from.ip()) else { continue };
        let serve = serve.clone();
        served.spawn(async move {
            let Admitted { connected, acceptor, _room } = admitted;
            keep_alive(&stream);
            let stream = begin(stream, acceptor, handshake).await.map_err(|why| {
                let subject = connected.0.feed.subject.clone();
                Failed { subject, address: from.ip(), why }
            })?;
            serve(stream, connected).await;
            Ok(())
        });
    }
}

/// Decides which connections are taken, and counts the others.
struct Door<'a> {
    tls: Option<Acceptor>,
    room: Arc<Semaphore>,
    senders: &'a Senders,
    listener: &'a Feed,
    strangers: Strangers,
    failures: Sparing,
}

/// A connection that is taken: its place among those of its sender and of all, and how TLS is agreed upon.
struct Admitted {
    connected: Connected,
    acceptor: Option<TlsAcceptor>,
    _room: OwnedSemaphorePermit,
}

/// A sender with whom no TLS could be had.
struct Failed {
    subject: Subject,
    address: IpAddr,
    why: String,
}

impl<'a> Door<'a> {
    fn new(terms: Terms, senders: &'a Senders, listener: &'a Feed) -> Self {
        let room = Arc::new(Semaphore::new(terms.most));
        let (strangers, failures) = (Strangers::default(), Sparing::default());
        Self { tls: terms.tls, room, senders, listener, strangers, failures }
    }

    fn admit(&mut self, from: IpAddr) -> Option<Admitted> {
        let Some(sender) = self.senders.find(from) else {
            self.strangers.dropped(self.listener, from);
            return None;
        };
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        let Some((connected, room)) = permit.and_then(|permit| Some((sender.connect()?, permit))) else {
            self.listener.gauge.dropped(1);
            return None;
        };
        match self.tls.as_mut().map(Acceptor::get).transpose() {
            Ok(acceptor) => {
                self.listener.is(State::Following);
                Some(Admitted { connected, acceptor, _room: room })
            }
            Err(error) => {
                self.listener.gauge.dropped(1);
                self.listener.is(State::Failing(chain(&error)));
                None
            }
        }
    }

    fn failed(&mut self, failed: Failed) {
        self.listener.gauge.dropped(1);
        if let Some(count) = self.failures.one() {
            let (listener, Failed { subject, address, why }) = (&self.listener.source, failed);
            tracing::warn!(%listener, %subject, %address, %why, count, "a sender of logs could not set TLS up");
        }
    }
}

/// The connection, once TLS is agreed upon; else why it is not.
async fn begin(stream: TcpStream, acceptor: Option<TlsAcceptor>, within: Duration) -> Result<Stream, String> {
    let Some(acceptor) = acceptor else { return Ok(Either::Left(stream)) };
    match tokio::time::timeout(within, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Ok(Either::Right(stream)),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("the handshake was not done within {within:?}")),
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// A peer that is gone without a word is noticed within two minutes.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::testing::{Authority, FakeGuest, Lab, connect_tls, write_key};
    use super::*;
    use crate::config::TlsConfig;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A listener with TLS that sends one letter to whom it takes, and how it counts.
    struct Net {
        lab: Lab,
        to: SocketAddr,
        ours: Authority,
        _folder: tempfile::TempDir,
    }

    impl Net {
        async fn new(most: usize, handshake: Duration) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
            let ours = Authority::new();
            let (certificate, its_key) = ours.sign("logs.example");
            std::fs::write(&cert, certificate).unwrap();
            write_key(&key, &its_key);
            let tls = Some(Acceptor::new(&TlsConfig { cert, key, client_ca: None }, &[]));
            let lab = Lab::new(FakeGuest::away());
            let senders = Senders::default();
            let whose: BTreeMap<IpAddr, Subject> =
                [("127.0.0.1".parse().unwrap(), Subject::Guest("orders".parse().unwrap()))].into();
            senders.configure(&lab.means, "sent", &whose);
            let listener = lab.means.feed(Subject::Host("atlas".parse().unwrap()), "listener");
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = socket.local_addr().unwrap();
            let serve = |mut stream: Stream, _: Connected| async move {
                let _ = stream.write_all(b"y").await;
                let _ = stream.read(&mut [0; 1]).await;
            };
            tokio::spawn(async move {
                let terms = Terms { tls, most, handshake };
                accept(socket, terms, &senders, &listener, serve).await
            });
            Self { lab, to, ours, _folder: folder }
        }

        async fn silent(&self) -> TcpStream {
            TcpStream::connect(self.to).await.unwrap()
        }

        async fn is_served(&self) {
            let mut stream = connect_tls(self.to, &self.ours.pem, None, &[]).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'y');
        }

        async fn counted(&self, dropped: u64) {
            let reading = self.lab.until("listener", |reading| reading.dropped >= dropped).await;
            assert_eq!((reading.dropped, reading.state), (dropped, State::Following));
        }
    }

    #[tokio::test]
    async fn a22_half_open_handshakes_are_few_and_give_their_room_back() {
        let net = Net::new(2, HANDSHAKE).await;
        let held = [net.silent().await, net.silent().await];
        let mut one_too_many = net.silent().await;
        assert_eq!(one_too_many.read(&mut [0; 1]).await.unwrap_or(0), 0);
        net.counted(1).await;
        drop(held);
        net.counted(3).await; // they are handshakes that failed
        net.is_served().await;
    }

    #[tokio::test]
    async fn a22_a_handshake_that_does_not_go_on_ends() {
        let net = Net::new(2, Duration::from_millis(50)).await;
        for half in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
            let mut stream = net.silent().await;
            stream.write_all(half).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
        }
        net.counted(2).await;
    }

    #[tokio::test]
    async fn plain_text_and_a_hello_without_end_are_refused_before_much_of_them_is_read() {
        const MUCH: usize = 12 << 20; // less than that hello, more than the kernel holds
        let net = Net::new(2, HANDSHAKE).await;
        let plain = b"POST /v1/logs HTTP/1.1\r\n".repeat(800);
        // A record of 16 KiB after the other, all of one hello that is to have 16 MiB.
        let mut record = vec![0; 5 + (1 << 14)];
        record[..9].copy_from_slice(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff");
        for (count, endless) in [plain, record].into_iter().enumerate() {
            let (mut stream, mut sent) = (net.silent().await, 0);
            while sent < MUCH && stream.write_all(&endless).await.is_ok() {
                sent += endless.len();
            }
            assert!(sent < MUCH, "{sent}");
            net.counted(count as u64 + 1).await;
        }
        net.is_served().await;
    }

    #[tokio::test]
    async fn certificates_of_no_use_are_told_before_anybody_connects() {
        let net = Net::new(2, HANDSHAKE).await;
        let nothing = TlsConfig { cert: "/no/cert".into(), key: "/no/key".into(), client_ca: None };
        let terms = Terms { tls: Some(Acceptor::new(&nothing, &[])), most: 2, handshake: HANDSHAKE };
        let listener = net.lab.means.feed(Subject::Host("atlas".parse().unwrap()), "other");
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = |_: Stream, _: Connected| async {};
        let ended = accept(socket, terms, &Senders::default(), &listener, serve).await;
        assert!(chain(&ended).contains("cannot read `/no/cert`"), "{ended:?}");
    }
}
