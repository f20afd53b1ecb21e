//! `holdfast status`: hosts, VMs, guests, applications, and how they are.

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, print_json};
use crate::api::shape::{ChannelDoc, IsolatedDoc, StatusDoc, VmDoc, spoken};
use crate::client::Client;
use holdfast_core::signal::Channel;

/// Prints how everything is. Exit code 3 if something is not well.
pub async fn status(client: &Client, json: bool) -> Result<Exit, CliError> {
    let status: StatusDoc = client.get("/api/v1/status").await?;
    if json {
        print_json(&status)?;
    } else {
        paint::text(&render(&status));
    }
    Ok(if is_well(&status) { Exit::Fine } else { Exit::NotHealthy })
}

/// Whether nothing is wrong anywhere: what was stopped or paused on purpose is not wrong.
pub fn is_well(status: &StatusDoc) -> bool {
    let well = |vm: &VmDoc| {
        matches!(vm.state.as_str(), "running" | "stopped" | "paused")
            && vm.incident.is_none()
            && vm.apps.iter().all(|app| app.state == "ok" || vm.state != "running")
    };
    status.mode == "armed" && status.host_incidents.is_empty() && status.vms.iter().all(well)
}

/// The whole status as text.
pub fn render(status: &StatusDoc) -> String {
    let mut text = format!("host {}  {}\n", tint(Tone::Bold, &status.host), paint::state(&status.mode));
    if let Some(note) = &status.note {
        text.push_str(&format!("  {}\n", tint(Tone::Bad, note)));
    }
    for incident in &status.host_incidents {
        text.push_str(&format!("  {} #{} {}\n", tint(Tone::Warm, "incident"), incident.id, incident.fault));
    }
    for vm in &status.vms {
        text.push('\n');
        text.push_str(&render_vm(vm));
    }
    text
}

/// How it was made harmless, and the way back.
pub fn isolation(vm: &str, isolated: &IsolatedDoc) -> String {
    let how = if isolated.how == "pause" { "its processors are stopped" } else { "its cables are unplugged" };
    let since = isolated.since.map_or("nobody knows yet whether".into(), |at| format!("{}:", paint::ago(at)));
    format!("{since} {how}; `holdfast vm release {vm}` takes it back")
}

/// One VM as text.
pub fn render_vm(vm: &VmDoc) -> String {
    let mut text = format!("vm {}  {}", tint(Tone::Bold, &vm.name), paint::state(&vm.state));
    if let Some(incarnation) = vm.incarnation {
        text.push_str(&tint(Tone::Dim, &format!("  start #{incarnation}")));
    }
    if let Some(pid) = vm.pid {
        text.push_str(&tint(Tone::Dim, &format!("  pid {pid}")));
    }
    text.push_str(&format!("  protection {}", paint::state(&vm.protection)));
    text.push_str(&tint(Tone::Dim, &format!("  recoveries {} of {}\n", vm.tries, vm.tries_most)));
    if let Some(note) = &vm.note {
        text.push_str(&format!("  {note}\n"));
    }
    if let Some(id) = vm.incident {
        text.push_str(&format!("  {} #{id}: `holdfast explain {id}`\n", tint(Tone::Bad, "incident")));
    }
    if let Some(isolated) = &vm.isolated {
        text.push_str(&format!("  {} {}\n", tint(Tone::Bad, "isolated"), isolation(&vm.name, isolated)));
    }
    for app in &vm.apps {
        let address = vm.address.get(&app.name).map(|at| format!("  {at}")).unwrap_or_default();
        let answered = app.answered.map(|at| format!("  answered {}", paint::ago(at))).unwrap_or_default();
        text.push_str(&format!(
            "  app {}  {}{}\n",
            app.name,
            paint::state(&app.state),
            tint(Tone::Dim, &format!("{address}{answered}"))
        ));
    }
    let rests = vm.state == "stopped" && vm.incident.is_none(); // then no channel has anything to say
    for channel in Channel::ALL.into_iter().filter(|_| !rests) {
        let Some(seen) = vm.channels.get(channel.name()) else { continue };
        let word = tint(Tone::of(&seen.state), &format!("{:8}", seen.state));
        let said = tint(Tone::Dim, &format!("{:>7}  {}", lasts(seen), seen.detail));
        text.push_str(&format!("    {:12}{word}{said}\n", channel.name()));
    }
    text
}

/// For how long a channel has been in its state; nothing where nothing was heard.
pub fn lasts(seen: &ChannelDoc) -> String {
    let now = jiff::Timestamp::now().as_microsecond() as f64 / 1e6;
    if seen.state == "unknown" { String::new() } else { spoken((now - seen.since).floor()) }
}
