//! The side that reads: one connection to one export, several requests on the way.

mod greet;
mod status;

use crate::wire::{self, chunk, command};
use crate::{LENGTH_MOST, NbdError, Refusal};
use status::Maps;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Read, Write};

/// The most requests that may wait for an answer.
pub const FLYING_MOST: usize = 64;
/// The longest text of an error (bytes).
const TEXT_MOST: u32 = 6 + 4_096 + 8;
/// Small answers are taken from the stream together.
const BUFFER: usize = 16 << 10;

/// What a server says of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// It takes no writes.
    pub is_read_only: bool,
    /// Requests begin and end at multiples of this, a power of two up to 64 KiB.
    pub block: u32,
    /// The most bytes of one request.
    pub most: u32,
    /// The number of each meta context that was asked for, if it is there.
    contexts: Vec<Option<u32>>,
}

/// One request on its way; numbered, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(u64);

/// An answer: the bytes, or why there are none.
pub type Answer = Result<Vec<u8>, Refusal>;

/// A connection to an export.
#[derive(Debug)]
pub struct Client<S: Read> {
    stream: BufReader<S>,
    export: Export,
    is_structured: bool,
    next: u64,
    flying: BTreeMap<u64, Flying>,
    ready: VecDeque<(Cookie, Answer)>,
}

/// What is known so far of the answer to one request.
#[derive(Debug)]
struct Flying {
    offset: u64,
    length: u32,
    wanted: Wanted,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
enum Wanted {
    /// The bytes, zeros at first, and which parts of them came.
    Bytes(Vec<u8>, Vec<(u32, u32)>),
    /// For each number of a context what it says.
    Status(Maps),
}

impl<S: Read + Write> Client<S> {
    /// Greets a server, and asks it for an export and these meta contexts.
    ///
    /// # Errors
    /// If it is no NBD server, has no such export, or breaks the protocol.
    pub fn connect(stream: S, export: &str, contexts: &[&str]) -> Result<Self, NbdError> {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let (export, is_structured) = greet::greet(&mut stream, export, contexts)?;
        let (flying, ready) = Default::default();
        Ok(Self { stream, export, is_structured, next: 1, flying, ready })
    }

    /// What it is connected to.
    pub const fn export(&self) -> &Export {
        &self.export
    }

    /// Whether the server has the meta context that was asked for at this place.
    pub fn has_context(&self, which: usize) -> bool {
        self.export.contexts.get(which).is_some_and(Option::is_some)
    }

    /// Requests that wait for an answer.
    pub fn flying(&self) -> usize {
        self.flying.len() + self.ready.len()
    }

    /// Asks for bytes; up to [`FLYING_MOST`] requests may be on the way, and each keeps its bytes in memory.
    ///
    /// # Errors
    /// If they are not within the export, too many for one request, or the stream fails.
    pub fn ask(&mut self, offset: u64, length: u32) -> Result<Cookie, NbdError> {
        if length == 0 || length > self.export.most || length > LENGTH_MOST {
            return Err(NbdError::Broken("we asked for no bytes, or more than one request may have"));
        }
        let wanted = Wanted::Bytes(vec![0; length as usize], Vec::new());
        self.send(command::READ, 0, Flying { offset, length, wanted, refusal: None })
    }

