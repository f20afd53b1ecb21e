//! QEMU's words as core signals.

use super::event::Event;
use super::untrusted::{Text, tame};
use holdfast_core::signal::{Counters, HypervisorSign, RunState, Seen};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A run state by QEMU's name (QEMU document "QMP reference", `RunState`).
#[must_use]
pub fn run_state(name: &str) -> RunState {
    match name {
        "running" => RunState::Running,
        // After its memory was saved it stands still like any paused one; QEMU has no way back to its other word for that
        // but to let it run.
        "paused" | "debug" | "postmigrate" => RunState::Paused,
        "prelaunch" | "preconfig" => RunState::Prelaunch,
        "io-error" => RunState::IoError,
        "guest-panicked" => RunState::GuestPanicked,
        "watchdog" => RunState::Watchdog,
        "shutdown" => RunState::Shutdown,
        "inmigrate" | "finish-migrate" | "save-vm" | "restore-vm" | "colo" => RunState::Moving,
        "internal-error" => RunState::InternalError,
        "suspended" => RunState::Suspended,
        _ => RunState::Other,
    }
}

/// What `query-status` answers.
#[derive(Debug, Deserialize)]
pub struct Status {
    status: Text,
}

impl Status {
    /// The run state.
    #[must_use]
    pub fn state(&self) -> RunState {
        run_state(self.status.as_str())
    }

    /// Its memory was saved, and it has not run since.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.status.as_str() == "postmigrate"
    }
}

/// What an event says by itself. A `STOP` says nothing of why: its reader asks for the run state.
#[must_use]
pub fn of_event(event: &Event) -> Option<Seen> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct ByGuest {
        guest: bool,
    }
    let by_guest = || event.data::<ByGuest>().unwrap_or_default().guest;
    let sign = match event.name.as_str() {
        "SHUTDOWN" => HypervisorSign::Shutdown { by_guest: by_guest() },
        "RESET" => HypervisorSign::Reset { by_guest: by_guest() },
        "RESUME" | "WAKEUP" => HypervisorSign::State(RunState::Running),
        "SUSPEND" => HypervisorSign::State(RunState::Suspended),
        "GUEST_PANICKED" => HypervisorSign::Panicked,
        "WATCHDOG" => HypervisorSign::WatchdogFired,
        "BLOCK_IO_ERROR" => io_error(event)?,
        "BLOCK_IMAGE_CORRUPTED" => image_corrupt(event)?,
        _ => return None,
    };
    Some(Seen::Hypervisor(sign))
}

/// Whether the guest has shut down by itself, as it does once its file systems are unmounted.
#[must_use]
pub fn is_orderly_end(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Shutdown {
        guest: bool,
        reason: Text,
    }
    let is_by_guest = |end: Shutdown| end.guest && end.reason.as_str() == "guest-shutdown";
    event.name == "SHUTDOWN" && event.data().is_some_and(is_by_guest)
}

/// Only those that stopped the VM: an error that the guest was told is the guest's to tell.
fn io_error(event: &Event) -> Option<HypervisorSign> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct IoError {
        device: Text,
        node_name: Text,
        action: Text,
        nospace: bool,
    }
    let error: IoError = event.data().unwrap_or_default();
    let named = if error.device.as_str().is_empty() { &error.node_name } else { &error.device };
    let (device, no_space) = (tame(named.as_str(), 63), error.nospace);
    (error.action.as_str() != "report" && error.action.as_str() != "ignore")
        .then_some(HypervisorSign::IoError { device, no_space })
}

/// Only if QEMU has marked the image as corrupt, and so uses it no more: what it only prevented did no harm.
fn image_corrupt(event: &Event) -> Option<HypervisorSign> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Corrupt {
        device: Text,
        node_name: Text,
        msg: Text,
        fatal: bool,
    }
    let corrupt: Corrupt = event.data().unwrap_or_default();
    let named = if corrupt.device.as_str().is_empty() { &corrupt.node_name } else { &corrupt.device };
    let (device, text) = (tame(named.as_str(), 63), tame(corrupt.msg.as_str(), 255));
    corrupt.fatal.then_some(HypervisorSign::ImageCorrupt { device, text })
}

/// One row of `query-blockstats`.
#[derive(Debug, Deserialize)]
pub struct BlockStats {
    stats: DeviceStats,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DeviceStats {
    rd_operations: u64,
    wr_operations: u64,
    flush_operations: u64,
    failed_rd_operations: u64,
    failed_wr_operations: u64,
    failed_flush_operations: u64,
}

/// What the balloon device was told by the guest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BalloonStats {
    #[serde(default)]
    last_update: u64,
    #[serde(default)]
    stats: BTreeMap<Text, u64>,
}

