//! QEMU, launched and adopted by ourselves.

pub mod accel;
pub mod agent;
pub mod event;
pub mod image;
pub mod launch;
pub mod qmp;
pub mod record;
mod spec;
pub mod untrusted;
pub mod wire;

pub use spec::{Accel, Forward, Kernel, Network, QemuVm};
