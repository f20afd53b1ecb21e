//! Snapshots by schedule: what is due is taken, what need not be kept is given up, and the engine hears how old the newest
//! is. What is to be done follows from the snapshots that are there, so a restart forgets nothing.

use super::{Protector, Request};
use crate::act::chain;
use crate::clock;
use crate::config::SnapshotsConfig;
use holdfast_core::action::Wish;
use holdfast_core::input::Input;
use holdfast_core::point::{Snapshot, SnapshotId};
use holdfast_core::protect::{Means, may_go};
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(5);
/// What failed is not tried again before this time is over.
const AGAIN: Duration = Duration::from_secs(600);
/// Room that could not be given back is tried again after so long.
const TIDY_AGAIN: Duration = Duration::from_secs(60);
/// So many VMs have one taken at once; the others wait for their turn.
const AT_ONCE: usize = 2;
/// Who asks, for the record (I19).
const BY: &str = "schedule";

/// What is known of each VM.
pub(super) type Watched = BTreeMap<VmName, Watch>;

/// What is known of the points of one VM, besides what is there.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_busy: bool,
    /// When one was last begun.
    tried: Option<Instant>,
    /// When it was last begun to give room back.
    tidied: Option<Instant>,
    /// Why the last one failed.
    trouble: Option<String>,
    /// Why nothing is given up, as it was told.
    kept: Option<String>,
    /// When one that was to go last stayed all the same.
    stayed: Option<Instant>,
    /// What the engine was told.
    pub(super) told: BTreeMap<Means, (Option<i64>, Option<String>)>,
}

impl Watch {
    /// The last try came to nothing as a backup was before it: that is no failure, and it is tried again as soon as that is over.
    fn wait(&mut self) {
        self.tried = None;
    }

    /// Whether the last try is too new for another.
    fn was_tried(&self, every: Duration) -> bool {
        self.tried.is_some_and(|tried| tried.elapsed() < AGAIN.min(every))
    }
}

/// Work on the snapshots of a VM is under way until this is dropped.
pub(super) struct Busy {
    watched: Arc<Mutex<Watched>>,
    vm: VmName,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.entry(self.vm.clone()).or_default().is_busy = false;
    }
}

/// What is to be done for a VM now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Todo {
    take: bool,
    give_up: Vec<SnapshotId>,
}

