//! `holdfast snapshot`: the disk of a VM as it was, with or without its memory; near, fast, and lost with the disk.

use super::complain::complain;
use super::paint::{self, Tone, tint};
use super::{CliError, Exit, print_json};
use crate::api::shape::{StatusDoc, VmDoc};
use crate::api::snapshots::{SnapshotDoc, SnapshotWords, SnapshotsDoc, TakenDoc};
use crate::client::{Client, ClientError, Method};
use clap::{Args, Subcommand};
use holdfast_core::written::Losses;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What can be done with snapshots.
#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// Take one: the VM runs on.
    Create(CreateArgs),
    /// List them, oldest first.
    List {
        /// The VM.
        vm: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete some; their room is given back while the VM runs on.
    Delete {
        /// The VM.
        vm: String,
        /// Their numbers.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Go back to the disk of one: ends the VM, and boots it again. What it was before is kept as another snapshot.
    Revert(BackArgs),
    /// Go back to disk and memory of one: the VM goes on where it was, without a boot.
    Resume(ResumeArgs),
}

/// What to take.
#[derive(Args)]
pub struct CreateArgs {
    /// The VM.
    vm: String,
    /// With its memory, so that it can be resumed: the VM stands still while that is written.
    #[arg(long)]
    memory: bool,
    /// Fail rather than take one whose file systems were not frozen by the guest agent.
    #[arg(long, conflicts_with_all = ["no_freeze", "memory"])]
    freeze: bool,
    /// Do not freeze its file systems: the disk is then as after a power cut.
    #[arg(long)]
    no_freeze: bool,
    /// What it is, for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// To which one.
#[derive(Args)]
pub struct BackArgs {
    /// The VM.
    vm: String,
    /// Its number.
    id: u64,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print JSON. Then nobody is asked.
    #[arg(long, requires = "yes")]
    json: bool,
}

/// To which one.
#[derive(Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    back: BackArgs,
    /// Although its memory was resumed before: its guest uses keys and random numbers for a second time.
    #[arg(long)]
    again: bool,
}

/// Which way back is approved.
#[derive(Args)]
pub struct ApproveArgs {
    /// The incident.
    id: u64,
    /// To this snapshot; otherwise to the one that the incident tells of.
    #[arg(long, value_name = "NUMBER")]
    snapshot: Option<u64>,
    /// To this backup.
    #[arg(long, value_name = "NUMBER", conflicts_with = "snapshot")]
    backup: Option<u64>,
}

/// `holdfast approve`: a person agrees to lose what came after a restore point.
pub async fn approve(client: &Client, args: &ApproveArgs) -> Result<Exit, CliError> {
    let (to, backup, by) = (args.snapshot, args.backup, client.by().to_owned());
    let words = SnapshotWords { to, backup, by, ..SnapshotWords::default() };
    let path = format!("/api/v1/incidents/{}/approve", args.id);
    let done: serde_json::Value = client.order(Method::POST, &path, &words, ORDER).await?;
    let vm = done["vm"].as_str().unwrap_or("it");
    say!("{vm} is to go back: it is ended and started again, and then watched whether that helped");
    say!(
        "where its restore point cannot be reached, as in a repository that is away, that waits until it can be"
    );
    say!(
        "`holdfast explain {}` tells to what it goes back and what it waits for; `holdfast watch` shows it",
        args.id
    );
    Ok(Exit::Fine)
}

/// A memory of many GiB is written meanwhile.
const TAKES: Duration = Duration::from_secs(600);
pub(super) const ORDER: Duration = Duration::from_secs(60);
/// How long the VM is waited for.
const COMES: Duration = Duration::from_secs(120);

/// Carries out one of them.
pub async fn snapshot(client: &Client, command: SnapshotCommand) -> Result<Exit, CliError> {
    match command {
        SnapshotCommand::Create(args) => create(client, args).await,
        SnapshotCommand::List { vm, json } => list(client, &vm, json).await,
        SnapshotCommand::Delete { vm, ids, json } => delete(client, &vm, &ids, json).await,
        SnapshotCommand::Revert(args) => back(client, &args, false, false).await,
        SnapshotCommand::Resume(args) => back(client, &args.back, true, args.again).await,
    }
}

fn place(vm: &str) -> Result<String, CliError> {
    super::vm::checked(vm).map(|vm| format!("/api/v1/vms/{vm}/snapshots"))
}

async fn create(client: &Client, args: CreateArgs) -> Result<Exit, CliError> {
    let freeze = (args.freeze || args.no_freeze).then_some(args.freeze);
    let by = client.by().to_owned();
    let words =
        SnapshotWords { memory: args.memory, freeze, note: args.note, by, ..SnapshotWords::default() };
    let taken: TakenDoc = client.order(Method::POST, &place(&args.vm)?, &words, TAKES).await?;
    if args.json {
        print_json(&taken)?;
        return Ok(Exit::Fine);
    }
    let with = match (taken.memory, taken.frozen) {
        (Some(bytes), _) => format!("with {} of memory", size(bytes)),
        (None, true) => "consistent".to_owned(),
        (None, false) => "as after a power cut".to_owned(),
    };
    let stall = (taken.stall_s * 1_000.0).round();
    say!(
        "{}: snapshot {}, {with}; it had to wait {stall} ms",
        taken.vm,
        tint(Tone::Bold, &taken.id.to_string())
    );
    for warning in &taken.warnings {
        paint::aside(&format!("warning: {warning}\n"));
    }
    Ok(Exit::Fine)
}

async fn list(client: &Client, vm: &str, json: bool) -> Result<Exit, CliError> {
    let known: SnapshotsDoc = client.get(&place(vm)?).await?;
    if json {
        print_json(&known)?;
        return Ok(Exit::Fine);
    }
    if known.snapshots.is_empty() {
        say!("{vm} has no snapshots; `holdfast snapshot create {vm}` takes one");
    } else {
        let mut table = paint::table(&["snapshot", "taken (UTC)", "age", "state", "disk", "memory", "note"]);
        for one in &known.snapshots {
            table.add_row([
                tint(Tone::Bold, &one.id.to_string()),
                paint::utc_second(one.taken),
                paint::ago(one.taken),
                state(one).to_owned(),
                size(one.disk),
                one.memory.map_or("-".into(), size),
                note(one),
            ]);
        }
        say!("{table}");
    }
    if let Some(merging) = &known.merging {
        say!("deleted ones are being merged: {} of {}", size(merging.done), size(merging.total));
    }
    Ok(Exit::Fine)
}

fn state(one: &SnapshotDoc) -> &'static str {
    match (one.set_aside, one.memory, one.frozen) {
        (true, ..) => "set aside",
        (false, Some(_), _) if one.resumed > 0 => "was resumed",
        (false, Some(_), _) => "can be resumed",
        (false, None, true) => "consistent",
        (false, None, false) => "crash-like",
    }
}

