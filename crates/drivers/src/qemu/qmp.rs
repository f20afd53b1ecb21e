//! The QEMU Machine Protocol: questions, answers matched by their number, and events.
//!
//! Every call has its own time limit, because a stopped QEMU keeps its socket open and just says
//! nothing. Silence is an answer here ("nothing for 2 s"), never a verdict. One question is on the way
//! at a time, so a QEMU that wakes up after an hour finds one old question, not an hour of them.

use super::event::{Event, Queue};
use super::untrusted::Text;
use super::wire::{Limits, ReadError, Reader};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Why a question got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket is not there or nobody listens on it.
    #[error("cannot reach the control socket")]
    Connect(#[source] std::io::Error),
    /// It said something, but not what QEMU says first.
    #[error("the other side of the control socket is not QEMU")]
    NotQemu,
    /// Nothing came in time. `asked` says whether the question was sent at all: if not, it is
    /// certainly not carried out.
    #[error("no answer for {waited:?}")]
    Silent {
        /// How long was waited.
        waited: Duration,
        /// Whether the question was sent.
        asked: bool,
    },
    /// The connection ended before the answer.
    #[error("the control connection ended")]
    Ended,
    /// The connection was given up for what came through it.
    #[error("the control connection was given up")]
    Garbage(#[from] ReadError),
    /// QEMU refused.
    #[error("refused: {desc}")]
    Refused {
        /// The error class, as `GenericError` or `CommandNotFound`.
        class: String,
        /// What QEMU said, tamed.
        desc: String,
    },
    /// The answer is not of the form it should have.
    #[error("an answer of an unknown form")]
    Odd(#[source] serde_json::Error),
}

impl QmpError {
    /// Whether the command may have been carried out all the same.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        match self {
            Self::Silent { asked, .. } => *asked,
            Self::Ended | Self::Garbage(_) | Self::Odd(_) => true,
            Self::Connect(_) | Self::NotQemu | Self::Refused { .. } => false,
        }
    }
}

/// What was dropped on a connection so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers to questions that nobody asked, or gave up.
    pub strays: AtomicU64,
    /// Events pushed out of the queue.
    pub events: AtomicU64,
}

/// A connection to one QEMU. Clones share it; it ends when all are gone.
#[derive(Clone, Debug)]
pub struct Qmp {
    inbox: mpsc::Sender<Question>,
    tally: Arc<Tally>,
    version: (u32, u32),
}

/// The events of one connection.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the connection has ended and all were taken.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// So many questions wait for their turn at most; more callers wait to put theirs.
const WAITING: usize = 32;
/// A question that nobody waits for any more blocks the others for so long at most; then the connection
/// is given up and the caller may make a new one.
const STUCK: Duration = Duration::from_secs(20);

impl Qmp {
    /// Connects, reads the greeting and leaves capability negotiation, all within `limit`.
    ///
    /// # Errors
    /// Every [`QmpError`].
    pub async fn connect(path: &Path, limit: Duration) -> Result<(Self, Events), QmpError> {
        let silent = |_| QmpError::Silent { waited: limit, asked: false };
        tokio::time::timeout(limit, Self::greet(path)).await.map_err(silent)?
    }

    async fn greet(path: &Path) -> Result<(Self, Events), QmpError> {
        let stream = UnixStream::connect(path).await.map_err(QmpError::Connect)?;
        let (read, mut write) = stream.into_split();
        let mut reader = Reader::new(read, Limits::HYPERVISOR);
        let first = reader.next().await?;
        let greeting = Message::parse(&first)?.greeting.ok_or(QmpError::NotQemu)?;
        let hello = b"{\"execute\":\"qmp_capabilities\",\"id\":0}\n";
        write.write_all(hello).await.map_err(|e| QmpError::Garbage(ReadError::Failed(e)))?;
        loop {
            let line = reader.next().await?;
            let message = Message::parse(&line)?;
            if message.number() == Some(0) {
                message.answer()?;
                break;
            }
        }
        let (inbox, questions) = mpsc::channel(WAITING);
        let (outbox, events) = mpsc::channel(1);
        let tally = Arc::new(Tally::default());
        let version = (greeting.version.qemu.major, greeting.version.qemu.minor);
        tokio::spawn(Connection::new(reader, write, Arc::clone(&tally)).run(questions, outbox));
        Ok((Self { inbox, tally, version }, Events(events)))
    }

