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
use std::io::{self, ErrorKind};
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
    /// The hypervisor.
    Qemu,
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
            Self::Qemu => "hypervisor",
            Self::Program => "program",
        }
    }

    /// Whether only a start of the VM needs it: one that runs is looked after without.
    const fn is_for_a_start(self) -> bool {
        match self {
            Self::Disk | Self::Kernel | Self::Initrd | Self::Image | Self::Qemu => true,
            Self::Secret | Self::Program => false,
        }
    }

    /// Whether it is a program that is run.
    const fn is_run(self) -> bool {
        matches!(self, Self::Qemu | Self::Program)
    }
}

/// Looks at each file; notes what is wrong. That one is gone which a VM `ran` from before is for its start to say, and keeps
/// nobody from looking after the others, or after that VM as long as it runs.
pub fn check(uses: &[FileUse], ran: impl Fn(&FileUse) -> bool, problems: &Problems, warnings: &Problems) {
    let mut writers: BTreeMap<(u64, u64), &FileUse> = BTreeMap::new();
    let mut readers = Vec::new();
    for each in uses {
        if each.role.is_for_a_start() && is_gone(each) && ran(each) {
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
            Role::Secret | Role::Qemu | Role::Program => {}
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

fn is_gone(each: &FileUse) -> bool {
    about(each).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn gone(each: &FileUse) -> Problem {
    let error = format!("the {} of vm `{}` is missing", each.role.noun(), each.vm);
    let cause = format!("{} does not exist any more, and the VM ran before", quote_path(&each.path));
    let hint = if each.role == Role::Disk {
        "put it back; or a start finds what took its place, or goes back to a backup as far as `max_data_loss` allows"
    } else {
        "put it back, or name another: nothing ends the VM for a restart while it could not be started again"
    };
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

/// What is known of a file. Programs are links all over a Linux system, and are run by their path anyway.
fn about(each: &FileUse) -> io::Result<Metadata> {
    if each.role.is_run() { std::fs::metadata(&each.path) } else { std::fs::symlink_metadata(&each.path) }
}

/// The file's metadata, if it may be used in its role.
fn look(each: &FileUse, problems: &Problems) -> Option<Metadata> {
    let noun = each.role.noun();
    let refuse = |error: String, cause: String, hint: String| {
        problems.push(Problem::at(each.place.clone(), error, cause, hint));
        None
    };
    let about = match about(each) {
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
        role if role.is_run() && about.mode() & 0o111 == 0 => {
            let cause = format!("its mode is {:04o}", about.mode() & 0o7777);
            let hint = "`chmod +x` it, or name another".into();
            return refuse(format!("the {noun} of vm `{}` cannot be run", each.vm), cause, hint);
        }
        role if role.is_run() && about.mode() & 0o002 != 0 => {
            let cause =
                format!("its mode is {:04o}: anybody could put another in its place", about.mode() & 0o7777);
            return refuse(
                format!("anybody may write the {noun} of vm `{}`", each.vm),
                cause,
                "`chmod o-w` it".into(),
            );
        }
        Role::Disk | Role::Kernel | Role::Initrd | Role::Image | Role::Qemu | Role::Program => {}
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
        Role::Kernel | Role::Initrd | Role::Image | Role::Qemu | Role::Program => "correct the path".into(),
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
        Role::Kernel | Role::Initrd | Role::Image | Role::Secret | Role::Qemu | Role::Program => {
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
    fn what_a_vm_that_ran_starts_from_is_told_if_it_is_gone_and_keeps_nobody_from_looking_after_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("state/run/a");
        fs::create_dir_all(&ran).unwrap();
        fs::write(dir.path().join("b.raw"), "x").unwrap();
        let text = "state = \"state\"\n[vm.a]\ndisk = \"a.raw\"\nimages = [\"base\"]\nkernel = \"linux\"\n\
                    initrd = \"ramdisk\"\nqemu = \"/no/qemu\"\n[vm.b]\ndisk = \"b.raw\"\n";
        let examine = |text: &str| Config::examine(text, &dir.path().join("holdfast.toml"));
        let expected = ["disk", "image", "kernel", "initrd", "hypervisor"]
            .map(|noun| format!("the {noun} of vm `a` is missing"));
        assert_eq!(errors(examine(text).err().unwrap().0.told()), expected);
        fs::write(ran.join("run"), "{}").unwrap();
        let loaded = examine(text).unwrap();
        assert_eq!(errors(loaded.warnings.told()), expected);
        assert_eq!(loaded.config.vms.len(), 2);
        // A reload that names what was not named before means something that is there.
        let origin = super::super::Origin { file: dir.path().join("holdfast.toml"), state: None };
        let again = |text: &str| {
            fs::write(&origin.file, text).unwrap();
            Config::load_again(&origin, &loaded.config)
        };
        assert_eq!(errors(again(text).unwrap().warnings.told()), expected);
        let refused = again(&text.replace("linux", "linus").replace("base", "basis")).err().unwrap();
        assert_eq!(
            errors(refused.0.told()),
            ["the image of vm `a` is missing", "the kernel of vm `a` is missing"]
        );
        // Whether it ran is known to the state folder that is named beside the file.
        fs::write(&origin.file, text).unwrap();
        let at = |state: &str| Config::load_at(&origin.file, Some(&dir.path().join(state)));
        assert!(at("state").is_ok());
        assert_eq!(errors(at("elsewhere").err().unwrap().0.told()), expected);
        // What looks after it while it runs must be there.
        let probe = "app.pg = { probe = [\"/no/probe\"] }\n[vm.b]";
        let refused = examine(&text.replace("[vm.b]", probe)).err().unwrap();
        assert_eq!(errors(refused.0.told()), ["the program of vm `a` is missing"]);
    }
}
