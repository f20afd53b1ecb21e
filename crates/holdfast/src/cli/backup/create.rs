//! `holdfast backup create VM...`: VMs are backed up by the daemon, running or off, and this shows how it goes.

use super::pace::LimitArgs;
use super::{bytes, say_aside};
use crate::api::Words;
use crate::api::backups::BackupWords;
use crate::backups::{BackupDoc, BackupState};
use crate::cli::{CliError, Exit, print_json};
use crate::client::{Client, ClientError, Method};
use crate::config::Limits;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the daemon may take to begin one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked how it goes.
const LOOK: Duration = Duration::from_millis(200);

/// Of which VMs.
#[derive(Args)]
pub struct CreateArgs {
    /// The VMs: each into the repository of its `[vm.NAME.protect.backup]`.
    #[arg(required = true, value_name = "VM")]
    vms: Vec<String>,
    /// Of each; otherwise as its `limit` and `iops` say.
    #[command(flatten)]
    limits: LimitArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Of which VM.
#[derive(Args)]
pub struct CancelArgs {
    /// The VM.
    vm: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Ends the backup of a VM that is under way, whoever began it.
pub async fn end(client: &Client, args: &CancelArgs) -> Result<Exit, CliError> {
    let vm = super::super::vm::checked(&args.vm)?;
    let words = Words { by: Some(client.by().to_owned()), ..Words::default() };
    client.tell(&format!("{}/cancel", place(vm)), &words).await?;
    if args.json {
        print_json(&serde_json::json!({ "v": 1, "vm": vm, "ok": true }))?;
        return Ok(Exit::Fine);
    }
    say!("{vm}: its backup ends, and no restore point is made of it; what was saved is not saved twice");
    Ok(Exit::Fine)
}

/// Has points made, and waits until all are. Ctrl-C cancels those that are not.
pub async fn create(client: &Client, args: &CreateArgs) -> Result<Exit, CliError> {
    let mut vms = args.vms.clone();
    vms.sort();
    vms.dedup();
    let words = || Words { by: Some(client.by().to_owned()), ..Words::default() };
    let Limits { limit, iops } = args.limits.wanted();
    let wanted = BackupWords { limit, iops, by: Some(client.by().to_owned()) };
    let listens = |source| CliError::Io { what: "listen to signals".into(), source };
    let interrupt = signal(SignalKind::interrupt()).map_err(listens)?; // before anything is begun
    let (mut begun, mut refused) = (Vec::new(), None);
    for vm in &vms {
        let vm = super::super::vm::checked(vm)?;
        match client.order::<BackupDoc>(Method::POST, &place(vm), &wanted, PATIENCE).await {
            Ok(doc) => begun.push(doc),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    if let Some(error) = refused {
        // All or none: nobody looks after those that began.
        for doc in &begun {
            cancel(client, &doc.vm, &words()).await?;
        }
        return Err(error.into());
    }
    let ended = wait(client, begun, interrupt, args.json).await?;
    if args.json {
        print_json(&ended)?;
    } else {
        ended.iter().for_each(tell);
    }
    let is_well = ended.iter().all(|doc| doc.state == BackupState::Done);
    Ok(if is_well { Exit::Fine } else { Exit::Failed })
}

fn place(vm: &str) -> String {
    format!("/api/v1/vms/{vm}/backup")
}

/// Ends one; that it is over already is as good.
async fn cancel(client: &Client, vm: &str, words: &Words) -> Result<(), CliError> {
    match client.tell(&format!("{}/cancel", place(vm)), words).await {
        Ok(()) | Err(ClientError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Shows how they go until all are over; how each ended.
async fn wait(
    client: &Client,
    begun: Vec<BackupDoc>,
    mut interrupt: Signal,
    is_quiet: bool,
) -> Result<Vec<BackupDoc>, CliError> {
    let bars = MultiProgress::new();
    let mut all: Vec<(BackupDoc, ProgressBar)> = Vec::new();
    for doc in begun {
        let bar = bars.add(super::bar(0, is_quiet));
        all.push((doc, bar));
    }
    let mut is_cancelled = false;
    while all.iter().any(|(doc, _)| !doc.state.is_over()) {
        tokio::select! {
            _ = interrupt.recv(), if !is_cancelled => {
                is_cancelled = true;
                let words = Words { by: Some(client.by().to_owned()), ..Words::default() };
                for (doc, _) in all.iter().filter(|(doc, _)| !doc.state.is_over()) {
                    cancel(client, &doc.vm, &words).await?;
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        for (doc, bar) in all.iter_mut().filter(|(doc, _)| !doc.state.is_over()) {
            *doc = client.get(&place(&doc.vm)).await?;
            bar.set_length(doc.size);
            bar.set_position(doc.read + doc.skipped);
            if doc.state.is_over() {
                bar.finish_and_clear();
            }
        }
    }
    Ok(all.into_iter().map(|(doc, _)| doc).collect())
}

/// How fast it was read at most, where that was bounded.
fn at_most(Limits { limit, iops }: Limits) -> String {
    let limit = limit.map(|limit| format!("{}/s", bytes(limit)));
    let iops = iops.map(|iops| format!("{iops} reads/s"));
    let bounds: Vec<String> = limit.into_iter().chain(iops).collect();
    if bounds.is_empty() { String::new() } else { format!(" at {} at most", bounds.join(" and ")) }
}

/// Says how one ended.
fn tell(doc: &BackupDoc) {
    let vm = &doc.vm;
    match doc.state {
        BackupState::Done => {
            doc.warnings.iter().for_each(|warning| say_aside(&format!("{vm}: {warning}")));
            if let Some(why) = &doc.why_all {
                say_aside(&format!("{vm}: {why}: all was read, and only the change is stored"));
            }
            let (id, took) = (doc.id.as_deref().unwrap_or("-"), doc.seconds.unwrap_or_default());
            let (read, size, added) = (bytes(doc.read), bytes(doc.size), bytes(doc.added));
            let known = if doc.resumed > 0 { super::known_before(doc.resumed) } else { String::new() };
            let guest = if doc.off {
                "it was off".to_owned()
            } else {
                format!("it had to wait {:.0} ms", doc.stall_s * 1e3)
            };
            let pace = at_most(doc.limits);
            say!(
                "{vm}: restore point {id} in {}: {read} of {size} read{known}, {added} added, {took:.1} s{pace}; {guest}",
                doc.to
            );
        }
        BackupState::Cancelled => say!("{vm}: cancelled, no restore point was made"),
        BackupState::Failed | BackupState::Waits | BackupState::Runs => {
            let word = |word: &Option<String>| word.clone().unwrap_or_default();
            say_aside(&format!("{vm}: error: {}", word(&doc.error)));
            say_aside(&format!("cause: {}\nhint:  {}", word(&doc.cause), word(&doc.hint)));
        }
    }
}
