//! The files that a configuration names, looked at on this machine.
//!
//! Never follows a link, opens a device or waits for a FIFO: what a path says must be what is used (A07),
//! and one disk must never get two writers because it has two names (I1).

use super::app::SecretError;
use super::problem::{Problem, Problems};
use super::{Secret, units::quote_path};
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::fs::{FileType, Metadata};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// A file that a VM uses.
#[derive(Clone, Debug)]
pub struct FileUse {
    /// The VM.
    pub vm: VmName,
    /// What for.
    pub role: Role,
    /// Where it is.
    pub path: PathBuf,
    /// Where that is written.
    pub place: Range<usize>,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The VM writes it.
    Disk,
    /// It is booted.
    Kernel,
    /// Likewise.
    Initrd,
    /// Backing files, or a folder of them.
    Image,
    /// A password.
    Secret,
    /// A command on this host.
    Program,
}

impl Role {
    const fn noun(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Image => "image",
            Self::Secret => "password file",
            Self::Program => "program",
        }
    }
}

/// Looks at each file; notes what is wrong. That the disk of a VM `ran` of before is gone is for its start to say, and keeps
/// nobody from looking after the others.
pub fn check(uses: &[FileUse], ran: impl Fn(&VmName) -> bool, problems: &Problems, warnings: &Problems) {
    let mut writers: BTreeMap<(u64, u64), &FileUse> = BTreeMap::new();
    let mut readers = Vec::new();
    for each in uses {
        if each.role == Role::Disk && is_gone(&each.path) && ran(&each.vm) {
            warnings.push(gone(each));
            continue;
        }
        let Some(about) = look(each, problems) else { continue };
        let identity = (about.dev(), about.ino());
        match each.role {
            Role::Disk => {
                if let Some(first) = writers.insert(identity, each) {
                    // One path written twice is told without looking at files.
                    if lexical(&first.path) != lexical(&each.path) {
                        problems.push(two_writers(first, each));
                    }
                }
            }
            Role::Kernel | Role::Initrd | Role::Image => readers.push((identity, each)),
            Role::Secret | Role::Program => {}
        }
    }
    for (identity, each) in readers {
        if let Some(writer) = writers.get(&identity) {
            let error =
                format!("the {} of vm `{}` is the disk of vm `{}`", each.role.noun(), each.vm, writer.vm);
            let cause = "what one VM writes would change under the other";
            let hint = "give each its own file, or copy it";
            let problem = Problem::at(each.place.clone(), error, cause, hint);
            problems.push(problem.see(writer.place.clone(), "written by this one"));
        }
    }
}

fn is_gone(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn gone(each: &FileUse) -> Problem {
    let error = format!("the disk of vm `{}` is missing", each.vm);
    let cause = format!("{} does not exist any more, and the VM was started from it", quote_path(&each.path));
    let hint = "put it back; or a start finds what took its place, or goes back to a backup as far as `max_data_loss` \
                allows";
    Problem::at(each.place.clone(), error, cause, hint)
}

/// Two VMs would write one disk (I1, A05).
pub fn two_writers(first: &FileUse, second: &FileUse) -> Problem {
    let error = format!("vm `{}` and vm `{}` have one disk", first.vm, second.vm);
    let cause = if lexical(&first.path) == lexical(&second.path) {
        "two machines that write one disk destroy it (I1)".to_owned()
    } else {
        "both paths lead to the same file; two machines that write one disk destroy it (I1)".to_owned()
    };
    let hint = "give each its own copy, or an overlay: `qemu-img create -f qcow2 -b BASE -F FORMAT NEW`";
    Problem::at(second.place.clone(), error, cause, hint).see(first.place.clone(), "the first")
}

/// The path without `.`, `..` and double slashes, not asking any disk.
pub fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// What something is that is no plain file.
#[must_use]
pub fn kind_of(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_char_device() {
        "a character device"
    } else {
        "a file"
    }
}

/// The file's metadata, if it may be used in its role.
fn look(each: &FileUse, problems: &Problems) -> Option<Metadata> {
    let noun = each.role.noun();
    let refuse = |error: String, cause: String, hint: String| {
        problems.push(Problem::at(each.place.clone(), error, cause, hint));
        None
    };
    let looked = match each.role {
        // Programs are links all over a Linux system, and are run by their path anyway.
        Role::Program => std::fs::metadata(&each.path),
        Role::Disk | Role::Kernel | Role::Initrd | Role::Image | Role::Secret => {
            std::fs::symlink_metadata(&each.path)
        }
    };
    let about = match looked {
        Ok(about) => about,
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let cause = format!("{} does not exist", quote_path(&each.path));
            return refuse(format!("the {noun} of vm `{}` is missing", each.vm), cause, create(each));
        }
        Err(cause) => {
            let error = format!("cannot look at the {noun} of vm `{}`", each.vm);
            return refuse(error, cause.to_string(), "check the path and who may read it".into());
        }
    };
    let kind = about.file_type();
    if !(kind.is_file() || (each.role == Role::Image && kind.is_dir())) {
        let error = format!("the {noun} of vm `{}` is {}", each.vm, kind_of(kind));
        return refuse(
            error,
            "only a plain file is taken, named by its own path".into(),
            way_out(each, kind),
        );
    }
    match each.role {
        Role::Secret => look_at_secret(each, problems)?,
        Role::Program if about.mode() & 0o111 == 0 => {
            let cause = format!("its mode is {:04o}", about.mode() & 0o7777);
            let hint = "`chmod +x` it, or name another".into();
            return refuse(format!("the program of vm `{}` cannot be run", each.vm), cause, hint);
        }
        Role::Program if about.mode() & 0o002 != 0 => {
            let cause =
                format!("its mode is {:04o}: anybody could put another in its place", about.mode() & 0o7777);
            return refuse(
                format!("anybody may write the program of vm `{}`", each.vm),
                cause,
                "`chmod o-w` it".into(),
            );
        }
        Role::Disk | Role::Kernel | Role::Initrd | Role::Image | Role::Program => {}
    }
    Some(about)
}

