//! The engine is told which restore points there are: only what it knows can it go back to.

use super::Protector;
use crate::clock;
use holdfast_core::input::Input;
use holdfast_core::point::{Grade, Known, PointId, Snapshot};
use holdfast_core::subject::VmName;
use holdfast_core::written::Marks;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether anything has changed: snapshots are also gone back to, and files are removed by hand.
const EVERY: Duration = Duration::from_secs(15);

/// What of a VM's restore points the engine was told: their ages pass by themselves. Nothing, where it may know of others.
pub(super) type Told = BTreeMap<VmName, Option<(Vec<Snapshot>, Vec<Saved>)>>;
/// What is known of the backups of VMs.
pub(super) type AllSaved = BTreeMap<VmName, Vec<Saved>>;

/// A backup, as its repository tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    id: PointId,
    /// When it was taken, in microseconds since 1970.
    taken: i64,
    grade: Grade,
    doubtful: bool,
    /// What the applications had written by then.
    written: Marks,
}

impl Saved {
    /// Those of a VM, oldest first, as `backup list --json` tells them. Those that are hurt are none. One that looked as if
    /// all of it had been encrypted is doubtful, and so are those after it, until the application of one was seen to answer.
    pub fn all(listed: &[serde_json::Value]) -> Vec<Self> {
        let mut doubtful = false;
        let saved = listed.iter().filter_map(|point| {
            let number = point["id"].as_str()?.rsplit_once('/')?.1.parse().ok()?;
            let grade = Grade::named(point["grade"].as_str().unwrap_or_default());
            doubtful = (doubtful || !point["warning"].is_null()) && grade != Grade::AppChecked;
            let taken = (point["taken"].as_f64()? * 1e6) as i64;
            let written = Marks::deserialize(&point["written"]).unwrap_or_default();
            let (id, is_whole) = (PointId::backup(number), point["hurt"] == false);
            is_whole.then_some(Self { id, taken, grade, doubtful, written })
        });
        saved.collect()
    }
}

impl Protector {
    /// Tells the engine of all restore points as they change, until the daemon stops; and of all of them anew where the
    /// configuration changed, as it has forgotten those of a VM that was left out meanwhile.
    pub(super) async fn keep_telling(self, stop: CancellationToken) {
        let mut config = self.config.clone();
        loop {
            let vms: Vec<VmName> = config.borrow_and_update().vms.keys().cloned().collect();
            for vm in vms {
                self.tell(&vm).await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
                Ok(()) = config.changed() => self.forget_all_told(),
            }
        }
    }

    fn forget_all_told(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|told| *told = None);
        self.watched().values_mut().for_each(|watch| watch.told.clear());
    }

    /// The engine knows of something else than it was told.
    pub(super) fn forget_told(&self, vm: &VmName) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(vm.clone(), None);
    }

    /// These are the backups of a VM now.
    pub async fn tell_saved(&self, vm: &VmName, saved: Vec<Saved>) {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).insert(vm.clone(), saved);
        self.tell(vm).await;
    }

    /// Tells the engine of a VM's restore points, if they are others than before.
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
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).get(vm).cloned();
        let saved = saved.unwrap_or_default();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let all = Some((now.clone(), saved.clone()));
            let before = told.insert(vm.clone(), all.clone());
            if before.as_ref() == Some(&all) || (before.is_none() && now.is_empty() && saved.is_empty()) {
                return;
            }
        }
        let at = clock::wall_micros();
        let known = now.iter().filter(|snapshot| !snapshot.set_aside).map(|snapshot| known(snapshot, at));
        let known = known.chain(saved.iter().map(|saved| saved.known(at)));
        let input = Input::Points { vm: vm.clone(), known: known.collect() };
        if self.inbox.send(input).await.is_err() {
            tracing::debug!(%vm, "the daemon is stopping");
        }
    }
}

/// A snapshot as decisions need it. What was set aside is none: nobody goes back there by himself.
fn known(snapshot: &Snapshot, now: i64) -> Known {
    Known {
        id: snapshot.id.into(),
        grade: snapshot.grade(),
        resumable: snapshot.memory.as_ref().is_some_and(|memory| memory.resumed == 0),
        doubtful: false,
        age: age(snapshot.taken, now),
        written: snapshot.written.clone(),
    }
}

/// What seems to come from the future is as old as can be.
fn age(taken: i64, now: i64) -> Duration {
    u64::try_from(now - taken).map_or(Duration::MAX, Duration::from_micros)
}

