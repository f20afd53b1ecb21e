//! What closed incidents have taught, as people and programs get it.

use super::shape::V;
use holdfast_core::diagnosis::{Catalogue, Fault, Lesson, Lessons};
use holdfast_core::engine::Engine;
use holdfast_core::evidence::Kind;
use holdfast_core::plan::{Remedy, ladder};
use serde::{Deserialize, Serialize};

/// All lessons.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LessonsDoc {
    /// The version of this shape.
    pub v: u32,
    /// They are used; else they are only counted.
    pub used: bool,
    /// Fault by fault.
    pub faults: Vec<LessonDoc>,
}

/// What was learned about one fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LessonDoc {
    /// The fault.
    pub fault: String,
    /// Incidents that a remedy ended.
    pub times: u32,
    /// Evidence that the catalogue lists.
    pub evidence: Vec<SeenDoc>,
    /// What was tried.
    pub remedies: Vec<TriedDoc>,
    /// The remedies in the order that was learned; `None`: it is the catalogue's.
    pub order: Option<Vec<String>>,
    /// Why.
    pub why: Option<String>,
}

/// One kind of evidence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeenDoc {
    /// The kind.
    pub kind: String,
    /// In how many of the incidents it was seen.
    pub seen: u32,
    /// Its probability if it is this fault, by the catalogue.
    pub listed: f64,
    /// The same with what was seen.
    pub learned: f64,
}

/// One remedy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TriedDoc {
    /// The remedy.
    pub name: String,
    /// How often it was tried to its end.
    pub tries: u32,
    /// How often it helped.
    pub helped: u32,
    /// How long a try took on average, in seconds, with watching whether it helped.
    pub mean_s: f64,
}

impl LessonsDoc {
    /// What this engine has learned.
    pub fn of(engine: &Engine) -> Self {
        let (lessons, catalogue) = (engine.lessons(), Catalogue::standard());
        let faults = lessons.iter().map(|(fault, lesson)| of_fault(fault, lesson, lessons, &catalogue));
        Self { v: V, used: engine.policies().use_lessons, faults: faults.collect() }
    }
}

fn of_fault(fault: Fault, lesson: &Lesson, lessons: &Lessons, catalogue: &Catalogue) -> LessonDoc {
    let row = catalogue.row(fault);
    let evidence = |(kind, listed): &(Kind, f64)| SeenDoc {
        kind: format!("{kind:?}"),
        seen: lesson.seen.get(kind).copied().unwrap_or(0),
        listed: *listed,
        learned: lessons.likelihood(row, *kind, *listed),
    };
    let remedies = lesson.remedies.iter().map(|tried| TriedDoc {
        name: tried.remedy.to_string(),
        tries: tried.tries,
        helped: tried.helped,
        mean_s: tried.took.as_secs_f64() / f64::from(tried.tries.max(1)),
    });
    let (order, why) = lessons.order(fault, ladder(fault)).unzip();
    LessonDoc {
        fault: fault.to_string(),
        times: lesson.times,
        evidence: row.seen.iter().map(evidence).collect(),
        remedies: remedies.collect(),
        order: order.map(|order: Vec<Remedy>| order.iter().map(ToString::to_string).collect()),
        why,
    }
}
