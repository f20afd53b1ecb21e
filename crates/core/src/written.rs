//! How much an application has written, as it counts itself: so that what going back loses is told in its own measure.

use crate::subject::AppName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What an application has written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Rows that were inserted, updated and deleted.
    pub rows: u64,
    /// Bytes of its write-ahead log. Of PostgreSQL it is the log sequence number (LSN).
    pub log: u64,
    /// Since when it counts rows, in microseconds since 1970: after a crash it begins anew.
    pub since: i64,
}

/// What each application of a VM had written when a restore point of it was taken.
pub type Marks = BTreeMap<AppName, Written>;

/// What an application has written between two looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Rows that were inserted, updated and deleted.
    pub rows: u64,
    /// Bytes of its write-ahead log.
    pub log: u64,
}

impl Written {
    /// What was written since then; nothing is known of that where it is not of the same count.
    #[must_use]
    pub fn after(self, then: Self) -> Option<Lost> {
        if self.since != then.since {
            return None;
        }
        Some(Lost { rows: self.rows.checked_sub(then.rows)?, log: self.log.checked_sub(then.log)? })
    }
}

/// What each application wrote from then on, of those of which that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Losses(pub BTreeMap<AppName, Lost>);

impl Losses {
    /// What was written between these.
    #[must_use]
    pub fn between(then: &Marks, now: &Marks) -> Self {
        let lost = then.iter().filter_map(|(app, then)| Some((app.clone(), now.get(app)?.after(*then)?)));
        Self(lost.collect())
    }

    /// Rows of all of them together, if any is known.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        let all = self.0.values().map(|lost| lost.rows).fold(0_u64, u64::saturating_add);
        (!self.is_empty()).then_some(all)
    }

    /// Nothing is known of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `postgres: about 12 rows changed, 1.5 MiB of log`, as each is asked only now and then.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (app, lost)) in self.0.iter().enumerate() {
            let (between, about) =
                (if at > 0 { "; " } else { "" }, if lost.is_none() { "" } else { "about " });
            write!(f, "{between}{app}: {about}{lost}")?;
        }
        Ok(())
    }
}

impl Lost {
    const fn is_none(self) -> bool {
        self.rows == 0 && self.log == 0
    }
}

/// One count for as long as an application is known. It goes on where the application counts rows anew, as after a crash,
/// and where its rows or its log are fewer than they were, as after it went back: what it had then is not written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    told: Written,
    all: Written,
}

impl Tally {
    /// It begins with what is told first.
    #[must_use]
    pub const fn of(told: Written) -> Self {
        Self { told, all: told }
    }

    /// This is told now.
    pub const fn tell(&mut self, now: Written) {
        let Self { told, all } = self;
        let is_anew = now.since != told.since;
        let rows = if is_anew { now.rows } else { now.rows.saturating_sub(told.rows) };
        all.rows = all.rows.saturating_add(rows);
        all.log = all.log.saturating_add(now.log.saturating_sub(told.log));
        *told = now;
    }

    /// All of it.
    #[must_use]
    pub const fn all(&self) -> Written {
        self.all
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            _ if self.is_none() => return f.write_str("nothing"),
            1 => f.write_str("1 row changed")?,
            rows => write!(f, "{} rows changed", grouped(rows))?,
        }
        write!(f, ", {} of log", bytes(self.log))
    }
}

/// `1,234,567`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3.1 MiB`.
fn bytes(count: u64) -> String {
    let unit = ["KiB", "MiB", "GiB", "TiB"].into_iter().zip([10, 20, 30, 40]);
    let fits = unit.rev().find(|(_, shift)| count >> shift > 0);
    fits.map_or_else(
        || format!("{count} B"),
        |(name, shift)| format!("{:.1} {name}", count as f64 / f64::from(1_u32 << (shift - 10)) / 1_024.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn written(rows: u64, log: u64, since: i64) -> Written {
        Written { rows, log, since }
    }

    #[test]
    fn a_crash_and_a_disk_that_went_back_break_no_count() {
        let mut tally = Tally::of(written(100, 1_000, 7));
        let mark = tally.all();
        tally.tell(written(130, 1_500, 7));
        assert_eq!(tally.all().after(mark), Some(Lost { rows: 30, log: 500 }));
        tally.tell(written(4, 1_600, 8)); // it crashed, and counts rows anew
        assert_eq!(tally.all().after(mark), Some(Lost { rows: 34, log: 600 }));
        tally.tell(written(1, 1_000, 8)); // its disk went back
        tally.tell(written(2, 1_050, 8));
        assert_eq!(tally.all().after(mark), Some(Lost { rows: 35, log: 650 }));
    }

    #[test]
    fn what_is_of_another_count_or_from_later_tells_nothing() {
        let now = written(100, 1_000, 7);
        assert_eq!(now.after(written(100, 1_000, 7)), Some(Lost { rows: 0, log: 0 }));
        for then in [written(1, 1, 8), written(101, 1, 7), written(1, 1_001, 7)] {
            assert_eq!(now.after(then), None, "{then:?}");
        }
    }

    #[test]
    fn it_is_told_as_people_say_it() {
        for (rows, log, told) in [
            (0, 0, "nothing"),
            (1, 1_023, "1 row changed, 1023 B of log"),
            (0, 1_024, "0 rows changed, 1.0 KiB of log"),
            (1_234_567, 3_250_000, "1,234,567 rows changed, 3.1 MiB of log"),
            (999, u64::MAX, "999 rows changed, 16777216.0 TiB of log"),
        ] {
            assert_eq!(Lost { rows, log }.to_string(), told);
        }
    }
}
