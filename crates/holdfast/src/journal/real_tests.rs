//! The journal on real files: what the daemon truly records, and a real file system without room.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::reader::{Item, Reader, check};
use super::*;
use crate::disk::Folder;
use holdfast_core::action::{ActionId, CommandId, Order, Reason};
use holdfast_core::lease::{Death, DeathProof, ExitStatus, Incarnation};
use holdfast_core::signal::{ProcessSign, Seen, Signal};
use holdfast_core::subject::{Subject, VmName};
use holdfast_witness::Eyewitness;
use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};

fn who(at: Timestamp) -> Beginning {
    Beginning { host: "atlas".into(), boot: "b".into(), wall_offset: 0, at }
}

#[test]
fn an_input_and_its_actions_come_back_as_they_were() {
    let vm: VmName = "orders".parse().unwrap();
    let death = Death::Exited { pid: 7, status: ExitStatus::Signal(9) };
    let proof = DeathProof::witnessed(Eyewitness::here(), vm.clone(), Incarnation(3), death);
    let at = Timestamp::from_micros(1_234_567);
    let signal = Signal {
        subject: Subject::Vm(vm.clone()),
        incarnation: Some(Incarnation(3)),
        at,
        seen: Seen::Process(ProcessSign::Exited { proof: proof.clone(), status: ExitStatus::Signal(9) }),
    };
    let order = Order::TakeLease { proof };
    let action =
        Action { id: ActionId(9), vm, reason: Reason::Upkeep, order, deadline: at + Duration::from_secs(5) };
    let answers = vec![Answer { command: CommandId(1), refused: Some("no".into()) }];
    let entry = Entry { input: Input::Signal(signal), actions: vec![action], answers };
    let place = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folder::new(place.path()));
    let (mut journal, _) = Journal::open(disk.clone(), "", Limits::default()).unwrap();
    journal.begin(&who(at), b"state").unwrap();
    assert_eq!(journal.append(at, &entry).unwrap(), 1);
    journal.flush(at).unwrap();
    drop(journal);
    let (_, recovery) = Journal::open(disk, "", Limits::default()).unwrap();
    assert_eq!(recovery.checkpoint.as_ref().unwrap().bytes, b"state");
    let records: Vec<_> = recovery.records::<Entry>().map(Result::unwrap).collect();
    assert_eq!(records, [Record { n: 1, at, body: entry }]);
    assert_eq!((recovery.newest, recovery.next), (at, 2));
}

#[test]
fn a_record_of_another_program_ends_the_replay_with_its_reason() {
    let place = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folder::new(place.path()));
    let (mut journal, _) = Journal::open(disk.clone(), "", Limits::default()).unwrap();
    journal.begin(&who(Timestamp::ZERO), b"").unwrap();
    for text in ["\"a\"", "[1]", "\"b\""] {
        let body: serde_json::Value = serde_json::from_str(text).unwrap();
        journal.append(Timestamp::ZERO, &body).unwrap();
    }
    let (_, recovery) = Journal::open(disk, "", Limits::default()).unwrap();
    let records: Vec<_> = recovery.records::<String>().collect();
    assert_eq!(records.len(), 2);
    assert!(matches!(records[1], Err(Trouble::NotUnderstood { n: 2, .. })));
}

proptest! {
    #[test]
    fn a_number_comes_back_to_the_last_bit(number in proptest::num::f64::NORMAL) {
        let text = serde_json::to_string(&number).unwrap();
        let back: f64 = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.to_bits(), number.to_bits());
    }
}

/// A real file system of one megabyte, unmounted at the end.
struct Tiny(PathBuf);

impl Tiny {
    fn new(at: &Path) -> Self {
        let mounted = mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"size=1m"));
        assert!(mounted.is_ok(), "this test mounts a tmpfs; it needs root with CAP_SYS_ADMIN: {mounted:?}");
        Self(at.to_owned())
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_tmpfs_nothing_safe_is_lost_and_writing_goes_on_with_room_r25() {
    let place = tempfile::tempdir().unwrap();
    let tiny = Tiny::new(place.path());
    let filler = tiny.0.join("filler");
    std::fs::write(&filler, vec![0; 300_000]).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Folder::new(&tiny.0));
    let (mut journal, _) = Journal::open(disk.clone(), "", Limits::default()).unwrap();
    let mut now = Timestamp::ZERO;
    journal.begin(&who(now), b"[]").unwrap();
    let (mut safe, mut full) = (Vec::new(), None);
    for _ in 0..2_000 {
        now = now + Duration::from_millis(1);
        let recorded = journal.append(now, &"x".repeat(1_000));
        match recorded.and_then(|n| journal.flush(now).map(|()| n)) {
            Ok(n) => safe.push(n),
            Err(error) => full = full.or(Some(error)),
        }
    }
    let Some(JournalError::Disk { source, .. }) = full else { panic!("it should be full: {full:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(safe.len() > 300, "{}", safe.len());
    assert!(journal.wants_checkpoint(now));
    assert!(journal.begin(&who(now), &[b'x'; 50_000]).is_err(), "there is no room for a checkpoint");
    assert!(!journal.wants_checkpoint(now), "not again at once");
    assert_eq!(numbers(&disk), safe, "all that was safe is read back, and nothing more");

    std::fs::remove_file(filler).unwrap();
    now = now + TRY_AGAIN;
    assert!(journal.wants_checkpoint(now));
    journal.begin(&who(now), b"[1]").unwrap();
    safe.push(journal.append(now, &"y").unwrap());
    journal.flush(now).unwrap();
    assert_eq!(numbers(&disk), safe);
    let troubles = check(disk.clone(), "").unwrap();
    let missing = Trouble::Missing { first: safe[safe.len() - 2] + 1, last: 2_000 };
    assert_eq!(troubles.last(), Some(&missing), "{troubles:?}");
    let (_, recovery) = Journal::open(disk, "", Limits::default()).unwrap();
    assert_eq!(recovery.checkpoint.as_ref().unwrap().bytes, b"[1]");
    assert_eq!((recovery.records::<String>().count(), recovery.next), (1, 2_002));
    assert!(recovery.troubles.is_empty());
}

fn numbers(disk: &Arc<dyn Disk>) -> Vec<u64> {
    let items = Reader::<String>::folder(disk.clone(), "").unwrap();
    let number = |item: Item<String>| match item {
        Item::Record(record) => Some(record.n),
        Item::Segment(_) | Item::Checkpoint(_) | Item::Trouble(_) => None,
    };
    items.filter_map(number).collect()
}
