//! The command line that starts a VM: everything Holdfast relies on is asked for here, nothing is left to
//! defaults of a distribution (`-nodefaults -no-user-config`).

use super::image::Layer;
use super::offered;
use super::spec::{Forward, Kernel, Network, QemuVm};
use holdfast_core::lease::{Incarnation, Token};
use holdfast_core::subject::VmName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The machine, by a name that each version of QEMU gives to its newest one.
pub const MACHINE: &str = "pc";
/// The node of the disk's format; drills put error and throttle nodes on top of it.
pub const DISK_NODE: &str = "disk0";
/// The path of the disk device in QEMU's object tree.
pub const DISK_DEVICE: &str = "/machine/peripheral/vd0";
/// What marks our command lines; the guest sees it too, as it may.
const MARK: &str = "name=opt/holdfast/start,string=";
/// What marks those of trials.
const TRIAL_MARK: &str = "name=opt/holdfast/trial,string=1";
/// The network device.
pub const NIC: &str = "nic0";

/// The folder of one VM while it runs, and what is in it. What QEMU must make itself is in `vm`, a folder
/// that belongs to QEMU's user; the rest it cannot touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder of this VM under the driver's own.
    #[must_use]
    pub fn of(root: &Path, vm: &VmName) -> Self {
        Self { path: root.join(vm.as_str()) }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that QEMU may write to. Nothing in it is trusted: names may be links by now.
    #[must_use]
    pub fn inner(&self) -> PathBuf {
        self.path.join("vm")
    }

    /// The control socket that is ours alone (one client at a time).
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.inner().join("control")
    }

    /// The control socket for people and scripts.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.inner().join("qmp")
    }

    /// The guest agent's socket.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.inner().join("agent")
    }

    /// The serial console of the running incarnation; that of the one before ends in `.1`.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.inner().join("console.log")
    }

    /// What QEMU itself says.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    /// Is there while the guest's file systems may be frozen by us (I16).
    #[must_use]
    pub fn frozen(&self) -> PathBuf {
        self.path.join("frozen")
    }

    /// Is there while the guest stands still for us, and is to run on.
    #[must_use]
    pub fn still(&self) -> PathBuf {
        self.path.join("still")
    }

    /// The run record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.path.join("run")
    }
}

/// How a disk image is laid out, told by its head and never guessed by QEMU (a guest that writes a qcow2
/// head into a raw disk must not become a reader of the host's files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// Plain bytes.
    Raw,
}

impl Format {
    /// QEMU's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How the guest's instructions are run, once that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By the processor.
    Kvm,
    /// By software.
    Tcg,
}

/// What differs from start to start.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The VM.
    pub vm: &'a QemuVm,
    /// Its run folder.
    pub folder: &'a RunFolder,
    /// Its disk and all that it stands on, the disk first.
    pub disk: &'a [Layer],
    /// How instructions are run.
    pub engine: Engine,
    /// Its forwards, with ports chosen.
    pub forwards: &'a [Forward],
    /// Which start it is. Written into the command line, so that a VM whose record is lost is known again.
    pub incarnation: Incarnation,
    /// Under which lease.
    pub token: Token,
    /// Wait for a memory state instead of booting.
    pub incoming: bool,
    /// It is no start of the VM at all, but a trial of a state of its disk.
    pub trial: Option<&'a Trial>,
}

/// What makes a start a trial: the guest is told so (`opt/holdfast/trial`), and its network leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The last image stands on what is offered by NBD over this connection, which QEMU inherits.
    pub below: Option<RawFd>,
    /// The address that the guest has, if it asks nobody for one.
    pub address: Option<Ipv4Addr>,
}

