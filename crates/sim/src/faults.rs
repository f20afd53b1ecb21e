//! Everything that can happen to the world, in words: `guest web hangs`, `daemon stalls`, `person
//! stops web`. Each has one text, which is how stories are written and how a failing seed is printed.
//!
//! Nothing here does anything; `strike.rs` does it to the world.

use crate::person;
use crate::words::{duration_text, parse_duration};
use holdfast_core::subject::{AppName, VmName};
use std::fmt;
use std::time::Duration;

pub use crate::person::PersonWish;

macro_rules! phrases {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident: $text:literal $(, undone by $undo:ident)?;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As written in a story.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What takes it back, if anything does.
            #[must_use]
            pub const fn undo(self) -> Option<Self> {
                match self { $(Self::$variant => phrases!(@undo $($undo)?),)* }
            }

            fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.text() == text)
            }
        }
    };
    (@undo) => { None };
    (@undo $undo:ident) => { Some(Self::$undo) };
}

phrases! {
    /// What happens to a VM's process on the host.
    ProcessFault {
        /// It is killed, or crashes.
        Dies: "dies";
        /// SIGSTOP.
        Stops: "stops", undone by GoesOn;
        /// SIGCONT.
        GoesOn: "goes on";
        /// It waits for dead storage: no signal ends it (D state).
        CannotDie: "cannot be killed", undone by CanDie;
        /// It can be ended again.
        CanDie: "can be killed";
        /// Its memory takes four seconds to be given back after a kill.
        DiesSlowly: "dies slowly";
        /// Its end, when it comes, is told five seconds late.
        EndsUnnoticed: "ends unnoticed", undone by EndsNoticed;
        /// Its end is told at once.
        EndsNoticed: "ends noticed";
    }
}

phrases! {
    /// What happens to the hypervisor of a VM.
    HypervisorFault {
        /// Its control socket takes questions and answers none.
        Mute: "goes mute", undone by Answers;
        /// It answers again.
        Answers: "answers";
        /// It says "running" whatever is true, even after the process is gone.
        SaysRunning: "says running", undone by Honest;
        /// It tells the truth again.
        Honest: "tells the truth";
        /// It reports an internal error and stops the VM.
        Fails: "fails";
        /// It refuses each start.
        RefusesStart: "refuses to start", undone by StartsAgain;
        /// It starts again.
        StartsAgain: "starts again";
        /// What the VM boots from, besides its disk, is deleted on the host: one that runs, runs on.
        LosesKernel: "loses the kernel", undone by FindsKernel;
        /// It is there again.
        FindsKernel: "has the kernel again";
    }
}

phrases! {
    /// What happens inside a guest.
    GuestFault {
        /// Nothing inside moves any more.
        Hangs: "hangs";
        /// Nobody inside answers, but the disk moves.
        HangsWorking: "hangs while its disk moves";
        /// It hangs in a way that only a new process ends: a wedged device.
        HangsForGood: "hangs beyond a reset";
        /// The kernel stops itself and says so through pvpanic.
        Panics: "panics";
        /// The kernel stops itself and says so on the console only.
        PanicsUnheard: "panics on its console only";
        /// It reboots by itself.
        Reboots: "reboots";
        /// It powers down by itself.
        PowersDown: "powers down";
        /// It is so busy that answers take three seconds.
        Busy: "is busy", undone by Idle;
        /// It is no longer busy.
        Idle: "is no longer busy";
        /// Its disk has nothing to do, though all is well.
        WritesNothing: "writes nothing", undone by Writes;
        /// Its disk has something to do again.
        Writes: "writes again";
        /// The kernel kills the first application for want of memory.
        OutOfMemory: "runs out of memory", undone by HasMemory;
        /// It has memory again.
        HasMemory: "has memory again";
        /// A disk inside is full.
        DiskFull: "fills its disk", undone by HasSpace;
        /// There is space again.
        HasSpace: "has space again";
        /// Its file system goes read-only; its databases give up.
        ReadOnly: "goes read-only";
        /// Its kernel finds its file system damaged, which then says that it is full; its databases are ruined.
        Damaged: "has a damaged file system";
        /// Its network is gone, from inside.
        NetLost: "loses its network", undone by NetBack;
        /// Its network is back.
        NetBack: "has its network again";
        /// Its disk fills, a twentieth of a percent a second from a third on, until it is full.
        Fills: "fills its disk slowly", undone by HasSpace;
        /// So does another disk of it, on which a tablespace lies.
        FillsTablespace: "fills a tablespace slowly", undone by HasSpace;
        /// Its file systems are frozen.
        Freezes: "freezes", undone by Thaws;
        /// They are thawed.
        Thaws: "thaws";
        /// It trips its virtual watchdog and goes on.
        TripsWatchdog: "trips its watchdog";
        /// Each boot ends in silence.
        CannotBoot: "cannot boot", undone by CanBoot;
        /// Each boot ends without a root file system.
        LosesRoot: "loses its root", undone by CanBoot;
        /// Each boot ends in a panic.
        PanicsAtBoot: "panics at boot", undone by CanBoot;
        /// Each boot ends in a reset.
        ResetsAtBoot: "resets at boot", undone by CanBoot;
        /// Each boot takes four times as long.
        BootsSlowly: "boots slowly", undone by CanBoot;
        /// It boots as ever.
        CanBoot: "can boot";
        /// It prints the text of a panic, and is well.
        PrintsPanic: "prints a panic";
        /// It prints the text of a kernel that kills for memory, and is well.
        PrintsOutOfMemory: "prints out of memory";
        /// It prints disk errors, and is well.
        PrintsIoError: "prints disk errors";
        /// It prints that its disk is full, and is well.
        PrintsDiskFull: "prints a full disk";
        /// It prints that a task hangs, and is well.
        PrintsHungTask: "prints a hung task";
    }
}

