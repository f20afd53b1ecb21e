//! What a person asks for, in the words of a story.

use crate::words::{duration_text, parse_duration};
use holdfast_core::action::Work;
use holdfast_core::point::SnapshotId;
use holdfast_core::subject::VmName;
use std::time::Duration;

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words in `text` say it")]
pub enum PersonWish {
    Start,
    Stop {
        at_once: bool,
    },
    Restart {
        at_once: bool,
    },
    Pause,
    Resume,
    Maintain(Option<Duration>),
    EndMaintenance,
    Release,
    Announce(Work, Duration),
    EndWork(Work),
    Snapshot {
        memory: bool,
    },
    Backup {
        warned: bool,
    },
    /// Clients do, not persons of ours: into each of its applications.
    Write {
        rows: u64,
    },
    GoBack {
        to: SnapshotId,
        resume: bool,
    },
    Approve,
}

/// Reads what comes after `person `.
pub(crate) fn parse(text: &str) -> Option<(VmName, PersonWish)> {
    let words: Vec<&str> = text.split(' ').collect();
    let (vm, wish) = match words[..] {
        ["starts", vm] => (vm, PersonWish::Start),
        ["stops", vm] => (vm, PersonWish::Stop { at_once: false }),
        ["stops", vm, "at", "once"] => (vm, PersonWish::Stop { at_once: true }),
        ["restarts", vm] => (vm, PersonWish::Restart { at_once: false }),
        ["restarts", vm, "at", "once"] => (vm, PersonWish::Restart { at_once: true }),
        ["pauses", vm] => (vm, PersonWish::Pause),
        ["resumes", vm] => (vm, PersonWish::Resume),
        ["maintains", vm] => (vm, PersonWish::Maintain(None)),
        ["maintains", vm, "for", long] => (vm, PersonWish::Maintain(Some(parse_duration(long)?))),
        ["ends", "maintenance", "of", vm] => (vm, PersonWish::EndMaintenance),
        ["releases", vm] => (vm, PersonWish::Release),
        ["announces", work, "of", vm, "for", long] => {
            (vm, PersonWish::Announce(parse_work(work)?, parse_duration(long)?))
        }
        ["ends", work, "of", vm] => (vm, PersonWish::EndWork(parse_work(work)?)),
        ["takes", "a", "snapshot", "of", vm] => (vm, PersonWish::Snapshot { memory: false }),
        ["takes", "a", "snapshot", "of", vm, "with", "its", "memory"] => {
            (vm, PersonWish::Snapshot { memory: true })
        }
        ["backs", "up", vm] => (vm, PersonWish::Backup { warned: false }),
        ["backs", "up", vm, "and", "is", "warned"] => (vm, PersonWish::Backup { warned: true }),
        ["writes", rows, "rows", "in", vm] => (vm, PersonWish::Write { rows: rows.parse().ok()? }),
        ["takes", vm, "back", "to", "snapshot", to] => {
            (vm, PersonWish::GoBack { to: SnapshotId(to.parse().ok()?), resume: false })
        }
        ["resumes", "snapshot", to, "of", vm] => {
            (vm, PersonWish::GoBack { to: SnapshotId(to.parse().ok()?), resume: true })
        }
        ["approves", "the", "way", "back", "of", vm] => (vm, PersonWish::Approve),
        _ => return None,
    };
    Some((vm.parse().ok()?, wish))
}

const WORKS: [Work; 6] =
    [Work::Drill, Work::Backup, Work::Freeze, Work::Snapshot, Work::Migration, Work::Reboot];

fn parse_work(text: &str) -> Option<Work> {
    WORKS.into_iter().find(|work| work.name() == text)
}

/// What [`parse`] reads.
pub(crate) fn text(vm: &VmName, wish: PersonWish) -> String {
    match wish {
        PersonWish::Start => format!("starts {vm}"),
        PersonWish::Stop { at_once: false } => format!("stops {vm}"),
        PersonWish::Stop { at_once: true } => format!("stops {vm} at once"),
        PersonWish::Restart { at_once: false } => format!("restarts {vm}"),
        PersonWish::Restart { at_once: true } => format!("restarts {vm} at once"),
        PersonWish::Pause => format!("pauses {vm}"),
        PersonWish::Resume => format!("resumes {vm}"),
        PersonWish::Maintain(None) => format!("maintains {vm}"),
        PersonWish::Maintain(Some(long)) => format!("maintains {vm} for {}", duration_text(long)),
        PersonWish::EndMaintenance => format!("ends maintenance of {vm}"),
        PersonWish::Release => format!("releases {vm}"),
        PersonWish::Announce(work, long) => {
            format!("announces {} of {vm} for {}", work.name(), duration_text(long))
        }
        PersonWish::EndWork(work) => format!("ends {} of {vm}", work.name()),
        PersonWish::Snapshot { memory: false } => format!("takes a snapshot of {vm}"),
        PersonWish::Snapshot { memory: true } => format!("takes a snapshot of {vm} with its memory"),
        PersonWish::Backup { warned: false } => format!("backs up {vm}"),
        PersonWish::Backup { warned: true } => format!("backs up {vm} and is warned"),
        PersonWish::Write { rows } => format!("writes {rows} rows in {vm}"),
        PersonWish::GoBack { to, resume: false } => format!("takes {vm} back to snapshot {to}"),
        PersonWish::GoBack { to, resume: true } => format!("resumes snapshot {to} of {vm}"),
        PersonWish::Approve => format!("approves the way back of {vm}"),
    }
}
