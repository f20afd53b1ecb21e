//! Backups over the API: begin one, look how it goes, end it.

use super::routes::Refused;
use super::{Api, Words};
use crate::backups::{BackupDoc, NoBackup};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_core::subject::VmName;

/// Their routes.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/vms/{vm}/backup", get(look).post(begin))
        .route("/api/v1/vms/{vm}/backup/cancel", post(cancel))
}

fn name(vm: &str) -> Result<VmName, Refused> {
    vm.parse().map_err(|cause: holdfast_core::subject::NameError| {
        let error = format!("cannot back up vm `{}`", vm.escape_debug());
        Refused(StatusCode::BAD_REQUEST, error, cause.to_string(), "see `holdfast vm list`".into())
    })
}

async fn begin(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<Words>>,
) -> Result<Json<BackupDoc>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let begun = api.backups.begin(name(&vm)?, words.by()).await;
    begun.map(Json).map_err(|cause| {
        let status = match cause {
            NoBackup::NoVm => StatusCode::NOT_FOUND,
            NoBackup::NotConfigured | NoBackup::Busy | NoBackup::NotRunning => StatusCode::CONFLICT,
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
    if api.backups.cancel(name(&vm)?, words.by()).await {
        return Ok(Json(serde_json::json!({ "v": super::shape::V, "ok": true })));
    }
    Err(none(&vm))
}
