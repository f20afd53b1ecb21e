//! Files that a kill left in the folder of the snapshots, between two steps of which the record knows only one: overlays and
//! memories that no snapshot, no disk and no process needs. They are removed, so that their room is not lost for ever.
//!
//! Nothing that a snapshot or the disk is made of is ever removed here (I15). So a file must be one that we name: regular, with just
//! such a name in just that folder, of a number that was given away; the record and the heads of the images must agree on what
//! stands on what, and the file be no part of it; and nobody may have it open. What the guest of a raw disk wrote is no head
//! (A31). Whatever is in doubt stays, and is told.

use super::super::image;
use super::super::launch::Format;
use super::super::live::Live;
use super::super::machine::{Machine, error_chain};
use super::super::needs::is_missing;
use super::super::offered;
use super::files::{Files, is_same};
use super::live::ANSWER;
use super::merge::merges;
use super::tree::{FileNumber, Tree};
use crate::DriverError;
use holdfast_core::point::SnapshotId;
use rustix::fs::{FlockOperation, OFlags, fcntl_lock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// What became of the files that nothing is known of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// They are gone.
    pub removed: Vec<PathBuf>,
    /// They stay, and why.
    pub left: Vec<(PathBuf, String)>,
}

impl Machine {
    /// Removes what a kill left. The caller has the turn to change snapshots, and nothing is pending.
    pub(super) async fn sweep(&self, tree: &Tree) {
        let live = match self.running() {
            Ok(live) => Some(live),
            Err(DriverError::NotRunning(_)) => None,
            Err(_) => return, // nobody knows what has them open
        };
        let opened = match live {
            Some(live) => self.opened_by(&live).await,
            None => Some(Vec::new()),
        };
        let Some(opened) = opened else { return };
        let tree = tree.clone();
        let swept = self
            .on_disk(super::merge::MERGE, move |files| Ok((files.sweep(&tree, &opened), files.clone())))
            .await;
        match swept {
            Ok((swept, files)) => {
                for path in &swept.removed {
                    tracing::info!(vm = %self.name, file = %path.display(), "what a kill left of its snapshots is removed");
                }
                for (path, why) in files.news_of(swept.left) {
                    tracing::warn!(vm = %self.name, file = %path.display(), why, "a file among its snapshots that nothing is known of stays");
                }
            }
            Err(error) => {
                tracing::warn!(vm = %self.name, error = error_chain(&error), "what a kill left of its snapshots stays")
            }
        }
    }

    /// The names of what its QEMU has open; nothing while a merge is under way, or the guest stands still for us, or if it does not tell.
    async fn opened_by(&self, live: &Live) -> Option<Vec<String>> {
        let until = Instant::now() + ANSWER;
        if self.is_still_for_us(live) || !merges(live, until).await.ok()?.is_empty() {
            return None;
        }
        Some(live.nodes(until).await.ok()?.into_iter().map(|node| node.file).collect())
    }
}

impl Files {
    /// Files with a number of ours that are neither on record nor yet to come.
    fn unknown(&self, tree: &Tree) -> Vec<PathBuf> {
        let given = 1..tree.next().0;
        let is_unknown = |name: &str| {
            let (number, end) = name.split_once('.')?;
            let number = number.parse::<u64>().ok().filter(|known| known.to_string() == number)?;
            let is_known = match end {
                "qcow2" => tree.has(FileNumber(number)),
                "memory" => {
                    tree.snapshot(SnapshotId(number)).is_some() || tree.resume == Some(SnapshotId(number))
                }
                _ => return None,
            };
            (given.contains(&number) && !is_known).then_some(())
        };
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let regular = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let mut unknown: Vec<PathBuf> = regular
            .filter(|entry| entry.file_name().to_str().and_then(is_unknown).is_some())
            .map(|entry| entry.path())
            .collect();
        unknown.sort();
        unknown
    }

    /// Whether there is something to sweep that was not looked at in vain.
    pub(super) fn has_left(&self, tree: &Tree) -> bool {
        let unknown = if tree.pending().is_some() { Vec::new() } else { self.unknown(tree) };
        let left = self.turn.left();
        unknown.iter().any(|path| !left.iter().any(|(known, _)| known == path))
    }

    /// Notes what stays; what of that is new.
    fn news_of(&self, left: Vec<(PathBuf, String)>) -> Vec<(PathBuf, String)> {
        let mut known = self.turn.left();
        let news = left.iter().filter(|one| !known.contains(one)).cloned().collect();
        *known = left;
        news
    }

