//! All restore points of a VM: snapshots and backups.

use super::named;
use super::routes::{Api, Refused};
use super::shape::V;
use super::snapshots::{refused, seconds};
use crate::backups::{self, Coming};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use holdfast_core::point::{Grade, Snapshot};
use holdfast_core::written::{Losses, Marks};
use holdfast_drivers::snapshots::Listed;
use serde::{Deserialize, Serialize};

/// What `points` stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointsDoc {
    /// The version of this shape.
    pub v: u32,
    /// Oldest first.
    pub points: Vec<PointDoc>,
    /// Why the points of its repository are missing here, if they are.
    pub trouble: Option<String>,
    /// The backup that its disk is still coming in from.
    #[serde(default)]
    pub coming: Option<Coming>,
}

/// `points --json`: one restore point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointDoc {
    /// What it is called: `snapshot/3`, or `orders/7` of a repository.
    pub id: String,
    /// Of which VM.
    pub vm: String,
    /// `snapshot` (beside the disk, lost with it) or `backup`.
    pub kind: String,
    /// Its memory was saved, and was not resumed yet.
    pub memory: bool,
    /// When it was taken, in seconds since 1970; `null`: it cannot be read.
    pub taken: Option<f64>,
    /// `taken consistent booted app-checked`, or `hurt`.
    pub grade: String,
    /// When more than `taken` was proved of it, in seconds since 1970.
    pub proved: Option<f64>,
    /// Bytes of its disk; of a snapshot `null`.
    pub size: Option<u64>,
    /// Bytes that it takes or has added.
    pub added: Option<u64>,
    /// How long it took to boot when it was proved, in seconds.
    pub boot_s: Option<f64>,
    /// What its last trial showed.
    #[serde(default)]
    pub trial: Option<String>,
    /// Why it should be looked at before it is trusted: much of the disk was written anew as if it were encrypted.
    #[serde(default)]
    pub warning: Option<String>,
    /// The point that it was compared with.
    pub parent: Option<String>,
    /// What was written since, by the count of its applications that tell: `{"postgres": {"rows": 12, "log": 34567}}`.
    #[serde(default)]
    pub since: Losses,
}

/// Its route.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/v1/vms/{vm}/points", get(points))
}

async fn points(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<PointsDoc>, Refused> {
    let error = format!("cannot list the restore points of vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    let listed = api.protector.list(&vm).await.map_err(refused(&error))?;
    let (saved, trouble) = match backups::points(&api.config(), &vm, backups::LIST_SOON).await {
        Ok(saved) => (saved, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let now = api.protector.written(&vm).await;
    let snapshots = listed.iter().map(|listed| of_snapshot(vm.as_str(), listed, &now));
    let backups = saved.iter().map(|doc| of_backup(doc, &now));
    let mut points: Vec<PointDoc> = snapshots.chain(backups).collect();
    points.sort_by(|one, other| one.taken.unwrap_or(0.0).total_cmp(&other.taken.unwrap_or(0.0)));
    let coming = api.restorer.coming(&vm).await;
    Ok(Json(PointsDoc { v: V, points, trouble, coming }))
}

fn of_snapshot(vm: &str, listed: &Listed, now: &Marks) -> PointDoc {
    let Snapshot { id, taken, memory, trial, .. } = &listed.snapshot;
    let grade = listed.snapshot.grade();
    let proved = trial.as_ref().map_or(*taken, |trial| trial.when);
    PointDoc {
        id: format!("snapshot/{id}"),
        vm: vm.to_owned(),
        kind: "snapshot".into(),
        memory: memory.as_ref().is_some_and(|memory| memory.resumed == 0),
        taken: Some(seconds(*taken)),
        grade: grade.to_string(),
        proved: (grade > Grade::Taken).then(|| seconds(proved)),
        size: None,
        added: Some(listed.disk_bytes + memory.as_ref().map_or(0, |memory| memory.bytes)),
        boot_s: trial.as_ref().and_then(|trial| trial.boot_ms).map(|boot| boot as f64 / 1e3),
        trial: trial.as_ref().map(|trial| trial.words.clone()),
        warning: None,
        parent: None,
        since: Losses::between(&listed.snapshot.written, now),
    }
}

fn of_backup(doc: &serde_json::Value, now: &Marks) -> PointDoc {
    let text = |field: &str| doc[field].as_str().map(str::to_owned);
    let hurt = doc["hurt"] == true;
    let then = Marks::deserialize(&doc["written"]).unwrap_or_default();
    PointDoc {
        id: text("id").unwrap_or_default(),
        vm: text("vm").unwrap_or_default(),
        kind: "backup".into(),
        memory: false,
        taken: doc["taken"].as_f64(),
        grade: if hurt { "hurt".into() } else { text("grade").unwrap_or_default() },
        proved: doc["proved"].as_f64(),
        size: doc["size"].as_u64(),
        added: doc["added"].as_u64(),
        boot_s: doc["boot_s"].as_f64(),
        trial: text("trial"),
        warning: text("warning"),
        parent: text("parent"),
        since: Losses::between(&then, now),
    }
}
