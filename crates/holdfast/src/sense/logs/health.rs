//! How each source is: whether it is there, what came of it, what was lost.
//!
//! Shown to people and scripts, and never decided by.

use crate::logbook::SourceName;
use holdfast_core::subject::Subject;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// How a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// What it reads is not there yet, or has nothing to say yet; it goes on by itself. With the reason.
    Waiting(String),
    /// It reads what comes, as it comes.
    Following,
    /// It listens, and somebody has sent.
    Receiving,
    /// It cannot read, and tries again. With the reason.
    Failing(String),
}

impl State {
    /// Its name on screen and in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Following => "following",
            Self::Receiving => "receiving",
            Self::Failing(_) => "failing",
        }
    }

    /// Why, where there is something to say.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Waiting(why) | Self::Failing(why) => Some(why),
            Self::Following | Self::Receiving => None,
        }
    }
}

/// The state and the counts of one source; they are shown as long as somebody holds this.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    state: watch::Sender<State>,
    records: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    last: AtomicI64,
}

impl Gauge {
    fn new(state: State) -> Self {
        Self(Arc::new(Counts {
            state: watch::channel(state).0,
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            last: AtomicI64::new(i64::MIN),
        }))
    }

    /// It is like this now. A new trouble is logged, once.
    pub fn set(&self, state: State) -> bool {
        self.0.state.send_if_modified(|now| std::mem::replace(now, state.clone()) != state)
    }

    /// A record of so many bytes was taken in, at this time.
    pub fn took(&self, bytes: usize, received: i64) {
        self.0.records.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.last.store(received, Ordering::Relaxed);
    }

    /// So many records, or pieces of one, were lost.
    pub fn dropped(&self, count: u64) {
        self.0.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// As it is now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let last = self.0.last.load(Ordering::Relaxed);
        Reading {
            state: self.0.state.borrow().clone(),
            records: self.0.records.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            dropped: self.0.dropped.load(Ordering::Relaxed),
            last: (last != i64::MIN).then_some(last),
        }
    }
}

/// How a source was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How it is.
    pub state: State,
    /// Records taken in since it began.
    pub records: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Records that were lost: there was no room, or they were one too many or none at all.
    pub dropped: u64,
    /// When the last record was received, in microseconds since 1970.
    pub last: Option<i64>,
}

type Key = (Subject, SourceName);

/// All sources there are.
#[derive(Clone, Debug, Default)]
pub struct Registry(watch::Sender<BTreeMap<Key, Weak<Counts>>>);

impl Registry {
    /// The gauge of a source: the one that it has already, or a new one.
    #[must_use]
    pub fn gauge(&self, subject: &Subject, source: &SourceName) -> Gauge {
        let mut found = None;
        self.0.send_modify(|all| {
            all.retain(|_, counts| counts.strong_count() > 0);
            let slot = all.entry((subject.clone(), source.clone())).or_default();
            found = slot.upgrade().map(Gauge);
            let gauge = found.get_or_insert_with(|| Gauge::new(State::Waiting("not looked at yet".into())));
            *slot = Arc::downgrade(&gauge.0);
        });
        found.unwrap_or_else(|| Gauge::new(State::Following))
    }

    /// All, in order.
    #[must_use]
    pub fn read(&self) -> Vec<(Subject, SourceName, Reading)> {
        let all = self.0.borrow();
        let readings = all.iter().filter_map(|((subject, source), counts)| {
            Some((subject.clone(), source.clone(), Gauge(counts.upgrade()?).read()))
        });
        readings.collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_as_long_as_somebody_has_it() {
        let registry = Registry::default();
        let (subject, source) = (Subject::Guest("orders".parse().unwrap()), SourceName::new("journal"));
        let gauge = registry.gauge(&subject, &source);
        let same = registry.gauge(&subject, &source);
        same.took(10, 5);
        gauge.dropped(2);
        assert!(gauge.set(State::Following));
        assert!(!gauge.set(State::Following));
        let reading = Reading { state: State::Following, records: 1, bytes: 10, dropped: 2, last: Some(5) };
        assert_eq!(registry.read(), [(subject, source, reading)]);
        drop((gauge, same));
        assert_eq!(registry.read(), []);
    }
}
