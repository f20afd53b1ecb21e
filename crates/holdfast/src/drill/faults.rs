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
    inject: fn(&Aim) -> Option<Vec<Injection>>,
    undo: fn(&Aim) -> Option<Vec<Injection>>,
}

/// What a drill is aimed at.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// The port of the guest that its first application with one is asked on.
    pub port: Option<u16>,
}

impl Drill {
    /// What to inject; `None` if this VM has nothing that the drill could be aimed at.
    pub fn inject(&self, aim: &Aim) -> Option<Vec<Injection>> {
        (self.inject)(aim)
    }

    /// What takes it back; harmless where there is nothing to take back.
    pub fn undo(&self, aim: &Aim) -> Vec<Injection> {
        (self.undo)(aim).unwrap_or_default()
    }

    /// Whether nothing may be named and nothing done.
    pub fn is_harmless(&self) -> bool {
        self.expected == ["none"]
    }
}

/// A script for the guest, to its end.
fn to_end(script: &str) -> Option<Vec<Injection>> {
    Some(vec![Injection::Check(script.to_owned())])
}

/// A script that its guest may not survive, after one that tells whether it can be begun.
fn let_go(able: &str, script: &str) -> Option<Vec<Injection>> {
    Some(vec![Injection::Check(able.to_owned()), Injection::Script(script.to_owned())])
}

/// A script about the application, which is found by its port.
fn about(aim: &Aim, script: &str) -> Option<Vec<Injection>> {
    let find = include_str!("guest/find.sh");
    to_end(&format!("port={}\n{find}\n{script}", aim.port?))
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a function that may find nothing to do")]
fn nothing(_: &Aim) -> Option<Vec<Injection>> {
    Some(Vec::new())
}

/// All drills, gentlest first.
pub const ALL: &[Drill] = &[
    Drill {
        name: "app-kill",
        does: "kill -9 of the application in the guest",
        expected: &["AppDown"],
        undone_after: None,
        inject: |aim| about(aim, include_str!("guest/app-kill.sh")),
        undo: nothing,
    },
    Drill {
        name: "app-stop",
        does: "SIGSTOP of the application's main process in the guest",
        expected: &["AppHung"],
        undone_after: None,
        inject: |aim| about(aim, include_str!("guest/app-stop.sh")),
        undo: |aim| about(aim, include_str!("guest/app-go-on.sh")),
    },
    Drill {
        name: "vm-kill",
        does: "kill -9 of the VM's process",
        expected: &["VmCrashed"],
        undone_after: None,
        inject: |_| Some(vec![Injection::Kill]),
        undo: nothing,
    },
    Drill {
        name: "vm-stop",
        does: "SIGSTOP of the VM's process",
        expected: &["VmHung"],
        undone_after: None,
        inject: |_| Some(vec![Injection::Stop]),
        undo: |_| Some(vec![Injection::Unstop]),
    },
    Drill {
        name: "guest-panic",
        does: "panic of the guest's kernel",
        expected: &["GuestPanicked"],
        undone_after: None,
        inject: |_| let_go(include_str!("guest/can-panic.sh"), "echo c > /proc/sysrq-trigger"),
        undo: nothing,
    },
    Drill {
        name: "guest-hang",
        does: "SIGSTOP of everything in the guest",
        expected: &["GuestHung"],
        undone_after: None,
        inject: |_| let_go("", include_str!("guest/hang.sh")),
        undo: nothing,
    },
    Drill {
        name: "guest-reboot",
        does: "reboot from inside: nothing is to be done about it",
        expected: &["none"],
        undone_after: None,
        inject: |_| let_go("", include_str!("guest/reboot.sh")),
        undo: nothing,
    },
    Drill {
        name: "disk-error",
        does: "every write of the VM's disk fails, for some seconds",
        expected: &["VmPausedIo"],
        undone_after: Some(Duration::from_secs(3)),
        inject: |_| Some(vec![Injection::DiskError(true)]),
        undo: |_| Some(vec![Injection::DiskError(false)]),
    },
    Drill {
        name: "disk-slow",
        does: "the VM's disk does 20 operations a second for 15 s: nothing is to be done about it",
        expected: &["none"],
        undone_after: Some(Duration::from_secs(15)),
        inject: |_| Some(vec![Injection::DiskSlow(Some(20))]),
        undo: |_| Some(vec![Injection::DiskSlow(None)]),
    },
    Drill {
        name: "disk-full",
        does: "the disk that the application works on is filled, and emptied some seconds after that was named",
        expected: &["GuestDiskFull"],
        undone_after: Some(Duration::from_secs(3)),
        inject: |aim| about(aim, include_str!("guest/fill.sh")),
        undo: |_| to_end(include_str!("guest/unfill.sh")),
    },
    Drill {
        name: "link-down",
        does: "the VM's virtual cable is unplugged",
        expected: &["GuestNetLost"],
        undone_after: None,
        inject: |_| Some(vec![Injection::LinkDown(true)]),
        undo: |_| Some(vec![Injection::LinkDown(false)]),
    },
    Drill {
        name: "memory-hog",
        does: "processes that take all memory of the guest and may not be killed",
        // A kernel that finds nothing left to kill says so and panics, sooner than its silence tells anything.
        expected: &["GuestOutOfMemory", "GuestPanicked"],
        undone_after: None,
        inject: |_| let_go(include_str!("guest/can-begin.sh"), include_str!("guest/memory-hog.sh")),
        undo: |_| to_end(include_str!("guest/end-group.sh")),
    },
    Drill {
        name: "fork-bomb",
        does: "processes that double until nothing goes any more",
        expected: &["GuestHung", "GuestOutOfMemory"],
        undone_after: None,
        inject: |_| let_go(include_str!("guest/can-begin.sh"), include_str!("guest/fork-bomb.sh")),
        undo: |_| to_end(include_str!("guest/end-group.sh")),
    },
];

/// The drill of that name.
pub fn find(name: &str) -> Option<&'static Drill> {
    ALL.iter().find(|drill| drill.name == name)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    /// What a guest would make of a script about its application.
    fn run(port: u16, script: &str) -> Output {
        let find = include_str!("guest/find.sh");
        Command::new("sh").arg("-c").arg(format!("port={port}\n{find}\n{script}")).output().unwrap()
    }

    #[test]
    fn the_application_is_found_by_its_port_whatever_it_is_called() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = run(listener.local_addr().unwrap().port(), "find_app; echo $main");
        assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), std::process::id().to_string());
    }

    #[test]
    fn where_nothing_listens_a_script_says_so_and_does_nothing() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for script in [include_str!("guest/app-kill.sh"), include_str!("guest/app-stop.sh")] {
            let refused = run(free, script);
            assert_eq!(refused.status.code(), Some(1));
            let said = String::from_utf8_lossy(&refused.stdout).trim().to_owned();
            assert_eq!(said, format!("nothing listens on port {free}"));
        }
        assert_eq!(run(free, include_str!("guest/app-go-on.sh")).status.code(), Some(0), "nothing to undo");
    }

    #[test]
    fn what_lasts_can_be_taken_back_and_every_application_drill_needs_a_port() {
        let (aim, blind) = (Aim { port: Some(5432) }, Aim { port: None });
        for drill in ALL {
            assert!(!drill.inject(&aim).unwrap().is_empty(), "{}", drill.name);
            let about_app = ["app-kill", "app-stop", "disk-full"].contains(&drill.name);
            assert_eq!(drill.inject(&blind).is_none(), about_app, "{}", drill.name);
            if drill.undone_after.is_some() {
                assert!(!drill.undo(&aim).is_empty(), "{}", drill.name);
            }
        }
    }
}
