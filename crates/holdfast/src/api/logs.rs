//! Kept logs: records by time, severity, pattern, source and words, live or not; and patterns.
//!
//! Searches run on threads that may block, few at a time, each bounded and ended when whoever asked has gone. Whatever
//! a stranger wrote is escaped (A40).

use super::named;
use super::routes::{Api, Refused};
use super::shape::V;
use crate::logbook::{Asks, Ended, Found, Inlet, Known, Owner, Query as Wanted, SearchError, Shelf, Stored};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use holdfast_logs::{LONGEST_TEXT, PatternId, Severity, escape};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// Searches at a time; the others wait.
const MOST_SEARCHES: usize = 2;
/// Records of one answer, where nobody says.
const LIMIT: usize = 200;
/// Records that a listener is sent at once.
const AT_ONCE: usize = 200;
/// Patterns of one answer; the rarer ones are left out.
const MOST_PATTERNS: usize = 2_000;
/// Bytes of a regular expression, and of what is made of it.
const LONGEST_GREP: usize = 1_024;
const LARGEST_GREP: usize = 1 << 20;

/// Where kept logs are found.
#[derive(Clone)]
pub struct Logs {
    shelf: Shelf,
    asks: Asks,
    /// To tell what found no room in it.
    inlet: Inlet,
    searches: Arc<Semaphore>,
}

impl Logs {
    pub fn new(shelf: Shelf, asks: Asks, inlet: Inlet) -> Self {
        Self { shelf, asks, inlet, searches: Arc::new(Semaphore::new(MOST_SEARCHES)) }
    }
}

/// One record, as it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordDoc {
    /// The version of this shape.
    pub v: u32,
    /// Its number; it rises.
    pub number: u64,
    /// When, as its source says, in seconds since the epoch.
    pub time: Option<f64>,
    /// When it was received.
    pub received: f64,
    /// What it is about, as in `guest orders`.
    pub subject: String,
    /// Where it came from.
    pub source: String,
    /// How bad it is.
    pub severity: Option<String>,
    /// Its pattern.
    pub pattern: u64,
    /// The rule that knows a line of it.
    pub rule: Option<String>,
    /// The program that said it.
    pub program: Option<String>,
    /// What was said; lines are divided by `\n`.
    pub text: String,
    /// What else was told with it.
    pub fields: Vec<(String, String)>,
}

/// Records, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogsDoc {
    /// The version of this shape.
    pub v: u32,
    /// The records.
    pub records: Vec<RecordDoc>,
    /// Whether all that is kept was looked at: false if there may be more.
    pub complete: bool,
    /// Blocks that could not be read.
    pub damaged: u64,
    /// The number up to which everything was looked at: to be asked for `after` it.
    pub through: u64,
}

/// One pattern, as it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PatternDoc {
    /// The version of this shape.
    pub v: u32,
    /// Its number.
    pub id: u64,
    /// So many records.
    pub count: u64,
    /// When the first came, in seconds since the epoch.
    pub first: f64,
    /// When the last came.
    pub last: f64,
    /// How many of each severity.
    pub severities: BTreeMap<String, u64>,
    /// Its words, `<*>` for what changes.
    pub template: String,
    /// The number of the pattern that it was split off.
    #[serde(default)]
    pub of: Option<u64>,
}

/// What may be asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedFor {
    /// Received then or later, in seconds since the epoch.
    pub since: Option<f64>,
    /// Received then or before.
    pub until: Option<f64>,
    /// So bad or worse.
    pub severity: Option<String>,
    /// Of this pattern.
    pub pattern: Option<u64>,
    /// With text that this regular expression matches.
    pub grep: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// With a larger number than this.
    pub after: Option<u64>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// The routes of kept logs.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/logs", get(of_host))
        .route("/api/v1/logs/stream", get(stream_of_host))
        .route("/api/v1/logs/patterns", get(patterns_of_host))
        .route("/api/v1/logs/counts", get(counts))
        .route("/api/v1/vms/{vm}/logs", get(of_vm))
        .route("/api/v1/vms/{vm}/logs/stream", get(stream_of_vm))
        .route("/api/v1/vms/{vm}/logs/patterns", get(patterns_of_vm))
}

type Asked = Query<AskedFor>;

/// What was counted since the daemon started.
async fn counts(State(api): State<Api>) -> Json<serde_json::Value> {
    let counts = api.logs.shelf.counts();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Json(serde_json::json!({
        "v": V,
        "records": of(&counts.records),
        "bytes": of(&counts.bytes),
        "dropped": api.logs.inlet.dropped(),
        "kept": of(&counts.kept),
        "unkept": of(&counts.unkept),
        "left": of(&counts.left),
        "damaged": of(&counts.damaged),
        "findings": of(&counts.findings),
        "unusual": of(&counts.unusual),
        "on_disk": of(&counts.on_disk),
    }))
}

