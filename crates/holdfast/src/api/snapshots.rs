//! Snapshots over the API.

use super::routes::{Api, Refused};
use super::shape::V;
use super::{again, named};
use crate::decide::Desk;
use crate::protect::{ProtectError, Request};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use holdfast_core::action::Rewind;
use holdfast_core::incident::IncidentId;
use holdfast_core::point::{PointId, Snapshot, SnapshotId};
use holdfast_core::subject::VmName;
use holdfast_core::written::{Losses, Marks};
use holdfast_drivers::DriverError;
use holdfast_drivers::snapshots::Listed;
use serde::{Deserialize, Serialize};

/// `snapshot list --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotsDoc {
    /// The version of this shape.
    pub v: u32,
    /// Whose.
    pub vm: String,
    /// Oldest first.
    pub snapshots: Vec<SnapshotDoc>,
    /// How far the merge of deleted ones is.
    pub merging: Option<MergingDoc>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDoc {
    /// Its number.
    pub id: u64,
    /// When it was taken, in seconds since 1970.
    pub taken: f64,
    /// Bytes of its saved memory; `null`: it has none, and can only be booted.
    pub memory: Option<u64>,
    /// How often that was resumed.
    pub resumed: u32,
    /// The guest's file systems were frozen.
    pub frozen: bool,
    /// What the VM was before it went back to another.
    pub set_aside: bool,
    /// It was taken by schedule, and may go by schedule.
    #[serde(default)]
    pub scheduled: bool,
    /// Bytes that its file takes.
    pub disk: u64,
    /// The VM's disk stands on it now.
    pub below: bool,
    /// What it is, for people.
    pub note: String,
    /// What was written since, by the count of its applications that tell.
    #[serde(default)]
    pub since: Losses,
}

/// A merge under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergingDoc {
    /// Bytes that are merged.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// `snapshot create --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenDoc {
    /// The version of this shape.
    pub v: u32,
    /// Of which VM.
    pub vm: String,
    /// Its number.
    pub id: u64,
    /// When it was taken, in seconds since 1970.
    pub taken: f64,
    /// Bytes of its saved memory.
    pub memory: Option<u64>,
    /// The guest's file systems were frozen.
    pub frozen: bool,
    /// For so long the guest had to wait, in seconds.
    pub stall_s: f64,
    /// What did not go as it should.
    pub warnings: Vec<String>,
}

/// What a person says about a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotWords {
    /// With its memory.
    pub memory: bool,
    /// Whether file systems are frozen; `null`: where they can be.
    pub freeze: Option<bool>,
    /// What it is.
    pub note: String,
    /// Go on with its memory.
    pub resume: bool,
    /// Although that was done before.
    pub again: bool,
    /// To this snapshot, where one is approved; `null`: to the best.
    pub to: Option<u64>,
    /// To this backup, where one is approved.
    pub backup: Option<u64>,
    /// Who asks.
    pub by: String,
}

/// The longest note, in characters.
const NOTE_MOST: usize = 200;

impl SnapshotWords {
    fn by(&self) -> String {
        let by = if self.by.is_empty() { "api" } else { &self.by };
        by.chars().filter(|c| !c.is_control()).take(64).collect()
    }
}

/// The routes of snapshots.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/vms/{vm}/snapshots", get(list).post(take))
        .route("/api/v1/vms/{vm}/snapshots/{id}", delete(forget))
        .route("/api/v1/vms/{vm}/snapshots/{id}/revert", post(revert))
        .route("/api/v1/incidents/{id}/approve", post(approve))
}

/// Why it was not done, with the way out.
pub(super) fn refused(error: &str) -> impl FnOnce(ProtectError) -> Refused {
    let error = error.to_owned();
    move |cause| {
        let (status, hint) = match &cause {
            ProtectError::NoSuchVm(_) => (StatusCode::NOT_FOUND, "`holdfast vm list` lists them"),
            ProtectError::Unable => (StatusCode::NOT_IMPLEMENTED, "back it up instead"),
            ProtectError::Driver(error) if error.is_unknown() => {
                (StatusCode::GATEWAY_TIMEOUT, "`holdfast snapshot list` tells what there is now")
            }
            ProtectError::Driver(_) | ProtectError::Refused(_) => (
                StatusCode::CONFLICT,
                "`holdfast snapshot list` and `holdfast vm show` tell how it stands, and whether a backup of it runs",
            ),
            ProtectError::Stopping(_) => (StatusCode::SERVICE_UNAVAILABLE, "wait for it to start again"),
        };
        let why =
            if let ProtectError::Driver(DriverError::Refused { why, .. } | DriverError::CutOff { why, .. }) =
                &cause
            {
                why.clone()
            } else {
                crate::act::chain(&cause)
            };
        Refused(status, error, why, cause.way_out().unwrap_or_else(|| hint.into()))
    }
}

