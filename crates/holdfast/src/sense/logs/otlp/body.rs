//! The body of a request: collected, unframed and unpacked, each within its limit (A23).

use flate2::read::GzDecoder;
use holdfast_logs::Record;
use holdfast_logs::decode::{LONGEST_REQUEST, MOST_BYTES};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use hyper::header::{HeaderMap, HeaderValue};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body must be whole within this time.
const WHOLE: Duration = Duration::from_secs(10);
/// KiB of all bodies that are being received.
pub const MOST_KIB: usize = 16 * 1024;
/// KiB of the records of all requests that wait for room: as many as one request may have.
const MOST_KIB_OF_RECORDS: usize = MOST_BYTES / 1024;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Bytes before a message of gRPC: whether it is packed, and its length.
pub const FRAME: usize = 5;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It goes elsewhere.
    #[error("logs are sent to /v1/logs, or to the gRPC service LogsService; nothing else is received here")]
    NoSuchPath,
    /// It only asks.
    #[error("logs are sent with POST")]
    NotPosted,
    /// It is of another type.
    #[error("the type is not application/x-protobuf, application/json or, with gRPC, application/grpc")]
    Type,
    /// It is packed otherwise.
    #[error("only gzip is unpacked")]
    Packing,
    /// It is packed wrongly.
    #[error("it is no gzip")]
    Gzip,
    /// It is too large.
    #[error("a request has at most 4 MiB, unpacked: send smaller batches")]
    Long,
    /// It did not come to its end.
    #[error("the body was not sent to its end in time")]
    Half,
    /// Its frame is wrong.
    #[error("the body is not one message of gRPC")]
    Frame,
    /// There is no room now.
    #[error("too much is being sent: send later")]
    TooMuch,
    /// It is not what it should be.
    #[error("{0}")]
    Message(String),
}

/// The memory that all bodies share.
#[derive(Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    records: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        let of = |room| Arc::new(Semaphore::new(room));
        Self { room: of(MOST_KIB), records: of(MOST_KIB_OF_RECORDS), turns: of(1) }
    }
}

impl Budget {
    /// KiB that nobody has taken.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.room.available_permits()
    }

    /// Waits for the turn to be unpacked and read.
    ///
    /// # Errors
    /// [`Refusal::TooMuch`] when others take too long.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(Refusal::TooMuch)
    }

    /// Waits until there is room for the records of a request beside those of others: a small request can have large ones,
    /// and all wait where nobody takes them.
    ///
    /// # Errors
    /// [`Refusal::TooMuch`] when others take too long.
    pub async fn hold(&self, records: Vec<Record>) -> Result<Held, Refusal> {
        let bytes: usize = records.iter().map(Record::bytes).sum();
        let kib = u32::try_from(bytes.div_ceil(1024).min(MOST_KIB_OF_RECORDS)).map_err(|_| Refusal::Long)?;
        let held = tokio::time::timeout(TURN, Arc::clone(&self.records).acquire_many_owned(kib)).await;
        let room = held.ok().and_then(Result::ok).ok_or(Refusal::TooMuch)?;
        Ok(Held { records, _room: room })
    }
}

/// The records of a request, and the room that they take.
pub struct Held {
    /// All of them.
    pub records: Vec<Record>,
    _room: OwnedSemaphorePermit,
}

/// A whole body, and the room it takes.
pub struct Whole {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Given back when dropped.
    pub taken: Vec<OwnedSemaphorePermit>,
}

/// Receives a body.
///
/// # Errors
/// It is too long, too slow, or there is no room.
pub async fn collect<B>(body: B, budget: &Budget) -> Result<Whole, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    tokio::time::timeout(WHOLE, receive(body, budget)).await.map_err(|_| Refusal::Half)?
}

async fn receive<B>(mut body: B, budget: &Budget) -> Result<Whole, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole = Whole { bytes: Vec::new(), taken: Vec::new() };
    let mut room = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::Half)?.into_data() else { continue };
        if whole.bytes.len() + data.len() > LONGEST_REQUEST + FRAME {
            return Err(Refusal::Long);
        }
        if whole.bytes.len() + data.len() > room {
            // 64 KiB at a time, and as much as was there already, as a buffer grows.
            let more = data.len().max(whole.bytes.len()).max(64 * 1024);
            let kib = u32::try_from(more.div_ceil(1024)).map_err(|_| Refusal::Long)?;
            let permit = Arc::clone(&budget.room).acquire_many_owned(kib).await;
            whole.taken.push(permit.map_err(|_| Refusal::TooMuch)?);
            room += more;
            whole.bytes.reserve_exact(room - whole.bytes.len());
        }
        whole.bytes.extend_from_slice(&data);
    }
    Ok(whole)
}

/// The one message of a unary call of gRPC.
///
/// # Errors
/// It is not framed as one, or packed otherwise than with gzip.
pub fn unframe(mut bytes: Vec<u8>, headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let Some((&[packed, a, b, c, d], message)) = bytes.split_first_chunk::<FRAME>() else {
        return Err(Refusal::Frame);
    };
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return Err(Refusal::Frame);
    }
    bytes.drain(..FRAME);
    match packed {
        0 => Ok(bytes),
        1 => unpack(bytes, headers.get("grpc-encoding")),
        _ => Err(Refusal::Frame),
    }
}

/// Unpacks what is packed, to at most 4 MiB.
///
/// # Errors
/// It is packed in another way, damaged, or too large.
pub fn unpack(bytes: Vec<u8>, encoding: Option<&HeaderValue>) -> Result<Vec<u8>, Refusal> {
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(bytes),
        Some(b"gzip") => {
            let mut plain = Vec::new();
            let most = LONGEST_REQUEST as u64 + 1;
            GzDecoder::new(&bytes[..]).take(most).read_to_end(&mut plain).map_err(|_| Refusal::Gzip)?;
            if plain.len() > LONGEST_REQUEST { Err(Refusal::Long) } else { Ok(plain) }
        }
        Some(_) => Err(Refusal::Packing),
    }
}
