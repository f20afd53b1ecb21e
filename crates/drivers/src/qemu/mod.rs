//! QEMU, launched and adopted by ourselves.

pub mod accel;
pub mod account;
pub mod agent;
pub mod cgroup;
pub mod event;
pub mod image;
pub mod launch;
pub mod process;
pub mod qmp;
pub mod record;
pub mod spawn;
mod spec;
pub mod untrusted;
pub mod wire;

pub use spec::{Accel, Forward, Kernel, Network, QemuVm};
