//! A world to test in: hosts, guests, faults and a clock that the tests own.
//!
//! The real engine runs in it; only the edges are replaced. One seed gives everything that varies, and
//! the same seed and story run the same again. Table of contents:
//!
//! - `faults` what can happen, in words; `person` what people ask for; `story` a whole story; `strike` does it to the world
//! - `world`, `machine`, `guest`, `lease` the truth
//! - `sense` what Holdfast sees of it; `driver` the way of its orders, `hypervisor` what they do
//! - `adapter` the same behind the `Driver` trait, for the contract; `daemon`, `journal` Holdfast itself
//! - `checker`, `unserved`, `converged`, `wishes` the invariants; `mutant` ways to break them on purpose
//! - `run` one run; `scenario` story files; `simulate` random stories, `aims`, `pairs` those that aim at something

#![expect(clippy::wildcard_enum_match_arm, reason = "the world reacts to a few of many orders and signs")]

mod adapter;
mod aims;
mod checker;
mod converged;
mod daemon;
mod driver;
pub mod faults;
mod guest;
mod hypervisor;
mod journal;
mod lease;
mod machine;
mod mutant;
mod pairs;
mod person;
mod random;
mod run;
pub mod scenario;
mod sense;
pub mod simulate;
mod snapshots;
mod story;
mod strike;
mod timeline;
mod unserved;
mod wishes;
mod words;
mod world;

pub use adapter::Hypervisor;
pub use checker::Violation;
pub use faults::Happening;
pub use mutant::{Mutant, UnknownMutant};
pub use random::Random;
pub use run::Options;
pub use story::{Event, FoundAs, Moment, Story, StoryError, VmSetup, When};
