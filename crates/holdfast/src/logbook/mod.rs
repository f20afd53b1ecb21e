//! What the VMs and this host said: taken in, understood and kept.
//!
//! Sources bring records through the [`Inlet`]; nothing here ever makes them wait for long, and what is one too
//! many is dropped and counted (I18). Nothing a record says is run, or used as a path (I17).

mod inlet;
mod intake;
mod mind;
mod open;
mod store;
mod witness;

#[cfg(test)]
pub use inlet::Outlet;
pub use inlet::{Entry, Inlet, SourceName};
pub use intake::{Asks, Ended as IntakeEnded};
pub use mind::Known;
#[cfg(test)]
pub use mind::Mind;
pub use open::Logbook;
pub use store::{Around, Ended, Found, Owner, Query, Quoted, SearchError, Shelf, Stored};
