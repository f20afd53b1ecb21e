//! Numbers that are measured anyway become series, and what is unusual in them is told.
//!
//! Nothing is asked for here: signals pass by, and what they measure is taken out of them. A series is rolled up to one
//! value in ten seconds, the middle one, so that a moment is no trend. Values of an incident teach nothing. They are kept
//! ([`kept`]); what the judges learned is not, so those of a new daemon first recall the values of the last hours.

mod judge;
pub mod kept;
mod latest;
mod measure;
mod roll;
mod together;

pub use latest::Newest;
pub use measure::{Name, Reading, What};

use crate::clock::Clock;
use crate::decide::Inbox;
use holdfast_core::engine::Engine;
use holdfast_core::input::Input;
use holdfast_core::signal::Signal;
use holdfast_core::subject::{Subject, VmName};
use holdfast_core::time::Timestamp;
use judge::Judge;
use kept::{Keeper, Kept, Moment, Past, Shelf, Value};
use roll::{Rolled, Rolls};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use together::{Beside, Together};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Signals that may wait; what is one too many is left out, and the series has a gap.
const QUEUE: usize = 1_024;
/// Series that are followed at most, some 120 KiB each; and as many that users define, of which a configuration holds
/// fewer.
const MOST_SERIES: usize = 256;
/// One that was silent for so long may be forgotten for another; one that a user defined may come once an hour.
const SILENT: Duration = Duration::from_secs(600);
const OWN_SILENT: Duration = Duration::from_secs(2 * 3_600);
/// How often values are rolled up and judged.
pub const ROLL_EVERY: Duration = Duration::from_secs(10);

/// Judges of a new daemon recall the values of so long ...
const RECALLED: Duration = Duration::from_secs(4 * 3_600);
/// ... as far as this takes no longer; the others begin young.
const RECALLING: Duration = Duration::from_secs(5);

/// Where signals are shown, and numbers of users' own told.
#[derive(Clone)]
pub struct Numbers {
    sender: mpsc::Sender<Shown>,
    newest: Newest,
}

/// What comes in.
enum Shown {
    /// A signal on its way to the engine.
    Signal(Signal),
    /// A number that a user defined.
    Own(Name, Timestamp, Reading),
}

impl Numbers {
    /// Begins to follow series, until told to stop.
    pub fn start(
        inbox: &Inbox,
        clock: Clock,
        (kept, newest): (&Kept, Newest),
        stop: &CancellationToken,
    ) -> Self {
        let (sender, signals) = mpsc::channel(QUEUE);
        let follower = Follower {
            signals,
            inbox: inbox.clone(),
            clock,
            newest: newest.clone(),
            keeper: kept.keeper.clone(),
            shelf: kept.shelf.clone(),
        };
        tokio::spawn(follower.follow(stop.clone()));
        Self { sender, newest }
    }

    /// A number that a user defined was read then.
    pub fn tell(&self, name: Name, at: Timestamp, reading: Reading) {
        let _ = self.sender.try_send(Shown::Own(name, at, reading)); // a gap is harmless
    }

    /// Why a number that a user defined cannot be had; `None`: it can.
    pub fn trouble(&self, name: &Name, why: Option<String>) {
        self.newest.trouble(name, why);
    }

    /// Shows a signal on its way to the engine.
    pub fn show(&self, signal: &Signal) {
        if measure::measures(&signal.seen) {
            let _ = self.sender.try_send(Shown::Signal(signal.clone())); // a gap is harmless
        }
    }
}

/// Who follows all series.
struct Follower {
    signals: mpsc::Receiver<Shown>,
    inbox: Inbox,
    clock: Clock,
    newest: Newest,
    keeper: Keeper,
    shelf: Shelf,
}

