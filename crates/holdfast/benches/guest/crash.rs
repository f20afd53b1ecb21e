//! The VM's process is killed: how soon another one runs, and how soon a client's rows are acknowledged again,
//! beside a bare restart loop; and two VMs at once beside one.

use crate::Bench;
use crate::bare::Bare;
use crate::client::Client;
use crate::end;
use crate::figure::{Must, Row, Unit, median};
use crate::world::{Born, Lookout, World, boot_time, processor_time};
use rustix::process::{Signal, pidfd_send_signal};
use std::path::PathBuf;
use std::time::Duration;

/// What a kill cost, in seconds: until another QEMU ran, until a row was acknowledged again, and how much
/// processor time that QEMU had used by then.
#[derive(Clone, Copy)]
struct Cost {
    process: f64,
    served: f64,
    used: f64,
}

/// Something that can be killed and comes back by itself.
trait Victim {
    fn kill(&self);
    /// What its command line names and no other.
    fn mark(&self) -> PathBuf;
    fn client(&self) -> &Client;
}

/// A VM under Holdfast.
struct Held<'a> {
    world: &'a World,
    vm: &'static str,
    client: Client,
}

impl<'a> Held<'a> {
    fn new(world: &'a World, vm: &'static str) -> Self {
        let client = Client::start(&world.address(vm));
        client.write(false);
        Self { world, vm, client }
    }
}

