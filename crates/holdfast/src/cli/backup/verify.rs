//! `holdfast backup verify`: everything is read and hashed, and what is hurt is named.

use super::{PointArgs, RepositoryArgs, bar, failed, say_aside, shown, threads, troubled, watched, writer};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use clap::Args;
use holdfast_backup::proof::{self, Proof, What};
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::restore::{self, Target};
use holdfast_backup::verify::{self, Findings};
use std::sync::atomic::{AtomicU64, Ordering};

/// What to read.
#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Everything in the repository.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    point: PointArgs,
    /// Do not write into the repository what was found.
    #[arg(long)]
    no_record: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Reads everything, or a point, and takes it for nothing.
pub fn verify(args: &VerifyArgs) -> Result<Exit, CliError> {
    let repository = args.repository.open()?;
    let findings = if args.all { all(args, &repository)? } else { one(args, &repository)? };
    if !args.no_record {
        record(&repository, &findings);
    }
    let is_well = findings.wrong.is_empty() && findings.hurt.is_empty();
    if args.json {
        let whole = findings.whole.iter().map(|name| (name, None));
        let hurt = findings.hurt.iter().map(|(name, why)| (name, Some(why)));
        let points: Vec<_> = whole
            .chain(hurt)
            .map(|(name, why)| serde_json::json!({ "id": shown(name), "whole": why.is_none(), "why": why }))
            .collect();
        print_json(&serde_json::json!({
            "v": 1, "ok": is_well, "blocks": findings.well, "wrong": findings.wrong, "points": points,
        }))?;
    } else {
        tell(&findings, args.all);
    }
    Ok(if is_well { Exit::Fine } else { Exit::Failed })
}

/// What was read a day ago need not be said again, in microseconds.
const SOON: i64 = 86_400_000_000;

/// States beside each point what was found. A repository that cannot be written to is no less well for that.
fn record(repository: &Repository, findings: &Findings) {
    let now = writer::now();
    let whole = findings.whole.iter().map(|name| (name, What::Verified, ""));
    let hurt = findings.hurt.iter().map(|(name, why)| (name, What::Hurt, &why[..]));
    let state = |(name, what, words): (&PointName, What, &str)| {
        let standing = proof::standing(repository, name)?;
        let is_fresh = standing.verified.is_some_and(|at| (0..SOON).contains(&now.saturating_sub(at)));
        let is_known = if what == What::Hurt { standing.is_hurt } else { is_fresh };
        let words = words.chars().take(proof::WORDS_MOST / 4).collect();
        let proof = Proof { what, when: now, boot: 0, words };
        if is_known { Ok(()) } else { proof::prove(repository, name, &proof) }
    };
    if let Some(why) = whole.chain(hurt).find_map(|found| state(found).err()) {
        say_aside(&format!("note: what was found is not recorded: {}", chain(&why)));
    }
}

fn tell(findings: &Findings, all: bool) {
    for wrong in &findings.wrong {
        say!("damaged: {wrong}");
    }
    for (name, why) in &findings.hurt {
        say!("point {} cannot be restored whole: {why}", shown(name));
    }
    let (whole, points) = (findings.whole.len(), findings.whole.len() + findings.hurt.len());
    if all {
        say!("{} blocks are well; {whole} of {points} points are whole", findings.well);
    } else if let Some(name) = findings.whole.first() {
        say!("point {} is whole", shown(name));
    }
}

fn all(args: &VerifyArgs, repository: &Repository) -> Result<Findings, CliError> {
    let folder = &args.repository.repo;
    let packs = repository.store().list("packs").map_err(failed(format!("list `{}`", folder.display())))?;
    let (done, bar) = (AtomicU64::new(0), bar(packs.iter().map(|(_, length)| length).sum(), args.json));
    let found = watched(&bar, || done.load(Ordering::Relaxed), || verify::all(repository, threads(), &done));
    bar.finish_and_clear();
    found.map_err(troubled(folder))
}

struct Nowhere;

impl Target for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// Restores a point to nowhere.
fn one(args: &VerifyArgs, repository: &Repository) -> Result<Findings, CliError> {
    let name: PointName = args.point.find(repository, &args.repository.repo)?;
    let point = repository.point(&name).map_err(troubled(&args.repository.repo))?;
    let (done, bar) = (AtomicU64::new(0), bar(point.disks.iter().map(|disk| disk.size).sum(), args.json));
    let mut findings = Findings::default();
    let read = || {
        point.disks.iter().try_for_each(|disk| restore::disk(repository, disk, &Nowhere, threads(), &done))
    };
    match watched(&bar, || done.load(Ordering::Relaxed), read) {
        Ok(()) => findings.whole.push(name),
        Err(why) => findings.hurt.push((name, why.to_string())),
    }
    bar.finish_and_clear();
    Ok(findings)
}
