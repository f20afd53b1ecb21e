//! `holdfast backup revert VM POINT`: a running VM, or one that is off, goes back to its backup at once, as to a snapshot.

use crate::api::Words;
use crate::api::points::PointsDoc;
use crate::cli::snapshot::{ORDER, agree, incarnation, wait_for_start};
use crate::cli::{CliError, Exit, paint, print_json};
use crate::client::{Client, Method};
use clap::Args;
use std::time::Instant;

/// Which VM, and to which point.
#[derive(Args)]
pub struct RevertArgs {
    /// The VM.
    vm: String,
    /// The backup: its number, as `holdfast points` lists it, or `latest`.
    #[arg(value_name = "NUMBER")]
    point: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON. Then nobody is asked.
    #[arg(long, requires = "yes")]
    json: bool,
}

/// Has the daemon end the VM and start it from the backup, whose blocks come in while it runs.
pub async fn revert(client: &Client, args: &RevertArgs) -> Result<Exit, CliError> {
    let vm = crate::cli::vm::checked(&args.vm)?;
    super::must_be_number(&args.point, &args.point)?;
    let known: PointsDoc = client.get(&format!("/api/v1/vms/{vm}/points")).await?;
    let number = |id: &str| id.strip_prefix(vm)?.strip_prefix('/').map(ToOwned::to_owned);
    let backups = known.points.iter().filter(|point| point.kind == "backup");
    let mut backups = backups.filter_map(|point| Some((number(&point.id)?, point)));
    let found = match args.point.as_str() {
        "latest" => backups.next_back(),
        wanted => backups.find(|(number, _)| number == wanted),
    };
    let Some((number, point)) = found else {
        return Err(CliError::Said {
            error: format!("{vm} has no backup `{}`", args.point),
            cause: known.trouble.unwrap_or_else(|| "its repository has none of that number".into()),
            hint: format!("`holdfast points {vm}` lists them"),
        });
    };
    if !args.yes {
        let taken = point.taken.map_or("at a time that is not known".into(), paint::ago);
        let warning = point.warning.as_ref().map(|warning| format!(" Look at it first: {warning}."));
        let warning = warning.unwrap_or_default();
        agree(
            vm,
            &format!("backup {number}"),
            &format!("taken {taken} ({}).{warning}", point.grade),
            &point.since,
        )?;
    }
    let (before, began) = (incarnation(client, vm).await?, Instant::now());
    let words = Words { by: Some(client.by().to_owned()), ..Words::default() };
    let path = format!("/api/v1/vms/{vm}/backups/{number}/revert");
    let _: serde_json::Value = client.order(Method::POST, &path, &words, ORDER).await?;
    let took = wait_for_start(client, vm, before, began).await?;
    if args.json {
        print_json(&serde_json::json!({ "v": 1, "vm": vm, "id": point.id, "seconds": took }))?;
        return Ok(Exit::Fine);
    }
    say!("{vm} boots backup {number}, {took:.1} s after it was told to; its blocks come in while it runs");
    say!("what it was before is the newest of `holdfast snapshot list {vm}`");
    Ok(Exit::Fine)
}
