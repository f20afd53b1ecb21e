//! Drills: one real fault, injected into one VM on purpose, watched from outside, and measured.
//!
//! Nothing is injected that was not announced, and nothing outside the one VM is touched. The rows that the
//! drill's own client wrote and saw acknowledged are counted afterwards: none may be missing.

mod crowd;
mod faults;
mod keeper;
mod run;
mod writer;

pub use faults::{ALL, Aim, Drill, find};
pub use keeper::{Keeper, Told, is_announced};
pub use run::{DrillError, Progress, Report, interrupted, run, wait_until_well};
pub use writer::{Reach, Writer, reach};
