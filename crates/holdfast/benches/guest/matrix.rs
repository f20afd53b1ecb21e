//! Every fault that can be injected, several times: what was named beside what was injected, what was done about a wrong
//! cause, and whether the log line that proves the cause is shown.

use crate::Bench;
use crate::drills::{NEEDS_A_DISK, held};
use crate::end;
use crate::figure::{Must, Row, Unit, tally};
use crate::hardship::{ALL, Hardship, Place, with_a_password, with_a_wal_disk};
use crate::lab::holdfast;
use crate::world::World;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

const FIGURE: &str = "matrix";
/// What throws somebody out.
const DESTRUCTIVE: [&str; 3] = ["restart-app", "reset-guest", "restart-vm"];

/// Words of the line that proves a fault, for those that have anything logged; any of them will do.
const PROOFS: [(&str, &[&str]); 8] = [
    ("guest-panic", &["Kernel panic"]),
    ("disk-full", &["No space left on device"]),
    ("wal-full", &["No space left on device"]),
    ("memory-hog", &["Out of memory", "Kernel panic"]),
    ("connections-full", &["remaining connection slots", "too many clients"]),
    ("password-rotated", &["password authentication failed"]),
    ("page-damaged", &["invalid page", "page verification failed"]),
    ("data-deleted", &["No such file or directory", "is missing", "lock file"]),
];

/// What a fault may lead to besides, and is rightly repaired then: a database that gave up is down.
const LEADS_TO: [(&str, &str); 4] = [
    ("disk-full", "AppDown"),
    ("wal-full", "AppDown"),
    ("data-deleted", "AppDown"),
    ("memory-hog", "AppDown"),
];

/// One fault, and how it went each time.
struct Cell {
    fault: String,
    expected: Vec<String>,
    runs: Vec<Run>,
    not_held: u32,
}

/// One time.
struct Run {
    report: Value,
    /// All that was seen meanwhile.
    incidents: Vec<Value>,
    /// Destructive remedies for a cause that it was not.
    wrong: Vec<String>,
    /// Whether `explain` shows the proving line; `None` where nothing is logged, or nothing need be named.
    proven: Option<bool>,
}

/// `matrix`
pub fn measure(bench: &mut Bench) {
    let only = bench.faults.clone();
    let wanted = |fault: &str| only.is_empty() || only.iter().any(|wanted| wanted == fault);
    let drills = drills().into_iter().filter(|cell| wanted(&cell.fault));
    let (laid_out, plain): (Vec<Cell>, Vec<Cell>) = drills.partition(|cell| cell.fault == NEEDS_A_DISK);
    let drill = |world: &World, cell: &Cell, round| {
        let report = held(world, &cell.fault, round)?;
        Some(Run::of(world, &cell.expected, report))
    };
    let mut cells = hold(bench, plain, with_a_password, drill);
    cells.extend(hold(bench, laid_out, with_a_wal_disk, drill));
    for hardship in ALL.iter().filter(|hardship| wanted(hardship.name)) {
        cells.extend(befall(bench, hardship));
    }
    for cell in &cells {
        bench.row(cell.row());
    }
    sums(bench, &cells);
    bench.tell(&format!("what was named (columns) when what was injected (rows):\n{}", confusion(&cells)));
}

/// All that `holdfast drill run` can do.
fn drills() -> Vec<Cell> {
    let output = holdfast().args(["drill", "list", "--json"]).output().expect("the program");
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    list.iter().map(|drill| Cell::of(words(&drill["fault"]).remove(0), words(&drill["expected"]))).collect()
}

fn befall(bench: &mut Bench, hardship: &Hardship) -> Vec<Cell> {
    let expected = hardship.expected.iter().map(|fault| (*fault).to_owned()).collect();
    let cells = vec![Cell::of(hardship.name.to_owned(), expected)];
    hold(bench, cells, hardship.place, |place: &Place, cell, round| {
        let report = hardship.held(place, round)?;
        Some(Run::of(&place.world, &cell.expected, report))
    })
}

/// Does each of them in turn, and again, in a laboratory that lasts until something could not be done in it.
fn hold<L>(
    bench: &mut Bench,
    mut cells: Vec<Cell>,
    make: impl Fn() -> L,
    once: impl Fn(&L, &Cell, u32) -> Option<Run>,
) -> Vec<Cell> {
    let mut lab: Option<L> = None;
    for round in 0..bench.drill_runs {
        for cell in &mut cells {
            bench.say(&format!("matrix: {}, {} of {}", cell.fault, round + 1, bench.drill_runs));
            let mut tries = (0..2).map(|_| {
                let run = catch_unwind(AssertUnwindSafe(|| once(lab.get_or_insert_with(&make), cell, round)));
                end::unless_stopped();
                let run = run.ok().flatten();
                if run.is_none() {
                    lab = None; // who knows how it is
                }
                run
            });
            let run = tries.find_map(|run| run);
            drop(tries);
            cell.not_held += u32::from(run.is_none());
            cell.runs.extend(run);
            bench.sample();
        }
    }
    cells
}

