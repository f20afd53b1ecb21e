//! What settings must be together: times that fit each other (A10), and what only one VM may have (I1).

use super::files::{FileUse, Role, lexical, two_writers};
use super::problem::{Problem, Problems};
use super::section::{Section, Text, nearest};
use super::units::{quote, write_duration};
use super::{Frame, VmConfig};
use holdfast_core::plan::Tries;
use holdfast_core::policy::{BrakePolicy, Budget, VmPolicy};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::{Duration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

/// Less than three unanswered questions are no silence (`T_FRESH`, I10).
const FRESH: u32 = 3;

/// A storm must be visible before it is over.
pub fn brake(brake: &BrakePolicy, table: &Section<'_>, frame: &Frame<'_>) {
    let least = frame.period * FRESH;
    if brake.within < least {
        let error = "the brake looks at too short a time";
        let cause = format!(
            "`within` {} is less than 3 x `period` {} = {}: failures of one moment would not be seen together",
            write_duration(brake.within),
            write_duration(frame.period),
            write_duration(least),
        );
        let hint = format!("write `within = \"{}\"` or more in [brake]", write_duration(least));
        table.refuse(at_either(table, "within", frame, error, cause, hint));
    }
}

/// A problem between a setting of a table and the period, at whichever is written.
fn at_either(
    table: &Section<'_>,
    key: &str,
    frame: &Frame<'_>,
    error: impl Into<String>,
    cause: String,
    hint: String,
) -> Problem {
    match (&frame.period_place, table.has(key)) {
        (Some(period), false) => Problem::at(period.clone(), error, cause, hint),
        (Some(period), true) => {
            Problem::at(table.place(key), error, cause, hint).see(period.clone(), "the period")
        }
        (None, _) => Problem::at(table.place(key), error, cause, hint),
    }
}

/// The times of one VM must fit each other.
pub fn times(policy: &VmPolicy, recover: &Section<'_>, frame: &Frame<'_>) {
    let show = write_duration;
    let (verify, boot) = (policy.verify_for, policy.boot_limit);
    if verify > boot {
        let cause = format!(
            "`verify` {} is more than `boot_limit` {}: each recovery would be given up before it is proved",
            show(verify),
            show(boot)
        );
        let key = if recover.has("verify") { "verify" } else { "boot_limit" };
        let hint = "shorten `verify` or raise `boot_limit`";
        recover.refuse(Problem::at(recover.place(key), "no recovery could ever be proved", cause, hint));
    }
    if verify < frame.period {
        let cause = format!(
            "`verify` {} is less than `period` {}: it could end before anything was asked",
            show(verify),
            show(frame.period)
        );
        let hint = format!("write `verify = \"{}\"` or more", show(frame.period));
        recover.refuse(at_either(recover, "verify", frame, "a recovery would count unseen", cause, hint));
    }
    let fresh = frame.period * FRESH;
    if policy.hang_after < fresh {
        let cause = format!(
            "`hang_after` {} is less than 3 x `period` {} = {}: two answers a little late would be a hang (I10)",
            show(policy.hang_after),
            show(frame.period),
            show(fresh)
        );
        let hint = format!("write `hang_after = \"{}\"` or more, or shorten the period", show(fresh));
        recover.refuse(at_either(
            recover,
            "hang_after",
            frame,
            "healthy guests would look hung",
            cause,
            hint,
        ));
    }
    budget(policy, recover);
}

/// All tries must fit into their window, or the first leaves it before the last is over, and the VM is
/// tried for ever (I6). Runs a guest that never comes up through the engine's own count.
fn budget(policy: &VmPolicy, recover: &Section<'_>) {
    let budget = policy.budget;
    let endless = Budget { within: Duration::MAX, ..budget };
    let each = policy.boot_limit.saturating_add(policy.verify_for);
    let mut tries = Tries::default();
    let mut now = Timestamp::ZERO;
    for _ in 0..budget.tries {
        now = now.max(tries.earliest(now, &endless));
        tries.spend(now, &endless);
        now = now + each;
    }
    if !tries.has_left(now, &budget) {
        return;
    }
    let cause = format!(
        "{} tries, each of `boot_limit` {} + `verify` {} = {} or its `backoff` where that is longer, take {}, not less \
         than `within` {}: the first would be forgotten before the last is over, and the VM never held (I6)",
        budget.tries,
        write_duration(policy.boot_limit),
        write_duration(policy.verify_for),
        write_duration(each),
        write_duration(now.since(Timestamp::ZERO)),
        write_duration(budget.within),
    );
    let key = ["within", "tries", "backoff", "boot_limit", "verify"].into_iter().find(|key| recover.has(key));
    let hint = "raise `within`, or lower `tries`, `backoff` or `boot_limit`";
    let place = recover.place(key.unwrap_or("within"));
    recover.refuse(Problem::at(place, "the tries do not fit into their window", cause, hint));
}

/// An application must be able to be late before its guest looks hung.
pub fn timeout(app: &AppName, timeout: Duration, place: &Range<usize>, policy: &VmPolicy, vm: &Section<'_>) {
    if timeout > policy.hang_after {
        let cause = format!(
            "`timeout` {} is more than `hang_after` {}: the guest would look hung while its answer is awaited",
            write_duration(timeout),
            write_duration(policy.hang_after)
        );
        let hint = "shorten the `timeout`, or raise `hang_after` in the VM's `recover`";
        let error = format!("application `{app}` is waited for too long");
        vm.refuse(Problem::at(place.clone(), error, cause, hint));
    }
}

/// What only one VM of a host may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alone {
    /// A port of this host.
    Port(SocketAddr),
    /// A tap interface.
    Tap(String),
    /// A MAC address.
    Mac(String),
    /// The address that its logs are sent from.
    Sender(IpAddr),
}

