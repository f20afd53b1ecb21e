//! Syslog over the network: UDP, TCP and TLS (RFC 5424, 5425, 5426, 6587; RFC 3164 as it is spoken).
//!
//! A packet that finds no room is dropped and counted; a connection is kept waiting. Connections are few, of known
//! senders only, and end when they are silent from the start (A20 to A22).

use super::accept::{HANDSHAKE, Terms, accept};
use super::chain;
use super::health::State;
use super::means::{Feed, Means};
use super::senders::{Connected, Senders, Strangers};
use super::tls::Acceptor;
use crate::config::TlsConfig;
use holdfast_core::subject::{HostName, Subject};
use holdfast_logs::decode::{self, Frames};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UdpSocket};

/// The largest UDP payload, and one byte more.
const PACKET: usize = 65_536;
/// Bytes of packets that the kernel may hold for us, asked for.
const KERNEL_ROOM: usize = 4 << 20;
/// Packets taken before others get their turn.
const MOST_AT_ONCE: u32 = 64;
/// How often it is asked how many packets the kernel itself dropped.
const KERNEL_DROPS: Duration = Duration::from_secs(1);
/// Connections of all senders together.
const MOST_CONNECTIONS: usize = 512;
/// The first message must have begun within this time.
const FIRST: Duration = Duration::from_secs(30);
/// Bytes read from a connection at once.
const PIECE: usize = 8 * 1024;
/// An address that could not be had is tried again after this time.
pub const AGAIN: Duration = Duration::from_secs(5);

/// Where syslog is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Packets.
    Udp(SocketAddr),
    /// Connections.
    Tcp(SocketAddr),
    /// Connections with TLS.
    Tls(SocketAddr, TlsConfig),
}

impl Listen {
    fn name(&self) -> String {
        match self {
            Self::Udp(address) => format!("syslog udp {address}"),
            Self::Tcp(address) => format!("syslog tcp {address}"),
            Self::Tls(address, _) => format!("syslog tls {address}"),
        }
    }
}

/// Receives until it is time to stop.
pub async fn receive(listen: Listen, host: HostName, senders: Senders, means: Means) {
    let feed = means.feed(Subject::Host(host), &listen.name());
    let stop = means.stop.clone();
    let serving = async {
        loop {
            let ended = match &listen {
                Listen::Udp(address) => match bind_udp(*address).await {
                    Ok(socket) => packets(socket, &senders, &feed).await,
                    Err(error) => error,
                },
                Listen::Tcp(address) => match TcpListener::bind(address).await {
                    Ok(listener) => connections(listener, None, &senders, &feed, &means).await,
                    Err(error) => error,
                },
                Listen::Tls(address, tls) => match TcpListener::bind(address).await {
                    Ok(listener) => {
                        let acceptor = Acceptor::new(tls, &[]);
                        connections(listener, Some(acceptor), &senders, &feed, &means).await
                    }
                    Err(error) => error,
                },
            };
            feed.is(State::Failing(chain(&ended)));
            tokio::time::sleep(AGAIN).await;
        }
    };
    stop.run_until_cancelled(serving).await;
}

async fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    // What the kernel does not grant is no error: there is less room, and drops are counted.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, KERNEL_ROOM);
    Ok(socket)
}

/// Takes packets until the socket fails.
pub async fn packets(socket: UdpSocket, senders: &Senders, listener: &Feed) -> io::Error {
    listener.is(State::Following);
    let port = socket.local_addr().map_or(0, |address| address.port());
    let mut packet = vec![0; PACKET];
    let (mut strangers, mut dropped) = (Strangers::default(), 0);
    let mut look = tokio::time::interval(KERNEL_DROPS);
    loop {
        tokio::select! {
            biased;
            _ = look.tick() => {
                let now = kernel_drops(port).unwrap_or(dropped);
                listener.gauge.dropped(now.saturating_sub(dropped));
                dropped = now.max(dropped);
            }
            ready = socket.readable() => if let Err(error) = ready {
                return error;
            }
        }
        for _ in 0..MOST_AT_ONCE {
            match socket.try_recv_from(&mut packet) {
                Ok((length, from)) => take_packet(&packet[..length], from, senders, listener, &mut strangers),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What another sent back to us (as an ICMP error) is no trouble of this socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return error,
            }
        }
        tokio::task::yield_now().await;
    }
}

fn take_packet(
    packet: &[u8],
    from: SocketAddr,
    senders: &Senders,
    listener: &Feed,
    strangers: &mut Strangers,
) {
    let Some(sender) = senders.find(from.ip()) else {
        return strangers.dropped(listener, from.ip());
    };
    if packet.trim_ascii().is_empty() || !sender.may_send(packet.len()) {
        return;
    }
    let record = decode::syslog(packet, sender.feed.received());
    sender.feed.is(State::Receiving);
    sender.feed.offer(sender.said(record));
}

/// Packets to this port that the kernel had no room for (the last column of `/proc/net/udp`).
fn kernel_drops(port: u16) -> Option<u64> {
    let mut drops = None;
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let Ok(text) = std::fs::read_to_string(table) else { continue };
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ours = words.get(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
            if let Some(count) = words.last().and_then(|last| last.parse::<u64>().ok()).filter(|_| ours) {
                drops = Some(drops.unwrap_or(0) + count);
            }
        }
    }
    drops
}

/// Accepts connections until the socket fails.
pub async fn connections(
    socket: TcpListener,
    tls: Option<Acceptor>,
    senders: &Senders,
    listener: &Feed,
    means: &Means,
) -> io::Error {
    let (terms, means) = (Terms { tls, most: MOST_CONNECTIONS, handshake: HANDSHAKE }, means.clone());
    let serve = move |stream, connected: Connected| {
        let means = means.clone();
        async move { messages(stream, &connected, &means, FIRST).await }
    };
    accept(socket, terms, senders, listener, serve).await
}

/// Takes messages until the connection ends. A sender that says nothing at first is a waste of a connection; one
/// that has spoken may be quiet as long as it likes.
async fn messages<S: AsyncRead + Unpin>(
    mut stream: S,
    connected: &Connected,
    means: &Means,
    first: Duration,
) {
    let sender = &connected.0;
    let (mut frames, mut piece, mut spoke) = (Frames::default(), vec![0; PIECE], false);
    loop {
        let read = stream.read(&mut piece);
        let read = if spoke { read.await } else { tokio::time::timeout(first, read).await.unwrap_or(Ok(0)) };
        let length = read.unwrap_or(0);
        let mut records = Vec::new();
        let mut take = |message: &[u8]| {
            if !message.trim_ascii().is_empty() {
                records.push(decode::syslog(message, sender.feed.received()));
            }
        };
        if length == 0 {
            frames.finish(&mut take);
        } else {
            spoke = true;
            frames.feed(&piece[..length], &mut take);
            sender.until_it_may_send(records.len(), length).await;
        }
        for record in records {
            sender.feed.is(State::Receiving);
            if !sender.feed.bring(sender.said(record), None).await {
                return;
            }
        }
        if length == 0 || means.stop.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