async fn of_host(State(api): State<Api>, Query(asked): Asked) -> Result<Json<LogsDoc>, Refused> {
    records(&api, Owner::Host, &asked).await.map(Json)
}

async fn of_vm(
    State(api): State<Api>,
    Path(vm): Path<String>,
    Query(asked): Asked,
) -> Result<Json<LogsDoc>, Refused> {
    let name = named::vm(&vm, cannot_show)?;
    let doc = records(&api, Owner::Vm(name.clone()), &asked).await?;
    if doc.records.is_empty() && doc.complete {
        named::configured(&api, &name, cannot_show)?;
    }
    Ok(Json(doc))
}

async fn stream_of_host(State(api): State<Api>, Query(asked): Asked) -> Result<Response, Refused> {
    stream(&api, Owner::Host, &asked).await
}

async fn stream_of_vm(
    State(api): State<Api>,
    Path(vm): Path<String>,
    Query(asked): Asked,
) -> Result<Response, Refused> {
    let name = named::vm(&vm, cannot_show)?;
    named::configured(&api, &name, cannot_show)?;
    stream(&api, Owner::Vm(name), &asked).await
}

async fn patterns_of_host(State(api): State<Api>) -> Result<Json<Vec<PatternDoc>>, Refused> {
    patterns(&api, Owner::Host).await
}

async fn patterns_of_vm(
    State(api): State<Api>,
    Path(vm): Path<String>,
) -> Result<Json<Vec<PatternDoc>>, Refused> {
    let name = named::vm(&vm, cannot_show)?;
    let doc = patterns(&api, Owner::Vm(name.clone())).await?;
    if doc.is_empty() {
        named::configured(&api, &name, cannot_show)?;
    }
    Ok(doc)
}

fn refused(status: StatusCode, cause: impl Into<String>, hint: impl Into<String>) -> Refused {
    Refused(status, cannot_show(), cause.into(), hint.into())
}

fn cannot_show() -> String {
    "cannot show logs".into()
}

async fn patterns(api: &Api, owner: Owner) -> Result<Json<Vec<PatternDoc>>, Refused> {
    let known = api.logs.asks.patterns(owner).await.map_err(stopping)?;
    Ok(Json(known.into_iter().take(MOST_PATTERNS).map(pattern_doc).collect()))
}

fn pattern_doc(known: Known) -> PatternDoc {
    let of = |severity: &Severity| {
        let count = u64::from(known.tally.severities[*severity as usize]);
        (count > 0).then(|| (severity.name().to_owned(), count))
    };
    PatternDoc {
        v: V,
        id: known.id.0,
        count: known.tally.count,
        first: seconds(known.tally.first),
        last: seconds(known.tally.last),
        severities: Severity::ALL.iter().filter_map(of).collect(),
        template: known.template,
        of: known.of.map(|id| id.0),
    }
}

fn stopping(ended: crate::logbook::IntakeEnded) -> Refused {
    refused(StatusCode::SERVICE_UNAVAILABLE, ended.to_string(), "wait for it to start again")
}

async fn records(api: &Api, owner: Owner, asked: &AskedFor) -> Result<LogsDoc, Refused> {
    let wanted = wanted(api, owner, asked).await?;
    let found = search(&api.logs, wanted).await?;
    Ok(LogsDoc {
        v: V,
        complete: found.ended == Ended::Whole,
        damaged: found.damaged,
        through: found.through,
        records: found.records.iter().map(record_doc).collect(),
    })
}

/// Turns true when it is dropped: whoever asked has gone.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn search(logs: &Logs, wanted: Wanted) -> Result<Found, Refused> {
    logs.read(move |shelf, gone| shelf.search(&wanted, gone)).await
}

impl Logs {
    /// Reads what is kept, on a thread that may block, when it is our turn.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shelf, &AtomicBool) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, Refused> {
        let hint = "its log tells more";
        let failed = |cause: String| refused(StatusCode::INTERNAL_SERVER_ERROR, cause, hint);
        let turn = Arc::clone(&self.searches).acquire_owned().await;
        let turn = turn.map_err(|cause| failed(cause.to_string()))?;
        let flag = Arc::new(AtomicBool::new(false));
        let _gone = Gone(Arc::clone(&flag));
        let shelf = self.shelf.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn; // until it has ended, not until nobody waits for it
            read(&shelf, &flag)
        });
        match reading.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(cause @ SearchError::Nothing)) => {
                Err(refused(StatusCode::CONFLICT, cause.to_string(), hint))
            }
            Ok(Err(cause)) => Err(failed(crate::act::chain(&cause))),
            Err(cause) => Err(failed(cause.to_string())),
        }
    }
}

