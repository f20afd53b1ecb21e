//! The beginning and the end of a VM: a start under a lease, and a death that is proven.

use super::account::{self, Account};
use super::cgroup::Cgroup;
use super::configured::SnapshotTurn;
use super::image::{self, ImageError, Layer};
use super::launch::{self, Engine, Format, RunFolder};
use super::live::{Life, Live};
use super::machine::{Machine, error_chain};
use super::memory::Saved;
use super::record::{Place, Port, Record};
use super::snapshot::Opened;
use super::spawn::{self, Launch};
use super::spec::{Forward, Network, QemuVm};
use super::{accel, memory, needs, offered, process};
use crate::DriverError;
use holdfast_core::action::Fact;
use holdfast_core::lease::{Death, DeathProof, Incarnation, Lease, Token};
use holdfast_core::point::MemoryKind;
use holdfast_core::signal::ProcessState;
use holdfast_witness::Eyewitness;
use rustix::process::Signal;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const START: &str = "start";
const POWER_OFF: &str = "power off";

/// What a start needs, found out before anything is changed.
struct Ready {
    spec: Arc<QemuVm>,
    disk: Vec<Layer>,
    engine: Engine,
    account: Option<Account>,
    ports: Vec<Port>,
    /// The saved memory that it goes on with.
    memory: Option<Saved>,
}

impl Machine {
    /// Starts the VM under this lease; harmless if that start runs already.
    pub async fn start(self: &Arc<Self>, lease: &Lease, limit: Duration) -> Result<Fact, DriverError> {
        let deadline = Instant::now() + limit;
        let one = self.turn_to_resume(deadline).await;
        let _turn = self.turn(deadline).await?;
        let record = self.record();
        let life = self.life.borrow().clone();
        match life {
            Life::Running(live) if live.incarnation == lease.incarnation() => {
                return self.confirm(&live, None, limit, deadline).await;
            }
            Life::Running(live) if lease.incarnation() > live.incarnation => {
                return Err(self.refused(START, format!("{} still runs", live.incarnation)));
            }
            Life::Unclear(why) => return Err(self.refused(START, why)),
            Life::Running(_) | Life::Dead(_) => {}
        }
        if lease.incarnation() <= record.incarnation || lease.token() <= record.token {
            return Err(self.stale(lease.incarnation(), lease.token()));
        }
        self.end_reading().await;
        let ready = match self.prepare(&record, one).await {
            Ok(ready) => ready,
            Err(error) => {
                self.use_up(lease, record).await;
                return Err(error);
            }
        };
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let cgroup = self.group();
        let path = cgroup.as_ref().map(|group| group.path().to_owned());
        let (ports, raw, disk) = (ready.ports.clone(), record.raw, Place::of(&self.spec_started().disk));
        let mut next = Record { incarnation, token, process: None, cgroup: path, ports, raw, disk };
        if let Some(disk) = ready.disk.first().filter(|disk| disk.format == Format::Raw) {
            next.remember_raw(&disk.path);
        }
        self.write(next.clone()).await?;
        let live = match self.launch(&ready, &next, cgroup).await {
            Ok(live) => live,
            Err(error) => {
                if let Some(group) = next.cgroup {
                    Cgroup::at(group).remove();
                }
                self.note_refused_start(incarnation);
                return Err(self.refused(START, error_chain(&error)));
            }
        };
        let known = Record { process: Some(live.process.id().clone()), ..next };
        if let Err(error) = self.write(known).await {
            // It runs and is found by its command line after a restart of ours.
            tracing::warn!(vm = %self.name, error = error_chain(&error), "the start is not on record");
        }
        let started = self.confirm(&live, ready.memory.as_ref(), limit, deadline).await?;
        if ready.memory.is_some() {
            let machine = Arc::clone(self);
            tokio::spawn(async move { machine.tell_guest_it_was_away().await });
        }
        Ok(started)
    }