fn look_at_secret(each: &FileUse, problems: &Problems) -> Option<()> {
    let error = Secret::File(each.path.clone()).read().err()?;
    let hint = match &error {
        SecretError::Open { .. } => "`chmod 600` it, and change the password: it may have been read",
        SecretError::Foreign { .. } => "`chown` it to the user that runs Holdfast",
        SecretError::NotOneLine(_) => "write the password alone into it, on one line",
        SecretError::Io { .. } | SecretError::NotPlain { .. } | SecretError::Unset(_) => {
            "name a plain file that the daemon may read"
        }
    };
    let cause = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let what = format!("cannot use the password file of vm `{}`", each.vm);
    problems.push(Problem::at(each.place.clone(), what, cause, hint));
    None
}

/// How to get a file that is missing.
fn create(each: &FileUse) -> String {
    let near = near(&each.path).map(|near| format!("did you mean {}?", quote_path(&near)));
    near.unwrap_or_else(|| match each.role {
        Role::Disk => "correct the path, or create one: `qemu-img create -f qcow2 DISK 10G`".into(),
        Role::Secret => "write the password into it, then `chmod 600` it".into(),
        Role::Kernel | Role::Initrd | Role::Image | Role::Program => "correct the path".into(),
    })
}

/// A file in the same folder with almost this name; at most a thousand are looked at.
fn near(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let folder = std::fs::read_dir(path.parent()?).ok()?;
    let names: Vec<String> =
        folder.take(1_000).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = super::section::nearest(name, &names)?;
    Some(path.with_file_name(near))
}

fn way_out(each: &FileUse, kind: FileType) -> String {
    if kind.is_symlink()
        && let Ok(real) = std::fs::canonicalize(&each.path)
    {
        return format!("write {}", quote_path(&real));
    }
    match each.role {
        Role::Disk => "take a disk image: a qcow2 or raw file".into(),
        Role::Kernel | Role::Initrd | Role::Image | Role::Secret | Role::Program => {
            "name a plain file".into()
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::config::Config;
    use crate::config::problem::Problem;
    use std::fs;

    fn errors(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.error.as_str()).collect()
    }

    #[test]
    fn a_lost_disk_of_a_vm_that_ran_is_told_and_keeps_nobody_from_looking_after_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("state/run/a");
        fs::create_dir_all(&ran).unwrap();
        fs::write(dir.path().join("b.raw"), "x").unwrap();
        let text = "state = \"state\"\n[vm.a]\ndisk = \"a.raw\"\n[vm.b]\ndisk = \"b.raw\"\n";
        let examine = || Config::examine(text, &dir.path().join("holdfast.toml"));
        assert_eq!(errors(examine().err().unwrap().0.told()), ["the disk of vm `a` is missing"]);
        fs::write(ran.join("run"), "{}").unwrap();
        let loaded = examine().unwrap();
        assert_eq!(errors(loaded.warnings.told()), ["the disk of vm `a` is missing"]);
        assert_eq!(loaded.config.vms.len(), 2);
    }
}