async fn list(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<SnapshotsDoc>, Refused> {
    let error = format!("cannot list the snapshots of vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    let listed = api.protector.list(&vm).await.map_err(refused(&error));
    // What failed is no way out of it.
    let listed = listed.map_err(|Refused(status, error, cause, hint)| {
        let hint = if hint.contains("snapshot list") {
            format!("`holdfast vm show {vm}` tells how it stands")
        } else {
            hint
        };
        Refused(status, error, cause, hint)
    })?;
    let merging =
        api.protector.merging(&vm).map(|merged| MergingDoc { done: merged.done, total: merged.total });
    let now = api.protector.written(&vm).await;
    let snapshots = listed.iter().map(|listed| SnapshotDoc::of(listed, &now)).collect();
    Ok(Json(SnapshotsDoc { v: V, vm: vm.to_string(), snapshots, merging }))
}

async fn take(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<SnapshotWords>>,
) -> Result<Json<TakenDoc>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let error = format!("cannot take a snapshot of vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    if words.note.chars().count() > NOTE_MOST || words.note.chars().any(char::is_control) {
        let cause = format!("its note has more than {NOTE_MOST} characters, or some that cannot be shown");
        return Err(Refused(StatusCode::BAD_REQUEST, error, cause, "say it shorter".into()));
    }
    let by = words.by();
    let request = Request { memory: words.memory, freeze: words.freeze, note: words.note, scheduled: false };
    let taken = api.protector.take(&by, &vm, request).await.map_err(refused(&error))?;
    let Snapshot { id, taken: at, memory, frozen, .. } = taken.snapshot;
    Ok(Json(TakenDoc {
        v: V,
        vm: vm.to_string(),
        id: id.0,
        taken: seconds(at),
        memory: memory.map(|memory| memory.bytes),
        frozen,
        stall_s: taken.stall.as_secs_f64(),
        warnings: taken.warnings,
    }))
}

async fn forget(
    State(api): State<Api>,
    Path((vm, id)): Path<(String, u64)>,
    words: Option<Json<SnapshotWords>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let by = words.map(|Json(words)| words).unwrap_or_default().by();
    let error = format!("cannot delete snapshot {id} of vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    api.protector.forget(&by, &vm, SnapshotId(id)).await.map_err(refused(&error))?;
    Ok(Json(serde_json::json!({ "v": V, "ok": true })))
}

async fn revert(
    State(api): State<Api>,
    Path((vm, id)): Path<(String, u64)>,
    words: Option<Json<SnapshotWords>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let error = format!("cannot go back to snapshot {id} of vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    again::refuse_other_disk(&api, &vm, Some(SnapshotId(id)), &error).await?;
    let to = Rewind { to: SnapshotId(id).into(), resume: words.resume, again: words.again };
    api.protector.revert(&words.by(), &vm, to).await.map_err(refused(&error))?;
    Ok(Json(serde_json::json!({ "v": V, "ok": true })))
}

/// Microseconds since 1970 in seconds.
pub(super) const fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

async fn approve(
    State(api): State<Api>,
    Path(id): Path<u64>,
    words: Option<Json<SnapshotWords>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let error = format!("cannot approve the way back of incident #{id}");
    let incident = IncidentId(id);
    let of =
        move |desk: &Desk| desk.engine.incident(incident).and_then(|incident| incident.subject.vm().cloned());
    let vm = api.inbox.look(of).await?.ok_or_else(|| {
        let hint = "`holdfast incidents --open` lists them".to_owned();
        Refused(StatusCode::NOT_FOUND, error.clone(), "there is no such incident of a vm".into(), hint)
    })?;
    let backup = words.backup.map(PointId::backup);
    let to = words.to.map(|id| SnapshotId(id).into()).or(backup);
    again::refuse_other_disk(&api, &vm, words.to.map(SnapshotId), &error).await?;
    let refused = not_approved(&error, &vm, incident);
    api.protector.approve(&words.by(), &vm, incident, to).await.map_err(refused)?;
    Ok(Json(serde_json::json!({ "v": V, "ok": true, "vm": vm })))
}

/// Why a way back was not approved: it may be one of any kind, so all are listed by the way out.
fn not_approved(error: &str, vm: &VmName, incident: IncidentId) -> impl FnOnce(ProtectError) -> Refused {
    let list =
        format!("`holdfast points {vm}` lists where it can go back to, `holdfast explain {}`", incident.0);
    let refused = refused(error);
    move |cause| {
        let is_ours = matches!(cause, ProtectError::Refused(_));
        let Refused(status, error, why, hint) = refused(cause);
        let hint = if is_ours { format!("{list} tells how its incident stands") } else { hint };
        Refused(status, error, why, hint)
    }
}

impl SnapshotDoc {
    fn of(listed: &Listed, now: &Marks) -> Self {
        let Snapshot { id, taken, memory, frozen, set_aside, scheduled, note, written, .. } =
            &listed.snapshot;
        Self {
            id: id.0,
            taken: seconds(*taken),
            memory: memory.as_ref().map(|memory| memory.bytes),
            resumed: memory.as_ref().map_or(0, |memory| memory.resumed),
            frozen: *frozen,
            set_aside: *set_aside,
            scheduled: *scheduled,
            disk: listed.disk_bytes,
            below: listed.is_below,
            note: note.clone(),
            since: Losses::between(written, now),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn who_approves_a_point_that_is_not_there_is_told_what_lists_all_points() {
        let vm: VmName = "orders".parse().unwrap();
        let why = "it has no backup 7".to_owned();
        let refused = not_approved("cannot", &vm, IncidentId(3));
        let Refused(status, _, said, hint) = refused(ProtectError::Refused(why.clone()));
        assert_eq!((status, said), (StatusCode::CONFLICT, why));
        assert!(hint.contains("`holdfast points orders`") && hint.contains("`holdfast explain 3`"), "{hint}");
        assert!(!hint.contains("snapshot list"), "{hint}");
    }
}