    /// QEMU's version, as (7, 2). For people; features are found by asking.
    #[must_use]
    pub const fn version(&self) -> (u32, u32) {
        self.version
    }

    /// What was dropped so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Asks a question and waits at most `limit` for the answer.
    ///
    /// # Errors
    /// Every [`QmpError`] but those of connecting.
    pub async fn call<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<T, QmpError> {
        self.ask(command, arguments, None, limit).await
    }

    /// As [`Qmp::call`], with a descriptor that QEMU gets beside the command: a file that it may use and could not open.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn hand<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: OwnedFd,
        limit: Duration,
    ) -> Result<T, QmpError> {
        self.ask(command, arguments, Some(descriptor), limit).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<OwnedFd>,
        limit: Duration,
    ) -> Result<T, QmpError> {
        let fate = Arc::new(Fate::default());
        let (answer, answered) = oneshot::channel();
        let question = Question { command, arguments, descriptor, fate: Arc::clone(&fate), answer };
        let wait = async {
            self.inbox.send(question).await.map_err(|_| QmpError::Ended)?;
            answered.await.unwrap_or(Err(QmpError::Ended))
        };
        let mut wait = std::pin::pin!(wait);
        let mut answer = tokio::time::timeout(limit, &mut wait).await;
        if answer.is_err() {
            // If it was us who slept, the answer may be there already: look once more before saying so.
            answer = tokio::time::timeout(AFTER_SLEEP, &mut wait).await;
        }
        match answer {
            Ok(text) => serde_json::from_str(text?.get()).map_err(QmpError::Odd),
            Err(_) => Err(QmpError::Silent { waited: limit, asked: !fate.withdraw() }),
        }
    }

    /// Gives a command whose answer says nothing.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn run(&self, command: &'static str, args: Value, limit: Duration) -> Result<(), QmpError> {
        self.call::<serde::de::IgnoredAny>(command, args, limit).await.map(drop)
    }
}

const AFTER_SLEEP: Duration = Duration::from_millis(15);

/// Whether a question was sent or withdrawn: exactly one of the two happens.
#[derive(Debug, Default)]
struct Fate(AtomicU8);

