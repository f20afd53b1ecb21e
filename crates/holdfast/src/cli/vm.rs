//! `holdfast vm ...`: look at VMs, and tell them what to do.

use super::paint::{self, Tone, tint};
use super::status::render_vm;
use super::{CliError, Exit, print_json};
use crate::api::Words;
use crate::api::counters::CountersDoc;
use crate::api::shape::{StatusDoc, VmDoc};
use crate::backups::{BackupDoc, BackupState};
use crate::client::{Client, ClientError};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// What can be done with VMs.
#[derive(Subcommand)]
pub enum VmCommand {
    /// List the VMs.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one VM.
    Show {
        /// Its name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start it, and keep it running from now on.
    Start {
        /// Its name.
        name: String,
    },
    /// Stop it, and leave it stopped: asks the guest first, then cuts the power.
    Stop(StopArgs),
    /// Stop it, then start it.
    Restart(StopArgs),
    /// Pause it: its processors stop, nothing is lost.
    Pause {
        /// Its name.
        name: String,
    },
    /// Let a paused VM run on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Leave it alone (on), or look after it again (off).
    Maintenance {
        /// Its name.
        name: String,
        /// On or off.
        switch: Switch,
        /// End it by itself after so long, as in `2h` or `30m`.
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
    },
    /// Announce work that disturbs it on purpose, or tell that it is done: what it explains is no fault.
    Announce {
        /// Its name.
        name: String,
        /// Which work.
        work: Announced,
        /// It is over by itself after so long, as in `10m`; at most a day.
        #[arg(long = "for", value_name = "TIME", value_parser = duration, required_unless_present = "done")]
        lasts: Option<Duration>,
        /// It is done.
        #[arg(long, conflicts_with = "lasts")]
        done: bool,
    },
    /// Try again although it is held: its budget starts afresh.
    Release {
        /// Its name.
        name: String,
    },
}

/// How to stop a VM.
#[derive(Args)]
pub struct StopArgs {
    /// Its name.
    name: String,
    /// How long the guest may take to power down, as in `60s`.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    grace: Duration,
    /// Cut the power at once.
    #[arg(long)]
    force: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Work that can be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Announced {
    /// A backup: slow answers are no fault.
    Backup,
    /// File systems are frozen: writes hang.
    Freeze,
    /// A snapshot is taken: it may stand still for a moment.
    Snapshot,
    /// It is being moved: it may be paused.
    Migration,
    /// Its guest is rebooted on purpose.
    Reboot,
}

/// A duration as written by people: `90s`, `5m`, `2h`, `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let number: u64 =
        number.parse().map_err(|_| "write a number and a unit, as in `90s`, `5m`, `2h`".to_owned())?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => return Err(format!("`{other}` is no unit of time; write s, m, h or d")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}

/// Carries out one of them.
pub async fn vm(client: &Client, command: VmCommand) -> Result<Exit, CliError> {
    match command {
        VmCommand::List { json } => list(client, json).await,
        VmCommand::Show { name, json } => show(client, &name, json).await,
        VmCommand::Start { name } => tell(client, &name, "start", Words::default()).await,
        VmCommand::Stop(stop) => tell(client, &stop.name, "stop", stop.words()).await,
        VmCommand::Restart(stop) => tell(client, &stop.name, "restart", stop.words()).await,
        VmCommand::Pause { name } => tell(client, &name, "pause", Words::default()).await,
        VmCommand::Resume { name } => tell(client, &name, "resume", Words::default()).await,
        VmCommand::Release { name } => tell(client, &name, "release", Words::default()).await,
        VmCommand::Announce { name, work, lasts, done } => {
            let work = work.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            let words = Words { for_s: lasts.map(|lasts| lasts.as_secs_f64()), ..Words::default() };
            tell(client, &name, &format!("{work}-{}", if done { "off" } else { "on" }), words).await
        }
        VmCommand::Maintenance { name, switch: Switch::On, lasts } => {
            let words = Words { for_s: lasts.map(|lasts| lasts.as_secs_f64()), ..Words::default() };
            tell(client, &name, "maintenance-on", words).await
        }
        VmCommand::Maintenance { name, switch: Switch::Off, .. } => {
            tell(client, &name, "maintenance-off", Words::default()).await
        }
    }
}

impl StopArgs {
    fn words(&self) -> Words {
        let grace = if self.force { Duration::ZERO } else { self.grace };
        Words { grace_s: Some(grace.as_secs_f64()), ..Words::default() }
    }
}

async fn tell(client: &Client, name: &str, wish: &str, words: Words) -> Result<Exit, CliError> {
    let name = checked(name)?;
    let words = Words { by: Some(client.by().to_owned()), ..words };
    client.tell(&format!("/api/v1/vms/{name}/{wish}"), &words).await?;
    say!("{name}: {wish} accepted");
    Ok(Exit::Fine)
}

/// A name that is one, so that it can stand in a path.
pub fn checked(name: &str) -> Result<&str, CliError> {
    match name.parse::<holdfast_core::subject::VmName>() {
        Ok(_) => Ok(name),
        Err(cause) => Err(CliError::Usage {
            error: format!("{} is not the name of a vm", crate::config::quote(name)),
            cause: cause.to_string(),
            hint: "`holdfast vm list` lists them".into(),
        }),
    }
}

async fn list(client: &Client, json: bool) -> Result<Exit, CliError> {
    let status: StatusDoc = client.get("/api/v1/status").await?;
    if json {
        print_json(&status.vms)?;
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["vm", "state", "start", "pid", "applications", "incident", "protection"]);
    for vm in &status.vms {
        table.add_row([
            tint(Tone::Bold, &vm.name),
            paint::state(&vm.state),
            vm.incarnation.map_or("-".into(), |n| format!("#{n}")),
            vm.pid.map_or("-".into(), |pid| pid.to_string()),
            apps(vm),
            vm.incident.map_or("-".into(), |id| format!("#{id}")),
            paint::state(&vm.protection),
        ]);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

fn apps(vm: &VmDoc) -> String {
    let words: Vec<String> =
        vm.apps.iter().map(|app| format!("{} {}", app.name, paint::state(&app.state))).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

async fn show(client: &Client, name: &str, json: bool) -> Result<Exit, CliError> {
    let name = checked(name)?;
    let status: StatusDoc = client.get("/api/v1/status").await?;
    let Some(vm) = status.vms.iter().find(|vm| vm.name == name) else {
        return Err(CliError::Said {
            error: format!("there is no vm {}", crate::config::quote(name)),
            cause: "the daemon does not know it".into(),
            hint: "`holdfast vm list` lists them".into(),
        });
    };
    if json {
        print_json(vm)?;
        return Ok(Exit::Fine);
    }
    paint::text(&render_vm(vm));
    let place = |what: &str, path: &Option<String>| {
        if let Some(path) = path {
            say!("    {what:12}{path}");
        }
    };
    place("qmp", &vm.qmp);
    place("console", &vm.console);
    place("agent", &vm.agent);
    for (what, done) in vm.counters.iter().flat_map(did) {
        say!("    {what:12}{done}");
    }
    if let Some(backup) = backup(client, name).await? {
        say!("    {:12}{backup}", "backup");
    }
    Ok(Exit::Fine)
}

/// What a backup of it that is under way does, for people.
async fn backup(client: &Client, name: &str) -> Result<Option<String>, CliError> {
    let doc: BackupDoc = match client.get(&format!("/api/v1/vms/{name}/backup")).await {
        Ok(doc) => doc,
        Err(ClientError::Refused(_)) => return Ok(None), // there was none
        Err(error) => return Err(error.into()),
    };
    let by_now = match doc.state {
        BackupState::Waits => "begins, or waits for others".to_owned(),
        BackupState::Runs if doc.size == 0 => "runs".to_owned(),
        BackupState::Runs => {
            let done = u128::from(doc.read + doc.skipped) * 100 / u128::from(doc.size);
            format!("runs, {done} % of its disk is read; a snapshot has to wait for it")
        }
        BackupState::Done | BackupState::Failed | BackupState::Cancelled => return Ok(None),
    };
    Ok(Some(format!("{by_now}; `holdfast backup cancel {name}` ends it")))
}

/// What the devices of a VM have done since its start, for people.
fn did(counters: &CountersDoc) -> Vec<(&'static str, String)> {
    let CountersDoc { reads, writes, failed, .. } = counters;
    let mut told = vec![("disk", format!("{reads} reads, {writes} writes, {failed} failed"))];
    if let (Some(sent), Some(received)) = (counters.packets_sent, counters.packets_received) {
        told.push(("packets", format!("{sent} from the guest, {received} to it")));
    }
    if let (Some(left), Some(all)) = (counters.memory_available, counters.memory_total) {
        told.push(("memory", format!("{} of {} MiB left, says its balloon", left >> 20, all >> 20)));
    }
    told
}
