//! Many small things at once: the series of a VM as one row, beside the rows of its last two hours.
//!
//! Series of a healthy machine move together: with its load, with its disk. The directions in which they do are found
//! by principal components; what is left of a row beside these, squared and summed, is its Q-statistic, and has a limit
//! (Jackson & Mudholkar 1979; never less than one row in two hundred reached). What one series alone explains best is
//! taken away first (its contribution by reconstruction, Alcala & Qin 2009), as that is for its own judge. It is told when
//! the rest was beyond the limit for half a minute and no series was told by itself. Rows of an incident teach nothing,
//! nor do rows while it is told.

use super::ROLL_EVERY;
use super::measure::Name;
use holdfast_core::signal::{Measure, NumberSign};
use holdfast_core::time::{Duration, Timestamp, show};
use holdfast_logs::{Rows, Space};
use std::collections::VecDeque;

/// What it is called.
pub const SERIES: &str = "together";
/// Rows that are remembered: two hours ...
const MEMORY: usize = 720;
/// ... and that are needed at least.
const YOUNG: usize = 360;
/// Rows after which the directions are sought anew.
const FIT_EVERY: usize = 30;
/// Series of a VM that are looked at, and how many are needed: with fewer, nothing is "many".
const COLUMNS: (usize, usize) = (64, 6);
/// A series must have a value in so many of the rows to be looked at: this share.
const KNOWN: f64 = 0.8;
/// A value counts as no farther from the middle than so many of its spreads, so that no single one is all.
const FARTHEST: f64 = 6.0;
/// A column that lies in the subspace all but so much explains nothing beside it.
const LEAST_FREE: f64 = 1e-3;
/// So many rows in a row, before it is told, or told to be over.
const TOLD_AFTER: u32 = 3;
/// A series that was told by itself explains what is seen for so long.
const EXPLAINS: Duration = Duration::from_secs(300);
/// What has lasted for so long is how it is now: all is learned anew.
const USUAL_AFTER: Duration = Duration::from_secs(3_600);
/// The same in rows, also where it was not told.
const USUAL_ROWS: u32 = 360;
/// The spread of normal values, in medians of their distances from the middle.
const MEDIANS: f64 = 1.4826;
/// The limit is passed once in a thousand rows: 30 decibans.
const SURPRISE: f64 = 30.0;

/// The series of one VM.
#[derive(Debug, Default)]
pub struct Together {
    columns: Vec<Name>,
    /// The latest rows, NaN where nothing was measured; those before a column was there are shorter.
    rows: VecDeque<Vec<f64>>,
    model: Option<Model>,
    since_fit: usize,
    beyond: u32,
    within: u32,
    told: Option<Timestamp>,
    alone: Option<Timestamp>,
}

/// How the series move together.
#[derive(Debug)]
struct Model {
    /// The columns that are looked at: which, their middle and their spread.
    columns: Vec<(usize, f64, f64)>,
    /// How much of a change of each column alone is left beside the subspace.
    free: Vec<f64>,
    space: Space,
}

/// What stands beside a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// An incident of this VM is open.
    pub ill: bool,
    /// A series was told by itself.
    pub alone: bool,
}

impl Together {
    /// Judges the values of a moment by those before it.
    pub fn observe(&mut self, now: Timestamp, values: &[(&Name, f64)], beside: Beside) -> Option<NumberSign> {
        if beside.alone {
            self.alone = Some(now);
        }
        let row = self.row(values);
        let found = self.model.as_ref().and_then(|model| model.judge(&row));
        let told = self.follow(now, found, beside.ill);
        if self.beyond >= USUAL_ROWS {
            self.begin_anew();
        }
        if !beside.ill && self.told.is_none() && self.beyond < TOLD_AFTER {
            self.learn(row);
        }
        told
    }

    /// Learns a row that was measured before this daemon began.
    pub fn recall(&mut self, values: &[(&Name, f64)]) {
        let row = self.row(values);
        self.learn(row);
    }

