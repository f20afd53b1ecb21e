//! What the VMs and this host said: taken in, understood and kept.
//!
//! Sources bring records through the [`Inlet`]; nothing here ever makes them wait for long, and what is one too
//! many is dropped and counted (I18). Nothing a record says is run, or used as a path (I17).

#![allow(dead_code, unused_imports, reason = "findings are built upon it next")]

mod inlet;
mod intake;
mod mind;
mod open;
mod store;
mod witness;

pub use inlet::{Entry, Inlet, Outlet, SourceName};
pub use intake::{Asks, Circumstances, Ended as IntakeEnded, Finding, Intake, Told};
pub use mind::{Known, Tally};
pub use open::Logbook;
pub use store::{Counts, Ended, Found, Noted, Owner, Query, Room, SearchError, Shelf, Store, Stored};
