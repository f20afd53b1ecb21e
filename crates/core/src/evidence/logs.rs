//! What logs tell that no other channel can: the causes that a database, a hypervisor or a journal names.
//!
//! Lines of the kernel, or of a database that gave up, are the same words whether the console or a forwarded log
//! shows them: they are one voice, and belong to the console (`console.rs`). And what is merely unusual supports a
//! fault that something else speaks for; alone it names none.

use super::console::ConsoleView;
use super::{Evidence, FULL, Kind, Lens, Quote, lasted};
use crate::signal::{ConsoleSign, Finding, FindingKind, LogSign};
use crate::subject::AppName;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A database that gave up, or began anew, so many times within [`LOOP_WITHIN`] does so again and again.
const LOOP_TIMES: usize = 3;
/// See [`LOOP_TIMES`].
const LOOP_WITHIN: Duration = Duration::from_secs(300);
/// Two ends nearer than this are one, told of by two logs.
const SAME_END: Duration = Duration::from_secs(5);
/// So many turns lie between those.
const TURNS: u32 = LOOP_TIMES as u32 - 1;
/// What serves, and has not given up for so many of those turns, and for so long, is in no loop any more.
const TURNS_MISSED: u32 = 3;
/// See [`TURNS_MISSED`].
const LOOP_LATE: Duration = Duration::from_secs(30);
/// A line that says that no place is left holds for so long against an answer that we got all the same: others may not
/// have got one.
const PASSES_WITHIN: Duration = Duration::from_secs(2);
/// What is unusual is told for so long.
const UNUSUAL_KEEPS: Duration = Duration::from_secs(300);
/// So surprising, in decibans, is worth its full weight.
const SURPRISE_FULL: u32 = 60;

/// What is remembered of the logs: the newest line of each kind and application, and how often it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogsView {
    found: Vec<Found>,
    #[serde(default)]
    gave_up: Vec<Timestamp>,
    #[serde(default)]
    unusual: Option<Odd>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    kind: FindingKind,
    app: Option<AppName>,
    first: Timestamp,
    last: Timestamp,
    count: u32,
    source: String,
    line: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Odd {
    app: Option<AppName>,
    at: Timestamp,
    surprise: u16,
    text: String,
}

impl LogsView {
    /// Takes in what a log said, about an application where that is known. Lines of the kinds that the console tells
    /// of go there, unless they would have an incident looked at that is long over: logs may come late.
    pub fn observe(
        &mut self,
        at: Timestamp,
        app: Option<&AppName>,
        sign: &LogSign,
        console: &mut ConsoleView,
    ) {
        match sign {
            LogSign::Finding { source, finding } => {
                if meaning(finding.kind).is_some() {
                    self.find(at, app, source, finding);
                } else if may_come_late(finding.kind) {
                    let line = format!("{} ({source})", finding.line);
                    console.observe(at, &ConsoleSign::Finding(Finding { line, ..finding.clone() }));
                }
                self.count_ends(at, finding.kind);
            }
            LogSign::Unusual { source, surprise, text, .. } => {
                let odd =
                    Odd { app: app.cloned(), at, surprise: *surprise, text: format!("{source}: {text}") };
                let newer = |old: &Odd| old.surprise <= *surprise || at.since(old.at) > UNUSUAL_KEEPS / 2;
                if self.unusual.as_ref().is_none_or(newer) {
                    self.unusual = Some(odd);
                }
            }
        }
    }

    /// Whether a line of this kind is remembered here.
    pub const fn concerns(kind: FindingKind) -> bool {
        meaning(kind).is_some() || matches!(kind, FindingKind::AppPanic)
    }

    /// The same for a line that the console shows.
    pub fn observe_console(&mut self, at: Timestamp, finding: &Finding) {
        if meaning(finding.kind).is_some() {
            self.find(at, None, "console", finding);
        }
        self.count_ends(at, finding.kind);
    }

    fn find(&mut self, at: Timestamp, app: Option<&AppName>, source: &str, finding: &Finding) {
        let forgotten_after = meaning(finding.kind).map_or(Duration::ZERO, |meaning| meaning.half_life);
        let same = |found: &&mut Found| found.kind == finding.kind && found.app.as_ref() == app;
        let (first, count) = match self.found.iter_mut().find(same) {
            Some(found) if at.since(found.last) <= forgotten_after => (found.first, found.count),
            Some(_) | None => (at, 0),
        };
        let fresh = Found {
            kind: finding.kind,
            app: app.cloned(),
            first,
            last: at,
            count: count.saturating_add(1),
            source: source.to_owned(),
            line: finding.line.clone(),
        };
        self.found.retain(|found| found.kind != finding.kind || found.app.as_ref() != app);
        self.found.push(fresh);
    }

    /// A database that gives up says so; so does one that begins to replay its log.
    fn count_ends(&mut self, at: Timestamp, kind: FindingKind) {
        let told = self.gave_up.last().is_some_and(|last| at.since(*last) < SAME_END);
        if kind == FindingKind::AppPanic && !told {
            self.gave_up.retain(|then| at.since(*then) <= LOOP_WITHIN);
            self.gave_up.push(at);
            let most = self.gave_up.len().saturating_sub(LOOP_TIMES);
            self.gave_up.drain(..most);
        }
    }

