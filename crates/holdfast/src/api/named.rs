//! The VM that a path names, and what is said where it names none.

use super::routes::{Api, Refused};
use axum::http::StatusCode;
use holdfast_core::subject::{NameError, VmName};

const HINT: &str = "`holdfast vm list` lists them";

/// The VM of this name, which need not be configured. `error` says what cannot be done where that is no name.
pub(super) fn vm(name: &str, error: impl FnOnce() -> String) -> Result<VmName, Refused> {
    name.parse()
        .map_err(|cause: NameError| Refused(StatusCode::BAD_REQUEST, error(), cause.to_string(), HINT.into()))
}

/// Refuses a VM that is not configured.
pub(super) fn configured(api: &Api, vm: &VmName, error: impl FnOnce() -> String) -> Result<(), Refused> {
    if api.config().vms.contains_key(vm) {
        return Ok(());
    }
    let cause = format!("there is no vm `{vm}`");
    Err(Refused(StatusCode::NOT_FOUND, error(), cause, HINT.into()))
}
