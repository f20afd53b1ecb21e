//! Which files a disk is made of once snapshots were taken of it: what stands on what, and what may go.
//!
//! The configured disk is file 0. A snapshot freezes the file that was written to, and an empty overlay on top of it is
//! written to from then on; going back puts a new overlay on a frozen file, and freezes what was there before. So only
//! the top is ever written to, and nothing that a snapshot needs ever changes (I15). A disk that was restored from a backup
//! has an overlay that stands on no file: on the backup, as long as not all of it has come in.

use super::super::launch::Format;
use holdfast_core::point::{Snapshot, SnapshotId};
use serde::{Deserialize, Serialize};

/// A file of a disk; 0 is the configured disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The disk that is configured.
    pub const BASE: Self = Self(0);
}

/// The backup that a disk was restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The repository, by the name that it has in the configuration.
    pub to: String,
    /// The repository, by its own number.
    pub repository: String,
    /// The point, as `VM/NUMBER`.
    pub point: String,
}

/// An overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Overlay {
    number: FileNumber,
    parent: Option<FileNumber>,
    /// Where it has no parent: what it stood on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
}

/// A snapshot, and the file that is frozen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Frozen {
    file: FileNumber,
    #[serde(flatten)]
    snapshot: Snapshot,
}

/// All files of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// How the configured disk is laid out, as it was when the first snapshot was taken (A31).
    pub base: Format,
    /// The memory that the next start is to resume.
    pub resume: Option<SnapshotId>,
    next: u64,
    top: FileNumber,
    overlays: Vec<Overlay>,
    frozen: Vec<Frozen>,
    /// An overlay that is being put on top; nobody knows yet whether it is.
    pending: Option<FileNumber>,
}

/// What can be done about files that no snapshot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// Nothing stands on it: it may be removed.
    Leaf(FileNumber),
    /// Only one file of the running chain stands on it: that can be merged into it.
    Inner {
        /// What is merged.
        from: FileNumber,
        /// Into what.
        into: FileNumber,
    },
}

impl Tree {
    /// A disk of which there are no snapshots.
    #[must_use]
    pub const fn of(base: Format) -> Self {
        Self {
            base,
            resume: None,
            next: 1,
            top: FileNumber::BASE,
            overlays: Vec::new(),
            frozen: Vec::new(),
            pending: None,
        }
    }

    /// The file that is written to.
    #[must_use]
    pub const fn top(&self) -> FileNumber {
        self.top
    }

    /// What it stands on, itself first, the configured disk last.
    #[must_use]
    pub fn chain(&self) -> Vec<FileNumber> {
        self.chain_of(self.top)
    }

    /// The same of any file.
    #[must_use]
    pub fn chain_of(&self, file: FileNumber) -> Vec<FileNumber> {
        let mut chain = vec![file];
        while let Some(parent) = chain.last().and_then(|file| self.parent(*file)) {
            if chain.len() > self.overlays.len() {
                break; // a record that goes in circles
            }
            chain.push(parent);
        }
        chain
    }

    fn overlay(&self, file: FileNumber) -> Option<&Overlay> {
        self.overlays.iter().find(|overlay| overlay.number == file)
    }

    /// The file that it stands on.
    #[must_use]
    pub fn parent(&self, file: FileNumber) -> Option<FileNumber> {
        self.overlay(file)?.parent
    }

    fn children(&self, file: FileNumber) -> impl Iterator<Item = FileNumber> {
        let stands = move |overlay: &&Overlay| overlay.parent == Some(file);
        self.overlays.iter().filter(stands).map(|overlay| overlay.number)
    }

    /// The file at the bottom of what is written to, and the backup that it was made from, if it was.
    #[must_use]
    pub fn restored(&self) -> Option<(FileNumber, &Origin)> {
        self.restored_below(self.top)
    }

    /// The same of any file.
    #[must_use]
    pub fn restored_below(&self, file: FileNumber) -> Option<(FileNumber, &Origin)> {
        let bottom = self.chain_of(file).last().copied()?;
        Some((bottom, self.overlay(bottom)?.origin.as_ref()?))
    }

    /// Its files that were made from a backup, whatever stands on them.
    pub fn from_backups(&self) -> impl Iterator<Item = FileNumber> {
        self.overlays.iter().filter(|overlay| overlay.origin.is_some()).map(|overlay| overlay.number)
    }