    /// The guest proved healthy, or began anew: what was said before is of the past. What is told of stored data
    /// stays: a restart does not mend them.
    pub fn turn_page(&mut self) {
        self.found.retain(|found| outlives_restart(found.kind));
        self.unusual = None;
    }

    /// A person says that what databases told of is dealt with: the next line of it is a new one.
    pub fn dealt_with(&mut self) {
        self.found.retain(|found| !found.kind.is_of_database());
    }

    /// Whether it tells nothing that matters any more.
    pub fn is_quiet(&self, lens: &Lens) -> bool {
        self.found.iter().all(|found| {
            meaning(found.kind).is_none_or(|meaning| lens.aged(found.last, meaning.half_life) == 0)
        }) && !self.loops(lens)
    }

    /// It gave up so often, and not long ago.
    fn loops(&self, lens: &Lens) -> bool {
        self.gave_up.len() >= LOOP_TIMES && lens.now.since(self.gave_up[0]) <= LOOP_WITHIN
    }

    /// The next time is overdue: what serves for longer than its turns lasted is in no loop any more.
    fn left_the_loop(&self, lens: &Lens) -> bool {
        let [first, .., last] = self.gave_up[..] else { return true };
        lens.now.since(last) > (last.since(first) * TURNS_MISSED / TURNS).max(LOOP_LATE)
    }

    /// `only`: the one application of the guest, if it has just one; a line that names none is its own then.
    /// `heard`: when an application last answered, and whether it does now.
    pub fn speak(
        &self,
        lens: &Lens,
        only: Option<&AppName>,
        heard: impl Fn(&AppName) -> (Option<Timestamp>, bool),
        say: &mut Vec<Evidence>,
    ) {
        for found in &self.found {
            let app = found.app.as_ref().or_else(|| only.filter(|only| found.may_speak_of(only))).cloned();
            let (answered, alive) = app.as_ref().map_or((None, false), &heard);
            let passed = answered.is_some_and(|at| at > found.last + PASSES_WITHIN);
            if found.kind == FindingKind::NoConnectionLeft && passed {
                continue; // there was a place for us since
            }
            if is_of_those_served(found.kind) && !alive {
                continue; // nobody is served, which is worse, and may have another cause
            }
            let Some(meaning) = meaning(found.kind).filter(|_| app.is_some() || !is_of_app(found.kind))
            else {
                continue; // of one of several, and nobody knows which
            };
            let full = lens.aged(found.last, meaning.half_life);
            let lines = u16::try_from(found.count).unwrap_or(u16::MAX).min(meaning.lines);
            let (kind, strength) = (meaning.kind, full / meaning.lines * lines);
            if strength == 0 {
                continue;
            }
            let often = if found.count > 1 { format!("{} times, last ", found.count) } else { String::new() };
            let text = format!("{}, {often}{} ago: {}", found.source, lasted(lens, found.last), found.line);
            let app = app.filter(|_| is_of_app(found.kind));
            let quote = Some(Quote { at: found.last, line: found.line.clone() });
            say.push(Evidence { kind, app, since: found.first, at: lens.now, strength, text, quote });
        }
        let serves = only.is_some_and(|app| heard(app).1);
        if self.loops(lens) && only.is_some() && !(serves && self.left_the_loop(lens)) {
            let since = self.gave_up[0];
            let text = format!("it gave up {LOOP_TIMES} times within {}", lasted(lens, since));
            let (kind, app) = (Kind::LogCrashLoop, only.cloned());
            say.push(Evidence { kind, app, since, at: lens.now, strength: FULL, text, quote: None });
        }
        if let Some(odd) = self.unusual.as_ref().filter(|odd| lens.now.since(odd.at) <= UNUSUAL_KEEPS) {
            let share = u32::from(odd.surprise).min(SURPRISE_FULL) * u32::from(FULL) / SURPRISE_FULL;
            let strength = u16::try_from(share).unwrap_or(FULL);
            let text = format!("{} ago, {}", lasted(lens, odd.at), odd.text);
            let app = odd.app.clone();
            let (kind, quote) = (Kind::LogUnusual, Some(Quote { at: odd.at, line: odd.text.clone() }));
            say.push(Evidence { kind, app, since: odd.at, at: lens.now, strength, text, quote });
        }
    }
}

impl Found {
    /// Any line of a database is of the only one there is; of all the services of a guest, only one that is named so.
    fn may_speak_of(&self, app: &AppName) -> bool {
        self.kind != FindingKind::ServiceFailed || names(&self.line, app.as_str())
    }
}

/// The line has this name as a word, whatever the case.
fn names(line: &str, name: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
    words.any(|word| word.eq_ignore_ascii_case(name))
}

/// What is told of one application, and not of its guest.
const fn is_of_app(kind: FindingKind) -> bool {
    kind.is_of_database() || matches!(kind, FindingKind::ServiceFailed)
}