/// A text, or each of a list.
fn words(value: &Value) -> Vec<String> {
    let one = std::slice::from_ref(value);
    let all = value.as_array().map_or(one, Vec::as_slice);
    all.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
}

impl Cell {
    fn of(fault: String, expected: Vec<String>) -> Self {
        Self { fault, expected, runs: Vec::new(), not_held: 0 }
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().map(Run::named)
    }

    fn right(&self) -> usize {
        self.named().filter(|named| self.expected.iter().any(|expected| expected == named)).count()
    }

    fn proofs(&self) -> (usize, usize) {
        let asked = self.runs.iter().filter_map(|run| run.proven);
        (asked.clone().filter(|proven| *proven).count(), asked.count())
    }

    fn row(&self) -> Row {
        let what = format!("{}: sure; should be {}", self.fault, self.expected.join(" or "));
        let sure = self.runs.iter().filter_map(|run| run.report["diagnosed_s"].as_f64()).collect();
        let mut notes = vec![format!("named {}", tally(self.named()))];
        let wrong: Vec<&str> = self.runs.iter().flat_map(|run| &run.wrong).map(String::as_str).collect();
        if !wrong.is_empty() {
            notes.push(format!("WRONGLY {}", wrong.join(", ")));
        }
        let (shown, asked) = self.proofs();
        if asked > 0 {
            notes.push(format!("its line is shown {shown} of {asked}"));
        }
        let why = self.runs.iter().filter_map(|run| run.report["why"].as_str());
        let not_ok = tally(why);
        if !not_ok.is_empty() {
            notes.push(format!("not ok: {not_ok}"));
        }
        if self.not_held > 0 {
            notes.push(format!("{} not held", self.not_held));
        }
        let runs: Vec<Value> = self.runs.iter().map(Run::json).collect();
        Row::new(FIGURE, what, Unit::Seconds, sure).note(notes.join("; ")).with(json!(runs))
    }
}

impl Run {
    /// What the incidents say of it, beside its report.
    fn of(world: &World, expected: &[String], report: Value) -> Self {
        let since = report["injected"].as_f64().unwrap_or(0.0) - 0.05;
        let fault = report["fault"].as_str().unwrap_or_default();
        let follows = LEADS_TO.iter().filter(|(cause, _)| *cause == fault).map(|(_, follows)| *follows);
        let right: Vec<&str> = expected.iter().map(String::as_str).chain(follows).collect();
        let mut incidents = world.lab.incidents();
        incidents.retain(|incident| incident["opened"].as_f64().is_some_and(|opened| opened >= since));
        let mut wrong = Vec::new();
        for incident in &incidents {
            let named = incident["fault"].as_str().unwrap_or_default();
            let remedies = incident["remedies"].as_array().into_iter().flatten();
            let done = remedies.filter_map(|remedy| remedy["name"].as_str());
            let destructive = done.filter(|done| DESTRUCTIVE.contains(done));
            if !right.contains(&named) {
                wrong.extend(destructive.map(|remedy| format!("{remedy} for {named}")));
            }
        }
        let proven = proof(world, fault, &report);
        let run = Self { report, incidents, wrong, proven };
        if run.report["ok"] != true || !run.wrong.is_empty() || run.proven == Some(false) {
            run.tell(world);
        }
        run
    }

    /// What is needed to see why it went wrong.
    fn tell(&self, world: &World) {
        eprintln!("{:#}", self.report);
        for incident in self.incidents.iter().rev() {
            let told = world.lab.cli(&["explain", &incident["id"].to_string()]);
            eprintln!("{}", String::from_utf8_lossy(&told.stdout));
        }
    }

    fn named(&self) -> &str {
        self.report["named"].as_str().unwrap_or_default()
    }

    fn json(&self) -> Value {
        json!({ "report": self.report, "incidents": self.incidents, "wrong": self.wrong, "proven": self.proven })
    }
}

