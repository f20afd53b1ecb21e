//! The engine is told which snapshots there are: only what it knows can it go back to.

use super::Protector;
use holdfast_core::input::Input;
use holdfast_core::point::{Known, Snapshot};
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether anything has changed: snapshots are also gone back to, and files are removed by hand.
const EVERY: Duration = Duration::from_secs(15);

/// What of a VM's snapshots the engine was told: their ages pass by themselves.
pub(super) type Told = BTreeMap<VmName, Vec<Snapshot>>;

impl Protector {
    /// Tells the engine of all snapshots as they change, until the daemon stops.
    pub(super) async fn keep_telling(self, stop: CancellationToken) {
        loop {
            let vms: Vec<VmName> = self.config.borrow().vms.keys().cloned().collect();
            for vm in vms {
                self.tell(&vm).await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// The engine knows of something else than it was told.
    pub(super) fn forget_told(&self, vm: &VmName) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(vm);
    }

    /// Tells the engine of a VM's snapshots, if they are others than before.
    pub(super) async fn tell(&self, vm: &VmName) {
        let Some(snapshots) = self.driver.snapshots() else { return };
        let listed = match snapshots.list(vm).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%vm, %error, "its snapshots cannot be listed");
                return;
            }
        };
        let now: Vec<Snapshot> = listed.into_iter().map(|listed| listed.snapshot).collect();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let before = told.insert(vm.clone(), now.clone());
            if before.as_ref() == Some(&now) || (before.is_none() && now.is_empty()) {
                return;
            }
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let known = now.iter().filter(|snapshot| !snapshot.set_aside).map(|snapshot| known(snapshot, at));
        let input = Input::Points { vm: vm.clone(), known: known.collect() };
        if self.inbox.send(input).await.is_err() {
            tracing::debug!(%vm, "the daemon is stopping");
        }
    }
}

/// A snapshot as decisions need it. What was set aside is none: nobody goes back there by himself.
fn known(snapshot: &Snapshot, now: i64) -> Known {
    let age = u64::try_from(now - snapshot.taken).map_or(Duration::MAX, Duration::from_micros);
    Known {
        id: snapshot.id,
        grade: snapshot.grade(),
        resumable: snapshot.memory.as_ref().is_some_and(|memory| memory.resumed == 0),
        age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::point::{Grade, Memory, SnapshotId};

    fn snapshot(taken: i64, resumed: Option<u32>) -> Snapshot {
        let memory = resumed.map(|resumed| Memory { bytes: 1, machine: String::new(), resumed });
        let (id, note) = (SnapshotId(3), String::new());
        Snapshot { id, taken, memory, frozen: false, set_aside: false, scheduled: false, note, trial: None }
    }

    #[test]
    fn a_memory_is_offered_once_and_what_comes_from_the_future_is_as_old_as_can_be() {
        let fresh = known(&snapshot(1_000_000, Some(0)), 3_000_000);
        assert_eq!(
            (fresh.grade, fresh.resumable, fresh.age),
            (Grade::Consistent, true, Duration::from_secs(2))
        );
        assert!(!known(&snapshot(1, Some(1)), 2).resumable);
        let odd = known(&snapshot(9, None), 2);
        assert_eq!((odd.grade, odd.resumable, odd.age), (Grade::Taken, false, Duration::MAX));
    }
}
