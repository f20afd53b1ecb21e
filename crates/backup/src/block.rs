//! How a block of an image is written: as it is, compressed, or as what differs from an earlier block.
//!
//! A block has 256 KiB (the last of an image may be shorter), cut into pieces of 4 KiB. A small write of a database changes
//! one piece, so the 252 KiB around it are not written again: a *delta* names its base and brings the pieces that
//! changed. Which ones did is told by a keyed hash of each piece where that was kept ([`crate::kept`]), so the base
//! need not be read.

use crate::id::{BlockId, LENGTH};
use std::cell::RefCell;

/// Bytes of a block. Zstandard makes 6 % less of it than of 64 KiB, in the same time; a read of a few bytes costs a
/// quarter of a millisecond.
pub const BLOCK: usize = 256 << 10;
/// Bytes of a piece of it.
pub const PIECE: usize = 4 << 10;
/// Pieces of a block.
pub const PIECES: usize = BLOCK / PIECE;
/// Some pieces of a block: bit *n* is set for piece *n*.
pub type Mask = u64;
const _: () = assert!(Mask::BITS as usize == PIECES && PIECES.is_power_of_two() && PIECES > 1);
/// How hard is tried to compress: beyond this level, time grows faster than anything is saved.
const LEVEL: i32 = 3;
/// A delta of so many pieces is hardly smaller than the block, and costs a look at its base.
const PIECES_MOST: u32 = Mask::BITS * 5 / 8;

/// How a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Whole,
    /// What differs from this block, which is so many deltas away from a whole one, this included.
    Delta {
        /// The block that it differs from.
        base: BlockId,
        /// Deltas to be read, this included: 1 if the base is whole.
        depth: u8,
    },
}

/// So many deltas lead to a whole block at most: what a read costs is bounded.
pub const DEEPEST: u8 = 8;

/// A block that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is no block of this format.
    #[error("it is no block of this format")]
    NoBlock,
    /// It would be larger than a block.
    #[error("it is larger than a block")]
    TooLarge,
    /// Its content is not what its name says.
    #[error("its content is not what its name says")]
    Other,
    /// What it differs from is not there.
    #[error("the block that it differs from is missing")]
    NoBase,
}

const RAW: u8 = 1;
const PACKED: u8 = 2;
const DELTA_RAW: u8 = 3;
const DELTA_PACKED: u8 = 4;
/// Bytes before the content of a whole block, and of a delta: form, name, and base, depth and mask.
const HEAD: usize = 1 + LENGTH;
const MASK: usize = size_of::<Mask>();
const DELTA_HEAD: usize = HEAD + LENGTH + 1 + MASK;

thread_local! {
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends the record of a block of this name and content.
///
/// # Errors
/// If the compressor cannot be had.
pub fn write(id: BlockId, content: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let start = out.len();
    out.push(PACKED);
    out.extend_from_slice(&id.0);
    if !pack(content, out)? {
        out[start] = RAW;
        out.extend_from_slice(content);
    }
    Ok(())
}

/// Whether a delta of these pieces and this depth is made at all.
#[must_use]
pub const fn is_delta(mask: Mask, depth: u8) -> bool {
    mask.count_ones() <= PIECES_MOST && depth <= DEEPEST
}

/// The pieces of a block that are in `mask`, one after the other.
#[must_use]
pub fn pieces_of(content: &[u8], mask: Mask) -> Vec<u8> {
    let mut pieces = Vec::with_capacity(mask.count_ones() as usize * PIECE);
    let all = content.chunks(PIECE).enumerate();
    all.filter(|(at, _)| mask >> at & 1 == 1).for_each(|(_, piece)| pieces.extend_from_slice(piece));
    pieces
}

/// Appends the record of a block that differs from `base` in the pieces of `mask`, which come one after the other.
///
/// # Errors
/// If the compressor cannot be had.
pub fn write_delta(
    id: BlockId,
    pieces: &[u8],
    (base, depth): (BlockId, u8),
    mask: Mask,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    debug_assert!(is_delta(mask, depth));
    let start = out.len();
    out.push(DELTA_PACKED);
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&base.0);
    out.push(depth);
    out.extend_from_slice(&mask.to_le_bytes());
    if !pack(pieces, out)? {
        out[start] = DELTA_RAW;
        out.extend_from_slice(pieces);
    }
    Ok(())
}