impl Protector {
    /// Does what is due, until the daemon stops.
    pub(super) async fn keep_schedule(self, stop: CancellationToken) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let config = Arc::clone(&self.config.borrow());
            for (vm, wanted) in &config.vms {
                if let Some(snapshots) = wanted.protect.snapshots {
                    self.mind(vm, &snapshots, &turns).await;
                }
                self.mind_room(vm).await;
            }
            let again = async {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.holds.freed() => {} // before the next backup begins
                }
            };
            if stop.run_until_cancelled(again).await.is_none() {
                return;
            }
        }
    }

    /// Looks after the snapshots of one VM. What takes long is begun, and not waited for.
    async fn mind(&self, vm: &VmName, wanted: &SnapshotsConfig, turns: &Arc<Semaphore>) {
        let Some(driver) = self.driver.snapshots() else { return };
        if self.is_busy(vm) {
            return;
        }
        let listed = match driver.list(vm).await {
            Ok(listed) => listed,
            Err(error) => {
                let told = self.watched().get(vm).and_then(|watch| watch.told.get(&Means::Snapshot)?.0);
                return self.tell_newest(vm, Means::Snapshot, told, Some(chain(&error))).await;
            }
        };
        let known: Vec<Snapshot> = listed.into_iter().map(|listed| listed.snapshot).collect();
        self.tell_of_snapshots(vm, &known).await;
        let todo = self.todo(vm, wanted, &known);
        if todo == Todo::default() || self.merging(vm).is_some() {
            return;
        }
        if let Some(why) = self.holds_off(vm, Means::Snapshot).await {
            tracing::debug!(%vm, why, "what is due waits");
            return;
        }
        let Some(busy) = self.take_up(vm) else { return };
        let (protector, vm, wanted, turns) = (self.clone(), vm.clone(), *wanted, Arc::clone(turns));
        tokio::spawn(async move {
            if let Ok(_turn) = turns.acquire().await {
                protector.do_what_is_due(&vm, &wanted, todo).await;
            }
            drop(busy);
        });
    }

    /// Room that is to be given back, and was not: the daemon that did it was killed, or the VM did not run.
    async fn mind_room(&self, vm: &VmName) {
        let Some(driver) = self.driver.snapshots() else { return };
        let tidied = self.watched().get(vm).and_then(|watch| watch.tidied);
        let is_soon = tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_AGAIN);
        if is_soon || self.is_busy(vm) || !matches!(driver.is_untidy(vm).await, Ok(true)) {
            return;
        }
        match self.holds_off(vm, Means::Snapshot).await {
            Some(why) => tracing::debug!(%vm, why, "the room of deleted snapshots is given back later"),
            None => self.begin_tidy(BY, vm),
        }
    }

    fn is_busy(&self, vm: &VmName) -> bool {
        self.watched().get(vm).is_some_and(|watch| watch.is_busy)
    }

    /// Takes up work on the snapshots of a VM, unless somebody has: until what is returned is dropped, the schedule and those
    /// who give room back leave them alone.
    pub(super) fn take_up(&self, vm: &VmName) -> Option<Busy> {
        let was_busy = mem::replace(&mut self.watched().entry(vm.clone()).or_default().is_busy, true);
        (!was_busy).then(|| Busy { watched: Arc::clone(&self.watched), vm: vm.clone() })
    }

    pub(super) fn note_tidied(&self, vm: &VmName) {
        self.watched().entry(vm.clone()).or_default().tidied = Some(Instant::now());
    }

    fn todo(&self, vm: &VmName, wanted: &SnapshotsConfig, known: &[Snapshot]) -> Todo {
        let mut watched = self.watched();
        let watch = watched.entry(vm.clone()).or_default();
        let newest = newest(known).and_then(age);
        let take = wanted.schedule.is_due(newest) && !watch.was_tried(wanted.schedule.every);
        let stays = watch.stayed.is_some_and(|stayed| stayed.elapsed() < AGAIN);
        match may_go(known, &wanted.keep, clock::wall_micros()) {
            Ok(mut give_up) => {
                watch.kept = None;
                give_up.retain(|_| !stays);
                Todo { take, give_up }
            }
            Err(odd) => {
                let why = odd.to_string();
                if watch.kept.is_none() {
                    tracing::warn!(%vm, why, "no snapshot is given up until that is past, or it is deleted");
                }
                watch.kept = Some(why);
                Todo { take, give_up: Vec::new() }
            }
        }
    }

    async fn do_what_is_due(&self, vm: &VmName, wanted: &SnapshotsConfig, todo: Todo) {
        if !todo.take {
            return self.give_up(vm, &todo.give_up).await;
        }
        self.watched().entry(vm.clone()).or_default().tried = Some(Instant::now());
        let note = "by schedule".to_owned();
        let request = Request { memory: wanted.memory, freeze: None, note, scheduled: true };
        let taken = self.take(BY, vm, request).await;
        let trouble = taken.as_ref().err().map(|error| chain(error));
        if let Some(why) = trouble.as_ref().filter(|_| self.holds.is_held(vm)) {
            tracing::debug!(%vm, why, "a backup began meanwhile: what is due waits for its end");
            return self.watched().entry(vm.clone()).or_default().wait();
        }
        match (&taken, &trouble) {
            (Ok(taken), _) => {
                let (snapshot, stall) = (taken.snapshot.id.0, taken.stall.as_secs_f64());
                tracing::info!(%vm, snapshot, stall, "a snapshot was taken by schedule");
            }
            (Err(_), why) => tracing::warn!(%vm, why, "no snapshot was taken by schedule"),
        }
        if trouble.is_some() {
            self.tidy(BY, vm).await; // a merge that a daemon before us left may be in the way
        }
        self.watched().entry(vm.clone()).or_default().trouble = trouble;
        let Some(driver) = self.driver.snapshots() else { return };
        let Ok(listed) = driver.list(vm).await else { return };
        let known: Vec<Snapshot> = listed.into_iter().map(|listed| listed.snapshot).collect();
        self.tell_of_snapshots(vm, &known).await;
        let todo = self.todo(vm, wanted, &known); // what the new one takes the place of
        self.give_up(vm, &todo.give_up).await;
    }

    /// Each is taken from the engine first, so that nobody goes back to it while its files go.
    async fn give_up(&self, vm: &VmName, ids: &[SnapshotId]) {
        let Some(driver) = self.driver.snapshots() else { return };
        let mut gone = Vec::new();
        for id in ids {
            if let Err(why) = self.command(BY, vm, Wish::GiveUp(*id)).await {
                tracing::debug!(%vm, snapshot = id.0, %why, "a snapshot that may go stays for now");
                self.watched().entry(vm.clone()).or_default().stayed = Some(Instant::now());
                break;
            }
            if let Err(error) = driver.forget(vm, *id, super::snapshots::FORGET).await {
                let error = chain(&error);
                tracing::warn!(%vm, snapshot = id.0, error, "a snapshot that may go is still there");
                self.watched().entry(vm.clone()).or_default().stayed = Some(Instant::now());
                break;
            }
            gone.push(id.0);
        }
        if ids.is_empty() {
            return;
        }
        self.forget_told(vm); // whatever the engine was told, it is told what is there
        self.tell(vm).await;
        if !gone.is_empty() {
            tracing::info!(%vm, ?gone, "snapshots that need not be kept were given up");
            self.tidy(BY, vm).await;
        }
    }

    /// Why no point is made of the VM by schedule just now.
    pub async fn holds_off(&self, vm: &VmName, means: Means) -> Option<String> {
        if means == Means::Snapshot && self.holds.is_held(vm) {
            return Some("its backup is under way".into());
        }
        let of = vm.clone();
        let asked = self.inbox.look(move |desk| desk.engine.holds_off(&of, means)).await;
        asked.unwrap_or_else(|stopping| Some(stopping.to_string()))
    }

    async fn tell_of_snapshots(&self, vm: &VmName, known: &[Snapshot]) {
        let trouble = self.watched().get(vm).and_then(|watch| watch.trouble.clone());
        let taken = newest(known).map(|newest| newest.taken);
        self.tell_newest(vm, Means::Snapshot, taken, trouble).await;
    }

    /// Tells the engine when the newest point was taken (microseconds since 1970), and why there is no newer one, as far as is
    /// known, if that is another thing than it was. `failure` is that of the last try.
    pub async fn tell_newest(&self, vm: &VmName, means: Means, taken: Option<i64>, failure: Option<String>) {
        let under_way = match means {
            Means::Snapshot => "none is taken while its backup is under way",
            Means::Backup => "one is under way",
        };
        let trouble = failure
            .map(|why| format!("the last try: {why}"))
            .or_else(|| self.holds.is_held(vm).then(|| under_way.to_owned()))
            .or_else(|| taken.and_then(from_the_future).map(ToOwned::to_owned));
        let is_new = {
            let mut watched = self.watched();
            let told = &mut watched.entry(vm.clone()).or_default().told;
            told.insert(means, (taken, trouble.clone())) != Some((taken, trouble.clone()))
        };
        let age = taken
            .and_then(|taken| u64::try_from(clock::wall_micros() - taken).ok())
            .map(Duration::from_micros);
        let input = Input::Newest { vm: vm.clone(), means, age, trouble };
        if is_new && self.inbox.send(input).await.is_err() {
            tracing::debug!(%vm, "the daemon is stopping");
        }
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That its date says nothing of its age. Without the time that is left, as it would be told each time anew.
fn from_the_future(taken: i64) -> Option<&'static str> {
    clock::ahead(taken as f64 / 1e6)
        .map(|_| "the newest is dated in the future: the clock is wrong, or was when it was taken")
}

