//! Proofs of restore points over the API: begin one, look how it goes, end it.

use super::routes::Refused;
use super::{Api, Words, named};
use crate::proofs::{ProofDoc, ProofError};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_core::subject::VmName;
use serde::{Deserialize, Serialize};

/// What a person says about a proof.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProofWords {
    /// Of this point; `null`: of the newest.
    pub point: Option<String>,
    /// Who asks.
    pub by: String,
}

/// Their routes.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/vms/{vm}/proof", get(look).post(begin))
        .route("/api/v1/vms/{vm}/proof/cancel", post(cancel))
}

fn name(vm: &str) -> Result<VmName, Refused> {
    named::vm(vm, || format!("cannot prove a point of vm `{}`", vm.escape_debug()))
}

async fn begin(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<ProofWords>>,
) -> Result<Json<ProofDoc>, Refused> {
    let ProofWords { point, by } = words.map(|Json(words)| words).unwrap_or_default();
    let by = Words { by: (!by.is_empty()).then_some(by), ..Words::default() }.by();
    let begun = api.proofs.begin(name(&vm)?, point, by).await;
    begun.map(Json).map_err(|cause| {
        let status = match cause {
            ProofError::NoVm | ProofError::NoPoint(_) => StatusCode::NOT_FOUND,
            ProofError::Busy(_) | ProofError::Unknown(_) => StatusCode::CONFLICT,
            ProofError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refused(status, format!("cannot prove a point of vm `{vm}`"), cause.to_string(), cause.hint(&vm))
    })
}

fn none(vm: &str) -> Refused {
    let error = format!("vm `{vm}` has no proof to tell of");
    Refused(
        StatusCode::NOT_FOUND,
        error,
        "none began since the daemon did".into(),
        format!("begin one: `holdfast prove {vm}`"),
    )
}

async fn look(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<ProofDoc>, Refused> {
    let name = name(&vm)?;
    api.proofs.look(name).await.map(Json).ok_or_else(|| none(&vm))
}

async fn cancel(
    State(api): State<Api>,
    Path(vm): Path<String>,
    words: Option<Json<Words>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    if api.proofs.cancel(name(&vm)?, words.by()).await {
        return Ok(Json(serde_json::json!({ "v": super::shape::V, "ok": true })));
    }
    Err(none(&vm))
}