/// What the VMs of a file claim, to be compared when all are read.
#[derive(Default)]
pub struct Claims {
    /// All names of VMs, wrong ones too.
    pub names: BTreeSet<String>,
    /// The files they use.
    pub files: Vec<FileUse>,
    /// What each wants for itself.
    pub alone: Vec<(Alone, VmName, Range<usize>)>,
    /// Whom each needs, and whether it starts by itself.
    pub needs: Vec<(VmName, bool, Vec<Text>)>,
    /// The repositories they are backed up into.
    pub repositories: Vec<Text>,
    /// How many numbers of their users' own they have.
    pub numbers: usize,
}

impl Claims {
    /// Notes what two VMs claim, needs that cannot be met, and what is risky.
    pub fn check(&self, vms: &BTreeMap<VmName, VmConfig>, problems: &Problems, warnings: &Problems) {
        self.disks(problems);
        self.ports(problems, warnings);
        self.names_alone(problems);
        self.needs(problems);
        self.needs_that_wait(vms, warnings);
    }

    fn disks(&self, problems: &Problems) {
        let mut writers: BTreeMap<PathBuf, &FileUse> = BTreeMap::new();
        for disk in self.files.iter().filter(|file| file.role == Role::Disk) {
            match writers.get(&lexical(&disk.path)) {
                Some(first) => problems.push(two_writers(first, disk)),
                None => {
                    writers.insert(lexical(&disk.path), disk);
                }
            }
        }
    }