/// A value in one of QEMU's comma-separated lists: commas are doubled.
fn listed(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// The command line, without the program.
#[must_use]
pub fn arguments(start: &Start<'_>) -> Vec<String> {
    let vm = start.vm;
    let mut line = Line::default();
    let role = if start.trial.is_some() { "trial-" } else { "" };
    line.pair("-name", format!("guest={role}{0},process=holdfast-{role}{0},debug-threads=on", vm.name));
    match start.trial {
        None => line.pair("-fw_cfg", mark(start.incarnation, start.token)),
        Some(_) => line.pair("-fw_cfg", TRIAL_MARK),
    }
    line.words("-nodefaults -no-user-config -display none");
    line.pair("-M", MACHINE);
    match start.engine {
        Engine::Kvm => line.words("-accel kvm -cpu max"),
        Engine::Tcg => line.words("-accel tcg,thread=multi -cpu qemu64"),
    }
    line.pair("-smp", vm.cpus.to_string());
    line.pair("-m", format!("{}M", vm.memory >> 20));
    line.words("-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.words("-action panic=pause,watchdog=none,shutdown=poweroff,reboot=reset");
    monitors(&mut line, start.folder);
    devices(&mut line, start);
    network(&mut line, start);
    if let Some(kernel) = &vm.kernel {
        direct_boot(&mut line, kernel);
    }
    if start.incoming {
        line.words("-incoming defer");
    }
    line.0
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(String::from));
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

fn socket(id: &str, path: &Path) -> String {
    format!("socket,id={id},path={},server=on,wait=off", listed(path))
}

fn mark(incarnation: Incarnation, token: Token) -> String {
    format!("{MARK}{}.{}", incarnation.0, token.0)
}

/// Which start of the VM with this run folder a command line is: `None` if it is no start of it.
#[must_use]
pub fn recognize(folder: &RunFolder, words: &[String]) -> Option<(Incarnation, Token)> {
    let control = socket("control", &folder.control());
    words.contains(&control).then_some(())?;
    let (incarnation, token) = words.iter().find_map(|word| word.strip_prefix(MARK))?.split_once('.')?;
    Some((Incarnation(incarnation.parse().ok()?), Token(token.parse().ok()?)))
}

/// Whether a command line is a start, or a trial, of any VM by a driver like this one.
#[must_use]
pub fn is_marked(words: &[String]) -> bool {
    words.iter().any(|word| word.starts_with(MARK) || word == TRIAL_MARK)
}

fn monitors(line: &mut Line, folder: &RunFolder) {
    for (id, path) in [("control", folder.control()), ("people", folder.qmp())] {
        line.pair("-chardev", socket(id, &path));
        line.pair("-mon", format!("chardev={id},mode=control"));
    }
    // Appending, so that it can be cut while QEMU writes.
    line.pair("-chardev", format!("file,id=console,path={},append=on", listed(&folder.console())));
    line.pair("-serial", "chardev:console");
}

fn devices(line: &mut Line, start: &Start<'_>) {
    let below = start.trial.and_then(|trial| trial.below);
    if let Some(below) = below {
        line.pair("-blockdev", offered(start.disk.len(), below).to_string());
    }
    let files = start.disk.len() + usize::from(below.is_some());
    for (at, layer) in start.disk.iter().enumerate().rev() {
        line.pair("-blockdev", block(at, layer, at + 1 < files).to_string());
    }
    line.pair("-device", format!("virtio-blk-pci,drive={DISK_NODE},id=vd0,werror=stop,rerror=stop"));
    line.words("-device virtio-serial-pci,id=vs0");
    line.pair("-chardev", socket("agent", &start.folder.agent()));
    line.words("-device virtserialport,chardev=agent,id=agent0,name=org.qemu.guest_agent.0");
    line.words("-device virtio-rng-pci -device pvpanic-pci -device i6300esb");
    line.words("-device virtio-balloon-pci,id=balloon0 -device VGA");
    // A guest whose saved memory is resumed is told so, and makes itself new keys (I23).
    line.words("-device vmgenid,guid=auto");
}

fn node_name(at: usize) -> String {
    if at == 0 { DISK_NODE.to_owned() } else { format!("base{at}") }
}

/// The node of what is offered over a connection.
fn offered(at: usize, connection: RawFd) -> Value {
    let server = json!({ "type": "fd", "str": connection.to_string() });
    json!({ "driver": "nbd", "node-name": node_name(at), "read-only": true, "server": server })
}

/// The node of one file of the disk. What it stands on is named here, never taken from the file.
fn block(at: usize, layer: &Layer, has_backing: bool) -> Value {
    let mut node = json!({
        "driver": layer.format.name(),
        "node-name": node_name(at),
        "read-only": at > 0,
        "file": {
            "driver": "file",
            "node-name": format!("file{at}"),
            "filename": layer.path.to_string_lossy(),
            "locking": "on",
        },
    });
    if layer.is_offered {
        node["file"] = offered::block(&layer.path);
    } else if at > 0 {
        node["file"]["auto-read-only"] = true.into(); // opened for writing only while something is merged into it
    }
    if at == 0 {
        node["discard"] = "unmap".into();
    }
    if layer.format == Format::Qcow2 {
        node["backing"] = if has_backing { node_name(at + 1).into() } else { Value::Null };
    }
    node
}

fn network(line: &mut Line, start: &Start<'_>) {
    let network = &start.vm.network;
    let to = start.trial.and_then(|trial| trial.address).map(|address| address.to_string());
    let forwarded = |forward: &Forward| {
        let (listen, to) = (forward.listen, to.as_deref().unwrap_or_default());
        format!(",hostfwd=tcp:{}:{}-{to}:{}", listen.ip(), listen.port(), forward.guest)
    };
    let forwards = || start.forwards.iter().map(forwarded).collect::<String>();
    let netdev = match (network, start.trial) {
        (Network::None, _) => return line.words("-nic none"),
        (Network::User(_) | Network::Tap { .. }, Some(trial)) => {
            let around = trial.address.map_or_else(String::new, around);
            format!("user,id=net0,restrict=on{around}{}", forwards())
        }
        (Network::User(_), None) => format!("user,id=net0{}", forwards()),
        (Network::Tap { interface, .. }, None) => {
            format!("tap,id=net0,ifname={interface},script=no,downscript=no")
        }
    };
    let mac = network.mac().unwrap_or_default();
    line.pair("-netdev", netdev);
    line.pair("-device", format!("virtio-net-pci,netdev=net0,id={NIC},mac={mac},romfile="));
}

/// A network in which this address is the guest's.
fn around(guest: Ipv4Addr) -> String {
    let [a, b, c, last] = guest.octets();
    let mut free = [254, 253, 252].into_iter().filter(|&other| other != last);
    let (host, dns) = (free.next().unwrap_or(254), free.next().unwrap_or(253));
    format!(",net={a}.{b}.{c}.0/24,dhcpstart={guest},host={a}.{b}.{c}.{host},dns={a}.{b}.{c}.{dns}")
}

fn direct_boot(line: &mut Line, kernel: &Kernel) {
    line.pair("-kernel", kernel.image.to_string_lossy());
    if let Some(initrd) = &kernel.initrd {
        line.pair("-initrd", initrd.to_string_lossy());
    }
    let console = if kernel.cmdline.contains("console=") { "" } else { "console=ttyS0 " };
    line.pair("-append", format!("{console}{}", kernel.cmdline));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn vm(disk: &str) -> QemuVm {
        QemuVm { network: Network::User(Vec::new()), ..QemuVm::plain(disk) }
    }

    fn written(vm: &QemuVm, forwards: &[Forward]) -> String {
        line_of(vm, forwards, None)
    }

    fn line_of(vm: &QemuVm, forwards: &[Forward], trial: Option<&Trial>) -> String {
        let folder = RunFolder::of(Path::new("/run/hf"), &vm.name);
        let start = Start {
            vm,
            folder: &folder,
            disk: &[
                Layer { path: vm.disk.clone(), format: Format::Qcow2, is_offered: false },
                Layer {
                    path: "/base".into(),
                    format: if trial.is_some() { Format::Qcow2 } else { Format::Raw },
                    is_offered: false,
                },
            ],
            engine: Engine::Tcg,
            forwards,
            incarnation: Incarnation(7),
            token: Token(12),
            incoming: false,
            trial,
        };
        arguments(&start).join(" ")
    }

    #[test]
    fn a_command_line_is_known_again_by_its_folder_and_mark() {
        let vm = vm("/d/x");
        let words: Vec<String> = written(&vm, &[]).split(' ').map(ToOwned::to_owned).collect();
        let known = |root: &str| recognize(&RunFolder::of(Path::new(root), &vm.name), &words);
        assert_eq!(known("/run/hf"), Some((Incarnation(7), Token(12))));
        assert_eq!(known("/run/other"), None);
        assert_eq!(recognize(&RunFolder::of(Path::new("/run/hf"), &vm.name), &[]), None);
    }

    #[test]
    fn a_failed_write_stops_the_vm_and_the_image_is_locked() {
        let line = written(&vm("/d/orders.qcow2"), &[]);
        assert!(line.contains("werror=stop,rerror=stop"));
        assert!(line.contains(r#""locking":"on""#));
        assert!(line.contains("-sandbox on"));
    }

    #[test]
    fn a_comma_or_a_quote_in_a_path_adds_no_option() {
        let line = written(&vm(r#"/d/a,","locking":"off"#), &[]);
        assert!(line.contains(r#""filename":"/d/a,\",\"locking\":\"off","#), "{line}");
        let folder = RunFolder { path: "/run/a,server=off".into() };
        assert!(socket("x", &folder.control()).contains("path=/run/a,,server=off/vm/control,server=on"));
    }

    #[test]
    fn what_a_disk_stands_on_is_named_and_only_read() {
        let line = written(&vm("/d/x"), &[]);
        let base = line.find(r#""node-name":"base1","read-only":true"#).unwrap();
        let disk = line.find(r#"{"backing":"base1","discard":"unmap","driver":"qcow2""#).unwrap();
        assert!(base < disk, "{line}");
    }

    #[test]
    fn a_trial_is_never_taken_for_the_vm_and_its_network_leads_nowhere() {
        let tap = Network::Tap { interface: "tap0".into(), mac: "52:54:00:00:00:01".into() };
        let vm = QemuVm { network: tap, ..vm("/d/x") };
        let forward = Forward { listen: "127.0.0.1:15432".parse().unwrap(), guest: 5432 };
        let trial = Trial { below: Some(7), address: Some(Ipv4Addr::new(10, 9, 8, 254)) };
        let line = line_of(&vm, &[forward], Some(&trial));
        let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        assert_eq!(recognize(&RunFolder::of(Path::new("/run/hf"), &vm.name), &words), None);
        assert!(is_marked(&words) && line.contains("guest=trial-orders"), "{line}");
        let network =
            "user,id=net0,restrict=on,net=10.9.8.0/24,dhcpstart=10.9.8.254,host=10.9.8.253,dns=10.9.8.252";
        assert!(line.contains(network) && !line.contains("tap0"), "{line}");
        assert!(line.contains("hostfwd=tcp:127.0.0.1:15432-10.9.8.254:5432"), "{line}");
        let base = line.find(r#""backing":"base2""#).unwrap();
        assert!(
            line.find(r#"{"driver":"nbd","node-name":"base2","read-only":true"#).unwrap() < base,
            "{line}"
        );
    }

    #[test]
    fn a_restore_point_that_is_offered_is_only_read_and_waited_for() {
        let socket = Layer { path: "/d/x.offered".into(), format: Format::Raw, is_offered: true };
        let node = block(1, &socket, false);
        assert_eq!((&node["read-only"], &node["driver"]), (&true.into(), &"raw".into()));
        let server = json!({ "type": "unix", "path": "/d/x.offered" });
        assert_eq!(node["file"], json!({ "driver": "nbd", "server": server, "reconnect-delay": 5 }));
    }

    #[test]
    fn ports_lead_into_the_guest() {
        let forward = Forward { listen: "127.0.0.1:15432".parse().unwrap(), guest: 5432 };
        assert!(written(&vm("/d/x"), &[forward]).contains("hostfwd=tcp:127.0.0.1:15432-:5432"));
    }
}