impl Follower {
    async fn follow(mut self, stop: CancellationToken) {
        let Some(mut judges) = stop.run_until_cancelled(self.recall()).await else { return };
        let mut rolls = Rolls::default();
        let mut ticker = tokio::time::interval(ROLL_EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                signal = self.signals.recv() => match signal {
                    Some(Shown::Signal(signal)) => rolls.take(&signal),
                    Some(Shown::Own(name, at, reading)) => rolls.read(name, at, reading),
                    None => return,
                },
                _ = ticker.tick() => if self.judge(&mut judges, &mut rolls).await.is_none() {
                    return;
                },
            }
        }
    }

    /// What is usual, from the values of the last hours: judges that were young again would say nothing for long.
    async fn recall(&self) -> Judges {
        let (shelf, now) = (self.shelf.clone(), self.clock.now());
        let since = Timestamp::from_micros(now.as_micros().saturating_sub(RECALLED.as_micros() as u64));
        let recalled = tokio::task::spawn_blocking(move || {
            let (mut judges, begun) = (Judges::default(), std::time::Instant::now());
            let see = |past| {
                judges.recall(&past);
                begun.elapsed() < RECALLING
            };
            let _ = shelf.past(since, see); // what is wrong with the file was told when it was opened
            judges
        });
        recalled.await.unwrap_or_default()
    }

    /// Rolls up, judges, tells and keeps; `None` when the loop has ended.
    async fn judge(&self, judges: &mut Judges, rolls: &mut Rolls) -> Option<()> {
        let ill = self.inbox.look(|desk| ill(&desk.engine, desk.clock.now())).await.ok()?;
        let moment = Moment { at: self.clock.now(), wall_offset: self.clock.wall_offset() };
        let round = judges.judge(moment.at, rolls, &ill);
        self.newest.show(moment, round.latest);
        self.keeper.keep(moment, round.values);
        for signal in round.told {
            self.inbox.send(Input::Signal(signal)).await.ok()?;
        }
        Some(())
    }
}

/// The VMs that something is or was wrong with, and until when: what was measured of them by then is not usual.
type Ill = BTreeMap<VmName, Timestamp>;

fn ill(engine: &Engine, now: Timestamp) -> Ill {
    let mut ill = Ill::new();
    for incident in engine.incidents() {
        let Some(vm) = incident.subject.vm() else { continue };
        let until = ill.entry(vm.clone()).or_default();
        *until = incident.open_until(now).max(*until);
    }
    ill
}

/// What came of one look at all series.
#[derive(Default)]
struct Round {
    told: Vec<Signal>,
    values: Vec<Value>,
    latest: Vec<(Name, f64, Option<String>)>,
}

/// What is usual for each series, and for those of each VM together.
#[derive(Default)]
struct Judges {
    each: BTreeMap<Name, Judge>,
    together: BTreeMap<VmName, Together>,
}

impl Judges {
    /// Learns what was kept of one owner.
    fn recall(&mut self, past: &Past) {
        let mut moments: BTreeMap<u64, Vec<(&Name, f64, bool)>> = BTreeMap::new();
        for (name, rows) in past {
            if !self.has_room(name) {
                continue;
            }
            let judge = self.each.entry(name.clone()).or_default();
            for row in rows {
                judge.recall(Timestamp::from_secs(row.at), row.mean, row.teaches);
                moments.entry(row.at).or_default().push((name, row.mean, row.teaches));
            }
        }
        let Some(vm) = past.first().and_then(|(name, _)| name.subject.vm()) else { return };
        let together = self.together.entry(vm.clone()).or_default();
        for values in moments.into_values().filter(|values| values.iter().all(|(.., teaches)| *teaches)) {
            let values: Vec<(&Name, f64)> =
                values.into_iter().map(|(name, value, _)| (name, value)).collect();
            together.recall(&values);
        }
    }

    /// Rolls up what came, and tells what is unusual. A series of which nothing comes any more is forgotten when room
    /// is short, the longest silent first.
    fn judge(&mut self, now: Timestamp, rolls: &mut Rolls, ill: &Ill) -> Round {
        let (mut round, mut struck) = (Round::default(), BTreeSet::new());
        for Rolled { name, value, since, moments } in rolls.roll() {
            if !self.has_room(&name) && !self.forget_one(now, &name) {
                continue;
            }
            let vm = name.subject.vm();
            let is_ill = vm.and_then(|vm| ill.get(vm)).is_some_and(|until| *until >= since);
            struck.extend(vm.filter(|_| is_ill).cloned());
            let judge = self.each.entry(name.clone()).or_default();
            let judged = judge.observe(now, value, &name, is_ill);
            round.told.extend(judged.told.map(|sign| signal(name.subject.clone(), now, sign)));
            round.latest.push((name.clone(), value, judged.unusual));
            round.values.push(Value { name, value, teaches: judged.taught, moments });
        }
        self.judge_together(now, &mut round, &struck);
        round
    }

