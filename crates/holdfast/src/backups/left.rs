//! What a backup left in the QEMU of its VM, as it or the daemon was cut off: it is taken down as soon as QEMU answers, and
//! not only by the next backup. Until then a merge of snapshots is refused, and the guest's writes take a longer way.

use super::{Asked, Keeper};
use crate::act::chain;
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, warn};

/// One try may take so long.
const CLEAR: Duration = Duration::from_secs(30);

/// The VMs in which something may be left.
#[derive(Debug, Default)]
pub struct Left(BTreeMap<VmName, Try>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    /// None yet.
    First,
    /// Others failed, which was told.
    Next,
    UnderWay {
        is_first: bool,
    },
}

impl Left {
    /// Something may be left in these, whatever is known of them.
    pub fn note(&mut self, vms: impl IntoIterator<Item = VmName>) {
        for vm in vms {
            self.0.entry(vm).or_insert(Try::First);
        }
    }

    /// Those that may be cleared now; it is under way from here on.
    fn begin(&mut self, may: impl Fn(&VmName) -> bool) -> Vec<VmName> {
        let mut begun = Vec::new();
        for (vm, known) in &mut self.0 {
            let is_first = *known == Try::First;
            if !matches!(known, Try::UnderWay { .. }) && may(vm) {
                *known = Try::UnderWay { is_first };
                begun.push(vm.clone());
            }
        }
        begun
    }

    /// A try is over. Whether its failure is to be told: the first is.
    fn end(&mut self, vm: &VmName, cleared: bool) -> bool {
        let known = self.0.remove(vm);
        if !cleared {
            self.0.insert(vm.clone(), Try::Next);
        }
        !cleared && known == Some(Try::UnderWay { is_first: true })
    }
}

impl Keeper {
    /// Takes it down where a VM runs, and no backup of it is under way.
    pub(super) fn clear_left(&mut self) {
        let is_idle = |vm: &VmName| self.runs.get(vm).is_none_or(|run| run.doc.state.is_over());
        let may = |vm: &VmName| is_idle(vm) && self.driver.places(vm).pid.is_some();
        for vm in self.left.begin(may) {
            let (driver, inbox) = (Arc::clone(&self.driver), self.inbox.clone());
            let held = self.protector.hold(&vm);
            self.tasks.spawn(async move {
                let cleared = driver.clear_backup(&vm, CLEAR).await.map_err(|error| chain(&error));
                drop(held);
                let _stopping = inbox.send(Asked::Cleared { vm, cleared }).await;
            });
        }
    }

    pub(super) fn hear_cleared(&mut self, vm: &VmName, cleared: Result<(), String>) {
        let is_news = self.left.end(vm, cleared.is_ok());
        match cleared {
            Ok(()) => debug!(%vm, "nothing of an earlier backup is left in its QEMU"),
            Err(why) if is_news => {
                warn!(%vm, why, "what an earlier backup may have left is taken down later")
            }
            Err(why) => debug!(%vm, why, "what an earlier backup may have left is still not taken down"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_until_it_is_gone_and_told_once() {
        let [vm, other]: [VmName; 2] = ["db", "web"].map(|name| name.parse().unwrap());
        let mut left = Left::default();
        left.note([vm.clone(), other.clone()]);
        assert_eq!(left.begin(|name| *name == vm), std::slice::from_ref(&vm), "the other does not run");
        assert!(left.begin(|name| *name == vm).is_empty(), "one try at a time");
        left.note([vm.clone()]);
        assert!(left.begin(|name| *name == vm).is_empty(), "what is noted again meanwhile is under way");
        assert!(left.end(&vm, false), "the first failure is told");
        assert_eq!(left.begin(|_| true), [vm.clone(), other.clone()]);
        assert!(!left.end(&vm, false), "the second is not");
        assert!(!left.end(&other, true));
        assert_eq!(left.begin(|_| true), std::slice::from_ref(&vm));
        assert!(!left.end(&vm, true));
        assert!(left.begin(|_| true).is_empty());
    }
}
