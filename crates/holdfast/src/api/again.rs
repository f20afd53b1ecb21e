//! What is asked before a person has a VM ended that is to be started again: one that could not be is not ended for that.

use super::routes::{Api, Refused};
use axum::http::StatusCode;
use holdfast_core::point::SnapshotId;
use holdfast_core::subject::VmName;
use holdfast_drivers::DriverError;

/// It starts from the disk that it has.
pub(super) async fn refuse_restart(api: &Api, vm: &VmName, error: &str) -> Result<(), Refused> {
    let hint = format!("it runs on; `holdfast vm stop {vm}` ends it all the same");
    refuse(would_start(api, vm).await, error, hint)
}

/// What a drill breaks may need a restart to be mended.
pub(super) async fn refuse_drill(api: &Api, vm: &VmName, error: &str) -> Result<(), Refused> {
    let hint = "nothing was injected, and it runs on: mend that first";
    refuse(would_start(api, vm).await, error, hint.into())
}

/// Something else takes the place of its disk: a snapshot, or what is looked for before it is ended.
pub(super) async fn refuse_other_disk(
    api: &Api,
    vm: &VmName,
    to: Option<SnapshotId>,
    error: &str,
) -> Result<(), Refused> {
    let mut would = told(api.driver.may_start(vm).await);
    if let (Ok(()), Some(id)) = (&would, to) {
        would = has_backup(api, vm, Some(id)).await;
    }
    refuse(would, error, "nothing was done to it".into())
}

async fn would_start(api: &Api, vm: &VmName) -> Result<(), String> {
    told(api.driver.may_restart(vm).await)?;
    has_backup(api, vm, None).await
}

/// What it needs of a backup still can be had. Of one that does not run there is nothing to end: its start waits.
async fn has_backup(api: &Api, vm: &VmName, from: Option<SnapshotId>) -> Result<(), String> {
    if api.driver.places(vm).pid.is_none() {
        return Ok(());
    }
    api.restorer.may_start(vm, from).await
}

fn told(asked: Result<(), DriverError>) -> Result<(), String> {
    match asked {
        Ok(()) | Err(DriverError::NoSuchVm(_)) => Ok(()), // the engine says which there are
        Err(error) => Err(crate::act::why(error)),
    }
}

fn refuse(would: Result<(), String>, error: &str, hint: String) -> Result<(), Refused> {
    let refused = |why| {
        let cause = format!("it would not start again: {why}");
        Refused(StatusCode::CONFLICT, error.to_owned(), cause, hint)
    };
    would.map_err(refused)
}