    /// Its snapshots, oldest first.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.frozen.iter().map(|frozen| &frozen.snapshot)
    }

    /// One of them.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.snapshots().find(|snapshot| snapshot.id == id)
    }

    /// One of them, to be changed.
    pub fn snapshot_mut(&mut self, id: SnapshotId) -> Option<&mut Snapshot> {
        self.frozen.iter_mut().map(|frozen| &mut frozen.snapshot).find(|snapshot| snapshot.id == id)
    }

    /// The file that is frozen for it.
    #[must_use]
    pub fn file_of(&self, id: SnapshotId) -> Option<FileNumber> {
        self.frozen.iter().find(|frozen| frozen.snapshot.id == id).map(|frozen| frozen.file)
    }

    /// The number that the next snapshot, and the overlay for it, will have.
    #[must_use]
    pub const fn next(&self) -> SnapshotId {
        SnapshotId(self.next)
    }

    /// The overlay that is being put on top.
    #[must_use]
    pub const fn pending(&self) -> Option<FileNumber> {
        self.pending
    }

    /// Notes that an overlay is about to be put on top. Written down before it is done.
    pub const fn begin(&mut self) -> FileNumber {
        let number = FileNumber(self.next);
        self.next += 1;
        self.pending = Some(number);
        number
    }

    /// Another has the next number already.
    pub const fn skip(&mut self) {
        self.next += 1;
    }

    /// The overlay is certainly not on top, and will not be.
    pub const fn give_up(&mut self) {
        self.pending = None;
    }

    /// The overlay is on top. With a snapshot, that is of what was the top before.
    pub fn settle(&mut self, snapshot: Option<Snapshot>) {
        let Some(number) = self.pending.take() else { return };
        let file = self.top;
        self.overlays.push(Overlay { number, parent: Some(file), origin: None });
        self.frozen.extend(snapshot.map(|snapshot| Frozen { file, snapshot }));
        self.top = number;
    }

    /// Goes back to a snapshot: the overlay that was begun goes on top of its file, and `aside` is the snapshot of what
    /// was on top. With `resume` the next start goes on with its memory.
    pub fn rewind(&mut self, to: SnapshotId, aside: Snapshot, resume: bool) {
        let (Some(parent), Some(number)) = (self.file_of(to), self.pending.take()) else { return };
        self.overlays.push(Overlay { number, parent: Some(parent), origin: None });
        self.put_aside(aside, number);
        self.resume = resume.then_some(to);
    }

    /// Goes back to a backup: the overlay that was begun stands on it, and `aside` is the snapshot of what was on top.
    pub fn restore(&mut self, origin: Origin, aside: Snapshot) {
        let Some(number) = self.pending.take() else { return };
        self.overlays.push(Overlay { number, parent: None, origin: Some(origin) });
        self.put_aside(aside, number);
        self.resume = None;
    }

    fn put_aside(&mut self, aside: Snapshot, top: FileNumber) {
        self.frozen.push(Frozen { file: self.top, snapshot: aside });
        self.top = top;
    }

    /// Forgets a snapshot. What it needed alone is then spare.
    pub fn forget(&mut self, id: SnapshotId) -> Option<Snapshot> {
        let at = self.frozen.iter().position(|frozen| frozen.snapshot.id == id)?;
        Some(self.frozen.remove(at).snapshot)
    }

    /// What to do next about files that no snapshot needs: leaves first, then the newest merge, whose file is smallest.
    #[must_use]
    pub fn spare(&self) -> Option<Spare> {
        let needed = |file: FileNumber| self.frozen.iter().any(|frozen| frozen.file == file);
        let leaf = |overlay: &&Overlay| {
            let file = overlay.number;
            file != self.top && !needed(file) && self.children(file).next().is_none()
        };
        if let Some(leaf) = self.overlays.iter().find(leaf) {
            return Some(Spare::Leaf(leaf.number));
        }
        let only_child = |file: FileNumber| {
            let mut children = self.children(file);
            children.next().filter(|_| children.next().is_none())
        };
        let chain = self.chain();
        let mergeable = |pair: &[FileNumber]| {
            let [from, into] = *pair else { return None };
            let alone = only_child(into) == Some(from);
            let followed = from == self.top || only_child(from).is_some();
            (!needed(into) && alone && followed).then_some(Spare::Inner { from, into })
        };
        chain.windows(2).find_map(mergeable)
    }

    /// A leaf was removed.
    pub fn removed(&mut self, leaf: FileNumber) {
        self.overlays.retain(|overlay| overlay.number != leaf);
    }

    /// Whether it is a file of the disk that stands on that one.
    #[must_use]
    pub fn stands_on(&self, file: FileNumber, below: FileNumber) -> bool {
        self.parent(file) == Some(below)
    }

    /// Its files beside the configured disk.
    pub fn overlays(&self) -> impl Iterator<Item = FileNumber> {
        self.overlays.iter().map(|overlay| overlay.number)
    }

    /// Whether it is one of the disk's files.
    #[must_use]
    pub fn has(&self, file: FileNumber) -> bool {
        file == FileNumber::BASE || self.overlay(file).is_some()
    }

    /// All of `from` is in `into` now, which takes its place.
    pub fn merged(&mut self, from: FileNumber, into: FileNumber) {
        self.removed(from);
        for overlay in self.overlays.iter_mut().filter(|overlay| overlay.parent == Some(from)) {
            overlay.parent = Some(into);
        }
        for frozen in self.frozen.iter_mut().filter(|frozen| frozen.file == from) {
            frozen.file = into;
        }
        if self.top == from {
            self.top = into;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::written::Marks;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn snapshot(id: u64) -> Snapshot {
        Snapshot {
            id: SnapshotId(id),
            taken: 0,
            memory: None,
            frozen: false,
            set_aside: false,
            scheduled: false,
            note: String::new(),
            trial: None,
            written: Marks::new(),
        }
    }

    fn take(tree: &mut Tree) -> SnapshotId {
        let FileNumber(id) = tree.begin();
        tree.settle(Some(snapshot(id)));
        SnapshotId(id)
    }

    fn back(tree: &mut Tree, to: SnapshotId) -> SnapshotId {
        let FileNumber(id) = tree.begin();
        tree.rewind(to, snapshot(id), false);
        SnapshotId(id)
    }

    #[test]
    fn a_disk_without_snapshots_is_one_file_again() {
        let mut tree = Tree::of(Format::Raw);
        let (one, two) = (take(&mut tree), take(&mut tree));
        assert_eq!(tree.chain(), [2, 1, 0].map(FileNumber));
        tree.forget(one);
        assert_eq!(tree.spare(), Some(Spare::Inner { from: FileNumber(1), into: FileNumber(0) }));
        tree.merged(FileNumber(1), FileNumber(0));
        assert_eq!((tree.file_of(two), tree.spare()), (Some(FileNumber(0)), None));
        tree.forget(two);
        assert_eq!(tree.spare(), Some(Spare::Inner { from: FileNumber(2), into: FileNumber(0) }));
        tree.merged(FileNumber(2), FileNumber(0));
        assert_eq!((tree.top(), tree.spare()), (FileNumber::BASE, None));
    }

    #[test]
    fn going_back_keeps_what_was_there_and_can_be_undone() {
        let mut tree = Tree::of(Format::Qcow2);
        let one = take(&mut tree);
        let before = back(&mut tree, one);
        assert_eq!(tree.chain(), [2, 0].map(FileNumber));
        assert_eq!(tree.file_of(before), Some(FileNumber(1)));
        tree.forget(one);
        assert_eq!(tree.spare(), None, "two files stand on it");
        tree.forget(before);
        assert_eq!(tree.spare(), Some(Spare::Leaf(FileNumber(1))));
    }

    fn restore(tree: &mut Tree) -> (SnapshotId, FileNumber) {
        let FileNumber(id) = tree.begin();
        let origin = Origin { to: "main".into(), repository: "7".into(), point: "db/3".into() };
        tree.restore(origin, snapshot(id));
        (SnapshotId(id), tree.top())
    }

    #[test]
    fn a_disk_that_was_restored_stands_on_no_file_and_keeps_what_was_there() {
        let mut tree = Tree::of(Format::Raw);
        let one = take(&mut tree);
        assert_eq!(tree.restored(), None);
        let (aside, file) = restore(&mut tree);
        assert_eq!((tree.chain(), tree.file_of(aside)), (vec![file], Some(FileNumber(1))));
        take(&mut tree);
        assert_eq!(tree.restored().map(|(file, origin)| (file, origin.point.as_str())), Some((file, "db/3")));
        assert_eq!(tree.spare(), None);
        tree.forget(aside);
        assert_eq!(tree.spare(), Some(Spare::Leaf(FileNumber(1))));
        tree.removed(FileNumber(1));
        tree.forget(one);
        assert_eq!(tree.spare(), None, "the configured disk is never removed");
        let back = serde_json::to_string(&tree).and_then(|text| serde_json::from_str(&text));
        assert_eq!(back.ok(), Some(tree));
    }

    #[test]
    fn a_record_from_before_backups_could_be_gone_back_to_is_read() {
        let text = r#"{"number":3,"parent":1}"#;
        let overlay: Overlay = serde_json::from_str(text).expect("it is one");
        assert_eq!((overlay.parent, overlay.origin), (Some(FileNumber(1)), None));
    }

    #[test]
    fn an_overlay_that_was_perhaps_put_on_top_is_settled_either_way() {
        let mut tree = Tree::of(Format::Qcow2);
        assert_eq!(tree.begin(), FileNumber(1));
        let mut given_up = tree.clone();
        given_up.give_up();
        assert_eq!((given_up.top(), given_up.next()), (FileNumber::BASE, SnapshotId(2)));
        tree.settle(None);
        assert_eq!((tree.top(), tree.snapshots().count()), (FileNumber(1), 0));
    }

    /// What a file holds: its own writes, over what it stands on.
    #[derive(Default)]
    struct Disks(BTreeMap<FileNumber, BTreeMap<u64, u64>>);

    impl Disks {
        fn shown(&self, tree: &Tree, file: FileNumber) -> BTreeMap<u64, u64> {
            let mut shown = tree.parent(file).map_or_else(BTreeMap::new, |below| self.shown(tree, below));
            shown.extend(self.0.get(&file).into_iter().flatten());
            shown
        }

        /// Does what is spare, as QEMU would.
        fn tidy(&mut self, tree: &mut Tree) {
            while let Some(spare) = tree.spare() {
                match spare {
                    Spare::Leaf(leaf) => {
                        assert!(!tree.chain().contains(&leaf));
                        self.0.remove(&leaf);
                        tree.removed(leaf);
                    }
                    Spare::Inner { from, into } => {
                        let written = self.0.remove(&from).unwrap_or_default();
                        self.0.entry(into).or_default().extend(written);
                        tree.merged(from, into);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_snapshot_shows_for_ever_what_the_disk_was(steps in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 1..60)) {
            let (mut tree, mut disks) = (Tree::of(Format::Raw), Disks::default());
            let mut expected: BTreeMap<SnapshotId, BTreeMap<u64, u64>> = BTreeMap::new();
            let mut now = BTreeMap::new();
            for (time, (step, which)) in steps.into_iter().enumerate() {
                let known: Vec<SnapshotId> = expected.keys().copied().collect();
                match step {
                    0 => {
                        let sector = which.index(4) as u64;
                        disks.0.entry(tree.top()).or_default().insert(sector, time as u64);
                        now.insert(sector, time as u64);
                    }
                    1 => drop(expected.insert(take(&mut tree), now.clone())),
                    2 if !known.is_empty() => {
                        let to = known[which.index(known.len())];
                        expected.insert(back(&mut tree, to), now);
                        now = expected[&to].clone();
                    }
                    4 => {
                        // A backup of what was there at any time.
                        let backup = expected.values().nth(which.index(known.len().max(1))).cloned().unwrap_or_default();
                        let (aside, file) = restore(&mut tree);
                        disks.0.insert(file, backup.clone());
                        expected.insert(aside, std::mem::replace(&mut now, backup));
                    }
                    3 if !known.is_empty() => {
                        let id = known[which.index(known.len())];
                        prop_assert!(tree.forget(id).is_some());
                        expected.remove(&id);
                        disks.tidy(&mut tree);
                    }
                    _ => {}
                }
                prop_assert_eq!(disks.shown(&tree, tree.top()), now.clone());
                for (id, disk) in &expected {
                    let file = tree.file_of(*id).expect("it is there");
                    prop_assert!(file != tree.top());
                    prop_assert_eq!(&disks.shown(&tree, file), disk);
                }
            }
            for id in expected.keys() {
                tree.forget(*id);
            }
            disks.tidy(&mut tree);
            prop_assert_eq!(tree.chain().len(), 1, "one file is left");
            prop_assert!(tree.restored().is_some() || tree.top() == FileNumber::BASE);
            prop_assert_eq!(disks.shown(&tree, tree.top()), now);
        }
    }
}
