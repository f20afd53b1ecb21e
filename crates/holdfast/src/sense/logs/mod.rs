//! Where records come from: files, the guest's agent, the network, programs.
//!
//! Each source is bounded and goes on where it stopped (I18). What a source says is data: it never chooses a
//! path, a program or whose it is (I17); who it is about is configured, or known by the sender's address.

mod accept;
mod aside;
mod child;
mod decode;
mod file;
mod follow;
mod glob;
mod guest;
pub mod health;
pub mod joined;
mod kernel;
mod means;
mod otlp;
pub mod place;
mod senders;
mod sources;
mod syslog;
#[cfg(test)]
pub mod testing;
mod tls;

pub use aside::give_way;
pub use decode::Format;
pub use means::{Feed, Feeds, Means, Places, Said};
pub use sources::Sources;

use super::chain;
