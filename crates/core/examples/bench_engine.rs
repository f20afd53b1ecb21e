//! How many inputs a second the engine takes in on one core, and whether an input costs more among many VMs.
//! Run with `cargo run --release -p holdfast-core --example bench_engine`.

use holdfast_core::action::{Ended, Fact, Found, Order, Outcome};
use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::lease::{Incarnation, Lease, Sighting, Token};
use holdfast_core::policy::{AppPolicy, Policies, VmPolicy};
use holdfast_core::signal::{
    AgentSign, AppSign, Counters, HypervisorSign, ProcessSign, ProcessState, RunState, Seen, Signal,
};
use holdfast_core::subject::{AppName, HostName, Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_witness::Eyewitness;
use std::time::Instant;

/// So many seconds of life lie behind each VM before anything is measured: detectors that still learn cost more.
const AGE: u64 = 300;
/// So many rounds over all VMs are one measurement.
const ROUNDS: u64 = 20;
/// Measurements, each of about as many inputs; the median counts.
const TIMES: usize = 7;

/// A VM of these herds is three subjects: itself, its guest and one application.
fn main() {
    let few = [Herd::of(34), Herd::of(100)];
    let many = [Herd::of(3_334), Herd::of(10_000)];
    for (few, many, subjects) in [(&few[0], &many[0], "10,000 subjects"), (&few[1], &many[1], "10,000 VMs")] {
        let copies = (many.names.len() / few.names.len()) as u64;
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            small.push(few.cost(copies)); // in turn, so that a busy machine slows both
            large.push(many.cost(1));
        }
        let (small, large) = (median(small), median(large));
        println!("{:>6} VMs  {:>9.0} inputs/s", few.names.len(), 1e9 / small);
        println!("{:>6} VMs  {:>9.0} inputs/s", many.names.len(), 1e9 / large);
        println!("growth of the cost of an input from a hundredth to {subjects}: {:.2}", large / small);
    }
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// Healthy VMs of the same age, and the engine that knows them.
struct Herd {
    app: AppName,
    names: Vec<VmName>,
    engine: Engine,
}

impl Herd {
    fn of(vms: u64) -> Self {
        let host: HostName = "atlas".parse().expect("a name");
        let app: AppName = "db".parse().expect("a name");
        let names: Vec<VmName> = (0..vms).map(|n| format!("vm{n}").parse().expect("a name")).collect();
        let engine = running(&host, &app, &names);
        let mut herd = Self { app, names, engine };
        let mut engine = std::mem::take(&mut herd.engine);
        herd.live(&mut engine, 10..10 + AGE);
        herd.engine = engine;
        herd
    }

    /// Nanoseconds an input. Few VMs are measured in several copies of them, so that both herds have the
    /// same age all the time.
    fn cost(&self, copies: u64) -> f64 {
        let (mut inputs, mut took) = (0, 0);
        for _ in 0..copies {
            let mut engine = self.engine.clone();
            self.live(&mut engine, 10 + AGE..11 + AGE); // the copy is at home in the caches as far as it fits
            let begun = Instant::now();
            inputs += self.live(&mut engine, 11 + AGE..11 + AGE + ROUNDS);
            took += begun.elapsed().as_nanos();
        }
        took as f64 / inputs as f64
    }

    /// Lets these seconds pass; how many inputs that were.
    fn live(&self, engine: &mut Engine, seconds: std::ops::Range<u64>) -> u64 {
        let vms = self.names.len() as u64;
        let mut inputs = 0;
        for second in seconds {
            for (n, name) in self.names.iter().enumerate() {
                inputs += tell(engine, &self.app, name, second, n as u64 * 900_000 / vms);
            }
        }
        inputs
    }
}

/// An engine that knows all these VMs to run.
fn running(host: &HostName, app: &AppName, names: &[VmName]) -> Engine {
    let mut policies = Policies::default();
    for name in names {
        let mut policy = VmPolicy::default();
        policy.apps.insert(app.clone(), AppPolicy { can_restart: true });
        policies.vms.insert(name.clone(), policy);
    }
    let mut engine = Engine::new();
    let now = Timestamp::from_secs(1);
    let started = Started { host: host.clone(), boot: "b".into(), wall_offset: 0 };
    let _ = engine.step(now, &Input::Started(started));
    let mut actions = engine.step(now, &Input::Configured(policies)).actions;
    while let Some(action) = actions.pop() {
        if action.order != Order::Inspect {
            continue;
        }
        let seen = Sighting::of(Eyewitness::here(), Incarnation(1));
        let lease = Some(Lease::adopting(action.vm.clone(), seen, Token(1), host.clone()));
        let found = Found::Running { seen, pid: 1, state: Some(RunState::Running), lease };
        let ended = Ended::Done(Fact::Found(found));
        actions.extend(engine.step(now, &Input::Outcome(Outcome { action: action.id, ended })).actions);
    }
    engine
}

/// What a healthy VM says in one period; how many inputs that were.
fn tell(engine: &mut Engine, app: &AppName, name: &VmName, second: u64, offset: u64) -> u64 {
    let at = Timestamp::from_micros(second * 1_000_000 + offset);
    let latency = Duration::from_millis(3);
    let vm = Subject::Vm(name.clone());
    let signs = [
        (
            vm.clone(),
            Seen::Process(ProcessSign::Alive { state: ProcessState::Running, cpu: latency, rss: 1 << 28 }),
        ),
        (vm.clone(), Seen::Hypervisor(HypervisorSign::Answered { state: RunState::Running, latency })),
        (vm, Seen::Hypervisor(HypervisorSign::Counters(Counters { reads: second, ..Counters::default() }))),
        (Subject::Guest(name.clone()), Seen::Agent(AgentSign::Answered { latency })),
        (Subject::App(name.clone(), app.clone()), Seen::Application(AppSign::Answered { latency })),
    ];
    let count = signs.len() as u64;
    for (subject, seen) in signs {
        let signal = Signal { subject, incarnation: Some(Incarnation(1)), at, seen };
        let reaction = engine.step(at, &Input::Signal(signal));
        assert!(reaction.actions.is_empty(), "a healthy VM is left alone");
    }
    count
}
