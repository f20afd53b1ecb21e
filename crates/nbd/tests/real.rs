//! Against real programs of QEMU: what `qemu-nbd` offers is read, and what we offer is read by `qemu-img`.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_nbd::client::Client;
use holdfast_nbd::server::{Disk, serve};
use holdfast_nbd::{ALLOCATION, DIRTY_BITMAP, Extent, IS_DIRTY, IS_HOLE, NbdError, READS_ZERO};
use std::io;
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Runs a program of QEMU, which has to be there.
fn qemu(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install Debian's qemu-utils"));
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A `qemu-nbd` with an image of 96 MiB, of which the first MiB is 1, 33 to 34 is 2, and the rest is a hole; after a
/// bitmap was added, 64 KiB from 40 MiB on became 3.
struct Offered {
    folder: tempfile::TempDir,
    server: Child,
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

impl Offered {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.qcow2");
        let image = image.to_str().unwrap();
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", image, "96M"]);
        qemu("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -P 2 33M 1M", image]);
        qemu("qemu-img", &["bitmap", "--add", "-f", "qcow2", image, "since"]);
        qemu("qemu-io", &["-f", "qcow2", "-c", "write -P 3 40M 64k", image]);
        let socket = folder.path().join("socket");
        let mut server = Command::new("qemu-nbd");
        server.args([
            "--read-only",
            "--persistent",
            "--format=qcow2",
            "--bitmap=since",
            "--export-name=disk",
        ]);
        let server = server.arg(format!("--socket={}", socket.display())).arg(image).spawn();
        let offered = Self { folder, server: server.expect("Debian's qemu-utils has qemu-nbd") };
        offered.stream();
        offered
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn stream(&self) -> UnixStream {
        let begun = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return stream,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The ranges of one context that have these flags, joined.
fn ranges(client: &mut Client<UnixStream>, of: usize, flags: u32) -> Vec<Range<u64>> {
    let mut found = Vec::<Range<u64>>::new();
    let mut end = 0;
    let each = |which, begin, extent: Extent| {
        if which != of {
            return;
        }
        assert_eq!(begin, end, "extents follow each other");
        end = begin + extent.length;
        match found.last_mut() {
            _ if extent.flags & flags != flags => {}
            Some(last) if last.end == begin => last.end = end,
            _ => found.push(begin..end),
        }
    };
    client.map(each).unwrap();
    assert_eq!(end, client.export().size);
    found
}

#[test]
fn what_qemu_nbd_offers_is_read_with_its_holes_and_its_bitmap() {
    let offered = Offered::new();
    let bitmap = format!("{DIRTY_BITMAP}since");
    let contexts = [ALLOCATION, "qemu:dirty-bitmap:other", &bitmap];
    let mut client = Client::connect(offered.stream(), "disk", &contexts).unwrap();
    assert_eq!((client.export().size, client.export().is_read_only), (96 * MIB, true));
    assert_eq!([0, 1, 2, 3].map(|which| client.has_context(which)), [true, false, true, false]);
    let dirty = ranges(&mut client, 2, IS_DIRTY);
    assert!(matches!(&dirty[..], [one] if *one == (40 * MIB..40 * MIB + (64 << 10))), "{dirty:?}");
    let holes = ranges(&mut client, 0, IS_HOLE | READS_ZERO);
    assert_eq!(holes, [MIB..33 * MIB, 34 * MIB..40 * MIB, 40 * MIB + (64 << 10)..96 * MIB]);

    // Many at once, and each answer is that of its question.
    let asked: Vec<u64> = (0..48).map(|at| at * MIB + MIB / 2).collect();
    let cookies: Vec<_> = asked.iter().map(|at| client.ask(*at, MIB as u32).unwrap()).collect();
    assert_eq!(client.flying(), 48);
    for _ in &asked {
        let (cookie, bytes) = client.receive().unwrap();
        let at = asked[cookies.iter().position(|known| *known == cookie).unwrap()];
        let expected = |at: u64| match at {
            0..MIB => 1,
            _ if (33 * MIB..34 * MIB).contains(&at) => 2,
            _ if (40 * MIB..40 * MIB + (64 << 10)).contains(&at) => 3,
            _ => 0,
        };
        let bytes = bytes.unwrap();
        assert_eq!(bytes.len() as u64, MIB);
        assert!(bytes.iter().zip(at..).all(|(byte, at)| *byte == expected(at)), "{at}");
    }
    assert!(
        client.ask(96 * MIB, 1).is_err() && client.ask(u64::MAX, 1).is_err() && client.ask(0, 0).is_err()
    );
    client.disconnect().unwrap();
}

#[test]
fn an_export_that_is_not_there_is_said_and_the_next_client_is_served() {
    let offered = Offered::new();
    let refused = Client::connect(offered.stream(), "other", &[ALLOCATION]).unwrap_err();
    assert!(matches!(&refused, NbdError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("there is no such export"), "{refused}");
    let mut client = Client::connect(offered.stream(), "disk", &[]).unwrap();
    client.map(|_, _, _| unreachable!("no context was asked for")).unwrap();
    let cookie = client.ask(0, 4_096).unwrap();
    assert_eq!(client.receive().unwrap(), (cookie, Ok(vec![1; 4_096])));
}

/// A disk in memory, of which the second half is a hole until it is written to.
struct Memory(Mutex<Vec<u8>>);

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        bytes.copy_from_slice(&disk[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn extent(&self, offset: u64) -> Extent {
        let half = self.size() / 2;
        match offset < half {
            true => Extent { length: half - offset, flags: 0 },
            false => Extent { length: self.size() - offset, flags: IS_HOLE | READS_ZERO },
        }
    }
}

/// Serves a disk while `work` runs.
fn served(path: &Path, disk: &(dyn Disk + Sync), clients: usize, work: impl FnOnce(&str)) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..clients {
                serve(listener.accept().unwrap().0, "disk", disk).unwrap();
            }
        });
        work(&format!("nbd+unix:///disk?socket={}", path.display()));
    });
}

