//! Seeded series that are known to be healthy but for what was put into them, and what the detector says of them.
//!
//! The mixture has the prior that the detector states: of a hundred blocks of a series one has a fault, so a series of
//! any length has one on average (Poisson, anywhere after its first rows). All chance comes from the seed.

use holdfast_core::evidence::series::{Learn, Series};
use holdfast_core::time::Timestamp;

/// Rows are so many seconds apart.
const EVERY: u64 = 300;
/// Rows in a day.
const DAY: u64 = 86_400 / EVERY;
/// The first rows, in which the detector says nothing and no fault is put.
pub const YOUNG: u64 = 128;
/// What is told so many rows after the end of a fault is still about it: the longest view is of 40 rows.
const AFTER: u64 = 40;

/// How a healthy series behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Normal, each row for itself.
    White,
    /// Half of the last row, and noise.
    Half,
    /// Nine tenths of the last row, and noise.
    NineTenths,
    /// Student's t with three degrees of freedom: wild values now and then.
    Heavy,
    /// The logarithm is normal, as of a latency.
    Latency,
    /// Poisson counts of five.
    Counts,
    /// A day, and noise.
    Day,
    /// Whole numbers, few of them.
    Whole,
    /// Each row is the last and a step.
    Walk,
}

/// All of them.
pub const KINDS: [Kind; 9] = [
    Kind::White,
    Kind::Half,
    Kind::NineTenths,
    Kind::Heavy,
    Kind::Latency,
    Kind::Counts,
    Kind::Day,
    Kind::Whole,
    Kind::Walk,
];

/// Numbers that look like chance (SplitMix64), the same for the same seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_F491_4F6C_DD1D))
    }

    /// Between 0 and 1, never either.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((mixed ^ (mixed >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (radius, turn) = ((-2.0 * self.uniform().ln()).sqrt(), self.uniform() * std::f64::consts::TAU);
        radius * turn.cos()
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        let (mut left, mut count) = (self.uniform(), 0);
        while left > (-mean).exp() {
            left *= self.uniform();
            count += 1;
        }
        count
    }

    fn below(&mut self, limit: u64) -> u64 {
        ((self.uniform() * limit as f64) as u64).min(limit.saturating_sub(1))
    }
}

impl Kind {
    /// The next value: `last` is what this kind remembers.
    fn next(self, row: u64, last: &mut f64, chance: &mut Chance) -> f64 {
        let noise = chance.normal();
        match self {
            Self::White => 50.0 + noise,
            Self::Half | Self::NineTenths => {
                let part = if self == Self::Half { 0.5 } else { 0.9 };
                *last = *last * part + noise;
                50.0 + *last
            }
            Self::Heavy => {
                let square = (0..3).map(|_| chance.normal().powi(2)).sum::<f64>() / 3.0;
                50.0 + noise / square.sqrt()
            }
            Self::Latency => 4.0 * (noise * 0.5).exp(),
            Self::Counts => chance.poisson(5.0) as f64,
            Self::Day => {
                100.0 - 30.0 * ((row % DAY) as f64 / DAY as f64 * std::f64::consts::TAU).cos() + noise * 4.0
            }
            Self::Whole => (20.0 + noise * 1.5).round(),
            Self::Walk => {
                *last += noise;
                500.0 + *last
            }
        }
    }

    /// Whether a row is missing, as one in fifty of a latency is.
    fn is_lost(self, chance: &mut Chance) -> bool {
        self == Self::Latency && chance.uniform() < 0.02
    }

    /// How much it moves about, for the size of faults.
    fn spread(self) -> f64 {
        match self {
            Self::White | Self::Heavy | Self::Walk => 1.0,
            Self::Half => 1.15,
            Self::NineTenths | Self::Latency => 2.3,
            Self::Counts => 2.24,
            Self::Day => 4.0,
            Self::Whole => 1.5,
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug)]
struct Fault {
    from: u64,
    until: u64,
    way: Way,
    /// How large, in spreads of the series.
    size: f64,
}

/// In which way.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A few rows far off.
    Spike,
    /// Another level for long.
    Level,
    /// It varies more.
    Spread,
    /// It stands still.
    Flat,
    /// Nothing comes.
    Missing,
}

impl Fault {
    /// Any, in rows that are left: of 3 to 12 spreads, for 2 to 200 rows.
    fn any(rows: u64, chance: &mut Chance) -> Self {
        let from = YOUNG + chance.below(rows - YOUNG);
        let (way, lasts) = match chance.below(5) {
            0 => (Way::Spike, 2 + chance.below(4)),
            1 => (Way::Level, 40 + chance.below(160)),
            2 => (Way::Spread, 40 + chance.below(160)),
            3 => (Way::Flat, 40 + chance.below(160)),
            _ => (Way::Missing, 40 + chance.below(160)),
        };
        let size = 3.0 + 9.0 * chance.uniform();
        let size = if chance.uniform() < 0.5 { size } else { -size };
        Self { from, until: (from + lasts).min(rows), way, size }
    }

    fn of(&self, value: f64, before: f64, spread: f64, chance: &mut Chance) -> f64 {
        match self.way {
            Way::Spike | Way::Level => value + self.size * spread,
            Way::Spread => value + chance.normal() * self.size * spread,
            Way::Flat => before,
            Way::Missing => f64::NAN,
        }
    }
}

/// One thing that was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// On which row.
    pub row: u64,
    /// How sure the detector is.
    pub probability: f64,
    /// Something was wrong.
    pub is_real: bool,
    /// What was seen.
    pub kind: &'static str,
}

/// What came of one series.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// All that was told as news, however weakly.
    pub told: Vec<Told>,
    /// Faults that were put in.
    pub faults: usize,
    /// Of these, those told with one half, and with nine tenths, at least.
    pub found: [usize; 2],
}

/// Runs the detector over one series; with `faults`, what the prior says goes wrong in it.
pub fn run(kind: Kind, rows: u64, seed: u64, faults: bool) -> Seen {
    let mut chance = Chance::new(seed ^ (kind as u64) << 40 ^ rows << 48);
    let count = if faults { chance.poisson(1.0) } else { 0 };
    let faults: Vec<Fault> = (0..count).map(|_| Fault::any(rows, &mut chance)).collect();
    let (mut series, mut seen) = (Series::new(), Seen { faults: faults.len(), ..Seen::default() });
    let (mut last, mut before) = (0.0, 0.0);
    let mut found = vec![0.0_f64; faults.len()];
    for row in 0..rows {
        let healthy = kind.next(row, &mut last, &mut chance);
        let wrong = faults.iter().find(|fault| (fault.from..fault.until).contains(&row));
        let value = wrong.map_or(healthy, |fault| fault.of(healthy, before, kind.spread(), &mut chance));
        let value = if kind.is_lost(&mut chance) { f64::NAN } else { value };
        before = if value.is_finite() { value } else { before };
        let verdict = series.observe(Timestamp::from_secs(row * EVERY), value, Learn::Yes);
        if verdict.probability == 0.0 {
            continue;
        }
        let about = |fault: &Fault| (fault.from..fault.until + AFTER).contains(&row);
        for (_, found) in faults.iter().zip(&mut found).filter(|(fault, _)| about(fault)) {
            *found = verdict.probability.max(*found);
        }
        let is_real = faults.iter().any(about);
        let kind = verdict.sight.map_or("", |sight| sight.kind.name());
        seen.told.push(Told { row, probability: verdict.probability, is_real, kind });
    }
    seen.found = [0.5, 0.9].map(|least| found.iter().filter(|found| **found >= least).count());
    seen
}
