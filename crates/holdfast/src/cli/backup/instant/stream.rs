//! The QEMU of a VM copies what its disk stands on into it, while the guest runs.
//!
//! Before QEMU takes the name of the point out of the head of the disk, all that was copied is brought to the disk: a QEMU or a
//! host that is killed in that moment leaves a disk that still names the point, and never one with holes.

use super::say_aside;
use crate::act::chain;
use holdfast_drivers::qemu::job::{ASK, Job};
use holdfast_drivers::qemu::qmp::{Qmp, QmpError};
use holdfast_drivers::qemu::snapshot::node_of;
use holdfast_drivers::qemu::untrusted::tame;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The job in QEMU.
const JOB: &str = "hf-instant";
/// How long one answer of QEMU may take; a flush writes all that was copied.
const ANSWER: Duration = Duration::from_secs(10);
const FLUSH: Duration = Duration::from_secs(300);
/// How often it is looked how far it is, and whether the VM has been started.
const POLL: Duration = Duration::from_millis(250);
/// After something went wrong.
const AGAIN: Duration = Duration::from_secs(2);

/// Why it did not end well. Whoever reads the head of the disk knows more.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("the QEMU there does not have this disk open")]
    Other,
    #[error("QEMU says: {0}")]
    Said(String),
}

/// Has the disk, under one of these names, filled by the QEMU whose control socket this is, at most `rate` bytes a second (0: as fast as it goes). Returns when that
/// has ended, however; a VM that is off is waited for.
pub(in super::super) async fn stream(qmp: &Path, disk: &[&Path], rate: u64, bar: &ProgressBar) {
    let Ok((qmp, _events)) = Qmp::connect(qmp, ANSWER).await else {
        return tokio::time::sleep(POLL).await; // it is off
    };
    match fill(&qmp, disk, rate, bar).await {
        Err(error) if !qmp.has_ended() => {
            let why = tame(&chain(&error), 300);
            say_aside(&format!("the disk is not filled, and that is tried again: {why}"));
            tokio::time::sleep(AGAIN).await;
        }
        Ok(()) | Err(_) => tokio::time::sleep(POLL).await, // it may have ended before all was there
    }
}

async fn fill(qmp: &Qmp, disk: &[&Path], rate: u64, bar: &ProgressBar) -> Result<(), Trouble> {
    let nodes = qmp.call("query-named-block-nodes", json!({ "flat": true }), ANSWER).await?;
    let nodes: Vec<_> = nodes;
    let node = disk.iter().find_map(|path| node_of(&nodes, path)).ok_or(Trouble::Other)?;
    if job(qmp).await?.is_some() {
        // One that has nothing left to do takes no speed any more.
        let _ = qmp.run("block-job-set-speed", json!({ "device": JOB, "speed": rate }), ANSWER).await;
    } else {
        let words = json!({
            "job-id": JOB, "device": node, "speed": rate, "on-error": "report", "auto-finalize": false,
        });
        qmp.run("block-stream", words, ANSWER).await?;
    }
    // It is gone as soon as it has ended: QEMU 7.2 crashes if its nodes are asked for while an ended job is kept.
    while let Some(job) = job(qmp).await? {
        bar.set_length(job.total_progress);
        bar.set_position(job.current_progress);
        match job.status.as_str() {
            "pending" => {
                flush(qmp, node).await?;
                qmp.run("job-finalize", json!({ "id": JOB }), ANSWER).await?;
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
    Ok(())
}

async fn job(qmp: &Qmp) -> Result<Option<Job>, QmpError> {
    let jobs: Vec<Job> = qmp.call(ASK, Value::Null, ANSWER).await?;
    Ok(jobs.into_iter().find(|job| job.id == JOB))
}

/// Brings all that is written to the disk. QEMU has no other word for it.
async fn flush(qmp: &Qmp, node: &str) -> Result<(), Trouble> {
    let words = json!({ "command-line": format!("qemu-io {node} flush") });
    let said: String = qmp.call("human-monitor-command", words, FLUSH).await?;
    if said.trim().is_empty() { Ok(()) } else { Err(Trouble::Said(said)) }
}