    fn row(&mut self, values: &[(&Name, f64)]) -> Vec<f64> {
        let mut row = vec![f64::NAN; self.columns.len()];
        for (name, value) in values {
            match self.columns.iter().position(|column| column == *name) {
                Some(place) => row[place] = *value,
                None if self.columns.len() < COLUMNS.0 => {
                    self.columns.push((*name).clone());
                    row.push(*value);
                }
                None => {}
            }
        }
        row
    }

    fn learn(&mut self, row: Vec<f64>) {
        if self.rows.len() == MEMORY {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        self.since_fit += 1;
        if self.rows.len() >= YOUNG && (self.since_fit >= FIT_EVERY || self.model.is_none()) {
            self.since_fit = 0;
            self.forget();
            self.model = Model::of(&self.rows, self.columns.len());
        }
    }

    /// Columns of which nothing came in all that is remembered.
    fn forget(&mut self) {
        let is_silent =
            |column: usize| self.rows.iter().all(|row| row.get(column).is_none_or(|x| x.is_nan()));
        let silent: Vec<bool> = (0..self.columns.len()).map(is_silent).collect();
        let stays = |place: &mut usize| {
            *place += 1;
            !silent.get(*place - 1).copied().unwrap_or(false)
        };
        let mut place = 0;
        self.columns.retain(|_| stays(&mut place));
        for row in &mut self.rows {
            let mut place = 0;
            row.retain(|_| stays(&mut place));
        }
    }

    /// Tells after three rows beyond the limit, and that it is over after three within.
    fn follow(&mut self, now: Timestamp, found: Option<Found>, ill: bool) -> Option<NumberSign> {
        let explained = self.alone.is_some_and(|alone| now.since(alone) <= EXPLAINS);
        let beyond = found.filter(|found| found.times > 1.0);
        (self.beyond, self.within) =
            if beyond.is_some() { (self.beyond + 1, 0) } else { (0, self.within + 1) };
        match (self.told, beyond) {
            (None, Some(found)) if self.beyond >= TOLD_AFTER && !explained && !ill => {
                self.told = Some(now);
                Some(self.sign(now, now, &found))
            }
            (Some(since), _) if now.since(since) >= USUAL_AFTER => {
                self.begin_anew();
                Some(NumberSign {
                    measure: Measure::Other,
                    series: SERIES.into(),
                    surprise: 0,
                    text: String::new(),
                })
            }
            (Some(_), None) if self.within >= TOLD_AFTER => {
                self.told = None;
                Some(NumberSign {
                    measure: Measure::Other,
                    series: SERIES.into(),
                    surprise: 0,
                    text: String::new(),
                })
            }
            (Some(since), Some(found)) if !ill => Some(self.sign(now, since, &found)),
            (None | Some(_), _) => None,
        }
    }

    fn begin_anew(&mut self) {
        (self.told, self.model, self.beyond) = (None, None, 0);
        self.rows.clear();
    }

    fn sign(&self, now: Timestamp, since: Timestamp, found: &Found) -> NumberSign {
        let names: Vec<String> =
            found.most.iter().filter_map(|place| Some(self.columns.get(*place)?.to_string())).collect();
        let lasted = show(now.since(since) + ROLL_EVERY * TOLD_AFTER);
        let times = found.times.sqrt();
        let text = format!(
            "many small things at once, {times:.1}x as far from usual as they go, for {lasted}; most: {}",
            names.join(", ")
        );
        let surprise = (SURPRISE + 10.0 * found.times.log2()).clamp(0.0, 60.0) as u16;
        NumberSign {
            measure: Measure::Other,
            series: SERIES.into(),
            surprise,
            text: text.chars().take(256).collect(),
        }
    }
}

/// How a row looks.
#[derive(Clone, Debug)]
struct Found {
    /// The Q-statistic beside its limit, without what one series alone explains.
    times: f64,
    /// The three that explain most of it, the first most.
    most: Vec<usize>,
}

impl Model {
    /// `None` if too few series move.
    fn of(rows: &VecDeque<Vec<f64>>, width: usize) -> Option<Self> {
        let columns: Vec<(usize, f64, f64)> = (0..width).filter_map(|column| measure(rows, column)).collect();
        if columns.len() < COLUMNS.1 {
            return None;
        }
        let values = rows.iter().flat_map(|row| scaled(row, &columns)).collect();
        let rows = Rows { width: columns.len(), values, weights: vec![1.0; rows.len()] };
        let space = Space::of(&rows, &vec![true; rows.weights.len()]);
        let free = (0..columns.len()).map(|place| {
            let unit: Vec<f64> =
                (0..columns.len()).map(|other| f64::from(u8::from(other == place))).collect();
            space.rest(&unit)[place].max(LEAST_FREE)
        });
        Some(Self { free: free.collect(), columns, space })
    }

