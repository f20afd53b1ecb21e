//! A warm guest: booted once, kept as memory and disk, and woken for each test that does not examine how a guest boots.
//!
//! Holdfast's own driver makes the template and wakes the clones, so a clone is started by the very command line, and
//! leaves the very files, of a VM that a daemon has started. It is woken before the daemon, which finds it as it finds
//! whatever ran before itself, and adopts it (I7). Each later start is the daemon's own, and cold.
//!
//! One memory lives many times here, against I23: these guests hold nothing that must never be said twice.

use super::{BOOT, end_vms, image, overlay};
use holdfast_core::action::{Fact, Found, Order};
use holdfast_core::lease::{Lease, Token};
use holdfast_core::subject::VmName;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::agent::Agent;
use holdfast_drivers::qemu::{Accel, Forward, Kernel, Network, Qemu, QemuVm};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The start of the names of templates, beside the guest's image; those that are being made begin with a dot.
const NAME: &str = "warm-";
/// Nobody's test lasts so long: a template that nobody has used since is swept away when another is made.
const STALE: Duration = Duration::from_secs(2 * 86_400);
/// The kernel's command line, as in [`super::vm_section`].
pub const CMDLINE: &str = "quiet root=/dev/vda rw panic=-1";

/// The folder of the template: `disk.qcow2` and `memory`, of one moment. Made once for this image, this QEMU and this
/// way to launch it; whoever comes meanwhile waits.
fn template(qemu: Option<&Path>) -> PathBuf {
    static TEMPLATES: Mutex<BTreeMap<Option<PathBuf>, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = templates.entry(qemu.map(Into::into)).or_insert_with(|| {
        let guests = image().parent().unwrap();
        let folder = guests.join(name(qemu));
        let lock = File::create(guests.join(".warm-lock")).unwrap();
        lock.lock().unwrap();
        if !folder.exists() {
            sweep(guests);
            let making = tempfile::Builder::new().prefix(&format!(".{NAME}")).tempdir_in(guests).unwrap();
            make(making.path(), qemu);
            fs::rename(making.keep(), &folder).unwrap(); // whole, or not there
        }
        File::create(folder.join("used")).unwrap();
        folder
    });
    ready.clone()
}

/// What a memory depends on is in the name of its folder: another image, QEMU or machine has another template.
fn name(qemu: Option<&Path>) -> String {
    let program = qemu.unwrap_or(Path::new("qemu-system-x86_64"));
    let version = Command::new(program).arg("--version").output().expect("QEMU").stdout;
    let launch = include_str!("../../../drivers/src/qemu/launch.rs");
    let machine = format!("{:?}", machine("any", Path::new("disk"), qemu));
    let all = [version.as_slice(), launch.as_bytes(), machine.as_bytes()].concat();
    format!("{NAME}{:08x}", crc32fast::hash(&all))
}

/// Removes what killed tests have left half made, and what nobody uses any more.
fn sweep(guests: &Path) {
    for entry in fs::read_dir(guests).unwrap().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let used = fs::metadata(path.join("used")).and_then(|file| file.modified()).ok();
        let stale = used.is_none_or(|used| used.elapsed().is_ok_and(|since| since > STALE));
        let half_made = path.is_dir() && name.strip_prefix('.').is_some_and(|name| name.starts_with(NAME));
        if half_made {
            end_vms(&path);
        }
        if half_made || (stale && name.starts_with(NAME)) {
            fs::remove_dir_all(path).unwrap();
        }
    }
}

/// The VM as the daemon makes it of [`super::vm_section`].
fn machine(name: &str, disk: &Path, qemu: Option<&Path>) -> QemuVm {
    let kernel = Kernel {
        image: image().join("vmlinux"),
        initrd: Some(image().join("initrd.gz")),
        cmdline: CMDLINE.into(),
    };
    QemuVm {
        name: name.parse().unwrap(),
        disk: disk.into(),
        images: vec![image().parent().unwrap().into()],
        memory: 512 << 20,
        cpus: 1,
        accel: Accel::Tcg,
        kernel: Some(kernel),
        network: Network::User(vec![Forward { listen: "127.0.0.1:0".parse().unwrap(), guest: 5432 }]),
        user: None,
        program: qemu.map(Into::into),
        memory_state: None,
    }
}

/// Ends the VMs of a folder, whatever happens.
struct Ends<'a>(&'a Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        end_vms(self.0);
    }
}

