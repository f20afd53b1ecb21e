//! The detector of series means the probabilities that it says: made series, of which is known what is wrong in them.
//! `examples/series_reliability` measures the same over more of them, and prints tables.

#[path = "../examples/series_reliability/world.rs"]
mod world;

use world::{KINDS, Told, run};

/// Seeds that nothing was learned from (those were 100 to 179).
const SEEDS: std::ops::Range<u64> = 300..308;
const LENGTHS: [u64; 2] = [1_000, 4_000];

/// All that is told of series of all kinds and lengths; with how many series and faults there were, and how many of
/// these were found.
fn told(faults: bool) -> (Vec<Told>, [usize; 3]) {
    let (mut all, mut counts) = (Vec::new(), [0; 3]);
    for kind in KINDS {
        for seed in SEEDS {
            for rows in LENGTHS {
                let seen = run(kind, rows, seed, faults);
                all.extend(seen.told);
                counts = [counts[0] + 1, counts[1] + seen.faults, counts[2] + seen.found[0]];
            }
        }
    }
    (all, counts)
}

/// How many were told within these probabilities, and what share of them was real.
fn share(told: &[Told], from: f64, to: f64) -> (usize, f64) {
    let within: Vec<&Told> = told.iter().filter(|told| (from..to).contains(&told.probability)).collect();
    let real = within.iter().filter(|told| told.is_real).count();
    (within.len(), real as f64 / within.len().max(1) as f64)
}

#[test]
fn of_what_is_told_such_a_share_is_real_as_was_said() {
    let (told, [_, faults, found]) = told(true);
    let (sure, real) = share(&told, 0.9, 1.1);
    assert!(sure >= 50 && real >= 0.85, "at nine tenths and more: {real} of {sure}");
    let (likely, real) = share(&told, 0.5, 0.9);
    assert!(likely >= 50 && (0.5..0.95).contains(&real), "from one half: {real} of {likely}");
    let (seldom, real) = share(&told, 0.2, 0.5);
    assert!(seldom >= 100 && (0.15..0.45).contains(&real), "below one half: {real} of {seldom}");
    assert!(found * 2 > faults, "and it is not silent: {found} of {faults} faults");
    let square = |told: &Told| (told.probability - f64::from(u8::from(told.is_real))).powi(2);
    let brier = told.iter().map(square).sum::<f64>() / told.len() as f64;
    let always = told.iter().filter(|told| told.is_real).count() as f64 / told.len() as f64;
    assert!(brier < always * (1.0 - always) * 0.85, "it knows more than the rate: {brier} of {always}");
}

#[test]
fn a_healthy_series_is_hardly_ever_told_with_nine_tenths() {
    let (told, [series, ..]) = told(false);
    let at = |least: f64| told.iter().filter(|told| told.probability >= least).count();
    assert!(at(0.9) * 20 <= series, "{} told in {series} healthy series", at(0.9));
    assert!(at(0.5) * 2 <= series, "{} told with one half in {series}", at(0.5));
    assert!(told.iter().all(|told| !told.is_real));
}
