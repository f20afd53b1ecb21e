//! Kept numbers: which series there are and how they are now, and the rows of one.
//!
//! They are read on threads that may block, few at a time, and each answer is bounded.

use super::named;
use super::routes::{Api, Refused};
use super::shape::V;
use crate::clock;
use crate::logbook::Owner;
use crate::sense::numbers::kept::{Listed, Row, Shelf, ShelfError, Step};
use crate::sense::numbers::{Name, Newest, What};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use holdfast_logs::escape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// Questions at a time; the others wait.
const MOST_QUESTIONS: usize = 2;
/// Rows of one answer: of more, longer stretches become one row.
const MOST_ROWS: f64 = 2_000.0;
/// Rows of an answer where nobody says how long a row is.
const ROWS: f64 = 500.0;
/// The shortest row, in seconds; rows longer than [`SECONDS`] of these are multiples of [`TENS`].
const SHORTEST: f64 = 1.0;
const SECONDS: f64 = 5.0;
const TENS: f64 = 10.0;
/// The time that is shown where nobody says, in seconds.
const SHOWN: f64 = 3_600.0;
/// The time over which a list tells how a series was, in seconds.
const DAY: f64 = 86_400.0;
/// The longest time anybody can ask for, in seconds: nothing is kept for longer.
const LONGEST: f64 = 366.0 * DAY;

/// Where kept numbers are found.
#[derive(Clone)]
pub struct Numbers {
    shelf: Shelf,
    newest: Newest,
    questions: Arc<Semaphore>,
}

impl Numbers {
    pub fn new(shelf: Shelf, newest: Newest) -> Self {
        Self { shelf, newest, questions: Arc::new(Semaphore::new(MOST_QUESTIONS)) }
    }
}

/// One series, as it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeriesDoc {
    /// Its name among those of its owner.
    pub series: String,
    /// What it is, as in `latency of postgres`.
    pub says: String,
    /// What it is about, as in `guest orders`.
    pub subject: String,
    /// In what it is measured: `s`, `B`, `share` or `1/s`, or what a user says of a number of their own.
    pub unit: String,
    /// When it was last measured, in seconds since the epoch; `None`: never yet.
    pub at: Option<f64>,
    /// The value then.
    pub last: Option<f64>,
    /// How it was in the last 24 hours.
    pub day: Option<DayDoc>,
    /// What is unusual about it now.
    pub unusual: Option<String>,
    /// Why it cannot be had now: of a number that a user defined.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// How a series was in the last 24 hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DayDoc {
    /// The least value.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The greatest value.
    pub max: f64,
}

/// All series of a VM, or of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumbersDoc {
    /// The version of this shape.
    pub v: u32,
    /// The series.
    pub series: Vec<SeriesDoc>,
}

/// Rows of one series, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowsDoc {
    /// The version of this shape.
    pub v: u32,
    /// Its name among those of its owner.
    pub series: String,
    /// What it is.
    pub says: String,
    /// What it is about.
    pub subject: String,
    /// In what it is measured.
    pub unit: String,
    /// How long a row is, in seconds, unless it is older than what is kept so exactly.
    pub step_s: f64,
    /// The rows; stretches without a value are left out.
    pub rows: Vec<RowDoc>,
}

/// A stretch of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowDoc {
    /// When it begins, in seconds since the epoch.
    pub at: f64,
    /// The least value.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The greatest value.
    pub max: f64,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedFor {
    /// From then on, in seconds since the epoch.
    pub since: Option<f64>,
    /// Until then.
    pub until: Option<f64>,
    /// So long a row, in seconds.
    pub step: Option<f64>,
}

/// The routes of kept numbers.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/numbers", get(list_of_host))
        .route("/api/v1/numbers/counts", get(counts))
        .route("/api/v1/numbers/{series}", get(rows_of_host))
        .route("/api/v1/vms/{vm}/numbers", get(list_of_vm))
        .route("/api/v1/vms/{vm}/numbers/{series}", get(rows_of_vm))
}

/// What was counted since the daemon started.
async fn counts(State(api): State<Api>) -> Json<serde_json::Value> {
    let counts = api.numbers.shelf.counts();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Json(serde_json::json!({
        "v": V,
        "values": of(&counts.values),
        "unkept": of(&counts.unkept),
        "failed": of(&counts.failed),
        "left": of(&counts.left),
        "damaged": of(&counts.damaged),
        "on_disk": of(&counts.on_disk),
    }))
}

async fn list_of_host(State(api): State<Api>) -> Result<Json<NumbersDoc>, Refused> {
    list(&api, Owner::Host).await.map(Json)
}

