//! A laboratory: a real daemon, a real QEMU, a real guest with PostgreSQL, in a folder of its own.
//!
//! Everything that is started here is ended here, by process id, also when a test fails.

#![allow(dead_code, reason = "each test file uses its own part of the laboratory")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod warm;

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A guest boots in about 8 s here; on a busy machine it takes far longer.
pub const BOOT: Duration = Duration::from_secs(150);
/// The time in which something that is seen at once must be seen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// The folder of the guest's image, built once and cached.
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/build.sh");
        let built = Command::new("bash").arg(script).arg("--quiet").output().expect("bash");
        assert!(built.status.success(), "the guest image: {}", String::from_utf8_lossy(&built.stderr));
        PathBuf::from(String::from_utf8_lossy(&built.stdout).lines().last().unwrap())
    })
}

/// One daemon and what it looks after.
pub struct Lab {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    /// The network namespace that the daemon lives in, if it is not that of the test.
    pub namespace: Option<String>,
    /// What runs its VMs, if that is not the installed one.
    qemu: Option<PathBuf>,
}

impl Lab {
    /// A laboratory with one VM `orders`, its daemon not started yet. `more` is added to its configuration.
    pub fn new(more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("hf-").tempdir().unwrap();
        let lab = Self { folder, daemon: None, namespace: None, qemu: another_qemu() };
        lab.overlay("orders");
        fs::write(lab.config(), format!("state = \"state\"\n{}{more}", vm_section("orders"))).unwrap();
        lab
    }

    /// The same, with the daemon started and PostgreSQL answering. The guest is a warm clone: it did not boot.
    pub fn running(more: &str) -> Self {
        let mut lab = Self::new(more);
        lab.start_warm(&["orders"]);
        lab
    }

    /// The same as [`Lab::new`], with its configuration changed.
    pub fn changed(change: impl FnOnce(String) -> String) -> Self {
        let lab = Self::new("");
        let config = fs::read_to_string(lab.config()).unwrap();
        fs::write(lab.config(), change(config)).unwrap();
        lab
    }

