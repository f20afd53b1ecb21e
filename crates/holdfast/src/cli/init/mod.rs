//! `holdfast init`: writes a first configuration from what is found on this machine.
//!
//! Writes nothing that `holdfast check` would refuse, never over a file that exists unless told to, and
//! starts and stops nothing. What it finds in the process table and in disk images is only data (I17).

mod images;
mod running;

use super::Answer;
use crate::config::{Config, FILE, quote, quote_path, safe_name, write_size};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `init` is asked for.
#[derive(Clone, Debug)]
pub struct Init {
    /// The file to write.
    pub path: PathBuf,
    /// Replace it if it exists.
    pub force: bool,
    /// Look for disk images in these folders.
    pub folders: Vec<PathBuf>,
    /// The process table, `/proc` but for tests.
    pub proc: PathBuf,
    /// What to write if nothing is found, once its guest is built.
    pub demo: Option<FoundVm>,
}

impl Default for Init {
    fn default() -> Self {
        Self { path: FILE.into(), force: false, folders: Vec::new(), proc: "/proc".into(), demo: None }
    }
}

/// A VM as it was found: nothing here is checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundVm {
    /// What it is called, as found.
    pub name: String,
    /// How it was found, for a comment.
    pub how: String,
    /// Its disk image.
    pub disk: PathBuf,
    /// Bytes.
    pub memory: Option<u64>,
    /// Virtual processors.
    pub cpus: Option<u32>,
    /// The kernel it is booted with, its RAM disk and its command line.
    pub kernel: Option<(PathBuf, Option<PathBuf>, String)>,
    /// `ADDRESS:PORT` and the port of the guest, as found.
    pub forwards: Vec<(String, u16)>,
    /// A tap interface, and the MAC address behind it.
    pub tap: Option<(String, Option<String>)>,
}

/// Writes a first configuration: exit code 0, or 1 if nothing was written.
#[must_use]
pub fn init(asked: &Init) -> Answer {
    if asked.path.symlink_metadata().is_ok() && !asked.force {
        let path = quote_path(&asked.path);
        return failed(
            &format!("cannot write {path}"),
            "it exists already",
            &format!(
                "look at it with `holdfast check {}`, or replace it with `--force`",
                asked.path.display()
            ),
        );
    }
    let mut found = running::running(&asked.proc);
    found.extend(images::images(&asked.folders, &found));
    if found.is_empty() {
        found.extend(asked.demo.clone());
    }
    if found.is_empty() {
        return failed(
            "found no VM to write down",
            "no QEMU runs here, and no disk image is in the folders that were named",
            "name a folder with disk images: `holdfast init /var/lib/images`",
        );
    }
    let draft = draft(&found, &asked.path);
    if draft.names.is_empty() {
        let cause = draft.left_out.join("; ");
        return failed("no VM that was found could be written down", &cause, "see `holdfast.example.toml`");
    }
    if let Err(cause) = write(&asked.path, &draft.text, asked.force) {
        let hint = "name another file: `holdfast init --output FILE`";
        return failed(&format!("cannot write {}", quote_path(&asked.path)), &cause.to_string(), hint);
    }
    let path = asked.path.display();
    let mut out = format!("wrote {path}: {}\n", draft.names.join(", "));
    for left_out in &draft.left_out {
        out.push_str(&format!("left out {left_out}\n"));
    }
    out.push_str(&format!("next: read it, then `holdfast check {path}` and `holdfast run`\n"));
    Answer { out, ..Answer::default() }
}

fn failed(error: &str, cause: &str, hint: &str) -> Answer {
    let err = format!("error: {error}\ncause: {cause}\nhint:  {hint}\n");
    Answer { err, code: 1, ..Answer::default() }
}

/// A file to be, the VMs in it, and those that could not be taken, each with its reason.
struct Draft {
    text: String,
    names: Vec<String>,
    left_out: Vec<String>,
}

const HEAD: &str = "\
# Holdfast keeps the VMs that are named here in service.
# `holdfast check` tells whether this file is right; holdfast.example.toml shows every setting.
";

/// Puts one VM after the other into a file, leaving out those that would not pass `check`.
fn draft(found: &[FoundVm], path: &Path) -> Draft {
    let mut draft = Draft { text: HEAD.to_owned(), names: Vec::new(), left_out: Vec::new() };
    let mut taken = BTreeSet::new();
    for vm in found {
        let name = unused(&vm.name, &taken);
        let Some(section) = section(&name, vm) else {
            draft.left_out.push(format!("{}: its disk has a path that is not UTF-8", quote(&vm.name)));
            continue;
        };
        let longer = format!("{}\n{section}", draft.text);
        match Config::examine(&longer, path) {
            Ok(_) => {
                draft.text = longer;
                draft.names.push(name.clone());
                taken.insert(name);
            }
            Err(errors) => {
                let why = errors.0.told().first();
                let why = why.map_or_else(String::new, |why| format!("{}: {}", why.error, why.cause));
                draft.left_out.push(format!("{}: {why}", quote(&vm.name)));
            }
        }
    }
    draft
}