    /// Removes what nothing needs; `opened` are the names of what QEMU has open.
    pub(super) fn sweep(&self, tree: &Tree, opened: &[String]) -> Swept {
        let mut swept = Swept::default();
        if tree.pending().is_some() {
            return swept;
        }
        let unknown = self.unknown(tree);
        if unknown.is_empty() {
            return swept;
        }
        let doubt = self.doubt(tree).err();
        for path in unknown {
            let removed = match &doubt {
                Some(why) => Err(why.clone()),
                None => remove(&path, opened),
            };
            match removed {
                Ok(()) => swept.removed.push(path),
                Err(why) => swept.left.push((path, why)),
            }
        }
        swept
    }

    /// The record and the heads of what is on record say the same: so nothing of it stands on a file that is not.
    fn doubt(&self, tree: &Tree) -> Result<(), String> {
        let folder = self.folder();
        if !folder.symlink_metadata().is_ok_and(|known| known.is_dir()) {
            return Err(format!("{} is no folder, but leads to one", folder.display()));
        }
        for file in tree.overlays() {
            let (path, parent) = (self.path(file), tree.parent(file));
            let backing = image::backing(&path).map_err(|error| error_chain(&error))?;
            let agree = match (&backing, parent) {
                (None, None) => true,
                (Some(name), None) => name.starts_with(offered::NAME),
                (Some(name), Some(parent)) => is_same(&folder.join(name), &self.path(parent)),
                (None, Some(_)) => false,
            };
            if !agree {
                let name = super::super::untrusted::tame(backing.as_deref().unwrap_or("nothing"), 200);
                return Err(format!("{} stands on `{name}`, and the record says otherwise", path.display()));
            }
        }
        self.doubt_base(tree)
    }

    /// The configured disk, where it is a qcow2, stands on nothing in this folder. The head of a raw one is its guest's (A31).
    fn doubt_base(&self, tree: &Tree) -> Result<(), String> {
        let (mut path, mut below) = (self.path(FileNumber::BASE), 0);
        if tree.base == Format::Raw || is_missing(&path) {
            return Ok(());
        }
        while image::format(&path).map_err(|error| error_chain(&error))? == Format::Qcow2 {
            let backing = image::backing(&path).map_err(|error| error_chain(&error))?;
            let Some(backing) = backing.filter(|name| !name.starts_with(offered::NAME)) else {
                return Ok(());
            };
            let real = path.parent().unwrap_or(Path::new("/")).join(backing).canonicalize();
            path = real.map_err(|e| format!("what {} stands on is not found: {e}", path.display()))?;
            let own = self.folder().canonicalize().map_err(|e| e.to_string())?;
            below += 1;
            if path.starts_with(own) || below > super::CHAIN_MOST {
                return Err(format!("the disk stands on {}, and the record says otherwise", path.display()));
            }
        }
        Ok(())
    }
}