/// Boots a guest, waits until it is well, and keeps its memory with its disk.
fn make(folder: &Path, qemu: Option<&Path>) {
    let _ends = Ends(folder);
    let disk = folder.join("disk.qcow2");
    overlay(&disk, &image().join("base.raw"), "raw");
    super::runtime().block_on(async {
        let vm = machine("template", &disk, qemu);
        let name = vm.name.clone();
        let qemu = open(vm, folder).await;
        let lease = start(&qemu, &name).await;
        until_well(&qemu, &name).await;
        qemu.save_memory(&name, &folder.join("memory"), BOOT).await.unwrap();
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let off = qemu.perform(&name, &Order::PowerOff { incarnation, token }, BOOT).await;
        assert!(matches!(off, Ok(Fact::Died(_))), "{off:?}");
    });
    for part in ["run", "evidence"] {
        fs::remove_dir_all(folder.join(part)).unwrap();
    }
    for (part, mode) in [("disk.qcow2", 0o444), ("memory", 0o444), ("", 0o755)] {
        fs::set_permissions(folder.join(part), fs::Permissions::from_mode(mode)).unwrap();
    }
}

async fn open(vm: QemuVm, state: &Path) -> Qemu {
    Qemu::open(vec![vm], BTreeMap::new(), state.join("run"), state.join("evidence")).await.unwrap()
}

/// The first start ever, as after the first lease of a store.
async fn start(qemu: &Qemu, name: &VmName) -> Lease {
    let Found::Dead(never) = qemu.inspect(name).await.unwrap() else { panic!("it runs already") };
    let lease = Lease::after(&never, Token(1), "laboratory".parse().unwrap());
    let started = qemu.perform(name, &Order::Start { lease: lease.clone() }, BOOT).await;
    assert!(matches!(started, Ok(Fact::Started { .. })), "{started:?}");
    lease
}

/// Waits until the guest's agent answers, and PostgreSQL a query.
async fn until_well(qemu: &Qemu, name: &VmName) {
    let places = qemu.places(name);
    let (agent, port) = (agent(qemu, name), places.ports[0].1.port());
    let began = Instant::now();
    while !(pings(&agent).await && answers(port).await) {
        let console = fs::read_to_string(places.console.as_ref().unwrap());
        assert!(began.elapsed() < BOOT, "the guest is not well within {BOOT:?}: {console:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn agent(qemu: &Qemu, name: &VmName) -> Agent {
    Agent::new(qemu.places(name).agent.unwrap(), 7_000)
}

async fn pings(agent: &Agent) -> bool {
    let Ok(mut session) = agent.session(Duration::from_secs(2)).await else { return false };
    session.ping().await.is_ok()
}

async fn answers(port: u16) -> bool {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("orders").dbname("orders");
    let asked = async {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("select 1").await
    };
    tokio::time::timeout(Duration::from_secs(3), asked).await.is_ok_and(|answer| answer.is_ok())
}

/// Wakes a clone as the VM `name` of a laboratory whose daemon does not run yet. `disk` becomes its disk, `state` is
/// the daemon's state folder.
pub fn wake(name: &str, disk: &Path, state: &Path, qemu: Option<&Path>) {
    let template = template(qemu);
    overlay(disk, &template.join("disk.qcow2"), "qcow2");
    make_state(state);
    let pid = super::runtime().block_on(async {
        let vm = QemuVm { memory_state: Some(template.join("memory")), ..machine(name, disk, qemu) };
        let name = vm.name.clone();
        let qemu = open(vm, state).await;
        start(&qemu, &name).await;
        set_clock(&agent(&qemu, &name)).await;
        qemu.places(&name).pid.unwrap()
    });
    // Its end is for us to collect: as long as nobody has, it is not gone.
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    std::thread::spawn(move || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
}

/// A guest that slept knows nothing of the time since.
async fn set_clock(agent: &Agent) {
    let began = Instant::now();
    loop {
        let set = async {
            let mut session = agent.session(Duration::from_secs(5)).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            session.set_time(i64::try_from(now).unwrap()).await
        };
        match set.await {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < BOOT, "the guest's clock cannot be set: {error}"),
        }
    }
}

/// The state folder that a daemon has left (`docs/journal.md`), but for its journal and leases: so the clone is adopted.
fn make_state(state: &Path) {
    if !state.exists() {
        fs::DirBuilder::new().mode(0o711).create(state).unwrap();
    }
    let body = "{\"layout\":1}\n";
    let sum = crc32fast::hash(format!("state v1\n{body}").as_bytes());
    fs::write(state.join("version"), format!("holdfast state v1 {sum:08x}\n{body}")).unwrap();
}
