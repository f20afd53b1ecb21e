//! `holdfast backup prune`: restore points that need not be kept are removed (I12), and what no point needs (I13).

use super::{Note, RepositoryArgs, bytes, shown, troubled, writer};
use crate::act::chain;
use crate::cli::{CliError, Exit, paint, print_json};
use crate::clock;
use crate::place::RepositoryPlace;
use clap::Args;
use holdfast_backup::collect::{CollectError, Collected, Rules, Sum, collect};
use holdfast_backup::prune::{self, Decision, Frozen, Points, Worth};
use holdfast_backup::repository::Repository;
use holdfast_backup::retain::{Keep, Reason};
use std::collections::BTreeSet;
use std::time::Duration;

/// What to keep.
#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only points of this VM or image.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Keep the last N points.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest of each of the last N hours that have a point; all periods are those of UTC.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// The same for days.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// The same for weeks, which begin on a Monday.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// The same for months.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// The same for years.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// How long a pack that no point needs stays after it was found.
    #[arg(long, value_name = "TIME", value_parser = super::super::vm::duration, default_value = "1d")]
    grace: Duration,
    /// Write a pack anew of which less than so many percent are needed.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    rewrite_below: u8,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Go on though the clock is far from the newest restore point: you have looked, and it is right.
    #[arg(long)]
    clock_is_right: bool,
    /// Let no warning keep a point: you have looked at those that look encrypted, and they are well.
    #[arg(long)]
    points_are_well: bool,
    /// Take all writers for dead: nobody writes to this repository now. One that does makes no point.
    #[arg(long)]
    end_sessions: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prunes, then collects.
