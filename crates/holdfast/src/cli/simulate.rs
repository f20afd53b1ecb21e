//! `holdfast simulate`: random worlds, the real engine, every invariant at every step.

use super::paint::{Tone, tint};
use super::{CliError, Exit, print_json};
use clap::Args;
use holdfast_sim::Mutant;
use holdfast_sim::simulate::{Report, Seeds, run};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

/// Seeds between two looks at how far it is.
const BATCH: u64 = 50;

/// Which worlds.
#[derive(Args)]
pub struct SimulateArgs {
    /// So many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Beginning with this one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Break Holdfast in this way, to see that it is found.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs them. Exit code 1 if an invariant was broken; the first seed that broke one is printed with its story.
pub fn simulate(args: &SimulateArgs) -> Result<Exit, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(args.seeds) };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos}/{len} seeds  {elapsed} of about {duration}")
    {
        bar.set_style(style);
    }
    let began = Instant::now();
    let mut all = Report::default();
    let mut from = args.seed;
    let end = args.seed.saturating_add(args.seeds);
    while from < end && all.failures.is_empty() {
        let count = BATCH.min(end - from);
        add(&mut all, run(Seeds { from, count, mutant: args.mutant, threads, stop: true, dont_skip: false }));
        from += count;
        bar.inc(count);
    }
    bar.finish_and_clear();
    let hours = all.vm_seconds as f64 / 3_600.0;
    let pace = hours / began.elapsed().as_secs_f64().max(1e-3);
    if args.json {
        print_json(&document(&all, hours, pace))?;
    } else {
        show(&all, hours, pace);
    }
    Ok(if all.failures.is_empty() { Exit::Fine } else { Exit::Failed })
}

fn add(all: &mut Report, more: Report) {
    all.seeds += more.seeds;
    all.vm_seconds += more.vm_seconds;
    all.inputs += more.inputs;
    for (fault, count) in more.faults {
        *all.faults.entry(fault).or_default() += count;
    }
    for (remedy, count) in more.remedies {
        *all.remedies.entry(remedy).or_default() += count;
    }
    all.failures.extend(more.failures);
}

fn document(all: &Report, hours: f64, pace: f64) -> serde_json::Value {
    let failures: Vec<_> = all
        .failures
        .iter()
        .map(|failure| {
            serde_json::json!({ "seed": failure.seed, "violation": failure.violation.to_string(),
                "story": failure.story, "timeline": failure.timeline })
        })
        .collect();
    serde_json::json!({ "v": 1, "seeds": all.seeds, "vm_hours": hours, "vm_hours_per_second": pace,
        "inputs": all.inputs, "faults": all.faults, "remedies": all.remedies, "failures": failures })
}

fn show(all: &Report, hours: f64, pace: f64) {
    if let Some(failure) = all.failures.first() {
        say!("{} {}: {}\n", tint(Tone::Bad, "seed"), failure.seed, failure.violation);
        say!("{}----\n{}\n", failure.story, failure.timeline.join("\n"));
    }
    let faults: u64 = all.faults.values().sum();
    let verdict = match all.failures.len() {
        0 => tint(Tone::Good, "no invariant was broken"),
        _ => tint(Tone::Bad, "an invariant was broken"),
    };
    say!(
        "{} seeds, {hours:.0} VM-hours ({pace:.0} a second), {faults} faults confirmed: {verdict}",
        all.seeds
    );
}
