//! Whatever happens to the daemon: a healthy VM is not harmed, and a broken one comes back.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{
    Dice, Frozen, Start, Stopped, lives, start_of, told, turn, untouched_for, wait_restarted,
};
use crate::lab::{Lab, SOON, holdfast, signal};
use crate::rows::{Rows, address, ask};
use crate::writers::Writers;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// How often the daemon is killed during one recovery.
const KILLS: u64 = 5;

#[test]
fn a_daemon_that_is_stopped_killed_or_started_twice_harms_no_vm_r05_r07() {
    let _turn = turn();
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
    let _turn = turn();
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
    let sockets: Vec<String> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| {
            fs::read_link(fd.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(ToOwned::to_owned)
        })
        .collect();
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

/// `HOLDFAST_R01=200` kills it so often.
#[test]
fn a_daemon_killed_at_any_moment_of_a_recovery_finishes_it_and_never_starts_two_r01() {
    let _turn = turn();
    let kills = std::env::var("HOLDFAST_R01").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let mut dice = Dice::new(1);
    let mut lab = Lab::running("");
    let writers = Writers::watch(&lab.path().join("orders.qcow2"));
    let rows = Rows::start(&lab);
    let mut killed = 0;
    while killed < kills {
        let before = Start::of(&lab, "orders");
        signal(before.pid, "KILL");
        for _ in 0..KILLS.min(kills - killed) {
            std::thread::sleep(Duration::from_millis(dice.below(1_500))); // the moment is what is tried
            lab.kill_daemon();
            killed += 1;
            lab.start();
        }
        wait_restarted(&lab, "orders", before);
        rows.wait_for_more(&lab);
        told(&lab, &["vm", "release", "orders"]);
    }
    assert_eq!(writers.most(), 1, "two processes had one disk");
    let replay = lab.cli(&["replay"]);
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stdout));
    rows.all_there(&lab);
    assert!(start_of(&lab, "orders").is_some());
    let events = lab.cli(&["events", "--json", "--lines", "2000"]).stdout;
    let events = String::from_utf8_lossy(&events);
    assert!(events.contains(r#""incident":1,"#), "no event is forgotten: {events}");
}
