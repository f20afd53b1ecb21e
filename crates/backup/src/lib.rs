//! Restore points on disk: a repository of sealed blocks, shared by all points of all VMs.
//!
//! From the bottom up: what things are called (`id`), how they are sealed (`key`), how a block of an image is written
//! (`block`), how many of them lie together (`pack`),
//! and where that is kept (`store`); what is known of a disk beforehand (`kept`, `attempt`). The format is described byte by byte in
//! `docs/backup-format.md`. Nothing here knows a VM, a network or a clock; what is read is believed only once it was
//! opened and hashed.

pub mod attempt;
pub mod begun;
pub mod block;
pub mod cat;
pub mod check;
pub mod collect;
pub mod export;
pub mod head;
pub mod id;
mod idle;
pub mod index;
pub mod kept;
pub mod key;
pub mod listed;
pub mod mark;
pub mod object;
pub mod offered;
pub mod pack;
mod parts;
pub mod point;
pub mod proof;
pub mod prune;
pub mod read_back;
mod recent;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod save;
pub mod session;
pub mod slots;
pub mod store;
mod strays;
mod told;
pub mod usage;
pub mod verify;
mod worker;

pub use holdfast_retain as retain;
