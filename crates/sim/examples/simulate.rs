//! Runs random stories: `simulate COUNT [FROM] [MUTANT] [wishes] [whole]`; `wishes`: persons change their mind, and nothing is broken; `whole`: quiet time is not jumped over. Prints the first seed that fails, with its story.

use holdfast_sim::simulate::{Seeds, run_stories, story, wishes};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let dont_skip = arguments.last().is_some_and(|last| last == "whole");
    let tells = if arguments.iter().any(|word| word == "wishes") { wishes } else { story };
    let mutant = arguments
        .get(2)
        .filter(|name| !["whole", "wishes"].contains(&name.as_str()))
        .map(|name| name.parse().expect("a mutant"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let seeds = Seeds { from: number(1, 0), count: number(0, 1_000), mutant, threads, stop: true, dont_skip };
    let report = run_stories(seeds, tells);
    let took = begun.elapsed().as_secs_f64();
    let hours = report.vm_seconds as f64 / 3_600.0;
    println!("{} seeds in {took:.1}s on {threads} threads: {hours:.0} VM-hours", report.seeds);
    println!(
        "{:.0} VM-hours/s, {:.0} inputs an hour, {:.0} inputs/s a thread",
        hours / took,
        report.inputs as f64 / hours,
        report.inputs as f64 / took / threads as f64
    );
    println!("faults {:?}\nremedies {:?}", report.faults, report.remedies);
    if let Some(failure) = report.failures.first() {
        println!("seed {}: {}\n\n{}----", failure.seed, failure.violation, failure.story);
        println!("{}", failure.timeline.join("\n"));
    }
}
