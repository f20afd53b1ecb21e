//! `holdfast doctor`: what this machine lacks, and how to get it.

use super::paint::{Tone, tint};
use super::{CliError, Exit, Place, print_json};
use crate::api::shape::{StatusDoc, VmDoc};
use crate::disk::Folder;
use crate::journal;
use crate::state::JOURNAL;
use holdfast_drivers::qemu::{accel, why_root};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Less free space than this is too little for a journal and a guest, in bytes.
const ROOM: u64 = 2 << 30;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Fine,
    Weak,
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    v: u32,
    what: &'static str,
    health: Health,
    found: String,
    hint: Option<String>,
}

impl Finding {
    fn new(what: &'static str, health: Health, found: impl Into<String>, hint: Option<&str>) -> Self {
        Self { v: 1, what, health, found: found.into(), hint: hint.map(str::to_owned) }
    }
}

/// Looks at everything Holdfast needs. Exit code 1 if something is missing.
pub async fn doctor(place: &Place, json: bool) -> Result<Exit, CliError> {
    let mut findings = vec![
        qemu(),
        qemu_img(),
        acceleration(),
        user(place),
        room(place),
        journal(place),
        pressure(),
        systemd(),
    ];
    findings.insert(4, agents(place).await);
    if json {
        print_json(&findings)?;
    } else {
        findings.iter().for_each(show);
    }
    let missing = findings.iter().any(|finding| finding.health == Health::Missing);
    Ok(if missing { Exit::Failed } else { Exit::Fine })
}

fn show(finding: &Finding) {
    let (tone, word) = match finding.health {
        Health::Fine => (Tone::Good, "fine"),
        Health::Weak => (Tone::Warm, "weak"),
        Health::Missing => (Tone::Bad, "missing"),
    };
    say!("{}  {:14}{}", tint(tone, &format!("{word:8}")), finding.what, finding.found);
    if let Some(hint) = &finding.hint {
        say!("          {:14}{}", "", tint(Tone::Dim, hint));
    }
}

fn version(program: &str) -> Option<String> {
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&said.stdout).lines().next().map(str::to_owned)
}

fn qemu() -> Finding {
    let hint = "apt-get install --no-install-recommends qemu-system-x86";
    match version("qemu-system-x86_64") {
        Some(version) if is_old(&version) => {
            let hint = "Holdfast is tried with QEMU 7.2 to 10; an older one may lack what it asks for";
            Finding::new("QEMU", Health::Weak, version, Some(hint))
        }
        Some(version) => Finding::new("QEMU", Health::Fine, version, None),
        None => Finding::new("QEMU", Health::Missing, "qemu-system-x86_64 is not there", Some(hint)),
    }
}

/// Whether that is a QEMU before 7.2.
fn is_old(version: &str) -> bool {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = number.unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next(), parts.next().unwrap_or(0));
    major.is_some_and(|major| (major, minor) < (7, 2))
}

/// Whether the guest agents of the VMs that run are heard: only the daemon talks to them.
async fn agents(place: &Place) -> Finding {
    let inside = "in the guest: `apt-get install qemu-guest-agent`; without one nothing inside can be restarted or asked";
    let status = match place.client() {
        Ok(client) => client.get::<StatusDoc>("/api/v1/status").await.ok(),
        Err(_) => None,
    };
    let Some(status) = status else {
        return Finding::new(
            "guest agents",
            Health::Weak,
            "not known: no daemon runs that asks them",
            Some(inside),
        );
    };
    let running = status.vms.iter().filter(|vm| vm.state == "running");
    let mute = |vm: &&VmDoc| vm.channels.get("agent").is_none_or(|agent| agent.state != "ok");
    let (mute, heard): (Vec<&VmDoc>, Vec<&VmDoc>) = running.partition(mute);
    if mute.is_empty() {
        let found = format!("{} of {} answer", heard.len(), heard.len());
        return Finding::new("guest agents", Health::Fine, found, None);
    }
    let names: Vec<&str> = mute.iter().map(|vm| vm.name.as_str()).take(5).collect();
    let more = if mute.len() > names.len() { " .." } else { "" };
    let found =
        format!("{} of {} do not answer: {}{more}", mute.len(), mute.len() + heard.len(), names.join(", "));
    Finding::new("guest agents", Health::Weak, found, Some(inside))
}

fn qemu_img() -> Finding {
    let hint = "apt-get install --no-install-recommends qemu-utils";
    match version("qemu-img") {
        Some(version) => Finding::new("disk images", Health::Fine, version, None),
        None => Finding::new("disk images", Health::Missing, "qemu-img is not there", Some(hint)),
    }
}

