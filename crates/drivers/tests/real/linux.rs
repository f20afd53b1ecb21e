//! A real Linux with PostgreSQL and a guest agent: the demo guest, built if it is not there
//! (`guest/build.sh`).

use crate::bench::{Bench, LONG, is_exit, is_state};
use holdfast_core::action::{Fact, Operation, Order};
use holdfast_core::incident::IncidentId;
use holdfast_core::lease::{ExitStatus, Lease};
use holdfast_core::signal::{AgentSign, HypervisorSign, ProcessSign, RunState, Seen};
use holdfast_core::subject::AppName;
use holdfast_drivers::qemu::{Accel, Kernel, Qemu, QemuVm};
use holdfast_drivers::{Driver, DriverError, Injection, Question};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ASK: Duration = Duration::from_secs(2);

/// The folder of the demo guest.
fn guest() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/build.sh");
    let built = Command::new("bash").arg(script).arg("--quiet").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    PathBuf::from(String::from_utf8(built.stdout).unwrap().lines().last().unwrap())
}

fn linux(bench: &Bench) -> QemuVm {
    let guest = guest();
    let manifest = std::fs::read_to_string(guest.join("manifest")).unwrap();
    let cmdline = manifest.lines().find_map(|line| line.strip_prefix("cmdline=")).unwrap().to_owned();
    if !bench.path("disk").exists() {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([guest.join("base.raw"), bench.path("disk")])
            .status();
        assert!(made.unwrap().success());
    }
    let kernel = Kernel { image: guest.join("vmlinux"), initrd: Some(guest.join("initrd.gz")), cmdline };
    QemuVm { images: vec![guest], memory: 512 << 20, accel: Accel::Auto, kernel: Some(kernel), ..bench.vm() }
}

fn app() -> AppName {
    "postgres".parse().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(ToOwned::to_owned).collect()
}

async fn ask(bench: &Bench, qemu: &Qemu, question: &Question) -> Vec<AgentSign> {
    let heard = qemu.ask(&bench.name, question, ASK).await;
    heard.into_iter().filter_map(|g| if let Seen::Agent(sign) = g.seen { Some(sign) } else { None }).collect()
}