/// Kinds that only say how things are, and say so as well half a minute later.
const fn may_come_late(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::KernelPanic
            | FindingKind::KernelOops
            | FindingKind::HungTask
            | FindingKind::OutOfMemory
            | FindingKind::FsError
            | FindingKind::FsReadOnly
            | FindingKind::DiskIoError
            | FindingKind::DiskFull
            | FindingKind::AppPanic
    )
}

/// What matters only while users are served.
const fn is_of_those_served(kind: FindingKind) -> bool {
    matches!(kind, FindingKind::LocksPileUp | FindingKind::ReplicationBroken)
}

/// What is stored is the same after a restart.
const fn outlives_restart(kind: FindingKind) -> bool {
    matches!(kind, FindingKind::DataCorrupt | FindingKind::ImageCorrupt)
}

/// What a line of some kind states.
struct Meaning {
    kind: Kind,
    /// It loses half its weight in this time: a refusal is repeated with each try, damage is read once.
    half_life: Duration,
    /// So many lines in a row make it certain: one alone may be a session that waited, or a link that was cut and is
    /// back.
    lines: u16,
}

const fn meaning(kind: FindingKind) -> Option<Meaning> {
    let (kind, half_life, lines) = match kind {
        FindingKind::NoConnectionLeft => (Kind::LogNoConnectionLeft, 30, 3),
        FindingKind::DataCorrupt => (Kind::LogDataCorrupt, 900, 1),
        FindingKind::ReplicationBroken => (Kind::LogReplicationBroken, 120, 3),
        FindingKind::LocksPileUp => (Kind::LogLocksPileUp, 120, 3),
        FindingKind::ImageCorrupt => (Kind::LogImageCorrupt, 900, 1),
        FindingKind::StorageLost | FindingKind::StorageSlow | FindingKind::HardwareFailing => {
            (Kind::LogStorageTrouble, 120, 1)
        }
        FindingKind::LinkLost => (Kind::LogLinkDown, 60, 1),
        FindingKind::MemoryShort => (Kind::LogMemoryShort, 120, 1),
        FindingKind::SpaceShort => (Kind::LogSpaceShort, 300, 1),
        FindingKind::ServiceFailed => (Kind::LogServiceFailed, 60, 1),
        FindingKind::KernelPanic
        | FindingKind::KernelOops
        | FindingKind::HungTask
        | FindingKind::OutOfMemory
        | FindingKind::FsError
        | FindingKind::FsReadOnly
        | FindingKind::DiskIoError
        | FindingKind::DiskFull
        | FindingKind::RootLost
        | FindingKind::BootStarted
        | FindingKind::BootFinished
        | FindingKind::AppPanic
        | FindingKind::AppStarting
        | FindingKind::AppReady
        | FindingKind::GoingDown => return None,
    };
    Some(Meaning { kind, half_life: Duration::from_secs(half_life), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(now: Timestamp) -> Lens {
        let (fresh, hang_after) = (Duration::from_secs(4), Duration::from_secs(10));
        Lens { now, fresh, hang_after, trust_silence: true, patience: 1, booting: false, excused: false }
    }

    /// What the logs of a guest with the one application `orders` say after this line of its journal.
    fn said(kind: FindingKind, line: &str) -> Vec<Evidence> {
        let (mut logs, mut console, now) =
            (LogsView::default(), ConsoleView::default(), Timestamp::from_secs(7));
        let finding = Finding { kind, rule: "any".into(), line: line.into() };
        let sign = LogSign::Finding { source: "journal".into(), finding };
        logs.observe(now, None, &sign, &mut console);
        let (only, mut say) = ("orders".parse().ok(), Vec::new());
        logs.speak(&lens(now), only.as_ref(), |_| (None, false), &mut say);
        say
    }

    #[test]
    fn a_service_that_failed_speaks_of_the_application_of_its_name_and_of_no_other() {
        let said = |line: &str| said(FindingKind::ServiceFailed, line);
        let of_it = said("systemd[1]: Orders.service: Failed with result 'exit-code'.");
        assert_eq!(of_it.iter().map(|evidence| evidence.kind).collect::<Vec<_>>(), [Kind::LogServiceFailed]);
        assert!(of_it[0].app.is_some() && of_it[0].quote.is_some());
        assert_eq!(said("systemd[1]: certbot.service: Failed with result 'exit-code'."), []);
        assert_eq!(said("systemd[1]: reorders.service: Failed with result 'exit-code'."), []);
    }

    #[test]
    fn what_a_guest_says_of_its_disks_supports_a_fault_and_is_no_voice_by_itself() {
        let disks = said(FindingKind::StorageLost, "nvme nvme0: controller is down; will reset");
        assert_eq!(disks.iter().map(|evidence| evidence.kind).collect::<Vec<_>>(), [Kind::LogStorageTrouble]);
        let catalogue = crate::diagnosis::Catalogue::standard();
        let only = "orders".parse().ok();
        assert!(catalogue.diagnose(only.as_ref(), &disks, crate::diagnosis::Asked::Usually).is_none());
    }
}
