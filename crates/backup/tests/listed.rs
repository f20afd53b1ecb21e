//! Points are listed several at once, and those of one VM without a look at any other: a store may be far away.

#![expect(clippy::unwrap_used, reason = "tests")]

mod memory;

use holdfast_backup::key::Cost;
use holdfast_backup::listed;
use holdfast_backup::point::Point;
use holdfast_backup::proof::{self, Proof, What};
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Store;
use memory::Memory;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked of a store: each request, and how many were under way at once at most.
#[derive(Default)]
struct Asked {
    now: usize,
    most: usize,
    all: Vec<String>,
}

/// A store that is far away.
struct Far(Box<dyn Store>, Arc<Mutex<Asked>>);

impl Far {
    fn ask<T>(&self, name: &str, answer: impl FnOnce(&dyn Store) -> io::Result<T>) -> io::Result<T> {
        let mut asked = self.1.lock().unwrap();
        asked.now += 1;
        asked.most = asked.most.max(asked.now);
        asked.all.push(name.to_owned());
        drop(asked);
        std::thread::sleep(Duration::from_millis(5));
        let answer = answer(&*self.0);
        self.1.lock().unwrap().now -= 1;
        answer
    }
}

impl Store for Far {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.ask(name, |store| store.put(name, bytes))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.ask(name, |store| store.read(name, offset, length))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        self.ask(folder, |store| store.list(folder))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(name, |store| store.remove(name))
    }
}

#[test]
fn points_are_read_several_at_once_and_of_one_vm_alone() {
    let cheap = Cost { memory: 8, rounds: 1, lanes: 1 };
    let store = Memory::default();
    Repository::create(Box::new(store.seen_by(None)), b"secret", cheap).unwrap();
    let mut repository = Repository::open(Box::new(store.seen_by(None)), b"secret").unwrap();
    for (vm, taken) in (0..24).map(|taken| ("orders", taken)).chain([("orders2", 1), ("web", 1)]) {
        let session = Session::begin(&mut repository, vm, &Writer::default()).unwrap();
        let point = Point { vm: vm.into(), sequence: 0, taken, disks: Vec::new(), note: String::new() };
        session.commit(&repository, point).unwrap();
    }
    let verified = Proof { what: What::Verified, when: 5, boot: 0, words: String::new() };
    for sequence in [3, 7] {
        proof::prove(&repository, &PointName { vm: "orders".into(), sequence }, &verified).unwrap();
    }

    let asked = Arc::new(Mutex::new(Asked::default()));
    let far = Far(Box::new(store.seen_by(None)), Arc::clone(&asked));
    let repository = Repository::open_unread(Box::new(far), b"secret").unwrap();
    *asked.lock().unwrap() = Asked::default();
    let points = listed::points(&repository, Some("orders")).unwrap();
    let numbers: Vec<u64> = points.iter().map(|listed| listed.name.sequence).collect();
    assert_eq!(numbers, (1..=24).collect::<Vec<_>>());
    let verified = points.iter().filter(|listed| listed.standing.verified == Some(5));
    assert_eq!(verified.map(|listed| listed.name.sequence).collect::<Vec<_>>(), [3, 7]);
    assert!(points.iter().all(|listed| listed.point.is_ok()));
    {
        let Asked { most, all, .. } = &*asked.lock().unwrap();
        assert!(*most >= 4, "{most} at once");
        // Two lists, each point, and of two of them its head and what is stated.
        assert_eq!(all.len(), 2 + 24 + 2 * 2, "{all:?}");
        assert!(all.iter().all(|name| name.split('/').nth(1) == Some("orders")), "{all:?}");
    }
    assert_eq!(listed::points(&repository, None).unwrap().len(), 26);
    assert!(listed::points(&repository, Some("../orders")).unwrap().is_empty());
}
