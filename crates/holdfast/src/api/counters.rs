//! What the devices of a VM have done, as JSON.

use holdfast_core::signal::Counters;
use serde::{Deserialize, Serialize};

/// What the devices of a VM have done since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersDoc {
    /// Disk reads, and disk writes and flushes, finished.
    pub reads: u64,
    pub writes: u64,
    /// Disk requests that failed.
    pub failed: u64,
    /// Guest memory left and in all, in bytes, where its balloon tells.
    pub memory_available: Option<u64>,
    pub memory_total: Option<u64>,
    /// Packets that the guest has sent and was given, on a tap interface.
    pub packets_sent: Option<u64>,
    pub packets_received: Option<u64>,
}

impl From<Counters> for CountersDoc {
    fn from(counters: Counters) -> Self {
        let Counters { reads, writes, failed, .. } = counters;
        let Counters { memory_available, memory_total, packets_sent, packets_received, .. } = counters;
        Self { reads, writes, failed, memory_available, memory_total, packets_sent, packets_received }
    }
}
