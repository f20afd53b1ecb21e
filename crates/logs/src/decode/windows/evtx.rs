//! EVTX files: a header, then chunks of 64 KiB, each with its own records, names and templates. A chunk is read by
//! itself, so a file of any length needs no more memory than one. Offsets and lengths are believed only where they lie within
//! the chunk. Checksums are not looked at: a log that was not closed has none that fit, and its records are wanted most.

use super::Events;
use super::binxml::{Budget, Template, fragment};
use super::event::{Event, Fault};
use crate::record::Record;

/// Bytes before the first chunk.
pub const EVTX_HEADER: usize = 4_096;

/// Bytes of a chunk.
pub const EVTX_CHUNK: usize = 1 << 16;

/// Where the records of a chunk begin.
const FIRST: usize = 512;

/// Bytes of a record before its content, and behind it.
const HEAD: usize = 24;
const TAIL: usize = 4;

/// Microseconds from 1601, where Windows begins to count, to 1970.
const EPOCH: i64 = 11_644_473_600_000_000;

/// Why a file is no EVTX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvtxError {
    /// It does not begin as one.
    #[error("the file does not begin with `ElfFile`, as EVTX files do")]
    Magic,
    /// It ends within its header.
    #[error("the file was cut: it ends after {0} bytes, within its header of {EVTX_HEADER}")]
    Cut(usize),
    /// It is of another version.
    #[error("the file is of EVTX version {0}, and only version 3 is known")]
    Version(u16),
}

/// How many chunks a file that begins so ([`EVTX_HEADER`] bytes) says that it has. Behind the header lie chunks of [`EVTX_CHUNK`]
/// bytes up to the end of the file: more than it says where it was not closed, fewer where it was cut.
///
/// # Errors
/// If it is no EVTX file, ends within its header, or is of a version that is not known.
pub fn evtx_header(first: &[u8]) -> Result<u16, EvtxError> {
    if !first.starts_with(b"ElfFile\0") {
        return Err(EvtxError::Magic);
    }
    match (number(first, 38, 2), number(first, 42, 2)) {
        (Some(3), Some(chunks)) if first.len() >= EVTX_HEADER => Ok(chunks as u16),
        (Some(3) | None, _) => Err(EvtxError::Cut(first.len())),
        (Some(other), _) => Err(EvtxError::Version(other as u16)),
    }
}

/// The records of one chunk. One of zero bytes only is empty, as files have at their end; what is no chunk counts as
/// one event that could not be read, and so does what follows where the records break off.
#[must_use]
pub fn evtx_chunk(chunk: &[u8]) -> Events {
    let mut found = Events::default();
    let chunk = &chunk[..chunk.len().min(EVTX_CHUNK)];
    if chunk.iter().all(|byte| *byte == 0) {
        return found;
    }
    if !chunk.starts_with(b"ElfChnk\0") {
        found.skipped = 1;
        return found;
    }
    let last = number(chunk, 44, 4).unwrap_or(0) as usize;
    let mut budget = Budget::default();
    let mut at = FIRST;
    loop {
        let Some((record, length)) = bounds(chunk, at) else {
            // they end behind the last record; before it they were broken off
            found.skipped += u64::from(at <= last && last < EVTX_CHUNK);
            return found;
        };
        match event(chunk, at, record, &mut budget) {
            Ok(record) => found.records.push(record),
            Err(Fault::Broken | Fault::Deep) => found.skipped += 1,
            Err(Fault::Endless) => {
                found.skipped += 1;
                return found;
            }
        }
        at += length;
    }
}

/// The end of the content of the record that lies here, and the length of the record.
fn bounds(chunk: &[u8], at: usize) -> Option<(usize, usize)> {
    chunk.get(at..)?.starts_with(b"\x2a\x2a\0\0").then_some(())?;
    let length = number(chunk, at + 4, 4)? as usize;
    let end = at.checked_add(length)?.checked_sub(TAIL)?;
    (length >= HEAD + TAIL && number(chunk, end, 4)? as usize == length).then_some((end, length))
}

fn event(chunk: &[u8], at: usize, end: usize, budget: &mut Budget) -> Result<Record, Fault> {
    let mut event = Event::default();
    let whole = &chunk[..chunk.len()];
    fragment(whole, at + HEAD..end, &Template::none(), budget, &mut event)?;
    let ticks = number(chunk, at + 16, 8).ok_or(Fault::Broken)?;
    if let Some(micros) = micros(ticks) {
        event.written(micros);
    }
    event.finish()
}

/// Microseconds since 1970 of the ticks of Windows, if they are after 1970 and before the year 10,000.
pub(super) fn micros(ticks: u64) -> Option<i64> {
    let micros = i64::try_from(ticks / 10).ok()? - EPOCH;
    (0..253_402_300_800_000_000).contains(&micros).then_some(micros)
}