/// The name made safe, with a number if another VM has it.
fn unused(name: &str, taken: &BTreeSet<String>) -> String {
    let safe = safe_name(name).unwrap_or_else(|| "vm".into());
    let short: String = safe.chars().take(40).collect();
    std::iter::once(safe)
        .chain((2u32..).map(|number| format!("{short}-{number}")))
        .find(|name| !taken.contains(name))
        .unwrap_or(short)
}

/// One VM as it is written, each line with its comment.
fn section(name: &str, vm: &FoundVm) -> Option<String> {
    let mut lines =
        vec![(format!("[vm.{}]", key(name)), vm.how.chars().filter(|c| !c.is_control()).collect())];
    let mut say = |line: String, comment: &str| lines.push((line, comment.to_owned()));
    say(format!("disk = {}", string(vm.disk.to_str()?)), "its disk image; no other VM may use it");
    if let Some(outside) = images::backing_outside(&vm.disk) {
        say(format!("images = [{}]", string(outside.to_str()?)), "what its disk image builds on");
    }
    let memory = vm.memory.unwrap_or(1 << 30).clamp(64 << 20, 4 << 40);
    say(format!("memory = {}", string(&write_size(memory >> 20 << 20))), "memory of the guest");
    say(format!("cpus = {}", vm.cpus.unwrap_or(1).clamp(1, 64)), "virtual processors");
    if let Some((kernel, initrd, cmdline)) = &vm.kernel {
        say(format!("kernel = {}", string(kernel.to_str()?)), "boot this kernel instead of the disk's own");
        if let Some(initrd) = initrd {
            say(format!("initrd = {}", string(initrd.to_str()?)), "with this initial RAM disk");
        }
        if !cmdline.is_empty() {
            say(format!("cmdline = {}", string(cmdline)), "and this command line");
        }
    }
    if let Some((interface, mac)) = &vm.tap {
        say(format!("network = {}", string(&format!("tap:{interface}"))), "an interface that exists already");
        if let Some(mac) = mac {
            say(format!("mac = {}", string(mac)), "the guest's address on it");
        }
    } else if !vm.forwards.is_empty() {
        let each: Vec<String> =
            vm.forwards.iter().map(|(listen, guest)| string(&format!("{listen}:{guest}"))).collect();
        say(format!("forward = [{}]", each.join(", ")), "ports of this host that lead into the guest");
    }
    let mut text = aligned(&lines);
    if vm.tap.is_none() {
        text.push_str(&apps(name, vm));
    }
    Some(text)
}

/// Gets through also where the postmaster hangs: a plain restart waits for it until it times out.
const POSTGRES_RESTART: &str =
    r#"["sh", "-c", "systemctl kill -s KILL 'postgresql@*'; systemctl restart postgresql"]"#;

/// An application for each port that leads into the guest.
fn apps(name: &str, vm: &FoundVm) -> String {
    let ports: BTreeSet<u16> = vm.forwards.iter().map(|(_, guest)| *guest).collect();
    let mut text = String::new();
    for port in ports {
        let (app, better, restart) = match port {
            22 => ("ssh".to_owned(), "", string("systemctl restart ssh")),
            80 | 8080 => (format!("web-{port}"), "http://guest:PORT/PAGE", string("systemctl restart nginx")),
            3306 => ("mysql".to_owned(), "mysql://USER@guest/DATABASE", string("systemctl restart mysql")),
            5432 => ("postgres".to_owned(), "postgres://USER@guest/DATABASE", POSTGRES_RESTART.to_owned()),
            6379 => ("redis".to_owned(), "redis://guest", string("systemctl restart redis")),
            _ => (format!("port-{port}"), "", string("systemctl restart NAME")),
        };
        let better = match better {
            "" => String::new(),
            better => format!("; better: {}", string(better)),
        };
        let lines = [
            (format!("[vm.{}.app.{app}]", key(name)), format!("what answers at port {port} of the guest")),
            (format!("probe = \"tcp://guest:{port}\""), format!("asked every second{better}")),
            (format!("#restart = {restart}"), "how the guest agent restarts it".to_owned()),
        ];
        text.push('\n');
        text.push_str(&aligned(&lines));
    }
    text
}

/// Lines with their comments in one column, as far as that is not absurd.
fn aligned(lines: &[(String, String)]) -> String {
    let width =
        lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    lines
        .iter()
        .map(|(line, comment)| match comment.as_str() {
            "" => format!("{line}\n"),
            comment => format!("{line:width$}  # {comment}\n"),
        })
        .collect()
}

fn string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A name in a table's name: a dot in it would part it.
fn key(name: &str) -> String {
    if name.contains('.') { string(name) } else { name.to_owned() }
}

fn write(path: &Path, text: &str, force: bool) -> std::io::Result<()> {
    if !force {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())?;
        return file.sync_all();
    }
    // Whole or not at all: the old file stays until the new one is there.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let written = written.and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        // What failed is told; that the rest of it stays behind as well would not help anybody.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests;
