//! What a QEMU can do, told by itself before anything depends on it: it is run for a moment without a machine.

use super::launch::MACHINE;
use super::spawn::PATH;
use super::spec::QemuVm;
use super::untrusted::{Few, Text};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// It takes some 60 ms; a busy host may make it wait.
const LIMIT: Duration = Duration::from_secs(10);
/// It says about 20 KiB.
const MOST: u64 = 4 << 20;
const QUESTIONS: &str = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-migrate-capabilities\",\"id\":1}\n\
                         {\"execute\":\"query-machines\",\"id\":2}\n{\"execute\":\"quit\",\"id\":3}\n";

/// What a QEMU can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Able {
    /// What it offers when memory is saved and loaded.
    pub migration: BTreeSet<String>,
    /// What it calls the machine that we ask for: one of another name does not take its memory.
    pub machine: String,
}

/// The file of a program, as it was when it was asked.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    program: PathBuf,
    inode: u64,
    changed: (i64, i64),
}

/// What was asked last.
#[derive(Debug, Default)]
pub struct Asked(Mutex<Option<(Stamp, Able)>>);

impl Asked {
    /// What the QEMU can do that this VM is started with. It is asked once, as long as its file stays what it is.
    ///
    /// # Errors
    /// A sentence: it does not run, or does not say.
    pub fn able(&self, vm: &QemuVm) -> Result<Able, String> {
        let told = |e: io::Error| format!("its QEMU cannot be asked what it can do: {e}");
        let program = vm.program().map_err(told)?;
        let meta = fs::metadata(&program).map_err(told)?;
        let stamp = Stamp { program, inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()) };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, able)) = &*known
            && *of == stamp
        {
            return Ok(able.clone());
        }
        let able = ask(&stamp.program).map_err(told)?;
        *known = Some((stamp, able.clone()));
        Ok(able)
    }
}

fn ask(program: &Path) -> io::Result<Able> {
    let mut child = Command::new(program)
        .args("-M none -nodefaults -no-user-config -display none -qmp stdio".split(' '))
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = hear(&mut child);
    let _gone_already = child.kill();
    child.wait()?;
    understand(&said?).ok_or_else(|| io::Error::other("it does not say"))
}

/// All that it says until it ends.
fn hear(child: &mut Child) -> io::Result<String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return Ok(String::new()) };
    stdin.write_all(QUESTIONS.as_bytes())?;
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        stdout.take(MOST).read_to_string(&mut said).map(|_| said)
    });
    let began = Instant::now();
    while !reader.is_finished() && began.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(2));
    }
    if !reader.is_finished() {
        child.kill()?; // which ends what the reader reads
    }
    reader.join().map_err(|_| io::Error::other("it was not heard"))?
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: Option<u32>,
    #[serde(rename = "return", borrow)]
    answer: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Capability {
    capability: Text,
}

#[derive(Deserialize)]
struct Kind {
    name: Text,
    #[serde(default)]
    alias: Text,
}

fn understand(said: &str) -> Option<Able> {
    let answers = said.lines().filter_map(|line| serde_json::from_str::<Answer<'_>>(line).ok());
    let (mut migration, mut machine) = (None, None);
    for Answer { id, answer } in answers {
        match (id, answer) {
            (Some(1), Some(answer)) => {
                let all: Few<Capability, 256> = serde_json::from_str(answer.get()).ok()?;
                migration = Some(all.kept.iter().map(|one| one.capability.to_string()).collect());
            }
            (Some(2), Some(answer)) => {
                let all: Few<Kind, 4096> = serde_json::from_str(answer.get()).ok()?;
                let ours = |kind: &&Kind| kind.alias.as_str() == MACHINE || kind.name.as_str() == MACHINE;
                machine = all.kept.iter().find(ours).map(|kind| kind.name.to_string());
            }
            _ => {}
        }
    }
    Some(Able { migration: migration?, machine: machine? })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_tells_what_it_offers_and_what_its_machine_is_called() {
        let said = "{\"QMP\": {}}\n{\"return\": {}}\n{\"id\": 1, \"return\": [{\"state\": false, \"capability\": \"mapped-ram\"}]}\n\
                    {\"event\": \"X\"}\n{\"return\": [{\"name\": \"q35\"}, {\"name\": \"pc-i440fx-9.2\"}, \
                    {\"name\": \"pc-i440fx-10.0\", \"alias\": \"pc\"}], \"id\": 2}\n";
        let able = understand(said).unwrap();
        assert_eq!(able.machine, "pc-i440fx-10.0");
        assert!(able.migration.contains("mapped-ram"));
        for line in 0..5 {
            let less: Vec<&str> =
                said.lines().enumerate().filter(|(at, _)| *at != line).map(|(_, l)| l).collect();
            assert_eq!(understand(&less.join("\n")).is_some(), !matches!(line, 2 | 4), "{line}");
        }
    }

    #[test]
    fn the_installed_qemu_is_asked() {
        let program = super::super::spawn::find_program(super::super::launch::PROGRAM);
        let able = ask(&program.expect("QEMU, package qemu-system-x86")).unwrap();
        assert!(able.machine.starts_with("pc-") && able.migration.contains("events"), "{able:?}");
        assert!(ask(Path::new("/bin/true")).is_err());
    }
}
