//! The file systems of a guest, as its agent tells of them: each is judged by itself, fills by itself, and is named with
//! what lies on it.

use super::forecast::Filling;
use super::{Evidence, FACT_KEEPS, FULL, Kind, Lens, Timestamp};
use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// File systems of one guest that are remembered.
const MOST: usize = 16;
/// All are told of within this; one that is missing then is no longer mounted.
const ROUND: Duration = Duration::from_secs(2);
/// A file system with less than this share left, in parts of a thousand, is full.
const FULL_BELOW: u64 = 10;
/// A file system that is damaged, and only then seems full, does so within this time: it is asked how full it is every
/// few seconds. (ext4 takes a group whose bitmap it finds damaged out of what is free,
/// `ext4_mark_group_bitmap_corrupted`.)
const TELLS_WITHIN: Duration = Duration::from_secs(10);
/// With this share left there is plenty of room: what failed for want of it would be done by now.
const ROOMY_FROM: u64 = 50;

/// What is remembered of all file systems.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DisksView {
    disks: Vec<Disk>,
}

/// One file system, as it was told of last.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Disk {
    mount: String,
    holds: String,
    used: u64,
    total: u64,
    read_only: bool,
    /// Since when it has been full, or has not been.
    since: Timestamp,
    at: Timestamp,
    fills: Filling,
}

/// How a file system is, as an agent tells.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Where it is mounted.
    pub mount: &'a str,
    /// What lies on it, as shown; empty if nobody knows.
    pub holds: &'a str,
    /// Bytes used.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
    /// It refuses writes.
    pub read_only: bool,
}

impl DisksView {
    /// Takes in how one of them is.
    pub fn observe(&mut self, at: Timestamp, told: Told<'_>) {
        let known = self.disks.iter().position(|disk| disk.mount == told.mount);
        let old = known.map(|known| self.disks.swap_remove(known));
        let full = is_full(told.used, told.total);
        let same = old.as_ref().filter(|disk| disk.is_full() == full);
        let since = same.map_or(at, |disk| disk.since);
        let round = old.as_ref().map_or(Timestamp::ZERO, |disk| disk.at);
        self.disks.retain(|disk| round.since(disk.at) <= ROUND);
        let (mut fills, holds) = old.map_or_else(Default::default, |disk| (disk.fills, disk.holds));
        fills.observe(at, told.used, told.total);
        let holds = if told.holds.is_empty() { holds } else { told.holds.to_owned() };
        let Told { mount, used, total, read_only, .. } = told;
        self.disks.truncate(MOST - 1);
        self.disks.push(Disk { mount: mount.to_owned(), holds, used, total, read_only, since, at, fills });
    }

    /// One of them will be full soon.
    pub fn is_filling(&self) -> bool {
        self.disks.iter().any(|disk| disk.fills.forecast().is_some())
    }

    /// They were told of just now, and none is full.
    pub fn have_room(&self, lens: &Lens) -> bool {
        let heard = self.disks.iter().any(|disk| lens.is_fresh(disk.at));
        heard && !self.disks.iter().any(Disk::is_full)
    }

    /// Since when all have plenty of room, as far as was told, if that is the last word.
    pub fn room_seen(&self) -> Option<Timestamp> {
        let roomy = |disk: &Disk| left(disk.used, disk.total) >= ROOMY_FROM && !disk.read_only;
        self.disks.iter().map(|disk| disk.at).min().filter(|_| self.disks.iter().all(roomy))
    }

