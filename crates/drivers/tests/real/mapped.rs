//! A QEMU that offers `mapped-ram` saves memory while the guest runs. Package `qemu-system-x86` of Debian 13, or of the
//! backports of Debian 12, which `scripts/qemu10.sh` unpacks where the installed one is older.

use crate::backup::People;
use crate::bench::{Bench, LONG};
use crate::sector;
use holdfast_core::action::{Order, Rewind};
use holdfast_core::lease::DeathProof;
use holdfast_core::point::{MemoryKind, Snapshot, SnapshotId};
use holdfast_core::signal::RunState;
use holdfast_drivers::qemu::{Qemu, QemuVm};
use holdfast_drivers::snapshots::Wanted;
use holdfast_drivers::{Driver, DriverError};
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn qemu10() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/qemu10.sh");
    let found = Command::new("bash").arg(script).output().expect("bash");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8_lossy(&found.stdout).trim().into()
}

async fn take(bench: &Bench, qemu: &Qemu) -> Snapshot {
    let wanted = Wanted { memory: true, ..Wanted::default() };
    qemu.snapshots().unwrap().take(&bench.name, wanted, LONG).await.unwrap().snapshot
}

async fn rewind(bench: &Bench, qemu: &Qemu, proof: &DeathProof, to: SnapshotId) -> Result<(), DriverError> {
    let to = Rewind { to: to.into(), resume: true, again: false };
    qemu.snapshots().unwrap().may_rewind(&bench.name, to).await?;
    qemu.perform(&bench.name, &Order::Rewind { proof: proof.clone(), to }, LONG).await.map(drop)
}

/// A QEMU that runs `program` and is silent about `mapped-ram` when it is asked before a start.
fn older(bench: &Bench, program: &Path, other: &str) -> PathBuf {
    let (path, program) = (bench.path("older"), program.display());
    std::fs::write(&path, format!("#!/bin/sh\n{program} \"$@\" | sed 's/{other}/something/'\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn memory_is_saved_while_the_guest_runs_and_only_a_qemu_that_can_read_it_goes_on_with_it() {
    let mut bench = sector::bench(); // I23
    let vm = QemuVm { program: Some(qemu10()), ..bench.vm() };
    let qemu = bench.open_as(vm.clone()).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let first = take(&bench, &qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    let memory = first.memory.clone().unwrap();
    assert_eq!(memory.kind, MemoryKind::Mapped);
    let file = std::fs::metadata(bench.path("disk.snapshots/1.memory")).unwrap();
    assert!(memory.bytes == file.blocks() * 512 && file.len() > vm.memory && memory.bytes < vm.memory / 2);
    assert_eq!(file.mode() & 0o777, 0o600, "a guest's memory is nobody's business");
    bench.until_it_writes(&qemu).await;
    let second = take(&bench, &qemu).await;
    let mut people = People::of(&qemu, &bench);
    let on: Vec<Value> = people.well("query-migrate-capabilities", Value::Null).as_array().unwrap().clone();
    assert!(on.iter().all(|one| one["state"] == false), "{on:?}");
    assert_eq!(people.well("query-fdsets", Value::Null), Value::Array(Vec::new()));
    drop(people);
    let proof = bench.power_off(&qemu, &lease).await;
    drop(qemu);

    for (silent_about, why) in [("mapped-ram", "newer QEMU"), (memory.machine_type.as_str(), "another QEMU")]
    {
        let program = Some(older(&bench, vm.program.as_deref().unwrap(), silent_about));
        let qemu = bench.open_as(QemuVm { program, ..bench.vm() }).await;
        let refused = rewind(&bench, &qemu, &proof, first.id).await.unwrap_err();
        assert!(
            refused.to_string().contains(why) && refused.to_string().contains("only be booted"),
            "{refused}"
        );
    }
    let qemu = bench.open_as(vm).await;
    for id in [first.id, second.id] {
        let proof = match id {
            id if id == first.id => proof.clone(),
            _ => {
                let lease = bench.start(&qemu).await;
                bench.power_off(&qemu, &lease).await
            }
        };
        rewind(&bench, &qemu, &proof, id).await.unwrap();
        let lease = bench.start(&qemu).await;
        assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
        bench.until_it_writes(&qemu).await;
        take(&bench, &qemu).await; // what goes on with a memory is like any other
        bench.power_off(&qemu, &lease).await;
    }
}
