//! Backups by schedule: those that are due begin, what need not be kept is pruned afterwards, and the engine hears how old
//! the newest are. What is due follows from the points that are there.

use super::prune::{Prune, PruneDoc};
use super::run::{self, News};
use super::{Asked, Keeper, SCHEDULE, due};
use crate::config::{Config, Limits, RepositoryConfig};
use crate::protect::Saved;
use holdfast_core::protect::Means;
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::Qemu;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// So often, where nothing is known to have changed.
const LIST_AGAIN: Duration = Duration::from_secs(300);

impl Keeper {
    /// Looks whether anything is to be done.
    pub(super) async fn look(&mut self) {
        let config = Arc::clone(&self.config.borrow());
        self.clear_left();
        self.mind_repositories(&config);
        self.list_for_engine(&config);
        for (vm, wanted) in &config.vms {
            let Some(backup) = &wanted.protect.backup else { continue };
            let Some(schedule) = backup.schedule else { continue };
            if let Some((taken, trouble)) = self.due.newest(vm) {
                self.protector.tell_newest(vm, Means::Backup, taken, trouble).await;
            }
            self.begin_if_due(&config, vm, schedule.every).await;
        }
        self.begin_prunes(&config);
    }

    /// What is known of the backups of a VM is of the repository that they went to: where they go to another one, or nowhere, it
    /// is forgotten, and nobody goes back to them.
    fn mind_repositories(&mut self, config: &Config) {
        let of = |vm: &VmName| Some((vm.clone(), config.backup_of(vm)?.1.clone()));
        let now = config.vms.keys().filter_map(of).collect();
        if now == self.sources {
            return;
        }
        let before = mem::replace(&mut self.sources, now);
        for (vm, _) in before.into_iter().filter(|(vm, to)| self.sources.get(vm) != Some(to)) {
            self.due.forget(&vm);
            self.listed.remove(&vm);
            let protector = self.protector.clone();
            self.tasks.spawn(async move { protector.tell_saved(&vm, Vec::new()).await });
        }
    }

    /// Whether its backups go there still.
    fn is_source(&self, vm: &VmName, from: &RepositoryConfig) -> bool {
        self.config.borrow().backup_of(vm).is_some_and(|(_, now)| now == from)
    }

    /// The engine knows what there is to go back to: the points are listed when they have changed, and now and then, as others
    /// may change them, too.
    fn list_for_engine(&mut self, config: &Arc<Config>) {
        let due = |vm: &VmName| self.listed.get(vm).is_none_or(|at| at.elapsed() >= LIST_AGAIN);
        let with = config.vms.iter().filter(|(vm, known)| known.protect.backup.is_some() && due(vm));
        let vms: Vec<VmName> = with.map(|(vm, _)| vm.clone()).collect();
        for vm in vms {
            self.listed.insert(vm.clone(), Instant::now());
            let Some((_, from)) = config.backup_of(&vm) else { continue };
            let (from, config, inbox) = (from.clone(), Arc::clone(config), self.inbox.clone());
            self.tasks.spawn(async move {
                let listed = super::points(&config, &vm, super::LIST).await;
                let _stopping = inbox.send(Asked::Listed { vm, from, listed }).await;
            });
        }
    }

    /// What cannot be listed now may still be there: what was known stays.
    pub(super) fn hear_list(
        &mut self,
        vm: VmName,
        from: &RepositoryConfig,
        listed: Result<Vec<serde_json::Value>, String>,
    ) {
        if !self.is_source(&vm, from) {
            return;
        }
        let is_news = self.unlisted.is_news(vm.as_str(), listed.as_ref().err().map(String::as_str));
        match listed {
            Ok(points) => {
                if is_news {
                    info!(%vm, "its backups can be listed again");
                }
                let (protector, saved) = (self.protector.clone(), Saved::all(&points));
                self.tasks.spawn(async move { protector.tell_saved(&vm, saved).await });
            }
            Err(why) if is_news => {
                warn!(%vm, why, "its backups cannot be listed: newer ones are not gone back to, nor tried");
            }
            Err(why) => debug!(%vm, why, "its backups cannot be listed, as before"),
        }
    }