fn note(one: &SnapshotDoc) -> String {
    match one.resumed {
        0 => one.note.clone(),
        1 => format!("{} (resumed once)", one.note).trim_start().to_owned(),
        times => format!("{} (resumed {times} times)", one.note).trim_start().to_owned(),
    }
}

/// `snapshot delete --json`.
#[derive(Default, Serialize)]
struct DeletedDoc<'a> {
    v: u32,
    vm: &'a str,
    /// The first that was to go.
    id: u64,
    deleted: Vec<u64>,
    refused: Vec<serde_json::Value>,
}

/// Deletes one after the other. One that is refused stays, and the others go.
async fn delete(client: &Client, vm: &str, ids: &[u64], json: bool) -> Result<Exit, CliError> {
    let words = SnapshotWords { by: client.by().to_owned(), ..SnapshotWords::default() };
    let place = place(vm)?;
    let first = ids.first().copied().unwrap_or_default();
    let mut doc = DeletedDoc { v: 1, vm, id: first, ..DeletedDoc::default() };
    let mut ended = Ok(());
    for id in ids {
        let path = format!("{place}/{id}");
        let gone = client.order::<serde_json::Value>(Method::DELETE, &path, &words, ORDER).await;
        match gone {
            Ok(_) => {
                doc.deleted.push(*id);
                if !json {
                    say!("{vm}: snapshot {id} is deleted; its room is given back in the background");
                }
            }
            Err(ClientError::Refused(why)) if ids.len() > 1 => {
                doc.refused.push(serde_json::json!({
                    "id": id, "error": why.error, "cause": why.cause, "hint": why.hint,
                }));
                if !json {
                    complain(&ClientError::Refused(why).into());
                }
            }
            Err(error) => {
                ended = Err(error); // that of the only one, or nobody answers any more
                break;
            }
        }
    }
    if json && (ended.is_ok() || !doc.deleted.is_empty()) {
        print_json(&doc)?;
    }
    ended?;
    Ok(if doc.refused.is_empty() { Exit::Fine } else { Exit::Failed })
}

