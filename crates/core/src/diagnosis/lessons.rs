//! What closed incidents and drills have taught: how often each kind of evidence came with a fault, and which remedy
//! ended it how often, in how long.
//!
//! A likelihood is the mean of a Beta distribution whose prior is the catalogue's own number, worth [`PRIOR`]
//! observations, and never further from that number than [`FURTHEST`] times. What was never seen stays as it is: it may
//! not have been looked for. What may be acted upon at all (I10) is
//! decided by the catalogue alone: no lesson makes a sign conclusive, or two voices of one.
//!
//! Remedies are put in the order of their probability of success for each second they cost, p/c (Heckerman, Breese and
//! Rommelse 1995), but only two neighbours of the ladder that were both tried [`ENOUGH`] times or more, and where
//! the difference is plain; those that rewind a disk stay where they are.

use super::catalogue::{Fault, FaultRow};
use crate::evidence::Kind;
use crate::incident::{AttemptResult, Incident, Phase, Resolution};
use crate::plan::Remedy;
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The catalogue's number counts as so many observations.
const PRIOR: f64 = 20.0;
/// A learned likelihood is at most so many times the catalogue's number, and at least as small a part of it.
const FURTHEST: f64 = 3.0;
/// A remedy that was tried less often says nothing yet.
const ENOUGH: u32 = 8;
/// A remedy goes before its gentler neighbour if it is better by this factor.
const PLAINLY: f64 = 1.5;

/// All lessons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lessons(BTreeMap<Fault, Lesson>);

impl FromIterator<(Fault, Lesson)> for Lessons {
    fn from_iter<I: IntoIterator<Item = (Fault, Lesson)>>(lessons: I) -> Self {
        Self(lessons.into_iter().collect())
    }
}

/// What was learned about one fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// Incidents that a remedy ended.
    pub times: u32,
    /// In how many of them each kind of evidence was seen when the fault was confirmed.
    pub seen: BTreeMap<Kind, u32>,
    /// What was tried.
    pub remedies: Vec<Tried>,
}

/// How a remedy did against one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The remedy.
    pub remedy: Remedy,
    /// How often it was tried to its end.
    pub tries: u32,
    /// How often it helped.
    pub helped: u32,
    /// How long all tries took together, with watching whether they helped.
    pub took: Duration,
}

impl Tried {
    /// Its probability of success for each second it costs, with Laplace's rule for the former.
    fn worth(&self) -> f64 {
        let success = f64::from(self.helped + 1) / f64::from(self.tries + 2);
        success / (self.took.as_secs_f64() / f64::from(self.tries.max(1))).max(0.1)
    }
}

impl Lessons {
    /// Learns from an incident that was closed. `true` if there was something to learn.
    pub fn learn(&mut self, incident: &Incident) -> bool {
        let (Some(named), Phase::Closed(how)) = (&incident.named, &incident.phase) else { return false };
        let ended = |attempt: &&crate::incident::Attempt| {
            !attempt.forgiven && matches!(attempt.result, AttemptResult::Done | AttemptResult::Failed(_))
        };
        let recovered = matches!(how, Resolution::Recovered(_));
        if !recovered && !incident.attempts.iter().any(|attempt| ended(&attempt)) {
            return false;
        }
        let lesson = self.0.entry(named.fault).or_default();
        if recovered {
            lesson.times = lesson.times.saturating_add(1);
            for weighed in &named.evidence {
                *lesson.seen.entry(weighed.evidence.kind).or_default() += 1;
            }
        }
        let closed = incident.times.closed.unwrap_or(incident.times.opened);
        let ends = incident.attempts.iter().skip(1).map(|next| next.started).chain([closed]);
        for (attempt, until) in incident.attempts.iter().zip(ends).filter(|(attempt, _)| ended(attempt)) {
            let helped = recovered && attempt.result == AttemptResult::Done;
            lesson.tried(attempt.remedy, helped, until.since(attempt.started));
        }
        true
    }

    /// What was learned, fault by fault.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, &Lesson)> {
        self.0.iter().map(|(fault, lesson)| (*fault, lesson))
    }

    /// How likely this kind of evidence is under this fault, by the catalogue and by what was seen.
    #[must_use]
    pub fn likelihood(&self, row: &FaultRow, kind: Kind, listed: f64) -> f64 {
        let Some(lesson) = self.0.get(&row.fault) else { return listed };
        let Some(seen) = lesson.seen.get(&kind) else { return listed }; // perhaps nobody looked for it
        let seen = f64::from((*seen).min(lesson.times));
        let mean = (listed * PRIOR + seen) / (PRIOR + f64::from(lesson.times));
        mean.clamp(listed / FURTHEST, (listed * FURTHEST).min(0.999))
    }

    /// The ladder in the order that was learned, and what was learned, if that changes anything.
    #[must_use]
    pub fn order(&self, fault: Fault, ladder: &[Remedy]) -> Option<(Vec<Remedy>, String)> {
        let lesson = self.0.get(&fault)?;
        let mut order = ladder.to_vec();
        let mut learned = Vec::new();
        for pass in 0..order.len() {
            for at in 1..order.len() - pass.min(order.len() - 1) {
                let (gentle, rough) = (lesson.enough(order[at - 1]), lesson.enough(order[at]));
                let (Some(gentle), Some(rough)) = (gentle, rough) else { continue };
                if rough.worth() > gentle.worth() * PLAINLY {
                    order.swap(at - 1, at);
                    learned.push(format!(
                        "learned: {} helped {} of {} times, {} {} of {}",
                        rough.remedy, rough.helped, rough.tries, gentle.remedy, gentle.helped, gentle.tries
                    ));
                }
            }
        }
        (!learned.is_empty()).then(|| (order, learned.join("; ")))
    }
}

