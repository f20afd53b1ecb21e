//! The bytes of a journal file: how they are written and how they are recognised. No file is touched here.
//!
//! `docs/journal.md` is the same, byte by byte, for people. Nothing that is read here is believed before
//! its checksum was right, and no length is used before it was found small enough.

use holdfast_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The preamble: magic, version, checksum of both. No version of Holdfast will ever change its shape.
pub const PREAMBLE: usize = 16;
/// What comes before the payload of a frame: length, checksum, kind.
pub const HEAD: usize = 9;
/// The most bytes of a header's payload.
pub const HEADER_MOST: usize = 4 << 10;
/// The most bytes of a record's payload.
pub const RECORD_MOST: usize = 1 << 20;
/// The most bytes of a checkpoint's payload.
pub const CHECKPOINT_MOST: usize = 64 << 20;
/// The fixed part of a record's payload: number, time, bytes known to be on the disk.
pub const RECORD_FIXED: usize = 24;
/// The fixed part of a checkpoint's payload: number, time.
pub const CHECKPOINT_FIXED: usize = 16;

const MAGIC: [u8; 8] = *b"HFJRNL\r\n";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who wrote the segment, when.
    Header,
    /// The state before the first record.
    Checkpoint,
    /// One record.
    Record,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Checkpoint => 2,
            Self::Record => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Header),
            2 => Some(Self::Checkpoint),
            3 => Some(Self::Record),
            _ => None,
        }
    }

    const fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Header => 2..=HEADER_MOST,
            Self::Checkpoint => CHECKPOINT_FIXED..=CHECKPOINT_MOST,
            Self::Record => RECORD_FIXED..=RECORD_MOST,
        }
    }
}

/// The first frame of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The number of the segment, as in its name.
    pub segment: u64,
    /// The number of the last record before it.
    pub after: u64,
    /// The host that wrote it.
    pub host: String,
    /// The boot of that host.
    pub boot: String,
    /// Wall clock minus [`Timestamp`], in microseconds, when it was made: for display only (I20).
    pub wall_offset: i64,
    /// When it was made.
    pub created: Timestamp,
}

/// The start of a file.
#[must_use]
pub fn preamble() -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The version that a file names, if its first bytes are a preamble.
#[must_use]
pub fn version(bytes: &[u8]) -> Option<u32> {
    let bytes = bytes.get(..PREAMBLE)?;
    let right = bytes[..8] == MAGIC && crc32fast::hash(&bytes[..12]) == u32_at(bytes, 12)?;
    if right { u32_at(bytes, 8) } else { None }
}

/// The payload is too long for a frame of its kind.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Appends a frame to `out`. `salt` is the checksum of the segment's header, 0 for the header itself: so
/// a frame of another segment, left over in a reused block, is never taken for one of this. Gives its
/// checksum.
///
/// # Errors
/// [`TooLong`]; then `out` is as it was.
pub fn encode(salt: u32, kind: Kind, payload: &[&[u8]], out: &mut Vec<u8>) -> Result<u32, TooLong> {
    let length = payload.iter().map(|part| part.len()).sum::<usize>();
    if !kind.lengths().contains(&length) {
        return Err(TooLong);
    }
    let length = u32::try_from(length).map_err(|_| TooLong)?;
    let mut crc = checksum(salt, kind, length);
    payload.iter().for_each(|part| crc.update(part));
    out.extend_from_slice(&length.to_le_bytes());
    let crc = crc.finalize();
    out.extend_from_slice(&crc.to_le_bytes());
    out.push(kind.byte());
    payload.iter().for_each(|part| out.extend_from_slice(part));
    Ok(crc)
}

/// What some bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// They start with a good frame.
    Frame {
        /// What it holds.
        kind: Kind,
        /// Its checksum: the salt, if it is a header.
        crc: u32,
        /// What it says.
        payload: &'a [u8],
    },
    /// They may be the start of a frame of this many bytes.
    Short(usize),
    /// They are no frame.
    Bad,
}

/// Looks at bytes that should start with a frame.
#[must_use]
pub fn decode(salt: u32, bytes: &[u8]) -> Decoded<'_> {
    let (Some(length), Some(crc), Some(kind)) = (u32_at(bytes, 0), u32_at(bytes, 4), bytes.get(8)) else {
        return Decoded::Short(HEAD);
    };
    let (Some(kind), Ok(size)) = (Kind::from_byte(*kind), usize::try_from(length)) else {
        return Decoded::Bad;
    };
    if !kind.lengths().contains(&size) {
        return Decoded::Bad;
    }
    let Some(payload) = bytes.get(HEAD..HEAD + size) else {
        return Decoded::Short(HEAD + size);
    };
    let mut sum = checksum(salt, kind, length);
    sum.update(payload);
    if sum.finalize() == crc { Decoded::Frame { kind, crc, payload } } else { Decoded::Bad }
}

/// A little-endian number in a payload.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn checksum(salt: u32, kind: Kind, length: u32) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&[kind.byte()]);
    crc.update(&length.to_le_bytes());
    crc
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(7, Kind::Record, &[payload], &mut out).unwrap();
        out
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let bytes = record(&[5; 30]);
        assert_eq!(bytes.len(), HEAD + 30);
        let Decoded::Frame { kind, payload, .. } = decode(7, &bytes) else { panic!("a frame") };
        assert_eq!((kind, payload), (Kind::Record, &[5; 30][..]));
        assert_eq!(decode(7, &bytes[..5]), Decoded::Short(HEAD));
        assert_eq!(decode(7, &bytes[..20]), Decoded::Short(HEAD + 30));
    }

    #[test]
    fn a_frame_of_another_segment_is_no_frame() {
        assert_eq!(decode(8, &record(&[5; 30])), Decoded::Bad);
    }

    #[test]
    fn each_flipped_bit_is_seen() {
        let bytes = record(&[5; 100]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(7, &flipped), Decoded::Frame { .. }), "bit {bit}");
        }
        let good = preamble();
        assert_eq!(version(&good), Some(VERSION));
        for bit in 0..PREAMBLE * 8 {
            let mut flipped = good;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(version(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused_and_a_claimed_length_too() {
        let mut out = vec![1];
        assert_eq!(encode(0, Kind::Header, &[&vec![0; HEADER_MOST + 1]], &mut out), Err(TooLong));
        assert_eq!(encode(0, Kind::Record, &[&vec![0; RECORD_MOST], b"x"], &mut out), Err(TooLong));
        assert_eq!(out, [1]);
        let claim = [&u32::MAX.to_le_bytes()[..], &[0; 4], &[3], &[0; 40]].concat();
        assert_eq!(decode(0, &claim), Decoded::Bad);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_frame_and_never_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), salt: u32,
        ) {
            let is_frame = matches!(decode(salt, &bytes), Decoded::Frame { .. });
            prop_assert!(!is_frame);
            prop_assert_eq!(version(&bytes), None);
        }
    }
}