    /// The same as [`Lab::changed`], with a QEMU that is not older than 10: where the installed one is, another beside it.
    pub fn changed_on_qemu10(change: impl FnOnce(String) -> String) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/qemu10.sh");
        let found = Command::new("bash").arg(script).output().expect("bash");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let qemu = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let line = format!("driver = \"qemu\"\nqemu = \"{qemu}\"\n");
        let other = |line: &str| line.starts_with("qemu = ");
        let mut lab = Self::changed(|config| {
            let config: Vec<&str> = config.lines().filter(|line| !other(line)).collect();
            change(config.join("\n").replace("driver = \"qemu\"\n", &line) + "\n")
        });
        lab.qemu = Some(qemu.into());
        lab
    }

    /// The same as [`Lab::running`], with a probe that also writes a row and reads it back.
    pub fn writing() -> Self {
        let mut lab = Self::changed(|config| config.replace("//orders@", "//probe@") + "write = true\n");
        lab.start_warm(&["orders"]);
        lab
    }

    /// Wakes these VMs as clones of a warm guest, then starts the daemon, which adopts them; all of them are well. With
    /// `HOLDFAST_COLD` set they are booted instead.
    pub fn start_warm(&mut self, vms: &[&str]) {
        let cold = std::env::var_os("HOLDFAST_COLD").is_some();
        for vm in vms {
            if cold {
                self.overlay(vm);
            } else {
                warm::wake(vm, &self.disk(vm), &self.state(), self.qemu.as_deref());
            }
        }
        let awake = vms_of(&self.state());
        self.start();
        self.wait_well(BOOT * u32::try_from(vms.len()).unwrap());
        if cold {
            return;
        }
        for vm in vms {
            assert!(awake.contains(&self.pid(vm)), "{vm} was not adopted\n{}", self.story());
        }
        assert_eq!(self.remedies(), Vec::<String>::new(), "{}", self.story());
    }

    /// Makes a fresh disk for a VM.
    pub fn overlay(&self, name: &str) {
        overlay(&self.disk(name), &image().join("base.raw"), "raw");
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.qcow2"))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("holdfast.toml")
    }

    /// Starts the daemon; it is ready when it answers.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.path().join("daemon.log")).unwrap();
        let mut command = match &self.namespace {
            Some(namespace) => within(namespace, &holdfast()),
            None => holdfast(),
        };
        command.arg("run").arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        self.until(SOON, "the daemon answers", |lab| lab.cli(&["vm", "list"]).status.success());
    }

    pub fn daemon_pid(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().expect("it runs").id()).unwrap()
    }

    /// kill -9: the daemon gets no chance to say good-bye.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// SIGTERM: it ends in order.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        signal(i32::try_from(daemon.id()).unwrap(), "TERM");
        assert!(daemon.wait().unwrap().success());
    }

    /// Runs a command of the command line against this daemon.
    pub fn cli(&self, words: &[&str]) -> Output {
        holdfast().arg("--state").arg(self.state()).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// The same, with JSON for an answer.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.cli(&[words, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&said)
            .unwrap_or_else(|e| panic!("{words:?}: {e}: {said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// One VM of the status.
    pub fn vm(&self, name: &str) -> Value {
        let status = self.json(&["status"]);
        let vms = status["vms"].as_array().unwrap();
        vms.iter().find(|vm| vm["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The process of a VM.
    pub fn pid(&self, name: &str) -> i32 {
        i32::try_from(self.vm(name)["pid"].as_i64().unwrap_or_else(|| panic!("{name} has no process")))
            .unwrap()
    }

    pub fn incarnation(&self, name: &str) -> u64 {
        self.vm(name)["incarnation"].as_u64().unwrap_or(0)
    }

    /// The incidents, newest first.
    pub fn incidents(&self) -> Vec<Value> {
        self.json(&["incidents"]).as_array().unwrap().clone()
    }

    /// The remedies that were ever tried.
    pub fn remedies(&self) -> Vec<String> {
        let all = self.incidents();
        let names = all.iter().flat_map(|incident| incident["remedies"].as_array().unwrap().clone());
        names.map(|remedy| remedy["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until something holds; fails with everything that helps to see why it does not.
    pub fn until(&self, limit: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}\n{}", self.story());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The same, while no daemon runs that could tell a story.
    pub fn until_without_daemon(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every VM runs, answers, and has no open incident. The host may be overloaded: it is, where
    /// many tests run.
    pub fn wait_well(&self, limit: Duration) {
        self.until(limit, "every VM is well", |lab| {
            let status = lab.json(&["status"]);
            let app_answers = |app: &Value| app["state"] == "ok";
            let well = |vm: &Value| {
                vm["state"] == "running"
                    && vm["incident"].is_null()
                    && vm["apps"].as_array().unwrap().iter().all(app_answers)
            };
            status["vms"].as_array().unwrap().iter().all(well)
        });
    }

    /// Waits until its application has answered once more: what was done before is then from before any fault that follows.
    pub fn wait_asked(&self, name: &str) {
        let answered = |lab: &Self| lab.vm(name)["apps"][0]["answered"].as_f64();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        self.until(SOON, "its application answers once more", |lab| answered(lab).is_some_and(|at| at > now));
    }

    /// Waits for a closed incident with this fault, and returns it.
    pub fn wait_closed(&self, fault: &str, limit: Duration) -> Value {
        let closed = |lab: &Self| {
            lab.incidents()
                .into_iter()
                .find(|incident| incident["fault"] == fault && !incident["closed"].is_null())
        };
        self.until(limit, &format!("{fault} is closed"), |lab| closed(lab).is_some());
        closed(self).unwrap()
    }

    /// Runs a script in the guest, through the agent's socket, as any other program might.
    pub fn in_guest(&self, vm: &str, script: &str) {
        let agent = self.vm(vm)["agent"].as_str().unwrap().to_owned();
        assert!(in_guest_at(Path::new(&agent), script), "the agent took no script\n{}", self.story());
    }

    /// Asks the agent once: what it returns, or `None` if it refuses or says nothing (it serves one client at
    /// a time).
    pub fn ask_agent(&self, vm: &str, request: &str) -> Option<Value> {
        let mut agent = UnixStream::connect(self.vm(vm)["agent"].as_str()?).ok()?;
        agent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sync = r#"{"execute":"guest-sync","arguments":{"id":8}}"#;
        agent.write_all(format!("{sync}\n{request}\n").as_bytes()).ok()?;
        let mut said = String::new();
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = agent.read(&mut piece) {
            said.push_str(&String::from_utf8_lossy(&piece[..n]));
            let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if lines.by_ref().any(|line| line["return"] == 8)
                && let Some(answer) = lines.next()
            {
                return answer.get("return").cloned();
            }
        }
        None
    }

    /// What happened, for a person who reads a failed test.
    pub fn story(&self) -> String {
        let events = self.cli(&["events", "-n", "60"]);
        let status = self.cli(&["status"]);
        let log = fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "{}\n{}\nlog:\n{}",
            String::from_utf8_lossy(&events.stdout),
            String::from_utf8_lossy(&status.stdout),
            tail.join("\n")
        )
    }
}

/// Runs a script in a guest, through the socket of its agent; `false` if the agent does not take it.
#[must_use]
pub fn in_guest_at(agent: &Path, script: &str) -> bool {
    // Who hears no answer in time asks again, and what was asked before may still be waiting for its turn: it runs once.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let once = format!("/run/once-{}-{}", std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
    let script = format!("set -C; {{ true > {once}; }} 2>/dev/null || exit 0; set +C\n{script}");
    let request = serde_json::json!({ "execute": "guest-exec",
        "arguments": { "path": "/bin/sh", "arg": ["-c", script] } });
    let request = format!("{{\"execute\":\"guest-sync\",\"arguments\":{{\"id\":7}}}}\n{request}\n");
    let began = Instant::now();
    while began.elapsed() < SOON {
        let mut agent = UnixStream::connect(agent).unwrap();
        agent.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        agent.write_all(request.as_bytes()).unwrap();
        let mut said = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = agent.read(&mut piece) {
            said.extend_from_slice(&piece[..n]);
            if String::from_utf8_lossy(&said).contains("\"pid\"") {
                return true;
            }
        }
    }
    false
}

/// Ends what was started, whatever happened: the VMs by their processes, then the daemon.
impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            signal(i32::try_from(daemon.id()).unwrap(), "CONT");
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        end_vms(&self.state());
    }
}

/// Ends all VMs with this state folder, and removes their control groups.
fn end_vms(state: &Path) {
    for pid in vms_of(state) {
        signal(pid, "KILL");
        let began = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    remove_groups(&state.join("run"));
}

/// Makes a disk that stands on another.
fn overlay(disk: &Path, base: &Path, format: &str) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(base).arg(disk);
    assert!(command.status().expect("qemu-img, package qemu-utils").success());
}

/// A runtime that ends when it is dropped, with all that was spawned in it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Removes the control groups that a killed daemon leaves behind, and ends what is in them: a VM that it had only begun
/// to start is in its group before it can be told by its command line. `root` is the folder of its run folders.
pub fn remove_groups(root: &Path) {
    let family = format!("holdfast-{:08x}", crc32fast::hash(root.as_os_str().as_encoded_bytes()));
    let groups = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten().map(|entry| entry.path());
    for family in hierarchies.chain([groups.to_owned()]).map(|hierarchy| hierarchy.join(&family)) {
        for member in fs::read_dir(&family).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let began = Instant::now();
            while member.is_dir() && fs::remove_dir(&member).is_err() && began.elapsed() < SOON {
                let inside = fs::read_to_string(member.join("cgroup.procs")).unwrap_or_default();
                let pids = inside.lines().filter_map(|pid| pid.parse().ok());
                pids.filter(|pid| *pid > 0).for_each(|pid| signal(pid, "KILL"));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _none_there = fs::remove_dir(&family);
    }
}

/// The QEMU processes whose command line names this state folder.
pub fn vms_of(state: &Path) -> Vec<i32> {
    let mark = state.to_string_lossy().into_owned();
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        // `setsid` becomes QEMU in a moment.
        let is_qemu = |word: &str| word.rsplit('/').next().unwrap_or_default().starts_with("qemu-system");
        line.split('\0').take(2).any(is_qemu) && line.contains(&mark)
    };
    pids.filter(ours).collect()
}

/// Sends a signal, by number of the process only.
pub fn signal(pid: i32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
}

/// The program.
pub fn holdfast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG").env("NO_COLOR", "1");
    command
}

/// The same program in a network namespace; it keeps its process id.
fn within(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

/// The section of a VM with PostgreSQL, under software emulation.
/// Another QEMU than the installed one, for all tests: `HOLDFAST_TEST_QEMU=PROGRAM`.
fn another_qemu() -> Option<PathBuf> {
    std::env::var_os("HOLDFAST_TEST_QEMU").map(PathBuf::from)
}

pub fn vm_section(name: &str) -> String {
    let at = |file: &str| image().join(file).display().to_string();
    let qemu =
        another_qemu().map(|program| format!("qemu = \"{}\"\n", program.display())).unwrap_or_default();
    format!(
        "[vm.{name}]\ndriver = \"qemu\"\n{qemu}disk = \"{name}.qcow2\"\nimages = [\"{}\"]\nmemory = \"512MiB\"\n\
         accel = \"tcg\"\nkernel = \"{}\"\ninitrd = \"{}\"\ncmdline = \"{}\"\n\n[vm.{name}.app.postgres]\n\
         probe = \"postgres://orders@guest/orders\"\nrestart = \"service postgresql restart\"\n\n",
        image().parent().unwrap().display(),
        at("vmlinux"),
        at("initrd.gz"),
        warm::CMDLINE,
    )
}