pub fn prune(args: &PruneArgs) -> Result<Exit, CliError> {
    let folder = &args.repository.repo;
    let (mut repository, now) = (args.repository.open()?, clock::wall_micros());
    let keep = Keep {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    if let Some(of) = &args.of {
        is_there(of, &repository, folder)?;
    }
    if let Some(frozen) = prune::frozen(&repository, now).map_err(troubled(folder))? {
        believe(frozen, args)?;
    }
    let (decisions, worth) = if keep.is_nothing() {
        (Vec::new(), Vec::new()) // only what no point needs goes
    } else {
        let is_warned = |point: &_| !args.points_are_well && Note::of(point).warning.is_some();
        let points = Points::of(&repository, args.of.as_deref(), is_warned).map_err(troubled(folder))?;
        (points.decisions(&keep), points.worth(&keep))
    };
    if !args.json {
        tell_points(&decisions, args.dry_run);
    }
    if !args.dry_run {
        prune::remove(&repository, &decisions, |_| {}).map_err(troubled(folder))?;
    }
    let done = collected(args, &mut repository, &decisions, now)?;
    if args.json {
        print_json(&doc(args, &decisions, &worth, &done))?;
    } else {
        tell_packs(&done, args.dry_run);
    }
    Ok(Exit::Fine)
}

/// A name that is mistyped would leave all as it is, and say nothing.
fn is_there(of: &str, repository: &Repository, folder: &RepositoryPlace) -> Result<(), CliError> {
    let points = repository.points().map_err(troubled(folder))?;
    let names: BTreeSet<&str> = points.iter().map(|point| &point.vm[..]).collect();
    if names.contains(of) {
        return Ok(());
    }
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    Err(CliError::Said {
        error: format!("there is no restore point of `{of}`"),
        cause: if names.is_empty() {
            "there are none at all".into()
        } else {
            format!("there are points of {names}")
        },
        hint: "name one of them with `--of`; nothing was changed".into(),
    })
}

/// A clock that jumped freezes all (I12), unless a person says that it is right.
fn believe(frozen: Frozen, args: &PruneArgs) -> Result<(), CliError> {
    if args.clock_is_right || args.dry_run {
        super::say_aside(&format!("note: {frozen}"));
        return Ok(());
    }
    Err(CliError::Said {
        error: "nothing was pruned".into(),
        cause: frozen.to_string(),
        hint:
            "set the clock, or make a new restore point first; if the clock is right, add `--clock-is-right`"
                .into(),
    })
}

fn collected(
    args: &PruneArgs,
    repository: &mut Repository,
    decisions: &[Decision],
    now: i64,
) -> Result<Collected, CliError> {
    let goes = |decision: &&Decision| decision.reasons.is_empty();
    let gone = decisions.iter().filter(goes).map(|decision| decision.point.clone()).collect();
    let is_over = |session: &_| args.end_sessions || writer::is_over(session, now);
    let rules = Rules {
        now,
        grace: i64::try_from(args.grace.as_micros()).unwrap_or(i64::MAX),
        worth: args.rewrite_below,
        writer: &writer::here(now),
        is_over: &is_over,
        dry: args.dry_run.then_some(&gone),
    };
    collect(repository, &rules).map_err(|error| refused(error, &args.repository.repo))
}

fn refused(error: CollectError, folder: &RepositoryPlace) -> CliError {
    let said = |error: CollectError, hint: &str| CliError::Said {
        error: format!("nothing was collected in the repository `{folder}`"),
        cause: chain(&error),
        hint: hint.into(),
    };
    match error {
        CollectError::Repository(trouble) => troubled(folder)(trouble),
        CollectError::Hurt { .. } => said(
            error,
            "nothing is collected while a point is hurt: it might be healed; see `holdfast backup repair`",
        ),
        CollectError::Index(_) => said(error, "`holdfast backup repair` writes the index anew"),
        CollectError::AtWork(_) => said(error, "wait for it; if it is dead, add `--end-sessions`"),
        CollectError::Refused(_) => said(error, "run `holdfast backup verify --all`, and try again"),
    }
}

fn tell_points(decisions: &[Decision], is_dry: bool) {
    if decisions.is_empty() {
        return;
    }
    let mut table = paint::table(&["point", "taken (UTC)", "", "why"]);
    for decision in decisions {
        let taken = decision.taken.map_or_else(|| "-".into(), |taken| paint::utc_second(taken as f64 / 1e6));
        let goes = if is_dry { "would go" } else { "goes" };
        let what = if decision.reasons.is_empty() { goes } else { "stays" };
        table.add_row([shown(&decision.point), taken, what.into(), why(decision)]);
    }
    say!("{table}");
    let is_any = |reason| decisions.iter().any(|decision| decision.reasons.contains(&reason));
    if is_any(Reason::Warned) {
        say!(
            "what a warning keeps stays until `holdfast prove` has seen the application of a newer point answer; \
             if you have looked, and the newer ones are well, add `--points-are-well`"
        );
    }
    if is_any(Reason::NoneNewerVerified) {
        say!("a point goes only once a newer one is verified: `holdfast backup verify --of NAME`");
    }
}

fn why(decision: &Decision) -> String {
    decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn tell_packs(done: &Collected, is_dry: bool) {
    for session in &done.given_up {
        let writer = &session.writer;
        say!("a writer was given up: process {} of {}, which is gone", writer.process, writer.host);
    }
    for session in &done.at_work {
        let writer = &session.writer;
        say!("process {} of {} is writing: what it might need stays", writer.process, writer.host);
    }
    let sum = |sum: &Sum| format!("{} ({})", packs(sum.count), bytes(sum.bytes));
    let (removed, marked) =
        if is_dry { ("would be removed", "would be marked") } else { ("removed", "marked") };
    say!("{} {removed}", sum(&done.removed));
    if done.marked.count > 0 {
        say!("{} {marked}: a later run removes them", sum(&done.marked));
    }
    if done.waiting.count > 0 {
        say!("{} wait for the end of their grace time, or of a writer", sum(&done.waiting));
    }
    if done.copied.count > 0 {
        say!("{} of them are needed, and written anew", bytes(done.copied.bytes));
    }
}

fn packs(count: u64) -> String {
    if count == 1 { "1 pack".into() } else { format!("{count} packs") }
}

fn doc(args: &PruneArgs, decisions: &[Decision], worth: &[Worth], done: &Collected) -> serde_json::Value {
    let points: Vec<_> = decisions
        .iter()
        .map(|decision| {
            let why: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
            serde_json::json!({
                "id": shown(&decision.point), "taken": decision.taken.map(|taken| taken as f64 / 1e6),
                "stays": !why.is_empty(), "why": why,
            })
        })
        .collect();
    let worth: Vec<_> = worth
        .iter()
        .map(|Worth { point, verified }| {
            serde_json::json!({ "id": shown(point), "verified": verified.map(|at| at as f64 / 1e6) })
        })
        .collect();
    let sum = |sum: &Sum| serde_json::json!({ "count": sum.count, "bytes": sum.bytes });
    serde_json::json!({
        "v": 1, "dry_run": args.dry_run, "points": points, "worth": worth, "removed": sum(&done.removed),
        "marked": sum(&done.marked), "waiting": sum(&done.waiting), "copied": sum(&done.copied),
        "writers": done.at_work.len(), "given_up": done.given_up.len(),
    })
}
