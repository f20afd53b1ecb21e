//! The driver with a real QEMU: package `qemu-system-x86`, and `qemu-utils` for images.

#![expect(clippy::unwrap_used, reason = "tests")]

mod backup;
mod bench;
mod guard;
mod linux;
mod mapped;
mod merge;
mod off;
mod sandbox;
mod sector;
mod snapshots;
