//! A control group of its own for each VM, where the host lets us make one.
//!
//! It tells which processes belong to a VM even if its own process has left some behind: an empty group
//! is as good a proof of death as an exit (SAFETY section 3). Where no hierarchy is writable there is no
//! group, and the pidfd alone is the proof.

use super::process::{Process, read_small};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The control group of one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

/// Hierarchies that serve, best first. The old ones (version 1) only if the new one is not writable.
const OLD: [&str; 3] = ["name=systemd", "pids", "freezer"];

impl Cgroup {
    /// Makes the group `family/member` below our own group, or finds it. `None`: this host lets us make
    /// none.
    #[must_use]
    pub fn make(family: &str, member: &str) -> Option<Self> {
        let own = read_small("/proc/self/cgroup").ok()?;
        let mounts = read_small("/proc/self/mountinfo").ok()?;
        roots(&own, &mounts).into_iter().find_map(|root| {
            let path = root.join(family).join(member);
            fs::create_dir_all(&path).ok()?;
            let group = Self(path);
            group.members().ok().map(|_| group)
        })
    }

    /// The group that a record names.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process with all its threads in.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// The processes in it, dead ones that nobody has collected too.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        match fs::read_to_string(self.0.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.0.exists() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The processes in it that still live.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn living(&self) -> io::Result<Vec<u32>> {
        let mut living = Vec::new();
        for pid in self.members()? {
            let lives = match Process::hold(pid) {
                Ok(process) => !process.has_exited()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => false,
                Err(error) => return Err(error),
            };
            living.extend(lives.then_some(pid));
        }
        Ok(living)
    }

    /// Ends all that is left in it; whether it was empty within `limit`.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn clear(&self, limit: Duration) -> io::Result<bool> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let members = self.members()?;
            if members.is_empty() {
                return Ok(true);
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            for pid in members {
                // Held first and looked up again after: the number cannot have gone to a stranger.
                if let Ok(process) = Process::hold(pid)
                    && self.members()?.contains(&pid)
                {
                    let _gone = process.kill(Duration::from_millis(20)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Removes it if it is empty, and its family if that was the last member.
    pub fn remove(&self) {
        if fs::remove_dir(&self.0).is_ok()
            && let Some(family) = self.0.parent()
        {
            let _others_there = fs::remove_dir(family);
        }
    }
}

/// Our own group in each hierarchy that could serve, as a folder.
fn roots(own: &str, mounts: &str) -> Vec<PathBuf> {
    let group = |wanted: &str| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|c| c == wanted).then_some(path)
        })
    };
    let mount = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let mut tail = tail.split(' ');
            let fits = tail.next() == Some(kind)
                && option.is_none_or(|o| tail.nth(1).is_some_and(|all| all.split(',').any(|x| x == o)));
            // A mount of a part of the hierarchy shows paths that we cannot map; root mounts only.
            let mut head = head.split(' ').skip(3);
            (fits && head.next() == Some("/")).then(|| head.next()).flatten()
        })
    };
    let mut roots = Vec::new();
    let mut add = |mount: Option<&str>, group: Option<&str>| {
        if let (Some(mount), Some(group)) = (mount, group) {
            roots.push(Path::new(mount).join(group.trim_start_matches('/')));
        }
    };
    add(mount("cgroup2", None), group(""));
    for controller in OLD {
        add(mount("cgroup", Some(controller)), group(controller));
    }
    roots
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_in_every_hierarchy_new_first() {
        let own = "9:name=systemd:/a.service\n8:pids:/b\n6:freezer,net:/\n0::/system.slice/h.service\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
                      31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 25 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let expected = [
            "/sys/fs/cgroup/unified/system.slice/h.service",
            "/sys/fs/cgroup/systemd/a.service",
            "/sys/fs/cgroup/pids/b",
            "/sys/fs/cgroup/freezer/",
        ];
        assert_eq!(roots(own, mounts), expected.map(PathBuf::from));
        assert_eq!(roots("", ""), Vec::<PathBuf>::new());
        assert_eq!(roots("garbage\n::\n0", "a b - c\n - \n"), Vec::<PathBuf>::new());
    }

    #[expect(clippy::zombie_processes, reason = "collected through its pidfd")]
    #[tokio::test]
    async fn a_group_holds_its_process_and_is_empty_after_its_end() {
        let member = format!("test-{}", std::process::id());
        let Some(group) = Cgroup::make("holdfast-test", &member) else {
            return; // no rights: nothing to test here, and `make` said so
        };
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::hold(child.id()).unwrap();
        group.add(child.id()).unwrap();
        assert_eq!(group.members().unwrap(), [child.id()]);
        assert!(group.clear(Duration::from_secs(20)).await.unwrap());
        assert!(process.has_exited().unwrap());
        group.remove();
        assert!(!group.path().exists());
        assert!(group.members().unwrap().is_empty());
    }
}