/// Removes a file that nobody has open; or why it stays.
fn remove(path: &Path, opened: &[String]) -> Result<(), String> {
    let told = |e: io::Error| format!("it cannot be looked at: {e}");
    let name = path.to_string_lossy();
    if opened.iter().any(|file| file.contains(&*name)) {
        return Err("QEMU has it open".into());
    }
    let safe = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(safe).open(path).map_err(told)?;
    // QEMU's lock, whoever holds it and whether we may see him or not; nobody gets it from here on.
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|why| format!("somebody holds a lock on it: {why}"))?;
    if let Some(pid) = image::user(path) {
        return Err(format!("process {pid} has it open"));
    }
    let is_same = |known: fs::Metadata, file: &File| {
        file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (known.dev(), known.ino()) && own.is_file())
    };
    if !path.symlink_metadata().is_ok_and(|known| is_same(known, &file)) {
        return Err("another took its place".into());
    }
    fs::remove_file(path).map_err(|e| format!("it cannot be removed: {e}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::qcow2::write_overlay;
    use super::super::rewind::set_aside;
    use super::*;
    use holdfast_core::point::{Memory, MemoryKind};
    use std::io::Write;
    use std::process::{Child, Command, Stdio};
    use tempfile::TempDir;

    /// A raw disk with two snapshots, 1 and 4, the second of them with its memory; 2, 3 and 5 were something once.
    fn place() -> (TempDir, Files, Tree) {
        let place = tempfile::tempdir().unwrap();
        let disk = place.path().join("disk");
        fs::write(&disk, [7; 1 << 16]).unwrap();
        let files = Files::of(&disk);
        files.make_folder().unwrap();
        let mut tree = Tree::of(Format::Raw);
        for number in [1, 4] {
            while tree.next().0 < number {
                tree.skip();
            }
            let mut snapshot = set_aside(&tree, String::new());
            if number == 4 {
                let (machine, machine_type) = Default::default();
                snapshot.memory = Some(Memory {
                    bytes: 1,
                    length: 0,
                    machine,
                    resumed: 0,
                    kind: MemoryKind::Mapped,
                    machine_type,
                });
            }
            let (below, file) = (tree.top(), tree.begin());
            files.make_overlay(&tree, file, below).unwrap();
            tree.settle(Some(snapshot));
        }
        fs::write(files.memory(SnapshotId(4)), "memory").unwrap();
        tree.skip();
        files.write(&tree).unwrap();
        (place, files, tree)
    }

    /// Lays out a file that nothing is known of.
    fn lay(files: &Files, name: &str) -> PathBuf {
        let path = files.folder().join(name);
        fs::write(&path, "left").unwrap();
        path
    }

    fn names(files: &Files) -> Vec<String> {
        let entries = fs::read_dir(files.folder()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn why(swept: Swept) -> String {
        assert_eq!(swept.removed, Vec::<PathBuf>::new());
        swept.left.into_iter().map(|(_, why)| why).next().unwrap()
    }

    #[test]
    fn what_a_kill_left_goes_and_all_that_is_on_record_stays() {
        let (_place, files, tree) = place();
        let before = names(&files);
        assert!(!files.has_left(&tree));
        let left = ["2.memory", "2.qcow2", "3.qcow2", "5.memory"].map(|name| lay(&files, name));
        assert!(files.has_left(&tree));
        assert_eq!(files.sweep(&tree, &[]), Swept { removed: left.to_vec(), left: Vec::new() });
        assert_eq!(names(&files), before);
        assert!(!files.has_left(&tree) && files.sweep(&tree, &[]) == Swept::default());
    }

    #[test]
    fn only_regular_files_with_just_such_a_name_go() {
        let (place, files, tree) = place();
        for name in [
            "02.qcow2",
            "+2.qcow2",
            " 2.qcow2",
            "2.qcow2.mine",
            "2.QCOW2",
            "x2.qcow2",
            "2.raw",
            "2.unfinished",
            "2",
            "0.qcow2",
            "-2.memory",
        ] {
            lay(&files, name);
        }
        let mine = place.path().join("mine");
        fs::write(&mine, "mine").unwrap();
        std::os::unix::fs::symlink(&mine, files.folder().join("2.qcow2")).unwrap();
        fs::create_dir(files.folder().join("2.memory")).unwrap();
        fs::create_dir(files.folder().join("deeper")).unwrap();
        lay(&files, "deeper/3.qcow2");
        let beside = place.path().join("3.qcow2");
        fs::write(&beside, "beside").unwrap();
        assert!(Command::new("mkfifo").arg(files.folder().join("3.qcow2")).status().unwrap().success());
        let before = names(&files);
        assert_eq!(files.sweep(&tree, &[]), Swept::default());
        assert_eq!(names(&files), before);
        assert!(mine.exists() && beside.exists() && files.folder().join("deeper/3.qcow2").exists());
    }

    #[test]
    fn what_is_yet_to_come_stays() {
        let (_place, files, tree) = place();
        let next = tree.next().0;
        let paths = [format!("{next}.qcow2"), format!("{}.memory", next + 7)].map(|name| lay(&files, &name));
        assert_eq!(files.sweep(&tree, &[]), Swept::default());
        assert!(paths.iter().all(|path| path.exists()));
    }

    #[test]
    fn nothing_goes_while_an_overlay_is_being_put_on_top() {
        let (_place, files, mut tree) = place();
        let left = lay(&files, "2.qcow2");
        tree.begin();
        assert_eq!(files.sweep(&tree, &[]), Swept::default());
        assert!(left.exists() && !files.has_left(&tree));
    }

    #[test]
    fn what_a_recorded_image_stands_on_stays_whatever_the_record_says() {
        let (_place, files, tree) = place(); // I15
        let left = lay(&files, "2.qcow2");
        let other = lay(&files, "3.memory");
        let mut head = File::create(files.path(FileNumber(4))).unwrap();
        write_overlay(&mut head, 1 << 16, "2.qcow2", Format::Qcow2).unwrap();
        let said = why(files.sweep(&tree, &[]));
        assert!(said.contains("4.qcow2") && said.contains("`2.qcow2`"), "{said}");
        fs::write(files.path(FileNumber(4)), "no image").unwrap(); // and where a head says nothing
        assert!(why(files.sweep(&tree, &[])).contains("4.qcow2"));
        assert!(left.exists() && other.exists());
    }

    #[test]
    fn a_disk_that_stands_on_a_file_among_its_snapshots_keeps_all_of_them() {
        let (_place, files, mut tree) = place(); // I15
        tree.base = Format::Qcow2;
        let left = lay(&files, "2.qcow2");
        let mut disk = File::create(files.path(FileNumber::BASE)).unwrap();
        write_overlay(&mut disk, 1 << 16, "disk.snapshots/2.qcow2", Format::Raw).unwrap();
        assert!(why(files.sweep(&tree, &[])).contains("the disk stands on"));
        assert!(left.exists());
    }

    #[test]
    fn what_the_guest_of_a_raw_disk_wrote_is_no_head() {
        let (place, files, tree) = place(); // A31
        let left = lay(&files, "2.qcow2");
        let mine = place.path().join("mine");
        fs::write(&mine, "mine").unwrap();
        let mut disk = File::create(files.path(FileNumber::BASE)).unwrap();
        write_overlay(&mut disk, 1 << 16, "disk.snapshots/2.qcow2", Format::Raw).unwrap();
        let swept = files.sweep(&tree, &[]);
        assert_eq!(
            swept,
            Swept { removed: vec![left], left: Vec::new() },
            "it keeps nothing by what it writes"
        );
        assert!(mine.exists());
    }

    #[test]
    fn a_folder_that_leads_elsewhere_is_left_alone() {
        let (place, files, tree) = place();
        let left = lay(&files, "2.qcow2");
        let elsewhere = place.path().join("elsewhere");
        fs::rename(files.folder(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, files.folder()).unwrap();
        assert!(why(files.sweep(&tree, &[])).contains("is no folder"));
        assert!(left.exists());
    }

    #[test]
    fn what_qemu_says_that_it_has_open_stays() {
        let (_place, files, tree) = place();
        let [left, other] = ["2.qcow2", "3.qcow2"].map(|name| lay(&files, name));
        let opened = format!(r#"json:{{"file": {{"filename": "{}"}}}}"#, left.display());
        let swept = files.sweep(&tree, &[opened]);
        assert_eq!(
            swept,
            Swept { removed: vec![other], left: vec![(left.clone(), "QEMU has it open".into())] }
        );
        assert!(left.exists());
    }

    /// A process that is ended with this.
    struct Other(Child);

    impl Drop for Other {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_another_process_has_open_stays_also_where_it_only_reads() {
        let (_place, files, tree) = place();
        let left = lay(&files, "2.memory");
        let reader =
            Other(Command::new("sleep").arg("60").stdin(File::open(&left).unwrap()).spawn().unwrap());
        let said = why(files.sweep(&tree, &[]));
        assert!(said.contains(&format!("process {} has it open", reader.0.id())), "{said}");
        assert!(left.exists());
    }

    #[test]
    fn what_somebody_holds_a_lock_on_stays() {
        let (_place, files, tree) = place();
        let left = files.path(FileNumber(2));
        write_overlay(&mut File::create(&left).unwrap(), 1 << 16, "1.qcow2", Format::Qcow2).unwrap();
        let mut qemu = Command::new("qemu-io");
        qemu.args(["-r", "-f", "qcow2"]).arg(&left).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = Other(qemu.spawn().expect("qemu-io, package qemu-utils"));
        qemu.0.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut said = [0; 2];
        std::io::Read::read_exact(qemu.0.stdout.as_mut().unwrap(), &mut said).unwrap(); // it has it open
        assert!(why(files.sweep(&tree, &[])).contains("holds a lock on it"));
        assert!(left.exists());
        drop(qemu);
        assert_eq!(files.sweep(&tree, &[]).removed, [left]);
    }

    #[test]
    fn what_stays_is_told_once_and_looked_at_in_vain_once() {
        let (_place, files, tree) = place();
        let left = lay(&files, "2.qcow2");
        let opened = [left.display().to_string()];
        let told = files.news_of(files.sweep(&tree, &opened).left);
        assert_eq!(told.len(), 1);
        assert!(!files.has_left(&tree));
        assert!(files.news_of(files.sweep(&tree, &opened).left).is_empty());
        lay(&files, "3.qcow2");
        assert!(files.has_left(&tree));
    }
}
