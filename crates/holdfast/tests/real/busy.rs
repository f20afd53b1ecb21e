//! A VM that is merely busy is left alone: no remedy, the same process, the same start.

use crate::hands::{Start, Stopped, hog, turn, untouched_for};
use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{Rows, address, ask};
use std::time::Duration;

/// Longer than any time after which Holdfast would have acted.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

/// When the guest's PostgreSQL was started; each boot gives another time.
fn booted(address: &str) -> Option<String> {
    ask(address, "select pg_postmaster_start_time()")?.into_iter().next()
}

#[test]
fn a_busy_but_healthy_vm_is_never_touched() {
    let _turn = turn();
    let lab = Lab::running("");
    let start = Start::of(&lab, "orders");
    let rows = Rows::start(&lab);

    let stopped = Stopped::new(start.pid);
    untouched_for(&lab, "orders", Duration::from_secs(2), || {});
    drop(stopped);
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

    let hogs = [hog(), hog()];
    untouched_for(&lab, "orders", Duration::from_secs(20), || {});
    drop(hogs);
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