/// KVM counts only when it truly runs a guest.
fn acceleration() -> Finding {
    match accel::prove_kvm() {
        Ok(()) => Finding::new("acceleration", Health::Fine, "KVM runs a guest", None),
        Err(why) => {
            let found = format!("software emulation only: {why}");
            let hint = "guests run, about ten times slower; see whether virtualisation is on in the firmware";
            Finding::new("acceleration", Health::Weak, found, Some(hint))
        }
    }
}

/// Whom QEMU runs as: with a configuration, for each of its VMs.
fn user(place: &Place) -> Finding {
    if !rustix::process::geteuid().is_root() {
        let hint = "QEMU runs as you; run the daemon as root to give QEMU a user of its own";
        return Finding::new("permissions", Health::Weak, "you are not root", Some(hint));
    }
    let vms = place.examine().map(|loaded| loaded.config.vms).unwrap_or_default();
    let kept = vms.values().find_map(|vm| Some((&vm.spec.name, why_root(&vm.spec)?)));
    if let Some((vm, (user, barrier))) = kept {
        let found =
            format!("QEMU of vm {vm} runs as root: {} is closed to user {user}", barrier.path.display());
        let hint = format!("`{}`, or move its files: QEMU then runs as {user}", barrier.way_out());
        return Finding::new("permissions", Health::Weak, found, Some(&hint));
    }
    Finding::new("permissions", Health::Fine, "root: QEMU gets a user of its own", None)
}

/// The least room of all places that are written to: the state folder and the folders of the VMs' disks.
fn room(place: &Place) -> Finding {
    let state = place.state_folder().unwrap_or_else(|_| PathBuf::from("/"));
    let vms = place.examine().map(|loaded| loaded.config.vms).unwrap_or_default();
    let disks = vms.into_values().filter_map(|vm| Some(vm.spec.disk.parent()?.to_owned()));
    let places = std::iter::once(state).chain(disks);
    let rooms = places.filter_map(|named| {
        let folder = named.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let disk = rustix::fs::statvfs(folder).ok()?;
        Some((disk.f_bavail.saturating_mul(disk.f_frsize), named))
    });
    let Some((free, named)) = rooms.min() else {
        return Finding::new("disk space", Health::Weak, "the file systems do not tell", None);
    };
    let found = format!("{} MiB free for {}", free >> 20, named.display());
    let hint = "make room there, or name another folder";
    let health = if free < ROOM { Health::Weak } else { Health::Fine };
    Finding::new("disk space", health, found, (free < ROOM).then_some(hint))
}

/// Reads the whole journal, if there is one.
fn journal(place: &Place) -> Finding {
    let named = place.state_folder().unwrap_or_else(|_| PathBuf::from("/"));
    if !named.join(JOURNAL).is_dir() {
        return Finding::new("journal", Health::Fine, "none yet", None);
    }
    match journal::reader::check(Arc::new(Folder::new(&named)), JOURNAL) {
        Ok(troubles) => match troubles.first() {
            None => Finding::new("journal", Health::Fine, "every record is whole", None),
            Some(first) => {
                let hint = "what is damaged was set aside, nothing is deleted; what is whole is used";
                Finding::new("journal", Health::Weak, first.to_string(), Some(hint))
            }
        },
        Err(cause) => Finding::new("journal", Health::Weak, cause.to_string(), Some("are you its owner?")),
    }
}

fn pressure() -> Finding {
    if Path::new("/proc/pressure/cpu").exists() {
        return Finding::new("host pressure", Health::Fine, "the kernel tells (PSI)", None);
    }
    let hint = "boot with psi=1: without it Holdfast sees an overloaded host only by its own lag";
    Finding::new("host pressure", Health::Weak, "/proc/pressure is not there", Some(hint))
}

fn systemd() -> Finding {
    if Path::new("/run/systemd/system").exists() {
        let found = "systemd runs; packaging/holdfast.service keeps the daemon up";
        return Finding::new("service", Health::Fine, found, None);
    }
    let hint = "let something start `holdfast run` again when it ends";
    Finding::new("service", Health::Weak, "systemd does not run here", Some(hint))
}

#[cfg(test)]
mod tests {
    use super::is_old;

    #[test]
    fn a_qemu_is_old_before_7_2() {
        for (version, old) in
            [("5.2.0 (Debian 1:5.2+dfsg-11)", true), ("7.1.90", true), ("7.2.22", false), ("10.0.2", false)]
        {
            assert_eq!(is_old(&format!("QEMU emulator version {version}")), old, "{version}");
        }
        assert!(!is_old("QEMU emulator version unknown"));
    }
}
