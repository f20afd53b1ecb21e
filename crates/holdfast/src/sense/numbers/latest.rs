//! The latest value of each series, for whoever asks: no need to wait until it is written.

use super::Name;
use super::kept::Moment;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// After this many seconds without a value a series is not shown as measured now.
const OLD: f64 = 600.0;

/// The latest value of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// When, in seconds since 1970.
    pub at: f64,
    /// The value.
    pub value: f64,
    /// What is unusual about it.
    pub unusual: Option<String>,
}

/// The latest values of all series, and why those that users defined cannot be had.
#[derive(Clone, Debug)]
pub struct Newest {
    values: watch::Sender<Arc<BTreeMap<Name, Latest>>>,
    troubles: watch::Sender<BTreeMap<Name, String>>,
}

impl Newest {
    /// None yet.
    pub fn new() -> Self {
        Self { values: watch::channel(Arc::default()).0, troubles: watch::channel(BTreeMap::new()).0 }
    }

    /// Why a number cannot be had; `None`: it can.
    pub fn trouble(&self, name: &Name, why: Option<String>) {
        self.troubles.send_if_modified(|troubles| match why {
            Some(why) => troubles.insert(name.clone(), why.clone()).as_ref() != Some(&why),
            None => troubles.remove(name).is_some(),
        });
    }

    /// Which numbers cannot be had, and why.
    pub fn troubles(&self) -> BTreeMap<Name, String> {
        self.troubles.borrow().clone()
    }

    /// Shows the values of a moment; those of others stay for some minutes.
    pub fn show(&self, moment: Moment, latest: Vec<(Name, f64, Option<String>)>) {
        let micros =
            i64::try_from(moment.at.as_micros()).unwrap_or(i64::MAX).saturating_add(moment.wall_offset);
        let at = micros as f64 / 1e6;
        self.values.send_modify(|all| {
            let all = Arc::make_mut(all);
            all.extend(
                latest.into_iter().map(|(name, value, unusual)| (name, Latest { at, value, unusual })),
            );
            all.retain(|_, latest| at - latest.at < OLD);
        });
    }

    /// What is known now.
    pub fn all(&self) -> Arc<BTreeMap<Name, Latest>> {
        Arc::clone(&self.values.borrow())
    }
}
