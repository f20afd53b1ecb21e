//! QEMU, launched and adopted by ourselves.

pub mod accel;
pub mod image;
pub mod launch;
pub mod record;
mod spec;

pub use spec::{Accel, Forward, Kernel, Network, QemuVm};