    /// Begins a backup that is due; for that it must first be known how old the newest point is.
    async fn begin_if_due(&mut self, config: &Config, vm: &VmName, every: Duration) {
        let is_idle = self.runs.get(vm).is_none_or(|run| run.doc.state.is_over());
        if !is_idle || self.driver.places(vm).pid.is_none() {
            return;
        }
        match self.due.is_due(vm, every) {
            due::Answer::No => {}
            due::Answer::Yes => {
                if let Some(why) = self.protector.holds_off(vm, Means::Backup).await {
                    debug!(%vm, why, "a backup that is due waits");
                } else if let Err(cause) = self.begin(vm, SCHEDULE, Limits::default()) {
                    warn!(%vm, %cause, "a backup that is due did not begin");
                }
            }
            due::Answer::Ask => self.ask_for_newest(config, vm),
        }
    }

    fn ask_for_newest(&mut self, config: &Config, vm: &VmName) {
        let Some((_, repository)) = config.backup_of(vm) else { return };
        let repository = repository.clone();
        let (vm, inbox, state) = (vm.clone(), self.inbox.clone(), config.state.clone());
        self.tasks.spawn(async move {
            let taken = run::newest(&repository, &vm, &state).await;
            let _stopping = inbox.send(Asked::Newest { vm, from: repository, taken }).await;
        });
    }

    pub(super) fn hear_newest(
        &mut self,
        vm: &VmName,
        from: &RepositoryConfig,
        taken: Result<Option<f64>, String>,
    ) {
        match taken {
            _ if !self.is_source(vm, from) => {}
            Ok(taken) => self.due.learn(vm, taken),
            Err(why) => self.due.failed(vm, why),
        }
    }

    /// Prunes those repositories that want it, each for one VM after another.
    fn begin_prunes(&mut self, config: &Config) {
        for batch in self.pruner.begin(Instant::now()) {
            let prunes: Vec<(VmName, Prune)> = batch
                .vms
                .into_iter()
                .filter_map(|vm| Prune::of(config, &vm).map(|prune| (vm, prune)))
                .collect();
            let (inbox, stop, to) = (self.inbox.clone(), self.stop.clone(), batch.to);
            let driver = Arc::clone(&self.driver);
            self.tasks.spawn(async move {
                for (vm, prune) in prunes {
                    let Some(pruned) = prune.run(&stop, || may_prune(&driver, &vm)).await else { continue };
                    let told = Asked::Told { vm, news: News::Pruned(pruned) };
                    if inbox.send(told).await.is_err() {
                        break;
                    }
                }
                let _stopping = inbox.send(Asked::Pruned { to }).await;
            });
        }
    }

    /// Tells what came of a prune. Why nothing went is told once, as it is so each time.
    pub(super) fn tell_pruned(&mut self, vm: &VmName, to: &str, pruned: &PruneDoc) {
        let PruneDoc { points, bytes, verified, error, .. } = pruned;
        if !self.pruner.is_news(to, error.as_deref()) {
            debug!(%vm, to, error, "nothing was pruned, as before");
            return;
        }
        match error {
            None => {
                info!(%vm, to, points, bytes, verified, "restore points that need not be kept were removed");
            }
            Some(error) => {
                warn!(%vm, to, points, error, "restore points that need not be kept were not removed");
            }
        }
    }
}

