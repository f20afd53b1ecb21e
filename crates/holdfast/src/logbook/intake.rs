//! The one who takes records in: a thread that drains the queue of the sources, understands each record, keeps it, and
//! tells what was found.
//!
//! It never waits for a reader, and for a disk only so long as a write takes; meanwhile the queue is bounded, and what
//! is one too many is counted there. All that it knows is bounded too (I18), and nothing is learned from an incident.

use super::SourceName;
use super::inlet::{Entry, Outlet};
use super::mind::{Known, Mind, Understood};
use super::store::{Counts, Noted, Owner, Room, Store, Stored};
use crate::asked;
use crate::clock::Clock;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::{Subject, VmName};
use holdfast_core::time::Timestamp;
use holdfast_logs::{
    During, LONGEST_FIELD, LONGEST_FIELD_NAME, LONGEST_TEXT, MOST_FIELDS, PatternId, Record, Rule, Severity,
    Sort, Statement,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Memory of all miners together, in bytes as they count it; each has its share.
const MINERS: usize = 16 << 20;
/// A miner has no more than this, and no less than [`LEAST_MINER`].
const MOST_MINER: usize = 4 << 20;
const LEAST_MINER: usize = 64 << 10;
/// Owners whose patterns are in memory; the others rest on disk.
const MOST_MINDS: usize = MINERS / LEAST_MINER;
/// Memory of all habits together.
const HABITS: usize = 16 << 20;
/// How often it is written, looked at and kept.
const PERIOD: Duration = Duration::from_secs(1);
/// Seconds between two looks at how much memory the habits take.
const COUNT_EVERY: u32 = 60;
/// Records that are taken without looking up.
const IN_A_ROW: usize = 256;
/// What was said so long before it was received is of the past, in microseconds. Clocks differ by less.
const LATE_FROM: i64 = 120_000_000;
/// Questions that wait.
const MOST_ASKED: usize = 8;

/// What was found, as it is told: in whose records, and where.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// Which start of the VM said it, where that is known.
    pub incarnation: Option<Incarnation>,
    /// When, since boot.
    pub at: Timestamp,
    /// Where.
    pub source: SourceName,
    /// The record it was found in or after, for the lines around it.
    pub number: u64,
    /// It was said long before it was received.
    pub is_late: bool,
    /// What.
    pub told: Told,
}

/// What can be told of records.
#[derive(Clone, Debug)]
pub enum Told {
    /// A line that a rule knows.
    Known {
        /// The rule.
        rule: &'static Rule,
        /// The line, escaped.
        line: String,
    },
    /// A pattern that never came before.
    New {
        /// How bad its line is.
        severity: Option<Severity>,
        /// How surprising, and why.
        statement: Statement,
    },
    /// Far more of a pattern within a minute than ever lately.
    Burst(Statement),
    /// Another rate of a pattern.
    Rate(Statement),
    /// A line like clockwork is late.
    Silence(Statement),
    /// A minute unlike the others.
    Window(Statement),
}

impl Told {
    fn of(statement: Statement, severity: Option<Severity>) -> Self {
        match statement.sort {
            Sort::New => Self::New { severity, statement },
            Sort::Burst => Self::Burst(statement),
            Sort::Rate => Self::Rate(statement),
            Sort::Silence => Self::Silence(statement),
            Sort::Window => Self::Window(statement),
        }
    }

    /// Sort, name, severity, decibans and text, as they are kept.
    fn noted(&self) -> (&'static str, String, Option<Severity>, f64, String) {
        let of = |severity: Option<Severity>, statement: &Statement| {
            let name = statement.pattern.map_or_else(String::new, |pattern| pattern.0.to_string());
            (statement.sort.name(), name, severity, statement.decibans, statement.says.clone())
        };
        match self {
            Self::Known { rule, line, .. } => {
                ("known", rule.name.into(), Some(rule.severity), 0.0, line.clone())
            }
            Self::New { severity, statement, .. } => of(*severity, statement),
            Self::Burst(statement)
            | Self::Rate(statement)
            | Self::Silence(statement)
            | Self::Window(statement) => of(None, statement),
        }
    }
}

/// What the records must be seen against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Who has an open incident: nothing is learned of them.
    pub troubled: BTreeSet<Owner>,
    /// VMs that do not run: their silence means nothing.
    pub off: BTreeSet<VmName>,
}

/// What the intake is asked.
enum Asked {
    Patterns(Owner, oneshot::Sender<Vec<Known>>),
    Members(Owner, PatternId, oneshot::Sender<Vec<u64>>),
    Room(Room),
}

/// Where the intake is asked.
#[derive(Clone, Debug)]
pub struct Asks(mpsc::Sender<Asked>);

/// The intake has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Ended;

impl Asks {
    /// The patterns of an owner's records, the most records first.
    pub async fn patterns(&self, owner: Owner) -> Result<Vec<Known>, Ended> {
        asked::ask(&self.0, |reply| Asked::Patterns(owner, reply)).await.ok_or(Ended)
    }