    /// Waits for the next answer, whichever it is.
    ///
    /// # Errors
    /// If nothing was asked, the stream fails, or the server breaks the protocol: then the connection is of no use.
    pub fn receive(&mut self) -> Result<(Cookie, Answer), NbdError> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            if self.flying.is_empty() {
                return Err(NbdError::Broken("we wait for an answer and asked for nothing"));
            }
            if let Some((cookie, done)) = self.step()? {
                self.settle(cookie, done)?;
            }
        }
    }

    /// Ends the talk in good order; dropping the client does it without.
    ///
    /// # Errors
    /// If the stream fails.
    pub fn disconnect(mut self) -> Result<(), NbdError> {
        self.write(command::DISCONNECT, 0, 0, 0, 0)
    }

    fn send(&mut self, kind: u16, flags: u16, flying: Flying) -> Result<Cookie, NbdError> {
        let end = flying.offset.checked_add(flying.length.into());
        if end.is_none_or(|end| end > self.export.size) {
            return Err(NbdError::Broken("we asked for what lies behind the end"));
        }
        if self.flying.len() >= FLYING_MOST {
            return Err(NbdError::Broken("we asked for too much at once"));
        }
        let cookie = self.next;
        self.next += 1;
        self.write(kind, flags, cookie, flying.offset, flying.length)?;
        self.flying.insert(cookie, flying);
        Ok(Cookie(cookie))
    }

    fn write(
        &mut self,
        kind: u16,
        flags: u16,
        cookie: u64,
        offset: u64,
        length: u32,
    ) -> Result<(), NbdError> {
        let mut request = [0; 28];
        request[..4].copy_from_slice(&wire::REQUEST.to_be_bytes());
        request[4..6].copy_from_slice(&flags.to_be_bytes());
        request[6..8].copy_from_slice(&kind.to_be_bytes());
        request[8..16].copy_from_slice(&cookie.to_be_bytes());
        request[16..24].copy_from_slice(&offset.to_be_bytes());
        request[24..].copy_from_slice(&length.to_be_bytes());
        let stream = self.stream.get_mut();
        stream.write_all(&request).and_then(|()| stream.flush()).map_err(NbdError::stream("asking"))
    }

    /// Puts a finished read where [`Client::receive`] finds it.
    fn settle(&mut self, cookie: u64, done: Flying) -> Result<(), NbdError> {
        let Wanted::Bytes(bytes, mut parts) = done.wanted else {
            return Err(NbdError::Broken("a block status was not waited for"));
        };
        let answer = match done.refusal {
            Some(refusal) => Err(refusal),
            None if is_whole(&mut parts, done.length) => Ok(bytes),
            None => return Err(NbdError::Broken("a read was answered in parts that do not fit together")),
        };
        self.ready.push_back((Cookie(cookie), answer));
        Ok(())
    }

    /// Takes one reply, or one chunk of one, from the stream; a request that is finished by it.
    fn step(&mut self) -> Result<Option<(u64, Flying)>, NbdError> {
        match wire::u32(&mut self.stream).map_err(NbdError::stream("waiting for an answer"))? {
            wire::SIMPLE => self.simple().map(Some),
            wire::STRUCTURED if self.is_structured => self.chunk(),
            _ => Err(NbdError::Broken("what came is no reply")),
        }
    }

    fn simple(&mut self) -> Result<(u64, Flying), NbdError> {
        let head: [u8; 12] = wire::bytes(&mut self.stream).map_err(NbdError::stream(READING))?;
        let error = head_u32(&head);
        let cookie = u64::from_be_bytes(head[4..].try_into().unwrap_or_default());
        let mut flying = self.flying.remove(&cookie).ok_or(STRAY)?;
        match &mut flying.wanted {
            _ if error != 0 => flying.refusal = Some(Refusal::new(error, b"")),
            Wanted::Bytes(bytes, parts) if !self.is_structured => {
                self.stream.read_exact(bytes).map_err(NbdError::stream(READING))?;
                parts.push((0, flying.length));
            }
            Wanted::Bytes(..) | Wanted::Status(_) => {
                return Err(NbdError::Broken("a reply has not the form that was agreed on"));
            }
        }
        Ok((cookie, flying))
    }

    fn chunk(&mut self) -> Result<Option<(u64, Flying)>, NbdError> {
        let head: [u8; 16] = wire::bytes(&mut self.stream).map_err(NbdError::stream(READING))?;
        let (flags, kind) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
        let cookie = u64::from_be_bytes(head[4..12].try_into().unwrap_or_default());
        let length = u32::from_be_bytes(head[12..].try_into().unwrap_or_default());
        let (stream, contexts) = (&mut self.stream, &self.export.contexts);
        let flying = self.flying.get_mut(&cookie).ok_or(STRAY)?;
        match (kind, &mut flying.wanted) {
            (chunk::NONE, _) if length == 0 && flags & chunk::DONE != 0 => {}
            (chunk::DATA | chunk::HOLE, Wanted::Bytes(bytes, parts)) => {
                let part = part(stream, kind, length, flying.offset, bytes)?;
                parts.push(part);
                if parts.len() > 4_096 + bytes.len() / 512 {
                    return Err(NbdError::Broken("a read was answered in too many parts"));
                }
            }
            (chunk::BLOCK_STATUS, Wanted::Status(maps)) => maps.take(stream, length, contexts)?,
            (_, _) if kind & chunk::ERROR != 0 => {
                let refusal = refusal(stream, length)?;
                flying.refusal.get_or_insert(refusal);
            }
            _ => return Err(NbdError::Broken("a reply is of a kind that was not asked for")),
        }
        if flags & chunk::DONE == 0 {
            return Ok(None);
        }
        Ok(self.flying.remove(&cookie).map(|done| (cookie, done)))
    }
}

