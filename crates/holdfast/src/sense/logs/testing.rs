//! What tests of sources stand on: an inlet that is read, and places that are given.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::health::{Reading, Registry};
use super::means::{Means, Places};
use crate::clock::Clock;
use crate::disk::faulty::FaultyDisk;
use crate::logbook::{Entry, Inlet, Outlet};
use holdfast_core::subject::Subject;
use holdfast_core::time::Timestamp;
use holdfast_drivers::Driver;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// The other side of sources.
pub struct Lab {
    pub means: Means,
    pub outlet: Outlet,
    /// The place of each source, as the storage would know it.
    pub places: BTreeMap<(Subject, String), String>,
}

impl Lab {
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self::going_on(driver, BTreeMap::new())
    }

    /// A later life: sources go on at these places.
    pub fn going_on(driver: Arc<dyn Driver>, places: BTreeMap<(Subject, String), String>) -> Self {
        let (inlet, outlet) = Inlet::new();
        let (clock, _) = Clock::start(Arc::new(FaultyDisk::default()), "a", Timestamp::ZERO);
        let known = places.clone();
        let kept: Places =
            Arc::new(move |subject, source| known.get(&(subject.clone(), source.to_string())).cloned());
        let stop = CancellationToken::new();
        let means = Means { inlet, places: kept, registry: Registry::default(), clock, driver, stop };
        Self { means, outlet, places }
    }

    /// The next record.
    pub async fn next(&mut self) -> Entry {
        let entry = tokio::time::timeout(LONG, self.outlet.next()).await.expect("a record").unwrap();
        if let Some(place) = &entry.place {
            self.places.insert((entry.subject.clone(), entry.source.to_string()), place.to_string());
        }
        entry
    }

    /// The texts of the next records.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.next().await.record.text);
        }
        texts
    }

    /// How a source is, once that is so.
    pub async fn until(&self, source: &str, so: impl Fn(&Reading) -> bool) -> Reading {
        let look = async {
            loop {
                let all = self.means.registry.read();
                let found = all.into_iter().find(|(_, name, reading)| name.as_str() == source && so(reading));
                if let Some((.., reading)) = found {
                    return reading;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(LONG, look).await;
        found.unwrap_or_else(|_| panic!("{source} is not so: {:?}", self.means.registry.read()))
    }
}
