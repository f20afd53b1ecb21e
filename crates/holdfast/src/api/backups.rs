//! Backups over the API: begin one, look how it goes, end it.

use super::routes::Refused;
use super::{Api, Words, named};
use crate::backups::{BackupDoc, BackupState, NoBackup};
use crate::config::Limits;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_core::action::Rewind;
use holdfast_core::point::PointId;
use holdfast_core::subject::VmName;
use serde::{Deserialize, Serialize};

/// What a person says about a backup.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupWords {
    /// Bytes that are read in a second at most; `null`: as is configured.
    pub limit: Option<u64>,
    /// Reads in a second at most, of up to 256 KiB each; `null`: as is configured.
    pub iops: Option<u32>,
    /// Who asks.
    pub by: Option<String>,
}

/// Their routes.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/vms/{vm}/backup", get(look).post(begin))
        .route("/api/v1/vms/{vm}/backup/cancel", post(cancel))
        .route("/api/v1/vms/{vm}/backups/{id}/revert", post(revert))
}

fn name(vm: &str) -> Result<VmName, Refused> {
    named::vm(vm, || format!("cannot back up vm `{}`", vm.escape_debug()))
}

async fn begin(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<BackupWords>>,
) -> Result<Json<BackupDoc>, Refused> {
    let BackupWords { limit, iops, by } = words.map(|Json(words)| words).unwrap_or_default();
    let name = name(&vm)?;
    let limits = Limits { limit, iops };
    if let Err(cause) = limits.check() {
        let hint = "its disk is held still until all of it is read: name another bound, or none".to_owned();
        return Err(Refused(StatusCode::BAD_REQUEST, format!("cannot back up vm `{vm}`"), cause, hint));
    }
    let begun = api.backups.begin(name, Words { by, ..Words::default() }.by(), limits).await;
    begun.map(Json).map_err(|cause| {
        let status = match cause {
            NoBackup::NoVm => StatusCode::NOT_FOUND,
            NoBackup::NotConfigured | NoBackup::Busy => StatusCode::CONFLICT,
            NoBackup::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        let error = format!("cannot back up vm `{vm}`");
        Refused(status, error, cause.to_string(), cause.hint().to_owned())
    })
}

fn none(vm: &str) -> Refused {
    let (error, cause) = (format!("vm `{vm}` has no backup to tell of"), "none began since the daemon did");
    Refused(StatusCode::NOT_FOUND, error, cause.into(), format!("begin one: `holdfast backup create {vm}`"))
}

async fn look(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<BackupDoc>, Refused> {
    let name = name(&vm)?;
    api.backups.look(name).await.map(Json).ok_or_else(|| none(&vm))
}

async fn cancel(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<Words>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let name = name(&vm)?;
    if api.backups.cancel(name.clone(), words.by()).await {
        return Ok(Json(serde_json::json!({ "v": super::shape::V, "ok": true })));
    }
    let Some(last) = api.backups.look(name).await else { return Err(none(&vm)) };
    let how = match last.state {
        BackupState::Done => "is made",
        BackupState::Cancelled => "was cancelled",
        BackupState::Failed | BackupState::Waits | BackupState::Runs => "failed",
    };
    let hint = "there is nothing to do; `holdfast points` lists what there is".to_owned();
    let cause = format!("the last one {how}, and none runs now");
    Err(Refused(StatusCode::NOT_FOUND, format!("no backup of vm `{vm}` can be cancelled"), cause, hint))
}

/// The VM goes back to a backup that is there.
async fn revert(
    State(api): State<Api>,
    Path((vm, id)): Path<(String, u64)>,
    words: Option<Json<Words>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let error = || format!("cannot go back to backup {id} of vm `{}`", vm.escape_debug());
    let name = named::vm(&vm, error)?;
    named::configured(&api, &name, error)?;
    let hint = || format!("`holdfast points {name}` lists them");
    let listed = crate::backups::points(&api.config(), &name, crate::backups::LIST_SOON).await;
    let listed = listed.map_err(|why| Refused(StatusCode::BAD_GATEWAY, error(), why, hint()))?;
    if !listed.iter().any(|point| point["id"] == format!("{name}/{id}") && point["hurt"] == false) {
        let cause = "its repository has none of that number that is whole";
        return Err(Refused(StatusCode::NOT_FOUND, error(), cause.into(), hint()));
    }
    let by = words.map(|Json(words)| words).unwrap_or_default().by();
    let to = Rewind { to: PointId::backup(id), resume: false, again: false };
    api.protector.revert(&by, &name, to).await.map_err(super::snapshots::refused(&error()))?;
    Ok(Json(serde_json::json!({ "v": super::shape::V, "ok": true })))
}