/// Waits for an answer that fits.
async fn until(bench: &Bench, qemu: &Qemu, question: Question, fits: impl Fn(&AgentSign) -> bool) {
    let wait = async {
        while !ask(bench, qemu, &question).await.iter().any(&fits) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(LONG, wait).await.is_err() {
        let last = ask(bench, qemu, &question).await;
        let console = std::fs::read_to_string(qemu.places(&bench.name).console.unwrap()).unwrap();
        panic!("{question:?} got no good answer: {last:?}; the console says: {console}");
    }
}

async fn until_it_serves(bench: &Bench, qemu: &Qemu) {
    let listens = |sign: &AgentSign| matches!(sign, AgentSign::Service { listens: true, waiting: 0, .. });
    until(bench, qemu, Question::Services(vec![(app(), 5432)]), listens).await;
}

async fn run(bench: &Bench, qemu: &Qemu, script: &str) {
    qemu.inject(&bench.name, &Injection::Script(script.into())).await.unwrap();
}

async fn operate(bench: &Bench, qemu: &Qemu, lease: &Lease, operation: Operation) {
    bench.try_do(qemu, lease, operation).await.unwrap();
}

#[tokio::test]
async fn a_linux_guest_is_asked_restarted_inside_reset_from_its_panic_and_shut_down() {
    let mut bench = Bench::new();
    bench.restarts.insert((bench.name.clone(), app()), words("service postgresql restart"));
    let qemu = bench.open_as(linux(&bench)).await;
    let lease = bench.start(&qemu).await;
    until_it_serves(&bench, &qemu).await;

    let mut health = ask(&bench, &qemu, &Question::Health).await;
    health.extend(ask(&bench, &qemu, &Question::Disks).await);
    assert!(health.contains(&AgentSign::Frozen(false)), "{health:?}");
    let is_root =
        |s: &AgentSign| matches!(s, AgentSign::FileSystem { mount, read_only: false, .. } if mount == "/");
    assert!(health.iter().any(is_root), "{health:?}");
    assert!(health.iter().any(|s| matches!(s, AgentSign::Memory { .. })), "{health:?}");
    let check = |script: &str| Question::Check(app(), ["sh", "-c", script].map(Into::into).into());
    let checked = ask(&bench, &qemu, &check("printf 'a\\033b'; exit 3")).await;
    assert!(checked.contains(&AgentSign::Check { passed: false, text: "a\\u{1b}b".into() }), "{checked:?}");
    let checked = ask(&bench, &qemu, &check("exit 0")).await;
    assert!(checked.contains(&AgentSign::Check { passed: true, text: String::new() }), "{checked:?}");

    hung_server(&bench, &qemu, &lease).await;
    panicked(&bench, &qemu, &lease).await;

    bench.forget_what_was_seen(&qemu).await; // a reset may be told twice
    run(&bench, &qemu, "reboot -f").await;
    let by_guest = Seen::Hypervisor(HypervisorSign::Reset { by_guest: true });
    bench.until(&qemu, "the reboot from inside", |seen| *seen == by_guest).await;
    until_it_serves(&bench, &qemu).await;
    operate(&bench, &qemu, &lease, Operation::Shutdown).await;
    let by_guest = Seen::Hypervisor(HypervisorSign::Shutdown { by_guest: true });
    bench.until(&qemu, "the shutdown from inside", |seen| *seen == by_guest).await;
    let exit = bench.until(&qemu, "the exit", is_exit).await.seen;
    let Seen::Process(ProcessSign::Exited { status, .. }) = exit else { panic!("{exit:?}") };
    assert_eq!(status, ExitStatus::Code(0));
}

async fn hung_server(bench: &Bench, qemu: &Qemu, lease: &Lease) {
    run(bench, qemu, "kill -STOP $(cat /var/lib/postgresql/*/main/postmaster.pid | head -n 1)").await;
    let address = qemu.places(&bench.name).ports[0].1;
    let clients = std::cell::RefCell::new(Vec::new());
    let waits = |sign: &AgentSign| {
        clients.borrow_mut().push(std::net::TcpStream::connect(address).unwrap());
        matches!(sign, AgentSign::Service { listens: true, waiting: 1.., .. })
    };
    until(bench, qemu, Question::Services(vec![(app(), 5432)]), waits).await;
    drop(clients);
    operate(bench, qemu, lease, Operation::RestartApp(app())).await;
    until_it_serves(bench, qemu).await;
    let unknown = bench.try_do(qemu, lease, Operation::RestartApp("other".parse().unwrap())).await;
    assert!(matches!(unknown, Err(DriverError::Refused { .. })), "{unknown:?}");
}

async fn panicked(bench: &Bench, qemu: &Qemu, lease: &Lease) {
    let memory = bench.counters(qemu).await;
    assert!(memory.memory_total.is_some_and(|total| total > 300 << 20), "{memory:?}");
    run(bench, qemu, "echo c > /proc/sysrq-trigger").await;
    bench.until(qemu, "the panic", |s| *s == Seen::Hypervisor(HypervisorSign::Panicked)).await;
    bench.until(qemu, "the stop for it", is_state(RunState::GuestPanicked)).await;
    let capture = Order::Capture { incarnation: lease.incarnation(), incident: IncidentId(3) };
    let kept = qemu.perform(&bench.name, &capture, LONG).await;
    assert!(matches!(&kept, Ok(Fact::Captured { files }) if files.len() == 4), "{kept:?}");
    let console = std::fs::read_to_string(bench.path("evidence/3/orders-console.txt")).unwrap();
    assert!(console.contains("Kernel panic"), "{console}");
    operate(bench, qemu, lease, Operation::Reset).await;
    assert_eq!(bench.state(qemu).await, Some(RunState::Running));
    until_it_serves(bench, qemu).await;
}

#[tokio::test]
async fn a_clone_of_a_warm_linux_serves_without_booting_and_is_thawed_on_order() {
    let mut bench = Bench::new(); // I16
    let vm = linux(&bench);
    let qemu = bench.open_as(vm.clone()).await;
    let lease = bench.start(&qemu).await;
    until_it_serves(&bench, &qemu).await;
    let frozen = |sign: &AgentSign| *sign == AgentSign::Frozen(true);
    // Through the socket for people: an order to freeze is not one that this driver gives.
    let agent = holdfast_drivers::qemu::agent::Agent::new(qemu.places(&bench.name).agent.unwrap(), 77);
    assert!(agent.session(LONG).await.unwrap().freeze().await.unwrap() >= 1);
    until(&bench, &qemu, Question::Health, frozen).await;
    operate(&bench, &qemu, &lease, Operation::Thaw).await;
    operate(&bench, &qemu, &lease, Operation::Thaw).await;
    until(&bench, &qemu, Question::Health, |sign| *sign == AgentSign::Frozen(false)).await;

    qemu.save_memory(&bench.name, &bench.path("memory"), LONG).await.unwrap();
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    std::fs::remove_dir_all(bench.path("run")).unwrap();
    let qemu = bench.open_as(QemuVm { memory_state: Some(bench.path("memory")), ..vm }).await;
    let began = std::time::Instant::now();
    let lease = bench.start(&qemu).await;
    println!("a clone runs after {:?}", began.elapsed());
    until_it_serves(&bench, &qemu).await;
    println!("a clone serves after {:?}", began.elapsed());
    let console = std::fs::read_to_string(qemu.places(&bench.name).console.unwrap()).unwrap();
    assert!(!console.contains("ready, up"), "it booted: {console}");
    bench.power_off(&qemu, &lease).await;
}