async fn list_of_vm(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<NumbersDoc>, Refused> {
    let name = named::vm(&vm, cannot_show)?;
    let doc = list(&api, Owner::Vm(name.clone())).await?;
    if doc.series.is_empty() {
        named::configured(&api, &name, cannot_show)?;
    }
    Ok(Json(doc))
}

async fn rows_of_host(
    State(api): State<Api>,
    Path(series): Path<String>,
    Query(asked): Query<AskedFor>,
) -> Result<Json<RowsDoc>, Refused> {
    rows(&api, Owner::Host, series, asked).await.map(Json)
}

async fn rows_of_vm(
    State(api): State<Api>,
    Path((vm, series)): Path<(String, String)>,
    Query(asked): Query<AskedFor>,
) -> Result<Json<RowsDoc>, Refused> {
    let name = named::vm(&vm, cannot_show)?;
    let answer = rows(&api, Owner::Vm(name.clone()), series, asked).await;
    if answer.is_err() {
        named::configured(&api, &name, cannot_show)?;
    }
    answer.map(Json)
}

fn refused(status: StatusCode, cause: impl Into<String>, hint: impl Into<String>) -> Refused {
    Refused(status, cannot_show(), cause.into(), hint.into())
}

fn cannot_show() -> String {
    "cannot show numbers".into()
}

/// Asks on a thread that may block.
async fn ask<T: Send + 'static>(
    numbers: &Numbers,
    question: impl FnOnce(&Shelf) -> Result<T, ShelfError> + Send + 'static,
) -> Result<T, Refused> {
    let hint = "its log tells more";
    let failed = |cause: String| refused(StatusCode::INTERNAL_SERVER_ERROR, cause, hint);
    let turn =
        Arc::clone(&numbers.questions).acquire_owned().await.map_err(|cause| failed(cause.to_string()))?;
    let shelf = numbers.shelf.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let _turn = turn; // until it has ended, not until nobody waits for it
        question(&shelf)
    });
    match asking.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(cause @ ShelfError::Nothing)) => Err(refused(StatusCode::CONFLICT, cause.to_string(), hint)),
        Ok(Err(cause)) => Err(failed(crate::act::chain(&cause))),
        Err(cause) => Err(failed(cause.to_string())),
    }
}

async fn list(api: &Api, owner: Owner) -> Result<NumbersDoc, Refused> {
    let since = clock::wall_seconds() - DAY;
    let of = owner.clone();
    let listed = ask(&api.numbers, move |shelf| match shelf.list(&of, since) {
        Err(ShelfError::Nothing) => Ok(Vec::new()), // what is measured now is known all the same
        listed => listed,
    });
    let mut series: BTreeMap<Name, SeriesDoc> =
        listed.await?.into_iter().map(|listed| (listed.name.clone(), of_kept(api, &listed))).collect();
    for (name, latest) in
        api.numbers.newest.all().iter().filter(|(name, _)| Owner::of(&name.subject) == owner)
    {
        let doc = series.entry(name.clone()).or_insert_with(|| begun(api, name));
        (doc.at, doc.last) = (Some(millis(latest.at)), Some(latest.value));
        doc.unusual.clone_from(&latest.unusual);
    }
    for (name, why) in api.numbers.newest.troubles() {
        if Owner::of(&name.subject) == owner {
            series.entry(name.clone()).or_insert_with(|| begun(api, &name)).trouble = Some(safe(&why));
        }
    }
    Ok(NumbersDoc { v: V, series: series.into_values().collect() })
}

/// In what a series is measured. Of a number of a user's own, the configuration in force says that.
fn unit(api: &Api, name: &Name) -> String {
    let What::Own(own) = &name.what else { return name.what.unit().name().into() };
    let config = api.config();
    let number = name.subject.vm().and_then(|vm| config.vms.get(vm)?.numbers.get(own));
    number.map_or_else(String::new, |number| safe(&number.shown_unit()))
}

fn begun(api: &Api, name: &Name) -> SeriesDoc {
    SeriesDoc {
        series: safe(&name.key()),
        says: safe(&name.to_string()),
        subject: name.subject.to_string(),
        unit: unit(api, name),
        at: None,
        last: None,
        day: None,
        unusual: None,
        trouble: None,
    }
}

fn of_kept(api: &Api, listed: &Listed) -> SeriesDoc {
    let day = Some(DayDoc { min: listed.since.min, mean: listed.since.mean, max: listed.since.max });
    let (at, last) = (Some(listed.last.at as f64), Some(listed.last.mean));
    SeriesDoc { at, last, day, ..begun(api, &listed.name) }
}

