//! One fault in the guest or its VM: how soon the right remedy is begun, or done.

use crate::Bench;
use crate::end;
use crate::figure::{Must, Row, Unit, tally};
use crate::hands::Start;
use crate::world::{Lookout, World, boot_time};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::{Value, json};

/// The moment that a figure ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The remedy was begun.
    Begun,
    /// The remedy was done.
    Done,
    /// Another QEMU ran.
    Process,
}

/// One figure.
struct Case {
    figure: &'static str,
    what: &'static str,
    inject: fn(&World) -> f64,
    fault: &'static str,
    remedy: &'static str,
    until: Until,
    at_most: f64,
}

const CASES: [Case; 5] = [
    Case {
        figure: "app-kill",
        what: "kill -9 of PostgreSQL to its restart issued",
        inject: |world| world.in_guest("pkill -9 postgres || killall -9 postgres"),
        fault: "AppDown",
        remedy: "restart-app",
        until: Until::Begun,
        at_most: 2.0,
    },
    Case {
        figure: "app-stop",
        what: "SIGSTOP of the postmaster to its restart done",
        inject: |world| world.in_guest("kill -STOP $(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)"),
        fault: "AppHung",
        remedy: "restart-app",
        until: Until::Done,
        at_most: 6.0,
    },
    Case {
        figure: "guest-panic",
        what: "panic of the guest's kernel to a reset begun",
        inject: |world| world.in_guest("echo c > /proc/sysrq-trigger"),
        fault: "GuestPanicked",
        remedy: "reset-guest",
        until: Until::Begun,
        at_most: 1.0,
    },
    Case {
        figure: "vm-stop",
        what: "SIGSTOP of QEMU to new QEMU",
        inject: stop_qemu,
        fault: "VmHung",
        remedy: "restart-vm",
        until: Until::Process,
        at_most: 5.0,
    },
    Case {
        figure: "guest-hang",
        what: "SIGSTOP of all in the guest to a reset begun",
        inject: |world| world.in_guest("kill -STOP -1"),
        fault: "GuestHung",
        remedy: "reset-guest",
        until: Until::Begun,
        at_most: 15.0,
    },
];

fn stop_qemu(world: &World) -> f64 {
    let process = end::hold(world.lab.pid("orders")).expect("it runs");
    let time = world.now();
    pidfd_send_signal(process, Signal::STOP).expect("it may be stopped");
    time
}

/// The names of these figures.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.figure)
}

/// One sample.
struct Sample {
    seconds: f64,
    /// From the injection to first evidence, to the confirmed diagnosis, to the remedy.
    detected: f64,
    diagnosed: f64,
    begun: f64,
    named: String,
    remedies: String,
    /// The VM's process was not replaced.
    same_start: bool,
}

/// Measures one of them in a laboratory that serves them all.
pub fn measure(bench: &mut Bench, world: &World, name: &str) {
    let Some(case) = CASES.iter().find(|case| case.figure == name) else { return };
    let mut samples = Vec::new();
    for sample in 0..bench.runs {
        bench.say(&format!("{name}: {} of {}", sample + 1, bench.runs));
        world.rest(sample);
        samples.push(one(world, case));
        bench.sample();
    }
    let of = |part: fn(&Sample) -> f64| samples.iter().map(part).collect::<Vec<f64>>();
    let median = |part| crate::figure::median(&of(part)).unwrap_or(f64::NAN);
    let steps = (median(|s| s.detected), median(|s| s.diagnosed), median(|s| s.begun));
    let named = tally(samples.iter().map(|sample| sample.named.as_str()));
    let note = format!("{named}; evidence {:.2} s, sure {:.2} s, remedy {:.2} s", steps.0, steps.1, steps.2);
    let row = Row::new(case.figure, case.what, Unit::Seconds, of(|sample| sample.seconds));
    let row = row.must(Must::AtMost(case.at_most)).unless(wrong(case, &samples)).note(note);
    bench.row(row.with(json!(samples.iter().map(Sample::json).collect::<Vec<_>>())));
}

fn one(world: &World, case: &Case) -> Sample {
    let before = Start::of(&world.lab, "orders");
    let lookout = Lookout::new();
    let time = (case.inject)(world);
    let process = if case.until == Until::Process {
        let since_boot = time - (world.now() - boot_time());
        lookout.qemu(&world.lab.state()).at - since_boot
    } else {
        f64::NAN
    };
    let incident = world.recovery(time);
    let first = &incident["remedies"][0];
    let after = |moment: &Value| moment.as_f64().map_or(f64::NAN, |moment| moment - time);
    let remedies = incident["remedies"].as_array().into_iter().flatten();
    let remedies: Vec<&str> = remedies.filter_map(|remedy| remedy["name"].as_str()).collect();
    world.lab.wait_well(crate::lab::BOOT);
    Sample {
        seconds: match case.until {
            Until::Begun => after(&first["started"]),
            Until::Done => after(&first["ended"]),
            Until::Process => process,
        },
        detected: after(&incident["opened"]),
        diagnosed: after(&incident["diagnosed"]),
        begun: after(&first["started"]),
        named: incident["fault"].as_str().unwrap_or("none").to_owned(),
        remedies: remedies.join(", "),
        same_start: Start::of(&world.lab, "orders") == before,
    }
}

/// What was not as it should be, whatever the times are.
fn wrong(case: &Case, samples: &[Sample]) -> Option<String> {
    let names = samples.iter().filter(|sample| sample.named != case.fault).count();
    let remedies = samples.iter().filter(|sample| sample.remedies != case.remedy).count();
    let restarts = samples.iter().filter(|sample| !sample.same_start).count();
    let restarts = if case.remedy == "restart-vm" { 0 } else { restarts };
    if names + remedies + restarts == 0 {
        return None;
    }
    let all = tally(samples.iter().map(|sample| sample.remedies.as_str()));
    Some(format!("{names} named otherwise, {remedies} otherwise treated ({all}), {restarts} VM restarts"))
}

impl Sample {
    fn json(&self) -> Value {
        json!({ "seconds": self.seconds, "detected_s": self.detected, "diagnosed_s": self.diagnosed,
            "begun_s": self.begun, "named": self.named, "remedies": self.remedies, "same_start": self.same_start })
    }
}
