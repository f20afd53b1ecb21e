//! `holdfast backup du`: what restore points and VMs cost.

use super::{RepositoryArgs, bytes, shown, troubled};
use crate::cli::{CliError, Exit, paint, print_json};
use clap::Args;
use holdfast_backup::usage::{self, Usage};

/// Of which repository.
#[derive(Args)]
pub struct DuArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Counts.
pub fn du(args: &DuArgs) -> Result<Exit, CliError> {
    let repository = args.repository.open()?;
    let du = usage::du(&repository).map_err(troubled(&args.repository.repo))?;
    let doc = |usage: &Usage| {
        serde_json::json!({
            "size": usage.size, "stored": usage.stored, "unique": usage.unique,
            "shared": usage.stored - usage.unique,
        })
    };
    if args.json {
        let with = |key: &str, name: String, usage: &Usage| {
            let mut doc = doc(usage);
            doc[key] = name.into();
            doc
        };
        let points: Vec<_> = du.points.iter().map(|(name, usage)| with("id", shown(name), usage)).collect();
        let vms: Vec<_> = du.vms.iter().map(|(name, usage)| with("vm", name.clone(), usage)).collect();
        print_json(&serde_json::json!({
            "v": 1, "packs": du.packs, "needed": du.needed, "points": points, "vms": vms,
            "hurt": du.hurt.iter().map(shown).collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["", "size", "needs", "alone", "shared"]);
    let mut row = |name: String, usage: &Usage| {
        let shared = usage.stored - usage.unique;
        table.add_row([name, bytes(usage.size), bytes(usage.stored), bytes(usage.unique), bytes(shared)]);
    };
    for (vm, usage) in &du.vms {
        row(vm.clone(), usage);
        for (name, usage) in du.points.iter().filter(|(name, _)| name.vm == *vm) {
            row(format!("  {}", shown(name)), usage);
        }
    }
    if !du.points.is_empty() {
        say!("{table}");
    }
    for name in &du.hurt {
        say!("point {} is hurt, and not counted", shown(name));
    }
    say!("{} in packs, of which points need {}", bytes(du.packs), bytes(du.needed));
    Ok(Exit::Fine)
}
