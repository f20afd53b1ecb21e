//! What the meta contexts of an export say of all its bytes.

use super::{Client, Flying, READING, Wanted};
use crate::wire::{self, command};
use crate::{Extent, NbdError, Refusal};
use std::io::{Read, Write};

/// So much is asked for at once (bytes); the server answers for as much of it as it likes.
const ASK: u64 = 1 << 30;
/// The most extents of one answer, as QEMU's own limit.
const EXTENTS_MOST: u32 = 128 << 10;
/// The most extents of a whole disk: one of this many is a lie or a disk that is better read as a whole.
pub const EXTENTS_OF_DISK: u64 = 32 << 20;

/// The answers to one question, by the place of the context.
#[derive(Debug, Default)]
pub(super) struct Maps(Vec<(usize, Vec<Extent>)>);

impl Maps {
    /// Takes what one context says.
    pub(super) fn take(
        &mut self,
        stream: &mut impl Read,
        length: u32,
        contexts: &[Option<u32>],
    ) -> Result<(), NbdError> {
        if length < 12 || !(length - 4).is_multiple_of(8) || (length - 4) / 8 > EXTENTS_MOST {
            return Err(NbdError::Broken("a block status has an impossible length"));
        }
        let id = wire::u32(stream).map_err(NbdError::stream(READING))?;
        let which = contexts.iter().position(|context| *context == Some(id));
        let which = which.ok_or(NbdError::Broken("a block status of a context that was not asked for"))?;
        if self.0.iter().any(|(seen, _)| *seen == which) {
            return Err(NbdError::Broken("one context says two things at once"));
        }
        let mut extents = Vec::new();
        for _ in 0..(length - 4) / 8 {
            let length = wire::u32(stream).map_err(NbdError::stream(READING))?;
            let flags = wire::u32(stream).map_err(NbdError::stream(READING))?;
            if length == 0 {
                return Err(NbdError::Broken("an extent of no bytes"));
            }
            extents.push(Extent { length: length.into(), flags });
        }
        self.0.push((which, extents));
        Ok(())
    }
}

impl<S: Read + Write> Client<S> {
    /// Tells what every context that the server has says of the whole disk, from its begin to its end: `each` gets the
    /// place of the context, where an extent begins, and the extent.
    ///
    /// # Errors
    /// If the stream fails or the server breaks the protocol; [`NbdError::Refused`] if it does not know.
    pub fn map(&mut self, mut each: impl FnMut(usize, u64, Extent)) -> Result<(), NbdError> {
        let contexts: Vec<usize> = (0..self.export.contexts.len()).filter(|n| self.has_context(*n)).collect();
        let (mut at, mut count) = (0, 0);
        while at < self.export.size && !contexts.is_empty() {
            let maps = self.status(at, (self.export.size - at).min(ASK) as u32)?;
            // Only what all of them tell of counts; the rest is asked for again.
            let told = |which| maps.0.iter().find(|(seen, _)| *seen == which).map(|(_, extents)| extents);
            let reach = |which: &usize| {
                told(*which).map_or(0, |extents| extents.iter().map(|extent| extent.length).sum())
            };
            let reach: u64 = contexts.iter().map(reach).min().unwrap_or(0).min(self.export.size - at);
            if reach == 0 {
                return Err(NbdError::Broken("a block status tells nothing"));
            }
            for (which, extents) in &maps.0 {
                count += cut(extents, reach, |begin, extent| each(*which, at + begin, extent));
            }
            if count > EXTENTS_OF_DISK {
                return Err(NbdError::Broken("a disk of too many extents"));
            }
            at += reach;
        }
        Ok(())
    }

    fn status(&mut self, offset: u64, length: u32) -> Result<Maps, NbdError> {
        let (wanted, refusal) = (Wanted::Status(Maps::default()), None);
        let cookie = self.send(command::BLOCK_STATUS, 0, Flying { offset, length, wanted, refusal })?;
        loop {
            let Some((number, done)) = self.step()? else { continue };
            match done.wanted {
                Wanted::Status(maps) if number == cookie.0 => {
                    let refused = |refusal: Refusal| NbdError::Refused { what: "the block status", refusal };
                    return done.refusal.map_or(Ok(maps), |refusal| Err(refused(refusal)));
                }
                Wanted::Status(_) | Wanted::Bytes(..) => self.settle(number, done)?,
            }
        }
    }
}

/// Tells the extents up to this many bytes, and how many they were.
fn cut(extents: &[Extent], reach: u64, mut each: impl FnMut(u64, Extent)) -> u64 {
    let (mut begin, mut count) = (0, 0);
    for extent in extents {
        if begin >= reach {
            break;
        }
        each(begin, Extent { length: extent.length.min(reach - begin), flags: extent.flags });
        (begin, count) = (begin + extent.length, count + 1);
    }
    count
}
