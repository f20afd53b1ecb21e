//! Real faults, not announced as drills: each is named, and the smallest remedy brings the service back.

use crate::hands::{Start, closed, remedies_of, told, turn, wait_restarted};
use crate::lab::{BOOT, Lab, signal};
use crate::rows::Rows;
use crate::writers::{Living, Writers};
use rustix::thread::disable_transparent_huge_pages;
use std::fs;

#[test]
fn a_killed_a_stopped_and_a_panicked_vm_and_a_hung_database_come_back_r09_r10_r11() {
    let lab = Lab::writing();
    let rows = Rows::start(&lab);

    let before = Start::of(&lab, "orders");
    signal(before.pid, "KILL");
    wait_restarted(&lab, "orders", before);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&closed(&lab, "VmCrashed")), ["restart-vm"], "{}", lab.story());
    told(&lab, &["vm", "release", "orders"]);

    let before = Start::of(&lab, "orders");
    signal(before.pid, "STOP");
    wait_restarted(&lab, "orders", before);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&closed(&lab, "VmHung")), ["restart-vm"], "{}", lab.story());
    told(&lab, &["vm", "release", "orders"]);

    let before = Start::of(&lab, "orders");
    lab.in_guest("orders", "echo c > /proc/sysrq-trigger");
    let panicked = closed(&lab, "GuestPanicked");
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&panicked), ["reset-guest"], "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), before, "the guest was reset, its QEMU was not restarted");
    told(&lab, &["vm", "release", "orders"]);

    lab.in_guest("orders", "kill -STOP $(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)");
    let hung = closed(&lab, "AppHung");
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&hung), ["restart-app"], "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), before, "only the application was restarted");

    rows.all_there(&lab);
    assert!(lab.cli(&["replay"]).status.success(), "the journal replays byte for byte");
}

/// The kernel takes back the memory of a large process long after it is killed; its disk is open until then.
#[test]
fn a_large_vm_is_started_again_only_when_the_old_process_is_gone_r16() {
    let _turn = turn();
    let _slow = SmallPages::only();
    let mut lab = Lab::changed(|config| config.replace("512MiB", "4GiB"));
    lab.start();
    lab.wait_well(BOOT);
    let writers = Writers::watch(&lab.path().join("orders.qcow2"));
    let touch = "mkdir -p /run/large && mount -t tmpfs -o size=90% large /run/large \
                 && dd if=/dev/zero of=/run/large/file bs=1M count=3072";
    lab.in_guest("orders", touch);
    let before = Start::of(&lab, "orders");
    lab.until(BOOT, "the guest has touched its memory", |_| resident(before.pid) > 3 << 30);
    let mut processes = Living::of(&lab.state());
    assert_eq!(processes.look(), [before.pid]);
    signal(before.pid, "KILL");
    lab.until_without_daemon(BOOT, "another process runs", || {
        let living = processes.look();
        assert!(living.len() <= 1, "two at once: {living:?}");
        living.first().is_some_and(|pid| *pid != before.pid)
    });
    wait_restarted(&lab, "orders", before);
    let seen = writers.seen();
    assert_eq!(seen.most, 1, "two processes had one disk");
    assert!(seen.dying > 0, "it was large: it was seen while the kernel took back its memory");
    assert_eq!(remedies_of(&closed(&lab, "VmCrashed")), ["restart-vm"], "{}", lab.story());
}

/// No huge pages for what is started meanwhile: its memory is taken back page by page, as that of a VM of a hundred
/// times the size.
pub struct SmallPages;

impl SmallPages {
    pub fn only() -> Self {
        disable_transparent_huge_pages(true).expect("a kernel that knows of huge pages");
        Self
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        disable_transparent_huge_pages(false).expect("as before");
    }
}

/// Bytes of memory that a process has touched.
fn resident(pid: i32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
