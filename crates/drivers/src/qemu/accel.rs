//! Whether KVM truly runs a guest here. A `/dev/kvm` that opens proves nothing: nested or restricted hosts
//! have one that boots no guest. So a few instructions are run, once per boot of the host, and remembered.

use super::launch::{Engine, PROGRAM};
use super::spec::Accel;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The probe's guest ends in milliseconds where KVM works.
const LIMIT: Duration = Duration::from_secs(5);
/// What the probe's guest ends QEMU with: `isa-debug-exit` doubles what is written to it and adds one.
const PROOF: i32 = (0x21 << 1) | 1;

/// A boot sector that writes 0x21 to the port of `isa-debug-exit`: it counts to a million first, so that
/// the processor has really run.
///
/// ```text
/// mov ecx, 1000000 ; loop: dec ecx ; jnz loop ; mov al, 0x21 ; out 0xf4, al ; hlt
/// ```
const SECTOR: [u8; 15] =
    [0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00, 0x66, 0x49, 0x75, 0xfc, 0xb0, 0x21, 0xe6, 0xf4, 0xf4];

/// Runs a tiny guest under KVM.
///
/// # Errors
/// Why not, in words for people.
pub fn prove_kvm() -> Result<(), String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("/dev/kvm is not there".into());
    }
    let folder = scratch().map_err(|cause| format!("no room for a trial: {cause}"))?;
    let result = run_trial("kvm", &folder);
    let _ = fs::remove_dir_all(&folder); // a leftover of a few bytes harms nobody
    result
}

fn scratch() -> std::io::Result<PathBuf> {
    let nonce = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let folder = std::env::temp_dir().join(format!("holdfast-trial-{}", nonce.trim()));
    fs::create_dir(&folder)?;
    let mut sector = [0_u8; 512];
    sector[..SECTOR.len()].copy_from_slice(&SECTOR);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(folder.join("sector"), sector)?;
    Ok(folder)
}

fn run_trial(accel: &str, folder: &Path) -> Result<(), String> {
    let disk = format!("file={},format=raw,if=ide,readonly=off", folder.join("sector").display());
    let mut child = Command::new(PROGRAM)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-M",
            "pc",
            "-m",
            "16M",
            "-accel",
            accel,
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-no-reboot", "-drive", &disk])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| format!("cannot run {PROGRAM}: {cause}"))?;
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(PROOF) => return Ok(()),
            Ok(Some(status)) => {
                let mut said = String::new();
                if let Some(stderr) = child.stderr.take() {
                    let _ = stderr.take(2_000).read_to_string(&mut said); // what can be read is shown
                }
                let first = said.lines().next().unwrap_or("it said nothing").to_owned();
                return Err(format!("a trial guest under {accel} ended with {status}: {first}"));
            }
            Ok(None) if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("a trial guest under {accel} did nothing for {} s", LIMIT.as_secs()));
            }
        }
    }
}

/// Settles how instructions are run. `Auto` tries KVM once per boot of the host and remembers the result
/// in `memory`; the second value is a warning for people.
///
/// # Errors
/// Why KVM cannot be used although it was demanded.
pub fn settle(wanted: Accel, memory: &Path, boot: &str) -> Result<(Engine, Option<String>), String> {
    match wanted {
        Accel::Tcg => Ok((Engine::Tcg, None)),
        Accel::Kvm => prove_kvm().map(|()| (Engine::Kvm, None)),
        Accel::Auto => {
            let known = fs::read_to_string(memory).ok();
            let known = known.as_deref().and_then(|text| text.strip_prefix(boot)).map(str::trim);
            let result = match known {
                Some("kvm") => Ok(()),
                Some(why) if !why.is_empty() => Err(why.to_owned()),
                Some(_) | None => {
                    let result = prove_kvm();
                    let word = result.as_ref().map_or_else(Clone::clone, |()| "kvm".to_owned());
                    let _ = fs::write(memory, format!("{boot} {}", word.replace('\n', " "))); // only a cache
                    result
                }
            };
            Ok(match result {
                Ok(()) => (Engine::Kvm, None),
                Err(why) => (Engine::Tcg, Some(format!("guests run under software emulation: {why}"))),
            })
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_trial_guest_runs_where_instructions_run() {
        let folder = scratch().unwrap();
        let ran = run_trial("tcg", &folder);
        fs::remove_dir_all(&folder).unwrap();
        ran.expect("QEMU, package qemu-system-x86");
    }

    #[test]
    fn what_was_tried_in_this_boot_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("accel");
        fs::write(&memory, "boot-1 it was slow").unwrap();
        let (engine, warning) = settle(Accel::Auto, &memory, "boot-1").unwrap();
        assert_eq!(engine, Engine::Tcg);
        assert!(warning.unwrap().contains("it was slow"));
        fs::write(&memory, "boot-1 kvm").unwrap();
        assert_eq!(settle(Accel::Auto, &memory, "boot-1").unwrap().0, Engine::Kvm);
    }
}
