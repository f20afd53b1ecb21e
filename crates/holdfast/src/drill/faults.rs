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
    /// The faults it may rightly be named; `none`: it is right too that nothing is named, and nothing done.
    pub expected: &'static [&'static str],
    /// It is taken back so long after it was named, where nothing else takes it back; if it need not be named, so
    /// long after it was put in.
    pub undone_after: Option<Duration>,
    /// What the drill's own client does while it is in, besides writing its rows.
    pub client: Client,
    inject: fn(&Aim) -> Option<Vec<Injection>>,
    undo: fn(&Aim) -> Option<Vec<Injection>>,
}

/// What a drill's own client does besides writing its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Nothing.
    Writes,
    /// It takes every connection that is given.
    Crowds,
}

/// What a drill is aimed at.
#[derive(Clone, Debug, Default)]
pub struct Aim {
    /// The port of the guest that its first application with one is asked on.
    pub port: Option<u16>,
    /// As whom that application is asked.
    pub user: Option<String>,
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

    /// Whether it need not be named.
    pub fn is_bearable(&self) -> bool {
        self.expected.contains(&"none")
    }

    /// How long its VM must stay well before it is over: lines about damaged data outlive a restart that was for something
    /// else, and open an incident again once that is closed.
    pub fn quiet_after(&self) -> Duration {
        if self.expected.contains(&"CorruptionReported") { Duration::from_secs(10) } else { Duration::ZERO }
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

/// The same where the application must be PostgreSQL.
fn about_postgres(aim: &Aim, script: &str) -> Option<Vec<Injection>> {
    let user = quoted(aim.user.as_deref().unwrap_or_default());
    about(aim, &format!("user={user}\n{}\n{script}", include_str!("guest/postgres.sh")))
}

/// A word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a function that may find nothing to do")]
fn nothing(_: &Aim) -> Option<Vec<Injection>> {
    Some(Vec::new())
}

/// What a drill is that says no more: it does nothing.
const PLAIN: Drill = Drill {
    name: "",
    does: "",
    expected: &[],
    undone_after: None,
    client: Client::Writes,
    inject: nothing,
    undo: nothing,
};

/// All drills, gentlest first.
pub const ALL: &[Drill] = &[
    Drill {
        name: "app-kill",
        does: "kill -9 of the application in the guest",
        expected: &["AppDown"],
        inject: |aim| about(aim, include_str!("guest/app-kill.sh")),
        ..PLAIN
    },
    Drill {
        name: "app-stop",
        does: "SIGSTOP of the application's main process in the guest",
        expected: &["AppHung"],
        inject: |aim| about(aim, include_str!("guest/app-stop.sh")),
        undo: |aim| about(aim, include_str!("guest/app-go-on.sh")),
        ..PLAIN
    },
    Drill {
        name: "vm-kill",
        does: "kill -9 of the VM's process",
        expected: &["VmCrashed"],
        inject: |_| Some(vec![Injection::Kill]),
        ..PLAIN
    },
    Drill {
        name: "vm-stop",
        does: "SIGSTOP of the VM's process",
        expected: &["VmHung"],
        inject: |_| Some(vec![Injection::Stop]),
        undo: |_| Some(vec![Injection::Unstop]),
        ..PLAIN
    },
    Drill {
        name: "guest-panic",
        does: "panic of the guest's kernel",
        expected: &["GuestPanicked"],
        inject: |_| let_go(include_str!("guest/can-panic.sh"), "echo c > /proc/sysrq-trigger"),
        ..PLAIN
    },
    Drill {
        name: "guest-hang",
        does: "SIGSTOP of everything in the guest",
        expected: &["GuestHung"],
        inject: |_| let_go("", include_str!("guest/hang.sh")),
        ..PLAIN
    },
    Drill {
        name: "guest-reboot",
        does: "reboot from inside: nothing is to be done about it",
        expected: &["none"],
        inject: |_| let_go("", include_str!("guest/reboot.sh")),
        ..PLAIN
    },
    Drill {
        name: "disk-error",
        does: "every write of the VM's disk fails, for some seconds",
        expected: &["VmPausedIo"],
        undone_after: Some(Duration::from_secs(3)),
        inject: |_| Some(vec![Injection::DiskError(true)]),
        undo: |_| Some(vec![Injection::DiskError(false)]),
        ..PLAIN
    },
    Drill {
        name: "disk-slow",
        does: "the VM's disk does 20 operations a second for 15 s: nothing is to be done about it",
        expected: &["none"],
        undone_after: Some(Duration::from_secs(15)),
        inject: |_| Some(vec![Injection::DiskSlow(Some(20))]),
        undo: |_| Some(vec![Injection::DiskSlow(None)]),
        ..PLAIN
    },
    Drill {
        name: "disk-full",
        does: "the disk that the application works on is filled, and emptied some seconds after that was named",
        expected: &["GuestDiskFull"],
        undone_after: Some(Duration::from_secs(3)),
        inject: |aim| about(aim, concat!(include_str!("guest/room.sh"), include_str!("guest/fill.sh"))),
        undo: |_| to_end(include_str!("guest/unfill.sh")),
        ..PLAIN
    },
    Drill {
        name: "link-down",
        does: "the VM's virtual cable is unplugged",
        expected: &["GuestNetLost"],
        inject: |_| Some(vec![Injection::LinkDown(true)]),
        undo: |_| Some(vec![Injection::LinkDown(false)]),
        ..PLAIN
    },
    Drill {
        name: "clock-jump",
        does: "the guest's clock is a day ahead for 15 s: nothing is to be done about it",
        expected: &["none"],
        undone_after: Some(Duration::from_secs(15)),
        inject: |_| to_end(include_str!("guest/clock-jump.sh")),
        undo: |_| to_end(include_str!("guest/clock-back.sh")),
        ..PLAIN
    },
    Drill {
        name: "connections-full",
        does: "the drill's client takes every connection that the database gives",
        expected: &["OutOfConnections"],
        undone_after: Some(Duration::from_secs(5)),
        client: Client::Crowds,
        ..PLAIN
    },
    Drill {
        name: "password-rotated",
        does: "the user of the probe gets another password, of which Holdfast is not told",
        expected: &["ProbeBroken"],
        undone_after: Some(Duration::from_secs(5)),
        inject: |aim| about_postgres(aim, include_str!("guest/password-rotate.sh")),
        undo: |aim| about_postgres(aim, include_str!("guest/password-back.sh")),
        ..PLAIN
    },
    Drill {
        name: "page-damaged",
        does: "a page of a table made for it is damaged on disk, and read",
        expected: &["CorruptionReported"],
        undone_after: Some(Duration::from_secs(5)),
        inject: |aim| about_postgres(aim, include_str!("guest/page-damage.sh")),
        undo: |aim| about_postgres(aim, include_str!("guest/page-drop.sh")),
        ..PLAIN
    },
    Drill {
        name: "port-dropped",
        does: "the guest's firewall drops what comes for the application's port",
        expected: &["AppCutOff"],
        undone_after: Some(Duration::from_secs(5)),
        inject: |aim| about(aim, include_str!("guest/port-drop.sh")),
        undo: |aim| about(aim, include_str!("guest/port-open.sh")),
        ..PLAIN
    },
    Drill {
        name: "swap-storm",
        does: "the guest swaps all the time for 25 s, as one reads more than its memory holds",
        // It is slow, and users can live with that; where they are not served any more, memory is what is short.
        expected: &["none", "AppSlow", "GuestOutOfMemory"],
        undone_after: Some(Duration::from_secs(25)),
        inject: |_| to_end(include_str!("guest/swap-storm.sh")),
        undo: |_| to_end(include_str!("guest/swap-calm.sh")),
        ..PLAIN
    },
    Drill {
        name: "wal-full",
        does: "the disk that the database keeps its write-ahead log on is filled, if it has one of its own",
        expected: &["GuestDiskFull"],
        undone_after: Some(Duration::from_secs(5)),
        inject: |aim| {
            let script = concat!(include_str!("guest/room.sh"), include_str!("guest/wal-fill.sh"));
            about_postgres(aim, script)
        },
        undo: |_| to_end(include_str!("guest/unfill.sh")),
        ..PLAIN
    },
    Drill {
        name: "data-deleted",
        does: "everything in the database's data folder is gone; it is put back some seconds after that was named",
        expected: &["CorruptionReported"],
        undone_after: Some(Duration::from_secs(5)),
        inject: |aim| about_postgres(aim, include_str!("guest/data-delete.sh")),
        undo: |_| to_end(include_str!("guest/data-back.sh")),
        ..PLAIN
    },
    Drill {
        name: "memory-hog",
        does: "processes that take all memory of the guest and may not be killed",
        // A kernel that finds nothing left to kill says so and panics, sooner than its silence tells anything.
        expected: &["GuestOutOfMemory", "GuestPanicked"],
        inject: |_| let_go(include_str!("guest/can-begin.sh"), include_str!("guest/memory-hog.sh")),
        undo: |_| to_end(include_str!("guest/end-group.sh")),
        ..PLAIN
    },
    Drill {
        name: "fork-bomb",
        does: "processes that double until nothing goes any more",
        expected: &["GuestHung", "GuestOutOfMemory"],
        inject: |_| let_go(include_str!("guest/can-begin.sh"), include_str!("guest/fork-bomb.sh")),
        undo: |_| to_end(include_str!("guest/end-group.sh")),
        ..PLAIN
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
    fn a_user_stays_one_word_of_the_shell_whatever_it_is_called() {
        for name in ["orders", "o'brien", "'; reboot #", "$(reboot)", ""] {
            let said =
                Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(name))).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), name);
        }
    }

    #[test]
    fn what_lasts_can_be_taken_back_and_every_application_drill_needs_a_port() {
        let (aim, blind) = (Aim { port: Some(5432), user: None }, Aim::default());
        let about_app =
            "app-kill app-stop disk-full password-rotated page-damaged port-dropped wal-full data-deleted";
        let about_app: Vec<&str> = about_app.split(' ').collect();
        for drill in ALL {
            let by_its_client = drill.client == Client::Crowds; // who lets go when it ends
            assert_eq!(drill.inject(&aim).unwrap().is_empty(), by_its_client, "{}", drill.name);
            assert_eq!(drill.inject(&blind).is_none(), about_app.contains(&drill.name), "{}", drill.name);
            if drill.undone_after.is_some() {
                assert_eq!(drill.undo(&aim).is_empty(), by_its_client, "{}", drill.name);
            }
        }
    }
}
