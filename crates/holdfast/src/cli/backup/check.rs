//! `holdfast backup check`: the structure of a repository, without the content of its blocks.

use super::{RepositoryArgs, shown, troubled, verify};
use crate::cli::{CliError, Exit, print_json};
use clap::Args;
use holdfast_backup::check::{self, Findings};

/// Of which repository.
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Checks it.
pub fn check(args: &CheckArgs) -> Result<Exit, CliError> {
    let repository = args.repository.open()?;
    let found = check::check(&repository).map_err(troubled(&args.repository.repo))?;
    let is_well = found.wrong.is_empty() && found.hurt.is_empty();
    if args.json {
        let hurt = found.hurt.iter().map(|(name, why)| (name, Some(why)));
        let points: Vec<_> = found
            .whole
            .iter()
            .map(|name| (name, None))
            .chain(hurt)
            .map(|(name, why)| serde_json::json!({ "id": shown(name), "whole": why.is_none(), "why": why }))
            .collect();
        print_json(&serde_json::json!({
            "v": 1, "ok": is_well, "packs": found.packs, "blocks": found.blocks, "untold": found.untold.len(),
            "alone": found.alone, "wrong": found.wrong, "idle": found.idle, "points": points,
        }))?;
    } else {
        tell(&found);
    }
    Ok(if is_well { Exit::Fine } else { Exit::Failed })
}

fn tell(found: &Findings) {
    for wrong in &found.wrong {
        say!("damaged: {wrong}");
    }
    verify::tell_idle(&found.idle);
    for (name, why) in &found.hurt {
        say!("point {} cannot be restored whole: {why}", shown(name));
    }
    for name in &found.alone {
        say!("the key `{name}` lies there once: `holdfast backup repair` puts a second object there");
    }
    if !found.untold.is_empty() {
        say!("{} packs were left by a writer that was killed; `prune` removes them", found.untold.len());
    }
    let (whole, points) = (found.whole.len(), found.whole.len() + found.hurt.len());
    say!(
        "{} packs, {} blocks; {whole} of {points} points have all that they need",
        found.packs,
        found.blocks
    );
    if !(found.wrong.is_empty() && found.hurt.is_empty()) {
        say!("`holdfast backup repair` makes whole what can be, and says what is lost");
    }
}
