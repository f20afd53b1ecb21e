//! What the daemon costs while one VM is well: memory and processor.

use crate::Bench;
use crate::end;
use crate::figure::{Must, Row, Unit};
use crate::world::{World, boot_time, processor_time};
use std::time::Duration;

/// Watched for so long.
const WATCHED: Duration = Duration::from_secs(60);
/// Before that, so long until nothing is left of the start.
const SETTLED: Duration = Duration::from_secs(20);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Mebibytes in memory, and its fair share of what it shares with others.
    pub rss: f64,
    pub pss: f64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Held {
    /// By the process with this number.
    pub fn by(pid: i32) -> Self {
        let sums = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let mebibytes = |key: &str| {
            let line = sums.lines().find_map(|line| line.strip_prefix(key));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
        };
        let count =
            |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).map_or(0, Iterator::count);
        Self {
            rss: mebibytes("Rss:"),
            pss: mebibytes("Pss:"),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}

/// What a daemon may cost while it is watched.
pub struct Asked {
    pub figure: &'static str,
    pub what: &'static str,
    /// In mebibytes.
    pub memory: f64,
    /// In percent of a core.
    pub share: f64,
}

/// `daemon-cost`
pub fn measure(bench: &mut Bench) {
    const FIGURE: &str = "daemon-cost";
    bench.say("daemon-cost: a guest boots");
    let world = World::with(&["orders"]);
    watch(bench, &world, &Asked { figure: FIGURE, what: "daemon with one VM", memory: 25.0, share: 0.5 });
}

/// Measures the daemon of a world that is well.
pub fn watch(bench: &mut Bench, world: &World, asked: &Asked) {
    let Asked { figure, what, memory, share } = *asked;
    let pid = world.lab.daemon_pid();
    bench.say(&format!("{figure}: everything settles"));
    end::pause(SETTLED);
    world.lab.wait_well(crate::lab::SOON);
    bench.say(&format!("{figure}: watched for {} s", WATCHED.as_secs()));
    let (began, before) = (boot_time(), processor_time(pid));
    end::pause(WATCHED);
    let used = 100.0 * (processor_time(pid) - before) / (boot_time() - began);
    let held = Held::by(pid);
    bench.sample();
    let debug = cfg!(debug_assertions).then(|| "a debug build: not the figure that counts".to_owned());
    let threads = format!("{} threads, {} descriptors", held.threads, held.descriptors);
    let row = Row::new(figure, format!("{what}: resident memory"), Unit::Mebibytes, vec![held.rss]);
    bench.row(row.must(Must::AtMost(memory)).unless(debug.clone()).note(threads));
    bench.row(Row::new(figure, "the same, shared pages divided", Unit::Mebibytes, vec![held.pss]));
    let row = Row::new(figure, format!("{what}, 1 s probes: of a core"), Unit::Percent, vec![used]);
    bench.row(row.must(Must::AtMost(share)).unless(debug));
}