const READING: &str = "reading an answer";
const STRAY: NbdError = NbdError::Broken("it answers what was not asked");

fn head_u32(head: &[u8; 12]) -> u32 {
    u32::from_be_bytes([head[0], head[1], head[2], head[3]])
}

/// Reads a chunk of data or a hole into its place; which part of the read that is.
fn part(
    stream: &mut impl Read,
    kind: u16,
    length: u32,
    begin: u64,
    bytes: &mut [u8],
) -> Result<(u32, u32), NbdError> {
    const OUTSIDE: NbdError = NbdError::Broken("a part of a read lies outside of what was asked for");
    if length < 8 || (kind == chunk::HOLE && length != 12) {
        return Err(NbdError::Broken("a part of a read has an impossible length"));
    }
    let at = wire::u64(stream).map_err(NbdError::stream(READING))?;
    let long =
        if kind == chunk::HOLE { wire::u32(stream).map_err(NbdError::stream(READING))? } else { length - 8 };
    let at = at.checked_sub(begin).and_then(|at| usize::try_from(at).ok()).ok_or(OUTSIDE)?;
    let end = at.checked_add(long as usize).filter(|end| long > 0 && *end <= bytes.len()).ok_or(OUTSIDE)?;
    if kind == chunk::HOLE {
        bytes[at..end].fill(0);
    } else {
        stream.read_exact(&mut bytes[at..end]).map_err(NbdError::stream(READING))?;
    }
    Ok((at as u32, end as u32)) // within a request, which has less than 4 GiB
}

fn refusal(stream: &mut impl Read, length: u32) -> Result<Refusal, NbdError> {
    if !(6..=TEXT_MOST).contains(&length) {
        return Err(NbdError::Broken("an error has an impossible length"));
    }
    let mut rest = vec![0; length as usize];
    stream.read_exact(&mut rest).map_err(NbdError::stream(READING))?;
    let (code, mut rest) = (u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]), &rest[4..]);
    let long = wire::u16(&mut rest).map_or(0, usize::from).min(rest.len());
    Ok(Refusal::new(code, &rest[..long]))
}

/// Whether these parts are the whole, each byte once.
fn is_whole(parts: &mut [(u32, u32)], length: u32) -> bool {
    parts.sort_unstable();
    let end = parts.iter().try_fold(0, |at, (from, to)| (*from == at).then_some(*to));
    end == Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_a_whole_only_if_each_byte_came_once() {
        assert!(is_whole(&mut [(8, 10), (0, 8)], 10));
        for wrong in [&mut [(0, 8)][..], &mut [(0, 8), (7, 10)], &mut [(0, 8), (9, 10)], &mut []] {
            assert!(!is_whole(wrong, 10), "{wrong:?}");
        }
    }
}
