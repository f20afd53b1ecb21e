//! QEMU, launched and adopted by ourselves.

mod spec;

pub use spec::{Accel, Forward, Kernel, Network, QemuVm};