    /// Uses up a lease of which no start came here ([`crate::Driver::refuse_start`]).
    pub async fn refuse_start(&self, lease: &Lease, limit: Duration) -> Result<(), DriverError> {
        let _turn = self.turn(Instant::now() + limit).await?;
        let (record, life) = (self.record(), self.life.borrow().clone());
        let is_old = lease.incarnation() <= record.incarnation || lease.token() <= record.token;
        match life {
            Life::Dead(_) if !is_old => {
                self.use_up(lease, record).await;
                Ok(())
            }
            Life::Dead(_) | Life::Running(_) => Ok(()),
            Life::Unclear(why) => Err(self.refused(START, why)),
        }
    }

    /// A start that was refused is used up, here as for whoever gave the lease (I3): whoever looks next finds that
    /// incarnation dead, and not the one before. If that cannot be written down, it may be tried once more.
    async fn use_up(&self, lease: &Lease, record: Record) {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let used = Record { incarnation, token, process: None, cgroup: None, ..record };
        match self.write(used).await {
            Ok(()) => drop(self.note_refused_start(incarnation)),
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(vm = %self.name, error, "a refused start is not on record");
            }
        }
    }

    fn note_refused_start(&self, incarnation: Incarnation) -> DeathProof {
        let proof =
            DeathProof::witnessed(Eyewitness::here(), self.name.clone(), incarnation, Death::StartRefused);
        self.life.send_replace(Life::Dead(proof.clone()));
        proof
    }

    /// Its control group, where there can be one.
    pub(super) fn group(&self) -> Option<Cgroup> {
        let root = self.folder.path().parent().unwrap_or(Path::new("/"));
        let family = format!("holdfast-{:08x}", crc32fast::hash(root.as_os_str().as_encoded_bytes()));
        Cgroup::make(&family, self.name.as_str())
    }

    /// Checks all that can be checked without changing anything for the guest.
    async fn prepare(
        &self,
        record: &Record,
        one: Result<Option<SnapshotTurn<'_>>, DriverError>,
    ) -> Result<Ready, DriverError> {
        let one = one?;
        let (spec, others) = self.spec_to_start();
        let configured = spec.disk.clone();
        let opened = self.open_disk(&configured).await?;
        let (spec, known) = on_top(&spec, &opened.disk);
        let (folder, record) = (self.folder.clone(), record.clone());
        self.must_be_unheld(START, &configured, &opened.disk).await?;
        self.must_be_there(&opened, &record)?;
        let ready = tokio::task::spawn_blocking(move || {
            needs::files_there(&spec)?;
            let disk = image::check(&spec, known, &others).map_err(|error| error_chain(&error))?;
            let changed = |disk: &&Layer| disk.format == Format::Qcow2 && record.raw.contains(&disk.path);
            if let Some(disk) = disk.first().filter(changed) {
                return Err(format!(
                    "{} was raw and now claims to be qcow2, which its guest may have written (A31); if you \
                     converted it, give it another name",
                    disk.path.display()
                ));
            }
            let root = folder.path().parent().unwrap_or(Path::new("/"));
            let engine = settle(&spec, root)?;
            let told = |what: &'static str| move |e: io::Error| format!("cannot {what}: {e}");
            std::fs::create_dir_all(folder.inner()).map_err(told("make its run folder"))?;
            let account = account_for(&spec, &folder, &disk, engine)?;
            make_ready(&folder, account.as_ref()).map_err(told("make its run folder"))?;
            for own in std::iter::once(&spec.disk).chain(&opened.below) {
                hand_over(own, account.as_ref())?;
            }
            for point in disk.iter().filter(|layer| layer.is_offered) {
                offered::hand_over(&point.path, account.as_ref())?;
            }
            let ports = choose_ports(&spec.network, &record.ports).map_err(told("find a free port"))?;
            spawn::rotate(&folder.console()).map_err(told("put its old console aside"))?;
            let first = record.incarnation == Incarnation::NONE;
            let template = |file| Saved { file, kind: MemoryKind::Stream };
            let memory = opened.memory.or_else(|| spec.memory_state.clone().filter(|_| first).map(template));
            Ok(Ready { spec, disk, engine, account, ports, memory })
        });
        let ready = ready.await.map_err(|e| self.refused(START, e.to_string()))?;
        let ready = ready.map_err(|why| self.refused(START, why))?;
        if ready.memory.is_some() {
            self.use_memory(&configured, one.as_ref()).await?;
        }
        Ok(ready)
    }

    /// A disk of which a file was there at the last start and is not now is gone, where its file system is the one that it
    /// was then. One that is not mounted has another, and is waited for.
    fn must_be_there(&self, opened: &Opened, record: &Record) -> Result<(), DriverError> {
        let mut files = std::iter::once(&opened.disk).chain(&opened.below);
        let Some(file) = files.find(|file| needs::is_missing(file)) else { return Ok(()) };
        if record.disk.is_none() || record.disk != Place::of(&self.spec_started().disk) {
            return Ok(()); // whoever opens it says what is wrong
        }
        let why = format!("{} is not there any more; what it was on is", file.display());
        Err(DriverError::DiskGone { vm: self.name.clone(), why })
    }

    async fn launch(&self, ready: &Ready, record: &Record, cgroup: Option<Cgroup>) -> io::Result<Arc<Live>> {
        let forwards: Vec<Forward> = ready.ports.iter().copied().map(Forward::from).collect();
        let args = launch::arguments(&launch::Start {
            vm: &ready.spec,
            folder: &self.folder,
            disk: &ready.disk,
            engine: ready.engine,
            forwards: &forwards,
            incarnation: record.incarnation,
            token: record.token,
            incoming: ready.memory.is_some(),
            trial: None,
        });
        let (folder, log, account) = (self.folder.inner(), self.folder.log(), ready.account.clone());
        let vm = Arc::clone(&ready.spec);
        let process = tokio::task::spawn_blocking(move || {
            let program = vm.program()?;
            let (program, args) = (program.as_path(), args.as_slice());
            let (account, cgroup) = (account.as_ref(), cgroup.as_ref());
            Launch { program, args, account, folder: &folder, log: &log, cgroup }.start()
        });
        Ok(self.watch(process.await.map_err(io::Error::other)??))
    }

    /// Waits until QEMU answers, or has ended by itself.
    async fn confirm(
        &self,
        live: &Live,
        memory: Option<&Saved>,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Fact, DriverError> {
        let mut life = self.life.subscribe();
        let ended = async { drop(life.wait_for(|life| !matches!(life, Life::Running(_))).await) };
        let answer = tokio::select! {
            biased;
            _ended = ended => None,
            answer = live.qmp(deadline) => Some(answer),
        };
        match answer {
            None => return Err(self.ended_at_once().await),
            Some(Err(_)) => return Err(self.late(START, limit)),
            Some(Ok(_)) => {}
        }
        if let Some(memory) = memory {
            memory::load(self, live, memory, deadline).await.map_err(|why| self.unknown(START, why))?;
        }
        Ok(Fact::Started { pid: live.process.pid() })
    }

    /// Why QEMU ended by itself.
    async fn ended_at_once(&self) -> DriverError {
        let said = last_words(&self.folder);
        let own = self.spec_started().disk.clone();
        let disk = self.open_disk(&own).await.map_or_else(|_| own.clone(), |opened| opened.disk);
        match self.holder(&own, &disk).await.filter(|_| said.contains("lock")) {
            Some(holder) => self.blocked(START, &holder),
            None => self.refused(START, format!("QEMU ended at once and said: {said}")),
        }
    }

    /// Who else has its disk open for writing, or what is on top of it.
    async fn holder(&self, disk: &Path, on_top: &Path) -> Option<ImageError> {
        let (disk, on_top) = (disk.to_owned(), on_top.to_owned());
        let disk = (disk != on_top).then_some(disk);
        tokio::task::spawn_blocking(move || {
            image::holder(&on_top).or_else(|| image::holder(disk.as_deref()?))
        })
        .await
        .ok()
        .flatten()
    }

    /// Nobody else has it, or its disk, open for writing now.
    pub(super) async fn must_be_unheld(
        &self,
        what: &'static str,
        disk: &Path,
        on_top: &Path,
    ) -> Result<(), DriverError> {
        self.holder(disk, on_top).await.map_or(Ok(()), |holder| Err(self.blocked(what, &holder)))
    }

    fn blocked(&self, what: &'static str, holder: &ImageError) -> DriverError {
        DriverError::Blocked { what, vm: self.name.clone(), why: error_chain(holder) }
    }

    /// Ends the process and proves its death; harmless if it is dead.
    pub async fn power_off(
        &self,
        incarnation: Incarnation,
        token: Token,
        limit: Duration,
    ) -> Result<Fact, DriverError> {
        let deadline = Instant::now() + limit;
        let _turn = self.turn(deadline).await?;
        let life = self.life.borrow().clone();
        if let Life::Dead(proof) = life {
            let record = self.record();
            if incarnation < record.incarnation || token < record.token {
                return Err(self.stale(incarnation, token));
            }
            if incarnation == proof.incarnation() {
                return Ok(Fact::Died(proof));
            }
            // Never started here, and from now on it never can be: the record says so first.
            self.write(Record { incarnation, token, process: None, cgroup: None, ..record }).await?;
            return Ok(Fact::Died(self.note_refused_start(incarnation)));
        }
        let live = self.authorize(incarnation, token).await?;
        let mut life = self.life.subscribe();
        live.process.signal(Signal::KILL).map_err(|e| self.unknown(POWER_OFF, e.to_string()))?;
        let process = Arc::clone(&live.process);
        drop(live);
        let ended = life.wait_for(|life| !matches!(life, Life::Running(_)));
        let ended = tokio::time::timeout_at(deadline, ended).await;
        match ended.ok().and_then(Result::ok).as_deref() {
            Some(Life::Dead(proof)) => Ok(Fact::Died(proof.clone())),
            Some(Life::Unclear(why)) => Err(self.unknown(POWER_OFF, why.clone())),
            Some(Life::Running(_)) | None => Err(self.unknown(POWER_OFF, still_there(&process, limit))),
        }
    }
}

