//! Whose disk a backup of ours holds: no snapshot is taken of it until that is over, and then at once.

use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The VMs whose disks are held, and by how many. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    held: Arc<Mutex<BTreeMap<VmName, usize>>>,
    freed: Arc<Notify>,
}

/// The disk of a VM is held until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Held {
    holds: Holds,
    vm: VmName,
}

impl Holds {
    /// Holds the disk of a VM.
    pub fn hold(&self, vm: &VmName) -> Held {
        *self.all().entry(vm.clone()).or_default() += 1;
        Held { holds: self.clone(), vm: vm.clone() }
    }

    /// Whether it is held.
    pub fn is_held(&self, vm: &VmName) -> bool {
        self.all().contains_key(vm)
    }

    /// Waits until one is free again; it need not be waited for already when that comes.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<VmName, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.holds.all();
        let left = all.get(&self.vm).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            all.insert(self.vm.clone(), left);
        } else {
            all.remove(&self.vm);
            self.holds.freed.notify_one();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_held_by_all_who_hold_it_and_its_end_is_told_at_once() {
        let (holds, vm): (Holds, VmName) = (Holds::default(), "db".parse().unwrap());
        let (first, second) = (holds.hold(&vm), holds.clone().hold(&vm));
        drop(first);
        assert!(holds.is_held(&vm) && !holds.is_held(&"web".parse().unwrap()));
        drop(second);
        assert!(!holds.is_held(&vm));
        holds.freed().await;
    }
}
