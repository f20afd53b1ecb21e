//! A folder in which the program runs as a user of its own, with a repository of backups; and what goes on running there.

#![allow(dead_code, reason = "each test file uses its own part of it")]
#![expect(clippy::unwrap_used, reason = "tests")]

pub mod machine;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub const MIB: usize = 1 << 20;
/// What must come about does so long before.
const LIMIT: Duration = Duration::from_secs(120);

/// The folder.
pub struct Place {
    root: tempfile::TempDir,
    repo: OsString,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    /// An empty one. Its repository, which is not there yet, is the folder `repo` in it.
    pub fn empty() -> Self {
        Self::of("repo")
    }

    /// One with this repository.
    pub fn of(repo: impl Into<OsString>) -> Self {
        Self { root: tempfile::tempdir().unwrap(), repo: repo.into(), environment: Vec::new() }
    }

    /// Commands find this in their environment.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `holdfast backup` with these words and the repository.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_of(&self.repo, words)
    }

    /// The same with another repository.
    pub fn command_of(&self, repo: impl Into<OsString>, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.env_clear().env("HOME", self.root()).env("NO_COLOR", "1").current_dir(self.root());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("backup").args(words).arg("--repo").arg(repo.into()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What is said of something that succeeds.
    pub fn well(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.well(&[words, &["--json"]].concat())).unwrap()
    }

    /// What is said of something that is refused.
    pub fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn restored(&self, point: &str) -> Vec<u8> {
        self.well(&["restore", "--point", point, "--out", "out.img"]);
        let bytes = fs::read(self.path("out.img")).unwrap();
        fs::remove_file(self.path("out.img")).unwrap();
        bytes
    }
}

/// What is mounted on its folder `at`, or inside, is unmounted in the end.
impl Drop for Place {
    fn drop(&mut self) {
        for name in ["inside", "at"] {
            while unmount(self.path(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
        }
    }
}

/// Bytes that cannot be compressed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut next = numbers(seed);
    (0..size).map(|_| (next() >> 23) as u8).collect()
}

/// The same, in every second MiB.
pub fn image(size: usize) -> Vec<u8> {
    let mut next = numbers(7);
    (0..size).map(|at| if (at / MIB).is_multiple_of(2) { (next() >> 23) as u8 } else { 0 }).collect()
}

/// Numbers of 31 bits, by chance.
pub fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command that goes on until it is told to end.
pub struct Begun {
    child: Child,
    /// What it said once it was ready.
    pub ready: Value,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        self.child.wait().unwrap();
    }
}

impl Begun {
    /// Begins it.
    pub fn of(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, ready: Value::Null }
    }

    /// Begins one that says in a line of JSON when it is ready, and waits for that.
    pub fn ready(command: &mut Command) -> Self {
        let mut begun = Self::of(command);
        let mut line = String::new();
        BufReader::new(begun.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        begun.ready = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {}", begun.said()));
        begun
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Nobody writes to its standard input any more.
    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    pub fn ended(&mut self) -> ExitStatus {
        until("the command ends", || self.has_ended());
        self.child.wait().unwrap()
    }

    /// What it printed until it ended, but for the line that it was ready.
    pub fn printed(&mut self) -> String {
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    /// What it said to people until it ended.
    pub fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}
