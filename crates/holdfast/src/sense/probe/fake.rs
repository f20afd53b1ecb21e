//! Servers that misbehave in one chosen way, on a free port of loopback.

use super::Target;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a server does with each connection.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Closes it at once, as QEMU's user networking does for a guest where nobody listens.
    Close,
    /// Resets it at once.
    Reset,
    /// Takes it and says nothing.
    Mute,
    /// Says one byte now and then, without end.
    Drip(u8),
    /// Says this byte without end.
    Endless(u8),
    /// Says this at once, then nothing.
    Greet(Vec<u8>),
    /// Says these in turn, each after it has heard something, then closes.
    Converse(Vec<Vec<u8>>),
}

/// A server; it ends with this value.
pub struct Fake {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(behave(stream, manner.clone()));
            }
        });
        Self { address, task }
    }

    pub fn target(&self) -> Target {
        target(self.address)
    }
}

pub fn target(address: SocketAddr) -> Target {
    Target { host: address.ip().to_string(), port: address.port() }
}

/// A port where nobody listens.
pub async fn closed_port() -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    target(listener.local_addr().expect("it is bound"))
}

async fn behave(mut stream: TcpStream, manner: Manner) {
    // An error here is the probe leaving, which is its right.
    let _ = match manner {
        Manner::Close => stream.shutdown().await,
        Manner::Reset => stream.set_zero_linger(),
        Manner::Mute => until_closed(&mut stream).await,
        Manner::Drip(byte) => drip(&mut stream, byte).await,
        Manner::Endless(byte) => endless(&mut stream, byte).await,
        Manner::Greet(text) => greet(&mut stream, &text).await,
        Manner::Converse(texts) => converse(&mut stream, &texts).await,
    };
}

async fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut heard = [0; 1024];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

async fn drip(stream: &mut TcpStream, byte: u8) -> std::io::Result<()> {
    loop {
        stream.write_all(&[byte]).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn endless(stream: &mut TcpStream, byte: u8) -> std::io::Result<()> {
    loop {
        stream.write_all(&[byte; 4096]).await?;
    }
}

async fn greet(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    until_closed(stream).await
}

async fn converse(stream: &mut TcpStream, texts: &[Vec<u8>]) -> std::io::Result<()> {
    let mut heard = [0; 4096];
    for text in texts {
        if stream.read(&mut heard).await? == 0 {
            return Ok(());
        }
        stream.write_all(text).await?;
    }
    stream.shutdown().await
}
