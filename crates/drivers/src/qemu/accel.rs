//! Whether KVM truly runs a guest here. A `/dev/kvm` that opens proves nothing: nested or restricted hosts
//! have one that boots no guest. So a few instructions are run, once per boot of the host, and remembered.

use super::launch::{Engine, PROGRAM};
use super::process::processor_time;
use super::spec::Accel;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/kvm";
/// The trial's guest needs a tenth of this where the processor itself runs it ...
const CPU_MOST: Duration = Duration::from_secs(1);
/// ... and a busy host may make it wait for its turn.
const LIMIT: Duration = Duration::from_secs(10);
/// What the trial's guest ends QEMU with: `isa-debug-exit` doubles what is written to it and adds one.
const PROOF: i32 = (0x21 << 1) | 1;

/// The firmware of the trial's machine is the whole guest: it enters protected mode, counts down from 2^25
/// and writes 0x21 to the port of `isa-debug-exit`. The long count tells a processor that runs guests
/// (some 30 ms) from a nested KVM that interprets them (minutes): both pass a short one.
///
/// ```text
/// 16 bit: cli ; lgdt [cs:table] ; mov eax, cr0 ; or al, 1 ; mov cr0, eax ; jmp far 8:count
/// 32 bit: count: mov ecx, 0x02000000 ; again: dec ecx ; jnz again ; mov al, 0x21 ; out 0xf4, al ; hlt
/// ```
const CODE: [u8; 40] = [
    0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0xd0, 0xff, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66,
    0xea, 0x18, 0xff, 0xff, 0xff, 0x08, 0x00, 0xb9, 0x00, 0x00, 0x00, 0x02, 0x49, 0x75, 0xfd, 0xb0, 0x21,
    0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x90,
];
/// One flat code segment, and where the table of it is.
const SEGMENT: [u8; 8] = [0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00];
const TABLE: [u8; 6] = [0x0f, 0x00, 0xc0, 0xff, 0xff, 0xff];
/// Where a processor begins: a jump to the code.
const RESET: [u8; 3] = [0xe9, 0x0d, 0xff];

/// The last 64 KiB below 4 GiB.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xf4; 64 * 1024];
    for (at, bytes) in
        [(0xff00, CODE.as_slice()), (0xffc0, &[0; 8]), (0xffc8, &SEGMENT), (0xffd0, &TABLE), (0xfff0, &RESET)]
    {
        rom[at..at + bytes.len()].copy_from_slice(bytes);
    }
    rom
}

/// Runs a tiny guest under KVM.
///
/// # Errors
/// Why not, in words for people.
pub fn prove_kvm() -> Result<(), String> {
    is_offered()?;
    try_kvm(Path::new(PROGRAM))
}

fn try_kvm(program: &Path) -> Result<(), String> {
    let folder = scratch().map_err(|cause| format!("no room for a trial: {cause}"))?;
    let result = run_trial(program, "kvm", &folder);
    let _ = fs::remove_dir_all(&folder); // a leftover of a few bytes harms nobody
    result
}

/// Whether a trial is worth its while: the device is there, and opens for us.
fn is_offered() -> Result<(), String> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|cause| format!("{DEVICE} does not open: {cause}"))
}

fn is_slow(pid: u32) -> bool {
    processor_time(pid).is_ok_and(|time| time > CPU_MOST)
}

fn scratch() -> std::io::Result<PathBuf> {
    let nonce = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let folder = std::env::temp_dir().join(format!("holdfast-trial-{}", nonce.trim()));
    fs::create_dir(&folder)?;
    fs::write(folder.join("firmware"), firmware())?;
    Ok(folder)
}

fn run_trial(program: &Path, accel: &str, folder: &Path) -> Result<(), String> {
    let mut child = Command::new(program)
        .args("-nodefaults -no-user-config -display none -M pc -m 16M -no-reboot".split(' '))
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-accel", accel, "-bios"])
        .arg(folder.join("firmware"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| format!("cannot run {}: {cause}", program.display()))?;
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
            Ok(None) if began.elapsed() < LIMIT && !is_slow(child.id()) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("a trial guest under {accel} is far too slow"));
            }
        }
    }
}

/// Settles how instructions are run by this QEMU. `Auto` tries KVM once per boot of the host and remembers the result
/// in `memory` (that the device is not there, or does not open for us, is no result: it is looked at each time); the second
/// value is a warning for people.
///
/// # Errors
/// Why KVM cannot be used although it was demanded.
pub fn settle(
    wanted: Accel,
    program: &Path,
    memory: &Path,
    boot: &str,
) -> Result<(Engine, Option<String>), String> {
    match wanted {
        Accel::Tcg => Ok((Engine::Tcg, None)),
        Accel::Kvm => is_offered().and_then(|()| try_kvm(program)).map(|()| (Engine::Kvm, None)),
        Accel::Auto => Ok(match is_offered().and_then(|()| remembered(program, memory, boot)) {
            Ok(()) => (Engine::Kvm, None),
            Err(why) => (Engine::Tcg, Some(format!("guests run under software emulation: {why}"))),
        }),
    }
}

/// The result of the trial of this boot of the host.
fn remembered(program: &Path, memory: &Path, boot: &str) -> Result<(), String> {
    let known = fs::read_to_string(memory).ok();
    match known.as_deref().and_then(|text| text.strip_prefix(boot)).map(str::trim) {
        Some("kvm") => Ok(()),
        Some(why) if !why.is_empty() => {
            Err(format!("{why} (as tried since the host started; remove {} to try again)", memory.display()))
        }
        Some(_) | None => {
            let result = try_kvm(program);
            let word = result.as_ref().map_or_else(Clone::clone, |()| "kvm".to_owned());
            let _ = fs::write(memory, format!("{boot} {}", word.replace('\n', " "))); // only a cache
            result
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
        let ran = run_trial(Path::new(PROGRAM), "tcg", &folder);
        fs::remove_dir_all(&folder).unwrap();
        ran.expect("QEMU, package qemu-system-x86");
    }

    #[test]
    fn what_was_tried_in_this_boot_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("accel");
        fs::write(&memory, "boot-1 it was slow").unwrap();
        let why = remembered(Path::new(PROGRAM), &memory, "boot-1").unwrap_err();
        assert!(why.starts_with("it was slow") && why.contains("to try again"), "{why}");
        fs::write(&memory, "boot-1 kvm").unwrap();
        assert_eq!(remembered(Path::new(PROGRAM), &memory, "boot-1"), Ok(()));
    }

    #[test]
    fn a_device_that_is_not_offered_is_no_result_to_remember() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("accel");
        let (engine, warning) = settle(Accel::Auto, Path::new(PROGRAM), &memory, "boot-1").unwrap();
        match is_offered() {
            Ok(()) => assert!(memory.exists(), "it was tried"),
            Err(why) => {
                assert!(!memory.exists() && engine == Engine::Tcg, "{why}");
                assert!(warning.unwrap().contains(&why));
            }
        }
    }
}
