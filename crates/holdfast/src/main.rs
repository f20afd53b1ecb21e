//! Fault tolerance for virtual machines: parse arguments, run one command, nothing else.

mod act;
mod api;
mod asked;
mod backups;
mod cli;
mod client;
mod clock;
mod config;
mod daemon;
mod decide;
mod disk;
mod drill;
mod events;
mod journal;
mod lease;
mod logbook;
mod place;
mod proofs;
mod protect;
mod recorder;
mod reload;
mod sense;
mod standing;
mod state;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
