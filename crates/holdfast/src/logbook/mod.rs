//! What the VMs and this host said: taken in, understood and kept.
//!
//! Sources bring records through the [`Inlet`]; nothing here ever makes them wait for long, and what is one too
//! many is dropped and counted (I18). Nothing a record says is run, or used as a path (I17).

#![allow(dead_code, unused_imports, reason = "sources and storage are built upon it next")]

mod inlet;

pub use inlet::{Entry, Inlet, Outlet, SourceName};