/// The device counters, summed.
#[must_use]
pub fn counters(devices: &[BlockStats], balloon: Option<&BalloonStats>) -> Counters {
    let mut sum = Counters::default();
    for BlockStats { stats } in devices {
        let writes = stats.wr_operations.saturating_add(stats.flush_operations);
        let failed = [stats.failed_rd_operations, stats.failed_wr_operations, stats.failed_flush_operations];
        sum.reads = sum.reads.saturating_add(stats.rd_operations);
        sum.writes = sum.writes.saturating_add(writes);
        sum.failed = failed.into_iter().fold(sum.failed, u64::saturating_add);
    }
    // A statistic that the guest has not told is all ones.
    let told = |name: &str| {
        let balloon = balloon.filter(|b| b.last_update > 0)?;
        balloon.stats.iter().find(|(key, _)| key.as_str() == name).map(|(_, &value)| value)
    };
    sum.memory_available = told("stat-available-memory").filter(|&value| value != u64::MAX);
    sum.memory_total = told("stat-total-memory").filter(|&value| value != u64::MAX);
    sum
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn seen(name: &str, data: Value) -> Option<Seen> {
        let data = serde_json::value::to_raw_value(&data).unwrap();
        of_event(&Event { name: name.into(), data: Some(data) })
    }

    #[test]
    fn only_a_guest_that_shut_down_by_itself_has_ended_in_order() {
        let orderly = |data: Value| {
            let data = serde_json::value::to_raw_value(&data).ok();
            is_orderly_end(&Event { name: "SHUTDOWN".into(), data })
        };
        assert!(orderly(json!({"guest": true, "reason": "guest-shutdown"})));
        for end in [
            json!({"guest": true, "reason": "guest-panic"}),
            json!({"guest": false, "reason": "host-qmp-quit"}),
            json!({"guest": false, "reason": "guest-shutdown"}),
            json!({"guest": true}),
            json!("guest-shutdown"),
        ] {
            assert!(!orderly(end.clone()), "{end}");
        }
    }

    #[test]
    fn events_become_signs_and_unknown_ones_nothing() {
        let sign = |s| Some(Seen::Hypervisor(s));
        assert_eq!(seen("RESET", json!({"guest": true})), sign(HypervisorSign::Reset { by_guest: true }));
        assert_eq!(seen("SHUTDOWN", json!("x")), sign(HypervisorSign::Shutdown { by_guest: false }));
        assert_eq!(seen("GUEST_PANICKED", json!({"action": "pause"})), sign(HypervisorSign::Panicked));
        assert_eq!(seen("NEW_IN_QEMU_99", json!({})), None);
        assert_eq!(seen("STOP", json!({})), None);
    }

    #[test]
    fn an_io_error_counts_only_if_it_stopped_the_vm_and_names_no_other_vm() {
        let data = json!({"device": "", "node-name": "other-vm\u{1b}[1m", "action": "stop", "nospace": true});
        let device = "other-vm\\u{1b}[1m".to_owned(); // A19: text about this VM, never a selector
        let expected = Seen::Hypervisor(HypervisorSign::IoError { device, no_space: true });
        assert_eq!(seen("BLOCK_IO_ERROR", data), Some(expected));
        assert_eq!(seen("BLOCK_IO_ERROR", json!({"device": "vd0", "action": "report"})), None);
        assert!(seen("BLOCK_IO_ERROR", json!([7])).is_some()); // an odd form is no reason to look away
    }

    #[test]
    fn an_image_is_corrupt_only_if_qemu_gave_it_up() {
        let data =
            |fatal: bool| json!({"device": "", "node-name": "disk0", "msg": "bad\u{7}", "fatal": fatal});
        let (device, text) = ("disk0".to_owned(), "bad\\u{7}".to_owned());
        let expected = Seen::Hypervisor(HypervisorSign::ImageCorrupt { device, text });
        assert_eq!(seen("BLOCK_IMAGE_CORRUPTED", data(true)), Some(expected));
        assert_eq!(seen("BLOCK_IMAGE_CORRUPTED", data(false)), None);
    }

    #[test]
    fn counters_are_summed_and_an_untold_statistic_is_none() {
        let rows: Vec<BlockStats> = serde_json::from_value(json!([
            {"device": "", "stats": {"rd_operations": 3, "wr_operations": 5, "flush_operations": 2, "x": []}},
            {"stats": {"rd_operations": u64::MAX, "failed_wr_operations": 4}},
        ]))
        .unwrap();
        let balloon =
            json!({"last-update": 9, "stats": {"stat-available-memory": 77, "stat-total-memory": u64::MAX}});
        let sum = counters(&rows, Some(&serde_json::from_value(balloon).unwrap()));
        assert_eq!((sum.reads, sum.writes, sum.failed), (u64::MAX, 7, 4));
        assert_eq!((sum.memory_available, sum.memory_total), (Some(77), None));
        assert_eq!(counters(&rows, None).memory_available, None);
    }

    /// A12: a number that fits no counter makes the whole answer void; none wraps, none becomes negative.
    #[test]
    fn a_counter_that_cannot_be_is_refused_and_the_greatest_stays_what_it_is() {
        let disk = |number: &str| {
            serde_json::from_str::<BlockStats>(&format!(
                r#"{{"stats": {{"failed_rd_operations": {number}}}}}"#
            ))
        };
        let balloon = |update: &str, number: &str| {
            let words =
                format!(r#"{{"last-update": {update}, "stats": {{"stat-available-memory": {number}}}}}"#);
            serde_json::from_str::<BalloonStats>(&words)
        };
        for number in ["1e999", "-1", "1e308", "18446744073709551616", "1.5", "NaN", "\"NaN\"", "null", "[]"]
        {
            assert!(disk(number).is_err(), "{number}");
            assert!(balloon("1", number).is_err() && balloon(number, "1").is_err(), "{number}");
        }
        let most = || disk("18446744073709551615").unwrap();
        let sum = counters(&[most(), most()], Some(&balloon("1", "18446744073709551614").unwrap()));
        assert_eq!((sum.failed, sum.memory_available), (u64::MAX, Some(u64::MAX - 1)));
    }
}
