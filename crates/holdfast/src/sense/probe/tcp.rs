//! A port that takes connections, and says its greeting where one is expected.
//!
//! A connection alone says little: behind QEMU's user networking it only shows that the guest's kernel
//! did not refuse, and a stopped server still has a kernel that takes connections for it.

use super::connection::{Hearing, connect};
use super::{MOST_HEARD, Target, Trouble};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long a connection must stay open to count, at most.
const STAYS_OPEN: Duration = Duration::from_millis(200);

/// A connection.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Where.
    pub at: Target,
    /// What the server must say by itself, somewhere in its first bytes.
    pub banner: Option<String>,
}

impl Tcp {
    pub(super) async fn ask(&self, hearing: &Arc<Hearing>, limit: Duration) -> Result<(), Trouble> {
        let mut stream = connect(&self.at, hearing).await?;
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece);
            let count = if self.banner.is_some() {
                read.await
            } else {
                match tokio::time::timeout(STAYS_OPEN.min(limit / 4), read).await {
                    Ok(read) => read,
                    Err(_elapsed) => break,
                }
            };
            match count {
                Ok(0) => {
                    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(hearing.broken(&end));
                }
                Ok(count) => heard.extend_from_slice(&piece[..count]),
                Err(error) => return Err(hearing.broken(&error)),
            }
            match &self.banner {
                None => break,
                Some(banner) if holds(&heard, banner.as_bytes()) => break,
                Some(banner) if heard.len() as u64 >= MOST_HEARD / 16 => {
                    return Err(Trouble::wrong(format!(
                        "its first {} bytes hold no `{banner}`",
                        heard.len()
                    )));
                }
                Some(_) => {}
            }
        }
        hearing.answered();
        Ok(())
    }
}

/// Whether `needle` is somewhere in `text`.
pub(super) fn holds(text: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|part| part == needle)
}
