//! What every source is given: where records go, and where it went on from.

use super::health::{Gauge, Registry, State};
use crate::clock::Clock;
use crate::logbook::{Entry, Inlet, SourceName};
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_drivers::Driver;
use holdfast_logs::{Record, Severity};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tells where a source goes on after a restart of the daemon: what it gave with the last record that was kept.
pub type Places = Arc<dyn Fn(&Subject, &SourceName) -> Option<String> + Send + Sync>;

/// Where records are brought, and where it is told how their sources are.
#[derive(Clone, Debug)]
pub struct Feeds {
    /// Where records are brought.
    pub inlet: Inlet,
    /// How sources are.
    pub registry: Registry,
    /// The time.
    pub clock: Clock,
}

impl Feeds {
    fn with_trail(&self, subject: Subject, source: SourceName, trail: Trail) -> Feed {
        let gauge = self.registry.gauge(&subject, &source);
        Feed { subject, source, gauge, trail, inlet: self.inlet.clone(), clock: self.clock }
    }
}

/// What every source is given.
#[derive(Clone)]
pub struct Means {
    /// Where records are brought.
    pub feeds: Feeds,
    /// Where sources went on when the daemon started.
    pub places: Places,
    /// Where they have come to since.
    pub trails: Trails,
    /// The hypervisor.
    pub driver: Arc<dyn Driver>,
    /// When all ends.
    pub stop: CancellationToken,
}

impl Means {
    /// For sources that begin where they were when the daemon started, and end together.
    #[must_use]
    pub fn new(feeds: &Feeds, places: &Places, driver: &Arc<dyn Driver>, stop: CancellationToken) -> Self {
        let (feeds, places, driver) = (feeds.clone(), Arc::clone(places), Arc::clone(driver));
        Self { feeds, places, trails: Trails::default(), driver, stop }
    }

    /// The way of one source to the inlet.
    #[must_use]
    pub fn feed(&self, subject: Subject, source: &str) -> Feed {
        let source = SourceName::new(source);
        let trail = self.trails.of(&subject, &source);
        self.feeds.with_trail(subject, source, trail)
    }

    /// Where a source goes on: behind the last record that it brought, in this life or the one before.
    #[must_use]
    pub fn place(&self, feed: &Feed) -> Option<String> {
        let since = feed.trail.borrow().as_deref().map(ToOwned::to_owned);
        since.or_else(|| (self.places)(&feed.subject, &feed.source))
    }

    /// Waits; `false` when it is time to stop.
    pub async fn wait(&self, time: Duration) -> bool {
        self.stop.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }
}

/// The last place of one source.
type Trail = watch::Sender<Option<Arc<str>>>;
/// Sources that are remembered; one more begins anew when it is configured anew.
const MOST_TRAILS: usize = 8_192;

/// Where sources have come to, so that one that is configured anew goes on there.
#[derive(Clone, Default)]
pub struct Trails(watch::Sender<BTreeMap<(Subject, SourceName), Trail>>);

impl Trails {
    fn of(&self, subject: &Subject, source: &SourceName) -> Trail {
        let mut found = watch::channel(None).0;
        self.0.send_modify(|all| {
            let key = (subject.clone(), source.clone());
            if let Some(trail) = all.get(&key) {
                found = trail.clone();
            } else if all.len() < MOST_TRAILS {
                all.insert(key, found.clone());
            }
        });
        found
    }
}

/// What a guest's agent logs of our own questions, as `info: guest-exec called: ..`: kept, it would be most of what a calm
/// guest says, and reading the journal would never end.
fn is_echo(record: &Record) -> bool {
    record.program == "qemu-ga"
        && record.severity == Some(Severity::Info)
        && record.text.starts_with("info: guest-")
}

/// The way of one source to the inlet.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Whose records they are.
    pub subject: Subject,
    /// What the source is called.
    pub source: SourceName,
    /// How it is.
    pub gauge: Gauge,
    trail: Trail,
    inlet: Inlet,
    clock: Clock,
}

impl Feed {
    /// Now, in microseconds since 1970: for people (I20).
    #[must_use]
    pub fn received(&self) -> i64 {
        self.micros().saturating_add(self.clock.wall_offset())
    }

    /// Time since boot, in microseconds: it never goes back.
    #[must_use]
    pub fn micros(&self) -> i64 {
        i64::try_from(self.clock.now().as_micros()).unwrap_or(i64::MAX)
    }

    /// Brings a record, and waits for room. `false` when nobody takes records any more.
    pub async fn bring(&self, said: Said, place: Option<String>) -> bool {
        if is_echo(&said.record) {
            return true;
        }
        let (entry, bytes) = self.entry(said, place);
        let (received, place) = (entry.received, entry.place.clone());
        let taken = self.inlet.bring(entry).await;
        if taken {
            if place.is_some() {
                self.trail.send_replace(place);
            }
            self.gauge.took(bytes, received);
        }
        taken
    }

    /// Brings a record if there is room; otherwise it is counted as dropped.
    pub fn offer(&self, said: Said) {
        self.offer_at(said, None);
    }

    /// The same with the place where the source goes on.
    pub fn offer_at(&self, said: Said, place: Option<String>) {
        if is_echo(&said.record) {
            return;
        }
        let (entry, bytes) = self.entry(said, place);
        let (received, place) = (entry.received, entry.place.clone());
        if self.inlet.offer(entry) {
            if place.is_some() {
                self.trail.send_replace(place);
            }
            self.gauge.took(bytes, received);
        } else {
            self.gauge.dropped(1);
        }
    }

    fn entry(&self, said: Said, place: Option<String>) -> (Entry, usize) {
        let Said { record, incarnation } = said;
        let bytes = record.text.len();
        let (at, received) = (self.clock.now(), self.received());
        let (subject, source) = (self.subject.clone(), self.source.clone());
        let place = place.map(Arc::from);
        (Entry { subject, incarnation, source, at, received, record, place }, bytes)
    }

    /// Notes how the source is; a new trouble is told in the log, once.
    pub fn is(&self, state: State) {
        let trouble = if let State::Failing(why) = &state { Some(why.clone()) } else { None };
        if self.gauge.set(state)
            && let Some(why) = trouble
        {
            let (subject, source) = (&self.subject, &self.source);
            tracing::warn!(%subject, %source, why, "a log cannot be read");
        }
    }
}

/// What was said, and by which start of the VM, where that is known.
#[derive(Clone, Debug)]
pub struct Said {
    /// What.
    pub record: Record,
    /// By which start of the VM.
    pub incarnation: Option<Incarnation>,
}

impl From<Record> for Said {
    fn from(record: Record) -> Self {
        Self { record, incarnation: None }
    }
}
