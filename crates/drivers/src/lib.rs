//! Adapters to hypervisors, one file or folder each, behind one small trait.

pub mod contract;
mod driver;
pub mod qemu;
pub mod snapshots;

pub use driver::{Driver, DriverError, FREEZE, Glimpse, GuestRead, Injection, Piece, Places, Question};
