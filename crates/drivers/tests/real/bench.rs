//! A VM on the bench, in a folder of its own; nothing of it is left afterwards.

use holdfast_core::action::{Fact, Found, Operation, Order};
use holdfast_core::lease::{DeathProof, Incarnation, Lease, Sighting, Token};
use holdfast_core::signal::{Counters, HypervisorSign, ProcessSign, RunState, Seen};
use holdfast_core::subject::{AppName, VmName};
use holdfast_drivers::qemu::{Accel, Forward, Network, Qemu, QemuVm};
use holdfast_drivers::{Driver, DriverError, Glimpse};
use holdfast_witness::Eyewitness;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// No test waits so long; it only keeps one from hanging.
pub const LONG: Duration = Duration::from_secs(120);
pub const SHORT: Duration = Duration::from_millis(400);

pub struct Bench {
    folder: tempfile::TempDir,
    pub name: VmName,
    next: u64,
    /// The commands that restart applications.
    pub restarts: BTreeMap<(VmName, AppName), Vec<String>>,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hf").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, name: "orders".parse().unwrap(), next: 0, restarts: BTreeMap::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn vm(&self) -> QemuVm {
        QemuVm {
            name: self.name.clone(),
            disk: self.path("disk"),
            images: Vec::new(),
            memory: 64 << 20,
            cpus: 1,
            accel: Accel::Tcg,
            kernel: None,
            network: Network::User(vec![Forward { listen: "127.0.0.1:0".parse().unwrap(), guest: 5432 }]),
            user: None,
            program: another_qemu(),
            memory_state: None,
        }
    }

    pub async fn open(&self) -> Qemu {
        self.open_as(self.vm()).await
    }

    pub async fn open_as(&self, vm: QemuVm) -> Qemu {
        Qemu::open(vec![vm], self.restarts.clone(), self.path("run"), self.path("evidence")).await.unwrap()
    }

    pub fn lease(&mut self) -> Lease {
        self.next += 1;
        self.lease_for(Incarnation(self.next), Token(self.next * 10))
    }

    /// Any lease, as no store would give it.
    pub fn lease_for(&self, incarnation: Incarnation, token: Token) -> Lease {
        let running = Sighting::of(Eyewitness::here(), incarnation);
        Lease::adopting(self.name.clone(), running, token, "here".parse().unwrap())
    }

    pub async fn start(&mut self, qemu: &Qemu) -> Lease {
        let mut lease = self.lease();
        let start = |lease: &Lease| Order::Start { lease: lease.clone() };
        let mut started = qemu.perform(&self.name, &start(&lease), LONG).await;
        // A process that another test is just starting has all our files open, for a moment.
        while let Err(DriverError::Blocked { .. }) = started {
            tokio::time::sleep(Duration::from_millis(20)).await;
            lease = self.lease(); // a refused start is used up
            started = qemu.perform(&self.name, &start(&lease), LONG).await;
        }
        assert!(matches!(started, Ok(Fact::Started { .. })), "{started:?}");
        lease
    }

    pub async fn try_do(
        &self,
        qemu: &Qemu,
        lease: &Lease,
        operation: Operation,
    ) -> Result<Fact, DriverError> {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        qemu.perform(&self.name, &Order::Perform { incarnation, token, operation }, LONG).await
    }

    pub async fn power_off(&self, qemu: &Qemu, lease: &Lease) -> DeathProof {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let died = qemu.perform(&self.name, &Order::PowerOff { incarnation, token }, LONG).await;
        let Ok(Fact::Died(proof)) = died else { panic!("{died:?}") };
        proof
    }

    pub async fn state(&self, qemu: &Qemu) -> Option<RunState> {
        match qemu.inspect(&self.name).await.unwrap() {
            Found::Running { state, .. } => state,
            found @ (Found::Dead(_) | Found::Unclear { .. }) => panic!("{found:?}"),
        }
    }

    /// Waits until something is seen that fits; fails with what was seen instead, and with the console.
    pub async fn until(&self, qemu: &Qemu, what: &str, fits: impl Fn(&Seen) -> bool) -> Glimpse {
        let mut instead = Vec::new();
        let wait = async {
            loop {
                let glimpse = qemu.next_event().await;
                if fits(&glimpse.seen) {
                    return glimpse;
                }
                instead.push(glimpse.seen);
            }
        };
        if let Ok(glimpse) = tokio::time::timeout(LONG, wait).await {
            return glimpse;
        }
        let console = qemu.places(&self.name).console.map(std::fs::read_to_string);
        panic!("{what} was not seen, but {instead:?}; the console says: {console:?}")
    }

    /// Takes what was seen so far, until nothing more comes for a while.
    pub async fn forget_what_was_seen(&self, qemu: &Qemu) {
        while tokio::time::timeout(SHORT, qemu.next_event()).await.is_ok() {}
    }

    pub async fn counters(&self, qemu: &Qemu) -> Counters {
        let seen = qemu.poll(&self.name, LONG).await.into_iter().map(|glimpse| glimpse.seen);
        let counters = seen.filter_map(|seen| {
            if let Seen::Hypervisor(HypervisorSign::Counters(counters)) = seen {
                Some(counters)
            } else {
                None
            }
        });
        counters.last().unwrap()
    }

    /// Waits until the guest has written to its disk once more.
    pub async fn until_it_writes(&self, qemu: &Qemu) {
        let before = self.counters(qemu).await.writes;
        let wait = async {
            while self.counters(qemu).await.writes <= before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("the guest writes");
    }
}

/// A test that fails half-way leaves no VM behind.
impl Drop for Bench {
    fn drop(&mut self) {
        let ours = format!("path={}/", self.path("run").display());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if line.contains(&ours) {
                let pid = entry.file_name();
                let _gone = std::process::Command::new("kill").arg("-9").arg(pid).status();
            }
        }
        let root = self.path("run");
        let family = format!("holdfast-{:08x}", crc32fast::hash(root.as_os_str().as_encoded_bytes()));
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let family = hierarchy.path().join(&family);
            let (member, began) = (family.join("orders"), std::time::Instant::now());
            // What was killed is still in its group until the kernel has taken its memory back.
            while member.is_dir() && std::fs::remove_dir(&member).is_err() && began.elapsed() < LONG {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _none_there = std::fs::remove_dir(family);
        }
    }
}

/// Another QEMU than the installed one, for all tests: `HOLDFAST_TEST_QEMU=PROGRAM`.
fn another_qemu() -> Option<PathBuf> {
    std::env::var_os("HOLDFAST_TEST_QEMU").map(PathBuf::from)
}

pub fn is_state(state: RunState) -> impl Fn(&Seen) -> bool {
    move |seen| *seen == Seen::Hypervisor(HypervisorSign::State(state))
}

pub fn is_exit(seen: &Seen) -> bool {
    matches!(seen, Seen::Process(ProcessSign::Exited { .. }))
}
