//! What most of these tests begin with: a clone of a warm guest, and whether that is what a daemon would have started.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, told, wait_restarted};
use crate::lab::{Lab, SOON};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The command line of a process, but for what differs from start to start: its number, and whether memory comes in.
fn command_line(pid: i32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let differs = |word: &str| {
        word.starts_with("name=opt/holdfast/start,") || ["-incoming", "defer", ""].contains(&word)
    };
    line.split('\0').filter(|word| !differs(word)).map(ToOwned::to_owned).collect()
}

#[test]
fn a_warm_clone_is_the_machine_that_its_daemon_starts_and_knows_the_time() {
    let lab = Lab::running("");
    let clone = Start::of(&lab, "orders");
    let warm = command_line(clone.pid);
    assert!(warm.len() > 50, "{warm:?}");
    let mut time = None;
    lab.until(SOON, "the guest tells the time", |lab| {
        time = lab.ask_agent("orders", r#"{"execute":"guest-get-time"}"#);
        time.is_some()
    });
    let guest = Duration::from_nanos(time.unwrap().as_u64().unwrap());
    let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(host.abs_diff(guest) < Duration::from_secs(120), "the guest has slept: {guest:?}, not {host:?}");

    told(&lab, &["vm", "restart", "orders", "--force"]);
    wait_restarted(&lab, "orders", clone);
    assert_eq!(command_line(lab.pid("orders")), warm);
}