phrases! {
    /// What happens to the guest agent.
    AgentFault {
        /// It has its port open and answers nothing.
        Mute: "goes mute", undone by Answers;
        /// It is gone.
        Away: "goes away", undone by Answers;
        /// It answers whatever is true, even after the process is gone.
        SaysWell: "says all is well", undone by Answers;
        /// It answers as it should.
        Answers: "answers";
    }
}

phrases! {
    /// What happens to an application.
    AppFault {
        /// Its processes are gone.
        Dies: "dies";
        /// It takes connections and answers none.
        Hangs: "hangs";
        /// It answers, and wrongly.
        Wrong: "answers wrongly";
        /// It has no room for one more connection.
        Exhausted: "has no connection left";
        /// It refuses our password, and nobody else's.
        Denies: "refuses our password", undone by Works;
        /// It starts, or replays its log, and says so.
        Starts: "is starting", undone by Works;
        /// It dies, and no restart of it helps.
        Broken: "is broken", undone by Works;
        /// It dies, and no reboot helps either.
        Ruined: "is ruined", undone by Works;
        /// It answers wrongly, as what is on its disk is wrong: no restart of anything helps.
        Spoiled: "serves wrong data", undone by Works;
        /// It answers after 0.9 s.
        Slow: "answers slowly", undone by Works;
        /// A firewall lets nobody through to it; those who are in stay in.
        CutOff: "is cut off", undone by Works;
        /// Our probe of it cannot run.
        CannotBeProbed: "cannot be probed", undone by Works;
        /// It answers, and ten times as slowly as ever before, as its own numbers show.
        Crawls: "crawls", undone by Works;
        /// Its log says that it has no connection left, and it serves its users.
        LogsExhausted: "logs that it has no connection left";
        /// Its log says that data are not what was written.
        LogsDamage: "logs damaged data";
        /// Its log says that a copy is no longer kept up to date.
        LogsReplication: "logs broken replication";
        /// Its log says that sessions wait for each other.
        LogsLocks: "logs sessions that wait";
        /// Its log says that it gave up.
        LogsPanic: "logs that it gave up";
        /// Its log holds what it never held before, and no rule knows it.
        LogsNews: "logs what it never did";
        /// It works again.
        Works: "works";
    }
}

phrases! {
    /// What happens to the virtual cable.
    CableFault {
        /// It is unplugged.
        Unplugged: "is unplugged", undone by Plugged;
        /// It is plugged in.
        Plugged: "is plugged in";
    }
}

phrases! {
    /// What happens to the storage under a VM's disk.
    DiskFault {
        /// Every request fails.
        Fails: "fails", undone by Works;
        /// It works again.
        Works: "works";
        /// The hypervisor finds the image damaged, says so, and every request fails.
        Damaged: "is found damaged", undone by Works;
        /// A line in the hypervisor's log says so, and nothing else does.
        LogsDamage: "is called damaged in a log";
        /// While the VM does not run, another process opens its image for writing.
        Taken: "is taken by another process", undone by Free;
        /// That process has closed it.
        Free: "is free";
        /// No snapshot can be taken of it.
        NoSnapshots: "takes no snapshots", undone by Snapshots;
        /// They can be again.
        Snapshots: "takes snapshots";
        /// Somebody deletes its image: what runs has it open still, and the next start does not find it.
        Deleted: "is deleted";
        /// The repository of its backups cannot be reached.
        RepositoryAway: "has its repository out of reach", undone by RepositoryBack;
        /// It can be again.
        RepositoryBack: "has its repository in reach";
    }
}

