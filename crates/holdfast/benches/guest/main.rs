//! Benchmarks with a real daemon, a real QEMU and a real guest: `cargo bench -p holdfast --bench guest`.
//!
//! They measure and report, they do not judge: exit 0 unless something could not be measured. Everything that is
//! started is ended, by process id, also after ctrl-c. What the figures mean: `docs/benchmarks.md`.

#[path = "../../tests/real/hands.rs"]
mod hands;
#[path = "../../tests/lab/mod.rs"]
mod lab;

mod bare;
mod busy;
mod client;
mod cost;
mod crash;
mod drills;
mod end;
mod faults;
mod figure;
mod hardship;
mod machine;
mod matrix;
mod soak;
mod world;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use figure::{Load, Row};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use world::World;

/// All figures, in the order in which they are measured.
const NAMES: [&str; 12] = [
    "daemon-cost",
    "busy-cost",
    "vm-kill",
    "two-at-once",
    "app-kill",
    "app-stop",
    "guest-panic",
    "vm-stop",
    "guest-hang",
    "drills",
    "matrix",
    "soak",
];

/// Measures Holdfast with a real guest.
#[derive(Parser)]
#[command(name = "guest")]
struct Args {
    /// What to measure; if nothing is named, everything but `drills`, which the matrix holds too.
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(NAMES))]
    names: Vec<String>,
    /// So many samples of each time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..1_000))]
    runs: u32,
    /// Each drill so often.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..1_000))]
    drill_runs: u32,
    /// Of the matrix, these faults only.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
    /// The soak lasts so long.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..10_000))]
    minutes: u32,
    /// A quick look: 3 samples, each drill once, a soak of 2 minutes.
    #[arg(long, conflicts_with_all = ["runs", "drill_runs", "minutes"])]
    short: bool,
    /// Write everything to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Collects the lines, and shows how it goes on.
pub struct Bench {
    /// Samples of each time.
    pub runs: u32,
    /// How often each drill is held.
    pub drill_runs: u32,
    /// Of the matrix, these faults only; all, if none is given.
    pub faults: Vec<String>,
    /// How long the soak lasts.
    pub soak: Duration,
    bar: ProgressBar,
    load: Load,
    rows: Vec<Value>,
    unmet: u32,
}

impl Bench {
    fn new(args: &Args) -> Self {
        let (runs, drill_runs, minutes) =
            if args.short { (3, 1, 2) } else { (args.runs, args.drill_runs, args.minutes) };
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}").expect("a template"));
        bar.enable_steady_tick(Duration::from_millis(200));
        let soak = Duration::from_secs(60) * minutes;
        Self {
            runs,
            drill_runs,
            faults: args.fault.clone(),
            soak,
            bar,
            load: Load::now(),
            rows: Vec::new(),
            unmet: 0,
        }
    }

    /// What is being done now.
    pub fn say(&mut self, text: &str) {
        self.load.look_again();
        if std::io::stderr().is_terminal() {
            self.bar.set_message(text.to_owned());
        } else {
            eprintln!("{}  {text}", jiff::Zoned::now().strftime("%H:%M:%S"));
        }
    }

    /// One sample more was taken.
    pub fn sample(&mut self) {
        self.load.look_again();
    }

    /// One figure is measured.
    pub fn row(&mut self, row: Row) {
        self.unmet += u32::from(row.met() == Some(false));
        self.rows.push(row.json(self.load));
        self.tell(&row.line(self.load));
    }

    /// Something for the result.
    pub fn tell(&self, text: &str) {
        self.bar.suspend(|| {
            println!("{text}");
            let _closed = std::io::stdout().flush();
        });
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    end::listen();
    let mut bench = Bench::new(&args);
    let machine = machine::about();
    bench.tell(&machine::line(&machine));
    bench.say("the guest's image is found or built");
    lab::image();
    bench.tell(&figure::heading());
    let wanted = |name: &str| match args.names.as_slice() {
        [] => name != "drills",
        names => names.iter().any(|wanted| wanted == name),
    };
    let mut failed = Vec::new();
    let mut faults: Option<World> = None;
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        bench.load = Load::now();
        let measured = catch_unwind(AssertUnwindSafe(|| measure(&mut bench, &mut faults, name)));
        if end::is_stopped() {
            break;
        }
        if measured.is_err() {
            faults = None; // who knows how it is
            failed.push(name);
            bench.tell(&format!("{name:<12} could not be measured, see above"));
        }
    }
    drop(faults);
    finish(&args, &bench, machine, &failed)
}

fn measure(bench: &mut Bench, world: &mut Option<World>, name: &str) {
    if faults::names().any(|fault| fault == name) {
        let world = world.get_or_insert_with(|| {
            bench.say(&format!("{name}: a guest boots"));
            World::with(&["orders"])
        });
        return faults::measure(bench, world, name);
    }
    *world = None; // two guests less to share the processors with
    match name {
        "daemon-cost" => cost::measure(bench),
        "busy-cost" => busy::measure(bench),
        "vm-kill" => crash::vm_kill(bench),
        "two-at-once" => crash::two_at_once(bench),
        "drills" => drills::measure(bench),
        "matrix" => matrix::measure(bench),
        "soak" => soak::measure(bench),
        other => resume_unwind(Box::new(format!("no figure {other}"))),
    }
}

fn finish(args: &Args, bench: &Bench, machine: Value, failed: &[&str]) -> ExitCode {
    bench.bar.finish_and_clear();
    end::sweep();
    if end::is_stopped() {
        return ExitCode::from(130);
    }
    let result = json!({ "v": 1, "machine": machine, "figures": bench.rows, "not_measured": failed });
    println!("{} lines, {} not met, {} figures not measured", bench.rows.len(), bench.unmet, failed.len());
    if let Some(file) = &args.json
        && let Err(error) = std::fs::write(file, format!("{result:#}\n"))
    {
        eprintln!("error: cannot write {}\ncause: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
