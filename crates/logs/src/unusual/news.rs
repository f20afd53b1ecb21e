//! A pattern that never came before: how surprising is that of a source that is as settled as this one?
//!
//! The chance that a minute brings one is taken for the share of minutes that did, as Good and Turing estimate what was
//! never seen by what was seen once: (new + 1/2) / (minutes + 1). Minutes long ago count less. Worse lines are counted
//! apart: where new errors are rarer than new notices, they surprise more.

use super::tail::{MOST_DECIBANS, decibans};
use super::{During, Severity};
use serde::{Deserialize, Serialize};

/// What a minute weighs after a minute: half after a day in which something was said each minute.
const KEEP: f64 = 0.999_518_8;
/// A new pattern is told if so few minutes or fewer bring one of its class: notices, warnings, errors.
const LEAST_DECIBANS: [f64; CLASSES] = [30.0, 27.0, 25.0];
/// News that are told within a minute.
const MOST_TOLD: u32 = 3;
const CLASSES: usize = 3;

/// What is known of a source's news.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct News {
    minutes: f64,
    /// Minutes with a new pattern, by class.
    new: [f64; CLASSES],
    /// What this minute has had.
    now: [bool; CLASSES],
    told: u32,
}

const fn class(severity: Option<Severity>) -> usize {
    match severity {
        None | Some(Severity::Debug | Severity::Info | Severity::Notice) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error | Severity::Critical | Severity::Alert | Severity::Emergency) => 2,
    }
}

impl News {
    /// A new pattern came; how surprising that is, if it is worth telling.
    pub fn come(&mut self, severity: Option<Severity>) -> Option<f64> {
        let class = class(severity);
        let surprise = decibans((self.new[class] + 0.5) / (self.minutes + 1.0)).min(MOST_DECIBANS);
        self.now[class] = true;
        let is_told = surprise >= LEAST_DECIBANS[class] && self.told < MOST_TOLD;
        self.told += u32::from(is_told);
        is_told.then_some(surprise)
    }

    /// A minute in which something was said is over.
    pub fn minute(&mut self, during: During) {
        let had = std::mem::take(&mut self.now);
        self.told = 0;
        match during {
            During::Incident => {}
            During::Quiet => {
                self.minutes = self.minutes * KEEP + 1.0;
                for (new, had) in self.new.iter_mut().zip(had) {
                    *new = *new * KEEP + f64::from(u8::from(had));
                }
            }
        }
    }
}
