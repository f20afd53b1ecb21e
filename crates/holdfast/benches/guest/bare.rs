//! What Holdfast is measured against: a loop that waits for the end of a QEMU and starts the same command line
//! again, and does nothing else.

use crate::end;
use crate::lab::Lab;
use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What the loop and its owner share.
#[derive(Default)]
struct Turn {
    stop: bool,
    running: Option<OwnedFd>,
}

/// A guest like another one, in a loop. Ends with this value.
pub struct Bare {
    turn: Arc<Mutex<Turn>>,
    thread: Option<JoinHandle<()>>,
    /// Where its database is reached.
    pub address: String,
    /// What its command line names and no other.
    pub folder: PathBuf,
}

impl Bare {
    /// Starts a guest with the command line of a VM of the laboratory, but with a disk, sockets and a port of
    /// its own.
    pub fn like(lab: &Lab, vm: &str, name: &str) -> Self {
        lab.overlay(name);
        let folder = lab.path().join(format!("run-{name}"));
        std::fs::create_dir(&folder).expect("a folder");
        let own = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let line = std::fs::read(format!("/proc/{}/cmdline", lab.pid(vm))).expect("its command line");
        let line = String::from_utf8_lossy(&line).into_owned();
        let address = lab.vm(vm)["address"]["postgres"].as_str().expect("an address").to_owned();
        let swaps = [
            (lab.state().join("run").join(vm).join("vm").display().to_string(), folder.display().to_string()),
            (disk(lab, vm), disk(lab, name)),
            (format!("hostfwd=tcp:{address}-"), format!("hostfwd=tcp:{own}-")),
        ];
        let line = swaps.iter().fold(line, |line, (from, to)| {
            assert!(line.contains(from), "its command line has no {from}");
            line.replace(from, to)
        });
        let words: Vec<String> = line.trim_end_matches('\0').split('\0').map(ToOwned::to_owned).collect();
        let turn = Arc::new(Mutex::new(Turn::default()));
        let shared = Arc::clone(&turn);
        let thread = std::thread::spawn(move || {
            while let Some(mut child) = start(&words, &shared) {
                let _ended = child.wait();
            }
        });
        Self { turn, thread: Some(thread), address: own.to_string(), folder }
    }

    /// kill -9.
    pub fn kill(&self) {
        let turn = lock(&self.turn);
        let _gone = turn.running.as_ref().map(|running| pidfd_send_signal(running, Signal::KILL));
    }
}

fn disk(lab: &Lab, vm: &str) -> String {
    lab.path().join(format!("{vm}.qcow2")).display().to_string()
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts it once more, unless the loop is over.
fn start(words: &[String], turn: &Mutex<Turn>) -> Option<Child> {
    let mut turn = lock(turn);
    if turn.stop || end::is_stopped() {
        return None;
    }
    // In a session of its own, as Holdfast's: the kernel shares processors among sessions.
    let mut command = Command::new("setsid");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("setsid, package util-linux");
    turn.running = end::hold(i32::try_from(child.id()).expect("a small number"));
    Some(child)
}

impl Drop for Bare {
    fn drop(&mut self) {
        lock(&self.turn).stop = true;
        self.kill();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
