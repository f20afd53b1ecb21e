//! What is unusual in the records of one source as they come: a pattern that never came, a burst, another rate, the
//! silence of a regular line, a minute unlike the others. Each statement says how surprising it is and in one sentence
//! why.
//!
//! Pure: times come in as numbers that only rise. It must stay quiet on a healthy system, so each detector counts its
//! own surprises too, and what comes often is none. Nothing is learned from an incident, and nothing is missed
//! while nobody listened. `docs/logs.md` has the formulas and the limits.

mod news;
mod rhythm;
mod stretch;
mod tail;

use crate::pattern::{Family, PatternId};
use crate::record::Severity;
use crate::windows::During;
use news::News;
use rhythm::{Rhythm, Unlike};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stretch::Stretches;
use tail::{MOST_DECIBANS, decibans};

/// Patterns of a source whose rhythm is known; at the limit those leave that came longest ago.
const MOST_RHYTHMS: usize = 1_024;
/// One minute, in microseconds.
const MINUTE: u64 = 60_000_000;
/// Minutes of the longer stretch.
const QUARTER: u64 = 15;
/// Between two looks at who is late.
const LOOK: u64 = 5_000_000;
/// Whoever looks later than this has not listened.
const ABSENT: u64 = 4 * LOOK;
/// What a minute weighs after a minute, half after a day; and a quarter of an hour after one, half after three days.
const KEEP_MINUTE: f64 = 0.999_518_8;
const KEEP_QUARTER: f64 = 0.997_596;

/// What sort of thing is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// A pattern that never came before.
    New,
    /// Far more lines of a pattern within a minute than ever lately.
    Burst,
    /// Far more or fewer lines of a pattern within a quarter of an hour than ever lately.
    Rate,
    /// A line like clockwork that is late.
    Silence,
    /// The patterns of a minute are together unlike those of other minutes.
    Window,
}

impl Sort {
    /// The name on screen and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Burst => "burst",
            Self::Rate => "rate",
            Self::Silence => "silence",
            Self::Window => "window",
        }
    }
}

/// Something unusual.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What sort.
    pub sort: Sort,
    /// Which pattern; none of a whole window.
    pub pattern: Option<PatternId>,
    /// How surprising it is: ten times the logarithm of one over its chance, 40 at most.
    pub decibans: f64,
    /// Why, in one sentence; patterns by their names.
    pub says: String,
}

/// A line, as far as habits go.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Its pattern.
    pub pattern: PatternId,
    /// What that was split off, if it was.
    pub family: Option<Family>,
    /// None of its pattern ever came, nor of what it was split off.
    pub is_new: bool,
    /// How bad it is.
    pub severity: Option<Severity>,
}

/// The habits of one source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Unusual {
    news: News,
    #[serde(with = "crate::pairs")]
    rhythms: BTreeMap<PatternId, Rhythm>,
    stretches: Stretches,
    /// When somebody last looked, in microseconds; none before the first look.
    #[serde(skip)]
    looked: Option<u64>,
    /// The stretches under way did not begin with their minute and their quarter of an hour.
    #[serde(skip)]
    is_partial: (bool, bool),
    /// Lines of this minute.
    #[serde(skip)]
    lines: u64,
    /// When an incident was last seen open, in microseconds: a stretch or a wait that holds this moment teaches nothing.
    #[serde(skip)]
    troubled: Option<u64>,
    /// Minutes are not compared as a whole.
    #[serde(skip)]
    is_single: bool,
}

impl Unusual {
    /// From now on, minutes are not compared as a whole ([`Sort::Window`]), and what was learned of them is forgotten: each
    /// pattern is judged by itself. The work for a minute is then proportional to the patterns that are known.
    pub fn forget_windows(&mut self) {
        self.is_single = true;
        self.stretches = Stretches::default();
    }

    /// A line came. `name` tells what a pattern is called. A pattern that was just split off another is no news: the
    /// rhythm of that other, which now lacks lines, is forgotten, and of a whole minute all are one.
    pub fn line(
        &mut self,
        now: u64,
        heard: Heard,
        during: During,
        name: impl Fn(PatternId) -> String,
    ) -> Option<Statement> {
        let Heard { pattern, family, is_new, severity } = heard;
        self.lines += 1;
        self.note(now, during);
        let troubled = self.troubled;
        if self.rhythms.len() >= MOST_RHYTHMS && !self.rhythms.contains_key(&pattern) {
            self.make_room();
        }
        if let Some(Family { parent, .. }) = family.filter(|_| !self.rhythms.contains_key(&pattern)) {
            self.rhythms.remove(&parent);
        }
        self.rhythms.entry(pattern).or_default().come(now, troubled);
        if !self.is_single {
            self.stretches.come(family.map_or(pattern, |family| family.root));
        }
        let decibans = if is_new { self.news.come(severity)? } else { return None };
        let says = format!("a line as never before: {}", name(pattern));
        Some(Statement { sort: Sort::New, pattern: Some(pattern), decibans, says })
    }

    fn note(&mut self, now: u64, during: During) {
        match during {
            During::Quiet => {}
            During::Incident => self.troubled = self.troubled.max(Some(now)),
        }
    }

    /// What was going on since then: an incident if one was open at any moment.
    fn since(&self, start: u64) -> During {
        if self.troubled.is_some_and(|at| at >= start) { During::Incident } else { During::Quiet }
    }

