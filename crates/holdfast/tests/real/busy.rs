//! A VM that is merely busy is left alone: no remedy, the same process, the same start.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, Starved, Stopped, processor_time, qmp, turn, untouched_for};
use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{Rows, address, ask};
use std::time::{Duration, Instant};

/// Longer than any time after which Holdfast would have acted.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

/// Time enough to tell a busy guest from an idle one.
const LOOK: Duration = Duration::from_millis(900);
/// So long its host gives the guest next to nothing.
const STARVED: Duration = Duration::from_secs(15);

/// When the guest's PostgreSQL was started; each boot gives another time.
fn booted(address: &str) -> Option<String> {
    ask(address, "select pg_postmaster_start_time()")?.into_iter().next()
}

#[test]
fn a_busy_but_healthy_vm_is_never_touched() {
    let _turn = turn();
    let lab = Lab::writing();
    let start = Start::of(&lab, "orders");
    let rows = Rows::start(&lab);

    let stopped = Stopped::new(start.pid);
    std::thread::sleep(Duration::from_secs(2)); // no longer: from four seconds on it is a fault
    drop(stopped);
    assert_eq!((Start::of(&lab, "orders"), lab.remedies().len()), (start, 0), "{}", lab.story());
    untouched_for(&lab, "orders", LONG_ENOUGH, || {});
    rows.wait_for_more(&lab);

    let load = "dd if=/dev/zero of=/var/tmp/load bs=1M count=400 oflag=direct; rm -f /var/tmp/load";
    lab.in_guest("orders", load);
    untouched_for(&lab, "orders", LONG_ENOUGH, || {});

    freeze(&lab);
    untouched_for(&lab, "orders", Duration::from_secs(4), || {});
    thaw(&lab);
    untouched_for(&lab, "orders", LONG_ENOUGH, || {});
    rows.wait_for_more(&lab);

    starve(&lab, start.pid);
    untouched_for(&lab, "orders", LONG_ENOUGH, || {});
    rows.wait_for_more(&lab);

    let place = address(&lab);
    let before = booted(&place).expect("the database answers");
    lab.in_guest("orders", "reboot");
    lab.until(BOOT, "the guest has booted again", |lab| {
        assert_eq!(Start::of(lab, "orders"), start, "{}", lab.story());
        booted(&place).is_some_and(|now| now != before)
    });
    lab.wait_well(SOON);
    untouched_for(&lab, "orders", LONG_ENOUGH, || {});
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start);
    rows.all_there(&lab);
}

#[test]
fn a_disk_that_does_a_megabyte_a_second_is_slow_and_not_failed_r31() {
    let _turn = turn();
    let lab = Lab::running("");
    let rows = Rows::start(&lab);
    let disks = qmp(&lab, "orders", r#"{"execute":"query-block"}"#);
    let device = disks[0]["qdev"].as_str().unwrap();
    let allow = |bytes: u64| {
        let limits = serde_json::json!({ "id": device, "bps": bytes, "bps_rd": 0, "bps_wr": 0,
            "iops": 0, "iops_rd": 0, "iops_wr": 0 });
        let order = serde_json::json!({ "execute": "block_set_io_throttle", "arguments": limits });
        qmp(&lab, "orders", &order.to_string());
    };
    allow(1 << 20);
    let load = "dd if=/dev/zero of=/var/tmp/load bs=1M count=24 oflag=direct; rm -f /var/tmp/load";
    lab.in_guest("orders", load);
    untouched_for(&lab, "orders", Duration::from_secs(30), || {});
    allow(0);
    rows.wait_for_more(&lab);
    lab.wait_well(SOON);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    rows.all_there(&lab);
}

/// The guest wants a whole processor and gets a tenth of one.
fn starve(lab: &Lab, pid: i32) {
    lab.in_guest("orders", "(while :; do :; done) & sleep 45; kill $!");
    lab.until(SOON, "the guest wants a processor", |_| {
        let before = processor_time(pid);
        std::thread::sleep(LOOK);
        processor_time(pid) - before > LOOK / 3
    });
    let (began, before) = (Instant::now(), processor_time(pid));
    let starved = Starved::new(pid);
    untouched_for(lab, "orders", STARVED, || {});
    let (got, time) = (processor_time(pid) - before, began.elapsed());
    drop(starved);
    assert!(got < time / 4, "it was starved: it got {got:?} of {time:?}");
}

fn freeze(lab: &Lab) {
    lab.until(SOON, "the guest is frozen", |lab| {
        lab.ask_agent("orders", r#"{"execute":"guest-fsfreeze-freeze"}"#).is_some()
            || lab
                .ask_agent("orders", r#"{"execute":"guest-fsfreeze-status"}"#)
                .is_some_and(|said| said == "frozen")
    });
}

fn thaw(lab: &Lab) {
    lab.until(SOON, "the guest is thawed", |lab| {
        lab.ask_agent("orders", r#"{"execute":"guest-fsfreeze-thaw"}"#).is_some()
    });
}
