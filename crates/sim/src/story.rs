//! A story: why it is told, the world it happens in, what happens, and nothing of what Holdfast does
//! about it. Read from text and written as text (STYLE 3.7), so that a failing seed can be kept as a file.

use crate::faults::Happening;
use crate::snapshots::schedule;
use crate::words::{duration_text, parse_duration};
use holdfast_core::isolate::Isolation;
use holdfast_core::policy::{Ability, AppPolicy, Budget, Mode, VmPolicy};
use holdfast_core::subject::{AppName, HostName, VmName};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A story.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// Why it is told, and which invariants it is about: the first lines.
    pub why: Vec<String>,
    /// Where it happens.
    pub host: HostName,
    /// The VMs.
    pub vms: Vec<VmSetup>,
    /// What happens.
    pub events: Vec<Event>,
    /// What closed incidents have taught is used (`learn = "use"`).
    pub learns: bool,
    /// All faults are over then; some time later every VM must be well or held (I21).
    pub heals: Option<Duration>,
    /// When it ends; `None`: two minutes after the last event with a time.
    pub until: Option<Duration>,
}

/// One VM as it is before the story begins.
#[derive(Clone, Debug, PartialEq)]
pub struct VmSetup {
    /// Its name.
    pub name: VmName,
    /// What is wanted for it.
    pub policy: VmPolicy,
    /// How long it takes from power-on until its applications answer.
    pub boots_in: Duration,
    /// It is connected through a tap: it can be pinged, and silence means "unreachable". Otherwise through
    /// user-mode networking, which takes connections for a silent guest.
    pub tap: bool,
    /// A check inside the guest is configured for each application.
    pub checked: bool,
    /// A guest agent is installed.
    pub agent: bool,
    /// The guest feeds its virtual watchdog, which bites after so long.
    pub watchdog: Option<Duration>,
    /// How it is found.
    pub found: FoundAs,
    /// Its process takes four seconds to die.
    pub large: bool,
}

/// How a VM is found when the story begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundAs {
    /// It runs, under its lease.
    Running,
    /// It runs, and no lease is on record.
    Unleased,
    /// It does not run and never has.
    Off,
}

/// Something that happens, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub when: When,
    /// What.
    pub what: Happening,
    /// It is taken back after so long.
    pub lasting: Option<Duration>,
}

/// When something happens.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// At this time.
    At(Duration),
    /// Again and again, first after one period.
    Every {
        /// The period.
        period: Duration,
        /// How often.
        times: u32,
    },
    /// The first time that something is so.
    Upon(Moment),
}

/// A moment that depends on what Holdfast does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An intent for this order has become durable; nothing is done yet.
    Recorded(String, VmName),
    /// The order has been carried out; nobody has been told yet.
    Done(String, VmName),
    /// An incident of this VM has entered this phase.
    Phase(VmName, String),
}

/// What is wrong with a story.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct StoryError {
    /// In which line, from 1.
    pub line: usize,
    /// What.
    pub why: String,
}

impl VmSetup {
    /// A VM with nothing special about it, and one application called `db`.
    ///
    /// # Panics
    /// Never: `db` is a name.
    #[must_use]
    pub fn plain(name: VmName) -> Self {
        let app: AppName = "db".parse().expect("db is a name");
        let apps = [(app, AppPolicy { can_restart: true })].into();
        Self {
            name,
            policy: VmPolicy { apps, disk_path: "/vms".into(), ..VmPolicy::default() },
            boots_in: Duration::from_secs(6),
            tap: false,
            checked: false,
            agent: true,
            watchdog: None,
            found: FoundAs::Running,
            large: false,
        }
    }
}

/// The part of a story file below this line is the expected timeline.
pub const RULE: &str = "----";
/// The line that says so.
const LEARNS: &str = "lessons are used";

impl FromStr for Story {
    type Err = StoryError;

    fn from_str(text: &str) -> Result<Self, StoryError> {
        let mut reader = Reader::default();
        for (at, line) in text.lines().enumerate().take_while(|(_, line)| *line != RULE) {
            let (line, number) = (line.trim_end(), at + 1);
            reader.read(line).map_err(|why| StoryError { line: number, why })?;
        }
        reader.end().map_err(|why| StoryError { line: 1, why })
    }
}

