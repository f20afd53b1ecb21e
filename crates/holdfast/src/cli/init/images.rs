//! Disk images in a folder, and what they build on.

use super::FoundVm;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// So many files of a folder are looked at.
const MOST: usize = 1_000;
/// `QFI\xfb`, with which each qcow2 image begins (QEMU's docs/interop/qcow2.rst).
const QCOW2: [u8; 4] = *b"QFI\xfb";
/// The longest name of a backing file in a qcow2 image, by the same document.
const LONGEST_BACKING: usize = 1_023;

/// A VM for each disk image of the folders that neither runs already nor is the base of another image.
pub fn images(folders: &[PathBuf], running: &[FoundVm]) -> Vec<FoundVm> {
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder)).collect();
    files.sort();
    files.dedup();
    let mut used: BTreeSet<PathBuf> = running.iter().map(|vm| vm.disk.clone()).collect();
    for disk in files.iter().chain(running.iter().map(|vm| &vm.disk)) {
        used.extend(backing(disk));
    }
    let free = files.into_iter().filter(|file| !used.contains(file));
    free.filter_map(|disk| {
        let name = disk.file_stem()?.to_string_lossy().into_owned();
        Some(FoundVm { name, disk, how: "found as a disk image".into(), ..FoundVm::default() })
    })
    .collect()
}

/// The disk images in one folder, by their real paths.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let plain =
        entries.flatten().take(MOST).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let image = |path: &PathBuf| {
        let by_name =
            path.extension().is_some_and(|kind| ["raw", "img", "qcow2"].iter().any(|known| kind == *known));
        by_name || head(path).is_some_and(|head| head[..4] == QCOW2)
    };
    plain
        .map(|entry| entry.path())
        .filter(image)
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .collect()
}

fn head(path: &Path) -> Option<[u8; 20]> {
    let mut head = [0; 20];
    std::fs::File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    Some(head)
}

/// The local file that a qcow2 image builds on.
fn backing(path: &Path) -> Option<PathBuf> {
    if !path.symlink_metadata().is_ok_and(|about| about.is_file()) {
        return None; // a FIFO would be waited for
    }
    let head = head(path)?;
    if head[..4] != QCOW2 {
        return None;
    }
    let offset = u64::from_be_bytes(head[8..16].try_into().ok()?);
    let length = u32::from_be_bytes(head[16..20].try_into().ok()?) as usize;
    if offset == 0 || length == 0 || length > LONGEST_BACKING {
        return None;
    }
    let mut name = vec![0; length];
    std::fs::File::open(path).ok()?.read_exact_at(&mut name, offset).ok()?;
    let name = name.strip_prefix(b"file:").unwrap_or(&name);
    if name.contains(&b':') || name.contains(&0) {
        return None; // json:{..}, nbd://.. and the like
    }
    let base = path.parent()?.join(std::ffi::OsStr::from_bytes(name));
    std::fs::canonicalize(base).ok()
}

/// What an image builds on, if that lies in another folder.
pub fn backing_outside(disk: &Path) -> Option<PathBuf> {
    backing(disk).filter(|base| base.parent() != disk.parent())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn qcow2(path: &Path, backing: &[u8], offset: u64) {
        let mut bytes = QCOW2.to_vec();
        bytes.extend(3u32.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(u32::try_from(backing.len()).unwrap().to_be_bytes());
        bytes.resize(104, 0);
        bytes.extend(backing);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_base_of_an_image_is_not_taken_for_a_vm_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::write(root.join("base.raw"), "x").unwrap();
        std::fs::write(root.join("notes.txt"), "x").unwrap();
        qcow2(&root.join("web"), b"base.raw", 104);
        std::os::unix::fs::symlink(root.join("web"), root.join("link.qcow2")).unwrap();
        let found = images(std::slice::from_ref(&root), &[]);
        assert_eq!(found.iter().map(|vm| vm.disk.clone()).collect::<Vec<_>>(), [root.join("web")]);
        assert_eq!(images(&[root], &found), []);
    }

    #[test]
    fn a_hostile_image_names_no_base() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        for (name, offset) in
            [(&b"base"[..], u64::MAX), (b"", 104), (&[b'a'; 2_000], 104), (b"json:{}", 104), (b"a\0b", 104)]
        {
            qcow2(&path, name, offset);
            assert_eq!(backing(&path), None);
        }
        std::fs::write(&path, QCOW2).unwrap();
        assert_eq!(backing(&path), None);
    }
}
