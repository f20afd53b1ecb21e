//! Real daemons, real QEMU, real guests: what happens when something breaks, and what must not happen.
//!
//! As many at a time as there are processors; of those that load the machine, one. Every test ends all that it started, by
//! process id, also when it fails.

#[path = "../lab/mod.rs"]
mod lab;

mod backed;
mod backups;
mod bucket;
mod busy;
mod causes;
mod daemon;
mod demo;
mod drills;
mod flood;
mod hands;
mod hostile;
mod images;
mod instant;
mod isolation;
mod kept;
mod logs;
mod mapped;
mod network;
mod numbers;
mod off;
mod orders;
mod proofs;
mod remedies;
mod repositories;
mod restored;
mod rows;
mod snapshots;
mod starved;
mod state;
mod systemd;
mod warm;
mod writers;