#[test]
fn what_we_offer_is_read_written_and_mapped_by_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let noise = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let mut bytes: Vec<u8> = (0..4 * MIB).map(noise).collect();
    bytes[2 * MIB as usize..].fill(0);
    let disk = Memory(Mutex::new(bytes.clone()));
    let out = folder.path().join("out.raw");
    served(&folder.path().join("socket"), &disk, 3, |uri| {
        let map = qemu("qemu-img", &["map", "--output=json", "--image-opts", &opts(uri)]);
        assert!(
            map.contains("\"start\": 2097152, \"length\": 2097152") && map.contains("\"zero\": true"),
            "{map}"
        );
        qemu("qemu-img", &["convert", "-f", "raw", "-O", "raw", uri, out.to_str().unwrap()]);
        assert!(std::fs::read(&out).unwrap() == bytes);
        qemu(
            "qemu-io",
            &["-f", "raw", "-c", "write -P 7 3M 64k", "-c", "flush", "-c", "read -P 7 3M 64k", uri],
        );
    });
    bytes[3 * MIB as usize..][..64 << 10].fill(7);
    assert!(*disk.0.lock().unwrap() == bytes);
}

/// An image that QEMU does not guess the format of.
fn opts(uri: &str) -> String {
    let socket = uri.split_once("?socket=").unwrap().1;
    format!("driver=raw,file.driver=nbd,file.export=disk,file.server.type=unix,file.server.path={socket}")
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let disk = Memory(Mutex::new(vec![9; 3 << 20]));
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(theirs, "disk", &disk));
        let mut client = Client::connect(ours, "disk", &[ALLOCATION]).unwrap();
        let half = 3 * MIB / 2;
        let zeros = ranges(&mut client, 0, READS_ZERO);
        assert!(matches!(&zeros[..], [one] if *one == (half..2 * half)), "{zeros:?}");
        client.ask(5, 7).unwrap();
        assert_eq!(client.receive().unwrap().1, Ok(vec![9; 7]));
        client.disconnect().unwrap();
        server.join().unwrap().unwrap();
    });
}
