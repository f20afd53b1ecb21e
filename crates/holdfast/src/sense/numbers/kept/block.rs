//! A block: some rows of one series, as bytes.
//!
//! Times are differences of differences. Values that are all whole are kept as they are, as differences; others are
//! rounded to 16 binary digits (one part in 130,000) and their bits kept as differences. All is compressed, and what is
//! read back is checked at each step (I18).

use super::Step;
use crate::disk::bytes::{BreaksOff, Bytes, number, signed};

/// Bytes of a block before it is compressed.
const LARGEST: usize = 64 * 1024;
/// Rows of a block.
pub const MOST_ROWS: usize = 1_024;
/// How hard zstd tries.
const LEVEL: i32 = 3;
/// Digits of a rounded value that are left out, of 23.
const LEFT_OUT: u32 = 7;
/// Whole numbers beyond this are rounded.
const LARGEST_WHOLE: f64 = 9e15;

/// What was measured at one time, or in one stretch from then on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// When, in seconds of the clock that only goes forward.
    pub at: u64,
    /// The least value.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The greatest.
    pub max: f64,
    /// It tells what is usual: it was no part of an incident.
    pub teaches: bool,
}

impl Row {
    /// One value.
    pub fn of(at: u64, value: f64, teaches: bool) -> Self {
        Self { at, min: value, mean: value, max: value, teaches }
    }
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It cannot be decompressed.
    #[error("it cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// Its bytes are not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Something in it cannot be.
    #[error(transparent)]
    Content(#[from] BreaksOff),
}

/// Rows as bytes, compressed.
pub fn pack(rows: &[Row], step: Step) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(rows.len() * 4);
    number(&mut bytes, rows.len() as u64);
    let (mut before, mut usual) = (0_u64, 0_i64);
    for row in rows {
        let apart = row.at.wrapping_sub(before).cast_signed();
        signed(&mut bytes, apart.wrapping_sub(usual));
        (before, usual) = (row.at, if before == 0 { step.seconds().cast_signed() } else { apart });
    }
    for eight in rows.chunks(8) {
        bytes.push(eight.iter().enumerate().fold(0, |bits, (at, row)| bits | u8::from(row.teaches) << at));
    }
    column(&mut bytes, rows.iter().map(|row| row.mean));
    if step == Step::Coarse {
        column(&mut bytes, rows.iter().map(|row| row.min));
        column(&mut bytes, rows.iter().map(|row| row.max));
    }
    zstd::bulk::compress(&bytes, LEVEL)
}

fn column(bytes: &mut Vec<u8>, values: impl Iterator<Item = f64> + Clone) {
    let are_whole = values.clone().all(|value| value.fract() == 0.0 && value.abs() < LARGEST_WHOLE);
    bytes.push(u8::from(are_whole));
    let mut before = 0_i64;
    for value in values {
        let now = if are_whole { value as i64 } else { i64::from(rounded(value)) };
        signed(bytes, now - before);
        before = now;
    }
}

/// The bits of a value, rounded, as a number that rises and falls with it.
fn rounded(value: f64) -> i32 {
    let bits = (value.abs().min(1e38) as f32).to_bits();
    let bits = (bits + (1 << (LEFT_OUT - 1))) >> LEFT_OUT;
    let size = i32::try_from(bits).unwrap_or(i32::MAX);
    if value < 0.0 { -size } else { size }
}

/// The value that such bits stand for.
fn value_of(size: i64) -> Result<f64, BreaksOff> {
    let bits = u32::try_from(size.unsigned_abs()).map_err(|_| BreaksOff)?;
    let value = f64::from(f32::from_bits(bits.checked_shl(LEFT_OUT).unwrap_or(0) & 0x7fff_ffff));
    if !value.is_finite() {
        return Err(BreaksOff);
    }
    Ok(if size < 0 { -value } else { value })
}

/// The rows of a block.
///
/// # Errors
/// If its bytes cannot be one.
pub fn unpack(content: &[u8], step: Step) -> Result<Vec<Row>, BlockError> {
    let bytes = zstd::bulk::decompress(content, LARGEST).map_err(BlockError::Compression)?;
    let mut bytes = Bytes(&bytes);
    let count = usize::try_from(bytes.number()?).ok().filter(|count| *count <= MOST_ROWS).ok_or(BreaksOff)?;
    let mut rows = Vec::with_capacity(count);
    let (mut before, mut usual) = (0_u64, 0_i64);
    for _ in 0..count {
        let apart = bytes.signed()?.wrapping_add(usual);
        let at = before.wrapping_add(apart.cast_unsigned());
        usual = if before == 0 { step.seconds().cast_signed() } else { apart };
        before = at;
        rows.push(Row::of(at, 0.0, true));
    }
    for eight in rows.chunks_mut(8) {
        let bits = bytes.byte()?;
        eight.iter_mut().enumerate().for_each(|(at, row)| row.teaches = bits >> at & 1 != 0);
    }
    read_column(&mut bytes, &mut rows, |row, value| {
        *row = Row { teaches: row.teaches, ..Row::of(row.at, value, true) }
    })?;
    if step == Step::Coarse {
        read_column(&mut bytes, &mut rows, |row, value| row.min = value)?;
        read_column(&mut bytes, &mut rows, |row, value| row.max = value)?;
    }
    Ok(rows)
}

fn read_column(
    bytes: &mut Bytes<'_>,
    rows: &mut [Row],
    set: impl Fn(&mut Row, f64),
) -> Result<(), BreaksOff> {
    let are_whole = bytes.byte()? == 1;
    let mut before = 0_i64;
    for row in rows {
        before = before.wrapping_add(bytes.signed()?);
        set(row, if are_whole { before as f64 } else { value_of(before)? });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (
            0..4_000_000_000_u64,
            prop_oneof![-1e12..1e12_f64, 0.0..1.0_f64, (0..9_u64).prop_map(|n| n as f64)],
            any::<bool>(),
        );
        proptest::collection::vec(row.prop_map(|(at, value, teaches)| Row::of(at, value, teaches)), 0..40)
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_again_with_five_digits(rows in rows()) {
            for step in [Step::Fine, Step::Coarse] {
                let found = unpack(&pack(&rows, step).unwrap(), step).unwrap();
                prop_assert_eq!(found.len(), rows.len());
                for (found, row) in found.iter().zip(&rows) {
                    prop_assert_eq!((found.at, found.teaches), (row.at, row.teaches));
                    for (found, value) in [(found.min, row.min), (found.mean, row.mean), (found.max, row.max)] {
                        prop_assert!((found - value).abs() <= value.abs() * 1e-5 + 1e-37, "{} {}", found, value);
                    }
                }
            }
        }

        /// Whatever a disk makes of it (I18): refused or read, never more memory or time than a block takes.
        #[test]
        fn damaged_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let packed = zstd::bulk::compress(&bytes, LEVEL).unwrap();
            let _ = unpack(&packed, Step::Coarse);
            let _ = unpack(&bytes, Step::Fine);
        }
    }

    #[test]
    fn whole_numbers_are_kept_as_they_are_and_a_bomb_is_refused() {
        let values = [50_000_000_001.0, 0.0, -3.0, 8_999_999_999_999_999.0];
        let rows: Vec<Row> = values.iter().map(|value| Row::of(7, *value, true)).collect();
        assert_eq!(unpack(&pack(&rows, Step::Fine).unwrap(), Step::Fine).unwrap(), rows);
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(matches!(unpack(&bomb, Step::Fine), Err(BlockError::Compression(_))));
    }
}