/// What a QEMU that is gone said last, tamed.
pub(super) fn last_words(folder: &RunFolder) -> String {
    let said = process::read_small(&folder.log().to_string_lossy()).unwrap_or_default();
    let said = said.lines().rev().find(|line| !line.contains("warning:")).unwrap_or("it said nothing");
    super::untrusted::tame(said, 300)
}

/// A killed process that does not end: it may write as long as it is there, so nothing is started beside it (I1).
fn still_there(process: &process::Process, limit: Duration) -> String {
    let waits = process.sample().is_ok_and(|sample| sample.state == ProcessState::DiskWait);
    let (pid, why) = (process.pid(), if waits { ", as it waits for its storage" } else { "" });
    format!("process {pid} is still there {} s after it was killed{why}", limit.as_secs())
}

/// The VM with the image on top of its disk, and the right to what that stands on; and the layout of that image, if it is an
/// overlay: it was made by us, whatever is in it by now (A31).
pub(super) fn on_top(spec: &Arc<QemuVm>, disk: &Path) -> (Arc<QemuVm>, Option<Format>) {
    if spec.disk == disk {
        return (Arc::clone(spec), None);
    }
    let mut with = QemuVm::clone(spec);
    with.images.extend(spec.disk.parent().map(Path::to_owned));
    with.disk = disk.to_owned();
    (Arc::new(with), Some(Format::Qcow2))
}

