//! The daemon and its command line where no guest runs: what needs no more than a second.
//!
//! Some tests start a real QEMU on an empty disk. Every process is ended by its number when its test ends.

mod api;
mod json;
#[path = "../lab/mod.rs"]
mod lab;
mod logs;
mod many;
mod numbers;
mod own_log;
mod quiet;
mod reload;
mod replay;
mod restart;
mod sources;
mod user;
