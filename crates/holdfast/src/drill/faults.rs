//! The faults that can be injected, and what they should be named.

use holdfast_drivers::Injection;
use std::time::Duration;

/// One drill.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Its name.
    pub name: &'static str,
    /// What it does, for people.
    pub does: &'static str,
    /// The faults it may rightly be named; `none`: nothing may be named, and nothing done.
    pub expected: &'static [&'static str],
    /// It is taken back so long after it was named, where nothing else takes it back.
    pub undone_after: Option<Duration>,
    inject: fn() -> Vec<Injection>,
    undo: fn() -> Vec<Injection>,
}

impl Drill {
    /// What to inject.
    pub fn inject(&self) -> Vec<Injection> {
        (self.inject)()
    }

    /// What takes it back.
    pub fn undo(&self) -> Vec<Injection> {
        (self.undo)()
    }

    /// Whether nothing may be named and nothing done.
    pub fn is_harmless(&self) -> bool {
        self.expected == ["none"]
    }
}

fn script(text: &str) -> Vec<Injection> {
    vec![Injection::Script(text.to_owned())]
}

fn nothing() -> Vec<Injection> {
    Vec::new()
}

/// Stops everything in the guest but its kernel and init, the agent and the watchdog's feeder included.
const HANG: &str = "kill -STOP -1";
/// Kills all of PostgreSQL at once, as the kernel would.
const APP_KILL: &str = "pkill -9 postgres || killall -9 postgres";
/// Stops the postmaster: the kernel still takes connections for it, nobody answers.
const APP_STOP: &str = "kill -STOP $(cat /var/lib/postgresql/*/main/postmaster.pid | head -n 1)";
/// Fills the root file system to the last block.
const FILL: &str = "dd if=/dev/zero of=/var/holdfast-drill.fill bs=1M; sync";
const UNFILL: &str = "rm -f /var/holdfast-drill.fill; sync";
/// Takes all memory with processes that the kernel may not kill, so that it kills others.
const HOG: &str = "for n in 1 2 3; do (echo -1000 > /proc/self/oom_score_adj; exec tail /dev/zero) & done";
/// Doubles until nothing goes any more.
const BOMB: &str = "echo -1000 > /proc/self/oom_score_adj; b() { b | b & }; b";

/// All drills, gentlest first.
pub const ALL: &[Drill] = &[
    Drill {
        name: "app-kill",
        does: "kill -9 of the application in the guest",
        expected: &["AppDown"],
        undone_after: None,
        inject: || script(APP_KILL),
        undo: nothing,
    },
    Drill {
        name: "app-stop",
        does: "SIGSTOP of the application's main process in the guest",
        expected: &["AppHung"],
        undone_after: None,
        inject: || script(APP_STOP),
        undo: nothing,
    },
    Drill {
        name: "vm-kill",
        does: "kill -9 of the VM's process",
        expected: &["VmCrashed"],
        undone_after: None,
        inject: || vec![Injection::Kill],
        undo: nothing,
    },
    Drill {
        name: "vm-stop",
        does: "SIGSTOP of the VM's process",
        expected: &["VmHung"],
        undone_after: None,
        inject: || vec![Injection::Stop],
        undo: || vec![Injection::Unstop],
    },
    Drill {
        name: "guest-panic",
        does: "panic of the guest's kernel",
        expected: &["GuestPanicked"],
        undone_after: None,
        inject: || script("echo c > /proc/sysrq-trigger"),
        undo: nothing,
    },
    Drill {
        name: "guest-hang",
        does: "SIGSTOP of everything in the guest",
        expected: &["GuestHung"],
        undone_after: None,
        inject: || script(HANG),
        undo: nothing,
    },
    Drill {
        name: "guest-reboot",
        does: "reboot from inside: nothing is to be done about it",
        expected: &["none"],
        undone_after: None,
        inject: || script("reboot"),
        undo: nothing,
    },
    Drill {
        name: "disk-error",
        does: "every write of the VM's disk fails, for some seconds",
        expected: &["VmPausedIo"],
        undone_after: Some(Duration::from_secs(3)),
        inject: || vec![Injection::DiskError(true)],
        undo: || vec![Injection::DiskError(false)],
    },
    Drill {
        name: "disk-slow",
        does: "the VM's disk does 20 operations a second for 15 s: nothing is to be done about it",
        expected: &["none"],
        undone_after: Some(Duration::from_secs(15)),
        inject: || vec![Injection::DiskSlow(Some(20))],
        undo: || vec![Injection::DiskSlow(None)],
    },
    Drill {
        name: "disk-full",
        does: "the guest's root file system is filled, and emptied some seconds after that was named",
        expected: &["GuestDiskFull"],
        undone_after: Some(Duration::from_secs(3)),
        inject: || script(FILL),
        undo: || script(UNFILL),
    },
    Drill {
        name: "link-down",
        does: "the VM's virtual cable is unplugged",
        expected: &["GuestNetLost"],
        undone_after: None,
        inject: || vec![Injection::LinkDown(true)],
        undo: || vec![Injection::LinkDown(false)],
    },
    Drill {
        name: "memory-hog",
        does: "processes that take all memory of the guest and may not be killed",
        expected: &["GuestOutOfMemory"],
        undone_after: None,
        inject: || script(HOG),
        undo: nothing,
    },
    Drill {
        name: "fork-bomb",
        does: "processes that double until nothing goes any more",
        expected: &["GuestHung", "GuestOutOfMemory"],
        undone_after: None,
        inject: || script(BOMB),
        undo: nothing,
    },
];

/// The drill of that name.
pub fn find(name: &str) -> Option<&'static Drill> {
    ALL.iter().find(|drill| drill.name == name)
}