/// Appends `content` compressed; `false`, and nothing, if it does not become smaller by a sixteenth at least.
fn pack(content: &[u8], out: &mut Vec<u8>) -> std::io::Result<bool> {
    PACKER.with_borrow_mut(|packer| {
        let packer = match packer {
            Some(packer) => packer,
            None => packer.insert(zstd::bulk::Compressor::new(LEVEL)?),
        };
        let start = out.len();
        out.resize(start + content.len() - content.len() / 16, 0);
        let packed = packer.compress_to_buffer(content, &mut out[start..]);
        out.truncate(start + packed.as_ref().map_or(0, |length| *length));
        Ok(packed.is_ok()) // the only thing that can fail is that it does not fit
    })
}

/// Bytes of the content of a record of this length that could not be compressed; 0 if it could. A whole one (depth 0) has all
/// its bytes then, a delta whole pieces: of 4096 deltas that could be compressed, one may be taken for such.
#[must_use]
pub const fn raw(record: usize, depth: u8) -> usize {
    let content = record.saturating_sub(if depth == 0 { HEAD } else { DELTA_HEAD });
    let is_raw = if depth == 0 { content == BLOCK } else { content.is_multiple_of(PIECE) };
    if is_raw { content } else { 0 }
}

/// The record of a block, as it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is called.
    pub id: BlockId,
    /// How it is written.
    pub form: Form,
    mask: Mask,
    is_packed: bool,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the head of a record.
    ///
    /// # Errors
    /// If it is none of this format.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Damage> {
        let (form, rest) = bytes.split_first().ok_or(Damage::NoBlock)?;
        let (id, rest) = id(rest)?;
        let is_packed = matches!(*form, PACKED | DELTA_PACKED);
        match *form {
            RAW | PACKED => Ok(Self { id, form: Form::Whole, mask: 0, is_packed, body: rest }),
            DELTA_RAW | DELTA_PACKED => {
                let (base, rest) = self::id(rest)?;
                let (depth, rest) = rest.split_first().ok_or(Damage::NoBlock)?;
                let (mask, body) = rest.split_first_chunk::<MASK>().ok_or(Damage::NoBlock)?;
                if !(1..=DEEPEST).contains(depth) {
                    return Err(Damage::NoBlock);
                }
                let form = Form::Delta { base, depth: *depth };
                Ok(Self { id, form, mask: Mask::from_le_bytes(*mask), is_packed, body })
            }
            _ => Err(Damage::NoBlock),
        }
    }

    /// Bytes of its content as they are stored: all of them, if it could not be compressed by a sixteenth.
    #[must_use]
    pub const fn stored(&self) -> usize {
        self.body.len()
    }

    /// Makes its content in `block`, which holds the content of its base if it is a delta. Whoever called for it by
    /// name must still compare it with that ([`crate::key::Keys::name`]).
    ///
    /// # Errors
    /// If it is damaged; then `block` holds nothing of use.
    pub fn unfold(&self, block: &mut Vec<u8>) -> Result<(), Damage> {
        if self.form == Form::Whole {
            return self.content(block);
        }
        let mut pieces = Vec::new();
        self.content(&mut pieces)?;
        let mut rest = &pieces[..];
        for (_, piece) in block.chunks_mut(PIECE).enumerate().filter(|(at, _)| self.mask >> at & 1 == 1) {
            let (new, left) = rest.split_at_checked(piece.len()).ok_or(Damage::NoBlock)?;
            piece.copy_from_slice(new);
            rest = left;
        }
        if rest.is_empty() { Ok(()) } else { Err(Damage::NoBlock) }
    }

    /// What it brings: never more than a block, whatever a frame promises (A34).
    fn content(&self, out: &mut Vec<u8>) -> Result<(), Damage> {
        if self.is_packed {
            return unpack(self.body, out);
        }
        if self.body.len() > BLOCK {
            return Err(Damage::TooLarge);
        }
        out.clear();
        out.extend_from_slice(self.body);
        Ok(())
    }
}

