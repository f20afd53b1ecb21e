//! Trials: what a VM's disk was boots beside the VM, and harms nothing.

use crate::bench::{Bench, LONG};
use crate::sector;
use holdfast_drivers::qemu::sandbox::{Disk, Plan, Sandbox, SandboxError, was_locked_out};
use holdfast_drivers::qemu::{Kernel, Network, QemuVm};
use holdfast_drivers::snapshots::Wanted;
use holdfast_drivers::{Driver, qemu::image::Layer, qemu::launch::Format};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

fn plan(bench: &Bench, disk: Disk) -> Plan {
    let (folder, run_folder) = (bench.path("trial"), bench.path("run"));
    std::fs::create_dir_all(&folder).unwrap();
    Plan { vm: bench.vm(), disk, folder, run_folder, ports: vec![5432], nice: 0, address: None }
}

/// Waits until the guest writes to its console, which it does after each write to its disk.
async fn until_it_writes(sandbox: &Sandbox) {
    while sandbox.last_lines().len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_gone(pid: u32) {
    // What nobody waits for stays as a zombie.
    let lives = || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| !status.contains("State:\tZ"))
    };
    while lives() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_snapshot_is_booted_beside_its_vm_and_neither_is_changed() {
    let mut bench = sector::bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let taken = qemu.snapshots().unwrap().take(&bench.name, Wanted::default(), LONG).await.unwrap();
    let frozen = std::fs::read(bench.path("disk")).unwrap();
    let files = qemu.files_of(&bench.name, taken.snapshot.id).await.unwrap();
    assert_eq!(files, [Layer { path: bench.path("disk"), format: Format::Raw, is_offered: false }]);

    let sandbox = Sandbox::start(plan(&bench, Disk::Files(files))).unwrap();
    let pid = sandbox.pid();
    tokio::time::timeout(LONG, until_it_writes(&sandbox)).await.unwrap();
    assert_eq!(sandbox.stuck().await, None);
    let [(5432, listen)] = sandbox.ports()[..] else { panic!("{:?}", sandbox.ports()) };
    std::net::TcpStream::connect(listen).unwrap();
    assert_ne!(qemu.places(&bench.name).pid, Some(pid), "it is not the VM");
    bench.until_it_writes(&qemu).await;
    sandbox.end().await.unwrap();
    assert!(!bench.path("trial").exists());
    tokio::time::timeout(LONG, until_gone(pid)).await.unwrap();
    assert_eq!(std::fs::read(bench.path("disk")).unwrap(), frozen);
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn one_that_could_not_begin_says_so_and_not_that_its_disk_is_of_no_use() {
    let mut bench = sector::bench();
    let qemu = bench.open().await;
    let layers = || vec![Layer { path: bench.path("disk"), format: Format::Raw, is_offered: false }];
    let gone = plan(&bench, Disk::Files(layers()));
    let image = bench.path("vmlinuz-6.1");
    let kernel = Some(Kernel { image, initrd: None, cmdline: String::new() });
    let gone = Plan { vm: QemuVm { kernel, ..gone.vm }, ..gone };
    let refused = Sandbox::start(gone).unwrap_err();
    assert!(
        matches!(refused, SandboxError::NotReady(_)) && refused.to_string().contains("vmlinuz-6.1"),
        "{refused}"
    );
    std::fs::remove_dir_all(bench.path("trial")).unwrap();

    let written = plan(&bench, Disk::Files(layers()));
    let lease = bench.start(&qemu).await; // it writes to that disk
    let sandbox = Sandbox::start(written).unwrap();
    let (said, _) = tokio::time::timeout(LONG, sandbox.ended()).await.unwrap();
    assert!(was_locked_out(&said), "{said}");
    sandbox.end().await.unwrap();
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn one_that_does_not_boot_says_so() {
    let bench = Bench::new();
    let layer = |format| vec![Layer { path: bench.path("disk"), format, is_offered: false }];
    std::fs::write(bench.path("disk"), vec![0; 1 << 20]).unwrap();
    let sandbox = Sandbox::start(plan(&bench, Disk::Files(layer(Format::Raw)))).unwrap();
    assert_eq!(sandbox.stuck().await, None, "it waits for ever");
    sandbox.end().await.unwrap();

    let mut damaged = vec![0; 1 << 16];
    damaged[..8].copy_from_slice(b"QFI\xfb\0\0\0\x09"); // of a version that is not there yet
    std::fs::write(bench.path("disk"), damaged).unwrap();
    let sandbox = Sandbox::start(plan(&bench, Disk::Files(layer(Format::Qcow2)))).unwrap();
    let (said, signal) = tokio::time::timeout(LONG, sandbox.ended()).await.unwrap();
    assert!(said.contains("version") && signal.is_none(), "{said}");
    sandbox.end().await.unwrap();

    let vm = QemuVm { memory: 1 << 50, ..bench.vm() };
    let refused = Sandbox::start(Plan { vm, ..plan(&bench, Disk::Files(layer(Format::Raw))) }).unwrap_err();
    assert!(matches!(refused, SandboxError::Memory { needed, .. } if needed > 1 << 30), "{refused}");
}

/// Not a test of its own: the part of a daemon that is killed by the test below.
#[tokio::test]
async fn play_the_daemon_that_is_killed() {
    let Some(folder) = std::env::var_os("HOLDFAST_TEST_TRIAL").map(std::path::PathBuf::from) else { return };
    let vm = QemuVm { disk: folder.join("disk"), network: Network::None, ..Bench::new().vm() };
    let disk = Disk::Files(vec![Layer { path: folder.join("disk"), format: Format::Raw, is_offered: false }]);
    let (trial, run_folder) = (folder.join("trial"), folder.clone());
    let plan = Plan { vm, disk, folder: trial, run_folder, ports: Vec::new(), nice: 0, address: None };
    let sandbox = Sandbox::start(plan).unwrap();
    println!("\nlaunched {}", sandbox.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn it_ends_with_who_started_it() {
    let bench = sector::bench();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::play_the_daemon_that_is_killed", "--nocapture"])
        .env("HOLDFAST_TEST_TRIAL", bench.path(""))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pid: u32 = lines.find_map(|line| line.strip_prefix("launched ")?.parse().ok()).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    tokio::time::timeout(LONG, until_gone(pid)).await.unwrap();
}
