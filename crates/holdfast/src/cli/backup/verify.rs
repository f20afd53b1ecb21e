//! `holdfast backup verify`: everything is read and hashed, and what is hurt is named.

use super::pace::{LimitArgs, Paced};
use super::{PointArgs, RepositoryArgs, bar, failed, say_aside, shown, threads, troubled, watched};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use crate::clock;
use clap::Args;
use holdfast_backup::proof::{self, Proof, What};
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::restore::{self, RestoreError, Target};
use holdfast_backup::verify::{self, Findings};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to read.
#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Everything in the repository.
    #[arg(long, conflicts_with_all = ["point", "of", "limit", "iops"])]
    all: bool,
    #[command(flatten)]
    point: PointArgs,
    /// Everything in so many percent of the packs, others each time.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["all", "point", "of", "limit", "iops"])]
    sample: Option<f64>,
    #[command(flatten)]
    limits: LimitArgs,
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
    let findings = match args.sample {
        Some(percent) => packs(args, &repository, &sample(percent)?)?,
        None if args.all => packs(args, &repository, &|_| true)?,
        None => one(args, &repository)?,
    };
    if !args.no_record {
        record(&repository, &findings, args.sample.is_none());
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
            "v": 1, "ok": is_well, "blocks": findings.well, "wrong": findings.wrong, "idle": findings.idle, "points": points,
        }))?;
    } else {
        tell(&findings, args);
    }
    Ok(if is_well { Exit::Fine } else { Exit::Failed })
}

/// What was read a day ago need not be said again, in microseconds.
const SOON: i64 = 86_400_000_000;

/// States beside each point what was found. A repository that cannot be written to is no less well for that.
fn record(repository: &Repository, findings: &Findings, was_all_read: bool) {
    let now = clock::wall_micros();
    let whole = findings.whole.iter().filter(|_| was_all_read).map(|name| (name, What::Verified, ""));
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

fn tell(findings: &Findings, args: &VerifyArgs) {
    for wrong in &findings.wrong {
        say!("damaged: {wrong}");
    }
    tell_idle(&findings.idle);
    for (name, why) in &findings.hurt {
        say!("point {} cannot be restored whole: {why}", shown(name));
    }
    let (whole, points) = (findings.whole.len(), findings.whole.len() + findings.hurt.len());
    if let Some(percent) = args.sample {
        say!("{} blocks are well, of {percent} % of the packs", findings.well);
    } else if args.all {
        say!("{} blocks are well; {whole} of {points} points are whole", findings.well);
    } else if let Some(name) = findings.whole.first() {
        say!("point {} is whole", shown(name));
    }
}

/// Tells of what is hurt and to go, and needed by nothing.
pub(super) fn tell_idle(idle: &[String]) {
    for hurt in idle {
        say!("no damage: {hurt}; it is to go, nothing needs it, and a later `prune` removes it");
    }
}

/// Percent, with or without the sign.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    number
        .ok()
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| format!("`{text}` is no share: write `5%`, more than 0 and at most 100"))
}

/// Says of each pack whether it is read this time: its name is random, and what it is compared with, too.
fn sample(percent: f64) -> Result<impl Fn(&str) -> bool + Sync, CliError> {
    let mut salt = [0; 8];
    holdfast_backup::key::random(&mut salt).map_err(|error| CliError::Said {
        error: "cannot choose a sample".into(),
        cause: error.to_string(),
        hint: "read everything with `--all`".into(),
    })?;
    let salt = u64::from_le_bytes(salt);
    Ok(move |name: &str| {
        let last = name.get(name.len().saturating_sub(8)..).unwrap_or_default();
        let number = u64::from(u32::from_str_radix(last, 16).unwrap_or_default());
        let drawn = (number ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (drawn as f64) < percent / 100.0 * 4_294_967_296.0
    })
}

/// Reads the packs that are meant.
fn packs(
    args: &VerifyArgs,
    repository: &Repository,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Findings, CliError> {
    let folder = &args.repository.repo;
    let mut packs = repository.store().list("packs").map_err(failed(format!("list `{folder}`")))?;
    packs.retain(|(name, _)| is_meant(name));
    let (done, bar) = (AtomicU64::new(0), bar(packs.iter().map(|(_, length)| length).sum(), args.json));
    let read = || verify::some(repository, threads(), &done, is_meant);
    let found = watched(&bar, || done.load(Ordering::Relaxed), read);
    bar.finish_and_clear();
    found.map_err(troubled(folder))
}

struct Nowhere;

impl Target for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// What cannot be read now may be read later: it says nothing about the point. A sector that cannot be read does.
fn is_out_of_reach(trouble: &Trouble) -> bool {
    /// `EIO` of Linux.
    const UNREADABLE: i32 = 5;
    let Trouble::Store { source, .. } = trouble else { return false };
    source.kind() != ErrorKind::NotFound && source.raw_os_error() != Some(UNREADABLE)
}

/// Restores a point to nowhere.
fn one(args: &VerifyArgs, repository: &Repository) -> Result<Findings, CliError> {
    let name: PointName = args.point.find(repository, &args.repository.repo)?;
    let point = repository.point(&name).map_err(troubled(&args.repository.repo))?;
    let (done, bar) = (AtomicU64::new(0), bar(point.disks.iter().map(|disk| disk.size).sum(), args.json));
    let mut findings = Findings::default();
    let pace = args.limits.pace();
    let target = Paced(&Nowhere, pace.as_ref());
    let read =
        || point.disks.iter().try_for_each(|disk| restore::disk(repository, disk, &target, threads(), &done));
    match watched(&bar, || done.load(Ordering::Relaxed), read) {
        Ok(()) => findings.whole.push(name),
        Err(RestoreError::Repository { trouble, .. }) if is_out_of_reach(&trouble) => {
            return Err(troubled(&args.repository.repo)(trouble));
        }
        Err(why) => findings.hurt.push((name, why.to_string())),
    }
    bar.finish_and_clear();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn a_store_that_is_away_says_nothing_about_a_point_and_what_is_gone_or_unreadable_does() {
        let is_away =
            |source: Error| is_out_of_reach(&Trouble::Store { name: "packs/1".into(), done: "read", source });
        assert!(is_away(ErrorKind::TimedOut.into()) && is_away(Error::from_raw_os_error(116)), "ESTALE");
        assert!(!is_away(ErrorKind::NotFound.into()), "the pack is gone");
        assert!(!is_away(Error::from_raw_os_error(5)), "EIO: a sector that cannot be read");
        assert!(!is_out_of_reach(&Trouble::Damaged { name: "packs/1".into() }));
    }
}
