//! `holdfast points VM`: everything that one can go back to.

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, print_json};
use crate::api::points::{PointDoc, PointsDoc};
use crate::client::Client;
use crate::config::tame;
use clap::Args;

/// Of which VM.
#[derive(Args)]
pub struct PointsArgs {
    /// The VM.
    vm: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists its snapshots and backups, oldest first.
pub async fn points(client: &Client, args: &PointsArgs) -> Result<Exit, CliError> {
    let vm = super::vm::checked(&args.vm)?;
    let known: PointsDoc = client.get(&format!("/api/v1/vms/{vm}/points")).await?;
    if args.json {
        print_json(&known.points)?;
    } else if known.points.is_empty() {
        match &known.trouble {
            None => say!(
                "{vm} has no restore points; `holdfast snapshot create {vm}` or `holdfast backup create {vm}` makes one"
            ),
            Some(_) => say!("{vm} has no snapshots; whether it has backups is not known"),
        }
    } else {
        show(&known.points);
    }
    if let Some(coming) = known.coming.as_ref().filter(|_| !args.json) {
        let taken = indicatif::BinaryBytes(coming.taken);
        let how = if coming.is_offered { "comes" } else { "is to come" };
        say!("its disk {how} in from {}; it takes {taken} by now", coming.point);
    }
    let Some(trouble) = &known.trouble else { return Ok(Exit::Fine) };
    if args.json {
        return Err(CliError::Said {
            error: format!("the backups of {vm} cannot be listed"),
            cause: trouble.clone(),
            hint: "its snapshots are all there; try again once its repository can be reached".into(),
        });
    }
    paint::aside(&format!("its backups cannot be listed: {trouble}\n"));
    Ok(Exit::Failed)
}

fn show(points: &[PointDoc]) {
    let mut head = vec!["point", "taken (UTC)", "age", "grade", "memory", "size", "takes", "boots in"];
    let is_told = points.iter().any(|point| !point.since.is_empty());
    head.extend(is_told.then_some("rows since"));
    let mut table = paint::table(&head);
    let size =
        |bytes: Option<u64>| bytes.map_or("-".into(), |bytes| indicatif::BinaryBytes(bytes).to_string());
    for point in points {
        let rows = point.since.rows().map_or("-".into(), |rows| indicatif::HumanCount(rows).to_string());
        let mut row = vec![
            tint(Tone::Bold, &point.id),
            point.taken.map_or("-".into(), paint::utc_second),
            point.taken.map_or("-".into(), paint::ago),
            point.grade.clone(),
            if point.memory { "yes".into() } else { "-".to_owned() },
            size(point.size),
            size(point.added),
            point.boot_s.map_or("-".into(), |seconds| format!("{seconds:.1} s")),
        ];
        row.extend(is_told.then_some(rows));
        table.add_row(row);
    }
    say!("{table}");
    for point in points {
        if let Some(warning) = &point.warning {
            say!("{}", tint(Tone::Warm, &tame(&format!("{}: {warning}", point.id))));
        }
    }
}