pub(super) fn settle(vm: &QemuVm, root: &Path) -> Result<Engine, String> {
    let boot = process::boot_id().map_err(|e| format!("cannot tell the boot of this host: {e}"))?;
    let program = vm.program.as_deref().unwrap_or(Path::new(launch::PROGRAM));
    let (engine, warning) = accel::settle(vm.accel, program, &root.join("accel"), &boot)?;
    if let Some(warning) = warning {
        tracing::warn!(warning, "a VM is slower than it could be");
    }
    Ok(engine)
}

/// Whom QEMU runs as. A configured user must exist; a default one is left out, with a warning, where it
/// cannot read what the VM needs.
pub(super) fn account_for(
    vm: &QemuVm,
    folder: &RunFolder,
    disk: &[Layer],
    engine: Engine,
) -> Result<Option<Account>, String> {
    if !rustix::process::geteuid().is_root() {
        return match &vm.user {
            Some(user) => Err(format!("only root can run QEMU as `{user}`: leave `user` out")),
            None => Ok(None),
        };
    }
    // The kernel lets only root, or its owner, open a tap interface.
    let tap = match &vm.network {
        Network::Tap { interface, .. } => {
            process::read_small(&format!("/sys/class/net/{interface}/owner")).ok()
        }
        Network::User(_) | Network::None => None,
    };
    let find = |name: &str| Account::named(name).map_err(|e| format!("cannot read the list of users: {e}"));
    // The group opens /dev/kvm, where one does.
    let kvm = account::group("kvm").filter(|_| engine == Engine::Kvm);
    let grouped = |account: Account| kvm.map_or(account.clone(), |gid| account.in_group(gid));
    if let Some(user) = &vm.user {
        let account = find(user)?.ok_or_else(|| format!("there is no user `{user}` on this host"))?;
        return Ok((account.uid != 0).then(|| grouped(account)));
    }
    for name in account::DEFAULTS {
        let Some(account) = find(name)?.map(grouped) else { continue };
        if tap.as_ref().is_some_and(|owner| owner.trim().parse() != Ok(account.uid)) {
            tracing::warn!(vm = %vm.name, user = name, "QEMU runs as root: the tap interface is not that user's");
            return Ok(None);
        }
        let kvm = (engine == Engine::Kvm).then(|| Path::new("/dev/kvm"));
        let tun = tap.as_ref().map(|_| Path::new("/dev/net/tun"));
        let below = disk.iter().skip(1).filter(|layer| !layer.is_offered).map(|layer| layer.path.as_path());
        let barrier = account::barrier(&account, vm, below.chain(kvm).chain(tun));
        let Some(barrier) = barrier.or_else(|| account.kept_from_entering(folder.path())) else {
            return Ok(Some(account));
        };
        let way_out = barrier.way_out();
        tracing::warn!(vm = %vm.name, user = name, way_out, "QEMU runs as root: that user cannot reach what it needs");
        return Ok(None);
    }
    Ok(None)
}