impl Fate {
    const SENT: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn becomes(&self, fate: u8) -> bool {
        self.0.compare_exchange(0, fate, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn withdraw(&self) -> bool {
        self.becomes(Self::WITHDRAWN)
    }

    fn send(&self) -> bool {
        self.becomes(Self::SENT)
    }
}

#[derive(Debug)]
struct Question {
    command: &'static str,
    arguments: Value,
    descriptor: Option<OwnedFd>,
    fate: Arc<Fate>,
    answer: oneshot::Sender<Result<Box<RawValue>, QmpError>>,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    since: Instant,
    answer: oneshot::Sender<Result<Box<RawValue>, QmpError>>,
}

/// The task that owns the socket.
struct Connection {
    reader: Reader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    unsent: Vec<u8>,
    /// Goes with the next byte.
    descriptor: Option<OwnedFd>,
    waiting: VecDeque<Question>,
    asked: Option<Asked>,
    number: u64,
    events: Queue,
    tally: Arc<Tally>,
}

impl Connection {
    fn new(reader: Reader<OwnedReadHalf>, write: OwnedWriteHalf, tally: Arc<Tally>) -> Self {
        let (unsent, waiting, events) = (Vec::new(), VecDeque::new(), Queue::default());
        Self { reader, write, unsent, descriptor: None, waiting, asked: None, number: 0, events, tally }
    }

    async fn run(mut self, mut questions: mpsc::Receiver<Question>, outbox: mpsc::Sender<Event>) {
        let stuck = tokio::time::sleep(STUCK);
        let mut stuck = std::pin::pin!(stuck);
        loop {
            self.ask_next();
            if let Some(asked) = &self.asked {
                stuck.as_mut().reset(asked.since + STUCK);
            }
            tokio::select! {
                message = self.reader.next() => match message {
                    Ok(message) if self.hear(&message) => {}
                    Ok(_) => break,
                    Err(error) => { self.give_up(error); break }
                },
                question = questions.recv(), if self.waiting.len() < WAITING => match question {
                    Some(question) => {
                        self.waiting.retain(|waiting| !waiting.answer.is_closed());
                        self.waiting.push_back(question);
                    }
                    None => break,
                },
                sent = send(&self.write, &self.unsent, self.descriptor.as_ref()), if !self.unsent.is_empty() => match sent {
                    Ok(count) => { self.descriptor = None; drop(self.unsent.drain(..count)) }
                    Err(_) => break,
                },
                place = outbox.reserve(), if !self.events.is_empty() => match (place, self.events.pop()) {
                    (Ok(place), Some(event)) => place.send(event),
                    _ => self.events = Queue::default(), // nobody listens
                },
                () = &mut stuck, if self.asked.as_ref().is_some_and(|a| a.answer.is_closed()) => break,
            }
        }
        drop((self.asked.take(), questions)); // their callers learn that it ended
        self.waiting.clear();
        while let Some(event) = self.events.pop() {
            if outbox.send(event).await.is_err() {
                break;
            }
        }
    }

    fn ask_next(&mut self) {
        while self.asked.is_none() {
            let Some(Question { command, arguments, descriptor, fate, answer }) = self.waiting.pop_front()
            else {
                return;
            };
            if !fate.send() {
                continue;
            }
            self.number += 1;
            let mut text = serde_json::json!({ "execute": command, "id": self.number });
            if !arguments.is_null() {
                text["arguments"] = arguments;
            }
            self.unsent.extend_from_slice(text.to_string().as_bytes());
            self.unsent.push(b'\n');
            self.descriptor = descriptor;
            self.asked = Some(Asked { number: self.number, since: Instant::now(), answer });
        }
    }

    /// Whether to go on.
    fn hear(&mut self, line: &str) -> bool {
        let message = match Message::parse(line) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "a hypervisor sent what is no QMP message");
                return false;
            }
        };
        if let Some(name) = &message.event {
            self.events.push(name, message.data);
            self.tally.events.store(self.events.dropped(), Ordering::Relaxed);
        } else {
            match self.asked.take() {
                Some(asked) if message.number() == Some(asked.number) => {
                    let answer = message.answer().map(ToOwned::to_owned);
                    if asked.answer.send(answer).is_err() {
                        self.tally.strays.fetch_add(1, Ordering::Relaxed);
                    }
                }
                other => {
                    self.asked = other;
                    self.tally.strays.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        true
    }

    fn give_up(&mut self, error: ReadError) {
        if !matches!(error, ReadError::Closed) {
            tracing::warn!(%error, "a control connection was given up");
            if let Some(asked) = self.asked.take() {
                let _gone = asked.answer.send(Err(error.into()));
            }
        }
    }
}

/// Sends a part of it, and the descriptor with its first byte. Safe to be given up: then nothing was sent.
async fn send(to: &OwnedWriteHalf, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<usize> {
    let send = || {
        let carried = descriptor.map(AsFd::as_fd);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if let Some(carried) = &carried {
            beside.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(carried)));
        }
        let socket: &UnixStream = to.as_ref();
        Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
    };
    to.as_ref().async_io(Interest::WRITABLE, send).await
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    #[serde(rename = "return", borrow)]
    answer: Option<&'a RawValue>,
    error: Option<Refusal>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    event: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Greeting {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    qemu: Numbers,
}

#[derive(Deserialize)]
struct Numbers {
    major: u32,
    minor: u32,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    class: Text,
    #[serde(default)]
    desc: Text,
}

impl<'a> Message<'a> {
    fn parse(line: &'a str) -> Result<Self, QmpError> {
        serde_json::from_str(line).map_err(QmpError::Odd)
    }

    fn number(&self) -> Option<u64> {
        self.id?.get().parse().ok()
    }

    fn answer(&self) -> Result<&'a RawValue, QmpError> {
        match (self.answer, &self.error) {
            (_, Some(Refusal { class, desc })) => {
                Err(QmpError::Refused { class: class.to_string(), desc: desc.to_string() })
            }
            (Some(answer), None) => Ok(answer),
            (None, None) => Err(QmpError::Ended),
        }
    }
}