phrases! {
    /// What happens to the host.
    HostFault {
        /// Too much work: answers are late, and the kernel says so.
        Pressed: "is pressed", undone by Calm;
        /// No longer.
        Calm: "is calm";
        /// Everything takes long, and nothing says why.
        Slow: "answers slowly", undone by Fast;
        /// No longer.
        Fast: "answers fast";
        /// The disk with the VMs is full.
        DiskFull: "has a full disk", undone by HasRoom;
        /// It has room.
        HasRoom: "has room";
        /// The disk with our own state is full.
        StateFull: "has a full state disk", undone by StateRoom;
        /// It has room.
        StateRoom: "has room for state";
        /// Nobody can ask how full its disks are.
        DisksUnknown: "does not tell of its disks", undone by DisksTold;
        /// They can be asked about again.
        DisksTold: "tells of its disks";
        /// Its kernel says that a disk request failed.
        PrintsIoError: "prints disk errors";
        /// Its kernel says that it killed a process for want of memory.
        PrintsOutOfMemory: "prints out of memory";
        /// Its kernel says that its memory is failing.
        PrintsHardware: "prints failing memory";
        /// Its kernel says that a network card has no link.
        PrintsLink: "prints a lost link";
        /// A small write to the disk with the VMs takes three seconds.
        DiskSlow: "has a slow disk", undone by DiskFast;
        /// It takes milliseconds again.
        DiskFast: "has a fast disk";
        /// The disk with the VMs takes no write from us.
        DiskGone: "has lost a disk", undone by DiskBack;
        /// It takes them again.
        DiskBack: "has its disk again";
        /// The power fails; it is back half a minute later.
        LosesPower: "loses power";
    }
}

phrases! {
    /// What happens to Holdfast itself.
    DaemonFault {
        /// kill -9.
        Crashes: "crashes", undone by Starts;
        /// It starts.
        Starts: "starts";
        /// SIGSTOP.
        Stalls: "stalls", undone by GoesOn;
        /// SIGCONT.
        GoesOn: "goes on";
        /// One record of its journal is damaged on disk.
        LosesRecord: "loses a journal record";
        /// A person has looked at the damaged state and accepts it.
        Accepted: "is told to go on with what is left";
    }
}