    /// All numbers that records of a pattern may have been kept under.
    pub async fn members(&self, owner: Owner, pattern: PatternId) -> Result<Vec<u64>, Ended> {
        asked::ask(&self.0, |reply| Asked::Members(owner, pattern, reply)).await.ok_or(Ended)
    }

    /// How much may be kept from now on.
    pub async fn set_room(&self, room: Room) {
        let _ = self.0.send(Asked::Room(room)).await; // it stops with us
    }
}

/// Who takes records in.
pub struct Intake {
    /// Where they are kept.
    pub store: Store,
    /// Where they come from.
    pub outlet: Outlet,
    /// The time.
    pub clock: Clock,
    /// Open incidents, and VMs that do not run.
    pub circumstances: watch::Receiver<Circumstances>,
    /// Who is told what was found. It must not block.
    pub tell: Box<dyn FnMut(Finding) + Send>,
}

impl Intake {
    /// Takes in on a thread of its own, until it is told to stop; then it writes what waits.
    pub fn start(self, stop: CancellationToken) -> std::io::Result<(Asks, std::thread::JoinHandle<()>)> {
        let (asks, asked) = mpsc::channel(MOST_ASKED);
        let runtime = tokio::runtime::Handle::current();
        let mut desk = Desk { intake: self, minds: BTreeMap::new(), seconds: 0 };
        let thread = std::thread::Builder::new().name("logs".into());
        let thread = thread.spawn(move || {
            crate::sense::logs::give_way();
            runtime.block_on(desk.run(asked, stop));
        })?;
        Ok((Asks(asks), thread))
    }
}

/// The intake at work.
struct Desk {
    intake: Intake,
    minds: BTreeMap<Owner, Mind>,
    seconds: u32,
}

