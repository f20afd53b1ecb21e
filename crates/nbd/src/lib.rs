//! Disks over a stream of bytes: the NBD protocol, as far as restore points need it.
//!
//! The [`client`] reads a disk that a QEMU or a `qemu-nbd` offers, and asks which of its parts are holes or have changed
//! (block status). The [`server`] offers a disk to a QEMU. Both speak fixed newstyle with structured replies over
//! anything that reads and writes; neither knows a socket, a clock or a thread. Whoever is at the other end is hostile:
//! every length is bounded before memory is taken for it (I17, I18).

pub mod client;
mod error;
pub mod server;
mod wire;

pub use error::{NbdError, Refusal};

/// The meta context that tells which parts of a disk are holes.
pub const ALLOCATION: &str = "base:allocation";
/// What the meta context of a dirty bitmap of QEMU begins with; its name follows.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// The longest name of an export, a context or a text (bytes), as the protocol says.
pub const NAME_MOST: usize = 4_096;
/// The most bytes of one read or write that are asked for or answered.
pub const LENGTH_MOST: u32 = 32 << 20;

/// [`ALLOCATION`]: nothing is stored here.
pub const IS_HOLE: u32 = 1;
/// [`ALLOCATION`]: it reads as zeros.
pub const READS_ZERO: u32 = 2;
/// [`DIRTY_BITMAP`]: it was written to.
pub const IS_DIRTY: u32 = 1;

/// A part of a disk that is alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least one.
    pub length: u64,
    /// What it is like; the meta context says what that means.
    pub flags: u32,
}
