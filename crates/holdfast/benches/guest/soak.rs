//! A guest that is busy but healthy, for a long time: nothing may be done about it, and no row may be lost.

use crate::Bench;
use crate::busy::{talking, tell_how_busy};
use crate::client::Client;
use crate::cost::Held;
use crate::end;
use crate::figure::{Must, Row, Unit, tally};
use crate::hands::{Ends, Start, Stopped, start_of};
use crate::lab::{BOOT, SOON};
use crate::world::{World, wait};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const FIGURE: &str = "soak";
/// Between two disturbances: longer than any time after which Holdfast would have acted on the last one.
const QUIET: Duration = Duration::from_secs(12);
/// Something that happens to healthy guests.
type Trouble = fn(&World);
/// The disturbances, in turn.
const TROUBLES: [(&str, Trouble); 5] = [
    ("the host's processors are taken", hogs),
    ("QEMU is stopped for 2 s", stopped),
    ("the guest's file systems are frozen", frozen),
    ("the guest writes as fast as it can", load),
    ("the guest reboots by itself", reboot),
];

/// What was done about it so far.
struct Watch {
    remedies: usize,
    start: Option<Start>,
    /// One line for each false action.
    actions: Vec<String>,
    disturbed: u32,
}

impl Watch {
    fn new(world: &World) -> Self {
        let (remedies, start) = (world.lab.remedies().len(), start_of(&world.lab, "orders"));
        Self { remedies, start, actions: Vec::new(), disturbed: 0 }
    }

    /// What was done since the last look.
    fn look(&mut self, world: &World, meanwhile: &str) {
        let (all, start) = (world.lab.remedies(), start_of(&world.lab, "orders"));
        let new = all.len() - self.remedies;
        self.actions.extend(all.iter().take(new).map(|remedy| format!("{remedy} while {meanwhile}")));
        if new == 0 && start != self.start {
            self.actions.push(format!("another start while {meanwhile}"));
        }
        (self.remedies, self.start) = (all.len(), start);
    }
}

/// `soak`
pub fn measure(bench: &mut Bench) {
    bench.say("soak: a guest boots");
    let (lab, talk) = talking();
    let world = World::of(lab, &["orders"]);
    let client = Client::start(&world.address("orders"));
    end::pause(QUIET);
    let (time, before, mut watch) = (world.now(), Held::by(world.lab.daemon_pid()), Watch::new(&world));
    let began = Instant::now();
    while began.elapsed() < bench.soak || (watch.disturbed as usize) < TROUBLES.len() {
        let (what, trouble) = TROUBLES[watch.disturbed as usize % TROUBLES.len()];
        let (minutes, actions) = (began.elapsed().as_secs_f64() / 60.0, watch.actions.len());
        bench.say(&format!("soak: minute {minutes:.1}, {actions} false actions; {what}"));
        trouble(&world);
        let acked = client.acked();
        wait(BOOT, Duration::from_millis(200), "the client gets a row in", || {
            (client.acked() > acked).then_some(())
        });
        end::pause(QUIET);
        watch.look(&world, what);
        watch.disturbed += 1;
        bench.sample();
    }
    world.lab.wait_well(BOOT);
    drop(talk);
    tell_how_busy(bench, &world.lab, FIGURE);
    let after = Held::by(world.lab.daemon_pid());
    report(bench, &world, (time, began.elapsed()), watch, client.count(), (before, after));
}

fn report(
    bench: &mut Bench,
    world: &World,
    (time, took): (f64, Duration),
    watch: Watch,
    (acked, lost): (usize, usize),
    (before, after): (Held, Held),
) {
    let minutes = took.as_secs_f64() / 60.0;
    let row = Row::new(FIGURE, "acknowledged rows lost", Unit::Count, vec![lost as f64]);
    bench.row(row.must(Must::AtMost(0.0)).note(format!("of {acked} in {minutes:.1} min")));
    let incidents = world.since(time);
    let confirmed = incidents.iter().filter(|incident| !incident["diagnosed"].is_null());
    let named = tally(confirmed.filter_map(|incident| incident["fault"].as_str()));
    let named = if named.is_empty() { "nothing confirmed".into() } else { format!("confirmed: {named}") };
    let actions = if watch.actions.is_empty() { String::new() } else { watch.actions.join("; ") + "; " };
    let row = Row::new(FIGURE, "false actions", Unit::Count, vec![watch.actions.len() as f64]);
    let row = row.must(Must::AtMost(0.0)).with(json!({ "incidents": incidents }));
    bench.row(row.note(format!("{actions}in {} disturbances; {named}", watch.disturbed)));
    let grown = |before: f64, after: f64| format!("{before:.1} at the beginning, {after:.1} at the end");
    let row = Row::new(
        FIGURE,
        "growth of the daemon's resident memory",
        Unit::Mebibytes,
        vec![after.rss - before.rss],
    );
    bench.row(row.note(grown(before.rss, after.rss)));
    let (held, holds) = (before.descriptors as f64, after.descriptors as f64);
    let row = Row::new(FIGURE, "growth of its open descriptors", Unit::Count, vec![holds - held]);
    bench.row(row.note(format!("{held} at the beginning, {holds} at the end")));
}

/// One for each processor, at the usual priority.
fn hogs(_: &World) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let hog = |_| {
        let hog = Ends(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh"));
        end::know_process(hog.pid());
        hog
    };
    let hogs: Vec<Ends> = (0..processors).map(hog).collect();
    end::pause(Duration::from_secs(20));
    drop(hogs);
}

fn stopped(world: &World) {
    let stopped = Stopped::new(world.lab.pid("orders"));
    end::pause(Duration::from_secs(2));
    drop(stopped);
}

fn frozen(world: &World) {
    let ask =
        |what: &str| world.lab.ask_agent("orders", &format!("{{\"execute\":\"guest-fsfreeze-{what}\"}}"));
    world.lab.until(SOON, "the guest is frozen", |_| {
        ask("freeze").is_some() || ask("status").is_some_and(|said| said == "frozen")
    });
    end::pause(Duration::from_secs(3));
    world.lab.until(SOON, "the guest is thawed", |_| ask("thaw").is_some());
}

fn load(world: &World) {
    world.in_guest("dd if=/dev/zero of=/var/tmp/load bs=1M count=400 oflag=direct; rm -f /var/tmp/load");
    end::pause(Duration::from_secs(10));
}

fn reboot(world: &World) {
    world.in_guest("reboot");
    end::pause(Duration::from_secs(3));
    world.lab.wait_well(BOOT);
}
