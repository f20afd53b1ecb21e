//! Time as the engine knows it: microseconds that only ever rise.
//!
//! A [`Timestamp`] is read by the program from `CLOCK_BOOTTIME` plus a base that never lets it go
//! back, also across a reboot of the host (I20). Nothing in this crate reads a clock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

pub use std::time::Duration;

/// A moment: microseconds since the first start of this installation, never going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The first moment there is.
    pub const ZERO: Self = Self(0);
    /// Later than any moment that will come.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment so many microseconds after [`Timestamp::ZERO`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The moment so many milliseconds after [`Timestamp::ZERO`].
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The moment so many seconds after [`Timestamp::ZERO`].
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since [`Timestamp::ZERO`].
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(micros(rhs)))
    }
}

/// Shown as seconds with milliseconds, `12.345s`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A length of time for people: `0.3s`, `14s`, `2m 05s`, `3h 10m`, `4d 2h`.
#[must_use]
pub fn show(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{secs}s"),
        60..3_600 => format!("{}m {:02}s", secs / 60, secs % 60),
        3_600..86_400 => format!("{}h {:02}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_wraps() {
        assert_eq!(Timestamp::NEVER + Duration::from_secs(1), Timestamp::NEVER);
        assert_eq!(Timestamp::ZERO - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO.since(Timestamp::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn lengths_read_like_a_person_says_them() {
        assert_eq!(show(Duration::from_millis(340)), "0.3s");
        assert_eq!(show(Duration::from_secs(14)), "14s");
        assert_eq!(show(Duration::from_secs(125)), "2m 05s");
        assert_eq!(show(Duration::from_secs(11_400)), "3h 10m");
        assert_eq!(show(Duration::from_secs(352_800)), "4d 2h");
    }
}
