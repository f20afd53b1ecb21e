//! The matrix product: prior odds plus, channel by channel, the strongest statement.

use super::catalogue::{Catalogue, Fault, Level, MILLI, Row, level};
use crate::evidence::{Evidence, FULL, Kind};
use crate::signal::Channel;
use crate::subject::AppName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A fault, how sure we are, and everything that made us so: kept with the incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The fault.
    pub fault: Fault,
    /// Of this application; `None`: of the VM or its guest.
    pub app: Option<AppName>,
    /// Its probability among all hypotheses, in parts of ten thousand.
    pub probability: u16,
    /// Its prior odds in millidecibans.
    pub prior: i32,
    /// What counted, strongest first.
    pub evidence: Vec<Weighed>,
    /// The other hypotheses, likeliest first; the first few.
    pub rivals: Vec<Rival>,
    /// Whether it may be acted upon (I10), apart from all probability.
    pub grounds: Grounds,
}

impl Diagnosis {
    /// The probability that it is this fault, or a rival of this kind, in parts of ten thousand.
    #[must_use]
    pub fn share_of(&self, kind: impl Fn(Fault) -> bool) -> u16 {
        let ratio = |rival: &Rival| 10f64.powf(f64::from(rival.odds) / (10.0 * MILLI));
        let rivals = self.rivals.iter().filter(|rival| rival.fault.is_some_and(&kind)).map(ratio);
        let all = f64::from(self.probability) * (f64::from(u8::from(kind(self.fault))) + rivals.sum::<f64>());
        (all.floor() as u16).min(10_000)
    }

    /// Only what is to come speaks for it.
    #[must_use]
    pub fn is_forecast(&self) -> bool {
        let mut speaks = self.evidence.iter().filter(|w| w.weight > 0).peekable();
        speaks.peek().is_some() && speaks.all(|w| w.evidence.kind.is_forecast())
    }

    /// When its newest conclusive sign was seen: what answered before that has ceased to count.
    #[must_use]
    pub fn settled_at(&self) -> Timestamp {
        let conclusive = self.evidence.iter().filter(|w| w.evidence.kind.is_conclusive());
        conclusive.map(|w| w.evidence.since).max().unwrap_or(Timestamp::ZERO)
    }
}

/// A statement and its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// The statement.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// Its weight for (positive) or against the fault, in millidecibans.
    pub weight: i32,
    /// The strongest that its channel says about that thing; the others only repeat it.
    pub counts: bool,
}

/// Another explanation, and how much less likely it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// The fault; `None`: nothing is wrong.
    pub fault: Option<Fault>,
    /// Its odds against the chosen one, in millidecibans; negative: less likely.
    pub odds: i32,
}

/// What a destructive action may stand on (I10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grounds {
    /// One sign that settles the matter.
    Conclusive(Kind),
    /// Independent channels that agree, at least two.
    Agreeing(Vec<Channel>),
    /// Not enough: at most one channel speaks for it.
    Thin,
}

impl Grounds {
    /// Whether it is enough to act on.
    #[must_use]
    pub const fn suffice(&self) -> bool {
        !matches!(self, Self::Thin)
    }
}

/// How much is wanted from a diagnosis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A fault, if one is likely.
    Usually,
    /// The likeliest fault, however little speaks for it: users have waited for too long.
    Insistently,
}

/// A statement weighs for a fault, as far as I10 is concerned, from here on (millidecibans): a likelihood
/// ratio of ten.
const VOICE: i32 = 10_000;
/// A fault from here on is likelier than not, in parts of ten thousand.
const LIKELY: u16 = 5_000;
/// Below this something is wrong, whatever it is.
const HARDLY_WELL: u16 = 2_500;
/// How many rivals are kept.
const RIVALS_KEPT: usize = 5;
/// Rivals further off than this (millidecibans) are not worth a word.
const FAR_OFF: i32 = -90_000;

