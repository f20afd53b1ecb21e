//! What happened lately, line by line, for those who watch.

use holdfast_core::engine::Engine;
use holdfast_core::incident::{Incident, Line};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Lines that are remembered.
const KEPT: usize = 2_000;

/// One line of one incident's story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of this shape.
    pub v: u32,
    /// Its number since the daemon started, from 1.
    pub n: u64,
    /// When, in seconds since the epoch.
    pub at: f64,
    /// The incident it belongs to.
    pub incident: u64,
    /// What the incident is about, as in `vm orders`.
    pub subject: String,
    /// The VM, if it is about one.
    pub vm: Option<String>,
    /// The fault that is named or suspected.
    pub fault: String,
    /// Which step of the flow: `diagnosis plan isolate recover verify held closed note`.
    pub step: String,
    /// What happened.
    pub text: String,
}

impl Event {
    /// A line of an incident.
    pub fn of(incident: &Incident, line: &Line, wall_offset: i64) -> Self {
        Self {
            v: 1,
            n: 0,
            at: epoch(line.at, wall_offset),
            incident: incident.id.0,
            subject: incident.subject.to_string(),
            vm: incident.subject.vm().map(ToString::to_string),
            fault: incident.fault().to_string(),
            step: line.step.clone(),
            text: line.text.clone(),
        }
    }
}

/// Seconds since the epoch, to the millisecond.
pub fn epoch(at: holdfast_core::time::Timestamp, wall_offset: i64) -> f64 {
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX).saturating_add(wall_offset);
    (micros as f64 / 1_000.0).round() / 1_000.0
}

/// The last lines, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    lines: VecDeque<Event>,
    last: u64,
}

impl Ring {
    /// What the incidents tell that are on record, so that a restart of the daemon forgets no event.
    pub fn of(engine: &Engine) -> Self {
        let told = |incident: &Incident, line: &Line| {
            (line.at, Event::of(incident, line, engine.wall_offset(line.at)))
        };
        let mut events: Vec<_> =
            engine.incidents().flat_map(|i| i.story.iter().map(move |line| told(i, line))).collect();
        events.sort_by_key(|(at, event)| (*at, event.incident));
        let mut ring = Self::default();
        for (_, event) in events {
            ring.push(event);
        }
        ring
    }

    /// Numbers and keeps a line.
    pub fn push(&mut self, mut event: Event) -> Event {
        self.last += 1;
        event.n = self.last;
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(event.clone());
        event
    }

    /// The newest `most` lines with a number above `after`, oldest first.
    pub fn since(&self, after: u64, most: usize) -> Vec<Event> {
        let fresh: Vec<Event> = self.lines.iter().filter(|event| event.n > after).cloned().collect();
        fresh[fresh.len().saturating_sub(most)..].to_vec()
    }
}