    /// `None` if too little of it was measured, or nothing can be off.
    fn judge(&self, row: &[f64]) -> Option<Found> {
        let known = self.columns.iter().filter(|(place, ..)| row.get(*place).is_some_and(|x| x.is_finite()));
        if (known.count() as f64) < self.columns.len() as f64 * KNOWN || self.space.limit() <= 0.0 {
            return None;
        }
        let rest = self.space.rest(&self.space.scaled(&scaled(row, &self.columns)));
        let parts: Vec<f64> = rest.iter().zip(&self.free).map(|(left, free)| left * left / free).collect();
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by(|a, b| parts[*b].total_cmp(&parts[*a]));
        let alone = order.first().map_or(0.0, |place| parts[*place]);
        let all: f64 = rest.iter().map(|left| left * left).sum();
        let most = order.iter().take(3).map(|place| self.columns[*place].0).collect();
        Some(Found { times: (all - alone).max(0.0) / self.space.limit(), most })
    }
}

/// Middle and spread of a column, by medians; `None` if it is mostly missing, or never moves.
fn measure(rows: &VecDeque<Vec<f64>>, column: usize) -> Option<(usize, f64, f64)> {
    let mut known: Vec<f64> =
        rows.iter().filter_map(|row| row.get(column).copied()).filter(|value| value.is_finite()).collect();
    if (known.len() as f64) < rows.len() as f64 * KNOWN {
        return None;
    }
    let middle = middle(&mut known)?;
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let deviation =
        (known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / known.len() as f64).sqrt();
    let mut apart: Vec<f64> = known.iter().map(|value| (value - middle).abs()).collect();
    let robust = self::middle(&mut apart)? * MEDIANS;
    let spread = if robust > deviation * 0.05 { robust } else { deviation };
    (spread > middle.abs() * 1e-9 && spread > 0.0).then_some((column, middle, spread))
}

/// The looked-at values in spreads from their middle; what is missing is in the middle.
fn scaled(row: &[f64], columns: &[(usize, f64, f64)]) -> Vec<f64> {
    let one = |(place, middle, spread): &(usize, f64, f64)| {
        let value = row.get(*place).copied().filter(|value| value.is_finite());
        value.map_or(0.0, |value| ((value - middle) / spread).clamp(-FARTHEST, FARTHEST))
    };
    columns.iter().map(one).collect()
}

fn middle(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::measure::What;
    use super::*;
    use holdfast_core::subject::Subject;

    const DAY: u64 = 8_640;
    const WIDTH: usize = 12;

    /// A machine of twelve series: all go with its load, which has a day and bursts, some with its disk; each has noise
    /// of its own, one creeps, one jumps now and then.
    struct World {
        state: u64,
        load: f64,
        disk: f64,
        names: Vec<Name>,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let name = |n: usize| Name {
                subject: Subject::Vm("orders".parse().unwrap()),
                what: What::DiskFree(format!("/{n}")),
            };
            Self {
                state: seed.wrapping_mul(0x9E37_79B9) + 1,
                load: 0.0,
                disk: 0.0,
                names: (0..WIDTH).map(name).collect(),
            }
        }

        fn uniform(&mut self) -> f64 {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
        }

        /// The values of a moment, each moved by so many of its own noises.
        fn row(&mut self, at: u64, moved: impl Fn(usize) -> f64) -> Vec<f64> {
            self.load = 0.98 * self.load + 0.2 * self.normal();
            self.disk = 0.7 * self.disk + if self.uniform() < 0.02 { 6.0 * self.uniform() } else { 0.0 };
            let day = 2.0 * (std::f64::consts::TAU * (at % DAY) as f64 / DAY as f64).sin();
            let jump = if self.uniform() < 0.003 { 30.0 } else { 0.0 };
            let noises: Vec<f64> = (0..WIDTH).map(|_| self.normal()).collect();
            let row = |n: usize, noise: f64| {
                let by_load = (day + self.load) * (0.5 + 0.2 * n as f64);
                let by_disk = if n.is_multiple_of(3) { self.disk * (1.0 + 0.1 * n as f64) } else { 0.0 };
                let own = match n {
                    4 => at as f64 * 1e-3,
                    7 => jump,
                    _ => 0.0,
                };
                100.0 + by_load + by_disk + own + 0.5 * (noise + moved(n))
            };
            noises.into_iter().enumerate().map(|(n, noise)| row(n, noise)).collect()
        }

        /// So many rows; what is told, with its row.
        fn run(&mut self, rows: u64, moved: impl Fn(u64, usize) -> f64) -> Vec<(u64, NumberSign)> {
            let (mut together, mut told) = (Together::default(), Vec::new());
            for at in 0..rows {
                let row = self.row(at, |n| moved(at, n));
                let values: Vec<(&Name, f64)> = self.names.iter().zip(row).collect();
                let sign = together.observe(Timestamp::from_secs(at * 10), &values, Beside::default());
                told.extend(sign.map(|sign| (at, sign)));
            }
            told
        }
    }