phrases! {
    /// What happens to one kind of order on its way to a VM.
    Quirk {
        /// It is refused, and certainly not done.
        Fails: "fails", undone by Works;
        /// It is done, and its answer is lost.
        Unanswered: "gets no answer", undone by Works;
        /// It is lost.
        Lost: "is lost", undone by Works;
        /// It is done, but only 45 s later.
        Late: "comes late", undone by Works;
        /// It works as ever.
        Works: "works";
    }
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented at its fault")]
pub enum Happening {
    Process(VmName, ProcessFault),
    Hypervisor(VmName, HypervisorFault),
    Guest(VmName, GuestFault),
    Agent(VmName, AgentFault),
    App(VmName, AppName, AppFault),
    Cable(VmName, CableFault),
    Disk(VmName, DiskFault),
    Order(String, VmName, Quirk),
    Host(HostFault),
    Daemon(DaemonFault),
    /// The configuration is read again, with or without this VM.
    Reload(Option<VmName>),
    /// Persons repair what is broken, and release what is held.
    Repair,
    /// Persons restart every VM that is ill.
    RestartIll,
    /// The wall clock jumps by so many seconds.
    WallClock(i64),
    Person(VmName, PersonWish),
}

impl Happening {
    /// What takes it back, if anything does.
    #[must_use]
    pub fn undo(&self) -> Option<Self> {
        Some(match self {
            Self::Process(vm, fault) => Self::Process(vm.clone(), fault.undo()?),
            Self::Hypervisor(vm, fault) => Self::Hypervisor(vm.clone(), fault.undo()?),
            Self::Guest(vm, fault) => Self::Guest(vm.clone(), fault.undo()?),
            Self::Agent(vm, fault) => Self::Agent(vm.clone(), fault.undo()?),
            Self::App(vm, app, fault) => Self::App(vm.clone(), app.clone(), fault.undo()?),
            Self::Cable(vm, fault) => Self::Cable(vm.clone(), fault.undo()?),
            Self::Disk(vm, fault) => Self::Disk(vm.clone(), fault.undo()?),
            Self::Order(order, vm, quirk) => Self::Order(order.clone(), vm.clone(), quirk.undo()?),
            Self::Host(fault) => Self::Host(fault.undo()?),
            Self::Daemon(fault) => Self::Daemon(fault.undo()?),
            Self::Reload(Some(_)) => Self::Reload(None),
            Self::Reload(None) | Self::WallClock(_) | Self::Person(..) => return None,
            Self::Repair | Self::RestartIll => return None,
        })
    }

    /// Reads one; `None` if nothing is written like that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once(' ')?;
        let of = |rest: &str| {
            let (name, what) = rest.strip_prefix("of ")?.split_once(' ')?;
            Some((name.parse::<VmName>().ok()?, what.to_owned()))
        };
        let named = |rest: &str| {
            let (name, what) = rest.split_once(' ')?;
            Some((name.to_owned(), what.to_owned()))
        };
        match first {
            "process" => named(rest)
                .and_then(|(vm, what)| Some(Self::Process(vm.parse().ok()?, ProcessFault::parse(&what)?))),
            "guest" => named(rest)
                .and_then(|(vm, what)| Some(Self::Guest(vm.parse().ok()?, GuestFault::parse(&what)?))),
            "app" => named(rest).and_then(|(name, what)| {
                let (vm, app) = name.split_once('/')?;
                Some(Self::App(vm.parse().ok()?, app.parse().ok()?, AppFault::parse(&what)?))
            }),
            "hypervisor" => {
                of(rest).and_then(|(vm, what)| Some(Self::Hypervisor(vm, HypervisorFault::parse(&what)?)))
            }
            "agent" => of(rest).and_then(|(vm, what)| Some(Self::Agent(vm, AgentFault::parse(&what)?))),
            "cable" => of(rest).and_then(|(vm, what)| Some(Self::Cable(vm, CableFault::parse(&what)?))),
            "disk" => of(rest).and_then(|(vm, what)| Some(Self::Disk(vm, DiskFault::parse(&what)?))),
            "host" => HostFault::parse(rest).map(Self::Host),
            "daemon" => parse_daemon(rest),
            "wall" => parse_wall_clock(rest),
            "person" => person::parse(rest).map(|(vm, wish)| Self::Person(vm, wish)),
            "everything" if rest == "is repaired" => Some(Self::Repair),
            "everything" if rest == "ill is restarted" => Some(Self::RestartIll),
            order if ORDERS.contains(&order) => {
                of(rest).and_then(|(vm, what)| Some(Self::Order(order.to_owned(), vm, Quirk::parse(&what)?)))
            }
            _ => None,
        }
    }
}

/// The orders whose way can be disturbed, as [`holdfast_core::action::Order::name`] calls them.
pub const ORDERS: &[&str] = &[
    "inspect",
    "capture",
    "restart-app",
    "reset",
    "continue",
    "pause",
    "shutdown",
    "link-up",
    "link-down",
    "power-off",
    "take-lease",
    "adopt",
    "start",
    "release-lease",
];

fn parse_daemon(text: &str) -> Option<Happening> {
    match text.split_once("reloads") {
        Some(("", "")) => Some(Happening::Reload(None)),
        Some(("", vm)) => Some(Happening::Reload(Some(vm.strip_prefix(" without ")?.parse().ok()?))),
        _ => DaemonFault::parse(text).map(Happening::Daemon),
    }
}

