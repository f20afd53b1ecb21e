//! What the rules are held to, all of them.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::clean;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn found(line: &str) -> Option<&'static str> {
    Rules::standard().find(&clean(line.as_bytes())).map(|found| found.rule.name)
}

#[test]
fn every_example_is_found_first_by_its_own_rule() {
    for rule in Rules::standard().iter() {
        assert!(!rule.examples.is_empty() && !rule.not.is_empty(), "{}", rule.name);
        for line in rule.examples {
            assert_eq!(found(line), Some(rule.name), "{line}");
        }
    }
}

#[test]
fn no_rule_knows_the_near_misses_of_any() {
    let known: Vec<String> = Rules::standard()
        .iter()
        .flat_map(|rule| rule.not.iter().map(move |line| (rule, line)))
        .filter_map(|(rule, line)| {
            found(line).map(|by| format!("{by} knows a near miss of {}: {line}", rule.name))
        })
        .collect();
    assert!(known.is_empty(), "{}", known.join("\n"));
}

#[test]
fn a_line_between_two_rules_goes_to_the_right_one() {
    for (line, name) in BETWEEN {
        assert_eq!(found(line), Some(*name), "{line}");
    }
}

#[test]
fn a_line_of_an_evidence_is_taken_by_no_other_rule() {
    let mut only_told = false;
    for rule in Rules::standard().iter() {
        assert!(!(only_told && rule.kind.is_evidence()), "{} is tried too late", rule.name);
        only_told |= !rule.kind.is_evidence();
    }
}

#[test]
fn every_rule_says_what_it_is() {
    let mut names = BTreeSet::new();
    for rule in Rules::standard().iter() {
        assert!(names.insert(rule.name), "{} is there twice", rule.name);
        assert!(
            rule.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{}",
            rule.name
        );
        assert!(rule.means.len() > 10 && !rule.means.ends_with('.'), "{}", rule.name);
        assert!(rule.needs.len() >= 4, "{}: a short literal makes every line a candidate", rule.name);
        assert!(!rule.source.is_empty() && rule.source.len() < 90, "{}", rule.name);
        assert!(rule.examples.iter().all(|line| line.len() < LOOKED_AT), "{}", rule.name);
        assert_eq!(rule.speaks_for.is_empty(), rule.severity == Severity::Notice, "{}", rule.name);
        let faults: BTreeSet<_> = rule.speaks_for.iter().collect();
        assert_eq!(faults.len(), rule.speaks_for.len(), "{}: a fault is there twice", rule.name);
    }
}

#[test]
fn a_kernel_line_is_known_behind_every_prefix_it_may_have() {
    for prefix in [
        "",
        "[   12.345678] ",
        "<0>[   12.345678] ",
        "[   12.345678][  T123] ",
        "<3>",
        "Nov 23 21:19:48 orders kernel: ",
        "Nov 23 21:19:48 orders kernel: [   12.345678] ",
        "orders login: [   12.345678] ",
    ] {
        assert_eq!(
            found(&format!("{prefix}Aborting journal on device vda-8.")),
            Some("journal-aborted"),
            "{prefix}"
        );
    }
}

#[test]
fn a_user_who_merely_writes_of_a_kernel_line_is_not_the_kernel() {
    for line in [
        "postgres: my note says Aborting journal on device vda-8.",
        "grep: INFO: task postgres:1 blocked for more than 120 seconds",
        "backup: log mentions EXT4-fs error (device vda)",
    ] {
        assert_eq!(found(line), None, "{line}");
    }
}

#[test]
fn no_line_of_the_kernel_is_believed_from_anybody_else() {
    for rule in Rules::standard().iter().filter(|rule| rule.is_by_kernel()) {
        for line in rule.examples {
            let message =
                line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(*line, |at| at.1);
            let quoted = format!("Nov 23 21:19:48 orders app[9]: a user wrote {message}");
            assert_eq!(found(&quoted), None, "{quoted}");
            assert_eq!(found(&format!("[   77.000000] {message}")), Some(rule.name), "{message}");
        }
    }
}

#[test]
fn ordinary_lines_are_nobody() {
    for line in ORDINARY {
        assert_eq!(found(line), None, "{line}");
    }
}

#[test]
fn the_cause_names_a_line_that_tells_two_things() {
    let kind = |line: &str| Rules::standard().find(line).map(|found| found.kind);
    let panic = |cause: &str| format!("[    1.5] Kernel panic - not syncing: {cause}");
    assert_eq!(kind(&panic("VFS: Unable to mount root fs on unknown-block(0,0)")), Some(Kind::RootLost));
    assert_eq!(kind(&panic("No working init found.")), Some(Kind::RootLost));
    assert_eq!(kind(&panic("Attempted to kill init! exitcode=0x0000000b")), Some(Kind::KernelPanic));
    let pg = |why: &str| {
        format!(
            "pg 2026-11-23 21:19:48.1 UTC [77] PANIC:  could not write to file \"pg_wal/xlogtemp.77\": {why}"
        )
    };
    assert_eq!(kind(&pg("No space left on device")), Some(Kind::DiskFull));
    assert_eq!(kind(&pg("Input/output error")), Some(Kind::DiskIoError));
    assert_eq!(kind(&pg("Read-only file system")), Some(Kind::FsReadOnly));
    assert_eq!(kind(&pg("Bad address")), Some(Kind::AppPanic));
}