fn id(bytes: &[u8]) -> Result<(BlockId, &[u8]), Damage> {
    let (id, rest) = bytes.split_first_chunk::<LENGTH>().ok_or(Damage::NoBlock)?;
    Ok((BlockId(*id), rest))
}

fn unpack(packed: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(zstd::bulk::Decompressor::new().map_err(|_| Damage::NoBlock)?),
        };
        out.resize(BLOCK, 0);
        let length = unpacker.decompress_to_buffer(packed, &mut out[..]).map_err(|_| Damage::TooLarge)?;
        out.truncate(length);
        Ok(())
    })
}

/// Bytes of a record that holds this much content, at most.
#[must_use]
pub const fn longest(content: usize) -> usize {
    DELTA_HEAD + content
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: BlockId = BlockId([1; LENGTH]);
    const BASE: BlockId = BlockId([2; LENGTH]);

    fn unfolded(record: &[u8], base: &[u8]) -> Result<Vec<u8>, Damage> {
        let mut block = base.to_vec();
        Record::read(record)?.unfold(&mut block)?;
        Ok(block)
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::collection::vec(prop::sample::select(&b"abc\0"[..]), 0..BLOCK + 1);
        let noise = prop::collection::vec(any::<u8>(), 0..BLOCK + 1);
        prop_oneof![text, noise]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_block_is_read_as_it_was_written_and_never_longer_than_itself(content in content()) {
            let mut record = Vec::new();
            write(ID, &content, &mut record).unwrap();
            prop_assert!(record.len() <= longest(content.len()));
            prop_assert_eq!(Record::read(&record).unwrap().id, ID);
            prop_assert_eq!(unfolded(&record, b"whatever was there").unwrap(), content);
        }

        #[test]
        fn a_delta_brings_what_differs_and_leaves_the_rest(
            content in content(), mask in any::<Mask>(), with in any::<u8>(),
        ) {
            let mask = mask & (Mask::MAX / 17); // not too many
            let mut base = content.clone();
            for (_, piece) in base.chunks_mut(PIECE).enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
                piece.fill(with);
            }
            let mut record = Vec::new();
            prop_assert!(is_delta(mask, 1));
            write_delta(ID, &pieces_of(&content, mask), (BASE, 1), mask, &mut record).unwrap();
            prop_assert_eq!(Record::read(&record).unwrap().form, Form::Delta { base: BASE, depth: 1 });
            prop_assert_eq!(unfolded(&record, &base).unwrap(), content);
        }

        #[test]
        fn damage_is_an_error_and_never_more_than_a_block(
            content in content(), at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>(),
        ) {
            let mut record = Vec::new();
            write(ID, &content, &mut record).unwrap();
            let at = at.index(record.len());
            record[at] ^= 1_u8 << bit;
            record.truncate(record.len() - cut.index(record.len()) / 7);
            let base = vec![0; BLOCK];
            prop_assert!(unfolded(&record, &base).map_or(0, |block| block.len()) <= BLOCK);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < BLOCK / 8);
        let record = [&[PACKED][..], &ID.0, &bomb].concat();
        assert_eq!(unfolded(&record, &[]), Err(Damage::TooLarge));
        let raw = [&[RAW][..], &ID.0, &vec![0; BLOCK + 1]].concat();
        assert_eq!(unfolded(&raw, &[]), Err(Damage::TooLarge));
    }

    #[test]
    fn a_delta_of_nearly_everything_or_too_deep_is_not_made() {
        assert!(!is_delta(Mask::MAX, 1) && !is_delta(1, DEEPEST + 1) && is_delta(1, DEEPEST));
    }
}
