//! The side that offers a disk: what a QEMU needs of a server, and no more.

mod greet;

use crate::wire::{self, chunk, command};
use crate::{Extent, LENGTH_MOST, NbdError};
use std::io::{self, BufReader, Read, Write};

/// The most extents of one answer.
const EXTENTS_MOST: usize = 4_096;
/// The one context that there is: [`crate::ALLOCATION`].
const ALLOCATION_ID: u32 = 1;
/// Errors of the protocol, numbered as on Linux.
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// Something that is offered as a disk.
pub trait Disk {
    /// Bytes.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn is_read_only(&self) -> bool {
        true
    }

    /// Fills `bytes` from `offset` on; what is asked for lies within the size.
    ///
    /// # Errors
    /// If it cannot be read; the client is told so, and may ask again.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes these bytes at `offset`, within the size.
    ///
    /// # Errors
    /// If it cannot be written, or may not be.
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// Returns when all that was written is durable.
    ///
    /// # Errors
    /// If that cannot be had.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// What begins at this byte, which lies within the size: [`crate::IS_HOLE`] and [`crate::READS_ZERO`], for at least
    /// one byte.
    fn extent(&self, offset: u64) -> Extent {
        Extent { length: self.size() - offset, flags: 0 }
    }
}

/// How a talk goes on after the greeting.
#[derive(Clone, Copy, Debug, Default)]
struct Agreed {
    is_structured: bool,
    has_allocation: bool,
}

/// Offers a disk to one client, until it has had enough.
///
/// # Errors
/// If the stream fails, or the client breaks the protocol.
pub fn serve<S: Read + Write>(stream: S, name: &str, disk: &dyn Disk) -> Result<(), NbdError> {
    let mut stream = BufReader::new(stream);
    let Some(agreed) = greet::greet(&mut stream, name, disk)? else { return Ok(()) };
    let (bytes, answer) = Default::default();
    let mut talk = Talk { stream, disk, agreed, bytes, answer };
    while talk.request()? {}
    Ok(())
}

