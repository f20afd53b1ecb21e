//! Breaks the edges of Holdfast on purpose, one at a time: random stories must show each, by an invariant that
//! it can break. A checker that misses one is not to be trusted with the rest.

use holdfast_sim::Mutant;
use holdfast_sim::simulate::{Seeds, run};

/// So many seeds at most, until a mutant is caught.
const BOUND: u64 = 2_500;

/// The invariants that a mutant breaks.
const fn breaks(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        // What is not dead is called dead: a second copy, or a start that nothing allows.
        Mutant::DeathByPromise | Mutant::StoppedIsDead | Mutant::SilenceIsDeath => &["I1", "I2"],
        Mutant::GuessesOutcome => &["I1", "I2"],
        // Old orders and old leases.
        Mutant::IgnoresToken => &["I3"],
        Mutant::StartsBurned => &["I1", "I2"],
        // The death of the one is taken for that of the other, and its start for one that failed.
        Mutant::ReusesIncarnation => &["I9", "I10", "wish"],
        Mutant::ForgetsLeases => &["I3"],
        // What the journal promises.
        Mutant::ActsUnrecorded => &["I8"],
        Mutant::RepeatsIntents => &["I8", "I9"],
        Mutant::DoesTwice => &["I9"],
        Mutant::SkipsSync => &["I5", "I8", "I9"],
        // What persons and policies say.
        Mutant::IgnoresMaintenance => &["I5"],
        Mutant::IgnoresBudget | Mutant::IgnoresBackoff => &["I6"],
        Mutant::IgnoresBrake => &["I11"],
        // What is seen is told wrongly.
        Mutant::IgnoresStall => &["I10"],
        Mutant::StampsNow => &["I10", "I21"],
        Mutant::WallClock => &["I20"],
        // Nothing is told any more, so nothing comes to an end.
        Mutant::DropsOutcomes | Mutant::DeafAfterRestart => &["I21"],
        // What was ill is down for good.
        Mutant::EndsForGood => &["I21"],
        // A person is told that it is done, and it is not, or is taken for a fault.
        Mutant::ForgetsWishes | Mutant::StopsAside => &["wish"],
        // Others are harmed.
        Mutant::EndsChildren | Mutant::WrongVm => &["I7"],
    }
}

#[test]
fn every_mutant_is_caught_by_a_promise_that_it_breaks() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = Vec::new();
    for mutant in Mutant::ALL.iter().copied() {
        let report =
            run(Seeds { from: 0, count: BOUND, mutant: Some(mutant), threads, stop: true, dont_skip: false });
        match report.failures.first() {
            None => missed.push(format!("{mutant} ({}) goes unnoticed", mutant.says())),
            Some(failure) if !breaks(mutant).contains(&failure.violation.invariant) => {
                missed.push(format!(
                    "{mutant} ({}): seed {}: {}",
                    mutant.says(),
                    failure.seed,
                    failure.violation
                ));
            }
            Some(failure) => {
                println!("{mutant}: seed {} shows {}", failure.seed, failure.violation.invariant)
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
