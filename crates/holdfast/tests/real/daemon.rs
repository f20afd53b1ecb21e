//! Whatever happens to the daemon: a healthy VM is not harmed, and a broken one comes back.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{
    Dice, Frozen, Start, Stopped, has_ended, hold, lives, sockets_of, start_of, told, untouched_for,
    wait_restarted,
};
use crate::lab::{Lab, SOON, holdfast, signal, vm_section};
use crate::rows::{Rows, address, address_of, ask};
use crate::writers::Writers;
use rustix::fd::OwnedFd;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// How often the daemon is killed during one recovery.
const KILLS: u64 = 5;

#[test]
fn a_daemon_that_is_stopped_killed_or_started_twice_harms_no_vm_r05_r07() {
    let mut lab = Lab::running("");
    let start = Start::of(&lab, "orders");
    listens_on_one_private_socket_only(&lab);

    let second = holdfast().arg("run").arg("--config").arg(lab.config()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("in use by another daemon, process {}", lab.daemon_pid())), "{said}");
    assert!(said.contains("--state"), "it tells the way out: {said}");
    assert!(lab.cli(&["vm", "list"]).status.success(), "the first one's socket is still there");

    let place = address(&lab);
    let stopped = Stopped::new(lab.daemon_pid());
    answers_for(&place, Duration::from_secs(15));
    drop(stopped);
    untouched_for(&lab, "orders", Duration::from_secs(8), || {});

    for _ in 0..2 {
        lab.kill_daemon();
        assert!(lives(start.pid));
        lab.start();
        lab.wait_well(SOON);
        assert_eq!(Start::of(&lab, "orders"), start, "it was adopted: {}", lab.story());
    }
    untouched_for(&lab, "orders", Duration::from_secs(5), || {});
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}

#[test]
fn a_daemon_that_is_frozen_for_a_minute_harms_no_vm_r06() {
    let lab = Lab::running("");
    let (start, place) = (Start::of(&lab, "orders"), address(&lab));
    let frozen = Frozen::new(lab.daemon_pid());
    answers_for(&place, Duration::from_secs(60));
    drop(frozen);
    untouched_for(&lab, "orders", Duration::from_secs(8), || {});
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}

/// The database answers all the time, although the daemon does nothing.
fn answers_for(place: &str, time: Duration) {
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        assert!(ask(place, "select 1").is_some(), "the database answers although the daemon is still");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn listens_on_one_private_socket_only(lab: &Lab) {
    let mode = fs::metadata(lab.state().join("holdfast.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let process = format!("/proc/{}", lab.daemon_pid());
    let sockets = sockets_of(lab.daemon_pid());
    assert!(!sockets.is_empty());
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("{process}/net/{table}")).unwrap();
        let listening = text.lines().skip(1).filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[3] == "0A" && sockets.iter().any(|inode| inode == words[9])
        });
        assert_eq!(listening.collect::<Vec<_>>(), Vec::<&str>::new(), "{table}");
    }
}

/// A VM that is well all the time: nothing that befalls the daemon may befall it (I7).
struct Bystander {
    vm: &'static str,
    start: Start,
    /// The very process, not its number only.
    process: OwnedFd,
    place: String,
    /// When its guest's database was started.
    since: Option<Vec<String>>,
}

impl Bystander {
    fn of(lab: &Lab, vm: &'static str) -> Self {
        let (start, place) = (Start::of(lab, vm), address_of(lab, vm));
        let since = since(&place);
        assert!(since.is_some(), "its database answers");
        Self { vm, start, process: hold(start.pid).unwrap(), place, since }
    }

    /// Asked of the host alone, so at any moment, with or without a daemon.
    fn lives(&self) -> bool {
        !has_ended(&self.process)
    }

    /// The same process, the same start, the same uptime inside, and nothing done to it.
    fn assert_untouched(&self, lab: &Lab) {
        assert!(self.lives(), "{} was ended\n{}", self.vm, lab.story());
        assert_eq!(start_of(lab, self.vm), Some(self.start), "{}", lab.story());
        lab.until(SOON, "the database that is well answers", |_| since(&self.place).is_some());
        assert_eq!(since(&self.place), self.since, "its guest was restarted\n{}", lab.story());
        let touched = |incident: &serde_json::Value| {
            incident["vm"] == self.vm && !incident["remedies"].as_array().unwrap().is_empty()
        };
        assert!(!lab.incidents().iter().any(touched), "{}", lab.story());
    }
}

fn since(place: &str) -> Option<Vec<String>> {
    ask(place, "select pg_postmaster_start_time()")
}

/// `HOLDFAST_R01=200` kills it so often.
#[test]
fn a_daemon_killed_at_any_moment_of_a_recovery_finishes_it_starts_no_two_and_harms_no_other_vm_r01() {
    let kills = std::env::var("HOLDFAST_R01").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let mut dice = Dice::new(1);
    let mut lab = Lab::new(&vm_section("billing"));
    lab.start_warm(&["orders", "billing"]);
    let writers = ["orders", "billing"].map(|vm| Writers::watch(&lab.disk(vm)));
    let rows = Rows::start(&lab);
    let well = Bystander::of(&lab, "billing");
    let mut killed = 0;
    while killed < kills {
        let before = Start::of(&lab, "orders");
        signal(before.pid, "KILL");
        for _ in 0..KILLS.min(kills - killed) {
            std::thread::sleep(Duration::from_millis(dice.below(1_500))); // the moment is what is tried
            lab.kill_daemon();
            killed += 1;
            assert!(well.lives(), "{} ended with the daemon", well.vm);
            lab.start();
        }
        wait_restarted(&lab, "orders", before);
        rows.wait_for_more(&lab);
        well.assert_untouched(&lab);
        told(&lab, &["vm", "release", "orders"]);
    }
    assert_eq!(writers.map(Writers::most), [1, 1], "two processes had one disk");
    well.assert_untouched(&lab);
    let replay = lab.cli(&["replay"]);
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stdout));
    rows.all_there(&lab);
    assert!(start_of(&lab, "orders").is_some());
    let events = lab.cli(&["events", "--json", "--lines", "2000"]).stdout;
    let events = String::from_utf8_lossy(&events);
    assert!(events.contains(r#""incident":1,"#), "no event is forgotten: {events}");
}