/// The point that the disk of a VM is coming from must stay (I12), and so must one of a disk that was left half and is kept as a
/// snapshot; after the next backup it is looked again.
async fn may_prune(driver: &Qemu, vm: &VmName) -> bool {
    match (driver.incoming(vm).await, driver.needs_backup(vm).await) {
        (Ok(None), Ok(false)) => true,
        (Ok(None), Ok(true)) => {
            warn!(%vm, "nothing is pruned: a snapshot stands on a backup that had not come in; delete it, or go back to it");
            false
        }
        (_, _) => {
            debug!(%vm, "nothing is pruned while its disk comes in from a backup");
            false
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::decide::Message;
    use crate::protect::Protector;
    use holdfast_core::input::Input;
    use holdfast_core::point::Snapshot;
    use holdfast_core::written::Marks;
    use holdfast_drivers::qemu::launch::Format;
    use holdfast_drivers::qemu::snapshot::tree::{FileNumber, Tree};
    use holdfast_drivers::qemu::snapshot::{Files, Origin};
    use holdfast_drivers::qemu::{Accel, Network, QemuVm};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::path::Path;
    use tokio::sync::{mpsc, watch};
    use tokio_util::sync::CancellationToken;

    async fn driver(place: &Path) -> Qemu {
        let vm = QemuVm {
            name: "a".parse().unwrap(),
            disk: place.join("disk"),
            images: Vec::new(),
            memory: 64 << 20,
            cpus: 1,
            accel: Accel::Tcg,
            kernel: None,
            network: Network::None,
            user: None,
            program: None,
            memory_state: None,
        };
        Qemu::open(vec![vm], BTreeMap::new(), place.join("run"), place.join("evidence")).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_known_of_backups_is_forgotten_where_they_go_to_another_repository_or_nowhere() {
        let repositories = "[repository.main]\npath = \"/main\"\n[repository.far]\npath = \"/far\"\n";
        let config =
            |more: &str| Arc::new(Config::parsed(&format!("{repositories}[vm.a]\ndisk = \"a.img\"\n{more}")));
        let (main, far) = (config("protect.backup.to = \"main\"\n"), config("protect.backup.to = \"far\"\n"));
        let (place, vm) = (tempfile::tempdir().unwrap(), "a".parse().unwrap());
        let (driver, stop) = (Arc::new(driver(place.path()).await), CancellationToken::new());
        let (send, receive) = watch::channel(Arc::clone(&main));
        let (inbox, mut sent) = crate::decide::Inbox::new();
        let of_all: Arc<dyn Driver> = Arc::<Qemu>::clone(&driver);
        let protector = Protector::start(&of_all, &inbox, &receive, &stop);
        let mut keeper = Keeper::new(driver, protector.clone(), receive, mpsc::channel(1).0, stop);
        keeper.mind_repositories(&main);
        let there = json!({ "id": "a/3", "taken": 7.5, "grade": "booted", "hurt": false });
        let from = main.backup_of(&vm).unwrap().1;
        keeper.hear_list(vm.clone(), from, Ok(vec![there]));
        keeper.hear_newest(&vm, from, Ok(Some(7.5)));
        assert_eq!(told_next(&mut sent).await, 1);
        keeper.mind_repositories(&main);
        assert!(keeper.due.newest(&vm).is_some(), "nothing has changed");
        for other in [&far, &config("")] {
            keeper.hear_newest(&vm, from, Ok(Some(7.5)));
            send.send_replace(Arc::clone(other));
            keeper.mind_repositories(other);
            assert_eq!(keeper.due.newest(&vm), None, "a backup is due there");
            keeper.hear_newest(&vm, from, Ok(Some(7.5)));
            assert_eq!(keeper.due.newest(&vm), None, "who was asked before, tells of another");
        }
        while told_next(&mut sent).await > 0 {} // then nobody goes back to what is not there
    }

    /// How many restore points the engine is told of next.
    async fn told_next(sent: &mut mpsc::Receiver<Message>) -> usize {
        loop {
            if let Message::Input(Input::Points { known, .. }) = sent.recv().await.unwrap() {
                return known.len();
            }
        }
    }

    fn set_aside(tree: &Tree) -> Snapshot {
        Snapshot {
            id: tree.next(),
            taken: 0,
            memory: None,
            frozen: false,
            set_aside: true,
            scheduled: false,
            note: String::new(),
            trial: None,
            written: Marks::new(),
        }
    }

    #[tokio::test]
    async fn no_point_goes_while_a_disk_or_a_snapshot_of_its_vm_needs_one_i12() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("disk"), vec![0; 1 << 20]).unwrap();
        let (driver, vm) = (driver(place.path()).await, "a".parse().unwrap());
        assert!(may_prune(&driver, &vm).await, "nothing comes in");
        let files = Files::of(&place.path().join("disk"));
        files.make_folder().unwrap();
        let mut tree = Tree::of(Format::Raw);
        let aside = set_aside(&tree);
        let to = aside.id;
        let number = tree.begin();
        files.make_root(&tree, number, 1 << 20).unwrap();
        tree.restore(Origin { to: "main".into(), repository: "7".into(), point: "a/3".into() }, aside);
        files.write(&tree).unwrap();
        assert!(!may_prune(&driver, &vm).await, "its disk comes in");
        let aside = set_aside(&tree);
        tree.begin();
        tree.rewind(to, aside, false);
        files.write(&tree).unwrap();
        assert!(!may_prune(&driver, &vm).await, "a disk that was left half is kept as a snapshot");
        tree.removed(FileNumber(1));
        files.write(&tree).unwrap();
        assert!(may_prune(&driver, &vm).await, "that is gone");
        for record in ["record", "record-copy"] {
            std::fs::write(files.folder().join(record), "torn").unwrap();
        }
        assert!(!may_prune(&driver, &vm).await, "nobody can tell");
    }
}