    /// What is said of them: of each that ails; else that there is room on the fullest. `damaged`: since when the
    /// kernel has called a file system damaged.
    pub fn speak(&self, lens: &Lens, damaged: Option<Timestamp>, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, text| {
            say.push(Evidence { kind, app: None, since, at, strength: FULL, text, quote: None });
        };
        let mut ailing = false;
        let mut known: Vec<&Disk> =
            self.disks.iter().filter(|disk| lens.now.since(disk.at) <= FACT_KEEPS).collect();
        known.sort_by_key(|disk| (left(disk.used, disk.total), disk.mount.as_str()));
        let forecast = |disk: &Disk| disk.fills.forecast().filter(|_| !disk.is_full() && !disk.read_only);
        for disk in &known {
            ailing |= disk.is_full() || disk.read_only;
            if disk.is_full() {
                let (kind, text) = disk.fullness(damaged);
                push(kind, disk.since, lens.now, text);
            }
            if disk.read_only {
                push(Kind::FsReadOnly, disk.since, lens.now, format!("{} refuses writes", disk.named()));
            }
        }
        // The one that is full first is told first: of two that fill, one is enough to know.
        let mut coming: Vec<_> = known.iter().filter_map(|disk| Some((disk, forecast(disk)?))).collect();
        coming.sort_by_key(|(_, forecast)| forecast.left);
        for (disk, forecast) in &coming {
            let text = format!("{} will be full {}", disk.named(), forecast.text());
            push(Kind::FsFilling, disk.at, disk.at, text);
        }
        if let Some(fullest) = known.first().filter(|_| !ailing && coming.is_empty()) {
            push(Kind::FsFine, fullest.at, fullest.at, format!("{} has room", fullest.named()));
        }
    }
}

impl Disk {
    const fn is_full(&self) -> bool {
        is_full(self.used, self.total)
    }

    /// How full it is. What is damaged, or takes no more writes, did not fill by them.
    fn fullness(&self, damaged: Option<Timestamp>) -> (Kind, String) {
        let says = format!("{} is full ({} %)", self.named(), percent(self.used, self.total));
        if self.read_only {
            return (Kind::FsInDoubt, says + " by its own count, and has not filled since it refuses writes");
        }
        if damaged.is_some_and(|damaged| damaged <= self.since + TELLS_WITHIN) {
            return (
                Kind::FsInDoubt,
                says + " by its own count, which is in doubt: its kernel calls it damaged",
            );
        }
        (Kind::FsFull, says)
    }

    fn named(&self) -> String {
        if self.holds.is_empty() {
            return format!("file system {}", self.mount);
        }
        format!("file system {}, which holds {},", self.mount, self.holds)
    }
}

const fn is_full(used: u64, total: u64) -> bool {
    total > 0 && left(used, total) < FULL_BELOW
}

/// What is left, in parts of a thousand.
const fn left(used: u64, total: u64) -> u64 {
    let parts = total.saturating_sub(used) as u128 * 1_000;
    match parts.checked_div(total as u128) {
        Some(left) => left as u64, // at most a thousand
        None => 0,
    }
}