/// Whether `explain` marks a kept line of a log as the proof of the incident, and it is one of those that prove this fault.
/// What a probe or a timeline says in the same words is none. `None` where nothing was logged: a database may serve on a full
/// disk for seconds, and has nothing to say.
fn proof(world: &World, fault: &str, report: &Value) -> Option<bool> {
    let (_, lines) = PROOFS.iter().find(|(known, _)| *known == fault)?;
    let Some(id) = report["incident"].as_u64() else { return Some(false) };
    let told = world.lab.json(&["explain", &id.to_string()]);
    let evidence = told["evidence"].as_array().into_iter().flatten();
    let records = evidence.filter_map(|one| one["lines"]["records"].as_array()).flatten();
    let mut proofs =
        records.filter(|record| record["proves"] == true).filter_map(|record| record["text"].as_str());
    let proven = proofs.any(|text| lines.iter().any(|line| text.contains(line)));
    (proven || was_logged(world, lines, report["injected"].as_f64()?, told["closed"].as_f64()))
        .then_some(proven)
}

/// Whether the guest logged one of these lines from the fault to the end of its incident.
fn was_logged(world: &World, lines: &[&str], from: f64, to: Option<f64>) -> bool {
    let kept = world.lab.cli(&["logs", "orders", "--grep", &lines.join("|"), "--json", "-n", "1000"]);
    let kept = String::from_utf8_lossy(&kept.stdout).into_owned();
    let received =
        kept.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["received"].as_f64());
    let mut received = received.filter(|at| *at >= from);
    received.any(|at| to.is_none_or(|to| at <= to))
}

fn sums(bench: &mut Bench, cells: &[Cell]) {
    let of = |part: fn(&Cell) -> usize| cells.iter().map(part).sum::<usize>();
    let (done, right) = (of(|cell| cell.runs.len()), of(Cell::right));
    let not_held: u32 = cells.iter().map(|cell| cell.not_held).sum();
    let missing = (not_held > 0).then(|| format!("{not_held} could not be held"));
    let share = 100.0 * right as f64 / done as f64;
    let row = Row::new(FIGURE, "named cause right", Unit::Percent, vec![share]);
    let bearable = |cell: &&Cell| cell.expected.iter().any(|expected| expected == "none");
    let strict = || cells.iter().filter(|cell| !bearable(cell));
    let (named, asked): (usize, usize) =
        (strict().map(Cell::right).sum(), strict().map(|cell| cell.runs.len()).sum());
    let note = format!(
        "{right} of {done}, of {} faults; of the {} that users cannot bear and must be named: {named} of {asked}",
        cells.len(),
        strict().count()
    );
    bench.row(row.must(Must::AtLeast(90.0)).unless(missing).note(note));
    let wrong = of(|cell| cell.runs.iter().map(|run| run.wrong.len()).sum());
    let row = Row::new(FIGURE, "destructive actions on a wrong cause", Unit::Count, vec![wrong as f64]);
    bench.row(row.must(Must::AtMost(0.0)));
    let (shown, asked) = (of(|cell| cell.proofs().0), of(|cell| cell.proofs().1));
    if asked > 0 {
        let share = 100.0 * shown as f64 / asked as f64;
        let row = Row::new(FIGURE, "the log line that proves it is shown", Unit::Percent, vec![share]);
        bench.row(row.must(Must::AtLeast(100.0)).note(format!("{shown} of {asked}")));
    }
    let rows = |key: &str| {
        let all = cells.iter().flat_map(|cell| &cell.runs);
        all.filter_map(|run| run.report[key].as_f64()).sum::<f64>()
    };
    let row = Row::new(FIGURE, "acknowledged rows lost", Unit::Count, vec![rows("rows_lost")]);
    bench.row(row.must(Must::AtMost(0.0)).note(format!("of {:.0}", rows("rows_acked"))));
}

/// The table: a row for each fault that was injected, a column for each that was named, `none` first.
fn confusion(cells: &[Cell]) -> String {
    let mut names: Vec<&str> = cells.iter().flat_map(Cell::named).collect();
    names.sort_unstable_by_key(|name| (*name != "none", *name));
    names.dedup();
    let widest = cells.iter().map(|cell| cell.fault.len()).max().unwrap_or(0);
    let head: String = names.iter().map(|name| format!("  {name}")).collect();
    let mut lines = vec![format!("  {:widest$}{head}", "")];
    for cell in cells {
        let count = |name: &str| cell.named().filter(|named| *named == name).count();
        let numbers = names.iter().map(|name| match count(name) {
            0 => format!("  {:>width$}", "", width = name.len()),
            n => format!("  {n:>width$}", width = name.len()),
        });
        let line = format!("  {:widest$}{}", cell.fault, numbers.collect::<String>());
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}
