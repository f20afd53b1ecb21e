//! Time for the engine: `CLOCK_BOOTTIME` and a base, so that it never goes back, over reboots too.
//!
//! No decision may hang on the wall clock (I20); it is read only to show times to people.

use crate::disk::Disk;
use crate::disk::small::{SmallFile, SmallFileError};
use holdfast_core::time::{Duration, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Two clocks that are right differ by less (seconds).
const AGREE: f64 = 1.0;

/// What the wall clock says, in microseconds since 1970: to show, and for schedules; never to decide (I20).
#[must_use]
pub fn wall_micros() -> i64 {
    micros(clock_gettime(ClockId::Realtime)).max(0)
}

/// The same in seconds.
#[must_use]
pub fn wall_seconds() -> f64 {
    wall_micros() as f64 / 1e6
}

/// How far a date, in seconds since 1970, lies in the future; nothing where two clocks may differ by so much. Then a clock is wrong,
/// or was when that was written down.
#[must_use]
pub fn ahead(date: f64) -> Option<Duration> {
    let ahead = date - wall_seconds();
    (ahead >= AGREE).then(|| Duration::try_from_secs_f64(ahead).unwrap_or(Duration::MAX))
}

/// A clock that only goes forward.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What is added to the microseconds since boot.
    base: i64,
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Base {
    boot: String,
    base: i64,
}

/// The file, in the state folder.
const FILE: &str = "clock";
/// After a reboot time goes on so long after the newest that is known: lazy records may be lost.
const AFTER: Duration = Duration::from_secs(2);
/// The longest sleep before time is read again: a sleep does not count a suspended host's time.
const NAP: Duration = Duration::from_secs(1);

impl Clock {
    /// Starts the clock. `boot` is this boot of the host; `newest` the newest time found in the journal.
    /// It always starts: if the base cannot be kept, the error is told, and a restart of the program
    /// goes on from the newest time in the journal.
    pub fn start(disk: Arc<dyn Disk>, boot: &str, newest: Timestamp) -> (Self, Option<SmallFileError>) {
        let file = SmallFile::<Base>::new(disk, FILE, "clock", 1);
        let (saved, mut trouble) = match file.load() {
            Ok(saved) => (saved, None),
            Err(error) => (None, Some(error)),
        };
        let base = choose(saved.as_ref(), boot, uptime(), newest);
        let now = Base { boot: boot.to_owned(), base };
        let writable = !matches!(trouble, Some(SmallFileError::Newer { .. }));
        if writable && saved.as_ref() != Some(&now) {
            trouble = file.store(&now).err().or(trouble);
        }
        (Self { base }, trouble)
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let micros = uptime().saturating_add(self.base);
        Timestamp::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Wall clock minus [`Clock::now`], in microseconds: to show times, never to decide (I20).
    #[must_use]
    pub fn wall_offset(&self) -> i64 {
        micros(clock_gettime(ClockId::Realtime)).saturating_sub(uptime().saturating_add(self.base))
    }

    /// A time as people read it, in microseconds since 1970: to show, never to decide (I20).
    #[must_use]
    pub fn wall(&self, at: Timestamp) -> i64 {
        i64::try_from(at.as_micros()).unwrap_or(i64::MAX).saturating_add(self.wall_offset())
    }

    /// Waits until then. After a suspended host wakes it is late by at most a second.
    pub async fn until(&self, moment: Timestamp) {
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(NAP)).await;
        }
    }
}

/// The base that never takes time back behind `newest`, and goes on as before in the same boot.
fn choose(saved: Option<&Base>, boot: &str, uptime: i64, newest: Timestamp) -> i64 {
    let newest = i64::try_from(newest.as_micros()).unwrap_or(i64::MAX / 2);
    let same = saved.filter(|saved| saved.boot == boot).map(|saved| saved.base);
    if let Some(base) = same.filter(|base| uptime.saturating_add(*base) >= newest) {
        return base;
    }
    let after =
        if saved.is_none() && newest == 0 { 0 } else { i64::try_from(AFTER.as_micros()).unwrap_or(0) };
    newest.saturating_add(after).saturating_sub(uptime)
}