    /// Looks at what is over or late; to be called at least every few seconds. Of each sort the most surprising is told.
    pub fn look(&mut self, now: u64, during: During, name: impl Fn(PatternId) -> String) -> Vec<Statement> {
        self.note(now, during);
        let Some(before) = self.looked else {
            self.interrupt(now);
            return Vec::new();
        };
        if now.saturating_sub(before) > ABSENT {
            self.interrupt(now);
            return Vec::new();
        }
        let mut told = Vec::new();
        if now / LOOK != before / LOOK {
            let missed = self.rhythms.iter_mut().filter_map(|(id, rhythm)| Some((*id, rhythm.missed(now)?)));
            let (missed, others) = most_surprising(missed);
            told.extend(missed.map(|(id, late)| silence(id, late, others, &name)));
        }
        if now / MINUTE != before / MINUTE {
            let minute = before / MINUTE;
            self.end_minute(self.since(minute * MINUTE), &name, &mut told);
            let quarter = minute / QUARTER;
            if now / MINUTE / QUARTER != quarter {
                self.end_quarter(self.since(quarter * QUARTER * MINUTE), &name, &mut told);
            }
        }
        self.looked = Some(now);
        told
    }

    fn end_minute(&mut self, during: During, name: &impl Fn(PatternId) -> String, told: &mut Vec<Statement>) {
        let is_partial = std::mem::take(&mut self.is_partial.0);
        if is_partial {
            self.stretches.interrupt();
        }
        let keep = keep(KEEP_MINUTE, during, is_partial);
        let bursts = self.rhythms.iter_mut().filter_map(|(id, rhythm)| Some((*id, rhythm.minute(keep)?)));
        let (burst, others) = most_surprising(bursts);
        if std::mem::take(&mut self.lines) > 0 && !is_partial {
            self.news.minute(during);
            if !self.is_single
                && let Some((judgement, decibans)) = self.stretches.minute(during)
            {
                let says = judgement.says(|id| name(PatternId(u64::from(id))));
                let says = format!("a minute unlike the others: {says}");
                told.push(Statement { sort: Sort::Window, pattern: None, decibans, says });
            }
        }
        told.extend(burst.map(|(id, unlike)| changed(Sort::Burst, "minute", id, unlike, others, name)));
    }

    fn end_quarter(
        &mut self,
        during: During,
        name: &impl Fn(PatternId) -> String,
        told: &mut Vec<Statement>,
    ) {
        let keep = keep(KEEP_QUARTER, during, std::mem::take(&mut self.is_partial.1));
        let rates = self.rhythms.iter_mut().filter_map(|(id, rhythm)| Some((*id, rhythm.quarter(keep)?)));
        let (rate, others) = most_surprising(rates);
        told.extend(
            rate.map(|(id, unlike)| changed(Sort::Rate, "quarter of an hour", id, unlike, others, name)),
        );
    }

    /// No more lines come, and nothing is known of what follows them. A burst of the minute under way is told; what
    /// comes less or late is not, as it may still come.
    pub fn end(&mut self, during: During, name: impl Fn(PatternId) -> String) -> Vec<Statement> {
        let mut told = Vec::new();
        self.end_minute(during, &name, &mut told);
        self.looked = None;
        told
    }

    /// How many patterns' habits are known.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.rhythms.len()
    }

    /// Nobody listened for a while, or nobody could speak: what is under way is neither judged nor learned.
    pub fn interrupt(&mut self, now: u64) {
        self.looked = Some(now);
        self.is_partial = (true, true);
        self.lines = 0;
        self.rhythms.values_mut().for_each(Rhythm::interrupt);
        self.stretches.interrupt();
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.rhythms.len() * (size_of::<Rhythm>() + 32) + self.stretches.bytes()
    }

    fn make_room(&mut self) {
        let mut order: Vec<(u64, PatternId)> =
            self.rhythms.iter().map(|(id, rhythm)| (rhythm.last(), *id)).collect();
        order.sort_unstable();
        for (_, id) in &order[..order.len().div_ceil(4)] {
            self.rhythms.remove(id);
        }
    }
}

/// What is kept of the past if this stretch is learned.
fn keep(keep: f64, during: During, is_partial: bool) -> Option<f64> {
    (during == During::Quiet && !is_partial).then_some(keep)
}

/// The least likely of them, and how many others there are.
fn most_surprising(found: impl Iterator<Item = (PatternId, Unlike)>) -> (Option<(PatternId, Unlike)>, usize) {
    let mut found: Vec<(PatternId, Unlike)> = found.collect();
    found.sort_by(|a, b| a.1.chance.total_cmp(&b.1.chance).then(a.0.cmp(&b.0)));
    let others = found.len().saturating_sub(1);
    (found.into_iter().next(), others)
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => "; another pattern changed too".to_owned(),
        _ => format!("; {others} other patterns changed too"),
    }
}

fn changed(
    sort: Sort,
    stretch: &str,
    id: PatternId,
    unlike: Unlike,
    others: usize,
    name: &impl Fn(PatternId) -> String,
) -> Statement {
    let Unlike { count, usual, chance } = unlike;
    let usual = if usual < 10.0 { format!("{usual:.1}") } else { format!("{usual:.0}") };
    let says =
        format!("{} comes {count:.0} times a {stretch}, usually {usual}{}", name(id), and_others(others));
    Statement { sort, pattern: Some(id), decibans: decibans(chance).min(MOST_DECIBANS), says }
}

fn silence(id: PatternId, late: Unlike, others: usize, name: &impl Fn(PatternId) -> String) -> Statement {
    let Unlike { count: wait, usual, chance } = late;
    let others = if others > 0 { format!(", and {others} others are late") } else { String::new() };
    let says = format!("{} has not come for {wait:.0} s, usually every {usual:.0} s{others}", name(id));
    let decibans = decibans(chance).min(MOST_DECIBANS);
    Statement { sort: Sort::Silence, pattern: Some(id), decibans, says }
}

#[cfg(test)]
mod tests;