    fn ports(&self, problems: &Problems, warnings: &Problems) {
        type Taken<'c> = BTreeMap<IpAddr, (&'c VmName, &'c Range<usize>)>;
        let mut ports: BTreeMap<u16, Taken<'_>> = BTreeMap::new();
        for (claim, vm, place) in &self.alone {
            let Alone::Port(address) = claim else { continue };
            let taken = ports.entry(address.port()).or_default();
            // 0.0.0.0 takes the port on all addresses.
            let clash = if address.ip().is_unspecified() {
                taken.values().next()
            } else {
                taken.get(&address.ip()).or_else(|| taken.get(&IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
            };
            if let Some((first, there)) = clash {
                let error = format!("port {} is forwarded twice", address.port());
                let cause = format!("vm `{first}` has it already, so vm `{vm}` could not start");
                let problem = Problem::at(place.clone(), error, cause, "take another port of this host");
                problems.push(problem.see((*there).clone(), "the first"));
            } else {
                taken.insert(address.ip(), (vm, place));
            }
            if !address.ip().is_loopback() {
                let error = format!("port {} of vm `{vm}` is open to other machines", address.port());
                let cause = format!("{} is not an address of this machine alone", address.ip());
                let hint = "listen on 127.0.0.1 unless that is meant";
                warnings.push(Problem::at(place.clone(), error, cause, hint));
            }
        }
    }

    fn names_alone(&self, problems: &Problems) {
        let mut taken: BTreeMap<&Alone, (&VmName, &Range<usize>)> = BTreeMap::new();
        for (claim, vm, place) in &self.alone {
            let (what, hint) = match claim {
                Alone::Port(_) => continue,
                Alone::Tap(name) => {
                    (format!("interface {}", quote(name)), "give each VM its own tap interface")
                }
                Alone::Mac(mac) => {
                    (format!("MAC address {mac}"), "give one of them another: `mac = \"52:54:00:..\"`")
                }
                Alone::Sender(address) => {
                    (format!("the senders' address {address}"), "whose logs come from there must be clear")
                }
            };
            match taken.get(claim) {
                Some((first, there)) => {
                    let one =
                        if matches!(claim, Alone::Sender(_)) { "address of logs" } else { "network card" };
                    let error = format!("vm `{first}` and vm `{vm}` have one {one}");
                    let cause = format!("both have {what}");
                    let problem = Problem::at(place.clone(), error, cause, hint);
                    problems.push(problem.see((*there).clone(), "the first"));
                }
                None => {
                    taken.insert(claim, (vm, place));
                }
            }
        }
    }

    /// Unknown names, and circles (S56).
    fn needs(&self, problems: &Problems) {
        let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let numbers: BTreeMap<&str, usize> =
            self.needs.iter().enumerate().map(|(number, (vm, ..))| (vm.as_str(), number)).collect();
        let mut edges: Vec<Vec<(usize, Range<usize>)>> = Vec::new();
        for (vm, _, needs) in &self.needs {
            let mut out = Vec::new();
            for need in needs {
                let name = need.get_ref().as_str();
                if let Some(number) = numbers.get(name) {
                    out.push((*number, need.span()));
                } else if !self.names.contains(name) {
                    let error = format!("vm `{vm}` needs {}, which is no VM here", quote(name));
                    let cause = "it would wait for ever";
                    let near = if problems.is_full() { None } else { nearest(name, &known) };
                    let hint = near.map(|near| format!("did you mean `{near}`?"));
                    let hint = hint.unwrap_or_else(|| "name a VM of this file".into());
                    problems.push(Problem::at(need.span(), error, cause, hint));
                }
            }
            edges.push(out);
        }
        for circle in circles(&edges) {
            let names: Vec<&str> = circle.path.iter().map(|number| self.needs[*number].0.as_str()).collect();
            let error = "the VMs need each other in a circle";
            let cause = format!("{}: none of them could be first", chain(&names));
            problems.push(Problem::at(circle.place, error, cause, "take one of these needs away"));
        }
    }

    fn needs_that_wait(&self, vms: &BTreeMap<VmName, VmConfig>, warnings: &Problems) {
        for (vm, autostart, needs) in &self.needs {
            for need in needs {
                let meant = need.get_ref().parse().ok().and_then(|name: VmName| vms.get(&name));
                if *autostart && meant.is_some_and(|meant| !meant.policy.autostart) {
                    let error = format!("vm `{vm}` will wait for a person");
                    let cause = format!("it needs {}, which has `autostart = false`", quote(need.get_ref()));
                    let hint = "start that one by hand, or let it start by itself";
                    warnings.push(Problem::at(need.span(), error, cause, hint));
                }
            }
        }
    }
}

/// `a -> b -> a`, the middle left out where it is long.
fn chain(names: &[&str]) -> String {
    let first = names.first().copied().unwrap_or_default();
    if names.len() <= 8 {
        return format!("{} -> {first}", names.join(" -> "));
    }
    let last = names[names.len() - 1];
    format!("{} -> .. {} more .. -> {last} -> {first}", names[..6].join(" -> "), names.len() - 7)
}

/// A circle, and where the need that closes it is written.
struct Circle {
    path: Vec<usize>,
    place: Range<usize>,
}

/// More circles than these are not looked for.
const MOST_CIRCLES: usize = 20;

/// The circles that a walk meets, each at the need that closes it. Does not call itself: a chain may be
/// as long as the file.
fn circles(edges: &[Vec<(usize, Range<usize>)>]) -> Vec<Circle> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::Not; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        if seen[start] != Seen::Not {
            continue;
        }
        seen[start] = Seen::OnPath;
        let mut path = vec![(start, 0)];
        while let Some((node, next)) = path.last_mut() {
            let Some((to, place)) = edges[*node].get(*next) else {
                seen[*node] = Seen::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match seen[*to] {
                Seen::Not => {
                    seen[*to] = Seen::OnPath;
                    path.push((*to, 0));
                }
                Seen::OnPath if found.len() == MOST_CIRCLES => return found,
                Seen::OnPath => {
                    let from = path.iter().position(|(node, _)| node == to).unwrap_or(0);
                    let path = path[from..].iter().map(|(node, _)| *node).collect();
                    found.push(Circle { path, place: place.clone() });
                }
                Seen::Done => {}
            }
        }
    }
    found
}