struct Talk<'a, S: Read> {
    stream: BufReader<S>,
    disk: &'a dyn Disk,
    agreed: Agreed,
    bytes: Vec<u8>,
    answer: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Request {
    flags: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

impl<S: Read + Write> Talk<'_, S> {
    /// Answers one request. Whether there may be another.
    fn request(&mut self) -> Result<bool, NbdError> {
        let told = || NbdError::stream("reading a request");
        if wire::u32(&mut self.stream).map_err(told())? != wire::REQUEST {
            return Err(NbdError::Broken("what came is no request"));
        }
        let flags = wire::u16(&mut self.stream).map_err(told())?;
        let kind = wire::u16(&mut self.stream).map_err(told())?;
        let cookie = wire::u64(&mut self.stream).map_err(told())?;
        let offset = wire::u64(&mut self.stream).map_err(told())?;
        let length = wire::u32(&mut self.stream).map_err(told())?;
        let request = Request { flags, cookie, offset, length };
        self.answer.clear();
        match kind {
            command::DISCONNECT => return Ok(false),
            command::READ => self.read(request),
            command::WRITE => self.take(request)?,
            command::FLUSH => {
                let flushed = self.disk.flush();
                self.settle(request, flushed);
            }
            command::BLOCK_STATUS => self.status(request),
            _ => self.fail(request, EINVAL),
        }
        let stream = self.stream.get_mut();
        stream
            .write_all(&self.answer)
            .and_then(|()| stream.flush())
            .map_err(NbdError::stream("answering"))?;
        Ok(true)
    }

    /// Whether the bytes of a request are there, and not too many.
    fn is_within(&self, request: Request) -> bool {
        let end = request.offset.checked_add(request.length.into());
        request.length > 0 && end.is_some_and(|end| end <= self.disk.size())
    }

    fn read(&mut self, request: Request) {
        if request.length > LENGTH_MOST || !self.is_within(request) {
            return self.fail(request, EINVAL);
        }
        self.bytes.resize(request.length as usize, 0);
        if let Err(error) = self.disk.read_at(request.offset, &mut self.bytes) {
            return self.fail(request, number(&error));
        }
        if self.agreed.is_structured {
            self.chunk(request, chunk::DATA, request.length + 8);
            self.answer.extend_from_slice(&request.offset.to_be_bytes());
        } else {
            self.simple(request, 0);
        }
        self.answer.append(&mut self.bytes);
    }

    fn take(&mut self, request: Request) -> Result<(), NbdError> {
        if request.length > LENGTH_MOST {
            return Err(NbdError::Broken("a write of too many bytes"));
        }
        self.bytes.resize(request.length as usize, 0);
        self.stream.read_exact(&mut self.bytes).map_err(NbdError::stream("reading what is written"))?;
        if self.disk.is_read_only() {
            self.fail(request, EPERM);
        } else if !self.is_within(request) {
            self.fail(request, ENOSPC);
        } else {
            let mut written = self.disk.write_at(request.offset, &self.bytes);
            if request.flags & command::FUA != 0 {
                written = written.and_then(|()| self.disk.flush());
            }
            self.settle(request, written);
        }
        Ok(())
    }

    fn status(&mut self, request: Request) {
        if !self.agreed.has_allocation || !self.is_within(request) {
            return self.fail(request, EINVAL);
        }
        let most = if request.flags & command::REQUEST_ONE != 0 { 1 } else { EXTENTS_MOST };
        let (mut extents, mut at) = (Vec::<u8>::new(), request.offset);
        let end = request.offset + u64::from(request.length);
        while at < end && extents.len() < 8 * most {
            let Extent { length, flags } = self.disk.extent(at);
            let length = length.clamp(1, end - at); // less than 4 GiB, as the request
            extents.extend_from_slice(&(length as u32).to_be_bytes());
            extents.extend_from_slice(&flags.to_be_bytes());
            at += length;
        }
        self.chunk(request, chunk::BLOCK_STATUS, 4 + extents.len() as u32);
        self.answer.extend_from_slice(&ALLOCATION_ID.to_be_bytes());
        self.answer.append(&mut extents);
    }

    fn settle(&mut self, request: Request, done: io::Result<()>) {
        match done {
            Err(error) => self.fail(request, number(&error)),
            Ok(()) if self.agreed.is_structured => self.chunk(request, chunk::NONE, 0),
            Ok(()) => self.simple(request, 0),
        }
    }

    fn fail(&mut self, request: Request, error: u32) {
        if !self.agreed.is_structured {
            return self.simple(request, error);
        }
        self.chunk(request, chunk::ERROR | 1, 6);
        self.answer.extend_from_slice(&error.to_be_bytes());
        self.answer.extend_from_slice(&0_u16.to_be_bytes());
    }

    fn simple(&mut self, request: Request, error: u32) {
        self.answer.extend_from_slice(&wire::SIMPLE.to_be_bytes());
        self.answer.extend_from_slice(&error.to_be_bytes());
        self.answer.extend_from_slice(&request.cookie.to_be_bytes());
    }

    /// The head of the only chunk of an answer.
    fn chunk(&mut self, request: Request, kind: u16, length: u32) {
        self.answer.extend_from_slice(&wire::STRUCTURED.to_be_bytes());
        self.answer.extend_from_slice(&chunk::DONE.to_be_bytes());
        self.answer.extend_from_slice(&kind.to_be_bytes());
        self.answer.extend_from_slice(&request.cookie.to_be_bytes());
        self.answer.extend_from_slice(&length.to_be_bytes());
    }
}

fn number(error: &io::Error) -> u32 {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is = |kinds: [io::ErrorKind; 2]| kinds.contains(&error.kind());
    if is([PermissionDenied, ReadOnlyFilesystem]) {
        EPERM
    } else if is([StorageFull, QuotaExceeded]) {
        ENOSPC
    } else {
        EIO
    }
}
