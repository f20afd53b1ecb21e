//! Every drill, several times: is its cause named rightly, and is any acknowledged row lost?

use crate::Bench;
use crate::end;
use crate::figure::{Must, Row, Unit, median, tally};
use crate::world::World;
use serde_json::{Value, json};

const FIGURE: &str = "drills";

/// A drill that the demo guest has no disk for; `matrix` gives it one.
pub const NEEDS_A_DISK: &str = "wal-full";

/// The reports of one kind of drill.
struct Reports {
    fault: String,
    expected: String,
    reports: Vec<Value>,
    /// Drills that could not be held.
    not_held: u32,
}

/// `drills`
pub fn measure(bench: &mut Bench) {
    bench.say("drills: a guest boots");
    let mut world = World::with(&["orders"]);
    let mut all: Vec<Reports> = list(&world);
    for round in 0..bench.drill_runs {
        for drill in &mut all {
            bench.say(&format!("drills: {}, {} of {}", drill.fault, round + 1, bench.drill_runs));
            if !drill.held(&world, round) {
                world = another(bench, world);
                if !drill.held(&world, round) {
                    drill.not_held += 1;
                    world = another(bench, world);
                }
            }
            bench.sample();
        }
    }
    for drill in &all {
        bench.row(drill.row());
    }
    sums(bench, &all);
}

/// What can be injected.
fn list(world: &World) -> Vec<Reports> {
    let text = |drill: &Value, key: &str| drill[key].as_str().expect("a word").to_owned();
    let expected = |drill: &Value| {
        let all = drill["expected"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
    };
    let list = world.lab.json(&["drill", "list"]);
    let drills = list.as_array().into_iter().flatten().filter(|drill| drill["fault"] != NEEDS_A_DISK);
    let empty = |drill: &Value| Reports {
        fault: text(drill, "fault"),
        expected: expected(drill),
        reports: Vec::new(),
        not_held: 0,
    };
    drills.map(empty).collect()
}

/// A fresh guest, because the last drill left one that is not well.
fn another(bench: &mut Bench, old: World) -> World {
    bench.say("drills: another guest boots, the last one is not well");
    drop(old);
    World::with(&["orders"])
}

/// Holds a drill once, if the VM is well. Its report; `None` if it was not held.
pub fn held(world: &World, fault: &str, round: u32) -> Option<Value> {
    let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.rest(round)));
    end::unless_stopped();
    well.ok()?;
    let output = world.lab.cli(&["drill", "run", fault, "--vm", "orders", "--yes", "--json"]);
    end::unless_stopped();
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(report) if report["fault"].is_string() => Some(report),
        Ok(_) | Err(_) => {
            eprintln!("drill {fault}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
    }
}

impl Reports {
    /// Holds it once; whether there is a report.
    fn held(&mut self, world: &World, round: u32) -> bool {
        let report = held(world, &self.fault, round);
        let there = report.is_some();
        self.reports.extend(report);
        there
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        self.reports.iter().filter_map(|report| report[key].as_f64()).collect()
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.reports.iter().filter_map(|report| report["named"].as_str())
    }

    /// How many were named as they should be.
    fn right(&self) -> usize {
        self.named().filter(|named| self.expected.split(" or ").any(|expected| expected == *named)).count()
    }

    fn row(&self) -> Row {
        let what = format!("{}: outage; should be {}", self.fault, self.expected);
        let seconds = |key: &str| median(&self.numbers(key)).map_or("-".into(), |s| format!("{s:.2} s"));
        let remedies = tally(self.reports.iter().filter_map(|report| report["remedy"].as_str()));
        let not_ok = self.reports.iter().filter(|report| report["ok"] != true).count();
        let wrong = if self.not_held > 0 { format!("; {} not held", self.not_held) } else { String::new() };
        let note = format!(
            "named {}; sure after {}; by {remedies}; {not_ok} not ok{wrong}",
            tally(self.named()),
            seconds("diagnosed_s"),
        );
        Row::new(FIGURE, what, Unit::Seconds, self.numbers("outage_s")).note(note).with(json!(self.reports))
    }
}

fn sums(bench: &mut Bench, all: &[Reports]) {
    let of = |part: fn(&Reports) -> usize| all.iter().map(part).sum::<usize>();
    let rows = |key: &str| all.iter().flat_map(|drill| drill.numbers(key)).sum::<f64>();
    let (held, right) = (of(|drill| drill.reports.len()), of(Reports::right));
    let not_held: u32 = all.iter().map(|drill| drill.not_held).sum();
    let share = 100.0 * right as f64 / held as f64;
    let wrong = (not_held > 0).then(|| format!("{not_held} could not be held"));
    let note = format!("{right} of {held}, in {} drills", all.len());
    let row = Row::new(FIGURE, "named cause right", Unit::Percent, vec![share]);
    bench.row(row.must(Must::AtLeast(95.0)).unless(wrong).note(note));
    let row = Row::new(FIGURE, "acknowledged rows lost", Unit::Count, vec![rows("rows_lost")]);
    bench.row(row.must(Must::AtMost(0.0)).note(format!("of {:.0}", rows("rows_acked"))));
    let confusion = all.iter().map(|drill| (drill.fault.as_str(), tally(drill.named())));
    let widest = all.iter().map(|drill| drill.fault.len()).max().unwrap_or(0);
    let lines = confusion.map(|(fault, named)| format!("  {fault:<widest$}  {named}"));
    bench.tell(&format!("what each drill was named:\n{}", lines.collect::<Vec<_>>().join("\n")));
}
