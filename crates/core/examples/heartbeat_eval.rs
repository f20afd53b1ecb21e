//! Deadlines of three failure detectors for one trace of heartbeats: Holdfast's, and two published ones
//! with their one published setting. `benches/heartbeat.sh` runs and scores it; see there.
//!
//! Usage: `heartbeat_eval TRACE_CSV FOLDER`. Reads `seq,sent,arrived` (seconds); writes `holdfast.csv`,
//! `cassandra.csv` and `akka.csv` into the folder, `seq,deadline` for each row of the trace. The detectors
//! see arrival times only.

use holdfast_core::evidence::heartbeat::Heartbeat;
use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The period of the traces in seconds, which the two others must be told (Akka) or not (Cassandra).
const PERIOD: f64 = 0.1;
/// Both keep so many intervals and suspect at this phi: their defaults.
const WINDOW: usize = 1_000;
const PHI: f64 = 8.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(trace), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: heartbeat_eval TRACE_CSV FOLDER".into());
    };
    let trace = read(&std::fs::read_to_string(trace)?)?;
    let folder = Path::new(&folder);
    let mut heartbeat = Heartbeat::new();
    write(&folder.join("holdfast.csv"), &trace, |at| {
        heartbeat.observe((at * 1e6).round() as u64);
        heartbeat.deadline() as f64 / 1e6
    })?;
    let mut cassandra = Cassandra::new();
    write(&folder.join("cassandra.csv"), &trace, |at| cassandra.deadline(at))?;
    let mut akka = Akka::new();
    write(&folder.join("akka.csv"), &trace, |at| akka.deadline(at))
}

/// The sequence numbers and the arrival times.
fn read(text: &str) -> Result<Vec<(u64, f64)>, Box<dyn Error>> {
    let row = |line: &str| -> Result<(u64, f64), Box<dyn Error>> {
        let mut cells = line.split(',');
        let (Some(seq), Some(_sent), Some(arrived)) = (cells.next(), cells.next(), cells.next()) else {
            return Err(format!("not seq,sent,arrived: {line}").into());
        };
        Ok((seq.parse()?, arrived.parse()?))
    };
    text.lines().skip(1).map(row).collect()
}

fn write(
    path: &Path,
    trace: &[(u64, f64)],
    mut deadline: impl FnMut(f64) -> f64,
) -> Result<(), Box<dyn Error>> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "seq,deadline")?;
    for &(seq, at) in trace {
        writeln!(file, "{seq},{:.6}", deadline(at).min(1e12))?;
    }
    Ok(file.flush()?)
}

/// The last intervals, with their sum and sum of squares.
#[derive(Default)]
struct Window {
    intervals: VecDeque<f64>,
    sum: f64,
    squares: f64,
}

impl Window {
    fn push(&mut self, interval: f64) {
        if self.intervals.len() == WINDOW
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= oldest;
            self.squares -= oldest * oldest;
        }
        self.intervals.push_back(interval);
        self.sum += interval;
        self.squares += interval * interval;
    }

    fn mean(&self) -> f64 {
        self.sum / self.intervals.len() as f64
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.intervals.len() as f64 - self.mean() * self.mean()).max(0.0).sqrt()
    }
}

/// Apache Cassandra's `FailureDetector`: exponential intervals, a window of 1,000 that begins with one of 2 s
/// (twice the gossip period), intervals above 2 s left out, `phi_convict_threshold` 8.
struct Cassandra {
    window: Window,
    last: Option<f64>,
}

impl Cassandra {
    const INITIAL: f64 = 2.0;

    fn new() -> Self {
        Self { window: Window::default(), last: None }
    }

    fn deadline(&mut self, at: f64) -> f64 {
        let interval = self.last.map_or(Self::INITIAL, |last| at - last);
        if interval <= Self::INITIAL {
            self.window.push(interval);
        }
        self.last = Some(at);
        at + PHI * std::f64::consts::LN_10 * self.window.mean()
    }
}

/// Akka's `PhiAccrualFailureDetector` as its cluster uses it: normal intervals in the logistic form, window
/// 1,000, threshold 8. Its `reference.conf` gives a heartbeat of 1 s with `acceptable-heartbeat-pause` 3 s
/// and `min-std-deviation` 100 ms; both are scaled to the period here: 3 periods and a tenth of one. (As
/// written, for a period of 1 s, no crash would be seen in under 3 s in any scenario.)
struct Akka {
    window: Window,
    last: Option<f64>,
    /// How many deviations above the mean phi is 8.
    deviations: f64,
}

impl Akka {
    const PAUSE: f64 = 3.0 * PERIOD;
    const LEAST_DEVIATION: f64 = 0.1 * PERIOD;

    fn new() -> Self {
        let mut window = Window::default();
        window.push(PERIOD - PERIOD / 4.0); // its first guess: the period, give or take a quarter
        window.push(PERIOD + PERIOD / 4.0);
        Self { window, last: None, deviations: Self::deviations() }
    }

    /// `phi(y) = -log10(e / (1 + e))`, `e = exp(-y (1.5976 + 0.070566 y^2))`, solved for phi = 8.
    fn deviations() -> f64 {
        let phi = |y: f64| {
            let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
            -(e / (1.0 + e)).log10()
        };
        let (mut low, mut high) = (0.0, 20.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if phi(middle) < PHI { low = middle } else { high = middle }
        }
        high
    }

    fn deadline(&mut self, at: f64) -> f64 {
        if let Some(last) = self.last {
            self.window.push(at - last);
        }
        self.last = Some(at);
        let deviation = self.window.deviation().max(Self::LEAST_DEVIATION);
        at + self.window.mean() + Self::PAUSE + self.deviations * deviation
    }
}