#[test]
fn a_finding_beyond_the_part_looked_at_is_not_found() {
    let line = format!("{}No space left on device", "x".repeat(LOOKED_AT));
    assert_eq!(found(&line), None);
    let cut = format!("{}é", "x".repeat(LOOKED_AT - 1)); // a character across the border
    assert_eq!(found(&cut), None);
}

#[test]
fn a_line_made_of_all_literals_is_answered_all_the_same() {
    let hostile: String = Rules::standard().iter().map(|rule| rule.needs).collect::<Vec<_>>().join(" ");
    assert!(Rules::standard().find(&hostile).is_some());
}

proptest! {
    #[test]
    fn any_line_is_answered(raw in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let line = clean(&raw);
        let found = Rules::standard().find(&line);
        prop_assert!(found.is_none_or(|found| line.contains(found.rule.needs)));
    }

    #[test]
    fn lines_made_of_pieces_of_rules_are_answered(pieces in proptest::collection::vec(0..COUNT, 0..20), cut in 0usize..40) {
        let rules: Vec<_> = Rules::standard().iter().collect();
        let line: String = pieces.iter().map(|&i| rules[i].examples[0].chars().skip(cut).collect::<String>()).collect();
        let line = clean(line.as_bytes());
        let found = Rules::standard().find(&line);
        prop_assert!(found.is_none_or(|found| line.contains(found.rule.needs)));
    }
}

#[test]
fn the_engine_is_small_and_its_patterns_compile_when_needed() {
    let rules = Rules::standard();
    assert_eq!(rules.rows.len(), COUNT);
    assert!(rules.literals.memory_usage() < 3 << 20, "{} bytes", rules.literals.memory_usage());
    assert!(std::ptr::eq(rules, Rules::standard()));
    assert!(Rules::build().rows.iter().all(|row| row.pattern.get().is_none()), "none before it is needed");
    assert!(rules.rows.first().unwrap().rule.kind == Kind::RootLost);
}

/// Lines that two rules could claim.
const BETWEEN: &[(&str, &str)] = &[
    ("LOG:  database system is ready to accept connections", "postgres-ready"),
    (
        "[   33.0] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
        "workqueue-lockup",
    ),
    (
        "[   33.0] traps: postgres[412] general protection fault ip:55d0 sp:7ffd error:0 in postgres[55d0]",
        "program-trap",
    ),
    ("pg [9] ERROR:  out of memory", "postgres-out-of-memory"),
    ("[  300.2] EXT4-fs (vda): error count since last fsck: 2", "ext4-errors-recorded"),
    ("[   45.0] cgroup: fork rejected by pids controller in /user.slice", "process-limit"),
    (
        "2026-11-23T21:19:48.1Z 0 [ERROR] [MY-012644] [InnoDB] InnoDB: Unable to lock ./ibdata1 error: 11",
        "innodb-files-in-use",
    ),
    (
        "pg 2026-11-23 21:19:48.1 UTC [77] LOG:  could not open file \"x\": Too many open files",
        "too-many-open-files",
    ),
    (
        "pg 2026-11-23 21:19:48.1 UTC [77] PANIC:  could not access status of transaction 3221180546",
        "postgres-panic",
    ),
    (
        "Nov 23 21:19:48 orders systemd[1]: Failed to start app.service: No space left on device",
        "no-space-left",
    ),
];

/// From boots and quiet days of real guests.
const ORDINARY: &[&str] = &[
    "",
    "[    0.000000] Command line: console=ttyS0 root=/dev/vda rw panic=-1 oops=panic",
    "[    0.112233] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
    "[    0.300000] Key type dns_resolver registered",
    "[    1.012345] EXT4-fs (vda): mounted filesystem with ordered data mode. Quota mode: none.",
    "[    1.212345] EXT4-fs (vda): re-mounted. Quota mode: none.",
    "[    1.312345] EXT4-fs (vda): recovery complete",
    "[    2.000000] random: crng init done",
    "[    2.100000] virtio_blk virtio1: [vda] 4194304 512-byte logical blocks (2.15 GB/2.00 GiB)",
    "[    3.100000] e1000: eth0 NIC Link is Up 1000 Mbps Full Duplex, Flow Control: RX",
    "[   30.000000] perf: interrupt took too long (2516 > 2500), lowering kernel.perf_event_max_sample_rate",
    "pg 2026-11-23 21:19:48.123 UTC [61] LOG:  checkpoint starting: time",
    "pg 2026-11-23 21:19:49.000 UTC [61] LOG:  checkpoint complete: wrote 3 buffers (0.0%)",
    "pg 2026-11-23 21:19:49.000 UTC [80] FATAL:  role \"app\" is not permitted to log in",
    "pg 2026-11-23 21:19:49.000 UTC [80] ERROR:  relation \"nothing\" does not exist at character 15",
    "Nov 23 21:19:48 orders sshd[9]: Accepted publickey for root from 10.0.2.2 port 40522 ssh2",
    "Nov 23 21:19:48 orders systemd[1]: Started Daily apt download activities.",
    "2026-11-23  9:15:02 0 [Note] InnoDB: Buffer pool(s) load completed at 261123  9:15:02",
    "771:M 23 Nov 2026 21:19:48.000 * 100 changes in 300 seconds. Saving...",
    "Debian GNU/Linux 12 orders ttyS0",
];