impl Desk {
    async fn run(&mut self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        let mut ticker = tokio::time::interval(PERIOD);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut flows = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticker.tick() => self.each_second(),
                Some(asked) = asked.recv() => self.answer(asked),
                entry = self.intake.outlet.next(), if flows => match entry {
                    Some(entry) => self.take_some(entry),
                    None => flows = false, // all sources are gone; what is kept can still be asked for
                },
            }
        }
        self.finish();
    }

    fn take_some(&mut self, entry: Entry) {
        self.take(entry);
        for _ in 0..IN_A_ROW {
            let Some(entry) = self.intake.outlet.waiting() else { break };
            self.take(entry);
        }
        if self.intake.store.is_much() {
            let now = self.intake.clock.now();
            self.intake.store.flush(now);
        }
    }

    /// One record: understood, told of, kept.
    fn take(&mut self, mut entry: Entry) {
        bound(&mut entry.record);
        let owner = Owner::of(&entry.subject);
        let during = self.during(&owner);
        let number = self.intake.store.next();
        let understood = self.mind(&owner, entry.at).understand(&entry, number, during);
        let counts = self.intake.store.counts();
        Counts::add(&counts.records, 1);
        Counts::add(&counts.bytes, entry.record.text.len() as u64);
        let Understood { pattern, severity, known, is_hushed, news } = understood;
        let Entry { subject, incarnation, source, at, received, record, place } = entry;
        let is_late = record.time.is_some_and(|said| received.saturating_sub(said) > LATE_FROM);
        let rule = known.as_ref().map(|(known, _)| known.rule.name.into());
        let about = |told| Finding {
            subject: subject.clone(),
            incarnation,
            at,
            source: source.clone(),
            number,
            is_late,
            told,
        };
        let mut found = Vec::new();
        if let Some((known, line)) = known {
            Counts::add(&counts.findings, 1);
            if !is_hushed {
                found.push(about(Told::Known { rule: known.rule, line }));
            }
        }
        found.extend(news.map(|statement| about(Told::of(statement, severity))));
        let pattern = pattern.0;
        let stored = Stored {
            number,
            subject: subject.clone(),
            incarnation,
            source: source.clone(),
            at,
            received,
            severity,
            pattern,
            rule,
            record,
        };
        self.intake.store.put(stored, place);
        found.into_iter().for_each(|finding| self.tell(finding, received));
    }

    fn tell(&mut self, finding: Finding, received: i64) {
        let (sort, name, severity, decibans, text) = finding.told.noted();
        if sort != "known" {
            Counts::add(&self.intake.store.counts().unusual, 1);
        }
        let Finding { subject, at, source, number, .. } = finding.clone();
        let sort = sort.to_owned();
        self.intake.store.note(Noted {
            number,
            subject,
            source,
            at,
            received,
            sort,
            name,
            severity,
            decibans,
            text,
        });
        (self.intake.tell)(finding);
    }

    fn during(&self, owner: &Owner) -> During {
        let is_troubled = self.intake.circumstances.borrow().troubled.contains(owner);
        if is_troubled { During::Incident } else { During::Quiet }
    }

    /// What is known of an owner's records, woken up if it rests. Whoever spoke longest ago is put to rest for it.
    fn mind(&mut self, owner: &Owner, now: Timestamp) -> &mut Mind {
        if !self.minds.contains_key(owner) {
            if self.minds.len() >= MOST_MINDS {
                let oldest =
                    self.minds.iter().min_by_key(|(_, mind)| mind.used).map(|(owner, _)| owner.clone());
                if let Some(oldest) = oldest {
                    self.rest(&oldest, now);
                }
            }
            let store = &self.intake.store;
            let mind = Mind::new(store.mind(owner), store.pattern(owner), now);
            self.minds.insert(owner.clone(), mind);
            let share = (MINERS / self.minds.len()).clamp(LEAST_MINER, MOST_MINER);
            self.minds.values_mut().for_each(|mind| mind.set_room(share));
        }
        self.minds.entry(owner.clone()).or_insert_with(|| Mind::new(None, 0, now))
    }

    fn rest(&mut self, owner: &Owner, now: Timestamp) {
        if let Some(mut mind) = self.minds.remove(owner)
            && mind.has_learned()
        {
            self.intake.store.keep_mind(owner, &mind.save(now), now);
        }
    }

    fn each_second(&mut self) {
        let now = self.intake.clock.now();
        let received = self.intake.clock.wall(now);
        let circumstances = self.intake.circumstances.borrow().clone();
        let mut found = Vec::new();
        for (owner, mind) in &mut self.minds {
            let is_off = matches!(owner, Owner::Vm(vm) if circumstances.off.contains(vm));
            if is_off {
                mind.interrupt(now);
                continue;
            }
            let is_troubled = circumstances.troubled.contains(owner);
            let during = if is_troubled { During::Incident } else { During::Quiet };
            found.extend(mind.look(now, during));
        }
        for (source, subject, incarnation, number, statement) in found {
            let told = Told::of(statement, None);
            self.tell(
                Finding { subject, incarnation, at: now, source, number, is_late: false, told },
                received,
            );
        }
        self.intake.store.flush(now);
        let due = self.minds.iter_mut().filter(|(_, mind)| mind.is_due(now));
        if let Some((owner, mind)) = due.min_by_key(|(_, mind)| mind.kept) {
            self.intake.store.keep_mind(owner, &mind.save(now), now);
        }
        self.seconds += 1;
        if self.seconds.is_multiple_of(COUNT_EVERY) {
            self.bound_habits();
        }
    }

    /// The habits of sources that spoke longest ago are forgotten when all together take too much memory.
    fn bound_habits(&mut self) {
        let habits = self.minds.iter().flat_map(|(owner, mind)| {
            mind.habits().map(move |(source, used, bytes)| (used, owner.clone(), source.clone(), bytes))
        });
        let mut habits: Vec<_> = habits.collect();
        habits.sort_unstable_by_key(|(used, ..)| *used);
        let mut total: usize = habits.iter().map(|(.., bytes)| bytes).sum();
        for (_, owner, source, bytes) in habits {
            if total <= HABITS {
                return;
            }
            if let Some(mind) = self.minds.get_mut(&owner) {
                mind.forget(&source);
            }
            total -= bytes;
        }
    }

    fn answer(&mut self, asked: Asked) {
        let now = self.intake.clock.now();
        match asked {
            // Whoever asked may have gone.
            Asked::Patterns(owner, reply) => drop(reply.send(self.mind(&owner, now).patterns())),
            Asked::Members(owner, pattern, reply) => {
                drop(reply.send(self.mind(&owner, now).members(pattern)))
            }
            Asked::Room(room) => self.intake.store.set_room(room),
        }
    }

    /// Takes in what waits, and keeps all that was learned.
    fn finish(&mut self) {
        while let Some(entry) = self.intake.outlet.waiting() {
            self.take(entry);
        }
        let now = self.intake.clock.now();
        self.intake.store.flush(now);
        for (owner, mut mind) in std::mem::take(&mut self.minds) {
            if mind.has_learned() {
                self.intake.store.keep_mind(&owner, &mind.save(now), now);
            }
        }
    }
}

/// No record is larger than a record may be, whatever its source made of it (I18).
fn bound(record: &mut Record) {
    let cut = |text: &mut String, most: usize| {
        if text.len() > most {
            text.truncate(text.floor_char_boundary(most));
        }
    };
    cut(&mut record.text, LONGEST_TEXT);
    cut(&mut record.program, LONGEST_FIELD);
    record.fields.truncate(MOST_FIELDS);
    for (name, value) in &mut record.fields {
        cut(name, LONGEST_FIELD_NAME);
        cut(value, LONGEST_FIELD);
    }
}

#[cfg(test)]
mod tests;
