//! Ends what was started, whatever happens: after ctrl-c everything that waits unwinds, and what it holds is
//! ended by its own `Drop`; what is left after that is ended here, by process id, and so are control groups.

use crate::lab::{Lab, remove_groups, signal, vms_of};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After ctrl-c, so long for an end in order.
const ORDERLY: Duration = Duration::from_secs(20);
/// What the shell is told after ctrl-c.
const INTERRUPTED: i32 = 130;

static STOP: AtomicBool = AtomicBool::new(false);
static STARTED: Mutex<Started> = Mutex::new(Started { processes: Vec::new(), folders: Vec::new() });

/// What was started and may still be there.
struct Started {
    /// Held, so that a number cannot have gone to a stranger.
    processes: Vec<OwnedFd>,
    folders: Vec<PathBuf>,
}

/// Why everything unwinds.
pub struct Interrupted;

fn started() -> MutexGuard<'static, Started> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process of ours, told by a handle that cannot mean another one.
pub fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// To be ended with us.
pub fn know_process(pid: i32) {
    started().processes.extend(hold(pid));
}

/// The daemon of a laboratory and its VMs, to be ended with us.
pub fn know(lab: &Lab) {
    know_process(lab.daemon_pid());
    started().folders.push(lab.path().to_owned());
}

/// Whether a person has stopped us.
pub fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Unwinds if a person has stopped us.
pub fn unless_stopped() {
    if is_stopped() {
        std::panic::resume_unwind(Box::new(Interrupted));
    }
}

/// A pause that ends at once when a person stops us.
pub fn pause(time: Duration) {
    let until = Instant::now() + time;
    loop {
        unless_stopped();
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Listens for ctrl-c and its like for as long as the program runs.
pub fn listen() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| signal(kind).expect("signals can be listened for");
            let (mut int, mut term, mut hup) =
                (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()));
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
            eprintln!("\nstopped: ending what was started (again: at once)");
            STOP.store(true, Ordering::Relaxed);
            kill_processes(); // no daemon, so nobody waits for its answers any more
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, () = tokio::time::sleep(ORDERLY) => {} }
        });
        sweep();
        std::process::exit(INTERRUPTED);
    });
}

fn kill_processes() {
    for process in &started().processes {
        let _gone = pidfd_send_signal(process, Signal::KILL);
    }
}

/// Ends all that is left.
pub fn sweep() {
    kill_processes();
    let folders = std::mem::take(&mut started().folders);
    for folder in folders {
        while let Some(pid) = vms_of(&folder).first() {
            signal(*pid, "KILL");
            std::thread::sleep(Duration::from_millis(20));
        }
        remove_groups(&folder.join("state/run"));
        let _gone = std::fs::remove_dir_all(&folder); // its own `Drop` was first, as a rule
    }
}
