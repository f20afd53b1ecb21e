//! The VM's process is killed: how soon another one runs, and how soon a client's rows are acknowledged again,
//! beside a bare restart loop; and two VMs at once beside one.

use crate::Bench;
use crate::bare::Bare;
use crate::client::Client;
use crate::figure::{Must, Row, Unit, median};
use crate::world::{Lookout, World, boot_time};
use rustix::process::Signal;
use std::path::Path;

/// What one kill cost, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    /// Until another QEMU ran.
    process: f64,
    /// Until a row was acknowledged again.
    served: f64,
}

/// Kills by `kill`, and waits for the new QEMU and the client.
fn cost(mark: &Path, client: &Client, kill: impl FnOnce()) -> Cost {
    let lookout = Lookout::new();
    let began = boot_time();
    kill();
    let process = lookout.qemu(mark) - began;
    Cost { process, served: client.back_after(began) - began }
}

fn kill(pid: i32) {
    if let Some(process) = crate::end::hold(pid) {
        let _gone = rustix::process::pidfd_send_signal(process, Signal::KILL);
    }
}

/// `vm-kill`
pub fn vm_kill(bench: &mut Bench) {
    const FIGURE: &str = "vm-kill";
    bench.say("vm-kill: two guests boot, one under Holdfast, one in a bare loop");
    let world = World::with(&["orders"]);
    let bare = Bare::like(&world.lab, "orders", "bare");
    let ours = Client::start(&address(&world, "orders"));
    let theirs = Client::start(&bare.address);
    let (mut held, mut looped) = (Vec::new(), Vec::new());
    for sample in 0..bench.runs {
        bench.say(&format!("vm-kill: kill {} of {}", sample + 1, bench.runs));
        world.rest(sample);
        let pid = world.lab.pid("orders");
        held.push(cost(&world.lab.state(), &ours, || kill(pid)));
        world.rest(sample + 5);
        looped.push(cost(&bare.folder, &theirs, || bare.kill()));
        bench.sample();
    }
    world.rest(0);
    let (acked, lost) = ours.count();
    let of = |costs: &[Cost], what: fn(&Cost) -> f64| costs.iter().map(what).collect::<Vec<_>>();
    let process = |cost: &Cost| cost.process * 1e3;
    let (a, b) = (of(&held, process), of(&looped, process));
    let more = difference(&a, &b);
    bench.row(Row::new(FIGURE, "SIGKILL of QEMU to new QEMU: Holdfast", Unit::Millis, a));
    bench.row(Row::new(FIGURE, "the same: bare restart loop", Unit::Millis, b));
    let row = Row::new(FIGURE, "Holdfast above the bare loop (of medians)", Unit::Millis, vec![more]);
    bench.row(row.must(Must::AtMost(50.0)));
    let served = |cost: &Cost| cost.served;
    let (a, b) = (of(&held, served), of(&looped, served));
    let more = 100.0 * difference(&a, &b) / median(&b).unwrap_or(f64::NAN);
    bench.row(Row::new(FIGURE, "SIGKILL to a row acknowledged: Holdfast", Unit::Seconds, a));
    bench.row(Row::new(FIGURE, "the same: bare restart loop", Unit::Seconds, b));
    let row = Row::new(FIGURE, "outage above the guest's own start (of medians)", Unit::Percent, vec![more]);
    bench.row(row.must(Must::AtMost(10.0)));
    let row = Row::new(FIGURE, "acknowledged rows lost", Unit::Count, vec![lost as f64]);
    bench.row(row.must(Must::AtMost(0.0)).note(format!("of {acked}")));
}

fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours).zip(median(theirs)).map_or(f64::NAN, |(ours, theirs)| ours - theirs)
}

fn address(world: &World, vm: &str) -> String {
    world.lab.vm(vm)["address"]["postgres"].as_str().expect("an address").to_owned()
}

/// One of the two VMs that may be killed at once.
struct Side {
    vm: &'static str,
    client: Client,
}

impl Side {
    fn of(world: &World, vm: &'static str) -> Self {
        Self { vm, client: Client::start(&address(world, vm)) }
    }
}

/// Kills all of these at the same moment; what the last of them cost.
fn together(world: &World, sides: &[&Side]) -> Cost {
    let pids: Vec<i32> = sides.iter().map(|side| world.lab.pid(side.vm)).collect();
    let lookout = Lookout::new();
    let began = boot_time();
    pids.iter().for_each(|pid| kill(*pid));
    let last = |times: Vec<f64>| times.into_iter().fold(began, f64::max) - began;
    let mark = |side: &Side| world.lab.state().join("run").join(side.vm);
    let process = last(sides.iter().map(|side| lookout.qemu(&mark(side))).collect());
    Cost { process, served: last(sides.iter().map(|side| side.client.back_after(began)).collect()) }
}

/// `two-at-once`
pub fn two_at_once(bench: &mut Bench) {
    const FIGURE: &str = "two-at-once";
    bench.say("two-at-once: two guests boot");
    let world = World::with(&["orders", "billing"]);
    let sides = [Side::of(&world, "orders"), Side::of(&world, "billing")];
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for sample in 0..bench.runs {
        bench.say(&format!("two-at-once: kill {} of {}", sample + 1, bench.runs));
        world.rest(sample);
        one.push(together(&world, &[&sides[sample as usize % 2]]));
        world.rest(sample + 5);
        two.push(together(&world, &[&sides[0], &sides[1]]));
        bench.sample();
    }
    type Part = (&'static str, Unit, fn(&Cost) -> f64);
    let parts: [Part; 2] = [
        ("SIGKILL to new QEMU", Unit::Millis, |cost| cost.process * 1e3),
        ("SIGKILL to a row acknowledged", Unit::Seconds, |cost| cost.served),
    ];
    for (what, unit, part) in parts {
        let of = |costs: &[Cost]| costs.iter().map(part).collect::<Vec<_>>();
        let (a, b) = (of(&one), of(&two));
        let ratio = median(&b).zip(median(&a)).map_or(f64::NAN, |(two, one)| two / one);
        bench.row(Row::new(FIGURE, format!("{what}: one VM"), unit, a));
        bench.row(Row::new(FIGURE, format!("{what}: the later of two"), unit, b));
        let row = Row::new(FIGURE, format!("{what}: two to one (of medians)"), Unit::Times, vec![ratio]);
        bench.row(row.must(Must::AtMost(1.2)));
    }
}