impl Catalogue {
    /// The likeliest fault that explains one panel of evidence (that of one application, or of a VM without
    /// any): if it is likelier than not, or if hardly anything but some fault explains what is seen, or if
    /// somebody insists.
    #[must_use]
    pub fn diagnose(&self, app: Option<&AppName>, evidence: &[Evidence], asked: Asked) -> Option<Diagnosis> {
        let panel: Vec<&Evidence> =
            evidence.iter().filter(|e| e.app.is_none() || e.app.as_ref() == app).collect();
        let neighbour =
            evidence.iter().find(|e| e.kind == Kind::AppAnswers && e.app.is_some() && e.app.as_ref() != app);
        let neighbour = neighbour.map(|e| Evidence { kind: Kind::NeighbourAnswers, app: None, ..e.clone() });
        let panel = Panel::of(panel.into_iter().chain(neighbour.as_ref()).collect());
        let hypotheses = || {
            let fits = |row: &&Row| level(row.data.fault) != Level::Application || app.is_some();
            self.rows().iter().filter(fits).filter(|row| !is_of_host_alone(row.data.fault))
        };
        let mut odds: Vec<(Option<&Row>, i32)> =
            hypotheses().map(|row| (Some(row), sum(row, &panel))).chain([(None, 0)]).collect();
        odds.sort_by_key(|(row, sum)| (-sum, row.map(|row| row.data.fault)));
        let at = odds.iter().position(|(row, _)| row.is_some())?;
        let (best, top) = odds.remove(at);
        let best = best?;
        odds.insert(0, (Some(best), top));
        let probability = share(top, &odds);
        let well = share(0, &odds);
        (probability >= LIKELY || well < HARDLY_WELL || asked == Asked::Insistently).then(|| Diagnosis {
            fault: best.data.fault,
            app: app.filter(|_| is_of_app(best)).cloned(),
            probability,
            prior: best.prior,
            evidence: weigh(best, &panel),
            rivals: rivals(top, &odds[1..]),
            grounds: grounds(best, app, &panel.all),
        })
    }

    /// The likeliest fault of the host itself, of two kinds of evidence only it can have.
    #[must_use]
    pub fn diagnose_host(&self, evidence: &[Evidence]) -> Vec<Diagnosis> {
        let panel = Panel::of(evidence.iter().collect());
        let of_host = |row: &&Row| {
            matches!(level(row.data.fault), Level::Host) || row.data.fault == Fault::ObserverSlow
        };
        self.rows().iter().filter(of_host).filter_map(|row| alone(row, &panel)).collect()
    }

    /// Whether the restore points of a VM are too old.
    #[must_use]
    pub fn diagnose_points(&self, evidence: &[Evidence]) -> Option<Diagnosis> {
        let panel = Panel::of(evidence.iter().collect());
        let row = self.rows().iter().find(|row| row.data.fault == Fault::RestorePointsStale)?;
        alone(row, &panel)
    }
}

/// A fault that several others may stand beside, as a host can be overloaded and full at once: it is weighed against
/// "healthy" alone, and only a sign of its own can make it likely.
fn alone(row: &Row, panel: &Panel) -> Option<Diagnosis> {
    let healthy: (Option<&Row>, i32) = (None, 0);
    let top = sum(row, panel) - row.prior;
    let probability = share(top, &[(Some(row), top), healthy]);
    (probability >= 9_000).then(|| Diagnosis {
        fault: row.data.fault,
        app: None,
        probability,
        prior: row.prior,
        evidence: weigh(row, panel),
        rivals: Vec::new(),
        grounds: grounds(row, None, &panel.all),
    })
}

/// Faults that only evidence of their own can show, and that explain nothing of a VM's silence by themselves: what
/// the VM then meets has names of its own.
const fn is_of_host_alone(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::HostDiskFull
            | Fault::StorageSlow
            | Fault::StorageLost
            | Fault::HostFailing
            | Fault::HostNetLost
            | Fault::RestorePointsStale
    )
}

/// Faults of one application and of its probe are named with it.
fn is_of_app(row: &Row) -> bool {
    level(row.data.fault) == Level::Application || row.data.fault == Fault::ProbeBroken
}

fn weight(row: &Row, evidence: &Evidence) -> i32 {
    aged(row.weights[evidence.kind as usize], evidence)
}

fn aged(full: i32, evidence: &Evidence) -> i32 {
    i32::try_from(i64::from(full) * i64::from(evidence.strength) / i64::from(FULL)).unwrap_or(0)
}

/// What is seen, and whose voice each statement is: one thing that one channel speaks of. A sign of life is never drowned by a
/// louder complaint of the same channel: both count then, since they are not the same voice.
struct Panel<'a> {
    all: Vec<&'a Evidence>,
    voices: Vec<Vec<&'a Evidence>>,
}

