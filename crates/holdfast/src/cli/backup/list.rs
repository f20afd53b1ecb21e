//! `holdfast backup list`: which restore points there are.

use super::{Note, RepositoryArgs, bytes, shown, troubled};
use crate::cli::paint::{self, Tone, tint};
use crate::cli::{CliError, Exit, print_json};
use crate::config::tame;
use clap::Args;
use holdfast_backup::listed::{self, Listed};
use holdfast_backup::point::Point;
use holdfast_backup::proof::Standing;
use holdfast_backup::repository::PointName;

/// Of which repository.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Only points of this VM or image.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists them, oldest first. One that cannot be read is listed as damaged.
pub fn list(args: &ListArgs) -> Result<Exit, CliError> {
    let repository = args.repository.open_unread()?;
    let points = listed::points(&repository, args.of.as_deref()).map_err(troubled(&args.repository.repo))?;
    if args.json {
        let docs: Vec<_> =
            points.iter().map(|one| doc(&one.name, one.point.as_ref().ok(), &one.standing)).collect();
        print_json(&docs)?;
        return Ok(Exit::Fine);
    }
    if points.is_empty() {
        say!("no restore points");
        return Ok(Exit::Fine);
    }
    let mut table =
        paint::table(&["point", "taken (UTC)", "size", "changed", "added", "grade", "verified (UTC)"]);
    let mut warnings = Vec::new();
    for Listed { name, point, standing } in &points {
        let at = |micros: i64| paint::utc_second(micros as f64 / 1e6);
        let dated = |micros: i64| {
            let ahead = paint::ahead(micros as f64 / 1e6).map(|ahead| format!(", {ahead}"));
            at(micros) + &ahead.unwrap_or_default()
        };
        let note = point.as_ref().map(Note::of).unwrap_or_default();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let known = point.as_ref().ok();
        let taken = or_none(known.map(|point| dated(point.taken)));
        let size = or_none(known.map(|point| bytes(size(point))));
        let changed = or_none(note.change.map(|change| bytes(change.changed)));
        let added = or_none(known.map(|_| bytes(note.added)));
        let is_hurt = standing.is_hurt || point.is_err();
        let grade = if is_hurt { "hurt".into() } else { standing.grade.to_string() };
        let verified = standing.verified.map_or_else(|| "-".into(), at);
        table.add_row([shown(name), taken, size, changed, added, grade, verified]);
        warnings.extend(note.warning.map(|warning| format!("{}: {}", shown(name), tame(&warning))));
    }
    say!("{table}");
    warnings.iter().for_each(|warning| say!("{}", tint(Tone::Warm, warning)));
    Ok(Exit::Fine)
}

fn size(point: &Point) -> u64 {
    point.disks.iter().map(|disk| disk.size).sum()
}

/// One point; without what it says if it cannot be read.
pub fn doc(name: &PointName, point: Option<&Point>, standing: &Standing) -> serde_json::Value {
    let note = point.map(Note::of);
    let change = note.as_ref().and_then(|note| note.change);
    let seconds = |micros: i64| micros as f64 / 1e6;
    serde_json::json!({
        "v": 1, "id": shown(name), "vm": name.vm, "kind": "backup", "memory": false, "damaged": point.is_none(),
        "hurt": standing.is_hurt || point.is_none(), "taken": point.map(|point| seconds(point.taken)),
        "grade": standing.grade.to_string(), "proved": standing.proved.map(seconds),
        "verified": standing.verified.map(seconds), "size": point.map(size),
        "added": note.as_ref().map(|note| note.added), "boot_s": standing.boot.map(|boot| boot as f64 / 1e3),
        "tried": standing.tried.map(seconds), "trial": standing.tried.map(|_| &standing.words),
        "changed": change.map(|change| change.changed), "new": change.map(|change| change.new),
        "packed": change.map(|change| change.packed), "dense": change.map(|change| change.dense),
        "used": change.map(|change| change.used), "written": note.as_ref().map(|note| &note.written),
        "warning": note.as_ref().and_then(|note| note.warning.clone()), "parent": note.and_then(|note| note.parent),
    })
}