#[derive(Default)]
struct Reader {
    why: Vec<String>,
    why_ended: bool,
    host: Option<HostName>,
    vms: Vec<VmSetup>,
    last: usize,      // how many VMs the clauses that follow are about
    named_apps: bool, // they have named their applications, so there is no usual one
    events: Vec<Event>,
    learns: bool,
    heals: Option<Duration>,
    until: Option<Duration>,
}

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), String> {
        if !self.why_ended {
            self.why_ended = line.is_empty();
            self.why.extend((!line.is_empty()).then(|| line.to_owned()));
            return Ok(());
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(at) = line.strip_prefix("all faults end at ") {
            self.heals = Some(duration(at)?);
            return Ok(());
        }
        if let Some(long) = line.strip_prefix("until ") {
            self.until = Some(duration(long)?);
            return Ok(());
        }
        if line == LEARNS {
            self.learns = true;
            return Ok(());
        }
        match line.split_once(": ") {
            Some((when, what)) => self.read_event(when, what),
            None => line.split(", ").try_for_each(|clause| self.read_clause(clause)),
        }
    }

    fn read_event(&mut self, when: &str, what: &str) -> Result<(), String> {
        let when = self.parse_when(when)?;
        let (what, lasting) = match Happening::parse(what) {
            Some(happening) => (happening, None),
            None => {
                let (short, long) =
                    what.rsplit_once(" for ").ok_or_else(|| format!("nobody knows what `{what}` is"))?;
                let happening =
                    Happening::parse(short).ok_or_else(|| format!("nobody knows what `{short}` is"))?;
                happening.undo().ok_or_else(|| format!("nothing takes `{short}` back"))?;
                (happening, Some(duration(long)?))
            }
        };
        self.events.push(Event { when, what, lasting });
        Ok(())
    }

    fn parse_when(&self, text: &str) -> Result<When, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let vm = |name: &str| {
            let name: VmName = name.parse().map_err(|e| format!("{name}: {e}"))?;
            let known = self.vms.iter().any(|vm| vm.name == name);
            known.then_some(name.clone()).ok_or_else(|| format!("there is no vm `{name}`"))
        };
        Ok(match words[..] {
            ["at", at] => When::At(duration(at)?),
            ["every", period, times, "times"] => {
                let times = times.parse().map_err(|_| format!("`{times}` is no number"))?;
                When::Every { period: duration(period.trim_end_matches(','))?, times }
            }
            ["when", order, "of", name, "is", "recorded"] => {
                When::Upon(Moment::Recorded(order.to_owned(), vm(name)?))
            }
            ["when", order, "of", name, "is", "done"] => {
                When::Upon(Moment::Done(order.to_owned(), vm(name)?))
            }
            ["when", name, "is", phase] => When::Upon(Moment::Phase(vm(name)?, phase.to_owned())),
            _ => {
                return Err(format!(
                    "`{text}` is no moment: write `at 60s`, `every 59m, 5 times` or `when ...`"
                ));
            }
        })
    }

    fn read_clause(&mut self, clause: &str) -> Result<(), String> {
        let words: Vec<&str> = clause.split(' ').collect();
        match words[..] {
            ["host", name] => {
                self.host = Some(name.parse().map_err(|e| format!("{name}: {e}"))?);
                Ok(())
            }
            ["vm", name, "on", host] => self.add_vms(vec![name.to_owned()], host),
            ["vms", first, "to", last, "on", host] => self.add_vms(range(first, last)?, host),
            _ => {
                let from = self.vms.len() - self.last;
                if self.last == 0 {
                    return Err(format!("`{clause}` is about no vm"));
                }
                if words[0] == "app" && !std::mem::replace(&mut self.named_apps, true) {
                    self.vms[from..].iter_mut().for_each(|vm| vm.policy.apps.clear());
                }
                self.vms[from..].iter_mut().try_for_each(|vm| vm_clause(vm, clause, &words))
            }
        }
    }

    fn add_vms(&mut self, names: Vec<String>, host: &str) -> Result<(), String> {
        if self.host.as_ref().is_none_or(|known| known.as_str() != host) {
            return Err(format!("there is no host `{host}`"));
        }
        (self.last, self.named_apps) = (names.len(), false);
        for name in names {
            let name: VmName = name.parse().map_err(|e| format!("{name}: {e}"))?;
            if self.vms.iter().any(|vm| vm.name == name) {
                return Err(format!("there are two VMs `{name}`"));
            }
            self.vms.push(VmSetup::plain(name));
        }
        Ok(())
    }

    fn end(self) -> Result<Story, String> {
        let host = self.host.ok_or("there is no `host` line")?;
        let told = self.why.first().is_some_and(|line| line.contains(": "));
        if !told {
            return Err("the first line says `NAME: why this is told, and which invariants`".into());
        }
        let Self { why, vms, events, learns, heals, until, .. } = self;
        Ok(Story { why, host, vms, events, learns, heals, until })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is no length of time: write `500ms`, `60s`, `1h`"))
}

