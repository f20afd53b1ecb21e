//! Which parts of a disk: read from a file of lines, or from what a server says of it.

use super::failed;
use crate::cli::CliError;
use holdfast_backup::block::PIECE;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::path::Path;

/// The longest line of a file of changes.
const LINE_MOST: u64 = 256;
/// The most ranges that are kept, of 16 bytes each: where there are more, near ones become one.
const RANGES_MOST: usize = 1 << 20;

/// The ranges of a file of lines `OFFSET LENGTH`, in order and apart.
pub fn read(file: &Path, size: u64) -> Result<Vec<Range<u64>>, CliError> {
    let what = || format!("read the ranges `{}`", file.display());
    let mut reader = BufReader::new(File::open(file).map_err(failed(what()))?);
    let (mut found, mut line, mut number) = (Vec::<Range<u64>>::new(), String::new(), 0_u64);
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, LINE_MOST);
        if bounded.read_line(&mut line).map_err(failed(what()))? == 0 {
            break;
        }
        number += 1;
        match range(&line, size) {
            Ok(range) => found.extend(range.filter(|range| !range.is_empty())),
            Err(cause) => {
                return Err(CliError::Said {
                    error: format!("line {number} of `{}` is no range", file.display()),
                    cause,
                    hint: "write `OFFSET LENGTH`, in bytes, one a line".into(),
                });
            }
        }
    }
    found.sort_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(found.len());
    found.into_iter().for_each(|range| join(&mut apart, range, 0));
    if apart.is_empty() {
        super::say_aside(&format!(
            "note: `{}` names no range, so nothing is said to have changed, and that is believed: leave `--changed` out if you are not sure",
            file.display()
        ));
    }
    Ok(apart)
}

/// Adds a range that begins no earlier than the last one; if it is so near, that one becomes longer.
fn join(ranges: &mut Vec<Range<u64>>, range: Range<u64>, near: u64) {
    match ranges.last_mut().filter(|last| range.start <= last.end.saturating_add(near)) {
        Some(last) => last.end = last.end.max(range.end),
        None => ranges.push(range),
    }
}

fn range(line: &str, size: u64) -> Result<Option<Range<u64>>, String> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let mut words = line.split_ascii_whitespace();
    let (Some(offset), Some(length), None) = (number(words.next()), number(words.next()), words.next())
    else {
        return Err("these are not two numbers".into());
    };
    match offset.checked_add(length).filter(|end| *end <= size) {
        Some(end) => Ok(Some(offset..end)),
        None => Err(format!("it ends behind the image, which has {size} bytes")),
    }
}

/// Parts of a disk that come in order; few are kept exactly, and of many more at least these.
#[derive(Debug, Default)]
pub struct AtLeast {
    ranges: Vec<Range<u64>>,
    near: u64,
}

impl AtLeast {
    /// Adds one that begins no earlier than the last one; whole pieces are kept.
    pub fn add(&mut self, range: Range<u64>, size: u64) {
        let block = PIECE as u64;
        let whole = range.start / block * block..range.end.next_multiple_of(block).min(size);
        join(&mut self.ranges, whole, self.near);
        while self.ranges.len() > RANGES_MOST {
            self.near = (2 * self.near).max(block);
            let all = std::mem::take(&mut self.ranges);
            all.into_iter().for_each(|range| join(&mut self.ranges, range, self.near));
        }
    }

    /// All of them, in order and apart.
    pub fn all(self) -> Vec<Range<u64>> {
        self.ranges
    }
}

/// Parts of a disk that come in order; few are kept, and of many more at most these, the longest.
#[derive(Debug, Default)]
pub struct AtMost {
    ranges: Vec<Range<u64>>,
    /// The end of what came last, and its begin: it may go on.
    open: Range<u64>,
    least: u64,
}

impl AtMost {
    /// Adds one that begins no earlier than the end of the last one.
    pub fn add(&mut self, range: Range<u64>, size: u64) {
        if range.start == self.open.end {
            self.open.end = range.end;
        } else {
            self.keep(size);
            self.open = range;
        }
    }

    /// Keeps the whole pieces of what came last.
    fn keep(&mut self, size: u64) {
        let block = PIECE as u64;
        let start = self.open.start.next_multiple_of(block);
        let end = if self.open.end == size { size } else { self.open.end / block * block };
        if start < end && end - start >= self.least {
            self.ranges.push(start..end);
        }
        while self.ranges.len() > RANGES_MOST {
            self.least = (2 * self.least).max(2 * block);
            self.ranges.retain(|range| range.end - range.start >= self.least);
        }
    }

    /// All of them, in order and apart.
    pub fn all(mut self, size: u64) -> Vec<Range<u64>> {
        self.keep(size);
        self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn a_line_is_a_range_within_the_image_or_is_refused() {
        assert_eq!(range("4096 8192\n", 1 << 20), Ok(Some(4_096..12_288)));
        assert_eq!(range("  # nothing\n", 10), Ok(None));
        assert_eq!(range("0 10 # all of it", 10), Ok(Some(0..10)));
        for line in ["1", "1 2 3", "a b", "-1 2", "5 6", "18446744073709551615 1"] {
            assert!(range(line, 10).is_err(), "{line}");
        }
    }

    #[test]
    fn what_changed_is_never_less_than_was_said_and_holes_are_never_more() {
        let size = 1_001 * KIB;
        let (mut changed, mut holes) = (AtLeast::default(), AtMost::default());
        for part in [0..KIB, 6 * KIB..9 * KIB, 30 * KIB..31 * KIB, 1_000 * KIB..size] {
            changed.add(part, size);
        }
        assert_eq!(changed.all(), [0..12 * KIB, 28 * KIB..32 * KIB, 1_000 * KIB..size]);
        for part in [KIB..13 * KIB, 13 * KIB..20 * KIB, 30 * KIB..34 * KIB, 998 * KIB..size] {
            holes.add(part, size);
        }
        assert_eq!(holes.all(size), [4 * KIB..20 * KIB, 1_000 * KIB..size]);
    }

    #[test]
    fn of_too_many_parts_the_changed_grow_and_the_holes_vanish() {
        let (block, count) = (PIECE as u64, 3 * RANGES_MOST as u64);
        let size = 2 * block * count;
        let (mut changed, mut holes) = (AtLeast::default(), AtMost::default());
        for at in 0..count {
            changed.add(2 * at * block..2 * at * block + 1, size);
            holes.add(2 * at * block..(2 * at + 1) * block, size);
        }
        let changed = changed.all();
        assert!(changed.len() <= RANGES_MOST);
        assert!((0..count).all(|at| {
            let next = changed.partition_point(|range| range.end <= 2 * at * block);
            changed[next].start <= 2 * at * block
        }));
        assert!(holes.all(size).len() <= RANGES_MOST);
    }
}
