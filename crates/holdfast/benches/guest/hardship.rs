//! What befalls a VM from its host, or needs a guest laid out for it: no drill may do such things to a machine in use,
//! a laboratory may. Each is really done, to what the laboratory has started only, and taken back.

use crate::client::Client;
use crate::end;
use crate::hands::told;
use crate::lab::{BOOT, Lab, SOON};
use crate::world::{World, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What need not be named is watched for so long.
const WATCHED: Duration = Duration::from_secs(30);
/// What must be named gets so long for it.
const NAMED_WITHIN: Duration = Duration::from_secs(60);
/// After it was named it stays for so long.
const STAYS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);

/// One hardship.
pub struct Hardship {
    pub name: &'static str,
    /// The faults it may rightly be named; `none`: it is right too that nothing is named.
    pub expected: &'static [&'static str],
    /// A laboratory in which it can be done.
    pub place: fn() -> Place,
}

/// A laboratory for one hardship, and how that is done.
pub struct Place {
    pub world: World,
    begin: fn(&Place),
    end: fn(&Place),
    /// Taken away after the world has ended.
    _layout: Layout,
}

/// What was laid out on this host for a laboratory; taken away with this value.
enum Layout {
    /// A small file system, mounted here.
    Mount(PathBuf),
    /// A network interface with this name, and a table of nft with the same.
    Tap(String),
    /// A control group.
    Group(PathBuf),
}

/// All of them.
pub const ALL: [Hardship; 3] = [
    Hardship {
        name: "host-cpu-starved",
        // Slow or not served, and nothing inside is to blame.
        expected: &["none", "HostOverloaded", "AppSlow"],
        place: starved,
    },
    Hardship { name: "host-disk-full", expected: &["VmPausedIo", "HostDiskFull"], place: on_a_small_disk },
    Hardship {
        name: "host-nic-lossy",
        // Half of what the guest sends is lost: slow, and nothing inside is to blame.
        expected: &["none", "AppSlow", "GuestNetLost"],
        place: on_a_tap,
    },
];

impl Hardship {
    /// Does it once, and reports as a drill does.
    pub fn held(&self, place: &Place, round: u32) -> Option<Value> {
        let world = &place.world;
        let well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.rest(round)));
        end::unless_stopped();
        well.ok()?;
        let client = Client::start(&world.address("orders"));
        let injected = world.now();
        (place.begin)(place);
        let bearable = self.expected.contains(&"none");
        let began = Instant::now();
        while began.elapsed() < if bearable { WATCHED } else { NAMED_WITHIN } {
            if !bearable && named(world, injected).is_some() {
                break;
            }
            end::pause(LOOK);
        }
        end::pause(STAYS);
        (place.end)(place);
        let back = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.lab.wait_well(BOOT)));
        end::unless_stopped();
        let named = named(world, injected);
        let fault = named.as_ref().map_or("none", |incident| incident["fault"].as_str().unwrap_or_default());
        let (acked, lost) = if back.is_ok() { client.count() } else { (0, 0) };
        let right = self.expected.contains(&fault);
        let after = |key: &str| named.as_ref().and_then(|named| Some(named[key].as_f64()? - injected));
        Some(json!({ "fault": self.name, "expected": self.expected, "named": fault, "injected": injected,
            "diagnosed_s": after("diagnosed"), "incident": named.as_ref().map(|named| named["id"].clone()),
            "rows_acked": acked, "rows_lost": lost, "ok": right && back.is_ok() && lost == 0 }))
    }
}

/// The first confirmed incident since then: the VM's, else the host's.
fn named(world: &World, since: f64) -> Option<Value> {
    let mut all = world.since(since);
    all.retain(|incident| !incident["diagnosed"].is_null());
    all.sort_by_key(|incident| incident["vm"] != "orders");
    all.into_iter().next()
}

impl Drop for Layout {
    fn drop(&mut self) {
        match self {
            Self::Mount(path) => run("umount", &[&path.display().to_string()]),
            Self::Tap(name) => {
                let _none_there = Command::new("nft").args(["delete", "table", "netdev", name]).output();
                run("ip", &["link", "delete", name]);
            }
            Self::Group(path) => {
                let _none_there = fs::remove_dir(path);
            }
        }
    }
}

fn run(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).status();
    assert!(done.is_ok_and(|done| done.success()), "{program} {words:?}");
}