impl Victim for Held<'_> {
    fn kill(&self) {
        let process = end::hold(self.world.lab.pid(self.vm)).expect("it runs");
        pidfd_send_signal(process, Signal::KILL).expect("it may be killed");
    }

    fn mark(&self) -> PathBuf {
        self.world.lab.state().join("run").join(self.vm)
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

/// The same guest in a bare restart loop. Its client ends first.
struct Looped {
    client: Client,
    bare: Bare,
}

impl Looped {
    fn new(world: &World, name: &str) -> Self {
        let bare = Bare::like(&world.lab, "orders", name);
        let client = Client::start(&bare.address);
        client.write(false);
        Self { client, bare }
    }
}

impl Victim for Looped {
    fn kill(&self) {
        self.bare.kill();
    }

    fn mark(&self) -> PathBuf {
        self.bare.folder.clone()
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

/// Kills all of these at the same moment, while their clients write; what the last one to come back cost.
fn kill(world: &World, sample: u32, victims: &[&dyn Victim]) -> Cost {
    world.rest(sample);
    victims.iter().for_each(|victim| victim.client().write(true));
    end::pause(WRITES);
    let lookout = Lookout::new();
    let began = boot_time();
    victims.iter().for_each(|victim| victim.kill());
    let last = |times: Vec<f64>| times.into_iter().fold(began, f64::max) - began;
    let born: Vec<Born> = victims.iter().map(|victim| lookout.qemu(&victim.mark())).collect();
    let served = last(victims.iter().map(|victim| victim.client().back_after(began)).collect());
    let used = born.iter().map(|born| processor_time(born.pid)).fold(0.0, f64::max);
    victims.iter().for_each(|victim| victim.client().write(false));
    Cost { process: last(born.iter().map(|born| born.at).collect()), served, used }
}

/// A client writes for so long before the kill.
const WRITES: Duration = Duration::from_secs(1);

/// One time of a kill: what it is, its unit, how it is read.
type Part = (&'static str, Unit, fn(&Cost) -> f64);
const PROCESS: Part = ("kill to new QEMU", Unit::Millis, |cost| cost.process * 1e3);
const SERVED: Part = ("kill to a row acknowledged", Unit::Seconds, |cost| cost.served);
const USED: Part = ("processor time of QEMU until then", Unit::Seconds, |cost| cost.used);

fn of(costs: &[Cost], part: fn(&Cost) -> f64) -> Vec<f64> {
    costs.iter().map(part).collect()
}

/// Of the medians.
fn compare(ours: &[f64], theirs: &[f64], how: fn(f64, f64) -> f64) -> f64 {
    median(ours).zip(median(theirs)).map_or(f64::NAN, |(ours, theirs)| how(ours, theirs))
}

/// `vm-kill`
pub fn vm_kill(bench: &mut Bench) {
    const FIGURE: &str = "vm-kill";
    bench.say("vm-kill: two guests boot, one under Holdfast, one in a bare loop");
    let world = World::with(&["orders"]);
    let looped = Looped::new(&world, "bare");
    let held = Held::new(&world, "orders");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for sample in 0..bench.runs {
        bench.say(&format!("vm-kill: kill {} of {}", sample + 1, bench.runs));
        ours.push(kill(&world, sample, &[&held]));
        theirs.push(kill(&world, sample, &[&looped]));
        bench.sample();
    }
    world.rest(0);
    for (what, unit, part) in [PROCESS, SERVED, USED] {
        bench.row(Row::new(FIGURE, format!("{what}: Holdfast"), unit, of(&ours, part)));
        bench.row(Row::new(FIGURE, format!("{what}: bare restart loop"), unit, of(&theirs, part)));
    }
    let [process, served] = [PROCESS, SERVED].map(|(_, _, part)| (of(&ours, part), of(&theirs, part)));
    let more = compare(&process.0, &process.1, |ours, theirs| ours - theirs);
    let row = Row::new(FIGURE, "new QEMU later than in the bare loop", Unit::Millis, vec![more]);
    bench.row(row.must(Must::AtMost(50.0)));
    let more = compare(&served.0, &served.1, |ours, theirs| 100.0 * (ours - theirs) / theirs);
    let row = Row::new(FIGURE, "outage above the guest's own start", Unit::Percent, vec![more]);
    bench.row(row.must(Must::AtMost(10.0)));
    let (acked, lost) = held.client.count();
    let row = Row::new(FIGURE, "acknowledged rows lost", Unit::Count, vec![lost as f64]);
    bench.row(row.must(Must::AtMost(0.0)).note(format!("of {acked}")));
}

/// `two-at-once`
pub fn two_at_once(bench: &mut Bench) {
    const FIGURE: &str = "two-at-once";
    bench.say("two-at-once: four guests boot, two under Holdfast, two in bare loops");
    let world = World::with(&["orders", "billing"]);
    let looped = [Looped::new(&world, "bare-a"), Looped::new(&world, "bare-b")];
    let held = [Held::new(&world, "orders"), Held::new(&world, "billing")];
    let (mut one, mut two) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for sample in 0..bench.runs {
        bench.say(&format!("two-at-once: kill {} of {}", sample + 1, bench.runs));
        let turn = sample as usize % 2;
        one[0].push(kill(&world, sample, &[&held[turn]]));
        two[0].push(kill(&world, sample, &[&held[0], &held[1]]));
        one[1].push(kill(&world, sample, &[&looped[turn]]));
        two[1].push(kill(&world, sample, &[&looped[0], &looped[1]]));
        bench.sample();
    }
    for (what, unit, part) in [PROCESS, SERVED] {
        let ratio = |side: usize| compare(&of(&two[side], part), &of(&one[side], part), |two, one| two / one);
        bench.row(Row::new(FIGURE, format!("{what}: one VM"), unit, of(&one[0], part)));
        bench.row(Row::new(FIGURE, format!("{what}: the later of two"), unit, of(&two[0], part)));
        let row = Row::new(FIGURE, format!("{what}: two to one"), Unit::Times, vec![ratio(0)]);
        bench.row(row.must(Must::AtMost(1.2)).note("both start at once, and share the processors"));
        let row = Row::new(FIGURE, format!("{what}: two to one, bare loops"), Unit::Times, vec![ratio(1)]);
        bench.row(row.note("what two at once cost on this machine without Holdfast"));
    }
}