impl Saved {
    fn known(&self, now: i64) -> Known {
        let Self { id, taken, grade, doubtful, ref written } = *self;
        let (age, written) = (age(taken, now), written.clone());
        Known { id, grade, resumable: false, doubtful, age, written }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::decide::{Inbox, Message};
    use holdfast_core::point::{Memory, SnapshotId};
    use holdfast_core::protect::Means;
    use holdfast_drivers::qemu::Qemu;
    use serde_json::json;
    use std::sync::Arc;
    use tokio::sync::{mpsc, watch};

    /// The restore points of VM `a` that the engine is told of next.
    async fn told_next(sent: &mut mpsc::Receiver<Message>) -> Vec<PointId> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), sent.recv()).await;
            let next = next.expect("the engine is told").unwrap();
            if let Message::Input(Input::Points { vm, known }) = next
                && vm.as_str() == "a"
            {
                return known.iter().map(|known| known.id).collect();
            }
        }
    }

    #[tokio::test]
    async fn a_vm_that_was_left_out_of_the_configuration_and_is_back_has_its_restore_points_again() {
        let config = |text: &str| Arc::new(Config::parsed(text));
        let with = config("[vm.a]\ndisk = \"a.img\"\n[vm.b]\ndisk = \"b.img\"\n");
        let (send, receive) = watch::channel(Arc::clone(&with));
        let (inbox, mut sent) = Inbox::new();
        let (merging, told, saved, watched, holds) = Default::default();
        let place = tempfile::tempdir().unwrap();
        let specs = with.vms.values().map(|vm| vm.spec.clone()).collect();
        let at = |name: &str| place.path().join(name);
        let driver = Qemu::open(specs, BTreeMap::new(), at("run"), at("evidence")).await.unwrap();
        let driver = Arc::new(driver);
        let protector = Protector { driver, inbox, config: receive, merging, told, saved, watched, holds };
        let (stop, vm): (_, VmName) = (CancellationToken::new(), "a".parse().unwrap());
        let backup = json!({ "id": "a/3", "taken": 7.5, "grade": "booted", "hurt": false });
        protector.tell_saved(&vm, Saved::all(&[backup])).await;
        assert_eq!(told_next(&mut sent).await, [PointId::backup(3)]);
        protector.tell_newest(&vm, Means::Backup, Some(7), None).await;
        let telling = tokio::spawn(protector.clone().keep_telling(stop.clone()));
        tokio::task::yield_now().await;
        send.send_replace(config("[vm.b]\ndisk = \"b.img\"\n")); // the engine forgets what it knows of it
        tokio::task::yield_now().await;
        send.send_replace(with);
        assert_eq!(told_next(&mut sent).await, [PointId::backup(3)]);
        assert!(protector.watched()[&vm].told.is_empty(), "how old the newest is, is told anew, too");
        stop.cancel();
        telling.await.unwrap();
    }

    fn snapshot(taken: i64, resumed: Option<u32>) -> Snapshot {
        let memory = resumed.map(|resumed| Memory { bytes: 1, resumed, ..Memory::default() });
        let (id, note, written) = (SnapshotId(3), String::new(), Marks::new());
        let (frozen, set_aside, scheduled, trial) = (false, false, false, None);
        Snapshot { id, taken, memory, frozen, set_aside, scheduled, note, trial, written }
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

    #[test]
    fn what_may_be_encrypted_is_doubtful_until_one_was_seen_to_answer_and_what_is_hurt_is_none() {
        let point = |id: u64, grade: &str, warning: Option<&str>, hurt: bool| json!({ "id": format!("db/{id}"), "taken": 7.5, "grade": grade, "warning": warning, "hurt": hurt });
        let all = Saved::all(&[
            point(1, "app-checked", None, false),
            point(2, "taken", None, true),
            point(3, "consistent", Some("dense"), false),
            point(4, "booted", None, false),
            point(5, "app-checked", None, false),
            point(6, "taken", None, false),
            json!({ "id": "../etc", "taken": 1.0, "hurt": false }),
        ]);
        let told: Vec<(PointId, Grade, bool)> = all.iter().map(|s| (s.id, s.grade, s.doubtful)).collect();
        let backup = PointId::backup;
        assert_eq!(
            told,
            [
                (backup(1), Grade::AppChecked, false),
                (backup(3), Grade::Consistent, true),
                (backup(4), Grade::Booted, true),
                (backup(5), Grade::AppChecked, false),
                (backup(6), Grade::Taken, false),
            ]
        );
        assert_eq!(all[0].known(8_000_000).age, Duration::from_millis(500));
    }
}
