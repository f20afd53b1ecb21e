//! The other side of a socket, played by the test.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// A socket in a folder of its own; gone with the value.
pub struct Fake {
    folder: tempfile::TempDir,
    /// Bytes that the other side took from us.
    pub taken: Arc<AtomicU64>,
}

impl Fake {
    /// Plays `part` for every client, one after the other.
    pub fn play<F, R>(part: F) -> Self
    where
        F: Fn(Side) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send,
    {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let taken = Arc::new(AtomicU64::new(0));
        let total = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                part(Side::new(stream, Arc::clone(&total))).await;
            }
        });
        Self { folder, taken }
    }

    /// Where it listens.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

/// One connection.
pub struct Side {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    taken: Arc<AtomicU64>,
}

impl Side {
    fn new(stream: UnixStream, taken: Arc<AtomicU64>) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: BufReader::new(read), write, taken }
    }

    /// The next line from the client, as JSON without a leading mark; `None` if it has gone.
    pub async fn hear(&mut self) -> Option<serde_json::Value> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line).await.ok().filter(|&n| n > 0)?;
        let line = line.strip_prefix(&[0xff]).unwrap_or(&line);
        Some(serde_json::from_slice(line).unwrap())
    }

    /// Says these bytes; whether they were taken.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let told = self.write.write_all(bytes.as_ref()).await.is_ok();
        if told {
            self.taken.fetch_add(bytes.as_ref().len() as u64, Ordering::Relaxed);
        }
        told
    }

    /// Waits until the client has gone.
    pub async fn until_gone(&mut self) {
        while self.hear().await.is_some() {}
    }
}
