//! The user that QEMU runs as: an own one where that can be, so that a guest that breaks out of its
//! machine is nobody on the host.

use super::needs;
use super::process::read_small;
use super::spec::QemuVm;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A local user. Users that only a network directory knows are not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its first group.
    pub gid: u32,
}

/// A file or a folder that is closed to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Which.
    pub path: PathBuf,
    /// The mode that opens it.
    pub lets: &'static str,
}

impl Barrier {
    /// The command that opens it, for people.
    #[must_use]
    pub fn way_out(&self) -> String {
        format!("chmod {} {}", self.lets, self.path.display())
    }
}

/// Whose QEMU it is when the configuration names nobody and the daemon is root.
pub const DEFAULTS: [&str; 2] = ["holdfast-qemu", "nobody"];

impl Account {
    /// The user of this name; `None` if there is none.
    ///
    /// # Errors
    /// The list of users cannot be read.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        Ok(find(&read_small("/etc/passwd")?, name))
    }

    /// The user of this number; `None` if there is none, or nobody can tell.
    #[must_use]
    pub fn numbered(uid: u32) -> Option<Self> {
        find_numbered(&read_small("/etc/passwd").ok()?, uid)
    }

    /// The same user, in another group.
    #[must_use]
    pub fn in_group(mut self, gid: u32) -> Self {
        self.gid = gid;
        self
    }

    /// What keeps it from reading `path`, as far as owner, group and mode tell.
    #[must_use]
    pub fn kept_from_reading(&self, path: &Path) -> Option<Barrier> {
        let outside = path.parent().and_then(|folder| self.kept_from_entering(folder));
        let closed = || Barrier { path: path.to_owned(), lets: "o+r" };
        outside.or_else(|| (!self.is_allowed(path, 4)).then(closed))
    }

    /// What keeps it from getting to what is in `folder`: the outermost closed one.
    #[must_use]
    pub fn kept_from_entering(&self, folder: &Path) -> Option<Barrier> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let closed = folder.ancestors().filter(|folder| !self.is_allowed(folder, 1)).last()?;
        Some(Barrier { path: closed.to_owned(), lets: "o+x" })
    }

    fn is_allowed(&self, path: &Path, bit: u32) -> bool {
        let Ok(meta) = path.metadata() else { return false };
        let shift = match () {
            () if meta.uid() == self.uid => 6,
            () if meta.gid() == self.gid => 3,
            () => 0,
        };
        self.uid == 0 || meta.mode() >> shift & bit != 0
    }
}

/// What keeps this user from running a VM: its disk's folder, its kernel, or one of these files.
pub fn barrier<'a>(
    account: &Account,
    vm: &'a QemuVm,
    files: impl Iterator<Item = &'a Path>,
) -> Option<Barrier> {
    // What is not there is closed to nobody: a start says that it is missing.
    let mut files = needs::boots_from(vm).filter(|file| !leads_nowhere(file)).chain(files);
    let folder = vm.disk.parent().and_then(|folder| account.kept_from_entering(folder));
    folder.or_else(|| files.find_map(|file| account.kept_from_reading(file)))
}

fn leads_nowhere(file: &Path) -> bool {
    file.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Why QEMU would run as root for this VM, if it would: the user that it cannot run as, and what is in the
/// way. For what can be told before a start.
#[must_use]
pub fn why_root(vm: &QemuVm) -> Option<(&'static str, Barrier)> {
    if !rustix::process::geteuid().is_root() || vm.user.is_some() {
        return None;
    }
    let known = DEFAULTS.iter().find_map(|name| Some((*name, Account::named(name).ok()??)));
    let (name, account) = known?;
    barrier(&account, vm, std::iter::empty()).map(|barrier| (name, barrier))
}

/// The number of a group; `None` if there is no such group.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    find_group(&read_small("/etc/group").ok()?, name)
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    let fields = row(passwd, name)?;
    let number = |at: usize| fields.get(at)?.parse().ok();
    Some(Account { name: name.to_owned(), uid: number(2)?, gid: number(3)? })
}

fn find_numbered(passwd: &str, uid: u32) -> Option<Account> {
    let is_it = |line: &&str| line.split(':').nth(2).is_some_and(|number| number.parse() == Ok(uid));
    let line = passwd.lines().find(is_it)?;
    find(line, line.split(':').next()?)
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    row(groups, name)?.get(2)?.parse().ok()
}

fn row<'a>(table: &'a str, name: &str) -> Option<Vec<&'a str>> {
    table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::spec::Kernel;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn users_and_groups_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody2:x:1:1::/:\nnobody:x:65534:65533::/:\nbad:x:y:z::/:";
        let nobody = find(passwd, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65_534, 65_533));
        assert_eq!((find(passwd, "bad"), find(passwd, "nob"), find(passwd, "")), (None, None, None));
        assert_eq!((find_numbered(passwd, 65_534), find_numbered(passwd, 7)), (Some(nobody), None));
        assert_eq!(find_group("kvm:x:104:\n", "kvm"), Some(104));
    }

    #[test]
    fn a_closed_folder_on_the_way_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        std::fs::write(&file, "").unwrap();
        let stranger = Account { name: "stranger".into(), uid: 3_999_999, gid: 3_999_999 };
        let barrier = |path: &Path, lets| Some(Barrier { path: path.to_owned(), lets });
        let kept = |path: &Path| stranger.kept_from_reading(path);
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&file, 0o644);
        open(folder.path(), 0o755);
        assert_eq!(kept(&file), None);
        open(folder.path(), 0o700);
        assert_eq!(kept(&file), barrier(folder.path(), "o+x"));
        open(folder.path(), 0o711);
        open(&file, 0o640);
        assert_eq!(kept(&file), barrier(&file, "o+r"));
        assert_eq!(
            kept(&file).map(|barrier| barrier.way_out()),
            Some(format!("chmod o+r {}", file.display()))
        );
        assert!(kept(&folder.path().join("missing")).is_some());
    }

    #[test]
    fn what_is_not_there_needs_no_other_mode() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let image = folder.path().join("vmlinux");
        let kernel = Kernel { image: image.clone(), initrd: None, cmdline: String::new() };
        let vm = QemuVm { kernel: Some(kernel), ..QemuVm::plain(folder.path().join("disk")) };
        let stranger = Account { name: "stranger".into(), uid: 3_999_999, gid: 3_999_999 };
        assert_eq!(barrier(&stranger, &vm, std::iter::empty()), None);
        std::fs::write(&image, "").unwrap();
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(barrier(&stranger, &vm, std::iter::empty()).unwrap().path, image);
    }
}