impl<'a> Panel<'a> {
    fn of(all: Vec<&'a Evidence>) -> Self {
        let voice = |e: &Evidence| (e.kind.channel(), e.kind.topic(), e.kind.is_sign_of_life());
        let mut voices: Vec<Vec<&Evidence>> = Vec::new();
        for evidence in &all {
            let own = voice(evidence);
            match voices.iter_mut().find(|said| said.first().is_some_and(|first| voice(first) == own)) {
                Some(said) => said.push(evidence),
                None => voices.push(vec![evidence]),
            }
        }
        Self { all, voices }
    }

    /// Of each voice its strongest statement under this fault, the first of those that are as strong.
    fn strongest(&self, row: &Row) -> impl Iterator<Item = (&'a Evidence, i32)> {
        self.voices.iter().filter_map(|said| {
            let weighed = said.iter().map(|e| (*e, weight(row, e)));
            weighed.reduce(|old, new| if new.1.abs() > old.1.abs() { new } else { old })
        })
    }
}

fn sum(row: &Row, panel: &Panel) -> i32 {
    row.prior + panel.strongest(row).map(|(_, weight)| weight).sum::<i32>()
}

/// Further off than this (millidecibans), a hypothesis adds nothing to the likeliest one's 1 that a double could hold.
const NOTHING: i32 = -170_000;

/// The probability of the hypothesis with these odds among all, in parts of ten thousand.
fn share(top: i32, odds: &[(Option<&Row>, i32)]) -> u16 {
    let ratio = |sum: i32| 10f64.powf(f64::from(sum - top) / (10.0 * MILLI));
    let likeliest = odds.iter().map(|(_, sum)| *sum).max().unwrap_or(top);
    let near = odds.iter().filter(|(_, sum)| sum - likeliest > NOTHING);
    let all: f64 = near.map(|(_, sum)| ratio(*sum)).sum();
    (10_000.0 / all).floor() as u16
}

fn weigh(row: &Row, panel: &Panel) -> Vec<Weighed> {
    let strongest: Vec<&Evidence> = panel.strongest(row).map(|(chosen, _)| chosen).collect();
    let counts = |e: &Evidence| strongest.iter().any(|chosen| std::ptr::eq(*chosen, e));
    let mut all: Vec<Weighed> = panel
        .all
        .iter()
        .map(|e| Weighed { evidence: (*e).clone(), weight: weight(row, e), counts: counts(e) })
        .filter(|w| w.weight != 0 || w.evidence.kind.is_outage()) // what users suffer is never left out
        .collect();
    all.sort_by_key(|w| (-w.weight.abs(), w.evidence.kind));
    all
}

fn rivals(top: i32, others: &[(Option<&Row>, i32)]) -> Vec<Rival> {
    let rival =
        |(row, sum): &(Option<&Row>, i32)| Rival { fault: row.map(|row| row.data.fault), odds: sum - top };
    let healthy = |r: &Rival| r.fault.is_none();
    let mut kept: Vec<Rival> = others.iter().map(rival).filter(|r| r.odds > FAR_OFF || healthy(r)).collect();
    let last = kept.iter().position(healthy).map(|at| kept.remove(at));
    kept.truncate(RIVALS_KEPT);
    kept.extend(last);
    kept
}

/// The fault that a line in a log names.
#[expect(clippy::wildcard_enum_match_arm, reason = "only what logs tell names a fault by itself")]
const fn names(kind: Kind) -> Option<Fault> {
    match kind {
        Kind::LogNoConnectionLeft => Some(Fault::OutOfConnections),
        Kind::LogDataCorrupt => Some(Fault::CorruptionReported),
        Kind::LogReplicationBroken => Some(Fault::ReplicationBroken),
        Kind::LogLocksPileUp => Some(Fault::LockPileUp),
        Kind::LogCrashLoop => Some(Fault::AppCrashLoop),
        Kind::LogImageCorrupt => Some(Fault::ImageCorrupt),
        _ => None,
    }
}

