//! A guest of 46 bytes: it writes a dot to the serial line and a sector to the disk twenty times a second,
//! for ever.

use crate::bench::{Bench, LONG, SHORT, is_exit, is_state};
use holdfast_core::action::{Fact, Found, Operation, Order};
use holdfast_core::incident::IncidentId;
use holdfast_core::lease::{Death, ExitStatus, Token};
use holdfast_core::signal::{AgentPort, AgentSign, HypervisorSign, NetworkSign};
use holdfast_core::signal::{ProcessSign, ProcessState, RunState, Seen};
use holdfast_drivers::qemu::record::Record;
use holdfast_drivers::qemu::{Forward, Network, QemuVm};
use holdfast_drivers::{Driver, DriverError, Injection, Question, contract};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// ```text
///        xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7c00; sti
/// again: mov dx,0x3f8; mov al,'.'; out dx,al; mov al,10; out dx,al
///        mov ax,0x0301; mov bx,0x7c00; mov cx,2; mov dx,0x80; int 0x13
///        mov ah,0x86; xor cx,cx; mov dx,50000; int 0x15; jmp again
/// ```
const GUEST: [u8; 46] = [
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xba, 0xf8, 0x03, 0xb0, 0x2e,
    0xee, 0xb0, 0x0a, 0xee, 0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7c, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd,
    0x13, 0xb4, 0x86, 0x31, 0xc9, 0xba, 0x50, 0xc3, 0xcd, 0x15, 0xeb, 0xde,
];

/// A bench with that guest.
pub fn bench() -> Bench {
    let bench = Bench::new();
    let mut disk = vec![0; 1 << 20];
    disk[..GUEST.len()].copy_from_slice(&GUEST);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(bench.path("disk"), disk).unwrap();
    bench
}

#[tokio::test]
async fn the_driver_keeps_the_contract_of_all_drivers() {
    let bench = bench();
    let qemu = bench.open().await;
    contract::check(&qemu, &bench.name, &"here".parse().unwrap(), LONG).await.unwrap();
}

#[tokio::test]
async fn a_vm_is_started_looked_at_paused_reset_and_ended_with_proof() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let Found::Dead(proof) = qemu.inspect(&name).await.unwrap() else { panic!("it never ran") };
    assert_eq!(proof.death(), &Death::NeverStarted);
    let lease = bench.start(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;
    let console = qemu.places(&name).console.unwrap();
    assert!(std::fs::read_to_string(console).unwrap().contains('.'));

    bench.try_do(&qemu, &lease, Operation::Pause).await.unwrap();
    bench.until(&qemu, "the pause", is_state(RunState::Paused)).await;
    bench.try_do(&qemu, &lease, Operation::Pause).await.unwrap();
    assert_eq!(bench.state(&qemu).await, Some(RunState::Paused));
    bench.try_do(&qemu, &lease, Operation::Continue).await.unwrap();
    bench.until(&qemu, "the end of the pause", is_state(RunState::Running)).await;
    bench.try_do(&qemu, &lease, Operation::Pause).await.unwrap();
    bench.try_do(&qemu, &lease, Operation::Reset).await.unwrap();
    let reset = Seen::Hypervisor(HypervisorSign::Reset { by_guest: false });
    bench.until(&qemu, "the reset", |seen| *seen == reset).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;

    let pid = qemu.places(&name).pid.unwrap();
    let proof = bench.power_off(&qemu, &lease).await;
    assert_eq!(proof.death(), &Death::Exited { pid, status: ExitStatus::Signal(9) });
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(bench.until(&qemu, "the exit", is_exit).await.incarnation, lease.incarnation());
    assert_eq!(bench.power_off(&qemu, &lease).await, proof);
    assert!(matches!(qemu.inspect(&name).await.unwrap(), Found::Dead(found) if found == proof));
    assert_eq!(qemu.poll(&name, SHORT).await, []);
}

