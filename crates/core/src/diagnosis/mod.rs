//! What is wrong: the fault catalogue, and the one matrix product that weighs it against what is seen.
//!
//! The hypotheses about a VM are "healthy" and each fault, one of which is taken to be true. Each has
//! prior odds from how often it happens, and each statement moves them by the ratio of its
//! probability under the fault to its probability on a healthy VM, in decibans (Good 1950). Of
//! what a channel says about one thing only the strongest counts; what is unknown has no column and weighs
//! nothing.

mod application;
mod catalogue;
mod guest;
mod host;
mod lessons;
mod observer;
mod odds;
mod vm;

pub use catalogue::{Catalogue, Fault, FaultRow, Level, brings, is_warning, level};
pub use lessons::{Lesson, Lessons, Tried};
pub use odds::{Asked, Diagnosis, Grounds, Rival, Weighed};