    /// The same for the series of each VM together.
    fn judge_together(&mut self, now: Timestamp, round: &mut Round, struck: &BTreeSet<VmName>) {
        let mut rows: BTreeMap<&VmName, Vec<(&Name, f64)>> = BTreeMap::new();
        let mut alone: BTreeSet<&VmName> = BTreeSet::new();
        for (name, value, unusual) in &round.latest {
            let Some(vm) = name.subject.vm() else { continue };
            rows.entry(vm).or_default().push((name, *value));
            if unusual.is_some() {
                alone.insert(vm);
            }
        }
        self.together.retain(|vm, _| self.each.keys().any(|name| name.subject.vm() == Some(vm)));
        for (vm, values) in rows {
            let together = self.together.entry(vm.clone()).or_default();
            let beside = Beside { ill: struck.contains(vm), alone: alone.contains(vm) };
            if let Some(sign) = together.observe(now, &values, beside) {
                round.told.push(signal(Subject::Vm(vm.clone()), now, sign));
            }
        }
    }

    /// Whether this one is followed, or can be.
    fn has_room(&self, name: &Name) -> bool {
        let alike = || self.each.keys().filter(|other| other.is_own() == name.is_own()).count();
        self.each.contains_key(name) || alike() < MOST_SERIES
    }

    /// Forgets, in favour of this one, the series of its sort that was silent for longest, if that is long enough.
    fn forget_one(&mut self, now: Timestamp, favoured: &Name) -> bool {
        let silent = if favoured.is_own() { OWN_SILENT } else { SILENT };
        let alike = self.each.iter().filter(|(name, _)| name.is_own() == favoured.is_own());
        let oldest = alike.min_by_key(|(_, judge)| judge.heard());
        let gone = oldest.filter(|(_, judge)| now.since(judge.heard()) >= silent);
        let gone = gone.map(|(name, _)| name.clone());
        gone.and_then(|name| self.each.remove(&name)).is_some()
    }
}

fn signal(subject: Subject, at: Timestamp, sign: holdfast_core::signal::NumberSign) -> Signal {
    Signal {
        subject,
        incarnation: None, // its past is that of the VM, not of one start of it
        at,
        seen: holdfast_core::signal::Seen::Number(sign),
    }
}

