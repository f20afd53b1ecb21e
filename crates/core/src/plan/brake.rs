//! The storm brake (I11): when too many VMs look failed at once, the watcher may be the one that is ill.

use crate::policy::BrakePolicy;
use crate::subject::VmName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which VMs looked failed lately, and whether the brake is pulled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Brake {
    failed: BTreeMap<VmName, Timestamp>,
    pulled: Option<Timestamp>,
}

impl Brake {
    /// This VM looks failed. Returns whether that pulled the brake just now.
    pub fn mark(&mut self, now: Timestamp, vm: &VmName, vms: usize, policy: &BrakePolicy) -> bool {
        self.failed.retain(|_, at| now.since(*at) < policy.within);
        self.failed.insert(vm.clone(), now);
        let failed = self.failed.len();
        let many = failed > policy.vms as usize && failed * 100 > policy.percent as usize * vms;
        if many && self.pulled.is_none() {
            self.pulled = Some(now);
            return true;
        }
        false
    }

    /// This VM is none of ours any more.
    pub fn clear(&mut self, vm: &VmName) {
        self.failed.remove(vm);
    }

    /// Since when automatic actions are stopped, if they are.
    #[must_use]
    pub const fn pulled(&self) -> Option<Timestamp> {
        self.pulled
    }

    /// A person, or the recovery of all that were held by it, lets go.
    pub fn release(&mut self) {
        self.pulled = None;
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(n: u32) -> VmName {
        format!("vm{n}").parse().expect("a name")
    }

    #[test]
    fn four_of_ten_at_once_pull_it_and_four_of_a_hundred_do_not() {
        let policy = BrakePolicy::default();
        for (vms, pulls) in [(10, true), (100, false)] {
            let mut brake = Brake::default();
            for n in 0..4 {
                brake.mark(Timestamp::from_secs(u64::from(n)), &vm(n), vms, &policy);
            }
            assert_eq!(brake.pulled().is_some(), pulls, "{vms} VMs");
        }
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let mut brake = Brake::default();
        for n in 0..20 {
            brake.mark(Timestamp::from_secs(u64::from(n) * 30), &vm(n), 20, &BrakePolicy::default());
        }
        assert_eq!(brake.pulled(), None);
    }
}