/// The VM gets a tenth of a processor.
fn starved() -> Place {
    fn group() -> PathBuf {
        Path::new("/sys/fs/cgroup/cpu").join(format!("hf-starved-{}", std::process::id()))
    }
    Place {
        world: World::with(&["orders"]),
        begin: |place| {
            fs::create_dir(group()).expect("a control group of version 1 for processors");
            fs::write(group().join("cpu.cfs_quota_us"), "10000").expect("a limit");
            fs::write(group().join("cgroup.procs"), place.world.lab.pid("orders").to_string())
                .expect("a member");
        },
        end: |place| {
            let members = fs::read_to_string(group().join("cgroup.procs")).unwrap_or_default();
            for member in members.lines() {
                let _gone = fs::write("/sys/fs/cgroup/cpu/cgroup.procs", member);
            }
            place.world.lab.until(SOON, "the control group is empty", |_| fs::remove_dir(group()).is_ok());
        },
        _layout: Layout::Group(group()),
    }
}

/// The VM's disk is on a file system of 256 MiB, which something else fills.
fn on_a_small_disk() -> Place {
    fn other(lab: &Lab) -> PathBuf {
        lab.path().join("small/other")
    }
    let lab = Lab::changed(|config| config.replace("orders.qcow2", "small/orders.qcow2"));
    let small = lab.path().join("small");
    fs::create_dir(&small).expect("a folder");
    run("mount", &["-t", "tmpfs", "-o", "size=256m", "small", &small.display().to_string()]);
    let layout = Layout::Mount(small);
    lab.overlay("small/orders");
    Place {
        world: World::of(lab, &["orders"]),
        begin: |place| {
            let lab = &place.world.lab;
            let all = vec![0; 256 << 20];
            let _no_room_for_all = fs::write(other(lab), all);
            place
                .world
                .in_guest("dd if=/dev/zero of=/var/tmp/load bs=1M count=100 conv=fsync; rm -f /var/tmp/load");
        },
        end: |place| fs::remove_file(other(&place.world.lab)).expect("it is there"),
        _layout: layout,
    }
}

/// The VM is on a tap interface, and half of what it sends is lost there.
fn on_a_tap() -> Place {
    const GUEST: &str = "10.213.9.2";
    fn name() -> String {
        format!("hf{}", std::process::id())
    }
    let tap = name();
    run("ip", &["tuntap", "add", "dev", &tap, "mode", "tap", "user", "nobody"]);
    let layout = Layout::Tap(tap.clone());
    run("ip", &["link", "set", &tap, "up"]);
    run("ip", &["addr", "add", "10.213.9.1/24", "dev", &tap]);
    let lab = Lab::changed(|config| {
        let config = config.replace("@guest/", &format!("@{GUEST}/"));
        let config = config.replace("panic=-1", &format!("panic=-1 hf.ip={GUEST}/24 hf.gw="));
        config.replace("accel = ", &format!("network = \"tap:{tap}\"\naccel = "))
    });
    Place {
        world: World::of(lab, &["orders"]),
        begin: |_| {
            let tap = name();
            let rules = format!(
                "table netdev {tap} {{\nchain lossy {{\ntype filter hook ingress device {tap} priority 0\n\
                 numgen random mod 100 < 50 drop\n}}\n}}"
            );
            run("nft", &[&rules]);
        },
        end: |_| run("nft", &["delete", "table", "netdev", &name()]),
        _layout: layout,
    }
}

/// A guest whose application is asked with a password, though it needs none: until it does.
pub fn with_a_password() -> World {
    let lab = Lab::changed(|config| config + "password_file = \"password\"\n");
    let file = lab.path().join("password");
    fs::write(&file, "before any drill").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    World::of(lab, &["orders"])
}

/// A guest whose write-ahead log has a disk of its own, small enough to be filled soon.
pub fn with_a_wal_disk() -> World {
    const READY: &str = "holdfast-bench: the write-ahead log has moved";
    let world = World::with(&["orders"]);
    told(&world.lab, &["vm", "maintenance", "orders", "on"]);
    world.in_guest(&format!(
        "service postgresql stop; cd /var/lib/postgresql/*/main && \
         dd if=/dev/zero of=/var/lib/wal.disk bs=1M count=144 && mke2fs -F /var/lib/wal.disk && mkdir /wal && \
         mount -o loop /var/lib/wal.disk /wal && chown postgres:postgres /wal && chmod 700 /wal && \
         cp -a pg_wal /wal/ && rm -rf pg_wal && ln -s /wal/pg_wal pg_wal && \
         echo 'max_wal_size = 48MB' >>postgresql.conf && echo 'min_wal_size = 32MB' >>postgresql.conf && \
         service postgresql start && echo {READY} >/dev/console"
    ));
    let console = world.lab.vm("orders")["console"].as_str().expect("a console").to_owned();
    wait(BOOT, LOOK, READY, || {
        let said = fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&said).contains(READY).then_some(())
    });
    told(&world.lab, &["vm", "maintenance", "orders", "off"]);
    world.lab.wait_well(BOOT);
    world
}
