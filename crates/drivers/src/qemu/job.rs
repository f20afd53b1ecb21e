//! What runs in QEMU for longer than one answer, as it tells of it.

use serde::Deserialize;

/// The command that tells of all jobs.
pub const ASK: &str = "query-jobs";

/// A job.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// As whoever began it called it.
    pub id: String,
    /// How it stands, in QEMU's word.
    pub status: String,
    /// How much of it is done: bytes, where a disk is copied.
    #[serde(default)]
    pub current_progress: u64,
    /// How much there is, of the same.
    #[serde(default)]
    pub total_progress: u64,
    /// Why it failed, once it has.
    #[serde(default)]
    pub error: Option<String>,
}
