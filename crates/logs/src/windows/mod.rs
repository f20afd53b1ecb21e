//! Windows: does this stretch of log look as such stretches usually do? Learned from windows, without labels.
//!
//! A [`Window`] is how often each pattern came, and which came right after which. [`Habits`] keeps the count
//! vectors that were seen, with their weight; a [`Model`] is made of them: the subspace in which they lie with its
//! limits ([`space`], [`eigen`], [`limit`]), the vectors that are established, the patterns and the steps
//! ([`steps`]). It gives a [`Judgement`] with reasons. [`Watch`] does so online, with forgetting, and never learns
//! from the window of an incident.

mod eigen;
mod habits;
mod judgement;
mod limit;
mod model;
mod space;
mod steps;
mod watch;
mod window;

pub use habits::{Habits, Room};
pub use judgement::{Judgement, Reason};
pub use model::Model;
pub use space::{Rows, Space};
pub use watch::{During, Watch};
pub use window::{MOST_IN_WINDOW, Window};

#[cfg(test)]
mod tests;