/// Microseconds since the host was booted, with those that it was suspended.
fn uptime() -> i64 {
    micros(clock_gettime(ClockId::Boottime))
}

fn micros(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::disk::faulty::{FaultyDisk, Plan};
    use proptest::prelude::*;

    fn start(disk: &FaultyDisk, boot: &str, newest: Timestamp) -> Clock {
        let (clock, trouble) = Clock::start(Arc::new(disk.clone()), boot, newest);
        assert!(trouble.is_none(), "{trouble:?}");
        clock
    }

    #[test]
    fn a_new_installation_starts_at_zero_and_a_restart_goes_on() {
        let disk = FaultyDisk::default();
        let first = start(&disk, "a", Timestamp::ZERO);
        assert!(first.now() < Timestamp::from_secs(60));
        let second = start(&disk, "a", Timestamp::ZERO);
        assert_eq!(first.base, second.base);
        let before = first.now();
        assert!(second.now() >= before);
    }

    #[test]
    fn after_a_reboot_time_goes_on_from_the_newest_record_i20() {
        let disk = FaultyDisk::default();
        start(&disk, "a", Timestamp::ZERO);
        let newest = Timestamp::from_secs(1_000_000);
        let after = start(&disk, "b", newest);
        assert!(after.now() >= newest + AFTER);
        assert_eq!(start(&disk, "b", newest).base, after.base);
    }

    #[test]
    fn it_starts_without_room_and_with_a_damaged_file_and_never_behind_the_journal() {
        let newest = Timestamp::from_secs(500);
        let full = FaultyDisk::new(Plan::Full { from: 0, count: 99, share: 0 });
        let (clock, trouble) = Clock::start(Arc::new(full), "a", newest);
        assert!(clock.now() > newest && matches!(trouble, Some(SmallFileError::Disk { .. })));
        let disk = FaultyDisk::default();
        start(&disk, "a", newest);
        disk.spoil(FILE, |bytes| bytes[30] ^= 1);
        let (clock, trouble) = Clock::start(Arc::new(disk), "a", newest);
        assert!(clock.now() > newest && matches!(trouble, Some(SmallFileError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn time_never_goes_back_over_any_restarts_and_reboots(
            steps in proptest::collection::vec((any::<bool>(), 0_i64..1 << 40, 0_i64..1 << 30, any::<bool>()), 1..40),
        ) {
            let (mut saved, mut boot, mut up, mut newest) = (None, 0, 1_000_000_i64, 0_i64);
            for (reboot, new_up, runs, recorded) in steps {
                if reboot {
                    boot += 1;
                    up = new_up;
                }
                let name = boot.to_string();
                let base = choose(saved.as_ref(), &name, up, Timestamp::from_micros(newest.try_into().unwrap()));
                prop_assert!(up + base >= newest);
                if recorded {
                    saved = Some(Base { boot: name, base });
                }
                up += runs;
                newest = up + base;
            }
        }
    }

    #[tokio::test]
    async fn waiting_ends_when_the_moment_has_come_and_not_before() {
        let clock = start(&FaultyDisk::default(), "a", Timestamp::ZERO);
        let moment = clock.now() + Duration::from_millis(30);
        clock.until(moment).await;
        assert!(clock.now() >= moment);
        clock.until(Timestamp::ZERO).await;
    }

    #[test]
    fn the_wall_clock_is_shown_from_the_offset() {
        let clock = start(&FaultyDisk::default(), "a", Timestamp::from_secs(77));
        let shown = i64::try_from(clock.now().as_micros()).unwrap() + clock.wall_offset();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!((shown - i64::try_from(wall.as_micros()).unwrap()).abs() < 60_000_000);
    }
}
