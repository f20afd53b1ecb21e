//! `holdfast backup repair`: what can be made whole again is, and what is lost is said.

use super::{RepositoryArgs, bar, failed, shown, threads, troubled, watched, writer};
use crate::cli::{CliError, Exit, print_json};
use crate::clock;
use clap::Args;
use holdfast_backup::repair::{self, Repaired, Rules};
use holdfast_backup::verify::{self, Findings};
use std::sync::atomic::{AtomicU64, Ordering};

/// What to repair.
#[derive(Args)]
pub struct RepairArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Remove the restore points that cannot be restored whole. Nothing else does.
    #[arg(long)]
    forget_hurt: bool,
    /// Nobody writes to this repository now: what damaged sessions stood for may go.
    #[arg(long)]
    end_sessions: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Reads everything, then repairs.
pub fn repair(args: &RepairArgs) -> Result<Exit, CliError> {
    let (mut repository, folder) = (args.repository.open()?, &args.repository.repo);
    let packs = repository.store().list("packs").map_err(failed(format!("list `{folder}`")))?;
    let (done, bar) = (AtomicU64::new(0), bar(packs.iter().map(|(_, length)| length).sum(), args.json));
    let read = || verify::all(&repository, threads(), &done);
    let found = watched(&bar, || done.load(Ordering::Relaxed), read).map_err(troubled(folder))?;
    bar.finish_and_clear();
    let now = clock::wall_micros();
    let rules = Rules {
        now,
        writer: &writer::here(now),
        is_over: &|session| writer::is_over(session, now),
        nobody_writes: args.end_sessions,
        forget_hurt: args.forget_hurt,
    };
    let done = repair::repair(&mut repository, &found, &rules).map_err(troubled(folder))?;
    let left = found.hurt.len() - done.forgotten.len();
    if args.json {
        let hurt: Vec<_> = found
            .hurt
            .iter()
            .map(|(name, why)| serde_json::json!({ "id": shown(name), "why": why }))
            .collect();
        print_json(&serde_json::json!({
            "v": 1, "ok": left == 0 && done.left.is_empty(), "index": done.index, "told": done.told, "packs": done.packs.len(),
            "lost_blocks": done.lost, "removed": done.removed, "renewed": done.renewed, "strange": done.strange, "left": done.left, "hurt": hurt,
            "forgotten": done.forgotten.iter().map(shown).collect::<Vec<_>>(),
        }))?;
    } else {
        tell(&found, &done);
    }
    Ok(if left == 0 && done.left.is_empty() { Exit::Fine } else { Exit::Failed })
}

fn tell(found: &Findings, done: &Repaired) {
    for name in &done.index {
        say!("`{name}` was damaged: what it told was read from the packs, and written anew");
    }
    if done.told > 0 {
        say!("an object of the index was gone: {} packs that points need are told of again", done.told);
    }
    for name in &done.renewed {
        say!("`{name}` was damaged or not there, and was written anew");
    }
    for strange in &done.strange {
        say!("{strange}");
    }
    for name in &done.removed {
        say!("`{name}` was damaged, and removed");
    }
    for name in &done.left {
        say!(
            "`{name}` is damaged, and stays: its writer may be alive; if nobody writes, add `--end-sessions`"
        );
    }
    if !done.packs.is_empty() {
        say!("{} hurt packs were written anew, without {} lost blocks", done.packs.len(), done.lost);
    }
    for (name, why) in &found.hurt {
        let is_gone = done.forgotten.contains(name);
        say!("point {} {}: {why}", shown(name), if is_gone { "was removed" } else { "is hurt" });
    }
    if found.hurt.len() > done.forgotten.len() {
        say!("save the images anew: where a lost block is met, it heals every point that needs it");
        say!("what cannot be healed is removed with `--forget-hurt`, and by nothing else");
    } else if *done == Repaired::default() {
        say!("nothing had to be repaired");
    }
}
