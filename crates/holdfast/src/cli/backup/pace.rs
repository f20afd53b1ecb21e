//! `--limit` and `--iops`: so many bytes and so many operations a second, and no more, of a disk that is read or written.

use crate::config::{Limits, units};
use clap::Args;
use holdfast_backup::read_back::Again;
use holdfast_backup::restore::{Onto, Target};
use holdfast_backup::save::Source;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How fast a disk is read or written.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LimitArgs {
    /// Read or write no more of a disk than this in a second, such as `50MiB/s`.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<u64>,
    /// Read or write no more often than this in a second: up to 256 KiB are read at once, and up to 1 MiB written.
    #[arg(long, value_name = "COUNT", value_parser = iops)]
    iops: Option<u32>,
}

impl LimitArgs {
    /// What is asked for.
    pub fn wanted(self) -> Limits {
        Limits { limit: self.limit, iops: self.iops }
    }

    /// What keeps to it.
    pub fn pace(self) -> Option<Pace> {
        let is_bounded = self.limit.is_some() || self.iops.is_some();
        is_bounded.then(|| Pace::new(self.wanted()))
    }
}

/// Bytes and operations a second, for all threads together.
pub struct Pace {
    limits: Limits,
    next: Mutex<Instant>,
}

/// Reads `50MiB/s` or `50MiB`.
pub fn rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    let rate = units::size(size).map_err(|why| format!("{why}, as in `50MiB/s`"))?;
    Limits { limit: Some(rate), iops: None }.check().map(|()| rate)
}

fn iops(text: &str) -> Result<u32, String> {
    let iops = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    Limits { limit: None, iops: Some(iops) }.check().map(|()| iops)
}

impl Pace {
    fn new(limits: Limits) -> Self {
        Self { limits, next: Mutex::new(Instant::now()) }
    }

    /// How long so many bytes take, moved at once.
    fn takes(&self, bytes: usize) -> Duration {
        let by_bytes = self.limits.limit.map_or(0.0, |limit| bytes as f64 / limit as f64);
        let by_count = self.limits.iops.map_or(0.0, |iops| 1.0 / f64::from(iops));
        Duration::from_secs_f64(by_bytes.max(by_count))
    }

    /// How long whoever moves so many bytes now waits before it.
    fn wait(&self, now: Instant, bytes: usize) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*next).max(now); // what was not used in time is not saved up
        *next = begin + self.takes(bytes);
        begin - now
    }

    fn hold(pace: Option<&Self>, bytes: usize) {
        if let Some(pace) = pace {
            std::thread::sleep(pace.wait(Instant::now(), bytes));
        }
    }
}

/// Something that is read or written no faster than that.
pub struct Paced<'a, T: ?Sized>(pub &'a T, pub Option<&'a Pace>);

impl<T: Source + ?Sized> Source for Paced<'_, T> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        Pace::hold(self.1, bytes.len());
        self.0.read_at(offset, bytes)
    }

    fn is_hole(&self, span: &Range<u64>) -> bool {
        self.0.is_hole(span)
    }
}

impl<T: Target + ?Sized> Target for Paced<'_, T> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Pace::hold(self.1, bytes.len());
        self.0.write_at(offset, bytes)
    }

    fn expect(&self, span: &Range<u64>) {
        self.0.expect(span);
    }
}

impl<T: Onto + ?Sized> Onto for Paced<'_, T> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        Pace::hold(self.1, bytes.len());
        self.0.read_at(offset, bytes)
    }
}

impl<T: Again + ?Sized> Again for Paced<'_, T> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        Pace::hold(self.1, bytes.len());
        self.0.read_at(offset, bytes)
    }

    fn next_data(&self, from: u64) -> u64 {
        self.0.next_data(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_a_second_by_however_many_and_nothing_is_saved_up() {
        let pace = Pace::new(Limits { limit: Some(1_000), iops: None });
        let begun = Instant::now() + Duration::from_secs(1);
        let after = |seconds| begun + Duration::from_secs(seconds);
        let waits = [(0, 500), (0, 500), (0, 1_000), (1, 1_000), (9, 4_000), (9, 1)];
        let waits = waits.map(|(seconds, bytes)| pace.wait(after(seconds), bytes).as_millis());
        assert_eq!(waits, [0, 500, 1_000, 1_000, 0, 4_000]);
    }

    #[test]
    fn so_many_operations_a_second_however_small_and_whichever_bound_is_lower_counts() {
        let takes = |limit, iops, bytes| Pace::new(Limits { limit, iops }).takes(bytes).as_millis();
        assert_eq!(takes(None, Some(10), 1), 100);
        assert_eq!(takes(None, Some(10), 65_536), 100);
        assert_eq!(takes(Some(1_000), Some(10), 50), 100);
        assert_eq!(takes(Some(1_000), Some(10), 500), 500);
        assert!(LimitArgs::default().pace().is_none());
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        assert_eq!(rate("50MiB/s"), Ok(50 << 20));
        assert_eq!(rate("2 MB"), Ok(2_000_000));
        for text in ["", "0MiB/s", "50", "50M/s", "-1MiB", "50MiB/m", "fast"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
