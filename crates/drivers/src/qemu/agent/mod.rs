//! The QEMU guest agent, asked over a virtio serial port (QEMU document "QEMU Guest Agent Protocol
//! Reference").
//!
//! The agent belongs to the guest, and the guest may be hostile (I17): nothing that it answers is run,
//! dialled, opened or trusted, and every answer is bounded in bytes, depth, number and time (I18). The
//! socket takes one client and stays open while the agent is away, so every session connects, makes sure
//! that what it hears is an answer to itself (`guest-sync-delimited`), asks, and closes: other programs
//! get their turn between ours.

mod guest;

pub use guest::{Address, CommandEnd, Freeze, GuestFs, Interface, Os};

use super::untrusted::{Text, tame};
use super::wire::{Limits, ReadError, Reader};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

/// Why the agent gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The socket is not there: QEMU is gone or was started without it.
    #[error("cannot reach the socket of the guest agent")]
    Connect(#[source] std::io::Error),
    /// Nothing that answers our question came in time.
    #[error("no answer from the guest agent for {0:?}")]
    Silent(Duration),
    /// The connection ended, or was given up for what came through it.
    #[error("the connection to the guest agent was given up")]
    Garbage(#[from] ReadError),
    /// The agent refused.
    #[error("the guest agent refused: {desc}")]
    Refused {
        /// The error class, as `GenericError` or `CommandNotFound`.
        class: String,
        /// What it said, tamed.
        desc: String,
    },
    /// The answer is not of the form it should have.
    #[error("an answer of an unknown form from the guest agent")]
    Odd(#[source] serde_json::Error),
    /// The answer has the right form but cannot be true.
    #[error("the guest agent {0}")]
    Absurd(&'static str),
}

impl AgentError {
    /// Whether the agent is there and understood us.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether the command may have been carried out all the same.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Refused { .. } => false,
            Self::Silent(_) | Self::Garbage(_) | Self::Odd(_) | Self::Absurd(_) => true,
        }
    }
}

/// The way to the agent of one guest.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    last: AtomicU64,
}

/// What may be left over from others before the first answer to us.
const LEFTOVERS: usize = 2 << 20;
/// Bytes of one session in all.
const SESSION: u64 = 16 << 20;
/// Answers to nobody that one question overlooks.
const STRAYS: u32 = 64;
/// The mark that flushes the agent's parser and leads its answer to a sync.
const MARK: u8 = 0xff;

impl Agent {
    /// The agent behind this socket. `first` starts the numbers of our questions; take one that another
    /// program would hardly take.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, first: u32) -> Self {
        Self { path: path.into(), last: AtomicU64::new(u64::from(first)) }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects and makes sure that the agent listens to us. The whole session must end within `limit`.
    ///
    /// # Errors
    /// Every [`AgentError`].
    pub async fn session(&self, limit: Duration) -> Result<Session<'_>, AgentError> {
        let deadline = Instant::now() + limit;
        let stream = UnixStream::connect(&self.path).await.map_err(AgentError::Connect)?;
        let (read, write) = stream.into_split();
        let reader = Reader::new(read, Limits::AGENT);
        let mut session = Session { agent: self, reader, write, limit, deadline };
        session.sync().await?;
        Ok(session)
    }

    fn number(&self) -> u64 {
        // Kept below 2^31: some agents hold the number of a sync in a small integer.
        self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & 0x7fff_ffff
    }
}

/// One turn at the agent. Dropping it gives the socket back.
#[derive(Debug)]
pub struct Session<'a> {
    agent: &'a Agent,
    reader: Reader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    limit: Duration,
    deadline: Instant,
}

impl Session<'_> {
    /// Asks one question.
    ///
    /// # Errors
    /// Every [`AgentError`] but `Connect`. After another than `Refused` or `Odd` the session is of no use.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<T, AgentError> {
        let number = self.agent.number();
        let mut question = serde_json::json!({ "execute": command, "id": number });
        if !arguments.is_null() {
            question["arguments"] = arguments;
        }
        self.tell(&[question.to_string().as_bytes(), b"\n"].concat()).await?;
        let answer = self.hear(Some(number)).await?;
        serde_json::from_str(answer.get()).map_err(AgentError::Odd)
    }

    /// Lets it go on until then, now that the agent was heard.
    pub fn extend(&mut self, deadline: Instant) {
        self.deadline = self.deadline.max(deadline);
        self.limit = self.left();
    }

    /// What is left of its time.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn sync(&mut self) -> Result<(), AgentError> {
        let number = self.agent.number();
        let sync = serde_json::json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
        self.tell(&[&[MARK], sync.to_string().as_bytes(), b"\n"].concat()).await?;
        for _ in 0..STRAYS {
            let skipped = self.reader.skip_past(MARK, LEFTOVERS);
            let silent = |_| AgentError::Silent(self.limit);
            tokio::time::timeout_at(self.deadline, skipped).await.map_err(silent)??;
            let answer = self.hear(None).await;
            if answer.is_ok_and(|answer| answer.get().parse() == Ok(number)) {
                return Ok(());
            }
        }
        Err(AgentError::Absurd("answers everything but our question"))
    }

    async fn tell(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        let told = tokio::time::timeout_at(self.deadline, self.write.write_all(bytes)).await;
        let told = told.map_err(|_| AgentError::Silent(self.limit))?;
        told.map_err(|e| AgentError::Garbage(ReadError::Failed(e)))
    }

    /// The next answer, skipping those with a number other than `number`. Old agents give none back.
    async fn hear(&mut self, number: Option<u64>) -> Result<Box<RawValue>, AgentError> {
        for _ in 0..STRAYS {
            if self.reader.total() > SESSION {
                return Err(AgentError::Absurd("says too much in one session"));
            }
            let silent = |_| AgentError::Silent(self.limit);
            let line = tokio::time::timeout_at(self.deadline, self.reader.next()).await.map_err(silent)??;
            let answer: Answer = serde_json::from_str(&line).map_err(AgentError::Odd)?;
            let named = answer.id.map(|id| id.get().parse());
            if named.is_some() && number.is_some() && named != number.map(Ok) {
                continue;
            }
            return match (answer.error, answer.answer) {
                (Some(Refusal { class, desc }), _) => {
                    Err(AgentError::Refused { class: tame(&class.to_string(), 64), desc: desc.to_string() })
                }
                (None, Some(answer)) => Ok(answer.to_owned()),
                (None, None) => Err(AgentError::Absurd("answers with neither a result nor an error")),
            };
        }
        Err(AgentError::Absurd("answers everything but our question"))
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "return", borrow)]
    answer: Option<&'a RawValue>,
    error: Option<Refusal>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    class: Text,
    #[serde(default)]
    desc: Text,
}