async fn back(client: &Client, args: &BackArgs, resume: bool, again: bool) -> Result<Exit, CliError> {
    let BackArgs { vm, id, yes, json } = args;
    let path = place(vm)?;
    let known: SnapshotsDoc = client.get(&path).await?;
    let Some(one) = known.snapshots.iter().find(|one| one.id == *id) else {
        let there: Vec<String> = known.snapshots.iter().map(|one| one.id.to_string()).collect();
        let cause =
            if there.is_empty() { "it has none".into() } else { format!("it has {}", there.join(", ")) };
        let hint = format!("`holdfast snapshot list {vm}` shows them");
        return Err(CliError::Said { error: format!("{vm} has no snapshot {id}"), cause, hint });
    };
    if !yes {
        agree(vm, &format!("snapshot {id}"), &format!("taken {}.", paint::ago(one.taken)), &one.since)?;
    }
    let before = incarnation(client, vm).await?;
    let began = Instant::now();
    let by = client.by().to_owned();
    let words = SnapshotWords { resume, again, by, ..SnapshotWords::default() };
    let _: serde_json::Value =
        client.order(Method::POST, &format!("{path}/{id}/revert"), &words, ORDER).await?;
    let took = wait_for_start(client, vm, before, began).await?;
    if *json {
        print_json(&serde_json::json!({ "v": 1, "vm": vm, "id": id, "seconds": took }))?;
        return Ok(Exit::Fine);
    }
    let how = if resume { "goes on with" } else { "boots" };
    say!("{vm} {how} snapshot {id}, {took:.1} s after it was told to");
    say!("what it was before is the newest of `holdfast snapshot list {vm}`");
    Ok(Exit::Fine)
}

/// Waits until another start of it runs than before; how long that took, in seconds.
pub(super) async fn wait_for_start(
    client: &Client,
    vm: &str,
    before: Option<u64>,
    began: Instant,
) -> Result<f64, CliError> {
    while began.elapsed() < COMES {
        if let Some(known) = standing(client, vm).await? {
            if let Some(why) = known.not_back {
                return Err(not_back(vm, why));
            }
            if known.incarnation.is_some() && known.incarnation != before && !known.busy {
                return Ok(began.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(CliError::Said {
        error: format!("{vm} does not run {} s after it was told to go back", COMES.as_secs()),
        cause: "`holdfast vm show` tells what it waits for".into(),
        hint: format!(
            "`holdfast events` tells what happened; nothing is lost: `holdfast snapshot list {vm}`"
        ),
    })
}

fn not_back(vm: &str, why: String) -> CliError {
    CliError::Said {
        error: format!("{vm} is not back as it was then"),
        cause: why,
        hint: format!("nothing is lost; `holdfast vm show {vm}` tells how it stands"),
    }
}

/// Which start of it runs.
pub(super) async fn incarnation(client: &Client, vm: &str) -> Result<Option<u64>, CliError> {
    Ok(standing(client, vm).await?.and_then(|vm| vm.incarnation))
}

async fn standing(client: &Client, vm: &str) -> Result<Option<VmDoc>, CliError> {
    let status: StatusDoc = client.get("/api/v1/status").await?;
    Ok(status.vms.into_iter().find(|known| known.name == vm))
}

/// Says what is left behind, and has a person agree.
pub(super) fn agree(vm: &str, point: &str, what: &str, since: &Losses) -> Result<(), CliError> {
    let refused = |cause: &str| CliError::Said {
        error: format!("{vm} does not go back to {point}"),
        cause: cause.into(),
        hint: "add --yes to do it without being asked".into(),
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to ask"));
    }
    say!("{vm} is ended and goes back to {point}, {what}");
    let told = if since.is_empty() { String::new() } else { format!(" ({since})") };
    say!("What it has done since{told} is kept as another snapshot, and no longer what users see.");
    print!("Go back? [y/N] ");
    let mut answer = String::new();
    let heard = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    match heard {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) | Err(_) => Err(refused("you did not agree")),
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
