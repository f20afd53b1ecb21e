//! What was found in the records, as far as it is evidence.
//!
//! A log speaks late and for strangers: what was said long ago is history, a line counts only for what its writer can
//! know (a guest nothing of its image, a program nothing of its kernel), and what is merely unusual supports what
//! something else speaks for (I10, I17).

use super::intake::{Finding, Told};
use holdfast_core::signal::{self, FindingKind, LogSign, Seen, Signal, Unusual};
use holdfast_core::subject::Subject;
use holdfast_logs::{Statement, escape};

/// The sources that the engine hears of anyway, line by line (`sense/console.rs`, `sense/host/kernel.rs`).
const CONSOLE: &str = "console";
const KERNEL: &str = "kernel";
/// Less surprising than this, in decibans, is nothing to the engine.
const SURPRISING: f64 = 20.0;
/// Characters of a source that are told, and of a sentence.
const SOURCE_MOST: usize = 64;
const SAYS_MOST: usize = 256;

/// What the engine is told of a finding; nothing of most.
pub fn testify(finding: &Finding) -> Option<Signal> {
    if finding.is_late {
        return None;
    }
    let source = escape(finding.source.as_str(), SOURCE_MOST);
    let sign = match &finding.told {
        Told::Known { .. } if [CONSOLE, KERNEL].contains(&finding.source.as_str()) => return None,
        Told::Known { rule, line, .. } => {
            let kind = crate::sense::finding_kind(rule).filter(|kind| can_know(&finding.subject, *kind))?;
            let line = escape(line, SAYS_MOST);
            LogSign::Finding { source, finding: signal::Finding { kind, rule: rule.name.into(), line } }
        }
        _ if matches!(finding.subject, Subject::Host(_)) => return None, // shown, and no evidence of a fault
        Told::New { statement, .. } => unusual(source, Unusual::New, statement)?,
        Told::Burst(statement) => unusual(source, Unusual::Burst, statement)?,
        Told::Rate(statement) => unusual(source, Unusual::Rate, statement)?,
        Told::Silence(statement) => unusual(source, Unusual::Silence, statement)?,
        Told::Window(statement) => unusual(source, Unusual::Window, statement)?,
    };
    let (subject, incarnation, at) = (finding.subject.clone(), finding.incarnation, finding.at);
    Some(Signal { subject, incarnation, at, seen: Seen::Log(sign) })
}

/// Only the hypervisor knows the state of an image, and it says nothing of what goes on inside; the log of a host
/// tells of its hardware.
fn can_know(subject: &Subject, kind: FindingKind) -> bool {
    match subject {
        Subject::Vm(_) => kind == FindingKind::ImageCorrupt,
        Subject::Guest(_) | Subject::App(..) => kind != FindingKind::ImageCorrupt,
        Subject::Host(_) => {
            let of_hardware = matches!(kind, FindingKind::HardwareFailing | FindingKind::LinkLost);
            of_hardware || matches!(kind, FindingKind::StorageLost | FindingKind::StorageSlow)
        }
    }
}

fn unusual(source: String, how: Unusual, statement: &Statement) -> Option<LogSign> {
    let surprise = statement.decibans;
    (surprise >= SURPRISING).then(|| {
        let text = escape(&statement.says, SAYS_MOST);
        LogSign::Unusual { source, how, surprise: surprise.clamp(0.0, 1_000.0) as u16, text }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::SourceName;
    use super::*;
    use holdfast_core::time::Timestamp;
    use holdfast_logs::{Kind, Rules};

    fn found(subject: &Subject, source: &str, line: &str) -> Finding {
        let found = Rules::standard().find(line).unwrap();
        let told = Told::Known { rule: found.rule, line: line.into() };
        let (source, at) = (SourceName::new(source), Timestamp::from_secs(7));
        Finding { subject: subject.clone(), incarnation: None, at, source, number: 1, is_late: false, told }
    }

    #[test]
    fn a_database_that_names_a_cause_is_a_witness_and_the_console_is_not_heard_twice() {
        let guest = Subject::Guest("orders".parse().unwrap());
        let line = "FATAL:  sorry, too many clients already";
        let signal = testify(&found(&guest, "file postgresql.log", line)).unwrap();
        let Seen::Log(LogSign::Finding { source, finding }) = signal.seen else { panic!("{signal:?}") };
        assert_eq!((source.as_str(), finding.kind), ("file postgresql.log", FindingKind::NoConnectionLeft));
        assert!(testify(&found(&guest, CONSOLE, line)).is_none());
        let late = Finding { is_late: true, ..found(&guest, "journal", line) };
        assert!(testify(&late).is_none());
    }

    #[test]
    fn the_log_of_a_host_is_a_witness_of_its_hardware_and_its_kernel_is_not_heard_twice() {
        let host = Subject::Host("atlas".parse().unwrap());
        let heard = |source: &str, line: &str| testify(&found(&host, source, line)).map(|signal| signal.seen);
        let smart = "smartd[812]: Device: /dev/sda [SAT], FAILED SMART self-check. BACK UP DATA NOW!";
        let Some(Seen::Log(LogSign::Finding { finding, .. })) = heard("journal", smart) else { panic!() };
        assert_eq!(finding.kind, FindingKind::HardwareFailing);
        assert!(heard(KERNEL, smart).is_none());
        assert!(heard("journal", "FATAL:  sorry, too many clients already").is_none());
    }

    #[test]
    fn a_failed_service_of_a_guest_is_a_witness() {
        let app = Subject::App("orders".parse().unwrap(), "db".parse().unwrap());
        let line = "systemd[1]: postgresql@15-main.service: Failed with result 'oom-kill'.";
        let signal = testify(&found(&app, "journal", line)).unwrap();
        let Seen::Log(LogSign::Finding { finding, .. }) = signal.seen else { panic!("{signal:?}") };
        assert_eq!(finding.kind, FindingKind::ServiceFailed);
    }

    #[test]
    fn only_the_hypervisor_is_believed_about_its_image_and_only_about_that() {
        let (vm, guest) = (Subject::Vm("orders".parse().unwrap()), Subject::Guest("orders".parse().unwrap()));
        let corrupt = Rules::standard().iter().find(|rule| rule.kind == Kind::ImageCorrupt).unwrap();
        let line = corrupt.examples[0];
        assert!(testify(&found(&vm, "hypervisor", line)).is_some());
        assert!(testify(&found(&guest, "journal", line)).is_none());
        let panic = "Kernel panic - not syncing: Fatal exception";
        assert!(testify(&found(&vm, "hypervisor", panic)).is_none());
        assert!(testify(&found(&guest, "journal", panic)).is_some());
    }
}
