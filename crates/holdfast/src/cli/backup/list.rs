//! `holdfast backup list`: which restore points there are.

use super::{Note, RepositoryArgs, bytes, shown, troubled};
use crate::cli::{CliError, Exit, paint, print_json};
use clap::Args;
use holdfast_backup::point::Point;
use holdfast_backup::repository::PointName;

/// Of which repository.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists them, oldest first. One that cannot be read is listed as damaged.
pub fn list(args: &ListArgs) -> Result<Exit, CliError> {
    let repository = args.repository.open()?;
    let names = repository.points().map_err(troubled(&args.repository.repo))?;
    let points: Vec<_> = names.iter().map(|name| (name, repository.point(name))).collect();
    if args.json {
        let docs: Vec<_> = points.iter().map(|(name, point)| doc(name, point.as_ref().ok())).collect();
        print_json(&docs)?;
        return Ok(Exit::Fine);
    }
    if points.is_empty() {
        say!("no restore points");
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["point", "taken (UTC)", "size", "added", ""]);
    for (name, point) in &points {
        let row = match point {
            Ok(point) => {
                let (taken, added) = (paint::utc_second(point.taken as f64 / 1e6), Note::of(point).added);
                [shown(name), taken, bytes(size(point)), bytes(added), String::new()]
            }
            Err(_) => [shown(name), "-".into(), "-".into(), "-".into(), "damaged".into()],
        };
        table.add_row(row);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

fn size(point: &Point) -> u64 {
    point.disks.iter().map(|disk| disk.size).sum()
}

/// One point; without what it says if it cannot be read.
fn doc(name: &PointName, point: Option<&Point>) -> serde_json::Value {
    let note = point.map(Note::of);
    serde_json::json!({
        "v": 1, "id": shown(name), "vm": name.vm, "kind": "backup", "memory": false, "damaged": point.is_none(),
        "taken": point.map(|point| point.taken as f64 / 1e6), "grade": "taken", "proved": null,
        "size": point.map(size), "added": note.as_ref().map(|note| note.added), "boot_s": null,
        "parent": note.and_then(|note| note.parent),
    })
}
