//! What the QEMU driver must know to start a VM: checked by the configuration, trusted here.

use super::launch::PROGRAM;
use super::spawn::find_program;
use holdfast_core::subject::VmName;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One VM under QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuVm {
    /// Its name.
    pub name: VmName,
    /// Its disk image: a regular file, qcow2 or raw (told by its head).
    pub disk: PathBuf,
    /// Folders or files that backing files of the disk may come from, besides the disk's own folder.
    pub images: Vec<PathBuf>,
    /// Guest memory in bytes, at least 64 MiB.
    pub memory: u64,
    /// Virtual processors, 1 to 64.
    pub cpus: u32,
    /// How the guest's instructions are run.
    pub accel: Accel,
    /// Direct kernel boot; `None` boots from the disk.
    pub kernel: Option<Kernel>,
    /// How it is connected.
    pub network: Network,
    /// The user that QEMU runs as. `None`: the daemon's own if that is not root; otherwise `holdfast-qemu`, or
    /// `nobody` where there is no such user, or root with a warning where that one cannot reach what the VM
    /// needs. The disk is given to that user.
    pub user: Option<String>,
    /// The program that runs it, where that is not the one that is installed: another QEMU, beside that.
    pub program: Option<PathBuf>,
    /// A saved memory state of exactly this disk, used for the first start ever and never again (I23).
    pub memory_state: Option<PathBuf>,
}

impl QemuVm {
    /// The QEMU that runs it.
    ///
    /// # Errors
    /// None is installed.
    pub fn program(&self) -> io::Result<PathBuf> {
        let missing = || {
            let why = format!("{PROGRAM} is missing (package qemu-system-x86)");
            io::Error::new(io::ErrorKind::NotFound, why)
        };
        self.program.clone().or_else(|| find_program(PROGRAM)).ok_or_else(missing)
    }
}

/// How the guest's instructions are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where it truly boots a guest (tried once per boot of the host), otherwise emulation.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// Direct kernel boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel: a bzImage or a PVH ELF.
    pub image: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; `console=ttyS0` is put in front if it names no console.
    pub cmdline: String,
}

/// What the card of user-mode networking is called: QEMU's own first address, said so that it stays.
const USER_MAC: &str = "52:54:00:12:34:56";

/// How the guest is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// User-mode networking (no rights needed): the guest reaches out, and these ports reach in.
    User(Vec<Forward>),
    /// An existing tap interface, with the guest's MAC address.
    Tap {
        /// The interface.
        interface: String,
        /// The MAC address, `52:54:00:..`.
        mac: String,
    },
    /// None.
    None,
}

impl Network {
    /// The address of the guest's card, if it has one.
    #[must_use]
    pub const fn mac(&self) -> Option<&str> {
        match self {
            Self::User(_) => Some(USER_MAC),
            Self::Tap { mac, .. } => Some(mac.as_str()),
            Self::None => None,
        }
    }
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens; port 0 lets the driver pick a free one, kept over restarts.
    pub listen: SocketAddr,
    /// The guest's port.
    pub guest: u16,
}

#[cfg(test)]
impl QemuVm {
    /// A VM as tests want one: with this disk, and nothing special.
    pub fn plain(disk: impl Into<PathBuf>) -> Self {
        Self {
            name: "orders".parse().expect("a name"),
            disk: disk.into(),
            images: Vec::new(),
            memory: 512 << 20,
            cpus: 1,
            accel: Accel::Tcg,
            kernel: None,
            network: Network::None,
            user: None,
            program: None,
            memory_state: None,
        }
    }
}