async fn wanted(api: &Api, owner: Owner, asked: &AskedFor) -> Result<Wanted, Refused> {
    let micros = |seconds: f64| (seconds * 1e6) as i64; // what does not fit is as far as can be
    let severity = asked.severity.as_deref().map(severity).transpose()?;
    let grep = asked.grep.as_deref().map(expression).transpose()?;
    let patterns = match asked.pattern {
        Some(id) => {
            let members = api.logs.asks.members(owner.clone(), PatternId(id)).await.map_err(stopping)?;
            Some(members.into_iter().collect())
        }
        None => None,
    };
    Ok(Wanted {
        owner,
        since: asked.since.map(micros),
        until: asked.until.map(micros),
        severity,
        patterns,
        source: asked.source.clone(),
        grep,
        known: false,
        after: asked.after,
        before: None,
        limit: asked.limit.unwrap_or(LIMIT),
    })
}

fn severity(name: &str) -> Result<Severity, Refused> {
    Severity::ALL.into_iter().find(|severity| severity.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Severity::ALL.iter().map(|severity| severity.name()).collect();
        let cause = format!("there is no severity `{}`", escape(name, 64));
        refused(StatusCode::BAD_REQUEST, cause, format!("choose one of {}", names.join(" ")))
    })
}

/// A regular expression, by an engine that takes time in proportion to the text (A08).
fn expression(text: &str) -> Result<Regex, Refused> {
    let wrong = |cause: String| {
        let hint = "write a regular expression, as in `timeout|refused`; a word is one, too";
        refused(StatusCode::BAD_REQUEST, cause, hint)
    };
    if text.len() > LONGEST_GREP {
        return Err(wrong(format!("the expression is longer than {LONGEST_GREP} bytes")));
    }
    let built = RegexBuilder::new(text).size_limit(LARGEST_GREP).dfa_size_limit(LARGEST_GREP).build();
    built.map_err(|cause| wrong(escape(&cause.to_string().replace('\n', " "), 400)))
}

pub(super) fn seconds(micros: i64) -> f64 {
    (micros as f64 / 1_000.0).round() / 1_000.0
}

fn record_doc(stored: &Stored) -> RecordDoc {
    let record = &stored.record;
    let lines: Vec<String> = record.text.lines().map(|line| escape(line, LONGEST_TEXT)).collect();
    let safe = |text: &str| escape(text, LONGEST_TEXT);
    RecordDoc {
        v: V,
        number: stored.number,
        time: record.time.map(seconds),
        received: seconds(stored.received),
        subject: stored.subject.to_string(),
        source: safe(stored.source.as_str()),
        severity: stored.severity.map(|severity| severity.name().to_owned()),
        pattern: stored.pattern,
        rule: stored.rule.as_deref().map(str::to_owned),
        program: (!record.program.is_empty()).then(|| safe(&record.program)),
        text: lines.join("\n"),
        fields: record.fields.iter().map(|(name, value)| (safe(name), safe(value))).collect(),
    }
}

/// Records as they come. Nothing is kept for a listener: what it has not read yet is still on disk (A44).
async fn stream(api: &Api, owner: Owner, asked: &AskedFor) -> Result<Response, Refused> {
    let mut first = wanted(api, owner, asked).await?;
    let mut newest = api.logs.shelf.newest();
    first.after = Some(asked.after.unwrap_or(*newest.borrow_and_update()));
    first.limit = AT_ONCE;
    let logs = api.logs.clone();
    let begin = (first, newest, Vec::new().into_iter());
    let lines = futures_util::stream::unfold(begin, move |(mut wanted, mut newest, mut ready)| {
        let logs = logs.clone();
        async move {
            loop {
                if let Some(stored) = ready.next() {
                    let line = sse::Event::default().json_data(record_doc(&stored)).unwrap_or_default();
                    return Some((Ok::<_, Infallible>(line), (wanted, newest, ready)));
                }
                let found = search(&logs, wanted.clone()).await.ok()?;
                wanted.after = Some(found.through.max(wanted.after.unwrap_or(0)));
                let is_all = found.ended == Ended::Whole;
                ready = found.records.into_iter();
                if is_all && ready.len() == 0 {
                    newest.changed().await.ok()?;
                }
            }
        }
    });
    Ok(Sse::new(lines).keep_alive(sse::KeepAlive::default()).into_response())
}