    #[test]
    fn healthy_days_stay_quiet() {
        let told: Vec<usize> = (1..=10).map(|seed| World::new(seed).run(2 * DAY, |_, _| 0.0).len()).collect();
        assert_eq!(told, [0; 10], "of twenty healthy days");
    }

    #[test]
    fn a_small_shift_in_many_series_at_once_is_told_and_a_shift_in_one_is_left_to_its_own_judge() {
        let many = |seed: u64| {
            World::new(seed).run(3_000, |at, n| {
                if (2_000..2_300).contains(&at) { if n % 2 == 0 { 4.0 } else { -4.0 } } else { 0.0 }
            })
        };
        for seed in 1..=10 {
            let told = many(seed);
            let first = told.first().map(|(at, sign)| (*at, sign.text.clone()));
            let (at, text) = first.unwrap();
            assert!(
                (2_002..2_030).contains(&at) && text.contains("many small things at once"),
                "{seed}: {at} {text}"
            );
            assert_eq!(text.matches("free space of /").count(), 3, "{text}");
            let last = told.last().unwrap();
            assert!(last.1.surprise == 0 && (2_300..2_330).contains(&last.0), "{seed}: {last:?}");
        }
        for seed in 1..=10 {
            let one = World::new(seed).run(3_000, |at, n| if at >= 2_000 && n == 5 { 12.0 } else { 0.0 });
            let rows: Vec<u64> = one.iter().map(|(at, _)| *at).collect();
            assert!(rows.is_empty(), "{seed}: {rows:?} {:?}", one.first());
        }
    }

    #[test]
    fn an_incident_teaches_nothing_and_a_series_that_was_told_by_itself_explains_the_rest() {
        let (mut world, mut together, mut told) = (World::new(7), Together::default(), Vec::new());
        for at in 0..2_000 {
            let is_moved = at >= 1_000;
            let row = world.row(at, |n| if is_moved { 8.0 * f64::from(u8::from(n % 2 == 0)) } else { 0.0 });
            let values: Vec<(&Name, f64)> = world.names.iter().zip(row).collect();
            let beside = Beside { ill: (1_000..1_900).contains(&at), alone: at == 1_899 };
            told.extend(together.observe(Timestamp::from_secs(at * 10), &values, beside).map(|_| at));
        }
        assert!(told.first().is_some_and(|at| (1_929..1_940).contains(at)), "{told:?}");
    }
}