/// The newest that one could go back to: by its number, whatever the clock said.
fn newest(known: &[Snapshot]) -> Option<&Snapshot> {
    known.iter().filter(|snapshot| !snapshot.set_aside).max_by_key(|snapshot| snapshot.id)
}

/// How old it is; nothing if it seems to come from the future.
fn age(snapshot: &Snapshot) -> Option<Duration> {
    u64::try_from(clock::wall_micros() - snapshot.taken).ok().map(Duration::from_micros)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::decide::Inbox;
    use crate::sense::logs::testing::FakeGuest;
    use holdfast_core::protect::Keep;
    use holdfast_core::protect::Schedule;

    /// One whose driver takes no snapshot, and with nobody who decides.
    fn protector() -> Protector {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holdfast.toml");
        std::fs::write(folder.path().join("db.raw"), [0; 512]).unwrap();
        std::fs::write(&path, "state = \"state\"\n[vm.db]\ndisk = \"db.raw\"\n").unwrap();
        let config = Arc::new(Config::load(&path).unwrap().config);
        let (merging, told, saved, watched, holds) = Default::default();
        let (inbox, config) = (Inbox::new().0, tokio::sync::watch::channel(config).1);
        Protector { driver: FakeGuest::away(), inbox, config, merging, told, saved, watched, holds }
    }

    fn hourly() -> SnapshotsConfig {
        let hour = holdfast_core::time::Duration::from_secs(3_600);
        let schedule = Schedule { every: hour, stale_after: hour * 2 };
        SnapshotsConfig { schedule, keep: Keep::default(), memory: false }
    }

    #[tokio::test]
    async fn a_newest_that_is_dated_in_the_future_is_told_with_that_and_once() {
        let (protector, vm): (_, VmName) = (protector(), "db".parse().unwrap());
        let told = |means| protector.watched()[&vm].told[&means].clone();
        let taken = clock::wall_micros();
        for means in [Means::Snapshot, Means::Backup] {
            protector.tell_newest(&vm, means, Some(taken), None).await;
            assert_eq!(told(means), (Some(taken), None));
            let later = Some(taken + 3_600_000_000);
            protector.tell_newest(&vm, means, later, None).await;
            let (newest, trouble) = told(means);
            assert!(newest == later && trouble.as_ref().is_some_and(|why| why.contains("in the future")));
            protector.tell_newest(&vm, means, later, Some("it is away".into())).await;
            assert_eq!(
                told(means).1.as_deref(),
                Some("the last try: it is away"),
                "what failed matters more"
            );
        }
        let _held = protector.hold(&vm);
        protector.tell_newest(&vm, Means::Snapshot, Some(taken), None).await;
        assert_eq!(told(Means::Snapshot).1.unwrap(), "none is taken while its backup is under way");
        protector.tell_newest(&vm, Means::Backup, Some(taken), None).await;
        assert_eq!(told(Means::Backup).1.unwrap(), "one is under way");
    }

    #[tokio::test]
    async fn what_a_backup_is_in_the_way_of_is_tried_as_soon_as_that_is_over_and_is_no_trouble() {
        let (protector, vm): (_, VmName) = (protector(), "db".parse().unwrap());
        let due = || Todo { take: true, give_up: Vec::new() };
        let held = protector.hold(&vm);
        assert_eq!(
            protector.holds_off(&vm, Means::Snapshot).await,
            Some("its backup is under way".into()),
            "nothing is tried that is refused"
        );
        protector.do_what_is_due(&vm, &hourly(), due()).await; // one that began beside it
        assert!(protector.watched()[&vm].trouble.is_none());
        assert!(protector.todo(&vm, &hourly(), &[]).take, "it is due now, and not ten minutes later");
        drop(held);
        assert_ne!(protector.holds_off(&vm, Means::Snapshot).await, Some("its backup is under way".into()));
        protector.holds.freed().await; // so the schedule does not sleep until its next look

        protector.do_what_is_due(&vm, &hourly(), due()).await;
        assert!(protector.watched()[&vm].trouble.is_some(), "what fails by itself is trouble");
        assert!(!protector.todo(&vm, &hourly(), &[]).take, "and not tried again at once");
    }
}
