//! How many lines a log has at what time, and how bad they say they are: in a bounded number of stretches.

use holdfast_logs::Severity;
use std::collections::BTreeMap;

/// Stretches that are kept before neighbours are merged.
const MOST: usize = 512;

/// Lengths of a stretch in seconds. Each is a multiple of the one before, so that stretches merge whole.
const WIDTHS: [i64; 18] = [
    1,
    5,
    10,
    30,
    60,
    300,
    600,
    1_800,
    3_600,
    10_800,
    21_600,
    43_200,
    86_400,
    604_800,
    2_419_200,
    31_449_600,
    314_496_000,
    3_144_960_000,
];

/// Times that lie farther from the bulk of the lines than so many times as long as the bulk takes are of another age ...
const FAR: i64 = 10;

/// ... and by no less than this, in seconds.
const LEAST_FAR: i64 = 86_400;

/// A log of fewer lines has no bulk.
const LEAST_LINES: u64 = 10;

/// Lines by what they say of themselves; the last are those that say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Severity::ALL.len() + 1]);

impl Counts {
    /// All of them.
    pub fn lines(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Of one severity.
    pub fn of(&self, severity: Severity) -> u64 {
        self.0[severity as usize]
    }

    /// Of this severity or worse.
    pub fn from(&self, severity: Severity) -> u64 {
        self.0[severity as usize..Severity::ALL.len()].iter().sum()
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

/// What is kept: the counts of each stretch that has lines.
#[derive(Debug, Default)]
pub struct Timeline {
    width: usize,
    stretches: BTreeMap<i64, Counts>,
    /// The stretch of the last line, which is the next one's too, nearly always.
    open: Option<(i64, Counts)>,
    /// Lines before the first that has a time.
    pub timeless: u64,
}

/// Stretches as they are shown.
#[derive(Debug)]
pub struct Slices {
    /// How long each is, in seconds.
    pub seconds: i64,
    /// Where each begins, in seconds since 1970, and its lines. Those without lines are left out.
    pub stretches: Vec<(i64, Counts)>,
    /// Lines that are left out, as their times are of another age.
    pub far: u64,
    /// One of these times, in seconds since 1970.
    pub far_time: Option<i64>,
}

impl Timeline {
    /// Adds a line. One without a time counts where the line before it does.
    pub fn add(&mut self, time: Option<i64>, severity: Option<Severity>) {
        let seconds = WIDTHS[self.width];
        let stretch = match (time, &self.open) {
            (Some(time), _) => time.div_euclid(1_000_000).div_euclid(seconds),
            (None, Some((stretch, _))) => *stretch,
            (None, None) => {
                self.timeless += 1;
                return;
            }
        };
        let place = severity.map_or(Severity::ALL.len(), |severity| severity as usize);
        match &mut self.open {
            Some((open, counts)) if *open == stretch => counts.0[place] += 1,
            Some(_) | None => {
                self.close();
                let mut counts = Counts::default();
                counts.0[place] = 1;
                self.open = Some((time.map_or(stretch, |time| self.stretch(time)), counts));
            }
        }
    }

    fn stretch(&self, time: i64) -> i64 {
        time.div_euclid(1_000_000).div_euclid(WIDTHS[self.width])
    }

    fn close(&mut self) {
        if let Some((stretch, counts)) = self.open.take() {
            self.stretches.entry(stretch).or_default().add(&counts);
        }
        while self.stretches.len() > MOST && self.width + 1 < WIDTHS.len() {
            let by = WIDTHS[self.width + 1] / WIDTHS[self.width];
            self.width += 1;
            let narrow = std::mem::take(&mut self.stretches);
            for (stretch, counts) in narrow {
                self.stretches.entry(stretch.div_euclid(by)).or_default().add(&counts);
            }
        }
    }

    /// At most so many stretches, and about as many from where the log begins to where it ends, as short as can be: of
    /// the lines, one in a hundred at either end may lie farther out. Those of another age are left out and counted.
    pub fn slices(&self, most: usize) -> Slices {
        let width = WIDTHS[self.width];
        let mut near = self.stretches.clone();
        if let Some((stretch, counts)) = &self.open {
            near.entry(*stretch).or_default().add(counts);
        }
        let (from, until) = bulk(&near, width);
        let mut slices = Slices { seconds: 1, stretches: Vec::new(), far: 0, far_time: None };
        near.retain(|stretch, counts| {
            let is_near = (from..=until).contains(stretch);
            if !is_near {
                slices.far += counts.lines();
                slices.far_time = Some(stretch.saturating_mul(width));
            }
            is_near
        });
        for seconds in &WIDTHS[self.width..] {
            let by = seconds / width;
            let mut merged: BTreeMap<i64, Counts> = BTreeMap::new();
            for (stretch, counts) in &near {
                merged.entry(stretch.div_euclid(by)).or_default().add(counts);
            }
            let fits = merged.len() <= most && span(&merged, few(&merged)) <= most as i64;
            if fits || WIDTHS.ends_with(&[*seconds]) {
                slices.seconds = *seconds;
                slices.stretches =
                    merged.into_iter().map(|(stretch, counts)| (stretch * seconds, counts)).collect();
                break;
            }
        }
        slices
    }
}

/// From which stretch to which a line is not of another age. The bulk is all lines but one in a hundred at either end,
/// and but one where they are less than a hundred; what lies ten times as far off as the bulk is long, and a day or more, is.
fn bulk(stretches: &BTreeMap<i64, Counts>, width: i64) -> (i64, i64) {
    let lines: u64 = stretches.values().map(Counts::lines).sum();
    if lines < LEAST_LINES {
        return (i64::MIN, i64::MAX);
    }
    let few = few(stretches).max(1);
    let (first, last) = (inner(stretches.iter(), few), inner(stretches.iter().rev(), few));
    let far = span(stretches, few).saturating_mul(FAR).max(LEAST_FAR / width);
    (first.saturating_sub(far), last.saturating_add(far))
}

/// A hundredth of the lines.
fn few(stretches: &BTreeMap<i64, Counts>) -> u64 {
    stretches.values().map(Counts::lines).sum::<u64>() / 100
}

/// Stretches from the first to the last, but for those at the ends that hold no more than these few lines.
fn span(stretches: &BTreeMap<i64, Counts>, few: u64) -> i64 {
    let (first, last) = (inner(stretches.iter(), few), inner(stretches.iter().rev(), few));
    last.saturating_sub(first).saturating_add(1)
}

/// The first stretch up to which there are more lines than these few.
fn inner<'a>(mut stretches: impl Iterator<Item = (&'a i64, &'a Counts)>, few: u64) -> i64 {
    let mut lines = 0;
    let found = stretches.find(|(_, counts)| {
        lines += counts.lines();
        lines > few
    });
    found.map_or(0, |(stretch, _)| *stretch)
}

impl Slices {
    /// How long a stretch is, for people.
    pub fn width(&self) -> String {
        let (count, unit) = match self.seconds {
            seconds if seconds % 86_400 == 0 => (seconds / 86_400, "d"),
            seconds if seconds % 3_600 == 0 => (seconds / 3_600, "h"),
            seconds if seconds % 60 == 0 => (seconds / 60, "min"),
            seconds => (seconds, "s"),
        };
        format!("{count} {unit}")
    }

    /// How many stretches without lines lie before this one.
    pub fn gap(&self, place: usize) -> i64 {
        let before = place.checked_sub(1).map(|before| self.stretches[before].0);
        before.map_or(0, |before| self.stretches[place].0.saturating_sub(before) / self.seconds - 1)
    }

    /// The most lines in one stretch.
    pub fn most(&self) -> u64 {
        self.stretches.iter().map(|(_, counts)| counts.lines()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn lines_count_in_their_stretch_and_those_without_a_time_in_the_one_before() {
        let mut timeline = Timeline::default();
        timeline.add(None, None);
        timeline.add(Some(1_000_000), Some(Severity::Error));
        timeline.add(None, None);
        timeline.add(Some(-1), Some(Severity::Alert));
        timeline.add(Some(1_999_999), Some(Severity::Warning));
        let slices = timeline.slices(10);
        let found: Vec<(i64, u64, u64)> = slices
            .stretches
            .iter()
            .map(|(at, counts)| (*at, counts.lines(), counts.from(Severity::Error)))
            .collect();
        assert_eq!((slices.seconds, found, slices.most()), (1, vec![(-1, 1, 1), (1, 3, 1)], 3));
        assert_eq!((slices.gap(0), slices.gap(1), slices.width()), (0, 1, "1 s".to_owned()));
        assert_eq!((timeline.timeless, slices.stretches[1].1.of(Severity::Warning)), (1, 1));
        assert_eq!(
            (timeline.slices(1).seconds, Timeline::default().slices(9).stretches.len()),
            (3_144_960_000, 0)
        );
    }

    #[test]
    fn a_line_far_out_does_not_make_all_others_one() {
        let mut timeline = Timeline::default();
        for second in 0..200 {
            timeline.add(Some(second * 1_000_000), None);
        }
        timeline.add(Some(20_000 * DAY), None);
        let slices = timeline.slices(16);
        assert_eq!((slices.width().as_str(), slices.stretches.len()), ("30 s", 7));
        assert_eq!((slices.far, slices.far_time), (1, Some(20_000 * 86_400)));
    }

    #[test]
    fn what_is_of_another_age_is_left_out_and_a_long_pause_is_not() {
        let of = |times: &[i64]| {
            let mut timeline = Timeline::default();
            times.iter().for_each(|time| timeline.add(Some(*time), None));
            timeline.slices(16)
        };
        let day: Vec<i64> = (0..24).map(|hour| 20_000 * DAY + hour * DAY / 24).collect();
        for (other, far) in
            [(253_402_300_799_999_999, 1), (0, 1), (i64::MIN, 1), (20_012 * DAY, 1), (20_005 * DAY, 0)]
        {
            let slices = of(&[&day[..], &[other]].concat());
            assert_eq!(slices.far, far, "{other}");
            assert!(far == 0 || slices.seconds <= 10_800, "{other}: {}", slices.width());
        }
        let two_ends = of(&[&[0][..], &day, &[40_000 * DAY]].concat());
        assert_eq!((two_ends.far, two_ends.stretches.len()), (2, 8));
        // as many on either side: neither is odd
        let halves: Vec<i64> = day.iter().flat_map(|time| [*time, time + 5_000 * DAY]).collect();
        assert_eq!(of(&halves).far, 0);
        assert_eq!(of(&[0, 40_000 * DAY]).far, 0);
    }

    #[test]
    fn however_long_the_time_few_stretches_are_kept_and_no_line_is_lost() {
        let mut timeline = Timeline::default();
        for number in 0..20_000 {
            timeline.add(Some(number * 7 % 3_000 * DAY), None);
            assert!(timeline.stretches.len() <= MOST);
        }
        for time in [i64::MIN, i64::MAX, 0, -62_135_596_800_000_000, 253_402_300_799_999_999] {
            timeline.add(Some(time), None);
        }
        for most in [0, 1, 7, 16, 600] {
            let slices = timeline.slices(most);
            assert_eq!(
                slices.stretches.iter().map(|(_, counts)| counts.lines()).sum::<u64>() + slices.far,
                20_005
            );
            assert!(slices.stretches.len() <= most.max(100), "{most}: {}", slices.stretches.len());
        }
    }
}
