//! Placeholder until the detector lands.
#![allow(missing_docs)]
use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    last: u64,
    gap: u64,
}
impl Heartbeat {
    pub fn observe(&mut self, at: u64) {
        if self.last > 0 {
            self.gap = at.saturating_sub(self.last);
        }
        self.last = at;
    }
    pub fn deadline(&self) -> u64 {
        self.last + self.gap * 2
    }
    pub fn usual(&self) -> u64 {
        self.gap
    }
    pub fn stretch(&mut self, by: u64) {
        self.last += by;
    }
}
