//! Random worlds: every promise is checked at every step, then everything heals (I21).

use holdfast_sim::simulate::{Seeds, run};

/// Seeds that every check runs; `HOLDFAST_SEEDS` runs more.
const SEEDS: u64 = 10_000;

#[test]
fn random_worlds_keep_every_promise() {
    let count = std::env::var("HOLDFAST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run(Seeds { from: 0, count, mutant: None, threads, stop: true, dont_skip: false });
    if let Some(failure) = report.failures.first() {
        let timeline = failure.timeline.join("\n");
        panic!("seed {}: {}\n\n{}----\n{timeline}", failure.seed, failure.violation, failure.story);
    }
    assert_eq!(report.seeds, count);
}