/// What is used, in whole parts of a hundred: never more than a hundred, whatever a guest claims (I17).
fn percent(used: u64, total: u64) -> u64 {
    let parts = u128::from(used.min(total)) * 100 / u128::from(total.max(1));
    u64::try_from(parts).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn lens(now: u64) -> Lens {
        let (fresh, hang_after) = (Duration::from_secs(4), Duration::from_secs(10));
        let now = Timestamp::from_secs(now);
        let (trust_silence, patience, booting, excused) = (true, 1, false, false);
        Lens { now, fresh, hang_after, trust_silence, patience, booting, excused }
    }

    fn see(view: &mut DisksView, at: u64, mount: &str, holds: &str, used: u64) {
        let told = Told { mount, holds, used, total: 100 * GIB, read_only: false };
        view.observe(Timestamp::from_secs(at), told);
    }

    fn said(view: &DisksView, now: u64) -> Vec<(Kind, String)> {
        let mut say = Vec::new();
        view.speak(&lens(now), None, &mut say);
        say.into_iter().map(|evidence| (evidence.kind, evidence.text)).collect()
    }

    #[test]
    fn each_fills_by_itself_and_is_named_with_what_lies_on_it() {
        let mut view = DisksView::default();
        for n in 0..60 {
            see(&mut view, 100 + n * 5, "/", "", 40 * GIB);
            let holds = if n == 7 { "tablespace ts1 of postgres" } else { "" };
            see(&mut view, 100 + n * 5, "/srv/ts1", holds, 50 * GIB + n * GIB / 2);
        }
        assert!(view.is_filling());
        let said = said(&view, 400);
        assert_eq!(said.len(), 1, "{said:?}");
        let (kind, text) = &said[0];
        assert_eq!(*kind, Kind::FsFilling);
        let begins =
            "file system /srv/ts1, which holds tablespace ts1 of postgres, will be full in about 3m ";
        assert!(text.starts_with(begins), "what is known of it is kept: {text}");
    }

    #[test]
    fn numbers_that_cannot_be_are_told_as_the_nearest_that_can() {
        let full = |used, total| {
            let mut view = DisksView::default();
            let told = Told { mount: "/", holds: "", used, total, read_only: false };
            view.observe(Timestamp::from_secs(100), told);
            said(&view, 101)
        };
        for (used, total) in [(u64::MAX, 1), (u64::MAX, 100), (u64::MAX, u64::MAX), (101, 100)] {
            let expected = [(Kind::FsFull, "file system / is full (100 %)".into())];
            assert_eq!(full(used, total), expected, "{used} of {total}");
        }
        let nearly = u64::MAX / 1_000 * 995;
        assert_eq!(full(nearly, u64::MAX), [(Kind::FsFull, "file system / is full (99 %)".into())]);
        assert_eq!(full(u64::MAX, 0)[0].0, Kind::FsFine, "nothing is no file system");
    }

    #[test]
    fn one_that_is_damaged_is_hardly_believed_that_it_is_full() {
        let heard = |full: u64, damaged: Option<u64>, read_only| {
            let mut view = DisksView::default();
            let told = Told { mount: "/", holds: "", used: GIB, total: GIB, read_only };
            view.observe(Timestamp::from_secs(full), told);
            let mut say = Vec::new();
            view.speak(&lens(full + 1), damaged.map(Timestamp::from_secs), &mut say);
            say.into_iter().map(|evidence| evidence.kind).collect::<Vec<_>>()
        };
        assert_eq!(heard(100, None, false), [Kind::FsFull]);
        assert_eq!(heard(100, Some(90), false), [Kind::FsInDoubt], "the damage may be why it seems full");
        assert_eq!(heard(100, Some(104), false), [Kind::FsInDoubt], "told in the other order");
        assert_eq!(heard(100, Some(150), false), [Kind::FsFull], "it was full before it was damaged");
        assert_eq!(heard(100, None, true), [Kind::FsInDoubt, Kind::FsReadOnly], "it did not fill by writes");
    }

    #[test]
    fn one_that_ails_is_told_beside_others_that_are_well_and_one_that_is_gone_is_forgotten() {
        let mut view = DisksView::default();
        see(&mut view, 100, "/", "", 40 * GIB);
        see(&mut view, 100, "/data", "", 100 * GIB);
        assert_eq!(said(&view, 101), [(Kind::FsFull, "file system /data is full (100 %)".into())]);
        assert!(!view.have_room(&lens(101)) && view.room_seen().is_none());
        see(&mut view, 205, "/", "", 41 * GIB);
        assert!(!view.have_room(&lens(206)), "it may still be told of");
        see(&mut view, 210, "/", "", 41 * GIB);
        assert_eq!(said(&view, 211), [(Kind::FsFine, "file system / has room".into())]);
        assert!(view.have_room(&lens(211)));
        assert_eq!(view.room_seen(), Some(Timestamp::from_secs(210)));
        assert_eq!(said(&view, 260), [], "what is long ago is not said");
    }

    #[test]
    fn a_guest_that_tells_of_ever_new_ones_is_not_believed_without_end() {
        let mut view = DisksView::default();
        for n in 0..10_000 {
            see(&mut view, 100, &format!("/{n}"), "", GIB);
        }
        assert_eq!(view.disks.len(), MOST);
    }
}