impl Lesson {
    fn tried(&mut self, remedy: Remedy, helped: bool, took: Duration) {
        let at = self.remedies.iter().position(|tried| tried.remedy == remedy).unwrap_or_else(|| {
            self.remedies.push(Tried { remedy, tries: 0, helped: 0, took: Duration::ZERO });
            self.remedies.len() - 1
        });
        let tried = &mut self.remedies[at];
        tried.tries = tried.tries.saturating_add(1);
        tried.helped = tried.helped.saturating_add(u32::from(helped));
        tried.took = tried.took.saturating_add(took);
    }

    /// What a remedy that may change its place has shown, if that is enough.
    fn enough(&self, remedy: Remedy) -> Option<&Tried> {
        let moves = matches!(
            remedy,
            Remedy::ResumeIo
                | Remedy::Reconnect
                | Remedy::RestartApp
                | Remedy::ResetGuest
                | Remedy::RestartVm
        );
        self.remedies.iter().find(|tried| moves && tried.remedy == remedy && tried.tries >= ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{Catalogue, Fault};
    use crate::plan::ladder;

    fn lessons(tried: &[(Remedy, u32, u32, u64)]) -> Lessons {
        let remedies = tried
            .iter()
            .map(|(remedy, helped, tries, seconds)| {
                let took = Duration::from_secs(seconds * u64::from(*tries));
                Tried { remedy: *remedy, tries: *tries, helped: *helped, took }
            })
            .collect();
        let lesson = Lesson { times: 10, seen: BTreeMap::new(), remedies };
        Lessons(BTreeMap::from([(Fault::AppHung, lesson)]))
    }

    #[test]
    fn a_remedy_that_hardly_ever_helps_gives_way_to_its_neighbour_that_does() {
        let taught = lessons(&[(Remedy::RestartApp, 1, 12, 40), (Remedy::ResetGuest, 11, 12, 30)]);
        let (order, why) = taught.order(Fault::AppHung, ladder(Fault::AppHung)).expect("it is learned");
        assert_eq!(order[..3], [Remedy::ResetGuest, Remedy::RestartApp, Remedy::RestartVm]);
        assert_eq!(why, "learned: reset-guest helped 11 of 12 times, restart-app 1 of 12");
        assert_eq!(order.last(), Some(&Remedy::Hold));
        assert!(taught.order(Fault::AppDown, ladder(Fault::AppDown)).is_none());
    }

    #[test]
    fn few_tries_and_small_differences_change_nothing_and_no_lesson_moves_a_rewind() {
        let few = lessons(&[(Remedy::RestartApp, 0, 7, 40), (Remedy::ResetGuest, 7, 7, 30)]);
        assert!(few.order(Fault::AppHung, ladder(Fault::AppHung)).is_none());
        let alike = lessons(&[(Remedy::RestartApp, 9, 12, 10), (Remedy::ResetGuest, 12, 12, 10)]);
        assert!(alike.order(Fault::AppHung, ladder(Fault::AppHung)).is_none());
        let rewind = lessons(&[(Remedy::RestartVm, 0, 20, 60), (Remedy::Revert, 20, 20, 1)]);
        assert!(rewind.order(Fault::AppHung, ladder(Fault::AppHung)).is_none());
    }

    #[test]
    fn a_likelihood_is_learned_within_bounds_once_it_was_seen_at_all() {
        let catalogue = Catalogue::standard();
        let row = catalogue.row(Fault::AppHung);
        let taught = |seen: u32, times: u32| {
            let lesson = Lesson {
                times,
                seen: BTreeMap::from_iter((seen > 0).then_some((Kind::QueueGrows, seen))),
                remedies: Vec::new(),
            };
            Lessons(BTreeMap::from([(Fault::AppHung, lesson)])).likelihood(row, Kind::QueueGrows, 0.9)
        };
        assert!((taught(0, 0) - 0.9).abs() < 1e-9);
        assert!((taught(1, 1_000_000) - 0.3).abs() < 1e-9);
        assert!((taught(10, 20) - 0.7).abs() < 1e-9);
        assert!(taught(1_000_000, 1_000_000) <= 0.999);
    }
}
