//! The disk of a VM that is off: it is read as the next start would find it, and a start never waits for that.

use crate::backup::{bench, image};
use crate::bench::{Bench, LONG, is_exit};
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::{Off, OffEnd, Qemu};
use holdfast_drivers::snapshots::Wanted;
use holdfast_drivers::{Driver, DriverError};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

async fn begin(qemu: &Qemu, vm: &VmName) -> Off {
    qemu.begin_off_backup(vm, LONG).await.unwrap()
}

async fn refused(qemu: &Qemu, vm: &VmName) -> String {
    qemu.begin_off_backup(vm, LONG).await.unwrap_err().to_string()
}

/// What is read there is the same as what QEMU finds in this image.
fn shows(off: &Off, image: &Path, format: &str) {
    let mut command = Command::new("qemu-img");
    command.args(["compare", "-f", "raw", "-F", format, &off.uri]).arg(image);
    let ended = command.output().expect("Debian's qemu-utils has qemu-img");
    assert!(ended.status.success(), "{ended:?}");
}

fn socket(off: &Off) -> PathBuf {
    off.uri.split_once("?socket=").unwrap().1.into()
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// QEMU ends in order, and its guest does not.
async fn quit(qemu: &Qemu, bench: &Bench) {
    let pid = qemu.places(&bench.name).pid.unwrap();
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    bench.until(qemu, "the exit", is_exit).await;
}

#[tokio::test]
async fn what_the_next_start_would_find_is_read_and_a_start_does_not_wait_for_it() {
    let mut bench = bench();
    let qemu = bench.open().await;
    // It never ran: nobody knows how it came to be as it is.
    let off = begin(&qemu, &bench.name).await;
    assert_eq!((off.size, &off.files[..], off.is_orderly), (64 << 20, &[bench.path("disk")][..], false));
    shows(&off, &bench.path("disk"), "qcow2");
    let (pid, at) = (off.pid(), socket(&off));
    assert_eq!(off.end().await, OffEnd::Said("it said nothing".into()));
    assert!(!is_there(pid) && !at.exists() && !at.parent().unwrap().exists());

    bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    assert!(refused(&qemu, &bench.name).await.contains("it was started in this moment"));
    qemu.snapshots().unwrap().take(&bench.name, Wanted::default(), LONG).await.unwrap();
    bench.until_it_writes(&qemu).await;
    quit(&qemu, &bench).await;
    let overlay = bench.path("disk.snapshots/1.qcow2");
    let off = begin(&qemu, &bench.name).await;
    assert_eq!((&off.files[..], off.is_orderly), (&[overlay.clone(), bench.path("disk")][..], false));
    shows(&off, &overlay, "qcow2");
    drop(off); // as if nobody had the time to end it

    // One that is being read, and one of which nobody read anything yet.
    for is_read in [true, false] {
        let off = begin(&qemu, &bench.name).await;
        let mut client = is_read.then(|| UnixStream::connect(socket(&off)).unwrap());
        client.iter_mut().for_each(|client| client.read_exact(&mut [0; 8]).unwrap());
        let began = Instant::now();
        let lease = bench.start(&qemu).await;
        println!("started in {:?}", began.elapsed());
        assert!(!is_there(off.pid()), "it was gone before the VM was started");
        if let Some(mut client) = client {
            let ended = client.read_to_end(&mut Vec::new());
            assert!(ended.is_err() || client.read(&mut [0]).is_ok_and(|more| more == 0));
        }
        assert!(UnixStream::connect(socket(&off)).is_err());
        assert_eq!(off.end().await, OffEnd::GaveWay);
        bench.until_it_writes(&qemu).await;
        bench.power_off(&qemu, &lease).await;
    }
}

/// Somebody who has this file open for writing.
pub fn writer_of(file: &Path) -> Child {
    let words = ["-c", "exec 9<>\"$0\"; exec sleep 1000"];
    let writer = Command::new("sh").args(words).arg(file).spawn().unwrap();
    while !std::fs::read_link(format!("/proc/{}/fd/9", writer.id())).is_ok_and(|at| at == file) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    writer
}

#[tokio::test]
async fn images_that_are_not_as_on_record_are_not_read() {
    let mut bench = bench(); // A31
    let qemu = bench.open().await;
    bench.start(&qemu).await;
    qemu.snapshots().unwrap().take(&bench.name, Wanted::default(), LONG).await.unwrap();
    quit(&qemu, &bench).await;
    let (overlay, other) = (bench.path("disk.snapshots/1.qcow2"), bench.path("other"));
    let over = |backing: &str| {
        image(&[
            "rebase",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            backing,
            overlay.to_str().unwrap(),
        ]);
    };
    image(&["create", "-q", "-f", "qcow2", other.to_str().unwrap(), "64M"]);
    over("../other");
    let why = refused(&qemu, &bench.name).await;
    assert!(why.contains("is to stand on") && why.contains("other") && why.contains("(A31)"), "{why}");
    over("");
    assert!(refused(&qemu, &bench.name).await.contains("stands on nothing"));
    over("/etc/passwd");
    assert!(refused(&qemu, &bench.name).await.contains("(A31)"));
    over("../disk");
    begin(&qemu, &bench.name).await.end().await;

    // Somebody else runs from it.
    let mut writer = writer_of(&overlay);
    let held = qemu.begin_off_backup(&bench.name, LONG).await;
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(matches!(held, Err(DriverError::Blocked { .. })), "{held:?}");
}

#[tokio::test]
async fn a_raw_disk_in_which_the_guest_wrote_the_head_of_an_image_is_not_taken_for_one() {
    let mut bench = crate::sector::bench(); // A31
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let off = begin(&qemu, &bench.name).await;
    shows(&off, &bench.path("disk"), "raw");
    off.end().await;
    let secret = bench.path("secret");
    std::fs::write(&secret, "of somebody else").unwrap();
    let (disk, secret) = (bench.path("disk"), secret.to_str().unwrap().to_owned());
    image(&["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &secret, disk.to_str().unwrap(), "1M"]);
    assert!(refused(&qemu, &bench.name).await.contains("was raw and now claims to be qcow2"));
}