/// The outer folder stays ours; the inner one belongs to QEMU's user, and nothing old is in its way.
pub(super) fn make_ready(folder: &RunFolder, account: Option<&Account>) -> io::Result<()> {
    let inner = folder.inner();
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o700))?;
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = account.map_or((0, 0), |account| (account.uid, account.gid));
        chown(&inner, Some(uid), Some(gid))?;
    }
    for socket in [folder.control(), folder.qmp(), folder.agent()] {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Gives the disk to QEMU's user: only a regular file with one name, and never through a link (A07).
fn hand_over(disk: &Path, account: Option<&Account>) -> Result<(), String> {
    let Some(account) = account else { return Ok(()) };
    let told = |e: io::Error| format!("cannot give {} to user `{}`: {e}", disk.display(), account.name);
    let nofollow = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nofollow).open(disk).map_err(told)?;
    let meta = file.metadata().map_err(told)?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(format!("{} is no regular file with one name only", disk.display()));
    }
    if meta.uid() == account.uid && meta.mode() & 0o600 == 0o600 {
        return Ok(());
    }
    std::os::unix::fs::fchown(&file, Some(account.uid), None).map_err(told)?;
    file.set_permissions(std::fs::Permissions::from_mode(meta.mode() | 0o600)).map_err(told)
}

/// The ports of the forwards: the fixed ones, and for each port 0 the one chosen before if it is still
/// free, otherwise a new one.
pub(super) fn choose_ports(network: &Network, before: &[Port]) -> io::Result<Vec<Port>> {
    let Network::User(forwards) = network else { return Ok(Vec::new()) };
    let choose = |forward: &Forward| {
        let Forward { listen, guest } = *forward;
        if listen.port() != 0 {
            return Ok(Port { listen, guest });
        }
        let known = before.iter().find(|port| port.guest == guest && port.listen.ip() == listen.ip());
        if let Some(known) = known.filter(|known| TcpListener::bind(known.listen).is_ok()) {
            return Ok(*known);
        }
        let free: SocketAddr = TcpListener::bind(listen)?.local_addr()?;
        Ok(Port { listen: free, guest })
    };
    forwards.iter().map(choose).collect()
}
