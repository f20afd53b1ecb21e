//! The decisions of Holdfast: what is wrong, what to do about it, and whether it worked.
//!
//! No I/O, no clock, no randomness, no async: time comes in as an argument, effects go out as values.
//! The flow, and so the table of contents:
//!
//! ```text
//! signal -> evidence -> diagnosis -> plan -> isolate -> recover -> verify
//! ```

pub mod input;
pub mod signal;

pub mod evidence;

pub mod diagnosis;

pub mod plan;

pub mod isolate;

pub mod recover;

pub mod verify;

pub mod engine;

pub mod incident;

pub mod action;
pub mod lease;
pub mod point;
pub mod policy;
pub mod protect;
pub mod subject;
pub mod time;
pub mod written;