async fn rows(api: &Api, owner: Owner, series: String, asked: AskedFor) -> Result<RowsDoc, Refused> {
    let until = asked.until.unwrap_or_else(clock::wall_seconds);
    let since = asked.since.unwrap_or(until - SHOWN).max(until - LONGEST);
    let step = step(since, until, asked.step).ok_or_else(|| {
        let hint = "`since` and `until` are seconds since 1970, `step` is seconds";
        refused(StatusCode::BAD_REQUEST, "these are no times", hint)
    })?;
    let wanted = series.clone();
    let finest = if step < TENS { Step::Second } else { Step::Fine };
    let found = ask(&api.numbers, move |shelf| shelf.rows(&owner, &wanted, (since, until), finest)).await?;
    let Some((name, rows)) = found else {
        let cause = format!("there is no series `{}`", escape(&series, 200));
        let hint = "a list without a series tells which there are; a new one is kept after a minute";
        return Err(refused(StatusCode::NOT_FOUND, cause, hint));
    };
    let step = step.max(pace(&rows));
    let SeriesDoc { series, says, subject, unit, .. } = begun(api, &name);
    Ok(RowsDoc { v: V, series, says, subject, unit, step_s: step, rows: joined(&rows, step) })
}

/// How long a row is: as asked for, or so that there are not too many.
fn step(since: f64, until: f64, asked: Option<f64>) -> Option<f64> {
    let all = until - since;
    if !(all.is_finite() && all >= 0.0 && asked.unwrap_or(SHORTEST).is_finite()) {
        return None;
    }
    let least = asked.unwrap_or(all / ROWS).max(all / MOST_ROWS);
    let unit = if least <= SECONDS { SHORTEST } else { TENS };
    Some((least / unit).ceil().max(1.0) * unit)
}

/// How far rows are apart, ten seconds at most: a row that is shorter would be followed by none.
fn pace(rows: &[Row]) -> f64 {
    let mut apart: Vec<u64> = rows.windows(2).map(|two| two[1].at.saturating_sub(two[0].at)).collect();
    apart.sort_unstable();
    apart.get(apart.len() / 2).map_or(TENS, |middle| (*middle as f64).clamp(SHORTEST, TENS))
}

/// Rows of so many seconds each.
fn joined(rows: &[Row], step: f64) -> Vec<RowDoc> {
    let begin = |row: &Row| (row.at as f64 / step).floor() * step;
    let together = |rows: &[Row]| {
        let first = rows.first()?;
        Some(RowDoc {
            at: begin(first),
            min: rows.iter().map(|row| row.min).fold(f64::INFINITY, f64::min),
            mean: rows.iter().map(|row| row.mean).sum::<f64>() / rows.len() as f64,
            max: rows.iter().map(|row| row.max).fold(f64::NEG_INFINITY, f64::max),
        })
    };
    rows.chunk_by(|a, b| begin(a) == begin(b)).filter_map(together).collect()
}

fn safe(text: &str) -> String {
    escape(text, 256)
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rows_become_fewer_and_keep_the_least_and_the_greatest() {
        let rows: Vec<Row> = (0..12).map(|n| Row::of(1_000 + 10 * n, n as f64, true)).collect();
        let joined = joined(&rows, 60.0);
        assert_eq!(joined[0], RowDoc { at: 960.0, min: 0.0, mean: 0.5, max: 1.0 });
        assert_eq!(joined[1], RowDoc { at: 1_020.0, min: 2.0, mean: 4.5, max: 7.0 });
        assert_eq!(joined.len(), 3);
    }

    #[test]
    fn a_row_is_no_shorter_than_the_series_is_measured() {
        let every = |apart: u64| (0..9).map(|n| Row::of(n * apart, 1.0, true)).collect::<Vec<_>>();
        assert_eq!([1, 5, 10, 60].map(|apart| pace(&every(apart))), [1.0, 5.0, 10.0, 10.0]);
        assert_eq!(pace(&every(1)[..1]), TENS);
    }

    #[test]
    fn an_answer_is_bounded_whatever_is_asked_for() {
        assert_eq!(step(0.0, 3_600.0, None).unwrap(), 10.0);
        assert_eq!(step(0.0, 86_400.0, None).unwrap(), 180.0);
        assert_eq!(step(0.0, 86_400.0, Some(10.0)).unwrap(), 50.0);
        assert_eq!(step(0.0, 60.0, Some(-7.0)).unwrap(), 1.0);
        assert_eq!(step(0.0, 300.0, None).unwrap(), 1.0);
        assert_eq!(step(0.0, 1_200.0, None).unwrap(), 3.0);
        for (since, until, asked) in
            [(1.0, 0.0, None), (f64::NAN, 0.0, None), (0.0, 1.0, Some(f64::INFINITY))]
        {
            assert!(step(since, until, asked).is_none());
        }
    }
}
