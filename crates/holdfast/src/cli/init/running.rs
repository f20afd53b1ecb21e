//! QEMU processes that run here, read from their command lines.

use super::FoundVm;
use holdfast_drivers::qemu::launch::is_marked;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest command line that is read, in bytes.
const LONGEST: u64 = 256 * 1024;
/// So many VMs are written down at most.
const MOST: usize = 100;

/// The VMs of all QEMU processes with a disk, in the order of their process numbers.
pub fn running(proc: &Path) -> Vec<FoundVm> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(|pid| process(&proc.join(pid.to_string()), pid)).take(MOST).collect()
}

fn process(folder: &Path, pid: u32) -> Option<FoundVm> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(folder.join("cmdline")).ok()?;
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let words: Vec<String> =
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    if !(program.starts_with("qemu-system-") || program == "qemu-kvm" || program == "kvm") {
        return None;
    }
    let folder = std::fs::read_link(folder.join("cwd")).unwrap_or_else(|_| "/".into());
    let how = if is_marked(&words) {
        format!(
            "runs as process {pid}, under a Holdfast already: its own configuration is what looks after it"
        )
    } else {
        format!("runs as process {pid}, not under Holdfast: shut it down before `holdfast run`")
    };
    read(&words[1..], &folder, &how)
}

/// Reads a QEMU command line (qemu-system(1)); `None` without a disk.
fn read(words: &[String], folder: &Path, how: &str) -> Option<FoundVm> {
    let mut vm = FoundVm { how: how.to_owned(), ..FoundVm::default() };
    let mut disk = None;
    let (mut kernel, mut initrd, mut cmdline, mut tap, mut mac) = (None, None, String::new(), None, None);
    for pair in words.windows(2) {
        let (option, value) = (pair[0].trim_start_matches('-'), pair[1].as_str());
        if !pair[0].starts_with('-') {
            continue;
        }
        match option {
            "name" => vm.name = named(value, "guest").unwrap_or_default(),
            "m" => vm.memory = named(value, "size").and_then(|size| memory(&size)),
            "smp" => vm.cpus = named(value, "cpus").and_then(|cpus| cpus.parse().ok()),
            "hda" => disk = disk.or(Some(value.to_owned())),
            "drive" => disk = disk.or_else(|| drive(value)),
            "blockdev" => disk = disk.or_else(|| blockdev(value)),
            "kernel" => kernel = Some(real(folder, value)),
            "initrd" => initrd = Some(real(folder, value)),
            "append" => value.clone_into(&mut cmdline),
            "netdev" | "nic" | "net" => {
                vm.forwards.extend(forwards(value));
                tap = tap.or_else(|| interface(value));
                mac = mac.or_else(|| named(value, "mac"));
            }
            "device" => mac = mac.or_else(|| named(value, "mac")),
            _ => {}
        }
    }
    vm.disk = real(folder, &disk?);
    if vm.name.is_empty() {
        vm.name = vm.disk.file_stem()?.to_string_lossy().into_owned();
    }
    vm.kernel = kernel.map(|kernel| (kernel, initrd, cmdline));
    vm.tap = tap.map(|interface| (interface, mac));
    Some(vm)
}

/// The file itself, not a link to it.
fn real(folder: &Path, path: &str) -> PathBuf {
    let path = folder.join(path);
    std::fs::canonicalize(&path).unwrap_or(path)
}

/// `a,b=c,,d` as `("", "a"), ("b", "c,d")`: QEMU writes a comma within a value twice.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, fields.last_mut()) {
            (',', Some(last)) if chars.peek() == Some(&',') => {
                chars.next();
                last.push(',');
            }
            (',', _) => fields.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (String::new(), field),
    };
    fields.into_iter().map(pair).collect()
}

/// The value of a key; the first field may stand without it.
fn named(text: &str, key: &str) -> Option<String> {
    let fields = fields(text);
    let first = fields.first().filter(|(key, _)| key.is_empty() && text.split(',').next() != Some(""));
    let by_key = fields.iter().find(|(name, _)| name == key);
    by_key.or(first.filter(|_| key != "mac")).map(|(_, value)| value.clone())
}

