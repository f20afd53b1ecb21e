//! `--limit`: so many bytes a second, and no more, of a disk that is read or written.

use crate::config::units;
use holdfast_backup::read_back::Again;
use holdfast_backup::restore::{Onto, Target};
use holdfast_backup::save::Source;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes a second, for all threads together.
pub struct Pace {
    rate: u64,
    next: Mutex<Instant>,
}

/// Reads `50MiB/s` or `50MiB`.
pub fn rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    match units::size(size) {
        Ok(0) => Err("nothing would ever be done".into()),
        Ok(rate) => Ok(rate),
        Err(why) => Err(format!("{why}, as in `50MiB/s`")),
    }
}

impl Pace {
    pub fn new(rate: u64) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    /// How long whoever moves so many bytes now waits before it.
    fn wait(&self, now: Instant, bytes: usize) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*next).max(now); // what was not used in time is not saved up
        *next = begin + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
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
        let pace = Pace::new(1_000);
        let begun = Instant::now() + Duration::from_secs(1);
        let after = |seconds| begun + Duration::from_secs(seconds);
        let waits = [(0, 500), (0, 500), (0, 1_000), (1, 1_000), (9, 4_000), (9, 1)];
        let waits = waits.map(|(seconds, bytes)| pace.wait(after(seconds), bytes).as_millis());
        assert_eq!(waits, [0, 500, 1_000, 1_000, 0, 4_000]);
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
