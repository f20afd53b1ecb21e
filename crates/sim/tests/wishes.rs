//! Persons who change their mind: nothing is broken, and what they asked for last comes true and costs nothing.

use holdfast_sim::simulate::{Seeds, run_stories, wishes};
use holdfast_sim::{Happening, Story};

/// Seeds that every check runs; `HOLDFAST_SEEDS` runs more.
const SEEDS: u64 = 3_000;

#[test]
fn the_last_wish_comes_true_and_no_wish_is_taken_for_a_fault() {
    let count = std::env::var("HOLDFAST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let seeds = Seeds { from: 0, count, mutant: None, threads, stop: true, dont_skip: false };
    let report = run_stories(seeds, wishes);
    if let Some(failure) = report.failures.first() {
        let timeline = failure.timeline.join("\n");
        panic!("seed {}: {}\n\n{}----\n{timeline}", failure.seed, failure.violation, failure.story);
    }
    assert_eq!(report.seeds, count);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn nothing_happens_in_them_but_wishes() {
    for seed in 0..300 {
        let story = wishes(seed);
        assert!(story.events.iter().all(|event| matches!(event.what, Happening::Person(..))), "seed {seed}");
        assert_eq!(story.to_string().parse::<Story>().expect("it is a story"), story, "seed {seed}");
    }
}