fn grounds(row: &Row, app: Option<&AppName>, panel: &[&Evidence]) -> Grounds {
    // A line that names another fault makes this one likelier, and is no witness of it: it was written before.
    let witness = |e: &Evidence| e.kind.channel() != Channel::Logs || names(e.kind) == Some(row.data.fault);
    let voices: Vec<(&Evidence, i32)> = panel
        .iter()
        .filter(|e| witness(e))
        .map(|e| (*e, aged(row.own[e.kind as usize], e)))
        .filter(|(_, weight)| *weight >= VOICE)
        .collect();
    if let Some((e, _)) = voices.iter().find(|(e, _)| e.kind.is_conclusive()) {
        return Grounds::Conclusive(e.kind);
    }
    // Probes and echoes go the same way to the guest: cut there, both are silent. That is one voice. And a VM
    // without applications is up when its agent says so: overdue then means no more than that this is missing.
    let voice = |e: &Evidence| match (e.kind.channel(), app) {
        (Channel::Network, _) => Channel::Application,
        (Channel::Logs, _) => Channel::Console, // words of the same programs
        (Channel::Application, None) => Channel::Agent,
        (channel, _) => channel,
    };
    let mut channels: Vec<Channel> = voices.iter().map(|(e, _)| voice(e)).collect();
    channels.sort_unstable();
    channels.dedup();
    channels.retain(|channel| !matches!(channel, Channel::Host | Channel::Observer));
    if channels.len() >= 2 { Grounds::Agreeing(channels) } else { Grounds::Thin }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::diagnosis::Fault;
    use crate::diagnosis::catalogue::FaultRow;
    use crate::diagnosis::lessons::{Lesson, Lessons};

    fn seen(kinds: &[Kind]) -> Vec<Evidence> {
        let one = |kind: &Kind| Evidence {
            kind: *kind,
            app: None,
            since: Timestamp::ZERO,
            at: Timestamp::ZERO,
            strength: FULL,
            text: String::new(),
            quote: None,
        };
        kinds.iter().map(one).collect()
    }

    fn named(kinds: &[Kind]) -> Option<Diagnosis> {
        let app: AppName = "db".parse().unwrap();
        Catalogue::standard().diagnose(Some(&app), &seen(kinds), Asked::Usually)
    }

    #[test]
    fn a_full_disk_explains_the_database_that_gave_up_whichever_the_agent_tells_first() {
        let down = [Kind::AppRefused, Kind::NobodyListens, Kind::ConsoleAppPanic];
        assert_eq!(named(&down).unwrap().fault, Fault::AppDown);
        let full = [&down[..], &[Kind::FsFull]].concat();
        let found = named(&full).unwrap();
        assert_eq!(found.fault, Fault::GuestDiskFull);
        assert!(found.probability >= 9_900, "{}", found.probability);
    }

    #[test]
    fn what_one_agent_says_of_two_things_is_still_one_channel_i10() {
        let found = named(&[Kind::FsFull, Kind::NobodyListens]).unwrap();
        assert_eq!(found.grounds, Grounds::Thin);
    }

    /// Lessons as extreme as can be: under each fault each kind was always seen, or hardly ever.
    fn extreme(ever: bool) -> Lessons {
        let times = u32::MAX;
        let lesson = |row: &FaultRow| {
            let seen = row.seen.iter().map(|(kind, _)| (*kind, if ever { times } else { 1 }));
            (row.fault, Lesson { times, seen: seen.collect(), remedies: Vec::new() })
        };
        Catalogue::standard().iter().map(lesson).collect()
    }

    #[test]
    fn no_lesson_changes_what_may_be_acted_upon_i10() {
        let (standard, app) = (Catalogue::standard(), "db".parse::<AppName>().unwrap());
        let taught = [true, false].map(|ever| Catalogue::taught(&extreme(ever)));
        let (mut moved, mut enough) = (0, 0);
        for (at, row) in standard.rows().iter().enumerate() {
            for (one, other) in
                Kind::ALL.iter().flat_map(|one| Kind::ALL.iter().map(move |other| (*one, *other)))
            {
                let pair = seen(&[one, other]);
                let panel: Vec<&Evidence> = pair.iter().collect();
                let by_table = grounds(row, Some(&app), &panel);
                for row in taught.iter().map(|catalogue| &catalogue.rows()[at]) {
                    assert_eq!(
                        grounds(row, Some(&app), &panel),
                        by_table,
                        "{one:?}, {other:?}: {:?}",
                        row.data.fault
                    );
                    moved +=
                        usize::from((row.weights[one as usize] >= VOICE) != (row.own[one as usize] >= VOICE));
                }
                enough += usize::from(by_table.suffice());
            }
        }
        assert!(
            moved > 0 && enough > 100,
            "lessons move weights across the mark, and that changes nothing: {moved}, {enough}"
        );
    }
}
