//! Findings of `holdfast-logs` that are evidence to the engine, no more of a kind than a person could read.

use holdfast_core::signal::{Finding, FindingKind};
use holdfast_logs::{Fault, Kind, Rule, Rules, clean, escape};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Findings of one kind that are told within [`WINDOW`]; the rest is counted.
const MOST_OF_A_KIND: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// Characters of a line that are shown.
const LONGEST_SHOWN: usize = 256;

/// Looks for known lines of one source.
#[derive(Debug)]
pub struct Findings {
    rules: &'static Rules,
    told: BTreeMap<FindingKind, (Instant, u32)>,
    untold: u64,
}

impl Findings {
    pub fn new() -> Self {
        Self { rules: Rules::standard(), told: BTreeMap::new(), untold: 0 }
    }

    /// What this line tells, if it is known and not one too many.
    pub fn find(&mut self, raw: &[u8], now: Instant) -> Option<Finding> {
        let line = clean(raw);
        let found = self.rules.find(&line)?;
        let kind = kind(found.rule)?;
        let (since, count) = self.told.entry(kind).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        if *count >= MOST_OF_A_KIND {
            self.untold += 1;
            return None;
        }
        *count += 1;
        let line = escape(line.trim_end(), LONGEST_SHOWN);
        Some(Finding { kind, rule: found.rule.name.into(), line })
    }

    /// Findings that were one too many, so far.
    #[cfg(test)]
    pub const fn untold(&self) -> u64 {
        self.untold
    }
}

/// As the engine knows it; nothing for what is only shown to people, and must lead to no action.
pub fn kind(rule: &Rule) -> Option<FindingKind> {
    Some(match rule.kind {
        Kind::KernelPanic => FindingKind::KernelPanic,
        Kind::KernelOops => FindingKind::KernelOops,
        Kind::HungTask => FindingKind::HungTask,
        Kind::OutOfMemory => FindingKind::OutOfMemory,
        Kind::FsError => FindingKind::FsError,
        Kind::FsReadOnly => FindingKind::FsReadOnly,
        Kind::DiskIoError => FindingKind::DiskIoError,
        Kind::DiskFull => FindingKind::DiskFull,
        Kind::RootLost => FindingKind::RootLost,
        Kind::BootStarted => FindingKind::BootStarted,
        Kind::BootFinished => FindingKind::BootFinished,
        Kind::AppPanic => FindingKind::AppPanic,
        Kind::AppStarting => FindingKind::AppStarting,
        Kind::AppReady => FindingKind::AppReady,
        Kind::GoingDown => FindingKind::GoingDown,
        Kind::GuestFailed
        | Kind::VmFailed
        | Kind::VmRefused
        | Kind::DataCorrupt
        | Kind::ImageCorrupt
        | Kind::StorageLost
        | Kind::DiskFailing
        | Kind::BadHardware
        | Kind::KernelBroken
        | Kind::ServiceFailed
        | Kind::ProgramCrashed
        | Kind::ReplicationBroken
        | Kind::NetTrouble
        | Kind::LimitReached
        | Kind::AccessDenied
        | Kind::MemoryShort
        | Kind::SpaceShort
        | Kind::LocksPileUp
        | Kind::StorageSlow
        | Kind::HostBusy
        | Kind::ClockJumped
        | Kind::HypervisorNotice => {
            return rule.speaks_for.first().copied().and_then(cause).or(support(rule.kind));
        }
    })
}

/// What names no cause, and supports one that something else speaks for.
const fn support(kind: Kind) -> Option<FindingKind> {
    if matches!(kind, Kind::ServiceFailed | Kind::ProgramCrashed) {
        Some(FindingKind::ServiceFailed)
    } else if matches!(kind, Kind::MemoryShort) {
        Some(FindingKind::MemoryShort)
    } else if matches!(kind, Kind::SpaceShort) {
        Some(FindingKind::SpaceShort)
    } else {
        None
    }
}

