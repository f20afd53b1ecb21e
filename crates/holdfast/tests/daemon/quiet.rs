//! A daemon in a folder of its own, whose VMs have empty disks.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{SOON, holdfast, remove_groups, signal, vms_of};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

pub struct Quiet {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Quiet {
    /// A folder with this configuration, and a disk for each VM that it names; no daemon runs yet.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("hf-").tempdir().unwrap();
        let quiet = Self { folder, daemon: None };
        quiet.write(config);
        quiet
    }

    /// The same, with the daemon running.
    pub fn running(config: &str) -> Self {
        let mut quiet = Self::new(config);
        quiet.start(&[]);
        quiet
    }

    /// Writes the configuration anew; each disk it names is there.
    pub fn write(&self, config: &str) {
        fs::write(self.config(), format!("host = \"atlas\"\nstate = \"state\"\n{config}")).unwrap();
        for disk in config.split('"').filter(|word| word.ends_with(".raw")) {
            let file = fs::OpenOptions::new().create(true).append(true).open(self.path().join(disk)).unwrap();
            file.set_len(1 << 20).unwrap();
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("holdfast.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().expect("it runs").id()).unwrap()
    }

    /// Starts the daemon; it is ready when it answers.
    pub fn start(&mut self, environment: &[(&str, &Path)]) {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.path().join("daemon.log")).unwrap();
        let mut command = holdfast();
        command.arg("run").arg("--config").arg(self.config()).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        self.until("the daemon answers", |quiet| quiet.say(&["vm", "list"]).status.success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Ends the daemon in order.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        signal(i32::try_from(daemon.id()).unwrap(), "TERM");
        assert!(daemon.wait().unwrap().success());
    }

    /// A command to this daemon.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = holdfast();
        command.arg("--state").arg(self.path().join("state")).args(words).stdin(Stdio::null());
        command.current_dir(self.path());
        command
    }

    pub fn say(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.say(&[words, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{words:?}: {e}: {said}{}", err(&output)))
    }

    /// One VM of the status.
    pub fn vm(&self, name: &str) -> Value {
        let status = self.json(&["status"]);
        let vms = status["vms"].as_array().unwrap();
        vms.iter().find(|vm| vm["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The names of the VMs it looks after.
    pub fn vms(&self) -> Vec<String> {
        let status = self.json(&["status"]);
        status["vms"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let vms = vms_of(&self.path().join("state"));
        vms.iter().for_each(|pid| signal(*pid, "KILL"));
        let gone = |pid: &i32| !Path::new(&format!("/proc/{pid}")).exists();
        self.until("its VMs are gone", |_| vms.iter().all(gone));
        remove_groups(&self.path().join("state/run"));
    }
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The section of a VM on an empty disk. `more` is added to it.
pub fn vm(name: &str, more: &str) -> String {
    format!(
        "[vm.{name}]\ndisk = \"{name}.raw\"\nmemory = \"64MiB\"\naccel = \"tcg\"\nnetwork = \"none\"\n{more}\n"
    )
}