/// Whether a series is about the host, of which the engine is told nothing by numbers yet.
fn is_of_host(subject: &Subject) -> bool {
    matches!(subject, Subject::Host(_))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::signal::{AppSign, Measure, NumberSign, Seen};

    /// An application that answers within so many milliseconds, once a second; what is told, with its second.
    fn told(millis: impl Fn(u64) -> f64, seconds: u64) -> Vec<(u64, NumberSign)> {
        let subject = Subject::App("orders".parse().unwrap(), "postgres".parse().unwrap());
        let (mut rolls, mut judges, mut all) = (Rolls::default(), Judges::default(), Vec::new());
        for second in 0..seconds {
            let at = Timestamp::from_secs(second);
            let latency = Duration::from_secs_f64(millis(second) / 1_000.0);
            let seen = Seen::Application(AppSign::Answered { latency });
            rolls.take(&Signal { subject: subject.clone(), incarnation: None, at, seen });
            if (second + 1).is_multiple_of(10) {
                for signal in judges.judge(at, &mut rolls, &Ill::new()).told {
                    let Seen::Number(sign) = signal.seen else { panic!("a number") };
                    all.push((second, sign));
                }
            }
        }
        all
    }

    /// Noise that anybody can have again, between 0 and 1.
    fn noise(at: u64) -> f64 {
        let mixed = (at ^ 0x9E37_79B9).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11;
        (mixed % 10_000) as f64 / 10_000.0
    }

    #[test]
    fn an_application_that_gets_far_slower_is_told_within_a_minute_and_told_to_be_well_again() {
        let slow = |second: u64| {
            let usual = 4.0 + 2.0 * noise(second);
            if (4_000..4_300).contains(&second) { usual * 12.0 } else { usual }
        };
        let told = told(slow, 5_000);
        let first = told.first().unwrap();
        assert!((4_010..4_060).contains(&first.0), "{first:?}");
        assert!(first.1.surprise > 0 && first.1.measure == Measure::Latency, "{first:?}");
        assert!(first.1.text.contains("latency of postgres"), "{first:?}");
        let last = told.last().unwrap();
        assert!(last.1.surprise == 0 && (4_300..4_340).contains(&last.0), "{last:?}");
    }

    #[test]
    fn noise_single_slow_answers_and_a_little_slower_are_nothing() {
        let spikes = |second: u64| if second.is_multiple_of(97) { 300.0 } else { 4.0 + 3.0 * noise(second) };
        assert_eq!(told(spikes, 20_000), []);
        let double = |second: u64| (4.0 + noise(second)) * if second > 5_000 { 2.0 } else { 1.0 };
        assert_eq!(told(double, 10_000), []);
        let tiny = |second: u64| (0.2 + 0.1 * noise(second)) * if second > 5_000 { 10.0 } else { 1.0 };
        assert_eq!(told(tiny, 10_000), [], "2 ms is no trouble to anybody");
    }

    /// Whether what was read from 20 s to 29 s teaches, beside an incident that was open until then.
    fn teaches(open_until: u64) -> bool {
        let vm: VmName = "orders".parse().unwrap();
        let name = Name { subject: Subject::Vm(vm.clone()), what: What::Own("load".into()) };
        let (mut rolls, mut judges) = (Rolls::default(), Judges::default());
        for second in 20..30 {
            rolls.read(name.clone(), Timestamp::from_secs(second), Reading::Value(1.0));
        }
        let ill = Ill::from([(vm, Timestamp::from_secs(open_until))]);
        let round = judges.judge(Timestamp::from_secs(30), &mut rolls, &ill);
        round.values.iter().all(|value| value.teaches)
    }

    #[test]
    fn a_value_teaches_nothing_if_an_incident_was_open_while_any_of_it_was_measured() {
        assert!(teaches(19), "it was over before");
        assert!(!teaches(21), "it was over long before the value was judged, yet is in it");
        assert!(!teaches(30), "it is open");
        let vm: VmName = "orders".parse().unwrap();
        let name = Name { subject: Subject::Vm(vm.clone()), what: What::Own("served".into()) };
        let (mut rolls, mut judges, mut taught) = (Rolls::default(), Judges::default(), Vec::new());
        let ill = Ill::from([(vm, Timestamp::from_secs(90))]);
        for minute in 0..4 {
            let at = Timestamp::from_secs(minute * 60);
            rolls.read(name.clone(), at, Reading::Total(minute as f64));
            let round = judges.judge(at, &mut rolls, &ill);
            taught.extend(round.values.iter().map(|value| value.teaches));
        }
        assert_eq!(taught, [false, false, true], "a count is as old as its last reading");
    }

    #[test]
    fn numbers_of_users_own_have_room_of_their_own_and_those_that_are_gone_make_room() {
        let (mut rolls, mut judges) = (Rolls::default(), Judges::default());
        let own = |n: usize| {
            let what = What::Own(format!("n{n}"));
            Name { subject: Subject::Vm("orders".parse().unwrap()), what }
        };
        let other = |n: usize| Name { what: What::DiskFree(format!("/{n}")), ..own(0) };
        let mut see = |second: u64, names: &[Name]| {
            let at = Timestamp::from_secs(second);
            names.iter().for_each(|name| rolls.read(name.clone(), at, Reading::Value(1.0)));
            judges.judge(at, &mut rolls, &Ill::new()).latest.len()
        };
        let others: Vec<Name> = (0..MOST_SERIES + 9).map(other).collect();
        assert_eq!(see(10, &others), MOST_SERIES);
        assert_eq!(see(20, &[own(0)]), 1, "though there is no room for others");
        assert_eq!(see(30, &(1..MOST_SERIES + 9).map(own).collect::<Vec<_>>()), MOST_SERIES - 1);
        assert_eq!(see(3_700, &[own(1_000)]), 0, "one may come once an hour");
        assert_eq!(see(7_300, &[own(1_000)]), 1, "and that one is gone");
    }
}