fn range(first: &str, last: &str) -> Result<Vec<String>, String> {
    let split = |name: &str| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        name[stem.len()..]
            .parse::<u32>()
            .map(|n| (stem.to_owned(), n))
            .map_err(|_| format!("{name} has no number"))
    };
    let ((stem, from), (other, to)) = (split(first)?, split(last)?);
    if stem != other || from > to || to - from > 2_000 {
        return Err(format!("`{first} to {last}` is no range"));
    }
    Ok((from..=to).map(|n| format!("{stem}{n}")).collect())
}

fn vm_clause(vm: &mut VmSetup, clause: &str, words: &[&str]) -> Result<(), String> {
    let policy = &mut vm.policy;
    match *words {
        [tries, "tries", "in", within] => {
            let tries = tries.parse().map_err(|_| format!("`{tries}` is no number"))?;
            policy.budget = Budget { tries, within: duration(within)?, ..policy.budget };
        }
        ["back-off", long] => policy.budget.backoff = duration(long)?,
        ["boots", "in", long] => vm.boots_in = duration(long)?,
        ["boot", "limit", long] => policy.boot_limit = duration(long)?,
        ["verify", "for", long] => policy.verify_for = duration(long)?,
        ["hang", "after", long] => policy.hang_after = duration(long)?,
        ["watchdog", long] => vm.watchdog = Some(duration(long)?),
        ["needs", other] => policy.needs.push(other.parse().map_err(|e| format!("{other}: {e}"))?),
        ["no", "app"] => policy.apps.clear(),
        ["app", name] => add_app(policy, name, true)?,
        ["app", name, "without", "restart"] => add_app(policy, name, false)?,
        ["cannot", ability] => {
            let ability = ability_named(ability).ok_or_else(|| format!("`{ability}` is no ability"))?;
            policy.abilities.remove(&ability);
        }
        ["a", "snapshot", "every", long] => policy.protect.snapshot = Some(schedule(duration(long)?)),
        ["may", "lose", long] => policy.max_data_loss = duration(long)?,
        ["isolate", how] => {
            let ways = [Isolation::Network, Isolation::Pause];
            let way = ways.into_iter().find(|way| way.name() == how);
            policy.isolate = way.ok_or_else(|| format!("`{how}` is no way to isolate"))?;
        }
        ["observed"] => policy.mode = Mode::Observe,
        ["without", "autostart"] => policy.autostart = false,
        ["without", "agent"] => vm.agent = false,
        ["on", "a", "tap"] => vm.tap = true,
        ["checked"] => vm.checked = true,
        ["large"] => vm.large = true,
        ["off"] => vm.found = FoundAs::Off,
        ["found", "running"] => vm.found = FoundAs::Unleased,
        _ => return Err(format!("nobody knows what `{clause}` is")),
    }
    Ok(())
}

fn add_app(policy: &mut VmPolicy, name: &str, can_restart: bool) -> Result<(), String> {
    let name: AppName = name.parse().map_err(|e| format!("{name}: {e}"))?;
    policy.apps.insert(name, AppPolicy { can_restart });
    Ok(())
}

fn ability_named(text: &str) -> Option<Ability> {
    Ability::ALL.into_iter().find(|ability| ability_text(*ability) == text)
}

fn ability_text(ability: Ability) -> String {
    format!("{ability:?}").to_lowercase()
}