/// MiB without a unit, otherwise `K`, `M`, `G` or `T`.
fn memory(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "M" => 20,
        "K" => 10,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The image of a `-drive` that a guest writes.
fn drive(text: &str) -> Option<String> {
    let fields = fields(text);
    let is = |key: &str, value: &str| fields.iter().any(|(k, v)| k == key && v == value);
    if is("media", "cdrom") || is("if", "pflash") || is("readonly", "on") || is("if", "floppy") {
        return None;
    }
    let file = fields.iter().find(|(key, _)| key == "file")?.1.clone();
    written(&file).then_some(file)
}

/// Whether a name looks like a disk that a guest writes, and is a local file.
fn written(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    !(lower.ends_with(".iso")
        || lower.ends_with(".fd")
        || lower.contains("://")
        || lower.starts_with("json:"))
}

/// The image of a `-blockdev`, in either of its two forms.
fn blockdev(text: &str) -> Option<String> {
    let file = if text.trim_start().starts_with('{') {
        let shape: serde_json::Value = serde_json::from_str(text).ok()?;
        if shape["read-only"] == true {
            return None;
        }
        let name = shape["filename"].as_str().or(shape["file"]["filename"].as_str());
        name?.to_owned()
    } else {
        let fields = fields(text);
        if fields.iter().any(|(key, value)| key == "read-only" && value == "on") {
            return None;
        }
        fields.into_iter().find(|(key, _)| key == "filename" || key == "file.filename")?.1
    };
    written(&file).then_some(file)
}

/// `hostfwd=tcp:127.0.0.1:15432-:5432` as `127.0.0.1:15432` and 5432; an empty address is any.
fn forwards(text: &str) -> Vec<(String, u16)> {
    let read = |value: &str| {
        let (host, guest) = value.strip_prefix("tcp:")?.split_once('-')?;
        let (address, port) = host.rsplit_once(':')?;
        let address = if address.is_empty() { "0.0.0.0" } else { address };
        let guest = guest.rsplit_once(':')?.1.parse().ok()?;
        Some((format!("{address}:{}", port.parse::<u16>().ok()?), guest))
    };
    fields(text).iter().filter(|(key, _)| key == "hostfwd").filter_map(|(_, value)| read(value)).collect()
}

fn interface(text: &str) -> Option<String> {
    let fields = fields(text);
    let is_tap = fields.first().is_some_and(|(_, kind)| kind == "tap");
    let name = fields.iter().find(|(key, _)| key == "ifname").map(|(_, name)| name.clone());
    name.filter(|_| is_tap)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command_line(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_line_by_hand_is_understood() {
        let words = command_line(
            "-name orders -m 512 -smp 2 -nographic -drive file=cd.iso,media=cdrom \
             -drive file=/vm/a,,b.qcow2,if=virtio -kernel /k -initrd /i -append quiet \
             -netdev user,id=n,hostfwd=tcp:127.0.0.1:15432-:5432,hostfwd=tcp::8022-10.0.2.15:22",
        );
        let vm = read(&words, Path::new("/"), "").unwrap();
        let expected = FoundVm {
            name: "orders".into(),
            disk: "/vm/a,b.qcow2".into(),
            memory: Some(512 << 20),
            cpus: Some(2),
            kernel: Some(("/k".into(), Some("/i".into()), "quiet".into())),
            forwards: vec![("127.0.0.1:15432".into(), 5432), ("0.0.0.0:8022".into(), 22)],
            ..FoundVm::default()
        };
        assert_eq!(vm, expected);
    }

    #[test]
    fn a_command_line_by_libvirt_is_understood() {
        let mut words = command_line(
            "-name guest=web,debug-threads=on -m size=2097152k,slots=1 -smp 4,sockets=4,cores=1 \
             -netdev tap,id=hostnet0,ifname=vnet3 -device virtio-net-pci,netdev=hostnet0,mac=52:54:00:aa:bb:cc",
        );
        for json in [
            r#"{"driver":"file","filename":"/usr/share/OVMF/OVMF_CODE.fd","read-only":true}"#,
            r#"{"driver":"file","filename":"/vm/web.qcow2","node-name":"s"}"#,
        ] {
            words.extend(["-blockdev".to_owned(), json.to_owned()]);
        }
        let vm = read(&words, Path::new("/"), "").unwrap();
        assert_eq!((vm.name.as_str(), vm.memory, vm.cpus), ("web", Some(2 << 30), Some(4)));
        assert_eq!(vm.disk, Path::new("/vm/web.qcow2"));
        assert_eq!(vm.tap, Some(("vnet3".into(), Some("52:54:00:aa:bb:cc".into()))));
    }

    #[test]
    fn a_vm_of_holdfast_is_told_from_one_that_nobody_looks_after() {
        let how = |words: &str| {
            let proc = tempfile::tempdir().unwrap();
            let folder = proc.path().join("77");
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cmdline"), command_line(words).join("\0")).unwrap();
            std::os::unix::fs::symlink("/", folder.join("cwd")).unwrap();
            running(proc.path()).remove(0).how
        };
        let by_hand = how("/usr/bin/qemu-system-x86_64 -name web -hda /vm/web.qcow2");
        assert!(by_hand.starts_with("runs as process 77, not under Holdfast"), "{by_hand}");
        let ours =
            how("/usr/bin/qemu-system-x86_64 -name web -fw_cfg name=opt/holdfast/start,string=3.12 -hda /w");
        assert!(ours.starts_with("runs as process 77, under a Holdfast already"), "{ours}");
    }

    #[test]
    fn a_process_without_a_local_disk_is_no_vm_to_protect() {
        for text in ["-m 1G", "-drive file=nbd://x/y", "-drive file=a.iso", "-drive", ""] {
            assert_eq!(read(&command_line(text), Path::new("/"), ""), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in proptest::collection::vec("-?(name|m|smp|drive|blockdev|netdev|device|[a-z,=:{}\"é]{0,12})", 0..8)) {
            let _ = read(&words, Path::new("/"), "x");
        }
    }
}
