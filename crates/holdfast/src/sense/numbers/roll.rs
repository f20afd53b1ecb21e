//! Many readings become one value: the middle one, or how fast a count rose. What was read at which moment goes with it.

use super::measure::{Name, Reading, What, readings};
use holdfast_core::signal::Signal;
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;

/// Readings of one series that are kept until they are rolled up.
const MOST_READINGS: usize = 64;
/// A count that a user defined may be asked for seldom: so many times it is waited for, two hours.
const LONGEST_IDLE: u32 = 720;
/// Series that are rolled up at a time.
const MOST_SERIES: usize = 1_024;

/// What came since it was last rolled up.
#[derive(Debug, Default)]
pub struct Rolls {
    /// Readings, and when each was read.
    values: BTreeMap<Name, Vec<(Timestamp, f64)>>,
    /// Counts: first and last since then.
    totals: BTreeMap<Name, Rise>,
}

/// The one value that readings became.
#[derive(Clone, Debug, PartialEq)]
pub struct Rolled {
    /// Of which series.
    pub name: Name,
    /// The value.
    pub value: f64,
    /// What happened from this moment on is in it.
    pub since: Timestamp,
    /// What was read when; empty if there was but one reading.
    pub moments: Vec<(Timestamp, f64)>,
}

#[derive(Clone, Debug)]
struct Rise {
    from: (Timestamp, f64),
    to: (Timestamp, f64),
    /// How fast it rose up to each reading since then.
    moments: Vec<(Timestamp, f64)>,
    /// So often nothing came since.
    idle: u32,
}

impl Rolls {
    /// Takes the numbers out of a signal.
    pub fn take(&mut self, signal: &Signal) {
        for (what, reading) in readings(signal) {
            let name = Name { subject: signal.subject.clone(), what };
            self.read(name, signal.at, reading);
        }
    }

    /// Takes a number that was read then.
    pub fn read(&mut self, name: Name, at: Timestamp, reading: Reading) {
        match reading {
            Reading::Value(value) => self.value(name, at, value),
            Reading::Total(total) => self.total(name, (at, total)),
        }
    }

    fn value(&mut self, name: Name, at: Timestamp, value: f64) {
        if self.values.len() >= MOST_SERIES && !self.values.contains_key(&name) {
            return;
        }
        let values = self.values.entry(name).or_default();
        if values.len() < MOST_READINGS && value.is_finite() {
            values.push((at, value));
        }
    }

    /// A count that fell began anew: its process did.
    fn total(&mut self, name: Name, now: (Timestamp, f64)) {
        if self.totals.len() >= MOST_SERIES && !self.totals.contains_key(&name) {
            return;
        }
        let begun = || Rise { from: now, to: now, moments: Vec::new(), idle: 0 };
        let rise = self.totals.entry(name).or_insert_with(begun);
        let took = now.0.since(rise.to.0).as_secs_f64();
        if now.1 < rise.to.1 {
            rise.from = now;
        } else if took > 0.0 && rise.moments.len() < MOST_READINGS {
            rise.moments.push((now.0, (now.1 - rise.to.1) / took));
        }
        rise.to = now;
    }

    /// One value of each series of which something came; then it begins anew.
    pub fn roll(&mut self) -> Vec<Rolled> {
        let values = std::mem::take(&mut self.values).into_iter();
        let value = |(name, moments): (Name, Vec<(Timestamp, f64)>)| {
            let since = moments.iter().map(|(at, _)| *at).min()?;
            let value = middle(moments.iter().map(|(_, value)| *value).collect())?;
            Some(Rolled { name, value, since, moments: several(moments) })
        };
        let mut all: Vec<Rolled> = values.filter_map(value).collect();
        self.totals.retain(|name, rise| {
            let took = rise.to.0.since(rise.from.0).as_secs_f64();
            if took > 0.0 {
                let value = (rise.to.1 - rise.from.1) / took;
                let moments = several(std::mem::take(&mut rise.moments));
                all.push(Rolled { name: name.clone(), value, since: rise.from.0, moments });
                (rise.from, rise.idle) = (rise.to, 0);
                return true;
            }
            rise.idle += 1; // of whom nothing came, nothing is known
            matches!(name.what, What::Own(_)) && rise.idle <= LONGEST_IDLE
        });
        all
    }
}

/// A single reading is the value itself.
fn several(moments: Vec<(Timestamp, f64)>) -> Vec<(Timestamp, f64)> {
    if moments.len() > 1 { moments } else { Vec::new() }
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::signal::{ProcessSign, ProcessState, Seen};
    use holdfast_core::subject::Subject;
    use std::time::Duration;

    #[test]
    fn a_count_becomes_a_rate_and_one_that_fell_begins_anew() {
        let subject = Subject::Vm("orders".parse().unwrap());
        let mut rolls = Rolls::default();
        let mut at = |second: u64, cpu: f64| {
            let (state, cpu) = (ProcessState::Running, Duration::from_secs_f64(cpu));
            let seen = Seen::Process(ProcessSign::Alive { state, cpu, rss: 7 });
            let at = Timestamp::from_secs(second);
            rolls.take(&Signal { subject: subject.clone(), incarnation: None, at, seen });
            let rate = |rolled: Rolled| (rolled.name.what == What::Processor).then_some(rolled.value);
            if second.is_multiple_of(10) { rolls.roll().into_iter().find_map(rate) } else { None }
        };
        assert_eq!(at(10, 1.0), None, "one reading is no rate");
        assert_eq!(at(15, 3.5), None);
        assert_eq!(at(20, 6.0), Some(0.5));
        assert_eq!(at(25, 0.25), None);
        assert_eq!(at(30, 1.5), Some(0.25));
    }

    #[test]
    fn a_count_of_a_users_own_may_come_once_a_minute_and_is_forgotten_when_it_comes_no_more() {
        let subject = Subject::Vm("orders".parse().unwrap());
        let name = Name { subject, what: What::Own("served".into()) };
        let (mut rolls, mut rates) = (Rolls::default(), Vec::new());
        for second in (0..=300).step_by(10) {
            if second % 60 == 0 {
                rolls.read(name.clone(), Timestamp::from_secs(second), Reading::Total(second as f64 * 3.0));
            }
            rates.extend(rolls.roll().into_iter().map(|rolled| rolled.value));
        }
        assert_eq!(rates, [3.0; 5]);
        for _ in 0..=LONGEST_IDLE {
            assert_eq!(rolls.roll(), []);
        }
        assert!(rolls.totals.is_empty());
    }
}
