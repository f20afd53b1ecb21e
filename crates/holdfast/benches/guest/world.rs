//! The laboratory as a benchmark sees it: it comes to rest between two samples, and tells times that can be
//! compared with those of its incidents.

use crate::end;
use crate::hands::told;
use crate::lab::{BOOT, Lab, vm_section};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// After everything is well, so long until the next sample: what is usual is learned, buffers are empty.
const REST: Duration = Duration::from_secs(6);
/// The longest that a new process or an incident is waited for.
const LONG: Duration = Duration::from_secs(180);
/// How often new processes are looked for: what is measured to it is late by so much at most.
const LOOK: Duration = Duration::from_millis(1);

/// A daemon with its VMs, all well.
pub struct World {
    pub lab: Lab,
    vms: Vec<&'static str>,
    /// Seconds to add to the time since boot, as the daemon does when it shows times. The wall clock may be
    /// corrected meanwhile; differences of these times are not.
    wall: f64,
}

impl World {
    /// Starts a daemon with these VMs, `orders` first, and waits until all is well.
    pub fn with(vms: &[&'static str]) -> Self {
        let others: String = vms[1..].iter().map(|vm| vm_section(vm)).collect();
        let lab = Lab::new(&others);
        for vm in &vms[1..] {
            lab.overlay(vm);
        }
        Self::of(lab, vms)
    }

    /// The same with a laboratory whose daemon is not started yet.
    pub fn of(mut lab: Lab, vms: &[&'static str]) -> Self {
        lab.start();
        end::know(&lab);
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let world = Self { lab, vms: vms.to_vec(), wall: epoch - boot_time() };
        world.lab.wait_well(BOOT * u32::try_from(vms.len()).expect("few"));
        world
    }

    /// Seconds since the epoch, as the daemon counts them.
    pub fn now(&self) -> f64 {
        boot_time() + self.wall
    }

    /// Where the database of a VM is reached.
    pub fn address(&self, vm: &str) -> String {
        self.lab.vm(vm)["address"]["postgres"].as_str().expect("an address").to_owned()
    }

    /// Waits until all is well, clears the budgets, and rests for a time that is not a multiple of a period.
    pub fn rest(&self, sample: u32) {
        end::unless_stopped();
        self.lab.wait_well(LONG);
        for vm in &self.vms {
            told(&self.lab, &["vm", "release", vm]);
        }
        end::pause(REST + Duration::from_millis(u64::from(sample * 370 % 1_000)));
        self.lab.wait_well(LONG);
    }

    /// The incidents since then, oldest first, without those that became part of another.
    pub fn since(&self, time: f64) -> Vec<Value> {
        let mut all = self.lab.incidents();
        all.retain(|incident| {
            incident["opened"].as_f64().is_some_and(|opened| opened >= time - 0.05)
                && incident["resolution"] != "absorbed"
        });
        all.reverse();
        all
    }

    /// Waits for the first incident since then with a remedy, until it is closed.
    pub fn recovery(&self, time: f64) -> Value {
        wait(LONG, Duration::from_millis(100), "a recovery to be closed", || {
            let acted = |incident: &Value| {
                incident["remedies"].as_array().is_some_and(|remedies| !remedies.is_empty())
                    && !incident["closed"].is_null()
            };
            self.since(time).into_iter().find(acted)
        })
    }

    /// Runs a script in the guest; the time just before it was handed over, when nobody else had the agent.
    pub fn in_guest(&self, script: &str) -> f64 {
        let path = self.lab.vm("orders")["agent"].as_str().expect("an agent").to_owned();
        wait(LONG, Duration::from_millis(50), "the agent takes a script", || self.hand_over(&path, script))
    }

    fn hand_over(&self, path: &str, script: &str) -> Option<f64> {
        let mut agent = UnixStream::connect(path).ok()?;
        agent.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        let mut lines = BufReader::new(agent.try_clone().ok()?).lines().map_while(Result::ok);
        writeln!(agent, r#"{{"execute":"guest-sync","arguments":{{"id":4711}}}}"#).ok()?;
        lines.by_ref().find(|line| line.contains("4711"))?;
        let request =
            json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", script] } });
        let time = self.now();
        writeln!(agent, "{request}").ok()?;
        let _pid = lines.next(); // a guest that panics at once does not answer
        Some(time)
    }
}

/// Seconds since boot: one clock for all processes of this host, never corrected.
pub fn boot_time() -> f64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Waits until something is there.
pub fn wait<T>(limit: Duration, look: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        end::unless_stopped();
        std::thread::sleep(look);
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Seconds of processor time that a process has used.
pub fn processor_time(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    // utime and stime, the 14th and 15th of all, the third being the first after the name
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A new process, and when it was first there, in seconds since boot.
pub struct Born {
    pub pid: i32,
    pub at: f64,
}

/// Looks out for QEMU processes that are not there yet.
pub struct Lookout(std::collections::BTreeSet<i32>);

impl Lookout {
    /// From now on.
    pub fn new() -> Self {
        Self(processes().collect())
    }

    /// Waits for a new QEMU process that names this folder or file.
    pub fn qemu(&self, mark: &Path) -> Born {
        let mark = mark.to_string_lossy();
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            program.rsplit('/').next().unwrap_or_default().starts_with("qemu-system") && line.contains(&*mark)
        };
        wait(LONG, LOOK, "another QEMU process", || {
            let pid = processes().filter(|pid| !self.0.contains(pid)).find(is_it)?;
            Some(Born { pid, at: boot_time() })
        })
    }
}
