//! Does the detector of series mean the probabilities that it says? Made series of nine healthy kinds, with faults as the
//! detector's prior has them, and what share of what is told is real, by how sure it was; and how often a healthy series
//! is told.
//!
//! Usage: `cargo run --release -p holdfast-core --example series_reliability [FIRST_SEED LAST_SEED]`      (220 299)
//! The seeds 100 to 179 are those from which the probability was learned; take others.

mod world;

use std::error::Error;
use world::{KINDS, Kind, Told, run};

/// Rows of a series, and of how many seeds one is run: all lengths weigh alike, but the longest.
const LENGTHS: [(u64, u64); 3] = [(1_000, 1), (4_000, 1), (16_000, 4)];
/// What is told below this is not shown to anybody.
const BINS: [f64; 12] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, f64::INFINITY];

fn main() -> Result<(), Box<dyn Error>> {
    let seeds: Vec<u64> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let (first, last) = match seeds[..] {
        [] => (220, 299),
        [first, last] if first <= last => (first, last),
        _ => return Err("usage: series_reliability [FIRST_SEED LAST_SEED]".into()),
    };
    let mut told = Vec::new();
    println!("kind         rows  faults  found at 0.5, 0.9   of a healthy series told at 0.5, 0.9, 0.99");
    for kind in KINDS {
        for (rows, one_in) in LENGTHS {
            told.extend(one_kind(kind, rows, (first..=last).filter(|seed| seed % one_in == 0)));
        }
    }
    reliability(&told);
    Ok(())
}

/// Runs series of one kind and length, prints what came of it, and gives what was told of those with faults.
fn one_kind(kind: Kind, rows: u64, seeds: impl Iterator<Item = u64>) -> Vec<Told> {
    let (mut all, mut faults, mut found, mut healthy) = (Vec::new(), 0, [0; 2], [0; 3]);
    let mut series = 0;
    for seed in seeds {
        let seen = run(kind, rows, seed, true);
        series += 1;
        faults += seen.faults;
        found.iter_mut().zip(seen.found).for_each(|(all, one)| *all += one);
        all.extend(seen.told);
        for told in run(kind, rows, seed, false).told {
            for (count, least) in healthy.iter_mut().zip([0.5, 0.9, 0.99]) {
                *count += usize::from(told.probability >= least);
            }
        }
    }
    let of = |count: usize, all: usize| count as f64 / all.max(1) as f64;
    let [half, sure] = found.map(|count| of(count, faults));
    let [often, seldom, never] = healthy.map(|count| of(count, series));
    let name = format!("{kind:?}");
    println!(
        "{name:<11} {rows:>5}  {faults:>6}  {half:>12.2} {sure:.2}   {often:>29.2} {seldom:.2} {never:.3}"
    );
    all
}

/// What share of what was told is real, by what was said; and two measures of the whole.
fn reliability(told: &[Told]) {
    println!("\nsaid         times  mean said  real");
    let mut apart = 0.0;
    for bin in BINS.windows(2) {
        let all: Vec<&Told> =
            told.iter().filter(|told| (bin[0]..bin[1]).contains(&told.probability)).collect();
        let said: f64 = all.iter().map(|told| told.probability).sum();
        let real = all.iter().filter(|told| told.is_real).count() as f64;
        apart += (said - real).abs();
        let count = all.len().max(1) as f64;
        println!(
            "{:.2} to {:.2}  {:>6}  {:>9.3}  {:.3}",
            bin[0],
            bin[1].min(1.0),
            all.len(),
            said / count,
            real / count
        );
    }
    let brier: f64 =
        told.iter().map(|told| (told.probability - f64::from(u8::from(told.is_real))).powi(2)).sum();
    let count = told.len().max(1) as f64;
    println!(
        "\nBrier score {:.4}, expected calibration error {:.4}, of {} told",
        brier / count,
        apart / count,
        told.len()
    );
}