/// A number of up to eight bytes, the lowest first.
pub(super) fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(length)?)?;
    Some(found.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{LONGEST_TEXT, Severity};
    use holdfast_fuzz::evtx::{Chunk, good as chunk};
    use proptest::prelude::*;

    #[test]
    fn events_of_a_template_are_read_with_their_values() {
        let Events { records, skipped } = evtx_chunk(&chunk());
        assert_eq!((records.len(), skipped), (2, 0));
        let record = &records[0];
        assert_eq!((record.time, record.zone), (Some(1_795_468_788_000_000), Some(0)));
        assert_eq!((record.severity, record.program.as_str()), (Some(Severity::Error), "disk"));
        assert_eq!(record.text, r"The device, \Device\Harddisk0\DR0, has a bad block.");
        assert_eq!(record.field("event"), Some("7"));
        assert_eq!(records[1].text, "The device, D1, has a bad block.");
    }

    #[test]
    fn a_header_says_what_it_is_and_nothing_more_is_believed() {
        let mut header = b"ElfFile\0".to_vec();
        header.resize(EVTX_HEADER, 0xff);
        header[38..40].copy_from_slice(&[3, 0]);
        header[42..44].copy_from_slice(&[17, 0]);
        assert_eq!(evtx_header(&header), Ok(17));
        for length in [8, 38, 41, 100, EVTX_HEADER - 1] {
            assert_eq!(evtx_header(&header[..length]), Err(EvtxError::Cut(length)));
        }
        header[38] = 9;
        assert_eq!(evtx_header(&header), Err(EvtxError::Version(9)));
        assert_eq!(evtx_header(b"MZ"), Err(EvtxError::Magic));
        assert_eq!(evtx_chunk(&[0; EVTX_CHUNK]), Events::default());
        assert_eq!(evtx_chunk(&[1; EVTX_CHUNK]).skipped, 1);
        assert_eq!(evtx_chunk(b"").skipped + evtx_chunk(b"ElfChnk\0").records.len() as u64, 0);
    }

    #[test]
    fn offsets_outside_the_chunk_are_refused_a27() {
        let good = chunk();
        let template = FIRST + HEAD + 4 + 6; // where the place of the template stands in the first record
        for place in [0_u32, 1, 511, 65_535, 65_536, 1 << 31, u32::MAX] {
            let mut bytes = good.clone();
            bytes[template..template + 4].copy_from_slice(&place.to_le_bytes());
            let found = evtx_chunk(&bytes);
            assert!((found.records.len() as u64 + found.skipped) <= 3 && found.skipped >= 1, "{place}");
        }
        for (at, length) in [(4, 3_u32), (4, 27), (4, u32::MAX), (4, 65_000)] {
            let mut bytes = good.clone();
            bytes[FIRST + at..FIRST + at + 4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(evtx_chunk(&bytes), Events { records: Vec::new(), skipped: 1 });
        }
    }

    #[test]
    fn templates_that_name_themselves_end_a28() {
        let mut chunk = Chunk::new();
        let mut place = 0;
        chunk.record(|chunk| {
            chunk.push(&[0x0f, 1, 1, 0, 0x0c, 1, 0, 0, 0, 0]);
            place = chunk.bytes.len() + 4;
            chunk.size(place);
            chunk.push(&[0; 20]);
            chunk.size(3_000);
            let start = chunk.bytes.len();
            while chunk.bytes.len() < start + 3_000 - 14 {
                chunk.push(&[0x0c, 1, 0, 0, 0, 0]);
                chunk.size(place);
                chunk.size(0); // no values
            }
            chunk.bytes.resize(start + 3_000, 0);
            chunk.size(0);
        });
        for _ in 0..500 {
            chunk.record(|chunk| {
                chunk.push(&[0x0c, 1, 0, 0, 0, 0]);
                chunk.size(place);
                chunk.size(0);
            });
        }
        let found = evtx_chunk(&chunk.whole());
        assert!(found.records.is_empty() && found.skipped >= 500, "{}", found.skipped);
    }

    #[test]
    fn values_that_hold_each_other_a_thousand_times_end_too() {
        let mut chunk = Chunk::new();
        chunk.record(|chunk| {
            chunk.push(&[0x0f, 1, 1, 0, 0x0c, 1, 0, 0, 0, 0]);
            let place = chunk.bytes.len() + 4;
            chunk.size(place);
            chunk.push(&[0; 20]);
            chunk.size(40_000);
            chunk.push(&[0x0d, 0, 0, 0x01].repeat(10_000));
            chunk.size(1);
            chunk.push(&[0x20, 0x4e, 0x01, 0]);
            chunk.push(&[b'x'; 20_000]);
        });
        let found = evtx_chunk(&chunk.whole());
        assert_eq!((found.records.len(), found.skipped), (0, 1));
    }

    #[test]
    fn lengths_of_texts_past_the_chunk_are_refused_a29() {
        let good = chunk();
        let name = good.windows(2).position(|pair| pair == [b'E', 0]).unwrap() - 2; // letters of `Event`
        for letters in [0xffff_u16, 0x7fff] {
            let mut bytes = good.clone();
            bytes[name..name + 2].copy_from_slice(&letters.to_le_bytes());
            assert_eq!(evtx_chunk(&bytes), Events { records: Vec::new(), skipped: 2 });
        }
        for cut in [513, 700, 1_000, 40_000] {
            let found = evtx_chunk(&good[..cut]);
            assert!(found.records.len() as u64 + found.skipped <= 2, "{cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_damaged_chunk_gives_what_can_be_read(damage in proptest::collection::vec((500usize..1_400, any::<u8>()), 1..6)) {
            let mut bytes = chunk();
            for (at, with) in damage {
                bytes[at] = with;
            }
            let found = evtx_chunk(&bytes);
            prop_assert!(found.records.len() <= 2);
            prop_assert!(found.records.iter().all(|record| record.text.len() <= LONGEST_TEXT));
        }

        #[test]
        fn any_bytes_are_no_chunk(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut chunk = b"ElfChnk\0".to_vec();
            chunk.resize(FIRST, 0xff);
            chunk.extend(b"\x2a\x2a\0\0");
            chunk.extend(&bytes);
            let _ = (evtx_chunk(&bytes), evtx_chunk(&chunk));
        }
    }
}
