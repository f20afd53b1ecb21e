//! `GET /api/v1/logs/sources`: where logs come from, and how each source is.

use super::routes::Api;
use super::shape::V;
use crate::logbook::SourceName;
use crate::sense::logs::health::Reading;
use axum::Json;
use axum::extract::State;
use holdfast_core::subject::Subject;
use serde::{Deserialize, Serialize};

/// `logs sources --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcesDoc {
    /// The version of this shape.
    pub v: u32,
    /// All of them, by subject and name.
    pub sources: Vec<SourceDoc>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDoc {
    /// Whose log it is: `guest orders`, `app orders/postgres`, `vm orders` or `host atlas`.
    pub subject: String,
    /// What it is called: `journal`, `syslog`, `file /var/log/orders.log`.
    pub source: String,
    /// `waiting following receiving failing`.
    pub state: String,
    /// Why it waits or fails.
    pub why: Option<String>,
    /// Records taken in since the daemon, or the source, was started.
    pub records: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Records that were lost, as far as that is known.
    pub dropped: u64,
    /// When the last record was received, in seconds since 1970.
    pub last: Option<f64>,
}

impl SourceDoc {
    fn new((subject, source, reading): (Subject, SourceName, Reading)) -> Self {
        Self {
            subject: subject.to_string(),
            source: source.to_string(),
            state: reading.state.name().to_owned(),
            why: reading.state.why().map(ToOwned::to_owned),
            records: reading.records,
            bytes: reading.bytes,
            dropped: reading.dropped,
            last: reading.last.map(|micros| micros as f64 / 1e6),
        }
    }
}

/// All sources.
pub async fn sources(State(api): State<Api>) -> Json<SourcesDoc> {
    let sources = api.sources.read().into_iter().map(SourceDoc::new).collect();
    Json(SourcesDoc { v: V, sources })
}