/// A cause that no other channel shows, by the fault that a rule speaks for first. What it leads to otherwise shows on
/// channels of its own.
const fn cause(fault: Fault) -> Option<FindingKind> {
    Some(match fault {
        Fault::OutOfConnections => FindingKind::NoConnectionLeft,
        Fault::CorruptionReported => FindingKind::DataCorrupt,
        Fault::ReplicationBroken => FindingKind::ReplicationBroken,
        Fault::LockPileUp => FindingKind::LocksPileUp,
        Fault::ImageCorrupt => FindingKind::ImageCorrupt,
        Fault::StorageLost => FindingKind::StorageLost,
        Fault::StorageSlow => FindingKind::StorageSlow,
        Fault::HostFailing => FindingKind::HardwareFailing,
        Fault::HostNetLost => FindingKind::LinkLost,
        Fault::AppDown
        | Fault::AppHung
        | Fault::AppWrong
        | Fault::AppSlow
        | Fault::GuestPanicked
        | Fault::GuestHung
        | Fault::GuestBootFailed
        | Fault::GuestOutOfMemory
        | Fault::GuestDiskFull
        | Fault::GuestFsReadOnly
        | Fault::GuestNetLost
        | Fault::VmCrashed
        | Fault::VmHung
        | Fault::VmPausedIo
        | Fault::VmWontStart
        | Fault::HostOverloaded
        | Fault::HostDiskFull => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::diagnosis::Catalogue;

    const PANIC: &[u8] = b"[   61.0] Kernel panic - not syncing: \xe2\x80\xaesysrq\r\n";

    #[test]
    fn a_known_line_is_shown_escaped_and_without_its_end() {
        let mut findings = Findings::new();
        let found = findings.find(PANIC, Instant::now());
        let line = "[   61.0] Kernel panic - not syncing: \\u{202e}sysrq".to_owned();
        assert_eq!(
            found,
            Some(Finding { kind: FindingKind::KernelPanic, rule: "kernel-panic".into(), line })
        );
        assert_eq!(findings.find(b"all is well", Instant::now()), None);
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_does_not_hide_another() {
        let mut findings = Findings::new();
        let now = Instant::now();
        let told = (0..1_000).filter(|_| findings.find(PANIC, now).is_some()).count();
        assert_eq!((told, findings.untold()), (20, 980));
        assert!(findings.find(b"[   61.0] Aborting journal on device vda-8.", now).is_some());
        assert!(findings.find(PANIC, now + WINDOW).is_some());
    }

    #[test]
    fn only_what_the_engine_can_weigh_reaches_it() {
        for rule in Rules::standard().iter() {
            for line in rule.examples {
                let found = Findings::new().find(line.as_bytes(), Instant::now());
                assert_eq!(found.is_some(), kind(rule).is_some(), "{}", rule.name);
                assert!(found.is_none_or(|found| found.rule == rule.name), "{line}");
            }
            assert!(!rule.kind.is_evidence() || kind(rule).is_some(), "{}", rule.name);
        }
    }

    #[test]
    fn what_windows_tells_of_its_past_or_anybody_may_write_is_no_evidence_and_damage_is_a_cause_i10_i17() {
        let kind = |line: &str| Findings::new().find(line.as_bytes(), Instant::now()).map(|found| found.kind);
        for (line, told) in [
            ("BugCheck 1001: The computer has rebooted from a bugcheck.  The bugcheck was: 0x0000007e", None),
            ("app: *** STOP: 0x0000007E (0xFFFFFFFFC0000005,0x0,0x0,0x28)", None),
            (
                "srv 2013: The C: disk is at or near capacity.  You may need to delete some files.",
                Some(FindingKind::SpaceShort), // which supports what something else shows
            ),
            (
                "Ntfs 55: A corruption was discovered in the file system structure on volume C:.",
                Some(FindingKind::DataCorrupt),
            ),
        ] {
            assert!(Rules::standard().find(line).is_some(), "a rule knows it: {line}");
            assert_eq!(kind(line), told, "{line}");
        }
    }

    #[test]
    fn a_rule_speaks_for_faults_of_the_catalogue() {
        let known: Vec<String> = Catalogue::standard().iter().map(|row| row.fault.to_string()).collect();
        for rule in Rules::standard().iter() {
            for fault in rule.speaks_for {
                assert!(known.contains(&format!("{fault:?}")), "{}: {fault:?}", rule.name);
            }
        }
    }
}