#[tokio::test]
async fn qemu_is_nobody_on_the_host_and_gets_nothing_that_is_not_its_own() {
    let mut bench = bench();
    let uid = std::fs::metadata(bench.path("disk")).unwrap().uid();
    let status = |pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |text: &str, name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).map(ToOwned::to_owned)
    };
    if uid != 0 {
        return; // only root can become another
    }
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let status = status(qemu.places(&bench.name).pid.unwrap());
    let qemus = field(&status, "Uid:").unwrap();
    assert!(!qemus.split_whitespace().any(|uid| uid == "0"), "{qemus}");
    assert_eq!(field(&status, "Groups:").unwrap_or_default(), "");
    assert_eq!(field(&status, "CapEff:").unwrap().trim_start_matches('0'), "");
    assert_eq!(field(&status, "Seccomp:").unwrap(), "2");
    let owner = |name: &str| std::fs::metadata(bench.path(name)).unwrap().uid();
    assert_eq!((owner("run/orders/run"), owner("run/orders/qemu.log"), owner("run/orders")), (0, 0, 0));
    assert_ne!(owner("disk"), 0);
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    // Where that user cannot get, QEMU runs as we do, rather than not at all.
    std::fs::set_permissions(bench.path(""), std::fs::Permissions::from_mode(0o700)).unwrap();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    // A disk with a second name is not handed over: the other name may be anything.
    std::fs::set_permissions(bench.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(bench.path("disk"), bench.path("other")).unwrap();
    let lease = bench.lease();
    let refused = qemu.perform(&bench.name, &Order::Start { lease }, LONG).await.unwrap_err();
    assert!(refused.to_string().contains("one name only"), "{refused}");
}

#[tokio::test]
async fn old_orders_are_refused_also_after_a_restart_of_ours() {
    let mut bench = bench(); // I3
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let old = bench.start(&qemu).await;
    let again = qemu.perform(&name, &Order::Start { lease: old.clone() }, LONG).await;
    assert!(matches!(again, Ok(Fact::Started { .. })), "repeating a start is harmless: {again:?}");
    bench.power_off(&qemu, &old).await;
    let reused = qemu.perform(&name, &Order::Start { lease: old.clone() }, LONG).await;
    assert!(matches!(reused, Err(DriverError::Stale { .. })), "{reused:?}");
    let lease = bench.start(&qemu).await;
    for qemu in [qemu, bench.open().await] {
        let stale = |done: Result<Fact, DriverError>| matches!(done, Err(DriverError::Stale { .. }));
        assert!(stale(bench.try_do(&qemu, &old, Operation::Pause).await));
        let lower = bench.lease_for(lease.incarnation(), Token(lease.token().0 - 1));
        assert!(stale(bench.try_do(&qemu, &lower, Operation::Pause).await));
        let (incarnation, token) = (old.incarnation(), lease.token());
        assert!(stale(qemu.perform(&name, &Order::PowerOff { incarnation, token }, LONG).await));
        assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    }
    let qemu = bench.open().await;
    let higher = bench.lease_for(lease.incarnation(), Token(lease.token().0 + 5));
    bench.try_do(&qemu, &higher, Operation::Continue).await.unwrap();
    drop(qemu);
    let qemu = bench.open().await;
    let stale = bench.try_do(&qemu, &lease, Operation::Pause).await;
    assert!(matches!(stale, Err(DriverError::Stale { .. })), "a raised token is remembered: {stale:?}");
    bench.power_off(&qemu, &higher).await;
}