impl fmt::Display for VmSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Self::plain(self.name.clone());
        let (policy, usual) = (&self.policy, &plain.policy);
        let mut long = |text: &str, one: Duration, other: Duration| {
            if one == other { Ok(()) } else { write!(f, ", {text} {}", duration_text(one)) }
        };
        long("boots in", self.boots_in, plain.boots_in)?;
        long("boot limit", policy.boot_limit, usual.boot_limit)?;
        long("verify for", policy.verify_for, usual.verify_for)?;
        long("hang after", policy.hang_after, usual.hang_after)?;
        long("back-off", policy.budget.backoff, usual.budget.backoff)?;
        long("may lose", policy.max_data_loss, usual.max_data_loss)?;
        let every = policy.protect.snapshot.map(|schedule| schedule.every);
        long("a snapshot every", every.unwrap_or_default(), Duration::ZERO)?;
        long("watchdog", self.watchdog.unwrap_or_default(), Duration::ZERO)?;
        if policy.budget != (Budget { backoff: policy.budget.backoff, ..usual.budget }) {
            write!(f, ", {} tries in {}", policy.budget.tries, duration_text(policy.budget.within))?;
        }
        if policy.apps.is_empty() {
            f.write_str(", no app")?;
        }
        for (name, app) in policy.apps.iter().filter(|_| policy.apps != usual.apps) {
            write!(f, ", app {name}{}", if app.can_restart { "" } else { " without restart" })?;
        }
        let missing: BTreeSet<_> = usual.abilities.difference(&policy.abilities).collect();
        missing.into_iter().try_for_each(|ability| write!(f, ", cannot {}", ability_text(*ability)))?;
        policy.needs.iter().try_for_each(|other| write!(f, ", needs {other}"))?;
        if policy.isolate != usual.isolate {
            write!(f, ", isolate {}", policy.isolate.name())?;
        }
        let flags = [
            (policy.mode == Mode::Observe, "observed"),
            (!policy.autostart, "without autostart"),
            (!self.agent, "without agent"),
            (self.tap, "on a tap"),
            (self.checked, "checked"),
            (self.large, "large"),
            (self.found == FoundAs::Off, "off"),
            (self.found == FoundAs::Unleased, "found running"),
        ];
        flags.iter().filter(|(set, _)| *set).try_for_each(|(_, text)| write!(f, ", {text}"))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => write!(f, "at {}", duration_text(*at)),
            Self::Every { period, times } => write!(f, "every {}, {times} times", duration_text(*period)),
            Self::Upon(Moment::Recorded(order, vm)) => write!(f, "when {order} of {vm} is recorded"),
            Self::Upon(Moment::Done(order, vm)) => write!(f, "when {order} of {vm} is done"),
            Self::Upon(Moment::Phase(vm, phase)) => write!(f, "when {vm} is {phase}"),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "\nhost {}", self.host)?;
        self.vms.iter().try_for_each(|vm| writeln!(f, "vm {} on {}{vm}", vm.name, self.host))?;
        for event in &self.events {
            let lasting = event.lasting.map(|long| format!(" for {}", duration_text(long)));
            writeln!(f, "{}: {}{}", event.when, event.what, lasting.unwrap_or_default())?;
        }
        if self.learns {
            writeln!(f, "{LEARNS}")?;
        }
        self.heals.map_or(Ok(()), |at| writeln!(f, "all faults end at {}", duration_text(at)))?;
        self.until.map_or(Ok(()), |until| writeln!(f, "until {}", duration_text(until)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TEXT: &str = "S00: everything that a story can say. I1

host atlas
vm web on atlas, boots in 8s, watchdog 10s, 5 tries in 2h, app cache without restart, app db, cannot exec, needs db1, on a tap, large
vm db1 on atlas, off
at 60s: process web stops for 2.5s
every 59m, 5 times: process web dies
when power-off of web is recorded: daemon crashes for 3s
when web is waiting: person maintains web for 60s
lessons are used
all faults end at 4h
until 5h
";

    #[test]
    fn a_story_is_written_as_it_was_read() {
        assert_eq!(TEXT.parse::<Story>().unwrap().to_string(), TEXT);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = |line: &str| {
            let text = format!("X: why. I1\n\nhost atlas\nvm web on atlas\n{line}\n");
            text.parse::<Story>().unwrap_err().to_string()
        };
        assert_eq!(wrong("at 60s: guest web explodes"), "line 5: nobody knows what `guest web explodes` is");
        assert_eq!(
            wrong("at noon: guest web hangs"),
            "line 5: `noon` is no length of time: write `500ms`, `60s`, `1h`"
        );
        assert_eq!(wrong("at 1s: process web dies for 3s"), "line 5: nothing takes `process web dies` back");
        assert_eq!(wrong("when reset of db is done: daemon crashes"), "line 5: there is no vm `db`");
        assert_eq!(wrong("vm web on atlas"), "line 5: there are two VMs `web`");
        assert_eq!(wrong("flies"), "line 5: nobody knows what `flies` is");
    }

    #[test]
    fn fifty_vms_fit_in_a_line() {
        let text = "X: why. I11\n\nhost atlas\nvms web1 to web50 on atlas, boots in 9s\n";
        let story: Story = text.parse().unwrap();
        assert_eq!(story.vms.len(), 50);
        assert!(story.vms.iter().all(|vm| vm.boots_in == Duration::from_secs(9)));
    }
}