fn parse_wall_clock(text: &str) -> Option<Happening> {
    let by = text.strip_prefix("clock jumps ")?;
    let (sign, by) = match by.strip_prefix("back by ") {
        Some(by) => (-1, by),
        None => (1, by.strip_prefix("ahead by ")?),
    };
    Some(Happening::WallClock(sign * i64::try_from(parse_duration(by)?.as_secs()).ok()?))
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(vm, fault) => write!(f, "process {vm} {}", fault.text()),
            Self::Hypervisor(vm, fault) => write!(f, "hypervisor of {vm} {}", fault.text()),
            Self::Guest(vm, fault) => write!(f, "guest {vm} {}", fault.text()),
            Self::Agent(vm, fault) => write!(f, "agent of {vm} {}", fault.text()),
            Self::App(vm, app, fault) => write!(f, "app {vm}/{app} {}", fault.text()),
            Self::Cable(vm, fault) => write!(f, "cable of {vm} {}", fault.text()),
            Self::Disk(vm, fault) => write!(f, "disk of {vm} {}", fault.text()),
            Self::Order(order, vm, quirk) => write!(f, "{order} of {vm} {}", quirk.text()),
            Self::Host(fault) => write!(f, "host {}", fault.text()),
            Self::Daemon(fault) => write!(f, "daemon {}", fault.text()),
            Self::Repair => f.write_str("everything is repaired"),
            Self::RestartIll => f.write_str("everything ill is restarted"),
            Self::Reload(None) => f.write_str("daemon reloads"),
            Self::Reload(Some(vm)) => write!(f, "daemon reloads without {vm}"),
            Self::WallClock(by) => {
                let way = if *by < 0 { "back" } else { "ahead" };
                let long = duration_text(Duration::from_secs(by.unsigned_abs()));
                write!(f, "wall clock jumps {way} by {long}")
            }
            Self::Person(vm, wish) => write!(f, "person {}", person::text(vm, *wish)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::action::Work;
    use holdfast_core::point::SnapshotId;

    fn every_happening() -> Vec<Happening> {
        let vm = || "web".parse::<VmName>().expect("a name");
        let app = || "db".parse::<AppName>().expect("a name");
        let mut all = vec![Happening::Reload(None), Happening::Reload(Some(vm())), Happening::WallClock(-60)];
        all.extend([Happening::Repair, Happening::RestartIll]);
        all.extend(ProcessFault::ALL.iter().map(|f| Happening::Process(vm(), *f)));
        all.extend(HypervisorFault::ALL.iter().map(|f| Happening::Hypervisor(vm(), *f)));
        all.extend(GuestFault::ALL.iter().map(|f| Happening::Guest(vm(), *f)));
        all.extend(AgentFault::ALL.iter().map(|f| Happening::Agent(vm(), *f)));
        all.extend(AppFault::ALL.iter().map(|f| Happening::App(vm(), app(), *f)));
        all.extend(CableFault::ALL.iter().map(|f| Happening::Cable(vm(), *f)));
        all.extend(DiskFault::ALL.iter().map(|f| Happening::Disk(vm(), *f)));
        all.extend(HostFault::ALL.iter().map(|f| Happening::Host(*f)));
        all.extend(DaemonFault::ALL.iter().map(|f| Happening::Daemon(*f)));
        let quirks = |order: &&str| {
            let order = (*order).to_owned();
            Quirk::ALL.iter().map(move |q| Happening::Order(order.clone(), vm(), *q)).collect::<Vec<_>>()
        };
        all.extend(ORDERS.iter().flat_map(quirks));
        let minute = Duration::from_secs(60);
        let wishes = [
            PersonWish::Start,
            PersonWish::Stop { at_once: false },
            PersonWish::Stop { at_once: true },
            PersonWish::Restart { at_once: false },
            PersonWish::Restart { at_once: true },
            PersonWish::Pause,
            PersonWish::Resume,
            PersonWish::Maintain(None),
            PersonWish::Maintain(Some(minute)),
            PersonWish::EndMaintenance,
            PersonWish::Release,
            PersonWish::Announce(Work::Backup, minute),
            PersonWish::EndWork(Work::Backup),
            PersonWish::Snapshot { memory: false },
            PersonWish::Snapshot { memory: true },
            PersonWish::Backup { warned: false },
            PersonWish::Backup { warned: true },
            PersonWish::GoBack { to: SnapshotId(7), resume: false },
            PersonWish::GoBack { to: SnapshotId(7), resume: true },
            PersonWish::Approve,
        ];
        all.extend(wishes.map(|wish| Happening::Person(vm(), wish)));
        all
    }

    #[test]
    fn everything_that_can_happen_is_read_as_it_is_written() {
        for happening in every_happening() {
            assert_eq!(Happening::parse(&happening.to_string()), Some(happening.clone()), "{happening}");
        }
    }

    #[test]
    fn what_takes_a_fault_back_is_a_happening_of_the_same_subject() {
        let stops = Happening::parse("process web stops");
        let goes_on = Happening::parse("process web goes on");
        assert_eq!(stops.and_then(|fault| fault.undo()), goes_on);
        assert_eq!(Happening::parse("process web dies").and_then(|fault| fault.undo()), None);
    }

    #[test]
    fn lengths_of_time_are_read_as_they_are_written() {
        for text in ["0ms", "40ms", "2.5s", "1.234s", "2s", "90s", "5m", "59m", "1h", "25h", "365d"] {
            let long = parse_duration(text);
            assert_eq!(long.map(duration_text).as_deref(), Some(if text == "0ms" { "0s" } else { text }));
        }
        assert_eq!(parse_duration("1 s"), None);
        assert_eq!(parse_duration("s"), None);
        assert_eq!(parse_duration("-1s"), None);
    }
}