#[tokio::test]
async fn a_running_vm_is_adopted_and_keeps_its_ports() {
    let mut bench = bench(); // I7
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    let places = qemu.places(&name);
    drop(qemu);
    let qemu = bench.open().await;
    assert_eq!(qemu.places(&name), places);
    bench.until_it_writes(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    qemu.inject(&name, &Injection::Kill).await.unwrap();
    bench.until(&qemu, "the exit", is_exit).await;
    bench.start(&qemu).await;
    assert_eq!(qemu.places(&name).ports, places.ports);
    let Found::Running { seen, .. } = qemu.inspect(&name).await.unwrap() else { panic!() };
    assert_eq!(seen.incarnation(), lease.incarnation().next());
    let lease = bench.lease_for(seen.incarnation(), Token(20));
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_start_that_was_refused_leaves_no_control_group() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    std::fs::create_dir(bench.path("run/orders/qemu.log.1")).unwrap(); // nothing can be put aside there
    let lease = bench.lease();
    let incarnation = lease.incarnation();
    let error = qemu.perform(&name, &Order::Start { lease }, LONG).await.unwrap_err();
    assert!(!error.is_unknown(), "{error}");
    let Found::Dead(proof) = qemu.inspect(&name).await.unwrap() else { panic!("it is dead") };
    assert_eq!((proof.incarnation(), proof.death()), (incarnation, &Death::StartRefused));
    let record = Record::read(&bench.path("run/orders/run")).unwrap();
    assert!(record.cgroup.is_none_or(|group| !group.exists() && !group.parent().unwrap().exists()));
}

#[tokio::test]
async fn a_start_that_is_refused_before_there_is_a_process_is_used_up_too() {
    let mut bench = bench(); // I3
    let qemu = bench.open().await;
    let (disk, away) = (bench.path("disk"), bench.path("away"));
    std::fs::rename(&disk, &away).unwrap();
    let lease = bench.lease();
    let start = Order::Start { lease: lease.clone() };
    let refused = qemu.perform(&bench.name, &start, LONG).await;
    assert!(matches!(refused, Err(DriverError::Refused { .. })), "{refused:?}");
    let Found::Dead(proof) = qemu.inspect(&bench.name).await.unwrap() else { panic!("it is dead") };
    assert_eq!((proof.incarnation(), proof.death()), (lease.incarnation(), &Death::StartRefused));
    std::fs::rename(&away, &disk).unwrap();
    let again = qemu.perform(&bench.name, &start, LONG).await;
    assert!(matches!(again, Err(DriverError::Stale { .. })), "{again:?}");
    let lease = bench.start(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_vm_whose_record_is_lost_is_found_by_what_it_says_of_itself() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    drop(qemu);
    let record = bench.path("run/orders/run");
    std::fs::write(&record, "no record").unwrap(); // R28
    let qemu = bench.open().await;
    let Found::Running { seen, .. } = qemu.inspect(&name).await.unwrap() else { panic!() };
    assert_eq!(seen.incarnation(), lease.incarnation());
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    std::fs::write(&record, "no record").unwrap();
    for _ in 0..2 {
        let qemu = bench.open().await;
        assert!(matches!(qemu.inspect(&name).await.unwrap(), Found::Unclear { .. }));
        let lease = bench.lease();
        let start = qemu.perform(&name, &Order::Start { lease }, LONG).await;
        assert!(matches!(start, Err(DriverError::Refused { .. })), "{start:?}");
    }
}

#[tokio::test]
async fn a_crash_of_ours_in_the_middle_of_a_start_leaves_no_doubt() {
    let mut bench = bench(); // I8, I9: the record says that a start was meant, not whether it was made
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    drop(qemu);
    let path = bench.path("run/orders/run");
    let before = Record { process: None, ..Record::read(&path).unwrap() };
    before.write(&path).unwrap();
    let qemu = bench.open().await;
    let found = qemu.inspect(&name).await.unwrap();
    assert!(
        matches!(found, Found::Running { seen, .. } if seen.incarnation() == lease.incarnation()),
        "{found:?}"
    );
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    before.write(&path).unwrap();
    let qemu = bench.open().await;
    let Found::Dead(proof) = qemu.inspect(&name).await.unwrap() else { panic!("it is dead") };
    assert_eq!((proof.incarnation(), proof.death()), (lease.incarnation(), &Death::StartRefused));
    assert!(before.cgroup.is_none_or(|group| !group.exists()), "its control group is gone too");
    let again = qemu.perform(&name, &Order::Start { lease }, LONG).await;
    assert!(matches!(again, Err(DriverError::Stale { .. })), "{again:?}");
}

#[tokio::test]
async fn a_vm_without_its_control_socket_is_alive_and_can_be_ended() {
    let mut bench = bench(); // R14
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    std::fs::remove_file(bench.path("run/orders/vm/control")).unwrap();
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running)); // we are connected already
    drop(qemu);
    let qemu = bench.open().await;
    let silent = |seen: &Seen| matches!(seen, Seen::Hypervisor(HypervisorSign::NoAnswer { .. }));
    assert!(qemu.poll(&name, SHORT).await.iter().any(|glimpse| silent(&glimpse.seen)));
    assert_eq!(bench.state(&qemu).await, None);
    let (incarnation, token) = (lease.incarnation(), lease.token());
    let pause = Order::Perform { incarnation, token, operation: Operation::Pause };
    let error = qemu.perform(&name, &pause, SHORT).await.unwrap_err();
    assert!(!error.is_unknown(), "nothing was asked: {error}");
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_vm_that_hung_before_we_came_is_adopted_and_heard_when_it_wakes() {
    let mut bench = bench(); // R13: its socket takes us and says nothing
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    qemu.inject(&name, &Injection::Stop).await.unwrap();
    drop(qemu);
    let qemu = bench.open().await;
    assert_eq!(bench.state(&qemu).await, None);
    qemu.inject(&name, &Injection::Unstop).await.unwrap();
    bench.until_it_writes(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_stopped_process_is_silent_not_dead_and_can_be_ended() {
    let mut bench = bench(); // R10
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    qemu.inject(&name, &Injection::Stop).await.unwrap();
    for _ in 0..3 {
        let glimpses = qemu.poll(&name, SHORT).await;
        assert!(glimpses.iter().any(|g| matches!(g.seen, Seen::Hypervisor(HypervisorSign::NoAnswer { .. }))));
    }
    let seen = qemu.poll(&name, SHORT).await.pop().unwrap().seen;
    assert!(
        matches!(seen, Seen::Process(ProcessSign::Alive { state: ProcessState::Stopped, .. })),
        "{seen:?}"
    );
    assert_eq!(bench.state(&qemu).await, None);
    let (incarnation, token) = (lease.incarnation(), lease.token());
    let pause = Order::Perform { incarnation, token, operation: Operation::Pause };
    let error = qemu.perform(&name, &pause, SHORT).await.unwrap_err();
    let _either = error.is_unknown(); // asked or not, it came back in time
    qemu.inject(&name, &Injection::Unstop).await.unwrap();
    assert!(bench.state(&qemu).await.is_some());
    qemu.inject(&name, &Injection::Stop).await.unwrap();
    let proof = bench.power_off(&qemu, &lease).await;
    assert!(matches!(proof.death(), Death::Exited { status: ExitStatus::Signal(9), .. }));
}

#[tokio::test]
async fn a_failing_disk_pauses_the_vm_and_it_goes_on_when_the_disk_is_back() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    qemu.inject(&name, &Injection::DiskError(true)).await.unwrap();
    let is_error = |seen: &Seen| matches!(seen, Seen::Hypervisor(HypervisorSign::IoError { .. }));
    bench.until(&qemu, "the I/O error", is_error).await;
    bench.until(&qemu, "the pause for it", is_state(RunState::IoError)).await;
    bench.try_do(&qemu, &lease, Operation::Continue).await.unwrap();
    bench.until(&qemu, "the next pause", is_state(RunState::IoError)).await;
    qemu.inject(&name, &Injection::DiskError(false)).await.unwrap();
    assert_eq!(bench.state(&qemu).await, Some(RunState::IoError)); // to let it run on is a remedy
    bench.try_do(&qemu, &lease, Operation::Continue).await.unwrap();
    bench.until_it_writes(&qemu).await;
    qemu.inject(&name, &Injection::DiskSlow(Some(1))).await.unwrap();
    qemu.inject(&name, &Injection::DiskSlow(None)).await.unwrap();
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn the_cable_is_pulled_and_the_silence_of_an_absent_agent_is_told() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    bench.try_do(&qemu, &lease, Operation::LinkDown).await.unwrap();
    let down = Seen::Network(NetworkSign::Link { up: false });
    bench.until(&qemu, "the pulled cable", |seen| *seen == down).await;
    bench.try_do(&qemu, &lease, Operation::LinkUp).await.unwrap();
    qemu.inject(&name, &Injection::LinkDown(true)).await.unwrap();
    let heard = qemu.ask(&name, &Question::Ping, SHORT).await;
    let expected =
        |sign: &Seen| matches!(sign, Seen::Agent(AgentSign::NoAnswer { port: AgentPort::Closed, .. }));
    assert!(heard.iter().all(|g| expected(&g.seen)) && heard.len() == 1, "{heard:?}");
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn evidence_is_kept_of_a_silent_vm_too() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let capture = |id| Order::Capture { incarnation: lease.incarnation(), incident: IncidentId(id) };
    let Ok(Fact::Captured { files }) = qemu.perform(&name, &capture(7), LONG).await else { panic!() };
    let kept = ["process.txt", "console.txt", "screen.png", "registers.txt"].map(|n| format!("7/orders-{n}"));
    assert_eq!(files, kept);
    let read = |name: &str| std::fs::read(bench.path("evidence").join(name)).unwrap();
    assert!(read("7/orders-screen.png").starts_with(b"\x89PNG"));
    assert!(String::from_utf8(read("7/orders-registers.txt")).unwrap().contains("EIP="));
    assert!(String::from_utf8(read("7/orders-process.txt")).unwrap().contains("CPU 0/TCG"));
    qemu.inject(&name, &Injection::Stop).await.unwrap();
    let stat = format!("/proc/{}/stat", qemu.places(&name).pid.unwrap());
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {}
    let Ok(Fact::Captured { files }) = qemu.perform(&name, &capture(8), LONG).await else { panic!() };
    assert_eq!(files, ["process.txt", "console.txt"].map(|n| format!("8/orders-{n}")));
    qemu.inject(&name, &Injection::Unstop).await.unwrap();
    bench.until_it_writes(&qemu).await;
    let asked = bench.path("run").join("orders/vm/screen.png");
    assert!(!asked.exists(), "a stopped QEMU is asked for nothing, so it has nothing to do when it goes on");
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn an_image_that_a_foreign_process_writes_is_not_opened_and_the_process_is_named() {
    let mut bench = bench(); // R15
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let mut foreign = std::process::Command::new("qemu-system-x86_64")
        .args(["-M", "none", "-nodefaults", "-display", "none", "-S", "-blockdev"])
        .arg(format!(
            "driver=raw,node-name=d,file.driver=file,file.filename={}",
            bench.path("disk").display()
        ))
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = foreign.id();
    let opened = || {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| to == bench.path("disk"))
    };
    while !opened() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lease = bench.lease();
    let error = qemu.perform(&name, &Order::Start { lease }, LONG).await.unwrap_err();
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    assert!(!error.is_unknown());
    let lease = bench.start(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_start_that_qemu_refuses_is_certainly_not_done_and_says_why() {
    let mut bench = bench();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let network = Network::User(vec![Forward { listen, guest: 5432 }]);
    let qemu = bench.open_as(QemuVm { network, ..bench.vm() }).await;
    let (name, lease) = (bench.name.clone(), bench.lease());
    let incarnation = lease.incarnation();
    let error = qemu.perform(&name, &Order::Start { lease }, LONG).await.unwrap_err();
    assert!(!error.is_unknown() && error.to_string().contains("hostfwd"), "{error}");
    let Found::Dead(proof) = qemu.inspect(&name).await.unwrap() else { panic!("it is dead") };
    assert_eq!(proof.incarnation(), incarnation);
    drop(taken);
    let lease = bench.start(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_saved_memory_goes_on_where_it_was_and_is_not_lived_twice() {
    let mut bench = bench(); // I23
    let qemu = bench.open().await;
    let name = bench.name.clone();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    qemu.save_memory(&name, &bench.path("memory"), LONG).await.unwrap();
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    std::fs::remove_dir_all(bench.path("run")).unwrap();
    let vm = QemuVm { memory_state: Some(bench.path("memory")), ..bench.vm() };
    let qemu = bench.open_as(vm).await;
    let lease = bench.start(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let lease = bench.start(&qemu).await; // boots
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_raw_disk_that_claims_to_be_qcow2_is_refused_and_another_disk_is_not() {
    let mut bench = bench(); // A31
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    drop(qemu);
    let convert = |to: &str| {
        let mut command = std::process::Command::new("qemu-img");
        command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(bench.path("disk")).arg(bench.path(to));
        assert!(command.status().expect("qemu-img, package qemu-utils").success());
    };
    convert("other");
    convert("same");
    std::fs::rename(bench.path("same"), bench.path("disk")).unwrap();

    let qemu = bench.open().await;
    let lease = bench.lease();
    let refused = qemu.perform(&bench.name, &Order::Start { lease }, LONG).await.unwrap_err();
    assert!(refused.to_string().contains("was raw and now claims to be qcow2"), "{refused}");
    drop(qemu);
    let qemu = bench.open_as(QemuVm { disk: bench.path("other"), ..bench.vm() }).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}
